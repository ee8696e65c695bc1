//! The library, its events and its errors for real, on the test driver that libvirt carries inside: no libvirtd, no
//! emulator. All connections of this process share its host, so each test has domains of its own names.

use std::time::Duration;

use super::*;
use crate::hypervisor::{HypervisorEvent, Lifecycle};

const URI: &str = "test:///default";

/// Opens and waits until it is connected.
/// Far longer than any event takes on a busy machine.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

async fn opened() -> (Arc<Libvirt>, Events) {
    let (libvirt, mut events) = open(URI);
    assert_eq!(events.recv().await, Some(HypervisorEvent::Connected));
    (libvirt, events)
}

/// A second connection in place of a person with virsh.
fn person() -> Connect {
    Connect::open(Some(URI)).unwrap()
}

fn define(connect: &Connect, name: &str) -> (Domain, DomainId) {
    let xml = format!(
        "<domain type='test'><name>{name}</name><memory unit='MiB'>64</memory><vcpu current='1'>4</vcpu>
         <os><type>hvm</type></os></domain>"
    );
    let domain = connect.define_domain_xml(&xml).unwrap();
    let id = DomainId::parse(&domain.uuid_string().unwrap()).unwrap();
    (domain, id)
}

/// The next event of this domain that is of interest.
async fn next(events: &mut Events, id: DomainId) -> HypervisorEvent {
    loop {
        // An event that never comes is a failure and not a test that never ends.
        let event = tokio::time::timeout(PATIENCE, events.recv()).await;
        let event = event.expect("an event in time").unwrap();
        let domain = match &event {
            HypervisorEvent::Lifecycle { domain, .. }
            | HypervisorEvent::MetadataChanged { domain, .. } => *domain,
            _ => continue,
        };
        if domain == id {
            return event;
        }
    }
}

#[tokio::test]
async fn a_domains_life_is_told_as_it_happens() {
    let (_libvirt, mut events) = opened().await;
    let person = person();
    let (domain, id) = define(&person, "life");
    domain.create().unwrap();
    domain.suspend().unwrap();
    domain.resume().unwrap();
    domain.destroy().unwrap();
    domain.undefine().unwrap();
    for change in [
        Lifecycle::Defined,
        Lifecycle::Started,
        Lifecycle::Suspended,
        Lifecycle::Resumed,
        Lifecycle::Stopped,
        Lifecycle::Undefined,
    ] {
        let expected = HypervisorEvent::Lifecycle { domain: id, change };
        assert_eq!(next(&mut events, id).await, expected);
    }
}

#[tokio::test]
async fn vcpus_are_set_on_the_running_domain_and_described() {
    let (libvirt, _events) = opened().await;
    let person = person();
    let (domain, id) = define(&person, "vcpus");
    domain.create().unwrap();
    libvirt.set_vcpus(id, 3).await.unwrap();
    let description = libvirt.describe(id).await.unwrap();
    assert_eq!(description.vcpus_plugged, 3);
    assert_eq!(description.vcpus_maximum, 4);
    assert_eq!(description.state, RunState::Running);
    assert_eq!(description.memory_boot, Bytes::from_mib(64));
    let all = libvirt.domains().await.unwrap();
    assert!(all.contains(&description));
}

#[tokio::test]
async fn a_refusal_carries_the_librarys_words_and_number() {
    let (libvirt, _events) = opened().await;
    let person = person();
    let (_domain, id) = define(&person, "refusal");
    // It does not run.
    let refused = libvirt.set_vcpus(id, 2).await;
    let Err(HypervisorError::Failed {
        operation, source, ..
    }) = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!(operation, "set_vcpus");
    assert_eq!(source.code, Some(sys::VIR_ERR_OPERATION_INVALID));
    assert!(source.message.contains("not running"), "{source}");
}

#[tokio::test]
async fn a_domain_that_is_not_there_is_told_from_a_refusal() {
    let (libvirt, _events) = opened().await;
    let absent = libvirt.describe(DomainId([7; 16])).await;
    assert!(
        matches!(absent, Err(HypervisorError::NoDomain { .. })),
        "{absent:?}"
    );
}

#[tokio::test]
async fn metadata_is_written_live_and_persistently_and_removed_twice_without_complaint() {
    let (libvirt, mut events) = opened().await;
    let person = person();
    let (domain, id) = define(&person, "metadata");
    domain.create().unwrap();
    let element = MetadataElement::Tags;
    let xml = "<instance><tag>web</tag></instance>".to_owned();
    libvirt.set_metadata(id, element, Some(xml)).await.unwrap();
    assert_eq!(libvirt.describe(id).await.unwrap().tags, ["web"]);
    let kept = domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE).unwrap();
    assert!(kept.contains("<vp:tag>web</vp:tag>"), "{kept}");
    loop {
        if let HypervisorEvent::MetadataChanged { uri, .. } = next(&mut events, id).await {
            assert_eq!(uri.as_deref(), Some(element.uri()));
            break;
        }
    }
    for _ in 0..2 {
        libvirt.set_metadata(id, element, None).await.unwrap();
        assert_eq!(libvirt.describe(id).await.unwrap().tags, [""; 0]);
    }
    let nul = libvirt.set_metadata(id, element, Some("\0".into())).await;
    assert!(
        matches!(nul, Err(HypervisorError::Failed { .. })),
        "{nul:?}"
    );
}

#[tokio::test]
async fn bulk_figures_name_each_running_domain() {
    let (libvirt, _events) = opened().await;
    let person = person();
    let (domain, id) = define(&person, "figures");
    let (_off, off) = define(&person, "figures-off");
    domain.create().unwrap();
    let figures = libvirt.bulk_stats().await.unwrap();
    assert!(figures.iter().any(|(domain, _)| *domain == id));
    assert!(figures.iter().all(|(domain, _)| *domain != off));
}

#[tokio::test]
async fn the_host_is_described() {
    let (libvirt, _events) = opened().await;
    let host = libvirt.host().await.unwrap();
    assert!(host.cores > 0);
    assert!(host.memory > Bytes::from_mib(1));
    assert_eq!(host.library_version.split('.').count(), 3);
}

#[tokio::test]
async fn a_virtio_mem_device_that_is_not_there_is_named() {
    let (libvirt, _events) = opened().await;
    let person = person();
    let (domain, id) = define(&person, "no-device");
    domain.create().unwrap();
    let refused = libvirt
        .set_virtio_mem(id, "virtiomem9".into(), Bytes(0))
        .await;
    assert!(
        matches!(&refused, Err(HypervisorError::NoDevice { alias, .. }) if alias == "virtiomem9"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_hypervisor_that_is_not_there_is_told_first_and_calls_are_not_tried() {
    let (libvirt, mut events) = open("test:///no/such/file.xml");
    let first = events.recv().await;
    assert!(
        matches!(first, Some(HypervisorEvent::Disconnected { .. })),
        "{first:?}"
    );
    let refused = libvirt.domains().await;
    assert!(
        matches!(refused, Err(HypervisorError::NotConnected { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn it_connects_as_soon_as_the_hypervisor_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("host.xml");
    let (libvirt, mut events) = open(&format!("test://{}", file.display()));
    let first = events.recv().await;
    assert!(
        matches!(first, Some(HypervisorEvent::Disconnected { .. })),
        "{first:?}"
    );
    let written = directory.path().join("written.xml");
    std::fs::write(
        &written,
        "<node><domain type='test'><name>one</name><memory>8192</memory><os><type>hvm</type></os></domain></node>",
    )
    .unwrap();
    std::fs::rename(&written, &file).unwrap();
    assert_eq!(events.recv().await, Some(HypervisorEvent::Connected));
    let domains = libvirt.domains().await.unwrap();
    let names: Vec<_> = domains.iter().map(|domain| domain.name.as_str()).collect();
    assert_eq!(names, ["one"]);
}

#[tokio::test]
async fn dropping_the_hypervisor_ends_its_events() {
    let (libvirt, mut events) = opened().await;
    drop(libvirt);
    // Ends only when the supervisor and every callback have given up their senders.
    let ended = async { while events.recv().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(60), ended)
        .await
        .unwrap();
}
