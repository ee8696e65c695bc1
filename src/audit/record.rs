//! One record of the audit trail, and what is done to what goes into it: a line stays one line, and nothing that a
//! guest or a document supplies can make it long.

use std::fmt;

use persona::units::Moment;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::hypervisor::DomainId;
use crate::store::{Stored, Tree};

/// Characters of a record's line, at most.
const TEXT_CHARS: usize = 1000;

/// Bytes of a record's detail as JSON, at most; more is left out and said so.
const DETAIL_BYTES: usize = 64 * 1024;

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditKind {
    /// The planner decided to change something.
    Decision,
    /// A step was performed: applied, partial, refused or unknown.
    Action,
    /// A persona was activated in a guest, or that failed.
    Activation,
    /// A domain was bound to a persona or freed of it, by a person or by its tags.
    Binding,
    /// A persona, a version or a mapping was stored, changed or deleted.
    Catalogue,
    /// A domain's definition was prepared for live scaling, or put back.
    Adoption,
    /// Somebody else changed what the daemon manages.
    Drift,
    /// Something waits for a person, a person has decided, or it is no longer there to decide.
    Proposal,
    /// A person wants something left alone, or no longer.
    Hold,
    /// A command was run in a guest because somebody asked for it, or was refused there.
    Command,
    /// Something was asked for and refused.
    Refusal,
    /// The hypervisor, an agent or a domain came or went, or a domain became another than it was.
    Connection,
    /// The daemon itself started, stopped or was configured anew.
    Daemon,
}

impl fmt::Display for AuditKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Decision => "decision",
            Self::Action => "action",
            Self::Activation => "activation",
            Self::Binding => "binding",
            Self::Catalogue => "catalogue",
            Self::Adoption => "adoption",
            Self::Drift => "drift",
            Self::Proposal => "proposal",
            Self::Hold => "hold",
            Self::Command => "command",
            Self::Refusal => "refusal",
            Self::Connection => "connection",
            Self::Daemon => "daemon",
        })
    }
}

/// What is to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When it happened.
    pub at: Moment,
    /// The domain that it is about, with the name that it had then.
    pub domain: Option<(DomainId, String)>,
    /// What it is about.
    pub kind: AuditKind,
    /// One line for people.
    pub text: String,
    /// The same for programs; `Value::Null` where the line says all.
    pub detail: Value,
}

/// What was recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its number, strictly increasing.
    pub seq: u64,
    /// When it happened.
    pub at: Moment,
    /// The domain that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainId>,
    /// The name that the domain had then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_name: Option<String>,
    /// What it is about.
    pub kind: AuditKind,
    /// One line for people.
    pub text: String,
    /// The same for programs.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}

impl Stored for AuditRecord {
    const TREE: Tree = Tree::Audit;
}

impl Entry {
    pub(super) fn into_record(self, seq: u64) -> AuditRecord {
        let (domain, domain_name) = self.domain.unzip();
        let size = self.detail.to_string().len();
        let detail = if size > DETAIL_BYTES {
            serde_json::json!({ "left_out": format!("{size} bytes, more than {DETAIL_BYTES}") })
        } else {
            self.detail
        };
        AuditRecord {
            seq,
            at: self.at,
            domain,
            domain_name: domain_name.map(|name| one_line(&name)),
            kind: self.kind,
            text: one_line(&self.text),
            detail,
        }
    }
}

impl AuditRecord {
    /// About how many bytes it takes in the store.
    pub(super) fn size(&self) -> usize {
        let name = self.domain_name.as_ref().map_or(0, String::len);
        // The fixed keys and the numbers take less than 200 bytes; text may be escaped.
        200 + name + 2 * self.text.len() + self.detail.to_string().len()
    }

    /// One line in the daemon's log.
    pub(super) fn log(&self) {
        let domain = self.domain_name.as_deref().unwrap_or("-");
        match self.kind {
            AuditKind::Drift | AuditKind::Refusal => {
                tracing::warn!(target: "audit", seq = self.seq, kind = %self.kind, domain, "{}", self.text);
            }
            _ => {
                tracing::info!(target: "audit", seq = self.seq, kind = %self.kind, domain, "{}", self.text)
            }
        }
    }
}

/// Control characters (also line ends) become spaces, and what is too long is cut with an ellipsis.
fn one_line(text: &str) -> String {
    let mut line: String = text
        .chars()
        .take(TEXT_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(TEXT_CHARS).is_some() {
        line.push('…');
    }
    line
}
