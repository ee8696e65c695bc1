//! The situations in which a virtio-serial port surprises its users, each with the host's end and the real agent at the two
//! ends of a line that behaves as QEMU was seen to. Those of them that QEMU itself can be brought into are in
//! `tests/agent_qemu`, too. Real time passes; nothing depends on how much.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_protocol::message::HelloReason;
use agent_protocol::{Operation, RequestId};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use virt_persona::agent::{AgentError, AgentEvent, AgentFacts, AgentReply, LostReason, Running};

use super::agent_binary::{Agent, activation, connected};
use super::line::{Line, Mode, accept};
use super::peer::{DOMAIN, Host, seconds};

type Asked = JoinHandle<Result<AgentReply, AgentError>>;

/// A host and an agent with a line between them.
struct Scene {
    host: Host,
    listener: UnixListener,
    root: tempfile::TempDir,
    agent: Option<Agent>,
}

impl Scene {
    fn new() -> Self {
        // Short enough that a dead direction is found soon, and far longer than an answer takes.
        let host = Host::with(|config| {
            config.heartbeat = Duration::from_millis(400);
            config.hello_timeout = seconds(2);
        });
        let listener = UnixListener::bind(host.socket("line")).unwrap();
        host.registry
            .attach(DOMAIN, host.socket("line"), Running::Yes);
        let root = tempfile::tempdir().unwrap();
        let agent = Some(Agent::start(root.path()));
        Self {
            host,
            listener,
            root,
            agent,
        }
    }

    async fn line(&self) -> Line {
        let host = accept(&self.listener).await;
        Line::join(host, self.agent.as_ref().unwrap().connect().await)
    }

    /// A line whose session stands.
    async fn connect(&mut self) -> (Line, AgentFacts) {
        let line = self.line().await;
        let facts = connected(&mut self.host).await;
        (line, facts)
    }

    /// Kills the agent, as a reset of the machine does, and starts the next.
    fn reset(&mut self) {
        self.agent.take().unwrap().kill();
        self.agent = Some(Agent::start(self.root.path()));
    }

    fn witness(&self) -> PathBuf {
        self.root.path().join("witness")
    }

    /// Asks for an activation whose script leaves a line in the witness.
    fn activate(&self) -> Asked {
        self.ask("once", activation(&self.witness()))
    }

    fn ask(&self, id: &str, operation: Operation) -> Asked {
        let (registry, id) = (self.host.registry.clone(), RequestId::new(id).unwrap());
        tokio::spawn(async move {
            registry
                .request(DOMAIN, Some(id), operation, seconds(120))
                .await
        })
    }

    async fn lost(&mut self) -> LostReason {
        loop {
            if let AgentEvent::Lost { reason } = self.host.event().await {
                return reason;
            }
        }
    }

    /// A question goes there and back.
    async fn works(&self) {
        let asked = self.host.registry.request(
            DOMAIN,
            None,
            Operation::OnlineCpus { target: 2 },
            seconds(60),
        );
        assert!(matches!(asked.await, Ok(AgentReply::OnlineCpus { .. })));
    }
}

fn activated(reply: &Result<AgentReply, AgentError>) {
    assert!(matches!(reply, Ok(AgentReply::Activated(_))), "{reply:?}");
}

async fn appears(path: &Path) {
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn ran_once(path: &Path) {
    assert_eq!(fs::read_to_string(path).unwrap(), "ran\n");
}

/// Also what a port hands out in pieces of any size.
#[tokio::test]
async fn when_the_host_stops_reading_all_answers_come_once_it_reads_again() {
    let mut scene = Scene::new();
    let (line, _) = scene.connect().await;
    scene.host.registry.set_running(DOMAIN, Running::Paused);
    line.from_guest.set(Mode::Hold);
    line.from_host.set(Mode::Split);
    let asked: Vec<Asked> = (0..60)
        .map(|number| scene.ask(&format!("r{number}"), Operation::OnlineCpus { target: 2 }))
        .collect();
    line.from_host.frame_with("\"r59\"").await;
    line.from_guest.set(Mode::Split);
    for asked in asked {
        assert!(asked.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn while_no_host_is_there_the_agent_ends_its_work_and_the_next_session_gets_the_answer() {
    let mut scene = Scene::new();
    let (line, _) = scene.connect().await;
    let asked = scene.activate();
    line.from_host.frame_with("\"activate\"").await;
    line.from_guest.set(Mode::Lose);
    appears(&scene.witness()).await;
    line.cut().await;
    appears(&scene.root.path().join("state/results/once")).await;
    let _line = scene.connect().await;
    activated(&asked.await.unwrap());
    ran_once(&scene.witness());
}

#[tokio::test]
async fn an_answer_that_is_discarded_with_its_client_is_asked_for_again() {
    let mut scene = Scene::new();
    let (line, _) = scene.connect().await;
    line.from_guest.set(Mode::Lose);
    let asked = scene.activate();
    line.from_guest.frame_with("\"re\":\"once\"").await;
    line.cut().await;
    assert_eq!(scene.lost().await, LostReason::Closed);
    let _line = scene.connect().await;
    activated(&asked.await.unwrap());
    ran_once(&scene.witness());
}

#[tokio::test]
async fn a_client_that_is_swapped_in_the_middle_of_frames_costs_those_frames_alone() {
    let mut scene = Scene::new();
    let (line, first) = scene.connect().await;
    let asked = scene.activate();
    let request = line.from_host.frame_with("\"activate\"").await;
    activated(&asked.await.unwrap());
    let answer = line.from_guest.frame_with("\"re\":\"once\"").await;
    line.from_host.say(&request[..request.len() / 2]);
    scene.host.registry.renew(DOMAIN, HelloReason::Revert);
    assert_eq!(scene.lost().await, LostReason::Reverted);
    // The agent hears of no end; the next client finds the rest of a frame before what is for it.
    let line = line.swap_client(&scene.listener).await;
    line.from_guest.say(&answer[answer.len() / 2..]);
    let second = connected(&mut scene.host).await;
    assert_eq!(second.instance, first.instance);
    scene.works().await;
    ran_once(&scene.witness());
}

#[tokio::test]
async fn what_a_client_said_while_it_waited_for_its_turn_takes_no_session_for_good() {
    let mut scene = Scene::new();
    let (line, _) = scene.connect().await;
    let hello = line.from_host.frame_with("\"hello\"").await;
    scene.host.registry.renew(DOMAIN, HelloReason::Revert);
    scene.lost().await;
    let line = line.swap_client(&scene.listener).await;
    connected(&mut scene.host).await;
    // The earlier hello comes late, and is as good as any to the agent: the session that stands is over, without a word.
    line.from_host.say(&hello);
    assert_eq!(scene.lost().await, LostReason::Silent);
    let _line = line.swap_client(&scene.listener).await;
    connected(&mut scene.host).await;
    scene.works().await;
}

#[tokio::test]
async fn what_was_said_to_an_agent_that_died_is_not_obeyed_by_the_next_one() {
    let mut scene = Scene::new();
    let (line, first) = scene.connect().await;
    line.from_host.set(Mode::Lose);
    let asked = scene.activate();
    let request = line.from_host.frame_with("\"activate\"").await;
    scene.reset();
    let (host, guest) = line.part().await;
    drop(guest);
    let line = Line::join(host, scene.agent.as_ref().unwrap().connect().await);
    line.from_host.say(&request);
    assert_eq!(scene.lost().await, LostReason::AgentRestarted);
    assert!(
        !scene.witness().exists(),
        "it was obeyed in no session of the new agent"
    );
    line.cut().await;
    let (_line, second) = scene.connect().await;
    assert_ne!(second.instance, first.instance);
    activated(&asked.await.unwrap());
    ran_once(&scene.witness());
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_frame_is_told_by_the_announcement_after_it() {
    let mut scene = Scene::new();
    let (line, first) = scene.connect().await;
    let ack = line.from_guest.frame_with("\"hello_ack\"").await;
    line.from_guest.say(&ack[..ack.len() / 2]);
    scene.reset();
    // QEMU keeps the host's socket over a reset: the new boot's bytes follow the half frame.
    let (host, guest) = line.part().await;
    drop(guest);
    let line = Line::join(host, scene.agent.as_ref().unwrap().connect().await);
    assert_eq!(scene.lost().await, LostReason::AgentRestarted);
    line.cut().await;
    let (_line, second) = scene.connect().await;
    assert_ne!(second.instance, first.instance);
    scene.works().await;
}

#[tokio::test]
async fn the_backlog_of_an_agent_that_was_reset_answers_nothing_of_the_next_session() {
    let mut scene = Scene::new();
    let (line, _) = scene.connect().await;
    line.from_guest.set(Mode::Lose);
    let asked = scene.activate();
    let answer = line.from_guest.frame_with("\"re\":\"once\"").await;
    let backlog = line.from_guest.taken();
    scene.reset();
    line.cut().await;
    let line = scene.line().await;
    // What is stored in the guest counts, not what comes late: it is told apart by the digest.
    let forged = String::from_utf8(answer)
        .unwrap()
        .replace("changed", "unchanged");
    line.from_guest.say(&backlog);
    line.from_guest.say(forged.as_bytes());
    connected(&mut scene.host).await;
    line.from_guest.say(forged.as_bytes());
    let reply = asked.await.unwrap();
    activated(&reply);
    assert!(format!("{reply:?}").contains("Changed"), "{reply:?}");
    ran_once(&scene.witness());
}

#[tokio::test]
async fn a_revert_that_repeats_half_a_frame_costs_no_frame_of_the_next_session() {
    let mut scene = Scene::new();
    let (line, _) = scene.connect().await;
    let asked = scene.activate();
    activated(&asked.await.unwrap());
    let answer = line.from_guest.frame_with("\"re\":\"once\"").await;
    line.from_guest.say(&answer);
    line.from_guest.say(&answer[answer.len() / 2..]);
    scene.works().await;
    scene.host.registry.renew(DOMAIN, HelloReason::Revert);
    assert_eq!(scene.lost().await, LostReason::Reverted);
    let line = line.swap_client(&scene.listener).await;
    line.from_guest.say(&answer[answer.len() / 2..]);
    let facts = connected(&mut scene.host).await;
    assert_eq!(facts.active.map(|active| active.generation), Some(7));
    scene.works().await;
}

#[tokio::test]
async fn a_machine_that_arrives_elsewhere_is_greeted_at_its_new_socket() {
    let mut scene = Scene::new();
    let (line, first) = scene.connect().await;
    let elsewhere = UnixListener::bind(scene.host.socket("elsewhere")).unwrap();
    scene
        .host
        .registry
        .attach(DOMAIN, scene.host.socket("elsewhere"), Running::Yes);
    assert_eq!(scene.lost().await, LostReason::Moved);
    let line = line.swap_client(&elsewhere).await;
    let second = connected(&mut scene.host).await;
    assert_eq!(second.instance, first.instance);
    scene.works().await;
    drop(line);
}

#[tokio::test]
async fn a_backlog_that_arrives_at_both_ends_of_a_migration_counts_once() {
    let mut scene = Scene::new();
    let (line, _) = scene.connect().await;
    line.from_guest.set(Mode::Hold);
    let asked = scene.activate();
    appears(&scene.root.path().join("state/results/once")).await;
    let elsewhere = UnixListener::bind(scene.host.socket("elsewhere")).unwrap();
    scene
        .host
        .registry
        .attach(DOMAIN, scene.host.socket("elsewhere"), Running::Yes);
    assert_eq!(scene.lost().await, LostReason::Moved);
    // The answer is in the backlog: it goes to the host that is left, and once more to the one that is reached.
    line.from_guest.set(Mode::Lose);
    let answer = line.from_guest.frame_with("\"re\":\"once\"").await;
    let line = line.swap_client(&elsewhere).await;
    line.from_guest.say(&answer);
    connected(&mut scene.host).await;
    line.from_guest.say(&answer);
    activated(&asked.await.unwrap());
    line.from_guest.say(&answer);
    scene.works().await;
    ran_once(&scene.witness());
}

#[tokio::test]
async fn a_direction_that_died_in_a_migration_is_revived_by_a_new_connection() {
    let mut scene = Scene::new();
    let (line, _) = scene.connect().await;
    line.from_guest.set(Mode::Lose);
    let asked = scene.activate();
    assert_eq!(scene.lost().await, LostReason::Silent);
    let line = line.swap_client(&scene.listener).await;
    connected(&mut scene.host).await;
    activated(&asked.await.unwrap());
    ran_once(&scene.witness());
    assert!(
        String::from_utf8_lossy(&line.from_host.taken()).contains("\"reason\":\"heartbeat\""),
        "the guest is told why"
    );
}
