//! Bodies longer than a frame: cut on one side, put together on the other, with a bound on size and number. A body is the
//! JSON of one request; its transfer id is the request's id. Pieces come in order, since the channel keeps order; one that does
//! not fit ends its transfer, and the request is answered as refused.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    identity::RequestId,
    limits::{BODY_MAX, CHUNK_RAW_MAX, MIN_FRAME, TRANSFERS_MAX},
};

/// One piece of a request's body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The request that the body belongs to.
    pub xid: RequestId,
    /// Offset of this piece in the body, in bytes.
    pub off: u64,
    /// Bytes in this piece.
    pub n: u64,
    /// Whether the body ends with this piece.
    pub last: bool,
    /// The piece in base64 (RFC 4648, with padding).
    pub b64: String,
}

/// Why a transfer ended without a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkRefusal {
    /// The body grew beyond the limit.
    #[error("the body is longer than {BODY_MAX} bytes")]
    TooLong,
    /// A piece is missing, repeated, or not where it should be.
    #[error("a piece of the body is missing: it should begin at {expected} and begins at {found}")]
    Gap {
        /// Bytes received so far.
        expected: u64,
        /// Offset of the refused piece.
        found: u64,
    },
    /// The piece is empty, too long, no base64, or not as long as it says.
    #[error("a piece of the body is damaged")]
    Damaged,
    /// Too many bodies are under way.
    #[error("more than {TRANSFERS_MAX} bodies are under way")]
    Busy,
}

/// Bytes of a frame that its envelope and the fields of a piece may take beside the base64: names, numbers, and a transfer
/// id of [`crate::limits::NAME_MAX`] bytes.
const AROUND: usize = 512;

/// Cuts a body into pieces for a peer that takes frames of `max_frame` bytes, at least [`MIN_FRAME`].
pub fn cut<'a>(
    xid: &'a RequestId,
    body: &'a [u8],
    max_frame: usize,
) -> impl Iterator<Item = Chunk> + 'a {
    let raw = ((max_frame.max(MIN_FRAME) - AROUND) / 4 * 3).min(CHUNK_RAW_MAX);
    let pieces = body.chunks(raw);
    let count = pieces.len();
    pieces.enumerate().map(move |(index, piece)| Chunk {
        xid: xid.clone(),
        off: (index * raw) as u64,
        n: piece.len() as u64,
        last: index + 1 == count,
        b64: STANDARD.encode(piece),
    })
}

/// Puts the bodies of one session together. Dropped with the session.
#[derive(Debug, Default)]
pub struct Assembler {
    transfers: Vec<(RequestId, Vec<u8>)>,
}

impl Assembler {
    /// Nothing under way.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a piece; gives the body with its last piece.
    ///
    /// # Errors
    /// [`ChunkRefusal`]; the transfer is forgotten, so that the answer can be sent once.
    pub fn take(&mut self, chunk: &Chunk) -> Result<Option<Vec<u8>>, ChunkRefusal> {
        let position = self.transfers.iter().position(|(xid, _)| *xid == chunk.xid);
        let mut body = match position {
            Some(position) => self.transfers.swap_remove(position).1,
            None if chunk.off != 0 => {
                return Err(ChunkRefusal::Gap {
                    expected: 0,
                    found: chunk.off,
                });
            }
            None if self.transfers.len() >= TRANSFERS_MAX => return Err(ChunkRefusal::Busy),
            None => Vec::new(),
        };
        let expected = body.len() as u64;
        if chunk.off != expected {
            return Err(ChunkRefusal::Gap {
                expected,
                found: chunk.off,
            });
        }
        let piece = STANDARD
            .decode(&chunk.b64)
            .map_err(|_| ChunkRefusal::Damaged)?;
        if piece.is_empty() || piece.len() > CHUNK_RAW_MAX || piece.len() as u64 != chunk.n {
            return Err(ChunkRefusal::Damaged);
        }
        if body.len() + piece.len() > BODY_MAX {
            return Err(ChunkRefusal::TooLong);
        }
        body.extend_from_slice(&piece);
        if chunk.last {
            return Ok(Some(body));
        }
        self.transfers.push((chunk.xid.clone(), body));
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_FRAME;
    use proptest::prelude::*;

    fn xid(text: &str) -> RequestId {
        RequestId::new(text).unwrap()
    }

    fn assemble(chunks: impl Iterator<Item = Chunk>) -> Result<Option<Vec<u8>>, ChunkRefusal> {
        let mut assembler = Assembler::new();
        let mut outcome = Ok(None);
        for chunk in chunks {
            outcome = assembler.take(&chunk);
            if outcome.is_err() {
                break;
            }
        }
        outcome
    }

    #[test]
    fn a_missing_a_repeated_and_a_damaged_piece_end_the_transfer() {
        let body = vec![7; CHUNK_RAW_MAX * 3];
        let id = xid("a");
        let chunks: Vec<Chunk> = cut(&id, &body, MAX_FRAME).collect();
        let size = CHUNK_RAW_MAX as u64;
        let missing = [chunks[0].clone(), chunks[2].clone()];
        assert_eq!(
            assemble(missing.into_iter()),
            Err(ChunkRefusal::Gap {
                expected: size,
                found: 2 * size
            })
        );
        let repeated = [chunks[0].clone(), chunks[0].clone()];
        assert_eq!(
            assemble(repeated.into_iter()),
            Err(ChunkRefusal::Gap {
                expected: size,
                found: 0
            })
        );
        let damaged = Chunk {
            b64: "!".to_owned(),
            ..chunks[0].clone()
        };
        assert_eq!(assemble([damaged].into_iter()), Err(ChunkRefusal::Damaged));
        let lying = Chunk {
            n: 1,
            ..chunks[0].clone()
        };
        assert_eq!(assemble([lying].into_iter()), Err(ChunkRefusal::Damaged));
    }

    #[test]
    fn a_body_beyond_the_limit_is_refused() {
        assert_eq!(
            assemble(cut(&xid("a"), &vec![0; BODY_MAX + 1], MAX_FRAME)),
            Err(ChunkRefusal::TooLong)
        );
    }

    #[test]
    fn only_so_many_bodies_are_under_way_at_once() {
        let mut assembler = Assembler::new();
        let body = vec![0; CHUNK_RAW_MAX + 1];
        for index in 0..=TRANSFERS_MAX {
            let id = xid(&format!("x{index}"));
            let first = cut(&id, &body, MAX_FRAME).next().unwrap();
            let expected = if index < TRANSFERS_MAX {
                Ok(None)
            } else {
                Err(ChunkRefusal::Busy)
            };
            assert_eq!(assembler.take(&first), expected);
        }
    }

    proptest! {
        #[test]
        fn a_cut_body_is_put_together_again(length in 1..BODY_MAX, seed: u8, max_frame in MIN_FRAME..=MAX_FRAME) {
            let body: Vec<u8> = (0..length).map(|index| index.to_le_bytes()[0].wrapping_mul(31) ^ seed).collect();
            prop_assert_eq!(assemble(cut(&xid("a"), &body, max_frame)), Ok(Some(body)));
        }
    }
}
