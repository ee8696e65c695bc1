//! The program without a screen: lines for people, JSON and exit statuses for scripts.

use std::path::Path;

use agent_protocol::{
    Answer, Offers,
    local::{HostPresence, LocalAnswer, LocalCode, LocalNo, LocalRequest},
};

use crate::{Ending, say, say_error};
use virt_persona_switch::{
    client::{self, ClientError},
    text::{self, Charset},
};

/// How something is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Json,
}

/// How long a switch is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Until the host has answered at all.
    Answer,
    /// Until it has ended.
    End,
}

/// Prints what may be chosen.
pub(crate) fn list(root: &Path, form: Form) -> Ending {
    match one(root, &LocalRequest::Personas) {
        Ok(LocalAnswer::Host(Answer::Offers(offers))) => match form {
            Form::Text => say(&listed(&offers, Charset::of_locale())),
            Form::Json => json(&offers),
        },
        Ok(other) => not_that(&other),
        Err(error) => unreachable_agent(&error),
    }
}

/// Prints what the agent knows.
pub(crate) fn status(root: &Path, form: Form) -> Ending {
    match one(root, &LocalRequest::Status) {
        Ok(LocalAnswer::Status(status)) => match form {
            Form::Json => json(&status),
            Form::Text => {
                let persona = status.persona.as_deref().unwrap_or("none");
                let host = match status.host {
                    HostPresence::Listens => "can be asked for another",
                    HostPresence::Deaf => "does not let guests ask for another",
                    HostPresence::Absent => "is not connected",
                };
                let persona = Charset::of_locale().shown(persona);
                say(&format!("persona {persona}; the host {host}\n"))
            }
        },
        Ok(other) => not_that(&other),
        Err(error) => unreachable_agent(&error),
    }
}

/// Asks for a persona.
pub(crate) fn switch(root: &Path, persona: &str, patience: Patience) -> Ending {
    let charset = Charset::of_locale();
    let request = LocalRequest::Switch {
        persona: persona.to_owned(),
    };
    let mut answers = match client::ask(root, &request) {
        Ok(answers) => answers,
        Err(error) => return unreachable_agent(&error),
    };
    loop {
        let answer = match answers.wait() {
            Ok(answer) => answer,
            Err(error) => return unreachable_agent(&error),
        };
        if matches!(answer, LocalAnswer::No(_)) {
            return not_that(&answer);
        }
        let line = charset.shown(&text::answer(persona, &answer));
        let ending = match answer {
            LocalAnswer::Host(Answer::Accepted { .. } | Answer::Active { .. }) => Ending::Done,
            LocalAnswer::Host(Answer::Waits { .. }) => Ending::Waits,
            _ => Ending::Refused,
        };
        if ending == Ending::Refused {
            say_error(&line);
        } else {
            say(&format!("{line}\n"));
        }
        if answer.is_last() || patience == Patience::Answer {
            return ending;
        }
    }
}

fn one(root: &Path, request: &LocalRequest) -> Result<LocalAnswer, ClientError> {
    client::ask(root, request)?.wait()
}

fn json(value: &impl serde::Serialize) -> Ending {
    match serde_json::to_string_pretty(value) {
        Ok(text) => say(&format!("{text}\n")),
        Err(error) => {
            say_error(&format!("cannot be written as JSON: {error}"));
            Ending::Refused
        }
    }
}

/// The agent or the host answers with something else than what was asked for.
fn not_that(answer: &LocalAnswer) -> Ending {
    let line = match answer {
        LocalAnswer::Host(Answer::Refused { reason } | Answer::Failed { reason }) => reason.clone(),
        other => text::answer("the host", other),
    };
    say_error(&Charset::of_locale().shown(&line));
    match answer {
        LocalAnswer::No(LocalNo {
            code: LocalCode::NoHost | LocalCode::HostLost,
            ..
        }) => Ending::Unreachable,
        _ => Ending::Refused,
    }
}

fn unreachable_agent(error: &ClientError) -> Ending {
    say_error(&text::chain(error));
    Ending::Unreachable
}

fn listed(offers: &Offers, charset: Charset) -> String {
    let mut lines = vec![match &offers.current {
        Some(name) => format!("persona {name}"),
        None => "no persona is in force".to_owned(),
    }];
    lines.extend(offers.under_way.clone());
    if offers.offers.is_empty() {
        lines.push("there is none to choose from".to_owned());
    }
    for offer in &offers.offers {
        lines.push(String::new());
        lines.push(if offer.description.is_empty() {
            offer.persona.clone()
        } else {
            format!("{}: {}", offer.persona, offer.description)
        });
        lines.push(format!("  {}", text::course(&offer.course)));
        let changes = offer.changes.iter().map(text::change);
        lines.extend(
            changes
                .chain(text::more(offer))
                .map(|line| format!("    {line}")),
        );
    }
    if offers.left_out > 0 {
        lines.push(format!("and {} personas more", offers.left_out));
    }
    let lines: Vec<String> = lines.iter().map(|line| charset.shown(line)).collect();
    format!("{}\n", lines.join("\n"))
}
