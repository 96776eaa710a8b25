//! How a source is doing, as its thread says and `stat` shows. Off the path of every byte: a few additions a read, and a
//! lock when the state changes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use shm_proto::internal::control::stat::SourceStat;
use shm_proto::internal::os::process;

use crate::config::SourceKind;

/// What a source is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its thread has just been made.
    Starting,
    /// There is an input.
    Open,
    /// No writer has opened the FIFO.
    AwaitingWriter,
    /// A message that cannot be taken has left no place to go on: what comes is thrown away until the writers close.
    PassingOver,
    /// Clients come and go.
    Listening {
        /// Connected now.
        clients: usize,
        /// As many as there can be.
        most: usize,
    },
    /// The child runs.
    Running {
        /// Its process number.
        pid: u32,
    },
    /// The child has ended and is started again.
    Restarting {
        /// When.
        at: Instant,
    },
    /// Reads appended bytes.
    Following,
    /// The file is not there.
    AwaitingFile,
    /// The input cannot be opened; the last error says why.
    Retrying,
    /// There will be nothing more.
    Ended,
    /// It had to give up; the last error says why.
    Failed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        match self {
            State::Starting => f.write_str("starting"),
            State::Open => f.write_str("open"),
            State::AwaitingWriter => f.write_str("waiting for a writer"),
            State::PassingOver => f.write_str("skipping the rest of a bad input"),
            State::Listening { clients, most } => {
                write!(f, "listening, {clients} client{} of {most}", plural(*clients))
            }
            State::Running { pid } => write!(f, "running pid {pid}"),
            State::Restarting { at } => {
                let left = at.saturating_duration_since(Instant::now());
                // Rounded up: what is still to be waited for is not "0s".
                write!(f, "restarting in {}s", left.as_millis().div_ceil(1000))
            }
            State::Following => f.write_str("following"),
            State::AwaitingFile => f.write_str("waiting for the file"),
            State::Retrying => f.write_str("cannot open it, trying again"),
            State::Ended => f.write_str("ended"),
            State::Failed => f.write_str("failed"),
        }
    }
}

#[derive(Debug)]
struct Words {
    state: State,
    last_error: Option<String>,
}

/// A source's figures.
#[derive(Debug)]
pub(crate) struct Report {
    kind: &'static str,
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
            words: Mutex::new(Words { state: State::Starting, last_error: None }),
        }
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
    pub(crate) fn set(&self, state: State) {
        self.words().state = state;
    }

    /// For people and programs.
    pub(crate) fn stat(&self) -> SourceStat {
        let words = self.words();
        let state = match words.state {
            // The thread may be waiting for readers, and finds the end only then.
            State::Running { pid } if has_ended(pid) => {
                format!("pid {pid} has ended, and its output waits for readers")
            }
            ref state => state.to_string(),
        };
        SourceStat {
            kind: self.kind.to_owned(),
            object: self.object.clone(),
            state,
            bytes: self.bytes.load(Ordering::Relaxed),
            messages: self.messages.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            last_error: words.last_error.clone(),
        }
    }
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
        report.set(State::Following);
        let stat = report.stat();
        assert_eq!((stat.kind.as_str(), stat.object.as_deref()), ("tail", Some("/var/log/x")));
        assert_eq!((stat.state.as_str(), stat.bytes, stat.messages), ("following", 15, 3));
        assert_eq!((stat.errors, stat.last_error.as_deref()), (2, Some("second")));
    }

    #[test]
    fn numbers_of_clients_and_seconds_read_well() {
        let state = |state: State| state.to_string();
        assert_eq!(state(State::Listening { clients: 1, most: 9 }), "listening, 1 client of 9");
        assert_eq!(state(State::Listening { clients: 0, most: 9 }), "listening, 0 clients of 9");
        let at = |ms| State::Restarting { at: Instant::now() + Duration::from_millis(ms) }.to_string();
        assert_eq!(at(1500), "restarting in 2s");
        assert_eq!(at(0), "restarting in 0s");
    }
}
