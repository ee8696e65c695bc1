//! What rules want otherwise of the persona in the guest: `apply`, `install package` and `remove package`. Calls of the plan
//! become adjustments over the persona in force, of a bounded number and at a bounded pace, and these become one activation of
//! the same persona, with all that belongs to one. Called once a tick, after the plan.
//!
//! ```text
//! call -> wish (waits for cooldown, pace, what is under way) -> Adjustments, stored -> activation -> the guest
//! until -> taken back ------------------------------------------^
//! ```
//!
//! What the planner and the rules see is the persona without them, so that nothing begins anew for their sake.

use std::collections::BTreeSet;
use std::time::Duration;

use agent_protocol::Activation as Message;
use agent_protocol::activation::{ADJUSTED_FEATURE, Adjusted, ScriptsRun};
use persona::rule::Truth;
use persona::units::Moment;
use persona::{Adjustment, Change};
use planner::report::DomainReport;
use planner::shift::{MOST_IN_A_SPAN, SPAN, Turn, Wait};
use planner::{Call, Edge};

use super::Daemon;
use super::disk::wait_for_disk;
use super::personas::{presence, wanted_text};
use crate::act::sentence_of;
use crate::agent::AgentFacts;
use crate::audit::{AuditKind, Entry};
use crate::catalog::{
    Activation, ActivationState, Adjustments, CatalogueError, Composition, Desired, Full,
    Generation, Insistence, Lasting, MOST_ADJUSTMENTS, Occasion, Wanted, Wished,
};
use crate::hypervisor::DomainId;
use crate::store::Batch;
use crate::view::{ExplainView, RuleState};

/// What the rules of a domain want otherwise, and what became of that.
#[derive(Default)]
pub(super) struct AdjustSide {
    /// Each until it is stored, refused, or its rule holds no longer.
    wishes: Vec<Wish>,
    /// What was said last, so that it is said once.
    said: Option<Said>,
    /// Rules whose `until` takes back what stands.
    pub(super) rules: Vec<String>,
}

/// An adjustment that a rule calls for.
#[derive(Clone)]
struct Wish {
    wished: Wished,
    cooldown: Duration,
    /// A person approved it, so that it is done whatever its rule says meanwhile.
    approved: bool,
}

/// Why an adjustment does not take place, and which.
#[derive(PartialEq)]
struct Said {
    adjustment: Adjustment,
    no: No,
}

/// Why an adjustment does not take place.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
enum No {
    #[error("the rule's last change was less than its cooldown ago")]
    Cooldown,
    #[error("an activation is under way")]
    UnderWay,
    #[error(
        "the rules of the domain adjusted its guest {MOST_IN_A_SPAN} times within {} min, which is cut off here; let \
         them leave more between them, by a FOR, a COOLDOWN or an until",
        SPAN.as_secs() / 60
    )]
    TooOften,
    #[error("another persona was given to the domain meanwhile and is not active yet")]
    NotInForce,
    #[error("somebody in the guest went back to another generation by hand")]
    WentBack,
    #[error("{MOST_ADJUSTMENTS} adjustments of the domain stand already")]
    Full,
    #[error("{0}")]
    Catalogue(String),
    #[error("the guest did not bring it about, so it has gone back: {0}")]
    Guest(String),
}

impl No {
    /// Whether it may be otherwise in a while, as long as the rule holds.
    fn waits(&self) -> bool {
        !matches!(self, Self::Full | Self::Catalogue(_) | Self::Guest(_))
    }

    /// Whether it is worth a word: what passes by itself within moments is not.
    fn is_told(&self) -> bool {
        !matches!(self, Self::Cooldown | Self::UnderWay)
    }
}

impl Said {
    fn text(&self) -> String {
        let Adjustment { rule, change } = &self.adjustment;
        format!("rule {rule} asks for `{}`: {}", change.action(), self.no)
    }
}

impl AdjustSide {
    /// What is to be told of an adjustment that a rule wants, as long as the rule holds, and does not get.
    pub(super) fn problem(&self, report: Option<&DomainReport>) -> Option<String> {
        let said = self.said.as_ref()?;
        holds(report, &said.adjustment.rule).then(|| said.text())
    }
}

fn holds(report: Option<&DomainReport>, name: &str) -> bool {
    let mut rules = report.iter().flat_map(|report| &report.rules);
    rules.any(|rule| rule.name == name && rule.truth == Truth::True)
}

/// Adjustments as a part of a sentence.
fn list(adjustments: &[Adjustment]) -> String {
    let each: Vec<String> = adjustments.iter().map(ToString::to_string).collect();
    each.join(", ")
}

impl Daemon {
    /// Takes up what the rules of a plan call for and take back, and carries out what may be.
    pub(super) fn follow_adjustments(&mut self, calls: &[Call], now: Moment) {
        for call in calls {
            if let Some(change) = Change::of(&call.action) {
                match call.edge {
                    Edge::Begins => self.wish_adjustment(call, change, now),
                    Edge::Ends => self.take_adjustment_back(call, change),
                }
            }
        }
        let wishing: Vec<DomainId> = self
            .domains
            .iter()
            .filter(|(_, tracked)| !tracked.persona.adjust.wishes.is_empty())
            .map(|(id, _)| *id)
            .collect();
        for id in wishing {
            self.try_wishes(id, now);
        }
        let adjusted: Vec<DomainId> = self
            .catalog
            .adjusted()
            .filter(|id| self.domains.contains_key(id))
            .collect();
        for id in adjusted {
            if let Err(error) = self.bring_about(id) {
                let text = format!(
                    "what rules adjusted could not be brought about: {}",
                    sentence_of(&error)
                );
                tracing::error!(domain = %id, text);
            }
        }
    }

    fn wish_adjustment(&mut self, call: &Call, change: Change, now: Moment) {
        let Some(tracked) = self.domains.get_mut(&call.domain) else {
            return;
        };
        let rules = tracked.persona.in_force.iter().flat_map(|of| &of.rules);
        let Some((place, rule)) = rules.enumerate().find(|(_, rule)| rule.name == call.rule) else {
            return;
        };
        let wish = Wish {
            wished: Wished {
                adjustment: Adjustment {
                    rule: rule.name.to_string(),
                    change,
                },
                priority: rule.priority,
                place,
                lasting: match rule.until {
                    Some(_) => Lasting::Until,
                    None => Lasting::Persona,
                },
                at: now,
            },
            cooldown: rule.cooldown,
            approved: call.approved.is_some(),
        };
        let wishes = &mut tracked.persona.adjust.wishes;
        wishes.retain(|known| known.wished.adjustment != wish.wished.adjustment);
        wishes.push(wish);
    }

    /// The way back waits for nothing.
    fn take_adjustment_back(&mut self, call: &Call, change: Change) {
        let id = call.domain;
        let adjustment = Adjustment {
            rule: call.rule.clone(),
            change,
        };
        if let Some(tracked) = self.domains.get_mut(&id) {
            let wishes = &mut tracked.persona.adjust.wishes;
            wishes.retain(|wish| wish.wished.adjustment != adjustment);
        }
        let Some(mut adjustments) = self.catalog.adjustments(id).cloned() else {
            return;
        };
        if adjustments.take_back(&adjustment) {
            // That it is taken back is recorded as the rule's call.
            let now = self.clock.now();
            adjustments.turned.insert(adjustment.rule, now);
            self.keep_adjustments(id, adjustments, Vec::new());
        }
    }

    /// Tries all that the rules of a domain wish, together: they are one activation.
    fn try_wishes(&mut self, id: DomainId, now: Moment) {
        let Some(tracked) = self.domains.get_mut(&id) else {
            return;
        };
        let report = tracked.report.as_ref();
        let mut wishes: Vec<Wish> = std::mem::take(&mut tracked.persona.adjust.wishes)
            .into_iter()
            .filter(|wish| wish.approved || holds(report, &wish.wished.adjustment.rule))
            .collect();
        let mut waiting = Vec::new();
        let mut refused = Vec::new();
        let mut next = match self.adjustable(id) {
            Ok((next, _)) => next,
            Err(no) => return self.put_off(id, wishes, &no),
        };
        let stands = |wish: &Wish| {
            next.wished().iter().any(|known| {
                known.adjustment == wish.wished.adjustment && known.lasting == Lasting::Until
            })
        };
        // A rule that begins anew may want what it has.
        wishes.retain(|wish| !stands(wish));
        let permits = next.pace.permits(Turn::Forward, Duration::ZERO, now);
        if let Err(Wait::TooOften { .. } | Wait::Cooldown { .. }) = permits {
            // All wait for the same, which is worth one word.
            return self.put_off(id, wishes, &No::TooOften);
        }
        let before = next.in_order();
        let mut granted = BTreeSet::new();
        for wish in wishes {
            let Wish {
                wished, cooldown, ..
            } = &wish;
            let adjustment = wished.adjustment.clone();
            let rule = &adjustment.rule;
            let cooling = next.turned.get(rule).map(|last| last.after(*cooldown));
            let mut tried = next.clone();
            let no = if !granted.contains(rule) && cooling.is_some_and(|until| until > now) {
                Some(No::Cooldown)
            } else if let Err(Full) = tried.wish(wished.clone()) {
                Some(No::Full)
            } else {
                self.does_not_go(id, &tried).map(No::Catalogue)
            };
            match no {
                None => {
                    granted.insert(rule.clone());
                    next = tried;
                }
                Some(no) if no.waits() => {
                    self.say(id, adjustment, no);
                    waiting.push(wish);
                }
                Some(no) => refused.push((adjustment, no)),
            }
        }
        if let Some(tracked) = self.domains.get_mut(&id) {
            tracked.persona.adjust.wishes.extend(waiting);
        }
        for (adjustment, no) in refused {
            self.say(id, adjustment, no);
        }
        if granted.is_empty() {
            return;
        }
        let entries = if next.in_order() == before {
            Vec::new()
        } else {
            next.pace.note(Turn::Forward, now);
            let text = format!("rules adjust the persona: {}", list(&next.in_order()));
            let detail = super::tick::json(&next.wished());
            vec![self.entry(AuditKind::Binding, Some(id), &text, detail)]
        };
        next.turned
            .extend(granted.into_iter().map(|rule| (rule, now)));
        self.keep_adjustments(id, next, entries);
    }

    /// What stands of a domain, ready for more, or why nothing can be adjusted now.
    fn adjustable(&self, id: DomainId) -> Result<(Adjustments, &Activation), No> {
        let (Some(tracked), Some(activation)) =
            (self.domains.get(&id), self.catalog.activation(id))
        else {
            return Err(No::NotInForce);
        };
        let facts = tracked.agent.facts.as_ref();
        if facts.is_some_and(|facts| facts.rolled_back.is_some()) {
            return Err(No::WentBack);
        }
        let (Some(in_force), Desired::Persona { composition, .. }) =
            (tracked.persona.in_force.as_ref(), &activation.desired)
        else {
            return Err(No::NotInForce);
        };
        let plain = self.catalog.digest(&composition.plain());
        if plain.ok().as_ref() != Some(&in_force.digest) {
            return Err(No::NotInForce);
        }
        if matches!(
            activation.state,
            ActivationState::Pending | ActivationState::Sent { .. }
        ) {
            return Err(No::UnderWay);
        }
        let mut next = self.catalog.adjustments(id).cloned().unwrap_or_default();
        next.begin(&in_force.digest);
        Ok((next, activation))
    }

    fn put_off(&mut self, id: DomainId, wishes: Vec<Wish>, no: &No) {
        if let Some(wish) = wishes.first() {
            self.say(id, wish.wished.adjustment.clone(), no.clone());
        }
        if let Some(tracked) = self.domains.get_mut(&id) {
            tracked.persona.adjust.wishes = wishes;
        }
    }

    /// Why the persona of a domain would not be valid with these adjustments.
    fn does_not_go(&self, id: DomainId, adjustments: &Adjustments) -> Option<String> {
        let activation = self.catalog.activation(id)?;
        let Desired::Persona { composition, .. } = &activation.desired else {
            return None;
        };
        let composition = Composition {
            adjustments: adjustments.in_order(),
            ..composition.clone()
        };
        self.catalog
            .effective(&composition)
            .err()
            .map(|error| sentence_of(&error))
    }

    /// Says once why a rule does not get what it wants.
    fn say(&mut self, id: DomainId, adjustment: Adjustment, no: No) {
        if !no.is_told() {
            return;
        }
        let said = Said { adjustment, no };
        let new = self.domains.get_mut(&id).and_then(|tracked| {
            let side = &mut tracked.persona.adjust;
            (side.said.as_ref() != Some(&said)).then(|| side.said.insert(said).text())
        });
        if let Some(text) = new {
            self.record(AuditKind::Refusal, Some(id), &text, serde_json::Value::Null);
        }
    }

    /// Stores what stands. Says whether it is on the disk.
    fn keep_adjustments(
        &mut self,
        id: DomainId,
        adjustments: Adjustments,
        entries: Vec<Entry>,
    ) -> bool {
        let mut batch = Batch::new();
        let put = self
            .catalog
            .set_adjustments(&mut batch, id, adjustments)
            .map_err(CatalogueError::from);
        match put.and_then(|()| self.commit(batch, entries)) {
            Ok(()) => true,
            Err(error) => {
                let error = sentence_of(&error);
                let text = format!("what rules adjusted could not be stored: {error}");
                tracing::error!(domain = %id, text);
                self.problems.insert("store-write", text);
                false
            }
        }
    }

    /// Has the guest get what stands, where it is something else than what it has or is about to have.
    fn bring_about(&mut self, id: DomainId) -> Result<(), CatalogueError> {
        let Some(adjustments) = self.catalog.adjustments(id) else {
            return Ok(());
        };
        let wanted = adjustments.in_order();
        let has = match self.catalog.activation(id).map(|of| &of.desired) {
            Some(Desired::Persona { composition, .. }) => &composition.adjustments,
            _ => return Ok(()),
        };
        if *has == wanted {
            return Ok(());
        }
        let agent = match self.adjustable(id) {
            Ok((next, _)) if next.in_order() == wanted => {
                presence(self.domains[&id].agent.facts.is_some())
            }
            _ => return Ok(()),
        };
        let now = self.clock.now();
        let mut batch = Batch::new();
        let wanted = wait_for_disk(|| self.catalog.adjust(&mut batch, id, wanted, agent, now))?;
        let entries = match &wanted {
            Some(Wanted::Started(activation)) => {
                let text = format!(
                    "{} (generation {})",
                    wanted_text(&activation.desired),
                    activation.generation
                );
                let detail = super::tick::json(activation);
                vec![self.entry(AuditKind::Binding, Some(id), &text, detail)]
            }
            _ => Vec::new(),
        };
        self.commit(batch, entries)?;
        self.follow_activation(id);
        self.publish_soon();
        Ok(())
    }

    /// Stages the end of what rules adjusted, where the domain is about to get another persona, or the same once more because
    /// a person asked for it. What is to be recorded of that.
    pub(super) fn end_adjustments(
        &mut self,
        batch: &mut Batch,
        id: DomainId,
        desired: &Desired,
        insistence: Insistence,
    ) -> Result<Vec<Entry>, CatalogueError> {
        let Some(adjustments) = self.catalog.adjustments(id) else {
            return Ok(Vec::new());
        };
        let plain = match desired {
            Desired::Persona { composition, .. } => self.catalog.digest(&composition.plain()).ok(),
            Desired::Nothing => None,
        };
        let goes_on = insistence == Insistence::Keep
            && plain.is_some_and(|digest| adjustments.is_of(&digest));
        if goes_on || adjustments.wished().is_empty() {
            return Ok(Vec::new());
        }
        let mut next = adjustments.clone();
        let text = format!(
            "what rules adjusted ends with the persona: {}",
            list(&next.in_order())
        );
        next.clear();
        self.catalog.set_adjustments(batch, id, next)?;
        let null = serde_json::Value::Null;
        Ok(vec![self.entry(AuditKind::Binding, Some(id), &text, null)])
    }

    /// A person takes back what rules adjusted; says whether there was anything. A rule that holds adjusts again when it begins
    /// to hold anew.
    pub(super) fn drop_adjustments(&mut self, id: DomainId, by: &str) -> bool {
        if let Some(tracked) = self.domains.get_mut(&id) {
            tracked.persona.adjust.wishes.clear();
        }
        let Some(mut next) = self.catalog.adjustments(id).cloned() else {
            return false;
        };
        if next.wished().is_empty() {
            return false;
        }
        let text = format!(
            "{by} takes back what rules adjusted: {}",
            list(&next.in_order())
        );
        // They still belong to the persona, so that the guest gets it without them.
        for wished in next.wished().to_vec() {
            next.take_back(&wished.adjustment);
        }
        let entry = self.entry(AuditKind::Binding, Some(id), &text, serde_json::Value::Null);
        if !self.keep_adjustments(id, next, vec![entry]) {
            return false;
        }
        if let Err(error) = self.bring_about(id) {
            tracing::error!(domain = %id, error = sentence_of(&error), "what rules adjusted could not be taken back");
        }
        true
    }

    /// An activation failed in the guest: where nothing but adjustments was new in it, these end, and what was there before
    /// comes back with the next tick. The rest of what rules adjusted is not kept from a guest by one that cannot be had.
    pub(super) fn adjustment_failed(&mut self, id: DomainId, generation: Generation, reason: &str) {
        let Some(activation) = self.catalog.activation(id) else {
            return;
        };
        let Desired::Persona { composition, .. } = &activation.desired else {
            return;
        };
        if activation.generation != generation || activation.occasion != Occasion::Adjustment {
            return;
        }
        let before = activation.standing.as_ref();
        let before = before.map_or(&[][..], |before| &before.adjustments);
        let new: Vec<Adjustment> = composition
            .adjustments
            .iter()
            .filter(|adjustment| !before.contains(adjustment))
            .cloned()
            .collect();
        let Some(mut next) = self.catalog.adjustments(id).cloned() else {
            return;
        };
        for adjustment in new {
            next.take_back(&adjustment);
            self.say(id, adjustment, No::Guest(reason.to_owned()));
        }
        self.keep_adjustments(id, next, Vec::new());
    }

    /// Brings what is known beside the catalogue in line with it: which `until` are waited for, and what `status` says.
    pub(super) fn follow_adjusted(&mut self, id: DomainId) -> Option<String> {
        let in_force = self.catalog.activation(id).and_then(Activation::in_force);
        let adjustments = self.catalog.adjustments(id);
        let standing = adjustments.into_iter().flat_map(Adjustments::wished);
        let rules: BTreeSet<String> = standing
            .filter(|wished| wished.lasting == Lasting::Until)
            .map(|wished| wished.adjustment.rule.clone())
            .collect();
        if let Some(tracked) = self.domains.get_mut(&id) {
            tracked.persona.adjust.rules = rules.into_iter().collect();
        }
        let in_force = in_force?.adjustments;
        (!in_force.is_empty()).then(|| format!("adjusted by rules: {}", list(&in_force)))
    }

    /// Says of rules what of theirs stands in the guest.
    pub(super) fn say_adjusted(&self, id: DomainId, view: &mut ExplainView) {
        let activation = self.catalog.activation(id);
        let Some(in_force) = activation.and_then(Activation::in_force) else {
            return;
        };
        for rule in &mut view.rules {
            let mine = in_force
                .adjustments
                .iter()
                .filter(|of| of.rule == rule.name);
            let mine: Vec<String> = mine.map(|of| of.change.to_string()).collect();
            if !mine.is_empty() {
                let detail = format!("it has adjusted the guest's persona: {}", mine.join(", "));
                (rule.state, rule.detail) = (RuleState::Standing, Some(detail));
            }
        }
    }
}

/// Says in the message of an activation what it is besides what rules adjusted, so that in the guest the persona goes on. An
/// agent that does not know that gets no scripts to run once more.
pub(super) fn say_what_is_adjusted(
    message: &mut Message,
    activation: &Activation,
    plain: &persona::Digest,
    agent: Option<&AgentFacts>,
) {
    let Desired::Persona { composition, .. } = &activation.desired else {
        return;
    };
    let scripts = match activation.occasion {
        Occasion::Persona => ScriptsRun::Always,
        Occasion::Adjustment => ScriptsRun::UnlessActive,
    };
    if composition.adjustments.is_empty() && scripts == ScriptsRun::Always {
        return;
    }
    message.adjusted = Some(Adjusted {
        of: plain.to_string(),
        scripts,
    });
    let knows = agent.is_some_and(|facts| facts.can(ADJUSTED_FEATURE));
    let shows = |facts: &AgentFacts| {
        let active = facts.active.as_ref();
        active.is_none_or(|active| {
            active.persona.as_str() == message.persona && active.version == message.version
        })
    };
    // Of a guest in which qemu-guest-agent stands in nothing is known, but that it has had the persona.
    if scripts == ScriptsRun::UnlessActive && !knows && agent.is_none_or(shows) {
        (message.pre, message.post) = (None, None);
    }
}
