//! A writer in a task.

use std::future::poll_fn;
use std::os::fd::AsFd;
use std::time::Duration;

use tokio::task::coop::consume_budget;

use super::PAUSE_NS;
use super::lent::{Lent, on_a_thread};
use super::watch::Watch;
use crate::client::follower::Wait;
use crate::client::{Endpoint, Error};
use crate::os::clock;
use crate::os::clock::monotonic_ns;
use crate::ring::{Slot, Writer, WriterError};

/// The same while a shrink waits for readers.
const SHRINKING_PAUSE_NS: u64 = 10_000_000;

/// Publishes to a channel in a task of a tokio runtime.
///
/// A message that fits is published at once, by the task. Where [`Writer::publish`] would block, [`publish`](Self::publish)
/// yields: a thread for blocking calls waits for the readers, in slices of 50 ms. A call that is dropped while it waits for
/// space has published nothing.
///
/// ```no_run
/// # async fn example() -> Result<(), shm_proto::Error> {
/// use shm_proto::{AsyncWriter, Endpoint};
///
/// let mut writer = AsyncWriter::attach(&Endpoint::find(None), Some("imu")).await?;
/// writer.publish(b"sample").await?;
/// # Ok(())
/// # }
/// ```
///
/// A writer that publishes less than once per second should [`attend`](Self::attend) meanwhile, so that the daemon's lines are
/// heard. The role is given back when the writer is dropped, or as soon as the thread returns that waits for readers.
#[derive(Debug)]
pub struct AsyncWriter {
    watch: Watch,
    /// The connection to the daemon and a timer.
    wait: Wait,
    writer: Lent<Writer, Result<bool, WriterError>>,
    /// When [`attend`](Self::attend) has something to do although nothing is readable.
    due_ns: u64,
}

impl AsyncWriter {
    /// Borrows the writer role as [`Writer::attach`] does, without blocking the task.
    ///
    /// # Errors
    /// As [`Writer::attach`].
    ///
    /// # Panics
    /// Outside of a tokio runtime with [`enable_io`](tokio::runtime::Builder::enable_io).
    pub async fn attach(endpoint: &Endpoint, channel: Option<&str>) -> Result<Self, Error> {
        let (endpoint, channel) = (endpoint.clone(), channel.map(str::to_owned));
        let attached = on_a_thread(move || Writer::attach(&endpoint, channel.as_deref())).await?;
        Ok(Self::new(attached?)?)
    }

    /// A writer that has the role already.
    ///
    /// # Errors
    /// [`WriterError::System`] if no descriptors are left.
    ///
    /// # Panics
    /// As [`attach`](Self::attach).
    pub fn new(writer: Writer) -> Result<Self, WriterError> {
        let wait = Wait::new()?;
        let watch = Watch::new(wait.as_fd())?;
        Ok(AsyncWriter { watch, wait, writer: Lent::new(writer), due_ns: 0 })
    }

    /// Publishes a message and returns its sequence number, or `None` if the channel's policy has dropped the message. Waits
    /// as [`Writer::publish`] does, and yields meanwhile.
    ///
    /// If this is dropped before it is ready, the message is not published, with one exception: on a channel with `ack`, the
    /// message may be published and not acknowledged yet.
    ///
    /// # Errors
    /// As [`Writer::publish`].
    pub async fn publish(&mut self, message: &[u8]) -> Result<Option<u64>, WriterError> {
        consume_budget().await;
        loop {
            let writer = self.get_mut().await?;
            let (ack, timeout_ms) = (writer.geometry().ack, writer.geometry().ack_timeout_ms);
            match writer.publish_unless_it_waits(message) {
                Err(WriterError::WouldBlock { .. }) => {}
                Ok(Some(seq)) if ack => return self.acknowledged(timeout_ms).await.map(|()| Some(seq)),
                done => return done,
            }
            if !self.await_space(message.len()).await? {
                return Ok(None);
            }
        }
    }

    /// Reserves `len` bytes in the ring, as [`Writer::reserve`] does, and yields while it waits for them. The caller fills the
    /// bytes in place and commits them. On a channel with `ack`, the [commit](Slot::commit) blocks.
    ///
    /// # Errors
    /// As [`Writer::reserve`].
    pub async fn reserve(&mut self, len: usize) -> Result<Option<Slot<'_>>, WriterError> {
        consume_budget().await;
        loop {
            match self.get_mut().await?.admit_unless_it_waits(len) {
                Err(WriterError::WouldBlock { .. }) => {}
                Ok(true) => return self.writer.here()?.reserve(len),
                Ok(false) => return Ok(None),
                Err(error) => return Err(error),
            }
            if !self.await_space(len).await? {
                return Ok(None);
            }
        }
    }

    /// Hears the daemon, and gives signs of life, until the role ends; returns why it has. For a program that waits for
    /// something to publish:
    ///
    /// ```no_run
    /// # use shm_proto::{AsyncWriter, WriterError};
    /// # async fn next_sample() -> [u8; 8] { [0; 8] }
    /// # async fn example(mut writer: AsyncWriter) -> Result<(), WriterError> {
    /// loop {
    ///     let sample = tokio::select! {
    ///         sample = next_sample() => sample,
    ///         ended = writer.attend() => return Err(ended),
    ///     };
    ///     writer.publish(&sample).await?;
    /// }
    /// # }
    /// ```
    pub async fn attend(&mut self) -> WriterError {
        loop {
            if let Err(error) = self.attend_once().await {
                return error;
            }
        }
    }

    async fn attend_once(&mut self) -> Result<(), WriterError> {
        if monotonic_ns() >= self.due_ns {
            let writer = self.get_mut().await?;
            writer.maintain()?;
            let pause = if writer.is_shrinking() { SHRINKING_PAUSE_NS } else { PAUSE_NS };
            let due_ns = monotonic_ns().saturating_add(pause);
            // A link without a descriptor has lost its daemon for good.
            if let Some(link) = self.writer.here()?.link_fd() {
                self.wait.watch_also(link)?;
            }
            self.wait.until(due_ns)?;
            self.due_ns = due_ns;
        }
        poll_fn(|cx| self.watch.poll_changed(cx)).await?;
        self.due_ns = 0;
        Ok(())
    }

    /// The writer itself, as soon as no thread waits with it. A call that waits blocks the task.
    ///
    /// # Errors
    /// [`WriterError::System`] if the runtime ended while a thread had the writer.
    pub async fn get_mut(&mut self) -> Result<&mut Writer, WriterError> {
        // The result of a wait for a call that was cancelled says nothing about the next call.
        self.writer.back().await?;
        Ok(self.writer.here()?)
    }

    /// The writer, outside of the runtime.
    ///
    /// # Errors
    /// As [`get_mut`](Self::get_mut).
    pub async fn into_inner(self) -> Result<Writer, WriterError> {
        Ok(self.writer.into_inner().await?)
    }

    /// Waits until a message of `len` bytes may fit. Returns false if the channel's policy has dropped the message.
    async fn await_space(&mut self, len: usize) -> Result<bool, WriterError> {
        self.writer.send(move |writer| writer.await_space(len));
        self.writer.back().await?.unwrap_or(Ok(true))
    }

    /// Waits until every reader has read everything.
    async fn acknowledged(&mut self, timeout_ms: u64) -> Result<(), WriterError> {
        let timeout = Duration::from_millis(timeout_ms);
        let deadline_ns = clock::after(timeout);
        loop {
            self.writer.send(move |writer| writer.await_acks(deadline_ns, timeout));
            if self.writer.back().await?.unwrap_or(Ok(true))? {
                return Ok(());
            }
        }
    }
}
