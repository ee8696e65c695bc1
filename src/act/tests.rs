//! Every ending of a step, for both resources and both directions: a simulated hypervisor with faults on order, and a
//! guest that answers as it is told. Real time passes; nothing depends on how much.

mod mechanisms;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use persona::domain::DomainId;
use persona::rule::{Knob, KnobValue, Resource};
use persona::units::Bytes;
use planner::report::Wish;
use planner::{Ending, Means, Step};

use super::guest::GuestAnswer;
use super::{Aftermath, CpusOnline, Guest, GuestFault, Hands, Notices, Outcome, Settings, act};
use crate::config::VcpuRemoval;
use crate::hypervisor::simulated::{self, AsItWas, CallName, Called, Fault, Scenario, Simulated};
use crate::hypervisor::{
    Answer, Definition, Definitions, DomainDescription, DomainStats, Events, HostFacts,
    HotpluggableVcpu, Hypervisor, HypervisorError, LibraryError, Limits, MetadataElement, RunState,
};

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
const TWO_DEVICES: &str =
    "virtio_mem = [{ alias = 'one', size_mib = 128 }, { alias = 'two', size_mib = 512 }]";
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

#[tokio::test]
async fn a_vcpu_is_added_when_host_and_guest_show_it() {
    let bench = Bench::new("").await;
    let outcome = bench.vcpus(2, 3).await;
    check(&outcome, Ending::Applied, Some(3), Some(3));
    assert_eq!(outcome.requested, 3);
    assert_eq!(bench.vcpu_calls(), [3]);
}

#[tokio::test]
async fn a_guest_whose_kernel_notices_a_plugged_vcpu_late_is_asked_again() {
    let bench = Bench::new("").await;
    bench.guest_says(Err(no()));
    let outcome = bench.vcpus(2, 3).await;
    check(&outcome, Ending::Applied, Some(3), Some(3));
    assert_eq!(*bench.guest.asked.lock().unwrap(), [3, 3]);
}

#[tokio::test]
async fn a_vcpu_that_is_plugged_but_that_the_guest_does_not_bring_online_is_a_part_of_it() {
    for (answers, word) in [
        (vec![Err(gone())], "not asked"),
        (vec![Err(no()); 8], "refused"),
        // The agent answers, but the CPU does not come.
        (vec![Ok(2); 8], "did not bring all of it online"),
    ] {
        let bench = Bench::new("").await;
        for answer in answers {
            bench.guest_says(answer);
        }
        let outcome = bench.vcpus(2, 3).await;
        assert_eq!(outcome.ending, Ending::Partial, "{}", outcome.sentence());
        assert_eq!(outcome.plugged, Some(3));
        noted(&outcome, word);
    }
}

#[tokio::test]
async fn a_plugged_vcpu_that_stays_offline_is_no_change() {
    let bench = Bench::new("").await;
    // One was taken offline before: plugged are two, and one runs.
    bench.guest_says(Err(gone()));
    let outcome = bench.vcpus(1, 2).await;
    check(&outcome, Ending::Refused, Some(2), None);
    assert_eq!(bench.vcpu_calls(), [0; 0], "nothing needs to be plugged");
    let outcome = bench.vcpus(1, 2).await;
    check(&outcome, Ending::Applied, Some(2), Some(2));
}

#[tokio::test]
async fn a_guest_that_does_not_answer_leaves_the_outcome_unknown() {
    let bench = Bench::new("").await;
    bench.guest_says(Err(silent()));
    let outcome = bench.vcpus(2, 3).await;
    check(&outcome, Ending::Unknown, Some(3), None);
    bench.guest_says(Err(silent()));
    let outcome = bench.vcpus(3, 2).await;
    check(&outcome, Ending::Unknown, Some(3), None);
}

#[tokio::test]
async fn a_vcpu_that_the_hypervisor_refuses_is_refused_in_its_words() {
    let bench = Bench::new("").await;
    bench.refuse(CallName::SetVcpus);
    let outcome = bench.vcpus(2, 3).await;
    check(&outcome, Ending::Refused, Some(2), None);
    noted(&outcome, "the moon is full");
    assert_eq!(*bench.guest.asked.lock().unwrap(), [0; 0]);
}

#[tokio::test]
async fn a_vcpu_whose_plug_timed_out_counts_when_it_is_there_and_is_unknown_when_it_is_not() {
    let bench = Bench::new("").await;
    bench.fail(CallName::SetVcpus, Fault::AnswerLost);
    let outcome = bench.vcpus(2, 3).await;
    check(&outcome, Ending::Applied, Some(3), Some(3));
    noted(&outcome, "did not end within");
    let bench = Bench::new("").await;
    bench.fail(CallName::SetVcpus, Fault::Hang { ms: 300 });
    let outcome = bench.vcpus(2, 3).await;
    check(&outcome, Ending::Unknown, Some(2), None);
}

#[tokio::test]
async fn a_step_of_a_domain_that_cannot_be_described_is_refused_and_nothing_is_asked() {
    for resource in [Resource::Vcpus, Resource::Memory] {
        let bench = Bench::new(DEVICE).await;
        let step = bench.step(resource, 2, 3).await;
        bench.refuse(CallName::Describe);
        let outcome = act(&bench.hands, step).await;
        check(&outcome, Ending::Refused, None, None);
        assert_eq!(bench.simulated.calls(), []);
    }
}

#[tokio::test]
async fn a_step_for_an_earlier_instance_is_refused_and_nothing_is_asked() {
    for resource in [Resource::Vcpus, Resource::Memory] {
        let bench = Bench::new(DEVICE).await;
        let step = bench.step(resource, 2, 3).await;
        bench.simulated.set_state(bench.id, RunState::Off);
        bench.simulated.set_state(bench.id, RunState::Running);
        let outcome = act(&bench.hands, step).await;
        assert_eq!(outcome.ending, Ending::Refused, "{}", outcome.sentence());
        noted(&outcome, "started anew");
        assert_eq!(bench.simulated.calls(), []);
    }
}

#[tokio::test]
async fn removal_follows_its_policy() {
    for (acceleration, removal, plugged) in [
        ("kvm", VcpuRemoval::Auto, 1),
        ("emulated", VcpuRemoval::Auto, 2),
        ("kvm", VcpuRemoval::Offline, 2),
        ("emulated", VcpuRemoval::Unplug, 1),
    ] {
        let mut bench = Bench::new(&format!("acceleration = '{acceleration}'")).await;
        bench.hands.settings.removal = removal;
        let outcome = bench.vcpus(2, 1).await;
        check(&outcome, Ending::Applied, Some(plugged), Some(1));
        assert_eq!(
            outcome.note.is_some(),
            plugged == 2,
            "what stays plugged is said"
        );
    }
}

#[tokio::test]
async fn vcpus_are_unplugged_one_by_one_and_never_below_the_fixed_ones() {
    let bench = Bench::new("acceleration = 'kvm'\nvcpus_fixed = 2").await;
    assert_eq!(bench.vcpus(2, 4).await.ending, Ending::Applied);
    let outcome = bench.vcpus(4, 1).await;
    check(&outcome, Ending::Applied, Some(2), Some(1));
    assert_eq!(bench.vcpu_calls(), [4, 3, 2]);
}

#[tokio::test]
async fn an_unplug_that_times_out_still_counts_as_given_back_and_the_emulator_is_asked() {
    for (unplug, plugged) in [("times-out", 1), ("refused", 2)] {
        let mut bench = Bench::new(&format!("guest = {{ unplug = '{unplug}' }}")).await;
        bench.hands.settings.removal = VcpuRemoval::Unplug;
        let outcome = bench.vcpus(2, 1).await;
        check(&outcome, Ending::Applied, Some(plugged), Some(1));
        noted(&outcome, "unplugging ended with");
        assert!(
            bench
                .simulated
                .calls()
                .contains(&Called::HotpluggableVcpus { domain: bench.id })
        );
    }
}

#[tokio::test]
async fn vcpus_that_the_guest_keeps_are_neither_unplugged_nor_given_back() {
    for (answer, ending) in [
        (Err(gone()), Ending::Refused),
        (Err(no()), Ending::Refused),
        (Ok(3), Ending::Refused),
        (Ok(2), Ending::Partial),
    ] {
        let bench = Bench::new("acceleration = 'kvm'\nvcpus_fixed = 1").await;
        assert_eq!(bench.vcpus(2, 3).await.ending, Ending::Applied);
        bench.guest_says(answer);
        let outcome = bench.vcpus(3, 1).await;
        assert_eq!(outcome.ending, ending, "{}", outcome.sentence());
        assert_eq!(bench.shown().await.vcpus_plugged, 3);
    }
}

#[tokio::test]
async fn memory_grows_and_shrinks_when_the_device_and_the_guest_show_it() {
    let bench = Bench::new(DEVICE).await;
    let outcome = bench.memory(512, 768).await;
    check_mib(&outcome, Ending::Applied, 768);
    assert_eq!(outcome.guest, Some(Bytes::from_mib(748).0));
    assert_eq!(outcome.note, None);
    let outcome = bench.memory(768, 640).await;
    check_mib(&outcome, Ending::Applied, 640);
    assert_eq!(bench.memory_calls(), [256, 128]);
}

#[tokio::test]
async fn the_balloon_gives_and_takes_where_there_is_no_device() {
    let bench = Bench::new(BALLOON).await;
    check_mib(&bench.memory(512, 384).await, Ending::Applied, 384);
    check_mib(&bench.memory(384, 448).await, Ending::Applied, 448);
}

#[tokio::test]
async fn memory_that_no_agent_confirms_is_applied_on_the_drivers_word_and_that_is_said() {
    let bench = Bench::new(DEVICE).await;
    bench
        .guest
        .memory
        .lock()
        .unwrap()
        .extend([Err(gone()), Err(gone())]);
    let outcome = bench.memory(512, 640).await;
    check(
        &outcome,
        Ending::Applied,
        Some(Bytes::from_mib(640).0),
        None,
    );
    noted(&outcome, "no agent could confirm");
}

#[tokio::test]
async fn memory_that_the_guest_does_not_show_is_of_unknown_outcome() {
    let bench = Bench::new(DEVICE).await;
    let shown = Ok(Bytes::from_mib(492));
    bench
        .guest
        .memory
        .lock()
        .unwrap()
        .extend([shown.clone(), shown]);
    let outcome = bench.memory(512, 640).await;
    check_mib(&outcome, Ending::Unknown, 640);
    noted(&outcome, "the guest does not");
}

#[tokio::test]
async fn a_guest_that_follows_half_way_gets_the_pending_rest_taken_back() {
    let bench = Bench::new(DEVICE).await;
    bench.fail(CallName::SetVirtioMem, Fault::Partial { reaches_mib: 64 });
    let outcome = bench.memory(512, 768).await;
    check_mib(&outcome, Ending::Partial, 576);
    noted(&outcome, "taken back");
    assert_eq!(outcome.asked, outcome.plugged);
    let device = &bench.shown().await.virtio_mem[0];
    assert_eq!(
        (device.requested.as_mib(), device.current.as_mib()),
        (64, 64)
    );
}

#[tokio::test]
async fn a_guest_that_does_not_follow_at_all_has_refused() {
    let bench = Bench::new(DEVICE).await;
    bench.fail(CallName::SetVirtioMem, Fault::Partial { reaches_mib: 0 });
    let outcome = bench.memory(512, 768).await;
    check_mib(&outcome, Ending::Refused, 512);
    assert_eq!(bench.shown().await.virtio_mem[0].requested, Bytes(0));

    let bench = Bench::new(&format!("{BALLOON}\nguest = {{ memory_used_mib = 512 }}")).await;
    let outcome = bench.memory(512, 384).await;
    check_mib(&outcome, Ending::Refused, 512);
}

#[tokio::test]
async fn a_rest_that_cannot_be_taken_back_leaves_the_outcome_unknown() {
    let bench = Bench::new(DEVICE).await;
    bench.fail(CallName::SetVirtioMem, Fault::Partial { reaches_mib: 64 });
    bench.refuse(CallName::SetVirtioMem);
    let outcome = bench.memory(512, 768).await;
    check_mib(&outcome, Ending::Unknown, 576);
    noted(&outcome, "could not be taken back");
}

#[tokio::test]
async fn memory_that_the_hypervisor_refuses_is_refused_in_its_words() {
    for (extra, call, to) in [
        (DEVICE, CallName::SetVirtioMem, 640),
        (BALLOON, CallName::SetBalloon, 384),
    ] {
        let bench = Bench::new(extra).await;
        bench.refuse(call);
        let outcome = bench.memory(512, to).await;
        check_mib(&outcome, Ending::Refused, 512);
        noted(&outcome, "the moon is full");
    }
}

#[tokio::test]
async fn a_request_whose_answer_was_lost_is_watched_like_any_other() {
    for (extra, call, to) in [
        (DEVICE, CallName::SetVirtioMem, 640),
        (BALLOON, CallName::SetBalloon, 384),
    ] {
        let bench = Bench::new(extra).await;
        bench.fail(call, Fault::AnswerLost);
        let outcome = bench.memory(512, to).await;
        check_mib(&outcome, Ending::Applied, to);
        noted(&outcome, "did not end within");
    }
}

#[tokio::test]
async fn a_request_that_hangs_and_shows_nothing_is_of_unknown_outcome() {
    let bench = Bench::new(DEVICE).await;
    bench.fail(CallName::SetVirtioMem, Fault::Hang { ms: 2000 });
    let outcome = bench.memory(512, 640).await;
    check_mib(&outcome, Ending::Unknown, 512);
}

#[tokio::test]
async fn nothing_stays_pending_when_only_one_of_two_devices_could_be_asked() {
    let bench = Bench::new(TWO_DEVICES).await;
    bench.fail(CallName::SetVirtioMem, Fault::Slow { ms: 1 });
    bench.refuse(CallName::SetVirtioMem);
    let outcome = bench.memory(512, 896).await;
    check_mib(&outcome, Ending::Partial, 640);
    let shown = bench.shown().await;
    let requested: Vec<_> = shown
        .virtio_mem
        .iter()
        .map(|device| device.requested.as_mib())
        .collect();
    assert_eq!(requested, [128, 0]);
    assert_eq!(outcome.asked, outcome.plugged);
}

#[tokio::test]
async fn a_stuck_device_is_asked_for_another_size_and_then_again() {
    let mut bench = Bench::new(DEVICE).await;
    check_mib(&bench.memory(512, 768).await, Ending::Applied, 768);
    bench.hands.settings.memory_deadline = Duration::from_secs(20);
    bench.fail(CallName::SetVirtioMem, Fault::Partial { reaches_mib: 256 });
    let outcome = bench.memory(768, 640).await;
    check_mib(&outcome, Ending::Applied, 640);
    noted(&outcome, "asked twice");
    assert_eq!(bench.memory_calls(), [256, 128, 130, 128]);
}

#[tokio::test]
async fn a_domain_that_is_started_anew_in_the_middle_makes_no_claim_of_success() {
    let bench = Bench::new(&format!("{DEVICE}\nguest = {{ follow_ms = 300 }}")).await;
    check_mib(&bench.memory(512, 576).await, Ending::Applied, 576);
    // After the start the domain has just the size that the step was to reach.
    let step = bench
        .step(
            Resource::Memory,
            Bytes::from_mib(576).0,
            Bytes::from_mib(512).0,
        )
        .await;
    bench.fail(CallName::SetVirtioMem, Fault::Partial { reaches_mib: 64 });
    let hands = bench.hands.clone();
    let acting = tokio::spawn(async move { act(&hands, step).await });
    while bench.memory_calls().len() < 2 {
        tokio::task::yield_now().await;
    }
    bench.simulated.set_state(bench.id, RunState::Off);
    bench.simulated.set_state(bench.id, RunState::Running);
    let outcome = acting.await.unwrap();
    assert_eq!(outcome.ending, Ending::Unknown, "{}", outcome.sentence());
    noted(&outcome, "started anew meanwhile");
    assert_eq!(
        bench.memory_calls().len(),
        2,
        "the new instance is left alone"
    );
}

#[tokio::test]
async fn a_domain_that_is_undefined_in_the_middle_ends_its_step() {
    let mut bench = Bench::new(DEVICE).await;
    bench.hands.settings.memory_deadline = Duration::from_secs(3600);
    bench.fail(CallName::SetVirtioMem, Fault::Partial { reaches_mib: 0 });
    let step = bench
        .step(Resource::Memory, 0, Bytes::from_mib(640).0)
        .await;
    let hands = bench.hands.clone();
    let acting = tokio::spawn(async move { act(&hands, step).await });
    // The request has taken effect, not only begun: before that there would be nothing in doubt.
    while bench.shown().await.virtio_mem[0].requested == Bytes(0) {
        tokio::task::yield_now().await;
    }
    bench.simulated.remove_domain(bench.id);
    let outcome = acting.await.unwrap();
    assert_eq!(outcome.ending, Ending::Unknown, "{}", outcome.sentence());
}

/// A hypervisor whose connection breaks during every change.
struct Breaking(Arc<Simulated>);

fn broken<T: Send + 'static>(operation: &'static str) -> Answer<'static, T> {
    Box::pin(async move {
        Err(HypervisorError::Lost {
            operation,
            domain: "web".into(),
            source: LibraryError {
                message: "broken pipe".into(),
                code: None,
            },
        })
    })
}

impl Hypervisor for Breaking {
    fn host(&self) -> Answer<'_, HostFacts> {
        self.0.host()
    }
    fn domains(&self) -> Answer<'_, Vec<DomainDescription>> {
        self.0.domains()
    }
    fn describe(&self, domain: DomainId) -> Answer<'_, DomainDescription> {
        self.0.describe(domain)
    }
    fn bulk_stats(&self) -> Answer<'_, Vec<(DomainId, DomainStats)>> {
        self.0.bulk_stats()
    }
    fn set_vcpus(&self, _: DomainId, _: u32) -> Answer<'_, ()> {
        broken("set_vcpus")
    }
    fn set_virtio_mem(&self, _: DomainId, _: String, _: Bytes) -> Answer<'_, ()> {
        broken("set_virtio_mem")
    }
    fn attach_dimm(&self, _: DomainId, _: Bytes) -> Answer<'_, ()> {
        broken("attach_dimm")
    }
    fn set_balloon(&self, _: DomainId, _: Bytes) -> Answer<'_, ()> {
        broken("set_balloon")
    }
    fn set_balloon_period(&self, _: DomainId, _: Duration) -> Answer<'_, ()> {
        broken("set_balloon_period")
    }
    fn hotpluggable_vcpus(&self, _: DomainId) -> Answer<'_, Vec<HotpluggableVcpu>> {
        broken("hotpluggable_vcpus")
    }
    fn set_limit(&self, _: DomainId, _: Knob, _: KnobValue) -> Answer<'_, ()> {
        broken("set_limit")
    }
    fn limits(&self, domain: DomainId) -> Answer<'_, Limits> {
        self.0.limits(domain)
    }
    fn set_metadata(&self, _: DomainId, _: MetadataElement, _: Option<String>) -> Answer<'_, ()> {
        broken("set_metadata")
    }
    fn definitions(&self, domain: DomainId) -> Answer<'_, Definitions> {
        self.0.definitions(domain)
    }
    fn redefine(&self, _: DomainId, _: String, _: String) -> Answer<'_, Definition> {
        broken("redefine")
    }
    fn attach_device(&self, _: DomainId, _: String) -> Answer<'_, ()> {
        broken("attach_device")
    }
    fn guest_agent_command(&self, _: DomainId, _: String, _: Duration) -> Answer<'_, String> {
        broken("guest_agent_command")
    }
}

#[tokio::test]
async fn a_connection_that_breaks_during_a_call_leaves_the_outcome_unknown() {
    for resource in [Resource::Vcpus, Resource::Memory] {
        let mut bench = Bench::new(DEVICE).await;
        bench.hands.hypervisor = Arc::new(Breaking(bench.simulated.clone()));
        let outcome = match resource {
            Resource::Vcpus => bench.vcpus(2, 3).await,
            Resource::Memory => bench.memory(512, 640).await,
        };
        assert_eq!(outcome.ending, Ending::Unknown, "{}", outcome.sentence());
    }
}

#[tokio::test]
async fn a_step_that_finds_no_connection_was_not_tried_and_a_refusal_was() {
    for (resource, call) in [
        (Resource::Vcpus, CallName::SetVcpus),
        (Resource::Memory, CallName::SetVirtioMem),
    ] {
        let bench = Bench::new(DEVICE).await;
        let step = match resource {
            Resource::Vcpus => bench.step(resource, 2, 3).await,
            Resource::Memory => {
                let mib = |mib| Bytes::from_mib(mib).0;
                bench.step(resource, mib(512), mib(640)).await
            }
        };
        bench.refuse(call);
        let outcome = act(&bench.hands, step.clone()).await;
        assert_eq!(outcome.ending, Ending::Refused, "{}", outcome.sentence());
        assert!(!outcome.untried);
        bench
            .simulated
            .disconnect("the library's daemon was stopped");
        let outcome = act(&bench.hands, step.clone()).await;
        assert_eq!(outcome.ending, Ending::Refused, "{}", outcome.sentence());
        assert!(outcome.untried);
        noted(&outcome, "not reachable");
        bench.simulated.reconnect();
        let outcome = act(&bench.hands, step).await;
        assert_eq!(outcome.ending, Ending::Applied, "{}", outcome.sentence());
    }
}

#[test]
fn a_call_that_was_never_tried_has_no_effect() {
    let operation = "set_vcpus";
    let domain = || "web".to_owned();
    for (error, may) in [
        (HypervisorError::NotConnected { operation }, false),
        (
            HypervisorError::Busy {
                operation,
                domain: domain(),
            },
            false,
        ),
        (
            HypervisorError::TimedOut {
                operation,
                domain: domain(),
                seconds: 1,
            },
            true,
        ),
    ] {
        assert_eq!(error.may_have_taken_effect(), may, "{error}");
    }
}
