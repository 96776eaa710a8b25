//! Bytes and descriptors over a Unix socket.
#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::mem::{align_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::{closing, retry};

/// The most descriptors in one call, either way.
pub const MAX_FDS: usize = 4;
/// The most that the kernel lets anybody send in one call. What this process left in the kernel, the kernel would close, and this
/// process would wait for that.
const MOST_SENT: usize = 253;

/// Sends as many of `bytes` as the socket takes, with the descriptors beside the first byte. Returns the number of bytes sent.
///
/// Waits if the socket is blocking. A closed peer is `BrokenPipe`, never a signal.
///
/// # Errors
/// What the system says; `InvalidInput` for descriptors without a byte to carry them, or for more than [`MAX_FDS`].
pub fn send(sock: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    send_flags(sock, bytes, fds, MsgFlags::MSG_NOSIGNAL)
}

/// As [`send`], but never waits: `WouldBlock` if the socket is full.
///
/// # Errors
/// As [`send`].
pub(crate) fn send_now(sock: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    send_flags(sock, bytes, fds, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)
}

fn send_flags(sock: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>], flags: MsgFlags) -> io::Result<usize> {
    if fds.len() > MAX_FDS || (bytes.is_empty() && !fds.is_empty()) {
        let text = format!("{} descriptors with {} bytes, at most {MAX_FDS} can go", fds.len(), bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    Ok(retry(|| sendmsg::<()>(sock.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None))?)
}

/// A buffer for one control message with [`MOST_SENT`] descriptors, aligned for the message's header.
#[repr(C, align(8))]
struct ControlBuffer([u8; CONTROL_LEN]);

// SAFETY: the macro only computes a length.
const CONTROL_LEN: usize = unsafe { libc::CMSG_SPACE((MOST_SENT * size_of::<RawFd>()) as u32) } as usize;
const _: () = assert!(align_of::<ControlBuffer>() >= align_of::<libc::cmsghdr>());

/// Receives bytes into `buf`, and appends the descriptors that came with them, all close-on-exec. Returns 0 at the end.
///
/// Waits only if `wait` is true and the socket is blocking.
///
/// # Errors
/// What the system says; `WouldBlock` if there is nothing to receive; `InvalidData` if more than [`MAX_FDS`] descriptors came. In
/// that case they are closed, and `fds` is unchanged.
///
/// If this process has too few free descriptors, that is not an error: the bytes arrive, and the descriptors that did arrive are
/// closed. A caller that expects descriptors with the bytes sees that they are missing; see [`limit`].
pub fn receive(sock: BorrowedFd<'_>, buf: &mut [u8], fds: &mut Vec<OwnedFd>, wait: bool) -> io::Result<usize> {
    let mut control = ControlBuffer([0; CONTROL_LEN]);
    let mut part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: all zeroes is a valid msghdr: null pointers with lengths of 0.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = ptr::from_mut(&mut part);
    message.msg_iovlen = 1;
    let flags = libc::MSG_CMSG_CLOEXEC | if wait { 0 } else { libc::MSG_DONTWAIT };
    let got = retry(|| {
        message.msg_control = ptr::from_mut(&mut control).cast();
        message.msg_controllen = CONTROL_LEN as _;
        // SAFETY: the message names `buf` and `control` with their true lengths, and both outlive the call.
        Errno::result(unsafe { libc::recvmsg(sock.as_raw_fd(), &mut message, flags) })
    })?;
    // SAFETY: `message` is as the kernel left it after a successful call, its control bytes still alive.
    let arrived = unsafe { take_rights(&message) };
    if arrived.len() > MAX_FDS {
        closing::close(arrived);
        let text = format!("more than {MAX_FDS} descriptors came with {got} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    if message.msg_flags & libc::MSG_CTRUNC == 0 {
        fds.extend(arrived);
    } else {
        closing::close(arrived);
    }
    Ok(got as usize)
}

/// The number of descriptors that this process may have open at a time.
#[must_use]
pub fn limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

/// Every descriptor in the control messages. A caller that refuses the message drops them, which closes them.
///
/// # Safety
/// `message` was filled by a successful `recvmsg`, its control buffer is alive, and its descriptors have not been taken yet.
unsafe fn take_rights(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut taken = Vec::new();
    // SAFETY: the kernel wrote well-formed control messages and their total length.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: a header that CMSG_FIRSTHDR or CMSG_NXTHDR returns lies whole inside the control buffer.
        let cmsg = unsafe { &*header };
        if cmsg.cmsg_level == libc::SOL_SOCKET && cmsg.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: the data begins CMSG_LEN(0) bytes after the header.
            let (data, empty) = unsafe { (libc::CMSG_DATA(header), libc::CMSG_LEN(0) as usize) };
            let count = (cmsg.cmsg_len as usize - empty) / size_of::<RawFd>();
            for index in 0..count {
                // SAFETY: `count` descriptors follow the header; each is new in this process and owned by nobody else.
                taken.push(unsafe { OwnedFd::from_raw_fd(data.cast::<RawFd>().add(index).read_unaligned()) });
            }
        }
        // SAFETY: as for CMSG_FIRSTHDR; `header` is one of this message's.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    taken
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use nix::fcntl::{FcntlArg, fcntl};
    use nix::sys::resource::setrlimit;

    use super::*;
    use shm_test_support::{in_child, wait_until};

    #[test]
    fn descriptors_arrive_with_their_bytes_and_are_closed_on_exec() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        assert_eq!(send(ours.as_fd(), b"hello", &[reader.as_fd(), writer.as_fd()]).unwrap(), 5);
        drop((reader, writer));
        let (mut buf, mut fds) = ([0; 16], Vec::new());
        assert_eq!(receive(theirs.as_fd(), &mut buf, &mut fds, true).unwrap(), 5);
        assert_eq!((&buf[..5], fds.len()), (&b"hello"[..], 2));
        for fd in &fds {
            assert_eq!(fcntl(fd, FcntlArg::F_GETFD), Ok(libc::FD_CLOEXEC));
        }
        let (mut writer, mut reader) = (File::from(fds.pop().unwrap()), File::from(fds.pop().unwrap()));
        writer.write_all(b"through").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn bytes_of_two_messages_with_descriptors_do_not_run_together() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        send(ours.as_fd(), b"one", &[ours.as_fd()]).unwrap();
        send(ours.as_fd(), b"two", &[ours.as_fd()]).unwrap();
        let (mut buf, mut fds) = ([0; 16], Vec::new());
        assert_eq!(receive(theirs.as_fd(), &mut buf, &mut fds, true).unwrap(), 3);
        assert_eq!(fds.len(), 1);
    }

    #[test]
    fn too_many_descriptors_are_an_error_and_all_closed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let refused = send(ours.as_fd(), b"x", &[writer.as_fd(); MAX_FDS + 1]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        // A peer that is not this library sends them nevertheless.
        let raw = [writer.as_raw_fd(); MAX_FDS + 3];
        let rights = [ControlMessage::ScmRights(&raw)];
        sendmsg::<()>(ours.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None).unwrap();
        drop(writer);
        let mut fds = vec![ours.as_fd().try_clone_to_owned().unwrap()];
        let error = receive(theirs.as_fd(), &mut [0; 8], &mut fds, true).unwrap_err();
        assert_eq!((error.kind(), fds.len()), (ErrorKind::InvalidData, 1), "{error}");
        assert_eq!(File::from(reader).read(&mut [0]).unwrap(), 0, "no writing end is left open");
    }

    #[test]
    fn descriptors_without_room_leave_the_bytes_and_nothing_open() {
        let child = in_child(|| {
            let (Ok((ours, theirs)), Ok((reader, writer))) = (UnixStream::pair(), nix::unistd::pipe()) else {
                return 1;
            };
            let sent = |bytes: &[u8], fds: &[BorrowedFd<'_>]| send(ours.as_fd(), bytes, fds).ok() == Some(bytes.len());
            if !sent(b"one", &[writer.as_fd(); 2]) || !sent(b"two", &[]) {
                return 2;
            }
            drop(writer);
            // Room for one of the two.
            let Ok(next) = reader.try_clone() else { return 3 };
            let (most, (_, hard)) = (next.as_raw_fd() as u64 + 1, getrlimit(Resource::RLIMIT_NOFILE).unwrap());
            drop(next);
            if setrlimit(Resource::RLIMIT_NOFILE, most, hard).is_err() || limit() != most {
                return 4;
            }
            let (mut buf, mut fds) = ([0; 16], Vec::new());
            let mut next = || receive(theirs.as_fd(), &mut buf, &mut fds, true).map(|n| buf[..n].to_vec()).ok();
            if (next(), next()) != (Some(b"one".to_vec()), Some(b"two".to_vec())) || !fds.is_empty() {
                return 5;
            }
            // Nobody holds the writing end any more.
            i32::from(File::from(reader).read(&mut [0]).ok() != Some(0))
        });
        assert_eq!(child.exit_code(), 0);
    }

    #[test]
    fn nothing_waits_that_was_told_not_to() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let error = receive(theirs.as_fd(), &mut [0; 8], &mut Vec::new(), false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        let error = loop {
            if let Err(error) = send_now(ours.as_fd(), &[0; 4096], &[]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn a_peer_that_is_gone_is_an_error_or_the_end_and_no_signal() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        wait_until("the other end is closed", || {
            send(ours.as_fd(), b"x", &[]).is_err_and(|error| error.kind() == ErrorKind::BrokenPipe)
        });
        assert_eq!(receive(ours.as_fd(), &mut [0], &mut Vec::new(), true).unwrap(), 0);
    }

    #[test]
    fn descriptors_need_a_byte_to_travel_with() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(send(ours.as_fd(), b"", &[ours.as_fd()]).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
