//! What is collected in the guest under a persona: what it lists as `learning_domains`, and else what its rules read. The
//! collecting itself is the agent's; the daemon asks it for these kinds of figures and for no others.

use std::collections::BTreeSet;

use super::{LearningDomain, Persona};
use crate::signal::{Event, EventKind, Metric, Signal};

impl LearningDomain {
    /// The kind of a signal that the guest's agent has to collect; `None` for what the host measures itself, for what is
    /// always reported, and for what comes from elsewhere.
    pub fn of(signal: &Signal) -> Option<Self> {
        match signal {
            Signal::Named(named) => named.source().is_none().then_some(Self::ApplicationCalls),
            Signal::Metric(metric) => match metric {
                Metric::GuestLoad => Some(Self::Cpu),
                Metric::GuestProcesses => Some(Self::Processes),
                Metric::GuestDiskFree | Metric::GuestDiskInodes => Some(Self::Disk),
                Metric::NetworkLatency => Some(Self::NetworkTraffic),
                Metric::GuestLogErrors
                | Metric::GuestAuthFailures
                | Metric::ThreatDetectionRate => Some(Self::SystemLogs),
                _ => None,
            },
        }
    }

    /// The kind of an event that the guest's agent has to look for.
    fn of_event(event: &Event) -> Option<Self> {
        (event.kind == EventKind::LoginFailed).then_some(Self::SystemLogs)
    }
}

impl Persona {
    /// The kinds of figures that are collected in the guest. Without `learning_domains` those that the rules read, and the
    /// load, which people look at.
    pub fn collected(&self) -> BTreeSet<LearningDomain> {
        if let Some(listed) = &self.learning {
            return listed.iter().copied().collect();
        }
        let conditions = self
            .rules
            .iter()
            .flat_map(|rule| std::iter::once(&rule.when).chain(&rule.until));
        conditions
            .flat_map(|condition| {
                let read = condition.signals().filter_map(LearningDomain::of);
                read.chain(condition.events().filter_map(LearningDomain::of_event))
            })
            .chain([LearningDomain::Cpu])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::document::{Format, SourceText};
    use crate::model::LearningDomain::{self, ApplicationCalls, Cpu, Memory, SystemLogs};

    fn check(rest: &str, expected: &[LearningDomain]) {
        let text = format!("name: web\n{rest}");
        let source = SourceText {
            name: "web.yaml",
            text: text.as_bytes(),
            format: Format::Yaml,
            persona_name: None,
        };
        let persona = crate::load(&source).unwrap().persona;
        let expected: BTreeSet<_> = expected.iter().copied().collect();
        assert_eq!(persona.collected(), expected, "{rest}");
    }

    #[test]
    fn what_is_listed_is_collected_and_else_what_rules_read() {
        let rules = "adaptation_rules:\n  - IF guest.app.orders > 5 AND external.feed.count > 1 FOR 1m THEN add 1 vcpus UNTIL guest.auth.failures < 1/min\n";
        let feed = "external_data_sources: [{name: feed, url: \"https://example.org/feed\"}]\n";
        let rules = format!("{feed}{rules}");
        check(&rules, &[Cpu, ApplicationCalls, SystemLogs]);
        check("", &[Cpu]);
        let waits = "adaptation_rules: [IF EVENT(login.failed) THEN notify \"x\"]\n";
        check(waits, &[Cpu, SystemLogs]);
        check(&format!("learning_domains: [memory]\n{rules}"), &[Memory]);
        check(&format!("learning_domains: []\n{rules}"), &[]);
    }
}
