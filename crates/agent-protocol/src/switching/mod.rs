//! Switching personas from within the guest: a user asks what may be chosen, or for another persona; the host decides and
//! says so, also later. An [`Ask`] is unasked for, as a need is, and goes only to a host whose hello has the feature
//! [`SWITCH_FEATURE`]; a [`Told`] answers it, several times where a switch takes its time. What there is to choose from is in
//! `offers`, how often one may ask in `pace`. Both ends of the channel and the programs on the agent's own socket
//! ([`crate::local`]) use it.

mod offers;
mod pace;

use serde::{Deserialize, Serialize};

use crate::{
    identity::RequestId,
    limits::{MESSAGE_MAX, NAME_MAX},
    reply::clean_text,
};

pub use offers::{ChangeLine, Course, Offer, Offers};
pub use pace::{Pace, TooSoon};

/// What the host's hello says when it listens to users who want another persona.
pub const SWITCH_FEATURE: &str = "switch";

/// A user of the guest asks something. Its id is the agent's: unique among what this agent asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// What answers name.
    pub ask_id: RequestId,
    /// Who asks; the guest's word.
    pub user: GuestUser,
    /// What.
    #[serde(flatten)]
    pub what: Asked,
}

/// A user of the guest, by the guest's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestUser {
    /// The name in the guest's password file; empty where it has none.
    #[serde(default)]
    pub name: String,
    /// The number.
    pub uid: u32,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Asked {
    /// Which personas there are to choose from. Answered by [`Answer::Offers`] or [`Answer::Refused`].
    Offers,
    /// Another persona.
    Switch {
        /// Its name.
        persona: String,
    },
    /// Something of a newer protocol.
    #[serde(other)]
    Unknown,
}

/// An ask that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskRefusal {
    /// It is of a newer protocol.
    #[error("what is asked is not known")]
    Unknown,
    /// It names no persona.
    #[error("no persona is named")]
    NoPersona,
}

impl Ask {
    /// The ask with texts that are bounded and safe to show.
    ///
    /// # Errors
    /// [`AskRefusal`] for one that makes no sense.
    pub fn check(self) -> Result<Self, AskRefusal> {
        let what = match self.what {
            Asked::Offers => Asked::Offers,
            Asked::Switch { persona } if persona.is_empty() => return Err(AskRefusal::NoPersona),
            Asked::Switch { persona } => Asked::Switch {
                persona: line(&persona, NAME_MAX),
            },
            Asked::Unknown => return Err(AskRefusal::Unknown),
        };
        let user = GuestUser {
            name: line(&self.user.name, NAME_MAX),
            uid: self.user.uid,
        };
        Ok(Self {
            ask_id: self.ask_id,
            user,
            what,
        })
    }
}

/// The host answers an ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Which ask.
    pub ask_id: RequestId,
    /// What.
    #[serde(flatten)]
    pub answer: Answer,
}

/// What the host says to an ask. After one of which [`Answer::is_last`] is true no other comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// What there is to choose from.
    Offers(Offers),
    /// The switch begins.
    Accepted {
        /// The persona that is being made active.
        persona: String,
    },
    /// A person of the host has to approve it first.
    Waits {
        /// The number under which it waits there.
        proposal: u64,
        /// For how long, in milliseconds from now.
        expires_in_ms: u64,
    },
    /// The persona is active.
    Active {
        /// Which.
        persona: String,
        /// What people should know of how it went.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remark: Option<String>,
    },
    /// The host does not do it; nothing has changed.
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// It was begun or waited for and did not come about.
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// Something of a newer protocol.
    #[serde(other)]
    Unknown,
}

impl Answer {
    /// Whether nothing more is said to the ask.
    #[must_use]
    pub fn is_last(&self) -> bool {
        match self {
            Self::Offers(_) | Self::Active { .. } | Self::Refused { .. } | Self::Failed { .. } => {
                true
            }
            Self::Accepted { .. } | Self::Waits { .. } | Self::Unknown => false,
        }
    }

    /// A refusal with a bounded reason.
    #[must_use]
    pub fn refused(reason: &str) -> Self {
        Self::Refused {
            reason: line(reason, MESSAGE_MAX),
        }
    }

    /// A failure with a bounded reason.
    #[must_use]
    pub fn failed(reason: &str) -> Self {
        Self::Failed {
            reason: line(reason, MESSAGE_MAX),
        }
    }
}

/// One line, clean and bounded.
fn line(text: &str, most: usize) -> String {
    clean_text(text, most).replace(['\n', '\t'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        envelope::{decode_guest, decode_host, encode_guest, encode_host},
        frame::Decoder,
        limits::{MAX_FRAME, MAX_FRAME_BEFORE_HELLO},
        message::{GuestMessage, HostMessage},
    };

    fn id() -> RequestId {
        RequestId::new("a-1").unwrap()
    }

    #[test]
    fn an_ask_is_cleaned_and_one_without_sense_refused() {
        let ask = |what| Ask {
            ask_id: id(),
            user: GuestUser {
                name: "\u{1b}[2Jeve\nroot".to_owned(),
                uid: 1000,
            },
            what,
        };
        let persona = "x".repeat(9_999);
        let kept = ask(Asked::Switch { persona }).check().unwrap();
        assert_eq!(kept.user.name, " [2Jeve root");
        let Asked::Switch { persona } = kept.what else {
            panic!("it is still a switch")
        };
        assert_eq!(persona.len(), NAME_MAX);
        assert_eq!(ask(Asked::Unknown).check(), Err(AskRefusal::Unknown));
        let nothing = Asked::Switch {
            persona: String::new(),
        };
        assert_eq!(ask(nothing).check(), Err(AskRefusal::NoPersona));
    }

    #[test]
    fn asks_and_answers_look_as_documented_and_what_is_newer_is_kept_apart() {
        let text = r#"{"msg":"ask","sid":"00112233445566778899aabbccddeeff","seq":4,"ask_id":"a-1","user":{"name":"ada","uid":1000},"what":"switch","persona":"night"}"#;
        let (stamp, message) = decode_guest(text).unwrap();
        let GuestMessage::Ask(ask) = &message else {
            panic!("{message:?}")
        };
        assert_eq!(
            ask.what,
            Asked::Switch {
                persona: "night".to_owned()
            }
        );
        let frame = encode_guest(&stamp, &message, MAX_FRAME_BEFORE_HELLO).unwrap();
        let again = Decoder::new(MAX_FRAME)
            .next_frame(&mut &frame[..])
            .unwrap()
            .to_owned();
        assert_eq!(again, text);

        let newer = text.replace("\"switch\"", "\"dance\"");
        let (_, GuestMessage::Ask(ask)) = decode_guest(&newer).unwrap() else {
            panic!("it is still an ask")
        };
        assert_eq!(ask.what, Asked::Unknown);

        let told = r#"{"msg":"told","sid":"00112233445566778899aabbccddeeff","seq":9,"ask_id":"a-1","answer":"refused","reason":"no"}"#;
        let (stamp, message) = decode_host(told).unwrap();
        assert_eq!(
            message,
            HostMessage::Told(Box::new(Told {
                ask_id: id(),
                answer: Answer::refused("no")
            }))
        );
        let frame = encode_host(&stamp, &message, MAX_FRAME).unwrap();
        let again = Decoder::new(MAX_FRAME)
            .next_frame(&mut &frame[..])
            .unwrap()
            .to_owned();
        assert_eq!(again, told);
        let newer = told.replace("\"refused\"", "\"sung\"");
        let (_, HostMessage::Told(told)) = decode_host(&newer).unwrap() else {
            panic!("it is still told")
        };
        assert_eq!(told.answer, Answer::Unknown);
        assert!(!told.answer.is_last());
    }
}
