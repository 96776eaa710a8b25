//! Work that takes time, in a thread of its own, so that the channels do not stand still.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SendError, TryRecvError};
use std::thread::JoinHandle;

use shm_proto::internal::os::bell::Bell;
use shm_proto::{Error, ErrorKind, Refusal, Result};

use crate::connections::refusal;
use crate::threads;

/// Work that is under way. Dropping it gives it up.
#[derive(Debug)]
pub(super) struct Work<T> {
    name: &'static str,
    ending: Arc<AtomicBool>,
    done: Receiver<Result<T, Refusal>>,
    bell: Bell,
    /// Waited for when the work is given up.
    thread: Option<JoinHandle<()>>,
    discard: fn(T),
}

impl<T: Send + 'static> Work<T> {
    /// Starts a thread of this name, which does the work. The work ends early once its flag is set; `discard` gets a result that
    /// nobody wants any more.
    ///
    /// # Errors
    /// When the system gives no descriptors or no thread.
    pub(super) fn start(
        name: &'static str,
        discard: fn(T),
        work: impl FnOnce(&AtomicBool) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<Self> {
        let (rung, bell) = Bell::new()?;
        let (to, done) = mpsc::channel();
        let ending = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ending);
        let thread = move || {
            // A daemon that no longer listens does not want the result.
            if let Err(SendError(Ok(unwanted))) = to.send(work(&end)) {
                discard(unwanted);
            }
            rung.ring();
        };
        let thread =
            threads::spawn(name, thread).map_err(|e| Error::system(format!("start the thread {name:?}"), e))?;
        Ok(Self { name, ending, done, bell: Bell::from_fd(bell)?, thread: Some(thread), discard })
    }
}

impl<T> Work<T> {
    /// The same, but its end is not waited for when it is given up: for a thread that leaves nothing behind.
    pub(super) fn unawaited(mut self) -> Self {
        self.thread = None;
        self
    }

    /// Readable when [`take`](Self::take) has something.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The result, once there is one.
    pub(super) fn take(&mut self) -> Option<Result<T, Refusal>> {
        self.bell.drain();
        match self.done.try_recv() {
            Ok(done) => Some(done),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                let why = format!("nothing was changed: the daemon's thread {:?} panicked", self.name);
                Some(Err(refusal(ErrorKind::Internal, why)))
            }
        }
    }
}

impl<T> Drop for Work<T> {
    fn drop(&mut self) {
        // Acquire where it is read: no more than the flag itself is told.
        self.ending.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // It looks at the flag many times a second. A panic was told.
            let _ = thread.join();
        }
        if let Some(Ok(unwanted)) = self.take() {
            (self.discard)(unwanted);
        }
    }
}
