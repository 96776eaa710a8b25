//! A reader: polls the one header it stands at, and gives space back in steps.
//!
//! The segment is mapped read-only. What stands in it was written by a program that may be hostile, so headers are checked
//! before they are followed and payloads are copied out; see [`Message`].
//!
//! | part | what only it may change |
//! |---|---|
//! | [`Position`] | the mapped segment and where the reader stands there |
//! | [`Losses`] | what was not received |
//! | [`Connection`] | the link to the daemon, moves to new segments, trouble |
//! | [`Page`] | what the writer sees of the reader, and how the reader sleeps |
//!
//! The [`Reader`] asks one after the other.

mod batch;
mod connection;
mod descriptor;
mod error;
mod losses;
mod message;
mod moves;
mod next_record;
mod page;
mod pause;
mod position;
mod resume;
mod trouble;
mod wait;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

pub use self::batch::Batch;
use self::connection::Connection;
use self::descriptor::Descriptor;
pub use self::error::ReaderError;
use self::error::Result;
use self::losses::Losses;
pub use self::message::{Message, Words};
use self::page::Page;
use self::pause::Pause;
use self::position::{Found, Mapped, Position};
pub(crate) use self::resume::Ready;
use super::layout::{MARK_EVERY, ReaderPage, control};
use super::published::is_unchanged;
use super::spin::Spin;
use super::wake::Barrier;
use crate::error::SystemError;
use crate::os::bell::Bell;
use crate::os::clock::{self, monotonic_ns};
use crate::os::page::SharedPage;
use crate::ring::geometry::{Geometry, Start};
use crate::ring::link::ReaderLink;

/// A reader at work takes in what the daemon has said so often, when it gives space back.
const LISTEN_NS: u64 = 5_000_000;

/// Receives a channel's messages, each exactly once and in order.
#[derive(Debug)]
pub struct Reader {
    position: Position,
    losses: Losses,
    connection: Connection,
    page: Page,
    /// The channel loses nothing, the writer holds the floor for this reader, and the floor has been looked at since.
    joined: bool,
    /// The record at the present place, if the program is done with it and nobody knows whether it was one.
    left: Option<Found>,
    descriptor: Descriptor,
    pause: Pause,
    spin: Spin,
    /// When it went to sleep in a poll loop, `CLOCK_MONOTONIC` nanoseconds; 0 when it has received since.
    armed_ns: u64,
    /// How often it has looked and found nothing, wrapping.
    looks: u32,
    /// When it last took in what the daemon has said while it gave space back, `CLOCK_MONOTONIC` nanoseconds.
    listened_ns: u64,
}

/// What came with a message that was copied out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The message's number.
    pub seq: u64,
    /// How many messages before it were lost to overwriting.
    pub lost_before: u64,
}

impl Reader {
    /// Maps what the daemon has handed out and chooses the start. `link` is the connection that is the attachment.
    ///
    /// # Errors
    /// [`ReaderError::Corrupt`] when the segment is not what the geometry says.
    pub fn open(
        segment: BorrowedFd<'_>,
        page: BorrowedFd<'_>,
        bell: OwnedFd,
        geometry: Geometry,
        start: Start,
        link: Option<ReaderLink>,
    ) -> Result<Reader> {
        let file = segment.try_clone_to_owned().map_err(|e| SystemError::new("duplicate a segment's descriptor", e))?;
        let mapped = Mapped::open(segment, &geometry)?;
        let barrier = if geometry.asymmetric { Barrier::Asymmetric } else { Barrier::Symmetric };
        let mut reader = Reader {
            page: Page::new(SharedPage::open(page)?, Bell::from_fd(bell)?, barrier),
            position: Position::new(mapped, file, geometry),
            losses: Losses::default(),
            connection: Connection::new(link),
            joined: false,
            left: None,
            descriptor: Descriptor::default(),
            pause: Pause::new(),
            spin: Spin::default(),
            armed_ns: 0,
            looks: 0,
            listened_ns: monotonic_ns(),
        };
        match reader.join(start) {
            Ok(()) => {}
            Err(error @ ReaderError::Corrupt { .. }) => reader.join_later(error)?,
            Err(error) => return Err(error),
        }
        Ok(reader)
    }

    /// The segment is broken: the start is that of the next one, if the daemon makes one.
    #[cold]
    fn join_later(&mut self, error: ReaderError) -> Result<()> {
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
        Ok(())
    }

    /// Chooses the start. The writer may not know of this reader yet, and the publish that is under way may overwrite what lies
    /// before the next floor: see [`floor`](super::floor).
    fn join(&mut self, start: Start) -> Result<()> {
        let position = &mut self.position;
        let mut place = position.believe(position.header().next_floor.load())?;
        // With one writer the floor is never after the next floor.
        let floor = position.believe(position.header().floor.load())?;
        let mark = if start == Start::New { position.believe(position.header().mark.load())? } else { floor };
        for other in [floor, mark] {
            if other.pos > place.pos {
                place = other;
            }
        }
        position.go_to(place);
        self.losses.begin(place.seq);
        self.give_back_now();
        // The mark is somewhat before the tail: walk there, but not after a writer that is faster. Being overtaken on the way
        // moves us forward, too.
        while start == Start::New && self.position.pos() - place.pos <= MARK_EVERY {
            match self.look_ahead()? {
                Some(found) => self.position.pass(found),
                None if self.position.is_passed() => self.catch_up()?,
                None => break,
            }
        }
        // Losses while the start was chosen do not count.
        self.losses.begin(self.seq());
        self.page.show_lost(0);
        self.pause.begin(self.position.at());
        self.give_back_now();
        Ok(())
    }

    /// The next message, or `None` when there is none yet. Never waits.
    ///
    /// # Errors
    /// [`ReaderError::Closed`] and [`ReaderError::Disconnected`] when there will be none any more, [`ReaderError::Evicted`],
    /// [`ReaderError::Corrupt`] when the writer broke the layout.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Message<'_>>> {
        let found = match self.at_hand() {
            Some(found) => found,
            None if self.is_quiet() => return Ok(None),
            None => match self.next_record()? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        Ok(Some(Message::new(self, found)))
    }

    /// The next message, waiting for it; without a timeout, for as long as it takes.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv), and [`ReaderError::TimedOut`].
    #[inline]
    pub fn recv(&mut self, timeout: Option<Duration>) -> Result<Message<'_>> {
        let found = match self.at_hand() {
            Some(found) => found,
            None => self.await_record(timeout)?,
        };
        Ok(Message::new(self, found))
    }

    #[cold]
    #[inline(never)]
    fn await_record(&mut self, timeout: Option<Duration>) -> Result<Found> {
        if self.spin()
            && let Some(found) = self.at_hand()
        {
            return Ok(found);
        }
        let deadline = clock::deadline(timeout);
        // When there is nothing this gives back what was read, which the writer may wait for.
        if let Some(found) = self.next_record()? {
            return Ok(found);
        }
        if self.look_on(deadline)
            && let Some(found) = self.at_hand()
        {
            return Ok(found);
        }
        let begun = monotonic_ns();
        loop {
            if let Some(found) = self.next_record()? {
                self.spin.slept(monotonic_ns() - begun);
                return Ok(found);
            }
            if !self.wait_until(deadline)? {
                let what = format!("a message on channel {}", self.geometry().channel);
                return Err(ReaderError::TimedOut { what, waited: timeout.unwrap_or_default() });
            }
        }
    }

    /// Receives by copying: replaces the contents of `out`. What was overwritten while it was copied is counted as lost and
    /// the next message taken instead.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_into(&mut self, out: &mut Vec<u8>, timeout: Option<Duration>) -> Result<Received> {
        let deadline = clock::deadline(timeout);
        let mut lost_before = 0;
        loop {
            let left = timeout.map(|_| Duration::from_nanos(deadline.saturating_sub(monotonic_ns())));
            let message = self.recv(left)?;
            let seq = message.seq();
            lost_before += message.lost_before();
            message.copy_to_vec(out);
            match message.finish() {
                Ok(()) => return Ok(Received { seq, lost_before }),
                Err(ReaderError::Lapped { .. } | ReaderError::Withdrawn { .. }) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Receives up to `most` messages that are available now, and gives their space back at the end at the latest.
    pub fn batch(&mut self, most: usize) -> Batch<'_> {
        Batch::new(self, most)
    }

    /// Goes to the oldest whole record, and counts what is lost by that.
    fn catch_up(&mut self) -> Result<()> {
        let floor = self.position.believe(self.position.header().floor.load())?;
        // It was seen to have passed this reader. Going forward only, a reader comes to an end whatever the writer does, and
        // the numbers below do not overflow.
        if floor.pos <= self.position.pos() || floor.seq < self.seq() {
            let reason = format!("the floor went back to position {}, message {}", floor.pos, floor.seq);
            return Err(self.position.broken(reason));
        }
        if self.connection.moves.end().is_some_and(|end| floor.pos > end) {
            // A writer that had lost its role has gone further than the channel has.
            return self.go_over();
        }
        self.lose(floor.seq - self.seq());
        self.position.go_to(floor);
        self.give_back_now();
        Ok(())
    }

    /// So many messages from the present place on are lost.
    fn lose(&mut self, lost: u64) {
        if lost > 0 {
            self.losses.lose(self.position.seq(), lost);
            self.page.show_lost(self.losses.lost());
        }
    }

    /// [Passes](Self::pass) the record at the present place if it is [settled](Self::is_settled). Returns whether it is.
    #[inline(always)]
    fn pass_settled(&mut self, found: Found) -> bool {
        // Looked up once here, because the fence keeps the compiler from doing so.
        let page: &ReaderPage = self.page.shared();
        let made = self.connection.moves.made();
        if !self.joined || !is_unchanged(&page.control.value, control::EVICTED | control::MOVES, made) {
            return false;
        }
        self.position.pass(found);
        // Relaxed: as in `Page::is_due`.
        if self.position.off() >= page.space_wanted.give_at.load(Ordering::Relaxed) {
            self.give_back_now();
        }
        true
    }

    #[inline(always)]
    fn pass(&mut self, found: Found) {
        self.position.pass(found);
        if self.page.is_due(self.position.off()) {
            self.give_back_now();
        }
    }

    /// Gives back what was read, if anything was since the last time.
    fn give_back(&mut self) {
        if self.position.pos() != self.page.given_back() {
            self.give_back_now();
        }
    }

    #[cold]
    #[inline(never)]
    fn give_back_now(&mut self) {
        let now = monotonic_ns();
        self.page.beat(now);
        // A reader that never finds the ring empty learns here that the daemon has died and that another has come.
        if now.saturating_sub(self.listened_ns) >= LISTEN_NS {
            self.listened_ns = now;
            self.listen();
        }
        let capacity = self.position.look_at_capacity();
        let step = if self.geometry().ack { 0 } else { capacity / 8 };
        let next = self.position.off().saturating_add(step);
        self.page.give_back(self.position.pos(), next, (self.seq(), self.received()));
    }

    /// The channel's fixed facts.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        self.position.geometry()
    }

    /// The number of the message to be received next.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.position.seq()
    }

    /// Messages received.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.losses.received(self.position.seq())
    }

    /// Messages lost to overwriting since attaching.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.losses.lost()
    }

    /// Why the daemon ended the attachment, once it has.
    #[must_use]
    pub fn farewell(&self) -> Option<&str> {
        self.connection.farewell()
    }
}

impl Drop for Reader {
    /// Shows how far it came: the daemon logs it.
    fn drop(&mut self) {
        self.give_back();
        self.page.leave();
    }
}
