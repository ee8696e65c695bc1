//! The guest's side of an action, as `act` needs it: CPUs brought online and taken offline, and what the guest sees of
//! its memory. Implemented by the agent's registry; tests have their own.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use persona::domain::DomainId;
use persona::units::Bytes;

/// An answer in the making.
pub(crate) type GuestAnswer<'a, T> =
    Pin<Box<dyn Future<Output = Result<T, GuestFault>> + Send + 'a>>;

/// CPUs as the guest shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpusOnline {
    /// Online.
    pub online: u32,
    /// Plugged, online or not.
    pub present: u32,
}

/// What can be asked of a guest.
pub trait Guest: Send + Sync + 'static {
    /// Makes exactly `target` CPUs online, and says what is online then.
    fn online_cpus(
        &self,
        domain: DomainId,
        target: u32,
        deadline: Duration,
    ) -> GuestAnswer<'_, CpusOnline>;
    /// The memory that the guest shows as its own.
    fn memory_total(&self, domain: DomainId, deadline: Duration) -> GuestAnswer<'_, Bytes>;
}

/// Why the guest did not answer as asked. The text is free of control characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestFault {
    /// Nobody there to ask: nothing has happened.
    #[error("the guest was not asked: {0}")]
    Absent(String),
    /// It refused, or could not: nothing has happened.
    #[error("the guest refused: {0}")]
    Refused(String),
    /// It is not known whether it did it.
    #[error("the guest did not answer: {0}")]
    Unknown(String),
}
