//! A daemon that is killed and started again: what it finds it goes on with, and who is attached stays.

mod found;
mod newcomer;
mod order;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use shm_proto::internal::ring::layout::{LAYOUT_VERSION, LEFT};
use shm_proto::internal::ring::note_unnamed;
use shm_proto::{Reader, Request, Start, Writer};

use super::{Daemon, PATIENCE, joined, wait_for};

const LENT: &str = "[[channel]]\nname = \"main\"\ncapacity = \"64KiB\"\nmin = \"64KiB\"\nmax = \"1MiB\"\n";

impl Daemon {
    pub(super) fn die(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    pub(super) fn come_back(&mut self) {
        self.run(&[]);
        self.await_ready();
    }

    /// Waits until the writer, which has lived on, is a writer of this daemon.
    pub(super) fn await_writer(&self, writer: &mut Writer) {
        let is_back = || {
            writer.maintain().unwrap();
            self.stat().writer.is_some()
        };
        wait_for(is_back, || self.log());
    }
}

fn number(reader: &mut Reader) -> u64 {
    let mut bytes = Vec::new();
    let received = reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
    assert_eq!(received.lost_before, 0);
    let number = u64::from_le_bytes(bytes.try_into().unwrap());
    assert_eq!(number, received.seq);
    number
}

fn publish(writer: &mut Writer, numbers: std::ops::Range<u64>) {
    for n in numbers {
        assert_eq!(writer.publish(&n.to_le_bytes()).unwrap(), Some(n));
    }
}

/// Publishes in a thread, so that a reader may stand still or be away meanwhile.
fn publishing(mut writer: Writer, numbers: std::ops::Range<u64>) -> thread::JoinHandle<Writer> {
    thread::spawn(move || {
        publish(&mut writer, numbers);
        writer
    })
}

/// Whether a reader in a poll loop is woken in this time.
fn is_woken(reader: &Reader, patience: Duration) -> bool {
    let patience = PollTimeout::try_from(patience).unwrap();
    poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], patience).unwrap() == 1
}

#[test]
fn what_nobody_was_reading_is_still_there() {
    let mut daemon = Daemon::start("adopt-kept", LENT);
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    publish(&mut writer, 0..100);
    let lineage = writer.geometry().lineage;
    drop(writer);
    daemon.die();
    daemon.come_back();
    assert!(daemon.log().contains("event=adopt channel=main "), "{}", daemon.log());
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    assert_eq!(reader.geometry().lineage, lineage);
    assert!((0..100).all(|n| number(&mut reader) == n));
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    publish(&mut writer, 100..200);
    assert!((100..200).all(|n| number(&mut reader) == n));
    assert_eq!(daemon.stat().messages, 200);
    drop(writer);
    assert_eq!(daemon.stop(), Some(0));
    assert!(!daemon.object("main").exists());
}

#[test]
fn a_reader_stays_and_the_next_writer_overwrites_nothing_that_it_has_not_read() {
    let mut daemon = Daemon::start("adopt-reader", LENT);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    publish(&mut writer, 0..1000);
    drop(writer);
    assert!((0..500).all(|n| number(&mut reader) == n));
    daemon.die();
    daemon.come_back();
    // Before the reader has said a word, and it says none before the writer is there: it may be stopped for a moment.
    let endpoint = daemon.endpoint();
    let publishing = thread::spawn(move || {
        let mut writer = Writer::attach(&endpoint, None).unwrap();
        publish(&mut writer, 1000..100_000);
        writer
    });
    wait_for(|| daemon.log().matches("event=lend").count() == 2, || daemon.log());
    assert!((500..100_000).all(|n| number(&mut reader) == n));
    drop(joined(publishing));
    assert!(daemon.log().contains("event=resume channel=main reader=1"), "{}", daemon.log());
    assert!(daemon.log().contains("event=move channel=main"), "{}", daemon.log());
    assert_eq!((reader.received(), reader.lost()), (100_000, 0));
    assert_eq!(daemon.stop(), Some(0));
    assert!(matches!(reader.recv(Some(PATIENCE)), Err(e) if e.to_string().contains("closed")));
    assert!(!daemon.object("main").exists());
}

#[test]
fn a_reader_that_came_back_in_time_costs_no_other_segment() {
    let mut daemon = Daemon::start("adopt-in-place", LENT);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    daemon.die();
    daemon.come_back();
    assert!(matches!(reader.recv(Some(Duration::from_millis(1500))), Err(e) if e.to_string().contains("timed out")));
    assert_eq!(daemon.stat().readers.len(), 1);
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    publish(&mut writer, 0..10);
    assert!((0..10).all(|n| number(&mut reader) == n));
    assert!(!daemon.log().contains("event=move"), "{}", daemon.log());
}

#[test]
fn a_reader_in_a_poll_loop_stays_on_one_descriptor() {
    let mut daemon = Daemon::start("adopt-poll", LENT);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let next = |reader: &mut Reader| loop {
        if let Some(message) = reader.try_recv().unwrap() {
            let seq = message.seq();
            message.finish().unwrap();
            return seq;
        }
        if reader.arm().unwrap() {
            poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
        }
    };
    for round in 0..3u64 {
        let endpoint = daemon.endpoint();
        let publishing = thread::spawn(move || {
            let mut writer = Writer::attach(&endpoint, None).unwrap();
            publish(&mut writer, round * 10..round * 10 + 10);
        });
        assert!((round * 10..round * 10 + 10).all(|n| next(&mut reader) == n));
        joined(publishing);
        daemon.die();
        // It finds nothing, and goes to sleep until the next attempt.
        assert!(reader.try_recv().unwrap().is_none() && reader.arm().unwrap());
        daemon.come_back();
        let readers = |reader: &mut Reader| {
            assert!(reader.try_recv().unwrap().is_none());
            let _ = reader.arm().unwrap();
        };
        wait_for(
            || {
                readers(&mut reader);
                daemon.stat().readers.len() == 1
            },
            || daemon.log(),
        );
        // And it sleeps as it did before.
        wait_for(
            || {
                readers(&mut reader);
                poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], PollTimeout::from(100u8)) == Ok(0)
            },
            || daemon.log(),
        );
    }
    assert_eq!(reader.received(), 30);
}

#[test]
fn a_reader_that_came_back_before_the_writer_is_woken() {
    let mut daemon = Daemon::start("adopt-woken", LENT);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    publish(&mut writer, 0..1);
    assert_eq!(number(&mut reader), 0);
    assert!(reader.arm().unwrap());
    daemon.die();
    daemon.come_back();
    let mut is_back = || reader.arm().unwrap() && daemon.stat().readers.len() == 1;
    wait_for(&mut is_back, || daemon.log());
    // It waits on a bell that it has from the new daemon, and the writer knows only the old one.
    assert!(reader.arm().unwrap());
    publish(&mut writer, 1..2);
    let mut is_back = || {
        writer.maintain().unwrap();
        daemon.stat().writer.is_some()
    };
    wait_for(&mut is_back, || daemon.log());
    writer.maintain().unwrap();
    let patience = PollTimeout::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], patience), Ok(1));
    assert_eq!(number(&mut reader), 1);
}

#[test]
fn a_writer_keeps_its_role_and_is_the_only_one() {
    let mut daemon = Daemon::start("adopt-writer", LENT);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    publish(&mut writer, 0..10);
    daemon.die();
    publish(&mut writer, 10..20);
    assert!((0..20).all(|n| number(&mut reader) == n), "it needs no daemon for that");
    daemon.come_back();
    let taken =
        daemon.refused(&Request::Publish { channel: None, program: None, layout: LAYOUT_VERSION, expect: None });
    assert!(taken.contains("has not come back; it may within"), "{taken}");
    daemon.await_writer(&mut writer);
    let taken =
        daemon.refused(&Request::Publish { channel: None, program: None, layout: LAYOUT_VERSION, expect: None });
    assert!(taken.contains("has borrowed the writer role"), "{taken}");
    // One that attaches now is served, and so is one that has not come back yet.
    let mut late = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap();
    publish(&mut writer, 20..30);
    assert!((20..30).all(|n| number(&mut late) == n) && (20..30).all(|n| number(&mut reader) == n));
    assert!(!daemon.log().contains("event=move"), "{}", daemon.log());
    assert_eq!(writer.readers(), 2);
    drop(writer);
    wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_writer_at_work_notices_both_and_lets_go_of_readers_that_died_meanwhile() {
    let mut daemon = Daemon::start("adopt-busy", &format!("{LENT}evict_after = \"0s\"\n"));
    let reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let end = std::sync::Arc::new(AtomicBool::new(false));
    let over = std::sync::Arc::clone(&end);
    daemon.die();
    // Nobody tells the writer that this reader is gone, and it has read nothing.
    drop(reader);
    let publishing = thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            writer.publish(&[0; 1000]).unwrap();
        }
        writer.messages()
    });
    daemon.come_back();
    wait_for(|| daemon.stat().writer.is_some_and(|_| daemon.stat().messages > 10_000), || daemon.log());
    end.store(true, Ordering::Relaxed);
    assert!(joined(publishing) > 10_000);
}

#[test]
fn a_source_goes_on_in_a_new_segment_and_its_reader_follows() {
    let mut daemon = Daemon::configured("adopt-source", "");
    let file = daemon.dir.join("file");
    fs::write(&file, "").unwrap();
    daemon.config = format!("{LENT}source = \"tail:{}\"\n", file.display());
    daemon.come_back();
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let append = |text: &str| {
        use std::io::Write;
        fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(text.as_bytes()).unwrap();
    };
    let mut bytes = Vec::new();
    for round in 0..3 {
        append(&format!("line {round}\n"));
        let received = reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        assert_eq!((received.seq, received.lost_before), (round, 0));
        assert_eq!(bytes, format!("line {round}").as_bytes());
        daemon.die();
        daemon.come_back();
    }
    assert_eq!(reader.lost(), 0);
}

#[test]
fn what_is_not_this_daemons_or_makes_no_sense_is_replaced_and_the_log_says_why() {
    let mut daemon = Daemon::start("adopt-not", LENT);
    let replaced = |daemon: &mut Daemon, change: &dyn Fn(&mut Daemon), why: &str| {
        publish(&mut Writer::attach(&daemon.endpoint(), None).unwrap(), 0..10);
        daemon.die();
        change(daemon);
        daemon.come_back();
        let log = daemon.log();
        let line = log.lines().rev().find(|line| line.contains("event=replace segment=")).unwrap_or(&log).to_owned();
        assert!(line.contains(why), "{line}");
        assert_eq!(daemon.stat().messages, 0);
    };
    replaced(&mut daemon, &|daemon| daemon.config = LENT.replace("1MiB", "2MiB"), "maximum capacity");
    let write = |at: u64| {
        move |daemon: &mut Daemon| {
            let file = fs::OpenOptions::new().write(true).open(daemon.object("main")).unwrap();
            file.write_all_at(&[0xa5; 8], at).unwrap();
        }
    };
    replaced(&mut daemon, &write(64), "of another boot");
    replaced(&mut daemon, &write(80), "another runtime directory");
    replaced(&mut daemon, &write(4096 + 56), "records are broken");
    replaced(&mut daemon, &write(256 + 64), "written over");
    replaced(&mut daemon, &write(120), "features");
    let leave = |daemon: &mut Daemon| {
        let file = fs::OpenOptions::new().write(true).open(daemon.object("main")).unwrap();
        note_unnamed(file.as_fd(), LEFT).unwrap();
    };
    replaced(&mut daemon, &leave, "marked as one that the channel has left");
    let cut = |daemon: &mut Daemon| {
        fs::OpenOptions::new().write(true).open(daemon.object("main")).unwrap().set_len(8192).unwrap();
    };
    replaced(&mut daemon, &cut, "capacity is 65536, there are 4096 bytes");
    // Another daemon with the same prefix, when this one is dead.
    daemon.die();
    let mut other = Daemon::configured("adopt-other", LENT);
    let own = std::mem::replace(&mut other.prefix, daemon.prefix.clone());
    other.come_back();
    assert!(other.log().contains("another runtime directory"), "{}", other.log());
    assert_eq!(other.stop(), Some(0));
    other.prefix = own;
}

#[test]
fn whoever_was_in_a_segment_that_was_replaced_is_told() {
    let mut daemon = Daemon::start("adopt-told", LENT);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    publish(&mut writer, 0..10);
    daemon.die();
    daemon.config = LENT.replace("1MiB", "2MiB");
    daemon.come_back();
    assert!((0..10).all(|n| number(&mut reader) == n), "what was published before can be read");
    wait_for(
        || matches!(reader.recv(Some(Duration::from_millis(10))), Err(e) if e.to_string().contains("is gone")),
        || daemon.log(),
    );
    wait_for(
        || matches!(writer.maintain(), Err(e) if e.to_string().contains("borrow the role again")),
        || daemon.log(),
    );
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    publish(&mut writer, 0..10);
    assert!((0..10).all(|n| number(&mut reader) == n));
}

#[test]
fn a_daemon_that_does_not_come_back_is_gone_after_a_while() {
    for patience in [Duration::ZERO, Duration::from_millis(200)] {
        let mut daemon = Daemon::start("adopt-gone", LENT);
        let endpoint = daemon.endpoint().with_patience(patience);
        let mut reader = Reader::attach(&endpoint, None, Start::Oldest).unwrap();
        daemon.die();
        let error = reader.recv(Some(PATIENCE)).map(|message| message.seq()).unwrap_err();
        assert!(error.to_string().contains("the daemon of channel main is gone"), "{error}");
        assert!(reader.is_disconnected());
    }
}

#[test]
fn what_is_left_of_a_channel_that_is_not_configured_any_more_is_removed_but_not_what_is_another_daemons() {
    const MAIN: &str = "[[channel]]\nname = \"main\"\n";
    let mut daemon = Daemon::start("adopt-orphan", &format!("{MAIN}[[channel]]\nname = \"other\"\n"));
    let mut reader = Reader::attach(&daemon.endpoint(), Some("other"), Start::New).unwrap();
    // With the same prefix, and a runtime directory of its own.
    let mut another = Daemon::configured("adopt-another", "[[channel]]\nname = \"another\"\n");
    another.prefix.clone_from(&daemon.prefix);
    another.run(&[]);
    another.await_ready();
    another.die();
    daemon.die();
    daemon.config = MAIN.to_owned();
    daemon.come_back();
    assert!(!daemon.object("other").exists() && daemon.object("another").exists(), "{}", daemon.log());
    assert!(daemon.log().contains("no channel has this name any more"), "{}", daemon.log());
    assert!(matches!(reader.recv(Some(PATIENCE)), Err(e) if e.to_string().contains("gone")));
    assert_eq!(daemon.stop(), Some(0));
    another.come_back();
    assert_eq!(another.stop(), Some(0));
    assert!(!another.object("another").exists());
}

#[test]
fn what_a_writer_wanted_while_there_was_no_daemon_it_asks_the_next_one_for() {
    let mut daemon = Daemon::start("adopt-asked", LENT);
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let large = vec![0; 200 << 10];
    daemon.die();
    let error = writer.publish_within(&large, Duration::from_millis(200)).unwrap_err();
    assert!(error.to_string().contains("timed out"), "{error}");
    daemon.come_back();
    assert_eq!(writer.publish_within(&large, PATIENCE).unwrap(), Some(0));
    assert!(daemon.stat().capacity > 200 << 10);
}
