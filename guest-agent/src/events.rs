//! The queue from the other threads to the channel, with a descriptor that the channel's epoll waits on.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
};

use agent_protocol::{Asked, GuestUser, RequestId, message::ReplyBody};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::{conversation::GuestState, exec::Piece, local::ClientId, log::log, users::NotAMember};

/// What the other threads tell the channel.
#[derive(Debug)]
pub(crate) enum Event {
    /// A request has its answer.
    Done { id: RequestId, body: ReplyBody },
    /// A running command has written something. It comes before the command's answer.
    Output { id: RequestId, piece: Piece },
    /// The guest's state has changed.
    State(GuestState),
    /// A look at disks, logs or other machines, that rules of the guest wait for, has ended.
    Looked,
    /// Who a client of the agent's own socket is, or why it may not ask.
    Identified {
        client: ClientId,
        asked: Asked,
        user: Result<GuestUser, NotAMember>,
    },
}

/// A sender of events, which wakes the channel.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    events: Sender<Event>,
    signal: Arc<EventFd>,
}

/// The channel's end of the other threads' events.
#[derive(Debug)]
pub(crate) struct FromWorkers {
    events: Receiver<Event>,
    signal: Arc<EventFd>,
}

/// The queue from the other threads to the channel.
pub(crate) fn queue() -> io::Result<(Events, FromWorkers)> {
    let (sender, receiver) = mpsc::channel();
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let signal = Arc::new(EventFd::from_value_and_flags(0, flags)?);
    Ok((
        Events {
            events: sender,
            signal: Arc::clone(&signal),
        },
        FromWorkers {
            events: receiver,
            signal,
        },
    ))
}

impl Events {
    /// Hands an event over. The channel lives as long as the process, so nothing is lost here.
    pub(crate) fn send(&self, event: Event) {
        if self.events.send(event).is_ok()
            && let Err(error) = self.signal.write(1)
        {
            log!("cannot wake the channel: {error}");
        }
    }
}

impl FromWorkers {
    /// The next event; `None` when all are taken.
    pub(crate) fn next(&mut self) -> Option<Event> {
        self.events.try_recv().ok().or_else(|| {
            // Edge-triggered: the signal is cleared once the queue looks empty, and the queue is looked at once more, since an
            // event can have come in between. Nothing to read means that an earlier turn has taken what the signal was for.
            let _ = self.signal.read();
            self.events.try_recv().ok()
        })
    }
}

impl AsFd for FromWorkers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }
}
