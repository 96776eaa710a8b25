//! What cannot be published is refused, with the reason and the way out.

use std::fs;

use mcap::WriteOptions;
use shm_test_support::{Daemon, Place, clean, program};

use crate::kit::{Contents, daemon, recorded};
use crate::replay::{foreign, replay, write};

#[test]
fn what_is_no_recording_is_refused() {
    let daemon = daemon("");
    let file = daemon.place.path("garbage.mcap");
    let mut noise = 7u64;
    let mut random = || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (noise >> 56) as u8
    };
    let noise: Vec<u8> = (0..5000).map(|_| random()).collect();
    for bytes in [&b""[..], b"hello", &[0; 5000], &noise] {
        fs::write(&file, bytes).unwrap();
        replay(&daemon, &file, &[]).refused(1, &["garbage.mcap is no MCAP file"]);
    }
    let magic = b"\x89MCAP0\r\n";
    for bytes in [magic.to_vec(), [&magic[..], &noise].concat(), [&magic[..], &noise, magic].concat()] {
        fs::write(&file, bytes).unwrap();
        replay(&daemon, &file, &[]).refused(1, &["garbage.mcap", "it has no end", "--recover"]);
    }
    replay(&daemon, &daemon.place.path("none.mcap"), &[]).refused(1, &["cannot read", "none.mcap", "No such file"]);
    replay(&daemon, &daemon.place.dir, &[]).refused(1, &["no regular file"]);
    assert_eq!(daemon.stat().messages, 0);
}

#[test]
fn a_recording_that_is_cut_or_damaged_anywhere_publishes_nothing_wrong() {
    let daemon = daemon("");
    let file = daemon.place.path("run.mcap");
    recorded(&daemon, &file, 5, &["--chunk", "4KiB"]);
    let bytes = fs::read(&file).unwrap();
    let count = Contents::of(&file).messages.len() as u64;
    for len in (0..bytes.len()).step_by(bytes.len() / 40) {
        fs::write(&file, &bytes[..len]).unwrap();
        replay(&daemon, &file, &["--speed", "max"]).refused(1, &["run.mcap"]);
    }
    let before = daemon.stat().messages;
    assert_eq!(before, count, "nothing was published");
    let mut reader = daemon.reader(shm_proto::Start::New);
    let (mut scratch, mut refusals) = (Vec::new(), 0);
    for place in (0..bytes.len()).step_by(bytes.len() / 60) {
        let mut wrong = bytes.clone();
        wrong[place] ^= 0x41;
        fs::write(&file, &wrong).unwrap();
        let run = replay(&daemon, &file, &["--speed", "max"]);
        // Not every byte matters: notes, and indexes that the command does not need.
        assert!(run.code == Some(0) || run.code == Some(1) && run.err.contains("run.mcap"), "{place}: {run:?}");
        refusals += usize::from(run.code == Some(1));
        let mut number = 0;
        while let Some(message) = reader.try_recv().unwrap() {
            message.copy_to_vec(&mut scratch);
            message.finish().unwrap();
            assert!(scratch == crate::kit::message(number), "{place}: message {number}");
            number += 1;
        }
        assert!(number == count || run.code == Some(1), "{place}: {number} {run:?}");
    }
    assert!(refusals > 20, "{refusals}");
}

#[test]
fn topics_and_channels_that_are_not_there_are_named() {
    let daemon = Daemon::start("[[channel]]\nname = \"cam\"\n");
    let file = daemon.place.path("foreign.mcap");
    foreign(&file, None, &[("cam", 1, b"a"), ("/imu", 2, b"b"), ("gps", 3, b"c")]);
    for (args, code, parts) in [
        (&[][..], 2, &["/imu", "--map /imu=CHANNEL"][..]),
        (&["--map", "/imu=cam"], 1, &["gps", "--create", "--map", "--only"]),
        (&["--only", "cma"], 2, &["no topic cma", "/imu, cam, gps", "did you mean cam?"]),
        (&["--map", "lidar=cam"], 2, &["--map", "no topic lidar"]),
        (&["--only", "cam", "--only", "gps", "-c", "cam"], 2, &["--channel cam", "cam, gps"]),
        (&["--from", "5s", "--to", "5s"], 2, &["--from is not before --to"]),
        (&["--from", "soon"], 2, &["2026-01-31T12:00:00Z"]),
        (&["--speed", "0"], 2, &["max"]),
    ] {
        replay(&daemon, &file, args).refused(code, parts);
    }
    assert_eq!(daemon.stat().messages, 0);
}

#[test]
fn without_a_daemon_or_the_role_nothing_is_published() {
    let place = Place::new();
    let file = place.path("foreign.mcap");
    foreign(&file, None, &[("main", 1, b"a")]);
    let mut command = clean(program("shmctl"));
    command.arg("replay").arg(&file).env("SHMD_RUNTIME_DIR", place.run_dir());
    shm_test_support::Run::of(command).refused(69, &["no daemon at", "--runtime-dir"]);
    let daemon = daemon("");
    let _writer = daemon.writer();
    replay(&daemon, &file, &[]).refused(75, &["channel main", "writer role"]);
}

#[test]
fn a_message_that_is_too_large_for_the_channel_is_named() {
    let daemon = Daemon::start("[[channel]]\nmax_message = \"1KiB\"\n");
    let file = daemon.place.path("foreign.mcap");
    foreign(&file, None, &[("main", 1, b"a"), ("main", 2, &[7; 5000])]);
    replay(&daemon, &file, &[]).fails(1, &["published 1 message", "5000 bytes", "limit of 1024"]);
    assert_eq!(daemon.stat().messages, 1);
}

#[test]
fn a_file_without_an_index_of_its_chunks_is_refused_and_a_copy_has_one() {
    let daemon = daemon("");
    let file = daemon.place.path("plain.mcap");
    let options = || WriteOptions::new().compression(None);
    let messages: [(&str, u64, &[u8]); 2] = [("main", 1, b"a"), ("main", 2, b"b")];
    write(&file, options().use_chunks(false), &messages);
    replay(&daemon, &file, &[]).refused(1, &["plain.mcap", "no index of chunks for its 2 messages"]);
    write(&file, options().emit_chunk_indexes(false), &messages);
    replay(&daemon, &file, &[]).refused(1, &["no index of chunks for its 2 messages", "--recover", "--output NEW"]);
    assert_eq!(daemon.stat().messages, 0);
    let copy = daemon.place.path("copy.mcap");
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    daemon.cli(&["record", "--recover", &text(&file), "--output", &text(&copy)]).ok();
    replay(&daemon, &copy, &["--speed", "max"]).ok();
    assert_eq!(daemon.stat().messages, 2);
}
