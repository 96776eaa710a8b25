//! Gives the messages of the stream to the publisher: all of them, in order, each once.
//!
//! The server gives a consumer its messages in order, except those that were given to somebody and not acknowledged: these come again
//! later, behind newer ones. So whatever is missing before a message is read from the stream by its number. What comes again then is
//! acknowledged and passed over.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use bytes::Bytes;
use futures_util::StreamExt;
use log::{debug, info, warn};

use super::assembly::{Assembly, Joined};
use super::durable::Durable;
use super::publisher::{Publisher, foreign};
use crate::envelope::{BadEnvelope, Envelope};
use crate::failure::{Trouble, with_causes};
use crate::status::{State, Status, add};
use crate::stream;

/// How often to look whether there is a daemon.
const LOOK: Duration = Duration::from_secs(1);
/// Before so many missing messages the stream is asked where it begins.
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
    /// Parts that are acknowledged when their message is in the channel.
    held: Vec<jetstream::Message>,
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
            held: Vec::new(),
            told_garbage: None,
            status,
        }
    }

    /// Whether the channel has no more messages than the stream. What the server says of the messages that it has given to the
    /// consumer tells nothing: a server that was killed may have forgotten the newest of them.
    pub(super) async fn check(&mut self) -> Result<(), Trouble> {
        let last = stream::last_sequence(self.durable.stream()).await?;
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
        let standing = self.durable.open(Some(self.at)).await?;
        self.at = self.at.max(standing.first);
        self.read_before(standing.given).await?;
        let mut messages = self.durable.messages().await?;
        self.status.set(State::Relaying, "");
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(Ok(message)) => self.take(message).await?,
                    Some(Err(error)) => return Err(Trouble::passing("cannot receive", with_causes(&error))),
                    None => return Err(Trouble::Passing("the server has ended the subscription".to_owned())),
                },
                () = self.publisher.attend() => self.publisher.attach().await?,
                () = tokio::time::sleep(LOOK) => {
                    let state = if self.status.link.is_connected() { State::Relaying } else { State::Connecting };
                    self.status.set(state, "");
                    self.publisher.look_for_daemon().await?;
                    self.publisher.attach().await?;
                }
            }
        }
    }

    async fn take(&mut self, message: jetstream::Message) -> Result<(), Trouble> {
        let info = message.info().map_err(|e| Trouble::passing("cannot understand the server's subject", e))?;
        let stream_seq = info.stream_sequence;
        if stream_seq >= self.at {
            self.read_before(stream_seq).await?;
            self.process(stream_seq, message.payload.clone()).await?;
        }
        match self.assembly.begun() {
            // A server that was killed may give everything again from the beginning, and gives only so much that is not acknowledged.
            Some(begun) if stream_seq < begun => acknowledge(&message).await,
            Some(_) => self.held.push(message),
            None => {
                for held in self.held.drain(..) {
                    acknowledge(&held).await;
                }
                acknowledge(&message).await;
            }
        }
        Ok(())
    }

    /// Reads by number what comes before message `end` of the stream and was not given to this relay.
    async fn read_before(&mut self, end: u64) -> Result<(), Trouble> {
        if end.saturating_sub(self.at) > MANY {
            let info = self.durable.stream().get_info().await;
            let info = info.map_err(|e| Trouble::passing("cannot ask for the stream", with_causes(&e)))?;
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
                    self.publisher.deliver(&mut self.durable, stream_seq, (lineage, item.seq), &bytes).await?;
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
