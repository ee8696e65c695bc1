//! The limits of a document, in one place, each with its reason. The readers and the rule parser hold to them.

use std::time::Duration;

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
