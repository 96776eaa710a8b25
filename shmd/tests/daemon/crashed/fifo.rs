//! A FIFO that a program has open all the time: the next daemon begins to read where a message begins.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};

use shm_proto::{Reader, Start};

use crate::{Daemon, PATIENCE, wait_for};

fn fed(name: &str, keys: &str) -> Daemon {
    let mut daemon = Daemon::configured(name, "");
    let path = daemon.dir.join("in");
    daemon.config = format!("[[channel]]\nname = \"main\"\nsource = \"fifo:{}\"\n{keys}\n", path.display());
    daemon.come_back();
    daemon
}

fn open(daemon: &Daemon) -> File {
    OpenOptions::new().write(true).open(daemon.dir.join("in")).unwrap()
}

fn reader(daemon: &Daemon) -> Reader {
    Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap()
}

fn next(daemon: &Daemon, reader: &mut Reader) -> String {
    let mut bytes = Vec::new();
    let received = reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap_or_else(|e| panic!("{e}: {}", daemon.log()));
    assert_eq!(received.lost_before, 0);
    String::from_utf8(bytes).unwrap()
}

/// Writes this and waits until the daemon has read it and waits for more.
fn write(daemon: &Daemon, fifo: &mut File, bytes: &[u8]) {
    let before = daemon.stat().input.unwrap().bytes;
    // A daemon that has just started opens the FIFO when its readers are back.
    wait_for(
        || match fifo.write_all(bytes) {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => false,
            written => written.is_ok(),
        },
        || daemon.log(),
    );
    wait_for(|| daemon.stat().input.unwrap().bytes == before + bytes.len() as u64, || daemon.log());
    daemon.let_source_sleep();
}

impl Daemon {
    /// Waits until the source's thread has done what there is to do.
    fn let_source_sleep(&self) {
        let pid = self.child.as_ref().unwrap().id();
        let sleeps = || {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
            let mut source = tasks
                .filter(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|it| it.starts_with("source")));
            let stat = std::fs::read_to_string(source.next().unwrap().join("stat")).unwrap();
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
        };
        wait_for(sleeps, || self.log());
    }
}

#[test]
fn the_rest_of_a_line_whose_beginning_died_with_the_daemon_is_passed_over() {
    let mut daemon = fed("crashed-fifo", "");
    let (mut reader, mut fifo) = (reader(&daemon), open(&daemon));
    for round in 0..3 {
        write(&daemon, &mut fifo, format!("one {round}\nhal").as_bytes());
        assert_eq!(next(&daemon, &mut reader), format!("one {round}"));
        daemon.die();
        daemon.come_back();
        daemon.await_log(|log| log.matches("the daemon before this one died inside a message").count() == round + 1);
        write(&daemon, &mut fifo, b"f\ntwo\n");
        assert_eq!(next(&daemon, &mut reader), "two");
        assert_eq!(daemon.stat().input.unwrap().errors, 1);
        // Between two messages nothing is passed over.
        daemon.die();
        daemon.come_back();
        write(&daemon, &mut fifo, b"three\n");
        assert_eq!(next(&daemon, &mut reader), "three");
        assert_eq!(daemon.stat().input.unwrap().errors, 0);
    }
}

#[test]
fn who_opens_the_fifo_after_the_death_begins_anew() {
    let mut daemon = fed("crashed-fifo-new", "");
    let (mut reader, mut fifo) = (reader(&daemon), open(&daemon));
    write(&daemon, &mut fifo, b"one\nhal");
    assert_eq!(next(&daemon, &mut reader), "one");
    daemon.die();
    drop(fifo);
    daemon.come_back();
    open(&daemon).write_all(b"two\n").unwrap();
    assert_eq!(next(&daemon, &mut reader), "two");
}

#[test]
fn where_only_a_length_tells_where_the_next_message_begins_all_is_passed_over_until_the_writer_closes() {
    let mut daemon = fed("crashed-fifo-length", "framing = \"length\"");
    let (mut reader, mut fifo) = (reader(&daemon), open(&daemon));
    write(&daemon, &mut fifo, b"\x03\0\0\0one\x05\0\0\0hal");
    assert_eq!(next(&daemon, &mut reader), "one");
    daemon.die();
    daemon.come_back();
    write(&daemon, &mut fifo, b"f!\x01\0\0\0x");
    assert!(daemon.stat().input.unwrap().state.to_string().starts_with("skipping"));
    drop(fifo);
    wait_for(|| daemon.stat().input.unwrap().state.to_string().contains("waiting for a writer"), || daemon.log());
    open(&daemon).write_all(b"\x03\0\0\0two").unwrap();
    assert_eq!(next(&daemon, &mut reader), "two");
}
