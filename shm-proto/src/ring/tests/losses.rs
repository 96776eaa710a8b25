//! What is dropped and what is overwritten, counted.

use super::*;
use shm_test_support::Raise;

#[test]
fn a_drop_channel_counts_what_it_drops() {
    let mut channel = TestChannel::new(4096, Geometry { on_full: OnFull::Drop, ..geometry(4096) });
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    let (mut sent, mut dropped, mut received) = (0u64, 0u64, 0u64);
    for n in 0..5000u64 {
        match writer.publish(&message(n, 300)).unwrap() {
            Some(seq) => {
                assert_eq!(seq, sent);
                sent += 1;
            }
            None => dropped += 1,
        }
        if n % 50 == 0 {
            while reader.try_recv().unwrap().is_some() {
                received += 1;
            }
        }
    }
    while reader.try_recv().unwrap().is_some() {
        received += 1;
    }
    assert!(dropped > 0);
    assert_eq!((sent + dropped, received), (5000, sent));
    let seen = Snapshot::read(channel.segment.as_fd()).unwrap();
    assert_eq!((seen.tail.seq, seen.dropped), (sent, dropped));
    assert!(channel.obey().iter().any(|line| matches!(line, ToDaemon::Overflow { .. })));
}

#[test]
fn a_lapped_reader_learns_exactly_how_many_it_lost() {
    let mut channel = TestChannel::new(8192, Geometry { on_full: OnFull::Overwrite, ..geometry(8192) });
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    let stop = AtomicBool::new(false);
    let (mut received, mut lost) = (0u64, 0u64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _raise = Raise(&stop);
            for n in 0..200_000u64 {
                let len = 8 + n % 300;
                let mut bytes = vec![n as u8; len as usize];
                bytes[..8].copy_from_slice(&n.to_le_bytes());
                writer.publish(&bytes).unwrap();
            }
        });
        let mut out = Vec::new();
        let mut next = 0;
        loop {
            let stopped = stop.load(Ordering::SeqCst);
            match reader.recv_into(&mut out, NOW) {
                Ok(got) => {
                    let n = u64::from_le_bytes(out[..8].try_into().unwrap());
                    assert_eq!(n, got.seq);
                    assert_eq!(n, next + got.lost_before);
                    assert_eq!(out.len() as u64, 8 + n % 300);
                    assert!(out[8..].iter().all(|byte| *byte == n as u8), "torn message {n}");
                    next = n + 1;
                    received += 1;
                    lost += got.lost_before;
                }
                Err(ReaderError::TimedOut { .. }) if stopped => break,
                Err(ReaderError::TimedOut { .. }) => {}
                Err(e) => panic!("{e}"),
            }
        }
    });
    assert_eq!(received + lost, 200_000);
    assert_eq!(reader.lost(), lost);
    assert_eq!(reader.received(), received);
}

#[test]
fn a_message_used_in_place_is_not_believed_when_it_was_overwritten_meanwhile() {
    let mut channel = TestChannel::new(4096, Geometry { on_full: OnFull::Overwrite, ..geometry(4096) });
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    writer.publish(&[1; 100]).unwrap();
    writer.publish(&[2; 100]).unwrap();
    reader.recv(SOON).unwrap().finish().unwrap();
    let held = reader.recv(SOON).unwrap();
    for _ in 0..200 {
        writer.publish(&[3; 100]).unwrap();
    }
    assert!(matches!(held.finish(), Err(ReaderError::Lapped { lost, .. }) if lost > 0));
    let next = reader.recv(SOON).unwrap();
    assert!(next.lost_before() > 0);
}
