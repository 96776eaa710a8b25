//! A follower in a task.

use std::future::poll_fn;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::task::coop;

use super::LOOKS;
use super::lent::Lent;
use super::reader::CarriedLosses;
use super::watch::Watch;
use crate::client::{Error, Follower, Result};
use crate::ring::{Message, OwnedMessage, Reader, Ready, Received};

/// Receives a channel's messages in a task of a tokio runtime, from one attachment after the other.
///
/// What [`Follower`] is to [`Reader`](crate::Reader), this is to [`AsyncReader`](crate::AsyncReader). It attaches on a thread
/// for blocking calls. Cancelling a call loses nothing.
///
/// ```no_run
/// # async fn example() -> Result<(), shm_proto::Error> {
/// use shm_proto::{AsyncFollower, Endpoint, Follower, Start};
///
/// let follower = Follower::new(Endpoint::find(None), Some("cam"), Start::New)?;
/// let mut follower = AsyncFollower::new(follower)?;
/// let mut bytes = Vec::new();
/// loop {
///     let received = follower.recv_into(&mut bytes).await?;
///     println!("message {}, {} lost before it", received.seq, received.lost_before);
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct AsyncFollower {
    watch: Watch,
    follower: Lent<Follower, Result<()>>,
    lost: CarriedLosses,
    /// As a stream, the follower has yielded its error.
    is_over: bool,
}

impl AsyncFollower {
    /// A follower, which may be attached already.
    ///
    /// # Errors
    /// [`Error::System`] if no descriptors are left.
    ///
    /// # Panics
    /// Outside of a tokio runtime with [`enable_io`](tokio::runtime::Builder::enable_io).
    pub fn new(follower: Follower) -> Result<Self> {
        let watch = Watch::new(follower.as_fd())?;
        Ok(AsyncFollower { watch, follower: Lent::new(follower), lost: CarriedLosses::default(), is_over: false })
    }

    /// The next message, in place. Waits for it and for attachments.
    ///
    /// Give an error of [`Message::finish`] to [`Follower::go_on_after`], with [`get_mut`](Self::get_mut).
    ///
    /// # Errors
    /// As [`Follower::try_recv`].
    pub async fn recv(&mut self) -> Result<Message<'_>> {
        let ready = poll_fn(|cx| self.poll_ready(cx)).await?;
        Ok(self.follower.here()?.ring()?.message(ready))
    }

    /// Copies the next message out and replaces the contents of `out` with it. A message that was overwritten while it was
    /// copied counts as lost.
    ///
    /// # Errors
    /// As [`Follower::try_recv`].
    pub async fn recv_into(&mut self, out: &mut Vec<u8>) -> Result<Received> {
        poll_fn(|cx| self.poll_copy(cx, out)).await
    }

    /// The follower itself, for its [`notice`](Follower::notice) and its attachment. Waits while it attaches.
    ///
    /// # Errors
    /// That attaching has failed, or that the runtime has ended.
    pub async fn get_mut(&mut self) -> Result<&mut Follower> {
        self.follower.back().await?.transpose()?;
        Ok(self.follower.here()?)
    }

    /// The follower, outside of the runtime.
    ///
    /// # Errors
    /// As [`get_mut`](Self::get_mut).
    pub async fn into_inner(mut self) -> Result<Follower> {
        self.get_mut().await?;
        Ok(self.follower.into_inner().await?)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ready>> {
        let turn = ready!(coop::poll_proceed(cx));
        for _ in 0..LOOKS {
            ready!(self.follower.poll_back(cx))?.transpose()?;
            let follower = self.follower.here()?;
            if follower.is_due() {
                self.follower.send(|follower| follower.attach_if_due().map(drop));
                continue;
            }
            if let Some(ready) = follower.find_here()? {
                turn.made_progress();
                return Poll::Ready(Ok(ready));
            }
            // What comes after this is a change of the descriptor.
            if follower.arm_by(Reader::arm_in_task)? {
                ready!(self.watch.poll_changed(cx))?;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_copy(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<Received>> {
        loop {
            let ready = ready!(self.poll_ready(cx))?;
            let follower = self.follower.here()?;
            match self.lost.copy(follower.ring()?.message(ready), out) {
                Ok(received) => return Poll::Ready(Ok(received)),
                Err(error) => follower.go_on_after(error)?,
            }
        }
    }
}

/// Yields owned copies. Ends after an error that attaching again does not help against.
impl Stream for AsyncFollower {
    type Item = Result<OwnedMessage, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        let mut bytes = Vec::new();
        let copied = ready!(this.poll_copy(cx, &mut bytes));
        this.is_over = copied.is_err();
        Poll::Ready(Some(copied.map(|received| OwnedMessage::new(received, bytes))))
    }
}
