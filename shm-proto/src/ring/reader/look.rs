//! Looking at a header, and whether what was seen can be believed.

use std::sync::atomic::Ordering;

use super::moves::Standing;
use super::{Found, Reader};
use crate::error::Result;
use crate::os::clock::monotonic_ns;
use crate::ring::commit::look;
use crate::ring::geometry::OnFull;
use crate::ring::layout::{LINE, control};
use crate::ring::published::is_unchanged;
use crate::ring::record::{HEADER, Header, Kind};

/// Records to this size, in bytes, mostly lie on two lines.
const SMALL: u64 = 2 * LINE;
/// Jumps in a row that an honest writer never makes.
const MOST_JUMPS: u32 = 64;

/// What has become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is what it was.
    Whole,
    /// It may have been overwritten before it was read.
    Overwritten,
    /// It is no message: its writer had lost the role.
    Withdrawn,
    /// It may be withdrawn; the daemon's line will say.
    Unknown,
}

impl Reader {
    /// The record that this reader stands at, in the one case that is common: it is there, it is the right one, and the
    /// writer holds the floor for this reader. Everything else is [`next_record`](Self::next_record)'s. Whether the reader was
    /// evicted meanwhile is looked at when the message is done with.
    #[inline(always)]
    pub(super) fn at_hand(&mut self) -> Option<Found> {
        let len = self.look().len_of(self.at.seq)?;
        self.fit(len).filter(|_| self.joined)
    }

    /// The header that this reader stands at.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(super) fn look(&self) -> Header {
        // SAFETY: a reader stands only where `check` or `fit` has found room for a header: at the start and behind a jump by
        // the one, behind a record by the other. Offsets are multiples of 8 by the one and as strides are.
        look(&unsafe { self.segment.unchecked() }, self.at.off)
    }

    /// Whether there is anything yet where this reader stands.
    ///
    /// While there is nothing, and messages are small, the line behind the header's is asked for, too: the message will end
    /// there, and the two lines come from the writer side by side instead of one after the other. A larger one has other
    /// lines on their way by the time, and the writer would only be disturbed.
    #[inline(always)]
    pub(super) fn has_come(&self) -> bool {
        let come = self.look().kind() != Kind::Empty;
        if !come && self.last <= SMALL {
            self.segment.prefetch(self.at.off + LINE);
        }
        come
    }

    /// The record to receive next, which this reader stands at then; `None` when there is none yet.
    #[inline(never)]
    pub(super) fn next_record(&mut self) -> Result<Option<Found>> {
        loop {
            let error = match self.find_record() {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            match self.on_error(error)? {
                Some(error) => return Err(error),
                None if self.awaits_verdict() => return Ok(None),
                None => {}
            }
        }
    }

    fn find_record(&mut self) -> Result<Option<Found>> {
        loop {
            if let Some(found) = self.look_ahead()? {
                self.note_sleep();
                return Ok(Some(found));
            }
            if !self.on_empty()? {
                return Ok(None);
            }
        }
    }

    /// Whether the sleep that ends with this record was short: then looking is worth it the next time.
    fn note_sleep(&mut self) {
        if self.armed_ns != 0 {
            self.spin.slept(monotonic_ns() - self.armed_ns);
            self.armed_ns = 0;
        }
    }

    /// The record at the present place, following jumps; `None` when there is nothing there.
    pub(super) fn look_ahead(&mut self) -> Result<Option<Found>> {
        let mut jumps = 0;
        if self.moves.left > 0 && !self.settle_up()? {
            return Ok(None);
        }
        loop {
            let header = self.look();
            let kind = header.kind();
            if kind == Kind::Empty {
                return Ok(None);
            }
            match self.state()? {
                State::Whole => {}
                State::Overwritten => {
                    self.catch_up()?;
                    continue;
                }
                State::Withdrawn => {
                    self.go_over()?;
                    continue;
                }
                State::Unknown => return Ok(None),
            }
            if !header.is_for(self.at.seq) {
                return Err(self.corrupt(header));
            }
            match kind {
                Kind::Data { len } => {
                    // The file may have grown.
                    let end = self.at.off.saturating_add(self.strides.of(len)).saturating_add(HEADER);
                    let fits = self.reaches(end);
                    return self.fit(len).filter(|_| fits).map(Some).ok_or_else(|| self.corrupt(header));
                }
                Kind::Jump { target } if jumps < MOST_JUMPS => {
                    jumps += 1;
                    self.check(target)?;
                    self.at.jump(target);
                    self.know_less();
                    // The offset says no more how much was read since space was given back.
                    self.page.space_wanted.give_at.store(self.at.off, Ordering::Relaxed);
                }
                _ => return Err(self.corrupt(header)),
            }
        }
    }

    /// A record of this many payload bytes at the present place, if it and the header behind it lie in what is known of the file.
    #[inline(always)]
    fn fit(&self, len: u64) -> Option<Found> {
        let stride = self.strides.of(len);
        let fits = len <= self.geometry.max_message && self.at.off + stride + HEADER <= self.known;
        fits.then_some(Found { len, stride })
    }

    /// Whether what was just read cannot have been overwritten, in the one case that is common: on a channel that loses
    /// nothing, by a reader that is registered and not evicted.
    #[inline(always)]
    pub(super) fn is_settled(&self) -> bool {
        self.joined && is_unchanged(&self.page.control.value, control::EVICTED | control::MOVES, self.moves.made)
    }

    /// What has become of the record at the present place that was just read, or is about to be followed.
    pub(super) fn state(&mut self) -> Result<State> {
        if self.is_settled() {
            return Ok(State::Whole);
        }
        Ok(match self.standing()? {
            Standing::Inside if self.is_intact()? => State::Whole,
            Standing::Inside => State::Overwritten,
            Standing::AtEnd => State::Withdrawn,
            Standing::Unknown => State::Unknown,
        })
    }

    /// Whether what was just read at the present place was not overwritten before it was read.
    fn is_intact(&mut self) -> Result<bool> {
        // Acquire: pairs with the writer's setting REGISTERED, which comes after every floor that it published before it knew of
        // this reader.
        let bits = self.page.control.value.load(Ordering::Acquire);
        if bits & control::EVICTED != 0 {
            return Err(self.evicted());
        }
        // The bit is looked at before the floor: once the writer holds the floor, it stays where it is seen here or below.
        let registered = bits & control::REGISTERED != 0;
        let intact = !self.segment.header().floor.has_passed(self.at.pos());
        let stays = registered && !self.has_moved(bits);
        self.joined = stays && intact && self.geometry.on_full != OnFull::Overwrite;
        Ok(intact)
    }
}
