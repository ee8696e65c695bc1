//! `adaptation_rules` and `telemetry_triggers`: a rule as a text or as keys; both are the same rule.

use super::Reader;
use super::value::Key;
use crate::document::{Node, Value};
use crate::limits;
use crate::problem::{Kind, Problem};
use crate::rule::Rule;
use crate::rule::parse::{self, RuleParts};
use crate::signal::Source;
use crate::validate::Placed;

const RULE: &[Key] = &[
    Key::read("name"),
    Key::read("when"),
    Key::read("condition"),
    Key::read("then"),
    Key::read("action"),
    Key::read("until"),
    Key::read("cooldown"),
    Key::read("priority"),
    Key::read("source"),
];

impl Reader<'_> {
    /// Reads one list of rules behind those that are there already.
    pub(super) fn rules(&mut self, node: &Node, key: &str, prefix: &str, rules: &mut Vec<Placed>) {
        for (index, item) in self.items(node, key).iter().enumerate() {
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
                _ => self.rule_text(item, key, parse::rule).map(|parts| {
                    let at = self.text.span(&item.at);
                    Placed {
                        rule: rule(default_name, parts, None, at.line),
                        at,
                        name_at: at,
                    }
                }),
            };
            rules.extend(placed);
        }
    }

    fn structured(&mut self, node: &Node, default_name: String) -> Option<Placed> {
        let fields = self.fields(node, "a rule", RULE)?;
        let field = |key: &str| fields.get(key).map(|entry| &entry.value);
        for (one, other) in [("when", "condition"), ("then", "action")] {
            if let (Some(_), Some(second)) = (fields.get(one), fields.get(other)) {
                let span = self.text.span(&second.key_at);
                let message =
                    format!("`{one}` and `{other}` are the same key, and both stand here");
                self.problems
                    .push(Problem::error(Kind::Duplicate, span, message));
            }
        }
        let name_node = field("name");
        let name = match name_node {
            Some(node) => self.rule_name(node),
            None => Some(default_name),
        };
        // Windows of `when` and `until` are numbered through, because one state carries both.
        let mut slot = 0;
        let when_node = field("when").or_else(|| field("condition"));
        let when = when_node.and_then(|node| {
            self.rule_text(node, "when", |text, found| {
                parse::condition(text, &mut slot, found)
            })
        });
        let then_node = field("then").or_else(|| field("action"));
        let then = then_node.and_then(|node| self.then(node));
        let until = field("until").map(|node| {
            self.rule_text(node, "until", |text, found| {
                parse::condition(text, &mut slot, found)
            })
        });
        let cooldown =
            field("cooldown").map(|node| self.rule_text(node, "cooldown", parse::cooldown));
        let priority =
            field("priority").map(|node| self.rule_text(node, "priority", parse::priority));
        let source = field("source").map(|node| self.source(node));
        let Value::Map(entries) = &node.value else {
            return None;
        };
        let written = |key: &str| {
            entries
                .iter()
                .any(|entry| entry.key.eq_ignore_ascii_case(key))
        };
        for (key, alias, what) in [
            ("when", "condition", "a condition"),
            ("then", "action", "an action"),
        ] {
            if !written(key) && !written(alias) {
                let message = format!("the rule has no `{key}`");
                let help = Some(format!("add `{key}:` with {what}"));
                self.report(Kind::Missing, node, message, help);
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

    /// One action or a list of them.
    fn then(&mut self, node: &Node) -> Option<Vec<crate::rule::Action>> {
        let Value::List(items) = &node.value else {
            return self.rule_text(node, "then", parse::actions);
        };
        if items.is_empty() {
            self.report(
                Kind::Missing,
                node,
                "the rule does nothing: `then` is an empty list",
                None,
            );
            return None;
        }
        let mut actions = Vec::new();
        let mut complete = true;
        for item in items {
            match self.rule_text(item, "then", parse::actions) {
                Some(found) => actions.extend(found),
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

    fn source(&mut self, node: &Node) -> Option<Source> {
        let text = self.text_of(node, "source", 256)?;
        match text.to_ascii_lowercase().as_str() {
            "agent" => Some(Source::Agent),
            "balloon" => Some(Source::Balloon),
            "host" => Some(Source::Host),
            _ => {
                let message = format!("`source` is host, balloon or agent, not `{text}`");
                self.report(Kind::OutOfRange, node, message, None);
                None
            }
        }
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
        name,
        when,
        then,
        until,
        cooldown,
        priority,
        source,
        line,
        text: String::new(),
    };
    rule.text = rule.to_string();
    rule
}
