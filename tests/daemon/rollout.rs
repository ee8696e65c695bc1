//! A changed persona goes from domain to domain: in which order, where it stops, who stays on what, and what takes it further.

use virt_persona::command::{Command, DomainName, Reply};
use virt_persona::view::{ActivationState, DomainView, RolloutState, VersionView};

use crate::agent::Agent;
use crate::stage::{Running, Stage};

/// Three with an agent each, and one without, which comes last.
const FOUR: &str = "
[[domain]]
name = 'a'
memory_mib = 256
vcpus_maximum = 8
agent_channel = 'FOLDER/a/agent.sock'
tags = ['front']

[[domain]]
name = 'b'
memory_mib = 256
vcpus_maximum = 8
agent_channel = 'FOLDER/b/agent.sock'
tags = ['front']

[[domain]]
name = 'c'
memory_mib = 256
vcpus_maximum = 8
agent_channel = 'FOLDER/c/agent.sock'
tags = ['front']

[[domain]]
name = 'd'
memory_mib = 256
vcpus_maximum = 8
tags = ['front']
";

struct Host {
    stage: Stage,
    _agents: Vec<Agent>,
}

impl Host {
    /// With the first version of the persona active everywhere.
    fn new() -> (Self, Running) {
        let stage = Stage::new(FOUR);
        let agents = ["a", "b", "c"].map(|name| Agent::start(&stage.path().join(name)));
        let daemon = stage.start();
        daemon.create(&document(1, ""));
        daemon.map("front", "front");
        let host = Self {
            stage,
            _agents: agents.into(),
        };
        for name in ["a", "b", "c"] {
            host.wait(&daemon, name, "the first is active", |domain| {
                has(domain) == (1, 1) && domain.activation.state == ActivationState::Active
            });
        }
        (host, daemon)
    }

    #[track_caller]
    fn wait(
        &self,
        daemon: &Running,
        name: &str,
        what: &str,
        good: impl FnMut(&DomainView) -> bool,
    ) -> DomainView {
        daemon.wait_domain(self.stage.id(name), &format!("{name}: {what}"), good)
    }

    /// A script that fails in the second guest that runs it, until `mended` is there.
    fn second_fails(&self) -> String {
        let folder = self.stage.path().display();
        format!(
            "pre_activation_script:\n  text: |\n    #!/bin/sh\n    echo run >> {folder}/runs\n    test -e {folder}/mended || test $(wc -l < {folder}/runs) -ne 2\n  timeout: 20s\n"
        )
    }

    fn runs(&self) -> usize {
        let runs = std::fs::read_to_string(self.stage.path().join("runs"));
        runs.unwrap_or_default().lines().count()
    }
}

fn document(version: u32, more: &str) -> String {
    format!(
        "name: front\nbase_configuration:\n  cpu: {{min: 1, max: {version}}}\nenvironment_variables: {{ROLE: v{version}}}\n{more}"
    )
}

/// The version that it is bound to, and the one in force.
fn has(domain: &DomainView) -> (u32, u32) {
    let bound = domain.persona.as_ref().map(|bound| bound.version);
    (
        bound.unwrap_or_default(),
        domain.vcpus.persona_max.unwrap_or_default(),
    )
}

/// Whether it is told that a rollout has not reached it.
fn is_left(domain: &DomainView) -> bool {
    domain.problems.iter().any(|text| text.contains("front@"))
}

fn update(daemon: &Running, document: &str) {
    let updated = daemon.ask(Command::UpdatePersona {
        name: "front".into(),
        document: document.into(),
        format: None,
        note: None,
    });
    assert!(matches!(updated, Ok(Reply::Stored(_))), "{updated:?}");
}

fn current(daemon: &Running) -> VersionView {
    match daemon.ask(Command::History {
        name: "front".into(),
    }) {
        Ok(Reply::History(versions)) => versions.into_iter().find(|of| of.current).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_update_stops_at_the_first_failure_and_the_rest_stays_on_what_it_has_until_the_next() {
    let (host, daemon) = Host::new();
    let second = document(2, &host.second_fails());
    update(&daemon, &second);
    let failed = host.wait(&daemon, "b", "it failed", |domain| {
        domain.activation.state == ActivationState::Failed
    });
    assert_eq!(has(&failed), (2, 1), "the version before stays in force");
    host.wait(&daemon, "a", "it has the second", |domain| {
        has(domain) == (2, 2)
    });
    for name in ["c", "d"] {
        let left = host.wait(&daemon, name, "it is told", |domain| {
            domain
                .problems
                .iter()
                .any(|text| text.contains("front@2 failed on domain b"))
        });
        assert_eq!(has(&left), (1, 1));
    }
    let rollout = current(&daemon).rollout.unwrap();
    assert_eq!(rollout.state, RolloutState::Stopped);
    assert_eq!(rollout.waiting, ["c", "d"]);
    daemon.wait_record("the stop is recorded", |record| {
        record.text.contains("front@2 failed on domain b") && record.text.contains("2 domains keep")
    });
    assert_eq!(host.runs(), 2);

    // The next daemon leaves them where they are, too.
    daemon.kill();
    let daemon = host.stage.start();
    host.wait(&daemon, "c", "its agent is back", |domain| {
        domain.activation.state == ActivationState::Active
            && domain.agent.state == virt_persona::view::AgentState::Connected
    });
    for name in ["c", "d"] {
        let view = daemon.view();
        assert_eq!(has(&view.domains[&host.stage.id(name)]), (1, 1));
    }
    assert_eq!(host.runs(), 2);

    // Another version goes to all, those that were left included.
    update(&daemon, &document(3, ""));
    for name in ["a", "b", "c", "d"] {
        host.wait(&daemon, name, "it has the third", |domain| {
            has(domain) == (3, 3) && !is_left(domain)
        });
    }
    assert_eq!(current(&daemon).rollout, None);
    daemon.wait_record("the end is recorded", |record| {
        record.text == "front@3 has gone to 4 domains"
    });
}

#[test]
fn the_same_once_more_goes_on_where_it_stopped_and_apply_takes_one_domain_there() {
    let (host, daemon) = Host::new();
    let second = document(2, &host.second_fails());
    update(&daemon, &second);
    host.wait(&daemon, "b", "it failed", |domain| {
        domain.activation.state == ActivationState::Failed
    });
    host.wait(&daemon, "d", "it is left", is_left);
    daemon.apply("d", "front");
    host.wait(&daemon, "d", "a person takes it there", |domain| {
        has(domain) == (2, 2) && !is_left(domain)
    });
    assert_eq!(current(&daemon).rollout.unwrap().waiting, ["c"]);
    // Other tags give another persona at once.
    daemon.create("name: other\n");
    daemon.map("other", "other");
    let c = host.stage.id("c");
    host.stage.simulated.set_tags(c, &["other"]);
    daemon.wait_domain(c, "it has the other", |domain| {
        domain
            .persona
            .as_ref()
            .is_some_and(|bound| bound.name == "other")
    });
    host.stage.simulated.set_tags(c, &["front"]);
    daemon.wait_domain(c, "it comes back to what is current", |domain| {
        has(domain) == (2, 2)
    });
    std::fs::write(host.stage.path().join("mended"), "").unwrap();
    // Nobody is left, so the same document changes nothing; the person names the domain.
    update(&daemon, &second);
    let tag = daemon.ask(Command::Deactivate {
        domain: DomainName("d".into()),
    });
    assert!(matches!(tag, Ok(Reply::Applied(_))), "{tag:?}");
    daemon.apply("b", "front");
    host.wait(&daemon, "b", "it has the second", |domain| {
        has(domain) == (2, 2)
    });
}

#[test]
fn a_rollout_that_stopped_is_taken_further_by_the_same_update() {
    let (host, daemon) = Host::new();
    let second = document(2, &host.second_fails());
    update(&daemon, &second);
    host.wait(&daemon, "d", "it is left", |domain| {
        domain
            .problems
            .iter()
            .any(|text| text.contains("failed on domain b"))
    });
    std::fs::write(host.stage.path().join("mended"), "").unwrap();
    update(&daemon, &second);
    for name in ["a", "b", "c", "d"] {
        host.wait(&daemon, name, "it has the second", |domain| {
            has(domain) == (2, 2) && !is_left(domain)
        });
    }
    assert_eq!(host.runs(), 4, "a had it already");
}
