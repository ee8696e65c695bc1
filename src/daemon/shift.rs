//! Shifts of persona: `activate persona` and `revert` of rules, and the `until` that ends one. What rules call for comes
//! from the plan; here it is carried out through the catalogue as a binding of its own, refused with a reason, or kept
//! until its cooldown is over. Called once a tick, after the plan.

use std::sync::Arc;
use std::time::Duration;

use persona::PersonaName;
use persona::rule::{Action, Rule, Truth};
use persona::units::Moment;
use planner::proposal::Turn as Ended;
use planner::report::DomainReport;
use planner::shift::{MOST_IN_A_SPAN, SPAN, Turn, Wait};
use planner::{Call, Edge};

use super::Daemon;
use crate::act::sentence_of;
use crate::audit::AuditKind;
use crate::catalog::{
    Activation, Binding, CatalogueError, Composition, DEEPEST_SHIFT, Origin, PersonaRef,
    Resolution, Shifts,
};
use crate::hypervisor::DomainId;
use crate::store::Batch;

/// What the rules of a domain want of its persona, and what became of that.
#[derive(Default)]
pub(super) struct ShiftSide {
    /// Until it is done, refused, or its rule holds no longer.
    wish: Option<ShiftWish>,
    /// What people approved of that, the first word first: each until it is done or refused, or its proposal ends otherwise.
    approved: Vec<ShiftWish>,
    /// What was said last, so that it is said once.
    said: Option<Said>,
    /// The rule behind the present shift, whose `until` ends it.
    pub(super) rule: Option<Arc<Rule>>,
}

/// A shift that a rule wants.
struct ShiftWish {
    rule: String,
    priority: i32,
    cooldown: Duration,
    to: To,
    /// The proposal that a person approved; nothing where the rule alone wants it, as long as it holds.
    approved: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum To {
    Persona(PersonaName),
    Before,
}

/// Why a shift does not take place, and whose it was.
#[derive(PartialEq)]
struct Said {
    rule: String,
    to: To,
    no: No,
}

/// Why a shift does not take place.
#[derive(Debug, PartialEq, thiserror::Error)]
enum No {
    #[error("the last shift was less than the rule's cooldown ago")]
    Cooldown { until: Moment },
    #[error(
        "the personas of the domain shifted {MOST_IN_A_SPAN} times within {} min, which is cut off here; let their rules \
         leave more between them, by a FOR, a COOLDOWN or an until",
        SPAN.as_secs() / 60
    )]
    TooOften { until: Moment },
    #[error(
        "{by} applied {persona}, and what a person applies goes before what rules give; `virt-persona deactivate` takes it back"
    )]
    Applied { by: String, persona: PersonaRef },
    #[error("persona {bound} was given to the domain meanwhile and is not active yet")]
    NotInForce { bound: PersonaName },
    #[error("the domain's tags are in conflict")]
    Conflict,
    #[error("there is no persona before this one")]
    NothingBefore,
    #[error("{DEEPEST_SHIFT} personas lie over each other already")]
    TooDeep,
    #[error("{0}")]
    Catalogue(String),
}

impl No {
    /// Whether it may be otherwise in a while, as long as the rule holds.
    fn waits(&self) -> bool {
        matches!(
            self,
            Self::Cooldown { .. } | Self::TooOften { .. } | Self::NotInForce { .. }
        )
    }
}

impl From<Wait> for No {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Cooldown { until } => Self::Cooldown { until },
            Wait::TooOften { until } => Self::TooOften { until },
        }
    }
}

/// Where a shift goes: the stack after it, and which way that is.
struct Way {
    turn: Turn,
    shifts: Shifts,
}

impl Daemon {
    /// Takes up what the rules of a plan call for, and carries out what may be.
    pub(super) fn follow_shifts(&mut self, calls: &[Call], returns: &[DomainId], now: Moment) {
        for call in calls.iter().filter(|call| call.edge == Edge::Begins) {
            let to = match &call.action {
                Action::ActivatePersona(name) => To::Persona(name.clone()),
                Action::Revert => To::Before,
                _ => continue,
            };
            self.wish_shift(call, to);
        }
        for id in returns {
            self.shift_is_over(*id, now);
        }
        let wishing: Vec<DomainId> = self
            .domains
            .iter()
            .filter(|(_, tracked)| {
                let side = &tracked.persona.shift;
                side.wish.is_some() || !side.approved.is_empty()
            })
            .map(|(id, _)| *id)
            .collect();
        for id in wishing {
            self.try_shift(id, now);
        }
    }

    /// Of several rules at once the one of the highest priority counts, and of equals the first of the document; what a person
    /// approved goes before all of them.
    fn wish_shift(&mut self, call: &Call, to: To) {
        let Some(tracked) = self.domains.get_mut(&call.domain) else {
            return;
        };
        let rules = tracked.persona.in_force.as_ref().map(|of| &of.rules);
        let Some(rule) = rules.and_then(|rules| rules.iter().find(|rule| rule.name == call.rule))
        else {
            return;
        };
        let wanted = ShiftWish {
            rule: rule.name.to_string(),
            priority: rule.priority,
            cooldown: rule.cooldown,
            to,
            approved: call.approved,
        };
        let side = &mut tracked.persona.shift;
        if wanted.approved.is_some() {
            side.approved.push(wanted);
        } else if side
            .wish
            .as_ref()
            .is_none_or(|wish| wish.priority < wanted.priority)
        {
            side.wish = Some(wanted);
        }
    }

    fn try_shift(&mut self, id: DomainId, now: Moment) {
        let Some(tracked) = self.domains.get_mut(&id) else {
            return;
        };
        let side = &mut tracked.persona.shift;
        let wish = if side.approved.is_empty() {
            side.wish.take()
        } else {
            Some(side.approved.remove(0))
        };
        let Some(wish) = wish else {
            return;
        };
        let rules = tracked.report.iter().flat_map(|report| &report.rules);
        let stands = match wish.approved {
            // A person's word holds until its proposal ends, whatever the rule says meanwhile.
            Some(proposal) => self.state.proposals.is_approved(proposal),
            None => rules
                .into_iter()
                .any(|rule| rule.name == wish.rule && rule.truth == Truth::True),
        };
        if !stands {
            return;
        }
        let no = match self.way(id, &wish, now) {
            Ok(None) => return self.settle_approved(wish.approved, Ended::There),
            Ok(Some(way)) => match self.take_way(id, &wish, way, now) {
                Ok(()) => return self.settle_approved(wish.approved, Ended::CarriedOut),
                Err(error) => No::Catalogue(sentence_of(&error)),
            },
            Err(no) => no,
        };
        let waits = no.waits();
        let refused = wish.approved.filter(|_| !waits);
        let said = Said {
            rule: wish.rule.clone(),
            to: wish.to.clone(),
            no,
        };
        let new = self.domains.get_mut(&id).and_then(|tracked| {
            let side = &mut tracked.persona.shift;
            match (waits, wish.approved) {
                (true, Some(_)) => side.approved.insert(0, wish),
                (true, None) => side.wish = Some(wish),
                (false, _) => {}
            }
            (side.said.as_ref() != Some(&said)).then(|| side.said.insert(said).text())
        });
        if let Some(text) = new {
            self.record(AuditKind::Refusal, Some(id), &text, serde_json::Value::Null);
        }
        self.settle_approved(refused, Ended::Refused);
    }

    /// Tells what came of a shift that a person approved, where one did.
    fn settle_approved(&mut self, proposal: Option<u64>, ended: Ended) {
        let news = proposal.and_then(|id| self.state.proposals.settle(id, ended));
        self.proposals_changed(news.as_slice());
    }

    /// Where a wish leads; nothing where the domain is there already.
    fn way(&self, id: DomainId, wish: &ShiftWish, now: Moment) -> Result<Option<Way>, No> {
        let tracked = &self.domains[&id];
        let (Some(_), Some(in_force)) = (
            tracked.persona.in_force.as_ref(),
            self.catalog.activation(id).and_then(Activation::in_force),
        ) else {
            return Ok(None);
        };
        if let Some(applied) = self.catalog.explicit(id) {
            return Err(No::Applied {
                by: applied.by.clone(),
                persona: applied.persona.clone(),
            });
        }
        let binding = match self.catalog.resolve(id, &tracked.description.tags) {
            Resolution::Bound(binding) => binding,
            Resolution::Conflict(_) => return Err(No::Conflict),
            Resolution::Unbound => return Ok(None),
        };
        if binding.persona.name != in_force.persona.name {
            // The rule is one of a persona that is on its way out.
            return Err(No::NotInForce {
                bound: binding.persona.name,
            });
        }
        let mut shifts = self.catalog.shifts(id).cloned().unwrap_or_default();
        let turn = match &wish.to {
            To::Before => {
                if shifts.stack.pop().is_none() {
                    return Err(No::NothingBefore);
                }
                Turn::Back
            }
            To::Persona(name) if *name == binding.persona.name => return Ok(None),
            To::Persona(name) => {
                shifts.stack = shifts
                    .towards(name, &wish.rule, &in_force.plain(), now)
                    .ok_or(No::TooDeep)?;
                self.check_target(name, &wish.rule, &in_force, binding)?;
                Turn::Forward
            }
        };
        shifts.pace.permits(turn, wish.cooldown, now)?;
        shifts.pace.note(turn, now);
        Ok(Some(Way { turn, shifts }))
    }

    /// Whether there is such a persona, and one that goes with what the domain's tags lay over it.
    fn check_target(
        &self,
        name: &PersonaName,
        rule: &str,
        of: &Composition,
        now: Binding,
    ) -> Result<(), No> {
        let then = Binding {
            persona: PersonaRef {
                name: name.clone(),
                pin: None,
            },
            origin: Origin::Shift {
                rule: rule.to_owned(),
                of: of.persona.clone(),
            },
            overrides: now.overrides,
        };
        match self.catalog.desired(&then) {
            Ok(_) => Ok(()),
            Err(error) => Err(No::Catalogue(sentence_of(&error))),
        }
    }

    fn take_way(
        &mut self,
        id: DomainId,
        wish: &ShiftWish,
        way: Way,
        now: Moment,
    ) -> Result<(), CatalogueError> {
        let of = self
            .catalog
            .activation(id)
            .and_then(Activation::in_force)
            .map_or_else(String::new, |of| format!(" of {}", of.persona));
        let what = match (&wish.to, way.turn) {
            (To::Persona(name), _) => format!("shifts the domain to persona {name}"),
            (To::Before, _) => format!("gives the domain {} back", before(&way.shifts)),
        };
        let text = format!("rule {}{of} {what}", wish.rule);
        self.set_shifts(id, way.shifts, &text)?;
        tracing::info!(domain = %id, at = now.0, text);
        self.resolve(id);
        Ok(())
    }

    fn set_shifts(
        &mut self,
        id: DomainId,
        shifts: Shifts,
        text: &str,
    ) -> Result<(), CatalogueError> {
        if let Some(tracked) = self.domains.get_mut(&id) {
            let rule = tracked.persona.shift.rule.take();
            tracked.persona.shift = ShiftSide {
                rule,
                ..ShiftSide::default()
            };
        }
        let mut batch = Batch::new();
        let detail = super::tick::json(&shifts.stack);
        self.catalog.set_shifts(&mut batch, id, shifts)?;
        let entry = self.entry(AuditKind::Binding, Some(id), text, detail);
        self.commit(batch, vec![entry])
    }

    /// The `until` of the rule behind the present shift holds.
    fn shift_is_over(&mut self, id: DomainId, now: Moment) {
        let Some(shift) = self.catalog.shift(id) else {
            return;
        };
        let text = format!(
            "the until of rule {} of {} holds",
            shift.rule, shift.of.persona
        );
        self.shift_back(id, &text, now);
    }

    /// Gives a domain the persona before its last shift; says whether there was one.
    pub(super) fn shift_back(&mut self, id: DomainId, why: &str, now: Moment) -> bool {
        let Some(mut shifts) = self.catalog.shifts(id).cloned() else {
            return false;
        };
        if shifts.stack.pop().is_none() {
            return false;
        }
        shifts.pace.note(Turn::Back, now);
        let text = format!("{why}, which gives the domain {} back", before(&shifts));
        if let Err(error) = self.set_shifts(id, shifts, &text) {
            tracing::error!(domain = %id, error = sentence_of(&error), "a shift could not be ended");
            return false;
        }
        self.resolve(id);
        true
    }

    /// Ends the shifts that a person, or other tags, have overtaken. Called before a domain is resolved.
    pub(super) fn end_overtaken_shifts(&mut self, id: DomainId) -> Result<(), CatalogueError> {
        let Some(tracked) = self.domains.get(&id) else {
            return Ok(());
        };
        let description = &tracked.description;
        if description.tags_problem.is_some() && self.catalog.explicit(id).is_none() {
            return Ok(());
        }
        let Some(why) = self.catalog.overtaken(id, &description.tags) else {
            return Ok(());
        };
        let Some(mut shifts) = self.catalog.shifts(id).cloned() else {
            return Ok(());
        };
        let ended: Vec<String> = shifts
            .stack
            .drain(..)
            .map(|shift| shift.persona.to_string())
            .collect();
        let text = format!(
            "the shift to persona {} ends, because {}",
            ended.join(", "),
            why
        );
        self.set_shifts(id, shifts, &text)
    }

    /// Brings the rule whose `until` is watched in line with the domain's shift.
    pub(super) fn follow_shift_rule(&mut self, id: DomainId) {
        let rule = match self.catalog.shift_rule(id) {
            Ok(rule) => rule,
            Err(error) => {
                tracing::error!(domain = %id, error = sentence_of(&error), "the rule behind a shift cannot be read");
                None
            }
        };
        if let Some(tracked) = self.domains.get_mut(&id) {
            let known = &mut tracked.persona.shift.rule;
            if known.as_deref() != rule.as_ref() {
                *known = rule.map(Arc::new);
            }
        }
    }
}

impl Said {
    fn text(&self) -> String {
        let Self { rule, to, no } = self;
        let what = match to {
            To::Persona(name) => format!("activate persona {name}"),
            To::Before => "revert".to_owned(),
        };
        format!("rule {rule} asks for `{what}`: {no}")
    }
}

impl ShiftSide {
    /// What is to be told of a shift that a rule wants, as long as the rule holds, and does not get.
    pub(super) fn problem(&self, report: Option<&DomainReport>) -> Option<String> {
        let holds = |name: &str| {
            let mut rules = report.iter().flat_map(|report| &report.rules);
            rules.any(|rule| rule.name == name && rule.truth == Truth::True)
        };
        self.said
            .as_ref()
            .filter(|said| !matches!(said.no, No::Cooldown { .. }) && holds(&said.rule))
            .map(Said::text)
    }
}

/// The persona under the last shift that was taken from a stack.
fn before(shifts: &Shifts) -> String {
    match shifts.stack.last() {
        Some(shift) => format!("persona {}", shift.persona),
        None => "the persona of its tags".to_owned(),
    }
}
