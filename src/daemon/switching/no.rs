//! Why a user of a guest does not get a persona, each a sentence that is told in the guest. Who decides is in `switching`.

use persona::{Level, PersonaName};

use crate::act::sentence_of;
use crate::catalog::CatalogueError;

/// Why a user does not get a persona.
#[derive(Debug, thiserror::Error)]
pub(super) enum No {
    #[error("no persona is in force here, and only one that is can let users choose another")]
    NothingInForce,
    #[error(
        "persona `{of}` does not let users of the guest choose `{wanted}`; its allowed_switches would have to name it"
    )]
    NotAllowed { of: PersonaName, wanted: String },
    #[error("the host has no persona `{0}`")]
    NotHeld(PersonaName),
    #[error("persona `{0}` is in force already")]
    There(PersonaName),
    #[error("another persona is being made active; ask again when that has ended")]
    UnderWay,
    #[error("the host is giving back what it changed and manages nothing")]
    Retired,
    #[error(
        "persona `{persona}` wants at least {wanted}, and this machine can have {most} at most"
    )]
    TooSmall {
        persona: PersonaName,
        wanted: String,
        most: String,
    },
    #[error("the trust level of persona `{of}` for a change of persona is {level}")]
    NotTrusted { of: PersonaName, level: Level },
    #[error("a person has just rejected that as proposal {0}")]
    Rejected(u64),
    #[error("too much waits for a person's word already")]
    Full,
    #[error("this machine has changed its persona too often of late; wait some minutes")]
    TooOften,
    #[error("the host has too many questions to answer; ask again in a moment")]
    Busy,
    #[error("{0}")]
    Catalogue(String),
}

impl From<CatalogueError> for No {
    fn from(error: CatalogueError) -> Self {
        Self::Catalogue(sentence_of(&error))
    }
}
