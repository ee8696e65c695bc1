//! A file that is opened once and read at each tick, into one buffer that all share. Knows nothing of what the
//! text means. `cgroup`, `procfs` and `host` hold these.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;

use super::reading::{Figure, Missing};

/// The buffer that every read of a tick goes into.
#[derive(Debug)]
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    /// A part of what was read last.
    pub(super) fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        self.0.get(range)
    }

    /// Most files fit; `/proc/stat` and `memory.stat` of large hosts make it grow once.
    const INITIAL: usize = 8 << 10;
    /// No file that is read here comes near this; it bounds what a wrong path can cost.
    const LARGEST: usize = 4 << 20;
}

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![0; Self::INITIAL])
    }
}

/// An open file of procfs or a control group. A descriptor there belongs to the process or group it was opened
/// for: when that is gone, reading fails, and it never shows another one that took over the number or name.
#[derive(Debug)]
pub(super) struct Descriptor {
    file: File,
    figure: Figure,
}

impl Descriptor {
    /// Opens `path`. [`Missing::NotOffered`] when there is no such file.
    pub(super) fn open(path: &Path, figure: Figure) -> Result<Self, Missing> {
        match File::open(path) {
            Ok(file) => Ok(Self { file, figure }),
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "cannot open");
                Err(match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::ENOENT | Errno::ENOTDIR) => Missing::NotOffered(figure),
                    Some(Errno::ESRCH | Errno::ENODEV) => Missing::Gone(figure),
                    _ => Missing::Unreadable {
                        figure,
                        kind: error.kind(),
                    },
                })
            }
        }
    }

    /// The whole content, from the start.
    pub(super) fn read<'b>(&self, buffer: &'b mut Buffer) -> Result<&'b [u8], Missing> {
        self.read_until(End::RoomLeft, buffer)
    }

    /// The whole content of a file that the kernel hands out in pieces, such as a table with a line for each device.
    pub(super) fn read_pieces<'b>(&self, buffer: &'b mut Buffer) -> Result<&'b [u8], Missing> {
        self.read_until(End::Nothing, buffer)
    }

    fn read_until<'b>(&self, end: End, buffer: &'b mut Buffer) -> Result<&'b [u8], Missing> {
        let figure = self.figure;
        let length = read_whole(&self.file, end, buffer).map_err(|error| {
            match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENODEV | Errno::ENOENT | Errno::ESRCH) => Missing::Gone(figure),
                // Pressure figures that were switched off at boot open and then refuse.
                Some(Errno::EOPNOTSUPP) => Missing::NotOffered(figure),
                _ => Missing::Unreadable {
                    figure,
                    kind: error.kind(),
                },
            }
        })?;
        Ok(&buffer.0[..length])
    }
}

/// What shows that a file is read whole.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// A read that leaves room in the buffer: the kernel writes most of these files in one go into a buffer of its own
    /// and hands out as much as fits. That saves a second call a file, half of a tick's cost.
    RoomLeft,
    /// A read that gives nothing.
    Nothing,
}

/// Reads at offset 0 until the end.
fn read_whole(file: &File, end: End, buffer: &mut Buffer) -> io::Result<usize> {
    let buffer = &mut buffer.0;
    let mut length = 0;
    loop {
        if length == buffer.len() {
            if length >= Buffer::LARGEST {
                return Err(io::Error::from(io::ErrorKind::FileTooLarge));
            }
            buffer.resize(length * 2, 0);
        }
        let offset = u64::try_from(length).unwrap_or(u64::MAX);
        match file.read_at(&mut buffer[length..], offset) {
            Ok(read) => {
                length += read;
                if read == 0 || (end == End::RoomLeft && length < buffer.len()) {
                    return Ok(length);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_file_is_read_whole_and_anew_each_time_however_long() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("figure");
        let mut buffer = Buffer::default();
        std::fs::write(&path, "first\n").unwrap();
        let descriptor = Descriptor::open(&path, Figure::HostMemory).unwrap();
        assert_eq!(descriptor.read(&mut buffer).unwrap(), b"first\n");
        for length in [
            0,
            1,
            Buffer::INITIAL - 1,
            Buffer::INITIAL,
            Buffer::INITIAL + 1,
            100_000,
        ] {
            std::fs::write(&path, vec![b'x'; length]).unwrap();
            assert_eq!(descriptor.read(&mut buffer).unwrap().len(), length);
            assert_eq!(descriptor.read_pieces(&mut buffer).unwrap().len(), length);
        }
        std::fs::write(&path, vec![b'x'; Buffer::LARGEST + 1]).unwrap();
        assert_eq!(
            descriptor.read(&mut buffer),
            Err(Missing::Unreadable {
                figure: Figure::HostMemory,
                kind: io::ErrorKind::FileTooLarge
            })
        );
    }

    #[test]
    fn a_table_that_the_kernel_hands_out_in_pieces_is_read_whole() {
        // About a page for every five mappings of this process, the last line of each of which is this one.
        let descriptor =
            Descriptor::open(Path::new("/proc/self/smaps"), Figure::HostMemory).unwrap();
        let mut buffer = Buffer::default();
        let text = descriptor.read_pieces(&mut buffer).unwrap();
        assert!(text.len() > 8 << 10, "{}", text.len());
        let last = text.split(|byte| *byte == b'\n').rev().nth(1).unwrap();
        assert!(last.starts_with(b"VmFlags:"), "{}", last.escape_ascii());
    }

    #[test]
    fn a_file_that_is_not_there_is_not_offered_and_a_folder_is_unreadable() {
        let directory = tempfile::tempdir().unwrap();
        let missing = Descriptor::open(&directory.path().join("no"), Figure::GroupMemory);
        assert_eq!(
            missing.err(),
            Some(Missing::NotOffered(Figure::GroupMemory))
        );
        let folder = Descriptor::open(directory.path(), Figure::GroupMemory).unwrap();
        assert!(matches!(
            folder.read(&mut Buffer::default()),
            Err(Missing::Unreadable { .. })
        ));
    }
}
