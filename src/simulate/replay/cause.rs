//! Why something happened in a replay: whose wish it was, and what that looked at. Called by `replay` for each thing that it tells.

use persona::Moment;
use persona::rule::{Condition, Truth};
use planner::Plan;
use planner::report::{Reason, ResourceReport, Wish};

use super::Replay;
use crate::simulate::happening::{Bound, Cause, Happening, Sample, What};

impl Replay<'_> {
    pub(super) fn refusal(
        &self,
        plan: &Plan,
        line: &ResourceReport,
        by: &Wish,
        reason: &Reason,
        wanted: u64,
    ) -> Happening {
        let what = What::Refused {
            resource: line.resource,
            present: line.present,
            wanted,
            clamps: Bound::all(&line.clamps),
            reason: reason.sentence(line.resource),
        };
        let cause = self.cause(plan, by);
        Happening::new(self.moment(plan.at), cause, what, None)
    }

    /// Who has a wish, and what it rests on.
    pub(super) fn cause(&self, plan: &Plan, by: &Wish) -> Cause {
        let rule = match by {
            Wish::Rule(name) | Wish::Undo(name) => self.index(name),
            Wish::Minimum
            | Wish::Maximum
            | Wish::Initial
            | Wish::Return
            | Wish::Need
            | Wish::Donation(_)
            | Wish::Base
            | Wish::BackOnline
            | Wish::Guest(_)
            | Wish::Quota { .. }
            | Wish::Restore => None,
        };
        let rule = rule.map(|index| &self.persona.rules[index]);
        let condition = rule.and_then(|rule| match by {
            Wish::Undo(_) => rule.until.as_ref(),
            _ => Some(&rule.when),
        });
        let samples = self.samples(plan, by);
        Cause {
            rule: rule.map(|rule| rule.name.to_string()),
            by: by.to_string(),
            condition: condition
                .filter(|_| samples.is_empty())
                .map(Condition::text),
            samples,
        }
    }

    /// What was looked at for a wish.
    fn samples(&self, plan: &Plan, by: &Wish) -> Vec<Sample> {
        match by {
            Wish::Rule(name) => {
                let reports = plan.reports.iter().flat_map(|report| &report.rules);
                let looked = reports
                    .filter(|report| report.name == *name && report.truth == Truth::True)
                    .flat_map(|report| &report.looked);
                looked
                    .map(|looked| Sample::looked(looked, plan.at))
                    .collect()
            }
            Wish::Undo(name) => self
                .index(name)
                .and_then(|index| self.persona.rules[index].until.as_ref())
                .map_or_else(Vec::new, |until| {
                    Sample::read(until, &self.machine, plan.at)
                }),
            Wish::Minimum
            | Wish::Maximum
            | Wish::Initial
            | Wish::Return
            | Wish::Need
            | Wish::Donation(_)
            | Wish::Base
            | Wish::BackOnline
            | Wish::Guest(_)
            | Wish::Quota { .. }
            | Wish::Restore => Vec::new(),
        }
    }

    pub(super) fn index(&self, rule: &str) -> Option<usize> {
        self.persona
            .rules
            .iter()
            .position(|known| known.name == rule)
    }

    /// A moment as the trace says it, and in seconds since its beginning.
    pub(super) fn moment(&self, now: Moment) -> (String, f64) {
        (
            self.survey.form.show(now),
            now.since(self.survey.first).as_secs_f64(),
        )
    }
}
