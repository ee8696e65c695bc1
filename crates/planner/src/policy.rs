//! The planner's own numbers, each with its reason. The daemon's configuration may change them; a persona may not.

use std::time::Duration;

use persona::units::Bytes;
use serde::{Deserialize, Serialize};

/// Limits that hold for every domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Smaller memory changes are not worth the guest's work of plugging and unplugging (others use 64 to 128 MiB).
    pub memory_change_minimum: Bytes,
    /// A shrink step is at most this share of the present size, in percent, but see the two limits below. Small
    /// steps leave the guest time to write back and drop caches before the next one.
    pub memory_shrink_percent: u32,
    /// A shrink step may always be this large, or small guests would never get smaller.
    pub memory_shrink_minimum: Bytes,
    /// No shrink step is larger than this, however large the guest.
    pub memory_shrink_maximum: Bytes,
    /// Memory is never shrunk below live use times this many percent: shrinking below use wakes the guest's OOM killer.
    pub memory_floor_percent: u32,
    /// Page structs of plugged memory cost 1/64 of it, from the memory the guest has free *before* the growth. A step
    /// may cost at most this share of it, in percent.
    pub page_struct_percent: u32,
    /// A change by hand is respected this long.
    pub hold: Duration,
    /// First wait after a step that did not take effect; doubles with each further failure.
    pub retry_after: Duration,
    /// So many failures in a row put the mechanism in quarantine.
    pub failures_before_quarantine: u32,
    /// How long a stuck mechanism is left alone.
    pub quarantine: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            memory_change_minimum: Bytes::from_mib(64),
            memory_shrink_percent: 5,
            memory_shrink_minimum: Bytes::from_mib(64),
            memory_shrink_maximum: Bytes::from_mib(256),
            memory_floor_percent: 130,
            page_struct_percent: 50,
            hold: Duration::from_secs(30 * 60),
            retry_after: Duration::from_secs(5),
            failures_before_quarantine: 3,
            quarantine: Duration::from_secs(10 * 60),
        }
    }
}
