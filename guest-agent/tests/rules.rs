//! Rules that the agent evaluates by itself: what they do while the host is away, what of it the host is told and how often, and
//! what stops them.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output},
};

use agent_protocol::{
    Activation, ActivationReply, GuestRule, GuestRules, Operation, RecordsSeen, RuleCall,
    RuleRecord, RuleRecordsReply, Script, SettingOutcome,
    message::ReplyBody,
    rules::{CallReply, DeedOutcome, GuestAction, RuleBy, RuleEdge, RuleWord, Telling},
};
use harness::{
    Agent, Guest, Peer, activate, activation, ok, recovered, script, until, wait, wait_for,
};

const SOCKET: &str = "run/virt-persona-agent/metrics.sock";

/// A generation with these rules, and a script `drain` that writes a line into `drained`, and `mark` into `marked`.
fn with_rules(guest: &Guest, generation: u64, rules: &[&str]) -> Activation {
    let line = |file: &str| appending(guest, file);
    let rules = rules.iter().enumerate().map(|(index, text)| GuestRule {
        name: format!("r{index}"),
        text: (*text).to_owned(),
        readings: Telling::Told,
    });
    Activation {
        rules: GuestRules {
            rules: rules.collect(),
            scripts: [
                ("drain".to_owned(), line("drained")),
                ("mark".to_owned(), line("marked")),
            ]
            .into(),
            trust: [].into(),
        },
        ..activation(generation, &[("COLOUR", "green")])
    }
}

fn appending(guest: &Guest, file: &str) -> Script {
    let text = format!(
        "echo \"$VIRT_PERSONA_RULE $VIRT_PERSONA_STAGE $COLOUR\" >> {}; echo said",
        guest.path(file).display()
    );
    script(&text).unwrap()
}

fn begin(peer: &mut Peer, wanted: Activation) -> ActivationReply {
    let reply = ok(peer.ask(activate(wanted)));
    peer.expect_silence_until_pong();
    reply
}

fn emit(guest: &Guest, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_virt-persona-agent"))
        .arg("--root")
        .arg(guest.path(""))
        .arg("emit")
        .args(words)
        .output()
        .unwrap()
}

/// Says it as soon as the agent listens; what an agent that was killed left behind is no socket that anybody listens on.
fn said(guest: &Guest, words: &[&str]) {
    wait("somebody listens", || emit(guest, words).status.success());
}

fn wait_for_lines(guest: &Guest, file: &str, count: usize) {
    wait(&format!("{file} has {count} lines"), || {
        lines(guest, file) >= count
    });
}

fn lines(guest: &Guest, file: &str) -> usize {
    guest.read(file).unwrap_or_default().lines().count()
}

fn page(peer: &mut Peer, seen: Option<&RuleRecord>) -> RuleRecordsReply {
    let seen = seen.map(|record| RecordsSeen {
        log: record.log.clone(),
        seq: record.seq,
    });
    ok(peer.ask(Operation::RuleRecords { seen }))
}

/// The rules that are evaluated of a generation, as soon as the agent knows that it holds.
fn in_force(peer: &mut Peer, generation: u64) -> Vec<String> {
    until("the generation is in force", || {
        let said = page(peer, None).in_force;
        let said = said.filter(|said| said.generation == generation);
        said.map(|said| said.rules)
    })
}

/// The records that are there, once there are so many.
fn records(peer: &mut Peer, count: usize) -> Vec<RuleRecord> {
    until(&format!("there are {count} records"), || {
        let page = page(peer, None);
        (page.records.len() >= count).then(|| {
            assert_eq!((page.records.len(), page.waiting), (count, 0));
            page.records
        })
    })
}

fn wait_until_none_is_kept(guest: &Guest) {
    wait("no record is kept", || {
        let kept = fs::read_dir(guest.path("state/rules/records")).unwrap();
        kept.count() == 0
    });
}

fn outcomes(record: &RuleRecord) -> Vec<(&str, DeedOutcome)> {
    let deeds = record.deeds.iter();
    deeds
        .map(|deed| (deed.action.as_str(), deed.outcome))
        .collect()
}

/// A feature that is on while its file is there.
fn feature(guest: &Guest, name: &str) -> PathBuf {
    let program = format!("etc/virt-persona/features.d/{name}");
    let on = guest.path(&format!("{name}.on"));
    let text = format!(
        "#!/bin/sh\ncase $1 in\nstatus) [ -e {on} ];;\nenable) touch {on};;\ndisable) rm {on};;\nesac\n",
        on = on.display()
    );
    guest.write(&program, &text);
    fs::set_permissions(guest.path(&program), fs::Permissions::from_mode(0o755)).unwrap();
    on
}

fn restart(guest: &Guest, agent: Agent) -> (Agent, Peer) {
    agent.kill();
    let mut agent = guest.start();
    // A connection that does not hold is made anew, as a host does; an agent that ended ends the test with its status.
    let mut peer = until("a connection holds", || {
        let mut peer = guest.connect(&mut agent);
        peer.is_greeted().then_some(peer)
    });
    recovered(&mut peer);
    (agent, peer)
}

#[test]
fn a_rule_fires_while_the_host_is_away_and_is_told_until_it_was_seen() {
    let guest = Guest::new();
    let (mut agent, mut peer, ack) = guest.greet();
    assert!(ack.feats.iter().any(|feat| feat == "rules"));
    let reply = begin(
        &mut peer,
        with_rules(
            &guest,
            1,
            &["IF guest.app.queue > 10 THEN run drain, notify \"long\""],
        ),
    );
    let line = reply.settings.unwrap().lines.remove(0);
    assert_eq!(
        (line.setting.as_str(), line.outcome),
        ("rule r0", SettingOutcome::Applied)
    );
    drop(peer);
    said(&guest, &["queue=20"]);
    wait_for_lines(&guest, "drained", 1);
    assert_eq!(guest.read("drained").unwrap(), "r0 rule green\n");
    let mut peer = guest.connect(&mut agent);
    peer.hello();
    let told = records(&mut peer, 1);
    let record = &told[0];
    assert_eq!(
        (record.rule.as_str(), record.edge, record.generation),
        ("r0", RuleEdge::Begins, 1)
    );
    assert_eq!(
        outcomes(record),
        [
            ("run drain", DeedOutcome::Done),
            ("notify \"long\"", DeedOutcome::Done)
        ]
    );
    assert_eq!(record.deeds[0].output, "said\n");
    assert_eq!(
        (record.readings[0].signal.as_str(), record.readings[0].value),
        ("guest.app.queue", Some(20.0))
    );
    // The answer was lost with the connection: it is told again, under the same number, also by an agent that was killed.
    drop(peer);
    let mut peer = guest.connect(&mut agent);
    peer.hello();
    assert_eq!(page(&mut peer, None).records, told);
    drop(peer);
    let (agent, mut peer) = restart(&guest, agent);
    assert_eq!(page(&mut peer, None).records, told);
    assert_eq!(page(&mut peer, Some(record)).records, []);
    // The file goes behind the answer.
    wait_until_none_is_kept(&guest);
    let (_agent, mut peer) = restart(&guest, agent);
    assert_eq!(page(&mut peer, None).records, []);
    assert_eq!(lines(&guest, "drained"), 1);
}

#[test]
fn what_was_under_way_at_a_kill_is_told_and_never_begun_again() {
    let guest = Guest::new();
    let (agent, mut peer, _) = guest.greet();
    let mut wanted = with_rules(
        &guest,
        1,
        &[
            "IF guest.app.queue > 10 THEN run drain, run mark",
            "IF guest.app.other > 0 THEN run mark",
        ],
    );
    let endless = format!(
        "echo begun >> {}; exec sleep 100000",
        guest.path("begun").display()
    );
    wanted
        .rules
        .scripts
        .insert("drain".to_owned(), script(&endless).unwrap());
    begin(&mut peer, wanted);
    said(&guest, &["queue=20"]);
    wait_for_lines(&guest, "begun", 1);
    assert_eq!(page(&mut peer, None).records, []);
    drop(peer);
    let (_agent, mut peer) = restart(&guest, agent);
    // What the second rule does shows that the first one was looked at, too.
    said(&guest, &["queue=20", "other=1"]);
    let told = records(&mut peer, 2);
    assert_eq!(
        outcomes(&told[0]),
        [
            ("run drain", DeedOutcome::Interrupted),
            ("run mark", DeedOutcome::NotBegun)
        ]
    );
    assert_eq!(outcomes(&told[1]), [("run mark", DeedOutcome::Done)]);
    assert_eq!(lines(&guest, "begun"), 1);
    assert_eq!(lines(&guest, "marked"), 1);
}

#[test]
fn a_kill_at_any_point_of_a_firing_makes_it_neither_twice_nor_lost() {
    let ready = Guest::new();
    {
        let (agent, mut peer, _) = ready.greet();
        // Its script is put beside the tree that it is in, whichever copy that is.
        let mut wanted = with_rules(&ready, 1, &["IF guest.app.queue > 10 THEN run drain"]);
        let text = "echo ran >> \"$(dirname \"$0\")/../../../../drained\"";
        wanted
            .rules
            .scripts
            .insert("drain".to_owned(), script(text).unwrap());
        begin(&mut peer, wanted);
        drop(peer);
        agent.kill();
    }
    for point in 1.. {
        let guest = ready.copy();
        let crash = ("VIRT_PERSONA_AGENT_CRASH_AT", point.to_string());
        let mut agent = guest.start_with(&[crash]);
        let killed = until("the agent ends, or the record is whole", || {
            // An agent that is being killed takes nothing any more.
            if guest.path(SOCKET).exists() {
                let _ = emit(&guest, &["queue=20"]);
            }
            if agent.child.try_wait().unwrap().is_some() {
                return Some(true);
            }
            let stored = guest.path("state/rules/records");
            let all = || fs::read_dir(&stored).into_iter().flatten().flatten();
            let whole = all().any(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
            let open = fs::read_dir(guest.path("state/rules/intents"));
            (whole && open.is_ok_and(|mut intents| intents.next().is_none())).then_some(false)
        });
        let (_agent, mut peer) = restart(&guest, agent);
        let told = until("there is a record", || {
            said(&guest, &["queue=20"]);
            Some(page(&mut peer, None).records).filter(|told| !told.is_empty())
        });
        assert_eq!(told.len(), 1, "point {point}: {told:?}");
        let runs = lines(&guest, "drained");
        match told[0].deeds[0].outcome {
            DeedOutcome::Done => assert_eq!(runs, 1, "point {point}"),
            DeedOutcome::Interrupted => assert!(runs <= 1, "point {point}"),
            other => panic!("point {point}: {other:?}"),
        }
        if !killed {
            assert!(point > 10, "there are more points than {point}");
            return;
        }
    }
}

#[test]
fn a_rule_fires_once_for_as_long_as_it_holds_and_not_within_its_cooldown() {
    let guest = Guest::new();
    let (agent, mut peer, _) = guest.greet();
    begin(
        &mut peer,
        with_rules(
            &guest,
            1,
            &[
                "IF guest.app.queue > 10 THEN run drain COOLDOWN 30d",
                "IF guest.app.queue < 5 THEN run mark COOLDOWN 0s",
                "IF guest.app.queue > 10 THEN run mark COOLDOWN 0s",
            ],
        ),
    );
    said(&guest, &["queue=20"]);
    wait_for_lines(&guest, "marked", 1);
    said(&guest, &["queue=1"]);
    wait_for_lines(&guest, "marked", 2);
    // What was called for and its time outlast the agent.
    drop(peer);
    let (_agent, mut peer) = restart(&guest, agent);
    said(&guest, &["queue=20"]);
    wait_for_lines(&guest, "marked", 3);
    assert_eq!(records(&mut peer, 4).len(), 4);
    assert_eq!(lines(&guest, "drained"), 1);
}

#[test]
fn a_feature_is_on_until_the_rule_or_the_persona_ends() {
    let guest = Guest::new();
    let on = feature(&guest, "cache");
    let (_agent, mut peer, _) = guest.greet();
    let rules = [
        "IF guest.app.queue > 10 THEN enable feature cache UNTIL guest.app.queue < 5 COOLDOWN 0s",
        "IF guest.app.queue > 10 THEN enable feature nosuch",
    ];
    begin(&mut peer, with_rules(&guest, 1, &rules));
    said(&guest, &["queue=20"]);
    let told = records(&mut peer, 2);
    let of = |rule: &str| told.iter().find(|record| record.rule == rule).unwrap();
    assert_eq!(
        outcomes(of("r0")),
        [("enable feature cache", DeedOutcome::Done)]
    );
    assert!(on.exists());
    let absent = &of("r1").deeds[0];
    assert!(
        absent.outcome == DeedOutcome::Refused
            && absent
                .detail
                .contains("/etc/virt-persona/features.d/nosuch"),
        "{absent:?}"
    );
    said(&guest, &["queue=1"]);
    let told = records(&mut peer, 3);
    assert_eq!(told[2].edge, RuleEdge::Ends);
    assert_eq!(
        outcomes(&told[2]),
        [("disable feature cache", DeedOutcome::Done)]
    );
    assert!(!on.exists());
    said(&guest, &["queue=20"]);
    wait_for(&on);
    records(&mut peer, 4);
    let _: serde_json::Value = ok(peer.ask(Operation::Deactivate { generation: 2 }));
    assert!(!on.exists(), "it went with the persona");
    assert_eq!(guest.read("state/features.json"), None);
    // The socket goes when the thread that reads it hears of it.
    wait("nobody listens any more", || {
        !emit(&guest, &["queue=3"]).status.success()
    });
    // One that was on before is left on.
    fs::write(&on, "").unwrap();
    begin(&mut peer, with_rules(&guest, 3, &rules[..1]));
    said(&guest, &["queue=20"]);
    let told = records(&mut peer, 5);
    assert_eq!(
        outcomes(&told[4]),
        [("enable feature cache", DeedOutcome::Unchanged)]
    );
    let _: serde_json::Value = ok(peer.ask(Operation::Deactivate { generation: 4 }));
    assert!(on.exists());
}

#[test]
fn what_the_persona_does_not_trust_or_restricts_is_not_done() {
    let guest = Guest::new();
    let on = feature(&guest, "cache");
    let (_agent, mut peer, _) = guest.greet();
    let text = "IF guest.app.queue > 10 THEN run drain, enable feature cache COOLDOWN 0s";
    let trusted = |generation, command: &str, files: &str| {
        let mut wanted = with_rules(&guest, generation, &[text]);
        wanted.rules.trust = [
            ("command_execution".to_owned(), command.to_owned()),
            ("file_system_modification".to_owned(), files.to_owned()),
        ]
        .into();
        wanted
    };
    let mut count = 0;
    let mut fire = |peer: &mut Peer, wanted| {
        begin(peer, wanted);
        said(&guest, &["queue=20"]);
        count += 1;
        let told = records(peer, count).pop().unwrap();
        told.deeds
            .iter()
            .map(|deed| deed.outcome)
            .collect::<Vec<_>>()
    };
    use DeedOutcome::{Done, NeedsApproval, Refused, Unchanged};
    assert_eq!(
        fire(&mut peer, trusted(1, "none", "low")),
        [Refused, NeedsApproval]
    );
    assert!(!on.exists());
    assert_eq!(
        fire(&mut peer, trusted(2, "medium", "medium")),
        [NeedsApproval, Done]
    );
    assert!(on.exists());
    // What is no level is none.
    assert_eq!(
        fire(&mut peer, trusted(3, "much", "high")),
        [Refused, Refused]
    );
    let mut restricted = trusted(4, "high", "high");
    restricted.commands.restricted = vec!["sh".to_owned()];
    fs::write(&on, "").unwrap();
    assert_eq!(fire(&mut peer, restricted), [Refused, Unchanged]);
    assert_eq!(lines(&guest, "drained"), 0);
}

#[test]
fn what_a_rule_of_the_host_calls_for_is_begun_once() {
    let guest = Guest::new();
    let on = feature(&guest, "cache");
    let (agent, mut peer, _) = guest.greet();
    let mut wanted = with_rules(&guest, 1, &[]);
    let files = "file_system_modification".to_owned();
    wanted.rules.trust = [(files, "low".to_owned())].into();
    begin(&mut peer, wanted);
    let call = |generation, action, word| Operation::Perform {
        call: Box::new(RuleCall {
            generation,
            rule: "grow".to_owned(),
            edge: RuleEdge::Begins,
            action,
            word,
        }),
    };
    let run = |generation| {
        let action = GuestAction::Run("drain".to_owned());
        call(generation, action, RuleWord::Persona)
    };
    let id = harness::fresh_id();
    peer.post(&id, run(1));
    let CallReply { generation } = ok(peer.answer(&id));
    assert_eq!(generation, 1);
    let told = records(&mut peer, 1);
    assert_eq!((told[0].rule.as_str(), told[0].by), ("grow", RuleBy::Host));
    assert_eq!(outcomes(&told[0]), [("run drain", DeedOutcome::Done)]);
    // A second delivery has the first one's answer, also after a restart.
    peer.post(&id, run(1));
    let CallReply { .. } = ok(peer.answer(&id));
    drop(peer);
    let (_agent, mut peer) = restart(&guest, agent);
    peer.post(&id, run(1));
    let CallReply { .. } = ok(peer.answer(&id));
    // A person's word goes further than the persona's.
    let enable = |word| call(1, GuestAction::EnableFeature("cache".to_owned()), word);
    let CallReply { .. } = ok(peer.ask(enable(RuleWord::Persona)));
    let told = records(&mut peer, 2);
    assert_eq!(told[1].deeds[0].outcome, DeedOutcome::NeedsApproval);
    assert!(!on.exists());
    let CallReply { .. } = ok(peer.ask(enable(RuleWord::Person)));
    let told = records(&mut peer, 3);
    assert_eq!(told[2].deeds[0].outcome, DeedOutcome::Done);
    assert!(on.exists());
    assert_eq!(harness::code(peer.ask(run(7))), "stale_generation");
    let _: serde_json::Value = ok(peer.ask(Operation::Deactivate { generation: 2 }));
    assert!(!on.exists(), "it went with the persona");
    assert_eq!(harness::code(peer.ask(run(2))), "stale_generation");
    assert_eq!(lines(&guest, "drained"), 1);
}

#[test]
fn a_kill_at_any_point_of_what_a_rule_of_the_host_calls_for_makes_it_neither_twice_nor_lost() {
    let ready = Guest::new();
    {
        let (agent, mut peer, _) = ready.greet();
        let mut wanted = with_rules(&ready, 1, &[]);
        let text = "echo ran >> \"$(dirname \"$0\")/../../../../drained\"";
        wanted
            .rules
            .scripts
            .insert("drain".to_owned(), script(text).unwrap());
        begin(&mut peer, wanted);
        drop(peer);
        agent.kill();
    }
    for point in 1.. {
        let guest = ready.copy();
        let mut agent = guest.start_with(&[("VIRT_PERSONA_AGENT_CRASH_AT", point.to_string())]);
        let id = harness::fresh_id();
        let run = || Operation::Perform {
            call: Box::new(RuleCall {
                generation: 1,
                rule: "grow".to_owned(),
                edge: RuleEdge::Begins,
                action: GuestAction::Run("drain".to_owned()),
                word: RuleWord::Persona,
            }),
        };
        let killed = {
            let _peer = guest.post_to_doomed(&mut agent, &id, run());
            until("the agent ends, or all is kept", || {
                if agent.child.try_wait().unwrap().is_some() {
                    return Some(true);
                }
                let kept = |directory: &str| {
                    let files = fs::read_dir(guest.path(directory));
                    let names = files.into_iter().flatten().flatten();
                    let names = names.map(|file| file.file_name().to_string_lossy().into_owned());
                    names.filter(|name| !name.starts_with('.')).count()
                };
                let all = kept("state/rules/records") == 1
                    && kept("state/rules/intents") == 0
                    && kept("state/results") == 2;
                all.then_some(false)
            })
        };
        let (agent, mut peer) = restart(&guest, agent);
        // As a host does that has heard no answer: what was begun is not begun again, and what was not is now.
        peer.post(&id, run());
        let CallReply { .. } = ok(peer.answer(&id));
        let told = records(&mut peer, 1);
        let outcome = told[0].deeds[0].outcome;
        let runs = lines(&guest, "drained");
        match outcome {
            DeedOutcome::Done => assert_eq!(runs, 1, "point {point}"),
            DeedOutcome::Interrupted => assert!(runs <= 1, "point {point}"),
            other => panic!("point {point}: {other:?}"),
        }
        // Also where the host has seen the record before it asks.
        assert_eq!(page(&mut peer, Some(&told[0])).records, []);
        // The file goes behind the answer.
        wait_until_none_is_kept(&guest);
        drop(peer);
        let (_agent, mut peer) = restart(&guest, agent);
        peer.post(&id, run());
        let CallReply { .. } = ok(peer.answer(&id));
        peer.expect_silence_until_pong();
        assert_eq!(page(&mut peer, None).records, [], "point {point}");
        assert_eq!(lines(&guest, "drained"), runs, "point {point}");
        if !killed {
            assert!(point > 4, "there are more points than {point}");
            return;
        }
    }
}

#[test]
fn what_finds_no_room_is_refused_for_now_and_begun_when_it_is_asked_for_again() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    let mut wanted = with_rules(&guest, 1, &[]);
    let go = guest.path("go");
    let text = format!("while [ ! -e {} ]; do sleep 0.01; done", go.display());
    let held = script(&text).unwrap();
    wanted.rules.scripts.insert("held".to_owned(), held);
    begin(&mut peer, wanted);
    let run = |name: &str| Operation::Perform {
        call: Box::new(RuleCall {
            generation: 1,
            rule: "grow".to_owned(),
            edge: RuleEdge::Begins,
            action: GuestAction::Run(name.to_owned()),
            word: RuleWord::Persona,
        }),
    };
    for _ in 0..4 {
        let CallReply { .. } = ok(peer.ask(run("held")));
    }
    let id = harness::fresh_id();
    peer.post(&id, run("drain"));
    assert_eq!(harness::code(peer.answer(&id)), "busy");
    fs::write(&go, "").unwrap();
    records(&mut peer, 4);
    wait("there is room", || {
        peer.post(&id, run("drain"));
        match peer.answer(&id) {
            ReplyBody::Ok(_) => true,
            // A record is there a moment before there is room.
            ReplyBody::Err(error) => {
                assert_eq!(error.code.as_str(), "busy");
                false
            }
        }
    });
    records(&mut peer, 5);
    assert_eq!(lines(&guest, "drained"), 1);
}

#[test]
fn a_rule_that_cannot_be_harms_no_other_and_the_owner_may_have_none() {
    let guest = Guest::new();
    let (agent, mut peer, _) = guest.greet();
    let rules = [
        "IF guest.app.queue > THEN run drain",
        "IF guest.app.queue > 10 THEN add 1 vcpus",
        "IF guest.app.queue > 10 THEN run mark",
    ];
    let reply = begin(&mut peer, with_rules(&guest, 1, &rules));
    let outcomes = |reply: ActivationReply| {
        let lines = reply.settings.unwrap().lines.into_iter();
        lines.map(|line| line.outcome).collect::<Vec<_>>()
    };
    use SettingOutcome::{Applied, Refused};
    assert_eq!(outcomes(reply), [Refused, Refused, Applied]);
    assert_eq!(in_force(&mut peer, 1), ["r2"]);
    said(&guest, &["queue=20"]);
    wait_for_lines(&guest, "marked", 1);
    drop(peer);
    guest.write("etc/virt-persona/agent.toml", "[allow]\nrules = false\n");
    let (_agent, mut peer) = restart(&guest, agent);
    assert!(
        in_force(&mut peer, 1).is_empty(),
        "the owner says otherwise now"
    );
    let reply = begin(&mut peer, with_rules(&guest, 2, &rules[2..]));
    assert_eq!(outcomes(reply), [Refused]);
    peer.expect_silence_until_pong();
    peer.expect_silence_until_pong();
    assert!(!emit(&guest, &["queue=30"]).status.success());
    assert_eq!(lines(&guest, "marked"), 1);
}

/// Failed logins as sshd(8) writes them down, each a record of one size.
fn fail_logins(guest: &Guest, count: usize) {
    let record = if cfg!(target_arch = "aarch64") {
        400
    } else {
        384
    };
    let path = guest.path("var/log/btmp");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.unwrap().write_all(&vec![0; count * record]).unwrap();
}

#[test]
fn failed_logins_and_round_trips_are_noticed_while_the_host_is_away() {
    let guest = Guest::new();
    let near = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = near.local_addr().unwrap();
    let probe = format!("[probe]\ntargets = [\"{target}\"]\n");
    guest.write("etc/virt-persona/agent.toml", &probe);
    fail_logins(&guest, 2);
    let (mut agent, mut peer, _) = guest.greet();
    let rules = [
        "IF EVENT(login.failed) FOR 1s THEN run drain COOLDOWN 0s",
        "IF network.latency < 1m AND NOT EVENT(login.failed) THEN run mark COOLDOWN 30d",
    ];
    begin(&mut peer, with_rules(&guest, 1, &rules));
    drop(peer);
    // What one look has found, both have seen: failed logins of before are none.
    wait_for_lines(&guest, "marked", 1);
    assert_eq!(lines(&guest, "drained"), 0);
    wait("failed logins are noticed", || {
        fail_logins(&guest, 1);
        lines(&guest, "drained") > 0
    });
    let mut peer = guest.connect(&mut agent);
    peer.hello();
    let told = records(&mut peer, 2);
    let latency = &told[0].readings[0];
    assert_eq!(latency.signal, "network.latency");
    assert!(latency.value.is_some_and(|seconds| seconds < 60.0));
    assert_eq!(outcomes(&told[1]), [("run drain", DeedOutcome::Done)]);
}

#[test]
fn an_event_is_heard_by_one_persona_and_what_was_before_by_none() {
    let guest = Guest::new();
    let killed = |count: u64| guest.write("proc/vmstat", &format!("oom_kill {count}\n"));
    killed(3);
    let (_agent, mut peer, _) = guest.greet();
    let rules = [
        "IF EVENT(guest.oom) AND guest.app.go > 0 THEN run drain COOLDOWN 0s",
        "IF guest.app.look > 0 THEN run mark COOLDOWN 0s",
        "IF guest.app.look < 0 THEN run mark COOLDOWN 0s",
    ];
    begin(&mut peer, with_rules(&guest, 1, &rules));
    // What the other rules do shows that the first one was looked at, too.
    said(&guest, &["go=1", "look=1"]);
    wait_for_lines(&guest, "marked", 1);
    assert_eq!(lines(&guest, "drained"), 0);
    killed(4);
    said(&guest, &["look=-1"]);
    wait_for_lines(&guest, "marked", 2);
    wait_for_lines(&guest, "drained", 1);
    begin(&mut peer, with_rules(&guest, 2, &rules));
    said(&guest, &["go=1", "look=1"]);
    wait_for_lines(&guest, "marked", 3);
    assert_eq!(lines(&guest, "drained"), 1);
    killed(6);
    said(&guest, &["look=-1"]);
    wait_for_lines(&guest, "drained", 2);
}

#[test]
fn what_the_owner_has_not_probed_no_rule_reads() {
    let guest = Guest::new();
    guest.write("etc/virt-persona/agent.toml", "[probe]\ntargets = []\n");
    let (_agent, mut peer, _) = guest.greet();
    let rules = [
        "IF network.latency > 50 ms THEN run mark",
        "IF EVENT(guest.dreamt) THEN run mark",
        "IF EVENT(agent.lost) THEN run mark",
        "IF guest.log.errors > 5/min THEN run mark",
    ];
    let reply = begin(&mut peer, with_rules(&guest, 1, &rules));
    let lines = reply.settings.unwrap().lines;
    let outcomes: Vec<_> = lines.iter().map(|line| line.outcome).collect();
    use SettingOutcome::{Applied, Refused};
    assert_eq!(outcomes, [Refused, Refused, Refused, Applied]);
    assert!(
        lines[0].reason.contains("does not measure"),
        "{:?}",
        lines[0]
    );
}
