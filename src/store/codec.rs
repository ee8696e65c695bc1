//! How entries lie in sled: keys, the header of a value, and values in parts. No I/O; called by the store alone.
//!
//! One sled tree holds all of it, so that one batch is atomic over everything. A key is the tree's byte and the
//! caller's key. A value is a schema number, a word that says where its body is, and the body: JSON, here or in parts.
//!
//! ```text
//! head   [tree][key]                                  -> [schema u16][0][JSON]
//!                                                     or [schema u16][1][id u64][parts u16][length u32]
//! part   [tree | 0x80][key length u16][key][id u64][n u16] -> up to 4 KiB of JSON
//! ```
//!
//! Why parts: sled writes a node of its tree (up to 16 entries) that exceeds 128 KiB to a file of its own, which it
//! never syncs. Entries of at most 4 KiB keep every node below that.

use super::Tree;

/// The most bytes of a body in one sled entry: 16 of them and their keys stay below sled's limit of 128 KiB by half.
pub(super) const PART_BYTES: usize = 4096;

/// The most bytes of a body. Documents are at most 256 KiB, and escaping them as JSON at most doubles what is text.
pub(super) const VALUE_BYTES: usize = 1 << 20;

/// The longest key of a caller.
pub(super) const KEY_BYTES: usize = 512;

const PART_FLAG: u8 = 0x80;
const INLINE: u8 = 0;
const IN_PARTS: u8 = 1;

/// Where the body of a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body<'a> {
    /// In the head itself.
    Inline(&'a [u8]),
    /// In parts of their own.
    Parts(Parts),
}

/// The parts of one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// Distinguishes these parts from those of earlier bodies of the same key.
    pub(super) id: u64,
    /// How many.
    pub(super) count: u16,
    /// Bytes in all of them.
    pub(super) length: u32,
}

/// The head's key.
pub(super) fn head_key(tree: Tree, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.len());
    bytes.push(tree.byte());
    bytes.extend_from_slice(key);
    bytes
}

/// The key of one part; `key` is no longer than [`KEY_BYTES`].
pub(super) fn part_key(tree: Tree, key: &[u8], id: u64, number: u16) -> Vec<u8> {
    let length = u16::try_from(key.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(13 + key.len());
    bytes.push(tree.byte() | PART_FLAG);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes
}

/// The first byte of every part's key of `tree`.
pub(super) fn part_prefix(tree: Tree) -> [u8; 1] {
    [tree.byte() | PART_FLAG]
}

/// Takes a part's key apart: the caller's key and the id of the body.
pub(super) fn parse_part_key(bytes: &[u8]) -> Option<(&[u8], u64)> {
    let rest = bytes.get(1..)?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (key, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let (id, number) = rest.split_first_chunk::<8>()?;
    (number.len() == 2).then(|| (key, u64::from_be_bytes(*id)))
}

/// A head with its body inside.
pub(super) fn inline_value(schema: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(3 + body.len());
    bytes.extend_from_slice(&schema.to_be_bytes());
    bytes.push(INLINE);
    bytes.extend_from_slice(body);
    bytes
}

/// A head whose body is in parts.
pub(super) fn parts_value(schema: u16, parts: Parts) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(17);
    bytes.extend_from_slice(&schema.to_be_bytes());
    bytes.push(IN_PARTS);
    bytes.extend_from_slice(&parts.id.to_be_bytes());
    bytes.extend_from_slice(&parts.count.to_be_bytes());
    bytes.extend_from_slice(&parts.length.to_be_bytes());
    bytes
}

/// Takes a head apart: its schema number, and where the body is. The schema comes even where the rest is of a form
/// that only a newer version knows.
pub(super) fn parse_value(bytes: &[u8]) -> Option<(u16, Option<Body<'_>>)> {
    let (schema, rest) = bytes.split_first_chunk::<2>()?;
    let schema = u16::from_be_bytes(*schema);
    let body = match rest.split_first() {
        Some((&INLINE, body)) => Some(Body::Inline(body)),
        Some((&IN_PARTS, rest)) => parse_parts(rest).map(Body::Parts),
        _ => None,
    };
    Some((schema, body))
}

fn parse_parts(bytes: &[u8]) -> Option<Parts> {
    let (id, rest) = bytes.split_first_chunk::<8>()?;
    let (count, rest) = rest.split_first_chunk::<2>()?;
    let length = <[u8; 4]>::try_from(rest).ok()?;
    Some(Parts {
        id: u64::from_be_bytes(*id),
        count: u16::from_be_bytes(*count),
        length: u32::from_be_bytes(length),
    })
}

/// A key for people: text where it is text, a number where it is eight bytes that are no text, else hexadecimal.
pub(super) fn printable(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => match <[u8; 8]>::try_from(key) {
            Ok(number) => u64::from_be_bytes(number).to_string(),
            Err(_) => key.iter().map(|byte| format!("{byte:02x}")).collect(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_keys_come_apart_as_they_were_put_together() {
        for key in [&b""[..], b"a", b"a\0", b"web/3", &[0xff; KEY_BYTES]] {
            let bytes = part_key(Tree::Versions, key, 77, 3);
            assert_eq!(parse_part_key(&bytes), Some((key, 77)));
            assert!(bytes.starts_with(&part_prefix(Tree::Versions)));
            assert_eq!(parse_part_key(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn values_come_apart_as_they_were_put_together() {
        assert_eq!(
            parse_value(&inline_value(3, b"{}")),
            Some((3, Some(Body::Inline(b"{}"))))
        );
        let parts = Parts {
            id: 9,
            count: 65,
            length: 262_144,
        };
        assert_eq!(
            parse_value(&parts_value(1, parts)),
            Some((1, Some(Body::Parts(parts))))
        );
    }

    #[test]
    fn bytes_that_are_no_value_are_told_apart() {
        assert_eq!(parse_value(b""), None);
        assert_eq!(parse_value(b"\0"), None);
        assert_eq!(parse_value(b"\0\x01"), Some((1, None)));
        assert_eq!(parse_value(b"\0\x09\x07new"), Some((9, None)));
        assert_eq!(parse_value(b"\0\x01\x01short"), Some((1, None)));
    }

    #[test]
    fn keys_are_shown_to_people() {
        assert_eq!(printable(b"web/3"), "web/3");
        assert_eq!(printable(&7u64.to_be_bytes()), "7");
        assert_eq!(printable(&[0, 1, 0xff]), "0001ff");
    }
}
