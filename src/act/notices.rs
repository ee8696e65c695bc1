//! What the hypervisor tells of devices while a step is under way: the daemon passes it on, and a step that waits hears it
//! at once instead of at its deadline. Nothing depends on a notice: one that is lost costs time.

use persona::domain::DomainId;
use tokio::sync::broadcast;

use crate::hypervisor::{AcpiSlot, HypervisorEvent};

/// Notices that wait for a step to hear them; a step that misses some falls back on its deadline.
const WAITING: usize = 64;

/// What is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notice {
    /// The guest refused to let a vCPU go.
    VcpuKept,
}

/// The way from the daemon to the steps under way.
#[derive(Clone, Debug)]
pub struct Notices {
    sender: broadcast::Sender<(DomainId, Notice)>,
}

impl Default for Notices {
    fn default() -> Self {
        let (sender, _) = broadcast::channel(WAITING);
        Self { sender }
    }
}

impl Notices {
    /// Passes on what concerns a step; everything else is of no interest here.
    pub fn tell(&self, event: &HypervisorEvent) {
        if let HypervisorEvent::AcpiStatus {
            domain,
            slot: AcpiSlot::Vcpu,
            status,
        } = event
            && is_refusal(*status)
        {
            // Nobody may be listening.
            let _ = self.sender.send((*domain, Notice::VcpuKept));
        }
    }

    pub(super) fn listen(&self, domain: DomainId) -> Listener {
        Listener {
            domain,
            receiver: self.sender.subscribe(),
        }
    }
}

/// What is heard of one domain from now on.
pub(super) struct Listener {
    domain: DomainId,
    receiver: broadcast::Receiver<(DomainId, Notice)>,
}

impl Listener {
    /// Ends when the guest refuses to let a vCPU go, and never otherwise.
    pub(super) async fn vcpu_kept(&mut self) {
        loop {
            match self.receiver.recv().await {
                Ok((domain, Notice::VcpuKept)) if domain == self.domain => return,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// The words of `_OST` for an ejection that does not take place: failures, and 128 to 131 for what is not supported, in
/// use, busy or depended on. 0 is done, 132 under way (ACPI 6.5, table 6.14).
fn is_refusal(status: u32) -> bool {
    matches!(status, 1 | 2 | 128..=131)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_refusal_of_a_vcpu_is_passed_on() {
        let notices = Notices::default();
        let (here, there) = (DomainId([1; 16]), DomainId([2; 16]));
        let mut listener = notices.listen(here);
        let acpi = |domain, slot, status| HypervisorEvent::AcpiStatus {
            domain,
            slot,
            status,
        };
        notices.tell(&acpi(there, AcpiSlot::Vcpu, 130));
        notices.tell(&acpi(here, AcpiSlot::Memory, 130));
        notices.tell(&acpi(here, AcpiSlot::Vcpu, 132));
        notices.tell(&acpi(here, AcpiSlot::Vcpu, 0));
        assert_eq!(
            listener.receiver.try_recv(),
            Ok((there, Notice::VcpuKept)),
            "the receiver tells domains apart"
        );
        assert!(listener.receiver.try_recv().is_err());
        notices.tell(&acpi(here, AcpiSlot::Vcpu, 130));
        assert_eq!(listener.receiver.try_recv(), Ok((here, Notice::VcpuKept)));
    }
}
