//! The size of the terminal, and text that fits it.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use crate::colour;
use terminal_size::{Height, Width, terminal_size_of};

/// Replaces the text that was cut off.
const ELLIPSIS: char = '\u{2026}';

/// Columns and rows of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

/// The size of the terminal, or `None` if `out` is not a terminal. The terminal is asked first, then `COLUMNS` and `LINES`;
/// otherwise the size is 80 by 24.
pub fn size(out: &(impl IsTerminal + AsFd)) -> Option<Size> {
    let variable = |name: &str| std::env::var(name).ok()?.parse().ok().filter(|n: &usize| *n > 0);
    out.is_terminal().then(|| match terminal_size_of(out) {
        Some((Width(columns), Height(rows))) => Size { columns: columns.into(), rows: rows.into() },
        None => Size { columns: variable("COLUMNS").unwrap_or(80), rows: variable("LINES").unwrap_or(24) },
    })
}

/// How text for people is to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// The width of the lines; `None` means no limit.
    pub(crate) columns: Option<usize>,
    pub(crate) colour: bool,
}

impl Page {
    /// For standard output.
    pub(crate) fn stdout() -> Self {
        let columns = stdout_columns();
        Page { columns, colour: colour::wanted(columns.is_some()) }
    }
}

/// The width for lines on standard output; `None` means no limit, because standard output is not a terminal.
pub(crate) fn stdout_columns() -> Option<usize> {
    size(&std::io::stdout()).map(|size| size.columns)
}

/// The columns that a text takes. The text must not contain control characters, except for colours.
pub(crate) fn columns(text: &str) -> usize {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default();
    let rest = parts.map(|part| part.split_once('m').map_or(part, |(_, text)| text));
    [first].into_iter().chain(rest).flat_map(str::chars).map(columns_of).sum()
}

/// East Asian characters and pictures take two columns, combining marks none.
fn columns_of(c: char) -> usize {
    match u32::from(c) {
        0x0300..=0x036f | 0x200b..=0x200f | 0x20d0..=0x20ff | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// The text if it fits into `most` columns, otherwise as much of its beginning as fits with an ellipsis.
pub fn shortened(text: &str, most: usize) -> String {
    if columns(text) <= most {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut left = most.saturating_sub(1);
    for c in text.chars() {
        match left.checked_sub(columns_of(c)) {
            Some(rest) => left = rest,
            None => break,
        }
        short.push(c);
    }
    if most > 0 {
        short.push(ELLIPSIS);
    }
    short
}

/// The text on as many lines of at most `most` columns as it needs. Lines are broken between words if possible; every line
/// but the first begins with `indent` blanks, and every line ends with a newline.
pub(crate) fn folded(text: &str, indent: usize, most: Option<usize>) -> String {
    let Some(most) = most.filter(|most| columns(text) > *most) else { return format!("{text}\n") };
    let indent = indent.min(most.saturating_sub(8));
    let (mut folded, mut line) = (String::new(), String::new());
    let mut used = 0;
    for word in text.split_inclusive(' ') {
        let needed = columns(word.trim_end());
        if used + needed > most && used > indent {
            folded += line.trim_end();
            folded.push('\n');
            line = " ".repeat(indent);
            used = indent;
        }
        for c in word.chars() {
            if used + columns_of(c) > most {
                if c == ' ' {
                    continue;
                }
                folded += line.trim_end();
                folded.push('\n');
                line = " ".repeat(indent);
                used = indent;
            }
            line.push(c);
            used += columns_of(c);
        }
    }
    folded += line.trim_end();
    folded.push('\n');
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_those_of_a_terminal() {
        assert_eq!(columns("abc"), 3);
        assert_eq!(columns("b\u{e4}ren"), 5);
        assert_eq!(columns("a\u{308}"), 1);
        assert_eq!(columns("\u{5171}\u{4eab}"), 4);
        assert_eq!(columns("a\x1b[31mbc\x1b[0md"), 4);
    }

    #[test]
    fn what_is_too_long_ends_with_an_ellipsis() {
        assert_eq!(shortened("camera", 6), "camera");
        assert_eq!(shortened("camera", 5), "came\u{2026}");
        assert_eq!(shortened("camera", 1), "\u{2026}");
        assert_eq!(shortened("camera", 0), "");
        // Half a character cannot be shown.
        assert_eq!(shortened("\u{5171}\u{4eab}\u{5185}", 4), "\u{5171}\u{2026}");
    }

    #[test]
    fn lines_are_broken_between_words_and_long_words_anywhere() {
        assert_eq!(folded("  source    a b c", 12, None), "  source    a b c\n");
        assert_eq!(folded("  source    one two three", 12, Some(20)), "  source    one two\n            three\n");
        assert_eq!(folded("  source    abcdefghijkl", 12, Some(20)), "  source    abcdefgh\n            ijkl\n");
        for most in 1..40 {
            let text = folded("  errors    3, the last: /a/very/long/path: no such file or directory", 12, Some(most));
            assert!(text.lines().all(|line| columns(line) <= most), "{most}: {text}");
            assert!(text.replace(char::is_whitespace, "").ends_with("nosuchfileordirectory"), "{most}: {text}");
        }
    }

    #[test]
    fn what_is_no_terminal_has_no_size() {
        let (reader, _writer) = std::io::pipe().unwrap();
        assert_eq!(size(&std::fs::File::from(std::os::fd::OwnedFd::from(reader))), None);
    }
}
