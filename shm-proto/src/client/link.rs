//! The connection of an attachment, as the ring sees it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use super::Endpoint;
use super::reconnect::{Looked, Reconnecting};
use super::session::program;
use crate::control::{Conn, Done, Lent, Received, Request, decode, excerpt};
use crate::error::ProtocolError;
use crate::name::ChannelName;
use crate::os::page::SharedPage;
use crate::ring::geometry::Geometry;
use crate::ring::layout::{LAYOUT_VERSION, LeasePage, OVER, control};
use crate::ring::link::{FromReader, Link, LinkError, ToDaemon, ToReader, ToWriter};

/// The link of a reader: its connection.
#[derive(Debug)]
pub struct SocketLink {
    line: Reconnecting,
    /// The daemon has said that this attachment ends.
    is_over: bool,
    claim: Option<ReaderClaim>,
}

/// What a reader shows the daemon that replaces its own.
#[derive(Debug)]
struct ReaderClaim {
    channel: ChannelName,
    page: OwnedFd,
    /// The newest segment that the reader was told of, and the bits of its control word that count the moves to it.
    instance: u64,
    moves: u32,
}

impl SocketLink {
    /// The connection of a reader, which ends with the daemon.
    #[must_use]
    pub fn new(conn: Conn) -> Self {
        SocketLink { line: Reconnecting::new(conn, None), is_over: false, claim: None }
    }

    /// The connection of a reader that stays attached when the daemon dies and another one replaces it. `page` is the reader's.
    pub(super) fn reconnecting(conn: Conn, endpoint: Endpoint, geometry: &Geometry, page: OwnedFd) -> Self {
        let (channel, instance) = (geometry.channel.clone(), geometry.instance);
        let claim = Some(ReaderClaim { channel, page, instance, moves: 0 });
        SocketLink { line: Reconnecting::new(conn, Some(endpoint)), is_over: false, claim }
    }

    /// Looks for another daemon.
    fn look(&mut self) -> Result<Option<(ToReader, Vec<OwnedFd>)>, LinkError> {
        let Some(ReaderClaim { channel, page, instance, moves }) = &self.claim else {
            return Err(LinkError::Disconnected);
        };
        let expect = self.line.expected();
        let request = || {
            let (channel, instance, moves) = (channel.clone(), *instance, *moves);
            let (program, layout) = (program(), LAYOUT_VERSION);
            let request = Request::ResumeReader { channel, program, layout, expect, instance, moves };
            Some((request, vec![page.try_clone().ok()?]))
        };
        // The bell comes with it.
        let looked = self.line.look(request, |done, fds| matches!(done, Done::Attach(_)) && fds.len() == 1)?;
        Ok(match looked {
            Looked::Nothing => None,
            Looked::Refused(reason) => Some((ToReader::NotResumed { reason }, Vec::new())),
            Looked::Attached(fds) => {
                log::info!("attached again to channel {channel}: a daemon has come in the place of the one that died");
                Some((ToReader::Resumed, fds))
            }
        })
    }
}

impl Link<ToReader, FromReader> for SocketLink {
    fn receive(&mut self) -> Result<Option<(ToReader, Vec<OwnedFd>)>, LinkError> {
        loop {
            let Some(conn) = self.line.conn() else { return self.look() };
            match conn.receive()? {
                Received::Line(line, fds) => match decode(&line) {
                    Ok(ToReader::Unknown) => log::debug!("passed over a line from a newer daemon: {}", excerpt(&line)),
                    Ok(decoded) => {
                        match (&decoded, &mut self.claim) {
                            (ToReader::Evicted { .. } | ToReader::Closing { .. }, _) => self.is_over = true,
                            (ToReader::Moved { geometry, .. }, Some(claim)) => {
                                claim.instance = geometry.instance;
                                claim.moves = claim.moves.wrapping_add(control::MOVE);
                            }
                            _ => {}
                        }
                        return Ok(Some((decoded, fds)));
                    }
                    Err(e) => log::debug!("a line from the daemon was not understood: {e}"),
                },
                Received::Nothing => return Ok(None),
                Received::Closed => self.line.lost(!self.is_over)?,
            }
        }
    }

    fn send(&mut self, line: FromReader) -> Result<(), LinkError> {
        self.line.send(&line)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.line.as_fd()
    }

    fn changes(&self) -> u64 {
        self.line.changes()
    }

    fn looks_for_daemon(&self) -> Option<u64> {
        self.line.looks_for_daemon()
    }
}

/// The link of a program that was lent the writer role: its connection.
#[derive(Debug)]
pub(super) struct LentLink {
    line: Reconnecting,
    claim: WriterClaim,
    /// Lines taken, and the number of them that the daemon was told of.
    taken: u64,
    told: u64,
}

/// What a writer shows the daemon that replaces its own.
#[derive(Debug)]
struct WriterClaim {
    channel: ChannelName,
    /// As it was lent: the lock is this descriptor's.
    segment: OwnedFd,
    page: OwnedFd,
    /// To see whether the lending was ended before the connection was.
    lease: SharedPage<LeasePage>,
    instance: u64,
    capacity: u64,
}

impl LentLink {
    pub(super) fn new(
        conn: Conn,
        endpoint: Endpoint,
        lent: &Lent,
        [segment, page]: [OwnedFd; 2],
    ) -> Result<Self, ProtocolError> {
        let lease = SharedPage::open(page.as_fd())?;
        let (channel, instance) = (lent.geometry.channel.clone(), lent.geometry.instance);
        let claim = WriterClaim { channel, segment, page, lease, instance, capacity: lent.capacity };
        Ok(LentLink { line: Reconnecting::of_writer(conn, endpoint), claim, taken: 0, told: 0 })
    }

    /// Looks for another daemon.
    fn look(&mut self) -> Result<Option<(ToWriter, Vec<OwnedFd>)>, LinkError> {
        let WriterClaim { channel, segment, page, instance, capacity, .. } = &self.claim;
        let expect = self.line.expected();
        let request = || {
            let (channel, instance, capacity) = (channel.clone(), *instance, *capacity);
            let (program, layout) = (program(), LAYOUT_VERSION);
            let request = Request::ResumeWriter { channel, program, layout, expect, instance, capacity };
            Some((request, vec![segment.try_clone().ok()?, page.try_clone().ok()?]))
        };
        let line = match self.line.look(request, |done, _| matches!(done, Done::Publish(_)))? {
            Looked::Nothing => return Ok(None),
            Looked::Refused(reason) => ToWriter::Revoked { reason },
            Looked::Attached(_) => {
                log::info!(
                    "the writer role of channel {channel} is kept: a daemon has come in the place of the one that died"
                );
                (self.taken, self.told) = (0, 0);
                ToWriter::Resumed
            }
        };
        Ok(Some((line, Vec::new())))
    }

    /// Lets the daemon send more.
    fn acknowledge(&mut self) {
        let Some(conn) = self.line.conn() else { return };
        if self.told < self.taken {
            self.told = self.taken;
            // A daemon that is gone is noticed by the next look.
            let _ = conn.queue(&ToDaemon::Taken { lines: self.taken }, Vec::new());
        }
        if conn.queued_bytes() > 0 {
            let _ = conn.flush();
        }
    }
}

impl Link<ToWriter, ToDaemon> for LentLink {
    fn receive(&mut self) -> Result<Option<(ToWriter, Vec<OwnedFd>)>, LinkError> {
        let Some(conn) = self.line.conn() else { return self.look() };
        match conn.receive()? {
            Received::Line(line, fds) => {
                self.taken += 1;
                let decoded = decode(&line)?;
                if let ToWriter::Grown { capacity, .. } = &decoded {
                    self.claim.capacity = *capacity;
                }
                if decoded == ToWriter::Unknown {
                    log::debug!("passed over a line from a newer daemon: {}", excerpt(&line));
                }
                Ok(Some((decoded, fds)))
            }
            Received::Nothing => {
                self.acknowledge();
                Ok(None)
            }
            Received::Closed => {
                // Acquire: the bit is set before the connection is closed. Without the role there is nothing to go on with.
                let is_over = self.claim.lease.generation.value.load(Ordering::Acquire) & OVER != 0;
                self.line.lost(!is_over)?;
                self.look()
            }
        }
    }

    fn send(&mut self, line: ToDaemon) -> Result<(), LinkError> {
        if let ToDaemon::Shrunk { capacity, .. } = line {
            // Also without a daemon: the next daemon is told this capacity.
            self.claim.capacity = capacity;
        }
        // What is said while there is no daemon is asked for again: see `ToWriter::Resumed`.
        self.line.send(&line)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.line.as_fd()
    }

    fn changes(&self) -> u64 {
        self.line.changes()
    }

    fn has_given_up(&self) -> bool {
        self.line.has_given_up()
    }

    fn daemon_has_come(&mut self) {
        self.line.daemon_has_come();
    }

    fn looks_for_daemon(&self) -> Option<u64> {
        self.line.looks_for_daemon()
    }
}
