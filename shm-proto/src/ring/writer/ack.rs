//! Waiting until every reader has read what was published.

use std::time::Duration;

use super::Writer;
use super::need::Need;
use super::tail::Tail;
use super::wait::{Patience, SLICE_NS};
use crate::os::clock::monotonic_ns;
use crate::ring::spin;
use crate::ring::writer::error::{Result, WriterError};

/// What happens to a reader that stands still for `evict_after` while the writer waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// It holds up publishing.
    IsEvicted,
    /// The program only wants to know.
    Stays,
}

impl Writer {
    /// Waits until every attached reader has read everything that was published.
    ///
    /// A reader says so when it looks for the next message. A reader that has finished with the last message and does not look
    /// for another one counts as behind; [`publish_acked`](Self::publish_acked) hears of the end of that message. Nobody is evicted
    /// for being behind.
    ///
    /// # Errors
    /// [`WriterError::Unacknowledged`] if a reader has not read everything within `timeout`.
    pub fn wait_until_read(&mut self, timeout: Duration) -> Result<()> {
        self.flush()?;
        if self.lease.is_over() {
            return Err(self.deposed());
        }
        self.expect_ack();
        self.await_ack(Patience::until(timeout), Late::Stays)
    }

    /// Goes on with the wait of a publish that has ended with [`WriterError::Unacknowledged`]: readers that stand still are evicted.
    /// For bindings, whose waits are divided into slices.
    ///
    /// # Errors
    /// [`WriterError::Unacknowledged`]: the message is published.
    #[doc(hidden)]
    pub fn await_ack_again(&mut self, timeout: Duration) -> Result<()> {
        self.await_ack(Patience::until(timeout), Late::IsEvicted)
    }

    /// Makes the message at the tail visible on a channel with `ack`, and waits until every reader has read it.
    #[cold]
    #[inline(never)]
    pub(super) fn commit_acked(&mut self, commit: impl FnOnce(&mut Tail) -> u64, patience: Patience) -> Result<u64> {
        self.expect_ack();
        let seq = commit(&mut self.tail);
        let seq = self.announced(seq)?;
        self.acknowledged(patience)?;
        Ok(seq)
    }

    /// Called before a message becomes visible: makes every reader publish its cursor as soon as it has read that
    /// message, including a reader that attached when the channel had no `ack`.
    pub(super) fn expect_ack(&mut self) {
        self.peers.ask_all();
    }

    /// Waits until every reader has read everything, but no longer than `ack_timeout` or the patience.
    pub(super) fn acknowledged(&mut self, patience: Patience) -> Result<()> {
        if matches!(patience, Patience::None | Patience::Elsewhere) {
            return Ok(());
        }
        let policy = Patience::until(Duration::from_millis(self.geometry.ack_timeout_ms));
        self.await_ack(if patience.deadline_ns() < policy.deadline_ns() { patience } else { policy }, Late::IsEvicted)
    }

    /// Waits until every attached reader has passed the tail.
    ///
    /// # Errors
    /// Only [`WriterError::Unacknowledged`]: the message is published.
    pub(super) fn await_ack(&mut self, patience: Patience, late: Late) -> Result<()> {
        let target = self.tail.pos();
        let need = Need::Ack { target };
        let seq = self.tail.seq().wrapping_sub(1);
        let deadline_ns = patience.deadline_ns();
        let spin_until_ns = monotonic_ns() + spin::SPIN_NS;
        // Again: a reader that was just giving back has overwritten what asked it.
        self.peers.ask_wanting(need);
        loop {
            // Cursors are checked against the current tail: in the meantime, a shrink may have sent readers beyond this
            // message.
            self.refresh();
            // Readers whose lines the daemon holds back must also read the message.
            if self.peers.wanting(need).is_none() && !self.peers.is_withheld() {
                if !self.lease.has_other_unnamed(&self.tail.header().notes) {
                    return Ok(());
                }
                // So must readers of a daemon that this writer has not found yet.
                if let Err(error) = self.daemon_lines_now() {
                    return Err(self.unacknowledged(need, seq, patience.timeout(), Some(error.to_string())));
                }
                continue;
            }
            let now = monotonic_ns();
            if now < spin_until_ns.min(deadline_ns) {
                std::hint::spin_loop();
                continue;
            }
            if now >= deadline_ns {
                let late = || format!("the daemon did not name the readers within {:?}", patience.timeout());
                let ended = self.peers.is_withheld().then(late);
                return Err(self.unacknowledged(need, seq, patience.timeout(), ended));
            }
            if self.is_interrupted() {
                let ended = "the program ended it".to_owned();
                return Err(self.unacknowledged(need, seq, patience.timeout(), Some(ended)));
            }
            let until =
                (now + SLICE_NS).min(deadline_ns).min(now.saturating_add(self.peers.left_ns(need, self.limit())));
            let heard = if let Some(peer) = self.peers.wanting(need) {
                peer.sleep_until_read(target, until, || self.lease.is_current_before_sleep());
                self.refresh();
                self.peers.waited(need, now, until, self.limit());
                if late == Late::IsEvicted {
                    self.evict_overdue(need);
                }
                self.beat();
                self.daemon_lines()
            } else {
                self.await_lines(until)
            };
            if let Err(error) = heard {
                return Err(self.unacknowledged(need, seq, patience.timeout(), Some(error.to_string())));
            }
        }
    }

    fn unacknowledged(&self, need: Need, seq: u64, waited: Duration, ended: Option<String>) -> WriterError {
        WriterError::Unacknowledged {
            channel: self.geometry.channel.to_string(),
            seq,
            behind: self.peers.count_wanting(need),
            readers: self.peers.len(),
            waited,
            ended,
        }
    }
}
