//! The inside of a simulated guest: CPUs online and what they have had to do, memory in use, and what the guest claims of
//! both. It reads no clock; times are since the beginning of the simulation.

use std::collections::VecDeque;
use std::time::Duration;

use agent_protocol::message::{Active, ReplyBody};
use agent_protocol::{Report, RequestId};
use persona::units::Bytes;

use super::super::{BalloonStats, VcpuTimes};
use super::conduct::Conduct;
use super::load::Load;

/// Answers that an agent remembers, so that a request that comes twice is done once.
const REMEMBERED: usize = 64;

/// How far the dates of a guest lie that tells wrong ones.
const HOUR: u64 = 3600;

pub(super) struct Inside {
    load: Load,
    /// CPUs online.
    online: u32,
    /// What each vCPU has had since the start.
    times: Vec<VcpuTimes>,
    /// The times are up to here.
    seen: Duration,
    pub(super) conduct: Option<Conduct>,
    /// When the conduct began, as a date of Unix in seconds.
    since: u64,
    /// What was said when the guest began to repeat itself.
    said: (Option<BalloonStats>, Option<Report>),
    /// What the disk keeps: the newest generation, the active persona, and the answers.
    pub(super) newest: u64,
    pub(super) active: Option<Active>,
    answers: VecDeque<(RequestId, ReplyBody)>,
}

/// What a guest really has, for what it says of it.
#[derive(Clone, Copy)]
pub(super) struct Truth {
    /// vCPUs in the machine.
    pub(super) plugged: u32,
    /// Memory in the guest.
    pub(super) memory: Bytes,
    /// Of it, in use.
    pub(super) used: Bytes,
}

impl Inside {
    pub(super) fn new(load: Load, online: u32) -> Self {
        Self {
            load,
            online,
            times: Vec::new(),
            seen: Duration::ZERO,
            conduct: None,
            since: 0,
            said: (None, None),
            newest: 0,
            active: None,
            answers: VecDeque::new(),
        }
    }

    /// Another start: what is on the disk stays, and so does what is wrong with the guest.
    pub(super) fn start(&mut self, online: u32) {
        self.online = online;
        self.times.clear();
    }

    pub(super) fn set_load(&mut self, load: Load) {
        self.load = load;
    }

    /// Moves on to `now`; no more CPUs than `cap` ran. What lies between is taken for as busy as its middle. Returns the memory that is in use where
    /// the scenario says it.
    pub(super) fn advance(&mut self, now: Duration, cap: f64) -> Option<Bytes> {
        if let Some(load) = &self.load.cpu {
            let elapsed = now.saturating_sub(self.seen);
            let middle = now.saturating_sub(elapsed / 2);
            let online = self.online.max(1);
            let each = (load.at(middle).min(cap) / f64::from(online)).clamp(0.0, 1.0);
            let length = usize::try_from(online).unwrap_or(usize::MAX);
            if self.times.len() < length {
                self.times.resize(length, VcpuTimes::default());
            }
            for times in self.times.iter_mut().take(length) {
                times.run += elapsed.mul_f64(each);
            }
        }
        self.seen = now;
        self.load.memory.map(|load| {
            // Not negative, and far below what a float holds.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Bytes::from_mib(load.at(now).max(0.0) as u64)
        })
    }

    /// The times of the plugged vCPUs; `None` where the scenario says nothing of their load.
    pub(super) fn times(&self, plugged: u32) -> Option<Vec<VcpuTimes>> {
        self.load.cpu?;
        let mut times = self.times.clone();
        times.resize(
            usize::try_from(plugged).unwrap_or(usize::MAX),
            VcpuTimes::default(),
        );
        Some(times)
    }

    /// CPUs that are really online.
    pub(super) fn online(&self) -> u32 {
        self.online
    }

    /// All that are plugged come online, and nobody has asked for that.
    pub(super) fn bring_online(&mut self, plugged: u32) {
        self.online = plugged;
    }

    /// No more are online than are plugged.
    pub(super) fn unplugged(&mut self, plugged: u32) {
        self.online = self.online.min(plugged.max(1));
    }

    /// Makes so many CPUs online, as far as the guest does what it is asked. Returns what it says is online then.
    ///
    /// # Errors
    /// In the agent's words.
    pub(super) fn switch(&mut self, target: u32, plugged: u32) -> Result<u32, String> {
        if target == 0 || target > plugged {
            return Err(format!("there are {plugged} CPUs, not {target}"));
        }
        match self.conduct {
            Some(Conduct::RefusesCpus) => return Err("the guest's owner does not want it".into()),
            Some(Conduct::ClaimsCpus) => return Ok(target),
            Some(Conduct::Partly) => self.switch_partly(target, plugged),
            _ => self.online = target,
        }
        Ok(self.online)
    }

    /// The same, one CPU short.
    pub(super) fn switch_partly(&mut self, target: u32, plugged: u32) {
        match target.cmp(&self.online) {
            std::cmp::Ordering::Greater => self.online = target - 1,
            std::cmp::Ordering::Less => self.online = (target + 1).min(plugged),
            std::cmp::Ordering::Equal => {}
        }
    }

    /// Whether it agrees to no shrink.
    pub(super) fn refuses_shrinks(&self) -> bool {
        self.conduct == Some(Conduct::RefusesShrinks)
    }

    /// The guest behaves like this from `unix` on.
    pub(super) fn behave(&mut self, conduct: Option<Conduct>, unix: u64) {
        self.conduct = conduct;
        self.since = unix;
        self.said = (None, None);
    }

    /// What the balloon says, of the truth in `stats`.
    pub(super) fn claim_balloon(&mut self, stats: BalloonStats, unix: u64) -> BalloonStats {
        let mut claim = stats;
        let lie = self.memory_lie(stats.available, stats.usable);
        claim.usable = lie.or(stats.usable);
        match self.conduct {
            Some(Conduct::ReportsFromTheFuture) => claim.last_update = Some(unix + HOUR),
            Some(Conduct::ReportsFromThePast) => {
                claim.last_update = Some(unix.saturating_sub(HOUR));
            }
            Some(Conduct::Hangs) => claim.last_update = Some(self.since),
            Some(Conduct::ReportsTheSame) => {
                claim = BalloonStats {
                    last_update: claim.last_update,
                    ..*self.said.0.get_or_insert(claim)
                };
            }
            _ => {}
        }
        claim
    }

    /// What is said to be free where that is a lie.
    fn memory_lie(&self, all: Option<Bytes>, free: Option<Bytes>) -> Option<Bytes> {
        free?;
        match self.conduct {
            Some(Conduct::ClaimsNoMemoryUse) => all,
            Some(Conduct::ClaimsAllMemoryUsed) => Some(Bytes(0)),
            Some(Conduct::ClaimsImpossibleMemory) => all.map(|all| Bytes(all.0.saturating_mul(2))),
            _ => None,
        }
    }

    /// What the agent reports.
    pub(super) fn report(&mut self, truth: Truth, now: Duration) -> Report {
        let (online, present) = match self.conduct {
            Some(Conduct::ClaimsMoreCpus) => (truth.plugged + 2, truth.plugged + 2),
            Some(Conduct::ClaimsFewerCpus) => (1, truth.plugged),
            _ => (self.online, truth.plugged.max(self.online)),
        };
        let free = truth.memory.saturating_sub(truth.used);
        let free = self
            .memory_lie(Some(truth.memory), Some(free))
            .unwrap_or(free);
        let report = Report {
            at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            online: cpu_list(online),
            online_count: online,
            present_count: present,
            memory_total_kib: truth.memory.0 / 1024,
            memory_available_kib: free.0 / 1024,
            load1: self.load.cpu.map(|load| load.at(now).max(0.0)),
            ..Report::default()
        };
        if self.conduct == Some(Conduct::ReportsTheSame) {
            return self.said.1.get_or_insert(report).clone();
        }
        report
    }

    /// What was answered to a request before.
    pub(super) fn answer(&self, id: &RequestId) -> Option<ReplyBody> {
        let mut answers = self.answers.iter();
        answers
            .find(|(of, _)| of == id)
            .map(|(_, answer)| answer.clone())
    }

    pub(super) fn remember(&mut self, id: RequestId, answer: ReplyBody) {
        if self.answers.len() >= REMEMBERED {
            self.answers.pop_front();
        }
        self.answers.push_back((id, answer));
    }
}

/// The first so many CPUs, as the kernel writes them.
pub(super) fn cpu_list(count: u32) -> String {
    match count {
        0 => String::new(),
        1 => "0".into(),
        more => format!("0-{}", more - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::Curve;
    use super::*;

    #[test]
    fn vcpus_run_for_as_long_as_there_is_work_for_those_that_are_online() {
        let cpu = Some(Curve::Constant { value: 1.5 });
        let mut inside = Inside::new(Load { cpu, memory: None }, 1);
        let second = Duration::from_secs(1);
        inside.advance(second, f64::INFINITY);
        inside.switch(2, 2).unwrap();
        inside.advance(second * 2, f64::INFINITY);
        let run: Vec<_> = inside
            .times(3)
            .unwrap()
            .iter()
            .map(|times| times.run.as_millis())
            .collect();
        assert_eq!(run, [1750, 750, 0]);
        inside.advance(second * 3, 0.5);
        let run: Vec<_> = inside.times(2).unwrap();
        assert_eq!(run[0].run.as_millis(), 2000, "a cap holds it back");
    }

    #[test]
    fn a_lie_is_told_and_the_truth_is_not_changed() {
        let mut inside = Inside::new(Load::default(), 2);
        inside.behave(Some(Conduct::ClaimsCpus), 0);
        assert_eq!(inside.switch(4, 4), Ok(4));
        assert_eq!(inside.online(), 2);
        inside.behave(Some(Conduct::Partly), 0);
        assert_eq!(inside.switch(4, 4), Ok(3));
        assert_eq!(inside.switch(1, 4), Ok(2));
        inside.behave(None, 0);
        assert_eq!(inside.switch(1, 4), Ok(1));
    }
}
