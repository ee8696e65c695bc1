//! Calls about one domain, or about all of them.

use std::fs::File;
use std::time::Duration;

use persona::units::{Bytes, Moment};
use zbus::{OwnedObjectPath, Variant};

use super::{Answer, Client, Given, options, read_all};
use crate::bus::dict::Dict;
use crate::bus::names;
use crate::command::{Execution, Mode};
use crate::view::{
    AdoptionView, AppliedView, Change, DomainView, EffectiveView, ExplainView, Held, HoldView,
    PlanView, StatusView,
};

impl Client {
    /// Every domain.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn domains(&self) -> Answer<Vec<DomainView>> {
        self.list("ListDomains", Given::new()).await
    }

    /// One domain, by number, UUID or name.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn status(&self, domain: &str) -> Answer<StatusView> {
        let path = self.domain_path(domain).await?;
        self.view(&path, names::DOMAIN, "Status", &(Given::new(),))
            .await
    }

    /// Binds a domain to `NAME` or `NAME@VERSION`.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn apply(&self, domain: &str, persona: &str) -> Answer<AppliedView> {
        let path = self.domain_path(domain).await?;
        self.view(&path, names::DOMAIN, "Activate", &(persona, Given::new()))
            .await
    }

    /// What [`Client::apply`] would change.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn plan(&self, domain: &str, persona: &str) -> Answer<PlanView> {
        let path = self.domain_path(domain).await?;
        let options = options([("dry_run", Some(Variant::from(true)))]);
        self.view(&path, names::DOMAIN, "Activate", &(persona, options))
            .await
    }

    /// Takes an applied persona off.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn deactivate(&self, domain: &str) -> Answer<AppliedView> {
        let path = self.domain_path(domain).await?;
        self.view(&path, names::DOMAIN, "Deactivate", &(Given::new(),))
            .await
    }

    /// Changes tags; gives those that the domain then has.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn tag(
        &self,
        domain: &str,
        add: &[String],
        remove: &[String],
    ) -> Answer<Vec<String>> {
        let path = self.domain_path(domain).await?;
        self.call(&path, names::DOMAIN, "Tag", &(add, remove, Given::new()))
            .await
    }

    /// Adds to a domain's definition what it lacks for live scaling; with `DryRun` it says what that would be. `plan` is
    /// the one that was looked at.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn adopt(
        &self,
        domain: &str,
        max_vcpus: Option<u32>,
        max_memory: Option<Bytes>,
        plan: Option<String>,
        mode: Mode,
    ) -> Answer<AdoptionView> {
        let path = self.domain_path(domain).await?;
        let options = options([
            ("max_vcpus", max_vcpus.map(Variant::from)),
            ("max_memory", max_memory.map(|size| Variant::from(size.0))),
            ("plan", plan.map(Variant::from)),
            ("dry_run", (mode == Mode::DryRun).then(|| true.into())),
        ]);
        self.view(&path, names::DOMAIN, "Adopt", &(options,)).await
    }

    /// Puts a domain's definition back as it was before it was adopted.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn undo_adoption(&self, domain: &str, mode: Mode) -> Answer<AdoptionView> {
        let path = self.domain_path(domain).await?;
        let options = options([
            ("undo", Some(true.into())),
            ("dry_run", (mode == Mode::DryRun).then(|| true.into())),
        ]);
        self.view(&path, names::DOMAIN, "Adopt", &(options,)).await
    }

    /// What is in force on a domain, each value with its origin.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn effective(&self, domain: &str) -> Answer<EffectiveView> {
        let path = self.domain_path(domain).await?;
        let (document, values): (String, Vec<Dict>) = self
            .call(&path, names::DOMAIN, "EffectivePersona", &(Given::new(),))
            .await?;
        Ok(EffectiveView {
            document,
            values: read_all("EffectivePersona", values)?,
        })
    }

    /// Why a domain did or did not change, in the latest tick or at a time.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn explain(&self, domain: &str, at: Option<Moment>) -> Answer<ExplainView> {
        let path = self.domain_path(domain).await?;
        let options = options([("at", at.map(|at| Variant::from(at.0)))]);
        self.view(&path, names::DOMAIN, "Explain", &(options,))
            .await
    }

    /// Runs a command in the guest of a domain; the lines of the file are [`crate::view::ExecutionLine`]s.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn execute(&self, domain: &str, execution: &Execution) -> Answer<File> {
        let path = self.domain_path(domain).await?;
        let millis = u64::try_from(execution.timeout.as_millis()).unwrap_or(u64::MAX);
        let options = options([
            ("user", Some(Variant::from(execution.user.clone()))),
            (
                "directory",
                Some(Variant::from(execution.directory.clone())),
            ),
            ("timeout_ms", Some(Variant::from(millis))),
        ]);
        let given = (&execution.argv, &execution.environment, options);
        let lines: zbus::OwnedFd = self.call(&path, names::DOMAIN, "Execute", &given).await?;
        Ok(File::from(std::os::fd::OwnedFd::from(lines)))
    }

    /// The recording of a domain, to be read from its beginning.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn recording(
        &self,
        domain: &str,
        since: Option<Moment>,
        until: Option<Moment>,
    ) -> Answer<File> {
        let path = self.domain_path(domain).await?;
        let options = options([
            ("since", since.map(|at| Variant::from(at.0))),
            ("until", until.map(|at| Variant::from(at.0))),
        ]);
        let trace: zbus::OwnedFd = self
            .call(&path, names::DOMAIN, "Recording", &(options,))
            .await?;
        Ok(File::from(std::os::fd::OwnedFd::from(trace)))
    }

    /// Leaves a domain's resources alone; gives what of it is held then.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn hold(
        &self,
        domain: &str,
        length: Duration,
        resource: Option<Held>,
    ) -> Answer<Vec<HoldView>> {
        let path = self.domain_path(domain).await?;
        let word = resource.map(|resource| {
            Variant::from(match resource {
                Held::Vcpus => "vcpus",
                Held::Memory => "memory",
                Held::Limits => "limits",
            })
        });
        let arguments = (length.as_secs(), options([("resource", word)]));
        let holds: Vec<Dict> = self.call(&path, names::DOMAIN, "Hold", &arguments).await?;
        read_all("Hold", holds)
    }

    /// Ends every hold of a domain; says whether there was any.
    ///
    /// # Errors
    /// See [`super::ClientError`].
    pub async fn release(&self, domain: &str) -> Answer<Change> {
        let path = self.domain_path(domain).await?;
        let changed: bool = self
            .call(&path, names::DOMAIN, "Release", &(Given::new(),))
            .await?;
        Ok(if changed {
            Change::Changed
        } else {
            Change::Unchanged
        })
    }

    async fn domain_path(&self, domain: &str) -> Answer<OwnedObjectPath> {
        self.manager_call("GetDomain", &(domain, Given::new()))
            .await
    }
}
