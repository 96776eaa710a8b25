//! Waiting for a message: spinning, sleeping on the page's semaphore, or sleeping in the program's poll loop.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::connection::Connection;
use super::moves::Standing;
use super::position::Found;
use super::{Joined, Reader};
use crate::os::bell::Bell;
use crate::os::clock::{self, monotonic_ns};
use crate::os::process;
use crate::ring::holder;
use crate::ring::layout::{control, waiting};
use crate::ring::reader::error::{ReaderError, Result};
use crate::ring::spin;
use crate::ring::wait_strategy::WaitStrategy;

/// A sleep is divided into slices, so that the reader updates its heartbeat and notices if the daemon has died.
const SLICE_NS: u64 = 1_000_000_000;
/// A reader that has waited this long sleeps on the bell and the connection from then on. Waking up from that takes a
/// little longer than from the semaphore, which matters in a stream but not after such a gap. In return, the sleep ends
/// at once if the daemon dies.
const DOZE_NS: u64 = 50_000_000;
/// The shortest sleep between two looks while the connection looks for a daemon.
const LOOK_NS: u64 = 1_000_000;
/// If the writer relies on `membarrier` and this process may not call it, a reader that goes to sleep may miss a
/// message. It finds the message after this time.
const BLIND_SLICE_NS: u64 = 2_000_000;
/// A reader that only polls reads what the daemon has sent once per this many looks.
const LOOKS: u32 = 1 << 14;
/// In a poll loop, no timer triggers another look. So the look before the sleep is delayed by this time: usually, a
/// store becomes visible after less than a microsecond, even if no barrier speeds it up.
const BLIND_PAUSE: Duration = Duration::from_micros(100);

impl Reader {
    /// Waits for messages in this way from now on. A reader begins with [`WaitStrategy::Adaptive`].
    pub fn set_wait_strategy(&mut self, strategy: WaitStrategy) {
        self.page.set_strategy(strategy);
    }

    /// How this reader waits for messages.
    #[must_use]
    pub fn wait_strategy(&self) -> WaitStrategy {
        self.page.strategy()
    }

    /// Looks at the header for as long as the strategy says, after a [pause](super::pause). A time that the program has chosen
    /// ends at the deadline. Returns false if nothing came.
    #[inline]
    pub(super) fn spin(&mut self, deadline_ns: u64) -> bool {
        if self.page.strategy() == WaitStrategy::Sleep {
            return self.position.has_come();
        }
        for _ in 1..self.pause.at(self.position.at(), self.position.capacity()) {
            std::hint::spin_loop();
        }
        match self.page.strategy() {
            WaitStrategy::Spin(time) => self.spin_for(time.min(clock::left(deadline_ns))),
            _ => spin::spin(spin::SPIN_NS, || self.position.has_come()),
        }
    }

    /// The next record for a reader that polls and has found none at hand. It [pauses](super::pause), too, but only at
    /// the first look after a message.
    #[inline(always)]
    pub(super) fn look_again(&mut self) -> Result<Option<Found>> {
        if self.pause.is_due(self.position.at()) && self.hang_back() {
            return self.next_record();
        }
        if self.is_quiet() { Ok(None) } else { self.next_record() }
    }

    /// Pauses. Returns whether a message has come meanwhile.
    #[cold]
    #[inline(never)]
    fn hang_back(&mut self) -> bool {
        // With publish times, a message may have been at hand.
        if self.joined == Joined::Timed && self.position.has_come() {
            return true;
        }
        let hints = self.pause.at(self.position.at(), self.position.capacity());
        for _ in 1..hints {
            std::hint::spin_loop();
        }
        hints > 1 && self.position.has_come()
    }

    /// Also ends when the daemon has something to say: the channel may have moved, or this reader may be evicted.
    fn spin_for(&self, time: Duration) -> bool {
        let before = self.page.glance();
        spin::spin(time.as_nanos() as u64, || self.position.has_come() || self.page.glance() != before)
            && self.position.has_come()
    }

    /// Looks at the header for longer, if that is promising.
    pub(super) fn look_on(&mut self, until_ns: u64) -> bool {
        self.page.strategy() == WaitStrategy::Adaptive && self.spin.look_on(until_ns, || self.position.has_come())
    }

    /// Looks for a message as long as that is promising: for some microseconds, and for longer after short waits.
    /// Returns true if there is something to receive.
    ///
    /// Called before going to sleep in a poll loop, because a sleep and a wake-up take longer than the gaps of a fast
    /// stream.
    pub(in crate::ring) fn linger(&mut self) -> bool {
        let Connection { moves, trouble, .. } = &self.connection;
        let waits_for_the_daemon = trouble.is_told() || (!moves.may_move() && moves.has_moved(self.page.glance()));
        !waits_for_the_daemon && (self.spin(u64::MAX) || self.look_on(u64::MAX))
    }

    /// Waits until there is something to look at, or until the deadline. Returns false if the deadline came first.
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
            // Usually, a message has woken this reader, and then no system call is needed.
            if self.has_news() {
                return Ok(true);
            }
            self.listen();
            if self.is_abandoned() {
                return Ok(true);
            }
        }
    }

    /// Whether a polling reader need only look again, in the most common case: there is no message, nothing to give
    /// back and nothing to report. [`on_empty`](Self::on_empty) handles all other cases.
    #[inline(always)]
    pub(super) fn is_quiet(&mut self) -> bool {
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(LOOKS) {
            self.listen_in();
        }
        // While the reader is joined, no floor passes it unless it is evicted. With publish times, `next_record` looks.
        !self.position.has_come()
            && self.joined == Joined::Plain
            && self.page.given_back() == self.position.pos()
            && self.page.glance() & !control::REGISTERED == self.connection.moves.made()
            && !self.is_disconnected()
    }

    /// A reader that only polls learns here that the daemon has died and that another one has come.
    #[cold]
    #[inline(never)]
    fn listen_in(&mut self) {
        self.listen();
    }

    /// Whether a look would find anything new: a message, a floor that has passed this reader, a closed channel, or
    /// another segment.
    fn has_news(&self) -> bool {
        let (bits, connection) = (self.page.control(), &self.connection);
        if connection.moves.has_moved(bits) && bits & control::EVICTED == 0 {
            // Until the line has arrived, the header here means nothing. The daemon wakes this reader after it has sent
            // the line.
            return connection.moves.may_move() || connection.is_mute();
        }
        if connection.trouble.is_told() && bits & (control::EVICTED | control::CLOSING) == 0 {
            return !connection.awaits_verdict();
        }
        !self.position.is_empty() || bits & (control::EVICTED | control::CLOSING) != 0 || self.position.is_passed()
    }

    /// Prepares for a sleep in a poll loop on [`as_fd`](AsFd::as_fd). Returns true if there is nothing to read: the
    /// descriptor becomes readable when there may be. Returns false if the program must receive first.
    ///
    /// Looks for a message for some microseconds before it returns true, because the gaps of a fast stream are too
    /// short for a sleep. With [`WaitStrategy::Spin`] it looks for that time.
    ///
    /// # Errors
    /// If no descriptor is available to poll on.
    pub fn arm(&mut self) -> Result<bool> {
        self.descriptor()?;
        self.listen();
        if self.linger() { Ok(false) } else { self.arm_without_looking() }
    }

    /// As [`arm`](Self::arm), but without looking for a message for a while first. For bindings that have looked already, or
    /// whose program does not expect a call that takes as long as [`WaitStrategy::Spin`] may say.
    ///
    /// # Errors
    /// As [`arm`](Self::arm).
    #[doc(hidden)]
    pub fn arm_at_once(&mut self) -> Result<bool> {
        self.descriptor()?;
        self.listen();
        self.arm_without_looking()
    }

    /// As [`arm`](Self::arm), for a program that expects no wait from this call, such as a task: a reader that
    /// [spins](WaitStrategy::Spin) elsewhere does not spin here.
    ///
    /// # Errors
    /// As [`arm`](Self::arm).
    #[doc(hidden)]
    pub fn arm_in_task(&mut self) -> Result<bool> {
        match self.wait_strategy() {
            WaitStrategy::Spin(_) => self.arm_at_once(),
            _ => self.arm(),
        }
    }

    fn arm_without_looking(&mut self) -> Result<bool> {
        // This listens, too, so it comes before the descriptor follows: bell and connection may be others afterwards.
        self.give_back();
        self.page.bell().drain();
        self.descriptor.follow(self.connection.changes(), self.page.bell(), self.connection.as_fd());
        self.page.arm(waiting::BELL);
        if !self.page.is_told_at_once() {
            std::thread::sleep(BLIND_PAUSE);
        }
        self.page.beat(monotonic_ns());
        if self.has_news() || self.is_abandoned() {
            self.page.disarm();
            return Ok(false);
        }
        // The next record is looked at twice. The second look, in `next_record`, records how long this sleep was.
        self.joined = Joined::No;
        if self.armed_ns == 0 {
            self.armed_ns = monotonic_ns();
        }
        Ok(true)
    }

    /// The descriptor of [`as_fd`](AsFd::as_fd).
    ///
    /// # Errors
    /// If no descriptor is available for it.
    pub(crate) fn descriptor(&self) -> Result<BorrowedFd<'_>> {
        self.descriptor.over(self.page.bell_fd(), self.connection.as_fd())
    }

    /// Whether the connection to the daemon was lost without a farewell.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        self.connection.is_lost()
    }

    /// Whether no process is left that could publish: the daemon and the writer are gone. If the role was lent to a
    /// program before the daemon died, that program continues, and so do its readers.
    ///
    /// Once the daemon is gone, nothing reports the end of the writer. Call this about once per second.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        if !self.is_disconnected() {
            return false;
        }
        if self.connection.was_refused() {
            return true;
        }
        let counters = &self.position.header().counters;
        // What a killed writer published is also visible: the kernel has switched away from that process for good.
        let alive = |(pid, start)| u32::try_from(pid).is_ok_and(|pid| process::is_alive(pid, start));
        !holder::holder(&counters.writer_pid, &counters.writer_start).is_some_and(alive)
    }

    /// Reads what the daemon has sent, without waiting. The next receive reports what follows from it.
    pub(in crate::ring) fn listen(&mut self) {
        self.connection.listen();
        if let Some(bell) = self.connection.take_bell().and_then(|fd| Bell::from_fd(fd).ok()) {
            self.page.set_bell(bell);
        }
    }

    /// Finds out what an empty ring means: nothing, the end, or that this reader stands at an invalid place. Returns
    /// true if the caller should look again.
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
            // Everything before the end was visible when the daemon sent the line.
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
        // The last message may have been published between the look at the ring and the look at the bit or the
        // connection. The bit is read with Acquire, and so is the absence of a writer: see `holder`.
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
    /// The only descriptor to wait on. It stays the same as long as the reader lives. After [`arm`](Reader::arm) has
    /// returned true, it is readable when a message may have come, or when the daemon has sent something or is gone. It
    /// stays readable until the next `arm`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // Without a descriptor, `arm` fails, so no program sleeps on the bell alone.
        self.descriptor().unwrap_or(self.page.bell_fd())
    }
}
