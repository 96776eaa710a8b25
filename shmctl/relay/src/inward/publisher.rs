//! Publishes to the channel, each message once, by the [book](super::book).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use log::{debug, info, warn};
use shm_proto::{AsyncWriter, Client, Endpoint, Error, Request, RequestError, WriterError};
use shmctl::companion::Failure;

use super::book::{Attached, Book, Mark, Step};
use super::durable::Durable;
use crate::backoff::Backoff;
use crate::failure::Trouble;
use crate::status::{State, Status, add};

/// Keys of a channel, as `shmctl create --set` has them.
pub(super) type Keys = BTreeMap<String, String>;

/// How long creating a channel may take: memory is reserved.
const CREATION: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Publisher {
    endpoint: Endpoint,
    channel: Option<String>,
    /// The keys of a channel that is created if it does not exist.
    creation: Option<Keys>,
    writer: Option<AsyncWriter>,
    book: Book,
    /// The last publish may have succeeded or not.
    is_in_doubt: bool,
    status: Rc<Status>,
}

impl Publisher {
    pub(super) fn new(endpoint: Endpoint, channel: Option<String>, creation: Option<Keys>, status: Rc<Status>) -> Self {
        Publisher { endpoint, channel, creation, writer: None, book: Book::new(None), is_in_doubt: false, status }
    }

    pub(super) fn book(&mut self) -> &mut Book {
        &mut self.book
    }

    /// Has the writer role, after waiting for a daemon, and for another program that has the role.
    ///
    /// # Errors
    /// That waiting does not help: there is no such channel, or this user may not write to it.
    pub(super) async fn attach(&mut self) -> Result<(), Failure> {
        let mut backoff = Backoff::default();
        while self.writer.is_none() {
            let error = match AsyncWriter::attach(&self.endpoint, self.channel.as_deref()).await {
                Ok(mut writer) => {
                    self.begin(&mut writer).await?;
                    self.writer = Some(writer);
                    return Ok(());
                }
                Err(error) => error,
            };
            let error = match self.create_after(error).await {
                Ok(()) => continue,
                Err(error) => error,
            };
            let may_pass = match &error {
                Error::Request(RequestError::NoDaemon { .. } | RequestError::TimedOut { .. }) => true,
                error => error.refusal().is_some_and(shm_proto::ErrorKind::is_temporary),
            };
            // A daemon that starts does not know its channels yet.
            let known = self.book.next().is_some() && error.refusal() == Some(shm_proto::ErrorKind::NoSuchChannel);
            if !may_pass && !known {
                return Err(error.into());
            }
            let why = format!("cannot publish to the channel: {error}");
            self.status.set(State::Waiting, &why);
            let pause = backoff.next();
            if backoff.is_worth_a_line() {
                warn!("{why}; trying again");
            }
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    /// Creates the channel if an attempt to attach failed because there is none, and if that is wanted.
    async fn create_after(&self, error: Error) -> Result<(), Error> {
        let is_missing = error.refusal() == Some(shm_proto::ErrorKind::NoSuchChannel);
        let (Some(keys), Some(name), true) = (&self.creation, &self.channel, is_missing) else { return Err(error) };
        let request = Request::Create { channel: name.parse()?, keys: keys.clone(), keep: false };
        let endpoint = self.endpoint.clone();
        let asking = tokio::task::spawn_blocking(move || {
            let mut client = Client::connect(&endpoint, CREATION)?;
            client.set_timeout(CREATION);
            client.request(&request)
        });
        match asking.await {
            Ok(Ok(_)) => info!("created channel {name}"),
            Ok(Err(error)) => return Err(error.into()),
            // The runtime ends.
            Err(_) => return Err(error),
        }
        Ok(())
    }

    async fn begin(&mut self, writer: &mut AsyncWriter) -> Result<(), WriterError> {
        let writer = writer.get_mut().await?;
        let (channel, ring, messages) = (&writer.geometry().channel, writer.geometry().lineage, writer.messages());
        self.channel = Some(channel.to_string());
        let in_doubt = std::mem::take(&mut self.is_in_doubt);
        match self.book.attached(ring, messages, in_doubt) {
            Attached::Fresh => info!("publishing to channel {channel}, which has {messages} messages"),
            Attached::GoesOn => info!("going on with channel {channel}, which has {messages} messages"),
            Attached::Anew => info!("channel {channel} has begun anew, with {messages} messages"),
            Attached::Foreign => foreign(channel.as_str()),
        }
        Ok(())
    }

    /// The name of the channel, once it was attached.
    pub(super) fn channel(&self) -> Option<&str> {
        self.channel.as_deref()
    }

    /// Goes on from a mark that was stored, before anything was published.
    pub(super) async fn resume(&mut self, mark: Option<Mark>) -> Result<(), Failure> {
        self.book = Book::new(mark);
        if let Some(mut writer) = self.writer.take() {
            self.begin(&mut writer).await?;
            self.writer = Some(writer);
        }
        Ok(())
    }

    /// Hears the daemon until the role ends. Nothing is to be published meanwhile.
    pub(super) async fn attend(&mut self) {
        match &mut self.writer {
            Some(writer) => {
                let error = writer.attend().await;
                self.lose(&error);
            }
            None => std::future::pending().await,
        }
    }

    /// Leaves a writer whose daemon is gone for good: another daemon may come.
    pub(super) async fn look_for_daemon(&mut self) -> Result<(), Failure> {
        if let Some(writer) = &mut self.writer
            && writer.get_mut().await?.is_disconnected()
        {
            warn!("the daemon is gone; waiting for another one");
            self.writer = None;
        }
        Ok(())
    }

    fn lose(&mut self, error: &WriterError) {
        warn!("{error}; borrowing the role again");
        self.writer = None;
    }

    /// Publishes a message, if it is not in the channel yet. It begins in message `stream_seq` of the stream.
    pub(super) async fn deliver(
        &mut self,
        durable: &mut Durable,
        stream_seq: u64,
        (lineage, seq): (u64, u64),
        bytes: &[u8],
    ) -> Result<(), Trouble> {
        let mut backoff = Backoff::default();
        loop {
            if self.writer.is_none() {
                self.attach().await?;
            }
            match self.book.judge(stream_seq, lineage, seq) {
                Step::Skip => return Ok(()),
                Step::Publish => {}
                Step::Mark { mark, missing } => {
                    self.store(durable, mark).await?;
                    if missing > 0 {
                        add(&self.status.lost, missing);
                        warn!("{missing} messages before {seq} are missing in the stream");
                    }
                    // The channel may have changed meanwhile.
                    if self.writer.is_none() {
                        continue;
                    }
                }
            }
            let Some(writer) = &mut self.writer else { continue };
            let error = match writer.publish(bytes).await {
                Ok(Some(ring_seq)) => {
                    self.book.published(ring_seq);
                    self.count(bytes);
                    return Ok(());
                }
                Ok(None) => {
                    add(&self.status.dropped, 1);
                    self.book.dropped();
                    return Ok(());
                }
                Err(error) => error,
            };
            match &error {
                WriterError::Unacknowledged { seq: ring_seq, .. } => {
                    debug!("{error}");
                    self.book.published(*ring_seq);
                    self.count(bytes);
                    return Ok(());
                }
                WriterError::TooLarge { limit, .. } => {
                    return Err(Trouble::last(format!(
                        "{error}: raise max_message above {limit}, and max if necessary, in the channel's configuration"
                    )));
                }
                WriterError::NoSpace { .. } => {
                    let pause = backoff.next();
                    if backoff.is_worth_a_line() {
                        warn!("{error}; trying again");
                    }
                    tokio::time::sleep(pause).await;
                }
                _ => {
                    self.is_in_doubt = matches!(error, WriterError::Superseded { .. });
                    self.lose(&error);
                }
            }
        }
    }

    fn count(&self, bytes: &[u8]) {
        add(&self.status.messages, 1);
        add(&self.status.bytes, bytes.len() as u64);
    }

    /// Stores a mark, and waits for a server that does not answer.
    ///
    /// # Errors
    /// That the consumer is gone, or is another relay's now.
    async fn store(&mut self, durable: &mut Durable, mark: Mark) -> Result<(), Trouble> {
        let mut backoff = Backoff::default();
        loop {
            match durable.store(&mark).await {
                Ok(true) => break,
                Ok(false) => return Err(Trouble::Passing("the consumer is gone".to_owned())),
                Err(Trouble::Passing(why) | Trouble::Gone(why)) => {
                    let pause = backoff.next();
                    if backoff.is_worth_a_line() {
                        warn!("{why}; trying again");
                    }
                    // A writer has to hear the daemon, however long this takes.
                    let _ = tokio::time::timeout(pause, self.attend()).await;
                }
                Err(Trouble::Final(failure)) => return Err(Trouble::Final(failure)),
            }
        }
        if self.writer.is_some() {
            self.book.marked(mark);
        }
        Ok(())
    }
}

/// Somebody else has published to the channel.
pub(super) fn foreign(channel: &str) {
    warn!(
        "channel {channel} has other messages than this relay has published: another program writes to it; messages that were \
         published and not acknowledged may come a second time"
    );
}
