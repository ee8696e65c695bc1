//! What rules have adjusted of the persona of a domain: which settings and packages they want otherwise in its guest, in
//! which order they lie over each other, and how it becomes an activation of the same persona. Which rule may adjust, and
//! when, is the daemon's; what an adjustment is and what it comes to is the language's.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use persona::{Adjustment, Change, Digest, Moment};
use planner::shift::Pace;
use serde::{Deserialize, Serialize};

use super::{
    Activation, ActivationState, AgentPresence, Binding, Catalogue, CatalogueError, Composition,
    Desired, Generation, Wanted,
};
use crate::hypervisor::DomainId;
use crate::store::{Batch, StoreError, Stored, Tree};

/// Adjustments of one domain. Beyond it rules write another persona and not moods of this one.
pub const MOST_ADJUSTMENTS: usize = 32;

/// For how long a rule's adjustment stands after its condition has ceased to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lasting {
    /// As long as the persona does, unless another rule wants it otherwise.
    Persona,
    /// Until the rule's `until` holds.
    Until,
}

/// What a rule wants otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wished {
    /// The rule and its change.
    #[serde(flatten)]
    pub adjustment: Adjustment,
    /// The rule's priority.
    pub priority: i32,
    /// The rule's place in the document, from 0.
    pub place: usize,
    /// For how long it stands.
    pub lasting: Lasting,
    /// When the rule called for it.
    pub at: Moment,
}

/// What the rules of a domain want otherwise of its persona.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjustments {
    /// The digest of the persona whose rules they are; with another one they end.
    #[serde(default)]
    of: Option<Digest>,
    /// In the order in which they were called for.
    #[serde(default)]
    wished: Vec<Wished>,
    /// When rules last adjusted something, which is kept after them.
    #[serde(default)]
    pub pace: Pace,
    /// The last change by each rule.
    #[serde(default)]
    pub turned: BTreeMap<String, Moment>,
    /// The activation after which none of them stands, once it is in force.
    #[serde(default)]
    end: Option<Generation>,
}

impl Stored for Adjustments {
    const TREE: Tree = Tree::Adjustments;
}

/// There are [`MOST_ADJUSTMENTS`] already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Adjustments {
    /// Whether they belong to the persona with this digest.
    pub fn is_of(&self, persona: &Digest) -> bool {
        self.of.as_ref() == Some(persona)
    }

    /// Makes them belong to the persona with this digest; those of another end.
    pub fn begin(&mut self, persona: &Digest) {
        if !self.is_of(persona) {
            self.clear();
            self.of = Some(persona.clone());
        }
    }

    /// Has all of them end when this activation comes in force.
    pub fn end_with(&mut self, activation: Generation) {
        self.end = Some(activation);
    }

    /// Whether they end when this activation comes in force.
    pub fn ends_with(&self, activation: Generation) -> bool {
        self.end == Some(activation)
    }

    /// Ends all of them.
    pub fn clear(&mut self) {
        (self.of, self.end) = (None, None);
        self.wished.clear();
        self.turned.clear();
    }

    /// What is wished, in the order in which it was called for.
    pub fn wished(&self) -> &[Wished] {
        &self.wished
    }

    /// A rule calls for a change. What it called for before of the same thing ends.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn wish(&mut self, wished: Wished) -> Result<(), Full> {
        let mine = |known: &Wished| {
            let (known, new) = (&known.adjustment, &wished.adjustment);
            known.rule == new.rule && known.change.same_subject(&new.change)
        };
        self.wished.retain(|known| !mine(known));
        if self.wished.len() >= MOST_ADJUSTMENTS {
            return Err(Full);
        }
        self.wished.push(wished);
        Ok(())
    }

    /// The `until` of a rule takes a change back. Whether there was anything to take back.
    pub fn take_back(&mut self, adjustment: &Adjustment) -> bool {
        let before = self.wished.len();
        self.wished.retain(|known| known.adjustment != *adjustment);
        self.wished.len() != before
    }

    /// What has its way, the lowest first, and nothing that another goes over. The higher priority goes over the lower; of
    /// equals one that its `until` takes back over one that stays. Among the former the earlier in the document goes first,
    /// as everywhere; among the latter the one that was called for last.
    pub fn in_order(&self) -> Vec<Adjustment> {
        let mut ordered: Vec<&Wished> = self.wished.iter().collect();
        ordered.sort_by_key(|wished| {
            let place = match wished.lasting {
                Lasting::Until => Some(Reverse(wished.place)),
                Lasting::Persona => None,
            };
            (wished.priority, wished.lasting, place)
        });
        let goes_over = |index: usize, change: &Change| {
            let mut above = ordered[index + 1..].iter();
            above.any(|above| above.adjustment.change.same_subject(change))
        };
        ordered
            .iter()
            .enumerate()
            .filter(|(index, wished)| !goes_over(*index, &wished.adjustment.change))
            .map(|(_, wished)| wished.adjustment.clone())
            .collect()
    }
}

impl Composition {
    /// The same without what rules adjusted.
    #[must_use]
    pub fn plain(&self) -> Self {
        Self {
            adjustments: Vec::new(),
            ..self.clone()
        }
    }
}

impl Catalogue {
    /// What rules adjusted of a domain's persona.
    pub fn adjustments(&self, domain: DomainId) -> Option<&Adjustments> {
        self.adjustments.get(&domain)
    }

    /// Domains of which rules have adjusted anything.
    pub fn adjusted(&self) -> impl Iterator<Item = DomainId> {
        self.adjustments.keys().copied()
    }

    /// Stages what rules adjust of a domain's persona.
    ///
    /// # Errors
    ///
    /// What writing the store gives.
    pub fn set_adjustments(
        &mut self,
        batch: &mut Batch,
        domain: DomainId,
        adjustments: Adjustments,
    ) -> Result<(), StoreError> {
        batch.put(domain.to_string(), &adjustments)?;
        self.adjustments.insert(domain, adjustments);
        Ok(())
    }

    /// What a binding comes to on a domain: as [`Catalogue::desired`], with what rules have adjusted where that is what the
    /// domain has already. Nothing new is laid over it here.
    ///
    /// # Errors
    ///
    /// As [`Catalogue::desired`].
    pub fn desired_on(
        &self,
        domain: DomainId,
        binding: &Binding,
    ) -> Result<Desired, CatalogueError> {
        let desired = self.desired(binding)?;
        let now = self.activation(domain).map(|now| &now.desired);
        let (
            Some(Desired::Persona {
                composition: now, ..
            }),
            Desired::Persona {
                composition,
                digest,
                origin,
            },
        ) = (now, &desired)
        else {
            return Ok(desired);
        };
        if now.adjustments.is_empty() || self.digest(&now.plain()).ok().as_ref() != Some(digest) {
            return Ok(desired);
        }
        let composition = Composition {
            adjustments: now.adjustments.clone(),
            ..composition.clone()
        };
        match self.digest(&composition) {
            Ok(digest) => Ok(Desired::Persona {
                digest,
                composition,
                origin: origin.clone(),
            }),
            Err(_) => Ok(desired),
        }
    }

    /// Stages that a domain gets the persona that goes on with these adjustments and no others; nothing where it has no persona,
    /// or has it so already. What has failed so is tried once more.
    ///
    /// # Errors
    ///
    /// As [`Catalogue::effective`].
    pub fn adjust(
        &mut self,
        batch: &mut Batch,
        domain: DomainId,
        adjustments: Vec<Adjustment>,
        agent: AgentPresence,
        now: Moment,
    ) -> Result<Option<Wanted>, CatalogueError> {
        let Some(before) = self.activations.get(&domain) else {
            return Ok(None);
        };
        let Some((composition, origin)) = before.goes_on() else {
            return Ok(None);
        };
        let failed = matches!(before.state, ActivationState::Failed { .. });
        if composition.adjustments == adjustments && !failed {
            return Ok(None);
        }
        let composition = Composition {
            adjustments,
            ..composition.clone()
        };
        let desired = Desired::Persona {
            digest: self.digest(&composition)?,
            composition,
            origin: origin.clone(),
        };
        if !failed && before.satisfies(&desired) {
            let same = Activation {
                desired,
                ..before.clone()
            };
            batch.put(domain.to_string(), &same)?;
            self.activations.insert(domain, same.clone());
            return Ok(Some(Wanted::Unchanged(same)));
        }
        let generation = self.generations.take(&self.store)?;
        let Some(before) = self.activations.get(&domain) else {
            return Ok(None);
        };
        let activation = Activation::new(generation, desired, agent, now).adjusting(before);
        batch.put(domain.to_string(), &activation)?;
        self.activations.insert(domain, activation.clone());
        Ok(Some(Wanted::Started(activation)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wished(rule: &str, theme: &str, priority: i32, place: usize, lasting: Lasting) -> Wished {
        let change = Change::Set {
            key: "os_settings.theme".into(),
            value: theme.into(),
        };
        let rule = rule.to_owned();
        Wished {
            adjustment: Adjustment { rule, change },
            priority,
            place,
            lasting,
            at: Moment(1),
        }
    }

    fn winner(wishes: &[Wished]) -> String {
        let mut all = Adjustments::default();
        for wish in wishes {
            all.wish(wish.clone()).unwrap();
        }
        let order = all.in_order();
        let [only] = order.as_slice() else {
            panic!("one key has one value: {order:?}");
        };
        only.rule.clone()
    }

    #[test]
    fn of_two_rules_the_higher_priority_then_the_until_then_the_document_or_the_later_wins() {
        use Lasting::{Persona, Until};
        let low = wished("low", "a", 0, 0, Until);
        let high = wished("high", "b", 5, 1, Persona);
        assert_eq!(winner(&[low.clone(), high.clone()]), "high");
        assert_eq!(winner(&[high, low.clone()]), "high");
        let stays = wished("stays", "b", 0, 1, Persona);
        assert_eq!(winner(&[low.clone(), stays.clone()]), "low");
        let second = wished("second", "b", 0, 1, Until);
        assert_eq!(winner(&[low.clone(), second.clone()]), "low");
        assert_eq!(winner(&[second, low]), "low");
        let later = wished("later", "c", 0, 0, Persona);
        assert_eq!(winner(&[stays.clone(), later.clone()]), "later");
        assert_eq!(winner(&[later, stays]), "stays");
    }

    #[test]
    fn what_a_rule_takes_back_gives_way_to_what_lies_below_and_the_number_is_bounded() {
        let (night, day) = (
            wished("night", "dark", 1, 0, Lasting::Until),
            wished("day", "light", 0, 1, Lasting::Until),
        );
        let mut all = Adjustments::default();
        all.wish(day.clone()).unwrap();
        all.wish(night.clone()).unwrap();
        assert_eq!(all.in_order(), std::slice::from_ref(&night.adjustment));
        assert!(all.take_back(&night.adjustment) && !all.take_back(&night.adjustment));
        assert_eq!(all.in_order(), std::slice::from_ref(&day.adjustment));
        for number in 1..MOST_ADJUSTMENTS {
            all.wish(wished(
                &format!("r{number}"),
                "x",
                0,
                number,
                Lasting::Until,
            ))
            .unwrap();
        }
        assert_eq!(all.wish(night), Err(Full));
        assert_eq!(all.wish(day), Ok(()), "the same again is no further one");
    }

    #[test]
    fn adjustments_of_another_persona_end() {
        let digest = |byte: u8| Digest::of_bytes(&[byte]);
        let mut all = Adjustments::default();
        all.begin(&digest(1));
        all.wish(wished("night", "dark", 0, 0, Lasting::Persona))
            .unwrap();
        all.begin(&digest(1));
        assert_eq!(all.wished().len(), 1);
        all.begin(&digest(2));
        assert!(all.wished().is_empty() && all.is_of(&digest(2)));
    }
}
