//! What the tests share: messages that can be recognised, and what is in a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mcap::records::Metadata;
use mcap::{MessageStream, Summary};
use shm_proto::{Endpoint, Writer};
use shm_test_support::{Daemon, Proc, clean, program, wait_until};

/// A message in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) topic: String,
    pub(crate) sequence: u32,
    pub(crate) time: u64,
    pub(crate) data: Vec<u8>,
}

/// Everything in a file, which has to be complete.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) messages: Vec<Recorded>,
    pub(crate) notes: Vec<Metadata>,
    pub(crate) summary: Summary,
}

impl Contents {
    /// Reads a file from its beginning and from its end, and compares.
    #[track_caller]
    pub(crate) fn of(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let stream = MessageStream::new(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let messages: Vec<_> = stream
            .map(|message| {
                let message = message.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                assert_eq!(message.log_time, message.publish_time);
                let (topic, data) = (message.channel.topic.clone(), message.data.into_owned());
                Recorded { topic, sequence: message.sequence, time: message.log_time, data }
            })
            .collect();
        let summary = Summary::read(&bytes).unwrap().expect("there is a summary");
        let stats = summary.stats.clone().expect("there are statistics");
        assert_eq!(stats.message_count, messages.len() as u64);
        assert_eq!(stats.chunk_count as usize, summary.chunk_indexes.len());
        let times = || messages.iter().map(|message| message.time);
        let bounds = (times().min().unwrap_or(0), times().max().unwrap_or(0));
        assert_eq!((stats.message_start_time, stats.message_end_time), bounds);
        let mut indexed = 0;
        for chunk in &summary.chunk_indexes {
            let of_chunk = summary.stream_chunk(&bytes, chunk).unwrap().count();
            let indexes = summary.read_message_indexes(&bytes, chunk).unwrap();
            assert_eq!(indexes.values().map(Vec::len).sum::<usize>(), of_chunk, "each message is in an index");
            indexed += of_chunk;
        }
        assert_eq!(indexed, messages.len());
        let notes = summary.metadata_indexes.iter().map(|index| mcap::read::metadata(&bytes, index).unwrap()).collect();
        Contents { messages, notes, summary }
    }

    /// The bytes of a channel's messages.
    pub(crate) fn of_topic(&self, topic: &str) -> Vec<&[u8]> {
        self.messages.iter().filter(|message| message.topic == topic).map(|message| message.data.as_slice()).collect()
    }

    /// The facts of the notes of this name, in their order.
    pub(crate) fn notes(&self, name: &str) -> Vec<&BTreeMap<String, String>> {
        self.notes.iter().filter(|note| note.name == name).map(|note| &note.metadata).collect()
    }

    /// Why the file ends.
    pub(crate) fn reason(&self) -> &str {
        &self.notes("shmd.end").last().expect("there is an end")["reason"]
    }
}

/// Records the channel's messages 0 to `count` into a file, to its end.
#[track_caller]
pub(crate) fn recorded(daemon: &Daemon, file: &Path, count: u64, more: &[&str]) {
    let count_text = count.to_string();
    let recorder = record(daemon, file, &[&["-n", &count_text], more].concat());
    publish(&mut daemon.writer(), 0..count);
    recorder.wait().ok();
}

/// Waits until the recorder has received everything.
#[track_caller]
pub(crate) fn caught_up(daemon: &Daemon) {
    daemon.until_stat("the recorder has caught up", |stat| stat.readers.iter().all(|reader| reader.lag_messages == 0));
}

/// Message `n`: its number, and as many bytes as the number says.
pub(crate) fn message(n: u64) -> Vec<u8> {
    const LENGTHS: [usize; 8] = [0, 1, 64, 4096, 7, 200_000, 1000, 31];
    let len = LENGTHS[n as usize % LENGTHS.len()];
    let mut bytes = n.to_le_bytes().repeat(len.div_ceil(8));
    bytes.truncate(len);
    bytes
}

/// Publishes messages of these numbers.
#[track_caller]
pub(crate) fn publish(writer: &mut Writer, numbers: std::ops::Range<u64>) {
    for n in numbers {
        assert_eq!(writer.publish(&message(n)).unwrap(), Some(n), "the messages of the channel have these numbers");
    }
}

/// The messages of these numbers, in their order, and nothing else.
#[track_caller]
pub(crate) fn assert_messages(found: &[&[u8]], numbers: std::ops::Range<u64>) {
    for (place, n) in numbers.clone().enumerate() {
        assert!(found.get(place).is_some_and(|bytes| *bytes == message(n)), "message {n} of {numbers:?}");
    }
    assert_eq!(found.len() as u64, numbers.end - numbers.start);
}

/// A daemon with one channel that loses nothing, and has this besides.
#[track_caller]
pub(crate) fn daemon(more: &str) -> Daemon {
    Daemon::start(&format!("[[channel]]\nmax = \"16MiB\"\n{more}"))
}

/// The writer of one of several channels.
#[track_caller]
pub(crate) fn writer(endpoint: &Endpoint, channel: &str) -> Writer {
    Writer::attach(endpoint, Some(channel)).unwrap()
}

/// Starts `shmctl record` and waits until it reads.
#[track_caller]
pub(crate) fn record(daemon: &Daemon, output: &Path, more: &[&str]) -> Proc {
    let output = output.to_str().unwrap();
    // Whoever started the tests may ignore hangups.
    let mut command = clean("env");
    command.arg("--default-signal=HUP").arg(program("shmctl")).args(["record", "--output", output]).args(more);
    command.env("SHMD_RUNTIME_DIR", daemon.place.run_dir());
    let mut recorder = Proc::spawn(command);
    wait_until("the recorder is attached", || {
        // Looked at before the file, which has everything when a short recording has ended.
        let runs = recorder.is_running();
        // Its file says what is recorded when it has attached to everything.
        let is_attached = parts(Path::new(output)).iter().any(|part| has(part, b"shmd.times"));
        assert!(runs || is_attached, "the recorder has ended:\n{}", recorder.err_so_far());
        is_attached
    });
    recorder
}

/// Whether a file that is being written contains this.
pub(crate) fn has(path: &Path, bytes: &[u8]) -> bool {
    fs::read(path).is_ok_and(|found| found.windows(bytes.len()).any(|window| window == bytes))
}

/// The file, or its parts in their order.
pub(crate) fn parts(output: &Path) -> Vec<PathBuf> {
    let stem = output.file_stem().unwrap().to_str().unwrap().to_owned() + "-";
    let entries = output.parent().unwrap().read_dir().unwrap().map(|entry| entry.unwrap().path());
    let is_part = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&stem);
    let mut parts: Vec<_> = entries.filter(is_part).collect();
    parts.sort();
    if output.exists() {
        parts.insert(0, output.to_owned());
    }
    parts
}
