//! What a domain's definition lacks for live scaling, and the definition with it. Pure: takes definitions as text and
//! facts of the host, gives a plan; reading and writing definitions is for `hypervisor`, asking and carrying out for
//! `daemon::adopt`.
//!
//! ```text
//! prepare  definitions + wish + host -> Adoption: a line for each part, the new definition, what is added live
//!   machine   what the machine type, the CPU and the backing of its memory allow
//!   vcpus  memory  devices   one part each: is it there, can it be added, and how
//! undo     the definitions before, after and now -> the one to put back, or what somebody changed since
//! ```
//!
//! Nothing that a definition has is taken away or made smaller, and what a person has turned off stays off.

mod devices;
mod machine;
mod memory;
mod undo;
mod vcpus;

#[cfg(test)]
mod tests;

use persona::units::Bytes;

pub use memory::{SLOTS, room_for_memory};
pub use undo::{Refused, is_as_left, put_back};

use self::machine::Machine;
use crate::hypervisor::edit::Edits;
use crate::hypervisor::tree;
use crate::hypervisor::{Acceleration, Definition, Definitions, HostFacts};

/// A domain may grow to so many times what it boots with, where nobody says another number. Beyond that the guest's
/// bookkeeping of memory that is not plugged yet weighs too much on what it boots with.
pub const DEFAULT_GROWTH: u32 = 4;

/// What a person wants of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdoptWish {
    /// vCPUs at most.
    pub max_vcpus: Option<u32>,
    /// Memory at most, boot memory included.
    pub max_memory: Option<Bytes>,
}

/// What the host has to do with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its size, and the versions of library and emulator.
    pub facts: HostFacts,
    /// Physical addresses of its CPU, in bits, where they are known.
    pub address_bits: Option<u8>,
    /// Its transparent huge pages: no device plugs in smaller blocks.
    pub huge_page: Option<Bytes>,
    /// The size of its reserved huge pages where a definition does not name one.
    pub reserved_page: Option<Bytes>,
}

/// When a part of an adoption takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It is there.
    Already,
    /// At once, and at each start.
    Now,
    /// At the next start of the domain, which a reboot inside it is not.
    NextStart,
    /// Never by this: it cannot or shall not be.
    Never,
}

/// One part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it is about.
    pub subject: &'static str,
    /// What the definition has.
    pub now: String,
    /// What it has then.
    pub then: String,
    /// When.
    pub when: When,
    /// What it is for, or why it cannot be, as a sentence.
    pub why: String,
}

/// Something that the running domain gets at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiveStep {
    /// A device.
    Attach {
        /// What it is, for people.
        what: &'static str,
        /// libvirt's element.
        device: String,
    },
    /// The balloon's statistics, with this period in seconds.
    BalloonPeriod(u64),
}

/// What an adoption comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// Each part.
    pub lines: Vec<Line>,
    /// The persistent definition with all that it lacks; absent where it lacks nothing that can be added.
    pub definition: Option<String>,
    /// What the running domain gets.
    pub live: Vec<LiveStep>,
}

impl Adoption {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.definition.is_none() && self.live.is_empty()
    }
}

/// Why a domain cannot be adopted at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// It ends with its run.
    #[error(
        "the domain is transient: it has no persistent definition that could be prepared; define it first (`virsh dumpxml --inactive DOMAIN`, `virsh define`)"
    )]
    Transient,
    /// Another architecture.
    #[error(
        "the domain's architecture is {arch}; only x86_64 machines can be prepared, because others add vCPUs and memory in other ways"
    )]
    Architecture {
        /// Which.
        arch: String,
    },
    /// No virtual machine of QEMU.
    #[error(
        "the domain is of type `{kind}`; only those that QEMU runs (kvm, qemu) can be prepared"
    )]
    Kind {
        /// Which.
        kind: String,
    },
    /// A machine type that cannot be changed while it runs.
    #[error(
        "the machine type `{machine}` has no hot-plug of vCPUs or memory; q35 and i440fx have it"
    )]
    MachineType {
        /// Which.
        machine: String,
    },
    /// The definition is not what libvirt writes.
    #[error("the definition cannot be read: {problem}")]
    Unreadable {
        /// Why.
        problem: String,
    },
}

/// What the domain lacks, and its definition with that.
///
/// # Errors
/// Where nothing at all can be done for it.
pub fn prepare(
    definitions: &Definitions,
    wish: AdoptWish,
    host: &Host,
) -> Result<Adoption, AdoptError> {
    let persistent = definitions
        .persistent
        .as_ref()
        .ok_or(AdoptError::Transient)?;
    let unreadable = |problem| AdoptError::Unreadable { problem };
    let root = tree::parse(&persistent.text).map_err(unreadable)?;
    let machine = Machine::of(&root, &persistent.description)?;
    let live = definitions
        .live
        .as_ref()
        .map(|live| Ok((live, tree::parse(&live.text)?)))
        .transpose()
        .map_err(unreadable)?;
    let live = live.as_ref().map(|(definition, root)| Running {
        definition,
        machine: Machine {
            root,
            description: &definition.description,
        },
    });
    let mut work = Work {
        machine,
        live,
        host,
        edits: Edits::of(&persistent.text),
        lines: Vec::new(),
        steps: Vec::new(),
    };
    let vcpus = vcpus::prepare(&mut work, wish.max_vcpus);
    memory::prepare(&mut work, wish.max_memory, vcpus);
    devices::channel(&mut work);
    devices::balloon(&mut work);
    let definition = (!work.edits.is_empty()).then(|| work.edits.apply());
    Ok(Adoption {
        lines: work.lines,
        definition,
        live: work.steps,
    })
}

/// The running domain.
struct Running<'a> {
    definition: &'a Definition,
    machine: Machine<'a>,
}

/// A plan in the making.
struct Work<'a> {
    /// The persistent definition.
    machine: Machine<'a>,
    live: Option<Running<'a>>,
    host: &'a Host,
    edits: Edits<'a>,
    lines: Vec<Line>,
    steps: Vec<LiveStep>,
}

impl Work<'_> {
    fn line(&mut self, subject: &'static str, now: String, then: String, when: When, why: &str) {
        self.lines.push(Line {
            subject,
            now,
            then,
            when,
            why: why.to_owned(),
        });
    }

    /// A part that is as it should be; the running domain may still be without it.
    fn is_there(&mut self, subject: &'static str, now: String, why: &str, running: bool) {
        let lacks = self.live.is_some() && !running;
        let (when, why) = if lacks {
            (
                When::NextStart,
                "the definition has it; the running domain was started without it",
            )
        } else {
            (When::Already, why)
        };
        self.line(subject, now.clone(), now, when, why);
    }

    /// A part that cannot be added.
    fn cannot(&mut self, subject: &'static str, now: String, why: &str) {
        self.line(subject, now.clone(), now, When::Never, why);
    }

    /// Bits of physical address that the guest has.
    fn address_bits(&self) -> u8 {
        let description = self.machine.description;
        description
            .address_bits
            .on(description.acceleration, self.host.address_bits)
    }

    fn is_hardware(&self) -> bool {
        self.machine.description.acceleration == Acceleration::Kvm
    }
}
