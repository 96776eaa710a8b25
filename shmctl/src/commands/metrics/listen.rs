//! Sockets that are listened on: one that is made here, or those that systemd hands over.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt};
use shm_proto::internal::os::inherited;
use shm_proto::internal::os::socket_name::is_in_use;

use crate::error::{Failure, Result};

/// Where sockets come from.
const WAY_OUT: &str =
    "start this from the service of a systemd socket unit such as shmd-metrics.socket, or use --listen unix:PATH";

/// What `--listen` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// A Unix socket, made here.
    Unix(PathBuf),
    /// The sockets of a systemd socket unit.
    Systemd,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => Ok(Listen::Unix(path.into())),
            None if text == "systemd" => Ok(Listen::Systemd),
            _ => Err(format!(
                "{text:?} is not a place to listen: write unix:PATH, or systemd in the service of a socket unit, which may \
                 have TCP ports"
            )),
        }
    }
}

impl Listen {
    /// Begins to listen.
    pub(super) fn open(&self) -> Result<Listeners> {
        match self {
            Listen::Unix(path) => {
                let (listener, made) = bind(path)
                    .map_err(|reason| Failure::Other(format!("cannot listen on unix:{}: {reason}", path.display())))?;
                Ok(Listeners { all: vec![Listener::Unix(listener)], _made: Some(made) })
            }
            Listen::Systemd => {
                let refuse = |reason: String| Failure::Usage(format!("--listen systemd: {reason}"));
                let sockets = inherited::sockets().map_err(|reason| refuse(format!("{reason}; {WAY_OUT}")))?;
                let all = (1..).zip(sockets).map(|(number, socket)| {
                    Listener::of(socket).map_err(|reason| refuse(format!("socket {number} of LISTEN_FDS: {reason}")))
                });
                Ok(Listeners { all: all.collect::<Result<_>>()?, _made: None })
            }
        }
    }
}

/// Binds the socket. One that nobody listens on any more is replaced.
fn bind(path: &Path) -> Result<(UnixListener, Made), String> {
    let listener = match UnixListener::bind(path) {
        Err(e) if e.kind() == ErrorKind::AddrInUse => {
            let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
            if !is_socket {
                return Err("there is a file of this name that is not a socket; choose another PATH".to_owned());
            }
            if is_in_use(path).map_err(|e| format!("cannot find out whether a process listens there: {e}"))? {
                return Err("another process listens there; end that process, or choose another PATH".to_owned());
            }
            fs::remove_file(path).map_err(|e| format!("cannot remove the socket that an earlier process left: {e}"))?;
            UnixListener::bind(path).map_err(|e| e.to_string())?
        }
        listener => listener.map_err(|e| e.to_string())?,
    };
    listener.set_nonblocking(true).map_err(|e| e.to_string())?;
    let found = fs::symlink_metadata(path).map_err(|e| e.to_string())?;
    Ok((listener, Made { path: path.to_owned(), file: (found.dev(), found.ino()) }))
}

/// The sockets, and what of them is to be removed at the end.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) all: Vec<Listener>,
    /// Its name is removed when this is dropped.
    _made: Option<Made>,
}

/// A socket's name in the file system. Removed at the end, unless it has become another socket's.
#[derive(Debug)]
struct Made {
    path: PathBuf,
    file: (u64, u64),
}

impl Drop for Made {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub(super) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// A socket that was handed over, if it is a listening stream socket of a known family.
    fn of(fd: OwnedFd) -> Result<Self, String> {
        use std::os::fd::AsRawFd;
        let address: SockaddrStorage = getsockname(fd.as_raw_fd()).map_err(|e| format!("it is not a socket ({e})"))?;
        if getsockopt(&fd, sockopt::AcceptConn) != Ok(true) {
            return Err(
                "it does not listen for connections; the socket unit needs ListenStream= and Accept=no".to_owned()
            );
        }
        let listener = match address.family() {
            Some(AddressFamily::Unix) => Listener::Unix(fd.into()),
            Some(AddressFamily::Inet | AddressFamily::Inet6) => Listener::Tcp(fd.into()),
            family => {
                return Err(format!("its address family is {family:?}, and only Unix sockets and TCP are served"));
            }
        };
        match &listener {
            Listener::Unix(socket) => socket.set_nonblocking(true),
            Listener::Tcp(socket) => socket.set_nonblocking(true),
        }
        .map_err(|e| e.to_string())?;
        Ok(listener)
    }

    /// The next connection, or `WouldBlock` if nobody waits.
    pub(super) fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Unix(socket) => socket.accept().map(|(stream, _)| Stream::Unix(stream)),
            Listener::Tcp(socket) => socket.accept().map(|(stream, _)| Stream::Tcp(stream)),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Unix(socket) => socket.as_fd(),
            Listener::Tcp(socket) => socket.as_fd(),
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listener::Unix(socket) => match socket.local_addr().ok().as_ref().and_then(|it| it.as_pathname()) {
                Some(path) => write!(f, "unix:{}", path.display()),
                None => f.write_str("a Unix socket"),
            },
            Listener::Tcp(socket) => match socket.local_addr() {
                Ok(address) => write!(f, "http://{address}/metrics"),
                Err(_) => f.write_str("a TCP port"),
            },
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    pub(super) fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.set_read_timeout(Some(timeout)),
            Stream::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    pub(super) fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.set_write_timeout(Some(timeout)),
            Stream::Tcp(stream) => stream.set_write_timeout(Some(timeout)),
        }
    }

    /// Tells the client that nothing more comes.
    pub(super) fn finish_writing(&self) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.read(into),
            Stream::Tcp(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_to_listen_is_a_unix_socket_or_systemds() {
        assert_eq!("unix:/run/x".parse(), Ok(Listen::Unix("/run/x".into())));
        assert_eq!("systemd".parse(), Ok(Listen::Systemd));
        for text in ["", "unix:", "/run/x", ":9100", "tcp:9100", "systemd "] {
            let refused = text.parse::<Listen>().unwrap_err();
            assert!(refused.contains("unix:PATH"), "{refused}");
        }
    }

    #[test]
    fn what_is_no_listening_socket_is_refused_with_the_reason() {
        let (reader, _writer) = io::pipe().unwrap();
        assert!(Listener::of(reader.into()).unwrap_err().contains("not a socket"));
        let (left, _right) = UnixStream::pair().unwrap();
        assert!(Listener::of(left.into()).unwrap_err().contains("ListenStream="));
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(matches!(Listener::of(tcp.into()), Ok(Listener::Tcp(_))));
    }
}
