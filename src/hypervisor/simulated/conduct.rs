//! How a simulated guest misbehaves for a while, as a scenario says it or a test wants it. What each word does to memory is
//! in `machine`, to CPUs and claims in `guest`, to the channel in `agent`.

use std::time::Duration;

use serde::Deserialize;

/// What a guest does other than it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum Conduct {
    /// The agent refuses to bring CPUs online or to take them offline.
    RefusesCpus,
    /// Neither the memory device nor the balloon moves.
    RefusesMemory,
    /// Each answer, and each quarter of the way of memory, takes this much longer.
    Slow {
        /// How much, in milliseconds.
        ms: u64,
    },
    /// One CPU fewer is switched than was asked for, and memory goes half of the way.
    Partly,
    /// The agent says that CPUs are as asked and switches none.
    ClaimsCpus,
    /// The agent reports more CPUs online than are plugged.
    ClaimsMoreCpus,
    /// The agent reports one CPU online, however many are.
    ClaimsFewerCpus,
    /// Balloon and agent say that nothing is in use.
    ClaimsNoMemoryUse,
    /// Balloon and agent say that all is in use.
    ClaimsAllMemoryUsed,
    /// Balloon and agent say that more is free than there is.
    ClaimsImpossibleMemory,
    /// The balloon dates its figures an hour ahead.
    ReportsFromTheFuture,
    /// The balloon dates its figures an hour back.
    ReportsFromThePast,
    /// Balloon and agent go on to say what they said when this began, as if it were new.
    ReportsTheSame,
    /// The hypervisor tells a hundred events of it a second.
    FloodsEvents,
    /// The agent sends a thousand reports a second, with or without leave.
    FloodsTelemetry,
    /// The agent agrees to no shrink when it is asked.
    RefusesShrinks,
    /// The agent does not answer when it is asked before a shrink.
    IgnoresShrinks,
    /// The domain is started anew whenever its agent is asked before a shrink.
    DiesAtShrinks,
    /// The guest stands still: the agent says nothing, memory does not move and figures get old.
    Hangs,
    /// No call to its monitor returns.
    HangsMonitor,
    /// The domain is started anew every so often.
    Dies {
        /// How often, in seconds; the first time at once.
        every_s: u64,
    },
}

/// A conduct from one moment to another, counted from the beginning of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Spell {
    /// When it begins, in seconds.
    pub from_s: u64,
    /// When the guest behaves again, in seconds; never when it is left out.
    pub until_s: Option<u64>,
    /// What it does.
    #[serde(flatten)]
    pub conduct: Conduct,
}

impl Conduct {
    /// By how much everything takes longer.
    pub(super) const fn delay(self) -> Duration {
        match self {
            Self::Slow { ms } => Duration::from_millis(ms),
            _ => Duration::ZERO,
        }
    }
}
