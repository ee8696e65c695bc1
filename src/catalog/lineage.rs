//! Which stored versions a persona builds on, and who builds on a persona. In which order they lie is in the persona
//! crate.

use persona::{LineageError, PersonaName};

use super::composition::{Composition, Supposed, VersionId, not_valid};
use super::{Catalogue, CatalogueError, PersonaRef};

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
        let found = persona::lineage(persona.clone(), extends, |who, reference| {
            self.look_up(who, reference, supposed)
        });
        found.map_err(|error| match error {
            LineageError::Circle(circle) => CatalogueError::Circle {
                circle: circle.into_iter().map(|id| id.name).collect(),
            },
            LineageError::TooDeep => CatalogueError::TooDeep {
                name: persona.name.clone(),
            },
            LineageError::NotFound(error) => error,
        })
    }

    fn look_up(
        &self,
        who: &VersionId,
        reference: &PersonaRef,
        supposed: Option<Supposed<'_>>,
    ) -> Result<(VersionId, Vec<PersonaRef>), CatalogueError> {
        if let Some(supposed) = supposed
            && supposed.id.name == reference.name
            && reference.pin.is_none_or(|pin| pin == supposed.id.version)
        {
            return Ok((supposed.id.clone(), supposed.extends.to_vec()));
        }
        match self.summary(reference) {
            Ok(summary) => Ok((summary.id(), summary.extends.clone())),
            Err(CatalogueError::NotFound { known, .. }) => Err(CatalogueError::NoBase {
                name: who.name.clone(),
                base: reference.clone(),
                known,
            }),
            Err(error) => Err(error),
        }
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
                        adjustments: Vec::new(),
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
