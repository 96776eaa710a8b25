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
mod client_socket;
mod clients;
mod exec;
mod feed;
mod fifo;
mod file_id;
mod packed;
mod packed_pump;
mod report;
mod sink;
mod stdin;
mod tail;
mod unix;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
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
pub(crate) use packed::{PackedSource, Rested};
pub(crate) use report::Report;

use crate::access::Access;
use crate::config::{CommandLine, SourceKind};
use crate::handover::Parcel;
use crate::threads;
use child::Running;
use clients::PackedClients;
use exec::PackedExec;
use feed::Feed;
use fifo::PackedFifo;
use packed_pump::PackedPump;
use sink::Sink;
use tail::PackedTail;

/// What a source's thread says.
#[derive(Debug)]
pub(crate) enum FromSource {
    /// The writer's line.
    Line(ToDaemon),
    /// It wants a program to be started.
    Start(Wanted),
    /// It rests as it was told to, and has given the writer up. Where it stands.
    Rested(Rested),
    /// The thread is at its end and has given the writer up: messages published, or why it failed.
    Ended(Result<u64>),
}

/// A program that a source wants to be started.
#[derive(Debug)]
pub(crate) struct Wanted {
    command: CommandLine,
    answer: Sender<std::io::Result<Running>>,
}

impl Wanted {
    /// Starts it: in the daemon's main thread, because it ends with the thread that started it.
    pub(crate) fn start(self) {
        // A source that is gone has no use for it: it ends when it is dropped.
        let _ = self.answer.send(Running::start(&self.command));
    }
}

/// A source's way to ask the daemon.
#[derive(Debug)]
struct Asks {
    to: Sender<FromSource>,
    bell: Bell,
}

impl Asks {
    fn start(&self, command: &CommandLine) -> std::io::Result<Running> {
        let (answer, started) = mpsc::channel();
        let gone = || std::io::Error::other("the daemon ends");
        let wanted = Wanted { command: command.clone(), answer };
        self.to.send(FromSource::Start(wanted)).map_err(|_| gone())?;
        self.bell.ring();
        started.recv().map_err(|_| gone())?
    }
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

/// What each kind of source leaves.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PackedInput {
    Stdin(Option<PackedPump>),
    Fifo(PackedFifo),
    Clients(PackedClients),
    Exec(PackedExec),
    Tail(PackedTail),
}

/// What a source reads.
trait Input: Send + std::fmt::Debug {
    /// Moves everything that comes into the ring. Returns at the end of an input that has one.
    ///
    /// # Errors
    /// [`WriterError::Interrupted`] when the source is to rest: called again, perhaps with another feed, it goes on where it was.
    /// [`WriterError::Revoked`] when the daemon takes the writer role back, and what makes going on impossible.
    fn run(&mut self, feed: &mut Feed<'_>) -> Result<()>;

    /// Who may write, which the daemon may change; for sources that check it.
    fn write_list(&mut self, _write: &Arc<Mutex<Access>>) {}

    /// Packs it for the next program in this process. It is still whole then.
    ///
    /// # Errors
    /// When descriptors or memory have run out.
    fn pack(&self, parcel: &mut Parcel) -> std::io::Result<PackedInput>;
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
    /// The thread is to rest.
    rests: Arc<AtomicBool>,
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

    /// Makes the thread rest, or not. It looks when it is woken.
    pub(crate) fn rest(&self, rests: bool) {
        // Relaxed: the flag tells nothing but itself.
        self.rests.store(rests, Ordering::Relaxed);
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
            // It may wait for an answer, and gets none.
            drop(self.take());
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Opens a source and starts to feed the channel from it, or takes up the one that `rested`.
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
    rested: &mut Option<Rested>,
) -> Result<Inside> {
    cutting.pump()?;
    let write = Arc::new(Mutex::new(write.clone()));
    if let Some(Rested(mut input)) = rested.take() {
        input.write_list(&write);
        return spawn(source.kind(), input, opening, cutting, write, Arc::clone(report));
    }
    let input: Box<dyn Input> = match source {
        SourceKind::None => unreachable!("a channel without a source starts none"),
        SourceKind::Stdin => Box::new(stdin::Stdin { input: std::io::stdin(), pump: None }),
        SourceKind::Fifo(path, access) => Box::new(fifo::Fifo::open(path, *access, &opening.left)?),
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
    mut input: Box<dyn Input>,
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
    let asks = Asks { to: to_daemon.clone(), bell: Bell::from_fd(rung.try_clone_fd()?)? };
    let end = to_daemon.clone();
    let source = kind.clone();
    let rests = Arc::new(AtomicBool::new(false));
    let is_to_rest = Arc::clone(&rests);
    let run = move || {
        let link = ThreadLink::new(from_daemon, move |line| {
            to_daemon.send(FromSource::Line(line)).map_err(|_| LinkError::Disconnected)?;
            link_bell.ring();
            Ok(())
        });
        let work = AssertUnwindSafe(|| {
            let (writer, segment) = opening.open(link)?;
            let sink = Sink::new(writer, &woken, &is_to_rest);
            let mut feed = Feed::new(sink, segment, cutting, &report, &asks);
            input.run(&mut feed)
        });
        let outcome = catch_unwind(work).unwrap_or_else(|_| {
            let panicked = std::io::Error::other("the thread panicked");
            Err(Error::system(format!("feed from {source}"), panicked))
        });
        let outcome = match outcome {
            Err(Error::Writer(WriterError::Interrupted { .. })) => {
                let _ = end.send(FromSource::Rested(Rested(input)));
                rung.ring();
                return;
            }
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
    let thread = threads::spawn(&format!("source-{kind}"), run)
        .map_err(|e| Error::system(format!("start a thread for source {kind}"), e))?;
    Ok(Inside { kind, write, to, from, rests, wake, bell: Bell::from_fd(bell)?, thread: Some(thread) })
}
