//! What the calls, the guests and whoever moves them share: the domains, the connection and the time. Each thing that
//! takes its time is a task of the run time in which the world was opened, and ends with the world.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use persona::domain::DomainId;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep};

use super::super::{DeviceChange, Events, HypervisorEvent, Lifecycle, RunState};
use super::conduct::{Conduct, Spell};
use super::fault::Called;
use super::machine::{Machine, Progress, Telling};
use super::scenario::{Agent, Domain, Host, Scenario};
use super::{AsItWas, agent};

/// Calls that are remembered: more than any test makes, and not more than a day may hold.
const CALLS: usize = 10_000;

/// Between two events of a flood.
const FLOOD: Duration = Duration::from_millis(10);

/// A running instance, for what lives and dies with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Power {
    /// Its number; absent while the domain is off.
    pub(super) instance: Option<u32>,
    /// Its vCPUs run.
    pub(super) runs: bool,
}

pub(super) struct World {
    state: Mutex<State>,
    events: UnboundedSender<HypervisorEvent>,
    /// Where everything that waits runs.
    pub(super) place: Handle,
    opened: Instant,
    /// Time since the epoch of Unix when it was opened.
    epoch: Duration,
    /// By how much the wall clock was stepped since, in milliseconds.
    stepped: AtomicI64,
}

pub(super) struct State {
    pub(super) host: Host,
    pub(super) machines: BTreeMap<DomainId, Machine>,
    pub(super) connected: bool,
    pub(super) calls: VecDeque<Called>,
    /// The number of the next instance that starts.
    instance: u32,
    /// How many domains there have been, for UUIDs of their own.
    domains: u64,
}

impl State {
    pub(super) fn note(&mut self, called: Called) {
        if self.calls.len() >= CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(called);
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("World").finish_non_exhaustive()
    }
}

impl World {
    pub(super) fn open(scenario: Scenario) -> (Arc<Self>, Events) {
        let (events, receiver) = tokio::sync::mpsc::unbounded_channel();
        let world = Arc::new(Self {
            state: Mutex::new(State {
                host: scenario.host,
                machines: BTreeMap::new(),
                connected: true,
                calls: VecDeque::new(),
                instance: 1,
                domains: 0,
            }),
            events,
            place: Handle::current(),
            opened: Instant::now(),
            epoch: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            stepped: AtomicI64::new(0),
        });
        {
            let mut state = world.lock();
            for domain in scenario.domains {
                world.add(&mut state, domain);
            }
            world.tell(&state, HypervisorEvent::Connected);
        }
        (world, receiver)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A test that failed while it held the lock has its own report.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the beginning of the simulation.
    pub(super) fn now(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Time since the epoch of Unix.
    pub(super) fn unix(&self) -> Duration {
        let now = self.epoch + self.now();
        let stepped = self.stepped.load(Ordering::Relaxed);
        let by = Duration::from_millis(stepped.unsigned_abs());
        if stepped < 0 {
            now.saturating_sub(by)
        } else {
            now + by
        }
    }

    pub(super) fn step_wall_clock(&self, milliseconds: i64) {
        self.stepped.fetch_add(milliseconds, Ordering::Relaxed);
    }

    pub(super) fn add(self: &Arc<Self>, state: &mut State, domain: Domain) -> DomainId {
        state.domains += 1;
        let number = state.domains;
        let id = domain.id.unwrap_or_else(|| {
            let mut id = *b"\0\0\0\0\0\0\x40\0\x80\0\0\0\0\0\0\0";
            // The last eight bytes carry the number; their first marks the variant of a UUID.
            for (byte, part) in id[8..].iter_mut().zip(number.to_be_bytes()) {
                *byte |= part;
            }
            DomainId(id)
        });
        let spells = domain.spells.clone();
        let socket = domain
            .agent_channel
            .clone()
            .filter(|_| domain.guest.agent == Agent::Simulated);
        let machine = Machine::new(id, domain, state.instance);
        state.instance += 1;
        if let Some(socket) = socket {
            let power = machine.power.subscribe();
            self.place
                .spawn(agent::run(Arc::downgrade(self), id, socket, power));
        }
        state.machines.insert(id, machine);
        for spell in spells {
            self.cast(id, spell);
        }
        id
    }

    /// Makes a guest misbehave when its time comes.
    fn cast(self: &Arc<Self>, domain: DomainId, spell: Spell) {
        let world = Arc::downgrade(self);
        let passed = self.now();
        let until = move |seconds: u64| Duration::from_secs(seconds).saturating_sub(passed);
        self.place.spawn(async move {
            let begin = until(spell.from_s);
            sleep(begin).await;
            if let Some(world) = world.upgrade() {
                world.behave(domain, Some(spell.conduct));
            }
            if let Some(end) = spell.until_s {
                sleep(until(end).saturating_sub(begin)).await;
                if let Some(world) = world.upgrade() {
                    world.behave(domain, None);
                }
            }
        });
    }

    /// Tells an event if anybody is connected to hear it.
    pub(super) fn tell(&self, state: &State, event: HypervisorEvent) {
        if state.connected {
            // A receiver that is gone means that the daemon ends.
            let _ = self.events.send(event);
        }
    }

    pub(super) fn tell_all(
        self: &Arc<Self>,
        state: &State,
        telling: Telling,
        events: Vec<HypervisorEvent>,
    ) {
        for event in events {
            match telling {
                Telling::Never => {}
                Telling::Once => self.tell(state, event),
                Telling::Twice => {
                    self.tell(state, event.clone());
                    self.tell(state, event);
                }
                Telling::Late(delay) => {
                    let world = Arc::downgrade(self);
                    self.place.spawn(async move {
                        sleep(delay).await;
                        if let Some(world) = world.upgrade() {
                            world.tell(&world.lock(), event);
                        }
                    });
                }
            }
        }
    }

    /// Makes the guest's memory follow, until it has arrived or the hypervisor is gone.
    pub(super) fn follow(self: &Arc<Self>, state: &mut State, domain: DomainId) {
        let Some(machine) = state.machines.get_mut(&domain) else {
            return;
        };
        if std::mem::replace(&mut machine.followed, true) {
            return;
        }
        let mut pace = machine.pace();
        let world = Arc::downgrade(self);
        self.place.spawn(async move {
            loop {
                sleep(pace).await;
                let Some(world) = world.upgrade() else { return };
                let now = world.now();
                let mut state = world.lock();
                let Some(machine) = state.machines.get_mut(&domain) else {
                    return;
                };
                machine.advance(now);
                let (progress, events) = machine.step();
                machine.followed = progress == Progress::Moving;
                pace = machine.pace();
                let telling = machine.telling;
                world.tell_all(&state, telling, events);
                if progress == Progress::Arrived {
                    return;
                }
            }
        });
    }

    pub(super) fn set_state(self: &Arc<Self>, domain: DomainId, to: RunState) {
        let mut state = self.lock();
        let instance = state.instance;
        state.instance += 1;
        if let Some(machine) = state.machines.get_mut(&domain) {
            let events = machine.set_state(to, instance);
            let gone = machine.transient && machine.description.state == RunState::Off;
            if gone {
                state.machines.remove(&domain);
            }
            self.tell_all(&state, Telling::Once, events);
        }
    }

    /// As [`World::set_state`], and told as this change alone.
    pub(super) fn turn_into(self: &Arc<Self>, domain: DomainId, to: RunState, change: Lifecycle) {
        let mut state = self.lock();
        let instance = state.instance;
        state.instance += 1;
        if let Some(machine) = state.machines.get_mut(&domain) {
            if change == Lifecycle::Restored {
                machine.restore(instance);
            }
            machine.set_state(to, instance);
            self.tell(&state, HypervisorEvent::Lifecycle { domain, change });
        }
    }

    /// As [`World::set_state`], and nothing is told.
    pub(super) fn turn_unheard(&self, domain: DomainId, to: RunState) {
        let mut state = self.lock();
        let instance = state.instance;
        state.instance += 1;
        if let Some(machine) = state.machines.get_mut(&domain) {
            machine.set_state(to, instance);
        }
    }

    /// A domain that is off runs in another emulator, as it was at a snapshot; nothing of it is told.
    pub(super) fn go_on(self: &Arc<Self>, domain: DomainId, to: AsItWas) {
        let mut state = self.lock();
        let instance = state.instance;
        state.instance += 1;
        if let Some(machine) = state.machines.get_mut(&domain) {
            machine.restore(instance);
            machine.set_state(RunState::Running, instance);
            machine.revert(to);
        }
    }

    /// Stops a running domain and starts it anew.
    pub(super) fn restart(self: &Arc<Self>, domain: DomainId) {
        self.set_state(domain, RunState::Off);
        self.set_state(domain, RunState::Running);
    }

    pub(super) fn behave(self: &Arc<Self>, domain: DomainId, conduct: Option<Conduct>) {
        let unix = self.unix().as_secs();
        {
            let mut state = self.lock();
            let Some(machine) = state.machines.get_mut(&domain) else {
                return;
            };
            machine.inside.behave(conduct, unix);
            self.follow(&mut state, domain);
        }
        match conduct {
            Some(conduct @ Conduct::FloodsEvents) => {
                self.repeat(domain, conduct, FLOOD, move |world| {
                    let state = world.lock();
                    let event = HypervisorEvent::Device {
                        domain,
                        alias: "flood".into(),
                        change: DeviceChange::Added,
                    };
                    world.tell(&state, event);
                });
            }
            Some(conduct @ Conduct::Dies { every_s }) => {
                let pause = Duration::from_secs(every_s.max(1));
                self.repeat(domain, conduct, pause, move |world| world.restart(domain));
            }
            _ => {}
        }
    }

    /// Does something again and again for as long as the guest behaves like this.
    fn repeat(
        self: &Arc<Self>,
        domain: DomainId,
        conduct: Conduct,
        pause: Duration,
        work: impl Fn(&Arc<Self>) + Send + 'static,
    ) {
        let weak = Arc::downgrade(self);
        self.place.spawn(async move {
            loop {
                {
                    let Some(world) = weak.upgrade() else { return };
                    if world.conduct(domain) != Some(conduct) {
                        return;
                    }
                    work(&world);
                }
                sleep(pause).await;
            }
        });
    }

    pub(super) fn conduct(&self, domain: DomainId) -> Option<Conduct> {
        self.lock().machines.get(&domain)?.inside.conduct
    }

    pub(super) fn disconnect(&self, reason: &str) {
        let mut state = self.lock();
        let event = HypervisorEvent::Disconnected {
            reason: reason.into(),
        };
        self.tell(&state, event);
        state.connected = false;
    }

    pub(super) fn reconnect(&self) {
        let mut state = self.lock();
        state.connected = true;
        for machine in state.machines.values_mut() {
            machine.resynchronise();
        }
        self.tell(&state, HypervisorEvent::Connected);
    }

    /// Loses the connection for a while.
    pub(super) fn lose_connection(self: &Arc<Self>, away: Duration) {
        self.disconnect("the connection was lost");
        let world = Arc::downgrade(self);
        self.place.spawn(async move {
            sleep(away).await;
            if let Some(world) = world.upgrade() {
                world.reconnect();
            }
        });
    }
}
