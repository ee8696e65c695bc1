//! The keys under `base_configuration`, and those of a package of `software_stack`.

use super::{Key, Shape, Table};
use crate::limits;
use crate::signal::Unit;

pub(crate) static BASE: Table = Table::new(
    "base_configuration",
    &[
        Key::new(
            "cpu",
            Shape::Spelt("initial", &CPU),
            "vCPUs; a single value is `initial`",
        )
        .or(&["vcpus", "cores"])
        .absent("vCPUs are not managed"),
        Key::new(
            "memory",
            Shape::Spelt("initial", &MEMORY),
            "memory of the guest; a single value is `initial`",
        )
        .or(&["ram"])
        .absent("memory is not managed"),
        Key::new(
            "network_bandwidth",
            Shape::Quantity(&[Unit::BitsPerSecond], "10 Gbit/s"),
            "at most so much in each direction, over all interfaces",
        )
        .or(&["network", "networking"])
        .absent("no limit"),
        Key::new("disk", Shape::Map(&DISK), "limits over all disks")
            .or(&["storage"])
            .absent("no limit"),
    ],
);

const VCPUS: Shape = Shape::Whole(1, limits::MOST_VCPUS);
const SHARE: Shape = Shape::Whole(1, limits::LARGEST_SHARE);
const SIZE: Shape = Shape::Quantity(&[Unit::Bytes], "4 GiB");

pub(crate) static CPU: Table = Table::new(
    "cpu",
    &[
        Key::new("min", VCPUS, "never fewer").absent("1, or `initial` or `max` where one is lower"),
        Key::new("initial", VCPUS, "how many an activation brings about")
            .absent("what there is stays"),
        Key::new("max", VCPUS, "never more").absent("only the domain and the host set a limit"),
        Key::new("reservation", VCPUS, "never taken away for another domain").absent("`min`"),
        Key::new(
            "share",
            SHARE,
            "weight against other domains where there is not enough for all",
        )
        .absent("1000"),
    ],
);

pub(crate) static MEMORY: Table = Table::new(
    "memory",
    &[
        Key::new("min", SIZE, "never less")
            .absent("256 MiB, or `initial` or `max` where one is lower"),
        Key::new("initial", SIZE, "how much an activation brings about")
            .absent("what there is stays"),
        Key::new("max", SIZE, "never more").absent("only the domain and the host set a limit"),
        Key::new("reservation", SIZE, "never taken away for another domain").absent("`min`"),
        Key::new(
            "share",
            SHARE,
            "weight against other domains where there is not enough for all",
        )
        .absent("1000"),
    ],
);

pub(crate) static DISK: Table = Table::new(
    "disk",
    &[
        Key::new(
            "iops",
            Shape::Quantity(&[Unit::Count, Unit::PerSecond], "20000"),
            "at most so many requests a second",
        )
        .absent("no limit"),
        Key::new(
            "bandwidth",
            Shape::Quantity(&[Unit::BytesPerSecond], "500 MiB/s"),
            "at most so many bytes a second",
        )
        .absent("no limit"),
    ],
);

pub(crate) static PACKAGE: Table = Table::new(
    "a package",
    &[
        Key::new(
            "name",
            Shape::Package,
            "as the guest's package manager has it",
        )
        .or(&["package"])
        .required(),
        Key::new("version", Shape::Version, "`latest`, `1.24`, or `>=1.22`")
            .absent("any; what is there stays"),
        Key::new(
            "purpose",
            Shape::Text(limits::LONGEST_LINE),
            "what it is for, in the owner's words",
        ),
    ],
);
