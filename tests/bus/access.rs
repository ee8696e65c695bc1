//! Who may do what: reading for every user, changing and copies of recordings for root, for others what polkit allows; the name for root alone.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use futures_util::StreamExt;
use virt_persona::bus::names::Action;
use virt_persona::command::{Command, Mode};
use zbus::fdo::DBusProxy;

use crate::command_line::{Ran, run_as};
use crate::fake::Fake;
use crate::private_bus::{NOBODY, PrivateBus};
use crate::repository;

/// Every change, and the reading that takes room on the disk, with what it needs.
const CHANGES: [(&[&str], Action); 18] = [
    (
        &["create", "PERSONA", "--name", "x"],
        Action::ManagePersonas,
    ),
    (&["update", "web-high", "PERSONA"], Action::ManagePersonas),
    (&["set-current", "web-high@1"], Action::ManagePersonas),
    (&["map", "db", "web-high"], Action::ManagePersonas),
    (
        &["map", "prod", "--override", "PERSONA"],
        Action::ManagePersonas,
    ),
    (&["unmap", "db"], Action::ManagePersonas),
    (&["apply", "db", "web-high"], Action::Activate),
    (&["deactivate", "db"], Action::Activate),
    (&["retire"], Action::Activate),
    (&["tag", "db", "+a", "-b"], Action::Activate),
    (&["approve", "3"], Action::Approve),
    (&["reject", "3"], Action::Approve),
    (&["hold", "db", "1h"], Action::Approve),
    (&["release", "db"], Action::Approve),
    (&["adopt", "web", "--yes"], Action::Adopt),
    // It may tell lines of the definition, so it is not for everybody to look at either.
    (&["adopt", "web", "--undo", "--dry-run"], Action::Adopt),
    (&["record", "web", "--output", "-"], Action::Record),
    (&["exec", "web", "--", "true"], Action::Execute),
];

const READS: [&[&str]; 16] = [
    &["list"],
    &["show", "web-high"],
    &["history", "web-high"],
    &["domains"],
    &["status", "web"],
    &["tag", "web"],
    &["maps"],
    &["show", "--effective", "web"],
    &["show", "--override", "prod"],
    &["diff", "web-high", "web-high@1"],
    &["explain", "web"],
    &["approvals"],
    &["audit"],
    &["doctor", "web"],
    &["apply", "web", "web-high", "--dry-run"],
    &["adopt", "web", "--dry-run"],
];

async fn run(bus: &PrivateBus, user: u32, arguments: &[&str]) -> Ran {
    let document = bus.folder().join("persona.yaml");
    if !document.exists() {
        std::fs::write(&document, "name: x\n").expect("a document");
        std::fs::set_permissions(&document, Permissions::from_mode(0o644)).expect("readable");
    }
    let document = document.display().to_string();
    let arguments: Vec<&str> = arguments
        .iter()
        .map(|a| {
            if *a == "PERSONA" {
                document.as_str()
            } else {
                a
            }
        })
        .collect();
    run_as(bus, Some(user), &arguments).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_polkit_every_user_reads_and_root_alone_changes() {
    let bus = PrivateBus::start();
    let fake = Fake::start(&bus).await;
    for arguments in READS {
        let ran = run(&bus, NOBODY, arguments).await;
        assert_eq!(ran.status, 0, "{arguments:?}: {}", ran.stderr);
    }
    let asked = fake.asked().len();
    for (arguments, action) in CHANGES {
        let ran = run(&bus, NOBODY, arguments).await;
        // Below that statuses belong to the command in the guest.
        let refused = if arguments[0] == "exec" { 125 } else { 1 };
        assert_eq!(ran.status, refused, "{arguments:?}: {}", ran.stdout);
        assert_eq!(
            ran.stderr,
            format!(
                "error: user `nobody` is not authorised for `{}`: polkit does not answer on this host, so only root \
                 may do it\n",
                action.id()
            ),
            "{arguments:?}"
        );
    }
    let asked_since = fake.asked().split_off(asked);
    assert!(
        // Whoever may not change a definition may still look at what would change.
        asked_since.iter().all(|(command, _)| matches!(
            command,
            Command::Adopt {
                mode: Mode::DryRun,
                ..
            }
        )),
        "what is refused never reaches the daemon: {asked_since:?}"
    );
    for (arguments, _) in CHANGES {
        let ran = run(&bus, 0, arguments).await;
        assert_eq!(ran.status, 0, "{arguments:?}: {}", ran.stderr);
    }
    let (_, caller) = fake.asked().pop().expect("something was asked");
    assert_eq!((caller.uid, caller.name.as_str()), (0, "root"));
    fake.stop().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_is_for_root_alone() {
    let bus = PrivateBus::start();
    let output = tokio::process::Command::new("dbus-send")
        .arg(format!("--bus={}", bus.address()))
        .args([
            "--print-reply",
            "--dest=org.freedesktop.DBus",
            "/org/freedesktop/DBus",
        ])
        .args([
            "org.freedesktop.DBus.RequestName",
            "string:org.virtpersona1",
            "uint32:4",
        ])
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .await
        .expect(
            "dbus-send, of the same package as dbus-daemon, run as another user, which needs root",
        );
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains("org.freedesktop.DBus.Error.AccessDenied"),
        "{error}"
    );
}

/// polkit on a bus, with our actions, one rule and nothing of the host's.
struct Polkit(tokio::process::Child);

impl Polkit {
    async fn start(bus: &PrivateBus, rule: &str) -> Self {
        let folder = bus.folder();
        let actions = folder.join("actions");
        let rules = folder.join("rules.d");
        for path in [&actions, &rules] {
            std::fs::create_dir(path).expect("a folder");
            std::fs::set_permissions(path, Permissions::from_mode(0o755)).expect("readable");
        }
        let policy = actions.join("org.virtpersona1.policy");
        std::fs::copy(repository("dbus/org.virtpersona1.policy"), &policy).expect("the policy");
        std::fs::write(rules.join("10-test.rules"), rule).expect("a rule");
        for file in [policy, rules.join("10-test.rules")] {
            std::fs::set_permissions(file, Permissions::from_mode(0o644)).expect("readable");
        }
        let client = bus.connect().await;
        let names = DBusProxy::new(&client).await.expect("the bus");
        let mut owners = names
            .receive_name_owner_changed_with_args(&[(0, "org.freedesktop.PolicyKit1")])
            .await
            .expect("a stream");
        // Its folders are fixed, so it gets a mount namespace in which they are ours.
        let script = format!(
            "mount --bind {0} /usr/share/polkit-1/actions && mount --bind {1} /usr/share/polkit-1/rules.d && \
             mount --bind {1} /etc/polkit-1/rules.d && exec /usr/lib/polkit-1/polkitd --no-debug",
            actions.display(),
            rules.display()
        );
        let mut child = tokio::process::Command::new("unshare")
            .args(["--mount", "sh", "-ec", &script])
            .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("unshare of util-linux");
        tokio::select! {
            owner = owners.next() => assert!(owner.is_some(), "the bus has ended"),
            end = child.wait() => panic!("polkitd did not start (is the package polkitd installed, is this root?): {end:?}"),
        }
        Self(child)
    }

    async fn stop(mut self) {
        self.0.kill().await.expect("its end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn polkit_decides_for_others_with_domain_and_persona_as_details() {
    let bus = PrivateBus::start_with(&[Path::new(
        "/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf",
    )]);
    let fake = Fake::start(&bus).await;
    let polkit = Polkit::start(
        &bus,
        r#"polkit.addRule(function(action, subject) {
    if (action.id == "org.virtpersona1.activate" && subject.user == "nobody"
        && action.lookup("domain") == "db" && action.lookup("persona") != "fails") {
        return polkit.Result.YES;
    }
    if (action.id == "org.virtpersona1.approve" && subject.user == "nobody"
        && action.lookup("domain") == "web" && action.lookup("persona") == "web-high"
        && action.lookup("rule") == "grow-cpu") {
        return polkit.Result.YES;
    }
    if (action.id == "org.virtpersona1.manage-personas" && action.lookup("tag") == "forbidden") {
        return polkit.Result.NO;
    }
});
"#,
    )
    .await;

    let allowed = run(&bus, NOBODY, &["apply", "db", "web-high"]).await;
    assert_eq!(allowed.status, 0, "{}", allowed.stderr);
    let (_, caller) = fake.asked().pop().expect("it was asked");
    assert_eq!((caller.uid, caller.name.as_str()), (NOBODY, "nobody"));

    let approved = run(&bus, NOBODY, &["approve", "3"]).await;
    assert_eq!(approved.status, 0, "{}", approved.stderr);

    for (arguments, reason) in [
        // Nobody is asked about what is not there, and so about nothing.
        (&["approve", "4"][..], "there is no proposal `4`"),
        (
            &["hold", "web", "1h"],
            "polkit asks for an administrator's password",
        ),
        (
            &["apply", "db", "fails"],
            "polkit asks for an administrator's password",
        ),
        (
            &["apply", "web", "web-high"],
            "polkit asks for an administrator's password",
        ),
        (
            &["map", "tag", "web-high"],
            "polkit asks for an administrator's password",
        ),
        (
            &["map", "forbidden", "web-high"],
            "polkit's rules do not allow it",
        ),
    ] {
        let asked = fake.asked().len();
        let ran = run(&bus, NOBODY, arguments).await;
        assert_eq!(ran.status, 1, "{arguments:?}");
        assert!(ran.stderr.contains(reason), "{arguments:?}: {}", ran.stderr);
        let asked_since: Vec<_> = fake.asked().split_off(asked);
        assert_eq!(asked_since, [], "{arguments:?}");
    }
    let root = run(&bus, 0, &["map", "forbidden", "web-high"]).await;
    assert_eq!(root.status, 0, "{}", root.stderr);

    polkit.stop().await;
    let after = run(&bus, NOBODY, &["apply", "db", "web-high"]).await;
    assert!(
        after.stderr.contains("polkit does not answer"),
        "{}",
        after.stderr
    );
    fake.stop().await.expect("an orderly end");
}

#[test]
fn the_policy_file_has_every_action_that_is_asked_for_and_no_other() {
    let policy =
        std::fs::read_to_string(repository("dbus/org.virtpersona1.policy")).expect("the policy");
    let mut found: Vec<&str> = policy
        .split("<action id=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    found.sort_unstable();
    let mut asked = Action::ALL.map(Action::id);
    asked.sort_unstable();
    assert_eq!(found, asked);
}
