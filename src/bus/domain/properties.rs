//! Properties of a domain's object whose value is more than a figure of the view, and which of them a new view changes. The object
//! answers with them; the bus announces what has changed.

use std::collections::HashMap;

use zbus::Variant;

use crate::bus::dict::{Dict, to_dict, to_dicts};
use crate::view::{AgentView, DomainView, ProposalView};

pub(super) fn state(domain: &DomainView) -> String {
    match serde_json::to_value(domain.state) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

pub(super) fn active_persona(domain: &DomainView) -> Dict {
    domain.persona.as_ref().map(to_dict).unwrap_or_default()
}

/// The agent without what changes at each sign of life.
pub(super) fn agent(domain: &DomainView) -> Dict {
    to_dict(&AgentView {
        last_seen_ms: None,
        ..domain.agent.clone()
    })
}

pub(super) fn last_decision(domain: &DomainView) -> Dict {
    domain
        .last_decision
        .as_ref()
        .map(to_dict)
        .unwrap_or_default()
}

/// The proposals without the figures behind them, which change all the time.
pub(super) fn proposals(domain: &DomainView) -> Vec<Dict> {
    let bare = |proposal: &ProposalView| {
        to_dict(&ProposalView {
            why: Vec::new(),
            ..proposal.clone()
        })
    };
    domain.proposals.iter().map(bare).collect()
}

/// What of a domain's view is a property that emits changes, and differs.
pub(in crate::bus) fn changed(
    old: &DomainView,
    new: &DomainView,
) -> HashMap<&'static str, Variant<'static>> {
    let mut changed = HashMap::new();
    if old.name != new.name {
        changed.insert("Name", new.name.clone().into());
    }
    if old.state != new.state {
        changed.insert("State", state(new).into());
    }
    if old.tags != new.tags {
        changed.insert("Tags", new.tags.clone().into());
    }
    if old.persona != new.persona {
        changed.insert("ActivePersona", active_persona(new).into());
    }
    if old.activation != new.activation {
        changed.insert("Activation", to_dict(&new.activation).into());
    }
    if old.vcpus != new.vcpus {
        changed.insert("Vcpus", to_dict(&new.vcpus).into());
    }
    if old.memory != new.memory {
        changed.insert("Memory", to_dict(&new.memory).into());
    }
    if (old.agent.state, &old.agent.version) != (new.agent.state, &new.agent.version) {
        changed.insert("Agent", agent(new).into());
    }
    if old.last_decision != new.last_decision {
        changed.insert("LastDecision", last_decision(new).into());
    }
    if old.holds != new.holds {
        changed.insert("Holds", to_dicts(&new.holds).into());
    }
    if old.limits != new.limits {
        changed.insert("Limits", to_dicts(&new.limits).into());
    }
    if proposals(old) != proposals(new) {
        changed.insert("Proposals", proposals(new).into());
    }
    if old.problems != new.problems {
        changed.insert("Problems", new.problems.clone().into());
    }
    changed
}
