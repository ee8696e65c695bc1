//! What a restricted name leads to while programs are closed (`fail_closed`), by the real agent: files with several names, files
//! that are moved away and back, links of directories, and ways that somebody else could turn.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, lchown, symlink},
};

use agent_protocol::SettingOutcome;
use harness::{
    Guest,
    closed::{
        ENTRIES, file, guest, hold, let_go, mode, restarted, settle, state, status, upgrade,
        with_dpkg,
    },
    wait,
};

const NC: &str = "usr/bin/nc";
const NC2: &str = "usr/bin/nc2";

fn turn(guest: &Guest, link: &str, target: &str) {
    let new = guest.path(&format!("{link}.new"));
    symlink(target, &new).unwrap();
    fs::rename(&new, guest.path(link)).unwrap();
}

#[test]
fn a_program_with_two_names_is_closed_as_long_as_one_of_them_is_restricted() {
    for dpkg in [false, true] {
        let guest = guest();
        fs::hard_link(guest.path(NC), guest.path(NC2)).unwrap();
        if dpkg {
            with_dpkg(&guest);
        }
        let before = state(&guest);
        let (agent, mut peer, _) = guest.greet();
        let sets: [&[&str]; 7] = [
            &["nc", "nc2"],
            &["nc"],
            &["nc2"],
            &["nc", "nc2"],
            &["nc2"],
            &["nc"],
            &["other", "nc2"],
        ];
        let mut generation = 0;
        for set in sets {
            generation += 1;
            let came = hold(&mut peer, generation, set);
            assert_eq!(mode(&guest, NC), 0o750, "{set:?}");
            let files = set.iter().filter(|name| **name == "other").count() + 1;
            let shown = status(&guest);
            assert!(
                shown.contains(&format!("of the gate; files: {files}\n")),
                "{set:?}: {came:?}: {shown}"
            );
            let entries = guest.read(ENTRIES).unwrap_or_default();
            for name in ["nc", "nc2"] {
                assert_eq!(
                    entries.contains(&format!(" 750 /usr/bin/{name}\n")),
                    dpkg && set.contains(&name),
                    "{set:?}: {entries}"
                );
            }
        }
        // It is the same after a restart, and where one name is gone.
        let (_agent, mut peer) = restarted(&guest, agent);
        assert_eq!(mode(&guest, NC), 0o750);
        hold(&mut peer, generation + 1, &["nc", "nc2"]);
        let_go(&mut peer, generation + 2);
        assert_eq!(state(&guest), before);
    }
}

#[test]
fn a_closed_program_that_is_moved_away_and_back_is_opened_in_the_end() {
    for dpkg in [false, true] {
        let guest = guest();
        if dpkg {
            with_dpkg(&guest);
        }
        let before = state(&guest);
        let (agent, mut peer, _) = guest.greet();
        hold(&mut peer, 1, &["nc", "later"]);
        fs::rename(guest.path(NC), guest.path("opt-nc")).unwrap();
        // What comes after it is closed when that has been seen.
        upgrade(&guest, "usr/bin/later", 0o755);
        wait("the other one is closed", || {
            mode(&guest, "usr/bin/later") == 0o750
        });
        settle(&mut peer);
        assert_eq!(mode(&guest, "opt-nc"), 0o750);
        let entries = guest.read(ENTRIES).unwrap_or_default();
        assert_eq!(entries.contains("750 /usr/bin/nc\n"), dpkg, "{entries}");
        // Also over a restart and another activation.
        let (_agent, mut peer) = restarted(&guest, agent);
        hold(&mut peer, 2, &["nc"]);
        fs::remove_file(guest.path("usr/bin/later")).unwrap();
        fs::rename(guest.path("opt-nc"), guest.path(NC)).unwrap();
        settle(&mut peer);
        assert_eq!(mode(&guest, NC), 0o750);
        let came = let_go(&mut peer, 3);
        assert_eq!(came[0].1, SettingOutcome::Restored, "{came:?}");
        assert_eq!(state(&guest), before);
        // Where dpkg keeps the entry, what it brings anew is closed by that.
        hold(&mut peer, 4, &["nc"]);
        fs::remove_file(guest.path(NC)).unwrap();
        hold(&mut peer, 5, &["nc", "other"]);
        upgrade(&guest, NC, if dpkg { 0o750 } else { 0o755 });
        hold(&mut peer, 6, &["nc"]);
        assert_eq!(mode(&guest, NC), 0o750);
        let_go(&mut peer, 7);
        assert_eq!(state(&guest), before);
        // Whatever is away when nobody restricts it any more is forgotten.
        hold(&mut peer, 8, &["nc"]);
        fs::rename(guest.path(NC), guest.path("opt-nc")).unwrap();
        let_go(&mut peer, 9);
        assert!(!status(&guest).contains("/usr/bin/nc"));
        fs::set_permissions(guest.path("opt-nc"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(guest.path("opt-nc"), guest.path(NC)).unwrap();
        assert_eq!(state(&guest), before);
    }
}

#[test]
fn a_link_of_a_directory_that_is_turned_closes_one_program_and_opens_the_other() {
    let guest = guest();
    for version in ["1", "2"] {
        file(&guest, &format!("opt/tool-{version}/bin/tool"), 0o755);
    }
    let modes = || ["1", "2"].map(|version| mode(&guest, &format!("opt/tool-{version}/bin/tool")));
    symlink("tool-1", guest.path("opt/tool")).unwrap();
    symlink("/opt/tool/bin/tool", guest.path("usr/bin/tool")).unwrap();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, &["tool"]);
    assert_eq!(modes(), [0o750, 0o755]);
    turn(&guest, "opt/tool", "tool-2");
    wait("the other one is closed", || modes() == [0o755, 0o750]);
    // Directories that come later, and one that another takes the place of.
    turn(&guest, "opt/tool", "/srv/tool");
    wait("none is closed", || modes() == [0o755, 0o755]);
    file(&guest, "srv.new/tool/bin/tool", 0o755);
    fs::rename(guest.path("srv.new"), guest.path("srv")).unwrap();
    let path = "srv/tool/bin/tool";
    wait("it is closed", || mode(&guest, path) == 0o750);
    file(&guest, "srv.new/tool/bin/tool", 0o711);
    fs::rename(guest.path("srv"), guest.path("srv.old")).unwrap();
    fs::rename(guest.path("srv.new"), guest.path("srv")).unwrap();
    wait("the new one is closed", || mode(&guest, path) == 0o710);
    let_go(&mut peer, 2);
    assert_eq!((mode(&guest, path), modes()), (0o711, [0o755, 0o755]));
}

#[test]
fn a_program_that_gets_its_permissions_last_is_closed_then() {
    let guest = guest();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, &["later", "after"]);
    for unfinished in [0o600, 0o644] {
        file(&guest, "usr/bin/later", unfinished);
        // What comes after it is closed when it has been looked at.
        upgrade(&guest, "usr/bin/after", 0o755);
        wait("the one after it is closed", || {
            mode(&guest, "usr/bin/after") == 0o750
        });
        settle(&mut peer);
        assert_eq!(mode(&guest, "usr/bin/later"), unfinished);
        let done = fs::Permissions::from_mode(0o755);
        fs::set_permissions(guest.path("usr/bin/later"), done).unwrap();
        wait("it is closed", || mode(&guest, "usr/bin/later") == 0o750);
        settle(&mut peer);
        // Its number is not to be given to the next one.
        let away = guest.path(&format!("away-{unfinished}"));
        fs::rename(guest.path("usr/bin/later"), away).unwrap();
    }
    let_go(&mut peer, 2);
    assert_eq!(mode(&guest, "usr/bin/after"), 0o755);
}

#[test]
fn nothing_is_closed_to_which_somebody_else_could_lead_a_name() {
    let guest = guest();
    symlink("../../home/tool", guest.path("usr/bin/tool")).unwrap();
    fs::create_dir(guest.path("home")).unwrap();
    symlink("../usr/bin/other", guest.path("home/tool")).unwrap();
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(guest.path("home"), open).unwrap();
    file(&guest, "usr/bin/words", 0o644);
    let before = state(&guest);
    let (_agent, mut peer, _) = guest.greet();
    let came = hold(&mut peer, 1, &["tool", "words", "nc"]);
    let said: Vec<_> = came
        .iter()
        .map(|(path, outcome, why)| (path.as_str(), *outcome, why.as_str()))
        .collect();
    assert_eq!(
        said,
        [
            ("/usr/bin/nc", SettingOutcome::Applied, ""),
            (
                "/usr/bin/tool",
                SettingOutcome::Refused,
                "anybody may write to the directory /home, on the way to it, and could lead it to any file"
            ),
            (
                "/usr/bin/words",
                SettingOutcome::Refused,
                "it is no program: nobody may execute it"
            ),
        ]
    );
    assert_eq!(mode(&guest, "usr/bin/other"), 0o755);
    assert!(status(&guest).contains("cannot be had: fail_closed /usr/bin/tool"));
    // What was closed is opened again when its way has become somebody else's.
    let mut generation = 1;
    let closed = fs::Permissions::from_mode(0o755);
    fs::set_permissions(guest.path("home"), closed).unwrap();
    let mut again = |peer: &mut _, expected: u32| {
        generation += 1;
        let came = hold(peer, generation, &["tool", "words", "nc"]);
        assert_eq!(mode(&guest, "usr/bin/other"), expected, "{came:?}");
        came
    };
    again(&mut peer, 0o750);
    // An agent of somebody else could not give a directory away.
    if nix::unistd::geteuid().is_root() {
        chown(guest.path("home"), Some(1000), None).unwrap();
        let came = again(&mut peer, 0o755);
        assert!(
            came.iter().any(|(path, _, why)| {
                path == "/usr/bin/tool" && why.starts_with("user 1000 owns the directory /home,")
            }),
            "{came:?}"
        );
        // Nor a link to what is root's, unless that user cannot put another in its place.
        chown(guest.path("home"), Some(0), None).unwrap();
        lchown(guest.path("home/tool"), Some(1000), None).unwrap();
        again(&mut peer, 0o750);
        let group = fs::Permissions::from_mode(0o775);
        fs::set_permissions(guest.path("home"), group).unwrap();
        let came = again(&mut peer, 0o755);
        assert!(
            came.iter().any(|(path, _, why)| {
                path == "/usr/bin/tool" && why.starts_with("user 1000 owns /home/tool,")
            }),
            "{came:?}"
        );
    }
    let_go(&mut peer, generation + 1);
    assert_eq!(state(&guest), before);
}
