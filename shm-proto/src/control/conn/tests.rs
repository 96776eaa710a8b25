use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::Shutdown;

use super::*;
use crate::control::{MAX_REQUEST, Request, decode};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use shm_test_support::{as_nobody, in_child, wait_until};

const LIMIT: usize = 1024;

fn pair() -> (UnixStream, Conn) {
    let (peer, ours) = UnixStream::pair().unwrap();
    (peer, Conn::new(ours, LIMIT))
}

fn line_of(conn: &mut Conn) -> Option<String> {
    match conn.receive().unwrap() {
        Received::Line(line, fds) => {
            assert!(fds.is_empty());
            Some(line)
        }
        Received::Nothing => None,
        Received::Closed => panic!("closed"),
    }
}

fn temporary(content: &str) -> OwnedFd {
    let mut file = File::from(nix::sys::memfd::memfd_create(c"test", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all(content.as_bytes()).unwrap();
    file.into()
}

fn content(fd: OwnedFd) -> String {
    let mut file = File::from(fd);
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_line_may_arrive_byte_by_byte() {
    let (mut peer, mut conn) = pair();
    for byte in b"{\"v\":1,\"op\":\"ping\"}" {
        peer.write_all(&[*byte]).unwrap();
        assert_eq!(line_of(&mut conn), None);
    }
    assert_eq!(conn.unread_bytes(), 19);
    peer.write_all(b"\n").unwrap();
    assert_eq!(decode::<Request>(&line_of(&mut conn).unwrap()).unwrap(), Request::Ping);
    assert_eq!(conn.unread_bytes(), 0);
}

#[test]
fn no_more_is_read_than_it_takes_for_a_line() {
    let (mut peer, ours) = UnixStream::pair().unwrap();
    let mut conn = Conn::new(ours, MAX_REQUEST);
    let lines = "{\"v\":1,\"op\":\"ping\"}\n".repeat(2000);
    peer.write_all(lines.as_bytes()).unwrap();
    for left in (0..2000).rev() {
        assert!(line_of(&mut conn).is_some() && conn.unread_bytes() <= SMALL_BUFFER, "{left} are left");
    }
    assert_eq!(line_of(&mut conn), None);
}

#[test]
fn lines_that_arrive_together_are_taken_one_by_one_in_order() {
    let (mut peer, mut conn) = pair();
    peer.write_all(b"one\n\nthree\nfo").unwrap();
    assert_eq!(line_of(&mut conn).as_deref(), Some("one"));
    assert_eq!(line_of(&mut conn).as_deref(), Some(""));
    assert_eq!(line_of(&mut conn).as_deref(), Some("three"));
    assert_eq!(line_of(&mut conn), None);
    peer.write_all(b"ur\n").unwrap();
    assert_eq!(line_of(&mut conn).as_deref(), Some("four"));
}

#[test]
fn a_line_of_exactly_the_limit_passes_and_one_byte_more_is_refused() {
    let (mut peer, mut conn) = pair();
    let longest = "x".repeat(LIMIT - 1);
    peer.write_all(format!("{longest}\n{longest}y\n").as_bytes()).unwrap();
    assert_eq!(line_of(&mut conn), Some(longest));
    match conn.receive() {
        Err(ProtocolError::Broken(reason)) => assert!(reason.contains("1024"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_more_than_the_limit_is_held_however_much_is_sent() {
    let (mut peer, mut conn) = pair();
    peer.write_all(&[b'x'; 50 * LIMIT]).unwrap();
    assert_eq!(conn.fill().unwrap(), Incoming::Open);
    assert_eq!(conn.unread_bytes(), LIMIT);
    assert!(conn.input.buffer.capacity() <= LIMIT);
    assert!(conn.next_line().is_err());
}

#[test]
fn many_lines_pass_through_a_small_buffer() {
    let (mut peer, mut conn) = pair();
    let sender = std::thread::spawn(move || {
        for n in 0..20_000 {
            writeln!(peer, "{n}").unwrap();
        }
    });
    for n in 0..20_000 {
        let line = loop {
            match line_of(&mut conn) {
                Some(line) => break line,
                None => conn.wait(PollFlags::POLLIN).unwrap(),
            }
        };
        assert_eq!(line, n.to_string());
    }
    sender.join().unwrap();
    assert!(conn.input.buffer.capacity() <= LIMIT);
}

#[test]
fn bytes_that_are_not_text_are_refused() {
    let (mut peer, mut conn) = pair();
    peer.write_all(b"\xff\xfe\n").unwrap();
    assert!(matches!(conn.receive(), Err(ProtocolError::Broken(_))));
}

#[test]
fn lines_before_a_close_are_taken_and_half_a_line_is_not() {
    let (mut peer, mut conn) = pair();
    peer.write_all(b"last\nhal").unwrap();
    drop(peer);
    assert_eq!(line_of(&mut conn).as_deref(), Some("last"));
    wait_until("the connection is closed", || matches!(conn.receive().unwrap(), Received::Closed));
    assert!(matches!(conn.receive().unwrap(), Received::Closed));
}

#[test]
fn a_peer_that_closes_without_reading_is_a_close_and_not_an_error() {
    let (peer, mut conn) = pair();
    conn.send(&Request::Ping, &[]).unwrap();
    drop(peer);
    wait_until("the connection is closed", || matches!(conn.receive().unwrap(), Received::Closed));
    assert!(matches!(conn.send(&Request::Ping, &[]), Err(ProtocolError::System { .. })));
    conn.queue(&Request::Ping, Vec::new()).unwrap();
    assert_eq!(conn.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn descriptors_come_out_with_the_line_they_went_in_with() {
    let (peer, mut conn) = pair();
    let mut peer = Conn::new(peer, LIMIT);
    peer.queue(&Request::Ping, Vec::new()).unwrap();
    peer.queue(&Request::List, vec![temporary("a"), temporary("b")]).unwrap();
    peer.queue(&Request::Stat { channel: None }, vec![temporary("c")]).unwrap();
    peer.queue(&Request::Ping, Vec::new()).unwrap();
    assert!(peer.queued_bytes() > 0);
    assert!(peer.flush().unwrap());
    assert_eq!(peer.queued_bytes(), 0);
    let mut came = Vec::new();
    while let Received::Line(line, fds) = conn.receive().unwrap() {
        let request: Request = decode(&line).unwrap();
        came.push((request, fds.into_iter().map(content).collect::<Vec<_>>().concat()));
    }
    let expected =
        [(Request::Ping, ""), (Request::List, "ab"), (Request::Stat { channel: None }, "c"), (Request::Ping, "")];
    assert_eq!(came, expected.map(|(request, fds)| (request, fds.to_owned())));
}

#[test]
fn descriptors_stay_with_their_line_when_it_arrives_in_pieces() {
    let (peer, mut conn) = pair();
    let (a, b) = (temporary("a"), temporary("b"));
    fds::send(peer.as_fd(), b"fi", &[a.as_fd()]).unwrap();
    assert!(matches!(conn.receive().unwrap(), Received::Nothing));
    fds::send(peer.as_fd(), b"rst\n", &[]).unwrap();
    fds::send(peer.as_fd(), b"second\n", &[b.as_fd()]).unwrap();
    for (name, text) in [("first", "a"), ("second", "b")] {
        match conn.receive().unwrap() {
            Received::Line(line, fds) => {
                assert_eq!(line, name);
                assert_eq!(fds.into_iter().map(content).collect::<Vec<_>>(), [text]);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_sender_cannot_make_this_side_hold_many_descriptors() {
    let (peer, mut conn) = pair();
    let fd = temporary("");
    for _ in 0..100 {
        fds::send(peer.as_fd(), b"x", &[fd.as_fd(); 4]).unwrap();
    }
    match conn.receive() {
        Err(ProtocolError::Broken(reason)) => assert!(reason.contains("descriptors"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(conn.input.fds.len() < MAX_FDS_WAITING + MAX_FDS_A_LINE);
}

#[test]
fn a_full_socket_leaves_the_rest_in_the_queue_and_nothing_is_lost() {
    let (peer, ours) = UnixStream::pair().unwrap();
    let (mut sender, mut receiver) = (Conn::new(ours, LIMIT), Conn::new(peer, MAX_REQUEST));
    let program = "p".repeat(60_000);
    for _ in 0..40 {
        sender
            .queue(
                &Request::Attach { channel: None, program: Some(program.clone()), layout: 2, expect: None },
                Vec::new(),
            )
            .unwrap();
    }
    sender.queue(&Request::Ping, vec![temporary("end")]).unwrap();
    assert!(!sender.flush().unwrap());
    let mut lines = 0;
    loop {
        match receiver.receive().unwrap() {
            Received::Line(line, fds) => {
                lines += 1;
                if !fds.is_empty() {
                    assert_eq!(decode::<Request>(&line).unwrap(), Request::Ping);
                    break;
                }
            }
            Received::Nothing => {
                sender.flush().unwrap();
            }
            Received::Closed => panic!("closed"),
        }
    }
    assert_eq!(lines, 41);
    assert!(sender.flush().unwrap());
}

#[test]
fn sending_waits_for_room_even_on_a_socket_in_nonblocking_mode() {
    let (peer, ours) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let (mut sender, mut receiver) = (Conn::new(ours, LIMIT), Conn::new(peer, MAX_REQUEST));
    let reading = std::thread::spawn(move || {
        let mut lines = 0;
        loop {
            match receiver.receive().unwrap() {
                Received::Line(..) => lines += 1,
                Received::Nothing => receiver.wait(PollFlags::POLLIN).unwrap(),
                Received::Closed => return lines,
            }
        }
    });
    let request = Request::Attach { channel: None, program: Some("p".repeat(60_000)), layout: 2, expect: None };
    for _ in 0..40 {
        sender.send(&request, &[]).unwrap();
    }
    sender.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(reading.join().unwrap(), 40);
}

/// The kernel counts them for each user, and lets a user have as many on their way as a process may have open.
#[test]
fn descriptors_that_are_too_many_on_their_way_wait_until_some_were_taken() {
    const MOST: u64 = 32;
    let work = || {
        let (peer, ours) = UnixStream::pair().unwrap();
        let (mut peer, mut conn) = (Conn::new(peer, LIMIT), Conn::new(ours, LIMIT));
        let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1 };
        if setrlimit(Resource::RLIMIT_NOFILE, MOST, hard).is_err() {
            return 2;
        }
        let mut sent = 0;
        while !conn.is_held() {
            let fds = vec![temporary("1"), temporary("2"), temporary("3")];
            if conn.queue(&Request::List, fds).is_err() || conn.flush().is_err() || sent > 2 * MOST {
                return 3;
            }
            sent += 3;
        }
        if conn.queued_bytes() == 0 || conn.flush().ok() != Some(false) {
            return 4;
        }
        let mut taken = 0;
        while taken < sent {
            match peer.receive() {
                Ok(Received::Line(_, fds)) if fds.len() == 3 => taken += 3,
                Ok(Received::Nothing) => {}
                _ => return 5,
            }
            if conn.flush().is_err() {
                return 6;
            }
        }
        i32::from(conn.is_held())
    };
    let code = if nix::unistd::geteuid().is_root() { as_nobody(work) } else { in_child(work).exit_code() };
    assert_eq!(code, 0);
}
