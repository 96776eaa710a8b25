//! Growing and shrinking with readers attached.

use std::sync::Arc;

use super::*;
use shm_test_support::Raise;

#[test]
fn a_channel_grows_for_a_message_and_for_a_slow_reader_before_it_blocks() {
    let mut channel = TestChannel::new(4096, geometry(1 << 20));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    let publishing = std::thread::spawn(move || {
        writer.publish(&[1; 100_000]).unwrap();
        for n in 0..1000 {
            writer.publish(&message(n, 400)).unwrap();
        }
        writer
    });
    while !publishing.is_finished() {
        channel.obey();
        std::thread::yield_now();
    }
    publishing.join().unwrap();
    assert!(channel.capacity >= 131_072);
    assert_eq!(receive(&mut reader), [1; 100_000]);
    for n in 0..1000 {
        assert_eq!(receive(&mut reader), message(n, 400));
    }
}

#[test]
fn prefault_takes_no_memory_above_the_capacity() {
    let mut geometry = geometry(1 << 20);
    geometry.prefault = true;
    let mut channel = TestChannel::new(65536, geometry);
    let file = channel.segment.try_clone().unwrap();
    // After a shrink, the file keeps its length while a reader may stand above, and its memory is given back.
    nix::unistd::ftruncate(&file, (DATA_OFFSET + (1 << 20)) as i64).unwrap();
    let memory = || nix::sys::stat::fstat(&file).unwrap().st_blocks;
    let before = memory();
    let _reader = channel.reader(Start::Oldest);
    let _writer = channel.writer();
    assert_eq!(memory(), before);
}

#[test]
fn a_refused_growth_is_an_error_only_for_the_message_that_needs_it() {
    let mut channel = TestChannel::new(4096, geometry(1 << 20));
    let mut writer = channel.writer();
    channel.send(ToWriter::NotGrown { reason: "asked 1048576, free 0".to_owned() }, Vec::new());
    let error = writer.publish(&[1; 100_000]).unwrap_err();
    assert!(error.to_string().contains("free 0"), "{error}");
    writer.publish(&[1; 1000]).unwrap();
}

/// As when an operator asks for less while the channel grows: the daemon gives the growth up, and answers only the operator.
#[test]
fn a_writer_whose_growth_was_given_up_for_a_shrink_asks_again() {
    let mut channel = TestChannel::new(16384, geometry(1 << 20));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    for capacity in [16384, 4096] {
        while writer.try_publish(&[7; 100]).is_ok() {}
        let heard = channel.hear();
        assert!(matches!(heard[..], [ToDaemon::Grow { .. }]), "with {capacity} bytes: {heard:?}");
        if capacity > 4096 {
            channel.shrink(4096);
            for _ in 0..3 {
                writer.maintain().unwrap();
                while reader.try_recv().unwrap().is_some() {}
            }
            assert!(matches!(channel.obey()[..], [ToDaemon::Shrunk { .. }]));
        }
    }
}

#[test]
fn a_full_ring_undoes_a_shrink_that_nobody_has_asked_for() {
    for (yields, on_full) in
        [(true, OnFull::Block), (true, OnFull::Drop), (true, OnFull::Overwrite), (false, OnFull::Block)]
    {
        let mut channel = TestChannel::new(16384, Geometry { on_full, ..geometry(1 << 20) });
        let _reader = channel.reader(Start::Oldest);
        let mut writer = channel.writer();
        for _ in 0..100 {
            writer.try_publish(&[7; 100]).unwrap();
        }
        channel.send(ToWriter::Shrink { capacity: 4096, id: 1, yields }, Vec::new());
        let _ = writer.try_publish(&[7; 100]);
        let heard = channel.hear();
        let asks = heard.iter().any(|line| matches!(line, ToDaemon::Grow { .. }));
        assert_eq!(asks, yields, "{on_full:?}: {heard:?}");
    }
}

#[test]
fn a_shrink_waits_for_the_readers_and_then_gives_the_memory_back() {
    let mut channel = TestChannel::new(1 << 20, geometry(1 << 20));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    for n in 0..1000u64 {
        writer.publish(&message(n, 600)).unwrap();
    }
    channel.shrink(8192);
    writer.maintain().unwrap();
    assert!(writer.is_shrinking());
    assert!(channel.obey().is_empty());
    assert_eq!(Snapshot::read(channel.segment.as_fd()).unwrap().pending, 8192);
    for n in 0..1000u64 {
        assert_eq!(receive(&mut reader), message(n, 600));
    }
    assert!(reader.try_recv().unwrap().is_none());
    writer.maintain().unwrap();
    // The reader must also follow the jump out of the upper part.
    assert!(reader.try_recv().unwrap().is_none());
    writer.maintain().unwrap();
    assert!(matches!(channel.obey()[..], [ToDaemon::Shrunk { capacity: 8192, .. }]));
    assert_eq!(reserve::length(channel.segment.as_fd()).unwrap(), DATA_OFFSET + 8192);
    assert_eq!(channel.reader(Start::New).seq(), 1000);
    assert_eq!(channel.reader(Start::Oldest).seq(), 1000);
    channel.detach(channel.readers[2].id);
    channel.detach(channel.readers[1].id);
    for n in 0..1000u64 {
        writer.publish(&message(n, 600)).unwrap();
        assert_eq!(receive(&mut reader), message(n, 600));
        assert!(reader.try_recv().unwrap().is_none());
    }
}

/// Everything at once: four readers, a resize every few hundred messages, both ways.
#[test]
fn nothing_is_lost_while_the_channel_is_resized_under_load() {
    const MESSAGES: u64 = 60_000;
    const END: &[u8] = b"the end, which no other message equals";
    let most = 16_000;
    for on_full in [OnFull::Block] {
        let mut channel = TestChannel::new(65536, Geometry { on_full, ..geometry(1 << 20) });
        let mut handles = Vec::new();
        for _ in 0..4 {
            let mut reader = channel.reader(Start::Oldest);
            handles.push(std::thread::spawn(move || {
                let mut out = Vec::new();
                for n in 0.. {
                    let got = reader.recv_into(&mut out, SOON).unwrap();
                    assert_eq!(got.seq, n);
                    if out == END {
                        return assert!(n >= MESSAGES);
                    }
                    assert!(out == message(n, most), "message {n}");
                }
            }));
        }
        let mut writer = channel.writer();
        // At least MESSAGES messages, and more until there were enough resizes.
        let enough = Arc::new(AtomicBool::new(false));
        let (seen, _raise) = (Arc::clone(&enough), Raise(&enough));
        let publishing = std::thread::spawn(move || {
            for n in (0..).take_while(|&n| n < MESSAGES || !seen.load(Ordering::Relaxed)) {
                if n % 7 == 0 {
                    let mut batch = writer.batch();
                    batch.push(&message(n, most)).unwrap();
                    batch.commit().unwrap();
                } else {
                    writer.publish(&message(n, most)).unwrap();
                }
            }
            writer.publish(END).unwrap();
            writer
        });
        let (mut grown, mut shrunk) = (0, 0);
        let mut pending = false;
        let mut turn = 0u64;
        while !publishing.is_finished() {
            for line in channel.obey() {
                match line {
                    ToDaemon::Shrunk { .. } => {
                        shrunk += 1;
                        pending = false;
                    }
                    ToDaemon::Grow { .. } => {
                        grown += 1;
                        pending = false;
                    }
                    other => panic!("{other:?}"),
                }
            }
            if !pending {
                turn += 1;
                if turn.is_multiple_of(2) {
                    channel.shrink(32768 + 4096 * (turn % 5));
                    pending = true;
                } else {
                    channel.grow((channel.capacity * 2).min(1 << 20));
                    grown += 1;
                }
            }
            enough.store(grown > 20 && shrunk > 20, Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(300));
        }
        drop(publishing.join().unwrap());
        handles.into_iter().for_each(|handle| handle.join().unwrap());
    }
}
