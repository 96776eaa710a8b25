//! A reader, and the message that Python has of it.
//!
//! The reader stays at a message until Python asks for the next one. The message is then finished, unless a view of it is alive:
//! then nothing moves the reader and nothing closes it, so that the bytes stay where the view shows them.

mod message;

use std::os::fd::{AsFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pyo3::prelude::*;
use shm_proto::internal::ring::Ready;
use shm_proto::{Error, ReaderError, WaitStrategy};

use crate::errors;
use crate::fork::Home;
use crate::guarded::{Ends, Guarded};
use crate::readiness::Readiness;
use crate::wait::{Deadline, readable};

/// How often a look is repeated before a descriptor stays readable for the program to look again.
const LOOKS: usize = 3;

/// What the threads of a program share of a reader.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) guard: Guarded<Inner>,
    /// The number of the message that can be viewed; 0 for none. Changed only under the lock.
    current: Arc<AtomicU64>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    reader: Option<shm_proto::Reader>,
    held: Option<Ready>,
    /// As in [`Shared`].
    current: Arc<AtomicU64>,
    /// The number of messages that were handed out.
    serial: u64,
    /// Bytes were viewed since they were last found valid.
    seen: bool,
    /// What the next call reports.
    pub(crate) due: Option<ReaderError>,
    readiness: Option<Readiness>,
}

/// What Python has of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// The number among the messages that were handed out, from 1.
    pub(crate) serial: u64,
    pub(crate) seq: u64,
    pub(crate) lost: u64,
    pub(crate) skipped: u64,
    /// When it was published, if the channel has publish times.
    pub(crate) published_ns: Option<u64>,
    /// Where the bytes are.
    pub(crate) address: usize,
    pub(crate) len: usize,
}

/// Why there is no message.
#[derive(Debug)]
pub(crate) enum Stop {
    Failed(Error),
    Viewed(usize),
    Closed,
}

impl<E: Into<Error>> From<E> for Stop {
    #[cold]
    fn from(error: E) -> Stop {
        Stop::Failed(error.into())
    }
}

impl Shared {
    pub(crate) fn new(reader: shm_proto::Reader) -> Shared {
        let name = format!("reader of channel {}", reader.geometry().channel);
        let (reader, current) = (Some(reader), Arc::new(AtomicU64::new(0)));
        let shown = Arc::clone(&current);
        let inner = Inner { reader, held: None, current: shown, serial: 0, seen: false, due: None, readiness: None };
        Shared { guard: Guarded::new(inner, name), current }
    }

    #[cold]
    pub(crate) fn raise(&self, py: Python<'_>, stop: Stop) -> PyErr {
        match stop {
            Stop::Failed(error) => errors::raise(py, error),
            Stop::Viewed(views) => errors::viewed("message", views),
            Stop::Closed => self.guard.closed(),
        }
    }

    /// The next message, or `None` if there is none yet. With a descriptor, the reader is armed then.
    #[inline]
    pub(crate) fn next(&self, inner: &mut Inner) -> Result<Option<Facts>, Stop> {
        self.pass(inner)?;
        match self.look(inner)? {
            None if inner.readiness.is_some() => self.rest(inner),
            found => Ok(found),
        }
    }

    /// The next message. Waits for it without the GIL, until the timeout: `None`.
    pub(crate) fn receive(
        &self,
        py: Python<'_>,
        inner: &mut Inner,
        timeout: Option<Duration>,
    ) -> PyResult<Option<Facts>> {
        let found = self.pass(inner).and_then(|()| self.look(inner));
        if let Some(facts) = found.map_err(|stop| self.raise(py, stop))? {
            return Ok(Some(facts));
        }
        let deadline = Deadline::after(timeout);
        let spins = match inner.reader.as_ref().map(shm_proto::Reader::wait_strategy) {
            Some(WaitStrategy::Spin(time)) => time,
            _ => Duration::ZERO,
        };
        let mut dozes = false;
        loop {
            let slice = deadline.slice();
            let (shared, reader) = (self, &mut *inner);
            let found = py.detach(move || shared.wait(reader, slice, dozes));
            if let Some(facts) = found.map_err(|stop| self.raise(py, stop))? {
                return Ok(Some(facts));
            }
            py.check_signals()?;
            if self.guard.is_closing() {
                self.guard.end(inner);
                return Err(self.guard.closed());
            }
            if deadline.is_over() {
                return Ok(None);
            }
            dozes = deadline.waited() >= spins;
        }
    }

    /// Waits for a message for one slice. A reader that `dozes` has looked for as long as its strategy says, and sleeps on its
    /// descriptor: a signal ends this sleep, and nothing wakes it without need.
    fn wait(&self, inner: &mut Inner, slice: Duration, dozes: bool) -> Result<Option<Facts>, Stop> {
        if let Some(readiness) = &mut inner.readiness {
            // A waiting reader may disarm.
            readiness.set();
        }
        let reader = inner.reader.as_mut().ok_or(Stop::Closed)?;
        if !dozes {
            let (facts, ready) = match reader.recv(Some(slice)) {
                Ok(message) => (Facts::of(&message, inner.serial + 1), message.into_ready()),
                Err(ReaderError::TimedOut { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            return Ok(Some(self.hold(inner, ready, facts)));
        }
        if reader.arm_at_once()? {
            readable(reader.as_fd(), slice);
        }
        self.look(inner)
    }

    #[inline]
    fn look(&self, inner: &mut Inner) -> Result<Option<Facts>, Stop> {
        let reader = inner.reader.as_mut().ok_or(Stop::Closed)?;
        // The second look is for all but the most common case, and is not made inline.
        let message = match reader.find_at_hand() {
            Some(ready) => reader.message(ready),
            None => match reader.try_recv()? {
                Some(message) => message,
                None => return Ok(None),
            },
        };
        let facts = Facts::of(&message, inner.serial + 1);
        let ready = message.into_ready();
        Ok(Some(self.hold(inner, ready, facts)))
    }

    #[inline]
    fn hold(&self, inner: &mut Inner, ready: Ready, facts: Facts) -> Facts {
        (inner.held, inner.serial) = (Some(ready), facts.serial);
        self.current.store(facts.serial, Ordering::Relaxed);
        facts
    }

    /// There is no message: makes the descriptor tell when there is one.
    fn rest(&self, inner: &mut Inner) -> Result<Option<Facts>, Stop> {
        for _ in 0..LOOKS {
            let reader = inner.reader.as_mut().ok_or(Stop::Closed)?;
            if reader.arm_in_task()?
                && let Some(readiness) = &mut inner.readiness
            {
                readiness.clear();
                return Ok(None);
            }
            if let Some(facts) = self.look(inner)? {
                return Ok(Some(facts));
            }
        }
        // The descriptor stays readable, so the program looks again.
        Ok(None)
    }

    /// Finishes with the message that Python has, if any.
    #[inline]
    pub(crate) fn pass(&self, inner: &mut Inner) -> Result<(), Stop> {
        if inner.held.is_some() {
            self.finish(inner)?;
        }
        match inner.due.take() {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }

    #[inline]
    fn finish(&self, inner: &mut Inner) -> Result<(), Stop> {
        let views = self.guard.views();
        if views != 0 {
            return Err(Stop::Viewed(views));
        }
        let (Some(reader), Some(ready)) = (&mut inner.reader, inner.held.take()) else { return Ok(()) };
        self.current.store(0, Ordering::Relaxed);
        let seen = std::mem::take(&mut inner.seen);
        match reader.message(ready).finish() {
            Ok(()) => Ok(()),
            // Nothing was read, or it was valid when it was read.
            Err(ReaderError::Lapped { .. } | ReaderError::Withdrawn { .. }) if !seen => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether this is the message that the reader stands at.
    #[inline]
    pub(crate) fn is_current(&self, facts: &Facts) -> bool {
        // Relaxed: whoever needs certainty has the lock.
        self.current.load(Ordering::Relaxed) == facts.serial
    }

    /// The reader and the message that it stands at, of which Python is not told.
    pub(crate) fn parts<'i>(&self, inner: &'i mut Inner) -> Option<(&'i mut shm_proto::Reader, Option<Ready>)> {
        self.current.store(0, Ordering::Relaxed);
        let held = inner.held.take();
        inner.reader.as_mut().map(|reader| (reader, held))
    }

    /// The level-triggered descriptor.
    pub(crate) fn fd(&self, py: Python<'_>) -> PyResult<RawFd> {
        let mut inner = self.guard.lock()?;
        let inner = &mut *inner;
        let reader = inner.reader.as_ref().ok_or_else(|| self.guard.closed())?;
        let readiness = match &inner.readiness {
            Some(readiness) => readiness,
            None => {
                let made = Readiness::over(reader.as_fd());
                let made = made.map_err(|e| {
                    errors::raise(py, Error::system(format!("make a descriptor for the {}", self.guard.name()), e))
                })?;
                inner.readiness.insert(made)
            }
        };
        Ok(readiness.fd())
    }

    /// Something about the reader.
    pub(crate) fn ask<T>(&self, what: impl FnOnce(&shm_proto::Reader) -> T) -> PyResult<T> {
        let inner = self.guard.lock()?;
        inner.reader.as_ref().map(what).ok_or_else(|| self.guard.closed())
    }

    pub(crate) fn change<T>(&self, what: impl FnOnce(&mut shm_proto::Reader) -> T) -> PyResult<T> {
        let mut inner = self.guard.lock()?;
        inner.reader.as_mut().map(what).ok_or_else(|| self.guard.closed())
    }
}

impl Ends for Inner {
    const VIEWED: &'static str = "message";

    fn has_ended(&self) -> bool {
        self.reader.is_none()
    }

    fn end(&mut self, home: &Home) {
        self.current.store(0, Ordering::Relaxed);
        (self.held, self.readiness, self.due) = (None, None, None);
        if let Some(reader) = self.reader.take() {
            home.drop(reader);
        }
    }
}

impl Facts {
    #[inline]
    fn of(message: &shm_proto::Message<'_>, serial: u64) -> Facts {
        Facts {
            serial,
            seq: message.seq(),
            lost: message.lost_before(),
            skipped: message.skipped_before(),
            published_ns: message.published_ns(),
            address: message.as_ptr() as usize,
            len: message.len(),
        }
    }
}
