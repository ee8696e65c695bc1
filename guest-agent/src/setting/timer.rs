//! What is done regularly: updates of packages by the guest's own package manager, and runs of its scanner. By a timer of
//! systemd where it runs the guest, else by cron. While a persona says how often packages are updated, the distribution's
//! own timer for it does not run beside.

use agent_protocol::{
    SettingOutcome, Settings,
    settings::{Frequency, LoggingLevel},
};

use super::{
    Guest, MARK, Machine, Once, Resource, SettingError, State, Wishes, logging, refused,
    unit::Existence,
};

/// Something that is done regularly.
struct Task {
    setting: &'static str,
    /// The name of its unit and of its file for cron.
    name: &'static str,
    description: &'static str,
    /// Commands, one after the other; the first that fails is the last.
    commands: Vec<String>,
    /// The level at which the journal has what they say.
    level: LoggingLevel,
}

/// A package manager: the program that tells of it, how it updates everything without asking, the distribution's timers.
struct PackageManager {
    program: &'static str,
    commands: &'static [&'static str],
    timers: &'static [&'static str],
}

const PACKAGE_MANAGERS: [PackageManager; 3] = [
    PackageManager {
        program: "apt-get",
        commands: &[
            "-q update",
            "-q -y -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold upgrade",
        ],
        timers: &["apt-daily-upgrade.timer"],
    },
    PackageManager {
        program: "dnf",
        commands: &["-q -y --refresh upgrade"],
        timers: &[
            "dnf-automatic.timer",
            "dnf-automatic-install.timer",
            "dnf5-automatic.timer",
        ],
    },
    PackageManager {
        program: "apk",
        commands: &["update --quiet", "upgrade --quiet"],
        timers: &[],
    },
];

/// Scanners by program, in the order of preference, and how they look at all without asking.
const SCANNERS: [(&str, &str); 4] = [
    (
        "clamscan",
        "--recursive --infected --exclude-dir=^/proc --exclude-dir=^/sys --exclude-dir=^/dev /",
    ),
    ("rkhunter", "--check --skip-keypress --report-warnings-only"),
    ("lynis", "audit system --cronjob"),
    ("debsecan", ""),
];

pub(super) fn wish_updates(
    settings: &Settings,
    machine: &mut Machine<'_>,
    wishes: &mut Wishes,
) -> Result<(), SettingError> {
    const SETTING: &str = "auto_update_frequency";
    let Some(frequency) = settings.auto_update else {
        return Ok(());
    };
    let guest = machine.guest;
    let found = PACKAGE_MANAGERS
        .iter()
        .find_map(|known| Some((known, guest.program(known.program)?)));
    let Some((manager, program)) = found else {
        if frequency == Frequency::Never {
            wishes.line(SETTING, SettingOutcome::Unchanged, "");
            return Ok(());
        }
        let reason = "the guest has none of the package managers apt-get, dnf and apk";
        return Err(refused(SETTING, reason));
    };
    // Theirs stops before ours begins.
    if guest.has_systemd() {
        for timer in manager.timers {
            if machine.unit(timer)?.existence == Existence::There {
                wishes.resource(SETTING, Resource::Unit((*timer).to_owned()), State::DOWN);
            }
        }
    }
    let task = Task {
        setting: SETTING,
        name: "virt-persona-update",
        description: "Updates of packages, as the persona of this machine has it",
        commands: manager
            .commands
            .iter()
            .map(|arguments| format!("{program} {arguments}"))
            .collect(),
        level: LoggingLevel::Info,
    };
    schedule(&task, frequency, guest, wishes)
}

pub(super) fn wish_scans(
    settings: &Settings,
    machine: &mut Machine<'_>,
    wishes: &mut Wishes,
) -> Result<(), SettingError> {
    const SETTING: &str = "security_scan_frequency";
    let Some(frequency) = settings.security_scan else {
        return Ok(());
    };
    let guest = machine.guest;
    let found = SCANNERS
        .iter()
        .find_map(|(name, arguments)| Some((guest.program(name)?, arguments)));
    let command = match found {
        Some((program, arguments)) => format!("{program} {arguments}").trim_end().to_owned(),
        None if frequency == Frequency::Never => String::new(),
        None => {
            let reason = "the guest has none of the scanners clamscan, rkhunter, lynis and debsecan; name the package \
                          of one in software_stack";
            return Err(refused(SETTING, reason));
        }
    };
    let task = Task {
        setting: SETTING,
        name: "virt-persona-scan",
        description: "Scan of this machine, as its persona has it",
        commands: vec![command],
        level: level_of_findings(settings),
    };
    schedule(&task, frequency, guest, wishes)
}

/// A scan is run for what it finds: that is a warning, and more where the persona has less than warnings dropped. What is an
/// emergency goes to every terminal, so that it is never one.
fn level_of_findings(settings: &Settings) -> LoggingLevel {
    match settings.logging_level {
        Some(LoggingLevel::Emergency | LoggingLevel::Alert) => LoggingLevel::Alert,
        Some(level @ (LoggingLevel::Critical | LoggingLevel::Error)) => level,
        _ => LoggingLevel::Warning,
    }
}

fn schedule(
    task: &Task,
    frequency: Frequency,
    guest: Guest<'_>,
    wishes: &mut Wishes,
) -> Result<(), SettingError> {
    let (calendar, delay, cron) = match frequency {
        Frequency::Never => {
            wishes.line(task.setting, SettingOutcome::Unchanged, "");
            return Ok(());
        }
        Frequency::Hourly => ("hourly", "5min", "17 * * * *"),
        Frequency::Daily => ("daily", "1h", "25 5 * * *"),
        Frequency::Weekly => ("weekly", "1h", "47 5 * * 7"),
        Frequency::Monthly => ("monthly", "1h", "52 5 1 * *"),
    };
    let Task {
        setting,
        name,
        description,
        commands,
        level,
    } = task;
    let (level, _) = logging::name_of(*level);
    if guest.has_systemd() {
        let run: String = commands
            .iter()
            .map(|command| format!("ExecStart={command}\n"))
            .collect();
        let service = format!(
            "{MARK}\n[Unit]\nDescription={description}\nAfter=network-online.target\n\n[Service]\nType=oneshot\n\
             Environment=DEBIAN_FRONTEND=noninteractive\nNice=10\nIOSchedulingClass=idle\nSyslogLevel={level}\n{run}"
        );
        // Persistent: what was due while the machine was off is done when it runs again.
        let timer = format!(
            "{MARK}\n[Unit]\nDescription={description}\n\n[Timer]\nOnCalendar={calendar}\n\
             RandomizedDelaySec={delay}\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n"
        );
        let reload = Some(Once::ReloadUnits);
        let directory = "/etc/systemd/system";
        wishes.file(
            setting,
            &format!("{directory}/{name}.service"),
            service,
            reload,
        );
        wishes.file(setting, &format!("{directory}/{name}.timer"), timer, reload);
        let unit = Resource::Unit(format!("{name}.timer"));
        wishes.resource(setting, unit, State::UP);
        return Ok(());
    }
    let commands = commands.join(" && ");
    if guest.has_directory("/etc/cron.d") {
        let text = format!(
            "{MARK}\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nDEBIAN_FRONTEND=noninteractive\n\
             {cron} root {commands}\n"
        );
        wishes.file(setting, &format!("/etc/cron.d/{name}"), text, None);
        return Ok(());
    }
    let periodic = format!("/etc/periodic/{calendar}");
    if guest.has_directory(&periodic) {
        let path = format!("{periodic}/{name}");
        let text = format!("#!/bin/sh\n{MARK}\n{commands}\n");
        let state = State::Text { text, mode: 0o755 };
        wishes.resource(setting, Resource::File(path), state);
        return Ok(());
    }
    Err(refused(
        setting,
        "the guest has neither systemd nor cron to do it regularly",
    ))
}
