//! Telling systemd how the relay is doing: `sd_notify(3)`, a datagram to the socket that `NOTIFY_SOCKET` names.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use log::{debug, warn};

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
}

impl Notifier {
    /// The manager that the environment names.
    pub(crate) fn from_env() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self::default();
        };
        match open(&name) {
            Ok(to) => Notifier { to: Some(to) },
            Err(e) => {
                warn!("cannot notify the service manager: NOTIFY_SOCKET {name:?}: {e}");
                Self::default()
            }
        }
    }

    /// Sends lines such as `READY=1`. A manager that does not listen is not waited for.
    pub(crate) fn send(&self, text: &str) {
        if let Some((socket, to)) = &self.to
            && let Err(e) = socket.send_to_addr(text.as_bytes(), to)
        {
            debug!("cannot notify the service manager: {e}");
        }
    }
}

fn open(name: &OsStr) -> std::io::Result<(UnixDatagram, SocketAddr)> {
    let to = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, to))
}
