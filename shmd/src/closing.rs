//! Closes what clients have sent, in threads, because that may take as long as a client likes: see
//! [`os::closing`](shm_proto::internal::os::closing).

use std::collections::VecDeque;
use std::os::unix::net::UnixListener;
use std::sync::{Mutex, MutexGuard, PoisonError};

use log::debug;
use shm_proto::internal::os::closing;

use crate::threads;

/// Most threads that close at the same time. While this many wait, what is to be closed stays open.
const MOST: usize = 64;

struct Closing {
    waiting: VecDeque<Box<dyn Send>>,
    threads: usize,
}

struct Pool(Mutex<Closing>);

static POOL: Pool = Pool::new();

/// From now on, nothing that a client has sent holds the daemon up.
pub(crate) fn begin() {
    closing::set_closer(elsewhere);
}

/// Drops a value in a thread.
pub(crate) fn elsewhere(thing: Box<dyn Send>) {
    POOL.take(thing);
}

/// Closes a listening socket in a thread, once its owner has dropped it: clients that nobody has accepted may have sent descriptors,
/// which are closed with it.
pub(crate) fn listener(listener: &UnixListener) {
    // Without a descriptor for a copy there is no other way but to wait.
    if let Ok(copy) = listener.try_clone() {
        elsewhere(Box::new(copy));
    }
}

impl Pool {
    const fn new() -> Self {
        Self(Mutex::new(Closing { waiting: VecDeque::new(), threads: 0 }))
    }

    /// A thread for each: one that waits holds up no other.
    fn take(&'static self, thing: Box<dyn Send>) {
        let mut closing = self.look();
        closing.waiting.push_back(thing);
        if closing.threads == MOST {
            return;
        }
        closing.threads += 1;
        drop(closing);
        if let Err(e) = threads::spawn("close", || self.work()) {
            // It stays until the next thread takes it along.
            debug!("event=no-thread reason=\"{e}\"");
            self.look().threads -= 1;
        }
    }

    fn work(&self) {
        while let Some(thing) = self.next() {
            drop(thing);
        }
    }

    /// What is to be closed next. If there is nothing, the thread ends.
    fn next(&self) -> Option<Box<dyn Send>> {
        let mut closing = self.look();
        let thing = closing.waiting.pop_front();
        closing.threads -= usize::from(thing.is_none());
        thing
    }

    fn look(&self) -> MutexGuard<'_, Closing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use shm_test_support::wait_until;

    /// Says that its end has begun, and waits until it may end.
    struct Slow(Sender<()>, Receiver<()>);

    impl Drop for Slow {
        fn drop(&mut self) {
            let _ = self.0.send(());
            let _ = self.1.recv();
        }
    }

    #[test]
    fn what_does_not_end_holds_up_nothing_else_until_there_are_too_many_and_those_come_later() {
        static POOL: Pool = Pool::new();
        let state = || {
            let closing = POOL.look();
            (closing.waiting.len(), closing.threads)
        };
        let (begun, beginnings) = channel();
        let mut ends: Vec<Sender<()>> = Vec::new();
        for _ in 0..MOST + 2 {
            let (end, may_end) = channel();
            ends.push(end);
            POOL.take(Box::new(Slow(begun.clone(), may_end)));
        }
        (0..MOST).for_each(|_| beginnings.recv().unwrap());
        assert_eq!(state(), (2, MOST));
        drop(ends);
        (0..2).for_each(|_| beginnings.recv().unwrap());
        wait_until("the threads have ended", || state() == (0, 0));
    }
}
