//! The clients of a listening socket: each is an input of its own, cut by its own state, and served one read or some packets
//! at a time, so that none has to wait for another's stream.
//!
//! | a client that | |
//! |---|---|
//! | sends a line over the limit, or a packet | loses that one, counted and logged, and stays |
//! | sends a length over the limit, or ends within a record or a chunk | is closed, counted, and named in the log |
//! | claims a long message and does not send it | takes only the memory of what it has sent |
//! | holds the most memory for an unfinished message when all together hold too much | is closed, counted, and named in the log |
//! | sends a message for which there is no memory | is closed, counted, and named in the log |
//! | is one too many, or not in `write` | is closed, counted, and named in the log |
//!
//! An empty packet is the end of a client, as the kernel shows it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{MsgFlags, recv};
use serde::{Deserialize, Serialize};
use shm_proto::internal::control::stat::SourceState;
use shm_proto::internal::framing::{Pump, Slotted};
use shm_proto::internal::os::{peer, process};
use shm_proto::{Bytes, Error, FramingError, Result};

use super::client_socket::ClientSocket;
use super::feed::{Feed, Stepped, is_ready};
use super::file_id::Place;
use super::packed_pump::PackedPump;
use super::unix::Listener;
use super::{Cutting, Input, PackedInput};
use crate::access::Access;
use crate::config::Packets;
use crate::handover::{Luggage, Parcel};
use crate::peer::Peer;

/// Most clients at a time.
const MOST: usize = 128;
/// Bytes of memory that all clients' unfinished messages may hold together, beside the channel's largest message.
const MEMORY: usize = 64 << 20;
/// If no client has sent anything for this long, empty buffers are given back.
const IDLE: Duration = Duration::from_secs(1);
/// Packets taken from a client before the others get their turn.
const PACKETS: usize = 64;
/// How long accepting rests when there are no descriptors, or no place: clients that are gone are found out in that time.
const REST: Duration = Duration::from_millis(100);

/// The socket and its clients.
#[derive(Debug)]
pub(super) struct Clients {
    listener: Listener,
    packets: Packets,
    /// Whom `write` names; a reload may change it.
    write: Arc<Mutex<Access>>,
    clients: Vec<Client>,
    resting: Option<Instant>,
    /// No client has gone since.
    full_since: Option<Instant>,
}

/// What is left to the next program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PackedClients {
    listener: (i32, Place),
    clients: Vec<PackedClient>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PackedClient {
    socket: i32,
    uid: u32,
    pid: u32,
    program: String,
    pump: PackedPump,
}

#[derive(Debug)]
struct Client {
    socket: ClientSocket,
    uid: u32,
    pid: u32,
    program: String,
    pump: Pump,
    gone: bool,
}

impl Client {
    /// It is buried before anybody waits again; its memory goes at once.
    fn go(&mut self) {
        self.gone = true;
        self.pump.abandon();
    }

    fn peer(&self) -> Peer {
        describe(self.pid, self.uid, &self.program)
    }
}

fn describe(pid: u32, uid: u32, program: &str) -> Peer {
    Peer { pid, uid, user: process::user_name(uid), program: crate::peer::printable(program) }
}

impl Clients {
    /// No clients yet.
    pub(super) fn new(listener: Listener, packets: Packets, write: Arc<Mutex<Access>>) -> Self {
        Self { listener, packets, write, clients: Vec::new(), resting: None, full_since: None }
    }

    /// Goes on with what the program before this one has left.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(super) fn unpack(
        packets: Packets,
        write: Arc<Mutex<Access>>,
        packed: PackedClients,
        cutting: Cutting,
        luggage: &Luggage,
    ) -> io::Result<Self> {
        let (listener, place) = packed.listener;
        let listener = Listener::known(luggage.fd(listener)?, place);
        let clients = packed.clients.into_iter().map(|PackedClient { socket, uid, pid, program, pump }| {
            let pump = pump.unpack(cutting.pump_of_many().map_err(io::Error::other)?, luggage)?;
            let socket = ClientSocket::new(luggage.fd(socket)?);
            Ok(Client { socket, uid, pid, program, pump, gone: false })
        });
        let clients = clients.collect::<io::Result<_>>()?;
        Ok(Self { clients, ..Self::new(listener, packets, write) })
    }

    fn show(&self, feed: &Feed<'_>) {
        feed.set(SourceState::Listening { clients: self.clients.len(), most: MOST });
    }

    /// Waits. Returns whether a client wants to connect, and which clients have sent something.
    fn look(&mut self, feed: &mut Feed<'_>) -> Result<(bool, Vec<usize>)> {
        let now = Instant::now();
        let rest = self.resting.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero());
        let mut fds = feed.fds();
        let daemon = fds.len();
        // What is ready while accepting rests is not waited for.
        let events = if rest.is_some() { PollFlags::empty() } else { PollFlags::POLLIN };
        fds.push(PollFd::new(self.listener.listener.as_fd(), events));
        fds.extend(self.clients.iter().map(|client| PollFd::new(client.socket.as_fd(), PollFlags::POLLIN)));
        // What a source before this one has read and not published: no input tells of it.
        let begun = self.clients.iter().any(|client| client.pump.has_more());
        let holding = self.clients.iter().any(|client| client.pump.memory() > 0 && client.pump.unfinished() == 0);
        let flush = self.clients.iter().filter_map(|client| client.pump.flush_in()).min();
        let most = if begun { Some(Duration::ZERO) } else { rest.or(holding.then_some(IDLE)) };
        let most = [most, flush].into_iter().flatten().min();
        feed.wait(&mut fds, most)?;
        let waiting = is_ready(&fds[daemon]);
        let ready = fds[daemon + 1..].iter().zip(&self.clients).enumerate();
        let is_due = |client: &Client| client.pump.has_more() || client.pump.flush_in() == Some(Duration::ZERO);
        let ready = ready.filter(|(_, (fd, client))| is_ready(fd) || is_due(client)).map(|(index, _)| index);
        let ready: Vec<usize> = ready.collect();
        if ready.is_empty() && holding && now.elapsed() >= IDLE {
            self.clients.iter_mut().for_each(|client| client.pump.release());
        }
        Ok((waiting, ready))
    }

    fn accept(&mut self, feed: &mut Feed<'_>) -> Result<()> {
        for _ in 0..MOST {
            if self.clients.len() >= MOST {
                let until = *self.full_since.get_or_insert_with(Instant::now) + REST;
                if Instant::now() < until {
                    self.resting = Some(until);
                    return Ok(());
                }
            }
            match self.listener.listener.accept() {
                Ok((socket, _)) => self.admit(feed, socket)?,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
                Err(e) => {
                    let have = self.clients.len();
                    let way = "clients wait, and the daemon tries again; if descriptors have run out, raise \
                               LimitNOFILE= or ulimit -n";
                    feed.trouble(
                        format!("cannot accept a client beside the {have} that are connected: {e}; {way}"),
                        || None,
                    );
                    self.resting = Some(Instant::now() + REST);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn admit(&mut self, feed: &mut Feed<'_>, socket: UnixStream) -> Result<()> {
        let known = socket.set_nonblocking(true).map_err(|e| e.to_string());
        let socket = ClientSocket::new(socket.into());
        let known = known.and_then(|()| peer::credentials(socket.as_fd()).map_err(|e| e.to_string()));
        let peer = match known {
            Ok(peer) => peer,
            Err(e) => {
                let reason = format!("a client was turned away, because the kernel does not tell its user: {e}");
                feed.trouble(reason, || None);
                return Ok(());
            }
        };
        let program = process::program(peer.pid).unwrap_or_else(|| "?".to_owned());
        let allowed = self.write.lock().unwrap_or_else(PoisonError::into_inner).allows(&peer);
        let mine = self.clients.iter().filter(|client| client.uid == peer.uid).count();
        // Who runs the daemon needs no protection from itself.
        let limited = peer.uid != 0 && peer.uid != nix::unistd::geteuid().as_raw();
        let refusal = if !allowed {
            let uid = peer.uid;
            Some(format!(
                "a client was turned away: the channel's write list does not let it in; add user {uid} or one of its \
                 groups to `write`, and reload"
            ))
        } else if self.clients.len() >= MOST {
            Some(format!(
                "a client was turned away: {MOST} are connected, the most the source accepts; end some, or have a \
                 second channel"
            ))
        } else if limited && mine >= MOST / 2 {
            Some(format!(
                "a client was turned away: its user has {mine} connections, the most one user may have (half of \
                 {MOST}); end some"
            ))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            feed.trouble(refusal, || Some(describe(peer.pid, peer.uid, &program)));
            return Ok(());
        }
        let pump = feed.pump()?;
        let client = Client { socket, uid: peer.uid, pid: peer.pid, program, pump, gone: false };
        self.clients.push(client);
        Ok(())
    }

    /// One turn of a client's stream.
    fn read(&mut self, feed: &mut Feed<'_>, index: usize) -> Result<()> {
        self.keep_within(feed, self.clients[index].pump.wants());
        let client = &mut self.clients[index];
        while !client.gone {
            match feed.step(&mut client.pump, &mut &client.socket)? {
                Stepped::Moved | Stepped::Idle => {}
                Stepped::End => client.go(),
                Stepped::Broken(e @ Error::Framing(FramingError::BadInput { .. })) if client.pump.pass_over() => {
                    feed.trouble(format!("passed over: {e}"), || Some(client.peer()));
                }
                Stepped::Broken(e) | Stepped::Short(e) => {
                    client.go();
                    feed.trouble(format!("a client was dropped: {e}"), || Some(client.peer()));
                }
            }
            // What follows a line that was passed over is here already: nothing would tell of it.
            if !client.pump.has_more() {
                break;
            }
        }
        client.pump.trim();
        Ok(())
    }

    /// Before `more` bytes of memory are taken: drops who holds most when it is too much together: not whoever comes last, or a
    /// few that send long messages and do not end them would keep everybody else out.
    fn keep_within(&mut self, feed: &mut Feed<'_>, more: usize) {
        let most = MEMORY + usize::try_from(feed.max_message()).unwrap_or(usize::MAX / 2);
        let staying = || self.clients.iter().filter(|client| !client.gone);
        let held = |clients: &mut dyn Iterator<Item = &Client>| clients.map(|it| it.pump.memory()).sum::<usize>();
        if more == 0 || held(&mut staying()) + more <= most {
            return;
        }
        self.clients.iter_mut().for_each(|client| client.pump.release());
        let all = held(&mut self.clients.iter().filter(|client| !client.gone));
        // One is enough: it holds no less than the one that reads, which takes no more than it has.
        let largest = self.clients.iter_mut().filter(|client| !client.gone).max_by_key(|client| client.pump.memory());
        if all + more > most
            && let Some(client) = largest
        {
            let its = client.pump.memory();
            let reason = format!(
                "a client was dropped: the unfinished messages of all clients hold {} of memory and need {} more, \
                 {most} bytes are allowed, and its {} are the most; end messages sooner, or lower max_message",
                Bytes(all as u64),
                Bytes(more as u64),
                Bytes(its as u64)
            );
            client.go();
            feed.trouble(reason, || Some(client.peer()));
        }
    }

    /// One turn of a client's packets, each read where it belongs in the ring.
    fn receive(&mut self, feed: &mut Feed<'_>, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        let fd = client.socket.as_fd().as_raw_fd();
        let now = MsgFlags::MSG_DONTWAIT;
        for _ in 0..PACKETS {
            let len = match recv(fd, &mut [0], now | MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC) {
                Ok(0) => {
                    client.gone = true;
                    return Ok(());
                }
                Ok(len) => len,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => continue,
                Err(e) => {
                    client.gone = true;
                    feed.trouble(format!("a client was dropped: {e}"), || Some(client.peer()));
                    return Ok(());
                }
            };
            let limit = feed.max_message();
            let too_large = len as u64 > limit;
            let taken = !too_large
                && feed.packet(len, |slot| client.socket.receive(slot).ok().filter(|&n| n == len))?
                    == Slotted::Published;
            if !taken {
                // Refused here, or dropped by the channel's policy: taken out of the queue unread.
                let _ = client.socket.receive(&mut [0]);
            }
            if too_large {
                let reason = format!("a packet of {len} bytes was refused: the limit is {limit} bytes a message");
                feed.trouble(reason, || Some(client.peer()));
            }
        }
        Ok(())
    }

    /// Lets those go that are gone.
    fn bury(&mut self) {
        self.clients.retain(|client| !client.gone);
    }
}

impl Input for Clients {
    fn run(&mut self, feed: &mut Feed<'_>) -> Result<()> {
        self.bury();
        self.show(feed);
        loop {
            let (waiting, ready) = self.look(feed)?;
            let before = self.clients.len();
            for index in ready {
                match self.packets {
                    Packets::Joined => self.read(feed, index)?,
                    Packets::Kept => self.receive(feed, index)?,
                }
            }
            self.bury();
            let gone = before > self.clients.len();
            if gone {
                self.full_since = None;
            }
            if gone || self.resting.is_some_and(|until| Instant::now() >= until) {
                self.resting = None;
            }
            if waiting {
                self.accept(feed)?;
            }
            if gone || waiting {
                self.show(feed);
            }
        }
    }

    fn write_list(&mut self, write: &Arc<Mutex<Access>>) {
        self.write = Arc::clone(write);
    }

    fn pack(&self, parcel: &mut Parcel) -> io::Result<PackedInput> {
        let staying = self.clients.iter().filter(|client| !client.gone);
        let clients = staying.map(|Client { socket, uid, pid, program, pump, .. }| {
            let (socket, pump) = (parcel.fd(socket)?, PackedPump::pack(pump, parcel)?);
            Ok(PackedClient { socket, uid: *uid, pid: *pid, program: program.clone(), pump })
        });
        let clients = clients.collect::<io::Result<_>>()?;
        Ok(PackedInput::Clients(PackedClients { listener: self.listener.pack(parcel)?, clients }))
    }
}
