//! How the guest comes to ask for memory: the kernel tells that tasks wait for memory (a trigger on
//! `/proc/pressure/memory`), or somebody says `virt-persona-agent need`. Without pressure nothing wakes the agent. The channel
//! waits on the trigger; whether a need may be sent is the conversation's.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use agent_protocol::Need;

use crate::telemetry::MemoryFigures;

/// Some task waited for memory for 150 ms within a second: the kernel reclaims in earnest, and work is delayed by it. It is
/// what systemd and Android take for a beginning need; the kernel tells it at most once a second.
const TRIGGER: &[u8] = b"some 150000 1000000\0";

/// Pressure with more available than this, in percent of all, is of a control group that is at its own limit, or passes by
/// itself: more memory would not help.
const AVAILABLE_ENOUGH_PERCENT: u64 = 20;

/// A need is of this part of what the guest has: one growth should last for a while, and a host that has less gives less.
const PART: u64 = 4;

/// The kernel's notice of memory pressure.
#[derive(Debug)]
pub(crate) struct Pressure {
    file: File,
}

impl Pressure {
    /// Asks the kernel to tell. An error means a kernel without it (before 5.2, or with psi=0), or no leave.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let path = root.join("proc/pressure/memory");
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        file.write_all(TRIGGER)?;
        Ok(Self { file })
    }
}

impl AsFd for Pressure {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The need under pressure with these figures; `None` where memory is not what is missing.
pub(crate) fn under_pressure(memory: MemoryFigures) -> Option<Need> {
    let MemoryFigures {
        total_kib,
        available_kib,
    } = memory;
    let low =
        available_kib.saturating_mul(100) < total_kib.saturating_mul(AVAILABLE_ENOUGH_PERCENT);
    low.then(|| Need {
        memory_bytes: (total_kib / PART).max(1).saturating_mul(1024),
        reason: format!(
            "tasks wait for memory, {} MiB are available",
            available_kib / 1024
        ),
    })
}

/// An amount of memory as people write it: a number of bytes, or with K, M, G or T, also as KiB, MiB, GiB, TiB.
pub(crate) fn parse_memory(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return None,
    };
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pressure_with_little_available_is_a_need() {
        let figures = |available_kib| MemoryFigures {
            total_kib: 1 << 20,
            available_kib,
        };
        assert_eq!(under_pressure(figures(1 << 19)), None);
        let need = under_pressure(figures(100_000)).unwrap();
        assert_eq!(need.memory_bytes, 1 << 28);
        assert!(need.reason.contains("97 MiB"), "{}", need.reason);
    }

    #[test]
    fn amounts_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("1", 1),
            ("2k", 2048),
            ("256 MiB", 256 << 20),
            ("1G", 1 << 30),
        ] {
            assert_eq!(parse_memory(text), Some(bytes), "{text}");
        }
        for text in ["", "0", "-1", "M", "1x", "99999999999T", "1.5G"] {
            assert_eq!(parse_memory(text), None, "{text}");
        }
    }
}
