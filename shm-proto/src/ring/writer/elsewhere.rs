//! Publishing for callers that must not wait: what has to wait is said, and waited for elsewhere, a slice at a time.

use std::time::Duration;

use super::Writer;
use super::ack::Late;
use super::wait::{Patience, SLICE_NS};
use crate::os::clock::monotonic_ns;
use crate::ring::writer::error::{Result, WriterError};

impl Writer {
    /// Like [`publish`](Self::publish), but never waits, neither for space nor for acknowledgements. Nothing is dropped,
    /// overwritten or counted that `publish` would not.
    ///
    /// # Errors
    /// Also [`WriterError::WouldBlock`]: [`await_space`](Self::await_space), and call again.
    pub(crate) fn publish_unless_it_waits(&mut self, message: &[u8]) -> Result<Option<u64>> {
        self.publish_with(message, Patience::Elsewhere)
    }

    /// Ensures that a message of `len` bytes fits at the tail. Returns false if the channel's policy drops the message.
    ///
    /// # Errors
    /// As [`publish_unless_it_waits`](Self::publish_unless_it_waits).
    pub(crate) fn admit_unless_it_waits(&mut self, len: usize) -> Result<bool> {
        self.admit(len as u64, Patience::Elsewhere)
    }

    /// Waits a while until a message of `len` bytes fits. Returns false if the channel's policy drops the message, and
    /// true if the caller should try again.
    ///
    /// # Errors
    /// As [`publish`](Self::publish): the message cannot be published.
    pub(crate) fn await_space(&mut self, len: usize) -> Result<bool> {
        match self.admit(len as u64, Patience::until(Duration::from_nanos(SLICE_NS))) {
            Err(WriterError::TimedOut { .. }) => Ok(true),
            admitted => admitted,
        }
    }

    /// Waits a while until every reader has read everything. Returns false if that is not so yet. `timeout` is what the
    /// deadline was computed from.
    ///
    /// # Errors
    /// [`WriterError::Unacknowledged`], at the deadline or when waiting longer does not help.
    pub(crate) fn await_acks(&mut self, deadline_ns: u64, timeout: Duration) -> Result<bool> {
        let slice = deadline_ns.min(monotonic_ns().saturating_add(SLICE_NS));
        match self.await_ack(Patience::Until { deadline_ns: slice, timeout }, Late::IsEvicted) {
            Err(_) if slice < deadline_ns && monotonic_ns() >= slice => Ok(false),
            acknowledged => acknowledged.map(|()| true),
        }
    }
}
