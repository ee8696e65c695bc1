//! What is to be active on a domain, and how far that has come. Transitions are pure; the catalogue keeps the
//! result, and the daemon sends what a transition calls for.
//!
//! ```text
//!             wanted, agent there          sent               acknowledged
//!   (want) ─────────────────────▶ Pending ──────▶ Sent ─────────────────────▶ Active
//!      │  agent away                 ▲  ▲          │ │ refused, or no answer
//!      └──────────▶ AgentAbsent ─────┘  └──────────┘ └─────────────────────▶ Failed
//!                  agent comes         no answer yet     after MOST_ATTEMPTS
//! ```
//!
//! Answers carry the generation; those of another one change nothing. When an agent comes (also after a reboot of
//! the guest or a restart of either side) it says what it has active: that settles an activation whose
//! acknowledgement was lost, and starts anew one that the guest no longer shows.

use persona::{Adjustment, Digest, Moment};
use serde::{Deserialize, Serialize};

use super::composition::Composition;
use super::generation::Generation;
use super::tags::Origin;
use crate::store::{Stored, Tree};

/// How often an activation is sent before silence counts as failure.
pub const MOST_ATTEMPTS: u32 = 3;

/// What a guest is to have active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// A persona.
    Persona {
        /// What it is made of.
        #[serde(flatten)]
        composition: Composition,
        /// Digest of what all of that means.
        digest: Digest,
        /// Why this one.
        origin: Origin,
    },
    /// No persona.
    Nothing,
}

impl Desired {
    /// Whether a guest that has the one has the other: why it is desired makes no difference to the guest.
    fn same_in_guest(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nothing, Self::Nothing) => true,
            (
                Self::Persona {
                    composition,
                    digest,
                    ..
                },
                Self::Persona {
                    composition: other,
                    digest: other_digest,
                    ..
                },
            ) => composition.persona == other.persona && digest == other_digest,
            _ => false,
        }
    }

    /// Whether the one is the other but for what rules adjusted.
    fn same_persona(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Persona { composition, .. },
                Self::Persona {
                    composition: other, ..
                },
            ) => composition.plain() == other.plain(),
            _ => self == other,
        }
    }
}

/// How far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ActivationState {
    /// It is to be sent.
    Pending,
    /// There is no agent to send it to. The host's part of the persona is in force all the same.
    AgentAbsent,
    /// It was sent and not answered yet.
    Sent {
        /// When.
        at: Moment,
    },
    /// The guest says that it has it.
    Active {
        /// Since when that is known.
        since: Moment,
    },
    /// The guest refused it, or never answered. It is not tried again until a person asks or something else is
    /// desired.
    Failed {
        /// Why, as a sentence.
        reason: String,
    },
}

/// Why there is an activation at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// Another persona, or the same once more because a person asked for it.
    #[default]
    Persona,
    /// Nothing but what rules adjusted of the persona has changed.
    Adjustment,
}

/// One activation of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// Its number.
    pub generation: Generation,
    /// What is to be active.
    pub desired: Desired,
    /// How far that has come.
    #[serde(flatten)]
    pub state: ActivationState,
    /// How often it was sent since it was wanted, or since the guest lost it.
    pub attempts: u32,
    /// When this was wanted first.
    pub wanted_at: Moment,
    /// What was in force before this one, and stays so until this one is.
    #[serde(default)]
    pub standing: Option<Composition>,
    /// What the guest said of its settings when it became active.
    #[serde(default)]
    pub remark: Option<String>,
    /// Why there is one at all.
    #[serde(default)]
    pub occasion: Occasion,
    /// What the guest confirmed last before this one. What is in force without that is what nobody could ask it to have.
    #[serde(default)]
    pub confirmed: Option<Composition>,
    /// Why `standing` is in force.
    #[serde(default)]
    pub standing_origin: Option<Origin>,
    /// What the domain is to have and failed in the guest, while this one, which goes on, is adjusted.
    #[serde(default)]
    pub failed: Option<Failure>,
}

/// What failed in a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was to be active.
    pub desired: Desired,
    /// Why it is not, as a sentence.
    pub reason: String,
}

impl Stored for Activation {
    const TREE: Tree = Tree::Activations;
}

/// Whether a domain's agent is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentPresence {
    /// It is.
    Present,
    /// It is not.
    Absent,
}

/// What an agent says that it has active: a claim of the guest, compared and never adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A persona.
    Persona {
        /// Of which activation.
        generation: Generation,
        /// Digest of its meaning.
        digest: Digest,
    },
    /// Nothing.
    Nothing,
}

/// What happened to an activation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActivationEvent {
    /// The agent connected and says what it has.
    AgentCame(Shown),
    /// The agent is gone.
    AgentLeft,
    /// The activation was put on its way.
    Sent,
    /// The agent did it.
    Acknowledged(Generation),
    /// The agent did it and said this of the settings; that it is active is told by another event.
    Remarked(Generation, Option<String>),
    /// The agent refused it or failed, for this reason.
    Refused(Generation, String),
    /// The agent did not answer in time.
    Silent(Generation),
}

/// What an event made of an activation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "it is taken apart at once, and none is kept"
)]
pub enum Transition {
    /// It is different, and is to be kept.
    Changed(Activation),
    /// Nothing to do.
    Same,
    /// The event belongs to another generation.
    Stale,
}

impl Activation {
    /// The beginning.
    pub fn new(
        generation: Generation,
        desired: Desired,
        agent: AgentPresence,
        now: Moment,
    ) -> Self {
        let state = match agent {
            AgentPresence::Present => ActivationState::Pending,
            AgentPresence::Absent => ActivationState::AgentAbsent,
        };
        Self {
            generation,
            desired,
            state,
            attempts: 0,
            wanted_at: now,
            standing: None,
            remark: None,
            occasion: Occasion::Persona,
            confirmed: None,
            standing_origin: None,
            failed: None,
        }
    }

    /// With what the activation before it leaves in force, of whose persona it is. Where that one has not come about, this one
    /// is in its place; but what failed as it is written is not tried again, and what the guest had before goes on.
    #[must_use]
    pub fn adjusting(self, before: &Self) -> Self {
        let occasion = match before.state {
            ActivationState::Active { .. } => Occasion::Adjustment,
            ActivationState::Failed { .. } if before.had().is_some() => Occasion::Adjustment,
            _ => before.occasion,
        };
        let failed = match &before.state {
            ActivationState::Failed { reason } if !self.desired.same_persona(&before.desired) => {
                Some(Failure {
                    desired: before.desired.clone(),
                    reason: reason.clone(),
                })
            }
            _ => before.failed.clone(),
        };
        Self {
            occasion,
            failed,
            ..self.following(Some(before))
        }
    }

    /// With what the activation before it leaves in force.
    #[must_use]
    pub fn following(self, before: Option<&Self>) -> Self {
        Self {
            standing: before.and_then(Self::in_force),
            standing_origin: before.and_then(Self::origin_in_force),
            confirmed: before.and_then(|before| match before.state {
                ActivationState::Active { .. } => before.in_force(),
                _ => before.confirmed.clone(),
            }),
            ..self
        }
    }

    /// The persona that rules may adjust, and why the domain has it: what is to be active, and where that failed what was in
    /// force before.
    pub fn goes_on(&self) -> Option<(&Composition, &Origin)> {
        let desired = match &self.desired {
            Desired::Persona {
                composition,
                origin,
                ..
            } => Some((composition, origin)),
            Desired::Nothing => None,
        };
        match &self.state {
            ActivationState::Failed { .. } => {
                let origin = self.standing_origin.as_ref();
                let origin = origin.or(desired.map(|(_, origin)| origin));
                self.standing.as_ref().zip(origin)
            }
            _ => desired,
        }
    }

    /// The persona that goes on as the guest confirmed it, where it did.
    pub fn had(&self) -> Option<&Composition> {
        let (goes_on, _) = self.goes_on()?;
        let confirmed = self.confirmed.as_ref();
        confirmed.filter(|had| had.plain() == goes_on.plain())
    }

    /// Whether what goes on is what was to be active itself, as it counts as in force where nobody could be asked to have it.
    pub fn failed_as_in_force(&self) -> bool {
        let desired = match &self.desired {
            Desired::Persona { composition, .. } => Some(composition.plain()),
            Desired::Nothing => None,
        };
        desired.is_some() && self.goes_on().map(|(goes_on, _)| goes_on.plain()) == desired
    }

    /// What the domain is to have, also where that has failed and what was there before goes on.
    pub fn asked_for(&self) -> &Desired {
        let failed = self.failed.as_ref();
        failed.map_or(&self.desired, |failed| &failed.desired)
    }

    /// Why the domain does not have what it is to have, where that failed in the guest.
    pub fn failure(&self) -> Option<&str> {
        match (&self.state, &self.failed) {
            (_, Some(failed)) => Some(&failed.reason),
            (ActivationState::Failed { reason }, None) => Some(reason),
            _ => None,
        }
    }

    /// What rules adjust of the persona that is to be active.
    pub fn adjustments(&self) -> &[Adjustment] {
        match &self.desired {
            Desired::Persona { composition, .. } => &composition.adjustments,
            Desired::Nothing => &[],
        }
    }

    /// Of these adjustments, those that the guest is not known to have had.
    pub fn new_adjustments(&self) -> Vec<Adjustment> {
        let Desired::Persona { composition, .. } = &self.desired else {
            return Vec::new();
        };
        let had = self.confirmed.as_ref();
        let had = had.filter(|had| had.plain() == composition.plain());
        let had = had.map_or(&[][..], |had| &had.adjustments);
        let all = composition.adjustments.iter();
        all.filter(|adjustment| !had.contains(adjustment))
            .cloned()
            .collect()
    }

    /// Whether the guest may be at it, or may have done it: the agent was asked and is away since.
    pub fn is_under_way(&self) -> bool {
        match self.state {
            ActivationState::Pending | ActivationState::Sent { .. } => true,
            ActivationState::AgentAbsent => self.attempts > 0,
            ActivationState::Active { .. } | ActivationState::Failed { .. } => false,
        }
    }

    /// What is in force on the host's side: what the guest has or nobody could ask it to have; while it is under way, and
    /// when it has failed, what was in force before.
    pub fn in_force(&self) -> Option<Composition> {
        if !self.holds() {
            return self.standing.clone();
        }
        match &self.desired {
            Desired::Persona { composition, .. } => Some(composition.clone()),
            Desired::Nothing => None,
        }
    }

    /// Why that is in force.
    fn origin_in_force(&self) -> Option<Origin> {
        if !self.holds() {
            return self.standing_origin.clone();
        }
        match &self.desired {
            Desired::Persona { origin, .. } => Some(origin.clone()),
            Desired::Nothing => None,
        }
    }

    /// What is in force or is to be.
    pub fn compositions(&self) -> impl Iterator<Item = &Composition> {
        let desired = [&self.desired, self.asked_for()];
        let desired = desired.into_iter().filter_map(|desired| match desired {
            Desired::Persona { composition, .. } => Some(composition),
            Desired::Nothing => None,
        });
        self.standing.iter().chain(desired)
    }

    /// Whether it is in force: the guest has it, or nobody could ask it to have it.
    pub fn holds(&self) -> bool {
        matches!(
            self.state,
            ActivationState::Active { .. } | ActivationState::AgentAbsent
        )
    }

    /// Whether it is an activation of `desired` already, however far it has come, or stands in its place because that failed.
    pub fn satisfies(&self, desired: &Desired) -> bool {
        self.desired.same_in_guest(desired) || self.has_failed_at(desired)
    }

    /// Whether `desired` failed, and what was there before goes on in its place.
    pub fn has_failed_at(&self, desired: &Desired) -> bool {
        let failed = self.failed.as_ref();
        failed.is_some_and(|failed| failed.desired.same_in_guest(desired))
    }

    /// Whether it is to be sent.
    pub fn is_due(&self) -> bool {
        self.state == ActivationState::Pending
    }

    /// What `event` makes of it.
    #[must_use]
    pub fn next(&self, event: ActivationEvent, now: Moment) -> Transition {
        match self.transition(event, now) {
            Transition::Changed(next) => Transition::Changed(Self {
                standing: if next.holds() { None } else { self.in_force() },
                standing_origin: if next.holds() {
                    None
                } else {
                    self.origin_in_force()
                },
                ..next
            }),
            other => other,
        }
    }

    fn transition(&self, event: ActivationEvent, now: Moment) -> Transition {
        use ActivationState::{Active, AgentAbsent, Failed, Pending, Sent};
        let stale = |generation: Generation| generation != self.generation;
        match event {
            ActivationEvent::Acknowledged(generation)
            | ActivationEvent::Remarked(generation, _)
            | ActivationEvent::Refused(generation, _)
            | ActivationEvent::Silent(generation)
                if stale(generation) =>
            {
                Transition::Stale
            }
            ActivationEvent::AgentCame(shown) if self.is_shown(&shown) => match self.state {
                Active { .. } => Transition::Same,
                _ => self.with(Active { since: now }),
            },
            // The guest lost what it had, or never got it. Attempts go on being counted, so an activation that
            // takes the agent down with it each time ends. What failed is not tried again by itself.
            ActivationEvent::AgentCame(_) => match self.state {
                Failed { .. } | Pending => Transition::Same,
                Active { .. } => Transition::Changed(Self {
                    state: Pending,
                    attempts: 0,
                    ..self.clone()
                }),
                AgentAbsent | Sent { .. } => self.try_again(),
            },
            // A guest that shows it keeps it while its agent is away.
            ActivationEvent::AgentLeft => match self.state {
                Pending | Sent { .. } => self.with(AgentAbsent),
                _ => Transition::Same,
            },
            ActivationEvent::Sent => match self.state {
                Pending => Transition::Changed(Self {
                    state: Sent { at: now },
                    attempts: self.attempts.saturating_add(1),
                    ..self.clone()
                }),
                _ => Transition::Same,
            },
            // Late but true: the guest did it, whatever had been concluded meanwhile.
            ActivationEvent::Acknowledged(_) => match self.state {
                Active { .. } => Transition::Same,
                _ => self.with(Active { since: now }),
            },
            ActivationEvent::Remarked(_, remark) => Transition::Changed(Self {
                remark,
                ..self.clone()
            }),
            ActivationEvent::Refused(_, reason) => self.with(Failed { reason }),
            ActivationEvent::Silent(_) => match self.state {
                Sent { .. } => self.try_again(),
                _ => Transition::Same,
            },
        }
    }

    /// Pending once more, unless it was sent often enough.
    fn try_again(&self) -> Transition {
        if self.attempts < MOST_ATTEMPTS {
            return self.with(ActivationState::Pending);
        }
        let reason = format!(
            "the agent was asked {} times and never said that it is done",
            self.attempts
        );
        self.with(ActivationState::Failed { reason })
    }

    fn with(&self, state: ActivationState) -> Transition {
        Transition::Changed(Self {
            state,
            ..self.clone()
        })
    }

    /// Whether what a guest shows is this activation. The generation must agree too: the same persona of an earlier
    /// generation may have been changed in between.
    fn is_shown(&self, shown: &Shown) -> bool {
        match (&self.desired, shown) {
            (Desired::Nothing, Shown::Nothing) => true,
            (
                Desired::Persona { digest, .. },
                Shown::Persona {
                    generation,
                    digest: shown,
                },
            ) => *generation == self.generation && digest == shown,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::composition::VersionId;
    use super::super::versions::VersionNumber;
    use super::*;

    fn persona(version: u32) -> Desired {
        let digest = serde_json::from_value(serde_json::json!(format!("{version:064x}"))).unwrap();
        let version = VersionNumber::new(version).unwrap();
        let persona = VersionId {
            name: "web".parse().unwrap(),
            version,
        };
        Desired::Persona {
            composition: Composition {
                persona,
                bases: Vec::new(),
                overrides: Vec::new(),
                adjustments: Vec::new(),
            },
            digest,
            origin: Origin::Explicit,
        }
    }

    fn shown(generation: u64, version: u32) -> ActivationEvent {
        let Desired::Persona { digest, .. } = persona(version) else {
            unreachable!()
        };
        ActivationEvent::AgentCame(Shown::Persona {
            generation: Generation(generation),
            digest,
        })
    }

    fn after(events: &[ActivationEvent]) -> Activation {
        let mut activation =
            Activation::new(Generation(7), persona(1), AgentPresence::Absent, Moment(1));
        for event in events {
            if let Transition::Changed(next) = activation.next(event.clone(), Moment(5)) {
                assert_ne!(next, activation, "{event:?} changed nothing and said so");
                activation = next;
            }
        }
        activation
    }

    #[test]
    fn the_states_follow_from_the_events() {
        use ActivationEvent::{Acknowledged, AgentCame, AgentLeft, Refused, Sent, Silent};
        use ActivationState as State;
        let own = Generation(7);
        let empty = || AgentCame(Shown::Nothing);
        let check = |events: &[ActivationEvent], expected: State| {
            assert_eq!(after(events).state, expected, "{events:?}");
        };
        let active = || State::Active { since: Moment(5) };
        check(&[], State::AgentAbsent);
        check(&[empty()], State::Pending);
        check(&[empty(), Sent], State::Sent { at: Moment(5) });
        check(&[empty(), Sent, Acknowledged(own)], active());
        check(
            &[empty(), Sent, Acknowledged(Generation(6))],
            State::Sent { at: Moment(5) },
        );
        check(
            &[empty(), Sent, Refused(own, "no".to_owned())],
            State::Failed {
                reason: "no".to_owned(),
            },
        );
        check(&[empty(), Sent, AgentLeft], State::AgentAbsent);
        check(&[empty(), Sent, AgentLeft, shown(7, 1)], active());
        check(&[empty(), Sent, AgentLeft, shown(6, 1)], State::Pending);
        check(&[empty(), Sent, AgentLeft, shown(7, 2)], State::Pending);
        check(&[shown(7, 1), AgentLeft], active());
        check(&[shown(7, 1), AgentLeft, empty()], State::Pending);
        check(&[empty(), Sent, Silent(own)], State::Pending);
        check(&[empty(), Sent, Silent(own), Acknowledged(own)], active());
        let crashing = [
            empty(),
            Sent,
            AgentLeft,
            empty(),
            Sent,
            AgentLeft,
            empty(),
            Sent,
            AgentLeft,
        ];
        check(&crashing, State::AgentAbsent);
        let ended = after(&[&crashing[..], &[empty()]].concat());
        assert!(matches!(ended.state, State::Failed { .. }), "{ended:?}");
        let silent = [
            empty(),
            Sent,
            Silent(own),
            Sent,
            Silent(own),
            Sent,
            Silent(own),
        ];
        assert!(matches!(after(&silent).state, State::Failed { .. }));
        let retried = [&silent[..], &[AgentLeft, empty(), Sent]].concat();
        assert!(
            matches!(after(&retried).state, State::Failed { .. }),
            "what failed is not tried by itself"
        );
    }

    #[test]
    fn what_was_in_force_stays_so_until_its_successor_is() {
        let version = |activation: &Activation| {
            activation
                .in_force()
                .map(|in_force| in_force.persona.version.get())
        };
        let step = |activation: &Activation, event| match activation.next(event, Moment(5)) {
            Transition::Changed(next) => next,
            other => panic!("{other:?}"),
        };
        let first = Activation::new(Generation(7), persona(1), AgentPresence::Present, Moment(1));
        assert_eq!(version(&first), None, "nothing was in force before");
        let first = step(&first, ActivationEvent::Sent);
        let first = step(&first, ActivationEvent::Acknowledged(Generation(7)));
        assert_eq!(version(&first), Some(1));
        let second = Activation::new(Generation(8), persona(2), AgentPresence::Present, Moment(2))
            .following(Some(&first));
        let second = step(&second, ActivationEvent::Sent);
        assert_eq!(version(&second), Some(1), "the second is only under way");
        let failed = step(
            &second,
            ActivationEvent::Refused(Generation(8), "no".to_owned()),
        );
        // Also after the daemon's restart, which reads it from the store.
        let read: Activation =
            serde_json::from_str(&serde_json::to_string(&failed).unwrap()).unwrap();
        assert_eq!(version(&read), Some(1));
        let third = Activation::new(
            Generation(9),
            Desired::Nothing,
            AgentPresence::Absent,
            Moment(3),
        )
        .following(Some(&read));
        assert_eq!(version(&third), None);
        let active = step(&second, ActivationEvent::Acknowledged(Generation(8)));
        assert_eq!((version(&active), active.standing.clone()), (Some(2), None));
        let rebooted = step(&active, ActivationEvent::AgentCame(Shown::Nothing));
        assert_eq!(
            version(&rebooted),
            Some(2),
            "a guest that lost it gets it again"
        );
    }

    #[test]
    fn a_successor_that_failed_stays_wanted_and_failed_while_the_one_before_it_is_adjusted() {
        let step = |activation: &Activation, event| match activation.next(event, Moment(5)) {
            Transition::Changed(next) => next,
            other => panic!("{other:?}"),
        };
        let start = |generation, version, before: Option<&Activation>| {
            let generation = Generation(generation);
            let wanted = persona(version);
            let new = Activation::new(generation, wanted, AgentPresence::Present, Moment(1));
            let sent = step(&new.following(before), ActivationEvent::Sent);
            assert!(sent.is_under_way());
            sent
        };
        let first = start(7, 1, None);
        let away = step(&first, ActivationEvent::AgentLeft);
        assert!(away.is_under_way(), "nobody knows how it ended");
        let first = step(&away, ActivationEvent::Acknowledged(Generation(7)));
        let second = start(8, 2, Some(&first));
        let refused = ActivationEvent::Refused(Generation(8), "no".to_owned());
        let second = step(&second, refused);
        assert!(second.failure().is_some() && !second.is_under_way());
        let on = |of: &Activation| of.goes_on().map(|(of, _)| of.persona.version.get());
        assert_eq!(on(&second), Some(1));
        let new = Activation::new(Generation(9), persona(1), AgentPresence::Present, Moment(2));
        let third = new.adjusting(&second);
        let third = step(&third, ActivationEvent::Sent);
        let third = step(&third, ActivationEvent::Acknowledged(Generation(9)));
        assert_eq!((on(&third), third.failure()), (Some(1), Some("no")));
        assert_eq!(third.occasion, Occasion::Adjustment);
        assert_eq!(third.asked_for(), &persona(2));
        assert!(third.satisfies(&persona(2)) && third.satisfies(&persona(1)));
        assert!(!third.satisfies(&persona(3)));
    }

    #[test]
    fn answers_of_another_generation_are_stale() {
        let activation = after(&[
            ActivationEvent::AgentCame(Shown::Nothing),
            ActivationEvent::Sent,
        ]);
        for generation in [Generation(6), Generation(8)] {
            for event in [
                ActivationEvent::Acknowledged(generation),
                ActivationEvent::Refused(generation, String::new()),
                ActivationEvent::Silent(generation),
            ] {
                assert_eq!(activation.next(event, Moment(9)), Transition::Stale);
            }
        }
    }

    fn any_event() -> impl Strategy<Value = ActivationEvent> {
        let generation = (6..9_u64).prop_map(Generation);
        prop_oneof![
            Just(ActivationEvent::AgentCame(Shown::Nothing)),
            (6..9_u64, 1..3_u32).prop_map(|(generation, version)| shown(generation, version)),
            Just(ActivationEvent::AgentLeft),
            Just(ActivationEvent::Sent),
            generation.clone().prop_map(ActivationEvent::Acknowledged),
            generation
                .clone()
                .prop_map(|generation| ActivationEvent::Refused(generation, "no".to_owned())),
            generation.prop_map(ActivationEvent::Silent),
        ]
    }

    proptest! {
        #[test]
        fn no_history_sends_more_than_allowed_before_it_is_active(events in proptest::collection::vec(any_event(), 0..40)) {
            let mut activation = Activation::new(Generation(7), persona(1), AgentPresence::Present, Moment(1));
            let mut sent = 0;
            for event in events {
                let Transition::Changed(next) = activation.next(event.clone(), Moment(5)) else { continue };
                if event == ActivationEvent::Sent {
                    sent += 1;
                }
                prop_assert!(sent <= MOST_ATTEMPTS);
                prop_assert_eq!(next.generation, activation.generation);
                // Only the guest's own word, about this very generation, makes it active.
                if matches!(next.state, ActivationState::Active { .. }) {
                    let own = event == ActivationEvent::Acknowledged(Generation(7)) || event == shown(7, 1);
                    prop_assert!(own, "{event:?}");
                }
                if matches!(next.state, ActivationState::Active { .. }) {
                    sent = 0;
                }
                activation = next;
            }
        }
    }
}
