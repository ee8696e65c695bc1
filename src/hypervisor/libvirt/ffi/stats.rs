//! Bulk statistics and the state of a domain, by calls that the wrapper leaves unusable: it neither reads nor frees the
//! records, and hides that the state could not be asked.

use std::ffi::CStr;
use std::os::raw::c_int;
use std::ptr;

use persona::domain::DomainId;
use virt::connect::Connect;
use virt::error::Error;
use virt::sys;

/// The figures of one domain from the bulk call, by libvirt's names.
#[derive(Debug)]
pub(in crate::hypervisor::libvirt) struct Figures {
    pub(in crate::hypervisor::libvirt) domain: DomainId,
    numbers: Vec<(&'static str, u64)>,
    /// `block.N.FIGURE`, in no order.
    pub(in crate::hypervisor::libvirt) disks: Vec<DiskFigure>,
}

/// One figure of one disk.
#[derive(Debug)]
pub(in crate::hypervisor::libvirt) struct DiskFigure {
    /// The disk's place in libvirt's list, which is another one when a disk before it is removed.
    pub(in crate::hypervisor::libvirt) place: u32,
    /// The figure.
    pub(in crate::hypervisor::libvirt) value: DiskValue,
}

/// A figure of a disk that is asked for.
#[derive(Debug)]
pub(in crate::hypervisor::libvirt) enum DiskValue {
    /// `name`: its name in the guest.
    Target(String),
    /// One of the wanted names, and its number.
    Number(&'static str, u64),
}

/// What is asked for: names of figures of a domain, and of each of its disks.
#[derive(Clone, Copy, Debug)]
pub(in crate::hypervisor::libvirt) struct Wanted {
    pub(in crate::hypervisor::libvirt) domain: &'static [&'static str],
    pub(in crate::hypervisor::libvirt) disk: &'static [&'static str],
}

impl Figures {
    /// The figure of this name, where libvirt gave it.
    pub(in crate::hypervisor::libvirt) fn get(&self, name: &str) -> Option<u64> {
        let found = self.numbers.iter().find(|(field, _)| *field == name);
        found.map(|(_, value)| *value)
    }
}

/// Figures of all running domains. Domains whose monitor is busy answer with what libvirt knows without it.
///
/// # Errors
///
/// The library's own.
pub(in crate::hypervisor::libvirt) fn all_domain_stats(
    connect: &Connect,
    wanted: Wanted,
) -> Result<Vec<Figures>, Error> {
    let groups =
        sys::VIR_DOMAIN_STATS_BALLOON | sys::VIR_DOMAIN_STATS_VCPU | sys::VIR_DOMAIN_STATS_BLOCK;
    let flags = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
        | sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;
    let mut records: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
    // SAFETY: the connection is live and `records` is a place for the list that the call allocates.
    let count = unsafe {
        sys::virConnectGetAllDomainStats(connect.as_ptr(), groups, &raw mut records, flags)
    };
    let Ok(count) = usize::try_from(count) else {
        return Err(Error::last_error());
    };
    let all = (0..count)
        // SAFETY: the call filled `count` records, all valid until the list is freed below.
        .filter_map(|index| unsafe { figures(*records.add(index), wanted) })
        .collect();
    // SAFETY: the list came from the call above, is freed once, and nothing borrowed from it is left.
    unsafe { sys::virDomainStatsRecordListFree(records) };
    Ok(all)
}

/// # Safety
///
/// `record` is valid, with `nparams` parameters.
unsafe fn figures(record: sys::virDomainStatsRecordPtr, wanted: Wanted) -> Option<Figures> {
    let mut id = [0; 16];
    // SAFETY: by the contract above; the buffer has VIR_UUID_BUFLEN bytes.
    let record = unsafe { &*record };
    // SAFETY: the record holds a live domain.
    if unsafe { sys::virDomainGetUUID(record.dom, id.as_mut_ptr()) } != 0 {
        return None;
    }
    let count = usize::try_from(record.nparams).unwrap_or(0);
    let mut figures = Figures {
        domain: DomainId(id),
        numbers: Vec::with_capacity(wanted.domain.len()),
        disks: Vec::new(),
    };
    for index in 0..count {
        // SAFETY: `params` has `nparams` entries.
        let parameter = unsafe { &*record.params.add(index) };
        // SAFETY: the field is a string of at most 80 bytes with its NUL.
        let field = unsafe { CStr::from_ptr(parameter.field.as_ptr()) }.to_bytes();
        let known = |names: &[&'static str], field: &[u8]| {
            let name = names.iter().find(|name| field == name.as_bytes());
            name.copied()
        };
        if let Some((place, field)) = disk_field(field) {
            let value = if field == b"name" {
                // SAFETY: the parameter is one of the record.
                unsafe { text(parameter) }.map(DiskValue::Target)
            } else {
                // SAFETY: the same.
                known(wanted.disk, field)
                    .zip(unsafe { number(parameter) })
                    .map(|(name, value)| DiskValue::Number(name, value))
            };
            figures
                .disks
                .extend(value.map(|value| DiskFigure { place, value }));
        } else if let Some(name) = known(wanted.domain, field) {
            // SAFETY: the same.
            let value = unsafe { number(parameter) };
            figures.numbers.extend(value.map(|value| (name, value)));
        }
    }
    Some(figures)
}

/// The place and the figure of `block.PLACE.FIGURE`; `None` for any other name.
fn disk_field(field: &[u8]) -> Option<(u32, &[u8])> {
    let rest = field.strip_prefix(b"block.")?;
    let point = rest.iter().position(|byte| *byte == b'.')?;
    let place = std::str::from_utf8(&rest[..point]).ok()?.parse().ok()?;
    Some((place, &rest[point + 1..]))
}

/// # Safety
///
/// `parameter` is one that libvirt filled.
unsafe fn number(parameter: &sys::virTypedParameter) -> Option<u64> {
    match sys::virTypedParameterType::try_from(parameter.type_) {
        // SAFETY: the type tells which member of the union is set.
        Ok(sys::VIR_TYPED_PARAM_UINT) => Some(u64::from(unsafe { parameter.value.ui })),
        // SAFETY: the same.
        Ok(sys::VIR_TYPED_PARAM_ULLONG) => Some(unsafe { parameter.value.ul }),
        // SAFETY: the same.
        Ok(sys::VIR_TYPED_PARAM_INT) => u64::try_from(unsafe { parameter.value.i }).ok(),
        // SAFETY: the same.
        Ok(sys::VIR_TYPED_PARAM_LLONG) => u64::try_from(unsafe { parameter.value.l }).ok(),
        _ => None,
    }
}

/// # Safety
///
/// `parameter` is one that libvirt filled.
unsafe fn text(parameter: &sys::virTypedParameter) -> Option<String> {
    if sys::virTypedParameterType::try_from(parameter.type_) != Ok(sys::VIR_TYPED_PARAM_STRING) {
        return None;
    }
    // SAFETY: the type tells which member of the union is set.
    let text = unsafe { parameter.value.s };
    if text.is_null() {
        return None;
    }
    // SAFETY: it is a string of the record, which lives on.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().ok().map(Into::into)
}

/// The state of a domain as `virDomainState`. The wrapper's own call hides that it failed.
///
/// # Errors
///
/// The library's own.
pub(in crate::hypervisor::libvirt) fn domain_state(
    domain: &virt::domain::Domain,
) -> Result<(u32, u32), Error> {
    let (mut state, mut reason): (c_int, c_int) = (0, 0);
    // SAFETY: the domain is live, and both numbers outlive the call, which writes them.
    let answer =
        unsafe { sys::virDomainGetState(domain.as_ptr(), &raw mut state, &raw mut reason, 0) };
    if answer < 0 {
        return Err(Error::last_error());
    }
    // Both begin at 0, which is the unknown one of either.
    let state = u32::try_from(state).unwrap_or(sys::VIR_DOMAIN_NOSTATE);
    Ok((state, u32::try_from(reason).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_disk_are_told_by_their_names() {
        let cases: [(&str, Option<(u32, &str)>); 8] = [
            ("block.0.name", Some((0, "name"))),
            ("block.12.rd.reqs", Some((12, "rd.reqs"))),
            ("block.count", None),
            ("block..rd.reqs", None),
            ("block.-1.rd.reqs", None),
            ("block.4294967296.rd.reqs", None),
            ("balloon.current", None),
            ("", None),
        ];
        for (field, expected) in cases {
            let expected = expected.map(|(place, name)| (place, name.as_bytes()));
            assert_eq!(disk_field(field.as_bytes()), expected, "{field}");
        }
    }
}
