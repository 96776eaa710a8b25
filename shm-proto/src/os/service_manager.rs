//! Telling systemd how a service is doing: `sd_notify(3)`, a datagram to the socket that `NOTIFY_SOCKET` names.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use log::{debug, warn};

/// systemd reads its socket all the time. If it does not, nobody waits for it.
const SEND: Duration = Duration::from_millis(500);

/// The service manager.
#[derive(Debug)]
pub struct ServiceManager {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl ServiceManager {
    /// The manager that the environment names, if it names one.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
        Self::at(&name).map_err(|e| warn!("cannot notify the service manager: NOTIFY_SOCKET {name:?}: {e}")).ok()
    }

    /// The manager whose socket has this name. A leading `@` stands for the zero byte of an abstract name.
    ///
    /// # Errors
    /// What is wrong with the name, or that the system gives no socket.
    pub fn at(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND))?;
        Ok(Self { socket, address })
    }

    /// Sends lines such as `READY=1`. A manager that does not listen changes nothing.
    pub fn send(&self, lines: &str) {
        if let Err(e) = self.socket.send_to_addr(lines.as_bytes(), &self.address) {
            debug!("the service manager could not be notified of {lines:?}: {e}");
        }
    }
}
