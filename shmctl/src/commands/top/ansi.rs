//! Buffers as text: on a terminal, where only what has changed is drawn, and as lines.
//!
//! This is a backend of our own because ratatui's others read keys and catch signals by event sources of their own, which do not
//! stand in this program's poll loop (crossterm brings mio, a lock and a second version of signal-hook for that), and because the
//! program has the rest: single keys (`keyboard`), the size (`terminal`), and colours that obey NO_COLOR (`colour`).

use std::io::{self, Write};
use std::mem::take;

use ratatui::backend::{Backend, ClearType, WindowSize};
use ratatui::buffer::{Buffer, Cell, CellWidth};
use ratatui::layout;
use ratatui::style::{Color, Modifier, Style};

use crate::colour::Colour;
use crate::terminal::Size;

/// How a colour is kept in a buffer.
pub(super) fn style(colour: Option<Colour>) -> Style {
    match colour {
        None => Style::new(),
        Some(Colour::Red) => Style::new().fg(Color::Red),
        Some(Colour::Yellow) => Style::new().fg(Color::Yellow),
        Some(Colour::Bold) => Style::new().add_modifier(Modifier::BOLD),
        Some(Colour::BoldRed) => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
    }
}

/// The way back from [`style`].
fn colour(cell: &Cell) -> Option<Colour> {
    match (cell.fg, cell.modifier.contains(Modifier::BOLD)) {
        (Color::Red, true) => Some(Colour::BoldRed),
        (Color::Red, false) => Some(Colour::Red),
        (Color::Yellow, _) => Some(Colour::Yellow),
        (_, true) => Some(Colour::Bold),
        _ => None,
    }
}

/// Text in which cells of one colour stand together between the codes of the colour.
#[derive(Debug, Default)]
struct Painter {
    text: String,
    run: String,
    colour: Option<Colour>,
}

impl Painter {
    fn put(&mut self, symbol: &str, colour: Option<Colour>) {
        if colour != self.colour {
            self.end_run();
            self.colour = colour;
        }
        self.run.push_str(symbol);
    }

    /// What has no colour.
    fn put_code(&mut self, code: &str) {
        self.end_run();
        self.text.push_str(code);
    }

    fn end_run(&mut self) {
        let run = take(&mut self.run);
        match self.colour.filter(|_| !run.is_empty()) {
            Some(colour) => self.text += &colour.paint(&run),
            None => self.text += &run,
        }
    }

    fn take(&mut self) -> String {
        self.end_run();
        take(&mut self.text)
    }
}

/// The buffer's lines, without blanks at their ends.
pub(super) fn lines(buffer: &Buffer, with_colour: bool) -> String {
    let area = buffer.area;
    let mut painter = Painter::default();
    for y in area.top()..area.bottom() {
        let is_filled = |x: &u16| buffer[(*x, y)].symbol() != " ";
        let end = (area.left()..area.right()).rev().find(is_filled).map_or(area.left(), |x| x + 1);
        let mut x = area.left();
        while x < end {
            let cell = &buffer[(x, y)];
            painter.put(cell.symbol(), colour(cell).filter(|_| with_colour));
            // The rest of a wide character is in the cells behind it.
            x += cell.cell_width().max(1);
        }
        painter.put_code("\n");
    }
    painter.take()
}

/// A terminal that understands ANSI sequences. Each frame is written at once.
#[derive(Debug)]
pub(super) struct Ansi<W> {
    out: W,
    size: fn() -> Size,
    with_colour: bool,
    painter: Painter,
}

impl<W: Write> Ansi<W> {
    /// `size` is asked for each frame.
    pub(super) fn new(out: W, size: fn() -> Size, with_colour: bool) -> Self {
        Ansi { out, size, with_colour, painter: Painter::default() }
    }
}

impl<W: Write> Backend for Ansi<W> {
    type Error = io::Error;

    fn draw<'a, I: Iterator<Item = (u16, u16, &'a Cell)>>(&mut self, content: I) -> io::Result<()> {
        let mut next = None;
        for (x, y, cell) in content {
            if next != Some((x, y)) {
                self.painter.put_code(&format!("\x1b[{};{}H", y + 1, x + 1));
            }
            self.painter.put(cell.symbol(), colour(cell).filter(|_| self.with_colour));
            // What follows a wide character is never the next cell, and the cursor is moved there.
            next = Some((x + 1, y));
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(self.painter.take().as_bytes())?;
        self.out.flush()
    }

    fn size(&self) -> io::Result<layout::Size> {
        let Size { columns, rows } = (self.size)();
        let limited = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        Ok(layout::Size::new(limited(columns), limited(rows)))
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize { columns_rows: self.size()?, pixels: layout::Size::ZERO })
    }

    fn clear(&mut self) -> io::Result<()> {
        self.painter.put_code("\x1b[2J");
        Ok(())
    }

    fn clear_region(&mut self, region: ClearType) -> io::Result<()> {
        match region {
            ClearType::All => self.clear(),
            _ => Err(io::Error::other("a view of the whole screen clears the whole screen")),
        }
    }

    // The cursor stays hidden for as long as the view is on the screen: `screen` sees to that.

    fn hide_cursor(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn get_cursor_position(&mut self) -> io::Result<layout::Position> {
        Ok(layout::Position::ORIGIN)
    }

    fn set_cursor_position<P: Into<layout::Position>>(&mut self, _: P) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::layout::Rect;

    use super::*;

    #[test]
    fn a_colour_survives_in_a_buffer() {
        for kept in [None, Some(Colour::Red), Some(Colour::Yellow), Some(Colour::Bold), Some(Colour::BoldRed)] {
            let mut cell = Cell::EMPTY;
            cell.set_style(style(kept));
            assert_eq!(colour(&cell), kept);
        }
    }

    #[test]
    fn lines_have_no_blanks_at_their_ends_and_codes_only_if_wanted() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 12, 3));
        buffer.set_string(0, 0, "a full b", Style::new());
        buffer.set_string(2, 0, "full", style(Some(Colour::Red)));
        buffer.set_string(0, 2, "\u{5171}\u{4eab} c", Style::new());
        assert_eq!(lines(&buffer, false), "a full b\n\n\u{5171}\u{4eab} c\n");
        assert_eq!(lines(&buffer, true), "a \x1b[31mfull\x1b[0m b\n\n\u{5171}\u{4eab} c\n");
    }

    /// What a terminal of 8 by 2 gets for two frames.
    fn frames(with_colour: bool, texts: [&str; 2]) -> [String; 2] {
        let backend = Ansi::new(Vec::new(), || Size { columns: 8, rows: 2 }, with_colour);
        let mut terminal = Terminal::new(backend).unwrap();
        texts.map(|text| {
            terminal.draw(|frame| frame.buffer_mut().set_string(1, 1, text, style(Some(Colour::Yellow)))).unwrap();
            String::from_utf8(take(&mut terminal.backend_mut().out)).unwrap()
        })
    }

    #[test]
    fn only_what_has_changed_is_drawn() {
        assert_eq!(frames(true, ["full", "fall"]), ["\x1b[2;2H\x1b[33mfull\x1b[0m", "\x1b[2;3H\x1b[33ma\x1b[0m"]);
        assert_eq!(frames(false, ["full", "full"]), ["\x1b[2;2Hfull", ""]);
        // After each wide character the cursor is moved, however wide the terminal takes it for.
        assert_eq!(frames(false, ["\u{5171}\u{4eab}", "x"])[0], "\x1b[2;2H\u{5171}\x1b[2;4H\u{4eab}");
    }

    #[test]
    fn a_cleared_screen_is_drawn_whole() {
        let backend = Ansi::new(Vec::new(), || Size { columns: 8, rows: 2 }, false);
        let mut terminal = Terminal::new(backend).unwrap();
        for _ in 0..2 {
            terminal.clear().unwrap();
            terminal.draw(|frame| frame.buffer_mut().set_string(0, 0, "ab", Style::new())).unwrap();
            let drawn = String::from_utf8(take(&mut terminal.backend_mut().out)).unwrap();
            assert_eq!(drawn, "\x1b[2J\x1b[1;1Hab");
        }
    }
}
