use std::cell::Cell;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::*;
use crate::os::clock::after;
use crate::os::page::SharedPage;
use crate::ring::layout::ReaderPage;
use shm_test_support::{Raise, in_child, wait_until};

/// Longer than any test may take.
const LONG: Duration = Duration::from_secs(60);

fn page() -> SharedPage<ReaderPage> {
    SharedPage::create("semaphores").unwrap().0
}

/// The fields of the `sem_t`: value, waiters, `private`.
fn fields(cell: &SemaphoreCell) -> (u32, u32, u32) {
    let word = cell.opaque[0].load(Ordering::SeqCst);
    (word as u32, (word >> 32) as u32, cell.opaque[1].load(Ordering::SeqCst) as u32)
}

#[test]
fn a_post_is_taken_once() {
    let page = page();
    let semaphore = Semaphore::new(&page.wake);
    assert!(!semaphore.try_wait());
    semaphore.post();
    semaphore.post();
    assert!(semaphore.try_wait());
    assert_eq!(semaphore.wait_until(after(LONG)), Wait::Posted);
    assert!(!semaphore.try_wait());
}

#[test]
fn a_wait_without_a_post_ends_at_its_deadline_and_leaves_no_waiter() {
    let page = page();
    let deadline = after(Duration::from_millis(20));
    assert_eq!(Semaphore::new(&page.wake).wait_until(deadline), Wait::TimedOut);
    assert!(clock::monotonic_ns() >= deadline);
    assert_eq!(Semaphore::new(&page.wake).wait_until(0), Wait::TimedOut, "a deadline in the past");
    let (value, waiters, _) = fields(&page.wake);
    assert_eq!((value, waiters), (0, 0));
}

#[test]
fn a_post_that_comes_with_the_deadline_is_not_left_to_sleepers_that_it_has_not_woken() {
    let page = page();
    let semaphore = Semaphore::new(&page.wake);
    let is_first_look = Cell::new(true);
    let end = semaphore.sleep_until(0, || {
        let taken = semaphore.take(WAITER);
        if is_first_look.replace(false) {
            semaphore.post();
        }
        taken.then_some(Wait::Posted)
    });
    assert_eq!(end, Wait::Posted);
    let (value, waiters, _) = fields(&page.wake);
    assert_eq!((value, waiters), (0, 0));
}

#[test]
fn a_signal_handler_interrupts_a_wait() {
    extern "C" fn nothing(_: libc::c_int) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, and no other test uses this signal.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
    let page = page();
    let ended = AtomicBool::new(false);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            // SAFETY: only asks which thread this is.
            tell.send(unsafe { libc::pthread_self() }).unwrap();
            let end = Semaphore::new(&page.wake).wait_until(after(LONG));
            ended.store(true, Ordering::SeqCst);
            // Stays until told to, so that the thread to be signalled still exists.
            let _ = Semaphore::new(&page.space).wait_until(after(LONG));
            end
        });
        let thread = told.recv().unwrap();
        while !ended.load(Ordering::SeqCst) {
            // SAFETY: the thread stays until it is told to end below.
            assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGUSR1) }, 0);
            std::thread::sleep(Duration::from_millis(1));
        }
        Semaphore::new(&page.space).post();
        assert_eq!(waiter.join().unwrap(), Wait::Interrupted);
    });
}

#[test]
fn a_post_in_another_process_ends_a_wait() {
    let page = page();
    let child = in_child(|| {
        // Until the parent sleeps, so that it is the futex that wakes it.
        while fields(&page.wake).1 == 0 {
            std::thread::yield_now();
        }
        Semaphore::new(&page.wake).post();
        match Semaphore::new(&page.space).wait_until(after(LONG)) {
            Wait::Posted => 0,
            _ => 1,
        }
    });
    assert_eq!(Semaphore::new(&page.wake).wait_until(after(LONG)), Wait::Posted);
    Semaphore::new(&page.space).post();
    assert_eq!(child.exit_code(), 0);
}

#[test]
fn a_program_with_the_c_librarys_semaphores_can_be_the_other_side() {
    let page = page();
    let sem = |cell: &SemaphoreCell| ptr::from_ref(cell).cast_mut().cast::<libc::sem_t>();
    let child = in_child(|| {
        while fields(&page.wake).1 == 0 {
            std::thread::yield_now();
        }
        // SAFETY: both cells are initialised semaphores in memory that this process has mapped.
        unsafe { libc::sem_post(sem(&page.wake)) | libc::sem_wait(sem(&page.space)) }
    });
    assert_eq!(Semaphore::new(&page.wake).wait_until(after(LONG)), Wait::Posted);
    wait_until("it sleeps", || fields(&page.space).1 != 0);
    Semaphore::new(&page.space).post();
    assert_eq!(child.exit_code(), 0);
    assert_eq!(fields(&page.space).0, 0);
}

#[test]
fn whatever_a_hostile_peer_writes_a_post_returns_and_a_wait_ends() {
    let page = page();
    let semaphore = Semaphore::new(&page.wake);
    // The second number is glibc's `private`: 0x7f makes its sem_post abort, 129 makes it sleep.
    for private in [0, 0x7f, 128, 129, u64::MAX] {
        for word in [0, 1, VALUE_MAX, VALUE_MAX + 1, VALUE_MASK, WAITER, WAITER | VALUE_MAX, u64::MAX, !VALUE_MASK] {
            page.wake.opaque[0].store(word, Ordering::SeqCst);
            page.wake.opaque[1].store(private, Ordering::SeqCst);
            semaphore.post();
            let _ = semaphore.wait_until(after(Duration::from_micros(100)));
            let _ = semaphore.try_wait();
        }
    }
}

#[test]
fn a_peer_that_changes_the_word_all_the_time_moves_no_deadline() {
    let page = page();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut flip = 0;
            while !stop.load(Ordering::Relaxed) {
                flip ^= 1;
                page.wake.opaque[0].store(flip << 40, Ordering::Relaxed);
                let _ = Semaphore::new(&page.wake).futex(libc::FUTEX_WAKE, 1, None);
            }
        });
        let _raise = Raise(&stop);
        for _ in 0..20 {
            assert_eq!(Semaphore::new(&page.wake).wait_until(after(Duration::from_millis(1))), Wait::TimedOut);
        }
    });
}

#[test]
fn a_full_semaphore_stays_full() {
    let page = page();
    page.wake.opaque[0].store(VALUE_MAX, Ordering::SeqCst);
    Semaphore::new(&page.wake).post();
    assert_eq!(fields(&page.wake).0, VALUE_MAX as u32);
    assert!(Semaphore::new(&page.wake).try_wait());
}

#[test]
fn a_watch_can_be_told_that_it_is_enough() {
    let page = page();
    let (semaphore, enough) = (Semaphore::new(&page.wake), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| semaphore.watch_unless(after(LONG), || enough.load(Ordering::SeqCst)));
        wait_until("it sleeps", || fields(&page.wake).1 == 1);
        enough.store(true, Ordering::SeqCst);
        // A wake-up just before the sleep is lost.
        wait_until("it has ended", || {
            semaphore.wake_sleepers();
            watcher.is_finished()
        });
        assert_eq!(watcher.join().unwrap(), Wait::Interrupted);
    });
    assert_eq!(fields(&page.wake).1, 0);
    semaphore.post();
    assert_eq!(semaphore.watch_unless(0, || true), Wait::Posted, "a post counts first");
    assert_eq!(semaphore.value(), 1);
}

#[test]
fn whoever_watches_leaves_the_post_to_the_next_and_a_nudge_is_no_post() {
    let page = page();
    let semaphore = Semaphore::new(&page.wake);
    assert_eq!(semaphore.watch_until(after(Duration::from_millis(20))), Wait::TimedOut);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| semaphore.watch_until(after(LONG)));
        wait_until("it sleeps", || fields(&page.wake).1 == 1);
        semaphore.nudge();
        assert_eq!(watcher.join().unwrap(), Wait::Posted);
    });
    assert_eq!((semaphore.posts(), fields(&page.wake).1), (0, 0));
    semaphore.post();
    assert_eq!((semaphore.watch_until(0), semaphore.posts()), (Wait::Posted, 1));
    semaphore.take_nudges();
    assert_eq!(fields(&page.wake).0, 1);
    assert!(semaphore.try_wait() && !semaphore.try_wait());
}
