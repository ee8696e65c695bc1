//! A persona as the message that activates it in a guest, and the guest's answer as text and detail of a record. Wire
//! types are not the daemon's own: this is the one place where the two meet.

use std::time::Duration;

use agent_protocol::activation::{
    Activation as Message, OnFailure as MessageOnFailure, Script as MessageScript,
};
use agent_protocol::limits::{PACKAGES_TIME_MS, PLUGIN_DO_MS, PLUGIN_LOOK_MS};
use agent_protocol::rules::{RULE_LINE, Telling};
use agent_protocol::settings::{
    Frequency as MessageFrequency, LoggingLevel as MessageLevel, SETTINGS_FEATURE, SettingOutcome,
    Settings,
};
use agent_protocol::software::{Package, VersionWish};
use agent_protocol::{CommandTable, GuestRule, GuestRules};
use persona::rule::{Action, Rule};
use persona::{
    Class, Constraint, Frequency, LearningDomain, LoggingLevel, OnFailure, Persona, Relation,
    Script, Setting, Software,
};

use super::guest_rules;
use crate::agent::{Activated, AgentFacts, AgentReply, SettingEnd, SettingsEnd};
use crate::catalog::Generation;

/// As long as the agent waits for `systemctl`.
const UNIT_TIME: Duration = Duration::from_secs(200);
/// No set of settings but packages holds an activation up for longer.
const MOST_SETTINGS_TIME: Duration = Duration::from_secs(1_800);

pub(super) fn message(generation: Generation, version: u32, persona: &Persona) -> Message {
    Message {
        generation: generation.0,
        persona: persona.name.to_string(),
        version: version.into(),
        digest: persona.digest.to_string(),
        environment: persona
            .environment
            .iter()
            .map(|(key, value)| (key.clone(), value.expose().to_owned()))
            .collect(),
        settings: settings(persona),
        pre: persona.pre_activation.as_ref().map(script),
        post: persona.post_activation.as_ref().map(script),
        commands: CommandTable {
            overrides: persona.command_overrides.clone(),
            restricted: persona.restricted_commands.clone(),
        },
        rules: rules(persona),
        adjusted: None,
    }
}

/// The rules that are the guest's, each with what it does spelt out, and with the scripts that they run.
pub(super) fn rules(persona: &Persona) -> GuestRules {
    let collected = persona.collected();
    let mut sent = GuestRules::default();
    for rule in guest_rules::of_guest(persona) {
        let spelt = Rule {
            then: persona.actions(rule).cloned().collect(),
            ..rule.clone()
        };
        let mut kinds = std::iter::once(&rule.when)
            .chain(&rule.until)
            .flat_map(|condition| condition.signals().filter_map(LearningDomain::of));
        sent.rules.push(GuestRule {
            name: rule.name.to_string(),
            text: spelt.to_string(),
            readings: if kinds.all(|kind| collected.contains(&kind)) {
                Telling::Told
            } else {
                Telling::Withheld
            },
        });
    }
    // Those that rules of the host run, too: the host has the agent run them by name.
    let actions = persona.rules.iter().flat_map(|rule| persona.actions(rule));
    let run = actions.filter_map(|action| match action {
        Action::Run(name) => Some((name.clone(), script(persona.response_scripts.get(name)?))),
        _ => None,
    });
    sent.scripts.extend(run);
    if !sent.is_empty() {
        let levels = Class::ALL.map(|(class, name)| {
            let level = persona.trust.level(class);
            (name.to_owned(), level.to_string())
        });
        sent.trust = levels.into();
    }
    sent
}

/// What of a persona's settings agents act on.
fn settings(persona: &Persona) -> Settings {
    let (os, behavior) = (&persona.os_settings, &persona.behavioral_settings);
    let applications = &persona.application_settings;
    Settings {
        sysctl: os.sysctl.clone(),
        services: os.services.clone(),
        logging_level: behavior.logging_level.map(logging_level),
        auto_update: behavior.auto_update_frequency.map(frequency),
        security_scan: behavior.security_scan_frequency.map(frequency),
        editor: os.editor.clone(),
        terminal_shell: os.terminal_shell.clone(),
        software: persona.software.iter().map(package).collect(),
        theme: os.theme.clone(),
        ide_extensions: applications.ide_extensions.clone(),
        browser_extensions: applications.browser_extensions.clone(),
        other: [
            ("os_settings", &os.other),
            ("application_settings", &applications.other),
            ("behavioral_settings", &behavior.other),
        ]
        .into_iter()
        .flat_map(|(owner, settings)| {
            settings
                .iter()
                .map(move |(key, setting)| (format!("{owner}.{key}"), values(setting)))
        })
        .collect(),
    }
}

fn values(setting: &Setting) -> Vec<String> {
    match setting {
        Setting::Text(text) => vec![text.clone()],
        Setting::List(texts) => texts.clone(),
    }
}

fn package(software: &Software) -> Package {
    let version = match &software.version {
        Constraint::Any => VersionWish::Any,
        Constraint::Latest => VersionWish::Latest,
        Constraint::Version(relation, version) => {
            let version = version.clone();
            match relation {
                Relation::Equal => VersionWish::Equal(version),
                Relation::AtLeast => VersionWish::AtLeast(version),
                Relation::Above => VersionWish::Above(version),
                Relation::AtMost => VersionWish::AtMost(version),
                Relation::Below => VersionWish::Below(version),
            }
        }
    };
    Package {
        name: software.name.clone(),
        version,
    }
}

fn frequency(frequency: Frequency) -> MessageFrequency {
    match frequency {
        Frequency::Never => MessageFrequency::Never,
        Frequency::Hourly => MessageFrequency::Hourly,
        Frequency::Daily => MessageFrequency::Daily,
        Frequency::Weekly => MessageFrequency::Weekly,
        Frequency::Monthly => MessageFrequency::Monthly,
    }
}

fn logging_level(level: LoggingLevel) -> MessageLevel {
    match level {
        LoggingLevel::Emergency => MessageLevel::Emergency,
        LoggingLevel::Alert => MessageLevel::Alert,
        LoggingLevel::Critical => MessageLevel::Critical,
        LoggingLevel::Error => MessageLevel::Error,
        LoggingLevel::Warning => MessageLevel::Warning,
        LoggingLevel::Notice => MessageLevel::Notice,
        LoggingLevel::Info => MessageLevel::Info,
        LoggingLevel::Debug => MessageLevel::Debug,
    }
}

/// How long settings may take in a guest: each unit may need what its service manager gives it to start or stop, each plugin what
/// the agent gives it, and packages have a time of their own.
pub(super) fn settings_time(settings: &Settings) -> Duration {
    let units = u32::try_from(settings.services.len()).unwrap_or(u32::MAX);
    let timed = [settings.auto_update, settings.security_scan];
    let restarted = settings.logging_level.is_some() || settings.theme.is_some();
    let more = if restarted || timed.iter().any(Option::is_some) {
        UNIT_TIME
    } else {
        Duration::ZERO
    };
    let packages = if settings.software.is_empty() {
        Duration::ZERO
    } else {
        Duration::from_millis(PACKAGES_TIME_MS)
    };
    // A plugin does its work and may have to undo it, and is asked before and after either.
    let plugin = Duration::from_millis(2 * PLUGIN_DO_MS + 5 * PLUGIN_LOOK_MS);
    let plugins = plugin.saturating_mul(u32::try_from(settings.other.len()).unwrap_or(u32::MAX));
    UNIT_TIME
        .saturating_mul(units)
        .saturating_add(plugins)
        .saturating_add(more)
        .min(MOST_SETTINGS_TIME)
        + packages
}

/// What of a persona's settings was sent, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SettingsSent {
    /// How many.
    pub count: usize,
    /// Whether the agent knows settings at all.
    pub agent: SettingsAbility,
}

/// Whether an agent says that it brings settings about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SettingsAbility {
    /// It says so.
    Has,
    /// It does not: it is older than settings.
    Lacks,
}

impl SettingsSent {
    /// What goes to this agent; it is sent to an older one too, which ignores it.
    pub(super) fn new(settings: &Settings, agent: Option<&AgentFacts>) -> Self {
        let agent = if agent.is_some_and(|facts| facts.can(SETTINGS_FEATURE)) {
            SettingsAbility::Has
        } else {
            SettingsAbility::Lacks
        };
        Self {
            count: settings.count(),
            agent,
        }
    }
}

/// What came of the settings, in a sentence for `status`; `None` where there is nothing to say.
pub(super) fn settings_remark(sent: Option<SettingsSent>, reply: &AgentReply) -> Option<String> {
    let (AgentReply::Activated(Activated { settings, .. })
    | AgentReply::Deactivated { settings, .. }) = reply
    else {
        return None;
    };
    let Some(SettingsEnd { lines, left_out }) = settings else {
        let SettingsSent { count, agent } = sent.filter(|sent| sent.count > 0)?;
        return Some(match agent {
            SettingsAbility::Lacks => {
                format!(
                    "the agent is too old for settings: none of the persona's {count} is in force"
                )
            }
            SettingsAbility::Has => {
                format!("the agent says nothing of the persona's {count} settings")
            }
        });
    };
    let (rules, lines): (Vec<&SettingEnd>, Vec<&SettingEnd>) = lines
        .iter()
        .partition(|end| end.setting.as_str().starts_with(RULE_LINE));
    let in_force = |end: &&&SettingEnd| {
        matches!(
            end.outcome,
            SettingOutcome::Applied | SettingOutcome::Unchanged
        )
    };
    let mut parts = Vec::new();
    match lines.iter().filter(in_force).count() {
        0 => {}
        1 => parts.push("1 setting is in force".to_owned()),
        count => parts.push(format!("{count} settings are in force")),
    }
    let named = |outcome: SettingOutcome| -> Vec<String> {
        lines
            .iter()
            .filter(|end| end.outcome == outcome)
            .map(|end| format!("{} ({})", end.setting.as_str(), end.reason.as_str()))
            .collect()
    };
    let refused = named(SettingOutcome::Refused);
    if !refused.is_empty() {
        let count = match refused.len() {
            1 => "1 setting".to_owned(),
            count => format!("{count} settings"),
        };
        let list = refused.join(", ");
        parts.push(format!("{count} cannot be had in this guest: {list}"));
    }
    let kept = named(SettingOutcome::Kept);
    if !kept.is_empty() {
        parts.push(format!("kept as the guest has them: {}", kept.join(", ")));
    }
    parts.extend(rules_remark(&rules));
    if *left_out > 0 {
        parts.push(format!("{left_out} more are not told"));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The same of rules in the guest.
fn rules_remark(rules: &[&SettingEnd]) -> Vec<String> {
    let (refused, held): (Vec<&SettingEnd>, Vec<&SettingEnd>) = rules
        .iter()
        .copied()
        .partition(|end| end.outcome == SettingOutcome::Refused);
    let mut parts = Vec::new();
    match held.len() {
        0 => {}
        1 => parts.push("1 rule is in force in the guest".to_owned()),
        count => parts.push(format!("{count} rules are in force in the guest")),
    }
    if !refused.is_empty() {
        let count = match refused.len() {
            1 => "1 rule".to_owned(),
            count => format!("{count} rules"),
        };
        let named: Vec<String> = refused
            .iter()
            .map(|end| {
                let name = end.setting.as_str();
                let name = name.strip_prefix(RULE_LINE).unwrap_or(name);
                format!("{name} ({})", end.reason.as_str())
            })
            .collect();
        parts.push(format!(
            "{count} cannot be in force in this guest: {}",
            named.join(", ")
        ));
    }
    parts
}

fn settings_detail(settings: &Option<SettingsEnd>) -> serde_json::Value {
    let Some(SettingsEnd { lines, left_out }) = settings else {
        return serde_json::Value::Null;
    };
    let lines: Vec<_> = lines
        .iter()
        .map(|end| {
            serde_json::json!({
                "setting": end.setting.as_str(), "outcome": end.outcome, "reason": end.reason.as_str(),
            })
        })
        .collect();
    serde_json::json!({ "lines": lines, "left_out": left_out })
}

fn script(script: &Script) -> MessageScript {
    MessageScript {
        interpreter: match &script.argument {
            Some(argument) => format!("{} {argument}", script.interpreter),
            None => script.interpreter.clone(),
        },
        text: script.text.clone(),
        timeout_ms: u64::try_from(script.timeout.as_millis()).unwrap_or(u64::MAX),
        user: script.user.clone(),
        on_failure: match script.on_failure {
            OnFailure::Rollback => MessageOnFailure::Rollback,
            OnFailure::Keep => MessageOnFailure::Keep,
        },
    }
}

/// What the scripts said, for the record's line.
pub(super) fn script_text(reply: &AgentReply) -> String {
    let AgentReply::Activated(activated) = reply else {
        return String::new();
    };
    let mut text = String::new();
    for (name, end) in [("pre", &activated.pre), ("post", &activated.post)] {
        if let Some(end) = end {
            let exit = match (end.exit, end.timed_out) {
                (_, true) => "timed out".to_string(),
                (Some(0), _) => "succeeded".to_string(),
                (Some(code), _) => format!("exited with {code}"),
                (None, _) => "was killed".to_string(),
            };
            text.push_str(&format!(
                "; {name} script {exit} after {} ms",
                end.duration_ms
            ));
        }
    }
    text
}

pub(super) fn reply_detail(reply: &AgentReply) -> serde_json::Value {
    let activated = match reply {
        AgentReply::Activated(activated) => activated,
        AgentReply::Deactivated {
            generation,
            settings,
            ..
        } => {
            return serde_json::json!({
                "generation": generation, "settings": settings_detail(settings),
            });
        }
        _ => return serde_json::Value::Null,
    };
    let script = |end: &Option<crate::agent::ScriptEnd>| {
        end.as_ref().map(|end| {
            serde_json::json!({
                "exit": end.exit, "signal": end.signal, "timed_out": end.timed_out,
                "duration_ms": end.duration_ms, "output": end.output.as_str(),
                "output_truncated": end.output_truncated,
            })
        })
    };
    serde_json::json!({
        "generation": activated.generation,
        "needs_relogin": activated.needs_relogin,
        "pre": script(&activated.pre),
        "post": script(&activated.post),
        "settings": settings_detail(&activated.settings),
        "environment_files": activated.environment_files.iter().map(|file| file.as_str()).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{GuestWords, Lines};
    use agent_protocol::activation::Change;

    fn reply(settings: Option<SettingsEnd>) -> AgentReply {
        AgentReply::Deactivated {
            generation: 1,
            outcome: Change::Changed,
            needs_relogin: false,
            settings,
        }
    }

    fn end(setting: &str, outcome: SettingOutcome, reason: &str) -> SettingEnd {
        let words = |text: &str| GuestWords::clean(text, 100, Lines::One);
        SettingEnd {
            setting: words(setting),
            outcome,
            reason: words(reason),
        }
    }

    fn sent(count: usize, agent: SettingsAbility) -> Option<SettingsSent> {
        Some(SettingsSent { count, agent })
    }

    #[test]
    fn an_agent_that_is_older_than_settings_has_none_in_force() {
        use SettingsAbility::{Has, Lacks};
        let remark = settings_remark(sent(3, Lacks), &reply(None)).unwrap();
        assert!(
            remark.contains("too old") && remark.contains('3'),
            "{remark}"
        );
        let remark = settings_remark(sent(3, Has), &reply(None)).unwrap();
        assert!(remark.contains("says nothing"), "{remark}");
        assert_eq!(settings_remark(sent(0, Lacks), &reply(None)), None);
        assert_eq!(settings_remark(None, &reply(None)), None);
    }

    #[test]
    fn what_was_kept_or_cannot_be_had_is_named_with_its_reason() {
        let lines = vec![
            end("editor", SettingOutcome::Refused, "no program nano"),
            end("terminal_shell", SettingOutcome::Applied, ""),
            end("theme", SettingOutcome::Unknown, ""),
            end("service cron", SettingOutcome::Unchanged, ""),
            end("sysctl x", SettingOutcome::Kept, "mine"),
        ];
        let settings = Some(SettingsEnd { lines, left_out: 2 });
        assert_eq!(
            settings_remark(sent(5, SettingsAbility::Has), &reply(settings)).unwrap(),
            "2 settings are in force; 1 setting cannot be had in this guest: editor (no program nano); \
             kept as the guest has them: sysctl x (mine); 2 more are not told"
        );
    }

    #[test]
    fn units_may_take_the_time_that_their_service_manager_gives_them() {
        let mut settings = Settings::default();
        assert_eq!(settings_time(&settings), Duration::ZERO);
        settings.services = [("a".to_owned(), true), ("b".to_owned(), false)].into();
        assert_eq!(settings_time(&settings), 2 * UNIT_TIME);
    }
}
