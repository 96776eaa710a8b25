//! Messages into channels, each at its moment.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::Duration;

use hdrhistogram::Histogram;
use nix::poll::{PollFd, PollFlags};
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};
use shm_proto::internal::os::clock::{self, monotonic_ns};
use shm_proto::{ChannelName, Error, ErrorKind, RequestError, Writer, WriterError};
use shmctl::companion::{Failure, Global, Result, Signals, wait_for};

use super::batch::Batch;
use super::create::create;
use super::schedule::Schedule;
use super::source::{Next, Source};
use super::topics::Topics;

/// How long before its moment the command looks at the clock without a pause: waking up takes about as long.
const SPIN_NS: u64 = 50_000;
/// A wait that is longer than this is one in which other things are heard.
const LONG_NS: u64 = 2_000_000;
/// How often signals are looked at while the reading thread has no message.
const LOOK: Duration = Duration::from_millis(20);
/// How often the daemon's requests are looked at while messages are published.
const MAINTENANCE_NS: u64 = 100_000_000;
/// How often a writer with nothing to publish shows that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How often a shrink that waits for readers is checked.
const SHRINKING: Duration = Duration::from_millis(20);

/// What was published.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Published {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// Messages for which a channel had no space.
    pub(crate) dropped: u64,
    /// How late 99 of 100 messages were at most, and all of them.
    pub(crate) late_ns: Option<(u64, u64)>,
}

/// The writers of the channels.
#[derive(Debug)]
pub(crate) struct Publisher {
    writers: Vec<Writer>,
    maintained_ns: u64,
    late: Histogram<u64>,
    published: Published,
}

impl Publisher {
    /// Borrows the roles of all writers. `keys`: those with which channels are made that are not there; none if that is not wanted.
    pub(crate) fn attach(
        global: &Global,
        topics: &Topics,
        keys: Option<&[BTreeMap<String, String>]>,
        signals: &Signals,
    ) -> Result<Self> {
        let mut writers = Vec::new();
        for (place, channel) in topics.channels.iter().enumerate() {
            let mut writer = lent(global, channel, keys.map(|keys| &keys[place]))?;
            writer.interrupt_on(signals.flag());
            writers.push(writer);
        }
        // Otherwise the kernel wakes the command up to 50 us late. Without this, messages are that much later.
        let _ = set_timerslack(1);
        Ok(Publisher { writers, maintained_ns: monotonic_ns(), late: lateness(), published: Published::default() })
    }

    /// Publishes everything that there is, until a signal arrives.
    pub(crate) fn run(&mut self, source: &mut Source, mut schedule: Schedule, signals: &Signals) -> Result<()> {
        while let Some(batch) = self.next_batch(source, signals)? {
            for (number, (item, bytes)) in batch.messages().enumerate() {
                if let Some(due) = schedule.due(item.time) {
                    self.wait_until(due, signals)?;
                    let now = monotonic_ns();
                    self.late.saturating_record(now.saturating_sub(due));
                    self.maintain_if_due(now)?;
                } else if number.is_multiple_of(256) {
                    self.maintain_if_due(monotonic_ns())?;
                }
                if signals.came() {
                    return Ok(());
                }
                match self.writers[item.place].publish(bytes) {
                    Ok(Some(_)) => {
                        self.published.messages += 1;
                        self.published.bytes += bytes.len() as u64;
                    }
                    Ok(None) => self.published.dropped += 1,
                    Err(WriterError::Interrupted { .. }) if signals.came() => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
            if batch.ends_pass {
                schedule.restart();
            }
            source.give_back(batch);
        }
        Ok(())
    }

    /// Waits for the next batch, or for a signal, and hears the daemon. Returns `None` after the last batch, or on a signal.
    fn next_batch(&mut self, source: &mut Source, signals: &Signals) -> Result<Option<Batch>> {
        loop {
            match source.next_within(LOOK)? {
                Next::Batch(batch) => return Ok(Some(batch)),
                Next::End => return Ok(None),
                Next::NotYet if signals.came() => return Ok(None),
                Next::NotYet => self.maintain_if_due(monotonic_ns())?,
            }
        }
    }

    /// What was published so far.
    pub(crate) fn published(&self) -> Published {
        let late = (!self.late.is_empty()).then(|| (self.late.value_at_quantile(0.99), self.late.max()));
        Published { late_ns: late, ..self.published }
    }

    /// Waits for a moment, or for a signal.
    fn wait_until(&mut self, due_ns: u64, signals: &Signals) -> Result<()> {
        loop {
            let left = due_ns.saturating_sub(monotonic_ns());
            if left == 0 || signals.came() {
                return Ok(());
            }
            if left > LONG_NS {
                self.rest(Duration::from_nanos(left - LONG_NS / 2), signals)?;
            } else if left > SPIN_NS {
                let moment = TimeSpec::from_duration(Duration::from_nanos(due_ns - SPIN_NS));
                // A signal may end it early.
                let _ = clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &moment);
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Sleeps for up to `most`, and carries out the daemon's requests.
    fn rest(&mut self, most: Duration, signals: &Signals) -> Result<()> {
        let pause = if self.writers.iter().any(Writer::is_shrinking) { SHRINKING } else { HEARTBEAT };
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.writers.iter().filter_map(Writer::link_fd).map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        wait_for(&mut fds, most.min(pause))?;
        self.maintain()
    }

    fn maintain_if_due(&mut self, now_ns: u64) -> Result<()> {
        if now_ns.saturating_sub(self.maintained_ns) < MAINTENANCE_NS { Ok(()) } else { self.maintain() }
    }

    fn maintain(&mut self) -> Result<()> {
        self.maintained_ns = clock::monotonic_ns();
        for writer in &mut self.writers {
            writer.maintain()?;
        }
        Ok(())
    }
}

/// Times from 1 ns to an hour with three digits. The bounds are fixed: recording a time that is too large does not widen them.
fn lateness() -> Histogram<u64> {
    const LONGEST_NS: u64 = 3_600_000_000_000;
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("the bounds and the digits are allowed")
}

/// A channel's writer, if need be of a new channel.
fn lent(global: &Global, channel: &ChannelName, keys: Option<&BTreeMap<String, String>>) -> Result<Writer> {
    let attach = || Writer::attach(&global.endpoint(), Some(channel.as_str()));
    match (attach(), keys) {
        (Err(error), Some(keys)) if error.refusal() == Some(ErrorKind::NoSuchChannel) => {
            create(global, channel, keys)?;
            attach().map_err(Failure::from)
        }
        (attached, _) => attached.map_err(explained),
    }
}

/// The error, with the way out that only this command knows.
fn explained(error: Error) -> Failure {
    match &error {
        Error::Request(RequestError::Refused(refusal)) if refusal.kind == ErrorKind::NoSuchChannel => {
            Failure::Other(format!(
                "{error}; make it with --create, publish its messages elsewhere with --map TOPIC=CHANNEL, or leave them out with \
                 --only TOPIC"
            ))
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_message_counts_with_all_of_its_time() {
        let mut late = lateness();
        for ns in [0, 2_000, 5_000_000, 60_000_000_000] {
            late.saturating_record(ns);
            assert!(late.max() >= ns && late.max() <= ns + ns / 500, "{ns}: {}", late.max());
        }
        assert!(late.value_at_quantile(0.75) >= 5_000_000);
    }
}
