//! Daemons that are killed again and again under load: whoever writes, and whatever the channel does when it is full.
//!
//! Some deaths of each kind in the suite; `SHMD_KILLS` says how many:
//!
//! ```console
//! $ SHMD_KILLS=1000 cargo test --release -p shmd --test daemon crashed::campaign -- --nocapture
//! ```
//!
//! Each message says in which run of its writer it was written, and its number there. So a reader sees what is missing, doubled or
//! torn, and compares what is missing with what was reported and counted.

mod seen;
mod writers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use shm_proto::{Reader, Start};

use self::seen::Seen;
use self::writers::By;
use crate::{Daemon, joined, wait_for};

/// How often a daemon is killed, if `SHMD_KILLS` does not say it.
const KILLS: u32 = 5;
/// Nobody is evicted, and a slow reader fills the channel. Nothing is published before both readers are there.
const CHANNEL: &str = "[[channel]]\nname = \"main\"\ncapacity = \"64KiB\"\nmin = \"64KiB\"\nmax = \"256KiB\"\n\
                       evict_after = \"0s\"\nwait_readers = 2\n";
/// The longest message, with its delimiter.
const MESSAGE: u64 = 400;

/// What the channel does when it is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    Block,
    Drop,
    Overwrite,
}

impl Full {
    /// Whether the channel was full and did what it does then, to the slow reader's loss if that is what it does.
    fn has_shown(self, daemon: &Daemon) -> bool {
        match self {
            Full::Block => true,
            Full::Drop => daemon.stat().dropped > 0,
            Full::Overwrite => daemon.stat().readers.iter().any(|reader| reader.lost > 0),
        }
    }
}

/// Messages that the channel has taken or dropped.
fn dealt_with(daemon: &Daemon) -> u64 {
    let stat = daemon.stat();
    stat.messages + stat.dropped
}

/// The message with this number in this run.
fn text(run: u64, number: u64) -> String {
    format!("{run} {number} {:0>width$}", 0, width = usize::try_from(number % 300 + 1).unwrap())
}

fn bytes_of(run: u64, numbers: std::ops::Range<u64>) -> u64 {
    let digits = |number: u64| u64::from(number.checked_ilog10().unwrap_or(0)) + 1;
    numbers.map(|number| digits(run) + digits(number) + number % 300 + 4).sum()
}

fn campaign(name: &str, by: By, full: Full) {
    let kills = std::env::var("SHMD_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let mut daemon = Daemon::configured(&format!("kills-{name}"), "");
    let source = by.source(&daemon.dir);
    daemon.config = format!("{CHANNEL}{source}on_full = \"{}\"\n", format!("{full:?}").to_lowercase());
    daemon.come_back();
    // Who reads slowly makes the others lose something, unless the writer waits.
    let readers = [false, full != Full::Block].map(|slow| {
        let reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
        thread::spawn(move || seen::read(reader, slow))
    });
    let over = Arc::new(AtomicBool::new(false));
    let writing = by.begin(&mut daemon, &over);
    let both_are_back = |daemon: &Daemon| wait_for(|| daemon.stat().readers.len() == 2, || daemon.log());
    for kill in 0..kills {
        // Each daemon publishes something: what is missing before that died with the one before.
        let before = dealt_with(&daemon);
        wait_for(|| dealt_with(&daemon) > before, || daemon.log());
        thread::sleep(Duration::from_millis(u64::from(kill * 37 % 90)));
        daemon.die();
        thread::sleep(Duration::from_millis(u64::from(kill * 53 % 60)));
        daemon.come_back();
        writing.daemon_is_back(&mut daemon);
        if by != By::Lent {
            // A source goes on in a new segment each time, and a reader follows one move while it was away.
            both_are_back(&daemon);
        }
    }
    both_are_back(&daemon);
    wait_for(|| full.has_shown(&daemon), || format!("{:?}", daemon.stat()));
    over.store(true, Ordering::Relaxed);
    let runs = writing.end(&daemon);
    let stat = daemon.stat();
    assert_eq!(daemon.stop(), Some(0));
    let [fast, slow] = readers.map(joined);
    let written: u64 = runs.values().sum();
    // Nothing came twice.
    let unpublished =
        written.checked_sub(stat.messages + stat.dropped).unwrap_or_else(|| panic!("{written}: {stat:?}"));
    println!(
        "{by:?}, {full:?}: {kills} deaths, {written} messages written in {} runs, {} published, {} dropped, {} overwritten, lost by \
         the readers {} and {}; read by a daemon that died, or on the way to it: {unpublished}",
        runs.len(),
        stat.messages,
        stat.dropped,
        stat.overwritten,
        fast.lost,
        slow.lost
    );
    assert!(written > u64::from(kills));
    for seen in [&fast, &slow] {
        assert_eq!(seen.received + seen.lost, stat.messages, "each loss is reported: {seen:?}");
        check(by, full, seen, &runs, kills);
    }
    assert_eq!(stat.dropped > 0, full == Full::Drop, "{stat:?}");
    assert_eq!(slow.lost > 0, full == Full::Overwrite, "{slow:?}");
    assert!(unpublished * 4 <= u64::from(kills) * by.most_unpublished(), "{unpublished} messages");
}

/// That what a reader has not got is accounted for.
fn check(by: By, full: Full, seen: &Seen, runs: &BTreeMap<u64, u64>, kills: u32) {
    let died_with_the_daemon: Vec<_> = seen.holes.iter().filter(|hole| hole.missing != hole.lost).collect();
    match (by, full) {
        (_, Full::Drop) => {}
        // One run: what was read and not published is missing in the middle.
        (By::Fifo, Full::Block) => {
            assert!(died_with_the_daemon.len() <= kills as usize, "{died_with_the_daemon:?}");
            for hole in died_with_the_daemon {
                let bytes = bytes_of(hole.run, hole.before - hole.missing..hole.before);
                assert!(bytes <= by.most_unpublished(), "{bytes} bytes are missing: {hole:?}");
            }
        }
        // What was published between two deaths may be overwritten, so that one hole is that of both.
        (By::Fifo, Full::Overwrite) => assert!(died_with_the_daemon.len() <= kills as usize),
        (_, Full::Overwrite) if runs.len() > 1 => {}
        _ => assert!(died_with_the_daemon.is_empty(), "{died_with_the_daemon:?}"),
    }
    if full == Full::Block {
        for (&run, &written) in runs {
            let got = seen.runs.get(&run).copied().unwrap_or(0);
            assert!(got <= written, "run {run}: {got} of {written}");
            let bytes = bytes_of(run, got..written);
            assert!(bytes <= by.most_unpublished(), "{bytes} bytes of run {run} are missing: {got} of {written}");
        }
    }
}

macro_rules! campaigns {
    ($($name:ident: $by:ident, $full:ident;)*) => {
        $(#[test]
        fn $name() {
            campaign(stringify!($name), By::$by, Full::$full);
        })*
    };
}

campaigns! {
    lent_block: Lent, Block;
    lent_drop: Lent, Drop;
    lent_overwrite: Lent, Overwrite;
    stdin_block: Stdin, Block;
    stdin_drop: Stdin, Drop;
    stdin_overwrite: Stdin, Overwrite;
    fifo_block: Fifo, Block;
    fifo_drop: Fifo, Drop;
    fifo_overwrite: Fifo, Overwrite;
    unix_block: Unix, Block;
    unix_drop: Unix, Drop;
    unix_overwrite: Unix, Overwrite;
    packets_block: Packets, Block;
    packets_drop: Packets, Drop;
    packets_overwrite: Packets, Overwrite;
    exec_block: Exec, Block;
    exec_drop: Exec, Drop;
    exec_overwrite: Exec, Overwrite;
    tail_block: Tail, Block;
    tail_drop: Tail, Drop;
    tail_overwrite: Tail, Overwrite;
}
