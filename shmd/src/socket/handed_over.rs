//! The socket of `shmd.socket`. systemd makes it, keeps it while there is no daemon, and hands it over to each daemon that it
//! starts. It is taken only if clients find the daemon by it.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt};
use shm_proto::internal::os::inherited::{self, SocketsError};

use super::{Socket, prepare};

/// Why what the service manager has handed over cannot be the control socket.
#[derive(Debug, thiserror::Error)]
#[error("the socket that systemd hands over (LISTEN_FDS): {0}")]
pub(crate) struct Unfit(String);

/// Takes the socket that the service manager has handed over to this process, if there is one.
///
/// # Errors
/// If several sockets are handed over, or if the environment speaks of a socket that is not there.
pub(crate) fn take() -> Result<Option<OwnedFd>, Unfit> {
    let mut sockets = match inherited::sockets() {
        // Variables for another process have come here by inheritance and mean nothing.
        Err(SocketsError::Missing | SocketsError::Foreign { .. }) => return Ok(None),
        Err(e @ (SocketsError::Number(_) | SocketsError::Descriptor(_))) => {
            return Err(Unfit(format!("{e}; start shmd by systemctl start shmd, or unset LISTEN_FDS")));
        }
        Ok(sockets) => sockets,
    };
    match sockets.len() {
        1 => Ok(sockets.pop()),
        count => Err(Unfit(format!(
            "there are {count} sockets, and the daemon takes only one; leave one ListenStream= in shmd.socket"
        ))),
    }
}

impl Socket {
    /// The service manager's socket as the control socket `path`.
    ///
    /// # Errors
    /// If it is not a listening Unix stream socket that is reached by this path.
    pub(crate) fn handed_over(path: PathBuf, fd: OwnedFd) -> Result<Self, Unfit> {
        let listener = checked(&path, fd).map_err(Unfit)?;
        prepare(&listener).map_err(|e| Unfit(e.to_string()))?;
        Ok(Self { listener, path, is_kept: true })
    }
}

fn checked(path: &Path, fd: OwnedFd) -> Result<UnixListener, String> {
    let wanted = path.display();
    let unit = format!("shmd.socket needs ListenStream={wanted}");
    let address: SockaddrStorage = getsockname(fd.as_raw_fd())
        .map_err(|e| format!("descriptor {} is not a socket ({e}); {unit}", fd.as_raw_fd()))?;
    match address.family() {
        Some(AddressFamily::Unix) => {}
        family => return Err(format!("it is not a Unix socket, but of family {family:?}; {unit}")),
    }
    if getsockopt(&fd, sockopt::SockType) != Ok(SockType::Stream) {
        return Err(format!(
            "it is not a stream socket; {unit}, and neither ListenDatagram= nor ListenSequentialPacket="
        ));
    }
    if getsockopt(&fd, sockopt::AcceptConn) != Ok(true) {
        return Err(format!("it does not listen for connections; {unit}, and Accept=no"));
    }
    let listener = UnixListener::from(fd);
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let Some(own) = address.as_pathname() else { return Err(format!("it has no path; {unit}")) };
    if !leads_to(own, path) {
        return Err(format!(
            "it listens on {}, and clients look for this daemon at {wanted} (runtime_dir); {unit}, or change SHMD_RUNTIME_DIR of \
             the service",
            own.display()
        ));
    }
    if !fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        return Err(format!(
            "its name {wanted} was removed, and no client reaches it any more; run systemctl stop shmd.socket shmd.service, then \
             systemctl start shmd.service"
        ));
    }
    Ok(listener)
}

/// Whether both are the same name in the same directory; there are links on the way, such as `/var/run`.
fn leads_to(own: &Path, path: &Path) -> bool {
    let dir = |path: &Path| fs::canonicalize(path.parent().unwrap_or(Path::new("/"))).ok();
    own == path || (own.file_name() == path.file_name() && dir(own).is_some_and(|own| Some(own) == dir(path)))
}
