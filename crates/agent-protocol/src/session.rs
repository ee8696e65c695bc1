//! Which frames count: the session that a hello began, the sequence within it, and what was dropped. Both ends hold one
//! [`Session`] per connection; the host draws its id, the guest takes it from the hello.
//!
//! QEMU can deliver bytes of an older connection, or the same bytes twice (after a revert or a migration), and neither end is
//! told. The id drops the first, the sequence the second.

use crate::{envelope::Stamp, identity::SessionId};

/// Why a frame does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// It belongs to another session, or to none.
    #[error("the frame belongs to another session")]
    WrongSession,
    /// Its sequence number was seen, or is older than one that was.
    #[error("the frame was seen before")]
    Duplicate,
}

/// How many frames a session admitted and dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Frames that counted.
    pub admitted: u64,
    /// Frames of another session.
    pub wrong_session: u64,
    /// Frames seen before.
    pub duplicate: u64,
    /// Sequence numbers that never came: frames lost on the way.
    pub lost: u64,
}

/// One session of one connection, seen from one end.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    next: u64,
    seen: Option<u64>,
    counters: SessionCounters,
}

impl Session {
    /// A session in which nothing was said yet.
    #[must_use]
    pub fn new(id: SessionId) -> Self {
        Self {
            id,
            next: 0,
            seen: None,
            counters: SessionCounters::default(),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// What was admitted and dropped.
    #[must_use]
    pub fn counters(&self) -> SessionCounters {
        self.counters
    }

    /// The stamp of the next frame to send. Each call uses one sequence number.
    pub fn stamp(&mut self) -> Stamp {
        let stamp = Stamp {
            sid: Some(self.id.clone()),
            seq: self.next,
        };
        self.next += 1;
        stamp
    }

    /// Whether a received frame counts. One that does moves the sequence on.
    ///
    /// # Errors
    /// [`Dropped`] says why it does not; the counters have it.
    pub fn admit(&mut self, stamp: &Stamp) -> Result<(), Dropped> {
        if stamp.sid.as_ref() != Some(&self.id) {
            self.counters.wrong_session += 1;
            return Err(Dropped::WrongSession);
        }
        let expected = self.seen.map_or(0, |seen| seen.saturating_add(1));
        if self.seen.is_some_and(|seen| stamp.seq <= seen) {
            self.counters.duplicate += 1;
            return Err(Dropped::Duplicate);
        }
        self.counters.lost = self.counters.lost.saturating_add(stamp.seq - expected);
        self.counters.admitted += 1;
        self.seen = Some(stamp.seq);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(byte: u8, seq: u64) -> Stamp {
        Stamp {
            sid: Some(SessionId::from_random([byte; 16])),
            seq,
        }
    }

    #[test]
    fn frames_of_another_session_and_repeated_frames_are_dropped_and_counted() {
        let mut session = Session::new(SessionId::from_random([1; 16]));
        assert_eq!(session.admit(&stamp(1, 0)), Ok(()));
        assert_eq!(session.admit(&stamp(1, 0)), Err(Dropped::Duplicate));
        assert_eq!(session.admit(&stamp(2, 1)), Err(Dropped::WrongSession));
        assert_eq!(
            session.admit(&Stamp { sid: None, seq: 1 }),
            Err(Dropped::WrongSession)
        );
        assert_eq!(session.admit(&stamp(1, 4)), Ok(()));
        assert_eq!(session.admit(&stamp(1, 3)), Err(Dropped::Duplicate));
        assert_eq!(
            session.counters(),
            SessionCounters {
                admitted: 2,
                wrong_session: 2,
                duplicate: 2,
                lost: 3
            }
        );
    }

    #[test]
    fn each_stamp_has_the_next_sequence_number() {
        let mut session = Session::new(SessionId::from_random([1; 16]));
        assert_eq!((session.stamp().seq, session.stamp().seq), (0, 1));
    }

    #[test]
    fn the_highest_sequence_number_does_not_overflow() {
        let mut session = Session::new(SessionId::from_random([1; 16]));
        assert_eq!(session.admit(&stamp(1, u64::MAX)), Ok(()));
        assert_eq!(session.admit(&stamp(1, u64::MAX)), Err(Dropped::Duplicate));
    }
}
