//! One whole pass: every domain evaluated and guarded, all growth arbitrated against the host's budget, and the steps
//! to take, decreases first. A step leaves no choice to who carries it out.

use persona::domain::DomainId;
use persona::rule::{Action, Resource};
use persona::signal::{Metric, Source};
use persona::units::{Bytes, Moment};
use persona::{Class, Level};
use serde::{Deserialize, Serialize};

use crate::arbitrate::{Claim, arbitrate};
use crate::evaluate::{SinceChange, Wanted, bounds, evaluate};
use crate::guard::guard;
use crate::policy::Policy;
use crate::report::{
    Clamp, DomainReport, HostReport, Idle, Limit, Reason, ResourceReport, Verdict, Wish,
};
use crate::snapshot::{Domain, Run, Snapshot};
use crate::state::{DomainState, State};

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
    /// What rules want done once: all but changes of vCPUs and memory.
    pub calls: Vec<Call>,
    /// The host's ledger after this plan.
    pub host: HostReport,
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
    /// Who wanted it.
    pub by: Wish,
    /// The rule whose effect will be undone later.
    pub effect: Option<String>,
}

/// A change by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// Which domain.
    pub domain: DomainId,
    /// Which resource.
    pub resource: Resource,
    /// What the daemon had asked for or seen last.
    pub from: u64,
    /// What is asked for now.
    pub to: u64,
    /// Respected until then.
    pub until: Moment,
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
}

/// Whether a rule's action is to be done or to be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Edge {
    /// The rule's condition has become true.
    Begins,
    /// The rule's `until` has become true.
    Ends,
}

/// Growth that waits for arbitration.
struct Growth {
    report: usize,
    domain: usize,
    wanted: Wanted,
    to: u64,
    clamps: Vec<Clamp>,
}

/// Makes the plan for one moment. Windows, drift and effects in `state` advance; steps are in flight only once
/// [`State::begin`] says so.
pub fn plan(snapshot: &Snapshot<'_>, state: &mut State, policy: &Policy, now: Moment) -> Plan {
    let mut reports = Vec::with_capacity(snapshot.domains.len());
    let (mut decreases, mut increases) = (Vec::new(), Vec::new());
    let (mut drifts, mut calls) = (Vec::new(), Vec::new());
    let mut growth = Vec::new();
    for (index, domain) in snapshot.domains.iter().enumerate() {
        let mut report = DomainReport {
            domain: domain.id,
            at: now,
            idle: idle(domain),
            rules: Vec::new(),
            resources: Vec::new(),
        };
        if domain.run == Run::Off {
            // What is carried belongs to the running machine; cooldowns of the last run say nothing of the next.
            state.forget(domain.id);
        } else if let (None | Some(Idle::Paused), Some(persona)) = (report.idle, domain.persona) {
            let carried = state.domains.entry(domain.id).or_default();
            notice_restart(domain, carried);
            notice_drift(domain, carried, policy, now, &mut drifts);
            let since_change = SinceChange {
                signals: domain.signals,
                vcpus: carried.vcpus.changed_at,
                memory: carried.memory.changed_at,
            };
            let domain = &Domain {
                signals: &since_change,
                ..*domain
            };
            let evaluation = evaluate(domain, persona, carried, now);
            report.rules = evaluation.rules;
            calls.extend(
                evaluation
                    .calls
                    .into_iter()
                    .map(|(rule, action, edge)| Call {
                        domain: domain.id,
                        rule,
                        action,
                        edge,
                    }),
            );
            if report.idle.is_some() {
                // What a pause calls for is called for; the machine itself waits until it runs again.
                reports.push(report);
                continue;
            }
            for resource in [Resource::Vcpus, Resource::Memory] {
                let wanted = evaluation
                    .wanted
                    .iter()
                    .find(|wanted| wanted.resource == resource)
                    .cloned();
                let present = domain.present(resource);
                let mut line = ResourceReport {
                    resource,
                    present,
                    wanted: wanted.as_ref().map(|wanted| wanted.to),
                    by: wanted.as_ref().map(|wanted| wanted.by.clone()),
                    clamps: Vec::new(),
                    verdict: Verdict::Content,
                };
                if let Some(wanted) = wanted {
                    let guarded = guard(domain, persona, carried, &wanted, policy, now);
                    line.clamps = guarded.clamps.clone();
                    match guarded.outcome {
                        Err(reason) => line.verdict = Verdict::No(reason),
                        Ok(to) if to < present => {
                            line.verdict = Verdict::Step(to);
                            decreases.push(step(domain, &wanted, to));
                        }
                        Ok(to) => growth.push(Growth {
                            report: index,
                            domain: index,
                            wanted,
                            to,
                            clamps: guarded.clamps,
                        }),
                    }
                }
                report.resources.push(line);
            }
        }
        reports.push(report);
    }
    let mut granted = [0, 0];
    for (slot, resource) in [Resource::Vcpus, Resource::Memory].into_iter().enumerate() {
        granted[slot] = grant(
            snapshot,
            state,
            policy,
            resource,
            &growth,
            &mut reports,
            &mut increases,
        );
    }
    decreases.extend(increases);
    Plan {
        at: now,
        steps: decreases,
        reports,
        drifts,
        calls,
        host: HostReport {
            budget: snapshot.host,
            vcpus_granted: granted[0],
            memory_granted: granted[1],
        },
    }
}

fn idle(domain: &Domain<'_>) -> Option<Idle> {
    match (domain.run, domain.persona) {
        (Run::Off, _) => Some(Idle::NotRunning),
        (_, None) => Some(Idle::NoPersona),
        (Run::Paused, _) => Some(Idle::Paused),
        (Run::Running, Some(_)) => None,
    }
}

fn step(domain: &Domain<'_>, wanted: &Wanted, to: u64) -> Step {
    Step {
        domain: domain.id,
        instance: domain.instance,
        resource: wanted.resource,
        from: domain.present(wanted.resource),
        to,
        by: wanted.by.clone(),
        effect: wanted.effect.clone(),
    }
}

/// What an earlier running instance showed says nothing of this one.
fn notice_restart(domain: &Domain<'_>, carried: &mut DomainState) {
    if carried.instance != domain.instance {
        *carried = DomainState {
            instance: domain.instance,
            ..DomainState::default()
        };
    }
}

/// A change that the daemon did not ask for is somebody's will, and respected for a while.
fn notice_drift(
    domain: &Domain<'_>,
    carried: &mut DomainState,
    policy: &Policy,
    now: Moment,
    drifts: &mut Vec<Drift>,
) {
    for resource in [Resource::Vcpus, Resource::Memory] {
        let asked = domain.asked(resource);
        let slot = carried.resource_mut(resource);
        if slot.in_flight.is_some() {
            continue;
        }
        let before = slot.asked.replace(asked);
        let Some(from) = before.filter(|before| *before != asked) else {
            continue;
        };
        // A guest that follows its target late is no hand.
        let follows = slot
            .target
            .is_some_and(|target| (from.min(target)..=from.max(target)).contains(&asked));
        let small =
            resource == Resource::Memory && from.abs_diff(asked) < policy.memory_change_minimum.0;
        if follows || small {
            continue;
        }
        let until = now.after(policy.hold);
        slot.held_until = Some(until);
        // The hand's word counts now; an old target would make the next change by hand look like a late guest.
        slot.target = None;
        drifts.push(Drift {
            domain: domain.id,
            resource,
            from,
            to: asked,
            until,
        });
    }
}

/// What a step that has ended granted, while the guest's last report is from before it: the old report shows less than
/// the guest has, and the ledger must never be too low.
fn unreported(domain: &Domain<'_>, state: &DomainState, resource: Resource) -> u64 {
    let slot = state.resource(resource);
    let (Resource::Vcpus, Some(changed)) = (resource, slot.changed_at) else {
        return 0;
    };
    let told = domain
        .signals
        .reading(Metric::VcpuCount)
        .is_some_and(|reading| reading.at >= changed);
    if told || domain.run == Run::Off || state.instance != domain.instance {
        return 0;
    }
    slot.target
        .unwrap_or(0)
        .min(u64::from(domain.vcpus.maximum))
}

/// Arbitrates all growth of one resource; returns what is granted in all.
fn grant(
    snapshot: &Snapshot<'_>,
    state: &State,
    policy: &Policy,
    resource: Resource,
    growth: &[Growth],
    reports: &mut [DomainReport],
    steps: &mut Vec<Step>,
) -> u64 {
    let wishes: Vec<&Growth> = growth
        .iter()
        .filter(|growth| growth.wanted.resource == resource)
        .collect();
    let mut claims: Vec<Claim> = Vec::with_capacity(snapshot.domains.len());
    let mut of_domain: Vec<Option<&Growth>> = vec![None; snapshot.domains.len()];
    for &wish in &wishes {
        of_domain[wish.domain] = Some(wish);
    }
    for (domain, wish) in snapshot.domains.iter().zip(of_domain) {
        let bounds = domain.persona.and_then(|persona| bounds(persona, resource));
        let flight = state
            .domain(domain.id)
            .and_then(|state| state.resource(resource).in_flight.as_ref());
        let held = domain
            .held(resource)
            .max(flight.map_or(0, |flight| flight.to))
            .max(
                state
                    .domain(domain.id)
                    .map_or(0, |state| unreported(domain, state, resource)),
            );
        // The ledger counts in the budget's units, the domain in its own.
        let weight = domain.weight(resource);
        let granule = match resource {
            Resource::Vcpus => 1,
            Resource::Memory => domain.memory.block.0.max(policy.memory_change_minimum.0),
        };
        claims.push(Claim {
            domain: domain.id,
            held: held.saturating_mul(weight),
            wanted: wish
                .map_or(held, |wish| wish.to.max(held))
                .saturating_mul(weight),
            reservation: if domain.run == Run::Off {
                0
            } else {
                bounds.map_or(0, |bounds| bounds.reservation.saturating_mul(weight))
            },
            share: bounds.map_or(1000, |bounds| bounds.share),
            granule: granule.saturating_mul(weight),
        });
    }
    let budget = snapshot.host.budget(resource);
    let grants = arbitrate(budget, &claims);
    let contested = claims
        .iter()
        .zip(&grants)
        .any(|(claim, grant)| grant.granted < claim.wanted);
    for wish in wishes {
        let domain = &snapshot.domains[wish.domain];
        let (claim, grant) = (&claims[wish.domain], &grants[wish.domain]);
        let present = domain.present(resource);
        let weight = domain.weight(resource);
        let granted = (grant.granted / weight).min(wish.to);
        let line = reports[wish.report]
            .resources
            .iter_mut()
            .find(|line| line.resource == resource);
        // Every growth came out of a line of this very report.
        let Some(line) = line else { continue };
        let mut clamps = wish.clamps.clone();
        if granted < wish.to {
            clamps.push(Clamp {
                limit: Limit::Budget,
                from: wish.to,
                to: granted,
            });
        }
        line.clamps = clamps;
        let trusted = domain.persona.map_or(Level::None, |persona| {
            persona.trust.level(Class::ResourceScaling)
        });
        let least = (claim.granule / weight).min(wish.to - present);
        line.verdict = if granted < present.saturating_add(least) {
            Verdict::No(Reason::Budget {
                budget,
                others: grant.others,
            })
        } else if trusted == Level::Medium && wish.wanted.evidence != Source::Host && contested {
            Verdict::No(Reason::GuestClaim)
        } else {
            steps.push(step(domain, &wish.wanted, granted));
            Verdict::Step(granted)
        };
    }
    grants
        .iter()
        .map(|grant| grant.granted)
        .fold(0, u64::saturating_add)
}

impl Step {
    /// One line for the audit: what, from where, to where, by whom.
    pub fn sentence(&self) -> String {
        use crate::report::amount_text;
        format!(
            "{} -> {} because of {}",
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
