//! A reader that outlives attachments.

mod attaching;
mod meaning;
mod notice;
mod state;
mod wait;

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

pub use self::notice::Notice;
use self::state::State;
pub(super) use self::wait::Wait;
use super::{Attachment, Endpoint, Error, Result};
use crate::name::ChannelName;
use crate::os::clock::{self, monotonic_ns};
use crate::ring::geometry::Start;
use crate::ring::{Message, Reader, ReaderError, Ready, Received, WaitStrategy};

/// How often a follower in a poll loop looks whether the writer lives, while there is no daemon.
const ABANDONED_NS: u64 = 1_000_000_000;

/// Receives a channel's messages for as long as the program likes, from one attachment after the other.
///
/// A [`Reader`](crate::Reader) ends when the daemon stops, the channel is closed, or the reader is evicted. A follower attaches
/// again, and it waits for a daemon or a channel that is not there yet. Between attempts it pauses for 50 ms, then for twice as
/// long each time up to 1 s, or for as long as the daemon asks, up to 1 h. Receiving goes on in order: no message comes twice, and
/// [`Message::lost_before`] counts the messages that were lost between two attachments, too. After a restart of the daemon the
/// channel may have a new segment, whose messages are numbered from 0; the follower receives all of them.
///
/// [`notice`](Self::notice) says why a follower waits. Errors that are the same after every attempt are returned: a channel
/// that the user may not read, for example, or a name that the daemon does not know at the first attempt.
///
/// ```no_run
/// use std::time::Duration;
/// use shm_proto::{Endpoint, Error, Follower, ReaderError, Start};
///
/// # fn main() -> Result<(), shm_proto::Error> {
/// let mut follower = Follower::new(Endpoint::find(None), Some("cam"), Start::New)?;
/// let mut bytes = Vec::new();
/// loop {
///     match follower.recv_into(&mut bytes, Some(Duration::from_secs(1))) {
///         Ok(message) => println!("message {}, {} lost before it", message.seq, message.lost_before),
///         Err(Error::Reader(ReaderError::TimedOut { .. })) => {}
///         Err(error) => return Err(error),
///     }
///     if let Some(notice) = follower.notice() {
///         eprintln!("{notice}"); // no daemon at /run/shmd/shmd.sock: ...; waiting for it
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Follower {
    endpoint: Endpoint,
    channel: Option<ChannelName>,
    state: State,
    attachment: Option<Attachment>,
    /// Without an attachment: when to attach, in `CLOCK_MONOTONIC` nanoseconds.
    due_ns: u64,
    notice: Option<Notice>,
    wait: Wait,
    strategy: WaitStrategy,
    status: String,
}

impl Follower {
    /// A follower of a channel; without a name, of the daemon's only one. The first receiving call attaches. `start` is for
    /// the first attachment: later ones go on where the last one has ended.
    ///
    /// # Errors
    /// [`Error::BadName`](crate::Error::BadName); [`Error::System`](crate::Error::System) if the process has no descriptors left.
    pub fn new(endpoint: Endpoint, channel: Option<&str>, start: Start) -> Result<Self> {
        let channel = channel.map(str::parse).transpose()?;
        let (state, wait) = (State::new(start), Wait::new()?);
        Ok(Follower {
            endpoint,
            channel,
            state,
            attachment: None,
            due_ns: 0,
            notice: None,
            wait,
            strategy: WaitStrategy::default(),
            status: String::new(),
        })
    }

    /// Waits for messages in this way, in every attachment. A handoff channel's reader always sleeps.
    #[must_use]
    pub fn with_wait_strategy(mut self, strategy: WaitStrategy) -> Self {
        self.set_wait_strategy(strategy);
        self
    }

    /// Waits for messages in this way from now on, in this attachment and in later ones.
    pub fn set_wait_strategy(&mut self, strategy: WaitStrategy) {
        self.strategy = strategy.limited();
        if let Some(Attachment::Ring(reader)) = &mut self.attachment {
            reader.set_wait_strategy(self.strategy);
        }
    }

    /// How this follower waits for messages of a ring.
    #[must_use]
    pub fn wait_strategy(&self) -> WaitStrategy {
        self.strategy
    }

    /// As [`Reader::set_status`](crate::Reader::set_status), in this attachment and in later ones. A handoff channel's readers have
    /// no status.
    pub fn set_status(&mut self, status: &str) -> bool {
        status.clone_into(&mut self.status);
        match &mut self.attachment {
            Some(Attachment::Ring(reader)) => reader.set_status(status),
            _ => true,
        }
    }

    /// Ends with the first attachment: its end, or the reason why it was refused, is returned as an error. For programs whose
    /// users choose whether to follow.
    #[must_use]
    pub fn once(self) -> Self {
        Follower { state: self.state.once(), ..self }
    }

    /// The next message, or `None` if there is none yet. Never waits, except for the daemon's answer when it attaches: 10 s at
    /// most.
    ///
    /// Give an error of [`Message::finish`] to [`go_on_after`](Self::go_on_after).
    ///
    /// # Errors
    /// Those that attaching again does not help against. [`Error::IsHandoff`](crate::Error::IsHandoff) for a handoff channel: see
    /// [`attachment`](Self::attachment).
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Message<'_>>> {
        let at_hand = match &mut self.attachment {
            Some(Attachment::Ring(reader)) => reader.find_at_hand(),
            _ => None,
        };
        let ready = match at_hand {
            Some(ready) => ready,
            None => match self.find()? {
                Some(ready) => ready,
                None => return Ok(None),
            },
        };
        Ok(Some(self.ring()?.message(ready)))
    }

    /// The next message, waiting for it and for attachments; without a timeout, for as long as it takes.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv), and [`ReaderError::TimedOut`].
    pub fn recv(&mut self, timeout: Option<Duration>) -> Result<Message<'_>> {
        let deadline = clock::deadline(timeout);
        loop {
            if let Some(ready) = self.await_next(deadline)? {
                return Ok(self.ring()?.message(ready));
            }
            if monotonic_ns() >= deadline {
                let channel = self.channel.as_ref().map(|name| format!(" on channel {name}")).unwrap_or_default();
                let what = format!("a message{channel}");
                return Err(ReaderError::TimedOut { what, waited: timeout.unwrap_or_default() }.into());
            }
        }
    }

    /// Receives by copying: replaces the contents of `out`. A message that was overwritten while it was copied is counted as
    /// lost.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_into(&mut self, out: &mut Vec<u8>, timeout: Option<Duration>) -> Result<Received> {
        let deadline = clock::deadline(timeout);
        let mut lost_before = 0;
        loop {
            let message = self.recv(timeout.map(|_| clock::left(deadline)))?;
            let (seq, published_ns) = (message.seq(), message.published_ns());
            lost_before += message.lost_before();
            message.copy_to_vec(out);
            match message.finish() {
                Ok(()) => return Ok(Received { seq, lost_before, published_ns }),
                Err(error) => self.go_on_after(error)?,
            }
        }
    }

    /// Prepares for sleeping in a poll loop on [`as_fd`](AsFd::as_fd), for a ring or a handoff channel. True: there is nothing to
    /// do, and the descriptor becomes readable when there may be a message, or when it is time to attach. False: receive first.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn arm(&mut self) -> Result<bool> {
        self.arm_by(Reader::arm)
    }

    /// As [`arm`](Self::arm), with this call for a ring.
    pub(super) fn arm_by(&mut self, arm: fn(&mut Reader) -> Result<bool, ReaderError>) -> Result<bool> {
        let Some(attachment) = &mut self.attachment else {
            let sleeps = monotonic_ns() < self.due_ns;
            if sleeps {
                self.wait.until(self.due_ns)?;
            }
            return Ok(sleeps);
        };
        let armed = match attachment {
            Attachment::Ring(reader) => arm(reader).map_err(Error::from),
            Attachment::Handoff(reader) => reader.arm().map_err(Error::from),
        };
        match armed {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => return self.go_on_after(error).map(|()| false),
        }
        match attachment {
            Attachment::Ring(reader) => {
                self.wait.watch(reader.as_fd())?;
                if reader.is_disconnected() {
                    // Without a daemon, nothing tells when the writer ends.
                    self.wait.until(monotonic_ns().saturating_add(ABANDONED_NS))?;
                }
            }
            Attachment::Handoff(reader) => self.wait.watch(reader.descriptor()?)?,
        }
        Ok(true)
    }

    /// Why messages do not come or may be missing: the last thing that the program has not been told yet. A follower that
    /// waits says so once, and again if the daemon asks it to wait for a second or longer.
    pub fn notice(&mut self) -> Option<Notice> {
        self.notice.take()
    }

    /// Whether there is an attachment. Without one, the follower waits until it attaches again.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.attachment.is_some()
    }

    /// The present attachment. Attaches if it is time to; `None` during a pause.
    ///
    /// For handoff channels, from which a follower does not receive by itself: receive from the
    /// [`HandoffReader`](crate::HandoffReader), and give its errors to [`go_on_after`](Self::go_on_after).
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv), except for [`Error::IsHandoff`](crate::Error::IsHandoff).
    pub fn attachment(&mut self) -> Result<Option<&mut Attachment>> {
        self.attach_if_due()?;
        Ok(self.attachment.as_mut())
    }

    #[inline(never)]
    fn find(&mut self) -> Result<Option<Ready>> {
        self.attach_if_due()?;
        self.find_here()
    }

    /// The next message of the present attachment, if there is one.
    pub(super) fn find_here(&mut self) -> Result<Option<Ready>> {
        if self.attachment.is_none() {
            return Ok(None);
        }
        let found = self.ring()?.find();
        found.or_else(|error| self.go_on_after(error).map(|()| None))
    }

    /// Waits for a message, for the end of the attachment, or for the end of the pause, until `deadline_ns`.
    fn await_next(&mut self, deadline_ns: u64) -> Result<Option<Ready>> {
        if self.attach_if_due()? {
            let found = self.ring()?.await_next(deadline_ns);
            return found.or_else(|error| self.go_on_after(error).map(|()| None));
        }
        std::thread::sleep(clock::left(deadline_ns.min(self.due_ns)));
        Ok(None)
    }
}

impl AsFd for Follower {
    /// The one descriptor to wait on, the same for as long as the follower lives. After a true [`arm`](Follower::arm) it is
    /// readable when a message may have come, when the daemon has said something or is gone, or when it is time to attach. It
    /// stays so until the next `arm`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wait.as_fd()
    }
}
