//! CPUs on and off, through `/sys/devices/system/cpu` (Documentation/core-api/cpu_hotplug.rst). Called by `commands`.
//!
//! A hot-plugged CPU is offline until someone brings it online. The agent does so at once, whoever plugged it, except for CPUs
//! that were taken offline by order: those are *held* until an order wants them back or the CPU is unplugged.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use agent_protocol::{CpuList, activation::Change, message::OnlineCpusReply};
use nix::errno::Errno;

/// Why CPUs are not as ordered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CpuError {
    #[error("at least one CPU must stay online")]
    NoneLeft,
    #[error("{target} CPUs are ordered online and {present} are plugged")]
    NotPlugged { target: u32, present: u32 },
    #[error("CPU {cpu} cannot be switched {direction}; online are {online}")]
    Switch {
        cpu: u32,
        direction: &'static str,
        online: CpuList,
        #[source]
        source: io::Error,
    },
    #[error("only {count} CPUs can be taken offline short of {target}; online are {online}")]
    NotSwitchable {
        target: u32,
        count: u32,
        online: CpuList,
    },
    #[error("cannot read {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl CpuError {
    /// Whether it is the kernel's word that the CPU did not come up (EIO), which no further try changes: seen of CPUs that
    /// were plugged after a live migration.
    pub(crate) fn lasts_until_reboot(&self) -> bool {
        match self {
            Self::Switch {
                direction, source, ..
            } => *direction == "online" && source.raw_os_error() == Some(Errno::EIO as i32),
            _ => false,
        }
    }
}

/// The guest's CPUs.
#[derive(Debug)]
pub(crate) struct Cpus {
    directory: PathBuf,
    held: BTreeSet<u32>,
}

impl Cpus {
    pub(crate) fn new(root: &Path, held: CpuList) -> Self {
        Self {
            directory: root.join("sys/devices/system/cpu"),
            held: held.iter().collect(),
        }
    }

    /// CPUs that stay offline by order.
    pub(crate) fn held(&self) -> CpuList {
        self.held.iter().copied().collect()
    }

    /// Makes exactly `target` CPUs online: the lowest that are offline come, the highest that are online go, CPU 0 never.
    pub(crate) fn set_online(&mut self, target: u32) -> Result<OnlineCpusReply, CpuError> {
        let present = self.present()?;
        let before = self.online(&present);
        if target == 0 {
            return Err(CpuError::NoneLeft);
        }
        if target > present.count() {
            return Err(CpuError::NotPlugged {
                target,
                present: present.count(),
            });
        }
        let too_few = target.saturating_sub(before.count());
        let come: Vec<u32> = present
            .iter()
            .filter(|cpu| !before.contains(*cpu))
            .take(too_few as usize)
            .collect();
        for cpu in come {
            self.switch(cpu, "online")
                .map_err(|source| self.unswitched(cpu, "online", &present, source))?;
            self.held.remove(&cpu);
        }
        let too_many = before.count().saturating_sub(target);
        let switchable =
            |cpu: &u32| *cpu != 0 && self.directory.join(format!("cpu{cpu}/online")).exists();
        let go: Vec<u32> = before
            .iter()
            .rev()
            .filter(switchable)
            .take(too_many as usize)
            .collect();
        let found = u32::try_from(go.len()).unwrap_or(u32::MAX);
        if found < too_many {
            return Err(CpuError::NotSwitchable {
                target,
                count: found,
                online: before,
            });
        }
        for cpu in go {
            self.switch(cpu, "offline")
                .map_err(|source| self.unswitched(cpu, "offline", &present, source))?;
            self.held.insert(cpu);
        }
        let online = self.online(&present);
        let outcome = if online == before {
            Change::Unchanged
        } else {
            Change::Changed
        };
        Ok(OnlineCpusReply {
            online,
            present,
            outcome,
        })
    }

    /// A CPU was plugged: brings it online, unless it is held. Says whether it did.
    pub(crate) fn plugged(&mut self, cpu: u32) -> Result<Change, CpuError> {
        let present = self.present()?;
        if self.held.contains(&cpu) || self.is_online(cpu) || !present.contains(cpu) {
            return Ok(Change::Unchanged);
        }
        self.switch(cpu, "online")
            .map_err(|source| self.unswitched(cpu, "online", &present, source))?;
        Ok(Change::Changed)
    }

    /// A CPU was unplugged: what was ordered for it is void. Says whether anything was.
    pub(crate) fn unplugged(&mut self, cpu: u32) -> Change {
        if self.held.remove(&cpu) {
            Change::Changed
        } else {
            Change::Unchanged
        }
    }

    fn present(&self) -> Result<CpuList, CpuError> {
        let failed = |source| CpuError::Read {
            path: self.directory.clone(),
            source,
        };
        let mut cpus = BTreeSet::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some(number) = name.to_str().and_then(|name| name.strip_prefix("cpu"))
                && let Ok(number) = number.parse()
            {
                cpus.insert(number);
            }
        }
        Ok(cpus.into_iter().collect())
    }

    fn online(&self, present: &CpuList) -> CpuList {
        present.iter().filter(|cpu| self.is_online(*cpu)).collect()
    }

    fn is_online(&self, cpu: u32) -> bool {
        // A CPU that cannot be switched, like the first on x86, has no such file and is online.
        fs::read_to_string(self.directory.join(format!("cpu{cpu}/online")))
            .map_or(true, |text| text.trim() == "1")
    }

    fn switch(&self, cpu: u32, direction: &'static str) -> io::Result<()> {
        let value = if direction == "online" { "1" } else { "0" };
        fs::write(self.directory.join(format!("cpu{cpu}/online")), value)
    }

    fn unswitched(
        &self,
        cpu: u32,
        direction: &'static str,
        present: &CpuList,
        source: io::Error,
    ) -> CpuError {
        CpuError::Switch {
            cpu,
            direction,
            online: self.online(present),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_does_not_come_up_is_told_from_one_that_may_not_be_switched() {
        let error = |direction, code| CpuError::Switch {
            cpu: 1,
            direction,
            online: CpuList::default(),
            source: io::Error::from_raw_os_error(code),
        };
        assert!(error("online", Errno::EIO as i32).lasts_until_reboot());
        assert!(!error("offline", Errno::EIO as i32).lasts_until_reboot());
        assert!(!error("online", Errno::EBUSY as i32).lasts_until_reboot());
    }

    /// A tree with CPU 0, which cannot be switched, and one CPU for each state.
    fn tree(states: &[&str]) -> (tempfile::TempDir, Cpus) {
        let root = tempfile::tempdir().unwrap();
        for cpu in 0..=states.len() {
            let directory = root.path().join(format!("sys/devices/system/cpu/cpu{cpu}"));
            fs::create_dir_all(&directory).unwrap();
            if cpu > 0 {
                fs::write(directory.join("online"), states[cpu - 1]).unwrap();
            }
        }
        fs::create_dir_all(root.path().join("sys/devices/system/cpu/cpufreq")).unwrap();
        let cpus = Cpus::new(root.path(), CpuList::default());
        (root, cpus)
    }

    fn online(cpus: &mut Cpus, target: u32) -> String {
        cpus.set_online(target).unwrap().online.to_string()
    }

    #[test]
    fn the_lowest_come_and_the_highest_go() {
        let (_root, mut cpus) = tree(&["0", "1", "0"]);
        assert_eq!(online(&mut cpus, 3), "0-2");
        assert_eq!(online(&mut cpus, 2), "0-1");
        assert_eq!(online(&mut cpus, 1), "0");
        assert_eq!(online(&mut cpus, 4), "0-3");
        assert_eq!(cpus.set_online(4).unwrap().outcome, Change::Unchanged);
    }

    #[test]
    fn orders_that_cannot_be_are_refused() {
        let (_root, mut cpus) = tree(&["1"]);
        assert!(matches!(cpus.set_online(0), Err(CpuError::NoneLeft)));
        assert!(matches!(
            cpus.set_online(3),
            Err(CpuError::NotPlugged {
                target: 3,
                present: 2
            })
        ));
    }

    #[test]
    fn a_plugged_cpu_comes_online_unless_it_was_ordered_offline() {
        let (_root, mut cpus) = tree(&["1", "0"]);
        assert_eq!(cpus.plugged(2).unwrap(), Change::Changed);
        assert_eq!(online(&mut cpus, 2), "0-1");
        assert_eq!(cpus.held().to_string(), "2");
        assert_eq!(cpus.plugged(2).unwrap(), Change::Unchanged);
        assert_eq!(cpus.unplugged(2), Change::Changed);
        assert_eq!(cpus.plugged(2).unwrap(), Change::Changed);
    }
}
