//! A command from the daemon to the real agent and back: output as it comes, the persona's table, the owner's word, the audit.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use agent_protocol::command::output_bytes;
use virt_persona::command::{Command, DomainName, Execution, Refusal, Reply};
use virt_persona::view::{ActivationState, AgentState, ExecutionEndView, ExecutionLine, Refuser};

use crate::agent::Agent;
use crate::stage::{Running, Stage};

const WEB: &str = "
[[domain]]
name = 'web'
memory_mib = 512
vcpus_maximum = 4
agent_channel = 'FOLDER/guest/agent.sock'
";

const TABLE: &str = "name: front\nenvironment_variables: {SECRET: of-the-persona}\nrestricted_commands: [nc]\ncommand_overrides: {deploy: /opt/safe}\n";

fn program(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn stage(allowed: &str) -> (Stage, Agent) {
    let stage = Stage::new(WEB);
    let root = stage.path().join("guest");
    program(
        &root,
        "usr/bin/say",
        "echo $* $SECRET; echo aside >&2; exit 3",
    );
    program(&root, "usr/bin/nc", "echo nc runs");
    program(&root, "opt/safe", "echo safe $*");
    fs::create_dir_all(root.join("etc/virt-persona")).unwrap();
    fs::write(
        root.join("etc/virt-persona/agent.toml"),
        format!("[allow]\ncommands = {allowed}\n"),
    )
    .unwrap();
    let agent = Agent::start(&root);
    (stage, agent)
}

fn execution(argv: &[&str]) -> Command {
    Command::Execute {
        domain: DomainName("web".into()),
        execution: Box::new(Execution {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            user: "root".into(),
            directory: "/".into(),
            timeout: Duration::from_secs(600),
            environment: BTreeMap::from([("TOKEN".to_owned(), "hidden".to_owned())]),
        }),
    }
}

/// Standard output and the last line.
fn run(daemon: &Running, argv: &[&str]) -> (String, ExecutionLine) {
    let answer = daemon.ask(execution(argv));
    let Ok(Reply::Execution(lines)) = answer else {
        panic!("{answer:?}")
    };
    let file = lines.open().unwrap();
    // As the bus does: what is handed over is kept nowhere else.
    drop(lines);
    let (mut text, mut last) = (Vec::new(), None);
    for line in BufReader::new(file).lines() {
        match serde_json::from_str(&line.unwrap()).unwrap() {
            ExecutionLine::Output { stream, b64, .. } => {
                if stream == agent_protocol::Stream::Stdout {
                    text.extend(output_bytes(&b64).unwrap());
                }
            }
            end => last = Some(end),
        }
    }
    (String::from_utf8(text).unwrap(), last.unwrap())
}

fn ended(line: ExecutionLine) -> ExecutionEndView {
    match line {
        ExecutionLine::End(end) => *end,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_command_goes_through_the_personas_table_and_its_course_is_in_the_audit() {
    let (stage, _agent) = stage("true");
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.create(TABLE);
    daemon.apply("web", "front");
    daemon.wait_domain(web, "it is active", |domain| {
        domain.activation.state == ActivationState::Active
    });

    let (text, end) = run(&daemon, &["say", "a  b"]);
    assert_eq!(text, "a  b of-the-persona\n".replace("  ", " "));
    let end = ended(end);
    assert_eq!(
        (end.exit, end.program.as_str(), end.lost_bytes),
        (Some(3), "/usr/bin/say", 0)
    );

    let (text, end) = run(&daemon, &["deploy", "now"]);
    assert_eq!(text, "safe now\n");
    assert!(ended(end).overridden);

    let (text, end) = run(&daemon, &["nc"]);
    assert_eq!(text, "");
    let ExecutionLine::Failed { by, code, message } = end else {
        panic!("{end:?}")
    };
    assert_eq!((by, code.as_str()), (Refuser::Persona, "restricted"));
    assert!(
        message.contains("persona `front`") && message.contains("nc"),
        "{message}"
    );

    daemon.wait_record("the refusal", |record| {
        record.kind == "command" && record.text.contains("did not run")
    });
    let told = daemon.told("command").join("\n");
    assert!(
        told.contains("`say a  b` as root run in the guest")
            || told.contains("`say a b` as root run in the guest"),
        "{told}"
    );
    assert!(
        told.contains("exited with 3") && told.contains("/opt/safe in its place"),
        "{told}"
    );
    let whole = format!("{:?}", daemon.audit());
    assert!(
        !whole.contains("hidden") && !whole.contains("TOKEN"),
        "{whole}"
    );

    // Without the persona there is no table.
    let off = daemon.ask(Command::Deactivate {
        domain: DomainName("web".into()),
    });
    assert!(matches!(off, Ok(Reply::Applied(_))), "{off:?}");
    daemon.wait_domain(web, "it is gone", |domain| {
        domain.activation.state == ActivationState::None
    });
    assert_eq!(run(&daemon, &["nc"]).0, "nc runs\n");
}

#[test]
fn the_guests_owner_has_the_last_word_and_who_asks_wrongly_is_told_at_once() {
    let (stage, _agent) = stage("[\"nc\"]");
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.wait_domain(web, "its agent is there", |domain| {
        domain.agent.state == AgentState::Connected
    });
    let (_, end) = run(&daemon, &["say"]);
    assert!(
        matches!(
            end,
            ExecutionLine::Failed {
                by: Refuser::GuestOwner,
                ..
            }
        ),
        "{end:?}"
    );
    assert_eq!(run(&daemon, &["nc"]).0, "nc runs\n");
    let wrong = daemon.ask(execution(&["./nc"]));
    assert!(
        matches!(wrong, Err(Refusal::BadArgument { .. })),
        "{wrong:?}"
    );
    // Who no longer reads does not end the command.
    let Ok(Reply::Execution(lines)) = daemon.ask(execution(&["nc"])) else {
        panic!("it begins")
    };
    drop(lines.open().unwrap().take(0));
    drop(lines);
    daemon.wait_record("its end", |record| {
        record.kind == "command" && record.text.contains("exited with 0")
    });
}

#[test]
fn without_an_agent_no_command_is_begun() {
    let stage = Stage::new("[[domain]]\nname = 'web'\nmemory_mib = 512\nvcpus_maximum = 4\n");
    let web = stage.id("web");
    let daemon = stage.start();
    daemon.wait_domain(web, "it is there", |_| true);
    let answer = daemon.ask(execution(&["nc"]));
    assert!(
        matches!(answer, Err(Refusal::AgentUnavailable { .. })),
        "{answer:?}"
    );
    assert_eq!(daemon.told("command"), Vec::<String>::new());
}
