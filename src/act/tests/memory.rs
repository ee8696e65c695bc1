//! Memory that is given and taken back, by devices and by the balloon: how far the guest follows, and what becomes of the rest.

use super::*;

const TWO_DEVICES: &str =
    "virtio_mem = [{ alias = 'one', size_mib = 128 }, { alias = 'two', size_mib = 512 }]";

#[tokio::test]
async fn memory_grows_and_shrinks_when_the_device_and_the_guest_show_it() {
    let bench = Bench::new(DEVICE).await;
    let outcome = bench.memory(512, 768).await;
    check_mib(&outcome, Ending::Applied, 768);
    assert_eq!(outcome.guest, Some(Bytes::from_mib(748).0));
    assert_eq!(outcome.note, None);
    let outcome = bench.memory(768, 640).await;
    check_mib(&outcome, Ending::Applied, 640);
    assert_eq!(bench.memory_calls(), [256, 128]);
}

#[tokio::test]
async fn the_balloon_gives_and_takes_where_there_is_no_device() {
    let bench = Bench::new(BALLOON).await;
    check_mib(&bench.memory(512, 384).await, Ending::Applied, 384);
    check_mib(&bench.memory(384, 448).await, Ending::Applied, 448);
}

#[tokio::test]
async fn memory_that_no_agent_confirms_is_applied_on_the_drivers_word_and_that_is_said() {
    let bench = Bench::new(DEVICE).await;
    bench
        .guest
        .memory
        .lock()
        .unwrap()
        .extend([Err(gone()), Err(gone())]);
    let outcome = bench.memory(512, 640).await;
    check(
        &outcome,
        Ending::Applied,
        Some(Bytes::from_mib(640).0),
        None,
    );
    noted(&outcome, "no agent could confirm");
}

#[tokio::test]
async fn memory_that_the_guest_does_not_show_is_of_unknown_outcome() {
    let bench = Bench::new(DEVICE).await;
    let shown = Ok(Bytes::from_mib(492));
    bench
        .guest
        .memory
        .lock()
        .unwrap()
        .extend([shown.clone(), shown]);
    let outcome = bench.memory(512, 640).await;
    check_mib(&outcome, Ending::Unknown, 640);
    noted(&outcome, "the guest does not");
}

#[tokio::test]
async fn a_guest_that_follows_half_way_gets_the_pending_rest_taken_back() {
    let bench = Bench::new(DEVICE).await;
    bench.fail(CallName::SetVirtioMem, Fault::Partial { reaches_mib: 64 });
    let outcome = bench.memory(512, 768).await;
    check_mib(&outcome, Ending::Partial, 576);
    noted(&outcome, "taken back");
    assert_eq!(outcome.asked, outcome.plugged);
    let device = &bench.shown().await.virtio_mem[0];
    assert_eq!(
        (device.requested.as_mib(), device.current.as_mib()),
        (64, 64)
    );
}

#[tokio::test]
async fn a_guest_that_does_not_follow_at_all_has_refused() {
    let bench = Bench::new(DEVICE).await;
    bench.fail(CallName::SetVirtioMem, Fault::Partial { reaches_mib: 0 });
    let outcome = bench.memory(512, 768).await;
    check_mib(&outcome, Ending::Refused, 512);
    assert_eq!(bench.shown().await.virtio_mem[0].requested, Bytes(0));

    let bench = Bench::new(&format!("{BALLOON}\nguest = {{ memory_used_mib = 512 }}")).await;
    let outcome = bench.memory(512, 384).await;
    check_mib(&outcome, Ending::Refused, 512);
}

#[tokio::test]
async fn a_rest_that_cannot_be_taken_back_leaves_the_outcome_unknown() {
    let bench = Bench::new(DEVICE).await;
    bench.fail(CallName::SetVirtioMem, Fault::Partial { reaches_mib: 64 });
    bench.refuse(CallName::SetVirtioMem);
    let outcome = bench.memory(512, 768).await;
    check_mib(&outcome, Ending::Unknown, 576);
    noted(&outcome, "could not be taken back");
}

#[tokio::test]
async fn memory_that_the_hypervisor_refuses_is_refused_in_its_words() {
    for (extra, call, to) in [
        (DEVICE, CallName::SetVirtioMem, 640),
        (BALLOON, CallName::SetBalloon, 384),
    ] {
        let bench = Bench::new(extra).await;
        bench.refuse(call);
        let outcome = bench.memory(512, to).await;
        check_mib(&outcome, Ending::Refused, 512);
        noted(&outcome, "the moon is full");
    }
}

#[tokio::test]
async fn a_request_whose_answer_was_lost_is_watched_like_any_other() {
    for (extra, call, to) in [
        (DEVICE, CallName::SetVirtioMem, 640),
        (BALLOON, CallName::SetBalloon, 384),
    ] {
        let bench = Bench::new(extra).await;
        bench.fail(call, Fault::AnswerLost);
        let outcome = bench.memory(512, to).await;
        check_mib(&outcome, Ending::Applied, to);
        noted(&outcome, "did not end within");
    }
}

#[tokio::test]
async fn a_request_that_hangs_and_shows_nothing_is_of_unknown_outcome() {
    let bench = Bench::new(DEVICE).await;
    bench.fail(CallName::SetVirtioMem, Fault::Hang { ms: 2000 });
    let outcome = bench.memory(512, 640).await;
    check_mib(&outcome, Ending::Unknown, 512);
}

#[tokio::test]
async fn nothing_stays_pending_when_only_one_of_two_devices_could_be_asked() {
    let bench = Bench::new(TWO_DEVICES).await;
    bench.fail(CallName::SetVirtioMem, Fault::Slow { ms: 1 });
    bench.refuse(CallName::SetVirtioMem);
    let outcome = bench.memory(512, 896).await;
    check_mib(&outcome, Ending::Partial, 640);
    let shown = bench.shown().await;
    let requested: Vec<_> = shown
        .virtio_mem
        .iter()
        .map(|device| device.requested.as_mib())
        .collect();
    assert_eq!(requested, [128, 0]);
    assert_eq!(outcome.asked, outcome.plugged);
}

#[tokio::test]
async fn a_stuck_device_is_asked_for_another_size_and_then_again() {
    let mut bench = Bench::new(DEVICE).await;
    check_mib(&bench.memory(512, 768).await, Ending::Applied, 768);
    bench.hands.settings.memory_deadline = Duration::from_secs(20);
    bench.fail(CallName::SetVirtioMem, Fault::Partial { reaches_mib: 256 });
    let outcome = bench.memory(768, 640).await;
    check_mib(&outcome, Ending::Applied, 640);
    noted(&outcome, "asked twice");
    assert_eq!(bench.memory_calls(), [256, 128, 130, 128]);
}

#[tokio::test]
async fn a_domain_that_is_started_anew_in_the_middle_makes_no_claim_of_success() {
    let bench = Bench::new(&format!("{DEVICE}\nguest = {{ follow_ms = 300 }}")).await;
    check_mib(&bench.memory(512, 576).await, Ending::Applied, 576);
    // After the start the domain has just the size that the step was to reach.
    let step = bench
        .step(
            Resource::Memory,
            Bytes::from_mib(576).0,
            Bytes::from_mib(512).0,
        )
        .await;
    bench.fail(CallName::SetVirtioMem, Fault::Partial { reaches_mib: 64 });
    let hands = bench.hands.clone();
    let acting = tokio::spawn(async move { act(&hands, step).await });
    while bench.memory_calls().len() < 2 {
        tokio::task::yield_now().await;
    }
    bench.simulated.set_state(bench.id, RunState::Off);
    bench.simulated.set_state(bench.id, RunState::Running);
    let outcome = acting.await.unwrap();
    assert_eq!(outcome.ending, Ending::Unknown, "{}", outcome.sentence());
    noted(&outcome, "started anew meanwhile");
    assert_eq!(
        bench.memory_calls().len(),
        2,
        "the new instance is left alone"
    );
}

#[tokio::test]
async fn a_domain_that_is_undefined_in_the_middle_ends_its_step() {
    let mut bench = Bench::new(DEVICE).await;
    bench.hands.settings.memory_deadline = Duration::from_secs(3600);
    bench.fail(CallName::SetVirtioMem, Fault::Partial { reaches_mib: 0 });
    let step = bench
        .step(Resource::Memory, 0, Bytes::from_mib(640).0)
        .await;
    let hands = bench.hands.clone();
    let acting = tokio::spawn(async move { act(&hands, step).await });
    // The request has taken effect, not only begun: before that there would be nothing in doubt.
    while bench.shown().await.virtio_mem[0].requested == Bytes(0) {
        tokio::task::yield_now().await;
    }
    bench.simulated.remove_domain(bench.id);
    let outcome = acting.await.unwrap();
    assert_eq!(outcome.ending, Ending::Unknown, "{}", outcome.sentence());
}
