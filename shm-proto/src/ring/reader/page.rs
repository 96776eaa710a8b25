//! The reader's page: what the reader shows the writer, and how it sleeps.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use crate::os::bell::Bell;
use crate::os::page::SharedPage;
use crate::os::process;
use crate::os::sem::Semaphore;
use crate::ring::layout::{CURSOR_JOINING, PID_LEFT, ReaderPage};
use crate::ring::wake::{self, Barrier};

#[derive(Debug)]
pub(super) struct Page {
    shared: SharedPage<ReaderPage>,
    bell: Bell,
    barrier: Barrier,
    /// Everything before this position was given back.
    given_back: u64,
}

impl Page {
    pub(super) fn new(shared: SharedPage<ReaderPage>, bell: Bell, barrier: Barrier) -> Page {
        let pid = std::process::id();
        shared.line.start.store(process::start_ticks(pid).unwrap_or(0), Ordering::Relaxed);
        // Release: pairs with the Acquire load in `Peer::process`.
        shared.line.pid.store(u64::from(pid), Ordering::Release);
        Page { shared, bell, barrier, given_back: CURSOR_JOINING }
    }

    /// This reader reads no more.
    pub(super) fn leave(&self) {
        // Release: what it was reading it has read.
        self.shared.line.pid.store(PID_LEFT, Ordering::Release);
    }

    /// The page, looked up once: a fence between two looks keeps the compiler from doing so.
    #[inline(always)]
    pub(super) fn shared(&self) -> &ReaderPage {
        &self.shared
    }

    /// The control word: what the writer and the daemon have said. Acquire: pairs with the writer's and the daemon's SeqCst. Who sees
    /// a bit or the number of moves sees what was published before it.
    #[inline(always)]
    pub(super) fn control(&self) -> u32 {
        self.shared.control.value.load(Ordering::Acquire)
    }

    /// Like [`control`](Self::control), for a look that only decides whether to look again.
    #[inline(always)]
    pub(super) fn glance(&self) -> u32 {
        self.shared.control.value.load(Ordering::Relaxed)
    }

    /// Everything before this position was given back.
    #[inline(always)]
    pub(super) fn given_back(&self) -> u64 {
        self.given_back
    }

    /// Whether space is to be given back at this offset. Relaxed: the value only decides whether the cursor is published now.
    #[inline(always)]
    pub(super) fn is_due(&self, off: u64) -> bool {
        off >= self.shared.space_wanted.give_at.load(Ordering::Relaxed)
    }

    /// Space is given back at this offset the next time.
    pub(super) fn set_due(&self, off: u64) {
        self.shared.space_wanted.give_at.store(off, Ordering::Relaxed);
    }

    /// Gives everything before the position back, and does so again at offset `next`. With it goes how far this reader has come, in
    /// messages.
    pub(super) fn give_back(&mut self, pos: u64, next: u64, (seq, received): (u64, u64)) {
        self.given_back = pos;
        let line = &self.shared.line;
        line.seq.store(seq, Ordering::Relaxed);
        line.received.store(received, Ordering::Relaxed);
        let wanted = &self.shared.space_wanted;
        if wake::publish_cursor(&line.cursor, &wanted.value, &wanted.give_at, pos, next) {
            Semaphore::new(&self.shared.space).post();
        }
    }

    pub(super) fn show_lost(&self, lost: u64) {
        self.shared.line.lost.store(lost, Ordering::Relaxed);
    }

    pub(super) fn beat(&self, now: u64) {
        self.shared.line.heartbeat.store(now, Ordering::Relaxed);
    }

    /// See [`Barrier::is_heavy`].
    pub(super) fn is_told_at_once(&self) -> bool {
        self.barrier.is_heavy()
    }

    /// Announces a sleep, and how. Look once more before sleeping.
    pub(super) fn arm(&self, how: u32) {
        wake::arm(&self.shared.waiting.value, how, self.barrier);
    }

    pub(super) fn disarm(&self) {
        wake::disarm(&self.shared.waiting.value);
    }

    /// Sleeps until the writer or the daemon posts, or until the moment.
    pub(super) fn sleep(&self, until_ns: u64) {
        Semaphore::new(&self.shared.wake).wait_until(until_ns);
    }

    /// Sleeps until the bell rings, something is to be read from `other`, or until the moment.
    pub(super) fn doze(&self, other: BorrowedFd<'_>, until_ns: u64) {
        self.bell.wait(other, until_ns);
        self.bell.drain();
    }

    /// Another bell, whose ringing end a new daemon has.
    pub(super) fn set_bell(&mut self, bell: Bell) {
        self.bell = bell;
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    pub(super) fn bell_fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.bell)
    }
}
