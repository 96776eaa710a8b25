//! A reader: polls the one header it stands at, and gives space back in steps.
//!
//! The segment is mapped read-only. What stands in it was written by a program that may be hostile, so headers are checked
//! before they are followed and payloads are copied out; see [`Message`].

mod look;
mod message;
mod moves;
mod pause;
mod trouble;
mod wait;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

pub use self::message::{Message, Words};
use self::moves::Moves;
use self::pause::Pause;
use self::trouble::{Trouble, data_length};
use super::layout::{CURSOR_JOINING, MARK_EVERY, ReaderPage, control};
use super::published::is_unchanged;
use super::record::{HEADER, Strides};
use super::segment::Segment;
use super::spin::Spin;
use super::wake::{self, Barrier};
use super::walker::Walker;
use crate::error::{Error, Result};
use crate::os::bell::Bell;
use crate::os::clock::monotonic_ns;
use crate::os::page::SharedPage;
use crate::os::sem::Semaphore;
use crate::ring::geometry::{Geometry, Start};
use crate::ring::link::ReaderLink;

/// Receives a channel's messages, each exactly once and in order.
#[derive(Debug)]
pub struct Reader {
    segment: Segment,
    /// The segment's descriptor: how long it is, changes.
    file: OwnedFd,
    /// Bytes of data that are known to be there.
    known: u64,
    /// Something is wrong with the segment.
    trouble: Option<Trouble>,
    /// When the daemon was last told of something wrong, `CLOCK_MONOTONIC` nanoseconds.
    reported_ns: u64,
    /// The segments to follow.
    moves: Moves,
    page: SharedPage<ReaderPage>,
    bell: Bell,
    link: Option<ReaderLink>,
    was_connected: bool,
    farewell: Option<String>,
    geometry: Geometry,
    barrier: Barrier,
    strides: Strides,
    /// The header to look at next.
    at: Walker,
    /// Bytes that the last record took.
    last: u64,
    /// Everything before this position was given back.
    given_back: u64,
    /// The ring's capacity when space was last given back, in bytes.
    capacity: u64,
    /// The channel loses nothing, the writer holds the floor for this reader, and the floor has been looked at since.
    joined: bool,
    /// The first message that could be received.
    first: u64,
    pause: Pause,
    spin: Spin,
    /// When it went to sleep in a poll loop, `CLOCK_MONOTONIC` nanoseconds; 0 when it has received since.
    armed_ns: u64,
    lost: u64,
    /// Lost just before message `found`.
    lost_before: u64,
    /// The message after the last loss.
    found: u64,
    /// Numbers left out with a broken segment, just before this message.
    skipped: (u64, u64),
}

/// A record that the reader stands at: payload bytes, and bytes altogether. Both, and the header behind them, lie in the
/// data area.
#[derive(Clone, Copy, Debug)]
struct Found {
    len: u64,
    stride: u64,
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
    /// [`Error::Corrupt`] when the segment is not what the geometry says.
    pub fn open(
        segment: BorrowedFd<'_>,
        page: BorrowedFd<'_>,
        bell: OwnedFd,
        geometry: Geometry,
        start: Start,
        link: Option<ReaderLink>,
    ) -> Result<Reader> {
        let file = segment.try_clone_to_owned().map_err(|e| Error::system("duplicate a segment's descriptor", e))?;
        let segment = Segment::open(segment, &geometry)?;
        let mut reader = Reader {
            known: data_length(file.as_fd(), &geometry)?,
            trouble: None,
            reported_ns: 0,
            skipped: (0, 0),
            file,
            moves: Moves::default(),
            page: SharedPage::open(page)?,
            bell: Bell::from_fd(bell)?,
            was_connected: link.is_some(),
            link,
            farewell: None,
            barrier: if geometry.asymmetric { Barrier::Asymmetric } else { Barrier::Symmetric },
            strides: Strides::new(u64::from(geometry.align)),
            at: Walker::default(),
            last: 0,
            given_back: CURSOR_JOINING,
            capacity: 0,
            joined: false,
            first: 0,
            pause: Pause::new(),
            spin: Spin::default(),
            armed_ns: 0,
            lost: 0,
            lost_before: 0,
            found: 0,
            segment,
            geometry,
        };
        match reader.join(start) {
            Ok(()) => {}
            Err(error @ Error::Corrupt { .. }) => reader.join_later(error)?,
            Err(error) => return Err(error),
        }
        Ok(reader)
    }

    /// The segment is broken: the start is that of the next one, if the daemon makes one.
    #[cold]
    fn join_later(&mut self, error: Error) -> Result<()> {
        let (instance, deadline) = (self.geometry.instance, monotonic_ns().saturating_add(trouble::VERDICT_NS));
        let told = self.on_error(error)?;
        while self.geometry.instance == instance {
            if monotonic_ns() >= deadline || self.link.is_none() {
                return Err(told.unwrap_or_else(|| self.broken("the daemon has not replaced it".to_owned())));
            }
            self.await_line();
            self.listen();
            if self.end().is_some() {
                self.go_over_broken()?;
            }
        }
        self.first = self.at.seq;
        self.skipped = (0, 0);
        Ok(())
    }

    /// Chooses the start. The writer may not know of this reader yet, and the publish that is under way may overwrite what lies
    /// before the next floor: see [`floor`](super::floor).
    fn join(&mut self, start: Start) -> Result<()> {
        let mut place = self.believe(self.segment.header().next_floor.load())?;
        // With one writer the floor is never after the next floor.
        let floor = self.believe(self.segment.header().floor.load())?;
        let mark = if start == Start::New { self.believe(self.segment.header().mark.load())? } else { floor };
        for other in [floor, mark] {
            if other.pos > place.pos {
                place = other;
            }
        }
        self.at = Walker::at(place);
        self.first = place.seq;
        self.give_back_now();
        // The mark is somewhat before the tail: walk there, but not after a writer that is faster. Being overtaken on the way
        // moves us forward, too.
        while start == Start::New && self.at.pos() - place.pos <= MARK_EVERY {
            match self.look_ahead()? {
                Some(found) => {
                    self.at.pass(found.stride);
                }
                None if self.segment.header().floor.has_passed(self.at.pos()) => self.catch_up()?,
                None => break,
            }
        }
        (self.lost, self.lost_before) = (0, 0);
        self.page.line.lost.store(0, Ordering::Relaxed);
        self.first = self.at.seq;
        self.pause.begin(&self.at);
        self.give_back_now();
        Ok(())
    }

    /// The next message, or `None` when there is none yet. Never waits.
    ///
    /// # Errors
    /// [`Error::Closed`] and [`Error::Disconnected`] when there will be none any more, [`Error::Evicted`],
    /// [`Error::Corrupt`] when the writer broke the layout.
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
    /// As [`try_recv`](Self::try_recv), and [`Error::TimedOut`].
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
        let deadline = wait::deadline(timeout);
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
                let what = format!("a message on channel {}", self.geometry.channel);
                return Err(Error::TimedOut { what, waited: timeout.unwrap_or_default() });
            }
        }
    }

    /// Receives by copying: replaces the contents of `out`. What was overwritten while it was copied is counted as lost and
    /// the next message taken instead.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_into(&mut self, out: &mut Vec<u8>, timeout: Option<Duration>) -> Result<Received> {
        let deadline = wait::deadline(timeout);
        let mut lost_before = 0;
        loop {
            let left = timeout.map(|_| Duration::from_nanos(deadline.saturating_sub(monotonic_ns())));
            let message = self.recv(left)?;
            let seq = message.seq();
            lost_before += message.lost_before();
            message.copy_to_vec(out);
            match message.finish() {
                Ok(()) => return Ok(Received { seq, lost_before }),
                Err(Error::Lapped { .. } | Error::Withdrawn { .. }) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Receives up to `most` messages that are available now, and gives their space back at the end at the latest.
    pub fn batch(&mut self, most: usize) -> Batch<'_> {
        Batch { reader: self, left: most }
    }

    /// Goes to the oldest whole record, and counts what is lost by that.
    fn catch_up(&mut self) -> Result<()> {
        let floor = self.believe(self.segment.header().floor.load())?;
        // It was seen to have passed this reader. Going forward only, a reader comes to an end whatever the writer does, and
        // the numbers below do not overflow.
        if floor.pos <= self.at.pos() || floor.seq < self.at.seq {
            return Err(self.broken(format!("the floor went back to position {}, message {}", floor.pos, floor.seq)));
        }
        if self.end().is_some_and(|end| floor.pos > end) {
            // A writer that had lost its role has gone further than the channel has.
            return self.go_over();
        }
        self.lose(floor.seq - self.at.seq, floor.seq);
        self.at = Walker::at(floor);
        self.give_back_now();
        Ok(())
    }

    /// So many messages before message `found` are lost.
    fn lose(&mut self, lost: u64, found: u64) {
        if lost > 0 {
            self.lost += lost;
            self.lost_before = if self.found == self.at.seq { self.lost_before + lost } else { lost };
            self.found = found;
            self.page.line.lost.store(self.lost, Ordering::Relaxed);
        }
    }

    /// [Passes](Self::pass) the record at the present place if it is [settled](Self::is_settled). Returns whether it is.
    #[inline(always)]
    fn pass_settled(&mut self, stride: u64) -> bool {
        // Looked up once here, because the fence keeps the compiler from doing so.
        let page: &ReaderPage = &self.page;
        if !self.joined || !is_unchanged(&page.control.value, control::EVICTED | control::MOVES, self.moves.made) {
            return false;
        }
        self.at.pass(stride);
        self.last = stride;
        if self.at.off >= page.space_wanted.give_at.load(Ordering::Relaxed) {
            self.give_back_now();
        }
        true
    }

    #[inline(always)]
    fn pass(&mut self, stride: u64) {
        self.at.pass(stride);
        self.last = stride;
        // Relaxed: the value only decides whether the cursor is published now.
        if self.at.off >= self.page.space_wanted.give_at.load(Ordering::Relaxed) {
            self.give_back_now();
        }
    }

    /// Gives back what was read, if anything was since the last time.
    fn give_back(&mut self) {
        if self.at.pos() != self.given_back {
            self.give_back_now();
        }
    }

    #[cold]
    #[inline(never)]
    fn give_back_now(&mut self) {
        self.given_back = self.at.pos();
        let line = &self.page.line;
        line.seq.store(self.at.seq, Ordering::Relaxed);
        line.received.store(self.received(), Ordering::Relaxed);
        self.beat(monotonic_ns());
        let capacity = self.segment.header().counters.capacity.load(Ordering::Relaxed);
        let capacity = capacity.min(self.geometry.max_capacity);
        if capacity != self.capacity {
            self.capacity = capacity;
            self.know_less();
        }
        let step = if self.geometry.ack { 0 } else { self.capacity / 8 };
        let (wanted, next) = (&self.page.space_wanted, self.at.off.saturating_add(step));
        if wake::publish_cursor(&self.page.line.cursor, &wanted.value, &wanted.give_at, self.given_back, next) {
            Semaphore::new(&self.page.space).post();
        }
    }

    /// The channel's fixed facts.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The number of the message to be received next.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.at.seq
    }

    /// Messages received.
    #[must_use]
    pub fn received(&self) -> u64 {
        // Every message since the first was either received or lost. Losses while the start was chosen do not count.
        (self.at.seq - self.first).saturating_sub(self.lost)
    }

    /// Messages lost to overwriting since attaching.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Why the daemon ended the attachment, once it has.
    #[must_use]
    pub fn farewell(&self) -> Option<&str> {
        self.farewell.as_deref()
    }
}

impl Drop for Reader {
    /// Shows how far it came: the daemon logs it.
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Messages received one after the other; see [`Reader::batch`]. The space is given back when it is dropped.
#[derive(Debug)]
pub struct Batch<'a> {
    reader: &'a mut Reader,
    left: usize,
}

impl Batch<'_> {
    /// The next message, or `None` when the batch is full or there is nothing more.
    ///
    /// # Errors
    /// As [`Reader::try_recv`].
    #[inline]
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Message<'_>>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.reader.try_recv()
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.reader.give_back();
    }
}
