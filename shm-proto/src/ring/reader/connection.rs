//! A reader's connection to the daemon: the lines from the daemon, and the reader's reports.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use super::Reader;
use super::moves::Moves;
use super::status::Status;
use super::trouble::Trouble;
use crate::os::clock::monotonic_ns;
use crate::os::poll;
use crate::ring::content::Content;
use crate::ring::link::{FromReader, ReaderLink, ToReader};

/// The longest wait for a line before the reader looks at the connection again.
const SLICE_MS: u8 = 100;
/// How long to wait for the daemon's reason after an eviction.
const REASON_MS: u8 = 200;

#[derive(Debug)]
pub(super) struct Connection {
    link: Option<ReaderLink>,
    was_connected: bool,
    farewell: Option<String>,
    /// The daemon that came in the place of a dead one does not continue this attachment.
    was_refused: bool,
    /// The reader's end of a new bell, from the daemon that came in the place of a dead one.
    bell: Option<OwnedFd>,
    /// What the daemon has said about the channel's messages.
    content: Option<Content>,
    status: Status,
    pub(super) moves: Moves,
    pub(super) trouble: Trouble,
}

impl Connection {
    pub(super) fn new(link: Option<ReaderLink>) -> Connection {
        let was_connected = link.is_some();
        Connection {
            link,
            was_connected,
            farewell: None,
            was_refused: false,
            bell: None,
            content: None,
            status: Status::default(),
            moves: Moves::default(),
            trouble: Trouble::default(),
        }
    }

    /// Reads what the daemon has sent, without waiting.
    pub(super) fn listen(&mut self) {
        while let Some(link) = &mut self.link {
            match link.receive() {
                Ok(Some((ToReader::Moved { geometry, pos, seq, broken }, fds))) => {
                    self.moves.note(geometry, (pos, seq), broken, fds);
                }
                Ok(Some((ToReader::Evicted { reason } | ToReader::Closing { reason }, _))) => {
                    self.farewell = Some(reason);
                }
                Ok(Some((ToReader::NotResumed { reason }, _))) => {
                    (self.farewell, self.was_refused) = (Some(reason), true);
                }
                Ok(Some((ToReader::Resumed, fds))) => {
                    self.bell = fds.into_iter().next();
                    if let Some(line) = self.status.line_again() {
                        let _ = link.send(line);
                    }
                }
                // Reported where the line was read.
                Ok(Some((ToReader::Unknown, _))) => {}
                Ok(None) => return,
                Err(_) => self.link = None,
            }
        }
    }

    /// Waits a moment for a line from the daemon.
    pub(super) fn await_line(&self) {
        self.wait(SLICE_MS);
    }

    /// Waits a moment for the daemon's reason, because the bit in the page is faster than the line on the socket.
    pub(super) fn hear_why(&mut self) {
        self.listen();
        if self.farewell.is_none() && self.link.is_some() {
            self.wait(REASON_MS);
            self.listen();
        }
    }

    fn wait(&self, ms: u8) {
        if let Some(fd) = self.as_fd() {
            // The caller looks again, whether the wait failed or not.
            let _ = poll::readable(fd, Some(Duration::from_millis(ms.into())));
        }
    }

    /// Tells the daemon that the segment is broken. If the daemon is gone, the next look notices that.
    pub(super) fn report_broken(&mut self, reason: String) {
        if let Some(link) = &mut self.link {
            let _ = link.send(FromReader::Broken { reason });
        }
    }

    /// As [`Reader::set_status`].
    fn set_status(&mut self, status: &str) -> bool {
        let Some(line) = self.status.set(status, monotonic_ns()) else { return self.status.is(status) };
        if let Some(link) = &mut self.link {
            // A daemon that comes in the place of this one is told, too.
            let _ = link.send(line);
        }
        true
    }

    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.link.as_ref().and_then(|link| link.as_fd())
    }

    /// The connection to a daemon that is alive, as far as is known.
    pub(super) fn daemon(&self) -> Option<BorrowedFd<'_>> {
        self.as_fd().filter(|_| self.looks_for_daemon().is_none())
    }

    /// The reader's end of a new bell, returned once.
    pub(super) fn take_bell(&mut self) -> Option<OwnedFd> {
        self.bell.take()
    }

    /// A number that grows whenever [`as_fd`](Self::as_fd) changes to another descriptor.
    pub(super) fn changes(&self) -> u64 {
        self.link.as_ref().map_or(u64::MAX, |link| link.changes())
    }

    /// If the daemon has died, when to look again for the daemon that comes in its place.
    pub(super) fn looks_for_daemon(&self) -> Option<u64> {
        self.link.as_ref().and_then(|link| link.looks_for_daemon())
    }

    /// Whether no daemon can send anything any more.
    #[inline(always)]
    pub(super) fn is_mute(&self) -> bool {
        self.link.is_none()
    }

    /// Whether the connection to the daemon was lost without a farewell.
    #[inline(always)]
    pub(super) fn is_lost(&self) -> bool {
        self.was_connected && self.link.is_none()
    }

    /// Whether no daemon will continue this attachment, whichever process writes to its segment.
    pub(super) fn was_refused(&self) -> bool {
        self.was_refused
    }

    pub(super) fn farewell(&self) -> Option<&str> {
        self.farewell.as_deref()
    }

    /// Whether the program has been told of the trouble, and the daemon still has time to act.
    pub(super) fn awaits_verdict(&self) -> bool {
        self.trouble.is_fresh() && self.link.is_some()
    }
}

impl Reader {
    /// The reason why the daemon ended the attachment, if it has.
    #[must_use]
    pub fn farewell(&self) -> Option<&str> {
        self.connection.farewell()
    }

    /// What the channel's messages are, if its configuration declares that: as it was when the reader attached.
    #[must_use]
    pub fn content(&self) -> Option<&Content> {
        self.connection.content.as_ref()
    }

    /// Says what the program is doing, for whoever looks at the channel: `shmctl stat` shows it as the reader's status, in at most
    /// 100 characters. Empty: nothing any more.
    ///
    /// Meant for words that change now and then. Two changes are at least 100 ms apart: returns false if this one comes too early
    /// and has to be made again later.
    pub fn set_status(&mut self, status: &str) -> bool {
        self.connection.set_status(status)
    }

    /// Notes what the daemon has said about the channel's messages.
    pub(crate) fn set_content(&mut self, content: Option<Content>) {
        self.connection.content = content;
    }
}
