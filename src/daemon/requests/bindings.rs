//! What people do to one domain: apply and take back a persona, see what that would change.

use super::refusal;
use crate::audit::AuditKind;
use crate::catalog::{self, ExplicitBinding, Insistence};
use crate::command::{Caller, DomainName, Mode, PersonaRef, Refusal, Reply};
use crate::daemon::{Daemon, show};
use crate::hypervisor::DomainId;
use crate::store::Batch;
use crate::view::{AppliedView, PlanLine, PlanView};

impl Daemon {
    pub(in crate::daemon) fn apply(
        &mut self,
        domain: &DomainName,
        persona: &PersonaRef,
        mode: Mode,
        caller: &Caller,
    ) -> Result<Reply, Refusal> {
        let id = self.domain(domain)?;
        let reference = self.reference(persona)?;
        if mode == Mode::DryRun {
            return self.plan_of(id, &reference);
        }
        let mut batch = Batch::new();
        let binding = ExplicitBinding {
            persona: reference.clone(),
            by: caller.name.clone(),
            at: self.clock.now(),
        };
        self.catalog
            .bind(&mut batch, id, binding)
            .map_err(refusal)?;
        let text = format!("{} applied {reference}", caller.name);
        let entry = self.entry(AuditKind::Binding, Some(id), &text, serde_json::Value::Null);
        self.commit(batch, vec![entry]).map_err(refusal)?;
        self.resolve_with(id, Insistence::Again).map_err(refusal)?;
        Ok(Reply::Applied(self.applied(id)))
    }

    pub(in crate::daemon) fn deactivate(
        &mut self,
        domain: &DomainName,
        caller: &Caller,
    ) -> Result<Reply, Refusal> {
        let id = self.domain(domain)?;
        let mut batch = Batch::new();
        if self.catalog.unbind(&mut batch, id).is_none() {
            let tracked = &self.domains[&id];
            // The bus names domains by their identity, people by their name.
            let name = &tracked.description.name;
            let reason = match tracked.persona.bound.as_ref() {
                Some(bound) if bound.tag.is_some() => format!(
                    "domain `{name}` has persona `{}` because of its tag `{}`; remove the tag or its mapping",
                    bound.name,
                    bound.tag.as_deref().unwrap_or_default()
                ),
                Some(bound) => format!(
                    "domain `{name}` has `{}` because that is the default persona; apply another, or make it no default",
                    bound.name
                ),
                None => format!("domain `{name}` has no persona"),
            };
            return Err(Refusal::Refused { reason });
        }
        let text = format!("{} took the applied persona back", caller.name);
        let entry = self.entry(AuditKind::Binding, Some(id), &text, serde_json::Value::Null);
        self.commit(batch, vec![entry]).map_err(refusal)?;
        self.resolve_with(id, Insistence::Keep).map_err(refusal)?;
        Ok(Reply::Applied(self.applied(id)))
    }

    pub(in crate::daemon) fn applied(&self, id: DomainId) -> AppliedView {
        let tracked = &self.domains[&id];
        AppliedView {
            domain: id,
            name: tracked.description.name.clone(),
            persona: tracked.persona.bound.clone(),
            activation: show::activation_view(tracked),
            generation: self
                .catalog
                .activation(id)
                .map_or(0, |activation| activation.generation.0),
        }
    }

    /// What an activation would change, without changing anything.
    pub(in crate::daemon) fn plan_of(
        &self,
        id: DomainId,
        reference: &catalog::PersonaRef,
    ) -> Result<Reply, Refusal> {
        let (summary, persona) = self.catalog.persona(reference).map_err(refusal)?;
        let tracked = &self.domains[&id];
        let now = tracked.persona.in_force.as_deref();
        let origin = format!("{}@{}", summary.name, summary.number);
        let mut lines = Vec::new();
        let mut line = |subject: String, now: Option<String>, then: Option<String>| {
            if now != then {
                lines.push(PlanLine {
                    subject,
                    now,
                    then,
                    from: origin.clone(),
                });
            }
        };
        let cpu = |persona: &persona::Persona| persona.base.cpu;
        let memory = |persona: &persona::Persona| persona.base.memory;
        let (old, new) = (now.and_then(cpu), cpu(&persona));
        line(
            "vcpus.min".into(),
            old.as_ref().map(|c| c.min.to_string()),
            new.as_ref().map(|c| c.min.to_string()),
        );
        line(
            "vcpus.max".into(),
            old.as_ref().and_then(|c| c.max).map(|max| max.to_string()),
            new.as_ref().and_then(|c| c.max).map(|max| max.to_string()),
        );
        let (old, new) = (now.and_then(memory), memory(&persona));
        line(
            "memory.min".into(),
            old.as_ref().map(|m| m.min.to_string()),
            new.as_ref().map(|m| m.min.to_string()),
        );
        line(
            "memory.max".into(),
            old.as_ref().and_then(|m| m.max).map(|max| max.to_string()),
            new.as_ref().and_then(|m| m.max).map(|max| max.to_string()),
        );
        let names = now
            .into_iter()
            .flat_map(|now| now.environment.keys())
            .chain(persona.environment.keys());
        let mut names: Vec<&String> = names.collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let shown = |of: &persona::Persona| of.environment.get(name).map(shown);
            let old = now.and_then(shown);
            line(format!("environment.{name}"), old, shown(&persona));
        }
        for rule in &persona.rules {
            let old = now.and_then(|now| now.rules.iter().find(|old| old.name == rule.name));
            line(
                format!("rule.{}", rule.name),
                old.map(|old| old.text.clone()),
                Some(rule.text.clone()),
            );
        }
        for old in now.into_iter().flat_map(|now| &now.rules) {
            if !persona.rules.iter().any(|rule| rule.name == old.name) {
                line(format!("rule.{}", old.name), Some(old.text.clone()), None);
            }
        }
        let script = |script: &Option<persona::Script>| {
            script
                .as_ref()
                .map(|script| format!("{} as {}", script.interpreter, script.user))
        };
        line(
            "pre_activation_script".into(),
            None,
            script(&persona.pre_activation),
        );
        line(
            "post_activation_script".into(),
            None,
            script(&persona.post_activation),
        );
        let bad = |check: &&crate::view::CheckView| check.state != crate::view::CheckState::Ok;
        let obstacles = self
            .doctor(Some(id))
            .checks
            .iter()
            .filter(bad)
            .map(|check| check.sentence.clone())
            .collect();
        Ok(Reply::Plan(PlanView {
            domain: id,
            name: tracked.description.name.clone(),
            persona: summary.name.to_string(),
            version: summary.number.get(),
            lines,
            obstacles,
        }))
    }
}

/// A variable's value for people.
fn shown(value: &persona::EnvironmentValue) -> String {
    match value {
        persona::EnvironmentValue::Text(text) => text.clone(),
        persona::EnvironmentValue::Secret { .. } => "(secret)".to_owned(),
    }
}
