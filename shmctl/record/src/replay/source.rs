//! The thread that reads files ahead, so that decompressing a chunk delays no message.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use shmctl::companion::{Failure, Result};

use super::batch::Batch;
use super::merge::{Merge, Wanted};
use super::topics::Topics;
use super::when::Range;
use crate::format::input::{Input, Unreadable};
use crate::format::memory::Memory;

/// Batches that are read ahead.
const AHEAD: usize = 8;
/// Bytes of memory of batches, if they have more than one message.
const MOST: u64 = 16 << 20;

/// What is to be published.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) inputs: Vec<Input>,
    pub(crate) topics: Topics,
    pub(crate) range: Range,
    /// How often; without end if this is `None`.
    pub(crate) passes: Option<u64>,
    /// What chunks and batches may take.
    pub(crate) memory: Memory,
}

/// The reading thread. It may read for long without a message to publish, for example on its way to a late beginning, so nobody waits
/// for its end: it ends by itself, when nobody takes its batches, or with the process.
#[derive(Debug)]
pub(crate) struct Source {
    batches: Receiver<Batch>,
    back: Sender<Batch>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// What the reading thread has to say.
#[derive(Debug)]
pub(crate) enum Next {
    Batch(Batch),
    /// It is still reading.
    NotYet,
    /// There is nothing after the last batch.
    End,
}

impl Source {
    pub(crate) fn start(plan: Plan) -> Result<Self> {
        let (batch, batches) = sync_channel(AHEAD);
        let (back, used) = channel();
        let mut out = Out { batch, used, present: Batch::default(), away: 0 };
        let thread = std::thread::Builder::new().name("read".to_owned());
        let thread = thread.spawn(move || read(&plan, &mut out));
        let thread = thread.map_err(|e| Failure::Other(format!("cannot start a thread: {e}")))?;
        Ok(Source { batches, back, thread: Some(thread) })
    }

    /// The next batch, if there is one within this time.
    ///
    /// # Errors
    /// Why the thread has ended before the end of the files.
    pub(crate) fn next_within(&mut self, timeout: Duration) -> Result<Next> {
        match self.batches.recv_timeout(timeout) {
            Ok(batch) => Ok(Next::Batch(batch)),
            Err(RecvTimeoutError::Timeout) => Ok(Next::NotYet),
            Err(RecvTimeoutError::Disconnected) => match self.thread.take().map(JoinHandle::join) {
                Some(Ok(read)) => read.map(|()| Next::End),
                Some(Err(panic)) => std::panic::resume_unwind(panic),
                None => Ok(Next::End),
            },
        }
    }

    /// The batch is published, and its memory can be used again.
    pub(crate) fn give_back(&self, batch: Batch) {
        // The thread may have ended.
        let _ = self.back.send(batch);
    }
}

/// Where batches go.
struct Out {
    batch: SyncSender<Batch>,
    used: Receiver<Batch>,
    present: Batch,
    /// Bytes of memory of the batches that did not come back yet.
    away: u64,
}

impl Out {
    /// Bytes of memory of all batches.
    fn held(&self) -> u64 {
        self.away + self.present.size()
    }

    /// Hands the present batch over. False: nobody takes it.
    fn send(&mut self) -> bool {
        let mut back = None;
        // Messages may be large, and one batch is always on its way.
        while self.away > 0 && self.held() > MOST {
            match self.used.recv() {
                Ok(batch) => back = Some(self.came_back(batch)),
                Err(_) => return false,
            }
        }
        let mut next = match back {
            Some(batch) => batch,
            None => self.used.try_recv().map(|batch| self.came_back(batch)).unwrap_or_default(),
        };
        next.clear();
        self.away += self.present.size();
        self.batch.send(std::mem::replace(&mut self.present, next)).is_ok()
    }

    fn came_back(&mut self, batch: Batch) -> Batch {
        self.away -= batch.size();
        batch
    }
}

fn read(plan: &Plan, out: &mut Out) -> Result<()> {
    let mut pass = 0;
    while plan.passes.is_none_or(|passes| pass < passes) {
        let mut messages = 0;
        for input in &plan.inputs {
            match read_file(plan, input, out) {
                Ok(Some(count)) => messages += count,
                Ok(None) => return Ok(()),
                Err(why) => {
                    // What was read before the damage is whole.
                    out.send();
                    let path = input.path.display();
                    return Err(Failure::Other(match why {
                        Unreadable::Io(error) => format!("cannot read {path}: {error}"),
                        Unreadable::Foreign(why) => format!("{path}: {why}"),
                        Unreadable::Large(why) => format!("{path}: {why}"),
                        Unreadable::Unindexed(_) => format!("{path}: there is no index of its chunks"),
                        Unreadable::Unfinished(why) | Unreadable::Damaged(why) => format!(
                            "{path} is damaged: {why}; write what can be read with: shmctl record --recover {path} --output NEW"
                        ),
                    }));
                }
            }
        }
        out.present.ends_pass = true;
        // Without messages, passes would follow each other without end.
        if !out.send() || messages == 0 {
            return Ok(());
        }
        pass += 1;
    }
    Ok(())
}

/// Reads the messages of a file in the order of their times. `None`: nobody takes them.
fn read_file(plan: &Plan, input: &Input, out: &mut Out) -> Result<Option<u64>, Unreadable> {
    let channels = input.summary.channels.values();
    let places = channels.filter_map(|channel| Some((channel.id, plan.topics.place(&channel.topic)?))).collect();
    let mut merge = Merge::new(input, Wanted { range: plan.range, places });
    let mut messages = 0;
    while let Some(message) = merge.next(plan.memory.with(out.held()))? {
        out.present.push(message.place, message.time, message.data);
        messages += 1;
        if out.present.is_full() && !out.send() {
            return Ok(None);
        }
    }
    Ok(Some(messages))
}
