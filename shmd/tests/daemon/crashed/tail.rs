//! A followed file goes on where the daemon that died had come to: no line is lost, and none comes twice.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use shm_proto::{Reader, Start};

use crate::{Daemon, PATIENCE, joined, wait_for};

/// How often a daemon is killed under load, if `SHMD_KILLS` does not say it.
const KILLS: u32 = 6;

fn path(daemon: &Daemon) -> PathBuf {
    daemon.dir.join("followed")
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// A daemon that follows an empty file.
fn following(name: &str, keys: &str) -> Daemon {
    let mut daemon = Daemon::configured(name, "");
    File::create(path(&daemon)).unwrap();
    let source = path(&daemon);
    daemon.config = format!(
        "[[channel]]\nname = \"main\"\ncapacity = \"64KiB\"\nmin = \"64KiB\"\nmax = \"1MiB\"\nsource = \"tail:{}\"\n{keys}",
        source.display()
    );
    daemon.come_back();
    daemon
}

fn next(daemon: &Daemon, reader: &mut Reader) -> String {
    let mut bytes = Vec::new();
    let received = reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap_or_else(|e| panic!("{e}: {}", daemon.log()));
    assert_eq!(received.lost_before, 0);
    String::from_utf8(bytes).unwrap()
}

/// Waits until the source has published or dropped this number of messages.
fn await_messages(daemon: &Daemon, messages: u64) {
    let done = || {
        let stat = daemon.stat();
        stat.messages + stat.dropped >= messages
    };
    wait_for(done, || daemon.log());
}

#[test]
fn what_is_written_while_there_is_no_daemon_is_published_by_the_next() {
    let mut daemon = following("crashed-tail", "");
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    // Half a line is read and not published.
    append(&path(&daemon), "0\n1\n2");
    assert_eq!((next(&daemon, &mut reader), next(&daemon, &mut reader)), ("0".to_owned(), "1".to_owned()));
    for round in 1..4 {
        daemon.die();
        append(&path(&daemon), &format!("{round}\nnext\nhal"));
        daemon.come_back();
        assert!(next(&daemon, &mut reader).ends_with(&round.to_string()));
        assert_eq!(next(&daemon, &mut reader), "next");
        append(&path(&daemon), "f");
    }
    append(&path(&daemon), "!\n");
    assert_eq!(next(&daemon, &mut reader), "half!");
    assert_eq!(daemon.stat().messages, 9);
    assert!(daemon.log().contains("reason=\"the daemon before this one had read to here\""), "{}", daemon.log());
    // A stop is no death: what is written then is not followed.
    assert_eq!(daemon.stop(), Some(0));
    append(&path(&daemon), "nobody\n");
    daemon.come_back();
    append(&path(&daemon), "somebody\n");
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    assert_eq!(next(&daemon, &mut reader), "somebody");
}

fn kill_again_and_again(name: &str, rotates: bool) {
    let kills = std::env::var("SHMD_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let mut daemon = following(name, "");
    let over = Arc::new(AtomicBool::new(false));
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let reading = thread::spawn(move || {
        let mut next_number = 0u64;
        let mut bytes = Vec::new();
        loop {
            match reader.recv_into(&mut bytes, Some(PATIENCE)) {
                Ok(received) => assert_eq!((received.seq, received.lost_before), (next_number, 0)),
                Err(error) => return (next_number, error.to_string()),
            }
            assert_eq!(String::from_utf8_lossy(&bytes), next_number.to_string());
            next_number += 1;
        }
    });
    let file = path(&daemon);
    let mut written = 0;
    for kill in 0..kills {
        over.store(false, Ordering::Relaxed);
        let writing = {
            let (file, over) = (file.clone(), Arc::clone(&over));
            thread::spawn(move || write_numbers_from(&file, written, rotates, &over))
        };
        sleep(Duration::from_millis(u64::from(kill * 37 % 90)));
        daemon.die();
        sleep(Duration::from_millis(u64::from(kill * 53 % 60)));
        over.store(true, Ordering::Relaxed);
        written = joined(writing);
        daemon.come_back();
        if rotates {
            await_messages(&daemon, written);
        }
        // A source goes on in a new segment each time, and a reader follows one move while it was away.
        wait_for(|| daemon.stat().readers.len() == 1, || daemon.log());
    }
    await_messages(&daemon, written);
    assert_eq!(daemon.stat().messages, written);
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(joined(reading), (written, "channel main is closed".to_owned()));
}

/// Writes numbers from `from` on, in pieces and many at once, and renames the file once on the way. Returns the next number.
fn write_numbers_from(path: &Path, from: u64, rotates: bool, over: &AtomicBool) -> u64 {
    let (mut n, mut rounds) = (from, 0u32);
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    while !over.load(Ordering::Relaxed) || rounds < 3 {
        let many: String = (n..n + n % 50 + 1).map(|n| format!("{n}\n")).collect();
        n += n % 50 + 1;
        let (begin, rest) = many.split_at(many.len() / 2);
        file.write_all(begin.as_bytes()).unwrap();
        sleep(Duration::from_micros(200));
        file.write_all(rest.as_bytes()).unwrap();
        rounds += 1;
        if rotates && rounds == 2 {
            fs::rename(path, path.with_extension("1")).unwrap();
            file = File::create(path).unwrap();
        }
    }
    n
}

#[test]
fn no_line_is_lost_or_comes_twice_while_the_daemon_dies_again_and_again() {
    kill_again_and_again("crashed-kills", false);
}

#[test]
fn no_line_is_lost_or_comes_twice_while_the_file_is_rotated_besides() {
    kill_again_and_again("crashed-rotate", true);
}

#[test]
fn a_line_that_was_dropped_is_not_published_after_all() {
    let mut daemon = following("crashed-drop", "on_full = \"drop\"\nevict_after = \"0s\"\n");
    // It reads nothing for now, so most does not fit.
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let (mut lines, mut taken, mut last) = (0u64, 0, None);
    let mut take = |reader: &mut Reader| {
        let Some(message) = reader.try_recv().unwrap() else { return 0 };
        assert_eq!(message.lost_before(), 0);
        let n: u64 = {
            let mut bytes = Vec::new();
            message.copy_to_vec(&mut bytes);
            String::from_utf8(bytes).unwrap().parse().unwrap()
        };
        message.finish().unwrap();
        assert!(last.is_none_or(|last| n > last), "{n} after {last:?}");
        last = Some(n);
        1
    };
    for _ in 0..3 {
        let more: String = (lines..lines + 3000).map(|n| format!("{n:0500}\n")).collect();
        lines += 3000;
        append(&path(&daemon), &more);
        await_messages(&daemon, lines - 1000);
        daemon.die();
        daemon.come_back();
        let mut is_back = || {
            taken += take(&mut reader);
            daemon.stat().readers.len() == 1
        };
        wait_for(&mut is_back, || daemon.log());
    }
    await_messages(&daemon, lines);
    let stat = daemon.stat();
    assert_eq!(stat.messages + stat.dropped, lines, "{stat:?}");
    assert!(stat.dropped > 0);
    wait_for(
        || {
            taken += take(&mut reader);
            taken == stat.messages
        },
        || daemon.log(),
    );
}

#[test]
fn a_line_that_is_too_long_is_passed_over_once() {
    let mut daemon = following("crashed-long", "max_message = \"1000\"\n");
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    append(&path(&daemon), &format!("one\n{}", "x".repeat(5000)));
    assert_eq!(next(&daemon, &mut reader), "one");
    daemon.await_log(|log| log.contains("event=source-error"));
    daemon.die();
    append(&path(&daemon), "yyy\ntwo\n");
    daemon.come_back();
    assert_eq!(next(&daemon, &mut reader), "two");
    assert_eq!(daemon.stat().messages, 2);
}

#[test]
fn a_file_that_was_cut_meanwhile_is_read_from_its_beginning() {
    let mut daemon = following("crashed-cut", "");
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    append(&path(&daemon), "one\ntwo\n");
    assert_eq!((next(&daemon, &mut reader), next(&daemon, &mut reader)), ("one".to_owned(), "two".to_owned()));
    daemon.die();
    fs::write(path(&daemon), "3\n").unwrap();
    daemon.come_back();
    assert_eq!(next(&daemon, &mut reader), "3");
    daemon.die();
    fs::remove_file(path(&daemon)).unwrap();
    append(&path(&daemon), "another file\n");
    daemon.come_back();
    assert_eq!(next(&daemon, &mut reader), "another file");
    // One that is waited for.
    daemon.die();
    fs::remove_file(path(&daemon)).unwrap();
    daemon.come_back();
    wait_for(
        || {
            assert!(reader.try_recv().unwrap().is_none());
            daemon.stat().readers.len() == 1
        },
        || daemon.log(),
    );
    daemon.die();
    append(&path(&daemon), "a third\n");
    daemon.come_back();
    assert_eq!(next(&daemon, &mut reader), "a third");
    assert_eq!(daemon.stat().messages, 5);
}
