//! A message that a reader stands at, without a borrow of the reader.

use super::position::Found;

/// The next message has arrived, and the reader stands at it.
#[derive(Debug)]
#[must_use]
pub struct Ready(Found);

impl Ready {
    #[inline(always)]
    pub(super) fn new(found: Found) -> Ready {
        Ready(found)
    }

    #[inline(always)]
    pub(super) fn found(self) -> Found {
        self.0
    }
}
