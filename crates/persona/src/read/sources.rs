//! `external_data_sources`: where data comes from, and the rule that a source may bring with it.

use super::Reader;
use super::rules::rule;
use super::value::Fields;
use crate::document::Node;
use crate::language;
use crate::limits;
use crate::model::{ExternalSource, FeedFormat};
use crate::problem::Kind;
use crate::rule::parse::RuleParts;
use crate::rule::{Condition, Expr};
use crate::signal::{Event, EventKind};
use crate::validate::Placed;

impl Reader<'_> {
    /// Reads the sources; the rules that they bring stand behind those that are there already.
    pub(super) fn sources(&mut self, node: &Node, rules: &mut Vec<Placed>) -> Vec<ExternalSource> {
        let key = "external_data_sources";
        let mut found: Vec<ExternalSource> = Vec::new();
        for item in self.items(node, key, "sources", limits::MOST_SOURCES) {
            let Some(fields) = self.fields(item, &language::SOURCE) else {
                continue;
            };
            let source = self.source(item, &fields);
            self.feed_rule(item, &fields, source.as_ref(), rules);
            let Some(source) = source else { continue };
            if found.iter().any(|other| other.name == source.name) {
                let message = format!("there is a source `{}` already", source.name);
                let help = Some("give each its own `name`".to_owned());
                let at = fields.get("name").unwrap_or(item);
                self.report(Kind::Duplicate, at, message, help);
                continue;
            }
            found.push(source);
        }
        found
    }

    fn source(&mut self, item: &Node, fields: &Fields<'_>) -> Option<ExternalSource> {
        let url = fields.get("url").and_then(|node| self.url(node));
        if !fields.has("url") {
            let help = "write `url: https://…` or `url: file:///…`";
            self.missing(item, "the source", "url", Some(help));
        }
        let name = match fields.get("name") {
            Some(node) => {
                let text = self.line_of(node, "name", limits::LONGEST_LINE);
                text.and_then(|text| self.label(&text, node, "a source"))
            }
            None => {
                if url.is_some() && !fields.has("name") {
                    let help = "its URL names no host, so write `name: …`";
                    self.missing(item, "the source", "name", Some(help));
                }
                None
            }
        };
        let shortest = limits::SHORTEST_FREQUENCY;
        let range = (shortest, limits::LONGEST_FREQUENCY);
        let frequency = match fields.get("frequency") {
            Some(node) => self.duration(node, "frequency", range, "5m"),
            None => Some(ExternalSource::DEFAULT_FREQUENCY),
        };
        let stale_after = match fields.get("stale_after") {
            Some(node) => {
                let longest = limits::LONGEST_FREQUENCY * ExternalSource::STALE_AFTER_INTERVALS;
                let stale = self.duration(node, "stale_after", (shortest, longest), "1h");
                if let (Some(stale), Some(frequency)) = (stale, frequency)
                    && stale < frequency
                {
                    let message = "`stale_after` is shorter than `frequency`: the value would be unknown between two fetches";
                    let help = Some("make it a few times `frequency`".to_owned());
                    self.report(Kind::Contradiction, node, message, help);
                }
                stale
            }
            None => frequency.map(|every| every * ExternalSource::STALE_AFTER_INTERVALS),
        };
        let format = self.format(fields)?;
        Some(ExternalSource {
            name: name?,
            url: url?,
            frequency: frequency?,
            format,
            stale_after: stale_after?,
        })
    }

    /// The form of the answer; a path or a column says it as well. `None` where it was refused.
    fn format(&mut self, fields: &Fields<'_>) -> Option<Option<FeedFormat>> {
        let mut line = |key: &str| {
            fields
                .get(key)
                .map(|node| (self.line_of(node, key, limits::LONGEST_LINE), node))
        };
        let (path, column) = (line("path"), line("column"));
        let word = match fields.get("format") {
            Some(node) => Some(self.word(node, "format", language::FORMATS)?),
            None => match (&path, &column) {
                (Some(_), _) => Some("json"),
                (None, Some(_)) => Some("csv"),
                (None, None) => None,
            },
        };
        for (given, key, goes_with) in [(&path, "path", "json"), (&column, "column", "csv")] {
            if let Some((_, node)) = given
                && word != Some(goes_with)
            {
                let found = word.unwrap_or_default();
                let message = format!("`{key}` goes with `format: {goes_with}`, not with {found}");
                self.report(Kind::Contradiction, node, message, None);
            }
        }
        let text = |given: Option<(Option<String>, &Node)>| given.and_then(|(text, _)| text);
        Some(match word {
            Some("json") => Some(FeedFormat::Json { path: text(path) }),
            Some("csv") => Some(FeedFormat::Csv {
                column: text(column),
            }),
            Some(_) => Some(FeedFormat::Lines),
            None => None,
        })
    }

    fn url(&mut self, node: &Node) -> Option<String> {
        let url = self.line_of(node, "url", limits::LONGEST_URL)?;
        let mut refuse = |message: String, help: &str| {
            self.report(Kind::OutOfRange, node, message, Some(help.to_owned()));
            None
        };
        let example = "write it as `https://example.com/list` or `file:///srv/list`";
        let Some((scheme, rest)) = url.split_once(':') else {
            return refuse(format!("`{url}` is no URL"), example);
        };
        if url.contains(char::is_whitespace) {
            return refuse(
                format!("`{url}` is no URL: it has a blank"),
                "write `%20` for a blank",
            );
        }
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => {
                let authority = rest.strip_prefix("//").unwrap_or_default();
                let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
                if authority.is_empty() {
                    return refuse(format!("`{url}` names no host"), example);
                }
                if authority.contains('@') {
                    return refuse(
                        "the URL has a user or a password in it, which everybody who may read the persona could see"
                            .to_owned(),
                        "remove what stands before the `@`",
                    );
                }
            }
            "file" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if !path.starts_with('/') || path.ends_with('/') {
                    return refuse(
                        format!("`{url}` names no file by its absolute path"),
                        example,
                    );
                }
            }
            other => {
                let message = format!("a source is read by http, https or file, not by `{other}`");
                return refuse(message, example);
            }
        }
        Some(url)
    }

    /// `condition` and `action` are a rule of their own.
    fn feed_rule(
        &mut self,
        item: &Node,
        fields: &Fields<'_>,
        source: Option<&ExternalSource>,
        rules: &mut Vec<Placed>,
    ) {
        let (when_node, then_node) = (fields.get("condition"), fields.get("action"));
        let mut slot = 0;
        let when = when_node.map(|node| self.condition(node, "condition", &mut slot));
        let Some(then_node) = then_node else {
            if when_node.is_some() && !fields.has("action") {
                let help = "add `action:` with what is done then";
                self.missing(item, "the source", "action", Some(help));
            }
            return;
        };
        let name = source.map(|source| source.name.as_str());
        let Some(then) = self.then(then_node, "action", name) else {
            return;
        };
        let when = when.unwrap_or_else(|| name.map(changed));
        let (Some(name), Some(when)) = (name, when) else {
            return;
        };
        if rules.len() >= limits::MOST_RULES {
            let message = format!("a persona has at most {} rules", limits::MOST_RULES);
            self.report(Kind::TooLarge, item, message, None);
            return;
        }
        let parts = RuleParts {
            when,
            then,
            until: None,
            cooldown: None,
            priority: None,
        };
        let line = self.line(&item.at);
        rules.push(Placed {
            rule: rule(format!("feed-{name}"), parts, None, line),
            at: self.text.span(&when_node.unwrap_or(then_node).at),
            name_at: self.text.span(&fields.get("name").unwrap_or(item).at),
        });
    }
}

/// The condition of a source that has none: its data is other than before.
fn changed(source: &str) -> Condition {
    Condition::new(Expr::Event(Event {
        kind: EventKind::FeedChanged,
        source: Some(source.to_owned()),
    }))
}
