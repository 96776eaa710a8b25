//! Role B: waits for messages, copies them out, and acknowledges each one.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::stat::fstat;
use nix::unistd::geteuid;

use super::Names;
use super::objects::{LOOK, Objects, SEARCH};
use super::watch::{SignOfLife, Target, Watch};
use crate::handoff::error::{HandoffError, Result};
use crate::os::clock::{self, monotonic_ns};
use crate::os::process;
use crate::os::sem::Wait;

const MILLISECOND: u64 = 1_000_000;
/// A writer that starts removes the semaphores and makes new ones. If the names are missing for longer than this, the writer is
/// gone.
const GRACE: u64 = 100 * MILLISECOND;
/// How long a peer that holds the mutex may keep a message from this reader.
const LOCK: u64 = 5_000 * MILLISECOND;

/// A message was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The number of the message, counted from 0 by this reader. The protocol has no numbers.
    pub seq: u64,
    /// A peer had died while it held the mutex, and the mutex was recovered to read this message.
    pub recovered: bool,
}

/// The signs of a writer that a reader can see without a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterSign {
    /// A process holds the lock that a [`Writer`](super::Writer) holds on its segment. Programs in C hold no lock.
    Lock,
    /// Another process has the segment mapped: a writer, or another reader.
    Mapped,
    /// Neither. The writer was killed, or has not started yet.
    Nothing,
    /// Neither is seen, but `/proc` does not show this user what the processes of the segment's owner have mapped.
    Hidden,
}

/// A reader of a handoff channel.
///
/// The reader acknowledges a message when [`acknowledge`](Self::acknowledge) is called, when the next message is asked for, and
/// when the reader is dropped, unless the message was [given back](Self::give_back).
#[derive(Debug)]
pub struct Reader {
    names: Names,
    objects: Option<Arc<Objects>>,
    /// For a program with a poll loop.
    watch: Option<Watch>,
    /// `avail` was taken for a message that has not been copied yet.
    claimed: bool,
    /// When the first attempt was made to lock the mutex for that message.
    trying_since: Option<u64>,
    unacknowledged: bool,
    received: u64,
    stray_posts: u64,
}

impl Reader {
    /// A reader of these objects, which need not exist yet.
    #[must_use]
    pub fn new(names: Names) -> Self {
        Self {
            names,
            objects: None,
            watch: None,
            claimed: false,
            trying_since: None,
            unacknowledged: false,
            received: 0,
            stray_posts: 0,
        }
    }

    /// Reads from other objects from now on, as a new reader does, but with the same [`descriptor`](Self::descriptor).
    pub fn go_over_to(&mut self, names: Names) {
        let watch = self.watch.take();
        *self = Self::new(names);
        self.watch = watch;
    }

    /// The objects' names.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The signs of the writer now; `None` while the objects are not open, or if they have been removed since. The protocol does
    /// not say that a writer was killed: the objects stay, and a reader waits for the next writer. If no lock is held, this looks at
    /// every process in `/proc`.
    #[must_use]
    pub fn writer_sign(&self) -> Option<WriterSign> {
        let objects = self.objects.as_ref()?;
        let file = objects.segment.id();
        match () {
            () if process::is_locked(file) => Some(WriterSign::Lock),
            () if !process::mapped_by(file).is_empty() => Some(WriterSign::Mapped),
            // A writer that ends regularly removes them.
            () if !objects.are_current() => None,
            () if may_look_at_owner(objects) => Some(WriterSign::Nothing),
            () => Some(WriterSign::Hidden),
        }
    }

    /// Messages received.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Posts of `avail` without a message: another reader took the message, or there were too many posts.
    #[must_use]
    pub fn stray_posts(&self) -> u64 {
        self.stray_posts
    }

    /// Tells the writer that the last message has been read, unless the writer has been told already.
    pub fn acknowledge(&mut self) {
        if std::mem::take(&mut self.unacknowledged)
            && let Some(objects) = &self.objects
        {
            objects.done.post();
        }
    }

    /// Leaves the last message to another reader: this one does not acknowledge it, and the writer offers it again, or drops it,
    /// when the time for an acknowledgement is over. For a program that cannot process the message. Without effect after
    /// [`acknowledge`](Self::acknowledge).
    pub fn give_back(&mut self) {
        self.unacknowledged = false;
    }

    /// Waits for a message and replaces the contents of `into` with it. Without a timeout the wait has no limit.
    ///
    /// # Errors
    /// [`HandoffError::TimedOut`], and those of [`recv_until`](Self::recv_until).
    pub fn recv(&mut self, into: &mut Vec<u8>, timeout: Option<Duration>) -> Result<Received> {
        let until = clock::deadline(timeout);
        loop {
            match self.recv_until(into, until)? {
                Some(received) => return Ok(received),
                None if monotonic_ns() < until => {}
                None => {
                    let what = match self.objects {
                        Some(_) => format!("a message in {}", self.names.segment),
                        None => format!("a writer to make {}", self.names),
                    };
                    return Err(HandoffError::TimedOut { what, waited: timeout.unwrap_or_default() });
                }
            }
        }
    }

    /// As [`recv`](Self::recv), but returns `None` when `CLOCK_MONOTONIC` reaches `until_ns` or a signal handler runs.
    ///
    /// # Errors
    /// [`HandoffError::Closed`] if the writer has removed the objects (a later call waits for new ones),
    /// [`HandoffError::Locked`] if a peer has held the mutex for five seconds while there was a message,
    /// [`HandoffError::Corrupt`] for a `data_size` that the segment cannot hold, [`HandoffError::System`] if this user may not
    /// open the objects.
    pub fn recv_until(&mut self, into: &mut Vec<u8>, until_ns: u64) -> Result<Option<Received>> {
        self.acknowledge();
        loop {
            let now = monotonic_ns();
            let Some(objects) = &self.objects else {
                self.objects = Objects::open(&self.names)?.map(Arc::new);
                if self.objects.is_none() {
                    if now >= until_ns {
                        return Ok(None);
                    }
                    pause(until_ns.min(now + SEARCH));
                }
                continue;
            };
            if !self.claimed {
                match objects.avail.wait_until(until_ns.min(now + LOOK)) {
                    Wait::Posted => self.claimed = true,
                    Wait::Interrupted => return Ok(None),
                    Wait::TimedOut => {
                        self.look()?;
                        if monotonic_ns() >= until_ns {
                            return Ok(None);
                        }
                        continue;
                    }
                }
            }
            match self.take(into) {
                Ok(Some(received)) => return Ok(Some(received)),
                Ok(None) => {}
                // Not until the end of the caller's time: the caller may have to look at signals.
                Err(HandoffError::Locked { .. }) if self.may_try_on() => {}
                Err(error) => {
                    self.give_up();
                    return Err(error);
                }
            }
            if monotonic_ns() >= until_ns {
                return Ok(None);
            }
        }
    }

    /// Prepares for a sleep in a poll loop on [`descriptor`](Self::descriptor). Returns true if there is nothing to receive: the
    /// descriptor becomes readable when there may be, or when the objects were replaced or removed, and stays so until the next
    /// call. Returns false if the program must receive first. Acknowledges the last message, as receiving does.
    ///
    /// Nothing is taken, so another reader may be faster. Meanwhile, and until a message is received, a thread gives the sign of
    /// life.
    ///
    /// # Errors
    /// As [`recv_until`](Self::recv_until), and [`HandoffError::System`] if there is no descriptor or thread left.
    pub fn arm(&mut self, sign_of_life: &SignOfLife) -> Result<bool> {
        self.acknowledge();
        if self.objects.is_none() {
            self.objects = Objects::open(&self.names)?.map(Arc::new);
        }
        let target = match &self.objects {
            Some(objects) if self.claimed || objects.avail.value() > 0 => return Ok(false),
            Some(objects) => Target::Post(Arc::clone(objects)),
            None => Target::Objects(self.names.clone()),
        };
        self.watch()?.begin(target, sign_of_life);
        Ok(true)
    }

    /// The descriptor to wait on, the same for as long as the reader lives.
    ///
    /// # Errors
    /// [`HandoffError::System`] if there is no descriptor or thread left.
    pub fn descriptor(&mut self) -> Result<BorrowedFd<'_>> {
        Ok(self.watch()?.event())
    }

    fn watch(&mut self) -> Result<&Watch> {
        let watch = match self.watch.take() {
            Some(watch) => watch,
            None => Watch::start()?,
        };
        Ok(self.watch.insert(watch))
    }

    /// Copies the message that `avail` was taken for. `None` if there is no message, or if the mutex is not free yet.
    fn take(&mut self, into: &mut Vec<u8>) -> Result<Option<Received>> {
        let Some(objects) = &self.objects else { return Ok(None) };
        let now = monotonic_ns();
        self.trying_since.get_or_insert(now);
        let Some(guard) = objects.segment.lock(now + LOOK)? else {
            // A peer released the mutex without repairing it. The writer initialises it when it offers the message again.
            pause(now + SEARCH);
            let holder = "nobody any more, and cannot be recovered: its holder died and the next one let it go without repair; a \
                          writer of shmd's makes it anew with its next message"
                .to_owned();
            return Err(HandoffError::Locked { segment: self.names.segment.clone(), holder });
        };
        let header = objects.segment.header();
        let there = header.ready_flag.load(Ordering::Acquire) != 0;
        if there {
            objects.segment.copy_out(into)?;
            header.ready_flag.store(0, Ordering::Release);
        }
        let recovered = guard.recovered();
        drop(guard);
        (self.claimed, self.trying_since) = (false, None);
        if !there {
            self.stray_posts += 1;
            return Ok(None);
        }
        if let Some(watch) = &self.watch {
            watch.rest();
        }
        self.unacknowledged = true;
        self.received += 1;
        Ok(Some(Received { seq: self.received - 1, recovered }))
    }

    fn may_try_on(&self) -> bool {
        self.trying_since.is_some_and(|since| monotonic_ns() < since.saturating_add(LOCK))
    }

    /// Posts `avail` again, so that another reader can take the message.
    fn give_up(&mut self) {
        if let (true, Some(objects)) = (std::mem::take(&mut self.claimed), &self.objects) {
            objects.avail.post();
        }
        self.trying_since = None;
    }

    /// Checks, after a while without messages, that these are still the writer's objects.
    fn look(&mut self) -> Result<()> {
        let Some(objects) = &self.objects else { return Ok(()) };
        if objects.are_current() {
            return Ok(());
        }
        let until = monotonic_ns() + GRACE;
        while objects.is_one_missing() {
            if monotonic_ns() >= until {
                self.objects = None;
                return Err(HandoffError::Closed { channel: self.names.segment.clone() });
            }
            pause(monotonic_ns() + SEARCH);
        }
        self.objects = None;
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.give_up();
        if !std::thread::panicking() {
            self.acknowledge();
        }
    }
}

/// Whether this user may see what the processes of the segment's owner have mapped.
fn may_look_at_owner(objects: &Objects) -> bool {
    let user = geteuid();
    user.is_root() || fstat(objects.segment.fd()).is_ok_and(|found| found.st_uid == user.as_raw())
}

fn pause(until_ns: u64) {
    std::thread::sleep(clock::left(until_ns));
}
