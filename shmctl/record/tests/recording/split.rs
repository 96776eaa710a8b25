//! A recording in parts.

use std::fs;

use nix::sys::signal::Signal;
use shm_test_support::wait_until;

use crate::kit::{Contents, assert_messages, daemon, message, parts, publish, record};

#[test]
fn parts_have_no_more_than_their_size_and_together_every_message() {
    for compression in ["none", "zstd"] {
        let daemon = daemon("");
        let output = daemon.place.path("run.mcap");
        let args = ["--split", "1MiB", "--chunk", "64KiB", "-n", "400", "--compression", compression];
        let recorder = record(&daemon, &output, &args);
        publish(&mut daemon.writer(), 0..400);
        let run = recorder.wait().ok();
        let parts = parts(&output);
        let names: Vec<_> = parts.iter().map(|part| part.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names[0], "run-00001.mcap");
        assert!(names.len() > 1 || compression == "zstd", "{names:?}");
        assert!(run.err.contains(&format!("{}: 400 messages", names[names.len() - 1])), "{run:?}");
        let mut next = 0;
        for (part, number) in parts.iter().zip(1..) {
            assert!(fs::metadata(part).unwrap().len() <= 1 << 20, "{}", part.display());
            let contents = Contents::of(part);
            let count = contents.messages.len() as u64;
            assert_messages(&contents.of_topic("main"), next..next + count);
            let numbers = contents.notes("shmd.numbers");
            assert_eq!(numbers.len(), 1);
            assert_eq!(numbers[0]["first_sequence"], next.to_string());
            assert_eq!(contents.notes("shmd.recording")[0]["part"], number.to_string());
            let reason = contents.reason().to_owned();
            assert_eq!(reason.contains("next part"), number < parts.len(), "{reason}");
            next += count;
        }
        assert_eq!(next, 400);
    }
}

#[test]
fn a_part_ends_after_its_time_and_the_next_begins_with_the_next_message() {
    let daemon = daemon("");
    let output = daemon.place.path("run.mcap");
    let mut recorder = record(&daemon, &output, &["--split", "1s"]);
    let (mut writer, mut next) = (daemon.writer(), 0);
    wait_until("there is a second part", || {
        publish(&mut writer, next..next + 1);
        next += 1;
        parts(&output).len() > 1
    });
    recorder.signal(Signal::SIGINT);
    recorder.wait().ok();
    let all: Vec<Contents> = parts(&output).iter().map(|part| Contents::of(part)).collect();
    let messages: Vec<&[u8]> = all.iter().flat_map(|contents| contents.of_topic("main")).collect();
    assert_messages(&messages, 0..next);
    assert!(all.iter().all(|contents| !contents.messages.is_empty()));
}

#[test]
fn parts_of_an_earlier_recording_are_not_touched_unless_that_is_wanted() {
    let daemon = daemon("");
    publish(&mut daemon.writer(), 0..1);
    let (output, old) = (daemon.place.path("run.mcap"), daemon.place.path("run-00002.mcap"));
    fs::write(&old, "precious").unwrap();
    let path = output.to_str().unwrap();
    let args = ["record", "-o", path, "--split", "1MiB", "--from", "oldest", "-n", "1"];
    daemon.cli(&args).refused(1, &["run-00002.mcap is there already", "--force"]);
    assert!(fs::read(&old).unwrap() == b"precious" && parts(&output).len() == 1);
    daemon.cli(&[&args[..], &["--force"]].concat()).ok();
    assert_messages(&Contents::of(&daemon.place.path("run-00001.mcap")).of_topic("main"), 0..1);
    // One part was enough, and the old one is still there.
    assert!(fs::read(&old).unwrap() == b"precious");
}

#[test]
fn a_message_that_is_larger_than_a_part_has_a_part_of_its_own() {
    let daemon = daemon("");
    let output = daemon.place.path("run.mcap");
    let recorder = record(&daemon, &output, &["--split", "1MiB", "-n", "3"]);
    let mut writer = daemon.writer();
    let large = vec![7; 3 << 20];
    for bytes in [&message(6)[..], &large, &message(7)] {
        writer.publish(bytes).unwrap();
    }
    recorder.wait().ok();
    let all: Vec<Contents> = parts(&output).iter().map(|part| Contents::of(part)).collect();
    let messages: Vec<&[u8]> = all.iter().flat_map(|contents| contents.of_topic("main")).collect();
    assert!(messages == [&message(6)[..], &large, &message(7)]);
    assert_eq!(all.len(), 3);
}
