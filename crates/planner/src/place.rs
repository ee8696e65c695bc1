//! Where a rule is evaluated: on the host, or by the agent in the guest, which goes on with it while the host is away. Each
//! rule of a persona has one place. The daemon sends those of the guest with the activation and leaves to it what they do;
//! what the agent itself looks at once more is `trust`. What can be looked at in the guest is said here for both.

use persona::Persona;
use persona::rule::{Action, Rule};
use persona::signal::{Event, EventKind, Metric, Signal, Source};

use crate::trust::{Deed, Payer, Permit, Undoing, permit};

/// Where a rule is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// By the daemon.
    Host,
    /// By the agent in the guest.
    Guest,
}

/// What the agent may have of a persona at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Rules.
    pub rules: usize,
    /// Actions of one rule.
    pub actions: usize,
}

/// The place of each rule, in the order of the document.
pub fn places(persona: &Persona, room: Room) -> Vec<Place> {
    let mut taken = 0;
    let place = |rule: &Rule| {
        if taken < room.rules && is_of_guest(persona, rule, room.actions) {
            taken += 1;
            Place::Guest
        } else {
            Place::Host
        }
    };
    persona.rules.iter().map(place).collect()
}

/// A rule is the guest's when the agent measures or notices all that it looks at and performs all that it does, of which something is
/// done in the guest: a rule that only tells people is where the people are. What a person has to approve, or what is
/// forbidden, is decided on the host.
fn is_of_guest(persona: &Persona, rule: &Rule, most: usize) -> bool {
    let mut conditions = std::iter::once(&rule.when).chain(&rule.until);
    let known = conditions.all(|condition| {
        condition.rests_on_observation()
            && (condition.signals().next().is_some() || condition.events().next().is_some())
            && condition.signals().all(is_measured_in_guest)
            && condition.events().all(is_noticed_in_guest)
    });
    let actions = || persona.actions(rule);
    known
        && rule.source.is_none_or(|least| least <= Source::Agent)
        && (1..=most).contains(&actions().count())
        && actions().any(is_done_in_guest)
        && actions().all(|action| {
            (is_done_in_guest(action) || matches!(action, Action::Notify(_)))
                && permit(&persona.trust, deed(action)) == Permit::Act
        })
}

/// Whether the agent measures it itself, or hears it of an application.
pub fn is_measured_in_guest(signal: &Signal) -> bool {
    match signal {
        Signal::Metric(metric) => matches!(
            metric,
            Metric::GuestLoad
                | Metric::GuestProcesses
                | Metric::GuestMemoryPressure
                | Metric::GuestDiskFree
                | Metric::GuestDiskInodes
                | Metric::GuestLogErrors
                | Metric::GuestAuthFailures
                | Metric::NetworkLatency
        ),
        Signal::Named(named) => named.source().is_none(),
    }
}

/// Whether the agent notices it by itself; what else happens, happens on the host.
pub fn is_noticed_in_guest(event: &Event) -> bool {
    matches!(event.kind, EventKind::GuestOom | EventKind::LoginFailed)
}

/// Whether the agent performs it.
fn is_done_in_guest(action: &Action) -> bool {
    matches!(
        action,
        Action::Run(_) | Action::EnableFeature(_) | Action::DisableFeature(_)
    )
}

/// An action of a guest's rule, as trust looks at it: it rests on the guest's own word, and nobody else gives way for it.
pub fn deed(action: &Action) -> Deed {
    Deed {
        class: action.class(),
        evidence: Source::Agent,
        undoing: Undoing::of(action),
        payer: Payer::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use persona::{Format, SourceText};

    use super::*;

    const ROOM: Room = Room {
        rules: 2,
        actions: 16,
    };

    fn persona(rest: &str) -> Persona {
        let scripts = "response_scripts: {drain: {text: \"true\"}}\nautomated_responses: {calm: [run drain, notify \"calm\"], grow: [add 1 vcpus]}\nexternal_data_sources: [{name: feed, url: \"https://example.org/feed\"}]\npriority_metrics: {performance: 1}\n";
        let text = format!("name: web\n{scripts}{rest}");
        let source = SourceText {
            name: "web.yaml",
            text: text.as_bytes(),
            format: Format::Yaml,
            persona_name: None,
        };
        persona::load(&source)
            .unwrap_or_else(|problems| panic!("{rest}: {problems:?}"))
            .persona
    }

    fn check(rule: &str, rest: &str, expected: Place) {
        let persona = persona(&format!("adaptation_rules:\n  - {rule}\n{rest}"));
        assert_eq!(places(&persona, ROOM), [expected], "{rule}");
    }

    #[test]
    fn a_rule_is_the_guests_when_all_that_it_needs_and_does_is_there() {
        for rule in [
            "IF guest.app.queue > 10 THEN run drain",
            "IF guest.load > 4 FOR 1m THEN enable feature cache UNTIL guest.load < 1 FOR 5m",
            "IF avg(guest.memory.pressure, 1m) > 10% THEN disable feature cache, notify \"short\"",
            "IF guest.app.queue > 2 * guest.load THEN respond calm",
            "IF guest.disk.free < 10% OR guest.disk.inodes < 5% OR guest.processes > 900 THEN run drain",
            "IF guest.log.errors > 5/min OR guest.auth.failures > 5/min THEN run drain",
            "IF network.latency > 50 ms FOR 1m THEN enable feature cache",
            "IF EVENT(login.failed) THEN run drain UNTIL (NOT EVENT(login.failed)) FOR 10m",
            "IF EVENT(guest.oom) AND guest.load > 1 THEN respond calm",
            "{when: network.latency > 50 ms, then: run drain, source: agent}",
        ] {
            check(rule, "", Place::Guest);
        }
        for rule in [
            // Of the host's, of the balloon's, of others' word, or of the document.
            "IF cpu.utilization > 90% THEN run drain",
            "IF guest.app.queue > 10 AND host.cpu.pressure > 5% THEN run drain",
            "IF guest.memory.major_faults > 5/s THEN run drain",
            "IF external.feed.count > 1 THEN run drain",
            "IF EVENT(domain.started) THEN run drain",
            "IF EVENT(login.failed) THEN run drain UNTIL EVENT(agent.lost)",
            "IF EVENT(feed.changed(feed)) THEN run drain",
            "IF EVENT(login.failed) AND trust_levels[resource_scaling] >= medium THEN run drain",
            "IF guest.load > 1 AND priority_metrics[performance] > 0.5 THEN run drain",
            "IF guest.load > 1 THEN run drain UNTIL cpu.utilization < 10%",
            "{when: guest.load > 1, then: run drain, source: host}",
            // Done on the host, or told there.
            "IF guest.app.queue > 10 THEN run drain, add 1 vcpus",
            "IF guest.app.queue > 10 THEN respond grow",
            "IF guest.app.queue > 10 THEN notify \"long\"",
        ] {
            check(rule, "", Place::Host);
        }
    }

    #[test]
    fn what_somebody_has_to_decide_is_decided_on_the_host() {
        let (run, enable) = (
            "IF guest.load > 1 THEN run drain",
            "IF guest.load > 1 THEN enable feature x",
        );
        for (level, of_run, of_enable) in [
            ("none", Place::Host, Place::Host),
            ("low", Place::Host, Place::Host),
            ("medium", Place::Host, Place::Guest),
            ("high", Place::Guest, Place::Guest),
        ] {
            let trust = format!(
                "trust_levels: {{command_execution: {level}, file_system_modification: {level}}}\n"
            );
            check(run, &trust, of_run);
            check(enable, &trust, of_enable);
        }
    }

    #[test]
    fn what_the_guest_has_no_room_for_stays_on_the_host() {
        let rule = "  - IF guest.load > 1 THEN run drain\n";
        let persona = persona(&format!("adaptation_rules:\n{}", rule.repeat(3)));
        let expected = [Place::Guest, Place::Guest, Place::Host];
        assert_eq!(places(&persona, ROOM), expected);
        let room = Room { actions: 0, ..ROOM };
        assert_eq!(places(&persona, room), [Place::Host; 3]);
    }
}
