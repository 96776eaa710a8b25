//! How long it takes until the role of a dead writer and the space of a dead reader are free.
//!
//! Some deaths in the suite, which asserts no time; `SHMD_KILLS` says how many:
//!
//! ```console
//! $ SHMD_KILLS=2000 cargo test --release -p shmd --test daemon deaths -- --nocapture --test-threads=1
//! ```

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shm_proto::{Reader, Start, Writer};
use shm_test_support::{Child, in_child, wait_until};

use super::{Daemon, PATIENCE, wait_for};

/// A ring that is soon full, and in which a reader is waited for as long as it lives.
const CHANNEL: &str =
    "[[channel]]\nname = \"main\"\ncapacity = \"16KiB\"\nmax = \"16KiB\"\nevict_after = \"0\"\nshrink_after = \"0\"\n";
/// Deaths, without `SHMD_KILLS`.
const DEATHS: usize = 20;

fn deaths() -> usize {
    std::env::var("SHMD_KILLS").map_or(DEATHS, |kills| kills.parse().unwrap())
}

fn say(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    let (median, p99, most) = (at(0.5), at(0.99), at(1.0));
    println!("{what}: {} deaths, median {median:.1?}, 99 % within {p99:.1?}, all within {most:.1?}", times.len());
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
fn killed(child: &Child) {
    kill(Pid::from_raw(child.pid().cast_signed()), Signal::SIGKILL).unwrap();
}

#[test]
fn the_role_of_a_writer_that_was_killed_is_free() {
    let daemon = Daemon::start("death-writer", CHANNEL);
    let endpoint = daemon.endpoint();
    let mut times = Vec::new();
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
        let begin = Instant::now();
        killed(&child);
        let writer = loop {
            match Writer::attach(&endpoint, None) {
                Ok(writer) => break writer,
                Err(e) => assert!(e.refusal().is_some(), "{e}: {}", daemon.log()),
            }
        };
        times.push(begin.elapsed());
        drop(writer);
        drop(child);
        wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
    }
    assert!(!daemon.log().contains("event=broken"), "{}", daemon.log());
    say("the writer role", times);
}

#[test]
fn the_space_of_a_reader_that_was_killed_is_free() {
    let daemon = Daemon::start("death-reader", CHANNEL);
    let endpoint = daemon.endpoint();
    let mut times = Vec::new();
    for _ in 0..deaths() {
        let child = doing(|| Reader::attach(&endpoint, None, Start::New).map(std::mem::forget).is_ok());
        wait_until("the reader is attached", || daemon.stat().readers.iter().any(|reader| reader.pid == child.pid()));
        let mut writer = Writer::attach(&endpoint, None).unwrap();
        while writer.try_publish(&[0; 1000]).is_ok() {}
        let begin = Instant::now();
        killed(&child);
        writer.publish(&[1; 1000]).unwrap();
        times.push(begin.elapsed());
        drop(writer);
        drop(child);
        wait_for(|| daemon.stat().writer.is_none() && daemon.stat().readers.is_empty(), || daemon.log());
    }
    let stat = daemon.stat();
    assert_eq!((stat.evicted, stat.dropped), (0, 0), "{}", daemon.log());
    say("a reader's space", times);
}
