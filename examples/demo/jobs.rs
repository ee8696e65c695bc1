//! How much work the guest does: jobs of a fixed size, counted by the guest itself.

use crate::harness::GuestStatus;

/// Seconds over which a rate is taken: short enough to lie within one step, long enough that a hiccup does not show.
const WINDOW: f64 = 3.0;

/// Counts at moments of the guest's own clock.
#[derive(Default)]
pub(crate) struct Jobs {
    counts: Vec<Count>,
}

struct Count {
    uptime: f64,
    done: u64,
    online: u32,
}

impl Jobs {
    /// Notes a count.
    pub(crate) fn note(&mut self, guest: &GuestStatus, online: u32) {
        self.counts.push(Count {
            uptime: guest.uptime,
            done: guest.jobs_done,
            online,
        });
    }

    /// Jobs a second while so many CPUs were online, over all that time; none where it was too short to say.
    pub(crate) fn rate_with(&self, online: u32) -> Option<f64> {
        let mut counts = self.counts.iter().filter(|count| count.online == online);
        rate(counts.next()?, counts.next_back()?, WINDOW / 2.0)
    }

    /// Jobs a second over the latest few seconds, all of them with more than one CPU.
    pub(crate) fn latest_with_more(&self) -> Option<f64> {
        let last = self.counts.last()?;
        let mut recent = self
            .counts
            .iter()
            .rev()
            .take_while(|count| count.online > 1);
        let first = recent.find(|count| last.uptime - count.uptime >= WINDOW)?;
        rate(first, last, WINDOW)
    }
}

fn rate(first: &Count, last: &Count, shortest: f64) -> Option<f64> {
    let span = last.uptime - first.uptime;
    let jobs = last.done.saturating_sub(first.done);
    (span >= shortest).then(|| jobs as f64 / span)
}
