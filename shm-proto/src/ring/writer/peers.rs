//! The readers as the writer sees them. Their pages are hostile input: one load, one check, then a decision.

use std::sync::atomic::Ordering;

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

/// One attached reader.
#[derive(Debug)]
pub(super) struct Peer {
    id: u32,
    /// Which page it has: device and number of the file.
    page_id: FileId,
    /// The daemon that named it is dead, and the one that has come in its place has not named it yet.
    is_disowned: bool,
    page: SharedPage<ReaderPage>,
    bell: Bell,
    /// Everything before this position it has read; checked.
    cursor: u64,
    /// While joining: the floor when it was registered. Its start may still be chosen, at this place or later.
    hold: Option<u64>,
    standstill: Standstill,
    wakes: Wakes,
    /// Its process, number and start, if that was found alive when it had chosen its start. What another PID namespace calls it means
    /// nothing here.
    process: Option<(u32, u64)>,
}

/// What comes with a reader's name.
pub(super) struct Named {
    /// As [`Peer::page_id`].
    pub(super) page_id: FileId,
    pub(super) page: SharedPage<ReaderPage>,
    pub(super) bell: Bell,
}

/// What the writer needs from its readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Space: the slowest reader has to give some back.
    Space {
        /// Position of the tail.
        tail: u64,
    },
    /// Acknowledgement: every reader has to read a message.
    Ack {
        /// Position after the message.
        target: u64,
    },
}

impl Peer {
    /// The position up to which it has read everything, as last seen.
    pub(super) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Takes one look at the cursor. `Err` says what is wrong with it.
    fn look(&mut self, tail: u64) -> Result<(), String> {
        // Acquire: pairs with the Release in `publish_cursor`; the reader is done with what lies before.
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

    /// The process that its page names.
    fn named_process(&self) -> Option<(u32, u64)> {
        // Acquire: pairs with the Release store, which the start comes before.
        let pid = u32::try_from(self.page.line.pid.load(Ordering::Acquire)).ok().filter(|pid| *pid != 0)?;
        Some((pid, self.page.line.start.load(Ordering::Relaxed)))
    }

    /// Whether it has said that it reads no more, or its process is dead.
    fn is_gone(&self) -> bool {
        // Acquire: pairs with the Release store in `Page::leave`. The daemon may have died before it told that it evicted this
        // reader.
        self.page.line.pid.load(Ordering::Acquire) == PID_LEFT
            || self.page.control.value.load(Ordering::SeqCst) & control::EVICTED != 0
            || self.process.is_some_and(|(pid, start)| !process::is_alive(pid, start))
    }

    /// Whether it has not chosen its start yet.
    pub(super) fn is_joining(&self) -> bool {
        // Relaxed: the value alone counts. Space is given up only for a cursor that `look` has loaded.
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

    /// Sleeps until the cursor reaches `wanted` or the moment comes, unless the cursor is there already or `may_sleep` says no.
    /// `None` if the cursor is there.
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

    /// Wakes it in the way it sleeps.
    #[cold]
    fn wake(&self, how: u32) {
        match how {
            waiting::BELL => self.bell.ring(),
            _ => Semaphore::new(&self.page.wake).post(),
        }
    }

    /// Tells it that it is evicted. From here on its bytes may be overwritten.
    pub(super) fn mark_evicted(&self) {
        // What this reader holds is overwritten only after the floor has been replaced, and the Release fence in that store
        // comes after this: it pairs with the Acquire fence in `is_unchanged`.
        self.page.control.value.fetch_or(control::EVICTED, Ordering::SeqCst);
        Semaphore::new(&self.page.wake).post();
        self.bell.ring();
    }
}

/// All attached readers.
#[derive(Debug)]
pub(super) struct Peers {
    list: Vec<Peer>,
    /// The least checked cursor; `u64::MAX` without readers.
    least: u64,
    /// Where the floor stood when lines began to be held back that may name readers; and when that was, `CLOCK_MONOTONIC`
    /// nanoseconds.
    withheld: Option<(u64, u64)>,
    /// When time was last counted against readers that stand still, `CLOCK_MONOTONIC` nanoseconds.
    counted_ns: u64,
}

impl Peers {
    pub(super) fn new(most: u32) -> Peers {
        Peers { list: Vec::with_capacity(most.min(1024) as usize), least: u64::MAX, withheld: None, counted_ns: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The readers whose cursor is exactly here.
    pub(super) fn at(&self, pos: u64) -> Vec<u32> {
        self.list.iter().filter(|peer| peer.cursor == pos).map(|peer| peer.id).collect()
    }

    /// The least cursor as last seen.
    pub(super) fn least(&self) -> u64 {
        self.least
    }

    /// How many have chosen their start.
    pub(super) fn joined(&self) -> usize {
        self.list.iter().filter(|peer| !peer.is_joining()).count()
    }

    /// Registers a reader: nothing from the floor on is overwritten before it has been read.
    pub(super) fn add(&mut self, id: u32, named: Named, floor: u64) {
        let Named { page_id, page, bell } = named;
        if let Some(peer) = self.list.iter_mut().find(|peer| peer.is_disowned && peer.page_id == page_id) {
            // It has stayed through the daemon's death, and keeps its place.
            (peer.id, peer.bell, peer.is_disowned) = (id, bell, false);
            return;
        }
        // Release, through SeqCst: pairs with the Acquire load in the reader's `is_intact`. Who sees the bit sees a floor that is
        // no older than this one.
        page.control.value.fetch_or(control::REGISTERED, Ordering::SeqCst);
        let (standstill, wakes) = (Standstill::default(), Wakes::new());
        let (cursor, hold) = (floor, Some(floor));
        let (is_disowned, process) = (false, None);
        let peer = Peer { id, page_id, is_disowned, page, bell, cursor, hold, standstill, wakes, process };
        self.list.push(peer);
        self.least = self.least.min(floor);
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Peer> {
        let at = self.list.iter().position(|peer| peer.id == id)?;
        let peer = self.list.swap_remove(at);
        self.settle();
        Some(peer)
    }

    /// Another daemon has come in the place of one that died. It names the readers anew, under other numbers.
    pub(super) fn disown(&mut self) {
        for (peer, id) in self.list.iter_mut().zip((0..=u32::MAX).rev()) {
            (peer.id, peer.is_disowned) = (id, true);
        }
    }

    /// Lets go of readers that are dead, as nobody else would tell: all of them while there is no daemon, and those that the present
    /// one has not named.
    pub(super) fn bury(&mut self, has_daemon: bool) {
        let before = self.list.len();
        self.list.retain(|peer| (has_daemon && !peer.is_disowned) || !peer.is_gone());
        if self.list.len() < before {
            self.settle();
        }
    }

    fn settle(&mut self) {
        let least = self.list.iter().map(|peer| peer.cursor).min().unwrap_or(u64::MAX);
        self.least = self.withheld.map_or(least, |(floor, _)| least.min(floor));
    }

    /// Counts as if somebody stood at `floor`, until it is `None`: not everybody who reads may be known.
    pub(super) fn withhold(&mut self, floor: Option<u64>) {
        self.withheld = floor.map(|floor| self.withheld.unwrap_or_else(|| (floor, monotonic_ns())));
        self.settle();
    }

    /// Whether lines are held back.
    pub(super) fn is_withheld(&self) -> bool {
        self.withheld.is_some()
    }

    /// Since when lines have been held back.
    pub(super) fn withheld_since_ns(&self) -> Option<u64> {
        self.withheld.map(|(_, since)| since)
    }

    /// Looks at every cursor. Gives the number of a reader whose cursor is impossible, and why.
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

    /// The reader that holds everything up.
    pub(super) fn slowest(&self) -> Option<&Peer> {
        self.list.iter().min_by_key(|peer| peer.cursor)
    }

    /// A reader that has not come as far as the writer needs.
    pub(super) fn wanting(&self, need: Need) -> Option<&Peer> {
        self.list.iter().find(|peer| peer.is_wanting(need))
    }

    /// How many readers have not come as far as the writer needs.
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

    /// Counts a wait of the writer against the readers that have not come as far as the writer needs, and asks them for their
    /// cursors now and then. The wait is counted from when it began to now, or to when it was meant to end: if it took longer than
    /// that, this process was stopped, and the readers may have been stopped with it.
    ///
    /// A wait for space counts against all of them, not only the slowest: of several stopped readers each would otherwise hold the
    /// writer up for `evict_after`, one after the other.
    pub(super) fn waited(&mut self, need: Need, begun_ns: u64, until_ns: u64, limit: Limit) {
        let now = monotonic_ns();
        let waited = now.min(until_ns).saturating_sub(begun_ns);
        self.stood(need, |standstill| standstill.waited(waited, limit));
        self.counted_ns = now;
    }

    /// Like [`waited`](Self::waited), for a message that is about to be dropped or refused for want of space.
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

    /// The readers that the writer waits for right now.
    fn holding_up(&self, need: Need) -> impl Iterator<Item = &Peer> {
        let slowest = move |peer: &Peer| peer.cursor == self.least || matches!(need, Need::Ack { .. });
        self.list.iter().filter(move |peer| peer.is_wanting(need) && slowest(peer))
    }

    /// How long to wait until one of them has to be asked or evicted.
    pub(super) fn left_ns(&self, need: Need, limit: Limit) -> u64 {
        self.holding_up(need).map(|peer| peer.standstill.left_ns(limit)).min().unwrap_or(u64::MAX)
    }

    /// One of them that has stood still for `evict_after`, and what to say when it is evicted.
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

    /// Whether [`wake`](Self::wake) may have anything to do. After [`Barrier::light`](wake::Barrier::light).
    #[inline(always)]
    pub(super) fn anybody_waits(&self) -> bool {
        // Relaxed: the barrier before makes sure that a flag is not missed; `sleeps_before` loads it again, with Acquire, before
        // it looks at anything that belongs to it.
        self.list.iter().any(|peer| peer.page.waiting.value.load(Ordering::Relaxed) != waiting::NO)
    }

    /// Wakes the readers that sleep before the tail; returns whether there were any. `all` includes the readers that were often
    /// woken in vain.
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
