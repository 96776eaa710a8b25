//! The view: from the figures and the choices to lines in a buffer.
//!
//! ```text
//! what is looked at
//! a line for each channel
//! who holds the writer of the chosen channel up
//! a line for each of its readers
//! the pane of the chosen reader
//! the last operations
//! the keys, or a question
//! ```

mod lines;
mod row;
mod share;
mod tables;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

pub(super) use self::lines::Status;
use self::row::{Row, window};
use self::share::Shares;
use super::super::NO_CHANNEL;
use super::ansi;
use super::control::{Control, Footer};
use super::figures::Figures;

/// Operations on a page that is as long as it needs to be.
const OPERATIONS: usize = 10;

/// Draws as much as fits into the buffer.
pub(super) fn draw(buffer: &mut Buffer, figures: &Figures, control: &Control, status: &Status) {
    let area = buffer.area;
    let height = usize::from(area.height);
    let footer = lines::footer(control, area.width, (height / 3).max(1));
    // On one line a question matters more than what it is about.
    let has_header = height > 1 || control.footer == Footer::Keys;
    let footer = if has_header && height == 1 { Vec::new() } else { footer };
    let mut rows: Vec<Row> = Vec::new();
    if has_header {
        rows.extend(lines::header(figures, control, status, area.width).into_iter().take(most(height)));
    }
    rows.extend(body(figures, control, area.width, height.saturating_sub(rows.len() + footer.len())));
    rows.truncate(height.saturating_sub(footer.len()));
    for (y, row) in (area.top()..).zip(&rows) {
        row.put(buffer, y);
    }
    let lines = u16::try_from(footer.len()).unwrap_or(area.height);
    for (y, row) in (area.bottom().saturating_sub(lines)..).zip(&footer) {
        row.put(buffer, y);
    }
}

/// The most lines that a text of one line may take if it is longer.
fn most(height: usize) -> usize {
    if height < 15 { 1 } else { 3 }
}

/// What is between header and footer.
fn body(figures: &Figures, control: &Control, width: u16, height: usize) -> Vec<Row> {
    let at = figures.at;
    let Some((place, channel)) = control.chosen(figures) else {
        let mut rows = vec![Row::new(NO_CHANNEL, None)];
        rows.extend(lines::operations(figures.operations.iter(), height.saturating_sub(1)));
        return rows;
    };
    let channels = tables::channels(&control.channels(figures), Some(place), at, width);
    let chosen = control.chosen_reader(channel);
    let readers = match chosen {
        Some((place, _)) => tables::readers(&control.readers(channel), Some(place), at, width),
        None => Vec::new(),
    };
    let pane = chosen.map(|(_, reader)| lines::pane(reader, at, width)).unwrap_or_default();
    let operations = figures.operations.len();
    let wanted = Shares {
        channels: channels.len(),
        readers: readers.len(),
        pane: pane.len(),
        operations: if operations == 0 { 0 } else { operations + 1 },
    };
    // The line about the channel, if there is room for more than the channels. It may be longer than a line.
    let mut summary = lines::summary(channel, at, width);
    summary.truncate(if height > 4 { most(height) } else { 0 });
    let shares = Shares::of(height - summary.len(), &wanted);
    let mut rows = window(channels, place, shares.channels);
    rows.extend(summary);
    rows.extend(window(readers, chosen.map_or(0, |(place, _)| place), shares.readers));
    rows.extend(pane.into_iter().take(shares.pane));
    rows.extend(lines::operations(figures.operations.iter(), shares.operations));
    rows
}

/// The same as text, as long as it needs to be: all channels, and the readers of each.
pub(super) fn text(figures: &Figures, control: &Control, status: &Status, width: u16, with_colour: bool) -> String {
    let at = figures.at;
    let channels = control.channels(figures);
    let mut rows = lines::header(figures, control, status, width);
    match channels.as_slice() {
        [] => rows.push(Row::new(NO_CHANNEL, None)),
        channels => rows.extend(tables::channels(channels, None, at, width)),
    }
    for channel in channels {
        rows.push(Row::default());
        rows.extend(lines::summary(channel, at, width));
        if !channel.readers.is_empty() {
            rows.extend(tables::readers(&control.readers(channel), None, at, width));
        }
    }
    let operations = lines::operations(figures.operations.iter(), OPERATIONS + 1);
    rows.extend(operations.first().map(|_| Row::default()));
    rows.extend(operations);
    // A buffer for each line, because a buffer has at most 65,535 lines, and all of them in memory.
    let line = |row: &Row| {
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, 1));
        row.put(&mut buffer, 0);
        ansi::lines(&buffer, with_colour)
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests;
