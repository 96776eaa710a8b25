//! What the daemon tells a writer, and when.

use std::os::fd::{BorrowedFd, OwnedFd};

use super::*;
use crate::os::page::SharedPage;
use crate::ring::layout::{LEFT, LeasePage, control, waiting};
use crate::ring::link::{Link, LinkError};
use crate::ring::testing::TestChannel;
use crate::ring::thread_link::Line;

#[test]
fn a_reader_whose_line_is_held_back_loses_nothing() {
    for on_full in [OnFull::Block, OnFull::Drop] {
        let mut channel = TestChannel::new(4096, Geometry { on_full, ..geometry(4096) });
        let mut writer = channel.writer();
        writer.publish(b"before").unwrap();
        let mut reader = channel.unnamed_reader(Start::New);
        let mut sent = 0u64;
        let full = loop {
            match writer.try_publish(&sent.to_le_bytes()) {
                Ok(_) => sent += 1,
                Err(e) => break e,
            }
        };
        assert!(matches!(full, WriterError::WouldBlock { .. }), "{full}");
        assert!(sent > 100, "{sent} messages fit beside what the reader may need");
        assert_eq!(writer.readers(), 0);
        let named = std::thread::scope(|scope| {
            let publishing = scope.spawn(|| {
                let published = writer.publish_within(&sent.to_le_bytes(), Duration::from_secs(60));
                published.map(|seq| seq.map(|_| writer.readers()))
            });
            channel.name();
            for n in 0..=sent {
                assert_eq!(receive(&mut reader), n.to_le_bytes(), "message {n}");
            }
            publishing.join().unwrap()
        });
        assert_eq!((named.unwrap(), reader.lost()), (Some(1), 0));
    }
}

#[test]
fn a_writer_waits_for_no_line_of_a_daemon_that_is_gone() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut writer = channel.writer();
    channel.hold_back(5);
    writer.maintain().unwrap();
    channel.die();
    for n in 0..2000u64 {
        writer.publish(&n.to_le_bytes()).unwrap();
    }
}

#[test]
fn acknowledged_publishing_waits_for_readers_that_are_not_named_yet() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut writer = channel.writer();
    let mut reader = channel.unnamed_reader(Start::New);
    let error = writer.publish_acked(b"one", Duration::from_millis(20)).unwrap_err();
    assert!(error.to_string().contains("name the readers"), "{error}");
    assert_eq!(receive(&mut reader), b"one");
    // A program that ends its waits ends this one, too.
    let flag = std::sync::Arc::new(AtomicBool::new(true));
    writer.interrupt_on(std::sync::Arc::clone(&flag));
    let error = writer.publish_acked(b"interrupted", Duration::from_secs(3600)).unwrap_err();
    assert!(
        matches!(&error, WriterError::Unacknowledged { ended: Some(why), .. } if why.contains("program")),
        "{error}"
    );
    flag.store(false, Ordering::SeqCst);
    assert_eq!(receive(&mut reader), b"interrupted");
    channel.name();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(receive(&mut reader), b"two");
            // The reader shows how far it has come if there is nothing more.
            assert!(reader.try_recv().unwrap().is_none());
        });
        assert_eq!(writer.publish_acked(b"two", Duration::from_secs(60)).unwrap(), Some(2));
    });
}

/// A link over which the daemon names a reader when the first message is published, just after the writer has found nothing on it.
#[derive(Debug)]
struct LateLine {
    segment: OwnedFd,
    page: SharedPage<LeasePage>,
    late: Option<Line>,
    line: Option<Line>,
}

impl Link<ToWriter, ToDaemon> for LateLine {
    fn receive(&mut self) -> Result<Option<Line>, LinkError> {
        let found = self.line.take();
        let is_published = || Snapshot::read(self.segment.as_fd()).unwrap().tail.seq > 0;
        if found.is_none() && self.late.is_some() && is_published() {
            // As the daemon does it: the line, the generation, that there are no more lines, the generation.
            self.line = self.late.take();
            self.page.generation.value.fetch_add(1, Ordering::SeqCst);
            self.page.pending.value.store(0, Ordering::SeqCst);
            self.page.generation.value.fetch_add(1, Ordering::SeqCst);
        }
        Ok(found)
    }

    fn send(&mut self, _: ToDaemon) -> Result<(), LinkError> {
        Ok(())
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[test]
fn acknowledged_publishing_waits_for_a_reader_that_is_named_while_the_link_is_read() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.reader(Start::New);
    let attached = channel.readers.last().unwrap();
    let (page, page_fd) = SharedPage::<LeasePage>::create("test-lease").unwrap();
    page.pending.value.store(1, Ordering::SeqCst);
    let late = (ToWriter::ReaderJoined { reader: attached.id }, attached.descriptors());
    let segment = channel.segment.try_clone().unwrap();
    let link = Box::new(LateLine { segment, page, late: Some(late), line: None });
    let lease = SharedPage::open(page_fd.as_fd()).unwrap();
    let mut writer =
        Writer::open(channel.segment.as_fd(), lease, link, channel.geometry.clone(), channel.capacity).unwrap();
    let error = writer.publish_acked(b"one", Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, WriterError::Unacknowledged { .. }), "{error}");
    assert_eq!(receive(&mut reader), b"one");
}

#[test]
fn a_reader_that_comes_without_its_descriptors_is_refused_and_the_writer_goes_on() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut good = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    let _poor = channel.unnamed_reader(Start::Oldest);
    let reader = channel.readers.last().unwrap().id;
    channel.send(ToWriter::ReaderJoined { reader }, Vec::new());
    channel.hold_back(0);
    for n in 0..1000u64 {
        writer.publish(&n.to_le_bytes()).unwrap();
        assert_eq!(receive(&mut good), n.to_le_bytes());
    }
    let lines = channel.obey();
    let [ToDaemon::Refused { reader: refused, reason }] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((*refused, writer.readers()), (reader, 1));
    for part in [format!("process {}", std::process::id()), "descriptor".to_owned(), "ulimit -n".to_owned()] {
        assert!(reason.contains(&part), "{reason}");
    }
}

/// The messages in the ring of a channel whose readers have not been told anything.
fn messages(channel: &TestChannel) -> u64 {
    Snapshot::read(channel.segment.as_fd()).unwrap().tail.seq
}

/// A way to hold a message back while the role ends.
type Way = fn(&mut TestChannel, &mut Writer) -> Result<(), WriterError>;

#[test]
fn what_is_held_when_the_role_ends_is_not_published() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.reader(Start::Oldest);
    let ways: [Way; 6] = [
        |channel, writer| {
            let slot = writer.reserve(8)?.unwrap();
            channel.end_lease();
            slot.commit(8).map(drop)
        },
        |channel, writer| {
            let mut batch = writer.batch();
            batch.push(b"stale")?;
            channel.end_lease();
            batch.commit()
        },
        |channel, writer| {
            let mut batch = writer.batch();
            batch.push(b"stale")?;
            channel.end_lease();
            batch.push(b"stale").expect_err("the role has ended");
            batch.commit()
        },
        |channel, writer| {
            let mut batch = writer.batch();
            batch.push(b"stale")?;
            channel.end_lease();
            drop(batch);
            writer.publish(b"stale").map(drop)
        },
        |channel, writer| {
            let mut batch = writer.batch();
            batch.push(b"stale")?;
            std::mem::forget(batch);
            channel.end_lease();
            writer.maintain()
        },
        |channel, writer| {
            let mut batch = writer.batch();
            batch.push(b"stale")?;
            std::mem::forget(batch);
            channel.end_lease();
            writer.batch().push(b"stale").map(drop)
        },
    ];
    for (n, way) in ways.into_iter().enumerate() {
        let mut first = channel.writer();
        let error = way(&mut channel, &mut first).unwrap_err();
        assert!(matches!(error, WriterError::Revoked { .. }), "way {n}: {error}");
        assert_eq!(messages(&channel), n as u64, "way {n}");
        let mut second = channel.writer();
        drop(first);
        second.publish(&n.to_le_bytes()).unwrap();
        assert_eq!(receive(&mut reader), n.to_le_bytes(), "way {n}");
        assert!(reader.try_recv().unwrap().is_none());
    }
}

/// Publishes until the role has ended. Returns how many messages are certainly published, and how many more may be.
fn publish_to_the_end(writer: &mut Writer, batch: u64, started: &AtomicBool) -> (u64, u64) {
    let mut published = 0;
    loop {
        let sent = if batch == 0 {
            writer.publish(b"message").map(drop)
        } else {
            let mut several = writer.batch();
            (0..batch).try_for_each(|_| several.push(b"message").map(drop)).and_then(|()| several.commit())
        };
        match sent {
            Ok(()) => published += batch.max(1),
            Err(WriterError::Superseded { seq, .. }) => {
                assert!((published..published + batch.max(1)).contains(&seq), "{seq} after {published}");
                return (published, batch.max(1));
            }
            // A part of a batch may have become visible before the rest was refused.
            Err(WriterError::Revoked { .. }) => return (published, batch),
            Err(e) => panic!("{e}"),
        }
        started.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_was_published_before_the_role_ended_is_told_from_what_may_have_come_after() {
    for round in 0..300u64 {
        let mut channel = TestChannel::new(1 << 20, geometry(1 << 20));
        let mut writer = channel.writer();
        let started = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let publishing = scope.spawn(|| publish_to_the_end(&mut writer, round % 2 * 5, &started));
            while !started.load(Ordering::Relaxed) && !publishing.is_finished() {
                std::hint::spin_loop();
            }
            channel.end_lease();
            let seen = messages(&channel);
            let (published, more) = publishing.join().unwrap();
            assert!(seen >= published, "{seen} of {published} messages are there when the role has ended");
            assert!(messages(&channel) <= published + more, "round {round}: {published} and {more}");
        });
    }
}

/// A channel whose segment the daemon has left, which the writer has not found; the writer, and a reader that has read everything.
fn left() -> (TestChannel, Reader, Writer) {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    for _ in 0..3 {
        writer.publish(b"before").unwrap();
        assert_eq!(receive(&mut reader), b"before");
    }
    assert!(reader.arm().unwrap());
    note_unnamed(channel.segment.as_fd(), LEFT).unwrap();
    (channel, reader, writer)
}

fn is_replaced(error: &WriterError) -> bool {
    error.to_string().contains("was replaced before this program had found the daemon")
}

#[test]
fn a_writer_whose_segment_was_left_does_not_take_the_flag_that_is_for_the_next_writer() {
    let (channel, _reader, mut writer) = left();
    let ended = writer.publish(b"after").unwrap_err();
    assert!(matches!(ended, WriterError::Superseded { .. } | WriterError::Revoked { .. }), "{ended}");
    assert_eq!(channel.readers[0].page.waiting.value.load(Ordering::SeqCst), waiting::BELL);
    assert!(is_replaced(&writer.publish(b"after").unwrap_err()));
}

#[test]
fn a_writer_whose_segment_was_left_evicts_no_reader_that_has_gone_on() {
    let (channel, _reader, mut writer) = left();
    let page = channel.readers[0].page_again();
    // It is awake, and has read what the next writer has published.
    page.waiting.value.store(waiting::NO, Ordering::SeqCst);
    page.line.cursor.store(1 << 30, Ordering::SeqCst);
    let ended = writer.publish_acked(b"after", SOON.unwrap()).unwrap_err();
    assert!(is_replaced(&ended), "{ended}");
    assert_eq!(page.control.value.load(Ordering::SeqCst) & control::EVICTED, 0);
    assert!(!channel.hear().iter().any(|line| matches!(line, ToDaemon::Evicted { .. })));
}
