//! The reader's page: what the reader shows the writer, and how it sleeps.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use crate::os::bell::Bell;
use crate::os::page::SharedPage;
use crate::os::process;
use crate::os::sem::Semaphore;
use crate::ring::delays;
use crate::ring::layout::{CURSOR_JOINING, PID_LEFT, ReaderPage};
use crate::ring::wait_strategy::WaitStrategy;
use crate::ring::wake::{self, Barrier};

#[derive(Debug)]
pub(super) struct Page {
    shared: SharedPage<ReaderPage>,
    bell: Bell,
    barrier: Barrier,
    /// Everything before this position was given back.
    given_back: u64,
    strategy: WaitStrategy,
}

impl Page {
    pub(super) fn new(shared: SharedPage<ReaderPage>, bell: Bell, barrier: Barrier) -> Page {
        let pid = std::process::id();
        shared.line.start.store(process::start_ticks(pid).unwrap_or(0), Ordering::Relaxed);
        // Release pairs with the Acquire load in `Peer::named_process`.
        shared.line.pid.store(u64::from(pid), Ordering::Release);
        Page { shared, bell, barrier, given_back: CURSOR_JOINING, strategy: WaitStrategy::default() }
    }

    /// Says that this reader reads no more.
    pub(super) fn leave(&self) {
        // Release: the reads of this reader come before the store.
        self.shared.line.pid.store(PID_LEFT, Ordering::Release);
    }

    /// The page, looked up only once: a fence between two lookups keeps the compiler from combining them.
    #[inline(always)]
    pub(super) fn shared(&self) -> &ReaderPage {
        &self.shared
    }

    /// The control word, in which the writer and the daemon set bits. Acquire pairs with the SeqCst operations of the
    /// writer and the daemon: a reader that sees a bit or the number of moves also sees what was published before it.
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

    /// Whether the reader has chosen its start, and has said so.
    pub(super) fn has_joined(&self) -> bool {
        self.given_back != CURSOR_JOINING
    }

    /// Whether to give space back at this offset. Relaxed: the value only decides whether the cursor is published now.
    #[inline(always)]
    pub(super) fn is_due(&self, off: u64) -> bool {
        off >= self.shared.space_wanted.give_at.load(Ordering::Relaxed)
    }

    /// Sets the offset at which to give space back next.
    pub(super) fn set_due(&self, off: u64) {
        self.shared.space_wanted.give_at.store(off, Ordering::Relaxed);
    }

    /// Counts a message that took so long to come here.
    pub(super) fn count_delay(&self, ns: u64) {
        delays::count(&self.shared.times.delays, ns);
    }

    /// Gives back everything before the position, which is at the offset, and sets the next offset at which to do so to `next`. Also shows how
    /// many messages this reader has passed and received.
    pub(super) fn give_back(&mut self, (pos, off): (u64, u64), next: u64, (seq, received): (u64, u64)) {
        self.given_back = pos;
        let line = &self.shared.line;
        self.shared.times.off.store(off, Ordering::Relaxed);
        line.seq.store(seq, Ordering::Relaxed);
        line.received.store(received, Ordering::Relaxed);
        let wanted = &self.shared.space_wanted;
        if wake::publish_cursor(&line.cursor, &wanted.value, &wanted.give_at, pos, next) {
            Semaphore::new(&self.shared.space).post();
        }
    }

    pub(super) fn strategy(&self) -> WaitStrategy {
        self.strategy
    }

    pub(super) fn set_strategy(&mut self, strategy: WaitStrategy) {
        self.strategy = strategy.limited();
        self.shared.line.wait.store(strategy.to_word(), Ordering::Relaxed);
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

    /// Announces a sleep of this kind. The caller must look once more before it sleeps.
    pub(super) fn arm(&self, how: u32) {
        wake::arm(&self.shared.waiting.value, how, self.barrier);
    }

    pub(super) fn disarm(&self) {
        wake::disarm(&self.shared.waiting.value);
    }

    /// Sleeps until the writer or the daemon posts the semaphore, or until the given time.
    pub(super) fn sleep(&self, until_ns: u64) {
        Semaphore::new(&self.shared.wake).wait_until(until_ns);
    }

    /// Sleeps until the bell rings, `other` is readable, or the given time comes.
    pub(super) fn doze(&self, other: BorrowedFd<'_>, until_ns: u64) {
        self.bell.wait(other, until_ns);
        self.bell.drain();
    }

    /// Sets another bell, whose ringing end a new daemon has.
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
