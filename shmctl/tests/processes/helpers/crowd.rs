//! Readers that take what they can get.

use std::any::Any;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use shm_proto::internal::os::page::SharedPage;
use shm_proto::internal::os::unread::readable_bytes;
use shm_proto::internal::ring::layout::{LAYOUT_VERSION, ReaderPage};
use shm_proto::{Client, Endpoint, Error, Reader, Request, RequestError, Start, Writer};
use shm_test_support::{PATIENCE, wait_until};

/// Attaches as often as it is let in, up to so many times, or follows the operation log so often, or asks for it and does not read
/// it, if `how` says so, after it has borrowed the writer role if `how` says that; says how far it came and why no farther, and stays.
pub(crate) fn crowd(endpoint: &Endpoint, how: &str, most: usize) {
    let _writer = (how == "writer").then(|| Writer::attach(endpoint, None).unwrap());
    let mut held = Vec::new();
    while held.len() < most {
        let one = match how {
            "followers" => follow(endpoint),
            "untaken" => leave_lying(endpoint),
            _ => attach(endpoint),
        };
        match one {
            Ok(one) => held.push(one),
            Err(e) => {
                eprintln!("refused: {e}");
                break;
            }
        }
    }
    eprintln!("holding {}", held.len());
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn attach(endpoint: &Endpoint) -> Result<Box<dyn Any>, String> {
    Ok(Box::new(Reader::attach(endpoint, None, Start::New).map_err(|e| e.to_string())?))
}

fn follow(endpoint: &Endpoint) -> Result<Box<dyn Any>, String> {
    let mut client = Client::connect(endpoint, PATIENCE).map_err(|e| e.to_string())?;
    let request = Request::Log { channel: None, since: 0, last: Some(0), follow: true };
    client.request(&request).map_err(|e| e.to_string())?;
    Ok(Box::new(client))
}

/// Asks for the log, and reads no more than the beginning of the answer.
fn leave_lying(endpoint: &Endpoint) -> Result<Box<dyn Any>, String> {
    let mut stream = UnixStream::connect(&endpoint.socket).map_err(|e| e.to_string())?;
    stream.write_all(b"{\"v\":1,\"op\":\"log\"}\n").map_err(|e| e.to_string())?;
    let mut begin = [0; 512];
    let len = stream.read(&mut begin).map_err(|e| e.to_string())?;
    let begin = String::from_utf8_lossy(&begin[..len]).into_owned();
    if begin.contains("\"ok\"") { Ok(Box::new(stream)) } else { Err(begin) }
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

/// Claims to have been a reader of a daemon that died, with a page of its own. Tells what comes of that.
pub(crate) fn claim_to_return(endpoint: &Endpoint, instance: u64) {
    let channel = "main".parse().unwrap();
    let request =
        Request::ResumeReader { channel, program: None, layout: LAYOUT_VERSION, expect: None, instance, moves: 0 };
    let (_page, page_fd) = SharedPage::<ReaderPage>::create("claim").unwrap();
    let mut conn = Client::connect(endpoint, PATIENCE).unwrap().into_conn();
    conn.send(&request, &[page_fd.as_fd()]).unwrap();
    let mut answer = String::new();
    BufReader::new(conn.stream()).read_line(&mut answer).unwrap();
    eprintln!("told: {answer}");
}

/// Sends a request twice on one connection, and reads when both answers are there. Tells both.
pub(crate) fn ask_twice(endpoint: &Endpoint, line: &str) {
    let mut once = UnixStream::connect(&endpoint.socket).unwrap();
    once.write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut answer = String::new();
    BufReader::new(&once).read_line(&mut answer).unwrap();
    let mut twice = UnixStream::connect(&endpoint.socket).unwrap();
    twice.write_all(format!("{line}\n{line}\n").as_bytes()).unwrap();
    wait_until("there are two answers", || readable_bytes(twice.as_fd()).unwrap() > answer.len());
    let mut answers = BufReader::new(&twice);
    for _ in 0..2 {
        answer.clear();
        answers.read_line(&mut answer).unwrap();
        eprintln!("told: {}", answer.trim_end());
    }
}
