//! The kernel's own notices of devices, over netlink (NETLINK_KOBJECT_UEVENT): ports that appear, CPUs that are plugged and
//! unplugged. The channel waits on this socket instead of looking again and again.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, socket,
    },
};

/// The multicast group of the kernel; udev re-sends in group 2.
const KERNEL_GROUP: u32 = 1;

/// A notice that concerns the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Uevent {
    /// A virtio-serial port appeared.
    PortAdded,
    /// A CPU was plugged.
    CpuAdded(u32),
    /// A CPU was unplugged.
    CpuRemoved(u32),
    /// Notices were lost; a port may have appeared.
    Overrun,
}

/// The socket.
#[derive(Debug)]
pub(crate) struct Uevents {
    socket: OwnedFd,
}

impl Uevents {
    /// Listens from now on.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            flags,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Self { socket })
    }

    /// The next notice that concerns the agent; `None` when all are read.
    pub(crate) fn next(&mut self) -> io::Result<Option<Uevent>> {
        let mut buffer = [0; 8192];
        loop {
            match recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                // Only the kernel has the port id 0; another sender is a process of the guest.
                Ok((length, Some(sender))) if sender.pid() == 0 => {
                    if let Some(uevent) = parse(&buffer[..length]) {
                        return Ok(Some(uevent));
                    }
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::ENOBUFS) => return Ok(Some(Uevent::Overrun)),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn parse(message: &[u8]) -> Option<Uevent> {
    let mut fields = message
        .split(|byte| *byte == 0)
        .filter_map(|field| std::str::from_utf8(field).ok());
    let (action, path) = fields.next()?.split_once('@')?;
    let mut subsystem = "";
    for field in fields {
        // `udevadm trigger` makes the kernel repeat notices for devices that are no news; they carry this mark.
        if field.starts_with("SYNTH_UUID=") {
            return None;
        }
        subsystem = field.strip_prefix("SUBSYSTEM=").unwrap_or(subsystem);
    }
    let cpu = || path.rsplit_once("/cpu")?.1.parse().ok();
    match (subsystem, action) {
        ("virtio-ports", "add") => Some(Uevent::PortAdded),
        ("cpu", "add") => cpu().map(Uevent::CpuAdded),
        ("cpu", "remove") => cpu().map(Uevent::CpuRemoved),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &str, expected: Option<Uevent>) {
        assert_eq!(
            parse(message.replace(' ', "\0").as_bytes()),
            expected,
            "{message}"
        );
    }

    #[test]
    fn notices_of_ports_and_cpus_are_understood() {
        let cpu = "/devices/system/cpu/cpu12";
        check(
            &format!("add@{cpu} ACTION=add DEVPATH={cpu} SUBSYSTEM=cpu SEQNUM=7"),
            Some(Uevent::CpuAdded(12)),
        );
        check(
            &format!("remove@{cpu} ACTION=remove SUBSYSTEM=cpu"),
            Some(Uevent::CpuRemoved(12)),
        );
        check(
            "add@/devices/virtual/vport1p2 ACTION=add SUBSYSTEM=virtio-ports",
            Some(Uevent::PortAdded),
        );
    }

    #[test]
    fn repeated_foreign_and_broken_notices_are_none() {
        check(
            "add@/devices/system/cpu/cpu1 ACTION=add SUBSYSTEM=cpu SYNTH_UUID=0",
            None,
        );
        check(
            "offline@/devices/system/cpu/cpu1 ACTION=offline SUBSYSTEM=cpu",
            None,
        );
        check("add@/devices/system/cpu/cpux SUBSYSTEM=cpu", None);
        check("add@/class/net/eth0 SUBSYSTEM=net", None);
        check("libudev", None);
    }

    #[test]
    fn the_socket_opens_and_is_quiet() {
        assert!(Uevents::open().unwrap().next().is_ok());
    }
}
