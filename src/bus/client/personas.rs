//! Calls about the catalogue: personas, their versions, and what tags mean.

use zbus::{OwnedObjectPath, Variant};

use super::{Answer, Client, Given, format_word, options, read, read_all};
use crate::bus::dict::Dict;
use crate::bus::names;
use crate::view::{
    DocumentFormat, DocumentView, FragmentView, MappedView, MappingView, PersonaView, StoredView,
    VersionView,
};

impl Client {
    /// Every persona.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn personas(&self) -> Answer<Vec<PersonaView>> {
        self.list("ListPersonas", Given::new()).await
    }

    /// What tags mean.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn mappings(&self) -> Answer<Vec<MappingView>> {
        self.list("ListMappings", Given::new()).await
    }

    /// A version of a persona with its text.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn show(&self, name: &str, version: Option<u32>) -> Answer<DocumentView> {
        let path = self.persona_path(name).await?;
        let options = options([("version", version.map(Variant::from))]);
        self.view(&path, names::PERSONA, "Show", &(options,)).await
    }

    /// All versions of a persona.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn history(&self, name: &str) -> Answer<Vec<VersionView>> {
        let path = self.persona_path(name).await?;
        let versions: Vec<Dict> = self
            .call(&path, names::PERSONA, "History", &(Given::new(),))
            .await?;
        read_all("History", versions)
    }

    /// Stores a persona under a free name.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn create(
        &self,
        document: &str,
        format: Option<DocumentFormat>,
        name: Option<String>,
        note: Option<String>,
    ) -> Answer<StoredView> {
        let options = options([
            ("format", format.map(format_word)),
            ("name", name.map(Variant::from)),
            ("note", note.map(Variant::from)),
        ]);
        let (_, stored): (OwnedObjectPath, Dict) = self
            .manager_call("CreatePersona", &(document, options))
            .await?;
        read("CreatePersona", stored)
    }

    /// Stores a further version.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn update(
        &self,
        name: &str,
        document: &str,
        format: Option<DocumentFormat>,
        note: Option<String>,
    ) -> Answer<StoredView> {
        let options = options([
            ("format", format.map(format_word)),
            ("note", note.map(Variant::from)),
        ]);
        let arguments = (name, document, options);
        self.view(names::ROOT, names::MANAGER, "UpdatePersona", &arguments)
            .await
    }

    /// Makes a stored version current.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn set_current(&self, name: &str, version: u32) -> Answer<StoredView> {
        let arguments = (name, version, Given::new());
        self.view(names::ROOT, names::MANAGER, "SetCurrentPersona", &arguments)
            .await
    }

    /// Deletes a persona.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn delete(&self, name: &str, force: crate::command::Force) -> Answer<()> {
        let force = match force {
            crate::command::Force::Yes => Some(Variant::from(true)),
            crate::command::Force::No => None,
        };
        self.manager_call("DeletePersona", &(name, options([("force", force)])))
            .await
    }

    /// Says which persona a tag means.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn map(&self, tag: &str, persona: &str, priority: i32) -> Answer<()> {
        let options = options([("priority", Some(Variant::from(priority)))]);
        self.manager_call("MapTag", &(tag, persona, options)).await
    }

    /// Says what a tag lays over the persona of a domain.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn map_override(
        &self,
        tag: &str,
        document: &str,
        format: Option<DocumentFormat>,
        priority: i32,
    ) -> Answer<MappedView> {
        let options = options([
            ("priority", Some(Variant::from(priority))),
            ("format", format.map(format_word)),
        ]);
        let arguments = (tag, document, options);
        self.view(names::ROOT, names::MANAGER, "MapOverride", &arguments)
            .await
    }

    /// The override that a tag means.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn show_override(&self, tag: &str) -> Answer<FragmentView> {
        let arguments = (tag, Given::new());
        self.view(names::ROOT, names::MANAGER, "ShowOverride", &arguments)
            .await
    }

    /// Takes a tag's meaning away.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn unmap(&self, tag: &str) -> Answer<()> {
        self.manager_call("UnmapTag", &(tag, Given::new())).await
    }

    async fn persona_path(&self, name: &str) -> Answer<OwnedObjectPath> {
        self.manager_call("GetPersona", &(name, Given::new())).await
    }
}
