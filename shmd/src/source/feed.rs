//! What all sources do alike: move bytes into the ring, count, say what went wrong, and wait.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use log::debug;
use nix::poll::{PollFd, PollFlags};
use shm_proto::internal::control::stat::SourceState;
use shm_proto::internal::framing::{Framing, Input, MessageSink, Pump, Slotted, Step};
use shm_proto::internal::ring::{SourceNote, note_source};
use shm_proto::{ChannelName, Error, FramingError, Result, WriterError};

use super::Asks;
use super::child::Running;
use super::report::Report;
use super::sink::Sink;
use crate::config::CommandLine;
use crate::operation_log::{LogEvent, operation};
use crate::peer::Peer;
use crate::rate_limit::RateLimit;

/// Lines a second in the log about bad input.
const LINES: u32 = 5;

/// What cuts the input into messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cutting {
    /// Where a message ends.
    pub(crate) framing: Framing,
    /// The delimiter belongs to the message.
    pub(crate) keep_delimiter: bool,
    /// The largest, in bytes.
    pub(crate) max_message: u64,
    /// A chunk that is not full is published this long after its first byte; nothing for never.
    pub(crate) flush: Option<Duration>,
}

impl Cutting {
    /// For one input; nothing of another's.
    ///
    /// # Errors
    /// When the framing does not go with the channel's largest message.
    pub(super) fn pump(&self) -> Result<Pump> {
        let pump = Pump::new(self.framing, self.max_message)?.keeping_delimiters(self.keep_delimiter);
        Ok(pump.flushing_after(self.flush))
    }

    /// For one input that may end because its writer died: a chunk cut short is an error then, unless the channel publishes the
    /// beginnings of chunks anyway.
    ///
    /// # Errors
    /// As [`pump`](Self::pump).
    pub(super) fn pump_of_many(&self) -> Result<Pump> {
        let pump = self.pump()?;
        Ok(if self.flush.is_some() { pump } else { pump.requiring_whole_chunks() })
    }
}

/// What came of one step.
#[derive(Debug)]
pub(super) enum Stepped {
    /// Something was read.
    Moved,
    /// There is nothing to read now.
    Idle,
    /// The input has ended.
    End,
    /// There is no memory to go on. Nothing of the input is lost.
    Short(Error),
    /// This input is at fault: it is not framed as it should be, or cannot be read.
    Broken(Error),
}

/// A source's way into the ring.
#[derive(Debug)]
pub(super) struct Feed<'a> {
    sink: Sink<'a>,
    cutting: Cutting,
    report: &'a Report,
    lines: RateLimit,
    segment: OwnedFd,
    noted: SourceNote,
    daemon: &'a Asks,
}

impl<'a> Feed<'a> {
    pub(super) fn new(
        sink: Sink<'a>,
        segment: OwnedFd,
        cutting: Cutting,
        report: &'a Report,
        daemon: &'a Asks,
    ) -> Self {
        let (lines, noted) = (RateLimit::new(LINES), SourceNote::default());
        Self { sink, cutting, report, lines, segment, noted, daemon }
    }

    /// Starts a program, which ends with the daemon's process and not with this thread.
    ///
    /// # Errors
    /// What the system says, a missing program included.
    pub(super) fn start(&self, command: &CommandLine) -> io::Result<Running> {
        self.daemon.start(command)
    }

    /// Messages of the channel since an input was where the note says; nothing if the note cannot be of this channel.
    pub(super) fn since(&self, note: &SourceNote) -> Option<u64> {
        let (seq, dropped, _) = self.sink.counts();
        seq.checked_sub(note.seq)?.checked_add(dropped.checked_sub(note.dropped)?)
    }

    /// An input that was where the note says is at least so long if what was published since came from it: of the messages, all
    /// but perhaps the last had a delimiter.
    pub(super) fn least_end(&self, note: &SourceNote) -> u64 {
        let ((.., bytes), messages) = (self.sink.counts(), self.since(note).unwrap_or(0));
        let delimiters = if self.cutting.keep_delimiter { 0 } else { messages };
        let most = bytes.saturating_sub(note.bytes).saturating_add(delimiters);
        note.offset.saturating_add(most.saturating_sub(u64::from(messages > 0)))
    }

    /// How many of the next messages are published already.
    pub(super) fn passes(&self) -> u64 {
        self.sink.passes()
    }

    /// The next messages of the input are published already.
    pub(super) fn pass(&mut self, messages: u64) {
        self.sink.pass(messages);
    }

    /// Before anything of it is published: the next message begins here, by all but the numbers in the note. For the daemon that
    /// comes after this one.
    pub(super) fn note(&mut self, place: SourceNote) {
        if self.sink.passes() > 0 {
            // The note of the daemon before this one counts from where that one was.
            return;
        }
        let (seq, dropped, bytes) = self.sink.counts();
        let note = SourceNote { seq, dropped, bytes, ..place };
        if note == self.noted {
            return;
        }
        match note_source(self.segment.as_fd(), note) {
            Ok(()) => self.noted = note,
            Err(e) => debug!("event=no-note channel={} reason={:?}", self.channel(), e.to_string()),
        }
    }

    /// How the input is cut.
    pub(super) fn cutting(&self) -> Cutting {
        self.cutting
    }

    /// As [`Cutting::pump_of_many`].
    ///
    /// # Errors
    /// As there.
    pub(super) fn pump(&self) -> Result<Pump> {
        self.cutting.pump_of_many()
    }

    /// The channel.
    pub(super) fn channel(&self) -> &ChannelName {
        self.sink.channel()
    }

    /// The largest message in bytes.
    pub(super) fn max_message(&self) -> u64 {
        self.sink.max_message()
    }

    /// Shows what the source is doing.
    pub(super) fn set(&self, state: SourceState) {
        self.report.set(state);
    }

    /// Shows that a child has ended and is started again at this time.
    pub(super) fn restarts(&self, at: Instant) {
        self.report.restarts(at);
    }

    /// Moves what one read gives into the ring; waits while the ring is full. A large message of a pipe or a socket gets its
    /// place when all of it is there: one that is only claimed grows nothing, wipes nothing, and holds nobody up. What is not
    /// there yet is collected in the pump, whose memory grows with what has come.
    ///
    /// # Errors
    /// Everything that is not this input's fault: it ends the source.
    pub(super) fn step(&mut self, pump: &mut Pump, input: &mut impl Input) -> Result<Stepped> {
        self.sink.check_rest()?;
        let before = (pump.published(), self.sink.passes());
        let mut input = Metered { input, report: self.report, failed: false };
        let outcome = pump.step(&mut input, &mut self.sink);
        if let Err(Error::Writer(WriterError::Interrupted { .. })) = &outcome {
            // The source rests in the middle of a step. What the ring has not taken stays in the pump.
            pump.have_been_taken(self.sink.taken());
        }
        let passed = before.1 - self.sink.passes();
        self.report.moved(0, (pump.published() - before.0).saturating_sub(passed));
        match outcome {
            Ok(Step::Published(_)) => Ok(Stepped::Moved),
            Ok(Step::WouldBlock) => Ok(Stepped::Idle),
            Ok(Step::Eof) => Ok(Stepped::End),
            Err(e @ Error::Framing(FramingError::NoMemory { .. })) => Ok(Stepped::Short(e)),
            Err(e @ Error::Framing(FramingError::BadInput { .. })) => Ok(Stepped::Broken(e)),
            Err(e) if input.failed => Ok(Stepped::Broken(e)),
            Err(e) => Err(e),
        }
    }

    /// Publishes one message of `len` bytes that `fill` puts where it belongs; it may find that there is none.
    ///
    /// # Errors
    /// What publishing says.
    pub(super) fn packet(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> Result<Slotted> {
        let slotted = self.sink.publish_in_place(len, fill)?;
        if slotted == Slotted::Published {
            self.report.moved(len as u64, 1);
        }
        Ok(slotted)
    }

    /// Waits a moment for memory, while the input waits, too.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub(super) fn wait_for_memory(&mut self, error: &Error) -> Result<()> {
        self.sink.wait_for_memory(error)
    }

    /// Counts and keeps what went wrong and is in the log already.
    pub(super) fn count(&self, reason: String) {
        self.report.error(reason);
    }

    /// Counts, keeps and logs a fault of an input, and names the input.
    pub(super) fn trouble(&mut self, reason: impl ToString, peer: impl FnOnce() -> Option<Peer>) {
        let reason = reason.to_string();
        let errors = self.report.error(reason.clone());
        if let Some(left_out) = self.lines.admit(Instant::now()) {
            let line = operation(LogEvent::SourceError).on(self.sink.channel()).number("errors", errors);
            let line = match peer() {
                Some(peer) => line.peer(&peer),
                None => line,
            };
            line.reason(reason).left_out(left_out).warn();
        }
    }

    /// The descriptors to [`wait`](Self::wait) for: the daemon's, to which the source adds its own.
    pub(super) fn fds(&self) -> Vec<PollFd<'a>> {
        vec![PollFd::new(self.sink.bell().as_fd(), PollFlags::POLLIN)]
    }

    /// Waits for these, no longer than `most`, and does what the daemon says.
    ///
    /// # Errors
    /// [`WriterError::Revoked`](shm_proto::WriterError::Revoked) when the daemon takes the writer role back.
    pub(super) fn wait(&mut self, fds: &mut [PollFd<'_>], most: Option<Duration>) -> Result<()> {
        self.sink.wait(fds, most)
    }

    /// [`wait`](Self::wait) for one descriptor.
    ///
    /// # Errors
    /// As there.
    pub(super) fn wait_for(&mut self, input: &impl AsFd, most: Option<Duration>) -> Result<()> {
        let mut fds = [self.sink.bell().as_fd(), input.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        self.sink.wait(&mut fds, most)
    }

    /// Waits this long, and carries out the daemon's lines meanwhile.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub(super) fn pause(&mut self, time: Duration) -> Result<()> {
        self.sink.pause(time)
    }
}

/// Counts what is read, at once because publishing it may take long, and notes whether reading failed.
struct Metered<'i, R> {
    input: &'i mut R,
    report: &'i Report,
    failed: bool,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.input.read(buffer);
        match &result {
            Ok(n) => self.report.moved(*n as u64, 0),
            Err(e) => self.failed = !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
        result
    }
}

impl<R: Input> Input for Metered<'_, R> {
    fn readable(&self) -> Option<usize> {
        self.input.readable()
    }
}

/// Whether poll has something to say about it.
pub(super) fn is_ready(fd: &PollFd<'_>) -> bool {
    // Bits that nix does not know count as well.
    fd.any().unwrap_or(true)
}
