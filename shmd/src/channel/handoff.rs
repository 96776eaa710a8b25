//! What is different about a channel that hands messages over one at a time.
//!
//! The ring that [`Channel`] otherwise is becomes the feed, with the [`Bridge`] as its only reader; what peers see, readers
//! and sizes and counts, is the handoff's.

mod admission;
mod life;
mod reload;
mod show;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shm_proto::internal::client::SocketLink;
use shm_proto::internal::control::{Conn, HandoffAttached, MAX_REPLY, MAX_REQUEST, Received, Resized, decode};
use shm_proto::internal::handoff::{Access, Names, Origin, Settings, Writer};
use shm_proto::internal::ring;
use shm_proto::internal::ring::link::{FromReader, ToReader};
use shm_proto::{Bytes, Done, Error, ErrorKind, OnFull, Refusal, Result, Start};

use super::{Channel, Reader};
use crate::bridge::Bridge;
use crate::cleanup;
use crate::client::Role;
use crate::config::ChannelConfig;
use crate::connections::{Connections, refusal};
use crate::event_loop::{ClientId, Interest, Token};
use crate::liveness::Pulse;
use crate::operation_log::{Operation, operation};
use crate::peer::{Peer, printable};
use crate::policy::LowUse;

/// The feed's capacity at the start and at rest, unless a message needs more.
const FEED: u64 = 64 * Bytes::KIB;
/// Publishing waits for a reader as long as it takes.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// The bridge's number among the feed's readers, and a client that there is not.
const BRIDGE: u32 = 0;
pub(super) const NOBODY: ClientId = 0;

/// A handoff channel's own part.
#[derive(Debug)]
pub(crate) struct Handoff {
    /// As configured; the channel has the feed's.
    config: ChannelConfig,
    names: Names,
    access: Access,
    bridge: Bridge,
    /// The connection of the bridge's reader, the feed's only one.
    feed: Conn,
    /// The bridge has ended, and the event that says so has come.
    over: bool,
    /// Clients that wait for the bridge to change the length.
    asking: Vec<ClientId>,
    /// Those that the daemon knows of; programs in C come and go unseen.
    readers: BTreeMap<u32, Reader>,
    next_reader: u32,
    evicted: u64,
    /// Whether somebody acknowledges what is on offer.
    pulse: Pulse,
    low_use: LowUse,
}

/// The configuration of the ring that feeds a handoff channel, or the channel's own for a ring.
pub(super) fn feed(config: &ChannelConfig) -> ChannelConfig {
    if config.handoff.is_none() {
        return config.clone();
    }
    let min = FEED.min(config.max);
    ChannelConfig {
        capacity: min,
        min,
        on_full: OnFull::Block,
        max_readers: 1,
        evict_after: None,
        ack: true,
        ack_timeout: FOR_EVER,
        wait_readers: 0,
        group: None,
        mode: 0o600,
        ..config.clone()
    }
}

impl Handoff {
    /// Whether the bridge's reader has found the feed broken.
    fn has_complained(&mut self) -> bool {
        let mut complained = false;
        while let Ok(Received::Line(line, _)) = self.feed.receive() {
            complained |= matches!(decode(&line), Ok(FromReader::Broken { .. }));
        }
        complained
    }

    /// Tells the bridge's reader something.
    pub(super) fn tell_feed(&mut self, line: &ToReader, fds: Vec<OwnedFd>) {
        // A bridge that has ended hears nothing.
        if self.feed.queue(line, fds).is_ok() {
            let _ = self.feed.flush();
        }
    }
}

impl Channel {
    /// Starts to hand over what comes through the feed.
    pub(super) fn start_handoff(&mut self, config: ChannelConfig, writer: Option<Writer>) -> Result<()> {
        let (Some(writer), Some(names)) = (writer, config.handoff.clone()) else { return Ok(()) };
        let created = operation("create").on(&config.name).text("mode", "handoff").text("segment", &names.segment);
        let created = created.text("avail", &names.avail).text("done", &names.done);
        let created = created.number("capacity", writer.capacity()).number("max", config.max);
        match writer.origin() {
            Origin::Created => created.text("origin", "created"),
            Origin::Replaced => created.text("origin", "replaced"),
            Origin::Adopted { pending: None } => created.text("origin", "adopted"),
            Origin::Adopted { pending: Some(len) } => created.text("origin", "adopted").number("withdrawn_bytes", len),
        }
        .info();
        let (pid, uid) = (std::process::id(), nix::unistd::geteuid().as_raw());
        let peer = Peer { pid, uid, user: self.own_user.clone(), program: "shmd".to_owned() };
        let (reader, sleeper) = Reader::new(NOBODY, peer, self.moves)?;
        let (segment, page) = (self.segment.for_reader()?, reader.page_fd()?);
        let geometry = self.geometry.clone();
        let (ours, theirs) = UnixStream::pair().map_err(|e| Error::system("connect a feed with its reader", e))?;
        let link = Box::new(SocketLink::new(Conn::new(theirs, MAX_REPLY), config.name.to_string()));
        let feed = ring::Reader::open(segment.as_fd(), page.as_fd(), sleeper, geometry, Start::Oldest, Some(link))?;
        self.readers.insert(BRIDGE, reader);
        let access = writer.access();
        let bridge = Bridge::start(config.name.clone(), feed, writer)?;
        self.handoff = Some(Handoff {
            config,
            names,
            access,
            bridge,
            feed: Conn::new(ours, MAX_REQUEST),
            over: false,
            asking: Vec::new(),
            readers: BTreeMap::new(),
            next_reader: 0,
            evicted: 0,
            pulse: Pulse::new(Instant::now()),
            low_use: LowUse::default(),
        });
        Ok(())
    }

    /// Listens to the bridge, if there is one.
    ///
    /// # Errors
    /// When the system gives no watch.
    pub(crate) fn watch_handoff(&self, connections: &mut Connections) -> Result<()> {
        match &self.handoff {
            Some(handoff) => connections.events.add(handoff.bridge.bell(), Token::Handoff(self.id), Interest::READ),
            None => Ok(()),
        }
    }

    /// The bridge has answers, or has ended.
    pub(crate) fn handoff_ready(&mut self, connections: &mut Connections) {
        let Some(handoff) = &mut self.handoff else { return };
        // Before the answers: what was answered is there when it has ended.
        let ended = handoff.bridge.has_ended();
        let answers = handoff.bridge.answers();
        let is_suspect = handoff.has_complained();
        handoff.asking.retain(|asking| !answers.iter().any(|(client, ..)| client == asking));
        if ended {
            handoff.over = true;
            // Nobody rings any more, which poll would show again and again.
            connections.events.remove(handoff.bridge.bell());
            self.refuse_asking(connections);
        }
        if is_suspect {
            self.suspect(connections, Instant::now());
        }
        for (client, asked, outcome) in answers {
            let answer = match outcome {
                Ok(done) => {
                    let channel = self.config.name.clone();
                    Ok(Done::Resize(Resized { channel, old: done.old, asked, new: done.new, pending: done.pending }))
                }
                Err(e @ Error::NoSpace { .. }) => Err(self.refusal(ErrorKind::NoSpace, &e)),
                Err(e @ Error::Locked { .. }) => Err(self.refusal(ErrorKind::Busy, &e)),
                Err(e) => Err(self.refusal(ErrorKind::Internal, &e)),
            };
            connections.reply(client, answer, Vec::new());
        }
    }

    /// Nobody will answer those who wait for another length.
    fn refuse_asking(&mut self, connections: &mut Connections) {
        let asking = self.handoff.as_mut().map(|handoff| std::mem::take(&mut handoff.asking)).unwrap_or_default();
        for client in asking {
            let why = "nobody hands messages over any more; the operation log says why (shmctl log)";
            connections.reply(client, Err(self.refusal(ErrorKind::Internal, &why)), Vec::new());
        }
    }

    fn refusal(&self, kind: ErrorKind, error: &dyn std::fmt::Display) -> Refusal {
        refusal(kind, format!("channel {}: {error}", self.config.name))
    }

    /// Makes a client a reader: it is told the objects' names, and gets a page for its signs of life.
    pub(super) fn attach_handoff(
        &mut self,
        connections: &mut Connections,
        client: ClientId,
        program: Option<&str>,
    ) -> Result<(), Refusal> {
        let Some(handoff) = &self.handoff else { return Ok(()) };
        let Some(peer) = connections.peer(client, program) else { return Ok(()) };
        self.admit(connections, &peer, handoff.readers.values(), handoff.config.max_readers)?;
        let number = handoff.next_reader + 1;
        let made = Reader::new(client, peer, 0).and_then(|(reader, _sleeper)| {
            let page = reader.page_fd()?;
            connections.bind(client, Role::Reader(self.id, number))?;
            Ok((reader, page))
        });
        let (reader, page) = made.map_err(|e| self.error(&e))?;
        let Some(handoff) = &mut self.handoff else { return Ok(()) };
        handoff.next_reader = number;
        let attached = HandoffAttached {
            reader: number,
            channel: handoff.config.name.clone(),
            objects: handoff.names.clone(),
            max_message: handoff.config.max_message,
            ack_timeout_ms: u64::try_from(handoff.config.ack_timeout.as_millis()).unwrap_or(u64::MAX),
        };
        if let Some(left_out) = self.lines.admit(Instant::now()) {
            about("attach", &self.config, number, &reader).left_out(left_out).info();
        }
        handoff.readers.insert(number, reader);
        connections.reply(client, Ok(Done::Handoff(attached)), vec![page]);
        Ok(())
    }

    /// A reader's connection is gone. What it had taken and not acknowledged is offered again in time.
    pub(super) fn detach_handoff(&mut self, number: u32) {
        let Some(reader) = self.handoff.as_mut().and_then(|handoff| handoff.readers.remove(&number)) else { return };
        if let Some(left_out) = self.lines.admit(Instant::now()) {
            detached(&self.config, number, &reader).left_out(left_out).info();
        }
    }

    /// Tells a reader to go. It has the objects open and is trusted to obey.
    pub(super) fn evict_handoff(
        &mut self,
        connections: &mut Connections,
        number: u32,
        by: &str,
    ) -> Result<(), Refusal> {
        let Some(handoff) = &mut self.handoff else { return Ok(()) };
        let Some(reader) = handoff.readers.get_mut(&number).filter(|reader| !reader.evicted) else {
            let why = super::no_reader(number, handoff.readers.keys());
            return self.refuse(ErrorKind::NoSuchReader, why);
        };
        let reason = format!("by user {by}, who administers the channel");
        reader.evicted = true;
        handoff.evicted += 1;
        if let Some(left_out) = self.lines.admit(Instant::now()) {
            let evicted = about("evict", &self.config, number, reader).text("by", printable(by)).reason(&reason);
            evicted.left_out(left_out).info();
        }
        let (client, peer) = (reader.client, reader.peer.clone());
        self.punish(&peer);
        connections.send(client, &ToReader::Evicted { reason }, Vec::new());
        connections.end(client);
        Ok(())
    }

    /// Changes the segment's length. The bridge answers.
    pub(super) fn resize_handoff(&mut self, connections: &mut Connections, client: ClientId, bytes: u64) {
        let Some(handoff) = &mut self.handoff else { return };
        let bounds = handoff.bounds();
        if bounds.fit(bytes).is_some() {
            handoff.asking.push(client);
            if !handoff.bridge.resize(client, bytes) {
                self.handoff_ready(connections);
            }
            return;
        }
        let (asked, min, max) = (Bytes(bytes), Bytes(bounds.min), Bytes(bounds.max));
        let message =
            format!("channel {}: asked {asked}, allowed {min} to {max}: the channel's min and max", self.config.name);
        connections.reply(client, Err(refusal(ErrorKind::OutOfRange, message)), Vec::new());
    }

    /// Tells the readers, and begins to end the bridge, which removes the objects. [`end_handoff`](Self::end_handoff) is the
    /// second half, when [`is_handing_over`](Self::is_handing_over) says no, or when it has been waited for long enough.
    pub(super) fn close_handoff(&mut self, connections: &mut Connections, reason: &str) {
        let Some(handoff) = &mut self.handoff else { return };
        for (number, reader) in std::mem::take(&mut handoff.readers) {
            connections.send(reader.client, &ToReader::Closing { reason: reason.to_owned() }, Vec::new());
            connections.end(reader.client);
            if let Some(left_out) = self.lines.admit(Instant::now()) {
                detached(&self.config, number, &reader).reason(reason).left_out(left_out).info();
            }
        }
        handoff.bridge.begin_stop();
    }

    /// Whether the bridge's end is still to be heard of.
    pub(crate) fn is_handing_over(&self) -> bool {
        self.handoff.as_ref().is_some_and(|handoff| !handoff.over)
    }

    /// Says what became of the objects. A bridge that is still there is left behind.
    pub(crate) fn end_handoff(&mut self, connections: &mut Connections) {
        self.handoff_ready(connections);
        self.refuse_asking(connections);
        let Some(handoff) = &mut self.handoff else { return };
        if handoff.bridge.has_ended() {
            return removed(&handoff.config, handoff.bridge.removed());
        }
        handoff.bridge.abandon();
        let Names { segment, avail, done } = &handoff.names;
        let stuck = operation("handoff-stuck").on(&self.config.name).text("segment", segment);
        let stuck = stuck.text("avail", avail).text("done", done);
        let reason = "its thread does not end and is left behind: a peer may sit in the mutex; the objects stay until it \
                      ends, or until the next shmd adopts them";
        stuck.reason(reason).warn();
        cleanup::note(segment, "a peer may sit in its mutex");
    }
}

/// What the objects of a handoff are made from, if the channel is one.
pub(super) fn settings(config: &ChannelConfig) -> Option<Settings> {
    Some(Settings {
        names: config.handoff.clone()?,
        mode: config.mode,
        gid: config.group.as_ref().map(|(_, gid)| *gid),
        capacity: config.capacity,
        max_capacity: config.max,
        max_message: config.max_message,
        drop_late: config.on_full != OnFull::Block,
        ack_timeout: config.ack_timeout,
    })
}

/// Logs that the objects of a handoff were removed, or that some could not be.
pub(super) fn removed(config: &ChannelConfig, outcome: Result<()>) {
    let Some(Names { segment, avail, done }) = &config.handoff else { return };
    match outcome {
        Ok(()) => {
            let gone = operation("unlink").on(&config.name).text("segment", segment);
            gone.text("avail", avail).text("done", done).info();
        }
        Err(e) => cleanup::failed(Some(&config.name), format_args!("{segment}, {avail} or {done}"), e),
    }
}

/// Begins the entry about a reader that is no longer attached.
fn detached(config: &ChannelConfig, number: u32, reader: &Reader) -> Operation {
    about("detach", config, number, reader).number("received", reader.page().line.received.load(Ordering::Relaxed))
}

/// Begins an entry about a reader.
fn about(event: &'static str, config: &ChannelConfig, number: u32, reader: &Reader) -> Operation {
    operation(event).on(&config.name).number("reader", number).peer(&reader.peer)
}
