//! Which parts of a report the host wants: it says so with a [`Collect`], and the agent leaves the others out. CPUs that are
//! online, memory and the pressure on it are always in a report, since changes are verified by them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A part of a report that goes only where it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Load and CPU pressure.
    Cpu,
    /// Processes and threads.
    Processes,
    /// File systems.
    Disk,
    /// Round trips to other machines.
    Network,
    /// Log records and failed logins.
    Logs,
    /// What applications say.
    Applications,
}

impl Part {
    /// Every part with its name on the wire.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Cpu, "cpu"),
        (Self::Processes, "processes"),
        (Self::Disk, "disk"),
        (Self::Network, "network"),
        (Self::Logs, "logs"),
        (Self::Applications, "app"),
    ];

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of parts; on the wire a list of names, of which unknown ones are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts(u8);

impl Parts {
    /// Nothing but what is always there.
    pub const NONE: Self = Self(0);
    /// What a report has before the host has said which parts it wants: all that there was before it could say so.
    pub const BASE: Self = Self(Part::Cpu.bit() | Part::Processes.bit());

    /// The set with one more.
    #[must_use]
    pub const fn with(self, part: Part) -> Self {
        Self(self.0 | part.bit())
    }

    /// What is in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a part is among them.
    #[must_use]
    pub const fn has(self, part: Part) -> bool {
        self.0 & part.bit() != 0
    }
}

impl Default for Parts {
    fn default() -> Self {
        Self::BASE
    }
}

impl FromIterator<Part> for Parts {
    fn from_iter<I: IntoIterator<Item = Part>>(parts: I) -> Self {
        parts.into_iter().fold(Self::NONE, Self::with)
    }
}

impl Serialize for Parts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let wanted = Part::ALL.iter().filter(|(part, _)| self.has(*part));
        serializer.collect_seq(wanted.map(|(_, name)| name))
    }
}

impl<'de> Deserialize<'de> for Parts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        let known = |name: &String| Part::ALL.iter().find(|(_, known)| known == name);
        Ok(names
            .iter()
            .filter_map(known)
            .map(|(part, _)| *part)
            .collect())
    }
}

/// Which parts reports have from here on. A session begins with [`Parts::BASE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collect {
    /// These, and no others.
    pub parts: Parts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_a_list_of_names_and_unknown_ones_are_left_out() {
        let text = r#"{"parts":["cpu","app"]}"#;
        let collect: Collect = serde_json::from_str(text).unwrap();
        let parts = Parts::NONE.with(Part::Cpu).with(Part::Applications);
        assert_eq!(Parts::NONE.with(Part::Applications).union(parts), parts);
        assert_eq!(collect.parts, parts);
        assert_eq!(serde_json::to_string(&collect).unwrap(), text);
        let newer: Collect =
            serde_json::from_str(r#"{"parts":["app","dreams","cpu"],"why":1}"#).unwrap();
        assert_eq!(newer, collect);
    }
}
