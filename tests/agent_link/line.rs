//! A line between the host's end and an agent that can go wrong in every way in which a virtio-serial port does: it cuts,
//! splits, repeats, holds back, loses, and exchanges the client or the agent while the other end notices nothing. It knows
//! no frames; what passes is bytes.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What becomes of bytes in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They arrive.
    Carry,
    /// They arrive one by one.
    Split,
    /// They are not taken: who sends them is held back.
    Hold,
    /// They are taken and lost.
    Lose,
}

enum Order {
    Mode(Mode),
    Say(Vec<u8>),
}

/// One direction. It ends when its source does, or when it is taken out.
pub(crate) struct Direction {
    orders: mpsc::UnboundedSender<Order>,
    taken: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<(OwnedReadHalf, OwnedWriteHalf)>,
}

impl Direction {
    fn start(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Self {
        let (orders, mut wishes) = mpsc::unbounded_channel();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let record = taken.clone();
        let task = tokio::spawn(async move {
            let (mut mode, mut ended) = (Mode::Carry, false);
            let mut buffer = [0; 4096];
            loop {
                tokio::select! {
                    // What was on the line before an end was joined to it comes before what that end says.
                    biased;
                    wish = wishes.recv() => match wish {
                        None => return (from, to),
                        Some(Order::Mode(wanted)) => mode = wanted,
                        // Who has gone does not hear it.
                        Some(Order::Say(bytes)) => drop(to.write_all(&bytes).await),
                    },
                    read = from.read(&mut buffer), if mode != Mode::Hold && !ended => {
                        let Ok(length @ 1..) = read else {
                            ended = true;
                            continue;
                        };
                        record.lock().unwrap().extend_from_slice(&buffer[..length]);
                        let pieces = if mode == Mode::Split { 1 } else { length };
                        if mode != Mode::Lose {
                            for piece in buffer[..length].chunks(pieces) {
                                let _ = to.write_all(piece).await;
                            }
                        }
                    }
                }
            }
        });
        Self {
            orders,
            taken,
            task,
        }
    }

    /// From now on.
    pub(crate) fn set(&self, mode: Mode) {
        let _ = self.orders.send(Order::Mode(mode));
    }

    /// Puts bytes on the line that nobody said just now.
    pub(crate) fn say(&self, bytes: &[u8]) {
        let _ = self.orders.send(Order::Say(bytes.to_vec()));
    }

    /// All that was taken so far, whether it arrived or not.
    pub(crate) fn taken(&self) -> Vec<u8> {
        self.taken.lock().unwrap().clone()
    }

    /// The latest frame that holds these words, once one was taken.
    pub(crate) async fn frame_with(&self, words: &str) -> Vec<u8> {
        loop {
            let taken = self.taken();
            let frames = taken.split_inclusive(|byte| *byte == b'\n');
            let held = |frame: &&[u8]| {
                frame.ends_with(b"\n") && String::from_utf8_lossy(frame).contains(words)
            };
            if let Some(frame) = frames.rev().find(held) {
                return frame.to_vec();
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    async fn stop(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        drop(self.orders);
        self.task.await.unwrap()
    }
}

/// One end of a line, taken off it.
pub(crate) struct End(OwnedReadHalf, OwnedWriteHalf);

impl From<UnixStream> for End {
    fn from(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        Self(read, write)
    }
}

/// Both directions.
pub(crate) struct Line {
    pub(crate) from_host: Direction,
    pub(crate) from_guest: Direction,
}

impl Line {
    /// Between two ends, of which none hears when the other goes: the test decides what QEMU would tell.
    pub(crate) fn join(host: impl Into<End>, guest: impl Into<End>) -> Self {
        let (host, guest) = (host.into(), guest.into());
        Self {
            from_host: Direction::start(host.0, guest.1),
            from_guest: Direction::start(guest.0, host.1),
        }
    }

    /// Takes both ends off: the host's and the guest's.
    pub(crate) async fn part(self) -> (End, End) {
        let (host_read, guest_write) = self.from_host.stop().await;
        let (guest_read, host_write) = self.from_guest.stop().await;
        (End(host_read, host_write), End(guest_read, guest_write))
    }

    /// Closes both ends.
    pub(crate) async fn cut(self) {
        self.part().await;
    }

    /// Waits for the host's next connection and joins it to the guest's end of this line, which hears nothing of it.
    pub(crate) async fn swap_client(self, listener: &UnixListener) -> Self {
        let (host, guest) = self.part().await;
        drop(host);
        Self::join(accept(listener).await, guest)
    }
}

/// The host's next connection.
pub(crate) async fn accept(listener: &UnixListener) -> UnixStream {
    listener.accept().await.unwrap().0
}
