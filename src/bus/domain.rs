//! `org.virtpersona1.Domain`: one object for each domain that the hypervisor defines. Its methods stand in one block, because
//! the introspection data are made of it; what its properties are made of is in `properties`.

mod properties;

use std::collections::HashMap;
use std::time::Duration;

use persona::domain::DomainId;
use persona::units::{Bytes, Moment};
use zbus::message::Header;
use zbus::{OwnedFd, OwnedVariant, fdo, interface};

use super::calls::{Calls, unexpected};
use super::dict::{Dict, to_dict, to_dicts};
use super::error::Failure;
use super::names::Action;
use super::options::Options;
use crate::command::{Command, DomainName, Execution, Mode, PersonaRef, Refusal, Reply};
use crate::view::{Change, DomainView, Held};

pub(super) use properties::changed;
use properties::{active_persona, agent, last_decision, proposals, state};

/// The object of a domain.
pub(super) struct Domain {
    pub(super) id: DomainId,
    pub(super) calls: Calls,
}

impl Domain {
    fn name_for_daemon(&self) -> DomainName {
        DomainName(self.id.to_string())
    }

    /// The name for polkit's rules, empty when the domain has just gone.
    fn details_name(&self) -> String {
        self.calls
            .view()
            .domains
            .get(&self.id)
            .map(|domain| domain.name.clone())
            .unwrap_or_default()
    }

    /// Has the daemon change this domain, where the caller may. `more` is what polkit's rules see beside its name.
    async fn change(
        &self,
        call: &Header<'_>,
        action: Action,
        more: Option<(&'static str, &str)>,
        command: Command,
    ) -> Result<Reply, Failure> {
        let name = self.details_name();
        let mut details = HashMap::from([("domain", name.as_str())]);
        details.extend(more);
        self.calls.change(call, action, details, command).await
    }

    fn read<T>(&self, read: impl FnOnce(&DomainView) -> T) -> fdo::Result<T> {
        match self.calls.view().domains.get(&self.id) {
            Some(domain) => Ok(read(domain)),
            None => Err(fdo::Error::UnknownObject(format!(
                "domain {} is no longer defined",
                self.id
            ))),
        }
    }
}

fn part(word: &str) -> Result<Held, Failure> {
    match word {
        "vcpus" => Ok(Held::Vcpus),
        "memory" => Ok(Held::Memory),
        "limits" => Ok(Held::Limits),
        _ => Err(Failure::from(Refusal::BadArgument {
            argument: "options[resource]".to_owned(),
            reason: format!("`{word}` is none of `vcpus`, `memory` and `limits`"),
        })),
    }
}

#[interface(name = "org.virtpersona1.Domain")]
impl Domain {
    /// Binds the domain to a persona (`NAME`, which follows its current version, or `NAME@VERSION`) and starts the
    /// activation, which goes on after the answer: see the property Activation. Needs `org.virtpersona1.activate`.
    ///
    /// Options: `dry_run` (b) changes nothing and answers what would change.
    /// The result has `domain`, `name`, `persona` (as ActivePersona), `activation` (as Activation) and `generation`. In
    /// a dry run it has `domain`, `name`, `persona`, `version`, `lines` (each with `subject`, `now`, `then`, `from`) and
    /// `obstacles` (sentences).
    #[zbus(out_args("result"))]
    async fn activate(
        &self,
        persona: String,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<Dict, Failure> {
        let mut options = Options::new(options);
        let mode = if options.flag("dry_run")? {
            Mode::DryRun
        } else {
            Mode::Apply
        };
        options.finish()?;
        let persona = PersonaRef::parse(&persona)?;
        let command = Command::Apply {
            domain: self.name_for_daemon(),
            persona: persona.clone(),
            mode,
        };
        let reply = match mode {
            // Nothing changes, so every local user may ask.
            Mode::DryRun => self.calls.ask(&call, command).await?,
            Mode::Apply => {
                let persona = Some(("persona", persona.name.as_str()));
                self.change(&call, Action::Activate, persona, command)
                    .await?
            }
        };
        match reply {
            Reply::Applied(applied) => Ok(to_dict(&applied)),
            Reply::Plan(plan) => Ok(to_dict(&plan)),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes the applied persona off; the domain falls back to what its tags mean, or to the default persona, and what rules
    /// have adjusted of it ends. Where none is applied it takes back the shift that a rule began, or else what rules have
    /// adjusted. Needs `org.virtpersona1.activate`. There are no options. The result is that of Activate.
    #[zbus(out_args("result"))]
    async fn deactivate(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<Dict, Failure> {
        Options::new(options).finish()?;
        let command = Command::Deactivate {
            domain: self.name_for_daemon(),
        };
        match self.change(&call, Action::Activate, None, command).await? {
            Reply::Applied(applied) => Ok(to_dict(&applied)),
            other => Err(unexpected(&other)),
        }
    }

    /// Adds and removes tags in the domain's metadata; answers the tags that it then has. To remove a tag that is not
    /// there is no error. Needs `org.virtpersona1.activate`, because a tag can mean a persona. There are no options.
    #[zbus(out_args("tags"))]
    async fn tag(
        &self,
        add: Vec<String>,
        remove: Vec<String>,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<Vec<String>, Failure> {
        Options::new(options).finish()?;
        let tags = add
            .iter()
            .map(|tag| format!("+{tag}"))
            .chain(remove.iter().map(|tag| format!("-{tag}")))
            .collect::<Vec<_>>()
            .join(" ");
        let tags = Some(("tags", tags.as_str()));
        let command = Command::Tag {
            domain: self.name_for_daemon(),
            add,
            remove,
        };
        match self.change(&call, Action::Activate, tags, command).await? {
            Reply::Tags(tags) => Ok(tags),
            other => Err(unexpected(&other)),
        }
    }

    /// Adds to the domain's definition what it lacks for live scaling, live where the hypervisor can. Needs
    /// `org.virtpersona1.adopt`.
    ///
    /// Options: `dry_run` (b) changes nothing and answers what would change; `max_vcpus` (u) and `max_memory` (t, bytes)
    /// say how far the domain may grow; `plan` (s) is that of an answer before, and no other is carried out; `undo` (b)
    /// puts the definition back as it was before it was adopted, and takes of the other options `dry_run` alone.
    /// The result has `domain`, `name`, `state` (`planned`, `done`, `unchanged`), `plan`, `lines` (each with `subject`,
    /// `now`, `then`, `when` (`already`, `now`, `next_start`, `never`), `why`) and `notes` (sentences).
    #[zbus(out_args("result"))]
    async fn adopt(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<Dict, Failure> {
        let mut options = Options::new(options);
        let mode = if options.flag("dry_run")? {
            Mode::DryRun
        } else {
            Mode::Apply
        };
        let domain = self.name_for_daemon();
        let undo = options.flag("undo")?;
        let command = if undo {
            Command::UndoAdoption { domain, mode }
        } else {
            Command::Adopt {
                domain,
                max_vcpus: options.number("max_vcpus")?,
                max_memory: options.number("max_memory")?.map(Bytes),
                plan: options.text("plan")?,
                mode,
            }
        };
        options.finish()?;
        // Nothing changes in a dry run, but that of an undo may tell lines of the definition.
        let reply = if mode == Mode::DryRun && !undo {
            self.calls.ask(&call, command).await?
        } else {
            self.change(&call, Action::Adopt, None, command).await?
        };
        match reply {
            Reply::Adoption(adoption) => Ok(to_dict(&*adoption)),
            other => Err(unexpected(&other)),
        }
    }

    /// Runs a command in the guest, through the table of the persona that is active there and as its owner allows. `argv`
    /// is the program, by name or absolute path, and its arguments; no shell is between. `environment` has variables over
    /// those of the persona. Needs `org.virtpersona1.execute`.
    ///
    /// Options: `user` (s) of the guest, `nobody` when absent; `directory` (s), `/` when absent; `timeout_ms` (t), a minute
    /// when absent, an hour at most. `lines` is a pipe with a JSON object on each line: `output` (`stream`, `off`, `b64`)
    /// while the command runs, and at last either `end` (`exit`, `signal`, `timed_out`, `duration_ms`, `program`,
    /// `overridden`, `truncated`, `lost_bytes`, `held_by`, `notes`) or `failed` (`by`, `code`, `message`), `by` being
    /// `persona`, `guest_owner`, `guest` or `channel`. Who closes it does not end the command.
    #[zbus(out_args("lines"))]
    async fn execute(
        &self,
        argv: Vec<String>,
        environment: HashMap<String, String>,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<OwnedFd, Failure> {
        let mut options = Options::new(options);
        let user = options.text("user")?.unwrap_or_else(|| "nobody".to_owned());
        let directory = options.text("directory")?.unwrap_or_else(|| "/".to_owned());
        let timeout = options.number("timeout_ms")?.unwrap_or(60_000);
        options.finish()?;
        let name = self.details_name();
        let program = argv.first().cloned().unwrap_or_default();
        let details = HashMap::from([
            ("domain", name.as_str()),
            ("user", user.as_str()),
            ("program", program.as_str()),
        ]);
        let execution = Box::new(Execution {
            argv,
            user: user.clone(),
            directory,
            timeout: Duration::from_millis(timeout),
            environment: environment.into_iter().collect(),
        });
        let command = Command::Execute {
            domain: self.name_for_daemon(),
            execution,
        };
        match self
            .calls
            .ask_if_allowed(&call, Action::Execute, details, command)
            .await?
        {
            Reply::Execution(lines) => match lines.open() {
                Ok(file) => Ok(std::os::fd::OwnedFd::from(file).into()),
                Err(error) => Err(Failure::from(Refusal::Failed {
                    operation: "handing over the output".to_owned(),
                    reason: error.to_string(),
                })),
            },
            other => Err(unexpected(&other)),
        }
    }

    /// Leaves vCPUs, memory and limits of the domain as they are for so many seconds, 1 to 2592000 (30 days), also over a
    /// restart of it. A later call replaces an earlier one. Needs `org.virtpersona1.approve`.
    ///
    /// Options: `resource` (s) is `vcpus`, `memory` or `limits`; all of them when absent. The result is what is held now, as Holds.
    #[zbus(out_args("holds"))]
    async fn hold(
        &self,
        seconds: u64,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<Vec<Dict>, Failure> {
        let mut options = Options::new(options);
        let word = options.text("resource")?;
        options.finish()?;
        let held = word.as_deref().map(|word| ("resource", word));
        let command = Command::Hold {
            domain: self.name_for_daemon(),
            resource: word.as_deref().map(part).transpose()?,
            length: Duration::from_secs(seconds),
        };
        match self.change(&call, Action::Approve, held, command).await? {
            Reply::Held(holds) => Ok(to_dicts(&holds)),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends every hold of the domain, also that after a change by hand, and forgets quarantine and waits after failed
    /// steps; says whether there was any. Needs `org.virtpersona1.approve`. There are no options.
    #[zbus(out_args("changed"))]
    async fn release(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<bool, Failure> {
        Options::new(options).finish()?;
        let command = Command::Release {
            domain: self.name_for_daemon(),
        };
        match self.change(&call, Action::Approve, None, command).await? {
            Reply::Done(change) => Ok(change == Change::Changed),
            other => Err(unexpected(&other)),
        }
    }

    /// Why the domain did or did not change in the latest tick: `domain`, `name`, `at`, `summary` (one sentence),
    /// `persona`, `problems` (sentences), `rules` (each with `name`, `text`, `line`, `origin` (`document`, `tag`),
    /// `truth`, `state`, `detail`, `wants` and `looked`, what it looked at: `comparison`, `truth`, `metric`, `value`,
    /// `missing` (why there is none), `unit`, `source`, `age_ms`, `held_ms`, `needs_ms`) and `resources` (each with
    /// `resource`, `had`, `wanted`, `clamps`, `granted`, `action`) and `limits` (each with `limit`, `present`, `original`,
    /// `wanted`, `by`, `sentence`, `action`).
    ///
    /// Options: `at` (t), milliseconds since 1970, asks for the decision that was in force then, as it was recorded;
    /// `problems` then says what is not recorded of that time.
    #[zbus(out_args("explanation"))]
    async fn explain(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<Dict, Failure> {
        let mut options = Options::new(options);
        let at = options.number("at")?.map(Moment);
        options.finish()?;
        let command = Command::Explain {
            domain: self.name_for_daemon(),
            at,
        };
        match self.calls.ask(&call, command).await? {
            Reply::Explain(explain) => Ok(to_dict(&*explain)),
            other => Err(unexpected(&other)),
        }
    }

    /// What was seen of the domain and done with it, as a file to read: the trace that `virt-persona simulate` plays. It
    /// begins up to ten minutes before what is asked for, where a replay can begin. Needs `org.virtpersona1.record`: it is
    /// a file of some MiB on the daemon's disk for as long as the caller has it open.
    ///
    /// Options: `since` (t) and `until` (t), milliseconds since 1970; all that is recorded where they are left out.
    #[zbus(out_args("trace"))]
    async fn recording(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<OwnedFd, Failure> {
        let mut options = Options::new(options);
        let since = options.number("since")?.map(Moment);
        let until = options.number("until")?.map(Moment);
        options.finish()?;
        let name = self.details_name();
        let details = HashMap::from([("domain", name.as_str())]);
        let command = Command::Recording {
            domain: self.name_for_daemon(),
            since,
            until,
        };
        match self
            .calls
            .ask_if_allowed(&call, Action::Record, details, command)
            .await?
        {
            Reply::Recording(trace) => match trace.open() {
                Ok(file) => Ok(std::os::fd::OwnedFd::from(file).into()),
                Err(error) => Err(Failure::from(Refusal::Failed {
                    operation: "handing over the recording".to_owned(),
                    reason: error.to_string(),
                })),
            },
            other => Err(unexpected(&other)),
        }
    }

    /// What is in force on the domain: its persona with all that is below and above it, as one document in YAML with the
    /// origin of each value as a comment, and the values in its order, each with `path`, `text` and `origin` (`document`,
    /// `line` and, of an override, `tag`). Secrets are not shown. There are no options.
    #[zbus(out_args("document", "values"))]
    async fn effective_persona(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<(String, Vec<Dict>), Failure> {
        Options::new(options).finish()?;
        let command = Command::Effective {
            domain: self.name_for_daemon(),
        };
        match self.calls.ask(&call, command).await? {
            Reply::Effective(effective) => {
                let values = to_dicts(&effective.values);
                Ok((effective.document, values))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// The whole domain at one moment: `id`, `name`, `instance`, `state`, `tags`, `persona` (as ActivePersona),
    /// `activation`, `vcpus`, `memory`, `agent` (with `last_seen_ms`), `last_decision`, `holds`, `limits`, `problems` as
    /// the properties, `readings` (each with `metric`, `value`, `unit`, `source`, `age_ms`), and `effects` as its persona
    /// has them. There are no options.
    #[zbus(out_args("status"))]
    async fn status(&self, options: HashMap<String, OwnedVariant>) -> Result<Dict, Failure> {
        Options::new(options).finish()?;
        let view = self.calls.view();
        let domain = view.domain_named(&self.name_for_daemon())?;
        Ok(to_dict(&view.status(domain)))
    }

    /// The UUID.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn uuid(&self) -> String {
        self.id.to_string()
    }

    /// The name.
    #[zbus(property)]
    async fn name(&self) -> fdo::Result<String> {
        self.read(|domain| domain.name.clone())
    }

    /// `running`, `paused`, `off` or `other`.
    #[zbus(property)]
    async fn state(&self) -> fdo::Result<String> {
        self.read(state)
    }

    /// The tags in the domain's metadata.
    #[zbus(property)]
    async fn tags(&self) -> fdo::Result<Vec<String>> {
        self.read(|domain| domain.tags.clone())
    }

    /// The persona that the domain is bound to: `name`, `version`, `digest`, `origin` (`applied`, `tag`, `default`,
    /// `shift`), `tag`, `rule` and `shifted_from` (the rule that gave it, and the `NAME@VERSION` that has the rule), `pinned`,
    /// `generation`, `bases` (what it builds on, `NAME@VERSION`, the lowest first), `overrides` (the tags whose overrides are
    /// laid over it, the lowest first); `digest` is of all of it. Empty when there is none.
    #[zbus(property)]
    async fn active_persona(&self) -> fdo::Result<Dict> {
        self.read(active_persona)
    }

    /// How far the persona has come in the guest: `state` (`none`, `pending`, `waiting_for_agent`, `sent`, `active`,
    /// `failed`, `deactivating`), `detail` (a sentence), `since`.
    #[zbus(property)]
    async fn activation(&self) -> fdo::Result<Dict> {
        self.read(|domain| to_dict(&domain.activation))
    }

    /// vCPUs: `persona_min`, `persona_max`, `domain_max`, `requested`, `plugged` (by the hypervisor), `guest` (online).
    #[zbus(property)]
    async fn vcpus(&self) -> fdo::Result<Dict> {
        self.read(|domain| to_dict(&domain.vcpus))
    }

    /// Memory in bytes: keys as of Vcpus, and `mechanism` (`virtio_mem`, `balloon`, `none`).
    #[zbus(property)]
    async fn memory(&self) -> fdo::Result<Dict> {
        self.read(|domain| to_dict(&domain.memory))
    }

    /// The agent in the guest: `state` (`no_channel`, `absent`, `connected`, `unresponsive`, `misbehaving`), `version`.
    #[zbus(property)]
    async fn agent(&self) -> fdo::Result<Dict> {
        self.read(agent)
    }

    /// The latest decision that changed the domain or tried to: `at`, `resource` (`vcpus`, `memory`), `rule`, `from`,
    /// `to`, `outcome` (`applied`, `partial`, `refused`, `unknown`), `text`. Empty when there was none.
    #[zbus(property)]
    async fn last_decision(&self) -> fdo::Result<Dict> {
        self.read(last_decision)
    }

    /// What is left as a person set it, or because it is stuck: `resource` (`vcpus`, `memory`, `limits`), `reason`, `until`.
    #[zbus(property)]
    async fn holds(&self) -> fdo::Result<Vec<Dict>> {
        self.read(|domain| to_dicts(&domain.holds))
    }

    /// Limits beside vCPUs and memory that are other than before, or than somebody wants: `limit` (`cpu_weight`, `cpu_cap`,
    /// `network_bandwidth`, `disk_iops`, `disk_bandwidth`), `present`, `original` (before the daemon first changed it),
    /// `wanted`, `by` (texts), `held_until`.
    #[zbus(property)]
    async fn limits(&self) -> fdo::Result<Vec<Dict>> {
        self.read(|domain| to_dicts(&domain.limits))
    }

    /// What waits for a person's word, or was approved and is not done yet: elements of Manager.Approvals without `why`,
    /// whose figures change all the time.
    #[zbus(property)]
    async fn proposals(&self) -> fdo::Result<Vec<Dict>> {
        self.read(proposals)
    }

    /// What is wrong, each a sentence.
    #[zbus(property)]
    async fn problems(&self) -> fdo::Result<Vec<String>> {
        self.read(|domain| domain.problems.clone())
    }
}
