//! A channel's readers by number: who may become one, and who was evicted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shm_proto::internal::os::file_id::FileId;
use shm_proto::internal::ring::layout::control;
use shm_proto::internal::ring::link::ToReader;
use shm_proto::{ChannelName, ErrorKind, Refusal};

use super::eviction::{Action, By};
use super::reader::Reader;
use crate::admission::{self, Conduct, Full, Held, Paced, Wait, told};
use crate::connections::{Connections, is_master, later, refusal};
use crate::peer::Peer;

/// The readers of a ring, or of a handoff.
#[derive(Debug, Default)]
pub(super) struct Readers {
    by_number: BTreeMap<u32, Reader>,
    /// The newest number.
    last: u32,
    evicted: u64,
    /// Whose readers were evicted.
    conduct: Conduct,
}

impl Readers {
    /// For a channel that evicted `evicted` readers under a daemon that died.
    pub(super) fn after(evicted: u64) -> Self {
        Self { evicted, ..Self::default() }
    }

    /// Lets a peer in that wants to become one of at most `most` readers. Gives the number it may have.
    ///
    /// # Errors
    /// The refusal to send instead.
    pub(super) fn admit(
        &self,
        connections: &mut Connections,
        channel: &ChannelName,
        peer: &Peer,
        most: u32,
    ) -> Result<u32, Refusal> {
        connections.pace(channel, peer.uid, Paced::Attach)?;
        self.check_conduct(channel, peer)?;
        self.place(channel, peer, most)
    }

    /// That the peer's user need not wait because readers of this user were evicted.
    ///
    /// # Errors
    /// The refusal to send instead.
    pub(super) fn check_conduct(&self, channel: &ChannelName, peer: &Peer) -> Result<(), Refusal> {
        if is_master(peer.uid) {
            return Ok(());
        }
        self.conduct.attach(peer.uid, Instant::now()).map_err(|Wait { left, evictions, ago }| {
            let times = if evictions == 1 { "once".to_owned() } else { format!("{evictions} times") };
            let why = format!(
                "a reader of user {} was evicted {times}, the last time {} ago; the user may attach again in {}",
                peer.user,
                told(ago),
                told(left)
            );
            later(channel, why, left)
        })
    }

    /// The number that one more reader may have, of at most `most`.
    ///
    /// # Errors
    /// The refusal to send instead.
    pub(super) fn place(&self, channel: &ChannelName, peer: &Peer, most: u32) -> Result<u32, Refusal> {
        let (user, master) = (&peer.user, is_master(peer.uid));
        let held = Held::count(self.by_number.values().map(|reader| reader.peer().uid), peer.uid, is_master);
        let why = match admission::place(held, most, master) {
            Ok(()) => return Ok(self.next_number()),
            Err(Full::All) => format!(
                "{} readers are attached, all it takes (max_readers = {most}); evict one, or raise max_readers",
                held.all
            ),
            Err(Full::Share(_)) => format!(
                "user {user} has {} readers, all that one user may have (half of max_readers = {most}); detach some, or \
                 raise max_readers",
                held.own
            ),
        };
        Err(refusal(ErrorKind::TooMany, format!("channel {channel}: {why}")))
    }

    /// The number of the next reader.
    pub(super) fn next_number(&self) -> u32 {
        self.last + 1
    }

    /// Whether a reader has had this number.
    pub(super) fn has_been(&self, number: u32) -> bool {
        number <= self.last
    }

    /// Whether one of them has this page.
    pub(super) fn have(&self, page: FileId) -> bool {
        self.by_number.values().any(|reader| reader.page_id() == page)
    }

    /// Takes a reader in, under the newest number.
    pub(super) fn add(&mut self, number: u32, reader: Reader) {
        self.last = number;
        self.by_number.insert(number, reader);
    }

    /// A reader is gone.
    pub(super) fn remove(&mut self, number: u32) -> Option<Reader> {
        self.by_number.remove(&number)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Evicted so far.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Counts an eviction of a reader that is not one of these.
    pub(super) fn count_eviction(&mut self) {
        self.evicted = self.evicted.saturating_add(1);
    }

    /// A reader by its number.
    pub(super) fn get(&self, number: u32) -> Option<&Reader> {
        self.by_number.get(&number)
    }

    /// The same, to tell it something.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Reader> {
        self.by_number.get_mut(&number)
    }

    /// All of them, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Reader)> {
        self.by_number.iter().map(|(&number, reader)| (number, reader))
    }

    /// Those that count: they were not evicted.
    pub(super) fn standing(&self) -> impl Iterator<Item = (u32, &Reader)> {
        self.iter().filter(|(_, reader)| !reader.is_evicted())
    }

    /// The same, to tell them something.
    pub(super) fn standing_mut(&mut self) -> impl Iterator<Item = (u32, &mut Reader)> {
        let all = self.by_number.iter_mut().map(|(&number, reader)| (number, reader));
        all.filter(|(_, reader)| !reader.is_evicted())
    }

    /// Whether nobody can stand before this position any more.
    pub(super) fn are_past(&self, position: u64) -> bool {
        self.by_number.values().all(|reader| reader.is_past(position))
    }

    /// Lets a writer that sleeps for any of them go on.
    pub(super) fn release_writer(&self) {
        self.by_number.values().for_each(Reader::release_writer);
    }

    /// Sets control bits of all of them, and wakes them.
    pub(super) fn signal(&self, bits: u32) {
        self.by_number.values().for_each(|reader| reader.signal(bits));
    }

    /// Whether a thread among them has found the ring broken.
    pub(super) fn have_complained(&mut self) -> bool {
        self.by_number.values_mut().fold(false, |complained, reader| reader.has_complained() | complained)
    }

    /// A reader is evicted: what that takes. Nothing if there is no such reader, or if it was evicted before.
    pub(super) fn evict(&mut self, number: u32, by: By<'_>) -> Vec<Action> {
        let actions = self.by_number.get_mut(&number).map(|reader| reader.standing_mut().evict(by)).unwrap_or_default();
        self.evicted = self.evicted.saturating_add(u64::from(!actions.is_empty()));
        actions
    }

    /// Tells an evicted reader why.
    pub(super) fn tell_evicted(&mut self, connections: &mut Connections, number: u32, reason: &str) {
        let Some(reader) = self.by_number.get_mut(&number) else { return };
        // The line first: a reader that sees the bit finds the reason on its connection.
        reader.tell(connections, &ToReader::Evicted { reason: reason.to_owned() }, Vec::new());
        reader.signal(control::EVICTED);
    }

    /// How long the user of an evicted reader has to wait before the next attachment, if at all. `evict_after` is how long the
    /// reader may have held the channel up.
    pub(super) fn penalise(&mut self, number: u32, evict_after: Option<Duration>) -> Option<Duration> {
        let uid = self.by_number.get(&number)?.peer().uid;
        (!is_master(uid)).then(|| self.conduct.evicted(uid, Instant::now(), evict_after))
    }

    /// Tells all of them that the channel closes, and lets them go.
    pub(super) fn close(&mut self, connections: &mut Connections, reason: &str) {
        for reader in self.by_number.values_mut() {
            // The line first: a reader that sees the bit finds the reason on its connection.
            reader.tell(connections, &ToReader::Closing { reason: reason.to_owned() }, Vec::new());
            reader.signal(control::CLOSING);
            reader.let_go(connections);
        }
    }

    /// Those that were let go.
    pub(super) fn take(&mut self) -> BTreeMap<u32, Reader> {
        std::mem::take(&mut self.by_number)
    }

    /// There is no such reader, and these there are.
    pub(super) fn no_such(&self, channel: &ChannelName, number: u32) -> Refusal {
        let present = match self.by_number.keys().map(u32::to_string).collect::<Vec<_>>().as_slice() {
            [] => "it has none".to_owned(),
            numbers => format!("readers: {}", numbers.join(", ")),
        };
        refusal(ErrorKind::NoSuchReader, format!("channel {channel}: no reader {number}; {present}"))
    }
}
