//! Every message reaches every reader, byte for byte, while the channel is resized under them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use shm_proto::Bytes;

use crate::content::Content;
use crate::helpers;
use shm_test_support::{Daemon, PATIENCE, Raise, heavy, wait_for};

const MESSAGES: u64 = 1_000_000;
/// At least so many changes of the capacity fall between the first message and the last.
const RESIZES: u64 = 60;
const LOOK_EVERY: u64 = 4096;

#[test]
fn one_reader_receives_every_message_while_the_channel_is_resized() {
    soak(1, 150);
}

#[test]
fn four_readers_receive_every_message_while_the_channel_is_resized() {
    soak(4, 400);
}

#[test]
fn sixteen_readers_receive_every_message_while_the_channel_is_resized() {
    soak(16, 1500);
}

fn soak(readers: usize, large_one_in: u64) {
    let _turn = heavy();
    let daemon = Daemon::start("[[channel]]\ncapacity = \"1MiB\"\nmin = \"64KiB\"\nmax = \"16MiB\"\n");
    let (count, large) = (MESSAGES.to_string(), large_one_in.to_string());
    let verifiers: Vec<_> =
        (0..readers).map(|_| helpers::start(&daemon, "verify", &[large.as_str(), count.as_str()])).collect();
    daemon.until_readers(readers);

    let (resized, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let bytes = std::thread::scope(|scope| {
        scope.spawn(|| {
            // The writer waits for what is counted here, so that a panic would let it wait for ever.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| resize(&daemon, &resized, &done)));
            resized.store(u64::MAX, Ordering::Relaxed);
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        let _done = Raise(&done);
        write(&daemon, &Content::new(large_one_in), &resized)
    });

    let verified = format!("verified {MESSAGES} messages, {bytes} bytes\n");
    for verifier in verifiers {
        let run = verifier.wait().ok();
        assert!(run.err.contains(&verified), "{verified}{run:?}");
    }
    let stat = daemon.stat();
    assert_eq!((stat.messages, stat.bytes, stat.dropped, stat.overwritten), (MESSAGES, bytes, 0, 0));
    assert_eq!(stat.evicted, 0);
    println!("{readers} readers: {} each, {} resizes", Bytes(bytes), stat.resizes);
}

/// Publishes everything, no faster than the resizes come; returns how many bytes that were.
fn write(daemon: &Daemon, content: &Content, resized: &AtomicU64) -> u64 {
    let mut writer = daemon.writer();
    let mut bytes = 0;
    for n in 0..MESSAGES {
        let message = content.message(n);
        assert_eq!(writer.publish_within(message, PATIENCE).unwrap(), Some(n));
        bytes += message.len() as u64;
        if n.is_multiple_of(LOOK_EVERY) {
            let due = n * RESIZES / MESSAGES;
            wait_for("the resizes keep up with the messages", || {
                writer.maintain().unwrap();
                (resized.load(Ordering::Relaxed) >= due).then_some(())
            });
        }
    }
    bytes
}

/// Makes the channel larger and smaller in turn and counts the changes that took effect, up and down.
fn resize(daemon: &Daemon, resized: &AtomicU64, done: &AtomicBool) {
    let before = daemon.stat().resizes;
    let sizes = [256 << 10, 4 << 20, 64 << 10, 1 << 20, 128 << 10, 16 << 20];
    let (mut ups, mut downs, mut last) = (0u64, 0u64, daemon.stat().capacity);
    for bytes in sizes.into_iter().cycle() {
        if done.load(Ordering::Relaxed) {
            break;
        }
        // A request may find another change under way, or be overtaken by the writer's wish for room.
        let _ = daemon.resize(bytes);
        let stat = wait_for("a resize is no longer pending", || {
            let stat = daemon.stat();
            (stat.pending.is_none() || done.load(Ordering::Relaxed)).then_some(stat)
        });
        ups += u64::from(stat.capacity > last);
        downs += u64::from(stat.capacity < last);
        last = stat.capacity;
        // What took effect by the daemon's own count; no more than one up and one down for each of ours.
        resized.store((stat.resizes - before).min(ups + downs), Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2));
    }
    let counted = daemon.stat().resizes - before;
    assert!(counted >= 50, "{counted} resizes took effect");
    assert!(ups >= 20 && downs >= 20, "{ups} times larger, {downs} times smaller");
}
