//! The tree of a document into a persona: which keys there are and what each may hold. Every problem is reported and
//! reading goes on; a persona comes out only where there was no error. Values that contradict each other across rules
//! are checked in `validate`.

mod activation;
mod base;
mod rules;
mod value;

use std::collections::BTreeMap;

use crate::digest::{self, Digest};
use crate::document::{self, Node, SourceText, Text, Value};
use crate::limits;
use crate::model::{
    ApplicationSettings, BehavioralSettings, Class, EnvironmentValue, Level, OsSettings, Persona,
    PersonaName, PriorityMetrics, TrustLevels,
};
use crate::problem::{Kind, Problem, Problems};
use crate::validate;
pub(crate) use rules::rule;
use value::Key;

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
    let mut reader = Reader {
        text: &text,
        problems,
    };
    let persona = root.and_then(|root| reader.persona(&root, source.persona_name));
    let problems = document::collect(source.name, &text, reader.problems);
    match persona {
        Some(persona) if !problems.has_errors() => Ok(Loaded {
            persona,
            warnings: problems,
        }),
        _ => Err(problems),
    }
}

/// The keys at the root of a document.
const ROOT: &[Key] = &[
    Key::read("name"),
    Key::read("description"),
    Key::read("default_persona"),
    Key::read("functional_role"),
    Key::read("base_configuration"),
    Key::read("adaptation_rules"),
    Key::read("telemetry_triggers"),
    Key::read("environment_variables"),
    Key::read("pre_activation_script"),
    Key::read("post_activation_script"),
    Key::read("trust_levels"),
    Key::later("extends"),
    Key::later("allowed_switches"),
    Key::later("software_stack"),
    Key::later("priority_metrics"),
    Key::later("metric_groups"),
    Key::later("learning_domains"),
    Key::later("decay_rate"),
    Key::later("automated_responses"),
    Key::later("response_scripts"),
    Key::later("external_data_sources"),
    Key::later("command_overrides"),
    Key::later("restricted_commands"),
    Key::later("os_settings"),
    Key::later("application_settings"),
    Key::later("behavioral_settings"),
    Key::later("performance_profile"),
    Key::later("security_profile"),
    Key::later("lifecycle_expectations"),
    Key::later("cost_tolerance"),
];

const TRUST: &[Key] = &[
    Key::read("resource_scaling"),
    Key::read("network_access"),
    Key::read("command_execution"),
    Key::read("file_system_modification"),
    Key::read("persona_change"),
    Key::read("notify"),
];

/// Walks the tree and collects what is wrong.
pub(crate) struct Reader<'a> {
    text: &'a Text,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// A reader that goes on from the problems that were found already.
    pub(crate) fn new(text: &'a Text, problems: Vec<Problem>) -> Self {
        Self { text, problems }
    }

    /// All that was found.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}

impl Reader<'_> {
    pub(crate) fn persona(&mut self, root: &Node, given_name: Option<&str>) -> Option<Persona> {
        let (body, root_name) = named_root(root);
        let fields = self.fields(body, "a persona", ROOT)?;
        let name = match (fields.get("name"), root_name, given_name) {
            (Some(entry), _, _) => {
                let text = self.text_of(&entry.value, "name", PersonaName::LONGEST * 4);
                text.and_then(|text| self.name(&text, &entry.value))
            }
            (None, Some(name), _) => self.name(&name, root),
            (None, None, Some(name)) => self.name(name, root),
            (None, None, None) => {
                let problem = Problem::error(
                    Kind::Missing,
                    self.text.span(&(0..0)),
                    "the persona has no name",
                );
                self.problems
                    .push(problem.help("add `name: …`, or give one with --name"));
                None
            }
        };
        let field = |key: &str| fields.get(key).map(|entry| &entry.value);
        let description =
            field("description").and_then(|node| self.description(node, "description"));
        let role =
            field("functional_role").and_then(|node| self.description(node, "functional_role"));
        let default =
            field("default_persona").and_then(|node| self.boolean(node, "default_persona"));
        let base = field("base_configuration").and_then(|node| self.base(node));
        let environment = field("environment_variables").and_then(|node| self.environment(node));
        let pre_activation = field("pre_activation_script")
            .and_then(|node| self.script(node, "pre_activation_script"));
        let post_activation = field("post_activation_script")
            .and_then(|node| self.script(node, "post_activation_script"));
        let trust = field("trust_levels").map(|node| self.trust(node));
        let base = base.unwrap_or_default();
        let mut rules = Vec::new();
        for (key, prefix) in [
            ("adaptation_rules", "rule"),
            ("telemetry_triggers", "trigger"),
        ] {
            if let Some(node) = field(key) {
                self.rules(node, key, prefix, &mut rules);
            }
        }
        validate::rules(&rules, &base, &mut self.problems);
        let mut persona = Persona {
            name: name?,
            description,
            default_persona: default.unwrap_or_default(),
            extends: Vec::new(),
            allowed_switches: Vec::new(),
            functional_role: role,
            base,
            software: Vec::new(),
            priorities: PriorityMetrics::default(),
            metric_groups: BTreeMap::new(),
            learning: None,
            decay: None,
            rules: rules.into_iter().map(|placed| placed.rule).collect(),
            responses: BTreeMap::new(),
            response_scripts: BTreeMap::new(),
            sources: Vec::new(),
            environment: environment
                .unwrap_or_default()
                .into_iter()
                .map(|(name, value)| (name, EnvironmentValue::Text(value)))
                .collect(),
            pre_activation,
            post_activation,
            command_overrides: BTreeMap::new(),
            restricted_commands: Vec::new(),
            os_settings: OsSettings::default(),
            application_settings: ApplicationSettings::default(),
            behavioral_settings: BehavioralSettings::default(),
            trust: trust.unwrap_or_default(),
            performance_profile: Vec::new(),
            security_profile: None,
            lifecycle: None,
            cost: None,
            digest: Digest::default(),
        };
        persona.digest = digest::digest(&persona);
        Some(persona)
    }

    fn name(&mut self, name: &str, node: &Node) -> Option<PersonaName> {
        match name.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                let error: crate::model::PersonaNameError = error;
                let help = match &error.suggestion {
                    Some(suggestion) => format!("`{suggestion}` would be one"),
                    None => "a name starts with a letter or digit and goes on with letters, digits, `.`, `_`, `-`; \
                             at most 63 characters"
                        .to_owned(),
                };
                self.report(
                    Kind::BadName,
                    node,
                    format!("`{}` is no persona name", error.name),
                    Some(help),
                );
                None
            }
        }
    }

    fn description(&mut self, node: &Node, key: &str) -> Option<String> {
        // How a block ends is style, not meaning.
        let text = self.text_of(node, key, limits::LONGEST_DESCRIPTION)?;
        Some(text.trim_end().to_owned())
    }

    fn trust(&mut self, node: &Node) -> TrustLevels {
        let mut levels = BTreeMap::new();
        for (key, entry) in self.fields(node, "trust_levels", TRUST).unwrap_or_default() {
            let class = Class::ALL
                .iter()
                .find(|(_, name)| *name == key)
                .map(|(class, _)| *class);
            if let (Some(class), Some(level)) = (class, self.level(&entry.value, key)) {
                levels.insert(class, level);
            }
        }
        TrustLevels { levels }
    }

    fn level(&mut self, node: &Node, key: &str) -> Option<Level> {
        let text = self.text_of(node, key, 64)?;
        let known = match text.to_ascii_lowercase().as_str() {
            "none" => Some(Level::None),
            "low" => Some(Level::Low),
            "medium" => Some(Level::Medium),
            "high" => Some(Level::High),
            // Only a decimal number: `nan` and `inf` would read as numbers, too.
            other
                if other
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || byte == b'.') =>
            {
                match other.parse::<f64>() {
                    Ok(number) if number < 0.25 => Some(Level::None),
                    Ok(number) if number < 0.5 => Some(Level::Low),
                    Ok(number) if number < 0.75 => Some(Level::Medium),
                    Ok(number) if number <= 1.0 => Some(Level::High),
                    _ => None,
                }
            }
            _ => None,
        };
        if known.is_none() {
            let help = "write none, low, medium, high, or a number from 0 to 1".to_owned();
            self.report(
                Kind::OutOfRange,
                node,
                format!("`{text}` is no level of trust"),
                Some(help),
            );
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

/// The canonical name of a key at the root.
pub(crate) fn root_key(key: &str) -> Option<&'static str> {
    value::canonical(ROOT, key)
}

/// A root `persona_NAME:` stands around the keys and gives the name.
pub(crate) fn named_root(root: &Node) -> (&Node, Option<String>) {
    if let Value::Map(entries) = &root.value
        && let [only] = entries.as_slice()
        && let Some(prefix) = only.key.get(..8)
        && prefix.eq_ignore_ascii_case("persona_")
        && only.key.len() > 8
    {
        return (&only.value, Some(only.key[8..].to_owned()));
    }
    (root, None)
}
