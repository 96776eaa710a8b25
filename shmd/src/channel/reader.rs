//! One attached reader as the daemon sees it.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::Instant;

use shm_proto::Result;
use shm_proto::internal::os::bell::Bell;
use shm_proto::internal::os::page::SharedPage;
use shm_proto::internal::os::sem::Semaphore;
use shm_proto::internal::ring::layout::{CURSOR_JOINING, ReaderPage, control, waiting};
use shm_proto::internal::ring::wake::ask_for_cursor;

use super::handoff::NOBODY;
use crate::event_loop::ClientId;
use crate::liveness::Pulse;
use crate::peer::Peer;

/// A reader: its page, its bell, and the connection that is its attachment.
#[derive(Debug)]
pub(crate) struct Reader {
    /// The connection.
    pub(crate) client: ClientId,
    /// Who it is.
    pub(crate) peer: Peer,
    /// Evicted: what it reads may be overwritten.
    pub(crate) evicted: bool,
    /// Its signs of life.
    pub(crate) pulse: Pulse,
    /// How many times the channel had moved when it attached.
    pub(crate) joined: u64,
    page: SharedPage<ReaderPage>,
    page_fd: OwnedFd,
    bell: Bell,
}

impl Reader {
    /// A page and a bell for a new reader, and the reader's end of the bell.
    ///
    /// # Errors
    /// When there is no memory or no descriptor to be had.
    pub(crate) fn new(client: ClientId, peer: Peer, joined: u64) -> Result<(Self, OwnedFd)> {
        let (page, page_fd) = SharedPage::create("shmd-reader")?;
        let (bell, sleeper) = Bell::new()?;
        let pulse = Pulse::new(Instant::now());
        Ok((Self { client, peer, evicted: false, pulse, joined, page, page_fd, bell }, sleeper))
    }

    /// Whether it is the daemon's own, which hands messages over.
    pub(crate) fn is_bridge(&self) -> bool {
        self.client == NOBODY
    }

    /// The page.
    pub(crate) fn page(&self) -> &ReaderPage {
        &self.page
    }

    /// The page's descriptor, to hand on.
    ///
    /// # Errors
    /// When the descriptors have run out.
    pub(crate) fn page_fd(&self) -> Result<OwnedFd> {
        self.page_fd.try_clone().map_err(|e| shm_proto::Error::system("duplicate a page's descriptor", e))
    }

    /// What the writer gets: the page and the ringing end of the bell.
    ///
    /// # Errors
    /// When the descriptors have run out.
    pub(crate) fn for_writer(&self) -> Result<Vec<OwnedFd>> {
        Ok(vec![self.page_fd()?, self.bell.try_clone_fd()?])
    }

    /// The position up to which it has read, as it says; `None` before it has chosen its start.
    pub(crate) fn cursor(&self) -> Option<u64> {
        // Acquire: pairs with the reader's Release; it is done with what lies before.
        let cursor = self.page.line.cursor.load(Ordering::Acquire);
        (cursor != CURSOR_JOINING).then_some(cursor)
    }

    /// The number of the message at its cursor, as it says.
    pub(crate) fn seq(&self) -> u64 {
        self.page.line.seq.load(Ordering::Relaxed)
    }

    /// Makes the reader publish its cursor after its current message. A slow reader in a large ring would otherwise seem to
    /// stand still. Call this after a look at the [`cursor`](Self::cursor), so that the next one published is a later one.
    pub(crate) fn ask(&self) {
        ask_for_cursor(&self.page.space_wanted.give_at);
    }

    /// Whether it cannot stand before this position any more.
    pub(crate) fn is_past(&self, position: u64) -> bool {
        !self.evicted && self.cursor().is_some_and(|cursor| cursor >= position)
    }

    /// Lets a writer that sleeps for this reader go on.
    pub(crate) fn release_writer(&self) {
        if self.page.space_wanted.value.load(Ordering::SeqCst) != 0 {
            Semaphore::new(&self.page.space).post();
        }
    }

    /// Sets control bits and wakes the reader, however it sleeps.
    pub(crate) fn signal(&self, bits: u32) {
        // SeqCst: the reader looks at the bits after it has raised its waiting flag and before it sleeps.
        self.page.control.value.fetch_or(bits, Ordering::SeqCst);
        Semaphore::new(&self.page.wake).post();
        self.bell.ring();
    }

    /// For `stat`.
    pub(crate) fn state(&self) -> &'static str {
        if self.evicted || self.page.control.value.load(Ordering::Relaxed) & control::EVICTED != 0 {
            "evicted"
        } else if self.pulse.is_stalled() {
            "stalled"
        } else if self.cursor().is_none() {
            "joining"
        } else if self.page.waiting.value.load(Ordering::Relaxed) != waiting::NO {
            "sleeping"
        } else {
            "reading"
        }
    }
}
