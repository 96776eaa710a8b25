//! What is different about a channel that hands messages over one at a time.
//!
//! The ring that [`Channel`] otherwise is becomes the feed, with the [`Bridge`] as its only reader; what peers see, readers
//! and sizes and counts, is the handoff's.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use log::info;
use shm_proto::control::{Done, ErrorKind, HandoffAttached, OnFull, ReaderEvent, Refusal, Resized, Start};
use shm_proto::handoff::{Names, Origin, Settings, Writer};
use shm_proto::stat::{ChannelStat, HandoffStat, ReaderStat, Summary};
use shm_proto::{Bytes, Error, Result, ring};

use super::{Channel, Reader};
use crate::bridge::Bridge;
use crate::config::ChannelConfig;
use crate::event_loop::{ClientId, Interest, Token};
use crate::hub::{Hub, refusal};
use crate::policy::Bounds;
use crate::server::{Peer, Role, printable};

/// The feed's capacity at the start and at rest, unless a message needs more.
const FEED: u64 = 64 * Bytes::KIB;
/// Publishing waits for a reader as long as it takes.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// The bridge's number among the feed's readers, and a client that there is not.
const BRIDGE: u32 = 0;
const NOBODY: ClientId = 0;

/// A handoff channel's own part.
#[derive(Debug)]
pub(crate) struct Handoff {
    /// As configured; the channel has the feed's.
    config: ChannelConfig,
    names: Names,
    bridge: Bridge,
    readers: BTreeMap<u32, (ClientId, Peer, Instant)>,
    next_reader: u32,
    evicted: u64,
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

impl Channel {
    /// Makes the objects and starts to hand over what comes through the feed.
    pub(super) fn start_handoff(&mut self, config: ChannelConfig) -> Result<()> {
        let Some(names) = config.handoff.clone() else { return Ok(()) };
        let settings = Settings {
            names: names.clone(),
            mode: config.mode,
            gid: config.group.as_ref().map(|(_, gid)| *gid),
            capacity: config.capacity,
            max_capacity: config.max,
            max_message: config.max_message,
            on_full: config.on_full,
            ack_timeout: config.ack_timeout,
        };
        let writer = Writer::create(settings)
            .map_err(|e| Error::system(format!("channel {}", config.name), std::io::Error::other(e.to_string())))?;
        let origin = match writer.origin() {
            Origin::Created => "created".to_owned(),
            Origin::Replaced => "replaced".to_owned(),
            Origin::Adopted { pending: None } => "adopted".to_owned(),
            Origin::Adopted { pending: Some(len) } => format!("adopted withdrawn_bytes={len}"),
        };
        info!(
            "event=create channel={} mode=handoff segment={} avail={} done={} capacity={} origin={origin}",
            config.name,
            names.segment,
            names.avail,
            names.done,
            writer.capacity()
        );
        let peer = Peer { pid: std::process::id(), user: self.own_user.clone(), program: "shmd".to_owned() };
        let (reader, sleeper) = Reader::new(NOBODY, peer)?;
        let (segment, page) = (self.segment.for_reader()?, reader.page_fd()?);
        let geometry = self.geometry.clone();
        let feed = ring::Reader::open(segment.as_fd(), page.as_fd(), sleeper, geometry, Start::Oldest, None)?;
        self.readers.insert(BRIDGE, reader);
        let bridge = Bridge::start(config.name.to_string(), feed, writer)?;
        self.handoff = Some(Handoff { config, names, bridge, readers: BTreeMap::new(), next_reader: 0, evicted: 0 });
        Ok(())
    }

    /// Listens to the bridge, if there is one.
    ///
    /// # Errors
    /// When the system gives no watch.
    pub(super) fn watch_handoff(&self, hub: &mut Hub) -> Result<()> {
        match &self.handoff {
            Some(handoff) => hub.events.add(handoff.bridge.bell(), Token::Handoff(self.id), Interest::READ),
            None => Ok(()),
        }
    }

    /// The bridge has answers.
    pub(crate) fn handoff_ready(&mut self, hub: &mut Hub) {
        let Some(handoff) = &self.handoff else { return };
        for (client, asked, outcome) in handoff.bridge.answers() {
            let answer = match outcome {
                Ok(done) => {
                    let channel = self.config.name.clone();
                    Ok(Done::Resize(Resized { channel, old: done.old, asked, new: done.new, pending: done.pending }))
                }
                Err(e @ Error::NoSpace { .. }) => Err(self.refusal(ErrorKind::NoSpace, &e)),
                Err(e @ Error::Locked { .. }) => Err(self.refusal(ErrorKind::Busy, &e)),
                Err(e) => Err(self.refusal(ErrorKind::Internal, &e)),
            };
            hub.reply(client, answer, Vec::new());
        }
    }

    fn refusal(&self, kind: ErrorKind, error: &Error) -> Refusal {
        refusal(kind, format!("channel {}: {error}", self.config.name))
    }

    /// Makes a client a reader: it is told the objects' names.
    pub(super) fn attach_handoff(
        &mut self,
        hub: &mut Hub,
        client: ClientId,
        program: Option<&str>,
    ) -> Result<(), Refusal> {
        let Some(handoff) = &self.handoff else { return Ok(()) };
        let (have, most) = (handoff.readers.len(), handoff.config.max_readers as usize);
        if have >= most {
            let why = format!("{have} readers are attached, all it takes (max_readers = {most})");
            return self.refuse(ErrorKind::TooMany, why);
        }
        let Some(peer) = hub.peer(client, program) else { return Ok(()) };
        let number = handoff.next_reader + 1;
        hub.bind(client, Role::Reader(self.id, number)).map_err(|e| self.error(&e))?;
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
            info!("event=attach channel={} reader={number} {peer}{left_out}", self.config.name);
        }
        handoff.readers.insert(number, (client, peer, Instant::now()));
        hub.reply(client, Ok(Done::Handoff(attached)), Vec::new());
        Ok(())
    }

    /// A reader's connection is gone. What it had taken and not acknowledged is offered again in time.
    pub(super) fn detach_handoff(&mut self, number: u32) {
        let Some((_, peer, _)) = self.handoff.as_mut().and_then(|handoff| handoff.readers.remove(&number)) else {
            return;
        };
        if let Some(left_out) = self.lines.admit(Instant::now()) {
            info!("event=detach channel={} reader={number} {peer}{left_out}", self.config.name);
        }
    }

    /// Tells a reader to go. It has the objects open and is trusted to obey.
    pub(super) fn evict_handoff(&mut self, hub: &mut Hub, number: u32, by: &str) -> Result<(), Refusal> {
        let Some(handoff) = &mut self.handoff else { return Ok(()) };
        let Some((client, peer, _)) = handoff.readers.get(&number) else {
            let numbers: Vec<_> = handoff.readers.keys().map(u32::to_string).collect();
            return self
                .refuse(ErrorKind::NoSuchReader, format!("no reader {number}; readers: {}", numbers.join(", ")));
        };
        let reason = format!("by user {by}, who administers the channel");
        info!("event=evict channel={} reader={number} {peer} by={}", self.config.name, printable(by));
        handoff.evicted += 1;
        let client = *client;
        hub.send(client, &ReaderEvent::Evicted { reason }, Vec::new());
        hub.end(client);
        Ok(())
    }

    /// Changes the segment's length. The bridge answers.
    pub(super) fn resize_handoff(&mut self, hub: &mut Hub, client: ClientId, bytes: u64) {
        let Some(handoff) = &self.handoff else { return };
        let Bounds { min, max } = Bounds { min: handoff.config.min, max: handoff.config.max };
        if (Bounds { min, max }).fit(bytes).is_some() {
            return handoff.bridge.resize(client, bytes);
        }
        let message =
            format!("channel {}: asked {}, allowed {} to {}", self.config.name, Bytes(bytes), Bytes(min), Bytes(max));
        hub.reply(client, Err(refusal(ErrorKind::OutOfRange, message)), Vec::new());
    }

    /// Tells the readers, and ends the bridge, which removes the objects.
    pub(super) fn close_handoff(&mut self, hub: &mut Hub, reason: &str) {
        let Some(handoff) = &mut self.handoff else { return };
        for (client, ..) in handoff.readers.values() {
            hub.send(*client, &ReaderEvent::Closing { reason: reason.to_owned() }, Vec::new());
            hub.end(*client);
        }
        if handoff.bridge.stop() {
            info!(
                "event=unlink segment={} avail={} done={}",
                handoff.names.segment, handoff.names.avail, handoff.names.done
            );
        } else {
            log::warn!(
                "event=handoff-stuck channel={} reason=\"it does not stop; leaving it behind\"",
                self.config.name
            );
        }
    }
}

impl Handoff {
    /// What `list` shows instead of the feed.
    pub(crate) fn summarise(&self, summary: &mut Summary) {
        summary.mode = "handoff".to_owned();
        summary.capacity = self.bridge.state().capacity;
        summary.readers = u32::try_from(self.readers.len()).unwrap_or(u32::MAX);
    }

    /// What `stat` shows instead of the feed. Readers that attach to no daemon, C programs say, are nowhere to be seen.
    pub(crate) fn overlay(&self, stat: &mut ChannelStat) {
        let state = self.bridge.state();
        let (config, counters) = (&self.config, state.counters);
        stat.mode = "handoff".to_owned();
        stat.segment.clone_from(&self.names.segment);
        stat.on_full = config.on_full;
        (stat.min, stat.max) = (config.min, config.max);
        (stat.capacity, stat.reserved, stat.pending) = (state.capacity, state.capacity, state.pending);
        stat.used = state.on_offer.unwrap_or(0);
        stat.retained = stat.used;
        (stat.messages, stat.bytes) = (counters.messages, counters.bytes);
        (stat.dropped, stat.overwritten) = (counters.dropped, 0);
        (stat.resizes, stat.evicted) = (counters.resizes, self.evicted);
        stat.max_readers = config.max_readers;
        stat.handoff = Some(HandoffStat {
            objects: self.names.clone(),
            on_offer: state.on_offer,
            offered_again: counters.offered_again,
            recovered: counters.recovered,
            repaired: counters.repaired,
            stray_posts: counters.stray_posts,
        });
        stat.readers = self.readers.iter().map(|(&number, (_, peer, since))| reader(number, peer, *since)).collect();
    }
}

/// What a reader has read is known to nobody: the protocol counts nothing.
fn reader(number: u32, peer: &Peer, since: Instant) -> ReaderStat {
    ReaderStat {
        reader: number,
        pid: peer.pid,
        program: peer.program.clone(),
        user: peer.user.clone(),
        state: "attached".to_owned(),
        lag_messages: 0,
        lag_bytes: 0,
        received: 0,
        lost: 0,
        heartbeat_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}
