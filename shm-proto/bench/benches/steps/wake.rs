//! Barriers and semaphores: what it costs to go to sleep, and not to.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::thread;

use divan::{Bencher, black_box};
use shm_proto::internal::os::barrier;
use shm_proto::internal::os::page::SharedPage;
use shm_proto::internal::os::sem::{Semaphore, Wait};
use shm_proto::internal::ring::layout::ReaderPage;
use shm_proto::internal::ring::wake::Barrier;

fn page() -> SharedPage<ReaderPage> {
    SharedPage::create("steps-wake").unwrap().0
}

/// The writer's side of every message: nothing but what the compiler may not do.
#[divan::bench]
fn barrier_light(bencher: Bencher<'_, '_>) {
    let word = AtomicU32::new(0);
    bencher.bench_local(|| {
        black_box(&word).store(1, Ordering::Relaxed);
        Barrier::Asymmetric.light();
        word.load(Ordering::Relaxed)
    });
}

/// The same where there is no `membarrier`.
#[divan::bench]
fn barrier_fence(bencher: Bencher<'_, '_>) {
    let word = AtomicU32::new(0);
    bencher.bench_local(|| {
        black_box(&word).store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        word.load(Ordering::Relaxed)
    });
}

/// The sleeper's side, while no other processor runs a writer; with one it takes an interrupt there.
#[divan::bench(sample_size = 64)]
fn barrier_heavy() {
    barrier::heavy();
}

/// A reader prepares for sleeping in a poll loop.
#[divan::bench(sample_size = 64)]
fn arm(bencher: Bencher<'_, '_>) {
    let (_writer, mut reader) = shm_test_support::pair(1 << 20);
    bencher.bench_local(|| assert!(reader.arm().unwrap(), "there is nothing to read"));
}

/// Nobody waits, so the kernel is not called.
#[divan::bench]
fn semaphore_post_and_take(bencher: Bencher<'_, '_>) {
    let page = page();
    let semaphore = Semaphore::new(&page.wake);
    bencher.bench_local(|| {
        semaphore.post();
        assert!(semaphore.try_wait());
    });
}

/// There and back again between two threads that sleep.
#[divan::bench]
fn semaphore_round_trip(bencher: Bencher<'_, '_>) {
    let page = page();
    let (there, back) = (Semaphore::new(&page.wake), Semaphore::new(&page.space));
    let done = AtomicBool::new(false);
    let wait = |semaphore: Semaphore<'_>| while semaphore.wait_until(u64::MAX) != Wait::Posted {};
    thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                wait(there);
                if done.load(Ordering::Relaxed) {
                    return;
                }
                back.post();
            }
        });
        bencher.bench_local(|| {
            there.post();
            wait(back);
        });
        done.store(true, Ordering::Relaxed);
        there.post();
    });
}
