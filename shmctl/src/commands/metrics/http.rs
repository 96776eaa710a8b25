//! As much of HTTP/1.1 as a scraper needs: one request per connection, with a limit on its size and on its time.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use super::exposition::CONTENT_TYPE;
use super::listen::Stream;

/// The longest request: its line and its headers.
const LONGEST: usize = 16 << 10;
/// How long the client may take to send its request, and again to take the answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client that sends more than its request is listened to, so that it sees the answer before the end.
const LINGER: Duration = Duration::from_secs(1);

/// An answer without the headers that every answer has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    status: &'static str,
    header: &'static str,
    body: String,
    /// The client asked with HEAD.
    without_body: bool,
}

impl Answer {
    fn plain(status: &'static str, body: &str) -> Self {
        Answer { status, header: "", body: format!("{body}\n"), without_body: false }
    }

    fn is_ok(&self) -> bool {
        self.status.starts_with('2')
    }

    fn into_bytes(self) -> Vec<u8> {
        let Answer { status, header, body, without_body } = self;
        let kind = if status.starts_with('2') { CONTENT_TYPE } else { "text/plain; charset=utf-8" };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{header}Connection: close\r\n\r\n"
        );
        (if without_body { head } else { head + &body }).into_bytes()
    }
}

/// Answers the one request of a connection. `metrics` makes the text, or says why that is impossible.
pub(super) fn serve(mut stream: Stream, metrics: impl FnOnce() -> Result<String, String>) -> io::Result<()> {
    let answer = match read_head(&mut stream)? {
        Some(head) => answer(&head, metrics),
        None => Answer::plain("431 Request Header Fields Too Large", "shmctl: the request is longer than 16 KiB"),
    };
    let was_ok = answer.is_ok();
    write_all(&mut stream, &answer.into_bytes())?;
    stream.finish_writing()?;
    // If bytes of the client were unread at the end, the kernel would discard the answer.
    if was_ok { Ok(()) } else { discard(&mut stream) }
}

/// The request's line and headers. `None`: they are too long.
fn read_head(stream: &mut Stream) -> io::Result<Option<Vec<u8>>> {
    let until = Instant::now() + PATIENCE;
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while !is_complete(&head) {
        if head.len() > LONGEST {
            return Ok(None);
        }
        stream.set_read_timeout(left(until)?)?;
        match stream.read(&mut part) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => head.extend_from_slice(&part[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Some(head))
}

fn is_complete(head: &[u8]) -> bool {
    head.windows(4).any(|end| end == b"\r\n\r\n") || head.windows(2).any(|end| end == b"\n\n")
}

fn write_all(stream: &mut Stream, mut bytes: &[u8]) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    while !bytes.is_empty() {
        stream.set_write_timeout(left(until)?)?;
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn discard(stream: &mut Stream) -> io::Result<()> {
    let until = Instant::now() + LINGER;
    let mut part = [0; 1024];
    loop {
        stream.set_read_timeout(left(until)?)?;
        if stream.read(&mut part)? == 0 {
            return Ok(());
        }
    }
}

/// What is left until the moment; an error if there is nothing.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn answer(head: &[u8], metrics: impl FnOnce() -> Result<String, String>) -> Answer {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let words: Option<Vec<&str>> = str::from_utf8(line).ok().map(|line| line.trim_end().split(' ').collect());
    let Some([method, target, version]) = words.as_deref() else {
        return Answer::plain("400 Bad Request", "shmctl: the first line is not METHOD TARGET HTTP/1.1");
    };
    if !version.starts_with("HTTP/1.") {
        return Answer::plain("505 HTTP Version Not Supported", "shmctl: only HTTP/1.0 and HTTP/1.1 are understood");
    }
    if path(target) != "/metrics" {
        return Answer::plain("404 Not Found", "shmctl: there is only /metrics");
    }
    if !["GET", "HEAD"].contains(method) {
        let answer = Answer::plain("405 Method Not Allowed", "shmctl: only GET and HEAD are allowed");
        return Answer { header: "Allow: GET, HEAD\r\n", ..answer };
    }
    let without_body = *method == "HEAD";
    match metrics() {
        Ok(body) => Answer { status: "200 OK", header: "", body, without_body },
        Err(reason) => {
            Answer { without_body, ..Answer::plain("503 Service Unavailable", &format!("shmctl: {reason}")) }
        }
    }
}

/// The path of a target, which may be a whole address and may have a query.
fn path(target: &str) -> &str {
    let target = match target.strip_prefix("http://") {
        Some(address) => address.find('/').map_or("/", |start| &address[start..]),
        None => target,
    };
    target.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &str) -> String {
        let answer = answer(request.as_bytes(), || Ok("shmd_up 1\n".to_owned()));
        assert_eq!(answer.is_ok(), answer.body == "shmd_up 1\n", "{answer:?}");
        answer.status[..3].to_owned()
    }

    #[test]
    fn a_request_gets_the_answer_that_http_has_for_it() {
        for (request, wanted) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200"),
            ("HEAD /metrics HTTP/1.0\n\n", "200"),
            ("GET /metrics?x=1 HTTP/1.1\r\n\r\n", "200"),
            ("GET http://localhost:9100/metrics HTTP/1.1\r\n\r\n", "200"),
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("GET http://localhost HTTP/1.1\r\n\r\n", "404"),
            ("POST /nothing HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("GET /metrics HTTP/2.0\r\n\r\n", "505"),
            ("GET /metrics\r\n\r\n", "400"),
            ("\r\n\r\n", "400"),
            ("GET  /metrics HTTP/1.1\r\n\r\n", "400"),
        ] {
            assert_eq!(status(request), wanted, "{request:?}");
        }
        assert!(status("\u{e4}").starts_with("400"));
        assert_eq!(answer(b"\xff\xff\r\n\r\n", || unreachable!()).status, "400 Bad Request");
    }

    #[test]
    fn an_answer_has_its_length_and_a_head_no_body() {
        let whole = |request: &[u8]| {
            let answer = answer(request, || Ok("shmd_up 1\n".to_owned()));
            String::from_utf8(answer.into_bytes()).unwrap()
        };
        let get = whole(b"GET /metrics HTTP/1.1\r\n\r\n");
        assert!(get.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{get}");
        assert!(get.contains("\r\nContent-Length: 10\r\n") && get.ends_with("\r\n\r\nshmd_up 1\n"), "{get}");
        let head = whole(b"HEAD /metrics HTTP/1.1\r\n\r\n");
        assert!(head.contains("\r\nContent-Length: 10\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        let post = whole(b"POST /metrics HTTP/1.1\r\n\r\n");
        assert!(post.contains("\r\nAllow: GET, HEAD\r\n"), "{post}");
    }

    #[test]
    fn a_daemon_that_refuses_is_503_with_its_reason() {
        let answer = answer(b"GET /metrics HTTP/1.1\r\n\r\n", || Err("no channel named nope".to_owned()));
        assert_eq!(
            (answer.status, answer.body.as_str()),
            ("503 Service Unavailable", "shmctl: no channel named nope\n")
        );
    }
}
