//! Messages over frames, as the two ends use them: what is sent arrives, unknown things are survived, arbitrary bytes are too.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use agent_protocol::{
    Activation, Command, CommandTable, Consent, CpuList, DecodeError, Decoder, DiskFigures,
    GuestMessage, GuestRule, GuestRules, HostMessage, LogFigures, Need, NetworkFigures, Operation,
    Output, Package, RecordsSeen, Reply, Report, Request, RequestId, Resize, RolledBack, RuleCall,
    Script, Session, SessionId, Settings, Stamp, Stream, VersionWish,
    activation::{Adjusted, Change, OnFailure, ScriptsRun},
    chunk::Assembler,
    coordination::Resource,
    decode_guest, decode_host, encode_guest, encode_host, encode_request,
    envelope::decode_request_body,
    fuzz,
    limits::MAX_FRAME,
    message::{
        Active, Announce, Credit, ErrorCode, Hello, HelloAck, HelloReason, HelloRefused,
        JournalState, OnlineCpusReply, OpStatus, Ping, ReplyBody, ReplyError, Retry, Telemetry,
    },
    rules::{GuestAction, RuleEdge, RuleWord, Telling},
    settings::{Frequency, LoggingLevel},
    version::SUPPORTED,
};
use proptest::prelude::*;

fn stamp() -> Stamp {
    Stamp {
        sid: Some(SessionId::from_random([7; 16])),
        seq: 3,
    }
}

fn id(text: &str) -> RequestId {
    RequestId::new(text).unwrap()
}

fn text(frame: &[u8]) -> String {
    let mut input = frame;
    Decoder::new(MAX_FRAME)
        .next_frame(&mut input)
        .unwrap()
        .to_owned()
}

fn activation(script_text: &str) -> Activation {
    Activation {
        generation: 7,
        persona: "web".to_owned(),
        version: 2,
        digest: "sha256:1".to_owned(),
        environment: [("A".to_owned(), "ü \"$x\" \\".to_owned())].into(),
        settings: Settings {
            sysctl: [("vm.swappiness".to_owned(), "1".to_owned())].into(),
            services: [("cron".to_owned(), true)].into(),
            logging_level: Some(LoggingLevel::Warning),
            auto_update: Some(Frequency::Daily),
            security_scan: Some(Frequency::Never),
            editor: Some("vi".to_owned()),
            terminal_shell: None,
            software: vec![Package {
                name: "nginx".to_owned(),
                version: VersionWish::AtLeast("1.22".to_owned()),
            }],
            theme: Some("dark".to_owned()),
            ide_extensions: vec!["python".to_owned()],
            browser_extensions: vec!["adblock".to_owned()],
            other: [("os_settings.cursor_size".to_owned(), vec!["24".to_owned()])].into(),
        },
        pre: None,
        post: Some(Script {
            interpreter: "/bin/sh".to_owned(),
            text: script_text.to_owned(),
            timeout_ms: 5,
            user: "nobody".to_owned(),
            on_failure: OnFailure::Keep,
        }),
        commands: CommandTable {
            overrides: [("deploy".to_owned(), "/opt/deploy".to_owned())].into(),
            restricted: vec!["nc".to_owned()],
        },
        rules: GuestRules {
            rules: vec![GuestRule {
                name: "drain".to_owned(),
                text: "IF guest.app.queue > 10 THEN run drain COOLDOWN 1m PRIORITY 0".to_owned(),
                readings: Telling::Withheld,
            }],
            scripts: [(
                "drain".to_owned(),
                Script {
                    interpreter: "/bin/sh".to_owned(),
                    text: "true".to_owned(),
                    timeout_ms: 5,
                    user: "root".to_owned(),
                    on_failure: OnFailure::Rollback,
                },
            )]
            .into(),
            trust: [("command_execution".to_owned(), "high".to_owned())].into(),
        },
        adjusted: Some(Adjusted {
            of: "sha256:0".to_owned(),
            scripts: ScriptsRun::UnlessActive,
        }),
    }
}

fn host_messages() -> Vec<HostMessage> {
    let request = |op| {
        HostMessage::Request(Request {
            id: id("01JD"),
            ttl_ms: 9,
            op,
        })
    };
    vec![
        HostMessage::Hello(Hello {
            v: SUPPORTED,
            host_id: "h".to_owned(),
            vm_uuid: "u".to_owned(),
            reason: HelloReason::Revert,
            max_frame: MAX_FRAME,
            feats: vec!["x".to_owned()],
            now_unix_ms: 1,
            telemetry_ms: Some(1000),
        }),
        HostMessage::Ping(Ping { n: u64::MAX }),
        HostMessage::Credit(Credit { frames: 4 }),
        request(Operation::OnlineCpus { target: 2 }),
        request(Operation::Activate {
            activation: Box::new(activation("exit 0\n")),
        }),
        request(Operation::Deactivate { generation: 8 }),
        request(Operation::OpStatus { id: id("old") }),
        request(Operation::Report),
        request(Operation::PrepareShrink {
            resize: Resize {
                resource: Resource::Memory,
                from: 1 << 30,
                to: 1 << 29,
            },
        }),
        request(Operation::Grown {
            resize: Resize {
                resource: Resource::Vcpus,
                from: 1,
                to: 2,
            },
        }),
        request(Operation::Perform {
            call: Box::new(RuleCall {
                generation: 7,
                rule: "drain".to_owned(),
                edge: RuleEdge::Ends,
                action: GuestAction::DisableFeature("cache".to_owned()),
                word: RuleWord::Person,
            }),
        }),
        request(Operation::RuleRecords { seen: None }),
        request(Operation::RuleRecords {
            seen: Some(RecordsSeen {
                log: "l".to_owned(),
                seq: 3,
            }),
        }),
        request(Operation::Exec {
            command: Box::new(Command {
                argv: vec!["uptime".to_owned(), "-p".to_owned()],
                user: "nobody".to_owned(),
                cwd: "/".to_owned(),
                timeout_ms: 5,
                env: [("A".to_owned(), "b".to_owned())].into(),
            }),
        }),
        request(Operation::Unknown("dance".to_owned())),
    ]
}

fn guest_messages() -> Vec<GuestMessage> {
    let reply = |body| {
        GuestMessage::Reply(Reply {
            re: id("01JD"),
            body,
        })
    };
    let online: CpuList = [0, 1].into_iter().collect();
    let cpus = OnlineCpusReply {
        online: online.clone(),
        present: online,
        outcome: Change::Changed,
    };
    let error = ReplyError::new(
        ErrorCode::StaleGeneration,
        "generation 8 was seen",
        Retry::Useless,
    );
    let done = OpStatus::Done {
        result: ReplyBody::Err(error.clone()),
    };
    vec![
        GuestMessage::Announce(Announce {
            inst: "i".to_owned(),
            boot_id: "b".to_owned(),
        }),
        GuestMessage::HelloAck(Box::new(HelloAck {
            v: 1,
            agent_version: "0.1.0".to_owned(),
            inst: "i".to_owned(),
            boot_id: "b".to_owned(),
            machine_id: None,
            active: Some(Active {
                generation: 7,
                persona: "web".to_owned(),
                version: 2,
                digest: "d".to_owned(),
            }),
            rolled_back: None,
            customized: None,
            generation: 7,
            journal: JournalState::Recovering,
            feats: vec![],
            max_frame: MAX_FRAME,
        })),
        GuestMessage::HelloRefused(HelloRefused {
            error: "version".to_owned(),
            have: SUPPORTED,
        }),
        GuestMessage::Pong(Ping { n: 1 }),
        reply(ReplyBody::Ok(serde_json::to_value(cpus).unwrap())),
        reply(ReplyBody::Ok(serde_json::to_value(done).unwrap())),
        reply(ReplyBody::Err(error)),
        reply(ReplyBody::Ok(
            serde_json::to_value(Consent::Refused {
                reason: "a backup runs".to_owned(),
                retry_after_ms: Some(60_000),
            })
            .unwrap(),
        )),
        GuestMessage::Need(Need {
            memory_bytes: 1 << 28,
            reason: "pressure".to_owned(),
        }),
        GuestMessage::Output(Output::new(id("01JD"), Stream::Stderr, 7, b"\xff\n")),
        GuestMessage::Telemetry(Box::new(Telemetry {
            report: Report {
                load1: Some(0.25),
                oom_kills: Some(2),
                disk: Some(DiskFigures {
                    age_ms: 40,
                    space_free: Some(12.5),
                    inodes_free: None,
                }),
                logs: Some(LogFigures {
                    failed_logins: Some(3),
                    ..LogFigures::default()
                }),
                network: Some(NetworkFigures {
                    age_ms: 0,
                    round_trip_us: Some(350),
                }),
                ..Report::default()
            },
            rolled_back: Some(RolledBack {
                generation: 3,
                persona: Some("web".to_owned()),
                version: Some(1),
            }),
            customized: Some(agent_protocol::Customized {
                count: 1,
                keys: vec!["editor".to_owned()],
            }),
            gate: Some(agent_protocol::GateState::Away),
            journal: Some(JournalState::Frozen),
            rule_records: 3,
        })),
    ]
}

#[test]
fn every_message_arrives_as_it_was_sent() {
    for message in host_messages() {
        let frame = encode_host(&stamp(), &message, MAX_FRAME).unwrap();
        assert_eq!(decode_host(&text(&frame)).unwrap(), (stamp(), message));
    }
    for message in guest_messages() {
        let frame = encode_guest(&stamp(), &message, MAX_FRAME).unwrap();
        assert_eq!(decode_guest(&text(&frame)).unwrap(), (stamp(), message));
    }
}

#[test]
fn the_wire_form_is_the_documented_one() {
    let request = HostMessage::Request(Request {
        id: id("01JD"),
        ttl_ms: 9,
        op: Operation::OnlineCpus { target: 2 },
    });
    let sid = "07".repeat(16);
    let expected = format!(
        r#"{{"msg":"request","sid":"{sid}","seq":3,"id":"01JD","ttl_ms":9,"op":"online_cpus","args":{{"target":2}}}}"#
    );
    assert_eq!(
        text(&encode_host(&stamp(), &request, MAX_FRAME).unwrap()),
        expected
    );
    let shrink = HostMessage::Request(Request {
        id: id("01JD"),
        ttl_ms: 5000,
        op: Operation::PrepareShrink {
            resize: Resize {
                resource: Resource::Memory,
                from: 2,
                to: 1,
            },
        },
    });
    let expected = format!(
        r#"{{"msg":"request","sid":"{sid}","seq":3,"id":"01JD","ttl_ms":5000,"op":"prepare_shrink","args":{{"from":2,"resource":"memory","to":1}}}}"#
    );
    assert_eq!(
        text(&encode_host(&stamp(), &shrink, MAX_FRAME).unwrap()),
        expected
    );
    let refused = serde_json::to_string(&Consent::Refused {
        reason: "no".to_owned(),
        retry_after_ms: None,
    });
    assert_eq!(refused.unwrap(), r#"{"answer":"refused","reason":"no"}"#);
    let announce = GuestMessage::Announce(Announce {
        inst: "i".to_owned(),
        boot_id: "b".to_owned(),
    });
    let expected = r#"{"msg":"announce","seq":0,"inst":"i","boot_id":"b"}"#;
    assert_eq!(
        text(&encode_guest(&Stamp::outside(), &announce, MAX_FRAME).unwrap()),
        expected
    );
}

#[test]
fn unknown_fields_are_ignored_and_an_unknown_operation_keeps_its_name() {
    let (_, message) = decode_host(r#"{"msg":"ping","seq":1,"n":2,"later":{"a":[]}}"#).unwrap();
    assert_eq!(message, HostMessage::Ping(Ping { n: 2 }));
    let (_, message) =
        decode_host(r#"{"msg":"request","seq":1,"id":"a","ttl_ms":1,"op":"dance","args":{"x":1}}"#)
            .unwrap();
    assert!(
        matches!(message, HostMessage::Request(Request { op: Operation::Unknown(name), .. }) if name == "dance")
    );
    let error: ReplyError =
        serde_json::from_str(r#"{"code":"later","message":"m","retryable":true}"#).unwrap();
    assert_eq!(error.code, ErrorCode::Other("later".to_owned()));
}

#[test]
fn a_request_without_sense_can_still_be_answered() {
    let error = decode_host(
        r#"{"msg":"request","seq":1,"id":"a","ttl_ms":1,"op":"online_cpus","args":{"target":-1}}"#,
    )
    .unwrap_err();
    assert!(
        matches!(error, DecodeError::Request { id, .. } if id.as_str() == "a"),
        "the id is kept"
    );
    assert!(matches!(
        decode_host(r#"{"msg":"request","seq":1,"id":"../a"}"#),
        Err(DecodeError::Malformed(_))
    ));
    assert!(matches!(
        decode_host(r#"{"msg":"dance","seq":1}"#),
        Err(DecodeError::Unknown { .. })
    ));
}

#[test]
fn text_of_the_other_side_is_cleaned_before_it_is_shown() {
    let error = ReplyError {
        code: ErrorCode::Storage,
        message: "\u{1b}[2Jx\u{202e}y".to_owned(),
        retryable: false,
    };
    let fault = Reply::err(id("a"), error)
        .into_answer::<OpStatus>()
        .unwrap_err();
    assert_eq!(fault.to_string(), "the guest refused: storage:  [2Jx y");
}

#[test]
fn a_request_longer_than_a_frame_arrives_in_pieces() {
    let script = "echo \"long\"\n".repeat(15_000);
    let request = Request {
        id: id("01JD"),
        ttl_ms: 9,
        op: Operation::Activate {
            activation: Box::new(activation(&script)),
        },
    };
    let mut sender = Session::new(SessionId::from_random([7; 16]));
    let frames = encode_request(&mut sender, &request, MAX_FRAME).unwrap();
    assert!(frames.len() > 5);
    let mut receiver = Session::new(SessionId::from_random([7; 16]));
    let mut assembler = Assembler::new();
    let mut body = None;
    for frame in frames {
        assert!(frame.len() <= MAX_FRAME);
        let (stamp, message) = decode_host(&text(&frame)).unwrap();
        receiver.admit(&stamp).unwrap();
        let HostMessage::Chunk(chunk) = message else {
            panic!("{message:?}")
        };
        body = assembler.take(&chunk).unwrap();
    }
    assert_eq!(
        decode_request_body(&body.unwrap(), &stamp()).unwrap(),
        request
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        fuzz::stream(&bytes);
        fuzz::from_host(&bytes);
        fuzz::from_guest(&bytes);
    }

    #[test]
    fn damaged_messages_never_panic(which: prop::sample::Index, at: prop::sample::Index, byte: u8) {
        let host = host_messages().into_iter().map(|message| encode_host(&stamp(), &message, MAX_FRAME).unwrap());
        let guest = guest_messages().into_iter().map(|message| encode_guest(&stamp(), &message, MAX_FRAME).unwrap());
        let frames: Vec<Vec<u8>> = host.chain(guest).collect();
        let mut frame = frames[which.index(frames.len())].clone();
        let position = at.index(frame.len());
        frame[position] = byte;
        fuzz::from_host(&frame);
        fuzz::from_guest(&frame);
    }

    #[test]
    fn arbitrary_chunks_never_panic(pieces in prop::collection::vec(("[ab]", 0..40_u64, 0..20_u64, any::<bool>(), "[A-Za-z0-9+/=]{0,24}"), 0..12)) {
        let lines: Vec<String> = pieces
            .into_iter()
            .map(|(xid, off, n, last, b64)| format!(r#"{{"xid":"{xid}","off":{off},"n":{n},"last":{last},"b64":"{b64}"}}"#))
            .collect();
        fuzz::chunks(&lines.join("\n"));
    }
}
