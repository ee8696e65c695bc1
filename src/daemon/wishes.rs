//! Adjustments that rules call for and do not have yet: each waits until it is stored with what stands, is refused, or has lost its
//! purpose. What stands, and how it comes about in the guest, is in `adjust`, which calls this once a tick.

use std::collections::BTreeSet;
use std::time::Duration;

use persona::rule::Truth;
use persona::units::Moment;
use persona::{Adjustment, Change, Digest};
use planner::Call;
use planner::proposal::Turn as Ended;
use planner::report::DomainReport;
use planner::shift::{MOST_IN_A_SPAN, SPAN, Turn, Wait};

use super::Daemon;
use super::adjust::{Again, list};
use crate::act::sentence_of;
use crate::audit::AuditKind;
use crate::catalog::{Adjustments, Composition, Full, Lasting, MOST_ADJUSTMENTS, Wished};
use crate::hypervisor::DomainId;

/// What the rules of a domain want otherwise, and what became of that.
#[derive(Default)]
pub(super) struct AdjustSide {
    /// Each until it is stored, refused, or its rule holds no longer.
    wishes: Vec<Wish>,
    /// What was said last, so that it is said once.
    said: Option<Said>,
    /// Rules whose `until` takes back what stands.
    pub(super) rules: Vec<String>,
    /// When what failed in the guest is tried once more.
    pub(super) again: Option<Again>,
}

/// An adjustment that a rule calls for.
#[derive(Clone)]
struct Wish {
    wished: Wished,
    cooldown: Duration,
    /// The persona whose rule it is, by what it means without what was adjusted.
    of: Digest,
    /// The proposal that a person approved, so that it is done whatever its rule says meanwhile; it waits in the book of proposals,
    /// from which it is called for anew after a restart.
    approved: Option<u64>,
}

/// Why an adjustment does not take place, and which.
#[derive(PartialEq)]
struct Said {
    adjustment: Adjustment,
    no: No,
}

/// Why an adjustment does not take place.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum No {
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
    #[error("another persona or version is in force by now")]
    PersonaChanged,
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
        !matches!(
            self,
            Self::Full | Self::Catalogue(_) | Self::Guest(_) | Self::PersonaChanged
        )
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
        let past = said.no == No::PersonaChanged;
        (!past && holds(report, &said.adjustment.rule)).then(|| said.text())
    }

    pub(super) fn is_wishing(&self) -> bool {
        !self.wishes.is_empty()
    }

    /// Drops an adjustment that waits; the proposal behind it, where a person approved one.
    pub(super) fn drop_wish(&mut self, adjustment: &Adjustment) -> Option<u64> {
        let mut dropped = self
            .wishes
            .extract_if(.., |wish| wish.wished.adjustment == *adjustment);
        dropped.find_map(|wish| wish.approved)
    }

    /// Drops all that wait; the proposals that people approved, with what they are about.
    pub(super) fn drop_wishes(&mut self) -> Vec<(u64, Adjustment)> {
        let dropped = std::mem::take(&mut self.wishes).into_iter();
        dropped
            .filter_map(|wish| Some((wish.approved?, wish.wished.adjustment)))
            .collect()
    }
}

fn holds(report: Option<&DomainReport>, name: &str) -> bool {
    let mut rules = report.iter().flat_map(|report| &report.rules);
    rules.any(|rule| rule.name == name && rule.truth == Truth::True)
}

impl Daemon {
    pub(super) fn wish_adjustment(&mut self, call: &Call, change: Change, now: Moment) {
        let Some(tracked) = self.domains.get_mut(&call.domain) else {
            return;
        };
        let Some(in_force) = &tracked.persona.in_force else {
            return;
        };
        let mut rules = in_force.rules.iter().enumerate();
        let Some((place, rule)) = rules.find(|(_, rule)| rule.name == call.rule) else {
            return;
        };
        let mut wish = Wish {
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
            of: in_force.digest.clone(),
            approved: call.approved,
        };
        let side = &mut tracked.persona.adjust;
        let before = side.drop_wish(&wish.wished.adjustment);
        wish.approved = wish.approved.or(before);
        side.wishes.push(wish);
    }

    /// Tells what came of an adjustment that a person approved, where one did.
    pub(super) fn settle_adjustment(&mut self, proposal: Option<u64>, ended: Ended) {
        let news = proposal.and_then(|id| self.state.proposals.settle(id, ended));
        self.proposals_changed(news.as_slice());
    }

    /// Takes out what the rules of a domain still wish.
    fn take_wishes(&mut self, id: DomainId) -> Vec<Wish> {
        let Some(tracked) = self.domains.get_mut(&id) else {
            return Vec::new();
        };
        let wishes = std::mem::take(&mut tracked.persona.adjust.wishes);
        let in_force = tracked.persona.in_force.as_ref().map(|of| &of.digest);
        let mut changed = Vec::new();
        let mut still = Vec::new();
        for wish in wishes {
            let rule = &wish.wished.adjustment.rule;
            let stands = match wish.approved {
                // A person's word holds until its proposal ends, which is told.
                Some(proposal) => self.state.proposals.is_approved(proposal),
                None => holds(tracked.report.as_ref(), rule),
            };
            if in_force != Some(&wish.of) {
                changed.push(wish);
            } else if stands {
                still.push(wish);
            }
        }
        for wish in changed {
            // Another persona may have a rule of the same name.
            self.say(id, wish.wished.adjustment, No::PersonaChanged);
            self.settle_adjustment(wish.approved, Ended::PersonaChanged);
        }
        still
    }

    /// Tries all that the rules of a domain wish, together: they are one activation.
    pub(super) fn try_wishes(&mut self, id: DomainId, now: Moment) {
        let wishes = self.take_wishes(id);
        if wishes.is_empty() {
            return;
        }
        let mut next = match self.adjustable(id) {
            Ok(next) => next,
            Err(no) => return self.put_off(id, wishes, &no),
        };
        let stands = |wish: &Wish| {
            next.wished().iter().any(|known| {
                known.adjustment == wish.wished.adjustment && known.lasting == Lasting::Until
            })
        };
        // A rule that begins anew may want what it has.
        let (there, wishes): (Vec<Wish>, Vec<Wish>) = wishes.into_iter().partition(stands);
        for wish in there {
            self.settle_adjustment(wish.approved, Ended::There);
        }
        let permits = next.pace.permits(Turn::Forward, Duration::ZERO, now);
        if let Err(Wait::TooOften { .. } | Wait::Cooldown { .. }) = permits {
            // All wait for the same, which is worth one word.
            return self.put_off(id, wishes, &No::TooOften);
        }
        let before = next.in_order();
        let mut rules = BTreeSet::new();
        let mut granted = Vec::new();
        let mut waiting = Vec::new();
        for wish in wishes {
            let rule = wish.wished.adjustment.rule.clone();
            let cooling = next.turned.get(&rule);
            let cooling = cooling.map(|last| last.after(wish.cooldown));
            let mut tried = next.clone();
            let no = if !rules.contains(&rule) && cooling.is_some_and(|until| until > now) {
                Some(No::Cooldown)
            } else if let Err(Full) = tried.wish(wish.wished.clone()) {
                Some(No::Full)
            } else {
                self.does_not_go(id, &tried).map(No::Catalogue)
            };
            match no {
                None => {
                    next = tried;
                    rules.insert(rule);
                    granted.push(wish.approved);
                }
                Some(no) if no.waits() => {
                    self.say(id, wish.wished.adjustment.clone(), no);
                    waiting.push(wish);
                }
                Some(no) => {
                    self.say(id, wish.wished.adjustment, no);
                    self.settle_adjustment(wish.approved, Ended::Refused);
                }
            }
        }
        if let Some(tracked) = self.domains.get_mut(&id) {
            tracked.persona.adjust.wishes.extend(waiting);
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
            .extend(rules.into_iter().map(|rule| (rule, now)));
        // A proposal ends when what it is about is on the disk: cut off between the two it is called for anew, and is there.
        if self.keep_adjustments(id, next, entries) {
            for proposal in granted {
                self.settle_adjustment(proposal, Ended::CarriedOut);
            }
        }
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
        let (composition, _) = self.catalog.activation(id)?.goes_on()?;
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
    pub(super) fn say(&mut self, id: DomainId, adjustment: Adjustment, no: No) {
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
}
