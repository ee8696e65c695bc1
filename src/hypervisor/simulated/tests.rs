//! The simulated hypervisor keeps what it promises to the tests that build on it.

use super::*;
use crate::hypervisor::{DeviceChange, HotpluggableVcpu, Hypervisor, HypervisorError};

const SCENARIO: &str = r#"
    deadline_ms = 200
    [[domain]]
    name = "web"
    vcpus_maximum = 4
    memory_mib = 512
    tags = ["web"]
    virtio_mem = [{ alias = "virtiomem0", size_mib = 1024 }]
    guest = { follow_ms = 1 }

    [[domain]]
    name = "off"
    state = "off"
    memory_mib = 256
    balloon = "none"
"#;

/// The hypervisor, its events with `Connected` taken, and the running domain.
async fn opened() -> (Arc<Simulated>, Events, DomainId) {
    let (simulated, mut events) = open(Scenario::parse(SCENARIO).unwrap());
    assert_eq!(events.recv().await, Some(HypervisorEvent::Connected));
    let domains = simulated.domains().await.unwrap();
    let web = domains.iter().find(|domain| domain.name == "web").unwrap();
    (simulated, events, web.id)
}

fn mib(n: u64) -> Bytes {
    Bytes::from_mib(n)
}

/// Sizes of the memory device as they are told, up to this one.
async fn sizes_until(events: &mut Events, last: Bytes) -> Vec<u64> {
    let mut sizes = Vec::new();
    while let Some(event) = events.recv().await {
        if let HypervisorEvent::Device {
            change: DeviceChange::Resized(size),
            ..
        } = event
        {
            sizes.push(size.as_mib());
            if size == last {
                break;
            }
        }
    }
    sizes
}

#[tokio::test]
async fn a_guest_follows_a_memory_request_step_by_step() {
    let (simulated, mut events, web) = opened().await;
    let device = || "virtiomem0".to_owned();
    simulated
        .set_virtio_mem(web, device(), mib(600))
        .await
        .unwrap();
    assert_eq!(sizes_until(&mut events, mib(600)).await, [256, 512, 600]);
    let figures = simulated.bulk_stats().await.unwrap();
    assert_eq!(figures.len(), 1, "a domain that is off has no figures");
    assert_eq!(figures[0].1.balloon.available, Some(mib(1112)));
    assert_eq!(figures[0].1.balloon.current, Some(mib(512)));
    // 1112 MiB, of which 700 are in use and 512 are not the device's.
    simulated.set_memory_used(web, mib(700));
    simulated
        .set_virtio_mem(web, device(), mib(0))
        .await
        .unwrap();
    assert_eq!(sizes_until(&mut events, mib(188)).await, [344, 188]);
    let memory = &simulated.describe(web).await.unwrap().virtio_mem[0];
    assert_eq!((memory.requested, memory.current), (mib(0), mib(188)));
}

#[tokio::test]
async fn a_partial_effect_stops_where_it_is_told() {
    let (simulated, mut events, web) = opened().await;
    let fault = Fault::Partial { reaches_mib: 128 };
    simulated.fail_next(web, CallName::SetVirtioMem, fault);
    simulated
        .set_virtio_mem(web, "virtiomem0".into(), mib(600))
        .await
        .unwrap();
    assert_eq!(sizes_until(&mut events, mib(128)).await, [128]);
    simulated
        .set_virtio_mem(web, "virtiomem0".into(), mib(600))
        .await
        .unwrap();
    assert_eq!(sizes_until(&mut events, mib(600)).await, [384, 600]);
}

#[tokio::test]
async fn the_balloon_follows_and_is_refused_where_there_is_none() {
    let (simulated, mut events, web) = opened().await;
    simulated.set_balloon(web, mib(300)).await.unwrap();
    loop {
        let event = events.recv().await.unwrap();
        if let HypervisorEvent::Balloon { current, .. } = event
            && current == mib(300)
        {
            break;
        }
    }
    let domains = simulated.domains().await.unwrap();
    let off = domains.iter().find(|domain| domain.name == "off").unwrap();
    assert_eq!(off.balloon_current, None);
    simulated.set_state(off.id, RunState::Running);
    let refused = simulated.set_balloon(off.id, mib(100)).await;
    assert!(
        matches!(refused, Err(HypervisorError::Failed { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_answer_that_is_lost_leaves_its_effect() {
    let (simulated, _events, web) = opened().await;
    simulated.fail_next(web, CallName::SetVcpus, Fault::AnswerLost);
    let lost = simulated.set_vcpus(web, 3).await;
    assert!(
        matches!(lost, Err(HypervisorError::TimedOut { .. })),
        "{lost:?}"
    );
    assert_eq!(simulated.describe(web).await.unwrap().vcpus_plugged, 3);
}

#[tokio::test]
async fn a_hung_domain_is_busy_without_effect_and_blocks_no_other() {
    let (simulated, _events, web) = opened().await;
    let other = simulated.add_domain(Domain {
        id: None,
        name: "other".into(),
        ..Scenario::parse(SCENARIO).unwrap().domains[0].clone()
    });
    assert_ne!(other, web);
    simulated.fail_next(web, CallName::SetVcpus, Fault::Hang { ms: 3_600_000 });
    let hung = simulated.set_vcpus(web, 3).await;
    assert!(
        matches!(hung, Err(HypervisorError::TimedOut { .. })),
        "{hung:?}"
    );
    let busy = simulated.set_vcpus(web, 3).await;
    assert!(
        matches!(busy, Err(HypervisorError::Busy { .. })),
        "{busy:?}"
    );
    simulated.set_vcpus(other, 2).await.unwrap();
    assert_eq!(simulated.describe(web).await.unwrap().vcpus_plugged, 1);
    assert_eq!(
        simulated.calls(),
        [
            Called::SetVcpus {
                domain: web,
                count: 3
            },
            Called::SetVcpus {
                domain: other,
                count: 2
            },
        ]
    );
}

#[tokio::test]
async fn a_refusal_is_given_once_in_its_own_words() {
    let (simulated, _events, web) = opened().await;
    let message = "the moon is full".to_owned();
    simulated.fail_next(web, CallName::SetVcpus, Fault::Refuse { message });
    let refused = simulated.set_vcpus(web, 2).await;
    assert!(
        matches!(&refused, Err(HypervisorError::Failed { source, .. }) if source.message == "the moon is full"),
        "{refused:?}"
    );
    simulated.set_vcpus(web, 2).await.unwrap();
}

#[tokio::test]
async fn events_are_lost_and_told_twice_on_order() {
    let (simulated, mut events, web) = opened().await;
    for (fault, told) in [(Fault::EventsLost, 0), (Fault::EventsDuplicated, 2)] {
        simulated.fail_next(web, CallName::SetMetadata, fault);
        let element = MetadataElement::Status;
        simulated
            .set_metadata(web, element, Some("<a/>".into()))
            .await
            .unwrap();
        for _ in 0..told {
            let event = events.try_recv().unwrap();
            assert!(
                matches!(event, HypervisorEvent::MetadataChanged { .. }),
                "{event:?}"
            );
        }
        assert!(events.try_recv().is_err());
    }
}

#[tokio::test]
async fn an_unplug_under_emulation_times_out_and_is_settled_by_a_new_connection() {
    let (simulated, _events, _web) = opened().await;
    let mut domain = Scenario::parse(SCENARIO).unwrap().domains[0].clone();
    domain.vcpus = 3;
    domain.guest.unplug = Unplug::TimesOut;
    let id = simulated.add_domain(domain);
    let lost = simulated.set_vcpus(id, 1).await;
    assert!(
        matches!(lost, Err(HypervisorError::TimedOut { .. })),
        "{lost:?}"
    );
    let plugged = |groups: Vec<HotpluggableVcpu>| {
        let plugged = groups.iter().filter(|group| group.plugged.is_some());
        plugged.map(|group| group.vcpus).sum::<u32>()
    };
    let groups = simulated.hotpluggable_vcpus(id).await.unwrap();
    assert_eq!(groups.len(), 4);
    assert_eq!(plugged(groups), 2);
    assert_eq!(simulated.describe(id).await.unwrap().vcpus_plugged, 3);
    let refused = simulated.set_vcpus(id, 4).await;
    assert!(
        matches!(refused, Err(HypervisorError::Failed { .. })),
        "{refused:?}"
    );
    simulated.disconnect("restart");
    simulated.reconnect();
    assert_eq!(simulated.describe(id).await.unwrap().vcpus_plugged, 2);
    simulated.set_vcpus(id, 4).await.unwrap();
}

#[tokio::test]
async fn nothing_is_told_or_answered_without_a_connection() {
    let (simulated, mut events, web) = opened().await;
    simulated.disconnect("gone");
    simulated.set_tags(web, &["db"]);
    for answer in [
        simulated.set_vcpus(web, 2).await,
        simulated.domains().await.map(drop),
        simulated.bulk_stats().await.map(drop),
    ] {
        assert!(
            matches!(answer, Err(HypervisorError::NotConnected { .. })),
            "{answer:?}"
        );
    }
    simulated.reconnect();
    let reason = "gone".into();
    let lost = HypervisorEvent::Disconnected { reason };
    assert_eq!(events.recv().await, Some(lost));
    assert_eq!(events.recv().await, Some(HypervisorEvent::Connected));
    assert_eq!(simulated.describe(web).await.unwrap().tags, ["db"]);
}

#[tokio::test]
async fn a_restart_of_a_domain_begins_anew_but_keeps_its_tags() {
    let (simulated, mut events, web) = opened().await;
    let before = simulated.describe(web).await.unwrap();
    simulated.set_tags(web, &["db"]);
    simulated.set_vcpus(web, 3).await.unwrap();
    simulated.set_state(web, RunState::Off);
    let off = simulated.describe(web).await.unwrap();
    assert_eq!((off.state, off.instance), (RunState::Off, None));
    simulated.set_state(web, RunState::Running);
    let after = simulated.describe(web).await.unwrap();
    assert_eq!(after.vcpus_plugged, before.vcpus_plugged);
    assert_ne!(after.instance, before.instance);
    assert_eq!(after.tags, ["db"]);
    let mut changes = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let HypervisorEvent::Lifecycle { change, .. } = event {
            changes.push(change);
        }
    }
    assert_eq!(changes, [Lifecycle::Stopped, Lifecycle::Started]);
}

#[tokio::test]
async fn a_domain_that_was_removed_is_not_there() {
    let (simulated, _events, web) = opened().await;
    simulated.remove_domain(web);
    let absent = simulated.set_vcpus(web, 2).await;
    assert!(
        matches!(absent, Err(HypervisorError::NoDomain { .. })),
        "{absent:?}"
    );
}

#[tokio::test]
async fn tags_written_through_the_hypervisor_are_described() {
    let (simulated, _events, web) = opened().await;
    let xml = "<instance><tag>a</tag><tag>b</tag></instance>".to_owned();
    let tags = MetadataElement::Tags;
    simulated
        .set_metadata(web, tags, Some(xml.clone()))
        .await
        .unwrap();
    assert_eq!(simulated.describe(web).await.unwrap().tags, ["a", "b"]);
    assert_eq!(simulated.metadata(web, tags), Some(xml));
    simulated.set_metadata(web, tags, None).await.unwrap();
    assert_eq!(simulated.describe(web).await.unwrap().tags, [""; 0]);
}

#[tokio::test]
async fn who_was_cut_off_gets_no_answer_and_others_do() {
    let (simulated, _events, web) = opened().await;
    let handle = simulated.handle();
    handle.cut();
    let silence = tokio::time::timeout(Duration::from_millis(20), handle.set_vcpus(web, 2)).await;
    assert!(silence.is_err(), "{silence:?}");
    assert_eq!(simulated.describe(web).await.unwrap().vcpus_plugged, 1);
}
