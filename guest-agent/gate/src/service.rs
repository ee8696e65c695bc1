//! What a service manager is told by sd_notify(3): that the gate is ready, and that its judge still answers. Where there is
//! none nobody is told.

use std::{
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

use crate::report::line;

/// The service manager, if there is one.
pub(crate) struct Service {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

/// Where the judge says that it answers.
pub(crate) struct Watchdog {
    socket: UnixDatagram,
    pause: Duration,
}

impl Service {
    /// By the environment that it started this process with.
    pub(crate) fn find() -> Self {
        let socket = std::env::var("NOTIFY_SOCKET")
            .ok()
            .filter(|name| !name.is_empty())
            .and_then(|name| match connect(&name) {
                Ok(socket) => Some(socket),
                Err(error) => {
                    line(&format!(
                        "cannot reach the service manager at {name}: {error}"
                    ));
                    None
                }
            });
        let watchdog = std::env::var("WATCHDOG_USEC")
            .ok()
            .and_then(|text| text.parse().ok())
            .filter(|time| *time > 0)
            .map(Duration::from_micros);
        Self { socket, watchdog }
    }

    /// A connection of the judge's own; `None` when nobody listens.
    pub(crate) fn watchdog(&self) -> Option<Watchdog> {
        let socket = self.socket.as_ref()?.try_clone().ok()?;
        // Three times in the time after which the service manager would act.
        let pause = self.watchdog? / 3;
        Some(Watchdog { socket, pause })
    }

    pub(crate) fn tell_ready(&self) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(b"READY=1")
        {
            line(&format!(
                "cannot tell the service manager that the gate is ready: {error}"
            ));
        }
    }
}

impl Watchdog {
    pub(crate) fn pause(&self) -> Duration {
        self.pause
    }

    /// It does not wait: a manager that does not listen now is told the next time.
    pub(crate) fn tell(&self) {
        let _ = self.socket.send(b"WATCHDOG=1");
    }
}

fn connect(name: &str) -> std::io::Result<UnixDatagram> {
    let address = match name.strip_prefix('@') {
        Some(hidden) => SocketAddr::from_abstract_name(hidden)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
