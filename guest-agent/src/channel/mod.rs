//! The channel thread: the port, and nothing that could wait. One edge-triggered epoll over the port, the kernel's device
//! notices and the other threads' results. With no host attached a port is readable and hung up at every look, so a level-triggered wait would
//! spin; edge-triggered, it is silent until the host comes.
//!
//! The same loop serves a unix socket for tests: like QEMU's, it listens, serves one client and lets the next wait.

mod clients;
mod orders;
mod port;

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use agent_protocol::{Report, RulesInForce};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use port::{Port, Read};

use crate::{
    applications::{self, Applications},
    args::{Args, Transport},
    commands::{CommandJob, Commission},
    conversation::Conversation,
    disk::{DiskJob, ToDisk},
    events::{Event, FromWorkers},
    gate,
    hooks::Hooks,
    local::{ClientId, Local},
    log::{chain, log},
    need::{Pressure, under_pressure},
    rules::{RuleLog, Rules},
    telemetry::{Looks, Telemetry, TelemetryError},
    uevent::{Uevent, Uevents},
    upgrades::Upgrades,
};

/// Reads in one turn, before other events are looked at again.
const READS_IN_TURN: usize = 32;
const PORT: u64 = 0;
const LISTENER: u64 = 1;
const WORKERS: u64 = 2;
const UEVENTS: u64 = 3;
const LOCAL: u64 = 4;
const PRESSURE: u64 = 5;
const APPLICATIONS: u64 = 6;
const UPGRADES: u64 = 7;
/// The first client of the agent's own socket; each has a number of its own.
const CLIENTS: u64 = 1 << 32;

/// Why the channel ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    #[error("cannot open the port {path:?}{hint}")]
    Open {
        path: PathBuf,
        hint: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen on {path:?}")]
    Listen {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot use the inherited descriptor")]
    Inherited(#[source] io::Error),
    #[error("cannot wait for events")]
    Wait(#[source] io::Error),
    #[error("cannot hear of new devices, and the port is not there")]
    NoNotices,
}

/// The thread's state.
pub(crate) struct Channel {
    transport: Transport,
    root: PathBuf,
    epoll: Epoll,
    port: Option<Port>,
    listener: Option<UnixListener>,
    uevents: Option<Uevents>,
    workers: Workers,
    conversation: Conversation,
    telemetry: Telemetry,
    local: Option<Local>,
    pressure: Option<Pressure>,
    applications: Applications,
    rules: Rules,
    /// Which rules are evaluated, once it is known which generation holds.
    in_force: Option<RulesInForce>,
    /// Until when applications wait, after they said a lot.
    deaf_until: Option<Instant>,
}

/// The other threads.
pub(crate) struct Workers {
    pub(crate) results: FromWorkers,
    pub(crate) disk: ToDisk,
    pub(crate) commands: Commission,
    pub(crate) hooks: Hooks,
    pub(crate) rule_log: Arc<RuleLog>,
    pub(crate) upgrades: Option<Arc<Upgrades>>,
}

impl Channel {
    /// Opens the transport, and listens for devices where the real ones are served.
    pub(crate) fn open(
        args: &Args,
        conversation: Conversation,
        telemetry: Telemetry,
        applications: Applications,
        rules: Rules,
        workers: Workers,
    ) -> Result<Self, ChannelError> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|error| ChannelError::Wait(error.into()))?;
        // Before the port is looked for, so that one that appears in between is heard of. In a test tree no device is real.
        let uevents = (args.root == Path::new("/"))
            .then(Uevents::open)
            .transpose()
            .unwrap_or_else(|error| {
                log!("cannot hear of new devices; plugged CPUs come online by order only: {error}");
                None
            });
        let mut channel = Self {
            transport: args.transport.clone(),
            root: args.root.clone(),
            epoll,
            port: None,
            listener: None,
            uevents,
            workers,
            conversation,
            telemetry,
            local: None,
            pressure: None,
            applications,
            rules,
            in_force: None,
            deaf_until: None,
        };
        let edge = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        channel.register(channel.workers.results.as_fd(), edge, WORKERS)?;
        if let Some(uevents) = &channel.uevents {
            channel.register(uevents.as_fd(), edge, UEVENTS)?;
        }
        if let Some(upgrades) = &channel.workers.upgrades {
            channel.register(upgrades.as_ref(), edge, UPGRADES)?;
        }
        channel.open_transport()?;
        channel.hear_needs(&args.root)?;
        Ok(channel)
    }

    /// Waits for what makes the guest ask for memory. Each way can be missing: the agent serves without it.
    fn hear_needs(&mut self, root: &Path) -> Result<(), ChannelError> {
        let edge = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        match Local::open(root) {
            Ok(local) => {
                self.register(local.as_fd(), edge, LOCAL)?;
                self.local = Some(local);
            }
            Err(error) => log!("`virt-persona-agent need` will not reach this agent: {error}"),
        }
        if !self.conversation.may_need() {
            return Ok(());
        }
        let waits = Pressure::open(root).and_then(|pressure| {
            let event = EpollEvent::new(EpollFlags::EPOLLPRI, PRESSURE);
            self.epoll.add(&pressure, event)?;
            Ok(pressure)
        });
        match waits {
            Ok(pressure) => self.pressure = Some(pressure),
            Err(error) => log!("memory pressure is not noticed: {error}"),
        }
        Ok(())
    }

    /// Serves the host until an inherited connection ends or nothing can be waited for.
    pub(crate) fn run(&mut self) -> Result<(), ChannelError> {
        let mut busy = false;
        loop {
            let mut events = [EpollEvent::empty(); 8];
            let timeout = self.timeout(busy);
            let count = match self.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(ChannelError::Wait(error.into())),
            };
            for event in &events[..count] {
                match event.data() {
                    PORT => self.on_port_edge(event.events()),
                    LISTENER => self.accept()?,
                    WORKERS => self.take_results(),
                    LOCAL => self.accept_local()?,
                    UPGRADES => self.hear_of_upgrades(),
                    PRESSURE => self.on_pressure(event.events()),
                    APPLICATIONS => self.hear_applications()?,
                    client if client >= CLIENTS => self.hear_client(ClientId(client - CLIENTS)),
                    _ => self.take_notices()?,
                }
            }
            self.hear_again()?;
            self.report_if_due()?;
            self.evaluate_if_due()?;
            busy = self.pump()?;
            // After all reading and writing, each of which can be what shows that the host has gone.
            self.tell_lost_clients();
            self.listen_to_applications()?;
            self.want_figures();
            if self.port.is_none() && matches!(self.transport, Transport::Inherited(_)) {
                return Ok(());
            }
        }
    }

    /// For ever while nothing is due: an agent whose host is absent does not wake.
    fn timeout(&self, busy: bool) -> EpollTimeout {
        if busy {
            return EpollTimeout::ZERO;
        }
        let due = self.conversation.report_due();
        let due = due.into_iter().chain(self.rules.due());
        let Some(due) = due.chain(self.deaf_until).min() else {
            return EpollTimeout::NONE;
        };
        // Rounded up, or the last millisecond would be waited for again and again.
        let wait = due
            .saturating_duration_since(Instant::now())
            .as_millis()
            .saturating_add(1);
        EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::MAX)
    }

    fn register(&self, fd: impl AsFd, flags: EpollFlags, token: u64) -> Result<(), ChannelError> {
        self.epoll
            .add(fd, EpollEvent::new(flags, token))
            .map_err(|error| ChannelError::Wait(error.into()))
    }

    fn take_results(&mut self) {
        while let Some(event) = self.workers.results.next() {
            match event {
                Event::Done { id, body } => self.conversation.finished(id, body),
                Event::Output { id, piece } => self.conversation.output(id, piece),
                Event::State(state) => {
                    self.rules.follow(state.rules.as_ref(), Instant::now());
                    self.in_force = state.active.as_ref().map(|active| RulesInForce {
                        generation: active.generation,
                        rules: self.rules.names(),
                    });
                    self.conversation.set_state(state);
                }
                Event::Looked => self.rules.looked(Instant::now()),
                Event::Identified {
                    client,
                    asked,
                    user,
                } => self.ask_host(client, asked, user),
            }
        }
    }

    fn take_notices(&mut self) -> Result<(), ChannelError> {
        loop {
            let Some(uevents) = &mut self.uevents else {
                return Ok(());
            };
            match uevents.next().map_err(ChannelError::Wait)? {
                None => return Ok(()),
                Some(Uevent::CpuAdded(cpu)) => {
                    self.workers.commands.send(CommandJob::CpuAdded(cpu))
                }
                Some(Uevent::CpuRemoved(cpu)) => {
                    self.workers.commands.send(CommandJob::CpuRemoved(cpu))
                }
                Some(Uevent::PortAdded | Uevent::Overrun) => {
                    if self.port.is_none()
                        && matches!(self.transport, Transport::NamedPort | Transport::Port(_))
                    {
                        self.open_port()?;
                    }
                }
            }
        }
    }

    fn hear_of_upgrades(&self) {
        let upgrades = self.workers.upgrades.as_ref();
        if upgrades.is_some_and(|upgrades| upgrades.heard()) {
            // A disk thread that is gone looks at its next start.
            let _ = self.workers.disk.send(DiskJob::KeepClosed);
        }
    }

    fn on_pressure(&mut self, events: EpollFlags) {
        if events.contains(EpollFlags::EPOLLERR) {
            // The kernel no longer tells; closing the file ends the wait for it.
            self.pressure = None;
            return;
        }
        let need = match self.telemetry.memory() {
            Ok(memory) => under_pressure(memory),
            Err(error) => return log!("a need cannot be told: {}", chain(&error)),
        };
        // One that is not sent now comes again while the pressure lasts.
        if let Some(need) = need
            && self.conversation.need(need, Instant::now()).is_ok()
        {
            log!("memory is short; the host is asked for more");
        }
    }

    fn report_if_due(&mut self) -> Result<(), ChannelError> {
        let now = Instant::now();
        if self.conversation.report_due().is_some_and(|due| due <= now) {
            let gate = self.conversation.restricting();
            let gate = gate.map(|generation| gate::state(&self.root, generation));
            self.conversation.gate_is(gate);
            let report = self.measure()?;
            let report = report
                .inspect_err(|error| log!("no report: {}", chain(error)))
                .ok();
            self.conversation.queue_report(report, now);
        }
        Ok(())
    }

    /// Evaluates the guest's own rules when they are due; without any it is never.
    fn evaluate_if_due(&mut self) -> Result<(), ChannelError> {
        if self.applications.take_news() {
            self.rules.hear(Instant::now());
        }
        if self.rules.due().is_none_or(|due| due > Instant::now()) {
            return Ok(());
        }
        let said = if self.rules.want_applications() {
            self.hear_applications()?;
            self.applications.take_news();
            self.applications.figures(self.rules.interval())
        } else {
            Vec::new()
        };
        self.want_figures();
        self.rules
            .evaluate(&mut self.telemetry, &said, Instant::now());
        Ok(())
    }

    /// Says what is measured from here on.
    fn want_figures(&mut self) {
        self.telemetry
            .want(self.conversation.parts(), self.rules.parts());
    }

    /// A report of now, with what applications have said until now.
    fn measure(&mut self) -> Result<Result<Report, TelemetryError>, ChannelError> {
        self.want_figures();
        let mut report = self
            .telemetry
            .report(self.conversation.parts(), Looks::Begin);
        if let Ok(report) = &mut report {
            report.dropped = self.conversation.overwritten();
            if self.conversation.wants_applications() {
                self.hear_applications()?;
                let interval = self.conversation.interval().unwrap_or_default();
                report.app = self.applications.figures(interval);
            }
        }
        Ok(report)
    }

    /// Listens to applications while the host or a rule wants to know what they say, and only then.
    fn listen_to_applications(&mut self) -> Result<(), ChannelError> {
        if !self.conversation.wants_applications() && !self.rules.want_applications() {
            self.applications.close();
            self.deaf_until = None;
        } else if let Some(socket) = self.applications.listen() {
            // Level-triggered: what is left after a pause is told again.
            self.epoll
                .add(socket, EpollEvent::new(EpollFlags::EPOLLIN, APPLICATIONS))
                .map_err(|error| ChannelError::Wait(error.into()))?;
        }
        Ok(())
    }

    fn hear_applications(&mut self) -> Result<(), ChannelError> {
        if self.deaf_until.is_some() {
            return Ok(());
        }
        if let applications::Heard::Enough(until) = self.applications.hear(Instant::now()) {
            self.deaf_until = Some(until);
            self.wait_for_applications(EpollFlags::empty())?;
        }
        Ok(())
    }

    /// Listens again after a pause.
    fn hear_again(&mut self) -> Result<(), ChannelError> {
        if self.deaf_until.is_some_and(|until| until <= Instant::now()) {
            self.deaf_until = None;
            self.wait_for_applications(EpollFlags::EPOLLIN)?;
        }
        Ok(())
    }

    fn wait_for_applications(&self, flags: EpollFlags) -> Result<(), ChannelError> {
        let Some(socket) = self.applications.socket() else {
            return Ok(());
        };
        self.epoll
            .modify(socket, &mut EpollEvent::new(flags, APPLICATIONS))
            .map_err(|error| ChannelError::Wait(error.into()))
    }

    /// Writes and reads until neither goes on. Says whether there is more to read, left for the next turn.
    fn pump(&mut self) -> Result<bool, ChannelError> {
        let mut reads = 0;
        loop {
            let wrote = self.write()?;
            if !self.conversation.has_room() {
                if wrote {
                    continue;
                }
                return Ok(false);
            }
            match self.read()? {
                Read::More => reads += 1,
                Read::Drained if wrote => {}
                Read::Drained => return Ok(false),
                Read::Gone => return Ok(self.port.is_some()),
            }
            if reads >= READS_IN_TURN {
                return Ok(true);
            }
        }
    }
}
