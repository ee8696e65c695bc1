//! One proposal: what is proposed, on what it rests, where it stands, and what becomes of it. The book of them all is in
//! `propose`.

use std::fmt;
use std::time::Duration;

use persona::domain::DomainId;
use persona::rule::{Knob, KnobValue, Resource, Truth};
use persona::signal::{Source, Unit};
use persona::units::Moment;
use persona::{Class, Digest, Level, Persona};
use serde::{Deserialize, Serialize};

use crate::evaluate::Wanted;
use crate::policy::Policy;
use crate::report::{Clamp, Limit, RuleReport, Wish, amount_text};
use crate::snapshot::Domain;
use crate::state::DomainState;

/// So many readings of a proposal are kept; a rule with more is told in full by `explain`.
const MOST_SAMPLES: usize = 8;

/// What is no rule's wish counts as one with the cooldown that rules have without their own.
const COOLDOWN: Duration = Duration::from_secs(60);

/// What waits for a person, or was decided by one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// Its number: small, rising, never used again.
    pub id: u64,
    /// Which domain.
    pub domain: DomainId,
    /// Of which running instance.
    pub instance: Option<u32>,
    /// The persona whose wish it is, by what it means.
    pub digest: Digest,
    /// The persona's name.
    pub persona: String,
    /// Who wants it.
    pub by: Wish,
    /// What is to be done.
    pub what: Subject,
    /// The class whose trust level asks for a person.
    pub class: Class,
    /// That level.
    pub level: Level,
    /// What it rests on.
    pub why: Vec<Sample>,
    /// When it was made.
    pub created: Moment,
    /// When it ends, decided or not.
    pub expires: Moment,
    /// When something last wanted it.
    pub wanted_at: Moment,
    /// How far it has come.
    pub standing: Standing,
    /// What it asks to be done once was called for, and whoever carries it out has not said yet what came of it.
    #[serde(default)]
    pub called: bool,
}

/// What is proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// A change of a resource.
    Step {
        /// Which.
        resource: Resource,
        /// What is in force, in vCPUs or bytes.
        from: u64,
        /// What is wanted within the bounds of persona and definition.
        to: u64,
    },
    /// A turn of a knob.
    Limit {
        /// Which.
        knob: Knob,
        /// What it shows, where its devices are limited alike.
        from: Option<KnobValue>,
        /// What it shall be set to.
        to: KnobValue,
    },
    /// Something that is done once, or taken back where the wish is the `until` of a rule.
    Call {
        /// The action, as it is written.
        action: String,
    },
}

/// One reading that a proposal rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The comparison, as it is written.
    pub comparison: String,
    /// The metric.
    pub metric: String,
    /// Its value, in `unit`.
    pub value: f64,
    /// The kind of quantity.
    pub unit: Option<Unit>,
    /// Who says so.
    pub source: Source,
    /// When.
    pub at: Moment,
}

/// How far a proposal has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Nobody has decided.
    Open,
    /// Somebody wants it done.
    Approved {
        /// Who.
        by: String,
        /// When.
        at: Moment,
    },
    /// Somebody does not. It is remembered so that it is not proposed again at once.
    Rejected {
        /// Who.
        by: String,
        /// When.
        at: Moment,
        /// The condition has been false since.
        over: bool,
    },
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Turn {
    /// It was made.
    Made,
    /// It is done.
    CarriedOut,
    /// It cannot be done; the record before says why.
    Refused,
    /// Its time is over.
    Expired,
    /// Nothing has wanted it for a while.
    Unwanted,
    /// What it would bring about is there.
    There,
    /// The persona that wanted it is no longer in force, or is another version.
    PersonaChanged,
    /// The running machine that it was about has ended.
    NotRunning,
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Made => "is proposed",
            Self::CarriedOut => "is carried out",
            Self::Refused => "cannot be carried out",
            Self::Expired => "has expired",
            Self::Unwanted => "is withdrawn, because nothing has wanted it for a while",
            Self::There => "is withdrawn, because what it wants is there",
            Self::PersonaChanged => "is withdrawn, because another persona or version is in force",
            Self::NotRunning => "is withdrawn, because the machine has ended",
        })
    }
}

/// A proposal with what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct News {
    /// As it was.
    pub proposal: Proposal,
    /// What became of it.
    pub turn: Turn,
}

/// Why a person's word about a proposal changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOpen {
    /// There is no such proposal, or none any more.
    Unknown,
    /// It was approved before.
    Approved,
    /// It was rejected before.
    Rejected,
}

impl Proposal {
    /// What is proposed, in words.
    pub fn sentence(&self) -> String {
        match (&self.what, &self.by) {
            (Subject::Step { resource, from, to }, by) => {
                let name = match resource {
                    Resource::Vcpus => "vCPUs",
                    Resource::Memory => "memory",
                };
                format!(
                    "{name} from {} to {}, because of {by}",
                    amount_text(*resource, *from),
                    amount_text(*resource, *to)
                )
            }
            (Subject::Limit { knob, from, to }, by) => {
                let from =
                    from.map_or_else(|| "each device its own".into(), |from| knob.text(from));
                format!("{knob} from {from} to {}, because of {by}", knob.text(*to))
            }
            (Subject::Call { action }, Wish::Undo(rule)) => {
                format!("take back: {action}, because of the until of rule {rule}")
            }
            (Subject::Call { action }, by) => format!("{action}, because of {by}"),
        }
    }
}

/// The same wish, with other figures perhaps.
pub(crate) fn same_subject(one: &Subject, other: &Subject) -> bool {
    match (one, other) {
        (Subject::Step { resource: one, .. }, Subject::Step { resource, .. }) => one == resource,
        (
            Subject::Limit { knob: one, to, .. },
            Subject::Limit {
                knob, to: other, ..
            },
        ) => one == knob && to == other,
        (Subject::Call { action: one }, Subject::Call { action }) => one == action,
        _ => false,
    }
}

/// Whether growth leads further than what was proposed before.
pub(crate) fn leads_to_more(now: &Subject, before: &Subject) -> bool {
    match (now, before) {
        (Subject::Step { from, to, .. }, Subject::Step { to: before, .. }) => {
            to > from && to > before
        }
        _ => false,
    }
}

/// A change as a person decides on it: to where it leads in the end and not in its next step alone, within what never
/// lets it go further.
pub(crate) fn step_subject(
    domain: &Domain<'_>,
    resource: Resource,
    wanted: u64,
    clamps: &[Clamp],
) -> Subject {
    let fixed = |clamp: &&Clamp| {
        matches!(
            clamp.limit,
            Limit::PersonaMinimum
                | Limit::PersonaMaximum
                | Limit::DomainMinimum
                | Limit::DomainMaximum
                | Limit::Reservation
        )
    };
    let from = domain.present(resource);
    let to = clamps.iter().rfind(fixed).map_or(wanted, |clamp| clamp.to);
    let block = match resource {
        Resource::Vcpus => 1,
        Resource::Memory => domain.memory.block.0.max(1),
    };
    let whole = from.abs_diff(to) / block * block;
    let to = if to > from {
        from + whole
    } else {
        from - whole
    };
    Subject::Step { resource, from, to }
}

/// The readings behind a rule's wish.
pub(crate) fn samples(by: &Wish, rules: &[RuleReport]) -> Vec<Sample> {
    let Wish::Rule(name) = by else {
        return Vec::new();
    };
    let looked = rules
        .iter()
        .filter(|rule| rule.name == *name)
        .flat_map(|rule| &rule.looked);
    looked
        .filter_map(|looked| {
            let reading = looked.reading?;
            Some(Sample {
                comparison: looked.comparison.to_string(),
                metric: looked.signal.to_string(),
                value: reading.value,
                unit: looked.signal.unit(),
                source: reading.source,
                at: reading.at,
            })
        })
        .take(MOST_SAMPLES)
        .collect()
}

/// Whether a proposal ends now, other than by its time.
pub(crate) fn look_again(
    entry: &mut Proposal,
    domain: &Domain<'_>,
    persona: &Persona,
    carried: &DomainState,
    (wanted, rules): (&[Wanted], &[RuleReport]),
    policy: &Policy,
    now: Moment,
) -> Option<Turn> {
    let rule = match &entry.by {
        Wish::Rule(name) => persona.rules.iter().find(|rule| rule.name == *name),
        _ => None,
    };
    let listed = match entry.what {
        Subject::Step { resource, .. } => wanted
            .iter()
            .any(|wanted| wanted.by == entry.by && wanted.resource == resource),
        // Who has the say over a knob asks at each look.
        Subject::Limit { .. } => now.since(entry.wanted_at) < policy.proposal_grace,
        Subject::Call { .. } => false,
    };
    // Without its windows, so that a pause in what is known does not end what goes on.
    let holds = rule.map(|rule| rule.when.would_hold(domain.signals, now));
    let limit = matches!(entry.what, Subject::Limit { .. });
    if (listed && !limit) || holds == Some(Truth::True) {
        entry.wanted_at = now;
    }
    if holds == Some(Truth::True) && entry.standing == Standing::Open {
        entry.why = samples(&entry.by, rules);
    }
    if matches!(entry.by, Wish::Guest(_)) {
        // Who asked waits without asking again.
        entry.wanted_at = now;
    }
    match &mut entry.standing {
        Standing::Rejected { at, over, .. } => {
            let ceased = match holds {
                // What a rule has set may stand for longer than its condition holds.
                Some(holds) => holds == Truth::False && !(limit && listed),
                None => !listed,
            };
            *over |= ceased;
            let cooldown = rule.map_or(COOLDOWN, |rule| rule.cooldown);
            // Its end is told to nobody, whatever it is called.
            (*over && now.since(*at) >= cooldown).then_some(Turn::Unwanted)
        }
        standing => {
            let approved = matches!(standing, Standing::Approved { .. });
            // Until host and guest have shown what a step came to, nothing is claimed of it.
            if !is_under_way(&entry.what, carried) && is_there(&entry.what, domain, carried, policy)
            {
                return Some(if approved {
                    Turn::CarriedOut
                } else {
                    Turn::There
                });
            }
            let unwanted = now.since(entry.wanted_at) >= policy.proposal_grace;
            (unwanted && !approved).then_some(Turn::Unwanted)
        }
    }
}

fn is_under_way(what: &Subject, carried: &DomainState) -> bool {
    match what {
        Subject::Step { resource, .. } => carried.resource(*resource).in_flight.is_some(),
        Subject::Limit { knob, .. } => {
            let slot = carried.limits.get(knob);
            slot.is_some_and(|slot| slot.in_flight.is_some())
        }
        Subject::Call { .. } => false,
    }
}

/// Whether the machine has what a proposal wants, but for what is too little for a step.
fn is_there(what: &Subject, domain: &Domain<'_>, carried: &DomainState, policy: &Policy) -> bool {
    let (resource, from, to) = match what {
        Subject::Step { resource, from, to } => (resource, from, to),
        Subject::Limit { knob, to, .. } => {
            let reached = carried.limits.get(knob).and_then(|slot| slot.reached);
            return reached == Some(*to) || domain.knobs.reading(*knob).value() == Some(*to);
        }
        Subject::Call { .. } => return false,
    };
    let present = domain.present(*resource);
    let left = if to > from {
        to.saturating_sub(present)
    } else {
        present.saturating_sub(*to)
    };
    let least = match resource {
        Resource::Vcpus => 1,
        Resource::Memory => domain.memory.block.0.max(policy.memory_change_minimum.0),
    };
    // A change that is smaller as a whole than the usual least one was wanted to the last byte.
    left < least.min(from.abs_diff(*to)).max(1)
}
