//! `--flush`: the beginning of a chunk is published if the rest does not come in time.

use std::time::{Duration, Instant};

use shm_proto::internal::framing::{Framing, Step};

use crate::error::{Failure, Result};

/// How long the beginning of a chunk may wait for the rest.
#[derive(Debug)]
pub(super) struct Flush {
    after: Option<Duration>,
    /// Since when the first bytes of an incomplete chunk have been waiting.
    since: Option<Instant>,
}

impl Flush {
    /// # Errors
    /// A usage error: the framing has no messages that could be published in part.
    pub(super) fn new(after: Option<Duration>, framing: Framing) -> Result<Self> {
        let reason = match framing {
            Framing::Chunk(_) => return Ok(Flush { after, since: None }),
            Framing::Stream => "a stream is published as it arrives",
            Framing::Lines | Framing::Nul | Framing::Length => "a part of such a message is no message",
        };
        match after {
            None => Ok(Flush { after, since: None }),
            Some(_) => Err(Failure::Usage(format!(
                "--flush does not go with --framing {framing}: {reason}; leave --flush out, or use --framing chunk=SIZE"
            ))),
        }
    }

    /// Notes the result of a step, which has left `unfinished` bytes of an incomplete chunk.
    pub(super) fn after_step(&mut self, step: Step, unfinished: usize, now: Instant) {
        self.since = match (self.after, step) {
            (None, _) => None,
            _ if unfinished == 0 => None,
            // What is left has come just now.
            (_, Step::Published(1..)) => Some(now),
            _ => self.since.or(Some(now)),
        };
    }

    /// The time until the beginning of a chunk is published, or the longest time if no chunk has begun.
    pub(super) fn left(&self, now: Instant) -> Duration {
        match (self.after, self.since) {
            (Some(after), Some(since)) => after.saturating_sub(now.saturating_duration_since(since)),
            _ => Duration::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_time_begins_with_the_first_byte_of_a_chunk() {
        let (mut flush, begun) = (Flush::new(Some(3 * SECOND), Framing::Chunk(4096)).unwrap(), Instant::now());
        assert_eq!(flush.left(begun), Duration::MAX);
        flush.after_step(Step::Published(0), 10, begun);
        flush.after_step(Step::WouldBlock, 10, begun + SECOND);
        flush.after_step(Step::Published(0), 20, begun + 2 * SECOND);
        assert_eq!(flush.left(begun + 2 * SECOND), SECOND);
        assert_eq!(flush.left(begun + 4 * SECOND), Duration::ZERO);
        flush.after_step(Step::Published(2), 5, begun + 4 * SECOND);
        assert_eq!(flush.left(begun + 4 * SECOND), 3 * SECOND);
        flush.after_step(Step::Published(1), 0, begun + 4 * SECOND);
        assert_eq!(flush.left(begun + 9 * SECOND), Duration::MAX);
    }

    #[test]
    fn other_framings_are_refused_with_the_reason() {
        for framing in [Framing::Lines, Framing::Nul, Framing::Length, Framing::Stream] {
            let refused = Flush::new(Some(SECOND), framing).unwrap_err();
            assert_eq!(refused.exit_code(), 2);
            assert!(refused.to_string().contains(&format!("--framing {framing}")), "{refused}");
            Flush::new(None, framing).unwrap();
        }
    }
}
