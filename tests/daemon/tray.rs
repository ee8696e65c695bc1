//! `virt-persona-tray`, the real program, with a real agent and the daemon, on a session's bus of its own with a real watcher:
//! the one of Ayatana's indicators, which needs no screen. It tells panels which items there are, and reads them itself.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::LazyLock;

use virt_persona::command::{Command, Reply};
use zbus::{Connection, OwnedObjectPath, OwnedVariant, Variant};

use crate::agent::built;
use crate::program::ended;
use crate::switching::{DAY, active, low, stage, start};

/// The program, as cargo or the variable names it.
static TRAY: LazyLock<PathBuf> =
    LazyLock::new(|| built("VIRT_PERSONA_TEST_TRAY", "virt-persona-tray"));

/// The package ayatana-indicator-application has it.
const WATCHER: &str =
    "/usr/libexec/ayatana-indicator-application/ayatana-indicator-application-service";

const ITEM: &str = "org.kde.StatusNotifierItem";
const MENU: &str = "com.canonical.dbusmenu";

/// An item of `GetApplications`: icon, position, address, path, and five texts, the last of which is the title.
type Shown = (
    String,
    i32,
    String,
    OwnedObjectPath,
    String,
    String,
    String,
    String,
    String,
    String,
);
/// A menu as `GetLayout` has it: number, properties, children.
type Layout = (
    i32,
    std::collections::HashMap<String, OwnedVariant>,
    Vec<OwnedVariant>,
);

/// A session of a desktop without a screen.
struct Session {
    bus: Child,
    address: String,
    directory: PathBuf,
    programs: Vec<Child>,
    connection: Connection,
    runtime: tokio::runtime::Runtime,
}

impl Session {
    fn start(directory: &Path) -> Self {
        let mut bus = std::process::Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address=1"])
            .arg(format!(
                "--address=unix:path={}",
                directory.join("session").display()
            ))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon; the package dbus-daemon (or dbus) has it");
        let mut line = String::new();
        BufReader::new(bus.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().to_owned();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let connection = runtime
            .block_on(zbus::connection::Builder::address(address.as_str()).build())
            .unwrap();
        Self {
            bus,
            address,
            directory: directory.to_owned(),
            programs: Vec::new(),
            connection,
            runtime,
        }
    }

    fn run(&mut self, program: &Path, arguments: &[&str]) {
        let child = std::process::Command::new(program)
            .args(arguments)
            .env_clear()
            .env("HOME", &self.directory)
            .env("XDG_RUNTIME_DIR", &self.directory)
            .env("DBUS_SESSION_BUS_ADDRESS", &self.address)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; `make setup` installs it", program.display())
            });
        self.programs.push(child);
    }

    fn call<B, R>(
        &self,
        name: &str,
        path: &str,
        interface: &str,
        member: &str,
        body: &B,
    ) -> zbus::Result<R>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
        R: serde::de::DeserializeOwned + zbus::zvariant::Type,
    {
        self.runtime.block_on(async {
            let answer = self
                .connection
                .call_method(Some(name), path, Some(interface), member, body)
                .await?;
            answer.body().deserialize::<R>()
        })
    }

    /// The title of the item as the watcher has read it, with the item's own address; nothing while there is none.
    fn shown(&self) -> Option<(String, String)> {
        let name = "org.ayatana.indicator.application";
        let path = "/org/ayatana/indicator/application/service";
        let interface = "org.ayatana.indicator.application.service";
        let (shown,): (Vec<Shown>,) = self
            .call(name, path, interface, "GetApplications", &())
            .ok()?;
        shown.into_iter().next().map(|item| (item.9, item.2))
    }

    /// What the item says of itself.
    fn property(&self, name: &str) -> String {
        let Some((_, item)) = self.shown() else {
            return String::new();
        };
        let path = "/StatusNotifierItem";
        let interface = "org.freedesktop.DBus.Properties";
        let value: OwnedVariant = self
            .call(&item, path, interface, "Get", &(ITEM, name))
            .unwrap();
        String::try_from(value).unwrap()
    }

    /// Opens the item's menu as a panel does, and reads it: a line for each entry, with its number.
    fn menu(&self) -> Vec<(i32, String)> {
        let Some((_, item)) = self.shown() else {
            return Vec::new();
        };
        let _: bool = self
            .call(&item, "/MenuBar", MENU, "AboutToShow", &0_i32)
            .unwrap();
        let properties: Vec<&str> = Vec::new();
        let (_, layout): (u32, Layout) = self
            .call(
                &item,
                "/MenuBar",
                MENU,
                "GetLayout",
                &(0_i32, -1_i32, properties),
            )
            .unwrap();
        let mut lines = Vec::new();
        entries(&layout, 0, &mut lines);
        lines
    }

    /// Clicks the entry of this label.
    fn click(&self, label: &str) {
        let menu = self.menu();
        let entry = menu.iter().find(|(_, line)| line.trim() == label);
        let (number, _) = entry.unwrap_or_else(|| panic!("no {label:?} in {menu:#?}"));
        let (_, item) = self.shown().unwrap();
        let event = (*number, "clicked", Variant::from(0_i32), 0_u32);
        self.call::<_, ()>(&item, "/MenuBar", MENU, "Event", &event)
            .unwrap();
    }

    fn waits(&self, what: &str, look: impl Fn() -> Option<String>) {
        let since = std::time::Instant::now();
        loop {
            let Some(seen) = look() else { return };
            assert!(
                since.elapsed() < HUNG,
                "{what} did not come about; last: {seen}"
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn sees_title(&self, title: &str) {
        self.waits(title, || {
            let shown = self.shown();
            let there = shown.as_ref().is_some_and(|(shown, _)| shown == title);
            (!there).then(|| format!("{shown:?}"))
        });
    }

    fn sees_in_menu(&self, words: &str) {
        self.waits(words, || {
            let menu = self.menu();
            let there = menu.iter().any(|(_, line)| line.contains(words));
            (!there).then(|| format!("{menu:#?}"))
        });
    }
}

/// A hung test shall end with a message; no test passes or fails by this time.
const HUNG: std::time::Duration = std::time::Duration::from_secs(120);

fn entries((number, properties, children): &Layout, depth: usize, lines: &mut Vec<(i32, String)>) {
    if let Some(label) = properties
        .get("label")
        .and_then(|label| String::try_from(label.clone()).ok())
    {
        lines.push((*number, format!("{}{label}", "  ".repeat(depth))));
    }
    for child in children {
        let child = Layout::try_from(child.clone()).unwrap();
        entries(&child, depth + 1, lines);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for child in self.programs.iter_mut().chain([&mut self.bus]) {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_panel_shows_the_persona_and_its_menu_switches_to_another() {
    let (stage, agent, root) = stage();
    let (daemon, web) = start(&stage, DAY);
    let mut session = Session::start(stage.path());
    // The session's tray may come later than the programs that begin with the session.
    session.run(&TRAY, &["--root", root.to_str().unwrap()]);
    session.run(Path::new(WATCHER), &[]);
    session.sees_title("Persona day");
    assert_eq!(session.property("Status"), "Active");
    session.sees_in_menu(
        "environment_variables.WHO: day -> night"
            .replace('_', "__")
            .as_str(),
    );
    let menu = session.menu();
    let text: Vec<&str> = menu.iter().map(|(_, line)| line.trim()).collect();
    assert!(text.contains(&"Batch work while nobody looks"), "{menu:#?}");
    assert!(!text.contains(&"Switch to huge"), "{menu:#?}");
    assert!(!format!("{menu:?}").contains("of-the-"), "{menu:#?}");

    session.click("Switch to night");
    active(&daemon, web, "night");
    session.sees_title("Persona night");
    session.sees_in_menu("night: active");
    assert!(agent.environment().unwrap().contains("night"));

    // A panel that is started anew finds the item again.
    let mut watcher = session.programs.pop().unwrap();
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    session.run(Path::new(WATCHER), &[]);
    session.sees_title("Persona night");

    session.click("Quit");
    let tray = session.programs.remove(0);
    assert!(ended_well(tray));
}

#[test]
fn a_choice_that_does_not_come_about_draws_the_eye_until_the_menu_is_opened() {
    let (stage, _agent, root) = stage();
    let (daemon, _) = start(&stage, &low());
    let mut session = Session::start(stage.path());
    session.run(Path::new(WATCHER), &[]);
    session.run(&TRAY, &["--root", root.to_str().unwrap()]);
    session.sees_title("Persona day");
    session.sees_in_menu("A person of the host has to approve it first.");
    session.click("Switch to night");
    session.sees_in_menu("night: waits for a person's word on the host, as proposal 1");
    let rejected = daemon.ask(Command::Reject { id: 1 });
    assert!(matches!(rejected, Ok(Reply::Proposal(_))), "{rejected:?}");
    session.waits("the item draws the eye", || {
        let status = session.property("Status");
        (status != "NeedsAttention").then_some(status)
    });
    session.sees_in_menu("night: failed");
    session.waits("it does no more", || {
        let status = session.property("Status");
        (status != "Active").then_some(status)
    });
}

fn ended_well(mut child: Child) -> bool {
    ended(&mut child).success()
}
