//! The progress, on standard error if that is a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use crate::terminal::{shortened, size};

/// Columns of the bar itself.
const WIDTH: usize = 24;

/// A line that is drawn again and again in the same place, so it must not be wider than the terminal. Nothing is drawn if
/// standard error is not a terminal.
#[derive(Debug)]
pub(super) struct Progress {
    done: usize,
    all: usize,
    begun: Instant,
}

impl Progress {
    pub(super) fn new(all: usize) -> Self {
        Progress { done: 0, all, begun: Instant::now() }
    }

    /// Another one begins.
    pub(super) fn step(&mut self, what: &str) {
        // The size is asked for each time, because the user may resize the terminal.
        if let Some(size) = size(&io::stderr()) {
            let line = line(self.done, self.all, self.begun.elapsed().as_secs(), what);
            // There is no other place to report that standard error is closed.
            let _ = write!(io::stderr(), "\r{}\x1b[K", shortened(&line, size.columns - 1));
        }
        self.done += 1;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if io::stderr().is_terminal() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(done: usize, all: usize, seconds: u64, what: &str) -> String {
    let full = (done * WIDTH).checked_div(all).unwrap_or(WIDTH).min(WIDTH);
    let left = match (seconds * (all.saturating_sub(done)) as u64).checked_div(done as u64) {
        Some(left) => format!(", {left}s left"),
        None => String::new(),
    };
    format!("[{}{}] {done}/{all}{left}  {what}", "#".repeat(full), ".".repeat(WIDTH - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_and_says_how_long_it_will_take() {
        assert_eq!(line(0, 4, 0, "a"), format!("[{}] 0/4  a", ".".repeat(24)));
        assert_eq!(line(3, 4, 6, "b"), format!("[{}{}] 3/4, 2s left  b", "#".repeat(18), ".".repeat(6)));
        assert!(line(0, 0, 0, "").contains("####"));
    }
}
