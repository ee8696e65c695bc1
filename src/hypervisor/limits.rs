//! What limits a running domain beside vCPUs and memory: its weight and cap, its interfaces, its disks; what each knob
//! of a persona comes to in these, and back. Both hypervisors read and spread by it. Nothing is asked or changed here.

use persona::rule::{Knob, KnobValue};
use serde::{Deserialize, Serialize};

/// The persona's weight of a domain that has none: what the kernel gives whatever nobody gave a weight.
pub const USUAL_WEIGHT: u64 = 1000;

/// The group that the disks of a domain share one budget in. Groups are of one emulator, so the name is free for each.
pub const DISK_GROUP: &str = "virt-persona";

/// Bits in the unit of network bandwidth, kilobytes of a thousand bytes: what `tc` of the host shows of `average='1000'`
/// is 8 Mbit/s.
const NETWORK_UNIT: u64 = 8_000;

/// The period of the CPU cap, in microseconds, where the definition has none of its own (cgroups(7), and libvirt's own).
const USUAL_PERIOD: u64 = 100_000;

/// Millionths, in which a CPU cap is counted.
const MILLION: u64 = 1_000_000;

/// What limits a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Of the CPU.
    pub cpu: CpuLimits,
    /// Of each network interface.
    pub interfaces: Vec<InterfaceLimits>,
    /// Of each disk of which requests can be limited: CD-ROM and floppy drives are none.
    pub disks: Vec<DiskLimits>,
}

/// How the host's kernel counts weight: both kinds of control groups have a scale and a usual value of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightScale {
    /// `cpu.shares`: 2 to 262144, usually 1024.
    #[default]
    Version1,
    /// `cpu.weight`: 1 to 10000, usually 100.
    Version2,
}

impl WeightScale {
    const fn usual(self) -> u64 {
        match self {
            Self::Version1 => 1024,
            Self::Version2 => 100,
        }
    }

    const fn range(self) -> (u64, u64) {
        match self {
            Self::Version1 => (2, 262_144),
            Self::Version2 => (1, 10_000),
        }
    }

    /// The kernel's number for a weight of a persona. libvirt hands its `cpu_shares` to either kind as it is, so without
    /// this a persona's weight would mean ten times as much beside domains without one on the second kind.
    pub fn shares(self, weight: u64) -> u64 {
        let (least, most) = self.range();
        rounded(weight.saturating_mul(self.usual()), USUAL_WEIGHT).clamp(least, most)
    }

    /// The persona's weight for the kernel's number.
    fn weight(self, shares: u64) -> u64 {
        rounded(shares.saturating_mul(USUAL_WEIGHT), self.usual())
    }
}

/// Weight and cap of the CPU, as the scheduler's parameters have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuLimits {
    /// How the host counts weight.
    pub scale: WeightScale,
    /// The weight, in the host's own scale; absent where nobody has set it.
    pub shares: Option<u64>,
    /// Microseconds of CPU time in each period, for the whole domain; absent or not positive where there is no cap.
    pub quota: Option<i64>,
    /// The period, in microseconds.
    pub period: Option<u64>,
}

impl CpuLimits {
    fn usual_period(&self) -> u64 {
        self.period.unwrap_or(USUAL_PERIOD).max(1)
    }

    /// The quota for a cap; -1 where there shall be none. The kernel takes no quota below 1 ms.
    ///
    /// The cap is one for emulator and vCPUs together and not one a vCPU: it is meant for the machine, and must not grow
    /// with each vCPU that is plugged.
    pub fn quota_for(&self, cap: KnobValue) -> i64 {
        match cap {
            KnobValue::Unlimited => -1,
            KnobValue::At(millionths) => {
                let quota = rounded(millionths.saturating_mul(self.usual_period()), MILLION);
                i64::try_from(quota.max(1000)).unwrap_or(i64::MAX)
            }
        }
    }

    fn cap(&self) -> KnobValue {
        match self.quota.and_then(|quota| u64::try_from(quota).ok()) {
            None | Some(0) => KnobValue::Unlimited,
            Some(quota) => {
                KnobValue::At(rounded(quota.saturating_mul(MILLION), self.usual_period()))
            }
        }
    }
}

/// Limits of one network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceLimits {
    /// The host's device that carries its packets; absent where it has none, as in user mode.
    pub device: Option<String>,
    /// Kilobytes a second towards the guest; 0 where nothing limits it.
    pub inbound: u64,
    /// Kilobytes a second from the guest.
    pub outbound: u64,
    /// It has limits of another kind: peaks, bursts, floors.
    pub other: bool,
}

/// Limits of one disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLimits {
    /// The name that the definition gives it, such as `vda`.
    pub target: String,
    /// Requests a second; 0 where nothing limits it.
    pub iops: u64,
    /// Bytes a second.
    pub bytes: u64,
    /// The group whose budget it shares.
    pub group: Option<String>,
    /// It has limits of another kind: reads and writes apart, bursts.
    pub other: bool,
}

/// What a knob shows; the planner's own words for it are made from these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// One value over so many devices.
    Set {
        /// How many.
        devices: u32,
        /// The value over all of them.
        value: KnobValue,
    },
    /// These devices are not limited alike.
    Uneven {
        /// How many.
        devices: u32,
    },
    /// There is no such device.
    NoDevice,
    /// An interface has no device on the host.
    NoHostDevice,
    /// Devices have limits of another kind.
    OwnLimits,
}

impl Limits {
    /// What a knob shows.
    pub fn shown(&self, knob: Knob) -> Reading {
        let one = |value| Reading::Set { devices: 1, value };
        match knob {
            Knob::CpuWeight => one(KnobValue::At(
                self.cpu
                    .shares
                    .map_or(USUAL_WEIGHT, |shares| self.cpu.scale.weight(shares)),
            )),
            Knob::CpuCap => one(self.cpu.cap()),
            Knob::NetworkBandwidth => self.network(),
            Knob::DiskIops => self.disk(|disk| disk.iops),
            Knob::DiskBandwidth => self.disk(|disk| disk.bytes),
        }
    }

    /// What a knob would show if it were turned to `value`, in the granularity of the mechanism.
    pub fn would_show(&self, knob: Knob, value: KnobValue) -> Reading {
        let mut turned = self.clone();
        turned.set(knob, value);
        turned.shown(knob)
    }

    fn network(&self) -> Reading {
        let devices = count(self.interfaces.len());
        let Some(first) = self.interfaces.first() else {
            return Reading::NoDevice;
        };
        let mut interfaces = self.interfaces.iter();
        if interfaces
            .clone()
            .any(|interface| interface.device.is_none())
        {
            return Reading::NoHostDevice;
        }
        let apart = |interface: &InterfaceLimits| interface.inbound != interface.outbound;
        if interfaces
            .clone()
            .any(|interface| interface.other || apart(interface))
        {
            return Reading::OwnLimits;
        }
        if interfaces.any(|interface| interface.inbound != first.inbound) {
            return Reading::Uneven { devices };
        }
        let value = match first.inbound {
            0 => KnobValue::Unlimited,
            each => KnobValue::At(
                each.saturating_mul(NETWORK_UNIT)
                    .saturating_mul(devices.into()),
            ),
        };
        Reading::Set { devices, value }
    }

    fn disk(&self, figure: fn(&DiskLimits) -> u64) -> Reading {
        let devices = count(self.disks.len());
        let Some(first) = self.disks.first() else {
            return Reading::NoDevice;
        };
        let limited = |disk: &DiskLimits| disk.iops > 0 || disk.bytes > 0;
        // A group of somebody else's may be shared with disks that have another budget tomorrow.
        let foreign = |disk: &DiskLimits| {
            disk.other
                || disk
                    .group
                    .as_deref()
                    .is_some_and(|group| group != DISK_GROUP)
        };
        if self.disks.iter().any(foreign) {
            return Reading::OwnLimits;
        }
        let shared = |disk: &DiskLimits| !limited(disk) || disk.group.is_some();
        if self.disks.iter().any(|disk| figure(disk) != figure(first)) {
            return Reading::Uneven { devices };
        }
        if devices > 1 && !self.disks.iter().all(shared) {
            // Each has a budget of its own.
            return Reading::OwnLimits;
        }
        let value = match figure(first) {
            0 => KnobValue::Unlimited,
            amount => KnobValue::At(amount),
        };
        Reading::Set { devices, value }
    }

    /// Sets a knob as the hypervisors do.
    pub fn set(&mut self, knob: Knob, value: KnobValue) {
        let amount = match value {
            KnobValue::Unlimited => 0,
            KnobValue::At(amount) => amount,
        };
        match knob {
            Knob::CpuWeight => self.cpu.shares = Some(self.cpu.scale.shares(weight(value))),
            Knob::CpuCap => self.cpu.quota = Some(self.cpu.quota_for(value)),
            Knob::NetworkBandwidth => {
                let each = self.each_interface(value);
                for interface in &mut self.interfaces {
                    (interface.inbound, interface.outbound) = (each, each);
                }
            }
            Knob::DiskIops | Knob::DiskBandwidth => {
                for disk in &mut self.disks {
                    disk.set(knob, amount);
                }
            }
        }
    }

    /// What each interface gets of the network bandwidth, in kilobytes a second; 0 is no limit. Each direction of each
    /// interface has a limiter of its own in the kernel, and none is shared, so the bandwidth is split evenly.
    pub fn each_interface(&self, value: KnobValue) -> u64 {
        let KnobValue::At(bits) = value else { return 0 };
        let interfaces = u64::from(count(self.interfaces.len())).max(1);
        (bits / NETWORK_UNIT / interfaces).max(1)
    }
}

impl DiskLimits {
    /// Sets one of its limits; without any it leaves its group.
    pub fn set(&mut self, knob: Knob, amount: u64) {
        match knob {
            Knob::DiskIops => self.iops = amount,
            Knob::DiskBandwidth => self.bytes = amount,
            Knob::CpuWeight | Knob::CpuCap | Knob::NetworkBandwidth => {}
        }
        let limited = self.iops > 0 || self.bytes > 0;
        self.group = limited.then(|| DISK_GROUP.to_owned());
    }
}

/// A weight; there is no weight without a limit, so that is the usual one.
pub fn weight(value: KnobValue) -> u64 {
    match value {
        KnobValue::Unlimited => USUAL_WEIGHT,
        KnobValue::At(weight) => weight,
    }
}

fn rounded(amount: u64, divisor: u64) -> u64 {
    amount.saturating_add(divisor / 2) / divisor.max(1)
}

fn count(devices: usize) -> u32 {
    u32::try_from(devices).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(scale: WeightScale) -> Limits {
        Limits {
            cpu: CpuLimits {
                scale,
                ..CpuLimits::default()
            },
            ..Limits::default()
        }
    }

    fn disks(groups: &[(u64, Option<&str>)]) -> Limits {
        Limits {
            disks: groups
                .iter()
                .map(|(iops, group)| DiskLimits {
                    iops: *iops,
                    group: group.map(Into::into),
                    ..DiskLimits::default()
                })
                .collect(),
            ..Limits::default()
        }
    }

    fn network(averages: &[u64]) -> Limits {
        Limits {
            interfaces: averages
                .iter()
                .map(|average| InterfaceLimits {
                    device: Some("vnet0".into()),
                    inbound: *average,
                    outbound: *average,
                    other: false,
                })
                .collect(),
            ..Limits::default()
        }
    }

    const fn at(amount: u64) -> KnobValue {
        KnobValue::At(amount)
    }

    #[test]
    fn the_usual_weight_is_the_kernels_own_on_both_kinds_of_control_groups() {
        for (scale, usual, double) in [
            (WeightScale::Version1, 1024, 2048),
            (WeightScale::Version2, 100, 200),
        ] {
            let mut limits = cpu(scale);
            let usually = Reading::Set {
                devices: 1,
                value: at(USUAL_WEIGHT),
            };
            assert_eq!(limits.shown(Knob::CpuWeight), usually);
            assert_eq!(limits.would_show(Knob::CpuWeight, at(1000)), usually);
            limits.set(Knob::CpuWeight, at(1000));
            assert_eq!(limits.cpu.shares, Some(usual));
            limits.set(Knob::CpuWeight, at(2000));
            assert_eq!(limits.cpu.shares, Some(double));
            limits.set(Knob::CpuWeight, at(1));
            assert!(
                limits
                    .cpu
                    .shares
                    .is_some_and(|shares| shares >= scale.range().0)
            );
        }
    }

    #[test]
    fn a_cap_is_time_of_the_whole_domain_in_the_period_of_its_definition() {
        let mut limits = cpu(WeightScale::Version1);
        limits.set(Knob::CpuCap, at(2_500_000));
        assert_eq!(limits.cpu.quota, Some(250_000));
        limits.cpu.period = Some(50_000);
        limits.set(Knob::CpuCap, at(2_500_000));
        assert_eq!(limits.cpu.quota, Some(125_000));
        assert_eq!(
            limits.shown(Knob::CpuCap),
            Reading::Set {
                devices: 1,
                value: at(2_500_000)
            }
        );
        limits.set(Knob::CpuCap, KnobValue::Unlimited);
        assert_eq!(limits.cpu.quota, Some(-1));
        assert_eq!(limits.cpu.cap(), KnobValue::Unlimited);
    }

    #[test]
    fn bandwidth_is_split_over_the_interfaces_and_shown_as_one() {
        let mut limits = network(&[0, 0]);
        limits.set(Knob::NetworkBandwidth, at(100_000_000));
        assert_eq!(limits.interfaces[1].outbound, 6250);
        let all = Reading::Set {
            devices: 2,
            value: at(100_000_000),
        };
        assert_eq!(limits.shown(Knob::NetworkBandwidth), all);
        limits.interfaces.push(network(&[0]).interfaces.remove(0));
        assert_eq!(
            limits.shown(Knob::NetworkBandwidth),
            Reading::Uneven { devices: 3 }
        );
        limits.interfaces[2].device = None;
        assert_eq!(limits.shown(Knob::NetworkBandwidth), Reading::NoHostDevice);
        assert_eq!(
            network(&[]).shown(Knob::NetworkBandwidth),
            Reading::NoDevice
        );
    }

    #[test]
    fn disks_share_one_budget_in_a_group_and_what_others_have_set_up_is_left_alone() {
        let mut limits = disks(&[(0, None), (0, None)]);
        limits.set(Knob::DiskIops, at(500));
        limits.set(Knob::DiskBandwidth, at(1 << 20));
        limits.set(Knob::DiskIops, KnobValue::Unlimited);
        assert_eq!(limits.disks[1].group.as_deref(), Some(DISK_GROUP));
        limits.set(Knob::DiskBandwidth, KnobValue::Unlimited);
        assert_eq!(limits, disks(&[(0, None), (0, None)]));
        let shown = |groups| disks(groups).shown(Knob::DiskIops);
        assert_eq!(
            shown(&[(500, None)]),
            Reading::Set {
                devices: 1,
                value: at(500)
            }
        );
        assert_eq!(shown(&[(500, None), (500, None)]), Reading::OwnLimits);
        assert_eq!(shown(&[(500, Some("theirs"))]), Reading::OwnLimits);
        assert_eq!(
            shown(&[(500, Some(DISK_GROUP)), (0, None)]),
            Reading::Uneven { devices: 2 }
        );
        assert_eq!(shown(&[]), Reading::NoDevice);
    }
}
