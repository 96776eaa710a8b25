//! A reader polls one header, the next one it expects, and gives space back in steps.
//!
//! The segment is mapped read-only. The program that wrote it may be hostile, so the reader checks headers before it
//! follows them and copies payloads out; see [`Message`].
//!
//! | part, called in turn | what only this part may change |
//! |---|---|
//! | [`Position`] | the mapped segment and where the reader stands there |
//! | [`Losses`] | what was not received |
//! | [`Connection`] | the link to the daemon, moves to new segments, trouble |
//! | [`Page`] | what the writer sees of the reader, and how the reader sleeps |

mod batch;
mod connection;
mod descriptor;
mod error;
mod give_back;
mod join;
mod losses;
mod message;
mod messages;
mod moves;
mod next_record;
mod page;
mod pause;
mod position;
mod ready;
mod resume;
mod status;
mod timed;
mod trouble;
mod views;
mod wait;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

pub use self::batch::Batch;
use self::connection::Connection;
use self::descriptor::Descriptor;
pub use self::error::ReaderError;
use self::error::Result;
use self::losses::Losses;
pub use self::message::{Message, Words};
pub use self::messages::{Messages, OwnedMessage};
use self::page::Page;
use self::pause::Pause;
use self::position::{Found, Mapped, Position};
pub use self::ready::Ready;
pub use self::views::Views;
use super::spin::Spin;
use super::wake::Barrier;
use crate::error::SystemError;
use crate::os::bell::Bell;
use crate::os::clock::{self, monotonic_ns};
use crate::os::page::SharedPage;
use crate::ring::geometry::{Geometry, Start};
use crate::ring::link::ReaderLink;

/// Receives a channel's messages, each exactly once and in order.
#[derive(Debug)]
pub struct Reader {
    position: Position,
    losses: Losses,
    connection: Connection,
    page: Page,
    joined: Joined,
    /// The record at the current place, if the program has finished with it before it was known whether the record is a
    /// message.
    left: Option<Found>,
    descriptor: Descriptor,
    pause: Pause,
    spin: Spin,
    /// When the reader went to sleep in a poll loop, in `CLOCK_MONOTONIC` nanoseconds; 0 if it has received a message
    /// since.
    armed_ns: u64,
    /// Number of looks that found nothing; wraps around.
    looks: u32,
    /// With publish times: the delays of the messages before this one are counted.
    timed: u64,
    /// When the reader last read what the daemon had sent while giving space back, in `CLOCK_MONOTONIC` nanoseconds.
    listened_ns: u64,
}

/// Whether the channel is lossless, the writer holds the floor for this reader, and the reader has looked at the floor since
/// then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joined {
    No,
    /// It is so, and the delay of each message is counted.
    Timed,
    /// It is so, and a message needs no more than to be found.
    Plain,
}

/// The facts about a message that was copied out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The message's number.
    pub seq: u64,
    /// How many messages before it were lost to overwriting.
    pub lost_before: u64,
    /// When it was published: see [`Message::published_ns`].
    pub published_ns: Option<u64>,
}

impl Reader {
    /// Maps the objects that the daemon has handed out, and chooses the start. `link` is the connection that represents
    /// the attachment.
    ///
    /// # Errors
    /// [`ReaderError::Corrupt`] if the segment is not as the geometry says.
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
            joined: Joined::No,
            left: None,
            descriptor: Descriptor::default(),
            pause: Pause::new(),
            spin: Spin::default(),
            armed_ns: 0,
            looks: 0,
            timed: 0,
            listened_ns: monotonic_ns(),
        };
        match reader.join(start) {
            Ok(()) => {}
            Err(error @ ReaderError::Corrupt { .. }) => reader.join_later(error)?,
            Err(error) => return Err(error),
        }
        Ok(reader)
    }

    /// The next message, or `None` if there is none yet. Never sleeps. The first look after messages that finds nothing
    /// takes some microseconds, so that the writer can fill the next cache lines undisturbed.
    ///
    /// # Errors
    /// [`ReaderError::Closed`] and [`ReaderError::Disconnected`] if there will be no more messages,
    /// [`ReaderError::Evicted`], and [`ReaderError::Corrupt`] if the writer broke the layout.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Message<'_>>> {
        let found = match self.at_hand() {
            Some(found) => Some(found),
            None => self.look_again()?,
        };
        Ok(found.map(|found| Message::new(self, found)))
    }

    /// Waits for the next message; without a timeout, with no time limit.
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
        if let Some(found) = self.timed_at_hand() {
            return Ok(found);
        }
        let deadline = clock::deadline(timeout);
        if self.spin(deadline)
            && let Some(found) = self.at_hand()
        {
            return Ok(found);
        }
        // If there is nothing to read, this gives back what was read. The writer may be waiting for that space.
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

    /// Copies the next message out and replaces the contents of `out` with it. If a message is overwritten during the
    /// copy, it counts as lost, and the next message is received instead.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_into(&mut self, out: &mut Vec<u8>, timeout: Option<Duration>) -> Result<Received> {
        self.recv_with(timeout, |message| message.copy_to_vec(out)).map(|(received, ())| received)
    }

    /// Like [`recv_into`](Self::recv_into), with `copy` to copy each message out.
    pub(in crate::ring) fn recv_with<T>(
        &mut self,
        timeout: Option<Duration>,
        mut copy: impl FnMut(&Message<'_>) -> T,
    ) -> Result<(Received, T)> {
        let deadline = clock::deadline(timeout);
        let mut lost_before = 0;
        loop {
            let left = timeout.map(|_| clock::left(deadline));
            let message = self.recv(left)?;
            let seq = message.seq();
            let published_ns = message.published_ns();
            lost_before += message.lost_before();
            let copied = copy(&message);
            match message.finish() {
                Ok(()) => return Ok((Received { seq, lost_before, published_ns }, copied)),
                Err(ReaderError::Lapped { .. } | ReaderError::Withdrawn { .. }) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Receives up to `most` messages that are available now. Their space is given back at the end of the batch at the
    /// latest.
    pub fn batch(&mut self, most: usize) -> Batch<'_> {
        Batch::new(self, most)
    }

    /// Moves the reader to the oldest whole record, and counts the messages that are lost by that.
    fn catch_up(&mut self) -> Result<()> {
        let floor = self.position.believe(self.position.header().floor.load())?;
        // The caller saw that the floor had passed this reader. Because a reader only moves forward, it comes to an end
        // whatever the writer does, and the subtractions below do not overflow.
        if floor.pos <= self.position.pos() || floor.seq < self.seq() {
            let reason = format!("the floor went back to position {}, message {}", floor.pos, floor.seq);
            return Err(self.position.broken(reason));
        }
        if self.connection.moves.end().is_some_and(|end| floor.pos > end) {
            // A writer that had lost its role has written beyond the end of the segment.
            return self.go_over();
        }
        self.lose(floor.seq - self.seq());
        self.position.go_to(floor);
        if self.page.has_joined() {
            self.give_back_now();
        }
        Ok(())
    }

    /// Counts the next `lost` messages, from the current place on, as lost.
    fn lose(&mut self, lost: u64) {
        if lost > 0 {
            self.losses.lose(self.position.seq(), lost);
            self.page.show_lost(self.losses.lost());
        }
    }

    /// The channel's fixed facts.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        self.position.geometry()
    }

    /// The number of the next message to receive.
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
}

impl Drop for Reader {
    /// Shows how far the reader came, because the daemon logs that. A reader that has not chosen its start has no place.
    fn drop(&mut self) {
        if self.page.has_joined() {
            self.give_back();
        }
        self.page.leave();
    }
}
