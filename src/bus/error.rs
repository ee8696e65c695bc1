//! Errors: a refusal as a D-Bus error reply, and why serving the bus failed.

use zbus::message::{Header, Message};
use zbus::names::ErrorName;

use super::dict::to_dicts;
use super::names::ERROR_PREFIX;
use crate::command::Refusal;

/// A refusal on its way to the caller, as `org.virtpersona1.Error.*`. The body is the sentence; `InvalidPersona` has the
/// problems as a second argument (`aa{sv}`).
#[derive(Debug)]
pub(super) struct Failure {
    refusal: Refusal,
    sentence: String,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self {
            sentence: refusal.to_string(),
            refusal,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.sentence)
    }
}

/// The full name of a refusal's error.
const fn error_name(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::NotFound { .. } => "org.virtpersona1.Error.NotFound",
        Refusal::AlreadyExists { .. } => "org.virtpersona1.Error.AlreadyExists",
        Refusal::InvalidPersona { .. } => "org.virtpersona1.Error.InvalidPersona",
        Refusal::BadArgument { .. } => "org.virtpersona1.Error.BadArgument",
        Refusal::Refused { .. } => "org.virtpersona1.Error.Refused",
        Refusal::Busy { .. } => "org.virtpersona1.Error.Busy",
        Refusal::AgentUnavailable { .. } => "org.virtpersona1.Error.AgentUnavailable",
        Refusal::Conflict { .. } => "org.virtpersona1.Error.Conflict",
        Refusal::NotAuthorized { .. } => "org.virtpersona1.Error.NotAuthorized",
        Refusal::Hypervisor { .. } => "org.virtpersona1.Error.Hypervisor",
        Refusal::Failed { .. } => "org.virtpersona1.Error.Failed",
        Refusal::Stopping => "org.virtpersona1.Error.Stopping",
    }
}

impl zbus::DBusError for Failure {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        let reply = Message::error(call, self.name());
        match &self.refusal {
            Refusal::InvalidPersona { problems, .. } => {
                reply.build(&(self.sentence.as_str(), to_dicts(problems)))
            }
            _ => reply.build(&self.sentence.as_str()),
        }
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_static_str_unchecked(error_name(&self.refusal))
    }

    fn description(&self) -> Option<&str> {
        Some(&self.sentence)
    }
}

/// The last part of one of the daemon's error names; `None` for another name.
pub(super) fn word_of(name: &str) -> Option<&str> {
    name.strip_prefix(ERROR_PREFIX)
}

/// Why the bus cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The bus cannot be reached.
    #[error("cannot connect to {bus}; is a message bus running?")]
    Connect {
        /// Which bus.
        bus: String,
        /// The library's own words.
        #[source]
        source: zbus::Error,
    },
    /// Another process owns the name.
    #[error(
        "the name `{name}` on {bus} belongs to another process; is a virt-personad running already?"
    )]
    NameTaken {
        /// Which bus.
        bus: String,
        /// The name.
        name: &'static str,
    },
    /// The bus does not let this process own the name.
    #[error(
        "cannot own the name `{name}` on {bus}; is `org.virtpersona1.conf` among the bus's policies, and is this process root?"
    )]
    NameRefused {
        /// Which bus.
        bus: String,
        /// The name.
        name: &'static str,
        /// The library's own words.
        #[source]
        source: zbus::Error,
    },
    /// An object or a signal could not be put on the bus.
    #[error("cannot {operation} `{path}` on {bus}")]
    Object {
        /// Which bus.
        bus: String,
        /// What was tried.
        operation: &'static str,
        /// With which object.
        path: String,
        /// The library's own words.
        #[source]
        source: zbus::Error,
    },
    /// The connection ended.
    #[error("the connection to {bus} has ended")]
    Closed {
        /// Which bus.
        bus: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_name_is_valid_and_has_the_prefix() {
        let failure = Failure::from(Refusal::Stopping);
        let name = zbus::DBusError::name(&failure).to_string();
        assert!(ErrorName::try_from(name.as_str()).is_ok());
        assert_eq!(word_of(&name), Some("Stopping"));
        assert_eq!(word_of("org.freedesktop.DBus.Error.Failed"), None);
    }
}
