//! Users of the guest, from `/etc/passwd` and `/etc/group`. A static program cannot load the name services of the guest's own C
//! library, so users of a directory service are not found; the error says so. Called by `activate` and `script`,
//! and for those who ask for another persona by the disk thread.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use agent_protocol::{GuestUser, local::SWITCH_GROUP};
use nix::unistd::{Gid, Uid};

use crate::{local::Peer, sys::Credentials};

/// A user as the password file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) home: String,
    pub(crate) shell: String,
    pub(crate) credentials: Credentials,
}

/// Why there is no such user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    #[error("user `{name}` is not in {path:?} of the guest; only local users are known there")]
    Unknown { name: String, path: PathBuf },
    #[error("cannot read {path:?} of the guest")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Looks a user up under `root`.
pub(crate) fn find_user(root: &Path, name: &str) -> Result<User, UserError> {
    let path = root.join("etc/passwd");
    let passwd = fs::read(&path).map_err(|source| UserError::Read {
        path: path.clone(),
        source,
    })?;
    // A missing group file leaves the primary group, which is what an empty one says.
    let groups = fs::read(root.join("etc/group")).unwrap_or_default();
    parse_user(
        &String::from_utf8_lossy(&passwd),
        &String::from_utf8_lossy(&groups),
        name,
    )
    .ok_or_else(|| UserError::Unknown {
        name: name.to_owned(),
        path,
    })
}

/// Who may not ask for another persona, and why.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAMember {
    #[error(
        "only root and members of the group `{SWITCH_GROUP}` of this guest may ask for another persona"
    )]
    NotInGroup,
    #[error("cannot look up who asks for another persona")]
    Read(#[from] UserError),
}

/// Who asks for another persona. It is looked up each time, so that a change of the group holds at once.
pub(crate) fn find_member(root: &Path, peer: Peer) -> Result<GuestUser, NotAMember> {
    let path = root.join("etc/passwd");
    let passwd = match fs::read(&path) {
        Ok(passwd) => passwd,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(UserError::Read { path, source }.into()),
    };
    let groups = fs::read(root.join("etc/group")).unwrap_or_default();
    parse_member(
        &String::from_utf8_lossy(&passwd),
        &String::from_utf8_lossy(&groups),
        peer,
    )
    .ok_or(NotAMember::NotInGroup)
}

/// A user whom the password file does not have may be a member by the group of the process alone.
fn parse_member(passwd: &str, group: &str, peer: Peer) -> Option<GuestUser> {
    let name = passwd.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        (fields.len() >= 7 && fields[2].parse() == Ok(peer.uid)).then(|| fields[0].to_owned())
    });
    let member = group.lines().any(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let [SWITCH_GROUP, _, gid, members] = fields[..] else {
            return false;
        };
        let listed = |name: &String| members.split(',').any(|member| member == name);
        gid.parse() == Ok(peer.gid) || name.as_ref().is_some_and(listed)
    });
    (member || peer.is_owner()).then(|| GuestUser {
        name: name.unwrap_or_default(),
        uid: peer.uid,
    })
}

fn parse_user(passwd: &str, group: &str, name: &str) -> Option<User> {
    let fields = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let entry = fields
        .into_iter()
        .find(|fields| fields.len() >= 7 && fields[0] == name)?;
    let gid = Gid::from_raw(entry[3].parse().ok()?);
    let member_of = group.lines().filter_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let member = fields.get(3)?.split(',').any(|member| member == name);
        member
            .then(|| fields[2].parse().ok())
            .flatten()
            .map(Gid::from_raw)
    });
    let mut groups = vec![gid];
    groups.extend(member_of.filter(|other| *other != gid));
    Some(User {
        name: name.to_owned(),
        home: entry[5].to_owned(),
        shell: if entry[6].is_empty() {
            "/bin/sh".to_owned()
        } else {
            entry[6].to_owned()
        },
        credentials: Credentials {
            uid: Uid::from_raw(entry[2].parse().ok()?),
            gid,
            groups,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nweb:x:1000:1001::/srv/web:\nbad:x:many:1::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\ndisk:x:6:root,web\nweb:x:1001:web\n";

    #[test]
    fn a_user_has_all_groups_and_a_shell() {
        let user = parse_user(PASSWD, GROUP, "web").unwrap();
        let gids: Vec<u32> = user
            .credentials
            .groups
            .iter()
            .map(|gid| gid.as_raw())
            .collect();
        assert_eq!(
            (user.credentials.uid.as_raw(), gids, user.shell.as_str()),
            (1000, vec![1001, 6], "/bin/sh")
        );
    }

    #[test]
    fn root_and_members_may_ask_for_another_persona_and_nobody_else() {
        let group = "root:x:0:\nvirt-persona:x:990:web,ghost\nweb:x:1001:web\n";
        let ask = |uid, gid| {
            parse_member(PASSWD, group, Peer { uid, gid }).map(|user| (user.name, user.uid))
        };
        assert_eq!(ask(0, 0), Some(("root".to_owned(), 0)));
        assert_eq!(ask(1000, 1001), Some(("web".to_owned(), 1000)));
        // By the group of the process, without an entry in the password file.
        assert_eq!(ask(4711, 990), Some((String::new(), 4711)));
        assert_eq!(ask(4711, 1001), None);
        let alone = parse_member(
            PASSWD,
            "",
            Peer {
                uid: 1000,
                gid: 1001,
            },
        );
        assert_eq!(alone, None);
    }

    #[test]
    fn who_is_not_there_or_has_no_number_is_not_found() {
        assert_eq!(parse_user(PASSWD, GROUP, "nobody"), None);
        assert_eq!(parse_user(PASSWD, GROUP, "bad"), None);
    }
}
