//! `virt-persona simulate` as people and programs see it: what it prints, what it refuses, and that the first documents of
//! the language do what they say. The examples have their own traces in `personas`.

// A test stops where something is not as it must be, also in the functions that tests share.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A small persona with a rule of each kind.
const PERSONA: &str = "
name: small
base_configuration:
  cpu: {min: 1, initial: 2, max: 3}
  memory: {min: 512 MiB, initial: 1 GiB, max: 2 GiB}
adaptation_rules:
  - name: grow
    when: cpu.utilization > 80% FOR 10s
    then: add 4 vcpus
    until: cpu.utilization < 20% FOR 20s
    cooldown: 5s
  - name: cdn
    when: avg(network.latency, 10s) > 100ms
    then: enable feature cdn-caching
    until: network.latency < 50ms
  - name: tell
    when: EVENT(agent.lost)
    then: notify \"gone\"
  - name: trickle
    when: guest.app.orders > 5 FOR 1m
    then: add 64 MiB memory
  - name: hosted
    when: memory.utilization > 50%
    then: add 1 GiB memory
    source: host
  - name: never
    when: cpu.utilization > 99% FOR 1m
    then: notify \"full\"
";

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Runs in the folder, so that messages name files alone.
    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_virt-persona"))
            .arg("simulate")
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[arguments, &["--json"]].concat())).unwrap()
    }
}

/// A load that comes and goes, with all that the persona's rules look at but for orders.
fn busy() -> String {
    let mut text =
        "time,cpu.utilization,network.latency [ms],memory.utilization,event\n".to_owned();
    for second in 0..120 {
        let (cpu, latency) = if (10..70).contains(&second) {
            (92, 150)
        } else {
            (8, 20)
        };
        let event = if second == 90 { "agent.lost" } else { "" };
        let _ = writeln!(
            text,
            "08:{:02}:{:02},{cpu},{latency},60,{event}",
            second / 60,
            second % 60
        );
    }
    text
}

#[test]
fn what_is_done_is_printed_with_its_figures_its_limits_and_why_other_rules_are_silent() {
    let folder = Folder::new();
    folder.write("small.yaml", PERSONA);
    folder.write("busy.csv", busy());
    let found = folder.text(&["small.yaml", "--trace", "busy.csv"]);
    golden("tests/fixtures/simulate.txt", &found);
}

/// Names of all members, of objects in lists as well.
fn keys(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                found.push(name.clone());
                // These are named by what happened.
                if name != "actions" {
                    keys(value, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
        _ => {}
    }
}

#[test]
fn json_says_the_same_and_every_member_of_it_is_documented() {
    let folder = Folder::new();
    folder.write("small.yaml", PERSONA);
    folder.write("busy.csv", busy());
    let found = folder.json(&["small.yaml", "--trace", "busy.csv"]);
    let text = folder.text(&["small.yaml", "--trace", "busy.csv"]);
    let happenings = found["happenings"].as_array().unwrap();
    assert!(happenings.len() > 5);
    for happening in happenings {
        let line = format!(
            "{}  {}",
            happening["at"].as_str().unwrap(),
            happening["text"].as_str().unwrap()
        );
        assert!(text.contains(&line), "{line}");
    }
    assert_eq!(found["rules"].as_array().unwrap().len(), 6);
    let documented =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/simulate.md")).unwrap();
    let mut members = Vec::new();
    keys(&found, &mut members);
    for member in members {
        assert!(
            documented.contains(&format!("`{member}`")),
            "docs/simulate.md does not name `{member}`"
        );
    }
}

#[test]
fn what_cannot_be_replayed_is_refused_with_what_to_do() {
    let folder = Folder::new();
    folder.write("small.yaml", PERSONA);
    folder.write("twin.yaml", "name: twin\nextends: [small]\n");
    folder.write("bad.yaml", "name: bad\nbase_configuraton: {}\n");
    folder.write("busy.csv", busy());
    folder.write("wrong.csv", "time,cpu.utilization\n0,50\n1,hot\n");
    folder.write("latin.csv", b"time,cpu.utilization\n0,\xe4\n");
    for (arguments, status, said) in [
        (
            &["bad.yaml", "--trace", "busy.csv"][..],
            1,
            "did you mean `base_configuration`",
        ),
        (
            &["none.yaml", "--trace", "busy.csv"],
            1,
            "cannot read `none.yaml`",
        ),
        (
            &["twin.yaml", "--trace", "busy.csv"],
            1,
            "builds on `small`, which was not given; name its file with --base",
        ),
        (
            &["small.yaml", "--trace", "none.csv"],
            1,
            "cannot replay `none.csv`: No such file",
        ),
        (&["small.yaml", "--trace", "."], 1, "it is no regular file"),
        (
            &["small.yaml", "--trace", "wrong.csv"],
            1,
            "line 3, column 2 (cpu.utilization): `hot` is no number",
        ),
        (
            &["small.yaml", "--trace", "latin.csv"],
            1,
            "line 2 is not UTF-8 text",
        ),
        (
            &["small.yaml", "--trace", "busy.csv", "--vcpus", "4"],
            2,
            "would start with 4 vCPUs and may have 3 at most",
        ),
        (
            &["small.yaml", "--trace", "busy.csv", "--memory", "4"],
            2,
            "is no size; write a size such as `4 GiB`",
        ),
        (&["small.yaml"], 2, "--trace"),
    ] {
        let output = folder.run(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            output.status.code(),
            Some(status),
            "{arguments:?}: {complaint}"
        );
        assert!(complaint.contains(said), "{arguments:?}: {complaint}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    let twin = ["twin.yaml", "--base", "small.yaml", "--trace", "busy.csv"];
    let found = folder.json(&twin);
    assert_eq!(
        (&found["persona"], found["rules"].as_array().unwrap().len()),
        (&"twin".into(), 6)
    );
}

const GREEDY: &str = "
name: greedy
base_configuration:
  cpu: {min: 1, initial: 2}
  memory: {min: 1 GiB, initial: 1 GiB}
adaptation_rules:
  - IF cpu.utilization > 80% FOR 5s THEN add 1 vcpus COOLDOWN 1s
  - IF cpu.utilization < 30% FOR 5s THEN remove 1 vcpus COOLDOWN 1s
";

/// The same utilisation for some minutes.
fn steady(percent: f64) -> String {
    let mut text = "time,cpu.utilization\n".to_owned();
    for second in 0..300 {
        let _ = writeln!(text, "{second},{percent}");
    }
    text
}

fn last_vcpus(found: &Value) -> u64 {
    let changes = found["happenings"].as_array().unwrap().iter();
    let mut vcpus = changes
        .filter(|happening| happening["kind"] == "change" && happening["resource"] == "vcpus");
    vcpus.next_back().map_or_else(
        || found["domain"]["vcpus"].as_u64().unwrap(),
        |change| change["to"].as_u64().unwrap(),
    )
}

#[test]
fn an_open_load_stays_what_it_is_and_a_closed_one_is_less_of_a_larger_machine() {
    let folder = Folder::new();
    folder.write("greedy.yaml", GREEDY);
    folder.write("steady.csv", steady(90.0));
    let play = |arguments: &[&str]| {
        folder.json(
            &[
                &["greedy.yaml", "--trace", "steady.csv", "--vcpus", "2:8"],
                arguments,
            ]
            .concat(),
        )
    };
    let open = play(&[]);
    assert_eq!(last_vcpus(&open), 8);
    // The growth that is refused at the limit is time with too little.
    assert!(open["totals"]["refused_seconds"].as_f64().unwrap() > 200.0);
    let closed = play(&["--load", "closed"]);
    // 90 % of two is 60 % of three.
    assert_eq!(last_vcpus(&closed), 3);
    assert_eq!(closed["totals"]["short_seconds"], 0.0);
    assert!(closed["totals"]["vcpu_hours"].as_f64() < open["totals"]["vcpu_hours"].as_f64());
}

#[test]
fn a_host_that_has_no_more_refuses_and_says_so() {
    let folder = Folder::new();
    folder.write("greedy.yaml", GREEDY);
    folder.write("steady.csv", steady(96.0));
    let found = folder.json(&[
        "greedy.yaml",
        "--trace",
        "steady.csv",
        "--vcpus",
        "2:8",
        "--host-vcpus",
        "4",
    ]);
    assert_eq!(last_vcpus(&found), 4);
    let refused = found["happenings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|happening| happening["kind"] == "refused");
    let reason = refused.unwrap()["reason"].as_str().unwrap();
    assert!(reason.contains("the host's budget is 4 vCPUs"), "{reason}");
    assert_eq!(
        found["totals"]["saturated_seconds"],
        found["totals"]["seconds"]
    );
}

#[test]
fn a_gap_shrinks_nothing_and_starts_windows_anew() {
    let folder = Folder::new();
    folder.write("greedy.yaml", GREEDY);
    let mut trace = "time,cpu.utilization\n".to_owned();
    for second in 0..300 {
        // Idle but for a gap that begins before the first window is full.
        let value = if (1..200).contains(&second) { "" } else { "5" };
        let _ = writeln!(trace, "{second},{value}");
    }
    folder.write("gap.csv", trace);
    let found = folder.json(&["greedy.yaml", "--trace", "gap.csv"]);
    let first = &found["happenings"][0];
    assert_eq!(
        (first["at"].as_str(), first["to"].as_u64()),
        (Some("205"), Some(1))
    );
    let shrink = &found["rules"][1];
    assert!(
        shrink["unknown_seconds"].as_f64().unwrap() > 190.0,
        "{shrink}"
    );
}

/// A document as its authors first wrote it.
fn printed(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("crates/persona/tests/seeds")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What happened first because of each rule, in seconds and words.
fn firsts(found: &Value) -> Vec<(String, f64, String)> {
    let mut firsts: Vec<(String, f64, String)> = Vec::new();
    for happening in found["happenings"].as_array().unwrap() {
        let rule = happening["rule"].as_str().unwrap_or_default();
        if !rule.is_empty() && firsts.iter().all(|(known, ..)| known != rule) {
            let (seconds, text) = (
                happening["seconds"].as_f64().unwrap(),
                happening["text"].as_str().unwrap(),
            );
            firsts.push((rule.to_owned(), seconds, text.to_owned()));
        }
    }
    firsts
}

#[test]
fn high_traffic_scales_up_after_five_minutes_switches_the_cdn_on_and_blocks_addresses() {
    let folder = Folder::new();
    folder.write("HighTraffic.yaml", printed("HighTraffic.yaml"));
    // An hour: a minute of calm, then load; slow answers from the tenth minute on; news from the feed in the twentieth.
    let mut trace = "time,CPU Load,Network Latency [ms],event\n".to_owned();
    for step in 0..720 {
        let at = step * 5;
        let (cpu, latency) = (
            if at < 60 { 40 } else { 85 },
            if at < 600 { 30 } else { 140 },
        );
        let event = if at == 1200 {
            "feed.changed(threatintel.example.com)"
        } else {
            ""
        };
        let _ = writeln!(trace, "{at},{cpu},{latency},{event}");
    }
    folder.write("t.csv", trace);
    let found = folder.json(&[
        "HighTraffic.yaml",
        "--name",
        "HighTraffic",
        "--trace",
        "t.csv",
    ]);
    assert_eq!(found["persona"], "hightraffic");
    assert_eq!(
        (&found["domain"]["vcpus"], last_vcpus(&found)),
        (&8.into(), 16)
    );
    let firsts = firsts(&found);
    let [(_, cpu, scaled), (_, latency, cdn), (_, feed, blocked)] = firsts.as_slice() else {
        panic!("{firsts:#?}");
    };
    // Five whole minutes of load, and not a second less.
    assert!((360.0..=365.0).contains(cpu), "{cpu}");
    assert!(
        scaled
            .contains("cpu.utilization 85 % for 5 min; wants 16, one vCPU a step: 9; vcpus 8 -> 9"),
        "{scaled}"
    );
    assert!((600.0..=605.0).contains(latency), "{latency}");
    assert!(
        cdn.ends_with("network.latency 140 ms; would call: enable feature cdn-caching"),
        "{cdn}"
    );
    assert!((1200.0..=1201.0).contains(feed), "{feed}");
    assert!(
        blocked.contains(
            "would call: block addresses from threatintel.example.com (this version records it only)"
        ),
        "{blocked}"
    );
}

#[test]
fn load_that_ends_before_five_minutes_scales_nothing() {
    let folder = Folder::new();
    folder.write("HighTraffic.yaml", printed("HighTraffic.yaml"));
    let mut trace = "time,cpu.utilization\n".to_owned();
    for second in 0..900 {
        let _ = writeln!(
            trace,
            "{second},{}",
            if second % 310 < 299 { 95 } else { 70 }
        );
    }
    folder.write("t.csv", trace);
    let found = folder.json(&[
        "HighTraffic.yaml",
        "--name",
        "HighTraffic",
        "--trace",
        "t.csv",
    ]);
    assert_eq!(firsts(&found), []);
    let why = found["rules"][0]["why"]["text"].as_str().unwrap();
    assert!(
        why.starts_with("never true; it held for at most 4 min 58 s of 5 min"),
        "{why}"
    );
}

#[test]
fn the_rule_with_priorities_fires_as_long_as_performance_counts_for_more_than_security() {
    let folder = Folder::new();
    let document = printed("adaptive.yaml");
    folder.write("adaptive.yaml", &document);
    folder.write(
        "secure.yaml",
        document.replace("security: 1", "security: 4"),
    );
    folder.write("t.csv", steady(95.0));
    folder.write("calm.csv", steady(89.0));
    let fired = |persona, trace| {
        folder.json(&[persona, "--trace", trace])["rules"][0]["fired"]
            .as_u64()
            .unwrap()
    };
    assert!(fired("adaptive.yaml", "t.csv") > 0);
    assert_eq!(fired("adaptive.yaml", "calm.csv"), 0);
    assert_eq!(fired("secure.yaml", "t.csv"), 0);
}

#[test]
fn every_rule_of_the_whole_document_fires_and_what_has_an_until_goes_back() {
    let folder = Folder::new();
    folder.write("whole.yaml", printed("whole.yaml"));
    folder.write("base.yaml", "name: web-base\n");
    let mut trace =
        "time,cpu.utilization,memory.utilization,network.latency [ms],external.threatintel.count\n"
            .to_owned();
    // Half an hour of need, then two hours of rest.
    for step in 0..1800 {
        let at = step * 5;
        let (cpu, memory, latency, count) = if at < 1800 {
            (90, 95, 200, 12)
        } else {
            (10, 20, 10, 0)
        };
        let _ = writeln!(trace, "{at},{cpu},{memory},{latency},{count}");
    }
    folder.write("t.csv", trace);
    let found = folder.json(&["whole.yaml", "--base", "base.yaml", "--trace", "t.csv"]);
    let rules = found["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 4);
    for rule in rules {
        assert!(rule["fired"].as_u64().unwrap() > 0, "{rule}");
    }
    let happenings = found["happenings"].as_array().unwrap();
    let mut grown = happenings
        .iter()
        .filter(|happening| happening["kind"] == "change" && happening["resource"] == "vcpus");
    let most = grown
        .clone()
        .map(|change| change["to"].as_u64().unwrap())
        .max();
    assert!(most > Some(8), "{most:?}");
    // Back at what was there before the rule.
    assert_eq!(last_vcpus(&found), 8);
    let back = grown.next_back().unwrap();
    assert!(
        back["by"]
            .as_str()
            .unwrap()
            .contains("the until of rule grow-cpu"),
        "{back}"
    );
}

/// Compares with a file of the repository, or writes it with `UPDATE_GOLDEN=1`.
fn golden(path: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        found,
        expected,
        "{}; UPDATE_GOLDEN=1 writes it anew",
        path.display()
    );
}
