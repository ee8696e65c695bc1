//! `base_configuration`: vCPUs and memory, what must hold between their bounds, and limits of network and disks.

use std::fmt::Display;

use super::Reader;
use crate::document::Node;
use crate::language::{self, Table};
use crate::limits;
use crate::model::{BaseConfiguration, CpuBounds, DiskLimits, MemoryBounds};
use crate::problem::Kind;
use crate::units::Bytes;

/// Where a document does not say.
const DEFAULT_SHARE: u32 = 1000;
/// Where a document does not say and nothing else it says is lower.
const DEFAULT_MIN_VCPUS: u32 = 1;
/// Where a document does not say and nothing else it says is lower.
const DEFAULT_MIN_MEMORY: Bytes = Bytes::from_mib(256);

/// A bound with the value that gave it, for messages.
type Given<'n, T> = Option<(T, &'n Node)>;

/// The bounds as far as the document gives them.
struct Bounds<'n, T> {
    min: Given<'n, T>,
    initial: Given<'n, T>,
    max: Given<'n, T>,
    reservation: Given<'n, T>,
    share: u32,
}

impl Reader<'_> {
    pub(super) fn base(&mut self, node: &Node) -> Option<BaseConfiguration> {
        let fields = self.fields(node, &language::BASE)?;
        let whole = |reader: &mut Self, node: &Node, key: &str| {
            reader.whole(node, key, 1, limits::MOST_VCPUS, "4")
        };
        let cpu = fields
            .get("cpu")
            .and_then(|node| self.bounds(node, &language::CPU, whole));
        let cpu = cpu.map(|bounds| {
            let min = least(DEFAULT_MIN_VCPUS, &bounds);
            CpuBounds {
                min,
                initial: bounds.initial.map(|(value, _)| value),
                max: bounds.max.map(|(value, _)| value),
                reservation: bounds.reservation.map_or(min, |(value, _)| value),
                share: bounds.share,
            }
        });
        let memory = fields
            .get("memory")
            .and_then(|node| self.bounds(node, &language::MEMORY, Self::memory));
        let memory = memory.map(|bounds| {
            let min = least(DEFAULT_MIN_MEMORY, &bounds);
            MemoryBounds {
                min,
                initial: bounds.initial.map(|(value, _)| value),
                max: bounds.max.map(|(value, _)| value),
                reservation: bounds.reservation.map_or(min, |(value, _)| value),
                share: bounds.share,
            }
        });
        let network_bandwidth = fields
            .get("network_bandwidth")
            .and_then(|node| self.ranged(node, "network_bandwidth", &limits::NETWORK_BANDWIDTH));
        let disk = fields.get("disk").and_then(|node| self.disk(node));
        Some(BaseConfiguration {
            cpu,
            memory,
            network_bandwidth,
            disk,
        })
    }

    fn disk(&mut self, node: &Node) -> Option<DiskLimits> {
        let fields = self.fields(node, &language::DISK)?;
        let iops = fields
            .get("iops")
            .and_then(|node| self.ranged(node, "iops", &limits::DISK_IOPS));
        let bandwidth = fields
            .get("bandwidth")
            .and_then(|node| self.ranged(node, "bandwidth", &limits::DISK_BANDWIDTH));
        Some(DiskLimits { iops, bandwidth })
    }

    /// One resource.
    fn bounds<'n, T: Copy + Ord + Display>(
        &mut self,
        node: &'n Node,
        table: &'static Table,
        mut read: impl FnMut(&mut Self, &Node, &str) -> Option<T>,
    ) -> Option<Bounds<'n, T>> {
        let fields = self.fields(node, table)?;
        let mut bound = |key: &'static str| {
            let node = fields.get(key)?;
            read(self, node, fields.shown(key)).map(|value| (value, node))
        };
        let (min, initial, max) = (bound("min"), bound("initial"), bound("max"));
        let reservation = bound("reservation");
        let share = fields
            .get("share")
            .and_then(|node| self.whole(node, "share", 1, limits::LARGEST_SHARE, "1000"))
            .unwrap_or(DEFAULT_SHARE);
        self.ordered(("min", min), ("max", max));
        self.ordered(("min", min), ("initial", initial));
        self.ordered(("initial", initial), ("max", max));
        self.ordered(("reservation", reservation), ("max", max));
        Some(Bounds {
            min,
            initial,
            max,
            reservation,
            share,
        })
    }

    fn ordered<T: Ord + Display>(&mut self, low: (&str, Given<'_, T>), high: (&str, Given<'_, T>)) {
        let ((low_key, Some((low, at))), (high_key, Some((high, above)))) = (low, high) else {
            return;
        };
        if low > high {
            let message = format!("`{low_key}` ({low}) is above `{high_key}` ({high})");
            let (here, there) = (self.text.origin(&at.at), self.text.origin(&above.at));
            let elsewhere = (here.document != there.document)
                .then(|| format!("`{high_key}` is from {there}; change one of the two"));
            self.report(Kind::Contradiction, at, message, elsewhere);
        }
    }
}

/// `min` as given, else the default, lowered to whatever else the document gives.
fn least<T: Copy + Ord>(default: T, bounds: &Bounds<'_, T>) -> T {
    let others = [bounds.initial, bounds.max]
        .into_iter()
        .flatten()
        .map(|(value, _)| value);
    bounds
        .min
        .map_or_else(|| others.fold(default, T::min), |(value, _)| value)
}
