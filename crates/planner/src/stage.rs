//! How short the host itself is of a resource: plenty, tight, scarce or critical. Each figure of the host has its own
//! marks, with another one for the way back, so that a value that sways around a mark changes the stage once. What
//! follows from a stage is in `ledger`; the marks and their reasons are in `policy`.

use std::fmt;

use persona::rule::Resource;
use serde::{Deserialize, Serialize};

use crate::policy::{Mark, Marks, Policy};
use crate::snapshot::Strain;

/// How short the host is of one resource. The later ones are the worse.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// There is enough: growth is paid for out of what is free of the budget, and nobody gives way.
    #[default]
    Plenty,
    /// Not everybody gets all: what domains do not use counts dearer, and they give way to those below their share.
    Tight,
    /// As before, and nobody grows above its share of the host.
    Scarce,
    /// As before, and memory grows up to reservations only.
    Critical,
}

impl Stage {
    /// The word for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plenty => "plenty",
            Self::Tight => "tight",
            Self::Scarce => "scarce",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which side of a mark is the bad one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bad {
    Low,
    High,
}

/// The stages that the figures of the host are at, each by itself: a figure that is unknown for a while keeps its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState {
    /// By the host's available memory.
    pub available: Stage,
    /// By the host's memory pressure.
    pub memory_pressure: Stage,
    /// By the host's CPU pressure.
    pub cpu_pressure: Stage,
}

impl HostState {
    /// The stage of one resource: the worst that a figure says.
    pub fn stage(&self, resource: Resource) -> Stage {
        match resource {
            Resource::Vcpus => self.cpu_pressure,
            Resource::Memory => self.available.max(self.memory_pressure),
        }
    }

    /// Goes on by what the host shows now.
    pub(crate) fn advance(&mut self, strain: &Strain, policy: &Policy) {
        let available = strain.memory.map(|memory| memory.available_percent());
        for (stage, value, marks, bad) in [
            (
                &mut self.available,
                available,
                &policy.memory_available,
                Bad::Low,
            ),
            (
                &mut self.memory_pressure,
                strain.memory_pressure,
                &policy.memory_pressure,
                Bad::High,
            ),
            (
                &mut self.cpu_pressure,
                strain.cpu_pressure,
                &policy.cpu_pressure,
                Bad::High,
            ),
        ] {
            // A figure that is not there says neither that the need is over nor that it has come.
            if let Some(value) = value.filter(|value| value.is_finite()) {
                *stage = next(*stage, value, marks, bad);
            }
        }
    }
}

/// The worst stage that is entered, or was and is not left yet.
fn next(now: Stage, value: f64, marks: &Marks, bad: Bad) -> Stage {
    let is_in = |stage: Stage, mark: Mark| {
        let (entered, left) = match bad {
            Bad::Low => (value < mark.enter, value >= mark.leave),
            Bad::High => (value > mark.enter, value <= mark.leave),
        };
        entered || (now >= stage && !left)
    };
    [
        (Stage::Critical, marks.critical),
        (Stage::Scarce, marks.scarce),
        (Stage::Tight, marks.tight),
    ]
    .into_iter()
    .find(|(stage, mark)| is_in(*stage, *mark))
    .map_or(Stage::Plenty, |(stage, _)| stage)
}

#[cfg(test)]
mod tests {
    use persona::units::Bytes;

    use super::*;
    use crate::snapshot::HostMemory;

    fn available(percent: u64) -> Strain {
        Strain {
            memory: Some(HostMemory {
                total: Bytes(1000),
                available: Bytes(percent * 10),
            }),
            ..Strain::default()
        }
    }

    fn pressure(percent: f64) -> Strain {
        Strain {
            cpu_pressure: Some(percent),
            memory_pressure: Some(percent),
            ..Strain::default()
        }
    }

    #[test]
    fn a_stage_is_entered_at_one_mark_and_left_at_another() {
        let mut state = HostState::default();
        let mut seen = Vec::new();
        for percent in [20, 12, 10, 9, 12, 14, 15, 11, 5, 8, 9, 2, 4, 5, 40] {
            state.advance(&available(percent), &Policy::default());
            seen.push((percent, state.stage(Resource::Memory)));
        }
        use Stage::{Critical, Plenty, Scarce, Tight};
        assert_eq!(
            seen,
            [
                (20, Plenty),
                (12, Plenty),
                (10, Plenty),
                (9, Tight),
                (12, Tight),
                (14, Tight),
                (15, Plenty),
                (11, Plenty),
                (5, Scarce),
                (8, Scarce),
                (9, Tight),
                (2, Critical),
                (4, Critical),
                (5, Scarce),
                (40, Plenty),
            ]
        );
    }

    #[test]
    fn pressure_counts_for_its_own_resource_and_the_worst_figure_counts() {
        let mut state = HostState::default();
        state.advance(&pressure(55.0), &Policy::default());
        assert_eq!(state.stage(Resource::Memory), Stage::Critical);
        assert_eq!(state.stage(Resource::Vcpus), Stage::Tight);
        state.advance(&available(50), &Policy::default());
        assert_eq!(state.stage(Resource::Memory), Stage::Critical);
    }

    #[test]
    fn a_figure_that_is_unknown_leaves_its_stage_as_it_was() {
        let mut state = HostState::default();
        state.advance(&available(5), &Policy::default());
        state.advance(&Strain::default(), &Policy::default());
        state.advance(&pressure(f64::NAN), &Policy::default());
        assert_eq!(state.stage(Resource::Memory), Stage::Scarce);
    }

    #[test]
    fn every_mark_is_left_on_the_better_side_of_where_it_is_entered() {
        let policy = Policy::default();
        let inside = |marks: &Marks| [marks.tight, marks.scarce, marks.critical];
        for mark in inside(&policy.memory_available) {
            assert!(mark.enter < mark.leave, "{mark:?}");
        }
        for marks in [&policy.memory_pressure, &policy.cpu_pressure] {
            for mark in inside(marks) {
                assert!(mark.enter > mark.leave, "{mark:?}");
            }
        }
    }
}
