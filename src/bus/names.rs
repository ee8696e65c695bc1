//! Every name on the bus: service, paths, interfaces, polkit actions, and how identities become path elements.

use persona::domain::DomainId;
use zbus::OwnedObjectPath;

/// The well-known name.
pub const SERVICE: &str = "org.virtpersona1";
/// The root object: `ObjectManager` and [`MANAGER`].
pub const ROOT: &str = "/org/virtpersona1";
/// The interface of the root object.
pub const MANAGER: &str = "org.virtpersona1.Manager";
/// The interface of a domain's object.
pub const DOMAIN: &str = "org.virtpersona1.Domain";
/// The interface of a persona's object.
pub const PERSONA: &str = "org.virtpersona1.Persona";
/// What every error name of the daemon starts with.
pub const ERROR_PREFIX: &str = "org.virtpersona1.Error.";

/// What polkit is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Personas and what tags mean.
    ManagePersonas,
    /// Which persona a domain has, and its tags.
    Activate,
    /// A domain's persistent definition.
    Adopt,
    /// What waits for a person's word, and what a person wants left alone.
    Approve,
    /// A copy of what is recorded of a domain.
    Record,
    /// Commands in a guest.
    Execute,
    /// The daemon itself.
    ManageDaemon,
}

impl Action {
    /// All of them, as the policy file has them.
    pub const ALL: [Self; 7] = [
        Self::ManagePersonas,
        Self::Activate,
        Self::Adopt,
        Self::Approve,
        Self::Record,
        Self::Execute,
        Self::ManageDaemon,
    ];

    /// The name in polkit.
    pub const fn id(self) -> &'static str {
        match self {
            Self::ManagePersonas => "org.virtpersona1.manage-personas",
            Self::Activate => "org.virtpersona1.activate",
            Self::Adopt => "org.virtpersona1.adopt",
            Self::Approve => "org.virtpersona1.approve",
            Self::Record => "org.virtpersona1.record",
            Self::Execute => "org.virtpersona1.execute",
            Self::ManageDaemon => "org.virtpersona1.manage-daemon",
        }
    }
}

/// The object of a domain.
pub fn domain_path(id: DomainId) -> OwnedObjectPath {
    object_path("domain", &id.to_string())
}

/// The object of a persona.
pub fn persona_path(name: &str) -> OwnedObjectPath {
    object_path("persona", name)
}

fn object_path(folder: &str, label: &str) -> OwnedObjectPath {
    let path = format!("{ROOT}/{folder}/{}", escape_label(label));
    match OwnedObjectPath::try_from(path) {
        Ok(path) => path,
        // An escaped label holds only what a path element may hold, and is never empty.
        Err(_) => unreachable!("an escaped label is a valid path element"),
    }
}

/// Escapes a path element as `sd_bus_path_encode(3)` does: what is not an ASCII letter or digit becomes `_` and two
/// hexadecimal digits, so does a digit in the first place; nothing at all becomes `_`.
pub fn escape_label(label: &str) -> String {
    if label.is_empty() {
        return "_".to_owned();
    }
    let mut escaped = String::with_capacity(label.len());
    for (index, byte) in label.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (index > 0 && byte.is_ascii_digit()) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("_{byte:02x}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_as_systemd_does() {
        // Printed by sd_bus_path_encode of systemd 252.
        for (label, escaped) in [
            ("web", "web"),
            ("Web2", "Web2"),
            ("", "_"),
            ("2web", "_32web"),
            ("22", "_322"),
            ("a-b.c_d", "a_2db_2ec_5fd"),
            ("ä", "_c3_a4"),
            ("a/b", "a_2fb"),
        ] {
            assert_eq!(escape_label(label), escaped, "{label}");
        }
    }

    #[test]
    fn a_domain_path_is_its_escaped_uuid() {
        let id = DomainId::parse("1f2e3d4c-0000-4000-8000-00000000000a").expect("a UUID");
        assert_eq!(
            domain_path(id).as_str(),
            "/org/virtpersona1/domain/_31f2e3d4c_2d0000_2d4000_2d8000_2d00000000000a"
        );
    }
}
