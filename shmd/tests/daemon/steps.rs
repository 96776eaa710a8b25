//! A reader or a writer that is killed after any instruction of what it does: everybody else goes on, nothing acknowledged is
//! lost, nothing is torn or doubled.
//!
//! Each test goes through all instructions of a call if `SHMD_STEPS=1` is set, and through a sample of them otherwise.

use std::thread::sleep;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use shm_proto::{Client, Endpoint, Reader, Request, Start, Writer};
use shm_test_support::{here, killed_after, killed_after_and, skip_without_trace};

use super::{Daemon, PATIENCE, wait_for};

const CHANNEL: &str =
    "[[channel]]\nname = \"main\"\ncapacity = \"64KiB\"\nmin = \"4KiB\"\nmax = \"256KiB\"\nshrink_after = \"0\"\n";
/// Longer than whoever has lost its daemon waits before it looks for the next.
const BETWEEN_LOOKS: Duration = Duration::from_millis(30);

/// Calls `kill` with more and more steps, until it says that the end was reached: each number if `SHMD_STEPS` is set, otherwise
/// about twice as many each time, from a number that is another one in each run.
fn at_every_step(mut kill: impl FnMut(u64) -> bool) {
    if skip_without_trace("killed at any instruction") {
        return;
    }
    let whole = std::env::var_os("SHMD_STEPS").is_some();
    let mut at = if whole { 0 } else { 16 + u64::from(std::process::id() % 16) };
    let mut kills = 0;
    while kill(at) {
        at += if whole { 1 } else { at + at / 16 };
        kills += 1;
    }
    println!("killed {kills} times, the last time before instruction {at}");
    assert!(kills > 2, "only {kills} kills, the last one before instruction {at}");
}

/// What message number `n` says, which is no part of another one. All have one length, so that each takes as many instructions.
fn message(n: u64) -> Vec<u8> {
    n.to_le_bytes().into_iter().cycle().take(300).collect()
}

/// Receives the messages from `next` on that are there, checks them, and returns the number of the one that is to come.
fn take(reader: &mut Reader, mut next: u64, to: u64, daemon: &Daemon) -> u64 {
    let mut bytes = Vec::new();
    while next < to {
        let got = match reader.recv_into(&mut bytes, Some(PATIENCE)) {
            Ok(got) => got,
            Err(e) => panic!("message {next} of {to}: {e}: {}", daemon.log()),
        };
        assert_eq!((got.seq, got.lost_before), (next, 0));
        assert_eq!(bytes, message(next), "message {next}");
        next += 1;
    }
    next
}

/// The next writer. The end of the one before may not have been noticed yet.
fn attach(daemon: &Daemon) -> Writer {
    attach_to(&daemon.endpoint()).unwrap_or_else(|| panic!("no writer attaches: {}", daemon.log()))
}

/// The same for a child, which must not panic.
fn attach_to(endpoint: &Endpoint) -> Option<Writer> {
    loop {
        match Writer::attach(endpoint, None) {
            Ok(writer) => return Some(writer),
            Err(e) if e.refusal().is_some() => {}
            Err(_) => return None,
        }
    }
}

/// Lets a writer begin at message `done` and be killed `steps` instructions into `work`; then the daemon, a reader and the next writer have
/// to agree on what was published. Returns whether it was killed, and the number of the next message.
fn kill_writer(
    daemon: &Daemon,
    reader: &mut Reader,
    done: u64,
    steps: u64,
    work: impl FnOnce(&mut Writer, &[u8]) -> bool,
) -> (bool, u64) {
    let endpoint = daemon.endpoint();
    let killed = killed_after(steps, || {
        let Some(mut writer) = attach_to(&endpoint) else { return 1 };
        if writer.publish(&message(done)).is_err() {
            return 2;
        }
        let bytes = message(done + 1);
        here();
        let went_well = work(&mut writer, &bytes);
        here();
        i32::from(!went_well)
    });
    // What was acknowledged before is there whatever came after.
    let mut next = take(reader, done, done + 1, daemon);
    let mut writer = attach(daemon);
    let published = writer.messages();
    assert!(published == next || published == next + 1, "{published} messages, {next} were received");
    writer.publish(&message(published)).unwrap();
    next = take(reader, next, published + 1, daemon);
    (killed, next)
}

/// The same at every step, one writer after the other.
fn kill_writers(name: &str, work: impl Fn(&mut Writer, &[u8]) -> bool) {
    let daemon = Daemon::start(name, CHANNEL);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut next = 0;
    at_every_step(|steps| {
        let killed;
        (killed, next) = kill_writer(&daemon, &mut reader, next, steps, &work);
        killed
    });
    assert!(!daemon.log().contains("broken"), "{}", daemon.log());
}

#[test]
fn a_writer_that_is_killed_at_any_instruction_of_publishing() {
    kill_writers("step-publish", |writer, bytes| writer.publish(bytes).is_ok());
}

#[test]
fn a_writer_that_is_killed_at_any_instruction_of_filling_a_slot() {
    kill_writers("step-slot", |writer, bytes| {
        let Ok(Some(mut slot)) = writer.reserve(1000) else { return false };
        slot[..bytes.len()].copy_from_slice(bytes);
        slot.commit(bytes.len()).is_ok()
    });
}

#[test]
fn a_writer_that_is_killed_at_any_instruction_of_a_batch_is_seen_with_whole_messages() {
    let daemon = Daemon::start("step-batch", CHANNEL);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut next = 0;
    at_every_step(|steps| {
        let endpoint = daemon.endpoint();
        let first = next;
        let killed = killed_after(steps, || {
            let Some(mut writer) = attach_to(&endpoint) else { return 1 };
            let messages: Vec<_> = (first..first + 5).map(message).collect();
            here();
            let mut batch = writer.batch();
            let pushed = messages.iter().all(|message| batch.push(message).is_ok());
            let committed = batch.commit().is_ok();
            here();
            i32::from(!pushed || !committed)
        });
        let mut writer = attach(&daemon);
        let published = writer.messages();
        assert!((first..=first + 5).contains(&published), "{published} messages after {first}");
        writer.publish(&message(published)).unwrap();
        next = take(&mut reader, first, published + 1, &daemon);
        killed
    });
}

/// It is killed while the ring is full of what it has not read; its space is free then.
#[test]
fn a_reader_that_is_killed_at_any_instruction_of_receiving_holds_nobody_up() {
    let daemon = Daemon::start("step-receive", CHANNEL);
    let mut other = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let mut next = 0;
    at_every_step(|steps| {
        let endpoint = daemon.endpoint();
        // Something to read for whoever begins now.
        let waiting = next..next + 8;
        for n in waiting.clone() {
            writer.publish(&message(n)).unwrap();
        }
        let killed = killed_after(steps, || {
            let Ok(mut reader) = Reader::attach(&endpoint, None, Start::Oldest) else { return 1 };
            let mut bytes = Vec::new();
            here();
            let mut well = true;
            for _ in 0..5 {
                well &= reader.recv_into(&mut bytes, Some(Duration::from_secs(60))).is_ok();
            }
            here();
            i32::from(!well)
        });
        // More than the ring holds, while the other one reads: the dead one is in nobody's way.
        next = take(&mut other, next, waiting.end, &daemon);
        for _ in 0..300 {
            writer.publish(&message(next)).unwrap();
            next = take(&mut other, next, next + 1, &daemon);
        }
        killed
    });
    wait_for(|| daemon.stat().readers.len() == 1, || daemon.log());
    let stat = daemon.stat();
    assert_eq!((stat.evicted, stat.dropped, stat.messages), (0, 0, next), "{}", daemon.log());
}

/// Whoever carries a shrink out dies in it: somebody else finishes it, and nothing is lost.
#[test]
fn a_writer_that_is_killed_at_any_instruction_of_a_shrink() {
    let daemon = Daemon::start("step-shrink", CHANNEL);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let resize = |bytes| {
        daemon.ask(&Request::Resize { channel: None, bytes }).unwrap_or_else(|e| panic!("{e}: {}", daemon.log()))
    };
    let mut next = 0;
    at_every_step(|steps| {
        resize(64 << 10);
        wait_for(|| daemon.stat().pending.is_none() && daemon.stat().capacity == 64 << 10, || daemon.log());
        let endpoint = daemon.endpoint();
        // It has read everything and says so, so that the shrink does not wait for it.
        assert!(reader.try_recv().unwrap().is_none());
        let killed = killed_after(steps, || {
            let Some(mut writer) = attach_to(&endpoint) else { return 1 };
            let Ok(client) = Client::connect(&endpoint, PATIENCE) else { return 2 };
            // It is answered when it is done; here it is only begun.
            let mut asking = client.into_conn();
            if asking.send(&Request::Resize { channel: None, bytes: 8 << 10 }, &[]).is_err() {
                return 3;
            }
            let Some(link) = writer.link_fd() else { return 4 };
            if poll(&mut [PollFd::new(link, PollFlags::POLLIN)], PollTimeout::NONE).is_err() {
                return 5;
            }
            here();
            let went_well = writer.maintain().is_ok() && writer.maintain().is_ok();
            here();
            i32::from(!went_well)
        });
        wait_for(|| daemon.stat().pending.is_none(), || daemon.log());
        let mut writer = attach(&daemon);
        writer.publish(&message(next)).unwrap();
        next = take(&mut reader, next, next + 1, &daemon);
        killed
    });
}

/// Its daemon has died and another has come; whoever dies on the way to that one is none of its readers.
#[test]
fn a_reader_that_is_killed_at_any_instruction_of_resuming_holds_nobody_up() {
    let mut daemon = Daemon::start("step-resume", CHANNEL);
    let mut other = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut restarts = 0;
    at_every_step(|steps| {
        let endpoint = daemon.endpoint();
        let restart = || {
            daemon.signal(Signal::SIGKILL);
            daemon.wait();
            daemon.run(&[]);
            daemon.await_ready();
            restarts += 1;
        };
        let killed = killed_after_and(steps, restart, || {
            let Ok(mut reader) = Reader::attach(&endpoint, None, Start::Oldest) else { return 1 };
            here();
            let mut went_well = true;
            for _ in 0..4 {
                went_well &= reader.arm().is_ok();
                sleep(BETWEEN_LOOKS);
            }
            here();
            i32::from(!went_well)
        });
        wait_for(|| other.arm().is_ok() && !daemon.stat().readers.is_empty(), || daemon.log());
        killed
    });
    let mut writer = attach(&daemon);
    for next in 0..300 {
        writer.publish(&message(next)).unwrap();
        take(&mut other, next, next + 1, &daemon);
    }
    assert_eq!(daemon.log().matches("event=ready ").count(), restarts + 1);
}
