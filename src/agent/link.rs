//! One task a domain that owns the connection to its agent, and is the only owner: it holds the channel's lock. It opens
//! the socket, keeps a [`Session`] on it, and opens it again with a growing pause when that ends. A guest that floods is
//! disconnected for a while. Decisions about frames are the session's, about requests those of [`Requests`].
//!
//! ```text
//! own the lock -> connect -> greet -> talk -> (why it ended) -> rest -> connect ...
//! ```
//! Resting ends early when the daemon renews the session or the channel moves, except after a flood.

mod ending;

use std::io;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::limits::MAX_FRAME;
use agent_protocol::message::HelloReason;
use agent_protocol::version::NoCommonVersion;
use agent_protocol::{Operation, Parts, RequestId, Told};
use futures_util::FutureExt;
use persona::domain::DomainId;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::LinkConfig;
use super::budget::{Backoff, Budget};
use super::connection::{Notice, Talk};
use super::error::AgentError;
use super::event::{AgentEvent, LinkState, LostReason, Misconduct, ReportSlot, Running};
use super::exec::Outputs;
use super::ownership::{Ownership, OwnershipError, try_own};
use super::requests::{Answer, Requests};
use super::session::{Ending, Happening, PingAnswer, Session};
use ending::{Next, Verdict, Wake};

/// What the registry wants of a link; the latest holds.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pub(super) socket: PathBuf,
    pub(super) running: Running,
    /// Grows with each wish for another session.
    pub(super) renewals: u64,
    pub(super) reason: HelloReason,
    /// Which parts reports shall have.
    pub(super) parts: Parts,
}

impl Control {
    pub(super) fn new(socket: PathBuf, running: Running) -> Self {
        Self {
            socket,
            running,
            renewals: 0,
            reason: HelloReason::Connect,
            parts: Parts::default(),
        }
    }
}

/// What a caller wants of a link.
#[derive(Debug)]
pub(super) enum Command {
    Request {
        id: RequestId,
        operation: Operation,
        until: Instant,
        deadline: Duration,
        answer: Answer,
        /// Where the output of a command goes.
        outputs: Option<Outputs>,
    },
    Ping {
        answer: PingAnswer,
    },
    /// Tells what came of an ask.
    Tell(Box<Told>),
    /// Makes the link fail as a fault in it would.
    #[cfg(test)]
    Panic,
}

/// The ends that a link has towards the registry and the daemon.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) control: watch::Receiver<Control>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) state: watch::Sender<LinkState>,
    pub(super) events: mpsc::UnboundedSender<(DomainId, AgentEvent)>,
}

/// Whether the agent of this link ever answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Met {
    Never,
    Before,
}

struct Link {
    domain: DomainId,
    config: Arc<LinkConfig>,
    ends: Ends,
    reports: ReportSlot,
    requests: Requests,
    budget: Budget,
    reconnect: Backoff,
    penalty: Backoff,
    /// Where the latest connection was tried.
    socket: PathBuf,
    renewals: u64,
    hello: HelloReason,
    met: Met,
    silent_connections: u32,
    told_incompatible: Option<NoCommonVersion>,
}

/// Starts a link's task. It ends when the registry drops its end of `control`. A fault in it ends its connection and is
/// logged; the link then starts again, and no other link notices.
pub(super) fn spawn(domain: DomainId, config: Arc<LinkConfig>, ends: Ends) {
    tokio::spawn(async move {
        let now = Instant::now();
        let mut link = Link {
            domain,
            reports: ReportSlot::default(),
            requests: Requests::new(domain),
            budget: Budget::new(config.rates, now),
            reconnect: Backoff::new(config.reconnect.0, config.reconnect.1),
            penalty: Backoff::new(config.flood_pause.0, config.flood_pause.1),
            socket: PathBuf::new(),
            renewals: 0,
            hello: HelloReason::Connect,
            met: Met::Never,
            silent_connections: 0,
            told_incompatible: None,
            config,
            ends,
        };
        loop {
            match AssertUnwindSafe(link.run()).catch_unwind().await {
                Ok(()) => break,
                Err(_) => {
                    tracing::error!(%domain, "the link to the agent failed inside the daemon; it starts again");
                    link.requests.lost(LostReason::Internal);
                    link.tell_lost(LostReason::Internal);
                    let until = Instant::now() + link.config.reconnect.1;
                    if link.rest(until, Wake::Move).await.is_break() {
                        break;
                    }
                }
            }
        }
    });
}

impl Link {
    /// Runs until the channel is given up.
    async fn run(&mut self) {
        if let ControlFlow::Continue(_ownership) = self.own().await {
            loop {
                let follows = match self.connection().await {
                    Next::Rest { until, wake } => self.rest(until, wake).await,
                    Next::Gone => break,
                };
                if follows.is_break() {
                    break;
                }
            }
        }
        self.requests.lost(LostReason::Detached);
    }

    /// Waits for the lock of the channel.
    async fn own(&mut self) -> ControlFlow<(), Ownership> {
        let mut pauses = Backoff::new(self.config.reconnect.0, self.config.reconnect.1);
        // The first refusal may be this daemon's own earlier link, which is about to end.
        for attempt in 1_u64.. {
            match try_own(&self.config.run_directory, self.domain) {
                Ok(ownership) => return ControlFlow::Continue(ownership),
                Err(error) => {
                    if attempt == 2 {
                        tracing::warn!(domain = %self.domain, error = &error as &dyn std::error::Error, "the agent's channel is not ours");
                    }
                    let (OwnershipError::Taken { path } | OwnershipError::Failed { path, .. }) =
                        error;
                    self.set_state(LinkState::OwnedElsewhere { path });
                }
            }
            let until = Instant::now() + pauses.pause();
            self.rest(until, Wake::Never).await?;
        }
        ControlFlow::Break(())
    }

    fn set_state(&self, state: LinkState) {
        self.ends.state.send_if_modified(|current| {
            let differs = *current != state;
            *current = state;
            differs
        });
    }

    fn tell(&self, event: AgentEvent) {
        // Nobody listens any more when the daemon ends.
        let _ = self.ends.events.send((self.domain, event));
    }

    fn tell_lost(&mut self, reason: LostReason) {
        if matches!(*self.ends.state.borrow(), LinkState::Connected(_)) {
            tracing::info!(domain = %self.domain, %reason, "agent lost");
            self.tell(AgentEvent::Lost { reason });
        }
        self.set_state(LinkState::Connecting);
    }

    fn tell_misconduct(&self, misconduct: Option<Misconduct>) {
        if let Some(misconduct) = misconduct {
            tracing::warn!(domain = %self.domain, ?misconduct, "the guest sends what it must not");
            self.tell(AgentEvent::Misbehaved { misconduct });
        }
    }

    /// What a request gets that cannot be sent.
    fn not_connected(&self) -> AgentError {
        let domain = self.domain;
        match &*self.ends.state.borrow() {
            LinkState::OwnedElsewhere { path } => AgentError::OwnedElsewhere {
                domain,
                path: path.clone(),
            },
            LinkState::Incompatible(versions) => AgentError::VersionMismatch {
                domain,
                source: *versions,
            },
            LinkState::Flooding { pause } => AgentError::Flooding {
                domain,
                pause: *pause,
            },
            LinkState::Connecting
            | LinkState::Waiting
            | LinkState::Unresponsive
            | LinkState::Connected(_) => AgentError::NotConnected { domain },
        }
    }

    /// Takes a command, in a session or without one.
    fn command(&mut self, command: Command, session: Option<&mut Session>) {
        match (command, session) {
            (
                Command::Request {
                    id,
                    operation,
                    until,
                    deadline,
                    answer,
                    outputs,
                },
                Some(session),
            ) if session.facts().is_some() => {
                let listener = outputs.map(|outputs| (id.clone(), outputs));
                self.requests.admit(id, operation, until, deadline, answer);
                if let Some((id, outputs)) = listener {
                    self.requests.listen(&id, outputs);
                }
            }
            (Command::Ping { answer }, Some(session)) if session.facts().is_some() => {
                session.ping(answer, Instant::now())
            }
            (Command::Tell(told), Some(session)) => session.tell(*told),
            // Who asked is told by its agent that the host is gone.
            (Command::Tell(_), None) => {}
            (Command::Request { answer, .. }, _) => drop(answer.send(Err(self.not_connected()))),
            (Command::Ping { answer }, _) => drop(answer.send(Err(self.not_connected()))),
            #[cfg(test)]
            #[allow(clippy::panic)]
            (Command::Panic, _) => panic!("a fault in a link"),
        }
    }

    /// Rests, answering commands and deadlines meanwhile.
    async fn rest(&mut self, until: Instant, wake: Wake) -> ControlFlow<()> {
        let mut until = until;
        loop {
            let now = Instant::now();
            self.requests.expire(now);
            if now >= until {
                return ControlFlow::Continue(());
            }
            let next = self.requests.wakes_at().map_or(until, |at| at.min(until));
            tokio::select! {
                changed = self.ends.control.changed() => {
                    if changed.is_err() {
                        return ControlFlow::Break(());
                    }
                    let control = self.ends.control.borrow_and_update().clone();
                    if control.socket != self.socket && wake != Wake::Never {
                        return ControlFlow::Continue(());
                    }
                    if control.renewals != self.renewals && let Wake::Renewal { not_before } = wake {
                        self.renewals = control.renewals;
                        self.hello = control.reason;
                        until = until.min(not_before);
                    }
                }
                Some(command) = self.ends.commands.recv() => self.command(command, None),
                () = sleep_until(next) => {}
            }
        }
    }

    /// One connection, from opening the socket to why it ended.
    async fn connection(&mut self) -> Next {
        let began = Instant::now();
        let control = self.ends.control.borrow_and_update().clone();
        self.renewals = control.renewals;
        if std::mem::replace(&mut self.socket, control.socket.clone()) != control.socket {
            // Another start of the domain: what its guest was before says nothing.
            self.reconnect.reset();
            self.met = Met::Never;
            self.silent_connections = 0;
            self.told_incompatible = None;
            self.set_state(LinkState::Connecting);
        }
        let pause = self.reconnect.pause();
        let again = Wake::Renewal {
            not_before: began + self.config.reconnect.0,
        };
        // A connection to a socket of this host is made at once or refused at once.
        let stream = match UnixStream::connect(&control.socket).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(domain = %self.domain, socket = %control.socket.display(), %error, "the agent's channel cannot be opened");
                return Next::Rest {
                    until: began + pause,
                    wake: again,
                };
            }
        };
        if matches!(
            *self.ends.state.borrow(),
            LinkState::Connecting | LinkState::Flooding { .. } | LinkState::OwnedElsewhere { .. }
        ) {
            self.set_state(LinkState::Waiting);
        }
        // Who does not answer in time is listened to for the length of the pause: an agent that starts announces itself.
        let patience = self.config.hello_timeout + pause;
        let mut session = Session::greet(
            self.domain,
            self.config.clone(),
            self.hello,
            patience,
            control.running,
            Instant::now(),
        );
        session.collect(control.parts);
        let mut talk = Talk::new(stream);
        let verdict = loop {
            match self.turn(&control, &mut session, &mut talk).await {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(verdict) => break verdict,
            }
        };
        let mut misconduct = session.misconduct(talk.decoder.counters());
        if let Verdict::Flooded(overflow) = verdict {
            misconduct.flooded = Some(overflow);
        }
        self.tell_misconduct(talk.told.due(misconduct, Notice::Last, Instant::now()));
        self.ended(session, verdict, began, pause)
    }

    /// Waits for one thing to happen and does what it asks for.
    async fn turn(
        &mut self,
        control: &Control,
        session: &mut Session,
        talk: &mut Talk,
    ) -> ControlFlow<Verdict> {
        let now = Instant::now();
        self.requests.expire(now);
        session.tick(now).map_or_else(
            |ending| ControlFlow::Break(Verdict::Ended(ending)),
            ControlFlow::Continue,
        )?;
        if talk.writing.is_empty() {
            talk.writing.extend(
                session
                    .next_frame(&mut self.requests, now)
                    .unwrap_or_default(),
            );
        }
        let interest = if talk.writing.is_empty() && !session.has_frame(&self.requests, now) {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        let wakes_at = session
            .wakes_at()
            .into_iter()
            .chain(self.requests.wakes_at())
            .min();
        let time = async {
            match wakes_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.ends.control.changed() => {
                if changed.is_err() {
                    return ControlFlow::Break(Verdict::Gone);
                }
                self.controlled(control, session)
            }
            Some(command) = self.ends.commands.recv() => {
                self.command(command, Some(session));
                ControlFlow::Continue(())
            }
            ready = talk.stream.ready(interest) => match ready {
                Ok(ready) => {
                    if ready.is_writable() && talk.write().is_err() {
                        return ControlFlow::Break(Verdict::Closed);
                    }
                    if ready.is_readable() || ready.is_read_closed() { self.read(session, talk) } else { ControlFlow::Continue(()) }
                }
                Err(_) => ControlFlow::Break(Verdict::Closed),
            },
            () = time => ControlFlow::Continue(()),
        }
    }

    /// The registry wants something else than before.
    fn controlled(&mut self, before: &Control, session: &mut Session) -> ControlFlow<Verdict> {
        let control = self.ends.control.borrow_and_update().clone();
        if control.socket != before.socket {
            let ending = Ending::Over {
                reason: LostReason::Moved,
                hello: HelloReason::Connect,
            };
            return ControlFlow::Break(Verdict::Ended(ending));
        }
        let now = Instant::now();
        session.set_running(control.running, now);
        session.collect(control.parts);
        if std::mem::replace(&mut self.renewals, control.renewals) != control.renewals
            && let Err(ending) = session.renew(control.reason, now)
        {
            return ControlFlow::Break(Verdict::Ended(ending));
        }
        ControlFlow::Continue(())
    }

    /// Takes what the socket has, one share, and hands the frames in it to the session.
    fn read(&mut self, session: &mut Session, talk: &mut Talk) -> ControlFlow<Verdict> {
        let length = match talk.stream.try_read(&mut talk.reading) {
            Ok(0) => return ControlFlow::Break(Verdict::Closed),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return ControlFlow::Continue(());
            }
            Err(_) => return ControlFlow::Break(Verdict::Closed),
        };
        let now = Instant::now();
        if let Err(overflow) = self.budget.spend(length as u64, 0, now) {
            return ControlFlow::Break(Verdict::Flooded(overflow));
        }
        let mut bytes = &talk.reading[..length];
        while let Some(text) = talk.decoder.next_frame(&mut bytes) {
            if let Err(overflow) = self.budget.spend(0, 1, now) {
                return ControlFlow::Break(Verdict::Flooded(overflow));
            }
            match session.receive(text, &mut self.requests, now) {
                Ok(Happening::Nothing) => {}
                Ok(Happening::Connected(facts)) => {
                    talk.decoder.set_max_frame(MAX_FRAME);
                    self.met = Met::Before;
                    self.silent_connections = 0;
                    self.told_incompatible = None;
                    self.requests.connected(&facts.boot_id);
                    tracing::info!(domain = %self.domain, agent = %facts.agent_version, boot = %facts.boot_id, "agent connected");
                    self.set_state(LinkState::Connected(facts.clone()));
                    self.tell(AgentEvent::Connected { facts });
                }
                Ok(Happening::Deviated(facts)) => {
                    self.set_state(LinkState::Connected(facts.clone()));
                    self.tell(AgentEvent::Deviated { facts });
                }
                Ok(Happening::Reported(report)) => {
                    if let Some(latest) = self.reports.put(*report) {
                        self.tell(AgentEvent::Telemetry(latest));
                    }
                }
                Ok(Happening::Needed { more, reason }) => {
                    self.tell(AgentEvent::Needs { more, reason });
                }
                Ok(Happening::Asked(ask)) => self.tell(AgentEvent::Asks(ask)),
                Err(ending) => return ControlFlow::Break(Verdict::Ended(ending)),
            }
            if session.take_records_wait(now) {
                self.tell(AgentEvent::RecordsWait);
            }
        }
        let counters = talk.decoder.counters();
        let broken = counters.truncated + counters.oversize + counters.nul + counters.not_utf8;
        let fresh = broken - std::mem::replace(&mut talk.broken, broken);
        if let Err(overflow) = self.budget.spend(0, fresh, now) {
            return ControlFlow::Break(Verdict::Flooded(overflow));
        }
        let misconduct = session.misconduct(counters);
        self.tell_misconduct(talk.told.due(misconduct, Notice::Running, now));
        ControlFlow::Continue(())
    }
}
