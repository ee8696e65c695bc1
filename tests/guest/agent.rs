//! Where the program of the agent is, for tests of another package: cargo builds a package's programs for its own tests
//! only. `make test` names the one that `cargo test --workspace` has just built, by VIRT_PERSONA_TEST_AGENT; without that
//! cargo is asked for it, with other features of its dependencies and so with most of them built once more.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// The program. Where it is not built yet that takes a minute or more, and cargo says so.
pub(crate) static AGENT: LazyLock<PathBuf> =
    LazyLock::new(|| built("VIRT_PERSONA_TEST_AGENT", "virt-persona-agent"));

/// The program of this package, by the variable that names it or by cargo.
pub(crate) fn built(variable: &str, package: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        let path = PathBuf::from(path);
        assert!(
            path.is_file(),
            "{variable} names {}, which is no program",
            path.display()
        );
        return path;
    }
    let output = Command::new(env!("CARGO"))
        .args(["build", "--message-format=json", "--package", package])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{package} does not build");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the program that it built")
}
