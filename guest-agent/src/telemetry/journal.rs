//! How many records of priority error or worse systemd's journal has, without reading them: a journal file has one data object
//! for each value of each field, and it says how many records point to it. Four lookups a file give the count, also of files
//! that are being written; nothing is decompressed and no program is started.
//!
//! The format is that of <https://systemd.io/JOURNAL_FILE_FORMAT/>. A file is not trusted: every place in it is looked at
//! only within the file, and a chain that does not end is left. Called by `logs`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

/// Journal files that are written at the same time: the system's, and one for each user.
const FILES_MAX: usize = 64;
/// Files among which one that was rotated away is looked for.
const ARCHIVE_MAX: usize = 512;
/// Objects of one bucket of the hash table; journald begins a new file far below.
const CHAIN_MAX: usize = 512;

/// The part of the header that is read; later versions have more.
const HEADER: usize = 152;
const OBJECT: usize = 16;
const DATA_OBJECT: u8 = 1;
const COMPRESSED: u8 = 1 | 2 | 4;

const KEYED_HASH: u32 = 4;
const COMPACT: u32 = 16;
/// What a reader has to know, of what it may know: compression by XZ, LZ4 and Zstandard, keyed hashes, compact objects.
const KNOWN: u32 = 1 | 2 | KEYED_HASH | 8 | COMPACT;

/// The priorities that count: emergency, alert, critical, error.
const ERRORS: [&[u8]; 4] = [b"PRIORITY=0", b"PRIORITY=1", b"PRIORITY=2", b"PRIORITY=3"];

/// One file, as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    /// Which file; the name goes over to another.
    id: [u8; 16],
    errors: u64,
}

/// What the journals of a guest have counted since they were first looked at.
#[derive(Debug, Default)]
pub(super) struct Journals {
    known: Option<BTreeMap<PathBuf, Counted>>,
    grown: u64,
}

impl Journals {
    /// Looks at the files below `root`. The records that have come since the first look; `None` where no journal can be read.
    pub(super) fn look(&mut self, root: &Path) -> Option<u64> {
        let mut found = BTreeMap::new();
        for directory in directories(root) {
            for path in active(&directory) {
                if let Ok(counted) = count(&path) {
                    found.insert(path, counted);
                }
            }
        }
        if found.is_empty() {
            return None;
        }
        let before = self.known.take();
        if let Some(before) = &before {
            let come: u64 = found
                .iter()
                .map(|(path, now)| come(path, now, before))
                .sum();
            // What journald wrote before the disk was there it copies to it, and removes.
            let gone = before.iter().filter(|(path, _)| {
                path.starts_with(root.join("run")) && !found.contains_key(*path)
            });
            let gone: u64 = gone.map(|(_, counted)| counted.errors).sum();
            self.grown = self.grown.saturating_add(come.saturating_sub(gone));
        }
        self.known = Some(found);
        Some(self.grown)
    }

    /// What was not looked at meanwhile does not count.
    pub(super) fn forget(&mut self) {
        self.known = None;
    }
}

/// Records that have come to what is written under a name.
fn come(path: &Path, now: &Counted, before: &BTreeMap<PathBuf, Counted>) -> u64 {
    match before.get(path) {
        Some(before) if before.id == now.id => now.errors.saturating_sub(before.errors),
        Some(before) => {
            // It was rotated away with what came until then.
            let last = archived(path, before.id).map_or(before.errors, |last| last.errors);
            now.errors
                .saturating_add(last.saturating_sub(before.errors))
        }
        None => now.errors,
    }
}

/// The folders of the machines, and namespaces, whose journals are kept here.
fn directories(root: &Path) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    for place in ["var/log/journal", "run/log/journal"] {
        for entry in fs::read_dir(root.join(place))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            // Others' journals, as of `remote`, say nothing of this guest.
            let machine = name.as_encoded_bytes().first_chunk::<32>();
            if machine.is_some_and(|id| id.iter().all(u8::is_ascii_hexdigit)) {
                directories.push(entry.path());
            }
        }
    }
    directories
}

fn names(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "journal"))
}

/// Files that are written.
fn active(directory: &Path) -> Vec<PathBuf> {
    let plain = |path: &PathBuf| {
        let name = path.file_name();
        name.is_some_and(|name| !name.as_encoded_bytes().contains(&b'@'))
    };
    names(directory).filter(plain).take(FILES_MAX).collect()
}

/// A file that was rotated away from a name.
fn archived(path: &Path, id: [u8; 16]) -> Option<Counted> {
    let (directory, stem) = (path.parent()?, path.file_stem()?.as_encoded_bytes());
    let of_it = |other: &PathBuf| {
        let name = other.file_name().map(|name| name.as_encoded_bytes());
        name.and_then(|name| name.strip_prefix(stem))
            .is_some_and(|rest| rest.starts_with(b"@"))
    };
    names(directory)
        .filter(of_it)
        .take(ARCHIVE_MAX)
        .filter_map(|path| count(&path).ok())
        .find(|counted| counted.id == id)
}

fn count(path: &Path) -> io::Result<Counted> {
    count_in(&File::open(path)?)
}

fn count_in(file: &File) -> io::Result<Counted> {
    let journal = Journal::open(file)?;
    let mut errors = 0_u64;
    for field in ERRORS {
        errors = errors.saturating_add(journal.records_with(field)?);
    }
    Ok(Counted {
        id: journal.id,
        errors,
    })
}

/// One open file.
struct Journal<'f> {
    file: &'f File,
    length: u64,
    id: [u8; 16],
    incompatible: u32,
    buckets: u64,
    table: u64,
}

fn broken(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let chunk = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
    chunk.map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

impl<'f> Journal<'f> {
    fn open(file: &'f File) -> io::Result<Self> {
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        if !header.starts_with(b"LPKSHHRH") {
            return Err(broken("it is no journal file"));
        }
        let incompatible = u32::try_from(number(&header, 8) >> 32).unwrap_or(u32::MAX);
        if incompatible & !KNOWN != 0 {
            return Err(broken("it has a format that is not known"));
        }
        let mut id = [0; 16];
        id.copy_from_slice(&header[24..40]);
        let buckets = number(&header, 112) / 16;
        if buckets == 0 {
            return Err(broken("it has no hash table"));
        }
        Ok(Self {
            file,
            length: file.metadata()?.len(),
            id,
            incompatible,
            buckets,
            table: number(&header, 104),
        })
    }

    fn read<const N: usize>(&self, at: u64) -> io::Result<[u8; N]> {
        let end = at.checked_add(N as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(broken("it points outside of itself"));
        }
        let mut bytes = [0; N];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    /// How many records have a field with this value.
    fn records_with(&self, field: &[u8]) -> io::Result<u64> {
        let hash = if self.incompatible & KEYED_HASH != 0 {
            siphash24(field, self.id)
        } else {
            jenkins(field)
        };
        // What begins before its own end would wrap; the bound of the file is looked at by the read.
        let bucket = (hash % self.buckets) * 16;
        let Some(bucket) = self.table.checked_add(bucket) else {
            return Err(broken("its hash table is nowhere"));
        };
        let payload: usize = if self.incompatible & COMPACT != 0 {
            72
        } else {
            64
        };
        let mut at = number(&self.read::<8>(bucket)?, 0);
        for _ in 0..CHAIN_MAX {
            if at == 0 {
                return Ok(0);
            }
            let object = self.read::<64>(at)?;
            if object[0] != DATA_OBJECT {
                return Err(broken("its hash table leads to something else"));
            }
            if number(&object, OBJECT) == hash {
                let size = number(&object, 8);
                let same = object[1] & COMPRESSED != 0
                    || (size == (payload + field.len()) as u64
                        && self.read::<10>(at.saturating_add(payload as u64))? == *field);
                if same {
                    return Ok(number(&object, 56));
                }
            }
            at = number(&object, 24);
        }
        Err(broken("its hash table has no end"))
    }
}

/// SipHash-2-4 with the file's id as its key.
fn siphash24(text: &[u8], key: [u8; 16]) -> u64 {
    fn round(v: &mut [u64; 4]) {
        v[0] = v[0].wrapping_add(v[1]);
        v[1] = v[1].rotate_left(13) ^ v[0];
        v[0] = v[0].rotate_left(32);
        v[2] = v[2].wrapping_add(v[3]);
        v[3] = v[3].rotate_left(16) ^ v[2];
        v[0] = v[0].wrapping_add(v[3]);
        v[3] = v[3].rotate_left(21) ^ v[0];
        v[2] = v[2].wrapping_add(v[1]);
        v[1] = v[1].rotate_left(17) ^ v[2];
        v[2] = v[2].rotate_left(32);
    }
    let (k0, k1) = (number(&key, 0), number(&key, 8));
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut absorb = |word: u64| {
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    };
    let mut words = text.chunks_exact(8);
    for word in &mut words {
        absorb(number(word, 0));
    }
    let mut last = [0; 8];
    let rest = words.remainder();
    last[..rest.len()].copy_from_slice(rest);
    // The length modulo 256 is the last byte.
    last[7] = text.len().to_le_bytes()[0];
    absorb(u64::from_le_bytes(last));
    v[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

/// Jenkins' `hashlittle2`, its two halves as one number.
fn jenkins(text: &[u8]) -> u64 {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let mut s = [0xdead_beef_u32.wrapping_add(length); 3];
    let word = |bytes: &[u8], n: usize| {
        let mut word = [0; 4];
        let part = bytes.get(4 * n..).unwrap_or_default();
        let part = &part[..part.len().min(4)];
        word[..part.len()].copy_from_slice(part);
        u32::from_le_bytes(word)
    };
    let mut rest = text;
    while rest.len() > 12 {
        for (n, of) in s.iter_mut().enumerate() {
            *of = of.wrapping_add(word(rest, n));
        }
        for (to, by, turn) in [
            (0, 2, 4),
            (1, 0, 6),
            (2, 1, 8),
            (0, 2, 16),
            (1, 0, 19),
            (2, 1, 4),
        ] {
            s[to] = s[to].wrapping_sub(s[by]) ^ s[by].rotate_left(turn);
            let third = 3 - to - by;
            s[by] = s[by].wrapping_add(s[third]);
        }
        rest = &rest[12..];
    }
    if !rest.is_empty() {
        for (n, of) in s.iter_mut().enumerate() {
            *of = of.wrapping_add(word(rest, n));
        }
        for (to, by, turn) in [
            (2, 1, 14),
            (0, 2, 11),
            (1, 0, 25),
            (2, 1, 16),
            (0, 2, 4),
            (1, 0, 14),
            (2, 1, 24),
        ] {
            s[to] = (s[to] ^ s[by]).wrapping_sub(s[by].rotate_left(turn));
        }
    }
    u64::from(s[2]) << 32 | u64::from(s[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYED: &str = include_str!("../../tests/fixtures/journal/keyed.txt");
    const PLAIN: &str = include_str!("../../tests/fixtures/journal/plain.txt");

    /// The bytes of a recorded file.
    fn bytes(text: &str) -> Vec<u8> {
        let mut bytes = vec![0; 524_288];
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (at, hex) = line.split_once(' ').unwrap();
            let at = usize::from_str_radix(at, 16).unwrap();
            for (n, byte) in bytes[at..at + 16].iter_mut().enumerate() {
                *byte = u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap();
            }
        }
        bytes
    }

    fn counted(bytes: &[u8]) -> io::Result<u64> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        count(file.path()).map(|counted| counted.errors)
    }

    #[test]
    fn records_of_both_formats_are_counted() {
        for text in [KEYED, PLAIN] {
            assert_eq!(counted(&bytes(text)).unwrap(), 6);
        }
    }

    #[test]
    fn hashes_are_those_of_their_inventors() {
        let key = std::array::from_fn(|n| u8::try_from(n).unwrap());
        let text: Vec<u8> = (0..15).collect();
        assert_eq!(siphash24(&text, key), 0xa129_ca61_49be_45e5);
        // Both halves begin with the same constant where there is no text.
        assert_eq!(jenkins(b""), 0xdead_beef_dead_beef);
        // hashlittle2 says c = 0x17770551 and b = 0xce7226e6 for this text.
        let text = b"Four score and seven years ago";
        assert_eq!(jenkins(text), 0x1777_0551_ce72_26e6);
    }

    #[test]
    fn a_file_that_lies_is_no_journal_and_ends_nothing() {
        let good = bytes(PLAIN);
        let end = good.len() as u64;
        let with = |at: usize, value: u64| {
            let mut bytes = good.clone();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            bytes
        };
        let table = usize::try_from(number(&good, 104)).unwrap();
        let bucket = table + usize::try_from(jenkins(ERRORS[3]) % 2047).unwrap() * 16;
        let object = number(&good, bucket);
        for (at, value) in [
            (0, 0),
            (8, u64::MAX),
            (104, u64::MAX),
            (104, end),
            (112, 0),
            (112, u64::MAX),
            (bucket, u64::MAX),
            (bucket, end - 8),
            (bucket, 8),
        ] {
            let counted = counted(&with(at, value));
            assert!(
                counted.is_err() || counted.as_ref().is_ok_and(|count| *count != 6),
                "{at} {value}: {counted:?}"
            );
        }
        // A chain that leads back to itself, with another hash.
        let mut circle = with(usize::try_from(object).unwrap() + 16, 7);
        let next = usize::try_from(object).unwrap() + 24;
        circle[next..next + 8].copy_from_slice(&object.to_le_bytes());
        assert!(counted(&circle).is_err());
        for length in [0, 100, 151, 152, 264, 4096] {
            assert!(counted(&good[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn what_comes_is_counted_over_rotations_and_once_when_it_moves_to_the_disk() {
        let root = tempfile::tempdir().unwrap();
        let machine = "0123456789abcdef0123456789abcdef";
        let put = |path: &str, id: u8, threes: u64| {
            let mut bytes = bytes(PLAIN);
            bytes[24..40].fill(id);
            let table = usize::try_from(number(&bytes, 104)).unwrap();
            let bucket = table + usize::try_from(jenkins(ERRORS[3]) % 2047).unwrap() * 16;
            let object = usize::try_from(number(&bytes, bucket)).unwrap();
            bytes[object + 56..object + 64].copy_from_slice(&threes.to_le_bytes());
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        let mut journals = Journals::default();
        assert_eq!(journals.look(root.path()), None);
        let run = format!("run/log/journal/{machine}/system.journal");
        let disk = format!("var/log/journal/{machine}/system.journal");
        put(&run, 1, 10);
        assert_eq!(journals.look(root.path()), Some(0), "what was before");
        put(&run, 1, 12);
        assert_eq!(journals.look(root.path()), Some(2));
        // All 15 of it (12, and one of each of the others) and two new ones.
        put(&disk, 2, 14);
        fs::remove_file(root.path().join(&run)).unwrap();
        assert_eq!(journals.look(root.path()), Some(4));
        // Rotated, with one more before and, beside the three others of the fixture, none after.
        put(
            &format!("var/log/journal/{machine}/system@77-1-2.journal"),
            2,
            15,
        );
        put(&disk, 3, 0);
        put(&format!("var/log/journal/{machine}/notes.txt"), 3, 900);
        put("var/log/journal/remote/system.journal", 3, 900);
        assert_eq!(journals.look(root.path()), Some(4 + 1 + 3));
        put(
            &format!("var/log/journal/{machine}/user-1000.journal"),
            4,
            1,
        );
        assert_eq!(journals.look(root.path()), Some(8 + 4));
        journals.forget();
        put(&disk, 3, 50);
        assert_eq!(journals.look(root.path()), Some(12), "nobody looked");
    }
}
