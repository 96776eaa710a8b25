//! How long it takes until the role of a dead writer and the space of a dead reader are free.
//!
//! Some deaths in the suite, which asserts no time. `SHMD_KILLS` says how many; then it prints how long each took from the signal, and
//! from the moment at which the kernel told this process of the end, which it tells the daemon as well. On a busy machine a process
//! that was killed waits for a processor before it ends, and so do the daemon and this process. The last figures leave out how long the
//! daemon and this process were ready to run and did not.
//!
//! ```console
//! $ SHMD_KILLS=2000 cargo test --release -p shmd --test daemon deaths -- --nocapture --test-threads=1
//! ```

use std::fs;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shm_proto::internal::os::peer::pidfd;
use shm_proto::internal::os::poll::readable;
use shm_proto::{Reader, Start, Writer};
use shm_test_support::{Child, in_child, wait_until};

use super::{Daemon, PATIENCE, joined, wait_for};

/// A ring that is soon full, and in which a reader is waited for as long as it lives.
const CHANNEL: &str =
    "[[channel]]\nname = \"main\"\ncapacity = \"16KiB\"\nmax = \"16KiB\"\nevict_after = \"0\"\nshrink_after = \"0\"\n";
/// Deaths, without `SHMD_KILLS`.
const DEATHS: usize = 20;

fn deaths() -> usize {
    std::env::var("SHMD_KILLS").map_or(DEATHS, |kills| kills.parse().unwrap())
}

/// How long this thread and the daemon's main thread were ready to run and did not.
fn waited_for_processors(daemon: &Daemon) -> Duration {
    let daemon = format!("/proc/{}/task/{0}/schedstat", daemon.child.as_ref().unwrap().id());
    let waited = |path: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().nth(1).map_or(0, |ns| ns.parse().unwrap())
    };
    Duration::from_nanos(waited(&daemon) + waited("/proc/thread-self/schedstat"))
}

/// One death.
#[derive(Debug)]
struct Death {
    begin: Instant,
    waited: Duration,
    end_of_process: JoinHandle<Instant>,
}

/// Times from the signal, from the end of the process, and those without the waiting for processors.
#[derive(Debug, Default)]
struct Times {
    from_signal: Vec<Duration>,
    from_end: Vec<Duration>,
    net: Vec<Duration>,
}

impl Times {
    fn add(&mut self, daemon: &Daemon, death: Death) {
        let now = Instant::now();
        let waited = waited_for_processors(daemon) - death.waited;
        self.from_signal.push(now - death.begin);
        // The daemon may be faster than this process: a connection is closed before its process has ended.
        let from_end = now.saturating_duration_since(joined(death.end_of_process));
        self.from_end.push(from_end);
        self.net.push(from_end.saturating_sub(waited));
    }

    fn say(self, what: &str) {
        let net = "the end of the process, without waits for a processor";
        for (mut times, since) in
            [(self.from_signal, "the signal"), (self.from_end, "the end of the process"), (self.net, net)]
        {
            times.sort_unstable();
            let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
            let (median, p99, most) = (at(0.5), at(0.99), at(1.0));
            let count = times.len();
            println!(
                "{what}: {count} deaths, from {since}: median {median:.1?}, 99 % within {p99:.1?}, all within {most:.1?}"
            );
        }
    }
}

/// A process that sleeps until it is killed, once it has done something.
fn doing(work: impl FnOnce() -> bool) -> Child {
    in_child(|| {
        if !work() {
            return 1;
        }
        loop {
            std::thread::sleep(PATIENCE);
        }
    })
}

/// Kills it; it is waited for when it is dropped.
fn killed(daemon: &Daemon, child: &Child) -> Death {
    let ended = pidfd(child.pid()).unwrap();
    let end_of_process = thread::spawn(move || {
        assert_eq!(readable(std::os::fd::AsFd::as_fd(&ended), Some(PATIENCE)), Ok(true));
        Instant::now()
    });
    let (begin, waited) = (Instant::now(), waited_for_processors(daemon));
    kill(Pid::from_raw(child.pid().cast_signed()), Signal::SIGKILL).unwrap();
    Death { begin, waited, end_of_process }
}

#[test]
fn the_role_of_a_writer_that_was_killed_is_free() {
    let daemon = Daemon::start("death-writer", CHANNEL);
    let endpoint = daemon.endpoint();
    let mut times = Times::default();
    for _ in 0..deaths() {
        // Nothing is forked while this process has memory of the channel.
        let child = doing(|| {
            let attached = Writer::attach(&endpoint, None).map(|mut writer| {
                let published = writer.try_publish(b"and then it dies").is_ok();
                std::mem::forget(writer);
                published
            });
            attached.is_ok_and(|published| published)
        });
        wait_for(|| daemon.stat().writer.is_some_and(|writer| writer.pid == child.pid()), || daemon.log());
        let death = killed(&daemon, &child);
        let writer = loop {
            match Writer::attach(&endpoint, None) {
                Ok(writer) => break writer,
                Err(e) => assert!(e.refusal().is_some(), "{e}: {}", daemon.log()),
            }
        };
        times.add(&daemon, death);
        drop(writer);
        drop(child);
        wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
    }
    assert!(!daemon.log().contains("event=broken"), "{}", daemon.log());
    times.say("the writer role");
}

#[test]
fn the_space_of_a_reader_that_was_killed_is_free() {
    let daemon = Daemon::start("death-reader", CHANNEL);
    let endpoint = daemon.endpoint();
    let mut times = Times::default();
    for _ in 0..deaths() {
        let child = doing(|| Reader::attach(&endpoint, None, Start::New).map(std::mem::forget).is_ok());
        wait_until("the reader is attached", || daemon.stat().readers.iter().any(|reader| reader.pid == child.pid()));
        let mut writer = Writer::attach(&endpoint, None).unwrap();
        while writer.try_publish(&[0; 1000]).is_ok() {}
        let death = killed(&daemon, &child);
        writer.publish(&[1; 1000]).unwrap();
        times.add(&daemon, death);
        drop(writer);
        drop(child);
        wait_for(|| daemon.stat().writer.is_none() && daemon.stat().readers.is_empty(), || daemon.log());
    }
    let stat = daemon.stat();
    assert_eq!((stat.evicted, stat.dropped), (0, 0), "{}", daemon.log());
    times.say("a reader's space");
}
