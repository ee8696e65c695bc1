//! Personas that rules give to domains: a stack of shifts over the persona that the domain's tags give. What a person applied
//! goes before them; which rule may shift, and when, is the daemon's.

use persona::{Moment, PersonaName};
use planner::shift::Pace;
use serde::{Deserialize, Serialize};

use super::{
    Binding, Catalogue, CatalogueError, Composition, ExplicitBinding, Origin, PersonaRef,
    Resolution,
};
use crate::hypervisor::DomainId;
use crate::store::{Batch, StoreError, Stored, Tree};

/// Shifts on each other. Beyond it personas do not stand for moods of a machine any more, but hand it on and on.
pub const DEEPEST_SHIFT: usize = 8;

/// One shift.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shift {
    /// What the rule gave; its current version is followed.
    pub persona: PersonaName,
    /// The rule.
    pub rule: String,
    /// What the rule is from, as it was in force then: its `until` is read from there.
    pub of: Composition,
    /// When.
    pub at: Moment,
}

/// The shifts of one domain, the latest last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shifts {
    /// Each over the one before; the first over what the tags give.
    pub stack: Vec<Shift>,
    /// When the last ones were, which is kept after them.
    #[serde(default)]
    pub pace: Pace,
}

impl Stored for Shifts {
    const TREE: Tree = Tree::Shifts;
}

impl Shifts {
    /// The persona that they lie over.
    pub fn base(&self) -> Option<&PersonaName> {
        self.stack.first().map(|first| &first.of.persona.name)
    }

    /// The stack after a rule of `of` has given the domain `persona`: one that lies below is gone back to, so a circle
    /// of personas grows no stack. `None` beyond [`DEEPEST_SHIFT`].
    pub fn towards(
        &self,
        persona: &PersonaName,
        rule: &str,
        of: &Composition,
        at: Moment,
    ) -> Option<Vec<Shift>> {
        let mut stack = self.stack.clone();
        if self.base() == Some(persona) {
            stack.clear();
        } else if let Some(place) = stack.iter().position(|shift| shift.persona == *persona) {
            stack.truncate(place + 1);
        } else if stack.len() >= DEEPEST_SHIFT {
            return None;
        } else {
            stack.push(Shift {
                persona: persona.clone(),
                rule: rule.to_owned(),
                of: of.clone(),
                at,
            });
        }
        Some(stack)
    }

    /// What a binding by tags or by default comes to under these shifts.
    fn over(&self, binding: Binding) -> Binding {
        match self.stack.last() {
            Some(shift) if self.base() == Some(&binding.persona.name) => Binding {
                persona: PersonaRef {
                    name: shift.persona.clone(),
                    pin: None,
                },
                origin: Origin::Shift {
                    rule: shift.rule.clone(),
                    of: shift.of.persona.clone(),
                },
                overrides: binding.overrides,
            },
            _ => binding,
        }
    }
}

/// Why the shifts of a domain hold no longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Overtaken {
    /// A person's word goes before.
    #[error("{by} applied {persona}")]
    Applied {
        /// Who.
        by: String,
        /// What.
        persona: PersonaRef,
    },
    /// The tags give another persona than the one that they lie over.
    #[error("its tags give it {persona} now")]
    OtherPersona {
        /// Which.
        persona: PersonaRef,
    },
    /// Nothing gives the domain a persona.
    #[error("nothing gives it a persona any more")]
    NoPersona,
}

impl Catalogue {
    /// The shifts of a domain.
    pub fn shifts(&self, domain: DomainId) -> Option<&Shifts> {
        self.shifts.get(&domain)
    }

    /// The shift that is in force, or is to be.
    pub fn shift(&self, domain: DomainId) -> Option<&Shift> {
        self.shifts(domain)?.stack.last()
    }

    /// The rule behind a domain's shift, as it was when it shifted.
    ///
    /// # Errors
    ///
    /// As [`Catalogue::effective`].
    pub fn shift_rule(
        &self,
        domain: DomainId,
    ) -> Result<Option<persona::rule::Rule>, CatalogueError> {
        let Some(shift) = self.shift(domain) else {
            return Ok(None);
        };
        let composed = self.effective(&shift.of)?;
        let mut rules = composed.persona.rules.iter();
        Ok(rules.find(|rule| rule.name == shift.rule).cloned())
    }

    /// Stages the shifts of a domain.
    ///
    /// # Errors
    ///
    /// What writing the store gives.
    pub fn set_shifts(
        &mut self,
        batch: &mut Batch,
        domain: DomainId,
        shifts: Shifts,
    ) -> Result<(), StoreError> {
        batch.put(domain.to_string(), &shifts)?;
        self.shifts.insert(domain, shifts);
        Ok(())
    }

    /// Why the shifts of a domain with these tags hold no longer; nothing while they do, or while that is not decided.
    pub fn overtaken(&self, domain: DomainId, tags: &[String]) -> Option<Overtaken> {
        let base = self.shifts(domain)?.base()?;
        if let Some(ExplicitBinding { persona, by, .. }) = self.explicit(domain) {
            return Some(Overtaken::Applied {
                by: by.clone(),
                persona: persona.clone(),
            });
        }
        match self.resolve_unshifted(tags) {
            Resolution::Bound(binding) if binding.persona.name != *base => {
                Some(Overtaken::OtherPersona {
                    persona: binding.persona,
                })
            }
            Resolution::Unbound => Some(Overtaken::NoPersona),
            Resolution::Bound(_) | Resolution::Conflict(_) => None,
        }
    }

    /// A resolution without shifts, with those of the domain.
    pub(super) fn shifted(&self, domain: DomainId, resolution: Resolution) -> Resolution {
        match (resolution, self.shifts(domain)) {
            (Resolution::Bound(binding), Some(shifts)) if binding.origin != Origin::Explicit => {
                Resolution::Bound(shifts.over(binding))
            }
            (resolution, _) => resolution,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::versions::VersionNumber;
    use super::super::{Tag, VersionId};
    use super::*;

    fn name(text: &str) -> PersonaName {
        text.parse().unwrap()
    }

    fn of(persona: &str) -> Composition {
        Composition {
            persona: VersionId {
                name: name(persona),
                version: VersionNumber::new(1).unwrap(),
            },
            bases: Vec::new(),
            overrides: Vec::new(),
            adjustments: Vec::new(),
        }
    }

    fn after(way: &[(&str, &str)]) -> Shifts {
        let mut shifts = Shifts::default();
        for (from, to) in way {
            shifts.stack = shifts
                .towards(&name(to), "rule", &of(from), Moment(1))
                .unwrap();
        }
        shifts
    }

    fn stack(shifts: &Shifts) -> Vec<&str> {
        let stack = shifts.stack.iter();
        stack.map(|shift| shift.persona.as_str()).collect()
    }

    #[test]
    fn a_persona_that_lies_below_is_gone_back_to() {
        assert_eq!(stack(&after(&[("day", "night")])), ["night"]);
        assert_eq!(
            stack(&after(&[("day", "night"), ("night", "day")])),
            [""; 0]
        );
        let deep = after(&[("day", "night"), ("night", "siege"), ("siege", "night")]);
        assert_eq!(stack(&deep), ["night"]);
    }

    #[test]
    fn a_stack_of_shifts_ends() {
        let names: Vec<String> = (0..=DEEPEST_SHIFT).map(|n| format!("p{n}")).collect();
        let way: Vec<(&str, &str)> = names
            .windows(2)
            .map(|pair| (pair[0].as_str(), pair[1].as_str()))
            .collect();
        let shifts = after(&way);
        assert_eq!(shifts.stack.len(), DEEPEST_SHIFT);
        assert_eq!(
            shifts.towards(&name("one-more"), "rule", &of("p8"), Moment(1)),
            None
        );
    }

    #[test]
    fn a_shift_lies_over_its_own_base_only() {
        let shifts = after(&[("day", "night")]);
        let binding = |persona: &str| Binding {
            persona: persona.parse().unwrap(),
            origin: Origin::Tag {
                tag: "a".parse::<Tag>().unwrap(),
                priority: 0,
            },
            overrides: Vec::new(),
        };
        assert_eq!(shifts.over(binding("day")).persona.to_string(), "night");
        // A tag's pin says which version of its persona, and not that its rules are not followed.
        assert_eq!(shifts.over(binding("day@1")).persona.to_string(), "night");
        assert_eq!(shifts.over(binding("other")), binding("other"));
    }
}
