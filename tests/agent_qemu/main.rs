//! The channel on real QEMU, without libvirt: what happens to a virtio-serial port when its client is swapped, and when the
//! machine is reset, reverted and migrated, with the agent in the guest. Tests of `tests/agent_link` play the same on a line.

#![allow(clippy::panic, clippy::print_stderr, clippy::unwrap_used)]

mod client;
mod machine;
mod power_cut;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use agent_protocol::message::{HelloReason, OpStatus, ReplyBody};
use agent_protocol::{Activation, GuestMessage, Operation, RequestId, Session, Stamp};
use client::Client;
use machine::{HUNG, Machine};
use persona::domain::DomainId;
use tokio::sync::mpsc;
use tokio::time::timeout;
use virt_persona::agent::{
    AgentEvent, AgentFacts, AgentReply, LinkConfig, LostReason, Registry, Running,
};

const DOMAIN: DomainId = DomainId([0xd1; 16]);

fn status(body: ReplyBody) -> OpStatus {
    match body {
        ReplyBody::Ok(value) => serde_json::from_value(value).unwrap(),
        ReplyBody::Err(error) => panic!("{error}"),
    }
}

fn question(id: &str) -> Operation {
    Operation::OpStatus {
        id: RequestId::new(id).unwrap(),
    }
}

fn activation(generation: u64) -> Operation {
    Operation::Activate {
        activation: Box::new(Activation {
            generation,
            persona: "web".to_owned(),
            version: generation,
            digest: format!("digest-{generation}"),
            environment: BTreeMap::new(),
            settings: agent_protocol::Settings::default(),
            pre: None,
            post: None,
            commands: agent_protocol::CommandTable::default(),
            rules: agent_protocol::GuestRules::default(),
            adjusted: None,
        }),
    }
}

/// The daemon's end, at a machine's socket.
struct Host {
    registry: Registry,
    events: mpsc::UnboundedReceiver<(DomainId, AgentEvent)>,
}

impl Host {
    fn attach(run: &Path, machine: &Machine) -> Self {
        let mut config = LinkConfig::new(run.join("run"), "host-1".to_owned());
        // Short, so that a dead port is found soon; far longer than an answer of an emulated guest takes.
        config.hello_timeout = Duration::from_secs(3);
        config.heartbeat = Duration::from_secs(2);
        let (sender, events) = mpsc::unbounded_channel();
        let registry = Registry::new(config, sender);
        registry.attach(DOMAIN, machine.socket(), Running::Yes);
        Self { registry, events }
    }

    async fn event(&mut self) -> AgentEvent {
        let event = timeout(HUNG, self.events.recv()).await;
        event.expect("the guest says nothing").unwrap().1
    }

    async fn connected(&mut self) -> AgentFacts {
        loop {
            if let AgentEvent::Connected { facts } = self.event().await {
                return facts;
            }
        }
    }

    async fn lost(&mut self) -> LostReason {
        loop {
            if let AgentEvent::Lost { reason } = self.event().await {
                return reason;
            }
        }
    }

    async fn activate(&self, generation: u64) {
        let asked = self
            .registry
            .request(DOMAIN, None, activation(generation), HUNG);
        let reply = asked.await;
        assert!(matches!(reply, Ok(AgentReply::Activated(_))), "{reply:?}");
    }
}

#[test]
fn a_client_that_is_swapped_in_the_middle_of_a_frame_costs_that_frame_alone() {
    let directory = tempfile::tempdir().unwrap();
    let machine = Machine::boot(directory.path(), "a");
    let mut first = Client::connect(&machine.socket(), 1);
    let (before, _) = first.greet();
    let request = agent_protocol::HostMessage::Request(agent_protocol::Request {
        id: RequestId::new("half").unwrap(),
        ttl_ms: 600_000,
        op: activation(1),
    });
    let frame = first.frame(&request);
    first.raw(&frame[..frame.len() / 2]);
    drop(first);
    let mut second = Client::connect(&machine.socket(), 2);
    let (after, _) = second.greet();
    assert_eq!(before.inst, after.inst);
    assert_eq!(status(second.ask("s", question("half"))), OpStatus::Unknown);

    // One more waits in the backlog of the socket, and what it says with it.
    let mut third = Client::connect(&machine.socket(), 3);
    third.say_hello();
    assert_eq!(
        status(second.ask("t", question("half"))),
        OpStatus::Unknown,
        "the session stands while another waits"
    );
    drop(second);
    third.greet();
    assert_eq!(status(third.ask("u", question("half"))), OpStatus::Unknown);
}

#[test]
fn a_reset_in_the_middle_of_a_frame_with_a_backlog_is_told_by_the_next_boots_announcement() {
    let directory = tempfile::tempdir().unwrap();
    let mut machine = Machine::boot(directory.path(), "a");
    let mut client = Client::connect(&machine.socket(), 1);
    let (first, _) = client.greet();
    let rest = client.fill();
    machine.reset();
    let (mut old, mut announced) = (0, None);
    while announced.is_none() {
        match client.next() {
            (stamp, GuestMessage::Pong(_)) => {
                client.session.admit(&stamp).unwrap();
                old += 1;
            }
            (stamp, GuestMessage::Announce(announce)) => {
                assert_eq!(stamp, Stamp::outside());
                announced = Some(announce);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_ne!(announced.unwrap().boot_id, first.boot_id);
    assert!(old > 0, "nothing was under way when the machine was reset");
    eprintln!("{old} frames of the boot before came after the reset");
    client.raw(&rest);
    client.session = Session::new(agent_protocol::SessionId::from_random([2; 16]));
    let (second, stale) = client.greet();
    assert_ne!(second.boot_id, first.boot_id);
    assert!(stale.is_empty(), "answered before the hello: {stale:?}");
    assert_eq!(status(client.ask("s", question("none"))), OpStatus::Unknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revert_with_the_daemon_attached_ends_in_a_session_with_the_state_of_the_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let mut machine = Machine::boot(directory.path(), "a");
    machine.add_snapshots();
    let mut host = Host::attach(directory.path(), &machine);
    let first = host.connected().await;
    host.activate(7).await;
    machine.save();
    host.activate(8).await;
    machine.revert();
    host.registry.renew(DOMAIN, HelloReason::Revert);
    assert_eq!(host.lost().await, LostReason::Reverted);
    let second = host.connected().await;
    assert_eq!(
        (second.boot_id, second.instance),
        (first.boot_id, first.instance)
    );
    assert_eq!(second.newest_generation, 7);
    assert_eq!(second.active.map(|active| active.generation), Some(7));
    host.activate(9).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_with_a_backlog_loses_no_frame_and_no_port_in_either_order_of_connections() {
    // What an emulator breaks no agent can mend; that it does so again and again would be another thing.
    for _ in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        if migrated_twice(directory.path()).await.is_some() {
            return;
        }
        eprintln!("the emulator gave up the port: once more");
    }
    panic!("the emulator gave up the port each time");
}

/// With the next host's client there before the guest is, and after it; `None` when the emulator gave up the port.
async fn migrated_twice(directory: &Path) -> Option<()> {
    let mut origin = Machine::boot(directory, "a");
    let mut left = Client::connect(&origin.socket(), 1);
    let (first, _) = left.greet();
    left.fill();
    let mut next = Machine::awaiting(directory, "b");
    let mut reached = Client::connect(&next.socket(), 2);
    next.has_client();
    origin.migrate(&mut next);
    let (second, before) = reached.greet_unless(|| next.has_given_up_the_port())?;
    assert_eq!(second.inst, first.inst);
    // Both ends have some of the answers, and some both of them: together each once and none lost.
    while let Some((stamp, _)) = left.next_within(Duration::from_secs(1)) {
        left.session.admit(&stamp).unwrap();
    }
    let backlog = before
        .iter()
        .filter(|(_, message)| matches!(message, GuestMessage::Pong(_)));
    for (stamp, _) in backlog {
        // What came to the other end already does not count again.
        let _ = left.session.admit(stamp);
    }
    let counters = left.session.counters();
    eprintln!("{counters:?}");
    assert_eq!(counters.lost, 0);
    assert!(counters.admitted > 64, "there was no backlog");
    assert_eq!(
        status(reached.ask("s", question("none"))),
        OpStatus::Unknown
    );

    // The port may be dead until it is opened again.
    reached.fill();
    let mut last = Machine::awaiting(directory, "c");
    next.migrate(&mut last);
    let mut host = Host::attach(directory, &last);
    let began = Instant::now();
    let facts = loop {
        match timeout(Duration::from_secs(1), host.connected()).await {
            Ok(facts) => break facts,
            Err(_) if last.has_given_up_the_port() => return None,
            Err(_) => assert!(began.elapsed() < HUNG, "the guest says nothing"),
        }
    };
    assert_eq!(facts.instance.as_str(), first.inst);
    host.activate(5).await;
    Some(())
}
