//! Settings by the real agent in a file tree of its own. Kernel parameters are plain files there, and `systemctl` is a small
//! program that keeps what it is told.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod harness;

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use agent_protocol::{
    Activation, ActivationReply, Operation, SettingOutcome, Settings, SettingsReply,
    message::{DeactivationReply, OpStatus, ReplyBody},
    settings::{Frequency, LoggingLevel, SETTINGS_FEATURE},
};
use harness::{
    Guest, Peer, activate, activation, code,
    debian::{desktop, program, tree},
    fresh_id, ok, recovered, script, settled, stride,
};

const SYSCTL_D: &str = "etc/sysctl.d/50-virt-persona.conf";
const JOURNALD: &str = "etc/systemd/journald.conf.d/50-virt-persona.conf";

fn all() -> Settings {
    Settings {
        sysctl: [
            ("vm.swappiness", "1"),
            ("net.ipv4.tcp_rmem", "4096 65536 131072"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
        services: [("cron", true), ("ssh.service", false), ("bluetooth", false)]
            .map(|(name, enabled)| (name.to_owned(), enabled))
            .into(),
        logging_level: Some(LoggingLevel::Warning),
        auto_update: Some(Frequency::Daily),
        security_scan: Some(Frequency::Weekly),
        editor: Some("nano".to_owned()),
        terminal_shell: Some("/usr/bin/zsh".to_owned()),
        ..look("dark", "python", "adblock")
    }
}

fn look(theme: &str, ide: &str, browser: &str) -> Settings {
    Settings {
        theme: Some(theme.to_owned()),
        ide_extensions: vec![ide.to_owned()],
        browser_extensions: vec![browser.to_owned()],
        ..Settings::default()
    }
}

fn sysctl(key: &str, value: &str) -> Settings {
    Settings {
        sysctl: [(key.to_owned(), value.to_owned())].into(),
        ..Settings::default()
    }
}

fn service(name: &str, enabled: bool) -> Settings {
    Settings {
        services: [(name.to_owned(), enabled)].into(),
        ..Settings::default()
    }
}

fn with(generation: u64, settings: Settings) -> Activation {
    Activation {
        settings,
        ..activation(generation, &[])
    }
}

fn hold(peer: &mut Peer, generation: u64, settings: Settings) -> BTreeMap<String, SettingOutcome> {
    let reply: ActivationReply = ok(peer.ask(activate(with(generation, settings))));
    outcomes(reply.settings.unwrap())
}

fn let_go(peer: &mut Peer, generation: u64) -> BTreeMap<String, SettingOutcome> {
    let reply: DeactivationReply = ok(peer.ask(Operation::Deactivate { generation }));
    outcomes(reply.settings.unwrap())
}

fn outcomes(reply: SettingsReply) -> BTreeMap<String, SettingOutcome> {
    assert_eq!(reply.left_out, 0);
    reply
        .lines
        .into_iter()
        .map(|line| (line.setting, line.outcome))
        .collect()
}

fn sentence(body: ReplyBody) -> String {
    match body {
        ReplyBody::Ok(value) => panic!("{value}"),
        ReplyBody::Err(error) => {
            assert_eq!(error.code.as_str(), "setting_refused", "{error}");
            error.message
        }
    }
}

/// What the agent's program says when it is asked in the guest.
fn say(guest: &Guest, word: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_virt-persona-agent"))
        .arg(word)
        .arg("--state")
        .arg(guest.path("state"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_a_scan_finds_is_logged_at_a_level_that_is_kept() {
    let guest = desktop();
    let (_agent, mut peer, _) = guest.greet();
    let levels = [
        (Some(LoggingLevel::Debug), "warning"),
        (None, "warning"),
        (Some(LoggingLevel::Error), "err"),
        (Some(LoggingLevel::Critical), "crit"),
        (Some(LoggingLevel::Emergency), "alert"),
    ];
    for (id, (logging_level, word)) in (1..).zip(levels) {
        let wish = Settings {
            logging_level,
            security_scan: Some(Frequency::Daily),
            auto_update: Some(Frequency::Daily),
            ..Settings::default()
        };
        hold(&mut peer, id, wish);
        let unit = |task: &str| {
            let path = format!("etc/systemd/system/virt-persona-{task}.service");
            guest.read(&path).unwrap()
        };
        let line = format!("SyslogLevel={word}\n");
        assert!(unit("scan").contains(&line), "{}", unit("scan"));
        assert!(unit("update").contains("SyslogLevel=info\n"));
    }
}

#[test]
fn every_setting_is_brought_about_and_goes_with_the_persona() {
    use SettingOutcome::{Applied, Restored, Unchanged};
    let guest = desktop();
    let before = tree(&guest);
    let (_agent, mut peer, _) = guest.greet();
    let lines = hold(&mut peer, 1, all());
    let expected = [
        ("auto_update_frequency", Applied),
        ("browser_extensions", Applied),
        ("editor", Applied),
        ("ide_extensions", Applied),
        ("logging_level", Applied),
        ("security_scan_frequency", Applied),
        ("service bluetooth", Unchanged),
        ("service cron", Applied),
        ("service ssh.service", Applied),
        ("sysctl at the next start", Applied),
        ("sysctl net.ipv4.tcp_rmem", Applied),
        ("sysctl vm.swappiness", Applied),
        ("terminal_shell", Applied),
        ("theme", Applied),
    ];
    assert_eq!(
        lines,
        expected
            .map(|(name, outcome)| (name.to_owned(), outcome))
            .into()
    );
    let has = |path: &str, part: &str| {
        let text = guest.read(path).unwrap_or_default();
        assert!(text.contains(part), "{path}: {text}");
    };
    has("proc/sys/vm/swappiness", "1");
    has(SYSCTL_D, "vm.swappiness = 1\n");
    has(JOURNALD, "MaxLevelStore=warning\n");
    has(
        "etc/rsyslog.d/00-virt-persona.conf",
        "if $syslogseverity > 4 then stop\n",
    );
    has(
        "etc/systemd/system/virt-persona-update.timer",
        "OnCalendar=daily\n",
    );
    has(
        "etc/systemd/system/virt-persona-update.service",
        "ExecStart=/usr/bin/apt-get -q update\n",
    );
    has(
        "etc/systemd/system/virt-persona-scan.timer",
        "OnCalendar=weekly\n",
    );
    has(
        "etc/systemd/system/virt-persona-scan.service",
        "SyslogLevel=warning\nExecStart=/usr/bin/debsecan\n",
    );
    has(
        "etc/profile.d/50-virt-persona.sh",
        "export EDITOR='/usr/bin/nano'\n",
    );
    has(
        "etc/profile.d/50-virt-persona.sh",
        "export SHELL='/usr/bin/zsh'\n",
    );
    has("etc/dconf/db/local", "color-scheme='prefer-dark'\n");
    for there in [
        "units/active.virt-persona-update.timer",
        "units/enabled.virt-persona-scan.timer",
        "units/active.cron.service",
        "units/enabled.cron.service",
    ] {
        assert!(guest.path(there).exists(), "{there}");
    }
    for gone in [
        "units/active.ssh.service",
        "units/enabled.ssh.service",
        "units/active.apt-daily-upgrade.timer",
    ] {
        assert!(!guest.path(gone).exists(), "{gone}");
    }
    let lines = let_go(&mut peer, 2);
    assert_eq!(lines["sysctl vm.swappiness"], Restored);
    assert_eq!(lines["service ssh.service"], Restored);
    assert_eq!(tree(&guest), before);
}

#[test]
fn the_same_settings_in_a_new_generation_change_nothing() {
    let guest = desktop();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, all());
    let (first, calls) = (tree(&guest), guest.read("calls").unwrap());
    let lines = hold(&mut peer, 2, all());
    let changed: Vec<_> = lines
        .iter()
        .filter(|(name, outcome)| {
            **outcome != SettingOutcome::Unchanged
                && !["editor", "terminal_shell"].contains(&name.as_str())
        })
        .collect();
    assert!(changed.is_empty(), "{changed:?}");
    assert_eq!(tree(&guest), first);
    let later = guest.read("calls").unwrap();
    let later = later.strip_prefix(&calls).unwrap();
    assert!(
        later.lines().all(|call| call.starts_with("show ")),
        "{later}"
    );
}

#[test]
fn there_and_back_again_leaves_every_byte_as_it_was() {
    let guest = desktop();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, all());
    let first = tree(&guest);
    let other = Settings {
        auto_update: Some(Frequency::Monthly),
        logging_level: Some(LoggingLevel::Debug),
        sysctl: sysctl("vm.swappiness", "7").sysctl,
        ..look("light", "go", "bitwarden")
    };
    hold(&mut peer, 2, other);
    assert_ne!(tree(&guest), first);
    assert!(guest.path("units/active.ssh.service").exists());
    hold(&mut peer, 3, all());
    assert_eq!(tree(&guest), first);
}

#[test]
fn settings_variables_and_scripts_together_come_back_byte_by_byte_and_twice_is_as_once() {
    let guest = desktop();
    let before = tree(&guest);
    let (_agent, mut peer, _) = guest.greet();
    let mut become_ = |generation: u64, settings: Settings, value: &str| {
        let mut wish = with(generation, settings);
        wish.environment = [("STAGE".to_owned(), value.to_owned())].into();
        wish.pre = script("test -z \"$NOSUCH\"");
        wish.post = script(&format!("test \"$STAGE\" = {value}"));
        ok::<ActivationReply>(peer.ask(activate(wish)));
        tree(&guest)
    };
    let first = become_(1, all(), "one");
    assert_eq!(become_(2, all(), "one"), first);
    assert_ne!(become_(3, sysctl("vm.swappiness", "7"), "two"), first);
    assert_eq!(become_(4, all(), "one"), first);
    let_go(&mut peer, 5);
    assert_eq!(tree(&guest), before);
}

#[test]
fn what_people_in_the_guest_have_changed_is_kept_and_said() {
    use SettingOutcome::Kept;
    let guest = desktop();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, all());
    guest.write(JOURNALD, "[Journal]\nMaxLevelStore=debug\n");
    guest.write("proc/sys/vm/swappiness", "33\n");
    fs::remove_file(guest.path("units/active.cron.service")).unwrap();
    let lines = hold(&mut peer, 2, all());
    for setting in ["logging_level", "sysctl vm.swappiness", "service cron"] {
        assert_eq!(lines[setting], Kept, "{setting}");
    }
    assert!(!guest.path(&format!("{JOURNALD}.virt-persona-new")).exists());
    // Another level than the one that was overwritten by hand: the file stays, and the new one lies beside it.
    let other = Settings {
        logging_level: Some(LoggingLevel::Error),
        ..all()
    };
    assert_eq!(hold(&mut peer, 3, other)["logging_level"], Kept);
    let beside = guest.read(&format!("{JOURNALD}.virt-persona-new")).unwrap();
    assert!(beside.contains("MaxLevelStore=err\n"), "{beside}");
    let lines = let_go(&mut peer, 4);
    for setting in ["logging_level", "sysctl vm.swappiness", "service cron"] {
        assert_eq!(lines[setting], Kept, "{setting}");
    }
    assert_eq!(
        guest.read(JOURNALD).as_deref(),
        Some("[Journal]\nMaxLevelStore=debug\n")
    );
    assert_eq!(
        guest.read("proc/sys/vm/swappiness").as_deref(),
        Some("33\n")
    );
    assert!(!guest.path(&format!("{JOURNALD}.virt-persona-new")).exists());
    assert!(guest.path("units/enabled.cron.service").exists());
}

#[test]
fn what_the_guests_owner_has_said_elsewhere_goes_before() {
    use SettingOutcome::{Applied, Kept};
    let guest = desktop();
    guest.write("etc/sysctl.d/60-mine.conf", "vm/swappiness = 5\n");
    guest.write("etc/sysctl.d/10-early.conf", "net.ipv4.tcp_rmem = 1 2 3\n");
    guest.write("units/masked.cron.service", "");
    let (_agent, mut peer, _) = guest.greet();
    let lines = hold(&mut peer, 1, all());
    assert_eq!(lines["sysctl vm.swappiness"], Kept);
    assert_eq!(lines["sysctl net.ipv4.tcp_rmem"], Applied);
    assert_eq!(lines["service cron"], Kept);
    assert_eq!(
        guest.read("proc/sys/vm/swappiness").as_deref(),
        Some("60\n")
    );
    // The persona's own variables go before the defaults that come of settings.
    let mut wish = with(2, all());
    wish.environment = [("EDITOR".to_owned(), "ed".to_owned())].into();
    ok::<ActivationReply>(peer.ask(activate(wish)));
    let profile = guest.read("etc/profile.d/50-virt-persona.sh").unwrap();
    assert!(profile.contains("export EDITOR='ed'\n"), "{profile}");
    assert!(
        profile.contains("export VISUAL='/usr/bin/nano'\n"),
        "{profile}"
    );
}

#[test]
fn what_the_guest_cannot_be_like_is_left_out_and_said_and_the_rest_comes_about() {
    use SettingOutcome::{Applied, Refused};
    let guest = desktop();
    fs::remove_file(guest.path("usr/bin/debsecan")).unwrap();
    let before = tree(&guest);
    let (_agent, mut peer, ack) = guest.greet();
    assert!(ack.feats.iter().any(|feature| feature == SETTINGS_FEATURE));
    let mut wish = all();
    wish.sysctl.insert("vm.nosuch".to_owned(), "1".to_owned());
    wish.services.insert("nosuch".to_owned(), true);
    wish.editor = Some("nosuch".to_owned());
    let reply: ActivationReply = ok(peer.ask(activate(with(1, wish.clone()))));
    let reasons: BTreeMap<String, String> = reply
        .settings
        .clone()
        .unwrap()
        .lines
        .into_iter()
        .map(|line| (line.setting, line.reason))
        .collect();
    let lines = outcomes(reply.settings.unwrap());
    for (setting, part) in [
        ("sysctl vm.nosuch", "no such parameter"),
        ("service nosuch", "software_stack"),
        ("security_scan_frequency", "software_stack"),
        ("editor", "no program nosuch"),
    ] {
        assert_eq!(lines[setting], Refused, "{setting}");
        assert!(reasons[setting].contains(part), "{}", reasons[setting]);
    }
    for setting in ["sysctl vm.swappiness", "service cron", "terminal_shell"] {
        assert_eq!(lines[setting], Applied, "{setting}");
    }
    let sysctl_d = guest.read(SYSCTL_D).unwrap();
    assert!(!sysctl_d.contains("nosuch"), "{sysctl_d}");
    let profile = guest.read("etc/profile.d/50-virt-persona.sh").unwrap();
    assert!(!profile.contains("EDITOR"), "{profile}");
    let status = say(&guest, "status");
    assert!(
        status.contains("cannot be had: editor: the guest has no program nosuch"),
        "{status}"
    );
    // Somebody installs what was missing, and asks again.
    for path in ["usr/bin/debsecan", "usr/bin/nosuch"] {
        program(&guest, path, "#!/bin/sh\n");
    }
    guest.write("usr/lib/systemd/system/nosuch.service", "");
    guest.write("proc/sys/vm/nosuch", "0\n");
    let lines = hold(&mut peer, 2, wish);
    for setting in ["sysctl vm.nosuch", "service nosuch", "editor"] {
        assert_eq!(lines[setting], Applied, "{setting}");
    }
    assert!(guest.path("units/active.virt-persona-scan.timer").exists());
    let_go(&mut peer, 3);
    for path in [
        "usr/bin/debsecan",
        "usr/bin/nosuch",
        "proc/sys/vm/nosuch",
        "usr/lib/systemd/system/nosuch.service",
    ] {
        fs::remove_file(guest.path(path)).unwrap();
    }
    assert_eq!(tree(&guest), before);
}

#[test]
fn what_went_with_its_module_or_package_holds_nothing_up() {
    let guest = desktop();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, all());
    fs::remove_file(guest.path("proc/sys/vm/swappiness")).unwrap();
    fs::remove_file(guest.path("usr/bin/nano")).unwrap();
    let lines = hold(&mut peer, 2, all());
    for setting in ["sysctl vm.swappiness", "editor"] {
        assert_eq!(lines[setting], SettingOutcome::Refused, "{setting}");
    }
    let_go(&mut peer, 3);
    assert!(!guest.path(SYSCTL_D).exists());
}

#[test]
fn what_fails_in_the_midst_undoes_all_that_was_done() {
    let guest = desktop();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, sysctl("vm.swappiness", "7"));
    let first = tree(&guest);
    guest.write("broken.cron.service", "");
    let said = sentence(peer.ask(activate(with(2, all()))));
    assert!(said.contains("Job for cron.service failed"), "{said}");
    assert_eq!(tree(&guest), first);
    // A script that fails after the settings undoes them too.
    fs::remove_file(guest.path("broken.cron.service")).unwrap();
    let mut wish = with(3, all());
    wish.post = script("exit 1");
    assert_eq!(code(peer.ask(activate(wish))), "post_failed");
    assert_eq!(tree(&guest), first);
    hold(&mut peer, 4, all());
    let_go(&mut peer, 5);
    assert_eq!(guest.read("proc/sys/vm/swappiness").unwrap().trim(), "60");
}

#[test]
fn settings_can_need_what_the_pre_script_installs() {
    let guest = desktop();
    let (_agent, mut peer, _) = guest.greet();
    let mut wish = with(1, service("new", true));
    wish.pre = script(&format!(
        ": > {}",
        guest.path("usr/lib/systemd/system/new.service").display()
    ));
    ok::<ActivationReply>(peer.ask(activate(wish)));
    assert!(guest.path("units/active.new.service").exists());
}

#[test]
fn after_a_boot_that_lost_them_values_are_set_again() {
    let guest = desktop();
    let (agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, sysctl("vm.swappiness", "1"));
    agent.kill();
    // The kernel has its default again, another one than in the boot before.
    let record = guest.read("state/gen/1.json").unwrap();
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(record.contains(boot_id.trim()));
    guest.write(
        "state/gen/1.json",
        &record.replace(boot_id.trim(), "another boot"),
    );
    guest.write("proc/sys/vm/swappiness", "50\n");
    let (_agent, mut peer, _) = guest.greet();
    ok::<OpStatus>(peer.ask(Operation::OpStatus { id: fresh_id() }));
    assert_eq!(guest.read("proc/sys/vm/swappiness").as_deref(), Some("1\n"));
    let_go(&mut peer, 2);
    assert_eq!(
        guest.read("proc/sys/vm/swappiness").as_deref(),
        Some("50\n")
    );
}

#[test]
fn without_systemd_cron_does_it_and_services_are_refused() {
    let guest = desktop();
    fs::remove_dir_all(guest.path("run/systemd")).unwrap();
    fs::create_dir_all(guest.path("etc/cron.d")).unwrap();
    let (_agent, mut peer, _) = guest.greet();
    let regularly = Settings {
        auto_update: Some(Frequency::Hourly),
        security_scan: Some(Frequency::Daily),
        ..Settings::default()
    };
    hold(&mut peer, 1, regularly);
    let update = guest.read("etc/cron.d/virt-persona-update").unwrap();
    assert!(
        update.contains("17 * * * * root /usr/bin/apt-get -q update && /usr/bin/apt-get"),
        "{update}"
    );
    assert!(guest.path("etc/cron.d/virt-persona-scan").exists());
    let lines = hold(&mut peer, 2, service("cron", true));
    assert_eq!(lines["service cron"], SettingOutcome::Refused);
    assert!(!guest.path("etc/cron.d/virt-persona-update").exists());
    assert_eq!(guest.read("calls"), None);
}

#[test]
fn an_editor_is_found_by_what_people_call_it_and_waits() {
    let guest = desktop();
    program(&guest, "usr/bin/code", "#!/bin/sh\n");
    program(&guest, "usr/local/bin/Strange", "#!/bin/sh\n");
    let (_agent, mut peer, _) = guest.greet();
    for (generation, (name, command)) in (1..).zip([
        ("VSCode", "/usr/bin/code --wait"),
        ("code", "/usr/bin/code --wait"),
        ("/usr/bin/code", "/usr/bin/code --wait"),
        ("Nano", "/usr/bin/nano"),
        ("Strange", "/usr/local/bin/Strange"),
    ]) {
        let editor = Settings {
            editor: Some(name.to_owned()),
            ..Settings::default()
        };
        let lines = hold(&mut peer, generation, editor);
        assert_eq!(lines["editor"], SettingOutcome::Applied, "{name}");
        let text = guest.read("etc/profile.d/50-virt-persona.sh").unwrap();
        assert!(
            text.contains(&format!("export EDITOR='{command}'\n")),
            "{name}: {text}"
        );
    }
}

#[test]
fn the_guests_owner_can_forbid_settings() {
    let guest = desktop();
    guest.write("etc/virt-persona/agent.toml", "[allow]\nsettings = false\n");
    let (_agent, mut peer, _) = guest.greet();
    let ReplyBody::Err(error) = peer.ask(activate(with(1, all()))) else {
        panic!("it was allowed")
    };
    assert_eq!(error.code.as_str(), "forbidden");
    assert!(error.message.contains("`settings`"), "{error}");
    ok::<ActivationReply>(peer.ask(activate(activation(2, &[]))));
}

#[test]
fn status_says_what_is_held_and_history_what_came_of_each_generation() {
    let guest = desktop();
    let (_agent, mut peer, _) = guest.greet();
    hold(&mut peer, 1, sysctl("vm.swappiness", "1"));
    guest.write("broken.cron.service", "");
    sentence(peer.ask(activate(with(2, service("cron", true)))));
    let status = say(&guest, "status");
    assert!(
        status.contains("held: sysctl vm.swappiness: 1 (before: 60)\n"),
        "{status}"
    );
    assert!(
        status.contains("held: file /etc/sysctl.d/50-virt-persona.conf"),
        "{status}"
    );
    let history = say(&guest, "history");
    let lines: Vec<&str> = history.lines().collect();
    assert_eq!(lines.len(), 2, "{history}");
    assert!(
        lines[0].contains("generation 2: web version 2, failed: "),
        "{history}"
    );
    assert!(
        lines[1].ends_with("generation 1: web version 1, activated, holds"),
        "{history}"
    );
    // A date of the guest's clock, such as 2026-11-21 18:25:35 UTC.
    assert!(
        lines[0].starts_with("20") && lines[0].contains(" UTC  "),
        "{history}"
    );
}

/// Kills the agent at every third point between two file operations, kernel values and programs of an activation from one set
/// of settings to another, until one activation passes all of them. A file takes four points and a program two, so that
/// every kind of point has its turn; each point of the rest of the sequence is in `activation.rs`.
#[test]
fn a_kill_at_any_point_leaves_the_old_or_the_new_settings() {
    const LANES: usize = 4;
    let stride = stride(3);
    let old = || Settings {
        services: [("ssh".to_owned(), false)].into(),
        logging_level: Some(LoggingLevel::Warning),
        sysctl: sysctl("vm.swappiness", "7").sysctl,
        ..look("dark", "python", "adblock")
    };
    let new = || Settings {
        services: [("cron".to_owned(), true)].into(),
        auto_update: Some(Frequency::Daily),
        sysctl: sysctl("vm.swappiness", "1").sysctl,
        // The defaults of dconf are another text, and the programs of one kind of extension lose theirs.
        theme: Some("light".to_owned()),
        browser_extensions: vec!["bitwarden".to_owned()],
        ..Settings::default()
    };
    let expected = &[old(), new()].map(|settings| {
        let guest = desktop();
        let (_agent, mut peer, _) = guest.greet();
        hold(&mut peer, 1, old());
        hold(&mut peer, 2, settings);
        tree(&guest)
    });
    let ready = &desktop();
    let (agent, mut peer, _) = ready.greet();
    hold(&mut peer, 1, old());
    agent.kill();
    let before = &tree(&desktop());
    // Most of the time goes into waiting for the disk, so several are at it.
    let fates = &[AtomicU32::new(0), AtomicU32::new(0)];
    let try_from = |first: usize| {
        for point in (first..).step_by(LANES * stride) {
            let guest = ready.copy();
            let mut agent = guest.start_with(&[("VIRT_PERSONA_AGENT_CRASH_AT", point.to_string())]);
            let request = fresh_id();
            let survived = guest.ask_doomed(&mut agent, &request, activate(with(2, new())));
            agent.kill();
            let (_agent, mut peer, _) = guest.greet();
            recovered(&mut peer);
            let status = settled(&mut peer, &request);
            let has_new = match &status {
                OpStatus::Done {
                    result: ReplyBody::Ok(_),
                } => true,
                OpStatus::Unknown => false,
                other => panic!("point {point}: {other:?}"),
            };
            assert_eq!(
                tree(&guest),
                expected[usize::from(has_new)],
                "point {point}"
            );
            fates[usize::from(has_new)].fetch_add(1, Ordering::Relaxed);
            assert!(!guest.path("state/journal.json").exists(), "point {point}");
            // And from there, tried for some: everything goes back to what was before any persona.
            if point % 5 == 0 {
                let_go(&mut peer, 3);
                assert_eq!(tree(&guest), *before, "point {point}");
            }
            if survived {
                break;
            }
        }
    };
    thread::scope(|scope| {
        for lane in 0..LANES {
            scope.spawn(move || try_from(1 + lane * stride));
        }
    });
    let fates = [0, 1].map(|fate: usize| fates[fate].load(Ordering::Relaxed));
    assert!(
        fates[0] > 1 && fates[1] > 20,
        "the points did not cover the sequence (release builds have none): {fates:?}"
    );
}
