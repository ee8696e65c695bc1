//! The keys at the root of a document, and the small maps right under it. Larger parts have tables of their own beside
//! this one.

use super::guest::{APPLICATION, BEHAVIOUR, OS, SCRIPT};
use super::profile::{COST, LIFECYCLE, POINT, SECURITY};
use super::resources::BASE;
use super::words::LEARNING;
use super::{Key, Names, Shape, Table};
use crate::limits;

pub(crate) static ROOT: Table = Table::new(
    "a persona",
    &[
        Key::new(
            "name",
            Shape::PersonaName,
            "unique in the catalogue; capitals are lowered",
        )
        .absent("the `NAME` of the root `persona_NAME`, else what `--name` gives"),
        Key::new(
            "description",
            Shape::Text(limits::LONGEST_DESCRIPTION),
            "for people",
        ),
        Key::new(
            "default_persona",
            Shape::Boolean,
            "whether every new domain that no tag maps gets it; at most one persona may say so",
        )
        .absent("false"),
        Key::new(
            "extends",
            Shape::Many(&Shape::Reference, limits::MOST_BASES),
            "personas that it builds on, the later over the earlier",
        ),
        Key::new(
            "allowed_switches",
            Shape::Many(&Shape::PersonaName, limits::MOST_SWITCHES),
            "personas that a user of the guest may switch to",
        ),
        Key::new(
            "functional_role",
            Shape::Text(limits::LONGEST_DESCRIPTION),
            "what the machine is for, in the owner's words",
        )
        .or(&["role"]),
        Key::new(
            "base_configuration",
            Shape::Map(&BASE),
            "what the machine is given: vCPUs, memory, limits of network and disks",
        ),
        Key::new(
            "software_stack",
            Shape::List(&Shape::Software, limits::MOST_PACKAGES),
            "packages that are to be in the guest, by its own package manager",
        ),
        Key::new(
            "priority_metrics",
            Shape::Weights,
            "what matters most: weights of metrics and metric groups, normalised to the sum 1",
        ),
        Key::new(
            "metric_groups",
            Shape::Dictionary(
                Names::Labels,
                &Shape::Many(&Shape::Metric, limits::MOST_GROUPED),
                limits::MOST_GROUPS,
            ),
            "what a name in `priority_metrics` that is no metric stands for",
        )
        .absent("`performance`, `security`, `cost` and `availability` are built in"),
        Key::new(
            "learning_domains",
            Shape::Many(&Shape::Choice(LEARNING), LEARNING.len()),
            "what is collected in the guest; the size of memory, its pressure and the CPUs are always",
        )
        .absent("what the rules read, and the load"),
        Key::new(
            "trust_levels",
            Shape::Map(&TRUST),
            "how far the daemon may go by itself, for each class of actions",
        ),
        Key::new(
            "decay_rate",
            Shape::Decay,
            "how fast what was learnt is forgotten",
        )
        .inactive("nothing is learnt, so nothing is forgotten"),
        Key::new(
            "adaptation_rules",
            Shape::List(&Shape::Rule, limits::MOST_RULES),
            "how the machine adapts",
        ),
        Key::new(
            "telemetry_triggers",
            Shape::List(&Shape::Rule, limits::MOST_RULES),
            "the same as `adaptation_rules`, behind them in order",
        ),
        Key::new(
            "automated_responses",
            Shape::Dictionary(
                Names::Labels,
                &Shape::Many(&Shape::Action, limits::MOST_ACTIONS),
                limits::MOST_RESPONSES,
            ),
            "lists of actions by name, for `respond NAME`",
        ),
        Key::new(
            "response_scripts",
            Shape::Dictionary(
                Names::Labels,
                &Shape::Spelt("text", &SCRIPT),
                limits::MOST_RESPONSES,
            ),
            "scripts by name, for `run NAME` in the guest",
        ),
        Key::new(
            "external_data_sources",
            Shape::List(&Shape::Source, limits::MOST_SOURCES),
            "data from outside, for `external.NAME.FIELD` in rules",
        )
        .inactive("no source is fetched, so what it would say is unknown"),
        Key::new(
            "environment_variables",
            Shape::Dictionary(Names::Exact, &Shape::Variable, limits::MOST_VARIABLES),
            "variables that are set in the guest",
        )
        .or(&["environment"]),
        Key::new(
            "pre_activation_script",
            Shape::Spelt("text", &SCRIPT),
            "runs in the guest before anything else of an activation",
        ),
        Key::new(
            "post_activation_script",
            Shape::Spelt("text", &SCRIPT),
            "runs in the guest when the rest of an activation is done",
        ),
        Key::new(
            "command_overrides",
            Shape::Dictionary(Names::Exact, &Shape::Path, limits::MOST_COMMANDS),
            "commands in whose place something else runs in the guest, asked for through the host (`exec`) or in a login shell: name to absolute path",
        ),
        Key::new(
            "restricted_commands",
            Shape::Many(&Shape::Command, limits::MOST_COMMANDS),
            "commands, by name, that are refused in the guest: asked for through the host (`exec`), and to people who log in",
        ),
        Key::new(
            "os_settings",
            Shape::Map(&OS),
            "settings of the guest's operating system",
        ),
        Key::new(
            "application_settings",
            Shape::Map(&APPLICATION),
            "settings of applications in the guest",
        ),
        Key::new(
            "behavioral_settings",
            Shape::Map(&BEHAVIOUR),
            "habits of the guest",
        )
        .or(&["behavioural_settings"]),
        Key::new(
            "performance_profile",
            Shape::Many(&Shape::Map(&POINT), limits::MOST_POINTS),
            "predicted need over the day, each point until the next",
        )
        .inactive("nothing is negotiated or scheduled by it"),
        Key::new(
            "security_profile",
            Shape::Map(&SECURITY),
            "access, sensitivity and connections that the machine needs: its trust boundary",
        )
        .inactive("nothing is negotiated by it, and no connection is refused"),
        Key::new(
            "lifecycle_expectations",
            Shape::Map(&LIFECYCLE),
            "how long and how reliably the machine is to run",
        )
        .inactive("nothing is negotiated by it"),
        Key::new(
            "cost_tolerance",
            Shape::Map(&COST),
            "what the machine may cost",
        )
        .inactive("nothing is negotiated by it, and no cost is counted"),
    ],
);

const LEVEL: Shape = Shape::Level;

pub(crate) static TRUST: Table = Table::new(
    "trust_levels",
    &[
        Key::new("resource_scaling", LEVEL, "vCPUs, memory, weights, limits").absent("high"),
        Key::new("network_access", LEVEL, "block, isolate, redirect").absent("high"),
        Key::new("command_execution", LEVEL, "scripts of a rule").absent("high"),
        Key::new(
            "file_system_modification",
            LEVEL,
            "settings, features, packages",
        )
        .absent("high"),
        Key::new("persona_change", LEVEL, "another persona").absent("high"),
        Key::new("notify", LEVEL, "messages to people")
            .or(&["notifications"])
            .absent("high"),
    ],
);

/// One weight, where `priority_metrics` is a list.
pub(crate) static WEIGHT: Table = Table::new(
    "a weight",
    &[
        Key::new("name", Shape::Metric, "a metric or a metric group")
            .or(&["metric"])
            .required(),
        Key::new(
            "weight",
            Shape::Number,
            "how much it matters beside the others",
        )
        .absent("1"),
    ],
);
