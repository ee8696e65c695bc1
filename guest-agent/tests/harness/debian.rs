//! A guest with a service manager, and all of it that settings can touch. `systemctl` is a small program here that keeps what
//! it is told.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use super::Guest;

/// It knows what was there at the last daemon-reload, as the real one does.
const SYSTEMCTL: &str = r#"#!/bin/sh
root=${0%/usr/bin/systemctl}
state=$root/units
echo "$*" >>"$root/calls"
verb=$1
for unit; do :; done
known() {
    if [ -e "$root/usr/lib/systemd/system/$unit" ]; then return 0; fi
    if [ -e "$root/known" ]; then while read -r name; do if [ "$name" = "$unit" ]; then return 0; fi; done <"$root/known"; fi
    return 1
}
need() { known || { echo "Failed to $verb unit: Unit file $unit does not exist." >&2; exit 1; }; }
case $verb in
    show)
        if [ -e "$state/masked.$unit" ]; then echo LoadState=masked
        elif known; then echo LoadState=loaded
        else echo LoadState=not-found; fi
        if [ -e "$state/enabled.$unit" ]; then echo UnitFileState=enabled; else echo UnitFileState=disabled; fi
        if [ -e "$state/active.$unit" ]; then echo ActiveState=active; else echo ActiveState=inactive; fi ;;
    enable) need && : >"$state/enabled.$unit" ;;
    disable) need && rm -f "$state/enabled.$unit" ;;
    start)
        need
        if [ -e "$root/broken.$unit" ]; then echo "Job for $unit failed." >&2; exit 1; fi
        : >"$state/active.$unit" ;;
    stop) need && rm -f "$state/active.$unit" ;;
    daemon-reload) ls "$root/etc/systemd/system" >"$root/known.new"; mv "$root/known.new" "$root/known" ;;
    try-restart) ;;
    *) exit 1 ;;
esac
"#;

/// Written by another process: a descriptor of this one's that is open for writing could be inherited for a moment by a child
/// that another test starts, and as long nobody can run the program.
pub fn program(guest: &Guest, path: &str, text: &str) {
    let path = guest.path(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = Command::new("/bin/sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = writer.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    assert!(writer.wait().unwrap().success());
}

/// Makes one database of all files that it finds, and none of none.
const DCONF: &str = r#"#!/bin/sh
root=${0%/usr/bin/dconf}
echo "dconf $*" >>"$root/calls"
db=$root/etc/dconf/db
rm -f "$db/local"
for file in "$db"/local.d/*; do
    [ ! -e "$file" ] || cat "$file" >>"$db/local"
done
"#;

/// A guest with a desktop that reads dconf, an IDE and two browsers.
pub fn desktop() -> Guest {
    let guest = debian();
    program(&guest, "usr/bin/dconf", DCONF);
    for name in ["code", "firefox-esr", "chromium"] {
        program(&guest, &format!("usr/bin/{name}"), "#!/bin/sh\n");
    }
    guest
}

/// A guest with systemd, apt, a scanner, an editor, rsyslog, and a service of each kind.
pub fn debian() -> Guest {
    let guest = Guest::new();
    for directory in [
        "run/systemd/system",
        "units",
        "etc/systemd/system",
        "etc/rsyslog.d",
    ] {
        fs::create_dir_all(guest.path(directory)).unwrap();
    }
    program(&guest, "usr/bin/systemctl", SYSTEMCTL);
    for name in [
        "bin/apt-get",
        "bin/debsecan",
        "bin/nano",
        "bin/zsh",
        "sbin/rsyslogd",
    ] {
        program(&guest, &format!("usr/{name}"), "#!/bin/sh\n");
    }
    for unit in ["cron.service", "ssh.service", "apt-daily-upgrade.timer"] {
        guest.write(&format!("usr/lib/systemd/system/{unit}"), "");
    }
    for state in ["enabled.ssh.service", "active.ssh.service"] {
        guest.write(&format!("units/{state}"), "");
    }
    for state in [
        "enabled.apt-daily-upgrade.timer",
        "active.apt-daily-upgrade.timer",
    ] {
        guest.write(&format!("units/{state}"), "");
    }
    guest.write("proc/sys/vm/swappiness", "60\n");
    guest.write("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n");
    guest.write("proc/sys/vm/dirty_ratio", "20\n");
    guest
}

/// All that settings can touch, with content and mode.
pub fn tree(guest: &Guest) -> BTreeMap<String, (Vec<u8>, u32)> {
    fn visit(root: &Path, path: &Path, found: &mut BTreeMap<String, (Vec<u8>, u32)>) {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(root, &path, found);
                continue;
            }
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            found.insert(name, (fs::read(&path).unwrap(), mode));
        }
    }
    let mut found = BTreeMap::new();
    for directory in ["etc", "proc/sys", "units"] {
        visit(&guest.path(""), &guest.path(directory), &mut found);
    }
    // Where nothing was, the kernel's line end tells who wrote; a value is the same without it.
    for (name, (bytes, _)) in &mut found {
        if name.starts_with("proc/sys") {
            *bytes = String::from_utf8_lossy(bytes).trim().into();
        }
    }
    found
}
