//! A line for each channel, and a line for each reader of a channel.

use std::time::Instant;

use super::super::figures::{Channel, History, Oldest, Reader, duration, exactly};
use super::row::{HISTORY, Row, table};
use crate::colour::Colour;
use crate::condition::{Condition, colour_of};
use crate::human::{age, bytes, bytes_per_second, count, per_second, percent, printable};
use crate::readers::{IDENTITY, identity};
use crate::table::{Align, Table};
use crate::terminal::shortened;

/// The heading of the column with the culprit.
const CULPRIT: &str = "HELD UP BY";
/// The cells of a fill level, one for each part of the capacity.
const BAR: usize = 4;

/// The longest part of a channel's name, and of a program's name beside its number: other columns are left out before names that
/// are no longer than this are shortened.
fn longest_names(width: u16) -> (usize, usize) {
    let width = usize::from(width);
    ((width / 4).max(8), (width / 5).clamp(4, 12))
}

/// What there is to say where nothing is known.
fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// The channels in this order, under their headings.
pub(super) fn channels(channels: &[&Channel], chosen: Option<usize>, at: Instant, width: u16) -> Vec<Row> {
    let (longest, program) = longest_names(width);
    let make = |history: usize| {
        let mut table = Table::new(&[
            ("CHANNEL", Align::Left),
            ("STATE", Align::Left),
            ("FILL", Align::Left),
            ("MESSAGES", Align::Right),
            (HISTORY, Align::Left),
            ("BYTES", Align::Right),
            ("READERS", Align::Right),
            (CULPRIT, Align::Left),
        ])
        .leaving_out(&["READERS", "BYTES", HISTORY, "MESSAGES", "FILL"])
        .painting(paint);
        for channel in channels {
            let (stat, rate) = (&channel.stat, channel.rate);
            table.row([
                shortened(stat.channel.as_str(), longest),
                Condition::of(stat).word().to_owned(),
                fill(stat.used, stat.capacity),
                or_dash(rate.map(|rate| per_second(rate.messages_per_s))),
                " ".repeat(history),
                or_dash(rate.map(|rate| bytes_per_second(rate.bytes_per_s))),
                stat.readers.len().to_string(),
                culprit(channel, program, at),
            ]);
        }
        table
    };
    let histories: Vec<&History> = channels.iter().map(|channel| &channel.history).collect();
    table(make, &histories, chosen, width)
}

/// Readers in this order, under their headings.
pub(super) fn readers(readers: &[&Reader], chosen: Option<usize>, at: Instant, width: u16) -> Vec<Row> {
    let make = |history: usize| {
        let rate = [("STATE", Align::Left), ("MESSAGES", Align::Right), (HISTORY, Align::Left)];
        let figures = ["LAG", "LAG BYTES", "OLDEST", "LOST", "SEEN"].map(|heading| (heading, Align::Right));
        let mut table = Table::new(&[&IDENTITY[..], &rate, &figures].concat())
            .shortening(&["PROGRAM", "USER"])
            .leaving_out(&["SEEN", "USER", "LOST", "PID", HISTORY, "LAG BYTES", "MESSAGES", "PROGRAM"])
            .painting(paint);
        for reader in readers {
            let stat = &reader.stat;
            let figures = [
                printable(&stat.state),
                or_dash(reader.rate.map(per_second)),
                " ".repeat(history),
                count(stat.lag_messages),
                bytes(stat.lag_bytes),
                oldest(reader, at),
                count(stat.lost),
                age(stat.heartbeat_ms),
            ];
            table.row([&identity(stat)[..], &figures].concat());
        }
        table
    };
    let histories: Vec<&History> = readers.iter().map(|reader| &reader.history).collect();
    table(make, &histories, chosen, width)
}

/// The age of the oldest unread message, in short.
fn oldest(reader: &Reader, at: Instant) -> String {
    match reader.oldest(at) {
        Oldest::Unknown => "-".to_owned(),
        Oldest::Exactly(time) => exactly(time),
        Oldest::AtLeast(time) => format!(">{}", duration(time)),
    }
}

fn culprit(channel: &Channel, longest: usize, at: Instant) -> String {
    let text = channel.held.as_ref().map(|held| {
        let who = held.reader.and_then(|number| channel.reader(number)).map(|reader| {
            let program = printable(&reader.stat.program);
            format!("{}/{}", shortened(&program, longest), reader.stat.reader)
        });
        format!("{}{}", who.as_deref().unwrap_or("nobody"), held.since.in_short(at))
    });
    or_dash(text)
}

/// ` 58% ###.`, with blocks.
fn fill(used: u64, capacity: u64) -> String {
    let part = if capacity == 0 { 0.0 } else { used as f64 / capacity as f64 };
    let full = ((part * BAR as f64).ceil() as usize).min(BAR);
    format!("{:>4} {}{}", percent(used, capacity), "\u{2588}".repeat(full), "\u{2591}".repeat(BAR - full))
}

fn paint(heading: &str, cell: &str) -> Option<Colour> {
    match heading {
        "STATE" => colour_of(cell),
        CULPRIT if cell != "-" => Some(Colour::Red),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fill_level_is_a_number_and_a_bar() {
        for (used, text) in [
            (0, "  0% \u{2591}\u{2591}\u{2591}\u{2591}"),
            (1, " <1% \u{2588}\u{2591}\u{2591}\u{2591}"),
            (500, " 50% \u{2588}\u{2588}\u{2591}\u{2591}"),
            (1000, "100% \u{2588}\u{2588}\u{2588}\u{2588}"),
        ] {
            assert_eq!(fill(used, 1000), text);
        }
        assert_eq!(fill(0, 0), fill(0, 1000));
        assert!(fill(3000, 1000).starts_with("300% \u{2588}\u{2588}\u{2588}\u{2588}"));
    }
}
