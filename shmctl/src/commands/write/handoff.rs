//! Role A without a daemon: makes the objects, hands every message over, removes the objects.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};
use shm_proto::internal::framing::{MessageSink, Pump, Slotted, Step};
use shm_proto::internal::handoff::{Names, Origin, Progress, Settings, Writer};
use shm_proto::internal::os::clock::{self, monotonic_ns};
use shm_proto::{Error, HandoffError, WriterError};

use super::progress::{Progress as Drawn, Tally};
use super::stopped::{End, Stopped};
use super::{Args, Overdue, hint, stdin};
use crate::error::{Failure, Result, note};
use crate::human::{counted, messages};
use crate::output::wait_for;
use crate::signals::Signals;

/// How often signals are looked at while an acknowledgement is waited for, in nanoseconds: one may come between the look
/// and the wait.
const LOOK: u64 = 250_000_000;

struct Sink<'a> {
    writer: Writer,
    signals: &'a Signals,
    timeout: Option<Duration>,
    tally: Tally,
    /// Complete messages that were read and not acknowledged when a signal or the timeout ended the wait.
    unpublished: u64,
}

impl Sink<'_> {
    /// Waits until the message on offer is acknowledged or dropped.
    fn await_end(&mut self) -> Result<(), Error> {
        let until = clock::deadline(self.timeout);
        while self.writer.progress(until.min(monotonic_ns() + LOOK))? == Progress::Waiting {
            if self.signals.came() {
                return Err(WriterError::Interrupted { what: self.waited_for() }.into());
            }
            if monotonic_ns() >= until {
                if self.writer.withdraw()? == Progress::Acknowledged {
                    return Ok(());
                }
                let waited = self.timeout.unwrap_or_default();
                return Err(HandoffError::TimedOut { what: self.waited_for(), waited }.into());
            }
        }
        Ok(())
    }

    fn waited_for(&self) -> String {
        format!("an acknowledgement in {}", self.writer.settings().names.segment)
    }
}

impl MessageSink for Sink<'_> {
    type Error = Error;

    fn publish_all<'m>(&mut self, messages: impl Iterator<Item = &'m [u8]>) -> Result<u64, Error> {
        let (mut count, mut messages) = (0, messages);
        while let Some(message) = messages.next() {
            self.writer.offer(message)?;
            if let Err(error) = self.await_end() {
                self.unpublished = 1 + messages.count() as u64;
                return Err(error);
            }
            self.tally.add(message.len());
            count += 1;
        }
        Ok(count)
    }

    fn publish_in_place(&mut self, _: usize, _: impl FnOnce(&mut [u8]) -> Option<usize>) -> Result<Slotted, Error> {
        Ok(Slotted::NoPlace)
    }
}

pub(super) fn run(args: &Args, names: Names, signals: &Signals, drawn: &Drawn) -> Result<()> {
    let drop_late = match args.on_full {
        Overdue::Block => false,
        Overdue::Drop => true,
    };
    let settings =
        Settings { mode: args.permissions.0, ack_timeout: args.ack_timeout, drop_late, ..Settings::new(names.clone()) };
    let mut pump = Pump::new(args.framing, settings.max_message)?
        .keeping_delimiters(args.keep_delimiter)
        .flushing_after(args.flush);
    let writer = Writer::create(settings)?;
    match writer.origin() {
        Origin::Created => {}
        Origin::Adopted { .. } => note(&format!("{names}: an earlier writer left these objects; going on with them")),
        Origin::Replaced => note(&format!("{names}: an earlier program left these objects; replaced")),
    }
    let mut sink = Sink { writer, signals, timeout: args.timeout, tally: drawn.tally(), unpublished: 0 };
    hint(args.framing);
    let result = publish(&mut pump, &mut sink, drawn);
    drawn.clear();
    let counters = sink.writer.counters();
    if counters.offered_again > 0 || counters.recovered > 0 || counters.repaired > 0 {
        note(&format!(
            "{}; mutex recovered {} and initialised again {}",
            messages(counters.offered_again, "offered again"),
            counted(counters.recovered, "time", "s"),
            counted(counters.repaired, "time", "s")
        ));
    }
    if counters.dropped > 0 {
        note(&messages(counters.dropped, "dropped, because no reader acknowledged in time"));
    }
    let stopped = Stopped {
        done: "acknowledged",
        messages: counters.messages,
        bytes: counters.bytes,
        unpublished: sink.unpublished,
        unfinished: pump.unfinished(),
    };
    let closed = sink.writer.close().map_err(Failure::from);
    match result {
        Ok(End::Input | End::Daemon) => log::info!("{}", messages(counters.messages, "acknowledged")),
        Ok(End::Signal) => stopped.tell(signals, "")?,
        Err(Failure::Library(Error::Writer(WriterError::Interrupted { .. }))) => {
            let more = "; the message on offer is withdrawn";
            Stopped { unfinished: 0, ..stopped }.tell(signals, more)?;
        }
        Err(failure) => {
            if counters.messages > 0 {
                note(&messages(counters.messages, "acknowledged before"));
            }
            return Err(failure);
        }
    }
    closed
}

fn publish(pump: &mut Pump, sink: &mut Sink<'_>, drawn: &Drawn) -> Result<End> {
    let mut input = stdin()?;
    while !sink.signals.came() {
        let counters = sink.writer.counters();
        drawn.tell((counters.messages, counters.bytes));
        match pump.step(&mut input, sink)? {
            Step::Published(_) => {}
            Step::WouldBlock => {
                let input = PollFd::new(input.as_fd(), PollFlags::POLLIN);
                let signal = PollFd::new(sink.signals.as_fd(), PollFlags::POLLIN);
                wait_for(&mut [input, signal], pump.flush_in().unwrap_or(Duration::MAX))?;
            }
            Step::Eof => return Ok(End::Input),
        }
    }
    Ok(End::Signal)
}
