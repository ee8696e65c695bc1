//! A guest in which qemu-guest-agent is all there is: CPUs, variables and scripts go through it, once, and what it cannot do
//! is said.

use crate::harness::Variant;
use crate::scene::{Guest, Scene};
use crate::{Use, turn};

const ENVIRONMENT: &str = "/etc/environment.d/50-virt-persona.conf";
const PROFILE: &str = "/etc/profile.d/50-virt-persona.sh";
const RUNS: &str = "/run/vpt-runs";

const MODEST: &str = "
name: modest
base_configuration:
  cpu: {min: 1, max: 2}
environment_variables: {COLOUR: green}
os_settings: {sysctl: {vm.swappiness: 10}}
restricted_commands: [nc]
pre_activation_script: {text: 'echo pre $COLOUR $VIRT_PERSONA_STAGE >>/run/vpt-runs', timeout: 60s}
post_activation_script: {text: 'cat /etc/environment.d/50-virt-persona.conf && echo post >>/run/vpt-runs', timeout: 60s}
adaptation_rules:
  - {name: grow, when: cpu.utilization > 10% FOR 1s, then: add 1 vcpus, cooldown: 1s}
";

const BROKEN: &str = "
name: broken
environment_variables: {COLOUR: red}
post_activation_script: {text: 'echo no disk >&2; exit 3', timeout: 60s}
";

#[test]
fn what_qemu_guest_agent_can_do_is_done_once_and_what_it_cannot_is_said() {
    let _turn = turn(Use::WholeHost);
    let scene = Scene::start("");
    let domain = scene.boot("vpt-modest", Variant::QgaAlone, |_| {});
    let web = Guest::of(&domain);
    scene.store(MODEST);
    scene.store(BROKEN);
    scene.bind(&web, "modest");
    scene.until("both scripts have run", || {
        web.read(RUNS).as_deref() == Some("pre green pre\npost\n")
    });
    let detail = || scene.status(&web)["activation"]["detail"].to_string();
    scene.until("it is said what is not in force", || {
        detail().contains("by qemu-guest-agent")
            && detail().contains("not in force in the guest: 1 setting, its commands")
    });
    let green = |path| {
        web.read(path)
            .is_some_and(|text| text.contains("COLOUR") && text.contains("green"))
    };
    assert!(green(ENVIRONMENT) && green(PROFILE));

    web.load_cpus();
    scene.until("the guest has two CPUs online", || web.online() == "0-1");
    scene.until("the step is known to be applied", || {
        scene
            .said(&web, "action")
            .iter()
            .any(|text| text.contains("-> 2 vCPUs") && text.contains(": applied"))
    });
    web.rest();

    // A daemon that is killed finds what was done and does not do it again.
    scene.kill_daemon();
    scene.start_daemon();
    scene.until_active(&web, "modest");

    scene.bind(&web, "broken");
    scene.until("it is said why the other one failed", || {
        let status = scene.status(&web)["activation"].to_string();
        status.contains("failed") && status.contains("exit status 3") && status.contains("no disk")
    });
    assert!(
        green(ENVIRONMENT) && green(PROFILE),
        "what was before is back"
    );

    scene.cli(&["deactivate", web.name()]);
    scene.until("nothing is left in the guest", || {
        web.read(ENVIRONMENT).is_none() && web.read(PROFILE).is_none()
    });
    assert_eq!(web.read(RUNS).as_deref(), Some("pre green pre\npost\n"));
}
