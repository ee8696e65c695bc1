//! Switching personas from within the guest: a user asks what may be chosen, or for another persona; the host decides and
//! says so, also later. An [`Ask`] is unasked for, as a need is, and goes only to a host whose hello has the feature
//! [`SWITCH_FEATURE`]; a [`Told`] answers it, several times where a switch takes its time. Both ends of the channel and the
//! programs on the agent's own socket ([`crate::local`]) use it.

use serde::{Deserialize, Serialize};

use crate::{
    identity::RequestId,
    limits::{
        DESCRIPTION_MAX, MESSAGE_MAX, NAME_MAX, OFFER_LINES_MAX, OFFER_VALUE_MAX, OFFERS_JSON_MAX,
        OFFERS_MAX,
    },
    reply::clean_text,
};

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

/// What there is to choose from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offers {
    /// The persona that is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Others, by name.
    pub offers: Vec<Offer>,
    /// How many others did not fit.
    #[serde(default)]
    pub left_out: usize,
    /// A sentence about a switch that is on its way or waits for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under_way: Option<String>,
}

/// A persona that a user may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Its name.
    pub persona: String,
    /// Its own description.
    #[serde(default)]
    pub description: String,
    /// What becomes of asking for it.
    pub course: Course,
    /// What would change.
    pub changes: Vec<ChangeLine>,
    /// How many changes more there are.
    #[serde(default)]
    pub more: usize,
}

/// What becomes of asking for a persona, as things are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "course", rename_all = "snake_case")]
pub enum Course {
    /// It is made active.
    AtOnce,
    /// A person of the host is asked.
    Approval,
    /// It is refused.
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// Something of a newer protocol.
    #[serde(other)]
    Unknown,
}

/// One value that would be another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeLine {
    /// The keys of the persona's language that lead to it.
    pub subject: String,
    /// As it is; absent where it is not set, or is nothing for the guest to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
    /// As it would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<String>,
}

impl Offers {
    /// The offers with clean texts, and as many of them and of their changes as one frame has room for: each offer gets an
    /// equal part of the room, and says how much was left out.
    #[must_use]
    pub fn bounded(self) -> Self {
        let mut bounded = Self {
            current: self.current.map(|name| line(&name, NAME_MAX)),
            offers: Vec::new(),
            left_out: self.left_out,
            under_way: self.under_way.map(|text| line(&text, MESSAGE_MAX)),
        };
        let mut room = OFFERS_JSON_MAX;
        let mut all = Vec::new();
        for offer in self.offers {
            let changes = offer.changes;
            let head = Offer {
                persona: line(&offer.persona, NAME_MAX),
                description: line(&offer.description, DESCRIPTION_MAX),
                course: match offer.course {
                    Course::Refused { reason } => Course::Refused {
                        reason: line(&reason, DESCRIPTION_MAX),
                    },
                    other => other,
                },
                changes: Vec::new(),
                more: offer.more,
            };
            let size = json_size(&head);
            if all.len() >= OFFERS_MAX || size > room {
                bounded.left_out += 1;
                continue;
            }
            room -= size;
            all.push((head, changes));
        }
        let share = room.checked_div(all.len()).unwrap_or_default();
        bounded.offers = all
            .into_iter()
            .map(|(head, changes)| with_lines(head, changes, share))
            .collect();
        bounded
    }
}

fn with_lines(mut offer: Offer, changes: Vec<ChangeLine>, share: usize) -> Offer {
    let mut room = share;
    for change in changes {
        let value = |text: Option<String>| text.map(|text| shortened(&text, OFFER_VALUE_MAX));
        let change = ChangeLine {
            subject: line(&change.subject, NAME_MAX),
            now: value(change.now),
            then: value(change.then),
        };
        let size = json_size(&change);
        if offer.more > 0 || offer.changes.len() >= OFFER_LINES_MAX || size > room {
            offer.more += 1;
            continue;
        }
        room -= size;
        offer.changes.push(change);
    }
    offer
}

/// Bytes on the wire, with the comma behind it.
fn json_size(value: &impl Serialize) -> usize {
    serde_json::to_string(value).map_or(usize::MAX, |text| text.len() + 1)
}

/// One line, clean and bounded.
fn line(text: &str, most: usize) -> String {
    clean_text(text, most).replace(['\n', '\t'], " ")
}

/// As [`line()`], and it shows where something is cut.
fn shortened(text: &str, most: usize) -> String {
    let whole = line(text, usize::MAX);
    if whole.len() <= most {
        return whole;
    }
    format!("{}...", line(&whole, most.saturating_sub(3)))
}

/// How often something may be asked: a bucket that fills by one each interval. The caller's clock is any that only rises.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    interval_ms: u64,
    burst: u64,
    spare_ms: u64,
    at_ms: u64,
}

impl Pace {
    /// A full bucket of `burst`, one more each `interval_ms`.
    #[must_use]
    pub fn new(interval_ms: u64, burst: u64) -> Self {
        Self {
            interval_ms,
            burst,
            spare_ms: interval_ms.saturating_mul(burst),
            at_ms: 0,
        }
    }

    /// Takes one, if there is one.
    ///
    /// # Errors
    /// [`TooSoon`] when the bucket is empty.
    pub fn take(&mut self, now_ms: u64) -> Result<(), TooSoon> {
        let passed = now_ms.saturating_sub(self.at_ms);
        self.at_ms = self.at_ms.max(now_ms);
        let most = self.interval_ms.saturating_mul(self.burst);
        self.spare_ms = self.spare_ms.saturating_add(passed).min(most);
        match self.spare_ms.checked_sub(self.interval_ms) {
            Some(left) => {
                self.spare_ms = left;
                Ok(())
            }
            None => Err(TooSoon),
        }
    }
}

/// Nothing is left in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("that was asked too often; wait a moment")]
pub struct TooSoon;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        envelope::{Stamp, decode_guest, decode_host, encode_guest, encode_host},
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

    #[test]
    fn a_pace_lets_a_burst_pass_and_then_one_each_interval() {
        let mut pace = Pace::new(1_000, 2);
        assert_eq!(pace.take(5), Ok(()));
        assert_eq!(pace.take(5), Ok(()));
        assert_eq!(pace.take(900), Err(TooSoon));
        assert_eq!(pace.take(1_005), Ok(()));
        // A clock that goes back gives nothing.
        assert_eq!(pace.take(0), Err(TooSoon));
        assert_eq!(pace.take(2_005), Ok(()));
    }

    fn text() -> impl Strategy<Value = String> {
        "[a-z\"\\\\\n\u{1b}é€]{0,40}"
    }

    fn offer() -> impl Strategy<Value = Offer> {
        let change = (
            text(),
            proptest::option::of(text()),
            proptest::option::of(text()),
        )
            .prop_map(|(subject, now, then)| ChangeLine { subject, now, then });
        (
            text(),
            text(),
            text(),
            proptest::collection::vec(change, 0..9),
        )
            .prop_map(|(persona, description, reason, changes)| Offer {
                persona,
                description,
                course: Course::Refused { reason },
                changes,
                more: 0,
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn bounded_offers_fit_a_frame_and_count_what_they_leave_out(
            offers in proptest::collection::vec(offer(), 0..80)
        ) {
            let changes = |offers: &[Offer]| -> usize {
                offers.iter().map(|offer| offer.changes.len() + offer.more).sum()
            };
            let whole = Offers { offers: offers.clone(), ..Offers::default() };
            let bounded = whole.bounded();
            prop_assert_eq!(bounded.offers.len() + bounded.left_out, offers.len());
            if bounded.left_out == 0 {
                prop_assert_eq!(changes(&bounded.offers), changes(&offers));
            }
            let told = Told { ask_id: id(), answer: Answer::Offers(bounded) };
            let stamp = Stamp::outside();
            let frame = encode_host(&stamp, &HostMessage::Told(Box::new(told)), MAX_FRAME);
            prop_assert!(frame.is_ok());
        }
    }
}
