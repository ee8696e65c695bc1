//! Rules as canonical text: what [`super::parse`] reads back as the same rule. `explain`, the digest and `--json` use it.

use std::fmt::{self, Display as _};

use super::ast::{
    Action, Arithmetic, Comparison, Condition, Expr, Limit, MemoryAmount, Rule, Value,
};
use super::parse::is_keyword;
use crate::quantity::{Quantity, exact_duration, exact_size};
use crate::signal::Unit;

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IF {} THEN ", self.when)?;
        for (index, action) in self.then.iter().enumerate() {
            write!(f, "{}{action}", if index == 0 { "" } else { ", " })?;
        }
        if let Some(until) = &self.until {
            write!(f, " UNTIL {until}")?;
        }
        write!(
            f,
            " COOLDOWN {} PRIORITY {}",
            exact_duration(self.cooldown),
            self.priority
        )
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expr.fmt(f)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::And(parts) => join(f, parts, " AND ", |part| {
                matches!(part, Self::And(_) | Self::Or(_))
            }),
            Self::Or(parts) => join(f, parts, " OR ", |part| matches!(part, Self::Or(_))),
            Self::Not(inner) if matches!(**inner, Self::And(_) | Self::Or(_) | Self::Not(_)) => {
                write!(f, "NOT ({inner})")
            }
            Self::Not(inner) => write!(f, "NOT {inner}"),
            Self::Compare { left, op, right } => write!(f, "{left} {op} {right}"),
            Self::Between { value, low, high } => write!(f, "{value} BETWEEN {low} AND {high}"),
            Self::Event(event) => event.fmt(f),
            Self::Held { inner, window, .. } => match **inner {
                Self::Compare { .. } | Self::Between { .. } | Self::Event(_) => {
                    write!(f, "{inner} FOR {}", exact_duration(*window))
                }
                _ => write!(f, "({inner}) FOR {}", exact_duration(*window)),
            },
        }
    }
}

fn join(
    f: &mut fmt::Formatter<'_>,
    parts: &[Expr],
    word: &str,
    group: impl Fn(&Expr) -> bool,
) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(word)?;
        }
        if group(part) {
            write!(f, "({part})")?;
        } else {
            part.fmt(f)?;
        }
    }
    Ok(())
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Equal => "==",
            Self::NotEqual => "!=",
        })
    }
}

impl Arithmetic {
    /// How strongly it binds.
    pub(crate) fn strength(self) -> u8 {
        match self {
            Self::Add | Self::Subtract => 1,
            Self::Multiply | Self::Divide => 2,
        }
    }
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
        })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { value, unit } => Quantity {
                value: *value,
                unit: *unit,
            }
            .fmt(f),
            Self::Signal(signal) => signal.fmt(f),
            Self::Function {
                function,
                signal,
                window,
                ..
            } => write!(
                f,
                "{}({signal}, {})",
                function.name(),
                exact_duration(*window)
            ),
            Self::Anomaly(signal) => write!(f, "anomaly({signal})"),
            Self::Predicted { signal, ahead } => {
                write!(f, "predicted({signal}, {})", exact_duration(*ahead))
            }
            Self::Priority { name, .. } => write!(f, "priority_metrics[{name}]"),
            Self::Trust { class, .. } => write!(f, "trust_levels[{class}]"),
            Self::Level(level) => level.fmt(f),
            Self::Negate(inner) => match **inner {
                Self::Negate(_) | Self::Binary { .. } => write!(f, "-({inner})"),
                _ => write!(f, "-{inner}"),
            },
            Self::Binary { left, op, right } => {
                operand(f, left, op.strength())?;
                write!(f, " {op} ")?;
                // Operations of one strength group from the left, so an equal one on the right needs its parentheses.
                operand(f, right, op.strength() + 1)
            }
        }
    }
}

fn operand(f: &mut fmt::Formatter<'_>, value: &Value, at_least: u8) -> fmt::Result {
    match value {
        Value::Binary { op, .. } if op.strength() < at_least => write!(f, "({value})"),
        _ => value.fmt(f),
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetVcpus(count) => write!(f, "set vcpus to {count}"),
            Self::AddVcpus(count) => write!(f, "add {count} vcpus"),
            Self::RemoveVcpus(count) => write!(f, "remove {count} vcpus"),
            Self::SetMemory(size) => write!(f, "set memory to {}", exact_size(*size)),
            Self::AddMemory(amount) => write!(f, "add {amount} memory"),
            Self::RemoveMemory(amount) => write!(f, "remove {amount} memory"),
            Self::SetLimit(limit) => write!(f, "set {limit}"),
            Self::EnableFeature(name) => write!(f, "enable feature {}", Name(name)),
            Self::DisableFeature(name) => write!(f, "disable feature {}", Name(name)),
            Self::Run(name) => write!(f, "run {}", Name(name)),
            Self::Respond(name) => write!(f, "respond {}", Name(name)),
            Self::Apply { key, value } => {
                write!(f, "apply {key} = ")?;
                quoted(f, value)
            }
            Self::InstallPackage(name) => write!(f, "install package {}", Name(name)),
            Self::RemovePackage(name) => write!(f, "remove package {}", Name(name)),
            Self::BlockAddresses { source } => addresses(f, "block", source),
            Self::UnblockAddresses { source } => addresses(f, "unblock", source),
            Self::Isolate => f.write_str("isolate"),
            Self::Restore => f.write_str("restore"),
            Self::Redirect { port, host, to } if host.contains(':') => {
                write!(f, "redirect port {port} to [{host}]:{to}")
            }
            Self::Redirect { port, host, to } => write!(f, "redirect port {port} to {host}:{to}"),
            Self::ActivatePersona(name) => write!(f, "activate persona {}", Name(name.as_str())),
            Self::Revert => f.write_str("revert"),
            Self::Notify(text) => {
                f.write_str("notify ")?;
                quoted(f, text)
            }
            Self::CallWebhook(name) => write!(f, "call webhook {}", Name(name)),
        }
    }
}

/// A name as it reads back: one that is also a word of the language stands in quotes.
struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A point at the end of a rule is that of the sentence.
        if is_keyword(self.0) || self.0.ends_with('.') {
            quoted(f, self.0)
        } else {
            f.write_str(self.0)
        }
    }
}

fn addresses(f: &mut fmt::Formatter<'_>, verb: &str, source: &str) -> fmt::Result {
    if source.is_empty() {
        write!(f, "{verb} addresses")
    } else {
        write!(f, "{verb} addresses from {}", Name(source))
    }
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            f.write_str("\\")?;
        }
        write!(f, "{c}")?;
    }
    f.write_str("\"")
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quantity = |value, unit| Quantity { value, unit };
        match self {
            Self::NetworkBandwidth(rate) => write!(
                f,
                "network bandwidth to {}",
                quantity(*rate, Unit::BitsPerSecond)
            ),
            Self::DiskIops(rate) => write!(f, "disk iops to {}", quantity(*rate, Unit::PerSecond)),
            Self::DiskBandwidth(rate) => write!(
                f,
                "disk bandwidth to {}",
                quantity(*rate, Unit::BytesPerSecond)
            ),
            Self::CpuWeight(weight) => write!(f, "cpu weight to {weight}"),
            Self::CpuCap(percent) => write!(f, "cpu cap to {percent}%"),
        }
    }
}

impl fmt::Display for MemoryAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => exact_size(*size).fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}
