//! Identifiers that the host draws: of sessions and of requests. They must never repeat; they are no secrets, since the
//! guest they go to may know them, so the standard library's randomly keyed hash is enough and cannot fail.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent_protocol::{RequestId, SessionId};

static DRAWN: AtomicU64 = AtomicU64::new(0);

/// 64 bits that no other call gets: keyed by the operating system's randomness, over a number used once.
fn draw() -> u64 {
    RandomState::new().hash_one((
        DRAWN.fetch_add(1, Ordering::Relaxed),
        std::process::id(),
        unix_time().as_nanos(),
    ))
}

/// Time since 1970; zero before it.
pub(super) fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// A session id that was never used.
pub(super) fn fresh_session_id() -> SessionId {
    SessionId::from_random(((u128::from(draw()) << 64) | u128::from(draw())).to_be_bytes())
}

/// A request id that was never used; ids of later milliseconds sort later.
pub fn fresh_request_id() -> RequestId {
    let text = format!("{:012x}-{:016x}", unix_time().as_millis(), draw());
    match RequestId::new(text) {
        Ok(id) => id,
        // Twelve to thirty-odd hexadecimal digits and a hyphen are always a valid id.
        Err(_) => unreachable!("hexadecimal digits and a hyphen are an identifier"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn identifiers_never_repeat() {
        let sessions: HashSet<_> = (0..10_000).map(|_| fresh_session_id()).collect();
        let requests: HashSet<_> = (0..10_000).map(|_| fresh_request_id()).collect();
        assert_eq!((sessions.len(), requests.len()), (10_000, 10_000));
    }
}
