//! The connection to libvirtd: libvirt's event loop on a thread of its own, and a second thread that opens the
//! connection, subscribes to its events and starts again with back-off when it is lost. Calls are not here: each takes
//! a connection of its own from [`Connection::lease`] and gives it back when it ends.
//!
//! One connection a call, because in libvirt 9.0 two threads that wait for answers on one connection can miss each
//! other's (later versions fix it as "I/O stall when multiple threads issue RPC calls"): the second hangs until the
//! first has its answer, and so one hung domain would stop all others.
//!
//! ```text
//!   opening --opened--> subscribing ----> connected --close callback--> waiting --back-off--> opening
//!      `---------------failed------------------------------------------^
//! ```
//!
//! `Connected` is told after the events are registered, so that whoever then lists the domains misses nothing. Events
//! are told only between `Connected` and `Disconnected`: what comes earlier is part of that list.

use std::ops::Deref;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use persona::domain::DomainId;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, info, warn};
use virt::connect::Connect;
use virt::error::Error;
use virt::sys;

use super::super::{HypervisorError, HypervisorEvent};
use super::events::{Meaning, Memory};
use super::ffi::{Notice, Sink, Subscription, What, subscribe};
use super::read;

/// Seconds between keepalive messages, and how many may stay unanswered: a libvirtd that hangs is given up after about
/// 20 s. Less would cut off a libvirtd that is busy starting many domains on a slow host.
const KEEPALIVE: (i32, u32) = (5, 3);

/// A connection that lived this long was good: the back-off starts anew after it. One that is lost sooner counts as
/// another failure, or a libvirtd that crashes on a call would be asked again without pause.
const STABLE: Duration = Duration::from_secs(10);

/// How long to wait before the attempt after `failures` failures. A restart of libvirtd takes a second or two, so the
/// first attempts come quickly; from then on it is stopped or broken, and once in 30 s is enough.
fn back_off(failures: u32) -> Duration {
    match failures {
        0..=10 => Duration::from_millis(200),
        11..=15 => Duration::from_secs(1 << (failures - 11)),
        _ => Duration::from_secs(30),
    }
}

/// The connection of the moment, and what is remembered across connections.
pub(super) struct Connection {
    uri: String,
    pool: Mutex<Pool>,
    /// What descriptions said of the domains.
    pub(super) memory: Memory,
    orders: mpsc::Sender<Order>,
    outlet: Mutex<Outlet>,
}

/// Connections for calls.
struct Pool {
    /// The connection of the moment's session; absent while there is none.
    current: Option<(u64, Connect)>,
    /// Connections of this session that no call uses.
    idle: Vec<Connect>,
}

/// Connections that are kept for the next calls. Calls are rarely made at the same time; a connection more costs a few
/// milliseconds, one that is kept costs libvirtd a client and both sides a keepalive message in 5 s.
const IDLE: usize = 2;

/// A connection that one call uses alone.
pub(super) struct Lease {
    connection: Arc<Connection>,
    session: u64,
    connect: Option<Connect>,
}

impl Deref for Lease {
    type Target = Connect;

    fn deref(&self) -> &Connect {
        // Taken out by `drop` alone.
        self.connect
            .as_ref()
            .expect("a lease holds its connection until it is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(connect) = self.connect.take() else {
            return;
        };
        let mut pool = self.connection.pool();
        let current = pool.current.as_ref().map(|(session, _)| *session);
        // One that broke, or that belongs to a libvirtd that is gone, is closed.
        if current == Some(self.session)
            && pool.idle.len() < IDLE
            && connect.is_alive().unwrap_or(false)
        {
            pool.idle.push(connect);
        }
    }
}

/// The way out for events.
struct Outlet {
    events: UnboundedSender<HypervisorEvent>,
    /// Whether `Connected` was the last that was told of the connection. Under one lock with the sender, so that no
    /// event falls between the two.
    connected: bool,
}

/// What the supervising thread is told.
enum Order {
    /// A connection has ended.
    Closed { session: u64, reason: i32 },
    /// Describe the domain, because this notice cannot be read without that.
    LookUp { domain: DomainId, what: What },
    /// The hypervisor is dropped.
    Stop,
}

impl Connection {
    /// Starts to connect; never fails, because libvirtd may come later.
    pub(super) fn open(uri: &str, events: UnboundedSender<HypervisorEvent>) -> Arc<Self> {
        start_event_loop();
        let (orders, received) = mpsc::channel();
        let connection = Arc::new(Self {
            uri: uri.to_owned(),
            pool: Mutex::new(Pool {
                current: None,
                idle: Vec::new(),
            }),
            memory: Memory::default(),
            orders,
            outlet: Mutex::new(Outlet {
                events,
                connected: false,
            }),
        });
        let supervisor = Supervisor {
            uri: uri.to_owned(),
            connection: connection.clone(),
            received,
            sessions: 0,
        };
        let started = std::thread::Builder::new()
            .name("libvirt-connect".into())
            .spawn(move || supervisor.run());
        if let Err(error) = started {
            // All calls answer `NotConnected` then, which says the truth.
            warn!(%error, "no thread could be started for the connection to libvirt");
        }
        connection
    }

    /// A connection for one call, on the thread of that call.
    ///
    /// # Errors
    ///
    /// `NotConnected` when libvirtd is not reachable.
    pub(super) fn lease(
        self: &Arc<Self>,
        operation: &'static str,
    ) -> Result<Lease, HypervisorError> {
        let (session, idle) = {
            let mut pool = self.pool();
            let Some((session, current)) = &pool.current else {
                return Err(HypervisorError::NotConnected { operation });
            };
            let session = *session;
            // The test driver answers inside the process, and may have a host for each connection.
            if self.uri.starts_with("test:") {
                (session, Some(current.clone()))
            } else {
                (session, pool.idle.pop())
            }
        };
        let connect = match idle {
            Some(connect) => connect,
            None => open_one(&self.uri).map_err(|error| {
                debug!(uri = self.uri, %error, operation, "no connection for this call");
                HypervisorError::NotConnected { operation }
            })?,
        };
        Ok(Lease {
            connection: self.clone(),
            session,
            connect: Some(connect),
        })
    }

    /// Ends the threads of this connection.
    pub(super) fn stop(&self) {
        // Its thread may have ended already.
        let _ = self.orders.send(Order::Stop);
    }

    /// Tells an event of a domain.
    fn tell(&self, event: HypervisorEvent) {
        let outlet = self.outlet.lock().unwrap_or_else(PoisonError::into_inner);
        if outlet.connected {
            // A receiver that is gone means that the daemon ends; so in the two below.
            let _ = outlet.events.send(event);
        }
    }

    fn tell_connected(&self) {
        let mut outlet = self.outlet.lock().unwrap_or_else(PoisonError::into_inner);
        outlet.connected = true;
        let _ = outlet.events.send(HypervisorEvent::Connected);
    }

    fn tell_disconnected(&self, reason: String) {
        let mut outlet = self.outlet.lock().unwrap_or_else(PoisonError::into_inner);
        outlet.connected = false;
        let _ = outlet.events.send(HypervisorEvent::Disconnected { reason });
    }

    fn set(&self, current: Option<(u64, Connect)>) {
        let old = {
            let mut pool = self.pool();
            pool.current = current;
            std::mem::take(&mut pool.idle)
        };
        // Closing may take its time, and calls need not wait for it.
        drop(old);
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        // Whoever panicked here left a list of connections, and any such list will do.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a connection with keepalive, so that a libvirtd that hangs ends its calls.
fn open_one(uri: &str) -> Result<Connect, Error> {
    let connect = Connect::open(Some(uri))?;
    // Drivers inside the process know no keepalive and need none.
    if let Err(error) = connect.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1) {
        debug!(uri, %error, "no keepalive on this connection");
    }
    Ok(connect)
}

/// The event loop turns at least this often, in milliseconds.
const LOOP_TURN_MS: i32 = 1000;

/// Starts libvirt's event loop, once a process. It must be there before the first connection is opened.
fn start_event_loop() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Without this the library writes each error to standard error, beside our own log of it.
        virt::error::clear_error_callback();
        if let Err(error) = virt::event::event_register_default_impl() {
            warn!(%error, "libvirt's event loop is not available, so no events will arrive");
            return;
        }
        // The loop sleeps until something wakes it. A timer of its own bounds what one lost wake-up can cost.
        // It is never taken back: it lives as long as the process.
        if let Err(error) =
            virt::event::event_add_timeout(LOOP_TURN_MS, |_, _| {}, std::ptr::null_mut())
        {
            warn!(%error, "libvirt's event loop has no timer of its own");
        }
        let started = std::thread::Builder::new()
            .name("libvirt-events".into())
            .spawn(|| {
                loop {
                    if let Err(error) = virt::event::event_run_default_impl() {
                        warn!(%error, "libvirt's event loop failed; trying again");
                        // It fails at once where it fails at all, and must not take a whole CPU with that.
                        std::thread::sleep(Duration::from_millis(200));
                    }
                }
            });
        if let Err(error) = started {
            warn!(%error, "no thread could be started for libvirt's events");
        }
    });
}

struct Supervisor {
    uri: String,
    connection: Arc<Connection>,
    received: mpsc::Receiver<Order>,
    /// How many connections there have been, so that a late word of an old one is known as such.
    sessions: u64,
}

impl Supervisor {
    fn run(mut self) {
        let mut failures = 0;
        let mut told = false;
        loop {
            match self.connect() {
                Ok((connect, subscription)) => {
                    let opened = Instant::now();
                    info!(uri = self.uri, "connected to libvirt");
                    self.connection.tell_connected();
                    let reason = self.serve(&connect);
                    self.connection.set(None);
                    drop(subscription);
                    let Some(reason) = reason else { return };
                    warn!(uri = self.uri, reason, "the connection to libvirt is lost");
                    self.connection.tell_disconnected(reason.into());
                    told = true;
                    failures = if opened.elapsed() < STABLE {
                        failures + 1
                    } else {
                        0
                    };
                }
                Err(error) => {
                    self.connection.set(None);
                    debug!(uri = self.uri, %error, failures, "libvirt cannot be reached");
                    if !told {
                        warn!(uri = self.uri, %error, "libvirt cannot be reached; trying on");
                        let reason = format!("libvirt cannot be reached: {}", error.message());
                        self.connection.tell_disconnected(reason);
                        told = true;
                    }
                    failures += 1;
                }
            }
            if self.wait(back_off(failures)) == Waited::Stopped {
                return;
            }
        }
    }

    fn connect(&mut self) -> Result<(Connect, Subscription), Error> {
        let connect = open_one(&self.uri)?;
        self.sessions += 1;
        // Set before the events are registered, so that whoever is told of an event can ask.
        self.connection.set(Some((self.sessions, connect.clone())));
        let (subscription, unavailable) = subscribe(&connect, &self.sink());
        for missing in unavailable {
            // Without its end, its domains or their starts there is nothing to be kept true.
            if missing.event == "lifecycle" {
                return Err(missing.error);
            }
            info!(event = missing.event, error = %missing.error, "this event is not available here");
        }
        if !connect.is_alive().unwrap_or(false) {
            return Err(Error::last_error());
        }
        Ok((connect, subscription))
    }

    /// Reads notices on the event loop's thread.
    fn sink(&self) -> Sink {
        let session = self.sessions;
        // Weak, because the library keeps the sink as long as it keeps the connection, which for drivers inside the
        // process is for ever.
        let connection = Arc::downgrade(&self.connection);
        Arc::new(move |notice| {
            let Some(connection) = connection.upgrade() else {
                return;
            };
            match notice {
                // A supervisor that is gone has nothing left to open again.
                Notice::Closed { reason } => {
                    let _ = connection.orders.send(Order::Closed { session, reason });
                }
                Notice::Domain { domain, what } => match connection.memory.read(domain, &what) {
                    Meaning::Tell(event) => connection.tell(event),
                    Meaning::LookUp => {
                        let _ = connection.orders.send(Order::LookUp { domain, what });
                    }
                    Meaning::Nothing => {}
                },
            }
        })
    }

    /// Works until the connection ends; the reason, or `None` when the hypervisor is dropped.
    fn serve(&self, connect: &Connect) -> Option<&'static str> {
        loop {
            match self.received.recv() {
                Ok(Order::Closed { session, reason }) if session == self.sessions => {
                    return Some(close_reason(reason));
                }
                Ok(Order::Closed { .. }) => {}
                Ok(Order::LookUp { domain, what }) => self.look_up(connect, domain, &what),
                Ok(Order::Stop) | Err(_) => return None,
            }
        }
    }

    /// Describes a domain whose ports are not known, and reads the notice again.
    fn look_up(&self, connect: &Connect, domain: DomainId, what: &What) {
        match read(connect, domain) {
            Ok(found) => self.connection.memory.learn(&found),
            Err(error) => {
                debug!(%domain, %error, "a port changed, but its domain cannot be described");
                return;
            }
        }
        if let Meaning::Tell(event) = self.connection.memory.read(domain, what) {
            self.connection.tell(event);
        }
    }

    fn wait(&self, duration: Duration) -> Waited {
        let end = Instant::now() + duration;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.received.recv_timeout(left) {
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return Waited::Stopped,
                // Words of the connection that is gone.
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Waited::Over,
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Waited {
    Over,
    Stopped,
}

/// `virConnectCloseReason` as a sentence.
fn close_reason(reason: i32) -> &'static str {
    match u32::try_from(reason) {
        Ok(sys::VIR_CONNECT_CLOSE_REASON_EOF) => "libvirtd closed the connection",
        Ok(sys::VIR_CONNECT_CLOSE_REASON_KEEPALIVE) => "libvirtd did not answer for 20 s",
        Ok(sys::VIR_CONNECT_CLOSE_REASON_CLIENT) => "the connection was closed on this side",
        _ => "the connection to libvirtd failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_of_libvirtd_is_met_by_quick_attempts_and_a_stopped_one_by_rare_ones() {
        let quick: Duration = (1..=10).map(back_off).sum();
        assert_eq!(quick, Duration::from_secs(2));
        assert_eq!(back_off(11), Duration::from_secs(1));
        assert_eq!(back_off(12), Duration::from_secs(2));
        assert_eq!(back_off(15), Duration::from_secs(16));
        assert_eq!(back_off(16), Duration::from_secs(30));
        assert_eq!(back_off(u32::MAX), Duration::from_secs(30));
    }
}
