//! The process at the other end of a Unix socket, as the kernel knows it.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{getsockopt, sockopt};

use crate::error::{Result, SystemError};

/// A peer at the moment at which it connected. The process may have passed the socket on since, or have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process number in this PID namespace, or 0 if the process is not visible in it.
    pub pid: u32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Credentials {
    /// Whether `gid` is the peer's group or one of its supplementary groups.
    #[must_use]
    pub fn is_in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// `getsockopt` at level `SOL_SOCKET` into `value`. Returns the number of elements that the kernel filled, or would fill.
fn option<T: Copy>(sock: BorrowedFd<'_>, name: libc::c_int, value: &mut [T]) -> (usize, nix::Result<()>) {
    let mut bytes = size_of_val(value) as libc::socklen_t;
    // SAFETY: the kernel writes at most `bytes` bytes to `value`, which has that size, and the new length to `bytes`. The
    // callers' types are plain numbers, so any bytes are a valid value.
    let result =
        unsafe { libc::getsockopt(sock.as_raw_fd(), libc::SOL_SOCKET, name, value.as_mut_ptr().cast(), &mut bytes) };
    (bytes as usize / size_of::<T>(), Errno::result(result).map(drop))
}

fn groups(sock: BorrowedFd<'_>) -> nix::Result<Vec<u32>> {
    let mut groups = vec![0u32; 32];
    loop {
        match option(sock, libc::SO_PEERGROUPS, &mut groups) {
            (len, Ok(())) => {
                groups.truncate(len);
                return Ok(groups);
            }
            // The kernel says how many groups there are, at most 65,536.
            (len, Err(Errno::ERANGE)) if len > groups.len() => groups.resize(len, 0),
            (_, Err(error)) => return Err(error),
        }
    }
}

/// The peer of a connected Unix socket, with its supplementary groups.
///
/// # Errors
/// [`SystemError`] when `sock` is not a connected Unix socket.
pub fn credentials(sock: BorrowedFd<'_>) -> Result<Credentials> {
    let peer = getsockopt(&sock, sockopt::PeerCredentials)
        .map_err(|error| SystemError::new("ask who is at the other end of a socket", error))?;
    let groups = match groups(sock) {
        // Kernels before 4.13 do not tell the groups. Then only the peer's user and its first group can let it in.
        Err(Errno::ENOPROTOOPT) => Vec::new(),
        result => result.map_err(|error| {
            SystemError::new(
                format!("ask for the groups of process {} at the other end of a socket", peer.pid()),
                error,
            )
        })?,
    };
    Ok(Credentials { pid: u32::try_from(peer.pid()).unwrap_or(0), uid: peer.uid(), gid: peer.gid(), groups })
}

/// The option by which a socket refuses descriptors. Not in the `libc` crate.
const SO_PASSRIGHTS: libc::c_int = 83;

/// From now on, who sends descriptors to this Unix socket gets an error. Kernels before 6.16 cannot do that. Those sockets which a
/// listening socket accepts do as it does.
pub fn refuse_descriptors(sock: BorrowedFd<'_>) {
    let no: libc::c_int = 0;
    // SAFETY: the kernel reads one int, which lives until the call returns.
    unsafe {
        let bytes = size_of_val(&no) as libc::socklen_t;
        libc::setsockopt(sock.as_raw_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, (&raw const no).cast(), bytes);
    }
}

/// A descriptor that becomes readable when process `pid` ends.
///
/// # Errors
/// [`SystemError`], with `ESRCH` if there is no such process.
pub fn pidfd(pid: u32) -> Result<OwnedFd> {
    // SAFETY: the call takes plain numbers; a descriptor that it returns is new and owned by nobody else.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
    match Errno::result(result) {
        // SAFETY: as above. The kernel makes the descriptor close-on-exec.
        Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
        Err(error) => Err(SystemError::new(format!("open a descriptor of process {pid}"), error)),
    }
}

/// A descriptor that becomes readable when the process that connected `sock` ends.
///
/// From Linux 6.5 on, the kernel gives a descriptor of that very process. Before, this uses the process number, which may
/// belong to another process if the first has ended.
///
/// # Errors
/// [`SystemError`] if that process has ended or `sock` is not a connected Unix socket.
pub fn peer_pidfd(sock: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut fd: [RawFd; 1] = [-1];
    match option(sock, libc::SO_PEERPIDFD, &mut fd).1 {
        // SAFETY: the kernel has just made this descriptor, close-on-exec, and nobody else owns it.
        Ok(()) => Ok(unsafe { OwnedFd::from_raw_fd(fd[0]) }),
        Err(Errno::ENOPROTOOPT) => pidfd(credentials(sock)?.pid),
        Err(error) => Err(SystemError::new("open a descriptor of the process at the other end of a socket", error)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use nix::fcntl::{FcntlArg, fcntl};
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::unistd::{Gid, getegid, geteuid, setgroups};

    use super::*;
    use crate::os::fds;
    use shm_test_support::{in_child, may_change_user};

    fn is_readable(fd: &OwnedFd, timeout: PollTimeout) -> bool {
        poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout).unwrap() == 1
    }

    #[test]
    fn a_peer_is_who_connected() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = credentials(ours.as_fd()).unwrap();
        assert_eq!((peer.pid, peer.uid, peer.gid), (std::process::id(), geteuid().as_raw(), getegid().as_raw()));
        assert!(peer.is_in_group(peer.gid) && !peer.is_in_group(peer.gid ^ 0x4000_0000));
    }

    #[test]
    fn what_is_not_a_unix_socket_has_no_peer() {
        let (reader, _writer) = nix::unistd::pipe().unwrap();
        assert!(credentials(reader.as_fd()).is_err());
        assert!(peer_pidfd(reader.as_fd()).is_err());
    }

    #[test]
    fn a_socket_that_refuses_descriptors_takes_bytes() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        refuse_descriptors(ours.as_fd());
        match fds::send(theirs.as_fd(), b"x", &[theirs.as_fd()]) {
            Ok(_) => eprintln!("SKIPPED: this kernel cannot refuse descriptors"),
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::PermissionDenied),
        }
        (&theirs).write_all(b"bytes").unwrap();
        fds::send(ours.as_fd(), b"x", &[ours.as_fd()]).unwrap();
    }

    #[test]
    fn any_number_of_supplementary_groups_is_known() {
        if !may_change_user() {
            return;
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = in_child(|| {
            let groups: Vec<Gid> = (5000..5100).map(Gid::from_raw).collect();
            if setgroups(&groups).is_err() {
                return 1;
            }
            // The credentials are taken when a pair is made, so this one has the child's.
            let Ok((made, end)) = UnixStream::pair() else { return 2 };
            match fds::send(theirs.as_fd(), b"x", &[made.as_fd(), end.as_fd()]) {
                Ok(1) => 0,
                _ => 3,
            }
        });
        let pid = child.pid();
        assert_eq!(child.exit_code(), 0);
        let mut received = Vec::new();
        fds::receive(ours.as_fd(), &mut [0], &mut received, true).unwrap();
        let peer = credentials(received[0].as_fd()).unwrap();
        assert_eq!(peer.pid, pid);
        assert_eq!(peer.groups.len(), 100);
        assert!(peer.is_in_group(5000) && peer.is_in_group(5099) && !peer.is_in_group(5100));
    }

    #[test]
    fn a_peers_descriptor_becomes_readable_when_its_process_ends() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let child = in_child(|| {
            let Ok((made, _end)) = UnixStream::pair() else { return 1 };
            match fds::send(theirs.as_fd(), b"x", &[made.as_fd()]) {
                Ok(1) => theirs.read_exact(&mut [0]).is_err().into(),
                _ => 2,
            }
        });
        let mut received = Vec::new();
        fds::receive(ours.as_fd(), &mut [0], &mut received, true).unwrap();
        let both = [peer_pidfd(received[0].as_fd()).unwrap(), pidfd(child.pid()).unwrap()];
        for fd in &both {
            assert_eq!(fcntl(fd, FcntlArg::F_GETFD), Ok(libc::FD_CLOEXEC));
            assert!(!is_readable(fd, PollTimeout::ZERO));
        }
        ours.write_all(b"x").unwrap();
        for fd in &both {
            assert!(is_readable(fd, PollTimeout::NONE));
        }
        let pid = child.pid();
        assert_eq!(child.exit_code(), 0);
        let message = pidfd(pid).unwrap_err().to_string();
        assert!(message.contains(&pid.to_string()), "{message}");
    }
}
