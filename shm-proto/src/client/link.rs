//! The connection of an attachment, as the ring sees it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::control::{Conn, Received, decode, excerpt};
use crate::ring::link::{FromReader, Link, LinkError, ToDaemon, ToReader, ToWriter};

/// The link of a reader: its connection.
#[derive(Debug)]
pub struct SocketLink {
    conn: Conn,
}

impl SocketLink {
    /// The connection of a reader.
    #[must_use]
    pub fn new(conn: Conn) -> Self {
        SocketLink { conn }
    }
}

impl Link<ToReader, FromReader> for SocketLink {
    fn receive(&mut self) -> Result<Option<(ToReader, Vec<OwnedFd>)>, LinkError> {
        loop {
            match self.conn.receive()? {
                Received::Line(line, fds) => match decode(&line) {
                    Ok(ToReader::Unknown) => log::debug!("passed over a line from a newer daemon: {}", excerpt(&line)),
                    Ok(decoded) => return Ok(Some((decoded, fds))),
                    Err(e) => log::debug!("a line from the daemon was not understood: {e}"),
                },
                Received::Nothing => return Ok(None),
                Received::Closed => return Err(LinkError::Disconnected),
            }
        }
    }

    fn send(&mut self, line: FromReader) -> Result<(), LinkError> {
        self.conn.queue(&line, Vec::new())?;
        self.conn.flush().map(drop).map_err(|_| LinkError::Disconnected)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.conn.as_fd())
    }
}

/// The link of a program that was lent the writer role: its connection.
#[derive(Debug)]
pub(super) struct LentLink {
    conn: Conn,
    /// Lines taken, and so many of them the daemon knows of.
    taken: u64,
    told: u64,
}

impl LentLink {
    pub(super) fn new(conn: Conn) -> Self {
        LentLink { conn, taken: 0, told: 0 }
    }

    /// Lets the daemon send more.
    fn acknowledge(&mut self) {
        if self.told < self.taken {
            self.told = self.taken;
            // A daemon that is gone is noticed by the next look.
            let _ = self.conn.queue(&ToDaemon::Taken { lines: self.taken }, Vec::new());
        }
        if self.conn.queued_bytes() > 0 {
            let _ = self.conn.flush();
        }
    }
}

impl Link<ToWriter, ToDaemon> for LentLink {
    fn receive(&mut self) -> Result<Option<(ToWriter, Vec<OwnedFd>)>, LinkError> {
        match self.conn.receive()? {
            Received::Line(line, fds) => {
                self.taken += 1;
                let decoded = decode(&line)?;
                if decoded == ToWriter::Unknown {
                    log::debug!("passed over a line from a newer daemon: {}", excerpt(&line));
                }
                Ok(Some((decoded, fds)))
            }
            Received::Nothing => {
                self.acknowledge();
                Ok(None)
            }
            Received::Closed => Err(LinkError::Disconnected),
        }
    }

    fn send(&mut self, line: ToDaemon) -> Result<(), LinkError> {
        self.conn.queue(&line, Vec::new())?;
        self.conn.flush().map(drop).map_err(|_| LinkError::Disconnected)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.conn.as_fd())
    }
}
