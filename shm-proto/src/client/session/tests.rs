use std::os::unix::net::UnixListener;
use std::thread;

use nix::sys::socket::{Backlog, listen};
use shm_test_support::TempDir;

use super::*;
use crate::control::{ErrorKind, MAX_REQUEST, Pong, Refusal};

/// Where a daemon could be.
struct Dir(TempDir);

impl Dir {
    fn new() -> Self {
        Dir(TempDir::new())
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::in_dir(self.0.path())
    }
}

const LONG: Duration = Duration::from_secs(30);

/// Answers each request of one client with what `answer` makes of it, until that returns nothing.
fn serve(dir: &Dir, mut answer: impl FnMut(Request) -> Option<Reply> + Send + 'static) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(dir.endpoint().socket).unwrap();
    thread::spawn(move || {
        let mut conn = Conn::new(listener.accept().unwrap().0, MAX_REQUEST);
        loop {
            match conn.receive().unwrap() {
                Received::Line(line, _) => match answer(decode(&line).unwrap()) {
                    Some(reply) => conn.send(&reply, &[]).unwrap(),
                    None => return,
                },
                Received::Nothing => thread::yield_now(),
                Received::Closed => return,
            }
        }
    })
}

#[test]
fn requests_are_answered_one_after_the_other() {
    let dir = Dir::new();
    let pong = Pong { daemon: "shmd".into(), version: "0".into(), pid: 7, prefix: "p".into() };
    let expected = pong.clone();
    let server = serve(&dir, move |request| {
        Some(match request {
            Request::Ping => Reply::Ok(Done::Ping(pong.clone())),
            _ => Reply::Error(Refusal::new(ErrorKind::Busy, "not now")),
        })
    });
    let mut client = Client::connect(&dir.endpoint(), LONG).unwrap();
    assert_eq!(client.request(&Request::Ping).unwrap(), Done::Ping(expected.clone()));
    assert_eq!(client.request(&Request::List).unwrap_err().refusal(), Some(ErrorKind::Busy));
    assert_eq!(client.request(&Request::Ping).unwrap(), Done::Ping(expected));
    drop(client);
    server.join().unwrap();
}

#[test]
fn no_socket_and_a_socket_that_was_left_behind_are_both_no_daemon_and_told_apart() {
    let dir = Dir::new();
    let reason = |endpoint: &Endpoint| match Client::connect(endpoint, LONG) {
        Err(RequestError::NoDaemon { reason, socket }) => {
            assert_eq!(socket, endpoint.socket);
            reason
        }
        other => panic!("{other:?}"),
    };
    assert!(reason(&dir.endpoint()).contains("no such socket"));
    assert!(reason(&Endpoint::in_dir(&dir.0.join("deeper"))).contains("no such socket"));
    drop(UnixListener::bind(dir.endpoint().socket).unwrap());
    assert!(reason(&dir.endpoint()).contains("left behind"));
    assert!(reason(&Endpoint::in_dir(&dir.endpoint().socket)).contains("no directory"));
}

#[test]
fn a_path_that_no_socket_can_have_is_said_to_be_too_long() {
    let error = Client::connect(&Endpoint::in_dir(Path::new(&format!("/{}", "d".repeat(200)))), LONG).unwrap_err();
    assert!(error.to_string().contains("211 bytes"), "{error}");
}

#[test]
fn a_daemon_that_hangs_up_instead_of_answering_is_no_daemon() {
    let dir = Dir::new();
    let server = serve(&dir, |_| None);
    let mut client = Client::connect(&dir.endpoint(), LONG).unwrap();
    assert!(matches!(client.request(&Request::Ping), Err(RequestError::NoDaemon { .. })));
    server.join().unwrap();
}

#[test]
fn a_client_that_is_turned_away_before_it_asks_learns_why() {
    let dir = Dir::new();
    let listener = UnixListener::bind(dir.endpoint().socket).unwrap();
    let mut client = Client::connect(&dir.endpoint(), LONG).unwrap();
    let mut conn = Conn::new(listener.accept().unwrap().0, MAX_REQUEST);
    let refusal = Refusal::new(ErrorKind::TooMany, "1024 clients");
    conn.send(&Reply::Error(refusal), &[]).unwrap();
    drop(conn);
    assert_eq!(client.request(&Request::Ping).unwrap_err().refusal(), Some(ErrorKind::TooMany));
}

#[test]
fn a_daemon_that_does_not_answer_or_does_not_accept_is_timed_out() {
    let dir = Dir::new();
    let short = Duration::from_millis(50);
    let listener = UnixListener::bind(dir.endpoint().socket).unwrap();
    let mut client = Client::connect(&dir.endpoint(), short).unwrap();
    match client.request(&Request::Ping) {
        Err(RequestError::TimedOut { what, waited }) => assert!(waited == short && what.contains("answer"), "{what}"),
        other => panic!("{other:?}"),
    }
    // The usual backlog holds thousands of connections, more than an ordinary user has descriptors. With a backlog of 0 the
    // connection above fills the listener.
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let refused = Client::connect(&dir.endpoint(), short).unwrap_err();
    assert!(matches!(&refused, RequestError::TimedOut { what, .. } if what.contains("accept")), "{refused}");
}
