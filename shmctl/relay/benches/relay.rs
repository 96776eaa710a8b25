//! What relays carry, beside what a plain publisher reaches on the same server in the same run, alone and with a plain consumer: blobs
//! of the size of an envelope, published and acknowledged with the same client library.
//!
//! ```console
//! $ cargo build --release -p shmd -p shmctl-relay && cargo bench -p shmctl-relay -- --seconds 10
//! ```
//!
//! Ratios of one run mean something, figures of different machines or hours do not.

#[path = "../tests/relay/helpers/server.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod server;

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use futures_util::StreamExt;
use shm_proto::internal::os::clock::monotonic_ns;
use shm_proto::{Reader, ReaderError, Start, Writer, WriterError};
use shm_test_support::{Daemon, Proc, clean, program};

use self::server::Server;

/// Bytes of a blob: those of an envelope.
const BLOB: usize = 256 << 10;
/// Blobs on the way: as many bytes as a relay has on the way.
const ON_THE_WAY: usize = 64;
const CHANNEL: &str = "[[channel]]\nname = \"cam\"\nmax = \"64MiB\"\nevict_after = \"0\"\n";
/// Messages per second while latency is measured.
const PACE: u64 = 1000;

fn main() {
    if server::skip_without_server("the relay's bench") {
        return;
    }
    let seconds =
        std::env::args().skip_while(|arg| arg != "--seconds").nth(1).map_or(5.0, |text| text.parse().unwrap());
    let time = Duration::from_secs_f64(seconds);
    for (ends, plain_name, relay_name) in [
        (Ends::Out, "plain publisher", "relay out"),
        (Ends::Both, "plain publisher and consumer", "relay out and relay in"),
    ] {
        let plain = plain(time, ends);
        println!("{plain_name}, {} KiB blobs: {:8.1} MB/s", BLOB >> 10, plain / 1e6);
        for size in [64, 1024, 64 << 10, 1 << 20] {
            let rate = carried(size, time, ends);
            println!(
                "{relay_name}, {size:7} B messages: {rate:10.0} msg/s {:8.1} MB/s ({:.2} of plain)",
                rate * size as f64 / 1e6,
                rate * size as f64 / plain,
            );
        }
    }
    let [median, high, worst] = latency(time);
    println!(
        "added latency at {PACE} msg/s of 64 B, --batch-age 1ms: {median:?} median, {high:?} of 99 in 100, {worst:?} worst"
    );
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// Into the server: what is acknowledged.
    Out,
    /// Through the server: what has come out of it, while as much goes in.
    Both,
}

/// Bytes per second of a publisher that does nothing else, or of a consumer beside it that does nothing else.
fn plain(time: Duration, ends: Ends) -> f64 {
    let server = Server::start();
    let url = server.url();
    let run = |work: fn(String, Duration) -> f64| {
        let url = url.clone();
        std::thread::spawn(move || work(url, time))
    };
    let published = run(publish);
    match ends {
        Ends::Out => published.join().unwrap(),
        Ends::Both => {
            let consumed = run(consume).join().unwrap();
            published.join().unwrap();
            consumed
        }
    }
}

fn alone<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

async fn stream(url: String) -> (jetstream::Context, jetstream::stream::Stream) {
    let context = jetstream::new(async_nats::connect(url).await.unwrap());
    let config = jetstream::stream::Config { name: "PLAIN".into(), ..Default::default() };
    let stream = context.create_stream(config).await.unwrap();
    (context, stream)
}

fn publish(url: String, time: Duration) -> f64 {
    alone(async {
        let (context, _) = stream(url).await;
        let blob = bytes::Bytes::from(vec![7; BLOB]);
        let (began, mut sent, mut acks) = (Instant::now(), 0u64, VecDeque::new());
        while began.elapsed() < time {
            acks.push_back(context.publish("PLAIN", blob.clone()).await.unwrap().into_future());
            if acks.len() > ON_THE_WAY {
                acks.pop_front().unwrap().await.unwrap();
                sent += 1;
            }
        }
        for ack in acks {
            ack.await.unwrap();
            sent += 1;
        }
        sent as f64 * BLOB as f64 / began.elapsed().as_secs_f64()
    })
}

/// Acknowledges each blob, as a relay does.
fn consume(url: String, time: Duration) -> f64 {
    alone(async {
        let (_, stream) = stream(url).await;
        let config = jetstream::consumer::pull::Config { durable_name: Some("plain".into()), ..Default::default() };
        let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
        let (began, mut received) = (Instant::now(), 0u64);
        while began.elapsed() < time {
            let Ok(Some(message)) = tokio::time::timeout(time, messages.next()).await else { break };
            let message = message.unwrap();
            message.ack().await.unwrap();
            received += message.payload.len() as u64;
        }
        received as f64 / began.elapsed().as_secs_f64()
    })
}

fn relay(daemon: &Daemon, args: &[&str]) -> Proc {
    let mut command: Command = clean(program("shmctl-relay"));
    command.env("SHMD_RUNTIME_DIR", daemon.place.run_dir()).args(args);
    Proc::spawn(command)
}

/// The relays with a server and two daemons.
struct Chain {
    here: Daemon,
    there: Daemon,
    out: Proc,
    _inward: Option<Proc>,
    _server: Server,
}

impl Chain {
    fn start(more: &[&str], ends: Ends) -> Self {
        let (server, here, there) = (Server::start(), Daemon::start(CHANNEL), Daemon::start(CHANNEL));
        let url = server.url();
        let args = ["out", "cam", "--to", &url, "--stream", "CAM", "--create-stream", "--stream-bytes", "8GiB"];
        let mut out = relay(&here, &[&args, more].concat());
        out.until_err_has("made stream CAM");
        let inward = (ends == Ends::Both).then(|| {
            let mut inward = relay(&there, &["in", "cam", "--from", &url, "--stream", "CAM"]);
            inward.until_err_has("made consumer");
            inward
        });
        here.until_readers(2);
        Chain { here, there, out, _inward: inward, _server: server }
    }

    /// Messages that have come to the last place so far.
    fn carried(&self, ends: Ends) -> u64 {
        match ends {
            // What the holder has passed is acknowledged.
            Ends::Out => self.here.stat().readers.iter().map(|reader| reader.received).min().unwrap(),
            Ends::Both => self.there.stat().messages,
        }
    }
}

/// Messages per second that are acknowledged by the server, or that come to the far channel.
fn carried(size: usize, time: Duration, ends: Ends) -> f64 {
    let mut chain = Chain::start(&[], ends);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = Writer::attach(&chain.here.endpoint(), None).unwrap();
            let message = vec![7; size];
            while !stop.load(Ordering::Relaxed) {
                match writer.publish_within(&message, Duration::from_millis(50)) {
                    Ok(_) | Err(WriterError::TimedOut { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        std::thread::sleep(time / 4);
        let (began, before) = (Instant::now(), chain.carried(ends));
        std::thread::sleep(time);
        let (after, seconds) = (chain.carried(ends), began.elapsed().as_secs_f64());
        stop.store(true, Ordering::Relaxed);
        assert!(chain.out.is_running(), "the relay has ended");
        (after - before) as f64 / seconds
    })
}

/// From publishing here to receiving there: the median, that of 99 in 100, and the longest time.
fn latency(time: Duration) -> [Duration; 3] {
    let chain = Chain::start(&["--batch-age", "1ms"], Ends::Both);
    let mut reader = Reader::attach(&chain.there.endpoint(), None, Start::New).unwrap();
    let mut writer = Writer::attach(&chain.here.endpoint(), None).unwrap();
    let count = (time.as_secs_f64() * PACE as f64) as u64;
    let mut took = std::thread::scope(|scope| {
        let receive = scope.spawn(move || {
            let (mut took, mut bytes) = (Vec::new(), Vec::new());
            while (took.len() as u64) < count {
                match reader.recv_into(&mut bytes, Some(Duration::from_secs(20))) {
                    Ok(_) => took.push(monotonic_ns() - u64::from_le_bytes(bytes[..8].try_into().unwrap())),
                    Err(ReaderError::TimedOut { .. }) => panic!("message {} does not come", took.len()),
                    Err(error) => panic!("{error}"),
                }
            }
            took
        });
        for _ in 0..count {
            let mut message = [0; 64];
            message[..8].copy_from_slice(&monotonic_ns().to_le_bytes());
            writer.publish(&message).unwrap();
            std::thread::sleep(Duration::from_secs(1) / PACE as u32);
        }
        receive.join().unwrap()
    });
    took.sort_unstable();
    let at = |part: f64| Duration::from_nanos(took[((took.len() - 1) as f64 * part) as usize]);
    [at(0.5), at(0.99), at(1.0)]
}
