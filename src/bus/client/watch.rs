//! The client's view of what happens: audit records as they are made, and the daemon's coming and going.

use futures_util::StreamExt;
use zbus::proxy::{OwnerChangedStream, SignalStream};

use super::{Answer, unreadable};
use crate::bus::dict::Dict;
use crate::bus::record::record_from_dict;
use crate::view::AuditRecordView;

/// A watch over what is decided and done.
pub struct Watch {
    pub(super) records: SignalStream<'static>,
    pub(super) owners: OwnerChangedStream<'static>,
}

/// What a watch has seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Watched {
    /// A record.
    Record(Box<AuditRecordView>),
    /// The daemon is gone; the watch goes on when it is back.
    Gone,
    /// The daemon is back.
    Back,
}

impl Watch {
    /// What comes next; `None` when the connection has ended.
    ///
    /// # Errors
    /// [`super::ClientError::Answer`] where a record cannot be understood.
    pub async fn next(&mut self) -> Option<Answer<Watched>> {
        tokio::select! {
            record = self.records.next() => {
                let message = record?;
                let record = message
                    .body()
                    .deserialize::<Dict>()
                    .map_err(|error| unreadable("Audited", error))
                    .and_then(|dict| {
                        record_from_dict(dict).map_err(|error| unreadable("Audited", error))
                    });
                Some(record.map(|record| Watched::Record(Box::new(record))))
            }
            owner = self.owners.next() => Some(Ok(match owner? {
                Some(_) => Watched::Back,
                None => Watched::Gone,
            })),
        }
    }
}
