//! The guest's end of a channel, played by the test: what an agent would say, and what no agent should.

use std::path::PathBuf;
use std::sync::mpsc as blocking;
use std::time::Duration;

use agent_protocol::limits::MAX_FRAME;
use agent_protocol::message::{Announce, Hello, HelloAck, JournalState, Ping, Telemetry};
use agent_protocol::{
    Decoder, GuestMessage, HostMessage, Parts, Reply, Report, Request, SessionId, Stamp,
    decode_host, encode_guest,
};
use persona::domain::DomainId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use virt_persona::agent::{AgentEvent, LinkConfig, Registry, Running};

pub(crate) const DOMAIN: DomainId = DomainId([0xd0; 16]);

/// A registry, its events, and a directory for sockets.
///
/// A blocking task waits for the end of the test, and ends it with a message where it hangs. In a test whose clock stands it
/// also keeps tokio from moving that whenever all tasks wait, also for a socket: only [`advance`] moves it.
pub(crate) struct Host {
    pub(crate) registry: Registry,
    pub(crate) events: mpsc::UnboundedReceiver<(DomainId, AgentEvent)>,
    pub(crate) directory: tempfile::TempDir,
    _watched: blocking::Sender<()>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut LinkConfig)) -> Self {
        let (end, wait) = blocking::channel::<()>();
        tokio::task::spawn_blocking(move || {
            if wait.recv_timeout(seconds(120)) == Err(blocking::RecvTimeoutError::Timeout) {
                eprintln!("a test waits for something that never happens");
                std::process::abort();
            }
        });
        let directory = tempfile::tempdir().unwrap();
        let mut config = LinkConfig::new(directory.path().join("run"), "host-1".to_owned());
        change(&mut config);
        let (sender, events) = mpsc::unbounded_channel();
        Self {
            registry: Registry::new(config, sender),
            events,
            directory,
            _watched: end,
        }
    }

    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A guest on a socket of this name, and the link of `domain` attached to it.
    pub(crate) fn guest(&self, domain: DomainId, name: &str) -> Guest {
        let guest = Guest::on(self.socket(name));
        self.registry
            .attach(domain, self.socket(name), Running::Yes);
        guest
    }

    pub(crate) async fn event(&mut self) -> AgentEvent {
        self.events.recv().await.unwrap().1
    }
}

/// Moves the clock and lets what is due happen.
pub(crate) async fn advance(duration: Duration) {
    tokio::time::advance(duration).await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

pub(crate) const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// QEMU's end of the socket.
pub(crate) struct Guest {
    listener: UnixListener,
}

impl Guest {
    pub(crate) fn on(path: PathBuf) -> Self {
        Self {
            listener: UnixListener::bind(path).unwrap(),
        }
    }

    pub(crate) async fn accept(&self) -> Peer {
        let (stream, _) = self.listener.accept().await.unwrap();
        Peer {
            stream,
            decoder: Decoder::new(MAX_FRAME),
            pending: Vec::new(),
            sid: None,
            seq: 0,
            inst: "inst-1".to_owned(),
            boot_id: "boot-1".to_owned(),
        }
    }

    /// Accepts a connection and answers its hello.
    pub(crate) async fn connect(&self) -> Peer {
        let mut peer = self.accept().await;
        peer.hello().await;
        peer.acknowledge().await;
        peer
    }
}

/// One connection.
pub(crate) struct Peer {
    stream: UnixStream,
    decoder: Decoder,
    pending: Vec<u8>,
    pub(crate) sid: Option<SessionId>,
    pub(crate) seq: u64,
    pub(crate) inst: String,
    pub(crate) boot_id: String,
}

impl Peer {
    /// The next message of the host; `None` when it has closed the connection.
    pub(crate) async fn next(&mut self) -> Option<(Stamp, HostMessage)> {
        self.text().await.map(|text| decode_host(&text).unwrap())
    }

    /// The text of its next frame.
    pub(crate) async fn text(&mut self) -> Option<String> {
        loop {
            let mut bytes = &self.pending[..];
            let text = self.decoder.next_frame(&mut bytes).map(str::to_owned);
            let used = self.pending.len() - bytes.len();
            self.pending.drain(..used);
            if text.is_some() {
                return text;
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.pending.extend_from_slice(&buffer[..length]),
            }
        }
    }

    /// Waits for the host to close the connection.
    pub(crate) async fn closed(&mut self) {
        while self.next().await.is_some() {}
    }

    pub(crate) async fn hello(&mut self) -> Hello {
        let Some((stamp, HostMessage::Hello(hello))) = self.next().await else {
            panic!("no hello")
        };
        self.sid = stamp.sid;
        self.seq = 0;
        hello
    }

    pub(crate) async fn request(&mut self) -> Request {
        loop {
            match self.next().await.expect("the connection is open").1 {
                HostMessage::Request(request) => return request,
                HostMessage::Credit(_) | HostMessage::Collect(_) => {}
                other => panic!("{other:?} instead of a request"),
            }
        }
    }

    pub(crate) async fn ping(&mut self) -> u64 {
        loop {
            match self.next().await.expect("the connection is open").1 {
                HostMessage::Ping(Ping { n }) => return n,
                HostMessage::Credit(_) => {}
                other => panic!("{other:?} instead of a ping"),
            }
        }
    }

    /// The parts that reports shall have, before anything else but credit.
    pub(crate) async fn parts(&mut self) -> Parts {
        loop {
            match self.next().await.expect("the connection is open").1 {
                HostMessage::Collect(collect) => return collect.parts,
                HostMessage::Credit(_) => {}
                other => panic!("{other:?} instead of parts"),
            }
        }
    }

    pub(crate) async fn credit(&mut self) -> u32 {
        match self.next().await.expect("the connection is open").1 {
            HostMessage::Credit(credit) => credit.frames,
            other => panic!("{other:?} instead of credit"),
        }
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        // A host that has closed the connection is what several tests are about.
        let _ = self.stream.write_all(bytes).await;
    }

    pub(crate) fn frame(&mut self, message: &GuestMessage) -> Vec<u8> {
        let stamp = Stamp {
            sid: self.sid.clone(),
            seq: self.seq,
        };
        self.seq += 1;
        encode_guest(&stamp, message, MAX_FRAME).unwrap()
    }

    pub(crate) async fn send(&mut self, message: &GuestMessage) {
        let frame = self.frame(message);
        self.raw(&frame).await;
    }

    pub(crate) fn ack(&self, version: u32) -> GuestMessage {
        GuestMessage::HelloAck(Box::new(HelloAck {
            v: version,
            agent_version: "0.1\u{1b}[31m".to_owned(),
            inst: self.inst.clone(),
            boot_id: self.boot_id.clone(),
            machine_id: None,
            active: None,
            rolled_back: None,
            customized: None,
            generation: 0,
            journal: JournalState::Clean,
            feats: Vec::new(),
            max_frame: MAX_FRAME,
        }))
    }

    pub(crate) async fn acknowledge(&mut self) {
        let ack = self.ack(agent_protocol::PROTOCOL);
        self.send(&ack).await;
    }

    pub(crate) async fn announce(&mut self) {
        let announce = GuestMessage::Announce(Announce {
            inst: self.inst.clone(),
            boot_id: self.boot_id.clone(),
        });
        let frame = encode_guest(&Stamp::outside(), &announce, MAX_FRAME).unwrap();
        self.raw(&frame).await;
    }

    pub(crate) async fn pong(&mut self, n: u64) {
        self.send(&GuestMessage::Pong(Ping { n })).await;
    }

    pub(crate) async fn reply(&mut self, request: &Request, value: serde_json::Value) {
        let reply = Reply::ok(request.id.clone(), &value).unwrap();
        self.send(&GuestMessage::Reply(reply)).await;
    }

    pub(crate) async fn telemetry(&mut self, online: u32) {
        self.send(&report(online)).await;
    }
}

pub(crate) fn report(online: u32) -> GuestMessage {
    let report = Report {
        at_ms: 1,
        online: format!("0-{}", online - 1),
        online_count: online,
        present_count: 8,
        memory_total_kib: 1024,
        memory_available_kib: 512,
        ..Report::default()
    };
    GuestMessage::Telemetry(Box::new(Telemetry {
        report,
        rolled_back: None,
        customized: None,
        gate: None,
        journal: None,
        rule_records: 0,
    }))
}
