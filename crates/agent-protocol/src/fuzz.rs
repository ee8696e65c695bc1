//! Entry points for fuzzers and property tests: each takes arbitrary bytes as the other side would send them, and panics only
//! when a promise of this crate is broken. Nothing else calls it.

use crate::{
    application::{is_name, is_value},
    chunk::{Assembler, Chunk},
    coordination::Consent,
    envelope::{
        decode_guest, decode_host, decode_request_body, encode_guest, encode_host, request_messages,
    },
    frame::Decoder,
    limits::{
        APP_FIGURES_MAX, BODY_MAX, MAX_FRAME, MAX_FRAME_BEFORE_HELLO, MESSAGE_MAX, MIN_FRAME,
        NAME_MAX, NEED_REASON_MAX, OUTPUT_RAW_MAX, RECORDS_MAX, ROUND_TRIP_MAX_US,
    },
    message::{GuestMessage, HostMessage, Operation, Request},
    session::Session,
    version::{SUPPORTED, negotiate},
};

/// Bytes through the decoder and both message parsers. No frame may be longer than the limit, and a checked report holds
/// what it promises.
pub fn stream(mut bytes: &[u8]) {
    let mut decoder = Decoder::new(MAX_FRAME);
    while let Some(text) = decoder.next_frame(&mut bytes) {
        assert!(text.len() + 2 <= MAX_FRAME);
        let _ = decode_host(text);
        match decode_guest(text) {
            Ok((_, GuestMessage::Telemetry(telemetry))) => {
                if let Ok(report) = telemetry.report.check() {
                    assert!(report.memory_available_kib <= report.memory_total_kib);
                    assert!(report.online.count() <= report.present_count);
                    assert!(report.app.len() <= APP_FIGURES_MAX);
                    if let Some(disk) = report.disk {
                        let shares = [disk.space_free, disk.inodes_free];
                        let mut shares = shares.into_iter().flatten();
                        assert!(shares.all(|share| (0.0..=100.0).contains(&share)));
                    }
                    if let Some(logs) = report.logs {
                        assert!(logs.errors.max(logs.failed_logins) <= Some(RECORDS_MAX));
                    }
                    if let Some(network) = report.network {
                        assert!(network.round_trip_us <= Some(ROUND_TRIP_MAX_US));
                    }
                    for figure in &report.app {
                        assert!(is_name(&figure.name) && is_value(figure.value, figure.kind));
                    }
                }
            }
            Ok((_, GuestMessage::Need(need))) => {
                if let Ok(need) = need.check() {
                    assert!(need.memory_bytes > 0 && need.reason.len() <= NEED_REASON_MAX);
                }
            }
            Ok((_, GuestMessage::Ask(ask))) => {
                if let Ok(ask) = ask.check() {
                    assert!(ask.user.name.len() <= NAME_MAX);
                }
            }
            Ok((_, GuestMessage::Output(output))) => {
                if let Some(bytes) = output.bytes() {
                    assert!((1..=OUTPUT_RAW_MAX).contains(&bytes.len()));
                }
            }
            Ok((_, GuestMessage::Reply(reply))) => {
                if let Ok(Consent::Refused { reason, .. }) = reply
                    .into_answer::<Consent>()
                    .map(|consent| consent.bounded(MESSAGE_MAX))
                {
                    assert!(reason.len() <= MESSAGE_MAX);
                }
            }
            _ => {}
        }
    }
}

/// Lines of JSON, each a chunk, through one assembler. No body may be longer than the limit.
pub fn chunks(text: &str) {
    let mut assembler = Assembler::new();
    for line in text.lines() {
        if let Ok(chunk) = serde_json::from_str::<Chunk>(line)
            && let Ok(Some(body)) = assembler.take(&chunk)
        {
            assert!(body.len() <= BODY_MAX);
            let _ = decode_request_body(&body, &crate::envelope::Stamp::outside());
        }
    }
}

/// Bytes as an agent gets them from a host: greetings begin sessions, and what counts in one is put together and looked at.
/// Every request that an agent would obey comes through the same way again when it is sent once more.
pub fn from_host(mut bytes: &[u8]) {
    let mut decoder = Decoder::new(MAX_FRAME_BEFORE_HELLO);
    let mut live: Option<(Session, Assembler)> = None;
    let mut last_seen = None;
    while let Some(text) = decoder.next_frame(&mut bytes) {
        let Ok((stamp, message)) = decode_host(text) else {
            continue;
        };
        if let HostMessage::Hello(hello) = &message {
            if let (Some(sid), Ok(version)) = (stamp.sid.clone(), negotiate(SUPPORTED, hello.v)) {
                assert!(SUPPORTED.min <= version && version <= hello.v.max);
                if live
                    .as_ref()
                    .is_none_or(|(session, _)| *session.id() != sid)
                {
                    let mut session = Session::new(sid);
                    let _ = session.admit(&stamp);
                    live = Some((session, Assembler::new()));
                    last_seen = Some(stamp.seq);
                    decoder.set_max_frame(MAX_FRAME);
                }
            }
            continue;
        }
        let Some((session, assembler)) = &mut live else {
            continue;
        };
        if session.admit(&stamp).is_err() {
            continue;
        }
        assert!(last_seen.is_none_or(|seen| stamp.seq > seen), "seen before");
        last_seen = Some(stamp.seq);
        match message {
            HostMessage::Request(request) => again(request),
            HostMessage::Chunk(chunk) => {
                if let Ok(Some(body)) = assembler.take(&chunk) {
                    assert!(body.len() <= BODY_MAX);
                    if let Ok(request) = decode_request_body(&body, &stamp) {
                        again(request);
                    }
                }
            }
            short => {
                let frame = encode_host(&stamp, &short, MAX_FRAME).unwrap_or_default();
                assert_eq!(decode_frame(&frame).as_ref(), Some(&short));
            }
        }
    }
}

/// A request in messages for the smallest frames, put together again.
fn again(request: Request) {
    if let Operation::Activate { activation } = &request.op {
        let _ = activation.check();
    }
    let Ok(messages) = request_messages(request.clone(), MIN_FRAME) else {
        return;
    };
    let mut assembler = Assembler::new();
    let stamp = crate::envelope::Stamp::outside();
    let mut came = None;
    for message in messages {
        let frame = encode_host(&stamp, &message, MIN_FRAME).unwrap_or_default();
        match decode_frame(&frame) {
            Some(HostMessage::Request(request)) => came = Some(request),
            Some(HostMessage::Chunk(chunk)) => {
                if let Ok(Some(body)) = assembler.take(&chunk) {
                    came = decode_request_body(&body, &stamp).ok();
                }
            }
            _ => {}
        }
    }
    assert_eq!(came, Some(request));
}

fn decode_frame(mut frame: &[u8]) -> Option<HostMessage> {
    let mut decoder = Decoder::new(MAX_FRAME);
    let text = decoder.next_frame(&mut frame)?;
    decode_host(text).ok().map(|(_, message)| message)
}

/// Bytes as a daemon gets them from a guest, in a session whose id the guest knows, as every guest does. What counts holds
/// what it promises, comes in rising numbers, and can be written again.
pub fn from_guest(bytes: &[u8]) {
    stream(bytes);
    let mut bytes = bytes;
    let mut decoder = Decoder::new(MAX_FRAME);
    let mut session: Option<Session> = None;
    let mut last_seen = None;
    while let Some(text) = decoder.next_frame(&mut bytes) {
        let Ok((stamp, message)) = decode_guest(text) else {
            continue;
        };
        let Some(sid) = stamp.sid.clone() else {
            continue;
        };
        let session = session.get_or_insert_with(|| Session::new(sid));
        if session.admit(&stamp).is_err() {
            continue;
        }
        assert!(last_seen.is_none_or(|seen| stamp.seq > seen), "seen before");
        last_seen = Some(stamp.seq);
        // Numbers in a report are written with as many digits as they have, which may be more than came.
        let _ = encode_guest(&stamp, &message, MAX_FRAME);
        if let GuestMessage::HelloAck(ack) = &message {
            let theirs = (ack.v, ack.v).into();
            assert_eq!(
                negotiate(SUPPORTED, theirs).is_ok(),
                (SUPPORTED.min..=SUPPORTED.max).contains(&ack.v)
            );
        }
    }
}
