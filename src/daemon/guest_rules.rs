//! Rules that a guest's agent evaluates by itself: which of a persona's they are is the planner's `place`, what goes to the
//! guest is in `message`. Here is what the host knows of them: whether they are in force there, so that it leaves to the guest
//! what they do, and what they did, fetched from the agent, recorded once, and only then told to be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent_protocol::limits::{RULE_DEEDS_MAX, RULES_MAX};
use agent_protocol::rules::{
    DeedOutcome, RULE_LINE, RULES_FEATURE, RecordsSeen, RuleBy, RuleEdge, RuleRecord,
};
use agent_protocol::{Operation, RulesInForce, SettingOutcome};
use jiff::Timestamp;
use persona::Persona;
use persona::rule::Rule;
use persona::units::Moment;
use planner::place::{Place, Room, places};
use planner::{Call, Plan};
use serde::{Deserialize, Serialize};

use super::Daemon;
use super::event::Event;
use super::tracked::Tracked;
use crate::act::sentence_of;
use crate::agent::{Activated, AgentError, AgentReply};
use crate::audit::{AuditKind, Entry};
use crate::catalog::{ActivationState, CatalogueError};
use crate::hypervisor::DomainId;
use crate::store::{Batch, Store, StoreError, Stored, Tree};
use crate::view::{ExplainView, RuleState};

/// How long an agent may take to say what its rules did.
const ANSWER: Duration = Duration::from_secs(20);
/// Records that one guest tells within an hour, new or not; the rest waits in the guest, which keeps a bounded number of them.
const RECORDS_AN_HOUR: u32 = 1_000;
const HOUR: Duration = Duration::from_secs(3_600);
/// Logs of one guest of which it is known how far they have been seen: it draws one at each start.
const LOGS: usize = 32;

/// What is known of one guest's rules, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Book {
    /// The activation that this is of.
    #[serde(default)]
    generation: u64,
    /// Rules that the guest could not have when it confirmed the activation, with its reason.
    #[serde(default)]
    refused: BTreeMap<String, String>,
    /// Those that it said later that it evaluates; `None` where it has not said it.
    #[serde(default)]
    held: Option<BTreeSet<String>>,
    /// How far records were seen, by log; the log that was heard of last stands last.
    #[serde(default)]
    seen: Vec<(String, u64)>,
    /// The activation whose rules went to an agent that evaluates rules; none where that was before it was written down.
    #[serde(default)]
    pub(super) sent: u64,
    /// The activation that only brings rules to a guest which has all the rest.
    #[serde(default)]
    pub(super) brings: u64,
}

impl Stored for Book {
    const TREE: Tree = Tree::GuestRules;
}

impl Book {
    /// Whether the guest evaluates a rule of the activation that this is of.
    fn holds(&self, rule: &str) -> Result<(), Absent> {
        let refused = self.refused.get(rule).cloned().map(Absent::Refused);
        match &self.held {
            Some(held) if held.contains(rule) => Ok(()),
            Some(_) => Err(refused.unwrap_or(Absent::NotHeld)),
            None => refused.map_or(Ok(()), Err),
        }
    }

    /// Takes over what the guest says that it evaluates of an activation.
    fn hold(&mut self, generation: u64, held: BTreeSet<String>) {
        if self.generation != generation {
            (self.generation, self.refused) = (generation, BTreeMap::new());
        }
        self.held = Some(held);
    }

    /// Whether a record is new; from here on it is seen.
    fn take(&mut self, record: &RuleRecord) -> bool {
        let at = self.seen.iter().position(|(log, _)| *log == record.log);
        let before = at.map(|at| self.seen.remove(at).1);
        let new = before.is_none_or(|before| record.seq > before);
        let seq = before.unwrap_or(0).max(record.seq);
        self.seen.push((record.log.clone(), seq));
        let surplus = self.seen.len().saturating_sub(LOGS);
        self.seen.drain(..surplus);
        new
    }
}

/// What is known of all guests' rules.
#[derive(Debug, Default)]
pub(super) struct GuestRules {
    books: BTreeMap<DomainId, Book>,
    /// Guests that are being asked.
    asking: BTreeSet<DomainId>,
    /// The last record that is on the host's disk, to be told with the next question.
    last: BTreeMap<DomainId, RecordsSeen>,
    /// Since when it is counted what a guest tells, and how much that was.
    pace: BTreeMap<DomainId, (Moment, u32)>,
}

impl GuestRules {
    /// What is known of one guest's.
    pub(super) fn book(&self, id: DomainId) -> Book {
        self.books.get(&id).cloned().unwrap_or_default()
    }

    /// From here on this is known.
    pub(super) fn learn(&mut self, id: DomainId, book: Book) {
        self.books.insert(id, book);
    }

    /// What was known at the last stop.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn stored(store: &Store) -> Result<Self, StoreError> {
        let mut books = BTreeMap::new();
        for (key, book) in store.all::<Book>()? {
            if let Ok(id) = <[u8; 16]>::try_from(key.as_slice()) {
                books.insert(DomainId(id), book);
            }
        }
        Ok(Self {
            books,
            ..Self::default()
        })
    }
}

/// What a guest said when it was asked for records.
#[derive(Debug)]
pub struct RecordsFetched {
    domain: DomainId,
    answer: Result<AgentReply, AgentError>,
}

/// Why a rule that is the guest's is not in force there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Absent {
    #[error("the agent is not connected")]
    NoAgent,
    #[error("the agent is too old to evaluate rules")]
    TooOld,
    #[error("somebody in the guest went back to another generation by hand")]
    WentBack,
    #[error("the guest cannot have it: {0}")]
    Refused(String),
    #[error("the guest does not evaluate it; apply the persona again")]
    NotHeld,
}

/// What a guest may have of a persona's rules.
const ROOM: Room = Room {
    rules: RULES_MAX,
    actions: RULE_DEEDS_MAX,
};

/// The rules of a persona that are the guest's.
pub(super) fn of_guest(persona: &Persona) -> impl Iterator<Item = &Rule> {
    let placed = persona.rules.iter().zip(places(persona, ROOM));
    placed.filter_map(|(rule, place)| (place == Place::Guest).then_some(rule))
}

/// Their names.
pub(super) fn names_of_guest(persona: Option<&Persona>) -> BTreeSet<String> {
    let rules = persona.into_iter().flat_map(of_guest);
    rules.map(|rule| rule.name.to_string()).collect()
}

impl Daemon {
    /// Whether a rule of the guest is in force there, or why not.
    fn in_guest(&self, id: DomainId, tracked: &Tracked, rule: &str) -> Result<(), Absent> {
        let facts = tracked.agent.facts.as_ref().ok_or(Absent::NoAgent)?;
        if !facts.can(RULES_FEATURE) {
            return Err(Absent::TooOld);
        }
        if facts.rolled_back.is_some() {
            return Err(Absent::WentBack);
        }
        // A guest that has lost the persona is about to get it again, and what it refused then it will refuse.
        let wanted = self.catalog.activation(id).map(|of| of.generation.0);
        let known = [wanted, self.rules_of(id, tracked)];
        let book = self.guest_rules.books.get(&id);
        let book = book.filter(|book| known.contains(&Some(book.generation)));
        book.map_or(Ok(()), |book| book.holds(rule))
    }

    /// The activation whose rules a guest has and the domain as well; `None` where the persona in force is not in the guest yet.
    /// While another one is under way, and when that has failed, it is the one before.
    fn rules_of(&self, id: DomainId, tracked: &Tracked) -> Option<u64> {
        let active = tracked.agent.facts.as_ref()?.active.as_ref()?;
        let state = &self.catalog.activation(id)?.state;
        (*state != ActivationState::AgentAbsent).then_some(active.generation)
    }

    /// The plan without what the guests themselves do. While an agent is away its rules go on there, and the host knows
    /// nothing that they look at.
    pub(super) fn without_guests_rules(&self, mut plan: Plan) -> Plan {
        plan.calls.retain(|call: &Call| {
            let Some(tracked) = self.domains.get(&call.domain) else {
                return true;
            };
            !tracked.persona.in_guest.contains(&call.rule)
                || !matches!(
                    self.in_guest(call.domain, tracked, &call.rule),
                    Ok(()) | Err(Absent::NoAgent)
                )
        });
        plan
    }

    /// Rules of the guest that are not in force in it, each as a sentence.
    pub(super) fn guest_rule_problems(&self, tracked: &Tracked) -> Vec<String> {
        let id = tracked.description.id;
        let absent = tracked.persona.in_guest.iter().filter_map(|rule| {
            // That the agent is away is shown as such, and what it had it goes on with.
            match self.in_guest(id, tracked, rule) {
                Ok(()) | Err(Absent::NoAgent) => None,
                Err(why) => Some(format!("rule {rule} is not in force in the guest: {why}")),
            }
        });
        absent.collect()
    }

    /// Says of the guest's rules where they are.
    pub(super) fn say_where(&self, id: DomainId, view: &mut ExplainView) {
        let Some(tracked) = self.domains.get(&id) else {
            return;
        };
        for rule in &mut view.rules {
            if !tracked.persona.in_guest.contains(&rule.name) {
                continue;
            }
            let detail = match self.in_guest(id, tracked, &rule.name) {
                Ok(()) => "the guest evaluates it, also while the host is away; what is shown is what the host sees".to_owned(),
                Err(why) => format!("it is the guest's to evaluate, and {why}"),
            };
            (rule.state, rule.detail) = (RuleState::InGuest, Some(detail));
        }
    }

    /// What a guest confirmed of the rules of an activation is kept.
    pub(super) fn guest_has_rules(&mut self, id: DomainId, generation: u64, reply: &AgentReply) {
        let settings = match reply {
            AgentReply::Activated(Activated { settings, .. }) => settings.as_ref(),
            _ => None,
        };
        let lines = settings.into_iter().flat_map(|settings| &settings.lines);
        let refused: BTreeMap<String, String> = lines
            .filter(|line| line.outcome == SettingOutcome::Refused)
            .filter_map(|line| {
                let rule = line.setting.as_str().strip_prefix(RULE_LINE)?;
                Some((rule.to_owned(), line.reason.as_str().to_owned()))
            })
            .collect();
        let before = self.guest_rules.books.get(&id);
        // What was of an earlier activation counts for nothing in this one.
        let same = before.is_some_and(|book| book.generation == generation);
        if refused.is_empty() && !same {
            return;
        }
        let mut book = before.cloned().unwrap_or_default();
        (book.generation, book.refused, book.held) = (generation, refused, None);
        self.keep_book(id, book, Vec::new());
    }

    /// A guest says which rules it evaluates: since it confirmed them its agent or its owner's word may have changed.
    /// Whether that is something new.
    fn guest_holds_rules(&mut self, id: DomainId, said: RulesInForce) -> bool {
        let Some(tracked) = self.domains.get(&id) else {
            return false;
        };
        if self.rules_of(id, tracked) != Some(said.generation) {
            return false;
        }
        let of_guest = &tracked.persona.in_guest;
        let held = said
            .rules
            .into_iter()
            .filter(|name| of_guest.contains(name));
        let before = self.guest_rules.books.get(&id);
        let mut book = before.cloned().unwrap_or_default();
        book.hold(said.generation, held.collect());
        let new = before != Some(&book);
        if new && self.keep_book(id, book, Vec::new()) {
            self.publish_soon();
        }
        new
    }

    /// A guest says that records wait, or has just come: they are asked for, one page at a time.
    pub(super) fn fetch_records(&mut self, id: DomainId) {
        let now = self.clock.now();
        let able = self.domains.get(&id).is_some_and(|tracked| {
            let facts = tracked.agent.facts.as_ref();
            facts.is_some_and(|facts| facts.can(RULES_FEATURE))
        });
        if !able || self.is_too_fast(id, now) || !self.guest_rules.asking.insert(id) {
            return;
        }
        let seen = self.guest_rules.last.get(&id).cloned();
        let registry = self.registry.clone();
        self.spawn(async move {
            let operation = Operation::RuleRecords { seen };
            let answer = registry.request(id, None, operation, ANSWER).await;
            Event::RuleRecords(Box::new(RecordsFetched { domain: id, answer }))
        });
    }

    /// Counts what a guest told of its rules. Whether the rest waits from now on.
    fn has_told(&mut self, id: DomainId, count: u32, now: Moment) -> bool {
        let before = self.is_too_fast(id, now);
        let (_, told) = self.guest_rules.pace.entry(id).or_insert((now, 0));
        *told = told.saturating_add(count);
        !before && self.is_too_fast(id, now)
    }

    /// Whether a guest has said so much within an hour that the rest waits.
    fn is_too_fast(&mut self, id: DomainId, now: Moment) -> bool {
        let (since, count) = self.guest_rules.pace.entry(id).or_insert((now, 0));
        if now.since(*since) >= HOUR {
            (*since, *count) = (now, 0);
        }
        *count >= RECORDS_AN_HOUR
    }

    /// What came is recorded; what was recorded before is not recorded again.
    pub(super) fn records_came(&mut self, fetched: RecordsFetched) {
        let RecordsFetched { domain: id, answer } = fetched;
        self.guest_rules.asking.remove(&id);
        let (records, in_force) = match answer {
            Ok(AgentReply::RuleRecords {
                records, in_force, ..
            }) => (records, in_force),
            Ok(_) => return,
            // It is asked again when it says again that there are some.
            Err(error) => {
                tracing::debug!(domain = %id, error = sentence_of(&error), "what rules in a guest did is not known");
                return;
            }
        };
        // A guest that repeats itself costs as much as one that has something to say, so all of it counts.
        let mut told = u32::try_from(records.len()).unwrap_or(u32::MAX);
        if in_force.is_some_and(|said| self.guest_holds_rules(id, said)) {
            told = told.saturating_add(1);
        }
        let now = self.clock.now();
        if self.has_told(id, told, now) {
            tracing::warn!(domain = %id, "the guest has told of its rules more than {RECORDS_AN_HOUR} times within an hour; what else they do is recorded later");
        }
        let Some(last) = records.last() else {
            self.guest_rules.last.remove(&id);
            return;
        };
        let seen = RecordsSeen {
            log: last.log.clone(),
            seq: last.seq,
        };
        if !self.domains.contains_key(&id) {
            return;
        }
        let mut book = self.guest_rules.books.get(&id).cloned().unwrap_or_default();
        let new: Vec<&RuleRecord> = records.iter().filter(|record| book.take(record)).collect();
        let entries: Vec<Entry> = new
            .iter()
            .map(|record| {
                let detail = serde_json::json!({ "source": "guest", "record": record });
                self.entry(AuditKind::Action, Some(id), &record_text(record), detail)
            })
            .collect();
        // What was there before is on the disk.
        if !new.is_empty() && !self.keep_book(id, book, entries) {
            return;
        }
        for record in &new {
            self.measure_firing(id, record, now);
        }
        self.guest_rules.last.insert(id, seen);
        self.fetch_records(id);
        // What has ended has left room.
        self.ask_calls(id);
        self.publish_soon();
    }

    /// Keeps what is known of a guest's rules together with what is recorded of them. Says whether that is on the disk.
    pub(super) fn keep_book(&mut self, id: DomainId, book: Book, entries: Vec<Entry>) -> bool {
        let mut batch = Batch::new();
        let put = batch.put(id.0, &book).map_err(CatalogueError::from);
        match put.and_then(|()| self.commit(batch, entries)) {
            Ok(()) => {
                self.guest_rules.books.insert(id, book);
                true
            }
            Err(error) => {
                let text = format!(
                    "what rules in a guest did could not be recorded: {}",
                    sentence_of(&error)
                );
                tracing::error!(domain = %id, text);
                self.problems.insert("store-write", text);
                false
            }
        }
    }

    /// The domain is no longer defined.
    pub(super) fn forget_guest_rules(&mut self, batch: &mut Batch, id: DomainId) {
        self.guest_rules.last.remove(&id);
        self.guest_rules.pace.remove(&id);
        if self.guest_rules.books.remove(&id).is_some() {
            batch.remove::<Book>(id.0);
        }
    }
}

/// A record as one line.
fn record_text(record: &RuleRecord) -> String {
    let lost = match record.lost_before {
        0 => String::new(),
        1 => "1 record before this one was lost in the guest; ".to_owned(),
        lost => format!("{lost} records before this one were lost in the guest; "),
    };
    let what = match record.edge {
        RuleEdge::Begins if record.by == RuleBy::Host => {
            format!("rule {} of the host was obeyed", record.rule)
        }
        RuleEdge::Begins => format!("rule {} fired", record.rule),
        RuleEdge::Ends => format!("the until of rule {} took back", record.rule),
    };
    let when = i64::try_from(record.at_unix_ms)
        .ok()
        .and_then(|millis| Timestamp::from_millisecond(millis).ok())
        .map_or_else(String::new, |at| {
            format!(" at {at:.0} by the guest's clock")
        });
    let deeds: Vec<String> = record
        .deeds
        .iter()
        .map(|deed| {
            let detail = match deed.detail.as_str() {
                "" => String::new(),
                detail => format!(", {detail}"),
            };
            format!("{}: {}{detail}", deed.action, word(deed.outcome))
        })
        .collect();
    format!("{lost}in the guest {what}{when}: {}", deeds.join("; "))
}

fn word(outcome: DeedOutcome) -> &'static str {
    match outcome {
        DeedOutcome::Done => "done",
        DeedOutcome::Unchanged => "it was so already",
        DeedOutcome::Failed => "failed",
        DeedOutcome::Refused => "refused",
        DeedOutcome::NeedsApproval => "not done",
        DeedOutcome::Interrupted => "interrupted",
        DeedOutcome::NotBegun => "not begun",
        DeedOutcome::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use agent_protocol::rules::RuleDeed;

    use super::*;

    fn record(log: &str, seq: u64) -> RuleRecord {
        RuleRecord {
            log: log.to_owned(),
            seq,
            boot_id: "b".to_owned(),
            at_unix_ms: 1_763_769_600_000,
            generation: 1,
            persona: "web".to_owned(),
            rule: "drain".to_owned(),
            edge: RuleEdge::Begins,
            by: RuleBy::Guest,
            readings: Vec::new(),
            deeds: vec![RuleDeed {
                action: "run drain".to_owned(),
                outcome: DeedOutcome::Failed,
                detail: "it ended with 3".to_owned(),
                output: String::new(),
            }],
            lost_before: 2,
        }
    }

    #[test]
    fn a_record_counts_once_in_its_log_and_logs_are_bounded() {
        let mut book = Book::default();
        let mut taken = Vec::new();
        for (log, seq) in [("a", 1), ("a", 1), ("a", 3), ("a", 2), ("b", 1), ("b", 2)] {
            taken.push(book.take(&record(log, seq)));
        }
        assert_eq!(taken, [true, false, true, false, true, true]);
        for log in 0..1000 {
            assert!(book.take(&record(&format!("log {log}"), 1)));
        }
        assert_eq!(book.seen.len(), LOGS);
        assert!(!book.take(&record("log 999", 1)));
    }

    #[test]
    fn what_a_guest_says_later_goes_before_what_it_confirmed() {
        let refused = |why: &str| Err(Absent::Refused(why.to_owned()));
        let mut book = Book {
            generation: 3,
            refused: [("new".to_owned(), "too old".to_owned())].into(),
            ..Book::default()
        };
        assert_eq!(book.holds("drain"), Ok(()));
        assert_eq!(book.holds("new"), refused("too old"));
        // Another version of the agent knows the one, and its owner does not allow the other any more.
        book.hold(3, ["new".to_owned()].into());
        assert_eq!(book.holds("new"), Ok(()));
        assert_eq!(book.holds("drain"), Err(Absent::NotHeld));
        book.hold(3, BTreeSet::new());
        assert_eq!(book.holds("new"), refused("too old"));
        book.hold(4, BTreeSet::new());
        assert_eq!(book.holds("new"), Err(Absent::NotHeld));
        let stored: Book = serde_json::from_str(r#"{"generation":4}"#).unwrap();
        assert_eq!(
            (stored.held.as_ref(), stored.holds("drain")),
            (None, Ok(()))
        );
    }

    #[test]
    fn a_record_says_what_was_done_and_what_is_missing() {
        assert_eq!(
            record_text(&record("a", 1)),
            "2 records before this one were lost in the guest; in the guest rule drain fired at 2025-11-22T00:00:00Z by the guest's clock: run drain: failed, it ended with 3"
        );
    }
}
