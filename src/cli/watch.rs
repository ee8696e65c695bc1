//! `watch`: audit records as they come, one a line; with `--json` one JSON document a line.

use super::CliError;
use super::screen::{Screen, Style};
use super::show;
use crate::bus::{Client, ClientError, Watched};
use crate::view::AuditRecordView;

/// Prints records until the connection ends or the reader goes away.
///
/// # Errors
/// Where the daemon's bus is lost.
pub(super) async fn watch(
    client: &Client,
    json: bool,
    domain: Option<String>,
    screen: &mut Screen,
) -> Result<(), CliError> {
    let mut watch = client.watch().await?;
    let domain = match domain {
        Some(name) => Some(client.status(&name).await?.domain.id),
        None => None,
    };
    let mut notes = Screen::stderr();
    let mut last: Option<u64> = None;
    while let Some(seen) = watch.next().await {
        match seen? {
            Watched::Record(record) => {
                if let Some(missed) = missed(last, &record) {
                    let text =
                        format!("{missed} records were missed; `virt-persona audit` has them");
                    notes.line(&notes.colour().paint(Style::Warning, &text))?;
                }
                last = Some(record.seq);
                if domain.is_some() && record.domain != domain {
                    continue;
                }
                if json {
                    screen.json_line(&*record)?;
                } else {
                    show::record(screen, &record)?;
                }
                screen.flush()?;
            }
            Watched::Gone => notes.line("virt-personad has ended; waiting for it")?,
            Watched::Back => notes.line("virt-personad is back")?,
        }
    }
    Err(CliError::Client(ClientError::Unreachable {
        reason: "the message bus has ended".to_owned(),
        source: None,
    }))
}

/// How many records were missed before this one.
fn missed(last: Option<u64>, record: &AuditRecordView) -> Option<u64> {
    let missed = record.seq.checked_sub(last?)?.checked_sub(1)?;
    (missed > 0).then_some(missed)
}
