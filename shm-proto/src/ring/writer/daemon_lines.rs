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
use std::time::Duration;

use super::Writer;
use super::peers::Named;
use super::wait::{Patience, SLICE_NS};
use crate::error::{ProtocolError, SystemError};
use crate::os::bell::Bell;
use crate::os::clock::monotonic_ns;
use crate::os::fds;
use crate::os::file_id::FileId;
use crate::os::page::SharedPage;
use crate::ring::link::{ToDaemon, ToWriter};
use crate::ring::writer::error::{Result, WriterError};

impl Writer {
    /// Reads the link if the daemon has raised the generation.
    ///
    /// # Errors
    /// [`WriterError::Revoked`] once the role was taken back.
    pub(super) fn daemon_lines(&mut self) -> Result<()> {
        if self.lease.is_due(monotonic_ns()) {
            return self.daemon_lines_now();
        }
        if self.lease.is_current() { self.lease.check() } else { self.daemon_lines_now() }
    }

    /// Reads the link whether or not there is word of anything on it: a daemon that died has raised no generation.
    ///
    /// # Errors
    /// As [`daemon_lines`](Self::daemon_lines).
    pub(super) fn daemon_lines_now(&mut self) -> Result<()> {
        self.lease.renew();
        if self.lease.is_over() {
            self.give_up_role();
        } else {
            self.read_link()?;
        }
        self.lease.check()
    }

    fn give_up_role(&mut self) {
        self.lease.give_up();
        self.tail.close();
    }

    /// The daemon has ended the lending. Why nothing is published any more.
    #[cold]
    #[inline(never)]
    pub(super) fn deposed(&mut self) -> WriterError {
        self.give_up_role();
        self.lease.revocation()
    }

    /// The daemon ended the lending while this message was made visible.
    #[cold]
    #[inline(never)]
    pub(super) fn superseded(&mut self, seq: u64) -> WriterError {
        self.give_up_role();
        WriterError::Superseded { channel: self.geometry.channel.to_string(), seq }
    }

    fn read_link(&mut self) -> Result<()> {
        // Before the lines as well: a shrink among them may move the floor.
        self.withhold();
        while let Some((line, fds)) = self.lease.receive()? {
            self.obey(line, fds);
        }
        self.withhold();
        // The readers are not what they were, or the daemon has said something: the next message looks at everything anew.
        self.tail.close();
        // A reader that has attached may have gone to sleep before the record that was under way meanwhile, and nobody knew
        // of it when that became visible.
        self.announce();
        Ok(())
    }

    fn obey(&mut self, line: ToWriter, fds: Vec<OwnedFd>) {
        match line {
            ToWriter::ReaderJoined { reader } => match page_and_bell(fds) {
                Ok(named) => self.peers.add(reader, named, self.space.floor().pos),
                Err(reason) => self.lease.tell(ToDaemon::Refused { reader, reason }),
            },
            ToWriter::ReaderLeft { reader } => drop(self.peers.remove(reader)),
            ToWriter::Grown { capacity, done } => self.space.grown(&mut self.tail, capacity, done),
            ToWriter::NotGrown { reason } => self.space.not_grown(reason),
            ToWriter::Shrink { capacity, id } => {
                self.space.begin_shrink(&mut self.tail, capacity, id);
                self.settle();
            }
            ToWriter::Policy { ack, ack_timeout_ms, evict_after_ms, wait_readers } => {
                let geometry = &mut self.geometry;
                (geometry.ack, geometry.ack_timeout_ms) = (ack, ack_timeout_ms);
                (geometry.evict_after_ms, geometry.wait_readers) = (evict_after_ms, wait_readers);
            }
            ToWriter::Revoked { reason } => self.lease.revoke(reason),
            ToWriter::Resumed => self.peers.disown(),
            // Said where the line was read.
            ToWriter::Unknown => {}
        }
    }

    /// Gives up nothing while the daemon holds lines back: they may name readers.
    fn withhold(&mut self) {
        self.peers.withhold(self.lease.lacks_lines().then_some(self.space.floor().pos));
    }

    /// Waits a while for lines that the daemon holds back.
    pub(super) fn await_lines(&mut self, until_ns: u64) -> Result<()> {
        self.beat();
        self.lease.doze(until_ns.min(monotonic_ns().saturating_add(SLICE_NS)));
        self.daemon_lines_now()
    }

    /// Waits until the daemon has named everybody who reads.
    pub(crate) fn know_all(&mut self, timeout: Duration) -> Result<()> {
        let patience = Patience::until(timeout);
        while self.peers.is_withheld() {
            if monotonic_ns() >= patience.deadline_ns() {
                let what = format!("the daemon to name the readers of channel {}", self.geometry.channel);
                return Err(WriterError::TimedOut { what, waited: timeout });
            }
            self.await_lines(patience.deadline_ns())?;
        }
        Ok(())
    }
}

/// What came with a reader's name; why not, with the way out, where it did not come or is of no use.
fn page_and_bell(fds: Vec<OwnedFd>) -> Result<Named, String> {
    let pid = std::process::id();
    let [page, bell] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| {
        let limit = fds::limit();
        format!(
            "the writer, process {pid}, has no descriptor left for it and may have {limit} open; raise its limit (ulimit -n, \
             LimitNOFILE=) and attach again"
        )
    })?;
    let failed = |e: ProtocolError| format!("the writer, process {pid}, cannot serve it: {e}");
    // The page's descriptor is closed here: what is kept for each reader is its bell.
    let page_id = FileId::of(&page).map_err(|e| failed(SystemError::new("look at a received page", e).into()))?;
    let page = SharedPage::open(page.as_fd()).map_err(failed)?;
    Ok(Named { page_id, page, bell: Bell::from_fd(bell).map_err(failed)? })
}
