//! A line for each channel.

use shm_proto::internal::control::stat::ChannelStat;

use crate::colour::Colour;
use crate::condition::{Condition, colour_of};
use crate::human::{bytes, bytes_per_second, count, per_second, percent, printable};
use crate::table::{Align, Table};
use crate::terminal::Page;

/// The columns that matter least are left out on a narrow page.
pub(super) fn render(channels: &[ChannelStat], page: Page) -> String {
    let mut table = Table::new(&[
        ("CHANNEL", Align::Left),
        ("STATE", Align::Left),
        ("CAPACITY", Align::Right),
        ("USED", Align::Right),
        ("MESSAGES", Align::Right),
        ("BYTES", Align::Right),
        ("READERS", Align::Right),
        ("LAG", Align::Right),
        ("WRITER", Align::Left),
    ])
    .shortening(&["CHANNEL", "WRITER"])
    .leaving_out(&["WRITER", "CAPACITY", "BYTES", "READERS"]);
    if page.colour {
        table = table.painting(paint);
    }
    for stat in channels {
        table.row([
            stat.channel.to_string(),
            Condition::of(stat).word().to_owned(),
            bytes(stat.capacity),
            percent(stat.used, stat.capacity),
            per_second(stat.messages_per_s),
            bytes_per_second(stat.bytes_per_s),
            stat.readers.len().to_string(),
            count(stat.readers.iter().map(|reader| reader.lag_messages).max().unwrap_or(0)),
            stat.writer.as_ref().map_or_else(|| "none".to_owned(), |writer| printable(&writer.program)),
        ]);
    }
    table.render("", page.columns)
}

fn paint(heading: &str, cell: &str) -> Option<Colour> {
    (heading == "STATE").then(|| colour_of(cell)).flatten()
}

#[cfg(test)]
mod tests {
    use shm_proto::internal::control::stat::{WriterRole, WriterStat};

    use super::super::block::tests::stat;
    use super::*;

    #[test]
    fn a_channel_is_a_line_that_fits_80_columns() {
        let (mut full, fine) = (stat(), stat());
        full.used = full.capacity;
        full.channel = "camera".parse().unwrap();
        full.writer = Some(WriterStat::new(WriterRole::Lent, 4711, "camd".into(), "video".into()));
        let text = render(&[full.clone(), fine], Page { columns: Some(80), colour: false });
        assert_eq!(
            text,
            "\
CHANNEL  STATE  CAPACITY  USED  MESSAGES     BYTES  READERS  LAG  WRITER
camera   full       1MiB  100%   12.3k/s  1.5MiB/s        0    0  camd
cam      ok         1MiB   50%   12.3k/s  1.5MiB/s        0    0  none
"
        );
        let text = render(&[full], Page { columns: None, colour: true });
        assert!(text.contains("camera   \x1b[31mfull\x1b[0m  "), "{text}");
    }
}
