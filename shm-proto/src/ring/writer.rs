//! The writer: appends messages to a ring.
//!
//! A publish is, as long as nothing changes, one load (has the daemon said anything?), one comparison (does the message fit before
//! the next thing to look out for?), the payload, two header words, and a look at each reader's waiting flag. Everything else
//! happens in `admit` when one of the comparisons fails.
//!
//! | part | what only it may change |
//! |---|---|
//! | [`Tail`] | the mapped segment and where the next record goes: all of the unsafe code |
//! | [`Lease`] | the link to the daemon, and whether the role has ended |
//! | [`Peers`] | the readers, as far as they have read |
//! | [`Space`] | the plan of the data area, the floor, changes of capacity |
//!
//! The [`Writer`] asks one after the other.

mod ack;
mod admit;
mod announce;
mod daemon_lines;
mod error;
mod lease;
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

use self::error::Result;
pub use self::error::WriterError;
use self::lease::Lease;
use self::peers::Peers;
pub use self::slot::{Batch, Slot};
use self::space::Space;
use self::tail::Tail;
use self::wait::Patience;
use super::holder;
use super::layout::LeasePage;
use super::link::{ToDaemon, WriterLink};
use super::segment::WritableSegment;
use super::spin::Spin;
use super::wake::Barrier;
use crate::os::clock::monotonic_ns;
use crate::os::page::SharedPage;
use crate::os::{barrier, process};
use crate::ring::geometry::Geometry;

/// Appends messages to a channel. There is one at a time; the daemon sees to it.
///
/// All waiting is bounded or can be ended by the daemon; a dead or hostile reader cannot keep a writer for longer than the
/// channel's `evict_after`, and the 100 ms at most before that until the reader is asked for its cursor. A reader that passes a
/// message within `evict_after` is never evicted. While messages are refused for want of space (by `try_publish` or a timeout),
/// the time between them counts as waiting, too.
#[derive(Debug)]
pub struct Writer {
    geometry: Geometry,
    tail: Tail,
    lease: Lease,
    peers: Peers,
    space: Space,
    barrier: Barrier,
    spin: Spin,
    /// What became of the present batch when the role ended under it.
    undone: Option<Undone>,
    /// Raised by the program to end every wait.
    interrupt: Option<Arc<AtomicBool>>,
}

/// Why a batch was not committed.
#[derive(Clone, Copy, Debug)]
enum Undone {
    /// Nobody has seen anything of it.
    Discarded,
    /// Readers may receive it, from this message on.
    Unknown(u64),
}

impl Writer {
    /// Takes a ring over: maps it and walks the chain that the last writer left.
    ///
    /// `segment` is open for reading and writing, `lease` is the page shared with the daemon, `capacity` what the daemon
    /// allows to be used now, in bytes.
    ///
    /// # Errors
    /// [`WriterError::Corrupt`] when header or chain are not what the geometry says; the daemon has been told.
    pub fn open(
        segment: BorrowedFd<'_>,
        lease: SharedPage<LeasePage>,
        link: WriterLink,
        geometry: Geometry,
        capacity: u64,
    ) -> Result<Writer> {
        // No more than is mapped, whatever is allowed.
        let capacity = capacity.min(geometry.max_capacity);
        let taken_over = WritableSegment::open(segment, &geometry)
            .and_then(|segment| Ok((recover::recover(&segment, &geometry, capacity)?, segment)));
        let (recovered, segment) = match taken_over {
            Ok(taken_over) => taken_over,
            Err(error) => return Err(recover::report(link, error)),
        };
        let registered = geometry.asymmetric && barrier::register();
        let barrier = if registered { Barrier::Asymmetric } else { Barrier::Symmetric };
        let tail = Tail::new(segment, &geometry, recovered.tail);
        let header = tail.header();
        // A writer that died may have left the next floor ahead of the floor. Readers that started there meanwhile started at a
        // whole record.
        header.next_floor.store(recovered.floor);
        header.counters.capacity.store(capacity, Ordering::Relaxed);
        header.counters.pending.store(0, Ordering::Relaxed);
        let pid = std::process::id();
        let this = (u64::from(pid), process::start_ticks(pid).unwrap_or(0));
        holder::take_up(&header.counters.writer_pid, &header.counters.writer_start, this);
        let mut writer = Writer {
            tail,
            lease: Lease::new(lease, link, geometry.channel.clone()),
            peers: Peers::new(geometry.max_readers),
            space: Space::new(recovered, &geometry, capacity, barrier),
            barrier,
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

    /// Publishes a message; returns its sequence number, or `None` when the channel's `on_full = "drop"` dropped it.
    ///
    /// On a `block` channel this waits for space as long as it takes.
    ///
    /// # Errors
    /// [`WriterError::TooLarge`] for a message over the channel's limit,
    /// [`WriterError::Revoked`] when the role was taken back; nothing is published with any of these.
    /// [`WriterError::Superseded`] when the role was taken back in the same moment: readers receive the
    /// message or not. On a channel with `ack` [`WriterError::Unacknowledged`] when not every reader
    /// has read within `ack_timeout`: the message *is* published then.
    #[inline(always)]
    pub fn publish(&mut self, message: &[u8]) -> Result<Option<u64>> {
        if self.lease.is_current()
            && !self.geometry.ack
            && let Some(seq) = self.tail.put(message)
        {
            return self.announced(seq).map(Some);
        }
        self.publish_with(message, Patience::Policy)
    }

    /// Like [`publish`](Self::publish), but the whole call waits no longer than `timeout`.
    ///
    /// # Errors
    /// Also [`WriterError::TimedOut`] if there was no space, or fewer readers than `wait_readers`; the message
    /// is not published then.
    pub fn publish_within(&mut self, message: &[u8], timeout: Duration) -> Result<Option<u64>> {
        self.publish_with(message, Patience::until(timeout))
    }

    /// Like [`publish`](Self::publish), but never waits: neither for space, nor for `wait_readers`, nor for acknowledgement on a
    /// channel with `ack`.
    ///
    /// # Errors
    /// Also [`WriterError::WouldBlock`] with the reason; the message is not published then.
    pub fn try_publish(&mut self, message: &[u8]) -> Result<Option<u64>> {
        self.publish_with(message, Patience::None)
    }

    /// Publishes and waits until every attached reader has read the message, whatever the channel's `ack` says.
    ///
    /// # Errors
    /// [`WriterError::Unacknowledged`] if some reader has not read the message within `timeout`: the
    /// message *is* published then. [`WriterError::Superseded`] as for [`publish`](Self::publish). With every
    /// other error it is not published.
    pub fn publish_acked(&mut self, message: &[u8], timeout: Duration) -> Result<Option<u64>> {
        let patience = Patience::until(timeout);
        if !self.fill(message, patience)? {
            return Ok(None);
        }
        self.expect_ack();
        let seq = self.commit(message.len() as u64)?;
        self.await_ack(patience)?;
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
        self.tail.put(message).map(|seq| self.announced(seq)).transpose()
    }

    /// Copies a message to the tail; false when the policy drops it.
    fn fill(&mut self, message: &[u8], patience: Patience) -> Result<bool> {
        Ok(self.admit(message.len() as u64, patience)? && self.tail.fill(message))
    }

    /// Reserves up to `len` bytes in the ring, to be filled in place and committed. `None` when the policy drops it.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    #[inline(always)]
    pub fn reserve(&mut self, len: usize) -> Result<Option<Slot<'_>>> {
        if self.lease.is_current()
            && let Some(reserved) = self.tail.reserve(len)
        {
            return Ok(Some(Slot::new(self, reserved)));
        }
        let admitted = self.admit_slowly(len as u64, Patience::Policy)?;
        Ok(if admitted { self.tail.reserve(len).map(|reserved| Slot::new(self, reserved)) } else { None })
    }

    #[cold]
    #[inline(never)]
    fn push_slowly(&mut self, message: &[u8]) -> Result<Option<u64>> {
        let admitted = self.admit_slowly(message.len() as u64, Patience::Policy)?;
        Ok(if admitted { self.tail.stage(message) } else { None })
    }

    /// Begins a batch: messages that become visible together, with one look at the readers.
    pub fn batch(&mut self) -> Batch<'_> {
        // Flush a batch that was leaked with `mem::forget`. If the role has ended, the next push says so.
        let _ = self.flush();
        self.undone = None;
        Batch::new(self)
    }

    /// Reads what the daemon has sent, goes on with a resize, shows a heartbeat. Call it when [`link_fd`](Self::link_fd)
    /// is readable, and about once a second while there is nothing to publish.
    ///
    /// # Errors
    /// [`WriterError::Revoked`] when the daemon has taken the role back.
    pub fn maintain(&mut self) -> Result<()> {
        self.flush()?;
        self.beat();
        self.daemon_lines_now()?;
        self.refresh();
        self.go_on_shrinking();
        self.show_tail();
        // Also wakes readers that are seldom woken otherwise, so that none sleeps before a message for long.
        self.barrier.light();
        self.peers.wake(self.tail.pos(), true);
        Ok(())
    }

    /// Readable when the daemon has something to say; `None` for a writer inside the daemon or one whose daemon is gone. It may be
    /// another descriptor after each call of this writer's: ask for it before each wait.
    #[must_use]
    pub fn link_fd(&self) -> Option<BorrowedFd<'_>> {
        self.lease.as_fd()
    }

    /// Whether the daemon is gone, and none has come in its place for as long as the writer waited for one. What is published still
    /// reaches the readers that are attached.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        !self.lease.has_daemon()
    }

    /// Whether a shrink waits for readers: call [`maintain`](Self::maintain) again soon.
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

    /// Messages dropped since the channel was made, because the ring was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.tail.counters().dropped.load(Ordering::Relaxed)
    }

    /// While `flag` is raised, every wait ends with [`WriterError::Interrupted`]. Calls that need no wait
    /// still succeed. A signal handler that raises the flag in the writer's thread ends a wait at once; from another thread it
    /// takes up to a second.
    pub fn interrupt_on(&mut self, flag: Arc<AtomicBool>) {
        self.interrupt = Some(flag);
    }

    /// Whether every attached reader has read everything. A writer whose role has ended knows of no readers.
    pub fn is_drained(&mut self) -> bool {
        if self.lease.is_over() {
            return true;
        }
        self.refresh();
        self.peers.least() >= self.tail.pos()
    }

    fn beat(&self) {
        beat(&self.tail);
    }

    /// Looks at every reader's cursor, and evicts the readers whose cursor is impossible.
    pub(in crate::ring) fn refresh(&mut self) {
        self.peers.bury(self.lease.is_attended());
        while let Some((id, reason)) = self.peers.refresh(self.tail.pos())
            && self.evict(id, reason)
        {}
    }

    /// Detaches a reader for the others' good. Returns false, and detaches nobody, if the role has ended.
    #[cold]
    fn evict(&mut self, id: u32, reason: String) -> bool {
        // A reader that follows the next writer stands where this one has never been. Whoever sees its cursor there sees OVER:
        // the daemon set it before it lent the role again, and this is looked at after the cursor was.
        if self.lease.is_over() {
            return false;
        }
        if let Some(peer) = self.peers.remove(id) {
            peer.mark_evicted();
            self.tail.counters().evicted.fetch_add(1, Ordering::Relaxed);
            self.tail.close();
            self.lease.tell(ToDaemon::Evicted { reader: id, reason });
        }
        true
    }
}

/// Shows that the writer is at work.
fn beat(tail: &Tail) {
    tail.counters().writer_heartbeat.store(monotonic_ns(), Ordering::Relaxed);
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.lease.is_over() {
            return;
        }
        // The role may end at any moment; then it is the next writer's number that counts.
        let _ = self.flush();
        holder::give_up(&self.tail.counters().writer_pid);
    }
}
