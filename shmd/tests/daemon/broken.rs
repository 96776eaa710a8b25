//! Programs that scribble over a ring they were lent: the daemon finds out, says so, and the channel goes on.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use shm_proto::internal::control::Resized;
use shm_proto::internal::ring::Snapshot;
use shm_proto::internal::ring::layout::{DATA_OFFSET, LAYOUT_VERSION};
use shm_proto::{Done, Reader, ReaderError, Request, Start, Writer, WriterError};

use super::{Daemon, PATIENCE, wait_for};

const ONE: &str = "[[channel]]\nname = \"main\"\n";

/// The segment as it is now, open for writing.
fn segment(daemon: &Daemon) -> File {
    OpenOptions::new().read(true).write(true).open(daemon.object("main")).unwrap()
}

/// Makes nonsense of a record's header.
fn scribble(segment: &File, off: u64) {
    segment.write_all_at(&0xdead_beef_u64.to_le_bytes(), DATA_OFFSET + off).unwrap();
}

/// Waits for a reader to be told that the segment is broken; the reason.
fn until_told(reader: &mut Reader) -> String {
    let mut bytes = Vec::new();
    match reader.recv_into(&mut bytes, Some(PATIENCE)) {
        Err(ReaderError::Corrupt { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn receive(reader: &mut Reader) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
    bytes
}

#[test]
fn a_scribbled_record_costs_its_writer_the_role_and_readers_go_on_in_a_new_segment() {
    let daemon = Daemon::start("scribbled", ONE);
    let mut readers = [Start::New, Start::New].map(|start| Reader::attach(&daemon.endpoint(), None, start).unwrap());
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    for n in 0..100u64 {
        writer.publish(&n.to_le_bytes()).unwrap();
    }
    let [near, far] = &mut readers;
    (0..100u64).for_each(|n| assert_eq!(receive(near), n.to_le_bytes()));
    (0..10u64).for_each(|n| assert_eq!(receive(far), n.to_le_bytes()));
    scribble(&segment(&daemon), 56 + 10 * 16);
    let reason = until_told(far);
    assert!(reason.contains("0xdeadbeef at offset 216"), "{reason}");
    daemon.await_log(|log| log.contains("event=move channel=main"));
    let log = daemon.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("event=broken channel=main")).collect();
    assert!(told.len() == 1 && told[0].contains("0xdeadbeef at offset 216") && told[0].contains("ERROR"), "{log}");
    wait_for(
        || matches!(writer.publish(b"more"), Err(WriterError::Revoked { .. } | WriterError::Superseded { .. })),
        || daemon.log(),
    );
    let revoked = writer.publish(b"more").unwrap_err().to_string();
    assert!(revoked.contains("taken back"), "{revoked}");
    let mut next = Writer::attach(&daemon.endpoint(), None).unwrap();
    next.publish(b"next").unwrap();
    assert_eq!(receive(far), b"next");
    // This one had nothing to read that was wrong, and is told all the same that messages may be missing.
    let reason = until_told(near);
    assert!(reason.contains("0xdeadbeef at offset 216"), "{reason}");
    assert_eq!(receive(near), b"next");
    assert_eq!((near.received(), near.lost(), far.received(), far.lost()), (101, 0, 11, 0));
    assert_eq!((daemon.stat().readers.len(), daemon.stat().evicted), (2, 0));
}

#[test]
fn a_header_that_says_nonsense_is_found_without_anybody_asking() {
    // Magic, instance, capacity, floor's and mark's offset in both copies.
    for (at, words) in [(0, 1), (16, 1), (384, 1), (256 + 64, 8), (128 + 64, 8)] {
        let daemon = Daemon::start(&format!("header-{at}"), ONE);
        let mut reader = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap();
        let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
        writer.publish(b"one").unwrap();
        segment(&daemon).write_all_at(&[0xee; 64][..words * 8], at).unwrap();
        daemon.await_log(|log| log.contains("event=broken channel=main") && log.contains("event=move channel=main"));
        assert_eq!(daemon.log().matches("event=broken").count(), 1, "{}", daemon.log());
        wait_for(|| writer.maintain().is_err(), || daemon.log());
        let mut next = Writer::attach(&daemon.endpoint(), None).unwrap();
        next.publish(b"next").unwrap();
        let mut came = Vec::new();
        while came.last().is_none_or(|bytes| bytes != b"next") {
            let mut bytes = Vec::new();
            match reader.recv_into(&mut bytes, Some(PATIENCE)) {
                Ok(_) => came.push(bytes),
                Err(ReaderError::Corrupt { .. }) => came.push(b"broken".to_vec()),
                Err(e) => panic!("{at}: {e}"),
            }
        }
        assert_eq!(came.iter().filter(|bytes| *bytes == b"broken").count(), 1, "{at}: {came:?}");
    }
}

#[test]
fn a_ring_that_was_left_broken_is_replaced_for_whoever_comes_next() {
    let comers: [fn(&Daemon); 4] = [
        |daemon| drop(Writer::attach(&daemon.endpoint(), None).unwrap()),
        |daemon| drop(until_told(&mut Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap())),
        |daemon| drop(Reader::attach(&daemon.endpoint(), None, Start::New).unwrap()),
        |daemon| {
            let resized = daemon.ask(&Request::Resize { channel: None, bytes: 64 << 10 }).unwrap();
            assert!(matches!(resized, Done::Resize(Resized { pending: false, .. })), "{resized:?}");
        },
    ];
    for (n, come) in comers.into_iter().enumerate() {
        let daemon = Daemon::start(&format!("left-{n}"), ONE);
        let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
        for _ in 0..1000 {
            writer.publish(&[7; 1000]).unwrap();
        }
        drop(writer);
        wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
        let segment = segment(&daemon);
        let Snapshot { floor, tail, .. } = Snapshot::read(std::os::fd::AsFd::as_fd(&segment)).unwrap();
        scribble(&segment, floor.off);
        scribble(&segment, tail.off);
        come(&daemon);
        daemon.await_log(|log| log.contains("event=broken channel=main") && log.contains("event=move channel=main"));
        let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
        let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
        writer.publish(b"next").unwrap();
        assert_eq!(receive(&mut reader), b"next", "comer {n}");
    }
}

#[test]
fn a_source_whose_ring_is_broken_goes_on_in_a_new_one() {
    let config = "[[channel]]\nname = \"main\"\nsource = \"stdin\"\n";
    let mut daemon = Daemon::start("source-broken", config);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap();
    daemon.feed(b"one\n");
    assert_eq!(receive(&mut reader), b"one");
    segment(&daemon).write_all_at(&[0xee; 8], 0).unwrap();
    daemon.await_log(|log| log.contains("event=move channel=main"));
    wait_for(|| daemon.log().matches("event=source channel=main").count() == 2, || daemon.log());
    daemon.feed(b"two\n");
    until_told(&mut reader);
    assert_eq!(receive(&mut reader), b"two");
    daemon.feed(b"three\n");
    assert_eq!(receive(&mut reader), b"three");
}

#[test]
fn a_reader_that_cries_wolf_changes_nothing_and_is_sent_away_if_it_does_not_stop() {
    use shm_proto::Client;
    use shm_proto::internal::ring::link::FromReader;
    let daemon = Daemon::start("wolf", ONE);
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    for _ in 0..100 {
        writer.publish(&[7; 1000]).unwrap();
    }
    let mut client = Client::connect(&daemon.endpoint(), PATIENCE).unwrap();
    client.request(&Request::Attach { channel: None, program: None, layout: LAYOUT_VERSION, expect: None }).unwrap();
    let mut conn = client.into_conn();
    let line = FromReader::Broken { reason: "wolf\u{1b}[2J".to_owned() };
    wait_for(|| conn.send(&line, &[]).is_err(), || daemon.log());
    daemon.await_log(|log| log.contains("more lines than an attached reader may"));
    for _ in 0..100 {
        writer.publish(&[8; 1000]).unwrap();
    }
    let log = daemon.log();
    assert!(!log.contains("event=broken") && !log.contains("event=move"), "{log}");
}
