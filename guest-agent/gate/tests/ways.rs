//! Ways from a restricted name to its file that somebody else than root has a part of: what they lead to for the real gate.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod guest;

use std::{
    fs,
    io::Read as _,
    os::unix::fs::{chown, lchown, symlink},
    process::Stdio,
};

use guest::{Gate, Guest, OTHER, PERSON, SERVICE, wait};

/// Puts a link of the person's own into his directory, in the place of what is there.
fn point(guest: &Guest, target: &str) {
    let new = guest.path("srv/anna/.new");
    symlink(target, &new).unwrap();
    lchown(&new, Some(PERSON), None).unwrap();
    fs::rename(new, guest.path("srv/anna/tool")).unwrap();
}

#[test]
fn a_user_who_has_a_part_of_the_way_has_nothing_refused_but_what_lies_there_or_is_his_own() {
    let guest = Guest::new();
    fs::create_dir_all(guest.path("srv/anna")).unwrap();
    guest.program("srv/anna/tool");
    for own in ["srv/anna", "srv/anna/tool"] {
        chown(guest.path(own), Some(PERSON), None).unwrap();
    }
    symlink("../../srv/anna/tool", guest.path("usr/bin/tool")).unwrap();
    let _gate = guest.gate();
    let mut generation = 0;
    for strict in [false, true] {
        generation += 1;
        guest.hold_to(generation, &["nc", "tool"], strict);
        guest.held(Some(generation), 2);
        assert!(!guest.runs(OTHER, "usr/bin/tool"));
        let told = |barred: &str| {
            let why = format!(
                "what /usr/bin/tool leads to is not refused: user {PERSON} owns /srv/anna and could lead it to any file, and {barred} is not that user's"
            );
            wait(&why, || {
                let now = guest.standing().unwrap();
                now.files == 1 && now.absent.is_empty() && now.problems.contains(&why)
            });
        };
        for (target, barred) in [
            ("../../usr/bin/other", "/srv"),
            ("/usr/bin/other", "/usr"),
            // It is refused by its own name.
            ("../../usr/bin/nc", "/srv"),
        ] {
            point(&guest, target);
            told(barred);
            assert!(guest.runs(OTHER, "usr/bin/other"), "{target}");
            assert!(!guest.runs(OTHER, "usr/bin/nc"), "{target}");
        }
        assert!(!guest.runs(OTHER, "usr/bin/tool"), "it leads to nc now");
        // The same file under a name in his directory.
        fs::hard_link(guest.path("usr/bin/other"), guest.path("srv/anna/.new")).unwrap();
        fs::rename(guest.path("srv/anna/.new"), guest.path("srv/anna/tool")).unwrap();
        told("/srv/anna/tool");
        assert!(guest.runs(OTHER, "usr/bin/other"));
        // A file of his, whose name is another program's.
        guest.program("srv/anna/other");
        chown(guest.path("srv/anna/other"), Some(PERSON), None).unwrap();
        point(&guest, "other");
        wait("his own is refused", || {
            !guest.runs(OTHER, "srv/anna/other")
        });
        guest.held(Some(generation), 2);
        assert!(guest.runs(OTHER, "usr/bin/other"));
        // What root puts there itself.
        fs::remove_file(guest.path("srv/anna/tool")).unwrap();
        guest.held(Some(generation), 1);
        guest.program("srv/anna/.new");
        fs::rename(guest.path("srv/anna/.new"), guest.path("srv/anna/tool")).unwrap();
        wait("it is refused again", || !guest.runs(OTHER, "usr/bin/tool"));
        guest.held(Some(generation), 2);
    }
}

#[test]
fn a_link_that_a_user_has_and_cannot_turn_is_followed_as_roots_own() {
    let guest = Guest::new();
    // As a copy of a tree leaves it that keeps owners.
    symlink("other", guest.path("usr/bin/tool")).unwrap();
    lchown(guest.path("usr/bin/tool"), Some(PERSON), None).unwrap();
    let _gate = guest.gate();
    guest.restrict(1, &["tool"]);
    guest.held(Some(1), 1);
    assert!(!guest.runs(OTHER, "usr/bin/tool"));
    assert_eq!(guest.standing().unwrap().problems, [""; 0]);
}

#[test]
fn a_hard_link_that_somebody_makes_elsewhere_frees_no_file_that_was_refused_before() {
    let guest = Guest::new();
    guest.program("opt/tool");
    chown(guest.path("opt"), Some(SERVICE), None).unwrap();
    symlink("../../opt/tool", guest.path("usr/bin/tool")).unwrap();
    let _gate = guest.gate();
    guest.restrict(1, &["tool"]);
    guest.held(Some(1), 1);
    for (generation, link) in [(2, "home/hard"), (3, "opt/tool.dpkg-tmp")] {
        fs::hard_link(guest.path("opt/tool"), guest.path(link)).unwrap();
        guest.restrict(generation, &["tool"]);
        guest.held(Some(generation), 1);
        assert!(!guest.runs(PERSON, "usr/bin/tool"), "{link}");
        assert_eq!(guest.standing().unwrap().problems, [""; 0]);
    }
    // Under another name the same file is taken for what the owner of the directory put there.
    fs::rename(guest.path("opt/tool"), guest.path("opt/real")).unwrap();
    symlink("real", guest.path("opt/tool")).unwrap();
    lchown(guest.path("opt/tool"), Some(SERVICE), None).unwrap();
    wait("it is not refused", || {
        let now = guest.standing().unwrap();
        (now.files, now.problems.len()) == (0, 1)
    });
    assert!(guest.runs(PERSON, "usr/bin/tool"));
}

#[test]
fn a_user_who_turns_a_link_to_and_fro_has_each_problem_in_the_journal_once() {
    let guest = Guest::new();
    fs::create_dir_all(guest.path("srv/anna")).unwrap();
    chown(guest.path("srv/anna"), Some(PERSON), None).unwrap();
    point(&guest, "/usr/bin/other");
    symlink("../../srv/anna/tool", guest.path("usr/bin/tool")).unwrap();
    guest.restrict(1, &["tool"]);
    let child = guest.command().stderr(Stdio::piped()).spawn().unwrap();
    let mut gate = Gate(child);
    for (target, barred) in [("/usr/bin/other", "/usr"), ("/opt", "/opt")].repeat(5) {
        point(&guest, target);
        let told = format!("and {barred} is not that user's");
        wait(&told, || {
            guest.standing().is_some_and(|now| {
                let problem = now.problems.first();
                problem.is_some_and(|problem| problem.ends_with(&told))
            })
        });
    }
    // A problem is said before it is in the standing.
    gate.kill();
    let mut said = String::new();
    let stderr = gate.0.stderr.as_mut().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    for barred in ["/usr", "/opt"] {
        let told = format!("and {barred} is not that user's");
        // Once, or once more for every minute that passed here; it was told five times.
        let times = said.matches(&told).count();
        assert!((1..5).contains(&times), "{times} times {told}: {said}");
    }
}
