//! Rules that rest on more than the catalogue's metrics: on what an application claims, and on events. A tick a second,
//! and a machine that follows every step at once.
// A test says what went wrong by panicking; clippy's exception for tests does not reach their helper functions.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::time::Duration;

use persona::domain::DomainId;
use persona::rule::Resource;
use persona::signal::{Event, EventKind, Metric, Named, Reading, Signals, Source};
use persona::units::{Bytes, Moment};
use persona::{Format, Persona, SourceText};
use planner::report::{Idle, Reason, Verdict};
use planner::snapshot::{Ability, Domain, Host, Knobs, Memory, Run, Strain, Vcpus};
use planner::{Edge, Ending, Plan, Policy, Snapshot, State, plan};

const ID: DomainId = DomainId([1; 16]);

/// A machine of four vCPUs that idles.
struct Machine {
    vcpus: u32,
    run: Run,
    now: Moment,
    /// What the application emits under the one name that is used here.
    orders: Option<f64>,
    happened: Vec<(EventKind, Moment)>,
}

impl Signals for Machine {
    fn reading(&self, metric: Metric) -> Option<Reading> {
        (metric == Metric::CpuUtilization).then(|| reading(5.0, Source::Host, self.now))
    }

    fn named(&self, named: &Named) -> Option<Reading> {
        assert_eq!(named.as_str(), "guest.app.orders");
        self.orders
            .map(|value| reading(value, Source::Agent, self.now))
    }

    fn happened(&self, event: &Event) -> Option<Moment> {
        let found = self.happened.iter().find(|(kind, _)| *kind == event.kind);
        found.map(|(_, at)| *at)
    }
}

fn reading(value: f64, source: Source, at: Moment) -> Reading {
    Reading {
        value,
        source,
        at,
        period: Duration::from_secs(1),
    }
}

fn persona(rules: &str) -> Persona {
    let text = format!(
        "name: test\nbase_configuration:\n  cpu: {{min: 1, max: 8}}\nadaptation_rules:\n{rules}"
    );
    let source = SourceText {
        name: "test.yaml",
        text: text.as_bytes(),
        format: Format::Yaml,
        persona_name: None,
    };
    let loaded = persona::load(&source).unwrap_or_else(|problems| panic!("{problems}"));
    loaded.persona
}

/// Ticks so many seconds; the plans of all of them.
fn run(machine: &mut Machine, persona: &Persona, state: &mut State, seconds: u32) -> Vec<Plan> {
    let policy = Policy::default();
    let mut plans = Vec::new();
    for _ in 0..seconds {
        machine.now = machine.now.after(Duration::from_secs(1));
        let memory = Bytes::from_mib(1024);
        let host = Host { vcpus: 8, memory };
        let made = {
            let domain = Domain {
                id: ID,
                name: "test",
                persona: Some(persona),
                run: machine.run,
                instance: Some(1),
                vcpus: Vcpus {
                    maximum: 8,
                    fixed: 1,
                    plugged: machine.vcpus,
                    online: Some(machine.vcpus),
                    weight: 1,
                    ability: Ability::Both,
                },
                memory: Memory {
                    boot: memory,
                    requested: memory,
                    plugged: memory,
                    maximum: memory,
                    minimum: memory,
                    block: Bytes::from_mib(2),
                    means: planner::Means::Usual,
                    balloon: None,
                    dimm: None,
                    ability: Ability::NoMemoryDevice,
                },
                knobs: Knobs::default(),
                signals: machine,
                shifted_by: None,
                adjusted_by: &[],
            };
            let snapshot = Snapshot {
                host,
                strain: Strain::default(),
                domains: vec![domain],
            };
            plan(&snapshot, state, &policy, machine.now)
        };
        for step in &made.steps {
            machine.vcpus = u32::try_from(step.to).unwrap();
            state.begin(step, machine.now);
            state.finish(step, Ending::Applied, Some(step.to), &policy, machine.now);
        }
        plans.push(made);
    }
    plans
}

fn machine() -> Machine {
    Machine {
        vcpus: 4,
        run: Run::Running,
        now: Moment(1_000_000),
        orders: None,
        happened: Vec::new(),
    }
}

#[test]
fn what_an_application_claims_makes_a_machine_grow() {
    let persona = persona("  - IF guest.app.orders > 100 FOR 3s THEN add 1 vcpus COOLDOWN 1h\n");
    let (mut machine, mut state) = (machine(), State::default());
    let _ = run(&mut machine, &persona, &mut state, 10);
    assert_eq!(machine.vcpus, 4, "unknown is not true");
    machine.orders = Some(500.0);
    let _ = run(&mut machine, &persona, &mut state, 10);
    assert_eq!(machine.vcpus, 5);
}

#[test]
fn a_growth_rule_that_is_unknown_keeps_what_a_removal_would_change_and_nothing_else() {
    for (growth, left) in [
        // Nobody emits orders, and a vCPU less makes neither more nor fewer of them.
        ("guest.app.orders > 100", 1),
        ("EVENT(guest.oom) AND guest.app.orders > 100", 1),
        // The load does change with the vCPUs, and nobody says what it is.
        ("guest.load > 3", 4),
        ("guest.app.orders > 100 OR guest.load > 3", 4),
    ] {
        let persona = persona(&format!(
            "  - IF cpu.utilization < 20% FOR 2s THEN remove 1 vcpus COOLDOWN 1s\n  - IF {growth} THEN set vcpus to 8\n"
        ));
        let (mut machine, mut state) = (machine(), State::default());
        let plans = run(&mut machine, &persona, &mut state, 60);
        assert_eq!(machine.vcpus, left, "{growth}");
        let held = plans.iter().flat_map(|plan| &plan.reports[0].resources);
        let mut held = held.filter(|line| line.resource == Resource::Vcpus);
        let judged = held.any(|line| line.verdict == Verdict::No(Reason::CannotJudge));
        assert_eq!(judged, left == 4, "{growth}");
    }
}

#[test]
fn an_event_calls_once_and_is_over_after_a_while() {
    let persona = persona("  - IF EVENT(agent.lost) THEN notify \"gone\"\n");
    let (mut machine, mut state) = (machine(), State::default());
    let calls = |plans: &[Plan]| plans.iter().map(|plan| plan.calls.len()).sum::<usize>();
    assert_eq!(calls(&run(&mut machine, &persona, &mut state, 10)), 0);
    machine.happened.push((EventKind::AgentLost, machine.now));
    assert_eq!(calls(&run(&mut machine, &persona, &mut state, 100)), 1);
    machine.happened[0].1 = machine.now;
    assert_eq!(calls(&run(&mut machine, &persona, &mut state, 5)), 1);
}

#[test]
fn an_event_that_one_version_heard_of_is_none_for_the_next_and_none_is_lost_between_them() {
    let rule = "  - IF EVENT(agent.lost) THEN notify \"gone\"\n";
    let versions = [persona(rule), persona(&rule.replace("gone", "lost"))];
    let calls = |plans: &[Plan]| plans.iter().map(|plan| plan.calls.len()).sum::<usize>();
    let (mut machine, mut state) = (machine(), State::default());
    // The first persona of a machine hears of what has just happened.
    machine.happened.push((EventKind::AgentLost, machine.now));
    assert_eq!(calls(&run(&mut machine, &versions[0], &mut state, 5)), 1);
    // The next version does not hear of it again, nor does the one before when it is back.
    assert_eq!(calls(&run(&mut machine, &versions[1], &mut state, 5)), 0);
    assert_eq!(calls(&run(&mut machine, &versions[0], &mut state, 5)), 0);
    // What happens after the last look of one version is for the next.
    machine.happened[0].1 = machine.now.after(Duration::from_millis(500));
    assert_eq!(calls(&run(&mut machine, &versions[1], &mut state, 60)), 1);
    // The same version, activated again, has heard of it.
    assert_eq!(calls(&run(&mut machine, &versions[1], &mut state, 5)), 0);
}

#[test]
fn what_a_pause_calls_for_is_called_for_while_the_machine_is_left_alone() {
    let persona = persona("  - IF EVENT(domain.paused) THEN notify \"paused\", add 1 vcpus\n");
    let (mut machine, mut state) = (machine(), State::default());
    machine.run = Run::Paused;
    machine
        .happened
        .push((EventKind::DomainPaused, machine.now));
    let plans = run(&mut machine, &persona, &mut state, 10);
    let calls: Vec<_> = plans.iter().flat_map(|plan| &plan.calls).collect();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].edge, Edge::Begins);
    assert_eq!(
        (machine.vcpus, plans[0].reports[0].idle),
        (4, Some(Idle::Paused))
    );
}

/// As the store of a daemon that ends and starts anew has it.
fn restarted(state: &State, machine: &Machine) -> State {
    let text = serde_json::to_string(state).unwrap();
    let mut state: State = serde_json::from_str(&text).unwrap();
    state.resume(&Policy::default(), machine.now);
    state
}

#[test]
fn what_was_called_for_is_not_called_for_again_after_a_restart_unless_it_was_over_in_between() {
    let persona = persona(
        "  - IF guest.app.orders > 100 FOR 5s THEN run drain, enable feature cache UNTIL guest.app.orders < 10\nresponse_scripts: {drain: 'true'}\n",
    );
    let edges = |plans: &[Plan]| {
        let calls = plans.iter().flat_map(|plan| &plan.calls);
        calls.map(|call| call.edge).collect::<Vec<_>>()
    };
    let (mut machine, mut state) = (machine(), State::default());
    machine.orders = Some(500.0);
    let plans = run(&mut machine, &persona, &mut state, 10);
    assert_eq!(edges(&plans), [Edge::Begins, Edge::Begins]);
    assert!(plans.iter().any(|plan| plan.noted == [ID]), "it is stored");
    // The windows begin anew, and nothing is known at first.
    let mut state = restarted(&state, &machine);
    machine.orders = None;
    assert_eq!(edges(&run(&mut machine, &persona, &mut state, 3)), []);
    machine.orders = Some(500.0);
    assert_eq!(edges(&run(&mut machine, &persona, &mut state, 20)), []);
    // What ends it is watched on.
    let mut state = restarted(&state, &machine);
    machine.orders = Some(1.0);
    let plans = run(&mut machine, &persona, &mut state, 3);
    assert_eq!(edges(&plans), [Edge::Ends]);
    // It was over when the daemon was back, and comes once more.
    machine.orders = Some(500.0);
    assert_eq!(edges(&run(&mut machine, &persona, &mut state, 10)).len(), 2);
    let mut state = restarted(&state, &machine);
    machine.orders = Some(50.0);
    assert_eq!(edges(&run(&mut machine, &persona, &mut state, 3)), []);
    machine.orders = Some(500.0);
    assert_eq!(edges(&run(&mut machine, &persona, &mut state, 10)).len(), 2);
}

#[test]
fn of_what_was_called_for_only_what_waits_for_its_turn_is_called_for_again_after_a_restart() {
    let persona = persona(
        "  - IF guest.app.orders > 100 FOR 5s THEN run drain, enable feature cache, apply environment_variables.TIER = busy UNTIL guest.app.orders < 10\nresponse_scripts: {drain: 'true'}\n",
    );
    let calls = |plans: &[Plan]| {
        let calls = plans.iter().flat_map(|plan| &plan.calls);
        calls
            .map(|call| (call.action.to_string(), call.edge))
            .collect::<Vec<_>>()
    };
    let named = |names: &[&str], edge| -> Vec<_> {
        names
            .iter()
            .map(|name| ((*name).to_owned(), edge))
            .collect()
    };
    let (run_drain, cache) = ("run drain", "enable feature cache");
    let apply = "apply environment_variables.TIER = \"busy\"";
    let (mut machine, mut state) = (machine(), State::default());
    machine.orders = Some(500.0);
    let begun = calls(&run(&mut machine, &persona, &mut state, 10));
    assert_eq!(begun, named(&[run_drain, cache, apply], Edge::Begins));
    // It is called for when it is known that the condition holds still, and once.
    let mut state = restarted(&state, &machine);
    machine.orders = None;
    assert_eq!(calls(&run(&mut machine, &persona, &mut state, 3)), []);
    machine.orders = Some(500.0);
    let again = calls(&run(&mut machine, &persona, &mut state, 20));
    assert_eq!(again, named(&[apply], Edge::Begins));
    // What was switched goes back, also where nothing held when the daemon came.
    let mut state = restarted(&state, &machine);
    machine.orders = Some(50.0);
    assert_eq!(calls(&run(&mut machine, &persona, &mut state, 3)), []);
    machine.orders = Some(1.0);
    let ended = calls(&run(&mut machine, &persona, &mut state, 3));
    assert_eq!(ended, named(&[cache, apply], Edge::Ends));
}
