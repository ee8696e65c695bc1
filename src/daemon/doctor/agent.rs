//! The part of `doctor` on the agent in the guest.

use agent_protocol::message::JournalState;
use planner::snapshot::Run;

use super::{Add, Look};
use crate::view::CheckState;

pub(super) fn check(look: &Look<'_>, add: &mut Add<'_>) {
    let tracked = look.tracked;
    let description = &tracked.description;
    if let Some(facts) = &tracked.agent.facts {
        let version = facts.agent_version.as_str();
        let ours = env!("CARGO_PKG_VERSION");
        if version == ours {
            add(
                "agent",
                CheckState::Ok,
                &format!("agent {version} answers"),
                None,
            );
        } else {
            add(
                "agent",
                CheckState::Warn,
                &format!("agent {version} answers, and the daemon is {ours}"),
                Some("they understand each other; update the older one when that suits"),
            );
        }
        if facts.journal == JournalState::Frozen {
            add(
                "agent",
                CheckState::Fail,
                "the guest's file system is frozen or its disk does not answer, so nothing is made active there",
                Some(
                    "who froze it for a snapshot thaws it (`virsh domfsthaw`); else look at the guest's disk",
                ),
            );
        }
        return;
    }
    if tracked.run() == Run::Off {
        add(
            "agent",
            CheckState::Ok,
            "the domain does not run, so its agent is not asked",
            None,
        );
    } else if description.agent_channel.is_none() {
        let mend = if description.virtio_serial {
            "`virt-persona adopt` attaches the channel org.virtpersona.agent.0; then install virt-persona-agent in the guest"
        } else {
            "`virt-persona adopt` adds the channel org.virtpersona.agent.0 to the definition; then start the domain anew and install virt-persona-agent in the guest"
        };
        add(
            "agent",
            CheckState::Fail,
            "the domain has no channel for the agent",
            Some(mend),
        );
    } else {
        let trouble = tracked
            .agent
            .trouble
            .as_ref()
            .map_or("nobody answers on the agent's channel", |(_, text)| {
                text.as_str()
            });
        let state = if tracked.agent.trouble.is_some() {
            CheckState::Fail
        } else {
            CheckState::Warn
        };
        add(
            "agent",
            state,
            trouble,
            Some(
                "install and start virt-persona-agent in the guest; without it CPUs cannot be brought online and nothing inside is activated",
            ),
        );
    }
}
