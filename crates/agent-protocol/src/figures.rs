//! What a guest says of its disks, its logs and its way to other machines, as parts of a report that are there where they are
//! wanted. A figure that the guest cannot measure is absent in a part that is there. [`DiskFigures::checked`] and its like say
//! what of them a host may believe: what is above its bound is clamped, what cannot be is left out, and neither harms the
//! rest of the report.

use serde::{Deserialize, Serialize};

use crate::limits::{RECORDS_MAX, ROUND_TRIP_MAX_US};

/// File systems on the guest's disks, of those that can be written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DiskFigures {
    /// How long ago it was measured, in milliseconds.
    #[serde(default)]
    pub age_ms: u64,
    /// Free space of the fullest one, in percent of what its users may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space_free: Option<f64>,
    /// Free inodes of the one that has the fewest, in percent; absent where no file system counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes_free: Option<f64>,
}

/// Counters that only grow while the agent runs, and begin anew with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFigures {
    /// How long ago they were read, in milliseconds.
    #[serde(default)]
    pub age_ms: u64,
    /// Log records of priority error or worse; absent where no log of the guest says priorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<u64>,
    /// Failed logins; absent where the guest does not record them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_logins: Option<u64>,
}

/// The way to other machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkFigures {
    /// How long ago it was measured, in milliseconds.
    #[serde(default)]
    pub age_ms: u64,
    /// Round trip to the slowest of the machines that are probed, in microseconds; absent where none could be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_us: Option<u64>,
}

impl DiskFigures {
    /// What of it can be: shares from 0 to 100.
    #[must_use]
    pub fn checked(self) -> Self {
        // Written so that a value that is no number fails.
        let share = |share: Option<f64>| share.filter(|share| *share >= 0.0);
        Self {
            space_free: share(self.space_free).map(|share| share.min(100.0)),
            inodes_free: share(self.inodes_free).map(|share| share.min(100.0)),
            ..self
        }
    }
}

impl LogFigures {
    /// What of it can be: no more than a machine can write.
    #[must_use]
    pub fn checked(self) -> Self {
        Self {
            errors: self.errors.map(|count| count.min(RECORDS_MAX)),
            failed_logins: self.failed_logins.map(|count| count.min(RECORDS_MAX)),
            ..self
        }
    }
}

impl NetworkFigures {
    /// What of it can be: no probe waits for longer.
    #[must_use]
    pub fn checked(self) -> Self {
        Self {
            round_trip_us: self.round_trip_us.map(|time| time.min(ROUND_TRIP_MAX_US)),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_clamped_and_what_cannot_be_is_left_out() {
        let shares = [
            (Some(12.5), Some(12.5)),
            (Some(1e300), Some(100.0)),
            (Some(f64::INFINITY), Some(100.0)),
            (Some(-0.1), None),
            (Some(f64::NAN), None),
            (None, None),
        ];
        for (said, believed) in shares {
            let said = DiskFigures {
                age_ms: 7,
                space_free: said,
                inodes_free: said,
            };
            let expected = DiskFigures {
                age_ms: 7,
                space_free: believed,
                inodes_free: believed,
            };
            assert_eq!(said.checked(), expected);
        }
        let logs = LogFigures {
            errors: Some(u64::MAX),
            failed_logins: Some(3),
            ..LogFigures::default()
        };
        let checked = logs.checked();
        assert_eq!(
            (checked.errors, checked.failed_logins),
            (Some(RECORDS_MAX), Some(3))
        );
        let network = NetworkFigures {
            age_ms: 0,
            round_trip_us: Some(u64::MAX),
        };
        assert_eq!(network.checked().round_trip_us, Some(ROUND_TRIP_MAX_US));
    }

    #[test]
    fn a_part_without_figures_is_a_part_and_unknown_fields_are_left_out() {
        let read: LogFigures = serde_json::from_str(r#"{"age_ms":3,"mood":"\u001b[2J"}"#).unwrap();
        assert_eq!(
            read,
            LogFigures {
                age_ms: 3,
                ..LogFigures::default()
            }
        );
        assert_eq!(serde_json::to_string(&read).unwrap(), r#"{"age_ms":3}"#);
    }
}
