//! All connections: accepting, limits, sending. Channels use this to talk to their peers.

mod leaving;
mod untaken;

use std::collections::HashMap;
use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use log::debug;
use serde::Serialize;
use shm_proto::Result;
use shm_proto::internal::control::{Conn, MAX_REQUEST, Reply};
use shm_proto::internal::os::peer;
use shm_proto::internal::os::peer::Credentials;
use shm_proto::internal::os::process;
use shm_proto::{ChannelName, Done, ErrorKind, Refusal};

use crate::admission::{self, Full, Held, Paced, Rate};
use crate::client::{Client, Overdue, Role, SPEAK};
use crate::descriptors;
use crate::event_loop::{ClientId, Event, EventLoop, Interest, Timer, Token};
use crate::maintenance::Helpers;
use crate::operation_log::{LogEvent, operation};
use crate::peer::{Peer, printable};
use crate::rate_limit::RateLimit;
use crate::user_names::UserNames;

/// How long accepting pauses when there are no descriptors left.
const REST: Duration = Duration::from_millis(100);
/// Connections accepted before others get their turn.
const BATCH: usize = 64;
/// Log lines per second about clients that were turned away or cut off.
const LINES: u32 = 10;

/// The connections and the one loop that watches them.
#[derive(Debug)]
pub(crate) struct Connections {
    /// Where everything is watched.
    pub(crate) events: EventLoop,
    /// The directory of the control socket.
    pub(crate) runtime_dir: PathBuf,
    /// The processes that shrink channels.
    pub(crate) helpers: Helpers,
    clients: HashMap<ClientId, Client>,
    per_user: HashMap<u32, u32>,
    names: UserNames,
    /// How often users do what is paced.
    rate: Rate,
    next: ClientId,
    most: u32,
    /// Connections that were given up; the daemon removes them.
    to_close: Vec<ClientId>,
    turned_away: u64,
    misbehaved: u64,
    lines: RateLimit,
}

/// A reason to refuse, from the kind and the text.
pub(crate) fn refusal(kind: ErrorKind, message: impl Into<String>) -> Refusal {
    Refusal::new(kind, message)
}

/// The same about a channel.
pub(crate) fn channel_refusal(channel: &ChannelName, kind: ErrorKind, why: impl Display) -> Refusal {
    refusal(kind, format!("channel {channel}: {why}"))
}

/// A refusal because somebody has to wait.
pub(crate) fn later(channel: &ChannelName, why: impl Display, wait: Duration) -> Refusal {
    // Rounded up, or it would be a little too early.
    let millis = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    channel_refusal(channel, ErrorKind::TryLater, why).with_retry_after_ms(millis)
}

/// Whether this is root or the daemon's own user, to whom no limits apply.
pub(crate) fn is_master(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

impl Connections {
    /// No connections yet; at most `most` at a time.
    ///
    /// # Errors
    /// When the system gives no epoll instance.
    pub(crate) fn new(most: u32, runtime_dir: PathBuf) -> Result<Self> {
        Ok(Self {
            runtime_dir,
            helpers: Helpers::default(),
            events: EventLoop::new()?,
            clients: HashMap::new(),
            per_user: HashMap::new(),
            names: UserNames::new(process::user_name),
            rate: Rate::default(),
            next: 0,
            most,
            to_close: Vec::new(),
            turned_away: 0,
            misbehaved: 0,
            lines: RateLimit::new(LINES),
        })
    }

    /// The number of connections.
    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Most connections at a time.
    pub(crate) fn most(&self) -> u32 {
        self.most
    }

    /// Accepts at most `most` connections from now on; present connections stay.
    pub(crate) fn set_most(&mut self, most: u32) {
        self.most = most;
    }

    /// Accepts waiting clients.
    pub(crate) fn accept(&mut self, listener: &UnixListener, now: Instant) {
        for _ in 0..BATCH {
            match listener.accept() {
                Ok((socket, _)) => {
                    if let Err(error) = self.admit(socket, now) {
                        debug!("event=connect-failed reason={error:?}");
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
                Err(e) => {
                    // Out of descriptors or memory: the connection stays in the backlog, and polling it would spin.
                    if let Some(left_out) = self.lines.admit(now) {
                        let paused = operation(LogEvent::AcceptPaused).reason(e).number("clients", self.clients.len());
                        paused.left_out(left_out).warn();
                    }
                    self.events.remove(listener);
                    self.events.set_timer(Timer::Accept, Some(now + REST));
                    return;
                }
            }
        }
    }

    /// Begins to accept, for the first time or after a rest.
    ///
    /// # Errors
    /// When the system gives no watch.
    pub(crate) fn listen(&mut self, listener: &UnixListener) -> Result<()> {
        self.events.add(listener, Token::Listener, Interest::READ)
    }

    fn admit(&mut self, socket: UnixStream, now: Instant) -> Result<()> {
        let credentials = peer::credentials(socket.as_fd())?;
        let scarce = || {
            let why = (!is_master(credentials.uid)).then(|| descriptors::are_scarce(socket.as_fd())).flatten()?;
            Some(refusal(ErrorKind::TooMany, why))
        };
        if let Some(refusal) = self.full(&credentials).or_else(scarce) {
            self.turned_away += 1;
            if let Some(left_out) = self.lines.admit(now) {
                let turned_away =
                    operation(LogEvent::TurnedAway).number("pid", credentials.pid).number("uid", credentials.uid);
                let turned_away = turned_away.number("total", self.turned_away).reason(&refusal.message);
                turned_away.left_out(left_out).warn();
            }
            let mut conn = Conn::new(socket, MAX_REQUEST);
            conn.queue(&Reply::Error(refusal), Vec::new())?;
            // What does not go out at once is not waited for.
            let _ = conn.flush();
            return Ok(());
        }
        self.next += 1;
        let uid = credentials.uid;
        let client = Client::new(self.next, socket, credentials, now, &mut self.events)?;
        self.clients.insert(self.next, client);
        *self.per_user.entry(uid).or_default() += 1;
        Ok(())
    }

    fn full(&self, peer: &Credentials) -> Option<Refusal> {
        let count = |uid: u32| self.per_user.get(&uid).map_or(0, |&count| count as usize);
        let masters = self.per_user.keys().filter(|uid| is_master(**uid)).map(|uid| count(*uid)).sum();
        let held = Held { all: self.clients.len(), masters, own: count(peer.uid) };
        let message = match admission::place(held, self.most, is_master(peer.uid)) {
            Ok(()) => return None,
            Err(Full::All) => format!(
                "the daemon has {} connections, the most it accepts (max_clients = {}); try again, or raise \
                 max_clients",
                held.all, self.most
            ),
            Err(Full::Share(_)) => format!(
                "user {} has {} connections to the daemon, the most one user may have (half of max_clients = {}); \
                 close some, or raise max_clients",
                peer.uid, held.own, self.most
            ),
        };
        Some(refusal(ErrorKind::TooMany, message))
    }

    /// Checks that a user does not do something too often, and that there are descriptors for it. The masters may.
    ///
    /// # Errors
    /// The refusal to send instead. A limited number per second is logged.
    pub(crate) fn pace(&mut self, channel: &ChannelName, uid: u32, paced: Paced) -> Result<(), Refusal> {
        if is_master(uid) {
            return Ok(());
        }
        let now = Instant::now();
        let (why, wait) = match descriptors::are_scarce(self.events.as_fd()) {
            Some(why) => (why, None),
            None => match self.rate.admit(uid, paced, now) {
                Ok(()) => return Ok(()),
                Err(wait) => (paced.too_often(&self.user(uid), wait), Some(wait)),
            },
        };
        self.turned_away += 1;
        if let Some(left_out) = self.lines.admit(now) {
            let turned_away = operation(LogEvent::TurnedAway).on(channel).number("uid", uid);
            turned_away.number("total", self.turned_away).reason(&why).left_out(left_out).warn();
        }
        Err(match wait {
            Some(wait) => later(channel, why, wait),
            None => channel_refusal(channel, ErrorKind::TooMany, why),
        })
    }

    /// A client by its number, if it is still there.
    pub(crate) fn client(&mut self, id: ClientId) -> Option<&mut Client> {
        self.clients.get_mut(&id)
    }

    /// Sends a line to a client, or gives it up. Returns whether the client is still of use.
    pub(crate) fn send<T: Serialize>(&mut self, id: ClientId, body: &T, fds: Vec<OwnedFd>) -> bool {
        self.send_with(id, |client| client.send(body, fds))
    }

    /// The same with a line that was encoded before.
    pub(crate) fn send_line(&mut self, id: ClientId, line: Vec<u8>) -> bool {
        self.send_with(id, |client| client.send_line(line))
    }

    fn send_with(&mut self, id: ClientId, send: impl FnOnce(&mut Client) -> bool) -> bool {
        let Some(client) = self.clients.get_mut(&id) else { return false };
        let sent = send(client);
        if !sent {
            self.to_close.push(id);
        }
        self.settle(id);
        sent
    }

    /// Answers a request.
    pub(crate) fn reply(&mut self, id: ClientId, answer: Result<Done, Refusal>, fds: Vec<OwnedFd>) {
        self.answered(id);
        let reply = match answer {
            Ok(done) => Reply::Ok(done),
            Err(refusal) => Reply::Error(refusal),
        };
        self.send(id, &reply, fds);
    }

    /// Answers a request with a line that was encoded before.
    pub(crate) fn reply_line(&mut self, id: ClientId, line: Vec<u8>) {
        self.answered(id);
        self.send_line(id, line);
    }

    fn answered(&mut self, id: ClientId) {
        let now = Instant::now();
        if let Some(client) = self.clients.get_mut(&id) {
            if matches!(client.role, Role::Waiting(_)) {
                client.role = Role::Asking;
                // Lines that arrived during the wait are in the buffer, where epoll does not see them.
                self.events.post(Event::Readable(Token::Client(id)));
            }
            client.answered(now);
        }
    }

    /// Tells a client what is wrong and closes the connection once it has been told.
    pub(crate) fn dismiss(&mut self, id: ClientId, kind: ErrorKind, message: &str, now: Instant) {
        self.misbehaved += 1;
        if let (Some(client), Some(left_out)) = (self.clients.get(&id), self.lines.admit(now)) {
            let Credentials { pid, uid, .. } = client.credentials;
            let dismissed = operation(LogEvent::Dismiss).number("pid", pid).number("uid", uid);
            dismissed.number("total", self.misbehaved).reason(message).left_out(left_out).warn();
        }
        self.send(id, &Reply::Error(refusal(kind, message)), Vec::new());
        self.end(id);
    }

    /// Closes a connection once everything is sent.
    pub(crate) fn end(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.end();
        }
        self.settle(id);
    }

    /// Gives a connection up.
    pub(crate) fn close_later(&mut self, id: ClientId) {
        self.to_close.push(id);
    }

    /// The next connection that was given up.
    pub(crate) fn next_to_close(&mut self) -> Option<ClientId> {
        self.to_close.pop()
    }

    /// Adjusts what is expected of a client after something was done with it.
    pub(crate) fn settle(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if client.is_done() || client.settle(Instant::now(), &mut self.events).is_err() {
            self.to_close.push(id);
        }
    }

    /// A client's time is up.
    pub(crate) fn overdue(&mut self, id: ClientId, now: Instant) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let overdue = client.overdue(now);
        match overdue {
            Overdue::No => self.settle(id),
            Overdue::Idle | Overdue::Gone => self.close_later(id),
            Overdue::Silent => {
                let most = SPEAK.as_secs();
                let why = format!("no complete request within {most} s of connecting or the last reply");
                self.dismiss(id, ErrorKind::BadRequest, &why, now);
            }
            Overdue::Stuck | Overdue::TooSlow => {
                let reason = if overdue == Overdue::Stuck { "it does not read" } else { "it reads too slowly" };
                let (pid, queued) = (client.credentials.pid, client.queued_bytes());
                self.misbehaved += 1;
                if let Some(left_out) = self.lines.admit(now) {
                    let stuck = operation(LogEvent::Dismiss).number("pid", pid).number("queued", queued);
                    stuck.reason(reason).left_out(left_out).warn();
                }
                self.close_later(id);
            }
        }
    }

    /// Takes a connection out; it closes when the client is dropped.
    pub(crate) fn remove(&mut self, id: ClientId) -> Option<Client> {
        let client = self.clients.remove(&id)?;
        client.forget(&mut self.events);
        let uid = client.credentials.uid;
        if let Some(count) = self.per_user.get_mut(&uid) {
            *count -= 1;
            if *count == 0 {
                self.per_user.remove(&uid);
            }
        }
        Some(client)
    }

    /// A client in words; `program` is the name that it gives itself.
    pub(crate) fn peer(&mut self, id: ClientId, program: Option<&str>) -> Option<Peer> {
        let Credentials { pid, uid, .. } = self.clients.get(&id)?.credentials;
        let program = match program.map(printable).filter(|name| !name.is_empty()) {
            Some(name) => name,
            None => process::program(pid).unwrap_or_else(|| "?".to_owned()),
        };
        let user = self.user(uid);
        Some(Peer { pid, uid, user, program })
    }

    /// A user's name, or the number as long as the name is not known.
    pub(crate) fn user(&mut self, uid: u32) -> String {
        self.names.name(uid)
    }

    /// Whether something is still to be sent to anybody.
    pub(crate) fn is_sending(&self) -> bool {
        self.clients.values().any(|client| client.queued_bytes() > 0)
    }

    /// Sends what goes out without waiting.
    pub(crate) fn flush_all(&mut self) {
        self.clients.retain(|_, client| client.flush());
    }

    /// Makes a connection an attachment, which ends with the peer's process too.
    ///
    /// # Errors
    /// When the process is gone already.
    pub(crate) fn bind(&mut self, id: ClientId, role: Role) -> Result<()> {
        let Some(client) = self.clients.get_mut(&id) else { return Ok(()) };
        match peer::peer_pidfd(client.socket().as_fd()) {
            Ok(pidfd) => client.watch_process(pidfd, &self.events)?,
            Err(error) if client.credentials.pid != 0 && process::start_ticks(client.credentials.pid).is_none() => {
                return Err(error.into());
            }
            // A process of another PID namespace, or no descriptors: the connection alone will do.
            Err(error) => debug!("event=no-pidfd pid={} reason={error:?}", client.credentials.pid),
        }
        client.become_attachment(role);
        Ok(())
    }
}
