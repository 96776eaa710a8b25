//! Looking for the next record, and whether what was seen can be believed.

use super::Reader;
use super::moves::Standing;
use super::position::Found;
use crate::os::clock::monotonic_ns;
use crate::ring::geometry::OnFull;
use crate::ring::layout::control;
use crate::ring::published::is_unchanged;
use crate::ring::reader::error::Result;
use crate::ring::record::Kind;

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
        self.position.at_hand().filter(|_| self.joined)
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
                    // The offset says no more how much was read since space was given back.
                    self.page.set_due(self.position.off());
                }
                _ => return Err(self.position.corrupt(header)),
            }
        }
    }

    /// Whether what was just read cannot have been overwritten, in the one case that is common: on a channel that loses
    /// nothing, by a reader that is registered and not evicted.
    #[inline(always)]
    pub(super) fn is_settled(&self) -> bool {
        let (control, made) = (&self.page.shared().control.value, self.connection.moves.made());
        self.joined && is_unchanged(control, control::EVICTED | control::MOVES, made)
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
        let bits = self.page.control();
        if bits & control::EVICTED != 0 {
            return Err(self.evicted());
        }
        // The bit is looked at before the floor: once the writer holds the floor, it stays where it is seen here or below.
        let registered = bits & control::REGISTERED != 0;
        let intact = !self.position.is_passed();
        let stays = registered && !self.connection.moves.has_moved(bits);
        self.joined = stays && intact && self.position.geometry().on_full != OnFull::Overwrite;
        Ok(intact)
    }
}
