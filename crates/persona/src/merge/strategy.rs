//! How each list of the language merges. The merging itself is next door; the readers pass this table to it.

/// How two lists become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListMerge {
    /// The later list stands.
    Replace,
    /// Items that are maps with the same text under this key are merged where they stand; others are appended.
    ByKey(&'static str),
    /// A set of texts, in the order of their first appearance.
    Union,
}

/// The strategy for a list by its canonical keys from the root.
pub(crate) fn strategy(path: &[&str]) -> ListMerge {
    match path {
        [
            "adaptation_rules" | "telemetry_triggers" | "software_stack" | "external_data_sources",
        ] => ListMerge::ByKey("name"),
        ["performance_profile"] => ListMerge::ByKey("at"),
        // A restriction once made stays: a base would be no safeguard if whatever is laid over it could drop what it
        // forbids by writing a list of its own.
        ["restricted_commands"] => ListMerge::Union,
        _ => ListMerge::Replace,
    }
}
