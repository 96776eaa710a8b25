//! Which messages `shmctl read` writes, how many per second, and how: the last ones, those with a text, until there are no more.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use shm_test_support::{Daemon, PATIENCE};

const SMALL: &str = "[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\non_full = \"overwrite\"\n";

#[test]
fn the_last_messages_that_are_there_come_before_the_new_ones() {
    let daemon = Daemon::start("");
    daemon.write_lines("1\n2\n3\n4\n");
    let mut read = daemon.spawn(&["read", "--last", "2", "-n", "3"]);
    read.until_out_has("3\n4\n");
    daemon.write_lines("5\n");
    read.wait().prints("3\n4\n5\n");
    daemon.cli(&["read", "--last", "9", "--until-empty"]).prints("1\n2\n3\n4\n5\n");
    daemon.cli(&["read", "--last", "0", "--until-empty"]).prints("");
    daemon.cli(&["read", "--last", "2", "--from", "oldest"]).refused(2, &["--last"]);
}

#[test]
fn the_last_messages_are_written_although_the_channel_ends_meanwhile() {
    let lines: String = (0..200_000).map(|n| format!("message {n}\n")).collect();
    for follow in [&[][..], &["--follow"]] {
        let mut daemon = Daemon::start("[[channel]]\ncapacity = \"16MiB\"\nmax = \"16MiB\"\n");
        daemon.write_lines(&lines);
        let read = daemon.spawn(&[&["read", "--last", "2", "-n", "2"], follow].concat());
        // Usually while the other messages still pass by.
        daemon.until_readers(1);
        daemon.stop(Signal::SIGTERM);
        assert_eq!(read.wait().ok().text(), "message 199998\nmessage 199999\n");
    }
}

#[test]
fn the_last_messages_of_a_full_ring_miss_nothing() {
    let daemon = Daemon::start(SMALL);
    let lines: String = (0..20_000).map(|n| format!("message {n}\n")).collect();
    daemon.write_lines(&lines);
    let out = daemon.cli(&["read", "--last", "3", "--until-empty", "--format", "{seq} {lost} {text}"]).quiet().text();
    assert_eq!(out, "19997 0 message 19997\n19998 0 message 19998\n19999 0 message 19999\n");
}

#[test]
fn until_empty_ends_with_0_when_there_is_no_further_message() {
    let daemon = Daemon::start("");
    daemon.cli(&["read", "--until-empty"]).prints("");
    daemon.write_lines("1\n2\n");
    daemon.cli(&["read", "--until-empty"]).prints("");
    daemon.cli(&["read", "--until-empty", "--from", "oldest"]).prints("1\n2\n");
    daemon.cli(&["read", "--until-empty", "--from", "oldest", "-n", "1"]).prints("1\n");
    let handoff = Daemon::start("[[channel]]\nmode = \"handoff\"\n");
    handoff.cli(&["read", "--until-empty"]).prints("");
}

#[test]
fn a_stream_can_be_saved_and_written_back() {
    let daemon = Daemon::start("[[channel]]\nname = \"from\"\n[[channel]]\nname = \"to\"\n");
    let saved = daemon.place.path("saved");
    daemon.cli_with_input(&["write", "from", "--framing", "nul"], b"a\nb\0\0\xff\x01\0").quiet();
    let read = ["read", "from", "--from", "oldest", "--until-empty", "--format", "length"];
    daemon.spawn_to_file(&read, &saved).wait().quiet();
    let bytes = std::fs::read(&saved).unwrap();
    assert_eq!(bytes, b"\x03\0\0\0a\nb\0\0\0\0\x02\0\0\0\xff\x01");
    daemon.cli_with_input(&["write", "to", "--framing", "length"], &bytes).quiet();
    let written = daemon.cli(&["read", "to", "--from", "oldest", "--until-empty", "--format", "{hex}"]).quiet();
    assert_eq!(written.text(), "610a62\n\nff01\n");
}

#[test]
fn a_hexdump_shows_offsets_bytes_and_text() {
    let daemon = Daemon::start("");
    daemon.write_lines("hello, hexdump at work\n");
    daemon.cli(&["read", "--from", "oldest", "--until-empty", "--format", "hexdump"]).prints(
        "\
message 0, 22 bytes
00000000  68 65 6c 6c 6f 2c 20 68  65 78 64 75 6d 70 20 61  |hello, hexdump a|
00000010  74 20 77 6f 72 6b                                 |t work|
",
    );
}

#[test]
fn a_template_makes_a_line_of_fields() {
    let daemon = Daemon::start("");
    daemon.write_lines("hi\n");
    let read = |format: &str| daemon.cli(&["read", "--from", "oldest", "--until-empty", "--format", format]);
    read("{channel} {{{seq}}} {lost} {len} {text} {hex}").prints("main {0} 0 2 hi 6869\n");
    read("{sec}").refused(2, &["{sec} is not a field", "{seq}, {time}, {lost}, {len}, {text}, {hex}, {channel}"]);
    read("xml").refused(2, &["xml", "hexdump", "json"]);
}

#[test]
fn only_messages_with_the_text_are_written_and_losses_still_add_up() {
    let daemon = Daemon::start(SMALL);
    let mut read = daemon.spawn(&["read", "--grep", "wanted", "--format", "{seq} {lost} {text}", "--from", "oldest"]);
    daemon.until_readers(1);
    daemon.write_lines("one\nwanted 1\n");
    read.until_out_has("1 0 wanted 1\n");
    read.freeze();
    let lines: String = (0..20_000).map(|n| format!("message {n}\n")).collect();
    daemon.write_lines(&lines);
    daemon.write_lines("nothing\nwanted 2\n");
    read.thaw();
    read.until_out_has("wanted 2\n");
    let out = read.out_so_far();
    let last = out.lines().last().unwrap();
    let fields: Vec<_> = last.split(' ').collect();
    assert_eq!(fields[0], "20003", "{last}");
    let lost: u64 = fields[1].parse().unwrap();
    assert!(lost > 0 && lost < 20_000, "{last}");
    let stat = daemon.until_stat("the reader's losses are known", |stat| stat.readers[0].lost == lost);
    assert_eq!(stat.messages, 20_004);
    // The last ones with a text.
    daemon.write_lines("wanted 3\nno\n");
    let args = ["read", "--last", "1", "--grep", "wanted", "--until-empty"];
    daemon.cli(&args).prints("wanted 3\n");
    let args = ["read", "--from", "oldest", "--grep", "no such text", "--timeout", "100ms"];
    daemon.cli(&args).refused(75, &["0 messages were received"]);
}

#[test]
fn a_rate_lets_messages_wait_in_the_ring() {
    let daemon = Daemon::start("");
    daemon.write_lines("1\n2\n3\n4\n5\n");
    let begun = Instant::now();
    daemon.cli(&["read", "--from", "oldest", "--rate", "20", "--until-empty"]).prints("1\n2\n3\n4\n5\n");
    assert!(begun.elapsed() >= Duration::from_millis(4 * 48), "{:?}", begun.elapsed());
    // The pause is not silence, and a signal ends it.
    let mut slow = daemon.spawn(&["read", "--from", "oldest", "--rate", "0.001", "--timeout", "200ms"]);
    slow.until_out_has("1\n");
    std::thread::sleep(Duration::from_millis(300));
    slow.signal(nix::sys::signal::Signal::SIGINT);
    slow.wait().prints("1\n");
    assert!(begun.elapsed() < PATIENCE);
    daemon.cli(&["read", "--rate", "0"]).refused(2, &["such as 10"]);
}
