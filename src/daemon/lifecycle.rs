//! What becomes of a domain: it starts, goes back to a snapshot, comes from another host or goes there, crashes, is renamed or
//! undefined. Each is recorded where it is more than a start or a stop, and what was learnt of a machine that is no more is
//! forgotten. Called by `follow`, which has the events and the descriptions.

use std::collections::BTreeSet;

use agent_protocol::message::HelloReason;
use persona::rule::Resource;
use persona::signal::EventKind;
use persona::units::Moment;
use planner::Ending;
use planner::snapshot::Run;

use super::Daemon;
use super::happened::Happened;
use super::outbox::Dropped;
use crate::act::Outcome;
use crate::audit::AuditKind;
use crate::hypervisor::{DomainDescription, DomainId, Lifecycle};

/// How an instance that is about to be shown begins. It counts for the description that shows it, and not for the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// By a start, from the definition or from a saved state.
    Start,
    /// On its way from another host.
    Arriving,
    /// It has come from there.
    Arrived,
    /// As it was at a snapshot.
    Revert,
    /// It was seen and is not told of. One that is paused may be on its way from another host.
    Unheard,
}

/// What is told of an instance in two pieces: a machine that goes on from a saved state or a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HalfTold {
    /// It was stopped to go back to a snapshot.
    Stopped,
    /// It is there; that it runs is told next, and in the words of a revert.
    There,
}

impl Daemon {
    pub(super) fn life_changes(&mut self, id: DomainId, change: Lifecycle) {
        match change {
            Lifecycle::Started | Lifecycle::Restored => {
                self.registry.renew(id, HelloReason::Revert);
                self.ends(id);
                self.starting.insert(id, Beginning::Start);
                if change == Lifecycle::Restored {
                    self.half_told.insert(id, HalfTold::There);
                }
            }
            Lifecycle::Reverting => {
                self.ends(id);
                self.half_told.insert(id, HalfTold::Stopped);
            }
            Lifecycle::Reverted if self.half_told.get(&id) == Some(&HalfTold::There) => {
                self.half_told.remove(&id);
            }
            Lifecycle::Reverted => {
                self.half_told.insert(id, HalfTold::There);
                self.registry.renew(id, HelloReason::Revert);
                self.becomes_another(id, Beginning::Revert);
            }
            Lifecycle::Arriving => {
                self.ends(id);
                self.starting.insert(id, Beginning::Arriving);
            }
            Lifecycle::Arrived => {
                self.registry.renew(id, HelloReason::Migrate);
                self.becomes_another(id, Beginning::Arrived);
            }
            Lifecycle::Suspended => {
                self.half_told.remove(&id);
                self.note(id, EventKind::DomainPaused);
            }
            Lifecycle::Resumed => {
                self.half_told.remove(&id);
                // libvirt tells the first run after a start in the same way.
                if self.is_told_paused(id) {
                    self.note(id, EventKind::DomainResumed);
                }
            }
            // A start that came to nothing is none, and nothing is kept for it.
            Lifecycle::Stopped => self.ends(id),
            Lifecycle::Crashed => {
                self.ends(id);
                self.tell(id, "the domain crashed");
            }
            Lifecycle::Departed => {
                self.ends(id);
                self.tell(id, "the domain has gone to another host");
            }
            Lifecycle::Defined | Lifecycle::Undefined => {}
        }
    }

    fn ends(&mut self, id: DomainId) {
        self.starting.remove(&id);
        self.half_told.remove(&id);
    }

    fn tell(&mut self, id: DomainId, text: &str) {
        self.record(
            AuditKind::Connection,
            Some(id),
            text,
            serde_json::Value::Null,
        );
    }

    /// The machine is another one although its emulator may be the same: what is under way describes the one before, and what
    /// is different in it is no hand's work.
    fn becomes_another(&mut self, id: DomainId, beginning: Beginning) {
        self.starting.insert(id, beginning);
        let now = self.clock.now();
        self.state.rest(id, now);
        let ended = planner::proposal::Turn::NotRunning;
        self.state.proposals.leave(id, ended);
        self.drop_calls(id, &Dropped::OtherMachine);
        // Else a restart of the daemon would find what was learnt of the machine before, under the same emulator.
        self.keep_states(&[id], Vec::new());
        self.ended.0 += 1;
        if let Some(tracked) = self.domains.get_mut(&id) {
            tracked.changed = self.ended;
            // What rules have heard of happened to the machine before.
            tracked.happened = Happened::default();
        }
    }

    /// A description shows the domain: what began with the instance in it happens now.
    pub(super) fn begin_instance(&mut self, id: DomainId, restarted: bool, now: Moment) {
        let Some(tracked) = self.domains.get_mut(&id) else {
            return;
        };
        if tracked.run() == Run::Off {
            return;
        }
        let beginning = self.starting.get(&id).copied();
        let told = match beginning {
            Some(Beginning::Arriving) => return,
            Some(Beginning::Start) => {
                tracked.happened.note(EventKind::DomainStarted, now);
                None
            }
            Some(Beginning::Arrived) => {
                tracked.happened.note(EventKind::MigrationFinished, now);
                Some("the domain has come from another host")
            }
            Some(Beginning::Revert) => Some(
                "the domain was reverted to a snapshot; what it has now is as it was then, and windows and cooldowns start \
                 anew, and a change by hand is held no longer",
            ),
            // What is no other instance, or ran before the daemon did, has not started; and what was stopped for a revert will
            // be told to be one.
            None if !restarted || self.half_told.get(&id) == Some(&HalfTold::Stopped) => None,
            None | Some(Beginning::Unheard) if tracked.run() == Run::Paused => {
                self.starting.insert(id, Beginning::Unheard);
                return;
            }
            // Seen by the instance where the telling was lost.
            None | Some(Beginning::Unheard) => {
                tracked.happened.note(EventKind::DomainStarted, now);
                None
            }
        };
        self.starting.remove(&id);
        if let Some(told) = told {
            self.state.rest(id, now);
            self.keep_states(&[id], Vec::new());
            self.drop_calls(id, &Dropped::OtherMachine);
            self.tell(id, told);
        }
    }

    /// The same domain under another name: its UUID is what it is known by.
    pub(super) fn renamed(&mut self, id: DomainId, before: &str) {
        let Some(tracked) = self.domains.get(&id) else {
            return;
        };
        let text = format!("domain {before} is now called {}", tracked.description.name);
        self.tell(id, &text);
    }

    /// A domain that is off is gone with its definition, also where it is defined anew at once; one that runs on is undefined
    /// only on disk, and the description tells when it is gone.
    pub(super) fn undefined(&mut self, id: DomainId) {
        let off = self
            .domains
            .get(&id)
            .is_some_and(|tracked| tracked.run() == Run::Off);
        if off && !self.starting.contains_key(&id) {
            self.domain_is_gone(id);
        }
        self.look(id);
    }

    /// Domains of which something is kept and which are not in the list are asked for: they may have been undefined while the
    /// daemon was away.
    pub(super) fn look_for_gone(&mut self, listed: &[DomainDescription]) {
        let listed: BTreeSet<DomainId> = listed.iter().map(|of| of.id).collect();
        let gone: Vec<DomainId> = self
            .catalog
            .domains()
            .into_iter()
            .chain(self.carried_processes.keys().copied())
            .chain(self.adopted.iter().copied())
            .filter(|id| !listed.contains(id) && !self.domains.contains_key(id))
            .collect();
        for id in gone {
            self.carried_processes.remove(&id);
            self.look(id);
        }
    }

    /// A pause was told, and no end of it yet.
    fn is_told_paused(&self, id: DomainId) -> bool {
        self.domains.get(&id).is_some_and(|tracked| {
            let last = |kind| tracked.happened.last(kind);
            let paused = last(EventKind::DomainPaused);
            paused.is_some() && paused >= last(EventKind::DomainResumed)
        })
    }

    /// A vCPU that is added after a migration cannot be brought online in some guests before they boot again.
    pub(super) fn note_migration(&self, outcome: &mut Outcome) {
        let migrated = self
            .domains
            .get(&outcome.step.domain)
            .is_some_and(|of| of.happened.last(EventKind::MigrationFinished).is_some());
        let failed = outcome.ending != Ending::Applied
            && outcome.step.resource == Resource::Vcpus
            && outcome.step.to > outcome.step.from;
        if migrated && failed {
            let hint = "the domain came from another host while it ran, and some guests bring no new vCPU online before they \
                        boot again";
            outcome.note = Some(match outcome.note.take() {
                Some(note) => format!("{note}; {hint}"),
                None => hint.to_owned(),
            });
        }
    }
}
