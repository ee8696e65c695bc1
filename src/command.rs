//! What a person asks of the daemon, and what it answers (`reply`, `refusal`). `bus/` makes a [`Request`] of each call after it
//! has authorised the caller; the daemon's one task carries it out and answers. Neither parsing nor authorisation is here.
//!
//! What can be read from the published [`crate::view::View`] (domains, personas, mappings) is not asked for here. The
//! daemon publishes the view that shows a change before it answers the command that made it.

mod refusal;
mod reply;

use std::collections::BTreeMap;
use std::time::Duration;

use persona::units::{Bytes, Moment};
use tokio::sync::oneshot;

use crate::view::{DocumentFormat, Held};

pub use refusal::{Noun, Refusal};
pub use reply::{Handed, Reply};

/// A command with who gave it and where the answer goes.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// Who asks; already authorised.
    pub caller: Caller,
    /// Where the answer goes. A caller that went away is no error.
    pub reply: oneshot::Sender<Result<Reply, Refusal>>,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user's number on this host.
    pub uid: u32,
    /// The user's name, or `uid N` where it has none. For the audit and as the author of a version.
    pub name: String,
}

/// A domain as a person names it. The daemon resolves it in the order of `virsh`: the hypervisor's number of a running
/// domain, then a UUID, then a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainName(pub String);

/// A persona as a person names it, `web` or `web@3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonaRef {
    /// Its name.
    pub name: String,
    /// The version; absent where the current one is meant.
    pub version: Option<u32>,
}

impl PersonaRef {
    /// Reads `NAME` or `NAME@VERSION`.
    ///
    /// # Errors
    /// [`Refusal::BadArgument`] where the version is no number from 1, or the name is empty.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let bad = |reason: &str| Refusal::BadArgument {
            argument: "persona".to_owned(),
            reason: format!("`{text}` {reason}; write NAME or NAME@VERSION"),
        };
        let (name, version) = match text.split_once('@') {
            None => (text, None),
            Some((name, number)) => match number.parse::<u32>() {
                Ok(version) if version > 0 => (name, Some(version)),
                _ => return Err(bad("has a version that is no number from 1")),
            },
        };
        if name.is_empty() {
            return Err(bad("has no name"));
        }
        Ok(Self {
            name: name.to_owned(),
            version,
        })
    }
}

/// Whether an activation is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is.
    Apply,
    /// It is not; the answer is the plan.
    DryRun,
}

/// Whether a persona that domains are bound to may be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Refuse while it is bound.
    No,
    /// Delete it; bound domains fall back to their tags or the default.
    Yes,
}

/// A command to run in a guest. No shell is between: the words are the program's own.
#[derive(Clone, PartialEq, Eq)]
pub struct Execution {
    /// The program, by name or absolute path, and its arguments.
    pub argv: Vec<String>,
    /// The user of the guest that it runs as.
    pub user: String,
    /// The directory of the guest that it runs in.
    pub directory: String,
    /// Time until all its processes are stopped.
    pub timeout: Duration,
    /// Variables over those of the persona.
    pub environment: BTreeMap<String, String>,
}

/// Variables can be private.
impl std::fmt::Debug for Execution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Execution")
            .field("argv", &self.argv)
            .field("user", &self.user)
            .field("directory", &self.directory)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// All that the daemon can be asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Stores the first version of a persona. Answers [`Reply::Stored`].
    CreatePersona {
        /// The document.
        document: String,
        /// How it is written; absent where the daemon is to see for itself.
        format: Option<DocumentFormat>,
        /// A name for a document that does not say its own.
        name: Option<String>,
        /// The author's note.
        note: Option<String>,
    },
    /// Stores a further version and makes it current. Answers [`Reply::Stored`].
    UpdatePersona {
        /// The persona's name; a document that says another name is refused.
        name: String,
        /// The document.
        document: String,
        /// How it is written; absent where the daemon is to see for itself.
        format: Option<DocumentFormat>,
        /// The author's note.
        note: Option<String>,
    },
    /// Deletes a persona with all its versions. Answers [`Reply::Done`].
    DeletePersona {
        /// Its name.
        name: String,
        /// Whether a bound one may be deleted.
        force: Force,
    },
    /// Makes a stored version current. Answers [`Reply::Stored`].
    SetCurrent {
        /// The persona's name.
        name: String,
        /// The version.
        version: u32,
    },
    /// One version with its text. Answers [`Reply::Document`].
    ShowPersona(PersonaRef),
    /// All versions of a persona, the oldest first. Answers [`Reply::History`].
    History {
        /// The persona's name.
        name: String,
    },
    /// Binds a domain to a persona and activates it. Answers [`Reply::Applied`], or [`Reply::Plan`] in a dry run.
    Apply {
        /// The domain.
        domain: DomainName,
        /// The persona; with a version, the binding is pinned.
        persona: PersonaRef,
        /// Whether it is carried out.
        mode: Mode,
    },
    /// Takes an applied persona off a domain, which falls back to its tags or the default. Answers [`Reply::Applied`].
    Deactivate {
        /// The domain.
        domain: DomainName,
    },
    /// Changes a domain's tags. Answers [`Reply::Tags`].
    Tag {
        /// The domain.
        domain: DomainName,
        /// Tags to add.
        add: Vec<String>,
        /// Tags to remove; one that is not there is no error.
        remove: Vec<String>,
    },
    /// Runs a command in the guest of a domain. Answers [`Reply::Execution`] when it is under way.
    Execute {
        /// The domain.
        domain: DomainName,
        /// What to run.
        execution: Box<Execution>,
    },
    /// Adds what a domain's definition lacks for live scaling. Answers [`Reply::Adoption`].
    Adopt {
        /// The domain.
        domain: DomainName,
        /// vCPUs at most; absent for a default.
        max_vcpus: Option<u32>,
        /// Memory at most, boot memory included; absent for a default.
        max_memory: Option<Bytes>,
        /// The plan that was looked at; another is not carried out.
        plan: Option<String>,
        /// Whether it is carried out.
        mode: Mode,
    },
    /// Puts a definition back as it was before it was adopted. Answers [`Reply::Adoption`].
    UndoAdoption {
        /// The domain.
        domain: DomainName,
        /// Whether it is carried out.
        mode: Mode,
    },
    /// Says which persona a tag means. Answers [`Reply::Done`].
    Map {
        /// The tag.
        tag: String,
        /// The persona, which must exist.
        persona: String,
        /// The highest priority wins.
        priority: i32,
    },
    /// Says what a tag lays over the persona of a domain. Answers [`Reply::Mapped`].
    MapOverride {
        /// The tag.
        tag: String,
        /// The fragment of a document.
        document: String,
        /// How it is written; absent where the daemon is to see for itself.
        format: Option<DocumentFormat>,
        /// A higher priority is laid over a lower one.
        priority: i32,
    },
    /// The override that a tag means, with its text. Answers [`Reply::Fragment`].
    ShowOverride {
        /// The tag.
        tag: String,
    },
    /// What is in force on a domain, each value with its origin. Answers [`Reply::Effective`].
    Effective {
        /// The domain.
        domain: DomainName,
    },
    /// Takes a tag's meaning away. Answers [`Reply::Done`].
    Unmap {
        /// The tag.
        tag: String,
    },
    /// Why a domain did or did not change. Answers [`Reply::Explain`].
    Explain {
        /// The domain.
        domain: DomainName,
        /// When; absent for the latest tick.
        at: Option<Moment>,
    },
    /// What was seen of a domain and done with it. Answers [`Reply::Recording`].
    Recording {
        /// The domain.
        domain: DomainName,
        /// From when, or a little earlier.
        since: Option<Moment>,
        /// Until when.
        until: Option<Moment>,
    },
    /// The record of what was decided and done. Answers [`Reply::Audit`], the latest last.
    Audit {
        /// Only about this domain.
        domain: Option<DomainName>,
        /// Only from this moment on.
        since: Option<Moment>,
        /// At most so many, the latest ones.
        limit: u32,
    },
    /// What works for live scaling and what does not. Answers [`Reply::Doctor`].
    Doctor {
        /// Only about this domain; else the host and every domain.
        domain: Option<DomainName>,
    },
    /// Lets be done what a proposal wants. Answers [`Reply::Proposal`].
    Approve {
        /// Its number.
        id: u64,
    },
    /// Lets it not be done, nor proposed again at once. Answers [`Reply::Proposal`].
    Reject {
        /// Its number.
        id: u64,
    },
    /// Leaves a domain's resources alone for a while. Answers [`Reply::Held`].
    Hold {
        /// The domain.
        domain: DomainName,
        /// Only this.
        resource: Option<Held>,
        /// For how long, 1 s to 30 days.
        length: Duration,
    },
    /// Ends every hold of a domain, and forgets quarantine and waits after failures. Answers [`Reply::Done`].
    Release {
        /// The domain.
        domain: DomainName,
    },
    /// Gives back on every domain what was changed, and manages nothing until the daemon is started anew. May be asked
    /// again to see what is left. Answers [`Reply::Retired`].
    Retire,
    /// Reads the configuration again. Answers [`Reply::Done`].
    Reload,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_persona_reference_is_a_name_with_or_without_a_version() {
        let good = |name: &str, version| {
            Ok(PersonaRef {
                name: name.to_owned(),
                version,
            })
        };
        assert_eq!(PersonaRef::parse("web"), good("web", None));
        assert_eq!(PersonaRef::parse("web@3"), good("web", Some(3)));
        for text in ["web@0", "web@", "web@-1", "web@3@4", "@3", ""] {
            let parsed = PersonaRef::parse(text);
            assert!(
                matches!(parsed, Err(Refusal::BadArgument { .. })),
                "{text}: {parsed:?}"
            );
        }
    }
}
