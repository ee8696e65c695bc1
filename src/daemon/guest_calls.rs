//! What rules of the host call for and what is done in the guest: scripts of `response_scripts`, and features. Each is in the store
//! together with the record of the call before the agent is asked, and goes when the agent has it on its disk; until then it is asked
//! for under one number, by whichever daemon and over whichever connection. What came of it is one of the records that
//! `guest_rules` fetches. What waits, and what need not be asked for any more, is worked out in `outbox`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent_protocol::rules::{GuestAction, RULES_FEATURE, RuleCall, RuleEdge, RuleWord};
use agent_protocol::{Operation, RequestId};
use persona::Digest;
use persona::rule::Action;
use persona::units::Moment;
use planner::snapshot::Run;
use planner::{Call, Edge};

use super::Daemon;
use super::event::Event;
use super::outbox::{Dropped, Left, Machine, Outbox, Sent, Waiting, left_text};
use super::tick::{host_boot, wish_text};
use crate::act::sentence_of;
use crate::agent::{AgentError, AgentFacts, AgentReply, Effect, Retry, fresh_request_id};
use crate::audit::{AuditKind, Entry};
use crate::catalog::{ActivationState, CatalogueError, Composition, Desired};
use crate::hypervisor::DomainId;
use crate::store::{Batch, Store, StoreError};

/// How long an agent may take until it has it on its disk.
const ANSWER: Duration = Duration::from_secs(60);
/// So much of what waits is named to people.
const NAMED: usize = 3;

/// What waits for all guests.
#[derive(Debug)]
pub(super) struct GuestCalls {
    boxes: BTreeMap<DomainId, Outbox>,
    /// What agents are being asked for at this moment.
    asking: BTreeMap<DomainId, RequestId>,
    /// What the store does not have yet as it is here.
    changed: BTreeSet<DomainId>,
    boot: String,
}

impl GuestCalls {
    /// What waited at the last stop.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn stored(store: &Store) -> Result<Self, StoreError> {
        let mut boxes = BTreeMap::new();
        for (key, outbox) in store.all::<Outbox>()? {
            if let Ok(id) = <[u8; 16]>::try_from(key.as_slice()) {
                boxes.insert(DomainId(id), outbox);
            }
        }
        Ok(Self {
            boxes,
            asking: BTreeMap::new(),
            changed: BTreeSet::new(),
            boot: host_boot(),
        })
    }

    /// Domains of which the store has to hear.
    pub(super) fn changed(&self) -> Vec<DomainId> {
        self.changed.iter().copied().collect()
    }

    /// Puts what waits for a domain into a batch, where the store does not have it yet.
    pub(super) fn put(&self, batch: &mut Batch, id: DomainId) -> Result<(), StoreError> {
        if !self.changed.contains(&id) {
            return Ok(());
        }
        match self.boxes.get(&id).filter(|outbox| !outbox.is_empty()) {
            Some(outbox) => batch.put(id.0, outbox),
            None => {
                batch.remove::<Outbox>(id.0);
                Ok(())
            }
        }
    }

    /// The store has it.
    pub(super) fn is_kept(&mut self, id: DomainId) {
        self.changed.remove(&id);
        if self.boxes.get(&id).is_some_and(Outbox::is_empty) {
            self.boxes.remove(&id);
        }
    }
}

/// What came of asking a guest.
#[derive(Debug)]
pub struct CallAnswered {
    domain: DomainId,
    id: RequestId,
    generation: u64,
    answer: Result<AgentReply, AgentError>,
}

impl Daemon {
    /// Takes in what rules call for; what that leaves without a purpose is to be recorded. Whoever calls this stores it.
    pub(super) fn take_calls<'a>(
        &mut self,
        calls: impl Iterator<Item = &'a Call>,
        now: Moment,
    ) -> Vec<Entry> {
        let mut entries = Vec::new();
        for call in calls {
            let (Some(action), id) = (asked(&call.action, call.edge), call.domain) else {
                continue;
            };
            let Some((digest, machine)) = self.domains.get(&id).and_then(|tracked| {
                let in_force = tracked.persona.in_force.as_ref()?;
                let machine = Machine::of(&tracked.description, &self.guest_calls.boot);
                Some((in_force.digest.clone(), machine))
            }) else {
                continue;
            };
            let waiting = Waiting {
                id: fresh_request_id(),
                at: now,
                digest,
                machine,
                rule: call.rule.clone(),
                edge: match call.edge {
                    Edge::Begins => RuleEdge::Begins,
                    Edge::Ends => RuleEdge::Ends,
                },
                action,
                word: match call.approved {
                    Some(_) => RuleWord::Person,
                    None => RuleWord::Persona,
                },
                what: wish_text(call),
                sent: Sent::Never,
            };
            let left = self.guest_calls.boxes.entry(id).or_default().take(waiting);
            self.guest_calls.changed.insert(id);
            entries.extend(self.left_entries(id, &left));
        }
        entries
    }

    /// Has the guests begin what rules call for.
    pub(super) fn call_guests(&mut self, calls: &[Call]) {
        let domains: BTreeSet<DomainId> = calls.iter().map(|call| call.domain).collect();
        for id in domains {
            self.ask_calls(id);
        }
    }

    /// Looks at everything that waits.
    pub(super) fn ask_all_calls(&mut self) {
        let domains: Vec<DomainId> = self.guest_calls.boxes.keys().copied().collect();
        for id in domains {
            self.ask_calls(id);
        }
    }

    /// Asks a guest for the first of what waits for it, where the agent is there and has the rule's persona. The next follows
    /// when that is answered, so that they keep their order.
    pub(super) fn ask_calls(&mut self, id: DomainId) {
        if self.guest_calls.asking.contains_key(&id) || !self.guest_calls.boxes.contains_key(&id) {
            return;
        }
        self.review_calls(id);
        let facts = self.domains.get(&id);
        let Some(facts) = facts.and_then(|tracked| tracked.agent.facts.as_ref()) else {
            return;
        };
        let no = if !facts.can(RULES_FEATURE) {
            Some("its agent is too old for that")
        } else if facts.rolled_back.is_some() {
            Some("somebody in the guest went back to another generation by hand")
        } else {
            None
        };
        if let Some(why) = no {
            return self.drop_calls(id, &Dropped::Refused(why.to_owned()));
        }
        let first = self.guest_calls.boxes.get(&id).and_then(Outbox::first);
        let Some(first) = first.cloned() else {
            return;
        };
        let Some(generation) = self.generation_in_guest(id, facts, &first.digest) else {
            return;
        };
        let outbox = self.guest_calls.boxes.get_mut(&id);
        if outbox.is_some_and(Outbox::send_first) {
            self.keep_calls(id, Vec::new());
        }
        self.guest_calls.asking.insert(id, first.id.clone());
        let wire = RuleCall {
            generation,
            rule: first.rule,
            edge: first.edge,
            action: first.action,
            word: first.word,
        };
        let registry = self.registry.clone();
        self.spawn(async move {
            let operation = Operation::Perform {
                call: Box::new(wire),
            };
            let request = Some(first.id.clone());
            let answer = registry.request(id, request, operation, ANSWER).await;
            Event::GuestCalled(Box::new(CallAnswered {
                domain: id,
                id: first.id,
                generation,
                answer,
            }))
        });
    }

    /// The generation under which a guest has a persona; `None` while it has not, or not yet.
    fn generation_in_guest(
        &self,
        id: DomainId,
        facts: &AgentFacts,
        digest: &Digest,
    ) -> Option<u64> {
        let activation = self.catalog.activation(id)?;
        // What rules adjusted of a persona is no other persona.
        let is_of = |composition: &Composition| {
            let plain = self.catalog.digest(&composition.plain());
            plain.is_ok_and(|plain| plain == *digest)
        };
        match (&activation.state, &activation.desired) {
            (ActivationState::Active { .. }, Desired::Persona { composition, .. }) => {
                is_of(composition).then_some(activation.generation.0)
            }
            // What the guest had before it failed is what it has.
            (ActivationState::Failed { .. }, _) => {
                let standing = activation.standing.as_ref().filter(|of| is_of(of))?;
                let has = self.catalog.digest(standing).ok()?.to_string();
                let active = facts.active.as_ref();
                let active = active.filter(|active| active.digest.as_str() == has);
                active.map(|active| active.generation)
            }
            _ => None,
        }
    }

    /// A guest has begun what it was asked for, or has not.
    pub(super) fn guest_called(&mut self, answered: &CallAnswered) {
        let CallAnswered {
            domain: id,
            id: request,
            generation,
            answer,
        } = answered;
        let id = *id;
        self.guest_calls.asking.remove(&id);
        let outbox = self.guest_calls.boxes.get_mut(&id);
        let known = outbox.as_ref().and_then(|outbox| outbox.first());
        let Some(call) = known.filter(|of| of.id == *request).cloned() else {
            // It was dropped meanwhile, which was said; what came of it is told by the guest's record.
            self.fetch_records(id);
            return self.ask_calls(id);
        };
        let entries = match answer {
            Ok(_) => Vec::new(),
            Err(error) if self.waits_on(id, error, &call, *generation) => {
                // It is asked for again when the agent is back, has room, or has the persona.
                return self.publish_soon();
            }
            Err(error) => {
                let known = match error {
                    AgentError::Refused { code, .. } if code.as_str() == "interrupted" => {
                        "it is not known whether the guest has done it"
                    }
                    _ if error.effect() == Effect::Unknown => {
                        "it is not known whether the guest has done it"
                    }
                    _ => "nothing is done in the guest",
                };
                let text = format!("{}; {known}: {}", call.what, sentence_of(error));
                vec![self.entry(AuditKind::Refusal, Some(id), &text, serde_json::Value::Null)]
            }
        };
        if let Some(outbox) = self.guest_calls.boxes.get_mut(&id) {
            outbox.remove(request);
        }
        self.keep_calls(id, entries);
        self.fetch_records(id);
        self.ask_calls(id);
        self.publish_soon();
    }

    /// Whether the same request may be begun later, or was begun and its answer is not known.
    fn waits_on(&self, id: DomainId, error: &AgentError, call: &Waiting, sent: u64) -> bool {
        match error {
            AgentError::Refused { code, retry, .. } => match code.as_str() {
                "stale_generation" => {
                    let facts = self.domains.get(&id);
                    let facts = facts.and_then(|tracked| tracked.agent.facts.as_ref());
                    let now =
                        facts.and_then(|facts| self.generation_in_guest(id, facts, &call.digest));
                    now != Some(sent)
                }
                "expired" => true,
                _ => *retry == Retry::Later,
            },
            AgentError::BadAnswer { .. }
            | AgentError::TooLarge { .. }
            | AgentError::InvalidActivation { .. }
            | AgentError::InvalidCommand { .. } => false,
            AgentError::NotAttached { .. }
            | AgentError::NotConnected { .. }
            | AgentError::OwnedElsewhere { .. }
            | AgentError::VersionMismatch { .. }
            | AgentError::Flooding { .. }
            | AgentError::Busy { .. }
            | AgentError::AlreadyUnderWay { .. }
            | AgentError::TimedOut { .. }
            | AgentError::Interrupted { .. } => true,
        }
    }

    /// Drops what need not be asked for any more.
    fn review_calls(&mut self, id: DomainId) {
        let now = self.clock.now();
        let (Some(tracked), Some(outbox)) =
            (self.domains.get(&id), self.guest_calls.boxes.get_mut(&id))
        else {
            return;
        };
        let in_force = tracked.persona.in_force.as_ref().map(|of| &of.digest);
        let machine = Machine::of(&tracked.description, &self.guest_calls.boot);
        let machine = Some(&machine).filter(|_| tracked.run() != Run::Off);
        let asking = self.guest_calls.asking.get(&id);
        let left = outbox.review(in_force, machine, asking, now);
        self.calls_left(id, &left);
    }

    /// Drops everything that waits for a guest.
    pub(super) fn drop_calls(&mut self, id: DomainId, why: &Dropped) {
        let outbox = self.guest_calls.boxes.get_mut(&id);
        let left = outbox.map_or_else(Vec::new, |outbox| outbox.drop_all(why));
        self.calls_left(id, &left);
    }

    fn calls_left(&mut self, id: DomainId, left: &[Left]) {
        if !left.is_empty() {
            let entries = self.left_entries(id, left);
            self.keep_calls(id, entries);
            self.publish_soon();
        }
    }

    fn left_entries(&self, id: DomainId, left: &[Left]) -> Vec<Entry> {
        let entries = left.iter().map(|left| {
            let text = left_text(left);
            self.entry(AuditKind::Refusal, Some(id), &text, serde_json::Value::Null)
        });
        entries.collect()
    }

    /// Stores what waits for a guest together with what is recorded of it. What cannot be stored holds until the daemon ends.
    fn keep_calls(&mut self, id: DomainId, entries: Vec<Entry>) {
        self.guest_calls.changed.insert(id);
        let mut batch = Batch::new();
        let again = entries.clone();
        let put = self.guest_calls.put(&mut batch, id);
        match put
            .map_err(CatalogueError::from)
            .and_then(|()| self.commit(batch, entries))
        {
            Ok(()) => self.guest_calls.is_kept(id),
            Err(error) => {
                let text = format!(
                    "what a rule calls for in a guest could not be stored: {}",
                    sentence_of(&error)
                );
                tracing::error!(domain = %id, text);
                self.problems.insert("store-write", text);
                self.record_all(again);
            }
        }
    }

    /// The domain is no longer defined.
    pub(super) fn forget_calls(
        &mut self,
        batch: &mut Batch,
        id: DomainId,
        name: &str,
    ) -> Option<Entry> {
        self.guest_calls.asking.remove(&id);
        self.guest_calls.changed.remove(&id);
        let outbox = self.guest_calls.boxes.remove(&id)?;
        batch.remove::<Outbox>(id.0);
        let waited: Vec<&str> = outbox.waiting().iter().map(|of| of.what.as_str()).collect();
        if waited.is_empty() {
            return None;
        }
        let text = format!(
            "domain {name} is no longer defined, so what its rules called for in the guest is not done: {}",
            waited.join("; ")
        );
        Some(self.entry(AuditKind::Refusal, None, &text, serde_json::Value::Null))
    }

    /// What waits for a guest, as a sentence.
    pub(super) fn waiting_calls(&self, id: DomainId) -> Option<String> {
        let asking = self.guest_calls.asking.get(&id);
        let outbox = self.guest_calls.boxes.get(&id)?;
        let waiting = outbox.waiting().iter();
        let mut waiting: Vec<String> = waiting
            .filter(|of| asking != Some(&of.id))
            .map(|of| action_text(&of.action))
            .collect();
        let count = waiting.len();
        if count > NAMED {
            waiting.truncate(NAMED);
            waiting.push(format!("{} more", count - NAMED));
        }
        let named = waiting.join(", ");
        match count {
            0 => None,
            1 => Some(format!(
                "1 call of a rule waits for the guest's agent: {named}"
            )),
            _ => Some(format!(
                "{count} calls of rules wait for the guest's agent: {named}"
            )),
        }
    }
}

fn action_text(action: &GuestAction) -> String {
    match action {
        GuestAction::Run(name) => format!("run {name}"),
        GuestAction::EnableFeature(name) => format!("enable feature {name}"),
        GuestAction::DisableFeature(name) => format!("disable feature {name}"),
    }
}

/// What a guest is asked for; `None` for what is done elsewhere.
fn asked(action: &Action, edge: Edge) -> Option<GuestAction> {
    Some(match (action, edge) {
        (Action::Run(name), Edge::Begins) => GuestAction::Run(name.clone()),
        (Action::EnableFeature(name), Edge::Begins)
        | (Action::DisableFeature(name), Edge::Ends) => GuestAction::EnableFeature(name.clone()),
        (Action::DisableFeature(name), Edge::Begins)
        | (Action::EnableFeature(name), Edge::Ends) => GuestAction::DisableFeature(name.clone()),
        _ => return None,
    })
}
