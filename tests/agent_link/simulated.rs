//! The agent of the simulated hypervisor behind a real link: it says what an agent says, and meets the faults of its calls.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::Operation;
use persona::domain::DomainId;
use tokio::sync::mpsc::UnboundedReceiver;
use virt_persona::agent::{AgentError, AgentEvent, AgentReply, LinkConfig, Registry, Running};
use virt_persona::hypervisor::Hypervisor;
use virt_persona::hypervisor::simulated::{CallName, Fault, Scenario, Simulated, open};

/// A hypervisor with one domain whose agent is simulated, and a registry that talks to it.
async fn with_agent(
    folder: &Path,
) -> (
    Arc<Simulated>,
    Registry,
    UnboundedReceiver<(DomainId, AgentEvent)>,
    DomainId,
) {
    let socket = folder.join("agent.sock");
    let scenario = format!(
        "[[domain]]\nname = 'web'\nvcpus_maximum = 4\nmemory_mib = 512\nagent_channel = '{}'\nguest = {{ agent = 'simulated', memory_used_mib = 100 }}\n",
        socket.display()
    );
    let (simulated, _events) = open(Scenario::parse(&scenario).unwrap());
    let web = simulated.domains().await.unwrap()[0].id;
    let (sender, events) = tokio::sync::mpsc::unbounded_channel();
    let config = LinkConfig::new(folder.join("run"), "host".into());
    let registry = Registry::new(config, sender);
    registry.attach(web, socket, Running::Yes);
    registry.connected(web).await.unwrap();
    (simulated, registry, events, web)
}

async fn ask(
    registry: &Registry,
    domain: DomainId,
    operation: Operation,
) -> Result<AgentReply, AgentError> {
    let patience = Duration::from_secs(5);
    registry.request(domain, None, operation, patience).await
}

#[tokio::test]
async fn a_simulated_agent_does_what_it_is_asked_and_reports_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (simulated, registry, mut events, web) = with_agent(folder.path()).await;
    simulated.set_vcpus(web, 3).await.unwrap();
    let answer = ask(&registry, web, Operation::OnlineCpus { target: 3 }).await;
    let Ok(AgentReply::OnlineCpus { online, .. }) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(online.count(), 3);
    assert_eq!(simulated.shown(web).unwrap().online, 3);
    let too_many = ask(&registry, web, Operation::OnlineCpus { target: 4 }).await;
    assert!(
        matches!(too_many, Err(AgentError::Refused { .. })),
        "{too_many:?}"
    );
    loop {
        let (_, event) = events.recv().await.unwrap();
        if let AgentEvent::Telemetry(latest) = event {
            let report = latest.take().unwrap();
            assert_eq!(report.online.count(), 3);
            assert_eq!(report.memory_available_kib, 412 * 1024);
            break;
        }
    }
}

#[tokio::test]
async fn a_simulated_agent_meets_the_faults_of_its_calls_and_a_start_is_another_boot() {
    let folder = tempfile::tempdir().unwrap();
    let (simulated, registry, mut events, web) = with_agent(folder.path()).await;
    let message = "not now".to_owned();
    simulated.fail_next(web, CallName::GuestCpus, Fault::Refuse { message });
    let refused = ask(&registry, web, Operation::OnlineCpus { target: 1 }).await;
    assert!(
        matches!(refused, Err(AgentError::Refused { .. })),
        "{refused:?}"
    );
    simulated.restart(web);
    let mut boots = Vec::new();
    while boots.len() < 2 {
        if let (_, AgentEvent::Connected { facts }) = events.recv().await.unwrap() {
            boots.push(facts.boot_id);
        }
    }
    assert_ne!(boots[0], boots[1]);
}
