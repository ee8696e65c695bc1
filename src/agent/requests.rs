//! Requests that wait for their answer, over the connections of one link. Pure: the link feeds it replies and times, and
//! sends what [`Requests::next`] gives out.
//!
//! ```text
//!          sent            connection lost, session again         status: unknown
//! ToSend -------> Sent ------------------------------> ToAsk --> Asking --------------> ToSend (same id)
//!                  |                                     ^          | running     | done: the stored result
//!                  | reply                               +--- Running (1 s)       v
//!                  +------------------------------------------------------------> answered
//! ```
//! Only changes are kept over a lost connection; a question fails at once, since asking it again is as good.

use std::time::Duration;

use agent_protocol::limits::{BODY_MAX, IN_FLIGHT_MAX};
use agent_protocol::message::{OpStatus, Reply, ReplyBody};
use agent_protocol::{Operation, Output, Request, RequestId};
use persona::domain::DomainId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::AgentError;
use super::event::LostReason;
use super::exec::{Heard, Outputs};
use super::identity::fresh_request_id;
use super::reply::{AgentReply, Asked};
use super::words::GuestWords;

/// Where the answer of a request goes.
pub(super) type Answer = oneshot::Sender<Result<AgentReply, AgentError>>;

/// How long to wait before asking again for a request that runs in the guest. Its reply normally comes by itself.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Bytes of all requests that wait, as JSON: two of the largest. It bounds what a guest that answers nothing can make the
/// host keep.
const BYTES_MAX: usize = 2 * BODY_MAX;

/// Which requests may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lanes {
    /// The short ones first, then changes of the persona and commands in their order.
    All,
    /// The short ones alone.
    Short,
}

#[derive(Debug)]
enum Phase {
    ToSend,
    Sent,
    ToAsk,
    Asking { query: RequestId },
    Running { ask_again: Instant },
}

#[derive(Debug)]
struct Entry {
    id: RequestId,
    operation: Operation,
    asked: Asked,
    bytes: usize,
    until: Instant,
    deadline: Duration,
    answer: Answer,
    /// Output of a command, and where it goes.
    heard: Option<Heard>,
    /// The boot in which it was sent first.
    boot: Option<GuestWords>,
    phase: Phase,
}

/// What came of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Expected,
    Unasked,
    /// It cannot be what was asked for.
    Impossible,
}

/// The waiting requests of one link, oldest first.
#[derive(Debug)]
pub(super) struct Requests {
    domain: DomainId,
    entries: Vec<Entry>,
}

impl Requests {
    pub(super) fn new(domain: DomainId) -> Self {
        Self {
            domain,
            entries: Vec::new(),
        }
    }

    /// Takes a request in, or answers it with why not.
    pub(super) fn admit(
        &mut self,
        id: RequestId,
        operation: Operation,
        until: Instant,
        deadline: Duration,
        answer: Answer,
    ) {
        let asked = Asked::of(&operation);
        let (domain, name) = (self.domain, asked.name());
        let in_flight = self.entries.len();
        let bytes = serde_json::to_vec(&operation).map_or(usize::MAX, |json| json.len());
        let held: usize = self.entries.iter().map(|entry| entry.bytes).sum();
        let refusal = if self.entries.iter().any(|entry| entry.id == id) {
            Some(AgentError::AlreadyUnderWay {
                domain,
                operation: name,
                id: id.to_string(),
            })
        } else if bytes > BODY_MAX {
            let detail = format!("{bytes} bytes of JSON are more than {BODY_MAX}");
            Some(AgentError::TooLarge {
                domain,
                operation: name,
                detail,
            })
        } else if in_flight >= IN_FLIGHT_MAX || held + bytes > BYTES_MAX {
            Some(AgentError::Busy {
                domain,
                operation: name,
                in_flight,
            })
        } else {
            None
        };
        if let Some(refusal) = refusal {
            // Who no longer waits for the answer does not miss it, here and below.
            let _ = answer.send(Err(refusal));
            return;
        }
        self.entries.push(Entry {
            id,
            operation,
            asked,
            bytes,
            until,
            deadline,
            answer,
            heard: None,
            boot: None,
            phase: Phase::ToSend,
        });
    }

    /// Has the output of a command that was admitted go somewhere.
    pub(super) fn listen(&mut self, id: &RequestId, outputs: Outputs) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == *id) {
            entry.heard = Some(Heard::new(outputs));
        }
    }

    /// Takes a piece of a command's output.
    pub(super) fn wrote(&mut self, output: Output) -> Fit {
        let entry = self.entries.iter_mut().find(|entry| entry.id == output.re);
        match entry.and_then(|entry| entry.heard.as_mut()) {
            Some(heard) => heard.take(output),
            None => Fit::Unasked,
        }
    }

    /// The next request to send in the session with the guest's boot `boot`. Each is given out once.
    pub(super) fn next(
        &mut self,
        boot: &GuestWords,
        lanes: Lanes,
        now: Instant,
    ) -> Option<Request> {
        let index = self.next_index(lanes, now)?;
        let entry = &mut self.entries[index];
        let ttl_ms = u64::try_from(entry.until.saturating_duration_since(now).as_millis())
            .unwrap_or(u64::MAX);
        if matches!(entry.phase, Phase::ToSend) {
            entry.phase = Phase::Sent;
            entry.boot = Some(boot.clone());
            return Some(Request {
                id: entry.id.clone(),
                ttl_ms,
                op: entry.operation.clone(),
            });
        }
        let query = fresh_request_id();
        entry.phase = Phase::Asking {
            query: query.clone(),
        };
        Some(Request {
            id: query,
            ttl_ms,
            op: Operation::OpStatus {
                id: entry.id.clone(),
            },
        })
    }

    /// Whether [`Requests::next`] would give something.
    pub(super) fn has_next(&self, lanes: Lanes, now: Instant) -> bool {
        self.next_index(lanes, now).is_some()
    }

    fn next_index(&self, lanes: Lanes, now: Instant) -> Option<usize> {
        let short = self
            .entries
            .iter()
            .position(|entry| entry.is_due(now) && entry.is_short());
        match lanes {
            Lanes::Short => short,
            Lanes::All => short.or_else(|| self.entries.iter().position(|entry| entry.is_due(now))),
        }
    }

    /// Takes a reply of the guest.
    pub(super) fn replied(&mut self, reply: Reply, now: Instant) -> Fit {
        if let Some(index) = self.entries.iter().position(|entry| entry.id == reply.re) {
            self.answer(index, reply.body);
            return Fit::Expected;
        }
        let asked_about =
            |entry: &Entry| matches!(&entry.phase, Phase::Asking { query } if *query == reply.re);
        let Some(index) = self.entries.iter().position(asked_about) else {
            return Fit::Unasked;
        };
        match reply.into_answer() {
            Ok(OpStatus::Done { result }) => self.answer(index, result),
            Ok(OpStatus::Running) => {
                self.entries[index].phase = Phase::Running {
                    ask_again: now + ASK_AGAIN,
                }
            }
            // An agent that cannot tell still never executes an id twice.
            Ok(OpStatus::Unknown) | Err(_) => self.entries[index].phase = Phase::ToSend,
        }
        Fit::Expected
    }

    fn answer(&mut self, index: usize, body: ReplyBody) {
        let entry = self.entries.remove(index);
        let _ = entry
            .answer
            .send(entry.asked.read(self.domain, &entry.id, body));
    }

    /// Answers a request that cannot be encoded.
    pub(super) fn unsendable(&mut self, id: &RequestId, detail: String) {
        if let Some(index) = self.entries.iter().position(|entry| entry.id == *id) {
            let entry = self.entries.remove(index);
            let error = AgentError::TooLarge {
                domain: self.domain,
                operation: entry.asked.name(),
                detail,
            };
            let _ = entry.answer.send(Err(error));
        }
    }

    /// The connection is lost: questions fail, changes wait for the next session.
    pub(super) fn lost(&mut self, reason: LostReason) {
        let domain = self.domain;
        for entry in self.entries.extract_if(.., |entry| !entry.keeps(reason)) {
            let _ = entry.answer.send(Err(AgentError::Interrupted {
                domain,
                operation: entry.asked.name(),
                reason,
            }));
        }
        for entry in &mut self.entries {
            entry.phase = if entry.boot.is_some() {
                Phase::ToAsk
            } else {
                Phase::ToSend
            };
        }
    }

    /// There is a session again: what was meant for the machine before its reboot fails.
    pub(super) fn connected(&mut self, boot: &GuestWords) {
        let domain = self.domain;
        let outlived = |entry: &mut Entry| {
            entry.boot.as_ref().is_some_and(|sent| sent != boot) && !entry.asked.outlives_a_boot()
        };
        for entry in self.entries.extract_if(.., outlived) {
            let reason = LostReason::AgentRestarted;
            let _ = entry.answer.send(Err(AgentError::Interrupted {
                domain,
                operation: entry.asked.name(),
                reason,
            }));
        }
    }

    /// Fails what is past its deadline.
    pub(super) fn expire(&mut self, now: Instant) {
        let domain = self.domain;
        for entry in self.entries.extract_if(.., |entry| entry.until <= now) {
            let operation = entry.asked.name();
            let _ = entry.answer.send(Err(AgentError::TimedOut {
                domain,
                operation,
                deadline: entry.deadline,
            }));
        }
    }

    /// When something here next needs attention.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let of_entry = |entry: &Entry| match entry.phase {
            Phase::Running { ask_again } => ask_again.min(entry.until),
            _ => entry.until,
        };
        self.entries.iter().map(of_entry).min()
    }
}

impl Entry {
    /// Whether something of it is to be sent.
    fn is_due(&self, now: Instant) -> bool {
        match self.phase {
            Phase::ToSend | Phase::ToAsk => true,
            Phase::Running { ask_again } => ask_again <= now,
            Phase::Sent | Phase::Asking { .. } => false,
        }
    }

    /// Whether what would be sent of it is short. Changes of the persona and commands count as long, all of them, so
    /// that they keep their order; a question about one does not.
    fn is_short(&self) -> bool {
        !matches!(self.phase, Phase::ToSend)
            || !matches!(
                self.operation,
                Operation::Activate { .. } | Operation::Deactivate { .. } | Operation::Exec { .. }
            )
    }

    fn keeps(&self, reason: LostReason) -> bool {
        match reason {
            LostReason::Detached | LostReason::Internal => false,
            LostReason::Reverted => self.asked.outlives_a_boot(),
            _ => self.asked.is_change(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    type Receiver = oneshot::Receiver<Result<AgentReply, AgentError>>;

    struct Table {
        requests: Requests,
        now: Instant,
        boot: GuestWords,
    }

    impl Table {
        fn new() -> Self {
            let boot = GuestWords::clean("boot-1", 64, super::super::words::Lines::One);
            Self {
                requests: Requests::new(DomainId([1; 16])),
                now: Instant::now(),
                boot,
            }
        }

        fn admit(&mut self, id: &str, operation: Operation) -> Receiver {
            let (answer, receiver) = oneshot::channel();
            let deadline = Duration::from_secs(30);
            self.requests.admit(
                RequestId::new(id).unwrap(),
                operation,
                self.now + deadline,
                deadline,
                answer,
            );
            receiver
        }

        fn sent(&mut self) -> Vec<Request> {
            let mut sent = Vec::new();
            while let Some(request) = self.requests.next(&self.boot, Lanes::All, self.now) {
                sent.push(request);
            }
            sent
        }

        fn reply(&mut self, re: &RequestId, value: serde_json::Value) -> Fit {
            self.requests.replied(
                Reply {
                    re: re.clone(),
                    body: ReplyBody::Ok(value),
                },
                self.now,
            )
        }
    }

    fn done() -> serde_json::Value {
        json!({"generation": 3, "outcome": "changed"})
    }

    fn deactivate() -> Operation {
        Operation::Deactivate { generation: 3 }
    }

    #[test]
    fn a_change_is_asked_about_first_and_delivered_again_under_its_id_only_when_it_never_arrived() {
        let mut table = Table::new();
        let mut answer = table.admit("change", deactivate());
        assert_eq!(table.sent().len(), 1);
        table.requests.lost(LostReason::Closed);
        table.requests.connected(&table.boot);
        let query = table.sent().remove(0);
        assert_eq!(
            query.op,
            Operation::OpStatus {
                id: RequestId::new("change").unwrap()
            }
        );
        assert_eq!(
            table.reply(&query.id, json!({"state": "unknown"})),
            Fit::Expected
        );
        let again = table.sent().remove(0);
        assert_eq!((again.id.as_str(), &again.op), ("change", &deactivate()));
        table.reply(&again.id, done());
        assert!(matches!(
            answer.try_recv(),
            Ok(Ok(AgentReply::Deactivated { .. }))
        ));
    }

    #[test]
    fn a_stored_result_is_the_answer() {
        let mut table = Table::new();
        let mut answer = table.admit("change", deactivate());
        table.sent();
        table.requests.lost(LostReason::Silent);
        let query = table.sent().remove(0);
        table.reply(
            &query.id,
            json!({"state": "done", "result": {"ok": done()}}),
        );
        assert!(matches!(
            answer.try_recv(),
            Ok(Ok(AgentReply::Deactivated { generation: 3, .. }))
        ));
        assert!(table.sent().is_empty());
    }

    #[test]
    fn a_running_change_is_asked_about_again_after_a_while_and_its_own_reply_counts() {
        let mut table = Table::new();
        let mut answer = table.admit("change", deactivate());
        table.sent();
        table.requests.lost(LostReason::Closed);
        let query = table.sent().remove(0);
        table.reply(&query.id, json!({"state": "running"}));
        assert!(table.sent().is_empty());
        assert_eq!(table.requests.wakes_at(), Some(table.now + ASK_AGAIN));
        table.now += ASK_AGAIN;
        assert_eq!(table.sent().len(), 1);
        table.reply(&RequestId::new("change").unwrap(), done());
        assert!(matches!(answer.try_recv(), Ok(Ok(_))));
    }

    #[test]
    fn a_question_fails_with_the_connection() {
        let mut table = Table::new();
        let mut answer = table.admit("question", Operation::Report);
        table.sent();
        table.requests.lost(LostReason::Closed);
        assert!(matches!(
            answer.try_recv(),
            Ok(Err(AgentError::Interrupted {
                reason: LostReason::Closed,
                ..
            }))
        ));
        assert!(table.sent().is_empty());
    }

    #[test]
    fn a_number_of_cpus_is_not_carried_into_another_boot_and_an_activation_is() {
        let mut table = Table::new();
        let mut cpus = table.admit("cpus", Operation::OnlineCpus { target: 2 });
        let mut change = table.admit("change", deactivate());
        table.sent();
        table.requests.lost(LostReason::AgentRestarted);
        table.requests.connected(&GuestWords::clean(
            "boot-2",
            64,
            super::super::words::Lines::One,
        ));
        assert!(matches!(
            cpus.try_recv(),
            Ok(Err(AgentError::Interrupted { .. }))
        ));
        assert!(change.try_recv().is_err(), "still waits");
        assert_eq!(table.sent().len(), 1);
    }

    #[test]
    fn the_sixty_fifth_request_is_busy_and_so_is_a_heap_of_large_ones() {
        let mut table = Table::new();
        let waiting: Vec<Receiver> = (0..IN_FLIGHT_MAX)
            .map(|i| table.admit(&format!("r{i}"), Operation::Report))
            .collect();
        let mut over = table.admit("over", Operation::Report);
        assert!(matches!(
            over.try_recv(),
            Ok(Err(AgentError::Busy {
                in_flight: IN_FLIGHT_MAX,
                ..
            }))
        ));
        drop(waiting);

        let mut table = Table::new();
        let large = || Operation::Unknown("x".repeat(BODY_MAX - 100));
        let _waiting = (table.admit("a", large()), table.admit("b", large()));
        let mut over = table.admit("c", large());
        assert!(matches!(over.try_recv(), Ok(Err(AgentError::Busy { .. }))));
    }

    #[test]
    fn a_second_request_of_the_same_id_and_one_that_no_agent_takes_are_refused() {
        let mut table = Table::new();
        let _first = table.admit("same", Operation::Report);
        let mut second = table.admit("same", Operation::Report);
        assert!(matches!(
            second.try_recv(),
            Ok(Err(AgentError::AlreadyUnderWay { .. }))
        ));
        let mut large = table.admit("large", Operation::Unknown("x".repeat(BODY_MAX)));
        assert!(matches!(
            large.try_recv(),
            Ok(Err(AgentError::TooLarge { .. }))
        ));
    }

    #[test]
    fn a_deadline_passes_once_and_a_late_reply_is_unasked() {
        let mut table = Table::new();
        let mut answer = table.admit("late", deactivate());
        table.sent();
        table.now += Duration::from_secs(30);
        table.requests.expire(table.now);
        assert!(matches!(
            answer.try_recv(),
            Ok(Err(AgentError::TimedOut { .. }))
        ));
        assert_eq!(
            table.reply(&RequestId::new("late").unwrap(), done()),
            Fit::Unasked
        );
    }
}
