//! Where the sequence of an activation meets programs that are closed to people whatever becomes of the gate, and what is done
//! between two activations when one of them is replaced. What closing a program is, is in `setting::closed`.

use std::collections::BTreeSet;

use agent_protocol::{Activation, rules::RULE_LINE};

use super::{ActivateError, Activator, Scripts, own::Sight};
use crate::{
    log::{chain, log},
    policy::Leave,
    setting::{
        CLOSED, Guest, Holding, Machine, Resource, SoftwarePlan, Wishes, close, closed_directories,
        plan,
    },
    store::{Journal, Record, Step},
};

fn is_closing(held: &Holding) -> bool {
    matches!(held.resource, Resource::Program(_) | Resource::Override(_))
}

impl Activator {
    /// The commands whose programs the guest's owner wants closed while this is active.
    pub(super) fn closed_commands<'a>(&self, activation: Option<&'a Activation>) -> &'a [String] {
        let wants = self.people.leave == Leave::Granted && self.people.firmness.fail_closed;
        activation
            .filter(|_| wants)
            .map_or(&[], |activation| &activation.commands.restricted)
    }

    /// Looks out for programs of these commands that come anew.
    pub(super) fn look_out(&self, commands: &[String]) {
        if let Some(upgrades) = &self.upgrades {
            upgrades.watch(|| closed_directories(commands, Guest::new(&self.root)));
        }
    }

    /// Closes programs that came since they were closed, and opens those that the owner does not want closed any more.
    /// Whatever it finds, the persona holds.
    pub(crate) fn keep_closed(&mut self, scripts: &mut impl Scripts) -> Result<(), ActivateError> {
        if let Some(upgrades) = &self.upgrades {
            upgrades.looking();
        }
        if self.store.journal().is_some() {
            return self.recover(scripts);
        }
        let concerned = |activator: &Self, record: &Record| {
            let commands = activator.closed_commands(record.activation.as_ref());
            !commands.is_empty() || record.held.iter().any(is_closing)
        };
        if !self
            .store
            .current()
            .is_some_and(|current| concerned(self, current))
        {
            return Ok(());
        }
        // What follows writes the files of variables again.
        if let Err(error) = self.absorb(Sight::Files, scripts) {
            log!("{}", chain(&error));
        }
        let Some(current) = self.store.current().cloned() else {
            return Ok(());
        };
        let commands = self.closed_commands(current.activation.as_ref()).to_owned();
        self.look_out(&commands);
        let (mut held, mut others): (Vec<Holding>, Vec<Holding>) =
            current.held.iter().cloned().partition(is_closing);
        for holding in &mut held {
            self.boot_id.clone_into(&mut holding.boot_id);
        }
        let known = held.clone();
        let request = self.request_by_hand(&current).map_err(super::own::kept)?;
        let mut machine = Machine::new(&self.root, self.store.writer(), scripts, request.clone());
        let mut wishes = Wishes::default();
        let planned = close(&commands, &mut held, &mut machine, &mut wishes).and_then(|()| {
            plan(&held, wishes, &self.boot_id, |resource| {
                machine.probe(resource)
            })
        });
        let mut plan = match planned {
            Ok(plan) => plan,
            Err(error) => {
                log_failure(&error);
                return Ok(());
            }
        };
        let is_new = plan.held != known;
        others.append(&mut plan.held);
        plan.held = others;
        // All else stays as it was said to be.
        let said = current.settings.iter();
        let said = said.filter(|line| !line.setting.starts_with(CLOSED));
        plan.lines = said.cloned().chain(plan.lines).collect();
        if plan.deeds.is_empty() {
            if is_new {
                let record = Record {
                    held: plan.held,
                    settings: plan.lines,
                    ..current
                };
                self.store.write_record(record.clone())?;
                self.store.make_current(record)?;
            }
            return Ok(());
        }
        log!("restricted programs are closed as their names lead now");
        // What rules come to is said anew at the end.
        plan.lines
            .retain(|line| !line.setting.starts_with(RULE_LINE));
        plan.defaults = current.defaults.clone();
        let software = SoftwarePlan {
            owned: current.software.clone(),
            ..SoftwarePlan::default()
        };
        let record = Record {
            request: request.clone(),
            ..current
        };
        let journal = Journal {
            request,
            generation: record.generation,
            step: Step::SettingsStarted,
            boot_id: self.boot_id.clone(),
            pre: record.pre.clone(),
            post: record.post.clone(),
            failure: None,
            software: Some(software),
            settings: Some(plan),
            by_hand: Some(Box::new(record)),
            taken: BTreeSet::new(),
        };
        if let Err(error) = self.conduct(journal, scripts) {
            log_failure(&error);
        }
        Ok(())
    }
}

/// The next change there, or the next start, tries again.
fn log_failure(error: &dyn std::error::Error) {
    log!("restricted programs are not closed: {}", chain(error));
}
