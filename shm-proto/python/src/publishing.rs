//! A writer, and publishing with waits that signals end.

use std::time::Duration;

use pyo3::prelude::*;
use shm_proto::internal::ring::HeldSlot;
use shm_proto::{OnFull, WriterError};

use crate::errors;
use crate::fork::Home;
use crate::guarded::{Ends, Guarded};
use crate::wait::{Deadline, SLICE};

/// From this size on, a copy takes longer than to release the GIL.
const LARGE: usize = 64 << 10;

/// What the threads of a program share of a writer.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) guard: Guarded<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    writer: Option<shm_proto::Writer>,
    /// The slot that Python fills, and where it is.
    pub(crate) slot: Option<(HeldSlot, usize)>,
}

impl Shared {
    pub(crate) fn new(writer: shm_proto::Writer) -> Shared {
        let name = format!("writer of channel {}", writer.geometry().channel);
        Shared { guard: Guarded::new(Inner { writer: Some(writer), slot: None }, name) }
    }

    /// The writer, for a call that may move its tail.
    #[inline]
    pub(crate) fn writer<'i>(&self, inner: &'i mut Inner) -> PyResult<&'i mut shm_proto::Writer> {
        let views = self.guard.views();
        if views != 0 {
            return Err(errors::viewed("slot", views));
        }
        if inner.slot.is_some() {
            return Err(errors::slot_is_open(self.guard.name()));
        }
        inner.writer.as_mut().ok_or_else(|| self.guard.closed())
    }

    /// The slot that is held. If it is still viewed, it is given up: what is written through a view later must not be a message.
    pub(crate) fn slot<'i>(&self, inner: &'i mut Inner) -> PyResult<shm_proto::Slot<'i>> {
        let (held, views) = (inner.slot.take(), self.guard.views());
        if views != 0 {
            return Err(errors::viewed("slot", views));
        }
        match (&mut inner.writer, held) {
            (Some(writer), Some((held, _))) => Ok(writer.slot(held)),
            _ => Err(self.guard.closed()),
        }
    }

    /// A view of the slot at this address begins.
    pub(crate) fn begin_view(&self, address: usize) -> PyResult<()> {
        let mut inner = self.guard.lock()?;
        if inner.slot.as_ref().is_none_or(|(_, held)| *held != address) {
            return Err(errors::closed("slot"));
        }
        self.guard.begin_view(&mut inner);
        Ok(())
    }

    pub(crate) fn ask<T>(&self, what: impl FnOnce(&shm_proto::Writer) -> T) -> PyResult<T> {
        let inner = self.guard.lock()?;
        inner.writer.as_ref().map(what).ok_or_else(|| self.guard.closed())
    }

    /// Repeats a call that waits for one slice, without the GIL, until it waits for nothing any more.
    pub(crate) fn repeat<T: Send>(
        &self,
        py: Python<'_>,
        writer: &mut shm_proto::Writer,
        deadline: Deadline,
        mut call: impl FnMut(&mut shm_proto::Writer, Duration) -> Result<T, WriterError> + Send,
    ) -> PyResult<T> {
        loop {
            let slice = deadline.slice();
            let (call, writer) = (&mut call, &mut *writer);
            match py.detach(move || call(writer, slice)) {
                Ok(result) => return Ok(result),
                Err(WriterError::TimedOut { what, .. }) => {
                    py.check_signals()?;
                    self.check_closing()?;
                    if deadline.is_over() {
                        return Err(errors::raise(py, WriterError::TimedOut { what, waited: deadline.waited() }));
                    }
                }
                Err(error) => return Err(errors::raise(py, error)),
            }
        }
    }

    /// Fails if another thread closes the writer.
    pub(crate) fn check_closing(&self) -> PyResult<()> {
        if self.guard.is_closing() { Err(self.guard.closed()) } else { Ok(()) }
    }

    /// Publishes a message.
    #[inline]
    pub(crate) fn publish(&self, py: Python<'_>, message: &[u8], timeout: Option<Duration>) -> PyResult<Option<u64>> {
        let mut inner = self.guard.lock()?;
        let writer = self.writer(&mut inner)?;
        // On a channel that drops or overwrites, a publish that may not wait does so instead of growing the channel.
        if writer.geometry().on_full == OnFull::Block && message.len() < LARGE && !writer.geometry().ack {
            match writer.try_publish(message) {
                Err(WriterError::WouldBlock { .. }) => {}
                result => return result.map_err(|e| errors::raise(py, e)),
            }
        }
        self.publish_slowly(py, writer, message, Deadline::after(timeout))
    }

    #[cold]
    fn publish_slowly(
        &self,
        py: Python<'_>,
        writer: &mut shm_proto::Writer,
        message: &[u8],
        deadline: Deadline,
    ) -> PyResult<Option<u64>> {
        let published =
            self.repeat(py, writer, deadline, |writer, slice| unless_published(writer.publish_within(message, slice)))?;
        self.acknowledged(py, writer, deadline, published)
    }

    /// Publishes a message, and waits until every reader has read it.
    pub(crate) fn publish_acked(
        &self,
        py: Python<'_>,
        message: &[u8],
        timeout: Option<Duration>,
    ) -> PyResult<Option<u64>> {
        let mut inner = self.guard.lock()?;
        let writer = self.writer(&mut inner)?;
        let deadline = Deadline::after(timeout);
        match self
            .repeat(py, writer, deadline, |writer, slice| unless_published(writer.publish_acked(message, slice)))?
        {
            Published::Read(seq) => Ok(seq),
            Published::Unread(seq) => self.await_ack(py, writer, deadline).map(|()| Some(seq)),
        }
    }

    /// Waits for what is left of the channel's time for acknowledgements.
    pub(crate) fn acknowledged(
        &self,
        py: Python<'_>,
        writer: &mut shm_proto::Writer,
        deadline: Deadline,
        published: Published,
    ) -> PyResult<Option<u64>> {
        match published {
            Published::Read(seq) => Ok(seq),
            Published::Unread(seq) => {
                // One slice is over.
                let limit = Duration::from_millis(writer.geometry().ack_timeout_ms).saturating_sub(SLICE);
                self.await_ack(py, writer, deadline.within(limit)).map(|()| Some(seq))
            }
        }
    }

    /// Goes on waiting until every reader has read what was published. Readers that stand still are evicted meanwhile.
    fn await_ack(&self, py: Python<'_>, writer: &mut shm_proto::Writer, deadline: Deadline) -> PyResult<()> {
        self.repeat_until_read(py, writer, deadline, shm_proto::Writer::await_ack_again)
    }

    /// Waits until every reader has read everything.
    pub(crate) fn wait_until_read(
        &self,
        py: Python<'_>,
        writer: &mut shm_proto::Writer,
        deadline: Deadline,
    ) -> PyResult<()> {
        self.repeat_until_read(py, writer, deadline, shm_proto::Writer::wait_until_read)
    }

    fn repeat_until_read(
        &self,
        py: Python<'_>,
        writer: &mut shm_proto::Writer,
        deadline: Deadline,
        wait: fn(&mut shm_proto::Writer, Duration) -> Result<(), WriterError>,
    ) -> PyResult<()> {
        loop {
            let slice = deadline.slice();
            let lent = &mut *writer;
            match py.detach(move || wait(lent, slice)) {
                Ok(()) => return Ok(()),
                Err(WriterError::Unacknowledged { channel, seq, behind, readers, ended: None, .. }) => {
                    py.check_signals()?;
                    self.check_closing()?;
                    if deadline.is_over() {
                        let waited = deadline.waited();
                        let ended = None;
                        let late = WriterError::Unacknowledged { channel, seq, behind, readers, waited, ended };
                        return Err(errors::raise(py, late));
                    }
                }
                Err(error) => return Err(errors::raise(py, error)),
            }
        }
    }
}

/// A message that is published, or dropped by the channel's policy.
#[derive(Debug)]
pub(crate) enum Published {
    /// There is nothing to wait for.
    Read(Option<u64>),
    /// Not every reader has read it yet.
    Unread(u64),
}

/// The result of a call that waits for acknowledgements only for one slice.
pub(crate) fn unless_published(result: Result<Option<u64>, WriterError>) -> Result<Published, WriterError> {
    match result {
        Ok(seq) => Ok(Published::Read(seq)),
        Err(WriterError::Unacknowledged { seq, ended: None, .. }) => Ok(Published::Unread(seq)),
        Err(error) => Err(error),
    }
}

impl Ends for Inner {
    const VIEWED: &'static str = "slot";

    fn has_ended(&self) -> bool {
        self.writer.is_none()
    }

    fn end(&mut self, home: &Home) {
        self.slot = None;
        if let Some(writer) = self.writer.take() {
            home.drop(writer);
        }
    }
}
