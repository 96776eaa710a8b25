//! The socket of a source's client. Descriptors that the client sends are no messages: they are closed, and nobody waits for that.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{setsockopt, sockopt};
use shm_proto::internal::framing::input::Input;
use shm_proto::internal::os::hang_up::hang_up;
use shm_proto::internal::os::unread::readable_bytes;
use shm_proto::internal::os::{closing, fds};

/// A nonblocking socket.
#[derive(Debug)]
pub(super) struct ClientSocket(OwnedFd);

impl ClientSocket {
    pub(super) fn new(socket: OwnedFd) -> Self {
        // Where this is not possible, there is nothing out of band either.
        let _ = setsockopt(&socket, sockopt::OobInline, &true);
        Self(socket)
    }

    /// Receives bytes, or one packet, without waiting.
    ///
    /// # Errors
    /// What the system says; `InvalidData` if more descriptors came than anybody sends by mistake.
    pub(super) fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut sent = Vec::new();
        let received = fds::receive(self.0.as_fd(), into, &mut sent, false);
        closing::close(sent);
        received
    }
}

impl AsFd for ClientSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Read for &ClientSocket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.receive(into)
    }
}

impl Input for &ClientSocket {
    fn readable(&self) -> Option<usize> {
        readable_bytes(self.0.as_fd()).ok()
    }
}

impl Drop for ClientSocket {
    fn drop(&mut self) {
        hang_up(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    #[test]
    fn descriptors_are_closed_and_bytes_are_received() {
        for kind in [SockType::Stream, SockType::SeqPacket] {
            let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
            let socket = ClientSocket::new(ours);
            let (reader, writer) = nix::unistd::pipe().unwrap();
            fds::send(theirs.as_fd(), b"message", &[writer.as_fd(); 2]).unwrap();
            drop(writer);
            let mut bytes = [0; 16];
            assert_eq!((socket.receive(&mut bytes).unwrap(), &bytes[..7]), (7, &b"message"[..]));
            assert_eq!(File::from(reader).read(&mut [0]).unwrap(), 0, "no writing end is left open");
            assert_eq!(socket.receive(&mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }
}
