//! The host end against the real agent: the program that runs in guests, on a unix socket. Real time passes here; nothing
//! depends on how much. What goes wrong on the way between the two is in `situations`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use agent_protocol::activation::Change;
use agent_protocol::coordination::Resource;
use agent_protocol::{Activation, OnFailure, Operation, RequestId, Resize, Script};
use tokio::net::{UnixListener, UnixStream};
use virt_persona::agent::{AgentEvent, AgentReply, Consent, LostReason, Running};

use super::line::{Line, Mode, accept};
use super::peer::{DOMAIN, Host, seconds};
use program::AGENT;

#[path = "../guest/agent.rs"]
mod program;

/// A running agent with a guest's tree of its own. It is killed at the end of the test.
pub(crate) struct Agent {
    root: PathBuf,
    child: Child,
}

impl Agent {
    pub(crate) fn start(root: &Path) -> Self {
        for (path, text) in [
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
            ("etc/group", "root:x:0:\n"),
            (
                "proc/meminfo",
                "MemTotal: 1000 kB\nMemAvailable: 400 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
            ),
            ("proc/loadavg", "0.50 0.40 0.30 2/77 1234\n"),
            ("sys/devices/system/cpu/online", "0-1\n"),
            ("sys/devices/system/cpu/present", "0-2\n"),
            ("sys/devices/system/cpu/cpu0/topology/core_id", "0\n"),
            ("sys/devices/system/cpu/cpu1/online", "1"),
            ("sys/devices/system/cpu/cpu2/online", "0"),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let child = Command::new(&*AGENT)
            .arg("--transport")
            .arg(format!("unix:{}", root.join("agent.sock").display()))
            .arg("--state")
            .arg(root.join("state"))
            .arg("--root")
            .arg(root)
            .arg("--config")
            .arg(root.join("etc/virt-persona/agent.toml"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            root: root.to_owned(),
            child,
        }
    }

    /// As a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Connects as soon as it listens.
    pub(crate) async fn connect(&self) -> UnixStream {
        loop {
            match UnixStream::connect(self.root.join("agent.sock")).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An activation whose script leaves a line in `witness` each time it runs.
pub(crate) fn activation(witness: &Path) -> Operation {
    let script = Script {
        interpreter: "/bin/sh".to_owned(),
        text: format!("echo ran >> '{}'\n", witness.display()),
        timeout_ms: 60_000,
        user: "root".to_owned(),
        on_failure: OnFailure::Rollback,
    };
    Operation::Activate {
        activation: Box::new(Activation {
            generation: 7,
            persona: "builder".to_owned(),
            version: 3,
            digest: "sha256:0".to_owned(),
            environment: BTreeMap::from([("ROLE".to_owned(), "builder".to_owned())]),
            settings: agent_protocol::Settings::default(),
            pre: Some(script),
            post: None,
            commands: agent_protocol::CommandTable::default(),
            rules: agent_protocol::GuestRules::default(),
            adjusted: None,
        }),
    }
}

pub(crate) async fn connected(host: &mut Host) -> virt_persona::agent::AgentFacts {
    loop {
        if let AgentEvent::Connected { facts } = host.event().await {
            return facts;
        }
    }
}

#[tokio::test]
async fn an_activation_whose_answer_was_lost_is_answered_after_the_reconnect_and_executed_once() {
    let mut host = Host::new();
    let root = tempfile::tempdir().unwrap();
    let agent = Agent::start(root.path());
    let listener = UnixListener::bind(host.socket("line")).unwrap();
    host.registry
        .attach(DOMAIN, host.socket("line"), Running::Yes);
    let line = Line::join(accept(&listener).await, agent.connect().await);
    assert_eq!(connected(&mut host).await.active, None);
    let witness = root.path().join("witness");
    line.from_guest.set(Mode::Lose);
    let (registry, operation) = (host.registry.clone(), activation(&witness));
    let answer = tokio::spawn(async move {
        registry
            .request(
                DOMAIN,
                Some(RequestId::new("once").unwrap()),
                operation,
                seconds(120),
            )
            .await
    });
    while fs::read_to_string(&witness).is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    line.cut().await;

    let _line = Line::join(accept(&listener).await, agent.connect().await);
    let reply = answer.await.unwrap();
    let Ok(AgentReply::Activated(activated)) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(
        (activated.generation, activated.outcome),
        (7, Change::Changed)
    );
    assert_eq!(activated.pre.unwrap().exit, Some(0));
    assert_eq!(fs::read_to_string(&witness).unwrap(), "ran\n");

    // The same request under the same id again gives what is stored.
    let request = host.registry.request(
        DOMAIN,
        Some(RequestId::new("once").unwrap()),
        activation(&witness),
        seconds(120),
    );
    let reply = request.await;
    assert!(matches!(reply, Ok(AgentReply::Activated(_))), "{reply:?}");
    assert_eq!(fs::read_to_string(&witness).unwrap(), "ran\n");
}

#[tokio::test]
async fn a_guest_is_asked_before_it_shrinks_and_its_refusal_and_its_slow_hooks_are_told() {
    let mut host = Host::new();
    let root = tempfile::tempdir().unwrap();
    let agent = Agent::start(root.path());
    agent.connect().await;
    host.registry
        .attach(DOMAIN, root.path().join("agent.sock"), Running::Yes);
    connected(&mut host).await;
    let resize = Resize {
        resource: Resource::Memory,
        from: 2,
        to: 1,
    };
    let registry = host.registry.clone();
    let ask =
        |deadline| registry.request(DOMAIN, None, Operation::PrepareShrink { resize }, deadline);
    assert_eq!(
        ask(seconds(60)).await,
        Ok(AgentReply::Consent(Consent::Agreed))
    );
    let hook = root.path().join("etc/virt-persona/hooks/pre-shrink.d/hook");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    let say = |text: &str| {
        fs::write(&hook, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let reason = |reply| match reply {
        Ok(AgentReply::Consent(Consent::Refused { reason, .. })) => reason.as_str().to_owned(),
        other => panic!("{other:?}"),
    };
    say("printf 'not \\033[31mnow\\n'; exit 1");
    let said = reason(ask(seconds(60)).await);
    assert!(
        said.starts_with("hook hook: not") && !said.contains('\u{1b}'),
        "{said}"
    );
    say("exec sleep 1000");
    assert_eq!(
        reason(ask(seconds(2)).await),
        "hook hook did not end in time"
    );
}

#[tokio::test]
async fn an_agent_that_was_killed_comes_back_with_its_persona_and_reports_again() {
    let mut host = Host::new();
    let root = tempfile::tempdir().unwrap();
    let agent = Agent::start(root.path());
    // The agent's own socket is the channel here: QEMU's end and the guest's are one.
    agent.connect().await;
    host.registry
        .attach(DOMAIN, root.path().join("agent.sock"), Running::Yes);
    let first = connected(&mut host).await;
    let witness = root.path().join("witness");
    let reply = host
        .registry
        .request(DOMAIN, None, activation(&witness), seconds(120))
        .await;
    assert!(matches!(reply, Ok(AgentReply::Activated(_))), "{reply:?}");
    assert!(host.registry.ping(DOMAIN).await.is_ok());
    agent.kill();
    loop {
        if let AgentEvent::Lost { reason } = host.event().await {
            assert_eq!(reason, LostReason::Closed);
            break;
        }
    }
    let _agent = Agent::start(root.path());
    let facts = connected(&mut host).await;
    assert_ne!(facts.instance, first.instance);
    let active = facts.active.expect("the persona outlived the agent");
    assert_eq!(
        (active.generation, active.persona.as_str(), active.version),
        (7, "builder", 3)
    );
    loop {
        if let AgentEvent::Telemetry(slot) = host.event().await {
            assert_eq!(slot.take().unwrap().memory_total_kib, 1000);
            break;
        }
    }
}
