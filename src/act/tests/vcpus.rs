//! vCPUs that are added and taken away: what host and guest show, what the guest keeps, which way a removal goes.

use super::*;

#[tokio::test]
async fn a_vcpu_is_added_when_host_and_guest_show_it() {
    let bench = Bench::new("").await;
    let outcome = bench.vcpus(2, 3).await;
    check(&outcome, Ending::Applied, Some(3), Some(3));
    assert_eq!(outcome.requested, 3);
    assert_eq!(bench.vcpu_calls(), [3]);
}

#[tokio::test]
async fn a_guest_whose_kernel_notices_a_plugged_vcpu_late_is_asked_again() {
    let bench = Bench::new("").await;
    bench.guest_says(Err(no()));
    let outcome = bench.vcpus(2, 3).await;
    check(&outcome, Ending::Applied, Some(3), Some(3));
    assert_eq!(*bench.guest.asked.lock().unwrap(), [3, 3]);
}

#[tokio::test]
async fn a_vcpu_that_is_plugged_but_that_the_guest_does_not_bring_online_is_a_part_of_it() {
    for (answers, word) in [
        (vec![Err(gone())], "not asked"),
        (vec![Err(no()); 8], "refused"),
        // The agent answers, but the CPU does not come.
        (vec![Ok(2); 8], "did not bring all of it online"),
    ] {
        let bench = Bench::new("").await;
        for answer in answers {
            bench.guest_says(answer);
        }
        let outcome = bench.vcpus(2, 3).await;
        assert_eq!(outcome.ending, Ending::Partial, "{}", outcome.sentence());
        assert_eq!(outcome.plugged, Some(3));
        noted(&outcome, word);
    }
}

#[tokio::test]
async fn a_plugged_vcpu_that_stays_offline_is_no_change() {
    let bench = Bench::new("").await;
    // One was taken offline before: plugged are two, and one runs.
    bench.guest_says(Err(gone()));
    let outcome = bench.vcpus(1, 2).await;
    check(&outcome, Ending::Refused, Some(2), None);
    assert_eq!(bench.vcpu_calls(), [0; 0], "nothing needs to be plugged");
    let outcome = bench.vcpus(1, 2).await;
    check(&outcome, Ending::Applied, Some(2), Some(2));
}

#[tokio::test]
async fn a_guest_that_does_not_answer_leaves_the_outcome_unknown() {
    let bench = Bench::new("").await;
    bench.guest_says(Err(silent()));
    let outcome = bench.vcpus(2, 3).await;
    check(&outcome, Ending::Unknown, Some(3), None);
    bench.guest_says(Err(silent()));
    let outcome = bench.vcpus(3, 2).await;
    check(&outcome, Ending::Unknown, Some(3), None);
}

#[tokio::test]
async fn a_vcpu_that_the_hypervisor_refuses_is_refused_in_its_words() {
    let bench = Bench::new("").await;
    bench.refuse(CallName::SetVcpus);
    let outcome = bench.vcpus(2, 3).await;
    check(&outcome, Ending::Refused, Some(2), None);
    noted(&outcome, "the moon is full");
    assert_eq!(*bench.guest.asked.lock().unwrap(), [0; 0]);
}

#[tokio::test]
async fn a_vcpu_whose_plug_timed_out_counts_when_it_is_there_and_is_unknown_when_it_is_not() {
    let bench = Bench::new("").await;
    bench.fail(CallName::SetVcpus, Fault::AnswerLost);
    let outcome = bench.vcpus(2, 3).await;
    check(&outcome, Ending::Applied, Some(3), Some(3));
    noted(&outcome, "did not end within");
    let bench = Bench::new("").await;
    bench.fail(CallName::SetVcpus, Fault::Hang { ms: 300 });
    let outcome = bench.vcpus(2, 3).await;
    check(&outcome, Ending::Unknown, Some(2), None);
}

#[tokio::test]
async fn removal_follows_its_policy() {
    for (acceleration, removal, plugged) in [
        ("kvm", VcpuRemoval::Auto, 1),
        ("emulated", VcpuRemoval::Auto, 2),
        ("kvm", VcpuRemoval::Offline, 2),
        ("emulated", VcpuRemoval::Unplug, 1),
    ] {
        let mut bench = Bench::new(&format!("acceleration = '{acceleration}'")).await;
        bench.hands.settings.removal = removal;
        let outcome = bench.vcpus(2, 1).await;
        check(&outcome, Ending::Applied, Some(plugged), Some(1));
        assert_eq!(
            outcome.note.is_some(),
            plugged == 2,
            "what stays plugged is said"
        );
    }
}

#[tokio::test]
async fn vcpus_are_unplugged_one_by_one_and_never_below_the_fixed_ones() {
    let bench = Bench::new("acceleration = 'kvm'\nvcpus_fixed = 2").await;
    assert_eq!(bench.vcpus(2, 4).await.ending, Ending::Applied);
    let outcome = bench.vcpus(4, 1).await;
    check(&outcome, Ending::Applied, Some(2), Some(1));
    assert_eq!(bench.vcpu_calls(), [4, 3, 2]);
}

#[tokio::test]
async fn an_unplug_that_times_out_still_counts_as_given_back_and_the_emulator_is_asked() {
    for (unplug, plugged) in [("times-out", 1), ("refused", 2)] {
        let mut bench = Bench::new(&format!("guest = {{ unplug = '{unplug}' }}")).await;
        bench.hands.settings.removal = VcpuRemoval::Unplug;
        let outcome = bench.vcpus(2, 1).await;
        check(&outcome, Ending::Applied, Some(plugged), Some(1));
        noted(&outcome, "unplugging ended with");
        assert!(
            bench
                .simulated
                .calls()
                .contains(&Called::HotpluggableVcpus { domain: bench.id })
        );
    }
}

#[tokio::test]
async fn vcpus_that_the_guest_keeps_are_neither_unplugged_nor_given_back() {
    for (answer, ending) in [
        (Err(gone()), Ending::Refused),
        (Err(no()), Ending::Refused),
        (Ok(3), Ending::Refused),
        (Ok(2), Ending::Partial),
    ] {
        let bench = Bench::new("acceleration = 'kvm'\nvcpus_fixed = 1").await;
        assert_eq!(bench.vcpus(2, 3).await.ending, Ending::Applied);
        bench.guest_says(answer);
        let outcome = bench.vcpus(3, 1).await;
        assert_eq!(outcome.ending, ending, "{}", outcome.sentence());
        assert_eq!(bench.shown().await.vcpus_plugged, 3);
    }
}
