//! Settings that rules of the host want otherwise in the guest: given, taken back, kept over every end of daemon and agent,
//! and ended by a person. The agent is the real program.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use persona::domain::DomainId;
use virt_persona::command::{Command, DomainName, Reply};
use virt_persona::hypervisor::RunState;
use virt_persona::view::{ActivationState, DomainView, ProposalView, RuleState};

use crate::agent::Agent;
use crate::relay::Relay;
use crate::stage::{Running, Stage, mib};

const WEB: &str = "
[[domain]]
name = 'web'
memory_mib = 512
tags = ['front']
agent_channel = 'FOLDER/guest/agent.sock'
guest = { memory_used_mib = 100 }
";

/// Adjusts when more than 70 % of the memory are in use, and goes back below 40 %. The scripts write a line each.
pub(crate) const FRONT: &str = "name: front
environment_variables: {TIER: calm}
os_settings: {sysctl: {vm.swappiness: 60}}
pre_activation_script: echo ran >> SCRIPTS
post_activation_script: echo ran >> SCRIPTS
adaptation_rules:
  - name: busy
    when: memory.utilization > 70% FOR 1s
    then: [apply environment_variables.TIER = busy, apply os_settings.sysctl.vm.swappiness = 1]
    until: memory.utilization < 40% FOR 1s
    cooldown: 1s
    source: balloon
";

pub(crate) struct Set {
    pub(crate) stage: Stage,
    pub(crate) web: DomainId,
    pub(crate) guest: PathBuf,
}

/// A host, and the tree of its guest in this folder of the stage.
pub(crate) fn site(folder: &str) -> Set {
    let stage = Stage::new(WEB);
    let guest = stage.path().join(folder);
    fs::create_dir_all(guest.join("proc/sys/vm")).unwrap();
    fs::write(guest.join("proc/sys/vm/swappiness"), "30\n").unwrap();
    let web = stage.id("web");
    Set { stage, web, guest }
}

/// The guest has this document by its tag.
pub(crate) fn give(set: &Set, daemon: &Running, document: &str) {
    let scripts = set.guest.join("scripts").display().to_string();
    daemon.create(&document.replace("SCRIPTS", &scripts));
    daemon.map("front", "front");
    daemon.wait_domain(set.web, "its guest has it", has(set, "calm", "60"));
}

/// The guest has the persona by its tag.
pub(crate) fn start(rest: &str) -> (Set, Running, Agent) {
    let set = site("guest");
    let agent = Agent::start(&set.guest);
    let daemon = set.stage.start();
    give(&set, &daemon, &format!("{FRONT}{rest}"));
    (set, daemon, agent)
}

pub(crate) fn file(guest: &Path, path: &str) -> String {
    fs::read_to_string(guest.join(path)).unwrap_or_default()
}

/// The guest has confirmed what it has, and these are the values.
pub(crate) fn has(set: &Set, tier: &str, swappiness: &str) -> impl Fn(&DomainView) -> bool {
    let guest = set.guest.clone();
    let (tier, swappiness) = (format!("TIER='{tier}'"), format!("{swappiness}\n"));
    move |domain| {
        let variables = file(&guest, "etc/profile.d/50-virt-persona.sh");
        domain.activation.state == ActivationState::Active
            && variables.replace('"', "'").contains(&tier)
            && file(&guest, "proc/sys/vm/swappiness") == swappiness
    }
}

pub(crate) fn fill(set: &Set, mebibytes: u64) {
    set.stage.simulated.set_memory_used(set.web, mib(mebibytes));
}

/// It is adjusted.
pub(crate) fn busy(set: &Set, daemon: &Running) -> DomainView {
    fill(set, 400);
    daemon.wait_domain(set.web, "it is adjusted", has(set, "busy", "1"))
}

pub(crate) fn calm(set: &Set, daemon: &Running) -> DomainView {
    fill(set, 100);
    daemon.wait_domain(set.web, "it is taken back", has(set, "calm", "60"))
}

/// How often scripts of the persona ran.
pub(crate) fn scripts(set: &Set) -> usize {
    file(&set.guest, "scripts").lines().count()
}

fn web() -> DomainName {
    DomainName("web".into())
}

fn deactivate(daemon: &Running) {
    let off = daemon.ask(Command::Deactivate { domain: web() });
    assert!(off.is_ok(), "{off:?}");
}

/// Waits for some ticks, in which whatever was going to happen has happened.
pub(crate) fn ticks(daemon: &Running) {
    let now = daemon.view().manager.ticks;
    daemon.wait("it ticks on", |view| view.manager.ticks > now + 25);
}

#[test]
fn a_rule_gives_settings_other_values_and_its_until_takes_them_back_without_a_script() {
    let (set, daemon, _agent) = start("");
    assert_eq!(scripts(&set), 2);
    let shown = busy(&set, &daemon);
    let detail = shown.activation.detail.unwrap_or_default();
    assert!(
        detail.contains("adjusted by rules: environment_variables.TIER = busy by rule busy, os_settings.sysctl.vm.swappiness = 1 by rule busy"),
        "{detail}"
    );
    daemon.wait_explained("web", "its rule stands", |explained| {
        let rule = &explained.rules[0];
        rule.state == RuleState::Standing
            && rule
                .detail
                .as_ref()
                .is_some_and(|detail| detail.contains("environment_variables.TIER = busy"))
    });
    let effective = daemon.ask(Command::Effective { domain: web() });
    assert!(
        matches!(&effective, Ok(Reply::Effective(view)) if view.document.contains("TIER: busy # rule busy")),
        "{effective:?}"
    );
    let shown = calm(&set, &daemon);
    let detail = shown.activation.detail.unwrap_or_default();
    assert!(!detail.contains("adjusted"), "{detail}");
    busy(&set, &daemon);
    calm(&set, &daemon);
    assert_eq!(scripts(&set), 2, "they run once an activation of a persona");
    // One call of two actions is one activation.
    let told = daemon.told("binding").into_iter();
    let of_rules = told.filter(|text| text.contains("(generation ")).count();
    assert_eq!(of_rules, 5, "{:?}", daemon.told("binding"));
}

#[test]
fn what_a_rule_adjusted_holds_over_every_end_of_the_daemon_and_its_until_is_waited_for_again() {
    let (set, daemon, _agent) = start("");
    // The wish is on the disk, and nothing else may be.
    fill(&set, 400);
    daemon.wait_record("it is wished", |record| {
        record.text.starts_with("rules adjust the persona")
    });
    daemon.kill();
    let daemon = set.stage.start();
    daemon.wait_domain(set.web, "it is adjusted", has(&set, "busy", "1"));
    daemon.kill();
    let daemon = set.stage.start();
    daemon.wait_domain(set.web, "it still is", has(&set, "busy", "1"));
    // Between the two, so that neither the rule nor its until holds.
    fill(&set, 256);
    ticks(&daemon);
    daemon.kill();
    let daemon = set.stage.start();
    ticks(&daemon);
    daemon.wait_domain(set.web, "it still is", has(&set, "busy", "1"));
    calm(&set, &daemon);
    daemon.kill();
    let daemon = set.stage.start();
    ticks(&daemon);
    daemon.wait_domain(set.web, "it stays so", has(&set, "calm", "60"));
    assert_eq!(scripts(&set), 2);
}

#[test]
fn a_guest_that_is_away_gets_what_was_adjusted_meanwhile_and_a_restart_of_the_domain_keeps_it() {
    let (set, daemon, agent) = start("");
    drop(agent);
    fill(&set, 400);
    daemon.wait_domain(set.web, "it waits for the agent", |domain| {
        domain.activation.state == ActivationState::WaitingForAgent
    });
    let agent = Agent::start(&set.guest);
    daemon.wait_domain(set.web, "it is adjusted", has(&set, "busy", "1"));
    drop(agent);
    fill(&set, 256);
    set.stage.simulated.set_state(set.web, RunState::Off);
    daemon.wait_domain(set.web, "it is off", |domain| domain.state == RunState::Off);
    set.stage.simulated.set_state(set.web, RunState::Running);
    let _agent = Agent::start(&set.guest);
    ticks(&daemon);
    daemon.wait_domain(set.web, "it still is", has(&set, "busy", "1"));
    calm(&set, &daemon);
    assert_eq!(scripts(&set), 2);
}

#[test]
fn a_person_takes_back_what_rules_adjusted_and_it_is_not_adjusted_again_at_once() {
    let (set, daemon, _agent) = start("");
    busy(&set, &daemon);
    deactivate(&daemon);
    daemon.wait_domain(set.web, "it is taken back", has(&set, "calm", "60"));
    ticks(&daemon);
    daemon.wait_domain(set.web, "it stays so", has(&set, "calm", "60"));
    // What a person applies is what is written, and its scripts run.
    calm(&set, &daemon);
    ticks(&daemon);
    busy(&set, &daemon);
    assert_eq!(scripts(&set), 2);
    daemon.apply("web", "front");
    daemon.wait_domain(set.web, "it is as written", has(&set, "calm", "60"));
    assert_eq!(scripts(&set), 4);
}

#[test]
fn another_version_of_the_persona_ends_what_the_rules_of_the_one_before_adjusted() {
    let (set, daemon, _agent) = start("");
    busy(&set, &daemon);
    fill(&set, 256);
    ticks(&daemon);
    let updated = daemon.ask(Command::UpdatePersona {
        name: "front".into(),
        document: "name: front\nenvironment_variables: {TIER: new}\nos_settings: {sysctl: {vm.swappiness: 60}}\n".into(),
        format: None,
        note: None,
    });
    assert!(updated.is_ok(), "{updated:?}");
    daemon.wait_domain(set.web, "it is the new one", has(&set, "new", "60"));
    let ended = daemon.told("binding");
    assert!(
        ended
            .iter()
            .any(|text| text.starts_with("what rules adjusted ends with the persona")),
        "{ended:?}"
    );
}

#[test]
fn with_low_trust_a_person_decides_and_takes_back_as_well() {
    let (set, daemon, _agent) = start("trust_levels: {file_system_modification: low}\n");
    fill(&set, 400);
    approve(&set, &daemon, "environment_variables.TIER");
    daemon.wait_domain(set.web, "it is adjusted", has(&set, "busy", "60"));
    fill(&set, 100);
    approve(&set, &daemon, "environment_variables.TIER");
    daemon.wait_domain(set.web, "it is taken back", has(&set, "calm", "60"));
}

/// A proposal for this waits and is approved.
fn approve(set: &Set, daemon: &Running, word: &str) {
    let of = |proposal: &&ProposalView| proposal.text.contains(word);
    let waits = daemon.wait_domain(set.web, "it is proposed", |domain| {
        domain.proposals.iter().any(|proposal| of(&proposal))
    });
    for proposal in waits.proposals.iter().filter(of) {
        let id = proposal.id;
        let approved = daemon.ask(Command::Approve { id });
        assert!(approved.is_ok(), "{approved:?}");
    }
}

#[test]
fn what_a_person_approved_waits_for_the_cooldown_over_a_kill_and_then_comes() {
    let set = site("guest");
    let _agent = Agent::start(&set.guest);
    let daemon = set.stage.start();
    let slowly = FRONT.replace("cooldown: 1s", "cooldown: 10m");
    let low = "trust_levels: {file_system_modification: low}\n";
    give(&set, &daemon, &format!("{slowly}{low}"));
    fill(&set, 400);
    approve(&set, &daemon, "environment_variables.TIER");
    daemon.wait_domain(set.web, "one is there", has(&set, "busy", "60"));
    approve(&set, &daemon, "vm.swappiness");
    ticks(&daemon);
    daemon.wait_domain(set.web, "the other waits", has(&set, "busy", "60"));
    daemon.kill();
    // Neither the rule nor its until holds any more: it is the person's word that counts.
    fill(&set, 256);
    let daemon = set.stage.start();
    ticks(&daemon);
    daemon.wait_domain(set.web, "it still waits", has(&set, "busy", "60"));
    set.stage.suspend(Duration::from_secs(10 * 60));
    daemon.wait_domain(set.web, "it comes", has(&set, "busy", "1"));
    daemon.wait_record("it is told", |record| {
        record.text.contains("is carried out") && record.text.contains("vm.swappiness")
    });
}

#[test]
fn what_a_person_takes_back_is_not_done_for_an_earlier_word_either() {
    let set = site("guest");
    let _agent = Agent::start(&set.guest);
    let daemon = set.stage.start();
    let slowly = FRONT.replace("cooldown: 1s", "cooldown: 10m");
    let low = "trust_levels: {file_system_modification: low}\n";
    give(&set, &daemon, &format!("{slowly}{low}"));
    fill(&set, 400);
    approve(&set, &daemon, "environment_variables.TIER");
    daemon.wait_domain(set.web, "one is there", has(&set, "busy", "60"));
    approve(&set, &daemon, "vm.swappiness");
    ticks(&daemon);
    deactivate(&daemon);
    daemon.wait_domain(set.web, "nothing is there", has(&set, "calm", "60"));
    daemon.wait_record("it is told", |record| {
        record.text.contains("cannot be carried out") && record.text.contains("vm.swappiness")
    });
    set.stage.suspend(Duration::from_secs(10 * 60));
    daemon.kill();
    let daemon = set.stage.start();
    ticks(&daemon);
    daemon.wait_domain(set.web, "it stays so", has(&set, "calm", "60"));
}

/// As FRONT, with a script that goes on when it may.
const SLOW: &str = "name: front
environment_variables: {TIER: calm}
os_settings: {sysctl: {vm.swappiness: 60}}
pre_activation_script: {text: \"echo ran >> SCRIPTS; while [ -e SCRIPTS.wait ]; do sleep 0.05; done\", timeout: 2m}
post_activation_script: echo ran >> SCRIPTS
adaptation_rules:
  - name: busy
    when: memory.utilization > 70% FOR 1s
    then: [apply environment_variables.TIER = busy, apply os_settings.sysctl.vm.swappiness = 1]
    until: memory.utilization < 40% FOR 1s
    cooldown: 1s
    source: balloon
";

#[test]
fn a_rule_does_not_overtake_an_activation_of_which_nobody_knows_how_it_ended() {
    let set = site("behind");
    let channel = set.stage.path().join("guest/agent.sock");
    fs::create_dir_all(channel.parent().unwrap()).unwrap();
    let relay = Relay::start(&channel, Agent::socket(&set.guest));
    let _agent = Agent::start(&set.guest);
    let waits = set.guest.join("scripts.wait");
    fs::write(&waits, "").unwrap();
    let daemon = set.stage.start();
    let scripts_at = set.guest.join("scripts").display().to_string();
    daemon.create(&SLOW.replace("SCRIPTS", &scripts_at));
    daemon.map("front", "front");
    wait_scripts(&daemon, &set, 1);
    // The guest is at it, and nobody hears how it ends.
    relay.hold();
    relay.cut();
    daemon.wait_domain(set.web, "its agent is away", |domain| {
        domain.activation.state == ActivationState::WaitingForAgent
    });
    fill(&set, 400);
    daemon.wait_record("its rule asks for it", |record| {
        record.kind == "decision" && record.text.contains("rule busy asks for")
    });
    ticks(&daemon);
    fs::remove_file(&waits).unwrap();
    relay.release();
    daemon.wait_domain(set.web, "it is adjusted", has(&set, "busy", "1"));
    assert_eq!(scripts(&set), 2, "{:#?}", daemon.audit());
}

/// The scripts have written so many lines.
fn wait_scripts(daemon: &Running, set: &Set, lines: usize) {
    daemon.wait_domain(set.web, "its scripts run", |_| scripts(set) >= lines);
}

#[test]
fn what_was_adjusted_goes_back_also_where_the_next_version_has_failed() {
    let (set, daemon, _agent) = start("");
    busy(&set, &daemon);
    let failing = FRONT.replace("echo ran >> SCRIPTS", "exit 3");
    assert!(failing.contains("exit 3"));
    let update = Command::UpdatePersona {
        name: "front".into(),
        document: failing,
        format: None,
        note: None,
    };
    let updated = daemon.ask(update);
    assert!(updated.is_ok(), "{updated:?}");
    let failed = |domain: &DomainView| domain.activation.state == ActivationState::Failed;
    daemon.wait_domain(set.web, "it has failed", failed);
    ticks(&daemon);
    let is = |tier: &str| {
        let variables = file(&set.guest, "etc/profile.d/50-virt-persona.sh");
        variables
            .replace('"', "'")
            .contains(&format!("TIER='{tier}'"))
    };
    assert!(is("busy"), "the version before goes on as it was adjusted");
    fill(&set, 100);
    let shown = daemon.wait_domain(set.web, "it is calm", |domain| {
        failed(domain)
            && is("calm")
            && domain
                .activation
                .detail
                .as_ref()
                .is_some_and(|detail| !detail.contains("adjusted"))
    });
    assert_eq!(shown.persona.as_ref().map(|bound| bound.version), Some(2));
    // The version that failed is not tried again, also by a daemon that knows it from its store alone.
    daemon.kill();
    let daemon = set.stage.start();
    ticks(&daemon);
    fill(&set, 400);
    daemon.wait_domain(set.web, "it is adjusted anew", |domain| {
        failed(domain) && is("busy")
    });
    let told = daemon.told("activation");
    let failures = told
        .iter()
        .filter(|text| text.contains("it failed in the guest"));
    assert_eq!(failures.count(), 1, "{told:#?}");
    assert_eq!(scripts(&set), 2, "no script of the first version ran again");
    daemon.apply("web", "front@1");
    daemon.wait_domain(set.web, "a person's word ends it", has(&set, "calm", "60"));
}

#[test]
fn a_package_that_a_rule_wants_is_asked_for_in_the_guest_and_no_more_after_it() {
    let rule = "  - name: tools
    when: memory.utilization > 70% FOR 1s
    then: install package curl
    until: memory.utilization < 40% FOR 1s
    source: balloon
";
    let (set, daemon, _agent) = start(rule);
    fill(&set, 400);
    let said = |domain: &DomainView| domain.activation.detail.clone().unwrap_or_default();
    // This guest has nothing that installs packages, and says so of this one.
    let shown = daemon.wait_domain(set.web, "the package is asked for", |domain| {
        has(&set, "busy", "1")(domain) && said(domain).contains("package curl (the guest has none")
    });
    assert!(
        said(&shown).contains("package curl by rule tools"),
        "{}",
        said(&shown)
    );
    let shown = calm(&set, &daemon);
    assert!(!said(&shown).contains("curl"), "{}", said(&shown));
}
