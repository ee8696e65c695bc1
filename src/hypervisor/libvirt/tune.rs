//! What limits a domain: read from its live definition, read from the kernel and the emulator, and set. What a knob comes
//! to in libvirt's numbers is in `limits`.

use std::ffi::{CStr, CString};
use std::path::Path;
use std::sync::OnceLock;

use persona::rule::{Knob, KnobValue};
use virt::domain::Domain;
use virt::error::Error;
use virt::sys;

use super::super::limits::{
    CpuLimits, DISK_GROUP, DiskLimits, InterfaceLimits, Limits, WeightScale, weight,
};
use super::super::tree::Element;
use super::ffi::{Value, disk_limits, set_disk, set_interface, set_scheduler};

/// Limits of a disk that one budget over all disks leaves no place for.
const OTHER_LIMITS: [&str; 10] = [
    "read_bytes_sec",
    "write_bytes_sec",
    "read_iops_sec",
    "write_iops_sec",
    "total_bytes_sec_max",
    "read_bytes_sec_max",
    "write_bytes_sec_max",
    "total_iops_sec_max",
    "read_iops_sec_max",
    "write_iops_sec_max",
];

/// Reads the limits of a definition; how the host counts weight is not in it.
///
/// # Errors
///
/// What cannot be read, as a sentence.
pub(super) fn read(domain: &Element, devices: &Element) -> Result<Limits, String> {
    let tune = |name: &str| domain.at(&["cputune", name]);
    Ok(Limits {
        cpu: CpuLimits {
            scale: WeightScale::default(),
            shares: tune("shares").map(number).transpose()?,
            quota: tune("global_quota").map(number).transpose()?,
            period: tune("global_period").map(number).transpose()?,
        },
        interfaces: devices
            .all("interface")
            .map(read_interface)
            .collect::<Result<_, _>>()?,
        disks: devices
            .all("disk")
            .filter(|disk| {
                disk.attribute("device")
                    .is_none_or(|device| device == "disk")
            })
            .map(read_disk)
            .collect::<Result<_, _>>()?,
    })
}

fn number<T: std::str::FromStr>(element: &Element) -> Result<T, String> {
    let text = element.text.trim();
    text.parse()
        .map_err(|_| format!("`{text}` of `{}` is not a number", element.name))
}

fn read_interface(device: &Element) -> Result<InterfaceLimits, String> {
    let average = |way: &str| {
        let element = device.at(&["bandwidth", way]);
        match element.and_then(|element| element.attribute("average")) {
            Some(text) => text
                .parse()
                .map_err(|_| format!("`{text}` of `{way}` is not a number")),
            None => Ok(0),
        }
    };
    let other = ["inbound", "outbound"].iter().any(|way| {
        device.at(&["bandwidth", way]).is_some_and(|element| {
            let more = ["peak", "burst", "floor"];
            more.iter().any(|name| {
                let text = element.attribute(name);
                text.is_some_and(|text| text != "0")
            })
        })
    });
    Ok(InterfaceLimits {
        device: device
            .child("target")
            .and_then(|target| target.attribute("dev"))
            .filter(|name| !name.is_empty())
            .map(Into::into),
        inbound: average("inbound")?,
        outbound: average("outbound")?,
        other,
    })
}

fn read_disk(device: &Element) -> Result<DiskLimits, String> {
    let tune = |name: &str| device.at(&["iotune", name]);
    let limit = |name: &str| tune(name).map_or(Ok(0), number);
    Ok(DiskLimits {
        target: device
            .child("target")
            .and_then(|target| target.attribute("dev"))
            .unwrap_or_default()
            .to_owned(),
        iops: limit("total_iops_sec")?,
        bytes: limit("total_bytes_sec")?,
        group: tune("group_name").map(|group| group.text.trim().to_owned()),
        other: OTHER_LIMITS.iter().any(|name| tune(name).is_some()),
    })
}

/// How this host's kernel counts weight. The unified hierarchy has this file in its root, where systemd and libvirt look
/// for it too; it does not change while the host runs.
pub(super) fn weight_scale() -> WeightScale {
    static SCALE: OnceLock<WeightScale> = OnceLock::new();
    *SCALE.get_or_init(|| {
        if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            WeightScale::Version2
        } else {
            WeightScale::Version1
        }
    })
}

/// Turns a knob of a running domain.
///
/// # Errors
///
/// The library's own; devices before the one that failed have the new value then.
pub(super) fn turn(
    domain: &Domain,
    limits: &Limits,
    knob: Knob,
    to: KnobValue,
) -> Result<(), Error> {
    match knob {
        Knob::CpuWeight => {
            let shares = limits.cpu.scale.shares(weight(to));
            set_scheduler(
                domain,
                &[(sys::VIR_DOMAIN_SCHEDULER_CPU_SHARES, Value::Large(shares))],
            )
        }
        Knob::CpuCap => {
            let quota = limits.cpu.quota_for(to);
            set_scheduler(
                domain,
                &[(sys::VIR_DOMAIN_SCHEDULER_GLOBAL_QUOTA, Value::Signed(quota))],
            )
        }
        Knob::NetworkBandwidth => {
            let each = Value::Small(u32::try_from(limits.each_interface(to)).unwrap_or(u32::MAX));
            for interface in &limits.interfaces {
                // Without a device the library refuses the empty name; whoever asks knows that from the description.
                let device = interface.device.as_deref().unwrap_or_default();
                set_interface(
                    domain,
                    device,
                    &[
                        (sys::VIR_DOMAIN_BANDWIDTH_IN_AVERAGE, each),
                        (sys::VIR_DOMAIN_BANDWIDTH_OUT_AVERAGE, each),
                    ],
                )?;
            }
            Ok(())
        }
        Knob::DiskIops | Knob::DiskBandwidth => {
            let amount = match to {
                KnobValue::Unlimited => 0,
                KnobValue::At(amount) => amount,
            };
            for disk in &limits.disks {
                turn_disk(domain, disk, knob, amount)?;
            }
            Ok(())
        }
    }
}

/// What is not named keeps its value, and a disk without any limit leaves its group.
fn turn_disk(domain: &Domain, disk: &DiskLimits, knob: Knob, amount: u64) -> Result<(), Error> {
    let mut after = disk.clone();
    after.set(knob, amount);
    let name: &CStr = match knob {
        Knob::DiskIops => sys::VIR_DOMAIN_BLOCK_IOTUNE_TOTAL_IOPS_SEC,
        _ => sys::VIR_DOMAIN_BLOCK_IOTUNE_TOTAL_BYTES_SEC,
    };
    let mut parameters = vec![(name, Value::Large(amount))];
    // The group's name is a constant without a NUL.
    let group = CString::new(DISK_GROUP).unwrap_or_default();
    if after.group.is_some() {
        parameters.push((sys::VIR_DOMAIN_BLOCK_IOTUNE_GROUP_NAME, Value::Text(&group)));
    }
    set_disk(domain, &disk.target, &parameters)
}

/// Puts what the kernel and the emulator themselves show in place of what the definition says. Without control groups
/// there is nothing of the CPU to be shown.
///
/// # Errors
///
/// The library's own.
pub(super) fn look(domain: &Domain, limits: &mut Limits) -> Result<(), Error> {
    if let Ok(scheduler) = domain.scheduler_parameters_flags(sys::VIR_DOMAIN_AFFECT_LIVE) {
        limits.cpu.shares = scheduler.cpu_shares.or(limits.cpu.shares);
        limits.cpu.quota = scheduler.global_bw.quota.or(limits.cpu.quota);
        limits.cpu.period = scheduler.global_bw.period.or(limits.cpu.period);
    }
    for disk in &mut limits.disks {
        [disk.iops, disk.bytes] = disk_limits(
            domain,
            &disk.target,
            [
                sys::VIR_DOMAIN_BLOCK_IOTUNE_TOTAL_IOPS_SEC,
                sys::VIR_DOMAIN_BLOCK_IOTUNE_TOTAL_BYTES_SEC,
            ],
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::limits::Reading;
    use super::super::super::tree::parse;
    use super::*;

    fn limits(tune: &str, devices: &str) -> Limits {
        let xml = format!("<domain>{tune}<devices>{devices}</devices></domain>");
        let domain = parse(&xml).unwrap();
        read(&domain, domain.child("devices").unwrap()).unwrap()
    }

    #[test]
    fn limits_of_a_definition_are_read_as_libvirt_prints_them() {
        let read = limits(
            "<cputune><shares>2048</shares><global_period>50000</global_period><global_quota>-1</global_quota></cputune>",
            "<disk type='file' device='disk'><target dev='vda' bus='virtio'/><iotune><total_bytes_sec>1048576</total_bytes_sec>
               <total_iops_sec>1000</total_iops_sec><group_name>virt-persona</group_name></iotune></disk>
             <disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>
             <interface type='network'><target dev='vnet0'/><bandwidth><inbound average='1000'/><outbound average='1000'/>
               </bandwidth></interface>",
        );
        assert_eq!(
            (read.cpu.shares, read.cpu.quota, read.cpu.period),
            (Some(2048), Some(-1), Some(50_000))
        );
        let at = |knob| match read.shown(knob) {
            Reading::Set { value, .. } => value,
            other => panic!("{other:?}"),
        };
        assert_eq!(at(Knob::CpuCap), KnobValue::Unlimited);
        assert_eq!(at(Knob::DiskIops), KnobValue::At(1000));
        assert_eq!(at(Knob::DiskBandwidth), KnobValue::At(1 << 20));
        assert_eq!(at(Knob::NetworkBandwidth), KnobValue::At(8_000_000));
        assert_eq!(read.disks.len(), 1);
    }

    #[test]
    fn limits_of_another_kind_are_noticed_and_so_is_user_mode() {
        let disk = |limit: &str| {
            limits(
                "",
                &format!("<disk><target dev='vda'/><iotune>{limit}</iotune></disk>"),
            )
            .shown(Knob::DiskIops)
        };
        assert_eq!(
            disk("<read_iops_sec>10</read_iops_sec>"),
            Reading::OwnLimits
        );
        assert_eq!(
            disk("<total_iops_sec>10</total_iops_sec><group_name>theirs</group_name>"),
            Reading::OwnLimits
        );
        let network = |interface: &str| limits("", interface).shown(Knob::NetworkBandwidth);
        let bound = "<target dev='vnet0'/><bandwidth><inbound average='10' peak='20'/><outbound average='10'/></bandwidth>";
        assert_eq!(
            network(&format!("<interface>{bound}</interface>")),
            Reading::OwnLimits
        );
        assert_eq!(network("<interface type='user'/>"), Reading::NoHostDevice);
        assert_eq!(network(""), Reading::NoDevice);
    }
}
