//! The connection of an attachment, as the ring sees it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use super::Endpoint;
use super::attach::program;
use super::comeback::{Comeback, Found};
use crate::control::{Conn, Done, Lent, Received, Request, decode, excerpt};
use crate::error::ProtocolError;
use crate::name::ChannelName;
use crate::os::page::SharedPage;
use crate::ring::geometry::Geometry;
use crate::ring::layout::{LeasePage, OVER, control};
use crate::ring::link::{FromReader, Link, LinkError, ToDaemon, ToReader, ToWriter};

/// The link of a reader: its connection.
#[derive(Debug)]
pub struct SocketLink {
    conn: Option<Conn>,
    /// The daemon has said that this attachment ends.
    is_over: bool,
    back: Option<ReaderBack>,
    changes: u64,
}

/// What a reader shows a daemon that comes in the place of its own.
#[derive(Debug)]
struct ReaderBack {
    comeback: Comeback,
    channel: ChannelName,
    page: OwnedFd,
    /// The newest segment that the reader was told of, and the bits of its control word that count the moves to it.
    instance: u64,
    moves: u32,
}

impl SocketLink {
    /// The connection of a reader of this channel, which ends with the daemon.
    #[must_use]
    pub fn new(conn: Conn) -> Self {
        SocketLink { conn: Some(conn), is_over: false, back: None, changes: 0 }
    }

    /// The connection of a reader that stays when the daemon dies and another comes in its place. `page` is the reader's.
    pub(super) fn lasting(conn: Conn, endpoint: Endpoint, geometry: &Geometry, page: OwnedFd) -> Self {
        let (channel, instance) = (geometry.channel.clone(), geometry.instance);
        let back = ReaderBack { comeback: Comeback::new(endpoint), channel, page, instance, moves: 0 };
        SocketLink { back: Some(back), ..Self::new(conn) }
    }

    /// The connection has ended. Whether another daemon is looked for.
    fn lost(&mut self) -> Result<(), LinkError> {
        self.conn = None;
        self.changes += 1;
        match &mut self.back {
            Some(back) if !self.is_over => {
                back.comeback.lost();
                Ok(())
            }
            _ => Err(LinkError::Disconnected),
        }
    }

    /// Looks for another daemon.
    fn look(&mut self) -> Result<Option<(ToReader, Vec<OwnedFd>)>, LinkError> {
        let Some(back) = &mut self.back else { return Err(LinkError::Disconnected) };
        let (page, instance, moves) = (&back.page, back.instance, back.moves);
        let found = back.comeback.go_on(|| {
            let channel = back.channel.clone();
            let request = Request::ResumeReader { channel, program: program(), instance, moves };
            Some((request, vec![page.try_clone().ok()?]))
        });
        self.changes += 1;
        match found {
            Found::Nothing => Ok(None),
            // Without a descriptor to spare it comes without the bell: try again.
            Found::Daemon(done, fds, _) if matches!(*done, Done::Attach(_)) && fds.len() != 1 => {
                back.comeback.lost();
                Ok(None)
            }
            Found::Daemon(done, fds, conn) if matches!(*done, Done::Attach(_)) => {
                log::info!(
                    "attached again to channel {}: a daemon has come in the place of the one that died",
                    back.channel
                );
                self.conn = Some(conn);
                Ok(Some((ToReader::Resumed, fds)))
            }
            Found::Daemon(..) => Err(LinkError::Disconnected),
            Found::Refusal(reason) => {
                self.back = None;
                Ok(Some((ToReader::NotResumed { reason }, Vec::new())))
            }
            Found::Nobody(patience) => {
                log::info!(
                    "channel {}: no daemon has come in the place of the one that died for {patience:?}",
                    back.channel
                );
                self.back = None;
                Err(LinkError::Disconnected)
            }
        }
    }
}

impl Link<ToReader, FromReader> for SocketLink {
    fn receive(&mut self) -> Result<Option<(ToReader, Vec<OwnedFd>)>, LinkError> {
        loop {
            let Some(conn) = &mut self.conn else { return self.look() };
            match conn.receive()? {
                Received::Line(line, fds) => match decode(&line) {
                    Ok(ToReader::Unknown) => log::debug!("passed over a line from a newer daemon: {}", excerpt(&line)),
                    Ok(decoded) => {
                        match (&decoded, &mut self.back) {
                            (ToReader::Evicted { .. } | ToReader::Closing { .. }, _) => self.is_over = true,
                            (ToReader::Moved { geometry, .. }, Some(back)) => {
                                (back.instance, back.moves) =
                                    (geometry.instance, back.moves.wrapping_add(control::MOVE));
                            }
                            _ => {}
                        }
                        return Ok(Some((decoded, fds)));
                    }
                    Err(e) => log::debug!("a line from the daemon was not understood: {e}"),
                },
                Received::Nothing => return Ok(None),
                Received::Closed => self.lost()?,
            }
        }
    }

    fn send(&mut self, line: FromReader) -> Result<(), LinkError> {
        // A daemon that is gone is noticed by the next look.
        let Some(conn) = &mut self.conn else { return Ok(()) };
        conn.queue(&line, Vec::new())?;
        match conn.flush() {
            Err(_) if self.back.is_none() => Err(LinkError::Disconnected),
            _ => Ok(()),
        }
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        let back = || self.back.as_ref().and_then(|back| back.comeback.as_fd());
        self.conn.as_ref().map(AsFd::as_fd).or_else(back)
    }

    fn changes(&self) -> u64 {
        self.changes
    }

    fn looks_for_daemon(&self) -> Option<u64> {
        let back = self.back.as_ref().filter(|_| self.conn.is_none())?;
        Some(back.comeback.look_at_ns())
    }
}

/// The link of a program that was lent the writer role: its connection.
#[derive(Debug)]
pub(super) struct LentLink {
    conn: Option<Conn>,
    back: Option<WriterBack>,
    changes: u64,
    /// Lines taken, and so many of them the daemon knows of.
    taken: u64,
    told: u64,
}

/// What a writer shows a daemon that comes in the place of its own.
#[derive(Debug)]
struct WriterBack {
    comeback: Comeback,
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
        let (comeback, capacity) = (Comeback::new(endpoint), lent.capacity);
        let back = Some(WriterBack { comeback, channel, segment, page, lease, instance, capacity });
        Ok(LentLink { conn: Some(conn), back, changes: 0, taken: 0, told: 0 })
    }

    /// The connection has ended. Whether another daemon is looked for: not by a writer that has lost its role.
    fn lost(&mut self) -> Result<(), LinkError> {
        self.conn = None;
        self.changes += 1;
        match &mut self.back {
            // Acquire: the bit is set before the connection is closed.
            Some(back) if back.lease.generation.value.load(Ordering::Acquire) & OVER == 0 => {
                back.comeback.lost();
                Ok(())
            }
            _ => Err(LinkError::Disconnected),
        }
    }

    /// Looks for another daemon.
    fn look(&mut self) -> Result<Option<(ToWriter, Vec<OwnedFd>)>, LinkError> {
        let Some(back) = &mut self.back else { return Err(LinkError::Disconnected) };
        let (instance, capacity) = (back.instance, back.capacity);
        let found = back.comeback.go_on(|| {
            let channel = back.channel.clone();
            let request = Request::ResumeWriter { channel, program: program(), instance, capacity };
            Some((request, vec![back.segment.try_clone().ok()?, back.page.try_clone().ok()?]))
        });
        self.changes += 1;
        match found {
            Found::Nothing => Ok(None),
            Found::Daemon(done, _, conn) if matches!(*done, Done::Publish(_)) => {
                log::info!(
                    "the writer role of channel {} is kept: a daemon has come in the place of the one that died",
                    back.channel
                );
                (self.conn, self.taken, self.told) = (Some(conn), 0, 0);
                Ok(Some((ToWriter::Resumed, Vec::new())))
            }
            Found::Daemon(..) => Err(LinkError::Disconnected),
            Found::Refusal(reason) => {
                self.back = None;
                Ok(Some((ToWriter::Revoked { reason }, Vec::new())))
            }
            Found::Nobody(patience) => {
                log::info!(
                    "channel {}: no daemon has come in the place of the one that died for {patience:?}",
                    back.channel
                );
                self.back = None;
                Err(LinkError::Disconnected)
            }
        }
    }

    /// Lets the daemon send more.
    fn acknowledge(&mut self) {
        let Some(conn) = &mut self.conn else { return };
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
        let Some(conn) = &mut self.conn else { return self.look() };
        match conn.receive()? {
            Received::Line(line, fds) => {
                self.taken += 1;
                let decoded = decode(&line)?;
                if let (ToWriter::Grown { capacity, .. }, Some(back)) = (&decoded, &mut self.back) {
                    back.capacity = *capacity;
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
                self.lost()?;
                self.look()
            }
        }
    }

    fn send(&mut self, line: ToDaemon) -> Result<(), LinkError> {
        // What is said while there is no daemon is asked for again: see `ToWriter::Resumed`.
        let Some(conn) = &mut self.conn else { return Ok(()) };
        conn.queue(&line, Vec::new())?;
        match conn.flush() {
            Err(_) if self.back.is_none() => Err(LinkError::Disconnected),
            _ => Ok(()),
        }
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        let back = || self.back.as_ref().and_then(|back| back.comeback.as_fd());
        self.conn.as_ref().map(AsFd::as_fd).or_else(back)
    }

    fn changes(&self) -> u64 {
        self.changes
    }

    fn looks_for_daemon(&self) -> Option<u64> {
        let back = self.back.as_ref().filter(|_| self.conn.is_none())?;
        Some(back.comeback.look_at_ns())
    }
}
