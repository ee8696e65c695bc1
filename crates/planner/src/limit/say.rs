//! Who has the say over a knob, and what rules have set that lasts.
//!
//! ```text
//! rules that hold, and those whose effect stands until their `until`   by priority, then the order of the document
//!   else the last rule without `until` that had the say                it stays until another changes it
//!   else the base configuration
//!   else what was there before our first turn (`limit::decide`)
//! ```

use std::time::Duration;

use persona::Persona;
use persona::rule::{Knob, KnobValue, Resource, Rule, Truth};
use serde::{Deserialize, Serialize};

use super::slot::LimitState;
use crate::quota::{Quota, is_within};
use crate::report::Wish;
use crate::snapshot::Domain;
use crate::state::DomainState;

/// What a rule has set a knob to, for as long as that lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Name of the rule.
    pub rule: String,
    /// Which knob.
    pub knob: Knob,
    /// To.
    pub to: KnobValue,
    /// For how long.
    pub lasts: Lasts,
}

/// For how long a rule's value stands after its condition has ceased to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lasts {
    /// Until the rule's `until` holds.
    Until,
    /// Until another rule sets the knob.
    UntilChanged,
}

/// What a rule says of a knob in one pass.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Turn {
    pub(super) rule: String,
    pub(super) knob: Knob,
    to: KnobValue,
    priority: i64,
    cooldown: Duration,
    truth: Truth,
    /// Whether its `until` holds; `None` where it has none.
    until: Option<Truth>,
}

/// What a rule says of knobs.
pub(crate) fn turns<'a>(
    persona: &'a Persona,
    rule: &'a Rule,
    truth: Truth,
    until: Truth,
) -> impl Iterator<Item = Turn> + 'a {
    let limits = persona.actions(rule).filter_map(|action| action.limit());
    limits.map(move |limit| Turn {
        rule: rule.name.to_string(),
        knob: limit.knob(),
        to: limit.value(),
        priority: rule.priority.into(),
        cooldown: rule.cooldown,
        truth,
        until: rule.until.is_some().then_some(until),
    })
}

/// Who has the say over a knob.
#[derive(Clone)]
pub(super) struct Say {
    pub(super) to: KnobValue,
    pub(super) by: Wish,
    pub(super) cooldown: Duration,
}

/// Who has the say, but for what was there before. Effects whose `until` holds end here.
pub(super) fn say(
    knob: Knob,
    base: Option<KnobValue>,
    turns: &[Turn],
    carried: &mut DomainState,
    noted: &mut bool,
) -> Option<Say> {
    let mine = || turns.iter().filter(|turn| turn.knob == knob);
    for turn in mine() {
        if turn.truth != Truth::True && turn.until == Some(Truth::True) {
            let before = carried.standing.len();
            carried.standing.retain(|standing| !standing.is_of(turn));
            if carried.standing.len() != before {
                *noted = true;
                if let Some(slot) = carried.limits.get_mut(&knob) {
                    slot.undone = Some(turn.rule.clone());
                }
            }
        }
    }
    let stands = |turn: &Turn| {
        let mut standing = carried.standing.iter();
        standing.any(|standing| standing.is_of(turn) && standing.lasts == Lasts::Until)
    };
    // `max_by_key` takes the last of equals, so the document is walked backwards to favour the first.
    let now = mine()
        .filter(|turn| turn.truth == Truth::True || stands(turn))
        .collect::<Vec<_>>();
    if let Some(turn) = now.into_iter().rev().max_by_key(|turn| turn.priority) {
        let begun = carried
            .standing
            .iter()
            .any(|standing| standing.is_of(turn) && standing.to == turn.to);
        return Some(Say {
            to: turn.to,
            by: Wish::Rule(turn.rule.clone()),
            // One that has had its say goes on having it.
            cooldown: if begun { Duration::ZERO } else { turn.cooldown },
        });
    }
    let last = carried
        .standing
        .iter()
        .find(|standing| standing.knob == knob && standing.lasts == Lasts::UntilChanged);
    if let Some(last) = last {
        return Some(Say {
            to: last.to,
            by: Wish::Rule(last.rule.clone()),
            cooldown: Duration::ZERO,
        });
    }
    base.map(|to| Say {
        to,
        by: Wish::Base,
        cooldown: Duration::ZERO,
    })
}

/// A cap that stands for a removal of vCPUs has the say where nothing else leaves as little: neither a rule, nor what was
/// there before, nor a hand.
pub(super) fn narrowed(
    say: Option<Say>,
    slot: Option<&LimitState>,
    quota: Option<&Quota>,
    domain: &Domain<'_>,
) -> Option<Say> {
    let Some((quota, to)) = quota.and_then(|quota| Some((quota, quota.value()?))) else {
        return say;
    };
    let other = say
        .as_ref()
        .map(|say| say.to)
        .or(slot.and_then(|slot| slot.original))
        .or(domain.knobs.reading(Knob::CpuCap).value());
    if other.is_some_and(|other| is_within(other, to)) {
        return say;
    }
    Some(Say {
        to,
        by: quota.wish(domain.present(Resource::Vcpus)),
        cooldown: Duration::ZERO,
    })
}

/// Notes that a rule has had the say; whether that is new.
pub(super) fn stand(
    knob: Knob,
    say: Option<&Say>,
    turns: &[Turn],
    carried: &mut DomainState,
) -> bool {
    let Some(Wish::Rule(rule)) = say.map(|say| &say.by) else {
        return false;
    };
    let Some(turn) = turns
        .iter()
        .find(|turn| turn.knob == knob && turn.rule == *rule)
    else {
        return false;
    };
    let standing = Standing {
        rule: rule.clone(),
        knob,
        to: turn.to,
        lasts: if turn.until.is_some() {
            Lasts::Until
        } else {
            Lasts::UntilChanged
        },
    };
    if carried.standing.contains(&standing) {
        return false;
    }
    carried.standing.retain(|other| {
        let replaced = standing.lasts == Lasts::UntilChanged
            && other.knob == knob
            && other.lasts == Lasts::UntilChanged;
        !replaced && !other.is_of(turn)
    });
    carried.standing.push(standing);
    true
}

impl Standing {
    fn is_of(&self, turn: &Turn) -> bool {
        self.knob == turn.knob && self.rule == turn.rule
    }
}
