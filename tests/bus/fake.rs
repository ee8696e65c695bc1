//! A scripted daemon: publishes a view, answers commands out of a small state, writes down who asked what.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use agent_protocol::command::{Output, Stream};
use persona::domain::DomainId;
use persona::rule::Knob;
use persona::signal::{Source, Unit};
use persona::units::{Bytes, Moment};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use virt_persona::bus::{self, BusError};
use virt_persona::command::{
    Caller, Command, Execution, Handed, Mode, Noun, Refusal, Reply, Request,
};
use virt_persona::hypervisor::RunState;
use virt_persona::view::{
    ActivationState, ActivationView, AdoptionLine, AdoptionState, AdoptionView, AdoptionWhen,
    AgentState, AgentView, AppliedView, AuditRecordView, AuditView, BoundPersona, Change,
    CheckState, CheckView, ClampView, DecisionView, DoctorView, DocumentFormat, DocumentView,
    DomainView, EffectView, EffectiveValueView, EffectiveView, ExecutionEndView, ExecutionLine,
    ExplainView, FragmentView, Held, HeldBy, HoldView, HostState, HostView, HypervisorState,
    HypervisorView, LimitActionView, LimitLineView, LimitView, Listing, LookedView, ManagerView,
    MappedView, MappingView, MemoryMechanism, MemoryView, Origin, OriginView, OutcomeWord,
    PersonaView, PlanLine, PlanView, ProblemView, ProposalState, ProposalView, ReadingView,
    Refuser, Resource, ResourceView, RetiredView, RuleState, RuleView, SampleView, Severity,
    StoredView, TruthWord, VcpuView, VersionView, View,
};

use crate::private_bus::PrivateBus;

pub(crate) const WEB: DomainId = DomainId([0x1f; 16]);
pub(crate) const DB: DomainId = DomainId([0xab; 16]);

/// The scripted daemon.
pub(crate) struct Fake {
    pub(crate) views: watch::Sender<Arc<View>>,
    pub(crate) events: broadcast::Sender<AuditRecordView>,
    pub(crate) asked: Arc<Mutex<Vec<(Command, Caller)>>>,
    bus: JoinHandle<Result<(), BusError>>,
    answers: JoinHandle<()>,
}

impl Fake {
    pub(crate) async fn start(bus: &PrivateBus) -> Self {
        let (views, receiver) = watch::channel(Arc::new(view()));
        let (events, event_receiver) = broadcast::channel(16);
        let (requests, request_receiver) = mpsc::channel(16);
        let served = bus::serve(bus.choice(), requests, receiver, event_receiver)
            .await
            .expect("the service");
        let asked = Arc::new(Mutex::new(Vec::new()));
        Self {
            bus: tokio::spawn(served.run()),
            answers: tokio::spawn(answer(request_receiver, views.clone(), asked.clone())),
            views,
            events,
            asked,
        }
    }

    /// Publishes a changed view.
    pub(crate) fn publish(&self, change: impl FnOnce(&mut View)) {
        publish(&self.views, change);
    }

    /// What was asked, with who asked.
    pub(crate) fn asked(&self) -> Vec<(Command, Caller)> {
        self.asked.lock().expect("the journal").clone()
    }

    /// Ends the daemon; gives how its bus ended.
    pub(crate) async fn stop(self) -> Result<(), BusError> {
        let Self {
            views,
            bus,
            answers,
            ..
        } = self;
        answers.abort();
        // The task must have let go of its sender, or the bus would wait for further views.
        let _ = answers.await;
        drop(views);
        bus.await.expect("the bus's task")
    }
}

fn publish(views: &watch::Sender<Arc<View>>, change: impl FnOnce(&mut View)) {
    views.send_modify(|view| {
        let mut next = View::clone(view);
        change(&mut next);
        *view = Arc::new(next);
    });
}

async fn answer(
    mut requests: mpsc::Receiver<Request>,
    views: watch::Sender<Arc<View>>,
    asked: Arc<Mutex<Vec<(Command, Caller)>>>,
) {
    while let Some(request) = requests.recv().await {
        asked
            .lock()
            .expect("the journal")
            .push((request.command.clone(), request.caller.clone()));
        let reply = carry_out(request.command, &request.caller, &views);
        // A caller that has gone is no failure of the daemon.
        let _ = request.reply.send(reply);
    }
}

fn carry_out(
    command: Command,
    caller: &Caller,
    views: &watch::Sender<Arc<View>>,
) -> Result<Reply, Refusal> {
    let now = views.borrow().clone();
    match command {
        Command::CreatePersona { document, name, .. } => {
            if document.contains("nonsense") {
                return Err(Refusal::InvalidPersona {
                    problems: vec![problem()],
                    rendered: "error: a persona has no key `nonsense`\n --> document:1:1\n"
                        .to_owned(),
                });
            }
            let name = name.unwrap_or_else(|| "fresh".to_owned());
            if now.personas.contains_key(&name) {
                return Err(Refusal::AlreadyExists { name });
            }
            publish(views, |view| {
                view.personas.insert(name.clone(), persona(&name));
            });
            Ok(Reply::Stored(stored(&name, Change::Changed)))
        }
        Command::UpdatePersona { name, .. } => {
            now.persona_named(&name)?;
            Ok(Reply::Stored(stored(&name, Change::Unchanged)))
        }
        Command::DeletePersona { name, .. } => {
            now.persona_named(&name)?;
            publish(views, |view| {
                view.personas.remove(&name);
            });
            Ok(Reply::Done(Change::Changed))
        }
        Command::SetCurrent { name, version } => {
            now.persona_named(&name)?;
            if version > 2 {
                return Err(Refusal::NotFound {
                    what: Noun::Version,
                    name: format!("{name}@{version}"),
                    nearest: None,
                });
            }
            Ok(Reply::Stored(stored(&name, Change::Changed)))
        }
        Command::ShowPersona(wanted) => Ok(Reply::Document(DocumentView {
            version: version(&wanted.name, wanted.version.unwrap_or(2)),
            document: format!("name: {}\n", wanted.name),
        })),
        Command::History { name } => Ok(Reply::History(vec![version(&name, 1), version(&name, 2)])),
        Command::Apply {
            domain,
            persona,
            mode,
        } => {
            let domain = now.domain_named(&domain)?;
            if persona.name == "broken" {
                return Err(Refusal::AgentUnavailable {
                    domain: domain.name.clone(),
                    reason: "it has no channel".to_owned(),
                });
            }
            now.persona_named(&persona.name)?;
            if mode == Mode::DryRun {
                return Ok(Reply::Plan(plan(domain, &persona.name)));
            }
            let id = domain.id;
            let applied = AppliedView {
                domain: id,
                name: domain.name.clone(),
                persona: Some(BoundPersona {
                    origin: Origin::Applied,
                    tag: None,
                    generation: 8,
                    ..bound(&persona.name)
                }),
                activation: activation(ActivationState::Sent),
                generation: 8,
            };
            let end = if persona.name == "fails" {
                ActivationState::Failed
            } else {
                ActivationState::Active
            };
            publish(views, |view| {
                let domain = view.domains.get_mut(&id).expect("a domain of the view");
                domain.persona = applied.persona.clone();
                domain.activation = activation(end);
            });
            Ok(Reply::Applied(applied))
        }
        Command::Deactivate { domain } => {
            let domain = now.domain_named(&domain)?;
            Ok(Reply::Applied(AppliedView {
                domain: domain.id,
                name: domain.name.clone(),
                persona: None,
                activation: activation(ActivationState::Deactivating),
                generation: 9,
            }))
        }
        Command::Tag {
            domain,
            add,
            remove,
        } => {
            let domain = now.domain_named(&domain)?;
            let mut tags = domain.tags.clone();
            tags.retain(|tag| !remove.contains(tag));
            tags.extend(add);
            let id = domain.id;
            publish(views, |view| {
                view.domains
                    .get_mut(&id)
                    .expect("a domain of the view")
                    .tags = tags.clone();
            });
            Ok(Reply::Tags(tags))
        }
        Command::Adopt {
            domain,
            max_vcpus,
            max_memory,
            plan,
            mode,
        } => {
            let domain = now.domain_named(&domain)?;
            if plan.is_some_and(|plan| plan != "plan-1") {
                return Err(Refusal::Conflict {
                    reason: "the domain was changed since this plan was made".to_owned(),
                });
            }
            let (vcpus, memory) = (
                max_vcpus.unwrap_or(4),
                max_memory.unwrap_or(Bytes::from_mib(2048)),
            );
            let line = |subject: &str, now: &str, then: String, when, why: &str| AdoptionLine {
                subject: subject.to_owned(),
                now: now.to_owned(),
                then,
                when,
                why: why.to_owned(),
            };
            Ok(Reply::Adoption(Box::new(AdoptionView {
                domain: domain.id,
                name: domain.name.clone(),
                state: match mode {
                    Mode::DryRun => AdoptionState::Planned,
                    Mode::Apply => AdoptionState::Done,
                },
                plan: "plan-1".to_owned(),
                lines: vec![
                    line(
                        "vCPUs at most",
                        "1, all from the boot",
                        format!("{vcpus}, 1 of them at boot"),
                        AdoptionWhen::NextStart,
                        "vCPUs can be added while it runs",
                    ),
                    line(
                        "memory at most",
                        "512 MiB, all from the boot",
                        memory.to_string(),
                        AdoptionWhen::NextStart,
                        "as was asked for",
                    ),
                    line(
                        "balloon statistics",
                        "off",
                        "every 2 s".to_owned(),
                        AdoptionWhen::Now,
                        "how much the guest uses is known without an agent",
                    ),
                    line(
                        "free page reporting",
                        "off",
                        "off".to_owned(),
                        AdoptionWhen::Never,
                        "it was turned off, and stays so",
                    ),
                ],
                notes: vec!["a reboot inside it is not enough".to_owned()],
            })))
        }
        Command::UndoAdoption { domain, mode } => {
            let domain = now.domain_named(&domain)?;
            if domain.name == "db" {
                return Err(Refusal::Refused {
                    reason: "the definition was changed since it was prepared:\n- <memory>1</memory>\n+ <memory>2</memory>"
                        .to_owned(),
                });
            }
            Ok(Reply::Adoption(Box::new(AdoptionView {
                domain: domain.id,
                name: domain.name.clone(),
                state: match mode {
                    Mode::DryRun => AdoptionState::Planned,
                    Mode::Apply => AdoptionState::Done,
                },
                plan: "plan-2".to_owned(),
                lines: vec![AdoptionLine {
                    subject: "definition".to_owned(),
                    now: "as root prepared it".to_owned(),
                    then: "as it was before".to_owned(),
                    when: AdoptionWhen::NextStart,
                    why: "nobody has changed it since".to_owned(),
                }],
                notes: vec!["the running domain keeps what it has".to_owned()],
            })))
        }
        Command::Map {
            tag,
            persona,
            priority,
        } => {
            now.persona_named(&persona)?;
            publish(views, |view| {
                view.mappings.push(MappingView {
                    tag,
                    persona: Some(persona),
                    fragment: None,
                    priority,
                    domains: Vec::new(),
                });
            });
            Ok(Reply::Done(Change::Changed))
        }
        Command::MapOverride {
            tag,
            document,
            priority,
            ..
        } => {
            if document.contains("wrong") {
                return Err(Refusal::InvalidPersona {
                    problems: vec![problem()],
                    rendered: "error: the document has a problem\n".to_owned(),
                });
            }
            publish(views, |view| {
                view.mappings.push(MappingView {
                    tag: tag.clone(),
                    persona: None,
                    fragment: Some("fade".repeat(16)),
                    priority,
                    domains: Vec::new(),
                });
            });
            Ok(Reply::Mapped(MappedView {
                tag,
                change: Change::Changed,
                warnings: vec![ProblemView {
                    document: Some("override".to_owned()),
                    severity: Severity::Warning,
                    ..problem()
                }],
            }))
        }
        Command::ShowOverride { tag } => Ok(Reply::Fragment(FragmentView {
            tag,
            digest: "fade".repeat(16),
            format: DocumentFormat::Yaml,
            document: "description: laid over\n".to_owned(),
        })),
        Command::Effective { domain } => {
            now.domain_named(&domain)?;
            let origin = |document: &str, line, tag: Option<&str>| OriginView {
                document: document.to_owned(),
                line,
                tag: tag.map(str::to_owned),
            };
            let value = |path: &str, text: &str, origin| EffectiveValueView {
                path: path.to_owned(),
                text: text.to_owned(),
                origin,
            };
            Ok(Reply::Effective(Box::new(EffectiveView {
                document: "name: web-high # web-high@2:1\ndescription: laid over # override:1 (tag prod)\n".to_owned(),
                values: vec![
                    value("name", "web-high", origin("web-high@2", 1, None)),
                    value("description", "laid over", origin("override", 1, Some("prod"))),
                ],
            })))
        }
        Command::Unmap { tag } => {
            publish(views, |view| view.mappings.retain(|m| m.tag != tag));
            Ok(Reply::Done(Change::Changed))
        }
        Command::Execute { domain, execution } => {
            now.domain_named(&domain)?;
            let (mut write, read) = Handed::pipe().expect("a pipe");
            for line in execution_lines(&execution) {
                let mut text = serde_json::to_vec(&line).expect("JSON");
                text.push(b'\n');
                std::io::Write::write_all(&mut write, &text).expect("room");
            }
            Ok(Reply::Execution(read))
        }
        Command::Recording { domain, .. } => {
            now.domain_named(&domain)?;
            let folder = std::env::temp_dir();
            let (mut file, read) = Handed::file(&folder).expect("a file");
            std::io::Write::write_all(&mut file, b"{\"virt_persona_recording\":1}\n")
                .expect("room");
            Ok(Reply::Recording(read))
        }
        Command::Explain { at: Some(_), .. } => Err(Refusal::Refused {
            reason: "nothing is recorded of that time".to_owned(),
        }),
        Command::Explain { domain, .. } => {
            let domain = now.domain_named(&domain)?;
            Ok(Reply::Explain(Box::new(explain(domain))))
        }
        Command::Audit { domain, .. } => {
            if let Some(domain) = domain {
                now.domain_named(&domain)?;
            }
            Ok(Reply::Audit(AuditView {
                records: vec![record(1), record(2)],
            }))
        }
        Command::Doctor { domain } => Ok(Reply::Doctor(DoctorView {
            checks: vec![
                check(None, CheckState::Ok),
                check(
                    Some("web"),
                    if domain.is_some() {
                        CheckState::Warn
                    } else {
                        CheckState::Fail
                    },
                ),
            ],
        })),
        Command::Approve { id } => decided(id, ProposalState::Approved, caller),
        Command::Reject { id } => decided(id, ProposalState::Rejected, caller),
        Command::Hold {
            domain, resource, ..
        } => {
            now.domain_named(&domain)?;
            Ok(Reply::Held(vec![HoldView {
                resource: resource.unwrap_or(Held::Vcpus),
                reason: format!("{} wants it left alone", caller.name),
                until: Some(Moment(1_700_000_060_000)),
            }]))
        }
        Command::Release { domain } => {
            let held = now.domain_named(&domain)?.id == WEB;
            Ok(Reply::Done(if held {
                Change::Changed
            } else {
                Change::Unchanged
            }))
        }
        Command::Retire => Ok(Reply::Retired(RetiredView {
            left: vec!["web: vCPUs stay at 2 vCPUs although what was there before wants 1 vCPU, because no agent in the guest can take CPUs offline".into()],
        })),
        // The reload of this daemon gives the answer to another question, as a faulty one would.
        Command::Reload => Ok(Reply::Tags(vec![caller.name.clone()])),
    }
}

fn problem() -> ProblemView {
    ProblemView {
        severity: Severity::Error,
        kind: "unknown-key".to_owned(),
        message: "a persona has no key `nonsense`".to_owned(),
        document: None,
        line: 1,
        column: 1,
        length: 8,
        help: Some("remove it".to_owned()),
    }
}

fn stored(name: &str, change: Change) -> StoredView {
    StoredView {
        name: name.to_owned(),
        version: 1,
        digest: "d1".repeat(32),
        change,
        warnings: vec![ProblemView {
            severity: Severity::Warning,
            ..problem()
        }],
    }
}

fn version(name: &str, version: u32) -> VersionView {
    VersionView {
        name: name.to_owned(),
        version,
        digest: format!("d{version}").repeat(32),
        current: version == 2,
        format: DocumentFormat::Yaml,
        author: "root".to_owned(),
        at: Moment(1_700_000_000_000),
        note: (version == 2).then(|| "more memory".to_owned()),
        rollout: None,
    }
}

fn bound(name: &str) -> BoundPersona {
    BoundPersona {
        name: name.to_owned(),
        version: 2,
        digest: "d2".repeat(32),
        origin: Origin::Tag,
        tag: Some("web".to_owned()),
        rule: None,
        shifted_from: None,
        pinned: false,
        generation: 7,
        bases: Vec::new(),
        overrides: Vec::new(),
    }
}

fn activation(state: ActivationState) -> ActivationView {
    ActivationView {
        state,
        detail: (state == ActivationState::Failed)
            .then(|| "the pre-activation script ended with status 3".to_owned()),
        since: Some(Moment(1_700_000_000_000)),
    }
}

fn plan(domain: &DomainView, persona: &str) -> PlanView {
    let line = |subject: &str, now: Option<&str>, then: Option<&str>| PlanLine {
        subject: subject.to_owned(),
        now: now.map(str::to_owned),
        then: then.map(str::to_owned),
        from: format!("{persona}@2, line 4"),
    };
    PlanView {
        domain: domain.id,
        name: domain.name.clone(),
        persona: persona.to_owned(),
        version: 2,
        lines: vec![
            line("vcpus.max", Some("4"), Some("8")),
            line("memory.max", None, Some("8 GiB")),
        ],
        obstacles: vec!["the domain allows 4 vCPUs at most".to_owned()],
    }
}

fn explain(domain: &DomainView) -> ExplainView {
    ExplainView {
        domain: domain.id,
        name: domain.name.clone(),
        at: Moment(1_700_000_000_000),
        summary: "grows to 4 vCPUs and not to 6, because the domain allows no more".to_owned(),
        persona: domain.persona.clone(),
        problems: Vec::new(),
        rules: vec![RuleView {
            name: "grow-cpu".to_owned(),
            text: "IF cpu.utilization > 80% FOR 5m THEN add 4 vcpus".to_owned(),
            line: Some(12),
            origin: Some(OriginView {
                document: "web-base@1".to_owned(),
                line: 12,
                tag: None,
            }),
            truth: TruthWord::True,
            state: RuleState::Fired,
            detail: None,
            wants: vec!["6 vCPUs".to_owned()],
            looked: vec![
                LookedView {
                    comparison: "cpu.utilization > 80 %".to_owned(),
                    truth: TruthWord::True,
                    metric: Some("cpu.utilization".to_owned()),
                    value: Some(93.25),
                    missing: None,
                    unit: Some(Unit::Percent),
                    source: Some(Source::Host),
                    age_ms: Some(400),
                    held_ms: Some(301_000),
                    needs_ms: Some(300_000),
                },
                LookedView {
                    comparison: "guest.load > 4".to_owned(),
                    truth: TruthWord::Unknown,
                    metric: Some("guest.load".to_owned()),
                    value: None,
                    missing: Some("no agent in the guest reports it".to_owned()),
                    unit: Some(Unit::Count),
                    source: None,
                    age_ms: None,
                    held_ms: None,
                    needs_ms: None,
                },
            ],
        }],
        resources: vec![ResourceView {
            resource: Resource::Vcpus,
            had: Some(2),
            wanted: Some(6),
            clamps: vec![ClampView {
                by: "domain_max".to_owned(),
                from: 6,
                to: 4,
                sentence: "the domain's definition allows 4".to_owned(),
            }],
            granted: Some(4),
            action: None,
        }],
        limits: vec![LimitLineView {
            limit: Knob::CpuCap,
            present: "no limit".to_owned(),
            original: Some("no limit".to_owned()),
            wanted: Some("250%".to_owned()),
            by: Some("rule calm".to_owned()),
            sentence: "CPU cap stays at no limit although rule calm wants 250%, because the last 1 steps did not take effect; the next try is in 4 s".to_owned(),
            action: Some(LimitActionView {
                outcome: OutcomeWord::Refused,
                sentence: "CPU cap no limit -> 250% because of rule calm: refused (shown no limit); the control group is not there".to_owned(),
            }),
        }],
    }
}

/// `nc` is restricted, `nosuch` is not there, `slow` overruns, anything else says what it was asked for and exits with 7, `true` with 0.
fn execution_lines(execution: &Execution) -> Vec<ExecutionLine> {
    let failed = |by, code: &str, message: &str| {
        vec![ExecutionLine::Failed {
            by,
            code: code.to_owned(),
            message: message.to_owned(),
        }]
    };
    let program = execution.argv[0].clone();
    match program.as_str() {
        "nc" => return failed(Refuser::Persona, "restricted", "`nc` is restricted"),
        "nosuch" => return failed(Refuser::Guest, "not_found", "there is no command `nosuch`"),
        "closed" => {
            return failed(
                Refuser::GuestOwner,
                "forbidden",
                "`commands` is not allowed",
            );
        }
        _ => {}
    }
    let output = |stream, text: &str| ExecutionLine::Output {
        stream,
        off: 0,
        b64: Output::encode(text.as_bytes()),
    };
    let said = format!(
        "{} as {} in {} for {} s with {:?}\n",
        execution.argv.join(" "),
        execution.user,
        execution.directory,
        execution.timeout.as_secs(),
        execution.environment
    );
    let timed_out = program == "slow";
    vec![
        output(Stream::Stdout, &said),
        output(Stream::Stderr, "to standard error\n"),
        ExecutionLine::End(Box::new(ExecutionEndView {
            exit: (!timed_out).then_some(if program == "true" { 0 } else { 7 }),
            signal: timed_out.then_some(15),
            timed_out,
            duration_ms: 12,
            program: format!("/usr/bin/{program}"),
            overridden: false,
            truncated: false,
            lost_bytes: 0,
            held_by: HeldBy::ControlGroup,
            notes: Vec::new(),
        })),
    ]
}

/// An audit record.
pub(crate) fn record(seq: u64) -> AuditRecordView {
    AuditRecordView {
        seq,
        at: Moment(1_700_000_000_000 + seq * 1000),
        domain: Some(WEB),
        domain_name: Some("web".to_owned()),
        kind: "action".to_owned(),
        text: format!("{seq} vCPUs: applied"),
        detail: serde_json::json!({"requested": seq, "guest": null}),
    }
}

fn check(domain: Option<&str>, state: CheckState) -> CheckView {
    CheckView {
        domain: domain.map(str::to_owned),
        name: "memory-hotplug".to_owned(),
        state,
        sentence: "what was found".to_owned(),
        mend: (state != CheckState::Ok).then(|| "add a virtio-mem device".to_owned()),
    }
}

/// A persona without domains.
pub(crate) fn persona(name: &str) -> PersonaView {
    PersonaView {
        name: name.to_owned(),
        description: Some("Front end of the shop".to_owned()),
        extends: Vec::new(),
        problem: None,
        versions: 2,
        current: 2,
        digest: "d2".repeat(32),
        default: false,
        domains: Vec::new(),
        effects: vec![EffectView {
            rule: "grow".to_owned(),
            metric: "cpu.utilization".to_owned(),
            unit: Unit::Percent,
            actions: 7,
            before: 91.25,
            change: -31.5,
            margin: Some(4.25),
            confidence: Some(99),
        }],
    }
}

/// A domain of which all is known.
fn web() -> DomainView {
    DomainView {
        id: WEB,
        name: "web".to_owned(),
        instance: Some(3),
        state: RunState::Running,
        tags: vec!["web".to_owned()],
        persona: Some(bound("web-high")),
        activation: activation(ActivationState::Active),
        vcpus: VcpuView {
            persona_min: Some(1),
            persona_max: Some(8),
            domain_max: Some(4),
            requested: Some(3),
            plugged: Some(3),
            guest: Some(2),
        },
        memory: MemoryView {
            persona_min: Some(Bytes::from_mib(512)),
            persona_max: Some(Bytes::from_mib(2048)),
            domain_max: Some(Bytes::from_mib(1536)),
            requested: Some(Bytes::from_mib(1024)),
            plugged: Some(Bytes::from_mib(1024)),
            guest: Some(Bytes::from_mib(1024)),
            mechanism: Some(MemoryMechanism::VirtioMem),
        },
        agent: AgentView {
            state: AgentState::Connected,
            version: Some("0.1.0".to_owned()),
            last_seen_ms: Some(800),
        },
        readings: vec![
            ReadingView {
                metric: "cpu.utilization".to_owned(),
                value: Some(93.25),
                unit: Unit::Percent,
                source: Some(Source::Host),
                age_ms: Some(400),
            },
            ReadingView {
                metric: "guest.load".to_owned(),
                value: None,
                unit: Unit::Count,
                source: None,
                age_ms: None,
            },
        ],
        last_decision: Some(DecisionView {
            at: Moment(1_700_000_000_000),
            resource: Resource::Vcpus,
            rule: Some("grow-cpu".to_owned()),
            from: Some(2),
            to: 3,
            outcome: Some(OutcomeWord::Partial),
            text: "2 to 3 vCPUs by grow-cpu: the guest shows 2".to_owned(),
        }),
        holds: Vec::new(),
        proposals: vec![proposal()],
        limits: vec![LimitView {
            limit: Knob::CpuCap,
            present: "no limit".to_owned(),
            original: Some("no limit".to_owned()),
            wanted: Some("250%".to_owned()),
            by: Some("rule calm".to_owned()),
            held_until: None,
        }],
        problems: vec!["vCPU 2 is plugged, but the guest has not brought it online".to_owned()],
    }
}

/// A domain of which next to nothing is known.
pub(crate) fn bare(id: DomainId, name: &str) -> DomainView {
    DomainView {
        id,
        name: name.to_owned(),
        instance: None,
        state: RunState::Off,
        tags: Vec::new(),
        persona: None,
        activation: ActivationView {
            state: ActivationState::None,
            detail: None,
            since: None,
        },
        vcpus: VcpuView::default(),
        memory: MemoryView::default(),
        agent: AgentView {
            state: AgentState::NoChannel,
            version: None,
            last_seen_ms: None,
        },
        readings: Vec::new(),
        last_decision: None,
        holds: Vec::new(),
        proposals: Vec::new(),
        limits: Vec::new(),
        problems: Vec::new(),
    }
}

/// What waits for a person.
pub(crate) fn proposal() -> ProposalView {
    ProposalView {
        id: 3,
        domain: WEB,
        name: "web".to_owned(),
        persona: "web-high".to_owned(),
        version: Some(2),
        rule: Some("grow-cpu".to_owned()),
        class: "resource_scaling".to_owned(),
        level: "low".to_owned(),
        resource: Some(Resource::Vcpus),
        from: Some(2),
        to: Some(4),
        action: None,
        text: "vCPUs from 2 vCPUs to 4 vCPUs, because of rule grow-cpu".to_owned(),
        why: vec![SampleView {
            comparison: "cpu.utilization > 80 %".to_owned(),
            metric: "cpu.utilization".to_owned(),
            value: 93.25,
            unit: Some(Unit::Percent),
            source: Source::Host,
            age_ms: 400,
        }],
        created: Moment(1_700_000_000_000),
        expires: Moment(1_700_003_600_000),
        state: ProposalState::Open,
        by: None,
    }
}

fn decided(id: u64, state: ProposalState, caller: &Caller) -> Result<Reply, Refusal> {
    if id != 3 {
        return Err(Refusal::NotFound {
            what: Noun::Proposal,
            name: id.to_string(),
            nearest: None,
        });
    }
    Ok(Reply::Proposal(Box::new(ProposalView {
        state,
        by: Some(caller.name.clone()),
        ..proposal()
    })))
}

/// The view at the start.
fn view() -> View {
    View {
        manager: ManagerView {
            version: "0.1.0".to_owned(),
            started: Moment(1_700_000_000_000),
            hypervisor: HypervisorView {
                state: HypervisorState::Connected,
                uri: "qemu:///system".to_owned(),
                library: Some("9.0.0".to_owned()),
                emulator: Some("7.2.22".to_owned()),
                detail: None,
            },
            host: HostView {
                cores: Some(2),
                vcpus_budget: Some(8),
                vcpus_granted: Some(3),
                memory: Some(Bytes::from_mib(8192)),
                memory_budget: Some(Bytes::from_mib(7168)),
                memory_granted: None,
                vcpus_state: Some(HostState::Plenty),
                memory_state: Some(HostState::Tight),
            },
            ticks: 60,
            overruns: 0,
            problems: Vec::new(),
        },
        listing: Listing::Complete,
        domains: BTreeMap::from([(WEB, web()), (DB, bare(DB, "db"))]),
        personas: BTreeMap::from([
            (
                "web-high".to_owned(),
                PersonaView {
                    domains: vec!["web".to_owned()],
                    ..persona("web-high")
                },
            ),
            ("fails".to_owned(), persona("fails")),
        ]),
        mappings: vec![MappingView {
            tag: "web".to_owned(),
            persona: Some("web-high".to_owned()),
            fragment: None,
            priority: -5,
            domains: vec!["web".to_owned()],
        }],
    }
}
