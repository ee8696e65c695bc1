//! The second ways: a guest that refuses an unplug at once, a removal that may still come, a CPU that does not come up, the
//! balloon in place of a stuck device, a DIMM.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::out_of_reach::Breaking;
use super::*;

/// Passes on what the hypervisor tells, as the daemon does.
fn listening(bench: &mut Bench) {
    let (_, nothing) = mpsc::unbounded_channel();
    let mut events = std::mem::replace(&mut bench._events, nothing);
    let notices = bench.hands.notices.clone();
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            notices.tell(&event);
        }
    });
}

async fn by(bench: &Bench, means: Means, from: u64, to: u64) -> Outcome {
    let (from, to) = (Bytes::from_mib(from).0, Bytes::from_mib(to).0);
    let step = bench.step(Resource::Memory, from, to).await;
    act(&bench.hands, Step { means, ..step }).await
}

/// What was asked of the balloon, in MiB.
fn balloon_calls(bench: &Bench) -> Vec<u64> {
    let calls = bench.simulated.calls();
    let targets = calls.iter().filter_map(|call| match call {
        Called::SetBalloon { target, .. } => Some(target.as_mib()),
        _ => None,
    });
    targets.collect()
}

#[tokio::test]
async fn a_guest_that_refuses_an_unplug_is_heard_at_once_and_the_emulator_is_not_asked() {
    let mut bench = Bench::new("guest = { unplug = 'refused' }").await;
    bench.hands.settings.removal = VcpuRemoval::Unplug;
    listening(&mut bench);
    let outcome = bench.vcpus(2, 1).await;
    check(&outcome, Ending::Applied, Some(2), Some(1));
    noted(&outcome, "refused to let the vCPU go; 2 stay plugged");
    assert_eq!(outcome.aftermath, Aftermath::Nothing);
    let asked = Called::HotpluggableVcpus { domain: bench.id };
    assert!(!bench.simulated.calls().contains(&asked));
}

#[tokio::test]
async fn a_guest_that_lets_a_vcpu_go_is_believed_by_both_sides() {
    let mut bench = Bench::new("acceleration = 'kvm'").await;
    listening(&mut bench);
    let outcome = bench.vcpus(2, 1).await;
    check(&outcome, Ending::Applied, Some(1), Some(1));
    assert_eq!(outcome.note, None);
}

#[tokio::test]
async fn a_removal_that_a_paused_guest_has_not_followed_is_known_as_pending() {
    let mut bench = Bench::new("").await;
    bench.hands.settings.removal = VcpuRemoval::Unplug;
    bench.simulated.set_state(bench.id, RunState::Paused);
    let outcome = bench.vcpus(2, 1).await;
    check(&outcome, Ending::Applied, Some(2), Some(1));
    assert_eq!(outcome.aftermath, Aftermath::RemovalPending);

    // One that went, although the library does not know it, is none.
    let mut bench = Bench::new("guest = { unplug = 'times-out' }").await;
    bench.hands.settings.removal = VcpuRemoval::Unplug;
    let outcome = bench.vcpus(2, 1).await;
    check(&outcome, Ending::Applied, Some(1), Some(1));
    assert_eq!(outcome.aftermath, Aftermath::Nothing);
}

#[tokio::test]
async fn a_cpu_that_does_not_come_up_before_a_reboot_is_asked_for_once() {
    let bench = Bench::new("").await;
    bench.guest_says(Err(GuestFault::NeedsReboot("Input/output error".into())));
    let outcome = bench.vcpus(2, 3).await;
    check(&outcome, Ending::Partial, Some(3), None);
    noted(&outcome, "cannot before it reboots");
    assert_eq!(outcome.aftermath, Aftermath::NeedsReboot);
    assert_eq!(*bench.guest.asked.lock().unwrap(), [3]);
}

#[tokio::test]
async fn the_balloon_takes_in_place_of_a_stuck_device_and_gives_back_before_the_device_grows() {
    let bench = Bench::new(DEVICE).await;
    check_mib(&bench.memory(512, 768).await, Ending::Applied, 768);
    let outcome = by(&bench, Means::Balloon, 768, 640).await;
    check_mib(&outcome, Ending::Applied, 640);
    assert_eq!(balloon_calls(&bench), [384]);
    assert_eq!(bench.shown().await.virtio_mem[0].current.as_mib(), 256);
    check_mib(
        &by(&bench, Means::Balloon, 640, 704).await,
        Ending::Applied,
        704,
    );

    // When the device is well again, what the balloon took comes first.
    check_mib(&bench.memory(704, 832).await, Ending::Applied, 832);
    assert_eq!(balloon_calls(&bench), [384, 448, 512]);
    assert_eq!(bench.memory_calls(), [256, 384, 448, 512, 320]);
    // And a shrink is the device's alone.
    check_mib(&bench.memory(832, 768).await, Ending::Applied, 768);
    assert_eq!(balloon_calls(&bench).len(), 3);
}

#[tokio::test]
async fn a_balloon_that_cannot_follow_leaves_nothing_pending() {
    let used = format!("{DEVICE}\nguest = {{ memory_used_mib = 700 }}");
    let bench = Bench::new(&used).await;
    check_mib(&bench.memory(512, 768).await, Ending::Applied, 768);
    let outcome = by(&bench, Means::Balloon, 768, 512).await;
    check_mib(&outcome, Ending::Partial, 700);
    noted(&outcome, "taken back");
    assert_eq!(balloon_calls(&bench), [256, 444]);
    assert_eq!(
        bench.memory_calls(),
        [256, 256, 444],
        "the device is left alone"
    );
}

const SLOTS: &str = "memory_maximum_mib = 1024\ndimm_slots = 2";

#[tokio::test]
async fn a_dimm_is_added_and_seen_by_both_sides() {
    let bench = Bench::new(SLOTS).await;
    let outcome = by(&bench, Means::Dimm, 512, 768).await;
    check_mib(&outcome, Ending::Applied, 768);
    assert_eq!(outcome.guest, Some(Bytes::from_mib(748).0));
    let shown = bench.shown().await;
    assert_eq!((shown.memory_dimms.as_mib(), shown.dimm_slots), (256, 1));
    // What it brought can be taken by the balloon.
    check_mib(&bench.memory(768, 640).await, Ending::Applied, 640);
}

#[tokio::test]
async fn a_dimm_that_has_no_place_is_refused_and_one_whose_answer_was_lost_is_looked_for() {
    for (extra, words) in [
        ("memory_maximum_mib = 1024", "exceeds slots count"),
        ("memory_maximum_mib = 600\ndimm_slots = 1", "hotplug space"),
        ("dimm_slots = 1", "maxMemory is not set"),
    ] {
        let bench = Bench::new(extra).await;
        let outcome = by(&bench, Means::Dimm, 512, 768).await;
        check_mib(&outcome, Ending::Refused, 512);
        noted(&outcome, words);
    }
    let bench = Bench::new(SLOTS).await;
    bench.fail(CallName::AttachDimm, Fault::AnswerLost);
    check_mib(
        &by(&bench, Means::Dimm, 512, 768).await,
        Ending::Applied,
        768,
    );
    let mut bench = Bench::new(SLOTS).await;
    bench.hands.hypervisor = Arc::new(Breaking(bench.simulated.clone()));
    let outcome = by(&bench, Means::Dimm, 512, 768).await;
    assert_eq!(outcome.ending, Ending::Unknown, "{}", outcome.sentence());
}

/// A bench whose guest does not follow within a test, with a step from 640 to 768 MiB under way.
async fn under_way() -> (Arc<Bench>, tokio::task::JoinHandle<Outcome>) {
    let mut bench = Bench::new(&format!("{DEVICE}\nguest = {{ follow_ms = 1000000 }}")).await;
    bench.hands.settings.memory_deadline = Duration::from_secs(3600);
    let device = Bytes::from_mib(128);
    bench
        .simulated
        .revert(bench.id, AsItWas { vcpus: 2, device });
    let bench = Arc::new(bench);
    let step = tokio::spawn({
        let bench = bench.clone();
        async move { bench.memory(640, 768).await }
    });
    while bench.memory_calls().is_empty() {
        tokio::task::yield_now().await;
    }
    (bench, step)
}

#[tokio::test]
async fn a_step_ends_where_the_devices_are_asked_for_another_size_and_leaves_them_alone() {
    for (by_hand, mib) in [(true, 64), (false, 192)] {
        let (bench, step) = under_way().await;
        let device = Bytes::from_mib(mib);
        if by_hand {
            bench.simulated.set_memory_by_hand(bench.id, device);
        } else {
            let to = AsItWas { vcpus: 2, device };
            bench.simulated.revert(bench.id, to);
        }
        let outcome = step.await.unwrap();
        assert_eq!(outcome.ending, Ending::Unknown, "{}", outcome.sentence());
        assert_eq!(outcome.aftermath, Aftermath::AskedByOthers);
        noted(&outcome, "another size than the step asked for");
        assert_eq!(outcome.asked, Some(Bytes::from_mib(512 + mib).0));
        assert_eq!(bench.memory_calls(), [256], "nothing was taken back");
    }
}
