//! A storm: writers are stopped in the middle of whatever they do, lose their role, and go on when somebody else has it, or are
//! killed; readers come and are killed; the channel is made larger and smaller. Readers that stay receive every message once,
//! in order, byte for byte; on an `overwrite` channel what they do not receive is reported as lost.
//!
//! A few seconds long in the suite; `SHM_STORM_SECONDS` makes it longer.

use std::fs;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use shm_proto::internal::os::fds;

use crate::content::mix;
use crate::helpers;
use crate::helpers::storm::{BATCH, END, read_tally};
use shm_test_support::{Daemon, Proc, heavy, wait_for, wait_until};

const WRITERS: usize = 3;
pub(crate) const READERS: [&str; 3] = ["wait", "copy", "poll"];

/// A process that writes whenever it is lent the role.
pub(crate) struct Writing {
    proc: Proc,
    told: UnixStream,
    tally: PathBuf,
    /// The connection that the role was last lent over.
    link: Option<OwnedFd>,
}

impl Writing {
    /// Takes in what it has said: whether it has been lent the role since.
    pub(crate) fn listen(&mut self) -> bool {
        let (mut bytes, mut came, before) = ([0; 64], Vec::new(), self.link.is_some());
        while fds::receive(self.told.as_fd(), &mut bytes, &mut came, false).is_ok_and(|n| n > 0) {}
        self.link = came.pop().or(self.link.take());
        !before && self.link.is_some()
    }

    /// Whether it has been lent the role since the last look.
    pub(crate) fn is_lent_anew(&mut self) -> bool {
        self.link = None;
        self.listen()
    }

    /// Takes the role away without its knowing.
    fn cut_off(&mut self) {
        if let Some(link) = self.link.take() {
            let _ = UnixStream::from(link).shutdown(Shutdown::Both);
        }
    }
}

/// The processes that want the role.
pub(crate) struct Writers {
    listener: UnixListener,
    pub(crate) list: Vec<Writing>,
    started: usize,
    /// What those that were killed have published for certain, and what perhaps.
    killed: (u64, u64),
}

impl Writers {
    pub(crate) fn start(daemon: &Daemon) -> Self {
        let listener = UnixListener::bind(daemon.place.path("storm")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut writers = Writers { listener, list: Vec::new(), started: 0, killed: (0, 0) };
        for _ in 0..WRITERS {
            let writing = writers.another(daemon);
            writers.list.push(writing);
        }
        writers
    }

    fn another(&mut self, daemon: &Daemon) -> Writing {
        self.started += 1;
        let place = &daemon.place;
        let (socket, stop, tally) =
            (place.path("storm"), place.path("stop"), place.path(&format!("tally-{}", self.started)));
        let args = [&socket, &stop, &tally].map(|path| path.to_str().unwrap());
        let proc = helpers::start(daemon, "storm-write", &args);
        let (told, _) = wait_for("the writer has come", || self.listener.accept().ok());
        Writing { proc, told, tally, link: None }
    }

    /// Kills one of them, and starts another one in its place.
    pub(crate) fn replace(&mut self, daemon: &Daemon, which: usize) {
        let new = self.another(daemon);
        let old = std::mem::replace(&mut self.list[which], new);
        old.proc.kill();
        let (sure, unsure) = read_tally(&old.tally);
        let _ = fs::remove_file(&old.tally);
        self.killed = (self.killed.0 + sure, self.killed.1 + unsure + BATCH);
    }

    /// Ends the writers, and adds up what they have published for certain, and what perhaps.
    pub(crate) fn calm_down(self, daemon: &Daemon) -> (u64, u64) {
        fs::write(daemon.place.path("stop"), "").unwrap();
        let (mut sure, mut unsure) = self.killed;
        for writer in self.list {
            writer.proc.wait().ok();
            let tally = read_tally(&writer.tally);
            (sure, unsure) = (sure + tally.0, unsure + tally.1);
        }
        (sure, unsure)
    }
}

fn length() -> Duration {
    let seconds = std::env::var("SHM_STORM_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(4))
}

#[test]
fn a_storm_loses_nothing_on_a_block_channel() {
    storm("on_full = \"block\"");
}

#[test]
fn a_storm_loses_nothing_on_an_ack_channel() {
    storm("on_full = \"block\"\nack = true\nack_timeout = \"60s\"");
}

#[test]
fn a_storm_loses_nothing_that_a_drop_channel_has_taken() {
    storm("on_full = \"drop\"");
}

#[test]
fn a_storm_loses_nothing_unseen_on_an_overwrite_channel() {
    storm("on_full = \"overwrite\"");
}

/// Readers that stay to the end, each in its own way.
pub(crate) fn start_readers(daemon: &Daemon) -> Vec<Proc> {
    let start = |way: &&str| {
        let started = daemon.place.path(&format!("started-{way}"));
        let reader = helpers::start(daemon, "storm-read", &[way, started.to_str().unwrap()]);
        wait_until("the reader has chosen its start", || fs::exists(&started).unwrap());
        reader
    };
    READERS.iter().map(start).collect()
}

/// How many messages each of them has received, and of how many.
pub(crate) fn end_readers(readers: Vec<Proc>) -> Vec<(u64, u64)> {
    let end = |reader: Proc| {
        let run = reader.wait().ok();
        let said = run.err.split("received ").nth(1).unwrap().split('.').next().unwrap();
        let (got, of) = said.split_once(" of ").unwrap();
        (got.parse().unwrap(), of.parse().unwrap())
    };
    readers.into_iter().map(end).collect()
}

const MIN: u64 = 64 << 10;
const MAX: u64 = 4 << 20;

fn storm(keys: &str) {
    let _turn = heavy();
    // Long, for readers that the storm stops; those who only read are never evicted for it.
    let sizes = "capacity = \"128KiB\"\nmin = \"64KiB\"\nmax = \"4MiB\"\nevict_after = \"60s\"";
    let daemon = Daemon::start(&format!("[[channel]]\n{sizes}\n{keys}\n"));
    let mut readers = start_readers(&daemon);
    let mut writers = Writers::start(&daemon);
    let done = blow(&daemon, &mut writers, &mut readers, length());
    let (sure, unsure) = writers.calm_down(&daemon);
    daemon.writer().publish(END).unwrap();
    let received = end_readers(readers);
    let stat = daemon.stat();
    println!("{done:?}, {sure} messages and {unsure} perhaps, {received:?} received: {stat:?}");
    let loses = keys.contains("overwrite");
    for (got, of) in received {
        assert!(of == stat.messages && (got == of || loses), "{got} of {of}, {} published", stat.messages);
    }
    let published = stat.messages - 1;
    assert!((sure..=sure + unsure).contains(&published), "{published} of {sure} and {unsure}");
    assert_eq!(stat.evicted, 0);
    assert!(stat.overwritten == 0 || loses);
    // An overwrite channel drops a message that is larger than its present capacity, if the daemon is slow to let it grow.
    assert!(stat.dropped == 0 || keys.contains("drop") || loses);
    assert!(daemon.log().contains("event=move"), "the channel has moved");
    assert!(!daemon.log().contains("corrupt") && !daemon.log().contains("broken"), "{}", daemon.log());
}

/// Programs that were lent the role make nonsense of the ring, one after the other. Nobody dies of it, and the channel goes on.
#[test]
fn a_storm_of_scribbling_writers_kills_nobody() {
    let _turn = heavy();
    let daemon = Daemon::start("[[channel]]\ncapacity = \"128KiB\"\nmax = \"16MiB\"\nevict_after = \"0\"\n");
    let readers: Vec<Proc> = READERS
        .iter()
        .map(|way| {
            let started = daemon.place.path(&format!("started-{way}"));
            let reader = helpers::start(&daemon, "endure", &[way, started.to_str().unwrap()]);
            wait_until("the reader has chosen its start", || fs::exists(&started).unwrap());
            reader
        })
        .collect();
    let (end, path) = (Instant::now() + length(), daemon.place.object("main"));
    let mut scribbled = 0u64;
    while Instant::now() < end {
        helpers::start(&daemon, "scribble", &[path.to_str().unwrap(), &scribbled.to_string()]).wait().ok();
        scribbled += 1;
        daemon.until_stat("the role is free", |stat| stat.writer.is_none());
    }
    // Honest ones, until the readers have found everything that is wrong.
    for mut reader in readers {
        while reader.is_running() {
            let mut writer = daemon.writer();
            while reader.is_running() && writer.publish_within(END, Duration::from_secs(1)).is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let run = reader.wait().ok();
        println!("{}", run.err.lines().last().unwrap_or_default());
    }
    let moves = daemon.log().matches("event=move").count();
    println!("{scribbled} writers have scribbled, {moves} segments were replaced");
    assert!(daemon.log().contains("event=broken"), "{}", daemon.log());
}

/// What the storm has done.
#[derive(Debug, Default)]
#[allow(dead_code, reason = "printed")]
struct Done {
    role_changes: u64,
    writers_killed: u64,
    readers_killed: u64,
    readers_stopped: u64,
    resizes: u64,
}

/// Blows for this time: the holder of the role is stopped anywhere, loses the role, and goes on some time later, or is killed. Readers
/// come and are killed, and the channel's size changes.
fn blow(daemon: &Daemon, writers: &mut Writers, readers: &mut [Proc], length: Duration) -> Done {
    let end = Instant::now() + length;
    let mut done = Done::default();
    let mut random = (0..).map(mix);
    let mut random = |most: u64| random.next().unwrap() % most;
    let mut stopped: Option<usize> = None;
    let mut passing: Option<Proc> = None;
    while Instant::now() < end {
        let mut holder = None;
        wait_until("somebody is lent the role", || {
            holder = writers.list.iter_mut().position(Writing::listen);
            holder.is_some()
        });
        let Some(holder) = holder else { break };
        if let Some(before) = stopped.take() {
            // Now two write, or think so.
            std::thread::sleep(Duration::from_micros(random(3000)));
            writers.list[before].proc.thaw();
        }
        match random(12) {
            0 | 1 => {
                // Refused while another one is under way, or while there is more in the ring.
                done.resizes += u64::from(daemon.resize(MIN + random(MAX - MIN)).is_ok());
            }
            2 => {
                if let Some(reader) = passing.take() {
                    reader.kill();
                    done.readers_killed += 1;
                }
                let way = READERS[random(READERS.len() as u64) as usize];
                passing = Some(helpers::start(daemon, "storm-read-on", &[way]));
            }
            3 => {
                let reader = &mut readers[random(READERS.len() as u64) as usize];
                reader.freeze();
                std::thread::sleep(Duration::from_micros(random(20_000)));
                reader.thaw();
                done.readers_stopped += 1;
            }
            _ => {}
        }
        std::thread::sleep(Duration::from_micros(random(20_000)));
        match random(8) {
            0 => {
                writers.replace(daemon, holder);
                done.writers_killed += 1;
                continue;
            }
            1 | 2 => {}
            _ => {
                writers.list[holder].proc.freeze();
                stopped = Some(holder);
            }
        }
        writers.list[holder].cut_off();
        done.role_changes += 1;
    }
    if let Some(stopped) = stopped {
        writers.list[stopped].proc.thaw();
    }
    if let Some(reader) = passing {
        reader.kill();
    }
    done
}
