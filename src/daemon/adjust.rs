//! What rules want otherwise of the persona in the guest: `apply`, `install package` and `remove package`. Calls of the plan
//! become adjustments over the persona in force, of a bounded number and at a bounded pace, and these become one activation of
//! the same persona, with all that belongs to one. Called once a tick, after the plan. What is called for and not granted yet is in
//! `wishes`.
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
use agent_protocol::rules::RULES_FEATURE;
use persona::rule::Action;
use persona::units::Moment;
use persona::{Adjustment, Change};
use planner::proposal::Turn as Ended;
use planner::{Call, Edge};

use super::Daemon;
use super::disk::wait_for_disk;
use super::personas::{presence, wanted_text};
use super::tracked::Tracked;
use super::wishes::No;
use crate::act::sentence_of;
use crate::agent::AgentFacts;
use crate::audit::{AuditKind, Entry};
use crate::catalog::{
    Activation, ActivationState, Adjustments, CatalogueError, Desired, Insistence, Lasting,
    Occasion, Wanted,
};
use crate::hypervisor::DomainId;
use crate::store::Batch;
use crate::view::{ExplainView, RuleState};

/// Between a failure in the guest and the next try.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// Pauses grow to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// The next try of what has failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Again {
    at: Moment,
    /// How long it was waited for.
    pause: Duration,
}

impl Again {
    /// What follows on a failure that is seen now.
    fn after(now: Moment, pause: Duration) -> Self {
        let at = now.after(pause);
        Self { at, pause }
    }
}

/// Adjustments as a part of a sentence.
pub(super) fn list(adjustments: &[Adjustment]) -> String {
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
            .filter(|(_, tracked)| tracked.persona.adjust.is_wishing())
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
            if let Err(error) = self.bring_about(id, now) {
                let text = format!(
                    "what rules adjusted could not be brought about: {}",
                    sentence_of(&error)
                );
                tracing::error!(domain = %id, text);
            }
        }
    }

    /// The way back waits for nothing.
    fn take_adjustment_back(&mut self, call: &Call, change: Change) {
        let id = call.domain;
        let adjustment = Adjustment {
            rule: call.rule.clone(),
            change,
        };
        let side = self.domains.get_mut(&id);
        let dropped = side.and_then(|tracked| tracked.persona.adjust.drop_wish(&adjustment));
        self.settle_adjustment(dropped, Ended::Unwanted);
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

    /// What stands of a domain, ready for more, or why nothing can be adjusted now.
    pub(super) fn adjustable(&self, id: DomainId) -> Result<Adjustments, No> {
        let (Some(tracked), Some(activation)) =
            (self.domains.get(&id), self.catalog.activation(id))
        else {
            return Err(No::NotInForce);
        };
        let facts = tracked.agent.facts.as_ref();
        if facts.is_some_and(|facts| facts.rolled_back.is_some()) {
            return Err(No::WentBack);
        }
        let (Some(in_force), Some((composition, _))) =
            (tracked.persona.in_force.as_ref(), activation.goes_on())
        else {
            return Err(No::NotInForce);
        };
        let plain = self.catalog.digest(&composition.plain());
        if plain.ok().as_ref() != Some(&in_force.digest) {
            return Err(No::NotInForce);
        }
        // The guest may be at it, or at its scripts; what overtook it there would have them run twice.
        if activation.is_under_way() || self.stand_in_is_asked(id) {
            return Err(No::UnderWay);
        }
        let mut next = self.catalog.adjustments(id).cloned().unwrap_or_default();
        next.begin(&in_force.digest);
        Ok(next)
    }

    /// Stores what stands. Says whether it is on the disk.
    pub(super) fn keep_adjustments(
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

    /// Has the guest get what stands, where it is something else than what it has or is about to have, or has failed there.
    fn bring_about(&mut self, id: DomainId, now: Moment) -> Result<(), CatalogueError> {
        let Some(adjustments) = self.catalog.adjustments(id) else {
            return Ok(());
        };
        let wanted = adjustments.in_order();
        if !self.is_to_be_brought_about(id, &wanted, now) {
            return Ok(());
        }
        let agent = match self.adjustable(id) {
            Ok(next) if next.in_order() == wanted => {
                presence(self.domains[&id].agent.facts.is_some())
            }
            _ => return Ok(()),
        };
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

    /// Whether what stands is something else than what the guest has or is about to have. What failed there is tried again after
    /// a pause that grows, unless something else stands by now.
    fn is_to_be_brought_about(&mut self, id: DomainId, wanted: &[Adjustment], now: Moment) -> bool {
        let (Some(tracked), Some(activation)) =
            (self.domains.get_mut(&id), self.catalog.activation(id))
        else {
            return false;
        };
        let other = activation.adjustments() != wanted;
        let again = &mut tracked.persona.adjust.again;
        match (&activation.state, activation.occasion) {
            (ActivationState::Failed { .. }, Occasion::Persona) => {
                // The persona itself is not tried again; but the one that the guest has may be wanted otherwise by now, and
                // one that was never there may have failed for what rules adjusted of it.
                match activation.had() {
                    Some(had) => had.adjustments != wanted,
                    None => other && activation.failed_as_in_force(),
                }
            }
            (ActivationState::Failed { .. }, Occasion::Adjustment) => match *again {
                _ if other => true,
                None => {
                    *again = Some(Again::after(now, FIRST_PAUSE));
                    false
                }
                Some(next) if next.at > now => false,
                Some(next) => {
                    *again = Some(Again::after(now, (next.pause * 2).min(LONGEST_PAUSE)));
                    true
                }
            },
            (state, _) => {
                if matches!(state, ActivationState::Active { .. }) {
                    *again = None;
                }
                other
            }
        }
    }

    /// Stages that what rules adjusted ends as soon as this activation is in force: of another persona, or of the same once more
    /// because a person asked for it. Until then, and where it fails, they go on with the persona before it. What is to be
    /// recorded of that.
    pub(super) fn end_adjustments(
        &mut self,
        batch: &mut Batch,
        id: DomainId,
        activation: &Activation,
        insistence: Insistence,
    ) -> Result<Vec<Entry>, CatalogueError> {
        let Some(adjustments) = self.catalog.adjustments(id) else {
            return Ok(Vec::new());
        };
        let plain = match &activation.desired {
            Desired::Persona { composition, .. } => self.catalog.digest(&composition.plain()).ok(),
            Desired::Nothing => None,
        };
        let goes_on = insistence == Insistence::Keep
            && plain.is_some_and(|digest| adjustments.is_of(&digest));
        if goes_on || adjustments.wished().is_empty() {
            return Ok(Vec::new());
        }
        let mut next = adjustments.clone();
        next.end_with(activation.generation);
        self.catalog.set_adjustments(batch, id, next)?;
        self.follow_adjusting(batch, id, activation)
    }

    /// Stages what has become of adjustments with an activation that has changed: they end with the one that comes in force after
    /// their persona, and those that were new in one that failed end with it, so that what was there before comes back with the
    /// next tick. What is to be recorded of that.
    pub(super) fn follow_adjusting(
        &mut self,
        batch: &mut Batch,
        id: DomainId,
        activation: &Activation,
    ) -> Result<Vec<Entry>, CatalogueError> {
        let Some(mut next) = self.catalog.adjustments(id).cloned() else {
            return Ok(Vec::new());
        };
        if next.ends_with(activation.generation) && activation.holds() {
            let text = format!(
                "what rules adjusted ends with the persona: {}",
                list(&next.in_order())
            );
            next.clear();
            self.catalog.set_adjustments(batch, id, next)?;
            let null = serde_json::Value::Null;
            return Ok(vec![self.entry(AuditKind::Binding, Some(id), &text, null)]);
        }
        let ActivationState::Failed { reason } = &activation.state else {
            return Ok(Vec::new());
        };
        let new = activation.new_adjustments();
        if new.is_empty() {
            return Ok(Vec::new());
        }
        for adjustment in new {
            next.take_back(&adjustment);
            self.say(id, adjustment, No::Guest(reason.clone()));
        }
        self.catalog.set_adjustments(batch, id, next)?;
        Ok(Vec::new())
    }

    /// A person takes back what rules adjusted; says whether there was anything. A rule that holds adjusts again when it begins
    /// to hold anew.
    pub(super) fn drop_adjustments(&mut self, id: DomainId, by: &str) -> bool {
        let side = self.domains.get_mut(&id);
        let waited = side.map_or_else(Vec::new, |tracked| tracked.persona.adjust.drop_wishes());
        let mut next = self.catalog.adjustments(id).cloned().unwrap_or_default();
        if next.wished().is_empty() && waited.is_empty() {
            return false;
        }
        let mut all = next.in_order();
        all.extend(waited.iter().map(|(_, adjustment)| adjustment.clone()));
        let text = format!("{by} takes back what rules adjusted: {}", list(&all));
        // They still belong to the persona, so that the guest gets it without them.
        for wished in next.wished().to_vec() {
            next.take_back(&wished.adjustment);
        }
        let entry = self.entry(AuditKind::Binding, Some(id), &text, serde_json::Value::Null);
        if !self.keep_adjustments(id, next, vec![entry]) {
            return false;
        }
        for (proposal, _) in waited {
            self.settle_adjustment(Some(proposal), Ended::Refused);
        }
        let now = self.clock.now();
        if let Err(error) = self.bring_about(id, now) {
            tracing::error!(domain = %id, error = sentence_of(&error), "what rules adjusted could not be taken back");
        }
        true
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
        (!in_force.is_empty()).then(|| {
            let forgets = self.domains.get(&id).filter(|of| forgets_features(of));
            let also = forgets.map_or("", |_| {
                "; the agent is too old to keep what rules of the host switched over that, so features are as they were before them"
            });
            format!("adjusted by rules: {}{also}", list(&in_force))
        })
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

/// Whether features that rules of the host switch go back in the guest with each adjustment.
fn forgets_features(tracked: &Tracked) -> bool {
    let facts = tracked.agent.facts.as_ref();
    let older = facts.is_some_and(|of| of.can(RULES_FEATURE) && !of.can(ADJUSTED_FEATURE));
    let side = &tracked.persona;
    let switches =
        |action: &Action| matches!(action, Action::EnableFeature(_) | Action::DisableFeature(_));
    let persona = side.in_force.iter();
    let mut of_host = persona.flat_map(|persona| {
        let rules = persona.rules.iter();
        let rules = rules.filter(|rule| !side.in_guest.contains(rule.name.as_str()));
        rules.flat_map(|rule| persona.actions(rule))
    });
    older && of_host.any(switches)
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
        active.is_some_and(|active| {
            active.persona.as_str() == message.persona && active.version == message.version
        })
    };
    // Of a guest in which qemu-guest-agent stands in nothing is known, but that it has had the persona.
    if scripts == ScriptsRun::UnlessActive && !knows && agent.is_none_or(shows) {
        (message.pre, message.post) = (None, None);
    }
}
