//! The tree of a document into a persona: what each key may hold and what it comes to. Every problem is reported and
//! reading goes on; a persona comes out only where there was no error. Which keys there are is in `language`; rules that
//! contradict each other or the bounds are checked in `validate`.

mod activation;
mod base;
mod guest;
mod learning;
mod priority;
mod profile;
mod references;
mod rules;
mod sources;
mod value;

use std::collections::BTreeMap;

use crate::digest::{self, Digest};
use crate::document::{self, Node, SourceText, Text};
use crate::language;
use crate::limits;
use crate::model::{
    Class, Level, Persona, PersonaName, PersonaNameError, Reference, ReferenceError, TrustLevels,
};
use crate::problem::{Kind, Problem, Problems};
use crate::validate;
use references::Mention;
pub(crate) use rules::rule;
use value::Fields;

/// A persona, and what its author should still look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The persona.
    pub persona: Persona,
    /// Warnings; they stop nothing.
    pub warnings: Problems,
}

/// Reads one document.
///
/// # Errors
/// All errors and warnings of the document, where there is at least one error.
pub fn load(source: &SourceText<'_>) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    let (text, root) = document::parse(source, &mut problems);
    let tree = root.map(|root| {
        let (tree, found) = language::canonical(&root, &text);
        problems.extend(found);
        tree
    });
    let mut reader = Reader::new(&text, problems);
    let persona = tree.and_then(|tree| reader.persona(&tree, source.persona_name));
    let problems = document::collect(source.name, &text, reader.into_problems());
    match persona {
        Some(persona) if !problems.has_errors() => Ok(Loaded {
            persona,
            warnings: problems,
        }),
        _ => Err(problems),
    }
}

/// Walks the tree and collects what is wrong.
pub(crate) struct Reader<'a> {
    text: &'a Text,
    problems: Vec<Problem>,
    /// Names of other parts of the document, as rules and responses mention them.
    mentions: Vec<Mention>,
}

impl<'a> Reader<'a> {
    /// A reader that goes on from the problems that were found already.
    pub(crate) fn new(text: &'a Text, problems: Vec<Problem>) -> Self {
        Self {
            text,
            problems,
            mentions: Vec::new(),
        }
    }

    /// All that was found.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}

impl Reader<'_> {
    /// Reads a tree in canonical form. What comes out counts only where no error was reported.
    pub(crate) fn persona(&mut self, root: &Node, given_name: Option<&str>) -> Option<Persona> {
        let fields = self.fields(root, &language::ROOT)?;
        let field = |key: &str| fields.get(key);
        let name = self.own_name(root, &fields, given_name);
        let description =
            field("description").and_then(|node| self.description(node, "description"));
        let functional_role =
            field("functional_role").and_then(|node| self.description(node, "functional_role"));
        let default =
            field("default_persona").and_then(|node| self.boolean(node, "default_persona"));
        let extends = field("extends").map_or_else(Vec::new, |node| self.extends(node, &name));
        let base = field("base_configuration").and_then(|node| self.base(node));
        let base = base.unwrap_or_default();
        let groups = field("metric_groups").map(|node| self.metric_groups(node));
        let groups = groups.unwrap_or_default();
        let priorities = field("priority_metrics")
            .map(|node| self.priorities(node, &groups, !extends.is_empty()))
            .unwrap_or_default();
        let trust = field("trust_levels").map(|node| self.trust(node));
        let mut rules = Vec::new();
        for (key, prefix) in [
            ("adaptation_rules", "rule"),
            ("telemetry_triggers", "trigger"),
        ] {
            if let Some(node) = field(key) {
                self.rules(node, key, prefix, &mut rules);
            }
        }
        let responses = field("automated_responses").map(|node| self.responses(node));
        let sources = field("external_data_sources").map(|node| self.sources(node, &mut rules));
        let response_scripts = field("response_scripts").map(|node| self.response_scripts(node));
        let environment = field("environment_variables").and_then(|node| self.environment(node));
        let pre_activation = field("pre_activation_script")
            .and_then(|node| self.script(node, "pre_activation_script"));
        let post_activation = field("post_activation_script")
            .and_then(|node| self.script(node, "post_activation_script"));
        let (command_overrides, restricted_commands) =
            self.commands(field("command_overrides"), field("restricted_commands"));
        let mut persona = Persona {
            name: name?,
            description,
            default_persona: default.unwrap_or_default(),
            extends,
            allowed_switches: field("allowed_switches")
                .map(|node| self.switches(node))
                .unwrap_or_default(),
            functional_role,
            base,
            software: field("software_stack")
                .map(|node| self.software(node))
                .unwrap_or_default(),
            priorities,
            metric_groups: groups,
            learning: field("learning_domains").map(|node| self.learning(node)),
            decay: field("decay_rate").and_then(|node| self.decay(node)),
            rules: Vec::new(),
            responses: responses.unwrap_or_default(),
            response_scripts: response_scripts.unwrap_or_default(),
            sources: sources.unwrap_or_default(),
            environment: environment.unwrap_or_default(),
            pre_activation,
            post_activation,
            command_overrides,
            restricted_commands,
            os_settings: field("os_settings")
                .and_then(|node| self.os_settings(node))
                .unwrap_or_default(),
            application_settings: field("application_settings")
                .and_then(|node| self.application_settings(node))
                .unwrap_or_default(),
            behavioral_settings: field("behavioral_settings")
                .and_then(|node| self.behavioral_settings(node))
                .unwrap_or_default(),
            trust: trust.unwrap_or_default(),
            performance_profile: field("performance_profile")
                .map(|node| self.performance_profile(node))
                .unwrap_or_default(),
            security_profile: field("security_profile").and_then(|node| self.security(node)),
            lifecycle: field("lifecycle_expectations").and_then(|node| self.lifecycle(node)),
            cost: field("cost_tolerance").and_then(|node| self.cost(node)),
            digest: Digest::default(),
        };
        self.refer(&mut persona, &mut rules, &fields);
        validate::rules(&rules, &persona.base, &mut self.problems);
        persona.rules = rules.into_iter().map(|placed| placed.rule).collect();
        persona.digest = digest::digest(&persona);
        Some(persona)
    }

    /// The key `name`, else what the caller gives. A root `persona_NAME` has become the key.
    fn own_name(
        &mut self,
        root: &Node,
        fields: &Fields<'_>,
        given: Option<&str>,
    ) -> Option<PersonaName> {
        match (fields.get("name"), given) {
            (Some(node), _) => {
                let text = self.text_of(node, "name", PersonaName::LONGEST * 4);
                text.and_then(|text| self.name(&text, node))
            }
            (None, _) if fields.has("name") => None,
            (None, Some(name)) => self.name(name, root),
            (None, None) => {
                let start = self.text.document_around(root.at.start).start;
                let problem = Problem::error(
                    Kind::Missing,
                    self.text.span(&(start..start)),
                    "the persona has no name",
                );
                self.problems
                    .push(problem.help("add `name: …`, or give one with --name"));
                None
            }
        }
    }

    fn name(&mut self, name: &str, node: &Node) -> Option<PersonaName> {
        match name.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                self.bad_name(&error, node);
                None
            }
        }
    }

    fn bad_name(&mut self, error: &PersonaNameError, node: &Node) {
        let help = match &error.suggestion {
            Some(suggestion) => format!("`{suggestion}` would be one"),
            None => "a name starts with a letter or digit and goes on with letters, digits, `.`, `_`, `-`; \
                     at most 63 characters"
                .to_owned(),
        };
        let message = format!("`{}` is no persona name", error.name);
        self.report(Kind::BadName, node, message, Some(help));
    }

    /// The name and the bases alone.
    pub(crate) fn header(
        &mut self,
        root: &Node,
        given_name: Option<&str>,
    ) -> Option<(PersonaName, Vec<Reference>, bool)> {
        let fields = self.fields(root, &language::ROOT)?;
        let name = self.own_name(root, &fields, given_name);
        let extends = fields.get("extends");
        let extends = extends.map_or_else(Vec::new, |node| self.extends(node, &name));
        let default = fields.get("default_persona");
        let default = default.and_then(|node| self.boolean(node, "default_persona"));
        Some((name?, extends, default.unwrap_or_default()))
    }

    pub(crate) fn extends(&mut self, node: &Node, own: &Option<PersonaName>) -> Vec<Reference> {
        let mut found: Vec<Reference> = Vec::new();
        for item in self.items(node, "extends", "bases", limits::MOST_BASES) {
            let Some(text) = self.line_of(item, "extends", limits::LONGEST_LINE) else {
                continue;
            };
            let reference: Reference = match text.parse() {
                Ok(reference) => reference,
                Err(ReferenceError::Name(error)) => {
                    self.bad_name(&error, item);
                    continue;
                }
                Err(error @ ReferenceError::Version(_)) => {
                    let help = Some("write `NAME` or `NAME@VERSION`".to_owned());
                    self.report(Kind::BadName, item, error.to_string(), help);
                    continue;
                }
            };
            if Some(&reference.name) == own.as_ref() {
                let message = format!("`{}` extends itself", reference.name);
                self.report(Kind::Contradiction, item, message, None);
            } else if found.iter().any(|other| other.name == reference.name) {
                let message = format!("`{}` is extended twice", reference.name);
                self.report(Kind::Duplicate, item, message, None);
            } else {
                found.push(reference);
            }
        }
        found
    }

    fn switches(&mut self, node: &Node) -> Vec<PersonaName> {
        let mut found: Vec<PersonaName> = Vec::new();
        for item in self.items(node, "allowed_switches", "personas", limits::MOST_SWITCHES) {
            let text = self.line_of(item, "allowed_switches", limits::LONGEST_LINE);
            let Some(name) = text.and_then(|text| self.name(&text, item)) else {
                continue;
            };
            if found.contains(&name) {
                let message = format!("`{name}` stands here a second time");
                self.report(Kind::Duplicate, item, message, None);
            } else {
                found.push(name);
            }
        }
        // It is a set; how it is written does not matter.
        found.sort();
        found
    }

    fn description(&mut self, node: &Node, key: &str) -> Option<String> {
        // How a block ends is style, not meaning.
        let text = self.text_of(node, key, limits::LONGEST_DESCRIPTION)?;
        Some(text.trim_end().to_owned())
    }

    fn trust(&mut self, node: &Node) -> TrustLevels {
        let mut levels = BTreeMap::new();
        let Some(fields) = self.fields(node, &language::TRUST) else {
            return TrustLevels::default();
        };
        for (class, key) in Class::ALL {
            if let Some(level) = fields.get(key).and_then(|node| self.level(node, key)) {
                levels.insert(class, level);
            }
        }
        TrustLevels { levels }
    }

    fn level(&mut self, node: &Node, key: &str) -> Option<Level> {
        let text = self.text_of(node, key, 64)?;
        let lowered = text.trim().to_ascii_lowercase();
        let word = Level::ALL.iter().find(|(_, word)| *word == lowered);
        // Only a decimal number: `nan` and `inf` would read as numbers, too.
        let decimal = lowered
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
        let number = || {
            let number = lowered.parse().ok().filter(|_| decimal);
            number
                .filter(|number| *number <= 1.0)
                .map(Level::from_number)
        };
        let known = word.map(|(level, _)| *level).or_else(number);
        if known.is_none() {
            let help = "write none, low, medium, high, or a number from 0 to 1".to_owned();
            let message = format!("`{text}` is no level of trust");
            self.report(Kind::OutOfRange, node, message, Some(help));
        }
        known
    }

    /// Reports a problem with a value.
    fn report(
        &mut self,
        kind: Kind,
        node: &Node,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        let problem = Problem::error(kind, self.text.span(&node.at), message);
        self.problems.push(Problem { help, ..problem });
    }
}
