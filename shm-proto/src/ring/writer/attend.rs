//! What the daemon says to the writer, and resizing.
//!
//! # Joining without the writer's help
//!
//! The daemon (1) sends `reader_joined`, (2) raises the generation, (3) runs a heavy barrier, (4) answers the reader, which
//! (5) reads floor and mark and chooses its start. The writer looks at the generation before every record. After (3) at most
//! the one publish that had already looked is under way; the next one reads the link first, registers the page, and from
//! then on holds the floor for it. What that one publish may have overwritten, the reader notices by the floor, and
//! starts at the floor instead. What that one publish made visible after the reader had looked and gone to sleep, nobody
//! has woken it for; so the writer looks at the readers' flags once it has registered them. A slot that is reserved is such a
//! publish, and may be under way for long. So an idle or stopped writer keeps nobody from attaching.
//!
//! Of a writer that does not read its link the daemon keeps the lines (see [`link`](crate::ring::link)), and (1) is that the
//! lease page says so. Such a writer moves no floor before it has them.
//!
//! "At most one" needs a full barrier on the writer's side between one record and the look before the next: `membarrier`
//! executes it at (3) wherever the writer is; without `membarrier`, `announce` runs a fence after every record.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Writer;
use super::wait::{Patience, SLICE_NS};
use crate::error::{Error, Result};
use crate::os::bell::Bell;
use crate::os::clock::monotonic_ns;
use crate::os::fds;
use crate::os::page::SharedPage;
use crate::ring::layout::{OVER, ReaderPage};
use crate::ring::link::{ToDaemon, ToWriter};
use crate::ring::plan::Placement;
use crate::ring::record::HEADER;

impl Writer {
    /// Reads the link if the daemon has raised the generation.
    ///
    /// # Errors
    /// [`Error::Revoked`] once the role was taken back.
    pub(super) fn attend(&mut self) -> Result<()> {
        // Acquire: as in `fit`.
        if self.lease.generation.value.load(Ordering::Acquire) != self.generation {
            return self.attend_now();
        }
        self.check_revoked()
    }

    /// Reads the link whether or not there is word of anything on it: a daemon that died has raised no generation.
    ///
    /// # Errors
    /// As [`attend`](Self::attend).
    pub(super) fn attend_now(&mut self) -> Result<()> {
        // Acquire: as in `fit`. Before the link is read: what is announced after this look is seen at the next.
        self.generation = self.lease.generation.value.load(Ordering::Acquire);
        if self.is_over() {
            self.give_up_role();
        } else {
            self.read_link()?;
        }
        self.check_revoked()
    }

    /// Whether the daemon has ended the lending: the ring may be another writer's by now.
    pub(super) fn is_over(&self) -> bool {
        self.lease.generation.value.load(Ordering::Acquire) & OVER != 0
    }

    fn give_up_role(&mut self) {
        self.link = None;
        self.revoked.get_or_insert_with(|| "the daemon has closed the connection that it was lent over".to_owned());
        self.look_again();
    }

    /// The daemon has ended the lending. Why nothing is published any more.
    #[cold]
    #[inline(never)]
    pub(super) fn deposed(&mut self) -> Error {
        self.give_up_role();
        self.revocation()
    }

    /// The daemon ended the lending while this message was made visible.
    #[cold]
    #[inline(never)]
    pub(super) fn superseded(&mut self, seq: u64) -> Error {
        self.give_up_role();
        Error::Superseded { channel: self.geometry.channel.to_string(), seq }
    }

    /// The ring is not what it should be. The daemon is told, which replaces it.
    #[cold]
    pub(super) fn broken(&mut self, reason: String) -> Error {
        self.tell(ToDaemon::Broken { reason: reason.clone() });
        Error::Corrupt { channel: self.geometry.channel.to_string(), reason }
    }

    fn revocation(&self) -> Error {
        let reason = self.revoked.clone().unwrap_or_default();
        Error::Revoked { channel: self.geometry.channel.to_string(), reason }
    }

    fn check_revoked(&self) -> Result<()> {
        if self.revoked.is_none() { Ok(()) } else { Err(self.revocation()) }
    }

    fn read_link(&mut self) -> Result<()> {
        // Before the lines as well: a shrink among them may move the floor.
        self.withhold();
        while let Some(link) = &mut self.link {
            match link.receive() {
                Ok(Some((line, fds))) => self.obey(line, fds)?,
                Ok(None) => break,
                // Looked at anew: the bit is set before the connection is closed.
                Err(Error::Disconnected { .. }) if self.is_over() => {
                    self.give_up_role();
                    return Ok(());
                }
                // The daemon is gone. The readers that are attached go on being served.
                Err(Error::Disconnected { .. }) => self.link = None,
                Err(e) => return Err(e),
            }
        }
        self.withhold();
        self.look_again();
        // A reader that has attached may have gone to sleep before the record that was under way meanwhile, and nobody knew
        // of it when that became visible.
        self.announce();
        Ok(())
    }

    fn obey(&mut self, line: ToWriter, fds: Vec<OwnedFd>) -> Result<()> {
        match line {
            ToWriter::ReaderJoined { reader } => match page_and_bell(fds) {
                Ok((page, bell)) => self.peers.add(reader, page, bell, self.floor.pos),
                Err(reason) => self.tell(ToDaemon::Refused { reader, reason }),
            },
            ToWriter::ReaderLeft { reader } => drop(self.peers.remove(reader)),
            ToWriter::Grown { capacity, done } => {
                self.shrinking = None;
                self.use_capacity(capacity);
                let counters = &self.segment.header().counters;
                counters.pending.store(0, Ordering::Relaxed);
                counters.capacity.store(self.plan.capacity(), Ordering::Relaxed);
                if done {
                    counters.resizes.fetch_add(1, Ordering::Relaxed);
                }
                self.growth.granted();
            }
            ToWriter::NotGrown { reason } => self.growth.refused(reason),
            ToWriter::Shrink { capacity, id } => {
                let capacity = capacity.min(self.geometry.max_capacity);
                self.shrinking = Some((capacity, id));
                self.growth.forget_refusal();
                self.use_capacity(capacity);
                self.segment.header().counters.pending.store(capacity, Ordering::Relaxed);
                self.settle();
            }
            ToWriter::Policy { ack, ack_timeout_ms, evict_after_ms, wait_readers } => {
                let geometry = &mut self.geometry;
                (geometry.ack, geometry.ack_timeout_ms) = (ack, ack_timeout_ms);
                (geometry.evict_after_ms, geometry.wait_readers) = (evict_after_ms, wait_readers);
            }
            ToWriter::Revoked { reason } => self.revoked = Some(reason),
            // Said where the line was read.
            ToWriter::Unknown => {}
        }
        Ok(())
    }

    /// Gives up nothing while the daemon holds lines back: they may name readers. One that is gone sends no more.
    fn withhold(&mut self) {
        // Acquire: pairs with the daemon's store, which comes before the generation is raised when there is more to come, and
        // after it when nothing is.
        let pending = self.link.is_some() && self.lease.pending.value.load(Ordering::Acquire) > 0;
        self.peers.withhold(pending.then_some(self.floor.pos));
    }

    /// Waits a while for lines that the daemon holds back.
    pub(super) fn await_lines(&mut self, until_ns: u64) -> Result<()> {
        self.beat();
        self.doze(until_ns.min(monotonic_ns().saturating_add(SLICE_NS)));
        self.attend_now()
    }

    /// Waits until the daemon has named everybody who reads.
    pub(crate) fn know_all(&mut self, timeout: Duration) -> Result<()> {
        let patience = Patience::until(timeout);
        while self.peers.is_withheld() {
            if monotonic_ns() >= patience.deadline_ns() {
                let what = format!("the daemon to name the readers of channel {}", self.geometry.channel);
                return Err(Error::TimedOut { what, waited: timeout });
            }
            self.await_lines(patience.deadline_ns())?;
        }
        Ok(())
    }

    /// Places nothing above this from now on, nor above what is mapped: the unsafe code in `append` rests on that.
    fn use_capacity(&mut self, capacity: u64) {
        let capacity = capacity.min(self.geometry.max_capacity);
        self.plan.set_capacity(capacity);
        self.marks.fit(capacity);
        self.limit = 0;
    }

    /// Leaves the memory above a smaller capacity as far as the readers allow, and says so when it is free.
    pub(super) fn go_on_shrinking(&mut self) {
        let Some((capacity, id)) = self.shrinking else { return };
        let written = self.tail.pos() - self.plan.tail_pos();
        if written > 0 {
            self.plan.push(written);
        }
        let mut moved = true;
        while self.plan.highest() > capacity && moved {
            moved = false;
            if self.plan.tail_off() + HEADER > capacity
                && let Placement::Jump { target } = self.plan.place(self.strides.align())
            {
                self.jump(target);
                moved = true;
            }
            let allowed = self.peers.least().min(self.tail.pos());
            moved |= self.plan.highest() > capacity && self.give_up(allowed).unwrap_or(false);
        }
        if self.plan.highest() > capacity {
            return;
        }
        self.shrinking = None;
        // The last mark may lie above, and a reader that attaches from now on must not be sent there.
        self.show_tail();
        let counters = &self.segment.header().counters;
        counters.pending.store(0, Ordering::Relaxed);
        counters.capacity.store(capacity, Ordering::Relaxed);
        counters.resizes.fetch_add(1, Ordering::Relaxed);
        self.tell(ToDaemon::Shrunk { capacity, id, after: self.floor.pos });
    }
}

/// What came with a reader's name; why not, with the way out, where it did not come or is of no use.
fn page_and_bell(fds: Vec<OwnedFd>) -> Result<(SharedPage<ReaderPage>, Bell), String> {
    let pid = std::process::id();
    let [page, bell] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| {
        let limit = fds::limit();
        format!(
            "the writer, process {pid}, has no descriptor left for it and may have {limit} open; raise its limit (ulimit -n, \
             LimitNOFILE=) and attach again"
        )
    })?;
    let failed = |e: Error| format!("the writer, process {pid}, cannot serve it: {e}");
    // The page's descriptor is closed here: what is kept for each reader is its bell.
    Ok((SharedPage::open(page.as_fd()).map_err(failed)?, Bell::from_fd(bell).map_err(failed)?))
}
