//! The real agent on a unix socket, in a directory of its own, and a peer that can say right and wrong things.
//! Nothing here waits for a time: it waits for what the agent says, or for its end.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

pub mod closed;
pub mod debian;
pub mod packages;
pub mod plugin;

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use agent_protocol::{
    Activation, CommandTable, Decoder, GuestMessage, GuestRules, HostMessage, OnFailure, Operation,
    Request, RequestId, SUPPORTED, Script, Session, SessionId, Settings, Stamp, decode_guest,
    encode_host, encode_request,
    limits::MAX_FRAME,
    message::{Hello, HelloAck, HelloReason, JournalState, OpStatus, Ping, ReplyBody},
};
use tempfile::TempDir;

/// A hung test shall end with a message; no test passes or fails by this time.
pub const HUNG: Duration = Duration::from_secs(120);

/// Between two looks at something that takes its time; without it asking would keep a processor from the agent.
const PAUSE: Duration = Duration::from_millis(2);

/// Looks until there is something, and says what there was not where there never is.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < HUNG, "it never was so that {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Waits until something is so.
pub fn wait(what: &str, mut so: impl FnMut() -> bool) {
    until(what, || so().then_some(()));
}

/// For what only root's agent can be seen doing.
pub fn needs_root() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test needs root, as the agent does"
    );
}

/// From one point to the next at which a test kills the agent: so many, and where `VIRT_PERSONA_ALL_POINTS` is set each is tried
/// (`make kills`).
pub fn stride(sampled: usize) -> usize {
    match std::env::var_os("VIRT_PERSONA_ALL_POINTS") {
        Some(_) => 1,
        None => sampled,
    }
}

/// A guest's tree: users, CPUs, figures.
pub struct Guest {
    directory: TempDir,
}

/// A running agent.
pub struct Agent {
    pub child: Child,
}

/// The host's end.
pub struct Peer {
    pub stream: UnixStream,
    decoder: Decoder,
    pending: Vec<u8>,
    pub session: Session,
    pings: u64,
}

impl Guest {
    /// CPU 0 and two more, the last one offline.
    pub fn new() -> Self {
        let guest = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
        guest.write(
            "etc/passwd",
            &format!("root:x:{uid}:{gid}:root:/root:/bin/sh\nweb:x:1234:1235::/:/bin/sh\n"),
        );
        guest.write("etc/group", "web:x:1235:\nextra:x:1236:web\n");
        guest.write(
            "proc/meminfo",
            "MemTotal: 1000 kB\nMemAvailable: 400 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
        );
        guest.write("proc/loadavg", "0.50 0.40 0.30 2/77 1234\n");
        guest.write("sys/devices/system/cpu/online", "0-1\n");
        guest.write("sys/devices/system/cpu/present", "0-2\n");
        fs::create_dir(guest.path("sys/devices/system/cpu/cpu0")).unwrap();
        guest.write("sys/devices/system/cpu/cpu1/online", "1");
        guest.write("sys/devices/system/cpu/cpu2/online", "0");
        guest
    }

    /// The same tree once more.
    pub fn copy(&self) -> Self {
        let copy = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let done = Command::new("cp")
            .arg("-a")
            .arg(self.path("."))
            .arg(copy.path(""))
            .status();
        assert!(done.unwrap().success());
        let _ = fs::remove_file(copy.path("socket"));
        copy
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A file's text; `None` when it is not there.
    pub fn read(&self, path: &str) -> Option<String> {
        match fs::read_to_string(self.path(path)) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    pub fn start(&self) -> Agent {
        self.start_with(&[])
    }

    pub fn start_with(&self, environment: &[(&str, String)]) -> Agent {
        let mut command = self.command();
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        // A script that an agent had just begun when it was killed may hold the socket of that one for a moment more: who
        // connects to it is thrown out when it goes.
        let _ = fs::remove_file(self.path("socket"));
        Agent {
            child: command.spawn().unwrap(),
        }
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_virt-persona-agent"));
        command
            .arg("--transport")
            .arg(format!("unix:{}", self.path("socket").display()));
        command
            .arg("--state")
            .arg(self.path("state"))
            .arg("--root")
            .arg(self.path(""));
        command
            .arg("--config")
            .arg(self.path("etc/virt-persona/agent.toml"));
        command.stdin(Stdio::null());
        command
    }

    /// Connects as soon as the agent listens.
    pub fn connect(&self, agent: &mut Agent) -> Peer {
        self.try_connect(agent)
            .unwrap_or_else(|status| panic!("the agent ended: {status}"))
    }

    /// As `connect`; the status of an agent that ended instead.
    pub fn try_connect(&self, agent: &mut Agent) -> Result<Peer, ExitStatus> {
        until("the agent listens or ends", || {
            match UnixStream::connect(self.path("socket")) {
                Ok(stream) => Some(Ok(Peer::new(stream))),
                Err(_) => agent.child.try_wait().unwrap().map(Err),
            }
        })
    }

    /// Posts a request to an agent that kills itself at some point, be it while it starts; the connection, if that lasted so long.
    pub fn post_to_doomed(&self, agent: &mut Agent, id: &RequestId, op: Operation) -> Option<Peer> {
        let mut peer = self.try_connect(agent).ok()?;
        if !peer.is_greeted() {
            return None;
        }
        match peer.try_post(id, op, 600_000) {
            Ok(()) => Some(peer),
            Err(error) if is_reset(&error) => None,
            Err(error) => panic!("the request cannot be posted: {error}"),
        }
    }

    /// The same; whether it lived long enough to answer.
    pub fn ask_doomed(&self, agent: &mut Agent, id: &RequestId, op: Operation) -> bool {
        let peer = self.post_to_doomed(agent, id, op);
        peer.is_some_and(|mut peer| peer.is_answered())
    }

    /// Starts an agent and greets it.
    pub fn greet(&self) -> (Agent, Peer, HelloAck) {
        let mut agent = self.start();
        let mut peer = self.connect(&mut agent);
        let ack = peer.hello();
        (agent, peer, ack)
    }
}

impl Agent {
    /// Kills it as a power cut or an oom killer would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn status_field(&self, field: &str) -> Vec<u64> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        tasks
            .map(|task| {
                let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
                let line = status
                    .lines()
                    .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
                    .unwrap();
                line.split_whitespace().next().unwrap().parse().unwrap()
            })
            .collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the other end is gone. A time-out is no such end.
fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// A session id that no other call gets.
pub fn fresh_session() -> Session {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    Session::new(SessionId::from_random(bytes))
}

/// What became of a request, once nothing of it is under way any more.
pub fn settled(peer: &mut Peer, request: &RequestId) -> OpStatus {
    until("nothing of the request is under way", || {
        let id = request.clone();
        Some(ok(peer.ask(Operation::OpStatus { id }))).filter(|status| *status != OpStatus::Running)
    })
}

/// What the agent says of itself once nothing of an earlier run is left to be finished or undone.
pub fn recovered(peer: &mut Peer) -> HelloAck {
    until("nothing is left of an earlier run", || {
        let ack = peer.hello_with(greeting());
        (ack.journal == JournalState::Clean).then_some(ack)
    })
}

/// A request id that no other call gets, nor that of another run of these tests: an agent that begins ends whatever runs for
/// its interrupted request, on the whole machine.
pub fn fresh_id() -> RequestId {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    id(&format!("R{}-{number}", std::process::id()))
}

pub fn id(text: &str) -> RequestId {
    RequestId::new(text).unwrap()
}

pub fn greeting() -> Hello {
    Hello {
        v: SUPPORTED,
        host_id: "test".to_owned(),
        vm_uuid: "6e3d54cb-3bd0-4b0e-9b22-0f7d9ba1f3ea".to_owned(),
        reason: HelloReason::Connect,
        max_frame: MAX_FRAME,
        feats: vec![],
        now_unix_ms: 0,
        telemetry_ms: None,
    }
}

impl Peer {
    pub fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(HUNG)).unwrap();
        stream.set_write_timeout(Some(HUNG)).unwrap();
        Self {
            stream,
            decoder: Decoder::new(MAX_FRAME),
            pending: Vec::new(),
            session: fresh_session(),
            pings: 0,
        }
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn frame(&mut self, message: &HostMessage) -> Vec<u8> {
        encode_host(&self.session.stamp(), message, MAX_FRAME).unwrap()
    }

    pub fn send(&mut self, message: &HostMessage) {
        let frame = self.frame(message);
        self.raw(&frame);
    }

    /// The next message, whatever it is; `None` at the end of the connection.
    pub fn try_receive(&mut self) -> io::Result<Option<(Stamp, GuestMessage)>> {
        loop {
            let mut input = self.pending.as_slice();
            let decoded = self
                .decoder
                .next_frame(&mut input)
                .map(|text| decode_guest(text).unwrap());
            self.pending = input.to_vec();
            if decoded.is_some() {
                return Ok(decoded);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer)? {
                0 => return Ok(None),
                length => self.pending.extend_from_slice(&buffer[..length]),
            }
        }
    }

    /// The next message of this session.
    pub fn receive(&mut self) -> GuestMessage {
        loop {
            let (stamp, message) = self
                .try_receive()
                .unwrap()
                .expect("the agent closed the connection");
            match message {
                // Outside any session, and sent whenever the port comes up.
                GuestMessage::Announce(_) => {}
                message => {
                    self.session.admit(&stamp).unwrap();
                    return message;
                }
            }
        }
    }

    pub fn hello(&mut self) -> HelloAck {
        self.hello_with(greeting())
    }

    /// Greets, and says whether the connection held until the answer.
    pub fn is_greeted(&mut self) -> bool {
        let frame = self.frame(&HostMessage::Hello(greeting()));
        match self.stream.write_all(&frame) {
            Ok(()) => {}
            Err(error) if is_reset(&error) => return false,
            Err(error) => panic!("the agent cannot be greeted: {error}"),
        }
        loop {
            match self.try_receive() {
                Ok(Some((_, GuestMessage::Announce(_)))) => {}
                Ok(Some((stamp, GuestMessage::HelloAck(_)))) => {
                    self.session.admit(&stamp).unwrap();
                    return true;
                }
                Ok(Some((_, other))) => panic!("{other:?}"),
                Ok(None) => return false,
                Err(error) if is_reset(&error) => return false,
                Err(error) => panic!("neither a greeting nor an end comes: {error}"),
            }
        }
    }

    pub fn hello_with(&mut self, hello: Hello) -> HelloAck {
        self.send(&HostMessage::Hello(hello));
        match self.receive() {
            GuestMessage::HelloAck(ack) => *ack,
            other => panic!("{other:?}"),
        }
    }

    /// Proves that the agent has taken all before, and answered nothing of it.
    pub fn expect_silence_until_pong(&mut self) {
        self.pings += 1;
        let ping = Ping { n: self.pings };
        self.send(&HostMessage::Ping(ping));
        assert_eq!(self.receive(), GuestMessage::Pong(ping));
    }

    pub fn post(&mut self, id: &RequestId, op: Operation) {
        self.post_within(id, op, 600_000);
    }

    pub fn post_within(&mut self, id: &RequestId, op: Operation, ttl_ms: u64) {
        self.try_post(id, op, ttl_ms).unwrap();
    }

    fn try_post(&mut self, id: &RequestId, op: Operation, ttl_ms: u64) -> io::Result<()> {
        let request = Request {
            id: id.clone(),
            ttl_ms,
            op,
        };
        for frame in encode_request(&mut self.session, &request, MAX_FRAME).unwrap() {
            self.stream.write_all(&frame)?;
        }
        Ok(())
    }

    /// The next message, which must be the answer to this request.
    pub fn answer(&mut self, id: &RequestId) -> ReplyBody {
        match self.receive() {
            GuestMessage::Reply(reply) if reply.re == *id => reply.body,
            other => panic!("{other:?}"),
        }
    }

    /// Whether an answer comes before the connection ends.
    fn is_answered(&mut self) -> bool {
        loop {
            match self.try_receive() {
                Ok(Some((_, GuestMessage::Reply(_)))) => return true,
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(error) if is_reset(&error) => return false,
                Err(error) => panic!("neither an answer nor an end comes: {error}"),
            }
        }
    }

    pub fn ask(&mut self, op: Operation) -> ReplyBody {
        let id = fresh_id();
        self.post(&id, op);
        self.answer(&id)
    }
}

pub fn activation(generation: u64, environment: &[(&str, &str)]) -> Activation {
    Activation {
        generation,
        persona: "web".to_owned(),
        version: generation,
        digest: format!("digest-{generation}"),
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        settings: Settings::default(),
        pre: None,
        post: None,
        commands: CommandTable::default(),
        rules: GuestRules::default(),
        adjusted: None,
    }
}

pub fn script(text: &str) -> Option<Script> {
    Some(Script {
        interpreter: "/bin/sh".to_owned(),
        text: text.to_owned(),
        timeout_ms: 600_000,
        user: "root".to_owned(),
        on_failure: OnFailure::Rollback,
    })
}

pub fn activate(activation: Activation) -> Operation {
    Operation::Activate {
        activation: Box::new(activation),
    }
}

/// The answer of a success.
pub fn ok<T: serde::de::DeserializeOwned>(body: ReplyBody) -> T {
    match body {
        ReplyBody::Ok(value) => serde_json::from_value(value).unwrap(),
        ReplyBody::Err(error) => panic!("{error}"),
    }
}

/// The code of a failure.
pub fn code(body: ReplyBody) -> String {
    match body {
        ReplyBody::Ok(value) => panic!("{value}"),
        ReplyBody::Err(error) => error.code.as_str().to_owned(),
    }
}

/// Waits until a file is there.
pub fn wait_for(path: &Path) {
    wait(&format!("{path:?} is there"), || path.exists());
}
