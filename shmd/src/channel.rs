//! One channel's life: its segment, its readers, its writer.

mod admit;
mod close;
mod drain;
mod handoff;
mod healing;
mod helper;
mod moving;
mod name;
mod prepared;
mod reader;
mod reload;
mod resize;
mod segment;
mod watch;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use shm_proto::internal::control::Attached;
use shm_proto::internal::os::barrier;
use shm_proto::internal::os::reserve::Reservation;
use shm_proto::internal::ring::layout::{Place, control};
use shm_proto::internal::ring::link::ToReader;
use shm_proto::internal::ring::link::ToWriter;
use shm_proto::internal::ring::{Snapshot, Walk};
use shm_proto::{Done, Error, ErrorKind, Geometry, Refusal, Result};

pub(crate) use handoff::Handoff;
pub(crate) use prepared::Prepared;
pub(crate) use reader::Reader;
pub(crate) use segment::{Segment, this_process};

use self::drain::Late;
use crate::admission::Conduct;
use crate::client::Role;
use crate::config::{ChannelConfig, SourceKind};
use crate::connections::{Connections, refusal};
use crate::event_loop::{ChannelId, ClientId};
use crate::lease::Lease;
use crate::maintenance::Helper;
use crate::operation_log::operation;
use crate::peer::printable;
use crate::policy::{Bounds, LowUse};
use crate::rate_limit::RateLimit;
use crate::rates::History;
use crate::sizing::Sizing;
use crate::source::Report;
use moving::{Former, LastHolder};

/// Lines a second in the log about what a channel's peers do.
const LINES: u32 = 200;
/// A channel.
#[derive(Debug)]
pub(crate) struct Channel {
    id: ChannelId,
    config: ChannelConfig,
    geometry: Geometry,
    segment: Segment,
    /// Segments that the channel has left and that readers may still be in, oldest first; and how many it has left in all.
    formers: Vec<Former>,
    moves: u64,
    /// Who was lent the role last.
    last_holder: Option<LastHolder>,
    /// Where the segment begins, and what it said when it was last found to be right.
    began: Place,
    trusted: Option<Snapshot>,
    /// What is wrong with the segment, as long as there is no other.
    broken: Option<String>,
    /// A look at all records that is under way, and when the last one began.
    inspection: Option<Walk>,
    inspected: Option<Instant>,
    /// The source is to be started again when its thread has ended.
    resumes: bool,
    sizing: Sizing,
    reservation: Option<(Reservation, Instant)>,
    readers: BTreeMap<u32, Reader>,
    next_reader: u32,
    /// Whose readers were evicted.
    conduct: Conduct,
    lease: Option<Lease>,
    /// How the source is doing, or did.
    fed: Option<Arc<Report>>,
    /// Shrinks the channel while nobody writes it.
    helper: Option<Helper>,
    /// When a helper was last started.
    helped: Option<Instant>,
    /// Messages are handed over one at a time; the rest of this is its feed.
    handoff: Option<Handoff>,
    evicted: u64,
    resizes: u64,
    history: History,
    low_use: LowUse,
    /// At the end of a source: the readers that have not read everything yet.
    late: HashMap<u32, Late>,
    own_user: String,
    /// Why it is going to close, or has closed.
    farewell: Option<String>,
    /// Everybody was told that it is over.
    closed: bool,
    lines: RateLimit,
    overflow_lines: RateLimit,
}

impl Channel {
    /// Makes the channel from its objects.
    ///
    /// # Errors
    /// When the system gives no descriptors or no thread.
    pub(crate) fn create(id: ChannelId, prepared: Prepared, user: &str) -> Result<Self> {
        let Prepared { configured, config, segment, geometry, handoff } = prepared;
        let mut channel = Self {
            id,
            sizing: Sizing::new(Bounds { min: config.min, max: config.max }, config.capacity),
            config,
            geometry,
            segment,
            formers: Vec::new(),
            moves: 0,
            last_holder: None,
            began: Place::default(),
            trusted: None,
            broken: None,
            inspection: None,
            inspected: None,
            resumes: false,
            reservation: None,
            readers: BTreeMap::new(),
            next_reader: 0,
            conduct: Conduct::default(),
            lease: None,
            fed: None,
            helper: None,
            helped: None,
            handoff: None,
            evicted: 0,
            resizes: 0,
            history: History::new(Instant::now()),
            low_use: LowUse::default(),
            late: HashMap::new(),
            own_user: user.to_owned(),
            farewell: None,
            closed: false,
            lines: RateLimit::new(LINES),
            overflow_lines: RateLimit::new(1),
        };
        channel.start_handoff(configured, handoff)?;
        Ok(channel)
    }

    /// Its place in the daemon's list.
    pub(crate) fn id(&self) -> ChannelId {
        self.id
    }

    /// The configuration.
    pub(crate) fn config(&self) -> &ChannelConfig {
        &self.config
    }

    /// The size and what is being done about it.
    pub(crate) fn sizing(&self) -> &Sizing {
        &self.sizing
    }

    /// The shared memory object.
    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Who reads, by number.
    pub(crate) fn readers(&self) -> &BTreeMap<u32, Reader> {
        &self.readers
    }

    /// Who writes.
    pub(crate) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// What is different where messages are handed over.
    pub(crate) fn handoff(&self) -> Option<&Handoff> {
        self.handoff.as_ref()
    }

    /// How many readers are attached, as far as the daemon knows.
    pub(crate) fn reader_count(&self) -> usize {
        self.handoff.as_ref().map_or(self.readers.len(), Handoff::reader_count)
    }

    /// Memory that it takes in `/dev/shm`, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.segment.memory() + self.former_memory() + self.handoff.as_ref().map_or(0, Handoff::memory)
    }

    /// Readers evicted so far, by the writer or an administrator.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Changes of capacity that took effect.
    pub(crate) fn resizes(&self) -> u64 {
        self.resizes
    }

    /// The daemon's own user.
    pub(crate) fn own_user(&self) -> &str {
        &self.own_user
    }

    /// Whether standard input feeds it, or did.
    pub(crate) fn is_fed_from_stdin(&self) -> bool {
        self.config.source == SourceKind::Stdin
    }

    /// How the source is doing, or did, if there is one.
    pub(crate) fn fed(&self) -> Option<&Report> {
        self.fed.as_deref()
    }

    /// Whether figures move: somebody writes or reads.
    pub(crate) fn is_in_use(&self) -> bool {
        let read = self.handoff.as_ref().map_or(!self.readers.is_empty(), Handoff::is_in_use);
        read || self.has_writer()
    }

    /// Whether [`tick`](Self::tick) has something to do: figures move, or there is memory to give back some day.
    pub(crate) fn wants_ticks(&self) -> bool {
        let large = self.sizing.capacity() > self.config.min || self.handoff.as_ref().is_some_and(Handoff::is_large);
        self.is_in_use()
            || self.broken.is_some()
            || (self.config.shrink_after.is_some() && large)
            || self.sizing.shrinking().is_some()
    }

    /// Whether somebody other than the daemon for its own purposes holds the writer role.
    pub(crate) fn has_writer(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| !lease.is_own())
    }

    /// Bytes that the slowest reader in good standing has not read yet.
    pub(crate) fn used(&self, shot: &Snapshot) -> u64 {
        let standing = self.readers.values().filter(|reader| !reader.evicted);
        let slowest = standing.filter_map(Reader::cursor).min().unwrap_or(shot.tail.pos);
        shot.tail.pos.saturating_sub(slowest.max(shot.floor.pos)).min(self.config.max)
    }

    fn error(&self, error: &Error) -> Refusal {
        refusal(ErrorKind::Internal, format!("channel {}: {error}", self.config.name))
    }

    fn refuse<T>(&self, kind: ErrorKind, why: impl AsRef<str>) -> Result<T, Refusal> {
        Err(refusal(kind, format!("channel {}: {}", self.config.name, why.as_ref())))
    }

    /// Makes a client a reader, and answers it.
    ///
    /// # Errors
    /// The refusal to send instead.
    pub(crate) fn attach(
        &mut self,
        connections: &mut Connections,
        client: ClientId,
        program: Option<&str>,
    ) -> Result<(), Refusal> {
        if self.handoff.is_some() {
            return self.attach_handoff(connections, client, program);
        }
        let Some(peer) = connections.peer(client, program) else { return Ok(()) };
        self.admit(connections, &peer, self.readers.values(), self.config.max_readers)?;
        self.check_for(connections)?;
        let number = self.next_reader + 1;
        let made = Reader::new(client, peer, self.moves).and_then(|(reader, sleeper)| {
            let fds = vec![self.segment.for_reader()?, reader.page_fd()?, sleeper];
            connections.bind(client, Role::Reader(self.id, number))?;
            Ok((reader, fds))
        });
        let (reader, fds) = made.map_err(|e| self.error(&e))?;
        self.next_reader = number;
        if let Some(left_out) = self.lines.admit(Instant::now()) {
            let joined = operation("attach").on(&self.config.name).number("reader", number);
            joined.peer(&reader.peer).left_out(left_out).info();
        }
        self.readers.insert(number, reader);
        self.tell(connections, ToWriter::ReaderJoined { reader: number });
        // The writer looks at the generation without a barrier. After this one, at most the record that it is at was
        // begun without knowing the reader; the reader chooses its start after the answer.
        barrier::heavy();
        let attached = Attached { reader: number, geometry: self.geometry.clone() };
        connections.reply(client, Ok(Done::Attach(attached)), fds);
        Ok(())
    }

    /// A reader's connection is gone.
    pub(crate) fn detach(&mut self, connections: &mut Connections, number: u32) {
        if self.handoff.is_some() {
            return self.detach_handoff(number);
        }
        let Some(reader) = self.readers.remove(&number) else { return };
        if let Some(left_out) = self.lines.admit(Instant::now()) {
            close::detached(&self.config, number, &reader).left_out(left_out).info();
        }
        if !reader.evicted {
            self.tell(connections, ToWriter::ReaderLeft { reader: number });
        }
        // The writer may sleep for this very reader.
        reader.release_writer();
        self.settle_segment();
        self.forget_formers();
        self.late.remove(&number);
    }

    /// Evicts a reader for an administrator.
    ///
    /// # Errors
    /// When there is no reader of that number.
    pub(crate) fn evict(&mut self, connections: &mut Connections, number: u32, by: &str) -> Result<(), Refusal> {
        if self.handoff.is_some() {
            return self.evict_handoff(connections, number, by);
        }
        if !self.readers.contains_key(&number) {
            return self.refuse(ErrorKind::NoSuchReader, no_reader(number, self.readers.keys()));
        }
        self.mark_evicted(connections, number, &format!("by user {by}, who administers the channel"), &printable(by));
        Ok(())
    }

    fn mark_evicted(&mut self, connections: &mut Connections, number: u32, reason: &str, by: &str) {
        let Some(reader) = self.readers.get_mut(&number).filter(|reader| !reader.evicted) else { return };
        reader.evicted = true;
        // The line first: a reader that sees the bit finds the reason on its connection.
        connections.send(reader.client, &ToReader::Evicted { reason: reason.to_owned() }, Vec::new());
        reader.signal(control::EVICTED);
        self.evicted += 1;
        let peer = reader.peer.clone();
        let wait = self.punish(&peer);
        if let Some(left_out) = self.lines.admit(Instant::now()) {
            let evicted = operation("evict").on(&self.config.name).number("reader", number).peer(&peer);
            let evicted = evicted.text("by", by).reason(reason);
            let evicted = match wait {
                Some(wait) => evicted.number("user_waits_ms", wait.as_millis()),
                None => evicted,
            };
            evicted.left_out(left_out).info();
        }
        if by != "writer" {
            self.tell(connections, ToWriter::ReaderLeft { reader: number });
        }
    }

    /// Once a second while the channel is in use.
    pub(crate) fn tick(&mut self, connections: &mut Connections, now: Instant) {
        if !self.retry_healing(connections, now) {
            return;
        }
        let shot = match self.check(connections) {
            Ok(shot) => shot,
            Err(e) => {
                if let Some(left_out) = self.overflow_lines.admit(now) {
                    operation("broken").on(&self.config.name).reason(e).left_out(left_out).warn();
                }
                return;
            }
        };
        // Also of a channel at rest: the tick after its end takes the last figures.
        self.note(now, &shot);
        self.look_for_stalled(now, &shot);
        self.forget_formers();
        if self.lease.as_ref().is_some_and(Lease::has_lines) {
            self.send_lines(connections);
        }
        if !self.wants_ticks() {
            return;
        }
        self.settle_segment();
        self.resume_shrink(connections, now);
        let Some(after) = self.config.shrink_after else { return };
        let (bounds, capacity, used) = (self.sizing.bounds(), self.sizing.capacity(), self.used(&shot));
        // Where nobody can carry it out now, the time for it has not come.
        if self.may_shrink(connections)
            && let Some(target) = self.low_use.sample(now, bounds, capacity, used, after)
        {
            self.shrink_unused(connections, now, target);
        }
        if let Some(handoff) = &mut self.handoff {
            handoff.give_back(now, after);
        }
    }
}

/// What there is instead of a reader.
fn no_reader<'a>(number: u32, present: impl Iterator<Item = &'a u32>) -> String {
    match present.map(u32::to_string).collect::<Vec<_>>().as_slice() {
        [] => format!("no reader {number}; it has none"),
        numbers => format!("no reader {number}; readers: {}", numbers.join(", ")),
    }
}
