//! What users of a guest can choose from: each persona that the one in force lists, what it would change there, and whether it
//! would be given. It only looks; called when somebody in a guest asks for the list.

use agent_protocol::switching::{ChangeLine, Course};
use agent_protocol::{Offer, Offers};
use persona::units::Moment;
use persona::{Persona, PersonaName, difference};
use planner::propose::guest_switch_permit;
use planner::trust::Permit;

use super::is_going;
use super::no::No;
use crate::daemon::Daemon;
use crate::hypervisor::DomainId;

/// What a guest reads of the values of other keys is only that they differ: they are the host's.
const KEYS_OF_THE_GUEST: [&str; 13] = [
    "name",
    "description",
    "functional_role",
    "allowed_switches",
    "base_configuration",
    "software_stack",
    "environment_variables",
    "command_overrides",
    "restricted_commands",
    "os_settings",
    "application_settings",
    "behavioral_settings",
    "security_profile",
];

impl Daemon {
    pub(super) fn offers(&self, id: DomainId, now: Moment) -> Offers {
        let Some(tracked) = self.domains.get(&id) else {
            return Offers::default();
        };
        let Some(in_force) = tracked.persona.in_force.as_deref() else {
            return Offers::default();
        };
        let held = |name: &&PersonaName| self.catalog.current(name).is_ok();
        let others = in_force.allowed_switches.iter().filter(held);
        Offers {
            current: Some(in_force.name.to_string()),
            offers: others
                .filter(|name| **name != in_force.name)
                .map(|name| self.offer(id, in_force, name, now))
                .collect(),
            left_out: 0,
            under_way: self.switch_text(id, now),
        }
    }

    fn offer(&self, id: DomainId, in_force: &Persona, name: &PersonaName, now: Moment) -> Offer {
        let checked = self.check_switch(id, in_force, name, now);
        let permit = guest_switch_permit(in_force);
        let level = in_force.trust.level(persona::Class::PersonaChange);
        let of = in_force.name.clone();
        let (course, changes, description) = match &checked {
            Err(no) => (refused(no), Vec::new(), None),
            Ok(then) => {
                let course = match permit {
                    Permit::Act => Course::AtOnce,
                    Permit::Propose => Course::Approval,
                    Permit::Never => refused(&No::NotTrusted { of, level }),
                };
                let changes = changes(in_force, &then.persona);
                (course, changes, then.persona.description.clone())
            }
        };
        Offer {
            persona: name.to_string(),
            description: description.unwrap_or_default(),
            course,
            changes,
            more: 0,
        }
    }

    /// What is on its way, in a sentence.
    fn switch_text(&self, id: DomainId, now: Moment) -> Option<String> {
        let open = self.state.proposals.open();
        let waiting = open.filter(|proposal| proposal.domain == id);
        let waiting = waiting.filter_map(|proposal| {
            let to = proposal.guest_switch()?;
            let left = proposal.expires.since(now).as_secs();
            Some(format!(
                "persona `{to}` waits for a person's word as proposal {}, for {left} s",
                proposal.id
            ))
        });
        let activation = self.catalog.activation(id);
        let going = activation.filter(|activation| is_going(&activation.state));
        let going = going.map(|_| "another persona is being made active".to_owned());
        let all: Vec<String> = going.into_iter().chain(waiting).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

fn refused(no: &No) -> Course {
    Course::Refused {
        reason: no.to_string(),
    }
}

/// What would be another value in the guest; of what is the host's own the name of the key alone, once.
fn changes(now: &Persona, then: &Persona) -> Vec<ChangeLine> {
    let mut lines: Vec<ChangeLine> = Vec::new();
    let mut hosts = Vec::new();
    for found in difference(now, then) {
        let key = found.path.split(['.', '[']).next().unwrap_or_default();
        if KEYS_OF_THE_GUEST.contains(&key) {
            lines.push(ChangeLine {
                subject: found.path,
                now: found.before,
                then: found.after,
            });
        } else if !hosts.iter().any(|known| known == key) {
            hosts.push(key.to_owned());
        }
    }
    lines.extend(hosts.into_iter().map(|subject| ChangeLine {
        subject,
        now: None,
        then: None,
    }));
    lines
}
