//! `virt-persona-agent doctor` in a file tree: what is there is fine, what is missing is named with how to mend it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    process::{Command, Output},
};

use harness::Guest;

const PORT: &str = "org.virtpersona.agent.0";

fn doctor(guest: &Guest) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_virt-persona-agent"))
        .arg("doctor")
        .arg("--root")
        .arg(guest.path(""))
        .arg("--state")
        .arg(guest.path("state"))
        .arg("--config")
        .arg(guest.path("etc/virt-persona/agent.toml"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

/// A guest with systemd in which nothing is missing: the agent has its port.
fn well() -> Guest {
    let guest = Guest::new();
    guest.write("sys/class/virtio-ports/vport1p1/name", &format!("{PORT}\n"));
    guest.write("dev/vport1p1", "");
    fs::create_dir_all(guest.path("dev/virtio-ports")).unwrap();
    symlink("../vport1p1", guest.path("dev/virtio-ports").join(PORT)).unwrap();
    guest.write("proc/77/comm", "virt-persona-ag\n");
    fs::create_dir_all(guest.path("proc/77/fd")).unwrap();
    symlink("/dev/vport1p1", guest.path("proc/77/fd/5")).unwrap();
    guest.write("proc/pressure/memory", "");
    fs::create_dir_all(guest.path("run/systemd/system")).unwrap();
    guest.write("etc/systemd/system/virt-persona-agent.service", "");
    guest.write("etc/udev/rules.d/60-virt-persona-agent.rules", "");
    fs::create_dir_all(guest.path("state")).unwrap();
    let only_owner = fs::Permissions::from_mode(0o700);
    fs::set_permissions(guest.path("state"), only_owner).unwrap();
    guest
}

/// One thing is not as it must be; the only finding that is wrong names it, and the line behind it says how to mend it.
fn check(change: impl FnOnce(&Guest), wrong: &str, mend: &str) {
    let guest = well();
    change(&guest);
    let (output, text) = doctor(&guest);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let mut lines = text.lines();
    let found = lines.find_map(|line| line.strip_prefix("wrong  ")).unwrap();
    assert!(found.contains(wrong), "{wrong} in {text}");
    let next = lines.next().unwrap();
    assert!(
        next.starts_with("       ") && next.contains(mend),
        "{mend} in {text}"
    );
    assert!(lines.all(|line| !line.starts_with("wrong")), "{text}");
}

#[test]
fn where_nothing_is_wrong_all_is_said_to_be_fine() {
    let guest = well();
    let (output, text) = doctor(&guest);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for line in [
        format!("ok     the port {PORT} is /dev/vport1p1"),
        "ok     the agent runs, as process 77, and has the port".to_owned(),
        "ok     systemd starts the agent when its port is there".to_owned(),
    ] {
        assert!(text.lines().any(|said| said == line), "{line} in {text}");
    }
    assert!(!text.contains("note "), "{text}");
}

#[test]
fn what_is_wrong_with_the_port_is_named() {
    check(
        |guest| {
            guest.write(
                "sys/class/virtio-ports/vport1p1/name",
                "org.qemu.guest_agent.0\n",
            )
        },
        "no port named org.virtpersona.agent.0, only org.qemu.guest_agent.0",
        "virt-persona adopt",
    );
    check(
        |guest| fs::remove_file(guest.path("dev/vport1p1")).unwrap(),
        "/dev/vport1p1 is not",
        "devtmpfs",
    );
    check(
        |guest| fs::remove_file(guest.path("dev/virtio-ports").join(PORT)).unwrap(),
        "is missing, and the agent's unit is bound to it",
        "udevadm trigger",
    );
    check(
        |guest| guest.write("proc/77/comm", "other\n"),
        "process 77 (other) has the port",
        "end it",
    );
    check(
        |guest| fs::remove_dir_all(guest.path("proc/77")).unwrap(),
        "no agent runs",
        "systemctl start",
    );
}

#[test]
fn what_does_not_start_the_agent_is_named() {
    check(
        |guest| {
            fs::remove_file(guest.path("etc/udev/rules.d/60-virt-persona-agent.rules")).unwrap()
        },
        "no udev rule",
        "udevadm control --reload",
    );
    let unit = "etc/systemd/system/virt-persona-agent.service";
    check(
        |guest| fs::remove_file(guest.path(unit)).unwrap(),
        "no unit",
        "daemon-reload",
    );
    check(
        |guest| {
            fs::remove_file(guest.path(unit)).unwrap();
            symlink("/dev/null", guest.path(unit)).unwrap();
        },
        "is masked",
        "unmask",
    );
    let openrc = |guest: &Guest| {
        fs::remove_dir_all(guest.path("run/systemd")).unwrap();
        fs::create_dir_all(guest.path("etc/runlevels/default")).unwrap();
    };
    check(openrc, "OpenRC has no service", "/etc/init.d");
    let service = |guest: &Guest| {
        openrc(guest);
        guest.write("etc/init.d/virt-persona-agent", "");
    };
    check(service, "in no runlevel", "rc-update add");
    check(
        |guest| {
            fs::remove_dir_all(guest.path("run/systemd")).unwrap();
            guest.write("etc/inittab", "# ::respawn:/usr/sbin/virt-persona-agent\n");
        },
        "nothing is known here that starts the agent",
        "busybox/inittab",
    );
    for (path, text) in [
        (
            "etc/runlevels/default/virt-persona-agent",
            "OpenRC starts the agent",
        ),
        ("etc/inittab", "init starts the agent, by /etc/inittab"),
    ] {
        let guest = well();
        fs::remove_dir_all(guest.path("run/systemd")).unwrap();
        guest.write("etc/init.d/virt-persona-agent", "");
        guest.write(path, include_str!("../../busybox/inittab"));
        let (output, said) = doctor(&guest);
        assert!(output.status.success() && said.contains(text), "{said}");
    }
}

#[test]
fn what_is_wrong_with_state_and_policy_is_named() {
    check(
        |guest| {
            let all = fs::Permissions::from_mode(0o777);
            fs::set_permissions(guest.path("state"), all).unwrap();
        },
        "others than its owner may write",
        "chmod 700",
    );
    check(
        |guest| {
            fs::remove_dir_all(guest.path("state")).unwrap();
            guest.write("state", "");
        },
        "is no directory",
        "remove it",
    );
    check(
        |guest| {
            guest.write(
                "etc/virt-persona/agent.toml",
                "[allow]\nscript = \"\u{1b}[2J\"\n",
            )
        },
        "cannot understand",
        "mend the file",
    );
    for (allow, denied) in [
        ("scripts = false\nneed = false\n", "scripts, commands, need"),
        ("commands = [\"uptime\"]\nrules = false\n", "rules"),
        (
            "settings = false\nrules = false\ncommands = true\nmetrics = false\n",
            "settings, rules, metrics",
        ),
        ("commands = []\nmetrics = []\n", "commands"),
    ] {
        let guest = well();
        guest.write("etc/virt-persona/agent.toml", &format!("[allow]\n{allow}"));
        let (output, text) = doctor(&guest);
        let said = format!("note   the owner does not allow {denied}\n");
        assert!(output.status.success() && text.contains(&said), "{text}");
    }
}
