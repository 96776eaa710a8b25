//! The ring as the destination of a source, and the source's one way to wait: for input, for memory and for the daemon.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shm_proto::internal::framing::{MessageSink, Slotted};
use shm_proto::internal::os::bell::Bell;
use shm_proto::internal::os::poll::{PollFd, PollFlags, poll};
use shm_proto::internal::ring::Writer;
use shm_proto::{ChannelName, Error, Result, WriterError};

use crate::operation_log::{LogEvent, operation};
use crate::rate_limit::RateLimit;

/// A message for which there is no memory is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);
/// How often a writer that has nothing to read looks whether the readers have made way for a shrink.
const SHRINK_POLL: Duration = Duration::from_millis(20);

/// The ring as the pump's destination. Nothing that the channel takes is lost for want of memory: the input waits.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    writer: Writer,
    woken: &'a Bell,
    channel: ChannelName,
    lines: RateLimit,
    /// So many messages are published already.
    passes: u64,
    /// Of the messages of the call that failed last, so many were taken.
    taken: u64,
    /// The source is to rest: nothing is waited for any more.
    rests: Arc<AtomicBool>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(mut writer: Writer, woken: &'a Bell, rests: &Arc<AtomicBool>) -> Self {
        let channel = writer.geometry().channel.clone();
        writer.interrupt_on(Arc::clone(rests));
        let rests = Arc::clone(rests);
        Self { writer, woken, channel, lines: RateLimit::new(1), passes: 0, taken: 0, rests }
    }

    /// That the source is not to rest.
    ///
    /// # Errors
    /// [`WriterError::Interrupted`] when it is.
    pub(super) fn check_rest(&self) -> Result<()> {
        // Relaxed: the flag tells nothing but itself.
        if self.rests.load(Ordering::Relaxed) {
            return Err(WriterError::Interrupted { what: format!("input for channel {}", self.channel) }.into());
        }
        Ok(())
    }

    /// Of the messages of the call that failed last, so many were taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// The channel that it is the ring of.
    pub(super) fn channel(&self) -> &ChannelName {
        &self.channel
    }

    /// The largest message in bytes.
    pub(super) fn max_message(&self) -> u64 {
        self.writer.geometry().max_message
    }

    /// Passes over the next messages, which were published or dropped before. For inputs whose messages are not published in
    /// place.
    pub(super) fn pass(&mut self, messages: u64) {
        self.passes = messages;
    }

    /// How many are still to be passed over.
    pub(super) fn passes(&self) -> u64 {
        self.passes
    }

    /// Messages published and dropped in the life of the channel, and payload bytes.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        (self.writer.messages(), self.writer.dropped(), self.writer.bytes())
    }

    /// Readable when the daemon has something to say.
    pub(super) fn bell(&self) -> &'a Bell {
        self.woken
    }

    /// Waits until something is to be read, or the daemon says something, which is then done. `None`: as long as it takes.
    ///
    /// # Errors
    /// [`WriterError::Revoked`] when the daemon takes the writer role back.
    pub(super) fn wait(&mut self, fds: &mut [PollFd<'_>], most: Option<Duration>) -> Result<()> {
        let most =
            if self.writer.is_shrinking() { Some(most.map_or(SHRINK_POLL, |m| m.min(SHRINK_POLL))) } else { most };
        poll(fds, most).map_err(|e| Error::system("wait for input", e))?;
        // Before the look at the link: a line that comes later rings again.
        self.woken.drain();
        self.writer.maintain()?;
        self.check_rest()
    }

    /// Carries out the daemon's lines for this long.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub(super) fn pause(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            let mut fds = [PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
            self.wait(&mut fds, Some(left))?;
        }
        Ok(())
    }

    /// Passes over an acknowledgement that is late: the messages are published, and the log has it.
    fn published<T>(&mut self, result: Result<T, WriterError>) -> Result<(), WriterError> {
        match result {
            Ok(_) => Ok(()),
            // The next message fails with the reason.
            Err(WriterError::Unacknowledged { ended: Some(_), .. }) => Ok(()),
            Err(e @ WriterError::Unacknowledged { .. }) => {
                if let Some(left_out) = self.lines.admit(Instant::now()) {
                    operation(LogEvent::AckLate).on(&self.channel).reason(e).left_out(left_out).warn();
                }
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// Waits a moment for memory if that is what is missing.
    fn retry(&mut self, error: WriterError) -> Result<()> {
        match error {
            WriterError::NoSpace { .. } => self.wait_for_memory(&error.into()),
            error => Err(error.into()),
        }
    }

    /// Says what is missing, and waits a moment for it.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub(super) fn wait_for_memory(&mut self, error: &Error) -> Result<()> {
        if let Some(left_out) = self.lines.admit(Instant::now()) {
            operation(LogEvent::InputWaits).on(&self.channel).reason(error).left_out(left_out).warn();
        }
        self.pause(RETRY)
    }
}

impl MessageSink for Sink<'_> {
    type Error = Error;

    fn publish_all<'m>(&mut self, messages: impl Iterator<Item = &'m [u8]>) -> Result<u64> {
        let mut messages = messages.peekable();
        let mut taken = 0;
        self.taken = 0;
        while self.passes > 0 && messages.next().is_some() {
            (self.passes, taken) = (self.passes - 1, taken + 1);
        }
        while messages.peek().is_some() {
            let mut batch = self.writer.batch();
            let mut failed = None;
            while let Some(message) = messages.peek() {
                if let Err(e) = batch.push(message) {
                    failed = Some(e);
                    break;
                }
                messages.next();
                taken += 1;
            }
            let committed = batch.commit();
            self.published(committed)?;
            if let Some(e) = failed {
                self.retry(e).inspect_err(|_| self.taken = taken)?;
            }
        }
        Ok(taken)
    }

    fn publish_in_place(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> Result<Slotted> {
        self.taken = 0;
        loop {
            match self.writer.reserve(len) {
                Ok(Some(mut slot)) => {
                    let Some(used) = fill(&mut slot) else { return Ok(Slotted::Nothing) };
                    let committed = slot.commit(used);
                    self.published(committed)?;
                    return Ok(Slotted::Published);
                }
                // Counted by the writer: not to be offered again.
                Ok(None) => return Ok(Slotted::Dropped),
                Err(e @ WriterError::NoSpace { .. }) => {
                    // The borrow of the slot ends with the error.
                    self.retry(e)?;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }
}
