//! Figures and states: for the log, for systemd and for Prometheus.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{info, warn};
use shm_proto::internal::os::service_manager::ServiceManager;
use shmctl::companion::exposition::{Kind, Label, Value, introduce, sample};
use shmctl::companion::textfile::replace;
use shmctl::human::bytes_in_words;

use crate::link::Link;

/// How long a channel is away before it is said: a daemon may be started again.
const AWAY: Duration = Duration::from_secs(1);
/// Between two looks at the state.
const LOOK: Duration = Duration::from_secs(1);
/// Between two versions of the metrics file, in looks.
const METRICS: u32 = 5;
/// The metric with the state.
const STATE: &str = "shmd_relay_state";

/// What a relay is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The server has not been reached yet, or not since the connection was lost.
    Connecting,
    /// Messages are carried as they come.
    Relaying,
    /// A relay out has no channel to read: the daemon is away, or has no channel of that name.
    NoChannel,
    /// The server has no stream of that name any more.
    Gone,
    /// The link stands still, and the channel holds new messages. Or a relay in cannot publish, and the stream holds them.
    Waiting,
    /// The link stands still, and new messages go to the spool, or the spool has some yet.
    Spooling,
    /// The link stands still, and new messages are dropped.
    Dropping,
}

const STATES: [(State, &str); 7] = [
    (State::Connecting, "connecting"),
    (State::Relaying, "relaying"),
    (State::NoChannel, "no channel"),
    (State::Gone, "stream removed"),
    (State::Waiting, "stalled, waiting"),
    (State::Spooling, "stalled, spooling"),
    (State::Dropping, "stalled, dropping"),
];

impl State {
    fn words(self) -> &'static str {
        STATES.iter().find(|(state, _)| *state == self).map_or("", |(_, words)| words)
    }
}

/// The figures of one relay. One thread counts and reads.
#[derive(Debug)]
pub(crate) struct Status {
    direction: &'static str,
    channel: String,
    stream: String,
    pub(crate) link: Arc<Link>,
    state: Cell<State>,
    /// Since when a relay out has had no channel to read.
    channel_away: Cell<Option<Instant>>,
    /// The relay does nothing any more.
    is_over: Cell<bool>,
    /// Why the state is as it is, if it is not as usual.
    why: RefCell<String>,
    pub(crate) messages: Cell<u64>,
    pub(crate) bytes: Cell<u64>,
    /// Messages that are missing and were not dropped by this relay.
    pub(crate) lost: Cell<u64>,
    /// Messages that this relay, or the channel's `on_full`, has dropped.
    pub(crate) dropped: Cell<u64>,
    /// Messages of the stream that are no relay's.
    pub(crate) garbage: Cell<u64>,
    /// Bytes that are sent and not acknowledged.
    pub(crate) in_flight: Cell<u64>,
    pub(crate) spooled: Cell<u64>,
}

impl Status {
    pub(crate) fn new(direction: &'static str, channel: Option<&str>, stream: &str) -> Self {
        Status {
            direction,
            channel: channel.unwrap_or("(the only one)").to_owned(),
            stream: stream.to_owned(),
            link: Arc::default(),
            state: Cell::new(State::Connecting),
            channel_away: Cell::default(),
            is_over: Cell::default(),
            why: RefCell::default(),
            messages: Cell::default(),
            bytes: Cell::default(),
            lost: Cell::default(),
            dropped: Cell::default(),
            garbage: Cell::default(),
            in_flight: Cell::default(),
            spooled: Cell::default(),
        }
    }

    /// Sets the state, and logs a change. `why` is empty if everything is as usual.
    pub(crate) fn set(&self, state: State, why: &str) {
        why.clone_into(&mut self.why.borrow_mut());
        let before = self.state.replace(state);
        if before == state {
            return;
        }
        let because = if why.is_empty() { String::new() } else { format!(": {why}") };
        let words = state.words();
        match state {
            State::Relaying | State::Connecting => info!("{}: {words}{because}", self.name()),
            _ => warn!("{}: {words}{because}", self.name()),
        }
    }

    /// Which relay this is.
    pub(crate) fn name(&self) -> String {
        match self.direction {
            "out" => format!("{} -> {}", self.channel, self.stream),
            _ => format!("{} -> {}", self.stream, self.channel),
        }
    }

    /// Notes whether there is a channel to read.
    pub(crate) fn note_channel(&self, is_there: bool) {
        let since = self.channel_away.get().unwrap_or_else(Instant::now);
        self.channel_away.set((!is_there).then_some(since));
    }

    /// Whether there has been no channel to read for a while.
    pub(crate) fn lacks_channel(&self) -> bool {
        self.channel_away.get().is_some_and(|since| since.elapsed() >= AWAY)
    }

    pub(crate) fn state(&self) -> State {
        self.state.get()
    }

    /// What a reader says about itself to those who look at the channel.
    pub(crate) fn of_reader(&self, does: &str) -> String {
        let spooled = match self.spooled.get() {
            0 => String::new(),
            bytes => format!(", {} in the spool", bytes_in_words(bytes)),
        };
        format!("{does} for stream {}: {}{spooled}", self.stream, self.state.get().words())
    }

    /// One line about everything.
    fn line(&self) -> String {
        let mut line = format!(
            "{}: {}, {} messages, {} lost",
            self.name(),
            self.state.get().words(),
            self.messages.get(),
            self.lost.get()
        );
        for (figure, what) in [
            (&self.dropped, "dropped"),
            (&self.garbage, "not from a relay"),
            (&self.in_flight, "bytes not acknowledged"),
            (&self.spooled, "bytes spooled"),
        ] {
            if figure.get() > 0 {
                let _ = write!(line, ", {} {what}", figure.get());
            }
        }
        let why = self.why.borrow();
        if !why.is_empty() {
            let _ = write!(line, "; {why}");
        }
        line.replace('\n', " ")
    }

    /// The figures in the text format of Prometheus.
    fn metrics(&self) -> String {
        let labels: [Label<'_>; 3] =
            [("direction", self.direction), ("channel", &self.channel), ("stream", &self.stream)];
        let mut text = String::new();
        // The file stays behind, and nobody corrects it.
        let is_running = !self.is_over.get();
        let is_connected = is_running && self.link.is_connected();
        for (name, kind, help, value) in [
            ("connected", Kind::Gauge, "Whether there is a connection to the server.", is_connected.into()),
            (
                "messages_total",
                Kind::Counter,
                "Messages that the other side has acknowledged or published.",
                Value::Count(self.messages.get()),
            ),
            ("bytes_total", Kind::Counter, "Payload bytes of these messages.", self.bytes.get().into()),
            ("lost_messages_total", Kind::Counter, "Messages that were missing.", self.lost.get().into()),
            ("dropped_messages_total", Kind::Counter, "Messages that were dropped.", self.dropped.get().into()),
            (
                "foreign_messages_total",
                Kind::Counter,
                "Messages of the stream that are no relay's.",
                self.garbage.get().into(),
            ),
            ("in_flight_bytes", Kind::Gauge, "Bytes that are sent and not acknowledged.", self.in_flight.get().into()),
            ("spooled_bytes", Kind::Gauge, "Bytes in the spool.", self.spooled.get().into()),
        ] {
            let name = format!("shmd_relay_{name}");
            introduce(&mut text, &name, kind, help);
            sample(&mut text, &name, &labels, value);
        }
        introduce(
            &mut text,
            STATE,
            Kind::Gauge,
            "1 for the present state, 0 for the others, and for all when the relay has ended.",
        );
        for (state, words) in STATES {
            let labels = [&labels[..], &[("state", words)]].concat();
            sample(&mut text, STATE, &labels, (is_running && self.state.get() == state).into());
        }
        text
    }

    /// Tells systemd, and writes the metrics file, for as long as it is polled.
    pub(crate) async fn tell(&self, metrics: Option<PathBuf>) {
        let manager = ServiceManager::from_env();
        let tell = |lines: &str| manager.iter().for_each(|manager| manager.send(lines));
        tell("READY=1");
        let (mut told, mut looks, mut failed) = (String::new(), 0u32, None);
        loop {
            let line = self.line();
            if line != told {
                tell(&format!("STATUS={line}"));
                told = line;
            }
            if let Some(file) = metrics.as_deref().filter(|_| looks.is_multiple_of(METRICS)) {
                let result = replace(file, &self.metrics());
                if let Err(e) = &result
                    && failed.is_none_or(|at: Instant| at.elapsed() > Duration::from_secs(60))
                {
                    warn!("{e}");
                    failed = Some(Instant::now());
                }
            }
            looks = looks.wrapping_add(1);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The last words, however the relay has ended.
    pub(crate) fn finish(&self, metrics: Option<&Path>) {
        self.is_over.set(true);
        ServiceManager::from_env().iter().for_each(|manager| manager.send("STOPPING=1"));
        info!("{}", self.line());
        if let Some(file) = metrics
            && let Err(e) = replace(file, &self.metrics())
        {
            warn!("{e}");
        }
    }
}

/// Adds to a figure.
pub(crate) fn add(figure: &Cell<u64>, more: u64) {
    figure.set(figure.get().saturating_add(more));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_state_the_figures_and_the_reason() {
        let status = Status::new("out", Some("cam"), "CAM");
        status.set(State::Waiting, "no answer\nfor 2s");
        status.messages.set(7);
        status.dropped.set(3);
        assert_eq!(status.line(), "cam -> CAM: stalled, waiting, 7 messages, 0 lost, 3 dropped; no answer for 2s");
        assert_eq!(Status::new("in", Some("cam"), "CAM").name(), "CAM -> cam");
        assert_eq!(status.of_reader("reads ahead"), "reads ahead for stream CAM: stalled, waiting");
        status.spooled.set(3 << 20);
        assert!(status.of_reader("holds what is not safe").ends_with(": stalled, waiting, 3MiB in the spool"));
    }

    #[test]
    fn metrics_have_one_present_state_and_every_figure_once() {
        let status = Status::new("out", Some("cam"), "C\"AM");
        status.set(State::Relaying, "");
        let text = status.metrics();
        let labels = "{direction=\"out\",channel=\"cam\",stream=\"C\\\"AM\"";
        assert!(text.contains(&format!("shmd_relay_state{labels},state=\"relaying\"}} 1\n")), "{text}");
        assert_eq!(text.matches("} 1\n").count(), 1, "{text}");
        assert_eq!(text.matches("# TYPE").count(), text.matches("# HELP").count());
    }

    #[test]
    fn the_metrics_of_a_relay_that_has_ended_have_no_state() {
        let dir = shm_test_support::TempDir::new();
        let file = dir.join("relay.prom");
        let status = Status::new("out", Some("cam"), "CAM");
        status.set(State::Relaying, "");
        status.messages.set(7);
        status.finish(Some(&file));
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            !text.contains("} 1\n") && text.contains("shmd_relay_messages_total{") && text.contains("} 7\n"),
            "{text}"
        );
    }
}
