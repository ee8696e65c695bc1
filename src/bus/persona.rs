//! `org.virtpersona1.Persona`: one object for each stored persona.

use std::collections::HashMap;

use zbus::message::Header;
use zbus::{OwnedVariant, Variant, fdo, interface};

use super::calls::{Calls, unexpected};
use super::dict::{Dict, to_dict, to_dicts};
use super::error::Failure;
use super::options::Options;
use crate::command::{Command, PersonaRef, Refusal, Reply};
use crate::view::{DocumentView, PersonaView};

/// The object of a persona.
pub(super) struct Persona {
    pub(super) name: String,
    pub(super) calls: Calls,
}

impl Persona {
    fn read<T>(&self, read: impl FnOnce(&PersonaView) -> T) -> fdo::Result<T> {
        match self.calls.view().personas.get(&self.name) {
            Some(persona) => Ok(read(persona)),
            None => Err(fdo::Error::UnknownObject(format!(
                "persona {} is no longer stored",
                self.name
            ))),
        }
    }

    async fn fetch(
        &self,
        call: &Header<'_>,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<DocumentView, Failure> {
        let mut options = Options::new(options);
        let version = options.number::<u32>("version")?;
        options.finish()?;
        if version == Some(0) {
            return Err(Failure::from(Refusal::BadArgument {
                argument: "options[version]".to_owned(),
                reason: "versions are numbered from 1".to_owned(),
            }));
        }
        let wanted = PersonaRef {
            name: self.name.clone(),
            version,
        };
        match self.calls.ask(call, Command::ShowPersona(wanted)).await? {
            Reply::Document(document) => Ok(document),
            other => Err(unexpected(&other)),
        }
    }
}

/// What of a persona's view is a property that emits changes, and differs.
pub(super) fn changed(
    old: &PersonaView,
    new: &PersonaView,
) -> HashMap<&'static str, Variant<'static>> {
    let mut changed = HashMap::new();
    if old.description != new.description {
        changed.insert(
            "Description",
            new.description.clone().unwrap_or_default().into(),
        );
    }
    if old.versions != new.versions {
        changed.insert("Versions", new.versions.into());
    }
    if old.current != new.current {
        changed.insert("CurrentVersion", new.current.into());
    }
    if old.digest != new.digest {
        changed.insert("Digest", new.digest.clone().into());
    }
    if old.default != new.default {
        changed.insert("Default", new.default.into());
    }
    if old.domains != new.domains {
        changed.insert("Domains", new.domains.clone().into());
    }
    if old.effects != new.effects {
        changed.insert("Effects", to_dicts(&new.effects).into());
    }
    changed
}

#[interface(name = "org.virtpersona1.Persona")]
impl Persona {
    /// The document as it was given.
    ///
    /// Options: `version` (u) gives that version, else the current one.
    #[zbus(out_args("document"))]
    async fn document(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<String, Failure> {
        Ok(self.fetch(&call, options).await?.document)
    }

    /// A version with all that is known of it: `name`, `version`, `digest`, `current`, `format`, `author`, `at`,
    /// `note`, `document`.
    ///
    /// Options: `version` (u) gives that version, else the current one.
    #[zbus(out_args("persona"))]
    async fn show(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<Dict, Failure> {
        Ok(to_dict(&self.fetch(&call, options).await?))
    }

    /// All versions, the oldest first, each as Show has it without `document`. There are no options.
    #[zbus(out_args("versions"))]
    async fn history(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<Vec<Dict>, Failure> {
        Options::new(options).finish()?;
        let command = Command::History {
            name: self.name.clone(),
        };
        match self.calls.ask(&call, command).await? {
            Reply::History(versions) => Ok(to_dicts(&versions)),
            other => Err(unexpected(&other)),
        }
    }

    /// The name.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn name(&self) -> String {
        self.name.clone()
    }

    /// What the current version says of itself; empty when it says nothing.
    #[zbus(property)]
    async fn description(&self) -> fdo::Result<String> {
        self.read(|persona| persona.description.clone().unwrap_or_default())
    }

    /// How many versions are stored.
    #[zbus(property)]
    async fn versions(&self) -> fdo::Result<u32> {
        self.read(|persona| persona.versions)
    }

    /// The version that bindings follow.
    #[zbus(property)]
    async fn current_version(&self) -> fdo::Result<u32> {
        self.read(|persona| persona.current)
    }

    /// The content digest of the current version, in hexadecimal.
    #[zbus(property)]
    async fn digest(&self) -> fdo::Result<String> {
        self.read(|persona| persona.digest.clone())
    }

    /// Whether new domains without a mapped tag get it.
    #[zbus(property)]
    async fn default(&self) -> fdo::Result<bool> {
        self.read(|persona| persona.default)
    }

    /// Names of the domains that are bound to it.
    #[zbus(property)]
    async fn domains(&self) -> fdo::Result<Vec<String>> {
        self.read(|persona| persona.domains.clone())
    }

    /// What the actions of its rules did to the metrics that it prioritises, each with `rule`, `metric`, `unit`,
    /// `actions`, `before`, `change`, `margin` (95 % confidence, absent after a single action) and `confidence` (80, 90,
    /// 95 or 99 percent that it changes at all, absent below). Advisory.
    #[zbus(property)]
    async fn effects(&self) -> fdo::Result<Vec<Dict>> {
        self.read(|persona| to_dicts(&persona.effects))
    }
}
