//! The library against a real daemon: what a program that links it can rely on.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use shm_proto::{Blocked, Error, ErrorKind, Reader, ReaderError, Start, Writer, WriterError};

use shm_test_support::{Daemon, PATIENCE};

#[track_caller]
fn receive(reader: &mut Reader) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
    bytes
}

#[test]
fn a_slot_is_filled_in_place_committed_shorter_or_given_up() {
    let daemon = Daemon::start("");
    let (mut reader, mut writer) = (daemon.reader(Start::New), daemon.writer());
    let mut slot = writer.reserve(1000).unwrap().unwrap();
    slot.fill(b'a');
    assert_eq!(slot.commit(3).unwrap(), 0);
    let mut slot = writer.reserve(1000).unwrap().unwrap();
    slot.fill(b'b');
    slot.abort();
    let _ = writer.reserve(5).unwrap();
    let slot = writer.reserve(0).unwrap().unwrap();
    assert_eq!(slot.commit(0).unwrap(), 1);
    assert_eq!(receive(&mut reader), b"aaa");
    assert_eq!(receive(&mut reader), b"");
    assert!(reader.try_recv().unwrap().is_none());
}

#[test]
fn a_batch_becomes_visible_as_a_whole() {
    let daemon = Daemon::start("");
    let (mut reader, mut writer) = (daemon.reader(Start::New), daemon.writer());
    let mut batch = writer.batch();
    for n in 0..100u8 {
        assert_eq!(batch.push(&[n]).unwrap(), Some(n.into()));
    }
    assert!(reader.try_recv().unwrap().is_none());
    batch.commit().unwrap();
    let mut seen = Vec::new();
    let mut batch = reader.batch(60);
    while let Some(message) = batch.next().unwrap() {
        message.copy_to_vec(&mut seen);
        assert_eq!(u64::from(seen[0]), message.seq());
    }
    drop(batch);
    assert_eq!((reader.received(), reader.seq()), (60, 60));
}

#[test]
fn a_message_is_read_in_place_as_words_and_bytes_and_starts_aligned() {
    let daemon = Daemon::start("[[channel]]\nalign = 4096\ncapacity = \"1MiB\"\n");
    let (mut reader, mut writer) = (daemon.reader(Start::New), daemon.writer());
    for len in [1usize, 8, 4095, 4096, 5000] {
        let bytes: Vec<u8> = (0..len).map(|n| n as u8).collect();
        writer.publish(&bytes).unwrap();
        let message = reader.recv(Some(PATIENCE)).unwrap();
        assert!((message.as_ptr() as usize).is_multiple_of(4096), "{:?}", message.as_ptr());
        let mut copy = vec![0; len];
        assert_eq!(message.copy_to(&mut copy), len);
        assert_eq!(copy, bytes);
        let words: Vec<u8> = message.words().flat_map(u64::to_le_bytes).collect();
        assert_eq!(words[..len], bytes);
        message.finish().unwrap();
    }
}

#[test]
fn waiting_has_a_timeout_and_polling_does_not_wait() {
    let daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"0\"\n");
    let (mut reader, mut writer) = (daemon.reader(Start::New), daemon.writer());
    assert!(reader.try_recv().unwrap().is_none());
    match reader.recv(Some(Duration::from_millis(50))) {
        Err(ReaderError::TimedOut { waited, .. }) => assert_eq!(waited, Duration::from_millis(50)),
        other => panic!("{other:?}"),
    }
    let full = loop {
        if let Err(e) = writer.try_publish(&[1; 1000]) {
            break e;
        }
    };
    assert!(matches!(full, WriterError::WouldBlock { reason: Blocked::Full { capacity: 65_536, .. }, .. }), "{full:?}");
    let late = writer.publish_within(&[1; 1000], Duration::from_millis(50)).unwrap_err();
    assert!(matches!(late, WriterError::TimedOut { .. }) && late.to_string().contains("65536"), "{late}");
    let published = writer.messages();
    for _ in 0..published {
        receive(&mut reader);
    }
    // What was not published is not there, and now there is room.
    assert!(reader.try_recv().unwrap().is_none());
    writer.try_publish(&[2; 1000]).unwrap();
    assert_eq!(receive(&mut reader), [2; 1000]);
}

#[test]
fn a_reader_waits_beside_other_descriptors_in_a_poll_loop() {
    let daemon = Daemon::start("");
    let mut reader = daemon.reader(Start::New);
    let (other, mut other_end) = std::io::pipe().unwrap();
    let mut writer = daemon.writer();
    let sending = std::thread::spawn(move || {
        for n in 0..200u32 {
            writer.publish(&n.to_le_bytes()).unwrap();
            if n.is_multiple_of(20) {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        std::io::Write::write_all(&mut other_end, b"!").unwrap();
        writer
    });
    let (mut received, mut other_spoke) = (0u32, false);
    while received < 200 || !other_spoke {
        while let Some(message) = reader.try_recv().unwrap() {
            assert_eq!(message.words().next(), Some(received.into()));
            received += 1;
        }
        if !reader.arm().unwrap() {
            continue;
        }
        let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN), PollFd::new(other.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut fds, PollTimeout::try_from(PATIENCE).unwrap()).unwrap();
        assert!(ready > 0, "woken by nothing after {received} messages");
        other_spoke = fds[1].any().unwrap();
    }
    drop(sending.join().unwrap());
}

#[test]
fn a_sleeping_reader_is_woken_for_every_single_message() {
    let daemon = Daemon::start("");
    let (mut there, mut back) = (daemon.reader(Start::New), daemon.reader(Start::New));
    let mut writer = daemon.writer();
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for reader in [&mut there, &mut back] {
            let said = said.clone();
            scope.spawn(move || {
                for n in 0..2000u64 {
                    assert_eq!(reader.recv(Some(PATIENCE)).unwrap().seq(), n);
                    said.send(()).unwrap();
                }
            });
        }
        for n in 0..2000u32 {
            writer.publish(b"ping").unwrap();
            for _ in 0..2 {
                heard.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("message {n}: {e}"));
            }
        }
    });
}

#[test]
fn history_is_kept_for_late_readers_as_far_as_the_ring_holds_it() {
    let daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\n");
    let mut writer = daemon.writer();
    for n in 0..10_000u64 {
        writer.publish(&n.to_le_bytes().repeat(10)).unwrap();
    }
    let mut old = daemon.reader(Start::Oldest);
    let mut new = daemon.reader(Start::New);
    assert_eq!(new.seq(), 10_000);
    let first = old.seq();
    assert!(first > 9_000 && first < 9_900, "the oldest that is whole is {first}");
    writer.publish(b"last").unwrap();
    for n in first..10_000 {
        assert_eq!(receive(&mut old), n.to_le_bytes().repeat(10));
    }
    assert_eq!(receive(&mut old), b"last");
    assert_eq!(receive(&mut new), b"last");
    assert_eq!((old.lost(), new.lost()), (0, 0));
}

#[test]
fn publishing_waits_for_as_many_readers_as_the_channel_wants() {
    let daemon = Daemon::start("[[channel]]\nwait_readers = 2\n");
    let mut writer = daemon.writer();
    let mut one = daemon.reader(Start::New);
    let late = writer.publish_within(b"early", Duration::from_millis(100)).unwrap_err();
    assert!(late.to_string().contains("2 readers of channel main, 1 attached"), "{late}");
    let mut two = daemon.reader(Start::New);
    writer.publish_within(b"now", PATIENCE).unwrap();
    assert_eq!(receive(&mut one), b"now");
    assert_eq!(receive(&mut two), b"now");
}

#[test]
fn a_message_over_the_limit_is_refused_and_changes_nothing() {
    let daemon = Daemon::start("[[channel]]\nmax_message = \"100\"\n");
    let mut reader = daemon.reader(Start::New);
    let mut writer = daemon.writer();
    match writer.publish(&[0; 101]) {
        Err(WriterError::TooLarge { len: 101, limit: 100, .. }) => {}
        other => panic!("{other:?}"),
    }
    writer.publish(&[1; 100]).unwrap();
    assert_eq!(receive(&mut reader), [1; 100]);
}

#[test]
fn refusals_have_kinds_for_programs() {
    let daemon = Daemon::start("[[channel]]\nmax_readers = 1\n");
    let endpoint = daemon.endpoint();
    let kind = |error: Error| error.refusal();
    assert_eq!(
        kind(Reader::attach(&endpoint, Some("nowhere"), Start::New).unwrap_err()),
        Some(ErrorKind::NoSuchChannel)
    );
    let _reader = daemon.reader(Start::New);
    assert_eq!(kind(Reader::attach(&endpoint, None, Start::New).unwrap_err()), Some(ErrorKind::TooMany));
    let _writer = daemon.writer();
    assert_eq!(kind(Writer::attach(&endpoint, None).unwrap_err()), Some(ErrorKind::WriterTaken));
    assert_eq!(kind(daemon.resize(1).unwrap_err().into()), Some(ErrorKind::OutOfRange));
}

#[test]
fn a_stopping_daemon_takes_the_role_back_and_says_why() {
    let mut daemon = Daemon::start("");
    let mut writer = daemon.writer();
    writer.publish(b"one").unwrap();
    daemon.stop(Signal::SIGTERM);
    match writer.publish(b"two") {
        Err(WriterError::Revoked { channel, reason }) => {
            assert!(channel == "main" && reason.contains("SIGTERM"), "{channel}: {reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reader_that_is_dropped_makes_room_and_is_gone_from_stat() {
    let daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"0\"\n");
    let reader = daemon.reader(Start::New);
    let mut writer = daemon.writer();
    while writer.try_publish(&[1; 1000]).is_ok() {}
    drop(reader);
    writer.publish_within(&[2; 1000], PATIENCE).unwrap();
    daemon.until_readers(0);
}

#[test]
fn the_examples_of_the_sizes_in_stat_hold_for_a_writer_in_this_process() {
    let daemon = Daemon::start("");
    let mut writer = daemon.writer();
    let mut reader = daemon.reader(Start::New);
    writer.publish(&[0; 100]).unwrap();
    receive(&mut reader);
    assert!(reader.try_recv().unwrap().is_none());
    let stat = daemon.stat();
    assert_eq!((stat.messages, stat.bytes, stat.used), (1, 100, 0));
    let program = std::env::current_exe().unwrap().file_name().unwrap().to_string_lossy().into_owned();
    let shown = stat.writer.unwrap();
    assert_eq!(shown.pid, std::process::id());
    assert_eq!(shown.program, program.chars().take(32).collect::<String>());
    assert_eq!((stat.readers[0].pid, stat.readers[0].received), (std::process::id(), 1));
}

#[test]
fn as_an_iterator_a_reader_yields_owned_copies_until_the_channel_closes() {
    let mut daemon = Daemon::start("");
    let (mut reader, mut writer) = (daemon.reader(Start::New), daemon.writer());
    for n in 0..100u8 {
        writer.publish(&vec![n; n.into()]).unwrap();
    }
    drop(writer);
    daemon.stop(Signal::SIGTERM);
    let messages: Vec<_> = reader.messages().map(Result::unwrap).collect();
    assert_eq!(messages.len(), 100);
    for (n, message) in (0..100u8).zip(messages) {
        assert_eq!((message.seq, message.lost_before, message.bytes), (n.into(), 0, vec![n; n.into()]));
    }
    assert!(reader.messages().next().is_none());
}

#[test]
fn an_iterator_ends_after_the_error_that_ends_the_attachment() {
    let daemon = Daemon::start("");
    let mut reader = daemon.reader(Start::New);
    let number = daemon.until_readers(1).readers[0].reader;
    daemon.cli(&["evict", "--reader", &number.to_string()]).quiet();
    let mut messages = reader.messages();
    assert!(matches!(messages.next(), Some(Err(ReaderError::Evicted { .. }))));
    assert!(messages.next().is_none());
}
