//! What works for live scaling and what does not, each check with a sentence and how to mend it. Looks at what is known
//! already; changes nothing.

use planner::snapshot::Run;
use planner::stage::Stage;

use super::Daemon;
use super::tracked::Tracked;
use crate::hypervisor::{Acceleration, DomainId};
use crate::view::{CheckState, CheckView, DoctorView, HypervisorState};

/// virtio-mem beyond so many times the boot memory needs more page structs than a guest has room for at boot.
const SANE_GROWTH: u64 = 32;

impl Daemon {
    /// Checks the host and one domain, or all.
    pub(super) fn doctor(&self, only: Option<DomainId>) -> DoctorView {
        let mut checks = if only.is_none() {
            self.host_checks()
        } else {
            Vec::new()
        };
        for (id, tracked) in &self.domains {
            if only.is_none_or(|only| only == *id) {
                checks.extend(domain_checks(tracked));
            }
        }
        DoctorView { checks }
    }

    fn host_checks(&self) -> Vec<CheckView> {
        let mut checks = Vec::new();
        let mut add = |name, state, sentence: String, mend: Option<&str>| {
            checks.push(check(None, name, state, sentence, mend));
        };
        match self.connection.state {
            HypervisorState::Connected => {
                let versions = match (&self.connection.library, &self.connection.emulator) {
                    (Some(library), Some(emulator)) => {
                        format!(" (libvirt {library}, QEMU {emulator})")
                    }
                    _ => String::new(),
                };
                add(
                    "hypervisor",
                    CheckState::Ok,
                    format!("connected to {}{versions}", self.connection.uri),
                    None,
                );
            }
            HypervisorState::Disconnected => add(
                "hypervisor",
                CheckState::Fail,
                format!(
                    "not connected to {}: {}",
                    self.connection.uri,
                    self.connection.detail.as_deref().unwrap_or("no answer yet")
                ),
                Some(
                    "start libvirtd (`systemctl start libvirtd`) and see that this daemon runs as root",
                ),
            ),
        }
        if let Some(host) = &self.host {
            let budget = self.config.budget.of(host);
            let held = self.ledger.map_or(0, |ledger| ledger.memory_granted);
            let over = held > budget.memory.0;
            add(
                "budget",
                if over { CheckState::Warn } else { CheckState::Ok },
                format!("{} vCPUs and {} for all domains; {} of the memory is held", budget.vcpus, budget.memory, super::tick::memory_text(Some(held))),
                over.then_some("domains hold more memory than the budget; none can grow until some is given back"),
            );
        }
        if let Some(ledger) = &self.ledger {
            let short = ledger.vcpus_stage.max(ledger.memory_stage) >= Stage::Scarce;
            add(
                "need",
                if short { CheckState::Warn } else { CheckState::Ok },
                format!("the host's state is {} for vCPUs and {} for memory", ledger.vcpus_stage, ledger.memory_stage),
                short.then_some("the host itself is short, so domains grow up to their share or their reservation only; stop or move some, or see what else takes its memory and CPUs"),
            );
        }
        if self.overruns > 0 {
            add(
                "tick",
                CheckState::Warn,
                format!(
                    "{} of {} ticks took longer than their interval",
                    self.overruns, self.ticks
                ),
                Some("raise tick.interval_ms, or see what slows the host down"),
            );
        }
        for problem in self.problems.values() {
            add("daemon", CheckState::Fail, problem.clone(), None);
        }
        for aside in self.store.stores_aside() {
            add(
                "store",
                CheckState::Warn,
                format!(
                    "a store that could not be read was set aside at {}",
                    aside.display()
                ),
                Some(
                    "personas and bindings in it are not in force; keep it for a repair, or remove it",
                ),
            );
        }
        checks
    }
}

fn check(
    domain: Option<&str>,
    name: &str,
    state: CheckState,
    sentence: String,
    mend: Option<&str>,
) -> CheckView {
    CheckView {
        domain: domain.map(str::to_owned),
        name: name.to_owned(),
        state,
        sentence,
        mend: mend.map(str::to_owned),
    }
}

fn domain_checks(tracked: &Tracked) -> Vec<CheckView> {
    let description = &tracked.description;
    let name = Some(description.name.as_str());
    let mut checks = Vec::new();
    let mut add = |check_name, state, sentence: &str, mend: Option<&str>| {
        checks.push(check(name, check_name, state, sentence.to_owned(), mend));
    };
    vcpu_check(tracked, &mut add);
    memory_check(tracked, &mut add);
    agent_check(tracked, &mut add);
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
    checks
}

type Add<'a> = dyn FnMut(&'static str, CheckState, &str, Option<&str>) + 'a;

fn vcpu_check(tracked: &Tracked, add: &mut Add<'_>) {
    let description = &tracked.description;
    if description.vcpus_maximum <= description.vcpus_fixed {
        add(
            "vcpu-hotplug",
            CheckState::Fail,
            &format!(
                "all {} vCPUs are there from the boot and none can be added or removed",
                description.vcpus_maximum
            ),
            Some(
                "set <vcpu current='1'>MAX</vcpu> in the definition (`virsh edit`) and start the domain anew",
            ),
        );
    } else {
        let emulated = description.acceleration == Acceleration::Emulated;
        let removal = if emulated {
            "; under emulation removed vCPUs are only taken offline in the guest"
        } else {
            ""
        };
        add(
            "vcpu-hotplug",
            CheckState::Ok,
            &format!(
                "{} to {} vCPUs{removal}",
                description.vcpus_fixed, description.vcpus_maximum
            ),
            None,
        );
    }
}

fn memory_check(tracked: &Tracked, add: &mut Add<'_>) {
    let description = &tracked.description;
    if let Some(most) = description
        .virtio_mem
        .iter()
        .map(|device| device.size.0)
        .reduce(u64::saturating_add)
    {
        let risky = most / SANE_GROWTH > description.memory_boot.0;
        add(
            "memory",
            if risky { CheckState::Warn } else { CheckState::Ok },
            &format!("virtio-mem adds up to {} to the {} at boot", persona::units::Bytes(most), description.memory_boot),
            risky.then_some("give the guest more boot memory: page structs of what is plugged have to fit into it"),
        );
        return;
    }
    let mend_device = if description.numa_nodes == 0 || description.memory_maximum.is_none() {
        "for growth add <maxMemory slots='8'>, one <numa> cell and a virtio-mem device to the definition (`virsh edit`) and start the domain anew"
    } else {
        "for growth attach a virtio-mem device (`virsh attach-device --live --config`)"
    };
    match (description.balloon_current, description.balloon_period) {
        (None, _) => add(
            "memory",
            CheckState::Fail,
            "the domain has neither a virtio-mem device nor a balloon, so its memory cannot be changed",
            Some(mend_device),
        ),
        (Some(_), period) => {
            add(
                "memory",
                CheckState::Warn,
                &format!(
                    "only the balloon: memory can be taken away and given back, up to the {} at boot",
                    description.memory_boot
                ),
                Some(mend_device),
            );
            if period.is_none() && tracked.run() == Run::Running {
                add(
                    "balloon-statistics",
                    CheckState::Warn,
                    "the balloon's statistics are off, so what the guest uses is known only from its agent",
                    Some(
                        "they are turned on when a persona that manages memory is in force, or with `virsh dommemstat DOMAIN --period 2 --live`",
                    ),
                );
            }
        }
    }
}

fn agent_check(tracked: &Tracked, add: &mut Add<'_>) {
    let description = &tracked.description;
    if let Some(facts) = &tracked.agent.facts {
        let text = format!("agent {} answers", facts.agent_version.as_str());
        add("agent", CheckState::Ok, &text, None);
        return;
    }
    if tracked.run() == Run::Off {
        add(
            "agent",
            CheckState::Ok,
            "the domain does not run, so its agent is not asked",
            None,
        );
    } else if description.agent_channel.is_none() {
        let mend = if description.virtio_serial {
            "attach <channel type='unix'><target type='virtio' name='org.virtpersona.agent.0'/></channel> (`virsh attach-device --live --config`) and install virt-persona-agent in the guest"
        } else {
            "add <channel type='unix'><target type='virtio' name='org.virtpersona.agent.0'/></channel> to the definition (`virsh edit`), start the domain anew, and install virt-persona-agent in the guest"
        };
        add(
            "agent",
            CheckState::Fail,
            "the domain has no channel for the agent",
            Some(mend),
        );
    } else {
        let trouble = tracked
            .agent
            .trouble
            .as_ref()
            .map_or("nobody answers on the agent's channel", |(_, text)| {
                text.as_str()
            });
        let state = if tracked.agent.trouble.is_some() {
            CheckState::Fail
        } else {
            CheckState::Warn
        };
        add(
            "agent",
            state,
            trouble,
            Some(
                "install and start virt-persona-agent in the guest; without it CPUs cannot be brought online and nothing inside is activated",
            ),
        );
    }
}
