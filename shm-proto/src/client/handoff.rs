//! A handoff reader that the daemon knows of: the connection is the attachment, the messages come through the objects.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use super::link::SocketLink;
use crate::control::{Conn, HandoffAttached};
use crate::handoff::{HandoffError, Names, Reader, Received};
use crate::os::clock::monotonic_ns;
use crate::os::page::SharedPage;
use crate::ring::layout::{ReaderPage, waiting};
use crate::ring::link::{Link, ToReader};

/// How often the connection is looked at and a sign of life given while a message is waited for, in nanoseconds.
const LISTEN: u64 = 250_000_000;

/// A reader of a daemon's handoff channel. The daemon shows it in `stat`, can evict it, and says why it closes.
///
/// The protocol itself says nothing of who reads. What `stat` shows is on a page that this reader shares with the daemon: the
/// one that a ring's reader has, of which only heartbeat, received and the waiting flag are used.
#[derive(Debug)]
pub struct Attached {
    reader: Reader,
    link: SocketLink,
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
    pub(super) fn new(facts: HandoffAttached, page: SharedPage<ReaderPage>, conn: Conn) -> Self {
        let link = SocketLink::new(conn);
        let attached = Self { reader: Reader::new(facts.objects.clone()), link, page, facts, end: None };
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

    /// The connection to the daemon: readable when it says something or is gone.
    #[must_use]
    pub fn connection_fd(&self) -> Option<BorrowedFd<'_>> {
        self.link.as_fd()
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
            self.end = match self.link.receive() {
                Ok(Some((ToReader::Evicted { reason }, _))) => Some(End::Evicted(reason)),
                Ok(Some((ToReader::Closing { .. }, _))) => Some(End::Closing),
                // Rings move, handoffs do not.
                Ok(Some((
                    ToReader::Moved { .. } | ToReader::Resumed | ToReader::NotResumed { .. } | ToReader::Unknown,
                    _,
                ))) => None,
                Ok(None) => return,
                Err(_) => Some(End::Disconnected),
            };
        }
    }
}
