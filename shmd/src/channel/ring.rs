//! A ring with its writer and its readers: all of a ring channel, and the feed of a handoff.

mod adopt;
mod claim;
mod drain;
mod first_segment;
mod health;
mod lease;
mod moving;
mod name;
mod next_segment;
mod rest;
mod resume;
mod returning;
mod role;
mod segment;
mod segments;
mod size;
mod source;
mod watch;
mod writer;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shm_proto::internal::control::stat::{WriterName, WriterStat};
use shm_proto::internal::os::barrier;
use shm_proto::internal::ring::Snapshot;
use shm_proto::internal::ring::layout::control;
use shm_proto::internal::ring::link::{ToReader, ToWriter};
use shm_proto::{Error, ErrorKind, OnFull, Refusal, SystemError};

pub(crate) use adopt::adopt_nameless;
pub(super) use first_segment::Made;
pub(crate) use name::remove_orphans;
pub(super) use segment::{NoteFile, Segment};
pub(crate) use segment::{geometry, this_process};

use super::eviction::{Action, By};
use super::reader::Reader;
use super::readers::Readers;
use super::removal::Removal;
use crate::cleanup;
use crate::config::{ChannelConfig, SourceKind};
use crate::connections::{Connections, channel_refusal};
use crate::event_loop::ChannelId;
use crate::operation_log::{LogEvent, Operation, operation};
use crate::policy::Bounds;
use crate::rate_limit::{LeftOut, RateLimit};
use crate::source::{Report, Rested};
use adopt::Adopted;
use claim::Claiming;
use health::Health;
use returning::Returning;
use segments::Segments;
use size::Size;
use writer::Writer;

/// Lines a second in the log about what a ring's peers do.
const LINES: u32 = 200;

/// A ring: its memory, and who is attached to it. Each part guards its own invariant.
#[derive(Debug)]
pub(crate) struct Ring {
    id: ChannelId,
    /// Which part of the channel it is, if it is not all of it.
    part: Option<&'static str>,
    config: ChannelConfig,
    /// The daemon's own.
    user: String,
    segments: Segments,
    health: Health,
    readers: Readers,
    returning: Returning,
    /// The end of a source.
    size: Size,
    writer: Writer,
    claiming: Claiming,
    /// How the source is doing, or did.
    fed: Option<Arc<Report>>,
    /// The source while it rests.
    rested: Option<Rested>,
    /// The source has ended in the program before this one, and is not started again.
    source_is_over: bool,
    removal: Removal,
    /// For what peers do.
    lines: RateLimit,
    /// For what goes wrong again and again.
    trouble: RateLimit,
}

impl Ring {
    /// A ring that nobody is attached to, in its first segment.
    pub(super) fn new(
        id: ChannelId,
        part: Option<&'static str>,
        config: ChannelConfig,
        (segment, geometry, adopted): Made,
        user: &str,
    ) -> Self {
        // A ring that may overwrite what nobody has read waits for nobody.
        let waits = config.on_full != OnFull::Overwrite;
        let bounds = Bounds { min: config.min, max: config.max };
        let (found, returning, size, readers) = match adopted {
            None => (None, Returning::default(), Size::new(bounds, config.capacity), Readers::default()),
            Some(Adopted { shot, readers, size, is_written }) => (
                Some((shot, is_written)),
                // The only reader of a feed was a part of the dead daemon.
                if part.is_none() { Returning::expect(shot.readers, &readers, waits) } else { Returning::default() },
                Size::adopted(bounds, shot.capacity, size),
                Readers::after(size.evicted),
            ),
        };
        Self {
            id,
            part,
            size,
            config,
            user: user.to_owned(),
            segments: match &found {
                None => Segments::new(segment, geometry),
                Some((shot, _)) => Segments::adopted(segment, geometry, shot, part.is_none()),
            },
            health: found.map_or_else(Health::default, |(shot, _)| Health::adopted(shot)),
            readers,
            returning,
            writer: Writer::expecting(found.is_some_and(|(_, is_written)| is_written)),
            claiming: Claiming::default(),
            fed: None,
            rested: None,
            source_is_over: false,
            removal: Removal::default(),
            lines: RateLimit::new(LINES),
            trouble: RateLimit::new(1),
        }
    }

    /// Its channel's place in the daemon's list.
    pub(super) fn id(&self) -> ChannelId {
        self.id
    }

    /// The configuration.
    pub(super) fn config(&self) -> &ChannelConfig {
        &self.config
    }

    /// Another configuration, of which the segments keep their part.
    pub(super) fn set_config(&mut self, config: ChannelConfig) {
        self.config = config;
        self.tell_source();
        self.size.set_bounds(Bounds { min: self.config.min, max: self.config.max });
    }

    /// What later writers and readers are told after a reload, and the present writer at once.
    pub(super) fn tell_policy(&mut self, connections: &mut Connections) {
        if let Some(line) = self.segments.set_policy(&self.config) {
            self.tell(connections, line);
        }
    }

    /// The shared memory objects.
    pub(super) fn segments(&self) -> &Segments {
        &self.segments
    }

    /// The file of the present segment, for the notes of another thread.
    ///
    /// # Errors
    /// If no descriptors are left.
    pub(super) fn note_file(&mut self) -> Result<NoteFile, SystemError> {
        self.segments.note_file()
    }

    /// The daemon is ready: what it has adopted goes with it.
    pub(super) fn keep(&mut self) {
        self.segments.current_mut().keep();
    }

    /// The size and what is being done about it.
    pub(super) fn size(&self) -> &Size {
        &self.size
    }

    /// Who reads.
    pub(super) fn readers(&self) -> &Readers {
        &self.readers
    }

    /// The same, to let somebody in or out.
    pub(super) fn readers_mut(&mut self) -> &mut Readers {
        &mut self.readers
    }

    /// Whether there may be one more line in the log now about what a peer does.
    pub(super) fn line(&mut self) -> Option<LeftOut> {
        self.lines.admit(Instant::now())
    }

    /// How the source is doing, or did, if there is one.
    pub(super) fn fed(&self) -> Option<&Report> {
        self.fed.as_deref()
    }

    /// Whether standard input feeds it, or did.
    pub(crate) fn is_fed_from_stdin(&self) -> bool {
        self.config.source == SourceKind::Stdin
    }

    /// Whether somebody other than the daemon for its own purposes holds the writer role.
    pub(crate) fn has_writer(&self) -> bool {
        self.writer.is_taken()
    }

    /// Who writes, in words.
    pub(super) fn writer_name(&self) -> WriterName {
        self.writer.lease().map_or(WriterName::Nobody, |lease| lease.name())
    }

    /// Who writes, for `stat`.
    pub(super) fn writer_stat(&self, shot: &Snapshot) -> Option<WriterStat> {
        self.writer.lease()?.stat(&self.user, shot)
    }

    /// After how many milliseconds a peer counts as stalled, for `stat`; 0 for never.
    pub(super) fn stalled_after_ms(&self) -> u64 {
        self.config.stalled_after.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    /// Whether there is something to look after once a second although nobody uses it.
    pub(super) fn is_unsettled(&self) -> bool {
        let large = self.size.capacity() > self.config.min;
        self.health.is_broken()
            || (self.config.shrink_after.is_some() && large)
            || self.size.is_shrinking()
            || self.size.has_left_over()
    }

    /// Bytes that the slowest reader in good standing has not read yet.
    pub(super) fn used(&self, shot: &Snapshot) -> u64 {
        let cursors = self.readers.standing().filter_map(|(_, reader)| reader.cursor());
        let slowest = cursors.min().unwrap_or(shot.tail.pos);
        shot.tail.pos.saturating_sub(slowest.max(shot.floor.pos)).min(self.config.max)
    }

    /// Begins an entry about the channel.
    pub(super) fn about(&self, event: LogEvent) -> Operation {
        operation(event).on(&self.config.name)
    }

    /// The refusal for what went wrong in the daemon.
    pub(super) fn internal(&self, error: &Error) -> Refusal {
        channel_refusal(&self.config.name, ErrorKind::Internal, error)
    }

    fn refuse<T>(&self, kind: ErrorKind, why: impl AsRef<str>) -> Result<T, Refusal> {
        Err(channel_refusal(&self.config.name, kind, why.as_ref()))
    }

    /// A reader that was let in is attached from now on.
    pub(super) fn attached(&mut self, connections: &mut Connections, number: u32, reader: Reader) {
        // A program that writes and has not found this daemon yet gives up no space either: it sees the note.
        if self.writer.expected().is_some() && self.config.on_full != OnFull::Overwrite {
            self.segments.note_unnamed();
        }
        self.join(connections, number, reader);
    }

    fn join(&mut self, connections: &mut Connections, number: u32, reader: Reader) {
        self.readers.add(number, reader);
        self.segments.note_readers(&self.readers, &self.returning);
        self.tell(connections, ToWriter::ReaderJoined { reader: number });
        // The writer looks at the generation without a barrier. After this one, at most the record that it is at was
        // begun without knowing the reader; the reader chooses its start after the answer.
        barrier::heavy();
    }

    /// The same of a reader of a dead daemon, which the writer knows.
    pub(super) fn came_back(&mut self, connections: &mut Connections, number: u32, reader: Reader) {
        let page = reader.page_id().inode;
        self.join(connections, number, reader);
        self.one_is_back(connections, page);
        self.segments.note_readers(&self.readers, &self.returning);
    }

    /// Tells a reader which moves it has to make.
    pub(super) fn show_way(&mut self, connections: &mut Connections, number: u32, lines: Vec<(ToReader, OwnedFd)>) {
        let Some(reader) = self.readers.get_mut(number) else { return };
        for (line, fd) in lines {
            reader.tell(connections, &line, vec![fd]);
        }
        // It may sleep, and the lines are there now.
        reader.signal(0);
    }

    /// A reader that was taken out is attached no more.
    pub(super) fn detached(&mut self, connections: &mut Connections, number: u32, reader: &Reader) {
        // Before the writer hears of it: from then on, the writer holds nothing back for whoever may go on to read with this page, as a
        // child does whose parent had attached and has ended.
        reader.signal(control::EVICTED);
        if !reader.is_evicted() {
            self.tell(connections, ToWriter::ReaderLeft { reader: number });
        }
        self.segments.note_readers(&self.readers, &self.returning);
        // The writer may sleep for this very reader.
        reader.release_writer();
        self.settle_segment();
        self.segments.forget_formers(&self.readers);
    }

    /// Evicts a reader, and says why in the log.
    pub(super) fn evict(&mut self, connections: &mut Connections, number: u32, reason: &str, by: By<'_>) {
        if by == By::Writer && self.segments.have_strangers() && !self.readers.has_been(number) {
            return self.stranger_evicted(reason);
        }
        let mut wait = None;
        let actions = self.readers.evict(number, by);
        self.note_size();
        self.segments.note_readers(&self.readers, &self.returning);
        for action in actions {
            match action {
                Action::Tell => self.readers.tell_evicted(connections, number, reason),
                Action::Penalise => wait = self.readers.penalise(number, self.config.evict_after),
                Action::Log => self.log_eviction(number, reason, by, wait),
                Action::StopServing => self.tell(connections, ToWriter::ReaderLeft { reader: number }),
            }
        }
    }

    /// The writer has evicted a reader of a dead daemon, which has not come back and has no number here.
    fn stranger_evicted(&mut self, reason: &str) {
        self.count_eviction();
        if let Some(left_out) = self.line() {
            let reason = format!("{reason}; it was attached to the daemon before this one");
            self.about(LogEvent::Evict).text("by", By::Writer.name()).reason(reason).left_out(left_out).info();
        }
    }

    /// Counts, and notes for the next daemon, that a reader of what this ring feeds was evicted.
    pub(super) fn count_eviction(&mut self) {
        self.readers.count_eviction();
        self.note_size();
    }

    fn log_eviction(&mut self, number: u32, reason: &str, by: By<'_>, wait: Option<Duration>) {
        let Some(left_out) = self.line() else { return };
        let Some(reader) = self.readers.get(number) else { return };
        let entry = reader.about(LogEvent::Evict, &self.config.name, number).text("by", by.name()).reason(reason);
        let entry = match wait {
            Some(wait) => entry.number("user_waits_ms", wait.as_millis()),
            None => entry,
        };
        entry.left_out(left_out).info();
    }

    /// The channel is going to close, and this is why. Everybody is told the first reason.
    pub(crate) fn give_reason(&mut self, reason: &str) {
        self.removal.give_reason(reason);
    }

    /// How far the removal of the channel is.
    pub(super) fn removal(&self) -> &Removal {
        &self.removal
    }

    /// The channel closes: its readers are told, and let go. What they were told, the first time.
    pub(super) fn close_readers(&mut self, connections: &mut Connections) -> Option<String> {
        let reason = self.removal.close()?;
        self.size.close();
        self.readers.close(connections, &reason);
        Some(reason)
    }

    /// Then the writer goes.
    pub(super) fn close_writer(&mut self, connections: &mut Connections) {
        let Some(lease) = self.writer.lease() else { return };
        lease.hang_up(connections);
        if lease.source().is_some() {
            self.about(LogEvent::SourceStuck)
                .text("source", &self.config.source)
                .reason("its thread does not end: a read or a write of its input may hang; it is left behind")
                .warn();
            if matches!(self.config.source, SourceKind::Fifo(..) | SourceKind::Unix(..)) {
                cleanup::note(&self.config.source, "its thread does not end");
            }
        }
    }
}
