//! How long the writer may wait, and waiting for readers: for them to free space, and for them to attach.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::need::Need;
use super::peer::Peer;
use super::{Writer, beat};
use crate::error::Blocked;
use crate::os::clock::{self, monotonic_ns};
use crate::os::sem::Wait;
use crate::ring::spin;
use crate::ring::standstill::Limit;
use crate::ring::writer::error::{Result, WriterError};

/// How long to wait for space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// As long as the channel's `on_full` says.
    Policy,
    /// Until this moment, with the timeout that it was computed from.
    Until { deadline_ns: u64, timeout: Duration },
    /// Not at all.
    None,
    /// Not in this call, which fails with [`WriterError::WouldBlock`] instead. The caller waits elsewhere, as the channel's
    /// `on_full` says, and tries again.
    #[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "only tasks wait elsewhere"))]
    Elsewhere,
}

/// Sleeps are divided into slices of this length. A daemon that died, or a hostile reader that withholds its post,
/// costs no more than one slice.
pub(super) const SLICE_NS: u64 = 50_000_000;
/// The number of semaphore wake-ups without progress after which the writer sleeps by the clock, because a reader posts
/// without reading.
const SPURIOUS: u32 = 16;
/// How long the writer sleeps by the clock.
const DOZE_NS: u64 = 1_000_000;

impl Patience {
    pub(super) fn until(timeout: Duration) -> Patience {
        Patience::Until { deadline_ns: clock::after(timeout), timeout }
    }

    pub(super) fn deadline_ns(self) -> u64 {
        match self {
            Patience::Policy | Patience::Elsewhere => u64::MAX,
            Patience::Until { deadline_ns, .. } => deadline_ns,
            Patience::None => 0,
        }
    }

    /// The timeout that the deadline was computed from.
    pub(super) fn timeout(self) -> Duration {
        if let Patience::Until { timeout, .. } = self { timeout } else { Duration::ZERO }
    }
}

/// One wait of the writer, over several slices.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    began_ns: u64,
    spurious: u32,
}

impl Waiting {
    fn began(&mut self, now: u64) -> u64 {
        if self.began_ns == 0 {
            self.began_ns = now;
        }
        self.began_ns
    }
}

impl Writer {
    /// Waits a while for the slowest reader to move, or for a line from the daemon. Evicts a reader whose time is up.
    pub(super) fn wait_for_space(&mut self, waiting: &mut Waiting, patience: Patience) -> Result<()> {
        let need = Need::Space { tail: self.tail.pos() };
        let Some(before) = self.peers.slowest().map(Peer::cursor) else { return Ok(()) };
        let now = monotonic_ns();
        if now >= patience.deadline_ns() && self.count_refusal(now) {
            return Ok(());
        }
        self.check_patience(patience, now)?;
        let Writer { peers, tail, lease, spin, geometry, .. } = self;
        let mut moved = || {
            peers.refresh(tail.pos(), geometry.max_capacity);
            peers.least() != before || !lease.is_current()
        };
        let first = waiting.began_ns == 0;
        if first && spin::spin(spin::SPIN_NS, &mut moved) {
            return Ok(());
        }
        let began = waiting.began(now);
        beat(tail);
        if first && spin.look_on(patience.deadline_ns(), moved) {
            return Ok(());
        }
        if self.evict_overdue(need) {
            return Ok(());
        }
        let now = monotonic_ns();
        let slice = SLICE_NS.min(self.peers.left_ns(need, self.limit()));
        let mut until = (now + slice).min(patience.deadline_ns());
        let Some(peer) = self.peers.slowest() else { return Ok(()) };
        let mut woken = Wait::Interrupted;
        if peer.is_joining() || waiting.spurious > SPURIOUS {
            until = until.min(now + DOZE_NS);
            self.lease.doze(until);
        } else {
            match peer.sleep_until_read(peer.cursor() + 1, until, || self.lease.is_current_before_sleep()) {
                None => return Ok(()),
                Some(how) => woken = how,
            }
        }
        self.refresh();
        self.peers.waited(need, now, until, self.limit());
        let moved = self.peers.least() != before;
        if moved {
            self.spin.slept(monotonic_ns() - began);
        }
        waiting.spurious = if matches!(woken, Wait::Posted) && !moved { waiting.spurious + 1 } else { 0 };
        Ok(())
    }

    /// Nobody waits for readers that the present daemon has not named.
    #[cfg(test)]
    pub(in crate::ring) fn lose_readers_at_once(&mut self) {
        self.peers.lost_after_ns = 0;
    }

    /// How long a reader may stand still.
    pub(super) fn limit(&self) -> Limit {
        Limit::new(self.geometry.evict_after_ms)
    }

    /// Counts a message that is about to be dropped or refused for lack of space. Returns true if a reader was evicted
    /// instead; the caller then tries again.
    pub(super) fn count_refusal(&mut self, now: u64) -> bool {
        let need = Need::Space { tail: self.tail.pos() };
        self.peers.refused(need, now, self.limit());
        self.evict_overdue(need)
    }

    /// Evicts a reader that holds up the writer and has stood still for `evict_after`. Returns whether there was one.
    pub(super) fn evict_overdue(&mut self, need: Need) -> bool {
        let Some((id, reason)) = self.peers.overdue(need, self.limit(), self.tail.pos()) else { return false };
        self.evict(id, reason)
    }

    /// Whether the program has set its flag.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupt.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Called before a wait for `what`. Fails if the program has set its flag.
    fn check_interrupt(&self, what: impl FnOnce() -> String) -> Result<()> {
        if self.is_interrupted() { Err(WriterError::Interrupted { what: what() }) } else { Ok(()) }
    }

    pub(super) fn check_patience(&self, patience: Patience, now: u64) -> Result<()> {
        self.check_interrupt(|| self.space_wanted())?;
        match patience {
            Patience::Policy => Ok(()),
            Patience::None | Patience::Elsewhere => {
                let (used, capacity) = (self.unread(), self.space.capacity());
                Err(self.would_block(Blocked::Full { used, capacity }))
            }
            Patience::Until { deadline_ns, .. } if now < deadline_ns => Ok(()),
            Patience::Until { timeout, .. } => {
                Err(WriterError::TimedOut { what: self.space_wanted(), waited: timeout })
            }
        }
    }

    fn space_wanted(&self) -> String {
        let (channel, unread, capacity) = (&self.geometry.channel, self.unread(), self.space.capacity());
        format!("space in channel {channel}: {unread} of {capacity} bytes are not read yet")
    }

    pub(super) fn would_block(&self, reason: Blocked) -> WriterError {
        WriterError::WouldBlock { channel: self.geometry.channel.to_string(), reason }
    }

    fn unread(&self) -> u64 {
        self.tail.pos() - self.read()
    }

    /// Waits until as many readers are attached as the channel requires.
    pub(super) fn await_readers(&mut self, patience: Patience) -> Result<()> {
        loop {
            // Again each time: a reload may have changed it.
            let wanted = self.geometry.wait_readers as usize;
            if wanted == 0 {
                return Ok(());
            }
            // A daemon says which readers are gone. Without one, and of readers that it does not know, their pages do.
            self.peers.bury(self.lease.is_attended());
            let have = self.peers.joined();
            if have >= wanted {
                return Ok(());
            }
            if matches!(patience, Patience::None | Patience::Elsewhere) {
                return Err(self.would_block(Blocked::Readers { attached: have, wanted }));
            }
            let now = monotonic_ns();
            self.beat();
            let readers = if wanted == 1 { "reader" } else { "readers" };
            let what = || format!("{wanted} {readers} of channel {}, {have} attached", self.geometry.channel);
            self.check_interrupt(what)?;
            if now >= patience.deadline_ns() {
                return Err(WriterError::TimedOut { what: what(), waited: patience.timeout() });
            }
            // A reader that is attached but has not chosen its start posts no semaphore. Choosing takes microseconds.
            let slice = match () {
                () if have < self.peers.len() => 1_000_000,
                () if self.is_shrinking() => SLICE_NS,
                () => 1_000_000_000,
            };
            self.lease.doze((now + slice).min(patience.deadline_ns()));
            self.daemon_lines_now()?;
            if self.is_shrinking() {
                self.refresh();
                self.go_on_shrinking();
            }
        }
    }
}
