//! The pump's buffer: it grows with what has come, by a quarter, so that its memory stays near the bytes in it, and asks
//! whether there is memory before it takes some.

use super::{BUFFER, LENGTH, Pump};
use crate::framing::error::{FramingError, Result};
use crate::os::memory;

impl Pump {
    /// Makes room for the next read, which takes at most this number of bytes.
    ///
    /// # Errors
    /// [`FramingError::NoMemory`]: nothing is lost, and it may be tried again.
    pub(super) fn make_room(&mut self, most_read: usize) -> Result<()> {
        let unread = self.end - self.start;
        if unread == 0 {
            (self.start, self.end) = (0, 0);
        }
        let known = self.known_length().filter(|&whole| whole <= self.max_message + LENGTH && whole <= most_read);
        let wanted = known.map_or(unread + 1, |whole| whole.max(unread + 1));
        if self.start > 0 && (self.end == self.buffer.len() || self.start + wanted > self.buffer.len()) {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, unread);
        }
        if self.end == self.buffer.len() { self.enlarge(self.larger(known)) } else { Ok(()) }
    }

    /// The next size of a buffer that is full. By steps also where the length is known: a peer that only claims a length gets
    /// no memory for it.
    fn larger(&self, known: Option<usize>) -> usize {
        let (len, most) = (self.buffer.len(), known.unwrap_or(self.max_message + 1));
        (len + (len / 4).max(BUFFER)).min(most).max(len + 1).max(BUFFER)
    }

    /// Bytes of memory that the next step may take.
    #[must_use]
    pub fn wants(&self) -> usize {
        let full = self.unfinished() == self.buffer.len();
        if full { self.larger(None).saturating_sub(self.buffer.capacity()) } else { 0 }
    }

    /// Makes the buffer `len` bytes long.
    fn enlarge(&mut self, len: usize) -> Result<()> {
        let more = len - self.buffer.len();
        let taken = memory::take(more.saturating_sub(self.buffer.capacity() - self.buffer.len()) as u64);
        // Exactly this number; a vector that grows by itself takes twice as many.
        let allocated = taken.and_then(|()| self.buffer.try_reserve_exact(more).map_err(|_| memory::own()));
        match allocated {
            Ok(()) => {
                self.buffer.resize(len, 0);
                Ok(())
            }
            Err(free) => Err(FramingError::NoMemory {
                message: self.published + 1,
                here: self.unfinished() as u64,
                asked: more as u64,
                free: free.to_string(),
            }),
        }
    }

    /// Appends the delimiter that a last message lacks.
    pub(super) fn append(&mut self, delimiter: u8) -> Result<()> {
        if self.end == self.buffer.len() {
            self.enlarge(self.end + 1)?;
        }
        self.buffer[self.end] = delimiter;
        self.end += 1;
        Ok(())
    }
}

/// Appends bytes of an unfinished message to those in the buffer. False if there is no memory for that.
pub(super) fn keep(buffer: &mut Vec<u8>, at: usize, read: &[u8]) -> bool {
    let end = at + read.len();
    if let Some(more) = end.checked_sub(buffer.len()) {
        if memory::take(more as u64).is_err() || buffer.try_reserve_exact(more).is_err() {
            return false;
        }
        buffer.resize(end, 0);
    }
    buffer[at..end].copy_from_slice(read);
    true
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

    use super::*;
    use crate::framing::pump::tests::{List, Pieces};
    use crate::framing::{Framing, Step};
    use shm_test_support::in_child;

    #[test]
    fn the_buffer_of_an_unfinished_message_is_not_much_larger_than_what_has_come_of_it() {
        for framing in [Framing::Lines, Framing::Length, Framing::Chunk(64 << 20)] {
            let mut pump = Pump::new(framing, 64 << 20).unwrap();
            let mut input = if framing == Framing::Length { (64u32 << 20).to_le_bytes().to_vec() } else { Vec::new() };
            input.extend(vec![b'x'; 20 << 20]);
            let (mut pieces, mut list) = (Pieces::cut(&input, &[100_000]).that_knows(true), List::new(false));
            while pump.unfinished() < input.len() {
                let may = pump.memory() + pump.wants();
                pump.step(&mut pieces, &mut list).unwrap();
                assert!(pump.memory() <= may, "{} is more than {may}", pump.memory());
                assert!(pump.memory() <= pump.unfinished() / 4 * 5 + 2 * BUFFER, "{framing}: {}", pump.memory());
            }
            pump.abandon();
            assert_eq!((pump.memory(), pump.unfinished()), (0, 0));
        }
    }

    #[test]
    fn a_claimed_length_takes_no_memory_and_a_trimmed_pump_gives_it_back() {
        const CLAIM: u32 = 256 << 20;
        let mut pump = Pump::new(Framing::Length, CLAIM.into()).unwrap();
        let mut list = List::new(false);
        let mut input = CLAIM.to_le_bytes().to_vec();
        input.extend(vec![1; BUFFER]);
        let mut pieces = Pieces::cut(&input, &[1000]).that_knows(true);
        while pump.step(&mut pieces, &mut list).is_ok_and(|step| step != Step::Eof) {}
        assert!(pump.memory() <= 4 * BUFFER, "{}", pump.memory());
        assert_eq!(list.asked, 0);
        let mut pump = Pump::new(Framing::Lines, CLAIM.into()).unwrap();
        let mut pieces = Pieces::cut(&[&vec![b'x'; 3 * BUFFER][..], b"\n"].concat(), &[BUFFER]);
        while list.messages.is_empty() {
            pump.step(&mut pieces, &mut list).unwrap();
        }
        assert!(pump.memory() > BUFFER);
        pump.trim();
        assert_eq!((pump.memory(), pump.unfinished()), (0, 0));
    }

    #[test]
    fn a_message_for_which_there_is_no_memory_is_an_error_with_numbers_and_loses_nothing() {
        const LEN: usize = 64 << 20;
        let line = [&vec![b'x'; LEN][..], b"\n"].concat();
        let child = in_child(|| {
            let mut pump = Pump::new(Framing::Lines, LEN as u64).unwrap();
            let (mut input, mut list) = (&line[..], List::new(false));
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
            let size: u64 = size.and_then(|size| size.trim().parse().ok()).unwrap_or(0) << 10;
            let limit = |soft| setrlimit(Resource::RLIMIT_AS, soft, RLIM_INFINITY).is_ok();
            if !limit(size + (32 << 20)) {
                return 1;
            }
            // Another test may have looked just now.
            std::thread::sleep(memory::FRESH);
            let refused = loop {
                match pump.step(&mut input, &mut list) {
                    Ok(Step::Eof) => return 5,
                    Ok(_) => {}
                    Err(error) => break error.to_string(),
                }
            };
            if !(refused.contains("no memory for message 1 of the input") && refused.contains("ulimit -v")) {
                return 2;
            }
            if !limit(RLIM_INFINITY) {
                return 3;
            }
            while list.messages.is_empty() && pump.step(&mut input, &mut list).is_ok_and(|step| step != Step::Eof) {}
            if list.messages.first().is_some_and(|message| message.len() == LEN) { 0 } else { 4 }
        });
        assert_eq!(child.exit_code(), 0);
    }
}
