//! What waits for a person, and what a person wants left alone: proposals appear, are decided, expire and survive the
//! daemon's end; holds are respected by name; a rule that demands a better source says so.

use std::time::Duration;

use persona::domain::DomainId;
use virt_persona::command::{Command, DomainName, Refusal, Reply};
use virt_persona::hypervisor::RunState;
use virt_persona::hypervisor::simulated::{AsItWas, CallName, Fault};
use virt_persona::view::{Change, Held, ProposalState, ProposalView, Resource, TruthWord};

use crate::stage::{ELASTIC, Running, Stage, mib};

const WEB: &str = "
deadline_ms = 2000
[[domain]]
name = 'web'
vcpus_maximum = 4
memory_mib = 512
virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]
guest = { memory_used_mib = 300 }
";

/// Proposals that nothing wants go at once, so that a test need not wait for it.
const SOON: &str = "[approvals]\nwithdraw_s = 1\n";

fn careful() -> String {
    format!("{ELASTIC}trust_levels: {{resource_scaling: low}}\n")
}

/// A domain whose persona may only propose, in need of memory.
fn in_need(stage: &Stage, more: &str) -> (DomainId, Running) {
    let web = stage.id("web");
    let daemon = stage.start_with(more);
    daemon.create(&careful());
    daemon.apply("web", "elastic");
    stage.simulated.set_memory_used(web, mib(500));
    (web, daemon)
}

/// The proposal with this number, as soon as there is one.
#[track_caller]
fn proposal(daemon: &Running, web: DomainId, id: u64) -> ProposalView {
    let seen = daemon.wait_domain(web, "it is proposed", |domain| {
        domain.proposals.iter().any(|proposal| proposal.id == id)
    });
    let mut found = seen.proposals.into_iter();
    found.find(|proposal| proposal.id == id).unwrap()
}

#[track_caller]
fn approve(daemon: &Running, id: u64) -> ProposalView {
    match daemon.ask(Command::Approve { id }) {
        Ok(Reply::Proposal(proposal)) => *proposal,
        other => panic!("{other:?}"),
    }
}

fn hold(daemon: &Running, resource: Option<Held>, seconds: u64) -> Result<Reply, Refusal> {
    daemon.ask(Command::Hold {
        domain: DomainName("web".into()),
        resource,
        length: Duration::from_secs(seconds),
    })
}

fn release(daemon: &Running) -> Result<Reply, Refusal> {
    daemon.ask(Command::Release {
        domain: DomainName("web".into()),
    })
}

/// Waits for a record of a kind with these words.
#[track_caller]
fn told(daemon: &Running, kind: &str, words: &str) -> String {
    let found = daemon.wait_record(words, |record| {
        record.kind == kind && record.text.contains(words)
    });
    found.text
}

#[test]
fn with_low_trust_nothing_changes_until_somebody_approves_it_and_the_audit_says_who() {
    let stage = Stage::new(WEB);
    let (web, daemon) = in_need(&stage, "");
    let made = proposal(&daemon, web, 1);
    assert_eq!(
        (made.resource, made.from, made.to),
        (Some(Resource::Memory), Some(mib(512).0), Some(mib(640).0))
    );
    assert_eq!((made.persona.as_str(), made.version), ("elastic", Some(1)));
    assert_eq!(made.rule.as_deref(), Some("rule-1"));
    assert_eq!(made.state, ProposalState::Open);
    assert!(made.why[0].comparison.contains("memory.utilization"));
    let text = told(&daemon, "proposal", "proposed as 1");
    assert!(
        text.contains("by balloon") && text.contains("low"),
        "{text}"
    );
    let ticks = daemon.view().manager.ticks;
    daemon.wait("it ticks on", |view| view.manager.ticks > ticks + 20);
    assert_eq!(
        daemon.view().domains[&web].memory.requested,
        Some(mib(512)),
        "nothing changes"
    );
    assert_eq!(daemon.told("decision"), [""; 0]);
    daemon.wait_explained("web", "it is proposed", |explained| {
        explained.summary.contains("proposed as 1")
            && explained.summary.contains("virt-persona approve 1")
    });

    let approved = approve(&daemon, 1);
    assert_eq!(approved.by.as_deref(), Some("root"));
    // The rule still holds, so the next step waits for the next word.
    daemon.wait_memory(web, |now| now == 640);
    proposal(&daemon, web, 2);
    told(&daemon, "proposal", "root approved proposal 1");
    told(&daemon, "proposal", "proposal 1 is carried out");
    let records = daemon.audit();
    let place = |words: &str| {
        let found = records
            .iter()
            .position(|record| record.text.contains(words));
        found.unwrap_or_else(|| panic!("{words}: {records:#?}"))
    };
    assert!(
        place(": applied") < place("proposal 1 is carried out"),
        "nothing is claimed before host and guest show it"
    );
    assert_eq!(daemon.view().domains[&web].memory.plugged, Some(mib(640)));
    let again = daemon.ask(Command::Approve { id: 1 });
    assert!(matches!(again, Err(Refusal::NotFound { .. })), "{again:?}");
}

#[test]
fn what_waits_and_what_was_approved_survives_the_daemons_end() {
    let stage = Stage::new(WEB);
    let (web, daemon) = in_need(&stage, "");
    let made = proposal(&daemon, web, 1);
    daemon.kill();
    let daemon = stage.start();
    let kept = proposal(&daemon, web, 1);
    assert_eq!((kept.created, &kept.text), (made.created, &made.text));
    // Somebody's word holds as well, also where it could not be carried out before the end.
    let Ok(Reply::Held(_)) = hold(&daemon, None, 3600) else {
        panic!("it can be held")
    };
    approve(&daemon, 1);
    daemon.kill();
    let daemon = stage.start();
    let kept = proposal(&daemon, web, 1);
    assert_eq!(kept.state, ProposalState::Approved);
    assert_eq!(kept.by.as_deref(), Some("root"));
    assert_eq!(daemon.view().domains[&web].memory.requested, Some(mib(512)));
    assert_eq!(release(&daemon), Ok(Reply::Done(Change::Changed)));
    daemon.wait_memory(web, |now| now == 640);
    // Numbers are never used again.
    proposal(&daemon, web, 2);
}

#[test]
fn what_is_rejected_comes_back_only_after_its_cause_was_gone() {
    let stage = Stage::new(WEB);
    let (web, daemon) = in_need(&stage, SOON);
    proposal(&daemon, web, 1);
    let rejected = daemon.ask(Command::Reject { id: 1 });
    assert!(
        matches!(&rejected, Ok(Reply::Proposal(proposal)) if proposal.state == ProposalState::Rejected),
        "{rejected:?}"
    );
    told(&daemon, "proposal", "root rejected proposal 1");
    let ticks = daemon.view().manager.ticks;
    daemon.wait("it ticks on", |view| view.manager.ticks > ticks + 30);
    assert_eq!(daemon.view().domains[&web].proposals, []);
    daemon.wait_explained("web", "it was rejected", |explained| {
        explained.summary.contains("rejected it as 1")
    });
    let again = daemon.ask(Command::Approve { id: 1 });
    assert!(matches!(again, Err(Refusal::Refused { .. })), "{again:?}");
    stage.simulated.set_memory_used(web, mib(250));
    daemon.wait_explained("web", "the rule rests", |explained| {
        explained.rules[0].truth == TruthWord::False
    });
    // It is looked at once more before the use rises, so that the gap is seen.
    let ticks = daemon.view().manager.ticks;
    daemon.wait("it ticks on", |view| view.manager.ticks > ticks + 2);
    stage.simulated.set_memory_used(web, mib(500));
    proposal(&daemon, web, 2);
}

#[test]
fn what_nobody_decides_expires_and_is_proposed_anew_with_other_figures() {
    let stage = Stage::new(WEB);
    let (web, daemon) = in_need(&stage, "[approvals]\nexpire_s = 1\n");
    told(&daemon, "proposal", "proposal 1 has expired");
    told(&daemon, "proposal", "proposed as 2");
    assert_eq!(daemon.view().domains[&web].memory.requested, Some(mib(512)));
}

#[test]
fn what_nothing_wants_any_more_is_withdrawn() {
    let stage = Stage::new(WEB);
    let (web, daemon) = in_need(&stage, SOON);
    proposal(&daemon, web, 1);
    stage.simulated.set_memory_used(web, mib(250));
    told(
        &daemon,
        "proposal",
        "proposal 1 is withdrawn, because nothing has wanted it",
    );
    daemon.wait_domain(web, "it is gone", |domain| domain.proposals.is_empty());
}

#[test]
fn a_revert_withdraws_what_was_proposed_for_the_machine_before() {
    let stage = Stage::new(WEB);
    let (web, daemon) = in_need(&stage, "");
    proposal(&daemon, web, 1);
    let to = AsItWas {
        vcpus: 4,
        device: mib(0),
    };
    stage.simulated.revert(web, to);
    told(
        &daemon,
        "proposal",
        "proposal 1 is withdrawn, because the machine has ended",
    );
}

#[test]
fn another_version_of_the_persona_withdraws_what_the_earlier_one_proposed() {
    let stage = Stage::new(WEB);
    let (web, daemon) = in_need(&stage, "");
    proposal(&daemon, web, 1);
    let updated = daemon.ask(Command::UpdatePersona {
        name: "elastic".into(),
        document: careful().replace("128 MiB", "192 MiB"),
        format: None,
        note: None,
    });
    assert!(matches!(updated, Ok(Reply::Stored(_))), "{updated:?}");
    told(
        &daemon,
        "proposal",
        "proposal 1 is withdrawn, because another persona",
    );
    let next = proposal(&daemon, web, 2);
    assert_eq!((next.version, next.to), (Some(2), Some(mib(704).0)));
}

#[test]
fn what_a_rule_does_once_is_proposed_refused_or_done_as_its_class_is_trusted() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(
        "
name: tells
adaptation_rules:
  - name: full
    when: memory.utilization > 70%
    then: [notify \"it is full\", isolate, run purge]
response_scripts:
  purge: {text: \"true\"}
trust_levels: {notify: low, network_access: none, command_execution: medium}
",
    );
    daemon.apply("web", "tells");
    stage.simulated.set_memory_used(web, mib(500));
    let notice = proposal(&daemon, web, 1);
    assert_eq!(notice.action.as_deref(), Some("notify \"it is full\""));
    // Nobody knows what a script has done, so medium trust is not enough for it.
    let script = proposal(&daemon, web, 2);
    assert_eq!(
        (script.action.as_deref(), script.level.as_str()),
        (Some("run purge"), "medium")
    );
    let refused = told(&daemon, "refusal", "asks for: isolate");
    assert!(refused.contains("network_access is none"), "{refused}");
    assert_eq!(daemon.told("decision"), [""; 0]);
    daemon.wait_explained("web", "somebody is to approve it", |explained| {
        let detail = explained.rules[0].detail.as_ref();
        detail.is_some_and(|detail| detail.contains("virt-persona approve 1"))
    });
    approve(&daemon, 1);
    told(&daemon, "decision", "rule full says: it is full");
    told(&daemon, "proposal", "proposal 1 is carried out");
    let ticks = daemon.view().manager.ticks;
    daemon.wait("it ticks on", |view| view.manager.ticks > ticks + 10);
    assert_eq!(daemon.told("decision").len(), 1, "it is done once");
    assert_eq!(daemon.told("refusal").len(), 1, "and refused once");
}

#[test]
fn a_hold_by_command_is_respected_named_and_ended_by_release() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(ELASTIC);
    daemon.apply("web", "elastic");
    for seconds in [0, 30 * 86_400 + 1, u64::MAX / 1000] {
        let refused = hold(&daemon, None, seconds);
        assert!(
            matches!(&refused, Err(Refusal::BadArgument { reason, .. }) if reason.contains("30 days")),
            "{seconds}: {refused:?}"
        );
    }
    let Ok(Reply::Held(holds)) = hold(&daemon, Some(Held::Memory), 3600) else {
        panic!("it can be held")
    };
    assert_eq!(holds.len(), 1);
    assert_eq!(holds[0].reason, "root wants it left alone");
    told(&daemon, "hold", "root wants memory left alone for 3600 s");
    stage.simulated.set_memory_used(web, mib(500));
    let explained = daemon.wait_explained("web", "the rule holds", |explained| {
        let first = explained.rules.first();
        first.is_some_and(|rule| rule.truth == TruthWord::True)
    });
    assert!(
        explained.summary.contains("root wants it left alone")
            && explained.summary.contains("virt-persona release"),
        "{}",
        explained.summary
    );
    // It holds over the end of the machine and over that of the daemon.
    let until = daemon.view().domains[&web].holds[0].until;
    stage.simulated.set_state(web, RunState::Off);
    daemon.wait_domain(web, "it is off", |domain| domain.state == RunState::Off);
    daemon.kill();
    let daemon = stage.start();
    stage.simulated.set_state(web, RunState::Running);
    stage.simulated.set_memory_used(web, mib(500));
    let ticks = daemon.view().manager.ticks;
    daemon.wait("it ticks on", |view| view.manager.ticks > ticks + 30);
    let held = daemon.wait_domain(web, "it runs", |domain| {
        domain.state == RunState::Running && !domain.holds.is_empty()
    });
    assert_eq!(held.holds[0].until, until);
    assert_eq!(daemon.told("decision"), [""; 0]);
    assert_eq!(release(&daemon), Ok(Reply::Done(Change::Changed)));
    told(&daemon, "hold", "root ended every hold");
    assert_eq!(release(&daemon), Ok(Reply::Done(Change::Unchanged)));
    daemon.wait_memory(web, |now| now == 768);
}

#[test]
fn release_forgets_the_quarantine_of_a_mechanism_that_was_stuck() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(ELASTIC);
    daemon.apply("web", "elastic");
    for _ in 0..3 {
        let message = "no".into();
        stage
            .simulated
            .fail_next(web, CallName::SetVirtioMem, Fault::Refuse { message });
    }
    stage.simulated.set_memory_used(web, mib(500));
    stage.sleep_after_failures(&daemon, 1);
    stage.sleep_after_failures(&daemon, 2);
    daemon.wait_domain(web, "it is in quarantine", |domain| {
        !domain.holds.is_empty()
    });
    assert_eq!(release(&daemon), Ok(Reply::Done(Change::Changed)));
    assert_eq!(daemon.view().domains[&web].holds, []);
    daemon.wait_memory(web, |now| now == 768);
}

#[test]
fn a_rule_that_demands_the_hosts_word_says_that_the_balloons_is_not_enough() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(
        "
name: demands
base_configuration:
  memory: {min: 512 MiB, max: 1536 MiB}
adaptation_rules:
  - name: grow
    when: memory.utilization > 70% FOR 1s
    then: [add 128 MiB memory]
    source: host
",
    );
    daemon.apply("web", "demands");
    stage.simulated.set_memory_used(web, mib(500));
    let explained = daemon.wait_explained("web", "there is a figure", |explained| {
        let first = explained.rules.first();
        first.is_some_and(|rule| rule.looked[0].value.is_some())
    });
    let looked = &explained.rules[0].looked[0];
    assert_eq!(looked.truth, TruthWord::Unknown);
    assert_eq!(
        looked.missing.as_deref(),
        Some("the word of balloon is not enough: the rule demands host")
    );
    let ticks = daemon.view().manager.ticks;
    daemon.wait("it ticks on", |view| view.manager.ticks > ticks + 30);
    assert_eq!(daemon.told("decision"), [""; 0]);
}
