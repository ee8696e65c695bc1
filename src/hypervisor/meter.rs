//! CPU time of vCPUs that are no threads of this host, so that nothing can be read of them in procfs: those of a simulated
//! hypervisor. The real one's are read by `observe` itself.

use std::fmt::Debug;
use std::time::Duration;

use super::DomainId;

/// What one vCPU has had since its domain was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuTimes {
    /// Time on a CPU of the host.
    pub run: Duration,
    /// Time of waiting for one.
    pub wait: Duration,
}

/// Tells the times of vCPUs.
pub trait VcpuMeter: Debug + Send + Sync + 'static {
    /// Of each plugged vCPU of a running domain, the lowest number first; `None` for a domain whose vCPUs are not metered.
    fn vcpu_times(&self, domain: DomainId) -> Option<Vec<VcpuTimes>>;
}
