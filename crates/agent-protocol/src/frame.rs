//! Frames: JSON text sequences (RFC 7464). A frame is a record separator (0x1E), one JSON text and a line feed.
//!
//! Neither byte can occur raw inside JSON, so a decoder finds the next whole frame after any loss: what a vanished client left
//! of a frame is dropped at the next record separator, and the frame after it survives. The decoder is incremental, keeps
//! one frame at most, and never fails: what it had to drop is in its [`FrameCounters`]. Meaning is not looked at here.
//!
//! ```text
//!          RS                LF, text whole
//!  Skip ---------> Collect ------------------> deliver, Skip
//!   ^                | RS: start again (truncated)
//!   +----------------+ NUL, invalid UTF-8, too long
//! ```

/// The byte that begins a frame.
pub const RECORD_SEPARATOR: u8 = 0x1E;
/// The byte that ends a frame.
pub const LINE_FEED: u8 = 0x0A;

/// What a decoder delivered and what it had to drop, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounters {
    /// Frames delivered.
    pub delivered: u64,
    /// Frames cut off by the beginning of the next one.
    pub truncated: u64,
    /// Frames longer than the limit.
    pub oversize: u64,
    /// Frames with a zero byte.
    pub nul: u64,
    /// Frames that were no UTF-8.
    pub not_utf8: u64,
    /// Bytes outside any frame.
    pub stray_bytes: u64,
}

/// A JSON text that does not fit a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes is longer than the {max} bytes that the peer accepts")]
pub struct FrameTooLong {
    /// Length of the frame in bytes, with both delimiters.
    pub length: usize,
    /// The limit in bytes.
    pub max: usize,
}

/// Wraps one compact JSON text.
///
/// # Errors
/// [`FrameTooLong`] when text and delimiters exceed `max_frame` bytes.
pub fn encode(json: &str, max_frame: usize) -> Result<Vec<u8>, FrameTooLong> {
    let length = json.len() + 2;
    if length > max_frame {
        return Err(FrameTooLong {
            length,
            max: max_frame,
        });
    }
    let mut frame = Vec::with_capacity(length);
    frame.push(RECORD_SEPARATOR);
    frame.extend_from_slice(json.as_bytes());
    frame.push(LINE_FEED);
    Ok(frame)
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Skip,
    Collect,
    /// The frame in the buffer was handed out; the buffer is free at the next call.
    Delivered,
}

/// The incremental decoder of one direction.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    text: Vec<u8>,
    max_frame: usize,
    counters: FrameCounters,
}

impl Decoder {
    /// A decoder that takes frames of at most `max_frame` bytes, delimiters included.
    #[must_use]
    pub fn new(max_frame: usize) -> Self {
        Self {
            state: State::Skip,
            text: Vec::new(),
            max_frame,
            counters: FrameCounters::default(),
        }
    }

    /// Changes the limit: it is small before a hello and grows with it. It holds for the bytes that are fed from here on.
    pub fn set_max_frame(&mut self, max_frame: usize) {
        self.max_frame = max_frame;
    }

    /// Forgets a half frame, for use when the peer is known to have gone.
    pub fn reset(&mut self) {
        self.state = State::Skip;
        self.text = Vec::new();
    }

    /// What was delivered and dropped so far.
    #[must_use]
    pub fn counters(&self) -> FrameCounters {
        self.counters
    }

    /// Takes bytes from the front of `input` until one frame is whole, and gives its JSON text; `None` once `input` is used up.
    pub fn next_frame(&mut self, input: &mut &[u8]) -> Option<&str> {
        if self.state == State::Delivered {
            self.text.clear();
            self.state = State::Skip;
        }
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            match (byte, &self.state) {
                (RECORD_SEPARATOR, State::Collect) => {
                    self.counters.truncated += 1;
                    self.text.clear();
                }
                (RECORD_SEPARATOR, _) => {
                    self.text.clear();
                    self.state = State::Collect;
                }
                (LINE_FEED, State::Collect) => {
                    if std::str::from_utf8(&self.text).is_ok() {
                        self.state = State::Delivered;
                        self.counters.delivered += 1;
                        return std::str::from_utf8(&self.text).ok();
                    }
                    self.counters.not_utf8 += 1;
                    self.skip();
                }
                (0, State::Collect) => {
                    self.counters.nul += 1;
                    self.skip();
                }
                (_, State::Collect) if self.text.len() + 2 >= self.max_frame => {
                    self.counters.oversize += 1;
                    self.skip();
                }
                (_, State::Collect) => self.text.push(byte),
                _ => self.counters.stray_bytes += 1,
            }
        }
        None
    }

    fn skip(&mut self) {
        self.text.clear();
        self.state = State::Skip;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(decoder: &mut Decoder, mut bytes: &[u8]) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some(text) = decoder.next_frame(&mut bytes) {
            texts.push(text.to_owned());
        }
        texts
    }

    fn check(bytes: &[u8], expected: &[&str], counters: FrameCounters) {
        let mut decoder = Decoder::new(16);
        assert_eq!(decode(&mut decoder, bytes), expected);
        assert_eq!(decoder.counters(), counters);
    }

    #[test]
    fn a_frame_after_a_cut_off_frame_survives() {
        let counters = FrameCounters {
            delivered: 1,
            truncated: 1,
            ..Default::default()
        };
        check(b"\x1e{\"half\":\x1e{\"a\":2}\n", &["{\"a\":2}"], counters);
    }

    #[test]
    fn bytes_outside_frames_are_counted_and_dropped() {
        let counters = FrameCounters {
            delivered: 1,
            stray_bytes: 8,
            ..Default::default()
        };
        check(b"half\":1}\x1e{}\n", &["{}"], counters);
    }

    #[test]
    fn a_frame_of_exactly_the_limit_passes_and_one_byte_more_is_dropped() {
        let counters = FrameCounters {
            delivered: 1,
            ..Default::default()
        };
        check(b"\x1e12345678901234\n", &["12345678901234"], counters);
        let counters = FrameCounters {
            delivered: 1,
            oversize: 1,
            stray_bytes: 1,
            ..Default::default()
        };
        check(b"\x1e123456789012345\n\x1e1\n", &["1"], counters);
    }

    #[test]
    fn zero_bytes_and_invalid_utf8_drop_their_frame_alone() {
        let counters = FrameCounters {
            delivered: 1,
            nul: 1,
            not_utf8: 1,
            stray_bytes: 2,
            ..Default::default()
        };
        check(b"\x1ea\0b\n\x1e\xff\n\x1e{}\n", &["{}"], counters);
    }

    #[test]
    fn a_text_that_does_not_fit_is_not_encoded() {
        assert_eq!(encode("123", 4), Err(FrameTooLong { length: 5, max: 4 }));
        assert_eq!(encode("12", 4), Ok(b"\x1e12\n".to_vec()));
    }

    proptest! {
        #[test]
        fn any_prefix_and_a_valid_frame_deliver_the_frame(prefix: Vec<u8>, number: u64) {
            let json = format!("{{\"n\":{number}}}");
            let mut bytes = prefix;
            bytes.extend(encode(&json, 64).unwrap());
            let mut decoder = Decoder::new(64);
            let texts = decode(&mut decoder, &bytes);
            prop_assert_eq!(texts.last(), Some(&json));
        }

        #[test]
        fn every_split_of_bytes_gives_the_same_frames(bytes: Vec<u8>, json in "[ -~]{0,40}", at: prop::sample::Index, cuts: Vec<prop::sample::Index>) {
            let mut stream = bytes;
            let frame = encode(&json, 64).unwrap();
            let position = at.index(stream.len() + 1);
            stream.splice(position..position, frame);
            let mut whole = Decoder::new(48);
            let expected = decode(&mut whole, &stream);
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            ends.push(stream.len());
            ends.sort_unstable();
            let mut split = Decoder::new(48);
            let mut texts = Vec::new();
            let mut start = 0;
            for end in ends {
                texts.extend(decode(&mut split, &stream[start..end]));
                start = end;
            }
            prop_assert_eq!(texts, expected);
            prop_assert_eq!(split.counters(), whole.counters());
        }
    }
}
