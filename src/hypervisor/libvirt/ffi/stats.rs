//! Bulk statistics and the state of a domain, by calls that the wrapper leaves unusable: it neither reads nor frees the
//! records, and hides that the state could not be asked.

use std::ffi::CStr;
use std::os::raw::c_int;
use std::ptr;

use persona::domain::DomainId;
use virt::connect::Connect;
use virt::error::Error;
use virt::sys;

/// The integer figures of one domain from the bulk call, by libvirt's names.
#[derive(Debug)]
pub(in crate::hypervisor::libvirt) struct Figures {
    pub(in crate::hypervisor::libvirt) domain: DomainId,
    figures: Vec<(&'static str, u64)>,
}

impl Figures {
    /// The figure of this name, where libvirt gave it.
    pub(in crate::hypervisor::libvirt) fn get(&self, name: &str) -> Option<u64> {
        let found = self.figures.iter().find(|(field, _)| *field == name);
        found.map(|(_, value)| *value)
    }
}

/// Figures of all running domains. Domains whose monitor is busy answer with what libvirt knows without it.
///
/// # Errors
///
/// The library's own.
pub(in crate::hypervisor::libvirt) fn all_domain_stats(
    connect: &Connect,
    wanted: &[&'static str],
) -> Result<Vec<Figures>, Error> {
    let groups = sys::VIR_DOMAIN_STATS_BALLOON | sys::VIR_DOMAIN_STATS_VCPU;
    let flags = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
        | sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;
    let mut records: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
    // SAFETY: the connection is live and `records` is a place for the list that the call allocates.
    let count = unsafe {
        sys::virConnectGetAllDomainStats(connect.as_ptr(), groups, &raw mut records, flags)
    };
    let Ok(count) = usize::try_from(count) else {
        return Err(Error::last_error());
    };
    let all = (0..count)
        // SAFETY: the call filled `count` records, all valid until the list is freed below.
        .filter_map(|index| unsafe { figures(*records.add(index), wanted) })
        .collect();
    // SAFETY: the list came from the call above, is freed once, and nothing borrowed from it is left.
    unsafe { sys::virDomainStatsRecordListFree(records) };
    Ok(all)
}

/// # Safety
///
/// `record` is valid, with `nparams` parameters.
unsafe fn figures(
    record: sys::virDomainStatsRecordPtr,
    wanted: &[&'static str],
) -> Option<Figures> {
    let mut id = [0; 16];
    // SAFETY: by the contract above; the buffer has VIR_UUID_BUFLEN bytes.
    let record = unsafe { &*record };
    // SAFETY: the record holds a live domain.
    if unsafe { sys::virDomainGetUUID(record.dom, id.as_mut_ptr()) } != 0 {
        return None;
    }
    let count = usize::try_from(record.nparams).unwrap_or(0);
    let mut figures = Vec::with_capacity(wanted.len());
    for index in 0..count {
        // SAFETY: `params` has `nparams` entries.
        let parameter = unsafe { &*record.params.add(index) };
        // SAFETY: the field is a string of at most 80 bytes with its NUL.
        let field = unsafe { CStr::from_ptr(parameter.field.as_ptr()) };
        let Some(name) = wanted
            .iter()
            .find(|name| field.to_bytes() == name.as_bytes())
        else {
            continue;
        };
        let value = match sys::virTypedParameterType::try_from(parameter.type_) {
            // SAFETY: the type tells which member of the union is set.
            Ok(sys::VIR_TYPED_PARAM_UINT) => Some(u64::from(unsafe { parameter.value.ui })),
            // SAFETY: the same.
            Ok(sys::VIR_TYPED_PARAM_ULLONG) => Some(unsafe { parameter.value.ul }),
            // SAFETY: the same.
            Ok(sys::VIR_TYPED_PARAM_INT) => u64::try_from(unsafe { parameter.value.i }).ok(),
            // SAFETY: the same.
            Ok(sys::VIR_TYPED_PARAM_LLONG) => u64::try_from(unsafe { parameter.value.l }).ok(),
            _ => None,
        };
        if let Some(value) = value {
            figures.push((*name, value));
        }
    }
    let domain = DomainId(id);
    Some(Figures { domain, figures })
}

/// The state of a domain as `virDomainState`. The wrapper's own call hides that it failed.
///
/// # Errors
///
/// The library's own.
pub(in crate::hypervisor::libvirt) fn domain_state(
    domain: &virt::domain::Domain,
) -> Result<u32, Error> {
    let mut state: c_int = 0;
    // SAFETY: the domain is live; the reason may be null by the call's documentation.
    let answer =
        unsafe { sys::virDomainGetState(domain.as_ptr(), &raw mut state, ptr::null_mut(), 0) };
    if answer < 0 {
        return Err(Error::last_error());
    }
    Ok(u32::try_from(state).unwrap_or(sys::VIR_DOMAIN_NOSTATE))
}
