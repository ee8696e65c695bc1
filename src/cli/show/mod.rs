//! Views for people: one function a view. With `--json` the view itself is printed and nothing here is used.

mod decision;
mod proposal;

use std::io;
use std::time::Duration;

use persona::signal::Unit;
use persona::units::Bytes;
use serde::Serialize;

pub(super) use decision::{applied, explain, plan, retired};
pub(super) use proposal::{approvals, decided, holds};

use super::screen::{Cell, Screen, Style, Table, clean};
use super::time;
use crate::view::{
    ActivationState, ActivationView, AgentState, AppliedView, AuditRecordView, AuditView,
    BoundPersona, Change, CheckState, DoctorView, DocumentView, DomainView, EffectView,
    EffectiveView, ExplainView, FragmentView, MappedView, MappingView, MemoryView, Origin,
    PersonaView, PlanView, ProblemView, ReadingView, Resource, RetiredView, RolloutView,
    StatusView, StoredView, TruthWord, VcpuView, VersionView,
};

/// Prints a view as JSON or by its function.
pub(super) fn print<V: Serialize + ?Sized>(
    screen: &mut Screen,
    json: bool,
    view: &V,
    people: impl FnOnce(&mut Screen, &V) -> io::Result<()>,
) -> io::Result<()> {
    if json {
        screen.json(&view)
    } else {
        people(screen, view)
    }
}

/// A word of an enum as JSON has it, with spaces.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word.replace('_', " "),
        _ => "?".to_owned(),
    }
}

fn known<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

/// Requested, plugged and guest-visible, shortest where they agree.
fn three<T: ToString + PartialEq + Copy>(
    requested: Option<T>,
    plugged: Option<T>,
    guest: Option<T>,
) -> String {
    if plugged.is_some() && plugged == guest && requested.is_none_or(|r| Some(r) == plugged) {
        return known(plugged);
    }
    format!(
        "{} asked, {} plugged, {} in the guest",
        requested.map_or_else(|| "-".to_owned(), |r| r.to_string()),
        known(plugged),
        known(guest)
    )
}

fn vcpus_short(vcpus: &VcpuView) -> String {
    format!(
        "{}/{}/{}",
        known(vcpus.domain_max),
        known(vcpus.plugged),
        known(vcpus.guest)
    )
}

fn memory_short(memory: &MemoryView) -> String {
    format!(
        "{}/{}/{}",
        known(memory.domain_max),
        known(memory.plugged),
        known(memory.guest)
    )
}

fn bound(persona: &BoundPersona) -> String {
    let why = match persona.origin {
        Origin::Applied if persona.pinned => "applied, pinned".to_owned(),
        Origin::Applied => "applied".to_owned(),
        Origin::Tag => format!("tag {}", known(persona.tag.as_ref())),
        Origin::Default => "default".to_owned(),
        Origin::Shift => format!(
            "rule {} of {}",
            known(persona.rule.as_ref()),
            known(persona.shifted_from.as_ref())
        ),
    };
    let mut text = format!("{}@{} ({why})", persona.name, persona.version);
    if !persona.bases.is_empty() {
        text.push_str(&format!(", on {}", persona.bases.join(", ")));
    }
    if !persona.overrides.is_empty() {
        let tags = persona.overrides.join(", ");
        text.push_str(&format!(", with the override of {tags}"));
    }
    text
}

/// The state of an activation in words.
pub(super) fn activation(activation: &ActivationView) -> String {
    match &activation.detail {
        Some(detail) => format!("{}: {detail}", word(&activation.state)),
        None => word(&activation.state),
    }
}

fn activation_style(state: ActivationState) -> Style {
    match state {
        ActivationState::Active => Style::Good,
        ActivationState::Failed => Style::Bad,
        ActivationState::None => Style::Dim,
        _ => Style::Warning,
    }
}

fn agent_style(state: AgentState) -> Style {
    match state {
        AgentState::Connected => Style::Good,
        AgentState::NoChannel | AgentState::Absent => Style::Dim,
        AgentState::Unresponsive | AgentState::Misbehaving => Style::Bad,
    }
}

/// `domains`.
pub(super) fn domains(screen: &mut Screen, domains: &Vec<DomainView>) -> io::Result<()> {
    let mut table = Table::new(&[
        "NAME",
        "STATE",
        "PERSONA",
        "ACTIVATION",
        "VCPUS max/plugged/guest",
        "MEMORY max/plugged/guest",
        "AGENT",
        "TAGS",
    ]);
    for domain in domains {
        table.row(vec![
            Cell::new(&domain.name),
            Cell::new(word(&domain.state)),
            Cell::maybe(
                domain
                    .persona
                    .as_ref()
                    .map(|p| format!("{}@{}", p.name, p.version)),
            ),
            Cell::styled(
                activation_style(domain.activation.state),
                word(&domain.activation.state),
            ),
            Cell::new(vcpus_short(&domain.vcpus)),
            Cell::new(memory_short(&domain.memory)),
            Cell::styled(agent_style(domain.agent.state), word(&domain.agent.state)),
            Cell::new(domain.tags.join(" ")),
        ]);
    }
    screen.table(&table)
}

fn bounds<T: std::fmt::Display>(least: Option<T>, most: Option<T>) -> String {
    match (least, most) {
        (None, None) => "not managed by a persona".to_owned(),
        (Some(least), None) => format!("persona at least {least}"),
        (least, Some(most)) => format!("persona {} to {most}", known(least)),
    }
}

/// `status`.
pub(super) fn status(screen: &mut Screen, status: &StatusView) -> io::Result<()> {
    let domain = &status.domain;
    let vcpus = &domain.vcpus;
    let memory = &domain.memory;
    let mut table = Table::new(&[]);
    let mut add = |name: &str, style: Style, text: String| {
        table.row(vec![
            Cell::styled(Style::Bold, name),
            Cell::styled(style, text),
        ]);
    };
    add("Domain", Style::Plain, domain.name.clone());
    add("UUID", Style::Plain, domain.id.to_string());
    add("State", Style::Plain, word(&domain.state));
    add("Tags", Style::Plain, domain.tags.join(" "));
    add(
        "Persona",
        Style::Plain,
        domain
            .persona
            .as_ref()
            .map_or_else(|| "-".to_owned(), bound),
    );
    add(
        "Activation",
        activation_style(domain.activation.state),
        activation(&domain.activation),
    );
    add(
        "vCPUs",
        Style::Plain,
        three(vcpus.requested, vcpus.plugged, vcpus.guest),
    );
    add(
        "",
        Style::Dim,
        format!(
            "{}, domain at most {}",
            bounds(vcpus.persona_min, vcpus.persona_max),
            known(vcpus.domain_max)
        ),
    );
    add(
        "Memory",
        Style::Plain,
        three(memory.requested, memory.plugged, memory.guest),
    );
    add(
        "",
        Style::Dim,
        format!(
            "{}, domain at most {}, by {}",
            bounds(memory.persona_min, memory.persona_max),
            known(memory.domain_max),
            memory
                .mechanism
                .map_or_else(|| "?".to_owned(), |m| word(&m))
        ),
    );
    add("Agent", agent_style(domain.agent.state), agent(domain));
    if let Some(decision) = &domain.last_decision {
        add(
            "Last decision",
            Style::Plain,
            format!("{}  {}", time::moment(decision.at), decision.text),
        );
    }
    for hold in &domain.holds {
        add("Held", Style::Warning, proposal::hold(hold));
    }
    for waiting in &domain.proposals {
        add("Proposal", Style::Warning, proposal::line(waiting));
    }
    for limit in &domain.limits {
        let original = limit
            .original
            .as_ref()
            .map_or_else(String::new, |original| format!(", {original} before"));
        let wanted = match (&limit.wanted, &limit.by) {
            (Some(wanted), Some(by)) if *wanted != limit.present => {
                format!(", {wanted} wanted by {by}")
            }
            _ => String::new(),
        };
        add(
            "Limit",
            Style::Plain,
            format!("{} {}{original}{wanted}", limit.limit, limit.present),
        );
    }
    for problem in &domain.problems {
        add("Problem", Style::Bad, problem.clone());
    }
    screen.table(&table)?;
    if !domain.readings.is_empty() {
        screen.line("")?;
        readings(screen, &domain.readings)?;
    }
    if !status.effects.is_empty() {
        screen.line("")?;
        effects(screen, &status.effects)?;
    }
    Ok(())
}

/// What the rules of a persona have done so far.
fn effects(screen: &mut Screen, effects: &[EffectView]) -> io::Result<()> {
    let mut table = Table::new(&["RULE", "METRIC", "BEFORE", "CHANGE", "ACTIONS", "SURE"]);
    for effect in effects {
        let EffectView { change, unit, .. } = effect;
        let sign = if *change < 0.0 { "-" } else { "+" };
        let margin = effect.margin.map_or_else(String::new, |margin| {
            format!(" ± {}", quantity(margin, *unit))
        });
        table.row(vec![
            Cell::new(&effect.rule),
            Cell::new(&effect.metric),
            Cell::new(quantity(effect.before, *unit)),
            Cell::new(format!("{sign}{}{margin}", quantity(change.abs(), *unit))),
            Cell::new(effect.actions.to_string()),
            match effect.confidence {
                Some(percent) => Cell::new(format!("{percent} %")),
                None => Cell::styled(Style::Dim, "no"),
            },
        ]);
    }
    screen.table(&table)
}

fn agent(domain: &DomainView) -> String {
    let mut text = word(&domain.agent.state);
    if let Some(version) = &domain.agent.version {
        text.push_str(&format!(", version {version}"));
    }
    if let Some(age) = domain.agent.last_seen_ms {
        text.push_str(&format!(
            ", heard {} ago",
            time::duration(Duration::from_millis(age))
        ));
    }
    text
}

fn readings(screen: &mut Screen, readings: &[ReadingView]) -> io::Result<()> {
    let mut table = Table::new(&["METRIC", "VALUE", "SOURCE", "AGE"]);
    for reading in readings {
        table.row(vec![
            Cell::new(&reading.metric),
            match reading.value {
                Some(value) => Cell::new(quantity(value, reading.unit)),
                None => Cell::styled(Style::Dim, "unknown"),
            },
            Cell::maybe(reading.source.map(|source| word(&source))),
            Cell::maybe(
                reading
                    .age_ms
                    .map(|age| time::duration(Duration::from_millis(age))),
            ),
        ]);
    }
    screen.table(&table)
}

fn quantity(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Percent => format!("{value:.1} %"),
        Unit::Bytes => bytes(value),
        Unit::Count if value.fract() == 0.0 => format!("{value}"),
        Unit::Count => format!("{value:.2}"),
        Unit::Duration => format!("{:.1} ms", value * 1000.0),
        Unit::PerSecond => format!("{value:.1} /s"),
        Unit::BitsPerSecond => format!("{:.1} Mbit/s", value / 1e6),
        Unit::BytesPerSecond => format!("{}/s", bytes(value)),
    }
}

fn bytes(value: f64) -> String {
    // A negative or huge reading saturates, which a person sees as what it is.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Bytes(value as u64).to_string()
}

fn amount(value: u64, resource: Resource) -> String {
    match resource {
        Resource::Vcpus => value.to_string(),
        Resource::Memory => Bytes(value).to_string(),
    }
}

/// `list`.
pub(super) fn personas(screen: &mut Screen, personas: &Vec<PersonaView>) -> io::Result<()> {
    let mut table = Table::new(&[
        "NAME",
        "CURRENT",
        "VERSIONS",
        "DEFAULT",
        "DOMAINS",
        "DESCRIPTION",
    ]);
    for persona in personas {
        table.row(vec![
            Cell::new(&persona.name),
            Cell::new(persona.current.to_string()),
            Cell::new(persona.versions.to_string()),
            Cell::new(if persona.default { "yes" } else { "" }),
            Cell::new(persona.domains.join(" ")),
            Cell::new(persona.description.as_deref().unwrap_or("")),
        ]);
    }
    screen.table(&table)
}

/// `history`.
pub(super) fn history(screen: &mut Screen, versions: &Vec<VersionView>) -> io::Result<()> {
    let mut table = Table::new(&["VERSION", "", "STORED", "AUTHOR", "DIGEST", "NOTE"]);
    for version in versions {
        table.row(vec![
            Cell::new(version.version.to_string()),
            Cell::styled(Style::Good, if version.current { "current" } else { "" }),
            Cell::new(time::moment(version.at)),
            Cell::new(&version.author),
            Cell::new(version.digest.get(..12).unwrap_or(&version.digest)),
            Cell::new(version.note.as_deref().unwrap_or("")),
        ]);
    }
    screen.table(&table)?;
    for version in versions {
        if let Some(rollout) = &version.rollout {
            screen.line("")?;
            screen.line(&clean(&rollout_text(version, rollout)))?;
        }
    }
    Ok(())
}

fn rollout_text(version: &VersionView, rollout: &RolloutView) -> String {
    let waiting = rollout.waiting.join(", ");
    match (&rollout.reason, &rollout.at) {
        (Some(reason), _) => format!(
            "{reason}; these keep what they have until it is stored or applied again: {waiting}"
        ),
        (None, at) => format!(
            "{}@{} is on its way, at domain {}; these wait for their turn: {waiting}",
            version.name,
            version.version,
            known(at.as_ref())
        ),
    }
}

/// `show`: the document alone, so that it can be written to a file and stored again.
pub(super) fn document(screen: &mut Screen, document: &DocumentView) -> io::Result<()> {
    screen.raw(&document.document)?;
    if document.document.ends_with('\n') {
        Ok(())
    } else {
        screen.raw("\n")
    }
}

/// `show --effective`: the document alone, with the origins as its comments.
pub(super) fn effective(screen: &mut Screen, effective: &EffectiveView) -> io::Result<()> {
    screen.raw(&effective.document)
}

/// `show --override`: the text alone, so that it can be written to a file and mapped again.
pub(super) fn fragment(screen: &mut Screen, fragment: &FragmentView) -> io::Result<()> {
    screen.raw(&fragment.document)?;
    if fragment.document.ends_with('\n') {
        Ok(())
    } else {
        screen.raw("\n")
    }
}

/// `map --override`.
pub(super) fn mapped(screen: &mut Screen, mapped: &MappedView) -> io::Result<()> {
    let what = match mapped.change {
        Change::Changed => "lays its override over personas",
        Change::Unchanged => "did so already; nothing is changed",
    };
    screen.line(&clean(&format!("{} {what}", mapped.tag)))?;
    warnings(screen, &mapped.warnings)
}

/// `create`, `update`, `set-current`.
pub(super) fn stored(screen: &mut Screen, stored: &StoredView) -> io::Result<()> {
    let what = match stored.change {
        Change::Changed => "is current",
        Change::Unchanged => "was current already; nothing is changed",
    };
    screen.line(&clean(&format!(
        "{}@{} {what}",
        stored.name, stored.version
    )))?;
    warnings(screen, &stored.warnings)
}

fn warnings(screen: &mut Screen, warnings: &[ProblemView]) -> io::Result<()> {
    let label = screen.colour().paint(Style::Warning, "warning:");
    for warning in warnings {
        let of = warning
            .document
            .as_ref()
            .map_or_else(String::new, |document| format!("{document}, "));
        let text = clean(&format!(
            "{of}line {} column {}: {}",
            warning.line, warning.column, warning.message
        ));
        screen.line(&format!("{label} {text}"))?;
        if let Some(help) = &warning.help {
            screen.line(&clean(&format!("  help: {help}")))?;
        }
    }
    Ok(())
}

/// `maps`.
pub(super) fn mappings(screen: &mut Screen, mappings: &Vec<MappingView>) -> io::Result<()> {
    let mut table = Table::new(&["TAG", "MEANS", "PRIORITY", "DOMAINS"]);
    for mapping in mappings {
        table.row(vec![
            Cell::new(&mapping.tag),
            match (&mapping.persona, &mapping.fragment) {
                (Some(persona), _) => Cell::new(persona),
                (None, Some(digest)) => {
                    Cell::new(format!("override {}", digest.get(..12).unwrap_or(digest)))
                }
                (None, None) => Cell::styled(Style::Dim, "?"),
            },
            Cell::new(mapping.priority.to_string()),
            Cell::new(mapping.domains.join(" ")),
        ]);
    }
    screen.table(&table)
}

/// `audit`.
pub(super) fn audit(screen: &mut Screen, audit: &AuditView) -> io::Result<()> {
    for one in &audit.records {
        record(screen, one)?;
    }
    Ok(())
}

/// One line of `audit` and `watch`.
pub(super) fn record(screen: &mut Screen, record: &AuditRecordView) -> io::Result<()> {
    let at = screen.colour().paint(Style::Dim, &time::moment(record.at));
    let kind = clean(&record.kind);
    let name = record.domain_name.as_deref().unwrap_or("-");
    screen.line(&format!(
        "{at}  {kind:<11} {:<16} {}",
        clean(name),
        clean(&record.text)
    ))
}

/// `doctor`.
pub(super) fn doctor(screen: &mut Screen, doctor: &DoctorView) -> io::Result<()> {
    let mut about: Option<Option<&str>> = None;
    for check in &doctor.checks {
        if about != Some(check.domain.as_deref()) {
            if about.is_some() {
                screen.line("")?;
            }
            about = Some(check.domain.as_deref());
            screen.heading(&clean(check.domain.as_deref().unwrap_or("host")))?;
        }
        let style = match check.state {
            CheckState::Ok => Style::Good,
            CheckState::Warn => Style::Warning,
            CheckState::Fail => Style::Bad,
        };
        let state = format!("{:<4}", word(&check.state));
        let state = screen.colour().paint(style, &state);
        screen.line(&format!("  {state}  {}", clean(&check.sentence)))?;
        if let Some(mend) = &check.mend {
            screen.line(&format!("        mend: {}", clean(mend)))?;
        }
    }
    Ok(())
}
