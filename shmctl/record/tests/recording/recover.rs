//! `--recover`: what was written before an interruption is kept.

use std::fs;
use std::path::{Path, PathBuf};

use shm_test_support::{Daemon, TempDir, clean, program, wait_until};

use crate::kit::{Contents, assert_messages, caught_up, daemon, has, message, publish, record, recorded};

/// A finished recording of `count` messages in small chunks.
#[track_caller]
fn recording(daemon: &Daemon, count: u64, more: &[&str]) -> PathBuf {
    let file = daemon.place.path("finished.mcap");
    recorded(daemon, &file, count, &[&["--chunk", "4KiB"], more].concat());
    file
}

/// A finished recording of 200 messages, with its daemon and what is in it.
#[track_caller]
fn large_recording() -> (Daemon, PathBuf, Contents) {
    let daemon = daemon("");
    let file = recording(&daemon, 200, &[]);
    let contents = Contents::of(&file);
    (daemon, file, contents)
}

fn recover(path: &Path, more: &[&str]) -> shm_test_support::Run {
    let mut command = clean(program("shmctl"));
    command.args(["record", "--recover"]).arg(path).args(more);
    shm_test_support::Run::of(command)
}

/// The number of messages in a file, which are the first ones.
#[track_caller]
fn prefix(path: &Path) -> u64 {
    let contents = Contents::of(path);
    let found = contents.of_topic("main");
    assert_messages(&found, 0..found.len() as u64);
    found.len() as u64
}

#[test]
fn a_recorder_that_is_killed_loses_nothing_that_was_in_a_finished_chunk() {
    for compression in ["none", "lz4", "zstd"] {
        let daemon = daemon("");
        let file = daemon.place.path("run.mcap");
        let recorder = record(&daemon, &file, &["--chunk", "64KiB", "--compression", compression]);
        publish(&mut daemon.writer(), 0..400);
        caught_up(&daemon);
        let written = fs::metadata(&file).unwrap().len();
        wait_until("a chunk is there", || fs::metadata(&file).unwrap().len() > 10_000);
        recorder.kill();
        let replay = daemon.cli(&["replay", file.to_str().unwrap()]);
        replay.refused(1, &["run.mcap", "it has no end", "shmctl record --recover"]);
        let run = recover(&file, &[]).ok();
        let count = prefix(&file);
        assert!(count > 0 && run.err.contains(&format!("recovered {count} messages in ")), "{count} {run:?}");
        assert!(fs::metadata(&file).unwrap().len() >= written.min(10_000));
        let contents = Contents::of(&file);
        assert_eq!(contents.reason(), "recovered");
        assert_eq!(contents.notes("shmd.numbers")[0]["first_sequence"], "0");
        // The second time, there is nothing to do.
        let before = fs::read(&file).unwrap();
        assert!(recover(&file, &[]).ok().err.contains("nothing to repair"));
        assert!(fs::read(&file).unwrap() == before);
    }
}

#[test]
fn what_was_received_is_on_the_disk_a_second_later() {
    let daemon = daemon("");
    let file = daemon.place.path("run.mcap");
    let recorder = record(&daemon, &file, &[]);
    publish(&mut daemon.writer(), 0..8);
    wait_until("the messages are in the file", || has(&file, &message(7)));
    recorder.kill();
    recover(&file, &[]).ok();
    assert_eq!(prefix(&file), 8);
}

#[test]
fn a_file_that_was_cut_anywhere_is_repaired_up_to_there() {
    for compression in ["none", "zstd"] {
        let (daemon, dir) = (daemon(""), TempDir::new());
        let bytes = fs::read(recording(&daemon, 40, &["--compression", compression])).unwrap();
        let whole = Contents::of(&daemon.place.path("finished.mcap"));
        let first_chunk = whole.summary.chunk_indexes[0].chunk_start_offset as usize;
        let mut before = 0;
        for len in (0..bytes.len()).step_by(bytes.len() / 60) {
            let file = dir.join("cut.mcap");
            fs::write(&file, &bytes[..len]).unwrap();
            let run = recover(&file, &[]);
            if len < 60 {
                // Nothing was recorded yet.
                if run.code != Some(0) {
                    run.refused(1, &["cannot recover", "cut.mcap"]);
                }
                continue;
            }
            run.ok();
            let count = prefix(&file);
            assert!(count >= before && (count > 0 || len < first_chunk + 20_000), "{len}: {count} after {before}");
            before = count;
        }
        assert_eq!(before, 40);
    }
}

#[test]
fn damage_in_the_middle_is_not_cut_off_and_a_copy_keeps_what_is_behind_it() {
    let (daemon, file, contents) = large_recording();
    let chunks = &contents.summary.chunk_indexes;
    let middle = &chunks[chunks.len() / 2];
    let mut bytes = fs::read(&file).unwrap();
    // In the last bytes of its messages.
    bytes[(middle.chunk_start_offset + middle.chunk_length - 1) as usize] ^= 1;
    let copy = daemon.place.path("copy.mcap");
    let copy_to = ["--output", copy.to_str().unwrap()];
    for is_whole in [true, false] {
        // Without the last bytes, the end is missing, too.
        let len = if is_whole { bytes.len() } else { bytes.len() - 20 };
        fs::write(&file, &bytes[..len]).unwrap();
        let run = recover(&file, &[]);
        if is_whole {
            run.ok();
            let replay = daemon.cli(&["replay", file.to_str().unwrap(), "--speed", "max"]);
            replay.fails(1, &["finished.mcap is damaged", "checksum", "--recover"]);
        } else {
            run.refused(1, &["is damaged", "checksum", "--output NEW"]);
        }
        assert!(fs::read(&file).unwrap() == bytes[..len], "the file is as it was");
        let run = recover(&file, &[&copy_to[..], &["--force"]].concat()).ok();
        assert!(run.err.contains("is damaged"), "{run:?}");
        let found = Contents::of(&copy);
        let missing = middle_messages(&contents, middle.chunk_start_offset);
        assert_eq!(found.messages.len() as u64 + missing, 200);
        assert_eq!(found.summary.chunk_indexes.len(), chunks.len() - 1);
        assert!(found.messages.iter().all(|message| contents.messages.contains(message)));
    }
    recover(&file, &copy_to).refused(1, &["cannot recover", "copy.mcap"]);
}

#[test]
fn a_copy_has_indexes_of_its_own_and_the_notes_behind_damage() {
    let (daemon, file, contents) = large_recording();
    let chunks = &contents.summary.chunk_indexes;
    let mut bytes = fs::read(&file).unwrap();
    let damaged = [chunks.len() / 3, chunks.len() / 3 * 2];
    let mut missing = 0;
    // From the last one on, so that what is inserted moves no other.
    for place in damaged.into_iter().rev() {
        let chunk = &chunks[place];
        let end = (chunk.chunk_start_offset + chunk.chunk_length) as usize;
        bytes[end - 1] ^= 1;
        missing += middle_messages(&contents, chunk.chunk_start_offset);
        let mut note = vec![mcap::records::op::METADATA];
        note.extend_from_slice(&12u64.to_le_bytes());
        note.extend_from_slice(b"\x04\0\0\0note\0\0\0\0");
        let behind = end + chunk.message_index_length as usize;
        bytes.splice(behind..behind, note);
    }
    // An index that is wrong, with the length that it had.
    let index = (chunks[0].chunk_start_offset + chunks[0].chunk_length) as usize;
    bytes[index + 9] ^= 0x40;
    let len = bytes.len() - 20;
    fs::write(&file, &bytes[..len]).unwrap();
    recover(&file, &[]).refused(1, &["is damaged", "--output NEW"]);
    let copy = daemon.place.path("copy.mcap");
    recover(&file, &["--output", copy.to_str().unwrap()]).ok();
    let found = Contents::of(&copy);
    assert_eq!(found.messages.len() as u64 + missing, 200);
    assert_eq!(found.summary.chunk_indexes.len(), chunks.len() - 2);
    assert_eq!(found.notes("note").len(), 2);
}

#[test]
fn whole_chunks_behind_a_torn_place_are_not_cut_off() {
    let (daemon, file, contents) = large_recording();
    let chunks = &contents.summary.chunk_indexes;
    let middle = &chunks[chunks.len() / 2];
    let start = middle.chunk_start_offset as usize;
    let whole = fs::read(&file).unwrap();
    let (copy, len) = (daemon.place.path("copy.mcap"), whole.len() - 20);
    // A length beyond the file, one that contains the next chunks, a hole, and the end of the data.
    let damages: [(usize, &[u8]); 4] = [(7, &[0x80]), (2, &[0xff]), (0, &[0; 60]), (0, &[mcap::records::op::DATA_END])];
    for (place, damage) in damages {
        let mut bytes = whole[..len].to_vec();
        bytes[start + place..start + place + damage.len()].copy_from_slice(damage);
        fs::write(&file, &bytes).unwrap();
        recover(&file, &[]).refused(1, &["is damaged", "--output NEW"]);
        assert!(fs::read(&file).unwrap() == bytes, "the file is as it was");
        recover(&file, &["--force", "--output", copy.to_str().unwrap()]).ok();
        let found = Contents::of(&copy);
        assert_eq!(
            found.messages.len() as u64 + middle_messages(&contents, middle.chunk_start_offset),
            200,
            "{damage:?}"
        );
    }
}

/// Readers pass over a chunk that has nothing for them by its indexes.
#[test]
fn an_index_that_is_not_that_of_its_chunk_is_written_anew_at_the_end_and_is_damage_before() {
    let (daemon, file, contents) = large_recording();
    let chunks = &contents.summary.chunk_indexes;
    let whole = fs::read(&file).unwrap();
    let copy = daemon.place.path("copy.mcap");
    for (chunk, is_last) in [(&chunks[chunks.len() / 2], false), (&chunks[chunks.len() - 1], true)] {
        let index = (chunk.chunk_start_offset + chunk.chunk_length) as usize;
        // The channel, and where the first message is in the chunk.
        for place in [9, 23] {
            let mut bytes = whole[..whole.len() - 20].to_vec();
            bytes[index + place] ^= 0x40;
            fs::write(&file, &bytes).unwrap();
            if is_last {
                recover(&file, &[]).ok();
                assert_eq!(prefix(&file), 200);
            } else {
                recover(&file, &[]).refused(1, &["is damaged", "messages of its chunk", "--output NEW"]);
                assert!(fs::read(&file).unwrap() == bytes, "the file is as it was");
                recover(&file, &["--force", "--output", copy.to_str().unwrap()]).ok();
                assert_eq!(prefix(&copy), 200);
            }
        }
    }
    let replay = daemon.cli(&["replay", file.to_str().unwrap(), "--speed", "max"]).ok();
    assert!(replay.err.contains("published 200 messages"), "{replay:?}");
}

/// Messages in the chunk at this place.
fn middle_messages(contents: &Contents, offset: u64) -> u64 {
    let stats = &contents.summary;
    let chunk = stats.chunk_indexes.iter().find(|chunk| chunk.chunk_start_offset == offset).unwrap();
    // An entry has 16 bytes, and its record 15 more.
    (chunk.message_index_length - 15) / 16
}

#[test]
fn a_repair_for_whose_end_there_is_no_space_keeps_every_chunk() {
    let daemon = daemon("");
    let file = recording(&daemon, 40, &[]);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 20]).unwrap();
    // The file is larger than that already, so nothing can be appended.
    let mut command = clean("sh");
    command
        .args(["-c", "ulimit -f 1; exec \"$@\"", "sh"])
        .arg(program("shmctl"))
        .args(["record", "--recover"])
        .arg(&file);
    shm_test_support::Run::of(command).refused(1, &["cannot recover", "File too large"]);
    recover(&file, &[]).ok();
    assert_eq!(prefix(&file), 40);
}

#[test]
fn a_file_that_is_being_written_is_left_alone() {
    let daemon = daemon("");
    let file = daemon.place.path("run.mcap");
    let mut recorder = record(&daemon, &file, &[]);
    publish(&mut daemon.writer(), 0..8);
    wait_until("the messages are in the file", || has(&file, &message(7)));
    recover(&file, &[]).refused(1, &["another program is writing to it"]);
    let other = daemon.cli(&["record", "--force", "-o", file.to_str().unwrap()]);
    other.refused(1, &["another program is writing to it"]);
    recorder.signal(nix::sys::signal::Signal::SIGINT);
    recorder.wait().ok();
    assert_eq!(prefix(&file), 8);
}

#[test]
fn what_is_no_recording_is_not_touched() {
    let dir = TempDir::new();
    let file = dir.join("garbage");
    for bytes in [&b""[..], b"hello", &[0; 1000], b"\x89MCAP0\r\n"] {
        fs::write(&file, bytes).unwrap();
        recover(&file, &[]).refused(1, &["cannot recover", "garbage"]);
        assert!(fs::read(&file).unwrap() == bytes);
    }
    recover(&dir.join("none"), &[]).refused(1, &["cannot recover", "No such file"]);
    recover(dir.path(), &[]).refused(1, &["cannot recover", "no regular file"]);
}
