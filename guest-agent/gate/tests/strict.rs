//! The real gate in strict mode, against files that come under a restricted name while somebody tries to run them: upgrades,
//! links that are turned, hard links. Nobody waits here until the gate has noticed; that is what is tested.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod guest;

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        process::CommandExt as _,
    },
    process::{Command, Stdio},
};

use guest::{Gate, Guest, PERSON, SERVICE, is_persons, run, wait};

/// A gate that holds these names strictly.
fn gate(guest: &Guest, restricted: &[&str], files: usize) -> Gate {
    let gate = guest.gate();
    guest.restrict_strictly(1, restricted);
    guest.held(Some(1), files);
    assert!(guest.standing().unwrap().directories >= 2);
    gate
}

/// Puts one new file after the other under a name, as a package manager does, while a person tries without a pause to run and to read
/// it, also while it is unpacked: how often that worked.
fn upgraded_and_tried(guest: &Guest, name: &str) -> usize {
    let place = guest.path("usr/bin").join(name);
    let unpacked = guest.path("usr/bin").join(format!("{name}.dpkg-new"));
    let tries = "exec 2>&-; n=0
        while [ $n -lt 80 ]; do
            for file in \"$1\" \"$1.dpkg-new\"; do
                \"$file\" && echo ran
                cat \"$file\" >/dev/null && echo read
            done
            n=$((n + 1))
        done
        echo done";
    let mut person = Command::new("/bin/sh");
    person.args(["-c", tries, "sh"]).arg(&place);
    person.uid(PERSON).gid(PERSON).current_dir("/");
    person.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut person = person.spawn().unwrap();
    let mut upgrades = 0;
    while person.try_wait().unwrap().is_none() {
        guest.program(&format!("usr/bin/{name}.dpkg-new"));
        fs::rename(&unpacked, &place).unwrap();
        upgrades += 1;
    }
    let said = String::from_utf8(person.wait_with_output().unwrap().stdout).unwrap();
    assert!(
        said.ends_with("done\n") && upgrades > 10,
        "{upgrades}: {said}"
    );
    said.lines().count() - 1
}

#[test]
fn what_is_renamed_over_a_restricted_name_is_refused_from_its_first_open_on() {
    let guest = Guest::new();
    let _gate = gate(&guest, &["nc"], 1);
    assert_eq!(upgraded_and_tried(&guest, "nc"), 0);
    // The same is seen to work where nothing is restricted.
    assert!(upgraded_and_tried(&guest, "other") > 0);
}

#[test]
fn a_link_that_is_turned_leads_to_a_file_that_is_refused_at_once() {
    let guest = Guest::new();
    fs::create_dir(guest.path("etc")).unwrap();
    guest.program("opt/tool-0");
    symlink("../opt/tool-0", guest.path("etc/alternative")).unwrap();
    symlink("../../etc/alternative", guest.path("usr/bin/tool")).unwrap();
    let _gate = gate(&guest, &["tool"], 1);
    for number in 1..50 {
        let file = format!("opt/tool-{number}");
        guest.program(&file);
        assert!(guest.runs(PERSON, &file), "it is no restricted command yet");
        symlink(format!("../{file}"), guest.path("etc/.new")).unwrap();
        fs::rename(guest.path("etc/.new"), guest.path("etc/alternative")).unwrap();
        assert!(!guest.runs(PERSON, "usr/bin/tool"), "{file}");
        assert!(!guest.runs(PERSON, &file), "{file}");
    }
}

#[test]
fn another_name_of_a_restricted_file_is_refused_before_the_restricted_one_is_there_again() {
    let guest = Guest::new();
    let twin = guest.path("usr/bin/twin");
    fs::hard_link(guest.path("usr/bin/nc"), &twin).unwrap();
    let _gate = gate(&guest, &["nc"], 1);
    for _ in 0..50 {
        guest.program("usr/bin/nc.dpkg-new");
        let unpacked = guest.path("usr/bin/twin.dpkg-new");
        fs::hard_link(guest.path("usr/bin/nc.dpkg-new"), &unpacked).unwrap();
        fs::rename(&unpacked, &twin).unwrap();
        assert!(!guest.runs(PERSON, "usr/bin/twin"));
        fs::rename(guest.path("usr/bin/nc.dpkg-new"), guest.path("usr/bin/nc")).unwrap();
        assert!(!guest.runs(PERSON, "usr/bin/nc"));
        assert!(!guest.runs(PERSON, "usr/bin/twin"));
    }
}

#[test]
fn who_may_run_it_still_does_and_nobody_is_kept_from_anything_else() {
    let guest = Guest::new();
    let _gate = gate(&guest, &["nc", "later"], 1);
    assert!(!guest.runs(PERSON, "usr/bin/nc"));
    for user in [0, SERVICE] {
        assert_eq!(guest.runs(user, "usr/bin/nc"), !is_persons(), "{user}");
    }
    for number in 0..20 {
        let file = format!("usr/bin/other-{number}");
        guest.program(&file);
        for user in [0, SERVICE, PERSON] {
            assert!(guest.runs(user, &file), "{user}");
        }
    }
    // Who installs a new one may have become root for that by `sudo`, or be root; what he unpacks is not refused to him.
    let unpacked = "usr/bin/nc.dpkg-new";
    guest.program(unpacked);
    assert!(guest.runs(0, unpacked) && !guest.runs(PERSON, unpacked));
    // It comes for the first time.
    guest.program("usr/bin/.new");
    fs::rename(
        guest.path("usr/bin/.new"),
        guest.path("usr/local/bin/later"),
    )
    .unwrap();
    assert!(!guest.runs(PERSON, "usr/local/bin/later"));

    guest.restrict(2, &["nc"]);
    guest.held(Some(2), 1);
    assert_eq!(guest.standing().unwrap().directories, 0);
    guest.program("usr/bin/nc.dpkg-new");
    assert!(guest.runs(PERSON, "usr/bin/nc.dpkg-new"));
    assert!(!guest.runs(PERSON, "usr/bin/nc"));
    guest.free();
    guest.held(None, 0);
    assert!(guest.runs(PERSON, "usr/bin/nc"));
}

#[test]
fn who_logged_in_and_became_root_installs_a_new_file_and_cannot_run_it() {
    let guest = Guest::new();
    let _gate = gate(&guest, &["nc"], 1);
    let program = format!(
        "echo {PERSON} >/proc/self/loginuid || exit 77
         set -e; cd {}
         cat /bin/true >nc.dpkg-new; chmod 755 nc.dpkg-new; mv nc.dpkg-new nc
         ! ./nc || exit 3
         ! cat nc >copy || exit 4",
        guest.path("usr/bin").display()
    );
    let status = Command::new("sh").args(["-c", &program]).status().unwrap();
    assert_ne!(
        status.code(),
        Some(77),
        "this test needs a kernel that knows of logins (CONFIG_AUDIT), and CAP_AUDIT_CONTROL where it was begun by one"
    );
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_name_cannot_be_hidden_behind_a_path_that_is_too_long_to_tell() {
    let guest = Guest::new();
    // In a name space of its own the directory gets another place, deeper than a path may be long.
    let hidden = || {
        let program = format!(
            "set -e; mount --make-rprivate /; cd {home}; part=$(printf '%0200d' 0); n=0
             while [ $n -lt 30 ]; do mkdir -p $part; cd -P $part; n=$((n + 1)); done
             mkdir -p here; mount --bind {bin} here; cd -P here
             exec setpriv --reuid={PERSON} --regid={PERSON} --clear-groups ./nc",
            home = guest.path("home").display(),
            bin = guest.path("usr/bin").display(),
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &program]);
        run(0, command)
    };
    let _gate = guest.gate();
    assert!(hidden(), "there is no such way");
    guest.restrict_strictly(2, &["nc"]);
    guest.held(Some(2), 1);
    for _ in 0..20 {
        guest.program("usr/bin/new");
        fs::rename(guest.path("usr/bin/new"), guest.path("usr/bin/nc")).unwrap();
        assert!(!hidden());
    }
}

#[test]
fn a_directory_that_anybody_may_write_to_is_told_of() {
    let guest = Guest::new();
    guest.program("opt/tool");
    fs::set_permissions(guest.path("opt"), fs::Permissions::from_mode(0o777)).unwrap();
    symlink("../../opt/tool", guest.path("usr/bin/tool")).unwrap();
    let _gate = gate(&guest, &["tool"], 1);
    wait("the directory is told of", || {
        let problems = guest.standing().unwrap().problems;
        problems.iter().any(|problem| {
            problem.starts_with("`strict` does not hold in")
                && problem.ends_with("/opt: others than the system may write there")
        })
    });
    assert!(!guest.runs(PERSON, "opt/tool"));
}
