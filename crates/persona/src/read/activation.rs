//! What goes into the guest as text: environment and scripts. How it gets there is not here.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Reader;
use crate::document::{Entry, Node, Value};
use crate::language;
use crate::limits;
use crate::model::{EnvironmentValue, OnFailure, Script, Secret};
use crate::problem::{Kind, Problem};

impl Reader<'_> {
    pub(super) fn environment(
        &mut self,
        node: &Node,
    ) -> Option<BTreeMap<String, EnvironmentValue>> {
        let Value::Map(entries) = &node.value else {
            let message = format!(
                "`environment_variables` is a map of names to values, not {}",
                node.describe()
            );
            self.report(Kind::WrongType, node, message, None);
            return None;
        };
        if entries.len() > limits::MOST_VARIABLES {
            let message = format!(
                "{} variables are too many; at most {}",
                entries.len(),
                limits::MOST_VARIABLES
            );
            self.report(Kind::TooLarge, node, message, None);
            return None;
        }
        let mut found = BTreeMap::new();
        for entry in entries {
            let span = self.text.span(&entry.key_at);
            let shown: String = entry.key.chars().take(60).collect();
            if !is_variable(&entry.key) {
                let problem = Problem::error(
                    Kind::BadName,
                    span,
                    format!("`{shown}` is no name of a variable"),
                );
                let help =
                    "letters, digits and underscores, not starting with a digit; at most 128";
                self.problems.push(problem.help(help));
                continue;
            }
            if entry.value.is_empty() {
                let problem =
                    Problem::error(Kind::Missing, span, format!("`{shown}` has no value"));
                let help = format!("write `{shown}: \"\"` for an empty one, or remove it");
                self.problems.push(problem.help(help));
                continue;
            }
            let value = match &entry.value.value {
                Value::Map(_) => self.secret(entry, &shown),
                _ => self
                    .variable(&entry.value, &shown)
                    .map(EnvironmentValue::Text),
            };
            if let Some(value) = value {
                found.insert(entry.key.clone(), value);
            }
        }
        Some(found)
    }

    /// The value of a variable; `shown` is the variable.
    fn variable(&mut self, node: &Node, shown: &str) -> Option<String> {
        let value = self.text_of(node, shown, limits::LONGEST_VARIABLE)?;
        // The files that hold the environment have one line for each variable (environment.d(5)).
        if value.chars().any(|c| c.is_control() && c != '\t') {
            let message =
                format!("the value of `{shown}` has a line break or another control character");
            let help = "a variable is one line; put longer texts into a file of the guest";
            self.report(Kind::OutOfRange, node, message, Some(help.to_owned()));
            return None;
        }
        Some(value)
    }

    fn secret(&mut self, entry: &Entry, shown: &str) -> Option<EnvironmentValue> {
        let node = &entry.value;
        let fields = self.fields(node, &language::SECRET)?;
        let Some(value) = fields.get("secret") else {
            if !fields.has("secret") {
                self.missing(node, &format!("`{shown}`"), "secret", None);
            }
            return None;
        };
        let text = self.variable(value, shown)?;
        let message = format!(
            "the secret `{shown}` is not shown, but this version lets every local user read the document that holds it"
        );
        let help = "set it within the guest instead, where others on the host must not know it";
        let span = self.text.span(&entry.key_at);
        self.problems
            .push(Problem::warning(Kind::NotYetSupported, span, message).help(help));
        let secret = Secret::new(text);
        Some(EnvironmentValue::Secret { secret })
    }

    /// Scripts by name, for `run`.
    pub(super) fn response_scripts(&mut self, node: &Node) -> BTreeMap<String, Script> {
        let mut found = BTreeMap::new();
        let most = limits::MOST_RESPONSES;
        for entry in self.dictionary(node, "response_scripts", "scripts", most) {
            let named = Node {
                at: entry.key_at.clone(),
                ..entry.value.clone()
            };
            let name = self.label(&entry.key, &named, "a script");
            if entry.value.is_empty() {
                self.no_value(entry, &entry.key);
                continue;
            }
            if let (Some(name), Some(script)) = (name, self.script(&entry.value, &entry.key)) {
                found.insert(name, script);
            }
        }
        found
    }

    pub(super) fn script(&mut self, node: &Node, owner: &str) -> Option<Script> {
        let fields = self.fields(node, &language::SCRIPT)?;
        let interpreter = fields.get("interpreter").map(|node| self.interpreter(node));
        let range = (Duration::from_secs(1), limits::LONGEST_TIMEOUT);
        let timeout = fields
            .get("timeout")
            .map(|node| self.duration(node, "timeout", range, "60s"));
        let user = fields.get("user").map(|node| self.user(node));
        let on_failure = fields
            .get("on_failure")
            .map(|node| self.choice::<OnFailure>(node, "on_failure", language::ON_FAILURE));
        let Some(text) = fields.get("text") else {
            if !fields.has("text") {
                self.missing(node, &format!("`{owner}`"), "text", None);
            }
            return None;
        };
        let body = self.script_text(text, owner)?;
        let script = self.build(text, body, interpreter.flatten())?;
        Some(Script {
            timeout: timeout.flatten().unwrap_or(script.timeout),
            user: user.flatten().unwrap_or(script.user),
            on_failure: on_failure.flatten().unwrap_or_default(),
            ..script
        })
    }

    fn script_text(&mut self, node: &Node, owner: &str) -> Option<String> {
        let text = self.text_of(node, owner, limits::LONGEST_SCRIPT)?;
        if text.trim().is_empty() {
            self.report(Kind::Missing, node, format!("`{owner}` is empty"), None);
            return None;
        }
        Some(text)
    }

    /// The interpreter is what the document names, else what the first line does, as the kernel reads it (execve(2)):
    /// a path and, behind the first blank, one argument.
    fn build(&mut self, node: &Node, text: String, named: Option<String>) -> Option<Script> {
        let line = text
            .strip_prefix("#!")
            .and_then(|rest| rest.lines().next())
            .map(str::trim);
        let (path, argument) = match line {
            Some(line) => match line.split_once([' ', '\t']) {
                Some((path, argument)) => (Some(path), Some(argument.trim().to_owned())),
                None => (Some(line), None),
            },
            None => (None, None),
        };
        let (interpreter, argument) = match (named, path) {
            (Some(named), _) => (named, None),
            (None, Some(path)) if is_program(path) => (path.to_owned(), argument),
            (None, Some(path)) => {
                let end = text.find('\n').unwrap_or(text.len());
                let span = self.text.span_within(node, &(0..end));
                let message = format!("the interpreter `{path}` is no absolute path");
                self.problems.push(
                    Problem::error(Kind::BadName, span, message)
                        .help("write `#!/bin/sh`, for example"),
                );
                return None;
            }
            (None, None) => (Script::DEFAULT_INTERPRETER.to_owned(), None),
        };
        let length = interpreter.len() + argument.as_ref().map_or(0, |argument| argument.len() + 1);
        let plain = argument
            .as_ref()
            .is_none_or(|argument| !argument.chars().any(char::is_control));
        if length > limits::LONGEST_INTERPRETER || !plain {
            let message = format!(
                "the interpreter with its argument has {length} bytes; at most {} without control characters are read",
                limits::LONGEST_INTERPRETER
            );
            let help = "start a program of the guest from the script instead".to_owned();
            self.report(Kind::TooLarge, node, message, Some(help));
            return None;
        }
        Some(Script {
            interpreter,
            argument,
            text,
            timeout: Script::DEFAULT_TIMEOUT,
            user: Script::DEFAULT_USER.to_owned(),
            on_failure: OnFailure::default(),
        })
    }

    fn interpreter(&mut self, node: &Node) -> Option<String> {
        let text = self.text_of(node, "interpreter", 256)?;
        if !is_program(&text) {
            let message = format!("the interpreter `{text}` is no absolute path");
            self.report(
                Kind::BadName,
                node,
                message,
                Some("write `/bin/sh`, for example".to_owned()),
            );
            return None;
        }
        Some(text)
    }

    fn user(&mut self, node: &Node) -> Option<String> {
        let text = self.text_of(node, "user", 256)?;
        if !is_user(&text) {
            let help = Some("write the name of a user of the guest, such as `www-data`".to_owned());
            self.report(
                Kind::BadName,
                node,
                format!("`{text}` is no name of a user"),
                help,
            );
            return None;
        }
        Some(text)
    }
}

/// A name as the shell accepts it.
fn is_variable(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts
        && name.len() <= 128
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// An absolute path of a program, without arguments.
pub(super) fn is_program(path: &str) -> bool {
    path.starts_with('/')
        && !path.ends_with('/')
        && !path.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// A name as useradd(8) accepts it.
fn is_user(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-')
    };
    starts && name.len() <= 32 && name.bytes().all(allowed)
}
