//! Slow readers, which the writer waits for, and readers that stand still, which it evicts. Nothing here depends on the
//! speed of the machine: only the writer's waits count, and each wait counts for no longer than it was planned to take.

use super::*;

fn channel(on_full: OnFull, capacity: u64, evict_after_ms: u64) -> TestChannel {
    TestChannel::new(capacity, Geometry { on_full, evict_after_ms, ..geometry(capacity) })
}

/// Which readers the writer has evicted, and why.
fn evicted(channel: &mut TestChannel) -> Vec<(u32, String)> {
    let line = |line| match line {
        ToDaemon::Evicted { reader, reason } => Some((reader, reason)),
        _ => None,
    };
    channel.obey().into_iter().filter_map(line).collect()
}

#[test]
fn a_reader_that_moves_a_message_at_a_time_is_never_evicted() {
    // Without a request, the reader publishes its cursor once per eighth of this, which is more than a hundred
    // messages.
    let mut channel = channel(OnFull::Block, 64 << 10, 80);
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    while writer.try_publish(&[7; 64]).is_ok() {}
    let mut waited = Duration::ZERO;
    for _ in 0..100 {
        // At most 56 of the 80 ms count between two messages: 2 waits of 8 ms, and a quarter of 80 ms after each.
        for _ in 0..2 {
            let error = writer.publish_within(&[7; 64], Duration::from_millis(8)).err();
            waited += error.map_or(Duration::ZERO, |_| Duration::from_millis(8));
        }
        reader.recv(NOW).unwrap().finish().unwrap();
        assert_eq!(evicted(&mut channel), []);
    }
    assert!(waited > Duration::from_millis(5 * 80), "{waited:?}");
}

#[test]
fn a_reader_that_stands_still_is_evicted_by_many_short_waits() {
    let mut channel = channel(OnFull::Block, 4096, 50);
    let mut stuck = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    while writer.try_publish(&[7; 64]).is_ok() {}
    let mut waits = 0;
    wait_until("it is evicted", || {
        waits += 1;
        writer.publish_within(&[7; 64], Duration::from_millis(2)).is_ok()
    });
    assert!(waits > 3, "{waits}");
    let evicted = evicted(&mut channel);
    let [(1, reason)] = &evicted[..] else { panic!("{evicted:?}") };
    let stood = reason.split_once("it read nothing for ").unwrap().1.split_once(" ms while").unwrap().0;
    assert!(stood.parse::<u64>().unwrap() >= 50 && reason.contains("bytes behind"), "{reason}");
    assert!(matches!(stuck.recv(NOW), Err(ReaderError::Evicted { .. })));
}

#[test]
fn a_stopped_reader_of_a_drop_channel_is_evicted_and_the_others_receive_again() {
    let mut channel = channel(OnFull::Drop, 4096, 50);
    let (mut stuck, mut good) = (channel.reader(Start::Oldest), channel.reader(Start::Oldest));
    let mut writer = channel.writer();
    let mut line = Vec::new();
    let (mut dropped, mut kept) = (0u64, 0u64);
    let mut publish = |writer: &mut Writer| {
        let sent = writer.publish(&[7; 64]).unwrap().is_some();
        if sent {
            good.recv_into(&mut line, SOON).unwrap();
        }
        sent
    };
    let mut gone = Vec::new();
    wait_until("it is evicted", || {
        if publish(&mut writer) {
            kept += 1
        } else {
            dropped += 1
        }
        gone = evicted(&mut channel);
        !gone.is_empty()
    });
    let [(1, reason)] = &gone[..] else { panic!("{gone:?}") };
    assert!(reason.contains("there was no space for") && reason.contains("bytes behind"), "{reason}");
    assert!(dropped > 0 && kept >= (4096 - 64) / 80, "{dropped} {kept}");
    assert!((0..1000).all(|_| publish(&mut writer)), "there is nobody left to drop a message for");
    assert!(matches!(stuck.recv(NOW), Err(ReaderError::Evicted { .. })));
}

#[test]
fn a_slow_reader_of_a_drop_channel_stays() {
    let mut channel = channel(OnFull::Drop, 64 << 10, 80);
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    while writer.publish(&[7; 64]).unwrap().is_some() {}
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(5 * 80) {
        // Each counts for at most a quarter of `evict_after`, if this thread does not run for that long.
        for _ in 0..2 {
            writer.publish(&[7; 64]).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        reader.recv(NOW).unwrap().finish().unwrap();
        assert_eq!(evicted(&mut channel), []);
    }
}

#[test]
fn a_stopped_reader_does_not_hold_up_for_ever_what_waits_for_a_smaller_and_then_a_larger_ring() {
    let mut channel = TestChannel::new(65536, Geometry { evict_after_ms: 50, ..geometry(1 << 20) });
    let _stuck = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    for _ in 0..20 {
        writer.publish(&[1; 1000]).unwrap();
    }
    channel.shrink(8192);
    let publishing = std::thread::spawn(move || {
        writer.publish(&[2; 100_000]).unwrap();
        writer
    });
    // The daemon does not answer the request to grow until the shrink has taken effect.
    let mut asked = None;
    wait_until("the message is published", || {
        for line in channel.hear() {
            match line {
                ToDaemon::Grow { capacity } => asked = Some(capacity),
                ToDaemon::Shrunk { .. } => {}
                ToDaemon::Evicted { reader, .. } => {
                    assert_eq!(reader, 1);
                    channel.readers.clear();
                    channel.grow(asked.expect("it has asked").next_power_of_two());
                }
                other => panic!("{other:?}"),
            }
        }
        std::thread::sleep(Duration::from_millis(1));
        publishing.is_finished()
    });
    assert_eq!(publishing.join().unwrap().messages(), 21);
}
