//! The real agent carries questions about personas from its own socket to the host and the answers back, and is bounded in
//! what it carries.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream, process::CommandExt as _},
    process::Command,
};

use agent_protocol::{
    Activation, ActivationReply, Answer, Ask, Asked, GuestMessage, HostMessage, Told,
    limits::ASKS_BURST,
    local::{HostPresence, LOCAL_SOCKET, LocalAnswer, LocalCode, LocalRequest},
    message::Hello,
    switching::SWITCH_FEATURE,
};
use harness::{Guest, HUNG, Peer, activate, activation, fresh_session, greeting, ok, until, wait};

fn listening() -> Hello {
    Hello {
        feats: vec![SWITCH_FEATURE.to_owned()],
        ..greeting()
    }
}

struct Client(BufReader<UnixStream>);

impl Client {
    fn open(guest: &Guest, line: &str) -> Self {
        // An agent that has just been started may not listen yet.
        let mut stream = until("the agent listens", || {
            UnixStream::connect(guest.path(LOCAL_SOCKET)).ok()
        });
        stream.set_read_timeout(Some(HUNG)).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        Self(BufReader::new(stream))
    }

    fn ask(guest: &Guest, request: &LocalRequest) -> Self {
        Self::open(
            guest,
            &format!("{}\n", serde_json::to_string(request).unwrap()),
        )
    }

    /// The next answer; `None` at the end of the connection.
    fn next(&mut self) -> Option<LocalAnswer> {
        let mut line = String::new();
        let length = self.0.read_line(&mut line).unwrap();
        (length > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    fn no(&mut self) -> LocalCode {
        match self.next() {
            Some(LocalAnswer::No(no)) => no.code,
            other => panic!("{other:?}"),
        }
    }
}

fn asked(peer: &mut Peer) -> Ask {
    match peer.receive() {
        GuestMessage::Ask(ask) => ask,
        other => panic!("{other:?}"),
    }
}

fn tell(peer: &mut Peer, ask: &Ask, answer: Answer) {
    peer.send(&HostMessage::Told(Box::new(Told {
        ask_id: ask.ask_id.clone(),
        answer,
    })));
}

#[test]
fn a_question_reaches_the_host_and_each_answer_whoever_asked() {
    let guest = Guest::new();
    let mut agent = guest.start();
    let mut peer = guest.connect(&mut agent);
    peer.hello_with(listening());
    let persona = "night".to_owned();
    let request = LocalRequest::Switch {
        persona: persona.clone(),
    };
    let mut client = Client::ask(&guest, &request);
    let ask = asked(&mut peer);
    assert_eq!(
        ask.what,
        Asked::Switch {
            persona: persona.clone()
        }
    );
    let mut other = Client::ask(&guest, &LocalRequest::Personas);
    let look = asked(&mut peer);
    assert_ne!(ask.ask_id, look.ask_id);

    let accepted = Answer::Accepted {
        persona: persona.clone(),
    };
    tell(&mut peer, &ask, accepted.clone());
    assert_eq!(client.next(), Some(LocalAnswer::Host(accepted)));
    tell(&mut peer, &look, Answer::refused("not now"));
    assert_eq!(
        other.next(),
        Some(LocalAnswer::Host(Answer::refused("not now")))
    );
    assert_eq!(other.next(), None);
    let active = Answer::Active {
        persona,
        remark: None,
    };
    tell(&mut peer, &ask, active.clone());
    assert_eq!(client.next(), Some(LocalAnswer::Host(active)));
    assert_eq!(client.next(), None);
    // What nobody waits for is dropped.
    tell(&mut peer, &ask, Answer::failed("late"));
    peer.expect_silence_until_pong();
}

#[test]
fn without_a_host_that_listens_the_agent_says_so_itself() {
    let guest = Guest::new();
    let mut agent = guest.start();
    let mut status = Client::ask(&guest, &LocalRequest::Status);
    let Some(LocalAnswer::Status(seen)) = status.next() else {
        panic!("everybody is told")
    };
    assert_eq!((seen.host, seen.persona), (HostPresence::Absent, None));
    let mut client = Client::ask(&guest, &LocalRequest::Personas);
    assert_eq!(client.no(), LocalCode::NoHost);
    let mut peer = guest.connect(&mut agent);
    peer.hello();
    let mut client = Client::ask(&guest, &LocalRequest::Personas);
    assert_eq!(client.no(), LocalCode::NoHost);
    peer.expect_silence_until_pong();
}

#[test]
fn the_status_is_of_what_holds_also_after_a_return_by_hand() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    for (generation, persona) in [(1, "day"), (2, "night")] {
        let wish = Activation {
            persona: persona.to_owned(),
            ..activation(generation, &[("A", persona)])
        };
        ok::<ActivationReply>(peer.ask(activate(wish)));
    }
    let persona = || match Client::ask(&guest, &LocalRequest::Status).next() {
        Some(LocalAnswer::Status(status)) => status.persona,
        other => panic!("{other:?}"),
    };
    assert_eq!(persona().as_deref(), Some("night"));
    let said = Command::new(env!("CARGO_BIN_EXE_virt-persona-agent"))
        .args(["rollback", "--root"])
        .arg(guest.path(""))
        .output()
        .unwrap();
    assert!(said.status.success(), "{said:?}");
    assert_eq!(persona().as_deref(), Some("day"));
}

#[test]
fn a_host_that_goes_is_told_to_whoever_waits_for_it() {
    let guest = Guest::new();
    let mut agent = guest.start();
    let mut peer = guest.connect(&mut agent);
    peer.hello_with(listening());
    let mut client = Client::ask(&guest, &LocalRequest::Personas);
    asked(&mut peer);
    drop(peer);
    assert_eq!(client.no(), LocalCode::HostLost);
    assert_eq!(client.next(), None);
}

#[test]
fn a_host_that_is_replaced_without_a_word_is_told_to_whoever_waits_for_the_one_before() {
    let guest = Guest::new();
    let mut agent = guest.start();
    let mut peer = guest.connect(&mut agent);
    peer.hello_with(listening());
    let mut client = Client::ask(&guest, &LocalRequest::Personas);
    asked(&mut peer);
    // The connection is the same, as a port shows no change of its client.
    peer.session = fresh_session();
    peer.hello_with(listening());
    assert_eq!(client.no(), LocalCode::HostLost);
    assert_eq!(client.next(), None);
}

#[test]
fn more_than_a_burst_stays_in_the_guest() {
    let guest = Guest::new();
    let mut agent = guest.start();
    let mut peer = guest.connect(&mut agent);
    peer.hello_with(listening());
    let mut slowed = 0;
    let mut passed = 0;
    for _ in 0..ASKS_BURST * 4 {
        let mut client = Client::ask(&guest, &LocalRequest::Personas);
        // Either the host is asked, or the agent answers by itself; the ping's answer says which.
        let stream = client.0.get_ref();
        stream
            .set_read_timeout(Some(std::time::Duration::from_millis(1)))
            .unwrap();
        let mut line = String::new();
        wait("the client is answered", || {
            match client.0.read_line(&mut line) {
                Ok(length) => assert!(length > 0, "the agent closed the connection"),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    // Not answered yet; where the host was asked it never is.
                    if let Some(ask) = pending(&mut peer) {
                        tell(&mut peer, &ask, Answer::refused("x"));
                    }
                }
                Err(error) => panic!("{error}"),
            }
            !line.is_empty()
        });
        if line.contains("too_soon") {
            slowed += 1;
        } else {
            passed += 1;
        }
    }
    assert!(passed >= ASKS_BURST && slowed > 0, "{passed} {slowed}");
}

/// An ask that has come, if one has: a pong proves that nothing else is on its way.
fn pending(peer: &mut Peer) -> Option<Ask> {
    let ping = agent_protocol::message::Ping { n: 1 << 40 };
    peer.send(&HostMessage::Ping(ping));
    let mut ask = None;
    loop {
        match peer.receive() {
            GuestMessage::Ask(found) => ask = Some(found),
            GuestMessage::Pong(pong) if pong == ping => return ask,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_cannot_be_understood_is_refused_and_silent_clients_make_room() {
    let guest = Guest::new();
    let _agent = guest.start();
    for line in ["\n", "{}\n", "dance\n", "{\"verb\":\"dance\"}\n"] {
        let mut client = Client::open(&guest, line);
        assert_eq!(client.no(), LocalCode::Malformed, "{line}");
    }
    let mut long = Client::open(&guest, &"x".repeat(20_000));
    assert_eq!(long.no(), LocalCode::Malformed);
    // More than there is room for, none of which says anything.
    let silent: Vec<Client> = (0..40).map(|_| Client::open(&guest, "")).collect();
    let mut client = Client::ask(&guest, &LocalRequest::Status);
    assert!(matches!(client.next(), Some(LocalAnswer::Status(_))));
    drop(silent);
}

#[test]
fn others_than_root_may_not_say_that_memory_is_needed_nor_have_the_guest_go_back_nor_customise() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    let root = guest.path("");
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = guest.path("agent");
    // By another process: nobody can run a program that a child of this one still has open for writing.
    let copied = Command::new("cp")
        .args([
            env!("CARGO_BIN_EXE_virt-persona-agent").as_ref(),
            program.as_path(),
        ])
        .status();
    assert!(copied.unwrap().success());
    for words in [
        ["need", "256M"].as_slice(),
        &["rollback"],
        &["rollback", "1"],
        &["customize", "environment.A=1"],
        &["customize", "--remove", "editor"],
    ] {
        let said = Command::new(&program)
            .args(words)
            .arg("--root")
            .arg(&root)
            .uid(65_534)
            .gid(65_534)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(1), "{words:?}: {told}");
        assert!(told.contains("only root"), "{words:?}: {told}");
    }
    peer.expect_silence_until_pong();
}
