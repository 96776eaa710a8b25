//! Messages and slots that are held without a borrow, as by a binding to another language, and waits with a bound.

use super::*;

#[test]
fn a_message_without_a_borrow_stays_the_readers_message() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    writer.publish(b"one").unwrap();
    writer.publish(b"two").unwrap();
    let ready = reader.recv(SOON).unwrap().into_ready();
    assert_eq!((reader.seq(), reader.received()), (0, 0));
    let mut message = reader.message(ready);
    assert!(message.is_valid().unwrap());
    assert_eq!(message.words().next(), Some(u64::from_le_bytes(*b"one\0\0\0\0\0")));
    message.finish().unwrap();
    // What is held and forgotten is the next message again.
    let _ = reader.recv(SOON).unwrap().into_ready();
    assert_eq!(receive(&mut reader), b"two");
}

#[test]
fn a_message_says_whether_it_is_valid_and_stays() {
    let mut channel = TestChannel::new(4096, Geometry { on_full: OnFull::Overwrite, ..geometry(4096) });
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    writer.publish(b"one").unwrap();
    let mut message = reader.recv(SOON).unwrap();
    assert!(message.is_valid().unwrap() && message.is_valid().unwrap());
    for n in 0..100 {
        writer.publish(&[n; 100]).unwrap();
    }
    assert!(!message.is_valid().unwrap() && !message.is_valid().unwrap());
    assert!(matches!(message.finish(), Err(ReaderError::Lapped { lost, .. }) if lost > 0));
    assert!(reader.recv(SOON).unwrap().is_valid().unwrap());
}

#[test]
fn a_slot_without_a_borrow_stays_the_writers_slot() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    let mut slot = writer.reserve(5).unwrap().unwrap();
    slot.copy_from_slice(b"hello");
    let held = slot.hold();
    assert!(reader.try_recv().unwrap().is_none());
    assert_eq!(writer.slot(held).commit(5).unwrap(), 0);
    assert_eq!(receive(&mut reader), b"hello");
}

#[test]
#[should_panic(expected = "the writer was used while a slot was held")]
fn a_held_slot_ends_when_its_writer_is_used() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut writer = channel.writer();
    let held = writer.reserve(5).unwrap().unwrap().hold();
    writer.publish(b"x").unwrap();
    let _ = writer.slot(held);
}

#[test]
fn waits_of_slots_and_batches_have_a_bound() {
    let mut channel = TestChannel::new(4096, Geometry { evict_after_ms: 0, ..geometry(4096) });
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    while writer.try_publish(&[7; 64]).is_ok() {}
    let (before, short) = (writer.messages(), Duration::from_millis(1));
    assert!(matches!(writer.reserve_within(64, short), Err(WriterError::TimedOut { .. })));
    let mut batch = writer.batch();
    assert!(matches!(batch.push_within(&[7; 64], short), Err(WriterError::TimedOut { .. })));
    batch.commit_within(short).unwrap();
    assert_eq!(writer.messages(), before);
    assert!(matches!(writer.wait_until_read(short), Err(WriterError::Unacknowledged { behind: 1, .. })));
    while reader.try_recv().unwrap().is_some() {}
    writer.wait_until_read(Duration::from_secs(60)).unwrap();
    writer.reserve_within(64, short).unwrap().unwrap().commit_within(1, short).unwrap();
    let mut batch = writer.batch();
    assert!(batch.push_within(&[8; 64], short).unwrap().is_some());
    batch.commit_within(short).unwrap();
    assert_eq!((receive(&mut reader), receive(&mut reader)), (vec![7], vec![8; 64]));
}

#[test]
fn waits_for_acknowledgement_of_slots_and_batches_have_a_bound() {
    let acked = Geometry { ack: true, ack_timeout_ms: 1 << 40, evict_after_ms: 0, ..geometry(4096) };
    let mut channel = TestChannel::new(4096, acked);
    let _reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    let short = Duration::from_millis(1);
    let committed = writer.reserve(1).unwrap().unwrap().commit_within(1, short);
    assert!(matches!(committed, Err(WriterError::Unacknowledged { seq: 0, .. })));
    let mut batch = writer.batch();
    batch.push(b"x").unwrap();
    assert!(matches!(batch.commit_within(short), Err(WriterError::Unacknowledged { seq: 1, .. })));
}
