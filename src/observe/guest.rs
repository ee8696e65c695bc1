//! What the guest claims, as readings: the balloon's statistics (its kernel's claim) and the agent's telemetry.
//! Nothing is read here; the daemon passes in what the hypervisor and the channel delivered. A claim is bounded and
//! dated before it counts; whether it may move anything is for the planner.

use std::time::Duration;

use persona::signal::{Metric, Reading, Source};
use persona::units::{Bytes, Moment};

use super::reading::{Missing, Readings};
use crate::hypervisor::BalloonStats;

/// The agent's telemetry, as far as metrics are made of it. `None` is what the guest's kernel does not offer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GuestReport {
    /// vCPUs online.
    pub online_count: Option<u32>,
    /// vCPUs present, online or not.
    pub present_count: Option<u32>,
    /// `MemTotal`.
    pub memory_total: Option<Bytes>,
    /// `MemAvailable`.
    pub memory_available: Option<Bytes>,
    /// `some avg10` of `/proc/pressure/memory`, in percent.
    pub memory_pressure: Option<f64>,
    /// Load average over one minute.
    pub load1: Option<f64>,
    /// When it arrived on the host: the guest's own clock is not asked.
    pub at: Moment,
    /// How often the agent reports.
    pub period: Duration,
}

/// vCPUs online for [`Observer::sample_domain`](super::Observer::sample_domain): of a fresh report that can be true.
pub fn online_vcpus(report: &GuestReport, now: Moment) -> Option<u32> {
    agent_readings(report, now).ok()?;
    vcpus(report).ok()
}

/// Puts all that the guest claims into `readings`. Memory utilisation and available memory come from the balloon
/// where it reports, else from the agent; what the guest sees of its vCPUs and memory from the agent, the size of
/// memory else from the balloon.
///
/// `period` is the balloon device's statistics period; absent when statistics are off.
pub fn add_claims(
    readings: &mut Readings,
    balloon: &BalloonStats,
    period: Option<Duration>,
    report: Option<&GuestReport>,
    now: Moment,
) {
    let balloon = balloon_reading(period, balloon, now).map(|stamp| (stamp, balloon));
    let agent = report
        .ok_or(Missing::NoAgent)
        .and_then(|report| agent_readings(report, now).map(|stamp| (stamp, report)));

    let of_agent = |figure: &dyn Fn(&GuestReport) -> Result<f64, Missing>| {
        agent.and_then(|(stamp, report)| figure(report).map(|value| Reading { value, ..stamp }))
    };
    let of_balloon = |figure: &dyn Fn(&BalloonStats) -> Result<f64, Missing>| {
        balloon.and_then(|(stamp, stats)| figure(stats).map(|value| Reading { value, ..stamp }))
    };
    let balloon_memory =
        |stats: &BalloonStats| memory(stats.available, stats.usable, Missing::NotReported);
    let agent_memory = |report: &GuestReport| {
        memory(
            report.memory_total,
            report.memory_available,
            Missing::NoAgent,
        )
    };

    readings.set(
        Metric::MemoryUtilization,
        either(
            of_balloon(&|stats| balloon_memory(stats).map(Memory::utilization)),
            of_agent(&|report| agent_memory(report).map(Memory::utilization)),
        ),
    );
    readings.set(
        Metric::MemoryAvailable,
        either(
            of_balloon(&|stats| balloon_memory(stats).map(|memory| float(memory.available))),
            of_agent(&|report| agent_memory(report).map(|memory| float(memory.available))),
        ),
    );
    readings.set(
        Metric::MemorySize,
        either(
            of_agent(&|report| size(report.memory_total, Missing::NoAgent)),
            of_balloon(&|stats| size(stats.available, Missing::NotReported)),
        ),
    );
    readings.set(
        Metric::VcpuCount,
        of_agent(&|report| vcpus(report).map(f64::from)),
    );
    readings.set(
        Metric::GuestMemoryPressure,
        of_agent(&|report| within(report.memory_pressure, 100.0)),
    );
    readings.set(
        Metric::GuestLoad,
        of_agent(&|report| within(report.load1, f64::MAX)),
    );
}

/// The first that is known; the first reason where none is, unless the second says more than "no agent".
fn either(
    first: Result<Reading, Missing>,
    second: Result<Reading, Missing>,
) -> Result<Reading, Missing> {
    match (first, second) {
        (Ok(reading), _) | (Err(_), Ok(reading)) => Ok(reading),
        (Err(Missing::NoAgent), Err(reason)) | (Err(reason), Err(_)) => Err(reason),
    }
}

/// Source and date of the balloon's statistics, when they are fresh.
fn balloon_reading(
    period: Option<Duration>,
    stats: &BalloonStats,
    now: Moment,
) -> Result<Reading, Missing> {
    let period = period
        .filter(|period| !period.is_zero())
        .ok_or(Missing::StatisticsOff)?;
    // Zero is what the device says until the driver has reported for the first time.
    let seconds = stats
        .last_update
        .filter(|seconds| *seconds > 0)
        .ok_or(Missing::NotReported)?;
    fresh(
        Moment(seconds.saturating_mul(1000)),
        period,
        Source::Balloon,
        now,
    )
}

/// Source and date of a report, when it is fresh.
fn agent_readings(report: &GuestReport, now: Moment) -> Result<Reading, Missing> {
    fresh(report.at, report.period, Source::Agent, now)
}

fn fresh(at: Moment, period: Duration, source: Source, now: Moment) -> Result<Reading, Missing> {
    let tolerance = period.saturating_mul(Reading::STALE_AFTER_PERIODS);
    // A date ahead is a clock that was set back since: it would count as fresh for as long as that.
    if now.since(at) > tolerance || at.since(now) > tolerance {
        return Err(Missing::Stale);
    }
    Ok(Reading {
        value: 0.0,
        source,
        at: at.min(now),
        period,
    })
}

struct Memory {
    total: Bytes,
    available: Bytes,
}

impl Memory {
    fn utilization(self) -> f64 {
        ((1.0 - float(self.available) / float(self.total)) * 100.0).clamp(0.0, 100.0)
    }
}

fn memory(
    total: Option<Bytes>,
    available: Option<Bytes>,
    absent: Missing,
) -> Result<Memory, Missing> {
    let (total, available) = total.zip(available).ok_or(absent)?;
    if total.0 == 0 || available > total {
        return Err(Missing::Implausible);
    }
    Ok(Memory { total, available })
}

fn size(total: Option<Bytes>, absent: Missing) -> Result<f64, Missing> {
    match total.ok_or(absent)? {
        Bytes(0) => Err(Missing::Implausible),
        total => Ok(float(total)),
    }
}

fn vcpus(report: &GuestReport) -> Result<u32, Missing> {
    let online = report.online_count.ok_or(Missing::NoAgent)?;
    if online == 0 || report.present_count.is_some_and(|present| present < online) {
        return Err(Missing::Implausible);
    }
    Ok(online)
}

fn within(value: Option<f64>, most: f64) -> Result<f64, Missing> {
    let value = value.ok_or(Missing::NoAgent)?;
    // Written so that a value that is no number fails.
    if (0.0..=most).contains(&value) {
        Ok(value)
    } else {
        Err(Missing::Implausible)
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "an f64 counts bytes exactly up to 8 PiB"
)]
fn float(bytes: Bytes) -> f64 {
    bytes.0 as f64
}
