//! The guest's part in a step: it is asked before it becomes smaller, and told after it has grown. Called by
//! [`act`](super::act()) around every step; whether it is asked at all is said by the step.
//!
//! Where no agent is, or one that knows nothing of it, nobody is asked. One that is there and does not answer has not
//! agreed, so silence is a refusal; how long refusals are respected is the planner's.

use std::time::Duration;

use agent_protocol::Resize;
use agent_protocol::coordination;
use persona::rule::Resource;
use planner::{Consent, Ending, Step, Veto};

use super::guest::{Answer, GuestFault};
use super::{Aftermath, Hands, Outcome};

/// Asks before a shrink. The sentence is for the outcome's note.
///
/// # Errors
/// The outcome of a step to which the guest did not agree; nothing was done.
pub(super) async fn before(hands: &Hands, step: &Step) -> Result<Option<String>, Box<Outcome>> {
    if step.to >= step.from {
        return Ok(None);
    }
    if let Consent::Overruled { vetoes } = step.consent {
        return Ok(Some(format!(
            "the guest was asked and refused {vetoes} times in a row; it was done without its consent"
        )));
    }
    let answer = hands
        .guest
        .prepare_shrink(
            step.domain,
            resize(step, step.to),
            hands.settings.consent_deadline,
        )
        .await;
    match answer {
        Ok(Answer::Agreed | Answer::NotAsked) | Err(GuestFault::Absent(_)) => Ok(None),
        Ok(Answer::Refused {
            reason,
            retry_after,
        }) => Err(Box::new(refused(step, reason, retry_after))),
        Err(fault) => Err(Box::new(refused(step, fault.to_string(), None))),
    }
}

fn refused(step: &Step, reason: String, retry_after: Option<Duration>) -> Outcome {
    Outcome {
        step: step.clone(),
        ending: Ending::Refused,
        requested: step.to,
        plugged: None,
        guest: None,
        asked: None,
        aftermath: Aftermath::Nothing,
        note: Some(format!("the guest was asked and does not agree: {reason}")),
        veto: Some(Veto {
            reason,
            retry_after,
        }),
        untried: false,
    }
}

/// Tells of a growth that has taken place, and adds to the note what came before and after the step.
pub(super) async fn after(hands: &Hands, outcome: Outcome, before: Option<String>) -> Outcome {
    let mut outcome = outcome;
    let told = tell(hands, &outcome).await;
    let notes: Vec<String> = [before, outcome.note.take(), told]
        .into_iter()
        .flatten()
        .collect();
    outcome.note = (!notes.is_empty()).then(|| notes.join("; "));
    outcome
}

async fn tell(hands: &Hands, outcome: &Outcome) -> Option<String> {
    let step = &outcome.step;
    let shown = match step.resource {
        Resource::Vcpus => outcome.guest.or(outcome.plugged),
        // What the guest counts leaves out what its kernel keeps.
        Resource::Memory => outcome.plugged,
    };
    let changed = matches!(outcome.ending, Ending::Applied | Ending::Partial);
    let to = shown.filter(|shown| changed && *shown > step.from)?;
    let told = hands
        .guest
        .grown(
            step.domain,
            resize(step, to),
            hands.settings.consent_deadline,
        )
        .await;
    match told {
        Ok(None) | Err(GuestFault::Absent(_)) => None,
        Ok(Some(failure)) => Some(format!("the guest was told that it has grown: {failure}")),
        Err(fault) => Some(format!(
            "it is not known whether the guest was told that it has grown: {fault}"
        )),
    }
}

fn resize(step: &Step, to: u64) -> Resize {
    Resize {
        resource: match step.resource {
            Resource::Vcpus => coordination::Resource::Vcpus,
            Resource::Memory => coordination::Resource::Memory,
        },
        from: step.from,
        to,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use persona::domain::DomainId;
    use persona::units::Bytes;
    use planner::Means;
    use planner::report::Wish;

    use super::*;
    use crate::act::guest::GuestAnswer;
    use crate::act::{CpusOnline, Guest, Notices, Settings};
    use crate::config::VcpuRemoval;
    use crate::hypervisor::simulated::{self, Scenario};

    /// Answers every question with the same, and remembers what it was told.
    struct Fixed {
        answer: Result<Answer, GuestFault>,
        told: Result<Option<String>, GuestFault>,
        heard: Mutex<Vec<(&'static str, u64)>>,
    }

    impl Guest for Fixed {
        fn online_cpus(
            &self,
            _: DomainId,
            target: u32,
            _: Duration,
        ) -> GuestAnswer<'_, CpusOnline> {
            let present = target;
            Box::pin(async move {
                Ok(CpusOnline {
                    online: target,
                    present,
                })
            })
        }

        fn memory_total(&self, _: DomainId, _: Duration) -> GuestAnswer<'_, Bytes> {
            Box::pin(async { Err(GuestFault::Absent("not here".into())) })
        }

        fn prepare_shrink(
            &self,
            _: DomainId,
            resize: Resize,
            _: Duration,
        ) -> GuestAnswer<'_, Answer> {
            self.heard.lock().unwrap().push(("shrink", resize.to));
            Box::pin(async { self.answer.clone() })
        }

        fn grown(
            &self,
            _: DomainId,
            resize: Resize,
            _: Duration,
        ) -> GuestAnswer<'_, Option<String>> {
            self.heard.lock().unwrap().push(("grown", resize.to));
            Box::pin(async { self.told.clone() })
        }
    }

    fn hands(
        answer: Result<Answer, GuestFault>,
        told: Result<Option<String>, GuestFault>,
    ) -> (Hands, Arc<Fixed>) {
        let guest = Arc::new(Fixed {
            answer,
            told,
            heard: Mutex::default(),
        });
        let (hypervisor, _events) = simulated::open(Scenario::parse("").unwrap());
        let hands = Hands {
            hypervisor,
            guest: guest.clone(),
            notices: Notices::default(),
            settings: Settings {
                vcpu_deadline: Duration::from_secs(1),
                memory_deadline: Duration::from_secs(1),
                consent_deadline: Duration::from_secs(1),
                removal: VcpuRemoval::Offline,
            },
        };
        (hands, guest)
    }

    fn step(from: u64, to: u64, consent: Consent) -> Step {
        Step {
            domain: DomainId([1; 16]),
            instance: Some(1),
            resource: Resource::Memory,
            from,
            to,
            means: Means::Usual,
            by: Wish::Rule("r".into()),
            effect: None,
            consent,
        }
    }

    fn refusal() -> Answer {
        Answer::Refused {
            reason: "a backup runs".into(),
            retry_after: Some(Duration::from_secs(9)),
        }
    }

    #[tokio::test]
    async fn a_refusal_ends_the_step_with_the_guests_reason() {
        let (hands, _) = hands(Ok(refusal()), Ok(None));
        let outcome = *before(&hands, &step(2, 1, Consent::Asked))
            .await
            .unwrap_err();
        assert_eq!(outcome.ending, Ending::Refused);
        assert!(outcome.sentence().contains("a backup runs"));
        let veto = outcome.veto.unwrap();
        assert_eq!(veto.reason, "a backup runs");
        assert_eq!(veto.retry_after, Some(Duration::from_secs(9)));
    }

    #[tokio::test]
    async fn silence_is_a_refusal_and_absence_is_none() {
        let (silent, _) = hands(Err(GuestFault::Unknown("nothing came".into())), Ok(None));
        assert!(
            before(&silent, &step(2, 1, Consent::Asked))
                .await
                .unwrap_err()
                .veto
                .is_some()
        );
        for nobody in [
            Err(GuestFault::Absent("no agent".into())),
            Ok(Answer::NotAsked),
            Ok(Answer::Agreed),
        ] {
            let (hands, _) = hands(nobody, Ok(None));
            assert_eq!(before(&hands, &step(2, 1, Consent::Asked)).await, Ok(None));
        }
    }

    #[tokio::test]
    async fn who_was_overruled_and_who_grows_is_not_asked() {
        let (hands, guest) = hands(Ok(refusal()), Ok(None));
        let overruled = before(&hands, &step(2, 1, Consent::Overruled { vetoes: 3 })).await;
        assert!(overruled.unwrap().unwrap().contains("3 times"));
        assert_eq!(before(&hands, &step(1, 2, Consent::Asked)).await, Ok(None));
        assert!(guest.heard.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn growth_that_took_place_is_told_and_a_failing_hook_is_a_note_only() {
        let failing = Ok(Some("hook pool: no room".to_owned()));
        let (hands, guest) = hands(Ok(Answer::Agreed), failing);
        let grown = |ending, plugged| Outcome {
            ending,
            plugged: Some(plugged),
            note: None,
            veto: None,
            ..refused(&step(1, 3, Consent::Asked), String::new(), None)
        };
        let outcome = after(&hands, grown(Ending::Partial, 2), Some("before".into())).await;
        assert_eq!(outcome.ending, Ending::Partial);
        let note = outcome.note.unwrap();
        assert!(
            note.starts_with("before; ") && note.contains("hook pool: no room"),
            "{note}"
        );
        for untold in [
            grown(Ending::Refused, 1),
            grown(Ending::Unknown, 3),
            grown(Ending::Applied, 1),
        ] {
            assert_eq!(after(&hands, untold, None).await.note, None);
        }
        assert_eq!(*guest.heard.lock().unwrap(), [("grown", 2)]);
    }
}
