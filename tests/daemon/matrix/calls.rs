//! The cells of what rules of the host have a guest do: a script and a feature, each stopped before and after every message of a call
//! and of its record, with the daemon, the connection or the agent ended there. The agent is the real program. Whatever ends where,
//! each is done once, or said to be interrupted, and recorded once.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use virt_persona::view::{ActivationState, AuditRecordView};

use crate::agent::Agent;
use crate::relay::{Message, Relay, Side};
use crate::stage::{Running, Stage};

const WEB: &str = "
[[domain]]
name = 'web'
memory_mib = 512
agent_channel = 'FOLDER/channel.sock'
";

/// Who ends where the channel has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Daemon,
    Connection,
    Agent,
}

const MESSAGES: [Message; 4] = [
    Message::Call,
    Message::Answer,
    Message::Record,
    Message::Seen,
];

/// One cell: its rule, and what the rule does.
struct Cell {
    rule: String,
    deed: String,
    message: Message,
    side: Side,
}

/// Each has a rule, a figure that fires it, and a file with a line for each time that it was done.
fn cells() -> Vec<Cell> {
    let sides = [Side::Before, Side::After];
    let points = MESSAGES
        .into_iter()
        .flat_map(|message| sides.map(|side| (message, side)));
    let both = points.flat_map(|point| ["run", "enable feature"].map(|deed| (point, deed)));
    both.enumerate()
        .map(|(number, ((message, side), deed))| Cell {
            rule: format!("r{number}"),
            deed: format!("{deed} r{number}"),
            message,
            side,
        })
        .collect()
}

/// That a rule reads the size of the memory makes it the host's.
fn document(guest: &Path, cells: &[Cell]) -> String {
    let (mut scripts, mut rules) = (String::new(), String::new());
    for Cell { rule, deed, .. } in cells {
        let done = guest.join(format!("{rule}.done"));
        let done = done.display();
        let _ = writeln!(scripts, "  {rule}: echo done >> {done}");
        let _ = writeln!(
            rules,
            "  - {{name: {rule}, when: memory.size > 1 MiB AND guest.app.{rule} > 0, then: {deed}}}"
        );
        let program = guest.join(format!("etc/virt-persona/features.d/{rule}"));
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        let text = format!(
            "#!/bin/sh\ncase $1 in\nstatus) [ -e {done} ];;\nenable) echo done >> {done};;\ndisable) rm {done};;\nesac\n"
        );
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    format!("name: front\nresponse_scripts:\n{scripts}adaptation_rules:\n{rules}")
}

fn tells_of(rule: &str) -> impl Fn(&AuditRecordView) -> bool {
    let text = format!("rule {rule} of the host was obeyed");
    move |record| record.text.contains(&text)
}

fn each_is_done_once_and_recorded_once(ends: Ends) {
    let stage = Stage::new(WEB);
    let guest = stage.path().join("guest");
    let cells = cells();
    let document = document(&guest, &cells);
    let mut agent = Agent::start(&guest);
    let relay = Relay::start(&stage.path().join("channel.sock"), Agent::socket(&guest));
    let mut daemon = stage.start();
    daemon.create(&document);
    daemon.apply("web", "front");
    daemon.wait_domain(stage.id("web"), "it is active", |domain| {
        domain.activation.state == ActivationState::Active
    });
    for cell in &cells {
        relay.stop_at(&cell.rule, cell.message, cell.side);
        agent.emit(&[&format!("{}=1", cell.rule)]);
        relay.wait_until_stopped();
        match ends {
            Ends::Daemon => {
                daemon.kill();
                relay.cut();
                daemon = stage.start();
            }
            Ends::Connection => {
                // Without a connection the host knows no figures, and a rule that it knows to hold again fires again.
                agent.emit(&[&format!("{}=0", cell.rule)]);
                relay.cut();
            }
            Ends::Agent => {
                drop(agent);
                relay.cut();
                agent = Agent::start(&guest);
            }
        }
        daemon.wait_record("it is recorded", tells_of(&cell.rule));
    }
    let complaints = complaints(&daemon, &guest, &cells);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

fn asks_of(rule: &str) -> impl Fn(&AuditRecordView) -> bool {
    let text = format!("rule {rule} asks for: ");
    move |record| record.kind == "decision" && record.text.starts_with(&text)
}

/// On a host so busy that a figure is out of date a rule may fire again, and that is a call of its own.
fn complaints(daemon: &Running, guest: &Path, cells: &[Cell]) -> Vec<String> {
    let mut complaints = Vec::new();
    for cell in cells {
        let Cell { rule, deed, .. } = cell;
        let count = |audit: &[AuditRecordView]| {
            let asked = audit.iter().filter(|of| asks_of(rule)(of)).count();
            (asked, audit.iter().filter(|of| tells_of(rule)(of)).count())
        };
        daemon.wait_record("each is told", |_| {
            let (asked, told) = count(&daemon.audit());
            told >= asked
        });
        let audit = daemon.audit();
        let (asked, told) = count(&audit);
        let records = audit.iter().filter(|of| tells_of(rule)(of));
        let cut = records.filter(|of| of.text.contains("interrupted")).count();
        let done = fs::read_to_string(guest.join(format!("{rule}.done")));
        let done = done.unwrap_or_default().lines().count();
        let right = if deed.starts_with("run") {
            (told - cut..=told).contains(&done)
        } else {
            // It is on already when it is asked for again.
            done == 1 || done == 0 && told == cut
        };
        if told != asked || !right {
            let place = format!("{deed}, {:?} {:?}", cell.side, cell.message);
            complaints.push(format!(
                "{place}: {asked} times asked, {told} told, {cut} cut off, {done} done"
            ));
        }
    }
    let audit = daemon.audit();
    let refused = audit.iter().filter(|of| of.kind == "refusal");
    complaints.extend(refused.map(|of| of.text.clone()));
    complaints
}

#[test]
fn what_a_guest_is_asked_for_is_done_once_wherever_the_daemon_is_killed() {
    each_is_done_once_and_recorded_once(Ends::Daemon);
}

#[test]
fn what_a_guest_is_asked_for_is_done_once_wherever_the_connection_is_lost() {
    each_is_done_once_and_recorded_once(Ends::Connection);
}

#[test]
fn what_a_guest_is_asked_for_is_done_once_wherever_the_agent_is_killed() {
    each_is_done_once_and_recorded_once(Ends::Agent);
}
