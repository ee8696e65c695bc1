//! A guest that misses the memory that was taken from it: whether it is in need, what that forbids, and what goes back to
//! it. Nothing here rests on a rule, and nothing on the balloon's own deflation when the guest runs out of memory, which
//! comes too late where it comes at all. Called by `plan` (notice), `evaluate` (the wish) and `guard` (the veto).

use std::fmt;
use std::time::Duration;

use persona::rule::Resource;
use persona::signal::{Metric, Source};
use persona::units::Moment;
use persona::{Class, Persona};
use serde::{Deserialize, Serialize};

use crate::evaluate::{Wanted, cooldown_left};
use crate::policy::{Mark, Policy};
use crate::report::{Reason, Wish};
use crate::snapshot::Domain;
use crate::state::DomainState;
use crate::trust::{Deed, Payer, Permit, Undoing, permit};

/// A need of which nothing is known for so long is over: the guest's agent is gone, or its driver tells nothing any more, and
/// nobody could say when what goes back is enough.
const UNKNOWN_AT_MOST: Duration = Duration::from_secs(5 * 60);

/// The pause after a return doubles so often at most: sixteen times the first.
const MOST_DOUBLINGS: u32 = 4;

/// What is carried of memory that was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relief {
    /// What the guest had before it was shrunk, in bytes, until it has as much again.
    pub before: Option<u64>,
    /// Its need has been seen without a break since then.
    #[serde(skip)]
    pub pressed_since: Option<Moment>,
    /// Nothing has been known of its need since then.
    #[serde(skip)]
    pub unknown_since: Option<Moment>,
    /// What was taken is on its way back.
    #[serde(default)]
    pub returning: bool,
    /// Returns in a row.
    #[serde(default)]
    pub returns: u32,
    /// Nothing is taken before.
    #[serde(default)]
    pub spared_until: Option<Moment>,
}

impl Relief {
    /// Notes that memory was taken, or may have been.
    pub(crate) fn taken(&mut self, from: u64) {
        self.before = Some(self.before.map_or(from, |before| before.max(from)));
    }

    /// No date lies further ahead than it can, because the wall clock may have been set back.
    pub(crate) fn resume(&mut self, policy: &Policy, now: Moment) {
        let longest = policy.spare * (1 << MOST_DOUBLINGS);
        self.spared_until = self.spared_until.map(|until| until.min(now.after(longest)));
    }
}

/// What a guest shows of its need for memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// `guest.memory.pressure`: percent of the time in which something in it waits for memory.
    Pressure(f64),
    /// `guest.memory.major_faults`: pages a second that it has to read from a disk, where no agent tells its pressure.
    Faults(f64),
}

impl Need {
    /// What a domain shows now, and on whose word; nothing where neither figure is fresh.
    fn of(domain: &Domain<'_>, now: Moment) -> Option<(Self, Source)> {
        let figure = |metric| {
            let reading = domain.signals.reading(metric)?;
            reading
                .is_fresh(now)
                .then_some((reading.value, reading.source))
        };
        figure(Metric::GuestMemoryPressure)
            .map(|(value, source)| (Self::Pressure(value), source))
            .or_else(|| {
                figure(Metric::GuestMajorFaults)
                    .map(|(value, source)| (Self::Faults(value), source))
            })
    }

    fn mark(self, policy: &Policy) -> (f64, Mark) {
        match self {
            Self::Pressure(value) => (value, policy.guest_pressure),
            Self::Faults(value) => (value, policy.guest_faults),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pressure(value) => write!(
                f,
                "something in it waits for memory {value:.0} % of the time (guest.memory.pressure)"
            ),
            Self::Faults(value) => write!(
                f,
                "it reads {value:.0} pages a second back from a disk (guest.memory.major_faults)"
            ),
        }
    }
}

/// Looks at the guest's need, and begins or ends the return of what was taken.
pub(crate) fn notice_need(
    domain: &Domain<'_>,
    carried: &mut DomainState,
    policy: &Policy,
    now: Moment,
) {
    let present = domain.present(Resource::Memory);
    let relief = &mut carried.relief;
    relief.before = relief.before.filter(|before| *before > present);
    let need = Need::of(domain, now).map(|(need, _)| need.mark(policy));
    if need.is_some() {
        relief.unknown_since = None;
    }
    match need {
        // What is not known is no need, and for a while no end of one that was known.
        None => {
            relief.pressed_since = None;
            let since = *relief.unknown_since.get_or_insert(now);
            relief.returning &= now.since(since) < UNKNOWN_AT_MOST;
        }
        Some((value, mark)) if value >= mark.enter => {
            relief.pressed_since.get_or_insert(now);
        }
        Some((value, mark)) if value <= mark.leave => {
            relief.pressed_since = None;
            relief.returning = false;
        }
        Some(_) => {}
    }
    if relief.before.is_none() {
        relief.returning = false;
        return;
    }
    let sustained = relief
        .pressed_since
        .is_some_and(|since| now.since(since) >= policy.guest_need_window);
    if !sustained || relief.returning {
        return;
    }
    relief.returning = true;
    let rested = relief
        .spared_until
        .is_none_or(|until| now.since(until) >= policy.spare);
    if rested {
        relief.returns = 0;
    }
    let pause = policy.spare * (1 << relief.returns.min(MOST_DOUBLINGS));
    relief.spared_until = Some(now.after(pause));
    relief.returns = relief.returns.saturating_add(1);
}

/// What goes back. It goes before every rule, and after what the base configuration says.
pub(crate) fn returned(
    domain: &Domain<'_>,
    carried: &DomainState,
    priority: i64,
    now: Moment,
) -> Option<Wanted> {
    let before = carried.relief.before.filter(|_| carried.relief.returning)?;
    Some(Wanted {
        resource: Resource::Memory,
        to: before,
        by: Wish::Return,
        priority,
        cooldown: Duration::ZERO,
        // The guest's own word: what others got of it meanwhile is not taken from them.
        evidence: Need::of(domain, now).map_or(Source::Agent, |(_, source)| source),
        effect: None,
    })
}

/// What is followed in the place of a return: a wish to grow that can be followed now without a person's word, and that
/// reaches further than what is free, because the host itself measured its cause, or leads to more. It serves the guest in
/// need better. Any other pick stays as it is.
pub(crate) fn outdone<'a>(
    pick: &'a Wanted,
    wanted: &'a [Wanted],
    domain: &Domain<'_>,
    persona: &Persona,
    carried: &DomainState,
    now: Moment,
) -> &'a Wanted {
    if pick.by != Wish::Return {
        return pick;
    }
    let present = domain.present(Resource::Memory);
    let serves = |wish: &&Wanted| {
        let deed = Deed {
            class: Class::ResourceScaling,
            evidence: wish.evidence,
            undoing: Undoing::Possible,
            payer: Payer::Others,
        };
        wish.resource == Resource::Memory
            && wish.by != Wish::Return
            && wish.to > present
            && (wish.evidence == Source::Host || wish.to > pick.to)
            && cooldown_left(carried, Resource::Memory, wish.cooldown, now).is_none()
            && permit(&persona.trust, deed) == Permit::Act
    };
    // The last of equals is taken, so the document is walked backwards to favour the first.
    let best = wanted.iter().rev().filter(serves);
    best.max_by_key(|wish| wish.priority).unwrap_or(pick)
}

/// Whether memory may be taken from the guest at all.
pub(crate) fn may_take(
    domain: &Domain<'_>,
    carried: &DomainState,
    by: &Wish,
    policy: &Policy,
    now: Moment,
) -> Result<(), Reason> {
    if let Some((need, _)) = Need::of(domain, now) {
        let (value, mark) = need.mark(policy);
        if value >= mark.enter {
            return Err(Reason::Pressed(need));
        }
    }
    let left = carried
        .relief
        .spared_until
        .map(|until| until.since(now))
        .filter(|left| !left.is_zero());
    match left {
        // A person's bound holds whatever came of the last step.
        Some(left) if *by != Wish::Maximum => Err(Reason::Spared { left }),
        _ => Ok(()),
    }
}
