//! With `membarrier(2)` and without: in a sandbox that refuses the call, or has it for one side only, everything works.

use std::fs;
use std::process::Command;

use nix::libc::{ENOSYS, EPERM};
use serde_json::Value;
use shm_proto::Start;
use shm_proto::internal::control::stat::ReaderState;

use crate::helpers;
use shm_test_support::{
    Daemon, Place, Proc, Run, clean, has_membarrier, heavy, program, skip, wait_for, wait_until,
    without_membarrier as sandboxed,
};

/// Runs `start` in a sandbox without `membarrier`, or as it is.
fn started<T: Send>(blind: bool, start: impl FnOnce() -> T + Send) -> Option<T> {
    if blind { sandboxed(ENOSYS, start) } else { Some(start()) }
}

fn skip_without_filters(test: &str) {
    skip(test, "a program may not filter its own system calls here");
}

/// True, and said, when there is no `membarrier` to be taken away.
fn skip_without_membarrier(test: &str) -> bool {
    if !has_membarrier() {
        skip(test, "this kernel has no membarrier");
    }
    !has_membarrier()
}

/// Which barrier the daemon says it uses.
#[track_caller]
fn said_when_ready(daemon: &Daemon) -> String {
    wait_for("the daemon says that it is ready", || {
        let log = daemon.log();
        let ready = log.split_inclusive('\n').find(|line| line.contains("event=ready ") && line.ends_with('\n'))?;
        Some(ready.trim_end().rsplit_once("barrier=")?.1.to_owned())
    })
}

#[test]
fn a_daemon_that_has_membarrier_uses_it_and_says_so() {
    if skip_without_membarrier("a_daemon_that_has_membarrier_uses_it_and_says_so") {
        return;
    }
    let daemon = Daemon::start("");
    assert_eq!(said_when_ready(&daemon), "membarrier");
    assert!(daemon.reader(Start::New).geometry().asymmetric);
}

#[test]
fn a_daemon_that_may_not_call_membarrier_uses_fences_and_says_so() {
    for errno in [ENOSYS, EPERM] {
        let Some(daemon) = sandboxed(errno, || Daemon::start("")) else {
            return skip_without_filters("a_daemon_that_may_not_call_membarrier_uses_fences_and_says_so");
        };
        assert_eq!(said_when_ready(&daemon), "fence");
        // Programs that have the call are told not to count on it.
        assert!(!daemon.reader(Start::New).geometry().asymmetric);
    }
}

/// Ten messages, each to readers that sleep: one in a poll loop, one on its semaphore.
fn sleepers_get_every_message(test: &str, [daemon_is_blind, readers_are, writer_is]: [bool; 3]) {
    let Some(daemon) = started(daemon_is_blind, || Daemon::start("")) else { return skip_without_filters(test) };
    let noted = daemon.place.path("noted");
    let readers =
        started(readers_are, || (daemon.spawn(&["read"]), helpers::start(&daemon, "note", &[noted.to_str().unwrap()])));
    let Some((mut read, _note)) = readers else { return skip_without_filters(test) };
    daemon.until_readers(2);
    let Some(mut write) = started(writer_is, || daemon.spawn_piped(&["write"])) else {
        return skip_without_filters(test);
    };
    let mut all = String::new();
    for n in 0..10 {
        daemon.until_stat("both readers sleep", |stat| {
            stat.readers.iter().all(|reader| reader.state == ReaderState::Sleeping)
        });
        let line = format!("message {n}\n");
        write.feed(line.as_bytes());
        all.push_str(&line);
        read.until_out_has(&line);
        wait_until("the other reader has it too", || fs::read_to_string(&noted).is_ok_and(|text| text == all));
    }
    assert_eq!(read.out_so_far(), all);
}

#[test]
fn sleeping_readers_get_every_message_where_nobody_has_membarrier() {
    sleepers_get_every_message("sleeping_readers_get_every_message_where_nobody_has_membarrier", [true, true, true]);
}

#[test]
fn sleeping_readers_get_every_message_when_only_the_daemon_has_no_membarrier() {
    let test = "sleeping_readers_get_every_message_when_only_the_daemon_has_no_membarrier";
    sleepers_get_every_message(test, [true, false, false]);
}

#[test]
fn sleeping_readers_get_every_message_when_only_they_have_no_membarrier() {
    let test = "sleeping_readers_get_every_message_when_only_they_have_no_membarrier";
    sleepers_get_every_message(test, [false, true, false]);
}

#[test]
fn sleeping_readers_get_every_message_when_only_the_writer_has_no_membarrier() {
    let test = "sleeping_readers_get_every_message_when_only_the_writer_has_no_membarrier";
    sleepers_get_every_message(test, [false, false, true]);
}

/// How often the threads of a process have gone to sleep so far.
#[track_caller]
fn sleeps(proc: &Proc) -> u64 {
    let threads = fs::read_dir(format!("/proc/{}/task", proc.pid())).unwrap().map(|entry| entry.unwrap().path());
    let statuses = threads.filter_map(|thread| fs::read_to_string(thread.join("status")).ok());
    let count = |status: &str| {
        status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok())
    };
    statuses.filter_map(|status| count(&status)).sum::<u64>()
}

#[test]
fn only_a_reader_that_lacks_the_writers_membarrier_looks_again_every_few_milliseconds() {
    let test = "only_a_reader_that_lacks_the_writers_membarrier_looks_again_every_few_milliseconds";
    if skip_without_membarrier(test) {
        return;
    }
    for (daemon_is_blind, looks_often) in [(false, true), (true, false)] {
        let Some(daemon) = started(daemon_is_blind, || Daemon::start("")) else { return skip_without_filters(test) };
        let note = |name| helpers::start(&daemon, "note", &[daemon.place.path(name).to_str().unwrap()]);
        let Some(blind) = sandboxed(ENOSYS, || note("blind")) else { return skip_without_filters(test) };
        let sighted = note("sighted");
        daemon.until_stat("both readers sleep", |stat| {
            stat.readers.len() == 2 && stat.readers.iter().all(|reader| reader.state == ReaderState::Sleeping)
        });
        // Whoever can rely on being woken sleeps for a second at a time, the other for two thousandths of one.
        let before = [&blind, &sighted].map(sleeps);
        let slept = wait_for("one reader has slept several times", || {
            let slept = [sleeps(&blind) - before[0], sleeps(&sighted) - before[1]];
            (slept[1] >= 3).then_some(slept)
        });
        assert_eq!(slept[0] > 10 * slept[1], looks_often, "blind and sighted went to sleep {slept:?} times");
    }
}

#[test]
fn a_reader_that_polls_and_lacks_the_writers_membarrier_pauses_before_it_trusts_an_empty_ring() {
    let test = "a_reader_that_polls_and_lacks_the_writers_membarrier_pauses_before_it_trusts_an_empty_ring";
    if skip_without_membarrier(test) {
        return;
    }
    let daemon = Daemon::start("");
    let Some(arm) = sandboxed(ENOSYS, || helpers::start(&daemon, "arm", &["200"])) else {
        return skip_without_filters(test);
    };
    let run = arm.wait().ok();
    let shortest = run.err.lines().find_map(|line| line.strip_prefix("shortest ")?.strip_suffix(" ns"));
    let shortest: u64 = shortest.and_then(|ns| ns.parse().ok()).unwrap_or_else(|| panic!("{run:?}"));
    // A store reaches the other processors in less than a microsecond. Without a pause the shortest takes few.
    assert!(shortest >= 50_000, "{shortest} ns from the flag to the last look");
}

#[test]
fn a_bench_without_membarrier_says_so_and_has_its_figures() {
    let _turn = heavy();
    let place = Place::new();
    let bench = |args: &[&str]| -> Command {
        let mut command = clean(program("shmctl"));
        command.args(["bench", "--quick", "--json", "--alone"]).args(args);
        command.env("TMPDIR", &place.dir);
        command
    };
    let parsed = |run: Run| -> Value { serde_json::from_slice(&run.out).unwrap_or_else(|e| panic!("{e}: {run:?}")) };
    let proc = sandboxed(ENOSYS, || Proc::spawn(bench(&["--duration", "3ms"])));
    let Some(proc) = proc else {
        return skip_without_filters("a_bench_without_membarrier_says_so_and_has_its_figures");
    };
    let document = parsed(proc.wait().ok());
    assert_eq!((&document["host"]["barrier"], &document["complete"]), (&"fence".into(), &true.into()));
    if has_membarrier() {
        let document = parsed(Run::of(bench(&["--measure", "latency", "--messages", "3"])).ok());
        assert_eq!(document["host"]["barrier"], "asymmetric");
    }
}
