//! The actions of the matrix: the domain of each, what makes the daemon take it, and where the domain is then.

use persona::domain::DomainId;
use persona::units::Bytes;
use virt_persona::hypervisor::MetadataElement;
use virt_persona::hypervisor::simulated::{CallName, Curve, Load, Shown, Simulated};
use virt_persona::view::{ActivationState, DomainView};

/// What can be done to a domain, by the call that it cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    Describe,
    PlugVcpu,
    UnplugVcpu,
    SettleUnplug,
    GrowDevice,
    ShrinkDevice,
    ShrinkBalloon,
    ReturnBalloon,
    AddDimm,
    TurnStatisticsOn,
    WriteStatus,
    BringOnline,
    TakeOffline,
    Activate,
    ConfirmMemory,
    SetLimit,
    ReadLimit,
}

pub(crate) const ACTIONS: [Action; 17] = [
    Action::Describe,
    Action::PlugVcpu,
    Action::UnplugVcpu,
    Action::SettleUnplug,
    Action::GrowDevice,
    Action::ShrinkDevice,
    Action::ShrinkBalloon,
    Action::ReturnBalloon,
    Action::AddDimm,
    Action::TurnStatisticsOn,
    Action::WriteStatus,
    Action::BringOnline,
    Action::TakeOffline,
    Action::Activate,
    Action::ConfirmMemory,
    Action::SetLimit,
    Action::ReadLimit,
];

/// The actions that a call is for. A new call needs one here, with a domain, a trigger and a goal below.
pub(crate) fn actions_of(call: CallName) -> &'static [Action] {
    match call {
        CallName::Describe => &[Action::Describe],
        CallName::SetVcpus => &[Action::PlugVcpu, Action::UnplugVcpu],
        CallName::HotpluggableVcpus => &[Action::SettleUnplug],
        CallName::SetVirtioMem => &[Action::GrowDevice, Action::ShrinkDevice],
        CallName::SetBalloon => &[Action::ShrinkBalloon, Action::ReturnBalloon],
        CallName::AttachDimm => &[Action::AddDimm],
        CallName::SetBalloonPeriod => &[Action::TurnStatisticsOn],
        CallName::SetMetadata => &[Action::WriteStatus],
        CallName::GuestCpus => &[Action::BringOnline, Action::TakeOffline],
        CallName::GuestActivation => &[Action::Activate],
        CallName::GuestReport => &[Action::ConfirmMemory],
        CallName::SetLimit => &[Action::SetLimit],
        CallName::Limits => &[Action::ReadLimit],
        // A person asks for these once and is told how they ended; nothing follows by itself (`adopt`).
        CallName::Definitions | CallName::Redefine | CallName::AttachDevice => &[],
    }
}

/// CPUs by their use, memory by its use: both ways.
pub(crate) const ELASTIC: &str = "
name: elastic
base_configuration:
  cpu: {min: 1, max: 4}
  memory: {min: 256 MiB, max: 1536 MiB}
  disk: {iops: 500}
adaptation_rules:
  - IF cpu.utilization > 80% FOR 3s THEN add 1 vcpus COOLDOWN 5s
  - IF cpu.utilization < 30% FOR 3s THEN remove 1 vcpus COOLDOWN 5s
  - IF memory.utilization > 70% FOR 3s THEN add 128 MiB memory COOLDOWN 5s
  - IF memory.utilization < 40% FOR 3s THEN remove 128 MiB memory COOLDOWN 5s
environment_variables:
  ROLE: matrix
";

impl Action {
    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }

    pub(crate) fn call(self) -> CallName {
        match self {
            Self::Describe => CallName::Describe,
            Self::PlugVcpu | Self::UnplugVcpu => CallName::SetVcpus,
            Self::SettleUnplug => CallName::HotpluggableVcpus,
            Self::GrowDevice | Self::ShrinkDevice => CallName::SetVirtioMem,
            Self::ShrinkBalloon | Self::ReturnBalloon => CallName::SetBalloon,
            Self::AddDimm => CallName::AttachDimm,
            Self::TurnStatisticsOn => CallName::SetBalloonPeriod,
            Self::WriteStatus => CallName::SetMetadata,
            Self::BringOnline | Self::TakeOffline => CallName::GuestCpus,
            Self::Activate => CallName::GuestActivation,
            Self::ConfirmMemory => CallName::GuestReport,
            Self::SetLimit => CallName::SetLimit,
            Self::ReadLimit => CallName::Limits,
        }
    }

    /// Its domain in the scenario.
    pub(crate) fn domain(self) -> String {
        let device = "virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]";
        let (vcpus, memory, more) = match self {
            Self::Describe | Self::GrowDevice | Self::ShrinkDevice | Self::ConfirmMemory => {
                (1, 512, device)
            }
            Self::UnplugVcpu | Self::TakeOffline | Self::SettleUnplug => (3, 512, ""),
            Self::ShrinkBalloon | Self::ReturnBalloon => (1, 1024, ""),
            Self::AddDimm => (1, 512, "memory_maximum_mib = 2048\ndimm_slots = 4"),
            Self::TurnStatisticsOn => (1, 512, "balloon = 'silent'"),
            Self::PlugVcpu | Self::BringOnline | Self::WriteStatus | Self::Activate => (1, 512, ""),
            Self::SetLimit | Self::ReadLimit => {
                (1, 512, "disks = [{ target = 'vda' }, { target = 'vdb' }]")
            }
        };
        let unplug = match self {
            // A guest that says nothing leaves the emulator to be asked.
            Self::SettleUnplug => "ignored",
            _ => "completes",
        };
        format!(
            "[[domain]]\nname = '{}'\nacceleration = 'kvm'\nvcpus = {vcpus}\nvcpus_maximum = 4\nmemory_mib = {memory}\n{more}\nagent_channel = 'FOLDER/{self:?}.sock'\nguest = {{ agent = 'simulated', unplug = '{unplug}' }}\n",
            self.name()
        )
    }

    /// What the guest has to do: CPUs, and MiB of memory. Before: `false`; from the trigger on: `true`.
    pub(crate) fn load(self, triggered: bool) -> (f64, u64) {
        match (self, triggered) {
            (Self::Describe | Self::GrowDevice | Self::ConfirmMemory | Self::AddDimm, true) => {
                (0.5, 500)
            }
            (Self::ShrinkDevice, false) => (0.5, 500),
            (Self::ShrinkDevice, true) => (0.5, 100),
            (Self::ShrinkBalloon, false) => (0.5, 600),
            (Self::ShrinkBalloon, true) => (0.5, 200),
            (Self::ReturnBalloon, false) => (0.5, 200),
            (Self::ReturnBalloon, true) => (0.5, 450),
            (Self::PlugVcpu | Self::BringOnline, true) => (1.5, 250),
            (Self::UnplugVcpu | Self::TakeOffline | Self::SettleUnplug, false) => (1.5, 250),
            (Self::UnplugVcpu | Self::TakeOffline | Self::SettleUnplug, true) => (0.4, 250),
            _ => (0.5, 250),
        }
    }

    /// Whether its persona is applied only with the trigger.
    pub(crate) fn begins_without_persona(self) -> bool {
        matches!(
            self,
            Self::WriteStatus
                | Self::Activate
                | Self::TurnStatisticsOn
                | Self::SetLimit
                | Self::ReadLimit
        )
    }

    /// Whether it is ready for the trigger.
    pub(crate) fn is_ready(self, shown: &Shown, view: &DomainView) -> bool {
        let active = view.activation.state == ActivationState::Active;
        (active || self.begins_without_persona())
            && match self {
                Self::ShrinkDevice => within(shown, 715, 1250),
                Self::ReturnBalloon => within(shown, 286, 500),
                _ => true,
            }
    }

    /// Whether it is where the persona wants it, by the world itself and by what the daemon shows.
    pub(crate) fn is_reached(self, simulated: &Simulated, view: &DomainView) -> bool {
        let Some(shown) = simulated.shown(view.id) else {
            return false;
        };
        let active = view.activation.state == ActivationState::Active
            && shown.persona.as_deref() == Some("elastic");
        active
            && match self {
                Self::PlugVcpu | Self::BringOnline => {
                    shown.online >= 2 && view.vcpus.guest == Some(shown.online)
                }
                // What the guest no longer uses counts as given back; the device may stay.
                Self::UnplugVcpu | Self::TakeOffline | Self::SettleUnplug => {
                    shown.online == 1
                        && view.vcpus.guest == Some(1)
                        && view.vcpus.plugged == Some(shown.vcpus)
                }
                Self::Describe | Self::GrowDevice | Self::ConfirmMemory | Self::AddDimm => {
                    within(&shown, 715, 1250) && agrees(&shown, view)
                }
                // Where the device was left alone, the balloon took from boot memory too, down to what the persona allows.
                Self::ShrinkDevice => within(&shown, 256, 512) && agrees(&shown, view),
                Self::ShrinkBalloon => within(&shown, 286, 500) && agrees(&shown, view),
                Self::ReturnBalloon => within(&shown, 643, 1024) && agrees(&shown, view),
                Self::TurnStatisticsOn => shown.statistics.is_some(),
                Self::WriteStatus => {
                    let element = MetadataElement::Status;
                    simulated
                        .metadata(view.id, element)
                        .is_some_and(|status| status.contains("elastic"))
                }
                Self::Activate => true,
                Self::SetLimit | Self::ReadLimit => is_limited(simulated, view.id, IOPS),
            }
    }
}

/// The limit of the disks in the persona.
const IOPS: u64 = 500;

pub(crate) fn is_limited(simulated: &Simulated, id: DomainId, iops: u64) -> bool {
    let limits = simulated.limits_of(id);
    limits.is_some_and(|limits| limits.disks.iter().all(|disk| disk.iops == iops))
}

pub(crate) fn within(shown: &Shown, low: u64, high: u64) -> bool {
    (Bytes::from_mib(low)..=Bytes::from_mib(high)).contains(&shown.memory)
}

/// Nothing is under way, and the daemon shows what is so.
pub(crate) fn agrees(shown: &Shown, view: &DomainView) -> bool {
    view.memory.plugged == Some(shown.memory) && view.memory.requested == Some(shown.memory)
}

pub(crate) fn load((cpus, memory): (f64, u64)) -> Load {
    #[allow(clippy::cast_precision_loss)]
    let memory = memory as f64;
    Load {
        cpu: Some(Curve::Constant { value: cpus }),
        memory: Some(Curve::Constant { value: memory }),
    }
}
