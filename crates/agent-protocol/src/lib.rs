//! What the virt-persona daemon and its agent in the guest say to each other, and nothing that does it.
//!
//! Bytes become frames ([`frame`]), frames become stamped messages ([`envelope`], [`message`]), and a [`session`] says which of
//! them count. Bodies that are longer than a frame travel in pieces ([`chunk`]). No file, socket, clock or random number is
//! touched here: both ends own those and pass in what is needed. The daemon (`src/agent`) and `guest-agent` call this crate.
#![forbid(unsafe_code)]

pub mod limits;
pub mod version;

pub mod frame;
pub mod identity;

pub mod envelope;
pub mod message;
pub mod reply;

pub mod activation;
pub mod application;
pub mod command;
pub mod coordination;
pub mod cpu_list;
pub mod customized;
pub mod environment;
pub mod figures;
pub mod gate;
pub mod local;
pub mod parts;
pub mod report;
pub mod rollback;
pub mod rules;
pub mod settings;
pub mod software;
pub mod switching;
pub mod way;

pub mod chunk;
pub mod session;

pub mod fuzz;

pub use activation::{Activation, ActivationReply, OnFailure, Script, ScriptResult};
pub use application::{AppFigure, AppKind, CheckedAppFigure};
pub use chunk::{Assembler, ChunkRefusal};
pub use command::{Command, CommandReply, CommandTable, Output, Stream};
pub use coordination::{Consent, GrownReply, Need, Resize};
pub use cpu_list::CpuList;
pub use customized::Customized;
pub use envelope::{
    DecodeError, EncodeError, Stamp, decode_guest, decode_host, encode_guest, encode_host,
    encode_request, request_messages,
};
pub use figures::{DiskFigures, LogFigures, NetworkFigures};
pub use frame::{Decoder, FrameCounters};
pub use gate::{GateStanding, GateState, GateTable};
pub use identity::{RequestId, SessionId};
pub use message::{GuestMessage, HostMessage, Operation, Reply, ReplyError, Request};
pub use parts::{Collect, Part, Parts};
pub use report::{CheckedReport, Report, ReportRefusal};
pub use rollback::RolledBack;
pub use rules::{
    GuestRule, GuestRules, RecordsSeen, RuleCall, RuleRecord, RuleRecordsReply, RulesInForce,
};
pub use session::{Dropped, Session};
pub use settings::{SettingLine, SettingOutcome, Settings, SettingsReply};
pub use software::{Package, VersionWish};
pub use switching::{Answer, Ask, Asked, GuestUser, Offer, Offers, Told};
pub use version::{PROTOCOL, SUPPORTED, VersionRange};
