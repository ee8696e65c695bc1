//! A guest whose owner wants restricted programs closed (`fail_closed`), and what a test does with one: restricting, letting go,
//! upgrading, looking at permissions and at the entries of a dpkg-statoverride that keeps what it is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    process::Command,
};

use agent_protocol::{
    ActivationReply, CommandTable, Operation, SettingOutcome,
    message::{DeactivationReply, OpStatus},
};

use super::{Agent, Guest, Peer, activate, activation, debian::program, fresh_id, ok};

pub const ENTRIES: &str = "var/lib/dpkg/statoverride";

/// One entry a line, as the real one has it; an entry that is there is replaced when that is forced.
const STATOVERRIDE: &str = r#"#!/bin/sh
entries=${0%/usr/bin/dpkg-statoverride}/var/lib/dpkg/statoverride
force=no
if [ "$1" = --force-statoverride-add ]; then force=yes; shift; fi
verb=$1
shift
for path; do :; done
found=no
while read -r user group mode name; do
    if [ "$name" = "$path" ]; then found=yes; else echo "$user $group $mode $name"; fi
done <"$entries" >"$entries.new"
case $verb$found in
    --addyes) [ "$force" = yes ] || { echo "an override for '$path' already exists" >&2; exit 2; } ;;
    --removeno) echo "no override present" >&2; exit 2 ;;
esac
if [ "$verb" = --add ]; then echo "$1 $2 $3 $4" >>"$entries.new"; fi
mv "$entries.new" "$entries"
"#;

/// A guest with some programs, one of which nobody but root can run, and an owner who wants them closed.
pub fn guest() -> Guest {
    let guest = Guest::new();
    for name in ["nc", "other", "sh"] {
        file(&guest, &format!("usr/bin/{name}"), 0o755);
    }
    file(&guest, "usr/bin/su", 0o4755);
    file(&guest, "usr/bin/roots", 0o750);
    symlink("usr/bin", guest.path("bin")).unwrap();
    wants(&guest, "fail_closed = true");
    guest
}

pub fn with_dpkg(guest: &Guest) {
    program(guest, "usr/bin/dpkg-statoverride", STATOVERRIDE);
    guest.write(
        ENTRIES,
        "root mail 2755 /usr/bin/mail\nroot root 4755 /usr/bin/su\n",
    );
}

pub fn wants(guest: &Guest, line: &str) {
    guest.write("etc/virt-persona/agent.toml", &format!("[gate]\n{line}\n"));
}

pub fn file(guest: &Guest, path: &str, mode: u32) {
    guest.write(path, "#!/bin/sh\n");
    fs::set_permissions(guest.path(path), fs::Permissions::from_mode(mode)).unwrap();
}

/// Puts a new file in the place of another, as a package manager does.
pub fn upgrade(guest: &Guest, path: &str, mode: u32) {
    let unpacked = format!("{path}.dpkg-new");
    file(guest, &unpacked, mode);
    fs::rename(guest.path(&unpacked), guest.path(path)).unwrap();
}

pub fn mode(guest: &Guest, path: &str) -> u32 {
    fs::metadata(guest.path(path)).unwrap().permissions().mode() & 0o7777
}

/// All modes, and the entries in whatever order.
pub fn state(guest: &Guest) -> (BTreeMap<String, u32>, BTreeSet<String>) {
    let names = fs::read_dir(guest.path("usr/bin")).unwrap();
    let modes = names.map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let mode = mode(guest, &format!("usr/bin/{name}"));
        (name, mode)
    });
    let entries = guest.read(ENTRIES).unwrap_or_default();
    (
        modes.collect(),
        entries.lines().map(str::to_owned).collect(),
    )
}

pub fn restricting(generation: u64, restricted: &[&str]) -> agent_protocol::Activation {
    let mut wish = activation(generation, &[("A", "value")]);
    wish.commands = CommandTable {
        overrides: [].into(),
        restricted: restricted.iter().map(|name| (*name).to_owned()).collect(),
    };
    wish
}

/// What came of each setting about programs.
pub fn hold(
    peer: &mut Peer,
    generation: u64,
    restricted: &[&str],
) -> Vec<(String, SettingOutcome, String)> {
    let reply: ActivationReply = ok(peer.ask(activate(restricting(generation, restricted))));
    lines(reply.settings.unwrap().lines)
}

pub fn let_go(peer: &mut Peer, generation: u64) -> Vec<(String, SettingOutcome, String)> {
    let reply: DeactivationReply = ok(peer.ask(Operation::Deactivate { generation }));
    lines(reply.settings.map_or(Vec::new(), |reply| reply.lines))
}

pub fn lines(lines: Vec<agent_protocol::SettingLine>) -> Vec<(String, SettingOutcome, String)> {
    let mut lines: Vec<_> = lines
        .into_iter()
        .filter_map(|line| {
            let path = line.setting.strip_prefix("fail_closed ")?.to_owned();
            Some((path, line.outcome, line.reason))
        })
        .collect();
    lines.sort_by(|one, other| one.0.cmp(&other.0));
    lines
}

pub fn status(guest: &Guest) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_virt-persona-agent"))
        .arg("status")
        .arg("--state")
        .arg(guest.path("state"))
        .arg("--root")
        .arg(guest.path(""))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

pub fn settle(peer: &mut Peer) {
    ok::<OpStatus>(peer.ask(Operation::OpStatus { id: fresh_id() }));
}

pub fn restarted(guest: &Guest, agent: Agent) -> (Agent, Peer) {
    agent.kill();
    let (agent, mut peer, _) = guest.greet();
    settle(&mut peer);
    (agent, peer)
}
