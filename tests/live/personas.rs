//! What a persona brings into a guest: scripts and environment, exactly once for each activation, over restarts of the
//! guest and changes of tags; and what happens when a script fails.

use crate::scene::{Guest, Scene, must};
use crate::{Use, turn};

const ENVIRONMENT: &str = "/etc/environment.d/50-virt-persona.conf";
const PROFILE: &str = "/etc/profile.d/50-virt-persona.sh";
/// Written by scripts; gone with each boot.
const RUNS: &str = "/run/vpt-runs";

const COUNTED: &str = "
name: counted
environment_variables: {COLOUR: green}
pre_activation_script: {text: echo pre >>/run/vpt-runs, timeout: 20s}
post_activation_script: {text: echo post >>/run/vpt-runs, timeout: 20s}
";

fn restarted(scene: &Scene, guest: &Guest<'_>, how: &str, restart: impl Fn()) {
    let before = guest.boot_id();
    assert!(before.is_some(), "the guest is up");
    let connections = connections(scene, guest);
    restart();
    scene.until(&format!("the guest is up again after {how}"), || {
        guest.boot_id().is_some_and(|boot| Some(boot) != before)
    });
    scene.until(
        &format!("the agent of the boot after {how} is connected"),
        || {
            let boot = guest.status().boot_id;
            scene
                .said(guest, "connection")
                .iter()
                .skip(connections)
                .any(|text| text.contains(&boot))
        },
    );
}

fn connections(scene: &Scene, guest: &Guest<'_>) -> usize {
    scene.said(guest, "connection").len()
}

fn confirmations(scene: &Scene, guest: &Guest<'_>) -> usize {
    scene
        .said(guest, "activation")
        .iter()
        .filter(|text| text.contains("the guest confirms"))
        .count()
}

#[test]
fn a_guest_that_keeps_nothing_is_activated_once_in_each_boot() {
    let _turn = turn(Use::PartOfHost);
    let scene = Scene::start("");
    let domain = scene.boot_full("vpt-forgets");
    let web = Guest::of(&domain);
    scene.store(COUNTED);
    scene.apply(&web, "counted");
    let whole =
        || web.read(RUNS).as_deref() == Some("pre\npost\n") && scene.is_active(&web, "counted");
    assert!(whole());
    assert!(
        web.read(ENVIRONMENT)
            .unwrap_or_default()
            .contains("COLOUR=\"green\"")
    );

    let restarts: [(&str, &dyn Fn()); 2] = [
        ("a reset", &|| must(domain.reset())),
        ("its own reboot", &|| must(web.witness.reboot())),
    ];
    for (number, (how, restart)) in restarts.into_iter().enumerate() {
        restarted(&scene, &web, how, restart);
        scene.until(
            &format!("both scripts have run once in the boot after {how}"),
            whole,
        );
        assert_eq!(confirmations(&scene, &web), number + 2);
        assert!(
            web.read(ENVIRONMENT)
                .unwrap_or_default()
                .contains("COLOUR=\"green\"")
        );
    }
}

#[test]
fn a_guest_that_keeps_its_state_is_still_active_after_a_restart_and_runs_no_script_again() {
    let _turn = turn(Use::PartOfHost);
    let scene = Scene::start("");
    let domain = scene.boot_with_disk("vpt-keeps");
    let web = Guest::of(&domain);
    scene.store(COUNTED);
    scene.apply(&web, "counted");
    assert_eq!(web.read(RUNS).as_deref(), Some("pre\npost\n"));

    let restarts: [(&str, &dyn Fn()); 2] = [
        ("a reset", &|| must(domain.reset())),
        ("its own reboot", &|| must(web.witness.reboot())),
    ];
    for (how, restart) in restarts {
        restarted(&scene, &web, how, restart);
        scene.until(&format!("the environment is there after {how}"), || {
            scene.is_active(&web, "counted")
                && web
                    .read(ENVIRONMENT)
                    .is_some_and(|text| text.contains("COLOUR=\"green\""))
        });
        assert_eq!(web.read(RUNS), None, "a script ran again after {how}");
        assert_eq!(confirmations(&scene, &web), 1);
    }
}

#[test]
fn tags_set_by_virsh_switch_the_persona_live_and_a_conflict_changes_nothing() {
    let _turn = turn(Use::PartOfHost);
    let scene = Scene::start("");
    let domain = scene.boot_full("vpt-tags");
    let web = Guest::of(&domain);
    for colour in ["red", "blue"] {
        scene.store(&format!(
            "name: {colour}\nenvironment_variables: {{COLOUR: {colour}}}\n"
        ));
        scene.map(&format!("vpt-{colour}"), colour, 5);
    }
    let shows = |colour: &str| {
        [ENVIRONMENT, PROFILE]
            .iter()
            .all(|path| web.read(path).is_some_and(|text| text.contains(colour)))
    };
    for colour in ["red", "blue"] {
        must(domain.tag(&[&format!("vpt-{colour}")]));
        scene.until(&format!("the guest is {colour}"), || {
            shows(colour) && scene.is_active(&web, colour)
        });
    }

    must(domain.tag(&["vpt-red", "vpt-blue"]));
    scene.until(
        "two tags of one priority are reported as a conflict",
        || {
            scene.status(&web)["problems"]
                .to_string()
                .contains("vpt-red")
        },
    );
    let check = scene.check(&web, "persona");
    assert_eq!(check["state"], "fail", "{check}");
    assert!(
        check["sentence"].to_string().contains("vpt-blue"),
        "{check}"
    );
    assert!(
        scene.is_active(&web, "blue") && shows("blue"),
        "the last good state holds"
    );

    // A higher priority decides, and the problem is over.
    scene.map("vpt-red", "red", 6);
    scene.until("the tag of the higher priority wins", || {
        shows("red") && scene.is_active(&web, "red")
    });
    assert_eq!(scene.status(&web)["problems"], serde_json::json!([]));

    must(domain.tag(&[]));
    scene.until("nothing is left in the guest", || {
        web.read(ENVIRONMENT).is_none()
            && web.read(PROFILE).is_none()
            && scene.status(&web)["activation"]["state"] == "none"
    });
    assert_eq!(scene.status(&web)["persona"], serde_json::Value::Null);
}

#[test]
fn a_failing_script_undoes_the_activation_unless_it_is_to_be_kept() {
    let _turn = turn(Use::PartOfHost);
    let scene = Scene::start("");
    let domain = scene.boot_full("vpt-scripts");
    let web = Guest::of(&domain);
    scene.store("name: bad-pre\nenvironment_variables: {COLOUR: never}\npre_activation_script: {text: 'echo no coffee >&2; exit 3', timeout: 20s}\n");
    let refusal = scene.refused(&["apply", web.name(), "bad-pre", "--wait"]);
    let failed = |reason: &str| {
        let status = scene.status(&web);
        assert_eq!(status["activation"]["state"], "failed", "{status}");
        let detail = status["activation"]["detail"].to_string();
        assert!(detail.contains(reason), "{detail}");
    };
    failed("3");
    assert!(refusal.contains("3"), "{refusal}");
    assert_eq!(
        web.read(ENVIRONMENT),
        None,
        "the environment of an activation that was given up is there"
    );
    let check = scene.check(&web, "activation");
    assert_eq!(check["state"], "fail", "{check}");
    assert!(check["mend"].is_string(), "{check}");

    // What was active before comes back.
    scene.store("name: good\nenvironment_variables: {COLOUR: green}\n");
    scene.apply(&web, "good");
    scene.store("name: bad-post\nenvironment_variables: {COLOUR: never}\npost_activation_script: {text: exit 4, timeout: 20s}\n");
    scene.refused(&["apply", web.name(), "bad-post", "--wait"]);
    failed("4");
    assert!(
        web.read(ENVIRONMENT)
            .is_some_and(|text| text.contains("COLOUR=\"green\"")),
        "the environment before did not come back"
    );

    scene.store("name: kept\nenvironment_variables: {COLOUR: kept}\npost_activation_script: {text: exit 5, timeout: 20s, on_failure: keep}\n");
    scene.apply(&web, "kept");
    assert!(
        web.read(ENVIRONMENT)
            .is_some_and(|text| text.contains("kept"))
    );
    let said = scene.said(&web, "activation");
    assert!(
        said.iter().any(|text| text.contains("exited with 5")),
        "{said:#?}"
    );
}
