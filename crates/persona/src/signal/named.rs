//! Signals without a row in the catalogue: what applications of the guest emit (`guest.app.NAME`) and what external
//! sources of data say (`external.SOURCE.FIELD`). Their unit is whatever they are compared with.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// One of them, by its whole name. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Named {
    id: u64,
    name: Arc<str>,
}

/// Why a text is no such name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamedError {
    /// Neither prefix.
    #[error(
        "`{0}` names neither an application's metric (`guest.app.NAME`) nor a field of an external source (`external.SOURCE.FIELD`)"
    )]
    Neither(String),
    /// `guest.app.` without a name, or with one that cannot be.
    #[error(
        "`{0}` is no name of an application's metric; write `guest.app.` and letters, digits, `.`, `_` or `-`"
    )]
    Application(String),
    /// `external.` without both parts.
    #[error("`{0}` is no field of an external source; write `external.SOURCE.FIELD`")]
    External(String),
}

/// What the names of applications' metrics begin with.
const APPLICATION: &str = "guest.app.";
/// What the names of fields of external sources begin with.
const EXTERNAL: &str = "external.";
/// Longest name, in bytes.
const LONGEST: usize = 160;

impl Named {
    /// The whole name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// A number for the name, fixed when the rule is loaded, so that an evaluation compares no text. Two names may share
    /// one in theory; compare names where it matters.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The external source, where it is a field of one.
    pub fn source(&self) -> Option<&str> {
        let (source, _) = self.name.strip_prefix(EXTERNAL)?.rsplit_once('.')?;
        Some(source)
    }

    /// Whether the text begins like one of these names, right or wrong.
    pub fn is_meant_by(text: &str) -> bool {
        let begins = |prefix: &str| {
            text.get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        begins(APPLICATION) || begins(EXTERNAL)
    }
}

/// FNV-1a, 64 bits (draft-eastlake-fnv): names are few and short, and nobody gains by a collision.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl FromStr for Named {
    type Err = NamedError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.to_ascii_lowercase();
        let plain = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        };
        if let Some(rest) = name.strip_prefix(APPLICATION) {
            if name.len() > LONGEST || !rest.split('.').all(plain) {
                return Err(NamedError::Application(excerpt(text)));
            }
        } else if let Some(rest) = name.strip_prefix(EXTERNAL) {
            if name.len() > LONGEST || !rest.contains('.') || !rest.split('.').all(plain) {
                return Err(NamedError::External(excerpt(text)));
            }
        } else {
            return Err(NamedError::Neither(excerpt(text)));
        }
        Ok(Self {
            id: fnv(&name),
            name: name.into(),
        })
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Enough of a datum to recognise it.
fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_applications_and_of_external_sources_are_read_and_others_refused() {
        for (text, expected) in [
            ("guest.app.Orders", Ok(("guest.app.orders", None))),
            (
                "guest.app.queue.depth-max",
                Ok(("guest.app.queue.depth-max", None)),
            ),
            (
                "external.threatintel.count",
                Ok(("external.threatintel.count", Some("threatintel"))),
            ),
            (
                "external.feed.example.com.count",
                Ok(("external.feed.example.com.count", Some("feed.example.com"))),
            ),
            ("guest.app.", Err(())),
            ("guest.app.a..b", Err(())),
            ("external.count", Err(())),
            ("external..count", Err(())),
            ("cpu.utilization", Err(())),
        ] {
            let read = text.parse::<Named>();
            let shown = read.as_ref().map(|named| (named.as_str(), named.source()));
            assert_eq!(shown.map_err(drop), expected, "{text}");
        }
    }

    #[test]
    fn the_id_is_that_of_the_name_in_any_case() {
        let id = |text: &str| text.parse::<Named>().unwrap().id();
        assert_eq!(id("guest.app.a"), id("GUEST.app.A"));
        assert_ne!(id("guest.app.a"), id("guest.app.b"));
    }
}
