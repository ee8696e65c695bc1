//! The calls of the simulated hypervisor: each runs in its domain's lane, meets the fault that is planned for it and
//! reads its answer off the machine.

use std::time::Duration;

use persona::domain::DomainId;
use persona::rule::{Knob, KnobValue};
use persona::units::Bytes;
use tokio::time::sleep;

use super::super::queue::Call;
use super::super::{
    Answer, Definition, Definitions, DomainDescription, DomainStats, HostFacts, HotpluggableVcpu,
    Hypervisor, HypervisorError, HypervisorEvent, LibraryError, Limits, MetadataElement,
};
use super::conduct::Conduct;
use super::fault::{CallName, Called, Fault};
use super::machine::{Machine, Outcome, Telling};
use super::world::State;
use super::{Lane, Simulated};

/// How often a call to a hanging monitor looks whether it still hangs.
const HANGING: Duration = Duration::from_millis(100);

/// A call under way, for its errors.
#[derive(Clone)]
struct Words {
    operation: &'static str,
    domain: DomainId,
    deadline: Duration,
}

impl Words {
    fn refused(&self, message: String) -> HypervisorError {
        HypervisorError::Failed {
            operation: self.operation,
            domain: self.domain.to_string(),
            source: LibraryError {
                message,
                code: None,
            },
        }
    }

    fn timed_out(&self) -> HypervisorError {
        HypervisorError::TimedOut {
            operation: self.operation,
            domain: self.domain.to_string(),
            seconds: self.deadline.as_secs(),
        }
    }

    fn lost(&self) -> HypervisorError {
        HypervisorError::Lost {
            operation: self.operation,
            domain: self.domain.to_string(),
            source: LibraryError {
                message: "client socket is closed".into(),
                code: None,
            },
        }
    }

    fn no_domain(&self) -> HypervisorError {
        HypervisorError::NoDomain {
            domain: self.domain.to_string(),
        }
    }

    fn not_connected(&self) -> HypervisorError {
        HypervisorError::NotConnected {
            operation: self.operation,
        }
    }
}

/// What a call makes of its machine; `limit` is where a partial effect ends.
type Effect =
    Box<dyn FnOnce(&mut Machine, Option<Bytes>) -> (Outcome, Vec<HypervisorEvent>) + Send>;

impl Simulated {
    /// Runs a call with its faults in the domain's lane, and then reads the answer off the machine.
    async fn call<T: Send + 'static>(
        &self,
        lane: Lane,
        name: CallName,
        called: Option<Called>,
        effect: Effect,
        answer: impl FnOnce(&Machine) -> T + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let (Lane::Read(domain) | Lane::Change(domain)) = lane;
        let words = Words {
            operation: name.operation(),
            domain,
            deadline: self.deadline,
        };
        let call = Call {
            operation: words.operation,
            domain: domain.to_string(),
            deadline: self.deadline,
        };
        let world = self.world.clone();
        let work = async move {
            let fault = {
                let mut state = world.lock();
                if !state.connected {
                    return Err(words.not_connected());
                }
                called.into_iter().for_each(|called| state.note(called));
                let machine = state.machines.get_mut(&domain);
                machine.ok_or_else(|| words.no_domain())?.take_fault(name)
            };
            if world.conduct(domain) == Some(Conduct::HangsMonitor) {
                while world.conduct(domain) == Some(Conduct::HangsMonitor) {
                    sleep(HANGING).await;
                }
                return Err(words.timed_out());
            }
            match &fault {
                Some(Fault::Refuse { message }) => return Err(words.refused(message.clone())),
                Some(Fault::Hang { ms }) => {
                    sleep(Duration::from_millis(*ms)).await;
                    return Err(words.timed_out());
                }
                Some(Fault::Slow { ms }) => sleep(Duration::from_millis(*ms)).await,
                _ => {}
            }
            let (outcome, answer) = {
                let now = world.now();
                let mut state = world.lock();
                let machine = state.machines.get_mut(&domain);
                let machine = machine.ok_or_else(|| words.no_domain())?;
                machine.advance(now);
                let limit = match &fault {
                    Some(Fault::Partial { reaches_mib }) => Some(Bytes::from_mib(*reaches_mib)),
                    _ => None,
                };
                machine.telling = match &fault {
                    Some(Fault::EventsLost) => Telling::Never,
                    Some(Fault::EventsDuplicated) => Telling::Twice,
                    Some(Fault::EventsLate { ms }) => Telling::Late(Duration::from_millis(*ms)),
                    _ => Telling::Once,
                };
                let (outcome, events) = effect(machine, limit);
                let answer = answer(machine);
                let telling = machine.telling;
                world.tell_all(&state, telling, events);
                world.follow(&mut state, domain);
                (outcome, answer)
            };
            match fault {
                Some(Fault::AnswerLost) => sleep(words.deadline + words.deadline / 4).await,
                Some(Fault::ConnectionLost { ms }) => {
                    world.lose_connection(Duration::from_millis(ms));
                    return Err(words.lost());
                }
                Some(Fault::Dies) => {
                    world.restart(domain);
                    let message = "Unable to read from monitor: Connection reset by peer";
                    return Err(words.refused(message.into()));
                }
                _ => {}
            }
            match outcome {
                Outcome::Done => Ok(answer),
                Outcome::Refused(message) => Err(words.refused(message)),
                Outcome::TimesOut => {
                    // The library gives up before the caller does.
                    sleep(words.deadline / 2).await;
                    Err(words.timed_out())
                }
                Outcome::DefinitionChanged => Err(HypervisorError::DefinitionChanged {
                    operation: words.operation,
                    domain: domain.to_string(),
                }),
                Outcome::NoDevice { alias } => Err(HypervisorError::NoDevice {
                    operation: words.operation,
                    domain: domain.to_string(),
                    alias,
                }),
            }
        };
        self.connected().await;
        let place = &self.world.place;
        let answer = self.queue.run_in_task(lane, call, place, work).await;
        self.connected().await;
        answer
    }

    /// Answers from memory, for calls that have no faults.
    fn at_once<T: Send + 'static>(
        &self,
        operation: &'static str,
        answer: impl FnOnce(&mut State) -> T,
    ) -> Answer<'_, T> {
        let mut state = self.world.lock();
        let answer = if state.connected {
            Ok(answer(&mut state))
        } else {
            Err(HypervisorError::NotConnected { operation })
        };
        drop(state);
        Box::pin(async move {
            self.connected().await;
            answer
        })
    }
}

impl Hypervisor for Simulated {
    fn host(&self) -> Answer<'_, HostFacts> {
        self.at_once("host", |state| state.host.facts())
    }

    fn domains(&self) -> Answer<'_, Vec<DomainDescription>> {
        self.at_once("domains", |state| {
            let machines = state.machines.values();
            machines
                .map(|machine| machine.description.clone())
                .collect()
        })
    }

    fn describe(&self, domain: DomainId) -> Answer<'_, DomainDescription> {
        Box::pin(self.call(
            Lane::Read(domain),
            CallName::Describe,
            None,
            Box::new(|_, _| (Outcome::Done, Vec::new())),
            |machine| machine.description.clone(),
        ))
    }

    fn bulk_stats(&self) -> Answer<'_, Vec<(DomainId, DomainStats)>> {
        let (now, unix) = (self.world.now(), self.world.unix());
        self.at_once("bulk_stats", |state| {
            let machines = state.machines.iter_mut();
            machines
                .filter_map(|(id, machine)| {
                    machine.advance(now);
                    Some((*id, machine.stats(unix)?))
                })
                .collect()
        })
    }

    fn set_vcpus(&self, domain: DomainId, count: u32) -> Answer<'_, ()> {
        Box::pin(self.call(
            Lane::Change(domain),
            CallName::SetVcpus,
            Some(Called::SetVcpus { domain, count }),
            Box::new(move |machine, part| machine.set_vcpus(count, part)),
            |_| (),
        ))
    }

    fn set_virtio_mem(&self, domain: DomainId, alias: String, requested: Bytes) -> Answer<'_, ()> {
        let called = Called::SetVirtioMem {
            domain,
            alias: alias.clone(),
            requested,
        };
        Box::pin(self.call(
            Lane::Change(domain),
            CallName::SetVirtioMem,
            Some(called),
            Box::new(move |machine, limit| {
                let outcome = machine.set_virtio_mem(&alias, requested, limit);
                (outcome, Vec::new())
            }),
            |_| (),
        ))
    }

    fn attach_dimm(&self, domain: DomainId, size: Bytes) -> Answer<'_, ()> {
        Box::pin(self.call(
            Lane::Change(domain),
            CallName::AttachDimm,
            Some(Called::AttachDimm { domain, size }),
            Box::new(move |machine, _| machine.attach_dimm(size)),
            |_| (),
        ))
    }

    fn set_balloon(&self, domain: DomainId, target: Bytes) -> Answer<'_, ()> {
        Box::pin(self.call(
            Lane::Change(domain),
            CallName::SetBalloon,
            Some(Called::SetBalloon { domain, target }),
            Box::new(move |machine, limit| (machine.set_balloon(target, limit), Vec::new())),
            |_| (),
        ))
    }

    fn set_balloon_period(&self, domain: DomainId, period: Duration) -> Answer<'_, ()> {
        Box::pin(self.call(
            Lane::Change(domain),
            CallName::SetBalloonPeriod,
            Some(Called::SetBalloonPeriod { domain, period }),
            Box::new(move |machine, _| (machine.set_balloon_period(period), Vec::new())),
            |_| (),
        ))
    }

    fn hotpluggable_vcpus(&self, domain: DomainId) -> Answer<'_, Vec<HotpluggableVcpu>> {
        Box::pin(self.call(
            Lane::Change(domain),
            CallName::HotpluggableVcpus,
            Some(Called::HotpluggableVcpus { domain }),
            Box::new(|_, _| (Outcome::Done, Vec::new())),
            Machine::vcpu_groups,
        ))
    }

    fn guest_agent_command(&self, domain: DomainId, _: String, _: Duration) -> Answer<'_, String> {
        // Its guests have the agent or none; a program that answers as qemu-guest-agent does is for real ones.
        Box::pin(async move {
            Err(HypervisorError::Failed {
                operation: "guest_agent_command",
                domain: domain.to_string(),
                source: LibraryError {
                    message: "QEMU guest agent is not connected".into(),
                    code: None,
                },
            })
        })
    }

    fn set_limit(&self, domain: DomainId, knob: Knob, to: KnobValue) -> Answer<'_, ()> {
        Box::pin(self.call(
            Lane::Change(domain),
            CallName::SetLimit,
            Some(Called::SetLimit { domain, knob, to }),
            Box::new(move |machine, limit| machine.set_limit(knob, to, limit)),
            |_| (),
        ))
    }

    fn limits(&self, domain: DomainId) -> Answer<'_, Limits> {
        Box::pin(self.call(
            Lane::Change(domain),
            CallName::Limits,
            None,
            Box::new(|_, _| (Outcome::Done, Vec::new())),
            |machine| machine.description.limits.clone(),
        ))
    }

    fn set_metadata(
        &self,
        domain: DomainId,
        element: MetadataElement,
        xml: Option<String>,
    ) -> Answer<'_, ()> {
        let called = Called::SetMetadata {
            domain,
            element,
            xml: xml.clone(),
        };
        Box::pin(self.call(
            Lane::Change(domain),
            CallName::SetMetadata,
            Some(called),
            Box::new(move |machine, _| machine.set_metadata(element, xml.as_deref())),
            |_| (),
        ))
    }

    fn definitions(&self, domain: DomainId) -> Answer<'_, Definitions> {
        Box::pin(async move {
            let read = self.call(
                Lane::Read(domain),
                CallName::Definitions,
                None,
                Box::new(|_, _| (Outcome::Done, Vec::new())),
                Machine::definitions,
            );
            read.await?
                .map_err(|detail| unreadable(CallName::Definitions, domain, detail))
        })
    }

    fn redefine(&self, domain: DomainId, from: String, to: String) -> Answer<'_, Definition> {
        let called = Called::Redefine {
            domain,
            to: to.clone(),
        };
        Box::pin(async move {
            let kept = to.clone();
            let done = self.call(
                Lane::Change(domain),
                CallName::Redefine,
                Some(called),
                Box::new(move |machine, _| machine.redefine(&from, &to)),
                |_| (),
            );
            done.await?;
            Definition::read(kept).map_err(|detail| unreadable(CallName::Redefine, domain, detail))
        })
    }

    fn attach_device(&self, domain: DomainId, device: String) -> Answer<'_, ()> {
        let called = Called::AttachDevice {
            domain,
            device: device.clone(),
        };
        Box::pin(self.call(
            Lane::Change(domain),
            CallName::AttachDevice,
            Some(called),
            Box::new(move |machine, _| machine.attach(&device)),
            |_| (),
        ))
    }
}

fn unreadable(call: CallName, domain: DomainId, detail: String) -> HypervisorError {
    HypervisorError::BadAnswer {
        operation: call.operation(),
        domain: domain.to_string(),
        detail,
    }
}
