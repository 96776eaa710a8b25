//! Attaching through the daemon's socket.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::handoff::Attached;
use super::link::{LentLink, SocketLink};
use super::session::program;
use super::{Client, Endpoint, Error, Result};
use crate::control::{Done, ErrorKind, Refusal, Request, RequestError};
use crate::error::{ProtocolError, SystemError};
use crate::name::ChannelName;
use crate::os::fds;
use crate::os::page::SharedPage;
use crate::ring::content::Content;
use crate::ring::geometry::Start;
use crate::ring::layout::LAYOUT_VERSION;
use crate::ring::{Reader, Writer, WriterError};

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
    /// [`Error::BadName`]; [`Error::Request`], with the daemon's reason; [`Error::IsHandoff`]; [`Error::Reader`] and
    /// [`Error::Protocol`] when what the daemon handed out cannot be used.
    pub fn attach(endpoint: &Endpoint, channel: Option<&str>, start: Start) -> Result<Reader> {
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
    pub fn open(endpoint: &Endpoint, channel: Option<&str>, start: Start) -> Result<Self> {
        let channel = name(channel)?;
        let mut client = Client::connect(endpoint, ANSWER)?;
        let expect = endpoint.expected().cloned();
        let request = Request::Attach { channel, program: program(), layout: LAYOUT_VERSION, expect };
        match client.request_with_fds(&request)? {
            (Done::Attach(attached), fds) => {
                let [segment, page, bell] = descriptors(fds, "attach")?;
                let (geometry, content) = (attached.geometry, attached.content);
                check(endpoint, &geometry.channel, content.as_ref())?;
                let kept = page.try_clone().map_err(|e| SystemError::new("duplicate a page's descriptor", e))?;
                let link = Box::new(SocketLink::reconnecting(client.into_conn(), endpoint.clone(), &geometry, kept));
                let mut reader = Reader::open(segment.as_fd(), page.as_fd(), bell, geometry, start, Some(link))?;
                reader.set_content(content);
                Ok(Attachment::Ring(Box::new(reader)))
            }
            (Done::Handoff(facts), fds) => {
                let [page] = descriptors(fds, "attach")?;
                check(endpoint, &facts.channel, facts.content.as_ref())?;
                let page = SharedPage::open(page.as_fd())?;
                Ok(Attachment::Handoff(Box::new(Attached::new(facts, page, client.into_conn(), endpoint.clone()))))
            }
            _ => Err(ProtocolError::Broken("the daemon answered attach with something else".to_owned()).into()),
        }
    }

    /// What the channel's messages are, if its configuration declares that: as it was when the reader attached.
    #[must_use]
    pub fn content(&self) -> Option<&Content> {
        match self {
            Attachment::Ring(reader) => reader.content(),
            Attachment::Handoff(reader) => reader.facts().content.as_ref(),
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
    /// [`Error::BadName`]; [`Error::Request`], with the daemon's reason (for example, another program holds the role); [`Error::Writer`]
    /// and [`Error::Protocol`] when what the daemon handed out cannot be used.
    pub fn attach(endpoint: &Endpoint, channel: Option<&str>) -> Result<Writer> {
        let channel = name(channel)?;
        match Self::borrow_role(endpoint, channel.as_ref()) {
            // The daemon was told, and has replaced the segment by now.
            Err(Error::Writer(WriterError::Corrupt { .. })) => Self::borrow_role(endpoint, channel.as_ref()),
            attached => attached,
        }
    }

    fn borrow_role(endpoint: &Endpoint, channel: Option<&ChannelName>) -> Result<Writer> {
        let mut client = Client::connect(endpoint, ANSWER)?;
        let (channel, expect) = (channel.cloned(), endpoint.expected().cloned());
        let request = Request::Publish { channel, program: program(), layout: LAYOUT_VERSION, expect };
        let (Done::Publish(lent), fds) = client.request_with_fds(&request)? else {
            return Err(ProtocolError::Broken("the daemon answered publish with something else".to_owned()).into());
        };
        check(endpoint, &lent.geometry.channel, lent.content.as_ref())?;
        let lent_as: [OwnedFd; 2] = descriptors(fds, "publish")?;
        let lease = SharedPage::open(lent_as[1].as_fd())?;
        let segment = lent_as[0].try_clone().map_err(|e| SystemError::new("duplicate a segment's descriptor", e))?;
        let link = LentLink::new(client.into_conn(), endpoint.clone(), &lent, lent_as)?;
        let mut writer = Writer::open(segment.as_fd(), lease, Box::new(link), lent.geometry, lent.capacity)?;
        writer.set_content(lent.content);
        writer.know_all(ANSWER)?;
        Ok(writer)
    }
}

/// A daemon that knows of content refuses the program itself. An older daemon attaches every program, and declares nothing.
fn check(endpoint: &Endpoint, channel: &ChannelName, declared: Option<&Content>) -> Result<(), RequestError> {
    match endpoint.expected().and_then(|expected| expected.mismatch(declared)) {
        None => Ok(()),
        Some(why) => {
            Err(RequestError::Refused(Refusal::new(ErrorKind::OtherContent, format!("channel {channel}: {why}"))))
        }
    }
}

/// A channel's name, checked.
fn name(channel: Option<&str>) -> Result<Option<ChannelName>> {
    Ok(channel.map(str::parse).transpose()?)
}

fn descriptors<const N: usize>(fds: Vec<OwnedFd>, what: &str) -> Result<[OwnedFd; N], ProtocolError> {
    let got = fds.len();
    <[OwnedFd; N]>::try_from(fds).map_err(|_| {
        let limit = fds::limit();
        ProtocolError::Broken(format!(
            "{what} was answered with {got} descriptors, {N} were expected; this process may have {limit} open, and if it \
             has, raise that limit (ulimit -n)"
        ))
    })
}
