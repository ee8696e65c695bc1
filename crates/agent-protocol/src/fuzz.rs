//! Entry points for fuzzers and property tests: each takes arbitrary bytes as the other side would send them, and panics only
//! when a promise of this crate is broken. Nothing else calls it.

use crate::{
    chunk::{Assembler, Chunk},
    coordination::Consent,
    envelope::{decode_guest, decode_host, decode_request_body},
    frame::Decoder,
    limits::{BODY_MAX, MAX_FRAME, MESSAGE_MAX, NEED_REASON_MAX},
    message::GuestMessage,
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
                }
            }
            Ok((_, GuestMessage::Need(need))) => {
                if let Ok(need) = need.check() {
                    assert!(need.memory_bytes > 0 && need.reason.len() <= NEED_REASON_MAX);
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
