//! The daemon's standard input as a source: bytes go straight into the ring, cut by the channel's framing.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shm_proto::framing::{MessageSink, Pump, Slotted, Step};
use shm_proto::os::bell::Bell;
use shm_proto::ring::Writer;
use shm_proto::{ChannelName, Error, Result};

use super::{Cutting, Inside, Opening, spawn};
use crate::journal::operation;
use crate::rate_limit::RateLimit;

/// A message for which there is no memory is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);
/// How often a writer that has nothing to read looks whether the readers have made way for a shrink.
const SHRINK_POLL: u16 = 20;

/// Starts to feed a channel from standard input.
///
/// # Errors
/// When the framing does not go with the channel's largest message, or the system gives no thread.
pub(crate) fn start(opening: Opening, cutting: Cutting) -> Result<Inside> {
    let pump = Pump::new(cutting.framing, cutting.max_message)?.keeping_delimiters(cutting.keep_delimiter);
    spawn("stdin", opening, move |writer, woken| feed(writer, woken, pump, io::stdin()))
}

/// Moves everything that `input` gives into the ring; returns how many messages that were.
fn feed(mut writer: Writer, woken: &Bell, mut pump: Pump, input: impl AsFd) -> Result<u64> {
    let mut input = Input(input);
    let channel = writer.geometry().channel.clone();
    let mut sink = Sink { writer: &mut writer, woken, channel, lines: RateLimit::new(1) };
    let outcome = loop {
        match pump.step(&mut input, &mut sink) {
            Ok(Step::Published(_)) => {}
            Ok(Step::WouldBlock) => {
                if let Err(e) = wait(sink.writer, woken, Some(input.0.as_fd()), PollTimeout::NONE) {
                    break Err(e);
                }
            }
            Ok(Step::Eof) => break Ok(()),
            Err(e) => break Err(e),
        }
    };
    match outcome {
        Ok(()) | Err(Error::Revoked { .. }) => Ok(pump.published()),
        Err(e) => Err(e),
    }
}

/// Waits for input or for the daemon, then does what the daemon says.
fn wait(writer: &mut Writer, woken: &Bell, input: Option<BorrowedFd<'_>>, most: PollTimeout) -> Result<()> {
    let mut fds = vec![PollFd::new(woken.as_fd(), PollFlags::POLLIN)];
    fds.extend(input.map(|input| PollFd::new(input, PollFlags::POLLIN)));
    let timeout = if writer.is_shrinking() { PollTimeout::from(SHRINK_POLL) } else { most };
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(e) => return Err(Error::system("wait for standard input", e)),
    }
    // Before the look at the link: a line that comes later rings again.
    woken.drain();
    writer.maintain()
}

/// Standard input that never waits. The descriptor's own mode is left alone, because other processes share it.
struct Input<T>(T);

impl<T: AsFd> Read for Input<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO)? == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(nix::unistd::read(&self.0, buffer)?)
    }
}

/// The ring as the pump's destination. Nothing that the channel takes is lost for want of memory: the input waits.
struct Sink<'a> {
    writer: &'a mut Writer,
    woken: &'a Bell,
    channel: ChannelName,
    lines: RateLimit,
}

impl Sink<'_> {
    /// Passes over an acknowledgement that is late: the messages are published, and the log has it.
    fn published<T>(&mut self, result: Result<T>) -> Result<()> {
        match result {
            Ok(_) => Ok(()),
            Err(Error::TimedOut { what, waited }) => {
                if let Some(left_out) = self.lines.admit(Instant::now()) {
                    let late = operation("ack-late").on(&self.channel).text("waited", format_args!("{waited:?}"));
                    late.text("for", what).left_out(left_out).warn();
                }
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// Waits a moment for memory if that is what is missing.
    fn retry(&mut self, error: Error) -> Result<()> {
        let Error::NoSpace { .. } = error else { return Err(error) };
        if let Some(left_out) = self.lines.admit(Instant::now()) {
            operation("input-waits").on(&self.channel).reason(&error).left_out(left_out).warn();
        }
        let until = Instant::now() + RETRY;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            wait(self.writer, self.woken, None, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))?;
        }
        Ok(())
    }
}

impl MessageSink for Sink<'_> {
    fn publish_all<'m>(&mut self, messages: impl Iterator<Item = &'m [u8]>) -> Result<u64> {
        let mut messages = messages.peekable();
        let mut taken = 0;
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
                self.retry(e)?;
            }
        }
        Ok(taken)
    }

    fn publish_in_place(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> Result<Slotted> {
        loop {
            match self.writer.reserve(len) {
                Ok(Some(mut slot)) => {
                    let Some(used) = fill(&mut slot) else { return Ok(Slotted::Nothing) };
                    let committed = slot.commit(used);
                    return self.published(committed).map(|()| Slotted::Published);
                }
                Ok(None) => return Ok(Slotted::NoPlace),
                Err(e @ Error::NoSpace { .. }) => {
                    // The borrow of the slot ends with the error.
                    self.retry(e)?;
                }
                Err(e) => return Err(e),
            }
        }
    }
}
