//! The keys of what a machine is expected to need, allow, last and cost.

use super::words::SCALING;
use super::{Key, Shape, Table};
use crate::limits;
use crate::signal::Unit;

const LINE: Shape = Shape::Text(limits::LONGEST_LINE);
const LINES: Shape = Shape::Many(&LINE, limits::MOST_WORDS);
const ENDPOINTS: Shape = Shape::Many(&Shape::Endpoint, limits::MOST_ENDPOINTS);

const PEAK: &str = "at the highest";
const AVERAGE: &str = "on average; a single value is this";
const SUSTAINED: &str = "over long times";

pub(crate) static POINT: Table = Table::new(
    "a point of the profile",
    &[
        Key::new(
            "at",
            Shape::TimeOfDay,
            "from this time of day in the guest on, `HH:MM`",
        )
        .or(&["time", "from"])
        .required(),
        Key::new(
            "cpu",
            Shape::Spelt("average", &CPU_NEED),
            "vCPUs, also fractions of one",
        ),
        Key::new("memory", Shape::Spelt("average", &MEMORY_NEED), "memory"),
        Key::new(
            "iops",
            Shape::Spelt("average", &REQUEST_NEED),
            "requests a second to the disks",
        ),
        Key::new(
            "network",
            Shape::Spelt("average", &RATE_NEED),
            "traffic of the network",
        )
        .or(&["network_bandwidth"]),
    ],
);

const CPU: Shape = Shape::Number;
pub(crate) static CPU_NEED: Table = Table::new(
    "cpu",
    &[
        Key::new("peak", CPU, PEAK),
        Key::new("average", CPU, AVERAGE),
        Key::new("sustained", CPU, SUSTAINED),
    ],
);

const SIZE: Shape = Shape::Quantity(&[Unit::Bytes], "4 GiB");
pub(crate) static MEMORY_NEED: Table = Table::new(
    "memory",
    &[
        Key::new("peak", SIZE, PEAK),
        Key::new("average", SIZE, AVERAGE),
        Key::new("sustained", SIZE, SUSTAINED),
    ],
);

const REQUESTS: Shape = Shape::Quantity(&[Unit::Count, Unit::PerSecond], "5000");
pub(crate) static REQUEST_NEED: Table = Table::new(
    "iops",
    &[
        Key::new("peak", REQUESTS, PEAK),
        Key::new("average", REQUESTS, AVERAGE),
        Key::new("sustained", REQUESTS, SUSTAINED),
    ],
);

const RATE: Shape = Shape::Quantity(&[Unit::BitsPerSecond], "300 Mbit/s");
pub(crate) static RATE_NEED: Table = Table::new(
    "network",
    &[
        Key::new("peak", RATE, PEAK),
        Key::new("average", RATE, AVERAGE),
        Key::new("sustained", RATE, SUSTAINED),
    ],
);

pub(crate) static SECURITY: Table = Table::new(
    "security_profile",
    &[
        Key::new("access_levels", LINES, "roles that have access").or(&["required_access_levels"]),
        Key::new(
            "data_sensitivity",
            LINE,
            "classification of its data, in the owner's words",
        )
        .or(&["data_sensitivity_classification"]),
        Key::new(
            "compliance",
            LINES,
            "what it has to comply with, such as `PCI DSS`",
        )
        .or(&["compliance_requirements"]),
        Key::new(
            "ingress",
            ENDPOINTS,
            "what may come in: `tcp/443 from 0.0.0.0/0`",
        )
        .or(&[
            "network_ingress",
            "allowed_ingress",
            "allowed_network_ingress",
        ])
        .absent("nothing is said; an empty list is nothing at all"),
        Key::new(
            "egress",
            ENDPOINTS,
            "what may go out: `udp/53 to 10.0.0.0/8`",
        )
        .or(&["network_egress", "allowed_egress", "allowed_network_egress"])
        .absent("nothing is said; an empty list is nothing at all"),
    ],
);

pub(crate) static LIFECYCLE: Table = Table::new(
    "lifecycle_expectations",
    &[
        Key::new(
            "uptime",
            Shape::Quantity(&[Unit::Percent], "99.9%"),
            "percent of the time",
        )
        .or(&["predicted_uptime"]),
        Key::new(
            "duration",
            Shape::Quantity(&[Unit::Duration], "90d"),
            "how long it is needed",
        )
        .or(&["expected_duration", "expected_duration_of_operation"]),
        Key::new(
            "scaling",
            Shape::Choice(SCALING),
            "how it is expected to grow: `none`, `vertical` (vCPUs and memory), `horizontal` (more machines)",
        )
        .or(&["scaling_requirements"]),
    ],
);

pub(crate) static COST: Table = Table::new(
    "cost_tolerance",
    &[
        Key::new("max_hourly", Shape::Number, "at most an hour").or(&[
            "hourly",
            "max_hourly_cost",
            "maximum_hourly_cost",
            "maximum_acceptable_hourly_cost",
        ]),
        Key::new("max_monthly", Shape::Number, "at most a month").or(&[
            "monthly",
            "max_monthly_cost",
            "maximum_monthly_cost",
            "maximum_acceptable_monthly_cost",
        ]),
        Key::new(
            "currency",
            Shape::Text(8),
            "three letters, such as `EUR` (ISO 4217)",
        ),
    ],
);
