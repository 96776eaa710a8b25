//! Following a channel to a new segment.
//!
//! The daemon replaces a segment if a process that is no longer the writer may still write to it. For each reader, the
//! daemon (1) raises the number of moves in the page's control word, (2) runs a full barrier, (3) finds the end of the
//! chain of records in the old segment, at position P and message N, (4) sends the reader a line with P, N and the new
//! segment's descriptor, and (5) wakes the reader. The first record of the new segment is at P and is message N.
//!
//! What is written to the old segment after (3) is not a message. A reader that has seen such a header also sees (1):
//! the header was stored after (3) had found nothing at its place, and (1) came before that, with a full barrier in
//! between. The two loads of the reader are ordered, and on x86-64 and AArch64 a store becomes visible to all other
//! processors at once.
//!
//! So a reader that finds the number unchanged continues. Otherwise, the reader compares its position with P: before P,
//! messages are as valid as ever, and at P the reader changes to the new segment. Between (1) and (4), the reader does
//! not know P and waits for the line.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use super::position::{Mapped, Position};
use super::{Joined, Reader};
use crate::error::{ProtocolError, SystemError};
use crate::os::fds;
use crate::ring::geometry::Geometry;
use crate::ring::layout::control;
use crate::ring::published::Place;
use crate::ring::reader::error::Result;
use crate::ring::record::first_header;

/// A segment that the channel has moved to.
#[derive(Debug)]
struct Move {
    file: OwnedFd,
    geometry: Geometry,
    /// Where the previous segment ends and this one begins.
    pos: u64,
    seq: u64,
    /// What is wrong with the previous segment.
    broken: Option<String>,
}

/// The moves that were announced and that the reader has not made yet.
#[derive(Debug, Default)]
pub(super) struct Moves {
    ahead: VecDeque<Move>,
    /// The number of moves in the control word when there is no move to make.
    made: u32,
    /// Why a move cannot be made although it was announced.
    failure: Option<String>,
}

/// What the number of moves says about a reader's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The channel has not moved, or this place is before the end of the segment.
    Inside,
    /// The segment ends here, or before.
    AtEnd,
    /// The channel has moved, and the end of this segment is not known yet.
    Unknown,
}

impl Moves {
    /// The number of moves in the control word when there is no move to make.
    #[inline(always)]
    pub(super) fn made(&self) -> u32 {
        self.made
    }

    /// Whether these bits of the control word say that there is a move to make.
    pub(super) fn has_moved(&self, bits: u32) -> bool {
        bits & control::MOVES != self.made
    }

    /// Whether there is a move whose line has arrived, or a move that cannot be made.
    pub(super) fn may_move(&self) -> bool {
        !self.ahead.is_empty() || self.failure.is_some()
    }

    /// Handles the line about a move.
    pub(super) fn note(&mut self, geometry: Geometry, place: (u64, u64), broken: Option<String>, fds: Vec<OwnedFd>) {
        let (pos, seq) = place;
        match <[OwnedFd; 1]>::try_from(fds) {
            Ok([file]) => self.ahead.push_back(Move { file, geometry, pos, seq, broken }),
            Err(_) => {
                let limit = fds::limit();
                self.failure = Some(format!(
                    "the new segment came without its descriptor; this process may have {limit} open, and if it has, raise \
                     that limit (ulimit -n) and attach again"
                ));
            }
        }
    }

    /// Where the current segment ends, if that is known.
    pub(super) fn end(&self) -> Option<u64> {
        self.ahead.front().map(|next| next.pos)
    }

    /// The daemon died before it found the end of the segment. It has not lent the role to another process since.
    fn forget(&mut self, bits: u32) {
        self.made = bits & control::MOVES;
    }

    /// Takes the next move off the queue and counts it as made.
    fn take(&mut self) -> Option<Move> {
        let next = self.ahead.pop_front()?;
        self.made = self.made.wrapping_add(control::MOVE) & control::MOVES;
        Some(next)
    }
}

impl Reader {
    /// Where this reader stands, as far as that can be known without waiting.
    pub(super) fn standing(&mut self) -> Result<Standing> {
        let connection = &mut self.connection;
        if !connection.moves.has_moved(self.page.control()) {
            return Ok(Standing::Inside);
        }
        self.joined = Joined::No;
        if !connection.moves.may_move() {
            connection.listen();
        }
        if let Some(end) = connection.moves.end() {
            return Ok(if self.position.pos() < end { Standing::Inside } else { Standing::AtEnd });
        }
        if let Some(reason) = &connection.moves.failure {
            let channel = &self.position.geometry().channel;
            let missing = std::io::Error::other(reason.clone());
            return Err(SystemError::new(format!("follow channel {channel} to its new segment"), missing).into());
        }
        if connection.is_mute() {
            connection.moves.forget(self.page.control());
            return Ok(Standing::Inside);
        }
        Ok(Standing::Unknown)
    }

    /// Settles the record that the program finished with before its state was known. Returns false if its state is
    /// still unknown.
    pub(super) fn settle_up(&mut self) -> Result<bool> {
        match (self.left, self.standing()?) {
            (Some(_), Standing::Unknown) => return Ok(false),
            (Some(found), Standing::Inside) => self.pass(found),
            _ => {}
        }
        self.left = None;
        Ok(true)
    }

    /// As [`standing`](Self::standing), but waits for the line if necessary. The daemon sends the line immediately
    /// after it has raised the number, and waits for nothing in between.
    pub(super) fn standing_for_certain(&mut self) -> Result<Standing> {
        loop {
            match self.standing()? {
                Standing::Unknown if !self.connection.is_mute() => self.connection.await_line(),
                standing => return Ok(standing),
            }
        }
    }

    /// Changes to the next segment, whose line has arrived, before the current one has been read to its end, because
    /// the current one is broken. Returns why the next segment was made, if the daemon knows that the current one is
    /// broken.
    pub(super) fn go_over_broken(&mut self) -> Result<Option<String>> {
        let reason = self.connection.moves.ahead.front().and_then(|next| next.broken.clone());
        let seq = self.position.seq();
        let before = self.losses.so_far(seq);
        self.go_over()?;
        self.losses.skip(seq, self.position.seq(), before);
        self.page.show_lost(self.losses.lost());
        Ok(reason)
    }

    /// Changes to the next segment, whose line has arrived.
    pub(super) fn go_over(&mut self) -> Result<()> {
        let moves = &mut self.connection.moves;
        let Some(next) = moves.ahead.front() else { return Ok(()) };
        // If there is no memory to map the segment, the next call tries again.
        let mapped = Mapped::open(next.file.as_fd(), &next.geometry)?;
        let off = first_header(u64::from(next.geometry.align));
        let place = Place { pos: next.pos, off, seq: next.seq, bytes: 0 };
        if let Some(reason) = mapped.implausible(place, &next.geometry) {
            return Err(ProtocolError::Broken(format!("the daemon sent a reader to a new segment: {reason}")).into());
        }
        let Some(next) = moves.take() else { return Ok(()) };
        // A writer that had lost its role overwrote the messages in between. Otherwise, there are none.
        self.lose(place.seq.saturating_sub(self.position.seq()));
        self.position = Position::new(mapped, next.file, next.geometry);
        self.position.go_to(place);
        self.connection.trouble.end();
        self.joined = Joined::No;
        self.pause.begin(self.position.at());
        if self.page.has_joined() {
            self.give_back_now();
        }
        Ok(())
    }
}
