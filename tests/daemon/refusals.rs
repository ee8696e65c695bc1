//! What the daemon does where it cannot do what it shall: bad configurations, a store or a name that somebody else has,
//! a bus that goes, a store that is damaged. Each ends with a sentence that a person can act on.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::program::{Site, ended};

const SCENARIO: &str = "[[domain]]\nname = 'web'\nmemory_mib = 512\n";

/// What the daemon says that must not start.
#[track_caller]
fn fails(command: &mut Command, words: &[&str]) {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = ended(&mut child);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(status.code(), Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "it does not say `{word}`: {said}");
    }
}

#[test]
fn a_configuration_is_checked_with_file_key_and_range() {
    let site = Site::new(SCENARIO);
    let valid = site
        .personad(&site.path("config.toml"))
        .arg("--check-config")
        .output()
        .unwrap();
    assert!(valid.status.success());
    assert!(String::from_utf8_lossy(&valid.stdout).contains("config.toml is valid"));
    for (text, words) in [
        (
            "[tick]\ninterval_ms = 5\n",
            ["bad.toml", "tick.interval_ms", "100 to 60000"],
        ),
        (
            "[tick]\nintervall_ms = 500\n",
            ["bad.toml", "intervall_ms", "line 2"],
        ),
        (
            "[vcpu]\nremoval = 'never'\n",
            ["bad.toml", "never", "offline"],
        ),
        ("[memory\n", ["bad.toml", "line 1", "]"]),
    ] {
        let bad = site.write("bad.toml", text);
        fails(site.personad(&bad).arg("--check-config"), &words);
        fails(&mut site.personad(&bad), &words);
    }
    fails(
        &mut site.personad(&site.path("absent.toml")),
        &["absent.toml", "No such file"],
    );
}

#[test]
fn a_reload_with_a_bad_file_keeps_the_old_and_says_so_until_it_is_mended() {
    let site = Site::new(SCENARIO);
    let daemon = site.start();
    let problems = || site.doctor().to_string();
    site.configure("[audit]\nrecords = 1\n");
    daemon.signal(Signal::SIGHUP);
    site.wait("the problem is said", || {
        problems().contains("audit.records")
    });
    assert!(problems().contains("stays as it was"));
    site.configure("[audit]\nrecords = 1000\n");
    daemon.signal(Signal::SIGHUP);
    site.wait("all is well", || !problems().contains("audit.records"));
    let audit = site.json(&["audit"]).to_string();
    assert!(audit.contains("read again because of a signal"), "{audit}");
}

#[test]
fn a_second_daemon_on_the_same_store_ends_with_a_clear_sentence() {
    let site = Site::new(SCENARIO);
    let _daemon = site.start();
    fails(
        &mut site.personad(&site.path("config.toml")),
        &[site.path("state").to_str().unwrap(), "another"],
    );
    site.done(&["domains"]);
}

#[test]
fn a_daemon_whose_name_is_taken_ends_with_a_clear_sentence_and_the_first_goes_on() {
    let site = Site::new(SCENARIO);
    let _daemon = site.start();
    let folder = site.folder.path().display();
    let other = site.write(
        "other.toml",
        &format!("[paths]\nstate = '{folder}/other'\nrun = '{folder}/run2'\n"),
    );
    fails(&mut site.personad(&other), &["org.virtpersona1"]);
    site.done(&["domains"]);
}

#[test]
fn a_daemon_without_a_bus_does_not_start_and_one_whose_bus_goes_ends_with_an_error() {
    let mut site = Site::new(SCENARIO);
    let mut daemon = site.start();
    site.end_bus();
    let status = ended(&mut daemon.child);
    assert_eq!(status.code(), Some(1));
    let log = std::fs::read_to_string(site.path("log")).unwrap();
    assert!(log.contains("bus"), "{log}");
    fails(&mut site.personad(&site.path("config.toml")), &["bus"]);
}

#[test]
fn the_command_line_says_when_there_is_no_daemon() {
    let site = Site::new(SCENARIO);
    let output = site.cli(&["domains"]);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_damaged_store_is_set_aside_and_named_and_the_daemon_serves() {
    let site = Site::new(SCENARIO);
    let daemon = site.start();
    let file = site.write("one.yaml", "name: one\n");
    site.done(&["create", file.to_str().unwrap()]);
    daemon.kill();
    let data = site.path("state").join("db/db");
    let length = std::fs::metadata(&data).unwrap().len();
    std::fs::write(&data, vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
    let _daemon = site.start();
    let doctor = site.doctor().to_string();
    assert!(doctor.contains("set aside at"), "{doctor}");
    let aside = std::fs::read_dir(site.path("state"))
        .unwrap()
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join("db").exists() && entry.file_name() != "db")
        .count();
    assert_eq!(aside, 1, "what was there is kept");
    site.done(&["create", file.to_str().unwrap()]);
}

#[test]
fn a_bad_document_never_replaces_the_good_one() {
    let site = Site::new(SCENARIO);
    let daemon = site.start();
    let good = site.write(
        "one.yaml",
        "name: one\nbase_configuration:\n  cpu: {min: 1, max: 1}\n",
    );
    site.done(&["create", good.to_str().unwrap()]);
    site.done(&["apply", "web", "one"]);
    let before = site.json(&["status", "web"])["persona"].clone();
    for bad in [
        "name: one\nbase_configuration:\n  cpu: {min: 4, max: 1}\n",
        "name: one\nadaptation_rules:\n  - IF nonsense > 3 THEN add 1 vcpus\n",
        "name: one\n\tbase: {}\n",
        "{\"name\": \"one\", ",
        "",
    ] {
        let file = site.write("bad.yaml", bad);
        site.refused(&["update", "one", file.to_str().unwrap()], &["error"]);
    }
    assert_eq!(site.json(&["status", "web"])["persona"], before);
    daemon.kill();
    let _daemon = site.start();
    assert_eq!(site.json(&["status", "web"])["persona"], before);
    assert_eq!(
        site.json(&["list"]).to_string().matches("\"one\"").count(),
        1
    );
}
