//! One hook: where it lies, how it is run, and what it said when it refuses or fails. When hooks are run, and what follows, is
//! beside it.
//!
//! A hook is run only when root alone can have put it there: it, and the directories above it, belong to root and nobody
//! else may write to them. What is not so is left out, with a line in the log.

use std::{
    fs, io,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use agent_protocol::{
    Resize,
    limits::{HOOK_KILL_GRACE_MS, HOOKS_MAX, SCRIPT_OUTPUT_KEEP},
};

use super::Occasion;
use crate::{
    log::log,
    owned::{runnable, trusted},
    program::{self, Bounds, Ended, Nothing, ProgramError},
    script::PATH,
};

/// Where hooks lie, under the root.
pub(super) const DIRECTORY: &str = "etc/virt-persona/hooks";
/// What a hook prints at the beginning of a line to say when to ask again, in seconds.
const RETRY_AFTER: &str = "retry-after=";

pub(super) struct Hook {
    path: PathBuf,
    pub(super) name: String,
}

impl Hook {
    /// That it was not started, nor any after it.
    pub(super) fn left_out(&self) -> String {
        format!("hook {} was not run: no time was left", self.name)
    }

    /// What it said, or how it ended.
    pub(super) fn failure(&self, ended: &Ended) -> String {
        let name = &self.name;
        if ended.timed_out {
            return format!("hook {name} did not end in time");
        }
        let said = ended
            .head
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty() && !line.starts_with(RETRY_AFTER));
        match (said, ended.status.code(), ended.status.signal()) {
            (Some(said), _, _) => format!("hook {name}: {said}"),
            (None, Some(code), _) => format!("hook {name} exited with {code}"),
            (None, None, signal) => {
                format!("hook {name} was ended by signal {}", signal.unwrap_or(0))
            }
        }
    }
}

pub(super) fn retry_after(head: &str) -> Option<u64> {
    let seconds: u64 = head
        .lines()
        .find_map(|line| line.trim().strip_prefix(RETRY_AFTER))?
        .trim()
        .parse()
        .ok()?;
    seconds.checked_mul(1000)
}

/// The hooks of an occasion in their order.
pub(super) fn find(root: &Path, occasion: Occasion) -> Vec<Hook> {
    let top = root.join(DIRECTORY);
    let directory = top.join(format!("{}.d", occasion.name()));
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            log!("cannot read {}: {error}", directory.display());
            return Vec::new();
        }
    };
    let above = top.parent().unwrap_or(&top);
    for directory in [above, &top, &directory] {
        if let Err(why) = trusted(directory) {
            log!("hooks are left out: {} {why}", directory.display());
            return Vec::new();
        }
    }
    let mut hooks: Vec<Hook> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            // What editors and package managers leave beside a file has other characters.
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let left_over = [".dpkg-", ".rpmnew", ".rpmsave", ".swp"]
                .iter()
                .any(|part| name.contains(part));
            let usable = !name.starts_with('.') && name.chars().all(plain) && !left_over;
            let path = entry.path();
            usable.then_some(Hook { path, name })
        })
        .filter(|hook| match runnable(&hook.path) {
            Ok(()) => true,
            Err(why) => {
                log!("hook {} is left out: it {why}", hook.path.display());
                false
            }
        })
        .collect();
    hooks.sort_by(|a, b| a.name.cmp(&b.name));
    if hooks.len() > HOOKS_MAX {
        log!("{} has more than {HOOKS_MAX} hooks", directory.display());
        hooks.truncate(HOOKS_MAX);
    }
    hooks
}

pub(super) fn run(
    hook: &Hook,
    occasion: Occasion,
    resize: Resize,
    deadline: Instant,
) -> Result<Ended, io::Error> {
    let bounds = Bounds {
        deadline,
        grace: Duration::from_millis(HOOK_KILL_GRACE_MS),
        keep: SCRIPT_OUTPUT_KEEP,
    };
    let mut command = Command::new(&hook.path);
    command.env_clear();
    for kept in ["LANG", "TZ"] {
        command.envs(std::env::var_os(kept).map(|value| (kept, value)));
    }
    command
        .env("PATH", PATH)
        .env("HOME", "/root")
        .env("VIRT_PERSONA_HOOK", occasion.name())
        .env("VIRT_PERSONA_RESOURCE", resize.resource.name())
        .env("VIRT_PERSONA_FROM", resize.from.to_string())
        .env("VIRT_PERSONA_TO", resize.to.to_string());
    program::run(command, None, bounds, &mut Nothing).map_err(|error| match error {
        ProgramError::Start(error) | ProgramError::Wait(error) => error,
    })
}
