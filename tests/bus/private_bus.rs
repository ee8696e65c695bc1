//! A dbus-daemon of the test's own that is as strict as the system bus: nothing may be owned or called that a policy
//! does not allow, and the policies are those that are installed.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use virt_persona::bus::BusChoice;

use crate::repository;

/// A user that is nobody's administrator, on every Unix.
pub(crate) const NOBODY: u32 = 65534;

/// The bus; it ends with this value.
pub(crate) struct PrivateBus {
    folder: TempDir,
    daemon: Child,
    address: String,
}

impl PrivateBus {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further policies.
    pub(crate) fn start_with(policies: &[&Path]) -> Self {
        // Other users of the test must reach the socket.
        let folder = tempfile::Builder::new()
            .prefix("virt-persona-bus-")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("a folder for the bus");
        let socket = folder.path().join("socket");
        let ours = repository("dbus/org.virtpersona1.conf");
        let includes: String = std::iter::once(ours.as_path())
            .chain(policies.iter().copied())
            .map(|path| format!("  <include>{}</include>\n", path.display()))
            .collect();
        let config = folder.path().join("bus.conf");
        std::fs::write(
            &config,
            format!(
                r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
{includes}</busconfig>
"#,
                socket.display()
            ),
        )
        .expect("the bus's configuration");
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile", "--print-address=1"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon; the package dbus-daemon (or dbus) has it");
        let mut line = String::new();
        BufReader::new(daemon.stdout.take().expect("its output"))
            .read_line(&mut line)
            .expect("its address");
        let address = line.trim().to_owned();
        assert!(!address.is_empty(), "the bus did not start");
        Self {
            folder,
            daemon,
            address,
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn choice(&self) -> BusChoice {
        BusChoice::Address(self.address.clone())
    }

    /// A folder that every user can read, which ends with the bus.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// A client's connection.
    pub(crate) async fn connect(&self) -> zbus::Connection {
        zbus::connection::Builder::address(self.address.as_str())
            .build()
            .await
            .expect("a connection to the private bus")
    }
}

impl Drop for PrivateBus {
    fn drop(&mut self) {
        // It may have ended already; a test that cares asks it itself.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
