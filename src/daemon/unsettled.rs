//! Replacements of a definition of which nobody saw the end, because the daemon or the connection ended meanwhile: whether
//! they took place is read off the definition, kept and told. How an adoption goes is in `adopt`, which calls `replace`;
//! `follow` calls `settle_adoptions` with each answer of the hypervisor.

use serde_json::Value;

use super::Daemon;
use super::adopt::Adopting;
use super::adopted::Adopted;
use super::event::Event;
use crate::act::sentence_of;
use crate::adopt;
use crate::audit::AuditKind;
use crate::hypervisor::{Definition, Definitions, DomainId, Hypervisor, HypervisorError};

/// What came of the replacement of a definition.
#[derive(Debug)]
pub(super) enum Replacement {
    /// The definition is another now. Where the call itself had failed, with its error.
    Done(Box<Definition>, Option<HypervisorError>),
    /// The definition is what it was.
    NotDone(HypervisorError),
    /// One of the two.
    Unknown(HypervisorError),
}

/// Replaces a definition. Where the call fails, what is there decides and not the error.
pub(super) async fn replace(
    hypervisor: &dyn Hypervisor,
    domain: DomainId,
    from: String,
    to: String,
) -> Replacement {
    let error = match hypervisor.redefine(domain, from.clone(), to).await {
        Ok(definition) => return Replacement::Done(Box::new(definition), None),
        Err(error) => error,
    };
    let may_come = error.may_have_taken_effect();
    // The other errors say that it was not tried.
    if !may_come && !matches!(error, HypervisorError::Failed { .. }) {
        return Replacement::NotDone(error);
    }
    match hypervisor.definitions(domain).await {
        Ok(Definitions {
            persistent: Some(now),
            ..
        }) if !adopt::is_as_left(Some(&from), &now.text) => {
            Replacement::Done(Box::new(now), Some(error))
        }
        Ok(_) if !may_come => Replacement::NotDone(error),
        _ => Replacement::Unknown(error),
    }
}

/// What was found of an adoption of which only the beginning is kept.
#[derive(Debug)]
pub struct Settled {
    domain: DomainId,
    record: Adopted,
    end: End,
}

#[derive(Debug)]
enum End {
    /// The definition is another now.
    Replaced(Box<Definition>),
    /// The definition is what it was, and stays so.
    Left,
    /// It cannot be said yet.
    Unknown,
}

async fn end_of(hypervisor: &dyn Hypervisor, domain: DomainId, record: &Adopted) -> End {
    let Ok(Definitions {
        persistent: Some(now),
        ..
    }) = hypervisor.definitions(domain).await
    else {
        return End::Unknown;
    };
    if !adopt::is_as_left(Some(record.replaced()), &now.text) {
        return End::Replaced(Box::new(now));
    }
    // The call may be on its way still. One that changes nothing and waits in the same queue shows that it is not.
    let same = hypervisor
        .redefine(domain, now.text.clone(), now.text)
        .await;
    match same {
        Ok(_) => End::Left,
        Err(_) => End::Unknown,
    }
}

impl Daemon {
    /// Looks at the definitions of the domains whose adoptions have no known end.
    pub(super) fn settle_adoptions(&mut self) {
        let ready: Vec<DomainId> = self
            .unsettled
            .iter()
            .copied()
            .filter(|id| self.domains.contains_key(id) && !self.adopting.contains(id))
            .collect();
        for id in ready {
            self.unsettled.remove(&id);
            // What cannot be read cannot be settled; who asks for an adoption of the domain is told.
            let Ok(Some(record)) = self.store.get::<Adopted>(id.0) else {
                continue;
            };
            if record.after.is_some() {
                continue;
            }
            let hypervisor = self.hypervisor.clone();
            self.spawn(async move {
                let end = end_of(hypervisor.as_ref(), id, &record).await;
                let settled = Settled {
                    domain: id,
                    record,
                    end,
                };
                Event::Adoption(Box::new(Adopting::Settled(Box::new(settled))))
            });
        }
    }

    /// Keeps and tells what came of it, unless somebody has gone on with the domain meanwhile.
    pub(super) fn adoption_is_settled(&mut self, settled: Settled) {
        let Settled {
            domain: id,
            record,
            end,
        } = settled;
        let kept = self.store.get::<Adopted>(id.0).ok().flatten();
        if kept.as_ref() != Some(&record) {
            return;
        }
        let by = record.by.clone();
        let (kept, text) = match end {
            End::Unknown => {
                self.unsettled.insert(id);
                return;
            }
            End::Replaced(now) => (
                Some(Adopted {
                    after: Some(now.text),
                    ..record
                }),
                format!(
                    "the definition was prepared as {by} wanted, which nobody had seen end; what the running domain was not given comes with its next start, and `virt-persona adopt --undo` puts the definition back"
                ),
            ),
            End::Left => {
                let began = adopt::is_as_left(Some(&record.before), record.replaced());
                let after = Some(record.replaced().to_owned());
                (
                    (!began).then_some(Adopted { after, ..record }),
                    format!(
                        "the definition stays as it is, because the adoption that {by} wanted was cut off before it changed anything"
                    ),
                )
            }
        };
        if let Err(error) = self.keep(id, kept.as_ref()) {
            self.unsettled.insert(id);
            self.problems.insert(
                "store",
                format!("the store could not be written: {}", sentence_of(&error)),
            );
            return;
        }
        self.record(AuditKind::Adoption, Some(id), &text, Value::Null);
        self.publish_soon();
    }
}
