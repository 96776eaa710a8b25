//! Publish times: each message has its own, through wraps, jumps, growth and shrinking.

use super::*;
use crate::os::clock::monotonic_ns;
use crate::ring::publish_time;
use crate::ring::record::{PUBLISH_TIMES, Strides};

fn with_times(max: u64, align: u32) -> Geometry {
    let max_message = Strides::new(u64::from(align), PUBLISH_TIMES).largest_message(max);
    Geometry { align, features: PUBLISH_TIMES, max_message, ..geometry(max) }
}

#[test]
fn every_message_has_the_time_at_which_it_was_published() {
    for align in [16, 64, 4096] {
        let mut channel = TestChannel::new(64 << 10, with_times(64 << 10, align));
        let (mut reader, mut writer) = (channel.reader(Start::New), channel.writer());
        let mut last = 0;
        for n in 0..2000u64 {
            let sent = message(n, 5000);
            let before = monotonic_ns();
            match n % 3 {
                0 => drop(writer.publish(&sent).unwrap()),
                1 => {
                    let mut slot = writer.reserve(sent.len()).unwrap().unwrap();
                    slot.copy_from_slice(&sent);
                    slot.commit(sent.len()).unwrap();
                }
                _ => {
                    let mut batch = writer.batch();
                    batch.push(&sent).unwrap();
                    batch.commit().unwrap();
                }
            }
            let after = monotonic_ns();
            let got = reader.recv(SOON).unwrap();
            let published = got.published_ns().unwrap();
            assert!(
                before <= published && published <= after && last <= published,
                "{n}: {before} {published} {after}"
            );
            assert_eq!(got.as_ptr() as u64 % u64::from(align), 0);
            let mut bytes = Vec::new();
            got.copy_to_vec(&mut bytes);
            got.finish().unwrap();
            assert!(bytes == sent, "message {n} of {} bytes", sent.len());
            last = published;
        }
    }
}

#[test]
fn times_of_unread_messages_stay_when_the_ring_wraps_and_jumps() {
    let mut channel = TestChannel::new(8 << 10, with_times(8 << 10, 16));
    let (mut reader, mut writer) = (channel.reader(Start::New), channel.writer());
    let mut times = std::collections::VecDeque::new();
    let mut bytes = Vec::new();
    for n in 0..5000u64 {
        let sent = message(n, 700);
        loop {
            let before = monotonic_ns();
            match writer.try_publish(&sent) {
                Ok(_) => {
                    times.push_back((before, monotonic_ns()));
                    break;
                }
                Err(WriterError::WouldBlock { .. }) => {}
                Err(e) => panic!("{e}"),
            }
            let got = reader.recv_into(&mut bytes, SOON).unwrap();
            let (before, after) = times.pop_front().unwrap();
            let published = got.published_ns.unwrap();
            assert!(before <= published && published <= after, "message {}: {before} {published} {after}", got.seq);
            assert!(bytes == message(got.seq, 700), "message {}", got.seq);
        }
    }
}

#[test]
fn without_the_feature_messages_have_no_time() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let (mut reader, mut writer) = (channel.reader(Start::New), channel.writer());
    writer.publish(b"x").unwrap();
    let got = reader.recv(SOON).unwrap();
    assert_eq!((got.published_ns(), got.published()), (None, None));
}

#[test]
fn the_daemon_sees_when_the_next_message_of_a_reader_was_published_and_how_long_others_took() {
    let mut channel = TestChannel::new(64 << 10, with_times(64 << 10, 16));
    let (mut reader, mut writer) = (channel.reader(Start::New), channel.writer());
    let fd = channel.segment.try_clone().unwrap();
    let standing = |channel: &TestChannel| {
        let page = &channel.readers[0].page;
        (page.times.off.load(Ordering::Relaxed), page.line.seq.load(Ordering::Relaxed))
    };
    let (off, seq) = standing(&channel);
    assert_eq!(publish_time(fd.as_fd(), off, seq), None, "nothing is published");
    let before = monotonic_ns();
    writer.publish(b"first").unwrap();
    writer.publish(b"second").unwrap();
    let first = publish_time(fd.as_fd(), off, seq).unwrap();
    assert!(before <= first && first <= monotonic_ns());
    for wrong in [(off, seq + 1), (off + 16, seq), (7, seq), (1 << 40, seq), (u64::MAX, seq)] {
        assert_eq!(publish_time(fd.as_fd(), wrong.0, wrong.1), None, "{wrong:?}");
    }
    reader.recv(SOON).unwrap().finish().unwrap();
    drop(reader.batch(0));
    let (off, seq) = standing(&channel);
    assert!(publish_time(fd.as_fd(), off, seq).unwrap() >= first && seq == 1);
    let delays = crate::ring::delays::Delays::of(&channel.readers[0].page.times.delays);
    assert_eq!(delays.count(), 1, "once for each message");
}
