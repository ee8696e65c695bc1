//! Activations in which nothing but what rules of the host adjusted has changed: the persona goes on, and its scripts do not
//! run once more.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use agent_protocol::{
    Activation, ActivationReply,
    activation::{Adjusted, ScriptsRun},
};
use harness::{Guest, Peer, activate, activation, ok, script};

/// The persona `of`, with this value of a variable; its scripts write a line each.
fn persona(
    guest: &Guest,
    generation: u64,
    value: &str,
    of: Option<(&str, ScriptsRun)>,
) -> Activation {
    let line = format!("echo {value} >> {}", guest.path("ran").display());
    Activation {
        pre: script(&line),
        post: script(&line),
        adjusted: of.map(|(of, scripts)| Adjusted {
            of: of.to_owned(),
            scripts,
        }),
        ..activation(generation, &[("A", value)])
    }
}

fn hold(peer: &mut Peer, wish: Activation) -> ActivationReply {
    ok(peer.ask(activate(wish)))
}

fn ran(guest: &Guest) -> String {
    guest.read("ran").unwrap_or_default()
}

fn variable(guest: &Guest) -> String {
    guest
        .read("etc/environment.d/50-virt-persona.conf")
        .unwrap()
}

#[test]
fn scripts_run_once_for_a_persona_however_often_it_is_adjusted() {
    let guest = Guest::new();
    let (agent, mut peer, ack) = guest.greet();
    assert!(ack.feats.iter().any(|feat| feat == "adjusted"));
    hold(&mut peer, persona(&guest, 1, "plain", None));
    assert_eq!(ran(&guest), "plain\nplain\n");
    let unless = ScriptsRun::UnlessActive;
    let reply = hold(
        &mut peer,
        persona(&guest, 2, "one", Some(("digest-1", unless))),
    );
    assert_eq!((reply.pre, reply.post), (None, None));
    assert!(
        variable(&guest).contains("A=\"one\""),
        "{}",
        variable(&guest)
    );
    // Also by an agent that has just started.
    agent.kill();
    let (_agent, mut peer, ack) = guest.greet();
    assert_eq!(ack.active.unwrap().digest, "digest-2");
    hold(
        &mut peer,
        persona(&guest, 3, "two", Some(("digest-1", unless))),
    );
    let mut back = persona(&guest, 4, "plain", Some(("digest-1", unless)));
    back.digest = "digest-1".to_owned();
    hold(&mut peer, back);
    assert!(variable(&guest).contains("A=\"plain\""));
    assert_eq!(ran(&guest), "plain\nplain\n");
    // The persona itself once more, and one that the guest does not have.
    hold(
        &mut peer,
        persona(&guest, 5, "again", Some(("digest-1", ScriptsRun::Always))),
    );
    assert_eq!(ran(&guest), "plain\nplain\nagain\nagain\n");
    let other = hold(
        &mut peer,
        persona(&guest, 6, "other", Some(("another", unless))),
    );
    assert!(other.pre.is_some() && other.post.is_some());
    assert!(ran(&guest).ends_with("other\nother\n"));
}
