//! Every ending of a step, for both resources and both directions: a simulated hypervisor with faults on order, and a
//! guest that answers as it is told. Real time passes; nothing depends on how much. Here is what the tests in the files
//! below have in common.

mod mechanisms;
mod memory;
mod out_of_reach;
mod vcpus;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use persona::domain::DomainId;
use persona::rule::Resource;
use persona::units::Bytes;
use planner::report::Wish;
use planner::{Ending, Means, Step};

use super::guest::GuestAnswer;
use super::{Aftermath, CpusOnline, Guest, GuestFault, Hands, Notices, Outcome, Settings, act};
use crate::config::VcpuRemoval;
use crate::hypervisor::simulated::{self, AsItWas, CallName, Called, Fault, Scenario, Simulated};
use crate::hypervisor::{DomainDescription, Events, Hypervisor, RunState};

/// A guest that does what is asked and shows what is there, except where an answer was put in.
struct ScriptedGuest {
    hypervisor: Arc<Simulated>,
    cpus: Mutex<VecDeque<Result<u32, GuestFault>>>,
    memory: Mutex<VecDeque<Result<Bytes, GuestFault>>>,
    asked: Mutex<Vec<u32>>,
}

impl Guest for ScriptedGuest {
    fn online_cpus(&self, _: DomainId, target: u32, _: Duration) -> GuestAnswer<'_, CpusOnline> {
        self.asked.lock().unwrap().push(target);
        let scripted = self.cpus.lock().unwrap().pop_front();
        let answer = scripted.unwrap_or(Ok(target));
        Box::pin(async move {
            answer.map(|online| CpusOnline {
                online,
                present: online,
            })
        })
    }

    fn memory_total(&self, domain: DomainId, _: Duration) -> GuestAnswer<'_, Bytes> {
        let scripted = self.memory.lock().unwrap().pop_front();
        Box::pin(async move {
            if let Some(answer) = scripted {
                return answer;
            }
            let shown = self
                .hypervisor
                .describe(domain)
                .await
                .map_err(|error| GuestFault::Absent(error.to_string()))?;
            Ok(present(&shown, Resource::Memory).saturating_sub(Bytes::from_mib(20)))
        })
    }
}

fn present(shown: &DomainDescription, resource: Resource) -> Bytes {
    match resource {
        Resource::Vcpus => Bytes(shown.vcpus_plugged.into()),
        Resource::Memory => {
            let devices = shown.virtio_mem.iter().map(|device| device.current.0);
            let base = Bytes(shown.memory_boot.0 + shown.memory_dimms.0);
            let boot = shown.balloon_current.unwrap_or(base);
            Bytes(boot.0 + devices.sum::<u64>())
        }
    }
}

pub(super) struct Bench {
    pub(super) simulated: Arc<Simulated>,
    guest: Arc<ScriptedGuest>,
    pub(super) hands: Hands,
    pub(super) id: DomainId,
    _events: Events,
}

/// 512 MiB and one virtio-mem device of 1024; two of four vCPUs.
const DEVICE: &str = "virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]";
const BALLOON: &str = "";

impl Bench {
    pub(super) async fn new(extra: &str) -> Self {
        let text = format!(
            "deadline_ms = 1000\n[[domain]]\nname = 'web'\nvcpus_maximum = 4\nvcpus = 2\nmemory_mib = 512\n{extra}\n"
        );
        let (simulated, events) = simulated::open(Scenario::parse(&text).unwrap());
        let id = simulated.domains().await.unwrap()[0].id;
        let guest = Arc::new(ScriptedGuest {
            hypervisor: simulated.clone(),
            cpus: Mutex::default(),
            memory: Mutex::default(),
            asked: Mutex::default(),
        });
        let hands = Hands {
            hypervisor: simulated.clone(),
            guest: guest.clone(),
            notices: Notices::default(),
            settings: Settings {
                consent_deadline: Duration::from_secs(1),
                vcpu_deadline: Duration::from_millis(500),
                memory_deadline: Duration::from_secs(3),
                removal: VcpuRemoval::Auto,
            },
        };
        Self {
            simulated,
            guest,
            hands,
            id,
            _events: events,
        }
    }

    pub(super) async fn shown(&self) -> DomainDescription {
        self.simulated.describe(self.id).await.unwrap()
    }

    pub(super) fn fail(&self, call: CallName, fault: Fault) {
        self.simulated.fail_next(self.id, call, fault);
    }

    pub(super) fn refuse(&self, call: CallName) {
        let message = "the moon is full".into();
        self.fail(call, Fault::Refuse { message });
    }

    fn guest_says(&self, answer: Result<u32, GuestFault>) {
        self.guest.cpus.lock().unwrap().push_back(answer);
    }

    async fn step(&self, resource: Resource, from: u64, to: u64) -> Step {
        Step {
            domain: self.id,
            instance: self.shown().await.instance,
            resource,
            from,
            to,
            means: Means::Usual,
            by: Wish::Rule("test".into()),
            effect: None,
            consent: planner::Consent::Asked,
        }
    }

    async fn vcpus(&self, from: u64, to: u64) -> Outcome {
        act(&self.hands, self.step(Resource::Vcpus, from, to).await).await
    }

    async fn memory(&self, from: u64, to: u64) -> Outcome {
        let (from, to) = (Bytes::from_mib(from), Bytes::from_mib(to));
        act(&self.hands, self.step(Resource::Memory, from.0, to.0).await).await
    }

    /// What was asked of the hypervisor in vCPUs.
    fn vcpu_calls(&self) -> Vec<u32> {
        let calls = self.simulated.calls();
        let counts = calls.iter().filter_map(|call| match call {
            Called::SetVcpus { count, .. } => Some(*count),
            _ => None,
        });
        counts.collect()
    }

    /// What was asked of memory devices and balloon, in MiB.
    fn memory_calls(&self) -> Vec<u64> {
        let calls = self.simulated.calls();
        let sizes = calls.iter().filter_map(|call| match call {
            Called::SetVirtioMem { requested, .. } => Some(requested.as_mib()),
            Called::SetBalloon { target, .. } => Some(target.as_mib()),
            _ => None,
        });
        sizes.collect()
    }
}

#[track_caller]
fn check(outcome: &Outcome, ending: Ending, plugged: Option<u64>, guest: Option<u64>) {
    assert_eq!(outcome.ending, ending, "{}", outcome.sentence());
    assert_eq!(
        (outcome.plugged, outcome.guest),
        (plugged, guest),
        "{}",
        outcome.sentence()
    );
}

#[track_caller]
fn check_mib(outcome: &Outcome, ending: Ending, plugged: u64) {
    assert_eq!(outcome.ending, ending, "{}", outcome.sentence());
    assert_eq!(
        outcome.plugged,
        Some(Bytes::from_mib(plugged).0),
        "{}",
        outcome.sentence()
    );
}

#[track_caller]
fn noted(outcome: &Outcome, word: &str) {
    let note = outcome.note.as_deref().unwrap_or_default();
    assert!(note.contains(word), "{}", outcome.sentence());
}

fn gone() -> GuestFault {
    GuestFault::Absent("no agent".into())
}

fn silent() -> GuestFault {
    GuestFault::Unknown("no answer".into())
}

fn no() -> GuestFault {
    GuestFault::Refused("no such CPU".into())
}
