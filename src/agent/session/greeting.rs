//! How a session begins: the host's hello, an agent that announces itself, and what it says of itself when it answers. Called
//! with each frame of that kind, and with the first of a conversation.

use std::time::Duration;

use agent_protocol::coordination::NEED_FEATURE;
use agent_protocol::limits::{MAX_FRAME, MIN_FRAME};
use agent_protocol::message::{Announce, Hello, HelloAck, HelloReason};
use agent_protocol::switching::SWITCH_FEATURE;
use agent_protocol::version::negotiate;
use agent_protocol::{HostMessage, Parts};
use tokio::time::Instant;

use super::{Ending, Happening, Session, Stage, identifier, over};
use crate::agent::event::{ActivePersona, AgentFacts, LostReason, OwnWay, WentBack};
use crate::agent::identity::{fresh_session_id, unix_time};
use crate::agent::{Needs, Switches};

/// A hello this young was on its way when the agent announced itself, and will be answered.
const HELLO_CROSSED: Duration = Duration::from_millis(200);

/// Abilities of an agent that are looked at: many more than there are.
const FEATURES_MAX: usize = 64;

impl Session {
    pub(super) fn say_hello(&mut self, reason: HelloReason) {
        self.queue.push(HostMessage::Hello(Hello {
            v: self.config.versions,
            host_id: self.config.host_id.clone(),
            vm_uuid: self.domain.to_string(),
            reason,
            max_frame: MAX_FRAME,
            feats: self.features(),
            now_unix_ms: u64::try_from(unix_time().as_millis()).unwrap_or(u64::MAX),
            telemetry_ms: u64::try_from(self.config.telemetry.as_millis()).ok(),
        }));
    }

    fn features(&self) -> Vec<String> {
        let needs = (self.config.needs == Needs::Honour).then_some(NEED_FEATURE);
        let switches = (self.config.switches == Switches::Honour).then_some(SWITCH_FEATURE);
        let all = [needs, switches].into_iter().flatten();
        all.map(str::to_owned).collect()
    }

    pub(super) fn announced(&mut self, announce: &Announce, now: Instant) -> Result<(), Ending> {
        match &mut self.stage {
            Stage::Open { facts, .. } => {
                let same = facts.instance == identifier(&announce.inst)
                    && facts.boot_id == identifier(&announce.boot_id);
                if same {
                    Ok(())
                } else {
                    Err(over(LostReason::AgentRestarted, HelloReason::Reboot))
                }
            }
            // An announcement only ever answers the question whether somebody is there, and that no faster than this.
            Stage::Greeting { sent, .. } if now - *sent < HELLO_CROSSED => Ok(()),
            Stage::Greeting { sent, until } => {
                *sent = now;
                if let Some(until) = until {
                    *until = (*until).max(now + self.config.hello_timeout);
                }
                self.order = agent_protocol::Session::new(fresh_session_id());
                self.told = Parts::default();
                self.queue.clear();
                self.say_hello(HelloReason::Reboot);
                Ok(())
            }
        }
    }

    pub(super) fn acknowledged(
        &mut self,
        ack: HelloAck,
        now: Instant,
    ) -> Result<Happening, Ending> {
        let theirs = (ack.v, ack.v).into();
        let protocol = negotiate(self.config.versions, theirs).map_err(Ending::Incompatible)?;
        // An agent that takes less than the smallest frame could not be asked anything.
        self.peer_max_frame = ack.max_frame.clamp(MIN_FRAME, MAX_FRAME);
        let facts = AgentFacts {
            agent_version: identifier(&ack.agent_version),
            boot_id: identifier(&ack.boot_id),
            instance: identifier(&ack.inst),
            active: ack.active.map(|active| ActivePersona {
                generation: active.generation,
                persona: identifier(&active.persona),
                version: active.version,
                digest: identifier(&active.digest),
            }),
            rolled_back: ack.rolled_back.as_ref().map(WentBack::of).map(Box::new),
            own: ack.customized.as_ref().map(OwnWay::of).map(Box::new),
            // It comes with the first report.
            gate: None,
            newest_generation: ack.generation,
            journal: ack.journal,
            protocol,
            features: ack
                .feats
                .iter()
                .take(FEATURES_MAX)
                .map(|feature| identifier(feature))
                .collect(),
        };
        self.stage = Stage::Open {
            facts: facts.clone(),
            since: now,
        };
        self.heard(now);
        self.tell_parts();
        self.grant();
        Ok(Happening::Connected(facts))
    }
}
