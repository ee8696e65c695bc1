//! What rules of the host want otherwise in a guest that fails at it, in one whose agent is older than this, and too often.

use std::fs;
use std::os::unix::fs::symlink;

use virt_persona::view::{ActivationState, DomainView, RuleState};

use crate::adjust::{FRONT, busy, calm, file, fill, give, has, scripts, site, start, ticks};
use crate::agent::Agent;
use crate::older::Older;
use crate::stage::Running;

/// Goes over what FRONT's rule wants, where more than 90 % of the memory are in use, and asks for a parameter besides.
const FULL: &str = "  - name: full
    priority: 1
    when: memory.utilization > 90% FOR 1s
    then: [apply environment_variables.TIER = full, apply os_settings.sysctl.vm.laptop_mode = 5]
    until: memory.utilization < 80% FOR 1s
    cooldown: 1s
    source: balloon
";

const WENT_BACK: &str = "the guest did not bring it about, so it has gone back";

fn count(records: &[String], word: &str) -> usize {
    records.iter().filter(|text| text.contains(word)).count()
}

/// How often rules adjusted something, of what was called for.
fn forward(daemon: &Running) -> usize {
    count(&daemon.told("binding"), "rules adjust the persona")
}

fn tells(domain: &DomainView, word: &str) -> bool {
    domain.problems.iter().any(|text| text.contains(word))
}

#[test]
fn what_fails_in_the_guest_ends_and_what_was_adjusted_before_stays_until_the_rule_begins_anew() {
    let (set, daemon, _agent) = start(FULL);
    busy(&set, &daemon);
    // It can be read, and nobody can write to it.
    let laptop_mode = set.guest.join("proc/sys/vm/laptop_mode");
    symlink("/proc/version", &laptop_mode).unwrap();
    fill(&set, 490);
    for change in ["environment_variables.TIER", "vm.laptop_mode"] {
        let record = daemon.wait_record("it is told", |record| {
            record.kind == "refusal" && record.text.contains(change)
        });
        let text = record.text;
        assert!(
            text.starts_with("rule full asks for ")
                && text.contains(WENT_BACK)
                && text.contains("cannot set kernel parameter vm.laptop_mode"),
            "{text}"
        );
    }
    let back = has(&set, "busy", "1");
    let shown = daemon.wait_domain(set.web, "it is back and told", |domain| {
        back(domain) && tells(domain, WENT_BACK)
    });
    let detail = shown.activation.detail.unwrap_or_default();
    assert!(
        detail.contains("TIER = busy by rule busy") && !detail.contains("full"),
        "{detail}"
    );
    daemon.wait_explained("web", "only the other rule stands", |explained| {
        let rules = explained.rules.iter();
        let standing = rules.filter(|rule| rule.state == RuleState::Standing);
        standing.map(|rule| rule.name.as_str()).eq(["busy"])
    });
    // It holds all the while. Where its figures were late on a busy host it has begun to hold anew, and called for it again.
    ticks(&daemon);
    let tried = count(&daemon.told("activation"), "it failed in the guest");
    let called = count(&daemon.told("decision"), "rule full asks for: apply env");
    assert!(1 <= tried && tried <= called, "{:#?}", daemon.audit());
    // It holds no longer, and then anew.
    fill(&set, 400);
    daemon.wait_domain(set.web, "nothing is told", |domain| {
        back(domain) && !tells(domain, "rule full")
    });
    fs::remove_file(&laptop_mode).unwrap();
    fs::write(&laptop_mode, "0\n").unwrap();
    fill(&set, 490);
    daemon.wait_domain(set.web, "it is adjusted", has(&set, "full", "1"));
    assert_eq!(file(&set.guest, "proc/sys/vm/laptop_mode"), "5\n");
    calm(&set, &daemon);
    assert_eq!(file(&set.guest, "proc/sys/vm/laptop_mode"), "0\n");
    assert_eq!(scripts(&set), 2, "they run once an activation of a persona");
}

#[test]
fn an_agent_that_knows_nothing_of_adjustments_is_sent_no_scripts_with_them() {
    let set = site("behind");
    let socket = set.stage.path().join("guest/agent.sock");
    let older = Older::listen(&socket, Agent::socket(&set.guest));
    let _agent = Agent::start(&set.guest);
    let daemon = set.stage.start();
    give(&set, &daemon, FRONT);
    assert_eq!(scripts(&set), 2);
    busy(&set, &daemon);
    calm(&set, &daemon);
    assert_eq!(scripts(&set), 2, "this agent runs whatever it is sent");
    // What a person applies is the persona itself.
    busy(&set, &daemon);
    daemon.apply("web", "front");
    daemon.wait_domain(set.web, "it is as written", has(&set, "calm", "60"));
    assert_eq!(scripts(&set), 4);
    let has_script = |name: &str| -> Vec<bool> {
        let sent = older.activations().into_iter();
        sent.map(|activation| activation.get(name).is_some_and(|script| !script.is_null()))
            .collect()
    };
    let expected = [true, false, false, false, true];
    assert_eq!(has_script("pre"), expected, "{:#?}", older.activations());
    assert_eq!(has_script("post"), expected, "{:#?}", older.activations());
}

#[test]
fn the_seventh_adjustment_within_an_hour_waits_and_is_told_once_and_the_way_back_is_open() {
    const TOO_OFTEN: &str = "adjusted its guest 6 times within 60 min";
    let (set, daemon, _agent) = start("");
    for _ in 0..6 {
        busy(&set, &daemon);
        calm(&set, &daemon);
    }
    fill(&set, 400);
    let waits = |domain: &DomainView| {
        domain.activation.state == ActivationState::Active && tells(domain, TOO_OFTEN)
    };
    daemon.wait_domain(set.web, "the seventh waits", waits);
    ticks(&daemon);
    daemon.wait_domain(set.web, "it still waits", waits);
    let calm_yet = has(&set, "calm", "60");
    daemon.wait_domain(set.web, "it is as before", &calm_yet);
    assert_eq!(count(&daemon.told("refusal"), TOO_OFTEN), 1);
    assert_eq!(forward(&daemon), 6);
    // A restart begins no new count.
    daemon.kill();
    let daemon = set.stage.start();
    daemon.wait_domain(set.web, "it waits again", |domain| {
        waits(domain) && calm_yet(domain)
    });
    set.stage.suspend(std::time::Duration::from_secs(60 * 60));
    daemon.wait_domain(set.web, "it is adjusted", has(&set, "busy", "1"));
    assert_eq!(forward(&daemon), 7);
    calm(&set, &daemon);
}
