//! A listening Unix socket: its name, and who may come in. What clients send is in [`clients`](super::clients).
//!
//! Everybody who gets into the directory may connect, as to the control socket; each client is let in or not by what the
//! kernel says about it: the daemon's user, root, and whom the channel's `write` names.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use shm_proto::internal::os::peer::refuse_descriptors;
use shm_proto::internal::os::socket_name::is_in_use;
use shm_proto::{Error, Result};

use super::file_id::{Made, Place, wrong_kind};
use crate::closing;
use crate::config::Packets;
use crate::handover::Parcel;
use crate::operation_log::{LogEvent, operation};

/// The socket; its name is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    /// Not waiting. Of either kind: what std calls a stream here may keep packets apart.
    pub(super) listener: UnixListener,
    made: Made,
}

impl Listener {
    /// Listens at `path`. A socket there on which no program listens was left by a killed daemon, and is replaced.
    ///
    /// # Errors
    /// If a program listens there, if the path is not a socket, and if the system refuses.
    pub(super) fn bind(path: &Path, packets: Packets) -> Result<Self> {
        let failed = |what: &str, e: Errno| Error::system(format!("{what} the socket {}", path.display()), e);
        make_way(path)?;
        let kind = match packets {
            Packets::Joined => SockType::Stream,
            Packets::Kept => SockType::SeqPacket,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, kind, flags, None).map_err(|e| failed("make", e))?;
        let address = UnixAddr::new(path).map_err(|e| failed("name", e))?;
        bind(fd.as_raw_fd(), &address).map_err(|e| failed("bind", e))?;
        let io_failed = |e| Error::system(format!("prepare the socket {}", path.display()), e);
        let made = Made::at(path).map_err(io_failed)?;
        // Before anybody can connect.
        made.set_mode(0o666).map_err(io_failed)?;
        refuse_descriptors(fd.as_fd());
        listen(&fd, Backlog::new(128).unwrap_or(Backlog::MAXCONN)).map_err(|e| failed("listen at", e))?;
        Ok(Self { listener: UnixListener::from(fd), made })
    }

    /// One that the program before this one has made.
    pub(super) fn known(listener: OwnedFd, place: Place) -> Self {
        Self { listener: UnixListener::from(listener), made: Made::by_program_before(place) }
    }

    /// For the next program.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(super) fn pack(&self, parcel: &mut Parcel) -> io::Result<(i32, Place)> {
        Ok((parcel.fd(&self.listener)?, self.made.place()))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        closing::listener(&self.listener);
    }
}

fn make_way(path: &Path) -> Result<()> {
    let failed = |what: &str, e: io::Error| Error::system(format!("{what} {}", path.display()), e);
    let found = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|e| failed("look at", e))?,
    };
    if !found.file_type().is_socket() {
        return Err(wrong_kind(path, found.file_type(), "a socket"));
    }
    if is_in_use(path).map_err(|e| failed("find out whether a program listens on", e))? {
        let reason = "another program listens on it; stop that program, or name another path";
        return Err(Error::system(path.display().to_string(), io::Error::other(reason)));
    }
    match fs::remove_file(path) {
        // Gone in between.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed.map_err(|e| failed("remove the stale socket", e))?,
    }
    operation(LogEvent::Replace).text("socket", path.display()).reason("no program listens on it").warn();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;
    use shm_test_support::TempDir;

    #[test]
    fn a_socket_is_there_for_everybody_while_it_is_listened_at() {
        let dir = TempDir::new();
        let path = dir.path().join("s");
        let bound = Listener::bind(&path, Packets::Joined).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        UnixStream::connect(&path).unwrap();
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_of_any_kind_is_not() {
        let dir = TempDir::new();
        let path = dir.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let bound = Listener::bind(&path, Packets::Kept).unwrap();
        for packets in [Packets::Joined, Packets::Kept] {
            let refused = Listener::bind(&path, packets).unwrap_err().to_string();
            assert!(refused.contains("another program listens on it"), "{refused}");
        }
        drop(bound);
        let _datagrams = UnixDatagram::bind(&path).unwrap();
        assert!(Listener::bind(&path, Packets::Joined).is_err());
        assert!(path.exists());
    }

    #[test]
    fn what_is_no_socket_is_refused_and_stays() {
        let dir = TempDir::new();
        let path = dir.path().join("s");
        fs::write(&path, "mine").unwrap();
        let refused = Listener::bind(&path, Packets::Joined).unwrap_err().to_string();
        assert!(refused.contains("it is a regular file and not a socket; remove it"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        let refused = Listener::bind(dir.path(), Packets::Joined).unwrap_err().to_string();
        assert!(refused.contains("it is a directory"), "{refused}");
    }
}
