//! Spoken phrases: other words for what the language has a written form for. One table for actions and one for
//! comparisons; the parser and the documentation use them. Spoken names of metrics are in the metric catalogue, spoken
//! units in the table of units.

use super::ast::{Action, Comparison, Limit};
use super::phrase::{Make, Phrase};
use crate::limits;

const fn spoken(pattern: &'static str, means: &'static str, make: Make) -> Phrase {
    Phrase {
        pattern,
        means,
        make,
    }
}

/// What is said, what it means in writing, and the action. A test holds what a phrase says it means to what it does.
pub(super) const ACTIONS: [Phrase; 46] = [
    spoken("scale [up|down] to N vcpus", "set vcpus to N", |p, s| {
        Action::SetVcpus(p.count(&s[0]))
    }),
    spoken(
        "scale [up|down] to BYTES [of] [memory]",
        "set memory to SIZE",
        |p, s| Action::SetMemory(p.size(&s[0])),
    ),
    spoken(
        "scale vcpus [up|down] to N [vcpus]",
        "set vcpus to N",
        |p, s| Action::SetVcpus(p.count(&s[0])),
    ),
    spoken(
        "scale memory [up|down] to SIZE",
        "set memory to SIZE",
        |p, s| Action::SetMemory(p.size(&s[0])),
    ),
    spoken(
        "increase|grow [the] [allocated] vcpus",
        "add 1 vcpus",
        |_, _| Action::AddVcpus(1),
    ),
    spoken(
        "increase|grow [the] [allocated] vcpus by N [vcpus]",
        "add N vcpus",
        |p, s| Action::AddVcpus(p.count(&s[0])),
    ),
    spoken(
        "increase|grow [the] [allocated] vcpus to N [vcpus]",
        "set vcpus to N",
        |p, s| Action::SetVcpus(p.count(&s[0])),
    ),
    spoken(
        "increase|grow [the] [allocated] memory by SIZE|P%",
        "add SIZE|P% memory",
        |p, s| p.add_memory(s),
    ),
    spoken(
        "increase|grow [the] [allocated] memory to SIZE",
        "set memory to SIZE",
        |p, s| Action::SetMemory(p.size(&s[0])),
    ),
    spoken(
        "decrease|reduce|shrink [the] [allocated] vcpus",
        "remove 1 vcpus",
        |_, _| Action::RemoveVcpus(1),
    ),
    spoken(
        "decrease|reduce|shrink [the] [allocated] vcpus by N [vcpus]",
        "remove N vcpus",
        |p, s| Action::RemoveVcpus(p.count(&s[0])),
    ),
    spoken(
        "decrease|reduce|shrink [the] [allocated] vcpus to N [vcpus]",
        "set vcpus to N",
        |p, s| Action::SetVcpus(p.count(&s[0])),
    ),
    spoken(
        "decrease|reduce|shrink [the] [allocated] memory by SIZE|P%",
        "remove SIZE|P% memory",
        |p, s| p.remove_memory(s),
    ),
    spoken(
        "decrease|reduce|shrink [the] [allocated] memory to SIZE",
        "set memory to SIZE",
        |p, s| Action::SetMemory(p.size(&s[0])),
    ),
    spoken(
        "add a|an|another|one [more] vcpus",
        "add 1 vcpus",
        |_, _| Action::AddVcpus(1),
    ),
    spoken("remove a|one vcpus", "remove 1 vcpus", |_, _| {
        Action::RemoveVcpus(1)
    }),
    spoken(
        "add [another|an] N [more|additional] vcpus",
        "add N vcpus",
        |p, s| Action::AddVcpus(p.count(&s[0])),
    ),
    spoken(
        "add [another|an] SIZE|P% [more|additional] [of] memory",
        "add SIZE|P% memory",
        |p, s| p.add_memory(s),
    ),
    spoken("add [another|an] BYTES", "add SIZE|P% memory", |p, s| {
        p.add_memory(s)
    }),
    spoken(
        "remove SIZE|P% [of] memory",
        "remove SIZE|P% memory",
        |p, s| p.remove_memory(s),
    ),
    spoken(
        "limit [the] network bandwidth to RATE",
        "set network bandwidth to RATE",
        |p, s| {
            Action::SetLimit(Limit::NetworkBandwidth(
                p.limit(&s[0], &limits::NETWORK_BANDWIDTH),
            ))
        },
    ),
    spoken(
        "limit [the] disk bandwidth to RATE",
        "set disk bandwidth to RATE",
        |p, s| {
            Action::SetLimit(Limit::DiskBandwidth(
                p.limit(&s[0], &limits::DISK_BANDWIDTH),
            ))
        },
    ),
    spoken(
        "limit [the] disk iops to N",
        "set disk iops to N",
        |p, s| Action::SetLimit(Limit::DiskIops(p.iops(&s[0]))),
    ),
    spoken(
        "limit|cap [the] cpu to|at P%",
        "set cpu cap to P%",
        |p, s| Action::SetLimit(Limit::CpuCap(p.limit(&s[0], &limits::CPU_CAP))),
    ),
    spoken(
        "activate|enable [the] WORDS",
        "enable feature NAME",
        |p, s| Action::EnableFeature(p.joined_name(&s[0], "a feature")),
    ),
    spoken(
        "activate [the] feature NAME",
        "enable feature NAME",
        |p, s| Action::EnableFeature(p.name(&s[0], "a feature")),
    ),
    spoken(
        "turn|switch on [the] WORDS",
        "enable feature NAME",
        |p, s| Action::EnableFeature(p.joined_name(&s[0], "a feature")),
    ),
    spoken(
        "deactivate|disable [the] WORDS",
        "disable feature NAME",
        |p, s| Action::DisableFeature(p.joined_name(&s[0], "a feature")),
    ),
    spoken(
        "deactivate [the] feature NAME",
        "disable feature NAME",
        |p, s| Action::DisableFeature(p.name(&s[0], "a feature")),
    ),
    spoken(
        "turn|switch off [the] WORDS",
        "disable feature NAME",
        |p, s| Action::DisableFeature(p.joined_name(&s[0], "a feature")),
    ),
    spoken("run|execute|start [the] script NAME", "run NAME", |p, s| {
        Action::Run(p.name(&s[0], "a response script"))
    }),
    spoken("respond with NAME", "respond NAME", |p, s| {
        Action::Respond(p.name(&s[0], "an automated response"))
    }),
    spoken(
        "uninstall package PACKAGE",
        "remove package PACKAGE",
        |p, s| Action::RemovePackage(p.package(&s[0])),
    ),
    spoken(
        "update [the] firewall rules to block [the] [malicious|listed] addresses|ips",
        "block addresses",
        |_, _| Action::BlockAddresses {
            source: String::new(),
        },
    ),
    spoken(
        "block [the] [malicious|listed] addresses|ips from SOURCE",
        "block addresses from SOURCE",
        |p, s| Action::BlockAddresses {
            source: p.name(&s[0], "an external source"),
        },
    ),
    spoken(
        "block [the] [malicious|listed] addresses|ips",
        "block addresses",
        |_, _| Action::BlockAddresses {
            source: String::new(),
        },
    ),
    spoken(
        "isolate|quarantine [the] vm|machine|domain|instance",
        "isolate",
        |_, _| Action::Isolate,
    ),
    spoken("restore [the] network", "restore", |_, _| Action::Restore),
    spoken(
        "redirect traffic of|on|from|to port N to HOST:PORT",
        "redirect port N to HOST:PORT",
        |p, s| p.redirect(s),
    ),
    spoken("switch to persona NAME", "activate persona NAME", |p, s| {
        p.activate_persona(s)
    }),
    spoken(
        "activate [the] persona NAME",
        "activate persona NAME",
        |p, s| p.activate_persona(s),
    ),
    spoken("revert to [the] previous|last persona", "revert", |_, _| {
        Action::Revert
    }),
    spoken(
        "send a|an alert|notification|notice \"TEXT\"",
        "notify \"TEXT\"",
        |p, s| Action::Notify(p.notice(&s[0])),
    ),
    spoken("alert \"TEXT\"", "notify \"TEXT\"", |p, s| {
        Action::Notify(p.notice(&s[0]))
    }),
    spoken(
        "notify people|administrators|operators \"TEXT\"",
        "notify \"TEXT\"",
        |p, s| Action::Notify(p.notice(&s[0])),
    ),
    spoken(
        "call|trigger [the] webhook NAME",
        "call webhook NAME",
        |p, s| Action::CallWebhook(p.name(&s[0], "a webhook")),
    ),
];

/// Comparisons in words; where one begins like another, the longer stands first.
pub(super) const COMPARISONS: [(&str, Comparison); 28] = [
    ("is greater than", Comparison::Greater),
    ("is more than", Comparison::Greater),
    ("is above", Comparison::Greater),
    ("is over", Comparison::Greater),
    ("greater than", Comparison::Greater),
    ("more than", Comparison::Greater),
    ("rises above", Comparison::Greater),
    ("exceeds", Comparison::Greater),
    ("above", Comparison::Greater),
    ("over", Comparison::Greater),
    ("is at least", Comparison::GreaterOrEqual),
    ("at least", Comparison::GreaterOrEqual),
    ("reaches", Comparison::GreaterOrEqual),
    ("is less than", Comparison::Less),
    ("is below", Comparison::Less),
    ("is under", Comparison::Less),
    ("less than", Comparison::Less),
    ("drops below", Comparison::Less),
    ("falls below", Comparison::Less),
    ("below", Comparison::Less),
    ("under", Comparison::Less),
    ("is at most", Comparison::LessOrEqual),
    ("at most", Comparison::LessOrEqual),
    ("is not", Comparison::NotEqual),
    ("is equal to", Comparison::Equal),
    ("equals", Comparison::Equal),
    ("is exactly", Comparison::Equal),
    ("is", Comparison::Equal),
];

/// Every comparison in words.
pub(crate) fn comparisons() -> impl Iterator<Item = (&'static str, Comparison)> {
    COMPARISONS.into_iter()
}

/// The comparison with which the words begin, and how many of them it takes.
pub(super) fn comparison<'a>(
    words: impl Iterator<Item = &'a str> + Clone,
) -> Option<(Comparison, usize)> {
    COMPARISONS.iter().find_map(|(spoken, comparison)| {
        let mut words = words.clone();
        let mut length = 0;
        for part in spoken.split(' ') {
            if !words.next()?.eq_ignore_ascii_case(part) {
                return None;
            }
            length += 1;
        }
        Some((*comparison, length))
    })
}

/// Whether a comparison begins with this word, so that it is no unit of the number before it.
pub(super) fn begins_comparison(word: &str) -> bool {
    COMPARISONS.iter().any(|(spoken, _)| {
        let first = spoken.split(' ').next();
        first.is_some_and(|first| first.eq_ignore_ascii_case(word))
    })
}
