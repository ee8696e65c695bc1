//! `virt-persona`: the command line. All of it is in the library's `cli` module, where it can be tested.

use std::process::ExitCode;

fn main() -> ExitCode {
    virt_persona::cli::run()
}
