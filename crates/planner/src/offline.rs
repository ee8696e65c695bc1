//! CPUs that the guest has taken offline while they stay plugged, and that something in it brings back, such as a udev rule:
//! they are taken offline again a few times, and then left. A cap stands for them from then on (`quota`). Called by `plan`
//! before the rules are evaluated, and by `evaluate` for the wish.

use std::time::Duration;

use persona::domain::DomainId;
use persona::rule::Resource;
use persona::signal::Source;
use persona::units::Moment;
use serde::{Deserialize, Serialize};

use crate::evaluate::Wanted;
use crate::plan::Step;
use crate::policy::Policy;
use crate::report::{Reason, Wish};
use crate::snapshot::Domain;
use crate::state::{DomainState, Ending};

/// vCPUs that stay plugged and are offline in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offline {
    /// So many stay online.
    pub online: u64,
    /// So often more were.
    pub times: u32,
    /// When that began last.
    pub last: Option<Moment>,
    /// More are now.
    pub back: bool,
}

/// CPUs that something in the guest has brought back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackOnline {
    /// Which domain.
    pub domain: DomainId,
    /// So many are online.
    pub online: u64,
    /// So many were to stay online.
    pub wanted: u64,
    /// So often that has happened.
    pub times: u32,
    /// Whether they are taken offline again.
    pub then: Then,
}

/// What follows when CPUs are brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// They are taken offline again.
    Again,
    /// They are left, because it has been tried often enough.
    Left,
}

/// Notes what a step of vCPUs that took place leaves offline. `plugged` is what the hypervisor shows after it.
pub(crate) fn note(state: &mut DomainState, step: &Step, ending: Ending, plugged: Option<u64>) {
    if step.resource != Resource::Vcpus || !matches!(ending, Ending::Applied | Ending::Partial) {
        return;
    }
    if step.by == Wish::BackOnline {
        return;
    }
    let stays = step.to < step.from && plugged.is_some_and(|plugged| plugged > step.to);
    state.offline = (stays && ending == Ending::Applied).then_some(Offline {
        online: step.to,
        times: 0,
        last: None,
        back: false,
    });
}

/// Looks whether CPUs are back that were taken offline.
pub(crate) fn notice(
    domain: &Domain<'_>,
    carried: &mut DomainState,
    policy: &Policy,
    now: Moment,
    found: &mut Vec<BackOnline>,
) {
    let under_way = carried.vcpus.in_flight.is_some();
    let (Some(offline), Some(online)) = (&mut carried.offline, domain.vcpus.online) else {
        return;
    };
    if u64::from(domain.vcpus.plugged) <= offline.online {
        carried.offline = None;
        return;
    }
    if under_way {
        return;
    }
    let online = u64::from(online);
    if online <= offline.online {
        offline.back = false;
        // What happens once a day has no end, and each time is the first.
        let long = |last: Moment| now.since(last) > policy.quarantine * 2;
        if offline.last.is_some_and(long) {
            offline.times = 0;
            offline.last = None;
        }
        return;
    }
    if std::mem::replace(&mut offline.back, true) {
        return;
    }
    offline.times = offline.times.saturating_add(1);
    offline.last = Some(now);
    found.push(BackOnline {
        domain: domain.id,
        online,
        wanted: offline.online,
        times: offline.times,
        then: if offline.times > policy.back_online_most {
            Then::Left
        } else {
            Then::Again
        },
    });
}

/// That they be taken offline again.
pub(crate) fn wish(domain: &Domain<'_>, carried: &DomainState) -> Option<Wanted> {
    let offline = carried.offline.as_ref().filter(|offline| offline.back)?;
    let more = domain.present(Resource::Vcpus) > offline.online;
    more.then_some(Wanted {
        resource: Resource::Vcpus,
        to: offline.online,
        by: Wish::BackOnline,
        // Whatever a rule wants goes before.
        priority: i64::MIN,
        cooldown: Duration::ZERO,
        evidence: Source::Agent,
        effect: None,
    })
}

/// Whether it is tried once more.
pub(crate) fn may_try(
    wanted: &Wanted,
    carried: &DomainState,
    policy: &Policy,
) -> Result<(), Reason> {
    match &carried.offline {
        Some(offline)
            if wanted.by == Wish::BackOnline && offline.times > policy.back_online_most =>
        {
            Err(Reason::ComesBack {
                times: offline.times,
            })
        }
        _ => Ok(()),
    }
}
