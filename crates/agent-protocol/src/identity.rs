//! Identifiers on the wire: who may speak (a session) and what was asked (a request). They are made elsewhere, from random
//! bytes or a clock; here they are only checked, since the other side's text ends in logs and in file names.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::NAME_MAX;

/// An identifier that is no identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The session id is not 32 lower-case hexadecimal digits.
    #[error("a session id is 32 lower-case hexadecimal digits, this one has {length} bytes")]
    Session {
        /// Length of the refused text in bytes.
        length: usize,
    },
    /// The request id has characters other than letters, digits, `-` and `_`, or a wrong length.
    #[error(
        "a request id is 1 to {NAME_MAX} letters, digits, hyphens or underscores, this one has {length} bytes"
    )]
    Request {
        /// Length of the refused text in bytes.
        length: usize,
    },
}

/// A session: 16 random bytes, drawn by the host for each connection, as 32 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId(String);

/// A request: unique for ever (a ULID or the like), chosen by the host. The agent's journal remembers it, and a second
/// delivery returns the stored result. It is safe as a file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(String);

impl SessionId {
    /// A session id from 16 random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The 32 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl RequestId {
    /// Checks and takes a request id.
    ///
    /// # Errors
    /// [`IdentityError::Request`] on an empty or long text, or a character that is no letter, digit, `-` or `_`.
    pub fn new(text: impl Into<String>) -> Result<Self, IdentityError> {
        Self::try_from(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SessionId {
    type Error = IdentityError;

    fn try_from(text: String) -> Result<Self, IdentityError> {
        let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 32 && text.bytes().all(hexadecimal) {
            Ok(Self(text))
        } else {
            Err(IdentityError::Session { length: text.len() })
        }
    }
}

impl TryFrom<String> for RequestId {
    type Error = IdentityError;

    fn try_from(text: String) -> Result<Self, IdentityError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text))
        } else {
            Err(IdentityError::Request { length: text.len() })
        }
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.0
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({})", self.0)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_is_thirty_two_lower_case_hexadecimal_digits() {
        let id = SessionId::from_random([0xab; 16]);
        assert_eq!(id.as_str(), "ab".repeat(16));
        assert!(SessionId::try_from("AB".repeat(16)).is_err());
        assert!(SessionId::try_from("ab".repeat(15)).is_err());
    }

    #[test]
    fn a_request_id_can_be_a_file_name_and_nothing_else() {
        assert!(RequestId::new("01JD2Z-a_9").is_ok());
        for bad in ["", "../x", "a b", "a\n", "ü", &"x".repeat(NAME_MAX + 1)] {
            assert!(RequestId::new(bad).is_err(), "{bad:?}");
        }
    }
}
