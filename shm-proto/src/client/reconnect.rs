//! Reconnecting after the daemon has died: looks for the daemon that replaces it, and does not wait for it.
//!
//! ```text
//! lost --(25 ms)--> connect, ask --> answer: attached again
//!   ^                  | nobody there, or not ready yet
//!   +------------------+   until the patience is over, or the daemon says no
//! ```
//!
//! A writer goes on after its patience is over, with an attempt a second. If the ring says that a daemon has come, the patience
//! begins anew. Once it has asked, it waits a moment for the answer:
//! before that, it knows no reader that has attached to the new daemon, and wakes none, and it may look again no sooner than
//! with its next message.

use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use serde::Serialize;

use super::{Endpoint, session};
use crate::control::{Conn, Done, ErrorKind, MAX_REPLY, Received, Refusal, Reply, Request, decode};
use crate::os::clock::monotonic_ns;
use crate::os::poll;
use crate::ring::content::Expected;
use crate::ring::link::LinkError;

/// Between two attempts.
const PAUSE_NS: u64 = 25_000_000;
/// The same for a writer whose patience is over.
const LONG_PAUSE_NS: u64 = 1_000_000_000;
/// How long a daemon that has taken the connection may take to answer.
const ANSWER_NS: u64 = 5_000_000_000;

/// How long a writer waits for an answer right away.
const MOMENT: Duration = Duration::from_millis(1);

/// The search for another daemon.
#[derive(Debug)]
struct Search {
    endpoint: Endpoint,
    /// How long to wait for an answer right away.
    moment: Duration,
    lost_ns: u64,
    next_ns: u64,
    /// The patience is over.
    has_given_up: bool,
    asked: Option<(Conn, u64)>,
    /// Readable when the next attempt is due. Made when the first daemon is lost.
    timer: Option<TimerFd>,
}

/// The result so far.
#[derive(Debug)]
enum Found {
    /// Nothing: look again later.
    Nothing,
    /// A daemon and its answer; the connection is the attachment again.
    Daemon(Box<Done>, Vec<OwnedFd>, Conn),
    /// A daemon, which does not take the attachment over, and why.
    Refusal(String),
    /// No daemon has come within this time.
    Nobody(Duration),
}

/// A connection to the daemon, and the search for another daemon once it is lost.
#[derive(Debug)]
pub(super) struct Reconnecting {
    conn: Option<Conn>,
    /// `None`: the attachment ends with the connection.
    search: Option<Search>,
    /// After the patience is over, the search goes on, with long pauses.
    goes_on: bool,
    changes: u64,
}

impl Reconnecting {
    /// With an endpoint, looks for another daemon there once the connection is lost.
    pub(super) fn new(conn: Conn, endpoint: Option<Endpoint>) -> Self {
        Reconnecting { conn: Some(conn), search: endpoint.map(Search::new), goes_on: false, changes: 0 }
    }

    /// The same, for a writer: its readers have their place in its ring, so that a daemon that comes late has to find it. Without
    /// patience, it ends with the daemon.
    pub(super) fn of_writer(conn: Conn, endpoint: Endpoint) -> Self {
        let goes_on = !endpoint.patience().is_zero();
        let search = Search { moment: MOMENT, ..Search::new(endpoint) };
        Reconnecting { conn: Some(conn), search: Some(search), goes_on, changes: 0 }
    }

    /// Whether there is no daemon, and none has come for as long as this program waits for one.
    pub(super) fn has_given_up(&self) -> bool {
        self.conn.is_none() && self.search.as_ref().is_none_or(|search| search.has_given_up)
    }

    /// A daemon has come, as the ring says. Looks for it at once, with new patience.
    pub(super) fn daemon_has_come(&mut self) {
        if let (None, Some(search)) = (&self.conn, &mut self.search) {
            search.begin_again();
        }
    }

    /// The content that the program expects of the channel, under each daemon.
    pub(super) fn expected(&self) -> Option<Expected> {
        self.search.as_ref().and_then(|search| search.endpoint.expected().cloned())
    }

    /// The connection, while there is one.
    pub(super) fn conn(&mut self) -> Option<&mut Conn> {
        self.conn.as_mut()
    }

    /// The connection has ended. Whether another daemon is looked for, if this attachment may go on with one.
    pub(super) fn lost(&mut self, may_go_on: bool) -> Result<(), LinkError> {
        self.conn = None;
        self.changes += 1;
        match &mut self.search {
            Some(search) if may_go_on => {
                search.lost();
                Ok(())
            }
            _ => Err(LinkError::Disconnected),
        }
    }

    /// Looks for another daemon. What an answer that is not a refusal comes with has to be right, by `is_right`, or it is asked again.
    ///
    /// # Errors
    /// That nobody is looked for any more.
    pub(super) fn look(
        &mut self,
        request: impl FnOnce() -> Option<(Request, Vec<OwnedFd>)>,
        is_right: impl FnOnce(&Done, &[OwnedFd]) -> bool,
    ) -> Result<Looked, LinkError> {
        let Some(search) = &mut self.search else { return Err(LinkError::Disconnected) };
        self.changes += 1;
        match search.go_on(request) {
            Found::Nothing => Ok(Looked::Nothing),
            Found::Daemon(done, fds, conn) if is_right(&done, &fds) => {
                self.conn = Some(conn);
                Ok(Looked::Attached(fds))
            }
            // Perhaps this process had no descriptors left for those that came.
            Found::Daemon(_, _, conn) => {
                end(&conn);
                search.later(monotonic_ns());
                Ok(Looked::Nothing)
            }
            Found::Refusal(reason) => {
                self.search = None;
                Ok(Looked::Refused(reason))
            }
            Found::Nobody(patience) => {
                log::info!("no daemon has replaced the one that died for {patience:?}");
                if self.goes_on {
                    search.has_given_up = true;
                    search.later(monotonic_ns());
                    return Ok(Looked::Nothing);
                }
                self.search = None;
                Err(LinkError::Disconnected)
            }
        }
    }

    /// Sends a line. Without a daemon the line is lost. The next look notices a connection that has just ended.
    pub(super) fn send<T: Serialize>(&mut self, line: &T) -> Result<(), LinkError> {
        let Some(conn) = &mut self.conn else { return Ok(()) };
        conn.queue(line, Vec::new())?;
        match conn.flush() {
            Err(_) if self.search.is_none() => Err(LinkError::Disconnected),
            _ => Ok(()),
        }
    }

    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        let search = || self.search.as_ref().and_then(Search::as_fd);
        self.conn.as_ref().map(AsFd::as_fd).or_else(search)
    }

    /// See [`Link::changes`](crate::ring::link::Link::changes).
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// See [`Link::looks_for_daemon`](crate::ring::link::Link::looks_for_daemon).
    pub(super) fn looks_for_daemon(&self) -> Option<u64> {
        self.search.as_ref().filter(|_| self.conn.is_none()).map(|search| search.next_ns)
    }
}

impl Drop for Reconnecting {
    /// Ends the connection even if a copy of its descriptor is left, as in a child that this process has just forked: the daemon
    /// must not take the attachment for one that goes on.
    fn drop(&mut self) {
        if let Some(conn) = &self.conn {
            end(conn);
        }
    }
}

/// Ends a connection, whoever has a copy of its descriptor.
fn end(conn: &Conn) {
    // Fails only if the daemon has ended the connection.
    let _ = conn.stream().shutdown(Shutdown::Both);
}

/// The result of a look for another daemon.
pub(super) enum Looked {
    /// Nothing yet.
    Nothing,
    /// It is attached again; these descriptors came with the answer.
    Attached(Vec<OwnedFd>),
    /// Why a daemon does not take the attachment over.
    Refused(String),
}

impl Search {
    fn new(endpoint: Endpoint) -> Self {
        let moment = Duration::ZERO;
        Search { endpoint, moment, lost_ns: 0, next_ns: 0, has_given_up: false, asked: None, timer: None }
    }

    /// There is a daemon that has not been found.
    fn begin_again(&mut self) {
        (self.lost_ns, self.next_ns, self.has_given_up) = (monotonic_ns(), 0, false);
    }

    /// The daemon is gone.
    fn lost(&mut self) {
        (self.lost_ns, self.next_ns, self.has_given_up, self.asked) = (monotonic_ns(), 0, false, None);
        if self.timer.is_none() {
            // Without a timer, a program that sleeps in a poll loop looks when it wakes up for another reason.
            self.timer =
                TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK).ok();
        }
    }

    /// Readable when there is something to look at.
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match (&self.asked, &self.timer) {
            (Some((conn, _)), _) => Some(conn.as_fd()),
            (None, Some(timer)) => Some(timer.as_fd()),
            (None, None) => None,
        }
    }

    /// Goes on. `request` gives what to ask the daemon, and the descriptors that go with it.
    fn go_on(&mut self, request: impl FnOnce() -> Option<(Request, Vec<OwnedFd>)>) -> Found {
        let now = monotonic_ns();
        if let Some((conn, until)) = self.asked.take() {
            return self.hear(conn, until, now);
        }
        if now < self.next_ns {
            return Found::Nothing;
        }
        let patience = self.endpoint.patience();
        let is_over = now - self.lost_ns > u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        if is_over && !self.has_given_up {
            return Found::Nobody(patience);
        }
        match session::open_now(&self.endpoint.socket).and_then(|stream| Some((stream, request()?))) {
            None => self.later(now),
            Some((stream, (request, fds))) => {
                let mut conn = Conn::new(stream, MAX_REPLY);
                if conn.queue(&request, fds).is_err() || conn.flush().is_err() {
                    return self.later(now);
                }
                if let Some(timer) = &self.timer {
                    // A timer that has expired would stay readable.
                    let _ = timer.unset();
                }
                if !self.moment.is_zero() {
                    // Whether or not it has come: it is looked for now.
                    let _ = poll::readable(conn.as_fd(), Some(self.moment));
                }
                self.hear(conn, now.saturating_add(ANSWER_NS), now)
            }
        }
    }

    /// The answer, if it is there.
    fn hear(&mut self, mut conn: Conn, until: u64, now: u64) -> Found {
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
        self.later(now)
    }

    fn later(&mut self, now: u64) -> Found {
        let pause_ns = if self.has_given_up { LONG_PAUSE_NS } else { PAUSE_NS };
        self.next_ns = now + pause_ns;
        if let Some(timer) = &self.timer {
            let due = Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(pause_ns)));
            let _ = timer.set(due, TimerSetTimeFlags::empty());
        }
        Found::Nothing
    }
}

/// Whether the daemon may soon answer differently: it is starting or busy, or has too many clients at the moment.
fn may_pass(refusal: &Refusal) -> bool {
    matches!(refusal.kind, ErrorKind::Busy | ErrorKind::TryLater | ErrorKind::TooMany | ErrorKind::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_end_is_told_even_if_a_copy_of_the_descriptor_is_left() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let copy = ours.try_clone().unwrap();
        drop(Reconnecting::new(Conn::new(ours, MAX_REPLY), None));
        theirs.set_nonblocking(true).unwrap();
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
        drop(copy);
    }
}
