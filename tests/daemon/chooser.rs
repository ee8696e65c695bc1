//! `virt-persona-switch`, the real program, with a real agent and the daemon: on a terminal of the kind that a serial console
//! has, and in scripts. What the daemon makes of the questions is in `switching`.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use crate::agent::built;
use crate::program::ended;
use crate::switching::{DAY, active, low, stage, start};

/// The program, as cargo or the variable names it.
static SWITCH: LazyLock<PathBuf> =
    LazyLock::new(|| built("VIRT_PERSONA_TEST_SWITCH", "virt-persona-switch"));

/// A hung test shall end with a message; no test passes or fails by this time.
const HUNG: Duration = Duration::from_secs(120);

/// More than any screen of these tests.
const COLUMNS: usize = 132;
const ROWS: usize = 50;

/// What a terminal shows: places, characters, and what is cleared. Everything else a serial console does not know either.
struct Screen {
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// Bytes of an escape sequence that has not ended.
    pending: String,
}

impl Screen {
    fn new() -> Self {
        Self {
            cells: vec![vec![' '; COLUMNS]; ROWS],
            row: 0,
            column: 0,
            pending: String::new(),
        }
    }

    fn take(&mut self, text: &str) {
        for character in text.chars() {
            if !self.pending.is_empty() {
                self.escape(character);
                continue;
            }
            match character {
                '\u{1b}' => self.pending.push(character),
                '\r' => self.column = 0,
                '\n' => self.row = (self.row + 1).min(ROWS - 1),
                other if other.is_control() => {}
                other => {
                    assert!(other.is_ascii(), "{other:?} is nothing for this terminal");
                    self.cells[self.row][self.column.min(COLUMNS - 1)] = other;
                    self.column += 1;
                }
            }
        }
    }

    fn escape(&mut self, character: char) {
        self.pending.push(character);
        if self.pending.len() == 2 {
            if character != '[' {
                self.pending.clear();
            }
            return;
        }
        if !character.is_ascii_alphabetic() {
            return;
        }
        let sequence = std::mem::take(&mut self.pending);
        let numbers = &sequence[2..sequence.len() - 1];
        match character {
            'H' => {
                let mut numbers = numbers.split(';').map(|text| text.parse().unwrap_or(1));
                self.row = numbers.next().unwrap_or(1).clamp(1, ROWS) - 1;
                self.column = numbers.next().unwrap_or(1).clamp(1, COLUMNS) - 1;
            }
            'J' => self.cells = vec![vec![' '; COLUMNS]; ROWS],
            // No colours are needed: only these are set, and none of them is one.
            'm' => assert!(
                matches!(
                    numbers,
                    "" | "0" | "1" | "7" | "22" | "27" | "39" | "49" | "59" | "39;49"
                ),
                "{sequence:?}"
            ),
            _ => {}
        }
    }

    fn row(&self, row: usize) -> String {
        self.cells[row].iter().collect()
    }

    fn text(&self) -> String {
        (0..ROWS).map(|row| self.row(row) + "\n").collect()
    }
}

/// The program on a terminal that names no size, as on a serial line.
struct Session {
    child: Child,
    keys: ChildStdin,
    output: Receiver<String>,
    screen: Screen,
    whole: String,
}

impl Session {
    fn start(root: &Path) -> Self {
        let mut child = Command::new("script")
            .args([
                "-qefc",
                "tty >\"$ROOT/tty\"; exec \"$SWITCH\" --root \"$ROOT\"",
                "/dev/null",
            ])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("SHELL", "/bin/sh")
            .env("TERM", "vt100")
            .env("LANG", "C")
            .env("SWITCH", &*SWITCH)
            .env("ROOT", root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script, of util-linux, makes the terminal");
        let mut stdout = child.stdout.take().unwrap();
        let (sender, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut buffer) {
                // Everything is ASCII, as the screen checks.
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if sender.send(text).is_err() {
                    break;
                }
            }
        });
        Self {
            keys: child.stdin.take().unwrap(),
            child,
            output,
            screen: Screen::new(),
            whole: String::new(),
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen is as it shall be.
    #[track_caller]
    fn wait(&mut self, what: &str, good: impl Fn(&Screen) -> bool) {
        let began = Instant::now();
        while !good(&self.screen) {
            assert!(
                began.elapsed() < HUNG,
                "it is never seen that {what}:\n{}",
                self.screen.text()
            );
            if let Ok(text) = self.output.recv_timeout(Duration::from_millis(100)) {
                self.screen.take(&text);
                self.whole.push_str(&text);
            }
        }
    }

    #[track_caller]
    fn sees(&mut self, words: &str) {
        let shown = words.to_owned();
        self.wait(words, move |screen| screen.text().contains(&shown));
    }

    /// All that is still said, and the exit status.
    fn end(mut self) -> (String, Option<i32>) {
        let status = ended(&mut self.child);
        while let Ok(text) = self.output.recv() {
            self.whole.push_str(&text);
        }
        (self.whole, status.code())
    }
}

fn run(root: &Path, arguments: &[&str]) -> Output {
    Command::new(&*SWITCH)
        .args(arguments)
        .arg("--root")
        .arg(root)
        .env("LANG", "C")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[track_caller]
fn said(output: &Output, status: i32) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(output.status.code(), Some(status), "{text}");
    text
}

#[test]
fn on_a_serial_console_a_user_chooses_confirms_and_sees_the_end() {
    let (stage, agent, root) = stage();
    let (daemon, web) = start(
        &stage,
        "name: day\nallowed_switches: [huge, night]\nenvironment_variables: {WHO: day}\n",
    );
    let mut session = Session::start(&root);
    session.sees("> huge");
    session.sees("It cannot be chosen now");
    // It cannot be: nothing is asked.
    session.press("\r");
    session.press("\u{1b}[B");
    session.sees("> night");
    session.sees("environment_variables.WHO: day -> night");
    // 80 by 24, since the line names no size.
    let row = session.screen.row(23);
    assert!(row.starts_with("Up/Down: choose"), "{row}");
    session.press("\r");
    session.sees("Switch to persona night?");
    session.press("y");
    session.sees("night: active");
    session.sees("Done");
    active(&daemon, web, "night");
    assert!(agent.environment().unwrap().contains("night"));

    // The terminal becomes larger while the program runs.
    let tty = fs::read_to_string(root.join("tty")).unwrap();
    let resized = Command::new("stty")
        .args(["-F", tty.trim(), "rows", "30", "cols", "100"])
        .status()
        .unwrap();
    assert!(resized.success());
    session.wait("the keys are on the last row", |screen| {
        screen.row(29).starts_with("Enter: back")
    });
    session.press("\r");
    session.sees("Persona now: night");
    session.sees("> day");
    session.press("q");
    let (whole, status) = session.end();
    assert_eq!(status, Some(0));
    // The cursor and the screen of before are back.
    let restored = whole.rfind("\u{1b}[?25h").max(whole.rfind("\u{1b}[?1049l"));
    assert!(restored > whole.rfind("Persona now"), "{whole:?}");
}

#[test]
fn scripts_list_ask_and_are_told_by_the_exit_status() {
    let (stage, _agent, root) = stage();
    let (daemon, web) = start(&stage, DAY);
    let list = said(&run(&root, &[]), 0);
    assert!(
        list.contains("persona day\n") && list.contains("night: Batch work while nobody looks"),
        "{list}"
    );
    let json = said(&run(&root, &["--list", "--json"]), 0);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["offers"][2]["persona"], "night");
    let status = said(&run(&root, &["--status"]), 0);
    assert_eq!(status, "persona day; the host can be asked for another\n");
    let refused = said(&run(&root, &["--to", "other"]), 1);
    assert!(refused.contains("does not let users"), "{refused}");
    let failed = said(&run(&root, &["--to", "broken", "--wait"]), 1);
    assert!(failed.contains("failed"), "{failed}");
    let done = said(&run(&root, &["--to", "night", "--wait"]), 0);
    assert!(done.ends_with("night: active\n"), "{done}");
    active(&daemon, web, "night");
    said(&run(&root, &["--dance"]), 2);
    said(&run(&root.join("nowhere"), &["--list"]), 3);
}

#[test]
fn what_waits_for_a_person_has_an_exit_status_of_its_own() {
    let (stage, _agent, root) = stage();
    let (_daemon, _) = start(&stage, &low());
    let waits = said(&run(&root, &["--to", "night"]), 4);
    assert!(waits.contains("as proposal 1, for 60 min"), "{waits}");
}

#[test]
fn members_of_the_group_may_ask_and_the_audit_names_them() {
    let (stage, _agent, root) = stage();
    let (daemon, _) = start(&stage, DAY);
    for path in [stage.path(), &root] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nada:x:61000:61000::/:/bin/sh\neve:x:61001:61001::/:/bin/sh\n",
    )
    .unwrap();
    fs::write(
        root.join("etc/group"),
        "root:x:0:\nvirt-persona:x:60999:ada\n",
    )
    .unwrap();
    // Where cargo puts programs may not be for everybody. A copy by another process: nobody can run a program that a child of
    // this one still has open for writing.
    let program = root.join("switch");
    let copied = Command::new("cp").arg(&*SWITCH).arg(&program).status();
    assert!(copied.unwrap().success());
    let as_user = |uid: u32, arguments: &[&str]| {
        Command::new(&program)
            .args(arguments)
            .arg("--root")
            .arg(&root)
            .uid(uid)
            .gid(uid)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let refused = said(&as_user(61_001, &["--list"]), 1);
    assert!(refused.contains("group `virt-persona`"), "{refused}");
    said(&as_user(61_001, &["--status"]), 0);
    said(&as_user(61_000, &["--to", "night", "--wait"]), 0);
    let told = daemon.told("binding").join("\n");
    assert!(
        told.contains("the guest's user ada (uid 61000) switched to persona night"),
        "{told}"
    );
}
