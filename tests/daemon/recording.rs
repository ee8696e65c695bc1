//! What the daemon records: the decision at a time, and a trace of a domain. That a trace is replayed with the decisions
//! that were made is in `replay`.

use std::io::Read;

use persona::units::Moment;
use virt_persona::command::{Command, DomainName, Refusal, Reply};
use virt_persona::view::{ExplainView, Resource};

use crate::stage::{ELASTIC, Running, Stage, found, mib};

pub(crate) const WEB: &str = "
deadline_ms = 2000
[[domain]]
name = 'web'
vcpus_maximum = 4
memory_mib = 512
virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]
guest = { memory_used_mib = 300 }
";

/// What is recorded of a domain, from its beginning, as soon as something is.
pub(crate) fn recording(daemon: &Running, domain: &str) -> String {
    let file = found("something is recorded", || {
        let asked = daemon.ask(Command::Recording {
            domain: DomainName(domain.into()),
            since: None,
            until: None,
        });
        match asked {
            Ok(Reply::Recording(file)) => Some(file),
            Err(refusal) => {
                let reason = refusal.to_string();
                assert!(reason.contains("nothing is recorded of it yet"), "{reason}");
                None
            }
            other => panic!("{other:?}"),
        }
    });
    let mut text = String::new();
    file.open().unwrap().read_to_string(&mut text).unwrap();
    text
}

fn explain_at(daemon: &Running, at: Moment) -> Result<ExplainView, Refusal> {
    let asked = daemon.ask(Command::Explain {
        domain: DomainName("web".into()),
        at: Some(at),
    });
    asked.map(|reply| match reply {
        Reply::Explain(explained) => *explained,
        other => panic!("{other:?}"),
    })
}

#[test]
fn the_decision_of_a_time_is_told_with_its_figures_its_limits_and_what_came_of_it() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(ELASTIC);
    daemon.apply("web", "elastic");
    stage.simulated.set_memory_used(web, mib(500));
    daemon.wait_memory(web, |now| now >= 768);
    let action = daemon.wait_record("the last step is applied", |record| {
        record.kind == "action" && record.text.contains("plugged 768 MiB")
    });
    let records = daemon.audit();
    let decision = records
        .iter()
        .find(|record| record.kind == "decision")
        .unwrap();
    let then = explain_at(&daemon, decision.at).unwrap();
    assert_eq!(decision.detail["at"], then.at.0);
    assert!(
        then.summary.contains("memory goes from 512 MiB to 640 MiB"),
        "{}",
        then.summary
    );
    let looked = &then.rules[0].looked[0];
    assert!(looked.value.is_some() && looked.source.is_some() && looked.age_ms.is_some());
    // The end of the step is told by the decision after it, which the next tick brings.
    let later = found("the next tick has decided", || {
        let later = explain_at(&daemon, Moment(action.at.0 + 2000)).unwrap();
        (later.at >= action.at).then_some(later)
    });
    let memory = later
        .resources
        .iter()
        .find(|line| line.resource == Resource::Memory)
        .unwrap();
    let action = memory.action.as_ref().unwrap();
    assert!(
        action.sentence.contains("plugged 768 MiB"),
        "{}",
        action.sentence
    );
    let before = explain_at(&daemon, Moment(1_000_000))
        .unwrap_err()
        .to_string();
    assert!(before.contains("the recording goes from 20"), "{before}");
    let nobody = daemon.ask(Command::Recording {
        domain: DomainName("wbe".into()),
        since: None,
        until: None,
    });
    assert!(
        nobody
            .unwrap_err()
            .to_string()
            .contains("did you mean `web`?")
    );
}

#[test]
fn a_recording_goes_on_behind_a_kill_and_what_a_kill_left_of_a_line_is_dropped() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(ELASTIC);
    daemon.apply("web", "elastic");
    let first = recording(&daemon, "web");
    assert!(
        first.starts_with("{\"virt_persona_recording\":1,"),
        "{first}"
    );
    daemon.kill();
    let folder = stage.path().join("state/recordings");
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let mut text = std::fs::read(&path).unwrap();
        text.extend(b"{\"at\":17");
        std::fs::write(&path, text).unwrap();
    }
    let daemon = stage.start();
    stage.simulated.set_memory_used(web, mib(500));
    daemon.wait_memory(web, |now| now >= 768);
    let second = recording(&daemon, "web");
    assert!(second.starts_with(first.lines().next().unwrap()));
    let starts = second
        .lines()
        .filter(|line| line.contains("\"why\":\"start\""))
        .count();
    assert_eq!(starts, 2, "{second}");
    assert!(second.lines().count() > first.lines().count());
}
