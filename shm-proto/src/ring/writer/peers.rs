//! The readers as the writer sees them. Their pages are hostile input: load once, check once, then decide.

use std::sync::atomic::Ordering;

use super::need::Need;
use super::wakes::Wakes;
use crate::os::bell::Bell;
use crate::os::clock::monotonic_ns;
use crate::os::file_id::FileId;
use crate::os::page::SharedPage;
use crate::os::process;
use crate::os::sem::{Semaphore, Wait};
use crate::ring::layout::{CURSOR_JOINING, PID_LEFT, ReaderPage, control, waiting};
use crate::ring::standstill::{Limit, Standstill};
use crate::ring::wake;

/// As long as readers wait for the next daemon, unless they are told otherwise.
const LOST_AFTER_NS: u64 = 30_000_000_000;
/// More time than this does not count between two looks: this process may have been stopped, and the readers with it, and lines
/// of the daemon wait to be read.
const MOST_BETWEEN_LOOKS_NS: u64 = 1_000_000_000;

/// One attached reader.
#[derive(Debug)]
pub(super) struct Peer {
    id: u32,
    /// The reader's page: device and inode number of the file.
    page_id: FileId,
    /// The daemon that named this reader is dead, and the daemon that came in its place has not named it yet.
    is_disowned: bool,
    /// For how long nobody has had the reader's end of its bell, while the present daemon did not name the reader.
    lost_ns: Option<u64>,
    page: SharedPage<ReaderPage>,
    bell: Bell,
    /// The reader has read everything before this position. Checked.
    cursor: u64,
    /// While the reader is joining: the floor when it was registered. The reader may still choose this place or a later
    /// one as its start.
    hold: Option<u64>,
    standstill: Standstill,
    wakes: Wakes,
    /// The reader's process, number and start, if it was found alive when the reader had chosen its start. A process
    /// number from another PID namespace means nothing here.
    process: Option<(u32, u64)>,
}

/// What comes with a reader's name.
pub(super) struct Named {
    /// As [`Peer::page_id`].
    pub(super) page_id: FileId,
    pub(super) page: SharedPage<ReaderPage>,
    pub(super) bell: Bell,
}

impl Peer {
    /// The position up to which the reader has read everything, as last seen.
    pub(super) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Takes one look at the cursor. `Err` says what is wrong with it.
    fn look(&mut self, tail: u64) -> Result<(), String> {
        // Acquire pairs with the Release in `publish_cursor`: the reader has finished with everything before the
        // cursor.
        let cursor = self.page.line.cursor.load(Ordering::Acquire);
        if let Some(hold) = self.hold {
            if cursor == CURSOR_JOINING || cursor < hold {
                return Ok(());
            }
            self.hold = None;
            self.standstill.moved();
            self.process = self.named_process().filter(|&(pid, start)| process::is_alive(pid, start));
        }
        if cursor < self.cursor || cursor > tail {
            return Err(format!("its cursor says {cursor}, possible are {} to {tail}", self.cursor));
        }
        if cursor > self.cursor {
            self.cursor = cursor;
            self.standstill.moved();
        }
        Ok(())
    }

    /// The process that the reader's page names.
    fn named_process(&self) -> Option<(u32, u64)> {
        // Acquire pairs with the Release store of the number, before which the reader stores the start.
        let pid = u32::try_from(self.page.line.pid.load(Ordering::Acquire)).ok().filter(|pid| *pid != 0)?;
        Some((pid, self.page.line.start.load(Ordering::Relaxed)))
    }

    /// Whether the reader has said that it reads no more, or was evicted, or its process is dead.
    fn is_gone(&self) -> bool {
        // Acquire pairs with the Release store in `Page::leave`. The daemon may have died before it could report that
        // it had evicted this reader.
        self.page.line.pid.load(Ordering::Acquire) == PID_LEFT
            || self.page.control.value.load(Ordering::SeqCst) & control::EVICTED != 0
            || self.process.is_some_and(|(pid, start)| !process::is_alive(pid, start))
    }

    /// Whether the reader has not chosen its start yet.
    pub(super) fn is_joining(&self) -> bool {
        // Relaxed: only the value itself matters. Space is given up only for a cursor that `look` has loaded.
        self.hold.is_some() && self.page.line.cursor.load(Ordering::Relaxed) == CURSOR_JOINING
    }

    /// Whether this reader has not come as far as the writer needs.
    fn is_wanting(&self, need: Need) -> bool {
        match need {
            Need::Space { tail } => self.cursor < tail,
            // A reader that has not chosen its start need not read the message.
            Need::Ack { target } => self.cursor < target && !self.is_joining(),
        }
    }

    /// Makes the reader publish its cursor after its current message.
    fn ask(&self) {
        wake::ask_for_cursor(&self.page.space_wanted.give_at);
    }

    /// Sleeps until the cursor reaches `wanted` or the given time comes, unless the cursor is already there or
    /// `may_sleep` returns false. Returns `None` if the cursor is there.
    pub(super) fn sleep_until_read(
        &self,
        wanted: u64,
        until_ns: u64,
        may_sleep: impl FnOnce() -> bool,
    ) -> Option<Wait> {
        let space_wanted = &self.page.space_wanted.value;
        if wake::want_space(space_wanted, &self.page.line.cursor, wanted) {
            return None;
        }
        let woken = if may_sleep() { Semaphore::new(&self.page.space).wait_until(until_ns) } else { Wait::Interrupted };
        space_wanted.store(0, Ordering::Relaxed);
        Some(woken)
    }

    /// Wakes the reader in the way in which it sleeps.
    #[cold]
    fn wake(&self, how: u32) {
        match how {
            waiting::BELL => self.bell.ring(),
            _ => Semaphore::new(&self.page.wake).post(),
        }
    }

    /// Wakes a reader that has a place already, whatever its flag says. The flag may have been taken by a writer that then rang the
    /// bell which the reader had before the daemon's death, or that died before it rang.
    fn ring_anyway(&self) {
        // Relaxed: a reader that chooses its start now looks at the ring after that.
        if self.page.line.cursor.load(Ordering::Relaxed) != CURSOR_JOINING {
            self.bell.ring();
        }
    }

    /// Tells the reader that it is evicted. After this, its bytes may be overwritten.
    pub(super) fn mark_evicted(&self) {
        // What this reader holds is overwritten only after the floor has been replaced. The Release fence in that store
        // comes after this operation, and pairs with the Acquire fence in `is_unchanged`.
        self.page.control.value.fetch_or(control::EVICTED, Ordering::SeqCst);
        Semaphore::new(&self.page.wake).post();
        self.bell.ring();
    }
}

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
        self.list.iter().filter(|peer| peer.cursor == pos).map(|peer| peer.id).collect()
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
        let Named { page_id, page, bell } = named;
        if let Some(peer) = self.list.iter_mut().find(|peer| peer.is_disowned && peer.page_id == page_id) {
            // The reader has outlived the daemon's death, and keeps its place.
            (peer.id, peer.bell, peer.is_disowned, peer.lost_ns) = (id, bell, false, None);
            peer.ring_anyway();
            return;
        }
        // Release, as part of SeqCst, pairs with the Acquire load in the reader's `is_intact`: a reader that sees the
        // bit sees a floor that is no older than this one.
        page.control.value.fetch_or(control::REGISTERED, Ordering::SeqCst);
        // In a relayed ring, the reader of the next daemon takes over from the reader of a dead daemon.
        let before = self.list.iter().position(|peer| peer.is_disowned && self.is_relayed);
        let floor = before.map_or(floor, |at| self.list.swap_remove(at).cursor);
        let (standstill, wakes) = (Standstill::default(), Wakes::new());
        let (cursor, hold) = (floor, Some(floor));
        let (is_disowned, lost_ns, process) = (false, None, None);
        let peer = Peer { id, page_id, is_disowned, lost_ns, page, bell, cursor, hold, standstill, wakes, process };
        peer.ring_anyway();
        self.list.push(peer);
        self.settle();
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Peer> {
        let at = self.list.iter().position(|peer| peer.id == id)?;
        let peer = self.list.swap_remove(at);
        self.settle();
        Some(peer)
    }

    /// Another daemon has come in the place of a dead one. It names the readers again, with other numbers.
    pub(super) fn disown(&mut self) {
        for (peer, id) in self.list.iter_mut().zip((0..=u32::MAX).rev()) {
            (peer.id, peer.is_disowned, peer.lost_ns) = (id, true, None);
        }
    }

    /// Removes readers that are dead and that no daemon would report: any dead reader while there is no daemon, and
    /// dead readers that the current daemon has not named.
    pub(super) fn bury(&mut self, has_daemon: bool) {
        if self.is_relayed {
            return;
        }
        let before = self.list.len();
        self.list.retain(|peer| (has_daemon && !peer.is_disowned) || !peer.is_gone());
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
            // A reader that has come back has another bell. Then the daemon's line about it is on its way.
            let is_lost = may_be && peer.is_disowned && peer.process.is_none() && peer.bell.is_alone();
            peer.lost_ns = is_lost.then(|| peer.lost_ns.map_or(0, |ns| ns.saturating_add(passed)));
        }
        let after = self.lost_after_ns;
        let peer = self.list.iter().find(|peer| peer.lost_ns.is_some_and(|ns| ns >= after))?;
        Some((peer.id, "its process has ended, and no daemon has named it since".to_owned()))
    }

    fn settle(&mut self) {
        let least = self.list.iter().map(|peer| peer.cursor).min().unwrap_or(u64::MAX);
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

    /// Looks at every cursor. Returns a reader whose cursor is impossible, and the reason.
    pub(super) fn refresh(&mut self, tail: u64) -> Option<(u32, String)> {
        let mut bad = None;
        for peer in &mut self.list {
            if let Err(reason) = peer.look(tail) {
                bad = Some((peer.id, reason));
            }
        }
        self.settle();
        bad
    }

    /// The reader that holds up all others.
    pub(super) fn slowest(&self) -> Option<&Peer> {
        self.list.iter().min_by_key(|peer| peer.cursor)
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
            peer.standstill.asked();
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
        self.stood(need, |standstill| standstill.waited(waited, limit));
        self.counted_ns = now;
    }

    /// Like [`waited`](Self::waited), for a message that is about to be dropped or refused for lack of space.
    pub(super) fn refused(&mut self, need: Need, now: u64, limit: Limit) {
        let since = if self.counted_ns == 0 { 0 } else { now.saturating_sub(self.counted_ns) };
        self.stood(need, |standstill| standstill.refused(since, limit));
        self.counted_ns = now;
    }

    fn stood(&mut self, need: Need, mut ask: impl FnMut(&mut Standstill) -> bool) {
        for peer in self.list.iter_mut().filter(|peer| peer.is_wanting(need)) {
            if ask(&mut peer.standstill) {
                peer.ask();
            }
        }
    }

    /// The readers that the writer is waiting for now.
    fn holding_up(&self, need: Need) -> impl Iterator<Item = &Peer> {
        let slowest = move |peer: &Peer| peer.cursor == self.least || matches!(need, Need::Ack { .. });
        self.list.iter().filter(move |peer| peer.is_wanting(need) && slowest(peer))
    }

    /// The time until one of these readers must be asked or evicted.
    pub(super) fn left_ns(&self, need: Need, limit: Limit) -> u64 {
        self.holding_up(need).map(|peer| peer.standstill.left_ns(limit)).min().unwrap_or(u64::MAX)
    }

    /// One of these readers that has stood still for `evict_after`, and the reason for its eviction.
    pub(super) fn overdue(&self, need: Need, limit: Limit, tail: u64) -> Option<(u32, String)> {
        let peer = self.holding_up(need).find(|peer| peer.standstill.is_over(limit))?;
        let lag = tail - peer.cursor;
        let (stood, refused) = (peer.standstill.stood_ns() / 1_000_000, peer.standstill.refusals());
        let reason = if refused == 0 {
            format!("it held the writer up for {stood} ms without reading, {lag} bytes behind")
        } else {
            format!(
                "it read nothing for {stood} ms while there was no space for {refused} messages, {lag} bytes behind"
            )
        };
        Some((peer.id, reason))
    }

    /// Whether [`wake`](Self::wake) may have anything to do. Call this after [`Barrier::light`](wake::Barrier::light).
    #[inline(always)]
    pub(super) fn anybody_waits(&self) -> bool {
        // Relaxed: the preceding barrier ensures that no flag is missed. `sleeps_before` loads the flag again, with
        // Acquire, before it looks at anything that belongs to the flag.
        self.list.iter().any(|peer| peer.page.waiting.value.load(Ordering::Relaxed) != waiting::NO)
    }

    /// Wakes the readers that sleep before the tail; returns whether there were any. `all` includes readers that were
    /// often woken without effect.
    pub(super) fn wake(&mut self, tail: u64, all: bool) -> bool {
        let mut woken = false;
        for peer in &mut self.list {
            let page = &peer.page;
            if !wake::sleeps_before(&page.waiting.value, &page.line.cursor, tail) {
                continue;
            }
            let cursor = page.line.cursor.load(Ordering::Relaxed);
            if !peer.wakes.is_due(cursor, monotonic_ns) && !all {
                continue;
            }
            let how = wake::take(&peer.page.waiting.value);
            if how != waiting::NO {
                peer.wake(how);
                woken = true;
            }
        }
        woken
    }
}
