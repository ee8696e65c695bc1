//! Why a command was not carried out: each a variant, with a sentence that a person can act on. The daemon refuses, and `bus/` does
//! where the caller may not ask; `bus/` gives each a name on the bus.

use crate::view::ProblemView;

/// What a name was looked up as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noun {
    /// A domain.
    Domain,
    /// A persona.
    Persona,
    /// A version of a persona.
    Version,
    /// The meaning of a tag.
    Mapping,
    /// An override that a tag means.
    Override,
    /// Something that waits for a person.
    Proposal,
}

impl std::fmt::Display for Noun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Domain => "domain",
            Self::Persona => "persona",
            Self::Version => "persona version",
            Self::Mapping => "mapping of a tag",
            Self::Override => "override of tag",
            Self::Proposal => "proposal",
        })
    }
}

/// Why a command was not carried out. Each displays as one sentence that a person can act on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such thing.
    #[error("there is no {what} `{name}`{}", did_you_mean(.nearest.as_deref()))]
    NotFound {
        /// What was looked up.
        what: Noun,
        /// By which name.
        name: String,
        /// The nearest name that exists.
        nearest: Option<String>,
    },
    /// There is such a persona already.
    #[error("there is a persona `{name}` already; store a further version with `update`")]
    AlreadyExists {
        /// Its name.
        name: String,
    },
    /// The document has errors.
    #[error("the document is not a valid persona:\n{rendered}")]
    InvalidPersona {
        /// Every problem, errors and warnings.
        problems: Vec<ProblemView>,
        /// The same for people, with source lines underlined, without colour.
        rendered: String,
    },
    /// An argument cannot be understood.
    #[error("argument `{argument}` is not right: {reason}")]
    BadArgument {
        /// Its name.
        argument: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The state of things does not allow it; the reason says what to do first.
    #[error("{reason}")]
    Refused {
        /// The whole sentence.
        reason: String,
    },
    /// Another command or action is at work on the same thing, or too many wait.
    #[error("{reason}; try again in a moment")]
    Busy {
        /// What is at work.
        reason: String,
    },
    /// The command needs the agent in the guest.
    #[error("the agent in domain `{domain}` is not available: {reason}")]
    AgentUnavailable {
        /// The domain.
        domain: String,
        /// Why.
        reason: String,
    },
    /// What is asked contradicts something else that was asked.
    #[error("{reason}")]
    Conflict {
        /// The whole sentence.
        reason: String,
    },
    /// The caller may not do this.
    #[error("user `{caller}` is not authorised for `{action}`: {reason}")]
    NotAuthorized {
        /// The user.
        caller: String,
        /// The polkit action.
        action: String,
        /// Who would have to allow it.
        reason: String,
    },
    /// The hypervisor cannot be reached or refused.
    #[error("the hypervisor did not do it: {reason}")]
    Hypervisor {
        /// Its error with its causes.
        reason: String,
    },
    /// A fault of the daemon or of its store; the log has more.
    #[error("{operation} failed: {reason}; the daemon's log has more")]
    Failed {
        /// What failed.
        operation: String,
        /// Why.
        reason: String,
    },
    /// The daemon is going down.
    #[error("the daemon is shutting down, so nothing was changed; try again when it runs")]
    Stopping,
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_found_suggests_the_nearest() {
        let refusal = |nearest: Option<&str>| {
            Refusal::NotFound {
                what: Noun::Domain,
                name: "wbe".to_owned(),
                nearest: nearest.map(str::to_owned),
            }
            .to_string()
        };
        assert_eq!(refusal(None), "there is no domain `wbe`");
        assert_eq!(
            refusal(Some("web")),
            "there is no domain `wbe`; did you mean `web`?"
        );
    }
}
