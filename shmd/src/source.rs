//! Writers inside the daemon: the threads that sources run in.
//!
//! # Sources
//!
//! A source is an [`Input`]: it is opened in the daemon's thread, where a failure is the failure of the channel's start, and
//! then run in a thread of its own with a [`Feed`], which is everything that it may do: move bytes into the ring
//! through a [`Pump`](shm_proto::internal::framing::Pump) for each opening, client or run; count and log what is wrong with one of
//! them; wait. All waiting is the feed's, so that every source obeys the daemon alike.
//!
//! ```text
//! stdin fifo clients(unix) exec(child) tail -- Read + Pump --> feed --> sink --> ring
//!                                                              |  `--> report --> stat
//!                                                              `--> poll: inputs and the daemon's bell
//! ```
//!
//! An input's own faults never end a source, except standard input's, of which there is no other.
//!
//! # The link
//!
//! ```text
//! daemon thread                                      source thread
//!   Inside::tell  ---- mpsc ToWriter + descriptors ---> ThreadLink::receive   (Writer)
//!   Inside::ring  ---- bell --------------------------> poll, beside the input
//!   Inside::take  <--- mpsc FromSource ---------------- ThreadLink::send, and the end
//!   epoll         <--- bell --------------------------- rung with every line
//! ```

mod backoff;
mod child;
mod clients;
mod exec;
mod feed;
mod fifo;
mod file_id;
mod report;
mod sink;
mod stdin;
mod tail;
mod unix;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use shm_proto::Geometry;
use shm_proto::internal::control::stat::{self, SourceState};
use shm_proto::internal::os::bell::Bell;
use shm_proto::internal::os::page::SharedPage;
use shm_proto::internal::ring::layout::LeasePage;
use shm_proto::internal::ring::link::{LinkError, ToDaemon, ToWriter};
use shm_proto::internal::ring::thread_link::{Line, ThreadLink};
use shm_proto::internal::ring::{SourceNote, Writer};
use shm_proto::{Error, Result, WriterError};

pub(crate) use feed::Cutting;
pub(crate) use report::Report;

use crate::access::Access;
use crate::config::SourceKind;
use feed::Feed;

/// What a source's thread says.
#[derive(Debug)]
pub(crate) enum FromSource {
    /// The writer's line.
    Line(ToDaemon),
    /// The thread is at its end and has given the writer up: messages published, or why it failed.
    Ended(Result<u64>),
}

/// What a writer needs to be opened inside the daemon.
#[derive(Debug)]
pub(crate) struct Opening {
    /// The segment, open for reading and writing.
    pub(crate) segment: OwnedFd,
    /// The page shared with the daemon's end.
    pub(crate) lease: SharedPage<LeasePage>,
    /// The channel's fixed facts.
    pub(crate) geometry: Geometry,
    /// What may be used now, in bytes.
    pub(crate) capacity: u64,
    /// How far the source had read its file before.
    pub(crate) left: SourceNote,
    /// Messages published and dropped so far, and payload bytes.
    pub(crate) counts: (u64, u64, u64),
}

impl Opening {
    /// The writer, and the segment to take notes in.
    fn open(self, link: ThreadLink) -> Result<(Writer, OwnedFd), WriterError> {
        let writer = Writer::open(self.segment.as_fd(), self.lease, Box::new(link), self.geometry, self.capacity)?;
        Ok((writer, self.segment))
    }
}

/// What a source reads.
trait Input: Send {
    /// Moves everything that comes into the ring. Returns at the end of an input that has one.
    ///
    /// # Errors
    /// [`WriterError::Revoked`] when the daemon takes the writer role back, and what makes going on impossible.
    fn run(self: Box<Self>, feed: &mut Feed<'_>) -> Result<()>;
}

/// How long a source that is dropped before its end has to end.
const END: Duration = Duration::from_secs(1);

/// The daemon's end of a source.
#[derive(Debug)]
pub(crate) struct Inside {
    kind: stat::SourceKind,
    /// The users who may feed the source, if the source checks that.
    write: Arc<Mutex<Access>>,
    to: Sender<Line>,
    from: Receiver<FromSource>,
    /// Rung for the thread.
    wake: Bell,
    /// Rung by the thread.
    bell: Bell,
    thread: Option<JoinHandle<()>>,
}

impl Inside {
    /// `stdin`, say.
    pub(crate) fn kind(&self) -> &stat::SourceKind {
        &self.kind
    }

    /// Readable when the thread has said something.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Puts a line on the link. A thread that is gone has said so, or will.
    pub(crate) fn tell(&self, line: ToWriter, fds: Vec<OwnedFd>) {
        let _ = self.to.send((line, fds));
    }

    /// Wakes the thread out of its waiting for input.
    pub(crate) fn ring(&self) {
        self.wake.ring();
    }

    /// What the thread has said since the last call.
    pub(crate) fn take(&self) -> Vec<FromSource> {
        self.bell.drain();
        self.from.try_iter().collect()
    }

    /// Admits these users from now on; connected clients stay.
    pub(crate) fn set_write(&self, write: &Access) {
        self.write.lock().unwrap_or_else(PoisonError::into_inner).clone_from(write);
    }

    /// Leaves a thread behind that does not end.
    pub(crate) fn abandon(&mut self) {
        self.thread = None;
    }

    /// Waits for a thread that has said that it is at its end.
    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // The end was reported, a panic included.
            let _ = thread.join();
        }
    }
}

impl Drop for Inside {
    /// A start that fails halfway ends the sources that it has started, so that they can clean up.
    fn drop(&mut self) {
        let Some(thread) = &self.thread else { return };
        self.tell(ToWriter::Revoked { reason: "the source is not needed".to_owned() }, Vec::new());
        self.ring();
        let until = Instant::now() + END;
        while !thread.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Opens a source and starts to feed the channel from it.
///
/// # Errors
/// When it cannot be opened, when the framing does not go with the channel's largest message, and when the system gives no
/// descriptors or no thread. What fails in the thread is reported as its end.
pub(crate) fn start(
    source: &SourceKind,
    opening: Opening,
    cutting: Cutting,
    write: &Access,
    report: &Arc<Report>,
) -> Result<Inside> {
    cutting.pump()?;
    let write = Arc::new(Mutex::new(write.clone()));
    let input: Box<dyn Input> = match source {
        SourceKind::None => unreachable!("a channel without a source starts none"),
        SourceKind::Stdin => Box::new(stdin::Stdin(std::io::stdin())),
        SourceKind::Fifo(path, access) => Box::new(fifo::Fifo::open(path, *access)?),
        SourceKind::Unix(path, packets) => {
            let listener = unix::Listener::bind(path, *packets)?;
            Box::new(clients::Clients::new(listener, *packets, Arc::clone(&write)))
        }
        SourceKind::Exec(command) => Box::new(exec::Exec::new(command.clone())),
        SourceKind::Tail(path) => {
            let tail = tail::Tail::open(path, cutting, opening.left)?;
            // Before anybody is told that the file is followed.
            tail.note(opening.segment.as_fd(), cutting, opening.counts)?;
            Box::new(tail)
        }
    };
    spawn(source.kind(), input, opening, cutting, write, Arc::clone(report))
}

fn spawn(
    kind: stat::SourceKind,
    input: Box<dyn Input>,
    opening: Opening,
    cutting: Cutting,
    write: Arc<Mutex<Access>>,
    report: Arc<Report>,
) -> Result<Inside> {
    let (to, from_daemon) = mpsc::channel();
    let (to_daemon, from) = mpsc::channel();
    let (wake, woken) = Bell::new()?;
    let (rung, bell) = Bell::new()?;
    let woken = Bell::from_fd(woken)?;
    let link_bell = Bell::from_fd(rung.try_clone_fd()?)?;
    let end = to_daemon.clone();
    let source = kind.clone();
    let run = move || {
        let link = ThreadLink::new(from_daemon, move |line| {
            to_daemon.send(FromSource::Line(line)).map_err(|_| LinkError::Disconnected)?;
            link_bell.ring();
            Ok(())
        });
        let work = AssertUnwindSafe(|| {
            let (writer, segment) = opening.open(link)?;
            let mut feed = Feed::new(writer, segment, &woken, cutting, &report);
            input.run(&mut feed)
        });
        let outcome = catch_unwind(work).unwrap_or_else(|_| {
            let panicked = std::io::Error::other("the thread panicked");
            Err(Error::system(format!("feed from {source}"), panicked))
        });
        let outcome = match outcome {
            Ok(()) | Err(Error::Writer(WriterError::Revoked { .. })) => {
                report.set(SourceState::Ended);
                Ok(report.messages())
            }
            Err(e) => {
                report.set(SourceState::Failed);
                report.error(e.to_string());
                Err(e)
            }
        };
        // A daemon that does not listen any more needs no report.
        let _ = end.send(FromSource::Ended(outcome));
        rung.ring();
    };
    let thread = thread::Builder::new()
        .name(format!("source-{kind}"))
        .spawn(run)
        .map_err(|e| Error::system(format!("start a thread for source {kind}"), e))?;
    Ok(Inside { kind, write, to, from, wake, bell: Bell::from_fd(bell)?, thread: Some(thread) })
}
