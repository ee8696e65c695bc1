//! A ring of segments on disk: plain files that are appended to, of which the oldest is dropped when all together are more
//! than the bound. Each begins with a header and can be read without those before it. What a kill leaves of a last line
//! is dropped by the reader, and nobody appends behind it: a new process begins a new segment.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How a segment's file name ends.
const SUFFIX: &str = ".jsonl";

/// So many segments make a ring that is full: dropping one loses so much of what is kept.
const PARTS: u64 = 8;

/// A ring is not cut finer than this, or its segments would hold little but their headers.
const LEAST_PART: u64 = 16 * 1024;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Bytes of a ring.
    pub bytes: u64,
    /// Nothing older than this is kept, to the length of a segment.
    pub age: Duration,
}

/// One file.
#[derive(Clone, Debug)]
struct Segment {
    number: u64,
    bytes: u64,
    /// When it was written to last.
    written: SystemTime,
}

/// The segments of one domain, or of the host.
#[derive(Debug)]
pub(super) struct Ring {
    folder: PathBuf,
    stem: String,
    segments: VecDeque<Segment>,
    /// Whether the last segment is one that this process writes.
    open: bool,
}

impl Ring {
    /// A ring with what is there of it.
    pub(super) fn open(folder: &Path, stem: &str) -> io::Result<Self> {
        let mut segments = Vec::new();
        for number in numbers(folder, stem)? {
            let data = fs::metadata(path(folder, stem, number))?;
            segments.push(Segment {
                number,
                bytes: data.len(),
                written: data.modified()?,
            });
        }
        Ok(Self {
            folder: folder.into(),
            stem: stem.to_owned(),
            segments: segments.into(),
            open: false,
        })
    }

    /// Whether what comes next has to begin a segment, and so has to be whole.
    pub(super) fn begins(&self) -> bool {
        !self.open
    }

    /// Whether the segment is as long as one should be.
    pub(super) fn is_full(&self, bound: &Bound) -> bool {
        let part = (bound.bytes / PARTS).max(LEAST_PART);
        self.open && self.segments.back().is_some_and(|last| last.bytes >= part)
    }

    /// The next line begins another segment.
    pub(super) fn close(&mut self) {
        self.open = false;
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Appends lines; the first of a segment are its header. A failure leaves the segment as it was, as far as the disk
    /// lets it, and closed.
    pub(super) fn append(
        &mut self,
        lines: &[u8],
        bound: &Bound,
        now: SystemTime,
    ) -> io::Result<()> {
        if !self.open {
            let number = self.segments.back().map_or(1, |last| last.number + 1);
            self.segments.push_back(Segment {
                number,
                bytes: 0,
                written: now,
            });
            self.open = true;
        }
        let Some(last) = self.segments.back_mut() else {
            return Ok(());
        };
        let path = path(&self.folder, &self.stem, last.number);
        let written = write(&path, lines, last.bytes);
        if let Err(error) = written {
            self.open = false;
            if last.bytes == 0 {
                self.segments.pop_back();
                // It is empty, or was never made.
                let _ = fs::remove_file(path);
            }
            return Err(error);
        }
        last.bytes += lines.len() as u64;
        last.written = now;
        self.drop_old(bound, now);
        Ok(())
    }

    /// Drops the oldest segments that are too much, and those that are too old. The last one stays.
    fn drop_old(&mut self, bound: &Bound, now: SystemTime) {
        while self.segments.len() > 1 {
            let total = self.bytes();
            let Some(first) = self.segments.front() else {
                return;
            };
            let age = now.duration_since(first.written).unwrap_or_default();
            if total <= bound.bytes && age <= bound.age {
                return;
            }
            // One that cannot be removed is not counted again; the next start finds it.
            let _ = fs::remove_file(path(&self.folder, &self.stem, first.number));
            self.segments.pop_front();
        }
    }
}

fn write(path: &Path, lines: &[u8], before: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(lines).inspect_err(|_| {
        // Half a line would be taken for the last one; where this fails too the reader drops it.
        let _ = file.set_len(before);
    })
}

fn path(folder: &Path, stem: &str, number: u64) -> PathBuf {
    folder.join(format!("{stem}.{number:08}{SUFFIX}"))
}

/// The numbers of a ring's segments, rising.
fn numbers(folder: &Path, stem: &str) -> io::Result<Vec<u64>> {
    let mut numbers: Vec<u64> = names(folder)?
        .into_iter()
        .filter_map(|(found, number)| (found == stem).then_some(number))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn names(folder: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        if let Some((stem, number)) = name.and_then(|name| name.rsplit_once('.'))
            && let Ok(number) = number.parse()
        {
            found.push((stem.to_owned(), number));
        }
    }
    Ok(found)
}

/// The stems of all rings in a folder.
pub(super) fn stems(folder: &Path) -> io::Result<Vec<String>> {
    let mut stems: Vec<String> = names(folder)?.into_iter().map(|(stem, _)| stem).collect();
    stems.sort();
    stems.dedup();
    Ok(stems)
}

/// Removes a ring.
pub(super) fn remove(folder: &Path, stem: &str) -> io::Result<()> {
    for number in numbers(folder, stem)? {
        fs::remove_file(path(folder, stem, number))?;
    }
    Ok(())
}

/// The segments of a ring, the oldest first. One that was dropped meanwhile is left out.
pub(super) fn segments(folder: &Path, stem: &str) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    for number in numbers(folder, stem)? {
        match File::open(path(folder, stem, number)) {
            Ok(file) => files.push(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Bound = Bound {
        bytes: 8 * LEAST_PART,
        age: Duration::from_secs(3600),
    };

    fn on_disk(folder: &Path) -> u64 {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum()
    }

    #[test]
    fn a_ring_is_never_larger_than_its_bound_and_keeps_the_latest() {
        let folder = tempfile::tempdir().unwrap();
        let mut ring = Ring::open(folder.path(), "web").unwrap();
        let now = SystemTime::now();
        for number in 0..3000 {
            if ring.is_full(&BOUND) {
                ring.close();
            }
            let line = format!("{number:0100}\n");
            ring.append(line.as_bytes(), &BOUND, now).unwrap();
            assert!(
                on_disk(folder.path()) <= BOUND.bytes && ring.bytes() == on_disk(folder.path())
            );
        }
        // Dropping one segment of eight leaves the rest.
        assert!(on_disk(folder.path()) > BOUND.bytes / 2);
        let mut last = segments(folder.path(), "web").unwrap();
        let text = io::read_to_string(last.pop().unwrap()).unwrap();
        assert!(text.ends_with("2999\n"));
    }

    #[test]
    fn what_is_too_old_is_dropped_by_the_next_line_and_the_last_segment_stays() {
        let folder = tempfile::tempdir().unwrap();
        let mut ring = Ring::open(folder.path(), "web").unwrap();
        let now = SystemTime::now();
        ring.append(b"1\n", &BOUND, now).unwrap();
        ring.close();
        ring.append(b"2\n", &BOUND, now + Duration::from_secs(10))
            .unwrap();
        assert_eq!(segments(folder.path(), "web").unwrap().len(), 2);
        ring.append(b"3\n", &BOUND, now + Duration::from_secs(3700))
            .unwrap();
        assert_eq!(segments(folder.path(), "web").unwrap().len(), 1);
    }

    #[test]
    fn a_new_process_appends_to_no_segment_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let mut ring = Ring::open(folder.path(), "web").unwrap();
        ring.append(b"{\"half", &BOUND, SystemTime::now()).unwrap();
        let mut again = Ring::open(folder.path(), "web").unwrap();
        assert!(again.begins());
        again.append(b"2\n", &BOUND, SystemTime::now()).unwrap();
        let files = segments(folder.path(), "web").unwrap();
        let texts: Vec<String> = files
            .into_iter()
            .map(|file| io::read_to_string(file).unwrap())
            .collect();
        assert_eq!(texts, ["{\"half", "2\n"]);
        remove(folder.path(), "web").unwrap();
        assert_eq!(stems(folder.path()).unwrap(), [""; 0]);
    }
}
