//! The operation log and what it says about peers that have stopped.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shm_proto::internal::control::log::{LogEntry, LogEvent, Value};
use shm_proto::internal::control::stat::{ReaderState, WriterState};
use shm_proto::internal::control::{Conn, Received, decode};
use shm_proto::{Done, Reader, Request, Start, Writer};

use super::{Daemon, PATIENCE, wait_for};

const PLAIN: &str = "[[channel]]\nname = \"main\"\nstalled_after = \"1s\"\n";

fn request(since: u64, last: Option<u32>, follow: bool) -> Request {
    Request::Log { channel: None, since, last, follow }
}

pub(super) fn entries(daemon: &Daemon, since: u64, last: Option<u32>) -> Vec<LogEntry> {
    match daemon.ask(&request(since, last, false)) {
        Ok(Done::Log(entries)) => entries,
        other => panic!("{other:?}"),
    }
}

fn next(conn: &mut Conn) -> LogEntry {
    loop {
        match conn.receive().unwrap() {
            Received::Line(line, _) => return decode(&line).unwrap(),
            Received::Closed => panic!("closed"),
            Received::Nothing => {
                let line = PollFd::new(conn.as_fd(), PollFlags::POLLIN);
                assert_ne!(poll(&mut [line], PollTimeout::from(60_000u16)).unwrap(), 0, "nothing comes");
            }
        }
    }
}

#[test]
fn operations_are_numbered_and_the_log_line_says_the_same() {
    let mut daemon = Daemon::start("log", PLAIN);
    drop(Reader::attach(&daemon.endpoint(), None, Start::New).unwrap());
    daemon.await_log(|log| log.contains("event=detach"));
    let all = entries(&daemon, 0, None);
    let names: Vec<_> = all.iter().map(|entry| entry.event.as_str()).collect();
    assert_eq!(names, ["start", "create", "ready", "attach", "detach"]);
    assert!(all.iter().zip(1..).all(|(entry, seq)| entry.seq == seq && entry.time_ms > 0), "{all:?}");
    assert!(all.iter().all(|entry| daemon.log().contains(&entry.to_string())), "{all:?} {}", daemon.log());
    assert_eq!(all[3].fields.get("reader"), Some(&Value::Number(1)));
    assert_eq!(entries(&daemon, 3, None), all[3..]);
    assert_eq!(entries(&daemon, 0, Some(1)), all[4..]);
    let other = Request::Log { channel: Some("other".parse().unwrap()), since: 0, last: None, follow: false };
    assert_eq!(daemon.ask(&other).unwrap(), Done::Log(Vec::new()));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn so_many_clients_follow_and_no_more() {
    let daemon = Daemon::start("log-followers", PLAIN);
    let follow = || {
        let mut client = daemon.client();
        client.request(&request(0, Some(1), true)).map(|_| client.into_conn())
    };
    let mut followers: Vec<Conn> = (0..64).map(|_| follow().unwrap()).collect();
    let refused = follow().unwrap_err().to_string();
    assert!(refused.contains("64 clients follow the operation log"), "{refused}");
    assert_eq!(entries(&daemon, 0, Some(1)).len(), 1);
    drop(Reader::attach(&daemon.endpoint(), None, Start::New).unwrap());
    for follower in &mut followers {
        assert_eq!(next(follower).event, LogEvent::Attach);
    }
    followers.truncate(63);
    wait_for(|| follow().is_ok(), || daemon.log());
}

#[test]
fn only_the_newest_are_kept() {
    let daemon = Daemon::start("log-ring", &format!("log_entries = 3\n{PLAIN}"));
    for _ in 0..4 {
        drop(Reader::attach(&daemon.endpoint(), None, Start::New).unwrap());
    }
    wait_for(|| entries(&daemon, 10, None).len() == 1, || daemon.log());
    assert_eq!(entries(&daemon, 0, None).iter().map(|entry| entry.seq).collect::<Vec<_>>(), [3, 10, 11]);
}

#[test]
fn a_follower_gets_a_log_that_is_longer_than_what_may_be_left_lying() {
    let mut daemon = Daemon::start("log-long", &format!("log_entries = 20000\n{PLAIN}"));
    // Refused reloads, each with a reason: more than a megabyte.
    let bad = format!("[[channel]]\nname = \"main\"\nsource = \"{}\"\n", "x".repeat(3000));
    std::fs::write(daemon.dir.join("shmd.toml"), bad).unwrap();
    for _ in 0..700 {
        daemon.refused(&Request::Reload);
    }
    let mut client = daemon.client();
    let Ok(Done::Log(all)) = client.request(&request(0, None, true)) else { panic!("{}", daemon.log()) };
    let bytes: usize = all.iter().map(|entry| entry.to_string().len()).sum();
    assert!(bytes > 3 << 19 && all.len() > 700, "{bytes} bytes in {} entries", all.len());
    let mut conn = client.into_conn();
    let _reader = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap();
    assert_eq!(next(&mut conn).event, LogEvent::Attach);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_follower_hears_of_everything_once_until_the_end() {
    let mut daemon = Daemon::start("log-follow", PLAIN);
    let mut client = daemon.client();
    let Ok(Done::Log(first)) = client.request(&request(0, None, true)) else { panic!("{}", daemon.log()) };
    let mut conn = client.into_conn();
    let mut seq = first.last().unwrap().seq;
    let mut heard = |event| {
        let entry = next(&mut conn);
        seq += 1;
        assert_eq!((entry.seq, entry.event), (seq, event));
    };
    let reader = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap();
    heard(LogEvent::Attach);
    drop(reader);
    heard(LogEvent::Detach);
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    heard(LogEvent::Stop);
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn every_kind_of_operation_is_told_with_who_and_how_much() {
    let mut daemon = Daemon::start(
        "log-kinds",
        "[[channel]]\nname = \"main\"\ncapacity = \"64KiB\"\nmax = \"128KiB\"\non_full = \"drop\"\n",
    );
    let reader = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap();
    daemon.ask(&Request::Resize { channel: None, bytes: 128 << 10 }).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    for _ in 0..200 {
        writer.publish(&[0; 1000]).unwrap();
    }
    writer.maintain().unwrap();
    daemon.await_log(|log| log.contains("event=overflow"));
    daemon.ask(&Request::Evict { channel: None, reader: 1 }).unwrap();
    drop(reader);
    daemon.await_log(|log| log.contains("event=detach"));
    daemon.ask(&Request::Resize { channel: None, bytes: 64 << 10 }).unwrap();
    drop(writer);
    daemon.await_log(|log| log.contains("event=return") && log.contains("event=shrink"));
    daemon.ask(&Request::Reload).unwrap();
    let all = entries(&daemon, 0, None);
    for event in [
        LogEvent::Start,
        LogEvent::Create,
        LogEvent::Ready,
        LogEvent::Attach,
        LogEvent::Grow,
        LogEvent::Lend,
        LogEvent::Overflow,
        LogEvent::Evict,
        LogEvent::Detach,
        LogEvent::Return,
        LogEvent::Shrink,
        LogEvent::Reload,
    ] {
        assert!(all.iter().any(|entry| entry.event == event), "no {event} in {all:?}");
    }
    let the = |event| all.iter().find(|entry| entry.event == event).unwrap();
    assert_eq!(the(LogEvent::Grow).to_string(), "event=grow channel=main old=65536 new=131072 by=operator");
    assert!(matches!(the(LogEvent::Overflow).fields.get("dropped"), Some(Value::Number(1..))), "{all:?}");
    assert_eq!(the(LogEvent::Evict).fields.get("pid"), Some(&Value::Number(std::process::id().into())));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn peers_that_stop_are_shown_and_reported_once_and_so_is_their_return() {
    let mut daemon = Daemon::start("log-stalled", PLAIN);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    writer.publish(b"nobody reads").unwrap();
    daemon.await_log(|log| log.contains("event=stalled channel=main reader=1 ") && log.contains("role=writer"));
    let stat = daemon.stat();
    assert_eq!((&stat.readers[0].state, stat.writer.unwrap().state), (&ReaderState::Stalled, WriterState::Stalled));
    reader.recv_into(&mut Vec::new(), Some(PATIENCE)).unwrap();
    drop(reader);
    writer.maintain().unwrap();
    daemon.await_log(|log| log.contains("event=recovered channel=main role=writer"));
    assert_eq!(daemon.log().matches("event=stalled channel=main reader=1 ").count(), 1);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn stat_shows_memory_and_what_went_through_in_a_minute_and_an_hour() {
    let mut daemon = Daemon::start("log-figures", "[[channel]]\nname = \"main\"\ncapacity = \"1MiB\"\n");
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    for _ in 0..100 {
        writer.publish(&[0; 100]).unwrap();
    }
    let stat = daemon.stat();
    assert_eq!((stat.memory, stat.memory_total), ((1 << 20) + 4096, (1 << 20) + 4096));
    for rate in [stat.last_minute, stat.last_hour] {
        assert!(rate.messages_per_s > 0.0 && rate.bytes_per_s > rate.messages_per_s * 99.0, "{stat:?}");
    }
    assert_eq!(daemon.stop(), Some(0));
}
