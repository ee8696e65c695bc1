//! Which persona is in force while an activation is under way, when it has failed, and when it is followed by another; and what
//! rules may adjust of it. The catalogue asks when it begins an activation, `transition` after each event.

use persona::Adjustment;

use super::{Activation, ActivationState, Desired, Failure, Occasion};
use crate::catalog::composition::Composition;
use crate::catalog::tags::Origin;

impl Activation {
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
    pub(super) fn origin_in_force(&self) -> Option<Origin> {
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
}
