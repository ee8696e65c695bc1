//! Bytes in, replies out: cuts the stream into lines, carries each request out and writes its reply.
//!
//! It knows nothing of the port. A host that goes away in mid-line leaves half a line behind; the next host begins with
//! an empty line, which ends it.

use std::error::Error;

use serde_json::{Value, json};

use crate::command::{Command, Offered, parse_line};
use crate::memory::MemoryLoad;
use crate::schedule::Completions;
use crate::witness;
use crate::work::{self, Calibration, CpuLoad, ITERATIONS_PER_JOB};

/// The longest line; what is longer is skipped to its end.
const MAX_LINE: usize = 16 << 10;

/// The load, the witness and the state of the line that is being read.
pub(crate) struct Session {
    calibration: Calibration,
    cpu: CpuLoad,
    memory: Option<MemoryLoad>,
    line: Vec<u8>,
    too_long: bool,
}

impl Session {
    /// A session without load.
    pub(crate) fn new(calibration: Calibration) -> Self {
        Self {
            calibration,
            cpu: CpuLoad::new(),
            memory: None,
            line: Vec::new(),
            too_long: false,
        }
    }

    /// The host has gone: what it had begun to say is void. The load goes on.
    pub(crate) fn host_gone(&mut self) {
        self.line.clear();
        self.too_long = false;
    }

    /// Takes bytes of the host and appends the replies to `out`.
    pub(crate) fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            if byte != b'\n' {
                if self.line.len() < MAX_LINE {
                    self.line.push(byte);
                } else {
                    self.too_long = true;
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let reply = match (
                std::mem::take(&mut self.too_long),
                line.trim_ascii().is_empty(),
            ) {
                (true, _) => json!({"error": format!("a line is longer than {MAX_LINE} bytes")}),
                (false, true) => continue,
                (false, false) => self.answer(&line),
            };
            out.extend_from_slice(reply.to_string().as_bytes());
            out.push(b'\n');
        }
    }

    fn answer(&mut self, line: &[u8]) -> Value {
        let (id, command) = parse_line(line);
        let result = match command {
            Ok(command) => self.perform(command),
            Err(error) => Err(error.into()),
        };
        let mut reply = match result {
            Ok(value) => json!({"ok": value}),
            Err(error) => json!({"error": sentence(error.as_ref())}),
        };
        if let Some(id) = id {
            reply["id"] = id;
        }
        reply
    }

    fn perform(&mut self, command: Command) -> Result<Value, Box<dyn Error>> {
        Ok(match command {
            Command::Cpu { threads, offered } => {
                let threads = threads.unwrap_or_else(witness::possible_cpus);
                if matches!(offered, Offered::DemandMilli(_)) {
                    // What a demand comes to depends on the host's speed at this moment, without the load before.
                    self.cpu.stop();
                    self.calibration = work::calibrate()?;
                }
                let rate = self.cpu.start(threads, offered, self.calibration)?;
                json!({"threads": threads, "offered_rate": rate})
            }
            Command::Memory { bytes, leave } => {
                self.memory()?.set(bytes, leave);
                json!({"memory_wanted": bytes})
            }
            Command::Stop => {
                self.cpu.stop();
                if let Some(memory) = &self.memory {
                    memory.set(0, 0);
                }
                json!({})
            }
            Command::Status => self.status()?,
            Command::Calibrate => {
                self.calibration = work::calibrate()?;
                self.calibration_view()
            }
            Command::Read { path } => serde_json::to_value(witness::read(&path)?)?,
            Command::List { path } => json!({"entries": witness::list(&path)?}),
            Command::Kill { name, signal } => json!({"pids": witness::signal(&name, &signal)?}),
            Command::Reboot { kind } => {
                witness::reboot(kind)?;
                json!({})
            }
        })
    }

    fn memory(&mut self) -> std::io::Result<&MemoryLoad> {
        let load = match self.memory.take() {
            Some(load) => load,
            None => MemoryLoad::start(witness::mem_available)?,
        };
        Ok(self.memory.insert(load))
    }

    fn calibration_view(&self) -> Value {
        json!({
            "iterations_per_job": ITERATIONS_PER_JOB,
            "job_cpu_us_undisturbed": self.calibration.undisturbed.as_nanos() as f64 / 1000.0,
            "job_cpu_us": self.calibration.median.as_nanos() as f64 / 1000.0,
            "capacity_of_one_vcpu": self.calibration.capacity_milli() as f64 / 1000.0,
        })
    }

    fn status(&self) -> Result<Value, Box<dyn Error>> {
        let cpu = self.cpu.status();
        let memory = self
            .memory
            .as_ref()
            .map(MemoryLoad::status)
            .unwrap_or_default();
        let mut status = serde_json::to_value(witness::view())?;
        status["jobs_done"] = cpu.done.into();
        status["jobs_dropped"] = cpu.dropped.into();
        status["jobs_waiting"] = cpu.waiting.into();
        status["job_rate"] = cpu.rate.into();
        status["job_rate_window_s"] = Completions::WINDOW.into();
        status["offered_rate"] = cpu.offered_rate.into();
        status["threads"] = cpu.threads.into();
        status["jobs_by_cpu"] = serde_json::to_value(cpu.by_cpu)?;
        status["memory_wanted"] = memory.wanted.into();
        status["memory_held"] = memory.held.into();
        status["memory_leave"] = memory.leave.into();
        status["calibration"] = self.calibration_view();
        status["pid"] = std::process::id().into();
        Ok(status)
    }
}

/// An error and its causes in one sentence.
pub(crate) fn sentence(error: &dyn Error) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        sentence = format!("{sentence}: {error}");
        cause = error.source();
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn session() -> Session {
        Session::new(Calibration {
            undisturbed: Duration::from_millis(5),
            median: Duration::from_millis(5),
        })
    }

    fn replies(session: &mut Session, bytes: &[u8]) -> Vec<Value> {
        let mut out = Vec::new();
        session.receive(bytes, &mut out);
        String::from_utf8(out)
            .expect("replies are UTF-8")
            .lines()
            .map(|line| serde_json::from_str(line).expect("replies are JSON"))
            .collect()
    }

    #[test]
    fn a_request_in_pieces_has_one_reply_with_its_identifier() {
        let mut session = session();
        assert!(replies(&mut session, br#"{"id":"a","comm"#).is_empty());
        let replies = replies(&mut session, b"and\":\"status\"}\n");
        assert_eq!(replies.len(), 1);
        assert_eq!(replies[0]["id"], "a");
        assert!(
            replies[0]["ok"]["mem_total"]
                .as_u64()
                .is_some_and(|bytes| bytes > 0)
        );
        assert_eq!(replies[0]["ok"]["jobs_done"], 0);
    }

    #[test]
    fn an_empty_line_ends_what_another_host_left_behind() {
        let mut session = session();
        assert!(replies(&mut session, br#"{"command":"re"#).is_empty());
        let replies = replies(&mut session, b"\n\n{\"id\":2,\"command\":\"stop\"}\n");
        assert_eq!(
            replies.len(),
            2,
            "the half line is an error, the empty line is nothing: {replies:?}"
        );
        assert!(replies[0]["error"].is_string());
        assert_eq!(replies[1], json!({"id": 2, "ok": {}}));
    }

    #[test]
    fn a_host_that_left_in_mid_line_leaves_nothing() {
        let mut session = session();
        assert!(replies(&mut session, b"{\"command\":").is_empty());
        session.host_gone();
        assert_eq!(
            replies(&mut session, b"{\"command\":\"stop\"}\n"),
            [json!({"ok": {}})]
        );
    }

    #[test]
    fn a_line_without_end_costs_bounded_memory_and_one_error() {
        let mut session = session();
        let mut out = Vec::new();
        for _ in 0..100 {
            session.receive(&[b'x'; 4096], &mut out);
        }
        assert!(out.is_empty());
        assert!(session.line.len() <= MAX_LINE);
        let replies = replies(&mut session, b"\n{\"command\":\"stop\"}\n");
        assert!(
            replies[0]["error"]
                .as_str()
                .is_some_and(|error| error.contains("longer than"))
        );
        assert_eq!(replies[1], json!({"ok": {}}));
    }

    #[test]
    fn an_error_is_told_with_its_cause() {
        let replies = replies(
            &mut session(),
            b"{\"command\":\"read\",\"path\":\"/nonexistent\"}\n",
        );
        let error = replies[0]["error"].as_str().expect("an error");
        assert!(
            error.starts_with("cannot read /nonexistent: No such file"),
            "{error}"
        );
    }
}
