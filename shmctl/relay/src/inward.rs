//! `in`: a stream is published to a channel.
//!
//! ```text
//! stream --> durable consumer --> feed --> publisher --> channel
//!                  ^  ^                       |
//!   acknowledgement   +---- mark, at gaps ----+
//! ```
//!
//! A message is acknowledged when the channel has all of it. What is in the channel and was not acknowledged is found out by
//! [the book](book).

mod assembly;
mod book;
mod description;
mod durable;
mod feed;
mod owner;
mod publisher;

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::Context;
use log::{debug, warn};
use shm_proto::internal::duration;
use shm_proto::{Client, Done, Endpoint, Request};
use shmctl::companion::{Failure, Global};

use self::durable::Durable;
use self::feed::Feed;
use self::owner::Owner;
use self::publisher::Publisher;
use crate::args::In;
use crate::backoff::Backoff;
use crate::failure::Trouble;
use crate::link::{self, ANSWER};
use crate::status::{State, Status};
use crate::stop::Stop;
use crate::stream;

/// How long the last acknowledgements may take to be sent.
const FLUSH: Duration = Duration::from_secs(1);

/// Runs until a signal comes.
pub(crate) async fn run(args: In, global: &Global, metrics: Option<&Path>) -> Result<(), Failure> {
    let mut stop = Stop::on_signals()?;
    let channel = global.channel.as_ref().map(ToString::to_string);
    if args.create_channel && channel.is_none() {
        return Err(Failure::Usage(
            "--create-channel needs the name of the channel: give it as an argument, with --channel, or in SHMD_CHANNEL"
                .to_owned(),
        ));
    }
    let status = Rc::new(Status::new("in", channel.as_deref(), &args.server.stream));
    let ended = tokio::select! {
        ended = carry(&args, global, channel, &status, stop.clone()) => ended,
        () = status.tell(metrics.map(Path::to_owned)) => Ok(()),
        // The connection is not there, or the daemon is not: nothing is to be finished.
        () = async { stop.wait().await; tokio::time::sleep(FLUSH).await } => Ok(()),
    };
    status.finish(metrics);
    ended
}

async fn carry(
    args: &In,
    global: &Global,
    channel: Option<String>,
    status: &Rc<Status>,
    mut stop: Stop,
) -> Result<(), Failure> {
    let client = link::connect(&args.from, &args.server, &status.name(), &status.link).await?;
    let mut context = jetstream::new(client.clone());
    context.set_timeout(ANSWER);
    let mut backoff = Backoff::default();
    let mut feed: Option<Feed> = None;
    // When the server said first that the stream was removed, if it has said nothing else since.
    let mut gone: Option<Instant> = None;
    loop {
        let before = status.messages.get();
        let work = async {
            if feed.is_none() {
                feed = Some(begin(args, global, channel.clone(), &context, status).await?);
            }
            match &mut feed {
                Some(feed) => feed.run().await.map(|never| match never {}),
                None => Ok(()),
            }
        };
        let ended: Result<(), Trouble> = tokio::select! {
            ended = work => ended,
            () = stop.wait() => break,
        };
        let trouble = match ended {
            Ok(()) => continue,
            Err(trouble) => trouble,
        };
        if status.messages.get() > before {
            backoff.reset();
        }
        if status.state() == State::Relaying {
            gone = None;
        }
        let mut pause = backoff.next();
        match trouble {
            Trouble::Final(failure) => return Err(failure),
            Trouble::Gone(why) => {
                let since = gone.get_or_insert_with(Instant::now).elapsed();
                let left = args.gone_after.saturating_sub(since);
                if left.is_zero() && !args.gone_after.is_zero() {
                    return Err(Failure::Other(format!(
                        "{why}, and for {} there was no stream of that name (--gone-after); make it, for example with shmctl relay \
                         out --create-stream, and start this relay again",
                        duration::show(args.gone_after)
                    )));
                }
                status.set(State::Gone, &format!("{why}; waiting for a stream of that name"));
                if !args.gone_after.is_zero() {
                    pause = pause.min(left);
                }
            }
            Trouble::Passing(why) => {
                gone = None;
                status.set(State::Connecting, &why);
                if backoff.is_worth_a_line() {
                    warn!("{why}; trying again");
                }
            }
        }
        let attending = async {
            match &mut feed {
                Some(feed) => feed.attend().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // A writer has to hear the daemon, however long this takes.
            () = attending => {}
            () = stop.wait() => break,
        }
    }
    if let Ok(Err(error)) = tokio::time::timeout(FLUSH, client.flush()).await {
        debug!("cannot send the last acknowledgements: {error}");
    }
    Ok(())
}

/// Finds the stream, the consumer and the channel.
async fn begin(
    args: &In,
    global: &Global,
    channel: Option<String>,
    context: &Context,
    status: &Rc<Status>,
) -> Result<Feed, Trouble> {
    let name = &args.server.stream;
    let stream = stream::find(context, name, &format!("{name}.*")).await?;
    let endpoint = global.endpoint();
    // The role first: whoever has it is the only relay of the channel.
    let creation = args.create_channel.then(|| args.set.iter().cloned().collect());
    let mut publisher = Publisher::new(endpoint.clone(), channel, creation, Rc::clone(status));
    publisher.attach().await?;
    let owner = owner(&endpoint, publisher.channel().unwrap_or_default())?;
    let consumer = args.consumer.clone().unwrap_or_else(|| owner.consumer());
    let mut durable = Durable::new(stream, consumer, args.start, owner, args.take_over);
    let standing = durable.open(None).await?;
    publisher.resume(standing.mark).await?;
    let first = standing.first.max(publisher.book().first());
    let mut feed = Feed::new(durable, publisher, first, Rc::clone(status));
    feed.check().await?;
    Ok(feed)
}

/// Whose consumer it is: that of this host's, this daemon's channel.
fn owner(endpoint: &Endpoint, channel: &str) -> Result<Owner, Trouble> {
    let asked = Client::connect(endpoint, ANSWER).and_then(|mut client| client.request(&Request::Ping));
    let prefix = match asked {
        Ok(Done::Ping(pong)) => pong.prefix,
        Ok(other) => return Err(Trouble::last(format!("the daemon answered ping with {other:?}"))),
        Err(error) => return Err(Trouble::passing("cannot ask the daemon for its prefix", error)),
    };
    let host = nix::unistd::gethostname().map_err(|e| Trouble::last(format!("cannot read the host's name: {e}")))?;
    Ok(Owner::new(&host.to_string_lossy(), &prefix, channel))
}
