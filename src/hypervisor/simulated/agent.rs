//! The agent of a simulated guest: speaks the real protocol on the socket of the domain's channel, and does to the
//! simulated guest what it is asked. It changes no file but its socket and runs nothing; the real agent is `guest-agent`.
//!
//! It is as gone as its guest: a domain that is stopped closes the channel, a paused one says nothing, and the next
//! start is another boot. What its disk would keep (generation, persona, answers) it keeps.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use agent_protocol::activation::{Activation, ActivationReply, Change};
use agent_protocol::coordination::{Consent, GrownReply};
use agent_protocol::envelope::decode_request_body;
use agent_protocol::limits::{CREDIT_MAX, MAX_FRAME};
use agent_protocol::message::{
    Active, DeactivationReply, ErrorCode, HelloAck, JournalState, OnlineCpusReply, OpStatus,
    ReplyBody, Retry, Telemetry,
};
use agent_protocol::settings::SETTINGS_FEATURE;
use agent_protocol::{
    Assembler, CpuList, DecodeError, Decoder, GuestMessage, HostMessage, Operation, Reply,
    ReplyError, Request, Session, SettingLine, SettingOutcome, Settings, SettingsReply,
    decode_host, encode_guest,
};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::DomainId;
use super::conduct::Conduct;
use super::fault::{CallName, Fault};
use super::guest::cpu_list;
use super::machine::Machine;
use super::world::{Power, World};

/// How often a flood comes, and how many reports at once.
const FLOOD: (Duration, usize) = (Duration::from_millis(50), 50);

/// Why a connection is over.
struct Over;

/// Lives as long as the domain is defined.
pub(super) async fn run(
    world: Weak<World>,
    domain: DomainId,
    socket: PathBuf,
    mut power: watch::Receiver<Power>,
) {
    let listener = match listen(&socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%domain, socket = %socket.display(), %error, "the simulated agent cannot listen");
            return;
        }
    };
    loop {
        let on = *power.borrow_and_update();
        if on.instance.is_none() || !on.runs {
            if power.changed().await.is_err() {
                return;
            }
            continue;
        }
        let stream = tokio::select! {
            changed = power.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => return,
            },
        };
        let mut peer = Peer {
            world: world.clone(),
            domain,
            stream,
            decoder: Decoder::new(MAX_FRAME),
            session: None,
            assembler: Assembler::new(),
            credit: 0,
            period: None,
            next: None,
            boot: on.instance.unwrap_or(0),
        };
        let mut on = power.clone();
        tokio::select! {
            // QEMU is gone, and the socket with it.
            () = ended(&mut on, peer.boot) => {}
            _ = peer.talk(&power) => {}
        }
    }
}

fn listen(socket: &Path) -> std::io::Result<UnixListener> {
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(socket)
}

/// Waits until the instance that was booted is no more.
async fn ended(power: &mut watch::Receiver<Power>, boot: u32) {
    // Without a sender the whole domain is gone.
    let _ = power.wait_for(|power| power.instance != Some(boot)).await;
}

struct Peer {
    world: Weak<World>,
    domain: DomainId,
    stream: UnixStream,
    decoder: Decoder,
    session: Option<Session>,
    assembler: Assembler,
    credit: u32,
    period: Option<Duration>,
    /// When the next report is due.
    next: Option<Instant>,
    boot: u32,
}

impl Peer {
    /// Reads the machine, or changes it.
    fn machine<T>(&self, work: impl FnOnce(&mut Machine, Duration) -> T) -> Result<T, Over> {
        let world = self.world.upgrade().ok_or(Over)?;
        let now = world.now();
        let mut state = world.lock();
        let machine = state.machines.get_mut(&self.domain).ok_or(Over)?;
        machine.advance(now);
        Ok(work(machine, now))
    }

    async fn talk(&mut self, power: &watch::Receiver<Power>) -> Result<(), Over> {
        let mut bytes = vec![0; 8192];
        let mut power = power.clone();
        loop {
            // A paused guest says nothing and reads nothing.
            power.wait_for(|power| power.runs).await.map_err(|_| Over)?;
            let conduct = self.machine(|machine, _| machine.inside.conduct)?;
            if conduct == Some(Conduct::Hangs) {
                sleep(FLOOD.0).await;
                continue;
            }
            let floods = conduct == Some(Conduct::FloodsTelemetry) && self.session.is_some();
            let due = if floods {
                Some(Instant::now() + FLOOD.0)
            } else {
                self.next.filter(|_| self.credit > 0)
            };
            tokio::select! {
                read = self.stream.read(&mut bytes) => {
                    let length = read.ok().filter(|length| *length > 0).ok_or(Over)?;
                    self.hear(&bytes[..length]).await?;
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let reports = if floods { FLOOD.1 } else { 1 };
                    for _ in 0..reports {
                        self.report().await?;
                    }
                }
                changed = power.changed() => changed.map_err(|_| Over)?,
            }
        }
    }

    async fn report(&mut self) -> Result<(), Over> {
        self.credit = self.credit.saturating_sub(1);
        self.next = self.period.map(|period| Instant::now() + period);
        let report = self.machine(Machine::report)?;
        self.say(&GuestMessage::Telemetry(Box::new(Telemetry {
            report,
            rolled_back: None,
            customized: None,
            gate: None,
            journal: None,
            rule_records: 0,
        })))
        .await
    }

    async fn say(&mut self, message: &GuestMessage) -> Result<(), Over> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        let frame = encode_guest(&session.stamp(), message, MAX_FRAME).map_err(|_| Over)?;
        self.stream.write_all(&frame).await.map_err(|_| Over)
    }

    async fn hear(&mut self, bytes: &[u8]) -> Result<(), Over> {
        let mut rest = bytes;
        let mut frames = Vec::new();
        while let Some(text) = self.decoder.next_frame(&mut rest) {
            frames.push(decode_host(text));
        }
        for frame in frames {
            let (stamp, message) = match frame {
                Ok(frame) => frame,
                Err(DecodeError::Request { id, source, .. }) => {
                    self.refuse(id, ErrorCode::Malformed, &source.to_string())
                        .await?;
                    continue;
                }
                Err(_) => continue,
            };
            if let HostMessage::Hello(hello) = message {
                let mut session = Session::new(stamp.sid.clone().ok_or(Over)?);
                // The first frame of a session counts in it.
                let _ = session.admit(&stamp);
                let version = agent_protocol::PROTOCOL;
                self.session = Some(session);
                self.assembler = Assembler::new();
                self.credit = 0;
                self.period = hello.telemetry_ms.map(Duration::from_millis);
                self.next = self.period.map(|period| Instant::now() + period);
                let ack = self.machine(|machine, _| acknowledgement(machine, version))?;
                let ack = HelloAck {
                    boot_id: format!("boot-{}", self.boot),
                    ..ack
                };
                self.say(&GuestMessage::HelloAck(Box::new(ack))).await?;
                continue;
            }
            let admitted = self.session.as_mut().map(|session| session.admit(&stamp));
            if !matches!(admitted, Some(Ok(()))) {
                continue;
            }
            match message {
                // It reports what it always does, and nobody in this guest asks for personas.
                HostMessage::Hello(_) | HostMessage::Collect(_) | HostMessage::Told(_) => {}
                HostMessage::Ping(ping) => self.say(&GuestMessage::Pong(ping)).await?,
                HostMessage::Credit(credit) => {
                    self.credit = self.credit.saturating_add(credit.frames).min(CREDIT_MAX);
                }
                HostMessage::Request(request) => self.answer(request).await?,
                HostMessage::Chunk(chunk) => match self.assembler.take(&chunk) {
                    Ok(None) => {}
                    Ok(Some(body)) => match decode_request_body(&body, &stamp) {
                        Ok(request) => self.answer(request).await?,
                        Err(error) => {
                            self.refuse(chunk.xid, ErrorCode::Malformed, &error.to_string())
                                .await?;
                        }
                    },
                    Err(refusal) => {
                        self.refuse(chunk.xid, ErrorCode::Malformed, &refusal.to_string())
                            .await?;
                    }
                },
            }
        }
        Ok(())
    }

    async fn refuse(
        &mut self,
        id: agent_protocol::RequestId,
        code: ErrorCode,
        words: &str,
    ) -> Result<(), Over> {
        let error = ReplyError::new(code, words, Retry::Useless);
        self.say(&GuestMessage::Reply(Reply::err(id, error))).await
    }

    /// Does what is asked, once, with what goes wrong with it.
    async fn answer(&mut self, request: Request) -> Result<(), Over> {
        let expires = Instant::now() + Duration::from_millis(request.ttl_ms);
        let (before, fault, delay) = self.machine(|machine, _| {
            let fault = CallName::of_guest(&request.op).and_then(|call| machine.take_fault(call));
            let delay = machine
                .inside
                .conduct
                .map_or(Duration::ZERO, Conduct::delay);
            (machine.inside.answer(&request.id), fault, delay)
        })?;
        sleep(delay).await;
        if matches!(request.op, Operation::PrepareShrink { .. }) {
            match self.machine(|machine, _| machine.inside.conduct)? {
                Some(Conduct::IgnoresShrinks) => return Ok(()),
                Some(Conduct::DiesAtShrinks) => {
                    let world = self.world.upgrade().ok_or(Over)?;
                    world.restart(self.domain);
                    return Err(Over);
                }
                _ => {}
            }
        }
        match &fault {
            Some(Fault::Refuse { message }) => {
                return self.refuse(request.id, ErrorCode::Forbidden, message).await;
            }
            Some(Fault::Hang { ms }) => {
                sleep(Duration::from_millis(*ms)).await;
                return Ok(());
            }
            Some(Fault::Slow { ms } | Fault::EventsLate { ms }) => {
                sleep(Duration::from_millis(*ms)).await;
            }
            _ => {}
        }
        if before.is_none() && Instant::now() >= expires {
            return self
                .refuse(request.id, ErrorCode::Expired, "it came too late")
                .await;
        }
        let body = match before {
            Some(body) => body,
            None => {
                let body =
                    self.machine(|machine, now| obey(machine, &request.op, fault.as_ref(), now))?;
                let question = matches!(
                    request.op,
                    Operation::Report
                        | Operation::OpStatus { .. }
                        | Operation::PrepareShrink { .. }
                        | Operation::Grown { .. }
                );
                if !question {
                    let (id, kept) = (request.id.clone(), body.clone());
                    self.machine(|machine, _| machine.inside.remember(id, kept))?;
                }
                body
            }
        };
        let reply = GuestMessage::Reply(Reply {
            re: request.id,
            body,
        });
        match fault {
            Some(Fault::AnswerLost) => Err(Over),
            Some(Fault::EventsLost) => Ok(()),
            Some(Fault::EventsDuplicated) => {
                self.say(&reply).await?;
                self.say(&reply).await
            }
            Some(Fault::ConnectionLost { ms }) => {
                let world: Arc<World> = self.world.upgrade().ok_or(Over)?;
                world.lose_connection(Duration::from_millis(ms));
                self.say(&reply).await
            }
            Some(Fault::Dies) => {
                let world = self.world.upgrade().ok_or(Over)?;
                world.restart(self.domain);
                Err(Over)
            }
            _ => self.say(&reply).await,
        }
    }
}

fn acknowledgement(machine: &Machine, version: u32) -> HelloAck {
    HelloAck {
        v: version,
        agent_version: "0.0.0-simulated".into(),
        inst: "simulated".into(),
        boot_id: String::new(),
        machine_id: None,
        active: machine.inside.active.clone(),
        rolled_back: None,
        customized: None,
        generation: machine.inside.newest,
        journal: JournalState::Clean,
        feats: vec![SETTINGS_FEATURE.to_owned()],
        max_frame: MAX_FRAME,
    }
}

fn obey(
    machine: &mut Machine,
    operation: &Operation,
    fault: Option<&Fault>,
    now: Duration,
) -> ReplyBody {
    let partly = matches!(fault, Some(Fault::Partial { .. }));
    match operation {
        Operation::OnlineCpus { target } => {
            let (before, present) = (machine.inside.online(), machine.present());
            let switched = if partly && (1..=present).contains(target) {
                machine.inside.switch_partly(*target, present);
                Ok(machine.inside.online())
            } else {
                machine.inside.switch(*target, present)
            };
            match switched {
                Ok(online) => done(&OnlineCpusReply {
                    online: list(online),
                    present: list(present.max(online)),
                    outcome: change(online != before),
                }),
                Err(words) => refused(ErrorCode::Cpu, &words),
            }
        }
        // The environment is there, but the `post` script failed, so that what was before is back.
        Operation::Activate { .. } if partly => {
            refused(ErrorCode::PostFailed, "the post script failed")
        }
        Operation::Activate { activation } => activate(machine, activation),
        Operation::Deactivate { generation } => {
            if *generation < machine.inside.newest {
                return refused(ErrorCode::StaleGeneration, "a newer generation was seen");
            }
            machine.inside.newest = *generation;
            let active = machine.inside.active.take();
            done(&DeactivationReply {
                generation: *generation,
                outcome: change(active.is_some()),
                needs_relogin: false,
                settings: None,
            })
        }
        Operation::OpStatus { id } => done(&match machine.inside.answer(id) {
            Some(result) => OpStatus::Done { result },
            None => OpStatus::Unknown,
        }),
        Operation::Report => done(&machine.report(now)),
        Operation::PrepareShrink { .. } if partly || machine.inside.refuses_shrinks() => {
            done(&Consent::Refused {
                reason: "hook backup: a backup runs".into(),
                retry_after_ms: None,
            })
        }
        Operation::PrepareShrink { .. } => done(&Consent::Agreed),
        Operation::Grown { .. } => done(&GrownReply {
            ran: u32::from(partly),
            failed: partly.then(|| "hook pool: no room".into()),
        }),
        Operation::Exec { .. } => refused(
            ErrorCode::Forbidden,
            "the guest's owner does not allow `commands` in agent.toml",
        ),
        Operation::Perform { .. } | Operation::RuleRecords { .. } => refused(
            ErrorCode::Unsupported,
            "a simulated guest evaluates no rules",
        ),
        Operation::Unknown(name) => refused(ErrorCode::Unsupported, name),
    }
}

fn activate(machine: &mut Machine, activation: &Activation) -> ReplyBody {
    let inside = &mut machine.inside;
    let holds = inside.active.as_ref().is_some_and(|active| {
        active.generation == activation.generation && active.digest == activation.digest
    });
    if activation.generation < inside.newest {
        return refused(ErrorCode::StaleGeneration, "a newer generation was seen");
    }
    inside.newest = activation.generation;
    inside.active = Some(Active {
        generation: activation.generation,
        persona: activation.persona.clone(),
        version: activation.version,
        digest: activation.digest.clone(),
    });
    done(&ActivationReply {
        generation: activation.generation,
        outcome: change(!holds),
        pre: None,
        post: None,
        environment_files: Vec::new(),
        needs_relogin: false,
        settings: (!activation.settings.is_empty()).then(|| settings(&activation.settings)),
    })
}

/// A simulated guest is as it is asked to be.
fn settings(settings: &Settings) -> SettingsReply {
    let named = |kind: &str, name: &String| format!("{kind} {name}");
    let sysctl = settings.sysctl.keys().map(|name| named("sysctl", name));
    let services = settings.services.keys().map(|name| named("service", name));
    let lines: Vec<SettingLine> = sysctl
        .chain(services)
        .map(|setting| SettingLine::new(&setting, SettingOutcome::Applied, ""))
        .collect();
    SettingsReply::fit(&lines)
}

fn change(changed: bool) -> Change {
    if changed {
        Change::Changed
    } else {
        Change::Unchanged
    }
}

fn list(count: u32) -> CpuList {
    // What is written here is a list of the kernel's form.
    CpuList::parse(&cpu_list(count)).unwrap_or_default()
}

fn done(answer: &impl Serialize) -> ReplyBody {
    // The types of the protocol have a JSON form.
    ReplyBody::Ok(serde_json::to_value(answer).unwrap_or_default())
}

fn refused(code: ErrorCode, words: &str) -> ReplyBody {
    ReplyBody::Err(ReplyError::new(code, words, Retry::Useless))
}
