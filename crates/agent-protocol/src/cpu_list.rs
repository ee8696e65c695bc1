//! CPU lists as the kernel writes them (`0-3,8`): parsed with a bound, since a guest's claim is parsed here too. Used by reports
//! and by the agent for `/sys/devices/system/cpu/*`.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::limits::CPUS_MAX;

/// A set of CPU numbers; its text is the kernel's list format, ranges joined by commas (`cputopology.rst`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CpuList(BTreeSet<u32>);

/// A text that is no CPU list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a list of CPU numbers below {CPUS_MAX} like `0-3,8`")]
pub struct CpuListError;

impl CpuList {
    /// Parses the kernel's format; white space around it is ignored and an empty text is the empty set.
    ///
    /// # Errors
    /// [`CpuListError`] on anything else, and on numbers from [`CPUS_MAX`] on.
    pub fn parse(text: &str) -> Result<Self, CpuListError> {
        let mut cpus = BTreeSet::new();
        let text = text.trim();
        // A list of all CPUs one by one is the longest honest text.
        if text.len() > CPUS_MAX as usize * 6 {
            return Err(CpuListError);
        }
        if text.is_empty() {
            return Ok(Self(cpus));
        }
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            // The growing order also bounds the work: overlapping ranges cannot repeat it.
            if first > last || cpus.last().is_some_and(|highest| first <= *highest) {
                return Err(CpuListError);
            }
            cpus.extend(first..=last);
        }
        Ok(Self(cpus))
    }

    /// The numbers in growing order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Whether a number is among them.
    #[must_use]
    pub fn contains(&self, cpu: u32) -> bool {
        self.0.contains(&cpu)
    }
}

fn number(text: &str) -> Result<u32, CpuListError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = digits
        .then(|| text.parse().ok())
        .flatten()
        .ok_or(CpuListError)?;
    if value < CPUS_MAX {
        Ok(value)
    } else {
        Err(CpuListError)
    }
}

impl FromIterator<u32> for CpuList {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        Self(cpus.into_iter().collect())
    }
}

impl TryFrom<String> for CpuList {
    type Error = CpuListError;

    fn try_from(text: String) -> Result<Self, CpuListError> {
        Self::parse(&text)
    }
}

impl From<CpuList> for String {
    fn from(list: CpuList) -> Self {
        list.to_string()
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut cpus = self.iter().peekable();
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if(|next| *next == last + 1) {
                last = next;
            }
            if first == last {
                write!(f, "{separator}{first}")?
            } else {
                write!(f, "{separator}{first}-{last}")?
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_kernels_lists_are_read() {
        assert_eq!(
            CpuList::parse("0-2,5\n"),
            Ok([0, 1, 2, 5].into_iter().collect())
        );
        assert_eq!(CpuList::parse("\n"), Ok(CpuList::default()));
    }

    #[test]
    fn nonsense_and_huge_numbers_are_refused() {
        for bad in [
            "a",
            "1-",
            "-1",
            "3-1",
            "1,1",
            "2,1",
            "0-4294967295",
            "0-99999999999",
            "1,,2",
            "+1",
        ] {
            assert_eq!(CpuList::parse(bad), Err(CpuListError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(cpus in prop::collection::btree_set(0..200_u32, 0..60)) {
            let list: CpuList = cpus.into_iter().collect();
            prop_assert_eq!(CpuList::parse(&list.to_string()), Ok(list));
        }
    }
}
