//! The status element in a domain's metadata: the persona in force, where `virsh` users look. Written by the daemon alone,
//! in a namespace of its own; what people set is in `tags`.

use super::Daemon;
use super::event::Event;
use crate::act::sentence_of;
use crate::catalog::{ActivationState, Desired, VersionId};
use crate::hypervisor::{DomainId, HypervisorError, MetadataElement};

impl Daemon {
    /// Shows the persona in the domain's metadata, where `virsh` users look. One write at a time, so that the last word is
    /// the latest.
    pub(super) fn show_status(&mut self, id: DomainId) {
        let Some(activation) = self.catalog.activation(id) else {
            return;
        };
        let xml = match (&activation.desired, &activation.state) {
            (
                Desired::Persona { composition, .. },
                ActivationState::Active { .. } | ActivationState::AgentAbsent,
            ) => {
                let VersionId { name, version } = &composition.persona;
                // Names are of a few plain characters, and the rest are numbers: nothing needs escaping.
                Some(format!(
                    "<active persona='{name}' version='{version}' generation='{}'/>",
                    activation.generation
                ))
            }
            (Desired::Nothing, _) => None,
            _ => return,
        };
        let Some(tracked) = self.domains.get_mut(&id) else {
            return;
        };
        if tracked.persona.writing_status || tracked.persona.status.as_ref() == Some(&xml) {
            return;
        }
        tracked.persona.writing_status = true;
        tracked.persona.status = Some(xml.clone());
        let hypervisor = self.hypervisor.clone();
        self.spawn(async move {
            Event::StatusWritten(
                id,
                hypervisor
                    .set_metadata(id, MetadataElement::Status, xml)
                    .await,
            )
        });
    }

    pub(super) fn status_is_written(&mut self, id: DomainId, result: Result<(), HypervisorError>) {
        let Some(tracked) = self.domains.get_mut(&id) else {
            return;
        };
        tracked.persona.writing_status = false;
        if let Err(error) = result {
            // Tried again with the next description of the domain.
            tracing::warn!(domain = %id, error = sentence_of(&error), "the domain's metadata could not be written");
            tracked.persona.status = None;
        } else {
            self.show_status(id);
        }
    }
}
