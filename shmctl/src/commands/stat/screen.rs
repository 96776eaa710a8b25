//! What `stat --watch` draws: never more than the screen holds.

use shm_proto::internal::control::stat::ChannelStat;

use crate::terminal::{Page, Size, columns, shortened};

/// As much as fits of what `stat` shows. The last line of the screen stays free for the cursor.
pub(super) fn render(channels: &[ChannelStat], size: Size, colour: bool) -> String {
    let rows = size.rows.saturating_sub(1).max(1);
    let text = super::shown(channels, Page { columns: Some(size.columns), colour });
    match channels {
        [channel] => cut(&text, rows, channel.readers.len(), "reader", size.columns),
        _ => cut(&text, rows, channels.len(), "channel", size.columns),
    }
}

/// The first lines of the text, and a line that says how many are missing. The last `last` lines are `what`s.
fn cut(text: &str, rows: usize, last: usize, what: &str, columns: usize) -> String {
    let lines = text.lines().count();
    if lines <= rows {
        return text.to_owned();
    }
    let missing = lines - (rows - 1);
    let what = if missing > last { "line" } else { what };
    let plural = if missing == 1 { "" } else { "s" };
    let rest = shortened(&format!("... and {missing} more {what}{plural}"), columns);
    text.lines().take(rows - 1).chain([rest.as_str()]).flat_map(|line| [line, "\n"]).collect()
}

/// The text from the terminal's upper left corner, with the rest of each line and of the screen cleared.
pub(super) fn redraw(text: &str, size: Size, whole: bool) -> String {
    let mut screen = String::from(if whole { "\x1b[2J\x1b[H" } else { "\x1b[H" });
    for line in text.lines() {
        // At the end of a full line, some terminals would clear the last character.
        let clear = if columns(line) < size.columns { "\x1b[K" } else { "" };
        screen.extend([line, clear, "\n"]);
    }
    screen + "\x1b[J"
}

#[cfg(test)]
mod tests {
    use shm_proto::internal::control::stat::{ReaderStat, ReaderState};

    use super::super::block::tests::stat;
    use super::*;

    const SCREEN: Size = Size { columns: 80, rows: 24 };

    fn channels(number: usize) -> Vec<ChannelStat> {
        let numbered = |n| {
            let mut stat = stat();
            stat.channel = format!("channel-{n}").parse().unwrap();
            stat
        };
        (0..number).map(numbered).collect()
    }

    #[test]
    fn a_redraw_leaves_nothing_of_the_last_one() {
        let size = Size { columns: 2, rows: 5 };
        assert_eq!(redraw("a\nbc\n", size, false), "\x1b[Ha\x1b[K\nbc\n\x1b[J");
        assert!(redraw("", size, true).starts_with("\x1b[2J"));
    }

    #[test]
    fn one_channel_has_its_block_and_several_have_a_line_each() {
        assert!(render(&channels(1), SCREEN, false).contains("  capacity  1MiB"));
        for number in 2..30 {
            let text = render(&channels(number), SCREEN, false);
            let lines: Vec<_> = text.lines().collect();
            assert!(lines.len() < 24 && lines.iter().all(|line| columns(line) <= 80), "{number}: {text}");
            let shown = (0..number).filter(|n| text.contains(&format!("channel-{n} "))).count();
            match number {
                ..23 => assert_eq!(shown, number, "{text}"),
                _ => assert!(shown == 21 && lines[22] == format!("... and {} more channels", number - 21), "{text}"),
            }
        }
    }

    #[test]
    fn of_many_readers_as_many_are_shown_as_fit() {
        let mut stat = stat();
        stat.readers = (1..=40)
            .map(|reader| {
                let mut reader =
                    ReaderStat::new(reader, 1000 + reader, "view".into(), "me".into(), ReaderState::Reading);
                (reader.received, reader.heartbeat_ms) = (1, 1);
                reader
            })
            .collect();
        let text = render(&[stat], SCREEN, false);
        assert_eq!(text.lines().count(), 23);
        assert!(text.ends_with("\n... and 32 more readers\n"), "{text}");
        assert!(text.contains(" 1008 ") && !text.contains(" 1009 "), "{text}");
    }

    #[test]
    fn the_smallest_screen_holds_something() {
        for rows in 1..4 {
            for most in 1..12 {
                let text = render(&channels(3), Size { columns: most, rows }, rows % 2 == 0);
                assert!(text.lines().count() < rows.max(2) && text.lines().all(|line| columns(line) <= most), "{text}");
            }
        }
    }
}
