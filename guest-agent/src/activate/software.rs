//! Where the sequence of an activation meets packages: planning them, installing, undoing, and removing last what no persona
//! wants any more. What is done about a package is in `setting::software`.

use agent_protocol::{
    limits::MESSAGE_MAX,
    message::{ReplyError, clean_text},
};

use super::{ActivateError, Activator, Aim, Scripts, settings::failure};
use crate::{
    log::{chain, log},
    setting::{
        Machine, Programs, SoftwarePlan, install_software, plan_software, release_software,
        undo_software,
    },
    store::{Journal, Step},
};

/// Whether there was something that no persona wants any more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Released {
    Something,
    Nothing,
}

impl Activator {
    /// Plans what is to be done about packages, and goes on to doing it; where nothing is, to the settings.
    pub(super) fn plan_software(
        &mut self,
        journal: &mut Journal,
        aim: Aim<'_>,
        scripts: &mut impl Scripts,
    ) -> Result<(), ActivateError> {
        let current = self.store.current();
        let owned = current
            .map(|record| record.software.clone())
            .unwrap_or_default();
        let wanted = aim
            .activation
            .map_or(&[][..], |activation| &activation.settings.software);
        let planned = plan_software(wanted, &owned, &mut self.machine(journal, scripts));
        match planned {
            Ok(plan) => {
                let idle = plan.orders.is_empty();
                journal.software = Some(plan);
                if idle {
                    return self.plan_settings(journal, aim, scripts);
                }
                self.reach(journal, Step::SoftwareStarted)
            }
            Err(error) => {
                journal.failure = Some(failure(&error));
                self.reach(journal, Step::RollingBack)
            }
        }
    }

    /// Installs what is planned, from wherever it stands, and goes on to the settings.
    pub(super) fn install_software(
        &mut self,
        journal: &mut Journal,
        aim: Aim<'_>,
        scripts: &mut impl Scripts,
    ) -> Result<(), ActivateError> {
        let plan = journal.software.clone().unwrap_or_default();
        let done = install_software(&plan, &mut self.machine(journal, scripts));
        match done {
            Ok(()) => {
                self.settle()?;
                self.plan_settings(journal, aim, scripts)
            }
            Err(error) => {
                journal.failure = Some(failure(&error));
                self.reach(journal, Step::RollingBack)
            }
        }
    }

    /// Removes what no persona wants any more. Nothing of it can fail the activation.
    pub(super) fn release_software(
        &mut self,
        journal: &mut Journal,
        scripts: &mut impl Scripts,
    ) -> Released {
        let leaves = |plan: &mut SoftwarePlan| !plan.leaving.is_empty();
        let Some(mut plan) = journal.software.take_if(leaves) else {
            return Released::Nothing;
        };
        release_software(&mut plan, &mut self.machine(journal, scripts));
        journal.software = Some(plan);
        Released::Something
    }

    /// Removes what this activation has installed; what cannot be is added to the failure that made it necessary.
    pub(super) fn undo_software(
        &self,
        journal: &Journal,
        error: ReplyError,
        scripts: &mut impl Scripts,
    ) -> ReplyError {
        let Some(plan) = &journal.software else {
            return error;
        };
        match undo_software(plan, &mut self.machine(journal, scripts)) {
            Ok(()) => error,
            Err(left) => {
                let left = chain(&left);
                log!("packages are not removed again: {left}");
                let message = format!("{}; and not undone: {left}", error.message);
                ReplyError {
                    message: clean_text(&message, MESSAGE_MAX),
                    ..error
                }
            }
        }
    }

    pub(super) fn machine<'a>(
        &'a self,
        journal: &Journal,
        programs: &'a mut dyn Programs,
    ) -> Machine<'a> {
        Machine::new(
            &self.root,
            self.store.writer(),
            programs,
            journal.request.clone(),
        )
    }
}
