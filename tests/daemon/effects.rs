//! What actions did to metrics: measured, shown with the persona, kept over a restart, and gone with the persona.

use virt_persona::command::{Command, Force};
use virt_persona::view::EffectView;

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
