//! Moves a byte stream into messages: many small ones through a buffer, large ones straight into their place.

mod flush;
mod rest;
mod skip;
mod space;

use std::io;

use self::flush::Flush;
pub use self::rest::PumpState;
use self::skip::Skip;
use self::space::keep;
use super::Framing;
use super::cut::{Cut, LENGTH};
use super::input::Input;
use crate::error::SystemError;
use crate::framing::error::{FramingError, Result};
use crate::size::Bytes;

/// One read fetches at most this much for small messages.
const BUFFER: usize = 256 << 10;
/// From so many missing bytes on, a message whose length is known is read in place: one copy less pays for a read of
/// its own.
const IN_PLACE: usize = 16 << 10;
/// A place that is asked for without a message to put there makes a full ring wait for readers, drop, or overwrite for
/// nothing. Where the input does not say how much it has, a chunk's first bytes are read through the buffer for that.
const FIRST: usize = 4 << 10;

/// Where messages go: a ring's writer, or a test's list.
pub trait MessageSink {
    /// The error of publishing, which cutting errors convert to.
    type Error: From<FramingError>;

    /// Publishes messages in order; they may become visible together. Returns their number, dropped ones included.
    ///
    /// # Errors
    /// The error of publishing; the failed message and those after it are not published.
    fn publish_all<'m>(&mut self, messages: impl Iterator<Item = &'m [u8]>) -> Result<u64, Self::Error>;

    /// Offers a place for one message of `len` bytes to `fill`, which returns how many of them, from the start, make
    /// the message, or nothing for no message at all.
    ///
    /// # Errors
    /// The error of publishing.
    fn publish_in_place(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Result<Slotted, Self::Error>;
}

/// The result of offering a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slotted {
    /// The message is published.
    Published,
    /// There was a place, but no message.
    Nothing,
    /// The sink will not take this message and has counted it as dropped.
    Dropped,
    /// There is no place now, and this sink does not wait for one.
    NoPlace,
}

/// The result of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read something, and published this number of messages, perhaps none.
    Published(u64),
    /// The input has nothing now.
    WouldBlock,
    /// The input has ended and everything in it is published.
    Eof,
}

/// Cuts one input into messages.
///
/// Memory is bounded by the largest message, and is checked for before it is allocated. A message over the limit is an
/// error that names the limit; nothing is truncated.
#[derive(Debug)]
pub struct Pump {
    framing: Framing,
    max_message: usize,
    /// The delimiter belongs to the message.
    keep: bool,
    /// `buffer[start..end]` was read and is not published.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// How much of that is known to hold no delimiter, so that a long line is searched once.
    searched: usize,
    /// The message at `start` did not arrive in one go; trying again in place would copy its beginning each time.
    in_pieces: bool,
    /// The sink has already dropped the message at `start`: its bytes are read and skipped.
    dropped: bool,
    /// A chunk cut short by the end of the input is an error.
    whole_chunks: bool,
    skip: Skip,
    flush: Flush,
    /// The bytes behind a skipped message may hold whole messages.
    look_again: bool,
    published: u64,
    /// The input has ended, and the sink has not taken the last message yet.
    last: bool,
    ended: bool,
}

impl Pump {
    /// Cuts by `framing` into messages of at most `max_message` bytes.
    ///
    /// # Errors
    /// [`FramingError::BadInput`] when every whole chunk, or every byte of a stream, would be over the limit.
    pub fn new(framing: Framing, max_message: u64) -> Result<Self> {
        let max = usize::try_from(max_message).unwrap_or(usize::MAX - BUFFER);
        let pump = Pump {
            framing,
            max_message: max.min(usize::MAX - BUFFER),
            keep: false,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            searched: 0,
            in_pieces: false,
            dropped: false,
            whole_chunks: false,
            skip: Skip::Nothing,
            flush: Flush::default(),
            look_again: false,
            published: 0,
            last: false,
            ended: false,
        };
        match framing {
            Framing::Chunk(size) if size > max_message => Err(pump.over_limit(&format!("a chunk of {size} bytes"))),
            // It would never take a byte.
            Framing::Stream if max_message == 0 => Err(pump.over_limit("a byte")),
            _ => Ok(pump),
        }
    }

    /// Leaves the delimiter of [`Framing::Lines`] and [`Framing::Nul`] in the message, where it counts as one of its
    /// bytes; a last message that lacks it gets it. Zero-terminated messages are then strings in C.
    #[must_use]
    pub fn keeping_delimiters(mut self, keep: bool) -> Self {
        self.keep = keep;
        self
    }

    /// Makes a chunk that the end of the input cuts short an error, as it is for [`Framing::Length`]: for inputs that may
    /// end because their writer died.
    #[must_use]
    pub fn requiring_whole_chunks(mut self) -> Self {
        self.whole_chunks = true;
        self
    }

    fn kept_delimiter(&self) -> Option<u8> {
        match self.framing {
            Framing::Lines => self.keep.then_some(b'\n'),
            Framing::Nul => self.keep.then_some(0),
            Framing::Length | Framing::Chunk(_) | Framing::Stream => None,
        }
    }

    /// Messages handed to the sink so far, with those that it dropped.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.published
    }

    /// [`step`](Self::step), without a look at the time.
    fn read_once<S: MessageSink>(&mut self, input: &mut impl Input, sink: &mut S) -> Result<Step, S::Error> {
        if self.ended {
            return Ok(Step::Eof);
        }
        if std::mem::take(&mut self.look_again) {
            return self.publish_complete(sink).map(Step::Published);
        }
        if self.last {
            return self.publish_last(sink);
        }
        let mut most = usize::MAX;
        if let Some((len, lacks)) = self.large() {
            let readable = input.readable();
            let is_there = readable.map_or(self.unfinished() > 0, |bytes| bytes >= lacks);
            if is_there && let Some(step) = self.step_in_place(len, input, sink)? {
                return Ok(step);
            }
            if readable.is_none() && self.unfinished() == 0 && lacks >= FIRST + IN_PLACE {
                most = FIRST;
            }
        }
        self.make_room(most)?;
        let end = self.buffer.len().min(self.end.saturating_add(most));
        match input.read(&mut self.buffer[self.end..end]) {
            Ok(0) => self.finish(sink),
            Ok(n) => {
                self.end += n;
                self.throw_away();
                self.publish_complete(sink).map(Step::Published)
            }
            Err(e) => Ok(outcome_of(e)?),
        }
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Bytes of the unfinished message at `start`, its length prefix included, where that can be known by now.
    fn known_length(&self) -> Option<usize> {
        match self.framing {
            Framing::Lines | Framing::Nul | Framing::Stream => None,
            Framing::Chunk(size) => usize::try_from(size).ok(),
            Framing::Length => {
                let prefix: [u8; LENGTH] = self.unread().get(..LENGTH)?.try_into().ok()?;
                Some(LENGTH + u32::from_le_bytes(prefix) as usize)
            }
        }
    }

    fn prefix(&self) -> usize {
        if self.framing == Framing::Length { LENGTH } else { 0 }
    }

    /// The payload's length of the message at `start`, and the bytes that it lacks, if it is worth reading in place.
    fn large(&self) -> Option<(usize, usize)> {
        let whole = self.known_length().filter(|_| !self.in_pieces && !self.dropped && self.skip == Skip::Nothing)?;
        let (len, lacks) = (whole - self.prefix(), whole.checked_sub(self.unfinished())?);
        (len <= self.max_message && lacks >= IN_PLACE).then_some((len, lacks))
    }

    /// Nothing when the sink has no place: then the message goes through the buffer.
    fn step_in_place<S: MessageSink>(
        &mut self,
        len: usize,
        input: &mut impl Input,
        sink: &mut S,
    ) -> Result<Option<Step>, S::Error> {
        let prefix = self.prefix();
        let (from, end) = (self.start + prefix, self.end);
        let before = end - from;
        let (buffer, whole_chunks) = (&mut self.buffer, self.whole_chunks);
        let (mut stopped, mut kept) = (None, true);
        let slotted = sink.publish_in_place(len, |slot| {
            slot[..before].copy_from_slice(&buffer[from..end]);
            let (filled, why) = read_until_full(input, slot, before);
            let last_chunk = prefix == 0 && !whole_chunks && filled > 0 && matches!(why, Some(Ok(0)));
            let whole = filled == len || last_chunk;
            if !whole {
                kept = keep(buffer, end, &slot[before..filled]);
            }
            stopped = why.map(|why| (why, filled));
            whole.then_some(filled)
        })?;
        match (slotted, stopped) {
            (Slotted::NoPlace, _) => Ok(None),
            (Slotted::Dropped, _) => {
                self.dropped = true;
                Ok(None)
            }
            (Slotted::Published, stopped) => {
                self.clear();
                self.published += 1;
                self.ended = matches!(stopped, Some((Ok(0), _)));
                Ok(Some(Step::Published(1)))
            }
            (Slotted::Nothing, Some((_, filled))) if !kept => {
                let reason = format!("no memory for the {filled} bytes of it that are here");
                self.clear();
                Err(self.error(reason).into())
            }
            (Slotted::Nothing, Some((why, filled))) => {
                self.end = from + filled;
                self.in_pieces = filled > 0;
                match why {
                    Ok(_) => self.finish(sink).map(Some),
                    Err(e) => Ok(Some(outcome_of(e)?)),
                }
            }
            (Slotted::Nothing, None) => Ok(Some(Step::Published(0))),
        }
    }

    /// What was read and is not published, to be cut from its beginning.
    fn cut(&self) -> Cut<'_> {
        Cut {
            framing: self.framing,
            rest: &self.buffer[self.start..self.end],
            searched: 0,
            too_long: None,
            max: self.max_message,
            keep: self.keep,
        }
    }

    fn publish_complete<S: MessageSink>(&mut self, sink: &mut S) -> Result<u64, S::Error> {
        let mut cut = Cut { searched: self.searched, ..self.cut() };
        let passed_over = u64::from(self.dropped && (&mut cut).next().is_some());
        let count = passed_over + sink.publish_all(&mut cut)?;
        let (left, too_long) = (cut.rest.len(), cut.too_long);
        self.searched = cut.searched;
        self.start = self.end - left;
        self.published += count;
        self.in_pieces &= count == 0;
        self.dropped &= count == 0;
        match too_long {
            Some(what) => Err(self.over_limit(&what).into()),
            None => Ok(count),
        }
    }

    fn finish<S: MessageSink>(&mut self, sink: &mut S) -> Result<Step, S::Error> {
        self.ended = true;
        let left = self.unread().len();
        if left == 0 || self.skip != Skip::Nothing {
            return Ok(Step::Eof);
        }
        let is_chunk = matches!(self.framing, Framing::Chunk(_));
        if self.framing == Framing::Length || (is_chunk && self.whole_chunks) {
            let prefix = self.prefix();
            let reason = match self.known_length() {
                Some(whole) => format!("the input ends after {} of {} bytes", left - prefix, whole - prefix),
                None => format!("the input ends after {left} of the {LENGTH} bytes of the length"),
            };
            return Err(self.error(reason).into());
        }
        if let Some(delimiter) = self.kept_delimiter() {
            if left >= self.max_message {
                return Err(self.over_limit(&format!("what is left, with its delimiter {} bytes,", left + 1)).into());
            }
            // The next read reports the end again.
            self.append(delimiter).inspect_err(|_| self.ended = false)?;
        }
        self.publish_last(sink)
    }

    /// What is left is a message. The sink may refuse it now, and take it at the next step.
    fn publish_last<S: MessageSink>(&mut self, sink: &mut S) -> Result<Step, S::Error> {
        (self.last, self.ended) = (true, false);
        let last = (!self.dropped).then_some(&self.buffer[self.start..self.end]);
        sink.publish_all(last.into_iter())?;
        (self.last, self.ended) = (false, true);
        self.published += 1;
        self.clear();
        Ok(Step::Published(1))
    }

    fn clear(&mut self) {
        (self.start, self.end, self.searched) = (0, 0, 0);
        (self.in_pieces, self.dropped) = (false, false);
    }

    fn over_limit(&self, what: &str) -> FramingError {
        let limit = self.max_message;
        let (plain, short) = (limit.to_string(), Bytes(limit as u64).to_string());
        let short = if short == plain { String::new() } else { format!(" ({short})") };
        self.error(format!("{what} is over the channel's limit of {plain} bytes a message{short}"))
    }

    fn error(&self, reason: String) -> FramingError {
        FramingError::BadInput { framing: self.framing.to_string(), message: self.published + 1, reason }
    }
}

fn outcome_of(e: io::Error) -> Result<Step> {
    match e.kind() {
        io::ErrorKind::WouldBlock => Ok(Step::WouldBlock),
        io::ErrorKind::Interrupted => Ok(Step::Published(0)),
        _ => Err(SystemError::new("cannot read the input", e).into()),
    }
}

/// Reads until `slot` is full, from `filled` on. Returns how much of it is filled and, when it is not full, what the
/// last read returned.
fn read_until_full(input: &mut impl Input, slot: &mut [u8], mut filled: usize) -> (usize, Option<io::Result<usize>>) {
    while filled < slot.len() {
        match input.read(&mut slot[filled..]) {
            Ok(n) if n > 0 => filled += n,
            stopped => return (filled, Some(stopped)),
        }
    }
    (filled, None)
}

#[cfg(test)]
mod tests;
