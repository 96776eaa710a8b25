//! The daemon's lines to the writer, and resizing.
//!
//! # Joining without the writer's help
//!
//! The daemon (1) sends `reader_joined`, (2) raises the generation, (3) runs a heavy barrier, and (4) answers the
//! reader, which (5) reads floor and mark and chooses its start. The writer looks at the generation before every
//! record. After (3), at most one publish is in progress, which had already looked. The next publish first reads the
//! link and registers the page, and from then on the writer holds the floor for the reader. If that one publish
//! overwrites something, the reader notices by the floor, and starts at the floor instead. If that one publish makes
//! something visible after the reader has looked and gone to sleep, the writer does not wake the reader for it. So the
//! writer looks at the readers' flags after it has registered them. A reserved slot is such a publish, and may be in
//! progress for a long time. Therefore an idle or stopped writer prevents no reader from attaching.
//!
//! If a writer does not read its link, the daemon keeps the lines (see [`link`](crate::ring::link)), and (1) means that
//! the lease page says so. Such a writer moves no floor before it has the lines.
//!
//! A daemon that has come in the place of a dead one, and that the writer has not found yet, has neither the link nor the
//! lease page. There, (1) and (2) mean that the segment's notes count the reader, and the writer moves no floor before
//! it has found that daemon, or has given up looking.
//!
//! "At most one" requires a full barrier on the writer's side, between one record and the look before the next:
//! `membarrier` executes it at (3), wherever the writer is. Without `membarrier`, `announce` runs a fence after every
//! record.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Writer;
use super::peer::Named;
use super::space::Shrink;
use super::wait::{Patience, SLICE_NS};
use crate::error::{ProtocolError, SystemError};
use crate::os::bell::Bell;
use crate::os::clock::monotonic_ns;
use crate::os::fds;
use crate::os::file_id::FileId;
use crate::os::page::SharedPage;
use crate::ring::layout::LEFT;
use crate::ring::link::{ToDaemon, ToWriter};
use crate::ring::writer::error::{Result, WriterError};

impl Writer {
    /// Reads the link if the daemon has raised the generation.
    ///
    /// # Errors
    /// [`WriterError::Revoked`] once the daemon has taken the role back.
    pub(super) fn daemon_lines(&mut self) -> Result<()> {
        if self.lease.is_due(monotonic_ns()) {
            return self.daemon_lines_now();
        }
        if self.lease.has_news(&self.tail.header().notes) { self.daemon_lines_now() } else { self.lease.check() }
    }

    /// Reads the link, whether or not the generation announces a line: a daemon that died has not raised the
    /// generation.
    ///
    /// # Errors
    /// As [`daemon_lines`](Self::daemon_lines).
    pub(super) fn daemon_lines_now(&mut self) -> Result<()> {
        self.lease.renew(&self.tail.header().notes);
        if self.is_deposed() {
            self.give_up_role();
        } else {
            self.read_link()?;
        }
        self.lease.check()
    }

    fn give_up_role(&mut self) {
        let unheard = self.is_left() && !self.lease.is_over();
        self.lease.give_up(unheard);
        self.tail.close();
    }

    /// Whether the role is over, whichever daemon has ended it: readers may have gone on to the next writer.
    pub(super) fn is_deposed(&self) -> bool {
        self.lease.is_over() || self.is_left()
    }

    /// Whether the channel goes on in another segment. A daemon that this writer has not found cannot end the lease, but it can say
    /// this in the segment.
    pub(super) fn is_left(&self) -> bool {
        // Acquire: who sees this from a reader's page on, which the reader has changed in the next segment, sees it here.
        self.tail.header().notes.unnamed.load(Ordering::Acquire) == LEFT
    }

    /// The daemon has ended the lease. Returns the reason why nothing can be published any more.
    #[cold]
    #[inline(never)]
    pub(super) fn deposed(&mut self) -> WriterError {
        self.give_up_role();
        self.lease.revocation()
    }

    /// The daemon ended the lease while this message was made visible.
    #[cold]
    #[inline(never)]
    pub(super) fn superseded(&mut self, seq: u64) -> WriterError {
        self.give_up_role();
        WriterError::Superseded { channel: self.geometry.channel.to_string(), seq }
    }

    fn read_link(&mut self) -> Result<()> {
        // Before the lines, because a shrink among them may move the floor, and because the daemon may send a line that it holds
        // back, and say that there are no more, after the link was read here: then that line is not known yet. The generation
        // has risen by then, so that the link is read again.
        let lacked = self.lease.lacks_lines();
        self.withhold(lacked);
        while let Some((line, fds)) = self.lease.receive()? {
            self.obey(line, fds);
        }
        if self.peers.need_daemon() && !self.lease.has_daemon() && self.lease.check().is_ok() {
            self.lease.revoke("the daemon is gone, which was to hand over what is published here".to_owned());
        }
        self.withhold(lacked && self.lease.has_daemon() || self.lease.lacks_lines());
        // The readers may have changed, or the daemon has sent something: the next message checks everything again.
        self.tail.close();
        // A reader that has attached may have gone to sleep before the record that was in progress at that time. The
        // writer did not know the reader when that record became visible.
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
            ToWriter::Shrink { capacity, id, yields } => {
                self.space.begin_shrink(&mut self.tail, Shrink { capacity, id, yields });
                self.settle();
            }
            ToWriter::Policy { ack, ack_timeout_ms, evict_after_ms, wait_readers } => {
                let geometry = &mut self.geometry;
                (geometry.ack, geometry.ack_timeout_ms) = (ack, ack_timeout_ms);
                (geometry.evict_after_ms, geometry.wait_readers) = (evict_after_ms, wait_readers);
                self.is_plain = !ack && !self.tail.has_times();
            }
            ToWriter::Revoked { reason } => self.lease.revoke(reason),
            ToWriter::Resumed => {
                self.peers.disown();
                self.space.ask_again();
            }
            // Reported where the line was read.
            ToWriter::Unknown => {}
        }
    }

    /// Gives up no space while the daemon holds back lines, because they may name readers.
    fn withhold(&mut self, lacks_lines: bool) {
        self.peers.withhold(lacks_lines.then_some(self.space.floor().pos));
    }

    /// Waits a while for lines that the daemon holds back.
    pub(super) fn await_lines(&mut self, until_ns: u64) -> Result<()> {
        self.beat();
        self.lease.doze(until_ns.min(monotonic_ns().saturating_add(SLICE_NS)).min(self.lease.looks_ns()));
        self.daemon_lines_now()
    }

    /// Waits until the daemon has named all readers.
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

/// The objects that came with a reader's name. If they did not come or cannot be used: the reason, and what to do.
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
    // The page's descriptor is closed here; only the bell of each reader stays open.
    let page_id = FileId::of(&page).map_err(|e| failed(SystemError::new("look at a received page", e).into()))?;
    let page = SharedPage::open(page.as_fd()).map_err(failed)?;
    Ok(Named { page_id, page, bell: Bell::from_fd(bell).map_err(failed)? })
}
