//! The clients' requests, and removing clients that are done.

use std::time::{Duration, Instant};

use log::debug;
use shm_proto::internal::control::{Received, decode};
use shm_proto::internal::ring::link::FromReader;
use shm_proto::internal::ring::link::ToDaemon;
use shm_proto::{ErrorKind, ProtocolError, Request};

use super::Daemon;
use crate::client::{FREE_LINES, LINES_A_SECOND, Role};
use crate::connections::refusal;
use crate::event_loop::{ClientId, Event, Token};
use crate::given::Given;
use crate::peer::printable;
use crate::requests;

/// Lines taken from one client before others get their turn, and the time after which it is their turn anyway. One line is
/// always taken, and one that takes longer is carried out to its end.
const LINES_AT_ONCE: usize = 64;
const TURN: Duration = Duration::from_micros(20);
/// Most lines that are taken from a writer that is gone, more than a socket holds, and from any other client that is.
const LAST_LINES: usize = 4096;
const LAST_REQUESTS: usize = 4;

impl Daemon {
    /// Takes lines that a client has sent, a limited number at once.
    pub(super) fn listen_to(&mut self, id: ClientId) {
        let until = Instant::now() + TURN;
        let mut lines = 1;
        let more = loop {
            if !self.take_one(id) {
                break false;
            }
            if lines == LINES_AT_ONCE || Instant::now() >= until {
                break true;
            }
            lines += 1;
        };
        if more {
            // What is left may lie in the buffer already, where epoll does not see it.
            self.connections.events.post(Event::Readable(Token::Client(id)));
        }
        self.connections.settle(id);
    }

    /// Takes the last lines of a client that is gone, and gives its connection up. A writer's last lines still count, for
    /// example one about a shrink.
    pub(super) fn hear_out(&mut self, id: ClientId) {
        let Some(client) = self.connections.client(id) else { return };
        client.gone = true;
        let most = if matches!(client.role, Role::Writer(_)) { LAST_LINES } else { LAST_REQUESTS };
        for _ in 0..most {
            if !self.take_one(id) {
                break;
            }
        }
        self.connections.close_later(id);
    }

    /// Takes one line; false when there is none now.
    fn take_one(&mut self, id: ClientId) -> bool {
        let Some(client) = self.connections.client(id).filter(|client| client.listens()) else { return false };
        let role = client.role;
        match client.receive() {
            Ok(Received::Line(line, fds)) => {
                self.take_line(id, role, &line, Given::new(fds));
                return true;
            }
            Ok(Received::Nothing) => {}
            Ok(Received::Closed) if role == Role::Asking => {}
            Ok(Received::Closed) => self.connections.close_later(id),
            Err(e) => self.connections.dismiss(id, ErrorKind::BadRequest, &e.to_string(), Instant::now()),
        }
        false
    }

    fn take_line(&mut self, id: ClientId, role: Role, line: &str, given: Given) {
        let now = Instant::now();
        match role {
            Role::Asking => match decode::<Request>(line) {
                Ok(_) if self.stopping.is_some() => {
                    self.connections.dismiss(id, ErrorKind::Busy, "the daemon is stopping", now);
                }
                // Nobody would get the answer, and the request has no other effect.
                Ok(request) if self.connections.client(id).is_none_or(|client| client.gone) && only_asks(&request) => {}
                Ok(Request::List | Request::Stat { .. } | Request::Log { .. }) if !self.may_ask_for_much(id) => {}
                Ok(Request::Unknown) => self.refuse_unknown(id, line),
                Ok(Request::Reload) => self.reload_for(id),
                Ok(Request::Reexec) => self.reexec_for(id),
                Ok(Request::Create { channel, keys, keep }) => self.create_for(id, &channel, keys, keep),
                Ok(Request::Remove { channel }) => self.remove_for(id, &channel),
                Ok(Request::Log { channel, since, last, follow }) => self.show_log(id, channel, since, last, follow),
                Ok(request) => {
                    requests::handle(&mut self.connections, &mut self.channels, &self.prefix, id, request, given);
                    self.keep_ticking();
                }
                Err(e @ ProtocolError::Version { .. }) => {
                    self.connections.dismiss(id, ErrorKind::BadVersion, &e.to_string(), now)
                }
                Err(e) => self.connections.dismiss(id, ErrorKind::BadRequest, &e.to_string(), now),
            },
            Role::Writer(channel) => match decode::<ToDaemon>(line) {
                Ok(ToDaemon::Unknown) => {
                    debug!("event=unknown-line channel={channel} client={id} bytes={}", line.len());
                }
                Ok(line) => {
                    if let Some(channel) = self.channels.get_mut(channel) {
                        channel.ring_mut().obey(&mut self.connections, line);
                    }
                }
                Err(e) => self.connections.dismiss(id, ErrorKind::BadRequest, &e.to_string(), now),
            },
            Role::Reader(..) if self.connections.client(id).is_some_and(|client| client.says_too_much(now)) => {
                let why = format!(
                    "it has sent more lines than an attached reader may: {FREE_LINES}, and {LINES_A_SECOND} more per \
                     second"
                );
                self.connections.dismiss(id, ErrorKind::BadRequest, &why, now);
            }
            Role::Reader(channel, number) => match decode::<FromReader>(line) {
                Ok(FromReader::Status { status }) => {
                    if let Some(channel) = self.channels.get_mut(channel) {
                        channel.set_status(number, &status);
                    }
                }
                Ok(FromReader::Broken { reason }) => {
                    debug!("event=reported client={id} reason={:?}", printable(&reason));
                    if let Some(channel) = self.channels.get_mut(channel) {
                        channel.ring_mut().suspect(&mut self.connections, now);
                    }
                }
                Ok(FromReader::Unknown) => debug!("passed over a line from a newer reader: {}", printable(line)),
                Err(_) => {
                    let nothing = "an attached reader has nothing to ask on its connection";
                    self.connections.dismiss(id, ErrorKind::BadRequest, nothing, now);
                }
            },
            Role::Follower => {
                self.connections.dismiss(id, ErrorKind::BadRequest, "a follower of the log has nothing to ask", now);
            }
            Role::Waiting(_) => {}
        }
    }

    /// Whether a client may have an answer that may be long. If not, it was told.
    fn may_ask_for_much(&mut self, id: ClientId) -> bool {
        let Err(refused) = self.connections.check_untaken(id) else { return true };
        self.connections.reply(id, Err(refused), Vec::new());
        false
    }

    /// A newer client asks for something that this daemon does not know. It may ask for something else.
    fn refuse_unknown(&mut self, id: ClientId, line: &str) {
        #[derive(serde::Deserialize)]
        struct Op {
            op: String,
        }
        let op = decode::<Op>(line).map(|line| printable(&line.op)).unwrap_or_default();
        let message = format!(
            "shmd {} does not know the request {op:?}; it knows ping, list, stat, schema, attach, publish, resize, evict, \
             create, remove, reload, reexec and log. A request of a newer release needs a daemon of that release",
            env!("CARGO_PKG_VERSION")
        );
        self.connections.reply(id, Err(refusal(ErrorKind::BadRequest, message)), Vec::new());
    }

    pub(super) fn flush(&mut self, id: ClientId) {
        let Some(client) = self.connections.client(id) else { return };
        if !client.flush() {
            self.connections.close_later(id);
            return;
        }
        if let Role::Writer(channel) = client.role
            && let Some(channel) = self.channels.get_mut(channel)
        {
            channel.ring().announce();
        }
        // Requests that came while the last reply was on its way lie in the buffer.
        self.listen_to(id);
    }

    /// Removes connections that were given up, with the attachments and waits that belong to them.
    pub(super) fn remove_clients(&mut self) {
        while let Some(id) = self.connections.next_to_close() {
            let Some(client) = self.connections.remove(id) else { continue };
            let channel = match client.role {
                Role::Asking => None,
                Role::Follower => {
                    self.forget_follower(id);
                    None
                }
                Role::Waiting(channel) => channel,
                Role::Reader(channel, _) | Role::Writer(channel) => Some(channel),
            };
            let Some(channel) = channel.and_then(|channel| self.channels.get_mut(channel)) else { continue };
            match client.role {
                Role::Reader(_, number) => channel.detach(&mut self.connections, number),
                Role::Writer(_) => channel.ring_mut().writer_gone(&mut self.connections, id),
                Role::Waiting(_) => channel.ring_mut().forget(id),
                Role::Asking | Role::Follower => {}
            }
            self.channels.release(&mut self.connections, None);
            if self.draining {
                self.drain();
            }
            self.check_stopped();
        }
    }
}

/// Whether a request changes nothing for anybody but the one who makes it.
fn only_asks(request: &Request) -> bool {
    match request {
        Request::Ping
        | Request::List
        | Request::Stat { .. }
        | Request::Schema { .. }
        | Request::Attach { .. }
        | Request::Publish { .. }
        | Request::ResumeReader { .. }
        | Request::ResumeWriter { .. }
        | Request::Log { .. }
        | Request::Unknown => true,
        Request::Resize { .. }
        | Request::Evict { .. }
        | Request::Create { .. }
        | Request::Remove { .. }
        | Request::Reload
        | Request::Reexec => false,
    }
}
