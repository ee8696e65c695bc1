//! Domains are prepared for live scaling and put back: what is shown first is what is done, what was there is kept, and
//! failures leave nothing half told.

use virt_persona::command::{Command, DomainName, Mode, Refusal, Reply};
use virt_persona::hypervisor::RunState;
use virt_persona::hypervisor::simulated::{CallName, Called, Fault};
use virt_persona::view::{AdoptionState, AdoptionView, AdoptionWhen};

use crate::stage::{Running, Stage, mib};

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

fn adopt(daemon: &Running, plan: Option<&str>, mode: Mode) -> Result<AdoptionView, Refusal> {
    let asked = daemon.ask(Command::Adopt {
        domain: DomainName("web".into()),
        max_vcpus: None,
        max_memory: None,
        plan: plan.map(Into::into),
        mode,
    });
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

#[test]
fn a_domain_is_adopted_as_was_shown_grows_after_its_next_start_and_is_put_back() {
    let stage = Stage::new(BARE);
    let web = stage.id("web");
    let daemon = start(&stage);
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
    let stage = Stage::new(BARE);
    let daemon = start(&stage);
    let before = definition(&stage);
    adopt(&daemon, None, Mode::Apply).unwrap();
    daemon.kill();

    let daemon = start(&stage);
    let prepared = definition(&stage);
    stage.redefine("web", &prepared.replace("<acpi/>", "<acpi/><apic/>"));
    let refused = undo(&daemon, Mode::Apply).unwrap_err().to_string();
    assert!(refused.contains("+ <acpi/><apic/>"), "{refused}");
    assert!(
        daemon
            .told("refusal")
            .iter()
            .any(|text| text.contains("put the definition back")),
        "{:?}",
        daemon.told("refusal")
    );
    stage.redefine("web", &prepared);
    assert_eq!(
        undo(&daemon, Mode::Apply).unwrap().state,
        AdoptionState::Done
    );
    assert_eq!(definition(&stage), before);
}

#[test]
fn a_hypervisor_that_refuses_leaves_nothing_to_undo_and_one_that_is_late_leaves_a_way_back() {
    let stage = Stage::new(BARE);
    let web = stage.id("web");
    let daemon = start(&stage);
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

    // It takes effect and the answer is lost.
    stage
        .simulated
        .fail_next(web, CallName::Redefine, Fault::AnswerLost);
    let lost = adopt(&daemon, None, Mode::Apply).unwrap_err().to_string();
    assert!(lost.contains("not known"), "{lost}");
    assert_ne!(definition(&stage), before);
    let undone = loop {
        match undo(&daemon, Mode::Apply) {
            // The call whose answer was lost is on its way still.
            Err(refusal) if refusal.to_string().contains("still hangs") => {}
            answer => break answer,
        }
    };
    assert_eq!(undone.unwrap().state, AdoptionState::Done);
    assert_eq!(definition(&stage), before);

    // What cannot be added live comes with the next start, and that is said.
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

#[test]
fn two_adoptions_of_a_domain_do_not_meet() {
    let stage = Stage::new(BARE);
    let web = stage.id("web");
    let daemon = start(&stage);
    stage
        .simulated
        .fail_next(web, CallName::Definitions, Fault::Slow { ms: 300 });
    let ask = || {
        daemon.begin(Command::Adopt {
            domain: DomainName("web".into()),
            max_vcpus: None,
            max_memory: None,
            plan: None,
            mode: Mode::Apply,
        })
    };
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
