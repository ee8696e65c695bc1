//! `adaptation_rules` and `telemetry_triggers`: a rule as a text or as keys; both are the same rule. And the named lists of
//! actions of `automated_responses`.

use std::collections::BTreeMap;

use super::Reader;
use super::references::name_source;
use crate::document::{Node, Value};
use crate::language::{self, SOURCES};
use crate::limits;
use crate::problem::Kind;
use crate::rule::parse::{self, RuleParts};
use crate::rule::{Action, Condition, Rule};
use crate::signal::Source;
use crate::validate::Placed;

impl Reader<'_> {
    /// Reads one list of rules behind those that are there already.
    pub(super) fn rules(&mut self, node: &Node, key: &str, prefix: &str, rules: &mut Vec<Placed>) {
        // Both lists together have the limit.
        let items = self.items(node, key, "rules", usize::MAX);
        for (index, item) in items.iter().enumerate() {
            if rules.len() >= limits::MOST_RULES {
                let message = format!("a persona has at most {} rules", limits::MOST_RULES);
                self.report(Kind::TooLarge, item, message, None);
                return;
            }
            if self.problems.len() >= limits::MOST_FOUND {
                return;
            }
            let default_name = format!("{prefix}-{}", index + 1);
            let placed = match &item.value {
                Value::Map(_) => self.structured(item, default_name),
                _ => self.written(item, key, default_name),
            };
            rules.extend(placed);
        }
    }

    /// A rule in text form.
    fn written(&mut self, item: &Node, key: &str, name: String) -> Option<Placed> {
        let parts = self.rule_text(item, key, parse::rule)?;
        self.mention_condition(item, &parts.when);
        self.mention_actions(item, &parts.then);
        if let Some(until) = &parts.until {
            self.mention_condition(item, until);
        }
        let at = self.text.span(&item.at);
        Some(Placed {
            rule: rule(name, parts, None, at.line),
            at,
            name_at: at,
        })
    }

    /// A rule as keys.
    fn structured(&mut self, node: &Node, default_name: String) -> Option<Placed> {
        let fields = self.fields(node, &language::RULE)?;
        let name_node = fields.get("name");
        let name = match name_node {
            Some(node) => self.rule_name(node),
            None => Some(default_name),
        };
        // Windows of `when` and `until` are numbered through, because one state carries both.
        let mut slot = 0;
        let when_node = fields.get("when");
        let when = when_node.and_then(|node| self.condition(node, "when", &mut slot));
        let then = fields
            .get("then")
            .and_then(|node| self.then(node, "then", None));
        let until = fields
            .get("until")
            .map(|node| self.condition(node, "until", &mut slot));
        let cooldown = fields
            .get("cooldown")
            .map(|node| self.rule_text(node, "cooldown", parse::cooldown));
        let priority = fields
            .get("priority")
            .map(|node| self.rule_text(node, "priority", parse::priority));
        let source = fields
            .get("source")
            .map(|node| self.choice::<Source>(node, "source", SOURCES));
        for (key, what) in [("when", "a condition"), ("then", "an action")] {
            if !fields.has(key) {
                let help = format!("add `{key}:` with {what}");
                self.missing(node, "the rule", key, Some(&help));
            }
        }
        let parts = RuleParts {
            when: when?,
            then: then?,
            until: until.map_or(Some(None), |until| until.map(Some))?,
            cooldown: cooldown.flatten(),
            priority: priority.flatten(),
        };
        let line = self.line(&node.at);
        let at = self.text.span(&when_node.unwrap_or(node).at);
        let name_at = self.text.span(&name_node.unwrap_or(node).at);
        Some(Placed {
            rule: rule(name?, parts, source.flatten(), line),
            at,
            name_at,
        })
    }

    /// A condition alone.
    pub(super) fn condition(
        &mut self,
        node: &Node,
        key: &str,
        slot: &mut usize,
    ) -> Option<Condition> {
        let condition =
            self.rule_text(node, key, |text, found| parse::condition(text, slot, found))?;
        self.mention_condition(node, &condition);
        Some(condition)
    }

    /// A list of actions. `source` is the external source under which they stand.
    pub(super) fn then(
        &mut self,
        node: &Node,
        key: &str,
        source: Option<&str>,
    ) -> Option<Vec<Action>> {
        let items = self.items(node, key, "actions", limits::MOST_ACTIONS);
        if let Value::List(given) = &node.value
            && given.is_empty()
        {
            let message = format!("nothing is done: `{key}` is an empty list");
            self.report(Kind::Missing, node, message, None);
            return None;
        }
        let mut actions = Vec::new();
        let mut complete = !items.is_empty();
        for item in items {
            match self.rule_text(item, key, parse::actions) {
                Some(mut found) => {
                    if let Some(source) = source {
                        name_source(&mut found, source);
                    }
                    self.mention_actions(item, &found);
                    actions.extend(found);
                }
                None => complete = false,
            }
        }
        if actions.len() > limits::MOST_ACTIONS {
            let message = format!("a rule has at most {} actions", limits::MOST_ACTIONS);
            self.report(Kind::TooLarge, node, message, None);
            return None;
        }
        complete.then_some(actions)
    }

    /// Lists of actions by name. None of them calls another, so that there is no circle.
    pub(super) fn responses(&mut self, node: &Node) -> BTreeMap<String, Vec<Action>> {
        let mut found = BTreeMap::new();
        let most = limits::MOST_RESPONSES;
        for entry in self.dictionary(node, "automated_responses", "responses", most) {
            let named = Node {
                at: entry.key_at.clone(),
                ..entry.value.clone()
            };
            let name = self.label(&entry.key, &named, "a response");
            if entry.value.is_empty() {
                self.no_value(entry, &entry.key);
                continue;
            }
            let Some(actions) = self.then(&entry.value, &entry.key, None) else {
                continue;
            };
            if let Some(Action::Respond(other)) = actions
                .iter()
                .find(|action| matches!(action, Action::Respond(_)))
            {
                let message = format!("the response `{}` calls `{other}`", entry.key);
                let help = "a response calls no other; write its actions out".to_owned();
                self.report(Kind::Contradiction, &entry.value, message, Some(help));
            }
            if let Some(name) = name {
                found.insert(name, actions);
            }
        }
        found
    }

    fn rule_name(&mut self, node: &Node) -> Option<String> {
        let name = self.text_of(node, "name", 256)?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.len() > 63
            || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !name.chars().all(allowed)
        {
            let help =
                Some("letters, digits, `.`, `_`, `-`; at most 63, such as `grow-cpu`".to_owned());
            self.report(
                Kind::BadName,
                node,
                format!("`{name}` is no name of a rule"),
                help,
            );
            return None;
        }
        Some(name)
    }
}

pub(crate) fn rule(name: String, parts: RuleParts, source: Option<Source>, line: u32) -> Rule {
    let RuleParts {
        when,
        then,
        until,
        cooldown,
        priority,
    } = parts;
    let cooldown = cooldown.unwrap_or(Rule::DEFAULT_COOLDOWN);
    let priority = priority.unwrap_or_default();
    let mut rule = Rule {
        name: name.into(),
        when,
        then,
        until,
        cooldown,
        priority,
        source,
        line,
        text: String::new().into(),
    };
    rule.text = rule.to_string().into();
    rule
}
