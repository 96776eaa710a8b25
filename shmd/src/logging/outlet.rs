//! Where lines go that somebody else reads, or does not: a terminal, a pipe, the journal's socket. The daemon does not wait for a
//! reader that stands still, because everything else would wait with it. It leaves lines out, and says how many.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::libc::PIPE_BUF;
use shm_proto::internal::os::poll::{PollFd, PollFlags, poll};

/// How long a line waits for its reader.
const PATIENCE: Duration = Duration::from_millis(100);
/// After a line that waited in vain, no line waits for this time. A reader that takes a line each second would hold up every one.
const HURRY: Duration = Duration::from_secs(60);

/// Writes each line at once or not at all.
pub(super) struct Outlet<W> {
    to: W,
    /// Before each line of the outlet's own.
    mark: String,
    left_out: u64,
    /// The last of them has been begun.
    is_torn: bool,
    hurries_until: Option<Instant>,
}

impl<W: Write + AsFd> Outlet<W> {
    pub(super) fn new(to: W, mark: String) -> Self {
        Self { to, mark, left_out: 0, is_torn: false, hurries_until: None }
    }

    /// Whether a part of a line can be written without waiting.
    fn is_ready(&mut self) -> bool {
        let now = Instant::now();
        let is_hurried = self.hurries_until.is_some_and(|until| now < until);
        let look = |most| poll(&mut [PollFd::new(self.to.as_fd(), PollFlags::POLLOUT)], Some(most));
        // The second look is for a wait that a signal has ended. What cannot be waited for says why when it is written.
        let is_ready = match look(if is_hurried { Duration::ZERO } else { PATIENCE }) {
            Ok(false) => look(Duration::ZERO).unwrap_or(true),
            ready => ready.unwrap_or(true),
        };
        if !is_ready && !is_hurried {
            self.hurries_until = Some(now + HURRY);
        }
        is_ready
    }
}

impl<W: Write + AsFd> Write for Outlet<W> {
    /// One line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.left_out > 0 && self.is_ready() {
            let (mark, left_out) = (&self.mark, std::mem::take(&mut self.left_out));
            let end = if std::mem::take(&mut self.is_torn) { "\n" } else { "" };
            let lines = if left_out == 1 { "line was" } else { "lines were" };
            let said = format!("{end}{mark}shmd: {left_out} {lines} left out of the log, because nobody read it\n");
            self.to.write_all(said.as_bytes())?;
        }
        // A pipe that is ready takes so much at once.
        for (n, part) in line.chunks(PIPE_BUF).enumerate() {
            if self.left_out > 0 || !self.is_ready() {
                self.left_out += 1;
                self.is_torn |= n > 0;
                break;
            }
            self.to.write_all(part)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};

    use super::*;

    #[test]
    fn lines_that_nobody_reads_are_left_out_and_counted() {
        let (mut reader, writer) = pipe().unwrap();
        let mut outlet = Outlet::new(writer, "<4>".to_owned());
        let line = [&[b'x'; 99][..], b"\n"].concat();
        for _ in 0..10_000 {
            outlet.write_all(&line).unwrap();
        }
        assert!(outlet.left_out > 0, "a pipe does not hold a million bytes");
        let written = 10_000 - outlet.left_out;
        let mut read = vec![0; written as usize * line.len()];
        reader.read_exact(&mut read).unwrap();
        let left_out = outlet.left_out;
        outlet.write_all(b"the next\n").unwrap();
        drop(outlet);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(
            rest,
            format!("<4>shmd: {left_out} lines were left out of the log, because nobody read it\nthe next\n")
        );
    }

    #[test]
    fn a_line_that_is_longer_than_a_pipe_ends_somewhere() {
        let (reader, writer) = pipe().unwrap();
        let mut outlet = Outlet::new(writer, String::new());
        outlet.write_all(&vec![b'x'; 1 << 20]).unwrap();
        assert_eq!((outlet.left_out, outlet.is_torn), (1, true));
        drop(reader);
        assert!(outlet.write_all(b"nobody can read this\n").is_err());
    }
}
