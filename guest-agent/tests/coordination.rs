//! The real agent is asked before a shrink and told after a growth, with real hooks, and tells the host of needs.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output},
};

use agent_protocol::{
    Consent, GrownReply, GuestMessage, Need, Operation, Resize,
    coordination::{NEED_FEATURE, Resource},
    message::{Hello, OnlineCpusReply},
};
use harness::{Guest, Peer, code, fresh_id, greeting, ok, wait_for};

fn hook(guest: &Guest, path: &str, text: &str) {
    let path = format!("etc/virt-persona/hooks/{path}");
    guest.write(&path, &format!("#!/bin/sh\n{text}\n"));
    fs::set_permissions(guest.path(&path), fs::Permissions::from_mode(0o755)).unwrap();
}

fn shrink() -> Operation {
    Operation::PrepareShrink {
        resize: Resize {
            resource: Resource::Memory,
            from: 1 << 30,
            to: 1 << 29,
        },
    }
}

fn listening() -> Hello {
    Hello {
        feats: vec![NEED_FEATURE.to_owned()],
        ..greeting()
    }
}

fn say_need(guest: &Guest, amount: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_virt-persona-agent"))
        .args(["need", amount, "--reason", "import", "--root"])
        .arg(guest.path(""))
        .output()
        .unwrap()
}

fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn need(peer: &mut Peer) -> Need {
    match peer.receive() {
        GuestMessage::Need(need) => need,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_guest_with_a_hook_that_refuses_says_why_and_one_without_agrees() {
    let guest = Guest::new();
    let (_agent, mut peer, ack) = guest.greet();
    assert!(ack.feats.iter().any(|feat| feat == "hooks"));
    assert_eq!(ok::<Consent>(peer.ask(shrink())), Consent::Agreed);
    hook(
        &guest,
        "pre-shrink.d/backup",
        "echo a backup needs $VIRT_PERSONA_RESOURCE; exit 75",
    );
    assert_eq!(
        ok::<Consent>(peer.ask(shrink())),
        Consent::Refused {
            reason: "hook backup: a backup needs memory".to_owned(),
            retry_after_ms: None
        }
    );
}

#[test]
fn after_growth_hooks_are_told_the_amounts() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    let seen = guest.path("seen");
    let text = format!(
        "echo $VIRT_PERSONA_FROM $VIRT_PERSONA_TO >{}",
        seen.display()
    );
    hook(&guest, "post-grow.d/workers", &text);
    hook(&guest, "post-grow.d/broken", "echo no such pool; exit 1");
    let grown = Operation::Grown {
        resize: Resize {
            resource: Resource::Vcpus,
            from: 2,
            to: 3,
        },
    };
    assert_eq!(
        ok::<GrownReply>(peer.ask(grown)),
        GrownReply {
            ran: 2,
            failed: Some("hook broken: no such pool".to_owned())
        }
    );
    assert_eq!(guest.read("seen").unwrap(), "2 3\n");
}

#[test]
fn the_owner_can_keep_hooks_and_needs_to_himself() {
    let guest = Guest::new();
    guest.write(
        "etc/virt-persona/agent.toml",
        "[allow]\nhooks = false\nneed = false\n",
    );
    let mut agent = guest.start();
    let mut peer = guest.connect(&mut agent);
    peer.hello_with(listening());
    assert_eq!(code(peer.ask(shrink())), "forbidden");
    let said = refusal(&say_need(&guest, "64M"));
    assert!(said.contains("agent.toml"), "{said}");
    peer.expect_silence_until_pong();
}

#[test]
fn cpus_are_switched_while_a_hook_runs_and_hooks_do_not_pile_up() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    let (began, go) = (guest.path("began"), guest.path("go"));
    let text = format!(
        "echo x >>{}; while ! test -e {}; do sleep 0.01; done",
        began.display(),
        go.display()
    );
    hook(&guest, "pre-shrink.d/slow", &text);
    let waiting = [fresh_id(), fresh_id()];
    for id in &waiting {
        peer.post(id, shrink());
    }
    assert_eq!(code(peer.ask(shrink())), "busy");
    wait_for(&began);
    let cpus: OnlineCpusReply = ok(peer.ask(Operation::OnlineCpus { target: 3 }));
    assert_eq!(cpus.online.count(), 3);
    guest.write("go", "");
    for _ in &waiting {
        match peer.receive() {
            GuestMessage::Reply(reply) => {
                assert!(waiting.contains(&reply.re));
                assert_eq!(ok::<Consent>(reply.body), Consent::Agreed);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ok::<Consent>(peer.ask(shrink())), Consent::Agreed);
}

#[test]
fn a_hook_that_does_not_end_refuses_before_the_host_stops_waiting() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    hook(&guest, "pre-shrink.d/stuck", "exec sleep 1000");
    let id = fresh_id();
    peer.post_within(&id, shrink(), 1500);
    assert_eq!(
        ok::<Consent>(peer.answer(&id)),
        Consent::Refused {
            reason: "hook stuck did not end in time".to_owned(),
            retry_after_ms: None
        }
    );
}

#[test]
fn a_need_is_told_to_a_host_that_listens_and_not_too_often() {
    let guest = Guest::new();
    let mut agent = guest.start();
    let mut peer = guest.connect(&mut agent);
    peer.hello_with(listening());
    let said = say_need(&guest, "256M");
    assert!(said.status.success(), "{said:?}");
    assert_eq!(
        need(&mut peer),
        Need {
            memory_bytes: 256 << 20,
            reason: "import".to_owned()
        }
    );
    let said = refusal(&say_need(&guest, "256M"));
    assert!(said.contains("was told"), "{said}");
    peer.expect_silence_until_pong();
}

#[test]
fn a_host_that_does_not_listen_to_needs_is_not_told_and_one_that_is_not_there_cannot_be() {
    let guest = Guest::new();
    let mut agent = guest.start();
    let mut peer = guest.connect(&mut agent);
    // The announcement comes when the agent serves; its own socket is there by then.
    assert!(matches!(
        peer.try_receive().unwrap(),
        Some((_, GuestMessage::Announce(_)))
    ));
    let said = refusal(&say_need(&guest, "256M"));
    assert!(said.contains("not connected"), "{said}");
    peer.hello();
    let said = refusal(&say_need(&guest, "256M"));
    assert!(said.contains("does not listen"), "{said}");
    peer.expect_silence_until_pong();
    agent.kill();
    let said = refusal(&say_need(&guest, "256M"));
    assert!(said.contains("cannot reach the agent"), "{said}");
}
