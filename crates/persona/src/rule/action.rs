//! The actions of a rule as they are written, and the values in them. What is said in other words is in `spoken`; what
//! an action does is not here.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::ast::{Action, Limit, MemoryAmount};
use super::lex::Measured;
use super::parse::Parser;
use super::phrase::{Phrase, Slots};
use crate::limits;
use crate::model::PersonaName;
use crate::problem::{Kind, nearest};
use crate::quantity::Quantity;
use crate::signal::Unit;
use crate::units::Bytes;

const fn written(pattern: &'static str, make: super::phrase::Make) -> Phrase {
    Phrase {
        pattern,
        means: pattern,
        make,
    }
}

/// Every action in its written form; `print` writes them so.
pub(super) const WRITTEN: [Phrase; 31] = [
    written("set vcpus to N", |p, s| Action::SetVcpus(p.count(&s[0]))),
    written("set memory to SIZE", |p, s| {
        Action::SetMemory(p.size(&s[0]))
    }),
    written("add N vcpus", |p, s| Action::AddVcpus(p.count(&s[0]))),
    written("remove N vcpus", |p, s| Action::RemoveVcpus(p.count(&s[0]))),
    written("add SIZE|P% memory", |p, s| p.add_memory(s)),
    written("remove SIZE|P% memory", |p, s| p.remove_memory(s)),
    written("set network bandwidth to RATE", |p, s| {
        Action::SetLimit(Limit::NetworkBandwidth(
            p.limit(&s[0], &limits::NETWORK_BANDWIDTH),
        ))
    }),
    written("set disk iops to N", |p, s| {
        Action::SetLimit(Limit::DiskIops(p.iops(&s[0])))
    }),
    written("set disk bandwidth to RATE", |p, s| {
        Action::SetLimit(Limit::DiskBandwidth(
            p.limit(&s[0], &limits::DISK_BANDWIDTH),
        ))
    }),
    written("set cpu weight to N", |p, s| {
        Action::SetLimit(Limit::CpuWeight(p.whole(&s[0], &limits::CPU_WEIGHT)))
    }),
    written("set cpu cap to P%", |p, s| {
        Action::SetLimit(Limit::CpuCap(p.limit(&s[0], &limits::CPU_CAP)))
    }),
    written("enable feature NAME", |p, s| {
        Action::EnableFeature(p.name(&s[0], "a feature"))
    }),
    written("disable feature NAME", |p, s| {
        Action::DisableFeature(p.name(&s[0], "a feature"))
    }),
    written("run NAME", |p, s| {
        Action::Run(p.name(&s[0], "a response script"))
    }),
    written("respond NAME", |p, s| {
        Action::Respond(p.name(&s[0], "an automated response"))
    }),
    written("apply KEY = VALUE", |p, s| p.apply(s)),
    written("install package PACKAGE", |p, s| {
        Action::InstallPackage(p.package(&s[0]))
    }),
    written("remove package PACKAGE", |p, s| {
        Action::RemovePackage(p.package(&s[0]))
    }),
    written("block addresses from SOURCE", |p, s| {
        Action::BlockAddresses {
            source: p.name(&s[0], "an external source"),
        }
    }),
    // Without a name the source is meant under which the action stands.
    written("block addresses", |_, _| Action::BlockAddresses {
        source: String::new(),
    }),
    written("unblock addresses from SOURCE", |p, s| {
        Action::UnblockAddresses {
            source: p.name(&s[0], "an external source"),
        }
    }),
    written("unblock addresses", |_, _| Action::UnblockAddresses {
        source: String::new(),
    }),
    written("isolate", |_, _| Action::Isolate),
    written("restore", |_, _| Action::Restore),
    written("redirect port N to HOST:PORT", |p, s| p.redirect(s)),
    written("activate persona NAME", |p, s| p.activate_persona(s)),
    written("revert", |_, _| Action::Revert),
    written("notify \"TEXT\"", |p, s| Action::Notify(p.notice(&s[0]))),
    written("call webhook NAME", |p, s| {
        Action::CallWebhook(p.name(&s[0], "a webhook"))
    }),
    // A size says by itself that memory is meant.
    Phrase {
        pattern: "add BYTES",
        means: "add SIZE|P% memory",
        make: |p, s| p.add_memory(s),
    },
    Phrase {
        pattern: "remove BYTES",
        means: "remove SIZE|P% memory",
        make: |p, s| p.remove_memory(s),
    },
];

/// Settings whose keys are names as they are.
const OF_NAMES: [&str; 2] = ["sysctl", "services"];

/// Keys under which `apply` sets something.
const APPLICABLE: [&str; 4] = [
    "os_settings",
    "application_settings",
    "behavioral_settings",
    "environment_variables",
];

impl Parser<'_> {
    pub(super) fn add_memory(&mut self, slots: Slots<'_>) -> Action {
        Action::AddMemory(self.memory_amount(&slots[0], 1000.0))
    }

    pub(super) fn remove_memory(&mut self, slots: Slots<'_>) -> Action {
        Action::RemoveMemory(self.memory_amount(&slots[0], 99.0))
    }

    fn memory_amount(&mut self, slot: &Range<usize>, most: f64) -> MemoryAmount {
        let (measured, at) = self.quantity_in(slot);
        let Some(percent) = measured.of(Unit::Percent) else {
            return MemoryAmount::Size(self.size_of(&measured, at));
        };
        if percent <= 0.0 || percent > most {
            let found = self.text_at(at.clone());
            let message = format!(
                "{found} is out of range; a change of memory is above 0% and at most {most}%"
            );
            self.report(Kind::OutOfRange, at, message);
        }
        MemoryAmount::Percent(percent)
    }

    /// A whole number of vCPUs; a stand-in where it was reported.
    pub(super) fn count(&mut self, slot: &Range<usize>) -> u32 {
        let (measured, at) = self.quantity_in(slot);
        let Ok(quantity) = &measured.quantity else {
            return 1;
        };
        let found = self.text_at(at.clone());
        if quantity.unit != Unit::Count {
            let message = format!("`{found}` is {}, and vCPUs are counted", quantity.unit);
            self.report(Kind::UnitMismatch, at, message);
            return 1;
        }
        whole_number(quantity.value, 1, limits::MOST_VCPUS).unwrap_or_else(|| {
            let message = format!(
                "`{found}` is out of range; vCPUs are a whole number from 1 to {}",
                limits::MOST_VCPUS
            );
            self.report(Kind::OutOfRange, at, message);
            1
        })
    }

    /// A size of memory; a stand-in where it was reported.
    pub(super) fn size(&mut self, slot: &Range<usize>) -> Bytes {
        let (measured, at) = self.quantity_in(slot);
        self.size_of(&measured, at)
    }

    fn size_of(&mut self, measured: &Measured, at: Range<usize>) -> Bytes {
        let Ok(quantity) = &measured.quantity else {
            return limits::LEAST_MEMORY;
        };
        let found = self.text_at(at.clone());
        if quantity.unit != Unit::Bytes {
            let help = measured
                .unit
                .is_empty()
                .then(|| format!("write the unit, such as `{found} MiB`"));
            let message = format!(
                "`{found}` is {}, and memory is measured in bytes",
                quantity.unit
            );
            self.report(Kind::UnitMismatch, at, message).help = help;
            return limits::LEAST_MEMORY;
        }
        match limits::memory(quantity.value) {
            Ok(size) => size,
            Err(range) => {
                let message = format!("`{found}` is out of range; {range}");
                self.report(Kind::OutOfRange, at, message);
                limits::LEAST_MEMORY
            }
        }
    }

    /// A quantity within a range of its own kind; the least where it was reported.
    pub(super) fn limit(&mut self, slot: &Range<usize>, range: &limits::Range) -> f64 {
        let (measured, at) = self.quantity_in(slot);
        self.within(&measured, at, range)
    }

    fn within(&mut self, measured: &Measured, at: Range<usize>, range: &limits::Range) -> f64 {
        let Ok(quantity) = &measured.quantity else {
            return range.least;
        };
        let found = self.text_at(at.clone());
        let show = |value| Quantity {
            value,
            unit: range.unit,
        };
        if quantity.unit != range.unit {
            let message = format!(
                "{} is {}, and `{found}` is {}",
                range.of, range.unit, quantity.unit
            );
            self.report(Kind::UnitMismatch, at, message).help =
                Some(format!("write `{}`", range.example));
            return range.least;
        }
        if quantity.value < range.least || quantity.value > range.most {
            let message = format!(
                "`{found}` is out of range; {} is {} to {}",
                range.of,
                show(range.least),
                show(range.most)
            );
            self.report(Kind::OutOfRange, at, message);
            return range.least;
        }
        quantity.value
    }

    /// Requests a second, as a plain number or a rate.
    pub(super) fn iops(&mut self, slot: &Range<usize>) -> f64 {
        let (mut measured, at) = self.quantity_in(slot);
        if let Ok(quantity) = &mut measured.quantity
            && measured.unit.is_empty()
        {
            quantity.unit = Unit::PerSecond;
        }
        self.within(&measured, at, &limits::DISK_IOPS)
    }

    /// A whole number within a range.
    pub(super) fn whole(&mut self, slot: &Range<usize>, range: &limits::Range) -> u32 {
        let before = self.problems.len();
        let value = self.limit(slot, range);
        whole_number(value, 0, u32::MAX).unwrap_or_else(|| {
            if !self.failed_since(before) {
                let at = self.place(slot.start, slot.end);
                let message = format!(
                    "{} is a whole number, not `{}`",
                    range.of,
                    self.text_at(at.clone())
                );
                self.report(Kind::OutOfRange, at, message);
            }
            1
        })
    }

    /// The name of one of the persona's things, in lower case.
    pub(super) fn name(&mut self, slot: &Range<usize>, of: &str) -> String {
        let (text, at) = self.text_in(slot);
        self.checked_name(text.to_ascii_lowercase(), of, at)
    }

    /// A name of several words, joined by hyphens.
    pub(super) fn joined_name(&mut self, slot: &Range<usize>, of: &str) -> String {
        let (text, at) = self.text_in(slot);
        let joined = text.split_whitespace().collect::<Vec<_>>().join("-");
        self.checked_name(joined.to_ascii_lowercase(), of, at)
    }

    fn checked_name(&mut self, name: String, of: &str, at: Range<usize>) -> String {
        if !limits::is_name(&name) {
            let message = format!("`{}` is no name of {of}", self.text_at(at.clone()));
            self.report(Kind::BadName, at, message).help = Some(limits::NAMES.to_owned());
        }
        name
    }

    /// The name of a package, in lower case as in `software_stack`.
    pub(super) fn package(&mut self, slot: &Range<usize>) -> String {
        let (text, at) = self.text_in(slot);
        let name = text.to_ascii_lowercase();
        if !limits::is_package(&name) {
            let message = format!("`{text}` is no name of a package");
            self.report(Kind::BadName, at, message).help = Some(
                "letters, digits, `+`, `-`, `.`, `_`; at most 128, such as `libstdc++6`".to_owned(),
            );
        }
        name
    }

    pub(super) fn activate_persona(&mut self, slots: Slots<'_>) -> Action {
        let (text, at) = self.text_in(&slots[0]);
        match text.parse::<PersonaName>() {
            Ok(name) => Action::ActivatePersona(name),
            Err(error) => {
                let help = error
                    .suggestion
                    .as_ref()
                    .map(|other| format!("`{other}` would be one"));
                let message = format!("`{}` is no persona name", error.name);
                self.report(Kind::BadName, at, message).help = help;
                // A stand-in: the rule never comes out.
                Action::Revert
            }
        }
    }

    /// `apply os_settings.theme = dark`.
    fn apply(&mut self, slots: Slots<'_>) -> Action {
        let (written, at) = self.text_in(&slots[0]);
        let (section, rest) = written.split_once('.').unwrap_or((&written, ""));
        let section = section.to_ascii_lowercase();
        if !APPLICABLE.contains(&section.as_str()) {
            let help = match nearest(&section, APPLICABLE) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("`apply` sets what is under {}", APPLICABLE.join(", ")),
            };
            let message = format!("`apply` sets nothing under `{section}`");
            self.report(Kind::UnknownKey, at.clone(), message).help = Some(help);
        } else if !limits::is_setting(rest) {
            let message = format!("`{written}` names no setting");
            self.report(Kind::BadName, at.clone(), message).help = Some(format!(
                "name one, such as `{section}.theme`, in letters, digits, `.`, `_`, `-`"
            ));
        }
        // The case of the names of variables, kernel parameters and units counts; settings are the language's own.
        let rest = if section == "environment_variables" {
            rest.to_owned()
        } else {
            match rest.split_once('.') {
                Some((table, name)) if OF_NAMES.iter().any(|of| table.eq_ignore_ascii_case(of)) => {
                    format!("{}.{name}", table.to_ascii_lowercase())
                }
                _ => rest.to_ascii_lowercase(),
            }
        };
        let (value, value_at) = self.text_in(&slots[1]);
        if value.len() > limits::LONGEST_SETTING || value.chars().any(char::is_control) {
            let message = format!(
                "a setting is one line of at most {} bytes",
                limits::LONGEST_SETTING
            );
            self.report(Kind::OutOfRange, value_at, message);
        }
        Action::Apply {
            key: format!("{section}.{rest}"),
            value,
        }
    }

    /// `redirect port 80 to 10.0.0.1:8080`.
    pub(super) fn redirect(&mut self, slots: Slots<'_>) -> Action {
        let port = self.whole(&slots[0], &limits::PORT);
        let (target, at) = self.text_in(&slots[1]);
        let parsed = target.rsplit_once(':').and_then(|(host, port)| {
            let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
            Some((host_of(host)?, port))
        });
        let (host, to) = parsed.unwrap_or_else(|| {
            let message = format!("`{target}` is no host with a port");
            self.report(Kind::OutOfRange, at, message).help = Some(
                "write a name or an address and a port from 1 to 65535, such as `10.0.0.1:8080` or `[fd00::1]:8080`"
                    .to_owned(),
            );
            ("localhost".to_owned(), 1)
        });
        Action::Redirect {
            // Within the range of ports, or reported.
            port: u16::try_from(port).unwrap_or(1),
            host,
            to,
        }
    }

    pub(super) fn notice(&mut self, slot: &Range<usize>) -> String {
        let (text, at) = self.text_in(slot);
        if text.trim().is_empty()
            || text.len() > limits::LONGEST_NOTICE
            || text.chars().any(char::is_control)
        {
            let message = format!(
                "a notice is one line of 1 to {} bytes",
                limits::LONGEST_NOTICE
            );
            self.report(Kind::OutOfRange, at, message);
        }
        text
    }
}

/// A number as a whole one within a range.
fn whole_number(value: f64, least: u32, most: u32) -> Option<u32> {
    let whole = value.fract() == 0.0 && value >= f64::from(least) && value <= f64::from(most);
    // Whole and in range, checked above.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    whole.then_some(value as u32)
}

/// The name or address of a host in one spelling; addresses of IPv6 lose their brackets.
fn host_of(text: &str) -> Option<String> {
    if let Some(inner) = text.strip_prefix('[') {
        let address = inner.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?;
        return Some(address.to_string());
    }
    let numeric = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if numeric {
        return text
            .parse::<Ipv4Addr>()
            .ok()
            .map(|address| address.to_string());
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    (text.len() <= 253 && text.split('.').all(label)).then(|| text.to_ascii_lowercase())
}
