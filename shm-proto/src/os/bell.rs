//! Wakes a process that waits in `poll` beside other descriptors.
//!
//! A bell is a one-way pair of Unix sockets: the publisher rings one end, the sleeper polls the other. A bell is not an eventfd,
//! because the two sides of an eventfd share one open file: a hostile sleeper could fill the counter, clear `O_NONBLOCK`, and
//! block the publisher in its next write without end. Each end of a socket pair is an open file of its own, and every call passes
//! the flag that it must not wait.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt,
    send, setsockopt, shutdown, socketpair, sockopt,
};

use super::clock;
use super::closing::Sent;
use super::fds;
use super::peer::refuse_descriptors;
use super::poll::{PollFd, PollFlags, poll};
use super::retry;
use crate::error::{ProtocolError, Result, SystemError};

/// One end of a bell: [`ring`](Self::ring) is for the publisher's end, [`drain`](Self::drain) for the sleeper's.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    /// A new bell: the ringing end, for the daemon and (cloned) for the writer, and the descriptor for the sleeper.
    ///
    /// # Errors
    /// [`SystemError`] if there are no descriptors left.
    pub fn new() -> Result<(Self, OwnedFd)> {
        let (ringer, sleeper) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)
                .map_err(|error| SystemError::new("create a bell", error))?;
        // Nobody reads from this end, so a hostile sleeper must not be able to send bytes or descriptors to it.
        shutdown(ringer.as_raw_fd(), Shutdown::Read).map_err(|error| SystemError::new("make a bell one-way", error))?;
        // Nor may a hostile publisher send a descriptor to the sleeper, or out of band, where it would be closed in the next call.
        refuse_descriptors(sleeper.as_fd());
        let _ = setsockopt(&sleeper, sockopt::OobInline, &true);
        Ok((Self(ringer), sleeper))
    }

    /// Either end of a bell, as received from the daemon.
    ///
    /// # Errors
    /// [`ProtocolError::Broken`] when the descriptor is not a connected Unix stream socket.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, ProtocolError> {
        let kind = getsockopt(&fd, sockopt::SockType);
        let family = getsockname::<SockaddrStorage>(fd.as_raw_fd()).ok().and_then(|address| address.family());
        if kind == Ok(SockType::Stream) && family == Some(AddressFamily::Unix) {
            Ok(Self(fd))
        } else {
            Err(ProtocolError::Broken("the descriptor received as a bell is not a Unix stream socket".to_owned()))
        }
    }

    /// Makes the other end readable. Never waits. Neither a bell that is full, which the sleeper will still hear, nor a bell
    /// whose other end is closed is an error.
    pub fn ring(&self) {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let _ = retry(|| send(self.0.as_raw_fd(), &[1], flags));
    }

    /// Takes all rings so far, and returns whether there was one. Never waits.
    ///
    /// Once every ringing end is closed, no more rings can come: the descriptor stays readable, and this returns `false`.
    pub fn drain(&self) -> bool {
        let mut rung = false;
        let mut bytes = [0u8; 256];
        // Bounded: a publisher that rings all the time costs a spurious wake-up, not the sleeper's thread.
        for _ in 0..16 {
            let mut sent = Vec::new();
            let received = fds::receive(self.0.as_fd(), &mut bytes, &mut sent, false);
            // A hostile publisher may have sent descriptors that take long to close.
            drop(Sent(sent));
            match received {
                Ok(0) => break,
                Ok(n) => {
                    rung = true;
                    if n < bytes.len() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        rung
    }

    /// Waits until the bell rings, something is to be read from `other`, or `CLOCK_MONOTONIC` has reached `until_ns`. A signal
    /// handler that runs in this thread ends the wait, too.
    pub fn wait(&self, other: BorrowedFd<'_>, until_ns: u64) {
        let both = &mut [self.as_fd(), other].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        // Whoever waits looks again in any case.
        let _ = poll(both, Some(clock::left(until_ns)));
    }

    /// Whether the other end is closed in every process. Rings from before can still be taken.
    #[must_use]
    pub(crate) fn is_alone(&self) -> bool {
        let mut ends = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
        let polled = poll(&mut ends, Some(Duration::ZERO)) == Ok(true);
        polled && ends[0].revents().is_some_and(|said| said.contains(PollFlags::POLLHUP))
    }

    /// A second descriptor of the same end, to hand on.
    ///
    /// # Errors
    /// [`SystemError`] when there is no descriptor left.
    pub fn try_clone_fd(&self) -> Result<OwnedFd> {
        self.0.try_clone().map_err(|error| SystemError::new("duplicate a bell's descriptor", error))
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;
    use shm_test_support::wait_until;

    fn is_readable(bell: &Bell) -> bool {
        let mut ready = [PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, Some(Duration::ZERO)).unwrap()
    }

    fn pair() -> (Bell, Bell) {
        let (ringer, sleeper) = Bell::new().unwrap();
        (ringer, Bell::from_fd(sleeper).unwrap())
    }

    #[test]
    fn a_ring_makes_the_sleepers_end_readable_until_drained() {
        let (ringer, sleeper) = pair();
        assert!(!is_readable(&sleeper) && !sleeper.drain());
        ringer.ring();
        Bell::from_fd(ringer.try_clone_fd().unwrap()).unwrap().ring();
        assert!(is_readable(&sleeper));
        assert!(sleeper.drain());
        assert!(!is_readable(&sleeper) && !sleeper.drain());
    }

    #[test]
    fn a_wait_ends_with_a_ring_with_something_from_the_other_or_in_time() {
        let ((ringer, sleeper), (other_ringer, other)) = (pair(), pair());
        sleeper.wait(other.as_fd(), 0);
        sleeper.wait(other.as_fd(), clock::monotonic_ns() + 1_000_000);
        ringer.ring();
        sleeper.wait(other.as_fd(), u64::MAX);
        assert!(sleeper.drain() && !other.drain());
        other_ringer.ring();
        sleeper.wait(other.as_fd(), u64::MAX);
        assert!(!sleeper.drain() && other.drain());
        drop(other_ringer);
        sleeper.wait(other.as_fd(), u64::MAX);
    }

    #[test]
    fn ringing_never_waits_whatever_the_sleeper_does_to_its_end() {
        let (ringer, sleeper) = pair();
        fcntl(&sleeper, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        // Even a holder of the ringing end that makes it blocking changes nothing.
        fcntl(&ringer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        for _ in 0..100_000 {
            ringer.ring();
        }
        assert!(is_readable(&sleeper));
        while sleeper.drain() {}
        drop(sleeper);
        ringer.ring();
    }

    #[test]
    fn the_sleeper_cannot_leave_anything_at_the_ringing_end() {
        let (_ringer, sleeper) = pair();
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        assert_eq!(send(sleeper.as_fd().as_raw_fd(), &[1], flags), Err(Errno::EPIPE));
    }

    #[test]
    fn a_publisher_that_sends_descriptors_holds_no_sleeper_up() {
        let (listener, (ringer, sleeper)) = (std::net::TcpListener::bind("127.0.0.1:0"), pair());
        let Ok(listener) = listener else { return eprintln!("SKIPPED: there is no network here") };
        let slow = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // Reads nothing, so that whoever closes the last descriptor of the other side waits for an hour.
        let _other = listener.accept().unwrap();
        slow.set_nonblocking(true).unwrap();
        while std::io::Write::write(&mut &slow, &[0; 1 << 16]).is_ok() {}
        setsockopt(&slow, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 3600 }).unwrap();
        let sent = fds::send(ringer.as_fd(), b"x", &[slow.as_fd()]).is_ok();
        if !sent {
            // The kernel refuses them, and the sleeper gets bytes as before.
            let _ = setsockopt(&slow, sockopt::Linger, &nix::libc::linger { l_onoff: 0, l_linger: 0 });
            ringer.ring();
        }
        drop(slow);
        assert!(sleeper.drain() && !sleeper.drain());
    }

    #[test]
    fn an_end_knows_when_nobody_has_the_other() {
        let (ringer, sleeper) = pair();
        assert!(!ringer.is_alone() && !sleeper.is_alone());
        ringer.ring();
        assert!(!sleeper.is_alone(), "a ring is no end");
        drop(ringer);
        wait_until("the other end is closed", || sleeper.is_alone());
        let (ringer, sleeper) = pair();
        drop(sleeper);
        wait_until("the other end is closed", || ringer.is_alone());
    }

    #[test]
    fn a_bell_that_nobody_can_ring_any_more_is_readable_and_has_not_rung() {
        let (ringer, sleeper) = pair();
        ringer.ring();
        drop(ringer);
        assert!(sleeper.drain());
        wait_until("the bell rings", || is_readable(&sleeper));
        assert!(!sleeper.drain());
    }

    #[test]
    fn what_is_not_a_bell_is_refused() {
        let (reader, _writer) = nix::unistd::pipe().unwrap();
        assert!(Bell::from_fd(reader).is_err());
        let datagrams = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert!(Bell::from_fd(datagrams.into()).is_err());
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(Bell::from_fd(tcp.into()).is_err());
    }
}
