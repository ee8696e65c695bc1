//! Quantities as types, to calculate with: bytes, vCPUs, percent, moments, and how each is printed. What people write of them,
//! with units, is read in `quantity`; what they apply to is in neither. Used by every other crate of the project.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An amount of memory or storage, in bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// 1024 bytes, the unit in which libvirt counts memory.
    pub const KIB: u64 = 1 << 10;
    /// 1024 KiB.
    pub const MIB: u64 = 1 << 20;
    /// 1024 MiB.
    pub const GIB: u64 = 1 << 30;

    /// `n` KiB; saturates instead of overflowing.
    pub const fn from_kib(n: u64) -> Self {
        Self(n.saturating_mul(Self::KIB))
    }

    /// `n` MiB; saturates instead of overflowing.
    pub const fn from_mib(n: u64) -> Self {
        Self(n.saturating_mul(Self::MIB))
    }

    /// Whole KiB, rounded down.
    pub const fn as_kib(self) -> u64 {
        self.0 / Self::KIB
    }

    /// Whole MiB, rounded down.
    pub const fn as_mib(self) -> u64 {
        self.0 / Self::MIB
    }

    /// The difference, never below zero.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The sum, never above the largest amount.
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Bytes {
    /// The largest binary unit that leaves no fraction, or one decimal of the largest that fits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, size) in [("GiB", Self::GIB), ("MiB", Self::MIB), ("KiB", Self::KIB)] {
            if self.0 >= size {
                if self.0.is_multiple_of(size) {
                    return write!(f, "{} {unit}", self.0 / size);
                }
                // Display only: a fraction of a unit has far fewer digits than an f64 holds.
                #[allow(clippy::cast_precision_loss)]
                return write!(f, "{:.1} {unit}", self.0 as f64 / size as f64);
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// A point in time, in milliseconds since the Unix epoch. The caller owns the clock: pure code never reads one,
/// and the daemon hands out moments that never go back while it runs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// Time since `earlier`; zero when `earlier` lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This moment, moved ahead by `duration`.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}
