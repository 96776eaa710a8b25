//! A storm of role changes: writers are stopped in the middle of whatever they do, lose their role, and go on when somebody
//! else has it. Readers receive every message once, in order, byte for byte.
//!
//! A few seconds long in the suite; `SHM_STORM_SECONDS` makes it longer.

use std::fs;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use shm_proto::os::fds;

use crate::common::{Daemon, Proc, heavy, wait_until};
use crate::content::mix;
use crate::helpers::{self, storm::END};

const WRITERS: usize = 3;
const READERS: [&str; 3] = ["wait", "copy", "poll"];

/// A process that writes whenever it is lent the role.
struct Writing {
    proc: Proc,
    told: UnixStream,
    /// The connection that the role was last lent over.
    link: Option<OwnedFd>,
}

impl Writing {
    /// Takes in what it has said: whether it has been lent the role since.
    fn listen(&mut self) -> bool {
        let (mut bytes, mut came, before) = ([0; 64], Vec::new(), self.link.is_some());
        while fds::receive(self.told.as_fd(), &mut bytes, &mut came, false).is_ok_and(|n| n > 0) {}
        self.link = came.pop().or(self.link.take());
        !before && self.link.is_some()
    }

    /// Takes the role away without its knowing.
    fn cut_off(&mut self) {
        if let Some(link) = self.link.take() {
            let _ = UnixStream::from(link).shutdown(Shutdown::Both);
        }
    }
}

fn length() -> Duration {
    let seconds = std::env::var("SHM_STORM_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(4))
}

#[test]
fn a_storm_of_role_changes_loses_nothing_on_a_block_channel() {
    storm("on_full = \"block\"");
}

#[test]
fn a_storm_of_role_changes_loses_nothing_on_an_ack_channel() {
    storm("on_full = \"block\"\nack = true\nack_timeout = \"60s\"");
}

#[test]
fn a_storm_of_role_changes_loses_nothing_that_a_drop_channel_has_taken() {
    storm("on_full = \"drop\"");
}

fn storm(keys: &str) {
    let _turn = heavy();
    let sizes = "capacity = \"128KiB\"\nmin = \"64KiB\"\nmax = \"4MiB\"\nevict_after = \"0\"";
    let daemon = Daemon::start(&format!("[[channel]]\n{sizes}\n{keys}\n"));
    let readers: Vec<Proc> = READERS
        .iter()
        .map(|way| {
            let started = daemon.place.path(&format!("started-{way}"));
            let reader = helpers::start(&daemon, "storm-read", &[way, started.to_str().unwrap()]);
            wait_until("the reader has chosen its start", || fs::exists(&started).unwrap());
            reader
        })
        .collect();
    let (socket, stop) = (daemon.place.path("storm"), daemon.place.path("stop"));
    let listener = UnixListener::bind(&socket).unwrap();
    let args = [socket.to_str().unwrap(), stop.to_str().unwrap()];
    let mut writers: Vec<Writing> = (0..WRITERS)
        .map(|_| {
            let proc = helpers::start(&daemon, "storm-write", &args);
            Writing { proc, told: listener.accept().unwrap().0, link: None }
        })
        .collect();
    let changes = blow(&mut writers, length());
    let (sure, unsure) = calm_down(writers, &stop);
    daemon.writer().publish(END).unwrap();
    let mut received = Vec::new();
    for reader in readers {
        let run = reader.wait().ok();
        received.push(run.err.split("received ").nth(1).unwrap().split('.').next().unwrap().parse::<u64>().unwrap());
    }
    let stat = daemon.stat();
    println!("{changes} changes, {sure} messages and {unsure} perhaps, {received:?} received: {stat:?}");
    assert!(received.iter().all(|count| *count == stat.messages), "{received:?} of {}", stat.messages);
    let published = stat.messages - 1;
    assert!((sure..=sure + unsure).contains(&published), "{published} of {sure} and {unsure}");
    assert_eq!((stat.evicted, stat.overwritten), (0, 0));
    assert!(stat.dropped == 0 || keys.contains("drop"));
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
    let (end, path) = (Instant::now() + length(), daemon.place.segment("main"));
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

/// Changes the role for so long: the one who has it is stopped anywhere, loses it, and goes on some time later.
fn blow(writers: &mut [Writing], length: Duration) -> u64 {
    let end = Instant::now() + length;
    let mut changes = 0;
    let mut random = (0..).map(mix);
    let mut random = |most: u64| random.next().unwrap() % most;
    let mut stopped: Option<usize> = None;
    while Instant::now() < end {
        let mut holder = None;
        wait_until("somebody is lent the role", || {
            holder = writers.iter_mut().position(Writing::listen);
            holder.is_some()
        });
        let Some(holder) = holder else { break };
        if let Some(before) = stopped.take() {
            // Now two write, or think so.
            std::thread::sleep(Duration::from_micros(random(3000)));
            writers[before].proc.thaw();
        }
        std::thread::sleep(Duration::from_micros(random(20_000)));
        if random(4) > 0 {
            writers[holder].proc.freeze();
            stopped = Some(holder);
        }
        writers[holder].cut_off();
        changes += 1;
    }
    if let Some(stopped) = stopped {
        writers[stopped].proc.thaw();
    }
    changes
}

/// Ends the writers, and adds up what they have published for certain, and what perhaps.
fn calm_down(writers: Vec<Writing>, stop: &Path) -> (u64, u64) {
    fs::write(stop, "").unwrap();
    let (mut sure, mut unsure) = (0, 0);
    for writer in writers {
        let run = writer.proc.wait().ok();
        let mut numbers =
            run.err.split("published ").nth(1).unwrap().split(' ').filter_map(|word| word.parse::<u64>().ok());
        sure += numbers.next().unwrap();
        unsure += numbers.next().unwrap();
    }
    (sure, unsure)
}
