//! Rule texts: what they mean, in canonical form, and what is said of those that mean nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use persona::rule::{Condition, Direction, MemoryAmount, Resource, Rule};
use persona::{Bytes, Metric, Signal};

/// The canonical text of a rule, or the messages.
fn check(text: &str, expected: &str) {
    let found = match Rule::parse("test", text) {
        Ok(rule) => rule.text,
        Err(problems) => problems
            .iter()
            .map(|problem| problem.message.as_str())
            .collect::<Vec<_>>()
            .join("; "),
    };
    assert_eq!(found, expected, "{text}");
}

#[test]
fn clauses_come_in_any_order_and_any_case() {
    let canonical = "IF cpu.utilization > 80% FOR 5m THEN add 2 vcpus UNTIL cpu.utilization < 30% COOLDOWN 2m PRIORITY -5";
    check(canonical, canonical);
    check(
        "if CPU.Utilization > 80 percent for 300 seconds then ADD 2 cores priority -5 until cpu.utilization<30% cooldown 2 min.",
        canonical,
    );
}

#[test]
fn spoken_actions_are_the_written_ones() {
    let check_action = |spoken: &str, written: &str| {
        check(
            &format!("IF cpu.utilization > 1% THEN {spoken}"),
            &format!("IF cpu.utilization > 1% THEN {written} COOLDOWN 1m PRIORITY 0"),
        );
    };
    check_action("Scale up to 16 cores", "set vcpus to 16");
    check_action("scale down to 2 GiB of memory", "set memory to 2 GiB");
    check_action("increase allocated cores", "add 1 vcpus");
    check_action("decrease allocated cores by 2", "remove 2 vcpus");
    check_action("increase memory by 25%", "add 25% memory");
    check_action("increase memory to 4 GiB", "set memory to 4 GiB");
    check_action("shrink memory by 512 MiB", "remove 512 MiB memory");
    check_action("add 128 MiB", "add 128 MiB memory");
    check_action(
        "set cores to 4, notify 'a \"b\" c'",
        "set vcpus to 4, notify \"a \\\"b\\\" c\"",
    );
}

#[test]
fn operators_bind_as_in_arithmetic_and_logic() {
    let check_condition = |text: &str, canonical: &str| {
        assert_eq!(Condition::parse(text).unwrap().text(), canonical, "{text}");
    };
    check_condition(
        "guest.load > 1 OR guest.load > 2 AND guest.load > 3",
        "guest.load > 1 OR guest.load > 2 AND guest.load > 3",
    );
    check_condition(
        "(guest.load > 1 OR guest.load > 2) AND guest.load > 3",
        "(guest.load > 1 OR guest.load > 2) AND guest.load > 3",
    );
    check_condition("((guest.load)) > (1)", "guest.load > 1");
    check_condition(
        "guest.load - (vcpu.count - 1) > 0",
        "guest.load - (vcpu.count - 1) > 0",
    );
    check_condition(
        "(guest.load - vcpu.count) - 1 > 0",
        "guest.load - vcpu.count - 1 > 0",
    );
    check_condition(
        "guest.load > 2 * (vcpu.count + 1)",
        "guest.load > 2 * (vcpu.count + 1)",
    );
    check_condition("NOT guest.load > 1 FOR 5s", "NOT guest.load > 1 FOR 5s");
    check_condition("(NOT guest.load > 1) FOR 5s", "(NOT guest.load > 1) FOR 5s");
    check_condition("guest.load > -1", "guest.load > -1");
    check_condition(
        "memory.available / memory.size < 0.1",
        "memory.available / memory.size < 0.1",
    );
}

#[test]
fn what_a_rule_cannot_say_is_refused() {
    check("", "expected a metric or a number, but the rule ends here");
    check(
        "IF cpu.utilization > 80%",
        "expected THEN and an action, or AND, OR, FOR, but the rule ends here",
    );
    check(
        "IF cpu.utilization > 80% THEN explode",
        "there is no action `explode`",
    );
    check(
        "IF cpu.utilization THEN add 1 vcpus",
        "expected a comparison (<, <=, >, >=, ==, != or BETWEEN), found `THEN`",
    );
    check(
        "IF NOT NOT guest.load > 1 THEN add 1 vcpus",
        "expected a metric or a number, found `NOT`",
    );
    check(
        "IF guest.load > 1 && guest.load > 2 THEN add 1 vcpus",
        "expected THEN and an action, or AND, OR, FOR, found `&&`",
    );
    check(
        "IF guest.load > 1e9 THEN add 1 vcpus",
        "`1e9` has an exponent; write the number out, with a larger unit where it is long",
    );
    check(
        "IF guest.load > 1 FOR 0s THEN add 1 vcpus",
        "a FOR window of 0s is out of range; it is 1ms to 30d",
    );
    check(
        "IF guest.load > 1 THEN add 1.5 vcpus",
        "`1.5 vcpus` is out of range; vCPUs are a whole number from 1 to 4096",
    );
    check(
        "IF guest.load > 1 THEN remove 100% memory",
        "100% is out of range; a change of memory is above 0% and at most 99%",
    );
    check(
        "IF guest.load > 1 THEN increase memory",
        "`increase memory` does not say by how much",
    );
    check(
        "IF guest.load > 1 THEN add 2000 TiB memory",
        "`2000 TiB` is out of range; memory is 1 MiB to 1024 TiB",
    );
    check(
        "IF guest.load > 1 THEN notify \"\"",
        "a notice is one line of 1 to 256 bytes",
    );
    check(
        "IF guest.load > 1 THEN install package nginx",
        "this version does not perform `install package nginx`",
    );
    check(
        "IF guest.load > 1 THEN remove package nginx",
        "this version does not perform `remove package nginx`",
    );
    check(
        "IF guest.load > 1 THEN set network bandwidth to 1 Gbit/s",
        "this version does not perform `set network bandwidth to 1 Gbit/s`",
    );
    check(
        "IF trust_levels[notify] > 1 THEN add 1 vcpus",
        "this version does not read `trust_levels` in rules",
    );
    check(
        "IF avgg(guest.load, 5m) > 1 THEN add 1 vcpus",
        "there is no function `avgg`",
    );
    check(
        "IF domain.started THEN add 1 vcpus",
        "this version does not react to the event `domain.started`",
    );
    check(
        "IF сpu.utilization > 1% THEN add 1 vcpus",
        "there is no metric `сpu.utilization`",
    );
    check(
        "IF guest.load > 1 THEN add 1 vcpus COOLDOWN 1s COOLDOWN 2s",
        "`COOLDOWN` stands here twice",
    );
    check(
        "IF guest.load * 1% > 1 THEN add 1 vcpus",
        "`guest.load * 1%` is a percentage and `1` is a plain number; they do not compare",
    );
    check(
        "IF memory.size * memory.size > 1 THEN add 1 vcpus",
        "a size in bytes cannot be multiplied by a size in bytes",
    );
}

#[test]
fn every_problem_of_one_text_is_found_at_once() {
    check(
        "IF cpu.load.x > 5 AND memory.size > 5% FOR 90 THEN add 0 vcpus, isolate PRIORITY 9999",
        "there is no metric `cpu.load.x`; `memory.size` is a size in bytes and `5%` is a percentage; they do not compare; \
         a FOR window is a duration, not `90`; `0 vcpus` is out of range; vCPUs are a whole number from 1 to 4096; \
         this version does not perform `isolate`; a priority is a whole number from -1000 to 1000, not `9999`",
    );
}

#[test]
fn size_and_depth_of_a_rule_are_bounded() {
    let deep = format!(
        "IF {}guest.load > 1{} THEN add 1 vcpus",
        "(".repeat(40),
        ")".repeat(40)
    );
    check(&deep, "parentheses nest deeper than 32 levels");
    let long = format!("IF guest.load{} > 1 THEN add 1 vcpus", " + 1".repeat(80));
    check(&long, "more than 64 operations in one rule");
    let huge = format!("IF guest.load > 1 THEN add 1 vcpus {}", " ".repeat(5000));
    check(
        &huge,
        "5035 bytes are too long for a rule; at most 4096 are read",
    );
    let many = format!("IF guest.load > 1 THEN {}", ["add 1 vcpus"; 17].join(", "));
    check(&many, "a rule has at most 16 actions");
}

#[test]
fn actions_say_what_they_change_and_which_way() {
    let rule = Rule::parse(
        "test",
        "IF guest.load > 1 THEN set vcpus to 4, add 10% memory, remove 1 vcpus, notify \"x\"",
    )
    .unwrap();
    let found: Vec<_> = rule
        .then
        .iter()
        .map(|action| (action.resource(), action.direction()))
        .collect();
    assert_eq!(
        found,
        [
            (Some(Resource::Vcpus), Some(Direction::To)),
            (Some(Resource::Memory), Some(Direction::Grow)),
            (Some(Resource::Vcpus), Some(Direction::Shrink)),
            (None, None),
        ]
    );
    assert_eq!(
        MemoryAmount::Percent(25.0).of(Bytes::from_mib(1024)),
        Bytes::from_mib(256)
    );
    assert_eq!(
        MemoryAmount::Size(Bytes::from_mib(64)).of(Bytes::from_mib(1024)),
        Bytes::from_mib(64)
    );
}

#[test]
fn a_condition_lists_each_metric_once() {
    let condition =
        Condition::parse("guest.load > 1 AND (cpu.steal > 1% OR guest.load > vcpu.count) FOR 1m")
            .unwrap();
    let found: Vec<_> = condition.signals().collect();
    assert_eq!(
        found,
        [Metric::GuestLoad, Metric::CpuSteal, Metric::VcpuCount]
            .map(Signal::Metric)
            .iter()
            .collect::<Vec<_>>()
    );
}
