//! The interfaces as callers find them: `dbus/*.xml` is what is served, every member is documented, and every property
//! that promises to emit its change does.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use persona::units::{Bytes, Moment};
use virt_persona::bus::names;
use virt_persona::hypervisor::RunState;
use virt_persona::view::{
    ActivationState, AgentState, Held, HoldView, HypervisorState, Origin, View,
};
use zbus::fdo::{IntrospectableProxy, PropertiesProxy};

use crate::fake::{Fake, WEB};
use crate::private_bus::PrivateBus;
use crate::{golden, repository};

/// Where an object of each of our interfaces is.
fn objects() -> [(&'static str, String); 3] {
    [
        (names::MANAGER, names::ROOT.to_owned()),
        (names::DOMAIN, names::domain_path(WEB).to_string()),
        (names::PERSONA, names::persona_path("web-high").to_string()),
    ]
}

/// The `<interface>` element as it is served.
async fn interface(connection: &zbus::Connection, name: &str, path: &str) -> String {
    let proxy = IntrospectableProxy::builder(connection)
        .destination(names::SERVICE)
        .path(path.to_owned())
        .build()
        .await
        .expect("a proxy");
    let xml = proxy.introspect().await.expect("the introspection");
    let start = xml
        .find(&format!("<interface name=\"{name}\">"))
        .unwrap_or_else(|| panic!("{path} has no interface {name}:\n{xml}"));
    let end = xml[start..].find("</interface>").expect("its end") + start;
    xml[start..end + "</interface>".len()].to_owned()
}

/// The lines without their indentation and without empty ones.
fn flat(xml: &str) -> Vec<&str> {
    xml.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_interface_files_are_what_is_served() {
    let bus = PrivateBus::start();
    let fake = Fake::start(&bus).await;
    let client = bus.connect().await;
    for (name, path) in objects() {
        let served = interface(&client, name, &path).await;
        let file = format!("dbus/{name}.xml");
        let text = std::fs::read_to_string(repository(&file)).expect("the interface file");
        let start = text.find("  <interface").expect("an interface");
        let end = text.find("</node>").expect("its end");
        // What stands before the interface is for people and is not served.
        let expected = format!("{}  {}\n{}", &text[..start], served, &text[end..]);
        if flat(&text) == flat(&expected) {
            continue;
        }
        golden(&file, &expected);
    }
    fake.stop().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_is_documented_and_every_argument_is_named() {
    let bus = PrivateBus::start();
    let fake = Fake::start(&bus).await;
    let client = bus.connect().await;
    for (name, path) in objects() {
        let served = interface(&client, name, &path).await;
        let lines = flat(&served);
        for (index, line) in lines.iter().enumerate() {
            let member = ["<method ", "<signal ", "<property "]
                .iter()
                .any(|tag| line.starts_with(tag));
            if member {
                assert_eq!(
                    lines[index - 1],
                    "-->",
                    "{name}: {line} has no comment before it"
                );
            }
            if line.starts_with("<arg ") {
                assert!(line.contains("name=\""), "{name}: {line} has no name");
            }
        }
    }
    fake.stop().await.expect("an orderly end");
}

/// Names of the properties that promise to emit their new value.
fn emitting(xml: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for property in xml.split("<property ").skip(1) {
        let body = property.split("</property>").next().unwrap_or(property);
        let tag = body.split('>').next().unwrap_or(body);
        let annotated = !tag.ends_with('/')
            && (body.contains("value=\"const\"") || body.contains("value=\"false\""));
        if !annotated {
            let name = tag
                .split("name=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            names.insert(name.expect("a name").to_owned());
        }
    }
    names
}

fn change_everything(view: &mut View) {
    view.manager.hypervisor.state = HypervisorState::Disconnected;
    view.manager.host.vcpus_granted = Some(4);
    view.manager
        .problems
        .push("the store was set aside".to_owned());
    let persona = view.personas.get_mut("web-high").expect("the persona");
    persona.description = None;
    persona.versions = 3;
    persona.current = 3;
    persona.digest = "d3".repeat(32);
    persona.default = true;
    persona.domains.push("db".to_owned());
    persona.effects.clear();
    let domain = view.domains.get_mut(&WEB).expect("the domain");
    domain.name = "web2".to_owned();
    domain.state = RunState::Paused;
    domain.tags.push("more".to_owned());
    domain.persona.as_mut().expect("a persona").origin = Origin::Applied;
    domain.activation.state = ActivationState::Failed;
    domain.vcpus.guest = Some(3);
    domain.memory.guest = Some(Bytes::from_mib(900));
    domain.agent.state = AgentState::Unresponsive;
    domain.last_decision = None;
    domain.holds.push(HoldView {
        resource: Held::Memory,
        reason: "a person set it".to_owned(),
        until: Some(Moment(5)),
    });
    domain.proposals.clear();
    domain.limits.clear();
    domain.problems.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_property_that_promises_to_emit_its_change_does_so_with_its_new_value() {
    let bus = PrivateBus::start();
    let fake = Fake::start(&bus).await;
    let client = bus.connect().await;
    let mut streams = Vec::new();
    for (name, path) in objects() {
        let proxy = PropertiesProxy::builder(&client)
            .destination(names::SERVICE)
            .path(path.clone())
            .build()
            .await
            .expect("a proxy");
        let stream = proxy
            .receive_properties_changed()
            .await
            .expect("its changes");
        streams.push((name, path, proxy, stream));
    }
    fake.publish(change_everything);
    for (name, path, proxy, mut stream) in streams {
        let signal = stream.next().await.expect("a signal");
        let arguments = signal.args().expect("its arguments");
        assert_eq!(arguments.interface_name.as_str(), name);
        let told: BTreeSet<String> = arguments
            .changed_properties
            .keys()
            .map(|name| (*name).to_owned())
            .collect();
        let promised = emitting(&interface(&client, name, &path).await);
        assert_eq!(told, promised, "{name}");
        let interface = zbus::names::InterfaceName::try_from(name).expect("a name");
        for (property, value) in &arguments.changed_properties {
            let got = proxy
                .get(interface.clone(), property)
                .await
                .expect("the property");
            assert_eq!(*got, *value, "{name}.{property}");
        }
    }
    fake.stop().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_all_the_time_is_no_signal() {
    let bus = PrivateBus::start();
    let fake = Fake::start(&bus).await;
    let client = bus.connect().await;
    let proxy = PropertiesProxy::builder(&client)
        .destination(names::SERVICE)
        .path(names::domain_path(WEB).to_string())
        .build()
        .await
        .expect("a proxy");
    let mut changes = proxy
        .receive_properties_changed()
        .await
        .expect("its changes");
    fake.publish(|view| {
        let domain = view.domains.get_mut(&WEB).expect("the domain");
        domain.agent.last_seen_ms = Some(1);
        domain.proposals[0].why[0].value = 94.0;
        domain.readings.clear();
        view.manager.ticks += 1;
    });
    fake.publish(|view| {
        view.domains.get_mut(&WEB).expect("the domain").vcpus.guest = Some(3);
    });
    // The first signal is the one for the later change: there was none for the earlier.
    let signal = changes.next().await.expect("a signal");
    let arguments = signal.args().expect("its arguments");
    let told: Vec<&&str> = arguments.changed_properties.keys().collect();
    assert_eq!(told, [&"Vcpus"]);
    drop(changes);
    fake.stop().await.expect("an orderly end");
}
