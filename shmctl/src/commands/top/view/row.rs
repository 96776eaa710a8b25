//! A line of the view, and lines that are a table.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{RenderDirection, Sparkline, Widget};

use super::super::ansi::style;
use super::super::figures::History;
use crate::colour::Colour;
use crate::table::{Piece, Table};
use crate::terminal::columns;

/// The heading of the column that has a sparkline instead of text.
pub(super) const HISTORY: &str = "HISTORY";
/// The width of a sparkline in a table: at least, and at most.
const WIDTHS: [usize; 2] = [8, 60];
/// Columns before a table, with a mark at the chosen row.
const MARGIN: usize = 2;

/// Text, and perhaps a sparkline at one place in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    parts: Vec<(String, Option<Colour>)>,
    spark: Option<Spark>,
}

#[derive(Clone, Debug)]
struct Spark {
    at: usize,
    width: usize,
    /// The newest first. In thousandths, a rate below 1 differs from 0.
    thousandths: Vec<Option<u64>>,
}

impl Spark {
    fn new(at: usize, width: usize, history: &History) -> Self {
        let point = |rate: Option<f64>| rate.map(|rate| (rate * 1000.0) as u64);
        Spark { at, width, thousandths: history.newest_first().take(width).map(point).collect() }
    }
}

impl Row {
    pub(super) fn new(text: impl Into<String>, colour: Option<Colour>) -> Self {
        Row { parts: vec![(text.into(), colour)], spark: None }
    }

    /// The text, and the history in the rest of the line.
    pub(super) fn with_history(text: String, history: &History, width: u16) -> Self {
        let at = columns(&text);
        let left = usize::from(width).saturating_sub(at).min(WIDTHS[1]);
        Row { spark: Some(Spark::new(at, left, history)), ..Row::new(text, None) }
    }

    /// A row of a table.
    fn of(pieces: Vec<Piece<'_>>, mark: &str, colour: Option<Colour>, history: Option<&History>) -> Self {
        let mut row = Row::new(mark, colour);
        let mut at = columns(mark);
        for piece in pieces {
            let width = columns(&piece.text);
            if piece.heading == Some(HISTORY) {
                row.spark = history.map(|history| Spark::new(at, width, history));
            }
            at += width;
            row.parts.push((piece.text, piece.colour.or(colour)));
        }
        row
    }

    /// Puts it into a line of the buffer, as much as fits.
    pub(super) fn put(&self, buffer: &mut Buffer, y: u16) {
        let area = buffer.area;
        if y >= area.bottom() {
            return;
        }
        let spans = self.parts.iter().map(|(text, colour)| Span::styled(text.as_str(), style(*colour)));
        buffer.set_line(area.left(), y, &Line::from_iter(spans), area.width);
        if let Some(Spark { at, width, thousandths }) = &self.spark {
            let limited = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
            let place = Rect::new(area.left().saturating_add(limited(*at)), y, limited(*width), 1).intersection(area);
            let spark = Sparkline::default().data(thousandths).direction(RenderDirection::RightToLeft);
            spark.render(place, buffer);
        }
    }
}

/// The headings and the rows of a table that is made with a given width of the histories. What room is left is theirs.
pub(super) fn table(
    make: impl Fn(usize) -> Table,
    histories: &[&History],
    chosen: Option<usize>,
    width: u16,
) -> Vec<Row> {
    let [least, most] = WIDTHS;
    let room = usize::from(width).saturating_sub(MARGIN);
    let table = make((least + room.saturating_sub(make(least).width())).min(most));
    let rows = table.lines(Some(room)).into_iter().enumerate();
    rows.map(|(number, pieces)| match number.checked_sub(1) {
        None => Row::of(pieces, "  ", Some(Colour::Bold), None),
        Some(place) if chosen == Some(place) => Row::of(pieces, "> ", Some(Colour::Bold), Some(histories[place])),
        Some(place) => Row::of(pieces, "  ", None, Some(histories[place])),
    })
    .collect()
}

/// As many rows of a table as fit, with the headings and the chosen row, and a line about the others.
pub(super) fn window(mut rows: Vec<Row>, chosen: usize, height: usize) -> Vec<Row> {
    let (count, space) = (rows.len().saturating_sub(1), height.saturating_sub(1));
    if count <= space {
        return rows;
    }
    let says_more = space >= 3;
    let visible = space - usize::from(says_more);
    let above = (chosen + 1).saturating_sub(visible).min(count - visible);
    let below = count - visible - above;
    rows.drain(1..=above);
    rows.truncate(1 + visible);
    if says_more {
        rows.push(Row::new(format!("  ... {above} more above, {below} below"), None));
    }
    rows.truncate(height);
    rows
}

#[cfg(test)]
mod tests {
    use super::super::super::ansi::lines;
    use super::*;

    fn text(rows: &[Row]) -> String {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 40, u16::try_from(rows.len()).unwrap()));
        for (y, row) in (0..).zip(rows) {
            row.put(&mut buffer, y);
        }
        lines(&buffer, false)
    }

    #[test]
    fn the_chosen_row_is_always_in_the_window() {
        let rows: Vec<_> = (0..=30).map(|n| Row::new(format!("row {n};"), None)).collect();
        for height in 1..40 {
            for chosen in 0..30 {
                let window = window(rows.clone(), chosen, height);
                let shown = text(&window);
                assert!(window.len() <= height && shown.starts_with("row 0;\n"), "{height} {chosen}: {shown}");
                assert!(height == 1 || shown.contains(&format!("row {};", chosen + 1)), "{height} {chosen}: {shown}");
            }
        }
        assert_eq!(text(&window(rows.clone(), 0, 5)), "row 0;\nrow 1;\nrow 2;\nrow 3;\n  ... 0 more above, 27 below\n");
        assert_eq!(text(&window(rows, 29, 4)), "row 0;\nrow 29;\nrow 30;\n  ... 28 more above, 0 below\n");
    }
}
