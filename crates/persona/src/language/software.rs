//! Packages as people write them: `Nginx (latest version)`, `Redis (caching)`, `>=1.22`.

use std::ops::Range;

use crate::model::{Constraint, Relation};

/// The parts of a package that is written as one text, with where each stands in it.
pub(super) struct Parts<'t> {
    pub(super) name: (&'t str, Range<usize>),
    /// What stands in parentheses behind it.
    pub(super) remark: Option<(&'t str, Range<usize>)>,
}

/// `NAME` or `NAME (REMARK)`.
pub(super) fn parts(text: &str) -> Parts<'_> {
    let part = |range: Range<usize>| {
        let inside = &text[range.clone()];
        let start = range.start + (inside.len() - inside.trim_start().len());
        let trimmed = inside.trim();
        (trimmed, start..start + trimmed.len())
    };
    let end = text.trim_end().len();
    match text.find('(') {
        Some(open) if text[..end].ends_with(')') => Parts {
            name: part(0..open),
            remark: Some(part(open + 1..end - 1)),
        },
        _ => Parts {
            name: part(0..end),
            remark: None,
        },
    }
}

/// Whether a remark speaks of a version, so that it is one or is wrong, and no purpose.
pub(super) fn speaks_of_version(remark: &str) -> bool {
    let lowered = remark.to_ascii_lowercase();
    constraint(remark).is_some()
        || lowered
            .starts_with(|c: char| c.is_ascii_digit() || matches!(c, '<' | '>' | '=' | '~' | '^'))
        || lowered
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(|word| word == "version" || word == "latest")
}

/// Which version a text asks for.
pub(crate) fn constraint(text: &str) -> Option<Constraint> {
    let lowered = text.trim().to_ascii_lowercase();
    let rest = lowered.strip_prefix("version ").unwrap_or(&lowered);
    let rest = rest.strip_suffix(" version").unwrap_or(rest).trim();
    match rest {
        "latest" | "newest" => return Some(Constraint::Latest),
        "any" => return Some(Constraint::Any),
        _ => {}
    }
    let relations = [
        (">=", Relation::AtLeast),
        ("<=", Relation::AtMost),
        ("==", Relation::Equal),
        (">", Relation::Above),
        ("<", Relation::Below),
        ("=", Relation::Equal),
    ];
    let (relation, version) = relations
        .iter()
        .find_map(|(sign, relation)| Some((*relation, rest.strip_prefix(sign)?.trim_start())))
        .unwrap_or((Relation::Equal, rest));
    let begins = version.starts_with(|c: char| c.is_ascii_digit());
    // What Debian and RPM admit in versions, but for the blanks and brackets that neither does.
    let allowed =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '~' | ':' | '-');
    (begins && version.len() <= LONGEST_VERSION && version.chars().all(allowed))
        .then(|| Constraint::Version(relation, version.to_owned()))
}

/// Longest version, in bytes.
const LONGEST_VERSION: usize = 64;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_people_write_them() {
        for (text, expected) in [
            ("latest", Some("latest")),
            ("latest version", Some("latest")),
            ("Latest Version", Some("latest")),
            ("1.24", Some("1.24")),
            ("version 1.24", Some("1.24")),
            (">=1.22", Some(">=1.22")),
            (">= 1.22", Some(">=1.22")),
            ("=1.2", Some("1.2")),
            ("< 2", Some("<2")),
            ("1:2.3~rc1-4+b1", Some("1:2.3~rc1-4+b1")),
            ("any", Some("any")),
            ("caching", None),
            ("metrics collection", None),
            ("1.2 or so", None),
            (">=", None),
            ("", None),
        ] {
            let found = constraint(text).map(|constraint| constraint.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_printed_constraint_reads_back() {
        for text in ["latest", "any", "1.24", ">=1.22", ">1", "<=2", "<3"] {
            let constraint = constraint(text).unwrap();
            assert_eq!(constraint.to_string(), text);
        }
    }

    #[test]
    fn a_remark_is_a_version_or_a_purpose() {
        for (remark, version) in [
            ("latest version", true),
            ("1.24", true),
            (">=1.22", true),
            ("latest stable", true),
            ("caching", false),
            ("metrics collection", false),
            ("conversion of pictures", false),
        ] {
            assert_eq!(speaks_of_version(remark), version, "{remark}");
        }
    }

    #[test]
    fn the_parts_of_a_package_have_their_places() {
        let text = "Nginx (latest version)";
        let parts = parts(text);
        assert_eq!(parts.name, ("Nginx", 0..5));
        assert_eq!(parts.remark, Some(("latest version", 7..21)));
        assert_eq!(super::parts("redis").remark, None);
        assert_eq!(super::parts("a (b").name.0, "a (b");
    }
}
