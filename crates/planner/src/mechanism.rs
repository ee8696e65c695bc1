//! By what memory is changed: the domain's usual mechanism, the balloon in place of a virtio-mem device that is left
//! alone because it is stuck, or a DIMM where nothing else has room. Called by `plan` before the rules are evaluated and
//! for each wish; whatever it says is written into the step, so that who carries it out has no choice.

use persona::rule::Resource;
use persona::units::{Bytes, Moment};
use serde::{Deserialize, Serialize};

use crate::evaluate::Wanted;
use crate::snapshot::{Domain, Memory};
use crate::state::DomainState;

/// By what a step changes its resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Means {
    /// Hot-plug of vCPUs; virtio-mem devices, or the balloon where there are none.
    #[default]
    Usual,
    /// The balloon, although there are virtio-mem devices: they are stuck.
    Balloon,
    /// A DIMM of the size of the growth, which stays until the domain ends.
    Dimm,
}

/// The domain as the way that is open lets it be changed: where its virtio-mem devices are left alone, the balloon can
/// still take and give back what is not theirs.
pub(crate) fn open_way<'a>(domain: &Domain<'a>, carried: &DomainState, now: Moment) -> Domain<'a> {
    let stuck = carried
        .memory
        .quarantined_until
        .is_some_and(|until| until > now);
    let Some(balloon) = domain.memory.balloon.filter(|_| stuck) else {
        return *domain;
    };
    // Of what was asked for and what is there the smaller, so that no floor is reckoned from memory that never came.
    let present = domain.memory.requested.min(domain.memory.plugged);
    let devices = present.saturating_sub(balloon.left);
    Domain {
        memory: Memory {
            requested: present,
            minimum: devices.saturating_add(balloon.minimum),
            maximum: devices.saturating_add(balloon.most),
            block: balloon.block,
            means: Means::Balloon,
            dimm: None,
            ..domain.memory
        },
        ..*domain
    }
}

/// The domain and the wish as a DIMM lets them be, where the wish is beyond what the usual mechanism gives and that has
/// no room left; both as they are elsewhere.
pub(crate) fn for_wish<'a>(domain: &Domain<'a>, wanted: &Wanted) -> (Domain<'a>, Wanted) {
    let memory = &domain.memory;
    let present = memory.requested;
    let usual = (*domain, wanted.clone());
    let (Resource::Memory, Means::Usual, Some(dimm)) = (wanted.resource, memory.means, memory.dimm)
    else {
        return usual;
    };
    let room = memory.maximum.saturating_sub(present);
    let full = room.0 < memory.block.0.max(1) && memory.plugged >= present;
    if !full || wanted.to <= present.0 {
        return usual;
    }
    // A DIMM comes in whole pieces, so what is wanted is rounded up.
    let piece = dimm.piece.0.max(1);
    let growth = (wanted.to - present.0)
        .div_ceil(piece)
        .saturating_mul(piece);
    let fitted = Domain {
        memory: Memory {
            maximum: dimm.most,
            block: Bytes(piece),
            means: Means::Dimm,
            ..*memory
        },
        ..*domain
    };
    let wanted = Wanted {
        to: present.0.saturating_add(growth),
        ..wanted.clone()
    };
    (fitted, wanted)
}

/// What was granted, in whole pieces of the means.
pub(crate) fn whole(present: u64, granted: u64, memory: &Memory, means: Means) -> u64 {
    match (means, memory.dimm) {
        (Means::Dimm, Some(dimm)) => {
            let piece = dimm.piece.0.max(1);
            present.saturating_add(granted.saturating_sub(present) / piece * piece)
        }
        _ => granted,
    }
}
