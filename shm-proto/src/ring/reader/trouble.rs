//! A segment that makes no sense, and what a reader does then.
//!
//! A reader that finds something broken tells its program once, and the daemon, which looks for itself. If the daemon finds it,
//! too, the channel goes on in a new segment; meanwhile the reader is as if nothing were published.

use super::Reader;
use crate::os::clock::monotonic_ns;
use crate::ring::reader::error::{ReaderError, Result};

/// How long the daemon is waited for that may replace the segment, before the program is told once more that it is broken.
pub(super) const VERDICT_NS: u64 = 3_000_000_000;

/// A reader says no more often than this that something is broken.
const REPORT_NS: u64 = 100_000_000;

/// What a reader knows of something wrong with the segment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trouble {
    /// Something is wrong, and the program has been told. Until then the daemon may still replace the segment, `CLOCK_MONOTONIC`
    /// nanoseconds.
    until_ns: Option<u64>,
    /// When the daemon was last told, `CLOCK_MONOTONIC` nanoseconds.
    reported_ns: u64,
}

impl Trouble {
    /// Something is wrong, and the program has been told.
    pub(super) fn is_told(&self) -> bool {
        self.until_ns.is_some()
    }

    /// Like [`is_told`](Self::is_told), and the daemon has time to do something about it.
    pub(super) fn is_fresh(&self) -> bool {
        self.until_ns.is_some_and(|until| monotonic_ns() < until)
    }

    /// The program is told now. Returns whether to tell the daemon, too: one broken segment after the other, the daemon knows without
    /// being told again.
    fn tell(&mut self, now: u64) -> bool {
        self.until_ns = Some(now.saturating_add(VERDICT_NS));
        let due = now.saturating_sub(self.reported_ns) >= REPORT_NS;
        if due {
            self.reported_ns = now;
        }
        due
    }

    /// The segment is another.
    pub(super) fn end(&mut self) {
        self.until_ns = None;
    }
}

impl Reader {
    /// What is to be told of an error, and what follows from one that says that the segment is broken. `None`: nothing yet.
    #[cold]
    pub(super) fn on_error(&mut self, error: ReaderError) -> Result<Option<ReaderError>> {
        let ReaderError::Corrupt { reason, channel } = error else { return Err(error) };
        self.joined = false;
        let connection = &mut self.connection;
        connection.listen();
        if connection.moves.end().is_some() {
            // The daemon knows already. A reader that has been told is spared its reason.
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
