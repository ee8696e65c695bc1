//! What becomes of a switch that was asked for: it ends in the guest, or a person approves it, rejects it or says nothing. Whoever
//! asked is told. Called after each change of an activation, and with what has become of proposals.

use agent_protocol::Answer;
use agent_protocol::limits::MESSAGE_MAX;
use persona::units::Moment;
use planner::proposal::{News, Proposal, Turn};

use super::no::No;
use crate::agent::{GuestWords, Lines};
use crate::catalog::ActivationState;
use crate::daemon::Daemon;
use crate::hypervisor::DomainId;

impl Daemon {
    /// Tells whoever asked for a switch that it has ended. Called after each change of an activation.
    pub(in crate::daemon) fn follow_switch(&mut self, id: DomainId) {
        let activation = self.catalog.activation(id).cloned();
        let Some(side) = self.switch_side(id) else {
            return;
        };
        let Some(under_way) = &side.under_way else {
            return;
        };
        let ours = activation.filter(|activation| activation.generation == under_way.generation);
        let answer = match ours {
            None => Answer::failed("the machine was given another persona meanwhile"),
            Some(activation) => match activation.state {
                ActivationState::Active { .. } => Answer::Active {
                    persona: under_way.persona.to_string(),
                    remark: activation.remark.map(|remark| short(&remark)),
                },
                ActivationState::Failed { reason } => Answer::failed(&reason),
                ActivationState::Pending
                | ActivationState::Sent { .. }
                | ActivationState::AgentAbsent => return,
            },
        };
        let ask = side.under_way.take().and_then(|ended| ended.ask);
        if let Some(ask) = ask {
            self.tell_guest(id, ask, answer);
        }
    }

    /// A person approved something; where it is a user's switch it is carried out now.
    pub(in crate::daemon) fn carry_out_approved_switch(
        &mut self,
        proposal: &Proposal,
        now: Moment,
    ) {
        let Some(name) = proposal.guest_switch() else {
            return;
        };
        let id = proposal.domain;
        let user = proposal.by.to_string();
        let side = self.switch_side(id);
        let ask = side.and_then(|side| side.waiting.remove(&proposal.id));
        let in_force = self
            .domains
            .get(&id)
            .and_then(|of| of.persona.in_force.clone());
        let begun = match in_force.filter(|in_force| in_force.digest == proposal.digest) {
            Some(in_force) => self
                .check_switch(id, &in_force, &name, now)
                .and_then(|_| self.begin_switch(id, &name, &user, ask.as_ref(), now)),
            None => Err(No::NothingInForce),
        };
        let (answer, turn) = match begun {
            Ok(answer) => (answer, Turn::CarriedOut),
            Err(no) => {
                let refused = self.refuse_switch(id, name.as_str(), &user, &no, now);
                (refused, Turn::Refused)
            }
        };
        let news = self.state.proposals.settle(proposal.id, turn);
        self.proposals_changed(news.as_slice());
        if let Some(ask) = ask {
            self.tell_guest(id, ask, answer);
        }
        self.follow_switch(id);
    }

    /// Tells whoever waits for a person's word how that ended otherwise than by being carried out.
    pub(in crate::daemon) fn switch_not_approved(
        &mut self,
        id: DomainId,
        proposal: u64,
        why: &str,
    ) {
        let side = self.switch_side(id);
        if let Some(ask) = side.and_then(|side| side.waiting.remove(&proposal)) {
            self.tell_guest(id, ask, Answer::failed(why));
        }
    }

    /// What has become of proposals, as far as users of guests wait for it.
    pub(in crate::daemon) fn tell_proposals_ended(&mut self, news: &[News]) {
        for News { proposal, turn } in news {
            if !matches!(turn, Turn::Made | Turn::CarriedOut) && proposal.guest_switch().is_some() {
                self.switch_not_approved(proposal.domain, proposal.id, &format!("it {turn}"));
            }
        }
    }
}

fn short(text: &str) -> String {
    GuestWords::clean(text, MESSAGE_MAX, Lines::One)
        .as_str()
        .to_owned()
}
