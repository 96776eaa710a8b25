//! Publishes envelopes to the stream, each exactly once and in order.
//!
//! * Several envelopes are on the way at a time. Each is published with the number that the stream's last message is expected to have
//!   (`Nats-Expected-Last-Sequence`) and, except for the first, with the id of the envelope before it (`Nats-Expected-Last-Msg-Id`).
//!   The number alone is not enough: if another program publishes one message while two envelopes are on the way, the first envelope
//!   is refused, and the second one finds the number that it expects. So an envelope is stored only directly behind the one before
//!   it. If one of them is not stored, neither are those behind it, and if another program publishes to the stream, or an earlier
//!   relay's envelope arrives late, no further envelope is stored before this relay has looked again.
//! * Before the first envelope, after every failure and before another instance, the sender asks the stream for its last number, and
//!   *then* for the newest envelope of the instance, which has a subject of its own. What that envelope or an earlier one contains
//!   is not sent again. What is stored between the two questions makes the next envelope fail, and the sender asks again.
//! * An id is `INSTANCE:START-END`: envelopes with the same id have the same messages. It is also for the server's duplicate window. An
//!   acknowledgement as a duplicate is as good as any if it has the number that was expected. Otherwise the stream may no longer
//!   have the earlier envelope, and the sender publishes with other ids, `INSTANCE:START-END#RANDOM`, up to where it was.
//!
//! An envelope is released when it is acknowledged. The parts of a message are released together, so that a message can begin anew.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error as _;
use std::future::{IntoFuture, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{Context, ErrorCode};
use log::{debug, info, warn};
use shm_proto::internal::os::random;
use shmctl::companion::Failure;

use super::queue::Queue;
use crate::backoff::Backoff;
use crate::envelope::{Envelope, Place};
use crate::failure::{Trouble, with_causes};
use crate::status::{Status, add};
use crate::stream;

/// Most envelopes on the way.
const MOST: usize = 512;

type Ack = Pin<Box<dyn Future<Output = Result<PublishAck, PublishError>> + Send>>;

/// The end of an instance in the stream, with what is on the way.
#[derive(Clone, Copy, Debug)]
struct End {
    lineage: u64,
    next: Place,
}

/// The sending task.
#[derive(Debug)]
pub(super) struct Sender {
    context: Context,
    stream: Stream,
    name: String,
    /// First part of the subjects.
    base: String,
    /// Most bytes that the server and the stream take.
    payload: usize,
    queue: Rc<Queue>,
    status: Rc<Status>,
    end: Option<End>,
    /// The id of the envelope that was published last, unless the stream has to be looked at first.
    previous: Option<String>,
    /// With new ids up to here, because the server may know the usual ones.
    renamed: Option<End>,
    /// What makes these ids new.
    salt: u64,
    /// Entries at the front of the queue that are in the stream, and whose message is not complete there.
    parts: usize,
    /// Instances that were looked up since the program was started.
    seen: Vec<u64>,
    backoff: Backoff,
}

/// The subject of an instance's messages.
pub(super) fn subject(base: &str, lineage: u64) -> String {
    format!("{base}.{lineage:016x}")
}

impl Sender {
    pub(super) fn new(
        context: Context,
        stream: Stream,
        base: String,
        payload: usize,
        queue: Rc<Queue>,
        status: Rc<Status>,
    ) -> Self {
        let name = stream.cached_info().config.name.clone();
        Sender {
            context,
            stream,
            name,
            base,
            payload,
            queue,
            status,
            end: None,
            previous: None,
            renamed: None,
            salt: random::u64(),
            parts: 0,
            seen: Vec::new(),
            backoff: Backoff::default(),
        }
    }

    /// Sends until something final happens.
    pub(super) async fn run(&mut self) -> Result<Infallible, Failure> {
        loop {
            let why = match self.send().await {
                Ok(never) => match never {},
                Err(Trouble::Final(failure)) => return Err(failure),
                Err(Trouble::Gone(why)) => {
                    return Err(Failure::Other(format!(
                        "{why}; start the relay again with --create-stream to make it"
                    )));
                }
                Err(Trouble::Passing(why)) => why,
            };
            let pause = self.backoff.next();
            if self.backoff.is_worth_a_line() {
                warn!("{}: {why}; looking where the stream ends", self.status.name());
            } else {
                debug!("{}: {why}", self.status.name());
            }
            self.queue.rewind(&why);
            (self.parts, self.end, self.previous) = (0, None, None);
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends until something does not succeed.
    async fn send(&mut self) -> Result<Infallible, Trouble> {
        let mut last = stream::last_sequence(&self.stream).await?;
        let mut waiting: VecDeque<Ack> = VecDeque::new();
        loop {
            let (queue, link) = (Rc::clone(&self.queue), Arc::clone(&self.status.link));
            let room = waiting.len() < MOST;
            tokio::select! {
                biased;
                ack = acknowledged(&mut waiting), if !waiting.is_empty() => {
                    let expected = last - waiting.len() as u64;
                    waiting.pop_front();
                    self.judge(ack, expected)?;
                }
                // What was on the way is not answered any more.
                () = link.lost() => return Err(Trouble::Passing("the connection was lost".to_owned())),
                envelope = queue.upcoming(), if room => {
                    let envelope = envelope.map_err(|e| Failure::Other(format!("cannot read the spool: {e}")))?;
                    if self.end.is_none_or(|end| end.lineage != envelope.lineage()) {
                        // The end of another instance is only known for certain while nothing is on the way.
                        while !waiting.is_empty() {
                            let ack = acknowledged(&mut waiting).await;
                            let expected = last - waiting.len() as u64;
                            waiting.pop_front();
                            self.judge(ack, expected)?;
                        }
                        self.look(envelope.lineage(), last).await?;
                    }
                    self.queue.take();
                    if let Some(ack) = self.publish(envelope, last).await? {
                        last += 1;
                        waiting.push_back(ack);
                    }
                }
            }
        }
    }

    /// Finds out what the stream has of an instance. `last`: the number of the stream's last message.
    async fn look(&mut self, lineage: u64, last: u64) -> Result<(), Trouble> {
        let subject = subject(&self.base, lineage);
        let newest = stream::newest(&self.stream, &subject).await?;
        let (next, found) = match &newest {
            None => (Place::default(), "nothing".to_owned()),
            Some(stored) => {
                let envelope = Envelope::open(stored.payload.clone()).ok().filter(|e| e.lineage() == lineage);
                let Some(end) = envelope.map(|envelope| envelope.end()) else {
                    return Err(Trouble::last(format!(
                        "message {} of stream {}, the newest with subject {subject}, is not a relay's: another program \
                         publishes there; keep it from that, and remove the message: nats stream rmm {} {}",
                        stored.sequence, self.name, self.name, stored.sequence
                    )));
                };
                // A message goes on with its next part only directly behind the last one. Otherwise it begins anew, and the
                // server may know the ids of its parts.
                let next = if stored.sequence == last { end } else { Place::message(end.seq) };
                if next != end {
                    self.rename(End { lineage, next: Place::message(end.seq + 1) });
                }
                (next, format!("messages before {end}"))
            }
        };
        let is_new = !self.seen.contains(&lineage);
        if is_new {
            self.seen.push(lineage);
            info!("stream {} has {found} of instance {lineage:016x}", self.name);
        }
        (self.end, self.previous) = (Some(End { lineage, next }), None);
        if is_new && newest.is_some() {
            self.count_missing().await?;
        }
        Ok(())
    }

    /// A relay that was away may have lost messages: those between the end of the stream and the first that the channel has.
    async fn count_missing(&mut self) -> Result<(), Trouble> {
        let Some(End { lineage, next }) = self.end else { return Ok(()) };
        let first = self.queue.upcoming().await.map_err(|e| Failure::Other(format!("cannot read the spool: {e}")))?;
        let start = first.start();
        if first.lineage() == lineage && start.seq > next.seq {
            let lost = start.seq - next.seq;
            add(&self.status.lost, lost);
            warn!(
                "{lost} messages are lost: the stream has those before {}, and the channel no longer has those before {}; with \
                 wait_readers = 2 the channel would have kept them",
                next.seq, start.seq
            );
        }
        Ok(())
    }

    /// Publishes what the stream does not have of an envelope.
    async fn publish(&mut self, envelope: Envelope, last: u64) -> Result<Option<Ack>, Trouble> {
        let (lineage, end) = (envelope.lineage(), envelope.end());
        let next = self.end.map_or(Place::default(), |at| at.next);
        let Some(envelope) = envelope.from(next) else {
            // In the stream already, and everything before it as well: nothing is on the way.
            self.settle(end);
            return Ok(None);
        };
        let (start, len) = (envelope.start(), envelope.bytes().len());
        if len > self.payload {
            return Err(
                self.too_large(&format!("message {start} travels in {len} bytes, and {} are taken", self.payload))
            );
        }
        let mut id = format!("{lineage:016x}:{start}-{end}");
        if self.renamed.is_some_and(|to| to.lineage == lineage && start < to.next) {
            id = format!("{id}#{:016x}", self.salt);
        }
        let mut message = PublishMessage::build()
            .payload(envelope.bytes().clone())
            .expected_stream(&self.name)
            .expected_last_sequence(last)
            .message_id(&id);
        if let Some(previous) = &self.previous {
            message = message.expected_last_message_id(previous);
        }
        let sent = self.context.send_publish(subject(&self.base, lineage), message).await;
        let ack = sent.map_err(|error| match error.kind() {
            // After a reconnection it may be another server.
            PublishErrorKind::MaxPayloadExceeded => {
                self.too_large(&format!("message {start} travels in {len} bytes: {}", with_causes(&error)))
            }
            _ => Trouble::passing(format!("cannot send message {start}"), with_causes(&error)),
        })?;
        (self.end, self.previous) = (Some(End { lineage, next: end }), Some(id));
        Ok(Some(ack.into_future()))
    }

    /// The server or the stream never takes this envelope, and its messages can only be read again.
    fn too_large(&self, what: &str) -> Trouble {
        let name = &self.name;
        let raise = format!(
            "raise the limit, which is max_payload in the server's configuration or the stream's: nats stream edit {name} \
             --max-msg-size=-1"
        );
        let way_out = match self.queue.spool_dir() {
            Some(dir) => {
                format!("{raise}; or remove the files of the spool {}, and lose what is in them", dir.display())
            }
            None => format!("start the relay again, which then makes smaller ones, or {raise}"),
        };
        Trouble::last(format!("{what}: the relay has read it while it did not know the limit; {way_out}"))
    }

    fn rename(&mut self, to: End) {
        (self.renamed, self.salt) = (Some(to), random::u64());
    }

    /// Looks at the answer to the oldest envelope on the way, which is to have the number after `expected`.
    fn judge(&mut self, ack: Result<PublishAck, PublishError>, expected: u64) -> Result<(), Trouble> {
        let ack = match ack {
            Ok(ack) => ack,
            Err(error) => {
                let answer = error.source().and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>());
                if answer.is_some_and(|answer| answer.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM) {
                    let end = self.queue.end_of(self.parts);
                    return Err(self.too_large(&format!("stream {} does not take what is before {end}", self.name)));
                }
                let why = match error.kind() {
                    PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId => {
                        "the stream has got a message that was not expected: another relay, or a message that was on the way"
                            .to_owned()
                    }
                    PublishErrorKind::TimedOut => "the server does not acknowledge".to_owned(),
                    PublishErrorKind::StreamNotFound => format!("nobody answers for stream {}", self.name),
                    _ => with_causes(&error),
                };
                return Err(Trouble::Passing(why));
            }
        };
        if ack.duplicate && ack.sequence != expected + 1 {
            if let Some(end) = self.end {
                self.rename(end);
            }
            return Err(Trouble::Passing(format!("the server knows message {} of the stream already", ack.sequence)));
        }
        if ack.sequence != expected + 1 {
            let why = format!("the stream has numbered a message {}, {} was expected", ack.sequence, expected + 1);
            return Err(Trouble::Passing(why));
        }
        self.backoff.reset();
        self.queue.progressed();
        let end = self.queue.end_of(self.parts);
        self.settle(end);
        Ok(())
    }

    /// The oldest entry that was not in the stream is there now.
    fn settle(&mut self, end: Place) {
        self.parts += 1;
        if end.offset == 0 {
            self.queue.release(self.parts);
            self.parts = 0;
        }
    }
}

/// The answer to the oldest envelope on the way, which stays in the list.
async fn acknowledged(waiting: &mut VecDeque<Ack>) -> Result<PublishAck, PublishError> {
    poll_fn(|cx| match waiting.front_mut() {
        Some(ack) => ack.as_mut().poll(cx),
        None => std::task::Poll::Pending,
    })
    .await
}
