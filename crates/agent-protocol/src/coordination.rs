//! How the guest takes part in changes of its size: it is asked before a shrink, told after a growth, and may say that it is
//! in need. What it says is a claim and a wish; the host decides. Re-exported by [`crate::message`].

use serde::{Deserialize, Serialize};

use crate::{
    limits::{MEMORY_MAX_KIB, NEED_REASON_MAX, RETRY_AFTER_MAX_MS},
    reply::clean_text,
};

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// vCPUs; amounts are numbers of them.
    Vcpus,
    /// Memory; amounts are bytes.
    Memory,
}

impl Resource {
    /// The resource's name, on the wire and in a hook's environment.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vcpus => "vcpus",
            Self::Memory => "memory",
        }
    }
}

/// A change of the guest's size: arguments of `prepare_shrink` and `grown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resize {
    /// Of what.
    pub resource: Resource,
    /// What the guest has or had, in vCPUs or bytes.
    pub from: u64,
    /// What it shall have or has.
    pub to: u64,
}

/// Answer to [`crate::message::Operation::PrepareShrink`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Consent {
    /// Nothing in the guest is against it.
    Agreed,
    /// Somebody in the guest is against it.
    Refused {
        /// Why, for people.
        reason: String,
        /// When it makes sense to ask again, in milliseconds; at most [`RETRY_AFTER_MAX_MS`] of it count.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
}

impl Consent {
    /// The answer within its bounds, its text safe to show.
    #[must_use]
    pub fn bounded(self, reason_max: usize) -> Self {
        match self {
            Self::Agreed => Self::Agreed,
            Self::Refused {
                reason,
                retry_after_ms,
            } => Self::Refused {
                reason: clean_text(&reason, reason_max),
                retry_after_ms: retry_after_ms.map(|after| after.min(RETRY_AFTER_MAX_MS)),
            },
        }
    }
}

/// Answer to [`crate::message::Operation::Grown`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrownReply {
    /// Hooks that ran.
    pub ran: u32,
    /// The first one that failed, as a sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// The guest says that it needs memory at once. Sent unasked, and only to a host whose hello has the feature
/// [`NEED_FEATURE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// How much more, in bytes.
    pub memory_bytes: u64,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}

/// What the host's hello says when it listens to needs.
pub const NEED_FEATURE: &str = "need";

/// A need that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NeedRefusal {
    /// Nothing is asked for.
    #[error("the need is of no memory")]
    Nothing,
    /// More than any guest can have.
    #[error("the need of {bytes} bytes is more than a guest can have")]
    TooMuch {
        /// What was asked for.
        bytes: u64,
    },
}

impl Need {
    /// The need with a text that is safe to show.
    ///
    /// # Errors
    /// [`NeedRefusal`] for an amount that cannot be.
    pub fn check(self) -> Result<Self, NeedRefusal> {
        match self.memory_bytes {
            0 => Err(NeedRefusal::Nothing),
            bytes if bytes > MEMORY_MAX_KIB * 1024 => Err(NeedRefusal::TooMuch { bytes }),
            memory_bytes => Ok(Self {
                memory_bytes,
                reason: clean_text(&self.reason, NEED_REASON_MAX),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_of_nothing_or_of_more_than_can_be_is_refused_and_its_text_cleaned() {
        let need = |memory_bytes| Need {
            memory_bytes,
            reason: format!("\u{1b}[2J{}", "x".repeat(9999)),
        };
        assert_eq!(need(0).check(), Err(NeedRefusal::Nothing));
        assert!(matches!(
            need(u64::MAX).check(),
            Err(NeedRefusal::TooMuch { .. })
        ));
        let kept = need(1).check().unwrap();
        assert!(!kept.reason.contains('\u{1b}') && kept.reason.len() <= NEED_REASON_MAX);
    }

    #[test]
    fn a_refusal_is_bounded() {
        let refused = Consent::Refused {
            reason: "é".repeat(999),
            retry_after_ms: Some(u64::MAX),
        };
        let Consent::Refused {
            reason,
            retry_after_ms,
        } = refused.bounded(9)
        else {
            panic!("it is still a refusal")
        };
        assert_eq!(
            (reason.len(), retry_after_ms),
            (8, Some(RETRY_AFTER_MAX_MS))
        );
    }
}
