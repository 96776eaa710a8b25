//! Finding the next record, and whether what was read is valid.

use super::moves::Standing;
use super::position::Found;
use super::{Joined, Reader};
use crate::os::clock::monotonic_ns;
use crate::ring::geometry::OnFull;
use crate::ring::layout::control;
use crate::ring::published::is_unchanged;
use crate::ring::reader::error::Result;
use crate::ring::record::Kind;

/// A correct writer never makes this many jumps in a row.
const MOST_JUMPS: u32 = 64;

/// The state of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The record is unchanged.
    Whole,
    /// The record may have been overwritten before it was read.
    Overwritten,
    /// The record is not a message: its writer had lost the role.
    Withdrawn,
    /// The record may be withdrawn. The daemon's line will say so.
    Unknown,
}

impl Reader {
    /// The record at the reader's current place, in the most common case: the record has arrived, it is the next
    /// message, the writer holds the floor for this reader, and records have no times.
    /// [`next_record`](Self::next_record) handles all other cases. Whether the reader has been evicted is checked when
    /// the program has finished with the message.
    #[inline(always)]
    pub(super) fn at_hand(&mut self) -> Option<Found> {
        self.position.at_hand().filter(|_| self.joined == Joined::Plain)
    }

    /// The next record to receive, at which this reader then stands. `None` if there is none yet.
    #[inline(never)]
    pub(super) fn next_record(&mut self) -> Result<Option<Found>> {
        loop {
            let error = match self.find_record() {
                Ok(found) => {
                    found.into_iter().for_each(|found| self.count_delay(found));
                    return Ok(found);
                }
                Err(error) => error,
            };
            match self.on_error(error)? {
                Some(error) => return Err(error),
                None if self.connection.awaits_verdict() => return Ok(None),
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

    /// Records how long the sleep was that ends with this record. After a short sleep, it is worth looking for longer
    /// the next time.
    fn note_sleep(&mut self) {
        if self.armed_ns != 0 {
            self.spin.slept(monotonic_ns() - self.armed_ns);
            self.armed_ns = 0;
        }
    }

    /// The record at the current place, after any jumps. `None` if there is nothing there.
    pub(super) fn look_ahead(&mut self) -> Result<Option<Found>> {
        let mut jumps = 0;
        if self.left.is_some() && !self.settle_up()? {
            return Ok(None);
        }
        loop {
            let header = self.position.look();
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
            if !header.is_for(self.position.seq()) {
                return Err(self.position.corrupt(header));
            }
            match kind {
                Kind::Data { len } => {
                    return self.position.find(len).map(Some).ok_or_else(|| self.position.corrupt(header));
                }
                Kind::Jump { target } if jumps < MOST_JUMPS => {
                    jumps += 1;
                    self.position.jump(target)?;
                    // After a jump, the offset no longer says how much was read since space was given back.
                    self.page.set_due(self.position.off());
                }
                _ => return Err(self.position.corrupt(header)),
            }
        }
    }

    /// Whether what was just read cannot have been overwritten, in the most common case: on a lossless channel, by a
    /// reader that is registered and not evicted.
    #[inline(always)]
    pub(super) fn is_settled(&self) -> bool {
        let (control, made) = (&self.page.shared().control.value, self.connection.moves.made());
        self.joined != Joined::No && is_unchanged(control, control::EVICTED | control::MOVES, made)
    }

    /// The state of the record at the current place that was just read, or of the jump that is about to be followed.
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

    /// Whether what was just read at the current place had not been overwritten before it was read.
    fn is_intact(&mut self) -> Result<bool> {
        // Acquire pairs with the writer's setting of REGISTERED, which comes after every floor that the writer
        // published before it knew this reader.
        let bits = self.page.control();
        if bits & control::EVICTED != 0 {
            return Err(self.evicted());
        }
        // The bit is read before the floor: once the writer holds the floor for this reader, the floor stays where it
        // is read here, or below.
        let registered = bits & control::REGISTERED != 0;
        let intact = !self.position.is_passed();
        let stays = registered && !self.connection.moves.has_moved(bits);
        let joined = stays && intact && self.position.geometry().on_full != OnFull::Overwrite;
        self.joined = match joined {
            false => Joined::No,
            true if self.position.has_times() => Joined::Timed,
            true => Joined::Plain,
        };
        Ok(intact)
    }
}
