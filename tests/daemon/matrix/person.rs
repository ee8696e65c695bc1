//! What a person asks for once, and nobody repeats: what is answered is held against the world, and what could not be done
//! is asked for again when the fault is over. Adoptions are also undone then, and lead back to where they began.

use std::time::Duration;

use persona::domain::DomainId;
use tokio::time::sleep;
use virt_persona::command::{Command, DomainName, Mode, Refusal, Reply};
use virt_persona::hypervisor::simulated::Simulated;
use virt_persona::view::{
    AdoptionState, AdoptionView, AdoptionWhen, AuditRecordView, ProposalState,
};

use super::action::{Action, TAG, is_tagged};
use crate::paused::{Person, Resident};

/// How often something is asked for again, with this pause before: longer than any queue is taken by a call that hangs.
const AGAIN: (usize, Duration) = (30, Duration::from_secs(5));

impl Action {
    /// What a person asks for with the trigger.
    pub(crate) fn asked(self) -> Option<Command> {
        let domain = DomainName(self.name());
        match self {
            Self::ReadDefinitions | Self::Redefine | Self::AttachDevice => Some(Command::Adopt {
                domain,
                max_vcpus: None,
                max_memory: None,
                plan: None,
                mode: Mode::Apply,
            }),
            Self::WriteTags => Some(Command::Tag {
                domain,
                add: vec![TAG.into()],
                remove: Vec::new(),
            }),
            Self::Deactivate => Some(Command::Deactivate { domain }),
            _ => None,
        }
    }
}

/// The persistent definition of a domain.
pub(crate) fn definition(simulated: &Simulated, id: DomainId) -> Option<String> {
    let definitions = simulated.definitions_of(id)?;
    Some(definitions.persistent?.text)
}

/// Says what is wrong with an answer, by the world at the moment of the answer. `before` is the definition as it was.
pub(crate) fn false_answer(
    simulated: &Simulated,
    id: DomainId,
    before: &str,
    answer: &Result<Reply, Refusal>,
) -> Option<String> {
    let trouble = match answer {
        Ok(Reply::Adoption(adoption)) => false_adoption(simulated, id, before, adoption),
        Ok(Reply::Tags(_)) if !is_tagged(simulated, id) => Some("the tag is not there"),
        Err(refusal) => {
            let changed = definition(simulated, id)?.as_str() != before;
            let unsure = refusal.to_string().contains("not known");
            (changed && !unsure && !is_tagged(simulated, id))
                .then_some("the definition was changed all the same")
        }
        _ => None,
    };
    let told = match answer {
        Ok(Reply::Adoption(adoption)) => format!("{:?} {:?}", adoption.state, adoption.notes),
        other => format!("{other:?}"),
    };
    trouble.map(|trouble| format!("{trouble} of domain {id}: {told}"))
}

fn false_adoption(
    simulated: &Simulated,
    id: DomainId,
    before: &str,
    adoption: &AdoptionView,
) -> Option<&'static str> {
    let definitions = simulated.definitions_of(id)?;
    if definitions.persistent?.text == before {
        return Some("the definition was not changed");
    }
    let channel = |line: &&virt_persona::view::AdoptionLine| line.subject == "agent channel";
    let when = adoption.lines.iter().find(channel)?.when;
    let there = definitions
        .live
        .is_some_and(|live| live.text.contains("org.virtpersona.agent.0"));
    let said = adoption
        .notes
        .iter()
        .any(|note| note.contains("agent channel"));
    match when {
        AdoptionWhen::Now if !there => Some("the running domain was not given the channel"),
        AdoptionWhen::NextStart if !said => Some("it is not said why the channel comes later"),
        _ => None,
    }
}

/// Says what is wrong with what the audit tells of an adoption whose answer nobody may have got.
pub(crate) fn untold(
    simulated: &Simulated,
    id: DomainId,
    before: &str,
    audit: &[AuditRecordView],
) -> Option<String> {
    let changed = definition(simulated, id)? != before;
    let mut told = audit
        .iter()
        .filter(|record| record.domain == Some(id) && record.kind == "adoption");
    let told = told.any(|record| record.text.contains("prepared"));
    match (changed, told) {
        (true, false) => Some("the definition was changed, which nobody was told".into()),
        (false, true) => Some("the definition is said to be changed and is not".into()),
        _ => None,
    }
}

/// Prepares the domain, unless it is, and puts its definition back.
///
/// # Errors
/// What was never possible.
pub(crate) async fn adopt_and_undo(
    daemon: &Resident,
    simulated: &Simulated,
    action: Action,
    id: DomainId,
    before: &str,
) -> Result<(), String> {
    let undo = Command::UndoAdoption {
        domain: DomainName(action.name()),
        mode: Mode::Apply,
    };
    let adopt = action.asked().into_iter();
    for command in adopt.chain([undo]) {
        let mut answer = daemon.ask(command.clone()).await;
        for _ in 0..AGAIN.0 {
            if answer.is_ok() {
                break;
            }
            sleep(AGAIN.1).await;
            answer = daemon.ask(command.clone()).await;
        }
        let undone = matches!(command, Command::UndoAdoption { .. });
        let is_before = definition(simulated, id).as_deref() == Some(before);
        match answer {
            Ok(Reply::Adoption(adoption)) if adoption.state != AdoptionState::Planned => {
                if is_before != undone {
                    return Err(format!("claimed but not so: {adoption:?}"));
                }
            }
            other => return Err(format!("{command:?} is never done: {other:?}")),
        }
    }
    Ok(())
}

/// Approves whatever is proposed for a domain, until the daemon ends.
pub(crate) async fn approve_all(person: Person, id: DomainId) {
    let mut person = person;
    loop {
        let mut open = None;
        let proposed = person.views.wait_for(|view| {
            let proposals = view.domains.get(&id).map(|domain| &domain.proposals);
            open = proposals
                .into_iter()
                .flatten()
                .find(|of| of.state == ProposalState::Open)
                .map(|of| of.id);
            open.is_some()
        });
        if proposed.await.is_err() {
            return;
        }
        // Where it is not to be had any more there will be another.
        if let Some(id) = open
            && person.ask(Command::Approve { id }).await.is_none()
        {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
}
