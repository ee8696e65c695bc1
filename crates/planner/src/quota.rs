//! A cap on CPU time in the place of a removal of vCPUs that cannot be done: the definition keeps them, the guest has no way
//! to give them up, or the mechanism is stuck. What is decided is the number of CPUs; the cap itself is a knob, turned and
//! verified as any other (`limit`). Called by `plan` for each domain that runs with a persona.
//!
//! ```text
//! a removal is refused for good -> the domain is capped at what was wanted    the smaller of it and any other cap counts
//!   a further removal           -> the cap goes down, within the same guard
//!   growth                      -> the cap goes up, and is gone before a vCPU is added
//!   the removal can be done     -> it is, step by step, and then the cap goes
//! ```
//!
//! While a cap is in force the domain has as many CPUs as it lets run: rules see the count and the use of those. Else a busy
//! domain would look idle, since it cannot use what is plugged, and no rule would ever let it grow again. The ledger goes on
//! to count what is plugged, so nothing is promised to others that only a cap holds back.

use persona::Persona;
use persona::rule::{Knob, KnobValue, Resource};
use persona::signal::{Event, Metric, Named, Reading, Signals, Source};
use persona::units::Moment;
use serde::{Deserialize, Serialize};

use crate::evaluate::Wanted;
use crate::guard::{Guarded, guard};
use crate::limit::{LimitReport, LimitState, LimitsHeld};
use crate::policy::Policy;
use crate::propose::Proposals;
use crate::report::{Clamp, Limit, Reason, RuleReport, Wish};
use crate::snapshot::{Ability, Domain, Vcpus};
use crate::state::{DomainState, Effect, ResourceState};

/// One CPU in the unit of the cap.
const CPU: u64 = 1_000_000;

/// A cap that stands for a removal of vCPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// The domain shall have no more CPUs.
    pub cpus: u64,
    /// Who wanted the removal.
    pub by: Wish,
    /// It is no longer wanted since then, and forgotten when the cap is gone.
    pub over: Option<Moment>,
}

impl Quota {
    /// What the knob is turned to, as long as it is wanted.
    pub(crate) fn value(&self) -> Option<KnobValue> {
        let value = KnobValue::At(self.cpus.saturating_mul(CPU));
        self.over.is_none().then_some(value)
    }

    /// Whose wish the turn of the knob is.
    pub(crate) fn wish(&self, vcpus: u64) -> Wish {
        Wish::Quota {
            by: Box::new(self.by.clone()),
            vcpus,
            cpus: self.cpus,
        }
    }
}

/// Whether one value of the cap leaves no more than another.
pub(crate) fn is_within(one: KnobValue, other: KnobValue) -> bool {
    match (one, other) {
        (_, KnobValue::Unlimited) => true,
        (KnobValue::Unlimited, KnobValue::At(_)) => false,
        (KnobValue::At(one), KnobValue::At(other)) => one <= other,
    }
}

/// Looks whether what stands for a removal is still needed; whether that has changed anything.
pub(crate) fn review(
    domain: &Domain<'_>,
    persona: &Persona,
    carried: &mut DomainState,
    now: Moment,
) -> bool {
    let lacking = domain.vcpus.ability == Ability::NoGuestAgent;
    carried.agentless = lacking.then(|| carried.agentless.unwrap_or(now));
    let other = carried.persona.as_ref() != Some(&persona.digest);
    let present = domain.present(Resource::Vcpus);
    match &mut carried.quota {
        // The rules of another persona decide anew.
        Some(quota) if quota.over.is_none() && (other || quota.cpus >= present) => {
            quota.over = Some(now);
            true
        }
        _ => false,
    }
}

/// Forgets a cap that was taken away, by what became of its knob.
pub(crate) fn settle(carried: &mut DomainState, lines: &[LimitReport]) -> bool {
    let cap = lines.iter().find(|line| line.knob == Knob::CpuCap);
    let over = carried
        .quota
        .as_ref()
        .is_some_and(|quota| quota.over.is_some());
    let gone = over && cap.is_none_or(|line| !line.verdict.is_under_way());
    if gone {
        carried.quota = None;
    }
    gone
}

/// So many CPUs the cap leaves, where it is in force and leaves less than is plugged.
fn in_force(domain: &Domain<'_>, carried: &DomainState) -> Option<u64> {
    let quota = carried.quota.as_ref()?;
    let goal = quota.value()?;
    let shown = domain.knobs.reading(Knob::CpuCap).value()?;
    let slot = carried.limits.get(&Knob::CpuCap);
    let reached = slot.is_some_and(|slot| slot.in_flight.is_none() && slot.reached == Some(goal));
    let holds = reached || is_within(shown, goal);
    (holds && quota.cpus < domain.present(Resource::Vcpus)).then_some(quota.cpus)
}

/// The readings, with the CPUs that a cap leaves in place of those that are plugged.
pub(crate) struct Felt<'a> {
    signals: &'a dyn Signals,
    /// Online, and of them left.
    cpus: Option<(u64, u64)>,
}

impl<'a> Felt<'a> {
    pub(crate) fn of(domain: &Domain<'a>, carried: &DomainState) -> Self {
        let left = in_force(domain, carried);
        Self {
            signals: domain.signals,
            cpus: left.map(|left| (domain.present(Resource::Vcpus), left)),
        }
    }

    /// The domain as its rules see it.
    pub(crate) fn domain<'b>(&'b self, domain: &Domain<'b>) -> Domain<'b> {
        let Some((_, left)) = self.cpus else {
            return *domain;
        };
        Domain {
            vcpus: Vcpus {
                online: Some(u32::try_from(left).unwrap_or(u32::MAX)),
                ..domain.vcpus
            },
            signals: self,
            ..*domain
        }
    }
}

impl Signals for Felt<'_> {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        let mut reading = self.signals.reading(metric)?;
        if let Some((online, left)) = self.cpus {
            // Far below what a float holds exactly.
            #[allow(clippy::cast_precision_loss)]
            let (online, left) = (online as f64, left.max(1) as f64);
            match metric {
                Metric::CpuUtilization => {
                    reading.value = (reading.value * online / left).min(100.0);
                }
                Metric::VcpuCount => reading.value = left,
                _ => {}
            }
        }
        Some(reading)
    }

    fn named(&self, named: &Named) -> Option<Reading> {
        self.signals.named(named)
    }

    fn happened(&self, event: &Event) -> Option<Moment> {
        self.signals.happened(event)
    }
}

/// What becomes of vCPUs where a cap has a part in it.
pub(crate) enum Course {
    /// It has none.
    Usual,
    /// The cap is what is done, or the reason why nothing else is.
    Said(Vec<Clamp>, Reason),
    /// What the cap stands for is tried.
    Removal(Wanted, Guarded),
}

/// What is known of one domain whose vCPUs are decided on.
pub(crate) struct Seat<'a, 'b> {
    /// The domain as it is.
    pub(crate) real: &'a Domain<'b>,
    /// As its rules see it.
    pub(crate) felt: &'a Domain<'b>,
    pub(crate) persona: &'a Persona,
    pub(crate) rules: &'a [RuleReport],
    pub(crate) policy: &'a Policy,
    pub(crate) now: Moment,
}

impl Seat<'_, '_> {
    /// Decides whether a cap has a part in a wish for vCPUs, and in the removal that one stands for.
    pub(crate) fn course(
        &self,
        wanted: Option<&Wanted>,
        carried: &mut DomainState,
        proposals: &mut Proposals,
    ) -> Course {
        let plugged = self.real.present(Resource::Vcpus);
        let left = self.felt.present(Resource::Vcpus);
        match carried.quota.clone() {
            None => match wanted.filter(|wanted| wanted.to < plugged) {
                Some(wanted) => self.begin(wanted, carried, proposals),
                None => Course::Usual,
            },
            Some(quota) if quota.over.is_some() => match wanted {
                Some(wanted) if wanted.to > plugged => Course::Said(Vec::new(), Reason::Uncapping),
                _ => Course::Usual,
            },
            Some(quota) => match wanted {
                Some(wanted) if wanted.to > left && left == plugged => {
                    // It is not in force yet, so there is nothing to raise.
                    carried.quota = Some(Quota {
                        over: Some(self.now),
                        ..quota
                    });
                    Course::Said(Vec::new(), Reason::Uncapping)
                }
                Some(wanted) if wanted.to > left => {
                    let guarded = self.by_cap(wanted, carried, proposals);
                    match guarded.outcome {
                        Ok(to) => {
                            let by = quota.by;
                            self.set(wanted, by, to, carried);
                            let reason = if to < plugged {
                                self.stays(plugged, to, self.removal(to, carried).outcome)
                            } else {
                                Reason::Uncapping
                            };
                            Course::Said(guarded.clamps, reason)
                        }
                        Err(reason) => Course::Said(guarded.clamps, reason),
                    }
                }
                further => self.go_on(&quota, further, carried, proposals),
            },
        }
    }

    /// A removal that is refused for good is done by a cap.
    fn begin(
        &self,
        wanted: &Wanted,
        carried: &mut DomainState,
        proposals: &mut Proposals,
    ) -> Course {
        let (policy, now) = (self.policy, self.now);
        let usual = guard(self.real, Some(self.persona), carried, wanted, policy, now);
        let Err(why) = usual.outcome else {
            return Course::Usual;
        };
        if !self.is_for_good(&why, carried) || !self.can_be_capped(carried) {
            return Course::Usual;
        }
        let guarded = self.by_cap(wanted, carried, proposals);
        match guarded.outcome {
            Ok(to) => {
                self.set(wanted, wanted.by.clone(), to, carried);
                let reason = self.stays(self.real.present(Resource::Vcpus), to, Err(why));
                Course::Said(guarded.clamps, reason)
            }
            Err(reason @ (Reason::Proposed { .. } | Reason::Rejected { .. })) => {
                Course::Said(guarded.clamps, reason)
            }
            // What stands against the removal itself tells more.
            Err(_) => Course::Usual,
        }
    }

    /// A removal is tried again, or the cap goes further down.
    fn go_on(
        &self,
        quota: &Quota,
        further: Option<&Wanted>,
        carried: &mut DomainState,
        proposals: &mut Proposals,
    ) -> Course {
        let plugged = self.real.present(Resource::Vcpus);
        let removal = self.removal(quota.cpus, carried);
        if removal.outcome.is_ok() {
            let wanted = self.wanted(quota.cpus, quota.by.clone());
            return Course::Removal(wanted, removal);
        }
        let in_force = self.felt.present(Resource::Vcpus) < plugged;
        let lower = further.filter(|_| in_force).map(|wanted| {
            let guarded = self.by_cap(wanted, carried, proposals);
            if let Ok(to) = guarded.outcome {
                self.set(wanted, wanted.by.clone(), to, carried);
            }
            guarded
        });
        let (clamps, to) = match lower {
            Some(Guarded {
                outcome: Ok(to),
                clamps,
            }) => (clamps, to),
            _ => (Vec::new(), quota.cpus),
        };
        Course::Said(clamps, self.stays(plugged, to, removal.outcome))
    }

    fn stays(&self, vcpus: u64, cpus: u64, why: Result<u64, Reason>) -> Reason {
        Reason::Capped {
            vcpus,
            cpus,
            // What could be done is done at the next look.
            why: Box::new(why.err().unwrap_or(Reason::AtLimit(Limit::OneVcpuAStep))),
        }
    }

    /// Whether a removal is refused by what does not pass by itself.
    fn is_for_good(&self, why: &Reason, carried: &DomainState) -> bool {
        match why {
            Reason::Unable(Ability::NoHotplugVcpus)
            | Reason::ComesBack { .. }
            | Reason::Quarantined { .. }
            | Reason::AtLimit(Limit::DomainMinimum) => true,
            // An agent that is started anew, or boots with its guest, is soon back.
            Reason::Unable(Ability::NoGuestAgent) => carried
                .agentless
                .is_some_and(|since| self.now.since(since) >= self.policy.quota_after),
            _ => false,
        }
    }

    fn can_be_capped(&self, carried: &DomainState) -> bool {
        let present = self.real.knobs.reading(Knob::CpuCap);
        let unknown = LimitState::default();
        let slot = carried.limits.get(&Knob::CpuCap).unwrap_or(&unknown);
        LimitsHeld::stands(carried.limits_held.as_ref(), self.now).is_ok()
            && slot
                .may_turn(present, std::time::Duration::ZERO, self.now)
                .is_ok()
    }

    /// The removal that a cap stands for, within the guard of every removal.
    fn removal(&self, to: u64, carried: &DomainState) -> Guarded {
        let by = carried.quota.as_ref().map(|quota| quota.by.clone());
        let wanted = self.wanted(to, by.unwrap_or(Wish::Minimum));
        let (policy, now) = (self.policy, self.now);
        guard(self.real, Some(self.persona), carried, &wanted, policy, now)
    }

    fn wanted(&self, to: u64, by: Wish) -> Wanted {
        Wanted {
            resource: Resource::Vcpus,
            to,
            by,
            priority: 0,
            cooldown: std::time::Duration::ZERO,
            // Whatever it rests on was looked at when the cap was decided.
            evidence: Source::Host,
            effect: None,
        }
    }

    /// A wish as a cap could follow it: within the same bounds, but for those of the mechanism.
    fn by_cap(&self, wanted: &Wanted, carried: &DomainState, proposals: &mut Proposals) -> Guarded {
        let domain = Domain {
            vcpus: Vcpus {
                fixed: 1,
                ability: Ability::Both,
                ..self.felt.vcpus
            },
            ..*self.felt
        };
        let vcpus = &carried.vcpus;
        let carried = DomainState {
            vcpus: ResourceState {
                changed_at: vcpus.changed_at,
                in_flight: vcpus.in_flight.clone(),
                held_until: vcpus.held_until,
                held_by: vcpus.held_by.clone(),
                vetoes: vcpus.vetoes.clone(),
                ..ResourceState::default()
            },
            ..DomainState::default()
        };
        let (policy, now) = (self.policy, self.now);
        let Guarded {
            outcome,
            mut clamps,
        } = guard(&domain, Some(self.persona), &carried, wanted, policy, now);
        let mut wanted = wanted.clone();
        let outcome = outcome.and_then(|to| {
            let (persona, rules) = (self.persona, self.rules);
            proposals.step(
                &domain,
                persona,
                &mut wanted,
                to,
                &mut clamps,
                rules,
                policy,
                now,
            )
        });
        Guarded { outcome, clamps }
    }

    /// From now on the domain shall have so many CPUs. It counts as a change of vCPUs: the cooldown runs, and what was
    /// measured before says nothing of what is.
    fn set(&self, wanted: &Wanted, by: Wish, to: u64, carried: &mut DomainState) {
        let before = self.felt.present(Resource::Vcpus);
        let over = (to >= self.real.present(Resource::Vcpus)).then_some(self.now);
        carried.quota = Some(Quota { cpus: to, by, over });
        carried.vcpus.changed_at = Some(self.now);
        for rule in &mut carried.rules {
            if rule.touches.contains(&Resource::Vcpus) {
                rule.holds.clear();
            }
        }
        if let Some(rule) = &wanted.effect {
            let known =
                |effect: &Effect| effect.rule == *rule && effect.resource == Resource::Vcpus;
            if !carried.effects.iter().any(known) {
                carried.effects.push(Effect {
                    rule: rule.clone(),
                    resource: Resource::Vcpus,
                    before,
                    undoing: false,
                });
            }
        }
    }
}
