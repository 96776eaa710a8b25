//! `shmctl write` with input that arrives little by little, and with a person in front of it.

use std::io::Write;

use shm_test_support::{Daemon, Proc, Setup, Terminal, wait_for};

/// What is in the only channel, a line per message.
fn content(daemon: &Daemon) -> String {
    daemon.cli(&["read", "--from", "oldest", "--until-empty"]).quiet().text()
}

#[test]
fn a_stream_is_published_as_it_arrives() {
    let daemon = Daemon::start("");
    let mut write = daemon.spawn_piped(&["write", "--framing", "stream"]);
    for (messages, bytes) in [(1, &b"a"[..]), (2, b"b and c"), (3, b"d\n")] {
        write.feed(bytes);
        daemon.until_stat("it is published", |stat| stat.messages == messages);
    }
    write.end_input();
    write.wait().quiet();
    assert_eq!(content(&daemon), "a\nb and c\nd\n\n");
}

#[test]
fn a_stream_is_no_longer_than_a_message_may_be() {
    let daemon = Daemon::start("[[channel]]\nmax_message = 1000\n");
    daemon.cli_with_input(&["write", "--framing", "stream"], &[b'x'; 10_500]).quiet();
    let lengths = daemon.cli(&["read", "--from", "oldest", "--until-empty", "--format", "{len}"]).quiet().text();
    let lengths: Vec<usize> = lengths.lines().map(|len| len.parse().unwrap()).collect();
    assert!(lengths.iter().all(|len| *len <= 1000) && lengths.iter().sum::<usize>() == 10_500, "{lengths:?}");
}

#[test]
fn a_chunk_that_is_not_full_is_published_after_its_time() {
    let daemon = Daemon::start("");
    let mut write = daemon.spawn_piped(&["write", "--framing", "chunk=4", "--flush", "20ms"]);
    for (messages, bytes) in [(1, &b"ab"[..]), (2, b"c"), (4, b"defgh")] {
        write.feed(bytes);
        daemon.until_stat("it is published", |stat| stat.messages == messages);
    }
    write.feed(b"i");
    write.end_input();
    write.wait().quiet();
    assert_eq!(content(&daemon), "ab\nc\ndefg\nh\ni\n");
    let handoff = Daemon::start("[[channel]]\nmode = \"handoff\"\n");
    let read = handoff.spawn(&["read", "-n", "1"]);
    let mut write = handoff.spawn_piped(&["write", "--framing", "chunk=4", "--flush", "20ms"]);
    write.feed(b"ab");
    read.wait().prints("ab\n");
}

#[test]
fn a_flush_time_for_messages_that_have_an_end_is_refused() {
    let daemon = Daemon::start("");
    for framing in ["lines", "nul", "length", "stream"] {
        let run = daemon.cli(&["write", "--framing", framing, "--flush", "1s"]);
        run.refused(2, &["--flush", &format!("--framing {framing}"), "chunk=SIZE"]);
    }
}

#[test]
fn a_source_may_be_a_stream() {
    let (source, mut input) = std::io::pipe().unwrap();
    let daemon = Setup::new("").args(&["--framing", "stream"]).stdin(source).start();
    for (messages, bytes) in [(1, &b"one"[..]), (2, b"two")] {
        input.write_all(bytes).unwrap();
        daemon.until_stat("it is published", |stat| stat.messages == messages);
    }
    assert_eq!(content(&daemon), "one\ntwo\n");
}

#[test]
fn who_types_is_told_how_to_end() {
    let daemon = Daemon::start("");
    let mut terminal = Terminal::new(24, 80);
    let mut command = daemon.shmctl(&["write"]);
    command.stdin(terminal.stdio());
    let mut write = Proc::spawn(command);
    write.until_err_has("type lines, and each is a message; Ctrl-D ends the input");
    terminal.type_in("typed\n\x04");
    write.wait().ok();
    assert_eq!(content(&daemon), "typed\n");
}

#[test]
fn the_progress_goes_on_while_the_command_waits_for_space() {
    let daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"0\"\n");
    let mut reader = daemon.spawn(&["read"]);
    daemon.until_readers(1);
    reader.freeze();
    let terminal = Terminal::new(24, 80);
    let mut command = daemon.shmctl(&["write", "--progress"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).stderr(terminal.stdio());
    let mut write = Proc::spawn_untouched(command);
    write.feed(&b"0123456789\n".repeat(5000));
    daemon.until_stat("the channel is full", |stat| stat.used > stat.capacity / 10 * 9);
    // The first of these has the rate of what fitted, and the others show that nothing moves.
    let still = |line: &String| line.contains(" messages, ") && line.ends_with("  0/s, 0/s");
    wait_for("it is drawn again and again", || {
        (terminal.screen().overwritten.iter().filter(|line| still(line)).count() >= 3).then_some(())
    });
    reader.thaw();
    write.end_input();
    write.wait().ok();
    wait_for("nothing is left of it", || terminal.screen().text().trim().is_empty().then_some(()));
}

#[test]
fn the_progress_is_drawn_in_place_and_leaves_nothing_behind() {
    let daemon = Daemon::start("");
    let terminal = Terminal::new(24, 80);
    let mut command = daemon.shmctl(&["write", "--progress"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).stderr(terminal.stdio());
    let mut write = Proc::spawn_untouched(command);
    write.feed(b"one\n");
    wait_for("a message is shown", || terminal.screen().text().contains("1 message, 3 bytes").then_some(()));
    write.feed(b"two\nthree\n");
    wait_for("three messages are shown", || terminal.screen().text().contains("3 messages, 11 bytes").then_some(()));
    write.end_input();
    write.wait().ok();
    wait_for("nothing is left of it", || terminal.screen().text().trim().is_empty().then_some(()));
    let screen = terminal.screen();
    assert_eq!((screen.scrolled, screen.wrapped), (0, 0), "{}", screen.text());
    // Without a terminal nothing is shown.
    daemon.cli_with_input(&["write", "--progress"], b"four\n").quiet();
}
