//! Where received messages go: into the present chunk, and with it to the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use shm_proto::internal::os::clock;

use super::chunk::{Chunk, Event};
use super::pipeline::Pipeline;

/// A chunk that is not full is written this long after its first message, so that not much is lost if the recorder is killed.
pub(crate) const LONGEST_NS: u64 = 1_000_000_000;

/// What the receiver has done so far, for others to see.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) messages: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) lost: AtomicU64,
}

/// The dates of moments. The clock is looked at once, so that setting it falsifies no recording.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    ahead: u64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let now = clock::monotonic_ns();
        let date = clock::date(now).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Clock { ahead: u64::try_from(date.as_nanos()).unwrap_or(u64::MAX).saturating_sub(now) }
    }

    /// Nanoseconds since 1970 of a moment of the monotonic clock.
    #[inline]
    pub(crate) fn date(self, monotonic_ns: u64) -> u64 {
        monotonic_ns.saturating_add(self.ahead)
    }
}

/// The present chunk and the way to the disk.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) pipeline: Pipeline,
    pub(crate) clock: Clock,
    pub(crate) counters: Arc<Counters>,
    chunk: Option<Chunk>,
    /// What is to be written before the present chunk.
    events: Vec<Event>,
    /// When the first message came into it.
    begun_ns: u64,
    /// When the clock was looked at last.
    last_ns: u64,
    chunk_size: usize,
    messages: u64,
    bytes: u64,
    lost: u64,
    /// Channels in the files.
    channels: usize,
}

impl Sink {
    pub(crate) fn new(pipeline: Pipeline, chunk_size: usize) -> Self {
        Sink {
            pipeline,
            clock: Clock::new(),
            counters: Arc::default(),
            chunk: None,
            events: Vec::new(),
            begun_ns: 0,
            last_ns: 0,
            chunk_size,
            messages: 0,
            bytes: 0,
            lost: 0,
            channels: 0,
        }
    }

    /// Another channel in the files. Returns its place.
    pub(crate) fn add_channel(&mut self) -> usize {
        self.channels += 1;
        self.channels - 1
    }

    /// The chunk that has room for a message. Waits if too much is on its way to the disk.
    #[inline]
    pub(crate) fn chunk_for(&mut self, len: usize, now_ns: u64) -> &mut Chunk {
        if !self.chunk.as_ref().is_some_and(|chunk| chunk.fits(len)) {
            self.next_chunk(len, now_ns);
        }
        self.chunk.as_mut().expect("it has just been made")
    }

    #[cold]
    fn next_chunk(&mut self, len: usize, now_ns: u64) {
        // The depot may wait for this one to come back.
        match self.chunk.take() {
            Some(chunk) if chunk.has_messages() => self.send(chunk),
            Some(chunk) => chunk.give_back(&self.pipeline.depot),
            None => {}
        }
        self.chunk = Some(Chunk::new(&self.pipeline.depot, self.chunk_size, len));
        self.begun_ns = now_ns;
    }

    /// What is to be written before the messages of the present chunk.
    pub(crate) fn tell(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Sends what there is.
    pub(crate) fn flush(&mut self) {
        match self.chunk.take() {
            Some(chunk) => self.send(chunk),
            None if !self.events.is_empty() => self.send(Chunk::new(&self.pipeline.depot, 0, 0)),
            None => {}
        }
    }

    fn send(&mut self, mut chunk: Chunk) {
        chunk.events = std::mem::take(&mut self.events);
        self.pipeline.send(chunk);
    }

    /// Sends the chunk if it is old.
    #[inline]
    pub(crate) fn flush_old(&mut self, now_ns: u64) {
        self.last_ns = now_ns;
        if now_ns >= self.due_ns() {
            self.flush();
        }
    }

    /// When the chunk is to be sent.
    pub(crate) fn due_ns(&self) -> u64 {
        let begun = self.chunk.as_ref().filter(|chunk| chunk.has_messages());
        begun.map_or(u64::MAX, |_| self.begun_ns.saturating_add(LONGEST_NS))
    }

    /// When the clock was looked at last.
    #[inline]
    pub(crate) fn last_ns(&self) -> u64 {
        self.last_ns
    }

    pub(crate) fn look_at_clock(&mut self) {
        self.last_ns = clock::monotonic_ns();
    }

    /// A message is in the chunk.
    #[inline]
    pub(crate) fn count(&mut self, len: usize) {
        self.messages += 1;
        self.bytes += len as u64;
        self.counters.messages.store(self.messages, Ordering::Relaxed);
        self.counters.bytes.store(self.bytes, Ordering::Relaxed);
    }

    /// Messages are missing.
    pub(crate) fn count_lost(&mut self, lost: u64) {
        self.lost += lost;
        self.counters.lost.store(self.lost, Ordering::Relaxed);
    }

    /// All messages that were received.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// The bytes of all messages that were received.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All messages that were lost before they were received.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }
}
