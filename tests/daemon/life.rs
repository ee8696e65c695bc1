//! The life of personas through the command line and D-Bus, with the installed programs: daemon, command line, agent.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::agent::Agent;
use crate::program::Site;

const SCENARIO: &str = "
[[domain]]
name = 'web'
vcpus_maximum = 4
memory_mib = 512
virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]
guest = { memory_used_mib = 300 }
agent_channel = 'FOLDER/guest/agent.sock'

[[domain]]
name = 'old'
memory_mib = 256
balloon = 'none'
virtio_serial = false
";

fn front(role: &str) -> String {
    format!(
        "name: front\ndescription: Front end\nbase_configuration:\n  cpu: {{min: 1, max: 4}}\n  memory: {{min: 512 MiB, max: 1 GiB}}\nadaptation_rules:\n  - IF cpu.utilization > 80% FOR 3s THEN add 1 vcpus COOLDOWN 5s\nenvironment_variables:\n  APP_ROLE: {role}\n"
    )
}

fn names(value: &Value) -> Vec<&str> {
    let object = value.as_object().unwrap();
    object.keys().map(String::as_str).collect()
}

#[test]
fn documents_are_stored_read_changed_and_deleted_and_every_refusal_says_why() {
    let site = Site::new(SCENARIO);
    let _daemon = site.start();
    let good = site.write("front.yaml", &front("one"));
    let good = good.to_str().unwrap();
    let bad = site.write("bad.yaml", "name: front\nbase_configuraton: {}\n");
    let bad = bad.to_str().unwrap();

    let stored = site.json(&["create", good, "--note", "the first"]);
    assert_eq!(
        (&stored["name"], &stored["version"]),
        (&"front".into(), &1.into())
    );
    site.refused(&["create", good], &["front", "already", "update"]);
    site.refused(
        &["create", bad],
        &["base_configuraton", "2", "base_configuration"],
    );
    site.refused(&["update", "front", bad], &["base_configuraton"]);
    site.refused(
        &["update", "frnot", good],
        &["frnot", "did you mean `front`"],
    );
    let other = site.write("other.yaml", "name: other\n");
    site.refused(
        &["update", "front", other.to_str().unwrap()],
        &["other", "no version of `front`"],
    );

    assert_eq!(site.json(&["update", "front", good])["change"], "unchanged");
    site.write("front.yaml", &front("two"));
    assert_eq!(site.json(&["update", "front", good])["version"], 2);
    let history = site.json(&["history", "front"]);
    let history = history
        .as_array()
        .or_else(|| history["versions"].as_array())
        .unwrap();
    assert_eq!(history.len(), 2);
    assert_eq!(history[0]["note"], "the first");
    assert!(site.done(&["show", "front"]).contains("two"));
    assert!(site.done(&["show", "front@1"]).contains("one"));
    site.refused(&["show", "front@9"], &["front@9"]);
    site.done(&["set-current", "front@1"]);
    assert!(site.done(&["show", "front"]).contains("one"));
    site.refused(&["set-current", "front@7"], &["front@7"]);
    let listed = site.json(&["list"]).to_string();
    assert!(
        listed.contains("front") && listed.contains("Front end"),
        "{listed}"
    );

    site.done(&["map", "front", "front"]);
    site.refused(&["delete", "front"], &["tag front"]);
    site.done(&["unmap", "front"]);
    site.refused(&["unmap", "front"], &["front"]);
    site.refused(&["map", "front", "nobody"], &["nobody"]);
    site.refused(&["map", "a tag", "front"], &["tag"]);
    site.done(&["apply", "old", "front"]);
    site.refused(&["delete", "front"], &["domain old"]);
    site.done(&["delete", "front", "--force"]);
    site.refused(&["delete", "front"], &["front"]);
    assert_eq!(site.json(&["status", "old"])["persona"], Value::Null);
    site.refused(&["apply", "old", "front"], &["front"]);
    site.refused(&["apply", "wbe", "front"], &["wbe"]);
    site.refused(&["status", "wbe"], &["wbe"]);
    site.refused(&["deactivate", "old"], &["no persona"]);
}

#[test]
fn tags_bind_a_domain_a_conflict_changes_nothing_and_an_applied_persona_goes_before() {
    let site = Site::new(SCENARIO);
    let _daemon = site.start();
    let persona = |status: &Value| status["persona"]["name"].as_str().map(str::to_owned);
    for name in ["one", "two", "three"] {
        let file = site.write("p.yaml", &format!("name: {name}\n"));
        site.done(&["create", file.to_str().unwrap()]);
    }
    site.done(&["map", "one", "one"]);
    site.done(&["map", "two", "two"]);
    site.done(&["tag", "old", "+one"]);
    let status = site.json(&["status", "old"]);
    assert_eq!(persona(&status).as_deref(), Some("one"));
    assert_eq!(
        (&status["persona"]["origin"], &status["persona"]["tag"]),
        (&"tag".into(), &"one".into())
    );
    site.done(&["tag", "old", "+two"]);
    let status = site.json(&["status", "old"]);
    assert_eq!(
        persona(&status).as_deref(),
        Some("one"),
        "a conflict changes nothing"
    );
    let problems = status["problems"].to_string();
    assert!(
        problems.contains("one") && problems.contains("two"),
        "{problems}"
    );
    site.done(&["map", "two", "two", "--priority", "5"]);
    assert_eq!(
        persona(&site.json(&["status", "old"])).as_deref(),
        Some("two")
    );
    site.done(&["apply", "old", "three@1"]);
    let status = site.json(&["status", "old"]);
    assert_eq!(persona(&status).as_deref(), Some("three"));
    assert_eq!(
        (&status["persona"]["origin"], &status["persona"]["pinned"]),
        (&"applied".into(), &true.into())
    );
    site.done(&["deactivate", "old"]);
    assert_eq!(
        persona(&site.json(&["status", "old"])).as_deref(),
        Some("two")
    );
    site.refused(&["deactivate", "old"], &["tag `two`"]);
    site.done(&["tag", "old", "-two", "-one"]);
    assert_eq!(persona(&site.json(&["status", "old"])), None);
    site.refused(&["tag", "old", "+a&b"], &["tag"]);
}

#[test]
fn layers_are_stored_shown_and_compared_by_command() {
    let site = Site::new(SCENARIO);
    let _daemon = site.start();
    let create = |name: &str, text: &str| {
        let file = site.write(&format!("{name}.yaml"), text);
        let file = file.to_str().unwrap().to_owned();
        site.done(&["create", &file]);
        file
    };
    let base = create(
        "base",
        "name: base\nbase_configuration: {cpu: {min: 1, max: 2}}\n",
    );
    let derived = create(
        "derived",
        "name: derived\nextends: base\nenvironment_variables: {APP_ROLE: one}\n",
    );
    let prod = site.write("prod.yaml", "environment_variables: {APP_ROLE: prod}\n");
    site.done(&[
        "map",
        "prod",
        "--override",
        prod.to_str().unwrap(),
        "--priority",
        "2",
    ]);
    assert!(site.done(&["maps"]).contains("override"));
    assert_eq!(
        site.done(&["show", "--override", "prod"]),
        "environment_variables: {APP_ROLE: prod}\n"
    );
    site.done(&["apply", "old", "derived"]);
    site.done(&["tag", "old", "+prod"]);
    let status = site.json(&["status", "old"]);
    assert_eq!(status["persona"]["bases"], serde_json::json!(["base@1"]));
    assert_eq!(status["persona"]["overrides"], serde_json::json!(["prod"]));
    let shown = site.done(&["show", "--effective", "old"]);
    assert!(
        shown.contains("  APP_ROLE: prod # override:1 (tag prod)\n"),
        "{shown}"
    );
    assert!(shown.contains("    max: 2 # base@1:2\n"), "{shown}");
    let values = site.json(&["show", "--effective", "old"])["values"].to_string();
    assert!(values.contains(r#""tag":"prod""#), "{values}");

    // A file is compared with what is stored, on the bases that are stored.
    assert_eq!(site.done(&["diff", "derived@1", &derived]), "");
    site.refused(&["diff", "derived", &base], &[]);
    let larger = site.write(
        "larger.yaml",
        "name: base\nbase_configuration: {cpu: {min: 1, max: 4}}\n",
    );
    site.done(&["update", "base", larger.to_str().unwrap()]);
    let compared = site.cli(&["diff", "base@1", "base", "--json"]);
    assert_eq!(compared.status.code(), Some(1));
    let compared: Value = serde_json::from_slice(&compared.stdout).unwrap();
    assert_eq!(
        compared["differences"],
        serde_json::json!([{"path": "base_configuration.cpu.max", "before": "2", "after": "4"}])
    );
    assert_eq!(
        site.json(&["status", "old"])["persona"]["bases"][0],
        "base@2"
    );
    site.refused(&["delete", "base"], &["persona derived"]);
    site.done(&["unmap", "prod"]);
    let shown = site.done(&["show", "--effective", "old"]);
    assert!(shown.contains("  APP_ROLE: one # derived@1:3\n"), "{shown}");
    site.refused(&["show", "--override", "prod"], &["prod"]);
}

#[test]
fn a_persona_reaches_the_guest_and_every_command_tells_of_it_in_json() {
    let site = Site::new(SCENARIO);
    let agent = Agent::start(&site.path("guest"));
    let daemon = site.start();
    let file = site.write("front.yaml", &front("one"));
    site.done(&["create", file.to_str().unwrap()]);
    let plan = site.json(&["apply", "web", "front", "--dry-run"]);
    assert!(
        plan["lines"]
            .to_string()
            .contains("environment_variables.APP_ROLE"),
        "{plan}"
    );
    assert_eq!(
        site.json(&["status", "web"])["persona"],
        Value::Null,
        "a plan changes nothing"
    );
    site.done(&["apply", "web", "front", "--wait"]);
    let status = site.json(&["status", "web"]);
    assert_eq!(status["activation"]["state"], "active");
    assert_eq!(status["agent"]["state"], "connected");
    for key in [
        "id",
        "name",
        "instance",
        "state",
        "tags",
        "persona",
        "activation",
        "vcpus",
        "memory",
        "agent",
        "readings",
        "last_decision",
        "holds",
        "problems",
    ] {
        assert!(names(&status).contains(&key), "{key}: {status}");
    }
    assert!(agent.environment().unwrap().contains("APP_ROLE"));

    let explained = site.json(&["explain", "web"]);
    for key in [
        "domain",
        "name",
        "at",
        "summary",
        "persona",
        "rules",
        "resources",
    ] {
        assert!(names(&explained).contains(&key), "{key}: {explained}");
    }
    let looked = &explained["rules"][0]["looked"][0];
    assert_eq!(looked["metric"], "cpu.utilization");
    // Nobody measures the CPUs of a machine that is not there, and unknown is not zero.
    assert_eq!(
        (&looked["value"], &looked["truth"]),
        (&Value::Null, &"unknown".into())
    );
    assert!(
        looked["missing"].to_string().contains("not observed"),
        "{looked}"
    );

    let doctor = site.doctor();
    let checks = doctor["checks"].as_array().unwrap();
    let check = |domain: &str, name: &str| {
        checks
            .iter()
            .find(|check| check["domain"] == domain && check["name"] == name)
            .unwrap_or_else(|| panic!("{domain} {name}: {doctor}"))
    };
    assert_eq!(check("web", "agent")["state"], "ok");
    for name in ["vcpu-hotplug", "memory", "agent"] {
        let check = check("old", name);
        assert_eq!(check["state"], "fail", "{check}");
        assert!(
            check["mend"]
                .as_str()
                .is_some_and(|mend| mend.contains("virt-persona adopt")),
            "{check}"
        );
    }

    let audit = site.json(&["audit"]);
    let records = audit["records"].as_array().unwrap();
    let kinds: Vec<_> = records
        .iter()
        .map(|record| record["kind"].as_str().unwrap())
        .collect();
    for kind in ["daemon", "connection", "catalogue", "binding", "activation"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    let numbers: Vec<_> = records
        .iter()
        .map(|record| record["seq"].as_u64().unwrap())
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));

    // Another version follows by itself; then all is taken back.
    site.write("front.yaml", &front("two"));
    site.done(&["update", "front", file.to_str().unwrap()]);
    site.wait_status("the second is active", |status| {
        status["activation"]["state"] == "active" && status["persona"]["version"] == 2
    });
    assert!(agent.environment().unwrap().contains("two"));
    site.done(&["deactivate", "web"]);
    site.wait_status("nothing is active", |status| {
        status["activation"]["state"] == "none"
    });
    assert!(!agent.environment().unwrap_or_default().contains("APP_ROLE"));
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().success());
}

#[test]
fn a_daemon_that_was_killed_finds_everything_as_it_was() {
    let site = Site::new(SCENARIO);
    let agent = Agent::start(&site.path("guest"));
    let count = site.path("count");
    let daemon = site.start();
    let document = front("one")
        + &format!(
            "post_activation_script:\n  text: |\n    #!/bin/sh\n    echo run >> {}\n  timeout: 5s\n",
            count.display()
        );
    let file = site.write("front.yaml", &document);
    site.done(&["create", file.to_str().unwrap()]);
    site.done(&["map", "front", "front", "--priority", "3"]);
    site.done(&["apply", "web", "front", "--wait"]);
    let before = (
        site.json(&["status", "web"])["persona"].clone(),
        site.json(&["maps"]),
    );
    let records = site.json(&["audit"])["records"].as_array().unwrap().clone();
    daemon.kill();
    let _daemon = site.start();
    site.wait_status("the agent is back", |status| {
        status["agent"]["state"] == "connected"
    });
    let status = site.wait_status("it is active", |status| {
        status["activation"]["state"] == "active"
    });
    assert_eq!((status["persona"].clone(), site.json(&["maps"])), before);
    let after = site.json(&["audit"])["records"].as_array().unwrap().clone();
    assert_eq!(after[..records.len()], records);
    assert_eq!(
        fs::read_to_string(&count).unwrap(),
        "run\n",
        "nothing ran twice"
    );
    assert!(agent.environment().unwrap().contains("APP_ROLE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_bus_sees_domains_as_objects_with_properties() {
    let site = Site::new(SCENARIO);
    let _daemon = site.start();
    let connection = zbus::connection::Builder::address(site.address())
        .build()
        .await
        .unwrap();
    let manager =
        zbus::fdo::ObjectManagerProxy::new(&connection, "org.virtpersona1", "/org/virtpersona1")
            .await
            .unwrap();
    let objects = manager.get_managed_objects().await.unwrap();
    let of = |interface: &str| {
        objects
            .values()
            .filter(|interfaces| interfaces.keys().any(|name| name.as_str() == interface))
            .count()
    };
    assert_eq!(of("org.virtpersona1.Domain"), 2, "{:?}", objects.keys());
}
