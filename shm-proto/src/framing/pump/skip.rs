//! For inputs that may be malformed: skipping messages that cannot be taken, and bounding memory.

use serde::{Deserialize, Serialize};

use super::{BUFFER, Pump};
use crate::framing::Framing;

/// What is read and thrown away, after a message that cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Skip {
    Nothing,
    /// Up to this byte, which ends the message.
    Until(u8),
    /// Everything to the end of the input.
    All,
}

impl Pump {
    /// After [`FramingError::BadInput`]: throws the message that could not be taken away as it comes, and goes
    /// on with the next.
    ///
    /// False when nothing tells where the next one begins (a length that cannot be right): then everything to the end of
    /// the input is thrown away.
    pub fn pass_over(&mut self) -> bool {
        self.skip = match self.framing {
            _ if self.ended => Skip::Nothing,
            // A message begins wherever a read does.
            Framing::Stream => Skip::Nothing,
            Framing::Lines => Skip::Until(b'\n'),
            Framing::Nul => Skip::Until(0),
            Framing::Length | Framing::Chunk(_) => Skip::All,
        };
        self.throw_away();
        self.look_again = self.skip == Skip::Nothing && !self.ended;
        !matches!(self.skip, Skip::All)
    }

    /// Whether the next [`step`](Self::step) has something to do that needs no input.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.look_again || self.last
    }

    /// Whether the next bytes belong to a message that is skipped.
    #[must_use]
    pub fn is_passing_over(&self) -> bool {
        self.skip != Skip::Nothing
    }

    /// Removes the skipped bytes from the front of the bytes read.
    pub(super) fn throw_away(&mut self) {
        let delimiter = match self.skip {
            Skip::Nothing => return,
            Skip::Until(delimiter) => self.unread().iter().position(|&byte| byte == delimiter),
            Skip::All => None,
        };
        match delimiter {
            None => self.clear(),
            Some(at) => {
                (self.start, self.searched) = (self.start + at + 1, 0);
                self.skip = Skip::Nothing;
            }
        }
    }

    /// Bytes of an unfinished message that were read. The memory that they take is a quarter more, and a buffer.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.end - self.start
    }

    /// Bytes of memory that the input holds.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.buffer.capacity()
    }

    /// Gives back what a large message took, when nothing of it is needed any more.
    pub fn trim(&mut self) {
        if self.memory() > BUFFER {
            self.release();
        }
    }

    /// Gives all memory back, when nothing in it is needed any more. The next read takes some again.
    pub fn release(&mut self) {
        if self.unread().is_empty() && self.memory() > 0 {
            self.abandon();
        }
    }

    /// Gives all memory back, with the unfinished message in it.
    pub fn abandon(&mut self) {
        self.clear();
        self.buffer = Vec::new();
    }
}
