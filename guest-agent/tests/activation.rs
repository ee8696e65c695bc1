//! Activation by the real agent: order, once only, failure, restart, and a kill at every point.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use std::{fs, process::Command};

use agent_protocol::{
    ActivationReply, CommandTable, GateTable, OnFailure, Operation,
    activation::Change,
    limits::REPLY_OUTPUT_MAX,
    message::{DeactivationReply, OnlineCpusReply, OpStatus, ReplyBody},
};
use harness::{
    Guest, activate, activation, code, fresh_id, fresh_session, needs_root, ok, recovered, script,
    settled, wait, wait_for,
};

const PROFILE: &str = "etc/profile.d/50-virt-persona.sh";
const ENVIRONMENT: &str = "etc/environment.d/50-virt-persona.conf";

/// The value of `A` in both files; they must agree.
fn value(guest: &Guest) -> Option<String> {
    let value = |path, begin: &str, end: &str| {
        let text = guest.read(path)?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(begin))
            .map(str::to_owned);
        Some(line.unwrap().strip_suffix(end).unwrap().to_owned())
    };
    let profile = value(PROFILE, "export A='", "'");
    assert_eq!(
        profile,
        value(ENVIRONMENT, "A=\"", "\""),
        "the files differ"
    );
    profile
}

#[test]
fn pre_comes_before_the_environment_and_post_after_it() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    let look = |stage: &str| {
        format!(
            "test -e {} && echo {stage} $A there || echo {stage} $A absent",
            guest.path(PROFILE).display()
        )
    };
    let mut wish = activation(1, &[("A", "one")]);
    (wish.pre, wish.post) = (script(&look("pre")), script(&look("post")));
    let reply: ActivationReply = ok(peer.ask(activate(wish)));
    assert_eq!(
        (reply.generation, reply.outcome, reply.needs_relogin),
        (1, Change::Changed, true)
    );
    assert_eq!(reply.pre.unwrap().output, "pre one absent\n");
    assert_eq!(reply.post.unwrap().output, "post one there\n");
    assert_eq!(
        reply.environment_files,
        [format!("/{ENVIRONMENT}"), format!("/{PROFILE}")]
    );
    assert_eq!(value(&guest).as_deref(), Some("one"));
}

#[test]
fn the_same_activation_again_changes_nothing_and_runs_nothing() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    let mut wish = activation(1, &[("A", "one")]);
    wish.pre = script(&format!("echo run >> {}", guest.path("runs").display()));
    let first = fresh_id();
    peer.post(&first, activate(wish.clone()));
    let answer = peer.answer(&first);
    peer.post(&first, activate(wish.clone()));
    assert_eq!(
        peer.answer(&first),
        answer,
        "a second delivery gets the same answer"
    );
    let again: ActivationReply = ok(peer.ask(activate(wish)));
    assert_eq!(again.outcome, Change::Unchanged);
    assert_eq!(guest.read("runs").as_deref(), Some("run\n"));
}

#[test]
fn older_and_contradicting_generations_are_refused() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    ok::<ActivationReply>(peer.ask(activate(activation(5, &[("A", "five")]))));
    assert_eq!(
        code(peer.ask(activate(activation(4, &[("A", "four")])))),
        "stale_generation"
    );
    assert_eq!(
        code(peer.ask(Operation::Deactivate { generation: 4 })),
        "stale_generation"
    );
    let mut other = activation(5, &[("A", "other")]);
    other.digest = "another".to_owned();
    assert_eq!(code(peer.ask(activate(other))), "generation_conflict");
    assert_eq!(value(&guest).as_deref(), Some("five"));
}

#[test]
fn a_failing_pre_script_leaves_all_as_it_was() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    ok::<ActivationReply>(peer.ask(activate(activation(1, &[("A", "one")]))));
    let mut wish = activation(2, &[("A", "two")]);
    wish.pre = script("echo no good >&2; exit 7");
    let ReplyBody::Err(error) = peer.ask(activate(wish.clone())) else {
        panic!("it did not fail")
    };
    assert_eq!(error.code.as_str(), "pre_failed");
    assert!(
        error.message.contains("status 7") && error.message.contains("no good"),
        "{error}"
    );
    assert_eq!(value(&guest).as_deref(), Some("one"));
    // The same generation can be tried again, an older one not.
    wish.pre = None;
    assert_eq!(
        code(peer.ask(activate(activation(1, &[])))),
        "stale_generation"
    );
    ok::<ActivationReply>(peer.ask(activate(wish)));
    assert_eq!(value(&guest).as_deref(), Some("two"));
}

#[test]
fn a_failing_post_script_rolls_back_or_keeps_as_it_says() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    ok::<ActivationReply>(peer.ask(activate(activation(1, &[("A", "one")]))));
    let mut wish = activation(2, &[("A", "two")]);
    wish.post = script("exit 1");
    assert_eq!(code(peer.ask(activate(wish))), "post_failed");
    assert_eq!(value(&guest).as_deref(), Some("one"));
    let mut wish = activation(3, &[("A", "three")]);
    wish.post = script("exit 1");
    wish.post.as_mut().unwrap().on_failure = OnFailure::Keep;
    let reply: ActivationReply = ok(peer.ask(activate(wish)));
    assert_eq!(reply.post.unwrap().exit, Some(1));
    assert_eq!(value(&guest).as_deref(), Some("three"));
}

#[test]
fn deactivation_takes_the_environment_away_and_is_remembered() {
    let guest = Guest::new();
    let (agent, mut peer, _) = guest.greet();
    ok::<ActivationReply>(peer.ask(activate(activation(1, &[("A", "one")]))));
    let reply: DeactivationReply = ok(peer.ask(Operation::Deactivate { generation: 2 }));
    assert_eq!(
        (reply.outcome, reply.needs_relogin),
        (Change::Changed, true)
    );
    assert_eq!(value(&guest), None);
    let reply: DeactivationReply = ok(peer.ask(Operation::Deactivate { generation: 2 }));
    assert_eq!(reply.outcome, Change::Unchanged);
    agent.kill();
    let (_agent, _peer, ack) = guest.greet();
    assert_eq!((ack.active, ack.generation), (None, 2));
}

#[test]
fn the_active_persona_outlives_the_agent_and_a_file_that_is_gone_comes_back() {
    let guest = Guest::new();
    let (agent, mut peer, _) = guest.greet();
    ok::<ActivationReply>(peer.ask(activate(activation(3, &[("A", "three")]))));
    agent.kill();
    fs::remove_file(guest.path(ENVIRONMENT)).unwrap();
    let (_agent, mut peer, ack) = guest.greet();
    let active = ack.active.unwrap();
    assert_eq!(
        (
            active.generation,
            active.persona.as_str(),
            active.digest.as_str()
        ),
        (3, "web", "digest-3")
    );
    // The answer comes from the thread that puts the files right, after it has.
    ok::<OpStatus>(peer.ask(Operation::OpStatus { id: fresh_id() }));
    assert_eq!(value(&guest).as_deref(), Some("three"));
    let status = Command::new(env!("CARGO_BIN_EXE_virt-persona-agent"))
        .arg("status")
        .arg("--state")
        .arg(guest.path("state"))
        .output();
    let text = String::from_utf8(status.unwrap().stdout).unwrap();
    assert_eq!(
        text,
        "active: web version 3 (generation 3)\ngeneration 3: web version 3, activated\n"
    );
}

#[test]
fn a_file_of_somebody_else_is_left_alone() {
    let guest = Guest::new();
    guest.write(PROFILE, "export MINE=1\n");
    let (_agent, mut peer, _) = guest.greet();
    assert_eq!(
        code(peer.ask(activate(activation(1, &[("A", "one")])))),
        "storage"
    );
    assert_eq!(guest.read(PROFILE).as_deref(), Some("export MINE=1\n"));
    assert_eq!(guest.read(ENVIRONMENT), None);
}

#[test]
fn a_script_runs_as_the_user_it_names() {
    needs_root();
    let guest = Guest::new();
    // The test's own directory is private; the user must be able to pass.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    fs::set_permissions(guest.path(""), open).unwrap();
    let (_agent, mut peer, _) = guest.greet();
    let mut wish = activation(1, &[]);
    wish.pre = script("echo $(id -u) $(id -G) $USER");
    wish.pre.as_mut().unwrap().user = "web".to_owned();
    let reply: ActivationReply = ok(peer.ask(activate(wish)));
    assert_eq!(reply.pre.unwrap().output, "1234 1235 1236 web\n");
    let mut wish = activation(2, &[]);
    wish.post = script("true");
    wish.post.as_mut().unwrap().user = "nosuch".to_owned();
    assert_eq!(code(peer.ask(activate(wish))), "unknown_user");
}

#[test]
fn a_script_that_overruns_fails_the_activation_and_is_gone() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    let pid_file = guest.path("pid");
    let mut wish = activation(1, &[("A", "one")]);
    wish.pre = script(&format!(
        "sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait",
        pid_file.display()
    ));
    wish.pre.as_mut().unwrap().timeout_ms = 1000;
    assert_eq!(code(peer.ask(activate(wish))), "pre_failed");
    assert_eq!(value(&guest), None);
    let pid = fs::read_to_string(pid_file).unwrap();
    wait_until_dead(pid.trim());
}

/// Waits until a process is gone, or is only waiting to be taken note of.
fn wait_until_dead(pid: &str) {
    wait("the process is gone", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z "))
    });
}

#[test]
fn the_channel_and_cpus_are_served_while_a_script_runs() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    let release = guest.path("release");
    let mut wish = activation(1, &[("A", "one")]);
    wish.pre = script(&format!(
        "while ! test -e {}; do sleep 0.01; done; echo x",
        release.display()
    ));
    let slow = fresh_id();
    peer.post(&slow, activate(wish.clone()));
    peer.expect_silence_until_pong();
    assert_eq!(
        ok::<OpStatus>(peer.ask(Operation::OpStatus { id: slow.clone() })),
        OpStatus::Running
    );
    assert_eq!(
        ok::<OpStatus>(peer.ask(Operation::OpStatus { id: fresh_id() })),
        OpStatus::Unknown
    );
    let reply: OnlineCpusReply = ok(peer.ask(Operation::OnlineCpus { target: 3 }));
    assert_eq!(reply.online.count(), 3);
    // Asked again from a new session, the one answer goes there.
    peer.session = fresh_session();
    peer.hello();
    peer.post(&slow, activate(wish));
    peer.expect_silence_until_pong();
    fs::write(release, "").unwrap();
    let answer = peer.answer(&slow);
    peer.expect_silence_until_pong();
    assert_eq!(
        ok::<OpStatus>(peer.ask(Operation::OpStatus { id: slow })),
        OpStatus::Done { result: answer }
    );
}

#[test]
fn a_large_activation_comes_in_pieces_and_its_answer_fits() {
    let guest = Guest::new();
    let (_agent, mut peer, _) = guest.greet();
    let mut wish = activation(1, &[("A", "one")]);
    let noise = "yes '\"\\\"' | head -c 200000";
    wish.pre = script(&format!(
        "{}\n{noise}\n",
        "# a long comment\n".repeat(7_000)
    ));
    wish.post = script(&format!(
        "{}\n{noise}\n",
        "# a long comment\n".repeat(7_000)
    ));
    let reply: ActivationReply = ok(peer.ask(activate(wish)));
    let pre = reply.pre.unwrap();
    assert!(
        pre.output_truncated && pre.output.len() == REPLY_OUTPUT_MAX,
        "{}",
        pre.output.len()
    );
}

#[test]
fn a_script_cut_off_by_a_kill_is_undone_and_never_run_again() {
    for stage in ["pre", "post"] {
        let guest = Guest::new();
        let (agent, mut peer, _) = guest.greet();
        ok::<ActivationReply>(peer.ask(activate(activation(1, &[("A", "one")]))));
        let (runs, pid_file) = (guest.path("runs"), guest.path("pid"));
        let text = format!(
            "echo run >> {}; sleep 1000 & echo $! > {1}.new; mv {1}.new {1}; wait",
            runs.display(),
            pid_file.display()
        );
        let mut wish = activation(2, &[("A", "two")]);
        *(if stage == "pre" {
            &mut wish.pre
        } else {
            &mut wish.post
        }) = script(&text);
        let cut_off = fresh_id();
        peer.post(&cut_off, activate(wish.clone()));
        wait_for(&pid_file);
        agent.kill();
        let (_agent, mut peer, _) = guest.greet();
        peer.post(&cut_off, activate(wish));
        assert_eq!(code(peer.answer(&cut_off)), "interrupted", "{stage}");
        assert_eq!(value(&guest).as_deref(), Some("one"), "{stage}");
        assert_eq!(guest.read("runs").as_deref(), Some("run\n"), "{stage}");
        wait_until_dead(fs::read_to_string(&pid_file).unwrap().trim());
    }
}

/// Commands that name a generation: one that is restricted, one that is overridden.
fn commands(name: &str) -> CommandTable {
    CommandTable {
        overrides: [("deploy".to_owned(), format!("/opt/{name}"))].into(),
        restricted: vec![name.to_owned()],
    }
}

/// The generation whose commands hold for people; both parts must be of the same.
fn routed(guest: &Guest) -> Option<String> {
    let table: GateTable = serde_json::from_str(&guest.read("state/gate/table.json")?).unwrap();
    let link = fs::read_link(guest.path("run/virt-persona-agent/shims/deploy")).unwrap();
    let name = table.restricted[0].clone();
    assert_eq!(link.to_str().unwrap(), format!("/opt/{name}"));
    Some(name)
}

/// Kills the agent at each point between two file operations of an activation, one after the other, until one activation
/// passes all of them. Whatever the point, the next start has the old or the new generation, whole, and no script ran twice.
#[test]
fn a_kill_at_any_point_leaves_the_old_or_the_new_generation() {
    let mut fates = [0, 0];
    for point in 1.. {
        let guest = Guest::new();
        let (agent, mut peer, _) = guest.greet();
        let mut old = activation(1, &[("A", "old")]);
        old.commands = commands("old");
        ok::<ActivationReply>(peer.ask(activate(old)));
        agent.kill();
        let mut agent = guest.start_with(&[("VIRT_PERSONA_AGENT_CRASH_AT", point.to_string())]);
        let mut wish = activation(2, &[("A", "new")]);
        wish.commands = commands("new");
        wish.pre = script(&format!("echo pre >> {}", guest.path("runs").display()));
        wish.post = script(&format!("echo post >> {}", guest.path("runs").display()));
        let request = fresh_id();
        let survived = guest.ask_doomed(&mut agent, &request, activate(wish.clone()));
        agent.kill();

        let (_agent, mut peer, _) = guest.greet();
        recovered(&mut peer);
        let status = settled(&mut peer, &request);
        let known = value(&guest);
        assert_eq!(routed(&guest), known, "point {point}");
        match &status {
            OpStatus::Done {
                result: ReplyBody::Ok(_),
            } => assert_eq!(known.as_deref(), Some("new"), "point {point}"),
            OpStatus::Done {
                result: ReplyBody::Err(error),
            } => {
                assert_eq!(
                    (known.as_deref(), error.code.as_str()),
                    (Some("old"), "interrupted"),
                    "point {point}"
                );
            }
            OpStatus::Unknown => assert_eq!(known.as_deref(), Some("old"), "point {point}"),
            OpStatus::Running => unreachable!(),
        }
        fates[usize::from(known.as_deref() == Some("new"))] += 1;
        let runs = guest.read("runs").unwrap_or_default();
        assert!(
            ["", "pre\n", "pre\npost\n"].contains(&runs.as_str()),
            "point {point}: {runs:?}"
        );
        assert!(!guest.path("state/journal.json").exists(), "point {point}");

        // A new request for the same generation brings the guest there from wherever it is.
        let reply: ActivationReply = ok(peer.ask(activate(wish)));
        let expected = if known.as_deref() == Some("new") {
            Change::Unchanged
        } else {
            Change::Changed
        };
        assert_eq!(
            (reply.generation, reply.outcome),
            (2, expected),
            "point {point}"
        );
        assert_eq!(value(&guest).as_deref(), Some("new"));
        if survived {
            break;
        }
    }
    assert!(
        fates[0] > 10 && fates[1] > 5,
        "the points did not cover the sequence (release builds have none): {fates:?}"
    );
}
