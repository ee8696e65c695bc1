//! What goes through a domain's network interfaces, by the counters of the host's devices that carry them. All devices
//! of the host are in one file, which is read once a tick for all domains: a file for each counter would cost nine times
//! as much, and eight descriptors an interface. Called by `domain`. Format: proc(5), `/proc/net/dev`.
//!
//! A tap is the other end of the guest's cable, so what the guest sends is what the host receives on it. A macvtap
//! device is the guest's own end.

use std::ops::Range;
use std::path::Path;

use persona::signal::Metric;
use persona::units::Moment;

use super::descriptor::Buffer;
use super::host::Kept;
use super::parse::{self, FormatError};
use super::rate::Counters;
use super::reading::{Figure, Missing, Readings, Stamp};
use crate::hypervisor::Interface;

/// Counters of one direction, since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of frames.
    pub bytes: u64,
    /// Frames.
    pub packets: u64,
    /// Frames that were broken.
    pub errors: u64,
    /// Frames for which there was no room.
    pub drops: u64,
}

/// One line of `/proc/net/dev`: what the host received on the device, and what it sent.
pub fn parse_device(line: &[u8]) -> Result<(Traffic, Traffic), FormatError> {
    let colon = line.iter().position(|byte| *byte == b':');
    let colon = colon.ok_or(FormatError::MissingField("name"))?;
    // The last number may have been cut short where the line was.
    if !line.ends_with(b"\n") {
        return Err(FormatError::MissingField("end of line"));
    }
    let mut fields = parse::fields(&line[colon + 1..]);
    let mut traffic = |skip: usize| {
        let mut next = |name| parse::parse_count(fields.next().unwrap_or_default(), name);
        let traffic = Traffic {
            bytes: next("bytes")?,
            packets: next("packets")?,
            errors: next("errs")?,
            drops: next("drop")?,
        };
        for _ in 0..skip {
            next("fifo to multicast")?;
        }
        Ok(traffic)
    };
    Ok((traffic(4)?, traffic(0)?))
}

/// `/proc/net/dev` as it was at the last tick, and where in it each line is.
#[derive(Debug)]
pub(super) struct DeviceTable {
    file: Kept,
    text: Buffer,
    lines: Vec<Range<usize>>,
    read: Option<Moment>,
    outcome: Result<(), Missing>,
}

impl DeviceTable {
    pub(super) fn new() -> Self {
        Self {
            file: Kept::new("net/dev", Figure::NetworkDevices),
            text: Buffer::default(),
            lines: Vec::new(),
            read: None,
            outcome: Err(Missing::NotMeasured),
        }
    }

    /// Reads the table, once a tick.
    fn refresh(&mut self, proc: &Path, now: Moment) -> Result<(), Missing> {
        if self.read.replace(now) == Some(now) {
            return self.outcome;
        }
        self.lines.clear();
        let text = self
            .file
            .descriptor(proc, now)
            .and_then(|file| file.read_pieces(&mut self.text));
        self.outcome = text.map(|text| {
            let mut start = 0;
            for line in text.split_inclusive(|byte| *byte == b'\n') {
                self.lines.push(start..start + line.len());
                start += line.len();
            }
        });
        self.outcome
    }

    /// The line of a device. `place` is where it was at the last tick, and is where it is from then on.
    fn find(&self, device: &str, place: &mut usize) -> Option<&[u8]> {
        let line = |range: &Range<usize>| {
            let line = self.text.get(range.clone())?;
            let name = line.trim_ascii_start().strip_prefix(device.as_bytes())?;
            name.starts_with(b":").then_some(line)
        };
        if let Some(line) = self.lines.get(*place).and_then(line) {
            return Some(line);
        }
        *place = self.lines.iter().position(|range| line(range).is_some())?;
        self.lines.get(*place).and_then(line)
    }
}

/// Which end of the guest's cable a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The guest's: its counters are those of the guest.
    Guest,
    /// The host's: what it receives is what the guest sends.
    Host,
}

/// One device and its last counters.
#[derive(Debug)]
struct Device {
    name: String,
    side: Side,
    place: usize,
    counters: Counters<8>,
}

/// The metrics, in the order of the counters of a [`Device`].
const METRICS: [Metric; 8] = [
    Metric::NetworkRxBandwidth,
    Metric::NetworkRxPackets,
    Metric::NetworkRxErrors,
    Metric::NetworkRxDrops,
    Metric::NetworkTxBandwidth,
    Metric::NetworkTxPackets,
    Metric::NetworkTxErrors,
    Metric::NetworkTxDrops,
];

impl Device {
    /// Rates of this device since the last tick, in the order of [`METRICS`]; bandwidth in bits.
    fn advance(&mut self, table: &DeviceTable, now: Moment) -> Result<[f64; 8], Missing> {
        let line = table.find(&self.name, &mut self.place);
        let counted = line.ok_or(Missing::NoTap).and_then(|line| {
            parse_device(line).map_err(|problem| Missing::Malformed {
                figure: Figure::NetworkDevices,
                problem,
            })
        });
        let (received, sent) = counted.inspect_err(|_| self.counters.forget())?;
        let (rx, tx) = match self.side {
            Side::Guest => (received, sent),
            Side::Host => (sent, received),
        };
        let mut rates = self.counters.advance(
            now,
            [
                rx.bytes, rx.packets, rx.errors, rx.drops, tx.bytes, tx.packets, tx.errors,
                tx.drops,
            ],
        )?;
        rates[0] *= 8.0;
        rates[4] *= 8.0;
        Ok(rates)
    }
}

/// The interfaces of one domain.
#[derive(Debug, Default)]
pub(super) struct Network {
    /// As the definition has them.
    interfaces: Vec<Interface>,
    devices: Vec<Device>,
}

impl Network {
    /// Takes over the interfaces of the definition. `class` is the folder with one of each network device. Those that
    /// are known keep their counters.
    pub(super) fn follow(&mut self, interfaces: &[Interface], class: &Path) {
        if self.interfaces == interfaces {
            return;
        }
        let mut known = std::mem::take(&mut self.devices);
        let names = interfaces.iter().filter_map(|one| one.device.as_deref());
        self.devices = names
            .map(|name| {
                let place = known.iter().position(|device| device.name == name);
                place.map_or_else(
                    || Device::new(name, class),
                    |place| known.swap_remove(place),
                )
            })
            .collect();
        self.interfaces = interfaces.to_vec();
    }

    /// Puts the rates over all interfaces into the sample.
    pub(super) fn sample(
        &mut self,
        table: &mut DeviceTable,
        proc: &Path,
        stamp: Stamp,
        readings: &mut Readings,
    ) {
        let rates = self.rates(table, proc, stamp.at);
        for (index, metric) in METRICS.into_iter().enumerate() {
            readings.set(metric, rates.map(|rates| stamp.host(rates[index])));
        }
    }

    fn rates(
        &mut self,
        table: &mut DeviceTable,
        proc: &Path,
        now: Moment,
    ) -> Result<[f64; 8], Missing> {
        if self.interfaces.is_empty() {
            return Err(Missing::NoInterface);
        }
        // The sum over some of the interfaces would be taken for that over all.
        if self.devices.len() < self.interfaces.len() {
            return Err(Missing::NoTap);
        }
        table.refresh(proc, now)?;
        let mut sum = None::<[f64; 8]>;
        let mut problem = None;
        for device in &mut self.devices {
            match device.advance(table, now) {
                Ok(rates) => {
                    let sum = sum.get_or_insert([0.0; 8]);
                    for (sum, rate) in sum.iter_mut().zip(rates) {
                        *sum += rate;
                    }
                }
                // An interface that was added counts from the next sample on.
                Err(Missing::FirstSample) => {}
                Err(reason) => problem = Some(reason),
            }
        }
        match problem {
            Some(reason) => Err(reason),
            None => sum.ok_or(Missing::FirstSample),
        }
    }
}

impl Device {
    fn new(name: &str, class: &Path) -> Self {
        let folder = class.join(name);
        // Every tap has this file, and no device of another kind. Where sysfs shows no devices, most are taps.
        let is_tap = folder.join("tun_flags").exists() || !folder.exists();
        Self {
            name: name.to_owned(),
            side: if is_tap { Side::Host } else { Side::Guest },
            place: 0,
            counters: Counters::new(Figure::NetworkDevices),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::type_complexity, reason = "tables of cases")]
    use super::*;

    #[test]
    fn a_line_is_what_was_received_and_what_was_sent() {
        let table = include_str!("../../tests/fixtures/procfs/net-dev");
        let of = |name: &str| {
            let start = |line: &&str| line.trim_start().starts_with(&format!("{name}:"));
            let line = table.split_inclusive('\n').find(start).unwrap_or_default();
            parse_device(line.as_bytes())
        };
        let vnet0 = (
            Traffic {
                bytes: 1_296,
                packets: 16,
                errors: 0,
                drops: 2,
            },
            Traffic {
                bytes: 4_830,
                packets: 61,
                errors: 0,
                drops: 0,
            },
        );
        assert_eq!(of("vnet0"), Ok(vnet0));
        // A number as wide as its column stands at the colon.
        let huge = of("vnet10").map(|(received, sent)| (received.bytes, sent.bytes));
        assert_eq!(huge, Ok((18_446_744_073_709_551_615, 123_456_789_012)));
    }

    #[test]
    fn a_line_that_is_not_whole_is_refused() {
        let cases: [(&[u8], FormatError); 6] = [
            (
                b" face |bytes    packets\n",
                FormatError::MissingField("name"),
            ),
            (b"vnet0: 1 2 3\n", FormatError::MissingField("drop")),
            (
                b"vnet0: 1 2 3 4 5 6 7 8 9 10\n",
                FormatError::MissingField("errs"),
            ),
            (
                b"vnet0: 1 2 3 4 5 6 7 8 9 10 11 12",
                FormatError::MissingField("end of line"),
            ),
            (
                b"vnet0: 1 -2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
                FormatError::NotANumber("packets"),
            ),
            (b"", FormatError::MissingField("name")),
        ];
        for (line, expected) in cases {
            let shown = line.escape_ascii().to_string();
            assert_eq!(parse_device(line), Err(expected), "{shown}");
        }
    }
}
