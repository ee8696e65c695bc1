//! What people do with what they kept or can reach of the gate's own: a handle of a restricted program that was replaced since,
//! and the lock by which one knows that a gate runs.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod guest;

use std::{
    fs::{self, File, OpenOptions, Permissions},
    os::{
        fd::OwnedFd,
        unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown, symlink},
    },
    process::{Command, Stdio},
};

use nix::libc::O_PATH;

use guest::{Guest, PERSON, SERVICE, run, wait};

const LOCK: &str = "run/virt-persona-gate/lock";

/// A handle of a file, as somebody has it who asked for it while he could.
fn handle(guest: &Guest, path: &str) -> File {
    let handle = OpenOptions::new()
        .read(true)
        .custom_flags(O_PATH)
        .open(guest.path(path));
    handle.unwrap()
}

/// Whether a person can run the file of a handle, which is his standard input.
fn runs(handle: &File) -> bool {
    let mut command = Command::new("/proc/self/fd/0");
    command.stdin(Stdio::from(OwnedFd::from(handle.try_clone().unwrap())));
    run(PERSON, command)
}

/// Another file comes under a name, as a package manager brings it.
fn replace(guest: &Guest, path: &str) {
    guest.program("usr/bin/.unpacked");
    fs::rename(guest.path("usr/bin/.unpacked"), guest.path(path)).unwrap();
}

#[test]
fn a_handle_of_a_restricted_program_is_refused_also_when_another_file_has_replaced_it() {
    for strict in [false, true] {
        let guest = Guest::new();
        let _gate = guest.gate();
        let kept = handle(&guest, "usr/bin/nc");
        assert!(runs(&kept));
        guest.hold_to(1, &["nc", "tool"], strict);
        guest.held(Some(1), 1);
        assert!(!runs(&kept));
        let before = handle(&guest, "usr/bin/nc");
        replace(&guest, "usr/bin/nc");
        // Once the new one is refused the gate has looked.
        wait("the new one is refused", || {
            !guest.runs(PERSON, "usr/bin/nc")
        });
        assert!(!runs(&kept) && !runs(&before));
        // Nor is it when there is no such program any more.
        fs::remove_file(guest.path("usr/bin/nc")).unwrap();
        guest.held(Some(1), 0);
        assert!(!runs(&kept) && !runs(&before));

        // It holds as long as the command is restricted.
        guest.hold_to(2, &["nc"], strict);
        guest.held(Some(2), 0);
        assert!(!runs(&kept));
        guest.hold_to(3, &["other"], strict);
        guest.held(Some(3), 1);
        assert!(runs(&kept));
        guest.free();
        guest.held(None, 0);
        assert!(runs(&kept));
    }
}

#[test]
fn what_dpkg_keeps_until_the_package_is_unpacked_is_refused_and_an_alternative_that_is_turned_away_is_not()
 {
    let guest = Guest::new();
    guest.program("opt/one");
    guest.program("opt/two");
    symlink("../../opt/one", guest.path("usr/bin/tool")).unwrap();
    let _gate = guest.gate();
    guest.restrict(1, &["nc", "tool"]);
    guest.held(Some(1), 2);
    let aside = "usr/bin/nc.dpkg-tmp";
    fs::hard_link(guest.path("usr/bin/nc"), guest.path(aside)).unwrap();
    let kept = handle(&guest, aside);
    replace(&guest, "usr/bin/nc");
    wait("the new one is refused", || {
        !guest.runs(PERSON, "usr/bin/nc")
    });
    assert!(!guest.runs(PERSON, aside));
    fs::remove_file(guest.path(aside)).unwrap();
    assert!(!runs(&kept));

    let one = handle(&guest, "opt/one");
    symlink("../../opt/two", guest.path("usr/bin/.new")).unwrap();
    fs::rename(guest.path("usr/bin/.new"), guest.path("usr/bin/tool")).unwrap();
    wait("the other one is refused", || {
        !guest.runs(PERSON, "opt/two")
    });
    wait("the first one is free", || runs(&one));
    assert!(guest.runs(PERSON, "opt/one"));
    // One that was moved away is free, whatever a link says of the name by which dpkg would keep it.
    fs::rename(guest.path("opt/two"), guest.path("opt/moved")).unwrap();
    guest.held(Some(1), 1);
    symlink("moved", guest.path("opt/two.dpkg-tmp")).unwrap();
    guest.restrict(2, &["nc", "tool"]);
    guest.held(Some(2), 1);
    assert!(guest.runs(PERSON, "opt/moved"));
}

#[test]
fn what_somebody_else_led_a_name_to_is_refused_no_longer_than_it_lies_there() {
    let guest = Guest::new();
    guest.program("opt/tool");
    chown(guest.path("opt"), Some(SERVICE), None).unwrap();
    symlink("../../opt/tool", guest.path("usr/bin/tool")).unwrap();
    let _gate = guest.gate();
    guest.restrict(1, &["nc", "tool"]);
    guest.held(Some(1), 2);
    let kept = handle(&guest, "opt/tool");
    assert!(!runs(&kept));
    replace(&guest, "opt/tool");
    wait("the new one is refused", || !guest.runs(PERSON, "opt/tool"));
    assert!(runs(&kept));
}

#[test]
fn nobody_but_root_can_take_the_lock_and_keep_a_gate_from_beginning() {
    let guest = Guest::new();
    guest.restrict(1, &["nc"]);
    // As a gate of before left it.
    fs::create_dir_all(guest.path("run/virt-persona-gate")).unwrap();
    fs::write(guest.path(LOCK), "").unwrap();
    fs::set_permissions(guest.path(LOCK), Permissions::from_mode(0o644)).unwrap();
    let mut gate = guest.gate();
    guest.held(Some(1), 1);
    let locked = |user| {
        let mut command = Command::new("flock");
        command
            .args(["--nonblock", "--shared"])
            .arg(guest.path(LOCK))
            .arg("true");
        run(user, command)
    };
    assert!(!locked(0), "the gate has it");
    gate.kill();
    assert!(locked(0), "it is free");
    assert!(!locked(PERSON));
    let _gate = guest.gate();
    guest.held(Some(1), 1);
    assert!(!guest.runs(PERSON, "usr/bin/nc"));
}
