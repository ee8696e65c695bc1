//! The persona document: text -> document -> [`Persona`] or all of its [`Problems`]; and its rules, evaluated.
//!
//! Pure: no files, no network, no processes, no clock. Time is an argument ([`Moment`]), readings come through
//! [`Signals`]. The daemon, the planner, the command line and the agent in the guest all read personas through here.
//! Read the modules in this order:
//!
//! ```text
//! document    text in YAML, JSON or TOML -> a tree in which each value knows its place
//! language    the one table of keys: names, aliases, kinds; the schema and the documentation come of it
//! read        the tree -> a Persona, or all of its problems (problem);  limits: how much of anything
//! model       a Persona: a type for each key;  quantity: numbers with units as people write them
//! rule        texts of rules -> conditions and actions, and their evaluation
//! signal      the metrics, names and events that rules read;  domain: whose they are
//! validate    what must hold between rules, and between rules and bounds
//! merge       one tree over another;  compose: bases, versions and tags -> one persona, with origins
//! adjust      what rules want otherwise, as one more layer
//! digest      the name of a content;  difference: what is otherwise;  reformat: `fmt`
//! units       bytes, vCPUs, percent, moments, as all crates calculate with them;  shared: text that is held once
//! ```
#![forbid(unsafe_code)]

mod adjust;
mod compose;
mod difference;
mod digest;
mod document;
pub mod domain;
mod language;
mod limits;
mod merge;
mod model;
mod problem;
mod quantity;
mod read;
mod reformat;
pub mod rule;
mod shared;
pub mod signal;
pub mod units;
mod validate;

pub use adjust::{Adjustment, Change};
pub use compose::{
    Clash, DEEPEST_LINEAGE, Effective, EffectiveValue, Header, LARGEST_LINEAGE, Layer, LayerKind,
    LineageError, Part, clash, compose, compose_adjusted, header, lineage, origin_of, part,
};
pub use difference::{Difference, contents, difference};
pub use digest::Digest;
pub use document::{Format, Origin, SourceText};
pub use domain::DomainId;
pub use language::{documentation, schema};
pub use model::{
    ApplicationSettings, BaseConfiguration, BehavioralSettings, Class, Constraint, CostTolerance,
    CpuBounds, DecayRate, DiskLimits, Endpoint, EnvironmentValue, ExternalSource, FeedFormat,
    Frequency, LearningDomain, Level, LifecycleExpectations, LoggingLevel, MemoryBounds, Need,
    OnFailure, OsSettings, PerformancePoint, Persona, PersonaName, PersonaNameError, Preference,
    PriorityMetrics, Protocol, Reference, ReferenceError, Relation, Scaling, Script, Secret,
    SecurityProfile, Setting, Software, TrustLevels,
};
pub use problem::{Kind, Problem, Problems, Severity, Span, Style};
pub use quantity::{Quantity, QuantityError};
pub use read::{Loaded, load};
pub use reformat::{Reformatted, reformat};
pub use shared::SharedText;
pub use signal::{Metric, MetricError, Reading, Signal, Signals, Source, Unit};
pub use units::{Bytes, Moment};
