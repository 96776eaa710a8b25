//! The removal of a channel: (state, event) -> (state, step). Pure: no connection, no thread, no clock.
//!
//! ```text
//! serving -> (a reason is given: nobody comes in) -> writer gone, or time up -> closed -> everything over, or time up -> gone
//! ```

/// The next step of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It waits.
    Wait,
    /// Its readers are told, and let go.
    Close,
    /// It goes.
    Go,
}

/// How far the removal of a channel is.
#[derive(Debug, Default)]
pub(super) struct Removal {
    /// Why it is going to close, or has closed.
    reason: Option<String>,
    /// Everybody was told that it is over.
    closed: bool,
}

impl Removal {
    /// The channel is going to close, and this is why. Everybody is told the first reason.
    pub(super) fn give_reason(&mut self, reason: &str) {
        self.reason.get_or_insert_with(|| reason.to_owned());
    }

    /// Whether the channel is going to close, or has closed.
    pub(super) fn has_begun(&self) -> bool {
        self.reason.is_some()
    }

    /// Whether everybody was told that it is over.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// It closes: what everybody is to be told, the first time.
    pub(super) fn close(&mut self) -> Option<String> {
        let first = !std::mem::replace(&mut self.closed, true);
        first.then(|| self.reason.clone().unwrap_or_else(|| "the channel is closing".to_owned()))
    }

    /// What comes next, where a writer may still hold its role, everything else may be over, or the time may be up for what is
    /// waited for.
    pub(super) fn next(&self, has_writer: bool, is_over: bool, time_is_up: bool) -> Step {
        match self.closed {
            false if time_is_up || !has_writer => Step::Close,
            true if time_is_up || is_over => Step::Go,
            _ => Step::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_waits_for_its_writer_then_for_the_rest_and_for_each_only_so_long() {
        let mut removal = Removal::default();
        assert_eq!(removal.next(true, false, false), Step::Wait);
        assert_eq!(removal.next(true, true, false), Step::Wait, "whatever else is over");
        assert_eq!((removal.next(false, false, false), removal.next(true, false, true)), (Step::Close, Step::Close));
        removal.close();
        assert_eq!(removal.next(false, false, false), Step::Wait);
        assert_eq!((removal.next(true, true, false), removal.next(true, false, true)), (Step::Go, Step::Go));
    }

    #[test]
    fn the_first_reason_is_told_once() {
        let mut removal = Removal::default();
        assert!(!removal.has_begun() && !removal.is_closed());
        removal.give_reason("taken out");
        removal.give_reason("stopping");
        assert!(removal.has_begun() && !removal.is_closed());
        assert_eq!((removal.close().as_deref(), removal.is_closed(), removal.close()), (Some("taken out"), true, None));
        assert_eq!(Removal::default().close().as_deref(), Some("the channel is closing"));
    }
}
