//! A descriptor for a reader that sleeps in a poll loop. A semaphore has none, so a thread of this process watches it.
//!
//! ```text
//! reader                           thread                             kernel
//!   arm: clear the event,            rests
//!        say what to watch ------->  sleeps on `avail`
//!   poll on the event                                          <---- a post wakes one sleeper
//!                                    wakes the others
//!                          <-------  sets the event; rests
//!   receive, as every reader does
//! ```
//!
//! The thread takes nothing. The post stays where it is, for whichever reader comes first, and is still there when this process is
//! killed at any instruction. But a post wakes one sleeper. If the thread is that sleeper and its program is busy, a reader in
//! another process would sleep although there is a message. So the thread wakes all others before it rests.
//!
//! The event may be out of date, because another reader was faster. Then the program finds nothing, and arms again.

use std::fmt;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::process;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, SigmaskHow};

use super::Names;
use super::objects::{LOOK, Objects, SEARCH};
use crate::error::SystemError;
use crate::os::clock::{self, monotonic_ns};
use crate::os::sem::Wait;

/// The time between two wake-ups of a thread that has not noticed the first.
const AGAIN: Duration = Duration::from_micros(100);
/// A thread that has not noticed an order by then does not exist, or the kernel does not run it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Called when the watching begins and four times a second while nothing comes.
pub type SignOfLife = Arc<dyn Fn() + Send + Sync>;

/// What is watched for.
pub(super) enum Target {
    /// A post, or that the objects are replaced or removed.
    Post(Arc<Objects>),
    /// That there are objects of these names.
    Objects(Names),
}

impl Target {
    fn is(&self, other: &Target) -> bool {
        match (self, other) {
            (Target::Post(a), Target::Post(b)) => Arc::ptr_eq(a, b),
            (Target::Objects(a), Target::Objects(b)) => a == b,
            _ => false,
        }
    }
}

/// Something to watch, with the number of its order.
struct Job {
    number: u64,
    target: Target,
    sign_of_life: SignOfLife,
}

enum Order {
    Rest,
    Watch(Arc<Job>),
    End,
}

struct State {
    order: Order,
    /// What the thread does now.
    busy: Option<Arc<Job>>,
    /// The number of the last order to watch or to end. A thread that works for an earlier order stops.
    number: u64,
}

impl State {
    /// Whether this is still to be watched.
    fn wants(&self, job: &Job) -> bool {
        matches!(&self.order, Order::Watch(wanted) if wanted.number == job.number)
    }
}

struct Shared {
    event: EventFd,
    state: Mutex<State>,
    changed: Condvar,
}

/// The reader's end of the thread.
pub(super) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// A child after `fork` has no thread.
    process: u32,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("thread", &self.thread).finish_non_exhaustive()
    }
}

impl Watch {
    /// Starts the thread, which rests at first.
    ///
    /// # Errors
    /// If the system gives no descriptor or no thread.
    pub(super) fn start() -> Result<Self, SystemError> {
        let failed = |step: &str| format!("{step} for waiting on a handoff's descriptor");
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|e| SystemError::new(failed("create an event"), e))?;
        let state = Mutex::new(State { order: Order::Rest, busy: None, number: 0 });
        let shared = Arc::new(Shared { event, state, changed: Condvar::new() });
        let thread = {
            let shared = Arc::clone(&shared);
            spawn(move || shared.run()).map_err(|e| SystemError::new(failed("start a thread"), e))?
        };
        Ok(Watch { shared, thread: Some(thread), process: process::id() })
    }

    /// Readable from what was watched for until the next [`begin`](Self::begin).
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }

    /// Clears the event, and watches.
    pub(super) fn begin(&self, target: Target, sign_of_life: &SignOfLife) {
        let mut state = self.shared.lock();
        // There is nothing to clear if nothing was set.
        let _ = self.shared.event.read();
        let number = state.number;
        let is_this = |job: &Arc<Job>| {
            job.number == number && job.target.is(&target) && Arc::ptr_eq(&job.sign_of_life, sign_of_life)
        };
        match (&state.order, &state.busy) {
            (Order::Watch(job), _) if is_this(job) => {}
            // The thread has not noticed the order to rest.
            (Order::Rest, Some(job)) if is_this(job) => state.order = Order::Watch(Arc::clone(job)),
            _ => {
                let job = Job { number: number + 1, target, sign_of_life: Arc::clone(sign_of_life) };
                self.change(state, Order::Watch(Arc::new(job)));
            }
        }
    }

    /// Stops watching, soon.
    pub(super) fn rest(&self) {
        let mut state = self.shared.lock();
        if matches!(state.order, Order::Watch(_)) {
            state.order = Order::Rest;
        }
    }

    /// Gives another order, and waits until the thread has stopped working for an earlier one.
    fn change<'a>(&'a self, mut state: MutexGuard<'a, State>, order: Order) {
        state.number += 1;
        state.order = order;
        self.shared.changed.notify_one();
        let (number, until) = (state.number, clock::after(PATIENCE));
        while let Some(job) = state.busy.clone().filter(|job| job.number != number && monotonic_ns() < until) {
            drop(state);
            if let Target::Post(objects) = &job.target {
                objects.avail.wake_sleepers();
            }
            sleep(AGAIN);
            state = self.shared.lock();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        if self.process != process::id() {
            // If the thread held the lock when the parent forked, the lock is never released here.
            return mem::forget(thread);
        }
        self.change(self.shared.lock(), Order::End);
        let until = clock::after(PATIENCE);
        while !thread.is_finished() && monotonic_ns() < until {
            sleep(AGAIN);
        }
        if thread.is_finished() {
            // A panic was printed by the thread itself.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some(job) = self.next() {
            match &job.target {
                Target::Post(objects) => self.watch(&job, objects),
                Target::Objects(names) => self.search(&job, names),
            }
            self.tell(&job);
        }
    }

    /// Rests until there is something to watch. `None` at the end.
    fn next(&self) -> Option<Arc<Job>> {
        let mut state = self.lock();
        loop {
            match &state.order {
                Order::Watch(job) => {
                    let job = Arc::clone(job);
                    state.busy = Some(Arc::clone(&job));
                    return Some(job);
                }
                Order::End => return None,
                Order::Rest => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn watch(&self, job: &Job, objects: &Objects) {
        while self.lock().wants(job) {
            (job.sign_of_life)();
            match objects.avail.watch_unless(monotonic_ns() + LOOK, || self.lock().number != job.number) {
                Wait::Posted => return objects.avail.wake_all(),
                Wait::TimedOut if !objects.are_current() => return,
                Wait::TimedOut | Wait::Interrupted => {}
            }
        }
    }

    fn search(&self, job: &Job, names: &Names) {
        let mut looks: u64 = 0;
        while self.lock().wants(job) {
            if looks.is_multiple_of(LOOK / SEARCH) {
                (job.sign_of_life)();
            }
            looks += 1;
            let state = self.lock();
            let pause = Duration::from_nanos(SEARCH);
            drop(self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner));
            // If they are not complete yet, the program arms again, and this looks again after another pause.
            if Objects::exist(names) {
                return;
            }
        }
    }

    /// Sets the event, unless the program has asked for something else meanwhile.
    fn tell(&self, job: &Job) {
        let mut state = self.lock();
        state.busy = None;
        if state.wants(job) {
            state.order = Order::Rest;
            // It was cleared when this job began, so there is space for 1.
            let _ = self.event.write(1);
        }
    }
}

/// Starts a thread that takes none of the program's signals: a handler that runs in it would interrupt no wait of the program.
fn spawn(work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let spawned = thread::Builder::new().name("shmd-handoff".to_owned()).spawn(work);
    mask.thread_set_mask()?;
    spawned
}
