//! `org.virtpersona1.Manager` on the root object: the catalogue, tags' meanings, the audit record, the host.

use std::collections::HashMap;

use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{OwnedObjectPath, OwnedVariant, interface};

use super::calls::{Calls, unexpected};
use super::dict::{Dict, to_dict, to_dicts};
use super::error::Failure;
use super::names::{Action, domain_path, persona_path};
use super::options::Options;
use super::record::{record_dict, record_dicts};
use crate::command::{Command, DomainName, Force, Noun, Refusal, Reply};
use crate::view::{Change, ManagerView, ProposalView};
use persona::units::Moment;

/// How many audit records are given when the caller does not say.
const AUDIT_DEFAULT: u32 = 100;
/// More audit records than this do not fit well into one message of the bus.
const AUDIT_MOST: u32 = 10_000;

/// The root object.
pub(super) struct Manager(pub(super) Calls);

impl Manager {
    /// Brings a person's word about a proposal, with what polkit's rules may look at.
    async fn decide(&self, call: &Header<'_>, id: u64, command: Command) -> Result<Dict, Failure> {
        let view = self.0.view();
        // Without its figures nobody could say whether the caller may decide on it, so what is not shown is not decided.
        let Some(proposal) = view.proposals().find(|proposal| proposal.id == id) else {
            return Err(Failure::from(Refusal::NotFound {
                what: Noun::Proposal,
                name: id.to_string(),
                nearest: None,
            }));
        };
        let rule = proposal.rule.as_deref().unwrap_or_default();
        let details = HashMap::from([
            ("domain", proposal.name.as_str()),
            ("persona", proposal.persona.as_str()),
            ("rule", rule),
        ]);
        match self
            .0
            .change(call, Action::Approve, details, command)
            .await?
        {
            Reply::Proposal(proposal) => Ok(to_dict(&*proposal)),
            other => Err(unexpected(&other)),
        }
    }
}

/// What of the manager's view is a property that emits changes.
pub(super) fn changed(
    old: &ManagerView,
    new: &ManagerView,
) -> HashMap<&'static str, zbus::Variant<'static>> {
    let mut changed = HashMap::new();
    if old.hypervisor != new.hypervisor {
        changed.insert("Hypervisor", to_dict(&new.hypervisor).into());
    }
    if old.host != new.host {
        changed.insert("Host", to_dict(&new.host).into());
    }
    if old.problems != new.problems {
        changed.insert("Problems", new.problems.clone().into());
    }
    changed
}

#[interface(name = "org.virtpersona1.Manager")]
impl Manager {
    /// Stores a persona under a name that is free. Needs `org.virtpersona1.manage-personas`.
    ///
    /// Options: `name` (s) names a document that does not name itself; `format` (s) is `yaml`, `json` or `toml`, found
    /// by itself when absent; `note` (s) is kept with the version.
    /// The result has `name`, `version`, `digest`, `change` and `warnings` (each with `severity`, `kind`, `message`,
    /// `line`, `column`, `length`, `help`). Error `InvalidPersona` has the problems in the same form as its second
    /// argument.
    #[zbus(out_args("persona", "stored"))]
    async fn create_persona(
        &self,
        document: String,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<(OwnedObjectPath, Dict), Failure> {
        let mut options = Options::new(options);
        let name = options.text("name")?;
        let format = options.format()?;
        let note = options.text("note")?;
        options.finish()?;
        let details = name
            .clone()
            .map(|name| HashMap::from([("persona", name)]))
            .unwrap_or_default();
        let details = details.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let command = Command::CreatePersona {
            document,
            format,
            name,
            note,
        };
        match self
            .0
            .change(&call, Action::ManagePersonas, details, command)
            .await?
        {
            Reply::Stored(stored) => Ok((persona_path(&stored.name), to_dict(&stored))),
            other => Err(unexpected(&other)),
        }
    }

    /// Stores a further version of a persona and makes it current; domains that follow the persona get it. A document
    /// that means the same as the current version changes nothing. Needs `org.virtpersona1.manage-personas`.
    ///
    /// Options: `format` (s) and `note` (s) as of CreatePersona. The result is that of CreatePersona.
    #[zbus(out_args("stored"))]
    async fn update_persona(
        &self,
        name: String,
        document: String,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<Dict, Failure> {
        let mut options = Options::new(options);
        let format = options.format()?;
        let note = options.text("note")?;
        options.finish()?;
        let details_name = name.clone();
        let details = HashMap::from([("persona", details_name.as_str())]);
        let command = Command::UpdatePersona {
            name,
            document,
            format,
            note,
        };
        match self
            .0
            .change(&call, Action::ManagePersonas, details, command)
            .await?
        {
            Reply::Stored(stored) => Ok(to_dict(&stored)),
            other => Err(unexpected(&other)),
        }
    }

    /// Deletes a persona with all its versions. Needs `org.virtpersona1.manage-personas`.
    ///
    /// Options: `force` (b) deletes it although domains are bound to it; they fall back to their tags or the default.
    async fn delete_persona(
        &self,
        name: String,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<(), Failure> {
        let mut options = Options::new(options);
        let force = if options.flag("force")? {
            Force::Yes
        } else {
            Force::No
        };
        options.finish()?;
        let details_name = name.clone();
        let details = HashMap::from([("persona", details_name.as_str())]);
        let command = Command::DeletePersona { name, force };
        match self
            .0
            .change(&call, Action::ManagePersonas, details, command)
            .await?
        {
            Reply::Done(_) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes a stored version of a persona current; domains that follow the persona get it. Needs
    /// `org.virtpersona1.manage-personas`. There are no options. The result is that of CreatePersona.
    #[zbus(out_args("stored"))]
    async fn set_current_persona(
        &self,
        name: String,
        version: u32,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<Dict, Failure> {
        Options::new(options).finish()?;
        let details_name = name.clone();
        let details = HashMap::from([("persona", details_name.as_str())]);
        let command = Command::SetCurrent { name, version };
        match self
            .0
            .change(&call, Action::ManagePersonas, details, command)
            .await?
        {
            Reply::Stored(stored) => Ok(to_dict(&stored)),
            other => Err(unexpected(&other)),
        }
    }

    /// Every persona: `name`, `description`, `versions` (their number), `current`, `digest`, `default`, `domains`
    /// (names of those bound to it). There are no options.
    #[zbus(out_args("personas"))]
    async fn list_personas(
        &self,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<Vec<Dict>, Failure> {
        Options::new(options).finish()?;
        Ok(to_dicts(self.0.view().personas.values()))
    }

    /// Every domain, each as Domain.Status has it. There are no options.
    #[zbus(out_args("domains"))]
    async fn list_domains(
        &self,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<Vec<Dict>, Failure> {
        Options::new(options).finish()?;
        Ok(to_dicts(self.0.view().domains.values()))
    }

    /// The object of a domain, which is named by its number, UUID or name, in this order. There are no options.
    #[zbus(out_args("path"))]
    async fn get_domain(
        &self,
        domain: String,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<OwnedObjectPath, Failure> {
        Options::new(options).finish()?;
        let view = self.0.view();
        Ok(domain_path(view.domain_named(&DomainName(domain))?.id))
    }

    /// The object of a persona. There are no options.
    #[zbus(out_args("path"))]
    async fn get_persona(
        &self,
        name: String,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<OwnedObjectPath, Failure> {
        Options::new(options).finish()?;
        let view = self.0.view();
        Ok(persona_path(&view.persona_named(&name)?.name))
    }

    /// Says which persona a domain with this tag gets. Where a domain has several mapped tags, the highest priority
    /// wins; equal priorities of different personas are a conflict, which is reported and changes nothing. Needs
    /// `org.virtpersona1.manage-personas`.
    ///
    /// Options: `priority` (i), 0 when absent.
    async fn map_tag(
        &self,
        tag: String,
        persona: String,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<(), Failure> {
        let mut options = Options::new(options);
        let priority = options.number::<i32>("priority")?.unwrap_or(0);
        options.finish()?;
        let (details_tag, details_persona) = (tag.clone(), persona.clone());
        let details = HashMap::from([
            ("tag", details_tag.as_str()),
            ("persona", details_persona.as_str()),
        ]);
        let command = Command::Map {
            tag,
            persona,
            priority,
        };
        match self
            .0
            .change(&call, Action::ManagePersonas, details, command)
            .await?
        {
            Reply::Done(_) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Says what is laid over the persona of a domain with this tag: a fragment of a document, any of its keys but `name`,
    /// `extends` and `default_persona`. All overrides of a domain's tags are laid over its persona by rising priority; two
    /// of equal priority that set one value differently are a conflict, which is reported and changes nothing. Refused
    /// where a domain with the tag would have no valid persona. Needs `org.virtpersona1.manage-personas`.
    ///
    /// Options: `priority` (i), 0 when absent; `format` (s) is `yaml`, `json` or `toml`, found by itself when absent.
    /// The result has `tag`, `change` and `warnings` (as of CreatePersona). Error `InvalidPersona` has the problems in
    /// the same form as its second argument.
    #[zbus(out_args("mapped"))]
    async fn map_override(
        &self,
        tag: String,
        document: String,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<Dict, Failure> {
        let mut options = Options::new(options);
        let priority = options.number::<i32>("priority")?.unwrap_or(0);
        let format = options.format()?;
        options.finish()?;
        let details_tag = tag.clone();
        let details = HashMap::from([("tag", details_tag.as_str())]);
        let command = Command::MapOverride {
            tag,
            document,
            format,
            priority,
        };
        match self
            .0
            .change(&call, Action::ManagePersonas, details, command)
            .await?
        {
            Reply::Mapped(mapped) => Ok(to_dict(&mapped)),
            other => Err(unexpected(&other)),
        }
    }

    /// The override that a tag means: `tag`, `digest`, `format`, `document` (its text as it was given). There are no
    /// options.
    #[zbus(out_args("override"))]
    async fn show_override(
        &self,
        tag: String,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<Dict, Failure> {
        Options::new(options).finish()?;
        match self.0.ask(&call, Command::ShowOverride { tag }).await? {
            Reply::Fragment(fragment) => Ok(to_dict(&fragment)),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes the meaning of a tag away. Needs `org.virtpersona1.manage-personas`. There are no options.
    async fn unmap_tag(
        &self,
        tag: String,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<(), Failure> {
        Options::new(options).finish()?;
        let details_tag = tag.clone();
        let details = HashMap::from([("tag", details_tag.as_str())]);
        let command = Command::Unmap { tag };
        match self
            .0
            .change(&call, Action::ManagePersonas, details, command)
            .await?
        {
            Reply::Done(_) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// What tags mean: `tag`, `persona` or `override` (the digest of one), `priority`, `domains` (names of those that have
    /// the tag). There are no options.
    #[zbus(out_args("mappings"))]
    async fn list_mappings(
        &self,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<Vec<Dict>, Failure> {
        Options::new(options).finish()?;
        Ok(to_dicts(&self.0.view().mappings))
    }

    /// What was decided and done, the latest last: `seq`, `at`, `domain` (UUID), `domain_name`, `kind`, `text` and
    /// `detail` (JSON as text; its shape depends on the kind).
    ///
    /// Options: `domain` (s) gives only what is about it; `since` (t) only what is not older; `limit` (u) only so many,
    /// the latest ones, 100 when absent, at most 10000.
    #[zbus(out_args("records"))]
    async fn audit(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<Vec<Dict>, Failure> {
        let mut options = Options::new(options);
        let domain = options.text("domain")?.map(DomainName);
        let since = options.number::<u64>("since")?.map(Moment);
        let limit = options.number::<u32>("limit")?.unwrap_or(AUDIT_DEFAULT);
        options.finish()?;
        if limit > AUDIT_MOST {
            return Err(Failure::from(Refusal::BadArgument {
                argument: "options[limit]".to_owned(),
                reason: format!("{limit} is more than {AUDIT_MOST}"),
            }));
        }
        let command = Command::Audit {
            domain,
            since,
            limit,
        };
        match self.0.ask(&call, command).await? {
            Reply::Audit(audit) => Ok(record_dicts(&audit)),
            other => Err(unexpected(&other)),
        }
    }

    /// What works for live scaling and what does not: `domain` (absent for the host), `name`, `state` (`ok`, `warn`,
    /// `fail`), `sentence`, `mend` (how to).
    ///
    /// Options: `domain` (s) gives only the checks of that domain.
    #[zbus(out_args("checks"))]
    async fn doctor(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<Vec<Dict>, Failure> {
        let mut options = Options::new(options);
        let domain = options.text("domain")?.map(DomainName);
        options.finish()?;
        match self.0.ask(&call, Command::Doctor { domain }).await? {
            Reply::Doctor(doctor) => Ok(to_dicts(&doctor.checks)),
            other => Err(unexpected(&other)),
        }
    }

    /// Gives back, on every domain, the vCPUs, the memory and the limits that the daemon changed, within the usual guard, and
    /// manages nothing until it is started anew. It goes on after the answer; asked again it says what is left. Nothing
    /// inside a guest is undone. Needs `org.virtpersona1.activate`. There are no options. The result has `left` (a sentence
    /// for each thing that is not given back yet, which says what it waits for).
    #[zbus(out_args("result"))]
    async fn retire(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<Dict, Failure> {
        Options::new(options).finish()?;
        match self
            .0
            .change(&call, Action::Activate, HashMap::new(), Command::Retire)
            .await?
        {
            Reply::Retired(retired) => Ok(to_dict(&retired)),
            other => Err(unexpected(&other)),
        }
    }

    /// What waits for a person's word on any domain, or was approved and is not done yet: `id`, `domain` (UUID), `name`,
    /// `persona`, `version`, `rule`, `class` and `level` (of trust), `resource` with `from` and `to` (vCPUs or bytes) or
    /// `action`, `text` (all of it in one sentence), `why` (each with `comparison`, `metric`, `value`, `unit`, `source`,
    /// `age_ms`), `created`, `expires`, `state` (`open`, `approved`), `by` (who approved). There are no options.
    #[zbus(out_args("proposals"))]
    async fn approvals(
        &self,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<Vec<Dict>, Failure> {
        Options::new(options).finish()?;
        let view = self.0.view();
        let mut proposals: Vec<&ProposalView> = view.proposals().collect();
        proposals.sort_by_key(|proposal| proposal.id);
        Ok(to_dicts(proposals))
    }

    /// Lets be done what a proposal wants, within every other limit, until it is done, expires, or another persona or
    /// version is in force. Needs `org.virtpersona1.approve`. There are no options. The result is an element of
    /// Approvals.
    #[zbus(out_args("proposal"))]
    async fn approve(
        &self,
        id: u64,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<Dict, Failure> {
        Options::new(options).finish()?;
        self.decide(&call, id, Command::Approve { id }).await
    }

    /// Lets it not be done; it is proposed again only when its cause was gone once and has come back. One that was
    /// approved and is not done yet can be rejected too. Needs `org.virtpersona1.approve`. There are no options. The
    /// result is an element of Approvals, whose `state` is `rejected`.
    #[zbus(out_args("proposal"))]
    async fn reject(
        &self,
        id: u64,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<Dict, Failure> {
        Options::new(options).finish()?;
        self.decide(&call, id, Command::Reject { id }).await
    }

    /// Reads the configuration again; says whether anything changed. Needs `org.virtpersona1.manage-daemon`. There are
    /// no options.
    #[zbus(out_args("changed"))]
    async fn reload(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<bool, Failure> {
        Options::new(options).finish()?;
        match self
            .0
            .change(&call, Action::ManageDaemon, HashMap::new(), Command::Reload)
            .await?
        {
            Reply::Done(change) => Ok(change == Change::Changed),
            other => Err(unexpected(&other)),
        }
    }

    /// Something was decided or done, as Audit has it. Numbers without gaps: a gap says that this client missed some.
    #[zbus(signal)]
    pub(super) async fn audited(emitter: &SignalEmitter<'_>, record: Dict) -> zbus::Result<()>;

    /// The daemon's version.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn version(&self) -> String {
        self.0.view().manager.version.clone()
    }

    /// When the daemon started.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn started(&self) -> u64 {
        self.0.view().manager.started.0
    }

    /// The connection to the hypervisor: `state` (`connected`, `disconnected`), `uri`, `library`, `emulator` (versions),
    /// `detail` (why it is not there).
    #[zbus(property)]
    async fn hypervisor(&self) -> Dict {
        to_dict(&self.0.view().manager.hypervisor)
    }

    /// What all domains may have together and what of it is granted: `cores`, `vcpus_budget`, `vcpus_granted`,
    /// `memory`, `memory_budget`, `memory_granted`. How short the host is of each: `vcpus_state`, `memory_state`
    /// (`plenty`, `tight`, `scarce`, `critical`; take another word for worse than those).
    #[zbus(property)]
    async fn host(&self) -> Dict {
        to_dict(&self.0.view().manager.host)
    }

    /// What is wrong with the daemon itself, each a sentence.
    #[zbus(property)]
    async fn problems(&self) -> Vec<String> {
        self.0.view().manager.problems.clone()
    }

    /// Ticks since the start.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn ticks(&self) -> u64 {
        self.0.view().manager.ticks
    }

    /// Ticks that took longer than their period.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn overruns(&self) -> u64 {
        self.0.view().manager.overruns
    }
}

/// Tells the bus of a record.
pub(super) async fn announce(
    emitter: &SignalEmitter<'_>,
    record: &crate::view::AuditRecordView,
) -> zbus::Result<()> {
    Manager::audited(emitter, record_dict(record)).await
}
