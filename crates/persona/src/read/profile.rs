//! What a machine is expected to need, allow, last and cost.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Reader;
use crate::document::Node;
use crate::language::{self, Table, time_of_day};
use crate::limits;
use crate::model::{
    CostTolerance, Endpoint, LifecycleExpectations, Need, PerformancePoint, Protocol,
    SecurityProfile,
};
use crate::problem::Kind;
use crate::signal::Unit;

/// Which way connections go.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    In,
    Out,
}

impl Way {
    fn key(self) -> &'static str {
        match self {
            Self::In => "ingress",
            Self::Out => "egress",
        }
    }

    fn preposition(self) -> &'static str {
        match self {
            Self::In => "from",
            Self::Out => "to",
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::In => "tcp/443 from 0.0.0.0/0",
            Self::Out => "udp/53 to 10.0.0.0/8",
        }
    }
}

impl Reader<'_> {
    /// The points of a profile by time of day.
    pub(super) fn performance_profile(&mut self, node: &Node) -> Vec<PerformancePoint> {
        let mut found: Vec<PerformancePoint> = Vec::new();
        for item in self.items(node, "performance_profile", "points", limits::MOST_POINTS) {
            let Some(fields) = self.fields(item, &language::POINT) else {
                continue;
            };
            if !fields.has("at") {
                let help = "write the time of day, such as `at: \"08:00\"`";
                self.missing(item, "the point", "at", Some(help));
            }
            let at = fields.get("at").and_then(|node| self.time(node));
            let cpu = fields.get("cpu").and_then(|node| {
                let most = f64::from(limits::MOST_VCPUS);
                self.need(node, &language::CPU_NEED, |reader, node, key| {
                    reader.number(node, key, most)
                })
            });
            let memory = fields
                .get("memory")
                .and_then(|node| self.need(node, &language::MEMORY_NEED, Self::memory));
            let iops = fields.get("iops").and_then(|node| {
                self.need(node, &language::REQUEST_NEED, |reader, node, key| {
                    reader.ranged(node, key, &limits::DISK_IOPS)
                })
            });
            let network = fields.get("network").and_then(|node| {
                self.need(node, &language::RATE_NEED, |reader, node, key| {
                    reader.ranged(node, key, &limits::NETWORK_BANDWIDTH)
                })
            });
            let Some(at) = at else { continue };
            if found.iter().any(|other| other.at == at) {
                let node = fields.get("at").unwrap_or(item);
                let time = node.scalar().unwrap_or_default();
                let message = format!("there is a point at {time} already");
                self.report(Kind::Duplicate, node, message, None);
                continue;
            }
            found.push(PerformancePoint {
                at,
                cpu,
                memory,
                iops,
                network,
            });
        }
        found.sort_by_key(|point| point.at);
        found
    }

    fn time(&mut self, node: &Node) -> Option<u16> {
        let text = self.text_of(node, "at", limits::LONGEST_LINE)?;
        let found = time_of_day(&text);
        if found.is_none() {
            let message = format!("`{text}` is no time of day");
            let help = Some("write hours and minutes in quotes, such as `\"08:00\"`".to_owned());
            self.report(Kind::OutOfRange, node, message, help);
        }
        found
    }

    fn need<T: Copy + PartialOrd>(
        &mut self,
        node: &Node,
        table: &'static Table,
        read: impl Fn(&mut Self, &Node, &str) -> Option<T>,
    ) -> Option<Need<T>> {
        let fields = self.fields(node, table)?;
        let mut value = |key: &'static str| {
            let node = fields.get(key)?;
            read(self, node, fields.shown(key))
        };
        let (peak, average) = (value("peak"), value("average"));
        let sustained = value("sustained");
        for (key, low) in [("average", average), ("sustained", sustained)] {
            if let (Some(low), Some(peak), Some(at)) = (low, peak, fields.get(key))
                && low > peak
            {
                let low = at.scalar().unwrap_or_default();
                let peak = fields.get("peak").and_then(Node::scalar);
                let peak = peak.unwrap_or_default();
                let message = format!("`{key}` ({low}) is above `peak` ({peak})");
                self.report(Kind::Contradiction, at, message, None);
            }
        }
        Some(Need {
            peak,
            average,
            sustained,
        })
    }

    pub(super) fn security(&mut self, node: &Node) -> Option<SecurityProfile> {
        let fields = self.fields(node, &language::SECURITY)?;
        let mut lines = |key: &str| {
            fields
                .get(key)
                .map_or_else(Vec::new, |node| self.lines(node, key, limits::MOST_WORDS))
        };
        let (access_levels, compliance) = (lines("access_levels"), lines("compliance"));
        let data_sensitivity = fields
            .get("data_sensitivity")
            .and_then(|node| self.line_of(node, "data_sensitivity", limits::LONGEST_LINE));
        let mut endpoints = |way: Way| fields.get(way.key()).map(|node| self.endpoints(node, way));
        Some(SecurityProfile {
            access_levels,
            data_sensitivity,
            compliance,
            ingress: endpoints(Way::In),
            egress: endpoints(Way::Out),
        })
    }

    fn endpoints(&mut self, node: &Node, way: Way) -> Vec<Endpoint> {
        let items = self.items(node, way.key(), "connections", limits::MOST_ENDPOINTS);
        let mut found = Vec::new();
        for item in items {
            let Some(text) = self.line_of(item, way.key(), limits::LONGEST_LINE) else {
                continue;
            };
            match endpoint(&text, way) {
                Ok(endpoint) => found.push(endpoint),
                Err(message) => {
                    let help = Some(format!("write it as `{}`", way.example()));
                    self.report(Kind::OutOfRange, item, message, help);
                }
            }
        }
        found
    }

    pub(super) fn lifecycle(&mut self, node: &Node) -> Option<LifecycleExpectations> {
        let fields = self.fields(node, &language::LIFECYCLE)?;
        let uptime = fields.get("uptime").and_then(|node| {
            let value = self.quantity(node, "uptime", &[Unit::Percent], "99.9%")?;
            if value > 100.0 {
                let found = node.scalar().unwrap_or_default();
                let message = format!("`uptime` of {found} is out of range; it is 0% to 100%");
                self.report(Kind::OutOfRange, node, message, None);
                return None;
            }
            Some(value)
        });
        let duration = fields
            .get("duration")
            .and_then(|node| self.life(node, "duration"));
        let scaling = fields
            .get("scaling")
            .and_then(|node| self.choice(node, "scaling", language::SCALING));
        Some(LifecycleExpectations {
            uptime,
            duration,
            scaling,
        })
    }

    pub(super) fn cost(&mut self, node: &Node) -> Option<CostTolerance> {
        let fields = self.fields(node, &language::COST)?;
        let mut cost = |key: &str| {
            let node = fields.get(key)?;
            self.number(node, key, limits::LARGEST_NUMBER)
        };
        let (max_hourly, max_monthly) = (cost("max_hourly"), cost("max_monthly"));
        let currency = fields.get("currency").and_then(|node| {
            let text = self.line_of(node, "currency", limits::LONGEST_LINE)?;
            let letters = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
            if !letters {
                let message = format!("`{text}` is no currency");
                let help = Some("write its three letters, such as `EUR` (ISO 4217)".to_owned());
                self.report(Kind::OutOfRange, node, message, help);
                return None;
            }
            Some(text.to_ascii_uppercase())
        });
        Some(CostTolerance {
            max_hourly,
            max_monthly,
            currency,
        })
    }
}

/// `tcp/443 from 0.0.0.0/0`, `udp/1000-2000`, `any`.
fn endpoint(text: &str, way: Way) -> Result<Endpoint, String> {
    let mut words = text.split_whitespace();
    let what = words.next().unwrap_or_default().to_ascii_lowercase();
    let (name, ports) = match what.split_once('/') {
        Some((name, ports)) => (name, Some(ports)),
        None => (what.as_str(), None),
    };
    let protocol = match name {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        "icmp" => Protocol::Icmp,
        "any" => Protocol::Any,
        _ => {
            return Err(format!(
                "`{name}` is no protocol; there are tcp, udp, sctp, icmp, any"
            ));
        }
    };
    let ports = match ports {
        None => None,
        Some(_) if matches!(protocol, Protocol::Icmp | Protocol::Any) => {
            return Err(format!("`{name}` has no ports"));
        }
        Some(ports) => Some(port_range(ports)?),
    };
    let network = match (words.next(), words.next()) {
        (None, _) => None,
        (Some(word), Some(network)) if word.eq_ignore_ascii_case(way.preposition()) => {
            Some(network_of(network)?)
        }
        (Some(word), _) => {
            let (wanted, key) = (way.preposition(), way.key());
            return Err(format!(
                "expected `{wanted}` and a network, because this is {key}, found `{word}`"
            ));
        }
    };
    match words.next() {
        Some(word) => Err(format!("`{word}` stands behind the network")),
        None => Ok(Endpoint {
            protocol,
            ports,
            network,
        }),
    }
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|port| digits && *port > 0_u16);
        number.ok_or_else(|| format!("`{text}` is no port; ports are 1 to 65535"))
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    if first > last {
        return Err(format!("the ports `{text}` begin above their end"));
    }
    Ok((first, last))
}

/// A network in CIDR notation, without bits behind its length; an address alone is a network of one.
fn network_of(text: &str) -> Result<String, String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let no_network = || format!("`{text}` is no network");
    let address: IpAddr = address.parse().map_err(|_| no_network())?;
    let most: u8 = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => most,
        Some(length) => length
            .parse()
            .ok()
            .filter(|found| *found <= most && length.bytes().all(|byte| byte.is_ascii_digit()))
            .ok_or_else(no_network)?,
    };
    let network = match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(u32::from(32 - length)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(address) & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(u32::from(128 - length)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(address) & mask))
        }
    };
    if network == address {
        Ok(format!("{network}/{length}"))
    } else {
        Err(format!(
            "`{text}` has bits behind its length; the network is `{network}/{length}`"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_read_with_ports_and_networks() {
        for (text, way, expected) in [
            (
                "tcp/443 from 0.0.0.0/0",
                Way::In,
                "Tcp Some((443, 443)) Some(\"0.0.0.0/0\")",
            ),
            ("UDP/1000-2000", Way::In, "Udp Some((1000, 2000)) None"),
            (
                "udp/53 to 10.0.0.0/8",
                Way::Out,
                "Udp Some((53, 53)) Some(\"10.0.0.0/8\")",
            ),
            ("any", Way::Out, "Any None None"),
            (
                "icmp from fe80::/10",
                Way::In,
                "Icmp None Some(\"fe80::/10\")",
            ),
            (
                "tcp from 192.0.2.7",
                Way::In,
                "Tcp None Some(\"192.0.2.7/32\")",
            ),
            ("tcp from ::/0", Way::In, "Tcp None Some(\"::/0\")"),
        ] {
            let found = endpoint(text, way).unwrap();
            let found = format!("{:?} {:?} {:?}", found.protocol, found.ports, found.network);
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_connection_says_why() {
        for (text, way, expected) in [
            (
                "http/80",
                Way::In,
                "`http` is no protocol; there are tcp, udp, sctp, icmp, any",
            ),
            ("icmp/8", Way::In, "`icmp` has no ports"),
            ("tcp/0", Way::In, "`0` is no port; ports are 1 to 65535"),
            (
                "tcp/99999",
                Way::In,
                "`99999` is no port; ports are 1 to 65535",
            ),
            ("tcp/9-8", Way::In, "the ports `9-8` begin above their end"),
            ("tcp/", Way::In, "`` is no port; ports are 1 to 65535"),
            (
                "tcp/1 to ::/0",
                Way::In,
                "expected `from` and a network, because this is ingress, found `to`",
            ),
            (
                "tcp to 10.0.0.0/33",
                Way::Out,
                "`10.0.0.0/33` is no network",
            ),
            (
                "tcp to example.com",
                Way::Out,
                "`example.com` is no network",
            ),
            (
                "tcp to 10.1.2.3/8",
                Way::Out,
                "`10.1.2.3/8` has bits behind its length; the network is `10.0.0.0/8`",
            ),
            ("tcp to ::/0 x", Way::Out, "`x` stands behind the network"),
        ] {
            assert_eq!(endpoint(text, way).unwrap_err(), expected, "{text}");
        }
    }
}
