//! The links of all domains, by domain: where the daemon attaches and detaches channels and sends requests. Each link is
//! a task of its own; what one does harms no other.
//!
//! The daemon calls [`Registry::attach`] with the socket path of the live definition at each start of a domain,
//! [`Registry::renew`] when the hypervisor tells of a reboot, a revert or a port that was opened,
//! [`Registry::set_running`] when a domain is paused or resumed, and [`Registry::detach`] when it stops.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_protocol::message::HelloReason;
use agent_protocol::{Command, Operation, Parts, RequestId, Told};
use persona::domain::DomainId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::event::{AgentEvent, LinkState, LostReason, Running};
use super::exec::{CommandEnd, Outputs};
use super::identity::fresh_request_id;
use super::link::{self, Control, Ends};
use super::reply::{AgentReply, Asked};
use super::{AgentError, LinkConfig};

/// Every link. Clones share the same links; the last clone that goes ends them.
#[derive(Clone, Debug)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Arc<LinkConfig>,
    events: mpsc::UnboundedSender<(DomainId, AgentEvent)>,
    links: Mutex<HashMap<DomainId, Handle>>,
}

/// What the registry keeps of a link. Dropping it ends the link's task.
#[derive(Debug)]
struct Handle {
    control: watch::Sender<Control>,
    commands: mpsc::Sender<link::Command>,
    state: watch::Receiver<LinkState>,
}

impl Registry {
    /// A registry without links. Events go to `events`: a guest can cause at most a few a second, since each change of
    /// its connection costs a pause, and telemetry waits in a slot that holds the latest report alone.
    pub fn new(config: LinkConfig, events: mpsc::UnboundedSender<(DomainId, AgentEvent)>) -> Self {
        let links = Mutex::new(HashMap::new());
        Self {
            inner: Arc::new(Inner {
                config: Arc::new(config),
                events,
                links,
            }),
        }
    }

    fn links(&self) -> MutexGuard<'_, HashMap<DomainId, Handle>> {
        // The map is whole after any panic: each change of it is a single insertion or removal.
        self.inner
            .links
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to talk to the agent of `domain` on `socket`, or moves there from another path. The same path again changes
    /// nothing but the run state. Must be called within a tokio run time.
    pub fn attach(&self, domain: DomainId, socket: PathBuf, running: Running) {
        let mut links = self.links();
        if let Some(handle) = links.get(&domain) {
            handle.control.send_if_modified(|control| {
                let modified = control.socket != socket || control.running != running;
                control.socket = socket;
                control.running = running;
                modified
            });
            return;
        }
        let (control, control_end) = watch::channel(Control::new(socket, running));
        let (commands, commands_end) = mpsc::channel(agent_protocol::limits::IN_FLIGHT_MAX);
        let (state_end, state) = watch::channel(LinkState::Connecting);
        let events = self.inner.events.clone();
        let ends = Ends {
            control: control_end,
            commands: commands_end,
            state: state_end,
            events,
        };
        link::spawn(domain, self.inner.config.clone(), ends);
        links.insert(
            domain,
            Handle {
                control,
                commands,
                state,
            },
        );
    }

    /// Ends the link of `domain`: the connection is closed, what waits for an answer fails.
    pub fn detach(&self, domain: DomainId) {
        self.links().remove(&domain);
    }

    /// Forces a session of its own: what the guest said before no longer counts. Several calls in a row make one.
    pub fn renew(&self, domain: DomainId, reason: HelloReason) {
        if let Some(handle) = self.links().get(&domain) {
            handle.control.send_modify(|control| {
                control.renewals = control.renewals.wrapping_add(1);
                control.reason = reason;
            });
        }
    }

    /// Tells whether the vCPUs of `domain` run. A paused guest cannot answer, so its silence is not held against it.
    pub fn set_running(&self, domain: DomainId, running: Running) {
        if let Some(handle) = self.links().get(&domain) {
            handle.control.send_if_modified(|control| {
                std::mem::replace(&mut control.running, running) != running
            });
        }
    }

    /// Which parts the reports of `domain` shall have, from here on and in every session to come.
    pub fn collect(&self, domain: DomainId, parts: Parts) {
        if let Some(handle) = self.links().get(&domain) {
            handle
                .control
                .send_if_modified(|control| std::mem::replace(&mut control.parts, parts) != parts);
        }
    }

    /// What the link of `domain` does at the moment; `None` where there is no link.
    pub fn state(&self, domain: DomainId) -> Option<LinkState> {
        self.links()
            .get(&domain)
            .map(|handle| handle.state.borrow().clone())
    }

    /// Waits until an agent of `domain` has a session; for command-line tools and tests. `None` where there is no link.
    pub async fn connected(&self, domain: DomainId) -> Option<LinkState> {
        let mut state = self.links().get(&domain)?.state.clone();
        let state = state
            .wait_for(|state| matches!(state, LinkState::Connected(_)))
            .await
            .ok()?;
        Some(state.clone())
    }

    /// Sends a request and waits for its answer, at most `deadline`. A change (`Activate`, `Deactivate`, `OnlineCpus`) that
    /// loses its connection is delivered again under the same id as soon as there is a session, and executed once. Who
    /// wants to ask again after a time-out passes the same `id` again.
    ///
    /// # Errors
    /// [`AgentError`]; its `effect()` says whether the guest may have changed.
    pub async fn request(
        &self,
        domain: DomainId,
        id: Option<RequestId>,
        operation: Operation,
        deadline: Duration,
    ) -> Result<AgentReply, AgentError> {
        let name = Asked::of(&operation).name();
        if let Operation::Activate { activation } = &operation {
            activation
                .check()
                .map_err(|source| AgentError::InvalidActivation { domain, source })?;
        }
        let (answer, answered) = oneshot::channel();
        let id = id.unwrap_or_else(fresh_request_id);
        self.send(
            domain,
            name,
            link::Command::Request {
                id,
                operation,
                until: Instant::now() + deadline,
                deadline,
                answer,
                outputs: None,
            },
        )?;
        answered
            .await
            .unwrap_or_else(|_| Err(interrupted(domain, name)))
    }

    /// Has a command run in the guest and waits for its end, at most `deadline`. What it writes goes to `outputs` as it
    /// comes; with a connection that is lost meanwhile some of that is lost, too, but the command runs once.
    ///
    /// # Errors
    /// [`AgentError`], also where the guest refuses; its `effect()` says whether the command may have run.
    pub async fn execute(
        &self,
        domain: DomainId,
        command: Command,
        outputs: Outputs,
        deadline: Duration,
    ) -> Result<CommandEnd, AgentError> {
        command
            .check()
            .map_err(|source| AgentError::InvalidCommand { domain, source })?;
        let (answer, answered) = oneshot::channel();
        let operation = Operation::Exec {
            command: Box::new(command),
        };
        self.send(
            domain,
            "exec",
            link::Command::Request {
                id: fresh_request_id(),
                operation,
                until: Instant::now() + deadline,
                deadline,
                answer,
                outputs: Some(outputs),
            },
        )?;
        let answer = answered
            .await
            .unwrap_or_else(|_| Err(interrupted(domain, "exec")))?;
        match answer {
            AgentReply::Ran(end) => Ok(end),
            _ => Err(AgentError::BadAnswer {
                domain,
                operation: "exec",
                detail: "it is the answer to another question".to_owned(),
            }),
        }
    }

    /// The time that a ping takes to the agent and back, past everything that waits in the queue.
    ///
    /// # Errors
    /// [`AgentError`] when there is no session, or no answer within the heartbeat's patience.
    pub async fn ping(&self, domain: DomainId) -> Result<Duration, AgentError> {
        let (answer, answered) = oneshot::channel();
        self.send(domain, "ping", link::Command::Ping { answer })?;
        answered
            .await
            .unwrap_or_else(|_| Err(interrupted(domain, "ping")))
    }

    /// Tells a guest what came of something that a user of it asked. Without a session nobody hears it.
    ///
    /// # Errors
    /// [`AgentError`] where there is no link, or too much waits for it.
    pub fn tell(&self, domain: DomainId, told: Told) -> Result<(), AgentError> {
        self.send(domain, "told", link::Command::Tell(Box::new(told)))
    }

    fn send(
        &self,
        domain: DomainId,
        operation: &'static str,
        command: link::Command,
    ) -> Result<(), AgentError> {
        let links = self.links();
        let handle = links
            .get(&domain)
            .ok_or(AgentError::NotAttached { domain })?;
        handle
            .commands
            .try_send(command)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => AgentError::Busy {
                    domain,
                    operation,
                    in_flight: agent_protocol::limits::IN_FLIGHT_MAX,
                },
                mpsc::error::TrySendError::Closed(_) => AgentError::NotAttached { domain },
            })
    }
}

/// The link ended with the request under way.
fn interrupted(domain: DomainId, operation: &'static str) -> AgentError {
    AgentError::Interrupted {
        domain,
        operation,
        reason: LostReason::Detached,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Effect;
    use tokio::net::UnixListener;

    const FAULTY: DomainId = DomainId([1; 16]);
    const SOUND: DomainId = DomainId([2; 16]);

    #[tokio::test]
    async fn a_fault_in_one_link_ends_that_link_alone_and_it_starts_again() {
        let directory = tempfile::tempdir().unwrap();
        let (faulty, sound) = (
            directory.path().join("faulty"),
            directory.path().join("sound"),
        );
        let (faulty_listener, sound_listener) = (
            UnixListener::bind(&faulty).unwrap(),
            UnixListener::bind(&sound).unwrap(),
        );
        let (events, _receiver) = mpsc::unbounded_channel();
        let mut config = LinkConfig::new(directory.path().join("run"), "host".to_owned());
        config.reconnect.1 = Duration::from_millis(200);
        let registry = Registry::new(config, events);
        registry.attach(FAULTY, faulty, Running::Yes);
        registry.attach(SOUND, sound, Running::Yes);
        let (first, _) = faulty_listener.accept().await.unwrap();
        let (other, _) = sound_listener.accept().await.unwrap();
        registry
            .send(FAULTY, "panic", link::Command::Panic)
            .unwrap();
        while first.try_read(&mut [0; 4096]).ok() != Some(0) {
            first.readable().await.unwrap();
        }
        faulty_listener.accept().await.unwrap();
        let refusal = registry.ping(SOUND).await.unwrap_err();
        assert_eq!(refusal, AgentError::NotConnected { domain: SOUND });
        assert_eq!(refusal.effect(), Effect::None);
        while other.try_read(&mut [0; 4096]).is_ok_and(|length| {
            assert_ne!(length, 0, "the other link was closed");
            true
        }) {}
    }
}
