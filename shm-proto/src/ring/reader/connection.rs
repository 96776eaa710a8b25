//! A reader's connection to the daemon: what the daemon has said, and what it was told.

use std::os::fd::BorrowedFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::moves::Moves;
use super::trouble::Trouble;
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
    pub(super) moves: Moves,
    pub(super) trouble: Trouble,
}

impl Connection {
    pub(super) fn new(link: Option<ReaderLink>) -> Connection {
        let was_connected = link.is_some();
        Connection { link, was_connected, farewell: None, moves: Moves::default(), trouble: Trouble::default() }
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
            // Interrupted or not, it is looked at again.
            let _ = poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::from(ms));
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

    pub(super) fn farewell(&self) -> Option<&str> {
        self.farewell.as_deref()
    }

    /// Whether the program knows of the trouble, and the daemon has time to do something about it.
    pub(super) fn awaits_verdict(&self) -> bool {
        self.trouble.is_fresh() && self.link.is_some()
    }
}
