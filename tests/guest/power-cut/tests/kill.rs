//! Kills the writing program again and again over one store, and looks whether what it acknowledged is there. A
//! killed process loses less than a machine without power, but it dies at any instruction, and the next one starts
//! at once over what it left.
#![allow(clippy::panic)] // A test that cannot go on ends.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes until killed after `commits` acknowledgements; the last number acknowledged.
fn write_and_kill(dir: &Path, commits: usize) -> u64 {
    let mut program = Command::new(env!("CARGO_BIN_EXE_power-cut"))
        .args(["write".as_ref(), dir.as_os_str(), "1000000".as_ref()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let output = program.stdout.take().expect("its output is piped");
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    let number = |line: String| match line.strip_prefix("ACK ") {
        Some(number) => number.parse::<u64>().expect("a number"),
        None => panic!("the program says: {line}"),
    };
    let last = lines
        .by_ref()
        .take(commits)
        .map(number)
        .last()
        .expect("an acknowledgement");
    program.kill().expect("the program can be killed");
    // What was on its way is acknowledged too; only a whole line says a whole number.
    let rest: Vec<String> = lines.collect();
    let whole = rest.len().saturating_sub(1);
    let last = rest
        .into_iter()
        .take(whole)
        .map(number)
        .fold(last, u64::max);
    program.wait().expect("the program is ours");
    last
}

/// The last number that is there, and how many entries are missing before it.
fn check(dir: &Path) -> (u64, u64) {
    let output = Command::new(env!("CARGO_BIN_EXE_power-cut"))
        .args(["check".as_ref(), dir.as_os_str()])
        .output()
        .expect("the program starts");
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.trim().split(' ').collect::<Vec<_>>()[..] {
        ["LAST", last, "MISSING", missing] => (
            last.parse().expect("a number"),
            missing.parse().expect("a number"),
        ),
        _ => panic!("the program says: {output}"),
    }
}

#[test]
fn what_was_acknowledged_survives_being_killed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for commits in [1, 9, 10, 11, 64, 250] {
        let acknowledged = write_and_kill(dir.path(), commits);
        let (last, missing) = check(dir.path());
        assert!(
            last >= acknowledged,
            "{} of {acknowledged} commits are lost",
            acknowledged - last
        );
        assert_eq!(missing, 0, "entries before {last} are missing or damaged");
    }
}
