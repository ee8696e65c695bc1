//! The messages, both ways. Unknown fields are ignored everywhere; an unknown operation is kept as [`Operation::Unknown`], so
//! that it can be answered as `unsupported`. How messages become frames is in [`crate::envelope`].

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    activation::Activation,
    chunk::Chunk,
    command::{Command, Output},
    coordination::{Need, Resize},
    customized::Customized,
    gate::GateState,
    identity::RequestId,
    parts::Collect,
    report::Report,
    rollback::RolledBack,
    rules::{RecordsSeen, RuleCall},
    switching::{Ask, Told},
    version::VersionRange,
};

pub use crate::reply::{
    DeactivationReply, ErrorCode, OnlineCpusReply, OpStatus, Reply, ReplyBody, ReplyError,
    ReplyFault, Retry, clean_text,
};

/// What the host says.
#[derive(Clone, Debug, PartialEq)]
pub enum HostMessage {
    /// Begins a session. Nothing else counts before it, and it counts at any time.
    Hello(Hello),
    /// Asks for a [`GuestMessage::Pong`] with the same number.
    Ping(Ping),
    /// Allows so many more telemetry frames.
    Credit(Credit),
    /// Says which parts reports shall have.
    Collect(Collect),
    /// Asks for something; answered by a [`Reply`].
    Request(Request),
    /// A piece of a request that is longer than a frame.
    Chunk(Chunk),
    /// Answers what a user of the guest asked.
    Told(Box<Told>),
}

/// What the guest says.
#[derive(Clone, Debug, PartialEq)]
pub enum GuestMessage {
    /// The port came up; outside any session. The host answers with a hello.
    Announce(Announce),
    /// The session stands.
    HelloAck(Box<HelloAck>),
    /// No session: the versions do not meet.
    HelloRefused(HelloRefused),
    /// Answer to a ping.
    Pong(Ping),
    /// Answer to a request.
    Reply(Reply),
    /// A report, against credit.
    Telemetry(Box<Telemetry>),
    /// Memory is needed at once.
    Need(Need),
    /// A piece of a running command's output.
    Output(Output),
    /// A user of the guest asks something.
    Ask(Ask),
}

/// Why the host greets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HelloReason {
    /// The host opened the connection.
    Connect,
    /// The guest announced itself or was reset.
    Reboot,
    /// The guest's memory was put back to an earlier state.
    Revert,
    /// The guest arrived from another host.
    Migrate,
    /// The peer stopped answering.
    Heartbeat,
    /// A reason of a newer protocol.
    #[serde(other)]
    Unknown,
}

/// The greeting. Its session id is the stamp's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Protocol versions that the host speaks.
    pub v: VersionRange,
    /// Identity of the host's installation.
    pub host_id: String,
    /// UUID of the domain, as libvirt writes it.
    pub vm_uuid: String,
    /// Why now.
    pub reason: HelloReason,
    /// Longest frame in bytes that the host accepts.
    pub max_frame: usize,
    /// Optional abilities of the host.
    #[serde(default)]
    pub feats: Vec<String>,
    /// The host's clock, in milliseconds since 1970.
    pub now_unix_ms: u64,
    /// Interval of telemetry in milliseconds; absent: none but on request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry_ms: Option<u64>,
}

/// A number to be echoed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Any number.
    pub n: u64,
}

/// Leave to send telemetry. Credit adds up, to [`crate::limits::CREDIT_MAX`]; a new session begins without any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// How many frames more.
    pub frames: u32,
}

/// Something asked of the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Unique for ever. A second delivery returns the first one's result.
    pub id: RequestId,
    /// For how long it is worth beginning, in milliseconds from its arrival; the guest's clock may jump, so it is no date.
    pub ttl_ms: u64,
    /// What is asked.
    #[serde(flatten)]
    pub op: Operation,
}

/// What can be asked; on the wire `"op"` and, where there are any, `"args"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "OperationWire", into = "OperationWire")]
pub enum Operation {
    /// Make exactly so many CPUs online: plugged ones are brought online from the lowest number, others taken offline from the
    /// highest; CPU 0 never. Replied with [`OnlineCpusReply`].
    OnlineCpus {
        /// How many, at least one.
        target: u32,
    },
    /// Make a persona active. Replied with [`crate::activation::ActivationReply`].
    Activate {
        /// What to become.
        activation: Box<Activation>,
    },
    /// Make no persona active. Replied with [`DeactivationReply`].
    Deactivate {
        /// Newer than the active one.
        generation: u64,
    },
    /// What became of an earlier request. Replied with [`OpStatus`].
    OpStatus {
        /// The request asked about.
        id: RequestId,
    },
    /// A report at once. Replied with a [`Report`].
    Report,
    /// Whether the guest agrees to become smaller. Replied with a [`crate::coordination::Consent`].
    PrepareShrink {
        /// What is going to be done.
        resize: Resize,
    },
    /// The guest has become larger. Replied with a [`crate::coordination::GrownReply`].
    Grown {
        /// What was done.
        resize: Resize,
    },
    /// Run a command. Its output comes in [`GuestMessage::Output`]s; replied with [`crate::command::CommandReply`].
    Exec {
        /// What to run.
        command: Box<Command>,
    },
    /// Do what a rule of the host calls for. Replied with a [`crate::rules::CallReply`] as soon as it is on the guest's disk.
    Perform {
        /// What.
        call: Box<RuleCall>,
    },
    /// What rules in the guest did, from the oldest record that was not seen. Replied with a
    /// [`crate::rules::RuleRecordsReply`].
    RuleRecords {
        /// Up to where they have been seen and are forgotten; `None` where nothing is to be forgotten.
        seen: Option<RecordsSeen>,
    },
    /// An operation of a newer protocol, by name.
    Unknown(String),
}

#[derive(Clone, Serialize, Deserialize)]
struct OperationWire {
    op: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    args: Value,
}

#[derive(Serialize, Deserialize)]
struct TargetArgs {
    target: u32,
}

#[derive(Serialize, Deserialize)]
struct ActivateArgs {
    activation: Box<Activation>,
}

#[derive(Serialize, Deserialize)]
struct DeactivateArgs {
    generation: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct RuleRecordsArgs {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<RecordsSeen>,
}

#[derive(Serialize, Deserialize)]
struct OpStatusArgs {
    id: RequestId,
}

impl Operation {
    /// The operation's name on the wire.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::OnlineCpus { .. } => "online_cpus",
            Self::Activate { .. } => "activate",
            Self::Deactivate { .. } => "deactivate",
            Self::OpStatus { .. } => "op_status",
            Self::Report => "report",
            Self::PrepareShrink { .. } => "prepare_shrink",
            Self::Grown { .. } => "grown",
            Self::Exec { .. } => "exec",
            Self::Perform { .. } => "perform",
            Self::RuleRecords { .. } => "rule_records",
            Self::Unknown(name) => name,
        }
    }
}

impl TryFrom<OperationWire> for Operation {
    type Error = serde_json::Error;

    fn try_from(OperationWire { op, args }: OperationWire) -> Result<Self, serde_json::Error> {
        Ok(match op.as_str() {
            "online_cpus" => Self::OnlineCpus {
                target: serde_json::from_value::<TargetArgs>(args)?.target,
            },
            "activate" => Self::Activate {
                activation: serde_json::from_value::<ActivateArgs>(args)?.activation,
            },
            "deactivate" => Self::Deactivate {
                generation: serde_json::from_value::<DeactivateArgs>(args)?.generation,
            },
            "op_status" => Self::OpStatus {
                id: serde_json::from_value::<OpStatusArgs>(args)?.id,
            },
            "report" => Self::Report,
            "prepare_shrink" => Self::PrepareShrink {
                resize: serde_json::from_value(args)?,
            },
            "grown" => Self::Grown {
                resize: serde_json::from_value(args)?,
            },
            "exec" => Self::Exec {
                command: serde_json::from_value(args)?,
            },
            "perform" => Self::Perform {
                call: serde_json::from_value(args)?,
            },
            "rule_records" => Self::RuleRecords {
                seen: match args {
                    Value::Null => None,
                    args => serde_json::from_value::<RuleRecordsArgs>(args)?.seen,
                },
            },
            _ => Self::Unknown(op),
        })
    }
}

impl From<Operation> for OperationWire {
    fn from(operation: Operation) -> Self {
        let op = operation.name().to_owned();
        let args = match operation {
            Operation::OnlineCpus { target } => serde_json::to_value(TargetArgs { target }),
            Operation::Activate { activation } => serde_json::to_value(ActivateArgs { activation }),
            Operation::Deactivate { generation } => {
                serde_json::to_value(DeactivateArgs { generation })
            }
            Operation::OpStatus { id } => serde_json::to_value(OpStatusArgs { id }),
            Operation::PrepareShrink { resize } | Operation::Grown { resize } => {
                serde_json::to_value(resize)
            }
            Operation::Exec { command } => serde_json::to_value(command),
            Operation::Perform { call } => serde_json::to_value(call),
            Operation::RuleRecords { seen } => serde_json::to_value(RuleRecordsArgs { seen }),
            Operation::Report | Operation::Unknown(_) => Ok(Value::Null),
        };
        // These structs have string keys and no foreign serializers, the only causes of an error.
        Self {
            op,
            args: args.unwrap_or_default(),
        }
    }
}

/// The guest's side of the port came up. The host answers with a hello of a new session: another `inst` numbers its frames from
/// 0 again, so that in the old session they would count as repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce {
    /// Random, drawn at each start of the agent.
    pub inst: String,
    /// The kernel's random id of this boot.
    pub boot_id: String,
}

/// The guest accepts a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAck {
    /// The version that holds.
    pub v: u32,
    /// The agent's own version.
    pub agent_version: String,
    /// Random, drawn at each start of the agent.
    pub inst: String,
    /// The kernel's random id of this boot.
    pub boot_id: String,
    /// `/etc/machine-id`, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// The persona that the host made active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<Active>,
    /// What holds instead of it, where somebody in the guest went back by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<RolledBack>,
    /// What the guest's owner has made otherwise than the persona says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customized: Option<Customized>,
    /// The newest generation that the agent has seen, active or not; older ones are refused.
    #[serde(default)]
    pub generation: u64,
    /// Whether something is being finished or undone.
    pub journal: JournalState,
    /// Optional abilities of the agent.
    #[serde(default)]
    pub feats: Vec<String>,
    /// Longest frame in bytes that the agent accepts.
    pub max_frame: usize,
}

/// The persona that is active in a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    /// Its generation.
    pub generation: u64,
    /// Its name.
    pub persona: String,
    /// Its version.
    pub version: u64,
    /// Digest of what was activated.
    pub digest: String,
}

/// What the agent's journal is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalState {
    /// Nothing is under way.
    Clean,
    /// An activation or deactivation is under way.
    Busy,
    /// What an earlier run of the agent left is being finished or undone.
    Recovering,
    /// A write has been stuck for seconds: the file system is frozen or its device gone.
    Frozen,
    /// A state of a newer protocol.
    #[serde(other)]
    Unknown,
}

/// The guest accepts no session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloRefused {
    /// Why; `version` is the only reason of this protocol.
    pub error: String,
    /// What the agent speaks.
    pub have: VersionRange,
}

/// A report that was not asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Telemetry {
    /// The report.
    pub report: Report,
    /// What holds instead of what the host made active, where somebody in the guest went back by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<RolledBack>,
    /// What the guest's owner has made otherwise than the persona says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customized: Option<Customized>,
    /// Whether people who log in are held to restricted commands; absent where none is restricted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateState>,
    /// What the agent's journal is doing where it can do nothing: frozen. Absent as long as it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<JournalState>,
    /// Records of rules that the host has not seen.
    #[serde(default, skip_serializing_if = "is_none_waiting")]
    pub rule_records: u64,
}

// The signature is serde's.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_none_waiting(count: &u64) -> bool {
    *count == 0
}
