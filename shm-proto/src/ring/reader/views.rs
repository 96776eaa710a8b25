//! Several messages in shared memory at once, for programs that pay for each call: the C library.

use super::position::Stretch;
use super::{Joined, Message, Reader, ReaderError};
use crate::ring::layout::control;
use crate::ring::published::is_unchanged;
use crate::ring::reader::error::Result;

/// Messages one after the other, borrowed from the reader. [`Message`](super::Message) says what holds for their bytes.
#[derive(Debug)]
#[must_use = "messages that are not finished stay the next ones to receive"]
pub struct Views<'a> {
    reader: &'a mut Reader,
    stretch: Stretch,
}

impl Reader {
    /// Up to `most` messages that are at hand. `each` gets the address of the first byte, the number of bytes, the message's number
    /// and the number of messages that were lost before it.
    ///
    /// `None` if no message is at hand, or if each message has to be looked at by itself: the channel is an `overwrite` channel or
    /// has publish times, the writer does not hold the floor for this reader yet, or a follower has the message already. Then receive one.
    #[doc(hidden)]
    #[inline]
    pub fn lend_many(&mut self, most: usize, mut each: impl FnMut(*const u8, usize, u64, u64)) -> Option<Views<'_>> {
        if self.joined != Joined::Plain || self.left.is_some() || self.losses.knows(self.seq()) {
            return None;
        }
        let losses = &self.losses;
        let stretch = self.position.stretch(most, |payload, len, seq| each(payload, len, seq, losses.lost_before(seq)));
        if stretch.count() == 0 {
            return None;
        }
        Some(Views { reader: self, stretch })
    }
}

/// What the C library's calls do as long as nothing special happens. The rest of a call is far from them.
#[doc(hidden)]
impl Reader {
    /// The next message, if it has arrived and nothing needs a closer look. `None` says nothing: receive in the ordinary way.
    #[inline(always)]
    pub fn take_at_hand(&mut self) -> Option<Message<'_>> {
        let found = self.at_hand()?;
        Some(Message::new(self, found))
    }
}

#[doc(hidden)]
impl<'a> Message<'a> {
    /// Finishes if everything that was read is valid without a closer look, or gives the message back.
    #[inline(always)]
    pub fn finish_settled(self) -> Option<Message<'a>> {
        self.pass_settled().err()
    }
}

impl Views<'_> {
    /// The reader that lends the messages.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        self.reader
    }

    /// The number of messages.
    #[must_use]
    pub fn count(&self) -> usize {
        self.stretch.count()
    }

    /// Finishes with all messages. Returns how many of them, from the first on, were valid, and why the next one was not.
    ///
    /// # Errors
    /// As [`Message::finish`](super::Message::finish).
    #[inline]
    pub fn finish(self) -> (usize, Result<()>) {
        let Views { reader, stretch } = self;
        let (made, count) = (reader.connection.moves.made(), stretch.count());
        if !is_unchanged(&reader.page.shared().control.value, control::EVICTED | control::MOVES, made) {
            return reader.finish_each(count);
        }
        reader.position.pass_all(stretch);
        if reader.page.is_due(reader.position.off()) {
            reader.give_back_now();
        }
        (count, Ok(()))
    }
}

impl Reader {
    #[cold]
    #[inline(never)]
    fn finish_each(&mut self, count: usize) -> (usize, Result<(), ReaderError>) {
        for valid in 0..count {
            let found = self.position.at_hand();
            if let Err(error) = self.finish(found) {
                return (valid, Err(error));
            }
        }
        (count, Ok(()))
    }
}
