//! Files that need much memory are refused, and others do not take more than they need.

use std::fs;
use std::path::Path;

use shm_test_support::{Run, clean, program};

use crate::crafted::{Crafted, PRIVATE, channel, message, raw, schema};
use crate::kit::{Contents, daemon};
use crate::replay::replay;

const MIB: usize = 1 << 20;

/// Zeros, which take next to nothing in the file.
fn zeros(mebibytes: usize) -> Vec<u8> {
    vec![0; mebibytes * MIB]
}

#[test]
fn a_chunk_or_a_summary_that_needs_too_much_is_refused() {
    let daemon = daemon("");
    let file = daemon.place.path("bomb.mcap");
    let mut bomb = Crafted::new();
    bomb.chunk(&message(1, b"a"), (1, 1));
    bomb.chunk(&[message(2, b"b"), raw(PRIVATE, &zeros(64))].concat(), (2, 2));
    bomb.finish(&file, &[]);
    assert!(fs::metadata(&file).unwrap().len() < MIB as u64);
    let run = replay(&daemon, &file, &["--speed", "max", "--memory", "32MiB"]);
    run.fails(1, &["published 1 message,", "bomb.mcap: the chunk at byte", "--memory allows 32MiB"]);
    assert_eq!(daemon.stat().messages, 1);
    replay(&daemon, &file, &["--speed", "max"]).ok();
    assert_eq!(daemon.stat().messages, 3);

    let mut long = Crafted::new();
    long.chunk(&message(1, b"a"), (1, 1));
    long.finish(&file, &schema(1, 12 * MIB));
    let run = replay(&daemon, &file, &["--memory", "32MiB"]);
    run.refused(1, &["bomb.mcap: its summary needs 36MiB", "--memory allows 32MiB"]);
    replay(&daemon, &file, &["--memory", "64MiB"]).ok();
    replay(&daemon, &file, &["--memory", "1KiB"]).refused(2, &["at least 1MiB"]);
}

/// Whatever their indexes say.
#[test]
fn chunks_whose_times_overlap_count_together_and_others_do_not() {
    let daemon = daemon("");
    let file = daemon.place.path("chunks.mcap");
    for overlap in [true, false] {
        let mut chunks = Crafted::new();
        for n in 1..=40u64 {
            let begins = if overlap { 0 } else { n };
            chunks.chunk(&[message(n, b"a"), raw(PRIVATE, &zeros(4))].concat(), (begins, begins));
        }
        chunks.finish(&file, &[]);
        let run = replay(&daemon, &file, &["--speed", "max", "--memory", "64MiB"]);
        if overlap {
            run.refused(1, &["published 0 messages", "the chunk at byte", "--memory allows 64MiB"]);
            replay(&daemon, &file, &["--speed", "max"]).ok();
        } else {
            run.ok();
        }
    }
    assert_eq!(daemon.stat().messages, 80);
}

#[test]
fn large_messages_on_their_way_take_no_more_than_is_allowed() {
    let daemon = daemon("");
    let file = daemon.place.path("large.mcap");
    let mut large = Crafted::new();
    for n in 1..=40 {
        large.chunk(&message(n, &zeros(4)), (n, n));
    }
    large.finish(&file, &[]);
    replay(&daemon, &file, &["--speed", "max", "--memory", "32MiB"]).ok();
    assert_eq!(daemon.stat().messages, 40);
}

fn recover(file: &Path, more: &[&str]) -> Run {
    let mut command = clean(program("shmctl"));
    command.args(["record", "--recover"]).arg(file).args(more);
    Run::of(command)
}

#[test]
fn a_repair_does_not_touch_a_record_that_needs_too_much_and_a_copy_leaves_it_out() {
    let daemon = daemon("");
    let (file, copy) = (daemon.place.path("bomb.mcap"), daemon.place.path("copy.mcap"));
    let to_copy = ["--output", copy.to_str().unwrap(), "--force"];
    // The record itself, and a chunk that is small in the file.
    for is_chunk in [false, true] {
        let mut crafted = Crafted::new();
        crafted.chunk(&[channel(), message(1, b"a")].concat(), (1, 1));
        if is_chunk {
            crafted.chunk(&message(2, &zeros(64)), (2, 2));
        } else {
            crafted.bytes.extend(raw(PRIVATE, &zeros(64)));
        }
        crafted.chunk(&message(3, b"c"), (3, 3));
        fs::write(&file, &crafted.bytes).unwrap();
        let few = ["--memory", "32MiB"];
        recover(&file, &few).refused(1, &["cannot recover", "the record at byte", "--memory allows", "--output NEW"]);
        assert!(fs::read(&file).unwrap() == crafted.bytes, "the file is as it was");
        let run = recover(&file, &[&few[..], &to_copy].concat()).ok();
        assert!(run.err.contains("left out what is too large"), "{run:?}");
        assert_eq!(Contents::of(&copy).of_topic("main"), [b"a", b"c"]);
        let run = recover(&file, &[]).ok();
        let whole = format!("recovered {} messages", if is_chunk { 3 } else { 2 });
        assert!(run.err.contains(&whole), "{run:?}");
    }
}

#[test]
fn what_the_end_of_a_repaired_file_has_to_mention_counts_together() {
    let daemon = daemon("");
    let file = daemon.place.path("schemas.mcap");
    for (is_same, fits) in [(true, true), (false, false)] {
        let mut schemas = Crafted::new();
        for n in 1..=40u16 {
            let schema = schema(if is_same { 1 } else { n }, 2 * MIB);
            schemas.chunk(&[channel(), schema, message(n.into(), b"a")].concat(), (n.into(), n.into()));
        }
        fs::write(&file, &schemas.bytes).unwrap();
        let run = recover(&file, &["--memory", "64MiB"]);
        if fits {
            let run = run.ok();
            assert!(run.err.contains("recovered 40 messages"), "{run:?}");
        } else {
            run.refused(1, &["cannot recover", "with what else is needed", "--memory allows 64MiB"]);
            assert!(fs::read(&file).unwrap() == schemas.bytes, "the file is as it was");
        }
    }
    daemon.cli(&["record", "-o", "x.mcap", "--memory", "1GiB"]).refused(2, &["--recover"]);
}
