//! The program `virt-persona` itself: what it prints for people and for programs, and its exit status.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::fake::{Fake, record};
use crate::private_bus::PrivateBus;
use crate::{golden, repository};

/// A run that has ended.
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

fn program(path: PathBuf, arguments: &[&str]) -> Command {
    let mut command = Command::new(path);
    command
        .args(arguments)
        .env_remove("NO_COLOR")
        .env("TZ", "UTC")
        .current_dir(repository(""))
        .kill_on_drop(true);
    command
}

async fn run(arguments: &[&str]) -> Ran {
    ran(program(
        env!("CARGO_BIN_EXE_virt-persona").into(),
        arguments,
    ))
    .await
}

async fn ran(mut command: Command) -> Ran {
    command.stdin(Stdio::null());
    let output = loop {
        match command.output().await {
            // A child that another test has just forked still holds the copy open for writing, until its own exec.
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                tokio::task::yield_now().await;
            }
            output => break output.expect("the program"),
        }
    };
    Ran {
        status: output.status.code().expect("an exit status"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Runs it on this bus, as another user if one is given; the program is copied to where that user can reach it.
pub(crate) async fn run_as(bus: &PrivateBus, user: Option<u32>, arguments: &[&str]) -> Ran {
    let copy = bus.folder().join("virt-persona");
    if !copy.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_virt-persona"), &copy).expect("a copy of the program");
        std::fs::set_permissions(&copy, Permissions::from_mode(0o755)).expect("executable");
    }
    let mut all = vec!["--connect", bus.address()];
    all.extend(arguments);
    let mut command = program(copy, &all);
    command.current_dir("/");
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    ran(command).await
}

/// Runs each command and gives the whole as a terminal would show it.
async fn session(bus: Option<&PrivateBus>, commands: &[&[&str]]) -> String {
    let mut shown = String::new();
    for arguments in commands {
        let ran = match bus {
            Some(bus) => {
                let mut all = vec!["--connect", bus.address()];
                all.extend(*arguments);
                run(&all).await
            }
            None => run(arguments).await,
        };
        shown.push_str(&format!(
            "$ virt-persona {}\n{}{}[exit {}]\n\n",
            arguments.join(" "),
            ran.stdout,
            ran.stderr,
            ran.status
        ));
    }
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_see() {
    let bus = PrivateBus::start();
    let fake = Fake::start(&bus).await;
    let shown = session(
        Some(&bus),
        &[
            &["domains"],
            &["status", "web"],
            &["status", "db"],
            &["list"],
            &["show", "web-high@1"],
            &["history", "web-high"],
            &["maps"],
            &["tag", "web"],
            &["tag", "web", "+more", "-web"],
            &["map", "db", "web-high", "--priority", "3"],
            &[
                "map",
                "prod",
                "--override",
                "tests/bus/documents/override.yaml",
            ],
            &["maps"],
            &["show", "--override", "prod"],
            &["show", "--effective", "web"],
            &["diff", "web-high@1", "web-high@2"],
            &["diff", "web-high", "tests/bus/documents/override.yaml"],
            &["unmap", "db"],
            &["apply", "db", "web-high", "--dry-run"],
            &["apply", "db", "web-high"],
            &["apply", "web", "web-high", "--wait"],
            &["deactivate", "db"],
            &[
                "adopt",
                "web",
                "--dry-run",
                "--max-vcpus",
                "6",
                "--max-memory",
                "3 GiB",
            ],
            &["adopt", "web", "--yes"],
            &["adopt", "web", "--undo", "--yes"],
            &["retire"],
            &["retire", "--wait", "--timeout", "0"],
            &["explain", "web"],
            &["approvals"],
            &["approve", "3"],
            &["reject", "3"],
            &["hold", "web", "2h", "--resource", "memory"],
            &["hold", "web", "2h", "--resource", "limits"],
            &["release", "web"],
            &["release", "db"],
            &["explain", "web", "--at", "2026-01-31T08:00:00Z"],
            &["record", "web", "--output", "-"],
            &["audit", "--domain", "web"],
            &["doctor"],
            &["doctor", "web"],
            &["set-current", "web-high@1"],
            &["delete", "web-high", "--force"],
        ],
    )
    .await;
    golden("tests/bus/golden/people.txt", &shown);
    fake.stop().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_programs_see() {
    let bus = PrivateBus::start();
    let fake = Fake::start(&bus).await;
    let shown = session(
        Some(&bus),
        &[
            &["domains", "--json"],
            &["list", "--json"],
            &["show", "web-high", "--json"],
            &["history", "web-high", "--json"],
            &["maps", "--json"],
            &["tag", "web", "--json"],
            &["map", "db", "web-high", "--json"],
            &[
                "map",
                "prod",
                "--override",
                "tests/bus/documents/override.yaml",
                "--json",
            ],
            &["show", "--effective", "web", "--json"],
            &["apply", "db", "web-high", "--dry-run", "--json"],
            &["apply", "web", "web-high", "--wait", "--json"],
            &["deactivate", "db", "--json"],
            &["adopt", "web", "--dry-run", "--json"],
            &["adopt", "web", "--yes", "--json"],
            &["retire", "--json"],
            &["explain", "web", "--json"],
            &["approvals", "--json"],
            &["approve", "3", "--json"],
            &["hold", "web", "2h", "--json"],
            &["release", "web", "--json"],
            &["audit", "--json"],
            &["doctor", "--json"],
            &["set-current", "web-high@1", "--json"],
        ],
    )
    .await;
    golden("tests/bus/golden/programs.txt", &shown);
    fake.stop().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_written_whole_or_not_at_all() {
    let bus = PrivateBus::start();
    let fake = Fake::start(&bus).await;
    let file = bus.folder().join("web.trace");
    let path = file.to_str().expect("a name");
    let arguments = [
        "record", "web", "-o", path, "--since", "-5m", "--until", "23:59",
    ];
    let ran = run_as(&bus, None, &arguments).await;
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    let written = std::fs::read_to_string(&file).expect("the recording");
    assert_eq!(written, "{\"virt_persona_recording\":1}\n");
    let folder = bus.folder().join("no-folder/web.trace");
    let ran = run_as(
        &bus,
        None,
        &["record", "web", "-o", folder.to_str().expect("a name")],
    )
    .await;
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("cannot write"), "{}", ran.stderr);
    let ran = run_as(&bus, None, &["record", "wbe", "-o", path]).await;
    assert_eq!(ran.status, 1);
    assert_eq!(std::fs::read_to_string(&file).expect("it stays"), written);
    let ran = run_as(
        &bus,
        None,
        &["record", "web", "-o", path, "--since", "soon"],
    )
    .await;
    assert_eq!(ran.status, 2);
    fake.stop().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_in_a_guest_writes_as_it_wrote_and_ends_as_it_ended() {
    let bus = PrivateBus::start();
    let fake = Fake::start(&bus).await;
    let ran = run_as(&bus, None, &["exec", "web", "--", "uptime", "--json"]).await;
    assert_eq!(
        ran.stdout,
        "uptime --json as nobody in / for 60 s with {}\n"
    );
    assert_eq!(
        (ran.status, ran.stderr.as_str()),
        (7, "to standard error\n")
    );
    let given = [
        "exec",
        "web",
        "--user",
        "app",
        "--timeout",
        "2m",
        "--directory",
        "/srv",
        "--env",
        "A=b=c",
        "--",
        "/bin/ls",
    ];
    let ran = run_as(&bus, None, &given).await;
    assert_eq!(
        ran.stdout,
        "/bin/ls as app in /srv for 120 s with {\"A\": \"b=c\"}\n"
    );
    let ran = run_as(&bus, None, &["exec", "web", "--", "slow"]).await;
    assert_eq!(ran.status, 124);
    assert!(ran.stderr.contains("its time was over"), "{}", ran.stderr);
    for (program, status, who) in [
        ("nc", 125, "the persona refuses it"),
        ("closed", 125, "the guest's owner refuses it"),
        ("nosuch", 127, "the guest does not run it"),
    ] {
        let ran = run_as(&bus, None, &["exec", "web", "--", program]).await;
        assert_eq!((ran.status, ran.stdout.as_str()), (status, ""), "{program}");
        assert!(ran.stderr.contains(who), "{}", ran.stderr);
    }
    let ran = run_as(&bus, None, &["exec", "web", "--json", "--", "uptime"]).await;
    let lines: Vec<serde_json::Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!((ran.status, lines.len()), (7, 3), "{}", ran.stdout);
    assert_eq!(lines[2]["end"]["exit"], 7);
    let ran = run_as(&bus, None, &["exec", "wbe", "--", "uptime"]).await;
    assert_eq!(ran.status, 125);
    assert!(ran.stderr.contains("did you mean `web`"), "{}", ran.stderr);
    assert_eq!(run_as(&bus, None, &["exec", "web"]).await.status, 2);
    fake.stop().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_says_why() {
    let bus = PrivateBus::start();
    let fake = Fake::start(&bus).await;
    let bad = bus.folder().join("bad.yaml");
    std::fs::write(&bad, "nonsense: 1\n").expect("a document");
    let bad = bad.display().to_string();
    let shown = session(
        Some(&bus),
        &[
            &["status", "wbe"],
            &["status", "wbe", "--json"],
            &["show", "web-hihg"],
            &["set-current", "web-high@9"],
            &["set-current", "web-high"],
            &["apply", "web", "broken"],
            &["apply", "web", "fails", "--wait"],
            &["apply", "web", "@3"],
            &[
                "map",
                "prod",
                "--override",
                "tests/bus/documents/wrong.yaml",
            ],
            &[
                "map",
                "prod",
                "web-high",
                "--override",
                "tests/bus/documents/wrong.yaml",
            ],
            &["map", "prod"],
            &["show", "--effective", "wbe"],
            &["diff", "web-high", "/nonexistent.yaml"],
            &["diff", "web-high", "web-high@0"],
            &["tag", "web", "plain"],
            &["adopt", "web"],
            &["adopt", "web", "--max-memory", "3"],
            &["adopt", "web", "--undo", "--max-vcpus", "3"],
            &["adopt", "db", "--undo", "--yes"],
            &["create", &bad],
            &["create", &bad, "--json"],
            &["create", "/nonexistent.yaml"],
            &["audit", "--domain", "wbe"],
            &["audit", "--limit", "100000"],
            &["approve", "4"],
            &["reject", "4", "--json"],
            &["hold", "wbe", "1h"],
            &["hold", "web", "31d"],
            &["hold", "web", "soon"],
            &["release", "wbe"],
        ],
    )
    .await
    .replace(&bad, "bad.yaml");
    golden("tests/bus/golden/refused.txt", &shown);
    fake.stop().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_shows_every_problem_without_a_daemon() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a document");
        path.display().to_string()
    };
    let good = write(
        "good.yaml",
        "name: web\nbase_configuration: {cpu: {min: 1, max: 4}}\n",
    );
    let bad = write(
        "bad.yaml",
        "name: web\nbase_configuration:\n  cpu: {min: 4, max: 2}\nnonsense: 1\n",
    );
    let restyled = write(
        "restyled.json",
        "{\"BaseConfiguration\": {\"cpu\": {\"max\": 4, \"share\": 1000}}, \"name\": \"Web\"}",
    );
    let other = write(
        "other.yaml",
        "name: web\nbase_configuration: {cpu: 2, memory: {max: 4 GiB}}\n",
    );
    let derived = write(
        "derived.yaml",
        "name: shop\nextends: web\nbase_configuration: {memory: {max: 4 GiB}}\n",
    );
    let circle = write("circle.yaml", "name: web\nextends: [shop]\n");
    let broken = write(
        "broken.yaml",
        "name: broken\nextends: web\nbase_configuration: {cpu: {min: 5}}\n",
    );
    let nameless = write("nameless.json", "{\"description\": \"no name\"}\n");
    let shown = session(
        None,
        &[
            &["check", &good],
            &["check", &good, &bad],
            &["check", &bad, "--json"],
            &["check", &nameless],
            &["check", &nameless, "--name", "given"],
            &["check", "/nonexistent.yaml"],
            &["check", &derived],
            &["check", &derived, &good, "--json"],
            &["check", &derived, &circle],
            &["check", &broken, &good],
            &["diff", &good, &restyled],
            &["diff", &good, &other],
            &["diff", &good, &other, "--json"],
            &["diff", &good, &bad],
        ],
    )
    .await
    .replace(&format!("{}/", folder.path().display()), "");
    golden("tests/bus/golden/check.txt", &shown);
}

#[tokio::test(flavor = "multi_thread")]
async fn fmt_prints_checks_and_rewrites_documents_without_a_daemon() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let write = |name: &str, text: &str| {
        std::fs::write(path(name), text).expect("a document");
        path(name)
    };
    let spoken = "# The shop.\nname: web\nBaseConfiguration: {CPU: 4 cores} # grows\n";
    let (spoken, rewritten) = (
        write("spoken.yaml", spoken),
        write("rewritten.yaml", spoken),
    );
    std::fs::set_permissions(&rewritten, Permissions::from_mode(0o640)).expect("permissions");
    let link = path("link.yaml");
    std::os::unix::fs::symlink("rewritten.yaml", &link).expect("a link");
    let toml = write(
        "web.toml",
        "name = \"web\"\n[base_configuration]\ncpu = 4\n",
    );
    let bad = write("bad.yaml", "name: web\nnonsense: 1\n");
    let shown = session(
        None,
        &[
            &["fmt", &spoken],
            &["fmt", &toml],
            &["fmt", &spoken, &bad],
            &["fmt", &spoken, &bad, "--json"],
            &["fmt", "--check", &spoken, &rewritten],
            &["fmt", "--write", &link],
            &["fmt", "--check", &rewritten],
            &["fmt", "--write", &toml],
            &["fmt", "--write", "-"],
            &["fmt", "--write", "--check", &spoken],
            &["fmt", "--write", &bad],
            &["fmt", "/nonexistent.yaml"],
        ],
    )
    .await
    .replace(&format!("{}/", folder.path().display()), "");
    golden("tests/bus/golden/fmt.txt", &shown);
    let mode = std::fs::metadata(&rewritten)
        .expect("the file")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o640);
    let kind = std::fs::symlink_metadata(&link)
        .expect("the link")
        .file_type();
    assert!(kind.is_symlink());
    assert_eq!(
        std::fs::read_to_string(&bad).expect("the document"),
        "name: web\nnonsense: 1\n"
    );
    let left = std::fs::read_dir(folder.path())
        .expect("the folder")
        .count();
    assert_eq!(left, 5, "nothing is left beside the files");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_not_there_is_status_3() {
    let bus = PrivateBus::start();
    let nowhere = "unix:path=/nonexistent/bus";
    for arguments in [
        &["--connect", bus.address(), "domains"][..],
        &["--connect", bus.address(), "watch"],
        &["--connect", nowhere, "domains"],
    ] {
        let ran = run(arguments).await;
        assert_eq!(ran.status, 3, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
    }
    let mut system = program(env!("CARGO_BIN_EXE_virt-persona").into(), &["domains"]);
    system.env("DBUS_SYSTEM_BUS_ADDRESS", bus.address());
    let ran = ran(system).await;
    assert_eq!(ran.status, 3);
    assert!(
        ran.stderr
            .contains("start it with `systemctl start virt-personad`"),
        "{}",
        ran.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_status_2() {
    for arguments in [
        &[][..],
        &["nonsense"],
        &["status"],
        &["apply", "web", "web-high", "--dry-run", "--wait"],
        &["--session", "--connect", "x", "list"],
        &["audit", "--since", "yesterday"],
    ] {
        let ran = run(arguments).await;
        assert_eq!(ran.status, 2, "{arguments:?}: {}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_prints_records_as_they_come_and_ends_with_its_reader() {
    let bus = PrivateBus::start();
    let fake = Fake::start(&bus).await;
    let mut child = program(
        env!("CARGO_BIN_EXE_virt-persona").into(),
        &["--connect", bus.address(), "watch", "--json"],
    )
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .expect("the program");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    // When it listens cannot be seen from outside, so records are sent until the first arrives.
    let first = loop {
        let sent = fake.events.send(record(1));
        assert!(sent.is_ok(), "the bus listens");
        let wait = std::time::Duration::from_millis(50);
        if let Ok(line) = tokio::time::timeout(wait, lines.next_line()).await {
            break line.expect("a line").expect("a line");
        }
    };
    let seen: serde_json::Value = serde_json::from_str(&first).expect("JSON");
    assert_eq!(seen, serde_json::to_value(record(1)).expect("JSON"));

    fake.events.send(record(5)).expect("the bus listens");
    loop {
        let line = lines.next_line().await.expect("a line").expect("a line");
        let seen: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        if seen["seq"] == 5 {
            break;
        }
    }
    let mut notes = BufReader::new(child.stderr.take().expect("its errors")).lines();
    assert_eq!(
        notes.next_line().await.expect("a line").as_deref(),
        Some("3 records were missed; `virt-persona audit` has them")
    );

    drop(lines);
    let status = loop {
        // It sees that nobody reads only when it writes.
        let sent = fake.events.send(record(6));
        assert!(sent.is_ok(), "the bus listens");
        let wait = std::time::Duration::from_millis(50);
        if let Ok(status) = tokio::time::timeout(wait, child.wait()).await {
            break status.expect("its end");
        }
    };
    assert_eq!(status.code(), Some(0));
    fake.stop().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_man_page_is_that_of_this_command_line() {
    let ran = run(&["man"]).await;
    assert_eq!(ran.status, 0);
    golden("packaging/man/virt-persona.1", &ran.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemons_man_page_has_every_option_of_it() {
    let help = ran(program(
        env!("CARGO_BIN_EXE_virt-personad").into(),
        &["--help"],
    ))
    .await;
    let page =
        std::fs::read_to_string(repository("packaging/man/virt-personad.8")).expect("the page");
    let page = page.replace('\\', "");
    let options: Vec<&str> = help
        .stdout
        .split_whitespace()
        .filter(|word| word.starts_with("--"))
        .collect();
    assert!(options.contains(&"--check-config"), "{}", help.stdout);
    for option in options {
        assert!(page.contains(option), "{option} is not in virt-personad(8)");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_are_there_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = run(&["completions", shell]).await;
        assert_eq!(ran.status, 0);
        assert!(ran.stdout.contains("set-current"), "{shell}");
    }
}
