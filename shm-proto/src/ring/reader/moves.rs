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
use std::sync::atomic::Ordering;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Reader;
use super::trouble::data_length;
use crate::error::{Error, Result};
use crate::os::fds;
use crate::ring::chain::implausible;
use crate::ring::geometry::Geometry;
use crate::ring::layout::control;
use crate::ring::published::Place;
use crate::ring::record::{Strides, align_header};
use crate::ring::segment::Segment;
use crate::ring::walker::Walker;

/// How long a wait for the line may last before the connection is looked at again.
const SLICE_MS: u8 = 100;

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
    pub(super) made: u32,
    /// Bytes of the record at the present place, if the program is done with it and nobody knows whether it was one; or 0.
    pub(super) left: u64,
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

impl Reader {
    /// Whether these bits of the control word say that there is a move to be made.
    pub(super) fn has_moved(&self, bits: u32) -> bool {
        bits & control::MOVES != self.moves.made
    }

    /// Whether a move is to be made whose line has come, or that cannot be made.
    pub(super) fn may_move(&self) -> bool {
        !self.moves.ahead.is_empty() || self.moves.failure.is_some()
    }

    /// Takes in the line about a move.
    pub(super) fn note_move(
        &mut self,
        geometry: Geometry,
        place: (u64, u64),
        broken: Option<String>,
        fds: Vec<OwnedFd>,
    ) {
        let (pos, seq) = place;
        match <[OwnedFd; 1]>::try_from(fds) {
            Ok([file]) => self.moves.ahead.push_back(Move { file, geometry, pos, seq, broken }),
            Err(_) => {
                let limit = fds::limit();
                self.moves.failure = Some(format!(
                    "the new segment came without its descriptor; this process may have {limit} open, and if it has, raise \
                     that limit (ulimit -n) and attach again"
                ));
            }
        }
    }

    /// Where this reader stands, as far as it can be known without waiting.
    pub(super) fn standing(&mut self) -> Result<Standing> {
        // Acquire: pairs with the daemon's SeqCst. Who sees the number sees what was published before the move.
        if !self.has_moved(self.page.control.value.load(Ordering::Acquire)) {
            return Ok(Standing::Inside);
        }
        self.joined = false;
        if !self.may_move() {
            self.listen();
        }
        if let Some(next) = self.moves.ahead.front() {
            return Ok(if self.at.pos() < next.pos { Standing::Inside } else { Standing::AtEnd });
        }
        if let Some(reason) = &self.moves.failure {
            let channel = &self.geometry.channel;
            let missing = std::io::Error::other(reason.clone());
            return Err(Error::system(format!("follow channel {channel} to its new segment"), missing));
        }
        if self.link.is_none() {
            // The daemon has died before it knew where the segment ends. It has lent the role to nobody since.
            self.moves.made = self.page.control.value.load(Ordering::Acquire) & control::MOVES;
            return Ok(Standing::Inside);
        }
        Ok(Standing::Unknown)
    }

    /// Whether it is settled what became of the record that the program was done with before that could be known.
    pub(super) fn settle_up(&mut self) -> Result<bool> {
        match (self.moves.left, self.standing()?) {
            (1.., Standing::Unknown) => return Ok(false),
            (stride @ 1.., Standing::Inside) => self.pass(stride),
            _ => {}
        }
        self.moves.left = 0;
        Ok(true)
    }

    /// As [`standing`](Self::standing), and waits for the line if that is what it takes. The daemon sends it in the moment after it has raised the
    /// number, and waits for nothing in between.
    pub(super) fn standing_for_certain(&mut self) -> Result<Standing> {
        loop {
            match (self.standing()?, &self.link) {
                (Standing::Unknown, Some(_)) => self.await_line(),
                (standing, _) => return Ok(standing),
            }
        }
    }

    /// Waits a moment for the daemon to say something.
    pub(super) fn await_line(&self) {
        if let Some(fd) = self.connection_fd() {
            // Interrupted or not, it is looked at again.
            let _ = poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::from(SLICE_MS));
        }
    }

    /// Where the present segment ends, if that is known.
    pub(super) fn end(&self) -> Option<u64> {
        self.moves.ahead.front().map(|next| next.pos)
    }

    /// Goes over to the next segment, whose line has come, although the present one has not been read to its end: it is broken.
    /// Why the next one was made, if the daemon knows that this one is.
    pub(super) fn go_over_broken(&mut self) -> Result<Option<String>> {
        let reason = self.moves.ahead.front().and_then(|next| next.broken.clone());
        let (seq, lost) = (self.at.seq, self.lost);
        self.go_over()?;
        // How many messages there were in between nobody knows.
        let skipped = self.at.seq.saturating_sub(seq);
        (self.lost, self.lost_before) = (lost, 0);
        self.page.line.lost.store(lost, Ordering::Relaxed);
        self.first += skipped;
        self.skipped = (skipped, self.at.seq);
        Ok(reason)
    }

    /// Goes over to the next segment, whose line has come.
    pub(super) fn go_over(&mut self) -> Result<()> {
        let Some(next) = self.moves.ahead.front() else { return Ok(()) };
        // Tried again by the next call if there is no memory to map it.
        let segment = Segment::open(next.file.as_fd(), &next.geometry)?;
        let align = u64::from(next.geometry.align);
        let known = data_length(next.file.as_fd(), &next.geometry)?;
        let place = Place { pos: next.pos, off: align_header(0, align), seq: next.seq, bytes: 0 };
        if let Some(reason) = implausible(place, &next.geometry, known) {
            return Err(Error::Protocol(format!("the daemon sent a reader to a new segment: {reason}")));
        }
        let Some(next) = self.moves.ahead.pop_front() else { return Ok(()) };
        self.moves.made = self.moves.made.wrapping_add(control::MOVE) & control::MOVES;
        // What lay between was overwritten by a writer that had lost its role. There is nothing between otherwise.
        self.lose(place.seq.saturating_sub(self.at.seq), place.seq);
        (self.segment, self.file, self.geometry) = (segment, next.file, next.geometry);
        self.strides = Strides::new(align);
        self.at = Walker::at(place);
        (self.known, self.capacity, self.trouble) = (known, 0, None);
        (self.last, self.joined) = (0, false);
        self.pause.begin(&self.at);
        self.give_back_now();
        Ok(())
    }
}
