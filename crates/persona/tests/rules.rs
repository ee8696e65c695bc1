//! Rule texts: what they mean, in canonical form, and what is said of those that mean nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

use persona::rule::{Condition, Direction, MemoryAmount, Resource, Rule, phrases};
use persona::{Bytes, Metric, Problem, Problems, Severity, Signal};

/// The canonical text of a rule, or the messages.
fn check(text: &str, expected: &str) {
    let found = match Rule::parse("test", text) {
        Ok(rule) => rule.text.to_string(),
        Err(problems) => errors(&problems)
            .map(|problem| problem.message.as_str())
            .collect::<Vec<_>>()
            .join("; "),
    };
    assert_eq!(found, expected, "{text}");
}

fn errors(problems: &Problems) -> impl Iterator<Item = &Problem> {
    let is_error = |problem: &&Problem| problem.severity == Severity::Error;
    problems.iter().filter(is_error)
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

/// Every way to say a phrase: each alternative, with and without what may be left out.
fn ways(pattern: &str) -> Vec<String> {
    pattern.split(' ').fold(vec![String::new()], |ways, part| {
        let optional = part
            .strip_prefix('[')
            .and_then(|part| part.strip_suffix(']'));
        let mut words: Vec<&str> = match part {
            "N" => vec!["4"],
            "SIZE" | "BYTES" => vec!["512 MiB"],
            "SIZE|P%" => vec!["512 MiB", "25%"],
            "P%" => vec!["50%"],
            "RATE" => vec!["RATE"],
            "\"TEXT\"" => vec!["\"a, b\""],
            "KEY" => vec!["os_settings.theme"],
            "VALUE" => vec!["dark"],
            "HOST:PORT" => vec!["host-1.example:80"],
            "WORDS" => vec!["CDN caching", "cdn-caching"],
            "NAME" => vec!["cdn-caching"],
            "SOURCE" => vec!["feed.example"],
            "PACKAGE" => vec!["libstdc++6"],
            _ => optional.unwrap_or(part).split('|').collect(),
        };
        words.extend(optional.map(|_| ""));
        let mut longer = Vec::new();
        for way in &ways {
            longer.extend(words.iter().map(|word| format!("{way} {word}")));
        }
        longer
    })
}

#[test]
fn every_phrase_does_what_it_says_it_means() {
    let action = |text: &str| {
        let rate = if text.contains("network") {
            "8 Mbit/s"
        } else {
            "8 MiB/s"
        };
        let text = text.replace("RATE", rate);
        let rule = Rule::parse("test", &format!("IF cpu.utilization > 1% THEN {text}."));
        rule.unwrap_or_else(|problems| panic!("{text}:\n{problems}"))
            .then
    };
    let mut count = 0;
    for phrase in phrases() {
        let meant: Vec<_> = ways(phrase.means).iter().map(|way| action(way)).collect();
        for way in ways(phrase.pattern) {
            let said = action(&way);
            assert!(
                meant.contains(&said),
                "`{way}` is {said:?} and not `{}`",
                phrase.means
            );
            count += 1;
        }
    }
    assert!(count > 300, "{count}");
}

#[test]
fn every_action_is_written_and_read_the_same() {
    let check_action = |written: &str| {
        check(
            &format!("IF cpu.utilization > 1% THEN {written}"),
            &format!("IF cpu.utilization > 1% THEN {written} COOLDOWN 1m PRIORITY 0"),
        );
    };
    check_action(
        "set network bandwidth to 1 Gbit/s, set disk iops to 2000/s, set disk bandwidth to 100 MiB/s",
    );
    check_action("set cpu weight to 200, set cpu cap to 150%");
    check_action(
        "enable feature cdn-caching, disable feature x.y_z, run purge-cache, respond lock-down",
    );
    check_action(
        "apply os_settings.theme = \"dark\", apply environment_variables.App_Env = \"a \\\"b\\\" c\"",
    );
    check_action("install package libstdc++6, remove package python3.12-venv");
    check_action(
        "block addresses from feed.example, unblock addresses from threatintel, block addresses",
    );
    check_action("isolate, restore, revert");
    check_action(
        "redirect port 80 to web-2.example:8080, redirect port 443 to [fd00::1]:8443, redirect port 1 to 10.0.0.5:65535",
    );
    check_action("activate persona web-2, notify \"it's done\", call webhook pager-duty");
    check_action("run \"until\", activate persona \"and\", block addresses from \"for\"");
    let rule = Rule::parse(
        "test",
        "IF cpu.utilization > 1% THEN apply OS_Settings.Theme = VSCode, redirect port 80 to [FD00::0:1]:80, \
         run Purge-Cache, set disk iops to 2000",
    );
    assert_eq!(
        rule.unwrap().text,
        "IF cpu.utilization > 1% THEN apply os_settings.theme = \"VSCode\", redirect port 80 to [fd00::1]:80, \
         run purge-cache, set disk iops to 2000/s COOLDOWN 1m PRIORITY 0"
    );
}

#[test]
fn the_rules_that_people_think_of_first_read_as_they_are_written() {
    check(
        "IF CPU utilization > 90% AND priority_metrics[performance] > priority_metrics[security] \
         THEN increase allocated cores.",
        "IF cpu.utilization > 90% AND priority_metrics[performance] > priority_metrics[security] \
         THEN add 1 vcpus COOLDOWN 1m PRIORITY 0",
    );
    check(
        "IF CPU Load > 80% for 5 minutes THEN Scale up to 16 cores",
        "IF cpu.utilization > 80% FOR 5m THEN set vcpus to 16 COOLDOWN 1m PRIORITY 0",
    );
    check(
        "IF Network Latency > 100ms THEN Activate CDN caching",
        "IF network.latency > 100ms THEN enable feature cdn-caching COOLDOWN 1m PRIORITY 0",
    );
    check(
        "IF feed.changed THEN Update firewall rules to block malicious IPs",
        "IF EVENT(feed.changed) THEN block addresses COOLDOWN 1m PRIORITY 0",
    );
    check(
        "if the error rate exceeds 5/min then activate security measures",
        "there is no metric `the error rate`",
    );
    check(
        "if error rate exceeds 5/min then activate security measures, send an alert \"errors\"",
        "IF guest.log.errors > 5/min THEN enable feature security-measures, notify \"errors\" COOLDOWN 1m PRIORITY 0",
    );
}

#[test]
fn a_slip_of_the_pen_is_asked_about_and_does_nothing_else() {
    let check_help = |action: &str, message: &str, help: &str| {
        let problems =
            Rule::parse("test", &format!("IF cpu.utilization > 1% THEN {action}")).unwrap_err();
        let first = errors(&problems).next().unwrap();
        assert_eq!(
            (first.message.as_str(), first.help.as_deref()),
            (message, Some(help)),
            "{action}"
        );
    };
    check_help(
        "actvate CDN caching",
        "there is no action `actvate`",
        "did you mean `activate`?",
    );
    check_help(
        "activate persna web",
        "expected `persona`, found `persna`",
        "did you mean `persona`?",
    );
    check_help(
        "enable featur x",
        "expected `feature`, found `featur`",
        "did you mean `feature`?",
    );
    check_help(
        "activate persona",
        "expected a name, but the rule ends here",
        "write `activate persona NAME`",
    );
    check_help(
        "set vcpu 4",
        "expected `to`, found `4`",
        "write `set vcpus to N`",
    );
    check_help(
        "set disc iops to 5",
        "expected `vcpus`, `memory`, `network`, `disk` or `cpu`, found `disc`",
        "did you mean `disk`?",
    );
    check_help(
        "block adresses",
        "expected `addresses`, found `adresses`",
        "did you mean `addresses`?",
    );
    check_help(
        "install nginx",
        "expected `package`, found `nginx`",
        "write `install package PACKAGE`",
    );
}

#[test]
fn values_beyond_their_limits_are_refused_by_the_limit() {
    let check_action = |action: &str, expected: &str| {
        check(&format!("IF cpu.utilization > 1% THEN {action}"), expected);
    };
    check_action(
        "set network bandwidth to 100 MiB/s",
        "network bandwidth is a rate in bits per second, and `100 MiB/s` is a rate in bytes per second",
    );
    check_action(
        "set network bandwidth to 1 bit/s",
        "`1 bit/s` is out of range; network bandwidth is 8 kbit/s to 10 Tbit/s",
    );
    check_action(
        "set disk iops to 0",
        "`0` is out of range; the limit of disk requests is 1/s to 100000000/s",
    );
    check_action(
        "set disk bandwidth to 1 KiB/s",
        "`1 KiB/s` is out of range; disk bandwidth is 4 KiB/s to 1 TiB/s",
    );
    check_action(
        "set cpu weight to 0",
        "`0` is out of range; the CPU weight is 1 to 10000",
    );
    check_action(
        "set cpu weight to 1.5",
        "the CPU weight is a whole number, not `1.5`",
    );
    check_action(
        "set cpu cap to 0.5%",
        "`0.5%` is out of range; the CPU cap is 1% to 409600%",
    );
    check_action(
        "set cpu cap to 2",
        "the CPU cap is a percentage, and `2` is a plain number",
    );
    check_action(
        "redirect port 0 to a:1",
        "`0` is out of range; a port is 1 to 65535",
    );
    check_action(
        "redirect port 80 to a:65536",
        "`a:65536` is no host with a port",
    );
    check_action(
        "redirect port 80 to 10.0.0.256:80",
        "`10.0.0.256:80` is no host with a port",
    );
    check_action(
        "redirect port 80 to -a.example:80",
        "expected a host and its port, such as `10.0.0.1:8080`, found `-`",
    );
    check_action("run ../../bin/sh", "expected a name, found `.`");
    check_action(
        "run \"../../bin/sh\"",
        "`\"../../bin/sh\"` is no name of a response script",
    );
    check_action("enable feature wеb", "`wеb` is no name of a feature");
    check_action("activate persona a/b", "`a/b` is no persona name");
    check_action("apply theme = dark", "`apply` sets nothing under `theme`");
    check_action(
        "apply os_setting.theme = dark",
        "`apply` sets nothing under `os_setting`",
    );
    check_action("apply os_settings = dark", "`os_settings` names no setting");
    check_action(
        "apply os_settings.theme == dark",
        "expected `=`, found `==`",
    );
    check_action("install package a;b", "`a;b` is no name of a package");
    let many = (0..17).map(|n| format!("avg(guest.load, {}s) > 1", n + 1));
    check(
        &format!("IF {} THEN isolate", many.collect::<Vec<_>>().join(" OR ")),
        "more than 16 functions in one rule",
    );
}

#[test]
fn functions_events_and_lookups_have_one_spelling() {
    let check_condition = |text: &str, canonical: &str| {
        let found = match Condition::parse(text) {
            Ok(condition) => condition.text(),
            Err(problems) => errors(&problems).next().unwrap().message.clone(),
        };
        assert_eq!(found, canonical, "{text}");
    };
    check_condition(
        "AVG(cpu load, 5 minutes) > 80%",
        "avg(cpu.utilization, 5m) > 80%",
    );
    check_condition(
        "p95(disk.latency, 10m) > 5ms",
        "p95(disk.latency, 10m) > 5ms",
    );
    check_condition(
        "rate(memory.size, 1m) > 1 MiB/s",
        "rate(memory.size, 1m) > 1 MiB/s",
    );
    check_condition(
        "rate(cpu.utilization, 1m) > 0.1/s",
        "rate(cpu.utilization, 1m) > 0.1/s",
    );
    check_condition(
        "delta(guest.app.orders, 1h) > 100",
        "delta(guest.app.orders, 1h) > 100",
    );
    check_condition("anomaly(guest.load) > 3", "anomaly(guest.load) > 3");
    check_condition(
        "predicted(memory.size, 10m) > 4 GiB",
        "predicted(memory.size, 10m) > 4 GiB",
    );
    check_condition(
        "guest.app.queue-depth-2 - 5% > 10%",
        "guest.app.queue-depth-2 - 5% > 10%",
    );
    check_condition(
        "external.feed.example.com.count > 0",
        "external.feed.example.com.count > 0",
    );
    check_condition("Domain.Started", "EVENT(domain.started)");
    check_condition("EVENT(feed.changed(if))", "EVENT(feed.changed(if))");
    check_condition("external.a-624.y > 1", "external.a-624.y > 1");
    check_condition("guest.app.a-5 is 1", "guest.app.a-5 == 1");
    check_condition("(network rx drops) is above 1/s", "network.rx.drops > 1/s");
    check_condition(
        "event(Feed.Changed(Threat-Intel))",
        "EVENT(feed.changed(threat-intel))",
    );
    check_condition(
        "(feed.changed(a) OR agent.lost) FOR 10s",
        "(EVENT(feed.changed(a)) OR EVENT(agent.lost)) FOR 10s",
    );
    check_condition(
        "NOT agent.lost AND guest.load is above 1",
        "NOT EVENT(agent.lost) AND guest.load > 1",
    );
    check_condition(
        "priority_metrics[CPU Load] > 0.5 AND guest.load > 1",
        "priority_metrics[cpu.utilization] > 0.5 AND guest.load > 1",
    );
    check_condition(
        "priority_metrics['My group'] > 0.5 AND guest.load > 1",
        "priority_metrics[my group] > 0.5 AND guest.load > 1",
    );
    check_condition(
        "trust_levels[network access] >= 0.6 AND guest.load > 1",
        "trust_levels[network_access] >= medium AND guest.load > 1",
    );
    check_condition(
        "0.2 < trust_levels[notify] AND trust_levels[notify] between LOW and 1 AND guest.load > 1",
        "none < trust_levels[notify] AND trust_levels[notify] BETWEEN low AND high AND guest.load > 1",
    );
    check_condition(
        "guest.load is between 1 and 2 for 1m",
        "guest.load BETWEEN 1 AND 2 FOR 1m",
    );
    check_condition("guest.load drops below 1", "guest.load < 1");
    check_condition("CPU Load is at least 80%", "cpu.utilization >= 80%");

    check_condition(
        "avg(cpu.utilization) > 80%",
        "expected `,` and a window, such as `avg(cpu.utilization, 5m)`, found `)`",
    );
    check_condition("avg(5, 5m) > 80%", "expected a metric, found `5`");
    check_condition(
        "avg(cpu.utilization, 5) > 80%",
        "a window is a duration, not `5`",
    );
    check_condition(
        "avg(cpu.utilization, 10ms) > 80%",
        "a window of 10ms is out of range; it is 1s to 30d",
    );
    check_condition(
        "avg(cpu.utilization, 5m) > 80",
        "`avg(cpu.utilization, 5m)` is a percentage and `80` is a plain number; they do not compare",
    );
    check_condition("domain.start", "there is no metric `domain.start`");
    check_condition("EVENT(domain.start)", "there is no event `domain.start`");
    check_condition("domain.started(x)", "`domain.started` has no source");
    check_condition(
        "feed.changed('../x')",
        "expected the name of an external source, found `'../x'`",
    );
    check_condition(
        "agent.lost FOR 31s",
        "an event counts as true for 30s, so this is never true",
    );
    check_condition(
        "(agent.lost AND guest.load > 1) FOR 1m",
        "an event counts as true for 30s, so this is never true",
    );
    check_condition("trust_levels[notify] > 5", "`5` is no level of trust");
    check_condition(
        "trust_levels[notify] > 5%",
        "`trust_levels[notify]` is a level of trust and `5%` is a percentage; they do not compare",
    );
    check_condition(
        "trust_levels[networkaccess] > low",
        "there is no class of actions `networkaccess`",
    );
    check_condition(
        "trust_levels[notify] + 1 > low",
        "a level of trust cannot be part of a sum",
    );
    check_condition(
        "-low < trust_levels[notify]",
        "`low` has no opposite: it is a level of trust",
    );
    check_condition(
        "guest.app.x > high",
        "`guest.app.x` is a number of unknown kind and `high` is a level of trust; they do not compare",
    );
    check_condition(
        "trust_levels[notify] BETWEEN high AND low",
        "nothing is BETWEEN high and low: the lower end comes first",
    );
    check_condition(
        "priority_metrics[../x] > 1",
        "`../x` is no name in `priority_metrics`",
    );
    check_condition(
        "priority_metric[x] > 1",
        "`priority_metric` has no parts to look up",
    );
    check_condition("priority_metrics[] > 1", "expected a name, found `]`");
    check_condition("guest.app.-x > 1", "there is no metric `guest.app`");
    check_condition(
        "external.count > 1",
        "`external.count` is no field of an external source; write `external.SOURCE.FIELD`",
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
        "expected `by` or `to`, but the rule ends here",
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
        "IF avgg(guest.load, 5m) > 1 THEN add 1 vcpus",
        "there is no function `avgg`",
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
        "IF cpu.load.x > 5 AND memory.size > 5% FOR 90 THEN add 0 vcpus, isolate now, run a PRIORITY 9999",
        "there is no metric `cpu.load.x`; `memory.size` is a size in bytes and `5%` is a percentage; they do not compare; \
         a FOR window is a duration, not `90`; `0 vcpus` is out of range; vCPUs are a whole number from 1 to 4096; \
         expected `,` or the end of the action, found `now`; \
         a priority is a whole number from -1000 to 1000, not `9999`",
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
fn the_functions_of_a_whole_document_are_bounded() {
    let rule = |n: usize| {
        let functions = (0..13).map(|k| format!("avg(guest.load, {}s) > 1", n * 13 + k + 1));
        format!(
            "  - IF {} THEN notify \"x\"\n",
            functions.collect::<Vec<_>>().join(" OR ")
        )
    };
    let load = |count: usize| {
        let rules: String = (0..count).map(rule).collect();
        let text = format!("name: x\nadaptation_rules:\n{rules}");
        persona::load(&persona::SourceText {
            name: "test",
            text: text.as_bytes(),
            format: persona::Format::Yaml,
            persona_name: None,
        })
    };
    assert!(load(4).is_ok());
    let problems = load(5).unwrap_err();
    let found: Vec<_> = errors(&problems)
        .map(|problem| problem.message.as_str())
        .collect();
    assert_eq!(
        found,
        ["the rules of a persona have at most 64 functions over windows"]
    );
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

#[test]
fn a_name_that_ends_with_a_point_and_an_event_under_for_read_back() {
    for text in [
        "IF cpu.utilization > 80% THEN install package \"foo.\" COOLDOWN 5m",
        "IF cpu.utilization > 80% THEN enable feature \"x.\"",
        "IF domain.started FOR 1s THEN notify \"up\"",
    ] {
        let rule = Rule::parse("one", text).unwrap();
        let again = Rule::parse("one", &rule.text).unwrap();
        assert_eq!(again, rule, "{}", rule.text);
    }
    let printed = Rule::parse("one", "domain.started FOR 1s THEN isolate").unwrap();
    assert!(
        printed
            .text
            .starts_with("IF EVENT(domain.started) FOR 1s THEN"),
        "{}",
        printed.text
    );
}
