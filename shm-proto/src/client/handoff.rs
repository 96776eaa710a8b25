//! A handoff reader that the daemon knows of: the connection is the attachment, the messages come through the objects.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use super::Endpoint;
use super::reconnect::{Looked, Reconnecting};
use super::session::program;
use crate::control::{Conn, Done, HandoffAttached, Received as Heard, Request, decode};
use crate::handoff::{HandoffError, Names, Reader, Received};
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
    page: SharedPage<ReaderPage>,
    facts: HandoffAttached,
    /// The connection has ended, or said what ends this reading.
    end: Option<End>,
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
        let attached = Self { reader: Reader::new(facts.objects.clone()), line, page, facts, end: None };
        attached.beat();
        attached
    }

    /// Gives a sign of life.
    fn beat(&self) {
        self.page.line.received.store(self.reader.received(), Ordering::Relaxed);
        self.page.line.heartbeat.store(monotonic_ns(), Ordering::Relaxed);
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

    /// See [`Reader::acknowledge`].
    pub fn acknowledge(&mut self) {
        self.reader.acknowledge();
    }

    /// Waits for a message as [`Reader::recv_until`] does.
    ///
    /// # Errors
    /// Those of [`Reader::recv_until`]; [`HandoffError::Evicted`]; [`HandoffError::Closed`] and [`HandoffError::Disconnected`]
    /// when there is no daemon any more to hand anything over, with nothing left on offer.
    pub fn recv_until(&mut self, into: &mut Vec<u8>, until_ns: u64) -> Result<Option<Received>, HandoffError> {
        self.page.waiting.value.store(waiting::SEMAPHORE, Ordering::Relaxed);
        let received = self.wait(into, until_ns);
        self.page.waiting.value.store(waiting::NO, Ordering::Relaxed);
        self.beat();
        received
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
                    self.reader = Reader::new(facts.objects.clone());
                }
                (self.facts, self.page) = (facts, page);
                self.page.waiting.value.store(waiting::SEMAPHORE, Ordering::Relaxed);
                self.beat();
            }
            (Ok(Looked::Nothing | Looked::Attached(_)), _) => {}
            (Ok(Looked::Refused(_)) | Err(_), _) => self.end = Some(End::Disconnected),
        }
    }
}
