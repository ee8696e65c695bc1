//! Typed parameters of scheduler, interfaces and disks, by calls that the wrapper does not have, or has for all parameters
//! of a structure only. What the numbers mean is decided outside.

use std::ffi::{CStr, CString};
use std::os::raw::c_int;
use std::{mem, ptr};

use virt::domain::Domain;
use virt::error::Error;
use virt::sys;

/// A value of a parameter; each name has one kind, which the library's documentation tells.
#[derive(Clone, Copy, Debug)]
pub(in crate::hypervisor::libvirt) enum Value<'a> {
    /// `unsigned int`.
    Small(u32),
    /// `unsigned long long`.
    Large(u64),
    /// `long long`.
    Signed(i64),
    /// A string.
    Text(&'a CStr),
}

/// A parameter with its name, one of the library's constants.
pub(in crate::hypervisor::libvirt) type Parameter<'a> = (&'a CStr, Value<'a>);

/// Sets scheduler parameters of the running domain.
///
/// # Errors
///
/// The library's own.
pub(in crate::hypervisor::libvirt) fn set_scheduler(
    domain: &Domain,
    parameters: &[Parameter<'_>],
) -> Result<(), Error> {
    let mut raw = raw(parameters);
    // SAFETY: the domain is live, and `raw` has as many filled parameters as is said; the library copies them.
    let answer = unsafe {
        sys::virDomainSetSchedulerParametersFlags(
            domain.as_ptr(),
            raw.as_mut_ptr(),
            count(&raw),
            sys::VIR_DOMAIN_AFFECT_LIVE,
        )
    };
    done(answer)
}

/// Sets bandwidth of one interface of the running domain, which is named by the host's device or its hardware address.
///
/// # Errors
///
/// The library's own.
pub(in crate::hypervisor::libvirt) fn set_interface(
    domain: &Domain,
    device: &str,
    parameters: &[Parameter<'_>],
) -> Result<(), Error> {
    let device = name(device);
    let mut raw = raw(parameters);
    // SAFETY: as in `set_scheduler`; the name is a string that lives for the duration of the call.
    let answer = unsafe {
        sys::virDomainSetInterfaceParameters(
            domain.as_ptr(),
            device.as_ptr(),
            raw.as_mut_ptr(),
            count(&raw),
            sys::VIR_DOMAIN_AFFECT_LIVE,
        )
    };
    done(answer)
}

/// Sets limits of one disk of the running domain, which is named by its target.
///
/// # Errors
///
/// The library's own.
pub(in crate::hypervisor::libvirt) fn set_disk(
    domain: &Domain,
    target: &str,
    parameters: &[Parameter<'_>],
) -> Result<(), Error> {
    let target = name(target);
    let mut raw = raw(parameters);
    // SAFETY: as in `set_interface`; strings among the parameters live in `parameters`.
    let answer = unsafe {
        sys::virDomainSetBlockIoTune(
            domain.as_ptr(),
            target.as_ptr(),
            raw.as_mut_ptr(),
            count(&raw),
            sys::VIR_DOMAIN_AFFECT_LIVE,
        )
    };
    done(answer)
}

/// What limits one disk of the running domain, as the emulator says: the numbers of these names, 0 where one is not told.
///
/// # Errors
///
/// The library's own.
pub(in crate::hypervisor::libvirt) fn disk_limits<const N: usize>(
    domain: &Domain,
    target: &str,
    names: [&CStr; N],
) -> Result<[u64; N], Error> {
    let target = name(target);
    let ask = |room: *mut sys::virTypedParameter, filled: &mut c_int| {
        // SAFETY: the domain is live; `room` is null with a count of none, or has room for as many as `filled` says.
        let answer = unsafe {
            sys::virDomainGetBlockIoTune(
                domain.as_ptr(),
                target.as_ptr(),
                room,
                filled,
                sys::VIR_DOMAIN_AFFECT_LIVE,
            )
        };
        done(answer)
    };
    let mut filled: c_int = 0;
    ask(ptr::null_mut(), &mut filled)?;
    let room = usize::try_from(filled).unwrap_or(0);
    let mut raw = Vec::with_capacity(room);
    raw.resize_with(room, empty);
    ask(raw.as_mut_ptr(), &mut filled)?;
    let told = raw.get(..usize::try_from(filled).unwrap_or(0).min(room));
    let found = names.map(|name| {
        let mut parameters = told.unwrap_or_default().iter();
        // SAFETY: the field is a string of at most 80 bytes with its NUL.
        let of_name = |parameter: &&sys::virTypedParameter| unsafe {
            CStr::from_ptr(parameter.field.as_ptr()) == name
        };
        let unsigned = i32::try_from(sys::VIR_TYPED_PARAM_ULLONG).unwrap_or(i32::MAX);
        match parameters.find(of_name) {
            // SAFETY: the type tells which member of the union is set.
            Some(parameter) if parameter.type_ == unsigned => unsafe { parameter.value.ul },
            _ => 0,
        }
    });
    // SAFETY: `raw` has `room` parameters, filled by the library or empty; the call frees the strings in them.
    unsafe { sys::virTypedParamsClear(raw.as_mut_ptr(), count(&raw)) };
    Ok(found)
}

fn empty() -> sys::virTypedParameter {
    // SAFETY: a structure of numbers, and a union of numbers and a pointer, for which all zeros is a valid value.
    unsafe { mem::zeroed() }
}

fn raw(parameters: &[Parameter<'_>]) -> Vec<sys::virTypedParameter> {
    let fill = |(name, value): &Parameter<'_>| {
        let mut parameter = empty();
        // The last byte stays the NUL.
        let room = parameter.field.len() - 1;
        for (place, byte) in parameter.field[..room].iter_mut().zip(name.to_bytes()) {
            *place = byte.cast_signed();
        }
        let kind = match *value {
            Value::Small(number) => {
                parameter.value.ui = number;
                sys::VIR_TYPED_PARAM_UINT
            }
            Value::Large(number) => {
                parameter.value.ul = number;
                sys::VIR_TYPED_PARAM_ULLONG
            }
            Value::Signed(number) => {
                parameter.value.l = number;
                sys::VIR_TYPED_PARAM_LLONG
            }
            Value::Text(text) => {
                // The library only reads it.
                parameter.value.s = text.as_ptr().cast_mut();
                sys::VIR_TYPED_PARAM_STRING
            }
        };
        parameter.type_ = c_int::try_from(kind).unwrap_or(c_int::MAX);
        parameter
    };
    parameters.iter().map(fill).collect()
}

/// A name for the library. One with a NUL is none of its names, and the empty one it refuses with its own words.
fn name(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

fn count(raw: &[sys::virTypedParameter]) -> c_int {
    c_int::try_from(raw.len()).unwrap_or(c_int::MAX)
}

fn done(answer: c_int) -> Result<(), Error> {
    if answer < 0 {
        return Err(Error::last_error());
    }
    Ok(())
}
