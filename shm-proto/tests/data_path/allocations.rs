//! Messages cost no allocation.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use crate::{CAPACITY, exchange};

/// The system's allocator, which counts what each thread asks of it: tests run side by side.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends may allocate after its counter is gone; nobody asks for that any more.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: everything is done by the system's allocator with the arguments as they came; counting does not allocate, because
// the counter is initialised at compile time and has nothing to be dropped.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on; the memory came from the same allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[test]
fn neither_publishing_nor_receiving_allocates() {
    let (mut writer, mut reader) = shm_test_support::pair(CAPACITY);
    let mut out = Vec::with_capacity(4096);
    let before = ALLOCATIONS.get();
    assert!(before > 0, "what it took to make the channel was counted");
    let messages = exchange(&mut writer, &mut reader, &mut out, 1000).unwrap();
    assert_eq!(ALLOCATIONS.get() - before, 0, "allocations for {messages} messages");
}
