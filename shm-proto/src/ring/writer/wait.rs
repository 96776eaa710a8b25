//! How long the writer may wait, and waiting for readers: for space, and for readers to come.

use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use super::Writer;
use super::peers::Need;
use crate::error::{Blocked, Error, Result};
use crate::os::clock::monotonic_ns;
use crate::os::sem::{Semaphore, Wait};
use crate::ring::{haste, wake};

/// How long to wait for space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// As the channel's `on_full` says.
    Policy,
    /// Until this moment, with the timeout it was made from.
    Until { deadline_ns: u64, timeout: Duration },
    /// Not at all.
    None,
}

/// Sleeps are cut into slices, so that a daemon that died, or a post that a hostile reader withheld, costs no more.
pub(super) const SLICE_NS: u64 = 50_000_000;
/// Semaphore returns without any progress after which the writer sleeps by the clock: somebody posts without reading.
const SPURIOUS: u32 = 16;
/// How long it sleeps by the clock.
const DOZE_NS: u64 = 1_000_000;

impl Patience {
    pub(super) fn until(timeout: Duration) -> Patience {
        let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        Patience::Until { deadline_ns: monotonic_ns().saturating_add(nanos), timeout }
    }

    pub(super) fn deadline_ns(self) -> u64 {
        match self {
            Patience::Policy => u64::MAX,
            Patience::Until { deadline_ns, .. } => deadline_ns,
            Patience::None => 0,
        }
    }

    /// The timeout that it was made from.
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
    /// Waits a while for the slowest reader to move, or for the daemon to say something. Evicts a reader whose time is up.
    pub(super) fn wait_for_space(&mut self, waiting: &mut Waiting, patience: Patience) -> Result<()> {
        let need = Need::Space { tail: self.tail.pos() };
        let generation = self.generation;
        let announced = |writer: &Writer| writer.lease.generation.value.load(Ordering::Acquire) != generation;
        let Some(before) = self.peers.slowest().map(|peer| peer.cursor) else { return Ok(()) };
        let now = monotonic_ns();
        if now >= patience.deadline_ns() && self.count_refusal(now) {
            return Ok(());
        }
        self.check_patience(patience, now)?;
        let moved = |writer: &mut Writer| {
            writer.peers.refresh(writer.tail.pos());
            writer.peers.least() != before || announced(writer)
        };
        let first = waiting.began_ns == 0;
        if first && haste::spin(|| moved(self)) {
            return Ok(());
        }
        let began = waiting.began(now);
        self.beat();
        if first && self.look_on(patience.deadline_ns(), moved) {
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
            self.doze(until);
        } else if wake::want_space(&peer.page.space_wanted.value, &peer.page.line.cursor, peer.cursor + 1) {
            return Ok(());
        } else {
            // A line sent between the last look and `want_space` was followed by a look at `space_wanted`: see the daemon's kick.
            if self.lease.generation.value.load(Ordering::SeqCst) == generation {
                woken = peer.space().wait_until(until);
            }
            peer.page.space_wanted.value.store(0, Ordering::Relaxed);
        }
        self.refresh();
        self.count_wait(need, now, until);
        let moved = self.peers.least() != before;
        if moved {
            self.haste.slept(monotonic_ns() - began);
        }
        waiting.spurious = if matches!(woken, Wait::Posted) && !moved { waiting.spurious + 1 } else { 0 };
        Ok(())
    }

    /// Looks for space for longer, if that is promising.
    fn look_on(&mut self, until_ns: u64, mut look: impl FnMut(&mut Writer) -> bool) -> bool {
        let mut haste = std::mem::take(&mut self.haste);
        let seen = haste.look_on(until_ns, || look(self));
        self.haste = haste;
        seen
    }

    /// Waits for a line from the daemon, at most until then.
    pub(super) fn doze(&mut self, until_ns: u64) {
        self.lease.waiting.value.store(1, Ordering::Relaxed);
        // SeqCst: pairs with the daemon's fence between raising the generation and looking at this flag.
        fence(Ordering::SeqCst);
        if self.lease.generation.value.load(Ordering::Relaxed) == self.generation {
            Semaphore::new(&self.lease.wake).wait_until(until_ns);
        }
        self.lease.waiting.value.store(0, Ordering::Relaxed);
    }

    /// Whether the program has raised its flag.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupt.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Called before a wait for `what`. Fails if the program has raised its flag.
    fn check_interrupt(&self, what: impl FnOnce() -> String) -> Result<()> {
        if self.is_interrupted() { Err(Error::Interrupted { what: what() }) } else { Ok(()) }
    }

    pub(super) fn check_patience(&self, patience: Patience, now: u64) -> Result<()> {
        self.check_interrupt(|| self.space_wanted())?;
        match patience {
            Patience::Policy => Ok(()),
            Patience::None => {
                let (used, capacity) = (self.unread(), self.plan.capacity());
                Err(self.would_block(Blocked::Full { used, capacity }))
            }
            Patience::Until { deadline_ns, .. } if now < deadline_ns => Ok(()),
            Patience::Until { timeout, .. } => Err(Error::TimedOut { what: self.space_wanted(), waited: timeout }),
        }
    }

    fn space_wanted(&self) -> String {
        let (channel, unread, capacity) = (&self.geometry.channel, self.unread(), self.plan.capacity());
        format!("space in channel {channel}: {unread} of {capacity} bytes are not read yet")
    }

    pub(super) fn would_block(&self, reason: Blocked) -> Error {
        Error::WouldBlock { channel: self.geometry.channel.to_string(), reason }
    }

    fn unread(&self) -> u64 {
        self.tail.pos() - self.peers.least().min(self.tail.pos())
    }

    /// Waits until as many readers are attached as the channel wants.
    pub(super) fn await_readers(&mut self, patience: Patience) -> Result<()> {
        let wanted = self.geometry.wait_readers as usize;
        loop {
            let have = self.peers.joined();
            if have >= wanted {
                self.ready = true;
                return Ok(());
            }
            if patience == Patience::None {
                return Err(self.would_block(Blocked::Readers { attached: have, wanted }));
            }
            let now = monotonic_ns();
            self.beat();
            let readers = if wanted == 1 { "reader" } else { "readers" };
            let what = || format!("{wanted} {readers} of channel {}, {have} attached", self.geometry.channel);
            self.check_interrupt(what)?;
            if now >= patience.deadline_ns() {
                return Err(Error::TimedOut { what: what(), waited: patience.timeout() });
            }
            // A reader that is attached but has not chosen its start posts nobody; it takes microseconds.
            let slice = if have < self.peers.len() { 1_000_000 } else { 1_000_000_000 };
            self.doze((now + slice).min(patience.deadline_ns()));
            self.attend_now()?;
        }
    }
}
