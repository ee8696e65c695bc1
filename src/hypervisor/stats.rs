//! Figures of domains as a hypervisor tells them in bulk: counters and the balloon's words, nothing reckoned from them.

use std::time::Duration;

use persona::units::Bytes;
use serde::{Deserialize, Serialize};

/// Figures of one domain from the bulk call, without waiting for its monitor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DomainStats {
    /// vCPUs plugged.
    pub vcpus_plugged: Option<u32>,
    /// What the balloon knows.
    pub balloon: BalloonStats,
    /// Disks; `None` where the hypervisor tells nothing of them.
    pub disks: Option<Vec<DiskStats>>,
}

/// One disk, CD-ROM drives and the like included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStats {
    /// The name that the definition gives it in the guest, such as `vda`.
    pub target: String,
    /// What the emulator has counted; absent where it could not be asked, or does not count this disk.
    pub counters: Option<DiskCounters>,
}

/// What the emulator has counted of a disk since it was attached. Requests count when they end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskCounters {
    /// Read requests.
    pub reads: u64,
    /// Write requests.
    pub writes: u64,
    /// Bytes read.
    pub read: Bytes,
    /// Bytes written.
    pub written: Bytes,
    /// Time from begin to end, summed over all read requests.
    pub read_time: Duration,
    /// The same of all write requests.
    pub write_time: Duration,
}

/// The balloon device's view of the guest's memory: the guest kernel's own claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonStats {
    /// Memory left to the guest by the balloon.
    pub current: Option<Bytes>,
    /// MemTotal of the guest.
    pub available: Option<Bytes>,
    /// MemAvailable of the guest.
    pub usable: Option<Bytes>,
    /// When the guest last updated these, Unix seconds.
    pub last_update: Option<u64>,
    /// Major faults since boot.
    pub major_faults: Option<u64>,
    /// Bytes swapped in since boot.
    pub swap_in: Option<Bytes>,
    /// Resident size of the emulator on the host.
    pub rss: Option<Bytes>,
}
