//! The daemon itself as a writer, for a moment.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, Sender};

use shm_proto::Result;
use shm_proto::ring::Writer;
use shm_proto::ring::link::{ToDaemon, ToWriter};

use super::{FromSource, Line, Opening, ThreadLink};

/// The writer role in the daemon's own hands, for channels that nobody writes and no program was ever lent.
#[derive(Debug)]
pub(crate) struct Own {
    writer: Writer,
    to: Sender<Line>,
    from: Receiver<FromSource>,
}

impl Own {
    /// Takes the role.
    ///
    /// # Errors
    /// When the segment is not what it should be.
    pub(crate) fn take(mut opening: Opening) -> Result<Self> {
        let (to, from_daemon) = mpsc::channel();
        let (to_daemon, from) = mpsc::channel();
        for line in opening.lines.drain(..) {
            let _ = to.send(line);
        }
        let channel = opening.geometry.channel.to_string();
        let writer = opening.open(Box::new(ThreadLink { channel, from_daemon, to_daemon, bell: None }))?;
        Ok(Self { writer, to, from })
    }

    /// Puts a line on the link; the next [`work`](Self::work) reads it.
    pub(crate) fn tell(&self, line: ToWriter, fds: Vec<OwnedFd>) {
        let _ = self.to.send((line, fds));
    }

    /// Goes on with what was asked for, without waiting; returns what the writer has to say.
    ///
    /// # Errors
    /// When the segment is broken.
    pub(crate) fn work(&mut self) -> Result<Vec<ToDaemon>> {
        self.writer.maintain()?;
        let line = |from| match from {
            FromSource::Line(line) => Some(line),
            FromSource::Ended(_) => None,
        };
        Ok(self.from.try_iter().filter_map(line).collect())
    }
}
