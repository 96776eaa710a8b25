//! Larger and smaller while peers are attached: at once, pending, by policy, and eviction of who holds things up.

use shm_proto::internal::control::stat::ReaderState;
use shm_proto::{Start, WriterError};

use shm_test_support::{Daemon, PATIENCE, Proc, wait_until};

const SMALL: &str =
    "[[channel]]\ncapacity = \"64KiB\"\nmin = \"64KiB\"\nmax = \"8MiB\"\nevict_after = \"0\"\nshrink_after = \"0\"\n";

#[test]
fn resize_tells_the_old_and_the_new_size_and_the_file_follows() {
    let daemon = Daemon::start("");
    let bytes = || std::fs::metadata(daemon.place.object("main")).unwrap().len();
    assert_eq!(daemon.cli(&["resize", "--bytes", "4MiB"]).quiet().text(), "main: 1MiB -> 4MiB\n");
    assert_eq!(bytes(), 4096 + (4 << 20));
    assert_eq!(
        daemon.cli(&["resize", "--bytes", "65537"]).quiet().text(),
        "main: 4MiB -> 68KiB (65537 rounded up to whole pages)\n"
    );
    daemon.until_stat("the file is cut", |stat| stat.capacity == 68 << 10 && bytes() == 4096 + (68 << 10));
    assert_eq!(daemon.cli(&["resize", "--bytes", "68KiB"]).quiet().text(), "main: 68KiB -> 68KiB\n");
    let stat = daemon.stat();
    assert_eq!((stat.resizes, stat.pending), (2, None));
}

#[test]
fn a_lent_writer_that_is_idle_carries_a_shrink_out() {
    let daemon = Daemon::start("");
    let mut write = daemon.spawn_piped(&["write"]);
    let mut read = daemon.spawn(&["read"]);
    daemon.until_readers(1);
    write.feed(b"before\n");
    read.until_out_has("before\n");
    daemon.cli(&["resize", "--bytes", "64KiB"]).quiet();
    daemon.until_stat("the shrink is in effect", |stat| stat.capacity == 64 << 10 && stat.pending.is_none());
    daemon.cli(&["resize", "--bytes", "2MiB"]).quiet();
    write.feed(b"after\n");
    read.until_out_has("after\n");
    assert_eq!(daemon.stat().capacity, 2 << 20);
}

/// Lets a writer fill the ring well above 64 KiB while the reader stands, and returns the writer.
fn fill(daemon: &Daemon, reader: &mut Proc) -> Proc {
    // One that is stopped before it has chosen its start would begin behind what is written now.
    daemon.until_stat("the reader waits", |stat| stat.readers.iter().any(|it| it.state == ReaderState::Sleeping));
    reader.freeze();
    let mut write = daemon.spawn_piped(&["write", "--framing", "chunk=1KiB"]);
    write.feed(&vec![b'x'; 700 << 10]);
    daemon.until_stat("everything is in the ring", |stat| stat.messages == 700);
    write
}

#[test]
fn a_shrink_waits_for_a_stopped_reader_says_so_and_takes_effect_when_it_goes_on() {
    let daemon = Daemon::start(SMALL);
    let mut reader = daemon.spawn(&["read", "--format", "raw"]);
    let mut write = fill(&daemon, &mut reader);
    let before = daemon.stat().capacity;
    assert!(before >= 700 << 10, "the ring grew to hold it: {before}");
    let text = daemon.cli(&["resize", "--bytes", "64KiB"]).quiet().text();
    assert!(text.contains("-> 64KiB, pending: it takes effect when the readers have passed"), "{text}");
    let stat = daemon.stat();
    assert_eq!((stat.capacity, stat.pending), (before, Some(64 << 10)));
    assert!(daemon.cli(&["stat"]).quiet().text().contains(", 64KiB pending\n"));
    reader.thaw();
    let stat = daemon.until_stat("the shrink takes effect", |stat| stat.pending.is_none());
    assert_eq!(stat.capacity, 64 << 10);
    write.feed(&[b'y'; 1024]);
    write.end_input();
    write.wait().quiet();
    reader.until_out_has(&"y".repeat(1024));
    assert!(reader.out_so_far() == "x".repeat(700 << 10) + &"y".repeat(1024));
    wait_until("the file is cut", || {
        std::fs::metadata(daemon.place.object("main")).unwrap().len() == 4096 + (64 << 10)
    });
}

#[test]
fn a_pending_shrink_is_given_up_for_a_later_request() {
    let daemon = Daemon::start(SMALL);
    let mut reader = daemon.spawn(&["read", "--format", "raw"]);
    let _write = fill(&daemon, &mut reader);
    daemon.cli(&["resize", "--bytes", "64KiB"]).quiet();
    assert_eq!(daemon.stat().pending, Some(64 << 10));
    daemon.cli(&["resize", "--bytes", "8MiB"]).quiet();
    let stat = daemon.stat();
    assert_eq!((stat.capacity, stat.pending), (8 << 20, None));
    reader.thaw();
    daemon.until_stat("everything is read", |stat| stat.used == 0);
    assert_eq!(daemon.stat().capacity, 8 << 20);
}

#[test]
fn a_shrink_that_a_dead_writer_left_unfinished_is_carried_out_by_the_next() {
    let daemon = Daemon::start(SMALL);
    let mut reader = daemon.spawn(&["read", "--format", "raw"]);
    let write = fill(&daemon, &mut reader);
    daemon.cli(&["resize", "--bytes", "64KiB"]).quiet();
    write.kill();
    daemon.until_stat("the role is free", |stat| stat.writer.is_none());
    reader.thaw();
    let mut next = daemon.spawn_piped(&["write", "--framing", "chunk=1KiB"]);
    next.feed(&[b'z'; 1024]);
    reader.until_out_has(&"z".repeat(1024));
    let stat = daemon.until_stat("the shrink takes effect", |stat| stat.pending.is_none());
    assert_eq!((stat.capacity, stat.messages), (64 << 10, 701));
}

#[test]
fn a_reader_that_holds_a_lossless_channel_up_is_evicted_and_told() {
    // So long that nobody but the one that stands still is late on a busy machine.
    let daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"3s\"\n");
    let mut stopped = daemon.spawn(&["read"]);
    let going = daemon.spawn(&["read", "-n", "20000"]);
    daemon.until_readers(2);
    stopped.freeze();
    let text: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    daemon.cli_with_input(&["write"], text.as_bytes()).quiet();
    assert!(going.wait().quiet().text() == text);
    let stat = daemon.until_stat("the other is gone", |stat| stat.readers.len() == 1);
    assert_eq!((stat.evicted, stat.messages), (1, 20_000));
    assert_eq!((stat.readers[0].pid, &stat.readers[0].state), (stopped.pid(), &ReaderState::Evicted));
    daemon.until_log("event=evict channel=main");
    stopped.thaw();
    let run = stopped.wait().fails(1, &["evicted from channel main", "held the writer up", "attach again"]);
    assert!(text.starts_with(&run.text()), "what it had read before is right");
}

#[test]
fn a_following_reader_attaches_again_after_an_eviction_and_counts_what_it_missed() {
    let daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"300ms\"\n");
    let mut reader = daemon.spawn(&["read", "--follow", "--format", "json"]);
    daemon.until_readers(1);
    reader.freeze();
    let text: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    daemon.cli_with_input(&["write"], text.as_bytes()).quiet();
    reader.thaw();
    reader.until_out_has("line 19999");
    let (mut next, mut lost) = (0, 0);
    for line in reader.out_so_far().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let seq = line["seq"].as_u64().unwrap();
        assert_eq!(seq, next + line["lost"].as_u64().unwrap());
        assert_eq!(line["data"].as_str().unwrap(), format!("line {seq}"));
        lost += line["lost"].as_u64().unwrap();
        next = seq + 1;
    }
    assert!(next == 20_000 && lost > 0, "{lost} lost up to {next}");
}

#[test]
fn unused_memory_is_given_back_down_to_the_smallest_size() {
    let daemon =
        Daemon::start("[[channel]]\ncapacity = \"4MiB\"\nmin = \"1MiB\"\nmax = \"8MiB\"\nshrink_after = \"100ms\"\n");
    let _write = daemon.spawn_piped(&["write"]);
    let stat = daemon.until_stat("the channel is small", |stat| stat.capacity == 1 << 20);
    assert!(stat.resizes >= 1, "{stat:?}");
    daemon.until_log("event=shrink channel=main old=4194304 new=1048576 by=low-use");
}

#[test]
fn a_pressed_channel_grows_by_doubling_to_its_largest_size_and_loses_nothing() {
    let daemon = Daemon::start(SMALL);
    let mut reader = daemon.reader(Start::New);
    let mut writer = daemon.writer();
    let message = [7; 10_000];
    let mut sent = 0u64;
    // Nobody reads meanwhile: growth comes before waiting.
    loop {
        match writer.publish_within(&message, std::time::Duration::from_millis(500)) {
            Ok(_) => sent += 1,
            Err(WriterError::TimedOut { what, .. }) => {
                assert!(what.contains("channel main"), "{what}");
                break;
            }
            Err(e) => panic!("{e}"),
        }
    }
    let stat = daemon.stat();
    assert_eq!(stat.capacity, 8 << 20);
    assert!(stat.used > 7 << 20 && sent > 800, "{sent} messages, {stat:?}");
    assert!(stat.resizes <= 8, "doubling, not creeping: {}", stat.resizes);
    for n in 0..sent {
        let received = reader.recv(Some(PATIENCE)).unwrap();
        assert_eq!((received.seq(), received.len()), (n, message.len()));
    }
    assert!(reader.try_recv().unwrap().is_none());
}

#[test]
fn a_request_for_more_than_there_is_in_the_channel_leaves_it_as_it_was() {
    let daemon = Daemon::start(SMALL);
    daemon.write_lines("kept\n");
    daemon.cli(&["resize", "--bytes", "9MiB"]).fails(1, &["9MiB", "8MiB"]);
    assert_eq!(daemon.stat().capacity, 64 << 10);
    assert_eq!(daemon.cli(&["read", "--from", "oldest", "-n", "1"]).quiet().text(), "kept\n");
}
