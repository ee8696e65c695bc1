//! The definitions of a simulated domain as text: written from what it is, read back when somebody replaces them, and
//! devices that are added while it runs. As much of libvirt's XML as says what a scenario says.

use std::path::PathBuf;

use persona::units::Bytes;

use super::super::tree;
use super::super::{
    Acceleration, Definition, Definitions, DomainDescription, HypervisorEvent, Lifecycle, RunState,
    VirtioMem,
};
use super::machine::{Machine, Outcome};
use super::scenario::{Balloon, Device};

impl Machine {
    /// Both definitions.
    pub(super) fn definitions(&self) -> Result<Definitions, String> {
        let persistent = Definition::read(self.persistent())?;
        let live = match self.description.state {
            RunState::Off => None,
            _ => Some(Definition::read(render(&self.description))?),
        };
        Ok(Definitions {
            persistent: Some(persistent),
            live,
        })
    }

    fn persistent(&self) -> String {
        self.definition
            .clone()
            .unwrap_or_else(|| render(&self.at_next_start()))
    }

    /// Replaces the persistent definition; a domain that does not run is at once what it says.
    pub(super) fn redefine(&mut self, from: &str, to: &str) -> (Outcome, Vec<HypervisorEvent>) {
        if self.persistent() != from {
            return (Outcome::DefinitionChanged, Vec::new());
        }
        let says = match Definition::read(to.to_owned()) {
            Ok(definition) => definition.description,
            Err(problem) => return (Outcome::Refused(problem), Vec::new()),
        };
        let scenario = &mut self.scenario;
        scenario.vcpus = says.vcpus_plugged;
        scenario.vcpus_fixed = says.vcpus_fixed;
        scenario.vcpus_maximum = says.vcpus_maximum;
        scenario.memory_mib = says.memory_boot.as_mib();
        scenario.memory_maximum_mib = says.memory_maximum.map(Bytes::as_mib);
        scenario.numa_nodes = says.numa_nodes;
        scenario.virtio_serial = says.virtio_serial;
        scenario.balloon = match (says.balloon_current, says.balloon_period) {
            (None, _) => Balloon::None,
            (Some(_), None) => Balloon::Silent,
            (Some(_), Some(_)) => Balloon::Statistics,
        };
        scenario.agent_channel = channel(to, scenario.agent_channel.take());
        scenario.virtio_mem = says
            .virtio_mem
            .iter()
            .enumerate()
            .map(|(index, device)| Device {
                alias: alias(device, index),
                node: device.node,
                size_mib: device.size.as_mib(),
                block_mib: device.block.as_mib(),
            })
            .collect();
        self.definition = Some(to.to_owned());
        if self.description.state == RunState::Off {
            self.description = self.at_next_start();
        }
        let told = HypervisorEvent::Lifecycle {
            domain: self.description.id,
            change: Lifecycle::Defined,
        };
        (Outcome::Done, vec![told])
    }

    /// Gives the running domain a device.
    pub(super) fn attach(&mut self, device: &str) -> (Outcome, Vec<HypervisorEvent>) {
        let refused = |words: &str| (Outcome::Refused(words.to_owned()), Vec::new());
        if self.description.state == RunState::Off {
            return refused("Requested operation is not valid: domain is not running");
        }
        let element = match tree::parse(device) {
            Ok(element) => element,
            Err(problem) => return refused(&problem),
        };
        match element.name.as_str() {
            "channel" if !self.description.virtio_serial => {
                refused("no virtio-serial controllers are available")
            }
            "channel" => {
                self.description.agent_channel = channel(device, None);
                (Outcome::Done, Vec::new())
            }
            "memory" if self.description.numa_nodes == 0 => {
                refused("can't add memory backend as guest has no NUMA nodes configured")
            }
            "memory" => {
                let wrapped =
                    render(&self.description).replace("</devices>", &format!("{device}</devices>"));
                let Ok(says) = Definition::read(wrapped) else {
                    return refused("the device cannot be read");
                };
                let devices = says.description.virtio_mem;
                let index = self.description.virtio_mem.len();
                if let Some(new) = devices.into_iter().next_back() {
                    self.description.virtio_mem.push(VirtioMem {
                        alias: alias(&new, index),
                        ..new
                    });
                }
                (Outcome::Done, Vec::new())
            }
            _ => refused("this device cannot be added here"),
        }
    }
}

fn alias(device: &VirtioMem, index: usize) -> String {
    if device.alias.is_empty() {
        format!("virtiomem{index}")
    } else {
        device.alias.clone()
    }
}

/// The socket of the agent's channel where the text has such a channel: the one that it had, or one on which nobody
/// answers.
fn channel(text: &str, had: Option<PathBuf>) -> Option<PathBuf> {
    let there = text.contains("org.virtpersona.agent.0");
    there.then(|| had.unwrap_or_else(|| "/nonexistent/org.virtpersona.agent.0".into()))
}

/// A domain as libvirt would write it.
fn render(domain: &DomainDescription) -> String {
    let kind = match domain.acceleration {
        Acceleration::Kvm => "kvm",
        Acceleration::Emulated => "qemu",
    };
    let plugged: Bytes = Bytes(domain.virtio_mem.iter().map(|device| device.size.0).sum());
    let mut lines = vec![
        format!("<domain type='{kind}'>"),
        format!(
            "  <name>{}</name>",
            quick_xml::escape::escape(domain.name.as_str())
        ),
        format!("  <uuid>{}</uuid>", domain.id),
    ];
    if let Some(most) = domain.memory_maximum {
        lines.push(format!(
            "  <maxMemory slots='8' unit='KiB'>{}</maxMemory>",
            most.as_kib()
        ));
    }
    lines.extend([
        format!(
            "  <memory unit='KiB'>{}</memory>",
            domain.memory_boot.saturating_add(plugged).as_kib()
        ),
        format!(
            "  <currentMemory unit='KiB'>{}</currentMemory>",
            domain.memory_boot.as_kib()
        ),
        format!(
            "  <vcpu placement='static' current='{}'>{}</vcpu>",
            domain.vcpus_plugged, domain.vcpus_maximum
        ),
        "  <os>".into(),
        "    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>".into(),
        "  </os>".into(),
        "  <features>".into(),
        "    <acpi/>".into(),
        "  </features>".into(),
        "  <cpu mode='host-model'>".into(),
    ]);
    if domain.numa_nodes > 0 {
        lines.push("    <numa>".into());
        for cell in 0..domain.numa_nodes {
            lines.push(format!(
                "      <cell id='{cell}' memory='{}' unit='KiB'/>",
                domain.memory_boot.as_kib() / u64::from(domain.numa_nodes)
            ));
        }
        lines.push("    </numa>".into());
    }
    lines.extend(["  </cpu>".to_owned(), "  <devices>".to_owned()]);
    if domain.virtio_serial {
        lines.push("    <controller type='virtio-serial' index='0'/>".into());
    }
    if domain.agent_channel.is_some() {
        lines.push(
            "    <channel type='unix'><target type='virtio' name='org.virtpersona.agent.0'/></channel>"
                .into(),
        );
    }
    lines.push(match (domain.balloon_current, domain.balloon_period) {
        (None, _) => "    <memballoon model='none'/>".into(),
        (Some(_), None) => "    <memballoon model='virtio'/>".into(),
        (Some(_), Some(period)) => format!(
            "    <memballoon model='virtio'>\n      <stats period='{}'/>\n    </memballoon>",
            period.as_secs()
        ),
    });
    for device in &domain.virtio_mem {
        lines.push(format!(
            "    <memory model='virtio-mem'>\n      <target>\n        <size unit='KiB'>{}</size>\n        <node>{}</node>\n        <block unit='KiB'>{}</block>\n        <requested unit='KiB'>{}</requested>\n      </target>\n    </memory>",
            device.size.as_kib(),
            device.node,
            device.block.as_kib(),
            device.requested.as_kib()
        ));
    }
    lines.extend(["  </devices>".to_owned(), "</domain>\n".to_owned()]);
    lines.join("\n")
}
