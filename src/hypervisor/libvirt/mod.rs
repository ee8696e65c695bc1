//! libvirt as a hypervisor. Calls go through the queue on threads of their own; events, the connection and libvirt's
//! XML have modules of their own. Only this folder names `virt`, `virt::sys` and `qapi`.

mod connection;
mod definition;
mod events;
mod ffi;
mod process;
mod qmp;
mod stats;
mod tune;
mod xml;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use persona::domain::DomainId;
use persona::rule::{Knob, KnobValue};
use persona::units::Bytes;
use tracing::{info, warn};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt::sys;

use self::connection::{Connection, Lease};
use self::stats::{FIGURES, stats};
use super::queue::{Call, Queue};
use super::{
    Answer, Arrival, Definition, Definitions, DomainDescription, DomainStats, Events, HostFacts,
    HotpluggableVcpu, Hypervisor, HypervisorError, LibraryError, Limits, MetadataElement, RunState,
};

/// For what libvirtd answers from its own memory, in less than a millisecond. It is late only when libvirtd itself is.
const READ: Duration = Duration::from_secs(5);
/// All domains in one call: the same for a thousand domains on a busy host.
const LIST: Duration = Duration::from_secs(10);
/// Below the 5 s in which the next statistics are due.
const STATS: Duration = Duration::from_secs(3);
/// libvirt itself waits 5 s for the guest to let a vCPU go, so its own answer comes before this.
const SET_VCPUS: Duration = Duration::from_secs(10);
/// Requests that the monitor takes in 20 to 70 ms; the guest follows later.
const REQUEST: Duration = Duration::from_secs(5);

/// Statistics of a domain whose monitor hangs block the call that met it first, and libvirt passes over that domain in
/// the calls after it. So statistics go on as long as one of these lanes is free.
const STATS_LANES: u8 = 4;

/// Whose calls wait for each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Lane {
    Host,
    Stats(u8),
    /// What only libvirtd answers.
    Read(DomainId),
    /// What goes to the domain's monitor.
    Change(DomainId),
    /// What goes to the guest's own agent, which may not answer while the monitor does.
    Guest(DomainId),
}

/// The hypervisor behind a libvirt URI.
pub struct Libvirt {
    uri: String,
    connection: Arc<Connection>,
    queue: Queue<Lane>,
    /// The instance of each domain that a monitor command has marked as tainted.
    tainted: Arc<Mutex<HashMap<DomainId, u32>>>,
}

/// Connects to `uri` (`qemu:///system`, `qemu:///session`, `test:///default`). It returns at once and never fails:
/// `Connected`, or first `Disconnected` with the reason, arrives as an event, and attempts go on until it is dropped.
pub fn open(uri: &str) -> (Arc<Libvirt>, Events) {
    let (sender, events) = tokio::sync::mpsc::unbounded_channel();
    let libvirt = Libvirt {
        uri: uri.to_owned(),
        connection: Connection::open(uri, sender),
        queue: Queue::new(),
        tainted: Arc::default(),
    };
    (Arc::new(libvirt), events)
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        self.connection.stop();
    }
}

/// One call under way, on its own thread: where its errors get their words.
struct Working {
    operation: &'static str,
    domain: String,
    connect: Lease,
    begun: Instant,
}

impl Working {
    fn failed(&self, error: &Error) -> HypervisorError {
        let operation = self.operation;
        let domain = self.domain.clone();
        let code = error.code().to_raw();
        if code == sys::VIR_ERR_NO_DOMAIN {
            return HypervisorError::NoDomain { domain };
        }
        let source = library_error(error);
        if !self.connect.is_alive().unwrap_or(false) {
            return HypervisorError::Lost {
                operation,
                domain,
                source,
            };
        }
        if code == sys::VIR_ERR_OPERATION_TIMEOUT {
            info!(operation, domain, error = %source, "libvirt itself gave up waiting");
            return HypervisorError::TimedOut {
                operation,
                domain,
                seconds: self.begun.elapsed().as_secs(),
            };
        }
        HypervisorError::Failed {
            operation,
            domain,
            source,
        }
    }

    /// A refusal that does not come from the library.
    fn refused(&self, message: String) -> HypervisorError {
        HypervisorError::Failed {
            operation: self.operation,
            domain: self.domain.clone(),
            source: LibraryError {
                message,
                code: None,
            },
        }
    }

    fn unreadable(&self, detail: impl ToString) -> HypervisorError {
        HypervisorError::BadAnswer {
            operation: self.operation,
            domain: self.domain.clone(),
            detail: detail.to_string(),
        }
    }

    fn find(&self, id: DomainId) -> Result<Domain, HypervisorError> {
        look_up(&self.connect, id).map_err(|error| self.failed(&error))
    }

    /// A domain, and what limits it by its definition in force.
    fn limits(&self, id: DomainId) -> Result<(Domain, Limits), HypervisorError> {
        let found = self.find(id)?;
        let (xml, state, _) = raw(&found).map_err(|error| self.failed(&error))?;
        let read = xml::read_domain(&xml, state).map_err(|problem| self.unreadable(problem))?;
        let mut limits = read.description.limits;
        limits.cpu.scale = tune::weight_scale();
        Ok((found, limits))
    }
}

/// The library's words without its types.
fn library_error(error: &Error) -> LibraryError {
    LibraryError {
        message: error.message().to_owned(),
        code: Some(error.code().to_raw()),
    }
}

fn look_up(connect: &Connect, id: DomainId) -> Result<Domain, Error> {
    connect.lookup_domain_by_uuid_string(&id.to_string())
}

/// Reads one domain; for a caller that is on a thread of its own already.
fn read(connect: &Connect, id: DomainId) -> Result<xml::Read, String> {
    let (xml, state, _) = look_up(connect, id)
        .and_then(|domain| raw(&domain))
        .map_err(|error| error.message().to_owned())?;
    xml::read_domain(&xml, state)
}

/// The definition in force and the state. Neither call asks the emulator.
fn raw(domain: &Domain) -> Result<(String, RunState, Arrival), Error> {
    let (state, reason) = ffi::domain_state(domain)?;
    let arrival = match (state, reason) {
        (sys::VIR_DOMAIN_RUNNING, sys::VIR_DOMAIN_RUNNING_MIGRATED) => Arrival::Migrated,
        (
            sys::VIR_DOMAIN_RUNNING,
            sys::VIR_DOMAIN_RUNNING_RESTORED | sys::VIR_DOMAIN_RUNNING_FROM_SNAPSHOT,
        ) => Arrival::Restored,
        _ => Arrival::Started,
    };
    let state = match state {
        sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED => RunState::Running,
        sys::VIR_DOMAIN_PAUSED | sys::VIR_DOMAIN_PMSUSPENDED => RunState::Paused,
        sys::VIR_DOMAIN_SHUTOFF => RunState::Off,
        // The guest has shut down, and the emulator is about to end.
        sys::VIR_DOMAIN_SHUTDOWN => RunState::Off,
        _ => RunState::Other,
    };
    Ok((domain.xml_desc(0)?, state, arrival))
}

fn describe_one(
    connection: &Connection,
    processes: Option<&Path>,
    (xml, state, arrival): (&str, RunState, Arrival),
) -> Result<DomainDescription, String> {
    let read = xml::read_domain(xml, state)?;
    connection.memory.learn(&read);
    let mut description = read.description;
    description.arrival = arrival;
    description.limits.cpu.scale = tune::weight_scale();
    description.process = processes
        .filter(|_| description.instance.is_some())
        .and_then(|directory| process::find(directory, &description.name, description.id));
    Ok(description)
}

/// Says once a run of a domain that it is about to be marked by libvirt.
fn announce_taint(tainted: &Mutex<HashMap<DomainId, u32>>, id: DomainId, domain: &Domain) {
    // A domain that does not run is marked by nothing.
    let Some(instance) = domain.id() else { return };
    let mut tainted = tainted.lock().unwrap_or_else(PoisonError::into_inner);
    if tainted.insert(id, instance) != Some(instance) {
        info!(
            domain = %id,
            "asking the emulator about its vCPUs; libvirt marks the domain as tainted (custom-monitor)"
        );
    }
}

/// libvirt's version numbers: a million for the first part, a thousand for the second.
fn version(number: u32) -> String {
    format!(
        "{}.{}.{}",
        number / 1_000_000,
        number / 1000 % 1000,
        number % 1000
    )
}

impl Libvirt {
    /// Runs `work` on a thread of its own when its lane is free.
    async fn call<T: Send + 'static>(
        &self,
        lane: Lane,
        operation: &'static str,
        deadline: Duration,
        work: impl FnOnce(&Working) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let domain = match &lane {
            Lane::Host | Lane::Stats(_) => "-".to_owned(),
            Lane::Read(id) | Lane::Change(id) | Lane::Guest(id) => id.to_string(),
        };
        let call = Call {
            operation,
            domain: domain.clone(),
            deadline,
        };
        // Taken when the call begins and not when it is queued: the connection may be another by then.
        let connection = self.connection.clone();
        let run = move || {
            let working = Working {
                operation,
                domain,
                connect: connection.lease(operation)?,
                begun: Instant::now(),
            };
            work(&working)
        };
        self.queue.run(lane, call, run).await
    }

    /// A request to a running domain.
    async fn change(
        &self,
        id: DomainId,
        operation: &'static str,
        deadline: Duration,
        work: impl FnOnce(&Domain) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), HypervisorError> {
        self.call(Lane::Change(id), operation, deadline, move |working| {
            let domain = working.find(id)?;
            work(&domain).map_err(|error| working.failed(&error))
        })
        .await
    }

    fn stats_lane(&self) -> Lane {
        let free = (0..STATS_LANES)
            .map(Lane::Stats)
            .find(|lane| !self.queue.is_overdue(lane));
        free.unwrap_or(Lane::Stats(0))
    }
}

impl Hypervisor for Libvirt {
    fn host(&self) -> Answer<'_, HostFacts> {
        Box::pin(self.call(Lane::Host, "host", READ, |working| {
            let connect = &working.connect;
            let facts = || {
                let node = connect.node_info()?;
                Ok(HostFacts {
                    cores: node.cpus,
                    memory: Bytes::from_kib(node.memory),
                    library_version: version(connect.lib_version()?),
                    emulator_version: version(connect.hyp_version()?),
                })
            };
            facts().map_err(|error| working.failed(&error))
        }))
    }

    /// A domain that ends while the list is made is left out, and so is one whose XML cannot be read (with a warning).
    fn domains(&self) -> Answer<'_, Vec<DomainDescription>> {
        let connection = self.connection.clone();
        let processes = process::directory(&self.uri);
        Box::pin(self.call(Lane::Host, "domains", LIST, move |working| {
            let domains = working
                .connect
                .list_all_domains(0)
                .map_err(|error| working.failed(&error))?;
            let mut found = Vec::with_capacity(domains.len());
            for domain in &domains {
                let (xml, state, arrival) = match raw(domain) {
                    Ok(raw) => raw,
                    Err(error) if error.code().to_raw() == sys::VIR_ERR_NO_DOMAIN => continue,
                    Err(error) => return Err(working.failed(&error)),
                };
                match describe_one(&connection, processes.as_deref(), (&xml, state, arrival)) {
                    Ok(description) => found.push(description),
                    Err(problem) => {
                        let name = domain.name().unwrap_or_default();
                        warn!(domain = name, problem, "its definition cannot be read");
                    }
                }
            }
            Ok(found)
        }))
    }

    fn describe(&self, domain: DomainId) -> Answer<'_, DomainDescription> {
        let connection = self.connection.clone();
        let processes = process::directory(&self.uri);
        Box::pin(
            self.call(Lane::Read(domain), "describe", READ, move |working| {
                let found = working.find(domain)?;
                let (xml, state, arrival) = raw(&found).map_err(|error| working.failed(&error))?;
                describe_one(&connection, processes.as_deref(), (&xml, state, arrival))
                    .map_err(|problem| working.unreadable(problem))
            }),
        )
    }

    fn bulk_stats(&self) -> Answer<'_, Vec<(DomainId, DomainStats)>> {
        let connection = self.connection.clone();
        Box::pin(
            self.call(self.stats_lane(), "bulk_stats", STATS, move |working| {
                let all = ffi::all_domain_stats(&working.connect, FIGURES)
                    .map_err(|error| working.failed(&error))?;
                let figures = all.iter().map(|figures| {
                    let id = figures.domain;
                    (id, stats(figures, connection.memory.virtio_mem(id)))
                });
                Ok(figures.collect())
            }),
        )
    }

    fn set_vcpus(&self, domain: DomainId, count: u32) -> Answer<'_, ()> {
        Box::pin(self.change(domain, "set_vcpus", SET_VCPUS, move |domain| {
            domain.set_vcpus_flags(count, sys::VIR_DOMAIN_VCPU_LIVE)
        }))
    }

    fn set_virtio_mem(&self, domain: DomainId, alias: String, requested: Bytes) -> Answer<'_, ()> {
        Box::pin(self.call(
            Lane::Change(domain),
            "set_virtio_mem",
            REQUEST,
            move |working| {
                let found = working.find(domain)?;
                let xml = found.xml_desc(0).map_err(|error| working.failed(&error))?;
                let device = xml::resize_virtio_mem(&xml, &alias, requested)
                    .map_err(|problem| working.unreadable(problem))?
                    .ok_or_else(|| HypervisorError::NoDevice {
                        operation: working.operation,
                        domain: working.domain.clone(),
                        alias,
                    })?;
                found
                    .update_device_flags(&device, sys::VIR_DOMAIN_AFFECT_LIVE)
                    .map_err(|error| working.failed(&error))
            },
        ))
    }

    fn attach_dimm(&self, domain: DomainId, size: Bytes) -> Answer<'_, ()> {
        Box::pin(self.change(domain, "attach_dimm", REQUEST, move |domain| {
            domain.attach_device_flags(&xml::dimm(size), sys::VIR_DOMAIN_AFFECT_LIVE)
        }))
    }

    fn set_balloon(&self, domain: DomainId, target: Bytes) -> Answer<'_, ()> {
        Box::pin(self.change(domain, "set_balloon", REQUEST, move |domain| {
            domain
                .set_memory_flags(target.as_kib(), sys::VIR_DOMAIN_MEM_LIVE)
                .map(drop)
        }))
    }

    fn set_balloon_period(&self, domain: DomainId, period: Duration) -> Answer<'_, ()> {
        // Whole seconds, and at least one, because zero would turn them off.
        let seconds = i32::try_from(period.as_secs()).unwrap_or(i32::MAX).max(1);
        Box::pin(
            self.change(domain, "set_balloon_period", REQUEST, move |domain| {
                domain.set_memory_stats_period(seconds, sys::VIR_DOMAIN_MEM_LIVE)
            }),
        )
    }

    fn hotpluggable_vcpus(&self, domain: DomainId) -> Answer<'_, Vec<HotpluggableVcpu>> {
        let tainted = self.tainted.clone();
        Box::pin(self.call(
            Lane::Change(domain),
            "hotpluggable_vcpus",
            REQUEST,
            move |working| {
                let command =
                    qmp::hotpluggable_cpus_command().map_err(|error| working.unreadable(error))?;
                let found = working.find(domain)?;
                announce_taint(&tainted, domain, &found);
                let answer = found
                    .qemu_monitor_command(&command, 0)
                    .map_err(|error| working.failed(&error))?;
                match qmp::parse_hotpluggable_cpus(&answer) {
                    Ok(qmp::Reply::Vcpus(vcpus)) => Ok(vcpus),
                    Ok(qmp::Reply::Refused(message)) => Err(working.refused(message)),
                    Err(detail) => Err(working.unreadable(detail)),
                }
            },
        ))
    }

    fn guest_agent_command(
        &self,
        domain: DomainId,
        command: String,
        deadline: Duration,
    ) -> Answer<'_, String> {
        Box::pin(self.call(
            Lane::Guest(domain),
            "guest_agent_command",
            // libvirt gives up first, so that its words are what is told.
            deadline + REQUEST,
            move |working| {
                let seconds = i32::try_from(deadline.as_secs()).unwrap_or(i32::MAX);
                working
                    .find(domain)?
                    .qemu_agent_command(&command, seconds, 0)
                    .map_err(|error| working.failed(&error))
            },
        ))
    }

    fn set_limit(&self, domain: DomainId, knob: Knob, to: KnobValue) -> Answer<'_, ()> {
        Box::pin(
            self.call(Lane::Change(domain), "set_limit", REQUEST, move |working| {
                let (found, limits) = working.limits(domain)?;
                tune::turn(&found, &limits, knob, to).map_err(|error| working.failed(&error))
            }),
        )
    }

    fn limits(&self, domain: DomainId) -> Answer<'_, Limits> {
        Box::pin(
            // It asks the emulator about the disks.
            self.call(Lane::Change(domain), "limits", REQUEST, move |working| {
                let (found, mut limits) = working.limits(domain)?;
                tune::look(&found, &mut limits).map_err(|error| working.failed(&error))?;
                Ok(limits)
            }),
        )
    }

    fn set_metadata(
        &self,
        domain: DomainId,
        element: MetadataElement,
        xml: Option<String>,
    ) -> Answer<'_, ()> {
        Box::pin(self.call(
            // It writes libvirt's own definition, and takes the same lock inside libvirt as changes do.
            Lane::Change(domain),
            "set_metadata",
            REQUEST,
            move |working| {
                if xml.as_deref().is_some_and(|xml| xml.contains('\0')) {
                    return Err(working.refused("the element holds a NUL character".into()));
                }
                let found = working.find(domain)?;
                write_metadata(&found, element, xml.as_deref())
                    .map_err(|error| working.failed(&error))
            },
        ))
    }

    fn definitions(&self, domain: DomainId) -> Answer<'_, Definitions> {
        Box::pin(
            self.call(Lane::Read(domain), "definitions", READ, move |working| {
                definition::read(working, domain)
            }),
        )
    }

    fn redefine(&self, domain: DomainId, from: String, to: String) -> Answer<'_, Definition> {
        Box::pin(
            self.call(Lane::Change(domain), "redefine", REQUEST, move |working| {
                definition::replace(working, domain, &from, &to)
            }),
        )
    }

    fn attach_device(&self, domain: DomainId, device: String) -> Answer<'_, ()> {
        Box::pin(
            self.change(domain, "attach_device", REQUEST, move |domain| {
                domain.attach_device_flags(&device, sys::VIR_DOMAIN_AFFECT_LIVE)
            }),
        )
    }
}

/// What a definition says, as of a domain that does not run.
pub(super) fn read_definition(text: &str) -> Result<DomainDescription, String> {
    xml::read_domain(text, RunState::Off).map(|read| read.description)
}

fn write_metadata(
    domain: &Domain,
    element: MetadataElement,
    xml: Option<&str>,
) -> Result<(), Error> {
    let mut flags = 0;
    if domain.is_active()? {
        flags |= sys::VIR_DOMAIN_AFFECT_LIVE;
    }
    // A transient domain has no persistent definition.
    if domain.is_persistent()? {
        flags |= sys::VIR_DOMAIN_AFFECT_CONFIG;
    }
    let kind = i32::try_from(sys::VIR_DOMAIN_METADATA_ELEMENT).unwrap_or(i32::MAX);
    let (key, uri) = (Some(element.prefix()), Some(element.uri()));
    match domain.set_metadata(kind, xml, key, uri, flags) {
        // What is to be removed is not there.
        Err(error) if xml.is_none() && error.code().to_raw() == sys::VIR_ERR_NO_DOMAIN_METADATA => {
            Ok(())
        }
        written => written,
    }
}
