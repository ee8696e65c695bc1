//! `adopt`: shows what would change, asks, and has it carried out.

use std::io::{self, BufRead, IsTerminal, Write};

use super::args::Adopt;
use super::error::CliError;
use super::screen::{Cell, Screen, Style, Table, clean};
use super::show;
use crate::bus::Client;
use crate::command::Mode;
use crate::view::{AdoptionLine, AdoptionState, AdoptionView, AdoptionWhen};

/// The whole verb. What is carried out is what was shown.
pub(super) async fn adopt(
    client: &Client,
    json: bool,
    what: &Adopt,
    screen: &mut Screen,
) -> Result<(), CliError> {
    let plan = if what.undo {
        client.undo_adoption(&what.domain, Mode::DryRun).await?
    } else {
        let (vcpus, memory) = (what.max_vcpus, what.max_memory);
        client
            .adopt(&what.domain, vcpus, memory, None, Mode::DryRun)
            .await?
    };
    let only_shown = what.dry_run || (plan.state == AdoptionState::Unchanged && !what.undo);
    if only_shown || !json {
        show::print(screen, json, &plan, adoption)?;
        screen.flush()?;
    }
    if only_shown {
        return Ok(());
    }
    if !what.yes && plan.state != AdoptionState::Unchanged {
        ask()?;
    }
    let done = if what.undo {
        client.undo_adoption(&what.domain, Mode::Apply).await?
    } else {
        let (vcpus, memory) = (what.max_vcpus, what.max_memory);
        client
            .adopt(&what.domain, vcpus, memory, Some(plan.plan), Mode::Apply)
            .await?
    };
    if json {
        screen.json(&done)?;
        return Ok(());
    }
    if done.state == AdoptionState::Done {
        let sentence = if what.undo {
            "the definition is as it was before"
        } else {
            "done; `virt-persona adopt --undo` puts the definition back as it was"
        };
        screen.line(sentence)?;
    }
    // What was told with the plan is known.
    for note in done.notes.iter().filter(|note| !plan.notes.contains(note)) {
        screen.line(&clean(note))?;
    }
    Ok(())
}

/// Asks on the terminal, and takes nothing but a yes for one.
fn ask() -> Result<(), CliError> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(CliError::NobodyToAsk);
    }
    let mut stderr = io::stderr();
    write!(stderr, "Do this? [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CliError::Declined),
    }
}

/// An adoption for people.
fn adoption(screen: &mut Screen, adoption: &AdoptionView) -> io::Result<()> {
    let mut table = Table::new(&["", "NOW", "THEN", "TAKES EFFECT", "WHY"]);
    for line in &adoption.lines {
        table.row(vec![
            Cell::styled(Style::Bold, line.subject.clone()),
            Cell::new(&line.now),
            Cell::new(&line.then),
            when(line),
            Cell::new(&line.why),
        ]);
    }
    screen.table(&table)?;
    for note in &adoption.notes {
        screen.line(&clean(note))?;
    }
    if adoption.state == AdoptionState::Unchanged {
        screen.line("there is nothing to do")?;
    }
    Ok(())
}

fn when(line: &AdoptionLine) -> Cell {
    match line.when {
        AdoptionWhen::Already => Cell::styled(Style::Dim, "is there"),
        AdoptionWhen::Now => Cell::styled(Style::Good, "at once"),
        AdoptionWhen::NextStart => Cell::styled(Style::Warning, "next start"),
        AdoptionWhen::Never => Cell::styled(Style::Bad, "not at all"),
    }
}
