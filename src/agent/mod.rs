//! The host end of the channel to the agents in the guests: one link a domain, over the virtio-serial port
//! `org.virtpersona.agent.0` that QEMU offers as a socket. What is said is `agent-protocol`'s; what to say is decided by
//! `act` and the daemon, which call [`Registry`] and read [`AgentEvent`]s.
//!
//! Everything that a guest sends is hostile until checked. A link keeps a bounded amount for a guest, whatever it sends: one
//! frame, one share of the socket, one report, and the requests that the daemon itself made. No text of a guest leaves
//! this folder but as [`GuestWords`] or a checked identifier, and no path or number of it is used for anything on the host.

mod error;
mod event;
mod exec;
mod registry;
mod reply;
mod words;

mod connection;
mod link;
mod session;
mod settings;

mod budget;
mod identity;
mod ownership;
mod requests;

use std::path::PathBuf;
use std::time::Duration;

use agent_protocol::VersionRange;
use agent_protocol::limits::{HEARTBEAT_IDLE_MS, HEARTBEAT_MISSES};

pub use budget::{Overflow, Rates};
pub use error::{AgentError, Effect, Retry};
pub use event::{
    ActivePersona, AgentEvent, AgentFacts, LatestReport, LinkState, LostReason, Misconduct, OwnWay,
    Running, WentBack,
};
pub use exec::{CommandEnd, OutputPiece, Outputs};
pub use identity::fresh_request_id;
pub use registry::Registry;
pub use reply::{Activated, AgentReply, Consent, RequestStatus, ScriptEnd};
pub use settings::{SettingEnd, SettingsEnd};
pub use words::{GuestWords, Lines};

/// How links behave. [`LinkConfig::new`] has the values for production; tests change single ones.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Directory of the lock files, one a domain; made when it is absent.
    pub run_directory: PathBuf,
    /// Identity of this host's installation, told to the guests.
    pub host_id: String,
    /// Interval at which agents report.
    pub telemetry: Duration,
    /// Protocol versions that this daemon speaks.
    pub versions: VersionRange,
    /// How long an agent may take to answer a hello.
    pub hello_timeout: Duration,
    /// Silence after which it is pinged.
    pub heartbeat: Duration,
    /// Unanswered pings after which the connection is opened again.
    pub heartbeat_misses: u32,
    /// Shortest and longest pause between two connections. The short one makes a reboot cost nothing, the long one bounds
    /// what a guest without an agent costs.
    pub reconnect: (Duration, Duration),
    /// Shortest and longest pause after a flood.
    pub flood_pause: (Duration, Duration),
    /// How much a guest may send.
    pub rates: Rates,
    /// Whether guests may say that they need memory.
    pub needs: Needs,
    /// Whether users of guests may ask for another persona. The daemon sets it; nothing else could answer them.
    pub switches: Switches,
}

/// Whether users of guests who ask for another persona are listened to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Switches {
    /// They are; the daemon answers each.
    Honour,
    /// Guests are not told that they could ask, and one that does misbehaves.
    #[default]
    Ignore,
}

/// Whether needs of guests are listened to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Needs {
    /// They are, as far as the persona's bounds and the domain's fair share go.
    #[default]
    Honour,
    /// Guests are not told that they could say so, and one that does misbehaves.
    Ignore,
}

impl LinkConfig {
    /// The values for production.
    pub fn new(run_directory: PathBuf, host_id: String) -> Self {
        Self {
            run_directory,
            host_id,
            telemetry: Duration::from_secs(1),
            versions: agent_protocol::SUPPORTED,
            hello_timeout: Duration::from_secs(5),
            heartbeat: Duration::from_millis(HEARTBEAT_IDLE_MS),
            heartbeat_misses: HEARTBEAT_MISSES,
            reconnect: (Duration::from_millis(200), Duration::from_secs(30)),
            flood_pause: (Duration::from_secs(1), Duration::from_secs(60)),
            rates: Rates::default(),
            needs: Needs::default(),
            switches: Switches::default(),
        }
    }
}
