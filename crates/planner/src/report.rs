//! Why: what every rule saw, what bound every decision, what was granted. Kept as values and numbers; sentences are
//! made when somebody asks (`explain`, the audit).

use std::fmt;
use std::time::Duration;

use persona::SharedText;
use persona::domain::DomainId;
use persona::rule::{Looked, Resource, Truth};
use persona::signal::Source;
use persona::units::{Bytes, Moment};
use serde::{Deserialize, Serialize};

use crate::limit::LimitReport;
use crate::relief::Need;
use crate::snapshot::{Ability, Host};
use crate::stage::Stage;

/// What one pass found for one domain.
#[must_use = "an unread report explains nothing"]
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DomainReport {
    /// Which domain.
    pub domain: DomainId,
    /// When.
    pub at: Moment,
    /// Why nothing was evaluated at all, when that is so.
    pub idle: Option<Idle>,
    /// One for each rule, in the order of the document.
    pub rules: Vec<RuleReport>,
    /// vCPUs and memory, as far as the persona manages them.
    pub resources: Vec<ResourceReport>,
    /// Knobs that somebody wants to be turned, or that are to be turned back.
    pub limits: Vec<LimitReport>,
}

/// Why a domain was not evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Idle {
    /// No persona is in force.
    NoPersona,
    /// It does not run.
    NotRunning,
    /// It is paused.
    Paused,
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPersona => {
                "no persona is in force; give it one with `virt-persona apply` or a mapped tag"
            }
            Self::NotRunning => "the domain does not run",
            Self::Paused => "the domain is paused, so nothing that it shows can be verified",
        })
    }
}

/// What one rule saw.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleReport {
    /// Name.
    pub name: SharedText,
    /// Line in the document.
    pub line: u32,
    /// The rule, as text.
    pub text: SharedText,
    /// What its condition was worth, with its window.
    pub truth: Truth,
    /// The least source whose readings count for it.
    pub demands: Option<Source>,
    /// What was looked at.
    pub looked: Vec<Looked>,
    /// How long its cooldown still holds it back.
    pub cooldown_left: Option<Duration>,
}

/// What became of one resource.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResourceReport {
    /// Which.
    pub resource: Resource,
    /// What was in force, in vCPUs or bytes.
    pub present: u64,
    /// What was wanted before any limit.
    pub wanted: Option<u64>,
    /// Who wanted it.
    pub by: Option<Wish>,
    /// The limits that changed what was wanted, in the order they were applied.
    pub clamps: Vec<Clamp>,
    /// What will be done, or why nothing is.
    pub verdict: Verdict,
}

/// Who wants a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// A rule that holds.
    Rule(String),
    /// A rule whose `until` holds: its effect is undone.
    Undo(String),
    /// The base configuration's `min`.
    Minimum,
    /// The base configuration's `max`.
    Maximum,
    /// The base configuration's `initial`.
    Initial,
    /// The guest, which is in need since memory was taken from it: it gets that back.
    Return,
    /// The guest itself, which is short of memory.
    Need,
    /// The host, for the domain of this name: what this one does not use is of more use there.
    Donation(String),
    /// The base configuration's one value of a knob.
    Base,
    /// Nobody any more, so what was there before the first change of ours comes back.
    Restore,
    /// Something in the guest brought CPUs back that it had taken offline.
    BackOnline,
    /// A user of the guest, in words: who says so is the guest.
    Guest(String),
    /// Somebody who wanted vCPUs to be removed, which cannot be done.
    Quota {
        /// Who.
        by: Box<Wish>,
        /// So many vCPUs stay.
        vcpus: u64,
        /// So many CPUs the domain shall have no more than.
        cpus: u64,
    },
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(name) => write!(f, "rule {name}"),
            Self::Undo(name) => write!(f, "the until of rule {name}"),
            Self::Minimum => f.write_str("the base configuration's min"),
            Self::Maximum => f.write_str("the base configuration's max"),
            Self::Initial => f.write_str("the base configuration's initial"),
            Self::Return => {
                f.write_str("the guest, which misses the memory that was taken from it")
            }
            Self::Need => f.write_str("the guest's own need"),
            Self::Base => f.write_str("the base configuration"),
            Self::Restore => f.write_str("what was there before"),
            Self::BackOnline => f.write_str(
                "the removal before, of which something in the guest brought CPUs back online",
            ),
            Self::Guest(user) => f.write_str(user),
            Self::Quota { by, vcpus, cpus } => {
                write!(f, "{by}: {}", instead(*vcpus, *cpus))
            }
            Self::Donation(domain) => {
                write!(
                    f,
                    "the need of domain {domain}, which holds less for its share"
                )
            }
        }
    }
}

/// That vCPUs stay, and what is done in place of their removal.
fn instead(vcpus: u64, cpus: u64) -> String {
    let cpus_text = if cpus == 1 { "CPU" } else { "CPUs" };
    format!("{vcpus} vCPUs stay plugged; the domain is capped at {cpus} {cpus_text} instead")
}

/// One limit that changed a wish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Clamp {
    /// Which limit.
    pub limit: Limit,
    /// Before.
    pub from: u64,
    /// After.
    pub to: u64,
}

/// The limits, in the order in which they are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// The persona's `min`.
    PersonaMinimum,
    /// The persona's `max`.
    PersonaMaximum,
    /// What the domain's definition, or its memory device, leaves at least.
    DomainMinimum,
    /// What the domain's definition, or its memory device, allows at most.
    DomainMaximum,
    /// One vCPU a step, verified before the next.
    OneVcpuAStep,
    /// A multiple of the boot memory.
    BootRatio,
    /// Page structs of the growth must fit into what the guest has free.
    PageStructs,
    /// Shrinking goes in small steps.
    ShrinkStep,
    /// Live use of the guest, with its margin.
    LiveUse,
    /// The persona's reservation.
    Reservation,
    /// The mechanism's granularity.
    Block,
    /// The domain's part of the host by its share, above which nobody grows on a host that is scarce.
    HostShare,
    /// The reservation, above which no memory grows on a host that is critical.
    HostReservation,
    /// What the host itself can spare.
    HostMemory,
    /// The host's budget, fairly shared.
    Budget,
    /// The weight that `priority_metrics` puts on the other resource.
    Priorities,
    /// What a person has approved.
    Approval,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PersonaMinimum => "the persona's min",
            Self::PersonaMaximum => "the persona's max",
            Self::DomainMinimum => "the least that the domain's definition leaves",
            Self::DomainMaximum => "the most that the domain's definition allows",
            Self::OneVcpuAStep => "one vCPU a step",
            Self::BootRatio => {
                "the largest multiple of the boot memory, which has to hold the kernel's tables"
            }
            Self::PageStructs => "the page structs that fit into the guest's free memory",
            Self::ShrinkStep => "the largest shrink step",
            Self::LiveUse => "the guest's live use with its margin",
            Self::Reservation => "the persona's reservation",
            Self::Block => "the memory device's block size",
            Self::HostShare => "the domain's share of a host that is scarce",
            Self::HostReservation => "the reservation, on a host that is critical",
            Self::HostMemory => "the memory that the host itself can spare",
            Self::Budget => "the domain's fair share of the host's budget",
            Self::Approval => "what was approved",
            Self::Priorities => "the priority_metrics, which put the other resource first",
        })
    }
}

/// What becomes of a wish.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nobody wants a change.
    Content,
    /// A step is taken to this amount.
    Step(u64),
    /// Nothing is done, and this is why.
    No(Reason),
}

/// Why a wish is not followed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Already at the limit.
    AtLimit(Limit),
    /// The rule's cooldown still runs.
    Cooldown(Duration),
    /// An earlier step is being carried out and verified.
    InFlight {
        /// Towards this amount.
        to: u64,
    },
    /// Somebody changed it by hand.
    Held {
        /// Respected for so long still.
        left: Duration,
    },
    /// Somebody wants it left alone.
    HeldFor {
        /// Who.
        by: String,
        /// For so long still.
        left: Duration,
    },
    /// The last steps did not take effect; the next try waits.
    Waiting {
        /// For so long still.
        left: Duration,
        /// Failures in a row.
        failures: u32,
    },
    /// The guest refused to become smaller.
    Vetoed {
        /// It is not asked again for so long still.
        left: Duration,
        /// What it said.
        reason: String,
    },
    /// The mechanism is stuck.
    Quarantined {
        /// Left alone for so long still.
        left: Duration,
    },
    /// The guest itself is in need of memory.
    Pressed(Need),
    /// The guest came into need after the last time that memory was taken from it.
    Spared {
        /// Nothing is taken for so long still.
        left: Duration,
    },
    /// The guest cannot bring a CPU that was plugged online.
    NeedsReboot,
    /// A cap stands for the removal of vCPUs.
    Capped {
        /// So many stay.
        vcpus: u64,
        /// So many CPUs the cap leaves.
        cpus: u64,
        /// Why they stay.
        why: Box<Reason>,
    },
    /// The cap that stood for the removal of vCPUs is taken away first.
    Uncapping,
    /// What was taken offline in the guest comes back each time.
    ComesBack {
        /// So often.
        times: u32,
    },
    /// There is no mechanism.
    Unable(Ability),
    /// What is left after the removal would trigger a growth rule.
    WouldGrowAgain {
        /// That rule.
        rule: String,
    },
    /// What is left after the removal cannot be judged, because a metric is unknown.
    CannotJudge,
    /// The host's budget is spent, fairly.
    Budget {
        /// The host's budget.
        budget: u64,
        /// What others hold of it, what is reserved for them included.
        others: u64,
    },
    /// Others give way for it, and have not done so yet.
    Awaiting {
        /// So much is on its way to it.
        amount: u64,
    },
    /// The host's budget is spent, and only a guest says that more is needed.
    GuestAlone {
        /// The host's budget.
        budget: u64,
        /// What others hold of it, what is reserved for them included.
        others: u64,
    },
    /// The host is so short that nobody grows beyond a limit.
    HostShort(Stage),
    /// The budget has room, but the host itself has no memory to spare.
    HostMemory {
        /// What the host has available.
        available: u64,
        /// What growth leaves it.
        kept: u64,
    },
    /// The change would be too small to be worth it.
    TooSmall {
        /// The least change.
        least: u64,
    },
    /// The persona does not trust itself with it.
    NotTrusted(persona::Level),
    /// The guest's word alone may not take what others want too.
    GuestClaim,
    /// It waits for a person.
    Proposed {
        /// The number of the proposal.
        id: u64,
        /// The level that asks for one.
        level: persona::Level,
    },
    /// A person does not want it.
    Rejected {
        /// The number of the proposal.
        id: u64,
    },
    /// It would have to wait for a person, and too much does already.
    TooManyProposals,
}

impl Reason {
    /// One sentence that a person can act on.
    pub fn sentence(&self, resource: Resource) -> String {
        let show = |amount: u64| amount_text(resource, amount);
        let seconds = |left: &Duration| left.as_secs_f64().ceil();
        match self {
            Self::AtLimit(limit) => format!("it is already at {limit}"),
            Self::Cooldown(left) => format!("the cooldown after the last change runs for another {} s", seconds(left)),
            Self::InFlight { to } => format!("a step to {} is being carried out and verified", show(*to)),
            Self::Held { left } => format!(
                "somebody changed it by hand, which is respected for another {} s",
                seconds(left)
            ),
            Self::HeldFor { by, left } => format!(
                "{by} wants it left alone for another {} s; `virt-persona release` ends that",
                seconds(left)
            ),
            Self::Waiting { left, failures } => {
                format!("the last {failures} steps did not take effect; the next try is in {} s", seconds(left))
            }
            Self::Vetoed { left, reason } => format!(
                "the guest refused it: {reason}; it is asked again in {} s",
                seconds(left)
            ),
            Self::Quarantined { left } => format!(
                "the mechanism is stuck and left alone for another {} s; `virt-persona doctor` says what is wrong",
                seconds(left)
            ),
            Self::NeedsReboot => {
                "the guest's kernel cannot bring a CPU that was plugged online, so none is added until the guest reboots".into()
            }
            Self::Pressed(need) => format!("the guest itself is in need of memory: {need}"),
            Self::Spared { left } => format!(
                "the guest was in need after memory was taken from it, so nothing is taken for another {} s",
                seconds(left)
            ),
            Self::Capped { vcpus, cpus, why } => {
                format!("{}: {}", instead(*vcpus, *cpus), why.sentence(resource))
            }
            Self::ComesBack { times } => format!(
                "something in the guest brought back online what was taken offline, {times} times, so it is left; `virt-persona doctor` says where to look"
            ),
            Self::Uncapping => "the cap that stood for removed vCPUs is taken away before any are added".into(),
            Self::Unable(Ability::NoHotplugVcpus) => {
                "the domain's definition has no hot-pluggable vCPUs; raise <vcpu> and set its current= to what it boots with".into()
            }
            Self::Unable(Ability::NoMemoryDevice) => {
                "the domain has neither a virtio-mem device nor a balloon; add one to its definition".into()
            }
            Self::Unable(Ability::NoGuestAgent) => {
                "no agent in the guest can bring CPUs online or take them offline; install virt-persona-agent there".into()
            }
            Self::Unable(Ability::NoHypervisor) => {
                "the hypervisor is not connected, so nothing can be changed or verified; `virt-persona doctor` says why".into()
            }
            Self::Unable(Ability::Both) => "the mechanism is there".into(),
            Self::WouldGrowAgain { rule } => format!("what would be left would make rule {rule} grow it again"),
            Self::CannotJudge => "what would be left cannot be judged, because a metric is unknown".into(),
            Self::Budget { budget, others } => format!(
                "the host's budget is {} and other domains hold {} of it, reservations included",
                show(*budget),
                show(*others)
            ),
            Self::Awaiting { amount } => format!(
                "{} is on its way from other domains, and is granted when host and guests show that it is free",
                show(*amount)
            ),
            Self::GuestAlone { budget, others } => format!(
                "the host's budget is {} and other domains hold {} of it, reservations included; only the guest itself claims the need, and a claim takes nothing from others",
                show(*budget),
                show(*others)
            ),
            Self::HostShort(Stage::Critical) if resource == Resource::Memory => {
                "the host is critical: memory grows up to reservations only".into()
            }
            Self::HostShort(stage) => format!("the host is {stage}: nobody grows above its share of the host"),
            Self::HostMemory { available, kept } => format!(
                "the host itself has {} available and keeps {} of it",
                show(*available),
                show(*kept)
            ),
            Self::TooSmall { least } => format!("the change would be smaller than {}", show(*least)),
            Self::NotTrusted(_) => {
                "the persona's trust level for resource_scaling is none, which forbids it".into()
            }
            Self::GuestClaim => {
                "only the guest itself claims the need, and other domains want what is left of the budget too".into()
            }
            Self::Proposed { id, level: persona::Level::Medium } => format!(
                "only the guest itself claims the need, and other domains want what is left of the budget too; it is proposed as {id}, and `virt-persona approve {id}` lets it be done"
            ),
            Self::Proposed { id, level } => format!(
                "the persona's trust level for resource_scaling is {level}; it is proposed as {id}, and `virt-persona approve {id}` lets it be done"
            ),
            Self::Rejected { id } => format!(
                "a person rejected it as {id}; it is proposed again when its cause was gone once and has come back"
            ),
            Self::TooManyProposals => {
                "it needs a person's word, and too many proposals wait for one already; `virt-persona approvals` lists them".into()
            }
        }
    }
}

/// An amount of a resource, for people.
pub fn amount_text(resource: Resource, amount: u64) -> String {
    match resource {
        Resource::Vcpus if amount == 1 => "1 vCPU".into(),
        Resource::Vcpus => format!("{amount} vCPUs"),
        Resource::Memory => Bytes(amount).to_string(),
    }
}

/// What the host had, what was held, and what was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HostReport {
    /// The budget.
    pub budget: Host,
    /// vCPUs held or on their way after this plan.
    pub vcpus_granted: u64,
    /// Bytes held or on their way after this plan.
    pub memory_granted: u64,
    /// How short the host is of CPUs. Wishes beyond the budget make it tight at least.
    pub vcpus_stage: Stage,
    /// How short the host is of memory.
    pub memory_stage: Stage,
}
