//! The lab's directory, who owns it, and the end of labs whose owner and guard were both killed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::guest::repository;
use super::outcome::{Failure, Outcome};

/// Labs are here and nowhere else: libvirt makes paths of sockets below it, and a socket's path has at most 107 bytes.
const PARENT: &str = "/tmp";

/// How a lab's directory begins; `guard` knows it too.
const PREFIX: &str = "vp-";

/// The file in it that says whose it is.
const OWNER: &str = "owner";

/// In that file, for a lab that outlives its owner.
const KEPT: &str = "kept";

/// A lab's directory, with the guard that ends what belongs to it.
#[derive(Debug)]
pub(super) struct Ground {
    path: PathBuf,
    guard: Child,
    /// Open for as long as the lab is in use.
    held: Option<ChildStdin>,
}

impl Ground {
    /// A new directory, which other users may enter: the lab's libvirtd is no root.
    pub(super) fn clear() -> Outcome<Self> {
        end_leftovers()?;
        let path = tempfile::Builder::new()
            .prefix(PREFIX)
            .rand_bytes(6)
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(PARENT)
            .map_err(|error| Failure::while_doing("a directory for the lab in /tmp", error))?
            .keep();
        let guard = start_guard(&path, Stdio::piped());
        let written = owner(std::process::id())
            .ok_or_else(|| Failure::new("/proc does not show this process"))
            .and_then(|owner| {
                // Renamed when it is whole: another lab that starts now must not take half of it for nobody's.
                let beside = path.join("owner.new");
                fs::write(&beside, owner)?;
                Ok(fs::rename(&beside, path.join(OWNER))?)
            });
        match (guard, written) {
            (Ok(mut guard), Ok(())) => Ok(Self {
                path,
                held: guard.stdin.take(),
                guard,
            }),
            (Err(failure), _) | (_, Err(failure)) => {
                fs::remove_dir_all(&path)?;
                Err(failure)
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves everything as it is when the lab ends.
    pub(super) fn keep(&mut self) -> Outcome<()> {
        fs::write(self.path.join(OWNER), KEPT)?;
        if let Some(held) = &mut self.held {
            held.write_all(b"keep\n")?;
        }
        Ok(())
    }

    /// Ends all that belongs to the lab and removes it; whether all of it is gone.
    pub(super) fn end(&mut self) -> Outcome<()> {
        if self.held.take().is_none() {
            return Ok(());
        }
        let status = self.guard.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(Failure::new(format!(
                "the lab {} could not be removed entirely; its guard says why above",
                self.path.display()
            )))
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // Its own message is on standard error already.
        let _ = self.end();
    }
}

/// The command that ends a lab by hand.
pub(super) fn end_command(lab: &Path) -> String {
    format!(
        "{} {} </dev/null",
        repository("tests/live/harness/guard").display(),
        lab.display()
    )
}

fn start_guard(lab: &Path, stdin: Stdio) -> Outcome<Child> {
    let program = repository("tests/live/harness/guard");
    Command::new(&program)
        .arg(lab)
        .stdin(stdin)
        .stdout(Stdio::null())
        // Ctrl-C goes to a whole process group, and the guard must outlive it.
        .process_group(0)
        .spawn()
        .map_err(|error| Failure::while_doing(program.display(), error))
}

/// A process as nobody after it will be: its number and when it began.
fn owner(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may have spaces and parentheses; the 22nd field, proc(5), is the 20th after it.
    let begin = stat.rsplit_once(") ")?.1.split(' ').nth(19)?;
    Some(format!("{pid} {begin}"))
}

/// Ends labs that nobody owns any more, as after a `kill -9` of a test run together with its guard.
fn end_leftovers() -> Outcome<()> {
    for entry in fs::read_dir(PARENT)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if !name.is_some_and(|name| name.starts_with(PREFIX) && name.len() == PREFIX.len() + 6) {
            continue;
        }
        // Without an owner it is either another's directory or a lab of this very moment.
        let Ok(text) = fs::read_to_string(path.join(OWNER)) else {
            continue;
        };
        let alive = text
            .split(' ')
            .next()
            .and_then(|pid| pid.parse().ok())
            .and_then(owner)
            .is_some_and(|owner| owner == text);
        if text != KEPT && !alive {
            start_guard(&path, Stdio::null())?.wait()?;
        }
    }
    Ok(())
}
