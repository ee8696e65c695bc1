//! What waits for a person, and what a person wants left alone, for people: `approvals`, `approve`, `reject`, `hold`, and
//! their lines in `status`.

use std::io;
use std::time::Duration;

use super::*;
use crate::view::{HoldView, ProposalState, ProposalView, SampleView};

/// `approvals`.
pub(in crate::cli) fn approvals(
    screen: &mut Screen,
    proposals: &Vec<ProposalView>,
) -> io::Result<()> {
    let mut table = Table::new(&[
        "ID",
        "DOMAIN",
        "PERSONA",
        "STATE",
        "WHAT",
        "LOOKED AT",
        "UNTIL",
    ]);
    for proposal in proposals {
        let style = match proposal.state {
            ProposalState::Open => Style::Warning,
            ProposalState::Approved => Style::Good,
            ProposalState::Rejected => Style::Dim,
        };
        let why: Vec<String> = proposal.why.iter().map(sample).collect();
        table.row(vec![
            Cell::new(proposal.id.to_string()),
            Cell::new(&proposal.name),
            Cell::new(persona(proposal)),
            Cell::styled(style, state(proposal)),
            Cell::new(&proposal.text),
            Cell::new(why.join("; ")),
            Cell::new(time::moment(proposal.expires)),
        ]);
    }
    screen.table(&table)
}

/// `approve`, `reject`.
pub(in crate::cli) fn decided(screen: &mut Screen, proposal: &ProposalView) -> io::Result<()> {
    let text = format!(
        "{} is {}: {}: {}",
        proposal.id,
        word(&proposal.state),
        proposal.name,
        proposal.text
    );
    screen.line(&clean(&text))
}

/// `hold`.
pub(in crate::cli) fn holds(screen: &mut Screen, holds: &Vec<HoldView>) -> io::Result<()> {
    for held in holds {
        screen.line(&clean(&hold(held)))?;
    }
    Ok(())
}

/// One hold.
pub(super) fn hold(hold: &HoldView) -> String {
    let until = hold.until.map_or_else(String::new, |until| {
        format!(", until {}", time::moment(until))
    });
    format!("{}: {}{until}", word(&hold.resource), hold.reason)
}

/// One proposal in `status`.
pub(super) fn line(proposal: &ProposalView) -> String {
    let ProposalView { id, text, .. } = proposal;
    let until = time::moment(proposal.expires);
    match proposal.state {
        ProposalState::Open => {
            format!("{id}: {text}; `virt-persona approve {id}` lets it be done, until {until}")
        }
        _ => format!("{id}: {text}; {}, until {until}", state(proposal)),
    }
}

fn persona(proposal: &ProposalView) -> String {
    match proposal.version {
        Some(version) => format!("{}@{version}", proposal.persona),
        None => proposal.persona.clone(),
    }
}

fn state(proposal: &ProposalView) -> String {
    let by = proposal.by.as_ref();
    by.map_or_else(
        || word(&proposal.state),
        |by| format!("{} by {by}", word(&proposal.state)),
    )
}

fn sample(sample: &SampleView) -> String {
    let value = match sample.unit {
        Some(unit) => quantity(sample.value, unit),
        None => sample.value.to_string(),
    };
    format!(
        "{}: {value} by {}, {} old",
        sample.comparison,
        word(&sample.source),
        time::duration(Duration::from_millis(sample.age_ms))
    )
}
