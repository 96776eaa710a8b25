//! Readers that sleep, or pretend to sleep: when they are woken.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;
use crate::control::{Conn, MAX_REPLY, MAX_REQUEST};
use crate::os::sem::Semaphore;
use crate::ring::layout::waiting;
use crate::ring::link::ToReader;

/// Whether the bell has rung.
fn rings(reader: &Reader) -> bool {
    poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(1)
}

/// Posts of the reader's semaphore that have not been taken yet.
fn posts(channel: &TestChannel, reader: usize) -> u32 {
    Semaphore::new(&channel.readers[reader].page.wake).value()
}

#[test]
fn a_writer_with_nothing_to_publish_wakes_nobody_and_evicts_nobody() {
    let mut channel = TestChannel::new(65536, geometry(65536));
    let mut polling = channel.reader(Start::Oldest);
    let _asleep = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    assert!(polling.arm().unwrap());
    let flag = |n: usize, channel: &TestChannel| channel.readers[n].page.waiting.value.load(Ordering::SeqCst);
    // The second reader sleeps on its semaphore.
    channel.readers[1].page.waiting.value.store(waiting::SEMAPHORE, Ordering::SeqCst);
    for n in 0..20_000 {
        if n % 2 == 0 {
            // Any line from the daemon will do; readers that attach and detach cause such lines.
            channel.send(ToWriter::NotGrown { reason: "nobody has asked".to_owned() }, Vec::new());
        }
        writer.maintain().unwrap();
    }
    assert!(channel.obey().is_empty(), "somebody was evicted");
    assert_eq!((flag(0, &channel), flag(1, &channel)), (waiting::BELL, waiting::SEMAPHORE), "both sleep on");
    assert!(!rings(&polling) && posts(&channel, 1) == 0, "somebody was woken for nothing");
    writer.publish(b"now").unwrap();
    assert!(rings(&polling) && posts(&channel, 1) == 1);
    assert_eq!((flag(0, &channel), flag(1, &channel)), (waiting::NO, waiting::NO));
    assert_eq!(receive(&mut polling), b"now");
}

#[test]
fn a_reader_that_sleeps_in_front_of_a_jump_is_woken_to_follow_it() {
    let mut channel = TestChannel::new(1 << 20, geometry(1 << 20));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    writer.publish(&[1; 100_000]).unwrap();
    receive(&mut reader);
    assert!(reader.arm().unwrap() && !rings(&reader));
    channel.shrink(8192);
    writer.maintain().unwrap();
    assert!(rings(&reader) && writer.is_shrinking());
    assert!(reader.try_recv().unwrap().is_none());
    writer.maintain().unwrap();
    assert!(!writer.is_shrinking());
}

#[test]
fn a_reader_that_only_pretends_to_sleep_is_seldom_woken_and_stays() {
    let mut channel = TestChannel::new(1 << 20, geometry(1 << 20));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    let begun = Instant::now();
    for n in 0..20_000u64 {
        channel.readers[0].page.waiting.value.store(waiting::SEMAPHORE, Ordering::SeqCst);
        writer.publish(&n.to_le_bytes()).unwrap();
    }
    let (woken, ms) = (posts(&channel, 0), begun.elapsed().as_millis());
    assert!(u128::from(woken) <= 20 + ms, "woken {woken} times in {ms} ms");
    assert!(channel.obey().is_empty(), "it is evicted for no count of wakes");
    // When no more messages come, `maintain` wakes a reader that sleeps before the last one.
    channel.readers[0].page.waiting.value.store(waiting::SEMAPHORE, Ordering::SeqCst);
    writer.maintain().unwrap();
    assert_eq!(posts(&channel, 0), woken + 1);
    for n in 0..20_000u64 {
        assert_eq!(receive(&mut reader), n.to_le_bytes());
    }
}

#[test]
fn one_descriptor_tells_of_messages_and_of_the_daemon() {
    let mut channel = TestChannel::new(65536, geometry(65536));
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut daemon = Conn::new(ours, MAX_REQUEST);
    let mut reader = channel.reader_on(Start::Oldest, Some(Conn::new(theirs, MAX_REPLY)));
    let mut writer = channel.writer();
    assert!(rings(&reader), "the writer before this one may have died before it rang");
    assert!(reader.arm().unwrap() && !rings(&reader));
    let descriptor = reader.as_fd().as_raw_fd();
    writer.publish(b"a message").unwrap();
    assert!(rings(&reader) && rings(&reader), "until the reader has looked");
    assert_eq!(receive(&mut reader), b"a message");
    assert!(reader.arm().unwrap() && !rings(&reader));
    daemon.send(&ToReader::Closing { reason: "the end".to_owned() }, &[]).unwrap();
    assert!(rings(&reader));
    assert!(reader.arm().unwrap() && !rings(&reader), "there is nothing to receive");
    assert_eq!((reader.farewell(), reader.is_disconnected()), (Some("the end"), false));
    drop(daemon);
    wait_until("the end of the connection is seen", || rings(&reader));
    assert!(reader.arm().unwrap() && !rings(&reader), "the writer goes on");
    assert!(reader.is_disconnected() && reader.as_fd().as_raw_fd() == descriptor);
    writer.publish(b"another").unwrap();
    assert!(rings(&reader));
    assert_eq!(receive(&mut reader), b"another");
}

/// A reader that has slept for long learns of the daemon's death from the connection, not at the end of a slice of its
/// sleep.
#[test]
fn a_reader_that_waits_for_long_sleeps_on_its_bell_and_its_connection() {
    let mut channel = TestChannel::new(65536, geometry(65536));
    let (ours, theirs) = UnixStream::pair().unwrap();
    let daemon = Conn::new(ours, MAX_REQUEST);
    let mut reader = channel.reader_on(Start::Oldest, Some(Conn::new(theirs, MAX_REPLY)));
    let mut writer = channel.writer();
    let flag = |channel: &TestChannel| channel.readers[0].page.waiting.value.load(Ordering::SeqCst);
    thread::scope(|scope| {
        let received = scope.spawn(move || {
            let mut bytes = Vec::new();
            let first = reader.recv_into(&mut bytes, Some(Duration::from_secs(60))).map(|_| bytes.clone());
            let second = reader.recv_into(&mut bytes, Some(Duration::from_secs(60))).map(|_| bytes.clone());
            (first, second)
        });
        wait_until("the reader sleeps", || flag(&channel) == waiting::BELL);
        writer.publish(b"now").unwrap();
        wait_until("the reader sleeps", || flag(&channel) == waiting::BELL);
        // Without a daemon, the reader sleeps on its semaphore; only the connection has told it.
        drop(daemon);
        wait_until("the reader sleeps", || flag(&channel) == waiting::SEMAPHORE);
        writer.publish(b"goes on").unwrap();
        let (first, second) = received.join().unwrap();
        assert_eq!((first.unwrap(), second.unwrap()), (b"now".to_vec(), b"goes on".to_vec()));
    });
}
