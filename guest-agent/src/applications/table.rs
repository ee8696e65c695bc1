//! The figures of applications: what each last said or has counted, who owns its name, and for how long it counts. It reads
//! no clock and no socket; how much one user can make it keep is bounded here.

use std::{collections::BTreeMap, time::Duration};

use agent_protocol::{
    AppFigure, AppKind,
    limits::{APP_EVERY_MAX_MS, APP_FIGURES_MAX, APP_VALUE_MAX},
};

use super::line::Change;

/// Names that one user other than root may have: half of all, so that nobody takes all.
const NAMES_OF_USER: usize = APP_FIGURES_MAX / 2;
/// Lines of one user that count in a second.
const LINES_A_SECOND: u32 = 1_000;
/// Users whose lines are counted; the one that was quiet for longest makes room.
const USERS: usize = 16;
/// How long what was said once, or counted, keeps its name: as long as three of the longest intervals.
const KEPT: Duration = Duration::from_millis(3 * APP_EVERY_MAX_MS);

/// Why a line does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("it is the name of another user's figure")]
    Foreign,
    #[error(
        "there is no room for another name; {NAMES_OF_USER} for each user, {APP_FIGURES_MAX} in all"
    )]
    Full,
    #[error("more than {LINES_A_SECOND} lines in a second")]
    TooMany,
    #[error("it was a gauge and is a counter, or the other way round")]
    Kind,
    #[error("the value has grown too large")]
    Value,
}

#[derive(Debug)]
struct Figure {
    owner: u32,
    worth: Worth,
    /// When it was last said.
    at: Duration,
}

#[derive(Debug)]
enum Worth {
    /// The value, and how often it is said.
    Gauge {
        value: f64,
        every: Option<Duration>,
    },
    Counter {
        total: f64,
    },
}

#[derive(Debug)]
struct Budget {
    user: u32,
    second: u64,
    lines: u32,
}

/// All figures.
#[derive(Debug, Default)]
pub(crate) struct Table {
    figures: BTreeMap<String, Figure>,
    budgets: Vec<Budget>,
}

impl Table {
    /// Takes what `user` says at `now`, a time since the guest's start.
    pub(crate) fn take(
        &mut self,
        user: u32,
        name: String,
        change: Change,
        now: Duration,
    ) -> Result<(), Refused> {
        if !self.affords(user, now) {
            return Err(Refused::TooMany);
        }
        let Some(figure) = self.figures.get_mut(&name) else {
            self.make_room(user, now)?;
            let worth = match change {
                Change::Set(value) | Change::Move(value) => Worth::Gauge { value, every: None },
                Change::Count(total) => Worth::Counter { total },
            };
            let owner = user;
            self.figures.insert(
                name,
                Figure {
                    owner,
                    worth,
                    at: now,
                },
            );
            return Ok(());
        };
        if figure.owner != user {
            // Root may speak for everybody; the name is root's from then on.
            if user != 0 && figure.is_kept(now) {
                return Err(Refused::Foreign);
            }
            figure.owner = user;
        }
        let bounded = |value: f64| {
            if value.abs() <= APP_VALUE_MAX {
                Ok(value)
            } else {
                Err(Refused::Value)
            }
        };
        match (&mut figure.worth, change) {
            (Worth::Gauge { value, every }, Change::Set(_) | Change::Move(_)) => {
                *value = match change {
                    Change::Move(by) => bounded(*value + by)?,
                    Change::Set(to) | Change::Count(to) => to,
                };
                let gap = now.saturating_sub(figure.at);
                // Bursts with pauses between: the pauses count, and are forgotten by and by.
                *every = Some(every.map_or(gap, |before| gap.max(before * 3 / 4)));
            }
            (Worth::Counter { total }, Change::Count(more)) => *total = bounded(*total + more)?,
            (Worth::Gauge { .. } | Worth::Counter { .. }, _) => return Err(Refused::Kind),
        }
        figure.at = now;
        Ok(())
    }

    /// What a report says of them. `interval` is that of reports: what is said more often counts as said so often.
    pub(crate) fn figures(&mut self, now: Duration, interval: Duration) -> Vec<AppFigure> {
        self.figures.retain(|_, figure| figure.is_kept(now));
        let shown = self.figures.iter().map(|(name, figure)| {
            let age = now.saturating_sub(figure.at);
            let (kind, value, age, every) = match figure.worth {
                Worth::Gauge { value, every } => {
                    let every = every.map(|every| every.max(interval));
                    (AppKind::Gauge, value, age, every)
                }
                // What counts nothing has counted nothing: that is known now.
                Worth::Counter { total } => (AppKind::Counter, total, Duration::ZERO, None),
            };
            AppFigure {
                name: name.clone(),
                kind,
                value,
                age_ms: millis(age),
                every_ms: every.map(millis),
            }
        });
        shown.collect()
    }

    fn affords(&mut self, user: u32, now: Duration) -> bool {
        let second = now.as_secs();
        let at = match self.budgets.iter().position(|budget| budget.user == user) {
            Some(at) => at,
            None if self.budgets.len() < USERS => {
                self.budgets.push(Budget {
                    user,
                    second,
                    lines: 0,
                });
                self.budgets.len() - 1
            }
            None => {
                let quiet = (0..USERS).min_by_key(|at| self.budgets[*at].second);
                // There are USERS of them, so one is the quietest.
                let at = quiet.unwrap_or_default();
                self.budgets[at] = Budget {
                    user,
                    second,
                    lines: 0,
                };
                at
            }
        };
        let budget = &mut self.budgets[at];
        if budget.second != second {
            (budget.second, budget.lines) = (second, 0);
        }
        budget.lines = budget.lines.saturating_add(1);
        budget.lines <= LINES_A_SECOND
    }

    fn make_room(&mut self, user: u32, now: Duration) -> Result<(), Refused> {
        self.figures.retain(|_, figure| figure.is_kept(now));
        let owned = self.figures.values().filter(|figure| figure.owner == user);
        if self.figures.len() >= APP_FIGURES_MAX || (user != 0 && owned.count() >= NAMES_OF_USER) {
            return Err(Refused::Full);
        }
        Ok(())
    }
}

impl Figure {
    /// Whether it is still somebody's.
    fn is_kept(&self, now: Duration) -> bool {
        now.saturating_sub(self.at) <= KEPT
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn say(
        table: &mut Table,
        user: u32,
        name: &str,
        change: Change,
        now: u64,
    ) -> Result<(), Refused> {
        table.take(user, name.to_owned(), change, at(now))
    }

    #[test]
    fn the_newest_gauge_holds_counters_are_summed_and_both_have_their_age() {
        let mut table = Table::default();
        for (now, value) in [(100, 3.0), (105, 4.0)] {
            say(&mut table, 1, "queue", Change::Set(value), now).unwrap();
            say(&mut table, 1, "hits", Change::Count(value), now).unwrap();
        }
        say(&mut table, 1, "once", Change::Move(-2.0), 105).unwrap();
        let figure = |name: &str, kind, value, age_ms, every_ms| AppFigure {
            name: name.to_owned(),
            kind,
            value,
            age_ms,
            every_ms,
        };
        assert_eq!(
            table.figures(at(107), INTERVAL),
            [
                figure("hits", AppKind::Counter, 7.0, 0, None),
                figure("once", AppKind::Gauge, -2.0, 2000, None),
                figure("queue", AppKind::Gauge, 4.0, 2000, Some(5000)),
            ]
        );
    }

    #[test]
    fn a_name_is_its_first_users_until_it_is_forgotten_and_root_may_speak_for_all() {
        let mut table = Table::default();
        say(&mut table, 1000, "queue", Change::Set(1.0), 10).unwrap();
        let foreign = say(&mut table, 1001, "queue", Change::Set(9.0), 11);
        assert_eq!(foreign, Err(Refused::Foreign));
        assert_eq!(table.figures(at(11), INTERVAL)[0].value, 1.0);
        say(&mut table, 0, "queue", Change::Set(2.0), 12).unwrap();
        let foreign = say(&mut table, 1000, "queue", Change::Set(1.0), 13);
        assert_eq!(foreign, Err(Refused::Foreign));
        let forgotten = 13 + KEPT.as_secs();
        say(&mut table, 1000, "queue", Change::Set(5.0), forgotten).unwrap();
        assert_eq!(table.figures(at(forgotten), INTERVAL)[0].value, 5.0);
        let kind = say(&mut table, 1000, "queue", Change::Count(1.0), forgotten);
        assert_eq!(kind, Err(Refused::Kind));
    }

    #[test]
    fn one_user_cannot_take_all_names_nor_all_time() {
        let mut table = Table::default();
        let full =
            (0..1000).find(|n| say(&mut table, 7, &format!("a{n}"), Change::Set(0.0), 1).is_err());
        assert_eq!(full, Some(NAMES_OF_USER));
        say(&mut table, 8, "mine", Change::Set(0.0), 1).unwrap();
        let mut flood = (0..5000).map(|_| say(&mut table, 7, "a0", Change::Set(0.0), 2));
        assert_eq!(flood.find(Result::is_err), Some(Err(Refused::TooMany)));
        say(&mut table, 8, "mine", Change::Set(1.0), 2).unwrap();
        say(&mut table, 7, "a0", Change::Set(1.0), 3).unwrap();
        for user in 100..1000 {
            let _ = say(&mut table, user, &format!("u{user}"), Change::Count(1.0), 4);
        }
        assert_eq!(table.figures(at(4), INTERVAL).len(), APP_FIGURES_MAX);
        assert_eq!(table.budgets.len(), USERS);
        let too_much = say(&mut table, 8, "mine", Change::Move(APP_VALUE_MAX), 5);
        assert_eq!(too_much, Err(Refused::Value));
    }
}
