//! How often the writer wakes a reader that claims to sleep: pure.
//!
//! A correct reader moves between two wakes. A reader that sets its flag again and again and reads nothing would cost
//! the writer a system call for every message. After a few wakes without effect, the writer wakes such a reader about
//! once per millisecond, and looks at the clock only every few dozen messages. The reader is not evicted for this.

/// The number of wakes without effect after which the writer wakes the reader less often.
const IN_VAIN: u32 = 16;
/// The writer then looks at the clock once per this many messages.
const MESSAGES: u32 = 64;
/// The shortest time between two such wakes.
const PAUSE_NS: u64 = 1_000_000;

/// The wakes of one reader.
#[derive(Debug)]
pub(super) struct Wakes {
    /// The reader's cursor at the last wake.
    cursor: u64,
    in_vain: u32,
    passed_over: u32,
    woken_ns: u64,
}

impl Wakes {
    pub(super) fn new() -> Wakes {
        Wakes { cursor: u64::MAX, in_vain: 0, passed_over: 0, woken_ns: 0 }
    }

    /// Whether to wake the reader, which claims to sleep at this cursor although there is something to read.
    pub(super) fn is_due(&mut self, cursor: u64, now_ns: impl FnOnce() -> u64) -> bool {
        if cursor != self.cursor {
            *self = Wakes { cursor, ..Wakes::new() };
            return true;
        }
        if self.in_vain < IN_VAIN {
            self.in_vain += 1;
            return true;
        }
        self.passed_over += 1;
        if self.passed_over < MESSAGES {
            return false;
        }
        self.passed_over = 0;
        let now = now_ns();
        let due = now.saturating_sub(self.woken_ns) >= PAUSE_NS;
        if due {
            self.woken_ns = now;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_moves_is_woken_every_time_without_a_look_at_the_clock() {
        let mut wakes = Wakes::new();
        assert!((0..1000).all(|cursor| wakes.is_due(cursor, || panic!("the clock is looked at"))));
    }

    #[test]
    fn one_that_does_not_is_woken_once_a_millisecond_after_a_few_times() {
        let mut wakes = Wakes::new();
        let (mut looks, mut woken) = (0, 0);
        let begun = 5 * PAUSE_NS;
        for message in 0..100_000u64 {
            let now = || {
                looks += 1;
                // 10 ns per message: a millisecond in total.
                begun + 10 * message
            };
            woken += u32::from(wakes.is_due(7, now));
        }
        assert_eq!(woken, 1 + IN_VAIN + 1);
        assert!(looks <= 100_000 / MESSAGES, "{looks}");
        assert!(wakes.is_due(8, || 0), "it has moved");
    }
}
