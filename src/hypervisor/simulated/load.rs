//! What a simulated guest has to do over time, as curves of a scenario. Pure: the time is the caller's, and the same time
//! gives the same value.

use std::time::Duration;

use serde::Deserialize;

/// What the programs of a guest want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// CPUs that they would keep busy, if there were so many. Without it the guest's CPU figures are not simulated.
    pub cpu: Option<Curve>,
    /// Memory in use, in MiB; it takes the place of `memory_used_mib`.
    pub memory: Option<Curve>,
}

/// A value over the time since the simulation began.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(tag = "curve", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Curve {
    /// Always the same.
    Constant {
        /// The value.
        value: f64,
    },
    /// Up and down evenly, beginning at the lowest.
    Sine {
        /// The lowest value.
        low: f64,
        /// The highest value.
        high: f64,
        /// From one lowest point to the next, in seconds.
        period_s: f64,
        /// So many seconds of the curve are over at the beginning.
        #[serde(default)]
        shift_s: f64,
    },
    /// Half of each period low, then high.
    Square {
        /// The low value.
        low: f64,
        /// The high value.
        high: f64,
        /// From one fall to the next, in seconds.
        period_s: f64,
        /// So many seconds of the curve are over at the beginning.
        #[serde(default)]
        shift_s: f64,
    },
    /// Another value each period, anywhere between two.
    Noise {
        /// The lowest value.
        low: f64,
        /// The highest value.
        high: f64,
        /// How long a value stays, in seconds.
        period_s: f64,
        /// The same seed gives the same values.
        seed: u64,
    },
}

impl Curve {
    /// The value at a time since the beginning.
    pub fn at(&self, time: Duration) -> f64 {
        let seconds = time.as_secs_f64();
        // A period of no length would divide by nothing.
        let periods = |shift: f64, period: f64| (seconds + shift) / period.max(0.001);
        match *self {
            Self::Constant { value } => value,
            Self::Sine {
                low,
                high,
                period_s,
                shift_s,
            } => {
                let turn = periods(shift_s, period_s) * std::f64::consts::TAU;
                low + (high - low) * (1.0 - turn.cos()) / 2.0
            }
            Self::Square {
                low,
                high,
                period_s,
                shift_s,
            } => {
                if periods(shift_s, period_s).fract() < 0.5 {
                    low
                } else {
                    high
                }
            }
            Self::Noise {
                low,
                high,
                period_s,
                seed,
            } => {
                // Periods are few and not negative.
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let number = periods(0.0, period_s).floor() as u64;
                low + (high - low) * share(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            }
        }
    }
}

/// A number from 0 to 1 that looks random: the mixing of splitmix64.
fn share(seed: u64) -> f64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    // 53 bits are what a float holds.
    #[allow(clippy::cast_precision_loss)]
    let share = (mixed >> 11) as f64 / (1_u64 << 53) as f64;
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(curve: &Curve, seconds: u64) -> f64 {
        curve.at(Duration::from_secs(seconds))
    }

    #[test]
    fn curves_begin_low_and_come_back_after_their_period() {
        let (low, high, period_s, shift_s) = (1.0, 3.0, 60.0, 0.0);
        let sine = Curve::Sine {
            low,
            high,
            period_s,
            shift_s,
        };
        assert!((at(&sine, 0) - 1.0).abs() < 1e-9);
        assert!((at(&sine, 15) - 2.0).abs() < 1e-9);
        assert!((at(&sine, 30) - 3.0).abs() < 1e-9);
        assert!((at(&sine, 60) - 1.0).abs() < 1e-9);
        let square = Curve::Square {
            low,
            high,
            period_s,
            shift_s,
        };
        let values = [0, 29, 30, 59, 60].map(|seconds| at(&square, seconds));
        assert_eq!(values, [1.0, 1.0, 3.0, 3.0, 1.0]);
        let shifted = Curve::Square {
            low,
            high,
            period_s,
            shift_s: 30.0,
        };
        assert_eq!((at(&shifted, 0), at(&shifted, 30)), (3.0, 1.0));
    }

    #[test]
    fn noise_stays_for_its_period_between_its_bounds_and_differs_by_seed() {
        let noise = |seed| Curve::Noise {
            low: 1.0,
            high: 2.0,
            period_s: 10.0,
            seed,
        };
        let values: Vec<f64> = (0..1000).map(|n| at(&noise(7), n * 10)).collect();
        assert!(values.iter().all(|value| (1.0..=2.0).contains(value)));
        let mean = values.iter().sum::<f64>() / 1000.0;
        assert!((1.45..1.55).contains(&mean), "{mean}");
        assert_eq!(at(&noise(7), 10), at(&noise(7), 19));
        assert_ne!(at(&noise(7), 10), at(&noise(8), 10));
    }
}
