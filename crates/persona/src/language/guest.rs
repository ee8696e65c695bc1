//! The keys of what the guest is to be like: scripts, settings, habits, secrets.

use super::words::{LOGGING, ON_FAILURE};
use super::{Key, Names, Others, Shape, Table};
use crate::limits;
use crate::signal::Unit;

const LINE: Shape = Shape::Text(limits::LONGEST_LINE);
const NAMES: Shape = Shape::Many(&LINE, limits::MOST_SETTINGS);

pub(crate) static SCRIPT: Table = Table::new(
    "a script",
    &[
        Key::new("text", Shape::Text(limits::LONGEST_SCRIPT), "the script").required(),
        Key::new(
            "interpreter",
            Shape::Path,
            "what runs it, as an absolute path",
        )
        .absent("the `#!` line with its one argument, else `/bin/sh`"),
        Key::new(
            "timeout",
            Shape::Quantity(&[Unit::Duration], "60s"),
            "1s to 1h; it is stopped then, and has failed",
        )
        .absent("60s"),
        Key::new("user", LINE, "the user of the guest as whom it runs").absent("`root`"),
        Key::new(
            "on_failure",
            Shape::Choice(ON_FAILURE),
            "`rollback`: the activation is undone; `keep`: it stays, and the failure is reported",
        )
        .absent("`rollback`"),
    ],
);

pub(crate) static SECRET: Table = Table::new(
    "a variable",
    &[Key::new(
        "secret",
        Shape::Text(limits::LONGEST_VARIABLE),
        "a value that is not shown",
    )
    .required()],
);

pub(crate) static OS: Table = Table {
    owner: "os_settings",
    keys: &[
        Key::new(
            "theme",
            LINE,
            "colour scheme of desktops, as the default of all users: `dark`, `light`, or a theme's name",
        ),
        Key::new(
            "editor",
            LINE,
            "the editor that programs start, by name or absolute path",
        ),
        Key::new(
            "terminal_shell",
            LINE,
            "the shell of terminals, by name or absolute path",
        )
        .or(&["shell"]),
        Key::new(
            "sysctl",
            Shape::Dictionary(Names::Exact, &LINE, limits::MOST_SETTINGS),
            "kernel parameters by name (sysctl(8))",
        ),
        Key::new(
            "services",
            Shape::Dictionary(Names::Exact, &Shape::Boolean, limits::MOST_SETTINGS),
            "systemd units by name, and whether each is to be enabled and running, or neither",
        ),
    ],
    others: Others::Kept,
};

pub(crate) static APPLICATION: Table = Table {
    owner: "application_settings",
    keys: &[
        Key::new(
            "ide_extensions",
            NAMES,
            "extensions of Visual Studio Code, by a name that is known or as `PUBLISHER.NAME`",
        ),
        Key::new(
            "browser_extensions",
            NAMES,
            "extensions of Firefox, Chromium and Chrome, by a name that is known or by the identifier that a browser has",
        ),
    ],
    others: Others::Kept,
};

pub(crate) static BEHAVIOUR: Table = Table {
    owner: "behavioral_settings",
    keys: &[
        Key::new(
            "auto_update_frequency",
            Shape::Frequency,
            "how often packages are updated",
        ),
        Key::new(
            "logging_level",
            Shape::Choice(LOGGING),
            "the least important messages that are logged",
        )
        .or(&["log_level"]),
        Key::new(
            "security_scan_frequency",
            Shape::Frequency,
            "how often the installed scanner runs",
        ),
    ],
    others: Others::Kept,
};
