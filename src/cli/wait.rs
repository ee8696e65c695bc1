//! `apply --wait`: waits until a persona is active in the guest, has failed, or the patience is over; and `retire --wait`,
//! until nothing is left to be given back.

use std::io::{self, IsTerminal};
use std::time::Duration;

use super::CliError;
use super::screen::{Screen, clean};
use crate::bus::{Client, ClientError};
use crate::view::{ActivationState, AppliedView, DomainView, RetiredView};

/// How often the daemon is asked; asking costs it a look at its published view.
const EVERY: Duration = Duration::from_millis(250);

/// Waits for the end of this activation.
///
/// # Errors
/// Where it failed, was replaced by another, or did not end in time.
pub(super) async fn until_active(
    client: &Client,
    applied: AppliedView,
    limit: Duration,
) -> Result<AppliedView, CliError> {
    let mut progress = Progress::new();
    let wait = async {
        loop {
            let status = match client.status(&applied.domain.to_string()).await {
                // A daemon that restarts goes on with the activation where it was.
                Err(ClientError::Unreachable { .. }) => None,
                other => Some(other?),
            };
            if let Some(status) = status {
                let status = status.domain;
                progress.show(&status)?;
                if let Some(end) = end_of(&applied, &status) {
                    return end.map(|()| AppliedView {
                        activation: status.activation,
                        persona: status.persona,
                        ..applied.clone()
                    });
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    match tokio::time::timeout(limit, wait).await {
        Ok(end) => end,
        Err(_) => Err(CliError::NotActive(format!(
            "the persona is not active within {} s{}; the activation goes on, see `virt-persona status {}`",
            limit.as_secs(),
            progress
                .last
                .map_or_else(String::new, |state| format!(" ({state})")),
            applied.name
        ))),
    }
}

/// Retires the daemon; with a limit, waits until nothing is left to be given back.
///
/// # Errors
/// Where something is left when the limit is over.
pub(super) async fn until_given_back(
    client: &Client,
    limit: Option<Duration>,
) -> Result<RetiredView, CliError> {
    let mut retired = client.retire().await?;
    let Some(limit) = limit else {
        return Ok(retired);
    };
    let mut screen = io::stderr().is_terminal().then(Screen::stderr);
    let end = tokio::time::Instant::now() + limit;
    while !retired.left.is_empty() {
        if tokio::time::Instant::now() >= end {
            return Err(CliError::NotGivenBack {
                seconds: limit.as_secs(),
                left: retired.left.join("\n"),
            });
        }
        tokio::time::sleep(EVERY).await;
        let now = client.retire().await?;
        if now != retired
            && let Some(screen) = &mut screen
        {
            for sentence in &now.left {
                screen.line(&clean(sentence))?;
            }
        }
        retired = now;
    }
    Ok(retired)
}

/// How the activation ended, if it has.
fn end_of(applied: &AppliedView, status: &DomainView) -> Option<Result<(), CliError>> {
    let fail = |text: String| Some(Err(CliError::NotActive(text)));
    let Some(persona) = &status.persona else {
        return fail("the persona was taken off again meanwhile".to_owned());
    };
    if persona.generation > applied.generation {
        return fail(format!(
            "another activation ({}@{}) replaced this one",
            persona.name, persona.version
        ));
    }
    match status.activation.state {
        ActivationState::Active => Some(Ok(())),
        ActivationState::Failed => {
            fail(status.activation.detail.clone().unwrap_or_else(|| {
                "the activation failed, and the guest did not say why".to_owned()
            }))
        }
        _ => None,
    }
}

/// Progress on a terminal.
struct Progress {
    screen: Option<Screen>,
    last: Option<String>,
}

impl Progress {
    fn new() -> Self {
        Self {
            screen: io::stderr().is_terminal().then(Screen::stderr),
            last: None,
        }
    }

    fn show(&mut self, status: &DomainView) -> io::Result<()> {
        let state = super::show::activation(&status.activation);
        if self.last.as_ref() != Some(&state) {
            if let Some(screen) = &mut self.screen {
                screen.line(&clean(&format!("{}: {state}", status.name)))?;
            }
            self.last = Some(state);
        }
        Ok(())
    }
}
