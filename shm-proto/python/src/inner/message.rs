//! What Python does with the message that the reader stands at.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use shm_proto::Error;

use super::{Facts, Inner, Shared, Stop};
use crate::errors;
use crate::views;

impl Shared {
    /// Finishes with this message, unless that has happened.
    pub(crate) fn finish_message(&self, py: Python<'_>, facts: &Facts) -> PyResult<()> {
        let mut inner = self.guard.lock()?;
        if !self.is_current(facts) {
            return Ok(());
        }
        self.finish(&mut inner).map_err(|stop| self.raise(py, stop))
    }

    /// Python has dropped a message: finishes with it, if that is possible now.
    #[inline]
    pub(crate) fn drop_message(&self, facts: &Facts) {
        if !self.is_current(facts) || !self.guard.is_here() {
            return;
        }
        let Some(mut inner) = self.guard.try_lock() else { return };
        if self.is_current(facts)
            && let Err(Stop::Failed(Error::Reader(error))) = self.finish(&mut inner)
        {
            inner.due = Some(error);
        }
    }

    /// A copy of a message's bytes, which were valid.
    pub(crate) fn copy<'py>(&self, py: Python<'py>, facts: &Facts) -> PyResult<Bound<'py, PyBytes>> {
        let mut inner = self.guard.lock()?;
        let bytes = self.with_message(&mut inner, facts, |message| views::copied(py, message))??;
        self.check_message(py, &mut inner, facts)?;
        Ok(bytes)
    }

    /// Fails if the bytes of a message that were read up to now are not valid.
    pub(crate) fn check(&self, py: Python<'_>, facts: &Facts) -> PyResult<()> {
        let mut inner = self.guard.lock()?;
        self.check_message(py, &mut inner, facts)
    }

    fn check_message(&self, py: Python<'_>, inner: &mut Inner, facts: &Facts) -> PyResult<()> {
        match self.with_message(inner, facts, |message| message.is_valid())? {
            Ok(true) => {
                inner.seen &= self.guard.views() != 0;
                Ok(())
            }
            Err(error) => Err(errors::raise(py, error)),
            // To finish with the message may unmap the bytes that a view shows.
            Ok(false) if self.guard.views() != 0 => {
                inner.seen = false;
                Err(errors::overwritten(facts.seq))
            }
            Ok(false) => {
                inner.seen = true;
                match self.finish(inner) {
                    Ok(()) => Err(errors::overwritten(facts.seq)),
                    Err(stop) => Err(self.raise(py, stop)),
                }
            }
        }
    }

    fn with_message<T>(
        &self,
        inner: &mut Inner,
        facts: &Facts,
        read: impl FnOnce(&mut shm_proto::Message<'_>) -> T,
    ) -> PyResult<T> {
        if !self.is_current(facts) {
            return Err(errors::finished(facts.seq));
        }
        let (Some(reader), Some(ready)) = (&mut inner.reader, inner.held.take()) else {
            return Err(errors::finished(facts.seq));
        };
        let mut message = reader.message(ready);
        let result = read(&mut message);
        inner.held = Some(message.into_ready());
        Ok(result)
    }

    /// A view of a message begins.
    pub(crate) fn begin_view(&self, facts: &Facts) -> PyResult<()> {
        let mut inner = self.guard.lock()?;
        if !self.is_current(facts) {
            return Err(errors::finished(facts.seq));
        }
        inner.seen = true;
        self.guard.begin_view(&mut inner);
        Ok(())
    }
}
