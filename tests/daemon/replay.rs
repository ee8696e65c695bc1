//! What is recorded can be played again: the replay of a domain's recording decides what was decided, as the audit has it.

use std::convert::Infallible;
use std::io::Cursor;

use persona::{Format, Persona, SourceText};
use virt_persona::command::{Command, DomainName};
use virt_persona::record::Trace;
use virt_persona::simulate::{Happening, Outcome, Setting, Sizes, Survey, What, replay_recording};

use crate::recording::{WEB, recording};
use crate::stage::{ELASTIC, Running, Stage, found, mib, until};

fn persona(text: &str) -> Persona {
    let source = SourceText {
        name: "document",
        text: text.as_bytes(),
        format: Format::Yaml,
        persona_name: None,
    };
    persona::load(&source).unwrap().persona
}

struct Played {
    happenings: Vec<Happening>,
    outcome: Outcome,
    /// When it was decided otherwise.
    left: Option<persona::Moment>,
}

fn play(text: &str, trace: &str, setting: &Setting) -> Played {
    let persona = persona(text);
    let open = || Trace::open(Cursor::new(trace)).unwrap();
    let (survey, about) = Survey::of_recording(open()).unwrap();
    let start = Sizes::recorded(&about.frame, about.budget, setting).unwrap();
    let mut happenings = Vec::new();
    let mut tell = |happening| {
        happenings.push(happening);
        Ok::<(), Infallible>(())
    };
    let seen = (&survey, &about);
    let (outcome, left) = replay_recording(&persona, start, seen, open(), &mut tell).unwrap();
    Played {
        happenings,
        outcome,
        left,
    }
}

/// A decision: when, by which rule, from what, wanted, each limit, to what.
type Decision = (
    String,
    Option<String>,
    u64,
    u64,
    Vec<(String, u64, u64)>,
    u64,
);

/// The decisions of the audit that began a step of memory of a domain.
fn decided(daemon: &Running, domain: &str) -> Vec<Decision> {
    let show = |at: u64| {
        let at = i64::try_from(at).unwrap();
        jiff::Timestamp::from_millisecond(at).unwrap().to_string()
    };
    let records = daemon.audit().into_iter();
    let steps = records.filter(|record| {
        record.kind == "decision" && record.domain_name.as_deref() == Some(domain)
    });
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    steps
        .map(|record| {
            let lines = record.detail["resources"].as_array().unwrap();
            let line = lines
                .iter()
                .find(|line| line["resource"] == "memory")
                .unwrap();
            let clamps = line["clamps"].as_array().unwrap().iter().map(|clamp| {
                let limit = clamp["limit"].as_str().unwrap().to_owned();
                (limit, number(&clamp["from"]), number(&clamp["to"]))
            });
            (
                // Of the tick; the record itself is a moment later.
                show(number(&record.detail["at"])),
                line["by"]["rule"].as_str().map(str::to_owned),
                number(&line["present"]),
                number(&line["wanted"]),
                clamps.collect(),
                number(&line["verdict"]["step"]),
            )
        })
        .collect()
}

/// The same of a replay.
fn played(played: &Played) -> Vec<Decision> {
    let changes = played.happenings.iter().filter_map(|happening| {
        let What::Change {
            from,
            wanted,
            clamps,
            to,
            ..
        } = &happening.what
        else {
            return None;
        };
        let clamps = clamps.iter().map(|clamp| {
            let limit = serde_json::to_value(clamp.limit).unwrap();
            (limit.as_str().unwrap().to_owned(), clamp.from, clamp.to)
        });
        Some((
            happening.at.clone(),
            happening.rule.clone(),
            *from,
            *wanted,
            clamps.collect(),
            *to,
        ))
    });
    changes.collect()
}

#[test]
fn the_replay_of_a_recording_decides_tick_by_tick_what_the_audit_has() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(ELASTIC);
    daemon.apply("web", "elastic");
    stage.simulated.set_memory_used(web, mib(500));
    daemon.wait_memory(web, |now| now >= 768);
    stage.simulated.set_memory_used(web, mib(270));
    daemon.wait_memory(web, |now| now == 640);
    // Steps that are carried out are in the recording with their end.
    daemon.wait_record("the last step is applied", |record| {
        record.kind == "action" && record.text.contains("704 MiB -> 640 MiB")
    });
    let trace = recording(&daemon, "web");
    let decided = decided(&daemon, "web");
    assert!(decided.len() >= 4, "{decided:#?}");
    let replay = play(ELASTIC, &trace, &Setting::default());
    assert_eq!(played(&replay), decided);
    assert_eq!(replay.left, None);
    assert_eq!(
        replay.outcome.totals.changes,
        u64::try_from(decided.len()).unwrap()
    );

    // Another persona, or another size, decides otherwise from some time on, and then goes its own way.
    let timid = ELASTIC.replace("70%", "95%");
    let other = play(&timid, &trace, &Setting::default());
    assert!(other.left.is_some());
    assert_ne!(played(&other), decided);
    let large = Setting {
        memory: Some(mib(1024)),
        ..Setting::default()
    };
    assert!(play(ELASTIC, &trace, &large).left.is_some());
}

const TWO: &str = "
deadline_ms = 2000
[host]
cores = 2
memory_mib = 2400
[[domain]]
name = 'web'
memory_mib = 512
virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]
guest = { memory_used_mib = 300 }
[[domain]]
name = 'db'
memory_mib = 512
virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]
guest = { memory_used_mib = 300 }
";

#[test]
fn a_domain_that_shares_the_host_is_replayed_alone_with_what_the_others_claimed() {
    let stage = Stage::new(TWO);
    let (web, db) = (stage.id("web"), stage.id("db"));
    let daemon = stage.start();
    daemon.create(ELASTIC);
    daemon.apply("web", "elastic");
    daemon.apply("db", "elastic");
    stage.simulated.set_memory_used(web, mib(500));
    stage.simulated.set_memory_used(db, mib(500));
    let refused = |domain: &str| {
        let explained = daemon.ask(Command::Explain {
            domain: DomainName(domain.into()),
            at: None,
        });
        format!("{explained:?}").contains("other domains")
    };
    // The budget does not do for both.
    until("one of them is refused", || refused("web") || refused("db"));
    for domain in ["web", "db"] {
        let trace = recording(&daemon, domain);
        let decided = decided(&daemon, domain);
        let replay = play(ELASTIC, &trace, &Setting::default());
        assert_eq!(replay.left, None, "{domain}");
        assert_eq!(played(&replay)[..], decided[..played(&replay).len()]);
        assert!(!played(&replay).is_empty());
    }
}

#[test]
fn a_recording_over_a_restart_is_replayed_to_its_end() {
    let stage = Stage::new(WEB);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(ELASTIC);
    daemon.apply("web", "elastic");
    stage.simulated.set_memory_used(web, mib(500));
    daemon.wait_memory(web, |now| now >= 768);
    daemon.stop();
    let daemon = stage.start();
    stage.simulated.set_memory_used(web, mib(100));
    daemon.wait_memory(web, |now| now == 512);
    daemon.wait_record("the last step is applied", |record| {
        record.kind == "action" && record.text.contains("plugged 512 MiB")
    });
    let trace = recording(&daemon, "web");
    let replay = play(ELASTIC, &trace, &Setting::default());
    assert_eq!(replay.left, None);
    assert_eq!(played(&replay), decided(&daemon, "web"));
}

/// Its knobs are moved by the base configuration, by a rule and its `until`, and by a cap in the place of a removal.
const LIMITED: &str = "
name: limited
base_configuration:
  cpu: {min: 1, max: 2, share: 2000}
  disk: {iops: 1000}
adaptation_rules:
  - IF memory.utilization > 80% THEN set disk iops to 200, set vcpus to 1 UNTIL memory.utilization < 70% COOLDOWN 1s
";

const RIGID: &str = "
deadline_ms = 2000
[[domain]]
name = 'web'
memory_mib = 512
vcpus = 2
vcpus_maximum = 2
vcpus_fixed = 2
virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]
disks = [{ target = 'vda' }, { target = 'vdb' }]
guest = { memory_used_mib = 300 }
";

/// Each turn of a knob: when it was decided, and what.
fn turns(daemon: &Running) -> Vec<(String, String)> {
    let records = daemon.audit().into_iter();
    let turns = records.filter(|record| {
        let knobs = ["CPU weight: ", "CPU cap: ", "disk iops: "];
        record.kind == "decision" && knobs.iter().any(|knob| record.text.starts_with(knob))
    });
    turns
        .map(|record| {
            let at = i64::try_from(record.detail["at"].as_u64().unwrap()).unwrap();
            let at = jiff::Timestamp::from_millisecond(at).unwrap().to_string();
            (at, record.text)
        })
        .collect()
}

fn played_turns(played: &Played) -> Vec<(String, String)> {
    let turns = played.happenings.iter().filter_map(|happening| {
        let What::Limit { knob, from, to } = &happening.what else {
            return None;
        };
        let from = knob.text(from.unwrap());
        let text = format!(
            "{knob}: {from} -> {} because of {}",
            knob.text(*to),
            happening.by
        );
        Some((happening.at.clone(), text))
    });
    turns.collect()
}

/// How many turns of knobs have ended in a recording.
fn ended(trace: &str) -> usize {
    let lines = trace.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["domain"]["turned"].as_array().map_or(0, Vec::len)
    });
    lines.sum()
}

#[test]
fn the_replay_decides_every_turn_of_a_knob_and_an_older_recording_has_none() {
    let stage = Stage::new(RIGID);
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(LIMITED);
    daemon.apply("web", "limited");
    let wait = |what: &str, iops: u32, caps: usize| {
        daemon.wait_record(what, |record| {
            record.kind == "action"
                && record.text.starts_with("disk iops ")
                && record.text.contains(&format!("applied (shown {iops}/s)"))
        });
        until("the cap was turned", || {
            let turns = turns(&daemon);
            let capped = turns.iter().filter(|(_, text)| text.starts_with("CPU cap"));
            capped.count() >= caps
        });
    };
    wait("the base configuration is in force", 1000, 0);
    stage.simulated.set_memory_used(web, mib(450));
    wait("the rule has its say", 200, 1);
    stage.simulated.set_memory_used(web, mib(100));
    daemon.wait_domain(web, "all is as the base configuration says", |domain| {
        let settled = |limit: &virt_persona::view::LimitView| {
            limit.wanted.is_none() || Some(&limit.present) == limit.wanted.as_ref()
        };
        let problems = domain.problems.iter().any(|text| text.contains("capped"));
        domain.limits.len() == 2 && domain.limits.iter().all(settled) && !problems
    });
    let decided = turns(&daemon);
    assert_eq!(decided.len(), 6, "{decided:#?}");
    // The last turn's end is in the recording with the tick after it.
    let trace = found("all turns are in the recording", || {
        let trace = recording(&daemon, "web");
        (ended(&trace) == decided.len()).then_some(trace)
    });
    let replay = play(LIMITED, &trace, &Setting::default());
    assert_eq!(replay.left, None);
    assert_eq!(played_turns(&replay), decided);

    // Another persona turns other knobs, and from then on goes its own way.
    let other = play(
        &LIMITED.replace("200,", "300,"),
        &trace,
        &Setting::default(),
    );
    assert!(other.left.is_some());
    assert!(
        played_turns(&other)
            .iter()
            .any(|(_, text)| text.contains("300/s"))
    );

    // As a version wrote it that told nothing of knobs.
    let older: Vec<String> = trace
        .lines()
        .map(|line| {
            if line.contains("virt_persona_recording") {
                return format!("{line}\n");
            }
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            if let Some(domain) = line
                .get_mut("domain")
                .and_then(|domain| domain.as_object_mut())
            {
                for key in ["knobs", "turned", "turns"] {
                    domain.remove(key);
                }
            }
            format!("{line}\n")
        })
        .collect();
    let older = play(LIMITED, &older.concat(), &Setting::default());
    assert_eq!(played_turns(&older), []);
    assert_eq!(older.left, None);
}
