//! The tray where there is no desktop: its command line, and what it says without a session's bus. On a bus with a real watcher
//! it is run by the daemon's tests.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::{Command, Output};

fn tray(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_virt-persona-tray"))
        .args(arguments)
        .env_clear()
        // Neither in the environment nor where a session's bus is without it.
        .env("XDG_RUNTIME_DIR", "/nonexistent")
        .env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")
        .output()
        .unwrap()
}

#[test]
fn help_and_version_go_to_standard_output() {
    let help = tray(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(
        String::from_utf8(help.stdout)
            .unwrap()
            .contains("--root DIR")
    );
    let version = tray(&["--version"]);
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        concat!("virt-persona-tray ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn what_cannot_be_understood_and_a_session_without_a_bus_have_a_status_each() {
    let wrong = tray(&["--dance"]);
    assert_eq!(wrong.status.code(), Some(2));
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert!(
        said.contains("--dance") && said.contains("--help"),
        "{said}"
    );
    let alone = tray(&["--root", "/nonexistent"]);
    assert_eq!(alone.status.code(), Some(1));
    let said = String::from_utf8(alone.stderr).unwrap();
    assert!(said.contains("the desktop cannot be reached"), "{said}");
}
