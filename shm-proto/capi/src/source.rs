//! Where a reader's messages come from.
//!
//! A message borrows its reader, and both are in one handle. So the reader is reached through a pointer, and whatever it lends
//! borrows for `'static`. The handle makes sure of two things: nothing reaches for the reader while something is lent (it asks
//! `Held` first), and what is lent is dropped before the reader.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;
use std::os::fd::{AsFd, RawFd};
use std::ptr::NonNull;
use std::time::Duration;

use shm_proto::internal::os::clock::{self, monotonic_ns};
use shm_proto::{Attachment, Error, Follower, HandoffError, HandoffReader, Message, Reader, ReaderError};

use crate::failure::Failure;
use crate::result::ERR_TIMED_OUT;

/// A value that lends parts of itself to the handle it is in.
#[derive(Debug)]
pub(crate) struct Lender<T>(NonNull<T>);

impl<T> Lender<T> {
    pub(crate) fn new(value: T) -> Self {
        Lender(NonNull::from(Box::leak(Box::new(value))))
    }

    /// # Safety
    /// Nothing that was borrowed by an earlier call is alive, and the result and what it lends are dropped before this value.
    #[inline(always)]
    pub(crate) unsafe fn borrow(&self) -> &'static mut T {
        // SAFETY: the pointer comes from a box that this value owns; the rest is promised by the caller.
        unsafe { &mut *self.0.as_ptr() }
    }
}

impl<T> Drop for Lender<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer comes from a box, and nobody has a borrow any more: see `borrow`.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// Where a reader's messages come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// An attachment to a ring.
    Ring(Lender<Reader>),
    /// An attachment to a handoff.
    Handoff(Box<HandoffReader>),
    /// One attachment after the other, to a channel of either mode, and the descriptor to wait on.
    Follower(Lender<Follower>, RawFd),
}

/// A message, as its source gives it.
pub(crate) enum Next {
    /// In the ring.
    Message(Message<'static>),
    /// In the buffer, with this number.
    Copy(u64),
}

impl Source {
    pub(crate) fn of(attachment: Attachment) -> Self {
        match attachment {
            Attachment::Ring(reader) => Source::Ring(Lender::new(*reader)),
            Attachment::Handoff(reader) => Source::Handoff(reader),
        }
    }

    pub(crate) fn following(follower: Follower) -> Self {
        let fd = follower.as_fd().as_raw_fd();
        Source::Follower(Lender::new(follower), fd)
    }

    /// The next message, or `None`. With `wait`, the call waits for it until the timeout ends; otherwise it returns at once.
    ///
    /// # Safety
    /// Nothing is lent, and what is lent is dropped before this value.
    pub(crate) unsafe fn next(
        &mut self,
        buffer: &mut Vec<u8>,
        wait: bool,
        timeout: Option<Duration>,
    ) -> Result<Option<Next>, Failure> {
        let until_ns = if wait { clock::deadline(timeout) } else { 0 };
        match self {
            Source::Ring(reader) => {
                // SAFETY: promised by the caller.
                let reader = unsafe { reader.borrow() };
                let message = if wait { Some(reader.recv(timeout)?) } else { reader.try_recv()? };
                Ok(message.map(Next::Message))
            }
            Source::Handoff(reader) => Ok(hand_over(reader, buffer, until_ns)?.map(Next::Copy)),
            // SAFETY: promised by the caller.
            Source::Follower(follower, _) => unsafe { follow(follower, buffer, until_ns) },
        }
    }
}

/// A message of a handoff, unless there is none by `until_ns`.
fn hand_over(reader: &mut HandoffReader, buffer: &mut Vec<u8>, until_ns: u64) -> Result<Option<u64>, HandoffError> {
    loop {
        match reader.recv_until(buffer, until_ns)? {
            Some(received) => return Ok(Some(received.seq)),
            // A signal handler may have run; the wait goes on.
            None if monotonic_ns() < until_ns => {}
            None => return Ok(None),
        }
    }
}

/// # Safety
/// As for [`Source::next`].
unsafe fn follow(lender: &Lender<Follower>, buffer: &mut Vec<u8>, until_ns: u64) -> Result<Option<Next>, Failure> {
    loop {
        // SAFETY: promised by the caller; an earlier turn of this loop has returned what it borrowed, or has dropped it.
        let follower = unsafe { lender.borrow() };
        if let Some(Attachment::Handoff(reader)) = follower.attachment()? {
            match hand_over(reader, buffer, until_ns) {
                Ok(received) => return Ok(received.map(Next::Copy)),
                Err(error) => follower.go_on_after(error)?,
            }
            if monotonic_ns() >= until_ns {
                return Ok(None);
            }
            continue;
        }
        let left = until_ns.saturating_sub(monotonic_ns());
        let message = match (left, until_ns) {
            (0, _) => follower.try_recv(),
            (_, u64::MAX) => follower.recv(None).map(Some),
            _ => follower.recv(Some(Duration::from_nanos(left))).map(Some),
        };
        match message {
            Ok(message) => return Ok(message.map(Next::Message)),
            Err(Error::Reader(ReaderError::TimedOut { .. })) => return Ok(None),
            // It has attached during the wait, and found that out.
            Err(Error::IsHandoff { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Nothing came in time.
#[cold]
pub(crate) fn timed_out(timeout: Option<Duration>) -> Failure {
    Failure::new(ERR_TIMED_OUT, format!("timed out after {:?} waiting for a message", timeout.unwrap_or_default()))
}
