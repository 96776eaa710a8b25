//! The writer of a handoff channel inside the daemon: a thread that reads the channel's feed, a ring, and hands each message
//! over before it takes the next.
//!
//! ```text
//! source or lent program -> ring (ack: publishing returns when the bridge is through) -> bridge -> segment -> C programs
//! ```
//!
//! So every source and every program that borrows the writer role feeds a handoff channel as it feeds a ring, and none of
//! them touches its objects. Those who can write the objects are trusted: one who cuts the segment ends the daemon.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::debug;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shm_proto::control::OnFull;
use shm_proto::handoff::{Counters, Progress, Resized, Waker, Writer};
use shm_proto::os::bell::Bell;
use shm_proto::ring::Reader;
use shm_proto::{ChannelName, Error, Result};

use crate::event_loop::ClientId;
use crate::journal::operation;
use crate::rate_limit::RateLimit;

/// A message that cannot be handed over for now, for want of memory or with its mutex taken, is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);
/// How long the thread may take to end: it waits for a mutex no longer than a second at a time.
const STOP: Duration = Duration::from_secs(3);

/// How the handoff stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct State {
    /// What has happened so far.
    pub(crate) counters: Counters,
    /// The segment's length in bytes.
    pub(crate) capacity: u64,
    /// A length that waits for an acknowledgement.
    pub(crate) pending: Option<u64>,
    /// Bytes of the message on offer, and since when it is.
    pub(crate) on_offer: Option<(u64, Instant)>,
    /// When a message was acknowledged last.
    pub(crate) last_ack: Option<Instant>,
}

/// What the daemon asks of the thread.
#[derive(Debug)]
enum Order {
    /// Another length, for a client that waits for the answer.
    Resize(ClientId, u64),
    /// Another policy.
    Policy(OnFull, Duration),
}

/// What both threads see.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    stop: AtomicBool,
    /// There is an order in the queue.
    orders: AtomicBool,
}

/// What became of an order to resize.
pub(crate) type Answer = (ClientId, u64, Result<Resized>);

/// The daemon's end of the thread.
#[derive(Debug)]
pub(crate) struct Bridge {
    shared: Arc<Shared>,
    to: Sender<Order>,
    from: Receiver<Answer>,
    /// Rung by the thread when it has answered.
    bell: Bell,
    /// Rung for the thread while it waits for the feed.
    wake: Bell,
    /// For while it waits for a reader.
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Bridge {
    /// Starts the thread with both its ends.
    ///
    /// # Errors
    /// When the system gives no descriptors or no thread.
    pub(crate) fn start(channel: ChannelName, feed: Reader, writer: Writer) -> Result<Self> {
        let (to, orders) = mpsc::channel();
        let (answers, from) = mpsc::channel();
        let (wake, woken) = Bell::new()?;
        let (rung, bell) = Bell::new()?;
        let shared = Arc::new(Shared::default());
        let waker = writer.waker();
        let mut work = Work {
            lines: RateLimit::new(1),
            overflow_lines: RateLimit::new(1),
            last: State { counters: writer.counters(), capacity: writer.capacity(), ..State::default() },
            channel,
            writer,
            shared: Arc::clone(&shared),
            orders,
            answers,
            woken: Bell::from_fd(woken)?,
            rung,
            shrinking: None,
        };
        work.show("operator");
        let thread = thread::Builder::new()
            .name("handoff".to_owned())
            .spawn(move || work.run(feed))
            .map_err(|e| Error::system("start a thread for a handoff channel", e))?;
        Ok(Self { shared, to, from, bell: Bell::from_fd(bell)?, wake, waker, thread: Some(thread) })
    }

    /// How it stands.
    pub(crate) fn state(&self) -> State {
        *self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for another length; the answer is among [`answers`](Self::answers) later.
    pub(crate) fn resize(&self, client: ClientId, bytes: u64) {
        self.order(Order::Resize(client, bytes));
    }

    /// Another policy for messages that are not acknowledged in time.
    pub(crate) fn set_policy(&self, on_full: OnFull, ack_timeout: Duration) {
        self.order(Order::Policy(on_full, ack_timeout));
    }

    fn order(&self, order: Order) {
        // A thread that is gone was reported.
        let _ = self.to.send(order);
        self.shared.orders.store(true, Ordering::Release);
        self.rouse();
    }

    /// Readable when there are answers.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// What has been answered since the last call.
    pub(crate) fn answers(&self) -> Vec<Answer> {
        self.bell.drain();
        self.from.try_iter().collect()
    }

    fn rouse(&self) {
        self.wake.ring();
        self.waker.wake();
    }

    /// Ends the thread, which withdraws what is on offer and removes the objects. False when it does not end.
    pub(crate) fn stop(&mut self) -> bool {
        let Some(thread) = self.thread.take() else { return true };
        self.shared.stop.store(true, Ordering::Release);
        let until = Instant::now() + STOP;
        while !thread.is_finished() && Instant::now() < until {
            self.rouse();
            thread::sleep(Duration::from_millis(1));
        }
        // A panic was printed by the thread itself.
        thread.is_finished() && thread.join().is_ok()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Why handing a message over was broken off.
enum Stopped {
    ByDaemon,
    By(Error),
}

/// The thread.
struct Work {
    channel: ChannelName,
    writer: Writer,
    shared: Arc<Shared>,
    orders: Receiver<Order>,
    answers: Sender<Answer>,
    woken: Bell,
    rung: Bell,
    /// As it was shown last.
    last: State,
    /// The length asked for while a message was on offer.
    shrinking: Option<u64>,
    lines: RateLimit,
    overflow_lines: RateLimit,
}

impl Work {
    fn run(mut self, mut feed: Reader) {
        if let Err(Stopped::By(error)) = self.serve(&mut feed)
            && !matches!(error, Error::Closed { .. } | Error::Disconnected { .. })
        {
            operation("handoff-failed").on(&self.channel).reason(error).error();
        }
        let Counters { messages, dropped, .. } = self.writer.counters();
        let end = operation("handoff-end").on(&self.channel).number("messages", messages).number("dropped", dropped);
        end.number("withdrawn", u64::from(self.writer.on_offer().is_some())).info();
    }

    fn serve(&mut self, feed: &mut Reader) -> Result<(), Stopped> {
        let mut bytes = Vec::new();
        loop {
            self.obey()?;
            if let Some(message) = feed.try_recv().map_err(Stopped::By)? {
                message.copy_to_vec(&mut bytes);
                self.hand_over(&bytes)?;
                // Only now it is acknowledged to whoever published it.
                message.finish().map_err(Stopped::By)?;
                continue;
            }
            if feed.arm().map_err(Stopped::By)? {
                let mut fds = [feed.as_fd(), self.woken.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
                // An interrupted or failed wait is followed by another look.
                if let Err(e) = poll(&mut fds, PollTimeout::NONE) {
                    debug!("event=handoff-wait channel={} reason={e}", self.channel);
                }
                self.woken.drain();
            }
        }
    }

    /// Whatever is wrong with the objects may be put right by those who use them: it is tried again and again.
    fn hand_over(&mut self, message: &[u8]) -> Result<(), Stopped> {
        loop {
            self.obey()?;
            match self.writer.offer(message) {
                Ok(()) => break,
                Err(error) => self.retry(&error)?,
            }
        }
        self.show("writer");
        loop {
            let progress = self.writer.progress(u64::MAX);
            self.show("operator");
            match progress {
                Ok(Progress::Acknowledged | Progress::Dropped) => return Ok(()),
                Ok(Progress::Waiting) => self.obey()?,
                Err(error) => self.retry(&error)?,
            }
        }
    }

    /// Waits a moment, unless there is something else to do.
    fn retry(&mut self, error: &Error) -> Result<(), Stopped> {
        if let Some(left_out) = self.lines.admit(Instant::now()) {
            operation("handoff-waits").on(&self.channel).reason(error).left_out(left_out).warn();
            self.rung.ring();
        }
        let mut fds = [PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::try_from(RETRY).unwrap_or(PollTimeout::MAX)).is_ok_and(|woken| woken > 0) {
            self.woken.drain();
        }
        self.obey()
    }

    /// Does what the daemon has asked for.
    fn obey(&mut self) -> Result<(), Stopped> {
        if self.shared.stop.load(Ordering::Acquire) {
            return Err(Stopped::ByDaemon);
        }
        if !self.shared.orders.swap(false, Ordering::Acquire) {
            return Ok(());
        }
        for order in self.orders.try_iter().collect::<VecDeque<_>>() {
            let (client, bytes) = match order {
                Order::Resize(client, bytes) => (client, bytes),
                Order::Policy(on_full, ack_timeout) => {
                    self.writer.set_policy(on_full, ack_timeout);
                    continue;
                }
            };
            let outcome = self.writer.resize(bytes);
            if let Ok(Resized { new, pending, .. }) = &outcome {
                self.shrinking = pending.then_some(*new);
            }
            // The daemon is there as long as this thread.
            let _ = self.answers.send((client, bytes, outcome));
        }
        self.show("operator");
        self.rung.ring();
        Ok(())
    }

    /// Shows how things stand, and logs what peers have done. A change of the length is `by` whom.
    fn show(&mut self, by: &str) {
        let (counters, then, at) = (self.writer.counters(), self.last, Instant::now());
        let capacity = self.writer.capacity();
        self.shrinking = self.shrinking.filter(|&new| self.writer.on_offer().is_some() && new != capacity);
        let since = then.on_offer.filter(|_| ended(counters) == ended(then.counters));
        let on_offer = self.writer.on_offer().map(|len| (len, since.map_or(at, |(_, since)| since)));
        let last_ack = if counters.messages == then.counters.messages { then.last_ack } else { Some(at) };
        let state = State { counters, capacity, pending: self.shrinking, on_offer, last_ack };
        *self.shared.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.last = state;
        if self.log(then, by) {
            // Those who follow the log are told by the daemon's own thread.
            self.rung.ring();
        }
    }

    /// Logs what is different from `then`; whether there was anything.
    fn log(&mut self, then: State, by: &str) -> bool {
        let (now, counters, before) = (self.last, self.last.counters, then.counters);
        let mut told = false;
        let about = |event| operation(event).on(&self.channel);
        if now.capacity != then.capacity {
            let event = if now.capacity > then.capacity { "grow" } else { "shrink" };
            about(event).number("old", then.capacity).number("new", now.capacity).text("by", by).info();
            told = true;
        }
        if counters.dropped != before.dropped
            && let Some(left_out) = self.overflow_lines.admit(Instant::now())
        {
            let lost = about("overflow").number("dropped", counters.dropped);
            lost.reason("nobody acknowledged in time").left_out(left_out).warn();
            told = true;
        }
        let trouble = |c: Counters| (c.offered_again, c.recovered, c.repaired, c.stray_posts);
        if trouble(counters) != trouble(before)
            && let Some(left_out) = self.lines.admit(Instant::now())
        {
            let seen = about("handoff-trouble").number("offered_again", counters.offered_again);
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
