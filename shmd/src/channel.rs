//! One channel: a ring, or a handoff, which has a ring for its feed.

mod eviction;
mod handoff;
mod prepared;
mod reader;
mod readers;
mod reload;
mod removal;
mod ring;
mod ring_channel;

use std::os::fd::OwnedFd;
use std::time::Instant;

use shm_proto::internal::control::stat::{ChannelStat, Right, Summary};
use shm_proto::internal::os::peer::Credentials;
use shm_proto::{ErrorKind, Refusal, Result};

pub(crate) use prepared::Prepared;
pub(crate) use reload::stays_as_it_is;
pub(crate) use removal::Step;
pub(crate) use ring::{adopt_nameless, geometry, remove_orphans, this_process};

use crate::config::ChannelConfig;
use crate::connections::{Connections, channel_refusal};
use crate::event_loop::{ChannelId, ClientId};
use handoff::HandoffChannel;
use reload::{Outcome, in_other_mode};
use ring::Ring;
use ring_channel::RingChannel;

/// A channel.
#[derive(Debug)]
pub(crate) enum Channel {
    /// Every reader gets every message, in place.
    Ring(Box<RingChannel>),
    /// Each message is handed over to one reader, by the handoff protocol.
    Handoff(Box<HandoffChannel>),
}

/// What a channel of either kind does in its own way.
macro_rules! each {
    ($channel:expr, $kind:ident => $does:expr) => {
        match $channel {
            Channel::Ring($kind) => $does,
            Channel::Handoff($kind) => $does,
        }
    };
}

impl Channel {
    /// Makes the channel from its objects.
    ///
    /// # Errors
    /// When the system gives no descriptors or no thread.
    pub(crate) fn create(id: ChannelId, prepared: Prepared, user: &str) -> Result<Self> {
        let Prepared { config, segment, handoff } = prepared;
        Ok(match handoff {
            None => Channel::Ring(Box::new(RingChannel::new(Ring::new(id, None, config, segment, user)))),
            Some((feed, names, writer)) => {
                let feed = Ring::new(id, Some("feed"), feed, segment, user);
                Channel::Handoff(Box::new(HandoffChannel::start(config, names, writer, feed, user)?))
            }
        })
    }

    /// The ring that its writer publishes to; of a handoff, the feed.
    pub(crate) fn ring(&self) -> &Ring {
        each!(self, channel => channel.ring())
    }

    /// The same, to work with it.
    pub(crate) fn ring_mut(&mut self) -> &mut Ring {
        each!(self, channel => channel.ring_mut())
    }

    /// Whether its ring is in the segment of this name.
    pub(crate) fn has_segment(&self, name: &str) -> bool {
        self.ring().segments().current().name() == name
    }

    /// Its place in the daemon's list.
    pub(crate) fn id(&self) -> ChannelId {
        self.ring().id()
    }

    /// The configuration.
    pub(crate) fn config(&self) -> &ChannelConfig {
        each!(self, channel => channel.config())
    }

    /// How many readers are attached, as far as the daemon knows.
    pub(crate) fn reader_count(&self) -> usize {
        each!(self, channel => channel.reader_count())
    }

    /// Memory that it takes in `/dev/shm`, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        each!(self, channel => channel.memory())
    }

    /// Whether somebody other than the daemon for its own purposes holds the writer role.
    pub(crate) fn has_writer(&self) -> bool {
        self.ring().has_writer()
    }

    /// Whether readers map its segment.
    pub(crate) fn is_ring(&self) -> bool {
        matches!(self, Channel::Ring(_))
    }

    /// Why a peer that may read it cannot, if it cannot; `owner` is the objects' user.
    pub(crate) fn shuts_out(&self, owner: u32, peer: &Credentials) -> Option<String> {
        match self {
            Channel::Ring(_) => None,
            Channel::Handoff(channel) => channel.shuts_out(owner, peer),
        }
    }

    /// One line of `list`.
    pub(crate) fn summary(&self, allowed: Vec<Right>) -> Summary {
        each!(self, channel => channel.summary(allowed))
    }

    /// Everything about it; `memory_total` is what all of the daemon's channels take, in bytes.
    ///
    /// # Errors
    /// When the segment's header cannot be read.
    pub(crate) fn stat(&self, memory_total: u64) -> Result<ChannelStat> {
        let shot = self.ring().snapshot()?;
        Ok(each!(self, channel => channel.stat(&shot, memory_total)))
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
        each!(self, channel => channel.attach(connections, client, program))
    }

    /// Readmits a reader of a dead daemon, and answers it: the last segment that it knows, the moves that it has made, its
    /// page.
    ///
    /// # Errors
    /// The refusal to send instead.
    pub(crate) fn resume(
        &mut self,
        connections: &mut Connections,
        client: ClientId,
        program: Option<&str>,
        place: (u64, u32, OwnedFd),
    ) -> Result<(), Refusal> {
        match self {
            Channel::Ring(channel) => channel.resume(connections, client, program, place),
            Channel::Handoff(channel) => {
                let why = "a handoff keeps no place for its readers; attach again to go on";
                Err(channel_refusal(&channel.config().name, ErrorKind::NoSuchReader, why))
            }
        }
    }

    /// A reader's connection is gone.
    pub(crate) fn detach(&mut self, connections: &mut Connections, number: u32) {
        each!(self, channel => channel.detach(connections, number));
    }

    /// A reader says something about itself. Those of a handoff have nothing to say.
    pub(crate) fn set_status(&mut self, number: u32, status: &str) {
        if let Channel::Ring(channel) = self
            && let Some(reader) = channel.ring_mut().readers_mut().get_mut(number)
        {
            reader.set_status(status);
        }
    }

    /// Evicts a reader for an administrator.
    ///
    /// # Errors
    /// When there is no reader of that number.
    pub(crate) fn evict(&mut self, connections: &mut Connections, number: u32, by: &str) -> Result<(), Refusal> {
        each!(self, channel => channel.evict(connections, number, by))
    }

    /// A resize request; it is answered when it is done or refused.
    pub(crate) fn resize(&mut self, connections: &mut Connections, client: ClientId, bytes: u64) {
        each!(self, channel => channel.resize(connections, client, bytes));
    }

    /// Takes over a new configuration of this channel.
    pub(crate) fn reconfigure(&mut self, connections: &mut Connections, new: ChannelConfig) -> Outcome {
        let present = self.config();
        let (new, mut kept) = match new.handoff.is_some() == present.handoff.is_some() {
            true => (new, Vec::new()),
            false => in_other_mode(present, new),
        };
        let mut outcome = each!(self, channel => channel.reconfigure(connections, new));
        kept.append(&mut outcome.kept);
        Outcome { kept, ..outcome }
    }

    /// Whether [`tick`](Self::tick) has something to do: figures move, or there is memory to give back some day.
    pub(crate) fn wants_ticks(&self) -> bool {
        each!(self, channel => channel.wants_ticks())
    }

    /// Once a second while the channel is in use.
    pub(crate) fn tick(&mut self, connections: &mut Connections, now: Instant) {
        each!(self, channel => channel.tick(connections, now));
    }

    /// Listens to the thread of a handoff.
    ///
    /// # Errors
    /// When the system gives no watch.
    pub(crate) fn watch(&self, connections: &mut Connections) -> Result<()> {
        match self {
            Channel::Ring(_) => Ok(()),
            Channel::Handoff(channel) => channel.watch(connections),
        }
    }

    /// The thread of a handoff has answers, or has ended.
    pub(crate) fn thread_ready(&mut self, connections: &mut Connections) {
        if let Channel::Handoff(channel) = self {
            channel.ready(connections);
        }
    }

    /// The daemon is ready, or the reload is: what was adopted for the channel is removed with the channel from now on.
    pub(crate) fn keep(&mut self) {
        each!(self, channel => channel.keep());
    }

    /// Starts the channel's source, if it has one.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start_source(&mut self, connections: &mut Connections) -> Result<()> {
        self.watch(connections)?;
        self.ring_mut().start_source(connections)
    }

    /// Starts the source of a channel that a reload has made. A source that cannot be started now is retried: its
    /// directory may be missing, or a channel that the same reload removes has not let it go yet, `taken`. Why it
    /// has to wait, if it has to.
    pub(crate) fn start_source_or_retry(&mut self, connections: &mut Connections, taken: bool) -> Option<String> {
        self.keep();
        let watched = self.watch(connections);
        let ring = self.ring_mut();
        let error = watched.and_then(|()| ring.start_source_unless(connections, taken)).err()?;
        ring.wait_for_source(connections, &error);
        Some(error.to_string())
    }

    /// Tells the readers that the channel is closing, and lets them go; the second time does nothing. What is not over then
    /// [ends](Self::end) later.
    pub(crate) fn close(&mut self, connections: &mut Connections) {
        each!(self, channel => channel.close(connections));
    }

    /// Whether nothing is to be waited for any more once it is closed.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Channel::Ring(_) => true,
            Channel::Handoff(channel) => channel.is_over(),
        }
    }

    /// The next step of its removal.
    pub(crate) fn next_step(&self, time_is_up: bool) -> Step {
        self.ring().removal().next(self.has_writer(), self.is_over(), time_is_up)
    }

    /// Ends what is not over yet.
    pub(crate) fn end(&mut self, connections: &mut Connections) {
        if let Channel::Handoff(channel) = self {
            channel.end(connections);
        }
    }
}
