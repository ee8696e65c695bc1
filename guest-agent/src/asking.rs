//! What users of the guest ask the host about personas: which client waits for which answer, and how often may be asked.
//! Part of the conversation; it does no I/O and reads no clock.

use std::{collections::HashMap, time::Instant};

use agent_protocol::{
    Answer, Ask, Asked, GuestUser, RequestId, Told,
    limits::{ASK_INTERVAL_MS, ASKS_BURST},
    switching::Pace,
};

use crate::local::ClientId;

/// The asks of one agent.
#[derive(Debug)]
pub(crate) struct Asking {
    /// What the ids begin with, so that no other start of the agent has the same.
    prefix: String,
    asked: u64,
    waiting: HashMap<RequestId, ClientId>,
    /// Clients whose host has gone, and who have not been told yet.
    lost: Vec<ClientId>,
    pace: Pace,
    /// The clock of the pace begins with the first ask.
    began: Option<Instant>,
}

impl Asking {
    /// Nothing is asked yet; `inst` is the agent's own number.
    pub(crate) fn new(inst: &str) -> Self {
        let prefix = inst.chars().filter(char::is_ascii_alphanumeric).take(16);
        Self {
            prefix: prefix.collect(),
            asked: 0,
            waiting: HashMap::new(),
            lost: Vec::new(),
            pace: Pace::new(ASK_INTERVAL_MS, ASKS_BURST),
            began: None,
        }
    }

    /// The next ask, for a client who waits for its answers; nothing when there were too many.
    pub(crate) fn ask(
        &mut self,
        what: Asked,
        user: GuestUser,
        client: ClientId,
        now: Instant,
    ) -> Option<Ask> {
        let began = *self.began.get_or_insert(now);
        let passed = now.saturating_duration_since(began).as_millis();
        let now_ms = u64::try_from(passed).unwrap_or(u64::MAX);
        self.pace.take(now_ms).ok()?;
        self.asked += 1;
        let ask_id = RequestId::new(format!("{}-{}", self.prefix, self.asked)).ok()?;
        self.waiting.insert(ask_id.clone(), client);
        Some(Ask { ask_id, user, what })
    }

    /// Who waits for what the host says; nothing where nobody does.
    pub(crate) fn told(&mut self, told: Told) -> Option<(ClientId, Answer)> {
        let client = *self.waiting.get(&told.ask_id)?;
        if told.answer.is_last() {
            self.waiting.remove(&told.ask_id);
        }
        Some((client, told.answer))
    }

    /// Forgets whoever does not wait any more.
    pub(crate) fn keep(&mut self, waits: impl Fn(ClientId) -> bool) {
        self.waiting.retain(|_, client| waits(*client));
    }

    /// The host that was asked has gone.
    pub(crate) fn lose(&mut self) {
        self.lost
            .extend(self.waiting.drain().map(|(_, client)| client));
    }

    /// Whoever waited for a host that has gone; each is told once.
    pub(crate) fn take_lost(&mut self) -> Vec<ClientId> {
        std::mem::take(&mut self.lost)
    }
}
