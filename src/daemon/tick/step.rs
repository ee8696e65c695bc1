//! A step of the plan: it is begun in a task of its own, and what came of it goes to the planner's state, the audit and the view.
//! How it is carried out is in `act`.

use std::time::Duration;

use persona::units::Moment;
use planner::report::Wish;
use planner::{Ending, Step};

use super::json;
use crate::act::{self, Aftermath, Outcome, Settings};
use crate::audit::AuditKind;
use crate::config::Config;
use crate::daemon::event::Event;
use crate::daemon::tracked::slot;
use crate::daemon::{Daemon, show};
use crate::hypervisor::DomainDescription;
use crate::view::{DecisionView, OutcomeWord};

/// How steps are carried out under a configuration.
pub(in crate::daemon) fn settings(config: &Config) -> Settings {
    Settings {
        vcpu_deadline: Duration::from_secs(config.vcpu.deadline_s),
        memory_deadline: Duration::from_secs(config.memory.deadline_s),
        consent_deadline: Duration::from_secs(config.agent.consent_s),
        removal: config.vcpu.removal,
    }
}

impl Daemon {
    pub(super) fn begin_step(&mut self, step: Step, now: Moment) {
        if let Some(domain) = self.domains.get_mut(&step.domain) {
            domain.decision = Some(decision(&step, now, None, step.sentence()));
        }
        self.acting += 1;
        let hands = self.hands.clone();
        self.spawn(async move {
            let lost = Box::new(step.clone());
            let hypervisor = hands.hypervisor.clone();
            // A task of its own once more, so that a fault of ours in it ends as "unknown" and not as silence.
            match tokio::spawn(async move { act::act(&hands, step).await }).await {
                Ok(outcome) => {
                    // The step is under way until what it changed is known, so that the ledger stays an upper bound and
                    // an old description is not taken for a hand's work.
                    let description = hypervisor.describe(outcome.step.domain).await.ok();
                    Event::Acted(Box::new(outcome), description.map(Box::new))
                }
                Err(_) => Event::ActLost(lost),
            }
        });
    }

    pub(in crate::daemon) fn step_ended(
        &mut self,
        mut outcome: Outcome,
        description: Option<DomainDescription>,
    ) {
        self.note_migration(&mut outcome);
        self.acting = self.acting.saturating_sub(1);
        self.ended.0 += 1;
        let now = self.clock.now();
        let (id, resource) = (outcome.step.domain, outcome.step.resource);
        if let Some(domain) = self.domains.get_mut(&id) {
            domain.changed = self.ended;
            domain.step_showed(&outcome);
            if let Some(description) = description {
                self.take_description(description);
            }
        }
        // What the daemon believes is asked for, not what the step saw: where they differ, the next description shows it.
        let overtaken = outcome.aftermath == Aftermath::AskedByOthers;
        let asked = if overtaken {
            // So the next plan sees that a hand has changed it since; of a revert nothing is carried any more.
            Some(outcome.step.to)
        } else {
            let domain = self.domains.get(&id);
            domain.map(|domain| domain.snapshot(now, 1).asked(resource))
        };
        match &outcome.veto {
            Some(veto) => {
                self.state
                    .veto(&outcome.step, veto, asked, &self.policy, now);
                self.recording.touched(id);
            }
            None if outcome.untried || overtaken => {
                self.state.untried(&outcome.step, asked);
                self.recording.touched(id);
            }
            None => self
                .state
                .finish(&outcome.step, outcome.ending, asked, &self.policy, now),
        }
        self.impacts.open.end(&outcome.step, outcome.ending, now);
        self.recording
            .step_ended(now, &outcome.step, outcome.ending, asked);
        match outcome.aftermath {
            Aftermath::Nothing | Aftermath::AskedByOthers => {}
            Aftermath::NeedsReboot => {
                self.state.needs_reboot(id);
                self.recording.touched(id);
            }
            Aftermath::RemovalPending => {
                self.state.may_come_late(id, resource, outcome.step.to);
                self.recording.touched(id);
            }
        }
        let text = outcome.sentence();
        let entry = self.entry(AuditKind::Action, Some(id), &text, json(&outcome));
        self.keep_states(&[id], vec![entry]);
        self.observer.refresh(id);
        if let Some(domain) = self.domains.get_mut(&id) {
            domain.decision = Some(decision(
                &outcome.step,
                now,
                Some(word(outcome.ending)),
                text,
            ));
            domain.outcomes[slot(resource)] = Some(outcome);
        }
        self.look(id);
        self.publish_soon();
    }

    pub(in crate::daemon) fn step_lost(&mut self, step: &Step) {
        let outcome = Outcome {
            step: step.clone(),
            ending: Ending::Unknown,
            requested: step.to,
            plugged: None,
            guest: None,
            asked: None,
            aftermath: Aftermath::Nothing,
            note: Some("the daemon's own task failed; its log has more".into()),
            veto: None,
            untried: false,
        };
        self.step_ended(outcome, None);
    }
}

fn decision(step: &Step, at: Moment, outcome: Option<OutcomeWord>, text: String) -> DecisionView {
    let rule = match &step.by {
        Wish::Rule(name) | Wish::Undo(name) => Some(name.clone()),
        _ => None,
    };
    DecisionView {
        at,
        resource: show::resource(step.resource),
        rule,
        from: Some(step.from),
        to: step.to,
        outcome,
        text,
    }
}

/// The word of an ending.
pub(in crate::daemon) fn word(ending: Ending) -> OutcomeWord {
    match ending {
        Ending::Applied => OutcomeWord::Applied,
        Ending::Partial => OutcomeWord::Partial,
        Ending::Refused => OutcomeWord::Refused,
        Ending::Unknown => OutcomeWord::Unknown,
    }
}
