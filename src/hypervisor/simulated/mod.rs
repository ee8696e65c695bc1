//! A hypervisor in memory, for tests on a private bus and for `virt-personad --simulate`: domains of a scenario whose
//! guests follow what is asked of them, calls with the same lanes and deadlines as the real one's, and faults on order.
//! It runs nothing and touches nothing of the host. What it cannot show is what only a real library does: see `libvirt`.

mod fault;
mod machine;
mod scenario;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use persona::domain::DomainId;
use persona::units::Bytes;
use tokio::sync::mpsc::UnboundedSender;

pub use self::fault::{CallName, Called, Fault};
pub use self::scenario::{
    Balloon, Device, Domain, Guest, Host, Planned, Scenario, ScenarioError, Unplug,
};

use self::machine::{Machine, Outcome, Progress, Telling};
use super::queue::{Call, Queue};
use super::{
    Answer, DomainDescription, DomainStats, Events, HostFacts, HotpluggableVcpu, Hypervisor,
    HypervisorError, HypervisorEvent, LibraryError, Lifecycle, MetadataElement, RunState,
};

/// The hypervisor, and the handle by which a test moves it.
pub struct Simulated {
    world: Arc<World>,
    queue: Queue<Lane>,
    deadline: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lane {
    Read(DomainId),
    Change(DomainId),
}

/// What the calls' threads and the guests share.
struct World {
    state: Mutex<State>,
    events: UnboundedSender<HypervisorEvent>,
}

struct State {
    host: Host,
    machines: BTreeMap<DomainId, Machine>,
    connected: bool,
    calls: Vec<Called>,
    /// The number of the next instance that starts.
    instance: u32,
    /// How many domains there have been, for UUIDs of their own.
    domains: u64,
}

/// Starts a simulated hypervisor; `Connected` is told at once.
pub fn open(scenario: Scenario) -> (Arc<Simulated>, Events) {
    let (events, receiver) = tokio::sync::mpsc::unbounded_channel();
    let deadline = scenario.deadline();
    let simulated = Simulated {
        world: Arc::new(World {
            state: Mutex::new(State {
                host: scenario.host,
                machines: BTreeMap::new(),
                connected: true,
                calls: Vec::new(),
                instance: 1,
                domains: 0,
            }),
            events,
        }),
        queue: Queue::new(),
        deadline,
    };
    {
        let mut state = simulated.world.lock();
        for domain in scenario.domains {
            state.add(domain);
        }
        simulated.world.tell(&state, HypervisorEvent::Connected);
    }
    (Arc::new(simulated), receiver)
}

impl State {
    fn add(&mut self, domain: Domain) -> DomainId {
        self.domains += 1;
        let id = domain.id.unwrap_or_else(|| {
            let mut id = *b"\0\0\0\0\0\0\x40\0\x80\0\0\0\0\0\0\0";
            // The last eight bytes carry the number; their first marks the variant of a UUID.
            for (byte, part) in id[8..].iter_mut().zip(self.domains.to_be_bytes()) {
                *byte |= part;
            }
            DomainId(id)
        });
        let machine = Machine::new(id, domain, self.instance);
        self.instance += 1;
        self.machines.insert(id, machine);
        id
    }
}

impl World {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that failed while it held the lock has its own report.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells an event if anybody is connected to hear it.
    fn tell(&self, state: &State, event: HypervisorEvent) {
        if state.connected {
            // A receiver that is gone means that the daemon ends.
            let _ = self.events.send(event);
        }
    }

    fn tell_all(&self, state: &State, telling: Telling, events: Vec<HypervisorEvent>) {
        for event in events {
            match telling {
                Telling::Never => {}
                Telling::Once => self.tell(state, event),
                Telling::Twice => {
                    self.tell(state, event.clone());
                    self.tell(state, event);
                }
            }
        }
    }

    /// Makes the guest follow, on a thread that ends when the guest has arrived or the hypervisor is gone.
    fn follow(self: &Arc<Self>, state: &mut State, domain: DomainId) {
        let Some(machine) = state.machines.get_mut(&domain) else {
            return;
        };
        if std::mem::replace(&mut machine.followed, true) {
            return;
        }
        let pace = machine.pace();
        let world = Arc::downgrade(self);
        let step = move || {
            loop {
                std::thread::sleep(pace);
                let Some(world) = world.upgrade() else { return };
                let mut state = world.lock();
                let Some(machine) = state.machines.get_mut(&domain) else {
                    return;
                };
                let (progress, events) = machine.step();
                machine.followed = progress == Progress::Moving;
                let telling = machine.telling;
                world.tell_all(&state, telling, events);
                if progress == Progress::Arrived {
                    return;
                }
            }
        };
        let started = std::thread::Builder::new().name("guest".into()).spawn(step);
        if started.is_err() {
            machine.followed = false;
        }
    }
}

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
        let work = move || {
            let fault = {
                let mut state = world.lock();
                if !state.connected {
                    return Err(words.not_connected());
                }
                state.calls.extend(called);
                let machine = state.machines.get_mut(&domain);
                machine.ok_or_else(|| words.no_domain())?.take_fault(name)
            };
            match &fault {
                Some(Fault::Refuse { message }) => return Err(words.refused(message.clone())),
                Some(Fault::Hang { ms }) => {
                    std::thread::sleep(Duration::from_millis(*ms));
                    return Err(words.timed_out());
                }
                Some(Fault::Slow { ms }) => std::thread::sleep(Duration::from_millis(*ms)),
                _ => {}
            }
            let (outcome, answer) = {
                let mut state = world.lock();
                let machine = state.machines.get_mut(&domain);
                let machine = machine.ok_or_else(|| words.no_domain())?;
                let limit = match &fault {
                    Some(Fault::Partial { reaches_mib }) => Some(Bytes::from_mib(*reaches_mib)),
                    _ => None,
                };
                machine.telling = match &fault {
                    Some(Fault::EventsLost) => Telling::Never,
                    Some(Fault::EventsDuplicated) => Telling::Twice,
                    _ => Telling::Once,
                };
                let (outcome, events) = effect(machine, limit);
                let answer = answer(machine);
                let telling = machine.telling;
                world.tell_all(&state, telling, events);
                world.follow(&mut state, domain);
                (outcome, answer)
            };
            if fault == Some(Fault::AnswerLost) {
                std::thread::sleep(words.deadline + words.deadline / 4);
            }
            match outcome {
                Outcome::Done => Ok(answer),
                Outcome::Refused(message) => Err(words.refused(message)),
                Outcome::TimesOut => {
                    // The library gives up before the caller does.
                    std::thread::sleep(words.deadline / 2);
                    Err(words.timed_out())
                }
                Outcome::NoDevice { alias } => Err(HypervisorError::NoDevice {
                    operation: words.operation,
                    domain: domain.to_string(),
                    alias,
                }),
            }
        };
        self.queue.run(lane, call, work).await
    }

    /// Starts, stops, pauses or resumes a domain, as a person would.
    pub fn set_state(&self, domain: DomainId, state: RunState) {
        let mut world = self.world.lock();
        let instance = world.instance;
        world.instance += 1;
        if let Some(machine) = world.machines.get_mut(&domain) {
            let events = machine.set_state(state, instance);
            self.world.tell_all(&world, Telling::Once, events);
        }
    }

    /// Sets the tags, as a person with `virsh metadata` would.
    pub fn set_tags(&self, domain: DomainId, tags: &[&str]) {
        let mut world = self.world.lock();
        if let Some(machine) = world.machines.get_mut(&domain) {
            machine.description.tags = tags.iter().map(|&tag| tag.to_owned()).collect();
            machine.description.tags_problem = None;
            let event = HypervisorEvent::MetadataChanged {
                domain,
                uri: Some(MetadataElement::Tags.uri().into()),
            };
            self.world.tell(&world, event);
        }
    }

    /// Makes the tag element one that cannot be read, for this reason, as a person with `virsh metadata` may.
    pub fn spoil_tags(&self, domain: DomainId, problem: &str) {
        let mut world = self.world.lock();
        if let Some(machine) = world.machines.get_mut(&domain) {
            machine.description.tags.clear();
            machine.description.tags_problem = Some(problem.to_owned());
            let event = HypervisorEvent::MetadataChanged {
                domain,
                uri: Some(MetadataElement::Tags.uri().into()),
            };
            self.world.tell(&world, event);
        }
    }

    /// Sets the memory that the guest's programs use.
    pub fn set_memory_used(&self, domain: DomainId, used: Bytes) {
        if let Some(machine) = self.world.lock().machines.get_mut(&domain) {
            machine.memory_used = used;
        }
    }

    /// Plans a fault for the next such call that has none planned.
    pub fn fail_next(&self, domain: DomainId, call: CallName, fault: Fault) {
        if let Some(machine) = self.world.lock().machines.get_mut(&domain) {
            machine.faults.push_back((call, fault));
        }
    }

    /// The calls that reached the hypervisor, in order.
    pub fn calls(&self) -> Vec<Called> {
        self.world.lock().calls.clone()
    }

    /// What was last written into a metadata element through the hypervisor.
    pub fn metadata(&self, domain: DomainId, element: MetadataElement) -> Option<String> {
        self.world.lock().machines.get(&domain)?.metadata(element)
    }

    /// Defines a domain, and tells so.
    pub fn add_domain(&self, domain: Domain) -> DomainId {
        let mut world = self.world.lock();
        let starts = domain.state != RunState::Off;
        let id = world.add(domain);
        let changes = [
            Some(Lifecycle::Defined),
            starts.then_some(Lifecycle::Started),
        ];
        for change in changes.into_iter().flatten() {
            let event = HypervisorEvent::Lifecycle { domain: id, change };
            self.world.tell(&world, event);
        }
        id
    }

    /// Stops and undefines a domain, and tells so.
    pub fn remove_domain(&self, domain: DomainId) {
        let mut world = self.world.lock();
        let Some(machine) = world.machines.remove(&domain) else {
            return;
        };
        let runs = machine.description.state != RunState::Off;
        let changes = [
            runs.then_some(Lifecycle::Stopped),
            Some(Lifecycle::Undefined),
        ];
        for change in changes.into_iter().flatten() {
            let event = HypervisorEvent::Lifecycle { domain, change };
            self.world.tell(&world, event);
        }
    }

    /// Changes a domain's vCPUs behind the daemon's back, as a person with `virsh setvcpus` would. Nothing is told.
    pub fn set_vcpus_by_hand(&self, domain: DomainId, count: u32) {
        if let Some(machine) = self.world.lock().machines.get_mut(&domain) {
            // A person who asks for what cannot be changes nothing.
            let _ = machine.set_vcpus(count);
        }
    }

    /// Tells any event.
    pub fn emit(&self, event: HypervisorEvent) {
        let world = self.world.lock();
        self.world.tell(&world, event);
    }

    /// Loses the connection: calls fail and events are lost until [`Simulated::reconnect`]. Guests go on.
    pub fn disconnect(&self, reason: &str) {
        let mut world = self.world.lock();
        let event = HypervisorEvent::Disconnected {
            reason: reason.into(),
        };
        self.world.tell(&world, event);
        world.connected = false;
    }

    /// Has the connection again, as after a restart of the library's daemon.
    pub fn reconnect(&self) {
        let mut world = self.world.lock();
        world.connected = true;
        for machine in world.machines.values_mut() {
            machine.resynchronise();
        }
        self.world.tell(&world, HypervisorEvent::Connected);
    }

    /// Answers from memory, for calls that have no faults.
    fn at_once<T: Send + 'static>(
        &self,
        operation: &'static str,
        answer: impl FnOnce(&State) -> T,
    ) -> Answer<'_, T> {
        let state = self.world.lock();
        let answer = if state.connected {
            Ok(answer(&state))
        } else {
            Err(HypervisorError::NotConnected { operation })
        };
        drop(state);
        Box::pin(std::future::ready(answer))
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
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs());
        self.at_once("bulk_stats", |state| {
            let machines = state.machines.iter();
            machines
                .filter_map(|(id, machine)| Some((*id, machine.stats(now)?)))
                .collect()
        })
    }

    fn set_vcpus(&self, domain: DomainId, count: u32) -> Answer<'_, ()> {
        Box::pin(self.call(
            Lane::Change(domain),
            CallName::SetVcpus,
            Some(Called::SetVcpus { domain, count }),
            Box::new(move |machine, _| machine.set_vcpus(count)),
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
}
