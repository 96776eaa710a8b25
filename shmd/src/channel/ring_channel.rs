//! A ring channel: every reader gets every message, in place. What its methods are for is said in [`Channel`](super::Channel).

use std::os::fd::OwnedFd;
use std::time::Instant;

use shm_proto::internal::control::Attached;
use shm_proto::internal::control::stat::{ChannelStat, Mode, ReaderStat, Right, Summary};
use shm_proto::internal::ring::Snapshot;
use shm_proto::{Done, Error, ErrorKind, Refusal};

use super::eviction::By;
use super::reader::{Reader, To, page_id};
use super::reload::{Outcome, merge};
use super::ring::Ring;
use crate::admission::Paced;
use crate::client::Role;
use crate::config::{ChannelConfig, Created};
use crate::connections::{Connections, channel_refusal};
use crate::event_loop::ClientId;
use crate::operation_log::{LogEvent, Operation};
use crate::rates::{History, Totals};

/// A channel whose readers read its ring.
#[derive(Debug)]
pub(crate) struct RingChannel {
    ring: Ring,
    history: History,
}

impl RingChannel {
    /// A ring that nobody is attached to.
    pub(super) fn new(ring: Ring) -> Self {
        let now = Instant::now();
        let found = ring.snapshot().map_or(Totals { at: now, messages: 0, bytes: 0 }, |shot| totals(now, &shot));
        Self { ring, history: History::new(found) }
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    pub(super) fn ring_mut(&mut self) -> &mut Ring {
        &mut self.ring
    }

    pub(super) fn keep(&mut self) {
        self.ring.keep();
    }

    pub(super) fn config(&self) -> &ChannelConfig {
        self.ring.config()
    }

    pub(super) fn reader_count(&self) -> usize {
        self.ring.readers().len()
    }

    pub(super) fn memory(&self) -> u64 {
        self.ring.segments().memory()
    }

    pub(super) fn wants_ticks(&self) -> bool {
        self.reader_count() > 0 || self.ring.has_writer() || self.ring.is_unsettled()
    }

    pub(super) fn attach(
        &mut self,
        connections: &mut Connections,
        client: ClientId,
        program: Option<&str>,
    ) -> Result<(), Refusal> {
        let Some(peer) = connections.peer(client, program) else { return Ok(()) };
        let config = self.ring.config();
        let number = self.ring.readers().admit(connections, &config.name, &peer, config.max_readers)?;
        self.ring.check_for(connections)?;
        let made = Reader::new(To::Client(client), peer, self.ring.segments().moves()).and_then(|(reader, sleeper)| {
            let fds = vec![self.ring.segments().current().for_reader()?, reader.page_fd()?, sleeper];
            connections.bind(client, Role::Reader(self.ring.id(), number))?;
            Ok((reader, fds))
        });
        let (reader, fds) = made.map_err(|e| self.ring.internal(&e))?;
        if let Some(left_out) = self.ring.line() {
            reader.about(LogEvent::Attach, &self.ring.config().name, number).left_out(left_out).info();
        }
        self.ring.attached(connections, number, reader);
        let mut attached = Attached::new(number, self.ring.segments().geometry().clone());
        attached.content = self.config().declared.content.clone();
        connections.reply(client, Ok(Done::Attach(attached)), fds);
        Ok(())
    }

    /// Takes a reader of a dead daemon in again, at the place where it stands.
    pub(super) fn resume(
        &mut self,
        connections: &mut Connections,
        client: ClientId,
        program: Option<&str>,
        (instance, made, page): (u64, u32, OwnedFd),
    ) -> Result<(), Refusal> {
        let Some(peer) = connections.peer(client, program) else { return Ok(()) };
        // Before anything is compared: the segment may be replaced by that.
        self.ring.check_for(connections)?;
        let config = self.ring.config();
        connections.pace(&config.name, peer.uid, Paced::Attach)?;
        let refuse = |why: &str| {
            let why = format!("{why}; attach again to go on");
            Err(channel_refusal(&self.ring.config().name, ErrorKind::NoSuchReader, why))
        };
        let number = if self.ring.expects(page_id(&page).inode) {
            // It had its place before those that came in the meantime, and before `max_readers` was lowered.
            self.ring.readers().next_number()
        } else {
            self.ring.readers().place(&config.name, &peer, config.max_readers)?
        };
        let segments = self.ring.segments();
        let Some(count) = segments.way_from(instance) else {
            return refuse("the segment that the reader was in is no more");
        };
        let ways = segments.last_moves(count).map_err(|e| self.ring.internal(&e))?;
        let Some(lines) = ways else { return refuse("the reader is more than one segment behind") };
        if self.ring.readers().have(page_id(&page)) {
            return refuse("another reader has this page");
        }
        let joined = segments.moves() - count as u64;
        let resumed = Reader::resumed(To::Client(client), peer, joined, page);
        let (reader, sleeper) = match resumed {
            Err(Error::Protocol(why)) => return refuse(&why.to_string()),
            resumed => resumed.map_err(|e| self.ring.internal(&e))?,
        };
        if reader.is_through() {
            let refused = refuse("the reader was evicted, or the channel was closing");
            // Nothing is kept for it any more.
            self.ring.one_is_back(connections, reader.page_id().inode);
            return refused;
        }
        if !self.ring.expects(reader.page_id().inode) {
            // Anybody can make a page, and have this one after an eviction.
            self.ring.readers().check_conduct(&self.ring.config().name, reader.peer())?;
        }
        connections.bind(client, Role::Reader(self.ring.id(), number)).map_err(|e| self.ring.internal(&e))?;
        // Nobody writes to the segments before this one any more: what the reader finds there it may believe without this mark.
        reader.set_moves(made, count);
        if let Some(left_out) = self.ring.line() {
            reader.about(LogEvent::Resume, &self.ring.config().name, number).left_out(left_out).info();
        }
        self.ring.came_back(connections, number, reader);
        let mut attached = Attached::new(number, self.ring.segments().geometry().clone());
        attached.content = self.config().declared.content.clone();
        connections.reply(client, Ok(Done::Attach(attached)), vec![sleeper]);
        self.ring.show_way(connections, number, lines);
        Ok(())
    }

    pub(super) fn detach(&mut self, connections: &mut Connections, number: u32) {
        let Some(reader) = self.ring.readers_mut().remove(number) else { return };
        if let Some(left_out) = self.ring.line() {
            self.detached(number, &reader).left_out(left_out).info();
        }
        self.ring.detached(connections, number, &reader);
    }

    /// Begins the entry about a reader that is no longer attached, with what it has received and lost.
    fn detached(&self, number: u32, reader: &Reader) -> Operation {
        let left = reader.about(LogEvent::Detach, &self.ring.config().name, number);
        left.number("received", reader.received()).number("lost", reader.lost())
    }

    pub(super) fn evict(&mut self, connections: &mut Connections, number: u32, by: &str) -> Result<(), Refusal> {
        if self.ring.readers().get(number).is_none() {
            return Err(self.ring.readers().no_such(&self.ring.config().name, number));
        }
        self.ring.evict(connections, number, &format!("by user {by}, who administers the channel"), By::User(by));
        Ok(())
    }

    pub(super) fn resize(&mut self, connections: &mut Connections, client: ClientId, bytes: u64) {
        self.ring.resize(connections, client, bytes);
    }

    pub(super) fn tick(&mut self, connections: &mut Connections, now: Instant) {
        let Some(shot) = self.ring.look_after_segment(connections, now) else { return };
        // Also of a channel at rest: the tick after its end takes the last figures.
        self.history.note(totals(now, &shot));
        self.ring.look_after_readers(now, &shot);
        self.ring.look_after_writer(connections, now, &shot);
        if self.wants_ticks() {
            self.ring.look_after_size(connections, now, &shot);
        }
    }

    pub(super) fn close(&mut self, connections: &mut Connections) {
        let Some(reason) = self.ring.close_readers(connections) else { return };
        for (number, reader) in self.ring.readers_mut().take() {
            if let Some(left_out) = self.ring.line() {
                self.detached(number, &reader).reason(&reason).left_out(left_out).info();
            }
        }
        self.ring.close_writer(connections);
    }

    pub(super) fn reconfigure(&mut self, connections: &mut Connections, new: ChannelConfig) -> Outcome {
        let old = self.ring.config();
        let refused = if (new.mode, &new.group) == (old.mode, &old.group) {
            None
        } else {
            let gid = new.group.as_ref().map(|(_, gid)| *gid);
            self.ring.segments().current().set_access(new.mode, gid).err().map(|e| e.to_string())
        };
        let (next, outcome) = merge(old, new, refused);
        self.ring.set_config(next);
        self.ring.tell_policy(connections);
        outcome
    }

    pub(super) fn summary(&self, allowed: Vec<Right>) -> Summary {
        let mut summary = Summary::new(self.config().name.clone(), Mode::Ring, self.ring.writer_name());
        summary.capacity = self.ring.size().capacity();
        summary.readers = u32::try_from(self.reader_count()).unwrap_or(u32::MAX);
        summary.allowed = allowed;
        summary.created = self.config().created.as_deref().map(Created::shown);
        summary.content = self.config().declared.content.clone();
        summary
    }

    /// Everything about it. Figures that a reader or a lent writer keeps itself are shown as it reports them, clamped to what is
    /// possible.
    pub(super) fn stat(&self, shot: &Snapshot, memory_total: u64) -> ChannelStat {
        let averages = self.history.averages(totals(Instant::now(), shot));
        let (ring, config) = (&self.ring, self.ring.config());
        let capacity = ring.size().capacity();
        let mut stat = ChannelStat::new(config.name.clone(), Mode::Ring, ring.segments().current().name().to_owned());
        stat.created = config.created.as_deref().map(Created::shown);
        stat.content = config.declared.content.clone();
        stat.on_full = config.on_full.into();
        stat.capacity = capacity;
        stat.min = config.min;
        stat.max = config.max;
        stat.reserved = capacity;
        stat.memory = self.memory();
        stat.memory_total = memory_total;
        stat.pending = ring.size().pending();
        stat.used = ring.used(shot);
        stat.retained = shot.tail.pos.saturating_sub(shot.floor.pos).min(config.max);
        stat.max_message = config.max_message;
        stat.align = config.align;
        stat.timestamps = config.timestamps;
        stat.messages = shot.tail.seq;
        stat.bytes = shot.tail.bytes;
        stat.messages_per_s = averages.second.messages_per_s;
        stat.bytes_per_s = averages.second.bytes_per_s;
        stat.last_minute = averages.minute;
        stat.last_hour = averages.hour;
        stat.dropped = shot.dropped;
        stat.overwritten = shot.overwritten;
        stat.resizes = ring.size().resizes();
        stat.evicted = ring.readers().evicted();
        stat.max_readers = config.max_readers;
        stat.stalled_after_ms = ring.stalled_after_ms();
        stat.source = config.source.to_string();
        stat.input = ring.fed().map(|report| report.stat());
        stat.writer = ring.writer_stat(shot);
        stat.readers = ring.readers().iter().map(|(number, reader)| self.reader_stat(number, reader, shot)).collect();
        stat
    }

    fn reader_stat(&self, number: u32, reader: &Reader, shot: &Snapshot) -> ReaderStat {
        let mut stat = reader_stat(number, reader, shot);
        if self.ring.config().timestamps {
            stat.oldest_unread_ns = reader.oldest_unread_ns(self.ring.segments().current().file());
            stat.latency = reader.latency();
        }
        stat
    }
}

/// What readers can have.
fn totals(at: Instant, shot: &Snapshot) -> Totals {
    Totals { at, messages: shot.tail.seq, bytes: shot.tail.bytes }
}

fn reader_stat(number: u32, reader: &Reader, shot: &Snapshot) -> ReaderStat {
    // A reader that has not chosen its start has nothing to catch up with.
    let cursor = reader.cursor().unwrap_or(shot.tail.pos);
    let lag_bytes = shot.tail.pos.saturating_sub(cursor.max(shot.floor.pos));
    // By the number that it shows for its cursor; none where it has no bytes to read.
    let lag_messages = if lag_bytes == 0 { 0 } else { shot.tail.seq.saturating_sub(reader.seq().max(shot.floor.seq)) };
    let mut stat = reader.stat(number, reader.cursor().is_some(), shot.tail.seq);
    (stat.lag_messages, stat.lag_bytes) = (lag_messages, lag_bytes);
    stat.lost = reader.lost().min(shot.tail.seq);
    stat
}
