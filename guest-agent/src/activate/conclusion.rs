//! The end of the sequence: the generation becomes the current one, then goes what no persona wants any more, and the host gets
//! its answer.

use agent_protocol::{
    ActivationReply, SettingLine,
    activation::Change,
    message::{DeactivationReply, ErrorCode, ReplyBody},
};

use super::{
    ActivateError, Activator, EnvironmentFiles, Scripts, settings,
    software::Released,
    verdict::{interrupted, refusal, shorten},
};
use crate::{
    log::{chain, log},
    rules,
    setting::Plan,
    store::{Fate, Journal, Record},
};

impl Activator {
    /// Makes the generation the current one, with the answer kept that the request gets.
    pub(super) fn commit(
        &mut self,
        journal: &Journal,
        mut record: Record,
    ) -> Result<(), ActivateError> {
        let before = self
            .store
            .current()
            .filter(|current| current.request != record.request);
        let environment_before = before.map(Record::environment).unwrap_or_default();
        let was_active = before.is_some_and(|before| before.activation.is_some());
        record.fate = if record.activation.is_some() {
            Fate::Activated
        } else {
            Fate::Deactivated
        };
        let software = journal.software.clone().unwrap_or_default();
        let Plan { held, lines, .. } = journal.settings.clone().unwrap_or_default();
        record.held = held;
        record.settings = self.said(&record, software.lines, lines);
        record.software = software.owned;
        record.pre = journal.pre.clone();
        record.post = journal.post.clone();
        let changed = record.activation.is_some() || was_active;
        let change = if changed {
            Change::Changed
        } else {
            Change::Unchanged
        };
        let answer = self.answer(&record, change, environment_before != record.environment());
        // The answer comes first: once the generation is current, it cannot be worked out again.
        let answer = match self.store.result(&journal.request) {
            Some(known) => known.clone(),
            None => answer,
        };
        self.routing.hold(Some(&record))?;
        self.store.remember(&journal.request, &answer)?;
        self.store.write_record(record.clone())?;
        self.store.make_current(record)?;
        log!("generation {} holds", journal.generation);
        Ok(())
    }

    /// What is said of rules, packages and settings, in this order.
    fn said(
        &self,
        record: &Record,
        software: Vec<SettingLine>,
        settings: Vec<SettingLine>,
    ) -> Vec<SettingLine> {
        let of_rules = |activation| rules::lines(activation, self.rules.leave);
        let mut said = record.activation.as_ref().map(of_rules).unwrap_or_default();
        said.extend(software);
        said.extend(settings);
        said
    }

    /// What no persona wants any more goes, now that nothing can fail the generation that does without it.
    pub(super) fn conclude(
        &mut self,
        mut journal: Journal,
        scripts: &mut impl Scripts,
    ) -> Result<ReplyBody, ActivateError> {
        let is_it = |current: &&Record| current.request == journal.request;
        let current = self.store.current().filter(is_it).cloned();
        if let Some(mut record) = current
            && self.release_software(&mut journal, scripts) == Released::Something
        {
            self.settle()?;
            let software = journal.software.clone().unwrap_or_default();
            let Plan { lines, .. } = journal.settings.clone().unwrap_or_default();
            record.settings = self.said(&record, software.lines, lines);
            record.software = software.owned;
            let known = self.store.result(&journal.request).cloned();
            if let Some(ReplyBody::Ok(mut answer)) = known {
                self.say_settings(&mut answer, &record);
                self.store
                    .remember(&journal.request, &ReplyBody::Ok(answer))?;
            }
            self.store.write_record(record)?;
        }
        self.hold_features(&journal.request, scripts);
        self.store.clear_journal()?;
        let known = self.store.result(&journal.request).cloned();
        Ok(known.unwrap_or_else(|| ReplyBody::Err(interrupted("its answer is gone"))))
    }

    /// Says anew in an answer what came of settings.
    fn say_settings(&self, answer: &mut serde_json::Value, record: &Record) {
        let outcome = answer.get("outcome").cloned().unwrap_or_default();
        let outcome = serde_json::from_value(outcome).unwrap_or(Change::Changed);
        let settings = settings::reply(record, outcome, self.routing.line(record, outcome));
        if let (Some(answer), Some(settings)) = (answer.as_object_mut(), settings)
            && let Ok(settings) = serde_json::to_value(settings)
        {
            answer.insert("settings".to_owned(), settings);
        }
    }

    pub(super) fn answer(
        &self,
        record: &Record,
        outcome: Change,
        needs_relogin: bool,
    ) -> ReplyBody {
        let generation = record.generation;
        let settings = settings::reply(record, outcome, self.routing.line(record, outcome));
        let value = if record.activation.is_some() {
            let environment_files = EnvironmentFiles::paths(&record.in_files());
            let (pre, post) = (
                record.pre.as_ref().map(shorten),
                record.post.as_ref().map(shorten),
            );
            serde_json::to_value(ActivationReply {
                generation,
                outcome,
                pre,
                post,
                environment_files,
                needs_relogin,
                settings,
            })
        } else {
            serde_json::to_value(DeactivationReply {
                generation,
                outcome,
                needs_relogin,
                settings,
            })
        };
        match value {
            Ok(value) => ReplyBody::Ok(value),
            Err(error) => refusal(ErrorCode::Storage, chain(&error)),
        }
    }
}
