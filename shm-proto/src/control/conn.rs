//! Lines and the descriptors that travel with them, over one Unix stream socket.
//!
//! A descriptor travels with the first byte of its line, and a line with descriptors is sent by itself. The kernel ends a
//! `recvmsg` where bytes with descriptors end. So descriptors belong to the line in which their piece of input ends, however
//! the stream was cut.

mod end;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use serde::Serialize;

use super::line::{self, excerpt};
use crate::error::{ProtocolError, SystemError};
use crate::os::fds;
use crate::os::poll::{self, PollFd, PollFlags};
use crate::os::unread::unread_by_peer;

/// Most descriptors that one line may bring.
pub const MAX_FDS_A_LINE: usize = fds::MAX_FDS;
/// While this many descriptors wait to be taken, no input is read: a peer cannot make this process hold more.
const MAX_FDS_WAITING: usize = 64;
/// Most bytes that one call sends. After this many bytes, `untaken_bytes` shows that a peer reads slowly.
const PIECE: usize = 8 << 10;
/// The input buffer's first size, and the size to which it is given back.
const SMALL_BUFFER: usize = 4096;
/// How long to wait until this user's descriptors on their way through sockets may have become fewer.
pub const HELD: Duration = Duration::from_millis(10);
/// A blocking call tries again this many times.
const MOST_HELD: u32 = 500;

/// Whether the other side may send more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Nothing more is there now.
    Open,
    /// The other side will send nothing more. Complete lines that came before can still be taken.
    Closed,
}

/// What a look at the connection found.
#[derive(Debug)]
pub enum Received {
    /// A line, without its newline, and the descriptors that came with it. There are none if this process had no free
    /// descriptors.
    Line(String, Vec<OwnedFd>),
    /// No complete line yet.
    Nothing,
    /// Everything was taken, and the other side will send nothing more.
    Closed,
}

/// What one call to read has brought.
enum Read {
    Some,
    Nothing,
    End,
}

/// One end of a control connection.
///
/// Reading never waits, whatever the mode of the socket is. [`send`](Self::send) waits; [`queue`](Self::queue) and
/// [`flush`](Self::flush) do not.
#[derive(Debug)]
pub struct Conn {
    socket: UnixStream,
    input: Input,
    output: VecDeque<Outgoing>,
    held: bool,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

/// Whether the kernel passes on no more descriptors of this user for now.
fn is_held(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ETOOMANYREFS as i32)
}

impl Conn {
    /// Takes over a connected socket. An incoming line may have `max_line_in` bytes, including its newline. The connection
    /// never holds more input than that.
    #[must_use]
    pub fn new(socket: UnixStream, max_line_in: usize) -> Self {
        Conn { socket, input: Input::new(max_line_in), output: VecDeque::new(), held: false }
    }

    /// The socket.
    #[must_use]
    pub fn stream(&self) -> &UnixStream {
        &self.socket
    }

    /// Sends one line and waits until the socket has taken it, after everything that was queued.
    ///
    /// # Errors
    /// [`ProtocolError::System`] if the connection is closed or the send timeout of the socket has passed.
    pub fn send<T: Serialize>(&mut self, body: &T, fds: &[BorrowedFd<'_>]) -> Result<(), ProtocolError> {
        let bytes = line::encode(body)?;
        let failed =
            |e| SystemError::new(format!("cannot send a line of {} bytes on the control connection", bytes.len()), e);
        while !self.flush().map_err(failed)? {
            if self.held {
                sleep(HELD);
            } else {
                self.wait(PollFlags::POLLOUT).map_err(failed)?;
            }
        }
        let (mut sent, mut held) = (0, 0);
        while sent < bytes.len() {
            let with = if sent == 0 { fds } else { &[] };
            match fds::send(self.socket.as_fd(), &bytes[sent..], with) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The socket itself is in nonblocking mode, or has a send timeout.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wait(PollFlags::POLLOUT).map_err(failed)?,
                Err(e) if is_held(&e) && held < MOST_HELD => {
                    held += 1;
                    sleep(HELD);
                }
                Err(e) => return Err(failed(e).into()),
            }
        }
        Ok(())
    }

    /// Puts one line in the queue; [`flush`](Self::flush) sends it. The descriptors are closed here once they are sent.
    ///
    /// # Errors
    /// [`ProtocolError::Broken`] for a body that JSON cannot express.
    pub fn queue<T: Serialize>(&mut self, body: &T, fds: Vec<OwnedFd>) -> Result<(), ProtocolError> {
        self.put(line::encode(body)?, fds);
        Ok(())
    }

    /// Puts a line in the queue that was [encoded](super::encode) before, with its newline.
    pub fn queue_line(&mut self, line: Vec<u8>) {
        self.put(line, Vec::new());
    }

    fn put(&mut self, bytes: Vec<u8>, fds: Vec<OwnedFd>) {
        match self.output.back_mut() {
            Some(last) if last.fds.is_empty() && fds.is_empty() => last.bytes.extend_from_slice(&bytes),
            _ => self.output.push_back(Outgoing { bytes, sent: 0, fds }),
        }
    }

    /// Sends what the socket takes without waiting. Returns whether the queue is empty.
    ///
    /// # Errors
    /// What the socket says, other than that it is full. Nothing more can be sent then.
    pub fn flush(&mut self) -> io::Result<bool> {
        self.held = false;
        while let Some(out) = self.output.front_mut() {
            let with: Vec<_> = out.fds.iter().map(AsFd::as_fd).collect();
            let piece = &out.bytes[out.sent..out.bytes.len().min(out.sent + PIECE)];
            match fds::send_now(self.socket.as_fd(), piece, &with) {
                Ok(n) => {
                    out.sent += n;
                    out.fds.clear();
                    if out.sent == out.bytes.len() {
                        self.output.pop_front();
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if is_held(&e) => {
                    self.held = true;
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Whether the last [`flush`](Self::flush) ended because this user has as many descriptors on their way through sockets as
    /// a process may have open. The socket can be written meanwhile, so only time tells when to try again: [`HELD`].
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Bytes in the queue that the socket has not taken.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.output.iter().map(|out| out.bytes.len() - out.sent).sum()
    }

    /// Bytes in the queue, and the memory for bytes that the socket has taken and the peer has not read. While nothing is
    /// queued, this falls as the peer reads, in steps of some kilobytes.
    #[must_use]
    pub fn untaken_bytes(&self) -> usize {
        // A socket that cannot tell holds nothing unread.
        self.queued_bytes() + unread_by_peer(self.socket.as_fd()).unwrap_or(0)
    }

    /// Bytes that were received and not taken, including incomplete lines. Zero means that no request is under way.
    #[must_use]
    pub fn unread_bytes(&self) -> usize {
        self.input.unread().len()
    }

    /// The bytes that were received and not taken, for a process that goes on with the connection in this one's place. `None` if
    /// that cannot be: descriptors came with them, or something is still to be sent.
    #[must_use]
    pub fn to_hand_over(&self) -> Option<&[u8]> {
        (self.output.is_empty() && self.input.fds.is_empty()).then(|| self.input.unread())
    }

    /// Goes on where the process before this one has [left](Self::to_hand_over) a connection of which nothing was read here yet.
    pub fn take_over(&mut self, received: Vec<u8>) {
        (self.input.end, self.input.buffer) = (received.len(), received);
    }

    /// Reads the input that is there, up to the limit of what may be held. Take the lines with [`next_line`](Self::next_line),
    /// and call again when the socket is readable. [`receive`](Self::receive) does both, and reads no more than it needs.
    ///
    /// # Errors
    /// What the socket says. Also if more descriptors come at once than a line may bring.
    pub fn fill(&mut self) -> io::Result<Incoming> {
        while !self.input.is_full() {
            match self.read()? {
                Read::Some => {}
                Read::Nothing => break,
                Read::End => return Ok(Incoming::Closed),
            }
        }
        Ok(Incoming::Open)
    }

    /// The next complete line, without its newline, and the descriptors that came with it.
    ///
    /// # Errors
    /// [`ProtocolError::Broken`] if a line is over the limit, is not UTF-8 or brings too many descriptors. The connection
    /// cannot be used any more then.
    pub(crate) fn next_line(&mut self) -> Result<Option<(String, Vec<OwnedFd>)>, ProtocolError> {
        self.input.next_line()
    }

    /// The next line, if it has arrived completely. Never waits. Repeat until the result is [`Received::Nothing`].
    ///
    /// Reads no further than necessary: descriptors of later lines stay in the socket until the caller has dealt with those of
    /// this line.
    ///
    /// # Errors
    /// Those of [`fill`](Self::fill) and [`next_line`](Self::next_line).
    pub fn receive(&mut self) -> Result<Received, ProtocolError> {
        // One piece at a time: other lines that the peer has sent stay in the socket until they are wanted.
        loop {
            if let Some((line, fds)) = self.next_line()? {
                return Ok(Received::Line(line, fds));
            }
            match self.read().map_err(|e| SystemError::new("cannot read from the control connection", e))? {
                Read::Some => {}
                Read::Nothing => return Ok(Received::Nothing),
                Read::End => return Ok(Received::Closed),
            }
        }
    }

    fn read(&mut self) -> io::Result<Read> {
        loop {
            return match self.input.read(self.socket.as_fd()) {
                Ok(0) => Ok(Read::End),
                Ok(_) => Ok(Read::Some),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Read::Nothing),
                // The other side closed while it had unread input. Everything that it sent before has been delivered by now.
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(Read::End),
                Err(e) => Err(e),
            };
        }
    }

    fn wait(&self, events: PollFlags) -> io::Result<()> {
        poll::poll(&mut [PollFd::new(self.socket.as_fd(), events)], None)?;
        Ok(())
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Bytes received and not taken: `buffer[start..end]`. Positions in the stream count from the connection's beginning.
#[derive(Debug)]
struct Input {
    limit: usize,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The bytes of `unread()` that are known to hold no newline, so that a line that arrives byte by byte is searched once.
    searched: usize,
    /// The stream position of `start`.
    position: u64,
    /// Each descriptor with the stream position after the last byte that it came with.
    fds: VecDeque<(u64, OwnedFd)>,
}

impl Input {
    fn new(limit: usize) -> Self {
        Input { limit, buffer: Vec::new(), start: 0, end: 0, searched: 0, position: 0, fds: VecDeque::new() }
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn is_full(&self) -> bool {
        self.unread().len() >= self.limit || self.fds.len() >= MAX_FDS_WAITING
    }

    fn read(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.make_room();
        let mut fds = Vec::new();
        let n = fds::receive(socket, &mut self.buffer[self.end..], &mut fds, false)?;
        self.end += n;
        let last = self.position + (self.end - self.start) as u64;
        self.fds.extend(fds.into_iter().map(|fd| (last, fd)));
        Ok(n)
    }

    fn make_room(&mut self) {
        if self.end < self.buffer.len() {
            return;
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            return;
        }
        let larger = (2 * self.buffer.len()).clamp(SMALL_BUFFER, self.limit.max(SMALL_BUFFER)).min(self.limit);
        self.buffer.reserve_exact(larger - self.buffer.len());
        self.buffer.resize(larger, 0);
    }

    fn next_line(&mut self) -> Result<Option<(String, Vec<OwnedFd>)>, ProtocolError> {
        let Some(found) = self.unread()[self.searched..].iter().position(|&byte| byte == b'\n') else {
            self.searched = self.unread().len();
            if self.searched >= self.limit {
                return Err(ProtocolError::Broken(format!("a line is over the limit of {} bytes", self.limit)));
            }
            self.check_fds(self.fds.len())?;
            return Ok(None);
        };
        let len = self.searched + found + 1;
        let taken = self.fds.iter().take_while(|(last, _)| *last <= self.position + len as u64).count();
        self.check_fds(taken)?;
        let fds = self.fds.drain(..taken).map(|(_, fd)| fd).collect();
        let bytes = &self.unread()[..len - 1];
        let line = str::from_utf8(bytes)
            .map_err(|_| {
                ProtocolError::Broken(format!("line {} is not UTF-8", excerpt(&String::from_utf8_lossy(bytes))))
            })?
            .to_owned();
        self.take(len);
        Ok(Some((line, fds)))
    }

    fn check_fds(&self, count: usize) -> Result<(), ProtocolError> {
        if count <= MAX_FDS_A_LINE {
            return Ok(());
        }
        Err(ProtocolError::Broken(format!(
            "a line came with {count} descriptors, at most {MAX_FDS_A_LINE} are allowed"
        )))
    }

    fn take(&mut self, len: usize) {
        self.start += len;
        self.position += len as u64;
        self.searched = 0;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            if self.buffer.len() > SMALL_BUFFER {
                self.buffer = Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests;
