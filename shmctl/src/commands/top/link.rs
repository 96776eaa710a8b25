//! Asking the daemon without waiting for it: a daemon that hangs must not keep the person from looking and leaving.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use shm_proto::internal::control::log::LogEntry;
use shm_proto::internal::control::stat::ChannelStat;
use shm_proto::internal::control::{Conn, Pong, Received, Reply, decode};
use shm_proto::{ChannelName, Client, Done, Endpoint, Request, RequestError};

use super::super::unexpected;
use super::figures::OPERATIONS;
use crate::error::Result;
use crate::global::ANSWER;
use crate::output::wait_for;
use crate::signals::Signals;

/// A connection to the daemon, and at most one request on its way.
#[derive(Debug)]
pub(super) struct Exchange {
    conn: Conn,
    socket: PathBuf,
    patience: Duration,
    deadline: Instant,
}

impl Exchange {
    /// Connects, which a daemon that takes no connections may delay by `patience`.
    pub(super) fn open(endpoint: &Endpoint, patience: Duration) -> Result<Self> {
        let conn = Client::connect(endpoint, patience)?.into_conn();
        Ok(Exchange { conn, socket: endpoint.socket.clone(), patience, deadline: Instant::now() })
    }

    /// Sends a request whose answer may take `patience`.
    pub(super) fn ask(&mut self, request: &Request, patience: Duration) {
        // A daemon that turns a client away says why before it closes: that line is the answer.
        let _ = self.conn.send(request, &[]);
        (self.patience, self.deadline) = (patience, Instant::now() + patience);
    }

    /// The answer, if it has arrived.
    pub(super) fn answer(&mut self) -> Result<Option<Done>> {
        let socket = self.socket.clone();
        let reason = "it closed the connection without an answer".to_owned();
        match self.conn.receive()? {
            Received::Line(line, _) => match decode(&line)? {
                Reply::Ok(done) => Ok(Some(done)),
                Reply::Error(refusal) => Err(RequestError::Refused(refusal).into()),
            },
            Received::Closed => Err(RequestError::NoDaemon { socket, reason }.into()),
            Received::Nothing if Instant::now() >= self.deadline => {
                let what = format!("the daemon at {} to answer a request", socket.display());
                Err(RequestError::TimedOut { what, waited: self.patience }.into())
            }
            Received::Nothing => Ok(None),
        }
    }

    /// When the answer is late.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the daemon has left, while nothing was asked.
    fn is_closed(&mut self) -> bool {
        !matches!(self.conn.receive(), Ok(Received::Nothing))
    }
}

/// Readable when there may be an answer.
impl AsFd for Exchange {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.conn.as_fd()
    }
}

/// A part of a look at the daemon.
#[derive(Debug)]
pub(super) enum News {
    /// Another connection: this daemon answers.
    Daemon(Pong),
    Channels(Vec<ChannelStat>),
    /// The operations since the last look, or since the daemon knows of any on another connection. The look is complete.
    Operations(Vec<LogEntry>),
}

/// What the daemon was asked.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Ping,
    Stat,
    Log,
}

/// Looks at the daemon: its process, the channels, the operations.
#[derive(Debug)]
pub(super) struct Observer {
    endpoint: Endpoint,
    channel: Option<ChannelName>,
    link: Option<Exchange>,
    /// What has no answer yet. None between two looks.
    asked: Option<Asked>,
    /// The number of the last operation that is known.
    seen: u64,
}

impl Observer {
    /// Of one channel, or of all.
    pub(super) fn new(endpoint: Endpoint, channel: Option<ChannelName>) -> Self {
        Observer { endpoint, channel, link: None, asked: None, seen: 0 }
    }

    /// Begins a look, unless one is under way. Connecting may take `patience`.
    pub(super) fn begin(&mut self, patience: Duration) -> Result<()> {
        if self.asked.is_some() {
            return Ok(());
        }
        let kept = self.link.take().and_then(|mut link| (!link.is_closed()).then_some(link));
        let (mut link, asked, request) = match kept {
            Some(link) => (link, Asked::Stat, Request::Stat { channel: self.channel.clone() }),
            None => (Exchange::open(&self.endpoint, patience)?, Asked::Ping, Request::Ping),
        };
        link.ask(&request, ANSWER);
        (self.link, self.asked) = (Some(link), Some(asked));
        Ok(())
    }

    /// What has arrived. After an error, the next look is on another connection.
    pub(super) fn news(&mut self) -> Result<Option<News>> {
        let news = self.answered();
        if news.is_err() {
            (self.link, self.asked) = (None, None);
        }
        news
    }

    /// The connection, while there is an answer to wait for.
    pub(super) fn waiting(&self) -> Option<&Exchange> {
        self.link.as_ref().filter(|_| self.asked.is_some())
    }

    /// A whole look, for a command that has nothing else to do. A signal ends it early.
    pub(super) fn look(&mut self, signals: &Signals, mut take: impl FnMut(News)) -> Result<()> {
        self.begin(ANSWER)?;
        while let Some(link) = self.waiting().filter(|_| !signals.came()) {
            let left = link.deadline().saturating_duration_since(Instant::now());
            let signal = PollFd::new(signals.as_fd(), PollFlags::POLLIN);
            wait_for(&mut [PollFd::new(link.as_fd(), PollFlags::POLLIN), signal], left)?;
            if let Some(news) = self.news()? {
                take(news);
            }
        }
        Ok(())
    }

    fn answered(&mut self) -> Result<Option<News>> {
        let (Some(link), Some(asked)) = (&mut self.link, self.asked) else { return Ok(None) };
        let Some(done) = link.answer()? else { return Ok(None) };
        let channel = self.channel.clone();
        match (asked, done) {
            (Asked::Ping, Done::Ping(daemon)) => {
                link.ask(&Request::Stat { channel }, ANSWER);
                (self.asked, self.seen) = (Some(Asked::Stat), 0);
                Ok(Some(News::Daemon(daemon)))
            }
            (Asked::Stat, Done::Stat(channels)) => {
                let last = Some(OPERATIONS);
                link.ask(&Request::Log { channel, since: self.seen, last, follow: false }, ANSWER);
                self.asked = Some(Asked::Log);
                Ok(Some(News::Channels(channels)))
            }
            (Asked::Log, Done::Log(entries)) => {
                self.seen = entries.last().map_or(self.seen, |entry| entry.seq);
                self.asked = None;
                Ok(Some(News::Operations(entries)))
            }
            (_, other) => Err(unexpected("ping, stat or log", &other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::path::Path;

    use super::*;

    #[test]
    fn an_answer_can_be_late_only_while_something_is_asked() {
        let (ours, _daemons) = UnixStream::pair().unwrap();
        let (conn, socket, long_ago) = (Conn::new(ours, 4096), "/x".into(), Instant::now());
        let mut observer = Observer::new(Endpoint::find(Some(Path::new("/x"))), None);
        observer.link = Some(Exchange { conn, socket, patience: ANSWER, deadline: long_ago });
        // A pause, or an interval, that is longer than the daemon may take for an answer.
        assert!(observer.waiting().is_none() && matches!(observer.news(), Ok(None)));
        observer.asked = Some(Asked::Stat);
        let late = observer.news().unwrap_err();
        assert_eq!(late.exit_code(), 75, "{late}");
        assert!(observer.waiting().is_none() && matches!(observer.news(), Ok(None)));
    }
}
