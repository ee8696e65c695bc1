//! What a link tells the daemon, and what it is at the moment. The daemon's one owner of state reads the events; the
//! bus and `doctor` show the states. Everything of a guest in here is checked or cleaned.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_protocol::customized::{CUSTOMIZATIONS_MAX, CUSTOMIZED_KEYS_MAX};
use agent_protocol::frame::FrameCounters;
use agent_protocol::limits::NAME_MAX;
use agent_protocol::message::JournalState;
use agent_protocol::session::SessionCounters;
use agent_protocol::version::NoCommonVersion;
use agent_protocol::{Activation, Ask, CheckedReport, Customized, GateState, RolledBack};
use persona::units::Bytes;
use serde::Serialize;

use super::budget::Overflow;
use super::words::{GuestWords, Lines};

/// What a link tells without being asked.
#[derive(Debug)]
pub enum AgentEvent {
    /// An agent answered the hello: there is a session.
    Connected {
        /// What it said of itself.
        facts: AgentFacts,
    },
    /// The session is over; another is being tried for.
    Lost {
        /// Why.
        reason: LostReason,
    },
    /// Somebody in the guest went back to an earlier generation by hand, or has something otherwise than the persona
    /// says, or that is over.
    Deviated {
        /// What the agent says of itself now.
        facts: AgentFacts,
    },
    /// A report waits to be taken. There is never more than one of these under way for a link.
    Telemetry(LatestReport),
    /// The guest says that it needs memory: a claim, at most one each [`agent_protocol::limits::NEED_INTERVAL_MS`] or so.
    Needs {
        /// How much more.
        more: Bytes,
        /// Why, in its words.
        reason: GuestWords,
    },
    /// A user of the guest asks about personas: a claim, checked for form, at most
    /// [`agent_protocol::limits::ASKS_BURST`] or so at once.
    Asks(Box<Ask>),
    /// Rules in the guest did something that the host has not seen.
    RecordsWait,
    /// The agent had a session on this channel and has not answered over several connections since.
    Unresponsive,
    /// Daemon and agent have no protocol version in common. It is told once until there is a session again.
    Incompatible {
        /// Both ranges.
        versions: NoCommonVersion,
    },
    /// The guest sent what it must not; told at the end of the connection on which it happened.
    Misbehaved {
        /// What it did, and how often.
        misconduct: Misconduct,
    },
}

/// An agent's account of itself in its hello; checked for form, not for truth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AgentFacts {
    /// Version of the agent.
    pub agent_version: GuestWords,
    /// The guest kernel's boot id, which differs after each boot.
    pub boot_id: GuestWords,
    /// The agent's own number, which differs after each of its starts.
    pub instance: GuestWords,
    /// The persona that is in force in the guest: as the hello has it, and where the daemon keeps it, as confirmed since.
    pub active: Option<ActivePersona>,
    /// What holds in the guest instead, where somebody there went back to an earlier generation by hand.
    pub rolled_back: Option<Box<WentBack>>,
    /// What the guest's owner has made otherwise than the persona says.
    pub own: Option<Box<OwnWay>>,
    /// Whether people who log in there are held to restricted commands, as its last report said; nothing where none is
    /// restricted, or the agent does not say.
    pub gate: Option<GateState>,
    /// The newest generation that the agent has seen; it refuses older ones.
    pub newest_generation: u64,
    /// Whether the agent is finishing or undoing something, or can write nothing: as of its hello, the latter as of its last report.
    pub journal: JournalState,
    /// Protocol version that both speak.
    pub protocol: u32,
    /// Optional abilities that it names, as far as this daemon looks at them.
    pub features: Vec<GuestWords>,
}

impl AgentFacts {
    /// Whether it names an ability.
    pub fn can(&self, feature: &str) -> bool {
        self.features.iter().any(|known| known.as_str() == feature)
    }
}

/// The persona that an agent says is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActivePersona {
    /// Generation of the activation.
    pub generation: u64,
    /// Name of the persona.
    pub persona: GuestWords,
    /// Version of the persona.
    pub version: u64,
    /// Digest of the version.
    pub digest: GuestWords,
}

impl ActivePersona {
    /// What a guest has once it has confirmed an activation.
    pub fn of(message: &Activation) -> Self {
        let clean = |text: &str| GuestWords::clean(text, NAME_MAX, Lines::One);
        Self {
            generation: message.generation,
            persona: clean(&message.persona),
            version: message.version,
            digest: clean(&message.digest),
        }
    }
}

/// What somebody in the guest went back to by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WentBack {
    /// Which generation.
    pub generation: u64,
    /// Its persona; `None` where it had none.
    pub persona: Option<GuestWords>,
    /// The persona's version.
    pub version: Option<u64>,
}

impl WentBack {
    pub(super) fn of(told: &RolledBack) -> Self {
        Self {
            generation: told.generation,
            persona: told
                .persona
                .as_ref()
                .map(|name| GuestWords::clean(name, NAME_MAX, Lines::One)),
            version: told.version,
        }
    }
}

impl fmt::Display for WentBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.persona, self.version) {
            (Some(persona), Some(version)) => {
                write!(f, "generation {} ({persona}@{version})", self.generation)
            }
            (Some(persona), None) => write!(f, "generation {} ({persona})", self.generation),
            (None, _) => write!(f, "generation {} (no persona)", self.generation),
        }
    }
}

/// What a guest's owner has made otherwise than the persona says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OwnWay {
    /// How many things, as the guest says; no more than an agent keeps.
    pub count: usize,
    /// The first of them.
    pub keys: Vec<GuestWords>,
}

impl OwnWay {
    pub(super) fn of(told: &Customized) -> Self {
        let key = |key: &String| GuestWords::clean(key, NAME_MAX, Lines::One);
        Self {
            count: usize::try_from(told.count)
                .unwrap_or(usize::MAX)
                .clamp(1, CUSTOMIZATIONS_MAX),
            keys: told
                .keys
                .iter()
                .take(CUSTOMIZED_KEYS_MAX)
                .map(key)
                .collect(),
        }
    }
}

impl fmt::Display for OwnWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => f.write_str("1 customisation")?,
            many => write!(f, "{many} customisations")?,
        }
        for (index, key) in self.keys.iter().enumerate() {
            let before = if index == 0 { ": " } else { ", " };
            write!(f, "{before}{key}")?;
        }
        if !self.keys.is_empty() && self.count > self.keys.len() {
            f.write_str(", ...")?;
        }
        Ok(())
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LostReason {
    /// QEMU closed the socket, or it failed.
    #[error("the channel was closed by the emulator")]
    Closed,
    /// The agent was silent over three pings.
    #[error("the agent no longer answers")]
    Silent,
    /// The agent, or the guest with it, started again.
    #[error("the agent started again")]
    AgentRestarted,
    /// The daemon asked for another session: reboot, revert, or the hypervisor's connection was renewed.
    #[error("the daemon renewed the session")]
    Renewed,
    /// The guest's state was replaced by an earlier one.
    #[error("the domain was reverted to an earlier state")]
    Reverted,
    /// The domain has another channel.
    #[error("the domain's channel moved")]
    Moved,
    /// The guest sent more than it may.
    #[error("the guest sent more than it may")]
    Flooded,
    /// The channel is given up.
    #[error("the channel was given up")]
    Detached,
    /// A fault of the daemon's own in this link.
    #[error("the link failed inside the daemon")]
    Internal,
}

/// What a guest sent that it must not have sent, on one connection. The counters are sums; a little of it is normal after
/// a reset or a migration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Misconduct {
    /// A rate was exceeded; the connection was closed for it.
    pub flooded: Option<Overflow>,
    /// Frames that were cut, too long or no text.
    pub frames: FrameCounters,
    /// Frames of another session, or seen before.
    pub order: SessionCounters,
    /// Frames that hold no message of the protocol.
    pub undecodable: u64,
    /// Replies to nothing that was asked, or asked too long ago.
    pub unasked: u64,
    /// Telemetry without credit.
    pub uncredited: u64,
    /// Reports with figures that cannot be.
    pub refused_reports: u64,
    /// Needs that cannot be, that came too often, or that nobody listens to.
    pub refused_needs: u64,
    /// Asks about personas that cannot be, that came too often, or that nobody listens to.
    pub refused_asks: u64,
}

impl Misconduct {
    /// How much there is of what a well-behaved guest never does. Cut frames, other sessions' frames and late replies are
    /// not in it: a reset or a migration brings those about.
    pub fn offences(&self) -> u64 {
        let frames = self.frames.oversize + self.frames.nul + self.frames.not_utf8;
        let messages = self.undecodable
            + self.uncredited
            + self.refused_reports
            + self.refused_needs
            + self.refused_asks;
        frames + messages + u64::from(self.flooded.is_some())
    }
}

/// Leave to take the latest report of a link. Reports that come before it is taken replace one another; the one after it
/// makes an event again, and so does the one after this was dropped without taking.
#[derive(Debug)]
pub struct LatestReport {
    slot: ReportSlot,
    taken: AtomicBool,
}

/// Where a link puts its reports.
#[derive(Clone, Debug, Default)]
pub(super) struct ReportSlot {
    inner: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    report: Option<CheckedReport>,
    /// An event about the slot is under way.
    announced: bool,
}

impl LatestReport {
    /// Takes the report; `None` when it was taken before.
    pub fn take(&self) -> Option<CheckedReport> {
        let mut waiting = self.slot.lock();
        if self.taken.swap(true, Ordering::Relaxed) {
            return None;
        }
        waiting.announced = false;
        waiting.report.take()
    }
}

impl Drop for LatestReport {
    fn drop(&mut self) {
        if !*self.taken.get_mut() {
            self.slot.lock().announced = false;
        }
    }
}

impl ReportSlot {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a report there; gives the leave to take it unless one is under way.
    pub(super) fn put(&self, report: CheckedReport) -> Option<LatestReport> {
        let mut waiting = self.lock();
        waiting.report = Some(report);
        let announced = std::mem::replace(&mut waiting.announced, true);
        (!announced).then(|| LatestReport {
            slot: self.clone(),
            taken: AtomicBool::new(false),
        })
    }
}

/// Whether the vCPUs of a domain run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// They do.
    Yes,
    /// The domain is paused: it cannot answer.
    Paused,
}

/// What a link does at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// The socket is being opened, or cannot be opened yet.
    Connecting,
    /// The socket is open; no agent has answered the hello.
    Waiting,
    /// There is a session.
    Connected(AgentFacts),
    /// There was a session; several connections since got no answer.
    Unresponsive,
    /// No protocol version in common.
    Incompatible(NoCommonVersion),
    /// Another process owns the channel.
    OwnedElsewhere {
        /// Its lock file.
        path: PathBuf,
    },
    /// Disconnected for a while because the guest sent more than it may.
    Flooding {
        /// How long, from the overflow.
        pause: Duration,
    },
}
