//! The figures of libvirt's bulk call in our units. Which are asked for is here too; the call itself is in `ffi`. Called by
//! the libvirt hypervisor.

use std::time::Duration;

use persona::units::Bytes;

use super::super::{BalloonStats, DiskCounters, DiskStats, DomainStats};
use super::ffi::{DiskFigure, DiskValue, Figures, Wanted};

/// What is asked for in the bulk call.
pub(super) const FIGURES: Wanted = Wanted {
    domain: &[
        "vcpu.current",
        "balloon.current",
        "balloon.available",
        "balloon.usable",
        "balloon.last-update",
        "balloon.major_fault",
        "balloon.swap_in",
        "balloon.rss",
        "block.count",
    ],
    disk: &[
        "rd.reqs", "rd.bytes", "rd.times", "wr.reqs", "wr.bytes", "wr.times",
    ],
};

/// Bulk figures in our units. libvirt counts memory in KiB, and what virtio-mem has plugged into the balloon's size.
pub(super) fn stats(figures: &Figures, virtio_mem: Option<Bytes>) -> DomainStats {
    let kib = |name| figures.get(name).map(Bytes::from_kib);
    DomainStats {
        vcpus_plugged: figures
            .get("vcpu.current")
            .and_then(|count| u32::try_from(count).ok()),
        balloon: BalloonStats {
            current: virtio_mem
                .and_then(|plugged| Some(kib("balloon.current")?.saturating_sub(plugged))),
            available: kib("balloon.available"),
            usable: kib("balloon.usable"),
            // Zero until the guest has answered for the first time.
            last_update: figures.get("balloon.last-update").filter(|at| *at > 0),
            major_faults: figures.get("balloon.major_fault"),
            swap_in: kib("balloon.swap_in"),
            rss: kib("balloon.rss"),
        },
        // Absent from hypervisors that have nothing to tell of disks.
        disks: figures.get("block.count").map(|_| disks(&figures.disks)),
    }
}

/// The disks, by their places. One without all of its counters counts as one without any.
fn disks(figures: &[DiskFigure]) -> Vec<DiskStats> {
    let mut disks = Vec::new();
    for figure in figures {
        let DiskValue::Target(target) = &figure.value else {
            continue;
        };
        let number = |wanted: &str| {
            figures.iter().find_map(|other| match other.value {
                DiskValue::Number(name, value) if name == wanted && other.place == figure.place => {
                    Some(value)
                }
                _ => None,
            })
        };
        let counters = || {
            Some(DiskCounters {
                reads: number("rd.reqs")?,
                writes: number("wr.reqs")?,
                read: Bytes(number("rd.bytes")?),
                written: Bytes(number("wr.bytes")?),
                read_time: Duration::from_nanos(number("rd.times")?),
                write_time: Duration::from_nanos(number("wr.times")?),
            })
        };
        disks.push(DiskStats {
            target: target.clone(),
            counters: counters(),
        });
    }
    disks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(place: u32, target: &str) -> DiskFigure {
        DiskFigure {
            place,
            value: DiskValue::Target(target.into()),
        }
    }

    fn counted(place: u32, values: [u64; 6]) -> impl Iterator<Item = DiskFigure> {
        let figures = FIGURES.disk.iter().zip(values);
        figures.map(move |(name, value)| DiskFigure {
            place,
            value: DiskValue::Number(name, value),
        })
    }

    #[test]
    fn a_disk_has_all_of_its_counters_or_none() {
        let mut figures = vec![named(0, "vda"), named(2, "vdb"), named(3, "vdc")];
        figures.extend(counted(0, [1, 512, 9_858_400, 2, 1_024, 77]));
        // One is missing, as if the list had been cut.
        figures.extend(counted(2, [1, 2, 3, 4, 5, 6]).take(5));
        // A disk without a name is none.
        figures.extend(counted(7, [1, 2, 3, 4, 5, 6]));
        let counters = DiskCounters {
            reads: 1,
            writes: 2,
            read: Bytes(512),
            written: Bytes(1_024),
            read_time: Duration::from_nanos(9_858_400),
            write_time: Duration::from_nanos(77),
        };
        let expected =
            [("vda", Some(counters)), ("vdb", None), ("vdc", None)].map(|(target, counters)| {
                DiskStats {
                    target: target.into(),
                    counters,
                }
            });
        assert_eq!(disks(&figures), expected);
    }
}
