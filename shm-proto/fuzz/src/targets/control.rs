//! Lines in both directions, however they arrive.

use std::fmt::Debug;
use std::io::Write;
use std::os::unix::net::UnixStream;

use serde::Serialize;
use serde::de::DeserializeOwned;
use shm_proto::Request;
use shm_proto::internal::control::log::LogEntry;
use shm_proto::internal::control::{Conn, MAX_REQUEST, Received, Reply, decode, encode};
use shm_proto::internal::ring::link::{FromReader, ToDaemon, ToReader, ToWriter};

/// The longest line that is tried, so that a line can be too long.
const LONGEST: usize = 1 << 10;

pub(super) fn run(input: &[u8]) {
    let (&how, bytes) = input.split_first().unwrap_or((&0, &[]));
    if let Ok(text) = std::str::from_utf8(bytes) {
        for line in text.lines() {
            round_trip::<Request>(line);
            round_trip::<Reply>(line);
            round_trip::<ToWriter>(line);
            round_trip::<ToDaemon>(line);
            round_trip::<ToReader>(line);
            round_trip::<FromReader>(line);
            round_trip::<LogEntry>(line);
        }
    }
    arrive(bytes, usize::from(how) + 1);
}

/// What is understood is written, understood again, and still the same.
fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(line: &str) {
    let value = match decode::<T>(line) {
        Ok(value) => value,
        Err(e) => {
            let why = e.to_string();
            assert!(why.len() < 4096 && !why.contains('\x1b'), "{why:?}");
            return;
        }
    };
    let written = encode(&value).unwrap_or_else(|e| panic!("{value:?}: {e}"));
    assert_eq!(written.iter().filter(|byte| **byte == b'\n').count(), 1);
    let written = String::from_utf8(written).expect("JSON is text");
    let again = decode::<T>(&written).unwrap_or_else(|e| panic!("{value:?} was written as {written}: {e}"));
    // Figures with fractions may lose their last digit.
    if !written.contains('.') && !written.contains("e-") && !written.contains("e+") {
        assert_eq!(again, value);
    }
}

/// The same lines come out whether or not the bytes come in pieces.
fn arrive(bytes: &[u8], piece: usize) {
    let expected = lines(bytes, bytes.len().max(1));
    assert_eq!(lines(bytes, piece), expected);
    // No line is longer than it may be, and what was before the first that is stays.
    let mut whole: Vec<String> = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match std::str::from_utf8(line).ok().and_then(|line| line.strip_suffix('\n')) {
            Some(text) if line.len() <= LONGEST => whole.push(text.to_owned()),
            _ => break,
        }
    }
    assert_eq!(expected.0, whole);
}

/// The lines, and whether something was wrong behind them.
fn lines(bytes: &[u8], piece: usize) -> (Vec<String>, bool) {
    const { assert!(LONGEST < MAX_REQUEST) };
    let (mut sender, receiver) = UnixStream::pair().expect("a pair of sockets can be made");
    let (mut conn, mut lines) = (Conn::new(receiver, LONGEST), Vec::new());
    for piece in bytes.chunks(piece.max(bytes.len() / 64)) {
        sender.write_all(piece).expect("a socket takes a few bytes");
        loop {
            match conn.receive() {
                Ok(Received::Line(line, fds)) => {
                    assert!(fds.is_empty());
                    lines.push(line);
                }
                Ok(Received::Nothing) => break,
                Ok(Received::Closed) => panic!("the connection is open"),
                Err(_) => return (lines, true),
            }
        }
    }
    (lines, false)
}
