//! Waits that Ctrl-C ends: they are divided into slices, and Python handles signals in between.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

/// The longest time between two looks for signals.
pub(crate) const SLICE: Duration = Duration::from_millis(50);

/// How long a call may wait: until a moment, or without a time limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    begun: Instant,
    end: Option<Instant>,
}

impl Deadline {
    pub(crate) fn after(timeout: Option<Duration>) -> Deadline {
        let begun = Instant::now();
        // A timeout that no clock can express never comes.
        Deadline { begun, end: timeout.and_then(|timeout| begun.checked_add(timeout)) }
    }

    /// The same, but no later than `limit` from now.
    pub(crate) fn within(self, limit: Duration) -> Deadline {
        let limit = Instant::now().checked_add(limit);
        Deadline { end: [self.end, limit].into_iter().flatten().min(), ..self }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// The next slice of the wait.
    pub(crate) fn slice(&self) -> Duration {
        self.end.map_or(SLICE, |end| end.saturating_duration_since(Instant::now()).min(SLICE))
    }

    pub(crate) fn waited(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// A timeout in seconds.
///
/// # Errors
/// As [`duration`].
#[inline]
pub(crate) fn timeout(seconds: Option<f64>) -> PyResult<Option<Duration>> {
    seconds.map(|seconds| duration(seconds, "timeout")).transpose()
}

/// Seconds, which Python passes as a number.
///
/// # Errors
/// For a number that is negative or not a number.
pub(crate) fn duration(seconds: f64, what: &str) -> PyResult<Duration> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(PyValueError::new_err(format!(
            "{what} is {seconds}; it must be a number of seconds, 0 or more, or None"
        )));
    }
    // More seconds than a clock can express are no limit.
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// Sleeps until a descriptor is readable, a signal has come, or the slice is over.
pub(crate) fn readable(fd: std::os::fd::BorrowedFd<'_>, slice: Duration) {
    let timeout = PollTimeout::try_from(slice).unwrap_or(PollTimeout::ZERO);
    // Whatever the result, the caller looks for itself.
    let _ = poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout);
}

/// Runs something that waits for the daemon. If a signal ends the wait, what comes of it is dropped.
pub(crate) fn in_background<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    let (sender, mut receiver) = mpsc::sync_channel(1);
    let started = thread::Builder::new().name("shmd".to_owned()).spawn(move || {
        let _ = sender.send(work());
    });
    started.map_err(|e| PyRuntimeError::new_err(format!("cannot start a thread that asks the daemon: {e}")))?;
    loop {
        let receiver = &mut receiver;
        match py.detach(move || receiver.recv_timeout(SLICE)) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(PyRuntimeError::new_err("the thread that asks the daemon has failed"));
            }
        }
    }
}
