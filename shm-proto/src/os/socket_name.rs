//! The name of a Unix socket, which stays in the file system when the socket is gone.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

/// Whether a process still has the socket of this name, of whatever kind.
///
/// A datagram socket asks, so that no queue gets a connection: a service manager that keeps the socket would start its service.
///
/// # Errors
/// What the system says, for example that this user may not use the socket.
pub fn is_in_use(path: &Path) -> io::Result<bool> {
    let probe = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path)?) {
        // Of a socket of another kind the kernel says no more than that it is there.
        Ok(()) | Err(Errno::EPROTOTYPE) => Ok(true),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;
    use shm_test_support::TempDir;

    #[test]
    fn a_name_is_in_use_while_its_socket_is_open_and_the_question_leaves_no_trace() {
        let dir = TempDir::new();
        let (stream, datagrams) = (dir.join("stream"), dir.join("datagrams"));
        assert!(!is_in_use(&stream).unwrap(), "there is no such name");
        let listener = UnixListener::bind(&stream).unwrap();
        let other = UnixDatagram::bind(&datagrams).unwrap();
        assert!(is_in_use(&stream).unwrap() && is_in_use(&datagrams).unwrap());
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop((listener, other));
        assert!(!is_in_use(&stream).unwrap() && !is_in_use(&datagrams).unwrap());
        assert!(stream.exists());
    }
}
