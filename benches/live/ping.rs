//! The way to the agent in a guest and back, beside that to qemu-ga in the same guest: both asked from one process, by
//! turns, each by the fastest way that it offers to a program on the host.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;
use virt::connect::Connect;
use virt_persona::agent::{AgentEvent, LinkConfig, Registry, Running};
use virt_persona::hypervisor::{DomainDescription, DomainId, Hypervisor, libvirt};

use crate::figures::{micros, percentile, ratio};
use crate::harness::{Domain, Failure, Lab, Outcome};

const PINGS: usize = 300;

/// Until libvirt or the agent must have answered.
const ANSWERS: Duration = Duration::from_secs(60);

/// In seconds, as libvirt wants it.
const GUEST_PING_ANSWERS: i32 = 30;

pub(crate) fn against_guest_ping(lab: &Lab, runtime: &Runtime, domain: &Domain) -> Outcome<()> {
    let doing =
        |what: &'static str| move |error: &dyn std::fmt::Display| Failure::while_doing(what, error);
    let connection = Connect::open(Some(&lab.uri())).map_err(|e| doing("libvirt")(&e))?;
    let qga = connection
        .lookup_domain_by_name(domain.name())
        .map_err(|e| doing("the domain with qemu-ga")(&e))?;
    let guest_ping = || {
        qga.qemu_agent_command("{\"execute\":\"guest-ping\"}", GUEST_PING_ANSWERS, 0)
            .map_err(|e| doing("guest-ping")(&e))
    };
    let (mut agent, mut other) = runtime.block_on(async {
        let (registry, id, _events) = attach(lab, domain).await?;
        let ping = async || {
            registry
                .ping(id)
                .await
                .map_err(|e| doing("the agent's ping")(&e))
        };
        // The first of each also makes connections.
        ping().await?;
        guest_ping()?;
        let (mut agent, mut other) = (Vec::new(), Vec::new());
        for _ in 0..PINGS {
            let begin = Instant::now();
            ping().await?;
            let middle = Instant::now();
            tokio::task::block_in_place(guest_ping)?;
            agent.push(middle - begin);
            other.push(middle.elapsed());
        }
        Ok::<_, Failure>((agent, other))
    })?;
    let (median, worse) = (percentile(&mut agent, 50), percentile(&mut agent, 95));
    let (qga_median, qga_worse) = (percentile(&mut other, 50), percentile(&mut other, 95));
    println!(
        "round trip to the agent: median {:.0} us, p95 {:.0} us; guest-ping of qemu-ga through libvirt, same guest: {:.0} us, \
         {:.0} us; ratio of medians {:.3}, of p95 {:.3}",
        micros(median),
        micros(worse),
        micros(qga_median),
        micros(qga_worse),
        ratio(median, qga_median),
        ratio(worse, qga_worse)
    );
    Ok(())
}

type Events = mpsc::UnboundedReceiver<(DomainId, AgentEvent)>;

/// The daemon's own end of the channel, without the daemon.
async fn attach(lab: &Lab, domain: &Domain) -> Outcome<(Registry, DomainId, Events)> {
    let (hypervisor, _events) = libvirt::open(&lab.uri());
    let description = described(hypervisor.as_ref())
        .await?
        .into_iter()
        .find(|description| description.name == domain.name())
        .ok_or_else(|| Failure::new("libvirt does not list the domain"))?;
    let socket = description
        .agent_channel
        .ok_or_else(|| Failure::new("the domain has no port for the agent"))?;
    let (sender, events) = mpsc::unbounded_channel();
    let config = LinkConfig::new(lab.directory().join("ping"), "benchmark".to_owned());
    let registry = Registry::new(config, sender);
    registry.attach(description.id, socket, Running::Yes);
    match timeout(ANSWERS, registry.connected(description.id)).await {
        Ok(Some(_)) => Ok((registry, description.id, events)),
        Ok(None) | Err(_) => Err(Failure::new("the agent did not connect")),
    }
}

/// What libvirt describes, once it is connected to.
async fn described(hypervisor: &dyn Hypervisor) -> Outcome<Vec<DomainDescription>> {
    let mut last = None;
    for _ in 0..100 {
        match hypervisor.domains().await {
            Ok(domains) => return Ok(domains),
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(Failure::new(format!("libvirt does not answer: {last:?}")))
}
