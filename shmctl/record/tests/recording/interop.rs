//! Other programs read the files: the package `mcap` for Python, in its own two ways.

use std::process::Command;

use shm_test_support::{Run, skip};

use crate::kit::{daemon, message, parts, publish, record};

/// Prints a line for each message that the package finds by the end of the file, and then one for each that it finds from the
/// beginning; and the names of the notes.
const READ: &str = "
import hashlib, sys
from mcap.reader import NonSeekingReader, make_reader
for path in sys.argv[1:]:
    for way in (make_reader, lambda file: NonSeekingReader(file, validate_crcs=True)):
        with open(path, 'rb') as file:
            for schema, channel, message in way(file).iter_messages():
                print(channel.topic, message.sequence, hashlib.sha256(message.data).hexdigest())
        print('end')
    with open(path, 'rb') as file:
        reader = make_reader(file, validate_crcs=True)
        print(reader.get_summary().statistics.message_count, sorted({note.name for note in reader.iter_metadata()}))
        print(len([1 for _ in reader.iter_messages(topics=['main'])]))
";

/// The interpreter that has the package, if there is one.
fn python() -> Option<String> {
    let python = std::env::var("SHMD_MCAP_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has = Command::new(&python).args(["-c", "import mcap.reader, lz4.frame, zstandard"]).output();
    has.is_ok_and(|run| run.status.success()).then_some(python)
}

#[test]
fn the_package_for_python_reads_the_same_messages() {
    let Some(python) = python() else {
        let why = "there is no python3 with the package mcap; SHMD_MCAP_PYTHON names an interpreter that has it";
        skip("the_package_for_python_reads_the_same_messages", why);
        return;
    };
    for compression in ["none", "lz4", "zstd"] {
        let daemon = daemon("");
        let output = daemon.place.path("run.mcap");
        let recorder = record(
            &daemon,
            &output,
            &["--split", "2MiB", "--chunk", "64KiB", "--compression", compression, "-n", "100"],
        );
        publish(&mut daemon.writer(), 0..100);
        recorder.wait().ok();
        let mut script = Command::new(&python);
        script.args(["-c", READ]).args(parts(&output));
        let found = Run::of(script).ok().text();
        let hashes: Vec<&str> = found.lines().filter(|line| line.starts_with("main ")).collect();
        assert_eq!(hashes.len(), 200, "{found}");
        let sequences = hashes.iter().map(|line| line.split(' ').nth(1).unwrap().parse::<u64>().unwrap());
        let mut sequences: Vec<_> = sequences.collect();
        sequences.sort_unstable();
        assert_eq!(sequences, (0..100).flat_map(|n| [n, n]).collect::<Vec<_>>());
        for line in &hashes {
            let words: Vec<_> = line.split(' ').collect();
            assert_eq!(words[2], sha256(&message(words[1].parse().unwrap())), "message {}", words[1]);
        }
        assert!(found.contains("'shmd.channel', 'shmd.end', 'shmd.numbers', 'shmd.recording'"), "{found}");
    }
}

/// As the command of this name prints it.
fn sha256(bytes: &[u8]) -> String {
    let mut command = Command::new("sha256sum");
    command.stdin(std::process::Stdio::piped());
    let mut run = shm_test_support::Proc::spawn(command);
    run.feed(bytes);
    run.end_input();
    run.wait().ok().text().split(' ').next().unwrap().to_owned()
}
