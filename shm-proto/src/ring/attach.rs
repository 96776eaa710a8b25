//! Attaching through the daemon's socket.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::link::{Link, ToDaemon, ToWriter};
use super::{Reader, Writer};
use crate::control::{Client, Conn, Done, Endpoint, Received, Request, Start, decode, excerpt};
use crate::error::{Error, Result};
use crate::handoff::Attached;
use crate::name::ChannelName;
use crate::os::page::SharedPage;

/// How long the daemon may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

impl Reader {
    /// Attaches to a channel; without a name, to the daemon's only one.
    ///
    /// ```no_run
    /// use shm_proto::{Endpoint, Reader, Start};
    /// let mut reader = Reader::attach(&Endpoint::find(None), None, Start::Oldest)?;
    /// let mut bytes = Vec::new();
    /// let received = reader.recv_into(&mut bytes, None)?;
    /// println!("message {} has {} bytes", received.seq, bytes.len());
    /// # Ok::<(), shm_proto::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoDaemon`], [`Error::Refused`] with the daemon's reason, [`Error::IsHandoff`], [`Error::Corrupt`].
    pub fn attach(endpoint: &Endpoint, channel: Option<&ChannelName>, start: Start) -> Result<Reader> {
        match Attachment::open(endpoint, channel, start)? {
            Attachment::Ring(reader) => Ok(*reader),
            Attachment::Handoff(attached) => {
                let (channel, objects) = (attached.facts().channel.to_string(), attached.names().to_string());
                Err(Error::IsHandoff { channel, objects })
            }
        }
    }
}

/// A reader's attachment to a channel of either mode.
#[derive(Debug)]
pub enum Attachment {
    /// Many messages in flight.
    Ring(Box<Reader>),
    /// One message at a time.
    Handoff(Box<Attached>),
}

impl Attachment {
    /// Attaches to a channel, whichever mode it has; without a name, to the daemon's only one. `start` is for a ring:
    /// in a handoff there is only the message on offer.
    ///
    /// # Errors
    /// As [`Reader::attach`].
    pub fn open(endpoint: &Endpoint, channel: Option<&ChannelName>, start: Start) -> Result<Self> {
        let mut client = Client::connect(endpoint, ANSWER)?;
        let request = Request::Attach { channel: channel.cloned(), program: program() };
        match client.request_with_fds(&request)? {
            (Done::Attach(attached), fds) => {
                let [segment, page, bell] = descriptors(fds, "attach")?;
                let conn = Some(client.into_conn());
                let reader = Reader::open(segment.as_fd(), page.as_fd(), bell, attached.geometry, start, conn)?;
                Ok(Attachment::Ring(Box::new(reader)))
            }
            (Done::Handoff(facts), fds) => {
                let [page] = descriptors(fds, "attach")?;
                let page = SharedPage::open(page.as_fd())?;
                Ok(Attachment::Handoff(Box::new(Attached::new(facts, page, client.into_conn()))))
            }
            _ => Err(Error::Protocol("the daemon answered attach with something else".to_owned())),
        }
    }
}

impl Writer {
    /// Borrows the writer role of a channel; without a name, of the daemon's only one. The role is given back when the
    /// writer is dropped or its process ends.
    ///
    /// ```no_run
    /// use shm_proto::{Endpoint, Writer};
    /// let mut writer = Writer::attach(&Endpoint::find(None), None)?;
    /// writer.publish(b"hello")?;
    /// # Ok::<(), shm_proto::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoDaemon`], [`Error::Refused`] with the daemon's reason (somebody else holds the role, say),
    /// [`Error::Corrupt`].
    pub fn attach(endpoint: &Endpoint, channel: Option<&ChannelName>) -> Result<Writer> {
        let mut client = Client::connect(endpoint, ANSWER)?;
        let request = Request::Publish { channel: channel.cloned(), program: program() };
        let (Done::Publish(lent), fds) = client.request_with_fds(&request)? else {
            return Err(Error::Protocol("the daemon answered publish with something else".to_owned()));
        };
        let [segment, lease] = descriptors(fds, "publish")?;
        let channel = lent.geometry.channel.to_string();
        let mut link = SocketLink { conn: client.into_conn(), channel, first: VecDeque::new() };
        link.await_lines(lent.lines as usize)?;
        Writer::open(segment.as_fd(), SharedPage::open(lease.as_fd())?, Box::new(link), lent.geometry, lent.capacity)
    }
}

/// This program's name as `stat` shows it.
fn program() -> Option<String> {
    std::env::current_exe().ok()?.file_name().map(|name| name.to_string_lossy().into_owned())
}

fn descriptors<const N: usize>(fds: Vec<OwnedFd>, what: &str) -> Result<[OwnedFd; N]> {
    let got = fds.len();
    <[OwnedFd; N]>::try_from(fds)
        .map_err(|_| Error::Protocol(format!("{what} was answered with {got} descriptors, {N} were expected")))
}

/// The link of a program that was lent the role: its connection.
#[derive(Debug)]
struct SocketLink {
    conn: Conn,
    channel: String,
    /// Lines that came with the role.
    first: VecDeque<(ToWriter, Vec<OwnedFd>)>,
}

impl SocketLink {
    /// Waits for the lines that come with the role.
    fn await_lines(&mut self, lines: usize) -> Result<()> {
        let deadline = Instant::now() + ANSWER;
        while self.first.len() < lines {
            if let Some(line) = self.next_line()? {
                self.first.push_back(line);
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let what = format!("the daemon to name the readers of channel {}", self.channel);
                return Err(Error::TimedOut { what, waited: ANSWER });
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.conn.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(Error::system("wait for the daemon", e)),
            }
        }
        Ok(())
    }

    fn next_line(&mut self) -> Result<Option<(ToWriter, Vec<OwnedFd>)>> {
        match self.conn.receive() {
            Ok(Received::Line(line, fds)) => {
                let decoded = decode(&line)?;
                if decoded == ToWriter::Unknown {
                    log::debug!("passed over a line from a newer daemon: {}", excerpt(&line));
                }
                Ok(Some((decoded, fds)))
            }
            Ok(Received::Nothing) => Ok(None),
            Ok(Received::Closed) => Err(self.gone()),
            Err(e) => Err(e),
        }
    }

    fn gone(&self) -> Error {
        Error::Disconnected { channel: self.channel.clone() }
    }
}

impl Link for SocketLink {
    fn receive(&mut self) -> Result<Option<(ToWriter, Vec<OwnedFd>)>> {
        match self.first.pop_front() {
            Some(line) => Ok(Some(line)),
            None => self.next_line(),
        }
    }

    fn send(&mut self, line: ToDaemon) -> Result<()> {
        self.conn.queue(&line, Vec::new())?;
        self.conn.flush().map(drop).map_err(|_| self.gone())
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.conn.as_fd())
    }
}
