//! Knobs: CPU weight and cap, network bandwidth, limits of the disks. A knob has one value and takes nothing from other
//! domains, so there is no ledger: whoever has the say decides, and the step is one turn. What a turn looks like on a
//! host is not here. Called by `plan` for each domain, after its rules are evaluated.
//!
//! ```text
//! say      who has the say over a knob, and what rules have set that lasts
//! slot     what is carried of one knob, and whether it may be turned now
//! verdict  what became of one knob, in values and in words
//! ```

mod say;
mod slot;
mod verdict;

use std::time::Duration;

use persona::domain::DomainId;
use persona::rule::{Knob, KnobValue};
use persona::signal::Source;
use persona::units::Moment;
use persona::{Class, Persona};
use serde::{Deserialize, Serialize};

use crate::policy::Policy;
use crate::proposal::{Subject, samples};
use crate::propose::{Answer, Ask, Proposals};
use crate::report::{Reason, RuleReport, Wish};
use crate::snapshot::{Domain, KnobReading};
use crate::state::DomainState;
use crate::trust::{Deed, Payer, Permit, Undoing, permit};

pub use say::{Lasts, Standing};
use say::{Say, narrowed, say, stand};
pub(crate) use say::{Turn, turns};
pub use slot::{LimitFlight, LimitGrant, LimitState, LimitsHeld};
pub use verdict::{LimitReason, LimitReport, LimitVerdict, reading_text};

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

/// A persona that may want something of knobs, and the book of what people are asked.
pub(crate) struct Voice<'a> {
    pub(crate) persona: &'a Persona,
    pub(crate) rules: &'a [RuleReport],
    pub(crate) proposals: &'a mut Proposals,
}

/// Decides what becomes of each knob of a domain. Without a persona what was there before comes back.
pub(crate) fn decide(
    domain: &Domain<'_>,
    mut voice: Option<Voice<'_>>,
    turns: &[Turn],
    carried: &mut DomainState,
    policy: &Policy,
    now: Moment,
) -> Knobs {
    let persona = voice.as_ref().map(|voice| voice.persona);
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
        let quota = carried.quota.clone().filter(|_| knob == Knob::CpuCap);
        if base.is_none() && !known && !spoken && quota.is_none() {
            continue;
        }
        let present = domain.knobs.reading(knob);
        let ruled = say(knob, base, turns, carried, &mut knobs.noted);
        let slot = carried.limits.get(&knob);
        let say = narrowed(ruled.clone(), slot, quota.as_ref(), domain);
        let wanted = say.as_ref().map(|say| say.to);
        if !known
            && (matches!(
                present,
                KnobReading::Unable(_) | KnobReading::Unknown | KnobReading::Uneven { .. }
            ) || (base.is_none() && (wanted.is_none() || wanted == present.value())))
        {
            // It was never turned, and is not now: there is nothing to carry but that a rule has had the say.
            let there = wanted.is_none() || wanted == present.value();
            knobs.noted |= there && stand(knob, ruled.as_ref(), turns, carried);
            knobs.reports.extend(say.map(|say| {
                LimitReport {
                    knob,
                    present,
                    original: None,
                    wanted,
                    verdict: LimitState::default()
                        .may_turn(present, Duration::ZERO, now)
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
        let stands = |rule: &String| {
            let mut standing = carried.standing.iter();
            standing.any(|standing| standing.knob == knob && standing.rule == *rule)
        };
        slot.granted.retain(|grant| {
            let says = say.as_ref().is_some_and(|say| say.by == grant.by);
            says || matches!(&grant.by, Wish::Rule(rule) if stands(rule))
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
            Some(say) => {
                let free = slot.may_turn(present, say.cooldown, now);
                let held = LimitsHeld::stands(carried.limits_held.as_ref(), now);
                let free = held.and(free).and_then(|()| {
                    let Some(voice) = &mut voice else {
                        return Ok(());
                    };
                    let granted = slot.granted.len();
                    let trusted = voice.trusts(domain, knob, say, slot, policy, now);
                    knobs.noted |= slot.granted.len() != granted;
                    trusted.map_err(LimitReason::Guard)
                });
                match free {
                    Ok(()) => LimitVerdict::Step(say.to),
                    Err(reason) => LimitVerdict::No(reason),
                }
            }
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
            knobs.noted |= stand(knob, ruled.as_ref(), turns, carried);
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

impl Voice<'_> {
    /// Whether trust lets the knob be turned, or a person does. What is given back needs nobody's trust, and a cap in the
    /// place of a removal was trusted with the removal. A turn can be turned back and takes nothing from others, so the
    /// rule's evidence does not matter.
    fn trusts(
        &mut self,
        domain: &Domain<'_>,
        knob: Knob,
        say: &Say,
        slot: &mut LimitState,
        policy: &Policy,
        now: Moment,
    ) -> Result<(), Reason> {
        if matches!(say.by, Wish::Restore | Wish::Undo(_) | Wish::Quota { .. }) {
            return Ok(());
        }
        let class = Class::ResourceScaling;
        let level = self.persona.trust.level(class);
        let deed = Deed {
            class,
            evidence: Source::Host,
            undoing: Undoing::Possible,
            payer: Payer::Nobody,
        };
        match permit(&self.persona.trust, deed) {
            Permit::Act => return Ok(()),
            Permit::Never => return Err(Reason::NotTrusted(level)),
            Permit::Propose => {}
        }
        let grant = LimitGrant {
            digest: self.persona.digest.clone(),
            by: say.by.clone(),
            to: say.to,
        };
        if slot.granted.contains(&grant) {
            return Ok(());
        }
        let ask = Ask {
            domain,
            persona: self.persona,
            by: &say.by,
            what: Subject::Limit {
                knob,
                from: domain.knobs.reading(knob).value(),
                to: say.to,
            },
            evidence: deed.evidence,
            class,
            why: samples(&say.by, self.rules),
        };
        match self.proposals.ask(ask, policy, now) {
            Answer::Approved(_) => {
                slot.granted.push(grant);
                Ok(())
            }
            answer => Err(answer.reason(level)),
        }
    }
}
