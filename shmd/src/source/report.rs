//! How a source is doing, as its thread says and `stat` shows. Off the path of every byte: a few additions a read, and a
//! lock when the state changes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use shm_proto::internal::control::stat::{self, SourceStat, SourceState};
use shm_proto::internal::os::process;

use crate::config::SourceKind;

#[derive(Debug)]
struct Words {
    state: SourceState,
    /// When a child that has ended is started again; `state` says how long that is only when somebody asks.
    restart: Option<Instant>,
    last_error: Option<String>,
}

/// The figures of a source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    state: SourceState,
    bytes: u64,
    messages: u64,
    errors: u64,
    last_error: Option<String>,
}

impl Figures {
    /// Whether the source has come to its end, and is not started again.
    pub(crate) fn have_ended(&self) -> bool {
        matches!(self.state, SourceState::Ended | SourceState::Failed)
    }
}

/// How a source is doing.
#[derive(Debug)]
pub(crate) struct Report {
    kind: stat::SourceKind,
    object: Option<String>,
    bytes: AtomicU64,
    messages: AtomicU64,
    errors: AtomicU64,
    words: Mutex<Words>,
}

impl Report {
    /// Of a source that has not done anything yet.
    pub(crate) fn new(source: &SourceKind) -> Self {
        Self {
            kind: source.kind(),
            object: source.object(),
            bytes: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            words: Mutex::new(Words { state: SourceState::Starting, restart: None, last_error: None }),
        }
    }

    /// The figures, for the next program in this process.
    pub(crate) fn figures(&self) -> Figures {
        let words = self.words();
        Figures {
            // It says this again when it is started again.
            state: if words.restart.is_some() { SourceState::Starting } else { words.state.clone() },
            bytes: self.bytes.load(Ordering::Relaxed),
            messages: self.messages.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            last_error: words.last_error.clone(),
        }
    }

    /// The figures of the program before this one.
    pub(crate) fn go_on_from(&self, figures: Figures) {
        let Figures { state, bytes, messages, errors, last_error } = figures;
        self.moved(bytes, messages);
        self.errors.fetch_add(errors, Ordering::Relaxed);
        let mut words = self.words();
        (words.state, words.last_error) = (state, last_error);
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        // Whole values are put in, so a panic leaves nothing half done.
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts bytes read, and messages taken from them.
    pub(super) fn moved(&self, bytes: u64, messages: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.messages.fetch_add(messages, Ordering::Relaxed);
    }

    /// Messages so far.
    pub(super) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// Counts an error; returns how many there are.
    pub(crate) fn error(&self, text: String) -> u64 {
        self.words().last_error = Some(text);
        self.errors.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What it is doing now.
    pub(crate) fn set(&self, state: SourceState) {
        let mut words = self.words();
        (words.state, words.restart) = (state, None);
    }

    /// Its child has ended, and is started again at this time.
    pub(super) fn restarts(&self, at: Instant) {
        self.words().restart = Some(at);
    }

    /// For people and programs.
    pub(crate) fn stat(&self) -> SourceStat {
        let words = self.words();
        let state = match (words.restart, &words.state) {
            (Some(at), _) => SourceState::Restarting { seconds: seconds_until(at) },
            // The thread may be waiting for readers, and finds the end only then.
            (None, SourceState::Running { pid }) if has_ended(*pid) => SourceState::Draining { pid: *pid },
            (None, state) => state.clone(),
        };
        let mut stat = SourceStat::new(self.kind.clone(), self.object.clone(), state);
        stat.bytes = self.bytes.load(Ordering::Relaxed);
        stat.messages = self.messages.load(Ordering::Relaxed);
        stat.errors = self.errors.load(Ordering::Relaxed);
        stat.last_error.clone_from(&words.last_error);
        stat
    }
}

/// Rounded up: what is still to be waited for is not 0 s.
fn seconds_until(at: Instant) -> u64 {
    let left = at.saturating_duration_since(Instant::now());
    u64::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// Whether a child that was not reaped yet has ended. Until it is reaped, no other process gets its number.
fn has_ended(pid: u32) -> bool {
    process::start_ticks(pid).is_some_and(|start| !process::is_alive(pid, start))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_report_shows_what_was_said_last_and_all_that_was_counted() {
        let report = Report::new(&SourceKind::Tail("/var/log/x".into()));
        report.moved(10, 1);
        report.moved(5, 2);
        assert_eq!(report.error("first".into()), 1);
        assert_eq!(report.error("second".into()), 2);
        report.set(SourceState::Following);
        let stat = report.stat();
        assert_eq!((stat.kind, stat.object.as_deref()), (stat::SourceKind::Tail, Some("/var/log/x")));
        assert_eq!((stat.state, stat.bytes, stat.messages), (SourceState::Following, 15, 3));
        assert_eq!((stat.errors, stat.last_error.as_deref()), (2, Some("second")));
    }

    #[test]
    fn the_time_until_a_restart_is_rounded_up_and_over_when_something_else_happens() {
        let report = Report::new(&SourceKind::Tail("/var/log/x".into()));
        let state = |ms| {
            report.restarts(Instant::now() + Duration::from_millis(ms));
            report.stat().state
        };
        assert_eq!(state(1500), SourceState::Restarting { seconds: 2 });
        assert_eq!(state(0), SourceState::Restarting { seconds: 0 });
        report.set(SourceState::Open);
        assert_eq!(report.stat().state, SourceState::Open);
    }
}
