//! One file with all that a replay of one domain needs: a header, then one line for each tick with what has changed of
//! the host and of the domain. Written by `read`, played by `simulate`.

use std::io::{self, BufRead, Read, Write};

use persona::domain::DomainId;
use persona::units::Moment;
use planner::{LimitStep, Step};
use serde::{Deserialize, Serialize};

use super::FORM;
use super::frame::{DomainFrame, Ended, HostFrame, Needed, StateNote, TurnEnded};
use super::line::{DomainCodec, DomainLine, HostCodec, HostLine, LineError};

/// Longest line, in bytes: a first one holds the claims of every domain of the host.
const LONGEST: u64 = 16 * 1024 * 1024;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    virt_persona_recording: u32,
    of: DomainId,
    name: String,
}

/// A tick.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    host: HostLine,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domain: Option<DomainLine>,
}

/// Why a recording cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file.
    #[error("the recording cannot be read")]
    Read(#[source] io::Error),
    /// Something else.
    #[error("line 1 is no header of a recording of virt-persona")]
    NoHeader,
    /// Of another version.
    #[error(
        "the recording has form {0}, and this version reads form {FORM}; record it again, or play it with the version that wrote it"
    )]
    Form(u32),
    /// A line that cannot be read.
    #[error("line {line} cannot be read: {reason}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// Why.
        reason: String,
    },
}

/// One tick of a recording.
#[derive(Debug)]
pub struct Tick<'a> {
    /// When.
    pub at: Moment,
    /// Ticks before this one that could not be recorded.
    pub lost: u64,
    /// The host.
    pub host: &'a HostFrame,
    /// The domain.
    pub domain: &'a DomainFrame,
    /// The carried state before the plan, where it is told.
    pub state: Option<StateNote>,
    /// Steps that ended before the plan.
    pub ended: Vec<Ended>,
    /// Turns of knobs that ended before the plan.
    pub turned: Vec<TurnEnded>,
    /// What the guest said that it needs before the plan.
    pub needs: Vec<Needed>,
    /// Steps that the plan began.
    pub steps: Vec<Step>,
    /// Turns of knobs that the plan began.
    pub turns: Vec<LimitStep>,
}

/// Whether a file begins like a recording.
pub fn is_recording(beginning: &[u8]) -> bool {
    beginning.starts_with(b"{\"virt_persona_recording\"")
}

/// A recording that is read tick by tick.
pub struct Trace<R> {
    source: R,
    number: u64,
    text: Vec<u8>,
    host: HostCodec,
    domain: DomainCodec,
    /// Of which domain.
    pub id: DomainId,
    /// Its name then.
    pub name: String,
}

impl<R: BufRead> Trace<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// Where there is none that can be read.
    pub fn open(source: R) -> Result<Self, TraceError> {
        let mut trace = Self {
            source,
            number: 0,
            text: Vec::new(),
            host: HostCodec::default(),
            domain: DomainCodec::default(),
            id: DomainId([0; 16]),
            name: String::new(),
        };
        trace.line()?;
        if !is_recording(&trace.text) {
            return Err(TraceError::NoHeader);
        }
        // The form is looked at first: another form may have another header.
        let form = serde_json::from_slice(&trace.text)
            .ok()
            .and_then(|header: serde_json::Value| header["virt_persona_recording"].as_u64())
            .ok_or(TraceError::NoHeader)?;
        let form = u32::try_from(form).unwrap_or(u32::MAX);
        if form != FORM {
            return Err(TraceError::Form(form));
        }
        let header: Header =
            serde_json::from_slice(&trace.text).map_err(|_| TraceError::NoHeader)?;
        trace.id = header.of;
        trace.name = header.name;
        Ok(trace)
    }

    /// The next tick; nothing at the end.
    ///
    /// # Errors
    /// Where a line cannot be read, or does not go with those before it. A last line that was cut off is no error.
    pub fn tick(&mut self) -> Result<Option<Tick<'_>>, TraceError> {
        if !self.line()? {
            return Ok(None);
        }
        let complete = self.text.last() == Some(&b'\n');
        let line: Line = match serde_json::from_slice(&self.text) {
            Ok(line) => line,
            Err(_) if !complete => return Ok(None),
            Err(error) => return Err(self.wrong(&error)),
        };
        let at = line.host.at;
        let lost = line.host.lost;
        let domain = line.domain.unwrap_or_else(|| DomainLine::nothing(at));
        let read = self.host.read(line.host);
        self.domain.advance(at);
        let read = read.and_then(|()| self.domain.read(&domain));
        read.map_err(|error| self.wrong(&error))?;
        let (Some(host), Some(frame)) = (&self.host.frame, &self.domain.frame) else {
            return Err(self.wrong(&LineError::Change));
        };
        Ok(Some(Tick {
            at,
            lost,
            host,
            domain: frame,
            state: domain.state,
            ended: domain.ended,
            needs: domain.needs,
            steps: domain.steps,
            turned: domain.turned,
            turns: domain.turns,
        }))
    }

    fn line(&mut self) -> Result<bool, TraceError> {
        self.text.clear();
        self.number += 1;
        let read = self
            .source
            .by_ref()
            .take(LONGEST)
            .read_until(b'\n', &mut self.text);
        Ok(read.map_err(TraceError::Read)? > 0)
    }

    fn wrong(&self, reason: &dyn std::error::Error) -> TraceError {
        TraceError::Line {
            line: self.number,
            reason: reason.to_string(),
        }
    }
}

/// Writes a trace.
pub(super) struct TraceWriter<W> {
    out: W,
    host: HostCodec,
    domain: DomainCodec,
}

impl<W: Write> TraceWriter<W> {
    pub(super) fn begin(mut out: W, of: DomainId, name: &str) -> io::Result<Self> {
        let header = Header {
            virt_persona_recording: FORM,
            of,
            name: name.to_owned(),
        };
        serde_json::to_writer(&mut out, &header)?;
        out.write_all(b"\n")?;
        Ok(Self {
            out,
            host: HostCodec::default(),
            domain: DomainCodec::default(),
        })
    }

    pub(super) fn tick(&mut self, tick: Tick<'_>) -> io::Result<()> {
        let host = self.host.write(tick.at, tick.lost, tick.host.clone());
        let mut domain = self.domain.write(tick.at, tick.domain.clone());
        domain.state = tick.state;
        domain.ended = tick.ended;
        domain.needs = tick.needs;
        domain.steps = tick.steps;
        domain.turned = tick.turned;
        domain.turns = tick.turns;
        let domain = (!domain.is_empty()).then_some(domain);
        serde_json::to_writer(&mut self.out, &Line { host, domain })?;
        self.out.write_all(b"\n")
    }

    pub(super) fn end(mut self) -> io::Result<()> {
        self.out.flush()
    }
}
