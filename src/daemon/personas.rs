//! The persona path: tags and bindings -> the version that a domain is to have -> its activation in the guest (`guest`) -> what
//! is in force. The catalogue keeps each step before it is taken, so that every start knows where the last one was.

mod guest;

use agent_protocol::GateState;
use agent_protocol::message::JournalState;

use super::Daemon;
use super::disk::wait_for_disk;
use crate::act::sentence_of;
use crate::audit::{AuditKind, Entry};
use crate::catalog::{
    Activation, ActivationEvent, AgentPresence, CatalogueError, Desired, Insistence, Occasion,
    Origin, Resolution, Transition, Wanted,
};
use crate::hypervisor::DomainId;
use crate::store::Batch;

pub(super) use guest::ActivationResult;

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
        self.end_overtaken_shifts(id)?;
        let Some(tracked) = self.domains.get(&id) else {
            return Ok(());
        };
        let tags = tracked.description.tags.clone();
        let unreadable = tracked.description.tags_problem.clone();
        let agent = presence(tracked.agent.facts.is_some());
        let desired = match self.catalog.resolve(id, &tags) {
            // Tags that cannot be read are not the same as no tags: what holds goes on to hold.
            _ if unreadable.is_some() && self.catalog.explicit(id).is_none() => Ok(None),
            // A person who asks for it once more wants it as it is written.
            Resolution::Bound(binding) => match insistence {
                Insistence::Keep => self.catalog.desired_on(id, &binding).map(Some),
                Insistence::Again => self.catalog.desired(&binding).map(Some),
            },
            Resolution::Unbound => Ok(Some(Desired::Nothing)),
            Resolution::Conflict(conflict) => {
                self.persona_problem(id, Some(conflict.to_string()));
                self.follow_activation(id);
                return Ok(());
            }
        };
        let desired = match desired {
            Ok(Some(desired)) => desired,
            Ok(None) => {
                self.persona_problem(id, unreadable);
                self.follow_activation(id);
                return Ok(());
            }
            // What holds goes on to hold: layers that come to nothing never replace what came to something.
            Err(error) => {
                self.persona_problem(id, Some(sentence_of(&error)));
                self.follow_activation(id);
                return Err(error);
            }
        };
        self.persona_problem(id, unreadable);
        let now = self.clock.now();
        let mut batch = Batch::new();
        if insistence == Insistence::Keep && self.catalog.stays(id, &desired) {
            self.follow_activation(id);
            return Ok(());
        }
        self.catalog.let_go_unless_turn(&mut batch, id);
        let mut entries = Vec::new();
        // A generation may have to be taken from the store.
        let wanted = wait_for_disk(|| {
            self.catalog
                .want(&mut batch, id, desired, insistence, agent, now)
        })?;
        if let Some(Wanted::Started(activation)) = &wanted {
            entries.push(self.entry(
                AuditKind::Binding,
                Some(id),
                &format!(
                    "{} (generation {})",
                    wanted_text(&activation.desired),
                    activation.generation
                ),
                super::tick::json(activation),
            ));
            entries.extend(self.end_adjustments(&mut batch, id, activation, insistence)?);
        }
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
        let records = wait_for_disk(|| self.audit.append_with(batch, entries))?;
        for record in records {
            // Nobody may be listening.
            let _ = self.announcements.send(super::show::record_view(record));
        }
        Ok(())
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

    /// Sends the activation when it is due, and brings what is in force and shown in line with it.
    pub(super) fn follow_activation(&mut self, id: DomainId) {
        self.follow_shift_rule(id);
        let adjusted = self.follow_adjusted(id);
        let Some(tracked) = self.domains.get(&id) else {
            return;
        };
        let due = self.catalog.activation(id).filter(|due| due.is_due());
        if let (Some(facts), Some(due)) = (&tracked.agent.facts, due) {
            // What somebody in the guest went back to by hand holds until a person or a tag wants something else.
            let waits = due.occasion == Occasion::Adjustment && facts.rolled_back.is_some();
            if !waits {
                let due = due.clone();
                self.send(id, &due);
            }
        }
        let trouble = self.stand_in_trouble(id).map(str::to_owned);
        let Some(tracked) = self.domains.get_mut(&id) else {
            return;
        };
        let activation = self.catalog.activation(id);
        let pinned = match self.catalog.resolve(id, &tracked.description.tags) {
            Resolution::Bound(binding) => binding.persona.pin.is_some(),
            Resolution::Unbound | Resolution::Conflict(_) => false,
        };
        let side = &mut tracked.persona;
        let (state, mut detail, since) = super::show::activation_state(activation);
        let facts = tracked.agent.facts.as_ref();
        if let Some(back) = facts.and_then(|facts| facts.rolled_back.as_ref()) {
            let text = format!(
                "in the guest somebody went back to {back} by hand; apply a persona to end that"
            );
            detail = Some(detail.map_or(text.clone(), |detail| format!("{text}; {detail}")));
        }
        if let Some(own) = facts.and_then(|facts| facts.own.as_ref()) {
            let text = format!("in the guest {own}");
            detail = Some(detail.map_or(text.clone(), |detail| format!("{text}; {detail}")));
        }
        let gate = facts.and_then(|facts| facts.gate);
        // That it holds is worth a word only beside one that says otherwise, which is as of the activation.
        let gate = gate.filter(|gate| {
            let said = |detail: &String| detail.contains("restricted_commands");
            *gate != GateState::Holds || detail.as_ref().is_some_and(said)
        });
        if let Some(text) = gate.map(super::show::gate_text) {
            detail = Some(detail.map_or(text.to_owned(), |detail| format!("{text}; {detail}")));
        }
        if facts.is_some_and(|facts| facts.journal == JournalState::Frozen) {
            let text = super::show::FROZEN;
            detail = Some(detail.map_or(text.to_owned(), |detail| format!("{text}; {detail}")));
        }
        if let Some(text) = adjusted {
            detail = Some(detail.map_or(text.clone(), |detail| format!("{text}; {detail}")));
        }
        if let (Some(detail), Some(trouble)) = (&mut detail, trouble) {
            detail.push_str("; ");
            detail.push_str(&trouble);
        }
        (side.state, side.detail, side.since) = (state, detail, since);
        side.bound = activation.and_then(|activation| super::show::bound(activation, pinned));
        match activation.and_then(Activation::in_force) {
            None => (side.in_force, side.layers) = (None, None),
            // Rules are those of the persona itself: what they adjust in the guest is no reason to begin anew.
            Some(composition) => match (
                self.catalog.effective(&composition.plain()),
                self.catalog.effective(&composition),
            ) {
                (Ok(plain), Ok(composed)) => {
                    if let Some(carried) = self.state.domains.get_mut(&id) {
                        carried.begin_anew_unless(&plain.persona.digest);
                    }
                    side.in_force = Some(plain.persona.clone());
                    side.layers = Some(composed);
                }
                // What is known of it stays in force.
                (Err(error), _) | (_, Err(error)) => tracing::error!(
                    error = sentence_of(&error),
                    "a persona that is in force cannot be read"
                ),
            },
        }
        side.in_guest = super::guest_rules::names_of_guest(side.in_force.as_deref());
        side.parts = super::collect::parts(side.in_force.as_deref());
        self.registry.collect(id, side.parts);
        self.show_status(id);
        self.statistics_on(id);
        self.follow_switch(id);
        self.ask_calls(id);
    }

    pub(super) fn advance(
        &mut self,
        id: DomainId,
        event: ActivationEvent,
        entries: Vec<Entry>,
    ) -> Transition {
        let now = self.clock.now();
        let mut batch = Batch::new();
        let mut of_it = Vec::new();
        let transition = self
            .catalog
            .advance(&mut batch, id, event, now)
            .map_err(CatalogueError::from);
        let transition = transition.and_then(|transition| {
            if let Transition::Changed(next) = &transition {
                of_it.extend(self.follow_adjusting(&mut batch, id, next)?);
            }
            Ok(transition)
        });
        let entries = if matches!(transition, Ok(Transition::Changed(_))) {
            [entries, of_it].concat()
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

    /// A domain that is no longer defined takes its binding with it.
    pub(super) fn forget_persona(&mut self, id: DomainId, name: &str) {
        let mut batch = Batch::new();
        batch.remove::<super::tick::Carried>(id.0);
        self.forget_guest_rules(&mut batch, id);
        let mut entries = Vec::new();
        entries.extend(self.forget_calls(&mut batch, id, name));
        entries.extend(self.forget_adoption(&mut batch, id, name));
        if self.catalog.domains().contains(&id) {
            self.catalog.forget(&mut batch, id);
            let text = format!("domain {name} is no longer defined, so its persona is forgotten");
            entries.push(self.entry(AuditKind::Binding, None, &text, serde_json::Value::Null));
        }
        if let Err(error) = self.commit(batch, entries) {
            tracing::error!(
                error = sentence_of(&error),
                "a binding could not be removed"
            );
        }
    }
}

pub(super) fn presence(connected: bool) -> AgentPresence {
    if connected {
        AgentPresence::Present
    } else {
        AgentPresence::Absent
    }
}

pub(super) fn wanted_text(desired: &Desired) -> String {
    match desired {
        Desired::Nothing => "no persona".into(),
        Desired::Persona {
            composition,
            origin,
            ..
        } => {
            let why = match origin {
                Origin::Explicit => "a person applied it".to_string(),
                Origin::Tag { tag, priority } => format!("tag {tag} of priority {priority}"),
                Origin::Default => "it is the default persona".to_string(),
                Origin::Shift { rule, of } => format!("rule {rule} of {of} gave it"),
            };
            format!("persona {composition} ({why})")
        }
    }
}
