//! A channel's figures for people.

use shm_proto::internal::control::stat::{ChannelStat, Latency, ReaderStat, SourceState};
use shm_proto::{Bytes, Content};

use crate::colour::Colour;
use crate::condition::{colour_of, is_full};
use crate::human::{
    age, bytes, bytes_in_words, bytes_per_second, count, counted, nanos, per_second, percent, printable, utc,
};
use crate::readers::{IDENTITY, identity, unusual_wait};
use crate::table::{Align, Table};
use crate::terminal::{Page, folded};

/// The column where the text of a line begins.
const INDENT: usize = 12;

/// A heading, a line for each subject, and a table of the readers.
pub(super) fn render(stat: &ChannelStat, page: Page) -> String {
    let columns = page.columns;
    let heading = format!("{}  {}, on full: {}", stat.channel, printable(&stat.mode), printable(&stat.on_full));
    let mut text = folded(&heading, 2, columns);
    let mut line = |what: &str, words: String| {
        let lines = folded(&format!("  {what:<10}{words}"), INDENT, columns);
        match colour_of_line(stat, what).filter(|_| page.colour) {
            Some(colour) => text.extend(lines.lines().map(|line| colour.paint(line) + "\n")),
            None => text += &lines,
        }
    };
    if let Some(created) = &stat.created {
        let kept = if created.kept { "kept when the daemon is stopped" } else { "until the daemon is stopped" };
        line("created", format!("by {} at {}, {kept}", printable(&created.user), utc(created.time_ms)));
    }
    if let Some(content) = &stat.content {
        line("content", declared(content));
    }
    let pending = stat.pending.map(|size| format!(", {} pending", bytes(size))).unwrap_or_default();
    line("capacity", format!("{} (min {}, max {}){pending}", bytes(stat.capacity), bytes(stat.min), bytes(stat.max)));
    let used = format!("{} ({})", bytes(stat.used), percent(stat.used, stat.capacity));
    line("used", format!("{used}, {} retained, {} reserved", bytes(stat.retained), bytes(stat.reserved)));
    line("memory", format!("{} of {} in all channels", bytes(stat.memory), bytes(stat.memory_total)));
    let (minute, hour) = (&stat.last_minute, &stat.last_hour);
    let rates = [stat.messages_per_s, minute.messages_per_s, hour.messages_per_s].map(per_second);
    line("messages", format!("{}, {}", count(stat.messages), over_time(rates)));
    let rates = [stat.bytes_per_s, minute.bytes_per_s, hour.bytes_per_s].map(bytes_per_second);
    line("bytes", format!("{}, {}", bytes(stat.bytes), over_time(rates)));
    line("limits", format!("messages to {}, aligned to {}", Bytes(stat.max_message), Bytes(stat.align.into())));
    let (dropped, overwritten) = (count(stat.dropped), count(stat.overwritten));
    line("lost", format!("{dropped} dropped, {overwritten} overwritten"));
    let (resizes, evictions) = (counted(stat.resizes, "resize", "s"), counted(stat.evicted, "eviction", "s"));
    line("events", format!("{resizes}, {evictions}"));
    line("source", printable(&stat.source));
    if let Some(input) = &stat.input {
        let messages = counted(input.messages, "message", "s");
        let read = bytes_in_words(input.bytes);
        line("input", format!("{}; {messages}, {read} read", printable(&input.state)));
        if let Some(last) = &input.last_error {
            line("errors", format!("{}, the last: {}", count(input.errors), printable(last)));
        }
    }
    line(
        "writer",
        match &stat.writer {
            None => "none".to_owned(),
            Some(writer) => format!(
                "{} (pid {}, {}), {}, {}, seen {} ago",
                printable(&writer.program),
                writer.pid,
                printable(&writer.user),
                printable(&writer.role),
                printable(&writer.state),
                age(writer.heartbeat_ms)
            ),
        },
    );
    line("segment", format!("/dev/shm/{}", printable(stat.segment.trim_start_matches('/'))));
    if let Some(handoff) = &stat.handoff {
        let objects = &handoff.objects;
        line("objects", format!("avail {}, done {}", printable(&objects.avail), printable(&objects.done)));
        let since = handoff.on_offer_ms.map(|ms| format!(", for {}", age(ms))).unwrap_or_default();
        let stalled = if handoff.stalled { ", stalled" } else { "" };
        let on_offer = match handoff.on_offer {
            None => "nothing".to_owned(),
            Some(len) => format!("a message of {}{since}{stalled}", bytes(len)),
        };
        let last = handoff.last_ack_ms.map(|ms| format!("; last acknowledgement {} ago", age(ms))).unwrap_or_default();
        line("on offer", on_offer + &last);
        line(
            "peers",
            format!(
                "{} offered again, {}; mutex {} recovered, {} repaired",
                count(handoff.offered_again),
                counted(handoff.stray_posts, "stray post", "s"),
                count(handoff.recovered),
                count(handoff.repaired)
            ),
        );
    }
    line("readers", format!("{} of {}", stat.readers.len(), stat.max_readers));
    if !stat.readers.is_empty() {
        let table = readers(&stat.readers, stat.handoff.is_none());
        let table = if page.colour { table.painting(paint) } else { table };
        text.push_str(&table.render("    ", columns));
    }
    let mut what = "status";
    for reader in stat.readers.iter().filter(|reader| !reader.status.is_empty()) {
        let said = format!("  {what:<10}reader {}: {}", reader.reader, printable(&reader.status));
        text += &folded(&said, INDENT, columns);
        what = "";
    }
    if stat.timestamps && !stat.readers.is_empty() {
        text += &folded("  latency   from publishing to receiving, since each reader attached", INDENT, columns);
        text.push_str(&latencies(&stat.readers).render("    ", columns));
    }
    text
}

/// What messages are, and whether the text of their schema can be asked for.
fn declared(content: &Content) -> String {
    let shown = printable(content);
    match &content.schema {
        Some(schema) if schema.bytes > 0 => {
            let language = if schema.encoding.is_empty() { "schema" } else { &schema.encoding };
            format!("{shown}, {} of {}", bytes_in_words(schema.bytes), printable(language))
        }
        _ => shown,
    }
}

/// In a channel with publish times: how old what is unread is, and how long what was read took.
fn latencies(readers: &[ReaderStat]) -> Table {
    let headings = ["READER", "OLDEST UNREAD", "MESSAGES", "P50", "P90", "P99", "MAX"];
    let mut table =
        Table::new(&headings.map(|heading| (heading, Align::Right))).leaving_out(&["MESSAGES", "MAX", "P90"]);
    for reader in readers {
        let oldest = reader.oldest_unread_ns.map_or_else(|| "-".to_owned(), nanos);
        let part =
            |of: fn(&Latency) -> u64| reader.latency.as_ref().map_or_else(|| "-".to_owned(), |all| nanos(of(all)));
        table.row([
            reader.reader.to_string(),
            oldest,
            count(reader.latency.map_or(0, |all| all.messages)),
            part(|all| all.p50_ns),
            part(|all| all.p90_ns),
            part(|all| all.p99_ns),
            part(|all| all.max_ns),
        ]);
    }
    table
}

/// The colour of the line with this first word.
fn colour_of_line(stat: &ChannelStat, what: &str) -> Option<Colour> {
    match what {
        "used" if is_full(stat) => colour_of("full"),
        "input" => match stat.input.as_ref()?.state {
            SourceState::Failed => colour_of("failed"),
            SourceState::Retrying => colour_of("retrying"),
            _ => None,
        },
        "writer" => colour_of(stat.writer.as_ref()?.state.as_str()),
        "on offer" if stat.handoff.as_ref()?.stalled => colour_of("stalled"),
        _ => None,
    }
}

fn paint(heading: &str, cell: &str) -> Option<Colour> {
    (heading == "STATE").then(|| colour_of(cell)).flatten()
}

fn over_time([second, minute, hour]: [String; 3]) -> String {
    format!("{second} (last minute {minute}, last hour {hour})")
}

/// What it does, and how it waits if that was asked for.
fn state(reader: &ReaderStat, asks: bool) -> String {
    let state = printable(&reader.state);
    match unusual_wait(reader).filter(|_| asks) {
        Some(wait) => format!("{state}, {wait}"),
        None => state,
    }
}

/// Readers of a ring are `asks`ed how they wait; those of a handoff always sleep.
fn readers(readers: &[ReaderStat], asks: bool) -> Table {
    let figures = ["LAG", "LAG BYTES", "RECEIVED", "LOST", "SEEN"].map(|heading| (heading, Align::Right));
    let mut table = Table::new(&[&IDENTITY[..], &[("STATE", Align::Left)], &figures].concat())
        .shortening(&["PROGRAM", "USER"])
        .leaving_out(&["RECEIVED", "SEEN", "LOST", "PID", "USER"]);
    for reader in readers {
        let figures = [
            state(reader, asks),
            count(reader.lag_messages),
            bytes(reader.lag_bytes),
            count(reader.received),
            count(reader.lost),
            age(reader.heartbeat_ms),
        ];
        table.row([&identity(reader)[..], &figures].concat());
    }
    table
}

#[cfg(test)]
pub(super) mod tests {
    use shm_proto::internal::control::stat::{
        CreatedBy, Mode, Rate, ReaderState, SourceKind, SourceStat, WriterRole, WriterStat, WriterState,
    };

    use super::*;

    pub(in super::super) fn stat() -> ChannelStat {
        let mut stat = ChannelStat::new("cam".parse().unwrap(), Mode::Ring, "/shmd.cam".into());
        (stat.capacity, stat.min, stat.max) = (1 << 20, 64 << 10, 256 << 20);
        stat.reserved = 1 << 20;
        (stat.memory, stat.memory_total) = ((1 << 20) + 4096, 3 << 20);
        (stat.used, stat.retained) = (512 << 10, 1 << 20);
        (stat.max_message, stat.align) = (64 << 20, 8);
        (stat.messages, stat.bytes) = (1_234_567, 3 << 30);
        (stat.messages_per_s, stat.bytes_per_s) = (12_345.0, 1.5 * 1024.0 * 1024.0);
        stat.last_minute = Rate::new(1000.0, 1024.0);
        (stat.overwritten, stat.resizes, stat.evicted) = (7, 2, 1);
        (stat.max_readers, stat.stalled_after_ms) = (64, 5000);
        stat.source = "none".into();
        stat
    }

    #[test]
    fn a_channel_without_anybody_is_a_short_block() {
        assert_eq!(
            render(&stat(), Page::default()),
            "\
cam  ring, on full: block
  capacity  1MiB (min 64KiB, max 256MiB)
  used      512KiB (50%), 1MiB retained, 1MiB reserved
  memory    1MiB of 3MiB in all channels
  messages  1,234,567, 12.3k/s (last minute 1k/s, last hour 0/s)
  bytes     3GiB, 1.5MiB/s (last minute 1KiB/s, last hour 0/s)
  limits    messages to 64MiB, aligned to 8
  lost      0 dropped, 7 overwritten
  events    2 resizes, 1 eviction
  source    none
  writer    none
  segment   /dev/shm/shmd.cam
  readers   0 of 64
"
        );
    }

    #[test]
    fn a_channel_that_a_user_has_made_is_shown_with_the_user() {
        let mut stat = stat();
        stat.created = Some(CreatedBy::new("alice".into(), 1_700_000_000_123, true));
        let text = render(&stat, Page::default());
        let line = "  created   by alice at 2023-11-14T22:13:20.123Z, kept when the daemon is stopped\n  capacity";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn what_messages_are_is_shown_if_it_is_declared() {
        let mut stat = stat();
        for (content, shown) in [
            (r#"{"encoding":"json"}"#, "json"),
            (r#"{"encoding":"cdr","schema":{"name":"a/b"}}"#, "cdr:a/b"),
            (r#"{"encoding":"p","schema":{"name":"F","encoding":"protobuf","bytes":2048}}"#, "p:F, 2KiB of protobuf"),
            (r#"{"encoding":"p","schema":{"name":"F","bytes":1}}"#, "p:F, 1 byte of schema"),
        ] {
            stat.content = Some(serde_json::from_str(content).unwrap());
            let text = render(&stat, Page::default());
            assert!(text.contains(&format!("  content   {shown}\n  capacity")), "{text}");
        }
    }

    #[test]
    fn a_source_is_shown_with_what_it_does_and_what_went_wrong_last() {
        let mut stat = stat();
        stat.source = "exec:camd --raw".into();
        let state = SourceState::Restarting { seconds: 2 };
        let mut input = SourceStat::new(SourceKind::Exec, Some("camd --raw".into()), state);
        (input.bytes, input.messages) = (2048, 1234);
        stat.input = Some(input.clone());
        let text = render(&stat, Page::default());
        assert!(text.contains(
            "  source    exec:camd --raw\n  input     restarting in 2s; 1,234 messages, 2KiB read\n  writer"
        ));
        (input.errors, input.last_error) = (2, Some("no\x1b[2J".into()));
        stat.input = Some(input);
        let text = render(&stat, Page::default());
        assert!(text.contains("2KiB read\n  errors    2, the last: no\\u{1b}[2J\n"), "{text}");
    }

    #[test]
    fn writer_and_readers_are_shown_with_their_ages_and_a_pending_size_with_the_capacity() {
        let mut stat = stat();
        stat.pending = Some(64 << 10);
        let mut writer = WriterStat::new(WriterRole::Lent, 4711, "camd".into(), "video".into());
        (writer.state, writer.heartbeat_ms) = (WriterState::Stalled, 12);
        stat.writer = Some(writer);
        let mut reader = ReaderStat::new(3, 4712, "view\x1b[2Jer".into(), "me".into(), ReaderState::Sleeping);
        (reader.lag_messages, reader.lag_bytes) = (1200, 4096);
        (reader.received, reader.heartbeat_ms) = (99, 1500);
        stat.readers.push(reader);
        let text = render(&stat, Page::default());
        assert!(text.contains("max 256MiB), 64KiB pending\n"), "{text}");
        assert!(text.contains("writer    camd (pid 4711, video), lent, stalled, seen 12ms ago\n"), "{text}");
        assert!(
            text.ends_with(
                "\
  readers   1 of 64
    READER   PID  PROGRAM          USER  STATE       LAG  LAG BYTES  RECEIVED  LOST  SEEN
         3  4712  view\\u{1b}[2Jer  me    sleeping  1,200       4KiB        99     0  1.5s
"
            ),
            "{text}"
        );
        assert!(!text.contains('\x1b'));
        stat.readers[0].wait = "spin=50us".into();
        assert!(
            render(&stat, Page::default()).contains("  me    sleeping, spin=50us  1,200  "),
            "{}",
            render(&stat, Page::default())
        );
    }

    #[test]
    fn what_readers_say_about_themselves_stands_below_them() {
        let mut stat = stat();
        for (number, status) in [(3, "stalled\x1b[2J, spooling"), (4, ""), (5, "reads ahead")] {
            let mut reader = ReaderStat::new(number, 4712, "relay".into(), "me".into(), ReaderState::Sleeping);
            reader.status = status.into();
            stat.readers.push(reader);
        }
        let text = render(&stat, Page::default());
        let wanted = "  status    reader 3: stalled\\u{1b}[2J, spooling\n            reader 5: reads ahead\n";
        assert!(text.ends_with(wanted), "{text}");
    }

    #[test]
    fn what_is_wrong_has_a_colour_if_colours_are_wanted() {
        let mut stat = stat();
        stat.used = stat.capacity;
        let mut writer = WriterStat::new(WriterRole::Lent, 4711, "camd".into(), "video".into());
        writer.state = WriterState::Stalled;
        stat.writer = Some(writer);
        stat.readers.push(ReaderStat::new(3, 4712, "view".into(), "me".into(), ReaderState::Evicted));
        stat.readers.push(ReaderStat::new(4, 4713, "view".into(), "me".into(), ReaderState::Reading));
        let plain = render(&stat, Page::default());
        assert!(!plain.contains('\x1b'));
        let text = render(&stat, Page { columns: None, colour: true });
        for part in ["\x1b[31m  used ", "\x1b[33m  writer ", "  \x1b[31mevicted\x1b[0m  ", "\n  source ", "  reading  "]
        {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_what_is_most_important_of_a_reader_stays() {
        let mut stat = stat();
        stat.source = "exec:/usr/lib/camd/camd --raw --device /dev/video0 --size 1920x1080 --rate 30".into();
        for number in 1..4 {
            let program = "a-program-with-a-long-name-indeed".into();
            let user = "somebody-with-a-long-name".into();
            let mut reader = ReaderStat::new(number, 4_194_300, program, user, ReaderState::Sleeping);
            (reader.lag_messages, reader.lag_bytes) = (1_234_567, 200 << 20);
            (reader.received, reader.lost) = (12_345_678_901, 1_234_567);
            reader.heartbeat_ms = 59_900;
            stat.readers.push(reader);
        }
        for columns in 20..120 {
            let text = render(&stat, Page { columns: Some(columns), colour: columns % 2 == 0 });
            assert!(text.lines().all(|line| crate::terminal::columns(line) <= columns), "{columns}: {text}");
        }
        let text = render(&stat, Page { columns: Some(80), colour: false });
        assert!(text.contains("    READER      PID  PROGRAM"), "{text}");
        assert!(text.contains("STATE           LAG  LAG BYTES"), "{text}");
        assert!(!text.contains("RECEIVED"), "{text}");
        assert!(text.contains("\n            --rate 30\n"), "{text}");
    }
}
