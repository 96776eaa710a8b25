//! Channels that may lose messages account for every one; channels that acknowledge lose none and say when.

use std::fs;
use std::time::Duration;

use shm_proto::WriterError;

use crate::helpers;
use shm_test_support::{Daemon, PATIENCE, Run};

const SENT: u64 = 200_000;

/// Numbered lines of different lengths, and a last one that says so.
fn numbered(count: u64) -> String {
    let line = |n: u64| format!("{n}{}\n", ".".repeat(n as usize % 40));
    (0..count - 1).map(line).chain(["end\n".to_owned()]).collect()
}

/// The numbers in what a counting reader said.
fn counted(run: &Run) -> (u64, u64) {
    let line = run.err.lines().find(|line| line.starts_with("received")).unwrap_or_else(|| panic!("{run:?}"));
    let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    (numbers[0], numbers[1])
}

#[test]
fn readers_of_an_overwriting_channel_receive_or_miss_every_message_and_know_it() {
    let daemon = Daemon::start(
        "[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\non_full = \"overwrite\"\nwait_readers = 3\n",
    );
    let slow = helpers::start(&daemon, "count", &["50"]);
    let fast = helpers::start(&daemon, "count", &["0"]);
    let json = daemon.spawn(&["read", "--format", "json", "--timeout", "5s"]);
    daemon.until_readers(3);
    let write = daemon.cli_with_input(&["write"], numbered(SENT).as_bytes()).quiet();
    assert!(write.out.is_empty());
    let (slow, fast) = (counted(&slow.wait().ok()), counted(&fast.wait().ok()));
    for (received, lost) in [slow, fast] {
        assert_eq!(received + lost, SENT);
    }
    assert!(slow.1 > 0, "a reader that sleeps was lapped");
    let stat = daemon.stat();
    assert_eq!((stat.messages, stat.dropped), (SENT, 0));
    assert!(stat.overwritten >= slow.1, "{stat:?}");

    let json = json.wait().fails(75, &["timed out"]);
    let (mut received, mut lost, mut next) = (0, 0, 0);
    for line in json.text().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let (seq, missing) = (line["seq"].as_u64().unwrap(), line["lost"].as_u64().unwrap());
        assert_eq!(seq, next + missing, "{line}");
        next = seq + 1;
        received += 1;
        lost += missing;
    }
    assert_eq!(received + lost, SENT);
    if lost > 0 {
        let told = format!("{received} messages were received, {lost} messages were lost");
        assert!(json.err.contains(&told), "{told}\n{json:?}");
    }
}

#[test]
fn a_dropping_channel_counts_what_it_drops_and_delivers_the_rest() {
    let daemon =
        Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\non_full = \"drop\"\nwait_readers = 2\n");
    let slow = helpers::start(&daemon, "count", &["50"]);
    let fast = helpers::start(&daemon, "count", &["0"]);
    daemon.until_readers(2);
    let numbers = numbered(SENT);
    let (numbers, end) = numbers.split_at(numbers.len() - "end\n".len());
    let write = daemon.cli_with_input(&["write"], numbers.as_bytes()).ok();
    let stat = daemon.until_stat("the readers have read what there is", |stat| stat.used == 0);
    assert!(stat.dropped > 0, "a reader that sleeps was too slow");
    assert_eq!(stat.messages + stat.dropped, SENT - 1);
    let told = format!("{} messages were published, {} messages were dropped", stat.messages, stat.dropped);
    assert!(write.err.contains(&told), "{told}\n{write:?}");
    // There is room again, so that this one is not dropped.
    daemon.write_lines(end);
    for reader in [slow, fast] {
        assert_eq!(counted(&reader.wait().ok()), (stat.messages + 1, 0));
    }
}

#[test]
fn nothing_is_dropped_or_waited_for_before_there_is_a_message() {
    for on_full in ["drop", "block"] {
        let daemon = Daemon::start(&format!(
            "[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\non_full = \"{on_full}\"\nevict_after = \"0\"\n"
        ));
        // Reads nothing, so that there is room for one chunk and not for two.
        let _reader = daemon.reader(shm_proto::Start::New);
        let mut write = daemon.spawn_piped(&["write", "--framing", "chunk=40KiB"]);
        write.feed(&[1; 40 << 10]);
        daemon.until_stat("the chunk is published", |stat| stat.messages == 1);
        daemon.let_pass(Duration::from_millis(50));
        assert_eq!(daemon.stat().dropped, 0, "{on_full}");
        write.end_input();
        write.wait().quiet();
        assert_eq!((daemon.stat().messages, daemon.stat().dropped), (1, 0), "{on_full}");
    }
}

#[test]
fn an_acknowledged_publish_returns_only_after_every_reader_has_read() {
    let mut daemon = Daemon::start("[[channel]]\nack = true\nack_timeout = \"5m\"\nwait_readers = 2\n");
    let files = ["one", "two"].map(|name| daemon.place.path(name));
    let mut readers = files.each_ref().map(|file| helpers::start(&daemon, "note", &[file.to_str().unwrap()]));
    daemon.until_readers(2);
    let mut writer = daemon.writer();
    let mut wanted = String::new();
    for n in 0..500 {
        writer.publish(format!("message {n}").as_bytes()).unwrap();
        wanted += &format!("message {n}\n");
        for file in &files {
            let noted = fs::read_to_string(file).unwrap();
            assert_eq!(noted, wanted, "when publishing message {n} has returned");
        }
    }
    // Asked for by the program instead of the channel, and with a reader that does not come to it.
    readers[0].freeze();
    match writer.publish_acked(b"late", Duration::from_millis(200)) {
        // On a busy machine the other one may be late as well.
        Err(WriterError::Unacknowledged { seq: 500, behind: 1..=2, readers: 2, ended: None, .. }) => {}
        other => panic!("{other:?}"),
    }
    readers[0].thaw();
    writer.publish_acked(b"in time", PATIENCE).unwrap();
    for file in &files {
        assert!(fs::read_to_string(file).unwrap().ends_with("late\nin time\n"));
    }
    drop(writer);
    daemon.stop(nix::sys::signal::Signal::SIGTERM);
    for reader in readers {
        reader.wait().ok();
    }
}

#[test]
fn shmctl_write_ends_with_75_when_a_reader_does_not_acknowledge_in_time() {
    let config = |timeout: &str| format!("[[channel]]\nack = true\nack_timeout = \"{timeout}\"\nwait_readers = 1\n");
    let daemon = Daemon::start(&config("5m"));
    let mut reader = daemon.spawn(&["read"]);
    daemon.until_readers(1);
    daemon.write_lines("in time\n");
    reader.until_out_has("in time\n");
    reader.freeze();
    // Nobody has to be in time any more.
    fs::write(daemon.place.path("shmd.toml"), config("200ms")).unwrap();
    daemon.cli(&["reload"]).ok();
    let said = "message 1 of channel main is published, but 1 of 1 readers has not read it after 200ms";
    daemon.cli_with_input(&["write"], b"late\n").fails(75, &[said, "1 message was published before"]);
    reader.thaw();
    reader.until_out_has("late\n");
}
