//! What a guest says of what its owner has made otherwise than the persona says: part of the greeting and of each message
//! with a report, so that it is known at once and known when it is over.

use serde::{Deserialize, Serialize};

/// Customisations that an agent keeps, over all personas.
pub const CUSTOMIZATIONS_MAX: usize = 64;
/// Keys that are named to the host.
pub const CUSTOMIZED_KEYS_MAX: usize = 8;

/// What is otherwise in the guest than the active persona says, by its owner's will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Customized {
    /// How many things.
    pub count: u32,
    /// The first of them: `environment.EDITOR`, `sysctl.vm.swappiness`. Values are the guest's own business.
    #[serde(default)]
    pub keys: Vec<String>,
}

impl Customized {
    /// What is said of these keys; `None` where there are none.
    #[must_use]
    pub fn of(keys: impl ExactSizeIterator<Item = String>) -> Option<Self> {
        let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        (count > 0).then(|| Self {
            count,
            keys: keys.take(CUSTOMIZED_KEYS_MAX).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_first_are_named() {
        assert_eq!(
            Customized::of(std::iter::empty::<String>().collect::<Vec<_>>().into_iter()),
            None
        );
        let keys: Vec<String> = (0..20).map(|n| format!("environment.A{n}")).collect();
        let told = Customized::of(keys.into_iter()).unwrap();
        assert_eq!((told.count, told.keys.len()), (20, CUSTOMIZED_KEYS_MAX));
    }
}
