//! Every fault with every action: nothing is lost, nothing is claimed that was not so, the machine gets where its persona
//! wants it once the fault is over, also with the daemon killed in the middle, and another domain does not notice.
//!
//! One world has one domain for each action and one that nothing is wrong with; each fault has a world, and another in
//! which the daemon is killed too. What the tables below do not name does not compile.
mod action;
mod calls;
mod person;
mod world;
mod wrong;

use std::fmt::Write as _;
use std::time::Duration;

use persona::PersonaName;
use persona::rule::{self, Limit, MemoryAmount, Performed};
use persona::units::Bytes;
use virt_persona::hypervisor::simulated::{Conduct, Fault, Scenario};

use self::action::{ACTIONS, action_of, actions_of};
use self::world::World;
use self::wrong::{PLACES, Wrong, place_of, wrongs};
use crate::paused::on_a_paused_clock;

/// A message through a socket takes no longer than this.
const BEAT: Duration = Duration::from_millis(50);

/// Runs the worlds of some faults and shows what came of them.
#[allow(
    clippy::print_stdout,
    reason = "the table is for whoever asks for it with --nocapture"
)]
fn matrix(chosen: impl Fn(&Wrong) -> bool, killed: bool) {
    let mut table = String::new();
    let mut complaints = Vec::new();
    let mut cells = 0;
    let chosen: Vec<Wrong> = wrongs()
        .into_iter()
        .filter(|wrong| chosen(wrong) && (!killed || wrong.is_tried_with_a_kill()))
        .collect();
    let _ = write!(
        table,
        "{:<30}",
        if killed { "with the daemon killed" } else { "" }
    );
    for action in ACTIONS {
        let _ = write!(table, " {:>13.13}", action.name());
    }
    for wrong in &chosen {
        let began = std::time::Instant::now();
        let world = World::new(wrong.clone(), killed);
        let (wrong, row, complained) = on_a_paused_clock(BEAT, async { world.await.run().await });
        let _ = write!(table, "\n{:<30}", wrong.name());
        for action in ACTIONS {
            // A cell that is not there is a failure of its own.
            let Some(cell) = row.get(&action) else {
                complaints.push(format!("{}: no cell for {action:?}", wrong.name()));
                continue;
            };
            cells += 1;
            let after = cell
                .after
                .map_or_else(|| "NEVER".into(), |after| format!("{}s", after.as_secs()));
            let [applied, partial, refused, unknown] = cell.endings;
            let mark = if cell.quarantined { "q" } else { "" };
            let _ = write!(
                table,
                " {:>13}",
                format!("{after}{mark} {applied}/{partial}/{refused}/{unknown}")
            );
        }
        let _ = write!(table, "  {:.1}s", began.elapsed().as_secs_f64());
        complaints.extend(complained);
    }
    // Shown with --nocapture, and with what it took at the end of each row: seconds from the end of the fault until all is well, q for a quarantine, and how the steps
    // ended: applied/partial/refused/unknown.
    println!("{table}\n{cells} cells");
    assert_eq!(cells, chosen.len() * ACTIONS.len());
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

fn is_of_a_call(wrong: &Wrong) -> bool {
    !matches!(wrong, Wrong::Guest(_))
}

fn is_of_a_guest(wrong: &Wrong) -> bool {
    !is_of_a_call(wrong)
}

#[test]
fn the_matrix_has_every_fault_and_every_action() {
    let places: Vec<usize> = wrongs().iter().map(place_of).collect();
    assert_eq!(places, (0..PLACES).collect::<Vec<_>>());
    for action in ACTIONS {
        let (first, more) = actions_of(action.call());
        assert!(action == first || more.contains(&action), "{action:?}");
    }
}

#[test]
fn what_rules_say_and_this_version_does_is_in_the_matrix() {
    let size = Bytes::from_mib(1);
    let night = "night".parse::<PersonaName>().unwrap();
    // All that is performed and more than recorded.
    let performed = [
        rule::Action::SetVcpus(1),
        rule::Action::AddVcpus(1),
        rule::Action::RemoveVcpus(1),
        rule::Action::SetMemory(size),
        rule::Action::AddMemory(MemoryAmount::Size(size)),
        rule::Action::RemoveMemory(MemoryAmount::Size(size)),
        rule::Action::SetLimit(Limit::DiskIops(1.0)),
        rule::Action::ActivatePersona(night),
        rule::Action::Revert,
    ];
    for word in performed {
        assert_eq!(word.performed(), Performed::Here, "{word}");
        assert!(action_of(&word).is_some(), "{word}");
    }
    // What the guest's agent does and tells by itself: its cells are in `calls`, and faults of the agent's own disk in
    // `guest-agent/tests/rules.rs`.
    for word in [
        rule::Action::EnableFeature("f".into()),
        rule::Action::DisableFeature("f".into()),
        rule::Action::Run("s".into()),
    ] {
        assert_eq!(word.performed(), Performed::Here, "{word}");
    }
    // What becomes an activation of the same persona; its faults are those of activations, and in `adjust`.
    for word in [
        rule::Action::Apply {
            key: "os_settings.theme".into(),
            value: "dark".into(),
        },
        rule::Action::InstallPackage("p".into()),
        rule::Action::RemovePackage("p".into()),
    ] {
        assert_eq!(word.performed(), Performed::Here, "{word}");
    }
    // What begins to be performed needs actions of its own.
    for word in [
        rule::Action::Isolate,
        rule::Action::Restore,
        rule::Action::CallWebhook("w".into()),
    ] {
        let performed = word.performed() == Performed::Here;
        assert_eq!(performed, action_of(&word).is_some(), "{word}");
    }
}

#[test]
fn every_action_survives_every_fault_of_its_call() {
    matrix(is_of_a_call, false);
}

#[test]
fn every_action_survives_every_fault_of_its_call_and_a_kill_of_the_daemon() {
    matrix(is_of_a_call, true);
}

#[test]
fn every_action_survives_every_misconduct_of_its_guest() {
    matrix(is_of_a_guest, false);
}

#[test]
fn every_action_survives_every_misconduct_of_its_guest_and_a_kill_of_the_daemon() {
    matrix(is_of_a_guest, true);
}

#[test]
fn the_documented_scenario_is_understood() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/testing.md");
    let text = std::fs::read_to_string(path).unwrap();
    let block = text
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let scenario = Scenario::parse(block.unwrap()).unwrap();
    let web = &scenario.domains[0];
    assert_eq!(web.spells[0].conduct, Conduct::ClaimsAllMemoryUsed);
    assert_eq!(web.faults[0].fault, Fault::AnswerLost);
    assert!(web.load.cpu.is_some() && web.load.memory.is_some());
}
