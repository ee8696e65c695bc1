//! `guest-load`: the test guest's load generator and its independent witness.
//!
//! It speaks lines of JSON on a virtio-serial port of its own, so that a test or the demo can make the guest busy and
//! can see what the guest itself sees, without asking the program under test. The daemon never talks to it.
//! `command` reads requests, `port` moves bytes, `work` and `schedule` make CPU load, `memory` holds memory and
//! `witness` reads the guest's own view. `README.md` beside this crate's parent lists the requests.

#![forbid(unsafe_code)]

mod command;
mod memory;
mod port;
mod schedule;
mod session;
mod witness;
mod work;

use session::{Session, sentence};

/// The name of the virtio-serial port, as the domain's XML gives it.
const PORT: &str = "org.virtpersona.testguest.0";

fn main() -> std::process::ExitCode {
    let calibration = match work::calibrate_first() {
        Ok(calibration) => calibration,
        Err(error) => {
            witness::log(&format!("guest-load: {}", sentence(&error)));
            return std::process::ExitCode::FAILURE;
        }
    };
    let mut session = Session::new(calibration);
    // It only returns when the port is gone; init starts the program again, and it waits for the port to come back.
    let error = port::serve(PORT, &mut session);
    witness::log(&format!("guest-load: {}", sentence(&error)));
    std::process::ExitCode::FAILURE
}
