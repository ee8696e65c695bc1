//! What limits a running machine beside vCPUs and memory: its knobs, and what each is set to. Which actions turn them is
//! in `ast`; how a hypervisor turns them is not here.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ast::Limit;
use crate::model::BaseConfiguration;
use crate::quantity::Quantity;
use crate::signal::Unit;

/// Something of a running machine that has one value and is not used up: two domains never share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Knob {
    /// Weight against other domains where there is not enough CPU for all; 1000 is what a domain without a persona has.
    CpuWeight,
    /// CPU time of the whole machine at most, in millionths of one host CPU.
    CpuCap,
    /// Bits a second at most in each direction, over all interfaces.
    NetworkBandwidth,
    /// Requests a second at most, over all disks.
    DiskIops,
    /// Bytes a second at most, over all disks.
    DiskBandwidth,
}

/// What a knob is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnobValue {
    /// Nothing limits the machine.
    Unlimited,
    /// This, in the knob's own unit.
    At(u64),
}

/// Millionths of one CPU in a percent of it.
const CAP_IN_A_PERCENT: f64 = 1e4;

impl Knob {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::CpuWeight,
        Self::CpuCap,
        Self::NetworkBandwidth,
        Self::DiskIops,
        Self::DiskBandwidth,
    ];

    /// What the base configuration sets it to; `None` where the document is silent.
    pub fn base(self, base: &BaseConfiguration) -> Option<KnobValue> {
        let limit = match self {
            Self::CpuWeight => Limit::CpuWeight(base.cpu.as_ref()?.share),
            // The base configuration has no key for it.
            Self::CpuCap => return None,
            Self::NetworkBandwidth => Limit::NetworkBandwidth(base.network_bandwidth?),
            Self::DiskIops => Limit::DiskIops(base.disk?.iops?),
            Self::DiskBandwidth => Limit::DiskBandwidth(base.disk?.bandwidth?),
        };
        Some(limit.value())
    }

    /// A value of it, for people.
    pub fn text(self, value: KnobValue) -> String {
        let KnobValue::At(amount) = value else {
            return "no limit".to_owned();
        };
        // Display only; amounts are far below what an f64 holds exactly.
        #[allow(clippy::cast_precision_loss)]
        let amount = amount as f64;
        let (value, unit) = match self {
            Self::CpuWeight => (amount, Unit::Count),
            Self::CpuCap => (amount / CAP_IN_A_PERCENT, Unit::Percent),
            Self::NetworkBandwidth => (amount, Unit::BitsPerSecond),
            Self::DiskIops => (amount, Unit::PerSecond),
            Self::DiskBandwidth => (amount, Unit::BytesPerSecond),
        };
        Quantity { value, unit }.to_string()
    }
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CpuWeight => "CPU weight",
            Self::CpuCap => "CPU cap",
            Self::NetworkBandwidth => "network bandwidth",
            Self::DiskIops => "disk iops",
            Self::DiskBandwidth => "disk bandwidth",
        })
    }
}

impl Limit {
    /// The knob that it turns.
    pub const fn knob(self) -> Knob {
        match self {
            Self::NetworkBandwidth(_) => Knob::NetworkBandwidth,
            Self::DiskIops(_) => Knob::DiskIops,
            Self::DiskBandwidth(_) => Knob::DiskBandwidth,
            Self::CpuWeight(_) => Knob::CpuWeight,
            Self::CpuCap(_) => Knob::CpuCap,
        }
    }

    /// What it sets the knob to.
    pub fn value(self) -> KnobValue {
        let amount = match self {
            Self::NetworkBandwidth(amount)
            | Self::DiskIops(amount)
            | Self::DiskBandwidth(amount) => amount,
            Self::CpuWeight(weight) => f64::from(weight),
            Self::CpuCap(percent) => percent * CAP_IN_A_PERCENT,
        };
        // Amounts are validated to be finite and positive; the cast saturates.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        KnobValue::At(amount.round().max(1.0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_has_one_value_in_the_unit_of_its_knob_and_is_shown_as_it_was_written() {
        for (limit, amount, text) in [
            (Limit::CpuWeight(2000), 2000, "2000"),
            (Limit::CpuCap(250.0), 2_500_000, "250%"),
            (Limit::CpuCap(12.5), 125_000, "12.5%"),
            (Limit::NetworkBandwidth(1e8), 100_000_000, "100 Mbit/s"),
            (Limit::DiskIops(500.0), 500, "500/s"),
            (Limit::DiskBandwidth(1_048_576.0), 1_048_576, "1 MiB/s"),
        ] {
            assert_eq!(limit.value(), KnobValue::At(amount));
            assert_eq!(limit.knob().text(limit.value()), text);
        }
        assert_eq!(Knob::CpuCap.text(KnobValue::Unlimited), "no limit");
    }
}
