use std::os::fd::AsFd;
use std::time::Duration;

use super::*;
use crate::os::clock::monotonic_ns;
use crate::os::map::Mapping;
use crate::os::reserve;
use shm_test_support::{in_child, memory, wait_until};

const SECOND: u64 = 1_000_000_000;

fn shared() -> Mapping {
    let object = memory("mutex");
    reserve::now(object.as_fd(), 4096).unwrap();
    Mapping::read_write(object.as_fd(), 4096).unwrap()
}

fn cell(mapping: &Mapping) -> RobustMutex<'_> {
    // SAFETY: atomics inside the page reserved by `shared`.
    RobustMutex::new(unsafe { mapping.view::<MutexCell>(0) })
}

fn take(mutex: RobustMutex<'_>) -> Guard<'_> {
    match mutex.lock_until(monotonic_ns() + 60 * SECOND).unwrap() {
        Lock::Held(guard) => guard,
        other => panic!("{other:?}"),
    }
}

/// Locks as a C program does that ignores what the call returns.
fn lock_blindly(mutex: RobustMutex<'_>) {
    // SAFETY: an initialised mutex in live shared memory.
    unsafe { libc::pthread_mutex_lock(mutex.ptr()) };
}

#[test]
fn a_holder_that_dies_inside_is_recovered_once() {
    let mapping = shared();
    let mutex = cell(&mapping);
    mutex.init().unwrap();
    assert!(mutex.is_robust() && mutex.is_sane());
    let child = in_child(|| {
        std::mem::forget(take(mutex));
        0
    });
    assert_eq!(child.exit_code(), 0);
    assert!(take(mutex).recovered());
    assert!(!take(mutex).recovered());
}

#[test]
fn a_holder_that_dies_during_the_recovery_is_recovered_too() {
    let mapping = shared();
    let mutex = cell(&mapping);
    mutex.init().unwrap();
    for _ in 0..2 {
        // The second one gets EOWNERDEAD and dies before it has repaired anything.
        let child = in_child(|| {
            lock_blindly(mutex);
            0
        });
        assert_eq!(child.exit_code(), 0);
    }
    assert!(take(mutex).recovered());
    assert!(!take(mutex).recovered());
}

#[test]
fn a_mutex_released_without_repair_is_told_and_can_be_made_anew() {
    let mapping = shared();
    let mutex = cell(&mapping);
    mutex.init().unwrap();
    let dies = in_child(|| {
        lock_blindly(mutex);
        0
    });
    assert_eq!(dies.exit_code(), 0);
    let careless = in_child(|| {
        lock_blindly(mutex);
        // SAFETY: locked by this thread just now.
        unsafe { libc::pthread_mutex_unlock(mutex.ptr()) };
        0
    });
    assert_eq!(careless.exit_code(), 0);
    assert!(matches!(mutex.lock_until(monotonic_ns() + 60 * SECOND).unwrap(), Lock::Unrecoverable));
    mutex.init().unwrap();
    assert!(!take(mutex).recovered());
}

#[test]
fn a_wait_for_a_living_holder_ends_at_its_deadline_and_names_it() {
    let mapping = shared();
    let mutex = cell(&mapping);
    mutex.init().unwrap();
    let child = in_child(|| {
        std::mem::forget(take(mutex));
        std::thread::sleep(Duration::from_secs(1000));
        0
    });
    wait_until("the mutex is locked", || mutex.holder().is_some());
    assert_eq!(mutex.holder(), Some(child.pid()));
    let start = monotonic_ns();
    assert!(matches!(mutex.lock_until(start + SECOND / 20).unwrap(), Lock::TimedOut));
    assert!(monotonic_ns() - start >= SECOND / 20);
}

#[test]
fn a_kind_that_is_not_a_plain_mutex_is_recognised() {
    let mapping = shared();
    let mutex = cell(&mapping);
    assert!(mutex.is_sane() && !mutex.is_robust(), "all zeroes is a static initialiser");
    mutex.cell.opaque[2].store(u64::from(32_u32), Ordering::Relaxed);
    assert!(!mutex.is_sane());
}
