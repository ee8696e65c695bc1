//! Audit records on the wire. Their `detail` is JSON of any shape, which a dictionary would not give back as it was,
//! so it travels as text.

use serde_json::Value;
use zbus::{OwnedVariant, Str, Variant};

use super::dict::{Dict, from_dict, to_dict};
use crate::view::{AuditRecordView, AuditView};

/// A record as a dictionary.
pub(super) fn record_dict(record: &AuditRecordView) -> Dict {
    let mut bare = record.clone();
    let detail = std::mem::take(&mut bare.detail);
    let mut dict = to_dict(&bare);
    if !detail.is_null() {
        dict.insert(
            "detail".to_owned(),
            OwnedVariant::from(Str::from(detail.to_string())),
        );
    }
    dict
}

/// Records as dictionaries.
pub(super) fn record_dicts(audit: &AuditView) -> Vec<Dict> {
    audit.records.iter().map(record_dict).collect()
}

/// A dictionary as the record it was.
///
/// # Errors
/// Where a key that must be there is absent or has another type.
pub(super) fn record_from_dict(mut dict: Dict) -> Result<AuditRecordView, serde_json::Error> {
    let detail = match dict.remove("detail").as_deref() {
        Some(Variant::Str(text)) => serde_json::from_str(text.as_str())?,
        _ => Value::Null,
    };
    let mut record: AuditRecordView = from_dict(dict)?;
    record.detail = detail;
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use persona::units::Moment;
    use serde_json::json;

    #[test]
    fn a_detail_of_any_shape_survives_the_wire() {
        for detail in [
            json!(null),
            json!({"a": [1, null, "x", []]}),
            json!([1, 2.5]),
        ] {
            let record = AuditRecordView {
                seq: 7,
                at: Moment(1000),
                domain: None,
                domain_name: None,
                kind: "action".to_owned(),
                text: "web: 2 vCPUs".to_owned(),
                detail,
            };
            let back = record_from_dict(record_dict(&record)).expect("its own dictionary");
            assert_eq!(back, record);
        }
    }
}
