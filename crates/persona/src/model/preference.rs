//! What `priority_metrics` come to: which metrics matter, and which resource a persona fights for first. The latter only
//! moves a domain's weight from one resource to the other, so that no document gains by what it says about itself: the
//! two weights keep their sum where the shares are alike. The planner asks where both resources are short and a domain wants both.

use std::collections::BTreeMap;

use super::{Persona, PriorityMetrics};
use crate::rule::Resource;
use crate::signal::Metric;

/// What a persona's priorities put on vCPUs and on memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Preference {
    vcpus: f64,
    memory: f64,
}

impl Preference {
    /// What the weights of a persona come to.
    pub fn of(persona: &Persona) -> Self {
        Self::weigh(persona.priorities.iter(), &persona.metric_groups)
    }

    /// A group's weight is split evenly among its metrics, so that a group of one metric of each resource prefers
    /// neither.
    fn weigh<'a>(
        priorities: impl Iterator<Item = (&'a str, f64)>,
        groups: &BTreeMap<String, Vec<String>>,
    ) -> Self {
        let mut sum = Self::default();
        for (name, weight) in priorities {
            let members = members(name, groups);
            #[allow(clippy::cast_precision_loss)]
            let each = weight / members.len().max(1) as f64;
            for member in members {
                // What applications measure speaks for no resource, and counts among the others all the same.
                match member.parse().ok().and_then(served_by) {
                    Some(Resource::Vcpus) => sum.vcpus += each,
                    Some(Resource::Memory) => sum.memory += each,
                    None => {}
                }
            }
        }
        sum
    }

    /// The weight with which a domain of this share claims a resource when it cannot have both: between nothing and
    /// twice the share. A persona that is silent, or that weighs both alike, keeps its share.
    pub fn share(&self, resource: Resource, share: u32) -> u32 {
        let mine = match resource {
            Resource::Vcpus => self.vcpus,
            Resource::Memory => self.memory,
        };
        let all = self.vcpus + self.memory;
        if all <= 0.0 || !all.is_finite() {
            return share;
        }
        // The cast saturates, and a share of nothing counts as 1.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let moved = (f64::from(share) * 2.0 * mine / all).round() as u32;
        moved.max(1)
    }

    /// Whether it leaves every share as it is.
    pub fn is_even(&self) -> bool {
        self.share(Resource::Vcpus, 1000) == 1000
    }
}

/// Metrics that are watched for one persona at most.
const MOST_WATCHED: usize = 16;

impl Persona {
    /// The metrics that the persona prioritises, the weightiest first: members of groups for their groups; where the
    /// document is silent, those of the group `performance`. What applications measure is not among them.
    pub fn prioritised_metrics(&self) -> Vec<Metric> {
        let silent = PriorityMetrics {
            weights: BTreeMap::from([("performance".to_owned(), 1.0)]),
        };
        let priorities = if self.priorities.is_empty() {
            &silent
        } else {
            &self.priorities
        };
        let mut names: Vec<(&str, f64)> = priorities
            .iter()
            .filter(|(_, weight)| *weight > 0.0)
            .collect();
        names.sort_by(|one, other| other.1.total_cmp(&one.1));
        let mut metrics = Vec::new();
        for (name, _) in names {
            for metric in members(name, &self.metric_groups)
                .into_iter()
                .flat_map(str::parse)
            {
                if !metrics.contains(&metric) && metrics.len() < MOST_WATCHED {
                    metrics.push(metric);
                }
            }
        }
        metrics
    }
}

/// What a name of `priority_metrics` stands for: a group of the document, a built-in one, or a metric.
fn members<'a>(name: &'a str, groups: &'a BTreeMap<String, Vec<String>>) -> Vec<&'a str> {
    if let Some(group) = groups.get(name) {
        return group.iter().map(String::as_str).collect();
    }
    let built_in = PriorityMetrics::BUILT_IN
        .iter()
        .find(|(group, _)| *group == name);
    built_in.map_or_else(|| vec![name], |(_, members)| members.to_vec())
}

/// The resource that more of would better a metric. `vcpu.count` and `memory.size` are what a machine costs: who cares
/// for them does not fight for more.
fn served_by(metric: Metric) -> Option<Resource> {
    match metric {
        Metric::CpuUtilization
        | Metric::CpuSteal
        | Metric::CpuThrottled
        | Metric::CpuPressure
        | Metric::GuestLoad => Some(Resource::Vcpus),
        Metric::MemoryUtilization
        | Metric::MemoryAvailable
        | Metric::MemoryPressure
        | Metric::MemorySwapIn
        | Metric::MemoryMajorFaults
        | Metric::GuestMemoryPressure
        | Metric::GuestMajorFaults => Some(Resource::Memory),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Format, SourceText};

    #[test]
    fn the_weightiest_metrics_come_first_and_groups_stand_for_their_members() {
        let cases = [
            (
                "{}",
                "cpu.utilization memory.utilization disk.latency network.latency",
            ),
            (
                "{cost: 0.2, memory.pressure: 0.8}",
                "memory.pressure vcpu.count memory.size",
            ),
            ("{mine: 1}", "cpu.steal memory.pressure"),
            ("{guest.app.orders: 1}", ""),
        ];
        for (priorities, expected) in cases {
            let text = format!(
                "name: x\nmetric_groups: {{mine: [cpu.steal, memory.pressure]}}\npriority_metrics: {priorities}\n"
            );
            let source = SourceText {
                name: "x.yaml",
                text: text.as_bytes(),
                format: Format::Yaml,
                persona_name: None,
            };
            let persona = crate::load(&source).unwrap().persona;
            let metrics = persona.prioritised_metrics();
            let names: Vec<&str> = metrics.iter().map(|metric| metric.name()).collect();
            assert_eq!(names.join(" "), expected, "{priorities}");
        }
    }

    #[test]
    fn priorities_move_weight_from_one_resource_to_the_other() {
        let groups = BTreeMap::from([
            (
                "speed".to_owned(),
                vec!["cpu.steal".to_owned(), "cpu.utilization".to_owned()],
            ),
            ("cost".to_owned(), vec!["memory.pressure".to_owned()]),
        ]);
        let none = BTreeMap::new();
        let cases: [(&[(&str, f64)], _, _); 8] = [
            (&[], &none, (1000, 1000)),
            (&[("cpu.utilization", 1.0)], &none, (2000, 1)),
            (
                &[("cpu.utilization", 0.75), ("memory.utilization", 0.25)],
                &none,
                (1500, 500),
            ),
            // The built-in group has one metric of each.
            (&[("performance", 1.0)], &none, (1000, 1000)),
            (
                &[("performance", 0.5), ("memory.pressure", 0.25)],
                &none,
                (500, 1500),
            ),
            // Neither says which of the two matters.
            (&[("security", 0.2), ("cost", 0.8)], &none, (1000, 1000)),
            (
                &[("speed", 0.5), ("memory.pressure", 0.5)],
                &groups,
                (1000, 1000),
            ),
            // The document's own group goes before the built-in one of its name.
            (&[("cost", 1.0)], &groups, (1, 2000)),
        ];
        for (priorities, groups, expected) in cases {
            let preference = Preference::weigh(priorities.iter().copied(), groups);
            let shares = (
                preference.share(Resource::Vcpus, 1000),
                preference.share(Resource::Memory, 1000),
            );
            assert_eq!(shares, expected, "{priorities:?}");
            assert_eq!(preference.is_even(), expected == (1000, 1000));
        }
    }
}
