//! Growing and shrinking, with and without somebody at work.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use shm_proto::internal::control::Resized;
use shm_proto::internal::ring::{Reader, Writer};
use shm_proto::{Done, Request, Start};

use super::{Daemon, PATIENCE, wait_for};

/// Raises a flag when it goes out of scope, also when the test fails.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const CHANNEL: &str = "[[channel]]\nname = \"main\"\nsource = \"none\"\nmax = \"32MiB\"\n";

pub(super) fn resize(daemon: &Daemon, bytes: u64) -> Resized {
    match daemon.ask(&Request::Resize { channel: None, bytes }) {
        Ok(Done::Resize(resized)) => resized,
        other => panic!("{other:?}: {}", daemon.log()),
    }
}

fn length(daemon: &Daemon) -> u64 {
    fs::metadata(daemon.object("main")).unwrap().len()
}

#[test]
fn an_idle_channel_takes_any_size_within_its_bounds_at_once() {
    let daemon = Daemon::start("idle", CHANNEL);
    let refused = daemon.refused(&Request::Resize { channel: None, bytes: 1 << 30 });
    assert_eq!(refused, "channel main: asked 1GiB, allowed 64KiB to 32MiB: the channel's min and max");
    for size in [32 * MIB, 64 * KIB, 5 * MIB] {
        assert_eq!(resize(&daemon, size).new, size);
        // A process of its own does the shrinks, and may take its time on a busy machine.
        wait_for(|| daemon.stat().capacity == size, || daemon.log());
        assert_eq!(length(&daemon), 4096 + size);
    }
    let resized = resize(&daemon, 64 * KIB + 1);
    assert_eq!(resized.new, 68 * KIB, "rounded up to whole pages");
    wait_for(|| daemon.stat().resizes == 4, || daemon.log());
}

#[test]
fn a_shrink_that_waits_for_a_reader_says_so_and_takes_effect_when_it_has_read() {
    let daemon = Daemon::start("waits", CHANNEL);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    for n in 0..800u32 {
        writer.publish(&[n as u8; 1000]).unwrap();
    }
    let resized = thread::scope(|scope| {
        let asked = scope.spawn(|| resize(&daemon, 64 * KIB));
        while !asked.is_finished() {
            writer.maintain().unwrap();
        }
        asked.join().unwrap()
    });
    assert!(resized.pending);
    assert_eq!(daemon.stat().pending, Some(64 * KIB));
    assert_eq!(length(&daemon), 4096 + MIB);
    let mut bytes = Vec::new();
    for n in 0..800u32 {
        reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        assert_eq!(bytes, [n as u8; 1000]);
    }
    wait_for(
        || {
            let _ = reader.try_recv();
            writer.maintain().unwrap();
            daemon.stat().pending.is_none()
        },
        || daemon.log(),
    );
    assert_eq!(length(&daemon), 4096 + 64 * KIB);
}

#[test]
fn a_channel_that_was_lent_is_shrunk_although_nobody_writes_it_any_more() {
    let daemon = Daemon::start("lent-once", CHANNEL);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    for n in 0..800u32 {
        writer.publish(&[n as u8; 1000]).unwrap();
    }
    drop(writer);
    wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
    assert!(resize(&daemon, 64 * KIB).pending, "a reader is in the way");
    assert_eq!(daemon.stat().writer, None, "the daemon's helper is nobody's writer");
    let mut bytes = Vec::new();
    for n in 0..800u32 {
        reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        assert_eq!(bytes, [n as u8; 1000]);
    }
    wait_for(
        || {
            let _ = reader.try_recv();
            daemon.stat().pending.is_none()
        },
        || daemon.log(),
    );
    assert_eq!(length(&daemon), 4096 + 64 * KIB);
    // The helper makes way for whoever wants to write.
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    writer.publish(b"after").unwrap();
    reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
    assert_eq!(bytes, b"after");
}

/// Whoever writes a ring begins by walking all of its records, and maps what others may have open for writing.
#[test]
fn the_daemon_itself_never_becomes_the_writer_of_a_ring() {
    let mut daemon = Daemon::start("never-lent", &CHANNEL.replace("none", "stdin"));
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let lines: String = (0..20_000).map(|n| format!("{n}\n")).collect();
    daemon.feed(lines.as_bytes());
    daemon.end_input();
    wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
    assert!(resize(&daemon, 64 * KIB).pending, "a reader is in the way");
    // The helper is at work, and the daemon has nothing of the ring in its address space.
    let pid = daemon.child.as_ref().unwrap().id();
    let name = format!("{}.main", daemon.prefix);
    let maps = |pid: u32| fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let children = || fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let helps = |child: &str| child.parse().is_ok_and(|child| maps(child).contains(&name));
    wait_for(|| children().split_whitespace().any(helps), || daemon.log());
    assert!(!maps(pid).contains(&name), "{}", maps(pid));
    let mut bytes = Vec::new();
    for n in 0..20_000 {
        reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        assert_eq!(bytes, n.to_string().as_bytes());
    }
    wait_for(
        || {
            let _ = reader.try_recv();
            daemon.stat().pending.is_none()
        },
        || daemon.log(),
    );
    assert_eq!(length(&daemon), 4096 + 64 * KIB);
    wait_for(|| children().is_empty(), || format!("a child is left: {}", children()));
}

#[test]
fn the_helper_of_a_waiting_shrink_makes_way_for_a_writer() {
    let daemon = Daemon::start("makes-way", CHANNEL);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    for _ in 0..800u32 {
        writer.publish(&[7; 1000]).unwrap();
    }
    drop(writer);
    wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
    assert!(resize(&daemon, 64 * KIB).pending);
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    assert_eq!(writer.messages(), 800);
    assert!(writer.is_shrinking(), "the new writer carries it on");
    let mut bytes = Vec::new();
    for _ in 0..800u32 {
        reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
    }
    wait_for(
        || {
            let _ = reader.try_recv();
            writer.maintain().unwrap();
            daemon.stat().pending.is_none()
        },
        || daemon.log(),
    );
}

#[test]
fn the_helper_of_a_dead_daemon_is_no_writer_of_the_next_one() {
    let mut daemon = Daemon::start("helper-left", CHANNEL);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    for n in 0..800u32 {
        writer.publish(&n.to_le_bytes().repeat(250)).unwrap();
    }
    drop(writer);
    wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
    assert!(resize(&daemon, 64 * KIB).pending, "a reader is in the way");
    daemon.die();
    daemon.come_back();
    let attach = || Writer::attach(&daemon.endpoint(), None).ok();
    let mut writer = shm_test_support::wait_for("the writer role is free", attach);
    assert_eq!(writer.publish(b"after").unwrap(), Some(800));
    let mut bytes = Vec::new();
    for n in 0..800u32 {
        reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        assert_eq!(bytes, n.to_le_bytes().repeat(250));
    }
    reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
    assert_eq!((bytes.as_slice(), reader.lost()), (&b"after"[..], 0));
}

#[test]
fn nothing_is_lost_while_the_size_goes_up_and_down_under_load() {
    let daemon = Daemon::start("load", CHANNEL);
    let mut readers: Vec<Reader> =
        (0..3).map(|_| Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap()).collect();
    let resized = AtomicBool::new(false);
    let messages = thread::scope(|scope| {
        // Also when a resize fails.
        let _resized = Raise(&resized);
        let writer = scope.spawn(|| {
            let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
            let mut n = 0u64;
            // To the last resize, on a machine of any speed.
            while n < 60_000 || !resized.load(Ordering::Relaxed) {
                let len = 8 + (n * 7919 % 3000) as usize;
                let mut message = vec![n as u8; len];
                message[..8].copy_from_slice(&n.to_le_bytes());
                writer.publish(&message).unwrap();
                n += 1;
            }
            writer.publish(b"").unwrap();
            n + 1
        });
        for reader in &mut readers {
            scope.spawn(move || {
                let mut bytes = Vec::new();
                for n in 0u64.. {
                    reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
                    if bytes.is_empty() {
                        break;
                    }
                    assert_eq!(bytes[..8], n.to_le_bytes());
                    assert!(bytes[8..].iter().all(|&byte| byte == n as u8));
                }
            });
        }
        for n in 0..60 {
            resize(&daemon, if n % 2 == 0 { 64 * KIB } else { 2 * MIB });
        }
        resized.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    assert!(daemon.stat().resizes >= 60, "{}", daemon.log());
    assert_eq!(daemon.stat().messages, messages);
}

#[test]
fn a_message_larger_than_the_channel_makes_it_grow() {
    let daemon = Daemon::start("large", CHANNEL);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let message: Vec<u8> = (0..20 * MIB).map(|n| (n % 251) as u8).collect();
    writer.publish(&message).unwrap();
    let mut bytes = Vec::new();
    reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
    assert!(bytes == message);
    assert_eq!(daemon.stat().capacity, 32 * MIB);
    assert!(daemon.log().contains("event=grow channel=main old=1048576 new=33554432 by=writer"), "{}", daemon.log());
}

#[test]
fn unused_memory_is_given_back_after_a_while() {
    let daemon = Daemon::start("unused", &format!("{CHANNEL}capacity = \"16MiB\"\nshrink_after = \"1s\"\n"));
    let _reader = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap();
    wait_for(|| length(&daemon) == 4096 + 64 * KIB, || daemon.log());
    wait_for(|| daemon.log().contains("by=low-use"), || daemon.log());
}
