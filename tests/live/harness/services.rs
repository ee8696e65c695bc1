//! The services of a lab and the directories that they need: a libvirtd of the user `nobody`, and a bus. Started by
//! `lab`, ended by `guard`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::unistd::{Group, User};

use super::guest::TestGuest;
use super::lab::last_lines;
use super::outcome::{Failure, Outcome};

/// What every process of a lab has in its environment: the lab's directory. `guard` looks for it.
const MARK: &str = "VIRT_PERSONA_LAB";

/// The user of the lab's libvirtd, and the groups in which it is: for KVM it must be in the one of its device.
fn libvirtd_user() -> Outcome<(User, u32)> {
    let user = User::from_name("nobody")
        .map_err(|error| Failure::while_doing("the user nobody", error))?
        .ok_or_else(|| Failure::new("this host has no user nobody"))?;
    let kvm = Group::from_name("kvm").ok().flatten();
    let group = kvm.map_or(user.gid, |group| group.gid);
    Ok((user, group.as_raw()))
}

/// The directories, with names of one letter because a socket's path is short: the configuration, the run time's,
/// the cache, the home are libvirtd's; the bus and the daemon have one of their own each.
pub(super) fn make_directories(directory: &Path) -> Outcome<()> {
    let (user, group) = libvirtd_user()?;
    for name in ["c", "c/libvirt", "r", "k", "h"] {
        let path = directory.join(name);
        fs::create_dir(&path)?;
        chown(&path, Some(user.uid.as_raw()), Some(group))?;
    }
    for name in ["b", "d"] {
        fs::create_dir(directory.join(name))?;
    }
    // Without virtlogd, which would be another process to end; and without labels, which only root can give.
    fs::write(
        directory.join("c/libvirt/qemu.conf"),
        "stdio_handler = \"file\"\nsecurity_driver = \"none\"\n",
    )?;
    Ok(())
}

/// The file with the name of the host that a lab's libvirtd is on, where it has one of its own.
fn host_file(directory: &Path) -> PathBuf {
    directory.join("host")
}

/// Gives the lab's libvirtd a host's name and number of its own: it migrates no domain to a host that has the name or the
/// number of its own.
pub(super) fn be_host(directory: &Path, name: &str) -> Outcome<()> {
    fs::write(host_file(directory), name)?;
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    fs::write(
        directory.join("c/libvirt/libvirtd.conf"),
        format!("host_uuid = \"{}\"\n", uuid.trim()),
    )?;
    Ok(())
}

pub(super) fn capabilities(directory: &Path) -> PathBuf {
    directory.join("k/libvirt/qemu/cache/capabilities")
}

/// Gives libvirtd what an earlier lab's has found out about QEMU; asking it takes several seconds.
pub(super) fn borrow_capabilities(directory: &Path, guest: &TestGuest) -> Outcome<()> {
    let kept = guest.directory.join("capabilities");
    if !kept.is_dir() {
        return Ok(());
    }
    let (user, group) = libvirtd_user()?;
    let copied = copy_files(&kept, &capabilities(directory))?;
    let made = ["k/libvirt", "k/libvirt/qemu", "k/libvirt/qemu/cache"];
    for path in made.iter().map(|path| directory.join(path)).chain(copied) {
        chown(path, Some(user.uid.as_raw()), Some(group))?;
    }
    Ok(())
}

/// Copies the files of a directory; what was made, the directory among it. A file that is there is replaced as a whole,
/// and a name of its own for each copy that is not whole yet lets several labs do this at once.
pub(super) fn copy_files(from: &Path, to: &Path) -> Outcome<Vec<PathBuf>> {
    let failed = |path: &Path, error| {
        let what = format!("copying {} to {}", path.display(), to.display());
        Failure::while_doing(what, error)
    };
    fs::create_dir_all(to).map_err(|error| failed(from, error))?;
    let mut made = vec![to.to_owned()];
    for entry in fs::read_dir(from).map_err(|error| failed(from, error))? {
        let entry = entry.map_err(|error| failed(from, error))?;
        if is_unfinished(&entry.file_name()) {
            continue;
        }
        let path = to.join(entry.file_name());
        tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(to)
            .and_then(|beside| {
                fs::copy(entry.path(), beside.path())?;
                beside.persist(&path).map_err(|kept| kept.error)
            })
            .map_err(|error| failed(&entry.path(), error))?;
        made.push(path);
    }
    Ok(made)
}

/// How the name of a copy begins that is not whole yet.
const UNFINISHED: &str = ".";

fn is_unfinished(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes())
}

pub(super) fn command_in(directory: &Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env(MARK, directory)
        // libvirt's rule for the process files of domains in a session.
        .env("XDG_RUNTIME_DIR", directory.join("r"));
    command
}

fn log_file(path: &Path) -> Outcome<File> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| Failure::while_doing(path.display(), error))
}

/// Guests are preferred to other work of this machine: under emulation a guest that is left waiting by a build looks no
/// busier than one with less to do. Where it may not be set, as in some containers, it goes on without.
pub(super) const PREFERENCE: &str = "-10";

pub(super) fn start_libvirtd(directory: &Path) -> Outcome<Child> {
    let (user, group) = libvirtd_user()?;
    let log = log_file(&directory.join("libvirtd.log"))?;
    let mut command = command_in(directory, "nice");
    command.process_group(0).args(["-n", PREFERENCE]);
    if let Ok(host) = fs::read_to_string(host_file(directory)) {
        // A name with a dot is whole, and nobody is asked for the rest of it.
        let named = "hostname \"$0\" && exec \"$@\"";
        command.args([
            "unshare",
            "--uts",
            "sh",
            "-c",
            named,
            &format!("{host}.lab"),
        ]);
    }
    command
        .arg("setpriv")
        .args([
            format!("--reuid={}", user.uid),
            format!("--regid={group}"),
            "--clear-groups".to_owned(),
            "libvirtd".to_owned(),
        ])
        .env("HOME", directory.join("h"))
        .env("XDG_CONFIG_HOME", directory.join("c"))
        .env("XDG_CACHE_HOME", directory.join("k"))
        .env("XDG_DATA_HOME", directory.join("h"))
        // It looks for a session's bus otherwise, and may find its owner's.
        .env_remove("DBUS_SESSION_BUS_ADDRESS")
        .current_dir(directory.join("h"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|error| Failure::while_doing("libvirtd; `make setup` installs it", error))
}

/// A bus on which everything is allowed to whoever can connect, and by dbus-daemon's own rule only its user and root can.
pub(super) fn start_bus(directory: &Path) -> Outcome<String> {
    let config = directory.join("b/bus.conf");
    fs::write(
        &config,
        format!(
            r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={}/b/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"#,
            directory.display()
        ),
    )?;
    let mut bus = command_in(directory, "dbus-daemon")
        .process_group(0)
        .arg(format!("--config-file={}", config.display()))
        .args(["--nofork", "--nopidfile", "--print-address=1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log_file(&directory.join("b/bus.log"))?)
        .spawn()
        .map_err(|error| Failure::while_doing("dbus-daemon; `make setup` installs it", error))?;
    let mut address = String::new();
    if let Some(output) = bus.stdout.take() {
        // It ends without a line when it cannot start.
        BufReader::new(output).read_line(&mut address)?;
    }
    let address = address.trim();
    if address.is_empty() {
        let log = fs::read(directory.join("b/bus.log"))?;
        return Err(Failure::while_doing(
            "the lab's bus did not start",
            last_lines(&log),
        ));
    }
    Ok(address.to_owned())
}

#[test]
fn labs_that_begin_at_once_copy_the_same_files_to_and_fro() {
    let ground = tempfile::tempdir().expect("a directory");
    let (own, kept) = (ground.path().join("own"), ground.path().join("kept"));
    fs::create_dir(&own).expect("a directory");
    for name in ["one", "two"] {
        fs::write(own.join(name), name.repeat(10_000)).expect("a file");
    }
    std::thread::scope(|scope| {
        for lab in 0..4 {
            let (own, kept, ground) = (&own, &kept, &ground);
            scope.spawn(move || {
                for round in 0..50 {
                    let borrowed = ground.path().join(format!("{lab}-{round}"));
                    copy_files(own, kept).expect("lent");
                    copy_files(kept, &borrowed).expect("borrowed");
                    let text = fs::read_to_string(borrowed.join("two")).expect("a file");
                    assert_eq!(text, "two".repeat(10_000));
                }
            });
        }
    });
}
