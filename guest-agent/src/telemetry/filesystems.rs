//! How full the file systems on the guest's disks are. Those in memory, those that cannot be written to, and those of other
//! machines are left out: asking one of the last may wait for ever. Called by `survey`; where they are `durable` asks, too.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use agent_protocol::DiskFigures;
use nix::sys::statvfs::statvfs;

/// File systems that are looked at.
const MOST: usize = 64;

/// Kinds that are on a disk of this machine.
const KINDS: [&str; 15] = [
    "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "ntfs3",
    "reiserfs", "ubifs", "vfat", "xfs", "zfs",
];

/// Free shares in percent; `None` where there is no file system to look at.
pub(super) fn look(root: &Path) -> Option<DiskFigures> {
    let mut figures = DiskFigures::default();
    for place in disks(root) {
        let Ok(of) = statvfs(&place) else { continue };
        let used = of.blocks().saturating_sub(of.blocks_free());
        // What is kept for root is neither used nor free, as for df(1).
        let space = share(
            of.blocks_available(),
            used.saturating_add(of.blocks_available()),
        );
        figures.space_free = least(figures.space_free, space);
        figures.inodes_free = least(figures.inodes_free, share(of.files_free(), of.files()));
    }
    figures.space_free.map(|_| figures)
}

/// Where the file systems are mounted, each once; none where the kernel does not say it.
pub(crate) fn disks(root: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string(root.join("proc/self/mounts")).unwrap_or_default();
    let place = |point: String| root.join(point.trim_start_matches('/'));
    points(&mounts).into_iter().map(place).collect()
}

/// The same as the guest names them.
fn points(mounts: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut points = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(device), Some(point), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let writable = options.split(',').all(|option| option != "ro");
        if KINDS.contains(&kind) && writable && seen.insert(device) && points.len() < MOST {
            points.push(unescape(point));
        }
    }
    points
}

/// The kernel writes white space and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let digits = after.get(..3);
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out + rest
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a percentage needs no more digits than an f64 has"
)]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (part as f64 / whole as f64 * 100.0).clamp(0.0, 100.0))
}

fn least(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_on_a_disk_and_can_be_written_is_looked_at_and_once() {
        let mounts = "\
sysfs /sys sysfs rw,nosuid 0 0
/dev/vda1 / ext4 rw,relatime 0 0
/dev/vda1 /srv/again ext4 rw 0 0
/dev/loop0 /snap/core squashfs ro 0 0
/dev/vdb1 /media/read ext4 ro,relatime 0 0
tmpfs /tmp tmpfs rw 0 0
server:/export /home nfs4 rw 0 0
sshfs#u@h: /mnt fuse.sshfs rw 0 0
/dev/vdc /with\\040space\\134x xfs rw 0 0
broken
";
        assert_eq!(points(mounts), ["/", "/with space\\x"]);
    }

    #[test]
    fn the_fullest_counts_and_what_has_no_inodes_says_nothing_of_them() {
        assert_eq!(share(25, 100), Some(25.0));
        assert_eq!(share(0, 0), None);
        assert_eq!(least(Some(25.0), Some(7.5)), Some(7.5));
        assert_eq!(least(None, Some(1.0)), Some(1.0));
        let root = tempfile::tempdir().unwrap();
        assert_eq!(look(root.path()), None);
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        let mounts = root.path().join("proc/self/mounts");
        fs::write(&mounts, "/dev/vda1 /not-there ext4 rw 0 0\n").unwrap();
        assert_eq!(look(root.path()), None, "it cannot be asked");
        fs::write(&mounts, "/dev/vda1 / ext4 rw 0 0\n").unwrap();
        let figures = look(root.path()).unwrap();
        assert_eq!(figures.checked(), figures);
    }
}
