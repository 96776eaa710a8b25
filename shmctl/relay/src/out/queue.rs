//! What was read from the channel and is not in the stream yet, in order: in memory, and behind that in the spool.
//!
//! ```text
//! front --offer--> [ spool: not loaded ] --load--> [ memory: not taken ] --upcoming--> [ memory: sent ] --release--> gone
//!                          \_____________________________ mark: how far the channel may forget _____________________/
//! ```
//!
//! The channel may forget what the server has acknowledged, what is in the spool, and what was dropped. While the spool has
//! anything, everything that is not released is in it, in order, so that a relay that is killed goes on with the spool.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use log::warn;
use shmctl::human::age;
use tokio::sync::{Notify, watch};

use super::spool::Spool;
use crate::envelope::{Envelope, Place};
use crate::status::{State, Status, add};

/// Up to where the channel may forget messages of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) lineage: u64,
    pub(super) seq: u64,
}

/// What to do with new messages while the link stands still and memory is full.
#[derive(Debug)]
pub(super) enum Policy {
    Wait,
    Drop,
    Spool(Box<Spool>),
}

#[derive(Debug)]
struct Entry {
    envelope: Envelope,
    is_spooled: bool,
    /// The channel may forget it already, because a later one was dropped.
    is_forgotten: bool,
}

#[derive(Debug)]
struct Inner {
    /// Not released; the oldest first.
    memory: VecDeque<Entry>,
    /// How many of these are sent, from the oldest on.
    taken: usize,
    bytes: usize,
    policy: Policy,
    /// Where the newest entry ends, wherever it is.
    tail: Option<(u64, Place)>,
    /// The newest entry was dropped.
    is_dropping: bool,
    /// When the server acknowledged something last, or when there was something to acknowledge after a time without.
    progress: Instant,
    /// What is wrong with the link.
    why: String,
    /// Writing to the spool has failed, and the log says so.
    has_told: bool,
}

/// The queue between the reading and the sending task of one thread.
#[derive(Debug)]
pub(super) struct Queue {
    inner: RefCell<Inner>,
    limit: usize,
    stalled_after: Duration,
    status: Rc<Status>,
    mark: watch::Sender<Option<Mark>>,
    has_space: Notify,
    has_more: Notify,
    is_empty: Notify,
}

impl Queue {
    pub(super) fn new(policy: Policy, limit: usize, stalled_after: Duration, status: Rc<Status>) -> Self {
        let tail = if let Policy::Spool(spool) = &policy { spool.tail() } else { None };
        let mark = tail.map(|(lineage, place)| Mark { lineage, seq: place.seq });
        let inner = Inner {
            memory: VecDeque::new(),
            taken: 0,
            bytes: 0,
            policy,
            tail,
            is_dropping: false,
            progress: Instant::now(),
            why: String::new(),
            has_told: false,
        };
        let queue = Queue {
            inner: RefCell::new(inner),
            limit,
            stalled_after,
            status,
            mark: watch::Sender::new(mark),
            has_space: Notify::new(),
            has_more: Notify::new(),
            is_empty: Notify::new(),
        };
        queue.show();
        queue
    }

    /// Follows how far the channel may forget.
    pub(super) fn marks(&self) -> watch::Receiver<Option<Mark>> {
        self.mark.subscribe()
    }

    /// Takes the next messages over, or gives them back if there is no space now.
    pub(super) fn offer(&self, envelope: Envelope) -> Option<Envelope> {
        let mut inner = self.inner.borrow_mut();
        // After a restart, the channel may still have messages that are in the spool.
        let place = inner.tail.filter(|(lineage, _)| *lineage == envelope.lineage()).map(|(_, place)| place);
        let envelope = match place {
            Some(place) => envelope.from(place)?,
            None => envelope,
        };
        // The rest of a message goes where its first part went, whether it fits or not.
        let goes_on = envelope.start().offset > 0;
        if goes_on && inner.is_dropping {
            return self.drop_it(inner, &envelope);
        }
        let fits = goes_on || inner.memory.is_empty() || inner.bytes + envelope.bytes().len() <= self.limit;
        if inner.is_spooling() || (!fits && self.is_stalled(&inner) && matches!(inner.policy, Policy::Spool(_))) {
            return self.spool_it(inner, envelope, goes_on);
        }
        if fits {
            self.keep(&mut inner, envelope, false);
            return None;
        }
        if self.is_stalled(&inner) && matches!(inner.policy, Policy::Drop) {
            return self.drop_it(inner, &envelope);
        }
        Some(envelope)
    }

    /// Waits until [`offer`](Self::offer) may find space.
    pub(super) async fn space(&self) {
        self.has_space.notified().await;
    }

    /// The next envelope to send, which stays the next one until it is [taken](Self::take).
    ///
    /// # Errors
    /// That the spool cannot be read.
    pub(super) async fn upcoming(&self) -> io::Result<Envelope> {
        loop {
            if let Some(envelope) = self.peek()? {
                return Ok(envelope);
            }
            self.has_more.notified().await;
        }
    }

    /// The upcoming envelope is being sent.
    pub(super) fn take(&self) {
        self.inner.borrow_mut().taken += 1;
    }

    /// Where the entry at this place, counted from the oldest, ends.
    pub(super) fn end_of(&self, at: usize) -> Place {
        self.inner.borrow().memory.get(at).map_or(Place::default(), |entry| entry.envelope.end())
    }

    /// Everything that was taken and not released is to be sent again.
    pub(super) fn rewind(&self, why: &str) {
        let mut inner = self.inner.borrow_mut();
        inner.taken = 0;
        why.clone_into(&mut inner.why);
        self.has_more.notify_one();
    }

    /// The server has acknowledged something.
    pub(super) fn progressed(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.progress = Instant::now();
        inner.why.clear();
    }

    /// The oldest `count` entries are in the stream.
    pub(super) fn release(&self, count: usize) {
        let mut inner = self.inner.borrow_mut();
        for _ in 0..count {
            let Some(Entry { envelope, is_spooled, is_forgotten }) = inner.memory.pop_front() else { break };
            inner.taken = inner.taken.saturating_sub(1);
            inner.bytes -= envelope.bytes().len();
            let payload: usize = envelope.items().map(|item| item.bytes.len()).sum();
            add(&self.status.bytes, payload as u64);
            add(&self.status.messages, envelope.end().seq - envelope.start().seq);
            match &mut inner.policy {
                Policy::Spool(spool) if is_spooled => spool.release(),
                // The mark never goes back, least of all to an instance of before.
                _ if is_forgotten => {}
                _ => self.forget_to(envelope.lineage(), envelope.end()),
            }
        }
        inner.progress = Instant::now();
        if inner.memory.is_empty() && !inner.has_unloaded() {
            self.is_empty.notify_one();
        }
        if inner.has_unloaded() {
            self.has_more.notify_one();
        }
        self.has_space.notify_one();
        self.count(&inner);
    }

    /// Waits until nothing is left to send.
    pub(super) async fn until_empty(&self) {
        loop {
            {
                let inner = self.inner.borrow();
                if inner.memory.is_empty() && !inner.has_unloaded() {
                    return;
                }
            }
            self.is_empty.notified().await;
        }
    }

    /// The directory of the spool, if there is one.
    pub(super) fn spool_dir(&self) -> Option<PathBuf> {
        match &self.inner.borrow().policy {
            Policy::Spool(spool) => Some(spool.dir().to_owned()),
            Policy::Wait | Policy::Drop => None,
        }
    }

    /// Whether nothing would be lost if the relay ended now: everything is in the spool.
    pub(super) fn is_safe(&self) -> bool {
        self.inner.borrow().memory.iter().all(|entry| entry.is_spooled)
    }

    /// Shows the present state.
    pub(super) fn show(&self) {
        let inner = self.inner.borrow();
        let state = match &inner.policy {
            Policy::Spool(spool) if spool.bytes() > 0 => State::Spooling,
            Policy::Drop if inner.is_dropping && self.is_stalled(&inner) => State::Dropping,
            _ if self.is_stalled(&inner) => State::Waiting,
            _ if !self.status.link.is_connected() => State::Connecting,
            _ if self.status.lacks_channel() => State::NoChannel,
            _ => State::Relaying,
        };
        let silent = || {
            let millis = u64::try_from(inner.progress.elapsed().as_millis()).unwrap_or(u64::MAX);
            format!("nothing was acknowledged for {}", age(millis))
        };
        let why = match state {
            State::Relaying => String::new(),
            State::NoChannel => "the relay waits for the daemon or the channel".to_owned(),
            State::Connecting => self.status.link.why(),
            _ if inner.why.is_empty() && self.is_stalled(&inner) => silent(),
            _ => inner.why.clone(),
        };
        self.count(&inner);
        drop(inner);
        self.status.set(state, &why);
    }

    fn is_stalled(&self, inner: &Inner) -> bool {
        !inner.memory.is_empty() && inner.progress.elapsed() >= self.stalled_after
    }

    fn peek(&self) -> io::Result<Option<Envelope>> {
        let mut inner = self.inner.borrow_mut();
        if inner.taken == inner.memory.len() {
            self.load(&mut inner)?;
        }
        Ok(inner.memory.get(inner.taken).map(|entry| entry.envelope.clone()))
    }

    /// Puts the next envelope of the spool into memory, if there is one and it fits.
    fn load(&self, inner: &mut Inner) -> io::Result<()> {
        let Policy::Spool(spool) = &mut inner.policy else { return Ok(()) };
        // The parts of a message are released together, so the rest of a message has to come whether it fits or not.
        let goes_on = inner.memory.back().is_some_and(|entry| entry.envelope.end().offset > 0);
        let fits = goes_on || inner.memory.is_empty() || inner.bytes < self.limit;
        if !spool.has_unloaded() || !fits {
            return Ok(());
        }
        let envelope = spool.load()?;
        if inner.memory.is_empty() {
            inner.progress = Instant::now();
        }
        inner.bytes += envelope.bytes().len();
        inner.memory.push_back(Entry { envelope, is_spooled: true, is_forgotten: false });
        Ok(())
    }

    fn keep(&self, inner: &mut Inner, envelope: Envelope, is_spooled: bool) {
        if inner.memory.is_empty() {
            inner.progress = Instant::now();
        }
        inner.bytes += envelope.bytes().len();
        inner.tail = Some((envelope.lineage(), envelope.end()));
        inner.is_dropping = false;
        inner.memory.push_back(Entry { envelope, is_spooled, is_forgotten: false });
        self.count(inner);
        self.has_more.notify_one();
    }

    fn drop_it(&self, mut inner: RefMut<'_, Inner>, envelope: &Envelope) -> Option<Envelope> {
        add(&self.status.dropped, envelope.end().seq - envelope.start().seq);
        inner.tail = Some((envelope.lineage(), envelope.end()));
        inner.is_dropping = true;
        inner.memory.iter_mut().for_each(|entry| entry.is_forgotten = true);
        self.forget_to(envelope.lineage(), envelope.end());
        None
    }

    /// Appends to the spool: first what is in memory only, then the envelope.
    fn spool_it(&self, mut inner: RefMut<'_, Inner>, envelope: Envelope, goes_on: bool) -> Option<Envelope> {
        let inner = &mut *inner;
        match self.append_all(inner, &envelope, goes_on) {
            Ok(true) => inner.has_told = false,
            Ok(false) => return Some(envelope),
            Err(e) => {
                // It is tried again all the time.
                if !std::mem::replace(&mut inner.has_told, true) {
                    warn!("cannot write to the spool: {e}; the channel holds new messages until that succeeds");
                }
                return Some(envelope);
            }
        }
        inner.tail = Some((envelope.lineage(), envelope.end()));
        let fits = inner.bytes + envelope.bytes().len() <= self.limit;
        let stays = match &mut inner.policy {
            Policy::Spool(spool) if fits => spool.pass_newest(),
            _ => false,
        };
        if stays {
            self.keep(inner, envelope, true);
        } else {
            self.has_more.notify_one();
        }
        None
    }

    /// Returns false when the spool is full.
    fn append_all(&self, inner: &mut Inner, envelope: &Envelope, goes_on: bool) -> io::Result<bool> {
        let Policy::Spool(spool) = &mut inner.policy else { return Ok(false) };
        for entry in inner.memory.iter_mut().filter(|entry| !entry.is_spooled) {
            if !spool.append(&entry.envelope, false)? {
                return Ok(false);
            }
            entry.is_spooled = true;
            // It is in memory already.
            spool.pass_newest();
            self.forget_to(entry.envelope.lineage(), entry.envelope.end());
        }
        let is_in = spool.append(envelope, goes_on)?;
        if is_in {
            self.forget_to(envelope.lineage(), envelope.end());
        }
        Ok(is_in)
    }

    /// The channel may forget what is before this place; a message with an unsent rest is kept.
    fn forget_to(&self, lineage: u64, place: Place) {
        self.mark.send_replace(Some(Mark { lineage, seq: place.seq }));
    }

    fn count(&self, inner: &Inner) {
        self.status.in_flight.set(inner.bytes as u64);
        if let Policy::Spool(spool) = &inner.policy {
            self.status.spooled.set(spool.bytes());
        }
    }
}

impl Inner {
    fn is_spooling(&self) -> bool {
        matches!(&self.policy, Policy::Spool(spool) if spool.bytes() > 0)
    }

    fn has_unloaded(&self) -> bool {
        matches!(&self.policy, Policy::Spool(spool) if spool.has_unloaded())
    }
}

#[cfg(test)]
mod tests;
