//! The witness in the guest: what a guest itself sees, and load in it. `tests/guest/README.md` has its requests.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use agent_protocol::cpu_list::CpuList;
use serde::Deserialize;
use serde_json::{Value, json};

use super::domain::Domain;
use super::outcome::{Failure, Outcome};

/// An answer takes milliseconds; a guest whose vCPUs are busy, on a host that is busy, takes seconds.
const ANSWERS: Duration = Duration::from_secs(20);

/// How the path of its socket ends.
const PORT: &str = "/org.virtpersona.testguest.0";

/// A client of the witness. A connection that fails is made anew with the next request, also to another boot.
#[derive(Debug)]
pub(crate) struct Witness<'domain> {
    domain: &'domain Domain,
    connection: RefCell<Option<BufReader<UnixStream>>>,
    last_id: Cell<u64>,
}

/// What the guest shows. Bytes and seconds.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct GuestStatus {
    /// `/sys/devices/system/cpu/online`.
    pub(crate) cpus_online: String,
    /// `/sys/devices/system/cpu/present`.
    pub(crate) cpus_present: String,
    /// `MemTotal`.
    pub(crate) mem_total: u64,
    /// `MemAvailable`.
    pub(crate) mem_available: u64,
    /// Of this boot.
    pub(crate) boot_id: String,
    /// Since this boot.
    pub(crate) uptime: f64,
    /// Jobs done since the witness began.
    pub(crate) jobs_done: u64,
    /// Jobs a second over the last whole seconds; none before the first is over.
    pub(crate) job_rate: Option<f64>,
    /// Jobs a second that are offered.
    pub(crate) offered_rate: f64,
    /// Jobs that were given up because they waited for too long.
    pub(crate) jobs_dropped: u64,
    /// Bytes that the memory load is to hold, and holds.
    pub(crate) memory_wanted: u64,
    /// The part of them that it holds.
    pub(crate) memory_held: u64,
}

impl GuestStatus {
    /// How many CPUs are online.
    pub(crate) fn online(&self) -> Outcome<u32> {
        CpuList::parse(&self.cpus_online)
            .map(|cpus| cpus.count())
            .map_err(|error| Failure::while_doing(format!("{:?}", self.cpus_online), error))
    }
}

impl<'domain> Witness<'domain> {
    pub(super) fn new(domain: &'domain Domain) -> Self {
        Self {
            domain,
            connection: RefCell::new(None),
            last_id: Cell::new(0),
        }
    }

    /// What the guest shows.
    pub(crate) fn status(&self) -> Outcome<GuestStatus> {
        Ok(serde_json::from_value(
            self.ask(json!({"command": "status"}))?,
        )?)
    }

    /// A CPU load of so many thousandths of one vCPU as it is at this moment; the jobs a second that this is.
    pub(crate) fn load_cpu(&self, thousandths: u32) -> Outcome<f64> {
        let answer = self.ask(json!({"command": "cpu", "demand": thousandths}))?;
        number(&answer, "offered_rate")
    }

    /// A CPU load of so many jobs a second.
    pub(crate) fn load_cpu_rate(&self, rate: f64) -> Outcome<()> {
        self.ask(json!({"command": "cpu", "rate": rate})).map(drop)
    }

    /// Jobs a second that one vCPU can do, measured at this moment.
    pub(crate) fn capacity_of_one_vcpu(&self) -> Outcome<f64> {
        let answer = self.ask(json!({"command": "calibrate"}))?;
        number(&answer, "capacity_of_one_vcpu")
    }

    /// Holds so many bytes, as far as `leave` bytes stay available; more when the guest grows. None are 0.
    pub(crate) fn load_memory(&self, bytes: u64, leave: u64) -> Outcome<()> {
        self.ask(json!({"command": "memory", "bytes": bytes, "leave": leave}))
            .map(drop)
    }

    /// Ends both loads.
    pub(crate) fn stop_load(&self) -> Outcome<()> {
        self.ask(json!({"command": "stop"})).map(drop)
    }

    /// The first 16 KiB of a file.
    pub(crate) fn read(&self, path: &str) -> Outcome<String> {
        let answer = self.ask(json!({"command": "read", "path": path}))?;
        text(&answer, "content")
    }

    /// The names in a directory.
    pub(crate) fn list(&self, path: &str) -> Outcome<Vec<String>> {
        let answer = self.ask(json!({"command": "list", "path": path}))?;
        let entries = answer["entries"].as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| text(entry, "name")).collect()
    }

    /// Signals each process of this name; their numbers.
    pub(crate) fn kill(&self, name: &str, signal: &str) -> Outcome<Vec<u64>> {
        let answer = self.ask(json!({"command": "kill", "name": name, "signal": signal}))?;
        let pids = answer["pids"].as_array().cloned().unwrap_or_default();
        Ok(pids.iter().filter_map(Value::as_u64).collect())
    }

    /// Restarts the guest from inside through its init.
    pub(crate) fn reboot(&self) -> Outcome<()> {
        self.ask(json!({"command": "reboot", "kind": "orderly"}))
            .map(drop)
    }

    /// Any request; what is under `ok` in the answer.
    pub(crate) fn ask(&self, mut request: Value) -> Outcome<Value> {
        let id = self.next_id();
        request["id"] = json!(id);
        let answer = self.exchange(&request, id);
        if answer.is_err() {
            // Half an answer may be on its way; another connection begins clean.
            self.connection.replace(None);
        }
        let mut answer = answer
            .map_err(|cause| Failure::while_doing(format!("asking the guest {request}"), cause))?;
        match answer.get("error").and_then(Value::as_str) {
            None => Ok(answer["ok"].take()),
            Some(error) => Err(Failure::new(format!(
                "the guest says to {request}: {error}"
            ))),
        }
    }

    /// One that nobody has used: answers to another client may still be on their way.
    fn next_id(&self) -> u64 {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_micros());
        // Fits until the year 2255, and JSON's numbers are exact that far.
        let id = u64::try_from(now).unwrap_or(0).max(self.last_id.get() + 1);
        self.last_id.set(id);
        id
    }

    fn exchange(&self, request: &Value, id: u64) -> Outcome<Value> {
        let mut slot = self.connection.borrow_mut();
        let connection = match slot.take() {
            Some(connection) => slot.insert(connection),
            None => slot.insert(BufReader::new(self.connect()?)),
        };
        // The empty line ends what another client may have left.
        connection
            .get_mut()
            .write_all(format!("\n{request}\n").as_bytes())?;
        let mut line = String::new();
        loop {
            line.clear();
            if connection.read_line(&mut line)? == 0 {
                return Err(Failure::new("the port was closed"));
            }
            // A line that another client left half read is no answer to this request.
            if let Ok(answer) = serde_json::from_str::<Value>(&line)
                && answer["id"] == json!(id)
            {
                return Ok(answer);
            }
        }
    }

    fn connect(&self) -> Outcome<UnixStream> {
        let xml = self.domain.live_xml()?;
        let path = xml
            .split("<source mode='bind' path='")
            .skip(1)
            .filter_map(|rest| rest.split_once('\''))
            .map(|(path, _)| path)
            .find(|path| path.ends_with(PORT))
            .ok_or_else(|| {
                Failure::new(format!(
                    "{} has no port of the witness, or does not run",
                    self.domain.name()
                ))
            })?;
        let stream = UnixStream::connect(path).map_err(|e| Failure::while_doing(path, e))?;
        stream.set_read_timeout(Some(ANSWERS))?;
        stream.set_write_timeout(Some(ANSWERS))?;
        Ok(stream)
    }
}

fn number(answer: &Value, key: &str) -> Outcome<f64> {
    answer[key]
        .as_f64()
        .ok_or_else(|| Failure::new(format!("no {key} in the guest's answer {answer}")))
}

fn text(answer: &Value, key: &str) -> Outcome<String> {
    answer[key]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| Failure::new(format!("no {key} in the guest's answer {answer}")))
}
