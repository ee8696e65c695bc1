//! Requests: one line of JSON each, read and checked here and carried out in `session`.
//!
//! A request is an object with `"command"` and its arguments, and an optional `"id"` that the reply repeats.

use serde::Deserialize;
use serde_json::{Map, Value};

/// The most worker threads that a CPU load may have.
const MAX_THREADS: u16 = 64;
/// The highest offered rate, in thousandths of a job a second.
const MAX_RATE_MILLI: u64 = 1_000_000_000;

/// Why a line is not a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// Not an object in JSON, an unknown command, or arguments that the command does not have.
    #[error("not a request")]
    Malformed(#[source] serde_json::Error),
    /// Both or neither of the two ways to say how much load there is.
    #[error(
        "a CPU load needs either 'rate' (jobs a second) or 'demand' (thousandths of one vCPU), and only one of them"
    )]
    RateOrDemand,
    /// A number outside what this program accepts.
    #[error("'{name}' is {value} and must be in {low} to {high}")]
    OutOfRange {
        /// The argument's name.
        name: &'static str,
        /// The value that was given.
        value: f64,
        /// The smallest accepted value.
        low: f64,
        /// The largest accepted value.
        high: f64,
    },
}

/// How much CPU load is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    /// Thousandths of a job a second.
    RateMilli(u64),
    /// Thousandths of one vCPU; the calibration turns it into a rate.
    DemandMilli(u64),
}

/// How the guest restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RebootKind {
    /// Through init: processes are ended and file systems are unmounted.
    #[default]
    Orderly,
    /// At once, as a power cut would do it.
    AtOnce,
}

/// A checked request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Starts a CPU load, in place of the one that runs.
    Cpu {
        /// The number of worker threads, or as many as the guest can have CPUs.
        threads: Option<u16>,
        /// How much is offered.
        offered: Offered,
    },
    /// Holds this much memory, growing or shrinking to it.
    Memory {
        /// Bytes to hold; 0 frees all.
        bytes: u64,
        /// Bytes of `MemAvailable` that are left to the rest of the guest.
        leave: u64,
    },
    /// Ends the CPU load and frees the memory.
    Stop,
    /// The witness's view of the guest and of the load.
    Status,
    /// Measures the cost of a job again.
    Calibrate,
    /// The content of a file.
    Read {
        /// The file.
        path: String,
    },
    /// The names in a directory.
    List {
        /// The directory.
        path: String,
    },
    /// Sends a signal to each process of this name.
    Kill {
        /// The base name of the program.
        name: String,
        /// The signal's name, such as `SIGKILL`.
        signal: String,
    },
    /// Restarts the guest.
    Reboot {
        /// In which way.
        kind: RebootKind,
    },
}

/// The request as it is written.
#[derive(Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
enum Wire {
    Cpu {
        threads: Option<u16>,
        rate: Option<f64>,
        demand: Option<u64>,
    },
    Memory {
        bytes: u64,
        #[serde(default = "default_leave")]
        leave: u64,
    },
    Stop {},
    Status {},
    Calibrate {},
    Read {
        path: String,
    },
    List {
        path: String,
    },
    Kill {
        name: String,
        #[serde(default = "default_signal")]
        signal: String,
    },
    Reboot {
        #[serde(default)]
        kind: RebootKind,
    },
}

/// What a memory load leaves available, so that it grows with the machine instead of waking the OOM killer.
const fn default_leave() -> u64 {
    64 << 20
}

fn default_signal() -> String {
    "SIGTERM".to_owned()
}

/// Reads one line. The identifier is given back also when the rest is refused, so that the reply can carry it.
pub(crate) fn parse_line(line: &[u8]) -> (Option<Value>, Result<Command, CommandError>) {
    let mut object: Map<String, Value> = match serde_json::from_slice(line) {
        Ok(object) => object,
        Err(error) => return (None, Err(CommandError::Malformed(error))),
    };
    let id = object.remove("id");
    let command = serde_json::from_value(Value::Object(object))
        .map_err(CommandError::Malformed)
        .and_then(check);
    (id, command)
}

fn check(wire: Wire) -> Result<Command, CommandError> {
    Ok(match wire {
        Wire::Cpu {
            threads,
            rate,
            demand,
        } => {
            if let Some(threads) = threads {
                in_range("threads", f64::from(threads), 1.0, f64::from(MAX_THREADS))?;
            }
            Command::Cpu {
                threads,
                offered: check_offered(rate, demand)?,
            }
        }
        Wire::Memory { bytes, leave } => Command::Memory { bytes, leave },
        Wire::Stop {} => Command::Stop,
        Wire::Status {} => Command::Status,
        Wire::Calibrate {} => Command::Calibrate,
        Wire::Read { path } => Command::Read { path },
        Wire::List { path } => Command::List { path },
        Wire::Kill { name, signal } => Command::Kill { name, signal },
        Wire::Reboot { kind } => Command::Reboot { kind },
    })
}

fn check_offered(rate: Option<f64>, demand: Option<u64>) -> Result<Offered, CommandError> {
    match (rate, demand) {
        (Some(rate), None) => {
            in_range("rate", rate, 0.001, MAX_RATE_MILLI as f64 / 1000.0)?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "positive and bounded just above"
            )]
            let milli = (rate * 1000.0).round() as u64;
            Ok(Offered::RateMilli(milli))
        }
        (None, Some(demand)) => {
            in_range(
                "demand",
                demand as f64,
                1.0,
                f64::from(MAX_THREADS) * 1000.0,
            )?;
            Ok(Offered::DemandMilli(demand))
        }
        _ => Err(CommandError::RateOrDemand),
    }
}

fn in_range(name: &'static str, value: f64, low: f64, high: f64) -> Result<(), CommandError> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(CommandError::OutOfRange {
            name,
            value,
            low,
            high,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Command) {
        match parse_line(line.as_bytes()).1 {
            Ok(command) => assert_eq!(command, expected, "{line}"),
            Err(error) => panic!("{line}: {error}"),
        }
    }

    fn refused(line: &str, sentence: &str) {
        match parse_line(line.as_bytes()).1 {
            Ok(command) => panic!("{line} was accepted as {command:?}"),
            Err(error) => assert!(error.to_string().contains(sentence), "{line}: {error}"),
        }
    }

    #[test]
    fn each_command_is_read_with_its_arguments() {
        check(
            r#"{"command":"cpu","threads":2,"rate":12.5}"#,
            Command::Cpu {
                threads: Some(2),
                offered: Offered::RateMilli(12_500),
            },
        );
        check(
            r#"{"command":"cpu","demand":1800}"#,
            Command::Cpu {
                threads: None,
                offered: Offered::DemandMilli(1800),
            },
        );
        check(
            r#"{"command":"memory","bytes":1048576,"leave":0}"#,
            Command::Memory {
                bytes: 1 << 20,
                leave: 0,
            },
        );
        check(
            r#"{"command":"memory","bytes":0}"#,
            Command::Memory {
                bytes: 0,
                leave: 64 << 20,
            },
        );
        check(r#"{"command":"stop"}"#, Command::Stop);
        check(r#"{"command":"status"}"#, Command::Status);
        check(r#"{"command":"calibrate"}"#, Command::Calibrate);
        check(
            r#"{"command":"read","path":"/etc/x"}"#,
            Command::Read {
                path: "/etc/x".into(),
            },
        );
        check(
            r#"{"command":"list","path":"/etc"}"#,
            Command::List {
                path: "/etc".into(),
            },
        );
        check(
            r#"{"command":"kill","name":"a","signal":"SIGKILL"}"#,
            Command::Kill {
                name: "a".into(),
                signal: "SIGKILL".into(),
            },
        );
        check(
            r#"{"command":"reboot"}"#,
            Command::Reboot {
                kind: RebootKind::Orderly,
            },
        );
        check(
            r#"{"command":"reboot","kind":"at_once"}"#,
            Command::Reboot {
                kind: RebootKind::AtOnce,
            },
        );
    }

    #[test]
    fn the_identifier_comes_back_even_when_the_command_is_refused() {
        let (id, command) = parse_line(br#"{"id":7,"command":"fly"}"#);
        assert_eq!(id, Some(Value::from(7)));
        assert!(command.is_err());
    }

    #[test]
    fn what_is_not_a_request_is_refused_with_its_reason() {
        refused("", "not a request");
        refused(r#"{"command":"cp"#, "not a request");
        refused(r#"{"command":"stop","now":true}"#, "not a request");
        refused(r#"{"command":"cpu"}"#, "either 'rate'");
        refused(r#"{"command":"cpu","rate":1,"demand":1}"#, "only one");
        refused(r#"{"command":"cpu","rate":0}"#, "'rate' is 0");
        refused(r#"{"command":"cpu","rate":-3}"#, "'rate' is -3");
        refused(
            r#"{"command":"cpu","demand":64001}"#,
            "must be in 1 to 64000",
        );
        refused(
            r#"{"command":"cpu","rate":1,"threads":0}"#,
            "'threads' is 0",
        );
    }
}
