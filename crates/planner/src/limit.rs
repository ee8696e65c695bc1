//! Knobs: CPU weight and cap, network bandwidth, limits of the disks. A knob has one value and takes nothing from other
//! domains, so there is no ledger: whoever has the say decides, and the step is one turn. What a turn looks like on a
//! host is not here. Called by `plan` for each domain, after its rules are evaluated.
//!
//! ```text
//! rules that hold, and those whose effect stands until their `until`   by priority, then the order of the document
//!   else the last rule without `until` that had the say                it stays until another changes it
//!   else the base configuration
//!   else what was there before our first turn
//! ```

use std::time::Duration;

use persona::domain::DomainId;
use persona::rule::{Knob, KnobValue, Rule, Truth};
use persona::signal::Source;
use persona::units::Moment;
use persona::{Class, Persona};
use serde::{Deserialize, Serialize};

use crate::policy::Policy;
use crate::report::{Reason, Wish};
use crate::snapshot::{Domain, KnobReading, Obstacle};
use crate::state::{DomainState, Ending, State, failed, longest_wait};
use crate::trust::{Deed, Payer, Permit, Undoing, permit};

/// One turn of one knob of one domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitStep {
    /// Which domain.
    pub domain: DomainId,
    /// Of which running instance.
    pub instance: Option<u32>,
    /// Which knob.
    pub knob: Knob,
    /// What it showed.
    pub from: KnobReading,
    /// What it shall be set to.
    pub to: KnobValue,
    /// Who wanted it.
    pub by: Wish,
}

impl LimitStep {
    /// One line for the audit: what, from where, to where, by whom.
    pub fn sentence(&self) -> String {
        format!(
            "{} -> {} because of {}",
            reading_text(self.knob, self.from),
            self.knob.text(self.to),
            self.by
        )
    }
}

/// A turn by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LimitDrift {
    /// Which domain.
    pub domain: DomainId,
    /// Which knob.
    pub knob: Knob,
    /// What it had shown.
    pub from: KnobReading,
    /// What it shows now.
    pub to: KnobReading,
    /// Respected until then.
    pub until: Moment,
}

/// What a knob shows, for people.
pub fn reading_text(knob: Knob, reading: KnobReading) -> String {
    match reading {
        KnobReading::Set { value, .. } => knob.text(value),
        KnobReading::Uneven { .. } => "each device its own".into(),
        KnobReading::Unable(_) | KnobReading::Unknown => "unknown".into(),
    }
}

/// What is carried of one knob.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitState {
    /// What was there before our first turn; nothing where a hand has had its word since.
    pub original: Option<KnobValue>,
    /// The turn that is being carried out.
    pub in_flight: Option<LimitFlight>,
    /// What it showed when it was last looked at, to see changes by hand.
    pub shown: Option<KnobReading>,
    /// Where our last turn brought it, as far as that was verified: what it shows may be that in the mechanism's own
    /// granularity.
    pub reached: Option<KnobValue>,
    /// When it was last turned.
    pub changed_at: Option<Moment>,
    /// A change by hand is respected until then.
    pub held_until: Option<Moment>,
    /// Turns in a row that did not take effect.
    pub failures: u32,
    /// Not tried again before.
    pub retry_at: Option<Moment>,
    /// Left alone until then, because it is stuck.
    pub quarantined_until: Option<Moment>,
    /// The rule whose `until` held last, as long as what follows from that is not reached.
    #[serde(default)]
    pub undone: Option<String>,
}

/// A turn that is being carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitFlight {
    /// Of which running instance.
    pub instance: Option<u32>,
    /// To.
    pub to: KnobValue,
    /// Since.
    pub since: Moment,
}

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

/// What became of one knob in one pass.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LimitReport {
    /// Which.
    pub knob: Knob,
    /// What it showed.
    pub present: KnobReading,
    /// What it showed before our first turn, where we have turned it.
    pub original: Option<KnobValue>,
    /// What is wanted.
    pub wanted: Option<KnobValue>,
    /// Who wants it.
    pub by: Option<Wish>,
    /// What will be done, or why nothing is.
    pub verdict: LimitVerdict,
}

/// What becomes of a wish for a knob.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitVerdict {
    /// It is what it shall be.
    Content,
    /// It is turned to this.
    Step(KnobValue),
    /// Nothing is done, and this is why.
    No(LimitReason),
}

/// Why a wish for a knob is not followed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitReason {
    /// What stands against a change of vCPUs and memory stands against this too.
    Guard(Reason),
    /// An earlier turn is being carried out and verified.
    InFlight(KnobValue),
    /// It cannot be turned.
    Unable(Obstacle),
    /// Its devices are not limited alike, and not by us.
    Uneven,
    /// Nobody has looked yet.
    Unknown,
}

impl LimitReason {
    /// One sentence that a person can act on.
    pub fn sentence(&self, knob: Knob) -> String {
        match self {
            // None of those that stand against a knob shows an amount of the resource.
            Self::Guard(reason) => reason.sentence(persona::rule::Resource::Vcpus),
            Self::InFlight(to) => {
                format!("a turn to {} is being carried out and verified", knob.text(*to))
            }
            Self::Unable(Obstacle::NoDevice) if knob == Knob::NetworkBandwidth => {
                "the domain has no network interface, so there is nothing to limit".into()
            }
            Self::Unable(Obstacle::NoDevice) => {
                "the domain has no disk, so there is nothing to limit".into()
            }
            Self::Unable(Obstacle::NoHostDevice) => {
                "an interface has no device on the host, as in user mode, so nothing there can limit it; give it a bridge or a network".into()
            }
            Self::Unable(Obstacle::OwnLimits) => format!(
                "the domain's definition limits devices in its own way, which one {knob} over all would overwrite; take <{}> out of it",
                if knob == Knob::NetworkBandwidth { "bandwidth" } else { "iotune" }
            ),
            Self::Unable(Obstacle::NoHypervisor) => {
                "the hypervisor is not connected, so nothing can be changed or verified; `virt-persona doctor` says why".into()
            }
            Self::Uneven => format!(
                "the domain's devices are not limited alike, and one {knob} over all could not give that back; make them alike"
            ),
            Self::Unknown => "nobody has looked at it yet".into(),
        }
    }
}

/// What a rule says of a knob in one pass.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Turn {
    rule: String,
    knob: Knob,
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
        rule: rule.name.clone(),
        knob: limit.knob(),
        to: limit.value(),
        priority: rule.priority.into(),
        cooldown: rule.cooldown,
        truth,
        until: rule.until.is_some().then_some(until),
    })
}

/// What one pass came to for the knobs of one domain.
pub(crate) struct Knobs {
    reports: Vec<LimitReport>,
    steps: Vec<LimitStep>,
    drifts: Vec<LimitDrift>,
    noted: bool,
}

/// What one pass came to for the knobs of all domains.
#[derive(Default)]
pub(crate) struct Turned {
    pub(crate) steps: Vec<LimitStep>,
    pub(crate) drifts: Vec<LimitDrift>,
    pub(crate) noted: Vec<DomainId>,
}

impl Turned {
    /// Takes over what one domain came to; its reports are given back.
    pub(crate) fn take(&mut self, domain: DomainId, knobs: Knobs) -> Vec<LimitReport> {
        self.steps.extend(knobs.steps);
        self.drifts.extend(knobs.drifts);
        if knobs.noted {
            self.noted.push(domain);
        }
        knobs.reports
    }
}

/// Who has the say over a knob.
struct Say {
    to: KnobValue,
    by: Wish,
    cooldown: Duration,
}

/// Decides what becomes of each knob of a domain. Without a persona what was there before comes back.
pub(crate) fn decide(
    domain: &Domain<'_>,
    persona: Option<&Persona>,
    turns: &[Turn],
    carried: &mut DomainState,
    policy: &Policy,
    now: Moment,
) -> Knobs {
    let mut knobs = Knobs {
        reports: Vec::new(),
        steps: Vec::new(),
        drifts: Vec::new(),
        noted: false,
    };
    for knob in Knob::ALL {
        let base = persona.and_then(|persona| knob.base(&persona.base));
        let known = carried.limits.contains_key(&knob);
        let spoken = turns.iter().any(|turn| turn.knob == knob);
        if base.is_none() && !known && !spoken {
            continue;
        }
        let present = domain.knobs.reading(knob);
        let say = say(knob, base, turns, carried, &mut knobs.noted);
        let wanted = say.as_ref().map(|say| say.to);
        if !known
            && (matches!(
                present,
                KnobReading::Unable(_) | KnobReading::Unknown | KnobReading::Uneven { .. }
            ) || (base.is_none() && (wanted.is_none() || wanted == present.value())))
        {
            // It was never turned, and is not now: there is nothing to carry but that a rule has had the say.
            let there = wanted.is_none() || wanted == present.value();
            knobs.noted |= there && stand(knob, say.as_ref(), turns, carried);
            knobs.reports.extend(say.map(|say| {
                LimitReport {
                    knob,
                    present,
                    original: None,
                    wanted,
                    verdict: LimitState::default()
                        .may_turn(present, None, Duration::ZERO, now)
                        .map_or_else(LimitVerdict::No, |()| LimitVerdict::Content),
                    by: Some(say.by),
                }
            }));
            continue;
        }
        let slot = carried.limits.entry(knob).or_default();
        if let Some((from, until)) = slot.notice(present, policy, now) {
            knobs.drifts.push(LimitDrift {
                domain: domain.id,
                knob,
                from,
                to: present,
                until,
            });
        }
        let say = say.or_else(|| {
            slot.original.map(|to| Say {
                to,
                by: Wish::Restore,
                cooldown: Duration::ZERO,
            })
        });
        let say = say.map(|say| match (&say.by, &slot.undone) {
            (Wish::Base | Wish::Restore, Some(rule)) => Say {
                by: Wish::Undo(rule.clone()),
                ..say
            },
            _ => say,
        });
        let there = |slot: &LimitState, to: KnobValue| {
            slot.in_flight.is_none() && (present.value() == Some(to) || slot.reached == Some(to))
        };
        let verdict = match &say {
            None => LimitVerdict::Content,
            Some(say) if there(slot, say.to) => LimitVerdict::Content,
            Some(say) => match slot.may_turn(present, asked(say, persona), say.cooldown, now) {
                Ok(()) => LimitVerdict::Step(say.to),
                Err(reason) => LimitVerdict::No(reason),
            },
        };
        let done = verdict == LimitVerdict::Content;
        if done {
            slot.undone = None;
        }
        // Nobody has a word on it any more, and it is as it was: there is nothing left to know of it.
        let over = done
            && base.is_none()
            && slot.held_until.is_none_or(|until| until <= now)
            && say.as_ref().is_none_or(|say| slot.original == Some(say.to));
        knobs.reports.push(LimitReport {
            knob,
            present,
            original: slot.original,
            wanted: say.as_ref().map(|say| say.to),
            by: say.as_ref().map(|say| say.by.clone()),
            verdict: verdict.clone(),
        });
        if let (LimitVerdict::Step(to), Some(say)) = (&verdict, &say) {
            knobs.steps.push(LimitStep {
                domain: domain.id,
                instance: domain.instance,
                knob,
                from: present,
                to: *to,
                by: say.by.clone(),
            });
        }
        if matches!(verdict, LimitVerdict::Content | LimitVerdict::Step(_)) {
            knobs.noted |= stand(knob, say.as_ref(), turns, carried);
        }
        let stands = carried
            .standing
            .iter()
            .any(|standing| standing.knob == knob);
        if over && !stands {
            carried.limits.remove(&knob);
            knobs.noted = true;
        }
    }
    knobs
}

/// The persona that has to be trusted with it: what is given back needs nobody's trust.
fn asked<'a>(say: &Say, persona: Option<&'a Persona>) -> Option<&'a Persona> {
    match say.by {
        Wish::Restore | Wish::Undo(_) => None,
        _ => persona,
    }
}

/// Whether trust lets the knob be turned. It can be turned back and takes nothing from others, so the rule's evidence does
/// not matter. Where a person would have to be asked nothing is done: proposals are of resources and calls.
fn trusted(persona: &Persona) -> Result<(), Reason> {
    let class = Class::ResourceScaling;
    let deed = Deed {
        class,
        evidence: Source::Host,
        undoing: Undoing::Possible,
        payer: Payer::Nobody,
    };
    match permit(&persona.trust, deed) {
        Permit::Act => Ok(()),
        Permit::Propose | Permit::Never => Err(Reason::NotTrusted(persona.trust.level(class))),
    }
}

/// Who has the say, but for what was there before. Effects whose `until` holds end here.
fn say(
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

/// Notes that a rule has had the say; whether that is new.
fn stand(knob: Knob, say: Option<&Say>, turns: &[Turn], carried: &mut DomainState) -> bool {
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

impl LimitState {
    /// Looks at what the knob shows. Where a hand has turned it: what it had shown, and until when that is respected. Where devices came or went, what was set is no longer
    /// what is meant, and that is nobody's word.
    fn notice(
        &mut self,
        present: KnobReading,
        policy: &Policy,
        now: Moment,
    ) -> Option<(KnobReading, Moment)> {
        if self.in_flight.is_some()
            || matches!(present, KnobReading::Unable(_) | KnobReading::Unknown)
        {
            return None;
        }
        let before = self.shown.replace(present)?;
        if before == present {
            return None;
        }
        self.reached = None;
        if before.devices() != present.devices() {
            return None;
        }
        let until = now.after(policy.hold);
        self.held_until = Some(until);
        self.original = None;
        Some((before, until))
    }

    /// Whether the knob may be turned at this moment.
    fn may_turn(
        &self,
        present: KnobReading,
        persona: Option<&Persona>,
        cooldown: Duration,
        now: Moment,
    ) -> Result<(), LimitReason> {
        match present {
            KnobReading::Unable(obstacle) => return Err(LimitReason::Unable(obstacle)),
            KnobReading::Unknown => return Err(LimitReason::Unknown),
            // What is uneven by our own doing, because a device was added, is made even again.
            KnobReading::Uneven { .. } if self.original.is_none() => {
                return Err(LimitReason::Uneven);
            }
            KnobReading::Uneven { .. } | KnobReading::Set { .. } => {}
        }
        if let Some(flight) = &self.in_flight {
            return Err(LimitReason::InFlight(flight.to));
        }
        let left = |until: Option<Moment>| {
            until
                .map(|until| until.since(now))
                .filter(|left| !left.is_zero())
        };
        let reason = if let Some(left) = left(self.held_until) {
            Reason::Held { left }
        } else if let Some(left) = left(self.quarantined_until) {
            Reason::Quarantined { left }
        } else if let Some(left) = left(self.retry_at) {
            Reason::Waiting {
                left,
                failures: self.failures,
            }
        } else if let Some(left) = left(self.changed_at.map(|at| at.after(cooldown))) {
            Reason::Cooldown(left)
        } else {
            return persona.map_or(Ok(()), trusted).map_err(LimitReason::Guard);
        };
        Err(LimitReason::Guard(reason))
    }

    /// After a restart of the daemon: what was under way is over, whatever came of it.
    pub(crate) fn resume(&mut self, policy: &Policy, now: Moment) {
        self.changed_at = self.changed_at.map(|at| at.min(now));
        for (date, most) in [
            (&mut self.held_until, policy.hold),
            (&mut self.quarantined_until, policy.quarantine),
            (&mut self.retry_at, longest_wait(policy)),
        ] {
            *date = date.map(|date| date.min(now.after(most)));
        }
        if self.in_flight.take().is_some() {
            // It may have taken place, so what is shown next is no hand's work.
            self.shown = None;
            self.reached = None;
        }
    }

    /// A person's word: forget holds and quarantine.
    pub(crate) fn release(&mut self) {
        self.held_until = None;
        self.quarantined_until = None;
        self.failures = 0;
        self.retry_at = None;
    }
}

impl State {
    /// Notes that a knob is being turned.
    pub fn begin_limit(&mut self, step: &LimitStep, now: Moment) {
        let state = self.domains.entry(step.domain).or_default();
        let slot = state.limits.entry(step.knob).or_default();
        if slot.original.is_none() {
            slot.original = step.from.value();
        }
        slot.reached = None;
        slot.in_flight = Some(LimitFlight {
            instance: step.instance,
            to: step.to,
            since: now,
        });
    }

    /// Notes how a turn ended. `shown` is what the knob shows now, where it is known. A turn that is not the one under
    /// way, because the domain was started anew since, changes nothing.
    pub fn finish_limit(
        &mut self,
        step: &LimitStep,
        ending: Ending,
        shown: Option<KnobReading>,
        policy: &Policy,
        now: Moment,
    ) {
        let own =
            |flight: &mut LimitFlight| flight.instance == step.instance && flight.to == step.to;
        let Some(slot) = self
            .domains
            .get_mut(&step.domain)
            .and_then(|state| state.limits.get_mut(&step.knob))
            .filter(|slot| slot.in_flight.is_some())
        else {
            return;
        };
        if slot.in_flight.take_if(own).is_none() {
            return;
        }
        slot.shown = shown;
        if matches!(ending, Ending::Applied | Ending::Partial) {
            slot.changed_at = Some(now);
        }
        if ending == Ending::Applied {
            slot.reached = Some(step.to);
            slot.failures = 0;
            slot.retry_at = None;
            slot.quarantined_until = None;
        } else {
            let (retry_at, quarantined_until) = failed(&mut slot.failures, policy, now);
            slot.retry_at = Some(retry_at);
            slot.quarantined_until = quarantined_until.or(slot.quarantined_until);
        }
    }
}
