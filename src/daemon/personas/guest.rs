//! The guest's part of an activation: it is asked, what it answers, and what its agent says that it has when it comes. What the
//! domain is to have, and what is in force meanwhile, is in `personas`.

use std::time::Duration;

use agent_protocol::{Operation, RequestId};

use super::wanted_text;
use crate::act::sentence_of;
use crate::agent::{ActivePersona, AgentError, AgentReply, Effect, RequestStatus};
use crate::audit::AuditKind;
use crate::catalog::{
    Activation, ActivationEvent, ActivationState, Desired, Generation, Insistence, Shown,
    Transition,
};
use crate::daemon::Daemon;
use crate::daemon::adjust::say_what_is_adjusted;
use crate::daemon::event::Event;
use crate::daemon::message::{
    SettingsSent, message, reply_detail, script_text, settings_remark, settings_time,
};
use crate::hypervisor::DomainId;

/// How long the guest may take besides its scripts, until it is asked whether it is still at it.
const GUEST_TIME: Duration = Duration::from_secs(30);
/// How long it has to say so.
const STATUS_TIME: Duration = Duration::from_secs(10);
/// How long a guest that says so is waited for until it is asked again.
const WORK_TIME: Duration = Duration::from_secs(5 * 60);
/// For how long after its time such a guest is waited for in all: longer than what a package manager may take, and not for ever,
/// since it may say so of nothing, and what is rolled out waits for it.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What came of asking a guest.
#[derive(Debug)]
pub struct ActivationResult {
    domain: DomainId,
    generation: Generation,
    /// What of settings was asked for; `None` where no persona is.
    settings: Option<SettingsSent>,
    /// What the guest has active where it confirms.
    brings: Option<ActivePersona>,
    /// How long it was given at first.
    time: Duration,
    answer: Result<AgentReply, AgentError>,
    /// Where there was no answer in time.
    silence: Silence,
}

/// What a guest that has not answered in time is found to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    /// It says that it is still at it.
    AtWork,
    /// Nothing is known of it.
    Unknown,
}

impl Daemon {
    pub(super) fn send(&mut self, id: DomainId, activation: &Activation) {
        let generation = activation.generation;
        let (mut settings, mut brings) = (None, None);
        let (operation, time) = match &activation.desired {
            Desired::Nothing => (
                Operation::Deactivate {
                    generation: generation.0,
                },
                GUEST_TIME,
            ),
            Desired::Persona { composition, .. } => match self.catalog.effective(composition) {
                Ok(composed) => {
                    let persona = &composed.persona;
                    let version = composition.persona.version;
                    let scripts = [&persona.pre_activation, &persona.post_activation];
                    let scripts_time = scripts
                        .into_iter()
                        .flatten()
                        .map(|script| script.timeout)
                        .sum::<Duration>();
                    let mut message = message(generation, version.get(), persona);
                    let agent = self.domains.get(&id);
                    let facts = agent.and_then(|tracked| tracked.agent.facts.as_ref());
                    if let Ok(plain) = self.catalog.digest(&composition.plain()) {
                        say_what_is_adjusted(&mut message, activation, &plain, facts);
                    }
                    settings = Some(SettingsSent::new(&message.settings, facts));
                    let work_time = scripts_time + settings_time(&message.settings);
                    self.rules_are_sent(id, &mut message);
                    brings = Some(ActivePersona::of(&message));
                    (
                        Operation::Activate {
                            activation: Box::new(message),
                        },
                        GUEST_TIME + work_time,
                    )
                }
                Err(error) => {
                    let reason = sentence_of(&error);
                    self.advance(id, ActivationEvent::Refused(generation, reason), Vec::new());
                    return;
                }
            },
        };
        // What is under way already has had its time.
        let deadline = match activation.state {
            ActivationState::Sent { .. } => WORK_TIME,
            _ => time,
        };
        // The same id for every try: what the guest has done already it does not do again. No other store's daemon has
        // ever used it, so the guest cannot take this for something else that it did.
        let Ok(request) = RequestId::new(format!("{}-{generation}", self.host_id)) else {
            return;
        };
        self.advance(id, ActivationEvent::Sent, Vec::new());
        let registry = self.registry.clone();
        self.spawn(async move {
            let about = Operation::OpStatus {
                id: request.clone(),
            };
            let ask = |operation| registry.request(id, Some(request.clone()), operation, deadline);
            let mut answer = ask(operation.clone()).await;
            let mut silence = Silence::Unknown;
            if matches!(answer, Err(AgentError::TimedOut { .. })) {
                match registry.request(id, None, about, STATUS_TIME).await {
                    Ok(AgentReply::Status(RequestStatus::Running)) => silence = Silence::AtWork,
                    // It ended just now; asked once more, it gives the answer that it has kept.
                    Ok(AgentReply::Status(RequestStatus::Done)) => answer = ask(operation).await,
                    _ => {}
                }
            }
            Event::Activated(Box::new(ActivationResult {
                domain: id,
                generation,
                settings,
                brings,
                time,
                answer,
                silence,
            }))
        });
    }

    pub(in crate::daemon) fn activation_ended(&mut self, result: ActivationResult) {
        let ActivationResult {
            domain: id,
            generation,
            settings,
            brings,
            time,
            answer,
            silence,
        } = result;
        let what = self
            .catalog
            .activation(id)
            .map_or_else(String::new, |activation| wanted_text(&activation.desired));
        match answer {
            Ok(reply) => {
                if let Some(tracked) = self.domains.get_mut(&id) {
                    tracked.agent.confirmed(generation.0, brings);
                }
                self.guest_has_rules(id, generation.0, &reply);
                let remark = settings_remark(settings, &reply);
                let told = remark
                    .as_ref()
                    .map_or_else(String::new, |remark| format!("; {remark}"));
                let text = format!("the guest confirms: {what}{told}{}", script_text(&reply));
                if remark.is_some() {
                    let remarked = ActivationEvent::Remarked(generation, remark);
                    self.advance(id, remarked, Vec::new());
                }
                let entry =
                    self.entry(AuditKind::Activation, Some(id), &text, reply_detail(&reply));
                self.advance(id, ActivationEvent::Acknowledged(generation), vec![entry]);
            }
            // The guest is still at it since an earlier session; what it answers there counts.
            Err(AgentError::AlreadyUnderWay { .. }) => {}
            // It has no time for it yet, or it was not sent after all: tried again later.
            Err(error) if not_yet(&error) => {
                if self
                    .catalog
                    .activation(id)
                    .is_some_and(|activation| activation.generation == generation)
                {
                    self.advance(id, ActivationEvent::AgentLeft, Vec::new());
                }
            }
            Err(error) if silence == Silence::AtWork => {
                self.guest_is_at_it(id, generation, &what, time, &error);
            }
            Err(error) if error.effect() == Effect::Unknown || waited_too_long(&error) => {
                let text = format!("no answer yet: {what}: {}", sentence_of(&error));
                let entry = self.entry(
                    AuditKind::Activation,
                    Some(id),
                    &text,
                    serde_json::Value::Null,
                );
                self.advance(id, ActivationEvent::Silent(generation), vec![entry]);
            }
            Err(error) => self.failed_in_guest(id, generation, &what, sentence_of(&error)),
        }
        self.follow_activation(id);
        self.roll_on();
        self.publish_soon();
    }

    /// The guest has not answered in time and says that it is still at it, or will be: it is waited for, but not for ever.
    fn guest_is_at_it(
        &mut self,
        id: DomainId,
        generation: Generation,
        what: &str,
        time: Duration,
        error: &AgentError,
    ) {
        let Some(activation) = self.catalog.activation(id).cloned() else {
            return;
        };
        let ActivationState::Sent { at } = activation.state else {
            return;
        };
        // Another one may be asked for by now.
        if activation.generation != generation {
            return;
        }
        if self.clock.now().since(at) >= time.saturating_add(PATIENCE) {
            let reason = format!(
                "the guest says that it is still at it, {} min after its time was over",
                PATIENCE.as_secs() / 60
            );
            self.failed_in_guest(id, generation, what, reason);
            return;
        }
        let text = format!("the guest is still at it: {what}: {}", sentence_of(error));
        self.record(
            AuditKind::Activation,
            Some(id),
            &text,
            serde_json::Value::Null,
        );
        self.send(id, &activation);
    }

    fn failed_in_guest(&mut self, id: DomainId, generation: Generation, what: &str, why: String) {
        let text = format!("it failed in the guest: {what}: {why}");
        let entry = self.entry(
            AuditKind::Activation,
            Some(id),
            &text,
            serde_json::Value::Null,
        );
        self.advance(id, ActivationEvent::Refused(generation, why), vec![entry]);
    }

    /// An agent says hello and what it has active.
    pub(in crate::daemon) fn agent_came(&mut self, id: DomainId) {
        let Some(facts) = self
            .domains
            .get(&id)
            .and_then(|tracked| tracked.agent.facts.as_ref())
        else {
            return;
        };
        let shown = match &facts.active {
            Some(active) => match serde_json::from_value(serde_json::json!(active.digest.as_str()))
            {
                Ok(digest) => Shown::Persona {
                    generation: Generation(active.generation),
                    digest,
                },
                // What is no digest is not one of ours.
                Err(_) => Shown::Nothing,
            },
            None => Shown::Nothing,
        };
        let before = self
            .catalog
            .activation(id)
            .map(|activation| activation.state.clone());
        let came = self.advance(id, ActivationEvent::AgentCame(shown.clone()), Vec::new());
        if let Transition::Changed(now) = &came
            && before.as_ref() != Some(&now.state)
            && matches!(now.state, ActivationState::Active { .. })
        {
            let text = format!(
                "the guest has it active already: {}",
                wanted_text(&now.desired)
            );
            self.record(
                AuditKind::Activation,
                Some(id),
                &text,
                serde_json::Value::Null,
            );
        }
        // A guest may show a persona that nobody here knows of, from another host or an earlier store: it is taken back.
        if self.catalog.activation(id).is_none() && shown != Shown::Nothing {
            let _ = self.resolve_with(id, Insistence::Again);
        }
        self.follow_activation(id);
        self.bring_rules(id);
    }

    /// An activation that could not be put on its way although its agent is there, because too much else was, is tried
    /// again.
    pub(in crate::daemon) fn ask_guests_again(&mut self) {
        let waiting: Vec<DomainId> = self
            .domains
            .iter()
            .filter(|(id, tracked)| {
                tracked.agent.facts.is_some()
                    && self
                        .catalog
                        .activation(**id)
                        .is_some_and(|of| of.state == ActivationState::AgentAbsent)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            self.agent_came(id);
        }
    }

    pub(in crate::daemon) fn agent_left(&mut self, id: DomainId) {
        self.advance(id, ActivationEvent::AgentLeft, Vec::new());
        self.follow_activation(id);
    }

    /// What was on its way when the daemon last ended is not on its way any more.
    pub(in crate::daemon) fn forget_senders(&mut self) {
        let ids: Vec<DomainId> = self.catalog.activations().map(|(id, _)| id).collect();
        for id in ids {
            self.advance(id, ActivationEvent::AgentLeft, Vec::new());
        }
    }
}

/// Whether the request waited in the guest, behind another one, until its time was over: nothing of it was done.
fn waited_too_long(error: &AgentError) -> bool {
    matches!(error, AgentError::Refused { code, .. } if code.as_str() == "expired")
}

/// Whether the guest was not asked, or has no time for it now.
fn not_yet(error: &AgentError) -> bool {
    match error {
        AgentError::NotAttached { .. }
        | AgentError::NotConnected { .. }
        | AgentError::OwnedElsewhere { .. }
        | AgentError::VersionMismatch { .. }
        | AgentError::Flooding { .. }
        | AgentError::Busy { .. } => true,
        AgentError::Refused { code, .. } => code.as_str() == "busy",
        _ => false,
    }
}
