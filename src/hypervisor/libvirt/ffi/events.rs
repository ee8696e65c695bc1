//! Event registration: libvirt's own events, the monitor's raw ones and the close callback. What a notice means is in
//! `libvirt::events`; who registers again after a lost connection is `connection`.
//!
//! Callbacks run on the thread of libvirt's event loop. They must not block, call back into the library or unwind:
//! each makes a [`Notice`] and gives it to the sink.

use std::ffi::CStr;
use std::mem;
use std::os::raw::{c_char, c_int, c_longlong, c_uint, c_ulonglong, c_void};
use std::ptr;
use std::sync::Arc;

use persona::domain::DomainId;
use virt::connect::Connect;
use virt::error::Error;
use virt::sys;

/// What libvirt told, in its own numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::hypervisor::libvirt) enum Notice {
    /// The connection ended for this `virConnectCloseReason`.
    Closed { reason: i32 },
    /// Something about one domain.
    Domain { domain: DomainId, what: What },
}

/// What libvirt told of one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::hypervisor::libvirt) enum What {
    /// `virDomainEventType`, and the detail that belongs to it.
    Lifecycle {
        event: i32,
        detail: i32,
    },
    Reboot,
    /// `virDomainMetadataType`, and the namespace for elements.
    Metadata {
        kind: i32,
        uri: Option<String>,
    },
    DeviceAdded {
        alias: String,
    },
    DeviceRemoved {
        alias: String,
    },
    DeviceRemovalFailed {
        alias: String,
    },
    MemoryDevice {
        alias: String,
        kib: u64,
    },
    Balloon {
        kib: u64,
    },
    /// A scheduler parameter or a limit of a disk was set.
    Tunable,
    /// A raw event of the monitor, with its JSON data.
    Monitor {
        event: String,
        details: Option<String>,
    },
}

/// Where notices go; it must not block.
pub(in crate::hypervisor::libvirt) type Sink = Arc<dyn Fn(Notice) + Send + Sync>;

/// Raw monitor events that are listened to. Registered by name, so that no other event costs a message.
const MONITOR_EVENTS: [&CStr; 5] = [
    c"VSERPORT_CHANGE",
    c"ACPI_DEVICE_OST",
    c"RESET",
    c"DEVICE_DELETED",
    c"DEVICE_UNPLUG_GUEST_ERROR",
];

/// The registrations of one connection. Each holds a reference to the connection inside the library, so without
/// dropping this a connection that was lost would never be freed.
pub(in crate::hypervisor::libvirt) struct Subscription {
    connect: Connect,
    events: Vec<c_int>,
    monitor_events: Vec<c_int>,
    closing: bool,
}

/// An event that this connection cannot deliver.
#[derive(Debug)]
pub(in crate::hypervisor::libvirt) struct Unavailable {
    /// Its name.
    pub(in crate::hypervisor::libvirt) event: String,
    /// The library's words.
    pub(in crate::hypervisor::libvirt) error: Error,
}

/// Registers for all events that the daemon uses. What the library, the driver or an older libvirtd does not know is
/// listed, because the daemon works without it.
pub(in crate::hypervisor::libvirt) fn subscribe(
    connect: &Connect,
    sink: &Sink,
) -> (Subscription, Vec<Unavailable>) {
    let mut subscription = Subscription {
        connect: connect.clone(),
        events: Vec::new(),
        monitor_events: Vec::new(),
        closing: false,
    };
    let mut unavailable = Vec::new();

    match register_close(connect, sink) {
        Ok(()) => subscription.closing = true,
        Err(error) => unavailable.push(Unavailable {
            event: "close".into(),
            error,
        }),
    }
    for (name, id, callback) in callbacks() {
        match register_event(connect, id, callback, sink) {
            Ok(id) => subscription.events.push(id),
            Err(error) => unavailable.push(Unavailable {
                event: name.into(),
                error,
            }),
        }
    }
    for event in MONITOR_EVENTS {
        match register_monitor_event(connect, event, sink) {
            Ok(id) => subscription.monitor_events.push(id),
            Err(error) => unavailable.push(Unavailable {
                event: event.to_string_lossy().into_owned(),
                error,
            }),
        }
    }
    (subscription, unavailable)
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // SAFETY: the connection is a live reference held by `self.connect`, and the identifiers came from
        // registrations on it. Failure is expected on a lost connection and leaves nothing to do: the library has
        // dropped its side of the callback before it asks libvirtd.
        unsafe {
            let connect = self.connect.as_ptr();
            for id in &self.events {
                sys::virConnectDomainEventDeregisterAny(connect, *id);
            }
            for id in &self.monitor_events {
                sys::virConnectDomainQemuMonitorEventDeregister(connect, *id);
            }
            if self.closing {
                sys::virConnectUnregisterCloseCallback(connect, Some(on_close));
            }
        }
    }
}

type Generic = sys::virConnectDomainEventGenericCallback;

/// libvirt takes each callback as a pointer to the generic kind and calls it as the kind that belongs to the event.
fn callbacks() -> [(&'static str, sys::virDomainEventID, Generic); 9] {
    // SAFETY: all of these are optional C function pointers of the same size, and libvirt calls each with the
    // parameters of the kind that is documented for the event identifier beside it.
    unsafe {
        [
            (
                "lifecycle",
                sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                mem::transmute::<sys::virConnectDomainEventCallback, Generic>(Some(on_lifecycle)),
            ),
            (
                "reboot",
                sys::VIR_DOMAIN_EVENT_ID_REBOOT,
                Some(on_reboot as unsafe extern "C" fn(_, _, _)),
            ),
            (
                "metadata-change",
                sys::VIR_DOMAIN_EVENT_ID_METADATA_CHANGE,
                mem::transmute::<sys::virConnectDomainEventMetadataChangeCallback, Generic>(Some(
                    on_metadata,
                )),
            ),
            (
                "device-added",
                sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
                mem::transmute::<sys::virConnectDomainEventDeviceAddedCallback, Generic>(Some(
                    on_device_added,
                )),
            ),
            (
                "device-removed",
                sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
                mem::transmute::<sys::virConnectDomainEventDeviceRemovedCallback, Generic>(Some(
                    on_device_removed,
                )),
            ),
            (
                "device-removal-failed",
                sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED,
                mem::transmute::<sys::virConnectDomainEventDeviceRemovalFailedCallback, Generic>(
                    Some(on_device_removal_failed),
                ),
            ),
            (
                "memory-device-size-change",
                sys::VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE,
                mem::transmute::<sys::virConnectDomainEventMemoryDeviceSizeChangeCallback, Generic>(
                    Some(on_memory_device),
                ),
            ),
            (
                "tunable",
                sys::VIR_DOMAIN_EVENT_ID_TUNABLE,
                mem::transmute::<sys::virConnectDomainEventTunableCallback, Generic>(Some(
                    on_tunable,
                )),
            ),
            (
                "balloon-change",
                sys::VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE,
                mem::transmute::<sys::virConnectDomainEventBalloonChangeCallback, Generic>(Some(
                    on_balloon,
                )),
            ),
        ]
    }
}

/// A reference to the sink that the library owns until it calls [`free_sink`].
fn into_opaque(sink: &Sink) -> *mut c_void {
    Box::into_raw(Box::new(sink.clone())).cast()
}

/// Takes back a reference that the library refused to own.
fn take_back(opaque: *mut c_void) {
    // SAFETY: called only after a registration failed, when the library has neither kept nor freed the pointer that
    // `into_opaque` made a moment before.
    unsafe { free_sink(opaque) }
}

fn register_event(
    connect: &Connect,
    id: sys::virDomainEventID,
    callback: Generic,
    sink: &Sink,
) -> Result<c_int, Error> {
    let opaque = into_opaque(sink);
    // Event identifiers are small constants of the library.
    let id = c_int::try_from(id).unwrap_or(c_int::MAX);
    // SAFETY: the connection is live; a null domain means all domains; `opaque` stays valid until `free_sink`.
    let registered = unsafe {
        sys::virConnectDomainEventRegisterAny(
            connect.as_ptr(),
            ptr::null_mut(),
            id,
            callback,
            opaque,
            Some(free_sink),
        )
    };
    if registered < 0 {
        let error = Error::last_error();
        take_back(opaque);
        return Err(error);
    }
    Ok(registered)
}

fn register_monitor_event(connect: &Connect, event: &CStr, sink: &Sink) -> Result<c_int, Error> {
    let opaque = into_opaque(sink);
    // SAFETY: as in `register_event`; the name is copied by the library.
    let registered = unsafe {
        sys::virConnectDomainQemuMonitorEventRegister(
            connect.as_ptr(),
            ptr::null_mut(),
            event.as_ptr(),
            Some(on_monitor),
            opaque,
            Some(free_sink),
            0,
        )
    };
    if registered < 0 {
        let error = Error::last_error();
        take_back(opaque);
        return Err(error);
    }
    Ok(registered)
}

fn register_close(connect: &Connect, sink: &Sink) -> Result<(), Error> {
    let opaque = into_opaque(sink);
    // SAFETY: as in `register_event`. Drivers inside the process accept the callback without ever keeping it; then
    // one reference to the sink stays behind for the connection, which has no end to be told of.
    let registered = unsafe {
        sys::virConnectRegisterCloseCallback(
            connect.as_ptr(),
            Some(on_close),
            opaque,
            Some(free_sink),
        )
    };
    if registered < 0 {
        let error = Error::last_error();
        take_back(opaque);
        return Err(error);
    }
    Ok(())
}

unsafe extern "C" fn free_sink(opaque: *mut c_void) {
    // SAFETY: `opaque` was made by `into_opaque`, and the library calls this once, after the last callback.
    drop(unsafe { Box::from_raw(opaque.cast::<Sink>()) });
}

/// # Safety
///
/// `opaque` was made by `into_opaque` and not freed yet.
unsafe fn give(opaque: *mut c_void, notice: Notice) {
    // SAFETY: by the contract above.
    let sink = unsafe { &*opaque.cast::<Sink>() };
    sink(notice);
}

/// # Safety
///
/// `domain` is valid for the duration of the callback, `opaque` as in [`give`].
unsafe fn tell(domain: sys::virDomainPtr, opaque: *mut c_void, what: What) {
    let mut id = [0; 16];
    // SAFETY: the buffer has VIR_UUID_BUFLEN bytes, and the call only copies from the object.
    if unsafe { sys::virDomainGetUUID(domain, id.as_mut_ptr()) } == 0 {
        let domain = DomainId(id);
        // SAFETY: by the contract above.
        unsafe { give(opaque, Notice::Domain { domain, what }) };
    }
}

/// # Safety
///
/// `text` is null or a string that lives for the duration of the callback.
unsafe fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: by the contract above.
    Some(
        unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned(),
    )
}

unsafe extern "C" fn on_close(_: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // SAFETY: the library passes back the pointer that was registered.
    unsafe { give(opaque, Notice::Closed { reason }) }
}

unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: the library passes a live domain and the pointer that was registered.
    unsafe { tell(domain, opaque, What::Lifecycle { event, detail }) };
    0
}

unsafe extern "C" fn on_reboot(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { tell(domain, opaque, What::Reboot) }
}

unsafe extern "C" fn on_metadata(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    kind: c_int,
    uri: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`; the namespace is a string of this callback or null.
    unsafe {
        let uri = text(uri);
        tell(domain, opaque, What::Metadata { kind, uri });
    }
}

unsafe extern "C" fn on_device_added(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    alias: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`; the alias is a string of this callback.
    unsafe {
        let alias = text(alias).unwrap_or_default();
        tell(domain, opaque, What::DeviceAdded { alias });
    }
}

unsafe extern "C" fn on_device_removed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    alias: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_device_added`.
    unsafe {
        let alias = text(alias).unwrap_or_default();
        tell(domain, opaque, What::DeviceRemoved { alias });
    }
}

unsafe extern "C" fn on_device_removal_failed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    alias: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_device_added`.
    unsafe {
        let alias = text(alias).unwrap_or_default();
        tell(domain, opaque, What::DeviceRemovalFailed { alias });
    }
}

unsafe extern "C" fn on_memory_device(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    alias: *const c_char,
    kib: c_ulonglong,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_device_added`.
    unsafe {
        let alias = text(alias).unwrap_or_default();
        tell(domain, opaque, What::MemoryDevice { alias, kib });
    }
}

unsafe extern "C" fn on_tunable(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: sys::virTypedParameterPtr,
    _: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`; the parameters belong to the library and are not looked at.
    unsafe { tell(domain, opaque, What::Tunable) }
}

unsafe extern "C" fn on_balloon(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    kib: c_ulonglong,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { tell(domain, opaque, What::Balloon { kib }) }
}

unsafe extern "C" fn on_monitor(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: *const c_char,
    _: c_longlong,
    _: c_uint,
    details: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`; both strings belong to this callback, the details may be null.
    unsafe {
        let event = text(event).unwrap_or_default();
        let details = text(details);
        tell(domain, opaque, What::Monitor { event, details });
    }
}
