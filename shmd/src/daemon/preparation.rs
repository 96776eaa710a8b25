//! The objects of new channels, made in a thread, so that the other channels continue.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SendError, TryRecvError};
use std::thread::JoinHandle;
use std::time::Duration;

use shm_proto::internal::os::bell::Bell;
use shm_proto::internal::ring::Owner;
use shm_proto::{Error, ErrorKind, Prefix, Refusal, Result};

use crate::channel::Prepared;
use crate::config::{ChannelConfig, Config};
use crate::connections::refusal;
use crate::event_loop::ClientId;
use crate::threads;

/// How long a peer that sits in the mutex of stale handoff objects is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Objects that are being made. Dropping it gives them up.
#[derive(Debug)]
pub(super) struct Making {
    ending: Arc<AtomicBool>,
    made: Receiver<Result<Vec<Prepared>, Refusal>>,
    bell: Bell,
    thread: Option<JoinHandle<()>>,
}

impl Making {
    /// Starts a thread of this name, which does the work. The work ends early once its flag is set.
    ///
    /// # Errors
    /// When the system gives no descriptors or no thread.
    pub(super) fn start(
        name: &str,
        make: impl FnOnce(&AtomicBool) -> Result<Vec<Prepared>, Refusal> + Send + 'static,
    ) -> Result<Self> {
        let (rung, bell) = Bell::new()?;
        let (to, made) = mpsc::channel();
        let ending = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ending);
        let work = move || {
            // A daemon that no longer listens does not want the objects.
            if let Err(SendError(Ok(unwanted))) = to.send(make(&end)) {
                unwanted.into_iter().for_each(Prepared::discard);
            }
            rung.ring();
        };
        let thread =
            threads::spawn(name, work).map_err(|e| Error::system("start a thread that makes new channels", e))?;
        Ok(Self { ending, made, bell: Bell::from_fd(bell)?, thread: Some(thread) })
    }

    /// Readable when [`take`](Self::take) has something.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The objects, all or none, once they are made.
    pub(super) fn take(&mut self) -> Option<Result<Vec<Prepared>, Refusal>> {
        self.bell.drain();
        match self.made.try_recv() {
            Ok(made) => Some(made),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(refusal(
                ErrorKind::Internal,
                "nothing was changed: the thread that makes new channels panicked",
            ))),
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // Acquire where it is read: no more than the flag itself is told.
        self.ending.store(true, Ordering::Release);
        // The objects made so far are not wanted.
        if let Some(Ok(unwanted)) = self.take() {
            unwanted.into_iter().for_each(Prepared::discard);
        }
        let Some(thread) = self.thread.take() else { return };
        // It looks at the flag many times a second. A panic was told.
        let _ = thread.join();
        if let Some(Ok(unwanted)) = self.take() {
            unwanted.into_iter().for_each(Prepared::discard);
        }
    }
}

/// A reload that waits for its new channels' objects. Dropping it gives them up.
#[derive(Debug)]
pub(super) struct Preparation {
    /// What is to be taken over then.
    pub(super) config: Config,
    /// The client that waits for the answer.
    pub(super) client: Option<ClientId>,
    /// The user or the signal that asked for it.
    pub(super) by: String,
    /// The objects.
    pub(super) making: Making,
}

impl Preparation {
    /// Starts to make the objects of `wanted`.
    ///
    /// # Errors
    /// When the system gives no descriptors or no thread.
    pub(super) fn start(
        config: Config,
        wanted: Vec<ChannelConfig>,
        owner: Owner,
        client: Option<ClientId>,
        by: String,
    ) -> Result<Self> {
        let prefix = config.prefix.clone();
        let making = Making::start("reload", move |ending| make_all(wanted, &prefix, owner, ending))?;
        Ok(Self { config, client, by, making })
    }
}

fn make_all(
    wanted: Vec<ChannelConfig>,
    prefix: &Prefix,
    owner: Owner,
    ending: &AtomicBool,
) -> Result<Vec<Prepared>, Refusal> {
    let mut made = Vec::new();
    for config in wanted {
        match Prepared::make(config, prefix, owner, PATIENCE, ending) {
            Ok(prepared) => made.push(prepared),
            Err(e) => {
                made.into_iter().for_each(Prepared::discard);
                return Err(refusal(ErrorKind::NoSpace, format!("nothing was changed: {e}")));
            }
        }
    }
    Ok(made)
}
