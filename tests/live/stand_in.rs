//! A guest in which qemu-guest-agent is all there is: CPUs, variables and scripts go through it, once, and what it cannot do
//! is said.

use crate::harness::Variant;
use crate::scene::{Guest, Scene, must};
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

const AS_NOBODY: &str = "
name: as-nobody
environment_variables: {COLOUR: blue}
pre_activation_script: {text: 'id -un >/tmp/vpt-who', user: nobody, timeout: 60s}
post_activation_script: {text: 'echo \"-b guest-exec\" >/run/qga-options', timeout: 60s}
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

#[test]
fn a_qemu_guest_agent_that_hangs_or_may_run_nothing_is_said_to_be_so() {
    let _turn = turn(Use::PartOfHost);
    let scene = Scene::start("");
    let domain = scene.boot("vpt-modest", Variant::QgaAlone, |_| {});
    let web = Guest::of(&domain);
    let detail = || scene.status(&web)["activation"]["detail"].to_string();
    for document in [MODEST, AS_NOBODY] {
        scene.store(document);
    }

    scene.until("it runs", || web.witness.kill("qemu-ga", "SIGCONT").is_ok());
    // It is asked again when it has come to.
    must(web.witness.kill("qemu-ga", "SIGSTOP"));
    scene.bind(&web, "as-nobody");
    scene.until("it is said that nobody answers", || {
        detail().contains("qemu-guest-agent does not carry out")
    });
    assert_eq!(web.read(ENVIRONMENT), None);
    must(web.witness.kill("qemu-ga", "SIGCONT"));
    scene.until_active(&web, "as-nobody");
    assert_eq!(web.read("/tmp/vpt-who").as_deref(), Some("nobody\n"));

    // An owner who allows no programs, as some distributions do by default, is named the command that is missing.
    must(web.witness.kill("qemu-ga", "SIGKILL"));
    scene.bind(&web, "modest");
    scene.until("it is said what the guest does not allow", || {
        detail().contains("does not allow `guest-exec`")
    });
    assert_eq!(web.read(RUNS), None, "nothing ran");
}
