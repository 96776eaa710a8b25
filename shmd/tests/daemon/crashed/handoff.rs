//! Handoff channels: the objects and the feed stay, what was on offer stays on offer, and readers and writers go on.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use shm_proto::internal::handoff::{self, Names, Settings};
use shm_proto::internal::ring::{HandoffNote, note_handoff, noted_handoff};
use shm_proto::{Attachment, HandoffReader, Request, Start, Writer};
use shm_test_support::in_child;

use crate::sizes::resize;
use crate::{Daemon, joined, soon, wait_for};

/// How often a daemon is killed, if `SHMD_KILLS` does not say it.
const KILLS: u32 = 4;
const CHANNEL: &str =
    "[[channel]]\nmode = \"handoff\"\ncapacity = 4096\nmin = 4096\nmax = \"8MiB\"\nack_timeout = \"60s\"\n";
const KIB: u64 = 1 << 10;

pub(crate) fn attach(daemon: &Daemon) -> Box<HandoffReader> {
    match Attachment::open(&daemon.endpoint(), None, Start::New).unwrap() {
        Attachment::Handoff(reader) => reader,
        Attachment::Ring(_) => panic!("it is a handoff channel"),
    }
}

/// Takes the next message without acknowledging it.
fn take(reader: &mut HandoffReader) -> String {
    let mut bytes = Vec::new();
    assert!(reader.recv_until(&mut bytes, soon()).unwrap().is_some(), "nothing comes");
    String::from_utf8(bytes).unwrap()
}

fn on_offer(daemon: &Daemon) -> bool {
    daemon.stat().handoff.is_some_and(|stat| stat.on_offer.is_some())
}

/// Publishes these messages, each of which has to be acknowledged.
pub(crate) fn publish(
    mut writer: Writer,
    messages: impl Iterator<Item = String> + Send + 'static,
) -> JoinHandle<Writer> {
    thread::spawn(move || {
        messages.for_each(|message| assert!(writer.publish(message.as_bytes()).unwrap().is_some()));
        writer
    })
}

/// Reads until the channel closes.
pub(crate) fn read(reader: Box<HandoffReader>) -> JoinHandle<Vec<String>> {
    read_and_count(reader, Arc::default())
}

/// The same, and counts the messages so far.
fn read_and_count(mut reader: Box<HandoffReader>, count: Arc<AtomicU64>) -> JoinHandle<Vec<String>> {
    thread::spawn(move || {
        let (mut bytes, mut seen) = (Vec::new(), Vec::new());
        loop {
            match reader.recv_until(&mut bytes, soon()) {
                Ok(Some(_)) => seen.push(String::from_utf8_lossy(&bytes).into_owned()),
                Ok(None) => panic!("nothing comes after {seen:?}"),
                Err(error) if error.to_string().contains("closed") => return seen,
                Err(error) => panic!("{error} after {seen:?}"),
            }
            reader.acknowledge();
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
}

/// That these are the numbers from 0 on, each once.
pub(crate) fn assert_numbers(seen: &[String], count: u64) {
    let wrong = seen.iter().zip(0u64..).find(|(seen, number)| **seen != number.to_string());
    assert!(wrong.is_none(), "{wrong:?}");
    assert_eq!(seen.len() as u64, count);
}

#[test]
fn what_was_on_offer_stays_on_offer_and_its_writer_goes_on() {
    let mut daemon = Daemon::start("crashed-handoff", CHANNEL);
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    for kill in 0..u64::from(KILLS) {
        // More than the segment of the handoff holds, and two that are alike.
        let messages = [format!("message {kill}"), "x".repeat(9000), "x".repeat(9000), String::new()];
        let writing = publish(writer, messages.clone().into_iter());
        wait_for(|| on_offer(&daemon), || daemon.log());
        daemon.die();
        daemon.come_back();
        assert!(daemon.log().contains("origin=adopted on_offer_bytes=9"), "{}", daemon.log());
        let mut reader = attach(&daemon);
        for message in messages {
            assert_eq!(take(&mut reader), message);
            reader.acknowledge();
        }
        writer = joined(writing);
        assert_eq!(daemon.stat().messages, 4 * (kill + 1));
    }
    drop(writer);
    assert!(!daemon.log().contains("event=replace segment="), "{}", daemon.log());
    assert_eq!(daemon.stat().handoff.map(|stat| stat.offered_again), Some(0), "nobody had taken a message");
    assert_eq!(daemon.stop(), Some(0));
}

/// A reader has the message in hand. Only its acknowledgement ends the message, whichever daemon hears it.
#[test]
fn what_a_reader_had_taken_is_over_when_it_acknowledges_and_not_before() {
    let mut daemon = Daemon::start("crashed-taken", CHANNEL);
    let mut reader = attach(&daemon);
    let writing = publish(Writer::attach(&daemon.endpoint(), None).unwrap(), (0..6).map(|n| n.to_string()));
    for n in 0..3 {
        assert_eq!(take(&mut reader), (2 * n).to_string());
        daemon.die();
        daemon.come_back();
        wait_for(|| on_offer(&daemon), || daemon.log());
        assert_eq!(daemon.stat().messages, 2 * n);
        reader.acknowledge();
        assert_eq!(take(&mut reader), (2 * n + 1).to_string());
        daemon.die();
        // Nobody hears it yet.
        reader.acknowledge();
        daemon.come_back();
        wait_for(|| daemon.stat().messages == 2 * n + 2, || daemon.log());
    }
    drop(joined(writing));
    assert_eq!(daemon.stat().handoff.map(|stat| (stat.offered_again, stat.stray_posts)), Some((0, 0)));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn what_is_in_the_feed_of_a_writer_that_died_with_the_daemon_is_handed_over_by_the_next() {
    let mut daemon = Daemon::start("crashed-feed", CHANNEL);
    let endpoint = daemon.endpoint();
    let child = in_child(move || {
        let mut writer = Writer::attach(&endpoint, None).unwrap();
        let mut batch = writer.batch();
        (0..50).for_each(|n| drop(batch.push(n.to_string().as_bytes())));
        batch.commit().is_err().into()
    });
    wait_for(|| on_offer(&daemon), || daemon.log());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.pid().cast_signed()), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    daemon.die();
    drop(child);
    daemon.come_back();
    let reading = read(attach(&daemon));
    wait_for(|| daemon.stat().messages == 50, || daemon.log());
    let writer = joined(publish(Writer::attach(&daemon.endpoint(), None).unwrap(), (50..60).map(|n| n.to_string())));
    drop(writer);
    assert_eq!(daemon.stop(), Some(0));
    assert_numbers(&joined(reading), 60);
}

#[test]
fn a_shrink_that_waits_and_what_was_counted_are_kept() {
    let mut daemon = Daemon::start("crashed-handoff-size", CHANNEL);
    let reader = attach(&daemon);
    daemon.ask(&Request::Evict { channel: None, reader: 1 }).unwrap();
    drop(reader);
    resize(&daemon, 64 * KIB);
    let writing = publish(Writer::attach(&daemon.endpoint(), None).unwrap(), ["0".to_owned()].into_iter());
    wait_for(|| on_offer(&daemon), || daemon.log());
    assert!(resize(&daemon, 8 * KIB).pending);
    for _ in 0..KILLS {
        daemon.die();
        daemon.come_back();
        wait_for(|| daemon.stat().pending == Some(8 * KIB), || daemon.log());
        assert_eq!((daemon.stat().capacity, daemon.stat().evicted), (64 * KIB, 1));
    }
    let mut reader = attach(&daemon);
    assert_eq!(take(&mut reader), "0");
    reader.acknowledge();
    drop(joined(writing));
    wait_for(|| daemon.stat().capacity == 8 * KIB && daemon.stat().pending.is_none(), || daemon.log());
    assert_eq!((daemon.stat().resizes, daemon.stat().messages), (2, 1));
    daemon.die();
    daemon.come_back();
    assert_eq!((daemon.stat().resizes, daemon.stat().messages, daemon.stat().bytes), (2, 1, 1));
}

#[test]
fn a_start_that_fails_leaves_what_it_has_adopted() {
    const RING: &str = "[[channel]]\nname = \"ring\"\n";
    let channels = format!("{}{RING}", CHANNEL.replace("mode", "name = \"main\"\nmode"));
    let mut daemon = Daemon::start("crashed-failed-start", &channels);
    let endpoint = daemon.endpoint();
    let writing = publish(Writer::attach(&endpoint, Some("main")).unwrap(), (0..3).map(|n| n.to_string()));
    let mut ring = Writer::attach(&endpoint, Some("ring")).unwrap();
    ring.publish(b"kept").unwrap();
    // The message on offer is in the segment.
    wait_for(
        || fs::read(daemon.object("main")).is_ok_and(|bytes| bytes[60] == b'0' || bytes[68] == b'0'),
        || daemon.log(),
    );
    daemon.die();
    daemon.config = format!("{channels}[[channel]]\nname = \"bad\"\nsource = \"fifo:/nothing/here\"\n");
    daemon.run(&[]);
    assert_eq!(daemon.wait(), Some(1));
    daemon.config = channels;
    daemon.come_back();
    let Attachment::Handoff(mut reader) = Attachment::open(&endpoint, Some("main"), Start::New).unwrap() else {
        panic!("it is a handoff channel");
    };
    for n in 0..3 {
        assert_eq!(take(&mut reader), n.to_string());
        reader.acknowledge();
    }
    drop(joined(writing));
    let mut reads = shm_proto::Reader::attach(&endpoint, Some("ring"), Start::Oldest).unwrap();
    let mut bytes = Vec::new();
    reads.recv_into(&mut bytes, Some(shm_test_support::PATIENCE)).unwrap();
    assert_eq!(bytes, b"kept");
    drop(ring);
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(shm_test_support::shared_memory(&daemon.prefix), Vec::<std::path::PathBuf>::new());
}

/// The connection of a program that has the writer role, to end it without the program's knowing.
fn link(writer: &Writer) -> UnixStream {
    UnixStream::from(writer.link_fd().unwrap().try_clone_to_owned().unwrap())
}

#[test]
fn what_was_handed_over_is_known_in_the_segment_that_the_feed_has_moved_to() {
    let mut daemon = Daemon::start("crashed-handoff-move", CHANNEL);
    let reading = read(attach(&daemon));
    let numbers = |from: u64| (from..from + 3).map(|n| n.to_string());
    let former = joined(publish(Writer::attach(&daemon.endpoint(), None).unwrap(), numbers(0)));
    // It can still write to the segment, so the next writer gets another one.
    link(&former).shutdown(Shutdown::Both).unwrap();
    wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
    let writer = joined(publish(Writer::attach(&daemon.endpoint(), None).unwrap(), numbers(3)));
    assert!(daemon.log().contains("event=move"), "{}", daemon.log());
    daemon.die();
    daemon.come_back();
    drop(joined(publish(writer, numbers(6))));
    assert_eq!(daemon.stop(), Some(0));
    assert_numbers(&joined(reading), 9);
}

#[test]
fn a_writer_that_cannot_serve_the_thread_loses_the_role_and_the_next_one_is_served() {
    let mut daemon = Daemon::start("handoff-refuses", CHANNEL);
    let reading = read(attach(&daemon));
    let refuses = Writer::attach(&daemon.endpoint(), None).unwrap();
    let line = "{\"v\":1,\"event\":\"refused\",\"reader\":0,\"reason\":\"no descriptors\"}\n";
    link(&refuses).write_all(line.as_bytes()).unwrap();
    wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
    drop(joined(publish(Writer::attach(&daemon.endpoint(), None).unwrap(), (0..3).map(|n| n.to_string()))));
    assert_eq!(daemon.stop(), Some(0));
    assert_numbers(&joined(reading), 3);
}

/// A program that was lent the role may have written it.
#[test]
fn a_note_of_a_message_that_the_feed_does_not_have_is_not_believed() {
    let mut daemon = Daemon::start("crashed-handoff-note", CHANNEL);
    let reading = read(attach(&daemon));
    drop(joined(publish(Writer::attach(&daemon.endpoint(), None).unwrap(), (0..5).map(|n| n.to_string()))));
    wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
    daemon.die();
    let feed = OpenOptions::new().read(true).write(true).open(daemon.object("main.feed")).unwrap();
    let noted = noted_handoff(feed.as_fd()).unwrap();
    assert_eq!((noted.number, noted.messages), (4, 5));
    note_handoff(feed.as_fd(), HandoffNote { number: u64::MAX, ..noted }).unwrap();
    daemon.come_back();
    // What it does not know of it hands over once more: the thread is not stuck.
    wait_for(|| daemon.stat().messages == 5, || daemon.log());
    assert_eq!(daemon.stop(), Some(0));
    let seen = joined(reading);
    assert_numbers(&seen[..5], 5);
    assert_numbers(&seen[5..], 5);
}

#[test]
fn a_message_that_another_writer_has_left_on_offer_is_none_of_the_feeds() {
    let mut daemon = Daemon::start("crashed-foreign", CHANNEL);
    let writing = publish(Writer::attach(&daemon.endpoint(), None).unwrap(), (0..2).map(|n| n.to_string()));
    wait_for(|| on_offer(&daemon), || daemon.log());
    daemon.die();
    let segment = format!("/{}.main", daemon.prefix);
    let names = Names::new(&segment, &format!("{segment}.avail"), &format!("{segment}.done")).unwrap();
    let child = in_child(|| {
        let Ok(mut other) = handoff::Writer::create(Settings::new(names)) else { return 1 };
        let offered = other.offer(b"other");
        // It ends here as if it were killed: nothing is withdrawn.
        std::mem::forget(other);
        offered.is_err().into()
    });
    assert_eq!(child.exit_code(), 0);
    daemon.come_back();
    let mut reader = attach(&daemon);
    for message in ["other", "0", "1"] {
        assert_eq!(take(&mut reader), message);
        reader.acknowledge();
    }
    drop(joined(writing));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_daemon_that_does_not_come_back_ends_its_writer_with_the_message_unacknowledged() {
    let mut daemon = Daemon::start("crashed-handoff-gone", CHANNEL);
    let endpoint = daemon.endpoint().with_patience(Duration::from_millis(200));
    let mut writer = Writer::attach(&endpoint, None).unwrap();
    daemon.die();
    let error = writer.publish(b"x").unwrap_err().to_string();
    assert!(
        error.contains("message 0 of channel main is published") && error.contains("the daemon is gone"),
        "{error}"
    );
    let error = writer.publish(b"y").unwrap_err().to_string();
    assert!(error.contains("the daemon is gone"), "{error}");
}

fn kills() -> u32 {
    std::env::var("SHMD_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS)
}

/// Kills the daemon again and again, after times that differ.
fn kill_again_and_again(daemon: &mut Daemon, mut then: impl FnMut(&Daemon)) {
    for kill in 0..kills() {
        thread::sleep(Duration::from_millis(u64::from(kill * 37 % 90)));
        daemon.die();
        thread::sleep(Duration::from_millis(u64::from(kill * 53 % 60)));
        daemon.come_back();
        then(daemon);
    }
}

#[test]
fn a_writer_and_a_reader_lose_and_double_nothing_while_the_daemon_dies_again_and_again() {
    let mut daemon = Daemon::start("crashed-handoff-kills", CHANNEL);
    let reading = read(attach(&daemon));
    let end = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&end);
    let numbers = (0u64..).take_while(move |_| !over.load(Ordering::Relaxed)).map(|n| n.to_string());
    let writing = publish(Writer::attach(&daemon.endpoint(), None).unwrap(), numbers);
    kill_again_and_again(&mut daemon, |daemon| {
        let before = daemon.stat().messages;
        wait_for(|| daemon.stat().messages > before, || daemon.log());
    });
    end.store(true, Ordering::Relaxed);
    drop(joined(writing));
    let published = daemon.stat().messages;
    assert_eq!(daemon.stop(), Some(0));
    assert_numbers(&joined(reading), published);
}

#[test]
fn a_followed_file_is_handed_over_line_by_line_while_the_daemon_dies_again_and_again() {
    let mut daemon = Daemon::configured("crashed-handoff-tail", "");
    let path = daemon.dir.join("followed");
    File::create(&path).unwrap();
    daemon.config = format!("{CHANNEL}source = \"tail:{}\"\n", path.display());
    daemon.come_back();
    let count = Arc::new(AtomicU64::new(0));
    let reading = read_and_count(attach(&daemon), Arc::clone(&count));
    let end = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&end);
    let appending = thread::spawn(move || {
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        let mut written = 0u64;
        while !over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
            // No further ahead than is soon read on any machine.
            if written > count.load(Ordering::Relaxed) + 2000 {
                continue;
            }
            let lines: String = (written..written + 100).map(|n| format!("{n}\n")).collect();
            file.write_all(lines.as_bytes()).unwrap();
            written += 100;
        }
        written
    });
    kill_again_and_again(&mut daemon, |_| ());
    end.store(true, Ordering::Relaxed);
    let written = joined(appending);
    wait_for(|| daemon.stat().messages == written, || daemon.log());
    assert_eq!(daemon.stop(), Some(0));
    assert_numbers(&joined(reading), written);
}
