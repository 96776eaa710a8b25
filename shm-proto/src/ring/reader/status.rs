//! What a program says about itself to those who look at the channel.

use crate::ring::link::{FromReader, MOST_STATUS};

/// The shortest time between two changes. The daemon ends an attachment that sends more lines than any reader has reason to.
const APART_NS: u64 = 100_000_000;

/// The words that the daemon was told last.
#[derive(Debug, Default)]
pub(super) struct Status {
    words: String,
    /// When they changed, in `CLOCK_MONOTONIC` nanoseconds.
    changed_ns: Option<u64>,
}

impl Status {
    /// Whether these are the words already.
    pub(super) fn is(&self, words: &str) -> bool {
        cut(words) == self.words
    }

    /// Takes other words, and gives the line for the daemon. `None` if they are the same, or if the last change was too short ago.
    pub(super) fn set(&mut self, words: &str, now_ns: u64) -> Option<FromReader> {
        if self.is(words) || self.changed_ns.is_some_and(|at| now_ns.saturating_sub(at) < APART_NS) {
            return None;
        }
        self.words.clear();
        self.words.push_str(cut(words));
        self.changed_ns = Some(now_ns);
        Some(FromReader::Status { status: self.words.clone() })
    }

    /// The line for a daemon that has come in the place of the one that was told.
    pub(super) fn line_again(&self) -> Option<FromReader> {
        (!self.words.is_empty()).then(|| FromReader::Status { status: self.words.clone() })
    }
}

fn cut(words: &str) -> &str {
    words.char_indices().nth(MOST_STATUS).map_or(words, |(end, _)| &words[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(status: &str) -> Option<FromReader> {
        Some(FromReader::Status { status: status.to_owned() })
    }

    #[test]
    fn the_daemon_is_told_of_changes_that_are_apart() {
        let mut status = Status::default();
        assert_eq!(status.set("", 0), None);
        assert_eq!(status.set("busy", 5), line("busy"));
        assert_eq!(status.set("busy", APART_NS * 9), None);
        assert_eq!(status.set("idle", APART_NS), None);
        assert!(status.is("busy") && !status.is("idle"));
        assert_eq!(status.set("idle", APART_NS + 5), line("idle"));
        assert_eq!(status.line_again(), line("idle"));
        assert_eq!(status.set("", 3 * APART_NS), line(""));
        assert_eq!(status.line_again(), None);
    }

    #[test]
    fn words_are_cut_between_characters() {
        let mut status = Status::default();
        let long = "\u{e4}".repeat(MOST_STATUS + 1);
        assert_eq!(status.set(&long, 0), line(&"\u{e4}".repeat(MOST_STATUS)));
        assert!(status.is(&long));
    }
}
