//! The thread that reads files ahead, so that decompressing a chunk delays no message.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use mcap::Summary;
use mcap::sans_io::{IndexedReadEvent, IndexedReader, IndexedReaderOptions};
use shmctl::companion::{Failure, Result};

use super::batch::Batch;
use super::topics::Topics;
use super::when::Range;
use crate::format::encode::chunk_head_len;
use crate::format::input::{Input, Unreadable};

/// Batches that are read ahead.
const AHEAD: usize = 8;

/// What is to be published.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) inputs: Vec<Input>,
    pub(crate) topics: Topics,
    pub(crate) range: Range,
    /// How often; without end if this is `None`.
    pub(crate) passes: Option<u64>,
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
        let mut out = Out { batch, used, present: Batch::default() };
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
}

impl Out {
    /// Hands the present batch over. False: nobody takes it.
    fn send(&mut self) -> bool {
        let mut next = self.used.try_recv().unwrap_or_default();
        next.clear();
        self.batch.send(std::mem::replace(&mut self.present, next)).is_ok()
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
    let places: BTreeMap<u16, usize> = input
        .summary
        .channels
        .values()
        .filter_map(|channel| Some((channel.id, plan.topics.place(&channel.topic)?)))
        .collect();
    // Without a topic to include, the crate would include all of them.
    if places.is_empty() {
        return Ok(Some(0));
    }
    let damaged = |error: mcap::McapError| Unreadable::Damaged(error.to_string());
    let mut options = IndexedReaderOptions::new().include_topics(plan.topics.names());
    (options.start, options.end) = (plan.range.from, plan.range.to);
    let (plain, lengths) = without_compression(&input.summary);
    let mut reader = IndexedReader::new_with_options(&plain, options).map_err(damaged)?;
    let (mut buffer, mut messages) = (Vec::new(), 0);
    while let Some(event) = reader.next_event() {
        match event.map_err(damaged)? {
            IndexedReadEvent::ReadChunkRequest { offset, .. } => {
                let start = offset - chunk_head_len("") as u64;
                let length = lengths.get(&start).copied().unwrap_or_default();
                let records = input.records(start, length, &mut buffer)?;
                reader.insert_chunk_record_data(offset, &records).map_err(damaged)?;
            }
            IndexedReadEvent::Message { header, data } => {
                let Some(place) = places.get(&header.channel_id) else { continue };
                out.present.push(*place, header.log_time, data);
                messages += 1;
                if out.present.is_full() && !out.send() {
                    return Ok(None);
                }
            }
        }
    }
    Ok(Some(messages))
}

/// The summary as it would be without compression, so that the crate orders messages, and chunks are checked and decompressed here;
/// and the length of each chunk by its beginning.
fn without_compression(summary: &Summary) -> (Summary, BTreeMap<u64, u64>) {
    let mut plain = summary.clone();
    let mut lengths = BTreeMap::new();
    for index in &mut plain.chunk_indexes {
        lengths.insert(index.chunk_start_offset, index.chunk_length);
        index.compression.clear();
        index.compressed_size = index.uncompressed_size;
    }
    (plain, lengths)
}
