//! Letting clients in, and turning them away.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use log::debug;
use shm_proto::internal::control::{Conn, MAX_REQUEST, Reply};
use shm_proto::internal::os::peer;
use shm_proto::internal::os::peer::Credentials;
use shm_proto::{ErrorKind, Refusal, Result};

use super::{Connections, is_master, refusal};
use crate::admission::{self, Full, Held};
use crate::client::Client;
use crate::event_loop::{ClientId, Interest, Timer, Token};
use crate::operation_log::{LogEvent, operation};

/// How long accepting rests when the descriptors have run out.
const REST: Duration = Duration::from_millis(100);
/// Connections accepted before others get their turn.
const BATCH: usize = 16;

impl Connections {
    /// Accepts waiting clients. Returns those that have come in.
    pub(crate) fn accept(&mut self, listener: &UnixListener, now: Instant) -> Range<ClientId> {
        let before = self.next;
        let most = if self.rests { 0 } else { BATCH };
        for _ in 0..most {
            match listener.accept() {
                Ok((socket, _)) => {
                    if let Err(error) = self.admit(socket, now) {
                        debug!("event=connect-failed reason={error:?}");
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
                Err(e) => {
                    // Out of descriptors or memory: the connection stays in the backlog, and polling it would spin.
                    if let Some(left_out) = self.lines.admit(now) {
                        let paused = operation(LogEvent::AcceptPaused).reason(e).number("clients", self.clients.len());
                        paused.left_out(left_out).warn();
                    }
                    self.rests = true;
                    self.events.remove(listener);
                    self.events.set_timer(Timer::Accept, Some(now + REST));
                    break;
                }
            }
        }
        before + 1..self.next + 1
    }

    /// Begins to accept, for the first time or after a rest.
    ///
    /// # Errors
    /// When the system gives no watch.
    pub(crate) fn listen(&mut self, listener: &UnixListener) -> Result<()> {
        self.events.add(listener, Token::Listener, Interest::READ)?;
        self.rests = false;
        Ok(())
    }

    fn admit(&mut self, socket: UnixStream, now: Instant) -> Result<()> {
        let credentials = peer::credentials(socket.as_fd())?;
        if let Some(refusal) = self.full(&credentials) {
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
}
