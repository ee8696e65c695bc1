//! What rules of the host call for in one guest and what has not been begun there yet: bounded, in the order in which it was called
//! for, each under the number by which the agent knows it again. Pure; `guest_calls` stores it, asks the agent, and says in the audit
//! what became of each.

use std::time::Duration;

use agent_protocol::RequestId;
use agent_protocol::rules::{GuestAction, RuleEdge, RuleWord};
use persona::Digest;
use persona::units::Moment;
use serde::{Deserialize, Serialize};

use crate::hypervisor::DomainDescription;
use crate::store::{Stored, Tree};

/// A script that was called for longer ago answers nothing any more. A feature is a state, and waits for as long as it is wanted.
pub(super) const RUN_WAITS: Duration = Duration::from_secs(3_600);
/// What waits for one guest; with more the oldest goes.
pub(super) const WAITING: usize = 16;

/// The machine that something was called for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Machine {
    /// The running instance, counted by the hypervisor since the host's boot.
    instance: Option<u32>,
    /// The emulator's process, where it is known.
    process: Option<u32>,
    /// The host's boot.
    boot: String,
}

impl Machine {
    pub(super) fn of(description: &DomainDescription, boot: &str) -> Self {
        Self {
            instance: description.instance,
            process: description.process,
            boot: boot.to_owned(),
        }
    }

    fn is(&self, other: &Self) -> bool {
        let other_process = self
            .process
            .zip(other.process)
            .is_some_and(|(one, other)| one != other);
        self.instance == other.instance && self.boot == other.boot && !other_process
    }
}

/// Whether an agent may know of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Sent {
    /// It was never asked for.
    #[default]
    Never,
    /// It was asked for at least once, and may have been begun.
    Once,
}

/// One thing that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waiting {
    /// Under which it is asked for, however often.
    pub(super) id: RequestId,
    /// When it was called for.
    pub(super) at: Moment,
    /// The persona that has the rule.
    pub(super) digest: Digest,
    /// The machine that the rule looked at.
    pub(super) machine: Machine,
    pub(super) rule: String,
    pub(super) edge: RuleEdge,
    pub(super) action: GuestAction,
    pub(super) word: RuleWord,
    /// The same as a part of a sentence.
    pub(super) what: String,
    #[serde(default)]
    pub(super) sent: Sent,
}

impl Waiting {
    fn feature(&self) -> Option<&str> {
        match &self.action {
            GuestAction::Run(_) => None,
            GuestAction::EnableFeature(name) | GuestAction::DisableFeature(name) => Some(name),
        }
    }

    /// Not asked for, so that nothing of it can have been done.
    fn is_unsent(&self) -> bool {
        self.sent == Sent::Never
    }
}

/// Why something is not asked for any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Dropped {
    #[error("the until of the rule came before its agent was there")]
    TakenBack,
    #[error("what it would take back was never begun")]
    NeverBegun,
    #[error("rule {rule} has asked for the feature since")]
    Outdone { rule: String },
    #[error("its persona is no longer in force")]
    OtherPersona,
    #[error("the machine that it was called for is no more")]
    OtherMachine,
    #[error("it has waited for its agent for {} min", RUN_WAITS.as_secs() / 60)]
    TooOld,
    #[error("more than {WAITING} calls wait for its agent")]
    TooMany,
    #[error("{0}")]
    Refused(String),
}

/// Something that is not asked for any more, and why.
pub(super) type Left = (Waiting, Dropped);

/// What waits for one guest, oldest first, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outbox {
    waiting: Vec<Waiting>,
    /// Rules with the features that they had switched and that were not taken back: a rule may fire again before its `until`.
    #[serde(default)]
    standing: Vec<(Digest, String, String)>,
}

impl Stored for Outbox {
    const TREE: Tree = Tree::GuestCalls;
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.standing.is_empty()
    }

    pub(super) fn waiting(&self) -> &[Waiting] {
        &self.waiting
    }

    /// The next to be asked for.
    pub(super) fn first(&self) -> Option<&Waiting> {
        self.waiting.first()
    }

    /// Takes in what a rule calls for, and gives back what that leaves without a purpose. What may have been begun already stays,
    /// so that it is known what came of it.
    pub(super) fn take(&mut self, new: Waiting) -> Vec<Left> {
        let mut left = Vec::new();
        if new.edge == RuleEdge::Ends {
            let begun = |before: &mut Waiting| {
                let same = before.feature().is_none() || before.feature() == new.feature();
                before.is_unsent()
                    && before.edge == RuleEdge::Begins
                    && before.rule == new.rule
                    && same
            };
            let never: Vec<Waiting> = self.waiting.extract_if(.., begun).collect();
            let nothing_done = never.iter().any(|before| before.feature().is_some());
            left.extend(never.into_iter().map(|of| (of, Dropped::TakenBack)));
            let key = new
                .feature()
                .map(|name| (new.digest.clone(), new.rule.clone(), name.to_owned()));
            let stood = self.standing.len();
            self.standing.retain(|of| Some(of) != key.as_ref());
            if nothing_done && self.standing.len() == stood {
                left.push((new, Dropped::NeverBegun));
                return left;
            }
        }
        if let Some(feature) = new.feature() {
            let rule = new.rule.clone();
            let outdone =
                |before: &mut Waiting| before.is_unsent() && before.feature() == Some(feature);
            let outdone = self.waiting.extract_if(.., outdone);
            left.extend(outdone.map(|of| (of, Dropped::Outdone { rule: rule.clone() })));
        }
        self.waiting.push(new);
        if self.waiting.len() > WAITING {
            // Of one that was sent it is still to be heard what came of it.
            let oldest = self.waiting.iter().position(Waiting::is_unsent);
            let oldest = self.waiting.remove(oldest.unwrap_or(0));
            left.push((oldest, Dropped::TooMany));
        }
        left
    }

    /// Notes that the first is being asked for. Says whether that was not known.
    pub(super) fn send_first(&mut self) -> bool {
        let Some(first) = self.waiting.first_mut() else {
            return false;
        };
        if let (Some(name), RuleEdge::Begins) = (first.feature(), first.edge) {
            let key = (first.digest.clone(), first.rule.clone(), name.to_owned());
            if !self.standing.contains(&key) {
                self.standing.push(key);
            }
        }
        std::mem::replace(&mut first.sent, Sent::Once) == Sent::Never
    }

    /// It is settled.
    pub(super) fn remove(&mut self, id: &RequestId) -> Option<Waiting> {
        let at = self.waiting.iter().position(|of| of.id == *id)?;
        Some(self.waiting.remove(at))
    }

    /// What has lost its purpose, but for what is being asked for at this moment. `in_force` is the persona that holds on the
    /// domain, if any, and `machine` what runs there.
    pub(super) fn review(
        &mut self,
        in_force: Option<&Digest>,
        machine: Option<&Machine>,
        asking: Option<&RequestId>,
        now: Moment,
    ) -> Vec<Left> {
        // What others had switched went back with their persona.
        self.standing.retain(|(of, ..)| Some(of) == in_force);
        let why = |of: &Waiting| {
            if asking == Some(&of.id) {
                None
            } else if in_force != Some(&of.digest) {
                Some(Dropped::OtherPersona)
            } else if !machine.is_some_and(|machine| of.machine.is(machine)) {
                Some(Dropped::OtherMachine)
            } else if of.feature().is_none() && now.since(of.at) >= RUN_WAITS {
                Some(Dropped::TooOld)
            } else {
                None
            }
        };
        let left = self.waiting.extract_if(.., |of| why(of).is_some());
        let left: Vec<Waiting> = left.collect();
        let reasons = left.into_iter().filter_map(|of| {
            let why = why(&of)?;
            Some((of, why))
        });
        reasons.collect()
    }

    /// Everything, for one reason.
    pub(super) fn drop_all(&mut self, why: &Dropped) -> Vec<Left> {
        self.standing.clear();
        let all = self.waiting.drain(..);
        all.map(|of| (of, why.clone())).collect()
    }
}

/// What became of it, as a sentence.
pub(super) fn left_text((of, why): &Left) -> String {
    let known = match of.sent {
        Sent::Never => "nothing is done in the guest",
        Sent::Once => "it is not known whether the guest has done it",
    };
    format!("{}; {known}: {why}", of.what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(number: u32) -> Digest {
        serde_json::from_value(serde_json::json!(format!("{number:064x}"))).unwrap()
    }

    fn machine(instance: u32) -> Machine {
        Machine {
            instance: Some(instance),
            process: Some(7),
            boot: "b".to_owned(),
        }
    }

    fn call(id: usize, rule: &str, edge: RuleEdge, action: GuestAction) -> Waiting {
        Waiting {
            id: RequestId::new(format!("c{id}")).unwrap(),
            at: Moment(0),
            digest: digest(1),
            machine: machine(1),
            rule: rule.to_owned(),
            edge,
            what: format!("rule {rule} asks for: {}", action.name()),
            action,
            word: RuleWord::Persona,
            sent: Sent::Never,
        }
    }

    fn enable(id: usize, rule: &str, edge: RuleEdge) -> Waiting {
        call(id, rule, edge, GuestAction::EnableFeature("f".to_owned()))
    }

    fn disable(id: usize, rule: &str, edge: RuleEdge) -> Waiting {
        call(id, rule, edge, GuestAction::DisableFeature("f".to_owned()))
    }

    fn run(id: usize, rule: &str) -> Waiting {
        call(id, rule, RuleEdge::Begins, GuestAction::Run("s".to_owned()))
    }

    fn ids(outbox: &Outbox) -> Vec<&str> {
        outbox.waiting.iter().map(|of| of.id.as_str()).collect()
    }

    fn reasons(left: Vec<Left>) -> Vec<Dropped> {
        left.into_iter().map(|(_, why)| why).collect()
    }

    #[test]
    fn an_end_takes_back_what_was_not_sent_and_follows_what_was() {
        use RuleEdge::{Begins, Ends};
        let mut outbox = Outbox::default();
        assert_eq!(outbox.take(run(1, "r")), []);
        assert_eq!(outbox.take(enable(2, "r", Begins)), []);
        let left = reasons(outbox.take(disable(3, "r", Ends)));
        use Dropped::{NeverBegun, TakenBack};
        assert_eq!(left, [TakenBack, TakenBack, NeverBegun]);
        assert!(outbox.is_empty());
        let _ = outbox.take(enable(4, "r", Begins));
        assert!(outbox.send_first() && !outbox.send_first());
        assert_eq!(outbox.take(disable(5, "r", Ends)), []);
        assert_eq!(ids(&outbox), ["c4", "c5"]);
        // A rule that fires again before its end: what it did first is taken back.
        let mut outbox = Outbox::default();
        let _ = outbox.take(enable(1, "r", Begins));
        outbox.send_first();
        let _ = outbox.remove(&RequestId::new("c1").unwrap());
        let _ = outbox.take(enable(2, "r", Begins));
        assert_eq!(reasons(outbox.take(disable(3, "r", Ends))), [TakenBack]);
        assert_eq!(ids(&outbox), ["c3"]);
    }

    #[test]
    fn the_latest_wish_of_a_feature_counts_and_scripts_are_each_done() {
        let mut outbox = Outbox::default();
        let _ = outbox.take(enable(1, "a", RuleEdge::Begins));
        let _ = outbox.take(run(2, "a"));
        let _ = outbox.take(run(3, "a"));
        let left = reasons(outbox.take(disable(4, "b", RuleEdge::Begins)));
        assert_eq!(
            left,
            [Dropped::Outdone {
                rule: "b".to_owned()
            }]
        );
        assert_eq!(ids(&outbox), ["c2", "c3", "c4"]);
    }

    #[test]
    fn what_has_lost_its_purpose_goes_and_what_is_being_asked_for_stays() {
        let (one, other) = (digest(1), digest(2));
        let full = || {
            let mut outbox = Outbox::default();
            let _ = outbox.take(run(1, "a"));
            let _ = outbox.take(enable(2, "a", RuleEdge::Begins));
            outbox
        };
        let late = Moment(0).after(RUN_WAITS);
        let (here, anew) = (machine(1), machine(2));
        use Dropped::{OtherMachine, OtherPersona, TooOld};
        for (in_force, runs, now, expected) in [
            (Some(&one), Some(&here), Moment(1), vec![]),
            (Some(&one), Some(&here), late, vec![TooOld]),
            (Some(&other), Some(&here), Moment(1), vec![OtherPersona; 2]),
            (None, Some(&here), Moment(1), vec![OtherPersona; 2]),
            (Some(&one), Some(&anew), Moment(1), vec![OtherMachine; 2]),
            (Some(&one), None, Moment(1), vec![OtherMachine; 2]),
        ] {
            let left = full().review(in_force, runs, None, now);
            assert_eq!(reasons(left), expected);
        }
        let mut outbox = full();
        let asking = RequestId::new("c1").unwrap();
        let left = outbox.review(None, None, Some(&asking), late);
        assert_eq!(reasons(left), [OtherPersona]);
        assert_eq!(ids(&outbox), ["c1"]);
    }

    #[test]
    fn it_is_told_whether_the_guest_may_have_done_it() {
        let mut outbox = Outbox::default();
        let _ = outbox.take(run(1, "a"));
        let _ = outbox.take(run(2, "a"));
        outbox.send_first();
        let told: Vec<String> = outbox
            .drop_all(&Dropped::TooOld)
            .iter()
            .map(left_text)
            .collect();
        assert_eq!(
            told,
            [
                "rule a asks for: s; it is not known whether the guest has done it: it has waited for its agent for 60 min",
                "rule a asks for: s; nothing is done in the guest: it has waited for its agent for 60 min",
            ]
        );
    }

    proptest! {
        /// Whatever is called for in whatever order, everything is waiting or was given back once, and the rest is bounded.
        #[test]
        fn nothing_is_lost_and_nothing_is_there_twice(
            calls in proptest::collection::vec((0..6_usize, 0..3_usize, any::<bool>()), 0..80)
        ) {
            let mut outbox = Outbox::default();
            let mut seen = Vec::new();
            let count = calls.len();
            for (number, (kind, rule, send)) in calls.into_iter().enumerate() {
                let rule = format!("r{rule}");
                use RuleEdge::{Begins, Ends};
                let new = match kind {
                    0 | 1 => run(number, &rule),
                    2 => enable(number, &rule, Begins),
                    3 => disable(number, &rule, Ends),
                    4 => disable(number, &rule, Begins),
                    _ => enable(number, &rule, Ends),
                };
                seen.extend(outbox.take(new).into_iter().map(|(of, _)| of.id));
                prop_assert!(outbox.waiting.len() <= WAITING);
                if send {
                    outbox.send_first();
                }
                let unsent = outbox.waiting.iter().filter(|of| of.is_unsent() && of.feature().is_some());
                prop_assert!(unsent.count() <= 1, "one wish of a feature waits at most");
            }
            seen.extend(outbox.waiting.iter().map(|of| of.id.clone()));
            seen.sort();
            let mut once = seen.clone();
            once.dedup();
            prop_assert_eq!((seen.len(), once.len()), (count, count));
        }
    }
}
