//! What was recorded is published again: in order, byte for byte, where and when it is wanted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use mcap::records::MessageHeader;
use mcap::{Compression, WriteOptions};
use nix::sys::signal::Signal;
use shm_proto::{Reader, Start};
use shm_test_support::{Daemon, PATIENCE, Run};

use crate::crafted::{Crafted, PRIVATE, message as message_at, raw};
use crate::kit::{Contents, assert_messages, daemon, message, parts, publish, record, recorded, writer};

const SECOND: u64 = 1_000_000_000;
/// 2026-01-01T00:00:00Z.
const NEW_YEAR: u64 = 1_767_225_600 * SECOND;

/// A file that another program has written: topics, and when each message was recorded.
#[track_caller]
pub(crate) fn foreign(path: &Path, compression: Option<Compression>, messages: &[(&str, u64, &[u8])]) {
    write(path, WriteOptions::new().compression(compression).chunk_size(Some(100)), messages);
}

pub(crate) fn write(path: &Path, options: WriteOptions, messages: &[(&str, u64, &[u8])]) {
    let mut writer = options.create(BufWriter::new(File::create(path).unwrap())).unwrap();
    for (topic, log_time, data) in messages {
        let channel_id = writer.add_channel(0, topic, "", &BTreeMap::new()).unwrap();
        let header = MessageHeader { channel_id, sequence: 0, log_time: *log_time, publish_time: 0 };
        writer.write_to_known_channel(&header, data).unwrap();
    }
    writer.finish().unwrap();
}

#[track_caller]
pub(crate) fn replay(daemon: &Daemon, file: &Path, more: &[&str]) -> Run {
    daemon.cli(&[&["replay", file.to_str().unwrap()][..], more].concat())
}

/// The next messages of a reader.
#[track_caller]
fn received(reader: &mut Reader, count: usize) -> Vec<Vec<u8>> {
    let mut receive = |_| {
        let mut bytes = Vec::new();
        reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        bytes
    };
    (0..count).map(&mut receive).collect()
}

fn texts(reader: &mut Reader, count: usize) -> Vec<String> {
    received(reader, count).into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect()
}

#[track_caller]
fn reader(daemon: &Daemon, channel: &str) -> Reader {
    Reader::attach(&daemon.endpoint(), Some(channel), Start::New).unwrap()
}

#[test]
fn a_recording_that_is_published_and_recorded_again_is_the_same() {
    for compression in ["none", "lz4", "zstd"] {
        let daemon = Daemon::start(
            "[[channel]]\nname = \"cam\"\nmax = \"16MiB\"\n[[channel]]\nname = \"imu\"\nmax = \"16MiB\"\n",
        );
        let (first, second) = (daemon.place.path("first.mcap"), daemon.place.path("second.mcap"));
        let args = ["cam", "imu", "-n", "200", "--chunk", "64KiB", "--compression", compression];
        let recorder = record(&daemon, &first, &args);
        for name in ["cam", "imu"] {
            publish(&mut writer(&daemon.endpoint(), name), 0..100);
        }
        recorder.wait().ok();
        let recorder = record(&daemon, &second, &args);
        let run = replay(&daemon, &first, &["--speed", "max"]).ok();
        assert!(run.err.contains("published 200 messages, ") && run.out.is_empty(), "{run:?}");
        recorder.wait().ok();
        let contents = Contents::of(&second);
        for name in ["cam", "imu"] {
            assert_messages(&contents.of_topic(name), 0..100);
        }
    }
}

#[test]
fn parts_are_published_in_the_order_of_their_times() {
    let daemon = daemon("");
    let output = daemon.place.path("run.mcap");
    recorded(&daemon, &output, 100, &["--split", "1MiB"]);
    let mut parts: Vec<PathBuf> = parts(&output);
    assert!(parts.len() > 1);
    parts.reverse();
    let mut reader = reader(&daemon, "main");
    let args: Vec<_> = ["replay", "--speed=max"].into_iter().chain(parts.iter().map(|p| p.to_str().unwrap())).collect();
    let run = daemon.spawn(&args);
    let found = received(&mut reader, 100);
    run.wait().ok();
    assert!((0..100).all(|n| found[n as usize] == message(n)));
}

#[test]
fn a_topic_goes_to_another_channel_and_others_are_left_out() {
    let daemon = Daemon::start("[[channel]]\nname = \"front\"\n[[channel]]\nname = \"imu\"\n");
    let file = daemon.place.path("foreign.mcap");
    foreign(
        &file,
        None,
        &[("/camera/front", 1, b"a"), ("imu", 2, b"b"), ("/odd name", 3, b"c"), ("/camera/front", 4, b"d")],
    );
    let (mut front, mut imu) = (reader(&daemon, "front"), reader(&daemon, "imu"));
    let map = ["--map", "/camera/front=front"];
    replay(&daemon, &file, &[&map[..], &["--only", "/camera/front"]].concat()).ok();
    assert_eq!(texts(&mut front, 2), ["a", "d"]);
    replay(&daemon, &file, &[&map[..], &["--only", "/camera/front", "--only", "imu"]].concat()).ok();
    assert_eq!((texts(&mut front, 2), texts(&mut imu, 1)), (vec!["a".into(), "d".into()], vec!["b".into()]));
    assert!(front.try_recv().unwrap().is_none() && imu.try_recv().unwrap().is_none());
    // Two topics in one channel, in the order of their times; and one topic into the channel that is named as everywhere.
    replay(&daemon, &file, &["--map", "/camera/front=imu", "--only", "/camera/front", "--only", "imu"]).ok();
    assert_eq!(texts(&mut imu, 3), ["a", "b", "d"]);
    replay(&daemon, &file, &["--only", "imu", "-c", "front"]).ok();
    assert_eq!(texts(&mut front, 1), ["b"]);
}

#[test]
fn foreign_files_are_published_in_the_order_of_their_times_whatever_their_compression() {
    for compression in [None, Some(Compression::Lz4), Some(Compression::Zstd)] {
        let daemon = daemon("");
        let file = daemon.place.path("foreign.mcap");
        let texts_of_file: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        // Chunks overlap in time.
        let mut messages: Vec<_> =
            texts_of_file.iter().zip(0..).map(|(text, n)| ("main", n, text.as_bytes())).collect();
        messages.sort_by_key(|(_, time, _)| time * 7 % 50);
        foreign(&file, compression, &messages);
        let mut reader = reader(&daemon, "main");
        replay(&daemon, &file, &[]).ok();
        assert_eq!(texts(&mut reader, 50), texts_of_file);
    }
}

#[test]
fn a_part_of_the_recording_is_chosen_by_offsets_or_dates() {
    let daemon = daemon("");
    let file = daemon.place.path("foreign.mcap");
    let numbers: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    let messages: Vec<_> =
        numbers.iter().zip(0..).map(|(text, n)| ("main", NEW_YEAR + n * SECOND, text.as_bytes())).collect();
    foreign(&file, Some(Compression::Zstd), &messages);
    let mut reader = reader(&daemon, "main");
    for (range, wanted) in [
        (&["--from", "3s", "--to", "5"][..], 3..5),
        (&["--from", "2026-01-01T00:00:08Z"], 8..10),
        (&["--to", "2026-01-01T01:00:02+01:00"], 0..2),
        (&["--from", "8.5"], 9..10),
    ] {
        replay(&daemon, &file, &[&["--speed", "max"], range].concat()).ok();
        assert_eq!(texts(&mut reader, wanted.len()), numbers[wanted], "{range:?}");
        assert!(reader.try_recv().unwrap().is_none(), "{range:?}");
    }
    let run = replay(&daemon, &file, &["--from", "1h"]).ok();
    assert!(run.err.contains("published 0 messages"), "{run:?}");
}

#[test]
fn a_recording_is_published_as_often_as_it_is_wanted() {
    let daemon = daemon("");
    let file = daemon.place.path("foreign.mcap");
    foreign(&file, None, &[("main", 1, b"a"), ("main", 2, b"b")]);
    let mut reader = reader(&daemon, "main");
    let run = replay(&daemon, &file, &["--loop=3"]).ok();
    assert!(run.err.contains("published 6 messages"), "{run:?}");
    assert_eq!(texts(&mut reader, 6), ["a", "b", "a", "b", "a", "b"]);
    let mut endless = daemon.spawn(&["replay", file.to_str().unwrap(), "--loop"]);
    assert_eq!(texts(&mut reader, 100)[98..], ["a", "b"]);
    drop(reader);
    endless.signal(Signal::SIGINT);
    endless.wait().ok();
    // An empty part again and again would never end.
    replay(&daemon, &file, &["--loop", "--from", "1h"]).ok();
}

#[test]
fn messages_wait_for_their_time_and_a_signal_ends_the_wait() {
    let daemon = daemon("");
    let file = daemon.place.path("foreign.mcap");
    foreign(&file, None, &[("main", 0, b"a"), ("main", 3600 * SECOND, b"b")]);
    let mut reader = reader(&daemon, "main");
    // An hour passes in 3.6 ms.
    let run = replay(&daemon, &file, &["--speed", "1000000"]).ok();
    assert!(run.err.contains("99% of them no later than"), "{run:?}");
    assert_eq!(texts(&mut reader, 2), ["a", "b"]);
    let mut slow = daemon.spawn(&["replay", file.to_str().unwrap()]);
    assert_eq!(texts(&mut reader, 1), ["a"]);
    // Somebody who attaches meanwhile is let in by the writer that waits.
    drop(crate::replay::reader(&daemon, "main"));
    slow.signal(Signal::SIGTERM);
    let run = slow.wait().ok();
    assert!(run.err.contains("published 1 message,"), "{run:?}");
    assert!(reader.try_recv().unwrap().is_none());
}

#[test]
fn distances_in_time_are_kept() {
    let daemon = daemon("timestamps = true\n");
    let file = daemon.place.path("foreign.mcap");
    let apart = SECOND / 20;
    let messages: Vec<_> = (0..5).map(|n| ("main", n * apart, &b"x"[..])).collect();
    foreign(&file, None, &messages);
    let mut reader = reader(&daemon, "main");
    replay(&daemon, &file, &["--speed", "0.5"]).ok();
    let times: Vec<u64> = (0..5)
        .map(|_| {
            let mut bytes = Vec::new();
            reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap().published_ns.unwrap()
        })
        .collect();
    // A message may be late on a busy machine, but none is early: so much lies at least between the first and the others.
    for (time, n) in times.iter().zip(0..) {
        assert!(time - times[0] + SECOND / 1000 >= 2 * n * apart, "{times:?}");
    }
}

/// No message of the file is published, and all of it is read for that, which takes longer than anybody waits.
#[test]
fn a_signal_ends_the_command_while_it_reads_without_a_message_to_publish() {
    let daemon = daemon("");
    let file = daemon.place.path("late.mcap");
    let mut late = Crafted::new();
    late.chunk(&[message_at(1, b""), raw(PRIVATE, &vec![0; 64 << 20])].concat(), (1, 3600 * SECOND));
    let chunk = late.indexes[0].clone();
    late.indexes.resize(50_000, chunk);
    late.finish(&file, &[]);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut run = daemon.spawn(&["replay", file.to_str().unwrap(), "--from", "1800s"]);
        daemon.until_stat("the command has the role", |stat| stat.writer.is_some());
        run.signal(signal);
        let run = run.wait().ok();
        assert!(run.err.contains("published 0 messages"), "{run:?}");
    }
}
