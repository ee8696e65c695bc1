//! `priority_metrics` and `metric_groups`: what matters, as weights of metrics and of groups of them.

use std::collections::BTreeMap;

use super::Reader;
use crate::document::Node;
use crate::limits;
use crate::model::PriorityMetrics;
use crate::problem::{self, Kind, Problem};
use crate::signal::{Metric, MetricError, Named};

/// Weights are kept to this precision, so that the same ratios make the same weights.
const PRECISION: f64 = 1e9;

impl Reader<'_> {
    pub(super) fn metric_groups(&mut self, node: &Node) -> BTreeMap<String, Vec<String>> {
        let key = "metric_groups";
        let mut groups = BTreeMap::new();
        for entry in self.dictionary(node, key, "groups", limits::MOST_GROUPS) {
            let named = Node {
                at: entry.key_at.clone(),
                ..entry.value.clone()
            };
            let name = self.label(&entry.key, &named, "a metric group");
            if entry.value.is_empty() {
                self.no_value(entry, &entry.key);
                continue;
            }
            let mut metrics = Vec::new();
            for item in self.items(&entry.value, &entry.key, "metrics", limits::MOST_GROUPED) {
                if let Some(metric) = self.grouped(item)
                    && !metrics.contains(&metric)
                {
                    metrics.push(metric);
                }
            }
            if let Some(name) = name {
                groups.insert(name, metrics);
            }
        }
        groups
    }

    fn grouped(&mut self, node: &Node) -> Option<String> {
        let text = self.line_of(node, "a metric", limits::LONGEST_LINE)?;
        if Named::is_meant_by(&text) {
            return match text.parse::<Named>() {
                Ok(named) => Some(named.to_string()),
                Err(error) => {
                    self.report(Kind::UnknownMetric, node, error.to_string(), None);
                    None
                }
            };
        }
        match text.parse::<Metric>() {
            Ok(metric) => Some(metric.name().to_owned()),
            Err(MetricError::Unknown { name, nearest }) => {
                let help = nearest.map(|near| format!("did you mean `{near}`?"));
                self.report(
                    Kind::UnknownMetric,
                    node,
                    format!("there is no metric `{name}`"),
                    help,
                );
                None
            }
        }
    }

    /// Weights with the sum 1. A name that neither the catalogue nor the document knows may stand in what the persona
    /// builds on.
    pub(super) fn priorities(
        &mut self,
        node: &Node,
        groups: &BTreeMap<String, Vec<String>>,
        built_on_others: bool,
    ) -> PriorityMetrics {
        let key = "priority_metrics";
        let mut weights = BTreeMap::new();
        let mut complete = true;
        for entry in self.dictionary(node, key, "weights", limits::MOST_WEIGHTS) {
            let name = &entry.key;
            if !self.is_weighable(name, groups) {
                self.unknown_weight(entry, groups, built_on_others);
            }
            if entry.value.is_empty() {
                self.no_value(entry, name);
                complete = false;
                continue;
            }
            match self.number(&entry.value, name, limits::LARGEST_NUMBER) {
                Some(weight) => {
                    weights.insert(name.clone(), weight);
                }
                None => complete = false,
            }
        }
        let sum: f64 = weights.values().sum();
        if sum <= 0.0 {
            if complete && !weights.is_empty() {
                let message = "all weights are 0, so nothing would matter";
                self.report(Kind::OutOfRange, node, message, None);
            }
            return PriorityMetrics::default();
        }
        for weight in weights.values_mut() {
            *weight = (*weight / sum * PRECISION).round() / PRECISION;
        }
        PriorityMetrics { weights }
    }

    fn is_weighable(&self, name: &str, groups: &BTreeMap<String, Vec<String>>) -> bool {
        name.parse::<Metric>().is_ok()
            || name.parse::<Named>().is_ok()
            || groups.contains_key(name)
            || PriorityMetrics::BUILT_IN
                .iter()
                .any(|(group, _)| *group == name)
    }

    fn unknown_weight(
        &mut self,
        entry: &crate::document::Entry,
        groups: &BTreeMap<String, Vec<String>>,
        built_on_others: bool,
    ) {
        let shown: String = entry.key.chars().take(60).collect();
        let candidates = PriorityMetrics::BUILT_IN
            .iter()
            .map(|(group, _)| *group)
            .chain(groups.keys().map(String::as_str))
            .chain(Metric::ALL.map(Metric::name));
        let help = match problem::nearest(&entry.key, candidates) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                "name a metric, or say under metric_groups which metrics it stands for".to_owned()
            }
        };
        let span = self.text.span(&entry.key_at);
        let message = format!("there is no metric and no metric group `{shown}`");
        let problem = if built_on_others && limits::is_name(&entry.key) {
            Problem::warning(Kind::UnknownName, span, message)
        } else {
            Problem::error(Kind::UnknownName, span, message)
        };
        self.problems.push(problem.help(help));
    }
}
