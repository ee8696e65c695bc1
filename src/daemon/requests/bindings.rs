//! What people do to one domain: apply and take back a persona, see what that would change.

use persona::origin_of;

use super::refusal;
use crate::audit::AuditKind;
use crate::catalog::{Composed, Composition, ExplicitBinding, Insistence, Resolution, VersionId};
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
        let binding = ExplicitBinding {
            persona: reference.clone(),
            by: caller.name.clone(),
            at: self.clock.now(),
        };
        let tags = &self.domains[&id].description.tags;
        let (composition, composed) = match self.catalog.resolve_with(&binding, tags) {
            Resolution::Bound(bound) => {
                let composition = self.catalog.composition(&bound).map_err(refusal)?;
                let composed = self.catalog.effective(&composition).map_err(refusal)?;
                (composition, composed)
            }
            Resolution::Conflict(conflict) => {
                return Err(Refusal::Conflict {
                    reason: conflict.to_string(),
                });
            }
            // A person's own choice is never nothing; the answer is a refusal should it ever be.
            Resolution::Unbound => {
                return Err(Refusal::Refused {
                    reason: format!("`{reference}` gives the domain no persona"),
                });
            }
        };
        if mode == Mode::DryRun {
            return Ok(Reply::Plan(self.plan_of(id, &composition, &composed)));
        }
        let mut batch = Batch::new();
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
            let now = self.clock.now();
            let why = format!("{} takes the shift back", caller.name);
            if self.shift_back(id, &why, now) {
                return Ok(Reply::Applied(self.applied(id)));
            }
            if self.drop_adjustments(id, &caller.name) {
                return Ok(Reply::Applied(self.applied(id)));
            }
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
        // Where the tags give the same persona, it goes on as it is written.
        self.drop_adjustments(id, &caller.name);
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
    fn plan_of(&self, id: DomainId, composition: &Composition, then: &Composed) -> PlanView {
        let tracked = &self.domains[&id];
        let VersionId { name, version } = &composition.persona;
        let default = format!("{name}@{version}, by default");
        let from = |path: &str| {
            origin_of(&then.values, path).map_or_else(
                || default.clone(),
                |origin| {
                    let tag = origin.tag.as_ref();
                    let tag = tag.map_or_else(String::new, |tag| format!(" (tag {tag})"));
                    format!("{}, line {}{tag}", origin.document, origin.line)
                },
            )
        };
        let now = tracked.persona.layers.as_ref();
        let differences = match now {
            Some(now) => persona::difference(&now.persona, &then.persona),
            None => persona::contents(&then.persona),
        };
        let lines = differences
            .into_iter()
            .map(|difference| PlanLine {
                from: match difference.after {
                    Some(_) => from(&difference.path),
                    None => format!("{name}@{version} does not say it"),
                },
                subject: difference.path,
                now: difference.before,
                then: difference.after,
            })
            .collect();
        let bad = |check: &&crate::view::CheckView| check.state != crate::view::CheckState::Ok;
        let obstacles = self
            .doctor(Some(id))
            .checks
            .iter()
            .filter(bad)
            .map(|check| check.sentence.clone())
            .collect();
        PlanView {
            domain: id,
            name: tracked.description.name.clone(),
            persona: name.to_string(),
            version: version.get(),
            lines,
            obstacles,
        }
    }
}
