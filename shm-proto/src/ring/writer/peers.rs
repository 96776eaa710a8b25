//! The readers as the writer sees them: which there are, how far the slowest has come, and which are too slow or lost.

use super::need::Need;
use super::peer::{Named, Peer};
use crate::os::clock::monotonic_ns;
use crate::ring::standstill::Limit;

/// As long as readers wait for the next daemon, unless they are told otherwise.
const LOST_AFTER_NS: u64 = 30_000_000_000;
/// More time than this does not count between two looks: this process may have been stopped, and the readers with it, and lines
/// of the daemon wait to be read.
const MOST_BETWEEN_LOOKS_NS: u64 = 1_000_000_000;

/// All attached readers.
#[derive(Debug)]
pub(super) struct Peers {
    list: Vec<Peer>,
    /// The smallest checked cursor; `u64::MAX` without readers.
    least: u64,
    /// The floor when the daemon began to hold back lines that may name readers, and when that was, in
    /// `CLOCK_MONOTONIC` nanoseconds.
    withheld: Option<(u64, u64)>,
    /// When time was last counted against readers that stand still, in `CLOCK_MONOTONIC` nanoseconds.
    counted_ns: u64,
    /// When [`lost`](Self::lost) last looked, in `CLOCK_MONOTONIC` nanoseconds.
    looked_ns: u64,
    pub(super) lost_after_ns: u64,
    /// See [`Geometry::relayed`](crate::ring::geometry::Geometry::relayed).
    is_relayed: bool,
}

impl Peers {
    pub(super) fn new(most: u32, is_relayed: bool) -> Peers {
        let list = Vec::with_capacity(most.min(1024) as usize);
        Peers {
            list,
            least: u64::MAX,
            withheld: None,
            counted_ns: 0,
            looked_ns: 0,
            lost_after_ns: LOST_AFTER_NS,
            is_relayed,
        }
    }

    /// Whether nobody reads without a daemon.
    pub(super) fn need_daemon(&self) -> bool {
        self.is_relayed
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The readers whose cursor is exactly at this position.
    pub(super) fn at(&self, pos: u64) -> Vec<u32> {
        self.list.iter().filter(|peer| peer.cursor() == pos).map(|peer| peer.id()).collect()
    }

    /// The smallest cursor as last seen.
    pub(super) fn least(&self) -> u64 {
        self.least
    }

    /// The number of readers that have chosen their start.
    pub(super) fn joined(&self) -> usize {
        self.list.iter().filter(|peer| !peer.is_joining()).count()
    }

    /// Registers a reader: from now on, nothing at or after the floor is overwritten before the reader has read it.
    pub(super) fn add(&mut self, id: u32, named: Named, floor: u64) {
        if let Some(peer) = self.list.iter_mut().find(|peer| peer.is_named_again(named.page_id)) {
            peer.own(id, named.bell);
            return;
        }
        // In a relayed ring, the reader of the next daemon takes over from the reader of a dead daemon.
        let before = self.list.iter().position(|peer| peer.is_disowned() && self.is_relayed);
        let floor = before.map_or(floor, |at| self.list.swap_remove(at).cursor());
        self.list.push(Peer::register(id, named, floor));
        self.settle();
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Peer> {
        let at = self.list.iter().position(|peer| peer.id() == id)?;
        let peer = self.list.swap_remove(at);
        self.settle();
        Some(peer)
    }

    /// Another daemon has come in the place of a dead one. It names the readers again, with other numbers.
    pub(super) fn disown(&mut self) {
        for (peer, id) in self.list.iter_mut().zip((0..=u32::MAX).rev()) {
            peer.disown(id);
        }
    }

    /// Removes readers that are dead and that no daemon would report: any dead reader while there is no daemon, and
    /// dead readers that the current daemon has not named.
    pub(super) fn bury(&mut self, has_daemon: bool) {
        if self.is_relayed {
            return;
        }
        let before = self.list.len();
        for peer in self.list.extract_if(.., |peer| (!has_daemon || peer.is_disowned()) && peer.is_gone()) {
            // A child of its process may go on to read.
            peer.mark_evicted();
        }
        if self.list.len() < before {
            self.settle();
        }
    }

    /// A reader that died together with its daemon, before this writer had looked at its process; and what is wrong with it.
    ///
    /// The present daemon has not named the reader, and nobody has had its end of the bell for as long as readers wait for a
    /// daemon. A reader that is stopped, or lives in another PID namespace, has its end.
    pub(super) fn lost(&mut self, has_daemon: bool) -> Option<(u32, String)> {
        let now = monotonic_ns();
        let passed = now.saturating_sub(std::mem::replace(&mut self.looked_ns, now)).min(MOST_BETWEEN_LOOKS_NS);
        let may_be = has_daemon && !self.is_relayed && self.withheld.is_none();
        for peer in &mut self.list {
            peer.look_for_end(may_be, passed);
        }
        let peer = self.list.iter().find(|peer| peer.is_lost_for(self.lost_after_ns))?;
        Some((peer.id(), "its process has ended, and no daemon has named it since".to_owned()))
    }

    fn settle(&mut self) {
        let least = self.list.iter().map(|peer| peer.cursor()).min().unwrap_or(u64::MAX);
        self.least = self.withheld.map_or(least, |(floor, _)| least.min(floor));
    }

    /// Until called with `None`, acts as if a reader stood at `floor`, because not all readers may be known.
    pub(super) fn withhold(&mut self, floor: Option<u64>) {
        self.withheld = floor.map(|floor| self.withheld.unwrap_or_else(|| (floor, monotonic_ns())));
        self.settle();
    }

    /// Whether the daemon holds back lines.
    pub(super) fn is_withheld(&self) -> bool {
        self.withheld.is_some()
    }

    /// Since when the daemon has held back lines.
    pub(super) fn withheld_since_ns(&self) -> Option<u64> {
        self.withheld.map(|(_, since)| since)
    }

    /// Looks at every cursor; no segment has more than `most` bytes. Returns a reader whose cursor is impossible, and the reason.
    pub(super) fn refresh(&mut self, tail: u64, most: u64) -> Option<(u32, String)> {
        let mut bad = None;
        for peer in &mut self.list {
            if let Err(reason) = peer.look(tail, most) {
                bad = Some((peer.id(), reason));
            }
        }
        self.settle();
        bad
    }

    /// The reader that holds up all others.
    pub(super) fn slowest(&self) -> Option<&Peer> {
        self.list.iter().min_by_key(|peer| peer.cursor())
    }

    /// A reader that has not come as far as the writer needs.
    pub(super) fn wanting(&self, need: Need) -> Option<&Peer> {
        self.list.iter().find(|peer| peer.is_wanting(need))
    }

    /// The number of readers that have not come as far as the writer needs.
    pub(super) fn count_wanting(&self, need: Need) -> usize {
        self.list.iter().filter(|peer| peer.is_wanting(need)).count()
    }

    /// Makes every reader publish its cursor after its next message.
    pub(super) fn ask_all(&mut self) {
        for peer in &mut self.list {
            peer.ask();
        }
    }

    /// The same for those that have not come as far as the writer needs.
    pub(super) fn ask_wanting(&mut self, need: Need) {
        for peer in self.list.iter_mut().filter(|peer| peer.is_wanting(need)) {
            peer.ask();
        }
    }

    /// Counts a wait of the writer against the readers that have not come as far as the writer needs, and asks them for
    /// their cursors from time to time. The wait counts from its beginning to now, or to its planned end if that is
    /// earlier: if the wait took longer than planned, this process was stopped, and the readers may have been stopped
    /// with it.
    ///
    /// A wait for space counts against all of these readers, not only against the slowest. Otherwise, several stopped
    /// readers would hold up the writer for `evict_after` each, one after the other.
    pub(super) fn waited(&mut self, need: Need, begun_ns: u64, until_ns: u64, limit: Limit) {
        let now = monotonic_ns();
        let waited = now.min(until_ns).saturating_sub(begun_ns);
        self.stood(need, |peer| peer.waited(waited, limit));
        self.counted_ns = now;
    }

    /// Like [`waited`](Self::waited), for a message that is about to be dropped or refused for lack of space.
    pub(super) fn refused(&mut self, need: Need, now: u64, limit: Limit) {
        let since = if self.counted_ns == 0 { 0 } else { now.saturating_sub(self.counted_ns) };
        self.stood(need, |peer| peer.refused(since, limit));
        self.counted_ns = now;
    }

    fn stood(&mut self, need: Need, count: impl FnMut(&mut Peer)) {
        self.list.iter_mut().filter(|peer| peer.is_wanting(need)).for_each(count);
    }

    /// The readers that the writer is waiting for now.
    fn holding_up(&self, need: Need) -> impl Iterator<Item = &Peer> {
        let slowest = move |peer: &Peer| peer.cursor() == self.least || matches!(need, Need::Ack { .. });
        self.list.iter().filter(move |peer| peer.is_wanting(need) && slowest(peer))
    }

    /// The time until one of these readers must be asked or evicted.
    pub(super) fn left_ns(&self, need: Need, limit: Limit) -> u64 {
        self.holding_up(need).map(|peer| peer.left_ns(limit)).min().unwrap_or(u64::MAX)
    }

    /// One of these readers that has stood still for `evict_after`, and the reason for its eviction.
    pub(super) fn overdue(&self, need: Need, limit: Limit, tail: u64) -> Option<(u32, String)> {
        self.holding_up(need).find_map(|peer| Some((peer.id(), peer.overdue(limit, tail)?)))
    }

    /// Whether [`wake`](Self::wake) may have anything to do. Call this after [`Barrier::light`](crate::ring::wake::Barrier::light).
    #[inline(always)]
    pub(super) fn anybody_waits(&self) -> bool {
        self.list.iter().any(Peer::may_sleep)
    }

    /// Wakes the readers that sleep before the tail; returns whether there were any. `all` includes readers that were
    /// often woken without effect.
    pub(super) fn wake(&mut self, tail: u64, all: bool) -> bool {
        let mut woken = false;
        for peer in &mut self.list {
            woken |= peer.wake_before(tail, all);
        }
        woken
    }
}
