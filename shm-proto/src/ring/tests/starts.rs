//! Where readers start if they attach while the writer is publishing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::testing::Overheard;
use super::*;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The writer has looked at the generation and is about to move the floor when a reader attaches. The test acts in
/// between by means of the line that the writer sends when it finds a cursor inside a message.
#[test]
fn a_reader_that_attaches_while_the_floor_is_about_to_move_starts_with_what_stays() {
    for on_full in [OnFull::Block, OnFull::Drop] {
        let geometry = Geometry { on_full, ..geometry(4096) };
        let channel = Arc::new(Mutex::new(TestChannel::new(4096, geometry)));
        let attached = Arc::new(Mutex::new(None));
        let mut writer = {
            let (weak, attached) = (Arc::downgrade(&channel), Arc::clone(&attached));
            let attach = move |line: &ToDaemon| {
                if let (ToDaemon::Evicted { .. }, Some(channel)) = (line, weak.upgrade()) {
                    *lock(&attached) = Some(lock(&channel).reader(Start::Oldest));
                }
            };
            let mut channel = lock(&channel);
            channel.overheard = Some(Overheard(Arc::new(attach)));
            let _liar = channel.reader(Start::Oldest);
            channel.writer()
        };
        let mut messages = 0u64;
        while let Ok(Some(_)) = writer.try_publish(&messages.to_le_bytes().repeat(8)) {
            messages += 1;
        }
        lock(&channel).readers[0].page.line.cursor.store(10 * 80 + 8, Ordering::SeqCst);
        drop(writer.publish_within(&[0; 64], Duration::from_millis(1)));
        let mut reader = lock(&attached).take().expect("the liar was evicted, and a reader has attached");
        let first = reader.seq();
        for n in first..messages {
            assert_eq!(receive(&mut reader), n.to_le_bytes().repeat(8), "{on_full:?}");
        }
        assert_eq!((reader.lost(), reader.received()), (0, messages - first), "{on_full:?}");
    }
}

/// The publish in progress does not know the reader yet, and may need the space at which the reader starts.
#[test]
fn a_reader_that_attaches_under_load_misses_nothing_that_it_starts_with() {
    for on_full in [OnFull::Block, OnFull::Drop] {
        let mut channel = TestChannel::new(4096, Geometry { on_full, ..geometry(4096) });
        let mut writer = channel.writer();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stop = Stop(&stop);
            scope.spawn(|| {
                for n in 0u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    match writer.publish_within(&n.to_le_bytes().repeat(8), Duration::from_secs(1)) {
                        Ok(_) | Err(WriterError::TimedOut { .. }) => {}
                        Err(e) => panic!("{e}"),
                    }
                }
            });
            for n in 0..1_000 {
                let mut reader = channel.reader(if n % 4 == 0 { Start::New } else { Start::Oldest });
                let first = reader.seq();
                for next in first..first + 3 {
                    let got = reader.recv(SOON).unwrap();
                    assert_eq!((got.seq(), got.lost_before()), (next, 0), "{on_full:?}: attach {n} reports a loss");
                }
                assert_eq!(reader.lost(), 0);
                channel.detach(channel.readers[0].id);
            }
        });
    }
}

/// The writer publishes as soon as it sees the reader. The reader may still be on its way to the tail.
#[test]
fn a_reader_that_publishing_waits_for_receives_what_is_published_for_it() {
    let mut channel = TestChannel::new(65536, Geometry { wait_readers: 1, ..geometry(65536) });
    let mut writer = channel.writer();
    let stop = AtomicBool::new(false);
    let (asked, published) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if published.load(Ordering::Relaxed) == asked.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                } else if let Ok(Some(seq)) = writer.try_publish(b"for the reader") {
                    published.store(seq + 1, Ordering::Relaxed);
                }
            }
        });
        for n in 0..5_000 {
            asked.store(n + 1, Ordering::Release);
            let mut reader = channel.reader(Start::New);
            assert_eq!((reader.seq(), receive(&mut reader)), (n, b"for the reader".to_vec()), "attach {n}");
            channel.detach(channel.readers[0].id);
        }
    });
}

/// Stops the second thread of a test, also if the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_writer_that_died_while_it_moved_the_floor_leaves_nothing_to_be_missed() {
    use super::published::Place;
    use super::segment::WritableSegment;
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut writer = channel.writer();
    for n in 0..10u64 {
        writer.publish(&n.to_le_bytes()).unwrap();
    }
    std::mem::forget(writer);
    let segment = WritableSegment::open(channel.segment.as_fd(), &channel.geometry).unwrap();
    segment.header().next_floor.store(Place { pos: 64, off: 120, seq: 4, bytes: 32 });
    // One reader attaches before the next writer, one after it.
    let mut early = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    let mut late = channel.reader(Start::Oldest);
    assert_eq!((early.seq(), late.seq()), (4, 0));
    for n in 10..1000u64 {
        writer.publish(&n.to_le_bytes()).unwrap();
        for reader in [&mut early, &mut late] {
            while reader.seq() < n {
                let next = reader.seq();
                assert_eq!(receive(reader), next.to_le_bytes());
            }
        }
    }
    assert_eq!((early.lost(), late.lost()), (0, 0));
    assert!(channel.obey().is_empty());
}
