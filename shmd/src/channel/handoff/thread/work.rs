//! The thread between a handoff channel's feed and its objects.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, PoisonError, atomic::Ordering};
use std::time::{Duration, Instant};

use log::debug;
use shm_proto::internal::handoff::layout::HEADER_SIZE;
use shm_proto::internal::handoff::{Counters, Progress, Resized, Writer};
use shm_proto::internal::os::bell::Bell;
use shm_proto::internal::os::poll::{PollFd, PollFlags, poll, readable};
use shm_proto::internal::ring::{Message, Reader};
use shm_proto::{ChannelName, HandoffError, OnFull, ReaderError};

use super::{Answer, Order, Shared, State};
use crate::operation_log::{LogEvent, operation};
use crate::rate_limit::RateLimit;

/// A message that cannot be handed over for now, for want of memory or with its mutex taken, is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes of a message that are on their way through the daemon's own memory at a time.
const PART: usize = 64 << 10;
/// Why handing a message over was broken off.
enum Stopped {
    ByDaemon,
    By(ReaderError),
}

/// The thread's ends of what it has in common with the daemon.
pub(super) struct Ends {
    pub(super) shared: Arc<Shared>,
    pub(super) orders: Receiver<Order>,
    pub(super) answers: Sender<Answer>,
    /// Rung by the daemon.
    pub(super) woken: Bell,
    /// Rung for the daemon.
    pub(super) rung: Bell,
}

/// The thread.
pub(super) struct Work {
    channel: ChannelName,
    writer: Writer,
    ends: Ends,
    /// As it was shown last.
    last: State,
    /// The length asked for while a message was on offer.
    shrinking: Option<u64>,
    /// The client that asked for it.
    shrink_by: &'static str,
    /// The first message of the feed that was not handed over.
    next: u64,
    lines: RateLimit,
    overflow_lines: RateLimit,
}

impl Work {
    pub(super) fn new(channel: ChannelName, writer: Writer, ends: Ends) -> Self {
        Self {
            last: State { counters: writer.counters(), capacity: writer.capacity(), ..State::default() },
            channel,
            writer,
            ends,
            shrinking: None,
            shrink_by: "operator",
            next: 0,
            lines: RateLimit::new(1),
            overflow_lines: RateLimit::new(1),
        }
    }

    pub(super) fn run(mut self, mut feed: Reader) {
        if let Err(Stopped::By(error)) = self.serve(&mut feed)
            && !matches!(error, ReaderError::Closed { .. } | ReaderError::Disconnected { .. })
        {
            operation(LogEvent::HandoffFailed).on(&self.channel).reason(error).error();
        }
        let Counters { messages, dropped, .. } = self.writer.counters();
        let end =
            operation(LogEvent::HandoffEnd).on(&self.channel).number("messages", messages).number("dropped", dropped);
        let leaves = self.ends.shared.leaves.load(Ordering::Acquire);
        end.number("withdrawn", u64::from(self.writer.on_offer().is_some() && !leaves)).info();
        let ended = if leaves { self.writer.leave_adopted() } else { self.writer.close() };
        *self.ends.shared.left.lock().unwrap_or_else(PoisonError::into_inner) = ended.err();
    }

    fn serve(&mut self, feed: &mut Reader) -> Result<(), Stopped> {
        let mut part = vec![0; PART];
        self.hand_over_left()?;
        loop {
            self.obey()?;
            match self.take(feed, &mut part) {
                Ok(true) => continue,
                Ok(false) => {}
                // The daemon looks at the feed, and replaces it.
                Err(Stopped::By(error @ ReaderError::Corrupt { .. })) => {
                    operation(LogEvent::Broken).on(&self.channel).text("part", "feed").reason(error).warn();
                    self.ends.rung.ring();
                    continue;
                }
                Err(stopped) => return Err(stopped),
            }
            if feed.arm().map_err(Stopped::By)? {
                let mut fds = [feed.as_fd(), self.ends.woken.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
                // A failed wait is followed by another look.
                if let Err(e) = poll(&mut fds, None) {
                    debug!("event=handoff-wait channel={} reason={e}", self.channel);
                }
                self.ends.woken.drain();
            }
        }
    }

    /// Takes the feed's next message and hands it over; false when there is none.
    fn take(&mut self, feed: &mut Reader, part: &mut [u8]) -> Result<bool, Stopped> {
        let Some(message) = feed.try_recv().map_err(Stopped::By)? else { return Ok(false) };
        let number = message.seq();
        let is_new = number >= self.next;
        if is_new {
            self.hand_over(&message, part)?;
            self.next = number + 1;
        }
        // Only now it is acknowledged to whoever published it.
        match message.finish() {
            // Its writer lost the role in the same moment; it does not know whether the message was handed over.
            Ok(()) | Err(ReaderError::Withdrawn { .. }) => Ok(true),
            // A writer that has lived through the daemon's death keeps only what was not handed over.
            Err(ReaderError::Lapped { .. }) if !is_new => Ok(true),
            Err(error) => Err(Stopped::By(error)),
        }
    }

    /// Whatever is wrong with the objects may be put right by those who use them: it is tried again and again.
    fn hand_over(&mut self, message: &Message<'_>, part: &mut [u8]) -> Result<(), Stopped> {
        self.ends.shared.peak.fetch_max(message.len() as u64 + HEADER_SIZE, Ordering::Relaxed);
        loop {
            self.obey()?;
            let offered = self.writer.offer_parts(message.seq(), message.len() as u64, |put| {
                (0..message.len()).step_by(part.len()).try_for_each(|at| {
                    let part = &mut part[..PART.min(message.len() - at)];
                    message.copy_part(at, part);
                    put(part)
                })
            });
            match offered {
                Ok(()) => break,
                Err(error) => self.retry(&error)?,
            }
        }
        self.await_end()
    }

    /// Hands over what a daemon that died had on offer, and finds out which message of the feed is the next one.
    fn hand_over_left(&mut self) -> Result<(), Stopped> {
        let noted = self.writer.noted();
        let left = loop {
            self.obey()?;
            match self.writer.take_up() {
                Ok(left) => break left,
                Err(error) => self.retry(&error)?,
            }
        };
        self.next = noted.next(left);
        if let Some(bytes) = noted.shrink_to.filter(|bytes| *bytes < self.writer.capacity())
            && let Err(e) = self.resize(bytes, "adoption")
        {
            debug!("event=shrink-waits channel={} reason={:?}", self.channel, e.to_string());
        }
        self.await_end()
    }

    /// Waits until what is on offer is acknowledged or dropped.
    fn await_end(&mut self) -> Result<(), Stopped> {
        self.show("writer");
        loop {
            let progress = self.writer.progress(u64::MAX);
            self.show(self.shrink_by);
            match progress {
                Ok(Progress::Acknowledged | Progress::Dropped) => return Ok(()),
                Ok(Progress::Waiting) => self.obey()?,
                Err(error) => self.retry(&error)?,
            }
        }
    }

    /// Waits a moment, unless there is something else to do.
    fn retry(&mut self, error: &HandoffError) -> Result<(), Stopped> {
        if let Some(left_out) = self.lines.admit(Instant::now()) {
            operation(LogEvent::HandoffWaits).on(&self.channel).reason(error).left_out(left_out).warn();
            self.ends.rung.ring();
        }
        if readable(self.ends.woken.as_fd(), Some(RETRY)) == Ok(true) {
            self.ends.woken.drain();
        }
        self.obey()
    }

    /// Does what the daemon has asked for.
    fn obey(&mut self) -> Result<(), Stopped> {
        if self.ends.shared.stop.load(Ordering::Acquire) {
            return Err(Stopped::ByDaemon);
        }
        if !self.ends.shared.orders.swap(false, Ordering::Acquire) {
            return Ok(());
        }
        for order in self.ends.orders.try_iter().collect::<VecDeque<_>>() {
            match order {
                Order::Policy(on_full, ack_timeout) => self.writer.set_policy(on_full != OnFull::Block, ack_timeout),
                Order::GiveBack(bytes) => {
                    // A mutex that is taken only delays it: it is asked for again.
                    if bytes < self.writer.capacity()
                        && let Err(e) = self.resize(bytes, "low-use")
                    {
                        debug!("event=shrink-waits channel={} reason={:?}", self.channel, e.to_string());
                    }
                }
                Order::Resize(client, bytes) => {
                    let outcome = self.resize(bytes, "operator");
                    // The daemon is there as long as this thread.
                    let _ = self.ends.answers.send((client, bytes, outcome));
                }
            }
        }
        self.ends.rung.ring();
        Ok(())
    }

    fn resize(&mut self, bytes: u64, by: &'static str) -> Result<Resized, HandoffError> {
        self.shrink_by = by;
        let outcome = self.writer.resize(bytes);
        if let Ok(Resized { new, pending, .. }) = &outcome {
            self.shrinking = pending.then_some(*new);
        }
        self.show(by);
        outcome
    }

    /// Shows how things stand, and logs what peers have done. A change of the length is `by` whom.
    pub(super) fn show(&mut self, by: &str) {
        let (counters, then, at) = (self.writer.counters(), self.last, Instant::now());
        let capacity = self.writer.capacity();
        self.shrinking = self.shrinking.filter(|&new| self.writer.on_offer().is_some() && new != capacity);
        let since = then.on_offer.filter(|_| ended(counters) == ended(then.counters));
        let on_offer = self.writer.on_offer().map(|len| (len, since.map_or(at, |(_, since)| since)));
        let last_ack = if counters.messages == then.counters.messages { then.last_ack } else { Some(at) };
        let state = State { counters, capacity, pending: self.shrinking, on_offer, last_ack };
        *self.ends.shared.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.last = state;
        if self.log(then, by) {
            // Those who follow the log are told by the daemon's own thread.
            self.ends.rung.ring();
        }
    }

    /// Logs differences from `then`. Returns whether there were any.
    fn log(&mut self, then: State, by: &str) -> bool {
        let (now, counters, before) = (self.last, self.last.counters, then.counters);
        let mut told = false;
        let about = |event| operation(event).on(&self.channel);
        if now.capacity != then.capacity {
            let event = if now.capacity > then.capacity { LogEvent::Grow } else { LogEvent::Shrink };
            about(event).number("old", then.capacity).number("new", now.capacity).text("by", by).info();
            told = true;
        }
        if counters.dropped != before.dropped
            && let Some(left_out) = self.overflow_lines.admit(Instant::now())
        {
            let lost = about(LogEvent::Overflow).number("dropped", counters.dropped);
            lost.reason("no reader acknowledged in time").left_out(left_out).warn();
            told = true;
        }
        let trouble = |c: Counters| (c.offered_again, c.recovered, c.repaired, c.stray_posts);
        if trouble(counters) != trouble(before)
            && let Some(left_out) = self.lines.admit(Instant::now())
        {
            let seen = about(LogEvent::HandoffTrouble).number("offered_again", counters.offered_again);
            let seen = seen.number("recovered", counters.recovered).number("repaired", counters.repaired);
            seen.number("stray_posts", counters.stray_posts).left_out(left_out).warn();
            told = true;
        }
        told
    }
}

/// Messages that are over and done with.
fn ended(counters: Counters) -> u64 {
    counters.messages + counters.dropped
}
