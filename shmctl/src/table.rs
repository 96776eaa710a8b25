//! Tables for people, no wider than the terminal.

use crate::colour::Colour;
use crate::terminal::{columns, shortened};

/// How a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A cell is never shortened to less than this.
const SHORTEST: usize = 8;
/// Blanks between two columns.
const GAP: usize = 2;

/// Rows under a heading, each column as wide as its widest cell if there is room for that.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Align>,
    rows: Vec<Vec<String>>,
    /// Headings of the columns whose cells may be shortened.
    shorten: &'static [&'static str],
    /// Headings of the columns that may be left out, the least important first.
    leave_out: &'static [&'static str],
    /// The colour of a cell under a heading.
    paint: Paint,
}

/// The colour of a cell, from the heading of its column and its text.
pub(crate) type Paint = fn(&str, &str) -> Option<Colour>;

/// A part of a line: a cell, or the blanks beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece<'t> {
    /// The heading of the cell's column; none for blanks.
    pub(crate) heading: Option<&'t str>,
    pub(crate) text: String,
    pub(crate) colour: Option<Colour>,
}

impl Piece<'_> {
    fn blanks(columns: usize) -> Self {
        Piece { heading: None, text: " ".repeat(columns), colour: None }
    }
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(columns: &[(&str, Align)]) -> Self {
        Table {
            columns: columns.iter().map(|(_, align)| *align).collect(),
            rows: vec![columns.iter().map(|(heading, _)| (*heading).to_owned()).collect()],
            shorten: &[],
            leave_out: &[],
            paint: |_, _| None,
        }
    }

    /// If the table is too wide, cells under these headings are shortened, the widest first.
    pub(crate) fn shortening(self, shorten: &'static [&'static str]) -> Self {
        Table { shorten, ..self }
    }

    /// If that does not suffice, columns with these headings are left out, in this order.
    pub(crate) fn leaving_out(self, leave_out: &'static [&'static str]) -> Self {
        Table { leave_out, ..self }
    }

    /// Cells get colours.
    pub(crate) fn painting(self, paint: Paint) -> Self {
        Table { paint, ..self }
    }

    /// Adds a row with a cell for every column.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<String>>) {
        let cells = cells.into();
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// The table, every line after `indent` and without blanks at its end, and no wider than `most` columns.
    pub(crate) fn render(&self, indent: &str, most: Option<usize>) -> String {
        let mut text = String::new();
        for pieces in self.lines(most.map(|most| most.saturating_sub(columns(indent)))) {
            let mut colours = Vec::new();
            let mut line = indent.to_owned();
            for piece in pieces {
                let place = line.len();
                line += &piece.text;
                colours.extend(piece.colour.map(|colour| (place, piece.text, colour)));
            }
            let line = line.trim_end();
            // In a terminal of a few columns only cutting the line helps.
            let mut line = most.map_or_else(|| line.to_owned(), |most| shortened(line, most));
            // From the end, so that the places of the others stay.
            for (place, cell, colour) in colours.into_iter().rev() {
                if line.get(place..).is_some_and(|rest| rest.starts_with(&cell)) {
                    line.replace_range(place..place + cell.len(), &colour.paint(&cell));
                }
            }
            text += &line;
            text.push('\n');
        }
        text
    }

    /// The columns that the whole table takes.
    pub(crate) fn width(&self) -> usize {
        total(&self.fit(None))
    }

    /// The headings and the rows, each as pieces from left to right: the cells of the columns for which there is room in `most`
    /// columns, and the blanks between them.
    pub(crate) fn lines(&self, most: Option<usize>) -> Vec<Vec<Piece<'_>>> {
        let fitted = self.fit(most);
        let line = |number: usize, row: &[String]| {
            let mut line = Vec::new();
            for &(column, width) in &fitted {
                let heading = self.rows[0][column].as_str();
                let text = shortened(&row[column], width);
                let blanks = Piece::blanks(width - columns(&text));
                let colour = if number > 0 { (self.paint)(heading, &row[column]) } else { None };
                let cell = Piece { heading: Some(heading), text, colour };
                match self.columns[column] {
                    Align::Left => line.extend([cell, blanks]),
                    Align::Right => line.extend([blanks, cell]),
                }
                line.push(Piece::blanks(GAP));
            }
            line
        };
        self.rows.iter().enumerate().map(|(number, row)| line(number, row)).collect()
    }

    /// The columns to be shown, by number, with their widths.
    fn fit(&self, most: Option<usize>) -> Vec<(usize, usize)> {
        let width = |column: usize| self.rows.iter().map(|row| columns(&row[column])).max().unwrap_or(0);
        let mut all: Vec<(usize, usize)> = (0..self.columns.len()).map(|column| (column, width(column))).collect();
        let Some(most) = most else { return all };
        let heading = |column: usize| self.rows[0][column].as_str();
        for left_out in [""].iter().chain(self.leave_out) {
            all.retain(|(column, _)| heading(*column) != *left_out);
            let mut fitted = all.clone();
            while let Some(over) = (total(&fitted)).checked_sub(most).filter(|over| *over > 0) {
                // One column at a time, from the widest cell, so that all shortened columns end up similarly wide.
                let may = fitted.iter_mut().filter(|(column, width)| self.may_shrink(*column, *width));
                let Some((_, widest)) = may.max_by_key(|(_, width)| *width) else { break };
                *widest -= over.min(1);
            }
            if total(&fitted) <= most {
                return fitted;
            }
        }
        all
    }

    fn may_shrink(&self, column: usize, width: usize) -> bool {
        let heading = self.rows[0][column].as_str();
        self.shorten.contains(&heading) && width > SHORTEST.max(columns(heading))
    }
}

fn total(fitted: &[(usize, usize)]) -> usize {
    fitted.iter().map(|(_, width)| width).sum::<usize>() + GAP * fitted.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let columns = [("NAME", Align::Left), ("PROGRAM", Align::Left), ("SIZE", Align::Right), ("AGE", Align::Right)];
        let mut table = Table::new(&columns).shortening(&["PROGRAM"]).leaving_out(&["AGE", "SIZE"]);
        table.row(["a".into(), "a-very-long-program".into(), "1MiB".into(), "2s".into()]);
        table.row(["b\u{e4}renh\u{f6}hle".into(), "x".into(), "7".into(), "400ms".into()]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_without_blanks() {
        let mut table = Table::new(&[("NAME", Align::Left), ("SIZE", Align::Right), ("WHO", Align::Left)]);
        table.row(["a".into(), "1MiB".into(), "me".into()]);
        table.row(["b\u{e4}renh\u{f6}hle".into(), "7".into(), String::new()]);
        assert_eq!(
            table.render("  ", None),
            "  NAME        SIZE  WHO\n  a           1MiB  me\n  b\u{e4}renh\u{f6}hle     7\n"
        );
    }

    #[test]
    fn cells_are_shortened_before_columns_are_left_out() {
        let wide = "NAME        PROGRAM              SIZE    AGE\na           a-very-long-program  1MiB     2s\n";
        assert!(table().render("", Some(44)).starts_with(wide), "{}", table().render("", Some(44)));
        assert_eq!(
            table().render("", Some(35)),
            "NAME        PROGRAM     SIZE    AGE\n\
             a           a-very-lo\u{2026}  1MiB     2s\n\
             b\u{e4}renh\u{f6}hle  x              7  400ms\n"
        );
        assert_eq!(
            table().render("", Some(30)),
            "NAME        PROGRAM       SIZE\n\
             a           a-very-long\u{2026}  1MiB\n\
             b\u{e4}renh\u{f6}hle  x                7\n"
        );
        assert_eq!(table().render("", Some(20)).lines().nth(1), Some("a           a-very-\u{2026}"));
    }

    #[test]
    fn colours_change_nothing_but_the_cells_that_they_are_for() {
        let paint: Paint = |heading, cell| (heading == "SIZE" && cell == "7").then_some(Colour::Red);
        for most in (1..60).map(Some).chain([None]) {
            let (plain, painted) = (table().render(" ", most), table().painting(paint).render(" ", most));
            assert_eq!(painted.replace("\x1b[31m", "").replace("\x1b[0m", ""), plain, "{most:?}");
        }
        assert!(table().painting(paint).render("", None).contains("  \x1b[31m7\x1b[0m  "));
    }

    #[test]
    fn no_line_is_longer_than_there_is_room_for() {
        for most in 1..60 {
            let text = table().render("    ", Some(most));
            assert!(text.lines().all(|line| columns(line) <= most), "{most}: {text}");
            assert_eq!(text.lines().count(), 3);
        }
    }
}
