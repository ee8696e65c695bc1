//! One whole pass: every domain evaluated and guarded, all wishes settled against the host's budget, and the steps to
//! take, decreases first. A step leaves no choice to who carries it out.

use std::time::Duration;

use persona::domain::DomainId;
pub use persona::rule::Edge;
use persona::rule::{Action, Resource};
use persona::units::{Bytes, Moment};
use serde::{Deserialize, Serialize};

use crate::consent::{Consent, consent};
use crate::donate::watch;
use crate::evaluate::{SinceChange, Wanted, evaluate};
use crate::guard::{Guarded, guard};
use crate::ledger::{Decrease, Growth, Wishes};
use crate::limit::{self, LimitDrift, LimitStep, Turned};
use crate::mechanism::{Means, for_wish, open_way};
use crate::notice::{Drift, Stall, notice_drift, notice_restart, notice_stall};
use crate::offline::{self, BackOnline};
use crate::others::{Other, Stake};
use crate::policy::Policy;
use crate::proposal::{News, Turn};
use crate::quota::{self, Course, Felt, Quota, Seat};
use crate::relief::notice_need;
use crate::report::{Clamp, DomainReport, HostReport, Idle, Reason, ResourceReport, Verdict, Wish};
use crate::restore::Carry;
use crate::settle::{Settled, settle};
use crate::shift;
use crate::snapshot::{Domain, Run, Snapshot};
use crate::state::{DomainState, State};
use crate::trust::Permit;

/// What one pass came to.
#[must_use = "a plan that nobody carries out keeps no machine true to its persona"]
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// When.
    pub at: Moment,
    /// What to do, decreases before increases.
    pub steps: Vec<Step>,
    /// Why, one for each domain.
    pub reports: Vec<DomainReport>,
    /// Changes that somebody made by hand.
    pub drifts: Vec<Drift>,
    /// Guests that are set aside because they do not follow.
    pub stalls: Vec<Stall>,
    /// Guests in which something brought CPUs back online.
    pub back_online: Vec<BackOnline>,
    /// What rules want done once: all but changes of vCPUs and memory.
    pub calls: Vec<Call>,
    /// Domains whose shift of persona is over, because the `until` of the rule behind it holds.
    pub returns: Vec<DomainId>,
    /// What rules want done once and trust forbids.
    pub forbidden: Vec<Call>,
    /// What has become of proposals.
    pub proposals: Vec<News>,
    /// Knobs to turn.
    pub limits: Vec<LimitStep>,
    /// Knobs that somebody turned by hand.
    pub limit_drifts: Vec<LimitDrift>,
    /// Domains of which something changed in what is carried that has to survive a restart, beside what has a step.
    pub noted: Vec<DomainId>,
    /// The host's ledger after this plan.
    pub host: HostReport,
    /// What each domain had at stake, in vCPUs and in memory, in the order of the snapshot.
    pub stakes: [Vec<Stake>; 2],
}

/// One change of one resource of one domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Which domain.
    pub domain: DomainId,
    /// Of which running instance.
    pub instance: Option<u32>,
    /// Which resource.
    pub resource: Resource,
    /// What was in force, in vCPUs or bytes.
    pub from: u64,
    /// What shall be in force.
    pub to: u64,
    /// By what it is changed.
    #[serde(default)]
    pub means: Means,
    /// Who wanted it.
    pub by: Wish,
    /// The rule whose effect will be undone later.
    pub effect: Option<String>,
    /// Whether the guest is asked before, where it becomes smaller.
    #[serde(default)]
    pub consent: Consent,
}

/// What a rule wants done once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Call {
    /// Which domain.
    pub domain: DomainId,
    /// Which rule.
    pub rule: String,
    /// What is to be done, or taken back.
    pub action: Action,
    /// Which of the two.
    pub edge: Edge,
    /// The proposal by which a person wants it, whatever the rule says meanwhile; nothing where the rule alone does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved: Option<u64>,
}

/// How much a plan says beside what is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// What every rule saw, what everybody had at stake, and the host's ledger.
    All,
    /// Nothing of these, and no reasons of proposals: for whoever plays many days and explains none of them.
    Deeds,
}

/// Makes the plan for one moment. Windows, drift and effects in `state` advance; steps are in flight only once
/// [`State::begin`] says so.
pub fn plan(snapshot: &Snapshot<'_>, state: &mut State, policy: &Policy, now: Moment) -> Plan {
    plan_among(snapshot, &[], state, policy, now, Detail::All)
}

/// As [`plan`], with the claims of domains that are not in the snapshot: how a single domain's recording is played. What
/// is to be done does not depend on `detail`.
pub fn plan_among(
    snapshot: &Snapshot<'_>,
    others: &[Other],
    state: &mut State,
    policy: &Policy,
    now: Moment,
    detail: Detail,
) -> Plan {
    let mut reports = Vec::with_capacity(snapshot.domains.len());
    let (mut drifts, mut stalls) = (Vec::new(), Vec::new());
    let mut back_online = Vec::new();
    let (mut calls, mut forbidden) = (Vec::new(), Vec::new());
    let mut returns = Vec::new();
    let mut turned = Turned::default();
    let mut wishes = Wishes {
        growth: Vec::new(),
        decreases: Vec::new(),
    };
    state.host.advance(&snapshot.strain, policy);
    state.proposals.expire(now);
    for (index, domain) in snapshot.domains.iter().enumerate() {
        let mut report = DomainReport {
            domain: domain.id,
            at: now,
            idle: idle(domain),
            rules: Vec::new(),
            resources: Vec::new(),
            limits: Vec::new(),
        };
        if matches!(domain.run, Run::Off | Run::Starting) {
            // What is carried belongs to the running machine; cooldowns of the last run say nothing of the next.
            state.rest(domain.id, now);
            state.proposals.leave(domain.id, Turn::NotRunning);
        } else if report.idle == Some(Idle::NoPersona) {
            state.proposals.leave(domain.id, Turn::PersonaChanged);
            if domain.run == Run::Running
                && let Some(carried) = state.domains.get_mut(&domain.id)
            {
                let carry = Carry {
                    index,
                    domain,
                    carried,
                    policy,
                    now,
                };
                carry.back(
                    &mut report,
                    &mut wishes,
                    &mut drifts,
                    &mut stalls,
                    &mut turned,
                );
            }
        } else if let (None | Some(Idle::Paused), Some(persona)) = (report.idle, domain.persona) {
            let carried = state.domains.entry(domain.id).or_default();
            notice_restart(domain, carried, now);
            notice_drift(domain, carried, policy, now, &mut drifts);
            notice_stall(domain, carried, policy, now, &mut stalls);
            offline::notice(domain, carried, policy, now, &mut back_online);
            let since_change = SinceChange::of(domain, carried);
            let domain = &Domain {
                signals: &since_change,
                ..*domain
            };
            watch(domain, carried, policy, now);
            notice_need(domain, carried, policy, now);
            if shift::over(domain, carried, now) {
                returns.push(domain.id);
            }
            let granted = domain.present(Resource::Memory);
            let domain = &open_way(domain, carried, now);
            let mut noted = quota::review(domain, persona, carried, now);
            let (real, capped) = (domain, Felt::of(domain, carried));
            let domain = &capped.domain(real);
            let evaluation = evaluate(domain, persona, carried, policy, now, detail);
            noted |= carried.keep_latches(persona);
            report.rules = evaluation.rules;
            let proposals = &mut state.proposals;
            // What was said of another persona or machine is not carried out on this one.
            proposals.keep_to(domain, persona);
            for (rule, action, edge) in evaluation.calls {
                let asked = (rule.as_str(), &action, edge);
                let permit = proposals.call(domain, persona, asked, &report.rules, policy, now);
                let call = Call {
                    domain: domain.id,
                    rule,
                    action,
                    edge,
                    approved: None,
                };
                match permit {
                    Permit::Act => calls.push(call),
                    // What was forbidden to begin has nothing to take back.
                    Permit::Never if edge == Edge::Begins => forbidden.push(call),
                    Permit::Never | Permit::Propose => {}
                }
            }
            calls.extend(proposals.approved_calls(domain.id, persona));
            if report.idle.is_some() {
                // What a pause calls for is called for; the machine itself waits until it runs again.
                if noted {
                    turned.noted.push(domain.id);
                }
                reports.push(report);
                continue;
            }
            let seen = (evaluation.wanted.as_slice(), report.rules.as_slice());
            proposals.review(domain, persona, carried, seen, policy, now);
            for resource in [Resource::Vcpus, Resource::Memory] {
                let wanted = evaluation
                    .wanted
                    .iter()
                    .find(|wanted| wanted.resource == resource)
                    .cloned();
                let mut line = line(real, resource, wanted.as_ref());
                let course = match resource {
                    Resource::Vcpus => {
                        let seat = Seat {
                            real,
                            felt: domain,
                            persona,
                            rules: &report.rules,
                            policy,
                            now,
                        };
                        let before = carried.quota.clone();
                        let course = seat.course(wanted.as_ref(), carried, proposals);
                        noted |= before != carried.quota;
                        course
                    }
                    Resource::Memory => Course::Usual,
                };
                let wanted = match course {
                    Course::Usual => wanted,
                    Course::Said(clamps, reason) => {
                        line.is_capped(clamps, reason, carried.quota.as_ref());
                        None
                    }
                    Course::Removal(wanted, guarded) => {
                        line.wanted = Some(wanted.to);
                        line.by = Some(wanted.by.clone());
                        let slot = carried.resource(resource);
                        let consent = consent(&wanted.by, slot, policy, now);
                        wishes.take(index, real, wanted, guarded, consent, &mut line);
                        None
                    }
                };
                if let Some(wanted) = wanted {
                    let (fitted, mut wanted) = for_wish(domain, &wanted);
                    let domain = &fitted;
                    let guarded = guard(domain, Some(persona), carried, &wanted, policy, now);
                    let Guarded {
                        outcome,
                        mut clamps,
                    } = guarded;
                    // What was asked for and never came is granted already.
                    let pending = |to: &u64| {
                        resource == Resource::Memory && (line.present..=granted).contains(to)
                    };
                    let outcome = match outcome {
                        Ok(to) if pending(&to) => Err(stuck(carried, now)),
                        outcome => outcome,
                    };
                    let outcome = outcome.and_then(|to| {
                        let (clamps, rules) = (&mut clamps, &report.rules);
                        proposals.step(domain, persona, &mut wanted, to, clamps, rules, policy, now)
                    });
                    let consent = consent(&wanted.by, carried.resource(resource), policy, now);
                    let guarded = Guarded { outcome, clamps };
                    wishes.take(index, domain, wanted, guarded, consent, &mut line);
                }
                report.resources.push(line);
            }
            let voice = limit::Voice {
                persona,
                rules: &report.rules,
                proposals,
            };
            let knobs = limit::decide(real, Some(voice), &evaluation.turns, carried, policy, now);
            report.limits = turned.take(domain.id, knobs);
            noted |= quota::settle(carried, &report.limits);
            if noted {
                turned.noted.push(domain.id);
            }
        }
        reports.push(report);
    }
    let Settled {
        steps,
        host,
        stakes,
    } = if detail == Detail::Deeds && alone(snapshot, others) && wishes.is_empty() {
        Settled::nothing(snapshot.host)
    } else {
        settle(snapshot, others, state, policy, now, wishes, &mut reports)
    };
    propose_claims(snapshot, state, policy, now, &mut reports);
    Plan {
        at: now,
        steps,
        reports,
        drifts,
        stalls,
        back_online,
        calls,
        returns,
        forbidden,
        proposals: state.proposals.take_news(),
        limits: turned.steps,
        limit_drifts: turned.drifts,
        noted: turned.noted,
        host,
        stakes,
    }
}

/// Whether there is nobody who could give anything to anybody.
fn alone(snapshot: &Snapshot<'_>, others: &[Other]) -> bool {
    snapshot.domains.len() + others.len() < 2
}

/// What only a guest claims, and others would give way for, is put to a person.
fn propose_claims(
    snapshot: &Snapshot<'_>,
    state: &mut State,
    policy: &Policy,
    now: Moment,
    reports: &mut [DomainReport],
) {
    for (domain, report) in snapshot.domains.iter().zip(reports) {
        for line in &mut report.resources {
            if let (Verdict::No(Reason::GuestClaim), Some(by), Some(wanted), Some(persona)) =
                (&line.verdict, &line.by, line.wanted, domain.persona)
            {
                let claim = (by, line.resource, wanted);
                let (clamps, rules) = (&line.clamps, &report.rules);
                let proposals = &mut state.proposals;
                let reason = proposals.claim(domain, persona, claim, clamps, rules, policy, now);
                line.verdict = Verdict::No(reason);
            }
        }
    }
}

fn idle(domain: &Domain<'_>) -> Option<Idle> {
    match (domain.run, domain.persona) {
        (Run::Off | Run::Starting, _) => Some(Idle::NotRunning),
        (_, None) => Some(Idle::NoPersona),
        (Run::Paused, _) => Some(Idle::Paused),
        (Run::Running, Some(_)) => None,
    }
}

/// Why nothing is done with a mechanism that is left alone.
fn stuck(carried: &DomainState, now: Moment) -> Reason {
    let until = carried.memory.quarantined_until;
    Reason::Quarantined {
        left: until.map_or(Duration::ZERO, |until| until.since(now)),
    }
}

fn means(domain: &Domain<'_>, resource: Resource) -> Means {
    match resource {
        Resource::Vcpus => Means::Usual,
        Resource::Memory => domain.memory.means,
    }
}

/// The line of a resource before anything is decided about it.
pub(crate) fn line(
    domain: &Domain<'_>,
    resource: Resource,
    wanted: Option<&Wanted>,
) -> ResourceReport {
    ResourceReport {
        resource,
        present: domain.present(resource),
        wanted: wanted.map(|wanted| wanted.to),
        by: wanted.map(|wanted| wanted.by.clone()),
        clamps: Vec::new(),
        verdict: Verdict::Content,
    }
}

impl ResourceReport {
    /// vCPUs of which a cap takes the part, and who wants that.
    fn is_capped(&mut self, clamps: Vec<Clamp>, reason: Reason, quota: Option<&Quota>) {
        if let Some(quota) = quota.filter(|_| self.by.is_none()) {
            self.wanted = Some(quota.cpus);
            self.by = Some(quota.by.clone());
        }
        self.clamps = clamps;
        self.verdict = Verdict::No(reason);
    }
}

impl Wishes {
    /// Takes a wish that was put within its limits: a decrease is a step, and growth waits for the ledger.
    pub(crate) fn take(
        &mut self,
        index: usize,
        domain: &Domain<'_>,
        wanted: Wanted,
        guarded: Guarded,
        consent: Consent,
        line: &mut ResourceReport,
    ) {
        line.clamps = guarded.clamps;
        match guarded.outcome {
            Err(reason) => line.verdict = Verdict::No(reason),
            Ok(to) if to < line.present => {
                line.verdict = Verdict::Step(to);
                self.decreases.push(Decrease {
                    domain: index,
                    step: Step {
                        consent,
                        ..step(domain, &wanted, to)
                    },
                });
            }
            Ok(to) => self.growth.push(Growth {
                domain: index,
                means: means(domain, line.resource),
                wanted,
                to,
            }),
        }
    }
}

fn step(domain: &Domain<'_>, wanted: &Wanted, to: u64) -> Step {
    Step {
        domain: domain.id,
        instance: domain.instance,
        resource: wanted.resource,
        from: domain.present(wanted.resource),
        to,
        means: means(domain, wanted.resource),
        by: wanted.by.clone(),
        effect: wanted.effect.clone(),
        consent: Consent::Asked,
    }
}

impl Step {
    /// One line for the audit: what, from where, to where, by whom.
    pub fn sentence(&self) -> String {
        use crate::report::amount_text;
        let by_what = match self.means {
            Means::Usual => "",
            Means::Balloon => " by the balloon, since the memory device is stuck,",
            Means::Dimm => " by a DIMM, which stays until the domain ends,",
        };
        format!(
            "{} -> {}{by_what} because of {}",
            amount_text(self.resource, self.from),
            amount_text(self.resource, self.to),
            self.by
        )
    }

    /// The amount of memory asked for, where the step is one of memory.
    pub fn memory(&self) -> Option<Bytes> {
        (self.resource == Resource::Memory).then_some(Bytes(self.to))
    }
}
