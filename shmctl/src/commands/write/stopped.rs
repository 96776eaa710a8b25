//! The end by a signal, which is a good one: what went through until then, and what did not.

use crate::error::{Result, note};
use crate::human::{bytes_in_words, messages};
use crate::signals::Signals;

/// Why reading the input ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With the input.
    Input,
    /// A signal came while nothing but input was waited for.
    Signal,
}

/// What became of the input when a signal ended the command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopped {
    /// What was done with the messages that went through: published, or acknowledged.
    pub(super) done: &'static str,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    /// Complete messages that were read and would have had to wait.
    pub(super) unpublished: u64,
    /// Bytes that were read of a message that is not complete.
    pub(super) unfinished: usize,
}

impl Stopped {
    /// Says it, and `more`.
    #[allow(clippy::unnecessary_wraps)]
    pub(super) fn tell(self, signals: &Signals, more: &str) -> Result<()> {
        note(&(self.text(signals.name()) + more));
        Ok(())
    }

    fn text(self, signal: &str) -> String {
        let Stopped { done, bytes, .. } = self;
        let mut text = format!("stopped by {signal}: {} ({})", messages(self.messages, done), bytes_in_words(bytes));
        if self.unpublished > 0 {
            text += &format!("; {}", messages(self.unpublished, &format!("read but not {done}")));
        }
        if self.unfinished > 0 {
            let read = bytes_in_words(self.unfinished as u64);
            text += &format!("; an incomplete message ({read}) was not {done}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_through_and_what_did_not_is_counted() {
        let stopped = Stopped { done: "published", messages: 2, bytes: 6, unpublished: 0, unfinished: 0 };
        assert_eq!(stopped.text("SIGINT"), "stopped by SIGINT: 2 messages were published (6 bytes)");
        let stopped = Stopped { done: "acknowledged", messages: 1, bytes: 1, unpublished: 3, unfinished: 4 };
        assert_eq!(
            stopped.text("SIGTERM"),
            "stopped by SIGTERM: 1 message was acknowledged (1 byte); 3 messages were read but not acknowledged; \
             an incomplete message (4 bytes) was not acknowledged"
        );
    }
}
