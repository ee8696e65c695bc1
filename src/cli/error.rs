//! Why a verb of the command line did not do it: the sentence, the word of `--json` and the exit status. Each verb
//! gives it; `super::run` prints it.

use std::io;

use crate::bus::ClientError;
use crate::command::Refusal;
use crate::view::ProblemView;

/// Why a verb did not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The daemon or the bus.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A document cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    /// A document cannot be replaced.
    #[error("cannot write `{path}`")]
    Write {
        path: String,
        #[source]
        source: io::Error,
    },
    /// There is no file whose place the canonical form could take.
    #[error(
        "`{path}` cannot be rewritten in place: the canonical form of standard input has no file, and that of TOML is YAML; leave --write out and redirect the output"
    )]
    InPlace { path: String },
    /// A document is no text.
    #[error("`{path}` is not UTF-8 text")]
    NotText { path: String },
    /// A document is no persona; what is wrong with it was printed.
    #[error("`{path}` is no valid persona; `virt-persona check` says the same")]
    Invalid {
        path: String,
        problems: Vec<ProblemView>,
    },
    /// What a document builds on was not given.
    #[error("`{path}` builds on `{base}`, which was not given; name its file with --base")]
    NoBase { path: String, base: String },
    /// What a document builds on comes to no order.
    #[error("`{path}`: {reason}")]
    Tangled { path: String, reason: String },
    /// What was recorded cannot be replayed.
    #[error("cannot replay `{path}`")]
    Trace {
        path: String,
        #[source]
        source: super::simulate::TraceProblem,
    },
    /// There is no such domain to simulate.
    #[error(transparent)]
    Setting(#[from] crate::simulate::SettingError),
    /// An argument is not right.
    #[error("{0}")]
    Argument(Refusal),
    /// A command did not run in the guest.
    #[error("{by}: {message}")]
    NotRun {
        by: &'static str,
        message: String,
        status: u8,
    },
    /// A tag change is neither.
    #[error("`{0}` is neither +TAG nor -TAG; options stand before the tags")]
    TagChange(String),
    /// Nobody is there to be asked.
    #[error(
        "nobody is there to be asked whether it shall be done; say --yes, or look first with --dry-run"
    )]
    NobodyToAsk,
    /// Whoever was asked said no.
    #[error("nothing was changed")]
    Declined,
    /// Documents that do not compare.
    #[error("`{name}` cannot be compared: {reason}")]
    Incomparable { name: String, reason: String },
    /// The wait ended without the persona being active.
    #[error("{0}")]
    NotActive(String),
    /// The wait ended before everything was given back.
    #[error(
        "not everything is given back within {seconds} s, and the daemon goes on with it as long as it runs:\n{left}"
    )]
    NotGivenBack { seconds: u64, left: String },
    /// Output cannot be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    /// The run time did not start.
    #[error("cannot start")]
    Runtime(#[source] io::Error),
}

impl CliError {
    /// The exit status.
    pub(super) fn exit(&self) -> u8 {
        match self {
            Self::Client(ClientError::Unreachable { .. }) => 3,
            Self::NotRun { status, .. } => *status,
            Self::NobodyToAsk
            | Self::TagChange(_)
            | Self::Argument(_)
            | Self::InPlace { .. }
            | Self::Setting(_) => 2,
            _ => 1,
        }
    }

    /// The stable word for `--json`.
    pub(super) fn word(&self) -> &str {
        match self {
            Self::Client(ClientError::Refused { error, .. }) => error,
            Self::Client(ClientError::Unreachable { .. }) => "Unreachable",
            Self::Client(ClientError::Answer { .. }) => "Answer",
            Self::Read { .. }
            | Self::Write { .. }
            | Self::NotText { .. }
            | Self::Invalid { .. }
            | Self::NoBase { .. }
            | Self::Tangled { .. }
            | Self::Incomparable { .. } => "Document",
            Self::Trace { .. } => "Trace",
            Self::NobodyToAsk
            | Self::Argument(_)
            | Self::TagChange(_)
            | Self::InPlace { .. }
            | Self::Setting(_) => "Usage",
            Self::NotActive(_) => "NotActive",
            Self::NotRun { .. } => "NotRun",
            Self::Declined => "Declined",
            Self::NotGivenBack { .. } => "NotGivenBack",
            Self::Output(_) | Self::Runtime(_) => "System",
        }
    }
}
