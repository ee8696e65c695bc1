//! Finds the emulator's process of a domain on this host: libvirt writes its number into a file, and the process itself
//! says in its command line whose it is. Used by `description` of a running domain.

use std::path::{Path, PathBuf};

use persona::domain::DomainId;

/// Where libvirt keeps the process files of domains of this URI; absent for another host and for other drivers.
pub(super) fn directory(uri: &str) -> Option<PathBuf> {
    // Three slashes: no host name, so it is this host.
    let path = uri.strip_prefix("qemu:///")?;
    match path.split(['?', '#']).next()? {
        "system" => Some(PathBuf::from("/run/libvirt/qemu")),
        // libvirt's own rule for an unprivileged daemon.
        "session" => Some(
            PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?)
                .join("libvirt")
                .join("qemu")
                .join("run"),
        ),
        _ => None,
    }
}

/// The process of the domain, if it runs and is really its own: a file that was left behind may name another's.
pub(super) fn find(directory: &Path, name: &str, id: DomainId) -> Option<u32> {
    if name.contains('/') {
        return None;
    }
    let text = std::fs::read_to_string(directory.join(format!("{name}.pid"))).ok()?;
    let process: u32 = text.trim().parse().ok()?;
    let command = std::fs::read(format!("/proc/{process}/cmdline")).ok()?;
    names(&command, id).then_some(process)
}

/// Whether this command line (`proc(5)`: arguments ended by NUL) starts the emulator of this domain.
fn names(command: &[u8], id: DomainId) -> bool {
    let id = id.to_string();
    let mut arguments = command.split(|byte| *byte == 0);
    arguments.any(|argument| argument == b"-uuid") && arguments.next() == Some(id.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "51da93fd-10ac-4dab-ac1a-a09d0d4bca20";

    fn id() -> DomainId {
        DomainId::parse(ID).unwrap()
    }

    #[test]
    fn a_command_line_with_the_uuid_is_the_domains_own() {
        let own = format!("/usr/bin/qemu-system-x86_64\0-name\0guest=a\0-uuid\0{ID}\0-display\0");
        assert!(names(own.as_bytes(), id()));
        let other = own.replace("51da", "51db");
        assert!(!names(other.as_bytes(), id()));
        assert!(!names(b"", id()));
        // The UUID elsewhere, as in a path, proves nothing.
        assert!(!names(format!("vim\0{ID}\0").as_bytes(), id()));
    }

    #[test]
    fn a_file_left_behind_names_no_process() {
        let directory = tempfile::tempdir().unwrap();
        // This process runs, and is no emulator.
        let file = directory.path().join("web.pid");
        std::fs::write(file, format!("{}\n", std::process::id())).unwrap();
        assert_eq!(find(directory.path(), "web", id()), None);
        assert_eq!(find(directory.path(), "absent", id()), None);
        assert_eq!(find(directory.path(), "../web", id()), None);
    }

    #[test]
    fn only_domains_of_this_host_have_a_process_here() {
        let system = Some(PathBuf::from("/run/libvirt/qemu"));
        assert_eq!(directory("qemu:///system"), system);
        assert_eq!(directory("qemu:///system?socket=/x"), system);
        assert_eq!(directory("qemu+ssh://other/system"), None);
        assert_eq!(directory("test:///default"), None);
    }
}
