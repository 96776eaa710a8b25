//! Finding the daemon that has come in the place of one that died, without ever waiting for it.
//!
//! ```text
//! lost --(25 ms)--> connect, ask --> answer: attached again
//!   ^                  | nobody there, or not ready yet
//!   +------------------+   until the patience is over, or the daemon says no
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::Endpoint;
use super::session;
use crate::control::{Conn, Done, MAX_REPLY, Received, Reply, Request, decode};
use crate::control::{ErrorKind, Refusal};
use crate::os::clock::monotonic_ns;

/// Between two attempts.
const PAUSE_NS: u64 = 25_000_000;
/// How long a daemon that has taken the connection may take to answer.
const ANSWER_NS: u64 = 5_000_000_000;

/// An attachment that is looked for again when its daemon dies.
#[derive(Debug)]
pub(super) struct Comeback {
    endpoint: Endpoint,
    lost_ns: u64,
    next_ns: u64,
    asked: Option<(Conn, u64)>,
    /// Readable when the next attempt is due. Made when the first daemon is lost.
    timer: Option<TimerFd>,
}

/// What has come of it so far.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing: look again later.
    Nothing,
    /// A daemon, which has answered so; the connection is the attachment again.
    Daemon(Box<Done>, Vec<OwnedFd>, Conn),
    /// A daemon, which does not take the attachment over, and why.
    Refusal(String),
    /// No daemon, for so long.
    Nobody(Duration),
}

impl Comeback {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Comeback { endpoint, lost_ns: 0, next_ns: 0, asked: None, timer: None }
    }

    /// The daemon is gone.
    pub(super) fn lost(&mut self) {
        (self.lost_ns, self.next_ns, self.asked) = (monotonic_ns(), 0, None);
        if self.timer.is_none() {
            // Without one, a program that sleeps in a poll loop looks when it wakes up for another reason.
            self.timer =
                TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK).ok();
        }
    }

    /// When to look again, `CLOCK_MONOTONIC` nanoseconds.
    pub(super) fn look_at_ns(&self) -> u64 {
        self.next_ns
    }

    /// Readable when there is something to look at.
    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match (&self.asked, &self.timer) {
            (Some((conn, _)), _) => Some(conn.as_fd()),
            (None, Some(timer)) => Some(timer.as_fd()),
            (None, None) => None,
        }
    }

    /// Goes on. `request` gives what to ask the daemon, and the descriptors that go with it.
    pub(super) fn go_on(&mut self, request: impl FnOnce() -> Option<(Request, Vec<OwnedFd>)>) -> Found {
        let now = monotonic_ns();
        if let Some((mut conn, until)) = self.asked.take() {
            match conn.receive() {
                Ok(Received::Nothing) if now < until => {
                    // Whatever the socket did not take at once.
                    let _ = conn.flush();
                    self.asked = Some((conn, until));
                    self.next_ns = now + PAUSE_NS;
                    return Found::Nothing;
                }
                Ok(Received::Line(line, fds)) => match decode(&line) {
                    Ok(Reply::Ok(done)) => return Found::Daemon(Box::new(done), fds, conn),
                    Ok(Reply::Error(refusal)) if may_pass(&refusal) => {}
                    Ok(Reply::Error(refusal)) => return Found::Refusal(refusal.to_string()),
                    Err(e) => return Found::Refusal(e.to_string()),
                },
                Ok(Received::Nothing | Received::Closed) | Err(_) => {}
            }
            return self.later(now);
        }
        if now < self.next_ns {
            return Found::Nothing;
        }
        let patience = self.endpoint.patience();
        if now - self.lost_ns > u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX) {
            return Found::Nobody(patience);
        }
        match self.connect().and_then(|stream| Some((stream, request()?))) {
            None => self.later(now),
            Some((stream, (request, fds))) => {
                let mut conn = Conn::new(stream, MAX_REPLY);
                if conn.queue(&request, fds).is_err() || conn.flush().is_err() {
                    return self.later(now);
                }
                self.asked = Some((conn, now.saturating_add(ANSWER_NS)));
                if let Some(timer) = &self.timer {
                    // One that has gone off would be readable for ever.
                    let _ = timer.unset();
                }
                self.next_ns = now + PAUSE_NS;
                Found::Nothing
            }
        }
    }

    fn connect(&self) -> Option<UnixStream> {
        session::open_now(&self.endpoint.socket)
    }

    fn later(&mut self, now: u64) -> Found {
        self.next_ns = now + PAUSE_NS;
        if let Some(timer) = &self.timer {
            let due = Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(PAUSE_NS)));
            let _ = timer.set(due, TimerSetTimeFlags::empty());
        }
        Found::Nothing
    }
}

/// Whether a refusal may be another one soon: the daemon is starting or busy, or has too many clients just now.
fn may_pass(refusal: &Refusal) -> bool {
    matches!(refusal.kind, ErrorKind::Busy | ErrorKind::TryLater | ErrorKind::TooMany | ErrorKind::Internal)
}
