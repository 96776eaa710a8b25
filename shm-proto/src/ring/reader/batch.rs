//! Several messages whose space is given back together.

use super::{Message, Reader};
use crate::ring::reader::error::Result;

/// Messages received one after the other; see [`Reader::batch`]. Dropping the batch gives their space back.
#[derive(Debug)]
#[must_use = "a batch receives nothing by itself"]
pub struct Batch<'a> {
    reader: &'a mut Reader,
    left: usize,
}

impl<'a> Batch<'a> {
    pub(super) fn new(reader: &'a mut Reader, most: usize) -> Self {
        Batch { reader, left: most }
    }
}

impl Batch<'_> {
    /// The next message, or `None` if the batch is full or there are no more messages.
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
