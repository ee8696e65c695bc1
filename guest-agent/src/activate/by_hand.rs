//! What root in the guest may do to the sequence: go back to a generation that is kept. It is the same sequence, with the same
//! journal, without scripts and without a generation of its own: generations are the host's. What comes of it holds until
//! the host's next activation or deactivation, and the host is told.

use std::collections::BTreeSet;

use agent_protocol::{RequestId, message::ReplyBody};

use super::{ActivateError, Activator, Scripts, own::Sight, unix_time};
use crate::{
    customize::{BadValue, Full, Key, UnknownKey, VALUE_MAX},
    log::{chain, log},
    store::{Fate, Journal, Record, Rollback, Step},
};

/// Why nobody can go back there, or have something otherwise.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ByHandError {
    #[error("no persona was ever active here, so there is nothing to go back to")]
    Nothing,
    #[error("no generation before {holding} is kept that ever held")]
    NoneBefore { holding: u64 },
    #[error(
        "generation {generation} is not kept, or never held; `virt-persona-agent history` lists them"
    )]
    NotKept { generation: u64 },
    #[error(
        "no persona is active; only what holds under every persona can be customised (--sticky)"
    )]
    NoPersona,
    #[error(transparent)]
    Key(#[from] UnknownKey),
    #[error(transparent)]
    Value(#[from] BadValue),
    #[error("a value that is longer than {VALUE_MAX} bytes cannot be customised")]
    TooLong,
    #[error("lines of one's own are written into the file itself")]
    Lines,
    #[error("{key} is not customised; `virt-persona-agent customize` lists what is")]
    NotCustomized { key: Key },
    #[error(transparent)]
    Full(#[from] Full),
    #[error("with what the persona has it would be more than an activation can have")]
    TooMuchTogether,
    #[error("{0}")]
    Failed(String),
    #[error("it cannot be done")]
    Sequence(#[from] ActivateError),
}

impl Activator {
    /// Makes the guest again what it was in a generation that is kept, by default the one before what holds; says what
    /// holds then.
    pub(crate) fn go_back(
        &mut self,
        to: Option<u64>,
        scripts: &mut impl Scripts,
    ) -> Result<String, ByHandError> {
        // Nothing begins before what an earlier fault left is out of the way.
        if self.store.journal().is_some() {
            self.recover(scripts)?;
        }
        self.absorb(Sight::All, scripts)?;
        let current = self.store.current().ok_or(ByHandError::Nothing)?.clone();
        let holding = current
            .rollback
            .as_ref()
            .map_or(current.generation, |rollback| rollback.to);
        let past = self.kept(to, holding)?;
        let to = past.generation;
        if to == holding {
            return Ok(format!("{} holds already", what(&past)));
        }
        let number = current.generation;
        let request = self.request_by_hand(&current)?;
        let instead_of = current.active();
        let record = Record {
            generation: number,
            request: request.clone(),
            at_unix_s: unix_time().as_secs(),
            rollback: (to != number).then_some(Rollback { to, instead_of }),
            own: current.own,
            ..past
        };
        let said = what(&Record {
            generation: to,
            ..record.clone()
        });
        self.carry_out_by_hand(request, record, BTreeSet::new(), scripts)?;
        Ok(format!("{said} holds again"))
    }

    /// A generation that held once and is kept: this one, or the newest before what holds.
    fn kept(&self, to: Option<u64>, holding: u64) -> Result<Record, ByHandError> {
        let store = &self.store;
        let numbers = store.generations().map_err(ActivateError::from)?;
        for number in numbers.into_iter().rev() {
            if to.map_or(number >= holding, |to| number != to) {
                continue;
            }
            let record = store.record(number).map_err(ActivateError::from)?;
            let held = |record: &Record| matches!(record.fate, Fate::Activated | Fate::Deactivated);
            if let Some(record) = record.filter(held) {
                return Ok(record);
            }
        }
        Err(match to {
            Some(generation) => ByHandError::NotKept { generation },
            None => ByHandError::NoneBefore { holding },
        })
    }

    /// A name for what is done by hand to what holds.
    pub(super) fn request_by_hand(&self, current: &Record) -> Result<RequestId, ByHandError> {
        let request = format!("by-hand-{}-{}", current.generation, unix_time().as_nanos());
        // Digits and hyphens are within what an identifier may have.
        RequestId::new(request).map_err(|error| ByHandError::Failed(chain(&error)))
    }

    pub(super) fn carry_out_by_hand(
        &mut self,
        request: RequestId,
        record: Record,
        taken: BTreeSet<String>,
        scripts: &mut impl Scripts,
    ) -> Result<(), ByHandError> {
        let journal = Journal {
            request,
            generation: record.generation,
            step: Step::Prepared,
            boot_id: self.boot_id.clone(),
            pre: record.pre.clone(),
            post: record.post.clone(),
            failure: None,
            settings: None,
            software: None,
            by_hand: Some(Box::new(record)),
            taken,
        };
        self.files.check_ours().map_err(ActivateError::from)?;
        self.conduct(journal, scripts)
    }

    /// Goes through an operation that somebody or something in the guest asks for, from where its journal stands.
    pub(super) fn conduct(
        &mut self,
        journal: Journal,
        scripts: &mut impl Scripts,
    ) -> Result<(), ByHandError> {
        let written = self.store.write_journal(&journal);
        let done = written
            .map_err(ActivateError::from)
            .and_then(|()| self.proceed(journal, scripts));
        match done {
            Ok(ReplyBody::Ok(_)) => Ok(()),
            Ok(ReplyBody::Err(error)) => Err(ByHandError::Failed(error.message)),
            Err(error) => {
                log!("what was asked for by hand failed: {}", chain(&error));
                let failure = super::verdict::storage(&error);
                self.undo_after_fault(failure, scripts);
                Err(error.into())
            }
        }
    }
}

fn what(record: &Record) -> String {
    let persona = record.activation.as_ref().map_or_else(
        || "no persona".to_owned(),
        |activation| format!("{} version {}", activation.persona, activation.version),
    );
    format!("generation {} ({persona})", record.generation)
}
