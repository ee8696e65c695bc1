//! What works for live scaling and what does not, each check with a sentence and how to mend it. Looks at what is known
//! already, and at what the host offers; changes nothing. Every name and sentence is in docs/troubleshooting.md.

mod agent;
mod host;
mod memory;
mod vcpus;

use persona::rule::Resource;
use persona::units::Moment;
use planner::offline::Offline;
use planner::state::ResourceState;

use super::Daemon;
use super::tracked::Tracked;
use crate::config::VcpuRemoval;
use crate::hypervisor::{Acceleration, DomainId};
use crate::observe::{Facilities, Kvm, Places};
use crate::view::{CheckState, CheckView, DoctorView};

/// Where checks go.
type Add<'a> = dyn FnMut(&'static str, CheckState, &str, Option<&str>) + 'a;

/// A domain with what else a check looks at.
struct Look<'a> {
    tracked: &'a Tracked,
    facilities: &'a Facilities,
    removal: VcpuRemoval,
    now: Moment,
    vcpus: Option<&'a ResourceState>,
    memory: Option<&'a ResourceState>,
    /// vCPUs that were taken offline and stay plugged.
    offline: Option<&'a Offline>,
    /// The daemon asks for figures of the balloon this often, in seconds.
    asked_s: u64,
}

impl Look<'_> {
    /// Whether a vCPU that the guest gives up stays plugged.
    fn stays_plugged(&self) -> bool {
        match self.removal {
            VcpuRemoval::Offline => true,
            VcpuRemoval::Unplug => false,
            VcpuRemoval::Auto => self.tracked.description.acceleration == Acceleration::Emulated,
        }
    }
}

impl Daemon {
    /// Checks the host and one domain, or all.
    pub(super) fn doctor(&self, only: Option<DomainId>) -> DoctorView {
        let facilities = Facilities::read(&Places::default());
        let mut checks = Vec::new();
        if only.is_none() {
            host::check(self, &facilities, &mut |name, state, sentence, mend| {
                checks.push(check(None, name, state, sentence, mend));
            });
        }
        for (id, tracked) in &self.domains {
            if only.is_none_or(|only| only == *id) {
                let carried = self.state.domain(*id);
                let look = Look {
                    tracked,
                    facilities: &facilities,
                    removal: self.config.vcpu.removal,
                    now: self.clock.now(),
                    vcpus: carried.map(|state| state.resource(Resource::Vcpus)),
                    memory: carried.map(|state| state.resource(Resource::Memory)),
                    offline: carried.and_then(|state| state.offline.as_ref()),
                    asked_s: self.config.tick.slow_interval_ms / 1000,
                };
                let name = Some(tracked.description.name.as_str());
                domain(&look, &mut |check_name, state, sentence, mend| {
                    checks.push(check(name, check_name, state, sentence, mend));
                });
            }
        }
        DoctorView { checks }
    }
}

fn check(
    domain: Option<&str>,
    name: &str,
    state: CheckState,
    sentence: &str,
    mend: Option<&str>,
) -> CheckView {
    CheckView {
        domain: domain.map(str::to_owned),
        name: name.to_owned(),
        state,
        sentence: sentence.to_owned(),
        mend: mend.map(str::to_owned),
    }
}

fn domain(look: &Look<'_>, add: &mut Add<'_>) {
    let tracked = look.tracked;
    if tracked.description.acceleration == Acceleration::Emulated
        && look.facilities.kvm == Kvm::Offered
    {
        add(
            "acceleration",
            CheckState::Warn,
            "the domain is emulated although this host's kernel offers KVM",
            Some(
                "write <domain type='kvm'> in the definition (`virsh edit`) and start the domain anew",
            ),
        );
    }
    vcpus::check(look, add);
    memory::check(look, add);
    agent::check(look, add);
    if let Some(problem) = &tracked.persona.problem {
        add(
            "persona",
            CheckState::Fail,
            problem,
            Some("see `virt-persona maps` and the domain's tags"),
        );
    }
    if let Some(detail) = tracked
        .persona
        .detail
        .as_deref()
        .filter(|_| tracked.persona.state == crate::view::ActivationState::Failed)
    {
        add(
            "activation",
            CheckState::Fail,
            detail,
            Some("mend the cause, then `virt-persona apply` it again"),
        );
    }
}
