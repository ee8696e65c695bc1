//! The way back: what an earlier run left is finished or undone at the start, and what failed is undone. The sequence itself is in
//! the head of this room, the way to its end in `conclusion`.

use agent_protocol::message::{ReplyBody, ReplyError};

use super::{ActivateError, Activator, RoutingError, Scripts, own::Sight, verdict::interrupted};
use crate::{
    log::{chain, log},
    script::stop_leftovers,
    setting::{Plan, SoftwarePlan},
    store::{Fate, Journal, Record, Step},
};

impl Activator {
    /// Finishes or undoes what an earlier run left, and makes sure that the environment is the recorded one.
    pub(crate) fn recover(&mut self, scripts: &mut impl Scripts) -> Result<(), ActivateError> {
        if let Some(journal) = self.store.journal().cloned() {
            log!(
                "generation {} was left at step {:?}; it is finished or undone",
                journal.generation,
                journal.step
            );
            if journal.boot_id == self.boot_id {
                stop_leftovers(&self.root, &journal.request);
            }
            self.proceed(journal, scripts)?;
        }
        self.renew_settings(scripts)?;
        if let Err(error) = self.absorb(Sight::Files, scripts) {
            log!("{}", chain(&error));
        }
        let environment = self.environment_now();
        // Without any generation the files are not the agent's business; what could not be taken up is left as it is.
        if self.store.current().is_some()
            && !self.files.hold(&environment)?
            && self
                .files
                .changes(&environment)
                .is_ok_and(|changes| changes.is_empty())
        {
            match self.files.check_ours() {
                Ok(()) => {
                    log!(
                        "the environment files differ from the recorded generation; they are written again"
                    );
                    self.files.write(&environment)?;
                }
                // All else of the persona holds none the less.
                Err(error) => log!("{}", chain(&error)),
            }
        }
        if let Err(error) = self.keep_closed(scripts) {
            log!("{}", chain(&error));
        }
        // Links are gone after a restart of the guest, and its owner may have changed his mind.
        self.hold_routing()?;
        if let Some(request) = self.store.current().map(|current| current.request.clone()) {
            self.hold_features(&request, scripts);
        }
        Ok(())
    }

    /// Routes commands as the current generation says. A file of somebody's that is in the way stays, and stops nothing else.
    fn hold_routing(&self) -> Result<(), ActivateError> {
        match self.routing.hold(self.store.current()) {
            Err(error @ RoutingError::Foreign { .. }) => {
                log!("{}", chain(&error));
                Ok(())
            }
            held => Ok(held?),
        }
    }

    /// Back to what was, with what failed as the answer.
    pub(super) fn roll_back(
        &mut self,
        mut journal: Journal,
        record: Option<Record>,
        scripts: &mut impl Scripts,
    ) -> Result<ReplyBody, ActivateError> {
        let error = journal
            .failure
            .take()
            .unwrap_or_else(|| interrupted("it was cut off"));
        if self
            .store
            .current()
            .is_some_and(|current| current.request == journal.request)
        {
            // The fault came after the flip: the generation holds, only the journal was left to remove.
            self.store.clear_journal()?;
            return Ok(self
                .store
                .result(&journal.request)
                .cloned()
                .unwrap_or(ReplyBody::Err(error)));
        }
        let error = self.undo_settings(&journal, error, scripts);
        let error = self.undo_software(&journal, error, scripts);
        // By the plan and not by what ran just now: an agent that was killed may have run it before.
        let settings = journal.settings.as_ref().is_some_and(Plan::needs_programs);
        let packages = |plan: &SoftwarePlan| !plan.fresh.is_empty();
        if settings || journal.software.as_ref().is_some_and(packages) {
            self.settle()?;
        }
        self.files.write(&self.environment_now())?;
        self.hold_routing()?;
        let current = self.store.current();
        let active = current.and_then(|current| current.activation.as_ref());
        self.look_out(self.closed_commands(active));
        self.hold_features(&journal.request, scripts);
        let answer = ReplyBody::Err(error.clone());
        self.store.remember(&journal.request, &answer)?;
        if let Some(record) = record.filter(|_| journal.by_hand.is_none()) {
            let (pre, post) = (journal.pre, journal.post);
            self.store.write_record(Record {
                fate: Fate::Failed,
                pre,
                post,
                error: Some(error.clone()),
                ..record
            })?;
        }
        self.store.clear_journal()?;
        log!(
            "generation {} failed, what was before holds: {error}",
            journal.generation
        );
        Ok(answer)
    }

    /// After a fault in mid-sequence: back to what was, as far as the disk lets us; the next start tries again otherwise. What
    /// holds already is gone on with.
    pub(super) fn undo_after_fault(&mut self, failure: ReplyError, scripts: &mut impl Scripts) {
        let Some(mut journal) = self.store.journal().cloned() else {
            return;
        };
        let current = self.store.current();
        let next = if current.is_some_and(|current| current.request == journal.request) {
            Step::Current
        } else {
            Step::RollingBack
        };
        journal.failure.get_or_insert(failure);
        // Where this cannot be recorded nothing is undone: what is recorded goes forward.
        let ended = self
            .reach(&mut journal, next)
            .and_then(|()| self.proceed(journal, scripts));
        if let Err(error) = ended {
            log!(
                "it cannot be undone now and is tried again later: {}",
                chain(&error)
            );
        }
    }
}
