//! The writer role: the lease from the daemon, the daemon's lines, and whether the daemon has ended the lease.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};

use crate::name::ChannelName;
use crate::os::page::SharedPage;
use crate::os::sem::Semaphore;
use crate::ring::content::Content;
use crate::ring::layout::{LeasePage, Notes, OVER};
use crate::ring::link::{LinkError, ToDaemon, ToWriter, WriterLink};
use crate::ring::writer::Writer;
use crate::ring::writer::error::{Result, WriterError};

/// A busy writer reads its link at least this often.
const READ_NS: u64 = 5_000_000;

#[derive(Debug)]
pub(super) struct Lease {
    page: SharedPage<LeasePage>,
    channel: ChannelName,
    /// The page's generation when the link was last read.
    generation: u64,
    /// The number of readers that the daemon had not named when the link was last read.
    unnamed: u64,
    link: Option<WriterLink>,
    /// When the link was last read, in `CLOCK_MONOTONIC` nanoseconds.
    read_ns: u64,
    revoked: Option<String>,
    /// What the daemon has said about the channel's messages.
    content: Option<Content>,
}

impl Lease {
    pub(super) fn new(page: SharedPage<LeasePage>, link: WriterLink, channel: ChannelName) -> Lease {
        // Lines that were sent before this writer had the page are read at the first call.
        Lease {
            page,
            channel,
            generation: u64::MAX,
            unnamed: 0,
            link: Some(link),
            read_ns: 0,
            revoked: None,
            content: None,
        }
    }

    /// Whether the daemon has announced nothing since the link was last read.
    #[inline(always)]
    pub(super) fn is_current(&self) -> bool {
        // Acquire pairs with the daemon's increment: the line that the increment announces is on the link. A reader
        // that attaches relies on this look coming before the record: see `daemon_lines`.
        self.page.generation.value.load(Ordering::Acquire) == self.generation
    }

    /// Like [`is_current`](Self::is_current), for a look between [`want_space`](crate::ring::wake::want_space) and the
    /// sleep.
    pub(super) fn is_current_before_sleep(&self) -> bool {
        // SeqCst: if the daemon sent a line between the last look and `want_space`, the daemon then looked at
        // `space_wanted`: see the daemon's kick.
        self.page.generation.value.load(Ordering::SeqCst) == self.generation
    }

    /// Whether to read the link although nothing is announced. A daemon that died announces nothing, and the daemon
    /// that comes in its place can announce nothing before the writer has spoken to it.
    #[inline]
    pub(super) fn is_due(&mut self, now: u64) -> bool {
        let due = now.saturating_sub(self.read_ns) >= READ_NS;
        if due {
            self.read_ns = now;
        }
        due && self.as_fd().is_some()
    }

    /// Whether there is a daemon.
    pub(super) fn is_attended(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.looks_for_daemon().is_none())
    }

    /// Notes the current generation. Call this before reading the link: the next look then sees whatever is announced
    /// after this one.
    pub(super) fn renew(&mut self, notes: &Notes) {
        // Acquire, for the same reason as in `is_current`.
        self.generation = self.page.generation.value.load(Ordering::Acquire);
        // Acquire pairs with the fence before the daemon's 0: whoever sees the 0 also sees that there are lines to come.
        let unnamed = notes.unnamed.load(Ordering::Acquire);
        if std::mem::replace(&mut self.unnamed, unnamed) < unnamed
            && let Some(link) = &mut self.link
        {
            // Also if this writer has given up looking: a daemon that has let readers in is there, or was until just now.
            link.daemon_has_come();
        }
    }

    /// Whether the link is to be read: there is a line, or there are other readers that the daemon has not named. For
    /// [`floor::advance`](crate::ring::floor::advance), and off the fast path.
    #[inline]
    pub(super) fn has_news(&self, notes: &Notes) -> bool {
        !self.is_current() || self.has_other_unnamed(notes)
    }

    /// Whether there are other readers that the daemon has not named than when the link was last read.
    pub(super) fn has_other_unnamed(&self, notes: &Notes) -> bool {
        notes.unnamed.load(Ordering::Acquire) != self.unnamed
    }

    /// Whether the daemon has ended the lease: the ring may belong to another writer by now.
    #[inline(always)]
    pub(super) fn is_over(&self) -> bool {
        self.page.generation.value.load(Ordering::Acquire) & OVER != 0
    }

    /// Like [`is_over`](Self::is_over), after something has become visible and after
    /// [`light`](crate::ring::wake::Barrier::light).
    #[inline(always)]
    pub(super) fn was_over(&self) -> bool {
        // Relaxed: the barrier pairs with the daemon's barrier.
        self.page.generation.value.load(Ordering::Relaxed) & OVER != 0
    }

    /// Gives up the role, after the daemon has ended the lease, or has left the segment and could not end the lease: `unheard`.
    pub(super) fn give_up(&mut self, unheard: bool) {
        self.link = None;
        self.revoked.get_or_insert_with(|| {
            let why = if unheard {
                "the segment that it was lent for was replaced before this program had found the daemon; borrow the role again"
            } else {
                "the daemon has closed the connection that it was lent over"
            };
            why.to_owned()
        });
    }

    /// Notes that the daemon has asked for the role.
    pub(super) fn revoke(&mut self, reason: String) {
        self.revoked = Some(reason);
    }

    /// Fails once the daemon has taken the role back.
    #[inline]
    pub(super) fn check(&self) -> Result<()> {
        if self.revoked.is_none() { Ok(()) } else { Err(self.revocation()) }
    }

    pub(super) fn revocation(&self) -> WriterError {
        let reason = self.revoked.clone().unwrap_or_default();
        WriterError::Revoked { channel: self.channel.to_string(), reason }
    }

    /// The next line from the daemon. If the daemon is gone without having ended the lease, no more lines come, and the
    /// writer continues to serve the readers that are attached.
    pub(super) fn receive(&mut self) -> Result<Option<(ToWriter, Vec<OwnedFd>)>> {
        let Some(link) = &mut self.link else { return Ok(None) };
        match link.receive() {
            Err(LinkError::Disconnected) => {
                // Loaded again: the daemon sets the bit before it closes the connection.
                if self.is_over() {
                    self.give_up(false);
                }
                self.link = None;
                Ok(None)
            }
            Err(LinkError::Protocol(error)) => Err(error.into()),
            Ok(received) => Ok(received),
        }
    }

    pub(super) fn tell(&mut self, line: ToDaemon) {
        if let Some(link) = &mut self.link
            && link.send(line).is_err()
        {
            self.link = None;
        }
    }

    /// The contents of the ring are invalid. Tells the daemon, which replaces the ring.
    #[cold]
    pub(super) fn broken(&mut self, reason: String) -> WriterError {
        self.tell(ToDaemon::Broken { reason: reason.clone() });
        WriterError::Corrupt { channel: self.channel.to_string(), reason }
    }

    pub(super) fn has_daemon(&self) -> bool {
        self.link.as_ref().is_some_and(|link| !link.has_given_up())
    }

    /// See [`Writer::link_fd`](super::Writer::link_fd).
    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.link.as_ref().and_then(|link| link.as_fd())
    }

    /// Whether the daemon holds back lines, which may name readers, or has readers that it could not name because it has
    /// not been found. A daemon that is gone sends no more lines.
    pub(super) fn lacks_lines(&self) -> bool {
        // Acquire pairs with the daemon's store. That store comes before the generation is raised if there are more
        // lines to come, and after it if there are none.
        self.has_daemon() && (self.unnamed > 0 || self.page.pending.value.load(Ordering::Acquire) > 0)
    }

    /// When a writer without a daemon is to look for one again.
    pub(super) fn looks_ns(&self) -> u64 {
        self.link.as_ref().and_then(|link| link.looks_for_daemon()).unwrap_or(u64::MAX)
    }

    /// Waits for a line from the daemon, until the given time at the latest.
    pub(super) fn doze(&self, until_ns: u64) {
        self.page.waiting.value.store(1, Ordering::Relaxed);
        // SeqCst pairs with the daemon's fence between raising the generation and looking at this flag.
        fence(Ordering::SeqCst);
        if self.page.generation.value.load(Ordering::Relaxed) == self.generation {
            Semaphore::new(&self.page.wake).wait_until(until_ns);
        }
        self.page.waiting.value.store(0, Ordering::Relaxed);
    }
}

impl Writer {
    /// What the channel's messages are, if its configuration declares that: as it was when the writer borrowed the role.
    #[must_use]
    pub fn content(&self) -> Option<&Content> {
        self.lease.content.as_ref()
    }

    /// Notes what the daemon has said about the channel's messages.
    pub(crate) fn set_content(&mut self, content: Option<Content>) {
        self.lease.content = content;
    }
}
