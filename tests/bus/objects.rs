//! Objects come and go with domains and personas; a change is there for its caller; the name belongs to one.

use futures_util::StreamExt;
use persona::domain::DomainId;
use virt_persona::bus::{self, BusError, Client, ClientError, Watched, names};
use virt_persona::command::Force;
use zbus::fdo::{DBusProxy, ObjectManagerProxy};

use crate::fake::{DB, Fake, WEB, bare, record};
use crate::private_bus::PrivateBus;

const NEW: DomainId = DomainId([0x77; 16]);

async fn object_manager(connection: &zbus::Connection) -> ObjectManagerProxy<'static> {
    ObjectManagerProxy::builder(connection)
        .destination(names::SERVICE)
        .path(names::ROOT)
        .build()
        .await
        .expect("a proxy")
}

/// The paths that have an interface of ours.
async fn paths(manager: &ObjectManagerProxy<'_>) -> Vec<String> {
    let objects = manager.get_managed_objects().await.expect("the objects");
    let mut paths: Vec<String> = objects
        .into_iter()
        .filter(|(_, interfaces)| {
            interfaces
                .keys()
                .any(|name| name.as_str().starts_with(names::SERVICE))
        })
        .map(|(path, _)| path.to_string())
        .collect();
    paths.sort();
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_come_and_go_with_domains_and_personas() {
    let bus = PrivateBus::start();
    let fake = Fake::start(&bus).await;
    let client = bus.connect().await;
    let manager = object_manager(&client).await;
    let mut expected = vec![
        names::domain_path(WEB).to_string(),
        names::domain_path(DB).to_string(),
        names::persona_path("fails").to_string(),
        names::persona_path("web-high").to_string(),
    ];
    expected.sort();
    assert_eq!(paths(&manager).await, expected);

    let mut added = manager.receive_interfaces_added().await.expect("a stream");
    fake.publish(|view| {
        view.domains.insert(NEW, bare(NEW, "new"));
    });
    let signal = added.next().await.expect("a signal");
    let arguments = signal.args().expect("its arguments");
    assert_eq!(arguments.object_path, *names::domain_path(NEW));
    let properties = &arguments.interfaces_and_properties[names::DOMAIN];
    assert_eq!(properties["Name"], zbus::Variant::from("new"));
    drop(added);

    let mut removed = manager
        .receive_interfaces_removed()
        .await
        .expect("a stream");
    fake.publish(|view| {
        view.domains.remove(&NEW);
    });
    let signal = removed.next().await.expect("a signal");
    assert_eq!(
        signal.args().expect("its arguments").object_path,
        *names::domain_path(NEW)
    );
    drop(removed);
    assert_eq!(paths(&manager).await, expected);
    fake.stop().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sees_the_name_sees_the_objects() {
    let bus = PrivateBus::start();
    let client = bus.connect().await;
    let owners = DBusProxy::new(&client).await.expect("the bus");
    let mut changes = owners
        .receive_name_owner_changed_with_args(&[(0, names::SERVICE)])
        .await
        .expect("a stream");
    let look = tokio::spawn({
        let client = client.clone();
        async move {
            changes.next().await.expect("the name's first owner");
            paths(&object_manager(&client).await).await
        }
    });
    let fake = Fake::start(&bus).await;
    assert_eq!(look.await.expect("the look").len(), 4);
    fake.stop().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_on_the_bus_when_its_caller_has_the_answer() {
    let bus = PrivateBus::start();
    let fake = Fake::start(&bus).await;
    let client = Client::connect(bus.choice()).await.expect("a client");
    for round in 0..3_u8 {
        let name = format!("p{round}");
        // The bus is busy with these when the change comes, so that its object would be late if nobody waited for it.
        fake.publish(|view| {
            for number in 0..=u8::MAX {
                let id = DomainId([number, round, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
                view.domains.insert(id, bare(id, &id.to_string()));
            }
        });
        client
            .create("{}", None, Some(name.clone()), None)
            .await
            .expect("a persona");
        let shown = client.show(&name, Some(1)).await.expect("its object");
        assert_eq!(shown.version.name, name);
        client.delete(&name, Force::No).await.expect("its end");
        let gone = client.show(&name, None).await;
        assert!(
            matches!(&gone, Err(ClientError::Refused { error, .. }) if error == "NotFound"),
            "{gone:?}"
        );
    }
    fake.stop().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_views_survive_the_bus_as_they_were() {
    let bus = PrivateBus::start();
    let fake = Fake::start(&bus).await;
    let client = Client::connect(bus.choice()).await.expect("a client");
    let view = fake.views.borrow().clone();
    let domains: Vec<_> = view.domains.values().cloned().collect();
    let personas: Vec<_> = view.personas.values().cloned().collect();
    assert_eq!(client.manager().await.expect("the manager"), view.manager);
    assert_eq!(client.domains().await.expect("domains"), domains);
    assert_eq!(client.personas().await.expect("personas"), personas);
    assert_eq!(client.mappings().await.expect("mappings"), view.mappings);
    for name in ["web".to_owned(), "3".to_owned(), WEB.to_string()] {
        assert_eq!(
            client.status(&name).await.expect("a domain"),
            view.status(&view.domains[&WEB])
        );
    }
    let audit = client.audit(None, None, 10).await.expect("the audit");
    assert_eq!(audit.records, [record(1), record(2)]);
    fake.stop().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_announced_in_order_and_more_than_a_queue_of_them() {
    let bus = PrivateBus::start();
    let fake = Fake::start(&bus).await;
    let client = Client::connect(bus.choice()).await.expect("a client");
    let mut watch = client.watch().await.expect("a watch");
    for seq in 1..=200 {
        fake.events.send(record(seq)).expect("the bus listens");
        let seen = watch
            .next()
            .await
            .expect("the watch goes on")
            .expect("a record");
        assert_eq!(seen, Watched::Record(Box::new(record(seq))));
    }
    drop(watch);
    fake.stop().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_signals_holds_nobody_up() {
    let bus = PrivateBus::start();
    let fake = Fake::start(&bus).await;
    let idle = Client::connect(bus.choice()).await.expect("a client");
    let _unread = idle.watch().await.expect("a watch");
    let client = Client::connect(bus.choice()).await.expect("a client");
    let mut watch = client.watch().await.expect("a watch");
    for seq in 1..=300 {
        fake.events.send(record(seq)).expect("the bus listens");
        let seen = watch
            .next()
            .await
            .expect("the watch goes on")
            .expect("a record");
        assert_eq!(seen, Watched::Record(Box::new(record(seq))));
    }
    client.domains().await.expect("the daemon answers");
    drop(watch);
    fake.stop().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let bus = PrivateBus::start();
    let fake = Fake::start(&bus).await;
    let (requests, _requests) = tokio::sync::mpsc::channel(1);
    let second = bus::serve(
        bus.choice(),
        requests,
        fake.views.subscribe(),
        fake.events.subscribe(),
    )
    .await;
    assert!(
        matches!(second, Err(BusError::NameTaken { .. })),
        "{second:?}"
    );
    let client = Client::connect(bus.choice()).await.expect("a client");
    assert_eq!(client.domains().await.expect("the first daemon").len(), 2);
    fake.stop().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_bus_ends_the_service_with_an_error() {
    let bus = PrivateBus::start();
    let (views, receiver) = tokio::sync::watch::channel(std::sync::Arc::new(
        virt_persona::view::View::empty(virt_persona::view::ManagerView {
            version: "0.1.0".to_owned(),
            started: persona::Moment(0),
            hypervisor: virt_persona::view::HypervisorView {
                state: virt_persona::view::HypervisorState::Disconnected,
                uri: "qemu:///system".to_owned(),
                library: None,
                emulator: None,
                detail: None,
            },
            host: virt_persona::view::HostView::default(),
            ticks: 0,
            overruns: 0,
            problems: Vec::new(),
        }),
    ));
    let (_events, events) = tokio::sync::broadcast::channel(1);
    let (requests, _requests) = tokio::sync::mpsc::channel(1);
    let served = bus::serve(bus.choice(), requests, receiver, events)
        .await
        .expect("the service");
    let run = tokio::spawn(served.run());
    drop(bus);
    let end = run.await.expect("the task");
    assert!(matches!(end, Err(BusError::Closed { .. })), "{end:?}");
    drop(views);
}
