//! The persona path: tags and bindings -> the version that a domain is to have -> its activation in the guest -> what is
//! in force. The catalogue keeps each step before it is taken, so that every start knows where the last one was.

use std::sync::Arc;
use std::time::Duration;

use agent_protocol::{Operation, RequestId};
use persona::Persona;

use super::Daemon;
use super::event::Event;
use super::message::{message, reply_detail, script_text};
use crate::act::sentence_of;
use crate::agent::{AgentError, AgentReply, Effect};
use crate::audit::{AuditKind, Entry};
use crate::catalog::{
    Activation, ActivationEvent, ActivationState, AgentPresence, CatalogueError, Desired,
    Generation, Insistence, Origin, PersonaRef, Resolution, Shown, Transition, Wanted,
};
use crate::hypervisor::{DomainId, HypervisorError, MetadataElement};
use crate::store::Batch;
use crate::view;

/// How long the guest may take besides its scripts.
const GUEST_TIME: Duration = Duration::from_secs(30);

/// What came of asking a guest.
#[derive(Debug)]
pub struct ActivationResult {
    domain: DomainId,
    generation: Generation,
    answer: Result<AgentReply, AgentError>,
}

impl Daemon {
    /// What the domain's tags and bindings come to is worked out anew, and begun when it is something else than before.
    pub(super) fn resolve(&mut self, id: DomainId) {
        if let Err(error) = self.resolve_with(id, Insistence::Keep) {
            let text = sentence_of(&error);
            tracing::error!(domain = %id, error = text, "a domain's persona could not be worked out");
            if let Some(tracked) = self.domains.get_mut(&id) {
                tracked.persona.problem = Some(text);
            }
        }
    }

    /// As [`Daemon::resolve`]; with [`Insistence::Again`] also what is active already is activated once more.
    pub(super) fn resolve_with(
        &mut self,
        id: DomainId,
        insistence: Insistence,
    ) -> Result<(), CatalogueError> {
        let Some(tracked) = self.domains.get(&id) else {
            return Ok(());
        };
        let tags = tracked.description.tags.clone();
        let agent = presence(tracked.agent.facts.is_some());
        let desired = match self.catalog.resolve(id, &tags) {
            Resolution::Bound(binding) => self.catalog.desired(&binding)?,
            Resolution::Unbound => Desired::Nothing,
            Resolution::Conflict(conflict) => {
                self.persona_problem(id, Some(conflict.to_string()));
                return Ok(());
            }
        };
        self.persona_problem(id, None);
        let now = self.clock.now();
        let mut batch = Batch::new();
        let wanted = self
            .catalog
            .want(&mut batch, id, desired, insistence, agent, now)?;
        let entries = match &wanted {
            Some(Wanted::Started(activation)) => vec![self.entry(
                AuditKind::Binding,
                Some(id),
                &format!(
                    "{} (generation {})",
                    wanted_text(&activation.desired),
                    activation.generation
                ),
                super::tick::json(activation),
            )],
            _ => Vec::new(),
        };
        self.commit(batch, entries)?;
        self.follow_activation(id);
        Ok(())
    }

    /// Every domain is resolved anew, after a change of personas or mappings.
    pub(super) fn resolve_all(&mut self) {
        let ids: Vec<DomainId> = self.domains.keys().copied().collect();
        for id in ids {
            self.resolve(id);
        }
    }

    /// Changes and their records become durable together, then the records are announced.
    pub(super) fn commit(
        &mut self,
        batch: Batch,
        entries: Vec<Entry>,
    ) -> Result<(), CatalogueError> {
        if batch.is_empty() && entries.is_empty() {
            return Ok(());
        }
        let records = tokio::task::block_in_place(|| self.audit.append_with(batch, entries))?;
        for record in records {
            // Nobody may be listening.
            let _ = self.announcements.send(super::show::record_view(record));
        }
        Ok(())
    }

    pub(super) fn tags_problem(&mut self, id: DomainId, problem: Option<String>) {
        if let Some(problem) = problem {
            self.persona_problem(id, Some(problem));
        }
    }

    fn persona_problem(&mut self, id: DomainId, problem: Option<String>) {
        let Some(tracked) = self.domains.get_mut(&id) else {
            return;
        };
        if tracked.persona.problem == problem {
            return;
        }
        tracked.persona.problem.clone_from(&problem);
        if let Some(problem) = problem {
            self.record(
                AuditKind::Refusal,
                Some(id),
                &problem,
                serde_json::Value::Null,
            );
        }
    }

    /// Brings what is in force in line with the activation, and sends it when it is due.
    fn follow_activation(&mut self, id: DomainId) {
        let activation = self.catalog.activation(id).cloned();
        let in_force = activation
            .as_ref()
            .and_then(|activation| self.in_force_by(activation));
        let Some(tracked) = self.domains.get_mut(&id) else {
            return;
        };
        let side = &mut tracked.persona;
        let (state, detail, since) = super::show::activation_state(activation.as_ref());
        (side.state, side.detail, side.since) = (state, detail, since);
        side.bound = activation.as_ref().and_then(super::show::bound);
        match in_force {
            Some(InForce::This(persona)) => side.in_force = Some(persona),
            Some(InForce::Nothing) => side.in_force = None,
            // Under way or failed: what was in force before stays in force.
            None => {}
        }
        if let Some(activation) = activation {
            if activation.is_due() && tracked.agent.facts.is_some() {
                self.send(id, &activation);
            }
            self.show_status(id, &activation);
        }
        self.statistics_on(id);
    }

    fn in_force_by(&self, activation: &Activation) -> Option<InForce> {
        if !matches!(
            activation.state,
            ActivationState::Active { .. } | ActivationState::AgentAbsent
        ) {
            return None;
        }
        match &activation.desired {
            Desired::Nothing => Some(InForce::Nothing),
            Desired::Persona { name, version, .. } => {
                let reference = PersonaRef {
                    name: name.clone(),
                    pin: Some(*version),
                };
                match self.catalog.persona(&reference) {
                    Ok((_, persona)) => Some(InForce::This(persona)),
                    Err(error) => {
                        tracing::error!(
                            error = sentence_of(&error),
                            "a persona that is active cannot be read"
                        );
                        None
                    }
                }
            }
        }
    }

    fn advance(&mut self, id: DomainId, event: ActivationEvent, entries: Vec<Entry>) -> Transition {
        let now = self.clock.now();
        let mut batch = Batch::new();
        let transition = self
            .catalog
            .advance(&mut batch, id, event, now)
            .map_err(CatalogueError::from);
        let entries = if matches!(transition, Ok(Transition::Changed(_))) {
            entries
        } else {
            Vec::new()
        };
        match transition.and_then(|transition| self.commit(batch, entries).map(|()| transition)) {
            Ok(transition) => transition,
            Err(error) => {
                let text = format!(
                    "an activation could not be recorded: {}",
                    sentence_of(&error)
                );
                tracing::error!(domain = %id, text);
                self.problems.insert("store-write", text);
                Transition::Same
            }
        }
    }

    /// An agent says hello and what it has active.
    pub(super) fn agent_came(&mut self, id: DomainId) {
        let Some(facts) = self
            .domains
            .get(&id)
            .and_then(|tracked| tracked.agent.facts.as_ref())
        else {
            return;
        };
        let shown = match &facts.active {
            Some(active) => match serde_json::from_value(serde_json::json!(active.digest.as_str()))
            {
                Ok(digest) => Shown::Persona {
                    generation: Generation(active.generation),
                    digest,
                },
                // What is no digest is not one of ours.
                Err(_) => Shown::Nothing,
            },
            None => Shown::Nothing,
        };
        let before = self
            .catalog
            .activation(id)
            .map(|activation| activation.state.clone());
        let came = self.advance(id, ActivationEvent::AgentCame(shown.clone()), Vec::new());
        if let Transition::Changed(now) = &came
            && before.as_ref() != Some(&now.state)
            && matches!(now.state, ActivationState::Active { .. })
        {
            let text = format!(
                "the guest has it active already: {}",
                wanted_text(&now.desired)
            );
            self.record(
                AuditKind::Activation,
                Some(id),
                &text,
                serde_json::Value::Null,
            );
        }
        // A guest may show a persona that nobody here knows of, from another host or an earlier store: it is taken back.
        if self.catalog.activation(id).is_none() && shown != Shown::Nothing {
            let _ = self.resolve_with(id, Insistence::Again);
        }
        self.follow_activation(id);
    }

    pub(super) fn agent_left(&mut self, id: DomainId) {
        self.advance(id, ActivationEvent::AgentLeft, Vec::new());
        self.follow_activation(id);
    }

    /// What was on its way when the daemon last ended is not on its way any more.
    pub(super) fn forget_senders(&mut self) {
        let ids: Vec<DomainId> = self.catalog.activations().map(|(id, _)| id).collect();
        for id in ids {
            self.advance(id, ActivationEvent::AgentLeft, Vec::new());
        }
    }

    fn send(&mut self, id: DomainId, activation: &Activation) {
        let generation = activation.generation;
        let (operation, deadline) = match &activation.desired {
            Desired::Nothing => (
                Operation::Deactivate {
                    generation: generation.0,
                },
                GUEST_TIME,
            ),
            Desired::Persona { name, version, .. } => {
                let reference = PersonaRef {
                    name: name.clone(),
                    pin: Some(*version),
                };
                match self.catalog.persona(&reference) {
                    Ok((_, persona)) => {
                        let scripts = [&persona.pre_activation, &persona.post_activation];
                        let time = scripts
                            .into_iter()
                            .flatten()
                            .map(|script| script.timeout)
                            .sum::<Duration>();
                        let message = message(generation, version.get(), &persona);
                        (
                            Operation::Activate {
                                activation: Box::new(message),
                            },
                            GUEST_TIME + time,
                        )
                    }
                    Err(error) => {
                        let reason = sentence_of(&error);
                        self.advance(id, ActivationEvent::Refused(generation, reason), Vec::new());
                        return;
                    }
                }
            }
        };
        // The same id for every try: what the guest has done already it does not do again.
        let Ok(request) = RequestId::new(format!("activation-{generation}")) else {
            return;
        };
        self.advance(id, ActivationEvent::Sent, Vec::new());
        if let Some(tracked) = self.domains.get_mut(&id) {
            tracked.persona.state = view::ActivationState::Sent;
        }
        let registry = self.registry.clone();
        self.spawn(async move {
            let answer = registry
                .request(id, Some(request), operation, deadline)
                .await;
            Event::Activated(Box::new(ActivationResult {
                domain: id,
                generation,
                answer,
            }))
        });
    }

    pub(super) fn activation_ended(&mut self, result: ActivationResult) {
        let ActivationResult {
            domain: id,
            generation,
            answer,
        } = result;
        let what = self
            .catalog
            .activation(id)
            .map_or_else(String::new, |activation| wanted_text(&activation.desired));
        match answer {
            Ok(reply) => {
                let text = format!("the guest confirms: {what}{}", script_text(&reply));
                let entry =
                    self.entry(AuditKind::Activation, Some(id), &text, reply_detail(&reply));
                self.advance(id, ActivationEvent::Acknowledged(generation), vec![entry]);
            }
            Err(error) if error.effect() == Effect::Unknown => {
                let text = format!("no answer yet: {what}: {}", sentence_of(&error));
                let entry = self.entry(
                    AuditKind::Activation,
                    Some(id),
                    &text,
                    serde_json::Value::Null,
                );
                self.advance(id, ActivationEvent::Silent(generation), vec![entry]);
            }
            Err(
                error @ (AgentError::Refused { .. }
                | AgentError::InvalidActivation { .. }
                | AgentError::TooLarge { .. }),
            ) => {
                let reason = sentence_of(&error);
                let text = format!("it failed in the guest: {what}: {reason}");
                let entry = self.entry(
                    AuditKind::Activation,
                    Some(id),
                    &text,
                    serde_json::Value::Null,
                );
                self.advance(
                    id,
                    ActivationEvent::Refused(generation, reason),
                    vec![entry],
                );
            }
            // It was not sent after all; the next hello tries again.
            Err(_) => {
                self.advance(id, ActivationEvent::AgentLeft, Vec::new());
            }
        }
        self.follow_activation(id);
        self.publish();
    }

    /// Shows the persona in the domain's metadata, where `virsh` users look.
    fn show_status(&mut self, id: DomainId, activation: &Activation) {
        let xml = match (&activation.desired, &activation.state) {
            (
                Desired::Persona { name, version, .. },
                ActivationState::Active { .. } | ActivationState::AgentAbsent,
            ) => {
                // Names are of a few plain characters, and the rest are numbers: nothing needs escaping.
                Some(format!(
                    "<active persona='{name}' version='{version}' generation='{}'/>",
                    activation.generation
                ))
            }
            (Desired::Nothing, _) => None,
            _ => return,
        };
        let Some(tracked) = self.domains.get_mut(&id) else {
            return;
        };
        if tracked.persona.status.as_ref() == Some(&xml) {
            return;
        }
        tracked.persona.status = Some(xml.clone());
        let hypervisor = self.hypervisor.clone();
        self.spawn(async move {
            Event::MetadataWritten(
                id,
                hypervisor
                    .set_metadata(id, MetadataElement::Status, xml)
                    .await,
            )
        });
    }

    pub(super) fn metadata_is_written(
        &mut self,
        id: DomainId,
        result: Result<(), HypervisorError>,
    ) {
        if let Err(error) = result {
            tracing::warn!(domain = %id, error = sentence_of(&error), "the domain's metadata could not be written");
            if let Some(tracked) = self.domains.get_mut(&id) {
                tracked.persona.status = None;
            }
        }
    }

    /// A domain that is no longer defined takes its binding with it.
    pub(super) fn forget_persona(&mut self, id: DomainId, name: &str) {
        let mut batch = Batch::new();
        if self.catalog.activation(id).is_none() && self.catalog.explicit(id).is_none() {
            return;
        }
        self.catalog.forget(&mut batch, id);
        let text = format!("domain {name} is no longer defined, so its persona is forgotten");
        let entry = self.entry(AuditKind::Binding, None, &text, serde_json::Value::Null);
        if let Err(error) = self.commit(batch, vec![entry]) {
            tracing::error!(
                error = sentence_of(&error),
                "a binding could not be removed"
            );
        }
    }
}

enum InForce {
    This(Arc<Persona>),
    Nothing,
}

pub(super) fn presence(connected: bool) -> AgentPresence {
    if connected {
        AgentPresence::Present
    } else {
        AgentPresence::Absent
    }
}

fn wanted_text(desired: &Desired) -> String {
    match desired {
        Desired::Nothing => "no persona".into(),
        Desired::Persona {
            name,
            version,
            origin,
            ..
        } => {
            let why = match origin {
                Origin::Explicit => "a person applied it".to_string(),
                Origin::Tag { tag, priority } => format!("tag {tag} of priority {priority}"),
                Origin::Default => "it is the default persona".to_string(),
            };
            format!("persona {name}@{version} ({why})")
        }
    }
}
