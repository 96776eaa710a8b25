//! Following a channel to a new segment.
//!
//! The daemon replaces a segment that somebody may still write to who is not the writer any more. For each reader it
//! (1) raises the number of moves in the page's control word, (2) runs a full barrier, (3) looks where the chain of records in
//! the old segment ends, at position P and message N, (4) sends the reader a line with P, N and the new segment's descriptor,
//! (5) wakes the reader. The new segment's first record stands at P and is message N.
//!
//! What the old segment gets after (3) is not a message. A reader that has seen such a header sees (1), too: it was stored
//! after (3) had read nothing there, and (1) came before that with a full barrier in between. Both loads of the reader are in
//! order, and on x86-64 and AArch64 a store becomes visible to everybody at once.
//!
//! So a reader that finds the number as it was goes on. Another one compares where it stands with P: before it messages are
//! as good as ever, and at P it goes over to the new segment. Between (1) and (4) it does not know P and waits for the line.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use super::Reader;
use super::position::{Mapped, Position};
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
    /// Where the segment before it ends and this one begins.
    pos: u64,
    seq: u64,
    /// What is wrong with the segment before it.
    broken: Option<String>,
}

/// The moves that were announced and not made yet.
#[derive(Debug, Default)]
pub(super) struct Moves {
    ahead: VecDeque<Move>,
    /// What the control word's number of moves is when there is none to be made.
    made: u32,
    /// Why a move cannot be made, although it was announced.
    failure: Option<String>,
}

/// What the number of moves says about the place of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The channel has not moved, or this place is before the end of the segment.
    Inside,
    /// The segment ends here, or before.
    AtEnd,
    /// The channel has moved, and it is not known yet where this segment ends.
    Unknown,
}

impl Moves {
    /// What the control word's number of moves is when there is none to be made.
    #[inline(always)]
    pub(super) fn made(&self) -> u32 {
        self.made
    }

    /// Whether these bits of the control word say that there is a move to be made.
    pub(super) fn has_moved(&self, bits: u32) -> bool {
        bits & control::MOVES != self.made
    }

    /// Whether a move is to be made whose line has come, or that cannot be made.
    pub(super) fn may_move(&self) -> bool {
        !self.ahead.is_empty() || self.failure.is_some()
    }

    /// Takes in the line about a move.
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

    /// Where the present segment ends, if that is known.
    pub(super) fn end(&self) -> Option<u64> {
        self.ahead.front().map(|next| next.pos)
    }

    /// The daemon has died before it knew where the segment ends. It has lent the role to nobody since.
    fn forget(&mut self, bits: u32) {
        self.made = bits & control::MOVES;
    }

    /// The next move is made.
    fn take(&mut self) -> Option<Move> {
        let next = self.ahead.pop_front()?;
        self.made = self.made.wrapping_add(control::MOVE) & control::MOVES;
        Some(next)
    }
}

impl Reader {
    /// Where this reader stands, as far as it can be known without waiting.
    pub(super) fn standing(&mut self) -> Result<Standing> {
        let connection = &mut self.connection;
        if !connection.moves.has_moved(self.page.control()) {
            return Ok(Standing::Inside);
        }
        self.joined = false;
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

    /// Whether it is settled what became of the record that the program was done with before that could be known.
    pub(super) fn settle_up(&mut self) -> Result<bool> {
        match (self.left, self.standing()?) {
            (Some(_), Standing::Unknown) => return Ok(false),
            (Some(found), Standing::Inside) => self.pass(found),
            _ => {}
        }
        self.left = None;
        Ok(true)
    }

    /// As [`standing`](Self::standing), and waits for the line if that is what it takes. The daemon sends it in the moment after it has raised the
    /// number, and waits for nothing in between.
    pub(super) fn standing_for_certain(&mut self) -> Result<Standing> {
        loop {
            match self.standing()? {
                Standing::Unknown if !self.connection.is_mute() => self.connection.await_line(),
                standing => return Ok(standing),
            }
        }
    }

    /// Goes over to the next segment, whose line has come, although the present one has not been read to its end: it is broken.
    /// Why the next one was made, if the daemon knows that this one is.
    pub(super) fn go_over_broken(&mut self) -> Result<Option<String>> {
        let reason = self.connection.moves.ahead.front().and_then(|next| next.broken.clone());
        let seq = self.position.seq();
        let before = self.losses.so_far(seq);
        self.go_over()?;
        self.losses.skip(seq, self.position.seq(), before);
        self.page.show_lost(self.losses.lost());
        Ok(reason)
    }

    /// Goes over to the next segment, whose line has come.
    pub(super) fn go_over(&mut self) -> Result<()> {
        let moves = &mut self.connection.moves;
        let Some(next) = moves.ahead.front() else { return Ok(()) };
        // Tried again by the next call if there is no memory to map it.
        let mapped = Mapped::open(next.file.as_fd(), &next.geometry)?;
        let off = first_header(u64::from(next.geometry.align));
        let place = Place { pos: next.pos, off, seq: next.seq, bytes: 0 };
        if let Some(reason) = mapped.implausible(place, &next.geometry) {
            return Err(ProtocolError::Broken(format!("the daemon sent a reader to a new segment: {reason}")).into());
        }
        let Some(next) = moves.take() else { return Ok(()) };
        // What lay between was overwritten by a writer that had lost its role. There is nothing between otherwise.
        self.lose(place.seq.saturating_sub(self.position.seq()));
        self.position = Position::new(mapped, next.file, next.geometry);
        self.position.go_to(place);
        self.connection.trouble.end();
        self.joined = false;
        self.pause.begin(self.position.at());
        self.give_back_now();
        Ok(())
    }
}
