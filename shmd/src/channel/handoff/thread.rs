//! The writer of a handoff channel inside the daemon: a thread that reads the channel's feed, a ring, and hands each message
//! over before it takes the next.
//!
//! So every source and every program that borrows the writer role feeds a handoff channel as it feeds a ring, and none of
//! them touches its objects. Those who can write the objects are trusted: one who cuts the segment ends the daemon.

mod work;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use shm_proto::OnFull;
use shm_proto::internal::handoff::{Counters, Resized, Waker, Writer};
use shm_proto::internal::os::bell::Bell;
use shm_proto::internal::ring::Reader;
use shm_proto::{ChannelName, Error, HandoffError, Result, SystemError};

use crate::cleanup;
use crate::event_loop::ClientId;
use crate::threads;
use work::{Ends, Work};

/// How long a thread that is dropped before its end has to end: it waits for a mutex no longer than a second at a time.
const STOP: Duration = Duration::from_secs(3);

/// How the handoff stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    /// What has happened so far.
    pub(super) counters: Counters,
    /// The segment's length in bytes.
    pub(super) capacity: u64,
    /// A length that waits for an acknowledgement.
    pub(super) pending: Option<u64>,
    /// Bytes of the message on offer, and since when it is.
    pub(super) on_offer: Option<(u64, Instant)>,
    /// When a message was acknowledged last.
    pub(super) last_ack: Option<Instant>,
}

/// What the daemon asks of the thread.
#[derive(Debug)]
enum Order {
    /// Another length, for a client that waits for the answer.
    Resize(ClientId, u64),
    /// Another policy.
    Policy(OnFull, Duration),
    /// A shorter length, because no message has needed so much for a while.
    GiveBack(u64),
}

/// What both threads see.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    stop: AtomicBool,
    /// Objects that were adopted stay at the end: the daemon that has adopted them was never ready.
    leaves: AtomicBool,
    /// The thread has removed the objects, or failed to, and has nothing more to do.
    ended: AtomicBool,
    /// Why some object could not be removed, once the thread has tried.
    left: Mutex<Option<SystemError>>,
    /// There is an order in the queue.
    orders: AtomicBool,
    /// The longest segment that a message has needed since somebody looked.
    peak: AtomicU64,
}

/// What became of an order to resize.
pub(super) type Answer = (ClientId, u64, Result<Resized, HandoffError>);

/// The daemon's end of the thread.
#[derive(Debug)]
pub(super) struct HandoffThread {
    shared: Arc<Shared>,
    to: Sender<Order>,
    from: Receiver<Answer>,
    /// Rung by the thread when it has answered, and at its end.
    bell: Bell,
    /// Rung for the thread while it waits for the feed.
    wake: Bell,
    /// For while it waits for a reader.
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl HandoffThread {
    /// Starts the thread with both its ends.
    ///
    /// # Errors
    /// When the system gives no descriptors or no thread.
    pub(super) fn start(channel: ChannelName, feed: Reader, writer: Writer) -> Result<Self> {
        let (to, orders) = mpsc::channel();
        let (answers, from) = mpsc::channel();
        let (wake, woken) = Bell::new()?;
        let (rung, bell) = Bell::new()?;
        let last = Bell::from_fd(rung.try_clone_fd()?)?;
        let shared = Arc::new(Shared { leaves: AtomicBool::new(true), ..Shared::default() });
        let waker = writer.waker();
        let ends = Ends { shared: Arc::clone(&shared), orders, answers, woken: Bell::from_fd(woken)?, rung };
        let mut work = Work::new(channel, writer, ends);
        work.show("daemon");
        let end = End { shared: Arc::clone(&shared), bell: last };
        let run = move || {
            // Dropped after the work, with which the objects go, and in a panic as well.
            let _end = end;
            work.run(feed);
        };
        let thread =
            threads::spawn("handoff", run).map_err(|e| Error::system("start a thread for a handoff channel", e))?;
        Ok(Self { shared, to, from, bell: Bell::from_fd(bell)?, wake, waker, thread: Some(thread) })
    }

    /// How it stands.
    pub(super) fn state(&self) -> State {
        *self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for another length; the answer is among [`answers`](Self::answers) later. False when there will be none, because
    /// the thread is gone.
    pub(super) fn resize(&self, client: ClientId, bytes: u64) -> bool {
        self.order(Order::Resize(client, bytes))
    }

    /// Another policy for messages that are not acknowledged in time.
    pub(super) fn set_policy(&self, on_full: OnFull, ack_timeout: Duration) {
        self.order(Order::Policy(on_full, ack_timeout));
    }

    /// Gives memory back that has not been needed.
    pub(super) fn shrink_unused(&self, bytes: u64) {
        self.order(Order::GiveBack(bytes));
    }

    /// The longest segment, in bytes, that a message has needed since the last call.
    pub(super) fn take_peak(&self) -> u64 {
        self.shared.peak.swap(0, Ordering::Relaxed)
    }

    /// A thread that is gone was reported.
    fn order(&self, order: Order) -> bool {
        let taken = self.to.send(order).is_ok();
        self.shared.orders.store(true, Ordering::Release);
        self.wake.ring();
        self.waker.wake();
        taken
    }

    /// Readable when there are answers, and when the thread has ended.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// What has been answered since the last call.
    pub(super) fn answers(&self) -> Vec<Answer> {
        self.bell.drain();
        self.from.try_iter().collect()
    }

    /// Makes the thread end: it withdraws what is on offer and removes the objects. Nobody waits for that here, because it may
    /// have to wait for a peer that sits in the mutex.
    pub(super) fn begin_stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake.ring();
        self.waker.end();
    }

    /// From now on the objects are removed at the end in any case.
    pub(super) fn keep(&self) {
        self.shared.leaves.store(false, Ordering::Release);
    }

    /// Whether the thread has come to its end; the [`bell`](Self::bell) says when.
    pub(super) fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    /// After the [end](Self::has_ended): whether all objects were removed.
    ///
    /// # Errors
    /// Why not; told once.
    pub(super) fn removed(&self) -> Result<(), SystemError> {
        self.shared.left.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    /// Leaves a thread behind that does not end.
    pub(super) fn abandon(&mut self) {
        self.thread = None;
    }
}

impl Drop for HandoffThread {
    /// A start that fails halfway ends the handoffs that it has made, so that their objects go, unless they were adopted.
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.begin_stop();
        let until = Instant::now() + STOP;
        while !self.has_ended() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        if self.has_ended() {
            // A panic was printed by the thread itself.
            let _ = thread.join();
            if let Err(e) = self.removed() {
                cleanup::failed(None, "an object of a handoff", e);
            }
        }
    }
}

/// The thread's last word.
struct End {
    shared: Arc<Shared>,
    bell: Bell,
}

impl Drop for End {
    fn drop(&mut self) {
        // Release: whoever sees it finds the objects gone.
        self.shared.ended.store(true, Ordering::Release);
        self.bell.ring();
    }
}
