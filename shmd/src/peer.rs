//! A client's process, user and program, in words fit for a log.

use std::fmt;

/// The process at the other end, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Process number when it connected.
    pub(crate) pid: u32,
    /// User number.
    pub(crate) uid: u32,
    /// User name, or number where there is none.
    pub(crate) user: String,
    /// Program name, printable and short.
    pub(crate) program: String,
}

impl fmt::Display for Peer {
    /// As log lines have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid={} user={} program={}", self.pid, self.user, self.program)
    }
}

/// A name that a peer gave itself, fit for a log line and a terminal.
pub(crate) fn printable(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-+@/".contains(c) { c } else { '?' };
    name.chars().take(32).map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_peer_gave_itself_cannot_forge_a_log_line() {
        assert_eq!(printable("a\nevent=stop b"), "a?event?stop?b");
        assert_eq!(printable(&"x".repeat(99)).len(), 32);
    }
}
