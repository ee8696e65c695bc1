//! Messages to frames and back. Each frame is one JSON object: `msg` names the message, `sid` and `seq` are its [`Stamp`], the
//! message's own fields lie beside them. The daemon uses [`encode_host`] and [`decode_guest`], the agent the other two.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    chunk,
    frame::{self, FrameTooLong},
    identity::{RequestId, SessionId},
    limits::{BODY_MAX, NAME_MAX},
    message::{GuestMessage, HostMessage, Request, clean_text},
    session::Session,
};

/// Where a frame belongs: its session and its place in it. An announcement is outside any session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The session; absent in an announcement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<SessionId>,
    /// Grows by one with each frame of a direction, from 0.
    #[serde(default)]
    pub seq: u64,
}

impl Stamp {
    /// The stamp of a frame outside any session.
    #[must_use]
    pub fn outside() -> Self {
        Self { sid: None, seq: 0 }
    }
}

/// A message that cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// It has no JSON form.
    #[error("the message cannot be written as JSON")]
    Json(#[source] serde_json::Error),
    /// It does not fit a frame.
    #[error("the message does not fit a frame")]
    TooLong(#[source] FrameTooLong),
    /// The request is too large even in pieces.
    #[error("the request is {length} bytes long, more than {BODY_MAX}")]
    BodyTooLong {
        /// Length of its JSON in bytes.
        length: usize,
    },
}

/// A frame that is no message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It is no JSON object with the fields of its message.
    #[error("the frame is no message")]
    Malformed(#[source] serde_json::Error),
    /// A message of a newer protocol.
    #[error("the message `{name}` is not known")]
    Unknown {
        /// Its name, cleaned and bounded.
        name: String,
    },
    /// A request with an id but without sense; it can be answered.
    #[error("the request {id} cannot be understood")]
    Request {
        /// Which request.
        id: RequestId,
        /// Where it came in; an answer is due only when the session admits it.
        stamp: Stamp,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

#[derive(Serialize)]
struct Outgoing<'a, T> {
    msg: &'static str,
    #[serde(flatten)]
    stamp: &'a Stamp,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Deserialize)]
struct Incoming {
    msg: String,
    #[serde(flatten)]
    stamp: Stamp,
}

#[derive(Deserialize)]
struct RequestHead {
    id: RequestId,
}

/// One frame of the host.
///
/// # Errors
/// [`EncodeError`]; a request that may be long goes through [`encode_request`].
pub fn encode_host(
    stamp: &Stamp,
    message: &HostMessage,
    max_frame: usize,
) -> Result<Vec<u8>, EncodeError> {
    match message {
        HostMessage::Hello(body) => encode("hello", stamp, body, max_frame),
        HostMessage::Ping(body) => encode("ping", stamp, body, max_frame),
        HostMessage::Credit(body) => encode("credit", stamp, body, max_frame),
        HostMessage::Collect(body) => encode("collect", stamp, body, max_frame),
        HostMessage::Request(body) => encode("request", stamp, body, max_frame),
        HostMessage::Chunk(body) => encode("chunk", stamp, body, max_frame),
        HostMessage::Told(body) => encode("told", stamp, body.as_ref(), max_frame),
    }
}

/// One frame of the guest.
///
/// # Errors
/// [`EncodeError`].
pub fn encode_guest(
    stamp: &Stamp,
    message: &GuestMessage,
    max_frame: usize,
) -> Result<Vec<u8>, EncodeError> {
    match message {
        GuestMessage::Announce(body) => encode("announce", stamp, body, max_frame),
        GuestMessage::HelloAck(body) => encode("hello_ack", stamp, body.as_ref(), max_frame),
        GuestMessage::HelloRefused(body) => encode("hello_refused", stamp, body, max_frame),
        GuestMessage::Pong(body) => encode("pong", stamp, body, max_frame),
        GuestMessage::Reply(body) => encode("reply", stamp, body, max_frame),
        GuestMessage::Telemetry(body) => encode("telemetry", stamp, body, max_frame),
        GuestMessage::Need(body) => encode("need", stamp, body, max_frame),
        GuestMessage::Output(body) => encode("output", stamp, body, max_frame),
        GuestMessage::Ask(body) => encode("ask", stamp, body, max_frame),
    }
}

/// The messages of a request for a peer that takes frames of `max_frame` bytes: itself, or the pieces of its body. They are
/// sent in this order; messages of other kinds may go between them.
///
/// # Errors
/// [`EncodeError::BodyTooLong`] above the limit of a body.
pub fn request_messages(
    request: Request,
    max_frame: usize,
) -> Result<Vec<HostMessage>, EncodeError> {
    let body = serde_json::to_vec(&request).map_err(EncodeError::Json)?;
    // The rest of the envelope is far below 256 bytes.
    if body.len() + 256 <= max_frame {
        return Ok(vec![HostMessage::Request(request)]);
    }
    if body.len() > BODY_MAX {
        return Err(EncodeError::BodyTooLong { length: body.len() });
    }
    let pieces = chunk::cut(&request.id, &body, max_frame).map(HostMessage::Chunk);
    Ok(pieces.collect())
}

/// The frames of a request: one, or as many pieces as it needs.
///
/// # Errors
/// [`EncodeError::BodyTooLong`] above the limit of a body; no sequence number is lost to a refused request.
pub fn encode_request(
    session: &mut Session,
    request: &Request,
    max_frame: usize,
) -> Result<Vec<Vec<u8>>, EncodeError> {
    request_messages(request.clone(), max_frame)?
        .iter()
        .map(|message| encode_host(&session.stamp(), message, max_frame))
        .collect()
}

/// The request in a reassembled body.
///
/// # Errors
/// [`DecodeError`], as for a frame.
pub fn decode_request_body(body: &[u8], stamp: &Stamp) -> Result<Request, DecodeError> {
    let value: Value = serde_json::from_slice(body).map_err(DecodeError::Malformed)?;
    decode_request(value, stamp)
}

/// A message of the host from the text of one frame.
///
/// # Errors
/// [`DecodeError`].
pub fn decode_host(text: &str) -> Result<(Stamp, HostMessage), DecodeError> {
    let (name, stamp, value) = open(text)?;
    let message = match name.as_str() {
        "hello" => HostMessage::Hello(body(value)?),
        "ping" => HostMessage::Ping(body(value)?),
        "credit" => HostMessage::Credit(body(value)?),
        "collect" => HostMessage::Collect(body(value)?),
        "request" => HostMessage::Request(decode_request(value, &stamp)?),
        "chunk" => HostMessage::Chunk(body(value)?),
        "told" => HostMessage::Told(Box::new(body(value)?)),
        _ => return Err(unknown(&name)),
    };
    Ok((stamp, message))
}

/// A message of the guest from the text of one frame.
///
/// # Errors
/// [`DecodeError`].
pub fn decode_guest(text: &str) -> Result<(Stamp, GuestMessage), DecodeError> {
    let (name, stamp, value) = open(text)?;
    let message = match name.as_str() {
        "announce" => GuestMessage::Announce(body(value)?),
        "hello_ack" => GuestMessage::HelloAck(body(value)?),
        "hello_refused" => GuestMessage::HelloRefused(body(value)?),
        "pong" => GuestMessage::Pong(body(value)?),
        "reply" => GuestMessage::Reply(body(value)?),
        "telemetry" => GuestMessage::Telemetry(body(value)?),
        "need" => GuestMessage::Need(body(value)?),
        "output" => GuestMessage::Output(body(value)?),
        "ask" => GuestMessage::Ask(body(value)?),
        _ => return Err(unknown(&name)),
    };
    Ok((stamp, message))
}

fn encode(
    msg: &'static str,
    stamp: &Stamp,
    body: &impl Serialize,
    max_frame: usize,
) -> Result<Vec<u8>, EncodeError> {
    let json = serde_json::to_string(&Outgoing { msg, stamp, body }).map_err(EncodeError::Json)?;
    frame::encode(&json, max_frame).map_err(EncodeError::TooLong)
}

fn open(text: &str) -> Result<(String, Stamp, Value), DecodeError> {
    let value: Value = serde_json::from_str(text).map_err(DecodeError::Malformed)?;
    let Incoming { msg, stamp } = Incoming::deserialize(&value).map_err(DecodeError::Malformed)?;
    Ok((msg, stamp, value))
}

fn body<T: DeserializeOwned>(value: Value) -> Result<T, DecodeError> {
    serde_json::from_value(value).map_err(DecodeError::Malformed)
}

fn decode_request(value: Value, stamp: &Stamp) -> Result<Request, DecodeError> {
    let head = RequestHead::deserialize(&value).map_err(DecodeError::Malformed)?;
    serde_json::from_value(value).map_err(|source| DecodeError::Request {
        id: head.id,
        stamp: stamp.clone(),
        source,
    })
}

fn unknown(name: &str) -> DecodeError {
    DecodeError::Unknown {
        name: clean_text(name, NAME_MAX),
    }
}
