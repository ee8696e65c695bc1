//! Personas that users of a guest ask for. Whether one may be chosen say the persona in force (`allowed_switches`), its trust
//! level for a change of persona, and whether it can be on this machine at all; then it is carried out as if a person had
//! applied it. Who asks is the guest's claim: it is written down as such, and decides nothing. What is told to whoever asked
//! goes by way of the agent, which may be gone by then; nothing depends on its arrival.
//!
//! `offers` has what there is to choose from, `follow` what becomes of what was asked for, `no` the refusals.

mod follow;
mod no;
mod offers;

use std::collections::BTreeMap;

use agent_protocol::switching::Pace;
use agent_protocol::{Answer, Ask, Asked, GuestUser, RequestId, Told};
use persona::units::Moment;
use persona::{Persona, PersonaName};
use planner::propose::{GuestSwitch, GuestSwitchAnswer};

use super::Daemon;
use crate::act::sentence_of;
use crate::agent::{GuestWords, Lines};
use crate::audit::AuditKind;
use crate::catalog::{
    ActivationState, Composed, ExplicitBinding, Generation, Insistence, PersonaRef, Resolution,
};
use crate::hypervisor::DomainId;
use crate::store::Batch;

use no::No;

/// Between two looks at what there is to choose from, over all guests, at the least: each compares up to 64 personas.
const LOOK_MS: u64 = 50;
/// So many looks at once.
const LOOKS_AT_ONCE: u64 = 40;
/// Between two switches of one guest: each runs scripts there and begins its rules anew, as a shift by a rule does.
const SWITCH_MS: u64 = 60_000;
/// So many of them at once.
const SWITCHES_AT_ONCE: u64 = 6;
/// Between two refusals to one guest that are recorded; a guest shall not fill the audit.
const REFUSAL_MS: u64 = 10_000;
/// So many of them at once.
const REFUSALS_AT_ONCE: u64 = 6;

/// How often all guests together may look.
pub(super) struct Looks(Pace);

impl Default for Looks {
    fn default() -> Self {
        Self(Pace::new(LOOK_MS, LOOKS_AT_ONCE))
    }
}

/// What users of one guest ask for, and what waits to be told to them.
pub(super) struct SwitchSide {
    /// The last switch, until it has ended.
    under_way: Option<UnderWay>,
    /// Who asked for what waits for a person's word, by the number of the proposal.
    waiting: BTreeMap<u64, RequestId>,
    switches: Pace,
    refusals: Pace,
    /// The refusal that was recorded last.
    said: Option<String>,
}

struct UnderWay {
    ask: Option<RequestId>,
    persona: PersonaName,
    generation: Generation,
}

impl Default for SwitchSide {
    fn default() -> Self {
        Self {
            under_way: None,
            waiting: BTreeMap::new(),
            switches: Pace::new(SWITCH_MS, SWITCHES_AT_ONCE),
            refusals: Pace::new(REFUSAL_MS, REFUSALS_AT_ONCE),
            said: None,
        }
    }
}

impl Daemon {
    /// A user of a guest asks something.
    pub(super) fn guest_asks(&mut self, id: DomainId, ask: Ask, now: Moment) {
        let Ask { ask_id, user, what } = ask;
        let user = user_text(&user);
        let answer = match what {
            Asked::Offers => self.looks.0.take(now.0).map_or_else(
                |_| Answer::refused(&No::Busy.to_string()),
                |()| Answer::Offers(self.offers(id, now).bounded()),
            ),
            Asked::Switch { persona } => {
                let asked = self.switch(id, &persona, &user, &ask_id, now);
                asked.unwrap_or_else(|no| self.refuse_switch(id, &persona, &user, &no, now))
            }
            // It was checked where it came in.
            Asked::Unknown => return,
        };
        self.tell_guest(id, ask_id, answer);
        // The activation may have ended in the same breath.
        self.follow_switch(id);
        self.publish_soon();
    }

    fn tell_guest(&self, id: DomainId, ask_id: RequestId, answer: Answer) {
        if let Err(error) = self.registry.tell(id, Told { ask_id, answer }) {
            tracing::debug!(domain = %id, error = sentence_of(&error), "a user of the guest is not told");
        }
    }

    /// Whether a persona can be on a machine, whoever asks; what it would come to there.
    fn check_switch(
        &self,
        id: DomainId,
        in_force: &Persona,
        name: &PersonaName,
        now: Moment,
    ) -> Result<std::sync::Arc<Composed>, No> {
        if !in_force.allowed_switches.contains(name) {
            return Err(No::NotAllowed {
                of: in_force.name.clone(),
                wanted: name.to_string(),
            });
        }
        if self.catalog.current(name).is_err() {
            return Err(No::NotHeld(name.clone()));
        }
        let description = &self.domains[&id].description;
        let binding = explicit(name, String::new(), now);
        let composed = match self.catalog.resolve_with(&binding, &description.tags) {
            Resolution::Bound(bound) => self
                .catalog
                .composition(&bound)
                .and_then(|composition| self.catalog.effective(&composition))?,
            Resolution::Conflict(conflict) => return Err(No::Catalogue(conflict.to_string())),
            // A person's own choice is never nothing; the answer is a refusal should it ever be.
            Resolution::Unbound => return Err(No::NotHeld(name.clone())),
        };
        let base = &composed.persona.base;
        let too_small = |wanted: String, most: String| No::TooSmall {
            persona: name.clone(),
            wanted,
            most,
        };
        let vcpus = description.vcpus_maximum;
        if let Some(cpu) = base.cpu.as_ref().filter(|cpu| cpu.min > vcpus) {
            let (wanted, most) = (format!("{} vCPUs", cpu.min), format!("{vcpus}"));
            return Err(too_small(wanted, most));
        }
        let most = description
            .memory_maximum
            .map_or(description.memory_boot, |most| {
                most.max(description.memory_boot)
            });
        if let Some(memory) = base.memory.as_ref().filter(|memory| memory.min > most) {
            let wanted = format!("{} of memory", memory.min);
            return Err(too_small(wanted, most.to_string()));
        }
        Ok(composed)
    }

    fn switch(
        &mut self,
        id: DomainId,
        wanted: &str,
        user: &str,
        ask: &RequestId,
        now: Moment,
    ) -> Result<Answer, No> {
        let tracked = self.domains.get(&id).ok_or(No::NothingInForce)?;
        let in_force = tracked.persona.in_force.clone().ok_or(No::NothingInForce)?;
        // Whether the host has a persona of that name is not for everybody to know.
        let name: PersonaName = wanted.parse().map_err(|_| No::NotAllowed {
            of: in_force.name.clone(),
            wanted: wanted.to_owned(),
        })?;
        let activation = self.catalog.activation(id);
        let going = activation.is_some_and(|activation| is_going(&activation.state));
        if self.retired {
            return Err(No::Retired);
        }
        let bound = tracked.persona.bound.as_ref();
        if name == in_force.name && !going && bound.is_some_and(|bound| bound.name == wanted) {
            return Err(No::There(name));
        }
        self.check_switch(id, &in_force, &name, now)?;
        if going {
            return Err(No::UnderWay);
        }
        let instance = tracked.description.instance;
        let wish = GuestSwitch {
            domain: id,
            instance,
            persona: &in_force,
            user,
            to: &name,
        };
        let answer = self.state.proposals.guest_switch(wish, &self.policy, now);
        let (proposal, expires) = match answer {
            GuestSwitchAnswer::Act => return self.begin_switch(id, &name, user, Some(ask), now),
            GuestSwitchAnswer::Never(level) => {
                let of = in_force.name.clone();
                return Err(No::NotTrusted { of, level });
            }
            GuestSwitchAnswer::Rejected(proposal) => return Err(No::Rejected(proposal)),
            GuestSwitchAnswer::Full => return Err(No::Full),
            GuestSwitchAnswer::Waits(proposal, expires) => (proposal, expires),
            GuestSwitchAnswer::Asked(news) => {
                let asked = (news.proposal.id, news.proposal.expires);
                self.proposals_changed(&[*news]);
                asked
            }
        };
        if let Some(side) = self.switch_side(id) {
            // Of several who ask for the same the last is told.
            side.waiting.insert(proposal, ask.clone());
        }
        Ok(Answer::Waits {
            proposal,
            expires_in_ms: u64::try_from(expires.since(now).as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Gives the machine the persona, as if somebody had applied it. A persona that its tags give anyway needs no word of
    /// anybody, so that word is taken back instead.
    fn begin_switch(
        &mut self,
        id: DomainId,
        name: &PersonaName,
        user: &str,
        ask: Option<&RequestId>,
        now: Moment,
    ) -> Result<Answer, No> {
        let side = self.switch_side(id).ok_or(No::NothingInForce)?;
        side.switches.take(now.0).map_err(|_| No::TooOften)?;
        let tags = &self.domains[&id].description.tags;
        let by_tags = match self.catalog.resolve_unshifted(tags) {
            Resolution::Bound(binding) => Some(binding.persona),
            Resolution::Unbound | Resolution::Conflict(_) => None,
        };
        let given = PersonaRef {
            name: name.clone(),
            pin: None,
        };
        let back = self.catalog.explicit(id).is_some() && by_tags == Some(given);
        let mut batch = Batch::new();
        let text = if back {
            self.catalog.unbind(&mut batch, id);
            format!("{user} went back to persona {name}, which its tags give")
        } else {
            let binding = explicit(name, user.to_owned(), now);
            self.catalog.bind(&mut batch, id, binding)?;
            format!("{user} switched to persona {name}")
        };
        let detail = serde_json::json!({ "asked_in": "guest", "user": user, "persona": name });
        let entry = self.entry(AuditKind::Binding, Some(id), &text, detail);
        self.commit(batch, vec![entry])?;
        tracing::info!(domain = %id, text);
        let before = self.catalog.activation(id).map(|of| of.generation);
        self.resolve_with(id, Insistence::Again)?;
        let generation = self.catalog.activation(id).map(|of| of.generation);
        if generation == before {
            let problem = self
                .domains
                .get(&id)
                .and_then(|of| of.persona.problem.clone());
            return Err(No::Catalogue(
                problem.unwrap_or_else(|| "it came to nothing else".into()),
            ));
        }
        let persona = name.clone();
        let ask = ask.cloned();
        if let (Some(side), Some(generation)) = (self.switch_side(id), generation) {
            side.said = None;
            side.under_way = Some(UnderWay {
                ask,
                persona,
                generation,
            });
        }
        Ok(Answer::Accepted {
            persona: name.to_string(),
        })
    }

    fn switch_side(&mut self, id: DomainId) -> Option<&mut SwitchSide> {
        self.domains
            .get_mut(&id)
            .map(|tracked| &mut tracked.persona.switching)
    }

    /// A refusal is recorded once until another follows, and not without end.
    fn refuse_switch(
        &mut self,
        id: DomainId,
        wanted: &str,
        user: &str,
        no: &No,
        now: Moment,
    ) -> Answer {
        let text = format!("{user} asked for persona {wanted}: {no}");
        let new = self.switch_side(id).is_some_and(|side| {
            let new = side.said.as_ref() != Some(&text) && side.refusals.take(now.0).is_ok();
            if new {
                side.said = Some(text.clone());
            }
            new
        });
        if new {
            let detail = serde_json::json!({ "asked_in": "guest", "user": user });
            self.record(AuditKind::Refusal, Some(id), &text, detail);
        } else {
            tracing::debug!(domain = %id, text);
        }
        Answer::refused(&no.to_string())
    }
}

fn explicit(name: &PersonaName, by: String, at: Moment) -> ExplicitBinding {
    ExplicitBinding {
        persona: PersonaRef {
            name: name.clone(),
            pin: None,
        },
        by,
        at,
    }
}

fn is_going(state: &ActivationState) -> bool {
    matches!(
        state,
        ActivationState::Pending | ActivationState::Sent { .. }
    )
}

/// Who asks, as the audit has it.
fn user_text(user: &GuestUser) -> String {
    let name = GuestWords::clean(&user.name, 64, Lines::One);
    match name.as_str() {
        "" => format!("the guest's user with uid {}", user.uid),
        name => format!("the guest's user {name} (uid {})", user.uid),
    }
}
