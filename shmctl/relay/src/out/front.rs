//! The reader that reads ahead: it copies messages into envelopes, and hands these to the queue.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::warn;
use shm_proto::{AsyncFollower, Attachment, Endpoint, Follower, Message, Start};
use shmctl::companion::Failure;
use tokio::sync::watch;

use super::queue::Queue;
use crate::envelope::{Builder, Envelope, HEADER, Head, Part, most_of_a_part, part};
use crate::status::{State, Status, add};
use crate::stop::Stop;

/// Messages to take before others get their turn.
const TURN: usize = 512;
/// Messages between two looks at the clock.
const CLOCK: usize = 32;
/// How often to hear the daemon while the queue is full, and to look at the attachment while no message comes.
const TICK: Duration = Duration::from_millis(100);
/// Most parts of a message: fewer than a relay in leaves unacknowledged.
const PARTS: u64 = 4000;

/// Sizes and times of envelopes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most bytes of an envelope with several messages.
    pub(super) batch: usize,
    /// How long a message waits for others.
    pub(super) age: Duration,
    /// Most bytes that the server takes.
    pub(super) payload: usize,
}

/// The reading task.
#[derive(Debug)]
pub(super) struct Front {
    follower: AsyncFollower,
    builder: Builder,
    limits: Limits,
    /// Told which instance is attached.
    instance: watch::Sender<Option<u64>>,
    /// When the oldest message of the builder came.
    since: Option<Instant>,
    queue: Rc<Queue>,
    status: Rc<Status>,
    /// The state that the reader has shown last.
    shown: Option<State>,
}

/// What a turn has ended with.
enum Turn {
    /// The channel has no more messages.
    Empty,
    /// Others have to get their turn.
    Over,
    /// The envelope is full or old enough.
    Full,
    /// These envelopes are the parts of one message.
    Parts(Vec<Envelope>),
}

impl Front {
    pub(super) fn new(
        endpoint: Endpoint,
        channel: Option<&str>,
        limits: Limits,
        instance: watch::Sender<Option<u64>>,
        queue: Rc<Queue>,
        status: Rc<Status>,
    ) -> Result<Self, Failure> {
        let follower = AsyncFollower::new(Follower::new(endpoint, channel, Start::Oldest)?)?;
        let batch = limits.batch.min(limits.payload).max(HEADER + 64);
        let builder = Builder::new(batch);
        Ok(Front { follower, builder, limits, instance, since: None, queue, status, shown: None })
    }

    /// Reads until it is to stop; then everything that was read is in the queue.
    pub(super) async fn run(&mut self, mut stop: Stop) -> Result<(), Failure> {
        while !stop.is_set() {
            self.show_state().await?;
            let follower = self.follower.get_mut().await?;
            if let Some(notice) = follower.notice() {
                warn!("{notice}");
            }
            self.status.note_channel(follower.is_attached());
            if !follower.is_attached() {
                self.await_message(&mut stop).await?;
                continue;
            }
            if let Some(Attachment::Ring(reader)) = follower.attachment()? {
                let lineage = Some(reader.geometry().lineage);
                self.instance.send_if_modified(|now| std::mem::replace(now, lineage) != lineage);
            }
            match self.turn().await? {
                Turn::Empty => self.await_message(&mut stop).await?,
                Turn::Over => tokio::task::yield_now().await,
                Turn::Full => self.flush().await?,
                Turn::Parts(parts) => {
                    for envelope in parts {
                        self.offer(envelope).await?;
                    }
                }
            }
        }
        self.flush().await
    }

    async fn show_state(&mut self) -> Result<(), Failure> {
        let state = Some(self.status.state());
        if state != self.shown && self.follower.get_mut().await?.set_status(&self.status.of_reader("reads ahead")) {
            self.shown = state;
        }
        Ok(())
    }

    /// Waits for a message, which stays the next one, or until the envelope is old enough; not for long without looking.
    async fn await_message(&mut self, stop: &mut Stop) -> Result<(), Failure> {
        let due = self.since.map(|since| tokio::time::Instant::from_std(since + self.limits.age));
        let is_due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.wait() => return Ok(()),
            message = self.follower.recv() => {
                let _stays = message?.into_ready();
                return Ok(());
            }
            () = is_due => {}
            // It may be attached to another instance meanwhile, whose writer waits for the reader that holds.
            () = tokio::time::sleep(TICK) => return Ok(()),
        }
        self.flush().await
    }

    /// Takes messages that are at hand.
    async fn turn(&mut self) -> Result<Turn, Failure> {
        let follower = self.follower.get_mut().await?;
        for n in 0..TURN {
            let is_old = |since: Instant| since.elapsed() >= self.limits.age;
            if n % CLOCK == 0 && self.since.is_some_and(is_old) {
                return Ok(Turn::Full);
            }
            let Some(message) = follower.try_recv()? else { return Ok(Turn::Empty) };
            let head = Head {
                lineage: message.reader().geometry().lineage,
                seq: message.seq(),
                time: message.published().map(nanoseconds),
            };
            let lost = message.lost_before() + message.skipped_before();
            if !self.builder.accepts(&head, message.len()) {
                if !self.builder.is_empty() {
                    let _stays = message.into_ready();
                    return Ok(Turn::Full);
                }
                let whole = self.limits.payload.saturating_sub(HEADER + 16);
                if message.len() > whole {
                    let parts = split(&message, &head, self.limits.payload)?;
                    // Also if this message itself is overwritten meanwhile, which counts before the next one.
                    add(&self.status.lost, lost);
                    match message.finish() {
                        Ok(()) => return Ok(Turn::Parts(parts)),
                        Err(error) => follower.go_on_after(error)?,
                    }
                    continue;
                }
                // Larger than a batch, but not too large for the server.
                let mut alone = Builder::new(self.limits.payload);
                alone.append(head, |out| message.append_to(out));
                // Also if this message itself is overwritten meanwhile, which counts before the next one.
                add(&self.status.lost, lost);
                match message.finish() {
                    Ok(()) => return Ok(Turn::Parts(sealed(&mut alone).into_iter().collect())),
                    Err(error) => follower.go_on_after(error)?,
                }
                continue;
            }
            self.builder.append(head, |out| message.append_to(out));
            // Also if this message itself is overwritten meanwhile, which counts before the next one.
            add(&self.status.lost, lost);
            match message.finish() {
                Ok(()) => {
                    self.since.get_or_insert_with(Instant::now);
                }
                Err(error) => {
                    self.builder.undo();
                    follower.go_on_after(error)?;
                }
            }
        }
        Ok(Turn::Over)
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        self.since = None;
        match sealed(&mut self.builder) {
            Some(envelope) => self.offer(envelope).await,
            None => Ok(()),
        }
    }

    /// Hands an envelope to the queue, and hears the daemon while the queue is full.
    async fn offer(&mut self, envelope: Envelope) -> Result<(), Failure> {
        let mut envelope = envelope;
        while let Some(back) = self.queue.offer(envelope) {
            envelope = back;
            tokio::select! {
                () = self.queue.space() => {}
                () = tokio::time::sleep(TICK) => {
                    self.show_state().await?;
                    let follower = self.follower.get_mut().await?;
                    if follower.is_attached() {
                        follower.arm()?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The envelope of a builder that has messages.
fn sealed(builder: &mut Builder) -> Option<Envelope> {
    // What this program has built is right.
    builder.finish().and_then(|bytes| Envelope::open(bytes).ok())
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0)
}

/// The envelopes of a message that is too large for one.
fn split(message: &Message<'_>, head: &Head, payload: usize) -> Result<Vec<Envelope>, Failure> {
    let (total, most) = (message.len() as u64, most_of_a_part(payload) as u64);
    if total.div_ceil(most) > PARTS {
        return Err(Failure::Other(format!(
            "message {} of the channel has {total} bytes, more than the {} that {PARTS} messages of the server's max_payload of \
             {payload} bytes hold; raise max_payload in the server's configuration",
            head.seq,
            PARTS * most
        )));
    }
    let starts = (0..total).step_by(most as usize);
    let parts = starts.filter_map(|offset| {
        let len = (total - offset).min(most) as usize;
        let bytes = part(head, Part { offset, total }, len, |out| message.copy_part(offset as usize, out));
        Envelope::open(bytes).ok()
    });
    Ok(parts.collect())
}
