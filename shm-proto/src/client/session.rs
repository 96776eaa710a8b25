//! A client's side of the conversation: one request, one reply.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::Endpoint;
use crate::control::{Conn, Done, MAX_REPLY, Received, Reply, Request, RequestError, decode};
use crate::error::{ProtocolError, SystemError};
use crate::name::ChannelName;
use crate::os::poll::readable;
use crate::os::{clock, sealed};
use crate::ring::content::{MAX_SCHEMA, hash};

/// A connection to the daemon.
///
/// ```no_run
/// use std::time::Duration;
/// use shm_proto::{Client, Done, Endpoint, Request};
///
/// let mut client = Client::connect(&Endpoint::find(None), Duration::from_secs(5))?;
/// if let Done::List(channels) = client.request(&Request::List)? {
///     for summary in channels {
///         println!("{} {}", summary.channel, summary.capacity);
///     }
/// }
/// # Ok::<(), shm_proto::Error>(())
/// ```
#[derive(Debug)]
pub struct Client {
    conn: Conn,
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// Connects to the daemon; this and every reply may take `timeout`.
    ///
    /// # Errors
    /// [`RequestError::NoDaemon`] when none answers there, [`RequestError::System`] when this user may not connect to it,
    /// [`RequestError::TimedOut`] when it does not take the connection.
    pub fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<Self, RequestError> {
        let path = &endpoint.socket;
        let stream = open(path, timeout)?;
        Ok(Client { conn: Conn::new(stream, MAX_REPLY), socket: path.clone(), timeout })
    }

    /// How long each later reply may take.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`RequestError::Refused`] with the daemon's reason; [`RequestError::TimedOut`]; [`RequestError::NoDaemon`] when it
    /// closed the connection instead of answering; [`RequestError::Protocol`] for an answer that makes no sense.
    pub fn request(&mut self, request: &Request) -> Result<Done, RequestError> {
        self.request_with_fds(request).map(|(done, _)| done)
    }

    /// Asks, and waits for the answer and the descriptors that come with it.
    ///
    /// # Errors
    /// Those of [`request`](Self::request).
    pub fn request_with_fds(&mut self, request: &Request) -> Result<(Done, Vec<OwnedFd>), RequestError> {
        // A daemon that turns a client away says why and closes, perhaps before it is asked: look for its line anyway.
        let unsent = self.conn.send(request, &[]).err();
        let deadline = clock::after(self.timeout);
        loop {
            match self.conn.receive()? {
                Received::Line(line, fds) => {
                    return match decode(&line)? {
                        Reply::Ok(done) => Ok((done, fds)),
                        Reply::Error(refusal) => Err(RequestError::Refused(refusal)),
                    };
                }
                Received::Closed => {
                    let sent = if unsent.is_none() { "without an answer" } else { "before the request was sent" };
                    return Err(self.no_daemon(&format!("it closed the connection {sent}")));
                }
                Received::Nothing => self.wait(deadline)?,
            }
        }
    }

    /// The text of a channel's schema; without a name, of the daemon's only channel. `None` if its configuration declares none.
    ///
    /// # Errors
    /// Those of [`request`](Self::request).
    pub fn schema(&mut self, channel: Option<ChannelName>) -> Result<Option<Vec<u8>>, RequestError> {
        let (done, fds) = self.request_with_fds(&Request::Schema { channel })?;
        let broken = |reason: &str| ProtocolError::Broken(reason.to_owned());
        let Done::Schema(declared) = done else {
            return Err(broken("the daemon answered schema with something else").into());
        };
        let schema = declared.content.and_then(|content| content.schema).filter(|schema| schema.bytes > 0);
        let Some(schema) = schema else { return Ok(None) };
        let fd = fds.into_iter().next().ok_or_else(|| broken("the text of a schema did not come with its name"))?;
        let text = sealed::read(fd, MAX_SCHEMA)?;
        if text.len() as u64 != schema.bytes || hash(&text) != schema.hash {
            return Err(broken("the text of a schema has another length or hash than the daemon announced").into());
        }
        Ok(Some(text))
    }

    /// The connection itself, for a client that has attached or been lent the writer role.
    #[must_use]
    pub fn into_conn(self) -> Conn {
        self.conn
    }

    fn wait(&self, deadline_ns: u64) -> Result<(), RequestError> {
        let left = clock::left(deadline_ns);
        if left.is_zero() {
            return Err(self.timed_out("answer a request"));
        }
        readable(self.conn.as_fd(), Some(left))
            .map_err(|e| SystemError::new("cannot wait for the daemon's answer", e))?;
        Ok(())
    }

    fn no_daemon(&self, reason: &str) -> RequestError {
        RequestError::NoDaemon { socket: self.socket.clone(), reason: reason.to_owned() }
    }

    fn timed_out(&self, to_do: &str) -> RequestError {
        timed_out(&self.socket, to_do, self.timeout)
    }
}

fn timed_out(socket: &Path, to_do: &str, waited: Duration) -> RequestError {
    RequestError::TimedOut { what: format!("the daemon at {} to {to_do}", socket.display()), waited }
}

/// This program's name as `stat` shows it.
pub(super) fn program() -> Option<String> {
    std::env::current_exe().ok()?.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// A connection, if a daemon takes it at once.
pub(super) fn open_now(path: &Path) -> Option<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
    let addr = UnixAddr::new(path).ok()?;
    // With a full backlog this fails instead of waiting.
    socket::connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &addr).ok()?;
    Some(UnixStream::from(fd))
}

fn open(path: &Path, timeout: Duration) -> Result<UnixStream, RequestError> {
    let action = || format!("cannot connect to the daemon at {}", path.display());
    let failed = |e: Errno| SystemError::new(action(), e);
    let addr = UnixAddr::new(path).map_err(|_| {
        let reason =
            format!("the socket's path has {} bytes, more than a socket's can have", path.as_os_str().as_bytes().len());
        SystemError::new(action(), io::Error::new(io::ErrorKind::InvalidInput, reason))
    })?;
    let fd = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
    // A daemon that does not accept lets its backlog fill, and connecting then waits as long as sending may.
    let micros = i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX).max(1);
    socket::setsockopt(&fd, sockopt::SendTimeout, &TimeVal::microseconds(micros)).map_err(failed)?;
    let no_daemon = |reason: &str| Err(RequestError::NoDaemon { socket: path.to_owned(), reason: reason.to_owned() });
    loop {
        return match socket::connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &addr) {
            Ok(()) => {
                socket::setsockopt(&fd, sockopt::SendTimeout, &TimeVal::microseconds(0)).map_err(failed)?;
                Ok(UnixStream::from(fd))
            }
            Err(Errno::EINTR) => continue,
            Err(Errno::ENOENT) => no_daemon("there is no such socket"),
            Err(Errno::ENOTDIR) => no_daemon("its directory is no directory"),
            Err(Errno::ECONNREFUSED) => no_daemon("nobody listens on the socket, it was left behind"),
            Err(Errno::EAGAIN) => Err(timed_out(path, "accept a connection", timeout)),
            Err(e) => Err(failed(e).into()),
        };
    }
}

#[cfg(test)]
mod tests;
