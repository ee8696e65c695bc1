//! Domains are prepared for live scaling and put back: what is shown first is what is done, what was there is kept, and
//! failures leave nothing half told.

use persona::domain::DomainId;
use persona::units::Bytes;
use virt_persona::command::{Command, DomainName, Mode, Refusal, Reply};
use virt_persona::hypervisor::RunState;
use virt_persona::hypervisor::simulated::{CallName, Called, Fault, Scenario};
use virt_persona::view::{AdoptionState, AdoptionView, AdoptionWhen};

use crate::stage::{Running, Stage, found, mib, until};

/// One that lacks everything but a controller and a balloon.
const BARE: &str = "
deadline_ms = 2000
[host]
cores = 8
memory_mib = 16384
[[domain]]
name = 'web'
memory_mib = 512
numa_nodes = 0
balloon = 'silent'
";

fn wish(plan: Option<&str>, max_memory: Option<Bytes>, mode: Mode) -> Command {
    Command::Adopt {
        domain: DomainName("web".into()),
        max_vcpus: None,
        max_memory,
        plan: plan.map(Into::into),
        mode,
    }
}

fn adopt(daemon: &Running, plan: Option<&str>, mode: Mode) -> Result<AdoptionView, Refusal> {
    answer(daemon.ask(wish(plan, None, mode)))
}

/// Once more, for more memory than it was given the first time.
fn adopt_more(daemon: &Running) -> Result<AdoptionView, Refusal> {
    answer(daemon.ask(wish(None, Some(mib(4096)), Mode::Apply)))
}

fn answer(asked: Result<Reply, Refusal>) -> Result<AdoptionView, Refusal> {
    match asked? {
        Reply::Adoption(adoption) => Ok(*adoption),
        other => panic!("{other:?}"),
    }
}

fn undo(daemon: &Running, mode: Mode) -> Result<AdoptionView, Refusal> {
    let domain = DomainName("web".into());
    match daemon.ask(Command::UndoAdoption { domain, mode })? {
        Reply::Adoption(adoption) => Ok(*adoption),
        other => panic!("{other:?}"),
    }
}

fn when(adoption: &AdoptionView, subject: &str) -> AdoptionWhen {
    let line = adoption.lines.iter().find(|line| line.subject == subject);
    line.unwrap_or_else(|| panic!("{subject}: {adoption:#?}"))
        .when
}

/// The persistent definition.
fn definition(stage: &Stage) -> String {
    stage.persistent("web")
}

fn redefinitions(stage: &Stage) -> usize {
    let calls = stage.simulated.calls();
    calls
        .iter()
        .filter(|call| matches!(call, Called::Redefine { .. }))
        .count()
}

/// The daemon knows the host, which it asks for when it begins.
fn start(stage: &Stage) -> Running {
    let daemon = stage.start();
    daemon.wait("the host is known", |view| {
        view.manager.host.cores.is_some()
    });
    daemon
}

fn bare() -> (Stage, Running, DomainId) {
    let stage = Stage::new(BARE);
    let daemon = start(&stage);
    let web = stage.id("web");
    (stage, daemon, web)
}

/// A change of a definition by hand, and what an undo says of it.
#[track_caller]
fn seen_by_undo(stage: &Stage, daemon: &Running) {
    let now = definition(stage);
    stage.redefine("web", &now.replace("<acpi/>", "<acpi/><apic/>"));
    let refused = undo(daemon, Mode::Apply).unwrap_err().to_string();
    assert!(refused.contains("+ <acpi/><apic/>"), "{refused}");
    stage.redefine("web", &now);
}

#[test]
fn a_domain_is_adopted_as_was_shown_grows_after_its_next_start_and_is_put_back() {
    let (stage, daemon, web) = bare();
    let before = definition(&stage);

    let plan = adopt(&daemon, None, Mode::DryRun).unwrap();
    assert_eq!(plan.state, AdoptionState::Planned);
    assert_eq!(definition(&stage), before, "a dry run changed something");
    assert_eq!(when(&plan, "memory at most"), AdoptionWhen::NextStart);
    assert_eq!(when(&plan, "agent channel"), AdoptionWhen::Now);
    assert_eq!(when(&plan, "balloon statistics"), AdoptionWhen::Now);

    let refused = adopt(&daemon, Some("another"), Mode::Apply).unwrap_err();
    assert!(matches!(refused, Refusal::Conflict { .. }), "{refused}");
    assert_eq!(definition(&stage), before);

    let done = adopt(&daemon, Some(&plan.plan), Mode::Apply).unwrap();
    assert_eq!(done.state, AdoptionState::Done);
    assert_eq!(done.lines, plan.lines);
    let calls = stage.simulated.calls();
    assert!(
        calls
            .iter()
            .any(|call| matches!(call, Called::SetBalloonPeriod { .. })),
        "{calls:?}"
    );
    let records = daemon.told("adoption");
    assert!(
        records[0].contains("root prepared the domain"),
        "{records:?}"
    );
    // A second time there is nothing to do, and nothing is asked of the hypervisor.
    let again = adopt(&daemon, None, Mode::Apply).unwrap();
    assert_eq!(again.state, AdoptionState::Unchanged, "{again:#?}");
    assert_eq!(redefinitions(&stage), 1);

    // The next start has all of it.
    stage.simulated.set_state(web, RunState::Off);
    stage.simulated.set_state(web, RunState::Running);
    let domain = daemon.wait_domain(web, "it may grow", |domain| {
        domain.memory.domain_max > Some(mib(512)) && domain.state == RunState::Running
    });
    assert_eq!(domain.memory.domain_max, Some(mib(2048)));
    assert_eq!(domain.vcpus.domain_max, Some(4));
    daemon.create("name: more\nbase_configuration:\n  memory: {min: 512 MiB, initial: 768 MiB, max: 1 GiB}\nadaptation_rules:\n  - IF memory.utilization > 10% FOR 1s THEN add 128 MiB memory COOLDOWN 1s\n");
    daemon.apply("web", "more");
    stage.simulated.set_memory_used(web, mib(400));
    daemon.wait_memory(web, |now| now >= 640);

    let shown = undo(&daemon, Mode::DryRun).unwrap();
    assert_eq!(shown.state, AdoptionState::Planned);
    assert_ne!(definition(&stage), before);
    let undone = undo(&daemon, Mode::Apply).unwrap();
    assert_eq!(undone.state, AdoptionState::Done);
    assert!(undone.notes[0].contains("keeps all"), "{undone:?}");
    assert_eq!(definition(&stage), before);
    let refused = undo(&daemon, Mode::Apply).unwrap_err();
    assert!(
        refused.to_string().contains("has not prepared"),
        "{refused}"
    );
}

#[test]
fn what_somebody_changed_since_is_not_undone_and_what_was_kept_survives_a_restart() {
    let (stage, daemon, _) = bare();
    let before = definition(&stage);
    adopt(&daemon, None, Mode::Apply).unwrap();
    daemon.kill();

    let daemon = start(&stage);
    seen_by_undo(&stage, &daemon);
    // Anybody reads the audit, and a definition holds secrets.
    let told = daemon.told("refusal");
    let told: Vec<_> = told
        .iter()
        .filter(|text| text.contains("put the definition back"))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].ends_with("or keep all"), "{told:?}");
    assert!(!told[0].contains("apic"), "{told:?}");
    assert_eq!(
        undo(&daemon, Mode::Apply).unwrap().state,
        AdoptionState::Done
    );
    assert_eq!(definition(&stage), before);
}

#[test]
fn a_hypervisor_that_refuses_leaves_nothing_to_undo_and_one_that_is_late_leaves_a_way_back() {
    let (stage, daemon, web) = bare();
    let before = definition(&stage);
    let refuse = || Fault::Refuse {
        message: "XML document failed to validate".into(),
    };
    stage.simulated.fail_next(web, CallName::Redefine, refuse());
    let refused = adopt(&daemon, None, Mode::Apply).unwrap_err().to_string();
    assert!(refused.contains("failed to validate"), "{refused}");
    assert!(
        !stage
            .simulated
            .calls()
            .iter()
            .any(|call| matches!(call, Called::AttachDevice { .. })),
        "the running domain was given what its definition does not have"
    );
    let refused = undo(&daemon, Mode::Apply).unwrap_err().to_string();
    assert!(refused.contains("has not prepared"), "{refused}");

    // It takes effect and the answer is lost: what is there decides, and what the running domain lacks is said.
    stage
        .simulated
        .fail_next(web, CallName::Redefine, Fault::AnswerLost);
    let done = adopt(&daemon, None, Mode::Apply).unwrap();
    assert_eq!(done.state, AdoptionState::Done);
    assert!(
        done.notes.iter().any(|note| note.contains("not known")),
        "{done:#?}"
    );
    assert_ne!(definition(&stage), before);
    let undone = found("the domain answers", || match undo(&daemon, Mode::Apply) {
        // The call whose answer was lost is on its way still.
        Err(refusal) if refusal.to_string().contains("still hangs") => None,
        answer => Some(answer),
    });
    assert_eq!(undone.unwrap().state, AdoptionState::Done);
    assert_eq!(definition(&stage), before);

    // So it does where the answer is that it failed.
    stage
        .simulated
        .fail_next(web, CallName::Redefine, Fault::Dies);
    let done = adopt(&daemon, None, Mode::Apply).unwrap();
    assert_eq!(done.state, AdoptionState::Done);
    undo(&daemon, Mode::Apply).unwrap();
    assert_eq!(definition(&stage), before);

    // Without a connection nobody can look, so it is told later.
    stage
        .simulated
        .fail_next(web, CallName::Redefine, Fault::ConnectionLost { ms: 300 });
    let lost = adopt(&daemon, None, Mode::Apply).unwrap_err().to_string();
    assert!(lost.contains("not known yet"), "{lost}");
    daemon.wait_record("it took effect", |record| {
        record.kind == "adoption" && record.text.contains("nobody had seen end")
    });
    undo(&daemon, Mode::Apply).unwrap();
    assert_eq!(definition(&stage), before);

    // What cannot be added live comes with the next start, and that is said.
    stage.simulated.restart(web);
    stage
        .simulated
        .fail_next(web, CallName::AttachDevice, refuse());
    let done = adopt(&daemon, None, Mode::Apply).unwrap();
    assert_eq!(when(&done, "agent channel"), AdoptionWhen::NextStart);
    assert!(
        done.notes
            .iter()
            .any(|note| note.contains("could not be given the agent channel")),
        "{done:#?}"
    );
}

/// Begins an adoption and kills the daemon as soon as the hypervisor has been asked for this.
fn cut_off(stage: &Stage, daemon: Running, at: fn(&Called) -> bool) -> Running {
    let answer = daemon.begin(wish(None, None, Mode::Apply));
    until("the hypervisor is asked", || {
        stage.simulated.calls().iter().any(at)
    });
    daemon.kill();
    drop(answer);
    start(stage)
}

#[test]
fn an_adoption_cut_off_before_the_running_domain_got_its_part_leads_back_to_the_original() {
    let (stage, daemon, web) = bare();
    let before = definition(&stage);
    let fault = Fault::Slow { ms: 300 };
    stage
        .simulated
        .fail_next(web, CallName::AttachDevice, fault);
    let daemon = cut_off(&stage, daemon, |call| {
        matches!(call, Called::AttachDevice { .. })
    });
    daemon.wait_record("how it ended", |record| {
        record.kind == "adoption" && record.text.contains("prepared as root wanted")
    });
    assert_ne!(definition(&stage), before);
    // What a hand changes from here on is not taken for a part of it.
    seen_by_undo(&stage, &daemon);
    adopt_more(&daemon).unwrap();
    undo(&daemon, Mode::Apply).unwrap();
    assert_eq!(definition(&stage), before);
}

#[test]
fn an_adoption_cut_off_before_the_definition_leaves_what_a_hand_makes_of_it_next() {
    let (stage, daemon, web) = bare();
    let before = definition(&stage);
    stage
        .simulated
        .fail_next(web, CallName::Redefine, Fault::Hang { ms: 1000 });
    let daemon = cut_off(&stage, daemon, |call| {
        matches!(call, Called::Redefine { .. })
    });
    daemon.wait_record("how it ended", |record| {
        record.kind == "adoption" && record.text.contains("before it changed anything")
    });
    assert_eq!(definition(&stage), before);
    let by_hand = before.replace("<acpi/>", "<acpi/><apic/>");
    stage.redefine("web", &by_hand);
    let refused = undo(&daemon, Mode::Apply).unwrap_err().to_string();
    assert!(refused.contains("has not prepared"), "{refused}");
    adopt(&daemon, None, Mode::Apply).unwrap();
    undo(&daemon, Mode::Apply).unwrap();
    assert_eq!(definition(&stage), by_hand);
}

#[test]
fn two_adoptions_of_a_domain_do_not_meet() {
    let (stage, daemon, web) = bare();
    stage
        .simulated
        .fail_next(web, CallName::Definitions, Fault::Slow { ms: 300 });
    let ask = || daemon.begin(wish(None, None, Mode::Apply));
    let (first, second) = (ask(), ask());
    let second = daemon.finish(second);
    assert!(matches!(second, Err(Refusal::Busy { .. })), "{second:?}");
    assert!(daemon.finish(first).is_ok());
    let nobody = daemon.ask(Command::UndoAdoption {
        domain: DomainName("wbe".into()),
        mode: Mode::Apply,
    });
    assert!(
        matches!(nobody, Err(Refusal::NotFound { .. })),
        "{nobody:?}"
    );
}

#[test]
fn a_look_at_a_plan_keeps_nobody_from_an_adoption() {
    let (stage, daemon, web) = bare();
    stage
        .simulated
        .fail_next(web, CallName::Definitions, Fault::Slow { ms: 300 });
    let look = || daemon.begin(wish(None, None, Mode::DryRun));
    let (first, second) = (look(), look());
    let adopted = daemon.begin(wish(None, None, Mode::Apply));
    // One look a person at a time: the answer to the second does not wait for the hypervisor.
    let second = daemon.finish(second);
    assert!(matches!(second, Err(Refusal::Busy { .. })), "{second:?}");
    assert!(daemon.finish(first).is_ok());
    let adopted = answer(daemon.finish(adopted)).unwrap();
    assert_eq!(adopted.state, AdoptionState::Done);
    // And the place is free again.
    assert!(adopt(&daemon, None, Mode::DryRun).is_ok());
}

#[test]
fn a_second_adoption_that_is_refused_leaves_the_way_back_of_the_first() {
    let (stage, daemon, web) = bare();
    let before = definition(&stage);
    adopt(&daemon, None, Mode::Apply).unwrap();
    let prepared = definition(&stage);
    let message = "XML document failed to validate".into();
    stage
        .simulated
        .fail_next(web, CallName::Redefine, Fault::Refuse { message });
    let refused = adopt_more(&daemon).unwrap_err().to_string();
    assert!(refused.contains("failed to validate"), "{refused}");
    assert_eq!(definition(&stage), prepared);
    // What is kept is the whole record: a change by hand is still seen.
    seen_by_undo(&stage, &daemon);
    undo(&daemon, Mode::Apply).unwrap();
    assert_eq!(definition(&stage), before);
}

#[test]
fn a_second_adoption_leads_back_to_where_the_first_began() {
    let (stage, daemon, _) = bare();
    let before = definition(&stage);
    adopt(&daemon, None, Mode::Apply).unwrap();
    // A persona's status is written into it, and libvirt prints the devices in another order.
    let metadata = "<metadata>\n    <status>elastic</status>\n  </metadata>";
    let prepared = definition(&stage);
    let start = prepared.find("  <maxMemory").unwrap();
    let controller = "    <controller type='virtio-serial' index='0'/>\n";
    assert!(prepared.contains(controller), "{prepared}");
    let shown = format!("{}  {metadata}\n{}", &prepared[..start], &prepared[start..])
        .replace(controller, "")
        .replace("  </devices>", &format!("{controller}  </devices>"));
    stage.redefine("web", &shown);

    let more = adopt_more(&daemon).unwrap();
    assert_eq!(more.state, AdoptionState::Done, "{more:#?}");
    assert_ne!(definition(&stage), shown);
    let undone = undo(&daemon, Mode::Apply).unwrap();
    // What the first gave the instance that still runs is told too.
    assert!(
        undone
            .notes
            .iter()
            .any(|note| note.contains("agent channel")),
        "{undone:#?}"
    );
    let now = definition(&stage);
    assert!(now.contains(metadata), "{now}");
    let lines = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| line.trim().to_owned());
        lines.filter(|line| !line.is_empty()).collect()
    };
    assert_eq!(lines(&now.replace(metadata, "")), lines(&before));
}

#[test]
fn what_was_kept_of_a_domain_is_forgotten_with_it_also_while_the_daemon_is_away() {
    let (stage, daemon, web) = bare();
    let mut anew = Scenario::parse(BARE).unwrap().domains.remove(0);
    anew.id = Some(web);
    let forgotten = |daemon: &Running, times: usize| {
        let told = daemon.told("adoption").into_iter();
        let told = told.filter(|text| text.contains("before it was prepared is forgotten"));
        told.count() == times
    };
    adopt(&daemon, None, Mode::Apply).unwrap();
    stage.simulated.set_state(web, RunState::Off);
    daemon.wait_domain(web, "it is off", |domain| domain.state == RunState::Off);
    stage.simulated.undefine(web);
    daemon.wait("it is gone", |view| !view.domains.contains_key(&web));
    assert!(forgotten(&daemon, 1), "{:?}", daemon.told("adoption"));
    let nothing_to_undo = |daemon: &Running| {
        daemon.wait_domain(web, "it is found", |_| true);
        let refused = undo(daemon, Mode::Apply).unwrap_err().to_string();
        assert!(refused.contains("has not prepared"), "{refused}");
    };
    stage.simulated.add_domain(anew.clone());
    nothing_to_undo(&daemon);

    adopt(&daemon, None, Mode::Apply).unwrap();
    daemon.kill();
    stage.simulated.remove_domain(web);
    let daemon = stage.start();
    daemon.wait_record("of the domain that has gone", |_| forgotten(&daemon, 2));
    stage.simulated.add_domain(anew);
    nothing_to_undo(&daemon);
}
