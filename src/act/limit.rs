//! A turn of one knob: the hypervisor is asked, and then the kernel and the emulator are looked at, because a library's
//! "ok" is not success. The guest has no part in it.

use persona::rule::Knob;
use planner::limit::reading_text;
use planner::snapshot::{KnobReading, Obstacle};
use planner::{Ending, LimitStep};
use serde::Serialize;

use super::{Hands, sentence_of};
use crate::hypervisor::limits::Reading;
use crate::hypervisor::{HypervisorError, Limits};

/// How a turn ended, and what was seen.
#[must_use = "an outcome that is not recorded leaves the turn in flight for ever"]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LimitOutcome {
    /// The turn.
    pub step: LimitStep,
    /// How it ended.
    pub ending: Ending,
    /// What kernel and emulator show, where they could be asked.
    pub shown: Option<KnobReading>,
    /// Anything out of the ordinary, as one sentence.
    pub note: Option<String>,
}

impl LimitOutcome {
    /// One line for the log and the audit.
    pub fn sentence(&self) -> String {
        let ending = match self.ending {
            Ending::Applied => "applied",
            Ending::Partial => "partly applied",
            Ending::Refused => "refused",
            Ending::Unknown => "of unknown outcome",
        };
        let shown = self.shown.map_or_else(
            || "unknown".into(),
            |shown| reading_text(self.step.knob, shown),
        );
        let note = self
            .note
            .as_ref()
            .map(|note| format!("; {note}"))
            .unwrap_or_default();
        format!(
            "{} {}: {ending} (shown {shown}){note}",
            self.step.knob,
            self.step.sentence()
        )
    }
}

/// What a knob shows, in the planner's words.
pub fn reading(limits: &Limits, knob: Knob) -> KnobReading {
    match limits.shown(knob) {
        Reading::Set { devices, value } => KnobReading::Set { devices, value },
        Reading::Uneven { devices } => KnobReading::Uneven { devices },
        Reading::NoDevice => KnobReading::Unable(Obstacle::NoDevice),
        Reading::NoHostDevice => KnobReading::Unable(Obstacle::NoHostDevice),
        Reading::OwnLimits => KnobReading::Unable(Obstacle::OwnLimits),
    }
}

/// Carries out one turn.
pub async fn act(hands: &Hands, step: LimitStep) -> LimitOutcome {
    let hypervisor = &hands.hypervisor;
    let ended = |ending, shown: Option<&Limits>, note| LimitOutcome {
        ending,
        shown: shown.map(|limits| reading(limits, step.knob)),
        note,
        step: step.clone(),
    };
    let before = match hypervisor.describe(step.domain).await {
        Ok(description) => description,
        Err(error) => return ended(Ending::Refused, None, Some(sentence_of(&error))),
    };
    if before.instance != step.instance {
        let note = "the domain was started anew since the plan was made".into();
        return ended(Ending::Refused, Some(&before.limits), Some(note));
    }
    let asked = hypervisor.set_limit(step.domain, step.knob, step.to).await;
    // Where they cannot be asked, because the call still occupies the domain, the hypervisor's own record is looked at.
    let after = match hypervisor.limits(step.domain).await {
        Ok(now) => Ok(now),
        Err(error) => {
            let record = hypervisor.describe(step.domain).await;
            record.map(|record| record.limits).map_err(|_| error)
        }
    };
    // What cannot be turned shows the same before and after, which is no success.
    let goal = Some(before.limits.would_show(step.knob, step.to))
        .filter(|goal| matches!(goal, Reading::Set { .. }));
    match (asked, after) {
        // What is seen counts, whatever became of the call.
        (asked, Ok(now)) if Some(now.shown(step.knob)) == goal => ended(
            Ending::Applied,
            Some(&now),
            asked.err().map(|error| sentence_of(&error)),
        ),
        (Ok(()), Ok(now)) => {
            let note = "the hypervisor agreed, but kernel and emulator show something else".into();
            let same = now.shown(step.knob) == before.limits.shown(step.knob);
            let ending = if same {
                Ending::Refused
            } else {
                Ending::Partial
            };
            ended(ending, Some(&now), Some(note))
        }
        (Err(error), Ok(now)) => {
            let taken_back = take_back(hands, &step, &error).await;
            let same = now.shown(step.knob) == before.limits.shown(step.knob);
            let ending = match (same, error.may_have_taken_effect()) {
                // It may still come.
                (true, true) => Ending::Unknown,
                (true, false) => Ending::Refused,
                (false, _) => Ending::Partial,
            };
            let note = [Some(sentence_of(&error)), taken_back];
            let note = note.into_iter().flatten().collect::<Vec<_>>().join("; ");
            ended(ending, Some(&now), Some(note))
        }
        (asked, Err(error)) => {
            let refused = asked
                .as_ref()
                .is_err_and(|error| !error.may_have_taken_effect());
            let ending = if refused {
                Ending::Refused
            } else {
                Ending::Unknown
            };
            let note = asked.err().map_or_else(
                || format!("it could not be looked at: {}", sentence_of(&error)),
                |asked| sentence_of(&asked),
            );
            ended(ending, None, Some(note))
        }
    }
}

/// libvirt sets up the queues of an interface one after the other, and where the kernel lacks one of them it gives up and
/// leaves those before it, with the new limit and without a word in its own records. Setting what was there before takes
/// them away.
async fn take_back(hands: &Hands, step: &LimitStep, error: &HypervisorError) -> Option<String> {
    let before = step.from.value()?;
    let failed = matches!(error, HypervisorError::Failed { .. });
    if step.knob != Knob::NetworkBandwidth || !failed {
        return None;
    }
    let set = hands.hypervisor.set_limit(step.domain, step.knob, before);
    match set.await {
        Ok(()) => None,
        Err(error) => Some(format!(
            "what was left half done could not be taken back: {}",
            sentence_of(&error)
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use persona::rule::KnobValue;
    use planner::report::Wish;

    use super::super::tests::Bench;
    use super::*;
    use crate::hypervisor::simulated::{CallName, Called, Fault};

    const DEVICES: &str =
        "disks = [{ target = 'vda' }, { target = 'vdb' }]\ninterfaces = ['vnet0']";

    async fn turn(bench: &Bench, knob: Knob, to: KnobValue) -> LimitOutcome {
        let shown = bench.shown().await;
        let step = LimitStep {
            domain: bench.id,
            instance: shown.instance,
            knob,
            from: reading(&shown.limits, knob),
            to,
            by: Wish::Base,
        };
        act(&bench.hands, step).await
    }

    #[tokio::test]
    async fn every_knob_is_turned_and_turned_back_and_that_is_read_back() {
        let bench = Bench::new(DEVICES).await;
        let untouched = bench.shown().await.limits;
        for (knob, to, usual) in [
            (Knob::CpuWeight, 2000, KnobValue::At(1000)),
            (Knob::CpuCap, 1_500_000, KnobValue::Unlimited),
            (Knob::NetworkBandwidth, 8_000_000, KnobValue::Unlimited),
            (Knob::DiskIops, 500, KnobValue::Unlimited),
            (Knob::DiskBandwidth, 1 << 20, KnobValue::Unlimited),
        ] {
            let there = turn(&bench, knob, KnobValue::At(to)).await;
            assert_eq!(there.ending, Ending::Applied, "{there:?}");
            let value = there.shown.and_then(KnobReading::value);
            assert_eq!(value, Some(KnobValue::At(to)));
            let back = turn(&bench, knob, usual).await;
            assert_eq!(back.ending, Ending::Applied, "{back:?}");
            let shown = |limits: &Limits| limits.shown(knob);
            assert_eq!(shown(&bench.shown().await.limits), shown(&untouched));
        }
    }

    #[tokio::test]
    async fn what_is_seen_decides_and_not_what_the_call_says() {
        let bench = Bench::new(DEVICES).await;
        bench.refuse(CallName::SetLimit);
        let refused = turn(&bench, Knob::DiskIops, KnobValue::At(500)).await;
        assert_eq!(refused.ending, Ending::Refused);
        assert!(
            refused.sentence().contains("the moon is full"),
            "{refused:?}"
        );

        bench.fail(CallName::SetLimit, Fault::AnswerLost);
        let lost = turn(&bench, Knob::DiskIops, KnobValue::At(500)).await;
        assert_eq!(lost.ending, Ending::Applied, "{lost:?}");
        assert!(lost.note.is_some());

        // The call that was lost still occupies the domain it was for.
        let bench = Bench::new(DEVICES).await;
        bench.fail(CallName::SetLimit, Fault::Partial { reaches_mib: 0 });
        let partial = turn(&bench, Knob::DiskIops, KnobValue::At(100)).await;
        assert_eq!(partial.ending, Ending::Partial, "{partial:?}");
        assert_eq!(partial.shown, Some(KnobReading::Uneven { devices: 2 }));

        bench.fail(CallName::SetLimit, Fault::Hang { ms: 1_500 });
        let hung = turn(&bench, Knob::CpuCap, KnobValue::At(1_000_000)).await;
        assert_eq!(hung.ending, Ending::Unknown, "{hung:?}");
    }

    #[tokio::test]
    async fn what_cannot_be_turned_is_refused_and_no_success() {
        let bench = Bench::new("interfaces = ['']").await;
        for knob in [Knob::NetworkBandwidth, Knob::DiskIops] {
            let outcome = turn(&bench, knob, KnobValue::At(8_000_000)).await;
            assert_eq!(outcome.ending, Ending::Refused, "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_bandwidth_that_failed_half_way_is_taken_back() {
        let bench = Bench::new(DEVICES).await;
        bench.refuse(CallName::SetLimit);
        let refused = turn(&bench, Knob::NetworkBandwidth, KnobValue::At(8_000_000)).await;
        assert_eq!(refused.ending, Ending::Refused, "{refused:?}");
        let asked: Vec<_> = Arc::clone(&bench.simulated)
            .calls()
            .into_iter()
            .filter_map(|call| match call {
                Called::SetLimit { to, .. } => Some(to),
                _ => None,
            })
            .collect();
        assert_eq!(asked, [KnobValue::At(8_000_000), KnobValue::Unlimited]);
    }
}
