//! A channel between daemon and agent that stands between the two frame by frame: it can be stopped or cut at a given message of a
//! given rule, before or after that is delivered, and make an agent look older than it is. Used by the calls of the fault matrix and by
//! the tests of guest rules.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

/// Between two tries to reach an agent that is not there.
const PAUSE: Duration = Duration::from_millis(5);

/// Records in a page of one guest that repeats itself.
pub(crate) const PAGE: u32 = 50;

/// Who sends a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Host,
    Guest,
}

/// A message on the way of what a rule of the host calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The host asks for it.
    Call,
    /// The guest has begun it.
    Answer,
    /// The guest tells what came of it.
    Record,
    /// The host has that on its disk.
    Seen,
}

/// Which side of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Before,
    After,
}

/// Where the channel stops: once, and both ends hear nothing from there on.
#[derive(Clone, Debug)]
struct Stop {
    rule: String,
    message: Message,
    side: Side,
    /// The number of the request that the rule's call came with.
    request: Option<String>,
    /// Its record has passed.
    told: bool,
}

#[derive(Debug, Default)]
struct Plan {
    stop: Option<Stop>,
    /// The agent looks as if it knew no rules.
    older: bool,
    /// Questions for records, where they are answered here and not by the agent.
    questions: Option<Vec<Value>>,
    /// Who connects is not passed on to the agent yet.
    held: bool,
    /// It has stopped, and passes nothing on this connection.
    silent: bool,
    /// The ends of the connection that stands.
    ends: Vec<UnixStream>,
}

impl Plan {
    /// Answers a question for records with a page of records that are as old as any can be. Says whether it did.
    fn repeat(&mut self, from: From, frame: &mut Value) -> bool {
        let Some(questions) = &mut self.questions else {
            return false;
        };
        if from == From::Host && frame["op"] == "rule_records" {
            questions.push(frame["id"].clone());
            return false;
        }
        if from == From::Host || !questions.contains(&frame["re"]) {
            return false;
        }
        // Of two logs in turn, so that what was told to be seen is not what comes.
        let log = questions.len() % 2;
        let records = (1..=u64::from(PAGE)).map(|seq| {
            serde_json::json!({
                "log": format!("log {log}"), "seq": seq, "boot_id": "b", "at_unix_ms": 1, "generation": 1,
                "persona": "front", "rule": "drain", "edge": "begins",
            })
        });
        frame["ok"] =
            serde_json::json!({ "records": records.collect::<Vec<_>>(), "waiting": PAGE });
        true
    }

    /// Whether it is now, and on which side of the frame.
    fn meets(&mut self, from: From, frame: &Value, text: &str) -> Option<Side> {
        let stop = self.stop.as_mut()?;
        let is_of_rule = text.contains(&format!("\"rule\":\"{}\"", stop.rule));
        let op = frame["op"].as_str().unwrap_or_default();
        if from == From::Host && op == "perform" && is_of_rule {
            stop.request = frame["id"].as_str().map(str::to_owned);
        }
        let met = match stop.message {
            Message::Call => from == From::Host && op == "perform" && is_of_rule,
            Message::Answer => {
                from == From::Guest
                    && stop.request.is_some()
                    && frame["re"].as_str() == stop.request.as_deref()
            }
            Message::Record => from == From::Guest && frame["msg"] == "reply" && is_of_rule,
            Message::Seen => {
                let seen =
                    from == From::Host && op == "rule_records" && !frame["args"]["seen"].is_null();
                seen && stop.told
            }
        };
        stop.told |= from == From::Guest && frame["msg"] == "reply" && is_of_rule;
        let side = stop.side;
        met.then(|| {
            self.stop = None;
            side
        })
    }
}

/// The channel.
pub(crate) struct Relay {
    plan: Arc<Mutex<Plan>>,
    stopped: Receiver<()>,
}

impl Relay {
    /// Listens at `host` for daemons and passes on to the agent at `guest`.
    pub(crate) fn start(host: &Path, guest: PathBuf) -> Self {
        let listener = UnixListener::bind(host).unwrap();
        let plan = Arc::new(Mutex::new(Plan::default()));
        let (tell, stopped) = channel();
        let shared = plan.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for daemon in listener.incoming() {
                let daemon = daemon.unwrap();
                let agent = loop {
                    let held = shared.lock().unwrap().held;
                    match (held, UnixStream::connect(&guest)) {
                        (false, Ok(agent)) => break agent,
                        _ => std::thread::sleep(PAUSE),
                    }
                };
                {
                    let mut plan = shared.lock().unwrap();
                    plan.silent = false;
                    plan.ends = vec![daemon.try_clone().unwrap(), agent.try_clone().unwrap()];
                }
                let ways = [
                    (
                        From::Host,
                        daemon.try_clone().unwrap(),
                        agent.try_clone().unwrap(),
                    ),
                    (From::Guest, agent, daemon),
                ];
                let threads = ways.map(|(from, input, output)| {
                    let (plan, tell) = (shared.clone(), tell.clone());
                    std::thread::spawn(move || pass(from, input, output, &plan, &tell))
                });
                // One client at a time, as QEMU has it.
                for thread in threads {
                    thread.join().unwrap();
                }
            }
        });
        Self { plan, stopped }
    }

    /// Stops at this side of the next such message of the rule.
    pub(crate) fn stop_at(&self, rule: &str, message: Message, side: Side) {
        self.plan.lock().unwrap().stop = Some(Stop {
            rule: rule.to_owned(),
            message,
            side,
            request: None,
            told: false,
        });
    }

    /// Waits until it has stopped. Both ends believe to be connected, and hear nothing, until one of them ends or it is cut.
    #[track_caller]
    pub(crate) fn wait_until_stopped(&self) {
        let hung = Duration::from_secs(60);
        self.stopped.recv_timeout(hung).expect("it stops");
    }

    /// Cuts the connection; the next one passes everything.
    pub(crate) fn cut(&self) {
        for end in self.plan.lock().unwrap().ends.drain(..) {
            // It may be gone already.
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// From here on each question for what rules did is answered with [`PAGE`] records that were told before.
    pub(crate) fn repeat_records(&self) {
        self.plan.lock().unwrap().questions = Some(Vec::new());
    }

    /// How often that was asked for since.
    pub(crate) fn questions(&self) -> u32 {
        let plan = self.plan.lock().unwrap();
        u32::try_from(plan.questions.as_ref().map_or(0, Vec::len)).unwrap()
    }

    /// From here on nobody who connects reaches the agent.
    pub(crate) fn hold(&self) {
        self.plan.lock().unwrap().held = true;
    }

    /// Ends that.
    pub(crate) fn release(&self) {
        self.plan.lock().unwrap().held = false;
    }

    /// From here on the agent looks as if it knew no rules, or does not.
    pub(crate) fn make_older(&self, older: bool) {
        self.plan.lock().unwrap().older = older;
    }
}

/// Passes frames on until either end is closed, or for ever silent once it has stopped.
fn pass(
    from: From,
    mut input: UnixStream,
    mut output: UnixStream,
    plan: &Mutex<Plan>,
    tell: &Sender<()>,
) {
    let mut held = Vec::new();
    let mut buffer = [0; 65_536];
    while let Ok(length @ 1..) = input.read(&mut buffer) {
        held.extend_from_slice(&buffer[..length]);
        while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
            let mut frame: Vec<u8> = held.drain(..=end).collect();
            let text = String::from_utf8_lossy(&frame).into_owned();
            let read = text.trim_matches(|c| c == '\u{1e}' || c == '\n');
            let mut value: Value = serde_json::from_str(read).unwrap_or_default();
            let mut plan = plan.lock().unwrap();
            if plan.silent {
                continue;
            }
            if plan.repeat(from, &mut value) || plan.older && forget_rules(&mut value) {
                frame = format!("\u{1e}{value}\n").into_bytes();
            }
            let met = plan.meets(from, &value, &text);
            if met != Some(Side::Before) && output.write_all(&frame).is_err() {
                break;
            }
            if met.is_some() {
                plan.silent = true;
                tell.send(()).unwrap();
            }
        }
    }
    // Whoever ends, the other hears it.
    let _ = output.shutdown(Shutdown::Both);
    let _ = input.shutdown(Shutdown::Both);
}

/// Takes out of a frame what an agent that knows no rules neither says nor understands.
fn forget_rules(frame: &mut Value) -> bool {
    if let Some(features) = frame["feats"].as_array_mut() {
        features.retain(|feature| feature != "rules");
        return true;
    }
    let activation = frame["args"]["activation"].as_object_mut();
    activation.is_some_and(|activation| activation.remove("rules").is_some())
}
