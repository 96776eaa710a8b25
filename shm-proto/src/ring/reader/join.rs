//! Where a reader starts.

use super::error::{ReaderError, Result};
use super::moves::Standing;
use super::{Reader, trouble};
use crate::os::clock::monotonic_ns;
use crate::ring::geometry::Start;
use crate::ring::layout::MARK_EVERY;

impl Reader {
    /// Chooses the start. The writer may not know this reader yet, and a publish in progress may overwrite what lies
    /// before the next floor: see [`floor`](crate::ring::floor).
    pub(super) fn join(&mut self, start: Start) -> Result<()> {
        let position = &mut self.position;
        let mut place = position.believe(position.header().next_floor.load())?;
        // With a single writer, the floor is never after the next floor.
        let floor = position.believe(position.header().floor.load())?;
        let mark = if start == Start::New { position.believe(position.header().mark.load())? } else { floor };
        for other in [floor, mark] {
            if other.pos > place.pos {
                place = other;
            }
        }
        position.go_to(place);
        self.losses.begin(place.seq);
        // The mark is somewhat before the tail. Walk from the mark to the tail, but do not chase a writer that is
        // faster. If the floor passes the reader on the way, the reader also moves forward. The cursor is published
        // only at the end: a writer that waits for readers or acknowledgements takes a reader with a cursor for one
        // that receives what comes next. Until then, the writer holds the floor for a reader that it knows.
        while start == Start::New && self.position.pos().saturating_sub(place.pos) <= MARK_EVERY {
            match self.look_ahead()? {
                Some(found) => self.position.pass(found),
                None if self.position.is_passed() => self.catch_up()?,
                // Where this segment ends is being said: what stands here may or may not be a message.
                None if self.standing()? == Standing::Unknown => drop(self.standing_for_certain()?),
                None => break,
            }
        }
        // Messages that were lost while the reader chose its start do not count.
        self.losses.begin(self.seq());
        self.page.show_lost(0);
        self.pause.begin(self.position.at());
        self.give_back_now();
        Ok(())
    }

    /// The segment is broken: the reader starts at the beginning of the next segment, if the daemon makes one.
    #[cold]
    pub(super) fn join_later(&mut self, error: ReaderError) -> Result<()> {
        let (instance, deadline) = (self.geometry().instance, monotonic_ns().saturating_add(trouble::VERDICT_NS));
        let told = self.on_error(error)?;
        while self.geometry().instance == instance {
            if monotonic_ns() >= deadline || self.connection.is_mute() {
                let unanswered = || self.position.broken("the daemon has not replaced it".to_owned());
                return Err(told.unwrap_or_else(unanswered));
            }
            self.connection.await_line();
            self.connection.listen();
            if self.connection.moves.end().is_some() {
                self.go_over_broken()?;
            }
        }
        self.losses.begin_at(self.seq());
        self.give_back_now();
        Ok(())
    }
}
