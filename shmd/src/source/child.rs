//! A running child: its output, its standard error, and its end, which is certain.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use log::info;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use shm_proto::ChannelName;
use shm_proto::internal::framing::input::widen;
use shm_proto::internal::os::poll::readable;
use shm_proto::internal::os::unread::readable_bytes;
use shm_proto::internal::os::{child, peer, process};

use crate::config::CommandLine;
use crate::handover::{self, Luggage, Parcel};
use crate::rate_limit::RateLimit;

/// Between SIGTERM and SIGKILL. The daemon waits longer than this for its sources when it stops.
const GRACE: Duration = Duration::from_millis(500);
/// How often it is looked at whether somebody of the group is left, once its leader has ended.
const LOOK: Duration = Duration::from_millis(10);
/// After SIGKILL; a process that the kernel cannot end by then is left to it.
const REAP: Duration = Duration::from_millis(200);
/// Lines a second that a child gets into the log.
const LINES: u32 = 20;
/// Bytes of a line that are kept.
const LINE: usize = 500;

/// A child in a process group of its own. Dropping it ends the group.
#[derive(Debug)]
pub(super) struct Running {
    /// The child's number, and the group's.
    pid: Pid,
    /// Readable when the child has ended.
    ended: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    reaped: bool,
}

/// What is left to the next program in this process, whose child it is then.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PackedRunning {
    pid: i32,
    stdout: i32,
    stderr: i32,
}

impl Running {
    /// Starts it. It is killed when the calling thread ends. In the daemon that is the main thread, which also goes on when the
    /// daemon executes its file anew.
    ///
    /// # Errors
    /// What the system says, a missing program included.
    pub(super) fn start(command: &CommandLine) -> io::Result<Self> {
        let Some((program, arguments)) = command.words.split_first() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut line = Command::new(program);
        line.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        line.env_remove(handover::VARIABLE);
        let mut child = child::spawn(&mut line)?;
        let pipes = child.stdout.take().map(OwnedFd::from).zip(child.stderr.take().map(OwnedFd::from));
        let ended = peer::pidfd(child.id());
        let pid = Pid::from_raw(child.id().cast_signed());
        let made = pipes.ok_or_else(|| io::Error::other("it has no pipes")).and_then(|(stdout, stderr)| {
            widen(&stdout);
            for pipe in [&stdout, &stderr] {
                // Only these ends: the child's are other open files.
                fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            }
            Ok((stdout, stderr, ended.map_err(io::Error::other)?))
        });
        match made {
            Ok((stdout, stderr, ended)) => Ok(Self { pid, ended, stdout, stderr, reaped: false }),
            Err(e) => {
                let _ = killpg(pid, Signal::SIGKILL);
                let _ = child.wait();
                Err(e)
            }
        }
    }

    /// For the next program.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(super) fn pack(&self, parcel: &mut Parcel) -> io::Result<PackedRunning> {
        let (stdout, stderr) = (parcel.fd(&self.stdout)?, parcel.fd(&self.stderr)?);
        Ok(PackedRunning { pid: self.pid.as_raw(), stdout, stderr })
    }

    /// The child of the program before this one. It may have ended, and was not waited for.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(super) fn unpack(packed: &PackedRunning, luggage: &Luggage) -> io::Result<Self> {
        let (stdout, stderr) = (luggage.fd(packed.stdout)?, luggage.fd(packed.stderr)?);
        let ended = peer::pidfd(packed.pid.cast_unsigned()).map_err(io::Error::other)?;
        Ok(Self { pid: Pid::from_raw(packed.pid), ended, stdout, stderr, reaped: false })
    }

    /// Its process number.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
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

    /// Whether the child has ended, and everybody else of its group.
    fn is_gone(&self) -> bool {
        self.has_ended(Duration::ZERO) && !process::has_group(self.pid())
    }

    /// Once the child has ended: the bytes that it has left in its pipe. The end is looked at first, because the child may write and
    /// end between two looks.
    pub(super) fn left(&self) -> Option<usize> {
        self.has_ended(Duration::ZERO).then(|| readable_bytes(self.stdout()).unwrap_or(0))
    }

    /// Ends the child and the rest of its group. Returns how the child ended; `None` if it does not end.
    pub(super) fn finish(&mut self) -> Option<ExitStatus> {
        self.finish_within(GRACE)
    }

    /// The same, where everybody has this long to end well. A shell ends at once and leaves the programs of its pipeline behind.
    fn finish_within(&mut self, grace: Duration) -> Option<ExitStatus> {
        // The number is the group's as long as the child is not reaped. A group without anybody else is no error.
        let until = Instant::now() + grace;
        if !self.is_gone() {
            let _ = killpg(self.pid, Signal::SIGTERM);
            self.has_ended(grace);
            while !self.is_gone() && Instant::now() < until {
                sleep(LOOK);
            }
        }
        let _ = killpg(self.pid, Signal::SIGKILL);
        if !self.has_ended(REAP) {
            return None;
        }
        self.reaped = true;
        // In the form of the system call: a code, or a signal.
        match waitpid(self.pid, None) {
            Ok(WaitStatus::Exited(_, code)) => Some(ExitStatus::from_raw(code << 8)),
            Ok(WaitStatus::Signaled(_, signal, core)) => {
                Some(ExitStatus::from_raw(signal as i32 | i32::from(core) << 7))
            }
            _ => None,
        }
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

/// What is left to the next program: the present line, whether it is cut, and whether it is the last.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PackedComplaints(String, bool, bool);

impl Complaints {
    pub(super) fn unpack(PackedComplaints(line, cut, ended): PackedComplaints) -> Self {
        Self { line: line.into_bytes(), cut, ended, ..Self::new() }
    }

    pub(super) fn pack(&self) -> PackedComplaints {
        PackedComplaints(String::from_utf8_lossy(&self.line).into_owned(), self.cut, self.ended)
    }

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
            let room = LINE.saturating_sub(self.line.len());
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
    use shm_test_support::{TempDir, wait_until};

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
    fn what_a_child_that_has_ended_has_left_is_known() {
        let running = start(&["sh", "-c", "echo last"]);
        assert!(running.has_ended(Duration::from_secs(60)));
        assert_eq!((running.left(), output(&running).as_str(), running.left()), (Some(5), "last\n", Some(0)));
        let running = start(&["sh", "-c", "echo first; exec sleep 1000"]);
        assert_eq!((output_until(&running, |text| text.ends_with(b"\n")).as_str(), running.left()), ("first\n", None));
    }

    #[test]
    fn a_child_that_ignores_sigterm_is_killed_with_its_whole_group() {
        let mut running = start(&["sh", "-c", "trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000"]);
        let line = output_until(&running, |text| text.ends_with(b"\n"));
        let grandchild: u32 = line.trim().parse().unwrap();
        let start = shm_proto::internal::os::process::start_ticks(grandchild);
        let start =
            start.unwrap_or_else(|| panic!("{grandchild}: {:?}", std::fs::read(format!("/proc/{grandchild}/stat"))));
        let status = running.finish().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        wait_until("the grandchild is gone", || !shm_proto::internal::os::process::is_alive(grandchild, start));
    }

    /// A shell that runs a pipeline ends at the first signal.
    #[test]
    fn the_children_of_a_child_that_ends_at_once_have_time_to_end_well() {
        const PATIENCE: Duration = Duration::from_secs(60);
        let dir = TempDir::new();
        let path = dir.path().join("ended well");
        let lingers = format!(
            "trap \"sleep 0.2; echo well >'{}'; exit\" TERM; echo ready; while :; do sleep 0.01; done",
            path.display()
        );
        let mut running = start(&["sh", "-c", "sh -c \"$0\" & wait", &lingers]);
        assert_eq!(output_until(&running, |text| text.ends_with(b"\n")), "ready\n");
        let status = running.finish_within(PATIENCE).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "well\n");
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
