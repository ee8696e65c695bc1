//! Domains of the lab that run the test guest: their XML from the guest's template, their life, and what libvirt says of
//! them. They are undefined when their value ends.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::lab::Lab;
use super::outcome::{Failure, Outcome, ensure, eventually};
use super::services::PREFERENCE;
use super::witness::{GuestStatus, Witness};

/// The template; its head says how it is filled.
const TEMPLATE: &str = include_str!("../../guest/domain.xml.in");

/// Emulated on a busy host a guest takes half a minute and more.
const BOOTS: Duration = Duration::from_secs(180);

/// What a domain's definition allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// vCPUs to add, virtio-mem, the ports of agent and witness.
    Full,
    /// The same, and qemu-ga runs beside the agent, on a port of its own.
    Qga,
    /// As full, and qemu-ga is all that runs in the guest; there is no port for the agent.
    QgaAlone,
    /// As full, and the agent is not started in the guest.
    NoAgent,
    /// No maxMemory, NUMA cell and virtio-mem: memory by the balloon alone.
    Balloon,
    /// Nothing to grow: none of those, no vCPU to add, and no port of the agent.
    Fixed,
    /// As an installer leaves it: not even a controller for ports, so no witness either; the agent waits in the guest.
    Plain,
}

impl Variant {
    fn features(self) -> &'static [&'static str] {
        match self {
            Self::Full | Self::NoAgent => &[
                "numa",
                "serial-controller",
                "agent-port",
                "witness",
                "virtio-mem",
            ],
            Self::Qga => &[
                "numa",
                "serial-controller",
                "agent-port",
                "witness",
                "virtio-mem",
                "qga",
            ],
            Self::QgaAlone => &["numa", "serial-controller", "witness", "virtio-mem", "qga"],
            Self::Balloon => &["serial-controller", "agent-port", "witness"],
            Self::Fixed => &["serial-controller", "witness"],
            Self::Plain => &[],
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Full | Self::Balloon | Self::Plain => "",
            Self::Qga => "qga ",
            Self::QgaAlone => "noagent qga ",
            Self::NoAgent | Self::Fixed => "noagent ",
        }
    }
}

/// A domain before it is defined. Sizes in MiB.
#[derive(Clone, Debug)]
pub(crate) struct DomainSpec {
    /// Its name.
    pub(crate) name: String,
    /// What its definition allows.
    pub(crate) variant: Variant,
    /// vCPUs at start.
    pub(crate) vcpus: u32,
    /// vCPUs that it can have; as many as at start for [`Variant::Fixed`].
    pub(crate) max_vcpus: u32,
    /// Memory without the virtio-mem device.
    pub(crate) memory_mib: u64,
    /// The most that the virtio-mem device gives.
    pub(crate) virtio_mem_mib: u64,
    /// More words on the kernel's command line.
    pub(crate) command_line: String,
    /// Whether the agent's state is on a disk and so outlives a restart of the guest.
    pub(crate) state_disk: StateDisk,
    /// Its network.
    pub(crate) network: Network,
}

/// What network a domain has. The guest itself has no driver for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// None.
    None,
    /// In user mode, as a libvirtd without privileges has it: the emulator opens sockets for the guest.
    User,
}

/// Where the agent keeps its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StateDisk {
    /// In the guest's memory: every boot begins without.
    None,
    /// On an ext4 disk of the domain's own.
    Ext4,
}

impl DomainSpec {
    /// 1 of 4 vCPUs, 512 MiB and up to 1024 MiB more.
    pub(crate) fn new(name: &str, variant: Variant) -> Self {
        Self {
            name: name.to_owned(),
            variant,
            vcpus: 1,
            max_vcpus: match variant {
                Variant::Fixed | Variant::Plain => 1,
                _ => 4,
            },
            memory_mib: 512,
            virtio_mem_mib: 1024,
            command_line: String::new(),
            state_disk: StateDisk::None,
            network: Network::None,
        }
    }

    /// Defines it in the lab's libvirtd.
    pub(crate) fn define(self, lab: &Lab) -> Outcome<Domain> {
        let disk = match self.state_disk {
            StateDisk::None => None,
            StateDisk::Ext4 => Some(self.make_disk(lab)?),
        };
        let file = lab.directory().join(format!("{}.xml", self.name));
        fs::write(&file, self.xml(lab, disk.as_ref()))?;
        let domain = Domain {
            lab: lab.clone(),
            name: self.name,
        };
        lab.virsh(&["define", &file.display().to_string()])?;
        Ok(domain)
    }

    /// Defines it, starts it and waits until its guest is up.
    pub(crate) fn boot(self, lab: &Lab) -> Outcome<Domain> {
        let domain = self.define(lab)?;
        domain.start()?;
        domain.wait_until_up()?;
        Ok(domain)
    }

    fn xml(&self, lab: &Lab, disk: Option<&PathBuf>) -> String {
        let mut features = self.variant.features().to_vec();
        if disk.is_some() {
            features.push("disk");
        }
        if self.network == Network::User {
            features.push("user-network");
        }
        let guest = lab.guest();
        let values = [
            ("TYPE", guest.domain_type.clone()),
            ("NAME", self.name.clone()),
            ("UUID", uuid(&self.name)),
            ("VCPUS", self.vcpus.to_string()),
            ("MAX_VCPUS", self.max_vcpus.to_string()),
            ("LAST_VCPU", self.max_vcpus.saturating_sub(1).to_string()),
            ("MEMORY_MIB", self.memory_mib.to_string()),
            // A gibibyte more than the device needs, so that a test can attach memory by hand.
            (
                "MAX_MEMORY_MIB",
                (self.memory_mib + self.virtio_mem_mib + 1024).to_string(),
            ),
            ("VIRTIO_MEM_MIB", self.virtio_mem_mib.to_string()),
            ("GUEST", guest.directory.display().to_string()),
            (
                "CMDLINE",
                format!("{}{}", self.variant.words(), self.command_line),
            ),
            (
                "DISK",
                disk.map_or_else(String::new, |disk| disk.display().to_string()),
            ),
            ("CONSOLE", console(lab, &self.name).display().to_string()),
        ];
        let mut xml = String::new();
        for line in TEMPLATE.lines() {
            let Some(line) = wanted(line, &features) else {
                continue;
            };
            let filled = values.iter().fold(line.to_owned(), |line, (name, value)| {
                line.replace(&format!("@{name}@"), &escaped(value))
            });
            xml.push_str(&filled);
            xml.push('\n');
        }
        xml
    }

    fn make_disk(&self, lab: &Lab) -> Outcome<PathBuf> {
        const SIZE: u64 = 64 << 20;
        let path = lab.domain_files().join(format!("{}.img", self.name));
        fs::File::create(&path)?.set_len(SIZE)?;
        let status = Command::new("mkfs.ext4").arg("-q").arg(&path).status()?;
        ensure(status.success(), || {
            format!("mkfs.ext4 could not format {}", path.display())
        })?;
        // Its owner is the one of the directory, as whom QEMU runs.
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(lab.domain_files())?);
        std::os::unix::fs::chown(&path, Some(owner), None)?;
        Ok(path)
    }
}

/// A line without its mark if it has one that is wanted; none if it has another.
fn wanted<'line>(line: &'line str, features: &[&str]) -> Option<&'line str> {
    let marked = line
        .strip_suffix(" -->")
        .and_then(|l| l.rsplit_once("<!-- with "));
    match marked {
        None => Some(line),
        Some((rest, feature)) => features.contains(&feature).then_some(rest.trim_end()),
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('\'', "&apos;")
}

/// One made of the name, so that a domain that is defined again is the same one for the daemon. FNV-1a in two halves.
fn uuid(name: &str) -> String {
    let hash = |seed: u64| {
        name.bytes().fold(seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    };
    let (high, low) = (hash(0xcbf2_9ce4_8422_2325), hash(0x6c62_272e_07bb_0142));
    // Version 8, RFC 9562: made as its maker likes.
    format!(
        "{:08x}-{:04x}-8{:03x}-8{:03x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff
    )
}

fn console(lab: &Lab, name: &str) -> PathBuf {
    lab.domain_files().join(format!("{name}.console"))
}

/// A virtio-mem device as libvirt shows it, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryDevice {
    /// What the guest is asked to use of it.
    pub(crate) requested: u64,
    /// What the guest uses of it.
    pub(crate) current: u64,
}

/// A defined domain; it is stopped and undefined when this value ends.
#[derive(Debug)]
pub(crate) struct Domain {
    lab: Lab,
    name: String,
}

impl Domain {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its lab.
    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The same domain in another lab, once it has gone there; it is stopped and undefined there too.
    pub(crate) fn gone_to(&self, lab: &Lab) -> Self {
        Self {
            lab: lab.clone(),
            name: self.name.clone(),
        }
    }

    /// Migrates it to another lab while it runs.
    pub(crate) fn migrate(&self, to: &Lab, more: &[&str]) -> Outcome<()> {
        // The other libvirtd makes the socket through which the two emulators talk.
        let between = to.domain_files().join(format!("{}.migration", self.name));
        let (uri, between) = (to.uri(), format!("unix://{}", between.display()));
        let way = ["--live", &uri, "--migrateuri", &between];
        self.lab
            .virsh(&[&["migrate", &self.name], &way[..], more].concat())
            .map(drop)
    }

    /// Starts it.
    pub(crate) fn start(&self) -> Outcome<()> {
        self.virsh("start", &[])?;
        self.prefer();
        Ok(())
    }

    /// Pulls its plug.
    pub(crate) fn destroy(&self) -> Outcome<()> {
        self.virsh("destroy", &[]).map(drop)
    }

    /// Presses its reset button.
    pub(crate) fn reset(&self) -> Outcome<()> {
        self.virsh("reset", &[]).map(drop)
    }

    /// `virsh COMMAND NAME MORE...`
    pub(crate) fn virsh(&self, command: &str, more: &[&str]) -> Outcome<String> {
        self.lab
            .virsh(&[&[command, self.name.as_str()], more].concat())
    }

    /// The XML of what runs.
    pub(crate) fn live_xml(&self) -> Outcome<String> {
        self.virsh("dumpxml", &[])
    }

    /// vCPUs that libvirt counts as plugged now.
    pub(crate) fn live_vcpus(&self) -> Outcome<u32> {
        let text = self.virsh("vcpucount", &["--live", "--active"])?;
        text.trim()
            .parse()
            .map_err(|error| Failure::while_doing(format!("vcpucount says {text:?}"), error))
    }

    /// The virtio-mem device.
    pub(crate) fn memory_device(&self) -> Outcome<MemoryDevice> {
        let xml = self.live_xml()?;
        let device = xml
            .split_once("<memory model='virtio-mem'>")
            .and_then(|(_, rest)| rest.split_once("</memory>"))
            .map(|(device, _)| device)
            .ok_or_else(|| Failure::new(format!("{} has no virtio-mem device", self.name)))?;
        let kib = |element: &str| {
            between(device, &format!("<{element} unit='KiB'>"), "</")
                .and_then(|text| text.parse::<u64>().ok())
                .map(|kib| kib * 1024)
                .ok_or_else(|| Failure::new(format!("no <{element}> in the device: {device}")))
        };
        Ok(MemoryDevice {
            requested: kib("requested")?,
            current: kib("current")?,
        })
    }

    /// The balloon's size in bytes.
    pub(crate) fn balloon(&self) -> Outcome<u64> {
        let xml = self.live_xml()?;
        between(&xml, "<currentMemory unit='KiB'>", "</")
            .and_then(|text| text.parse::<u64>().ok())
            .map(|kib| kib * 1024)
            .ok_or_else(|| Failure::new("the live XML has no currentMemory"))
    }

    /// Gives it these tags and no others, as a person does it with `virsh metadata`; none removes the element.
    pub(crate) fn tag(&self, tags: &[&str]) -> Outcome<()> {
        let element = tag_element(tags);
        let change: &[&str] = if tags.is_empty() {
            &["--remove"]
        } else {
            &["--key", "virtpersona", "--set", &element]
        };
        let whole = [&["--uri", TAGS_URI, "--live", "--config"], change].concat();
        self.virsh("metadata", &whole).map(drop)
    }

    /// What the daemon shows of it.
    pub(crate) fn status(&self) -> Outcome<virt_persona::view::DomainView> {
        self.lab.status(&self.name)
    }

    /// Asks its guest.
    pub(crate) fn witness(&self) -> Witness<'_> {
        Witness::new(self)
    }

    /// What the guest's console has shown since the domain was started first.
    pub(crate) fn console(&self) -> String {
        let text = fs::read(console(&self.lab, &self.name)).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The process of its QEMU, for signals.
    pub(crate) fn qemu_pid(&self) -> Outcome<u32> {
        let file = self
            .lab
            .directory()
            .join(format!("r/libvirt/qemu/run/{}.pid", self.name));
        let text = fs::read_to_string(&file)
            .map_err(|error| Failure::while_doing(file.display(), error))?;
        text.trim()
            .parse()
            .map_err(|_| Failure::new(format!("{} names no process", file.display())))
    }

    /// Its QEMU has a session of its own, and between sessions its nice value counts for nothing where the kernel groups
    /// by session: sched(7), "The autogroup feature".
    fn prefer(&self) {
        if let Ok(pid) = self.qemu_pid() {
            // Without that feature there is no such file.
            let _ = fs::write(format!("/proc/{pid}/autogroup"), PREFERENCE);
        }
    }

    /// Waits until the guest's witness answers.
    pub(crate) fn wait_until_up(&self) -> Outcome<GuestStatus> {
        let witness = self.witness();
        eventually(format!("the guest of {} is up", self.name), BOOTS, || {
            witness.status()
        })
        .map_err(|failure| Failure::new(format!("{failure}\n--- its console\n{}", self.console())))
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // It may have been stopped or undefined by a test, and the lab's end takes it anyway.
        let _ = self.destroy();
        let _ = self.virsh("undefine", &[]);
    }
}

const TAGS_URI: &str = "https://virtpersona.org/xmlns/domain/1";

/// The element of a domain's metadata that holds its tags.
fn tag_element(tags: &[&str]) -> String {
    let tags: String = tags
        .iter()
        .map(|tag| format!("<tag>{}</tag>", escaped(tag)))
        .collect();
    format!("<instance>{tags}</instance>")
}

/// The text between two marks.
fn between<'text>(text: &'text str, begin: &str, end: &str) -> Option<&'text str> {
    Some(text.split_once(begin)?.1.split_once(end)?.0)
}
