//! Which versions a persona builds on, in which order, and who builds on a persona.
//!
//! The order is depth first: for each base in the order of `extends`, what it builds on and then itself, each version
//! once, at its first place. So a base lies below whatever builds on it, and a later base lies over an earlier one.

use persona::PersonaName;

use super::composition::{Composition, Supposed, VersionId, not_valid};
use super::{Catalogue, CatalogueError, PersonaRef};

/// The deepest that personas build on each other: deeper, nobody could say where a value is from.
const DEEPEST: usize = 16;
/// The most versions in one composition.
const MOST_LAYERS: usize = 64;

/// The walk over what a persona builds on.
struct Walk<'a> {
    catalogue: &'a Catalogue,
    supposed: Option<Supposed<'a>>,
    /// From the persona down to where the walk is.
    way: Vec<VersionId>,
    found: Vec<VersionId>,
}

impl Catalogue {
    /// What `persona`, which says that it builds on `extends`, is made of, the lowest first and without itself.
    ///
    /// # Errors
    ///
    /// [`CatalogueError::NoBase`], [`CatalogueError::NoVersion`], [`CatalogueError::Circle`],
    /// [`CatalogueError::TooDeep`].
    pub(super) fn lineage(
        &self,
        persona: &VersionId,
        extends: &[PersonaRef],
        supposed: Option<Supposed<'_>>,
    ) -> Result<Vec<VersionId>, CatalogueError> {
        let mut walk = Walk {
            catalogue: self,
            supposed,
            way: vec![persona.clone()],
            found: Vec::new(),
        };
        walk.below(extends)?;
        Ok(walk.found)
    }

    /// The personas whose current version builds on this one by itself, in alphabetical order.
    pub fn builders(&self, name: &PersonaName) -> Vec<PersonaName> {
        let builds = |other: &&PersonaName| {
            *other != name
                && self
                    .current(other)
                    .is_ok_and(|current| current.extends.iter().any(|base| base.name == *name))
        };
        self.personas().filter(builds).cloned().collect()
    }

    /// Refuses a version as the current one where a persona that composes now would no longer do so.
    ///
    /// # Errors
    ///
    /// [`CatalogueError::Breaks`] with each of them.
    pub(super) fn check_builders(&self, supposed: Supposed<'_>) -> Result<(), CatalogueError> {
        let mut broken = Vec::new();
        for name in self.personas().filter(|name| **name != supposed.id.name) {
            let Ok(current) = self.current(name) else {
                continue;
            };
            let reference = PersonaRef {
                name: name.clone(),
                pin: None,
            };
            // What does not build on it stays as it is, and what does not compose now is not broken by this.
            if current.extends.is_empty() || self.persona(&reference).is_err() {
                continue;
            }
            let id = current.id();
            let made = self
                .lineage(&id, &current.extends, Some(supposed))
                .and_then(|bases| {
                    if !bases.contains(supposed.id) {
                        return Ok(());
                    }
                    let composition = Composition {
                        persona: id,
                        bases,
                        overrides: Vec::new(),
                    };
                    self.make(&composition, Some(supposed))?
                        .map(drop)
                        .map_err(|problems| not_valid(&composition, problems))
                });
            if let Err(error) = made {
                broken.push((name.clone(), Box::new(error)));
            }
        }
        if broken.is_empty() {
            return Ok(());
        }
        Err(CatalogueError::Breaks {
            name: supposed.id.name.clone(),
            broken,
        })
    }
}

impl Walk<'_> {
    fn below(&mut self, extends: &[PersonaRef]) -> Result<(), CatalogueError> {
        for reference in extends {
            let (id, further) = self.look_up(reference)?;
            if self.way.contains(&id) {
                return Err(self.circle(id));
            }
            if self.found.contains(&id) {
                continue;
            }
            if self.way.len() > DEEPEST || self.found.len() >= MOST_LAYERS {
                return Err(CatalogueError::TooDeep {
                    name: self.way[0].name.clone(),
                    deepest: DEEPEST,
                    most: MOST_LAYERS,
                });
            }
            self.way.push(id.clone());
            self.below(&further)?;
            self.way.pop();
            self.found.push(id);
        }
        Ok(())
    }

    fn look_up(
        &self,
        reference: &PersonaRef,
    ) -> Result<(VersionId, Vec<PersonaRef>), CatalogueError> {
        if let Some(supposed) = self.supposed
            && supposed.id.name == reference.name
            && reference.pin.is_none_or(|pin| pin == supposed.id.version)
        {
            return Ok((supposed.id.clone(), supposed.extends.to_vec()));
        }
        match self.catalogue.summary(reference) {
            Ok(summary) => Ok((summary.id(), summary.extends.clone())),
            Err(CatalogueError::NotFound { known, .. }) => Err(CatalogueError::NoBase {
                // The way begins with the persona itself.
                name: self.way[self.way.len() - 1].name.clone(),
                base: reference.clone(),
                known,
            }),
            Err(error) => Err(error),
        }
    }

    fn circle(&self, again: VersionId) -> CatalogueError {
        let start = self.way.iter().position(|id| *id == again).unwrap_or(0);
        let circle = self.way[start..].iter().chain([&again]);
        CatalogueError::Circle {
            circle: circle.map(|id| id.name.clone()).collect(),
        }
    }
}
