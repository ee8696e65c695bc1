//! The actions of the matrix: the domain of each, what makes the daemon take it, and where the domain is then. What a
//! person asks for is in `person`.

use persona::domain::DomainId;
use persona::rule;
use persona::units::Bytes;
use virt_persona::hypervisor::MetadataElement;
use virt_persona::hypervisor::simulated::{CallName, Curve, Load, Shown, Simulated};
use virt_persona::view::{ActivationState, DomainView};

/// The actions, each with the call that it cannot do without. None can be left out of the list of all.
macro_rules! actions {
    ($($action:ident: $call:ident,)*) => {
        /// What can be done to a domain, by the call that it cannot do without.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Action {
            $($action,)*
        }

        /// All of them.
        pub(crate) const ACTIONS: [Action; [$(Action::$action,)*].len()] = [$(Action::$action,)*];

        impl Action {
            pub(crate) fn call(self) -> CallName {
                match self {
                    $(Self::$action => CallName::$call,)*
                }
            }
        }
    };
}

actions! {
    Describe: Describe,
    PlugVcpu: SetVcpus,
    UnplugVcpu: SetVcpus,
    SettleUnplug: HotpluggableVcpus,
    GrowDevice: SetVirtioMem,
    ShrinkDevice: SetVirtioMem,
    ShrinkBalloon: SetBalloon,
    ReturnBalloon: SetBalloon,
    AddDimm: AttachDimm,
    TurnStatisticsOn: SetBalloonPeriod,
    WriteStatus: SetMetadata,
    WriteTags: SetMetadata,
    BringOnline: GuestCpus,
    TakeOffline: GuestCpus,
    Activate: GuestActivation,
    Deactivate: GuestActivation,
    Shift: GuestActivation,
    ShiftBack: GuestActivation,
    ConfirmMemory: GuestReport,
    AskBeforeShrink: GuestConsent,
    TellOfGrowth: GuestGrowth,
    SetLimit: SetLimit,
    ReadLimit: Limits,
    DoWhatIsApproved: SetVirtioMem,
    ReadDefinitions: Definitions,
    Redefine: Redefine,
    AttachDevice: AttachDevice,
}

/// The actions that a call is for, at least one. A new call needs one here, with a domain, a trigger and a goal below.
pub(crate) fn actions_of(call: CallName) -> (Action, &'static [Action]) {
    match call {
        CallName::Describe => (Action::Describe, &[]),
        CallName::SetVcpus => (Action::PlugVcpu, &[Action::UnplugVcpu]),
        CallName::HotpluggableVcpus => (Action::SettleUnplug, &[]),
        CallName::SetVirtioMem => (
            Action::GrowDevice,
            &[Action::ShrinkDevice, Action::DoWhatIsApproved],
        ),
        CallName::SetBalloon => (Action::ShrinkBalloon, &[Action::ReturnBalloon]),
        CallName::AttachDimm => (Action::AddDimm, &[]),
        CallName::SetBalloonPeriod => (Action::TurnStatisticsOn, &[]),
        CallName::SetMetadata => (Action::WriteStatus, &[Action::WriteTags]),
        CallName::GuestCpus => (Action::BringOnline, &[Action::TakeOffline]),
        CallName::GuestActivation => (
            Action::Activate,
            &[Action::Deactivate, Action::Shift, Action::ShiftBack],
        ),
        CallName::GuestReport => (Action::ConfirmMemory, &[]),
        CallName::GuestConsent => (Action::AskBeforeShrink, &[]),
        CallName::GuestGrowth => (Action::TellOfGrowth, &[]),
        CallName::SetLimit => (Action::SetLimit, &[]),
        CallName::Limits => (Action::ReadLimit, &[]),
        CallName::Definitions => (Action::ReadDefinitions, &[]),
        CallName::Redefine => (Action::Redefine, &[]),
        CallName::AttachDevice => (Action::AttachDevice, &[]),
    }
}

/// The action of the matrix by which what a rule says is carried out; nothing where nothing is asked of hypervisor or
/// guest. A new word of rules needs a place here.
pub(crate) fn action_of(word: &rule::Action) -> Option<Action> {
    match word {
        rule::Action::SetVcpus(_) | rule::Action::AddVcpus(_) => Some(Action::PlugVcpu),
        rule::Action::RemoveVcpus(_) => Some(Action::UnplugVcpu),
        rule::Action::SetMemory(_) | rule::Action::AddMemory(_) => Some(Action::GrowDevice),
        rule::Action::RemoveMemory(_) => Some(Action::ShrinkDevice),
        rule::Action::SetLimit(_) => Some(Action::SetLimit),
        rule::Action::ActivatePersona(_) => Some(Action::Shift),
        rule::Action::Revert => Some(Action::ShiftBack),
        // Recorded, and that is all.
        rule::Action::Notify(_) | rule::Action::Respond(_) => None,
        // Not done by this version.
        rule::Action::EnableFeature(_)
        | rule::Action::DisableFeature(_)
        | rule::Action::Run(_)
        | rule::Action::Apply { .. }
        | rule::Action::InstallPackage(_)
        | rule::Action::RemovePackage(_)
        | rule::Action::BlockAddresses { .. }
        | rule::Action::UnblockAddresses { .. }
        | rule::Action::Isolate
        | rule::Action::Restore
        | rule::Action::Redirect { .. }
        | rule::Action::CallWebhook(_) => None,
    }
}

/// CPUs by their use, memory by its use: both ways.
const ELASTIC: &str = "
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

/// Gives the domain another persona when much of its memory is in use, and is given back when little is.
const DAY: &str = "
name: day
adaptation_rules:
  - name: busy
    when: memory.utilization > 70% FOR 3s
    then: activate persona night
    until: memory.utilization < 40% FOR 3s
    cooldown: 5s
";

/// All documents.
pub(crate) fn documents() -> [String; 4] {
    let careful = ELASTIC.replace("name: elastic", "name: careful");
    [
        ELASTIC.into(),
        format!("{careful}trust_levels: {{resource_scaling: low}}\n"),
        DAY.into(),
        "name: night\n".into(),
    ]
}

/// How a domain comes by its persona.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// A person applies it before anything is wrong.
    Before,
    /// A person applies it with the trigger.
    WithTrigger,
    /// By its tag.
    ByTag,
    /// Not at all.
    Never,
}

impl Action {
    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }

    /// Its domain in the scenario.
    pub(crate) fn domain(self) -> String {
        let device = "virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]";
        let disks = "disks = [{ target = 'vda' }, { target = 'vdb' }]";
        let (vcpus, memory, more) = match self {
            Self::Describe
            | Self::GrowDevice
            | Self::ShrinkDevice
            | Self::ConfirmMemory
            | Self::AskBeforeShrink
            | Self::TellOfGrowth
            | Self::DoWhatIsApproved => (1, 512, device.into()),
            Self::Deactivate => (1, 512, format!("{device}\n{disks}")),
            Self::UnplugVcpu | Self::TakeOffline | Self::SettleUnplug => (3, 512, String::new()),
            Self::ShrinkBalloon | Self::ReturnBalloon => (1, 1024, String::new()),
            Self::AddDimm => (1, 512, "memory_maximum_mib = 2048\ndimm_slots = 4".into()),
            Self::TurnStatisticsOn => (1, 512, "balloon = 'silent'".into()),
            Self::PlugVcpu
            | Self::BringOnline
            | Self::WriteStatus
            | Self::WriteTags
            | Self::Activate => (1, 512, String::new()),
            Self::Shift | Self::ShiftBack => (1, 512, "tags = ['day']".into()),
            Self::SetLimit | Self::ReadLimit => (1, 512, disks.into()),
            Self::ReadDefinitions | Self::Redefine | Self::AttachDevice => {
                (1, 512, "numa_nodes = 0\nballoon = 'silent'".into())
            }
        };
        let maximum = if self.has_agent() { 4 } else { 1 };
        let unplug = match self {
            // A guest that says nothing leaves the emulator to be asked.
            Self::SettleUnplug => "ignored",
            _ => "completes",
        };
        let guest = if self.has_agent() {
            format!(
                "agent_channel = 'FOLDER/{self:?}.sock'\nguest = {{ agent = 'simulated', unplug = '{unplug}' }}\n"
            )
        } else {
            String::new()
        };
        format!(
            "[[domain]]\nname = '{}'\nacceleration = 'kvm'\nvcpus = {vcpus}\nvcpus_maximum = {maximum}\nmemory_mib = {memory}\n{more}\n{guest}",
            self.name()
        )
    }

    /// Whether there is an agent in its guest.
    pub(crate) fn has_agent(self) -> bool {
        !self.is_adoption()
    }

    /// Whether it is a part of preparing a domain for live scaling.
    pub(crate) fn is_adoption(self) -> bool {
        matches!(
            self,
            Self::ReadDefinitions | Self::Redefine | Self::AttachDevice
        )
    }

    /// What the guest has to do: CPUs, and MiB of memory. Before: `false`; from the trigger on: `true`.
    pub(crate) fn load(self, triggered: bool) -> (f64, u64) {
        match (self, triggered) {
            (
                Self::Describe
                | Self::GrowDevice
                | Self::ConfirmMemory
                | Self::AddDimm
                | Self::TellOfGrowth
                | Self::DoWhatIsApproved,
                true,
            ) => (0.5, 500),
            (Self::ShrinkDevice | Self::AskBeforeShrink | Self::Deactivate, false) => (0.5, 500),
            (Self::ShrinkDevice | Self::AskBeforeShrink | Self::Deactivate, true) => (0.5, 100),
            (Self::ShrinkBalloon, false) => (0.5, 600),
            (Self::ShrinkBalloon, true) => (0.5, 200),
            (Self::ReturnBalloon, false) => (0.5, 200),
            (Self::ReturnBalloon, true) => (0.5, 450),
            (Self::Shift, true) | (Self::ShiftBack, false) => (0.5, 450),
            (Self::ShiftBack, true) => (0.5, 100),
            (Self::PlugVcpu | Self::BringOnline, true) => (1.5, 250),
            (Self::UnplugVcpu | Self::TakeOffline | Self::SettleUnplug, false) => (1.5, 250),
            (Self::UnplugVcpu | Self::TakeOffline | Self::SettleUnplug, true) => (0.4, 250),
            _ => (0.5, 250),
        }
    }

    /// How it comes by its persona.
    pub(crate) fn bound(self) -> Bound {
        match self {
            Self::WriteStatus
            | Self::Activate
            | Self::TurnStatisticsOn
            | Self::SetLimit
            | Self::ReadLimit => Bound::WithTrigger,
            Self::Shift | Self::ShiftBack => Bound::ByTag,
            Self::WriteTags | Self::ReadDefinitions | Self::Redefine | Self::AttachDevice => {
                Bound::Never
            }
            _ => Bound::Before,
        }
    }

    /// The persona that it has before: `false`; and in the end: `true`.
    pub(crate) fn persona(self, triggered: bool) -> Option<&'static str> {
        match (self, triggered) {
            (Self::Shift, true) | (Self::ShiftBack, false) => Some("night"),
            (Self::Shift, false) | (Self::ShiftBack, true) => Some("day"),
            (Self::DoWhatIsApproved, _) => Some("careful"),
            (Self::Deactivate, true) => None,
            _ => match (self.bound(), triggered) {
                (Bound::Never, _) | (Bound::WithTrigger, false) => None,
                _ => Some("elastic"),
            },
        }
    }

    /// Whether guest and daemon agree that it has that persona.
    fn has_persona(self, triggered: bool, shown: &Shown, view: &DomainView) -> bool {
        let wanted = self.persona(triggered);
        let bound = view.persona.as_ref().map(|bound| bound.name.as_str());
        let settled = match wanted {
            Some(_) => view.activation.state == ActivationState::Active,
            None => view.activation.state == ActivationState::None,
        };
        settled && bound == wanted && shown.persona.as_deref() == wanted
    }

    /// Whether it is ready for the trigger.
    pub(crate) fn is_ready(self, shown: &Shown, view: &DomainView) -> bool {
        (view.agent.last_seen_ms.is_some() || !self.has_agent())
            && self.has_persona(false, shown, view)
            && match self {
                Self::ShrinkDevice | Self::AskBeforeShrink | Self::Deactivate => {
                    within(shown, 715, 1250)
                }
                Self::ReturnBalloon => within(shown, 286, 500),
                _ => true,
            }
    }

    /// Whether it is where the persona, or the person, wants it, by the world itself and by what the daemon shows. Of an
    /// adoption that is not shown: it is in `person`.
    pub(crate) fn is_reached(self, simulated: &Simulated, view: &DomainView) -> bool {
        let Some(shown) = simulated.shown(view.id) else {
            return false;
        };
        self.has_persona(true, &shown, view)
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
                Self::Describe
                | Self::GrowDevice
                | Self::ConfirmMemory
                | Self::AddDimm
                | Self::TellOfGrowth
                | Self::DoWhatIsApproved => within(&shown, 715, 1250) && agrees(&shown, view),
                // Where the device was left alone, the balloon took from boot memory too, down to what the persona allows.
                Self::ShrinkDevice | Self::AskBeforeShrink => {
                    within(&shown, 256, 512) && agrees(&shown, view)
                }
                // As it was before there was a persona.
                Self::Deactivate => {
                    within(&shown, 512, 512)
                        && agrees(&shown, view)
                        && is_limited(simulated, view.id, 0)
                }
                Self::ShrinkBalloon => within(&shown, 286, 500) && agrees(&shown, view),
                Self::ReturnBalloon => within(&shown, 643, 1024) && agrees(&shown, view),
                Self::TurnStatisticsOn => shown.statistics.is_some(),
                Self::WriteStatus => {
                    let element = MetadataElement::Status;
                    simulated
                        .metadata(view.id, element)
                        .is_some_and(|status| status.contains("elastic"))
                }
                Self::WriteTags => is_tagged(simulated, view.id) && view.tags == [TAG],
                Self::Activate | Self::Shift | Self::ShiftBack => true,
                Self::SetLimit | Self::ReadLimit => is_limited(simulated, view.id, IOPS),
                Self::ReadDefinitions | Self::Redefine | Self::AttachDevice => false,
            }
    }
}

/// The limit of the disks in the persona.
const IOPS: u64 = 500;

/// The tag that a person writes.
pub(crate) const TAG: &str = "matrix";

pub(crate) fn is_limited(simulated: &Simulated, id: DomainId, iops: u64) -> bool {
    let limits = simulated.limits_of(id);
    limits.is_some_and(|limits| limits.disks.iter().all(|disk| disk.iops == iops))
}

pub(crate) fn is_tagged(simulated: &Simulated, id: DomainId) -> bool {
    let tags = simulated.metadata(id, MetadataElement::Tags);
    tags.is_some_and(|tags| tags.contains(TAG))
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
