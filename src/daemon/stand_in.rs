//! Activations in guests without our agent: qemu-guest-agent is asked, where the domain has its port and our agent has not
//! come for a while. An agent of ours that comes later takes over, as from any agent of before.

use std::collections::BTreeMap;
use std::time::Duration;

use persona::Moment;
use planner::snapshot::Run;

use super::Daemon;
use super::adjust::say_what_is_adjusted;
use super::event::Event;
use super::message::message;
use super::personas::wanted_text;
use super::tracked::ShownCpus;
use crate::act::sentence_of;
use crate::audit::AuditKind;
use crate::catalog::{ActivationEvent, ActivationState, Desired, Generation};
use crate::config::StandInWord;
use crate::hypervisor::DomainId;
use crate::stand_in::{Cpus, Done, StandIn, StandInError};

/// A guest that has a port for our agent may only be starting.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries to reach qemu-guest-agent.
const AGAIN: Duration = Duration::from_secs(30);
/// Between two looks at a guest's CPUs.
const LOOK: Duration = Duration::from_secs(10);
/// Guests whose CPUs are looked at together. One whose agent hangs keeps a thread of the hypervisor's waiting, and there are
/// few of those.
const LOOKS: usize = 8;

/// Who is asked, and how far that has come.
#[derive(Default)]
pub(super) struct StandIns {
    guests: BTreeMap<DomainId, Waiting>,
    /// Whose CPUs are looked at, and when next; absent while somebody looks.
    looks: BTreeMap<DomainId, Option<Moment>>,
}

/// One guest without our agent.
struct Waiting {
    since: Moment,
    /// No try before.
    next: Moment,
    asked: bool,
    /// Why the last try came to nothing.
    trouble: Option<String>,
}

/// What came of asking.
#[derive(Debug)]
pub struct StoodIn {
    domain: DomainId,
    generation: Generation,
    answer: Result<Done, StandInError>,
}

/// What a guest's stand-in shows of its CPUs; absent when it does not answer.
#[derive(Debug)]
pub struct StandInLook {
    domain: DomainId,
    cpus: Option<Cpus>,
}

impl Daemon {
    /// Asks where it is time to.
    pub(super) fn stand_in(&mut self, now: Moment) {
        if self.config.agent.stand_in == StandInWord::None {
            return;
        }
        self.look_at_cpus(now);
        let waiting: Vec<(DomainId, bool)> = self
            .domains
            .iter()
            .filter(|(id, tracked)| {
                tracked.run() == Run::Running
                    && tracked.agent.facts.is_none()
                    && tracked.description.qemu_guest_agent
                    && self
                        .catalog
                        .activation(**id)
                        .is_some_and(|of| of.state == ActivationState::AgentAbsent)
            })
            .map(|(id, tracked)| (*id, tracked.description.agent_channel.is_some()))
            .collect();
        self.stand_ins
            .guests
            .retain(|id, guest| guest.asked || waiting.iter().any(|(of, _)| of == id));
        for (id, may_come) in waiting {
            let guest = self.stand_ins.guests.entry(id).or_insert(Waiting {
                since: now,
                next: now,
                asked: false,
                trouble: None,
            });
            let patience = if may_come { PATIENCE } else { Duration::ZERO };
            if guest.asked || now.since(guest.since) < patience || now < guest.next {
                continue;
            }
            guest.asked = true;
            self.ask_stand_in(id);
        }
    }

    /// Guests without our agent whose personas manage vCPUs.
    fn look_at_cpus(&mut self, now: Moment) {
        let of: Vec<DomainId> = self
            .domains
            .iter()
            .filter(|(_, tracked)| {
                let persona = tracked.persona.in_force.as_ref();
                tracked.run() == Run::Running
                    && tracked.agent.facts.is_none()
                    && tracked.description.qemu_guest_agent
                    && persona.is_some_and(|persona| persona.base.cpu.is_some())
            })
            .map(|(id, _)| *id)
            .collect();
        self.stand_ins
            .looks
            .retain(|id, next| next.is_none() || of.contains(id));
        let under_way = self.stand_ins.looks.values().filter(|next| next.is_none());
        let mut left = LOOKS.saturating_sub(under_way.count());
        for id in of {
            let next = self.stand_ins.looks.entry(id).or_insert(Some(now));
            if left == 0 || !next.is_some_and(|next| next <= now) {
                continue;
            }
            left -= 1;
            *next = None;
            let stand_in = StandIn::new(self.hypervisor.clone());
            self.spawn(async move {
                let cpus = match stand_in.cpus(id).await {
                    Ok(cpus) => Some(cpus),
                    Err(error) => {
                        let error = sentence_of(&error);
                        tracing::debug!(domain = %id, error, "qemu-guest-agent does not tell of CPUs");
                        None
                    }
                };
                Event::StandInLooked(StandInLook { domain: id, cpus })
            });
        }
    }

    pub(super) fn stand_in_looked(&mut self, look: &StandInLook) {
        let now = self.clock.now();
        let again = if look.cpus.is_some() { LOOK } else { AGAIN };
        self.stand_ins
            .looks
            .insert(look.domain, Some(now.after(again)));
        let Some(tracked) = self.domains.get_mut(&look.domain) else {
            return;
        };
        let before = tracked.agent.stand_in.map(|cpus| cpus.online);
        tracked.agent.stand_in = look.cpus.map(|cpus| ShownCpus {
            online: cpus.online,
            at: now,
        });
        if before != look.cpus.map(|cpus| cpus.online) {
            self.publish_soon();
        }
    }

    fn ask_stand_in(&mut self, id: DomainId) {
        let Some(activation) = self.catalog.activation(id) else {
            self.stand_ins.guests.remove(&id);
            return;
        };
        let generation = activation.generation;
        let message = match &activation.desired {
            Desired::Nothing => None,
            Desired::Persona { composition, .. } => match self.catalog.effective(composition) {
                Ok(composed) => {
                    let version = composition.persona.version.get();
                    let mut message = message(generation, version, &composed.persona);
                    if let Ok(plain) = self.catalog.digest(&composition.plain()) {
                        say_what_is_adjusted(&mut message, activation, &plain, None);
                    }
                    Some(message)
                }
                Err(error) => {
                    let reason = sentence_of(&error);
                    // Nobody was asked, so nobody answers.
                    self.stand_ins.guests.remove(&id);
                    self.advance(id, ActivationEvent::Refused(generation, reason), Vec::new());
                    return;
                }
            },
        };
        let stand_in = StandIn::new(self.hypervisor.clone());
        let key = format!("{}-{generation}", self.host_id);
        self.spawn(async move {
            let answer = match message {
                Some(message) => stand_in.activate(id, &key, &message).await,
                None => stand_in.deactivate(id).await,
            };
            Event::StoodIn(Box::new(StoodIn {
                domain: id,
                generation,
                answer,
            }))
        });
    }

    pub(super) fn stood_in(&mut self, ended: StoodIn) {
        let StoodIn {
            domain: id,
            generation,
            answer,
        } = ended;
        let next = self.clock.now().after(AGAIN);
        let activation = self
            .catalog
            .activation(id)
            // Something else is wanted by now, or our agent came: it has the say.
            .filter(|of| of.generation == generation && of.state == ActivationState::AgentAbsent);
        let Some(activation) = activation else {
            self.stand_ins.guests.remove(&id);
            return;
        };
        let what = wanted_text(&activation.desired);
        let nothing = activation.desired == Desired::Nothing;
        match answer {
            Ok(done) => {
                self.stand_ins.guests.remove(&id);
                let text = format!("qemu-guest-agent did it: {what}; {}", done.remark());
                let detail = super::tick::json(&done);
                let entry = self.entry(AuditKind::Activation, Some(id), &text, detail);
                let remark = (!nothing).then(|| done.remark());
                self.advance(
                    id,
                    ActivationEvent::Remarked(generation, remark),
                    Vec::new(),
                );
                self.advance(id, ActivationEvent::Acknowledged(generation), vec![entry]);
            }
            Err(error) if error.is_passing() => {
                let text = sentence_of(&error);
                tracing::debug!(domain = %id, error = text, "qemu-guest-agent does not stand in");
                let Some(guest) = self.stand_ins.guests.get_mut(&id) else {
                    return;
                };
                (guest.asked, guest.next) = (false, next);
                guest.trouble = Some(text);
            }
            Err(error) => {
                self.stand_ins.guests.remove(&id);
                let reason = format!("by qemu-guest-agent: {}", sentence_of(&error));
                let text = format!("it failed in the guest: {what}: {reason}");
                let detail = serde_json::Value::Null;
                let entry = self.entry(AuditKind::Activation, Some(id), &text, detail);
                let refused = ActivationEvent::Refused(generation, reason);
                self.advance(id, refused, vec![entry]);
            }
        }
        self.follow_activation(id);
        self.publish_soon();
    }

    /// Whether qemu-guest-agent was asked and has not answered.
    pub(super) fn stand_in_is_asked(&self, id: DomainId) -> bool {
        let guest = self.stand_ins.guests.get(&id);
        guest.is_some_and(|guest| guest.asked)
    }

    /// What is said of a guest that waits for an agent: why nobody stands in.
    pub(super) fn stand_in_trouble(&self, id: DomainId) -> Option<&str> {
        self.stand_ins.guests.get(&id)?.trouble.as_deref()
    }
}
