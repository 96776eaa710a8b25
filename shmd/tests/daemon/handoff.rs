//! A channel that hands messages over one at a time, by the real daemon.

mod removal;

use std::fs;
use std::io::Read;
use std::net::Shutdown;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use shm_proto::internal::control::stat::{Mode, ReaderState};
use shm_proto::internal::handoff::{Names, Reader};
use shm_proto::internal::os::clock::monotonic_ns;
use shm_proto::internal::ring::layout::LAYOUT_VERSION;
use shm_proto::{Attachment, Done, Error, HandoffError, Request, Start, Writer, WriterError};

use super::{Daemon, PATIENCE, joined, soon, wait_for};

const CONFIG: &str = "[[channel]]\nmode = \"handoff\"\ncapacity = 4096\nmin = 4096\nmax = \"8MiB\"\nsource = \"stdin\"\n\
                      framing = \"nul\"\nkeep_delimiter = true\n";
/// For whoever waits for an acknowledgement that does not come.
const LENT: &str =
    "[[channel]]\nmode = \"handoff\"\ncapacity = 4096\nmin = 4096\nmax = \"8MiB\"\nack_timeout = \"50ms\"\n";
/// For whoever waits for one that comes, however slow the machine is: a message that is offered again is read twice.
const PATIENT: &str =
    "[[channel]]\nmode = \"handoff\"\ncapacity = 4096\nmin = 4096\nmax = \"8MiB\"\nack_timeout = \"60s\"\n";

fn names(daemon: &Daemon) -> Names {
    let segment = format!("/{}.main", daemon.prefix);
    Names::new(&segment, &format!("{segment}.avail"), &format!("{segment}.done")).unwrap()
}

/// What a reader with no daemon of its own gets next.
fn next(reader: &mut Reader) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.recv(&mut bytes, Some(PATIENCE)).unwrap();
    reader.acknowledge();
    bytes
}

#[test]
fn standard_input_is_handed_over_one_by_one_and_the_end_waits_for_the_last_acknowledgement() {
    let mut daemon = Daemon::configured("handoff-stdin", CONFIG);
    daemon.run(&["--exit-on-eof"]);
    daemon.await_ready();
    let long = [b'x'; 100_000];
    daemon.feed(b"Hello\0World\0\0");
    daemon.feed(&long);
    daemon.end_input();
    let mut reader = Reader::new(names(&daemon));
    assert_eq!(next(&mut reader), b"Hello\0");
    assert_eq!(next(&mut reader), b"World\0");
    assert_eq!(next(&mut reader), b"\0");
    let last = next(&mut reader);
    assert!(last.len() == 100_001 && last.ends_with(b"x\0"));
    assert_eq!(daemon.wait(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
    let left = fs::read_dir("/dev/shm")
        .unwrap()
        .any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with(&format!("sem.{}", daemon.prefix)));
    assert!(!left);
}

#[test]
fn a_lent_writers_publish_returns_when_the_message_has_been_acknowledged() {
    let daemon = Daemon::start("handoff-lent", PATIENT);
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let names = names(&daemon);
    let reading = std::thread::spawn(move || {
        let mut reader = Reader::new(names);
        (0..100).map(|_| next(&mut reader)).collect::<Vec<_>>()
    });
    for number in 0..100 {
        writer.publish(format!("message {number}").as_bytes()).unwrap();
        assert_eq!(daemon.stat().messages, number + 1);
    }
    let expected: Vec<_> = (0..100).map(|number| format!("message {number}").into_bytes()).collect();
    assert_eq!(joined(reading), expected);
}

#[test]
fn a_reader_attaches_through_the_daemon_is_shown_and_is_told_of_the_end() {
    let mut daemon = Daemon::start("handoff-attach", PATIENT);
    let Attachment::Handoff(mut attached) = Attachment::open(&daemon.endpoint(), None, Start::New).unwrap() else {
        panic!("a ring");
    };
    assert_eq!(attached.names(), &names(&daemon));
    let stat = daemon.stat();
    assert_eq!((stat.mode, stat.readers.len(), stat.readers[0].pid), (Mode::Handoff, 1, std::process::id()));
    // The segment, its feed with a header, and two semaphores.
    assert_eq!((stat.memory, stat.memory_total), (4096 + (64 << 10) + 4096 + 8192, stat.memory));
    let other = shm_proto::Reader::attach(&daemon.endpoint(), None, Start::New).unwrap_err();
    assert!(matches!(&other, Error::IsHandoff { .. }) && other.to_string().contains(".avail"), "{other}");
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let writing = std::thread::spawn(move || writer.publish(b"one").map(drop));
    let mut bytes = Vec::new();
    assert!(attached.recv_until(&mut bytes, soon()).unwrap().is_some());
    attached.acknowledge();
    joined(writing).unwrap();
    assert_eq!(bytes, b"one");
    let stat = daemon.stat();
    assert_eq!((stat.readers[0].received, &stat.readers[0].state), (1, &ReaderState::Reading));
    assert!(stat.handoff.is_some_and(|handoff| handoff.last_ack_ms.is_some() && handoff.on_offer_ms.is_none()));
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(matches!(attached.recv_until(&mut bytes, soon()), Err(HandoffError::Closed { .. })));
    daemon.assert_gone();
}

#[test]
fn an_evicted_reader_learns_by_whom() {
    let daemon = Daemon::start("handoff-evict", PATIENT);
    let Attachment::Handoff(mut attached) = Attachment::open(&daemon.endpoint(), None, Start::New).unwrap() else {
        panic!("a ring");
    };
    daemon.ask(&Request::Evict { channel: None, reader: 1 }).unwrap();
    let error = attached.recv_until(&mut Vec::new(), soon()).unwrap_err();
    assert!(matches!(&error, HandoffError::Evicted { reason, .. } if reason.contains("administers")), "{error}");
    assert_eq!(daemon.stat().evicted, 1);
    assert!(daemon.refused(&Request::Evict { channel: None, reader: 0 }).contains("no reader 0"));
}

/// The operations that `shmctl log` shows, by name.
fn operations(daemon: &Daemon) -> Vec<String> {
    match daemon.ask(&Request::Log { channel: None, since: 0, last: None, follow: false }) {
        Ok(Done::Log(entries)) => entries.into_iter().map(|entry| entry.event.to_string()).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_operation_log_has_what_happens_on_a_handoff_channel() {
    let mut daemon = Daemon::start("handoff-log", &format!("{LENT}on_full = \"drop\"\n"));
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    writer.publish(&[1; 5000]).unwrap();
    daemon.ask(&Request::Resize { channel: None, bytes: 4096 }).unwrap();
    drop(writer);
    let attached = Attachment::open(&daemon.endpoint(), None, Start::New).unwrap();
    daemon.ask(&Request::Evict { channel: None, reader: 1 }).unwrap();
    drop(attached);
    daemon.await_log(|log| log.contains("event=detach") && log.contains("event=return"));
    let mut seen = operations(&daemon);
    seen.retain(|event| !matches!(event.as_str(), "start" | "ready" | "return"));
    assert_eq!(seen, ["create", "create", "lend", "grow", "overflow", "shrink", "attach", "evict", "detach"]);
    let log = daemon.log();
    assert!(log.contains("event=grow channel=main old=4096 new=8192 by=writer"), "{log}");
    assert!(log.contains("event=shrink channel=main old=8192 new=4096 by=operator"), "{log}");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn readers_that_have_stopped_are_shown_and_logged_and_so_is_a_message_that_nobody_acknowledges() {
    let mut daemon = Daemon::start("handoff-stalled", &format!("{PATIENT}stalled_after = \"1s\"\n"));
    let Attachment::Handoff(mut attached) = Attachment::open(&daemon.endpoint(), None, Start::New).unwrap() else {
        panic!("a ring");
    };
    // With nothing on offer a reader that does not read is at rest, and one that waits gives signs of life.
    let mut bytes = Vec::new();
    assert_eq!(attached.recv_until(&mut bytes, monotonic_ns() + 2_500_000_000).unwrap(), None);
    assert!(!daemon.log().contains("event=stalled"), "{}", daemon.log());
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let writing = std::thread::spawn(move || writer.publish(b"waits").map(drop));
    daemon.await_log(|log| log.contains("event=stalled channel=main reader=1 "));
    daemon.await_log(|log| log.contains("event=stalled channel=main role=reader on_offer=5 "));
    let stat = daemon.stat();
    assert_eq!(stat.readers[0].state, ReaderState::Stalled);
    assert!(stat.handoff.is_some_and(|handoff| handoff.stalled && handoff.on_offer_ms > Some(999)));
    assert!(stat.readers[0].heartbeat_ms > 999, "{:?}", stat.readers[0]);
    attached.recv_until(&mut bytes, soon()).unwrap();
    attached.acknowledge();
    joined(writing).unwrap();
    daemon.await_log(|log| log.contains("event=recovered channel=main role=reader"));
    // The writer waited for an acknowledgement, and lived.
    assert!(!daemon.log().contains("role=writer"), "{}", daemon.log());
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_reload_changes_policies_and_permissions_under_a_message_on_offer_and_names_what_cannot_change() {
    let mut daemon = Daemon::start("handoff-reload", LENT);
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let writing = std::thread::spawn(move || writer.publish(b"nobody comes").map(drop));
    wait_for(|| daemon.stat().handoff.unwrap().on_offer.is_some(), || daemon.log());
    let segment = daemon.object("main");
    let [avail, done] =
        ["avail", "done"].map(|end| PathBuf::from(format!("/dev/shm/sem.{}.main.{end}", daemon.prefix)));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!([&segment, &avail, &done].map(|path| mode(path)), [0o600; 3]);
    let done_by_reload = daemon
        .reload(
            "[[channel]]\nmode = \"handoff\"\ncapacity = 8192\nmin = 8192\nmax = \"4MiB\"\nack_timeout = \"60ms\"\n\
             on_full = \"drop\"\npermissions = \"0666\"\nmax_readers = 1\nread = [\"*\"]\navail = \"/other\"\n",
        )
        .unwrap();
    let keys = |changes: &[shm_proto::internal::control::Change]| {
        let mut keys: Vec<_> = changes.iter().map(|change| change.key.clone()).collect();
        keys.sort();
        keys.join(" ")
    };
    let (changed, kept) = (keys(&done_by_reload.changed), keys(&done_by_reload.kept));
    assert_eq!(changed, "ack_timeout max_readers min on_full permissions read", "{done_by_reload:?}");
    assert_eq!(kept, "avail capacity max max_message", "{done_by_reload:?}");
    // The message that was on offer for ever is dropped now.
    joined(writing).unwrap();
    assert_eq!(daemon.stat().dropped, 1);
    assert_eq!([&segment, &avail, &done].map(|path| mode(path)), [0o666; 3]);
    assert!(daemon.refused(&Request::Resize { channel: None, bytes: 4096 }).contains("8KiB"));
    let attached = Attachment::open(&daemon.endpoint(), None, Start::New).unwrap();
    assert!(
        daemon
            .refused(&Request::Attach { channel: None, program: None, layout: LAYOUT_VERSION, expect: None })
            .contains("max_readers = 1")
    );
    drop(attached);
    // Another mode is named, and the channel stays as it is.
    let ring = daemon.reload("[[channel]]\nname = \"main\"\nwrite = [\"*\"]\n").unwrap();
    assert_eq!((ring.kept[0].key.as_str(), ring.kept[0].old.as_str()), ("mode", "\"handoff\""));
    // Nothing of the other keys is passed over: who may do what is taken over, the rest is named.
    let kept = "ack_timeout capacity max max_message max_readers min mode on_full permissions";
    assert_eq!((keys(&ring.changed).as_str(), keys(&ring.kept).as_str()), ("read write", kept));
    // A channel that is taken out goes with its objects, and comes back as what it says then.
    daemon.reload("[[channel]]\nname = \"other\"\n").unwrap();
    daemon.await_log(|log| log.contains("event=unlink channel=main"));
    assert!(!segment.exists() && !avail.exists() && !done.exists(), "{}", daemon.log());
    daemon.reload(LENT).unwrap();
    assert!(segment.exists() && avail.exists());
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn objects_that_somebody_breaks_delay_messages_and_stop_nothing() {
    let mut daemon = Daemon::start("handoff-broken", PATIENT);
    let mut header = fs::OpenOptions::new().read(true).write(true).open(daemon.object("main")).unwrap();
    let mut mutex = [0; shm_proto::internal::os::mutex::MUTEX_BYTES];
    header.read_exact(&mut mutex).unwrap();
    // A kind that no mutex has.
    header.write_all_at(&[0xff; 4], 16).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let writing = std::thread::spawn(move || writer.publish(b"late").map(drop));
    daemon.await_log(|log| log.contains("event=handoff-waits") && log.contains("no process-shared mutex"));
    header.write_all_at(&mutex, 0).unwrap();
    assert_eq!(next(&mut Reader::new(names(&daemon))), b"late");
    joined(writing).unwrap();
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn a_resize_is_at_once_or_waits_for_the_message_on_offer_and_is_refused_with_numbers() {
    let daemon = Daemon::start("handoff-resize", PATIENT);
    let resize = |bytes| Request::Resize { channel: None, bytes };
    daemon.ask(&resize(1 << 20)).unwrap();
    assert_eq!((daemon.stat().capacity, daemon.stat().pending), (1 << 20, None));
    let refusal = daemon.refused(&resize(16 << 20));
    assert!(refusal.contains("16MiB") && refusal.contains("8MiB"), "{refusal}");
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let writing = std::thread::spawn(move || writer.publish(&[7; 100_000]).map(drop));
    let on_offer = || daemon.stat().handoff.unwrap().on_offer == Some(100_000);
    wait_for(&on_offer, || daemon.log());
    daemon.ask(&resize(4096)).unwrap();
    assert_eq!((daemon.stat().capacity, daemon.stat().pending), (1 << 20, Some(4096)));
    let mut reader = Reader::new(names(&daemon));
    assert_eq!(next(&mut reader), [7; 100_000]);
    joined(writing).unwrap();
    wait_for(&|| (daemon.stat().capacity, daemon.stat().pending) == (4096, None), || format!("{:?}", daemon.stat()));
}

#[test]
fn a_daemon_that_was_killed_leaves_objects_that_the_next_one_adopts_under_a_waiting_reader() {
    let mut daemon = Daemon::start("handoff-killed", PATIENT);
    let mut reader = Reader::new(names(&daemon));
    let publish = |daemon: &Daemon, text: &'static [u8]| {
        let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
        std::thread::spawn(move || writer.publish(text).map(drop))
    };
    let writing = publish(&daemon, b"before");
    assert_eq!(next(&mut reader), b"before");
    joined(writing).unwrap();
    daemon.signal(Signal::SIGKILL);
    assert_eq!(daemon.wait(), None);
    daemon.run(&[]);
    daemon.await_ready();
    assert!(daemon.log().contains("origin=adopted"), "{}", daemon.log());
    let writing = publish(&daemon, b"after");
    assert_eq!(next(&mut reader), b"after");
    joined(writing).unwrap();
    assert_eq!(daemon.stop(), Some(0));
    assert!(!daemon.object("main").exists() && !daemon.object("main.feed").exists());
}

#[test]
fn a_stop_with_a_message_that_nobody_takes_withdraws_it_and_leaves_nothing() {
    let mut daemon = Daemon::start("handoff-stop", PATIENT);
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let writing = std::thread::spawn(move || writer.publish(b"never").map(drop));
    wait_for(&|| daemon.stat().handoff.unwrap().on_offer.is_some(), || daemon.log());
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(joined(writing).is_err());
    daemon.assert_gone();
}

#[test]
fn a_message_that_nobody_acknowledges_is_dropped_where_that_is_the_policy() {
    let config = format!("{LENT}on_full = \"drop\"\n");
    let daemon = Daemon::start("handoff-drop", &config);
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    for _ in 0..3 {
        writer.publish(b"lost").unwrap();
    }
    assert_eq!((daemon.stat().dropped, daemon.stat().messages), (3, 0));
}

#[test]
fn sixty_four_megabytes_and_nothing_at_all_go_through_the_daemon() {
    let config = "[[channel]]\nmode = \"handoff\"\ncapacity = 4096\nmin = 4096\nmax = \"128MiB\"\n\
                  ack_timeout = \"60s\"\n";
    let mut daemon = Daemon::start("handoff-large", config);
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let writing = std::thread::spawn(move || {
        for len in [64 << 20, 0, 3] {
            writer.publish(&vec![len as u8 ^ 0x5a; len]).unwrap();
        }
    });
    let mut reader = Reader::new(names(&daemon));
    for len in [64 << 20, 0, 3] {
        assert!(next(&mut reader) == vec![len as u8 ^ 0x5a; len], "the message of {len} bytes");
    }
    joined(writing);
    let stat = daemon.stat();
    assert_eq!((stat.capacity, stat.messages, stat.bytes), (128 << 20, 3, (64 << 20) + 3));
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn a_reader_killed_between_taking_and_acknowledging_through_the_daemon_stops_nobody() {
    let mut daemon = Daemon::start("handoff-taken", LENT);
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let writing = std::thread::spawn(move || writer.publish(b"twice").map(drop));
    wait_for(|| daemon.stat().handoff.unwrap().on_offer.is_some(), || daemon.log());
    let mut first = Reader::new(names(&daemon));
    assert!(first.recv(&mut Vec::new(), Some(PATIENCE)).is_ok());
    // As a process that was killed does it: it acknowledges nothing and gives nothing back.
    std::mem::forget(first);
    // It is offered again for as long as nobody acknowledges it in time, which a busy machine may not let this reader do.
    let mut second = Reader::new(names(&daemon));
    wait_for(
        || {
            let _ = second.recv(&mut Vec::new(), Some(PATIENCE / 9999)).map(|_| second.acknowledge());
            writing.is_finished()
        },
        || daemon.log(),
    );
    joined(writing).unwrap();
    assert!(daemon.stat().handoff.unwrap().offered_again >= 1);
    daemon.await_log(|log| log.contains("event=handoff-trouble channel=main offered_again="));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn memory_that_no_message_needs_is_given_back_after_a_while() {
    let config = format!("{LENT}on_full = \"drop\"\nshrink_after = \"1s\"\n");
    let mut daemon = Daemon::start("handoff-low", &config);
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    writer.publish(&[0; 1_000_000]).unwrap();
    assert_eq!(daemon.stat().capacity, 1 << 20);
    drop(writer);
    wait_for(|| daemon.stat().capacity == 4096, || daemon.log());
    daemon.await_log(|log| log.contains("event=shrink channel=main old=1048576 new=4096 by=low-use"));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn the_feed_moves_when_a_former_writer_can_still_write_to_it() {
    let daemon = Daemon::start("handoff-move", PATIENT);
    let mut reader = Reader::new(names(&daemon));
    let mut former = Vec::new();
    for round in 0..5u8 {
        let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
        // Not in a scope: if a message is not what it should be, nobody takes the next, and the thread does not end.
        let publishing = std::thread::spawn(move || {
            (0..3u8).try_for_each(|n| writer.publish(&[round, n]).map(drop))?;
            Ok::<_, Error>(writer)
        });
        for n in 0..3u8 {
            assert_eq!(next(&mut reader), [round, n]);
        }
        let writer = publishing.join().unwrap().unwrap();
        UnixStream::from(writer.link_fd().unwrap().try_clone_to_owned().unwrap()).shutdown(Shutdown::Both).unwrap();
        wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
        former.push(writer);
    }
    assert_eq!(daemon.log().matches("event=move").count(), 4, "{}", daemon.log());
    for writer in &mut former {
        assert!(matches!(writer.publish(b"stale"), Err(WriterError::Revoked { .. })));
    }
    assert_eq!(daemon.stat().messages, 15);
}
