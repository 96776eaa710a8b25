//! What a writer waits for.

/// What the writer needs from its readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Space: the slowest reader must give some back.
    Space {
        /// Position of the tail.
        tail: u64,
    },
    /// Acknowledgement: every reader must read a message.
    Ack {
        /// Position after the message.
        target: u64,
    },
}
