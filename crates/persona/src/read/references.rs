//! What rules and responses mention of other parts of the document: scripts, responses, sources, weights. Each mention is kept where
//! it is read, and looked up when all parts are known.

use super::Reader;
use super::value::Fields;
use crate::adjust::{self, Change};
use crate::document::Node;
use crate::model::{Persona, Preference};
use crate::problem::{self, Kind, Problem, Severity, Span};
use crate::rule::{Action, Condition, Value};
use crate::signal::Signal;
use crate::validate::Placed;

/// A name of another part, and where it is mentioned.
pub(super) struct Mention {
    part: Part,
    /// Empty for the only source, whichever it is.
    name: String,
    at: Span,
}

/// Parts of a document whose names are mentioned.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Script,
    Response,
    Source,
    Weight,
}

impl Part {
    fn key(self) -> &'static str {
        match self {
            Self::Script => "response_scripts",
            Self::Response => "automated_responses",
            Self::Source => "external_data_sources",
            Self::Weight => "priority_metrics",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Script => "script",
            Self::Response => "response",
            Self::Source => "external source",
            Self::Weight => "weight",
        }
    }
}

impl Reader<'_> {
    /// Keeps what actions mention; `node` holds their text.
    pub(super) fn mention_actions(&mut self, node: &Node, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Run(name) => self.mention(node, Part::Script, name),
                Action::Respond(name) => self.mention(node, Part::Response, name),
                Action::BlockAddresses { source } | Action::UnblockAddresses { source } => {
                    self.mention(node, Part::Source, source);
                }
                Action::Apply { key, .. } => self.check_applied(node, action, key),
                _ => {}
            }
        }
    }

    /// Holds a value that an action gives to a setting to what the document itself would be held to.
    fn check_applied(&mut self, node: &Node, action: &Action, key: &str) {
        let Some(change) = Change::of(action) else {
            return;
        };
        let at = self.place_of(node, key);
        let found = adjust::check(&change);
        self.problems.extend(found.into_iter().map(|problem| {
            let message = format!("`{action}`: {}", problem.message);
            Problem {
                // A rule is one text, whatever the shape of what it says is.
                kind: match problem.kind {
                    Kind::WrongType => Kind::OutOfRange,
                    kind => kind,
                },
                message,
                span: at,
                label: None,
                ..problem
            }
        }));
    }

    /// Where a name stands in the text of rules or actions, and where that text is when it is not found.
    fn place_of(&self, node: &Node, name: &str) -> Span {
        let text = node.scalar().unwrap_or_default().to_ascii_lowercase();
        let name = name.to_ascii_lowercase();
        match text.find(&name).filter(|_| !name.is_empty()) {
            Some(start) => self.text.span_within(node, &(start..start + name.len())),
            None => self.text.span(&node.at),
        }
    }

    /// Keeps what a condition mentions; `node` holds its text.
    pub(super) fn mention_condition(&mut self, node: &Node, condition: &Condition) {
        for signal in condition.signals() {
            if let Signal::Named(named) = signal
                && let Some(source) = named.source()
            {
                self.mention(node, Part::Source, source);
            }
        }
        condition.expr.visit_leaves(&mut |value| {
            if let Value::Priority { name, .. } = value {
                self.mention(node, Part::Weight, name);
            }
        });
        for event in condition.events() {
            if let Some(source) = &event.source {
                self.mention(node, Part::Source, source);
            }
        }
    }

    fn mention(&mut self, node: &Node, part: Part, name: &str) {
        let at = self.place_of(node, name);
        self.mentions.push(Mention {
            part,
            name: name.to_owned(),
            at,
        });
    }

    /// Gives what is read its last form now that all parts are known: actions on the only source get its name, rules get
    /// what they look up, and what is mentioned and not there is reported.
    pub(super) fn refer(
        &mut self,
        persona: &mut Persona,
        rules: &mut [Placed],
        fields: &Fields<'_>,
    ) {
        let only = match persona.sources.as_slice() {
            [only] => Some(only.name.clone()),
            _ => None,
        };
        if let Some(name) = &only {
            for placed in rules.iter_mut() {
                if name_source(&mut placed.rule.then, name) {
                    placed.rule.text = placed.rule.to_string().into();
                }
            }
            for actions in persona.responses.values_mut() {
                name_source(actions, name);
            }
        }
        for placed in rules.iter_mut() {
            placed.rule.resolve(&persona.priorities, &persona.trust);
        }
        self.unused_weights(persona, rules, fields);
        let names = |part: Part| -> Vec<&str> {
            match part {
                Part::Script => persona
                    .response_scripts
                    .keys()
                    .map(String::as_str)
                    .collect(),
                Part::Response => persona.responses.keys().map(String::as_str).collect(),
                Part::Source => {
                    let names = persona.sources.iter().map(|source| source.name.as_str());
                    names.collect()
                }
                Part::Weight => persona.priorities.iter().map(|(name, _)| name).collect(),
            }
        };
        for mention in std::mem::take(&mut self.mentions) {
            let Mention { part, name, at } = mention;
            let known = names(part);
            // A part that could not be read has been reported; what it would have defined is not known.
            let unread = known.is_empty() && fields.has(part.key());
            let there = match part {
                Part::Weight => persona.priorities.weight(&name).is_some(),
                _ if name.is_empty() => only.is_some(),
                _ => known.contains(&name.as_str()),
            };
            if there || unread {
                continue;
            }
            let problem = if name.is_empty() {
                let message = "this does not say from which source";
                let help = match known.as_slice() {
                    [] => "add one to external_data_sources".to_owned(),
                    _ => format!(
                        "write `block addresses from NAME`; there are {}",
                        known.join(", ")
                    ),
                };
                Problem::error(Kind::Missing, at, message).help(help)
            } else {
                let (noun, key) = (part.noun(), part.key());
                let help = match problem::nearest(&name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("add it to {key}"),
                };
                let message = format!("there is no {noun} `{name}`");
                Problem::error(Kind::UnknownName, at, message).help(help)
            };
            // What the persona builds on may have it.
            let severity = if persona.extends.is_empty() {
                Severity::Error
            } else {
                Severity::Warning
            };
            self.problems.push(Problem {
                severity,
                ..problem
            });
        }
    }
}

impl Reader<'_> {
    /// Weights are there for rules, and say which resource comes first where both are short.
    fn unused_weights(&mut self, persona: &Persona, rules: &[Placed], fields: &Fields<'_>) {
        let used = || {
            rules
                .iter()
                .any(|placed| placed.rule.priorities().next().is_some())
        };
        // The rules of what the persona builds on may use them.
        let weighs =
            || !Preference::of(persona).is_even() || !persona.prioritised_metrics().is_empty();
        if !persona.extends.is_empty() || persona.priorities.is_empty() || used() || weighs() {
            return;
        }
        if let Some(at) = fields.key_at("priority_metrics") {
            let message = "`priority_metrics` changes nothing: no rule looks a weight up, and none of its names stands for a metric";
            let problem = Problem::warning(Kind::NotYetSupported, self.text.span(at), message);
            self.problems
                .push(problem.help("a rule can compare `priority_metrics[NAME]`"));
        }
    }
}

/// Puts the name of the source where an action leaves it open. Tells whether there was such an action.
pub(super) fn name_source(actions: &mut [Action], name: &str) -> bool {
    let mut named = false;
    for action in actions {
        if let Action::BlockAddresses { source } | Action::UnblockAddresses { source } = action
            && source.is_empty()
        {
            name.clone_into(source);
            named = true;
        }
    }
    named
}
