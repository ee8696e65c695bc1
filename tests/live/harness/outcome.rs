//! How something in the lab ends that did not go as it must: one sentence, with what was seen last.

use std::fmt;
use std::time::{Duration, Instant};

/// A sentence about what is wrong.
#[derive(Clone)]
pub(crate) struct Failure(String);

/// What a lab's function gives.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// With this sentence.
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    /// What was being done, before what went wrong.
    pub(crate) fn while_doing(doing: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self(format!("{doing}: {cause}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The same as for people: a test that ends with a failure prints this.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self(format!("an answer could not be understood: {error}"))
    }
}

/// A failure with this sentence unless it holds.
pub(crate) fn ensure(holds: bool, sentence: impl FnOnce() -> String) -> Outcome<()> {
    if holds {
        Ok(())
    } else {
        Err(Failure(sentence()))
    }
}

/// Between two looks: short against what is waited for, long against what a look costs.
const BETWEEN: Duration = Duration::from_millis(200);

/// Looks again and again until it is as it must be. A look that fails says why it is not so yet; the last one's reason
/// is in the failure when the time is over. At least two looks are made, however slow they are.
pub(crate) fn eventually<T>(
    what: impl fmt::Display,
    within: Duration,
    mut look: impl FnMut() -> Outcome<T>,
) -> Outcome<T> {
    let begin = Instant::now();
    let mut looks = 0_u32;
    loop {
        looks += 1;
        match look() {
            Ok(seen) => return Ok(seen),
            Err(reason) if looks > 1 && begin.elapsed() >= within => {
                return Err(Failure(format!(
                    "{what}: not within {} s; at last: {reason}",
                    within.as_secs()
                )));
            }
            Err(_) => std::thread::sleep(BETWEEN),
        }
    }
}
