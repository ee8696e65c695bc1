//! What the rings say: the trace of a domain between two times, and the decision that was in force at one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use persona::domain::DomainId;
use persona::units::Moment;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::FORM;
use super::line::{DomainCodec, DomainLine, HostCodec, HostLine};
use super::patch;
use super::ring;
use super::trace::{Tick, TraceWriter};
use super::writer::HOST;

/// A longer time without a tick is one in which nothing was recorded; ticks are a minute apart at most.
const GAP: Duration = Duration::from_secs(120);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing at all.
    #[error(
        "nothing is recorded of it yet; recordings are written every few seconds while [recording] is on"
    )]
    Nothing,
    /// At other times only.
    #[error("nothing is recorded of that time; the recording goes from {} to {}", date(*.from), date(*.to))]
    Outside {
        /// The first tick that is recorded.
        from: Moment,
        /// The last one.
        to: Moment,
    },
    /// The daemon did not run, or could not write.
    #[error("nothing was recorded between {} and {}: the daemon did not run, or could not write", date(*.from), date(*.to))]
    Gap {
        /// The tick before it.
        from: Moment,
        /// The tick after it.
        to: Moment,
    },
    /// The files.
    #[error("the recording cannot be read")]
    Read(#[source] io::Error),
    /// Where it was to go.
    #[error("the recording cannot be written")]
    Write(#[source] io::Error),
}

fn date(at: Moment) -> String {
    i64::try_from(at.0 / 1000)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map_or_else(|| format!("{} ms", at.0), |date| date.to_string())
}

/// The lines of a ring, one after another. Where a segment ends in half a line the next segment follows.
struct Lines {
    files: std::vec::IntoIter<File>,
    file: Option<BufReader<File>>,
    text: Vec<u8>,
}

/// The first line of a segment.
#[derive(Deserialize)]
struct Header {
    virt_persona_recording: u32,
}

impl Lines {
    fn of(folder: &Path, stem: &str) -> Result<Self, ReadError> {
        let files = ring::segments(folder, stem).map_err(ReadError::Read)?;
        Ok(Self {
            files: files.into_iter(),
            file: None,
            text: Vec::new(),
        })
    }

    fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ReadError> {
        loop {
            let Some(file) = &mut self.file else {
                let Some(next) = self.files.next() else {
                    return Ok(None);
                };
                let mut next = BufReader::new(next);
                self.text.clear();
                next.read_until(b'\n', &mut self.text)
                    .map_err(ReadError::Read)?;
                let header: Option<Header> = serde_json::from_slice(&self.text).ok();
                if header.is_some_and(|header| header.virt_persona_recording == FORM) {
                    self.file = Some(next);
                }
                continue;
            };
            self.text.clear();
            file.read_until(b'\n', &mut self.text)
                .map_err(ReadError::Read)?;
            match serde_json::from_slice(&self.text) {
                Ok(line) if self.text.last() == Some(&b'\n') => return Ok(Some(line)),
                // The end, or what a kill left of the last line.
                _ => self.file = None,
            }
        }
    }
}

/// Host and domain together, tick by tick.
struct Both {
    host: Lines,
    domain: Lines,
    /// The next line of the domain.
    ahead: Option<DomainLine>,
    host_codec: HostCodec,
    codec: DomainCodec,
    id: DomainId,
}

impl Both {
    fn of(folder: &Path, id: DomainId) -> Result<Self, ReadError> {
        let mut both = Self {
            host: Lines::of(folder, HOST)?,
            domain: Lines::of(folder, &id.to_string())?,
            ahead: None,
            host_codec: HostCodec::default(),
            codec: DomainCodec::default(),
            id,
        };
        both.ahead = both.domain.next()?;
        Ok(both)
    }

    /// Hands the ticks to `tell` that hold all that a replay needs, until it says that it has enough.
    fn each(
        mut self,
        mut tell: impl FnMut(Tick<'_>) -> Result<Enough, ReadError>,
    ) -> Result<(), ReadError> {
        while let Some(line) = self.host.next::<HostLine>()? {
            let (at, lost) = (line.at, line.lost);
            if self.host_codec.read(line).is_err() {
                // Its beginning was dropped, or is of another version: what follows cannot be read either, up to the next
                // whole line.
                self.host_codec = HostCodec::default();
                continue;
            }
            let mut now = DomainLine::default();
            while let Some(line) = self.ahead.take_if(|line| line.at <= at) {
                self.codec.advance(line.at);
                if self.codec.read(&line).is_err() {
                    self.codec = DomainCodec::default();
                }
                if line.at == at {
                    now = line;
                }
                self.ahead = self.domain.next()?;
            }
            if now.at != at {
                self.codec.advance(at);
            }
            let (Some(host), Some(domain)) = (&mut self.host_codec.frame, &self.codec.frame) else {
                continue;
            };
            // Its own claim is made anew by the replay.
            let Some(own) = host.domains.remove(&self.id) else {
                continue;
            };
            let enough = tell(Tick {
                at,
                lost,
                host,
                domain,
                state: now.state,
                ended: now.ended,
                needs: now.needs,
                steps: now.steps,
            })?;
            host.domains.insert(self.id, own);
            if enough == Enough::Yes {
                break;
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Enough {
    Yes,
    No,
}

/// Writes the trace of a domain. It begins where a replay can: with the last carried state that is recorded before `since`,
/// or the first.
///
/// # Errors
/// Where nothing is recorded between the two, or a file fails.
pub fn export(
    folder: &Path,
    id: DomainId,
    since: Option<Moment>,
    until: Option<Moment>,
    out: impl Write,
) -> Result<(), ReadError> {
    let until = until.unwrap_or(Moment(u64::MAX));
    let (mut begin, mut first, mut last) = (None, None, None);
    Both::of(folder, id)?.each(|tick| {
        let early = since.is_some_and(|since| tick.at <= since);
        if tick.state.is_some() && (begin.is_none() || early) {
            begin = Some(tick.at);
        }
        first.get_or_insert(tick.at);
        last = Some(tick.at);
        Ok(Enough::No)
    })?;
    let (Some(begin), Some(first), Some(last)) = (begin, first, last) else {
        return Err(ReadError::Nothing);
    };
    if begin > until || since.is_some_and(|since| since > last) {
        return Err(ReadError::Outside {
            from: first,
            to: last,
        });
    }
    let mut writer = None;
    let mut out = Some(out);
    Both::of(folder, id)?.each(|tick| {
        if tick.at < begin {
            return Ok(Enough::No);
        }
        if tick.at > until {
            return Ok(Enough::Yes);
        }
        if let Some(out) = out.take() {
            let begun = TraceWriter::begin(out, id, &tick.domain.name);
            writer = Some(begun.map_err(ReadError::Write)?);
        }
        if let Some(writer) = &mut writer {
            writer.tick(tick).map_err(ReadError::Write)?;
        }
        Ok(Enough::No)
    })?;
    match writer {
        Some(writer) => writer.end().map_err(ReadError::Write),
        // Dropped between the two looks.
        None => Err(ReadError::Nothing),
    }
}

/// Of a line of the host what says when.
#[derive(Deserialize)]
struct When {
    at: Moment,
}

/// The explanation of the decision that was in force at a time, as it was recorded.
///
/// # Errors
/// Where nothing is recorded of that time, or a file fails.
pub fn decision_at(folder: &Path, id: DomainId, at: Moment) -> Result<Value, ReadError> {
    let mut lines = Lines::of(folder, &id.to_string())?;
    let (mut begins, mut decision, mut first): (Option<Moment>, Value, Option<Moment>) =
        (None, Value::Null, None);
    while let Some(line) = lines.next::<DomainLine>()? {
        begins.get_or_insert(line.at);
        if line.decision.is_some() {
            first.get_or_insert(line.at);
        }
        if line.at > at {
            if first.is_some() {
                break;
            }
            continue;
        }
        if line.whole {
            decision = Value::Null;
        }
        if let Some(patch) = line.decision
            && !patch::apply(&mut decision, patch)
        {
            decision = Value::Null;
        }
    }
    let found = (!decision.is_null()).then_some(decision);
    let begins = begins.ok_or(ReadError::Nothing)?;
    let mut ticks = Lines::of(folder, HOST)?;
    let (mut before, mut after, mut to) = (None, None, begins);
    while let Some(When { at: tick }) = ticks.next()? {
        to = to.max(tick);
        if tick <= at {
            before = Some(tick);
        } else if after.is_none() {
            after = Some(tick);
        }
    }
    let from = first.unwrap_or(begins);
    match (found, before, after) {
        (Some(found), Some(before), _) if at.since(before) <= GAP => Ok(found),
        (Some(_), Some(before), Some(after)) => Err(ReadError::Gap {
            from: before,
            to: after,
        }),
        _ => Err(ReadError::Outside { from, to }),
    }
}
