//! A hypervisor that cannot be asked, or whose connection breaks in the middle, and steps for a machine that is no more.

use persona::rule::{Knob, KnobValue};

use super::*;
use crate::hypervisor::{
    Answer, Definition, Definitions, DomainStats, HostFacts, HotpluggableVcpu, HypervisorError,
    LibraryError, Limits, MetadataElement,
};

/// A hypervisor whose connection breaks during every change.
pub(super) struct Breaking(pub(super) Arc<Simulated>);

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
