//! Ending a connection in which descriptors may lie that a peer has sent and nobody has received: see [`closing`](super::closing).

use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{Shutdown, SockType, getsockopt, shutdown, sockopt};

use super::closing::{self, Sent};
use super::{fds, unread};

/// The most calls to empty a socket: more than a socket holds.
const MOST: usize = 1 << 16;

/// Ends a connection whose descriptor is about to be closed. If this process has a [closer](closing::set_closer), closing the
/// descriptor does not wait for anything that the peer has sent.
pub fn hang_up(socket: impl AsFd) {
    let (Some(closer), socket) = (closing::closer(), socket.as_fd()) else { return };
    // From now on the peer cannot send anything.
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
    if is_empty(socket) {
        return;
    }
    // With the copy, closing the descriptor is not the end of the socket. If there is no descriptor for a copy, there is no other
    // way but to wait.
    if let Ok(copy) = socket.try_clone_to_owned() {
        closer(Box::new(Unread(copy)));
    }
}

/// Whether nothing lies in it. An empty packet does not count as bytes, and may have come with descriptors.
fn is_empty(socket: BorrowedFd<'_>) -> bool {
    getsockopt(&socket, sockopt::SockType) == Ok(SockType::Stream) && unread::readable_bytes(socket) == Ok(0)
}

/// A connection that nobody reads any more.
struct Unread(OwnedFd);

impl Drop for Unread {
    fn drop(&mut self) {
        let mut bytes = [0; 4096];
        for _ in 0..MOST {
            let mut sent = Vec::new();
            let received = fds::receive(self.0.as_fd(), &mut bytes, &mut sent, false);
            drop(Sent(sent));
            match received {
                Ok(0) if is_empty(self.0.as_fd()) => return,
                // Too many at once, which are closed.
                Err(e) if e.kind() == ErrorKind::InvalidData => {}
                Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use nix::sys::socket::{AddressFamily, SockFlag, socketpair};

    use super::*;

    #[test]
    fn a_connection_that_nobody_reads_is_emptied() {
        for kind in [SockType::Stream, SockType::SeqPacket] {
            let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
            let (reader, writer) = nix::unistd::pipe().unwrap();
            for count in [2, 1, fds::MAX_FDS] {
                fds::send(theirs.as_fd(), b"x", &vec![writer.as_fd(); count]).unwrap();
            }
            drop(writer);
            assert!(!is_empty(ours.as_fd()));
            shutdown(ours.as_raw_fd(), Shutdown::Both).unwrap();
            drop(Unread(ours.try_clone().unwrap()));
            assert_eq!(unread::readable_bytes(ours.as_fd()), Ok(0));
            assert_eq!(File::from(reader).read(&mut [0]).unwrap(), 0, "no writing end is left open");
        }
    }
}
