//! What a user has to choose from: personas, each with what would change, bounded so that all of it fits one frame. Who asks,
//! and what else is answered, is beside it.

use serde::{Deserialize, Serialize};

use super::line;
use crate::limits::{
    DESCRIPTION_MAX, MESSAGE_MAX, NAME_MAX, OFFER_LINES_MAX, OFFER_VALUE_MAX, OFFERS_JSON_MAX,
    OFFERS_MAX,
};

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

/// As [`line()`], and it shows where something is cut.
fn shortened(text: &str, most: usize) -> String {
    let whole = line(text, usize::MAX);
    if whole.len() <= most {
        return whole;
    }
    format!("{}...", line(&whole, most.saturating_sub(3)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{Answer, Told},
        *,
    };
    use crate::{
        envelope::{Stamp, encode_host},
        identity::RequestId,
        limits::MAX_FRAME,
        message::HostMessage,
    };

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
            let ask_id = RequestId::new("a-1").unwrap();
            let told = Told { ask_id, answer: Answer::Offers(bounded) };
            let stamp = Stamp::outside();
            let frame = encode_host(&stamp, &HostMessage::Told(Box::new(told)), MAX_FRAME);
            prop_assert!(frame.is_ok());
        }
    }
}
