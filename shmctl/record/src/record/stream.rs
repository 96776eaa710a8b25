//! One channel that is recorded.

use shm_proto::internal::os::clock::monotonic_ns;
use shm_proto::{
    Attachment, ChannelName, Content, Endpoint, Error, Follower, Geometry, Notice, Reader, ReaderError, RequestError,
    Start,
};
use shmctl::companion::{Failure, Result, human, note};

use super::announced::Announced;
use super::chunk::{Event, Numbers, Stamp};
use super::content::{Declared, Description, channel_description};
use super::sink::Sink;

/// Why a channel has ended.
#[derive(Debug)]
pub(crate) enum End {
    /// It is closed.
    Closed,
    /// Something else, which is a failure.
    Failed(Failure),
}

/// A channel and its reader.
#[derive(Debug)]
pub(crate) struct Stream {
    follower: Option<Follower>,
    endpoint: Endpoint,
    name: Option<ChannelName>,
    follows: bool,
    /// Its place in the files, and what the files say about it.
    place: usize,
    description: Option<Description>,
    announced: Announced,
    numbers: Option<Numbers>,
    /// The largest number of bytes that can be unread.
    capacity: u64,
    /// Losses that belong before the next message.
    unreported: u64,
    unreported_skips: u64,
    has_begun: bool,
    /// It was evicted, and is not attached again.
    is_evicted: bool,
}

impl Stream {
    pub(crate) fn new(endpoint: &Endpoint, name: Option<&ChannelName>, start: Start, follows: bool) -> Result<Self> {
        let follower = Follower::new(endpoint.clone(), name.map(ChannelName::as_str), start)?;
        Ok(Stream {
            follower: Some(follower),
            endpoint: endpoint.clone(),
            name: name.cloned(),
            follows,
            place: 0,
            description: None,
            announced: Announced::default(),
            numbers: None,
            capacity: 0,
            unreported: 0,
            unreported_skips: 0,
            has_begun: false,
            is_evicted: false,
        })
    }

    /// The reader, unless the channel has ended.
    pub(crate) fn follower(&mut self) -> Option<&mut Follower> {
        self.follower.as_mut()
    }

    pub(crate) fn open(&self) -> Option<&Follower> {
        self.follower.as_ref()
    }

    /// Whether it was evicted, and is not attached again.
    pub(crate) fn is_evicted(&self) -> bool {
        self.is_evicted && self.follower.as_ref().is_some_and(|follower| !follower.is_attached())
    }

    /// The largest number of bytes that can be unread.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(crate) fn label(&self) -> String {
        self.name.as_ref().map_or_else(|| "the channel".to_owned(), ToString::to_string)
    }

    /// Attaches, if there is anything to attach to.
    ///
    /// # Errors
    /// The channel cannot be recorded, or is not there and is not to be waited for.
    pub(crate) fn probe(&mut self) -> Result<()> {
        self.ring()?;
        match self.follower.as_mut().and_then(Follower::notice) {
            Some(Notice::Waiting { why, .. }) if !self.follows => Err(why.into()),
            notice => {
                notice.iter().for_each(|notice| note(&notice.to_string()));
                Ok(())
            }
        }
    }

    /// Attaches if it is time to, and describes the channel in the files.
    ///
    /// # Errors
    /// The channel hands messages over, or attaching is refused in a way that trying again does not help against.
    pub(crate) fn attach(&mut self, sink: &mut Sink, declared: &Declared) -> Result<()> {
        let before = self.numbers;
        if let Some(reader) = self.ring()?
            && before.is_none_or(|numbers| numbers.instance != reader.geometry().instance)
        {
            let (geometry, content) = (reader.geometry().clone(), reader.content().cloned());
            self.begin(&geometry, content, sink, declared);
        }
        Ok(())
    }

    /// The ring, if it is attached now.
    fn ring(&mut self) -> Result<Option<&Reader>> {
        let Some(follower) = &mut self.follower else { return Ok(None) };
        match follower.attachment()? {
            Some(Attachment::Ring(reader)) => Ok(Some(reader)),
            Some(Attachment::Handoff(reader)) => Err(Failure::Other(format!(
                "channel {} hands each message over to one reader, and the recorder would take it away from that reader; only ring \
                 channels are recorded",
                reader.facts().channel
            ))),
            None => Ok(None),
        }
    }

    /// What the files have to know about the segment.
    fn begin(&mut self, geometry: &Geometry, content: Option<Content>, sink: &mut Sink, declared: &Declared) {
        (self.has_begun, self.is_evicted) = (true, false);
        self.name = Some(geometry.channel.clone());
        self.capacity = geometry.max_capacity;
        let numbers =
            Numbers { lineage: geometry.lineage, instance: geometry.instance, published: geometry.has_publish_times() };
        if self.numbers == Some(numbers) {
            return;
        }
        // In a chunk, the messages of a channel are numbered in one way.
        sink.flush();
        self.announced = Announced::of(&self.endpoint, &geometry.channel, content, &self.announced);
        let description = channel_description(geometry, &self.announced, declared);
        if self.description.as_ref() != Some(&description) {
            self.place = sink.add_channel();
            sink.tell(Event::Channel { topic: geometry.channel.to_string(), description: description.clone() });
            self.description = Some(description);
        }
        sink.tell(Event::Numbers { place: self.place, numbers });
        self.numbers = Some(numbers);
    }

    /// Takes the next message. False: there is none now.
    ///
    /// # Errors
    /// What ends the recording.
    #[inline]
    pub(crate) fn take(&mut self, sink: &mut Sink, declared: &Declared) -> Result<bool> {
        let Some(follower) = &mut self.follower else { return Ok(false) };
        let Some(message) = follower.try_recv()? else { return Ok(false) };
        let now = monotonic_ns();
        let geometry = message.reader().geometry();
        if self.numbers.is_none_or(|numbers| numbers.instance != geometry.instance) {
            let (geometry, content) = (geometry.clone(), message.reader().content().cloned());
            // The reader stays at the message, which is received again.
            let _ = message.into_ready();
            self.begin(&geometry, content, sink, declared);
            return Ok(true);
        }
        let lost = self.unreported + message.lost_before();
        let skipped = self.unreported_skips + message.skipped_before();
        let stamp = Stamp { seq: message.seq(), time: sink.clock.date(message.published_ns().unwrap_or(now)) };
        let len = message.len();
        let chunk = sink.chunk_for(len, now);
        let at = chunk.copy(self.place, stamp, &message);
        match message.finish() {
            Ok(()) => {
                chunk.keep(self.place, stamp, at);
                if lost > 0 || skipped > 0 {
                    chunk.note_gap(self.place, stamp.seq, lost, skipped);
                    sink.count_lost(lost);
                    (self.unreported, self.unreported_skips) = (0, 0);
                }
                sink.count(len);
                sink.flush_old(now);
                Ok(true)
            }
            Err(error) => {
                chunk.take_back(at);
                (self.unreported, self.unreported_skips) = (lost, skipped);
                follower.go_on_after(error)?;
                Ok(follower.is_attached())
            }
        }
    }

    /// What the follower has to say. Returns why the channel has ended, if it has.
    pub(crate) fn hear(&mut self, sink: &mut Sink) -> Option<End> {
        let notice = self.follower.as_mut()?.notice()?;
        let text = notice.to_string();
        self.is_evicted |= matches!(&notice, Notice::Waiting { why: Error::Reader(ReaderError::Evicted { .. }), .. });
        self.tell(sink, &text);
        let why = match notice {
            Notice::Waiting { why, .. } if !self.follows => why,
            _ => {
                note(&text);
                return None;
            }
        };
        let end = match why {
            Error::Reader(ReaderError::Closed { .. }) => End::Closed,
            // The recording goes on after an eviction, and the files say what is missing.
            Error::Reader(ReaderError::Evicted { .. }) => {
                note(&text);
                return None;
            }
            // Whoever was evicted has to wait.
            Error::Request(RequestError::Refused(refusal)) if self.has_begun && refusal.kind.is_temporary() => {
                note(&text);
                return None;
            }
            why => End::Failed(why.into()),
        };
        self.follower = None;
        Some(end)
    }

    /// Ends the channel, and says why in the files, unless it has ended.
    pub(crate) fn end(&mut self, sink: &mut Sink, why: &str) {
        if self.follower.take().is_some() {
            self.tell(sink, why);
        }
    }

    fn tell(&self, sink: &mut Sink, text: &str) {
        let time = human::utc_ns(std::time::SystemTime::now());
        sink.tell(Event::Notice { topic: self.label(), time, text: text.to_owned() });
    }

    /// Whether the channel was ever attached.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }
}
