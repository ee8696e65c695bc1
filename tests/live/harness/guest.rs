//! The test guest's files: built by `tests/guest/build`, and the domain type that works on this host.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::outcome::{Failure, Outcome};

/// Kernel and initramfs of the test guest.
#[derive(Clone, Debug)]
pub(crate) struct TestGuest {
    /// Where `vmlinuz` and `initramfs.cpio.gz` are.
    pub(crate) directory: PathBuf,
    /// `kvm` or `qemu`, whichever is seen to work.
    pub(crate) domain_type: String,
}

/// Built once a program: it looks at every input.
static GUEST: OnceLock<Outcome<TestGuest>> = OnceLock::new();

impl TestGuest {
    /// Builds what has changed.
    pub(crate) fn build() -> Outcome<Self> {
        GUEST.get_or_init(Self::build_anew).clone()
    }

    fn build_anew() -> Outcome<Self> {
        let directory = PathBuf::from(last_line("tests/guest/build", &[])?);
        let domain_type = last_line("tests/guest/domain-type", &[directory.as_path()])?;
        Ok(Self {
            directory,
            domain_type,
        })
    }

    /// Whether guests are emulated: no hardware help, and no vCPU can be unplugged.
    pub(crate) fn is_emulated(&self) -> bool {
        self.domain_type == "qemu"
    }
}

/// A file of this repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs one of the guest's scripts; its answer is its last line.
fn last_line(script: &str, arguments: &[&Path]) -> Outcome<String> {
    let output = Command::new(repository(script))
        .args(arguments)
        // The setting of a test run's own programs would build the guest's programs anew.
        .env_remove("RUSTFLAGS")
        .output()
        .map_err(|error| Failure::while_doing(script, error))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    match stdout.lines().last() {
        Some(line) if output.status.success() => Ok(line.trim().to_owned()),
        _ => Err(Failure::new(format!(
            "{script} failed; `make setup` installs what it needs. It says: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}
