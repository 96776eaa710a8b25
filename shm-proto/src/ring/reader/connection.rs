//! A reader's connection to the daemon: what the daemon has said, and what it was told.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use super::moves::Moves;
use super::trouble::Trouble;
use crate::os::poll;
use crate::ring::link::{FromReader, ReaderLink, ToReader};

/// How long a wait for a line may last before the connection is looked at again.
const SLICE_MS: u8 = 100;
/// How long the daemon may take to say why it evicted us.
const REASON_MS: u8 = 200;

#[derive(Debug)]
pub(super) struct Connection {
    link: Option<ReaderLink>,
    was_connected: bool,
    farewell: Option<String>,
    /// A daemon that has come in the place of one that died does not go on with this attachment.
    was_refused: bool,
    /// A new bell's end, from a daemon that has come in the place of one that died.
    bell: Option<OwnedFd>,
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
            moves: Moves::default(),
            trouble: Trouble::default(),
        }
    }

    /// Takes in what the daemon has said, without waiting.
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
                Ok(Some((ToReader::Resumed, fds))) => self.bell = fds.into_iter().next(),
                // Said where the line was read.
                Ok(Some((ToReader::Unknown, _))) => {}
                Ok(None) => return,
                Err(_) => self.link = None,
            }
        }
    }

    /// Waits a moment for the daemon to say something.
    pub(super) fn await_line(&self) {
        self.wait(SLICE_MS);
    }

    /// Waits a moment for the daemon's reason: the bit in the page is faster than the line on the socket.
    pub(super) fn hear_why(&mut self) {
        self.listen();
        if self.farewell.is_none() && self.link.is_some() {
            self.wait(REASON_MS);
            self.listen();
        }
    }

    fn wait(&self, ms: u8) {
        if let Some(fd) = self.as_fd() {
            // The caller looks again whether the wait failed or not.
            let _ = poll::readable(fd, Some(Duration::from_millis(ms.into())));
        }
    }

    /// Tells the daemon that the segment is broken. A daemon that is gone is noticed by the next look.
    pub(super) fn report_broken(&mut self, reason: String) {
        if let Some(link) = &mut self.link {
            let _ = link.send(FromReader::Broken { reason });
        }
    }

    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.link.as_ref().and_then(|link| link.as_fd())
    }

    /// The connection to a daemon that lives, as far as is known.
    pub(super) fn daemon(&self) -> Option<BorrowedFd<'_>> {
        self.as_fd().filter(|_| self.looks_for_daemon().is_none())
    }

    /// A new bell's end, once.
    pub(super) fn take_bell(&mut self) -> Option<OwnedFd> {
        self.bell.take()
    }

    /// Grows when [`as_fd`](Self::as_fd) has become another descriptor.
    pub(super) fn changes(&self) -> u64 {
        self.link.as_ref().map_or(u64::MAX, |link| link.changes())
    }

    /// When to look again for a daemon to come in the place of the one that died, if that is so.
    pub(super) fn looks_for_daemon(&self) -> Option<u64> {
        self.link.as_ref().and_then(|link| link.looks_for_daemon())
    }

    /// Whether there is nobody who could say anything.
    #[inline(always)]
    pub(super) fn is_mute(&self) -> bool {
        self.link.is_none()
    }

    /// Whether the daemon went away without a word.
    #[inline(always)]
    pub(super) fn is_lost(&self) -> bool {
        self.was_connected && self.link.is_none()
    }

    /// Whether no daemon will go on with this attachment, whoever writes to its segment.
    pub(super) fn was_refused(&self) -> bool {
        self.was_refused
    }

    pub(super) fn farewell(&self) -> Option<&str> {
        self.farewell.as_deref()
    }

    /// Whether the program knows of the trouble, and the daemon has time to do something about it.
    pub(super) fn awaits_verdict(&self) -> bool {
        self.trouble.is_fresh() && self.link.is_some()
    }
}
