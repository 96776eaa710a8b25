//! Unusual uses of the safe interface. Each may only be refused, or panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

#[test]
fn a_length_that_no_message_can_have_is_refused() {
    let mut channel = TestChannel::new(4096, geometry(1 << 20));
    let mut writer = channel.writer();
    for len in [1 << 20, 1 << 40, 1 << 63, usize::MAX - 15, usize::MAX - 8, usize::MAX] {
        let error = writer.reserve(len).unwrap_err();
        assert!(matches!(error, WriterError::TooLarge { .. }), "{error}");
        let error = writer.batch().push_with(len, |_| panic!("there is no such room")).unwrap_err();
        assert!(matches!(error, WriterError::TooLarge { .. }), "{error}");
    }
    assert_eq!(writer.messages(), 0);
}

#[test]
fn a_slot_may_become_an_empty_message_and_no_longer_one() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    for _ in 0..100 {
        let slot = writer.reserve(1000).unwrap().unwrap();
        assert_eq!(slot.len(), 1000);
        slot.commit(0).unwrap();
        let slot = writer.reserve(0).unwrap().unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| slot.commit(1))).is_err());
        let got = reader.recv(SOON).unwrap();
        assert_eq!((got.len(), got.words().count(), got.copy_to(&mut [])), (0, 0, 0));
        drop(got);
        assert!(reader.try_recv().unwrap().is_none());
    }
}

#[test]
fn no_more_than_is_mapped_is_used_whatever_is_allowed() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    channel.capacity = 1 << 30;
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    let mut publish = |writer: &mut Writer| {
        for n in 0..200 {
            writer.publish(&message(n, 1000)).unwrap();
            assert_eq!(receive(&mut reader), message(n, 1000));
        }
    };
    publish(&mut writer);
    channel.send(ToWriter::Grown { capacity: u64::MAX, done: true }, Vec::new());
    publish(&mut writer);
    channel.send(ToWriter::Shrink { capacity: 1 << 30, id: 1, yields: false }, Vec::new());
    publish(&mut writer);
    assert_eq!(Snapshot::read(channel.segment.as_fd()).unwrap().capacity, 4096);
}

#[test]
fn what_was_forgotten_is_neither_lost_nor_received_in_another_order() {
    let mut channel = TestChannel::new(65536, geometry(65536));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    writer.reserve(100).unwrap().unwrap().fill(0xee);
    for n in 0..5u64 {
        let mut batch = writer.batch();
        batch.push(&(2 * n).to_le_bytes()).unwrap();
        std::mem::forget(batch);
        writer.publish(&(2 * n + 1).to_le_bytes()).unwrap();
    }
    writer.maintain().unwrap();
    std::mem::forget(reader.recv(SOON).unwrap());
    std::mem::forget(reader.batch(3));
    for n in 0..10u64 {
        assert_eq!(receive(&mut reader), n.to_le_bytes());
    }
    assert!(writer.is_drained() || reader.try_recv().unwrap().is_none());
}

#[test]
fn a_batch_that_ends_in_a_panic_has_what_was_pushed_before() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    for n in 0..200u64 {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let mut batch = writer.batch();
            batch.push(&n.to_le_bytes()).unwrap();
            batch.push_with(300, |bytes| {
                bytes.fill(0x11);
                panic!("in the middle");
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(receive(&mut reader), n.to_le_bytes());
        assert!(reader.try_recv().unwrap().is_none());
    }
}
