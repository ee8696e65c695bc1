//! What actions did to metrics: measured, shown with the persona, kept over a restart, and gone with the persona.

use std::fs;

use virt_persona::command::{Command, Force};
use virt_persona::view::{ActivationState, EffectView};

use crate::agent::Agent;
use crate::stage::{Running, Stage, mib};

const WEB: &str = "
[[domain]]
name = 'web'
memory_mib = 512
virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]
guest = { memory_used_mib = 300 }
";

/// One step, long after the start, so that there is a time before it.
const GROWS: &str = "
name: grows
priority_metrics: {memory.utilization: 0.7, memory.size: 0.3}
base_configuration:
  memory: {min: 512 MiB, max: 768 MiB}
adaptation_rules:
  - {name: grow, when: memory.utilization > 70% FOR 5s, then: set memory to 768 MiB}
";

fn effects(daemon: &Running) -> Vec<EffectView> {
    daemon.view().personas["grows"].effects.clone()
}

#[test]
fn what_actions_did_is_measured_shown_and_kept() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(GROWS);
    daemon.apply("web", "grows");
    stage.simulated.set_memory_used(web, mib(450));
    daemon.wait_memory(web, |now| now == 768);
    daemon.wait("the effect is measured", |view| {
        !view.personas["grows"].effects.is_empty()
    });
    let measured = effects(&daemon);
    let of = |metric: &str| {
        let mut found = measured.iter().filter(|effect| effect.metric == metric);
        found
            .next()
            .unwrap_or_else(|| panic!("nothing of {metric}: {measured:?}"))
    };
    // 450 of 512 MiB before, 450 of 768 after; one action proves nothing.
    let utilization = of("memory.utilization");
    assert_eq!(
        (utilization.rule.as_str(), utilization.actions),
        ("grow", 1)
    );
    assert!((utilization.before - 87.9).abs() < 3.0, "{utilization:?}");
    assert!((utilization.change + 29.3).abs() < 3.0, "{utilization:?}");
    assert_eq!((utilization.margin, utilization.confidence), (None, None));
    let status = daemon.view().status(&daemon.view().domains[&web]);
    assert_eq!(status.effects, measured);

    daemon.stop();
    let daemon = stage.start();
    daemon.wait("the persona is there", |view| {
        view.personas.contains_key("grows")
    });
    assert_eq!(effects(&daemon), measured);
    daemon
        .ask(Command::DeletePersona {
            name: "grows".into(),
            force: Force::Yes,
        })
        .unwrap();
    daemon.create(GROWS);
    assert_eq!(effects(&daemon), []);
}

const TALKING: &str = "
[[domain]]
name = 'web'
memory_mib = 512
agent_channel = 'FOLDER/guest/agent.sock'
";

/// The guest evaluates the rule, some time after its load is known.
const DRAINS: &str = "
name: grows
priority_metrics: {guest.load: 1.0}
response_scripts: {drain: 'true'}
adaptation_rules:
  - {name: drain, when: guest.app.queue > 10 AND guest.load > 0 FOR 5s, then: run drain}
";

#[test]
fn what_a_rule_did_in_the_guest_is_measured_by_its_record() {
    let stage = Stage::new(TALKING);
    let web = stage.id("web");
    let guest = stage.path().join("guest");
    let agent = Agent::start(&guest);
    let daemon = stage.start();
    daemon.create(DRAINS);
    daemon.apply("web", "grows");
    daemon.wait_domain(web, "its guest has the persona", |domain| {
        domain.activation.state == ActivationState::Active
    });
    agent.emit(&["queue=20"]);
    daemon.wait_record("the rule has fired in the guest", |record| {
        record.text.contains("in the guest rule drain fired")
    });
    fs::write(guest.join("proc/loadavg"), "0.10 0.10 0.10 2/77 1234\n").unwrap();
    daemon.wait("the effect is measured", |view| {
        !view.personas["grows"].effects.is_empty()
    });
    let measured = effects(&daemon);
    assert_eq!(measured.len(), 1, "{measured:?}");
    let load = &measured[0];
    assert_eq!((load.rule.as_str(), load.actions), ("drain", 1));
    assert_eq!(load.metric, "guest.load");
    assert!((load.before - 0.5).abs() < 0.01, "{load:?}");
    assert!(load.change < 0.0, "{load:?}");
}
