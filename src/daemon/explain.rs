//! Why a domain did or did not change: the last plan's report of it, in the words of people. Every figure comes with its
//! source and age, every limit with its sentence.

use persona::rule::{Looked, Resource, Truth};
use persona::signal::{Signal, Source};
use persona::units::Moment;
use planner::report::{
    Clamp, DomainReport, ResourceReport, RuleReport, Verdict, Wish, amount_text,
};

use super::tracked::Tracked;
use super::{limits, show, tick};
use crate::observe::Readings;
use crate::view::{
    ActionView, ClampView, ExplainView, LookedView, OriginView, ProposalState, ProposalView,
    ResourceView, RuleState, RuleView, TruthWord,
};

/// Explains the last tick of a domain.
pub(super) fn explain(tracked: &Tracked, proposals: &[ProposalView], now: Moment) -> ExplainView {
    let description = &tracked.description;
    let report = tracked.report.as_ref();
    let rules = report.map_or_else(Vec::new, |report| {
        report
            .rules
            .iter()
            .map(|rule| {
                let origin = origin(tracked, &rule.name);
                let view = rule_view(rule, report, proposals, &tracked.readings);
                RuleView {
                    line: origin
                        .as_ref()
                        .map_or(view.line, |origin| Some(origin.line)),
                    origin,
                    ..view
                }
            })
            .collect()
    });
    let resources = report.map_or_else(Vec::new, |report| {
        report
            .resources
            .iter()
            .map(|line| resource_view(line, tracked))
            .collect()
    });
    ExplainView {
        domain: description.id,
        name: description.name.clone(),
        at: report.map_or(now, |report| report.at),
        summary: summary(tracked),
        persona: tracked.persona.bound.clone(),
        problems: tracked.persona.problem.iter().cloned().collect(),
        rules,
        resources,
        limits: report.map_or_else(Vec::new, |report| {
            report
                .limits
                .iter()
                .map(|line| limits::limit_view(line, tracked))
                .collect()
        }),
    }
}

/// Where a rule was written.
fn origin(tracked: &Tracked, rule: &str) -> Option<OriginView> {
    let layers = tracked.persona.layers.as_ref()?;
    persona::origin_of(&layers.values, &format!("rules[{rule}]")).map(OriginView::from)
}

fn summary(tracked: &Tracked) -> String {
    let Some(report) = &tracked.report else {
        return "the domain has not been looked at yet".into();
    };
    let lines = report.resources.iter().map(verdict_text);
    let parts: Vec<String> = lines.chain(limits::unsettled(report)).collect();
    if let Some(idle) = report.idle {
        // What goes back after a persona has gone is told with that.
        let idle = std::iter::once(idle.to_string());
        return idle.chain(parts).collect::<Vec<_>>().join("; ");
    }
    if parts.is_empty() {
        "the persona manages neither vCPUs nor memory".into()
    } else {
        parts.join("; ")
    }
}

pub(super) fn verdict_text(line: &ResourceReport) -> String {
    let name = tick::resource_name(line.resource);
    let present = amount_text(line.resource, line.present);
    let (stay, go) = match line.resource {
        Resource::Vcpus => ("stay", "go"),
        Resource::Memory => ("stays", "goes"),
    };
    match &line.verdict {
        Verdict::Content => format!("{name} {stay} at {present}, because nothing wants a change"),
        Verdict::Step(to) => {
            let by = line
                .by
                .as_ref()
                .map_or_else(String::new, |by| format!(" because of {by}"));
            format!(
                "{name} {go} from {present} to {}{by}",
                amount_text(line.resource, *to)
            )
        }
        Verdict::No(reason) => {
            let wish = match (&line.by, line.wanted) {
                (Some(by), Some(wanted)) => {
                    format!(
                        " although {by} wants {}",
                        amount_text(line.resource, wanted)
                    )
                }
                _ => String::new(),
            };
            format!(
                "{name} {stay} at {present}{wish}, because {}",
                reason.sentence(line.resource)
            )
        }
    }
}

fn rule_view(
    rule: &RuleReport,
    report: &DomainReport,
    proposals: &[ProposalView],
    readings: &Readings,
) -> RuleView {
    let line = report.resources.iter().find(
        |line| matches!(&line.by, Some(Wish::Rule(name) | Wish::Undo(name)) if *name == rule.name),
    );
    let of_rule = || {
        let rule = Some(rule.name.as_str());
        proposals
            .iter()
            .filter(move |proposal| proposal.rule.as_deref() == rule)
    };
    let undoing = line.is_some_and(|line| matches!(line.by, Some(Wish::Undo(_))));
    let (state, detail) = match (rule.truth, line, rule.cooldown_left) {
        _ if undoing => (RuleState::Undoing, line.map(verdict_text)),
        (Truth::True, _, Some(left)) => (
            RuleState::Cooldown,
            Some(format!("for another {} s", left.as_secs_f64().ceil())),
        ),
        (Truth::True, Some(line), None) => match &line.verdict {
            Verdict::Step(_) => (RuleState::Fired, Some(verdict_text(line))),
            _ => (RuleState::Blocked, Some(verdict_text(line))),
        },
        (Truth::True, None, None) if of_rule().next().is_some() => {
            let texts: Vec<String> = of_rule().map(proposed_text).collect();
            (RuleState::Blocked, Some(texts.join("; ")))
        }
        (Truth::True, None, None) => (
            RuleState::Blocked,
            Some("what it wants is there already, or another rule goes before it".into()),
        ),
        _ => (RuleState::Quiet, None),
    };
    RuleView {
        name: rule.name.to_string(),
        text: rule.text.to_string(),
        line: Some(rule.line),
        origin: None,
        truth: truth(rule.truth),
        state,
        detail,
        wants: line
            .and_then(|line| line.wanted.map(|wanted| amount_text(line.resource, wanted)))
            .into_iter()
            .collect(),
        looked: rule
            .looked
            .iter()
            .map(|looked| looked_view(looked, rule.demands, report.at, readings))
            .collect(),
    }
}

/// A comparison. Why a figure is not known is told by the readings of the same tick.
fn looked_view(
    looked: &Looked,
    demands: Option<Source>,
    at: Moment,
    readings: &Readings,
) -> LookedView {
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).ok();
    LookedView {
        comparison: looked.comparison.to_string(),
        truth: truth(looked.verdict),
        metric: Some(looked.signal.to_string()),
        value: looked.reading.map(|reading| reading.value),
        missing: match (&looked.signal, looked.reading) {
            (Signal::Metric(metric), None) => {
                readings.missing(*metric).map(|reason| reason.to_string())
            }
            (_, Some(reading)) => demands
                .filter(|demanded| reading.source < *demanded)
                .map(|demanded| not_enough(reading.source, demanded)),
            _ => None,
        },
        unit: looked.signal.unit(),
        source: looked.reading.map(|reading| reading.source),
        age_ms: looked
            .reading
            .and_then(|reading| millis(at.since(reading.at))),
        held_ms: looked.held_for.and_then(millis),
        needs_ms: looked.needs.and_then(millis),
    }
}

/// Why a reading that is there does not count.
fn not_enough(source: Source, demanded: Source) -> String {
    format!("the word of {source} is not enough: the rule demands {demanded}")
}

fn proposed_text(proposal: &ProposalView) -> String {
    let ProposalView { id, text, .. } = proposal;
    match proposal.state {
        ProposalState::Open => {
            format!("{text}: proposed as {id}, and `virt-persona approve {id}` lets it be done")
        }
        ProposalState::Approved | ProposalState::Rejected => {
            format!("{text}: decided as {id}")
        }
    }
}

fn truth(truth: Truth) -> TruthWord {
    match truth {
        Truth::True => TruthWord::True,
        Truth::False => TruthWord::False,
        Truth::Unknown => TruthWord::Unknown,
    }
}

fn resource_view(line: &ResourceReport, tracked: &Tracked) -> ResourceView {
    let outcome = tracked.outcome(line.resource);
    ResourceView {
        resource: show::resource(line.resource),
        had: Some(line.present),
        wanted: line.wanted,
        clamps: line.clamps.iter().map(clamp_view).collect(),
        granted: match line.verdict {
            Verdict::Step(to) => Some(to),
            _ => None,
        },
        action: outcome.map(|outcome| ActionView {
            requested: outcome.requested,
            plugged: outcome.plugged,
            guest: outcome.guest,
            outcome: Some(tick::word(outcome.ending)),
            sentence: outcome.sentence(),
        }),
    }
}

fn clamp_view(clamp: &Clamp) -> ClampView {
    let word = tick::json(&clamp.limit);
    ClampView {
        by: word.as_str().unwrap_or_default().to_owned(),
        from: clamp.from,
        to: clamp.to,
        sentence: clamp.limit.to_string(),
    }
}
