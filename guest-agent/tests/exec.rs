//! Commands through the real agent: who refuses, what runs instead, as whom, for how long, with how much output, and once.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use agent_protocol::{
    Command, CommandReply, CommandTable, GuestMessage, Operation, RequestId, Stream,
    command::Confinement,
    limits::COMMAND_OUTPUT_MAX,
    message::{OpStatus, ReplyBody},
};
use harness::{Agent, Guest, Peer, activate, activation, fresh_id, needs_root, ok, wait};

/// All that came of one command.
struct Ran {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    body: ReplyBody,
}

impl Ran {
    fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    fn reply(self) -> CommandReply {
        ok(self.body)
    }

    /// Code and sentence of a refusal.
    fn refusal(self) -> (String, String) {
        match self.body {
            ReplyBody::Err(error) => (error.code.as_str().to_owned(), error.message),
            ReplyBody::Ok(value) => panic!("{value}"),
        }
    }
}

fn command(argv: &[&str]) -> Command {
    Command {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        user: "root".to_owned(),
        cwd: "/".to_owned(),
        timeout_ms: 600_000,
        env: [].into(),
    }
}

/// Pieces in order and without gaps, up to the answer.
fn collect(peer: &mut Peer, id: &RequestId) -> Ran {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match peer.receive() {
            GuestMessage::Output(output) => {
                assert_eq!(output.re, *id);
                let all = match output.stream {
                    Stream::Stdout => &mut stdout,
                    Stream::Stderr => &mut stderr,
                };
                assert_eq!(output.off, all.len() as u64, "no gap");
                all.extend(output.bytes().unwrap());
            }
            GuestMessage::Reply(reply) if reply.re == *id => {
                let body = reply.body;
                return Ran {
                    stdout,
                    stderr,
                    body,
                };
            }
            other => panic!("{other:?}"),
        }
    }
}

fn exec(peer: &mut Peer, command: Command) -> Ran {
    let id = fresh_id();
    post(peer, &id, command);
    collect(peer, &id)
}

fn post(peer: &mut Peer, id: &RequestId, command: Command) {
    let command = Box::new(command);
    peer.post(id, Operation::Exec { command });
}

fn program(guest: &Guest, path: &str, text: &str) {
    guest.write(path, &format!("#!/bin/sh\n{text}\n"));
    fs::set_permissions(guest.path(path), fs::Permissions::from_mode(0o755)).unwrap();
}

/// A guest whose owner lets the host run anything, with a few programs.
fn open_guest() -> Guest {
    let guest = Guest::new();
    guest.write("etc/virt-persona/agent.toml", "[allow]\ncommands = true\n");
    program(&guest, "usr/bin/hello", "echo hello $*");
    program(&guest, "usr/bin/nc", "echo nc runs");
    guest
}

/// A persona with a table is made active.
fn table(peer: &mut Peer, generation: u64, overrides: &[(&str, &str)], restricted: &[&str]) {
    let mut wish = activation(generation, &[("GREETING", "a b")]);
    wish.commands = CommandTable {
        overrides: overrides
            .iter()
            .map(|(name, path)| ((*name).to_owned(), (*path).to_owned()))
            .collect(),
        restricted: restricted.iter().map(|name| (*name).to_owned()).collect(),
    };
    assert!(matches!(peer.ask(activate(wish)), ReplyBody::Ok(_)));
}

/// Processes that bear the mark of a request.
fn processes_of(id: &RequestId) -> usize {
    let mark = format!("VIRT_PERSONA_REQUEST={id}");
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| {
            let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
            environ
                .split(|byte| *byte == 0)
                .any(|v| v == mark.as_bytes())
        })
        .count()
}

/// A killed process is listed until the kernel has taken it apart.
fn wait_until_gone(id: &RequestId) {
    wait("its processes are gone", || processes_of(id) == 0);
}

fn greet(guest: &Guest) -> (Agent, Peer) {
    let (agent, peer, ack) = guest.greet();
    assert!(ack.feats.iter().any(|feat| feat == "commands"));
    (agent, peer)
}

#[test]
fn without_the_owners_word_no_command_runs_and_a_list_allows_what_it_names() {
    let guest = Guest::new();
    program(&guest, "usr/bin/hello", "echo hello");
    program(&guest, "usr/bin/other", "echo other");
    let (agent, mut peer) = greet(&guest);
    let (code, message) = exec(&mut peer, command(&["hello"])).refusal();
    assert_eq!(code, "forbidden");
    assert!(
        message.contains("owner") && message.contains("`commands`"),
        "{message}"
    );
    agent.kill();

    guest.write(
        "etc/virt-persona/agent.toml",
        "[allow]\ncommands = [\"hello\"]\n",
    );
    let (_agent, mut peer) = greet(&guest);
    assert_eq!(exec(&mut peer, command(&["hello"])).text(), "hello\n");
    assert_eq!(
        exec(&mut peer, command(&["/usr/bin/hello"])).text(),
        "hello\n"
    );
    let (code, message) = exec(&mut peer, command(&["other"])).refusal();
    assert_eq!(code, "forbidden");
    assert!(
        message.contains("owner") && message.contains("other"),
        "{message}"
    );
    // A persona does not get around the owner.
    table(&mut peer, 1, &[("hello", "/usr/bin/other")], &[]);
    let (code, _) = exec(&mut peer, command(&["hello"])).refusal();
    assert_eq!(code, "forbidden");
}

#[test]
fn words_reach_the_program_as_they_are_and_output_and_status_come_back() {
    let guest = open_guest();
    program(
        &guest,
        "usr/bin/both",
        "printf 'out %s|' \"$@\"; echo err >&2; exit 7",
    );
    let (_agent, mut peer) = greet(&guest);
    let ran = exec(&mut peer, command(&["both", "a b", "*", "$HOME; id"]));
    assert_eq!(ran.text(), "out a b|out *|out $HOME; id|");
    assert_eq!(ran.stderr, b"err\n");
    let reply = ran.reply();
    assert_eq!(
        (reply.exit, reply.timed_out, reply.truncated),
        (Some(7), false, false)
    );
    assert_eq!((reply.stdout_bytes, reply.stderr_bytes), (28, 4));
    assert_eq!(
        (reply.program.as_str(), reply.overridden),
        ("/usr/bin/both", false)
    );
    assert_eq!(
        reply.confinement,
        Confinement::ProcessGroup,
        "the tree has no control groups"
    );
    // A binary, by its path, as well.
    fs::copy("/bin/sh", guest.path("usr/bin/shell")).unwrap();
    let ran = exec(
        &mut peer,
        command(&["/usr/bin/shell", "-c", "echo $0 $1; kill -9 $$", "x", "y"]),
    );
    assert_eq!(ran.text(), "x y\n");
    assert_eq!(ran.reply().signal, Some(9));
}

#[test]
fn a_command_sees_the_personas_variables_and_its_own_and_nothing_of_the_agent() {
    let guest = open_guest();
    program(
        &guest,
        "usr/bin/look",
        "env | sort; ls /proc/self/fd | wc -l; grep NoNewPrivs /proc/self/status; umask; ulimit -c",
    );
    let agent = guest.start_with(&[("AGENTS_OWN", "1".to_owned())]);
    let mut agent = agent;
    let mut peer = guest.connect(&mut agent);
    peer.hello();
    table(&mut peer, 1, &[], &[]);
    let mut look = command(&["look"]);
    look.env = [
        ("OWN".to_owned(), "1".to_owned()),
        ("VIRT_PERSONA_NAME".to_owned(), "forged".to_owned()),
    ]
    .into();
    let text = exec(&mut peer, look).text();
    for line in [
        "GREETING=a b",
        "OWN=1",
        "VIRT_PERSONA_NAME=web",
        "HOME=/root",
        "NoNewPrivs:\t1",
        "0022",
        "0",
    ] {
        assert!(
            text.lines().any(|seen| seen == line),
            "{line} is not in:\n{text}"
        );
    }
    assert!(!text.contains("AGENTS_OWN"), "{text}");
    // Standard three, the script, and that of `ls` itself.
    assert!(
        text.lines().any(|line| line == "5" || line == "4"),
        "{text}"
    );
}

#[test]
fn a_restricted_command_is_refused_by_name_path_symbolic_link_and_hard_link() {
    let guest = open_guest();
    symlink("nc", guest.path("usr/bin/netcat")).unwrap();
    fs::create_dir_all(guest.path("opt")).unwrap();
    fs::hard_link(guest.path("usr/bin/nc"), guest.path("opt/innocent")).unwrap();
    let (_agent, mut peer) = greet(&guest);
    assert_eq!(exec(&mut peer, command(&["nc"])).text(), "nc runs\n");
    table(&mut peer, 1, &[], &["nc"]);
    for asked in [
        "nc",
        "/usr/bin/nc",
        "netcat",
        "/usr/bin/netcat",
        "/opt/innocent",
        "/usr/bin/../bin/nc",
        "//usr/bin/netcat",
    ] {
        let (code, message) = exec(&mut peer, command(&[asked])).refusal();
        assert_eq!(code, "restricted", "{asked}: {message}");
        assert!(
            message.contains("persona `web`") && message.contains("nc"),
            "{asked}: {message}"
        );
    }
    assert_eq!(exec(&mut peer, command(&["hello"])).text(), "hello\n");
    // The next persona's table holds, and no other.
    table(&mut peer, 2, &[], &["hello"]);
    assert_eq!(exec(&mut peer, command(&["netcat"])).text(), "nc runs\n");
    assert_eq!(
        exec(&mut peer, command(&["hello"])).refusal().0,
        "restricted"
    );
    assert!(matches!(
        peer.ask(Operation::Deactivate { generation: 3 }),
        ReplyBody::Ok(_)
    ));
    assert_eq!(exec(&mut peer, command(&["hello"])).text(), "hello\n");
}

#[test]
fn an_overridden_command_runs_what_the_persona_says_with_the_same_words() {
    let guest = open_guest();
    program(&guest, "opt/tools/safe", "echo safe $*");
    program(&guest, "opt/hello", "echo another hello");
    let (_agent, mut peer) = greet(&guest);
    table(
        &mut peer,
        1,
        &[
            ("hello", "/opt/tools/safe"),
            ("deploy", "/opt/tools/safe"),
            ("gone", "/opt/none"),
            ("way", "/usr/bin/nc"),
        ],
        &["nc"],
    );
    for asked in ["hello", "/usr/bin/hello", "deploy"] {
        let ran = exec(&mut peer, command(&[asked, "now"]));
        assert_eq!(ran.text(), "safe now\n", "{asked}");
        let reply = ran.reply();
        assert_eq!(
            (reply.program.as_str(), reply.overridden),
            ("/opt/tools/safe", true)
        );
    }
    // Another program of the same name, by its path, is not that command.
    assert_eq!(
        exec(&mut peer, command(&["/opt/hello"])).text(),
        "another hello\n"
    );
    let (code, message) = exec(&mut peer, command(&["gone"])).refusal();
    assert_eq!(code, "not_found");
    assert!(
        message.contains("command_overrides") && message.contains("/opt/none"),
        "{message}"
    );
    // An override is no way to what is restricted.
    assert_eq!(exec(&mut peer, command(&["way"])).refusal().0, "restricted");
}

#[test]
fn what_is_not_there_cannot_run_or_is_not_roots_is_refused_each_with_its_reason() {
    let guest = open_guest();
    guest.write("usr/bin/plain", "no program");
    program(&guest, "usr/bin/loose", "echo loose");
    fs::set_permissions(
        guest.path("usr/bin/loose"),
        fs::Permissions::from_mode(0o777),
    )
    .unwrap();
    let (_agent, mut peer) = greet(&guest);
    let mut refused = |asked: &str, expected: &str, word: &str| {
        let (code, message) = exec(&mut peer, command(&[asked])).refusal();
        assert_eq!(code, expected, "{asked}: {message}");
        assert!(message.contains(word), "{asked}: {message}");
    };
    refused("nosuch", "not_found", "standard directories");
    refused("/opt/nosuch", "not_found", "/opt/nosuch");
    refused("plain", "not_found", "plain");
    refused("/usr/bin/plain", "cannot_run", "executable");
    refused("/usr/bin", "cannot_run", "executable");
    refused("usr/bin/hello", "malformed", "absolute path");
    needs_root();
    refused("loose", "untrusted", "written by others");
    let mut strange = command(&["hello"]);
    strange.user = "nosuch".to_owned();
    let (code, message) = exec(&mut peer, strange).refusal();
    assert_eq!(code, "unknown_user");
    assert!(message.contains("nosuch"), "{message}");
    let mut nowhere = command(&["hello"]);
    nowhere.cwd = "/nowhere".to_owned();
    let (code, message) = exec(&mut peer, nowhere).refusal();
    assert_eq!(code, "cannot_run");
    assert!(message.contains("/nowhere"), "{message}");
}

#[test]
fn a_command_becomes_its_user_with_all_groups() {
    let guest = open_guest();
    fs::copy("/bin/sh", guest.path("usr/bin/shell")).unwrap();
    fs::set_permissions(guest.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    program(&guest, "usr/bin/loose", "echo loose");
    fs::set_permissions(
        guest.path("usr/bin/loose"),
        fs::Permissions::from_mode(0o777),
    )
    .unwrap();
    let (_agent, mut peer) = greet(&guest);
    let look = "id -u; id -g; id -G; echo $USER $HOME";
    let mut asked = command(&["shell", "-c", look]);
    asked.user = "web".to_owned();
    needs_root();
    let ran = exec(&mut peer, asked);
    assert_eq!(ran.text(), "1234\n1235\n1235 1236\nweb /\n");
    // What others may write is run as who is not root, and it is said.
    let mut loose = command(&["loose"]);
    loose.user = "web".to_owned();
    let notes = exec(&mut peer, loose).reply().notes;
    assert!(
        notes.iter().any(|note| note.contains("written by others")),
        "{notes:?}"
    );
}

#[test]
fn a_command_that_overruns_is_stopped_with_its_children() {
    let guest = open_guest();
    program(
        &guest,
        "usr/bin/long",
        "echo begun; (trap '' TERM; sleep 1000) & sleep 1000",
    );
    let (_agent, mut peer) = greet(&guest);
    let id = fresh_id();
    let mut long = command(&["long"]);
    long.timeout_ms = 300;
    post(&mut peer, &id, long);
    let ran = collect(&mut peer, &id);
    assert_eq!(ran.text(), "begun\n");
    let reply = ran.reply();
    assert!(reply.timed_out && reply.exit.is_none(), "{reply:?}");
    wait_until_gone(&id);
}

/// Puts a command there whose child leaves its session. The child's number is in `pid`; then the command does this.
fn leaving(guest: &Guest, then: &str) {
    let pid = guest.path("pid").display().to_string();
    let child = format!("trap \"\" TERM; echo $$ >{pid}; exec sleep 1000");
    let text = format!(
        "setsid sh -c '{child}' </dev/null >/dev/null 2>&1 &\nuntil [ -s {pid} ]; do sleep 0.01; done\n{then}"
    );
    program(guest, "usr/bin/leaving", &text);
}

#[test]
fn a_child_that_leaves_its_session_is_killed_with_the_control_group() {
    needs_root();
    let guest = open_guest();
    fs::create_dir_all(guest.path("sys/fs")).unwrap();
    symlink("/sys/fs/cgroup", guest.path("sys/fs/cgroup")).unwrap();
    leaving(&guest, "sleep 1000");
    let (_agent, mut peer) = greet(&guest);
    let id = fresh_id();
    let mut long = command(&["leaving"]);
    long.timeout_ms = 1000;
    post(&mut peer, &id, long);
    let reply = collect(&mut peer, &id).reply();
    assert!(reply.timed_out);
    assert_eq!(
        reply.confinement,
        Confinement::ControlGroup,
        "this test needs control groups that it may make: version 2, or `pids` or `freezer` of version 1, mounted at /sys/fs/cgroup \
         and writable"
    );
    wait_until_gone(&id);
    for mount in ["", "pids", "freezer"] {
        let left = format!("/sys/fs/cgroup/{mount}/virt-persona-commands/{id}");
        assert!(!std::path::Path::new(&left).exists(), "{left}");
    }
}

#[test]
fn where_there_are_no_control_groups_it_is_said_and_a_child_that_leaves_its_session_gets_away() {
    let guest = open_guest();
    leaving(&guest, "exit 0");
    let (_agent, mut peer) = greet(&guest);
    let id = fresh_id();
    post(&mut peer, &id, command(&["leaving"]));
    let reply = collect(&mut peer, &id).reply();
    assert_eq!(
        (reply.confinement, reply.exit),
        (Confinement::ProcessGroup, Some(0))
    );
    let process: i32 = guest.read("pid").unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(process),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    wait_until_gone(&id);
}

#[test]
fn output_ends_at_the_cap_and_the_command_goes_on() {
    let guest = open_guest();
    let more = COMMAND_OUTPUT_MAX + 1_000_000;
    program(
        &guest,
        "usr/bin/chatty",
        &format!("yes 0123456789 | head -c {more}; echo the end >&2; exit 3"),
    );
    let (_agent, mut peer) = greet(&guest);
    let ran = exec(&mut peer, command(&["chatty"]));
    assert_eq!(
        (ran.stdout.len() + ran.stderr.len()) as u64,
        COMMAND_OUTPUT_MAX
    );
    assert!(ran.stdout.starts_with(b"0123456789\n0123"));
    let reply = ran.reply();
    assert!(reply.truncated && reply.exit == Some(3), "{reply:?}");
}

#[test]
fn other_requests_are_answered_while_commands_run_and_a_fifth_command_is_refused() {
    let guest = open_guest();
    let go = guest.path("go");
    program(
        &guest,
        "usr/bin/wait",
        &format!("while ! test -e {}; do sleep 0.05; done", go.display()),
    );
    let (_agent, mut peer) = greet(&guest);
    let ids: Vec<RequestId> = (0..4).map(|_| fresh_id()).collect();
    for id in &ids {
        post(&mut peer, id, command(&["wait"]));
    }
    peer.expect_silence_until_pong();
    let (code, message) = exec(&mut peer, command(&["hello"])).refusal();
    assert_eq!(code, "busy", "{message}");
    table(&mut peer, 1, &[], &[]);
    fs::write(&go, "").unwrap();
    let mut left = ids.len();
    while left > 0 {
        match peer.receive() {
            GuestMessage::Reply(reply) if ids.contains(&reply.re) => left -= 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(exec(&mut peer, command(&["hello"])).text(), "hello\n");
}

#[test]
fn a_second_delivery_gets_the_first_ones_answer_and_runs_nothing() {
    let guest = open_guest();
    let runs = guest.path("runs");
    program(
        &guest,
        "usr/bin/once",
        &format!("echo run >>{}; echo out; exit 5", runs.display()),
    );
    let (agent, mut peer) = greet(&guest);
    let id = fresh_id();
    post(&mut peer, &id, command(&["once"]));
    let first = collect(&mut peer, &id);
    post(&mut peer, &id, command(&["once"]));
    let second = collect(&mut peer, &id);
    assert_eq!(second.body, first.body);
    assert_eq!(second.stdout, b"", "output is not kept");
    // Until it is on the disk a question about it is answered with what is.
    let status = Operation::OpStatus { id: id.clone() };
    let OpStatus::Done { result } = ok(peer.ask(status)) else {
        panic!("it is done")
    };
    assert_eq!(result, first.body);
    agent.kill();
    let (_agent, mut peer) = greet(&guest);
    post(&mut peer, &id, command(&["once"]));
    assert_eq!(collect(&mut peer, &id).body, first.body);
    assert_eq!(guest.read("runs").as_deref(), Some("run\n"));
}

#[test]
fn a_command_whose_agent_is_killed_is_killed_too_and_never_run_again() {
    let guest = open_guest();
    let begun = guest.path("begun");
    program(
        &guest,
        "usr/bin/long",
        &format!("sleep 1000 & echo run >>{}; sleep 1000", begun.display()),
    );
    let (agent, mut peer) = greet(&guest);
    let id = fresh_id();
    post(&mut peer, &id, command(&["long"]));
    // The shell makes the file before it writes to it.
    wait("it has begun", || {
        guest.read("begun").as_deref() == Some("run\n")
    });
    agent.kill();
    let (_agent, mut peer) = greet(&guest);
    let OpStatus::Done { result } = ok(peer.ask(Operation::OpStatus { id: id.clone() })) else {
        panic!("it is done with")
    };
    post(&mut peer, &id, command(&["long"]));
    let ran = collect(&mut peer, &id);
    assert_eq!(ran.body, result);
    assert_eq!(ran.refusal().0, "interrupted");
    wait_until_gone(&id);
    assert_eq!(guest.read("begun").as_deref(), Some("run\n"));
}

#[test]
fn output_of_a_session_that_ended_is_lost_and_its_answer_is_not() {
    let guest = open_guest();
    let go = guest.path("go");
    program(
        &guest,
        "usr/bin/late",
        &format!(
            "echo early; while ! test -e {}; do sleep 0.05; done; echo late",
            go.display()
        ),
    );
    let (mut agent, mut peer) = greet(&guest);
    let id = fresh_id();
    post(&mut peer, &id, command(&["late"]));
    assert!(matches!(peer.receive(), GuestMessage::Output(_)));
    drop(peer);
    let mut peer = guest.connect(&mut agent);
    peer.hello();
    fs::write(&go, "").unwrap();
    // Asked again in the new session: the answer of the one run, and what it wrote since.
    post(&mut peer, &id, command(&["late"]));
    let reply = loop {
        match peer.receive() {
            GuestMessage::Output(output) => {
                assert_eq!(output.off, 6, "what went before is not sent again")
            }
            GuestMessage::Reply(reply) => break ok::<CommandReply>(reply.body),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((reply.stdout_bytes, reply.exit), (11, Some(0)));
}

#[test]
fn what_is_no_program_is_not_opened() {
    let guest = open_guest();
    // A socket cannot be opened at all: had it been tried, that would be what is said.
    let path = guest.path("usr/bin/socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let (_agent, mut peer) = greet(&guest);
    let (code, message) = exec(&mut peer, command(&["/usr/bin/socket"])).refusal();
    assert_eq!(code, "cannot_run");
    assert!(message.contains("is no executable file"), "{message}");
}
