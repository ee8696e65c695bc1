//! What holds the processes of a command together: a control group of its own where one can be made, by either version,
//! and its process group otherwise. All of them are stopped as a whole, also those that an agent before this one left.

use std::{
    fs::{self, OpenOptions},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use agent_protocol::{RequestId, command::Confinement};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::log::log;

/// Where control groups are, under the root.
const MOUNT: &str = "sys/fs/cgroup";
/// Hierarchies of version 1 in which groups hold processes and change nothing else about them.
const HIERARCHIES: [&str; 2] = ["pids", "freezer"];
/// The directory of this agent's groups in a hierarchy: beside the service's own, so that no limit of the agent holds for
/// commands, and none of a command's for the agent.
const DIRECTORY: &str = "virt-persona-commands";
/// Processes that a command may have at a time, where the hierarchy can say so.
const PROCESSES_MAX: &str = "4096";
/// A process that was killed takes a moment to go; looked at so often and so many times.
const LEAVE_INTERVAL: Duration = Duration::from_millis(5);
const LEAVE_LOOKS: u32 = 200;

/// The processes of one command.
#[derive(Debug)]
pub(crate) enum Scope {
    ControlGroup { directory: PathBuf },
    ProcessGroup,
}

impl Scope {
    /// A group for a request, with the list that the command puts itself into.
    pub(crate) fn make(root: &Path, request: &RequestId) -> (Self, Vec<OwnedFd>) {
        let Some(parent) = parent(root) else {
            return (Self::ProcessGroup, Vec::new());
        };
        let directory = parent.join(request.as_str());
        let made = fs::create_dir_all(&parent).and_then(|()| {
            hand_down(&parent);
            // One of the same name is left from an earlier try.
            match fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => Ok(()),
            }
        });
        let list = made.and_then(|()| {
            let list = directory.join("cgroup.procs");
            OpenOptions::new().write(true).open(list)
        });
        match list {
            Ok(list) => {
                // Version 2 has the file only where the controller is handed down, which whoever keeps the root of the hierarchy
                // decides; a command is bounded in time anyway.
                let limit = directory.join("pids.max");
                if limit.exists()
                    && let Err(error) = fs::write(limit, PROCESSES_MAX)
                {
                    log!("the number of a command's processes is not bounded: {error}");
                }
                (Self::ControlGroup { directory }, vec![list.into()])
            }
            Err(error) => {
                log!("no control group for a command: {error}");
                let _ = fs::remove_dir(&directory);
                (Self::ProcessGroup, Vec::new())
            }
        }
    }

    pub(super) fn confinement(&self) -> Confinement {
        match self {
            Self::ControlGroup { .. } => Confinement::ControlGroup,
            Self::ProcessGroup => Confinement::ProcessGroup,
        }
    }

    /// Sends a signal to all of them. `group` is the command's own process group; its first process is not waited for yet,
    /// so that the number is nobody else's.
    pub(crate) fn signal(&self, group: Pid, signal: Signal) {
        // An error means that nobody is left in it.
        let _ = killpg(group, signal);
        if let Self::ControlGroup { directory } = self {
            signal_all(directory, signal);
        }
    }

    /// Kills what is left and removes the group.
    pub(crate) fn end(self) {
        if let Self::ControlGroup { directory } = self {
            clear(&directory);
        }
    }
}

/// Kills and removes what an agent before this one left.
pub(super) fn clear_leftovers(root: &Path) {
    let Some(parent) = parent(root) else { return };
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            clear(&entry.path());
        }
    }
}

/// The directory of this agent's groups in the hierarchy that serves.
fn parent(root: &Path) -> Option<PathBuf> {
    let mount = root.join(MOUNT);
    if mount.join("cgroup.controllers").exists() {
        return Some(mount.join(DIRECTORY));
    }
    let serves = |hierarchy: &PathBuf| hierarchy.join("cgroup.procs").exists();
    let hierarchy = HIERARCHIES.map(|name| mount.join(name));
    Some(hierarchy.into_iter().find(serves)?.join(DIRECTORY))
}

/// Has the groups of commands count their processes: version 2 does so only where the group above says it. Where that group does not
/// have the controller itself the kernel refuses it, and there is no bound.
fn hand_down(parent: &Path) {
    let controllers = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
    if controllers.split_whitespace().any(|name| name == "pids")
        && let Err(error) = fs::write(parent.join("cgroup.subtree_control"), "+pids")
    {
        log!("the numbers of processes of commands are not bounded: {error}");
    }
}

fn clear(directory: &Path) {
    // Linux 5.14, version 2: whoever is forked meanwhile is killed, too.
    let _ = fs::write(directory.join("cgroup.kill"), "1");
    for _ in 0..LEAVE_LOOKS {
        signal_all(directory, Signal::SIGKILL);
        match fs::remove_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                thread::sleep(LEAVE_INTERVAL);
            }
            _ => return,
        }
    }
    log!("processes of a command do not end; {directory:?} stays until the agent's next start");
}

fn signal_all(directory: &Path, signal: Signal) {
    let list = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    for process in list.lines().filter_map(|line| line.trim().parse().ok()) {
        // 0 stands for processes that this agent cannot see, and would be the agent's own group.
        if process > 0 {
            // It may have ended by itself since it was read.
            let _ = kill(Pid::from_raw(process), signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hierarchy of version 2 with the files that the kernel makes with a group; `controllers` is what the root hands down.
    fn hierarchy(controllers: &str, request: &RequestId) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let mount = root.path().join(MOUNT);
        let group = mount.join(DIRECTORY).join(request.as_str());
        fs::create_dir_all(&group).unwrap();
        fs::write(mount.join("cgroup.controllers"), "cpu memory pids").unwrap();
        fs::write(
            mount.join(DIRECTORY).join("cgroup.controllers"),
            controllers,
        )
        .unwrap();
        fs::write(group.join("cgroup.procs"), "").unwrap();
        fs::write(group.join("pids.max"), "max").unwrap();
        (root, group)
    }

    #[test]
    fn the_processes_of_a_command_are_bounded_where_the_controller_is_handed_down() {
        let request = RequestId::new("bounded").unwrap();
        let (root, group) = hierarchy("memory pids\n", &request);
        let (scope, lists) = Scope::make(root.path(), &request);
        assert_eq!(scope.confinement(), Confinement::ControlGroup);
        assert_eq!(lists.len(), 1);
        let handed_down = group.parent().unwrap().join("cgroup.subtree_control");
        assert_eq!(fs::read_to_string(handed_down).unwrap(), "+pids");
        let bound = fs::read_to_string(group.join("pids.max")).unwrap();
        assert_eq!(bound, PROCESSES_MAX);
    }

    #[test]
    fn a_controller_that_the_root_keeps_to_itself_is_not_asked_for() {
        let request = RequestId::new("unbounded").unwrap();
        let (root, group) = hierarchy("memory\n", &request);
        let (scope, _) = Scope::make(root.path(), &request);
        assert_eq!(scope.confinement(), Confinement::ControlGroup);
        let asked_for = group.parent().unwrap().join("cgroup.subtree_control");
        assert!(!asked_for.exists());
    }
}
