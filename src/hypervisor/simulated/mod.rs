//! A hypervisor in memory, for tests on a private bus and for `virt-personad --simulate`: domains of a scenario whose
//! guests follow what is asked of them, calls with the same lanes and deadlines as the real one's, and faults on order.
//! It runs nothing and touches nothing of the host. What it cannot show is what only a real library does: see `libvirt`.

mod calls;
mod fault;
mod machine;
mod scenario;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use persona::domain::DomainId;
use persona::units::Bytes;
use tokio::sync::mpsc::UnboundedSender;

pub use self::fault::{CallName, Called, Fault};
pub use self::scenario::{
    Balloon, Device, Domain, Guest, Host, Planned, Scenario, ScenarioError, Unplug,
};

use self::machine::{Machine, Progress, Telling};
use super::queue::Queue;
use super::{Events, HypervisorEvent, Lifecycle, MetadataElement, RunState};

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

impl Simulated {
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
}
