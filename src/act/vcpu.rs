//! vCPU steps. Growing: plug through the hypervisor, then the agent brings the CPUs online. Shrinking: the agent takes
//! CPUs offline first, then the hypervisor unplugs as best effort, because what the guest no longer uses is given back
//! even while its device stays.

use std::time::Duration;

use persona::rule::Resource;
use planner::{Ending, Step};
use tokio::time::{Instant, sleep};

use super::guest::GuestFault;
use super::{Aftermath, Hands, Outcome, sentence_of};
use crate::config::VcpuRemoval;
use crate::hypervisor::{Acceleration, DomainDescription, HotpluggableVcpu, HypervisorError};

pub(super) async fn act(hands: &Hands, step: Step) -> Outcome {
    debug_assert_eq!(step.resource, Resource::Vcpus);
    let Ok(target) = u32::try_from(step.to) else {
        return ended(
            &step,
            Ending::Refused,
            Seen::default(),
            Some("the number of vCPUs is out of range".into()),
        );
    };
    let description = match hands.hypervisor.describe(step.domain).await {
        Ok(description) => description,
        Err(error) => {
            let note = Some(sentence_of(&error));
            return Outcome {
                untried: error.is_unreachable(),
                ..ended(&step, Ending::Refused, Seen::default(), note)
            };
        }
    };
    if description.instance != step.instance {
        let note = "the domain was started anew since the plan was made".into();
        return ended(&step, Ending::Refused, Seen::of(&description), Some(note));
    }
    if step.to >= step.from {
        grow(hands, step, target, &description).await
    } else {
        shrink(hands, step, target, &description).await
    }
}

/// What host and guest showed last.
#[derive(Clone, Copy, Default)]
struct Seen {
    plugged: Option<u32>,
    online: Option<u32>,
}

impl Seen {
    fn of(description: &DomainDescription) -> Self {
        Self {
            plugged: Some(description.vcpus_plugged),
            online: None,
        }
    }
}

fn ended(step: &Step, ending: Ending, seen: Seen, note: Option<String>) -> Outcome {
    Outcome {
        requested: step.to,
        plugged: seen.plugged.map(u64::from),
        guest: seen.online.map(u64::from),
        asked: seen.plugged.map(u64::from),
        step: step.clone(),
        ending,
        aftermath: Aftermath::Nothing,
        note,
        veto: None,
        untried: false,
    }
}

async fn grow(hands: &Hands, step: Step, target: u32, before: &DomainDescription) -> Outcome {
    let mut seen = Seen::of(before);
    let mut note = None;
    if before.vcpus_plugged < target {
        if let Err(error) = hands.hypervisor.set_vcpus(step.domain, target).await {
            seen.plugged = plugged(hands, &step).await;
            if seen
                .plugged
                .is_none_or(|plugged| plugged <= before.vcpus_plugged)
            {
                let ending = if error.may_have_taken_effect() {
                    Ending::Unknown
                } else {
                    Ending::Refused
                };
                return Outcome {
                    untried: error.is_unreachable(),
                    ..ended(&step, ending, seen, Some(sentence_of(&error)))
                };
            }
            // The call failed, but the vCPU is there: what is seen counts.
            note = Some(sentence_of(&error));
        } else {
            seen.plugged = plugged(hands, &step).await;
        }
    }
    match bring_online(hands, &step, target).await {
        Ok(online) => seen.online = Some(online),
        Err(fault) => {
            let (ending, what) = match fault {
                GuestFault::Unknown(_) => (Ending::Unknown, "it is not known whether it is online"),
                // The vCPU is plugged, so something did change: it is not as if nothing had happened.
                _ if seen.plugged.is_some_and(|now| now > before.vcpus_plugged) => {
                    (Ending::Partial, "plugged, but not online")
                }
                _ => (Ending::Refused, "not online"),
            };
            let aftermath = match fault {
                GuestFault::NeedsReboot(_) => Aftermath::NeedsReboot,
                _ => Aftermath::Nothing,
            };
            let note = Some(format!("{what}: {fault}"));
            return Outcome {
                aftermath,
                ..ended(&step, ending, seen, note)
            };
        }
    }
    let ending = judge(&step, target, seen, before);
    if ending == Ending::Partial && note.is_none() {
        note = Some("plugged, but the guest did not bring all of it online".into());
    }
    ended(&step, ending, seen, note)
}

/// How long the guest's kernel is given between two tries to notice a vCPU that was plugged a moment ago.
const NOTICE: Duration = Duration::from_millis(200);

/// Asks the guest for its CPUs until they are online or the deadline passes: a plugged vCPU is in the guest only when
/// its kernel has worked through the ACPI event, and until then the agent rightly says that there is no such CPU.
async fn bring_online(hands: &Hands, step: &Step, target: u32) -> Result<u32, GuestFault> {
    let end = Instant::now() + hands.settings.vcpu_deadline;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let answer = hands
            .guest
            .online_cpus(step.domain, target, left.max(NOTICE))
            .await;
        let done = match &answer {
            Ok(cpus) => cpus.online >= target,
            Err(GuestFault::Refused(_)) => false,
            Err(_) => true,
        };
        if done || Instant::now() + NOTICE >= end {
            return answer.map(|cpus| cpus.online);
        }
        sleep(NOTICE).await;
    }
}

/// What the two sides show, against what was asked for.
fn judge(step: &Step, target: u32, seen: Seen, before: &DomainDescription) -> Ending {
    let (Some(plugged), Some(online)) = (seen.plugged, seen.online) else {
        return Ending::Unknown;
    };
    if online == target && plugged >= target {
        Ending::Applied
    } else if u64::from(online) == step.from && plugged == before.vcpus_plugged {
        Ending::Refused
    } else {
        Ending::Partial
    }
}

async fn plugged(hands: &Hands, step: &Step) -> Option<u32> {
    hands
        .hypervisor
        .describe(step.domain)
        .await
        .ok()
        .map(|description| description.vcpus_plugged)
}

async fn shrink(hands: &Hands, step: Step, target: u32, before: &DomainDescription) -> Outcome {
    let mut seen = Seen::of(before);
    match hands
        .guest
        .online_cpus(step.domain, target, hands.settings.vcpu_deadline)
        .await
    {
        Ok(cpus) => seen.online = Some(cpus.online),
        Err(fault) => {
            let ending = if matches!(fault, GuestFault::Unknown(_)) {
                Ending::Unknown
            } else {
                Ending::Refused
            };
            return ended(&step, ending, seen, Some(fault.to_string()));
        }
    }
    if seen.online != Some(target) {
        let ending = judge(&step, target, seen, before);
        return ended(
            &step,
            ending,
            seen,
            Some("the guest kept some of the CPUs online".into()),
        );
    }
    let unplug = match hands.settings.removal {
        VcpuRemoval::Unplug => true,
        VcpuRemoval::Offline => false,
        VcpuRemoval::Auto => before.acceleration == Acceleration::Kvm,
    };
    let floor = target.max(before.vcpus_fixed);
    let mut aftermath = Aftermath::Nothing;
    let note = if unplug && before.vcpus_plugged > floor {
        match unplug_to(hands, &step, floor, before.vcpus_plugged, &mut seen).await {
            Unplugged::All => None,
            Unplugged::Kept(note) => Some(note),
            Unplugged::Undecided(note) => {
                aftermath = Aftermath::RemovalPending;
                Some(note)
            }
        }
    } else {
        (before.vcpus_plugged > target)
            .then(|| "taken offline in the guest; the vCPUs stay plugged and are used again at the next growth".into())
    };
    // The guest no longer uses them, which is what counts as given back.
    Outcome {
        aftermath,
        ..ended(&step, Ending::Applied, seen, note)
    }
}

/// What came of unplugging, with what is out of the ordinary.
enum Unplugged {
    All,
    /// The guest refused, or the hypervisor did: nothing more will come of it.
    Kept(String),
    /// A request stands, and the guest may follow it later: when a paused one resumes, for example.
    Undecided(String),
}

/// Unplugs one vCPU at a time, since a guest gives back only one for each request.
async fn unplug_to(
    hands: &Hands,
    step: &Step,
    floor: u32,
    from: u32,
    seen: &mut Seen,
) -> Unplugged {
    let mut count = from;
    while count > floor {
        let mut notices = hands.notices.listen(step.domain);
        let asked = hands.hypervisor.set_vcpus(step.domain, count - 1);
        // A guest that refuses says so at once, while the library waits for its own deadline in vain.
        let answer = tokio::select! {
            biased;
            answer = asked => answer,
            () = notices.vcpu_kept() => {
                seen.plugged = plugged(hands, step).await.or(Some(count));
                return Unplugged::Kept(format!(
                    "taken offline in the guest, whose kernel refused to let the vCPU go; {count} stay plugged"
                ));
            }
        };
        match answer {
            Ok(()) => count -= 1,
            Err(error) => {
                let left = reconcile(hands, step, &error).await;
                seen.plugged = left.or(plugged(hands, step).await).or(seen.plugged);
                let stayed = seen.plugged.unwrap_or(count);
                let note = format!(
                    "taken offline in the guest; unplugging ended with {stayed} still plugged: {}",
                    sentence_of(&error)
                );
                return if error.may_have_taken_effect() && stayed >= count {
                    Unplugged::Undecided(note)
                } else {
                    Unplugged::Kept(note)
                };
            }
        }
    }
    seen.plugged = plugged(hands, step).await.or(Some(count));
    Unplugged::All
}

/// After an unplug of unknown outcome the emulator itself is asked, because the library's count may be wrong.
async fn reconcile(hands: &Hands, step: &Step, error: &HypervisorError) -> Option<u32> {
    if matches!(
        error,
        HypervisorError::NotConnected { .. } | HypervisorError::NoDomain { .. }
    ) {
        return None;
    }
    let slots = hands
        .hypervisor
        .hotpluggable_vcpus(step.domain)
        .await
        .ok()?;
    Some(
        slots
            .iter()
            .filter(|slot| slot.plugged.is_some())
            .map(|slot: &HotpluggableVcpu| slot.vcpus)
            .sum(),
    )
}
