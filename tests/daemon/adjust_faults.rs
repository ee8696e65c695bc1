//! What rules of the host want otherwise in a guest that fails at it, in one whose agent is older than this, and too often.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use virt_persona::command::Command;
use virt_persona::view::{ActivationState, AgentState, DomainView, RuleState};

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

#[test]
fn what_waits_of_one_version_of_a_persona_is_not_done_to_the_next() {
    let (set, daemon, _agent) = start("");
    for _ in 0..6 {
        busy(&set, &daemon);
        calm(&set, &daemon);
    }
    fill(&set, 400);
    daemon.wait_domain(set.web, "the seventh waits", |domain| {
        tells(domain, "6 times within 60 min")
    });
    // The next version has a rule of the same name, which holds as well and wants something else.
    let next = "name: front
environment_variables: {TIER: new}
os_settings: {sysctl: {vm.swappiness: 60}}
adaptation_rules:
  - {name: busy, when: memory.utilization > 70%, then: notify 'busy', source: balloon}
";
    let updated = daemon.ask(Command::UpdatePersona {
        name: "front".into(),
        document: next.into(),
        format: None,
        note: None,
    });
    assert!(updated.is_ok(), "{updated:?}");
    daemon.wait_domain(set.web, "it is the next", has(&set, "new", "60"));
    daemon.wait_record("what waited is dropped", |record| {
        record.text.contains("environment_variables.TIER")
            && record
                .text
                .contains("another persona or version is in force by now")
    });
    set.stage.suspend(Duration::from_secs(60 * 60));
    ticks(&daemon);
    daemon.wait_domain(set.web, "it stays so", |domain| {
        has(&set, "new", "60")(domain) && !tells(domain, "rule busy")
    });
    assert_eq!(forward(&daemon), 6);
}

#[test]
fn what_somebody_in_the_guest_went_back_to_is_not_overridden_by_what_rules_adjusted_meanwhile() {
    let (set, daemon, agent) = start("");
    busy(&set, &daemon);
    // To what holds without what was adjusted.
    let back = agent.ask(&["rollback"]);
    assert!(back.is_ok(), "{back:?}");
    let went_back = |domain: &DomainView| {
        let mut said = domain.activation.detail.iter();
        said.any(|said| said.contains("by hand"))
    };
    daemon.wait_domain(set.web, "it is told", went_back);
    drop(agent);
    daemon.wait_domain(set.web, "the agent is away", |domain| {
        domain.agent.state != AgentState::Connected
    });
    // The until takes back what stands, and then the rule begins anew.
    let waits = |generation: u64| {
        move |domain: &DomainView| {
            let bound = domain.persona.as_ref();
            domain.activation.state == ActivationState::WaitingForAgent
                && bound.is_some_and(|bound| bound.generation > generation)
        }
    };
    let generation = |domain: &DomainView| domain.persona.as_ref().unwrap().generation;
    fill(&set, 100);
    let calm = daemon.wait_domain(set.web, "it waits for the agent", waits(0));
    let calm = generation(&calm);
    fill(&set, 400);
    daemon.wait_domain(set.web, "it waits for the agent again", waits(calm));
    let agent = Agent::start(&set.guest);
    let pending = |domain: &DomainView| {
        went_back(domain) && domain.activation.state == ActivationState::Pending
    };
    daemon.wait_domain(set.web, "it waits for a person", pending);
    ticks(&daemon);
    daemon.wait_domain(set.web, "it waits all the while", pending);
    let tier = || file(&set.guest, "etc/profile.d/50-virt-persona.sh");
    assert!(tier().contains("calm"), "{}", tier());
    // Also after a restart of the daemon.
    daemon.kill();
    let daemon = set.stage.start();
    daemon.wait_domain(set.web, "it still waits", pending);
    ticks(&daemon);
    assert!(tier().contains("calm"), "{}", tier());
    assert_eq!(scripts(&set), 2);
    // Back to what the host made active, and all goes on.
    let kept = fs::read_dir(set.guest.join("state/gen")).unwrap().flatten();
    let newest = kept.filter_map(|file| {
        let name = file.file_name().into_string().ok()?;
        name.strip_suffix(".json")?.parse::<u64>().ok()
    });
    let newest = newest.max().unwrap().to_string();
    let back = agent.ask(&["rollback", &newest]);
    assert!(back.is_ok(), "{back:?}");
    daemon.wait_domain(set.web, "it is adjusted", has(&set, "busy", "1"));
    assert_eq!(scripts(&set), 2);
}

/// Sets a parameter to what a file of the kernel that nobody can write to shows.
const STUCK: &str = "name: front
environment_variables: {TIER: calm}
os_settings: {sysctl: {vm.swappiness: 60}}
pre_activation_script: echo ran >> SCRIPTS
post_activation_script: echo ran >> SCRIPTS
adaptation_rules:
  - name: busy
    when: memory.utilization > 70% FOR 1s
    then: [apply environment_variables.TIER = busy, apply os_settings.sysctl.vm.swappiness = 65536]
    until: memory.utilization < 40% FOR 1s
    cooldown: 1s
    source: balloon
";

#[test]
fn a_way_back_that_fails_for_the_moment_is_tried_again_after_a_pause() {
    let set = site("guest");
    let _agent = Agent::start(&set.guest);
    let daemon = set.stage.start();
    give(&set, &daemon, STUCK);
    fill(&set, 400);
    daemon.wait_domain(set.web, "it is adjusted", has(&set, "busy", "65536"));
    let parameter = set.guest.join("proc/sys/vm/swappiness");
    fs::remove_file(&parameter).unwrap();
    symlink("/proc/sys/kernel/ngroups_max", &parameter).unwrap();
    fill(&set, 100);
    let failed = |domain: &DomainView| domain.activation.state == ActivationState::Failed;
    daemon.wait_domain(set.web, "it has failed", failed);
    ticks(&daemon);
    daemon.wait_domain(set.web, "it is not tried at once", failed);
    let tried = || count(&daemon.told("activation"), "it failed in the guest");
    assert_eq!(tried(), 1);
    set.stage.suspend(Duration::from_secs(61));
    daemon.wait_record("it is tried again", |_| tried() == 2);
    fs::remove_file(&parameter).unwrap();
    fs::write(&parameter, "65536\n").unwrap();
    // Pauses grow.
    set.stage.suspend(Duration::from_secs(61));
    ticks(&daemon);
    daemon.wait_domain(set.web, "it waits for longer", failed);
    set.stage.suspend(Duration::from_secs(60));
    daemon.wait_domain(set.web, "it is back", has(&set, "calm", "60"));
    assert_eq!(scripts(&set), 2);
}

#[test]
fn what_was_adjusted_while_the_agent_was_away_and_cannot_be_had_goes_back() {
    let set = site("guest");
    let agent = Agent::start(&set.guest);
    let daemon = set.stage.start();
    let laptop_mode = set.guest.join("proc/sys/vm/laptop_mode");
    symlink("/proc/version", &laptop_mode).unwrap();
    give(
        &set,
        &daemon,
        &FRONT.replace("swappiness = 1", "laptop_mode = 5"),
    );
    drop(agent);
    fill(&set, 400);
    daemon.wait_domain(set.web, "it waits for the agent", |domain| {
        domain.activation.state == ActivationState::WaitingForAgent
    });
    let _agent = Agent::start(&set.guest);
    daemon.wait_record("it is told", |record| {
        record.kind == "refusal" && record.text.contains(WENT_BACK)
    });
    daemon.wait_domain(set.web, "what it had is there", has(&set, "calm", "60"));
    assert_eq!(scripts(&set), 2);
}

#[test]
fn an_older_agent_is_sent_the_scripts_just_where_its_guest_does_not_have_the_persona() {
    let set = site("behind");
    let socket = set.stage.path().join("guest/agent.sock");
    let older = Older::listen(&socket, Agent::socket(&set.guest));
    let agent = Agent::start(&set.guest);
    let daemon = set.stage.start();
    give(&set, &daemon, FRONT);
    // In the session that began without any, and then had the first.
    let at = set.guest.join("scripts").display().to_string();
    let second = FRONT.replace("name: front", "name: second");
    daemon.create(&second.replace("SCRIPTS", &at));
    daemon.apply("web", "second");
    daemon.wait_domain(set.web, "it is the second", |domain| {
        has(&set, "calm", "60")(domain) && scripts(&set) == 4
    });
    busy(&set, &daemon);
    assert_eq!(scripts(&set), 4);
    let last = older.activations().pop().unwrap();
    assert!(last["pre"].is_null() && last["post"].is_null(), "{last:#?}");
    // Another disk in the place of the guest's.
    drop(agent);
    daemon.wait_domain(set.web, "the agent is away", |domain| {
        domain.agent.state != AgentState::Connected
    });
    fs::remove_dir_all(set.guest.join("state")).unwrap();
    fs::remove_dir_all(set.guest.join("etc")).unwrap();
    fs::write(set.guest.join("proc/sys/vm/swappiness"), "30\n").unwrap();
    let _agent = Agent::start(&set.guest);
    daemon.wait_domain(set.web, "it is prepared and adjusted", |domain| {
        has(&set, "busy", "1")(domain) && scripts(&set) == 6
    });
}
