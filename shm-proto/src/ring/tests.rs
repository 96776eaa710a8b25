//! Writer and reader together, over real shared memory. The test plays the daemon.

mod acks;
mod broken;
mod held;
mod hostile;
mod interrupt;
mod lease;
mod losses;
mod moves;
mod newer;
mod odd;
mod peers;
mod resize;
mod resume;
mod sleepers;
mod slow;
mod starts;
mod strategies;
mod times;
mod views;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shm_test_support::wait_until;

use super::layout::DATA_OFFSET;
use super::link::{ToDaemon, ToWriter};
use super::testing::{TestChannel, geometry};
use super::*;
use crate::error::{Blocked, SystemError};
use crate::os::reserve;
use crate::ring::geometry::{Geometry, OnFull, Start};

const NOW: Option<Duration> = Some(Duration::ZERO);
const SOON: Option<Duration> = Some(Duration::from_secs(60));

/// A message whose every byte follows from its number.
fn message(n: u64, most: u64) -> Vec<u8> {
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x55;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let len = match next() % 10 {
        0 => 0,
        1..=7 => next() % 200.min(most),
        _ => next() % most,
    };
    let fill = next() as u8;
    (0..len).map(|i| fill.wrapping_add(i as u8)).collect()
}

fn receive(reader: &mut Reader) -> Vec<u8> {
    let mut out = Vec::new();
    reader.recv_into(&mut out, SOON).unwrap();
    out
}

#[test]
fn messages_come_out_as_they_went_in() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    let reading = std::thread::spawn(move || {
        for n in 0..2000u64 {
            assert_eq!(receive(&mut reader), message(n, 4000), "message {n}");
        }
        assert!(matches!(reader.recv(NOW), Err(ReaderError::TimedOut { .. })));
    });
    for n in 0..2000u64 {
        assert_eq!(writer.publish(&message(n, 4000)).unwrap(), Some(n));
    }
    reading.join().unwrap();
}

#[test]
fn a_new_reader_sees_only_what_comes_and_an_oldest_one_what_is_still_whole() {
    let mut channel = TestChannel::new(8192, geometry(8192));
    let mut writer = channel.writer();
    for n in 0..1000u64 {
        writer.publish(&n.to_le_bytes()).unwrap();
    }
    let mut new = channel.reader(Start::New);
    let mut oldest = channel.reader(Start::Oldest);
    assert_eq!(new.seq(), 1000);
    assert!(oldest.seq() < 1000 && oldest.seq() > 0);
    writer.publish(&1000u64.to_le_bytes()).unwrap();
    assert_eq!(receive(&mut new), 1000u64.to_le_bytes());
    for n in oldest.seq()..=1000 {
        assert_eq!(receive(&mut oldest), n.to_le_bytes());
    }
    assert_eq!(oldest.lost(), 0);
}

#[test]
fn payloads_are_aligned_as_the_channel_asks() {
    for align in [16u32, 64, 4096] {
        let max = 1 << 20;
        let max_message = record::Strides::new(u64::from(align), 0).largest_message(max);
        let geometry = Geometry { align, max_message, ..geometry(max) };
        let mut channel = TestChannel::new(65536, geometry);
        let mut reader = channel.reader(Start::Oldest);
        let mut writer = channel.writer();
        for n in 0..500u64 {
            let sent = message(n, 5000);
            writer.publish(&sent).unwrap();
            let got = reader.recv(SOON).unwrap();
            assert_eq!(got.as_ptr() as usize % align as usize, 0);
            let mut bytes = Vec::new();
            got.copy_to_vec(&mut bytes);
            assert_eq!(bytes, sent);
        }
    }
}

#[test]
fn words_give_the_bytes_and_pad_the_last_with_zeros() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    writer.publish(&[0xff; 16]).unwrap();
    writer.publish(&[1, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap();
    writer.publish(&[]).unwrap();
    drop(reader.recv(SOON).unwrap());
    assert_eq!(reader.recv(SOON).unwrap().words().collect::<Vec<_>>(), [0x0807_0605_0403_0201, 9]);
    assert_eq!(reader.recv(SOON).unwrap().words().count(), 0);
}

#[test]
fn words_are_the_same_one_by_one_and_by_lines() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    let bytes: Vec<u8> = (0..=255).collect();
    for len in 0..=bytes.len() {
        writer.publish(&bytes[..len]).unwrap();
        let message = reader.recv(SOON).unwrap();
        let mut words = message.words();
        let single: Vec<u64> = std::iter::from_fn(|| words.next()).collect();
        let folded = message.words().fold(Vec::new(), |mut all, word| {
            all.push(word);
            all
        });
        let mut wanted = bytes[..len].to_vec();
        wanted.resize(len.next_multiple_of(8), 0);
        let wanted: Vec<u64> = wanted.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        assert_eq!((single, folded), (wanted.clone(), wanted), "{len} bytes");
        message.finish().unwrap();
    }
}

#[test]
fn an_aborted_slot_was_never_there() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    for n in 0..300u64 {
        let mut slot = writer.reserve(1000).unwrap().unwrap();
        slot.fill(0xee);
        if n % 3 == 0 {
            slot.abort();
            assert!(reader.try_recv().unwrap().is_none());
            continue;
        }
        slot[..8].copy_from_slice(&n.to_le_bytes());
        slot.commit(8).unwrap();
        assert_eq!(receive(&mut reader), n.to_le_bytes());
    }
}

#[test]
fn a_batch_becomes_visible_as_one() {
    let mut channel = TestChannel::new(65536, geometry(65536));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    for round in 0..200u64 {
        let mut batch = writer.batch();
        for n in 0..64u64 {
            batch.push(&(round * 64 + n).to_le_bytes()).unwrap();
            if n % 2 == 0 {
                continue;
            }
        }
        batch.commit().unwrap();
        let mut read = reader.batch(1000);
        let mut count = 0;
        while let Some(got) = read.next().unwrap() {
            assert_eq!(got.words().next(), Some(round * 64 + count));
            count += 1;
        }
        assert_eq!(count, 64);
    }
}

#[test]
fn nothing_of_a_batch_is_visible_before_it_is_committed() {
    let mut channel = TestChannel::new(65536, geometry(65536));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    writer.publish(b"before").unwrap();
    let mut batch = writer.batch();
    batch.push(b"one").unwrap();
    batch.push(b"two").unwrap();
    assert_eq!(receive(&mut reader), b"before");
    assert!(reader.try_recv().unwrap().is_none());
    batch.commit().unwrap();
    assert_eq!(receive(&mut reader), b"one");
    assert_eq!(receive(&mut reader), b"two");
}

#[test]
fn try_publish_and_timeouts_say_how_full_it_is() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    let mut sent = 0;
    let error = loop {
        match writer.try_publish(&[7; 100]) {
            Ok(_) => sent += 1,
            Err(e) => break e,
        }
    };
    let full = Blocked::Full { used: sent * 112, capacity: 4096 };
    assert!(matches!(error, WriterError::WouldBlock { reason, .. } if reason == full), "{error}");
    let error = writer.publish_within(&[7; 100], Duration::from_millis(30)).unwrap_err();
    assert!(matches!(error, WriterError::TimedOut { .. }), "{error}");
    for _ in 0..sent {
        receive(&mut reader);
    }
    assert!(reader.try_recv().unwrap().is_none());
    writer.try_publish(&[7; 100]).unwrap();
    let error = writer.publish(&[0; 5000]).unwrap_err();
    assert!(matches!(error, WriterError::TooLarge { len: 5000, .. }), "{error}");
}

#[test]
fn the_tail_is_found_after_every_message_without_the_writers_help() {
    for (capacity, most) in [(4096, 900), (1 << 20, 40_000), (1 << 20, 200_000)] {
        let mut channel = TestChannel::new(capacity, geometry(capacity));
        let mut writer = channel.writer();
        let mut bytes = 0;
        for n in 0..3000u64 {
            let message = message(n, most);
            bytes += message.len() as u64;
            writer.publish(&message).unwrap();
            let tail = Snapshot::read(channel.segment.as_fd()).unwrap().tail;
            assert_eq!((tail.seq, tail.bytes), (n + 1, bytes), "capacity {capacity}");
        }
    }
}
