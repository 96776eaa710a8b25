//! One attachment continues another: in order, no message twice, and every loss counted.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::*;
use crate::os::bell::Bell;
use crate::ring::layout::{PID_LEFT, control};
use crate::ring::link::{FromReader, Link, LinkError, ToReader};

/// The number of the next message and the losses before it.
fn next(reader: &mut Reader) -> Option<(u64, u64)> {
    let ready = reader.find().unwrap()?;
    let message = reader.message(ready);
    let found = (message.seq(), message.lost_before());
    message.finish().unwrap();
    Some(found)
}

fn all(reader: &mut Reader) -> Vec<(u64, u64)> {
    std::iter::from_fn(|| next(reader)).collect()
}

#[test]
fn known_messages_are_passed_over_and_new_ones_come_once() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut first = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    for n in 0..10u64 {
        writer.publish(&n.to_le_bytes()).unwrap();
    }
    for n in 0..6 {
        assert_eq!(next(&mut first), Some((n, 0)));
    }
    let mut second = channel.reader(Start::Oldest);
    second.go_on_at(first.next_to_receive());
    assert_eq!(all(&mut second), [(6, 0), (7, 0), (8, 0), (9, 0)]);
    assert_eq!((second.received(), second.lost(), second.next_to_receive()), (4, 0, 10));
    // The attachment has received nothing, and the next one still continues at the right place.
    let mut third = channel.reader(Start::Oldest);
    third.go_on_at(6);
    assert_eq!((third.received(), third.next_to_receive()), (0, 6));
}

#[test]
fn what_was_overwritten_between_two_attachments_and_after_is_counted_before_one_message() {
    let mut channel = TestChannel::new(4096, Geometry { on_full: OnFull::Overwrite, ..geometry(4096) });
    let mut first = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    let mut sent = 0u64;
    let mut publish = |count: u64| {
        for _ in 0..count {
            writer.publish(&sent.to_le_bytes()).unwrap();
            sent += 1;
        }
    };
    publish(5);
    assert_eq!(all(&mut first).len(), 5);
    publish(1000);
    let mut second = channel.reader(Start::Oldest);
    second.go_on_at(first.next_to_receive());
    // Lapped before it has received anything, and again afterwards.
    publish(1000);
    let (seq, lost) = next(&mut second).unwrap();
    assert_eq!(seq, 5 + lost);
    publish(1000);
    let (later, lost) = next(&mut second).unwrap();
    assert_eq!(later, seq + 1 + lost);
    // If a reader is lapped among messages that it already has, these are not lost.
    let mut third = channel.reader(Start::Oldest);
    let known = third.seq() + 3;
    third.go_on_at(known);
    publish(1000);
    let (seq, lost) = next(&mut third).unwrap();
    assert_eq!((seq, third.lost()), (known + lost, lost));
}

#[test]
fn a_message_that_cannot_be_believed_in_the_end_was_not_received() {
    let mut channel = TestChannel::new(4096, Geometry { evict_after_ms: 100, ..geometry(4096) });
    let mut stuck = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    writer.publish(&[1; 100]).unwrap();
    writer.publish(&[2; 100]).unwrap();
    assert_eq!(next(&mut stuck), Some((0, 0)));
    let held = stuck.recv(SOON).unwrap();
    for _ in 0..100 {
        writer.publish(&[3; 100]).unwrap();
    }
    assert!(matches!(held.finish(), Err(ReaderError::Evicted { .. })));
    assert_eq!((stuck.received(), stuck.next_to_receive()), (1, 1));
}

#[test]
fn a_wake_up_that_went_to_the_bell_of_a_dead_daemon_is_made_good_through_the_new_bell() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    writer.publish(b"before").unwrap();
    assert_eq!(receive(&mut reader), b"before");
    assert!(reader.arm().unwrap());
    // The next daemon has given the reader a new bell. The writer does not know it yet, rings the old one, and takes the flag.
    let (bell, bell_of_reader) = Bell::new().unwrap();
    writer.publish(b"after").unwrap();
    assert!(!is_readable(bell_of_reader.as_fd()));
    let page = channel.readers[0].page_fd.try_clone().unwrap();
    channel.send(ToWriter::Resumed, Vec::new());
    channel.send(ToWriter::ReaderJoined { reader: 7 }, vec![page, bell.try_clone_fd().unwrap()]);
    writer.maintain().unwrap();
    assert!(is_readable(bell_of_reader.as_fd()));
    assert_eq!(receive(&mut reader), b"after");
}

/// A full ring with a reader whose process the writer does not know, after the daemon's death and return.
fn full_with_an_unknown_reader(dies: bool) -> (TestChannel, Option<Reader>, Writer) {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let reader = Some(channel.reader(Start::Oldest)).filter(|_| !dies);
    channel.readers[0].page.line.pid.store(0, Ordering::SeqCst);
    let mut writer = channel.writer();
    while writer.try_publish(&[1; 100]).is_ok() {}
    channel.send(ToWriter::Resumed, Vec::new());
    writer.maintain().unwrap();
    let refused = writer.try_publish(&[1; 100]);
    assert!(matches!(refused, Err(WriterError::WouldBlock { .. })), "the next daemon may yet name it: {refused:?}");
    (channel, reader, writer)
}

#[test]
fn a_reader_that_died_with_its_daemon_before_the_writer_looked_does_not_hold_the_writer_up_for_ever() {
    let (channel, _, mut writer) = full_with_an_unknown_reader(true);
    writer.lose_readers_at_once();
    for _ in 0..200 {
        writer.publish(&[2; 100]).unwrap();
    }
    assert_ne!(channel.readers[0].page.control.value.load(Ordering::SeqCst) & control::EVICTED, 0);
}

#[test]
fn a_reader_whose_process_is_not_known_and_that_lives_keeps_its_place_after_the_daemons_return() {
    let (_channel, reader, mut writer) = full_with_an_unknown_reader(false);
    writer.lose_readers_at_once();
    for _ in 0..3 {
        assert!(matches!(writer.try_publish(&[1; 100]), Err(WriterError::WouldBlock { .. })));
    }
    assert_eq!(receive(&mut reader.unwrap()), [1; 100]);
}

#[test]
fn a_reader_that_left_while_there_was_no_daemon_is_none_of_those_that_are_waited_for() {
    let mut channel = TestChannel::new(4096, Geometry { wait_readers: 1, ..geometry(4096) });
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    writer.publish(&[1; 100]).unwrap();
    assert_eq!(receive(&mut reader), [1; 100]);
    channel.die();
    writer.maintain().unwrap();
    writer.publish(&[1; 100]).unwrap();
    drop(reader);
    // There is space, but not at hand.
    let refused = writer.try_publish(&[1; 1000]);
    let reason = Blocked::Readers { attached: 0, wanted: 1 };
    assert!(matches!(&refused, Err(WriterError::WouldBlock { reason: r, .. }) if *r == reason), "{refused:?}");
}

/// As a child does that goes on with the reader of a process that has ended.
#[test]
fn whoever_goes_on_to_read_after_the_writer_has_forgotten_the_reader_is_told() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    for _ in 0..3 {
        writer.publish(&[1; 100]).unwrap();
    }
    assert_eq!(receive(&mut reader), [1; 100]);
    channel.die();
    channel.readers[0].page.line.pid.store(PID_LEFT, Ordering::SeqCst);
    writer.maintain().unwrap();
    for _ in 0..200 {
        writer.publish(&[2; 100]).unwrap();
    }
    let read = reader.recv(SOON).map(|message| message.seq());
    assert!(matches!(read, Err(ReaderError::Evicted { .. })), "{read:?}");
}

fn is_readable(fd: std::os::fd::BorrowedFd<'_>) -> bool {
    crate::os::poll::readable(fd, NOW).unwrap()
}

/// The link of a reader whose daemon dies, and is replaced when the link has been listened to so many times.
#[derive(Debug)]
struct Returning {
    left: Arc<AtomicU32>,
    bell: Option<OwnedFd>,
    connection: UnixStream,
}

impl Link<ToReader, FromReader> for Returning {
    fn receive(&mut self) -> Result<Option<(ToReader, Vec<OwnedFd>)>, LinkError> {
        let left = self.left.load(Ordering::Relaxed).saturating_sub(1);
        Ok(match self.left.swap(left, Ordering::Relaxed) {
            1 => self.bell.take().map(|bell| (ToReader::Resumed, vec![bell])),
            _ => None,
        })
    }

    fn send(&mut self, _: FromReader) -> Result<(), LinkError> {
        Ok(())
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.connection.as_fd())
    }

    fn changes(&self) -> u64 {
        u64::from(self.bell.is_none())
    }
}

#[test]
fn a_reader_in_a_poll_loop_hears_the_bell_that_came_while_it_prepared_for_its_sleep() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let (bell, bell_of_reader) = Bell::new().unwrap();
    let (connection, _daemon) = UnixStream::pair().unwrap();
    let left = Arc::new(AtomicU32::new(0));
    let link = Returning { left: Arc::clone(&left), bell: Some(bell_of_reader), connection };
    let mut reader = channel.reader_over(Start::Oldest, Box::new(link));
    let mut writer = channel.writer();
    writer.publish(b"before").unwrap();
    let mut bytes = Vec::new();
    reader.recv_into(&mut bytes, SOON).unwrap();
    // A reader that gives space back listens if that is long enough ago.
    std::thread::sleep(Duration::from_millis(6));
    left.store(2, Ordering::Relaxed);
    assert!(reader.arm().unwrap());
    assert_eq!(left.load(Ordering::Relaxed), 0, "the new bell has come at the second look");
    bell.ring();
    assert!(is_readable(reader.as_fd()));
}
