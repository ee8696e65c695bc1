//! Events: what happens to a machine at one moment, as against what it is like all the time. One table of names. Who
//! notices them is not here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Measured;

/// What can happen. [`EventKind::ALL`] is the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// The domain was started.
    DomainStarted,
    /// The guest was rebooted.
    DomainRebooted,
    /// The domain was paused.
    DomainPaused,
    /// The domain was resumed.
    DomainResumed,
    /// The guest's agent connected.
    AgentConnected,
    /// The guest's agent went away.
    AgentLost,
    /// The domain arrived from another host.
    MigrationFinished,
    /// The guest's kernel killed a process for want of memory.
    GuestOom,
    /// Somebody failed to log in.
    LoginFailed,
    /// An external source of data has other data than before.
    FeedChanged,
}

/// An event that a rule waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Event {
    /// What happens.
    pub kind: EventKind,
    /// Of which external source; `None` for every one, and where the kind has none.
    pub source: Option<String>,
}

/// One row of the table.
struct Row(EventKind, &'static str, &'static str, Measured);

/// Why an event never comes.
const UNNOTICED: Measured = Measured::NotYet("nothing in this version notices it");

const TABLE: [Row; 10] = [
    Row(
        EventKind::DomainStarted,
        "domain.started",
        "the domain was started",
        Measured::Here,
    ),
    Row(
        EventKind::DomainRebooted,
        "domain.rebooted",
        "the guest was rebooted",
        Measured::Here,
    ),
    Row(
        EventKind::DomainPaused,
        "domain.paused",
        "the domain was paused",
        Measured::Here,
    ),
    Row(
        EventKind::DomainResumed,
        "domain.resumed",
        "the domain was resumed",
        Measured::Here,
    ),
    Row(
        EventKind::AgentConnected,
        "agent.connected",
        "the guest's agent connected",
        Measured::Here,
    ),
    Row(
        EventKind::AgentLost,
        "agent.lost",
        "the guest's agent went away",
        Measured::Here,
    ),
    Row(
        EventKind::MigrationFinished,
        "migration.finished",
        "the domain arrived from another host",
        Measured::Here,
    ),
    Row(
        EventKind::GuestOom,
        "guest.oom",
        "the guest's kernel killed a process for want of memory",
        Measured::Here,
    ),
    Row(
        EventKind::LoginFailed,
        "login.failed",
        "somebody failed to log in to the guest",
        Measured::Here,
    ),
    Row(
        EventKind::FeedChanged,
        "feed.changed",
        "an external source has other data than before; `feed.changed(SOURCE)` for one of them",
        UNNOTICED,
    ),
];

/// Why a text names no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// No such event.
    #[error("there is no event `{name}`{}", .nearest.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    Unknown {
        /// What was asked for.
        name: String,
        /// The event whose name is nearest.
        nearest: Option<&'static str>,
    },
}

impl EventKind {
    /// For how long an event counts as true after it happened: long enough that a rule may ask for something else at the
    /// same time that has to be measured first.
    pub const LASTS: Duration = Duration::from_secs(30);

    /// Every kind, in the order of the table.
    pub const ALL: [Self; TABLE.len()] = {
        let mut all = [Self::DomainStarted; TABLE.len()];
        let mut i = 0;
        while i < all.len() {
            all[i] = TABLE[i].0;
            i += 1;
        }
        all
    };

    fn row(self) -> &'static Row {
        // One row for each variant in declaration order; a test holds the table to that.
        &TABLE[self as usize]
    }

    /// The name in rules.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The kind of that name, in any case; reading one from text also finds what was probably meant.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    /// What it means, in a few words.
    pub fn describe(self) -> &'static str {
        self.row().2
    }

    /// Whether this version notices it.
    pub fn measured(self) -> Measured {
        self.row().3
    }
}

impl FromStr for EventKind {
    type Err = EventError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::named(text).ok_or_else(|| EventError::Unknown {
            nearest: crate::problem::nearest(&text.to_ascii_lowercase(), Self::ALL.map(Self::name)),
            name: text.chars().take(60).collect(),
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "EVENT({}({source}))", self.kind.name()),
            None => write!(f, "EVENT({})", self.kind.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_the_kinds() {
        for (index, kind) in EventKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "{kind:?}");
            assert_eq!(kind.name().parse(), Ok(kind));
        }
    }

    #[test]
    fn near_misses_are_suggested() {
        let error = "domain.start".parse::<EventKind>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no event `domain.start`; did you mean `domain.started`?"
        );
    }
}
