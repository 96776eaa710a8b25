//! A reader in a task.

use std::fs;
use std::future::{Future, poll_fn};
use std::os::unix::fs::FileExt;
use std::pin::{Pin, pin};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use futures_core::Stream;
use nix::sys::signal::Signal;
use shm_proto::internal::os::process;
use shm_proto::{AsyncFollower, AsyncReader, Follower, Reader, ReaderError, Start, WaitStrategy};
use shm_test_support::{Daemon, Proc, clean, joined, wait_until};
use tokio::time::sleep;

use crate::{payload, run};

const SMALL: &str = "[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"0\"\n";

/// Publishes bursts, each when the reader has been cancelled once more.
fn bursts(daemon: &Daemon, bursts: u64, cancelled: &Arc<AtomicU64>) -> thread::JoinHandle<()> {
    let (mut writer, cancelled) = (daemon.writer(), cancelled.clone());
    thread::spawn(move || {
        for burst in 0..bursts {
            wait_until("the reader is cancelled", || cancelled.load(Ordering::Relaxed) > burst);
            for seq in burst * 100..(burst + 1) * 100 {
                assert_eq!(writer.publish(&payload(seq)).unwrap(), Some(seq));
            }
        }
    })
}

#[test]
fn no_message_is_lost_beside_a_timer_that_cancels() {
    let daemon = Daemon::start(SMALL);
    let reader = daemon.reader(Start::New);
    let cancelled = Arc::new(AtomicU64::new(0));
    let writer = bursts(&daemon, 50, &cancelled);
    run(async move {
        let mut reader = AsyncReader::new(reader).unwrap();
        let (mut bytes, mut next) = (Vec::new(), 0);
        while next < 5000 {
            tokio::select! {
                received = reader.recv_into(&mut bytes) => {
                    let received = received.unwrap();
                    assert_eq!((received.seq, received.lost_before), (next, 0));
                    assert_eq!(bytes, payload(next));
                    next += 1;
                }
                () = sleep(Duration::from_millis(1)) => { cancelled.fetch_add(1, Ordering::Relaxed); }
            }
        }
        assert_eq!((reader.get_ref().received(), reader.get_ref().lost()), (5000, 0));
    });
    joined(writer);
}

#[test]
fn a_call_that_is_dropped_whenever_it_is_not_ready_loses_nothing() {
    let daemon = Daemon::start(SMALL);
    let reader = daemon.reader(Start::New);
    let cancelled = Arc::new(AtomicU64::new(0));
    let writer = bursts(&daemon, 50, &cancelled);
    run(async move {
        let mut reader = AsyncReader::new(reader).unwrap();
        let mut bytes = Vec::new();
        for next in 0..5000 {
            // A new future for each poll: every second message is taken in place, the others are copied out.
            let received = poll_fn(|cx| {
                let polled = if next % 2 == 0 {
                    pin!(async { reader.recv().await.map(|message| (message.seq(), message.finish())) }).poll(cx)
                } else {
                    pin!(reader.recv_into(&mut bytes)).poll(cx).map_ok(|received| (received.seq, Ok(())))
                };
                if polled.is_pending() {
                    cancelled.fetch_add(1, Ordering::Relaxed);
                }
                polled
            });
            let (seq, finished) = received.await.unwrap();
            assert_eq!((seq, finished.is_ok()), (next, true));
        }
    });
    joined(writer);
}

#[test]
fn a_stream_yields_owned_copies_and_the_losses_and_ends_with_the_channel() {
    let mut daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\non_full = \"overwrite\"\n");
    let reader = daemon.reader(Start::New);
    let mut writer = daemon.writer();
    let sent = 2000;
    for seq in 0..sent {
        writer.publish(&payload(seq)).unwrap();
    }
    drop(writer);
    daemon.stop(Signal::SIGTERM);
    run(async move {
        let mut reader = AsyncReader::new(reader).unwrap();
        let (mut next, mut lost) = (0, 0);
        while let Some(message) = poll_fn(|cx| Pin::new(&mut reader).poll_next(cx)).await {
            let message = message.unwrap();
            assert_eq!((message.seq, &message.bytes), (next + message.lost_before, &payload(message.seq)));
            next = message.seq + 1;
            lost += message.lost_before;
        }
        assert_eq!((next, lost > 0), (sent, true));
        assert!(poll_fn(|cx| Pin::new(&mut reader).poll_next(cx)).await.is_none());
        assert!(matches!(reader.recv().await, Err(ReaderError::Closed { .. })));
    });
}

#[test]
fn a_stream_ends_after_the_error_that_ends_the_attachment() {
    let daemon = Daemon::start(SMALL);
    let reader = daemon.reader(Start::New);
    let number = daemon.until_readers(1).readers[0].reader;
    daemon.cli(&["evict", "--reader", &number.to_string()]).quiet();
    run(async move {
        let mut reader = AsyncReader::new(reader).unwrap();
        let last = poll_fn(|cx| Pin::new(&mut reader).poll_next(cx)).await;
        assert!(matches!(last, Some(Err(ReaderError::Evicted { .. }))), "{last:?}");
        assert!(poll_fn(|cx| Pin::new(&mut reader).poll_next(cx)).await.is_none());
    });
}

/// How long it takes to poll this future once, for which there is no message.
fn poll_takes(cx: &mut Context<'_>, future: impl Future) -> Duration {
    let begun = Instant::now();
    assert!(pin!(future).poll(cx).is_pending());
    begun.elapsed()
}

#[test]
fn a_task_does_not_spin_although_its_reader_would() {
    const SPIN: Duration = Duration::from_secs(1);
    let daemon = Daemon::start(SMALL);
    let mut reader = daemon.reader(Start::New);
    reader.set_wait_strategy(WaitStrategy::Spin(SPIN));
    let follower = Follower::new(daemon.endpoint(), None, Start::New).unwrap();
    let mut follower = follower.with_wait_strategy(WaitStrategy::Spin(SPIN));
    assert!(follower.try_recv().unwrap().is_none());
    run(async move {
        let (mut reader, mut follower) = (AsyncReader::new(reader).unwrap(), AsyncFollower::new(follower).unwrap());
        // On a busy machine, some of them may take as long as that.
        poll_fn(|cx| {
            assert!((0..20).any(|_| poll_takes(cx, reader.recv()) < SPIN), "a reader spins");
            assert!((0..20).any(|_| poll_takes(cx, follower.recv()) < SPIN), "a follower spins");
            Poll::Ready(())
        })
        .await;
    });
}

#[test]
fn a_task_that_always_finds_messages_lets_the_others_run() {
    let daemon = Daemon::start("");
    let reader = daemon.reader(Start::New);
    let mut writer = daemon.writer();
    for seq in 0..1000 {
        writer.publish(&payload(seq)).unwrap();
    }
    let turns = run(async move {
        let mut reader = AsyncReader::new(reader).unwrap();
        let turns = Arc::new(AtomicU64::new(0));
        let other = tokio::spawn({
            let turns = turns.clone();
            async move {
                loop {
                    turns.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            }
        });
        for _ in 0..1000 {
            reader.recv().await.unwrap().finish().unwrap();
        }
        other.abort();
        turns.load(Ordering::Relaxed)
    });
    assert!(turns >= 5, "the other task had {turns} turns while 1000 messages were received");
}

/// Nothing but a timer wakes the task here: the writer ends without a daemon that could tell, and has no bell.
#[test]
fn the_end_of_a_writer_that_has_outlived_the_daemon_is_noticed() {
    let mut daemon = Daemon::start(SMALL);
    let reader = Reader::attach(&daemon.endpoint().with_patience(Duration::ZERO), None, Start::New).unwrap();
    daemon.kill();
    let mut writer = writing_process(&daemon);
    run(async move {
        let mut reader = AsyncReader::new(reader).unwrap();
        // Until the reader knows that no daemon comes.
        while !reader.get_ref().is_disconnected() {
            tokio::select! {
                received = reader.recv() => panic!("{received:?}"),
                () = sleep(Duration::from_millis(1)) => {}
            }
        }
        let ended = poll_fn(|cx| {
            let polled = pin!(async { reader.recv().await.map(drop) }).poll(cx);
            if polled.is_pending() {
                end(&mut writer);
            }
            polled
        });
        assert!(matches!(ended.await, Err(ReaderError::Disconnected { .. })));
        writer.wait().ok();
    });
}

/// A process that the segment's header names as its writer.
pub(crate) fn writing_process(daemon: &Daemon) -> Proc {
    let mut command = clean("cat");
    command.stdin(Stdio::piped());
    let writer = Proc::spawn(command);
    let segment = fs::OpenOptions::new().write(true).open(daemon.place.object("main")).unwrap();
    segment.write_all_at(&process::start_ticks(writer.pid()).unwrap().to_le_bytes(), 448).unwrap();
    segment.write_all_at(&u64::from(writer.pid()).to_le_bytes(), 416).unwrap();
    writer
}

/// Ends that process, if it has not ended.
pub(crate) fn end(writer: &mut Proc) {
    if writer.is_running() {
        writer.end_input();
        wait_until("the writer has ended", || !writer.is_running());
    }
}
