//! What the agents tell: that they are there, that they are gone, how their guests are, and what is wrong with them. The
//! domains themselves are followed in `follow`.

use std::time::Duration;

use persona::Moment;
use persona::signal::EventKind;
use planner::snapshot::Run;

use super::Daemon;
use super::tracked::Renewed;
use crate::agent::{AgentEvent, LostReason};
use crate::audit::AuditKind;
use crate::hypervisor::DomainId;
use crate::view::AgentState;

/// An agent whose session the daemon renews is back within this, or lost: long enough for a guest to boot, because a
/// reboot is an event of its own.
const BACK: Duration = Duration::from_secs(60);

impl Daemon {
    pub(super) fn agent_tells(&mut self, id: DomainId, event: AgentEvent) {
        let now = self.clock.now();
        let telemetry = std::time::Duration::from_millis(self.config.tick.telemetry_ms);
        let Some(tracked) = self.domains.get_mut(&id) else {
            return;
        };
        let agent = &mut tracked.agent;
        match event {
            AgentEvent::Connected { facts } => {
                let text = format!(
                    "the agent {} is connected (boot {})",
                    facts.agent_version.as_str(),
                    facts.boot_id.as_str()
                );
                let same = agent
                    .renewed
                    .take()
                    .is_some_and(|renewed| renewed.boot.as_ref() == Some(&facts.boot_id));
                agent.heard = Some(now);
                agent.trouble = None;
                agent.facts = Some(facts);
                if !same {
                    tracked.happened.note(EventKind::AgentConnected, now);
                }
                self.record(
                    AuditKind::Connection,
                    Some(id),
                    &text,
                    serde_json::Value::Null,
                );
                self.went_back(id);
                self.has_its_own_way(id);
                self.agent_came(id);
                self.fetch_records(id);
            }
            AgentEvent::Deviated { facts } => {
                agent.heard = Some(now);
                let before = agent.deviated(facts.clone());
                let before = before.as_ref();
                if before.is_none_or(|before| before.rolled_back != facts.rolled_back) {
                    self.went_back(id);
                }
                if before.is_none_or(|before| before.own != facts.own) {
                    self.has_its_own_way(id);
                }
                if before.is_none_or(|before| before.gate != facts.gate) {
                    self.gate_changed(id);
                }
                self.follow_activation(id);
            }
            AgentEvent::Lost { reason } => {
                let facts = agent.facts.take();
                agent.report = None;
                agent.applications.lose();
                agent.figures.lose();
                if matches!(reason, LostReason::Renewed | LostReason::Reverted) {
                    let boot = facts.map(|facts| facts.boot_id);
                    agent.renewed = Some(Renewed { at: now, boot });
                } else {
                    tracked.happened.note(EventKind::AgentLost, now);
                }
                // A session that the daemon itself renews is back in a moment.
                if reason != LostReason::Renewed {
                    let text = format!("the agent is not connected: {reason}");
                    self.record(
                        AuditKind::Connection,
                        Some(id),
                        &text,
                        serde_json::Value::Null,
                    );
                }
                self.agent_left(id);
            }
            AgentEvent::Telemetry(latest) => {
                if let Some(report) = latest.take() {
                    tracked.take_report(&report, telemetry, now);
                }
                // Shown with the next tick.
                return;
            }
            AgentEvent::Needs { more, reason } => {
                agent.heard = Some(now);
                self.guest_needs(id, more, &reason, now);
                return;
            }
            AgentEvent::Asks(ask) => {
                agent.heard = Some(now);
                self.guest_asks(id, *ask, now);
                return;
            }
            AgentEvent::RecordsWait => {
                self.fetch_records(id);
                return;
            }
            AgentEvent::Unresponsive => {
                let text = "the agent no longer answers; the guest may hang".to_string();
                agent.trouble = Some((AgentState::Unresponsive, text.clone()));
                self.record(
                    AuditKind::Connection,
                    Some(id),
                    &text,
                    serde_json::Value::Null,
                );
            }
            AgentEvent::Incompatible { versions } => {
                let text = format!("the agent cannot be talked to: {versions}");
                agent.trouble = Some((AgentState::Misbehaving, text.clone()));
                self.record(
                    AuditKind::Connection,
                    Some(id),
                    &text,
                    serde_json::Value::Null,
                );
            }
            AgentEvent::Misbehaved { misconduct } => {
                if misconduct.offences() > 0 {
                    let text =
                        "the guest sent what no agent sends; it was not believed".to_string();
                    agent.trouble = Some((AgentState::Misbehaving, text.clone()));
                    let detail = serde_json::json!({ "misconduct": format!("{misconduct:?}") });
                    self.record(AuditKind::Connection, Some(id), &text, detail);
                }
            }
        }
        self.publish_soon();
    }

    /// Somebody in the guest went back to an earlier generation by hand: it is written down, shown, and left alone.
    fn went_back(&mut self, id: DomainId) {
        let facts = self.domains.get(&id);
        let facts = facts.and_then(|tracked| tracked.agent.facts.as_ref());
        let Some(back) = facts.and_then(|facts| facts.rolled_back.as_ref()) else {
            return;
        };
        let text = format!(
            "somebody in the guest went back to {back} by hand; it holds there until the next activation"
        );
        let detail = serde_json::json!({ "rolled_back": back });
        self.record(AuditKind::Activation, Some(id), &text, detail);
    }

    /// The guest's owner has something otherwise than the persona says: it is written down, shown, and left alone.
    fn has_its_own_way(&mut self, id: DomainId) {
        let facts = self.domains.get(&id);
        let facts = facts.and_then(|tracked| tracked.agent.facts.as_ref());
        let Some(own) = facts.and_then(|facts| facts.own.as_ref()) else {
            return;
        };
        let text = format!("the guest has its own way in what its owner customised: {own}");
        let detail = serde_json::json!({ "customized": own });
        self.record(AuditKind::Activation, Some(id), &text, detail);
    }

    /// People who log in to the guest are held to restricted commands from now on, or are not any more.
    fn gate_changed(&mut self, id: DomainId) {
        let facts = self.domains.get(&id);
        let facts = facts.and_then(|tracked| tracked.agent.facts.as_ref());
        let Some(gate) = facts.and_then(|facts| facts.gate) else {
            return;
        };
        let detail = serde_json::json!({ "gate": gate });
        let text = super::show::gate_text(gate);
        self.record(AuditKind::Activation, Some(id), text, detail);
    }

    /// Agents whose session was renewed and who have not come back are lost.
    pub(super) fn give_up_agents(&mut self, now: Moment) {
        for tracked in self.domains.values_mut() {
            let late = |renewed: &mut Renewed| {
                now.since(renewed.at) >= BACK && tracked.agent.facts.is_none()
            };
            if tracked.agent.renewed.take_if(late).is_some() && tracked.run() == Run::Running {
                tracked.happened.note(EventKind::AgentLost, now);
            }
        }
    }
}
