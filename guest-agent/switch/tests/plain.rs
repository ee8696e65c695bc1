//! The real program in scripts, against an agent that the test plays. With the real agent and the daemon it is driven in
//! `tests/daemon/chooser.rs`.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
};

use agent_protocol::{
    Answer,
    local::{LOCAL_SOCKET, LocalAnswer, LocalCode, LocalNo, LocalRequest},
};

fn run(root: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_virt-persona-switch"))
        .args(arguments)
        .arg("--root")
        .arg(root)
        .env("LANG", "C")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// Asks an agent that gives these answers; what it was asked is given back, too.
fn asked(arguments: &[&str], answers: Vec<LocalAnswer>) -> (LocalRequest, Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LOCAL_SOCKET);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    let agent = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        for answer in answers {
            let mut text = serde_json::to_string(&answer).unwrap();
            text.push('\n');
            // Who has read enough is gone.
            let _ = (&stream).write_all(text.as_bytes());
        }
        serde_json::from_str(&line).unwrap()
    });
    let (status, text) = run(folder.path(), arguments);
    (agent.join().unwrap(), status, text)
}

fn host(answer: Answer) -> LocalAnswer {
    LocalAnswer::Host(answer)
}

fn waits() -> LocalAnswer {
    host(Answer::Waits {
        proposal: 7,
        expires_in_ms: 90_000,
    })
}

#[test]
fn the_exit_status_says_how_it_ended() {
    let persona = "night".to_owned();
    let accepted = host(Answer::Accepted {
        persona: persona.clone(),
    });
    let active = host(Answer::Active {
        persona: persona.clone(),
        remark: Some("one setting was kept\u{1b}[2J".to_owned()),
    });
    let (request, status, text) = asked(&["--to", "night"], vec![accepted.clone()]);
    assert_eq!(request, LocalRequest::Switch { persona });
    assert_eq!(
        (status, text.as_str()),
        (Some(0), "night: the host makes it active\n")
    );

    let all = vec![waits(), accepted, active];
    let (_, status, text) = asked(&["--to", "night", "--wait"], all);
    assert_eq!(status, Some(0));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("proposal 7, for 2 min"), "{text}");
    assert_eq!(lines[2], "night: active; one setting was kept [2J");

    let (_, status, _) = asked(&["--to", "night"], vec![waits()]);
    assert_eq!(status, Some(4));
    let failed = vec![waits(), host(Answer::failed("root rejected it"))];
    let (_, status, text) = asked(&["--to", "night", "--wait"], failed);
    assert_eq!(status, Some(1));
    assert!(text.contains("failed: root rejected it"), "{text}");

    let lost = LocalAnswer::No(LocalNo {
        code: LocalCode::HostLost,
        reason: "the host has gone".to_owned(),
    });
    let (_, status, _) = asked(&["--to", "night", "--wait"], vec![waits(), lost]);
    assert_eq!(status, Some(3));
    // An agent that ends in the middle has not said how it went.
    let (_, status, text) = asked(&["--to", "night", "--wait"], vec![waits()]);
    assert_eq!(status, Some(3));
    assert!(text.contains("ended without a last answer"), "{text}");
}

#[test]
fn without_an_agent_or_with_wrong_words_it_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (status, text) = run(folder.path(), &["--list"]);
    assert_eq!(status, Some(3));
    assert!(text.contains("is virt-persona-agent running?"), "{text}");
    let (status, text) = run(folder.path(), &["night"]);
    assert_eq!(status, Some(2));
    assert!(text.contains("--help"), "{text}");
}
