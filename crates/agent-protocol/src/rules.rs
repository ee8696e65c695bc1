//! Rules that a guest's agent evaluates by itself, also while the host is away: what the host gives it with an activation
//! ([`GuestRules`]), and what the agent writes down whenever one fires ([`RuleRecord`]). The host fetches the records with
//! [`crate::message::Operation::RuleRecords`], whose next call says how far they have been seen; until then the agent keeps them.
//! The rules' language is not known here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::activation::Script;
use crate::limits::{
    NAME_MAX, RULE_ACTION_MAX, RULE_DEEDS_MAX, RULE_DETAIL_MAX, RULE_OUTPUT_MAX, RULE_READINGS_MAX,
    RULE_TEXT_MAX, RULES_MAX,
};
use crate::reply::clean_text;

/// What an agent names among its features that evaluates rules.
pub const RULES_FEATURE: &str = "rules";

/// What the name of a rule follows in the lines of an answer to an activation: `rule NAME`.
pub const RULE_LINE: &str = "rule ";

/// The rules of an activation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRules {
    /// In the order of the document.
    #[serde(default)]
    pub rules: Vec<GuestRule>,
    /// Scripts that they run, by name.
    #[serde(default)]
    pub scripts: BTreeMap<String, Script>,
    /// The persona's level of trust by class of actions, in the words of the language; a class that is absent has the highest.
    #[serde(default)]
    pub trust: BTreeMap<String, String>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRule {
    /// Unique in its persona.
    pub name: String,
    /// The rule in the language's canonical text.
    pub text: String,
    /// Whether records say what it looked at.
    #[serde(default)]
    pub readings: Telling,
}

/// Whether figures leave the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Telling {
    /// They are told.
    #[default]
    Told,
    /// They stay in the guest.
    Withheld,
}

/// Why rules cannot be held.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesRefusal {
    /// Too many.
    #[error("{count} rules are more than {RULES_MAX}")]
    TooMany {
        /// How many were sent.
        count: usize,
    },
    /// A name or text is empty, long, or holds control characters.
    #[error(
        "rule {index} (counted from 1) must have a name of 1 to {NAME_MAX} bytes and a text of 1 to {RULE_TEXT_MAX}, both without control characters"
    )]
    Rule {
        /// Position in the list.
        index: usize,
    },
    /// The name of a rule, a script, a feature or a class is empty, long, or holds control characters.
    #[error("a rule, a script, a feature or a class of trust has no valid name")]
    Name,
}

impl GuestRules {
    /// Whether there are none, so that nothing is sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.scripts.is_empty()
    }

    /// Whether they can be held. Scripts are checked with the activation's own.
    ///
    /// # Errors
    /// The first [`RulesRefusal`].
    pub fn check(&self) -> Result<(), RulesRefusal> {
        if self.rules.len() > RULES_MAX {
            let count = self.rules.len();
            return Err(RulesRefusal::TooMany { count });
        }
        let plain = |text: &str, most: usize| {
            (1..=most).contains(&text.len()) && !text.chars().any(char::is_control)
        };
        for (index, rule) in self.rules.iter().enumerate() {
            if !plain(&rule.name, NAME_MAX) || !plain(&rule.text, RULE_TEXT_MAX) {
                return Err(RulesRefusal::Rule { index: index + 1 });
            }
        }
        let words = self.trust.iter().flat_map(|(class, level)| [class, level]);
        if words
            .chain(self.scripts.keys())
            .any(|name| !plain(name, NAME_MAX))
        {
            return Err(RulesRefusal::Name);
        }
        Ok(())
    }

    /// Bytes of their texts.
    pub(crate) fn text_bytes(&self) -> usize {
        let rules = self
            .rules
            .iter()
            .map(|rule| rule.name.len() + rule.text.len());
        let scripts = self
            .scripts
            .iter()
            .map(|(name, script)| name.len() + script.text.len());
        rules.chain(scripts).sum()
    }
}

/// Something that a rule of the host calls for and that is done in the guest. What comes of it is a record like that of the
/// guest's own rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCall {
    /// The activation that the host believes to hold.
    pub generation: u64,
    /// The rule.
    pub rule: String,
    /// Why it is called for.
    pub edge: RuleEdge,
    /// What is to be done now.
    pub action: GuestAction,
    /// By whose word it is done.
    pub word: RuleWord,
}

/// What an agent does for a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do", content = "name")]
pub enum GuestAction {
    /// Run a script that came with the activation.
    Run(String),
    /// Switch a feature on.
    EnableFeature(String),
    /// Switch it off.
    DisableFeature(String),
}

impl GuestAction {
    /// The script or feature.
    #[must_use]
    pub fn name(&self) -> &str {
        let (Self::Run(name) | Self::EnableFeature(name) | Self::DisableFeature(name)) = self;
        name
    }
}

/// By whose word something is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleWord {
    /// The persona trusts its rules with it.
    #[default]
    Persona,
    /// A person has approved it.
    Person,
}

/// Who evaluated a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleBy {
    /// The agent.
    #[default]
    Guest,
    /// The host, which had the agent act.
    Host,
}

/// The answer to a call: it is on the guest's disk and begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallReply {
    /// The activation that holds.
    pub generation: u64,
}

impl RuleCall {
    /// Whether it can be attempted.
    ///
    /// # Errors
    /// [`RulesRefusal::Name`] where the rule, the script or the feature has no name that can be.
    pub fn check(&self) -> Result<(), RulesRefusal> {
        let plain = |text: &str| {
            (1..=NAME_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
        };
        if plain(&self.rule) && plain(self.action.name()) {
            Ok(())
        } else {
            Err(RulesRefusal::Name)
        }
    }
}

/// How far records have been seen: up to this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsSeen {
    /// Its log.
    pub log: String,
    /// Its number in it.
    pub seq: u64,
}

/// What an agent answers with when it is asked for records.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleRecordsReply {
    /// The oldest that have not been seen, as many as fit.
    #[serde(default)]
    pub records: Vec<RuleRecord>,
    /// How many more there are.
    #[serde(default)]
    pub waiting: u64,
    /// What the agent evaluates now; absent where it does not know it yet, or does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<RulesInForce>,
}

/// The rules that an agent evaluates, which may be others than when it confirmed the activation: another version of the agent
/// knows more, and the guest's owner may allow more or less.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesInForce {
    /// The activation that holds.
    pub generation: u64,
    /// Their names.
    #[serde(default)]
    pub rules: Vec<String>,
}

impl RulesInForce {
    /// As many as there can be, by names that can be.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.rules.truncate(RULES_MAX);
        self.rules.retain(|name| {
            (1..=NAME_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
        });
        self
    }
}

/// One firing of a rule, or its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleRecord {
    /// Random, drawn at each start of the agent and whenever the machine was put back to an earlier state.
    pub log: String,
    /// Grows by one with each record of a log.
    pub seq: u64,
    /// The kernel's random id of the boot in which it fired.
    pub boot_id: String,
    /// When it fired, by the guest's clock, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// The activation that the rule came with.
    pub generation: u64,
    /// Its persona.
    pub persona: String,
    /// The rule's name.
    pub rule: String,
    /// Why its actions were called for.
    pub edge: RuleEdge,
    /// Who evaluated it.
    #[serde(default)]
    pub by: RuleBy,
    /// What it looked at.
    #[serde(default)]
    pub readings: Vec<RuleReading>,
    /// What was done.
    #[serde(default)]
    pub deeds: Vec<RuleDeed>,
    /// How many records before this one are lost, since there was no room for them.
    #[serde(default)]
    pub lost_before: u64,
}

/// Why the actions of a rule are called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleEdge {
    /// Its condition has become true.
    Begins,
    /// Its `until` has become true, so that they are taken back.
    Ends,
}

/// One figure that a rule looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleReading {
    /// Which.
    pub signal: String,
    /// Its value; absent where it was not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
}

/// One action of a rule that fired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleDeed {
    /// The action, in the language's canonical text.
    pub action: String,
    /// What came of it.
    pub outcome: DeedOutcome,
    /// More about that, as a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The end of what it wrote.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

/// What came of an action in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeedOutcome {
    /// It was done, and where it brings about a state, the guest shows it.
    Done,
    /// The guest was so already.
    Unchanged,
    /// It was begun and failed.
    Failed,
    /// It was not begun: the persona or the guest's owner does not allow it.
    Refused,
    /// It was not begun: a person has to decide, and nobody can in the guest.
    NeedsApproval,
    /// The agent ended while it was under way; it is not begun again.
    Interrupted,
    /// It was not begun, since the agent ended before.
    NotBegun,
    /// An outcome of a newer protocol.
    #[serde(other)]
    Unknown,
}

impl RuleRecord {
    /// The record within its bounds and safe to show: texts cleaned and cut, lists cut, figures that are none left out.
    #[must_use]
    pub fn bounded(self) -> Self {
        let name = |text: &str| clean_text(text, NAME_MAX).replace(['\n', '\t'], " ");
        let output = RULE_OUTPUT_MAX / self.deeds.len().clamp(1, RULE_DEEDS_MAX);
        Self {
            log: name(&self.log),
            boot_id: name(&self.boot_id),
            persona: name(&self.persona),
            rule: name(&self.rule),
            readings: self
                .readings
                .into_iter()
                .take(RULE_READINGS_MAX)
                .map(|reading| RuleReading {
                    signal: clean_text(&reading.signal, RULE_ACTION_MAX).replace(['\n', '\t'], " "),
                    value: reading.value.filter(|value| value.is_finite()),
                })
                .collect(),
            deeds: self
                .deeds
                .into_iter()
                .take(RULE_DEEDS_MAX)
                .map(|deed| RuleDeed {
                    action: clean_text(&deed.action, RULE_ACTION_MAX).replace(['\n', '\t'], " "),
                    outcome: deed.outcome,
                    detail: clean_text(&deed.detail, RULE_DETAIL_MAX).replace(['\n', '\t'], " "),
                    output: end_of(&deed.output, output),
                })
                .collect(),
            ..self
        }
    }
}

/// The end of a text, cleaned, of at most so many bytes.
fn end_of(text: &str, most: usize) -> String {
    let clean = clean_text(text, usize::MAX);
    let surplus = clean.len().saturating_sub(most);
    let from = (surplus..=clean.len()).find(|at| clean.is_char_boundary(*at));
    clean[from.unwrap_or(clean.len())..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_FRAME;

    fn deed(text: &str) -> RuleDeed {
        RuleDeed {
            action: text.to_owned(),
            outcome: DeedOutcome::Done,
            detail: text.to_owned(),
            output: text.to_owned(),
        }
    }

    fn record(text: &str, many: usize) -> RuleRecord {
        RuleRecord {
            log: text.to_owned(),
            seq: 1,
            boot_id: text.to_owned(),
            at_unix_ms: 1,
            generation: 1,
            persona: text.to_owned(),
            rule: text.to_owned(),
            edge: RuleEdge::Begins,
            by: RuleBy::Guest,
            readings: vec![
                RuleReading {
                    signal: text.to_owned(),
                    value: Some(f64::NAN),
                };
                many
            ],
            deeds: vec![deed(text); many],
            lost_before: 0,
        }
    }

    #[test]
    fn the_largest_record_fits_a_frame_and_nothing_of_it_steers_a_terminal() {
        for text in ["\"".repeat(9000), "\u{1b}[2J\n".repeat(9000)] {
            let record = record(&text, 99).bounded();
            assert_eq!(record.deeds.len(), RULE_DEEDS_MAX);
            assert_eq!(record.readings[0].value, None);
            let json = serde_json::to_string(&record).unwrap();
            assert!(json.len() + 1024 <= MAX_FRAME, "{}", json.len());
            assert!(!json.contains("\\u001b"));
            assert_eq!(record.clone().bounded(), record);
        }
    }

    #[test]
    fn the_end_of_an_output_is_kept() {
        let mut one = record("ä", 1);
        one.deeds[0].output = format!("{}end", "ä".repeat(5000));
        let kept = one.bounded().deeds.remove(0).output;
        assert!(kept.len() <= RULE_OUTPUT_MAX && kept.ends_with("äend"));
    }

    #[test]
    fn rules_out_of_bounds_are_refused() {
        let rule = |name: &str| GuestRule {
            name: name.to_owned(),
            text: "IF guest.load > 1 THEN run a".to_owned(),
            readings: Telling::Told,
        };
        let rules = |rules| GuestRules {
            rules,
            ..GuestRules::default()
        };
        assert_eq!(rules(vec![rule("a"); RULES_MAX]).check(), Ok(()));
        let count = RULES_MAX + 1;
        assert_eq!(
            rules(vec![rule("a"); count]).check(),
            Err(RulesRefusal::TooMany { count })
        );
        assert_eq!(
            rules(vec![rule("a"), rule("a\n")]).check(),
            Err(RulesRefusal::Rule { index: 2 })
        );
    }

    #[test]
    fn what_is_in_force_is_bounded_and_older_agents_do_not_say_it() {
        let said = RulesInForce {
            generation: 1,
            rules: vec!["a".to_owned(), String::new(), "b\u{1b}".to_owned()],
        };
        assert_eq!(said.bounded().rules, ["a"]);
        let many = RulesInForce {
            generation: 1,
            rules: vec!["a".to_owned(); 9999],
        };
        assert_eq!(many.bounded().rules.len(), RULES_MAX);
        let older: RuleRecordsReply = serde_json::from_str(r#"{"records":[]}"#).unwrap();
        assert_eq!(older.in_force, None);
        let text = serde_json::to_string(&older).unwrap();
        assert_eq!(text, r#"{"records":[],"waiting":0}"#);
    }

    #[test]
    fn an_outcome_of_a_newer_protocol_is_no_fault() {
        let deed: RuleDeed = serde_json::from_str(r#"{"action":"x","outcome":"dreamt"}"#).unwrap();
        assert_eq!(deed.outcome, DeedOutcome::Unknown);
    }
}
