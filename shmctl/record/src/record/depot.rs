//! The memory for messages that are received and not yet written.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A buffer that is on its way from the channel to the disk.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    pub(crate) bytes: Vec<u8>,
    /// How much of the limit it takes.
    charge: usize,
}

impl Buffer {
    /// Memory from elsewhere, which does not count.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Buffer { bytes, charge: 0 }
    }
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Vec<u8>>,
    /// Bytes in `idle`.
    kept: usize,
    /// Bytes that are on their way.
    out: usize,
    /// Nothing comes back any more.
    is_closed: bool,
}

/// Lends buffers up to a limit, and keeps those that come back: fresh memory costs a page fault for every 4 KiB.
#[derive(Debug)]
pub(crate) struct Depot {
    limit: usize,
    state: Mutex<State>,
    returned: Condvar,
}

impl Depot {
    pub(crate) fn new(limit: usize) -> Self {
        Depot { limit, state: Mutex::default(), returned: Condvar::new() }
    }

    /// An empty buffer with room for `size` bytes. Waits while more than the limit would be on its way; a buffer that is larger than
    /// the limit waits until it is the only one. Nobody waits for a depot that is closed.
    pub(crate) fn take(&self, size: usize) -> Buffer {
        let mut state = self.state();
        while !state.is_closed && state.out > 0 && state.out.saturating_add(size) > self.limit {
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        // The one that came back last may still be in a cache.
        let fits = state.idle.iter().rposition(|idle| idle.capacity() >= size);
        let mut bytes = match fits {
            Some(place) => state.idle.remove(place),
            None => state.idle.pop().unwrap_or_default(),
        };
        state.kept -= bytes.capacity();
        let charge = size.max(bytes.capacity());
        state.out += charge;
        drop(state);
        bytes.clear();
        bytes.reserve_exact(size);
        Buffer { bytes, charge }
    }

    /// Takes a buffer back.
    pub(crate) fn give_back(&self, buffer: Buffer) {
        let mut state = self.state();
        state.out -= buffer.charge;
        // Memory from elsewhere fits nobody's chunk, and would take the place of the memory that the limit allows.
        if buffer.charge > 0 && state.kept + buffer.bytes.capacity() <= self.limit {
            state.kept += buffer.bytes.capacity();
            state.idle.push(buffer.bytes);
        }
        drop(state);
        self.returned.notify_one();
    }

    /// Closes the depot when the guard is dropped, also by a panic, which would leave the receiver waiting for ever.
    pub(crate) fn close_at_end(&self) -> CloseAtEnd<'_> {
        CloseAtEnd(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Depot::close_at_end`].
#[derive(Debug)]
pub(crate) struct CloseAtEnd<'d>(&'d Depot);

impl Drop for CloseAtEnd<'_> {
    fn drop(&mut self) {
        self.0.state().is_closed = true;
        self.0.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use shm_test_support::joined;

    use super::*;

    #[test]
    fn buffers_come_back_with_their_memory() {
        let depot = Depot::new(1000);
        let mut first = depot.take(600);
        first.bytes.extend_from_slice(&[1; 600]);
        let place = first.bytes.as_ptr();
        depot.give_back(first);
        let second = depot.take(500);
        assert_eq!((second.bytes.as_ptr(), second.bytes.len()), (place, 0));
    }

    /// A thread that takes a buffer, and returns what it counts as.
    fn taking(depot: &Arc<Depot>) -> std::thread::JoinHandle<usize> {
        let depot = Arc::clone(depot);
        std::thread::spawn(move || depot.take(600).charge)
    }

    #[test]
    fn no_more_than_the_limit_is_on_its_way() {
        let depot = Arc::new(Depot::new(1000));
        let first = depot.take(600);
        let waits = taking(&depot);
        // The thread may be slow to begin, so this cannot fail if the limit holds, and nearly always does if it does not.
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waits.is_finished());
        depot.give_back(first);
        assert!(joined(waits) >= 600);
    }

    #[test]
    fn a_buffer_above_the_limit_is_lent_by_itself_and_not_kept() {
        let depot = Depot::new(1000);
        let large = depot.take(5000);
        assert!(large.bytes.capacity() >= 5000);
        depot.give_back(large);
        let state = depot.state();
        assert_eq!((state.kept, state.out), (0, 0));
    }

    #[test]
    fn packed_memory_is_not_kept() {
        let depot = Depot::new(1000);
        depot.give_back(Buffer::of(vec![0; 500]));
        assert_eq!(depot.state().kept, 0);
    }

    #[test]
    fn nobody_waits_for_a_thread_that_has_panicked() {
        let depot = Arc::new(Depot::new(1000));
        let first = depot.take(600);
        let waits = taking(&depot);
        let guarded = Arc::clone(&depot);
        let panics = std::thread::spawn(move || {
            let _guard = guarded.close_at_end();
            panic!("on purpose");
        });
        assert!(panics.join().is_err());
        assert!(joined(waits) >= 600);
        drop(first);
    }
}
