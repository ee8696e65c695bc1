//! Where the sequence of an activation meets settings: planning them, carrying them out, undoing them, and setting again what
//! the kernel lost with its last boot. What a setting is and does is in `setting`.

use agent_protocol::{
    SettingLine, SettingOutcome, SettingsReply,
    activation::Change,
    message::{ErrorCode, ReplyError, Retry},
};

use super::{ActivateError, Activator, Aim, Scripts, own};
use crate::{
    log::{chain, log},
    setting::{Machine, Plan, Renewed, SettingError, Wishes, close, plan, wishes},
    store::{Journal, Record, Step},
};

impl Activator {
    /// Plans what is to be done about settings, and goes on to doing it or, where the guest cannot be like that, back.
    pub(super) fn plan_settings(
        &mut self,
        journal: &mut Journal,
        aim: Aim<'_>,
        scripts: &mut impl Scripts,
    ) -> Result<(), ActivateError> {
        let closed = self.closed_commands(aim.activation);
        // Before they are looked at, so that one that comes after that is heard of.
        self.look_out(closed);
        let current = self.store.current();
        let mut held = current.map_or_else(Vec::new, |record| record.held.clone());
        let mut machine = self.machine(journal, scripts);
        // Where the guest was started anew before this was planned the kernel has forgotten what it held: that is no change of
        // somebody's, and what holds until now holds again before anything is compared with it.
        machine.renew(&mut held, &self.boot_id);
        for holding in &mut held {
            if journal.taken.contains(&holding.setting)
                && let Ok(live) = machine.probe(&holding.resource)
            {
                holding.written = live;
            }
        }
        let planned = aim
            .activation
            .map_or(Ok(Wishes::default()), |activation| {
                wishes(&activation.settings, &mut machine)
            })
            .and_then(|mut wishes| {
                wishes.found(&own::found_settings(aim.overlay));
                close(closed, &mut held, &mut machine, &mut wishes)?;
                plan(&held, wishes, &self.boot_id, |resource| {
                    machine.probe(resource)
                })
            });
        match planned {
            Ok(mut plan) => {
                machine.make_reversible(&mut plan);
                own::say(&mut plan.lines, aim.overlay);
                let next = if plan.deeds.is_empty() {
                    Step::EnvironmentStarted
                } else {
                    Step::SettingsStarted
                };
                journal.settings = Some(plan);
                self.reach(journal, next)
            }
            Err(error) => {
                journal.failure = Some(failure(&error));
                self.reach(journal, Step::RollingBack)
            }
        }
    }

    /// Does what is planned, from wherever it stands.
    pub(super) fn carry_out_settings(
        &mut self,
        journal: &mut Journal,
        scripts: &mut impl Scripts,
    ) -> Result<(), ActivateError> {
        let mut plan = journal.settings.clone().unwrap_or_default();
        let done = self.machine(journal, scripts).carry_out(&mut plan);
        let next = match done {
            Ok(()) => {
                if plan.needs_programs() {
                    self.settle()?;
                }
                journal.settings = Some(plan);
                Step::EnvironmentStarted
            }
            Err(error) => {
                journal.failure = Some(failure(&error));
                Step::RollingBack
            }
        };
        self.reach(journal, next)
    }

    /// Undoes what was done; what cannot be undone is added to the failure that made it necessary.
    pub(super) fn undo_settings(
        &self,
        journal: &Journal,
        error: ReplyError,
        scripts: &mut impl Scripts,
    ) -> ReplyError {
        let Some(plan) = journal.settings.as_ref().filter(|plan| has_deeds(plan)) else {
            return error;
        };
        let left = self.machine(journal, scripts).undo(plan);
        if left.is_empty() {
            return error;
        }
        log!("not undone: {}", left.join("; "));
        ReplyError {
            message: agent_protocol::message::clean_text(
                &format!("{}; and not undone: {}", error.message, left.join("; ")),
                agent_protocol::limits::MESSAGE_MAX,
            ),
            ..error
        }
    }

    /// After a boot: the kernel has forgotten what only it held.
    pub(super) fn renew_settings(
        &mut self,
        scripts: &mut impl Scripts,
    ) -> Result<(), ActivateError> {
        let Some(mut record) = self.store.current().cloned() else {
            return Ok(());
        };
        let mut machine = Machine::new(
            &self.root,
            self.store.writer(),
            scripts,
            record.request.clone(),
        );
        if machine.renew(&mut record.held, &self.boot_id) == Renewed::Something {
            self.store.write_record(record.clone())?;
            self.store.make_current(record)?;
        }
        Ok(())
    }
}

fn has_deeds(plan: &Plan) -> bool {
    !plan.deeds.is_empty()
}

pub(super) fn failure(error: &SettingError) -> ReplyError {
    let retry = match error {
        SettingError::Refused { .. } => Retry::Useless,
        _ => Retry::Useful,
    };
    ReplyError::new(ErrorCode::SettingRefused, chain(error), retry)
}

/// What an answer says of settings: nothing where none are asked for and none were held, as to a host that knows none; of
/// an activation that holds already, that nothing changed. `people` is what is said of commands, as of one setting more.
pub(super) fn reply(
    record: &Record,
    outcome: Change,
    people: Option<SettingLine>,
) -> Option<SettingsReply> {
    let asked = record
        .activation
        .as_ref()
        .is_some_and(|activation| !activation.settings.is_empty());
    if !asked && record.settings.is_empty() && people.is_none() {
        return None;
    }
    let mut lines = record.settings.clone();
    if outcome == Change::Unchanged {
        for line in &mut lines {
            if line.outcome < SettingOutcome::Kept {
                line.outcome = SettingOutcome::Unchanged;
            }
        }
    }
    lines.extend(people);
    Some(SettingsReply::fit(&lines))
}
