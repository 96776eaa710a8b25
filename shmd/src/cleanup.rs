//! Objects that could not be removed. Each is logged when that happens, and the daemon's exit code says that there are some.
//!
//! Like the operation log there is one list for the process: most objects are removed by a `Drop`, which has nobody to tell.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use shm_proto::ChannelName;

use crate::operation_log::{LogEvent, operation};

/// As many are named at the end; the log has all of them.
const NAMED: usize = 8;

/// Names with reasons, and how many more there are.
static LEFT: Mutex<(Vec<String>, usize)> = Mutex::new((Vec::new(), 0));

/// Notes that `object` is left, and logs why.
pub(crate) fn failed(channel: Option<&ChannelName>, object: impl Display, reason: impl Display) {
    let entry = operation(LogEvent::UnlinkFailed);
    let entry = match channel {
        Some(channel) => entry.on(channel),
        None => entry,
    };
    entry.text("object", &object).reason(&reason).error();
    note(object, reason);
}

/// Notes that `object` is left; the log has it already.
pub(crate) fn note(object: impl Display, reason: impl Display) {
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    if left.0.len() < NAMED {
        left.0.push(format!("{object} ({reason})"));
    } else {
        left.1 += 1;
    }
}

/// What was left so far, in words; nothing if all is removed.
pub(crate) fn left() -> Option<String> {
    let left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    match &*left {
        (named, _) if named.is_empty() => None,
        (named, 0) => Some(named.join(", ")),
        (named, more) => Some(format!("{} and {more} more, which the log names", named.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_named_up_to_a_limit() {
        assert_eq!(left(), None);
        failed(None, "/tmp/a", "Read-only file system");
        assert_eq!(left().unwrap(), "/tmp/a (Read-only file system)");
        (0..NAMED).for_each(|n| note(n, "no"));
        assert!(left().unwrap().ends_with("6 (no) and 1 more, which the log names"), "{:?}", left());
    }
}
