//! A domain's definition as text, read and replaced as a whole. What is changed in it is for `adopt`; reading single
//! facts out of it is `xml`. Called by the libvirt hypervisor on the threads of its calls.

use persona::domain::DomainId;
use virt::domain::Domain;
use virt::sys;

use super::super::{Definition, Definitions, HypervisorError};
use super::Working;

/// The persistent definition with its secrets: without them it could not be put back.
const PERSISTENT: u32 = sys::VIR_DOMAIN_XML_INACTIVE | sys::VIR_DOMAIN_XML_SECURE;

/// Both definitions.
pub(super) fn read(working: &Working, id: DomainId) -> Result<Definitions, HypervisorError> {
    let found = working.find(id)?;
    let live = || {
        if !found.is_active()? {
            return Ok(None);
        }
        found.xml_desc(sys::VIR_DOMAIN_XML_SECURE).map(Some)
    };
    let live = live().map_err(|error| working.failed(&error))?;
    let live = live
        .map(|text| Definition::read(text).map_err(|problem| working.unreadable(problem)))
        .transpose()?;
    let persistent = found
        .is_persistent()
        .map_err(|error| working.failed(&error))?
        .then(|| persistent(working, &found))
        .transpose()?;
    Ok(Definitions { persistent, live })
}

/// Replaces the persistent definition. libvirt checks it against its schema, and keeps it in words of its own.
pub(super) fn replace(
    working: &Working,
    id: DomainId,
    from: &str,
    to: &str,
) -> Result<Definition, HypervisorError> {
    let found = working.find(id)?;
    if persistent(working, &found)?.text != from {
        return Err(HypervisorError::DefinitionChanged {
            operation: working.operation,
            domain: working.domain.clone(),
        });
    }
    let defined = working
        .connect
        .define_domain_xml_flags(to, sys::VIR_DOMAIN_DEFINE_VALIDATE)
        .map_err(|error| working.failed(&error))?;
    persistent(working, &defined)
}

fn persistent(working: &Working, domain: &Domain) -> Result<Definition, HypervisorError> {
    let text = domain
        .xml_desc(PERSISTENT)
        .map_err(|error| working.failed(&error))?;
    Definition::read(text).map_err(|problem| working.unreadable(problem))
}
