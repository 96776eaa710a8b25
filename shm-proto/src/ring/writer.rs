//! The writer: appends messages to a ring.
//!
//! As long as nothing changes, a publish is one load (has the daemon said anything?), one comparison (does the message
//! end before the next offset that needs a closer look?), the payload, two header words, and one look at the waiting
//! flag of each reader. Everything else happens in `admit`, when the load or the comparison fails.
//!
//! | part | what only this part may change |
//! |---|---|
//! | [`Tail`] | the mapped segment and where the next record goes: all of the unsafe code |
//! | [`Lease`] | the link to the daemon, and whether the role has ended |
//! | [`Peers`] | the readers, as far as they have read |
//! | [`Space`] | the plan of the data area, the floor, changes of capacity |
//!
//! The [`Writer`] calls the parts in turn.

mod ack;
mod admit;
mod announce;
mod daemon_lines;
#[cfg(feature = "tokio")]
mod elsewhere;
mod error;
mod eviction;
mod lease;
mod need;
mod peer;
mod peers;
mod recover;
mod slot;
mod space;
mod tail;
mod wait;
mod wakes;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use self::ack::Late;
use self::error::Result;
pub use self::error::WriterError;
use self::lease::Lease;
use self::peers::Peers;
pub use self::slot::{Batch, HeldSlot, Slot};
use self::space::Space;
use self::tail::{Tail, Time};
use self::wait::Patience;
use super::holder;
use super::layout::LeasePage;
use super::link::WriterLink;
use super::segment::WritableSegment;
use super::spin::Spin;
use super::wake::Barrier;
use crate::os::clock::monotonic_ns;
use crate::os::page::SharedPage;
use crate::os::{barrier, process};
use crate::ring::geometry::Geometry;

/// Appends messages to a channel. A channel has one writer at a time; the daemon makes sure of that.
///
/// Every wait is bounded, or the daemon can end it. A dead or hostile reader cannot hold the writer up for longer than
/// the channel's `evict_after`, plus the 100 ms at most that pass before the writer asks the reader for its cursor. A
/// reader that passes a message within `evict_after` is never evicted. While messages are refused for lack of space (by
/// `try_publish` or a timeout), the time between them also counts as waiting.
#[derive(Debug)]
pub struct Writer {
    geometry: Geometry,
    tail: Tail,
    lease: Lease,
    peers: Peers,
    space: Space,
    barrier: Barrier,
    /// Nothing but the message is published, and nothing is waited for behind it: no acknowledgements, no publish times.
    is_plain: bool,
    spin: Spin,
    /// What happened to the current batch when the role ended before its commit.
    undone: Option<Undone>,
    /// The program sets this flag to end every wait.
    interrupt: Option<Arc<AtomicBool>>,
}

/// Why a batch was not committed.
#[derive(Clone, Copy, Debug)]
enum Undone {
    /// No reader has seen any message of the batch.
    Discarded,
    /// Readers may receive the batch from this message on.
    Unknown(u64),
}

impl Writer {
    /// Takes over a ring: maps the segment and walks the chain of records that the last writer left.
    ///
    /// `segment` is open for reading and writing, `lease` is the page shared with the daemon, and `capacity` is the
    /// number of bytes that the daemon allows to use now.
    ///
    /// # Errors
    /// [`WriterError::Corrupt`] if the header or the chain is not as the geometry says. The daemon has then been told.
    pub fn open(
        segment: BorrowedFd<'_>,
        lease: SharedPage<LeasePage>,
        link: WriterLink,
        geometry: Geometry,
        capacity: u64,
    ) -> Result<Writer> {
        // Never more than what is mapped, whatever the daemon allows.
        let capacity = capacity.min(geometry.max_capacity);
        let taken_over = WritableSegment::open(segment, &geometry)
            .and_then(|segment| Ok((recover::recover(&segment, &geometry, capacity)?, segment)));
        let (recovered, segment) = match taken_over {
            Ok(taken_over) => taken_over,
            Err(error) => return Err(recover::report(link, error)),
        };
        if geometry.prefault {
            // The daemon may have put memory behind more than the writer before has used.
            segment.enter(capacity, true);
        }
        let registered = geometry.asymmetric && barrier::register();
        let barrier = if registered { Barrier::Asymmetric } else { Barrier::Symmetric };
        let tail = Tail::new(segment, &geometry, recovered.tail);
        let header = tail.header();
        // A writer that died may have left the next floor ahead of the floor. Readers that started there in the
        // meantime started at a whole record.
        header.next_floor.store(recovered.floor);
        header.counters.capacity.store(capacity, Ordering::Relaxed);
        header.counters.pending.store(0, Ordering::Relaxed);
        let pid = std::process::id();
        let this = (u64::from(pid), process::start_ticks(pid).unwrap_or(0));
        holder::take_up(&header.counters.writer_pid, &header.counters.writer_start, this);
        let mut writer = Writer {
            tail,
            lease: Lease::new(lease, link, geometry.channel.clone()),
            peers: Peers::new(geometry.max_readers, geometry.relayed),
            space: Space::new(recovered, &geometry, capacity, barrier),
            barrier,
            is_plain: !geometry.ack && !geometry.has_publish_times(),
            spin: Spin::default(),
            undone: None,
            interrupt: None,
            geometry,
        };
        writer.show_tail();
        writer.beat();
        writer.maintain()?;
        Ok(writer)
    }

    /// The channel's fixed facts.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Publishes a message and returns its sequence number, or `None` if the channel has `on_full = "drop"` and dropped
    /// the message.
    ///
    /// On a `block` channel, this waits for space without a time limit.
    ///
    /// # Errors
    /// [`WriterError::TooLarge`] if the message is over the channel's limit, and [`WriterError::Revoked`] if the daemon
    /// took the role back: the message is not published. [`WriterError::Superseded`] if the daemon took the role back
    /// at the same moment: readers may or may not receive the message. On a channel with `ack`,
    /// [`WriterError::Unacknowledged`] if not every reader has read the message within `ack_timeout`: the message *is*
    /// published.
    #[inline(always)]
    pub fn publish(&mut self, message: &[u8]) -> Result<Option<u64>> {
        if self.lease.is_current()
            && self.is_plain
            && let Some(seq) = self.tail.put(message, Time::Never)
        {
            return self.announced(seq).map(Some);
        }
        self.publish_slowly(message)
    }

    #[inline(never)]
    fn publish_slowly(&mut self, message: &[u8]) -> Result<Option<u64>> {
        if self.lease.is_current()
            && !self.geometry.ack
            && let Some(seq) = self.tail.put(message, Time::IfAny)
        {
            return self.announced(seq).map(Some);
        }
        self.publish_with(message, Patience::Policy)
    }

    /// For the C library: publishes if nothing has to be looked at besides the tail. `None`: nothing was published, do it in the
    /// ordinary way.
    #[doc(hidden)]
    #[inline(always)]
    pub fn publish_at_hand(&mut self, message: &[u8]) -> Option<Result<u64>> {
        if !self.lease.is_current() || !self.is_plain {
            return None;
        }
        let seq = self.tail.put(message, Time::Never)?;
        Some(self.announced(seq))
    }

    /// Like [`publish`](Self::publish), but the whole call waits no longer than `timeout`.
    ///
    /// # Errors
    /// Also [`WriterError::TimedOut`] if there was no space, or if fewer readers than `wait_readers` were attached. The
    /// message is not published then.
    pub fn publish_within(&mut self, message: &[u8], timeout: Duration) -> Result<Option<u64>> {
        self.publish_with(message, Patience::until(timeout))
    }

    /// Like [`publish`](Self::publish), but never waits: not for space, not for `wait_readers`, and on a channel with
    /// `ack` not for acknowledgements.
    ///
    /// # Errors
    /// Also [`WriterError::WouldBlock`] with the reason. The message is not published then.
    pub fn try_publish(&mut self, message: &[u8]) -> Result<Option<u64>> {
        self.publish_with(message, Patience::None)
    }

    /// Publishes a message and waits until every attached reader has read it, whatever the channel's `ack` says.
    ///
    /// # Errors
    /// [`WriterError::Unacknowledged`] if a reader has not read the message within `timeout`: the message *is*
    /// published. [`WriterError::Superseded`] as for [`publish`](Self::publish). With any other error, the message is
    /// not published.
    pub fn publish_acked(&mut self, message: &[u8], timeout: Duration) -> Result<Option<u64>> {
        let patience = Patience::until(timeout);
        if !self.fill(message, patience)? {
            return Ok(None);
        }
        self.expect_ack();
        let seq = self.commit(message.len() as u64)?;
        self.await_ack(patience, Late::IsEvicted)?;
        Ok(Some(seq))
    }

    #[cold]
    #[inline(never)]
    fn publish_with(&mut self, message: &[u8], patience: Patience) -> Result<Option<u64>> {
        let len = message.len() as u64;
        if !self.admit(len, patience)? {
            return Ok(None);
        }
        if self.geometry.ack {
            self.tail.fill(message);
            return self.commit_acked(|tail| tail.commit(len), patience).map(Some);
        }
        self.tail.put(message, Time::IfAny).map(|seq| self.announced(seq)).transpose()
    }

    /// Copies a message to the tail. Returns false if the policy drops the message.
    fn fill(&mut self, message: &[u8], patience: Patience) -> Result<bool> {
        Ok(self.admit(message.len() as u64, patience)? && self.tail.fill(message))
    }

    /// Reads the lines that the daemon has sent, continues a resize, and updates the heartbeat. Call this when
    /// [`link_fd`](Self::link_fd) is readable, and about once per second while there is nothing to publish.
    ///
    /// # Errors
    /// [`WriterError::Revoked`] if the daemon has taken the role back.
    pub fn maintain(&mut self) -> Result<()> {
        self.flush()?;
        self.beat();
        self.daemon_lines_now()?;
        self.refresh();
        self.go_on_shrinking();
        self.show_tail();
        // This also wakes readers that the writer wakes less often, so that no reader sleeps for long although there is
        // a message.
        self.barrier.light();
        self.peers.wake(self.tail.pos(), true);
        Ok(())
    }

    /// The descriptor is readable when the daemon has sent something. `None` for a writer inside the daemon, and for a
    /// writer whose daemon is gone. Any call of this writer may change the descriptor: ask for it before each wait.
    #[must_use]
    pub fn link_fd(&self) -> Option<BorrowedFd<'_>> {
        self.lease.as_fd().filter(|_| self.lease.has_daemon())
    }

    /// Whether the daemon is gone, and no other daemon has come while the writer waited for one. Messages still reach
    /// the readers that are attached. A daemon that comes later is found by [`maintain`](Self::maintain) or by publishing.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        !self.lease.has_daemon()
    }

    /// Whether a shrink is waiting for readers. Then call [`maintain`](Self::maintain) again soon.
    #[must_use]
    pub fn is_shrinking(&self) -> bool {
        self.space.is_shrinking()
    }

    /// Attached readers.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.peers.len()
    }

    /// Messages published since the segment was made.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.tail.seq()
    }

    /// Payload bytes published since the segment was made.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tail.place().bytes
    }

    /// Messages dropped since the channel was created, because the ring was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.tail.counters().dropped.load(Ordering::Relaxed)
    }

    /// While `flag` is set, every wait ends with [`WriterError::Interrupted`], or with [`WriterError::Unacknowledged`] if the
    /// message is published. Calls that need not wait still succeed.
    /// If a signal handler sets the flag in the writer's thread, a wait ends at once. If another thread sets the flag,
    /// this takes up to a second.
    pub fn interrupt_on(&mut self, flag: Arc<AtomicBool>) {
        self.interrupt = Some(flag);
    }

    fn beat(&self) {
        beat(&self.tail);
    }
}

/// Updates the heartbeat.
fn beat(tail: &Tail) {
    tail.counters().writer_heartbeat.store(monotonic_ns(), Ordering::Relaxed);
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.lease.is_over() {
            return;
        }
        // Even if the role ends at this moment: nobody else writes to this segment before the lock on its memory, which is unmapped
        // after this, is gone.
        let _ = self.flush();
        holder::give_up(&self.tail.counters().writer_pid);
    }
}
