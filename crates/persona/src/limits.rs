//! The limits of a document, in one place, each with its reason. The readers and the rule parser hold to them.

use std::time::Duration;

use crate::signal::Unit;
use crate::units::Bytes;

/// Largest document, in bytes: large enough for many scripts, small enough to parse and keep without a thought.
pub(crate) const LARGEST_DOCUMENT: usize = 256 * 1024;
/// Deepest nesting of lists and maps; the language itself needs five.
pub(crate) const DEEPEST_DOCUMENT: usize = 32;
/// Most values in a document, what aliases stand for counted each time and each 32 bytes of text
/// counted as one: what keeps an alias bomb small.
pub(crate) const MOST_VALUES: usize = 20_000;
/// Most rules; each is evaluated at every tick.
pub(crate) const MOST_RULES: usize = 256;
/// Rules are read no further behind this many problems: placing and explaining each takes time, and nobody mends a
/// thousand at once.
pub(crate) const MOST_FOUND: usize = 1000;
/// Most actions of one rule.
pub(crate) const MOST_ACTIONS: usize = 16;
/// Longest notice of a rule, in bytes: it is a line in a log.
pub(crate) const LONGEST_NOTICE: usize = 256;
/// Longest description and role, in bytes.
pub(crate) const LONGEST_DESCRIPTION: usize = 4096;
/// Most personas that one builds on: more layers than anyone follows when a value surprises.
pub(crate) const MOST_BASES: usize = 16;
/// Most personas to switch to: they are shown as a list to choose from.
pub(crate) const MOST_SWITCHES: usize = 64;
/// Longest short text, in bytes: settings, purposes, roles; what fits into a line of a list.
pub(crate) const LONGEST_LINE: usize = 256;
/// Most packages; beyond that an image of a disk is the better way.
pub(crate) const MOST_PACKAGES: usize = 512;
/// Most weights of metrics: all metrics and some groups.
pub(crate) const MOST_WEIGHTS: usize = 64;
/// Most metric groups, and most metrics of one.
pub(crate) const MOST_GROUPS: usize = 64;
/// As many as there could be metrics.
pub(crate) const MOST_GROUPED: usize = 64;
/// Most named responses, and most named scripts.
pub(crate) const MOST_RESPONSES: usize = 64;
/// Most external sources; each is fetched again and again.
pub(crate) const MOST_SOURCES: usize = 32;
/// Longest URL, in bytes: what servers and proxies take at least (RFC 9110 recommends 8000, few have more than this).
pub(crate) const LONGEST_URL: usize = 2048;
/// A source is not asked more often: others have to serve it.
pub(crate) const SHORTEST_FREQUENCY: Duration = Duration::from_secs(10);
/// Longest time between two fetches, and until a value is stale.
pub(crate) const LONGEST_FREQUENCY: Duration = Duration::from_secs(30 * 86_400);
/// Most commands that are overridden or restricted; each is a file in the guest.
pub(crate) const MOST_COMMANDS: usize = 1024;
/// Longest name of a command, in bytes: what file systems take.
pub(crate) const LONGEST_COMMAND: usize = 255;
/// Longest path, in bytes: what the kernel takes, with the NUL at its end (PATH_MAX).
pub(crate) const LONGEST_PATH: usize = 4095;
/// Most settings of one kind, and most extensions.
pub(crate) const MOST_SETTINGS: usize = 256;
/// Most points of a performance profile: one each five minutes.
pub(crate) const MOST_POINTS: usize = 288;
/// Most connections that are allowed in one direction.
pub(crate) const MOST_ENDPOINTS: usize = 256;
/// Most access levels, and most rules to comply with.
pub(crate) const MOST_WORDS: usize = 64;
/// Largest weight, and largest cost: what a person would write.
pub(crate) const LARGEST_NUMBER: f64 = 1e9;
/// Shortest half-life of what was learnt: below it nothing is learnt at all.
pub(crate) const SHORTEST_DECAY: Duration = Duration::from_secs(60);
/// Longest half-life, and longest expected life: ten years.
pub(crate) const LONGEST_LIFE: Duration = Duration::from_secs(3650 * 86_400);
/// Most environment variables.
pub(crate) const MOST_VARIABLES: usize = 256;
/// Longest value of an environment variable, in bytes: what the agent takes. The kernel takes 128 KiB for one string
/// (execve(2)), and login shells become slow far below that.
pub(crate) const LONGEST_VARIABLE: usize = 16 * 1024;
/// Longest interpreter with its argument, in bytes: what the agent takes.
pub(crate) const LONGEST_INTERPRETER: usize = 128;
/// Longest script, in bytes: it has to fit into one message to the agent.
pub(crate) const LONGEST_SCRIPT: usize = 64 * 1024;
/// Longest time a script may run: an activation waits for it.
pub(crate) const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);
/// Most vCPUs that QEMU gives one machine.
pub(crate) const MOST_VCPUS: u32 = 4096;
/// Least memory that means anything to a guest.
pub(crate) const LEAST_MEMORY: Bytes = Bytes::from_mib(1);
/// More than any host has; sizes up to here are exact in all arithmetic.
pub(crate) const MOST_MEMORY: Bytes = Bytes::from_mib(1 << 30);
/// Largest share; cgroup v2's largest weight, so that ratios can be handed on.
pub(crate) const LARGEST_SHARE: u32 = 10_000;

/// A size within the limits, rounded to whole bytes.
///
/// # Errors
/// The range, as the end of a sentence.
pub(crate) fn memory(bytes: f64) -> Result<Bytes, &'static str> {
    // The cast saturates, and both ends are checked right behind it.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let size = Bytes(bytes.round() as u64);
    if size < LEAST_MEMORY || size > MOST_MEMORY {
        return Err("memory is 1 MiB to 1024 TiB");
    }
    Ok(size)
}

/// Most arithmetic operations in one rule text, so that trees of them are bounded.
pub(crate) const MOST_OPERATIONS: usize = 64;
/// Most functions over windows in one rule text: each keeps up to a thousand readings.
pub(crate) const MOST_FUNCTIONS: usize = 16;
/// And in all rules of a document, which come to 4 MiB at most.
pub(crate) const MOST_FUNCTIONS_IN_ALL: usize = 64;
/// Longest name of a feature, script, response, webhook or external source: a file name on every system.
pub(crate) const LONGEST_NAME: usize = 63;
/// Longest name of a package; the longest in use are around sixty.
pub(crate) const LONGEST_PACKAGE: usize = 128;
/// Longest value that `apply` gives a setting, in bytes.
pub(crate) const LONGEST_SETTING: usize = 1024;

/// What a value that an action sets may be, in the base of its unit.
pub(crate) struct Range {
    /// What it is, as the start of a sentence.
    pub(crate) of: &'static str,
    pub(crate) unit: Unit,
    pub(crate) least: f64,
    pub(crate) most: f64,
    pub(crate) example: &'static str,
}

/// libvirt counts network bandwidth in kilobytes a second; no link of a host has more than the upper end.
pub(crate) const NETWORK_BANDWIDTH: Range = Range {
    of: "network bandwidth",
    unit: Unit::BitsPerSecond,
    least: 8e3,
    most: 1e13,
    example: "1 Gbit/s",
};
/// More requests than any storage serves.
pub(crate) const DISK_IOPS: Range = Range {
    of: "the limit of disk requests",
    unit: Unit::PerSecond,
    least: 1.0,
    most: 1e8,
    example: "2000",
};
/// Less than a block a second is no disk; no storage has more than the upper end.
pub(crate) const DISK_BANDWIDTH: Range = Range {
    of: "disk bandwidth",
    unit: Unit::BytesPerSecond,
    least: 4096.0,
    most: 1_099_511_627_776.0,
    example: "100 MiB/s",
};
/// The range of `cpu.share`, which it takes the place of: 1000 is what a domain without a persona has, whatever the
/// kernel's own number for that is.
pub(crate) const CPU_WEIGHT: Range = Range {
    of: "the CPU weight",
    unit: Unit::Count,
    least: 1.0,
    most: 1e4,
    example: "2000",
};
/// The kernel takes no quota below 1 ms, which is 1 % of the period of 100 ms that libvirt sets; all vCPUs at once are
/// the upper end.
pub(crate) const CPU_CAP: Range = Range {
    of: "the CPU cap",
    unit: Unit::Percent,
    least: 1.0,
    most: 409_600.0,
    example: "150%",
};
/// Ports of TCP and UDP.
pub(crate) const PORT: Range = Range {
    of: "a port",
    unit: Unit::Count,
    least: 1.0,
    most: 65_535.0,
    example: "8080",
};

/// How names are written, as help.
pub(crate) const NAMES: &str = "a name starts with a letter or digit and goes on with letters, digits, `.`, `_`, `-`; at most 63 characters";

/// Whether a text in lower case is a name of a feature, script, response, webhook or external source.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= LONGEST_NAME
        && begins_plain(text)
        && text.bytes().all(|byte| is_plain(byte) || byte == b'.')
}

/// Whether a text in lower case is a name that Debian or RPM give a package.
pub(crate) fn is_package(text: &str) -> bool {
    text.len() <= LONGEST_PACKAGE
        && begins_plain(text)
        && text
            .bytes()
            .all(|byte| is_plain(byte) || matches!(byte, b'.' | b'+'))
}

/// Whether a text names a setting within its section: parts joined by points.
pub(crate) fn is_setting(text: &str) -> bool {
    text.len() <= LONGEST_PACKAGE
        && text.split('.').all(|part| {
            !part.is_empty() && part.bytes().all(|byte| is_plain(byte.to_ascii_lowercase()))
        })
}

fn begins_plain(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-')
}
