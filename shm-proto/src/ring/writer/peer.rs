//! One reader as the writer sees it. Its page is hostile input: load once, check once, then decide.

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
    /// The last cursor before `hold`: the reader is still in the segment before this one.
    former: u64,
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
    /// Registers a reader: from now on, nothing at or after the floor is overwritten before the reader has read it. Rings the
    /// reader's bell if the reader has a place already.
    pub(super) fn register(id: u32, named: Named, floor: u64) -> Peer {
        let Named { page_id, page, bell } = named;
        // Release, as part of SeqCst, pairs with the Acquire load in the reader's `is_intact`: a reader that sees the
        // bit sees a floor that is no older than this one.
        page.control.value.fetch_or(control::REGISTERED, Ordering::SeqCst);
        let (standstill, wakes) = (Standstill::default(), Wakes::new());
        let (cursor, hold, former) = (floor, Some(floor), 0);
        let (is_disowned, lost_ns, process) = (false, None, None);
        let peer =
            Peer { id, page_id, is_disowned, lost_ns, page, bell, cursor, hold, former, standstill, wakes, process };
        peer.ring_anyway();
        peer
    }

    /// The daemon's number for the reader.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Whether the daemon that named this reader is dead, and the daemon that came in its place has not named it yet.
    pub(super) fn is_disowned(&self) -> bool {
        self.is_disowned
    }

    /// Another daemon has come in the place of a dead one. It names the reader again, with another number than this.
    pub(super) fn disown(&mut self, id: u32) {
        (self.id, self.is_disowned, self.lost_ns) = (id, true, None);
    }

    /// Whether the daemon that came in the place of a dead one names this reader by this page.
    pub(super) fn is_named_again(&self, page_id: FileId) -> bool {
        self.is_disowned && self.page_id == page_id
    }

    /// The reader has outlived the daemon's death, and keeps its place.
    pub(super) fn own(&mut self, id: u32, bell: Bell) {
        (self.id, self.bell, self.is_disowned, self.lost_ns) = (id, bell, false, None);
        self.ring_anyway();
    }

    /// The position up to which the reader has read everything, as last seen.
    pub(super) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Takes one look at the cursor. `Err` says what is wrong with it. No segment has more than `most` bytes: a cursor that is
    /// further behind the floor is no reader's of the segment before, and its movement buys no time.
    pub(super) fn look(&mut self, tail: u64, most: u64) -> Result<(), String> {
        // Acquire pairs with the Release in `publish_cursor`: the reader has finished with everything before the
        // cursor.
        let cursor = self.page.line.cursor.load(Ordering::Acquire);
        if let Some(hold) = self.hold {
            if cursor == CURSOR_JOINING {
                return Ok(());
            }
            if cursor < hold {
                if cursor > self.former && hold - cursor <= most {
                    self.former = cursor;
                    self.standstill.moved();
                }
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
    pub(super) fn is_gone(&self) -> bool {
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
    pub(super) fn is_wanting(&self, need: Need) -> bool {
        match need {
            Need::Space { tail } => self.cursor < tail,
            // A reader that has not chosen its start need not read the message.
            Need::Ack { target } => self.cursor < target && !self.is_joining(),
        }
    }

    /// Looks for the end of a reader that died together with its daemon. `passed_ns` is the time since the last look; `may_be`
    /// is false if no reader can be lost now.
    pub(super) fn look_for_end(&mut self, may_be: bool, passed_ns: u64) {
        // A reader that has come back has another bell. Then the daemon's line about it is on its way.
        let is_lost = may_be && self.is_disowned && self.process.is_none() && self.bell.is_alone();
        self.lost_ns = is_lost.then(|| self.lost_ns.map_or(0, |ns| ns.saturating_add(passed_ns)));
    }

    /// Whether the reader has been lost for as long as this.
    pub(super) fn is_lost_for(&self, ns: u64) -> bool {
        self.lost_ns.is_some_and(|lost| lost >= ns)
    }

    /// Makes the reader publish its cursor after its current message.
    pub(super) fn ask(&mut self) {
        self.ask_for_cursor();
        self.standstill.asked();
    }

    /// Counts a wait of the writer for this reader, and asks the reader for its cursor from time to time.
    pub(super) fn waited(&mut self, ns: u64, limit: Limit) {
        if self.standstill.waited(ns, limit) {
            self.ask_for_cursor();
        }
    }

    /// Like [`waited`](Self::waited), for a message that is about to be dropped or refused for lack of space.
    pub(super) fn refused(&mut self, since_ns: u64, limit: Limit) {
        if self.standstill.refused(since_ns, limit) {
            self.ask_for_cursor();
        }
    }

    fn ask_for_cursor(&self) {
        wake::ask_for_cursor(&self.page.space_wanted.give_at);
    }

    /// The time until the reader must be asked or evicted.
    pub(super) fn left_ns(&self, limit: Limit) -> u64 {
        self.standstill.left_ns(limit)
    }

    /// The reason for the reader's eviction, if it has stood still for `evict_after`.
    pub(super) fn overdue(&self, limit: Limit, tail: u64) -> Option<String> {
        if !self.standstill.is_over(limit) {
            return None;
        }
        let lag = tail - self.cursor;
        let (stood, refused) = (self.standstill.stood_ns() / 1_000_000, self.standstill.refusals());
        Some(if refused == 0 {
            format!("it held the writer up for {stood} ms without reading, {lag} bytes behind")
        } else {
            format!(
                "it read nothing for {stood} ms while there was no space for {refused} messages, {lag} bytes behind"
            )
        })
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

    /// Whether [`wake_before`](Self::wake_before) may have anything to do. Call this after
    /// [`Barrier::light`](wake::Barrier::light).
    #[inline(always)]
    pub(super) fn may_sleep(&self) -> bool {
        // Relaxed: the preceding barrier ensures that no flag is missed. `sleeps_before` loads the flag again, with
        // Acquire, before it looks at anything that belongs to the flag.
        self.page.waiting.value.load(Ordering::Relaxed) != waiting::NO
    }

    /// Wakes the reader if it sleeps before the tail; returns whether it did. `anyway` also wakes a reader that was often
    /// woken without effect.
    pub(super) fn wake_before(&mut self, tail: u64, anyway: bool) -> bool {
        let page = &self.page;
        if !wake::sleeps_before(&page.waiting.value, &page.line.cursor, tail) {
            return false;
        }
        let cursor = page.line.cursor.load(Ordering::Relaxed);
        if !self.wakes.is_due(cursor, monotonic_ns) && !anyway {
            return false;
        }
        let how = wake::take(&page.waiting.value);
        if how == waiting::NO {
            return false;
        }
        self.wake(how);
        true
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
