//! The parts of the view that are no tables.

use std::time::{Duration, Instant};

use shm_proto::internal::control::Pong;
use shm_proto::internal::control::log::{LogEntry, Severity};
use shm_proto::internal::control::stat::WriterState;

use super::super::control::{Control, Footer};
use super::super::figures::{Channel, Figures, Oldest, Reader, duration, exactly};
use super::super::keys::help;
use super::row::Row;
use crate::colour::Colour;
use crate::human::{age, bytes, count, nanos, per_second, printable, utc};
use crate::readers::unusual_wait;
use crate::terminal::{columns, folded, shortened};

/// How the connection to the daemon is.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Status {
    pub(in super::super) daemon: Option<Pong>,
    /// Why the daemon does not answer.
    pub(in super::super) trouble: Option<String>,
    /// How old the figures are then.
    pub(in super::super) age: Duration,
    pub(in super::super) interval: Duration,
}

/// The first line, or several if something is wrong.
pub(super) fn header(figures: &Figures, control: &Control, status: &Status, width: u16) -> Vec<Row> {
    if let Some(trouble) = &status.trouble {
        let text = format!("shmctl top  figures are {} old: {}", duration(status.age), printable(trouble));
        return rows(&text, 2, Some(Colour::BoldRed), width);
    }
    let daemon =
        status.daemon.as_ref().map(|daemon| format!("  shmd {} (pid {})", printable(&daemon.version), daemon.pid));
    let readers: usize = figures.channels.iter().map(|channel| channel.readers.len()).sum();
    let text = format!(
        "shmctl top{}{}  {}, {}  every {}",
        if control.is_paused { "  PAUSED" } else { "" },
        daemon.unwrap_or_default(),
        several(figures.channels.len(), "channel"),
        several(readers, "reader"),
        interval(status.interval)
    );
    vec![Row::new(text, Some(Colour::Bold))]
}

/// A text on as many lines as it needs.
fn rows(text: &str, indent: usize, colour: Option<Colour>, width: u16) -> Vec<Row> {
    let lines = folded(text, indent, Some(usize::from(width).max(1)));
    lines.lines().map(|line| Row::new(line, colour)).collect()
}

fn several(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn interval(time: Duration) -> String {
    let millis = time.as_millis();
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { duration(time) }
}

/// Who holds the writer up, or how the channel is set up.
pub(super) fn summary(channel: &Channel, at: Instant, width: u16) -> Vec<Row> {
    let stat = &channel.stat;
    if let Some(blame) = channel.blame(at) {
        return rows(&format!("{}: {blame}", stat.channel), 2, Some(Colour::Red), width);
    }
    let writer = match &stat.writer {
        None => "none".to_owned(),
        Some(writer) => {
            let (program, user) = (printable(&writer.program), printable(&writer.user));
            let state = if writer.state == WriterState::Active {
                String::new()
            } else {
                format!(", {}", printable(&writer.state))
            };
            format!("{program} (pid {}, user {user}){state}", writer.pid)
        }
    };
    let (mode, used, capacity) = (printable(&stat.mode), bytes(stat.used), bytes(stat.capacity));
    let text = format!("{}: {mode}, {used} of {capacity} used, max {}; writer {writer}", stat.channel, bytes(stat.max));
    rows(&text, 2, None, width)
}

/// Everything about a reader: the lines of its pane.
pub(super) fn pane(reader: &Reader, at: Instant, width: u16) -> Vec<Row> {
    let stat = &reader.stat;
    let (program, user, state) = (printable(&stat.program), printable(&stat.user), printable(&stat.state));
    let wait = unusual_wait(stat).map(|wait| format!(", waits {wait}")).unwrap_or_default();
    let heading = format!("READER {}  {program}, pid {}, user {user}, {state}{wait}", stat.reader, stat.pid);
    let oldest = match reader.oldest(at) {
        Oldest::Unknown => String::new(),
        Oldest::Exactly(time) => format!(", the oldest for {}", exactly(time)),
        Oldest::AtLeast(time) => format!(", the oldest for more than {}", duration(time)),
    };
    let (lag, lag_bytes) = (count(stat.lag_messages), bytes(stat.lag_bytes));
    let unread = format!("  unread    {lag} ({lag_bytes}){oldest}; last seen {} ago", age(stat.heartbeat_ms));
    let rate = reader.rate.map_or_else(|| "-".to_owned(), per_second);
    let received = format!("  received  {}, lost {}; {rate} ", count(stat.received), count(stat.lost));
    let mut rows = vec![
        Row::new(heading, Some(Colour::Bold)),
        Row::new(unread, None),
        Row::with_history(received, &reader.history, width),
    ];
    rows.extend(stat.latency.map(|all| {
        let [p50, p90, p99, max] = [all.p50_ns, all.p90_ns, all.p99_ns, all.max_ns].map(nanos);
        Row::new(format!("  latency   p50 {p50}, p90 {p90}, p99 {p99}, max {max}"), None)
    }));
    rows
}

/// The last operations that fit, the newest one at the bottom. None: not even the heading.
pub(super) fn operations<'e>(entries: impl DoubleEndedIterator<Item = &'e LogEntry>, height: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = entries.rev().take(height.saturating_sub(1)).map(operation).collect();
    if !rows.is_empty() {
        rows.push(Row::new("OPERATIONS", Some(Colour::Bold)));
    }
    rows.reverse();
    rows
}

fn operation(entry: &LogEntry) -> Row {
    let colour = match entry.severity {
        Severity::Error => Some(Colour::Red),
        Severity::Warn => Some(Colour::Yellow),
        _ => None,
    };
    let time = utc(entry.time_ms);
    // Of 2026-01-31T23:59:58.123Z the time of day.
    let time = time.split('T').nth(1).and_then(|time| time.get(..8)).unwrap_or(&time);
    Row::new(format!("{time} {}", printable(entry)), colour)
}

/// The last lines: the keys, a question, or what has become of a request. At most `most` of them.
pub(super) fn footer(control: &Control, width: u16, most: usize) -> Vec<Row> {
    let text = |text: &str, colour| rows(text, 0, colour, width).into_iter().take(most).collect::<Vec<_>>();
    let bold = Some(Colour::Bold);
    match &control.footer {
        Footer::Keys => vec![Row::new(help(control.sort), None)],
        Footer::Size { channel, now, typed } => {
            text(&format!("resize {channel} from {} to: {typed}_  (Enter, or Esc to leave it)", bytes(*now)), bold)
        }
        Footer::Confirm { question, .. } => question_rows(question, "y: yes, n: no", width, most),
        Footer::Waiting { doing } => text(&format!("{doing} ..."), bold),
        Footer::Outcome { text: told, is_bad: false } => text(told, bold),
        Footer::Outcome { text: told, is_bad: true } => text(&format!("error: {told}"), Some(Colour::BoldRed)),
    }
}

/// A question and its answers, which are seen however long the question is.
fn question_rows(question: &str, answers: &str, width: u16, most: usize) -> Vec<Row> {
    let bold = Some(Colour::Bold);
    let room = usize::from(width).saturating_sub(columns(answers) + 2);
    if columns(question) <= room || most < 2 {
        return vec![Row::new(format!("{}  {answers}", shortened(question, room)), bold)];
    }
    let mut rows = rows(question, 0, bold, width);
    rows.truncate(most - 1);
    rows.push(Row::new(answers, bold));
    rows
}
