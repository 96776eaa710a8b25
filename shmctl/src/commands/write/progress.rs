//! `--progress`: messages, bytes and rates, on standard error if that is a terminal. A thread draws the line, because the command
//! may wait for readers in the middle of publishing.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;

use crate::human::{bytes_in_words, bytes_per_second, counted, per_second};
use crate::terminal::{shortened, size};

/// The time between two drawings.
const INTERVAL: Duration = Duration::from_millis(250);

/// A line that is drawn again and again in the same place, until this is dropped.
#[derive(Debug)]
pub(super) struct Progress(Option<(Arc<Shared>, JoinHandle<()>)>);

/// Counts what a step has published so far.
#[derive(Clone, Debug)]
pub(super) struct Tally(Option<Arc<Shared>>);

/// What both threads look at.
#[derive(Debug, Default)]
struct Shared {
    messages: AtomicU64,
    bytes: AtomicU64,
    /// The line may be drawn: nothing else is being written to standard error.
    is_shown: AtomicBool,
    drawing: Mutex<Drawing>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Drawing {
    has_ended: bool,
    drawn: Option<Instant>,
    /// What the last drawing showed.
    last: (u64, u64),
}

impl Progress {
    pub(super) fn new(is_wanted: bool) -> Self {
        if !is_wanted || size(&io::stderr()).is_none() {
            return Progress(None);
        }
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        let thread = thread::Builder::new().name("progress".to_owned()).spawn(move || {
            // Signals are for the thread that waits for readers.
            let _ = SigSet::all().thread_block();
            its.run();
        });
        // Without a thread there is no progress to see, and everything else works.
        Progress(thread.ok().map(|thread| (shared, thread)))
    }

    /// Counts messages and bytes during a step.
    pub(super) fn tally(&self) -> Tally {
        Tally(self.0.as_ref().map(|(shared, _)| Arc::clone(shared)))
    }

    /// The messages and bytes that are published, between two steps; shows the line if it was cleared.
    pub(super) fn tell(&self, (messages, bytes): (u64, u64)) {
        if let Some((shared, _)) = &self.0 {
            // Relaxed: the figures are for people.
            shared.messages.store(messages, Ordering::Relaxed);
            shared.bytes.store(bytes, Ordering::Relaxed);
            shared.is_shown.store(true, Ordering::Relaxed);
        }
    }

    /// Removes the line until the next [`tell`](Self::tell), before something else is written there.
    pub(super) fn clear(&self) {
        if let Some((shared, _)) = &self.0 {
            let mut drawing = shared.lock();
            // Relaxed: the other thread looks at it with the lock, which is held here.
            shared.is_shown.store(false, Ordering::Relaxed);
            drawing.erase();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let Some((shared, thread)) = self.0.take() else { return };
        shared.lock().has_ended = true;
        shared.ended.notify_one();
        // A drawing that panicked is no reason to fail.
        let _ = thread.join();
        shared.lock().erase();
    }
}

impl Tally {
    /// One more message, of this number of bytes.
    pub(super) fn add(&self, bytes: usize) {
        if let Some(shared) = &self.0 {
            shared.messages.fetch_add(1, Ordering::Relaxed);
            shared.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Drawing> {
        self.drawing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut drawing = self.lock();
        while !drawing.has_ended {
            if self.is_shown.load(Ordering::Relaxed) {
                drawing.draw((self.messages.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed)));
            }
            let woken = self.ended.wait_timeout(drawing, INTERVAL);
            drawing = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drawing {
    fn draw(&mut self, so_far: (u64, u64)) {
        // The size is asked for each time, because the user may resize the terminal.
        let Some(size) = size(&io::stderr()) else { return };
        let now = Instant::now();
        let elapsed = self.drawn.map(|drawn| now.duration_since(drawn));
        let line = line(so_far, self.last, elapsed.unwrap_or_default());
        // There is no other place to report that standard error is closed.
        let _ = write!(io::stderr(), "\r{}\x1b[K", shortened(&line, size.columns.saturating_sub(1)));
        (self.drawn, self.last) = (Some(now), so_far);
    }

    fn erase(&mut self) {
        if self.drawn.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line((messages, all): (u64, u64), last: (u64, u64), elapsed: Duration) -> String {
    let rate = |now: u64, then: u64| {
        if elapsed.is_zero() { 0.0 } else { now.saturating_sub(then) as f64 / elapsed.as_secs_f64() }
    };
    format!(
        "{}, {}  {}, {}",
        counted(messages, "message", "s"),
        bytes_in_words(all),
        per_second(rate(messages, last.0)),
        bytes_per_second(rate(all, last.1))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_totals_and_the_rates_since_the_last_one() {
        let shown = line((12_345, 3 << 20), (345, 1 << 20), Duration::from_millis(500));
        assert_eq!(shown, "12,345 messages, 3MiB  24k/s, 4MiB/s");
        assert_eq!(line((1, 5), (0, 0), Duration::ZERO), "1 message, 5 bytes  0/s, 0/s");
    }

    #[test]
    fn there_is_no_thread_unless_it_is_wanted() {
        let progress = Progress::new(false);
        progress.tell((1, 1));
        progress.tally().add(1);
        progress.clear();
        assert!(progress.0.is_none());
    }
}
