//! Which protocol version two peers speak: each states a range, the highest common one holds. Both ends call it at hello.

use serde::{Deserialize, Serialize};

/// The protocol version that this crate describes.
pub const PROTOCOL: u32 = 1;

/// What this build can speak. The host keeps the previous version for one release, so that agents can lag behind.
pub const SUPPORTED: VersionRange = VersionRange {
    min: PROTOCOL,
    max: PROTOCOL,
};

/// An inclusive range of protocol versions; on the wire `[min, max]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u32)", into = "(u32, u32)")]
pub struct VersionRange {
    /// Lowest version spoken.
    pub min: u32,
    /// Highest version spoken.
    pub max: u32,
}

impl From<(u32, u32)> for VersionRange {
    fn from((min, max): (u32, u32)) -> Self {
        Self { min, max }
    }
}

impl From<VersionRange> for (u32, u32) {
    fn from(range: VersionRange) -> Self {
        (range.min, range.max)
    }
}

/// Two peers have no version in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no common protocol version: this side speaks {} to {}, the other {} to {}; update the older of daemon and agent",
    ours.min, ours.max, theirs.min, theirs.max
)]
pub struct NoCommonVersion {
    /// What this side speaks.
    pub ours: VersionRange,
    /// What the other side speaks.
    pub theirs: VersionRange,
}

/// The highest version in both ranges.
///
/// # Errors
/// [`NoCommonVersion`] when the ranges do not meet, or when one is upside down.
pub fn negotiate(ours: VersionRange, theirs: VersionRange) -> Result<u32, NoCommonVersion> {
    let highest = ours.max.min(theirs.max);
    let meets = theirs.min <= theirs.max && highest >= ours.min && highest >= theirs.min;
    if meets {
        Ok(highest)
    } else {
        Err(NoCommonVersion { ours, theirs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ours: (u32, u32), theirs: (u32, u32), expected: Option<u32>) {
        assert_eq!(
            negotiate(ours.into(), theirs.into()).ok(),
            expected,
            "{ours:?} {theirs:?}"
        );
    }

    #[test]
    fn the_highest_common_version_is_chosen() {
        check((1, 1), (1, 1), Some(1));
        check((1, 3), (2, 5), Some(3));
        check((2, 5), (1, 2), Some(2));
    }

    #[test]
    fn ranges_that_do_not_meet_or_are_upside_down_are_refused() {
        check((1, 1), (2, 3), None);
        check((4, 5), (1, 3), None);
        check((1, 9), (5, 2), None);
    }
}
