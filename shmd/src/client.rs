//! One client: bytes -> lines -> [`Request`](shm_proto::Request), and its replies back; deadlines and caps.
//!
//! Nothing here waits. A client that is silent, reads slowly or sends nonsense loses its connection and delays nobody.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use serde::Serialize;
use shm_proto::internal::control::{Conn, HELD, MAX_REQUEST, Received};
use shm_proto::internal::os::peer::Credentials;
use shm_proto::{Error, Result};

use crate::backlog::{Backlog, Found};
use crate::event_loop::{ChannelId, ClientId, EventLoop, Interest, Timer, Token};

/// A client has to complete a request within this time of connecting, and of the last reply. On a busy machine an honest client
/// is now and then not scheduled for more than a second.
pub(crate) const SPEAK: Duration = Duration::from_secs(5);
/// The socket's buffer for answers, in bytes. The kernel doubles the number, for its own bookkeeping, and reports that.
const ANSWERS: usize = 32 << 10;
/// The same for an attachment, which may be busy with something else when a line comes.
const NEWS: usize = 104 << 10;
/// Lines that an attached reader may send at once, and each second besides.
pub(crate) const FREE_LINES: u64 = 100;
pub(crate) const LINES_A_SECOND: u64 = 20;
/// Most bytes that wait for an attached reader or a lent writer.
const MAX_QUEUED: usize = 1 << 20;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Requests and replies.
    Asking,
    /// A request is being carried out, of one channel or of all; nothing more is read before it is answered.
    Waiting(Option<ChannelId>),
    /// The attachment of a reader.
    Reader(ChannelId, u32),
    /// The lent writer role.
    Writer(ChannelId),
    /// Following the operation log.
    Follower,
}

/// What to do about a client whose time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// Nothing yet.
    No,
    /// It has made a request before, and has made none since.
    Idle,
    /// It has not sent a complete request.
    Silent,
    /// It does not read.
    Stuck,
    /// It reads too slowly.
    TooSlow,
    /// It has closed the connection.
    Gone,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    id: ClientId,
    conn: Conn,
    /// The process that connected.
    pub(crate) credentials: Credentials,
    /// What the connection is for.
    pub(crate) role: Role,
    /// The peer has closed the connection, and gets no answer.
    pub(crate) gone: bool,
    /// Readable when the peer's process has ended.
    pidfd: Option<OwnedFd>,
    speak_by: Option<Instant>,
    backlog: Backlog,
    requests: u64,
    since: Instant,
    /// Bytes of an answer that were on their way when the role was given; they may wait besides what an attachment may.
    owed: usize,
    /// The peer has shut its sending side: close when everything is answered.
    input_ended: bool,
    /// Close as soon as everything is sent.
    ending: bool,
    interest: Interest,
}

impl Client {
    /// Takes over an accepted connection and watches it.
    ///
    /// # Errors
    /// When the system gives no watch.
    pub(crate) fn new(
        id: ClientId,
        socket: UnixStream,
        credentials: Credentials,
        now: Instant,
        events: &mut EventLoop,
    ) -> Result<Self> {
        // From here on, whatever the client has sent is closed elsewhere.
        let conn = Conn::new(socket, MAX_REQUEST);
        let socket = conn.stream();
        // A client that never reads has no more requests carried out than the answers that fit in here.
        setsockopt(socket, sockopt::SndBuf, &ANSWERS).map_err(|e| Error::system("set a socket's send buffer", e))?;
        // Otherwise a byte that the client sends out of band is dropped where it is found, with the descriptors that came with it.
        setsockopt(socket, sockopt::OobInline, &true)
            .map_err(|e| Error::system("take a socket's bytes in order", e))?;
        events.add(socket, Token::Client(id), Interest::READ)?;
        events.set_timer(Timer::Client(id), Some(now + SPEAK));
        Ok(Self {
            id,
            conn,
            credentials,
            role: Role::Asking,
            gone: false,
            pidfd: None,
            speak_by: Some(now + SPEAK),
            backlog: Backlog::default(),
            requests: 0,
            since: now,
            owed: 0,
            input_ended: false,
            ending: false,
            interest: Interest::READ,
        })
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &UnixStream {
        self.conn.stream()
    }

    /// What was received and not taken, if the next program goes on with it: one that asks, or that `waits` for the program.
    pub(crate) fn to_hand_over(&self, waits: bool) -> Option<&[u8]> {
        let stays = (self.role == Role::Asking || waits) && !self.gone && !self.ending && !self.input_ended;
        stays.then(|| self.conn.to_hand_over())?
    }

    /// What the program before this one had received of it.
    pub(crate) fn take_over(&mut self, received: Vec<u8>) {
        self.conn.take_over(received);
    }

    /// Whether lines are to be taken now: not before the last reply is on its way, so that a client can make the daemon
    /// hold one reply, not many.
    pub(crate) fn listens(&self) -> bool {
        let free = match self.role {
            Role::Asking => self.conn.queued_bytes() == 0,
            Role::Waiting(_) => false,
            Role::Reader(..) | Role::Writer(_) | Role::Follower => true,
        };
        free && !self.ending && !self.input_ended
    }

    /// The next line, if one is complete.
    ///
    /// # Errors
    /// When the connection is of no more use; the reason is for the peer.
    pub(crate) fn receive(&mut self) -> Result<Received> {
        let received = self.conn.receive()?;
        match received {
            Received::Line(..) => self.requests += 1,
            Received::Closed => self.input_ended = true,
            Received::Nothing => {}
        }
        Ok(received)
    }

    /// Queues a line and sends what goes out at once. False when the connection is of no more use.
    pub(crate) fn send<T: Serialize>(&mut self, body: &T, fds: Vec<OwnedFd>) -> bool {
        let before = self.conn.queued_bytes();
        self.conn.queue(body, fds).is_ok() && self.queued(before)
    }

    /// The same with a line that was encoded before.
    pub(crate) fn send_line(&mut self, line: Vec<u8>) -> bool {
        let before = self.conn.queued_bytes();
        self.conn.queue_line(line);
        self.queued(before)
    }

    fn queued(&mut self, before: usize) -> bool {
        let attached = matches!(self.role, Role::Reader(..) | Role::Writer(_) | Role::Follower);
        self.backlog.sent(self.conn.queued_bytes() - before);
        self.flush() && !(attached && self.conn.queued_bytes() > MAX_QUEUED + self.owed)
    }

    /// Whether it sends more lines than any attached reader has reason to.
    pub(crate) fn says_too_much(&self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.since).as_secs();
        self.requests > FREE_LINES + seconds.saturating_mul(LINES_A_SECOND)
    }

    /// From now on it is told of every operation, after the answer that it may not have taken yet.
    pub(crate) fn follow(&mut self) {
        (self.role, self.owed) = (Role::Follower, self.conn.queued_bytes());
    }

    /// Sends what the socket takes. False when the connection is of no more use.
    pub(crate) fn flush(&mut self) -> bool {
        let sent = self.conn.flush().is_ok();
        self.owed = self.owed.min(self.conn.queued_bytes());
        sent
    }

    /// Bytes that the peer has not taken.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.conn.queued_bytes()
    }

    /// Whether the peer has not read everything that was sent.
    pub(crate) fn has_untaken(&self) -> bool {
        self.conn.untaken_bytes() > 0
    }

    /// Closes the connection as soon as everything is sent.
    pub(crate) fn end(&mut self) {
        self.ending = true;
    }

    /// Whether there is nothing left to do for this client.
    pub(crate) fn is_done(&self) -> bool {
        let answered = !matches!(self.role, Role::Waiting(_));
        (self.ending || self.input_ended) && answered && self.conn.queued_bytes() == 0
    }

    /// Gives the connection its permanent role.
    pub(crate) fn become_attachment(&mut self, role: Role) {
        self.role = role;
        // Otherwise the connection's queue holds what the socket does not.
        let _ = setsockopt(self.conn.stream(), sockopt::SndBuf, &NEWS);
    }

    /// Watches the peer's process too, from the moment the connection becomes an attachment.
    pub(crate) fn watch_process(&mut self, pidfd: OwnedFd, events: &EventLoop) -> Result<()> {
        events.add(&pidfd, Token::Process(self.id), Interest::READ)?;
        self.pidfd = Some(pidfd);
        Ok(())
    }

    /// Brings watches and deadlines in line with what is expected of the peer. Call it after everything else.
    ///
    /// # Errors
    /// When the system refuses the change.
    pub(crate) fn settle(&mut self, now: Instant, events: &mut EventLoop) -> Result<()> {
        let write = self.conn.queued_bytes() > 0 && !self.conn.is_held();
        let interest = Interest { read: self.listens(), write };
        if interest != self.interest {
            events.modify(self.conn.stream(), Token::Client(self.id), interest)?;
            self.interest = interest;
        }
        let asking = self.role == Role::Asking && interest.read;
        self.speak_by = asking.then(|| self.speak_by.unwrap_or(now + SPEAK));
        // Few lines wait for a writer, and nobody else may end its role by adding lines.
        let patient = matches!(self.role, Role::Writer(_)) && !self.ending;
        let must_take = interest.write && !patient;
        self.backlog.settle(now, must_take, if must_take { self.conn.untaken_bytes() } else { 0 });
        let again = self.conn.is_held().then(|| now + HELD);
        events.set_timer(
            Timer::Client(self.id),
            [self.speak_by, self.backlog.deadline(), again].into_iter().flatten().min(),
        );
        Ok(())
    }

    /// A request was answered: the time for the next one begins.
    pub(crate) fn answered(&mut self, now: Instant) {
        self.speak_by = Some(now + SPEAK);
    }

    /// Whether the client's time is up, and why.
    pub(crate) fn overdue(&mut self, now: Instant) -> Overdue {
        if self.conn.is_held() && !self.flush() {
            return Overdue::Gone;
        }
        match self.backlog.look(now, self.conn.untaken_bytes()) {
            Found::Fine => {}
            Found::Nothing => return Overdue::Stuck,
            Found::TooSlow => return Overdue::TooSlow,
        }
        if self.speak_by.is_none_or(|at| at > now) {
            Overdue::No
        } else if self.requests > 0 && self.conn.unread_bytes() == 0 {
            Overdue::Idle
        } else {
            Overdue::Silent
        }
    }

    /// Ends the watches. The connection closes when the client is dropped.
    pub(crate) fn forget(&self, events: &mut EventLoop) {
        events.set_timer(Timer::Client(self.id), None);
        events.remove(self.conn.stream());
        if let Some(pidfd) = &self.pidfd {
            events.remove(pidfd.as_fd());
        }
    }
}

#[cfg(test)]
mod tests;
