//! A handoff reader that the daemon knows of: the connection is the attachment, the messages come through the objects.

mod descriptor;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use self::descriptor::Descriptor;
use super::Endpoint;
use super::reconnect::{Looked, Reconnecting};
use super::session::program;
use crate::control::{Conn, Done, HandoffAttached, Received as Heard, Request, decode};
use crate::handoff::{HandoffError, Names, Reader, Received, SignOfLife};
use crate::os::clock::monotonic_ns;
use crate::os::page::SharedPage;
use crate::ring::layout::{LAYOUT_VERSION, ReaderPage, waiting};
use crate::ring::link::ToReader;

/// How often the connection is looked at and a sign of life given while a message is waited for, in nanoseconds.
const LISTEN: u64 = 250_000_000;

/// A reader of a daemon's handoff channel. The daemon shows it in `stat`, can evict it, and says why it closes.
///
/// When the daemon dies, the reader waits for the next one and attaches again. It goes on with the objects, which that one adopts.
///
/// The protocol itself says nothing of who reads. What `stat` shows is on a page that this reader shares with the daemon: the
/// one that a ring's reader has, of which only heartbeat, received and the waiting flag are used.
#[derive(Debug)]
pub struct Attached {
    reader: Reader,
    line: Reconnecting,
    page: Page,
    facts: HandoffAttached,
    /// For a program with a poll loop.
    descriptor: Option<Descriptor>,
    /// The connection has ended, or said what ends this reading.
    end: Option<End>,
}

/// What the daemon sees of the reader.
struct Page {
    shared: Arc<SharedPage<ReaderPage>>,
    /// For the thread that watches while the program sleeps in a poll loop.
    pulse: SignOfLife,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Page {
    fn new(page: SharedPage<ReaderPage>) -> Self {
        let shared = Arc::new(page);
        let page = Arc::clone(&shared);
        Page { shared, pulse: Arc::new(move || page.line.heartbeat.store(monotonic_ns(), Ordering::Relaxed)) }
    }

    fn show(&self, how: u32) {
        self.shared.waiting.value.store(how, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug)]
enum End {
    Evicted(String),
    Closing,
    Disconnected,
}

impl Attached {
    pub(super) fn new(facts: HandoffAttached, page: SharedPage<ReaderPage>, conn: Conn, endpoint: Endpoint) -> Self {
        let line = Reconnecting::new(conn, Some(endpoint));
        let (reader, page) = (Reader::new(facts.objects.clone()), Page::new(page));
        let attached = Self { reader, line, page, facts, descriptor: None, end: None };
        attached.beat();
        attached
    }

    /// Gives a sign of life.
    fn beat(&self) {
        self.page.shared.line.received.store(self.reader.received(), Ordering::Relaxed);
        (self.page.pulse)();
    }

    /// The reader's number in `stat`, the channel and its objects.
    #[must_use]
    pub fn facts(&self) -> &HandoffAttached {
        &self.facts
    }

    /// The objects' names.
    #[must_use]
    pub fn names(&self) -> &Names {
        self.reader.names()
    }

    /// Messages received, also those that were given back. Begins anew if another daemon has other objects.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.reader.received()
    }

    /// See [`Reader::acknowledge`].
    pub fn acknowledge(&mut self) {
        self.reader.acknowledge();
    }

    /// See [`Reader::give_back`].
    pub fn give_back(&mut self) {
        self.reader.give_back();
    }

    /// Waits for a message as [`Reader::recv_until`] does.
    ///
    /// # Errors
    /// Those of [`Reader::recv_until`]; [`HandoffError::Evicted`]; [`HandoffError::Closed`] and [`HandoffError::Disconnected`]
    /// when there is no daemon any more to hand anything over, with nothing left on offer.
    pub fn recv_until(&mut self, into: &mut Vec<u8>, until_ns: u64) -> Result<Option<Received>, HandoffError> {
        self.page.show(waiting::SEMAPHORE);
        let received = self.wait(into, until_ns);
        self.page.show(waiting::NO);
        self.beat();
        received
    }

    /// Prepares for a sleep in a poll loop on [`descriptor`](Self::descriptor). Returns true if there is nothing to receive: the
    /// descriptor becomes readable when there may be a message, or when the daemon has said something or is gone, and stays so until
    /// the next call. Returns false if the program must receive first. Acknowledges the last message, as receiving does.
    ///
    /// A semaphore has no descriptor, so a thread of the library watches it while the program sleeps. The thread takes nothing, so
    /// another reader may be faster.
    ///
    /// # Errors
    /// As [`recv_until`](Self::recv_until), and [`HandoffError::System`] if there is no descriptor or thread left.
    pub fn arm(&mut self) -> Result<bool, HandoffError> {
        self.descriptor()?;
        self.beat();
        self.listen();
        self.page.show(waiting::NO);
        if self.end.is_some() || !self.reader.arm(&self.page.pulse)? {
            return Ok(false);
        }
        if let Some(descriptor) = &mut self.descriptor {
            descriptor.follow(self.line.changes(), self.line.as_fd())?;
        }
        self.page.show(waiting::SEMAPHORE);
        Ok(true)
    }

    /// The one descriptor to wait on, the same for as long as the reader lives. See [`arm`](Self::arm).
    ///
    /// # Errors
    /// [`HandoffError::System`] if there is no descriptor or thread left.
    pub fn descriptor(&mut self) -> Result<BorrowedFd<'_>, HandoffError> {
        let descriptor = match self.descriptor.take() {
            Some(descriptor) => descriptor,
            None => Descriptor::over(self.reader.descriptor()?)?,
        };
        let descriptor: &Descriptor = self.descriptor.insert(descriptor);
        Ok(descriptor.as_fd())
    }

    /// The descriptor, if a program has asked for it.
    pub(super) fn descriptor_in_use(&self) -> Option<BorrowedFd<'_>> {
        self.descriptor.as_ref().map(AsFd::as_fd)
    }

    fn wait(&mut self, into: &mut Vec<u8>, until_ns: u64) -> Result<Option<Received>, HandoffError> {
        loop {
            self.beat();
            self.listen();
            let now = monotonic_ns();
            let until = if self.end.is_some() { now } else { until_ns.min(now + LISTEN) };
            let evicted = matches!(self.end, Some(End::Evicted(_)));
            if !evicted && let Some(received) = self.reader.recv_until(into, until)? {
                return Ok(Some(received));
            }
            let channel = self.facts.channel.to_string();
            match self.end.clone() {
                Some(End::Evicted(reason)) => return Err(HandoffError::Evicted { channel, reason }),
                Some(End::Closing) => return Err(HandoffError::Closed { channel }),
                Some(End::Disconnected) => return Err(HandoffError::Disconnected { channel }),
                // A signal handler may have run: the caller looks.
                None if monotonic_ns() < until => return Ok(None),
                None if until >= until_ns => return Ok(None),
                None => {}
            }
        }
    }

    fn listen(&mut self) {
        while self.end.is_none() {
            let Some(conn) = self.line.conn() else { return self.look() };
            self.end = match conn.receive() {
                Ok(Heard::Nothing) => return,
                Ok(Heard::Line(line, _)) => match decode(&line) {
                    Ok(ToReader::Evicted { reason }) => Some(End::Evicted(reason)),
                    Ok(ToReader::Closing { .. }) => Some(End::Closing),
                    // Rings move, handoffs do not.
                    Ok(
                        ToReader::Moved { .. } | ToReader::Resumed | ToReader::NotResumed { .. } | ToReader::Unknown,
                    ) => None,
                    Err(e) => {
                        log::debug!("a line from the daemon was not understood: {e}");
                        None
                    }
                },
                Ok(Heard::Closed) | Err(_) => self.line.lost(true).err().map(|_| End::Disconnected),
            };
        }
    }

    /// Looks for another daemon, and attaches to it.
    fn look(&mut self) {
        let (channel, expect) = (self.facts.channel.clone(), self.line.expected());
        let request = || {
            let channel = Some(channel);
            Some((Request::Attach { channel, program: program(), layout: LAYOUT_VERSION, expect }, Vec::new()))
        };
        let mut found = None;
        let is_right = |done: &Done, fds: &[OwnedFd]| {
            if let (Done::Handoff(facts), [page]) = (done, fds) {
                found = SharedPage::open(page.as_fd()).ok().map(|page| (facts.clone(), page));
            }
            found.is_some()
        };
        let looked = self.line.look(request, is_right);
        match (looked, found) {
            (Ok(Looked::Attached(_)), Some((facts, page))) => {
                if facts.objects != self.facts.objects {
                    self.reader.go_over_to(facts.objects.clone());
                }
                (self.facts, self.page) = (facts, Page::new(page));
                self.page.show(waiting::SEMAPHORE);
                self.beat();
            }
            (Ok(Looked::Nothing | Looked::Attached(_)), _) => {}
            (Ok(Looked::Refused(_)) | Err(_), _) => self.end = Some(End::Disconnected),
        }
    }
}
