//! The D-Bus service `org.virtpersona1`, and the client of it that the command line uses. The only module that names
//! zbus.
//!
//! ```text
//! method call -> calls: identify, authorise -> Request -> the daemon's task -> Reply -> barrier -> answer
//! View (watch) -> Bus::run: objects come and go, PropertiesChanged of what differs from the view before
//! AuditRecordView (broadcast) -> Bus::run: Manager.Audited
//! ```
//!
//! Reads are answered from the published view and never wait for the daemon's task; what the view does not hold
//! (documents, audit records, explanations) is asked of the task, with a deadline. Objects are on the bus before the
//! name is requested. A change is shown on the bus before its caller gets the answer. When the connection or the name
//! is lost, [`Bus::run`] ends with the error; the daemon then ends too, and its service manager starts it again.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt;
use tokio::sync::{broadcast, mpsc, watch};
use zbus::connection::Builder;
use zbus::fdo::{DBusProxy, ObjectManager, Properties, RequestNameFlags, RequestNameReply};
use zbus::names::InterfaceName;
use zbus::object_server::SignalEmitter;
use zbus::proxy::CacheProperties;
use zbus::{Connection, ObjectPath, Variant};

use self::authorize::{Authority, Polkit};
use self::calls::{Barrier, Calls};
use self::domain::Domain;
use self::manager::Manager;
use self::persona::Persona;
use crate::command::Request;
use crate::view::{AuditRecordView, View};

pub use self::client::{Client, ClientError, Watch, Watched};
pub use self::error::BusError;

mod authorize;
mod calls;
mod client;
mod dict;
mod domain;
mod error;
mod manager;
pub mod names;
mod options;
mod persona;
mod record;

/// Which bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusChoice {
    /// The system's; `DBUS_SYSTEM_BUS_ADDRESS` names another.
    System,
    /// The session's, for a daemon of one user; `DBUS_SESSION_BUS_ADDRESS` names another.
    Session,
    /// The one with this D-Bus address.
    Address(String),
}

impl std::fmt::Display for BusChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::System => f.write_str("the system bus"),
            Self::Session => f.write_str("the session bus"),
            Self::Address(address) => write!(f, "the bus at `{address}`"),
        }
    }
}

impl BusChoice {
    fn builder(&self) -> Builder<'_> {
        match self {
            Self::System => Builder::system(),
            Self::Session => Builder::session(),
            Self::Address(address) => Builder::address(address.as_str()),
        }
    }
}

/// Barriers that may wait; each belongs to a method call that waits too.
const BARRIERS: usize = 64;

/// The served bus. It lives while [`Bus::run`] is polled.
#[derive(Debug)]
pub struct Bus {
    choice: BusChoice,
    connection: Connection,
    calls: Calls,
    shown: Arc<View>,
    barriers: mpsc::Receiver<Barrier>,
    events: broadcast::Receiver<AuditRecordView>,
}

/// Connects, puts the objects of the present view on the bus, then takes the name: when this returns, callers are
/// served, and [`Bus::run`] must be polled from then on.
///
/// # Errors
/// Where the bus cannot be reached, or the name is taken or refused.
pub async fn serve(
    choice: BusChoice,
    requests: mpsc::Sender<Request>,
    views: watch::Receiver<Arc<View>>,
    events: broadcast::Receiver<AuditRecordView>,
) -> Result<Bus, BusError> {
    let connection = choice
        .builder()
        .build()
        .await
        .map_err(|source| BusError::Connect {
            bus: choice.to_string(),
            source,
        })?;
    let polkit = match choice {
        BusChoice::System | BusChoice::Address(_) => Polkit::Ask,
        BusChoice::Session => Polkit::Absent,
    };
    let (barrier, barriers) = mpsc::channel(BARRIERS);
    let calls = Calls {
        requests,
        views,
        barriers: barrier,
        authority: Authority::new(connection.clone(), polkit),
    };
    let view = calls.view();
    let mut bus = Bus {
        choice,
        connection,
        shown: Arc::new(View::empty(view.manager.clone())),
        calls,
        barriers,
        events,
    };
    bus.put(names::ROOT, Manager(bus.calls.clone())).await?;
    bus.show(view).await?;
    // The object manager comes last: added earlier, it would announce each object to a bus that does not know us yet.
    bus.put(names::ROOT, ObjectManager).await?;
    bus.take_name().await?;
    Ok(bus)
}

impl Bus {
    /// Shows each view and each event until the daemon drops the view's sender.
    ///
    /// # Errors
    /// Where the connection or the name is lost.
    pub async fn run(mut self) -> Result<(), BusError> {
        let mut views = self.calls.views.clone();
        let name_lost = DBusProxy::builder(&self.connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await;
        let name_lost = match name_lost {
            Ok(bus) => bus.receive_name_lost().await,
            Err(error) => Err(error),
        };
        let mut name_lost = name_lost
            .map_err(|source| self.object("watch the owner of", names::SERVICE, source))?;
        let connection = self.connection.clone();
        let mut events_open = true;
        loop {
            tokio::select! {
                changed = views.changed() => match changed {
                    Ok(()) => {
                        let view = views.borrow_and_update().clone();
                        self.show(view).await?;
                    }
                    Err(_) => return Ok(()),
                },
                Some(barrier) = self.barriers.recv() => {
                    let view = views.borrow_and_update().clone();
                    self.show(view).await?;
                    // A caller that has given up needs no answer.
                    let _ = barrier.send(());
                },
                event = self.events.recv(), if events_open => match event {
                    Ok(record) => self.announce(&record).await?,
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "audit records came faster than the bus takes them; they are in the audit");
                    }
                    Err(broadcast::error::RecvError::Closed) => events_open = false,
                },
                // Only our own name is asked for on this connection.
                _ = name_lost.next() => return Err(self.closed()),
                () = connection.closed() => return Err(self.closed()),
            }
        }
    }

    fn closed(&self) -> BusError {
        BusError::Closed {
            bus: self.choice.to_string(),
        }
    }

    fn object(&self, operation: &'static str, path: &str, source: zbus::Error) -> BusError {
        if self.connection.is_closed() || matches!(source, zbus::Error::InputOutput(_)) {
            return self.closed();
        }
        BusError::Object {
            bus: self.choice.to_string(),
            operation,
            path: path.to_owned(),
            source,
        }
    }

    async fn take_name(&self) -> Result<(), BusError> {
        let reply = self
            .connection
            .request_name_with_flags(names::SERVICE, RequestNameFlags::DO_NOT_QUEUE)
            .await;
        match reply {
            Ok(RequestNameReply::PrimaryOwner | RequestNameReply::AlreadyOwner) => Ok(()),
            Ok(_) | Err(zbus::Error::NameTaken) => Err(BusError::NameTaken {
                bus: self.choice.to_string(),
                name: names::SERVICE,
            }),
            Err(source) => Err(BusError::NameRefused {
                bus: self.choice.to_string(),
                name: names::SERVICE,
                source,
            }),
        }
    }

    /// Brings the bus from the view that it shows to this one.
    async fn show(&mut self, view: Arc<View>) -> Result<(), BusError> {
        let old = std::mem::replace(&mut self.shown, view.clone());
        for id in old
            .domains
            .keys()
            .filter(|id| !view.domains.contains_key(id))
        {
            self.take_away::<Domain>(&names::domain_path(*id)).await?;
        }
        for name in old
            .personas
            .keys()
            .filter(|name| !view.personas.contains_key(*name))
        {
            self.take_away::<Persona>(&names::persona_path(name))
                .await?;
        }
        for (name, new) in &view.personas {
            let path = names::persona_path(name);
            match old.personas.get(name) {
                Some(old) => {
                    self.tell(&path, names::PERSONA, persona::changed(old, new))
                        .await?
                }
                None => {
                    let object = Persona {
                        name: name.clone(),
                        calls: self.calls.clone(),
                    };
                    self.put(path.as_str(), object).await?;
                }
            }
        }
        for (id, new) in &view.domains {
            let path = names::domain_path(*id);
            match old.domains.get(id) {
                Some(old) => {
                    self.tell(&path, names::DOMAIN, domain::changed(old, new))
                        .await?
                }
                None => {
                    let object = Domain {
                        id: *id,
                        calls: self.calls.clone(),
                    };
                    self.put(path.as_str(), object).await?;
                }
            }
        }
        let changed = manager::changed(&old.manager, &view.manager);
        let root = ObjectPath::from_static_str_unchecked(names::ROOT);
        self.tell(&root, names::MANAGER, changed).await
    }

    async fn put<I: zbus::object_server::Interface>(
        &self,
        path: &str,
        object: I,
    ) -> Result<(), BusError> {
        self.connection
            .object_server()
            .at(path, object)
            .await
            .map(|_| ())
            .map_err(|source| self.object("add the object", path, source))
    }

    async fn take_away<I: zbus::object_server::Interface>(
        &self,
        path: &ObjectPath<'_>,
    ) -> Result<(), BusError> {
        self.connection
            .object_server()
            .remove::<I, _>(path)
            .await
            .map(|_| ())
            .map_err(|source| self.object("remove the object", path.as_str(), source))
    }

    async fn tell(
        &self,
        path: &ObjectPath<'_>,
        interface: &'static str,
        changed: HashMap<&'static str, Variant<'static>>,
    ) -> Result<(), BusError> {
        if changed.is_empty() {
            return Ok(());
        }
        let tell = async {
            let emitter = SignalEmitter::new(&self.connection, path)?;
            let interface = InterfaceName::from_static_str(interface)?;
            Properties::properties_changed(&emitter, interface, changed, Cow::Borrowed(&[])).await
        };
        tell.await
            .map_err(|source| self.object("tell the changes of", path.as_str(), source))
    }

    async fn announce(&self, record: &AuditRecordView) -> Result<(), BusError> {
        let announce = async {
            let emitter = SignalEmitter::new(&self.connection, names::ROOT)?;
            manager::announce(&emitter, record).await
        };
        announce
            .await
            .map_err(|source| self.object("announce a record on", names::ROOT, source))
    }
}
