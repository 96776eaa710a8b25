//! What is missing is noted and counted.

use nix::sys::signal::Signal;
use shm_test_support::{Daemon, wait_until};

use crate::kit::{Contents, caught_up, record};

/// The numbers in a list of gaps.
fn gaps(text: &str) -> Vec<(u64, u64)> {
    let gap = |gap: &str| gap.split_once('+').map(|(first, count)| (first.parse().unwrap(), count.parse().unwrap()));
    text.split(' ').map(|text| gap(text).unwrap()).collect()
}

/// Every number up to `count` is in the file or in a gap, and the gaps are where numbers are missing.
#[track_caller]
fn assert_accounted_for(contents: &Contents, count: u64) -> u64 {
    let mut lost = Vec::new();
    for facts in contents.notes("shmd.lost") {
        let found = gaps(&facts["lost"]);
        assert_eq!(found.iter().map(|(_, count)| count).sum::<u64>().to_string(), facts["count"]);
        lost.extend(found);
    }
    let mut next = 0;
    let mut missing = Vec::new();
    for message in &contents.messages {
        let number: u64 = std::str::from_utf8(&message.data).unwrap().parse().unwrap();
        assert_eq!(u64::from(message.sequence), number);
        if number > next {
            missing.push((next, number - next));
        }
        next = number + 1;
    }
    assert_eq!(next, count);
    assert_eq!(missing, lost);
    lost.iter().map(|(_, count)| count).sum()
}

#[test]
fn overwritten_messages_are_gaps() {
    let daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\non_full = \"overwrite\"\n");
    let file = daemon.place.path("run.mcap");
    let mut recorder = record(&daemon, &file, &[]);
    let mut writer = daemon.writer();
    let mut publish = |numbers: std::ops::Range<u64>| {
        for n in numbers {
            writer.publish(n.to_string().as_bytes()).unwrap();
        }
    };
    publish(0..10);
    recorder.freeze();
    publish(10..10_000);
    recorder.thaw();
    caught_up(&daemon);
    recorder.freeze();
    publish(10_000..20_000);
    recorder.thaw();
    caught_up(&daemon);
    publish(20_000..20_010);
    recorder.signal(Signal::SIGINT);
    let run = recorder.wait().ok();
    let contents = Contents::of(&file);
    let lost = assert_accounted_for(&contents, 20_010);
    assert!(lost > 10_000, "{lost}");
    assert!(run.err.contains(&format!("{lost} messages were lost")), "{run:?}");
    assert_eq!(contents.notes("shmd.channel")[0]["lost_so_far"], lost.to_string());
}

#[test]
fn an_evicted_recorder_goes_on_and_the_gap_is_noted() {
    let daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"100ms\"\n");
    let file = daemon.place.path("run.mcap");
    let mut recorder = record(&daemon, &file, &[]);
    let mut writer = daemon.writer();
    writer.publish(b"0").unwrap();
    // One that has recorded nothing does not know what is missing.
    caught_up(&daemon);
    recorder.freeze();
    // It waits for the recorder at first, and then not any more.
    for n in 1..10_000 {
        writer.publish(n.to_string().as_bytes()).unwrap();
    }
    recorder.thaw();
    recorder.until_err_has("evicted");
    // What it has not heard of before it is told to end cannot be missing.
    wait_until("it is attached again", || daemon.stat().readers.iter().any(|reader| reader.reader > 1));
    writer.publish(b"10000").unwrap();
    caught_up(&daemon);
    recorder.signal(Signal::SIGINT);
    recorder.wait().ok();
    let contents = Contents::of(&file);
    assert!(assert_accounted_for(&contents, 10_001) > 0);
    assert!(contents.notes("shmd.notice").iter().any(|facts| facts["text"].contains("evicted")));
}
