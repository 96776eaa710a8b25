//! What a reader does if the contents of the segment are invalid.
//!
//! A reader that finds something broken tells its program once, and tells the daemon, which looks for itself. If the
//! daemon also finds the fault, the channel continues in a new segment. In the meantime, the reader behaves as if
//! nothing were published.

use super::{Joined, Reader};
use crate::os::clock::monotonic_ns;
use crate::ring::reader::error::{ReaderError, Result};

/// How long to wait for the daemon to replace the segment, before the program is told again that the segment is broken.
pub(super) const VERDICT_NS: u64 = 3_000_000_000;

/// The shortest time between two reports of a broken segment to the daemon.
const REPORT_NS: u64 = 100_000_000;

/// What a reader knows about a broken segment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trouble {
    /// `Some` if the segment is broken and the program has been told. The daemon has until this time to replace the
    /// segment, in `CLOCK_MONOTONIC` nanoseconds.
    until_ns: Option<u64>,
    /// When the daemon was last told, in `CLOCK_MONOTONIC` nanoseconds.
    reported_ns: u64,
}

impl Trouble {
    /// Whether the segment is broken and the program has been told.
    pub(super) fn is_told(&self) -> bool {
        self.until_ns.is_some()
    }

    /// Like [`is_told`](Self::is_told), and the daemon still has time to act.
    pub(super) fn is_fresh(&self) -> bool {
        self.until_ns.is_some_and(|until| monotonic_ns() < until)
    }

    /// Notes that the program is told now. Returns whether to tell the daemon, too. If one segment after the other is
    /// broken, the daemon knows that without another report.
    fn tell(&mut self, now: u64) -> bool {
        self.until_ns = Some(now.saturating_add(VERDICT_NS));
        let due = now.saturating_sub(self.reported_ns) >= REPORT_NS;
        if due {
            self.reported_ns = now;
        }
        due
    }

    /// The reader has changed to another segment.
    pub(super) fn end(&mut self) {
        self.until_ns = None;
    }
}

impl Reader {
    /// Decides what to report about an error, and what follows if the error says that the segment is broken. `None` if
    /// there is nothing to report yet.
    #[cold]
    pub(super) fn on_error(&mut self, error: ReaderError) -> Result<Option<ReaderError>> {
        let ReaderError::Corrupt { reason, channel } = error else { return Err(error) };
        self.joined = Joined::No;
        let connection = &mut self.connection;
        connection.listen();
        if connection.moves.end().is_some() {
            // The daemon knows already. If the program has been told, it is not told again with the daemon's reason.
            let told = connection.trouble.is_told();
            let reason = self.go_over_broken()?.unwrap_or(reason);
            return Ok((!told).then_some(ReaderError::Corrupt { channel, reason }));
        }
        if connection.trouble.is_fresh() {
            return Ok(None);
        }
        if !connection.is_mute() && connection.trouble.tell(monotonic_ns()) {
            connection.report_broken(reason.clone());
        }
        Ok(Some(ReaderError::Corrupt { channel, reason }))
    }
}
