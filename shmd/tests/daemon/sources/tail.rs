use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use super::super::{Daemon, wait_for};
use super::{next, refused};

const KEYS: &str = "source = \"tail:DIR/log.txt\"";

fn append(daemon: &Daemon) -> File {
    OpenOptions::new().append(true).create(true).open(daemon.path("log.txt")).unwrap()
}

#[test]
fn a_file_is_followed_from_its_end() {
    let mut daemon = Daemon::with_source("tail", KEYS);
    fs::write(daemon.path("log.txt"), "old\nhalf of ").unwrap();
    daemon.run(&[]);
    daemon.await_ready();
    let mut reader = daemon.reader();
    daemon.until_state("following");
    let mut file = append(&daemon);
    // The rest of a line whose beginning was there before is no message.
    file.write_all(b"a line\nnew\nto be con").unwrap();
    assert_eq!(next(&mut reader), "new");
    file.write_all(b"tinued\n").unwrap();
    assert_eq!(next(&mut reader), "to be continued");
    assert_eq!(daemon.input().errors, 0);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(daemon.path("log.txt").exists());
    daemon.assert_gone();
}

#[test]
fn a_file_that_is_not_there_is_waited_for_and_read_from_its_beginning() {
    let daemon = Daemon::fed("tail-absent", KEYS);
    daemon.until_state("waiting for the file");
    let mut reader = daemon.reader();
    append(&daemon).write_all(b"first\n").unwrap();
    assert_eq!(next(&mut reader), "first");
    daemon.until_state("following");
}

#[test]
fn nothing_is_lost_when_the_file_is_renamed_while_its_writer_goes_on() {
    let daemon = Daemon::with_source("tail-rename", KEYS);
    let mut old = append(&daemon);
    let mut daemon = daemon;
    daemon.run(&[]);
    daemon.await_ready();
    let mut reader = daemon.reader();
    let mut expected = 0;
    let mut number = 0;
    for rotation in 0..5 {
        let mut say = |file: &mut File, lines: u32| {
            for _ in 0..lines {
                writeln!(file, "{number}").unwrap();
                number += 1;
            }
        };
        say(&mut old, 100);
        fs::rename(daemon.path("log.txt"), daemon.path(&format!("log.{rotation}"))).unwrap();
        say(&mut old, 100);
        // Made by the rotation and not used yet.
        let mut new = append(&daemon);
        say(&mut old, 100);
        say(&mut new, 100);
        old = new;
        for _ in 0..400 {
            assert_eq!(next(&mut reader), expected.to_string());
            expected += 1;
        }
    }
    daemon.until_input(|input| input.messages == 2000);
}

#[test]
fn files_that_were_rotated_away_are_not_watched_any_more() {
    let daemon = Daemon::fed("tail-watches", KEYS);
    let mut reader = daemon.reader();
    let infos = PathBuf::from(format!("/proc/{}/fdinfo", daemon.child.as_ref().unwrap().id()));
    let watches = || {
        let infos = fs::read_dir(&infos).unwrap().filter_map(|info| fs::read_to_string(info.unwrap().path()).ok());
        infos.map(|info| info.matches("inotify wd:").count()).sum::<usize>()
    };
    for rotation in 0..5 {
        writeln!(append(&daemon), "{rotation}").unwrap();
        assert_eq!(next(&mut reader), rotation.to_string());
        wait_for(|| watches() == 1, || daemon.log());
        fs::rename(daemon.path("log.txt"), daemon.path(&format!("log.{rotation}"))).unwrap();
    }
}

#[test]
fn a_last_line_without_newline_is_a_message_when_the_file_is_rotated_or_deleted() {
    let daemon = Daemon::fed("tail-last", KEYS);
    let mut reader = daemon.reader();
    append(&daemon).write_all(b"one\ntwo").unwrap();
    assert_eq!(next(&mut reader), "one");
    fs::rename(daemon.path("log.txt"), daemon.path("log.1")).unwrap();
    append(&daemon).write_all(b"three\nfour").unwrap();
    assert_eq!([next(&mut reader), next(&mut reader)], ["two", "three"]);
    fs::remove_file(daemon.path("log.txt")).unwrap();
    assert_eq!(next(&mut reader), "four");
    daemon.until_state("waiting for the file");
    append(&daemon).write_all(b"five\n").unwrap();
    assert_eq!(next(&mut reader), "five");
}

#[test]
fn a_file_that_is_cut_is_read_from_its_beginning() {
    let daemon = Daemon::fed("tail-cut", KEYS);
    let mut reader = daemon.reader();
    let mut file = append(&daemon);
    file.write_all(b"a long line\nand another one\n").unwrap();
    assert_eq!([next(&mut reader), next(&mut reader)], ["a long line", "and another one"]);
    file.set_len(0).unwrap();
    file.write_all(b"new\n").unwrap();
    assert_eq!(next(&mut reader), "new");
    daemon.await_log(|log| log.contains("event=rewind channel=main"));
}

#[test]
fn a_line_that_is_too_long_is_counted_and_passed_over() {
    let daemon = Daemon::fed("tail-long", &format!("{KEYS}\nmax_message = 10"));
    let mut reader = daemon.reader();
    append(&daemon).write_all(b"one\nmuch longer than ten\ntwo\n").unwrap();
    assert_eq!([next(&mut reader), next(&mut reader)], ["one", "two"]);
    let input = daemon.until_input(|input| input.messages == 2);
    assert_eq!(input.errors, 1);
}

#[test]
fn what_is_no_regular_file_is_refused_and_one_that_becomes_none_is_waited_out() {
    let daemon = Daemon::with_source("tail-dir", KEYS);
    fs::create_dir(daemon.path("log.txt")).unwrap();
    let log = refused(daemon);
    assert!(log.contains("channel main, source tail") && log.contains("a directory and not a regular file"), "{log}");

    let daemon = Daemon::fed("tail-turns", KEYS);
    fs::create_dir(daemon.path("log.txt")).unwrap();
    daemon.until_state("cannot open it, trying again");
    wait_for(|| daemon.input().errors == 1, || daemon.log());
    fs::remove_dir(daemon.path("log.txt")).unwrap();
    let mut reader = daemon.reader();
    append(&daemon).write_all(b"x\n").unwrap();
    assert_eq!(next(&mut reader), "x");
    assert_eq!(daemon.input().errors, 1);
}
