//! Shifts of persona: whether the `until` that ends one holds, and how soon and how often the next may come. Which persona
//! a domain gets, and its activation, is the daemon's; called by `plan`, and by the daemon before it carries one out.

use std::time::Duration;

use persona::rule::{Trail, Windows};
use persona::units::Moment;
use serde::{Deserialize, Serialize};

use crate::snapshot::Domain;
use crate::state::DomainState;

/// Shifts to another persona within [`SPAN`]. Each runs scripts in the guest and starts all windows anew, so a machine that
/// shifts more often than once in ten minutes is occupied with that and not with its load: two personas whose rules
/// call for each other.
pub const MOST_IN_A_SPAN: usize = 6;

/// See [`MOST_IN_A_SPAN`].
pub const SPAN: Duration = Duration::from_secs(60 * 60);

/// The windows of the `until` of the rule behind a shift.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShiftWatch {
    /// The text of the rule that they belong to.
    rule: String,
    holds: Windows,
}

/// Whether the shift behind the domain's persona is over. Every window advances.
pub(crate) fn over(domain: &Domain<'_>, carried: &mut DomainState, now: Moment) -> bool {
    let Some(rule) = domain.shifted_by else {
        carried.shift = ShiftWatch::default();
        return false;
    };
    let Some(until) = &rule.until else {
        return false;
    };
    let watch = &mut carried.shift;
    if watch.rule != rule.text {
        *watch = ShiftWatch {
            rule: rule.text.to_string(),
            holds: Windows::default(),
        };
    }
    until
        .evaluate(
            domain.signals,
            rule.source,
            &mut watch.holds,
            now,
            &mut Trail::Off,
        )
        .is_true()
}

/// A change of a domain's persona by its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// To a persona that a rule names.
    Forward,
    /// To the one before. The way back is never cut off.
    Back,
}

/// When a domain's persona was last changed by rules. It is stored, so that a restart begins no new count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// The last change, forward or back.
    #[serde(default)]
    last: Option<Moment>,
    /// Changes forward within [`SPAN`].
    #[serde(default)]
    forward: Vec<Moment>,
}

/// Why a change has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The rule's cooldown since the last change.
    Cooldown {
        /// Until then.
        until: Moment,
    },
    /// There were [`MOST_IN_A_SPAN`] already.
    TooOften {
        /// Until then.
        until: Moment,
    },
}

impl Pace {
    /// Whether a change by a rule with this cooldown may take place now.
    ///
    /// # Errors
    /// Why not, and until when.
    pub fn permits(&self, turn: Turn, cooldown: Duration, now: Moment) -> Result<(), Wait> {
        if turn == Turn::Forward {
            let recent: Vec<Moment> = self.recent(now).collect();
            if let Some(index) = recent.len().checked_sub(MOST_IN_A_SPAN) {
                let until = recent[index].after(SPAN);
                return Err(Wait::TooOften { until });
            }
        }
        match self.last.map(|last| last.after(cooldown)) {
            Some(until) if until > now => Err(Wait::Cooldown { until }),
            _ => Ok(()),
        }
    }

    /// A change takes place.
    pub fn note(&mut self, turn: Turn, now: Moment) {
        self.last = Some(now);
        self.forward = self.recent(now).collect();
        if turn == Turn::Forward {
            self.forward.push(now);
        }
    }

    /// Makes what was stored fit for going on with: no date lies ahead, because the wall clock may have been set back.
    pub fn resume(&mut self, now: Moment) {
        self.last = self.last.map(|at| at.min(now));
        for at in &mut self.forward {
            *at = (*at).min(now);
        }
    }

    fn recent(&self, now: Moment) -> impl Iterator<Item = Moment> {
        self.forward
            .iter()
            .copied()
            .filter(move |at| now < at.after(SPAN))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COOLDOWN: Duration = Duration::from_secs(60);

    #[test]
    fn a_shift_waits_for_the_cooldown_and_the_way_back_is_never_cut_off() {
        let mut pace = Pace::default();
        let mut now = Moment(1_000_000);
        for _ in 0..MOST_IN_A_SPAN {
            assert_eq!(pace.permits(Turn::Forward, COOLDOWN, now), Ok(()));
            pace.note(Turn::Forward, now);
            let early = now.after(COOLDOWN / 2);
            let until = now.after(COOLDOWN);
            let wait = Err(Wait::Cooldown { until });
            assert_eq!(pace.permits(Turn::Back, COOLDOWN, early), wait);
            now = until;
        }
        let until = Moment(1_000_000).after(SPAN);
        let cut = Err(Wait::TooOften { until });
        assert_eq!(pace.permits(Turn::Forward, COOLDOWN, now), cut);
        assert_eq!(pace.permits(Turn::Back, COOLDOWN, now), Ok(()));
        assert_eq!(pace.permits(Turn::Forward, COOLDOWN, until), Ok(()));
    }

    #[test]
    fn a_clock_that_was_set_back_holds_no_shift_back_for_longer_than_the_span() {
        let mut pace = Pace::default();
        let late = Moment(1_000_000_000);
        (0..MOST_IN_A_SPAN).for_each(|_| pace.note(Turn::Forward, late));
        let now = Moment(1_000_000);
        pace.resume(now);
        let after = now.after(SPAN);
        assert_eq!(pace.permits(Turn::Forward, COOLDOWN, after), Ok(()));
    }

    proptest! {
        #[test]
        fn no_history_shifts_more_often_than_allowed(steps in proptest::collection::vec((0..900_u64, any::<bool>()), 0..200)) {
            let mut pace = Pace::default();
            let mut now = Moment(0);
            let (mut forward, mut last) = (Vec::new(), None::<Moment>);
            for (seconds, back) in steps {
                now = now.after(Duration::from_secs(seconds));
                let turn = if back { Turn::Back } else { Turn::Forward };
                if pace.permits(turn, COOLDOWN, now).is_err() {
                    continue;
                }
                pace.note(turn, now);
                prop_assert!(last.is_none_or(|last| now.since(last) >= COOLDOWN));
                last = Some(now);
                if turn == Turn::Forward {
                    forward.push(now);
                }
                let recent = forward.iter().filter(|at| now < at.after(SPAN)).count();
                prop_assert!(recent <= MOST_IN_A_SPAN);
            }
        }
    }
}
