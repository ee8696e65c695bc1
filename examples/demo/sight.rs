//! What three sides show of the domain at one moment: the daemon, QEMU by way of `virsh`, and the guest itself.

use virt_persona::view::DomainView;

use crate::harness::{Domain, GuestStatus, MemoryDevice, Outcome, Witness};

/// Bytes in a MiB.
pub(crate) const MIB: u64 = 1 << 20;

/// The three of them, and what is the same in each when a step is complete.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    /// Absent before the daemon runs.
    pub(crate) host: Option<DomainView>,
    pub(crate) qemu_vcpus: u32,
    pub(crate) device: MemoryDevice,
    pub(crate) guest: GuestStatus,
    pub(crate) online: u32,
}

/// What a domain has, in the eyes of all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// vCPUs that work.
    pub(crate) vcpus: u32,
    /// Bytes.
    pub(crate) memory: u64,
}

/// Whether somebody's word is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Daemon {
    Runs,
    Absent,
}

impl Sight {
    pub(crate) fn take(domain: &Domain, witness: &Witness<'_>, daemon: Daemon) -> Outcome<Self> {
        let host = match daemon {
            Daemon::Runs => Some(domain.status()?),
            Daemon::Absent => None,
        };
        let guest = witness.status()?;
        Ok(Self {
            host,
            qemu_vcpus: domain.live_vcpus()?,
            device: domain.memory_device()?,
            online: guest.online()?,
            guest,
        })
    }

    /// The size on which all three agree; none while a step is on its way. A vCPU that is only offline in the guest is
    /// none that works, so there the plugged ones may be more.
    pub(crate) fn size(&self) -> Option<Size> {
        let host = self.host.as_ref()?;
        let vcpus = host.vcpus.requested.or(host.vcpus.plugged)?;
        let memory = host.memory.plugged?.0;
        let vcpus_agree = vcpus == self.online
            && host.vcpus.guest.is_none_or(|guest| guest == self.online)
            && host.vcpus.plugged == Some(self.qemu_vcpus)
            && self.qemu_vcpus >= self.online;
        let memory_agrees = host.memory.requested.is_none_or(|asked| asked.0 == memory)
            && self.device.requested == self.device.current;
        (vcpus_agree && memory_agrees).then_some(Size { vcpus, memory })
    }

    /// What the daemon shows.
    pub(crate) fn host_text(&self) -> String {
        let Some(host) = &self.host else {
            return "-".to_owned();
        };
        let plugged = known(host.vcpus.plugged);
        let vcpus = match host.vcpus.requested {
            Some(asked) if Some(asked) != host.vcpus.plugged => {
                format!("{} of {plugged} plugged", vcpus(asked))
            }
            _ => format!("{plugged} vCPU{}", plural(host.vcpus.plugged)),
        };
        let memory = host.memory.plugged.map(|bytes| bytes.0 / MIB);
        format!("{vcpus}, {} MiB", known(memory))
    }

    /// What libvirt shows.
    pub(crate) fn qemu_text(&self, boot_memory: u64) -> String {
        format!(
            "{}, {}+{} MiB",
            vcpus(self.qemu_vcpus),
            boot_memory / MIB,
            self.device.current / MIB
        )
    }

    /// What the guest shows.
    pub(crate) fn guest_text(&self) -> String {
        let many = if self.online == 1 { "" } else { "s" };
        let mut text = format!(
            "CPU{many} {}, {} MiB",
            self.guest.cpus_online,
            self.guest.mem_total / MIB
        );
        if self.guest.offered_rate > 0.0
            && let Some(rate) = self.guest.job_rate
        {
            text.push_str(&format!(", {rate:.0} jobs/s"));
        }
        text
    }

    /// Why the daemon leaves something alone, for a failure.
    pub(crate) fn holds(&self) -> String {
        let holds = self.host.iter().flat_map(|host| &host.holds);
        holds.map(|hold| format!("; {}", hold.reason)).collect()
    }

    /// The latest value of a metric in per cent, as the rules see it.
    pub(crate) fn per_cent(&self, metric: &str) -> String {
        let host = self.host.as_ref();
        host.and_then(|host| {
            host.readings
                .iter()
                .find(|reading| reading.metric == metric)
        })
        .and_then(|reading| reading.value)
        .map_or_else(|| "?".to_owned(), |value| format!("{value:.0} %"))
    }
}

/// A number of vCPUs.
pub(crate) fn vcpus(number: u32) -> String {
    format!("{number} vCPU{}", plural(Some(number)))
}

fn plural(number: Option<u32>) -> &'static str {
    if number == Some(1) { "" } else { "s" }
}

fn known<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}
