//! A value that a thread for blocking calls may have for a while.

use std::future::{Future, poll_fn};
use std::io;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::error::{Result, SystemError};

/// Either here or with a thread, whose work has a result. What a thread does it does to the end, also when the task that waits
/// for it is cancelled: so the value comes back, and the result is kept until somebody takes it.
#[derive(Debug)]
pub(super) struct Lent<T, R> {
    here: Option<Box<T>>,
    away: Option<JoinHandle<(Box<T>, R)>>,
}

impl<T: Send + 'static, R: Send + 'static> Lent<T, R> {
    pub(super) fn new(value: T) -> Self {
        Lent { here: Some(Box::new(value)), away: None }
    }

    /// The value, if no thread has it.
    pub(super) fn here(&mut self) -> Result<&mut T> {
        // Without a value, the runtime ended before the thread could return it.
        self.here.as_deref_mut().ok_or_else(|| lost(io::Error::other("the runtime has ended")))
    }

    /// Lends the value to a thread for this work, if it is here.
    pub(super) fn send(&mut self, work: impl FnOnce(&mut T) -> R + Send + 'static) {
        if let Some(mut value) = self.here.take() {
            self.away = Some(spawn_blocking(move || {
                let result = work(&mut value);
                (value, result)
            }));
        }
    }

    /// Ready when no thread has the value, with the result of the last work if nobody has taken it.
    pub(super) fn poll_back(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<R>>> {
        let Some(away) = &mut self.away else { return Poll::Ready(Ok(None)) };
        let ended = ready!(Pin::new(away).poll(cx));
        self.away = None;
        let (value, result) = outcome(ended)?;
        self.here = Some(value);
        Poll::Ready(Ok(Some(result)))
    }

    /// As [`poll_back`](Self::poll_back).
    pub(super) async fn back(&mut self) -> Result<Option<R>> {
        poll_fn(|cx| self.poll_back(cx)).await
    }

    /// The value, as soon as no thread has it.
    pub(super) async fn into_inner(mut self) -> Result<T> {
        self.back().await?;
        self.here.map(|value| *value).ok_or_else(|| lost(io::Error::other("the runtime has ended")))
    }
}

/// Does something that blocks.
pub(super) async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    outcome(spawn_blocking(work).await)
}

/// What has become of a thread's work. A panic goes on in the task.
fn outcome<T>(ended: Result<T, JoinError>) -> Result<T> {
    ended.map_err(|error| match error.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        Err(error) => lost(error.into()),
    })
}

fn lost(error: io::Error) -> SystemError {
    SystemError::new("wait on a thread of the runtime", error)
}
