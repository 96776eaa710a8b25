//! Servers, hosts and relays of a test.

mod proxy;
mod server;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use shm_proto::{Endpoint, Follower, ReaderError, Start, Writer, WriterError};
use shm_test_support::{Daemon, Proc, Setup, clean, program, wait_until};

pub(crate) use self::proxy::Proxy;
pub(crate) use self::server::{Server, skip_without_server};

/// A channel that loses nothing while a relay is away: a relay is two readers.
pub(crate) const SOURCE: &str = "[[channel]]\nname = \"cam\"\nwait_readers = 2\nmax = \"4MiB\"\nevict_after = \"0\"\n";
/// The channel at the far end, with the test's reader.
pub(crate) const FAR: &str = "[[channel]]\nname = \"cam\"\nwait_readers = 1\nmax = \"16MiB\"\nevict_after = \"0\"\n";

/// A daemon that can be started again.
pub(crate) struct Host {
    pub(crate) daemon: Daemon,
    config: String,
}

impl Host {
    pub(crate) fn start(config: &str) -> Self {
        Host { daemon: Daemon::start(config), config: config.to_owned() }
    }

    pub(crate) fn launch(&mut self) {
        self.daemon.launch(Setup::new(&self.config));
    }

    /// Kills the daemon, and starts another one.
    pub(crate) fn replace(&mut self) {
        self.daemon.kill();
        self.launch();
    }

    /// A relay to start.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = clean(program("shmctl-relay"));
        command.env("SHMD_RUNTIME_DIR", self.daemon.place.run_dir()).args(args);
        command
    }

    /// A relay of the channel to a stream that it makes.
    pub(crate) fn out(&self, url: &str, more: &[&str]) -> Proc {
        let args = ["out", "cam", "--to", url, "--stream", "CAM", "--create-stream"];
        Proc::spawn(self.command(&[&args, more].concat()))
    }

    /// The same, when there is a stream.
    pub(crate) fn out_with_stream(&self, url: &str, more: &[&str]) -> Proc {
        let mut out = self.out(url, more);
        out.until_err_has("publishing to stream CAM");
        out
    }

    /// A relay of the stream to the channel.
    pub(crate) fn inward(&self, url: &str, more: &[&str]) -> Proc {
        Proc::spawn(self.command(&[&["in", "cam", "--from", url, "--stream", "CAM"], more].concat()))
    }

    /// Any relay.
    pub(crate) fn run(&self, args: &[&str]) -> Proc {
        Proc::spawn(self.command(args))
    }
}

/// A server, and the daemons with the channel here and at the far end, unless there is no `nats-server`.
pub(crate) fn ends(test: &str) -> Option<(Server, Host, Host)> {
    if skip_without_server(test) {
        return None;
    }
    Some((Server::start(), Host::start(SOURCE), Host::start(FAR)))
}

/// The bytes of message `n`: its number, and bytes that follow from it. Now and then a large one.
pub(crate) fn content(n: u64, large: usize) -> Vec<u8> {
    let len = if large > 0 && n % 1000 == 500 { large } else { (n * 7 % 120) as usize };
    n.to_le_bytes().into_iter().chain((0..len).map(|at| (n as usize * 31 + at * 7) as u8)).collect()
}

/// An envelope of one message, as etc/RELAY.md describes it, or of a part of one, which begins somewhere in a message of this length.
pub(crate) fn envelope(seq: u64, bytes: &[u8], part: Option<(u64, u64)>) -> Vec<u8> {
    let mut envelope = vec![1, if part.is_some() { 2 } else { 0 }, 0, 0];
    envelope.extend(1u32.to_le_bytes());
    envelope.extend(7u64.to_le_bytes());
    envelope.extend(seq.to_le_bytes());
    envelope.extend(bytes);
    envelope.extend((bytes.len() as u32).to_le_bytes());
    envelope.extend(part.into_iter().flat_map(|(offset, total)| [offset, total]).flat_map(u64::to_le_bytes));
    envelope
}

/// A thread that ends when it is told to, at the latest when this is dropped.
struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// `work` ends soon after the flag is set.
    fn start(work: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        Worker { stop, thread: Some(std::thread::spawn(move || work(&ended))) }
    }

    fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends the thread. A panic of the thread becomes one of the test.
    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// Publishes messages 0, 1, 2 ... until it is told to stop, through deaths of the daemon.
pub(crate) struct Source {
    sent: Arc<AtomicU64>,
    allowed: Arc<AtomicU64>,
    worker: Worker,
}

impl Source {
    /// `pace`: a pause after every 64 messages.
    pub(crate) fn start(endpoint: Endpoint, most: u64, large: usize, pace: Duration) -> Self {
        Self::start_with(endpoint, most, large, pace, u64::MAX)
    }

    /// Stops after `allowed` messages until it [may](Self::allow) publish more.
    pub(crate) fn start_up_to(endpoint: Endpoint, allowed: u64, large: usize) -> Self {
        Self::start_with(endpoint, u64::MAX, large, Duration::ZERO, allowed)
    }

    fn start_with(endpoint: Endpoint, most: u64, large: usize, pace: Duration, allowed: u64) -> Self {
        let (sent, allowed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(allowed)));
        let (count, may) = (Arc::clone(&sent), Arc::clone(&allowed));
        let worker = Worker::start(move |ended| {
            let mut writer = Writer::attach(&endpoint, Some("cam")).unwrap();
            for n in 0..most {
                let message = content(n, large);
                while n >= may.load(Ordering::Relaxed) && !ended.load(Ordering::Relaxed) {
                    writer.maintain().unwrap();
                    std::thread::sleep(Duration::from_millis(1));
                }
                loop {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    match writer.publish_within(&message, Duration::from_millis(100)) {
                        Ok(seq) => {
                            assert_eq!(seq, Some(n));
                            break;
                        }
                        Err(WriterError::TimedOut { .. }) => {}
                        Err(error) => panic!("message {n}: {error}"),
                    }
                }
                count.store(n + 1, Ordering::Relaxed);
                if n % 64 == 63 && !pace.is_zero() {
                    std::thread::sleep(pace);
                }
            }
            // The role is kept until the test has seen everything: a daemon that dies meanwhile finds the writer.
            while !ended.load(Ordering::Relaxed) {
                writer.maintain().unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Source { sent, allowed, worker }
    }

    /// Lets it publish as many messages as this in all.
    pub(crate) fn allow(&self, messages: u64) {
        self.allowed.store(messages, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops publishing, and returns how many messages were published.
    pub(crate) fn finish(mut self) -> u64 {
        self.worker.end();
        self.sent()
    }
}

/// Receives at the far end, and compares each message with what was sent.
pub(crate) struct Sink {
    got: Arc<AtomicU64>,
    worker: Worker,
}

impl Sink {
    /// Expects all messages from `first` on, in order, each once.
    pub(crate) fn start(endpoint: Endpoint, first: u64, large: usize) -> Self {
        let got = Arc::new(AtomicU64::new(first));
        let count = Arc::clone(&got);
        let worker = Worker::start(move |ended| {
            let mut follower = Follower::new(endpoint, Some("cam"), Start::Oldest).unwrap();
            let (mut n, mut bytes) = (first, Vec::new());
            while !ended.load(Ordering::Relaxed) {
                match follower.recv_into(&mut bytes, Some(Duration::from_millis(20))) {
                    Ok(received) => {
                        assert_eq!(received.lost_before, 0, "message {n}");
                        let number = bytes.get(..8).map(|b| u64::from_le_bytes(b.try_into().unwrap()));
                        assert_eq!(number, Some(n), "the next message is not the next one");
                        assert!(bytes == content(n, large), "message {n} has other bytes");
                        n += 1;
                        count.store(n, Ordering::Relaxed);
                    }
                    Err(shm_proto::Error::Reader(ReaderError::TimedOut { .. })) => {}
                    Err(error) => panic!("message {n}: {error}"),
                }
            }
        });
        Sink { got, worker }
    }

    pub(crate) fn got(&self) -> u64 {
        self.got.load(Ordering::Relaxed)
    }

    /// Waits until everything before this message has come.
    #[track_caller]
    pub(crate) fn until(&self, end: u64) {
        // Whatever makes progress is waited for.
        let mut before = self.got();
        while before < end {
            wait_until(
                || format!("more than {} of {end} messages arrive", self.got()),
                || {
                    assert!(self.worker.is_running(), "the reader has ended");
                    self.got() > before
                },
            );
            before = self.got();
        }
    }

    /// Nothing more than this may have come.
    #[track_caller]
    pub(crate) fn finish(mut self, end: u64) {
        self.until(end);
        self.worker.end();
        assert_eq!(self.got(), end, "messages that nobody has sent");
    }
}
