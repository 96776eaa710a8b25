use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use shm_proto::Request;
use shm_proto::internal::control::Pong;
use shm_proto::internal::control::log::{LogEntry, LogEvent, Severity};
use shm_proto::internal::control::stat::{ChannelStat, WriterRole, WriterStat};

use super::super::control::Sort;
use super::super::figures::tests::{after, channel, full, reader};
use super::*;
use crate::terminal::columns;

fn status() -> Status {
    let daemon = Some(Pong::new("0.1.0".into(), 4711, "shmd".into()));
    Status { daemon, interval: Duration::from_secs(1), ..Status::default() }
}

/// What a terminal of this size shows.
fn screen(size: (u16, u16), figures: &Figures, control: &Control, status: &Status) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal.draw(|frame| draw(frame.buffer_mut(), figures, control, status)).unwrap();
    let text = ansi::lines(terminal.backend().buffer(), false);
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), usize::from(size.1), "{text}");
    assert!(lines.iter().all(|line| columns(line) <= usize::from(size.0)), "{text}");
    lines
}

fn operations(figures: &mut Figures, count: u64) {
    for seq in 1..=count {
        let mut entry = LogEntry::new(Severity::Info, LogEvent::Grow);
        (entry.seq, entry.time_ms) = (seq, 1_700_000_000_123 + 1000 * seq);
        entry.channel = Some("cam".parse().unwrap());
        figures.log(vec![entry]);
    }
}

/// Two channels, one of them held up.
fn usual() -> Figures {
    let look = |messages: u64| {
        let mut cam = full("cam", messages, reader(3, 100, messages - 100));
        cam.readers.push(reader(4, messages, 0));
        let mut imu = channel("imu", 10 * messages);
        imu.used = imu.capacity / 2;
        imu.writer = Some(WriterStat::new(WriterRole::Lent, 4700, "imud".into(), "me".into()));
        vec![cam, imu]
    };
    let mut figures = after([look(1000), look(2200), look(2800)]);
    operations(&mut figures, 3);
    figures
}

#[test]
fn a_usual_screen_shows_everything() {
    let lines = screen((80, 24), &usual(), &Control::default(), &status());
    let expected = "\
shmctl top  shmd 0.1.0 (pid 4711)  2 channels, 2 readers  every 1s
  CHANNEL  STATE  FILL       MESSAGES  HISTORY      BYTES  HELD UP BY
> cam      full   100% \u{2588}\u{2588}\u{2588}\u{2588}     600/s        \u{2588}\u{2584}  5.9KiB/s  view/3 >2.0s
  imu      ok      50% \u{2588}\u{2588}\u{2591}\u{2591}       6k/s        \u{2588}\u{2584}  58.6KiB/s  -
cam: reader 3 (view, pid 4703, user me) holds the writer up for more than 2.0s";
    for (line, wanted) in lines.iter().zip(expected.lines()) {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed(line), squeezed(wanted), "{lines:#?}");
    }
    let has = |part: &str| lines.iter().any(|line| line.contains(part));
    for part in [
        "READER",
        "LAG BYTES",
        "> ",
        "OLDEST",
        "2,700",
        ">2.0s",
        "READER 3  view, pid 4703, user me, reading",
        "  unread    2,700 (1MiB), the oldest for more than 2.0s; last seen 0ms ago",
        "  received  100, lost 0; 0/s",
        "OPERATIONS",
        "22:13:23 event=grow channel=cam",
        "q quit",
        "e evict",
    ] {
        assert!(has(part), "{part:?} is not in {lines:#?}");
    }
    // The newest operation is the last one, and the keys are at the bottom.
    assert!(lines[23].starts_with("q quit"), "{lines:#?}");
    // The other channel.
    let control = Control { channel: Some("imu".parse().unwrap()), ..Control::default() };
    let lines = screen((80, 24), &usual(), &control, &status());
    let summary = "imu: ring, 512KiB of 1MiB used, max 256MiB; writer imud (pid 4700, user me)";
    assert!(lines.iter().any(|line| line == summary), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.starts_with("READER")), "{lines:#?}");
}

#[test]
fn the_chosen_channel_and_reader_and_the_culprit_are_seen_on_every_screen() {
    let look = |messages: u64| -> Vec<ChannelStat> {
        let make = |n: u32| {
            let mut stat = full(&format!("channel-{n:02}"), messages, reader(1, 10, messages - 10));
            stat.readers.extend((2..=64).map(|number| reader(number, messages, 0)));
            stat
        };
        (0..30).map(make).collect()
    };
    let mut figures = after([look(100), look(200)]);
    operations(&mut figures, 50);
    for size in [(80, 24), (40, 10), (132, 50)] {
        for n in 0..30 {
            let name = format!("channel-{n:02}");
            for number in [1, 7, 33, 64] {
                let channel = Some(name.parse().unwrap());
                let control = Control { channel, reader: Some(number), ..Control::default() };
                let lines = screen(size, &figures, &control, &status());
                let marked: Vec<_> = lines.iter().filter(|line| line.starts_with("> ")).collect();
                assert!(marked.len() == 2 && marked[0].contains(&name), "{size:?} {name}: {lines:#?}");
                assert!(marked[0].contains("view/1 >1.0s"), "{size:?} {name}: {lines:#?}");
                let first = marked[1].split_whitespace().nth(1);
                assert_eq!(first, Some(number.to_string().as_str()), "{size:?} {name}: {lines:#?}");
                assert!(lines[usize::from(size.1) - 1].starts_with("q quit"), "{lines:#?}");
            }
        }
    }
}

#[test]
fn names_of_any_length_leave_room_for_the_numbers() {
    let long = "n".repeat(100);
    let look = |messages: u64| {
        let mut culprit = reader(3, 10, messages - 10);
        (culprit.program, culprit.user, culprit.pid) = (long.clone(), "u".repeat(100), 4_194_304);
        vec![full(&"c".repeat(64), messages, culprit)]
    };
    let figures = after([look(1_000_000_000_000), look(2_000_000_000_000)]);
    let lines = screen((80, 24), &figures, &Control::default(), &status());
    let row = lines.iter().find(|line| line.starts_with("> c")).unwrap();
    assert!(row.contains("full") && row.contains("1T/s") && row.contains("n\u{2026}/3 >1.0s"), "{lines:#?}");
    let row = lines.iter().filter(|line| line.starts_with("> ")).nth(1).unwrap();
    assert!(row.contains("1,999,999,999,990") && row.contains(">1.0s"), "{lines:#?}");
    for size in [(40, 10), (20, 5), (1, 1), (2, 3), (200, 100)] {
        screen(size, &figures, &Control::default(), &status());
    }
}

#[test]
fn without_channels_the_view_says_so() {
    let lines = screen((80, 24), &after([Vec::new()]), &Control::default(), &status());
    assert_eq!(lines[1], NO_CHANNEL);
    assert!(lines[0].contains("0 channels, 0 readers"), "{lines:#?}");
}

#[test]
fn a_daemon_that_is_away_and_a_pause_are_in_the_first_line_and_the_order_in_the_last() {
    let mut away = status();
    (away.trouble, away.age) = (Some("no daemon at /x/shmd.sock: \x1b[2J".into()), Duration::from_secs(3));
    let lines = screen((80, 24), &usual(), &Control::default(), &away);
    assert_eq!(lines[0], "shmctl top  figures are 3.0s old: no daemon at /x/shmd.sock: \\u{1b}[2J");
    assert!(lines[2].contains("full"), "the last figures stay: {lines:#?}");
    away.trouble = Some("no daemon at /a/long/directory/shmd.sock: there is no such socket; start shmd".into());
    let lines = screen((80, 24), &usual(), &Control::default(), &away);
    assert!(lines[1].starts_with("  ") && lines[1].ends_with("socket; start shmd"), "{lines:#?}");
    let control = Control { is_paused: true, sort: Sort::Lag, ..Control::default() };
    let lines = screen((80, 24), &usual(), &control, &status());
    assert!(lines[0].starts_with("shmctl top  PAUSED  shmd 0.1.0") && lines[23].contains("s sort (lag)"), "{lines:#?}");
}

#[test]
fn questions_and_outcomes_are_at_the_bottom_and_the_answers_are_always_seen() {
    let request = Request::Evict { channel: None, reader: 3 };
    let question = format!("evict reader 3 ({}, pid 4703, user me) of cam?", "n".repeat(100));
    let footer = Footer::Confirm { question, request, doing: String::new() };
    let control = Control { footer, ..Control::default() };
    for size in [(80, 24), (40, 10), (30, 3), (30, 1)] {
        let lines = screen(size, &usual(), &control, &status());
        assert!(lines.last().unwrap().ends_with("y: yes, n: no"), "{size:?}: {lines:#?}");
        assert!(lines.iter().any(|line| line.starts_with("evict")), "{size:?}: {lines:#?}");
    }
    let says = |footer: Footer| {
        let lines = screen((80, 24), &usual(), &Control { footer, ..Control::default() }, &status());
        lines[21..].join(" ").trim().to_owned()
    };
    let size = Footer::Size { channel: "cam".parse().unwrap(), now: 1 << 20, typed: "4M".into() };
    assert!(says(size).ends_with("resize cam from 1MiB to: 4M_  (Enter, or Esc to leave it)"));
    assert!(says(Footer::Waiting { doing: "resize cam".into() }).ends_with("resize cam ..."));
    let told = "channel cam: asked 1GiB, allowed 64KiB to 256MiB: the channel's min and max, which are in shmd.toml";
    let said = says(Footer::Outcome { text: told.into(), is_bad: true });
    assert!(said.ends_with(&format!("error: {told}")), "{said}");
}

#[test]
fn a_page_has_all_channels_with_their_readers_and_no_keys() {
    let figures = usual();
    let page = text(&figures, &Control::default(), &status(), 80, false);
    for part in [
        "view/3 >2.0s",
        "\ncam: reader 3 (view, pid 4703, user me) holds the writer up for more than 2.0s\n  READER",
        "\n\nimu: ring, 512KiB of 1MiB used",
        "\n\nOPERATIONS\n22:13:21 event=grow channel=cam\n22:13:22 ",
    ] {
        assert!(page.contains(part), "{part:?} is not in\n{page}");
    }
    assert!(page.lines().all(|line| columns(line) <= 80) && !page.contains("q quit"), "{page}");
    let coloured = text(&figures, &Control::default(), &status(), 80, true);
    assert!(coloured.contains("\x1b[31mfull\x1b[0m") && !page.contains('\x1b'), "{coloured}");
    let empty = text(&after([Vec::new()]), &Control::default(), &status(), 80, false);
    assert!(empty.ends_with(&format!("{NO_CHANNEL}\n")), "{empty}");
}
