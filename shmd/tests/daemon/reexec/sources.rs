//! Every byte of every source, once.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket};
use shm_proto::internal::control::stat::SourceState;

use super::{Daemon, Running, reading, times};
use crate::{joined, wait_for};

/// So small that a source waits for its readers most of the time: it rests in the middle of a read.
const SMALL: &str = "capacity = \"64KiB\"\nmin = \"64KiB\"\nmax = \"64KiB\"\nmax_message = \"16KiB\"\n";

/// A line of a stream: its number, and more or less of the rest.
fn line(n: u64) -> String {
    format!("{n} {}\n", "x".repeat((n * n % 3000) as usize))
}

/// Writes lines in pieces that end anywhere. Returns how many.
fn write_lines(to: &mut impl Write, goes_on: &AtomicBool, who: &str) -> u64 {
    let mut n = 0;
    while goes_on.load(Ordering::Relaxed) {
        let text: String = (n..n + 5).map(|n| format!("{who}{}", line(n))).collect();
        n += 5;
        let cut = (n * 131 % text.len() as u64) as usize;
        to.write_all(&text.as_bytes()[..cut]).unwrap();
        sleep(Duration::from_micros(300));
        to.write_all(&text.as_bytes()[cut..]).unwrap();
    }
    n
}

fn check_numbers() -> impl FnMut(&str) + Send + 'static {
    let mut next = 0;
    move |text: &str| {
        assert_eq!(format!("{text}\n"), line(next));
        next += 1;
    }
}

/// Replaces the program again and again while something is fed.
fn replace_under_load(daemon: &Daemon) {
    let mut before = 0;
    for n in 0..times() {
        let so_far = before;
        wait_for(
            || {
                before = daemon.stat().messages;
                before > so_far
            },
            || daemon.log(),
        );
        sleep(Duration::from_millis(u64::from(n * 37 % 20)));
        daemon.must_reexec();
    }
}

fn end(mut daemon: Daemon, reading: JoinHandle<String>, written: u64) {
    // A reader that has not come back yet when the daemon stops takes it for dead.
    let is_over = || daemon.stat().messages == written && !daemon.stat().readers.is_empty();
    wait_for(is_over, || format!("{written}: {:?} {}", daemon.stat(), daemon.log()));
    // A source counts a message after it has published it.
    let input = || daemon.stat().input.unwrap();
    wait_for(|| input().messages >= written, || format!("{written}: {:?}", input()));
    assert_eq!((input().messages, input().errors), (written, 0), "{:?}", input());
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert_eq!(joined(reading), "channel main is closed");
    daemon.assert_gone();
}

#[test]
fn standard_input() {
    let mut daemon = Daemon::copied("reexec-stdin", &format!("{SMALL}source = \"stdin\""));
    let reading = reading(&daemon, check_numbers());
    let mut stdin = daemon.child.as_mut().unwrap().stdin.take().unwrap();
    let running = Running::new();
    let flag = running.flag();
    let writing = thread::spawn(move || write_lines(&mut stdin, &flag, ""));
    replace_under_load(&daemon);
    running.end();
    let written = joined(writing);
    // The input has ended, and is not begun again.
    wait_for(|| daemon.stat().input.unwrap().state == SourceState::Ended, || daemon.log());
    daemon.must_reexec();
    assert_eq!(daemon.stat().input.unwrap().state, SourceState::Ended);
    end(daemon, reading, written);
}

#[test]
fn a_fifo() {
    let daemon = Daemon::copied("reexec-fifo", &format!("{SMALL}source = \"fifo:DIR/in\""));
    let reading = reading(&daemon, check_numbers());
    let mut fifo = OpenOptions::new().write(true).open(daemon.path("in")).unwrap();
    let running = Running::new();
    let flag = running.flag();
    let writing = thread::spawn(move || write_lines(&mut fifo, &flag, ""));
    replace_under_load(&daemon);
    running.end();
    let written = joined(writing);
    end(daemon, reading, written);
}

#[test]
fn what_a_fifos_writer_has_left_without_an_end_is_one_message() {
    let daemon = Daemon::copied("reexec-fifo-end", "source = \"fifo:DIR/in\"");
    let texts = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&texts);
    let reading = reading(&daemon, move |text| seen.lock().unwrap().push(text.to_owned()));
    for n in 0..times() {
        let mut fifo = OpenOptions::new().write(true).open(daemon.path("in")).unwrap();
        write!(fifo, "{n}: begun").unwrap();
        // Read, and not finished.
        wait_for(|| daemon.stat().input.unwrap().state == SourceState::Open, || daemon.log());
        daemon.must_reexec();
        write!(fifo, ", and").unwrap();
        drop(fifo);
        wait_for(|| daemon.stat().messages == u64::from(n) + 1, || daemon.log());
    }
    let expected: Vec<String> = (0..times()).map(|n| format!("{n}: begun, and")).collect();
    end(daemon, reading, u64::from(times()));
    assert_eq!(*texts.lock().unwrap(), expected);
}

/// Feeds by several clients at once; each of their streams is whole.
fn clients(name: &str, source: &str, packets: bool) {
    let daemon = Daemon::copied(name, &format!("{SMALL}source = \"{source}:DIR/in\""));
    let mut next = [0; 3];
    let reading = reading(&daemon, move |text| {
        let (who, rest) = text.split_once(':').unwrap();
        let next = &mut next[who.parse::<usize>().unwrap()];
        assert_eq!(format!("{rest}\n"), line(*next), "client {who}");
        *next += 1;
    });
    let running = Running::new();
    let writing: Vec<_> = (0..3)
        .map(|who| {
            let (flag, path) = (running.flag(), daemon.path("in"));
            thread::spawn(move || {
                if !packets {
                    let mut stream = UnixStream::connect(path).unwrap();
                    return write_lines(&mut stream, &flag, &format!("{who}:"));
                }
                let sender = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
                connect(sender.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
                let mut n = 0;
                while flag.load(Ordering::Relaxed) {
                    let text = format!("{who}:{}", line(n));
                    send(sender.as_raw_fd(), text.trim_end_matches('\n').as_bytes(), MsgFlags::MSG_NOSIGNAL).unwrap();
                    n += 1;
                }
                n
            })
        })
        .collect();
    replace_under_load(&daemon);
    running.end();
    let written = writing.into_iter().map(joined).sum();
    end(daemon, reading, written);
}

#[test]
fn clients_of_a_socket() {
    clients("reexec-unix", "unix", false);
}

#[test]
fn clients_that_send_packets() {
    clients("reexec-packets", "unix-seqpacket", true);
}

#[test]
fn a_file_that_is_followed_also_when_its_name_is_gone() {
    let mut daemon = Daemon::with_source("reexec-tail", &format!("{SMALL}source = \"tail:DIR/followed\""));
    let path = daemon.path("followed");
    File::create(&path).unwrap();
    daemon.put_copy();
    daemon.run_copy(&[]);
    let is_slow = Arc::new(AtomicBool::new(false));
    let (slow, mut check) = (Arc::clone(&is_slow), check_numbers());
    let reading = reading(&daemon, move |text| {
        if slow.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(1));
        }
        check(text);
    });
    let running = Running::new();
    let flag = running.flag();
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    let writing = thread::spawn(move || write_lines(&mut file, &flag, ""));
    replace_under_load(&daemon);
    running.end();
    let written = joined(writing);
    // No other program could find this file. It has so much for a slow reader that this one does not come to its end, where it
    // would close it.
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    wait_for(|| daemon.stat().messages == written, || daemon.log());
    is_slow.store(true, Ordering::Relaxed);
    let all = written + 3000;
    let rest: String = (written..all).map(line).collect();
    file.write_all(rest.as_bytes()).unwrap();
    fs::remove_file(&path).unwrap();
    daemon.must_reexec();
    is_slow.store(false, Ordering::Relaxed);
    end(daemon, reading, all);
}

#[test]
fn a_program_which_is_the_same_before_and_after() {
    let mut daemon = Daemon::with_source("reexec-exec", &format!("{SMALL}source = \"exec:DIR/script\""));
    let script = daemon.path("script");
    // Numbers, as fast as they are taken, until there is a file.
    let text = "#!/bin/sh\nn=0\nwhile ! [ -e \"$0.stop\" ]; do echo $n; n=$((n+1)); done\necho $n > \"$0.count\"\n\
                exec sleep 1000\n";
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    daemon.put_copy();
    daemon.run_copy(&[]);
    let mut next = 0u64;
    let reading = reading(&daemon, move |text| {
        assert_eq!(text, next.to_string());
        next += 1;
    });
    let pid = |daemon: &Daemon| match daemon.stat().input.unwrap().state {
        SourceState::Running { pid } => Some(pid),
        _ => None,
    };
    wait_for(|| pid(&daemon).is_some(), || daemon.log());
    let before = pid(&daemon);
    replace_under_load(&daemon);
    wait_for(|| pid(&daemon) == before, || daemon.log());
    File::create(script.with_extension("stop")).unwrap();
    let count = script.with_extension("count");
    let written = || fs::read_to_string(&count).ok()?.trim().parse::<u64>().ok();
    wait_for(|| written().is_some(), || daemon.log());
    assert_eq!(daemon.log().matches("event=child-start").count(), 1, "{}", daemon.log());
    let written = written().unwrap();
    wait_for(|| daemon.stat().messages == written, || format!("{written} {}", daemon.log()));
    // Its end is the next program's to see.
    let child = nix::unistd::Pid::from_raw(before.unwrap().cast_signed());
    nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
    daemon.await_log(|log| log.contains("event=child-exit") && log.contains("signal: 9"));
    let start = shm_proto::internal::os::process::start_ticks(before.unwrap());
    assert!(start.is_none_or(|start| !shm_proto::internal::os::process::is_alive(before.unwrap(), start)));
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    let _ = joined(reading);
    daemon.assert_gone();
}
