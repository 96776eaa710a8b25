//! A reader in a task.

use std::future::poll_fn;
use std::mem::take;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::task::coop;

use super::lent::on_a_thread;
use super::watch::Watch;
use super::{LOOKS, PAUSE_NS};
use crate::client::follower::Wait;
use crate::client::{Endpoint, Error};
use crate::os::clock::monotonic_ns;
use crate::ring::geometry::Start;
use crate::ring::{Message, OwnedMessage, Reader, ReaderError, Ready, Received};

/// Receives a channel's messages in a task of a tokio runtime.
///
/// [`recv`](Self::recv) hands a message out where it lies, [`recv_into`](Self::recv_into) copies it to a buffer, and as a
/// [`Stream`] the reader yields owned copies. All three are cancellation-safe: whichever future is dropped before it is ready,
/// the next one receives the same message. While messages keep coming, the task yields as tokio's own types do.
///
/// ```no_run
/// # async fn example() -> Result<(), shm_proto::Error> {
/// use shm_proto::{AsyncReader, Endpoint, Start};
///
/// let mut reader = AsyncReader::attach(&Endpoint::find(None), Some("cam"), Start::New).await?;
/// loop {
///     let frame = reader.recv().await?;
///     let sum = frame.words().fold(0, u64::wrapping_add); // in place, nothing is copied
///     frame.finish()?; // an error if the bytes were overwritten meanwhile
///     println!("{sum:#x}");
/// }
/// # }
/// ```
///
/// Before the task goes to sleep, it looks for a message for some microseconds, as [`Reader::arm`] does. It does not
/// [spin](crate::WaitStrategy::Spin), whatever the reader's strategy says, because that would hold up the other tasks of the thread.
#[derive(Debug)]
pub struct AsyncReader {
    watch: Watch,
    /// The reader's descriptor and a timer.
    wait: Wait,
    reader: Reader,
    lost: CarriedLosses,
    /// As a stream, the reader has yielded the end.
    is_over: bool,
}

/// Losses before messages that were overwritten while they were copied: they are reported with the next one, even if the call
/// that saw them was cancelled.
#[derive(Debug, Default)]
pub(super) struct CarriedLosses(u64);

impl CarriedLosses {
    /// Copies a message out. `Ok(Err(error))` if the message was overwritten meanwhile, so that another one is received.
    pub(super) fn copy(&mut self, message: Message<'_>, out: &mut Vec<u8>) -> Result<Received, ReaderError> {
        let (seq, lost_before, published_ns) = (message.seq(), message.lost_before(), message.published_ns());
        message.copy_to_vec(out);
        let finished = message.finish();
        self.0 += lost_before;
        finished.map(|()| Received { seq, lost_before: take(&mut self.0), published_ns })
    }
}

impl AsyncReader {
    /// Attaches as [`Reader::attach`] does, without blocking the task.
    ///
    /// # Errors
    /// As [`Reader::attach`].
    ///
    /// # Panics
    /// Outside of a tokio runtime with [`enable_io`](tokio::runtime::Builder::enable_io).
    pub async fn attach(endpoint: &Endpoint, channel: Option<&str>, start: Start) -> Result<Self, Error> {
        let (endpoint, channel) = (endpoint.clone(), channel.map(str::to_owned));
        let attached = on_a_thread(move || Reader::attach(&endpoint, channel.as_deref(), start)).await?;
        Ok(Self::new(attached?)?)
    }

    /// A reader that is attached already.
    ///
    /// # Errors
    /// [`ReaderError::System`] if no descriptors are left.
    ///
    /// # Panics
    /// As [`attach`](Self::attach).
    pub fn new(reader: Reader) -> Result<Self, ReaderError> {
        let mut wait = Wait::new()?;
        wait.watch(reader.descriptor()?)?;
        let watch = Watch::new(std::os::fd::AsFd::as_fd(&wait))?;
        Ok(AsyncReader { watch, wait, reader, lost: CarriedLosses::default(), is_over: false })
    }

    /// The next message, in place. Waits for it.
    ///
    /// # Errors
    /// As [`Reader::try_recv`].
    pub async fn recv(&mut self) -> Result<Message<'_>, ReaderError> {
        let ready = poll_fn(|cx| self.poll_ready(cx)).await?;
        Ok(self.reader.message(ready))
    }

    /// Copies the next message out and replaces the contents of `out` with it. If a message is overwritten during the copy,
    /// it counts as lost, and the next message is received instead.
    ///
    /// # Errors
    /// As [`Reader::try_recv`].
    pub async fn recv_into(&mut self, out: &mut Vec<u8>) -> Result<Received, ReaderError> {
        poll_fn(|cx| self.poll_copy(cx, out)).await
    }

    /// The reader itself, for its figures.
    #[must_use]
    pub fn get_ref(&self) -> &Reader {
        &self.reader
    }

    /// The reader itself. A call that waits blocks the task.
    pub fn get_mut(&mut self) -> &mut Reader {
        &mut self.reader
    }

    /// The reader, outside of the runtime.
    #[must_use]
    pub fn into_inner(self) -> Reader {
        self.reader
    }

    /// Ready when the reader stands at a message. Nothing is taken.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ready, ReaderError>> {
        let turn = ready!(coop::poll_proceed(cx));
        for _ in 0..LOOKS {
            if let Some(ready) = self.reader.find()? {
                turn.made_progress();
                return Poll::Ready(Ok(ready));
            }
            // What comes after this is a change of the descriptor.
            if !self.reader.arm_in_task()? {
                continue;
            }
            if self.reader.is_disconnected() {
                self.wait.until(monotonic_ns().saturating_add(PAUSE_NS))?;
            }
            ready!(self.watch.poll_changed(cx))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_copy(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<Received, ReaderError>> {
        loop {
            let ready = ready!(self.poll_ready(cx))?;
            match self.lost.copy(self.reader.message(ready), out) {
                Err(ReaderError::Lapped { .. } | ReaderError::Withdrawn { .. }) => {}
                copied => return Poll::Ready(copied),
            }
        }
    }
}

/// Yields owned copies. Ends when the channel is closed, or after an error with which the attachment ends.
impl Stream for AsyncReader {
    type Item = Result<OwnedMessage, ReaderError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        let mut bytes = Vec::new();
        Poll::Ready(match ready!(this.poll_copy(cx, &mut bytes)) {
            Ok(received) => Some(Ok(OwnedMessage::new(received, bytes))),
            Err(error) => {
                this.is_over = error.ends_attachment();
                (!error.is_closed()).then_some(Err(error))
            }
        })
    }
}
