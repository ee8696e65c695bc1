//! Whether the rules of a persona have gone to an agent that evaluates them. Where they have not, because a daemon of an earlier
//! version activated the persona or the agent was too old for them then, they are brought once an agent is there that can have them: by
//! one more activation of the same persona, without its scripts, which have run. Called by `personas` when something is sent and when
//! an agent has come.

use agent_protocol::activation::Activation as Message;
use agent_protocol::rules::RULES_FEATURE;

use super::disk::wait_for_disk;
use super::message::rules;
use super::{Daemon, personas::wanted_text, tick::json};
use crate::act::sentence_of;
use crate::audit::AuditKind;
use crate::catalog::{ActivationState, AgentPresence, CatalogueError, Desired, Insistence, Wanted};
use crate::hypervisor::DomainId;
use crate::store::Batch;

impl Daemon {
    /// Notes that an activation goes to an agent that can have its rules. One that is to bring nothing else loses its scripts, but
    /// not where the guest has lost the persona meanwhile.
    pub(super) fn rules_are_sent(&mut self, id: DomainId, message: &mut Message) {
        let facts = self.domains.get(&id);
        let Some(facts) = facts.and_then(|tracked| tracked.agent.facts.as_ref()) else {
            return;
        };
        let can = facts.can(RULES_FEATURE);
        let active = facts.active.as_ref();
        let is_there = active.is_some_and(|active| active.digest.as_str() == message.digest);
        let mut book = self.guest_rules.book(id);
        if book.brings == message.generation && is_there {
            (message.pre, message.post) = (None, None);
        }
        if can && !message.rules.is_empty() && book.sent != message.generation {
            book.sent = message.generation;
            self.keep_book(id, book, Vec::new());
        }
    }

    /// Brings the rules of the persona that a guest has, where they are not there.
    pub(super) fn bring_rules(&mut self, id: DomainId) {
        let Some(tracked) = self.domains.get(&id) else {
            return;
        };
        let (Some(facts), Some(persona), Some(activation)) = (
            tracked.agent.facts.as_ref(),
            tracked.persona.in_force.as_ref(),
            self.catalog.activation(id),
        ) else {
            return;
        };
        let Desired::Persona {
            digest,
            composition,
            ..
        } = &activation.desired
        else {
            return;
        };
        let plain = self.catalog.digest(&composition.plain());
        let generation = activation.generation.0;
        let shows = |active: &crate::agent::ActivePersona| {
            active.generation == generation && active.digest.as_str() == digest.to_string()
        };
        let mut book = self.guest_rules.book(id);
        if !facts.can(RULES_FEATURE)
            || facts.rolled_back.is_some()
            || !matches!(activation.state, ActivationState::Active { .. })
            || !facts.active.as_ref().is_some_and(shows)
            || !plain.is_ok_and(|plain| plain == persona.digest)
            || book.sent == generation
            || rules(persona).is_empty()
        {
            return;
        }
        let desired = activation.desired.clone();
        let now = self.clock.now();
        let mut batch = Batch::new();
        let wanted = wait_for_disk(|| {
            let present = AgentPresence::Present;
            let again = Insistence::Again;
            self.catalog
                .want(&mut batch, id, desired, again, present, now)
        });
        let begun = wanted
            .map_err(CatalogueError::from)
            .and_then(|wanted| match wanted {
                Some(Wanted::Started(again)) => {
                    book.brings = again.generation.0;
                    batch.put(id.0, &book)?;
                    let text = format!(
                        "its rules are not in the guest yet, so it is activated once more, without its scripts: {} (generation {})",
                        wanted_text(&again.desired),
                        again.generation
                    );
                    let entry = self.entry(AuditKind::Activation, Some(id), &text, json(&again));
                    self.commit(batch, vec![entry])?;
                    self.guest_rules.learn(id, book);
                    Ok(())
                }
                _ => Ok(()),
            });
        if let Err(error) = begun {
            let error = sentence_of(&error);
            tracing::error!(domain = %id, error, "the rules of a persona could not be brought to a guest");
        }
        self.follow_activation(id);
    }
}
