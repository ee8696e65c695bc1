//! How far trust reaches: what is done by itself, what is proposed to a person, what is never done. The one place where
//! trust levels are looked at. What waits for a person's word is in `propose`.

use persona::rule::{Action, Condition, Looked};
use persona::signal::{Reading, Signals, Source};
use persona::{Class, Level, TrustLevels};

/// Something that may be done, as trust looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deed {
    /// Its class.
    pub class: Class,
    /// Whose word it rests on: the least trusted source that was looked at.
    pub evidence: Source,
    /// Whether it can be taken back.
    pub undoing: Undoing,
    /// Who gives way for it.
    pub payer: Payer,
}

/// Whether a deed can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undoing {
    /// It brings about a state that can be changed back, or it changes nothing.
    Possible,
    /// Whatever it did has happened.
    Impossible,
}

impl Undoing {
    /// Whether an action can be taken back. A notice changes nothing; what a script or somebody else's program has
    /// done, nobody here knows.
    pub fn of(action: &Action) -> Self {
        match action {
            Action::Run(_) | Action::CallWebhook(_) => Self::Impossible,
            _ => Self::Possible,
        }
    }
}

/// Who gives way for a deed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payer {
    /// What it takes is free.
    Nobody,
    /// Other domains want it too, or have to give it up.
    Others,
}

/// How far a deed may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// It is done.
    Act,
    /// A person decides.
    Propose,
    /// It is not done.
    Never,
}

/// What the trust levels of a persona let be done.
pub fn permit(trust: &TrustLevels, deed: Deed) -> Permit {
    let measured = deed.evidence == Source::Host || deed.payer == Payer::Nobody;
    match trust.level(deed.class) {
        Level::None => Permit::Never,
        Level::Low => Permit::Propose,
        Level::Medium if measured && deed.undoing == Undoing::Possible => Permit::Act,
        Level::Medium => Permit::Propose,
        Level::High => Permit::Act,
    }
}

/// Whose word a condition rests on, where nobody wrote down what was looked at: what it reads is what it looks at.
pub(crate) fn evidence_of(condition: &Condition, signals: &dyn Signals) -> Source {
    let readings = condition
        .signals()
        .filter_map(|signal| signals.signal(signal));
    least(readings)
}

/// Whose word a condition rests on: the least trusted source that was looked at. What rests on no reading at all, as
/// on an event, is not better than what a guest says.
pub(crate) fn evidence(looked: &[Looked]) -> Source {
    least(looked.iter().filter_map(|looked| looked.reading))
}

fn least(readings: impl Iterator<Item = Reading>) -> Source {
    readings
        .map(|reading| reading.source)
        .min()
        .unwrap_or(Source::Agent)
}
