//! The durable consumer: what this relay has acknowledged, and the [mark](super::book::Mark) and the owner, in the consumer's
//! [description].
//!
//! [description]: super::description::Description

use std::time::Duration;

use async_nats::jetstream::consumer::pull::{Config, Stream as Messages};
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, FromConsumer, Info};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::stream::{ConsumerErrorKind, RetentionPolicy, Stream};
use log::{info, warn};

use super::book::Mark;
use super::description::Description;
use super::owner::Owner;
use crate::args::Start;
use crate::failure::{Trouble, is_servers_own, with_causes};
use crate::stream;

/// The server gives a message again if it is not acknowledged within this time.
pub(super) const ACK_WAIT: Duration = Duration::from_secs(30);
/// Messages that may be given and not acknowledged: more than a message has parts.
const MAX_ACK_PENDING: i64 = 8192;
/// Messages that are asked for at a time.
const PULL: usize = 64;
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long the server keeps a request for messages that do not come.
const EXPIRES: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Durable {
    stream: Stream,
    name: String,
    start: Start,
    owner: Owner,
    /// The consumer may be another relay's.
    takes_over: bool,
    consumer: Option<Consumer<Config>>,
}

/// Where the consumer stands.
#[derive(Debug)]
pub(super) struct Standing {
    /// Everything before this message of the stream is acknowledged.
    pub(super) first: u64,
    /// Everything before this one was given to a relay.
    pub(super) given: u64,
    pub(super) mark: Option<Mark>,
    /// The consumer was made now.
    pub(super) is_new: bool,
}

impl Durable {
    pub(super) fn new(stream: Stream, name: String, start: Start, owner: Owner, takes_over: bool) -> Self {
        Durable { stream, name, start, owner, takes_over, consumer: None }
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Finds the consumer, or makes it. `at`: where this relay goes on, if it knows.
    ///
    /// # Errors
    /// That a consumer of that name is not this relay's, or that the server did not answer.
    pub(super) async fn open(&mut self, at: Option<u64>) -> Result<Standing, Trouble> {
        let failed = |e: &dyn std::error::Error| Trouble::passing("cannot ask for the consumer", with_causes(e));
        match self.stream.consumer_info(&self.name).await {
            Ok(info) => {
                let description = self.check(&info)?;
                let standing = standing(&info, description.mark, false);
                if std::mem::take(&mut self.takes_over) {
                    self.take_over(info, description).await?;
                } else {
                    self.check_owner(&description)?;
                }
                return Ok(standing);
            }
            Err(error) if error.kind() != ConsumerInfoErrorKind::NotFound => return Err(failed(&error)),
            Err(_) => {}
        }
        let stream = stream::info(&self.stream).await?;
        // A work queue has what is not acknowledged, and gives no other part of it.
        let is_queue = stream.config.retention == RetentionPolicy::WorkQueue;
        let deliver_policy = match (at, self.start) {
            (Some(_), _) if is_queue => DeliverPolicy::All,
            (Some(start_sequence), _) => DeliverPolicy::ByStartSequence { start_sequence },
            (None, Start::Oldest) => DeliverPolicy::All,
            (None, Start::New) if is_queue => DeliverPolicy::New,
            // By its number, which the next relay can ask for.
            (None, Start::New) => DeliverPolicy::ByStartSequence { start_sequence: stream.state.last_sequence + 1 },
        };
        let config = Config {
            durable_name: Some(self.name.clone()),
            description: Some(self.described(None)),
            deliver_policy,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: MAX_ACK_PENDING,
            ..Config::default()
        };
        let consumer = self.stream.create_consumer(config).await.map_err(|error| match error.kind() {
            ConsumerErrorKind::JetStream(e) if !is_servers_own(e.code()) => {
                Trouble::last(format!("the server does not make consumer {}: {e}", self.name))
            }
            _ => failed(&error),
        })?;
        info!("made consumer {}", self.name);
        let standing = standing(consumer.cached_info(), None, true);
        // It is this relay's, so whoever changes that takes it over.
        self.takes_over = false;
        self.consumer = Some(consumer);
        Ok(standing)
    }

    fn described(&self, mark: Option<Mark>) -> String {
        Description { mark, owner: Some(self.owner.clone()) }.to_string()
    }

    /// Whether a relay has made the consumer, and what it has noted.
    fn check(&self, info: &Info) -> Result<Description, Trouble> {
        let bad = |why: &str| {
            Trouble::last(format!(
                "consumer {} is not a relay's: {why}; give this relay another name: --consumer",
                self.name
            ))
        };
        let described = description(info).ok_or_else(|| bad("it has a description of its own"))?;
        if info.config.ack_policy != AckPolicy::Explicit || !info.config.filter_subject.is_empty() {
            return Err(bad("it does not acknowledge each message, or does not get all of them"));
        }
        Config::try_from_consumer_config(info.config.clone()).map_err(|e| bad(&e.to_string()))?;
        Ok(described)
    }

    fn check_owner(&self, description: &Description) -> Result<(), Trouble> {
        match &description.owner {
            Some(owner) if !owner.is(&self.owner) => Err(Trouble::last(format!(
                "consumer {} belongs to {}, and this relay is for {}: two relays with one consumer would get a part of the messages \
                 each; give this relay another one with --consumer NAME, or, if the other relay has ended for good, go on in its \
                 place with --take-over",
                self.name,
                owner.words(),
                self.owner.words()
            ))),
            _ => Ok(()),
        }
    }

    /// Makes this relay the owner of a consumer that is there. Where it stands stays as it is.
    async fn take_over(&mut self, info: Info, description: Description) -> Result<(), Trouble> {
        if self.check_owner(&description).is_ok() {
            return Ok(());
        }
        // If this fails, the next attempt has to take over as well.
        self.takes_over = true;
        let mut config = Config::try_from_consumer_config(info.config)
            .map_err(|e| Trouble::passing("cannot use the consumer", e))?;
        config.description = Some(self.described(description.mark));
        let taken = self.stream.create_consumer(config).await;
        self.consumer = Some(taken.map_err(|e| Trouble::passing("cannot take the consumer over", with_causes(&e)))?);
        self.takes_over = false;
        let from = description.owner.map(|owner| owner.words()).unwrap_or_default();
        warn!("took consumer {} over from {from}", self.name);
        Ok(())
    }

    /// Removes the consumer.
    pub(super) async fn remove(&mut self) -> Result<(), Trouble> {
        self.consumer = None;
        let removed = self.stream.delete_consumer(&self.name).await;
        removed.map(drop).map_err(|e| Trouble::passing("cannot remove the consumer", with_causes(&e)))
    }

    /// Stores a mark. Returns false if the consumer is gone.
    ///
    /// # Errors
    /// That another relay has taken the consumer over, or that the server did not answer.
    pub(super) async fn store(&mut self, mark: &Mark) -> Result<bool, Trouble> {
        let failed =
            |e: &dyn std::error::Error| Trouble::passing("cannot store the place with the consumer", with_causes(e));
        let info = match self.stream.consumer_info(&self.name).await {
            Ok(info) => info,
            Err(e) if matches!(e.kind(), ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound) => {
                return Ok(false);
            }
            Err(e) => return Err(failed(&e)),
        };
        let described = description(&info).unwrap_or_default();
        self.check_owner(&described)?;
        let has_mark = described.mark.is_some();
        let mut config = Config::try_from_consumer_config(info.config)
            .map_err(|e| Trouble::passing("cannot use the consumer", e))?;
        config.description = Some(self.described(Some(*mark)));
        match self.stream.create_consumer(config).await {
            Ok(consumer) => self.consumer = Some(consumer),
            // A server may remove the files of an older consumer of this name after it has made this one, which then never stores
            // anything. With a consumer that has no mark nothing is lost.
            Err(e) if !has_mark && has_server_failed(e.kind()) => {
                warn!("the server does not store the place with consumer {}: {e}; making the consumer anew", self.name);
                self.remove().await?;
                return Ok(false);
            }
            Err(e) => return Err(failed(&e)),
        }
        Ok(true)
    }

    /// Begins to receive.
    pub(super) async fn messages(&mut self) -> Result<Messages, Trouble> {
        let failed = |e: &dyn std::error::Error| Trouble::passing("cannot receive", with_causes(e));
        let consumer = match self.consumer.take() {
            Some(consumer) => consumer,
            None => self.stream.get_consumer(&self.name).await.map_err(|e| Trouble::passing("cannot receive", e))?,
        };
        let builder = consumer.stream().max_messages_per_batch(PULL).heartbeat(HEARTBEAT).expires(EXPIRES);
        builder.messages().await.map_err(|e| failed(&e))
    }
}

fn has_server_failed(kind: ConsumerErrorKind) -> bool {
    matches!(kind, ConsumerErrorKind::JetStream(error) if is_servers_own(error.code()))
}

/// What a relay has noted, unless it was another program.
fn description(info: &Info) -> Option<Description> {
    info.config.description.as_deref().unwrap_or_default().parse().ok()
}

fn standing(info: &Info, mark: Option<Mark>, is_new: bool) -> Standing {
    let start = match info.config.deliver_policy {
        DeliverPolicy::ByStartSequence { start_sequence } => start_sequence,
        _ => 0,
    };
    Standing {
        is_new,
        // Before the first acknowledgement, a server may say that nothing is acknowledged.
        first: start.max(info.ack_floor.stream_sequence + 1),
        given: info.delivered.stream_sequence + 1,
        mark,
    }
}
