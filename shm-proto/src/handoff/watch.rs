//! A descriptor for a reader that sleeps in a poll loop. A semaphore is no descriptor, so a thread of this process watches it.
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
//! killed at any instruction. But a post wakes one sleeper. If the thread is that one, a reader in another process may sleep
//! beside a message, and the program here may be busy. So the thread wakes all others before it rests.
//!
//! What the event says may be out of date: another reader was faster. Then the program finds nothing, and arms again.

use std::fmt;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, SigmaskHow};

use super::Names;
use super::objects::Objects;
use crate::error::SystemError;
use crate::os::clock::{self, monotonic_ns};
use crate::os::sem::Wait;

/// The time between two checks that the names still lead to the objects that are watched, and between two signs of life.
const LOOK: Duration = Duration::from_millis(250);
/// The time between two looks for objects that do not exist yet.
const SEARCH: Duration = Duration::from_millis(20);
/// The time between two wake-ups of a thread that has not noticed the first.
const AGAIN: Duration = Duration::from_micros(100);
/// A thread that has not noticed by then does not exist, or the kernel does not run it.
const PATIENCE: Duration = Duration::from_secs(1);

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

/// Something to watch. Every job has a number of its own.
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
}

struct Shared {
    event: EventFd,
    state: Mutex<State>,
    changed: Condvar,
    /// The number of the last job, raised at the end as well. Changed only with the state locked.
    number: AtomicU64,
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
        let state = Mutex::new(State { order: Order::Rest, busy: None });
        let shared = Arc::new(Shared { event, state, changed: Condvar::new(), number: AtomicU64::new(0) });
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
        let number = self.shared.number();
        let is_this = |job: &Arc<Job>| {
            job.number == number && job.target.is(&target) && Arc::ptr_eq(&job.sign_of_life, sign_of_life)
        };
        match (&state.order, &state.busy) {
            (Order::Watch(job), _) if is_this(job) => {}
            // It has not noticed yet that it was to rest.
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

    /// Gives another order, and sees to it that the thread does nothing of an earlier one any more.
    fn change<'a>(&'a self, mut state: MutexGuard<'a, State>, order: Order) {
        let number = self.shared.number() + 1;
        state.order = order;
        // Release pairs with the Acquire of a thread that is about to sleep.
        self.shared.number.store(number, Ordering::Release);
        self.shared.changed.notify_one();
        let until = clock::after(PATIENCE);
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
            // Nobody unlocks here what the thread had locked in the parent.
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

    fn number(&self) -> u64 {
        // Acquire pairs with the Release in `Watch::change`.
        self.number.load(Ordering::Acquire)
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

    /// Whether this is still to be watched.
    fn is_wanted(&self, job: &Job) -> bool {
        matches!(&self.lock().order, Order::Watch(wanted) if wanted.number == job.number)
    }

    fn watch(&self, job: &Job, objects: &Objects) {
        while self.is_wanted(job) {
            (job.sign_of_life)();
            match objects.avail.watch_unless(clock::after(LOOK), || self.number() != job.number) {
                Wait::Posted => return objects.avail.wake_all(),
                Wait::TimedOut if !objects.are_current() => return,
                Wait::TimedOut | Wait::Interrupted => {}
            }
        }
    }

    fn search(&self, job: &Job, names: &Names) {
        let mut looks: u32 = 0;
        while self.is_wanted(job) {
            if looks.is_multiple_of((LOOK.as_millis() / SEARCH.as_millis()) as u32) {
                (job.sign_of_life)();
            }
            looks = looks.wrapping_add(1);
            let state = self.lock();
            drop(self.changed.wait_timeout(state, SEARCH).unwrap_or_else(PoisonError::into_inner));
            // What is not complete yet is looked at again after another moment.
            if Objects::exist(names) {
                return;
            }
        }
    }

    /// Sets the event, unless the program has asked for something else meanwhile.
    fn tell(&self, job: &Job) {
        let mut state = self.lock();
        state.busy = None;
        if matches!(&state.order, Order::Watch(wanted) if wanted.number == job.number) {
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
