//! What the guest says of its own accord: that memory is needed, and what its users ask of the host. The channel calls this.

use std::time::{Duration, Instant};

use agent_protocol::{
    Asked, GuestMessage, GuestUser, Need,
    limits::NEED_INTERVAL_MS,
    local::{HostPresence, LocalStatus},
};

use super::{Conversation, Ear, Unasked, Unsent};
use crate::{local::ClientId, policy::Leave};

impl Conversation {
    /// Tells the host that memory is needed. What is not sent now is not sent later: a need that lasts is noticed again.
    pub(crate) fn need(&mut self, need: Need, now: Instant) -> Result<(), Unsent> {
        if self.policy.need == Leave::Denied {
            return Err(Unsent::Denied);
        }
        match self.live.as_ref().map(|live| live.ear) {
            None => return Err(Unsent::NoHost),
            Some(Ear::Closed) => return Err(Unsent::Deaf),
            Some(Ear::Open) => {}
        }
        let interval = Duration::from_millis(NEED_INTERVAL_MS);
        if self.needed.is_some_and(|sent| now < sent + interval) {
            return Err(Unsent::TooSoon);
        }
        self.needed = Some(now);
        self.send(GuestMessage::Need(need));
        Ok(())
    }

    /// Asks the host about personas for a client of the agent's own socket, who is told what it says.
    pub(crate) fn ask(
        &mut self,
        what: Asked,
        user: GuestUser,
        client: ClientId,
        now: Instant,
    ) -> Result<(), Unasked> {
        match self.live.as_ref().map(|live| live.switch_ear) {
            None => return Err(Unasked::NoHost),
            Some(Ear::Closed) => return Err(Unasked::Deaf),
            Some(Ear::Open) => {}
        }
        let ask = self.asking.ask(what, user, client, now);
        self.send(GuestMessage::Ask(ask.ok_or(Unasked::TooSoon)?));
        Ok(())
    }

    /// What is told of the guest without asking the host: what holds, also after a return by hand.
    pub(crate) fn local_status(&self) -> LocalStatus {
        let active = self.state.active.as_ref();
        LocalStatus {
            persona: match &self.state.rolled_back {
                Some(back) => back.persona.clone(),
                None => active.map(|of| of.persona.clone()),
            },
            host: match self.live.as_ref().map(|live| live.switch_ear) {
                None => HostPresence::Absent,
                Some(Ear::Closed) => HostPresence::Deaf,
                Some(Ear::Open) => HostPresence::Listens,
            },
        }
    }

    /// Clients who asked something of a host that has gone.
    pub(crate) fn take_lost(&mut self) -> Vec<ClientId> {
        if self.live.is_none() {
            self.asking.lose();
        }
        self.asking.take_lost()
    }

    /// Forgets the asks of clients that do not wait any more.
    pub(crate) fn keep_asks(&mut self, waits: impl Fn(ClientId) -> bool) {
        self.asking.keep(waits);
    }
}
