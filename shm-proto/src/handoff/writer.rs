//! Role A: makes the objects, offers one message at a time, and waits for its acknowledgement.

mod create;
mod end;
mod journal;
mod late;
mod settings;
mod size;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::fcntl::Flock;

use super::Access;
use super::layout::{FIRST, HEADER_SIZE, PAGE};
use super::objects::Objects;
use crate::error::{Blocked, SystemError};
use crate::handoff::error::{HandoffError, Result};
use crate::os::clock::{self, monotonic_ns};
use crate::os::sem::Wait;

pub use end::Waker;
pub use journal::{Entry, Journal, Stage, TakenUp};
pub use settings::{Counters, Origin, Settings};
pub use size::Resized;

/// How long to wait for the mutex, in nanoseconds. A correct peer holds it no longer than a copy takes.
const LOCK: u64 = 1_000_000_000;
/// The number of times to initialise the mutex in one call. If that is not enough, a peer keeps breaking it.
const REPAIRS: u32 = 8;

/// What became of a message so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// A reader has read it.
    Acknowledged,
    /// It is on offer.
    Waiting,
    /// No reader acknowledged it in time, and the policy is to drop.
    Dropped,
}

/// A message on offer.
#[derive(Clone, Copy, Debug)]
struct Offer {
    len: u64,
    /// The file's length when the message was offered. A reader of the message has seen this length.
    seen: u64,
    /// A reader has taken the post of `avail`, as far as was seen.
    is_taken: bool,
    deadline: u64,
}

/// The writer of a handoff channel. Dropping the writer withdraws the message on offer and removes the objects;
/// [`close`](Self::close) does the same and returns errors.
#[derive(Debug)]
pub struct Writer {
    settings: Settings,
    objects: Objects,
    origin: Origin,
    /// The file's length.
    len: u64,
    offer: Option<Offer>,
    shrink_to: Option<u64>,
    counters: Counters,
    journal: Option<Box<dyn Journal>>,
    /// What the journal holds.
    entry: Entry,
    woken: Arc<AtomicBool>,
    ending: Arc<AtomicBool>,
    is_adopted: bool,
    /// The objects are gone.
    removed: bool,
    _owner: Flock<OwnedFd>,
}

impl Writer {
    /// Makes the objects, or takes over stale ones of this user.
    ///
    /// # Errors
    /// [`HandoffError::System`] of kind `AlreadyExists` if another writer or another user has one of the names, or if a program
    /// that is not shmd's still uses the segment; [`HandoffError::Locked`] if a peer holds the mutex of a stale segment for a
    /// second; otherwise what the system says.
    pub fn create(settings: Settings) -> Result<Self> {
        Self::create_within(settings, Duration::from_nanos(LOCK), &AtomicBool::new(false))
    }

    /// As [`create`](Self::create), but waits no longer than `patience` for the mutex of a stale segment, and for memory only
    /// until `ending` says that the writer is not wanted any more.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_within(settings: Settings, patience: Duration, ending: &AtomicBool) -> Result<Self> {
        let mut settings = settings;
        settings.max_capacity = (settings.max_capacity / PAGE * PAGE).max(PAGE);
        settings.capacity =
            settings.capacity.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX).clamp(PAGE, settings.max_capacity);
        settings.max_message = settings.max_message.min(settings.max_capacity - HEADER_SIZE);
        let made = create::make(&settings, patience, ending)?;
        Ok(Self {
            len: made.objects.segment.len()?,
            settings,
            objects: made.objects,
            origin: made.origin,
            is_adopted: matches!(made.origin, Origin::Adopted { .. }),
            offer: None,
            shrink_to: None,
            counters: Counters::default(),
            journal: None,
            entry: Entry::default(),
            woken: Arc::default(),
            ending: Arc::default(),
            removed: false,
            _owner: made.owner,
        })
    }

    /// Where the objects come from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The segment's length in bytes. A message that is [`HEADER_SIZE`] bytes shorter fits without growing.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.len
    }

    /// The settings, sizes rounded.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Bytes of the message on offer.
    #[must_use]
    pub fn on_offer(&self) -> Option<u64> {
        self.offer.map(|offer| offer.len)
    }

    /// A handle that ends waits of this writer from other threads.
    #[must_use]
    pub fn waker(&self) -> Waker {
        let (woken, ending) = (Arc::clone(&self.woken), Arc::clone(&self.ending));
        Waker { done: Arc::clone(&self.objects.done), woken, ending }
    }

    /// For changing mode and group of the objects while the writer is at work.
    #[must_use]
    pub fn access(&self) -> Access {
        Access::of(&self.objects)
    }

    /// Sets the policy for messages that are not acknowledged in time. This includes the message on offer, whose time starts
    /// again.
    pub fn set_policy(&mut self, drop_late: bool, ack_timeout: Duration) {
        (self.settings.drop_late, self.settings.ack_timeout) = (drop_late, ack_timeout);
        self.offer = self.offer.map(|offer| Offer { deadline: self.deadline(offer.is_taken), ..offer });
    }

    /// Does `work` while holding the mutex, which is recovered if necessary.
    fn locked<R>(&mut self, work: impl FnOnce(&Objects) -> R) -> Result<R> {
        for _ in 0..REPAIRS {
            match self.objects.segment.lock(monotonic_ns() + LOCK)? {
                Some(guard) => {
                    self.counters.recovered += u64::from(guard.recovered());
                    return Ok(work(&self.objects));
                }
                None => {
                    self.objects.segment.mutex().init()?;
                    self.counters.repaired += 1;
                }
            }
        }
        Err(self.objects.segment.corrupt("its mutex is broken again as soon as it is made anew".to_owned()))
    }

    /// Offers a message and returns at once. [`progress`](Self::progress) says what happens to the message.
    ///
    /// # Errors
    /// [`HandoffError::WouldBlock`] while another message is on offer, [`HandoffError::TooLarge`], [`HandoffError::NoSpace`] if
    /// the segment cannot grow, [`HandoffError::Locked`]. The message is then not on offer.
    pub fn offer(&mut self, message: &[u8]) -> Result<()> {
        self.offer_parts(0, message.len() as u64, |put| put(message))
    }

    /// As [`offer`](Self::offer), for a message of `len` bytes in several pieces, which `parts` puts one after another. `number` is
    /// noted in the journal, if there is one.
    ///
    /// # Errors
    /// As [`offer`](Self::offer), what `parts` returns, and what the journal returns.
    ///
    /// # Panics
    /// If `parts` puts more than `len` bytes.
    pub fn offer_parts(
        &mut self,
        number: u64,
        len: u64,
        parts: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<(), SystemError>) -> Result<(), SystemError>,
    ) -> Result<()> {
        let channel = || self.settings.names.segment.clone();
        if let Some(offer) = self.offer {
            let reason = Blocked::Full { used: offer.len, capacity: self.len };
            return Err(HandoffError::WouldBlock { channel: channel(), reason });
        }
        if len > self.settings.max_message {
            return Err(HandoffError::TooLarge { channel: channel(), len, limit: self.settings.max_message });
        }
        self.make_room(len)?;
        self.clear_posts();
        let mut entry = Entry { number, counters: self.counters, shrink_to: self.shrink_to, ..Entry::default() };
        let mut journal = self.journal.take();
        let placed = self.locked(|objects| {
            let (mut at, mut first) = (0, [0; FIRST]);
            parts(&mut |part| {
                let from = at;
                at += part.len() as u64;
                assert!(at <= len, "parts of a message are longer than the message");
                let (head, rest) = part.split_at(part.len().min(FIRST.saturating_sub(from as usize)));
                for (byte, place) in head.iter().zip(&mut first[from.min(FIRST as u64) as usize..]) {
                    *place = *byte;
                }
                if rest.is_empty() { Ok(()) } else { objects.segment.copy_in(from + head.len() as u64, rest) }
            })?;
            if let Some(journal) = &mut journal {
                // In this order: see `journal`.
                objects.segment.place(false, first.map(|byte| !byte));
                entry.stage = Stage::Offered(first);
                journal.note(&entry)?;
            }
            objects.segment.header().data_size.store(len, Ordering::Relaxed);
            objects.segment.place(true, first);
            Ok::<(), SystemError>(())
        });
        self.journal = journal;
        placed??;
        self.entry = entry;
        self.offer = Some(Offer { len, seen: self.len, is_taken: false, deadline: self.deadline(false) });
        self.objects.avail.post();
        Ok(())
    }

    /// Takes away posts that belong to no message. The nudge of a waker is not lost, because the waker's flag stays.
    fn clear_posts(&mut self) {
        let posts = u64::from(self.objects.done.posts()) + u64::from(self.objects.avail.take_all());
        self.objects.done.take_all();
        self.counters.stray_posts += posts;
    }

    /// Whether a reader says that it has read the message on offer.
    fn is_read(&self) -> bool {
        // Acquire pairs with the Release of a reader of this library. A reader in C stores the flag like any other variable, so
        // on 64-bit Arm the store may become visible before the reader has copied the message. But that reader still holds the
        // mutex then, and the writer changes nothing before it has taken the mutex: see `offer_parts`.
        self.objects.segment.header().ready_flag.load(Ordering::Acquire) == 0
    }

    /// Waits until the message on offer is acknowledged, dropped or offered again, a [`Waker`] wakes the writer, a signal handler
    /// runs, or `CLOCK_MONOTONIC` reaches `until_ns`. If no message is on offer, returns [`Progress::Acknowledged`] at once.
    ///
    /// # Errors
    /// [`HandoffError::Locked`] if the message should have been offered again or withdrawn, but a peer holds the mutex. The
    /// next call tries again.
    pub fn progress(&mut self, until_ns: u64) -> Result<Progress> {
        loop {
            let Some(offer) = self.offer else { return Ok(Progress::Acknowledged) };
            if self.woken.swap(false, Ordering::Acquire) {
                self.objects.done.take_nudges();
                return Ok(Progress::Waiting);
            }
            match self.objects.done.watch_until(offer.deadline.min(until_ns)) {
                Wait::Posted if self.objects.done.posts() == 0 => {
                    // A nudge: the flag was raised before it.
                    self.objects.done.take_nudges();
                    continue;
                }
                Wait::Posted if self.is_read() => return self.acknowledged(offer),
                Wait::Posted => self.counters.stray_posts += u64::from(self.objects.done.try_wait()),
                Wait::Interrupted => return Ok(Progress::Waiting),
                Wait::TimedOut => {}
            }
            // This is checked after a post, too: a peer that posts all the time must not delay the deadlines.
            let now = monotonic_ns();
            if now >= offer.deadline {
                return self.overdue(offer);
            }
            if now >= until_ns {
                return Ok(Progress::Waiting);
            }
        }
    }

    fn acknowledged(&mut self, offer: Offer) -> Result<Progress> {
        let before = self.counters;
        self.counters.messages += 1;
        self.counters.bytes += offer.len;
        if let Err(error) = self.note_end() {
            self.counters = before;
            return Err(error.into());
        }
        self.offer = None;
        // Not before the end is noted: the post is the only sign of it. It may be gone if a peer takes posts as well.
        let _ = self.objects.done.try_wait();
        // A peer that holds the mutex only delays these steps: the next acknowledgement tries again.
        let told = self.tell_capacity(offer.seen);
        if let (Ok(()), Some(new)) = (told, self.shrink_to)
            && self.shrink(new).is_err()
        {
            self.shrink_to = Some(new);
        }
        Ok(Progress::Acknowledged)
    }

    /// Offers a message and waits until it is acknowledged or dropped. Without a timeout, only the policy limits the wait.
    ///
    /// ```no_run
    /// use shm_proto::internal::handoff::{Names, Settings, Writer};
    /// let names = Names::new("/demo_shm", "/sem_avail", "/sem_done")?;
    /// let mut writer = Writer::create(Settings::new(names))?;
    /// writer.publish(b"hello\0", None)?;
    /// # Ok::<(), shm_proto::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`offer`](Self::offer) and [`progress`](Self::progress); [`HandoffError::TimedOut`] if no reader has
    /// acknowledged the message within the timeout. The message is then withdrawn.
    pub fn publish(&mut self, message: &[u8], timeout: Option<Duration>) -> Result<Progress> {
        let until = clock::deadline(timeout);
        self.offer(message)?;
        loop {
            match self.progress(until)? {
                Progress::Waiting if monotonic_ns() >= until => {
                    if self.withdraw()? == Progress::Acknowledged {
                        return Ok(Progress::Acknowledged);
                    }
                    let what = format!("a reader of {}", self.settings.names.segment);
                    return Err(HandoffError::TimedOut { what, waited: timeout.unwrap_or_default() });
                }
                Progress::Waiting => {}
                end => return Ok(end),
            }
        }
    }
}
