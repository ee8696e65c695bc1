//! Decisions and activations for people: `apply`, `deactivate`, the plan of a dry run, and `explain`.

use std::io;
use std::time::Duration;

use super::*;

/// `apply`, `deactivate`.
pub(in crate::cli) fn applied(screen: &mut Screen, applied: &AppliedView) -> io::Result<()> {
    let persona = applied
        .persona
        .as_ref()
        .map_or_else(|| "no persona".to_owned(), bound);
    let state = screen.colour().paint(
        activation_style(applied.activation.state),
        &clean(&activation(&applied.activation)),
    );
    screen.line(&format!(
        "{}: {}, {state}",
        clean(&applied.name),
        clean(&persona)
    ))
}

/// `retire`.
pub(in crate::cli) fn retired(screen: &mut Screen, retired: &RetiredView) -> io::Result<()> {
    if retired.left.is_empty() {
        return screen.line("nothing is left to be given back; the daemon manages nothing");
    }
    screen.line("the daemon manages nothing any more; what is left to be given back:")?;
    for sentence in &retired.left {
        screen.line(&format!("  {}", clean(sentence)))?;
    }
    Ok(())
}

/// `apply --dry-run`.
pub(in crate::cli) fn plan(screen: &mut Screen, plan: &PlanView) -> io::Result<()> {
    screen.heading(&clean(&format!(
        "{} with {}@{}",
        plan.name, plan.persona, plan.version
    )))?;
    let mut table = Table::new(&["VALUE", "NOW", "THEN", "FROM"]);
    for line in &plan.lines {
        let style = if line.now == line.then {
            Style::Dim
        } else {
            Style::Plain
        };
        table.row(vec![
            Cell::styled(style, &line.subject),
            Cell::maybe(line.now.as_deref()),
            Cell::maybe(line.then.as_deref()),
            Cell::styled(style, &line.from),
        ]);
    }
    screen.table(&table)?;
    for obstacle in &plan.obstacles {
        let text = screen.colour().paint(Style::Warning, &clean(obstacle));
        screen.line(&text)?;
    }
    Ok(())
}

/// `explain`.
pub(in crate::cli) fn explain(screen: &mut Screen, explain: &ExplainView) -> io::Result<()> {
    screen.heading(&clean(&explain.summary))?;
    let persona = explain
        .persona
        .as_ref()
        .map_or_else(|| "no persona".to_owned(), bound);
    let tick = format!(
        "{}, {persona}, tick of {}",
        explain.name,
        time::moment(explain.at)
    );
    let tick = screen.colour().paint(Style::Dim, &clean(&tick));
    screen.line(&tick)?;
    for problem in &explain.problems {
        let problem = screen.colour().paint(Style::Bad, &clean(problem));
        screen.line(&problem)?;
    }
    let own = explain
        .persona
        .as_ref()
        .map(|persona| format!("{}@{}", persona.name, persona.version));
    for rule in &explain.rules {
        screen.line("")?;
        let line = rule
            .line
            .map_or_else(String::new, |line| format!(", line {line}"));
        // The document is named where it is another than the persona's own.
        let of = match &rule.origin {
            Some(origin) if Some(&origin.document) != own.as_ref() => match &origin.tag {
                Some(tag) => format!(" of the {} of tag {tag}", origin.document),
                None => format!(" of {}", origin.document),
            },
            _ => String::new(),
        };
        let line = clean(&format!("{line}{of}"));
        let truth = screen
            .colour()
            .paint(truth_style(rule.truth), &word(&rule.truth));
        screen.line(&format!(
            "rule {}{line}: {truth}, {}",
            clean(&rule.name),
            word(&rule.state)
        ))?;
        let text = screen.colour().paint(Style::Dim, &clean(&rule.text));
        screen.line(&format!("  {text}"))?;
        for looked in &rule.looked {
            let mut text = format!("{}: {}", looked.comparison, word(&looked.truth));
            match (looked.value, looked.unit) {
                (Some(value), Some(unit)) => text.push_str(&format!(", {}", quantity(value, unit))),
                (None, _) if looked.metric.is_some() => text.push_str(", value not known"),
                _ => {}
            }
            if let Some(reason) = &looked.missing {
                text.push_str(&format!(" because {reason}"));
            }
            if let Some(source) = looked.source {
                text.push_str(&format!(" by {}", word(&source)));
            }
            if let Some(age) = looked.age_ms {
                text.push_str(&format!(
                    ", {} old",
                    time::duration(Duration::from_millis(age))
                ));
            }
            if let Some(needs) = looked.needs_ms {
                let held = Duration::from_millis(looked.held_ms.unwrap_or(0));
                text.push_str(&format!(
                    ", held for {} of {}",
                    time::duration(held),
                    time::duration(Duration::from_millis(needs))
                ));
            }
            screen.line(&format!("  looked at {}", clean(&text)))?;
        }
        for want in &rule.wants {
            screen.line(&format!("  wants {}", clean(want)))?;
        }
        if let Some(detail) = &rule.detail {
            screen.line(&format!("  {}", clean(detail)))?;
        }
    }
    for resource in &explain.resources {
        screen.line("")?;
        let kind = resource.resource;
        let wanted = resource.wanted.map_or_else(
            || "no change wanted".to_owned(),
            |wanted| format!("{} wanted", amount(wanted, kind)),
        );
        let had = resource
            .had
            .map_or_else(|| "?".to_owned(), |had| amount(had, kind));
        screen.line(&format!("{}: had {had}, {wanted}", word(&kind)))?;
        for clamp in &resource.clamps {
            screen.line(&format!(
                "  {} to {}: {}",
                amount(clamp.from, kind),
                amount(clamp.to, kind),
                clean(&clamp.sentence)
            ))?;
        }
        if let Some(granted) = resource.granted {
            screen.line(&format!("  granted {}", amount(granted, kind)))?;
        }
        if let Some(action) = &resource.action {
            screen.line(&format!("  {}", clean(&action.sentence)))?;
        }
    }
    for limit in &explain.limits {
        screen.line("")?;
        screen.line(&clean(&limit.sentence))?;
        if let Some(original) = &limit.original {
            screen.line(&format!(
                "  before the daemon changed it: {}",
                clean(original)
            ))?;
        }
        if let Some(action) = &limit.action {
            screen.line(&format!("  {}", clean(&action.sentence)))?;
        }
    }
    Ok(())
}

fn truth_style(truth: TruthWord) -> Style {
    match truth {
        TruthWord::True => Style::Good,
        TruthWord::False => Style::Plain,
        TruthWord::Unknown => Style::Warning,
    }
}
