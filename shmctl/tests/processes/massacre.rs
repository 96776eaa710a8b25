//! A massacre: readers, the writer that has the role, and the daemon are killed in random order while messages flow. Readers that live
//! receive every message once, in order, byte for byte; what was published for certain is there; and nothing is left of the dead.
//!
//! Some deaths in the suite; `SHMD_KILLS` says how many:
//!
//! ```console
//! $ SHMD_KILLS=10000 cargo test --release -p shmctl --test processes massacre -- --nocapture --test-threads=1
//! ```

use std::fs;
use std::time::Duration;

use shm_test_support::{Daemon, PATIENCE, Proc, Setup, heavy, shared_memory, wait_for, wait_until};

use crate::content::mix;
use crate::helpers;
use crate::helpers::storm::END;
use crate::storm::{READERS, Writers, Writing, end_readers, start_readers};

/// Deaths, without `SHMD_KILLS`.
const KILLS: u64 = 20;
/// Nobody is evicted.
const CHANNEL: &str = "[[channel]]\ncapacity = \"128KiB\"\nmin = \"64KiB\"\nmax = \"4MiB\"\nevict_after = \"0\"\n";

/// Who was killed.
#[derive(Debug, Default)]
struct Dead {
    daemons: u64,
    writers: u64,
    readers: u64,
}

impl Dead {
    fn all(&self) -> u64 {
        self.daemons + self.writers + self.readers
    }
}

#[test]
fn a_massacre_costs_a_block_channel_nothing() {
    massacre("on_full = \"block\"");
}

#[test]
fn a_massacre_costs_a_drop_channel_nothing_that_it_has_taken() {
    massacre("on_full = \"drop\"");
}

#[test]
fn a_massacre_costs_an_overwrite_channel_nothing_unseen() {
    massacre("on_full = \"overwrite\"");
}

fn descriptors(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

/// Waits until these are attached.
fn await_readers(daemon: &Daemon, readers: &mut [Proc]) {
    wait_until("those who stay are back", || {
        let stat = daemon.stat();
        readers.iter_mut().all(|reader| {
            assert!(reader.is_running(), "it lives: {reader:?}");
            stat.readers.iter().any(|it| it.pid == reader.pid())
        })
    });
}

fn massacre(keys: &str) {
    let _turn = heavy();
    let kills = std::env::var("SHMD_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let config = format!("{CHANNEL}{keys}\n");
    let mut daemon = Daemon::start(&config);
    let before = descriptors(&daemon);
    let mut readers = start_readers(&daemon);
    let mut writers = Writers::start(&daemon);
    let (mut random, mut dead) = ((0..).map(mix), Dead::default());
    let mut random = |most: u64| random.next().unwrap() % most;
    let mut passing: Option<Proc> = None;
    let mut holder = 0;
    let mut published = 0;
    while dead.all() < kills {
        // Under load: each death comes after a message.
        published = daemon.until_stat("messages flow", |stat| stat.messages > published).messages;
        std::thread::sleep(Duration::from_micros(random(10_000)));
        holder = writers.list.iter_mut().position(Writing::is_lent_anew).unwrap_or(holder);
        match random(3) {
            0 => {
                if let Some(reader) = passing.take() {
                    reader.kill();
                    dead.readers += 1;
                }
                let way = READERS[random(READERS.len() as u64) as usize];
                passing = Some(helpers::start(&daemon, "storm-read-on", &[way]));
            }
            1 => {
                writers.replace(&daemon, holder);
                dead.writers += 1;
            }
            _ => {
                let log = daemon.log();
                assert!(!log.contains("corrupt") && !log.contains("broken"), "{log}");
                daemon.kill();
                dead.daemons += 1;
                std::thread::sleep(Duration::from_micros(random(30_000)));
                daemon.launch(Setup::new(&config));
                await_readers(&daemon, &mut readers);
            }
        }
    }
    if let Some(reader) = passing {
        reader.kill();
    }
    let (sure, unsure) = writers.calm_down(&daemon);
    wait_for("the role is free", || shm_proto::Writer::attach(&daemon.endpoint(), None).ok())
        .publish_within(END, PATIENCE)
        .unwrap();
    let received = end_readers(readers);
    let stat = daemon.until_stat("nobody is there", |stat| stat.readers.is_empty() && stat.writer.is_none());
    println!(
        "{keys}: {dead:?}; {sure} messages and {unsure} perhaps, received by those who stayed {received:?}: {stat:?}"
    );
    let loses = keys.contains("overwrite");
    for (got, of) in received {
        assert!(of == stat.messages && (got == of || loses), "{got} of {of}, {} published", stat.messages);
    }
    let published = stat.messages - 1;
    assert!((sure..=sure + unsure).contains(&published), "{published} of {sure} and {unsure}");
    assert_eq!(stat.evicted, 0);
    assert!(stat.overwritten == 0 || loses);
    assert!(stat.dropped == 0 || keys.contains("drop") || loses);
    wait_until(
        || format!("{before} descriptors before, now {}", descriptors(&daemon)),
        || descriptors(&daemon) <= before,
    );
    assert_eq!(shared_memory(&daemon.place.prefix), [daemon.place.object("main")]);
}
