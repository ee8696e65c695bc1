//! Versions of packages: which of two is later, and whether one is what is asked for. The order is Debian's (deb-version(7)), which is
//! that of RPM and apk too as far as versions are written alike.

use std::cmp::Ordering;

use agent_protocol::VersionWish;

/// Whether a version is what is asked for; of the newest that is for the package manager to say.
pub(super) fn satisfies(version: &str, wish: &VersionWish) -> bool {
    let against = |wanted: &str| compare(&alike(version, wanted), wanted);
    match wish {
        VersionWish::Any | VersionWish::Latest => true,
        VersionWish::Equal(wanted) => {
            let found = alike(version, wanted);
            compare(&found, wanted) == Ordering::Equal || begins_with(&found, wanted)
        }
        VersionWish::AtLeast(wanted) => against(wanted) != Ordering::Less,
        VersionWish::Above(wanted) => against(wanted) == Ordering::Greater,
        VersionWish::AtMost(wanted) => against(wanted) != Ordering::Greater,
        VersionWish::Below(wanted) => against(wanted) == Ordering::Less,
    }
}

/// A version without what the wanted one does not speak of: epoch and revision of the package.
fn alike(version: &str, wanted: &str) -> String {
    let (epoch, upstream, revision) = parts(version);
    let mut text = String::new();
    if wanted.contains(':') {
        text.push_str(epoch);
        text.push(':');
    }
    text.push_str(upstream);
    if wanted.contains('-') && !revision.is_empty() {
        text.push('-');
        text.push_str(revision);
    }
    text
}

/// `1.24` begins `1.24.3`, and not `1.240`.
fn begins_with(version: &str, start: &str) -> bool {
    version
        .strip_prefix(start)
        .and_then(|rest| rest.chars().next())
        .is_some_and(|next| !next.is_ascii_alphanumeric() && next != '~')
}

/// Which of two versions is later.
pub(super) fn compare(one: &str, other: &str) -> Ordering {
    let (one, other) = (parts(one), parts(other));
    order(one.0, other.0)
        .then_with(|| order(one.1, other.1))
        .then_with(|| order(one.2, other.2))
}

/// Epoch, version of the program, revision of the package.
fn parts(version: &str) -> (&str, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Letters and signs by rank, then numbers by value, in turns.
fn order(mut one: &str, mut other: &str) -> Ordering {
    while !one.is_empty() || !other.is_empty() {
        let words = (split(&mut one, false), split(&mut other, false));
        let (mut left, mut right) = (words.0.chars(), words.1.chars());
        loop {
            let (a, b) = (left.next(), right.next());
            match rank(a).cmp(&rank(b)) {
                Ordering::Equal if a.is_none() => break,
                Ordering::Equal => {}
                unequal => return unequal,
            }
        }
        let (left, right) = (split(&mut one, true), split(&mut other, true));
        let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
        let numbers = left.len().cmp(&right.len()).then_with(|| left.cmp(right));
        if numbers != Ordering::Equal {
            return numbers;
        }
    }
    Ordering::Equal
}

/// Takes the digits, or all before the next digit, from the beginning.
fn split<'t>(text: &mut &'t str, digits: bool) -> &'t str {
    let end = text
        .find(|c: char| c.is_ascii_digit() != digits)
        .unwrap_or(text.len());
    let (taken, rest) = text.split_at(end);
    *text = rest;
    taken
}

/// A tilde comes before the end, the end before letters, letters before signs.
fn rank(c: Option<char>) -> u32 {
    match c {
        Some('~') => 0,
        None => 1,
        Some(c) if c.is_ascii_alphabetic() => u32::from(c) + 1,
        Some(c) => u32::from(c) + 0x20_0000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_dpkg() {
        let rising = [
            "0~beta",
            "0",
            "0.1",
            "0.9-1",
            "0.10-1",
            "1.0~rc1-1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-2",
            "1.0a-1",
            "1.0+dfsg-1",
            "1.0.1-1",
            "1.1-1",
            "1:0.1-1",
        ];
        for (at, one) in rising.iter().enumerate() {
            for (than, other) in rising.iter().enumerate() {
                assert_eq!(compare(one, other), at.cmp(&than), "{one} and {other}");
            }
        }
        assert_eq!(compare("1.02-0", "1.2-00"), Ordering::Equal);
    }

    #[test]
    fn what_a_wish_does_not_speak_of_does_not_count() {
        use VersionWish::{Above, AtLeast, AtMost, Below, Equal};
        let version = "1:1.24.3-2+deb12u1";
        for (wish, holds) in [
            (Equal("1.24".to_owned()), true),
            (Equal("1.24.3".to_owned()), true),
            (Equal("1.24.3-2+deb12u1".to_owned()), true),
            (Equal("1.24.3-2".to_owned()), true),
            (Equal("1.2".to_owned()), false),
            (Equal("1:1.24".to_owned()), true),
            (Equal("2:1.24".to_owned()), false),
            (AtLeast("1.24.3".to_owned()), true),
            (AtLeast("1.25".to_owned()), false),
            (Above("1.24.3".to_owned()), false),
            (Above("1.24".to_owned()), true),
            (AtMost("1.24.3".to_owned()), true),
            (Below("1.24.3".to_owned()), false),
            (Below("1.100".to_owned()), true),
        ] {
            assert_eq!(satisfies(version, &wish), holds, "{wish:?}");
        }
    }
}
