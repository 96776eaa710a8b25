//! Readers, writers, and those who only make trouble.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use shm_proto::internal::control::stat::{ReaderState, WriterRole};
use shm_proto::internal::ring::layout::LAYOUT_VERSION;
use shm_proto::internal::ring::{Reader, Writer};
use shm_proto::{Done, Request, Start};
use shm_proto::{ReaderError, WriterError};

use super::{Daemon, PATIENCE, wait_for};

const ONE: &str =
    "[[channel]]\nname = \"main\"\nsource = \"none\"\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nmax_readers = 2\n";
const TWO: &str = "[[channel]]\nname = \"a\"\n[[channel]]\nname = \"b\"\n";

fn connect(daemon: &Daemon) -> UnixStream {
    let socket = UnixStream::connect(daemon.endpoint().socket).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Everything that the daemon says until it closes the connection.
fn hear(mut socket: &UnixStream) -> String {
    let mut text = Vec::new();
    let mut bytes = [0; 4096];
    while let Ok(n @ 1..) = socket.read(&mut bytes) {
        text.extend_from_slice(&bytes[..n]);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn nonsense_silence_and_length_are_answered_and_cut_off_while_others_are_served() {
    let daemon = Daemon::start("nonsense", ONE);
    let silent = connect(&daemon);
    let mut slow = connect(&daemon);
    slow.write_all(b"{\"v\":1,").unwrap();
    let long = "x".repeat(100_000);
    for (said, answer) in [
        ("garbage\n", "bad_request"),
        ("{\"v\":9,\"op\":\"ping\"}\n", "bad_version"),
        ("{\"v\":1,\"op\":[7]}\n", "bad_request"),
        (&long, "65536 bytes"),
    ] {
        let mut client = connect(&daemon);
        // The daemon may close before it has read everything.
        let _ = client.write_all(said.as_bytes());
        assert!(hear(&client).contains(answer), "{}", &said[..said.len().min(40)]);
    }
    daemon.stat();
    for quiet in [&silent, &slow] {
        assert!(hear(quiet).contains("no complete request within 5 s"));
    }
    assert!(daemon.log().contains("event=dismiss"), "{}", daemon.log());
}

#[test]
fn requests_in_one_write_are_answered_in_order_even_when_one_takes_time() {
    let daemon = Daemon::start("pipelined", "[[channel]]\nname = \"main\"\nmax = \"256MiB\"\n");
    let mut client = connect(&daemon);
    let lines =
        "{\"v\":1,\"op\":\"resize\",\"bytes\":100000000}\n{\"v\":1,\"op\":\"ping\"}\n{\"v\":1,\"op\":\"list\"}\n";
    client.write_all(lines.as_bytes()).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let heard = hear(&client);
    let at = |what: &str| heard.find(what).unwrap_or_else(|| panic!("no {what} in {heard}"));
    assert!(at("\"resize\"") < at("\"ping\"") && at("\"ping\"") < at("\"list\""), "{heard}");
}

#[test]
fn an_attached_reader_that_talks_is_detached() {
    let daemon = Daemon::start("talker", ONE);
    let mut client = connect(&daemon);
    client.write_all(b"{\"v\":1,\"op\":\"attach\",\"layout\":2,\"program\":\"x\\nevent=stop\"}\nhello\n").unwrap();
    assert!(hear(&client).contains("nothing to ask"));
    wait_for(|| daemon.stat().readers.is_empty(), || daemon.log());
    assert!(daemon.log().contains("program=x?event?stop"), "{}", daemon.log());
}

#[test]
fn a_reader_that_goes_frees_its_space_and_its_number_is_not_used_again() {
    let daemon = Daemon::start("leaves", ONE);
    let idle = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let full = loop {
        if let Err(e) = writer.try_publish(&[7; 1000]) {
            break e;
        }
    };
    assert!(matches!(full, WriterError::WouldBlock { .. }), "{full}");
    std::thread::scope(|scope| {
        scope.spawn(|| writer.publish(&[8; 1000]).unwrap());
        wait_for(|| daemon.stat().readers.len() == 1, || daemon.log());
        drop(idle);
    });
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap();
    writer.publish(b"next").unwrap();
    let mut bytes = Vec::new();
    reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
    assert_eq!(bytes, b"next");
    assert_eq!(daemon.stat().readers[0].reader, 2);
}

#[test]
fn the_writer_role_is_one_programs_until_it_gives_it_back() {
    let daemon = Daemon::start("role", ONE);
    let writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let taken =
        daemon.refused(&Request::Publish { channel: None, program: None, layout: LAYOUT_VERSION, expect: None });
    let (pid, start) = (std::process::id(), "channel main: program ");
    assert!(taken.starts_with(start) && taken.contains(&format!("(pid {pid}, user ")), "{taken}");
    assert!(taken.contains(") has borrowed the writer role; "), "{taken}");
    let stat = daemon.stat().writer.unwrap();
    assert_eq!((stat.pid, stat.role), (pid, WriterRole::Lent));
    drop(writer);
    wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
    Writer::attach(&daemon.endpoint(), None).unwrap();
}

#[test]
fn a_writer_that_comes_later_knows_the_readers_that_are_there() {
    let daemon = Daemon::start("later", ONE);
    let mut readers: Vec<Reader> =
        (0..2).map(|_| Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap()).collect();
    for round in 0..3u8 {
        let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
        assert_eq!(writer.readers(), 2);
        writer.publish(&[round; 10_000]).unwrap();
        drop(writer);
        wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
    }
    for reader in &mut readers {
        for round in 0..3u8 {
            let mut bytes = Vec::new();
            reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
            assert_eq!(bytes, [round; 10_000]);
        }
    }
}

#[test]
fn more_readers_than_allowed_are_refused_with_the_number() {
    let daemon = Daemon::start("many", ONE);
    let _readers: Vec<Reader> = (0..2).map(|_| Reader::attach(&daemon.endpoint(), None, Start::New).unwrap()).collect();
    let refused =
        daemon.refused(&Request::Attach { channel: None, program: None, layout: LAYOUT_VERSION, expect: None });
    assert!(
        refused.contains("channel main: 2 readers are attached") && refused.contains("max_readers = 2"),
        "{refused}"
    );
}

#[test]
fn an_administrators_eviction_reaches_the_reader_and_the_writer() {
    let daemon = Daemon::start("evict", ONE);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let wrong = daemon.refused(&Request::Evict { channel: None, reader: 9 });
    assert_eq!(wrong, "channel main: no reader 9; readers: 1");
    assert_eq!(daemon.ask(&Request::Evict { channel: None, reader: 1 }).unwrap(), Done::Evict {});
    let mut bytes = Vec::new();
    let evicted = reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap_err();
    assert!(matches!(&evicted, ReaderError::Evicted { reason, .. } if reason.contains("administers")), "{evicted}");
    assert_eq!(daemon.stat().readers[0].state, ReaderState::Evicted);
    assert_eq!(daemon.stat().evicted, 1);
    for _ in 0..200 {
        writer.publish(&[0; 1000]).unwrap();
    }
    drop(reader);
    wait_for(|| daemon.stat().readers.is_empty(), || daemon.log());
}

#[test]
fn with_several_channels_one_has_to_be_named() {
    let daemon = Daemon::start("several", TWO);
    let unnamed = daemon.refused(&Request::Resize { channel: None, bytes: 65_536 });
    assert_eq!(unnamed, "several channels: name one of a, b");
    let wrong = daemon.refused(&Request::Attach {
        channel: Some("c".parse().unwrap()),
        program: None,
        layout: LAYOUT_VERSION,
        expect: None,
    });
    assert_eq!(wrong, "no channel named c; channels: a, b");
    let Ok(Done::List(list)) = daemon.ask(&Request::List) else { panic!("{}", daemon.log()) };
    assert_eq!(list.iter().map(|summary| summary.channel.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn connections_over_the_limit_are_told_and_closed() {
    let daemon = Daemon::start("limit", &format!("max_clients = 4\n{ONE}"));
    let held: Vec<_> = (0..4).map(|_| connect(&daemon)).collect();
    let heard = hear(&connect(&daemon));
    assert!(heard.contains("too_many") && heard.contains("max_clients = 4"), "{heard}");
    drop(held);
    wait_for(|| daemon.client().request(&Request::Ping).is_ok(), || daemon.log());
}
