//! External sources of data: where from, how often, in which form. Who fetches them is not here, and what is done
//! about them is a rule like any other.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExternalSource {
    /// `external.NAME.FIELD` in rules; where the document gives none, the host part of the URL.
    pub name: String,
    /// `http`, `https` or `file`.
    pub url: String,
    /// How often it is asked.
    #[serde(serialize_with = "crate::quantity::serialize_duration")]
    pub frequency: Duration,
    /// The form of the answer; `None` goes by its content type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<FeedFormat>,
    /// A value that could not be renewed for so long is unknown.
    #[serde(serialize_with = "crate::quantity::serialize_duration")]
    pub stale_after: Duration,
}

impl ExternalSource {
    /// How often, where the document does not say.
    pub const DEFAULT_FREQUENCY: Duration = Duration::from_secs(300);
    /// Intervals after which a value is stale, where the document does not say.
    pub const STALE_AFTER_INTERVALS: u32 = 12;
}

/// The form of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeedFormat {
    /// JSON; the value is at this path, such as `data.items`, or the whole.
    Json {
        /// Keys and indices, with points between them.
        path: Option<String>,
    },
    /// Comma-separated with a first line of names; the values are in this column, or in the first.
    Csv {
        /// The name of the column.
        column: Option<String>,
    },
    /// One value a line.
    Lines,
}

/// The host that a URL names, without user and port; `None` where it has none, as files do, or where it is no name.
pub(crate) fn host_of(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    if scheme.eq_ignore_ascii_case("file") {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    // An address of IPv6 stands in brackets and has colons; it makes no name.
    let host = host.split(':').next()?;
    (!host.is_empty() && !host.starts_with('[')).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_stands_between_user_and_port() {
        for (url, expected) in [
            (
                "https://threatintel.example.com/latest_ips",
                Some("threatintel.example.com"),
            ),
            ("http://user:word@example.com:8080?q", Some("example.com")),
            ("https://example.com", Some("example.com")),
            ("file:///srv/list", None),
            ("http://[::1]:80/", None),
            ("https:///x", None),
            ("example.com/x", None),
        ] {
            assert_eq!(host_of(url), expected, "{url}");
        }
    }
}
