//! A running child: its output, its standard error, and its end, which is certain.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use log::info;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use shm_proto::ChannelName;
use shm_proto::internal::framing::input::widen;
use shm_proto::internal::os::poll::readable;
use shm_proto::internal::os::{child, peer};

use crate::config::CommandLine;
use crate::rate_limit::RateLimit;

/// Between SIGTERM and SIGKILL. The daemon waits a second for its sources when it stops.
const GRACE: Duration = Duration::from_millis(500);
/// After SIGKILL; a process that the kernel cannot end by then is left to it.
const REAP: Duration = Duration::from_millis(200);
/// Lines a second that a child gets into the log.
const LINES: u32 = 20;
/// Bytes of a line that are kept.
const LINE: usize = 500;
/// Meant for the daemon: the manager's socket and watchdog, the journal behind standard error, inherited listeners.
const NOT_FOR_CHILDREN: [&str; 7] =
    ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "JOURNAL_STREAM", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// A child in a process group of its own. Dropping it ends the group.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    group: Pid,
    /// Readable when the child has ended.
    ended: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    reaped: bool,
}

impl Running {
    /// Starts it. It is killed when the calling thread ends.
    ///
    /// # Errors
    /// What the system says, a missing program included.
    pub(super) fn start(command: &CommandLine) -> io::Result<Self> {
        let Some((program, arguments)) = command.words.split_first() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut line = Command::new(program);
        line.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in NOT_FOR_CHILDREN {
            line.env_remove(name);
        }
        let mut child = child::spawn(&mut line)?;
        let pipes = child.stdout.take().map(OwnedFd::from).zip(child.stderr.take().map(OwnedFd::from));
        let ended = peer::pidfd(child.id());
        let group = Pid::from_raw(child.id().cast_signed());
        let made = pipes.ok_or_else(|| io::Error::other("it has no pipes")).and_then(|(stdout, stderr)| {
            widen(&stdout);
            for pipe in [&stdout, &stderr] {
                // Only these ends: the child's are other open files.
                fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            }
            Ok((stdout, stderr, ended.map_err(io::Error::other)?))
        });
        match made {
            Ok((stdout, stderr, ended)) => Ok(Self { child, group, ended, stdout, stderr, reaped: false }),
            Err(e) => {
                let _ = killpg(group, Signal::SIGKILL);
                let _ = child.wait();
                Err(e)
            }
        }
    }

    /// Its process number.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it writes.
    pub(super) fn stdout(&self) -> BorrowedFd<'_> {
        self.stdout.as_fd()
    }

    /// What it complains about.
    pub(super) fn stderr(&self) -> BorrowedFd<'_> {
        self.stderr.as_fd()
    }

    /// Readable when it has ended.
    pub(super) fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// Whether it ends within this time.
    pub(super) fn has_ended(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if readable(self.ended.as_fd(), Some(left)) == Ok(true) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
        }
    }

    /// Ends the child and the rest of its group. Returns how the child ended; `None` if it does not end.
    pub(super) fn finish(&mut self) -> Option<ExitStatus> {
        if !self.has_ended(Duration::ZERO) {
            let _ = killpg(self.group, Signal::SIGTERM);
            self.has_ended(GRACE);
        }
        // The number is the group's as long as the child is not reaped. A group without anybody else is no error.
        let _ = killpg(self.group, Signal::SIGKILL);
        if !self.has_ended(REAP) {
            return None;
        }
        self.reaped = true;
        self.child.wait().ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            self.finish();
        }
    }
}

/// Logs a child's standard error, one entry per line.
#[derive(Debug)]
pub(super) struct Complaints {
    line: Vec<u8>,
    /// The rest of a line that was too long.
    cut: bool,
    lines: RateLimit,
    ended: bool,
}

impl Complaints {
    pub(super) fn new() -> Self {
        Self { line: Vec::new(), cut: false, lines: RateLimit::new(LINES), ended: false }
    }

    /// Whether there will be nothing more of this child.
    pub(super) fn have_ended(&self) -> bool {
        self.ended
    }

    /// Of another child.
    pub(super) fn begin(&mut self) {
        self.line.clear();
        (self.cut, self.ended) = (false, false);
    }

    /// Takes the available bytes, without waiting.
    pub(super) fn take(&mut self, stderr: BorrowedFd<'_>, channel: &ChannelName, pid: u32) {
        let mut bytes = [0; 4096];
        // Bounded: a child that only complains does not keep its output from being read.
        for _ in 0..16 {
            if self.ended {
                return;
            }
            match nix::unistd::read(stderr, &mut bytes) {
                Ok(0) => {
                    self.ended = true;
                    self.end_line(channel, pid);
                }
                Ok(n) => self.add(&bytes[..n], channel, pid),
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => return,
                Err(_) => self.ended = true,
            }
        }
    }

    fn add(&mut self, bytes: &[u8], channel: &ChannelName, pid: u32) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            let room = LINE - self.line.len();
            self.cut |= text.len() > room;
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if text.len() < part.len() {
                self.end_line(channel, pid);
            }
        }
    }

    /// Logs the present part of a line.
    pub(super) fn end_line(&mut self, channel: &ChannelName, pid: u32) {
        let line = std::mem::take(&mut self.line);
        let cut = if std::mem::take(&mut self.cut) { " cut=true" } else { "" };
        if line.is_empty() {
            return;
        }
        if let Some(left_out) = self.lines.admit(Instant::now()) {
            // Not among the operations, which it would push out. Quoted, with control characters as escapes.
            info!(
                "event=child-says channel={channel} pid={pid} text={:?}{cut}{left_out}",
                String::from_utf8_lossy(&line)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use shm_proto::internal::framing::input::NonBlocking;

    use super::*;
    use shm_test_support::wait_until;

    fn start(words: &[&str]) -> Running {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Running::start(&CommandLine { text: words.join(" "), words }).unwrap()
    }

    fn output(running: &Running) -> String {
        output_until(running, |_| false)
    }

    /// What the child writes, until its end or until `is_enough` says so.
    fn output_until(running: &Running, is_enough: impl Fn(&[u8]) -> bool) -> String {
        let mut text = Vec::new();
        wait_until("the child has said enough, or has ended", || {
            let mut bytes = [0; 256];
            match NonBlocking(running.stdout()).read(&mut bytes) {
                Ok(0) => return true,
                Ok(n) => text.extend_from_slice(&bytes[..n]),
                Err(_) => {}
            }
            is_enough(&text)
        });
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_childs_output_and_status_are_had_and_its_environment_is_not_the_daemons_own() {
        let mut running = start(&["sh", "-c", "echo \"[$NOTIFY_SOCKET]\"; readlink /proc/self/fd/0; exit 7"]);
        assert_eq!(output(&running), "[]\n/dev/null\n");
        assert!(running.has_ended(Duration::from_secs(60)));
        assert_eq!(running.finish().unwrap().code(), Some(7));
    }

    #[test]
    fn a_child_that_ignores_sigterm_is_killed_with_its_whole_group() {
        let mut running = start(&["sh", "-c", "trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000"]);
        let line = output_until(&running, |text| text.ends_with(b"\n"));
        let grandchild: u32 = line.trim().parse().unwrap();
        let start = shm_proto::internal::os::process::start_ticks(grandchild).unwrap();
        let status = running.finish().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        wait_until("the grandchild is gone", || !shm_proto::internal::os::process::is_alive(grandchild, start));
    }

    #[test]
    fn a_long_complaint_is_cut_and_the_next_line_is_whole() {
        let mut complaints = Complaints::new();
        let channel = "x".parse().unwrap();
        complaints.add(&[b'a'; 2 * LINE], &channel, 1);
        assert_eq!((complaints.line.len(), complaints.cut), (LINE, true));
        complaints.add(b"aa\nnext", &channel, 1);
        assert_eq!((complaints.line.as_slice(), complaints.cut), (&b"next"[..], false));
    }
}
