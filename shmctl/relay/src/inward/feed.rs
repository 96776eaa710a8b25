//! Gives the messages of the stream to the publisher: all of them, in order, each once.
//!
//! The server gives a consumer its messages in order, except those that were given to somebody and not acknowledged: these come again
//! later, behind newer ones. So whatever is missing before a message is read from the stream by its number. What comes again then is
//! acknowledged and passed over.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::Info;
use async_nats::jetstream::{self, AckKind};
use bytes::Bytes;
use futures_util::StreamExt;
use log::{debug, info, warn};
use tokio::time::MissedTickBehavior;

use super::assembly::{Assembly, Joined};
use super::durable::{ACK_WAIT, Durable};
use super::publisher::{Publisher, foreign};
use crate::envelope::{BadEnvelope, Envelope};
use crate::failure::{Trouble, with_causes};
use crate::status::{State, Status, add};
use crate::stream;

/// How often to look whether there is a daemon.
const LOOK: Duration = Duration::from_secs(1);
/// If more messages than this are missing, the stream is asked where it begins before they are read one by one.
const MANY: u64 = 16;
/// Between two lines about messages that are no relay's.
const GARBAGE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Feed {
    durable: Durable,
    publisher: Publisher,
    /// The next message of the stream.
    at: u64,
    assembly: Assembly,
    /// Parts that are acknowledged when their message is in the channel, by their numbers in the stream.
    held: BTreeMap<u64, jetstream::Message>,
    /// When the server was last told that the parts are still needed.
    told_held: Instant,
    /// When the stream was created, in nanoseconds since 1970.
    created: Option<i128>,
    told_garbage: Option<Instant>,
    status: Rc<Status>,
}

impl Feed {
    pub(super) fn new(durable: Durable, publisher: Publisher, first: u64, status: Rc<Status>) -> Self {
        Feed {
            durable,
            publisher,
            at: first,
            assembly: Assembly::default(),
            held: BTreeMap::new(),
            told_held: Instant::now(),
            created: None,
            told_garbage: None,
            status,
        }
    }

    /// Whether the channel has no more messages than the stream. What the server says of the messages that it has given to the
    /// consumer tells nothing: a server that was killed may have forgotten the newest of them.
    pub(super) async fn check(&mut self) -> Result<(), Trouble> {
        let info = stream::info(self.durable.stream()).await?;
        let last = info.state.last_sequence;
        if last == 0 || !stream::keeps_newest(&info.config) {
            return Ok(());
        }
        let Some(stored) = stream::numbered(self.durable.stream(), last).await? else { return Ok(()) };
        let Ok(envelope) = Envelope::open(stored.payload) else { return Ok(()) };
        if !self.publisher.book().is_plausible(envelope.lineage(), envelope.end().seq) {
            foreign(self.publisher.channel().unwrap_or_default());
        }
        Ok(())
    }

    /// Gives messages until something does not succeed.
    pub(super) async fn run(&mut self) -> Result<Infallible, Trouble> {
        self.publisher.attach().await?;
        let end = self.follow_stream().await?;
        // A consumer that is made anew gives the parts again whose message is not whole: the next relay may need them.
        let start = self.assembly.begun().unwrap_or(self.at);
        let mut standing = self.durable.open(Some(start)).await?;
        if standing.given > end {
            // It would not give the messages between.
            self.durable.remove().await?;
            standing = self.durable.open(Some(start)).await?;
        }
        if standing.is_new {
            self.publisher.book().must_mark();
        }
        self.at = self.at.max(standing.first.min(end));
        self.read_before(standing.given.min(end)).await?;
        let mut messages = self.durable.messages().await?;
        self.status.set(State::Relaying, "");
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(Ok(message)) => self.take(message).await?,
                    Some(Err(error)) => return Err(Trouble::passing("cannot receive", with_causes(&error))),
                    None => return Err(Trouble::Passing("the server has ended the subscription".to_owned())),
                },
                () = self.publisher.attend() => self.publisher.attach().await?,
                _ = look.tick() => {
                    let state = if self.status.link.is_connected() { State::Relaying } else { State::Connecting };
                    self.status.set(state, &self.status.link.why());
                    self.keep_held().await;
                    self.publisher.look_for_daemon().await?;
                    self.publisher.attach().await?;
                }
            }
        }
    }

    /// Hears the daemon while there is nothing to publish, until the role ends.
    pub(super) async fn attend(&mut self) {
        self.publisher.attend().await;
    }

    /// What the server knows about the stream. While it does not answer, the daemon is heard.
    async fn stream_info(&mut self) -> Result<Info, Trouble> {
        let asking = stream::info(self.durable.stream());
        tokio::pin!(asking);
        loop {
            tokio::select! {
                biased;
                info = &mut asking => return info,
                () = self.publisher.attend() => self.publisher.attach().await?,
            }
        }
    }

    /// Begins with the oldest message of a stream that was made anew, or whose end went back. Returns the number of the stream's next
    /// message.
    async fn follow_stream(&mut self) -> Result<u64, Trouble> {
        let info = self.stream_info().await?;
        let created = info.created.unix_timestamp_nanos();
        let is_another = self.created.replace(created).is_some_and(|before| before != created);
        let end = info.state.last_sequence + 1;
        if is_another || self.at > end {
            let first = info.state.first_sequence.clamp(1, end);
            warn!(
                "this relay has passed the messages before {}, and the next message of stream {} is {end}: the stream was made \
                 anew or restored; beginning with its oldest message, {first}",
                self.at, info.config.name
            );
            self.at = first;
            self.assembly.clear();
            self.held.clear();
            self.publisher.book().must_mark();
        }
        Ok(end)
    }

    async fn take(&mut self, message: jetstream::Message) -> Result<(), Trouble> {
        let info = message.info().map_err(|e| Trouble::passing("cannot understand the server's subject", e))?;
        let stream_seq = info.stream_sequence;
        if stream_seq >= self.at {
            self.read_before(stream_seq).await?;
            self.process(stream_seq, message.payload.clone()).await?;
        }
        // A message that is not acknowledged counts against what the server gives. Only the parts of the present message are held,
        // and a part that comes again takes the place of the earlier one.
        let is_part = self.assembly.contains(stream_seq);
        let begun = self.assembly.begun().unwrap_or(u64::MAX);
        let kept = self.held.split_off(&begun);
        for done in std::mem::replace(&mut self.held, kept).into_values() {
            acknowledge(&done).await;
        }
        if is_part {
            self.held.insert(stream_seq, message);
        } else {
            acknowledge(&message).await;
        }
        self.keep_held().await;
        Ok(())
    }

    /// Prevents that the server gives the parts again while the rest of their message takes its time.
    async fn keep_held(&mut self) {
        if self.held.is_empty() {
            self.told_held = Instant::now();
        }
        if self.told_held.elapsed() < ACK_WAIT / 3 {
            return;
        }
        self.told_held = Instant::now();
        for message in self.held.values() {
            if let Err(error) = message.ack_with(AckKind::Progress).await {
                debug!("cannot hold a part: {error}");
            }
        }
    }

    /// Reads by number what comes before message `end` of the stream and was not given to this relay.
    async fn read_before(&mut self, end: u64) -> Result<(), Trouble> {
        if end.saturating_sub(self.at) > MANY {
            let info = self.stream_info().await?;
            self.at = self.at.max(info.state.first_sequence.min(end));
        }
        while self.at < end {
            match stream::numbered(self.durable.stream(), self.at).await? {
                Some(stored) => self.process(stored.sequence, stored.payload).await?,
                // It was removed from the stream. If it had messages, the next envelope shows that they are missing.
                None => self.at += 1,
            }
        }
        Ok(())
    }

    async fn process(&mut self, stream_seq: u64, payload: Bytes) -> Result<(), Trouble> {
        match Envelope::open(payload) {
            Ok(envelope) => self.publish(stream_seq, &envelope).await?,
            Err(error) => self.pass_garbage(stream_seq, &error),
        }
        self.at = stream_seq + 1;
        Ok(())
    }

    async fn publish(&mut self, stream_seq: u64, envelope: &Envelope) -> Result<(), Trouble> {
        let lineage = envelope.lineage();
        let Some(part) = envelope.part() else {
            self.assembly.clear();
            for item in envelope.items() {
                self.publisher.deliver(&mut self.durable, stream_seq, (lineage, item.seq), &item.bytes).await?;
            }
            return Ok(());
        };
        for item in envelope.items() {
            match self.assembly.add(stream_seq, lineage, item.seq, part, &item.bytes) {
                Joined::Begun => {}
                Joined::Whole { stream_seq, bytes } => {
                    let number = (lineage, item.seq);
                    let delivered = self.publisher.deliver(&mut self.durable, stream_seq, number, &bytes).await;
                    if delivered.is_err() {
                        // The parts are forgotten, so all of them are needed again.
                        self.at = stream_seq;
                    }
                    delivered?;
                }
                Joined::Stray => info!("passing over a part of message {} that others do not fit", item.seq),
            }
        }
        Ok(())
    }

    fn pass_garbage(&mut self, stream_seq: u64, error: &BadEnvelope) {
        add(&self.status.garbage, 1);
        if self.told_garbage.is_none_or(|told| told.elapsed() >= GARBAGE) {
            self.told_garbage = Some(Instant::now());
            let count = self.status.garbage.get();
            warn!("message {stream_seq} of the stream is not a relay's: {error} ({count} of these so far)");
        }
    }
}

/// An acknowledgement that is lost makes the message come again.
async fn acknowledge(message: &jetstream::Message) {
    if let Err(error) = message.ack().await {
        debug!("cannot acknowledge: {error}");
    }
}
