//! Round trips to other machines: the time that a TCP connection takes to the targets that the guest's owner names in
//! `agent.toml`, or without any an ICMP echo to the default gateway. Nothing is sent over a connection. Called by `survey`,
//! whose thread may wait.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    time::{Duration, Instant},
};

use agent_protocol::NetworkFigures;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use serde::Deserialize;

use crate::policy::Leave;

/// Targets that are tried, one after the other.
pub(crate) const TARGETS_MAX: usize = 4;
/// How long an answer is waited for. A target that gives none counts as this far away.
const PATIENCE: Duration = Duration::from_secs(2);

/// The table `[probe]` of `agent.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Probes {
    /// Addresses with a port; `None` for the default gateway, and an empty list for no probe at all.
    pub(crate) targets: Option<Targets>,
}

impl Probes {
    /// Whether anything is to be probed at all.
    pub(crate) fn leave(&self) -> Leave {
        match &self.targets {
            Some(Targets(targets)) => Leave::from(!targets.is_empty()),
            None => Leave::Granted,
        }
    }
}

/// At most [`TARGETS_MAX`] of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<SocketAddr>")]
pub(crate) struct Targets(Vec<SocketAddr>);

impl TryFrom<Vec<SocketAddr>> for Targets {
    type Error = String;

    fn try_from(targets: Vec<SocketAddr>) -> Result<Self, String> {
        if targets.len() > TARGETS_MAX {
            return Err(format!("there are {TARGETS_MAX} targets of probes at most"));
        }
        Ok(Self(targets))
    }
}

/// The slowest of the round trips; no figure where none could be tried.
pub(super) fn look(root: &Path, probes: &Probes) -> NetworkFigures {
    let slowest = match &probes.targets {
        Some(Targets(targets)) => targets.iter().filter_map(connect).max(),
        None => gateway(root).and_then(|gateway| echo(gateway).ok()),
    };
    NetworkFigures {
        age_ms: 0,
        round_trip_us: slowest.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
    }
}

/// A refusal has made the way there and back, too. Where the way there is not known there is no figure.
fn connect(target: &SocketAddr) -> Option<Duration> {
    let began = Instant::now();
    match TcpStream::connect_timeout(target, PATIENCE) {
        Ok(_) => Some(began.elapsed()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Some(began.elapsed()),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Some(PATIENCE),
        Err(_) => None,
    }
}

/// The default gateway of IPv4 (`/proc/net/route`), which has the fewest hops.
fn gateway(root: &Path) -> Option<Ipv4Addr> {
    let table = fs::read_to_string(root.join("proc/net/route")).ok()?;
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().take(8).collect();
        let [_, destination, gateway, flags, _, _, metric, mask] = fields[..] else {
            return None;
        };
        let up_by_gateway = u16::from_str_radix(flags, 16).ok()? & 3 == 3;
        if destination != "00000000" || mask != "00000000" || !up_by_gateway {
            return None;
        }
        // The kernel prints the four bytes of the address as one number of this machine.
        let gateway = u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes();
        Some((metric.parse::<u32>().ok()?, Ipv4Addr::from(gateway)))
    });
    routes.min().map(|(_, gateway)| gateway)
}

/// One ICMP echo. A gateway may leave it unanswered for ever, so silence is no figure here.
fn echo(to: Ipv4Addr) -> io::Result<Duration> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Icmp,
    )?;
    // It is sent and received through like one for datagrams, whose calls the standard library has.
    let socket = UdpSocket::from(socket);
    let began = Instant::now();
    // Tells our answer from those of others.
    let nanos = super::boot_time().subsec_nanos();
    let sent = request(u64::from(std::process::id()) << 32 | u64::from(nanos));
    socket.send_to(&sent, (to, 0))?;
    let mut bytes = [0; 256];
    // A wait of zero would be for ever, and there is none.
    while let Some(left) = PATIENCE
        .checked_sub(began.elapsed())
        .filter(|left| !left.is_zero())
    {
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut bytes)?;
        if answered(&bytes[..length], &sent) {
            return Ok(began.elapsed());
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// An echo request of 16 bytes (RFC 792).
fn request(mark: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = 8;
    let mark = mark.to_be_bytes();
    bytes[4..6].copy_from_slice(&mark[2..4]);
    bytes[8..].copy_from_slice(&mark);
    let sum = bytes.chunks_exact(2).fold(0_u32, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], pair[1]]))
    });
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    // Folded twice it has 16 bits.
    let sum = !u16::try_from(sum).unwrap_or(0);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Whether a packet, with its IP header, is the answer to a request.
fn answered(packet: &[u8], request: &[u8; 16]) -> bool {
    let header = packet
        .first()
        .map_or(0, |first| usize::from(first & 15) * 4);
    let Some(reply) = packet.get(header..).filter(|reply| reply.len() >= 16) else {
        return false;
    };
    reply[0] == 0 && reply[4..16] == request[4..16]
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_default_gateway_with_the_least_metric_is_found() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/net")).unwrap();
        let hex = |address: Ipv4Addr| format!("{:08X}", u32::from_ne_bytes(address.octets()));
        let (near, far) = (Ipv4Addr::new(10, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 1));
        let table = format!(
            "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
             eth1 00000000 {} 0003 0 0 200 00000000 0 0 0\n\
             eth0 00000000 {} 0003 0 0 100 00000000 0 0 0\n\
             eth2 00000000 00000000 0001 0 0 1 00000000 0 0 0\n\
             eth0 0002000A 00000000 0001 0 0 100 00FFFFFF 0 0 0\nbroken\n",
            hex(far),
            hex(near)
        );
        fs::write(root.path().join("proc/net/route"), table).unwrap();
        assert_eq!(gateway(root.path()), Some(near));
    }

    #[test]
    fn an_answer_is_told_from_those_of_others() {
        let sent = request(0x1234_5678_9abc_def0);
        let words = sent.chunks_exact(2);
        let sum: u32 = words
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the sum is whole");
        let mut packet = vec![0x45; 20];
        packet.extend_from_slice(&sent);
        assert!(!answered(&packet, &sent), "a request is no answer");
        packet[20] = 0;
        assert!(answered(&packet, &sent));
        packet[30] ^= 1;
        assert!(!answered(&packet, &sent));
        for short in [&[][..], &[0x4f; 20], &packet[..30]] {
            assert!(!answered(short, &sent));
        }
    }

    #[test]
    fn a_target_that_answers_or_refuses_is_measured() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let probes = |targets: Vec<SocketAddr>| Probes {
            targets: Some(Targets::try_from(targets).unwrap()),
        };
        let root = Path::new("/not-looked-at");
        assert!(look(root, &probes(vec![address])).round_trip_us.is_some());
        drop(listener);
        assert!(connect(&address).is_some(), "a refusal came back");
        assert_eq!(look(root, &probes(Vec::new())).round_trip_us, None);
        assert!(Targets::try_from(vec![address; TARGETS_MAX + 1]).is_err());
    }
}
