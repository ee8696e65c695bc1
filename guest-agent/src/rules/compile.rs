//! From the text of rules to rules that this agent evaluates, or why not: one that cannot be is left out by its name, and
//! harms no other. Called when a generation begins to hold, and for the lines of the answer to its activation.

use agent_protocol::{
    GuestRule, GuestRules, SettingLine, SettingOutcome, activation::Activation, rules::RULE_LINE,
};
use persona::{
    rule::{Action, Rule},
    signal::{Event, Metric, Signal},
};
use planner::place;

use crate::policy::{Leave, Policy};

/// Functions over windows in all rules together; each keeps up to 64 KiB of readings.
const FUNCTIONS_MAX: usize = 32;

/// What the guest's owner lets rules do, and look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RuleLeave {
    rules: Leave,
    scripts: Leave,
    probes: Leave,
}

impl From<&Policy> for RuleLeave {
    fn from(policy: &Policy) -> Self {
        Self {
            rules: policy.rules,
            scripts: policy.scripts,
            probes: policy.probes.leave(),
        }
    }
}

/// Why a rule is not evaluated here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RuleRefusal {
    #[error("the guest's owner does not allow `{0}` in agent.toml")]
    Denied(&'static str),
    #[error("the agent cannot read it: {0}")]
    Unreadable(String),
    #[error("the agent does not measure `{0}`")]
    Unmeasured(String),
    #[error("the agent does not notice `{0}`")]
    Unnoticed(Event),
    #[error("the agent does not know what it looks at beside figures and events")]
    Foreign,
    #[error("the agent does not perform `{0}`")]
    Unperformed(String),
    #[error("there is no script `{0}`")]
    NoScript(String),
    #[error("the rules have more than {FUNCTIONS_MAX} functions over windows in all")]
    TooMuch,
}

/// Each rule, or why it is not evaluated.
pub(super) fn compile(
    rules: &GuestRules,
    leave: RuleLeave,
) -> impl Iterator<Item = (&GuestRule, Result<Rule, RuleRefusal>)> {
    let mut functions = 0;
    rules.rules.iter().map(move |text| {
        let compiled = rule(text, rules, leave).and_then(|rule| {
            let conditions = std::iter::once(&rule.when).chain(&rule.until);
            functions += conditions
                .map(|condition| condition.functions())
                .sum::<usize>();
            if functions > FUNCTIONS_MAX {
                return Err(RuleRefusal::TooMuch);
            }
            Ok(rule)
        });
        (text, compiled)
    })
}

fn rule(text: &GuestRule, all: &GuestRules, leave: RuleLeave) -> Result<Rule, RuleRefusal> {
    if leave.rules == Leave::Denied {
        return Err(RuleRefusal::Denied("rules"));
    }
    let rule = Rule::parse(&text.name, &text.text).map_err(|problems| {
        let problems = problems.to_string();
        RuleRefusal::Unreadable(problems.lines().next().unwrap_or_default().to_owned())
    })?;
    for condition in std::iter::once(&rule.when).chain(&rule.until) {
        if !condition.rests_on_observation() {
            return Err(RuleRefusal::Foreign);
        }
        let unmeasured = |signal: &&Signal| !is_measured(signal, leave);
        if let Some(signal) = condition.signals().find(unmeasured) {
            return Err(RuleRefusal::Unmeasured(signal.to_string()));
        }
        let unnoticed = |event: &&Event| !place::is_noticed_in_guest(event);
        if let Some(event) = condition.events().find(unnoticed) {
            return Err(RuleRefusal::Unnoticed(event.clone()));
        }
    }
    for action in &rule.then {
        match action {
            Action::Run(_) if leave.scripts == Leave::Denied => {
                return Err(RuleRefusal::Denied("scripts"));
            }
            Action::Run(name) if !all.scripts.contains_key(name) => {
                return Err(RuleRefusal::NoScript(name.clone()));
            }
            Action::Run(_)
            | Action::EnableFeature(_)
            | Action::DisableFeature(_)
            | Action::Notify(_) => {}
            other => return Err(RuleRefusal::Unperformed(other.to_string())),
        }
    }
    Ok(rule)
}

/// Whether this agent measures it, and may: where the owner has nothing probed there is no latency.
fn is_measured(signal: &Signal, leave: RuleLeave) -> bool {
    let probed = *signal == Signal::Metric(Metric::NetworkLatency);
    place::is_measured_in_guest(signal) && !(probed && leave.probes == Leave::Denied)
}

/// What the host is told of the rules of an activation: one line for each.
pub(crate) fn lines(activation: &Activation, leave: RuleLeave) -> Vec<SettingLine> {
    compile(&activation.rules, leave)
        .map(|(rule, compiled)| {
            let (outcome, reason) = match compiled {
                Ok(_) => (SettingOutcome::Applied, String::new()),
                Err(refusal) => (SettingOutcome::Refused, refusal.to_string()),
            };
            SettingLine::new(&format!("{RULE_LINE}{}", rule.name), outcome, &reason)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_protocol::{OnFailure, Script};

    const GRANTED: RuleLeave = RuleLeave {
        rules: Leave::Granted,
        scripts: Leave::Granted,
        probes: Leave::Granted,
    };

    fn check(text: &str, leave: RuleLeave, expected: &str) {
        let script = Script {
            interpreter: "/bin/sh".to_owned(),
            text: "true".to_owned(),
            timeout_ms: 1000,
            user: "root".to_owned(),
            on_failure: OnFailure::Rollback,
        };
        let activation: Activation = serde_json::from_value(serde_json::json!({
            "generation": 1, "persona": "web", "version": 1, "digest": "d",
            "rules": {
                "rules": [{"name": "r", "text": text}],
                "scripts": {"drain": script},
            },
        }))
        .unwrap();
        let line = lines(&activation, leave).remove(0);
        assert_eq!(line.setting, "rule r");
        let outcome = if expected.is_empty() {
            SettingOutcome::Applied
        } else {
            SettingOutcome::Refused
        };
        assert_eq!(line.outcome, outcome, "{text}: {}", line.reason);
        assert!(line.reason.contains(expected), "{text}: {}", line.reason);
    }

    #[test]
    fn a_rule_that_cannot_be_says_why() {
        check("IF guest.app.queue > 10 THEN run drain", GRANTED, "");
        check(
            "IF guest.load > 1 FOR 1m THEN enable feature x, notify \"x\" UNTIL guest.load < 1",
            GRANTED,
            "",
        );
        check(
            "IF EVENT(login.failed) AND guest.auth.failures > 5/min OR EVENT(guest.oom) THEN run drain",
            GRANTED,
            "",
        );
        for (text, why) in [
            ("IF guest.load > THEN run drain", "cannot read it"),
            // Figures and events of later versions of the language.
            ("IF guest.dreams > 1 THEN run drain", "cannot read it"),
            ("IF EVENT(guest.dreamt) THEN run drain", "cannot read it"),
            (
                "IF cpu.utilization > 10% THEN run drain",
                "`cpu.utilization`",
            ),
            ("IF guest.load > 1 THEN add 1 vcpus", "`add 1 vcpus`"),
            ("IF guest.load > 1 THEN run other", "no script `other`"),
            (
                "IF EVENT(domain.started) THEN run drain",
                "`EVENT(domain.started)`",
            ),
            (
                "IF guest.load > 1 AND anomaly(guest.load) > 2 THEN run drain",
                "beside figures",
            ),
        ] {
            check(text, GRANTED, why);
        }
    }

    #[test]
    fn the_guests_owner_has_the_last_word() {
        let no_scripts = RuleLeave {
            scripts: Leave::Denied,
            ..GRANTED
        };
        check("IF guest.load > 1 THEN run drain", no_scripts, "`scripts`");
        check("IF guest.load > 1 THEN enable feature x", no_scripts, "");
        let no_probes = RuleLeave {
            probes: Leave::Denied,
            ..GRANTED
        };
        let slow = "IF network.latency > 50 ms THEN run drain";
        check(slow, no_probes, "`network.latency`");
        check(slow, GRANTED, "");
        let nothing = RuleLeave {
            rules: Leave::Denied,
            ..GRANTED
        };
        check(
            "IF guest.load > 1 THEN enable feature x",
            nothing,
            "`rules`",
        );
    }
}
