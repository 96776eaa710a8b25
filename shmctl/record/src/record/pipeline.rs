//! The way of chunks to the disk: to threads that compress them, if they are to be compressed, and to the thread that writes them
//! in their order.

use std::io::PipeReader;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use shmctl::companion::{Failure, Result};

use super::chunk::{Chunk, Sealed};
use super::depot::Depot;
use super::files::Files;
use crate::format::packing::{Compression, Packer};

/// Compressed chunks of each thread that may wait for the disk.
const READY: usize = 2;

/// What can be seen of the writing thread.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Bytes in finished chunks, as they lie in the files.
    pub(crate) written: AtomicU64,
    broken: AtomicBool,
    path: Mutex<PathBuf>,
}

impl Progress {
    /// The present file.
    pub(crate) fn path(&self) -> PathBuf {
        self.path.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn look(&self, files: &Files) {
        self.broken.store(files.is_broken(), Ordering::Relaxed);
        *self.path.lock().unwrap_or_else(PoisonError::into_inner) = files.path();
    }
}

/// Where chunks go, in turn.
#[derive(Debug)]
enum Lane {
    /// To a thread that compresses them.
    Packing(Sender<Chunk>),
    /// To the disk.
    Writing(Sender<Sealed>),
}

/// The threads behind the receiver.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) depot: Arc<Depot>,
    pub(crate) progress: Arc<Progress>,
    compression: Compression,
    lanes: Vec<Lane>,
    turn: usize,
    packing: Vec<JoinHandle<()>>,
    writing: JoinHandle<Files>,
    /// Closed by the writing thread when it fails.
    failed: PipeReader,
}

impl Pipeline {
    /// Starts `threads` threads that compress, unless there is nothing to compress, and one that writes to `files`.
    pub(crate) fn start(
        files: Files,
        compression: Compression,
        level: i32,
        threads: usize,
        limit: usize,
    ) -> Result<Self> {
        let depot = Arc::new(Depot::new(limit));
        let progress = Arc::new(Progress::default());
        progress.look(&files);
        let (mut lanes, mut ends, mut packing) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..threads.max(1) {
            let packer = Packer::new(compression, level);
            match packer.map_err(|e| Failure::Other(format!("cannot prepare compression: {e}")))? {
                None if number == 0 => {
                    let (lane, end) = channel();
                    lanes.push(Lane::Writing(lane));
                    ends.push(end);
                }
                None => {}
                Some(packer) => {
                    let (lane, chunks) = channel();
                    let (ready, end) = sync_channel(READY);
                    let depot = Arc::clone(&depot);
                    let work = move || pack(&chunks, packer, compression, &depot, &ready);
                    packing.push(spawn(format!("pack-{number}"), work)?);
                    lanes.push(Lane::Packing(lane));
                    ends.push(end);
                }
            }
        }
        let (failed, alive) = std::io::pipe().map_err(|e| Failure::Other(format!("cannot make a pipe: {e}")))?;
        let (returned, seen) = (Arc::clone(&depot), Arc::clone(&progress));
        let writing = spawn("write".to_owned(), move || write(files, &ends, &returned, &seen, alive))?;
        Ok(Pipeline { depot, progress, compression, lanes, turn: 0, packing, writing, failed })
    }

    /// Hands a chunk over.
    pub(crate) fn send(&mut self, chunk: Chunk) {
        // A lane ends only if its thread has panicked, which shows when the threads are joined.
        match &self.lanes[self.turn] {
            Lane::Packing(lane) => drop(lane.send(chunk)),
            Lane::Writing(lane) => drop(lane.send(chunk.seal(None, self.compression, &self.depot))),
        }
        self.turn = (self.turn + 1) % self.lanes.len();
    }

    /// Whether writing has failed, so that there is no use in more.
    pub(crate) fn has_failed(&self) -> bool {
        // A writing thread that has panicked has said nothing; the panic goes on in `finish`.
        self.progress.broken.load(Ordering::Relaxed) || self.writing.is_finished()
    }

    /// Waits until every chunk is written, or counted as missing.
    pub(crate) fn finish(self) -> Files {
        drop(self.lanes);
        for thread in self.packing {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
        self.writing.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// Shows a hang-up from the moment on when writing fails.
impl AsFd for Pipeline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.failed.as_fd()
    }
}

fn spawn<T: Send + 'static>(name: String, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    Builder::new().name(name).spawn(work).map_err(|e| Failure::Other(format!("cannot start a thread: {e}")))
}

fn pack(
    chunks: &Receiver<Chunk>,
    mut packer: Packer,
    compression: Compression,
    depot: &Depot,
    ready: &SyncSender<Sealed>,
) {
    while let Ok(chunk) = chunks.recv() {
        if ready.send(chunk.seal(Some(&mut packer), compression, depot)).is_err() {
            return;
        }
    }
}

/// Takes one chunk of each lane in turn, as they were handed over.
fn write(
    mut files: Files,
    ends: &[Receiver<Sealed>],
    depot: &Depot,
    progress: &Progress,
    alive: std::io::PipeWriter,
) -> Files {
    let _guard = depot.close_at_end();
    let mut alive = Some(alive);
    for end in ends.iter().cycle() {
        // The first lane that has ended is the one that would have had the next chunk.
        let Ok(sealed) = end.recv() else { break };
        files.write(&sealed);
        progress.look(&files);
        let bytes = (sealed.buffer.bytes.len() + sealed.indexes.len()) as u64;
        progress.written.fetch_add(bytes, Ordering::Relaxed);
        if files.is_broken() {
            alive = None;
        }
        depot.give_back(sealed.buffer);
    }
    drop(alive);
    files
}
