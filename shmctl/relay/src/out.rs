//! `out`: a channel is published to a stream.
//!
//! ```text
//! channel --> front --> queue (and spool) --> sender --> stream
//!    ^                       |
//!    +------- holder <-------+   what is in the stream, or in the spool
//! ```
//!
//! All of them are tasks of one thread. The front and the holder are two readers of the channel. The writer overwrites nothing that
//! the holder has not passed, and with `wait_readers = 2` it writes nothing while one of the two is missing.

mod front;
mod holder;
mod queue;
mod sender;
mod spool;

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::Context;
use async_nats::jetstream::stream::Stream;
use log::{info, warn};
use shmctl::companion::{Failure, Global};
use tokio::sync::{Notify, oneshot, watch};

use self::front::{Front, Limits};
use self::holder::Holder;
use self::queue::{Policy, Queue};
use self::sender::Sender;
use self::spool::Spool;
use crate::args::{Out, WhenStalled};
use crate::backoff::Backoff;
use crate::failure::Trouble;
use crate::link::{self, ANSWER};
use crate::status::Status;
use crate::stop::Stop;
use crate::stream::{self, HEADERS};

/// How long a relay that is to end waits for acknowledgements.
const LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(5);
/// How often the state is looked at.
const SHOW: Duration = Duration::from_millis(250);
/// Most bytes of an envelope while no server has said what it takes: a server takes 1 MiB unless it is configured otherwise.
const USUAL_PAYLOAD: usize = (1 << 20) - HEADERS;

/// Runs until a signal comes.
pub(crate) async fn run(args: Out, global: &Global, metrics: Option<&Path>) -> Result<(), Failure> {
    let mut stop = Stop::on_signals()?;
    let channel = global.channel.as_ref().map(ToString::to_string);
    let status = Rc::new(Status::new("out", channel.as_deref(), &args.server.stream));
    status.note_channel(false);
    let policy = match &args.when_stalled {
        WhenStalled::Wait => Policy::Wait,
        WhenStalled::Drop => Policy::Drop,
        WhenStalled::Spool { dir, limit } => Policy::Spool(Box::new(
            Spool::open(dir, *limit)
                .map_err(|e| Failure::Other(format!("cannot use the spool {}: {e}", dir.display())))?,
        )),
    };
    let in_flight = usize::try_from(args.in_flight.0).unwrap_or(usize::MAX);
    let queue = Rc::new(Queue::new(policy, in_flight, args.stalled_after, Rc::clone(&status)));
    let (instance, front) = watch::channel(None);
    let mut holder = Holder::new(global.endpoint(), channel.as_deref(), queue.marks(), front, Rc::clone(&status))?;
    let readers = Readers { attached: Notify::new(), instance };
    let own_stop = stop.clone();
    let work = async {
        tokio::select! {
            ended = holder.run(&readers.attached) => ended,
            ended = carry(&args, global, channel.as_deref(), &queue, &status, &readers, own_stop) => ended,
        }
    };
    let ended = tokio::select! {
        ended = work => ended,
        () = status.tell(metrics.map(Path::to_owned)) => Ok(()),
        () = show(&queue) => Ok(()),
        () = async { stop.wait().await; tokio::time::sleep(3 * LAST_ACKNOWLEDGEMENTS).await } => Ok(()),
    };
    status.finish(metrics);
    ended
}

/// What the two readers of the channel tell each other.
#[derive(Debug)]
struct Readers {
    /// The channel is held.
    attached: Notify,
    /// The instance that is read.
    instance: watch::Sender<Option<u64>>,
}

async fn show(queue: &Queue) {
    loop {
        tokio::time::sleep(SHOW).await;
        queue.show();
    }
}

/// Reads and sends until the signal comes.
async fn carry(
    args: &Out,
    global: &Global,
    channel: Option<&str>,
    queue: &Rc<Queue>,
    status: &Rc<Status>,
    readers: &Readers,
    mut stop: Stop,
) -> Result<(), Failure> {
    let (tell_payload, payload) = oneshot::channel();
    let sending = async {
        let base = args.subject.clone().unwrap_or_else(|| args.server.stream.clone());
        let client = link::connect(&args.to, &args.server, &status.name(), &status.link).await?;
        let of_server = client.max_payload();
        let mut context = jetstream::new(client);
        context.set_timeout(ANSWER);
        let stream = open(args, &context, &base).await?;
        let most = most_of_an_envelope(of_server, stream.cached_info().config.max_message_size);
        // Nobody may wait for it.
        let _ = tell_payload.send(most);
        Sender::new(context, stream, base, most, Rc::clone(queue), Rc::clone(status)).run().await
    };
    tokio::pin!(sending);
    let ready = async {
        // The front comes after the holder, so that whatever it reads is held.
        readers.attached.notified().await;
        match args.when_stalled {
            WhenStalled::Wait => payload.await.unwrap_or(USUAL_PAYLOAD),
            // These policies can do without a server, but what is read too large for it is never sent.
            WhenStalled::Drop | WhenStalled::Spool { .. } => {
                match tokio::time::timeout(args.stalled_after, payload).await {
                    Ok(payload) => payload.unwrap_or(USUAL_PAYLOAD),
                    Err(_) => {
                        info!("no server has said what it takes; making envelopes of up to {USUAL_PAYLOAD} bytes");
                        USUAL_PAYLOAD
                    }
                }
            }
        }
    };
    let mut early = stop.clone();
    let reading = async {
        let payload = tokio::select! {
            payload = ready => payload,
            () = early.wait() => return Ok(()),
        };
        let limits =
            Limits { batch: usize::try_from(args.batch_bytes.0).unwrap_or(usize::MAX), age: args.batch_age, payload };
        let instance = readers.instance.clone();
        let mut front = Front::new(global.endpoint(), channel, limits, instance, Rc::clone(queue), Rc::clone(status))?;
        front.run(early.clone()).await
    };
    let reading = async {
        tokio::select! {
            ended = reading => ended,
            // What is at hand is read to its end.
            () = async { stop.wait().await; tokio::time::sleep(LAST_ACKNOWLEDGEMENTS).await } => Ok(()),
        }
    };
    tokio::select! {
        ended = &mut sending => match ended? {},
        ended = reading => ended?,
    }
    info!("stopping; waiting for the last acknowledgements");
    tokio::select! {
        ended = &mut sending => match ended? {},
        () = queue.until_empty() => {}
        () = tokio::time::sleep(LAST_ACKNOWLEDGEMENTS) => if !queue.is_safe() {
            warn!("the server has not acknowledged everything within {LAST_ACKNOWLEDGEMENTS:?}");
        }
    }
    Ok(())
}

/// What the server and the stream both take, which say how many bytes a message has with its headers. A stream without a limit
/// has -1 or 0.
fn most_of_an_envelope(of_server: usize, of_stream: i32) -> usize {
    let of_stream = usize::try_from(of_stream).ok().filter(|most| *most > 0);
    of_stream.unwrap_or(of_server).min(of_server).saturating_sub(HEADERS).max(HEADERS)
}

/// Finds or makes the stream, and waits for a server that does not answer.
async fn open(args: &Out, context: &Context, base: &str) -> Result<Stream, Failure> {
    let (name, subjects) = (&args.server.stream, format!("{base}.*"));
    let mut backoff = Backoff::default();
    loop {
        let found = if args.create_stream {
            stream::create(context, name, &subjects, args.stream_bytes.0).await
        } else {
            stream::find(context, name, &subjects).await
        };
        match found {
            Ok(stream) => {
                stream::check(&stream.cached_info().config, &sender::subject(base, 0), &subjects)?;
                info!("publishing to stream {name}, subjects {subjects}");
                return Ok(stream);
            }
            Err(Trouble::Final(failure)) => return Err(failure),
            Err(Trouble::Passing(why) | Trouble::Gone(why)) => {
                let pause = backoff.next();
                if backoff.is_worth_a_line() {
                    warn!("{why}; trying again");
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_fits_the_server_and_the_stream() {
        for (of_server, of_stream, most) in [
            (1 << 20, -1, USUAL_PAYLOAD),
            (1 << 20, 0, USUAL_PAYLOAD),
            (1 << 20, 65536, 65536 - HEADERS),
            (65536, 1 << 20, 65536 - HEADERS),
            (100, -1, HEADERS),
        ] {
            assert_eq!(most_of_an_envelope(of_server, of_stream), most, "{of_server} {of_stream}");
        }
    }
}
