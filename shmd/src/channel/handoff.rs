//! A handoff channel: messages are handed over one at a time, by the handoff protocol.
//!
//! ```text
//! source or lent program -> feed, a ring (ack: publishing returns when the thread is through) -> thread -> segment -> C programs
//! ```
//!
//! The feed's only reader is the [`thread`]; what peers see, readers and sizes and counts, is the handoff's. What its methods are
//! for is said in [`Channel`](super::Channel).

mod admission;
mod journal;
mod stat;
mod thread;
mod watch;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use shm_proto::internal::client::SocketLink;
use shm_proto::internal::control::{Conn, HandoffAttached, MAX_REPLY, MAX_REQUEST, Resized};
use shm_proto::internal::handoff::{Access, Counters, Names, Origin, Settings, Writer};
use shm_proto::internal::ring;
use shm_proto::{
    Bytes, ChannelName, Done, Error, ErrorKind, HandoffError, OnFull, Refusal, Result, Start, SystemError,
};

use super::eviction::{Action, By};
use super::reader::{Reader, To};
use super::readers::Readers;
use super::reload::{Outcome, merge};
use super::ring::Ring;
use crate::cleanup;
use crate::client::Role;
use crate::config::ChannelConfig;
use crate::connections::{Connections, channel_refusal};
use crate::event_loop::{ClientId, Interest, Token};
use crate::liveness::Pulse;
use crate::operation_log::{LogEvent, Operation, operation};
use crate::peer::Peer;
use crate::policy::{Bounds, LowUse, PAGE};
use crate::rates::{History, Totals};
use journal::FeedNotes;
use thread::HandoffThread;

/// The feed's capacity at the start and at rest, unless a message needs more.
const FEED: u64 = 64 * Bytes::KIB;
/// Publishing waits for a reader as long as it takes.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// The thread's number among the feed's readers.
const THREAD: u32 = 0;

/// A channel whose messages are handed over.
#[derive(Debug)]
pub(crate) struct HandoffChannel {
    config: ChannelConfig,
    names: Names,
    access: Access,
    feed: Ring,
    thread: HandoffThread,
    /// The thread has ended, and the event that says so has come.
    over: bool,
    /// Clients that wait for the thread to change the length.
    asking: Vec<ClientId>,
    /// Those that the daemon knows of; programs in C come and go unseen.
    readers: Readers,
    /// Whether somebody acknowledges what is on offer.
    pulse: Pulse,
    low_use: LowUse,
    history: History,
}

/// The configuration of the ring that feeds a handoff channel. It may be a page larger than the segment where messages are handed
/// over, because the largest message leaves more of a ring than of that segment.
pub(super) fn feed(config: &ChannelConfig) -> ChannelConfig {
    let min = FEED.min(config.max);
    ChannelConfig {
        capacity: min,
        min,
        max: config.max + PAGE,
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

impl HandoffChannel {
    /// Starts to hand over what comes through the feed.
    ///
    /// # Errors
    /// When the system gives no descriptors or no thread.
    pub(super) fn start(
        config: ChannelConfig,
        names: Names,
        mut writer: Writer,
        mut feed: Ring,
        user: &str,
    ) -> Result<Self> {
        let created =
            operation(LogEvent::Create).on(&config.name).text("mode", "handoff").text("segment", &names.segment);
        let created = created.text("avail", &names.avail).text("done", &names.done);
        let created = created.number("capacity", writer.capacity()).number("max", config.max);
        match writer.origin() {
            Origin::Created => created.text("origin", "created"),
            Origin::Replaced => created.text("origin", "replaced"),
            Origin::Adopted { pending: None } => created.text("origin", "adopted"),
            Origin::Adopted { pending: Some(len) } => created.text("origin", "adopted").number("on_offer_bytes", len),
        }
        .info();
        let (pid, uid) = (std::process::id(), nix::unistd::geteuid().as_raw());
        let peer = Peer { pid, uid, user: user.to_owned(), program: "shmd".to_owned() };
        let (ours, theirs) = UnixStream::pair().map_err(|e| Error::system("connect a feed with its reader", e))?;
        let (reader, sleeper) = Reader::new(To::Thread(Conn::new(ours, MAX_REQUEST)), peer, feed.segments().moves())?;
        let (segment, page) = (feed.segments().current().for_reader()?, reader.page_fd()?);
        let geometry = feed.segments().geometry().clone();
        let link = Box::new(SocketLink::new(Conn::new(theirs, MAX_REPLY)));
        let input = ring::Reader::open(segment.as_fd(), page.as_fd(), sleeper, geometry, Start::Oldest, Some(link))?;
        feed.readers_mut().add(THREAD, reader);
        let (journal, entry) = FeedNotes::of(&mut feed)?;
        writer.keep_journal(Box::new(journal), entry);
        let now = Instant::now();
        let Counters { messages, bytes, .. } = writer.counters();
        Ok(Self {
            access: writer.access(),
            thread: HandoffThread::start(config.name.clone(), input, writer)?,
            over: false,
            config,
            names,
            asking: Vec::new(),
            readers: Readers::after(feed.readers().evicted()),
            feed,
            pulse: Pulse::new(now),
            low_use: LowUse::default(),
            history: History::new(Totals { at: now, messages, bytes }),
        })
    }

    pub(super) fn config(&self) -> &ChannelConfig {
        &self.config
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.feed
    }

    pub(super) fn ring_mut(&mut self) -> &mut Ring {
        &mut self.feed
    }

    /// The daemon is ready: what it has adopted goes with it.
    pub(super) fn keep(&mut self) {
        self.feed.keep();
        self.thread.keep();
    }

    pub(super) fn reader_count(&self) -> usize {
        self.readers.len()
    }

    /// The limits of the segment's length.
    fn bounds(&self) -> Bounds {
        Bounds { min: self.config.min, max: self.config.max }
    }

    pub(super) fn watch(&self, connections: &mut Connections) -> Result<()> {
        connections.events.add(self.thread.bell(), Token::Handoff(self.feed.id()), Interest::READ)
    }

    /// The thread has answers, or has ended.
    pub(super) fn ready(&mut self, connections: &mut Connections) {
        // Before the answers: what was answered is there when it has ended.
        let ended = self.thread.has_ended();
        let answers = self.thread.answers();
        self.asking.retain(|asking| !answers.iter().any(|(client, ..)| client == asking));
        if ended {
            self.over = true;
            // Nobody rings any more, which poll would show again and again.
            connections.events.remove(self.thread.bell());
            self.refuse_asking(connections);
        }
        if self.feed.readers_mut().have_complained() {
            self.feed.suspect(connections, Instant::now());
        }
        for (client, asked, outcome) in answers {
            let answer = match outcome {
                Ok(done) => {
                    let mut resized = Resized::new(self.config.name.clone());
                    (resized.old, resized.asked, resized.new) = (done.old, asked, done.new);
                    resized.pending = done.pending;
                    Ok(Done::Resize(resized))
                }
                Err(HandoffError::NoSpace { reason, .. }) => Err(self.refusal(ErrorKind::NoSpace, &reason)),
                Err(e @ HandoffError::Locked { .. }) => Err(self.refusal(ErrorKind::Busy, &e)),
                Err(e) => Err(self.refusal(ErrorKind::Internal, &e)),
            };
            connections.reply(client, answer, Vec::new());
        }
    }

    /// Nobody will answer those who wait for another length.
    fn refuse_asking(&mut self, connections: &mut Connections) {
        for client in std::mem::take(&mut self.asking) {
            let why = "nobody hands messages over any more; the operation log says why (shmctl log)";
            connections.reply(client, Err(self.refusal(ErrorKind::Internal, &why)), Vec::new());
        }
    }

    fn refusal(&self, kind: ErrorKind, why: &dyn std::fmt::Display) -> Refusal {
        channel_refusal(&self.config.name, kind, why)
    }

    /// Makes a client a reader: it is told the objects' names, and gets a page for its signs of life.
    ///
    /// # Errors
    /// The refusal to send instead.
    pub(super) fn attach(
        &mut self,
        connections: &mut Connections,
        client: ClientId,
        program: Option<&str>,
    ) -> Result<(), Refusal> {
        let Some(peer) = connections.peer(client, program) else { return Ok(()) };
        let number = self.readers.admit(connections, &self.config.name, &peer, self.config.max_readers)?;
        let made = Reader::new(To::Client(client), peer, 0).and_then(|(reader, _sleeper)| {
            let page = reader.page_fd()?;
            connections.bind(client, Role::Reader(self.feed.id(), number))?;
            Ok((reader, page))
        });
        let (reader, page) = made.map_err(|e| self.feed.internal(&e))?;
        let mut attached = HandoffAttached::new(number, self.config.name.clone(), self.names.clone());
        attached.max_message = self.config.max_message;
        attached.content = self.config.declared.content.clone();
        attached.ack_timeout_ms = u64::try_from(self.config.ack_timeout.as_millis()).unwrap_or(u64::MAX);
        if let Some(left_out) = self.feed.line() {
            reader.about(LogEvent::Attach, &self.config.name, number).left_out(left_out).info();
        }
        self.readers.add(number, reader);
        connections.reply(client, Ok(Done::Handoff(attached)), vec![page]);
        Ok(())
    }

    /// A reader's connection is gone. What it had taken and not acknowledged is offered again in time.
    pub(super) fn detach(&mut self, _: &mut Connections, number: u32) {
        let Some(reader) = self.readers.remove(number) else { return };
        if let Some(left_out) = self.feed.line() {
            self.detached(number, &reader).left_out(left_out).info();
        }
    }

    /// Begins the entry about a reader that is no longer attached.
    fn detached(&self, number: u32, reader: &Reader) -> Operation {
        reader.about(LogEvent::Detach, &self.config.name, number).number("received", reader.received())
    }

    /// Tells a reader to go. It has the objects open and is trusted to obey.
    ///
    /// # Errors
    /// When there is no reader of that number.
    pub(super) fn evict(&mut self, connections: &mut Connections, number: u32, by: &str) -> Result<(), Refusal> {
        let reason = format!("by user {by}, who administers the channel");
        let by = By::User(by);
        let actions = self.readers.evict(number, by);
        if actions.is_empty() {
            return Err(self.readers.no_such(&self.config.name, number));
        }
        self.feed.count_eviction();
        for action in actions {
            match action {
                Action::Tell => self.readers.tell_evicted(connections, number, &reason),
                // No reader of a handoff holds the channel up for long.
                Action::Penalise => _ = self.readers.penalise(number, None),
                Action::Log => self.log_eviction(number, &reason, by),
                Action::StopServing => self.let_go(connections, number),
            }
        }
        Ok(())
    }

    fn log_eviction(&mut self, number: u32, reason: &str, by: By<'_>) {
        let Some(left_out) = self.feed.line() else { return };
        let Some(reader) = self.readers.get(number) else { return };
        let entry = reader.about(LogEvent::Evict, &self.config.name, number).text("by", by.name());
        entry.reason(reason).left_out(left_out).info();
    }

    fn let_go(&self, connections: &mut Connections, number: u32) {
        if let Some(reader) = self.readers.get(number) {
            reader.let_go(connections);
        }
    }

    /// Changes the segment's length. The thread answers.
    pub(super) fn resize(&mut self, connections: &mut Connections, client: ClientId, bytes: u64) {
        let bounds = self.bounds();
        if bounds.fit(bytes).is_some() {
            self.asking.push(client);
            if !self.thread.resize(client, bytes) {
                self.ready(connections);
            }
            return;
        }
        let (asked, min, max) = (Bytes(bytes), Bytes(bounds.min), Bytes(bounds.max));
        let why = format!("asked {asked}, allowed {min} to {max}: the channel's min and max");
        connections.reply(client, Err(self.refusal(ErrorKind::OutOfRange, &why)), Vec::new());
    }

    /// Takes over what a new configuration of this channel has to say. The feed has no more of it than who may do what.
    pub(super) fn reconfigure(&mut self, _: &mut Connections, new: ChannelConfig) -> Outcome {
        let dressed = (new.mode, &new.group) == (self.config.mode, &self.config.group);
        let gid = new.group.as_ref().map(|(_, gid)| *gid);
        let refused = if dressed { None } else { self.access.set(new.mode, gid).err().map(|e| e.to_string()) };
        let (next, outcome) = merge(&self.config, new, refused);
        if (next.on_full, next.ack_timeout) != (self.config.on_full, self.config.ack_timeout) {
            self.thread.set_policy(next.on_full, next.ack_timeout);
        }
        self.feed.set_config(ChannelConfig {
            shrink_after: next.shrink_after,
            stalled_after: next.stalled_after,
            declared: next.declared.clone(),
            read: next.read.clone(),
            write: next.write.clone(),
            admin: next.admin.clone(),
            ..self.feed.config().clone()
        });
        self.config = next;
        outcome
    }

    /// Tells the readers, and begins to end the thread, which removes the objects. [`end`](Self::end) is the second half, when
    /// the handoff [is over](Self::is_over), or when that has been waited for long enough. The second time does nothing.
    pub(super) fn close(&mut self, connections: &mut Connections) {
        // Before the feed closes, whose reader it is and stays until it is through.
        self.thread.begin_stop();
        let Some(reason) = self.feed.close_readers(connections) else { return };
        self.readers.close(connections, &reason);
        for (number, reader) in self.readers.take() {
            if let Some(left_out) = self.feed.line() {
                self.detached(number, &reader).reason(&reason).left_out(left_out).info();
            }
        }
        self.feed.close_writer(connections);
    }

    /// Whether the thread's end was heard of.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Says what became of the objects. A thread that is still there is left behind.
    pub(super) fn end(&mut self, connections: &mut Connections) {
        self.ready(connections);
        self.refuse_asking(connections);
        if self.thread.has_ended() {
            return removed(&self.config.name, &self.names, self.thread.removed());
        }
        self.thread.abandon();
        let Names { segment, avail, done } = &self.names;
        let stuck = operation(LogEvent::HandoffStuck).on(&self.config.name).text("segment", segment);
        let stuck = stuck.text("avail", avail).text("done", done);
        let reason = "its thread does not end and is left behind: a peer may sit in the mutex; the objects stay until it \
                      ends, or until the next shmd adopts them";
        stuck.reason(reason).warn();
        cleanup::note(segment, "a peer may sit in its mutex");
    }
}

/// What the objects of a handoff are made from.
pub(super) fn settings(config: &ChannelConfig, names: Names) -> Settings {
    Settings {
        names,
        mode: config.mode,
        gid: config.group.as_ref().map(|(_, gid)| *gid),
        capacity: config.capacity,
        max_capacity: config.max,
        max_message: config.max_message,
        drop_late: config.on_full != OnFull::Block,
        ack_timeout: config.ack_timeout,
        keep_offer: true,
    }
}

/// Logs that the objects of a handoff were removed, or that some could not be.
pub(super) fn removed(channel: &ChannelName, names: &Names, outcome: Result<(), SystemError>) {
    let Names { segment, avail, done } = names;
    match outcome {
        Ok(()) => {
            let gone = operation(LogEvent::Unlink).on(channel).text("segment", segment);
            gone.text("avail", avail).text("done", done).info();
        }
        Err(e) => cleanup::failed(Some(channel), format_args!("{segment}, {avail} or {done}"), e),
    }
}
