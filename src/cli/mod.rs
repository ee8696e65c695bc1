//! `virt-persona`: reads the command line, talks to the daemon through `bus::Client`, prints what comes back.
//!
//! Exit status: 0 done, 1 refused or failed (the reason is on standard error), 2 usage, 3 the daemon is not reachable.
//! With `--json`, a refusal is on standard output too, as `{"error", "message", "problems"}`.

use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use persona::Format;
use serde::Serialize;
use serde_json::json;

use self::args::{Cli, Global, Verb};
use self::error::CliError;
use self::prepare::{How, Prepared, prepare};
use self::screen::{Screen, Style, clean};
use crate::bus::{Client, ClientError};
use crate::command::Force;
use crate::view::{Change, CheckState, DocumentFormat, ProblemView};

mod adopt;
pub mod args;
mod check;
mod diff;
mod error;
mod exec;
mod fmt;
mod layers;
mod man;
mod prepare;
mod record;
mod screen;
mod show;
mod simulate;
pub mod time;
mod wait;
mod watch;

/// How a verb that was carried out ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// All is well.
    Well,
    /// It was carried out, and what it found is bad.
    Badly,
    /// It was carried out, and this is the exit status of what it ran.
    With(u8),
}

/// The whole program.
pub fn run() -> ExitCode {
    let cli = Cli::parse().as_meant();
    let global = cli.global.clone();
    // As diff(1) has it: 1 says that there is a difference.
    let trouble = match cli.verb {
        Verb::Diff { .. } => 2,
        // As timeout(1) has it: what is below belongs to the command.
        Verb::Exec(_) => 125,
        _ => 1,
    };
    match verb(cli) {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::Badly) => ExitCode::from(1),
        Ok(Ended::With(status)) => ExitCode::from(status),
        // Who reads our output has seen enough; that is no failure of ours.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            // Nothing is left to do where even the reason cannot be written.
            let _ = complain(&global, &error);
            ExitCode::from(match error.exit() {
                1 => trouble,
                status => status,
            })
        }
    }
}

/// A refusal with `--json`.
#[derive(Serialize)]
struct Complaint<'a> {
    error: &'a str,
    message: &'a str,
    problems: &'a [ProblemView],
}

fn complain(global: &Global, error: &CliError) -> io::Result<()> {
    let mut screen = Screen::stderr();
    let label = screen.colour().paint(Style::Bad, "error:");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let words = cause.to_string();
        // Some libraries repeat their cause in their own words.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    for (index, line) in text.lines().enumerate() {
        let line = clean(line);
        if index == 0 {
            screen.line(&format!("{label} {line}"))?;
        } else {
            screen.line(&line)?;
        }
    }
    if global.json {
        let problems: &[ProblemView] = match error {
            CliError::Client(ClientError::Refused { problems, .. })
            | CliError::Invalid { problems, .. } => problems,
            _ => &[],
        };
        Screen::stdout().json(&Complaint {
            error: error.word(),
            message: &text,
            problems,
        })?;
    }
    Ok(())
}

fn verb(cli: Cli) -> Result<Ended, CliError> {
    let mut screen = Screen::stdout();
    match cli.verb {
        Verb::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "virt-persona",
                &mut io::stdout(),
            );
            Ok(Ended::Well)
        }
        Verb::Check { files, name } => {
            let ended = check::check(&files, name.as_deref(), cli.global.json, &mut screen)?;
            screen.flush()?;
            Ok(ended)
        }
        Verb::Simulate(what) => {
            simulate::simulate(&what, cli.global.json, &mut screen)?;
            screen.flush()?;
            Ok(Ended::Well)
        }
        Verb::Fmt {
            files,
            write,
            check,
            name,
        } => {
            let output = match (write, check) {
                (true, _) => fmt::Output::Write,
                (_, true) => fmt::Output::Check,
                _ => fmt::Output::Print,
            };
            let json = cli.global.json;
            let ended = fmt::fmt(&files, name.as_deref(), output, json, &mut screen)?;
            screen.flush()?;
            Ok(ended)
        }
        Verb::Diff { before, after } => {
            let ended =
                runtime()?.block_on(diff::diff(&cli.global, &before, &after, &mut screen))?;
            screen.flush()?;
            Ok(ended)
        }
        Verb::Schema => {
            screen.json(&persona::schema())?;
            screen.flush()?;
            Ok(Ended::Well)
        }
        Verb::Man => {
            screen.raw(&man::page(Cli::command()))?;
            screen.flush()?;
            Ok(Ended::Well)
        }
        verb => {
            let ended = runtime()?.block_on(talk(&cli.global, verb, &mut screen))?;
            screen.flush()?;
            Ok(ended)
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)
}

/// The verbs that need the daemon.
async fn talk(global: &Global, verb: Verb, screen: &mut Screen) -> Result<Ended, CliError> {
    // What can be wrong with the arguments is said before the daemon is looked for.
    let verb = prepare(verb)?;
    let client = Client::connect(global.bus()).await?;
    let json = global.json;
    match verb {
        Prepared::Create {
            document,
            format,
            name,
            note,
        } => {
            let stored = client.create(&document, format, name, note).await?;
            show::print(screen, json, &stored, show::stored)?;
        }
        Prepared::Update {
            name,
            document,
            format,
            note,
        } => {
            let stored = client.update(&name, &document, format, note).await?;
            show::print(screen, json, &stored, show::stored)?;
        }
        Prepared::SetCurrent { name, version } => {
            let stored = client.set_current(&name, version).await?;
            show::print(screen, json, &stored, show::stored)?;
        }
        Prepared::Show(persona) => {
            let document = client.show(&persona.name, persona.version).await?;
            show::print(screen, json, &document, show::document)?;
        }
        Prepared::ShowEffective { domain } => {
            let effective = client.effective(&domain).await?;
            show::print(screen, json, &effective, show::effective)?;
        }
        Prepared::ShowOverride { tag } => {
            let fragment = client.show_override(&tag).await?;
            show::print(screen, json, &fragment, show::fragment)?;
        }
        Prepared::MapOverride {
            tag,
            document,
            format,
            priority,
        } => {
            let mapped = client
                .map_override(&tag, &document, format, priority)
                .await?;
            show::print(screen, json, &mapped, show::mapped)?;
        }
        Prepared::Tag {
            domain,
            add,
            remove,
        } => {
            let tags = if add.is_empty() && remove.is_empty() {
                client.status(&domain).await?.domain.tags
            } else {
                client.tag(&domain, &add, &remove).await?
            };
            if json {
                screen.json(&json!({ "tags": tags }))?;
            } else {
                for tag in tags {
                    screen.line(&clean(&tag))?;
                }
            }
        }
        Prepared::Apply {
            domain,
            persona,
            how,
        } => return apply(&client, json, screen, &domain, &persona, how).await,
        Prepared::Plain(verb) => return plain(&client, json, verb, screen).await,
    }
    Ok(Ended::Well)
}

async fn apply(
    client: &Client,
    json: bool,
    screen: &mut Screen,
    domain: &str,
    persona: &str,
    how: How,
) -> Result<Ended, CliError> {
    match how {
        How::DryRun => {
            let plan = client.plan(domain, persona).await?;
            show::print(screen, json, &plan, show::plan)?;
        }
        How::Start => {
            let applied = client.apply(domain, persona).await?;
            show::print(screen, json, &applied, show::applied)?;
        }
        How::Wait(limit) => {
            let applied = client.apply(domain, persona).await?;
            let applied = wait::until_active(client, applied, limit).await?;
            show::print(screen, json, &applied, show::applied)?;
        }
    }
    Ok(Ended::Well)
}

/// The verbs whose arguments go to the daemon as they are.
async fn plain(
    client: &Client,
    json: bool,
    verb: Verb,
    screen: &mut Screen,
) -> Result<Ended, CliError> {
    match verb {
        Verb::List => show::print(screen, json, &client.personas().await?, show::personas)?,
        Verb::History { name } => {
            show::print(screen, json, &client.history(&name).await?, show::history)?;
        }
        Verb::Delete { name, force } => {
            let force = if force { Force::Yes } else { Force::No };
            client.delete(&name, force).await?;
            done(screen, json, &format!("{name} is deleted"))?;
        }
        Verb::Domains => show::print(screen, json, &client.domains().await?, show::domains)?,
        Verb::Status { domain } => {
            show::print(screen, json, &client.status(&domain).await?, show::status)?;
        }
        Verb::Retire { wait, timeout } => {
            let limit = wait.then(|| std::time::Duration::from_secs(timeout));
            let retired = wait::until_given_back(client, limit).await?;
            show::print(screen, json, &retired, show::retired)?;
        }
        Verb::Deactivate { domain } => {
            let applied = client.deactivate(&domain).await?;
            show::print(screen, json, &applied, show::applied)?;
        }
        Verb::Map {
            tag,
            persona: Some(persona),
            priority,
            ..
        } => {
            client.map(&tag, &persona, priority).await?;
            done(screen, json, &format!("{tag} means {persona}"))?;
        }
        Verb::Exec(what) => return exec::exec(client, json, what, screen).await,
        Verb::Adopt(what) => adopt::adopt(client, json, &what, screen).await?,
        Verb::Maps => show::print(screen, json, &client.mappings().await?, show::mappings)?,
        Verb::Unmap { tag } => {
            client.unmap(&tag).await?;
            done(screen, json, &format!("{tag} means nothing"))?;
        }
        Verb::Explain { domain, at } => {
            let explained = client.explain(&domain, at.map(|at| at.0)).await?;
            show::print(screen, json, &explained, show::explain)?;
        }
        Verb::Record {
            domain,
            output,
            since,
            until,
        } => {
            let span = (since.map(|at| at.0), until.map(|at| at.0));
            record::record(client, json, &domain, &output, span, screen).await?;
        }
        Verb::Approvals => {
            show::print(screen, json, &client.approvals().await?, show::approvals)?;
        }
        Verb::Approve { id } => {
            show::print(screen, json, &client.approve(id).await?, show::decided)?;
        }
        Verb::Reject { id } => {
            show::print(screen, json, &client.reject(id).await?, show::decided)?;
        }
        Verb::Hold {
            domain,
            length,
            resource,
        } => {
            let resource = resource.map(crate::view::Held::from);
            let holds = client.hold(&domain, length, resource).await?;
            show::print(screen, json, &holds, show::holds)?;
        }
        Verb::Release { domain } => {
            let text = match client.release(&domain).await? {
                Change::Changed => "its holds have ended, and its quarantine is forgotten",
                Change::Unchanged => "nothing of it was held",
            };
            done(screen, json, &format!("{domain}: {text}"))?;
        }
        Verb::Audit {
            domain,
            since,
            limit,
        } => {
            let since = since.map(|since| since.0);
            let audit = client.audit(domain, since, limit).await?;
            show::print(screen, json, &audit, show::audit)?;
        }
        Verb::Watch { domain } => watch::watch(client, json, domain, screen).await?,
        Verb::Doctor { domain } => {
            let doctor = client.doctor(domain).await?;
            show::print(screen, json, &doctor, show::doctor)?;
            if doctor.checks.iter().any(|c| c.state == CheckState::Fail) {
                return Ok(Ended::Badly);
            }
        }
        // The others have been prepared, or need no daemon.
        Verb::Check { .. }
        | Verb::Simulate(_)
        | Verb::Fmt { .. }
        | Verb::Schema
        | Verb::Create { .. }
        | Verb::Update { .. }
        | Verb::SetCurrent { .. }
        | Verb::Show { .. }
        | Verb::Diff { .. }
        | Verb::Map { .. }
        | Verb::Tag { .. }
        | Verb::Apply { .. }
        | Verb::Completions { .. }
        | Verb::Man => {}
    }
    Ok(Ended::Well)
}

fn done(screen: &mut Screen, json: bool, text: &str) -> io::Result<()> {
    if json {
        screen.json(&json!({ "done": true }))
    } else {
        screen.line(&clean(text))
    }
}

/// The bytes of a document; `-` is standard input.
fn read_bytes(file: &Path) -> Result<Vec<u8>, CliError> {
    let read = if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    read.map_err(|source| CliError::Read {
        path: file.display().to_string(),
        source,
    })
}

fn read_document(file: &Path) -> Result<String, CliError> {
    String::from_utf8(read_bytes(file)?).map_err(|_| CliError::NotText {
        path: file.display().to_string(),
    })
}

/// What the file's ending says; a reader finds out itself where it says nothing.
fn format_of(file: &Path) -> Option<DocumentFormat> {
    Format::of_file_name(file.to_str()?).map(DocumentFormat::from)
}
