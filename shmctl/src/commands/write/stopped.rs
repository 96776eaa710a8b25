//! What `shmctl write` reports when a signal ends it.

use crate::error::{Result, note};
use crate::human::{bytes_in_words, messages};
use crate::signals::Signals;

/// Why reading the input ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The input has ended.
    Input,
    /// A signal came while the command read or waited for input.
    Signal,
    /// The daemon has gone, and the command is to wait for another one.
    Daemon,
}

/// What became of the input when a signal ended the command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopped {
    /// `published` or `acknowledged`: what counts as done.
    pub(super) done: &'static str,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    /// Complete messages that were read and not published, because that would have needed a wait.
    pub(super) unpublished: u64,
    /// Bytes that were read of an incomplete message.
    pub(super) unfinished: usize,
}

impl Stopped {
    /// Reports it, followed by `more`. A command that a signal ends has not failed.
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
