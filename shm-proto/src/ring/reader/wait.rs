//! Waiting for a message: spinning, sleeping on the page's semaphore, or in somebody's poll loop.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::Reader;
use super::connection::Connection;
use super::moves::Standing;
use crate::os::bell::Bell;
use crate::os::clock::monotonic_ns;
use crate::os::process;
use crate::ring::holder;
use crate::ring::layout::{control, waiting};
use crate::ring::reader::error::{ReaderError, Result};
use crate::ring::spin;

/// A sleep is cut into slices, to show a heartbeat and to notice a daemon that died.
const SLICE_NS: u64 = 1_000_000_000;
/// Who has waited for so long sleeps on the bell and the connection from then on. That takes a little longer to wake from than the
/// semaphore, which matters in a stream and not after such a gap, and ends at once when the daemon dies.
const DOZE_NS: u64 = 50_000_000;
/// While a daemon is looked for, this is the shortest sleep between two looks.
const LOOK_NS: u64 = 1_000_000;
/// Where the writer counts on `membarrier` and this process may not call it, a message can be missed when going to sleep; it
/// is found after this time.
const BLIND_SLICE_NS: u64 = 2_000_000;
/// A reader that only polls takes in what the daemon has said once in so many looks.
const LOOKS: u32 = 1 << 14;
/// In a poll loop nobody looks again by the clock. There the look that comes before going to sleep is put off for so long: a
/// store that no barrier hastens is visible after less than a microsecond, as a rule.
const BLIND_PAUSE: Duration = Duration::from_micros(100);

impl Reader {
    /// Looks at the header for some microseconds, after a [pause](super::pause). False when nothing came.
    #[inline]
    pub(super) fn spin(&mut self) -> bool {
        for _ in 1..self.pause.at(self.position.at(), self.position.capacity()) {
            std::hint::spin_loop();
        }
        spin::spin(|| self.position.has_come())
    }

    /// Looks at the header for longer, if that is promising.
    pub(super) fn look_on(&mut self, until_ns: u64) -> bool {
        self.spin.look_on(until_ns, || self.position.has_come())
    }

    /// Looks for a message for as long as that is promising: some microseconds, and longer after waits that were short. True:
    /// there is something to receive.
    ///
    /// Before going to sleep in a poll loop: to sleep and to be woken takes longer than the gaps of a fast stream.
    pub(in crate::ring) fn linger(&mut self) -> bool {
        let Connection { moves, trouble, .. } = &self.connection;
        let waits_for_the_daemon = trouble.is_told() || (!moves.may_move() && moves.has_moved(self.page.glance()));
        !waits_for_the_daemon && (self.spin() || self.look_on(u64::MAX))
    }

    /// Waits until there is something to look at, or until the moment. False when the moment came first.
    pub(super) fn wait_until(&mut self, deadline_ns: u64) -> Result<bool> {
        let begun = monotonic_ns();
        loop {
            let dozes = monotonic_ns() - begun >= DOZE_NS && self.connection.daemon().is_some();
            self.page.arm(if dozes { waiting::BELL } else { waiting::SEMAPHORE });
            if self.has_news() {
                self.page.disarm();
                return Ok(true);
            }
            let now = monotonic_ns();
            self.page.beat(now);
            if now >= deadline_ns {
                self.page.disarm();
                return Ok(false);
            }
            let slice = if self.page.is_told_at_once() { SLICE_NS } else { BLIND_SLICE_NS };
            let until = (now + slice).min(deadline_ns);
            match self.connection.daemon() {
                Some(connection) if dozes => self.page.doze(connection, until),
                Some(_) => self.page.sleep(until.min(begun + DOZE_NS)),
                None => {
                    let look = self.connection.looks_for_daemon().unwrap_or(u64::MAX).max(now + LOOK_NS);
                    self.page.sleep(until.min(look));
                }
            }
            self.page.disarm();
            // As a rule it is a message that has woken us; the system call can wait.
            if self.has_news() {
                return Ok(true);
            }
            self.listen();
            if self.is_abandoned() {
                return Ok(true);
            }
        }
    }

    /// Whether a reader that polls has nothing to do but to look again, in the one case that is common: nothing is there, and
    /// nothing is to be given back or to be told. Everything else is [`on_empty`](Self::on_empty)'s.
    #[inline(always)]
    pub(super) fn is_quiet(&mut self) -> bool {
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(LOOKS) {
            self.listen_in();
        }
        // While it is joined, no floor passes a reader that is not evicted.
        !self.position.has_come()
            && self.joined
            && self.page.given_back() == self.position.pos()
            && self.page.glance() & !control::REGISTERED == self.connection.moves.made()
            && !self.is_disconnected()
    }

    /// Whoever does nothing but look learns that the daemon has died and that another has come.
    #[cold]
    #[inline(never)]
    fn listen_in(&mut self) {
        self.listen();
    }

    /// Whether a look would find anything but silence: a message, a floor that passed us, a closed channel, another segment.
    fn has_news(&self) -> bool {
        let (bits, connection) = (self.page.control(), &self.connection);
        if connection.moves.has_moved(bits) && bits & control::EVICTED == 0 {
            // Until the line has come, what stands here says nothing. The daemon wakes this reader when it has sent it.
            return connection.moves.may_move() || connection.is_mute();
        }
        if connection.trouble.is_told() && bits & (control::EVICTED | control::CLOSING) == 0 {
            return !connection.awaits_verdict();
        }
        !self.position.is_empty() || bits & (control::EVICTED | control::CLOSING) != 0 || self.position.is_passed()
    }

    /// Prepares for sleeping in a poll loop on [`as_fd`](AsFd::as_fd). True: there is nothing to read, the descriptor will
    /// become readable when there may be. False: receive first.
    ///
    /// Looks for a message for some microseconds before it says that there is none, because the gaps of a fast stream are not worth
    /// going to sleep for.
    ///
    /// # Errors
    /// When there is no descriptor left to poll.
    pub fn arm(&mut self) -> Result<bool> {
        self.descriptor.over(self.page.bell_fd(), self.connection.as_fd())?;
        self.listen();
        if self.linger() {
            return Ok(false);
        }
        self.page.bell().drain();
        self.descriptor.follow(self.connection.changes(), self.page.bell(), self.connection.as_fd());
        self.give_back();
        self.page.arm(waiting::BELL);
        if !self.page.is_told_at_once() {
            std::thread::sleep(BLIND_PAUSE);
        }
        self.page.beat(monotonic_ns());
        if self.has_news() || self.is_abandoned() {
            self.page.disarm();
            return Ok(false);
        }
        // The next record is looked at twice, and says how long this sleep was: see `next_record`.
        self.joined = false;
        if self.armed_ns == 0 {
            self.armed_ns = monotonic_ns();
        }
        Ok(true)
    }

    /// Whether the daemon went away without a word.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        self.connection.is_lost()
    }

    /// Whether nobody is left who could publish: the daemon is gone, and so is the writer. A program that was lent the role
    /// before the daemon died goes on, and its readers with it.
    ///
    /// Once the daemon is gone nobody tells of the writer's end; look about once a second.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        if !self.is_disconnected() {
            return false;
        }
        if self.connection.was_refused() {
            return true;
        }
        let counters = &self.position.header().counters;
        // What a killed writer published is visible, too: the kernel has switched away from it for good.
        let alive = |(pid, start)| u32::try_from(pid).is_ok_and(|pid| process::is_alive(pid, start));
        !holder::holder(&counters.writer_pid, &counters.writer_start).is_some_and(alive)
    }

    /// Takes in what the daemon has said, without waiting. What follows from it is told by the next receive.
    pub(in crate::ring) fn listen(&mut self) {
        self.connection.listen();
        if let Some(bell) = self.connection.take_bell().and_then(|fd| Bell::from_fd(fd).ok()) {
            self.page.set_bell(bell);
        }
    }

    /// What an empty ring means here: nothing, the end, or that this reader stands where it should not.
    #[cold]
    #[inline(never)]
    pub(super) fn on_empty(&mut self) -> Result<bool> {
        self.give_back();
        let bits = self.page.control();
        if bits & control::EVICTED != 0 {
            return Err(self.evicted());
        }
        match self.standing()? {
            Standing::Inside => {}
            Standing::AtEnd => {
                self.go_over()?;
                return Ok(true);
            }
            Standing::Unknown => return Ok(false),
        }
        if self.position.is_passed() {
            self.catch_up()?;
            return Ok(true);
        }
        if let Some(end) = self.connection.moves.end() {
            // Whatever was before the end was visible when the line was sent.
            if !self.position.is_empty() {
                return Ok(true);
            }
            let pos = self.position.pos();
            return Err(self
                .position
                .broken(format!("there is nothing at position {pos}, and the segment ends at {end}")));
        }
        if bits & control::CLOSING == 0 && !self.is_abandoned() {
            return Ok(false);
        }
        // Looked at before the bit or the hang-up was, the ring may have been given its last message in between. The bit comes with
        // Acquire, and so does the absence of a writer: see `holder`.
        if !self.position.is_empty() {
            return Ok(true);
        }
        let channel = self.geometry().channel.to_string();
        if bits & control::CLOSING == 0 {
            return Err(ReaderError::Disconnected { channel });
        }
        self.connection.hear_why();
        Err(ReaderError::Closed { channel })
    }

    pub(super) fn evicted(&mut self) -> ReaderError {
        self.connection.hear_why();
        let reason = self.farewell().map(str::to_owned);
        ReaderError::Evicted {
            channel: self.geometry().channel.to_string(),
            reason: reason.unwrap_or_else(|| "it held the channel up".to_owned()),
        }
    }
}

impl AsFd for Reader {
    /// The one descriptor to wait on, the same for as long as the reader lives. After a true [`arm`](Reader::arm) it is readable when a
    /// message may have come, or the daemon has said something or is gone, and it stays so until the next `arm`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        let bell = self.page.bell_fd();
        // Without a descriptor `arm` fails, so nobody sleeps on the bell alone.
        self.descriptor.over(bell, self.connection.as_fd()).unwrap_or(bell)
    }
}
