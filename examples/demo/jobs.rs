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

    /// The best jobs a second over any few seconds with more than one CPU.
    pub(crate) fn best_after(&self) -> Option<f64> {
        let after: Vec<&Count> = self.counts.iter().filter(|c| c.online > 1).collect();
        let windows = after.iter().enumerate().filter_map(|(index, first)| {
            let last = after[index..]
                .iter()
                .find(|last| last.uptime - first.uptime >= WINDOW)?;
            rate(first, last, WINDOW)
        });
        windows.max_by(f64::total_cmp)
    }
}

fn rate(first: &Count, last: &Count, shortest: f64) -> Option<f64> {
    let span = last.uptime - first.uptime;
    let jobs = last.done.saturating_sub(first.done);
    (span >= shortest).then(|| jobs as f64 / span)
}
