//! A hypervisor in memory, for tests on a private bus and for `virt-personad --simulate`: domains of a scenario whose
//! guests follow what is asked of them, calls with the same lanes and deadlines as the real one's, and faults on order.
//! It runs nothing and touches nothing of the host but the sockets of its agents. What it cannot show is what only a real
//! library does: see `libvirt`.
//!
//! ```text
//! scenario -> world (domains, connection, time) <- calls (the trait, with fault) <- the daemon
//!                    machine (what the hypervisor knows) - guest (what is inside: load, conduct) <- agent <- the channel
//! ```
//!
//! All that waits does so in tasks of the run time in which it was opened, on that run time's clock.

mod agent;
mod calls;
mod conduct;
mod definition;
mod fault;
mod guest;
mod load;
mod machine;
mod scenario;
mod world;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use persona::domain::DomainId;
use persona::units::Bytes;

pub use self::conduct::{Conduct, Spell};
pub use self::fault::{CallName, Called, Fault};
pub use self::load::{Curve, Load};
pub use self::scenario::{
    Agent, Balloon, Device, Domain, Guest, Host, Planned, Scenario, ScenarioError, Unplug,
};

use self::world::World;
use super::queue::Queue;
use super::{
    Definitions, Events, HypervisorEvent, Lifecycle, Limits, MetadataElement, RunState, VcpuMeter,
    VcpuTimes,
};

/// The hypervisor, and the handle by which a test moves it.
#[derive(Debug)]
pub struct Simulated {
    world: Arc<World>,
    queue: Arc<Queue<Lane>>,
    deadline: Duration,
    /// Nothing is answered any more.
    cut: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lane {
    Read(DomainId),
    Change(DomainId),
}

/// What a machine had when a snapshot of it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsItWas {
    /// vCPUs plugged.
    pub vcpus: u32,
    /// What each virtio-mem device was asked for and had.
    pub device: Bytes,
}

/// What a domain has at the moment, whatever anybody says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Number of the running instance.
    pub instance: Option<u32>,
    /// vCPUs in the emulator.
    pub vcpus: u32,
    /// CPUs online in the guest.
    pub online: u32,
    /// Memory plugged and left by the balloon.
    pub memory: Bytes,
    /// Memory that was asked for.
    pub requested: Bytes,
    /// How often the balloon's figures come; absent while they are off.
    pub statistics: Option<Duration>,
    /// The persona that is active in the guest.
    pub persona: Option<String>,
}

/// Starts a simulated hypervisor; `Connected` is told at once. Must be called within a tokio run time, which it uses from
/// then on.
pub fn open(scenario: Scenario) -> (Arc<Simulated>, Events) {
    let deadline = scenario.deadline();
    let (world, events) = World::open(scenario);
    let simulated = Simulated {
        world,
        queue: Arc::new(Queue::new()),
        deadline,
        cut: AtomicBool::new(false),
    };
    (Arc::new(simulated), events)
}

impl VcpuMeter for Simulated {
    fn vcpu_times(&self, domain: DomainId) -> Option<Vec<VcpuTimes>> {
        let now = self.world.now();
        let mut state = self.world.lock();
        let machine = state.machines.get_mut(&domain)?;
        machine.advance(now);
        machine.inside.times(machine.description.vcpus_plugged)
    }
}

impl Simulated {
    /// Another handle on the same world, for a program that shall be killed with [`Simulated::cut`].
    pub fn handle(&self) -> Arc<Self> {
        Arc::new(Self {
            world: self.world.clone(),
            queue: self.queue.clone(),
            deadline: self.deadline,
            cut: AtomicBool::new(false),
        })
    }

    /// From now on nothing that was asked through this handle is answered, and nothing more is done through it: whoever
    /// has it takes no further step. What is under way in the world goes on.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Returns at once, or never when this handle was cut.
    async fn connected(&self) {
        if self.cut.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// Gives the guest something else to do.
    pub fn set_load(&self, domain: DomainId, load: Load) {
        let now = self.world.now();
        if let Some(machine) = self.world.lock().machines.get_mut(&domain) {
            machine.advance(now);
            machine.inside.set_load(load);
        }
    }

    /// Starts, stops, pauses or resumes a domain, as a person would.
    pub fn set_state(&self, domain: DomainId, state: RunState) {
        self.world.set_state(domain, state);
    }

    /// Stops a domain and starts it anew, as a power cut of the guest would.
    pub fn restart(&self, domain: DomainId) {
        self.world.restart(domain);
    }

    /// From now on the guest behaves like this; as it should with `None`.
    pub fn behave(&self, domain: DomainId, conduct: Option<Conduct>) {
        self.world.behave(domain, conduct);
    }

    /// What a domain has, by the simulated world itself.
    pub fn shown(&self, domain: DomainId) -> Option<Shown> {
        let state = self.world.lock();
        state.machines.get(&domain).map(machine::Machine::shown)
    }

    /// How many faults of a domain are still to come.
    pub fn faults_to_come(&self, domain: DomainId) -> usize {
        let state = self.world.lock();
        let machine = state.machines.get(&domain);
        machine.map_or(0, |machine| machine.faults.len())
    }

    /// The faults of a domain that are still to come are forgotten.
    pub fn forget_faults(&self, domain: DomainId) {
        if let Some(machine) = self.world.lock().machines.get_mut(&domain) {
            machine.faults.clear();
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

    /// The calls that reached the hypervisor, in order; the last ten thousand of them.
    pub fn calls(&self) -> Vec<Called> {
        self.world.lock().calls.iter().cloned().collect()
    }

    /// What was last written into a metadata element through the hypervisor.
    pub fn metadata(&self, domain: DomainId, element: MetadataElement) -> Option<String> {
        self.world.lock().machines.get(&domain)?.metadata(element)
    }

    /// Defines a domain, and tells so.
    pub fn add_domain(&self, domain: Domain) -> DomainId {
        let mut world = self.world.lock();
        let starts = domain.state != RunState::Off;
        let id = self.world.add(&mut world, domain);
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

    /// Changes the run state of a domain as somebody else than a person would: a migration, a crash. Told as `change` alone.
    pub fn turn_into(&self, domain: DomainId, state: RunState, change: Lifecycle) {
        self.world.turn_into(domain, state, change);
    }

    /// Changes the run state of a domain, and nothing is told.
    pub fn turn_unheard(&self, domain: DomainId, state: RunState) {
        self.world.turn_unheard(domain, state);
    }

    /// The machine is as it was when a snapshot of it was taken, in the same emulator; that is told in two pieces.
    pub fn revert(&self, domain: DomainId, to: AsItWas) {
        if let Some(machine) = self.world.lock().machines.get_mut(&domain) {
            machine.revert(to);
        }
        self.revert_is_told(domain);
    }

    /// The same in another emulator. So far it is told only that the domain was stopped for it, and
    /// [`Simulated::revert_is_told`] tells the rest.
    pub fn revert_begins(&self, domain: DomainId, to: AsItWas) {
        self.world
            .turn_into(domain, RunState::Off, Lifecycle::Reverting);
        self.world.go_on(domain, to);
    }

    /// Tells of a revert, in two pieces: that the machine is there, and that it runs.
    pub fn revert_is_told(&self, domain: DomainId) {
        let world = self.world.lock();
        for _ in 0..2 {
            let change = Lifecycle::Reverted;
            self.world
                .tell(&world, HypervisorEvent::Lifecycle { domain, change });
        }
    }

    /// Gives a domain another name, as `virsh domrename` does.
    pub fn rename(&self, domain: DomainId, name: &str) {
        let mut world = self.world.lock();
        let Some(machine) = world.machines.get_mut(&domain) else {
            return;
        };
        machine.rename(name);
        let change = Lifecycle::Defined;
        self.world
            .tell(&world, HypervisorEvent::Lifecycle { domain, change });
    }

    /// Undefines a domain. One that runs goes on until it stops, as a transient one.
    pub fn undefine(&self, domain: DomainId) {
        let mut world = self.world.lock();
        match world.machines.get_mut(&domain) {
            Some(machine) if machine.description.state != RunState::Off => machine.transient = true,
            Some(_) => {
                world.machines.remove(&domain);
            }
            None => return,
        }
        let change = Lifecycle::Undefined;
        self.world
            .tell(&world, HypervisorEvent::Lifecycle { domain, change });
    }

    /// Steps the wall clock, by which devices date what they tell.
    pub fn step_wall_clock(&self, milliseconds: i64) {
        self.world.step_wall_clock(milliseconds);
    }

    /// Changes a domain's vCPUs behind the daemon's back, as a person with `virsh setvcpus` would. Nothing is told.
    pub fn set_vcpus_by_hand(&self, domain: DomainId, count: u32) {
        if let Some(machine) = self.world.lock().machines.get_mut(&domain) {
            // A person who asks for what cannot be changes nothing.
            let _ = machine.set_vcpus(count, None);
        }
    }

    /// Brings every CPU online that is plugged, as a udev rule in the guest may; its agent tells with its next report.
    pub fn bring_cpus_online(&self, domain: DomainId) {
        if let Some(machine) = self.world.lock().machines.get_mut(&domain) {
            machine.bring_cpus_online();
        }
    }

    /// Asks each memory device for this behind the daemon's back, as a person with `virsh` would. The guest follows.
    pub fn set_memory_by_hand(&self, domain: DomainId, each: Bytes) {
        let mut world = self.world.lock();
        if let Some(machine) = world.machines.get_mut(&domain) {
            machine.ask_devices(each);
            self.world.follow(&mut world, domain);
        }
    }

    /// Changes what limits a domain behind the daemon's back, as a person with `virsh` would; that is told.
    pub fn set_limits_by_hand(&self, domain: DomainId, change: impl FnOnce(&mut Limits)) {
        let mut world = self.world.lock();
        if let Some(machine) = world.machines.get_mut(&domain) {
            change(&mut machine.description.limits);
            self.world.tell(&world, HypervisorEvent::Tuned { domain });
        }
    }

    /// The definitions of a domain.
    pub fn definitions_of(&self, domain: DomainId) -> Option<Definitions> {
        let world = self.world.lock();
        world.machines.get(&domain)?.definitions().ok()
    }

    /// What limits a domain.
    pub fn limits_of(&self, domain: DomainId) -> Option<Limits> {
        let world = self.world.lock();
        Some(world.machines.get(&domain)?.description.limits.clone())
    }

    /// Tells any event.
    pub fn emit(&self, event: HypervisorEvent) {
        let world = self.world.lock();
        self.world.tell(&world, event);
    }

    /// Loses the connection: calls fail and events are lost until [`Simulated::reconnect`]. Guests go on.
    pub fn disconnect(&self, reason: &str) {
        self.world.disconnect(reason);
    }

    /// Has the connection again, as after a restart of the library's daemon.
    pub fn reconnect(&self) {
        self.world.reconnect();
    }
}
