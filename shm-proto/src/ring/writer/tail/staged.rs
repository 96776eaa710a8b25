//! The batch: records that are in place, but not visible yet.

use crate::ring::record::Header;
use crate::ring::walker::Walker;

/// The records that are staged at the tail. No unsafe code relies on them.
#[derive(Debug, Default)]
pub(super) struct Staged {
    first: Option<First>,
}

/// The first record of a batch.
#[derive(Debug)]
struct First {
    at: Walker,
    /// Its header, which stays zero in the ring until the release of that header makes the whole batch visible.
    header: Header,
    /// The records behind it get no time: all that is left to do for the next one is its header.
    only_headers: bool,
}

impl Staged {
    /// The number of the first staged message.
    #[inline(always)]
    pub(super) fn seq(&self) -> Option<u64> {
        self.first.as_ref().map(|first| first.at.seq)
    }

    /// Whether all that is left to do for the next record is its header: a batch has [begun](Self::begin), and its records get
    /// no time.
    #[inline(always)]
    pub(super) fn needs_only_headers(&self) -> bool {
        self.first.as_ref().is_some_and(|first| first.only_headers)
    }

    /// Begins a batch with this record, and keeps its header. False if a batch has begun: then the header may be stored at
    /// once.
    pub(super) fn begin(&mut self, at: Walker, header: Header, has_times: bool) -> bool {
        let begins = self.first.is_none();
        if begins {
            self.first = Some(First { at, header, only_headers: !has_times });
        }
        begins
    }

    /// Ends the batch; returns the first record.
    #[inline(always)]
    pub(super) fn end(&mut self) -> Option<(Walker, Header)> {
        self.first.take().map(|first| (first.at, first.header))
    }
}
