//! Adoptions in the words of the view: what a plan changes, what putting back changes, and both in a line for the audit.
//! Called by `adopt` for each answer.

use persona::Digest;

use super::Job;
use crate::adopt::{Adoption, Line, LiveStep, When};
use crate::daemon::Daemon;
use crate::daemon::adopted::Adopted;
use crate::hypervisor::DomainId;
use crate::view::{AdoptionLine, AdoptionState, AdoptionView, AdoptionWhen};

impl Daemon {
    fn domain_name(&self, id: DomainId) -> String {
        let tracked = self.domains.get(&id);
        tracked.map_or_else(String::new, |tracked| tracked.description.name.clone())
    }

    pub(super) fn adoption_view(&self, job: &Job, adoption: &Adoption) -> AdoptionView {
        let mut notes = Vec::new();
        if adoption
            .lines
            .iter()
            .any(|line| line.when == When::NextStart)
        {
            notes.push("what comes with the next start comes when the domain is stopped and started again; a reboot inside it is not enough".to_owned());
        }
        if adoption
            .lines
            .iter()
            .any(|line| line.subject == "agent channel")
        {
            notes.push("the guest needs virt-persona-agent too: install it there".to_owned());
        }
        let plan = format!("{:?} {:?}", adoption.lines, adoption.live);
        AdoptionView {
            domain: job.domain,
            name: self.domain_name(job.domain),
            state: if adoption.is_empty() {
                AdoptionState::Unchanged
            } else {
                AdoptionState::Planned
            },
            plan: Digest::of_bytes(plan.as_bytes()).as_str().to_owned(),
            lines: adoption.lines.iter().map(line_view).collect(),
            notes,
        }
    }

    /// `running` is the instance that runs.
    pub(super) fn undo_view(
        &self,
        job: &Job,
        record: &Adopted,
        changes: bool,
        running: Option<Option<u32>>,
    ) -> AdoptionView {
        let mut notes = Vec::new();
        if running.is_some() {
            notes.push("the running domain keeps all that it was started with or given until it is stopped and started again".to_owned());
        }
        if running == Some(record.instance) && !record.live.is_empty() {
            notes.push(format!(
                "it was given, while it ran, and keeps: {}",
                record.live.join(", ")
            ));
        }
        AdoptionView {
            domain: job.domain,
            name: self.domain_name(job.domain),
            state: if changes {
                AdoptionState::Planned
            } else {
                AdoptionState::Unchanged
            },
            plan: Digest::of_bytes(record.before.as_bytes())
                .as_str()
                .to_owned(),
            lines: vec![AdoptionLine {
                subject: "definition".into(),
                now: if changes {
                    format!("as {} prepared it", record.by)
                } else {
                    "as it was before".into()
                },
                then: "as it was before".into(),
                when: if changes {
                    AdoptionWhen::NextStart
                } else {
                    AdoptionWhen::Already
                },
                why: "nobody has changed it since".into(),
            }],
            notes,
        }
    }
}

fn line_view(line: &Line) -> AdoptionLine {
    AdoptionLine {
        subject: line.subject.to_owned(),
        now: line.now.clone(),
        then: line.then.clone(),
        when: match line.when {
            When::Already => AdoptionWhen::Already,
            When::Now => AdoptionWhen::Now,
            When::NextStart => AdoptionWhen::NextStart,
            When::Never => AdoptionWhen::Never,
        },
        why: line.why.clone(),
    }
}

pub(super) fn step_name(step: &LiveStep) -> &'static str {
    match step {
        LiveStep::Attach { what, .. } => what,
        LiveStep::BalloonPeriod(_) => "balloon statistics",
    }
}

/// The parts that change, in one line.
pub(super) fn summary(view: &AdoptionView) -> String {
    let parts: Vec<String> = view
        .lines
        .iter()
        .filter(|line| matches!(line.when, AdoptionWhen::Now | AdoptionWhen::NextStart))
        .map(|line| {
            let when = if line.when == AdoptionWhen::Now {
                "at once"
            } else {
                "with its next start"
            };
            format!("{} {} {when}", line.subject, line.then)
        })
        .collect();
    parts.join("; ")
}
