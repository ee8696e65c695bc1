//! The most that was in use lately: what tells an idle resource from one that rests for a moment. Kept for each resource
//! in `state`; what is made of it is in `donate`.

use std::time::Duration;

use persona::units::Moment;

/// The highest of all amounts since at least one window and at most two ago, in two numbers. It is unknown until one
/// window has been watched without a gap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    began: Option<Moment>,
    watched: Option<Moment>,
    current: u64,
    before: Option<u64>,
}

impl Peak {
    /// Notes what is in use now; `None` where nobody knows, which starts the watch anew.
    pub(crate) fn watch(&mut self, used: Option<u64>, window: Duration, now: Moment) {
        let Some(used) = used else {
            *self = Self::default();
            return;
        };
        // Where nobody looked for a good part of the window, nobody knows what was between.
        let gap = self.watched.is_some_and(|at| now.since(at) > window / 4);
        self.watched = Some(now);
        match self.began.filter(|_| !gap) {
            Some(began) if now.since(began) < window => self.current = self.current.max(used),
            Some(_) => {
                *self = Self {
                    began: Some(now),
                    watched: Some(now),
                    current: used,
                    before: Some(self.current),
                };
            }
            None => {
                *self = Self {
                    began: Some(now),
                    watched: Some(now),
                    current: used,
                    before: None,
                };
            }
        }
    }

    /// The most that was in use, once a whole window was watched.
    pub fn value(&self) -> Option<u64> {
        self.before.map(|before| before.max(self.current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn watched(amounts: &[Option<u64>]) -> Option<u64> {
        let mut peak = Peak::default();
        let mut now = Moment(1_000_000);
        for used in amounts {
            peak.watch(*used, WINDOW, now);
            now = now.after(Duration::from_secs(1));
        }
        peak.value()
    }

    #[test]
    fn a_peak_is_known_after_one_window_and_forgotten_after_two() {
        assert_eq!(watched(&[Some(3); 10]), None);
        assert_eq!(watched(&[Some(3); 11]), Some(3));
        let mut amounts = vec![Some(9)];
        amounts.extend([Some(1); 19]);
        assert_eq!(watched(&amounts), Some(9));
        amounts.push(Some(1));
        assert_eq!(watched(&amounts), Some(1));
    }

    #[test]
    fn what_nobody_knows_starts_the_watch_anew() {
        let mut amounts = vec![Some(3); 15];
        amounts.push(None);
        amounts.extend([Some(2); 10]);
        assert_eq!(watched(&amounts), None);
        amounts.push(Some(2));
        assert_eq!(watched(&amounts), Some(2));
    }
}
