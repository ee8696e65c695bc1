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
    /// The daemon ran, and there is no decision.
    #[error(
        "no decision on it was in force at that time, or its beginning is not recorded any more"
    )]
    Undecided,
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
                turned: now.turned,
                turns: now.turns,
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

/// A decision that was in force.
#[derive(Debug, PartialEq)]
pub struct Decided {
    /// Its explanation, as it was recorded.
    pub explanation: Value,
    /// What is not recorded of that time, as a sentence.
    pub missing: Option<String>,
}

/// The decision that was in force at a time. The domain's ring alone says it; that the daemon ran then shows in the ticks
/// of the host, which are kept less long.
///
/// # Errors
/// Where nothing is recorded of that time, or a file fails.
pub fn decision_at(folder: &Path, id: DomainId, at: Moment) -> Result<Decided, ReadError> {
    let mut lines = Lines::of(folder, &id.to_string())?;
    let (mut begins, mut decision, mut first) = (None, Value::Null, None);
    // The last moment up to the time at which there is a line, and the first one after it.
    let (mut before, mut after, mut to): (Option<Moment>, Option<Moment>, _) =
        (None, None, Moment(0));
    let mut see = |moment: Moment| {
        to = to.max(moment);
        if moment <= at {
            before = before.max(Some(moment));
        } else {
            after = Some(after.map_or(moment, |after| after.min(moment)));
        }
    };
    while let Some(line) = lines.next::<DomainLine>()? {
        begins.get_or_insert(line.at);
        see(line.at);
        if line.decision.is_some() {
            first.get_or_insert(line.at);
        }
        if line.at > at {
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
    let begins = begins.ok_or(ReadError::Nothing)?;
    let mut ticks = Lines::of(folder, HOST)?;
    let mut oldest = None;
    while let Some(When { at: tick }) = ticks.next()? {
        oldest.get_or_insert(tick);
        see(tick);
    }
    let from = first.unwrap_or(begins);
    if at < from || before.is_none_or(|before| at > to && at.since(before) > GAP) {
        return Err(ReadError::Outside { from, to });
    }
    if decision.is_null() {
        return Err(ReadError::Undecided);
    }
    let seen = before.is_some_and(|before| at.since(before) <= GAP);
    let missing = match (oldest, before, after) {
        _ if seen => None,
        (Some(oldest), Some(from), Some(to)) if oldest <= at => {
            return Err(ReadError::Gap { from, to });
        }
        (oldest, ..) => Some(format!(
            "whether the daemon ran at that time is not recorded any more: the ticks of the host go back to {}",
            oldest.map_or_else(|| "no time".to_owned(), date)
        )),
    };
    Ok(Decided {
        explanation: decision,
        missing,
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use serde_json::json;

    use super::*;

    const ID: DomainId = DomainId([7; 16]);

    fn segment(folder: &Path, stem: &str, lines: &[Value]) {
        let mut text = format!("{}\n", json!({ "virt_persona_recording": FORM }));
        for line in lines {
            writeln!(text, "{line}").unwrap();
        }
        std::fs::write(folder.join(format!("{stem}.00000001.jsonl")), text).unwrap();
    }

    /// Decisions at 1000 s and 5000 s, and ticks of the host at these seconds.
    fn asked(ticks: &[u64], second: u64) -> Result<Decided, String> {
        let folder = tempfile::tempdir().unwrap();
        let lines = [
            json!({ "at": 1_000_000, "whole": true, "decision": { "=": { "summary": "one" } } }),
            json!({ "at": 5_000_000, "decision": { "~": { "summary": { "=": "two" } } } }),
        ];
        segment(folder.path(), &ID.to_string(), &lines);
        let ticks: Vec<Value> = ticks.iter().map(|at| json!({ "at": at * 1000 })).collect();
        segment(folder.path(), HOST, &ticks);
        decision_at(folder.path(), ID, Moment(second * 1000)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_decision_is_told_also_where_the_hosts_ticks_of_its_time_are_gone() {
        let known = |second| {
            let decided = asked(&[4000, 4100, 5000, 9000, 9100], second).unwrap();
            let summary = decided.explanation["summary"].as_str().unwrap().to_owned();
            (summary, decided.missing)
        };
        let gone = "whether the daemon ran at that time is not recorded any more: the ticks of the host go back to \
                    1970-01-01T01:06:40Z";
        assert_eq!(known(3000), ("one".into(), Some(gone.into())));
        // Its own lines say so as well.
        assert_eq!(known(1060), ("one".into(), None));
        assert_eq!(known(4150), ("one".into(), None));
        assert_eq!(known(5100), ("two".into(), None));
        assert_eq!(known(9200), ("two".into(), None));
        // Without any tick of the host too.
        let decided = asked(&[], 3000).unwrap();
        assert!(decided.missing.unwrap().ends_with("go back to no time"));
    }

    #[test]
    fn a_time_at_which_the_daemon_did_not_run_and_one_that_is_not_recorded_are_told_apart() {
        let ticks = [4000, 4100, 5000, 9000];
        assert_eq!(
            asked(&ticks, 7000).unwrap_err(),
            "nothing was recorded between 1970-01-01T01:23:20Z and 1970-01-01T02:30:00Z: the daemon did not run, or \
             could not write"
        );
        let outside = "nothing is recorded of that time; the recording goes from 1970-01-01T00:16:40Z to \
                       1970-01-01T02:30:00Z";
        for second in [999, 9200] {
            assert_eq!(asked(&ticks, second).unwrap_err(), outside, "{second}");
        }
    }
}
