//! Readers that take what they can get.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use shm_proto::{Endpoint, Error, Reader, RequestError, Start, Writer};

/// Attaches as often as it is let in, up to so many times, after it has borrowed the writer role if `how` says so; says how far
/// it came and why no farther, and stays.
pub(crate) fn crowd(endpoint: &Endpoint, how: &str, most: usize) {
    let _writer = (how == "writer").then(|| Writer::attach(endpoint, None).unwrap());
    let mut readers = Vec::new();
    while readers.len() < most {
        match Reader::attach(endpoint, None, Start::New) {
            Ok(reader) => readers.push(reader),
            Err(e) => {
                eprintln!("refused: {e}");
                break;
            }
        }
    }
    eprintln!("holding {}", readers.len());
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Sends the same request so often, a connection for each, and tells of every refusal, and of how many there were.
pub(crate) fn ask(endpoint: &Endpoint, line: &str, times: usize) {
    let (mut done, mut refused) = (0, 0);
    for _ in 0..times {
        let mut stream = UnixStream::connect(&endpoint.socket).unwrap();
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).unwrap();
        if answer.contains("\"ok\"") {
            done += 1;
        } else {
            refused += 1;
            eprintln!("refused: {answer}");
        }
    }
    eprintln!("done {done}, refused {refused}");
}

/// Attaches, reads nothing until it is evicted, and attaches again, for ever. Tells of every attempt.
pub(crate) fn cling(endpoint: &Endpoint) {
    loop {
        match Reader::attach(endpoint, None, Start::New) {
            Ok(mut reader) => {
                eprintln!("attached");
                while reader.farewell().is_none() {
                    std::thread::sleep(Duration::from_millis(1));
                    // Takes in what the daemon has said.
                    reader.arm().unwrap();
                }
            }
            Err(Error::Request(RequestError::Refused(refusal))) => {
                eprintln!("refused for {:?} ms: {refusal}", refusal.retry_after_ms);
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => panic!("{e}"),
        }
    }
}
