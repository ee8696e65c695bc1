//! The keys of a rule and those of an external source of data.

use super::words::{FORMATS, SOURCES};
use super::{Key, Shape, Table};
use crate::limits;
use crate::signal::Unit;

const ACTIONS: Shape = Shape::Many(&Shape::Action, limits::MOST_ACTIONS);
const DURATION: &[Unit] = &[Unit::Duration];

pub(crate) static RULE: Table = Table::new(
    "a rule",
    &[
        Key::new(
            "name",
            Shape::Text(limits::LONGEST_NAME),
            "unique in the persona",
        )
        .absent("`rule-N` or `trigger-N`, by place in the list"),
        Key::new(
            "when",
            Shape::Condition,
            "the rule fires while this is true",
        )
        .or(&["condition", "if"])
        .required(),
        Key::new("then", ACTIONS, "what is done: one action or a list")
            .or(&["action", "actions"])
            .required(),
        Key::new(
            "until",
            Shape::Condition,
            "the effect is undone when this is true",
        )
        .absent("the effect stays"),
        Key::new(
            "cooldown",
            Shape::Quantity(DURATION, "2m"),
            "least time between two changes of one resource by this rule, up to 30d",
        )
        .absent("1m"),
        Key::new(
            "priority",
            Shape::Text(16),
            "the higher wins where two rules want different things of one resource; -1000 to 1000",
        )
        .absent("0"),
        Key::new(
            "source",
            Shape::Choice(SOURCES),
            "readings from a less trusted source are unknown",
        )
        .absent("any source counts"),
    ],
);

pub(crate) static SOURCE: Table = Table::new(
    "an external source",
    &[
        Key::new("name", Shape::Label, "`external.NAME.FIELD` in rules")
            .absent("the host part of the URL"),
        Key::new("url", Shape::Url, "`http`, `https` or `file`")
            .or(&["uri"])
            .required(),
        Key::new(
            "frequency",
            Shape::Quantity(DURATION, "5m"),
            "how often it is asked, 10s to 30d",
        )
        .or(&["interval", "every"])
        .absent("5m"),
        Key::new("format", Shape::Choice(FORMATS), "the form of the answer")
            .absent("by its content type"),
        Key::new(
            "path",
            Shape::Text(limits::LONGEST_LINE),
            "where in JSON the value is, such as `data.items`",
        )
        .absent("the whole"),
        Key::new(
            "column",
            Shape::Text(limits::LONGEST_LINE),
            "the column of CSV that holds the values",
        )
        .absent("the first"),
        Key::new(
            "stale_after",
            Shape::Quantity(DURATION, "1h"),
            "a value that could not be renewed for so long is unknown",
        )
        .absent("12 times `frequency`"),
        Key::new("condition", Shape::Condition, "when `action` is done")
            .or(&["when"])
            .absent("whenever the data changes"),
        Key::new("action", ACTIONS, "what is done; makes a rule `feed-NAME`")
            .or(&["actions", "then"]),
    ],
);
