//! Programs that the guest's owner has closed to people while a persona restricts them (`fail_closed`), by the real agent in a
//! file tree of its own with a dpkg-statoverride that keeps what it is told.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
};

use agent_protocol::{
    ActivationReply, SettingOutcome,
    message::{OpStatus, ReplyBody},
};
use harness::{
    activate,
    closed::{
        ENTRIES, file, guest, hold, let_go, mode, restarted, restricting, settle, state, status,
        upgrade, wants, with_dpkg,
    },
    debian::program,
    fresh_id, needs_root, ok, recovered, script, settled, until, wait,
};

#[test]
fn restricted_programs_are_closed_to_others_and_all_is_as_before_in_the_end() {
    for dpkg in [false, true] {
        let guest = guest();
        if dpkg {
            with_dpkg(&guest);
        }
        let before = state(&guest);
        let (_agent, mut peer, _) = guest.greet();
        let applied = |path: &str| (path.to_owned(), SettingOutcome::Applied, String::new());
        let came = hold(&mut peer, 1, &["nc", "su", "none", "roots"]);
        assert_eq!(came[0], applied("/usr/bin/nc"));
        assert_eq!(came[2], applied("/usr/bin/su"));
        assert_eq!((came.len(), came[1].1), (3, SettingOutcome::Unchanged));
        assert_eq!(mode(&guest, "usr/bin/nc"), 0o750);
        assert_eq!(mode(&guest, "usr/bin/su"), 0o4750);
        assert_eq!(mode(&guest, "usr/bin/other"), 0o755);
        if dpkg {
            let entries = guest.read(ENTRIES).unwrap();
            for entry in [
                "root mail 2755 /usr/bin/mail",
                "root root 750 /usr/bin/nc",
                "root root 750 /bin/nc",
                "root root 4750 /usr/bin/su",
            ] {
                assert!(entries.lines().any(|line| line == entry), "{entries}");
            }
            assert!(!entries.contains("roots"), "{entries}");
        }
        let again = peer.ask(activate(restricting(1, &["nc", "su", "none", "roots"])));
        let told = ok::<ActivationReply>(again).settings.unwrap().lines;
        let told = told
            .iter()
            .find(|line| line.setting == "restricted_commands");
        let why = &told.unwrap().reason;
        assert!(
            why.ends_with("their files are closed to all but owner and group"),
            "{why}"
        );
        let shown = status(&guest);
        assert!(
            shown.contains("whatever becomes of the gate; files: 2\n"),
            "{shown}"
        );
        assert!(
            shown.contains("held: permissions of /usr/bin/nc: 0750 (before: 0755)\n"),
            "{shown}"
        );

        // The next persona restricts another.
        hold(&mut peer, 2, &["su", "other"]);
        assert_eq!(mode(&guest, "usr/bin/nc"), 0o755);
        assert_eq!(mode(&guest, "usr/bin/su"), 0o4750);
        assert_eq!(mode(&guest, "usr/bin/other"), 0o750);
        let came = let_go(&mut peer, 3);
        assert!(
            came.iter()
                .all(|(_, outcome, _)| *outcome == SettingOutcome::Restored),
            "{came:?}"
        );
        assert_eq!(state(&guest), before);
        assert!(!status(&guest).contains("fail_closed"));
    }
}

#[test]
fn without_the_owner_s_word_nothing_is_closed_and_he_may_change_his_mind() {
    let guest = guest();
    wants(&guest, "strict = true");
    let before = state(&guest);
    let (agent, mut peer, _) = guest.greet();
    assert_eq!(hold(&mut peer, 1, &["nc"]), []);
    assert_eq!(state(&guest), before);
    wants(&guest, "fail_closed = true");
    let (agent, peer) = restarted(&guest, agent);
    assert_eq!(mode(&guest, "usr/bin/nc"), 0o750);
    drop(peer);
    wants(&guest, "fail_closed = false");
    let (agent, _peer) = restarted(&guest, agent);
    assert_eq!(state(&guest), before);
    // Nor where people are held to nothing at all.
    guest.write(
        "etc/virt-persona/agent.toml",
        "[allow]\ngate = false\n[gate]\nfail_closed = true\n",
    );
    let (_agent, _peer) = restarted(&guest, agent);
    assert_eq!(state(&guest), before);
}

#[test]
fn what_somebody_has_changed_by_hand_stays_and_is_said() {
    let guest = guest();
    with_dpkg(&guest);
    let (agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, &["nc", "other"]);
    let open = fs::Permissions::from_mode(0o711);
    fs::set_permissions(guest.path("usr/bin/nc"), open).unwrap();
    let shown = status(&guest);
    assert!(
        shown.contains("fail_closed does not hold for /usr/bin/nc, which somebody has opened to others: mode 0711\n"),
        "{shown}"
    );
    let (_agent, mut peer) = restarted(&guest, agent);
    assert_eq!(mode(&guest, "usr/bin/nc"), 0o711);
    let came = hold(&mut peer, 2, &["nc", "other"]);
    assert_eq!(
        (came[0].0.as_str(), came[0].1),
        ("/usr/bin/nc", SettingOutcome::Kept)
    );
    assert_eq!(came[1].1, SettingOutcome::Unchanged);
    let came = let_go(&mut peer, 3);
    assert!(
        came.iter().any(|(path, outcome, why)| {
            path == "/usr/bin/nc"
                && *outcome == SettingOutcome::Kept
                && why.contains("changed in the guest")
        }),
        "{came:?}"
    );
    assert_eq!(mode(&guest, "usr/bin/nc"), 0o711);
    assert_eq!(mode(&guest, "usr/bin/other"), 0o755);
    assert!(!guest.read(ENTRIES).unwrap().contains("nc"));
}

#[test]
fn what_an_upgrade_brings_is_closed_as_well_and_keeps_its_own_mode_in_the_end() {
    let guest = guest();
    let (agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, &["nc", "later"]);
    for mode_of_package in [0o755, 0o775, 0o555] {
        upgrade(&guest, "usr/bin/nc", mode_of_package);
        let closed = mode_of_package & 0o770;
        wait("the new file is closed", || {
            mode(&guest, "usr/bin/nc") == closed
        });
    }
    // One that comes for the first time, and one that comes while there is no agent.
    upgrade(&guest, "usr/bin/later", 0o711);
    wait("it is closed", || mode(&guest, "usr/bin/later") == 0o710);
    agent.kill();
    upgrade(&guest, "usr/bin/later", 0o755);
    let (_agent, mut peer, _) = guest.greet();
    settle(&mut peer);
    assert_eq!(mode(&guest, "usr/bin/later"), 0o750);
    // One that is removed needs nothing.
    fs::remove_file(guest.path("usr/bin/later")).unwrap();
    assert!(status(&guest).contains("of the gate; files: 1\n"));
    assert_eq!(let_go(&mut peer, 2).len(), 1);
    assert!(!status(&guest).contains("/usr/bin/later"));
    assert_eq!(mode(&guest, "usr/bin/nc"), 0o555);
}

#[test]
fn a_file_that_dpkg_brings_closed_by_the_entry_is_opened_again_in_the_end() {
    let guest = guest();
    with_dpkg(&guest);
    let before = guest.read(ENTRIES);
    let (agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, &["nc"]);
    upgrade(&guest, "usr/bin/nc", 0o750);
    // Whether it was looked at in between or not.
    let (_agent, mut peer) = restarted(&guest, agent);
    upgrade(&guest, "usr/bin/nc", 0o750);
    let_go(&mut peer, 2);
    assert_eq!(mode(&guest, "usr/bin/nc"), 0o755);
    assert_eq!(guest.read(ENTRIES), before);
}

#[test]
fn a_link_that_is_turned_closes_one_program_and_opens_the_other() {
    let guest = guest();
    fs::create_dir_all(guest.path("etc/alternatives")).unwrap();
    symlink("/usr/bin/other", guest.path("etc/alternatives/tool")).unwrap();
    symlink("/etc/alternatives/tool", guest.path("usr/bin/tool")).unwrap();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, &["tool"]);
    assert_eq!(mode(&guest, "usr/bin/other"), 0o750);
    symlink("/usr/bin/nc", guest.path("etc/alternatives/.new")).unwrap();
    fs::rename(
        guest.path("etc/alternatives/.new"),
        guest.path("etc/alternatives/tool"),
    )
    .unwrap();
    wait("the other one is closed", || {
        (mode(&guest, "usr/bin/nc"), mode(&guest, "usr/bin/other")) == (0o750, 0o755)
    });
    let_go(&mut peer, 2);
    assert_eq!(mode(&guest, "usr/bin/nc"), 0o755);
}

#[test]
fn what_people_need_or_own_is_not_closed_and_that_is_said() {
    let guest = guest();
    file(&guest, "usr/bin/busybox", 0o755);
    symlink("busybox", guest.path("usr/bin/wget")).unwrap();
    fs::remove_file(guest.path("usr/bin/sh")).unwrap();
    symlink("busybox", guest.path("usr/bin/sh")).unwrap();
    needs_root();
    file(&guest, "usr/bin/annas", 0o755);
    chown(guest.path("usr/bin/annas"), Some(1000), None).unwrap();
    let before = state(&guest);
    let (_agent, mut peer, _) = guest.greet();
    let came = hold(&mut peer, 1, &["wget", "nc", "annas"]);
    assert_eq!(came.len(), 3, "{came:?}");
    for (path, outcome, why) in came {
        match path.as_str() {
            "/usr/bin/nc" => assert_eq!(outcome, SettingOutcome::Applied),
            "/usr/bin/busybox" => assert!(why.contains("a shell of this guest's users"), "{why}"),
            "/usr/bin/annas" => assert!(why.contains("it belongs to user 1000"), "{why}"),
            other => panic!("{other}"),
        }
    }
    assert_eq!(mode(&guest, "usr/bin/busybox"), 0o755);
    assert!(status(&guest).contains("cannot be had: fail_closed /usr/bin/busybox"));
    let_go(&mut peer, 2);
    assert_eq!(state(&guest), before);
}

#[test]
fn an_activation_that_fails_leaves_what_was_closed_before_and_nothing_else() {
    let guest = guest();
    with_dpkg(&guest);
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, &["nc"]);
    let before = state(&guest);
    let mut broken = restricting(2, &["other"]);
    broken.post = script("exit 1");
    assert_eq!(harness::code(peer.ask(activate(broken))), "post_failed");
    assert_eq!(state(&guest), before);
    // Nor is anything begun where the entry cannot be had.
    program(
        &guest,
        "usr/bin/dpkg-statoverride",
        "#!/bin/sh\necho no room >&2\nexit 1\n",
    );
    let failed = peer.ask(activate(restricting(3, &["nc", "other"])));
    let ReplyBody::Err(error) = failed else {
        panic!("it was taken")
    };
    assert!(error.message.contains("no room"), "{error}");
    assert_eq!(mode(&guest, "usr/bin/other"), 0o755);
    assert_eq!(mode(&guest, "usr/bin/nc"), 0o750);
}

/// Kills the agent at each point between two deeds while one set of programs is closed instead of another, until it passes all
/// of them. Whatever the point, the next start has the old or the new set, whole, and in the end all is as it was.
#[test]
fn a_kill_at_any_point_leaves_the_old_or_the_new_programs_closed() {
    let mut fates = [0, 0];
    for point in 1.. {
        let guest = guest();
        with_dpkg(&guest);
        let before = state(&guest);
        let (agent, mut peer, _) = guest.greet();
        hold(&mut peer, 1, &["nc"]);
        agent.kill();
        let mut agent = guest.start_with(&[("VIRT_PERSONA_AGENT_CRASH_AT", point.to_string())]);
        let request = fresh_id();
        let survived = guest.ask_doomed(&mut agent, &request, activate(restricting(2, &["other"])));
        agent.kill();

        let (_agent, mut peer, _) = guest.greet();
        recovered(&mut peer);
        let done = settled(&mut peer, &request);
        let is_new = matches!(
            done,
            OpStatus::Done {
                result: ReplyBody::Ok(_)
            }
        );
        let modes = ["nc", "other"].map(|name| mode(&guest, &format!("usr/bin/{name}")));
        let expected = if is_new {
            [0o755, 0o750]
        } else {
            [0o750, 0o755]
        };
        assert_eq!(modes, expected, "point {point}: {done:?}");
        let entries = guest.read(ENTRIES).unwrap();
        assert_eq!(
            entries.contains("750 /usr/bin/nc"),
            !is_new,
            "point {point}: {entries}"
        );
        assert_eq!(
            entries.contains("750 /usr/bin/other"),
            is_new,
            "point {point}: {entries}"
        );
        fates[usize::from(is_new)] += 1;
        let_go(&mut peer, 3);
        assert_eq!(state(&guest), before, "point {point}");
        if survived {
            break;
        }
    }
    assert!(
        fates[0] > 3 && fates[1] > 20,
        "the points did not cover the sequence (release builds have none): {fates:?}"
    );
}

/// The same while a file that came without the agent is closed at its next start.
#[test]
fn a_kill_at_any_point_of_closing_what_came_anew_is_made_good() {
    let mut points = 0;
    for point in 1.. {
        let guest = guest();
        let (agent, mut peer, _) = guest.greet();
        hold(&mut peer, 1, &["nc"]);
        agent.kill();
        upgrade(&guest, "usr/bin/nc", 0o775);
        let mut agent = guest.start_with(&[("VIRT_PERSONA_AGENT_CRASH_AT", point.to_string())]);
        let survived = until("the agent ends or closes it", || {
            if agent.child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            let is_closed = mode(&guest, "usr/bin/nc") == 0o770;
            (is_closed && !guest.path("state/journal.json").exists()).then_some(true)
        });
        agent.kill();
        let (_agent, mut peer, _) = guest.greet();
        recovered(&mut peer);
        settle(&mut peer);
        assert_eq!(mode(&guest, "usr/bin/nc"), 0o770, "point {point}");
        let_go(&mut peer, 2);
        assert_eq!(mode(&guest, "usr/bin/nc"), 0o775, "point {point}");
        if survived {
            break;
        }
        points = point;
    }
    assert!(
        points > 5,
        "the points did not cover it (release builds have none): {points}"
    );
}
