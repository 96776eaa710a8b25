use super::*;
use crate::backlog::TAKE;
use shm_proto::internal::ring::link::ToWriter;
use std::io::{Read as _, Write as _};

fn pair(events: &mut EventLoop, now: Instant) -> (Client, UnixStream) {
    let (here, there) = UnixStream::pair().unwrap();
    let credentials = Credentials { pid: 1, uid: 0, gid: 0, groups: Vec::new() };
    (Client::new(1, here, credentials, now, events).unwrap(), there)
}

fn line(bytes: usize) -> ToWriter {
    ToWriter::Revoked { reason: "x".repeat(bytes) }
}

fn take_all(client: &mut Client, peer: &mut UnixStream) {
    let mut taken = vec![0; 64 << 10];
    while client.queued_bytes() > 0 {
        assert!(peer.read(&mut taken).unwrap() > 0);
        assert!(client.flush());
    }
}

#[test]
fn a_byte_now_and_then_does_not_buy_time() {
    let mut events = EventLoop::new().unwrap();
    let now = Instant::now();
    let (mut client, mut peer) = pair(&mut events, now);
    peer.write_all(b"{").unwrap();
    assert!(matches!(client.receive(), Ok(Received::Nothing)));
    client.settle(now + SPEAK / 2, &mut events).unwrap();
    assert_eq!(client.overdue(now + SPEAK / 2), Overdue::No);
    assert_eq!(client.overdue(now + SPEAK), Overdue::Silent);
}

#[test]
fn a_client_that_asked_once_may_ask_again_or_leave_quietly() {
    let mut events = EventLoop::new().unwrap();
    let now = Instant::now();
    let (mut client, mut peer) = pair(&mut events, now);
    peer.write_all(b"{}\n").unwrap();
    assert!(matches!(client.receive(), Ok(Received::Line(..))));
    client.answered(now + SPEAK / 2);
    client.settle(now + SPEAK / 2, &mut events).unwrap();
    assert_eq!(client.overdue(now + SPEAK), Overdue::No);
    assert_eq!(client.overdue(now + SPEAK * 2), Overdue::Idle);
}

#[test]
fn a_client_that_does_not_read_is_not_listened_to_and_runs_out_of_time() {
    let mut events = EventLoop::new().unwrap();
    let now = Instant::now();
    let (mut client, mut peer) = pair(&mut events, now);
    assert!(client.send(&line(4 << 20), Vec::new()));
    client.settle(now, &mut events).unwrap();
    assert!(!client.listens());
    assert_eq!(client.overdue(now + TAKE), Overdue::Stuck);
    take_all(&mut client, &mut peer);
    client.settle(now, &mut events).unwrap();
    assert!(client.listens());
    assert_eq!(client.overdue(now + SPEAK / 2), Overdue::No);
}

#[test]
fn a_client_that_reads_slowly_but_steadily_is_not_cut_off() {
    let mut events = EventLoop::new().unwrap();
    let mut now = Instant::now();
    let (mut client, mut peer) = pair(&mut events, now);
    assert!(client.send(&line(400 << 10), Vec::new()));
    client.settle(now, &mut events).unwrap();
    let mut taken = vec![0; 10 << 10];
    for _ in 0..4 {
        peer.read_exact(&mut taken).unwrap();
        now += TAKE;
        assert_eq!(client.overdue(now), Overdue::No);
        assert!(client.flush() && client.queued_bytes() > 0);
        client.settle(now, &mut events).unwrap();
    }
    assert_eq!(client.overdue(now + TAKE), Overdue::Stuck);
}

#[test]
fn an_attached_client_that_does_not_read_is_cut_off_at_a_megabyte() {
    let mut events = EventLoop::new().unwrap();
    let (mut client, _peer) = pair(&mut events, Instant::now());
    client.role = Role::Writer(0);
    let sent = (0..64).take_while(|_| client.send(&line(64 << 10), Vec::new())).count();
    assert!((16..24).contains(&sent), "{sent} lines of 64 KiB");
}

#[test]
fn a_long_answer_does_not_count_against_what_a_follower_may_leave_lying() {
    let mut events = EventLoop::new().unwrap();
    let (mut client, mut peer) = pair(&mut events, Instant::now());
    assert!(client.send(&line(4 << 20), Vec::new()));
    client.follow();
    assert!(client.send(&line(64 << 10), Vec::new()));
    take_all(&mut client, &mut peer);
    let sent = (0..64).take_while(|_| client.send(&line(64 << 10), Vec::new())).count();
    assert!((16..24).contains(&sent), "{sent} lines of 64 KiB");
}

#[test]
fn a_half_closed_connection_is_kept_until_the_answer_is_out() {
    let mut events = EventLoop::new().unwrap();
    let (mut client, peer) = pair(&mut events, Instant::now());
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    client.role = Role::Waiting(None);
    assert!(matches!(client.receive(), Ok(Received::Closed)));
    assert!(!client.is_done());
    client.role = Role::Asking;
    assert!(client.is_done());
}
