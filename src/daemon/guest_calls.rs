//! What rules of the host call for and what is done in the guest: scripts of `response_scripts`, and features. The agent is asked
//! once, answers when it has it on its disk, and what comes of it is one of the records that `guest_rules` fetches.

use std::time::Duration;

use agent_protocol::Operation;
use agent_protocol::rules::{GuestAction, RULES_FEATURE, RuleCall, RuleEdge, RuleWord};
use persona::rule::Action;
use planner::{Call, Edge};

use super::Daemon;
use super::event::Event;
use super::tick::wish_text;
use crate::act::sentence_of;
use crate::agent::{AgentError, AgentReply, Effect};
use crate::audit::AuditKind;
use crate::hypervisor::DomainId;

/// How long an agent may take until it has it on its disk.
const ANSWER: Duration = Duration::from_secs(60);

/// What came of asking a guest.
#[derive(Debug)]
pub struct CallAnswered {
    domain: DomainId,
    what: String,
    answer: Result<AgentReply, AgentError>,
}

impl Daemon {
    /// Has the guests begin what rules call for.
    pub(super) fn call_guests(&mut self, calls: &[Call]) {
        for call in calls {
            if let Some(action) = asked(&call.action, call.edge) {
                self.call_guest(call, action);
            }
        }
    }

    fn call_guest(&mut self, call: &Call, action: GuestAction) {
        let (id, what) = (call.domain, wish_text(call));
        let tracked = self.domains.get(&id);
        let facts = tracked.and_then(|tracked| tracked.agent.facts.as_ref());
        let active = facts.and_then(|facts| facts.active.as_ref());
        let why = match facts {
            None => "its agent is not connected",
            Some(facts) if !facts.can(RULES_FEATURE) => "its agent is too old for that",
            Some(facts) if facts.rolled_back.is_some() => {
                "somebody in the guest went back to another generation by hand"
            }
            Some(_) => "",
        };
        // What the agent said in its greeting may be older than what it has confirmed since.
        let confirmed = self.catalog.activation(id).map(|of| of.generation.0);
        let generation = confirmed.or(active.map(|active| active.generation));
        let (true, Some(generation)) = (why.is_empty(), generation) else {
            let text = format!("{what}; nothing is done in the guest: {why}");
            self.record(AuditKind::Refusal, Some(id), &text, super::tick::json(call));
            return;
        };
        let wire = RuleCall {
            generation,
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
        };
        let registry = self.registry.clone();
        self.spawn(async move {
            let operation = Operation::Perform {
                call: Box::new(wire),
            };
            let answer = registry.request(id, None, operation, ANSWER).await;
            Event::GuestCalled(Box::new(CallAnswered {
                domain: id,
                what,
                answer,
            }))
        });
    }

    /// A guest has begun what it was asked for, or has not.
    pub(super) fn guest_called(&mut self, answered: &CallAnswered) {
        let CallAnswered {
            domain,
            what,
            answer,
        } = answered;
        let error = match answer {
            // What came of it is told by the guest's record.
            Ok(_) => return self.fetch_records(*domain),
            Err(error) => error,
        };
        let known = match error.effect() {
            Effect::Unknown => "it is not known whether the guest has done it",
            _ => "nothing is done in the guest",
        };
        let text = format!("{what}; {known}: {}", sentence_of(error));
        self.record(
            AuditKind::Refusal,
            Some(*domain),
            &text,
            serde_json::Value::Null,
        );
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
