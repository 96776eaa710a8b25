//! Progress on a terminal, and a warning when the recorder falls behind: a thread of its own, because the receiver may wait for the
//! disk.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;
use shm_proto::internal::control::stat::{ChannelStat, FullPolicy, ReaderStat};
use shm_proto::{ChannelName, Client, Done, Endpoint, OnFull, Request};
use shmctl::companion::human::{bytes, bytes_in_words, bytes_per_second, counted, per_second};
use shmctl::companion::{Failure, Result, note, shortened, size};

use super::pipeline::Progress;
use super::sink::Counters;

/// The time between two drawings.
const DRAWING: Duration = Duration::from_millis(250);
/// The time between two requests to the daemon.
const ASKING: Duration = Duration::from_secs(1);
/// How long the daemon may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// As the daemon knows this program.
const PROGRAM: &str = "shmctl-record";

/// What is watched.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) endpoint: Endpoint,
    /// All channels that this user may see, if none is named.
    pub(crate) channels: Vec<ChannelName>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) is_quiet: bool,
}

/// The thread, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Monitor {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    pub(crate) fn start(watched: Watched) -> Result<Self> {
        let (end, ended) = channel();
        let work = move || {
            let mut state = State::new(watched);
            while ended.recv_timeout(DRAWING) == Err(RecvTimeoutError::Timeout) {
                state.look();
            }
            state.clear();
        };
        let thread = std::thread::Builder::new().name("monitor".to_owned()).spawn(work);
        let thread = thread.map_err(|e| Failure::Other(format!("cannot start a thread: {e}")))?;
        Ok(Monitor { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // What it has to say is not worth a failure.
            let _ = thread.join();
        }
    }
}

/// The recorder's distance from the writer of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lag {
    messages: u64,
    bytes: u64,
}

struct State {
    watched: Watched,
    begun: Instant,
    drawn: Option<(Instant, u64, u64)>,
    asked: Option<Instant>,
    lag: Option<Lag>,
    /// Channels in which the recorder is behind, and for which that was said.
    behind: Vec<ChannelName>,
}

impl State {
    fn new(watched: Watched) -> Self {
        State { watched, begun: Instant::now(), drawn: None, asked: None, lag: None, behind: Vec::new() }
    }

    fn look(&mut self) {
        if self.asked.is_none_or(|asked| asked.elapsed() >= ASKING) {
            self.ask();
            self.asked = Some(Instant::now());
        }
        if !self.watched.is_quiet && io::stderr().is_terminal() {
            self.draw();
        }
    }

    fn ask(&mut self) {
        let answer = Client::connect(&self.watched.endpoint, ANSWER).and_then(|mut client| {
            client.set_timeout(ANSWER);
            client.request(&Request::Stat { channel: None })
        });
        self.lag = None;
        // Without a daemon, nobody knows.
        let Ok(Done::Stat(stats)) = answer else { return };
        let wanted = self.watched.channels.clone();
        for stat in stats.iter().filter(|stat| wanted.is_empty() || wanted.contains(&stat.channel)) {
            let Some(reader) = own(stat) else { continue };
            let lag = self.lag.get_or_insert_default();
            lag.messages += reader.lag_messages;
            lag.bytes += reader.lag_bytes;
            let told = self.behind.iter().position(|name| *name == stat.channel);
            match (is_behind(stat, reader.lag_bytes), told) {
                (Some(true), None) => {
                    self.behind.push(stat.channel.clone());
                    self.warn(&warning(stat, reader.lag_bytes));
                }
                (Some(false), Some(place)) => drop(self.behind.remove(place)),
                _ => {}
            }
        }
    }

    fn warn(&mut self, text: &str) {
        self.clear();
        note(text);
    }

    fn draw(&mut self) {
        // The size is asked for each time, because the user may resize the terminal.
        let Some(size) = size(&io::stderr()) else { return };
        let counters = &self.watched.counters;
        let (messages, all) = (counters.messages.load(Ordering::Relaxed), counters.bytes.load(Ordering::Relaxed));
        let (since, before, bytes_before) = self.drawn.unwrap_or((self.begun, 0, 0));
        let seconds = since.elapsed().as_secs_f64().max(1e-3);
        let shown = Shown {
            messages,
            bytes: all,
            rate: (messages - before) as f64 / seconds,
            bytes_rate: (all - bytes_before) as f64 / seconds,
            written: self.watched.progress.written.load(Ordering::Relaxed),
            lost: counters.lost.load(Ordering::Relaxed),
            lag: self.lag,
            left: space_left(&self.watched.progress.path()),
        };
        // There is no other place to report that standard error is closed.
        let _ = write!(io::stderr(), "\r{}\x1b[K", shortened(&shown.line(), size.columns.saturating_sub(1)));
        self.drawn = Some((Instant::now(), messages, all));
    }

    /// Removes the line, before something else is written there.
    fn clear(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// What a line shows.
#[derive(Clone, Copy, Debug)]
struct Shown {
    messages: u64,
    bytes: u64,
    rate: f64,
    bytes_rate: f64,
    written: u64,
    lost: u64,
    lag: Option<Lag>,
    left: Option<u64>,
}

impl Shown {
    fn line(&self) -> String {
        let mut parts = vec![
            format!("{}, {}", counted(self.messages, "message", "s"), bytes_in_words(self.bytes)),
            format!("{}, {}", per_second(self.rate), bytes_per_second(self.bytes_rate)),
        ];
        if self.lost > 0 {
            parts.push(format!("{} lost", counted(self.lost, "message", "s")));
        }
        if let Some(lag) = self.lag {
            parts.push(format!("{} behind", bytes(lag.bytes)));
        }
        parts.push(format!("{} written", bytes(self.written)));
        if let Some(left) = self.left {
            parts.push(format!("{} left", bytes(left)));
        }
        parts.join("  ")
    }
}

/// The bytes that a user may still write to the file system of this file.
fn space_left(path: &Path) -> Option<u64> {
    let facts = statvfs(path).ok()?;
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "the types differ between architectures")]
    Some(facts.blocks_available() as u64 * facts.fragment_size() as u64)
}

/// This recorder among the readers: by its process, or in another PID namespace by its name.
fn own(stat: &ChannelStat) -> Option<&ReaderStat> {
    let pid = std::process::id();
    let readers = || stat.readers.iter();
    readers().find(|reader| reader.pid == pid).or_else(|| readers().find(|reader| reader.program == PROGRAM))
}

/// Whether the unread bytes are a danger: true from half of what the channel can hold on, false below a quarter. `None` in
/// between, so that a recorder at a limit does not warn again and again.
fn is_behind(stat: &ChannelStat, unread: u64) -> Option<bool> {
    match unread {
        unread if unread >= stat.max / 2 => Some(true),
        unread if unread < stat.max / 4 => Some(false),
        _ => None,
    }
}

fn warning(stat: &ChannelStat, unread: u64) -> String {
    let then = match stat.on_full {
        FullPolicy::Known(OnFull::Block) => {
            "when it is full, its writer waits for the recorder, until the recorder is evicted"
        }
        FullPolicy::Known(OnFull::Drop) => "when it is full, new messages are dropped for all readers",
        _ => "when it is full, messages are overwritten before they are recorded",
    };
    format!(
        "channel {}: the recorder is {} behind, and the channel holds at most {}; {then}. A faster disk, --compression, or a larger \
         max of the channel helps",
        stat.channel,
        bytes(unread),
        bytes(stat.max)
    )
}

#[cfg(test)]
mod tests {
    use shm_proto::internal::control::stat::{Mode, ReaderState};

    use super::*;

    fn stat() -> ChannelStat {
        let mut stat = ChannelStat::new("cam".parse().unwrap(), Mode::Ring, "/x".into());
        stat.max = 1 << 20;
        stat
    }

    #[test]
    fn the_line_has_everything_that_is_known() {
        let shown = Shown {
            messages: 12_345,
            bytes: 3 << 20,
            rate: 24_000.0,
            bytes_rate: 4.0 * 1024.0 * 1024.0,
            written: 4 << 20,
            lost: 0,
            lag: Some(Lag { messages: 7, bytes: 512 }),
            left: Some(120 << 30),
        };
        let line = shown.line();
        assert_eq!(line, "12,345 messages, 3MiB  24k/s, 4MiB/s  512 behind  4MiB written  120GiB left");
        let line = Shown { lost: 1, lag: None, left: None, ..shown }.line();
        assert_eq!(line, "12,345 messages, 3MiB  24k/s, 4MiB/s  1 message lost  4MiB written");
    }

    #[test]
    fn half_of_the_channel_is_behind_and_a_quarter_is_not_any_more() {
        let stat = stat();
        assert_eq!([0, 1 << 18, 1 << 19].map(|unread| is_behind(&stat, unread)), [Some(false), None, Some(true)]);
        let told = warning(&stat, 1 << 19);
        assert!(told.contains("cam") && told.contains("512KiB") && told.contains("evicted"), "{told}");
    }

    #[test]
    fn the_recorder_knows_itself() {
        let mut stat = stat();
        assert!(own(&stat).is_none());
        let reader = |number, pid, program: &str| {
            ReaderStat::new(number, pid, program.into(), "me".into(), ReaderState::Reading)
        };
        stat.readers = vec![reader(1, 1, "view"), reader(2, 2, PROGRAM)];
        assert_eq!(own(&stat).map(|reader| reader.reader), Some(2));
        stat.readers.push(reader(3, std::process::id(), "renamed"));
        assert_eq!(own(&stat).map(|reader| reader.reader), Some(3));
    }

    #[test]
    fn a_file_system_has_space() {
        assert!(space_left(Path::new("/dev/shm")).is_some());
        assert_eq!(space_left(Path::new("/none/such")), None);
    }
}
