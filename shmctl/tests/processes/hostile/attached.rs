//! Readers and lent writers that lie, scribble and talk out of turn.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::signal::Signal;
use shm_proto::internal::control::stat::ReaderState;
use shm_proto::internal::os::page::SharedPage;
use shm_proto::internal::ring::layout::{LAYOUT_VERSION, ReaderPage};
use shm_proto::{Client, Done, Request, Start};

use super::{connect, last_words};
use shm_test_support::{Daemon, PATIENCE, Raise};

#[test]
fn a_lent_writer_of_a_newer_release_keeps_the_role_whatever_else_it_says() {
    let daemon = Daemon::start("");
    let mut stream = connect(&daemon);
    stream.write_all(b"{\"v\":1,\"op\":\"publish\",\"layout\":2,\"wants\":[\"taken\"]}\n").unwrap();
    daemon.until_stat("it has the role", |stat| stat.writer.is_some());
    stream.write_all(b"{\"v\":1,\"event\":\"checkpoint\",\"at\":[7]}\n").unwrap();
    stream.write_all(b"{\"v\":1,\"event\":\"grow\",\"capacity\":2097152,\"urgent\":true}\n").unwrap();
    let stat = daemon.until_stat("the known line was carried out", |stat| stat.capacity == 2 << 20);
    assert!(stat.writer.is_some(), "{stat:?}");
}

#[test]
fn an_attached_reader_that_talks_out_of_turn_is_detached() {
    let daemon = Daemon::start("");
    let mut stream = connect(&daemon);
    stream.write_all(b"{\"v\":1,\"op\":\"attach\",\"layout\":2,\"program\":\"chatty\"}\n").unwrap();
    assert_eq!(daemon.until_stat("it is attached", |stat| stat.readers.len() == 1).readers[0].program, "chatty");
    stream.write_all(b"{\"v\":1,\"op\":\"stat\"}\n").unwrap();
    assert!(last_words(stream).contains("nothing to ask"));
    daemon.until_readers(0);
}

#[test]
fn a_lent_writer_that_sends_garbage_loses_the_role() {
    let daemon = Daemon::start("");
    let mut stream = connect(&daemon);
    stream.write_all(b"{\"v\":1,\"op\":\"publish\",\"layout\":2}\n").unwrap();
    daemon.until_stat("it has the role", |stat| stat.writer.is_some());
    stream.write_all(b"{\"v\":1,\"event\":\"shrunk\"}\n").unwrap();
    last_words(stream);
    daemon.until_stat("the role is free", |stat| stat.writer.is_none());
    daemon.write_lines("one\n");
}

#[test]
fn a_lent_writer_that_lies_about_sizes_and_readers_changes_nothing() {
    let daemon = Daemon::start("");
    let reader = daemon.spawn(&["read", "-n", "1"]);
    daemon.until_readers(1);
    let mut stream = connect(&daemon);
    stream.write_all(b"{\"v\":1,\"op\":\"publish\",\"layout\":2}\n").unwrap();
    daemon.until_stat("it has the role", |stat| stat.writer.is_some());
    for lie in [
        "{\"v\":1,\"event\":\"shrunk\",\"capacity\":0,\"id\":1,\"after\":0}\n",
        "{\"v\":1,\"event\":\"shrunk\",\"capacity\":18446744073709551615,\"id\":0,\"after\":18446744073709551615}\n",
        "{\"v\":1,\"event\":\"evicted\",\"reader\":4000000000,\"reason\":\"\\u001b[2J\\nevent=stop\"}\n",
        "{\"v\":1,\"event\":\"grow\",\"capacity\":0}\n",
        "{\"v\":1,\"event\":\"grow\",\"capacity\":18446744073709551615}\n",
        "{\"v\":1,\"event\":\"overflow\",\"dropped\":18446744073709551615,\"overwritten\":1}\n",
    ] {
        stream.write_all(lie.as_bytes()).unwrap();
    }
    daemon.let_pass(Duration::from_millis(100));
    let stat = daemon.stat();
    assert!(stat.capacity >= 1 << 20 && stat.capacity <= stat.max, "{stat:?}");
    assert_eq!((stat.readers.len(), stat.evicted, stat.dropped), (1, 0, 0), "{stat:?}");
    drop(stream);
    daemon.until_stat("the role is free", |stat| stat.writer.is_none());
    daemon.write_lines("one\n");
    assert_eq!(reader.wait().quiet().text(), "one\n");
}

#[test]
fn a_lent_writer_that_cuts_the_segment_off_does_not_take_the_daemon_with_it() {
    let daemon = Daemon::start("[[channel]]\nname = \"bad\"\n[[channel]]\nname = \"good\"\n");
    let mut client = Client::connect(&daemon.endpoint(), PATIENCE).unwrap();
    let request =
        Request::Publish { channel: Some("bad".parse().unwrap()), program: None, layout: LAYOUT_VERSION, expect: None };
    let (_, fds) = client.request_with_fds(&request).unwrap();
    nix::unistd::ftruncate(&fds[0], 0).unwrap();
    drop((client, fds));
    daemon.cli(&["resize", "--channel", "bad", "--bytes", "64KiB"]);
    daemon.cli(&["resize", "--channel", "bad", "--bytes", "2MiB"]);
    daemon.cli(&["stat", "--channel", "bad"]);
    daemon.let_pass(Duration::from_millis(1200));
    daemon.cli_with_input(&["write", "--channel", "good"], b"fine\n").quiet();
    let run = daemon.cli(&["read", "--channel", "good", "--from", "oldest", "-n", "1"]).quiet();
    assert_eq!(run.text(), "fine\n");
}

#[test]
fn a_reader_with_an_impossible_cursor_is_evicted_and_the_others_go_on() {
    for cursor in [u64::MAX - 1, 1 << 40, 3] {
        let mut daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\n");
        let mut honest = daemon.reader(Start::New);
        let mut client = Client::connect(&daemon.endpoint(), PATIENCE).unwrap();
        let request =
            Request::Attach { channel: None, program: Some("liar".into()), layout: LAYOUT_VERSION, expect: None };
        let (done, fds) = client.request_with_fds(&request).unwrap();
        let Done::Attach(attached) = done else { panic!("{done:?}") };
        let page: SharedPage<ReaderPage> = SharedPage::open(std::os::fd::AsFd::as_fd(&fds[1])).unwrap();
        let mut writer = daemon.writer();
        let mut bytes = Vec::new();
        for n in 0..20_000u32 {
            if n == 100 {
                page.line.cursor.store(cursor, Ordering::SeqCst);
            } else if n < 100 {
                page.line.cursor.store(0, Ordering::SeqCst);
            }
            writer.publish_within(&[n.to_le_bytes(); 8].concat(), PATIENCE).unwrap();
            honest.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
            assert_eq!(bytes[..4], n.to_le_bytes());
        }
        let stat = daemon.stat();
        assert_eq!(stat.evicted, 1, "cursor {cursor}: {stat:?}");
        let liar = stat.readers.iter().find(|reader| reader.reader == attached.reader).unwrap();
        assert_eq!(liar.state, ReaderState::Evicted);
        let log = daemon.stop(Signal::SIGTERM);
        assert_eq!(log.matches("event=evict ").count(), 1, "the fact is logged once\n{log}");
    }
}

#[test]
fn a_reader_that_scribbles_over_its_page_harms_only_itself() {
    let daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"300ms\"\n");
    let mut honest = daemon.reader(Start::New);
    let mut client = Client::connect(&daemon.endpoint(), PATIENCE).unwrap();
    let (_, fds) = client
        .request_with_fds(&Request::Attach { channel: None, program: None, layout: LAYOUT_VERSION, expect: None })
        .unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0u64.. {
                let bytes: Vec<u8> = (0..512).flat_map(|w| crate::content::mix(n * 512 + w).to_le_bytes()).collect();
                nix::sys::uio::pwrite(&fds[1], &bytes, 0).unwrap();
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let _stop = Raise(&stop);
        let mut writer = daemon.writer();
        let mut bytes = Vec::new();
        for n in 0..20_000u32 {
            writer.publish_within(&[n.to_le_bytes(); 8].concat(), PATIENCE).unwrap();
            honest.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
            assert_eq!(bytes[..4], n.to_le_bytes());
        }
        daemon.cli(&["stat"]).quiet();
    });
    assert_eq!(daemon.stat().evicted, 1);
}

#[test]
fn a_program_name_cannot_forge_a_line_in_the_log_or_command_a_terminal() {
    let mut daemon = Daemon::start("");
    let mut client = Client::connect(&daemon.endpoint(), PATIENCE).unwrap();
    let program = Some("\u{1b}[2Jx\nevent=forged".to_owned());
    client.request(&Request::Attach { channel: None, program, layout: LAYOUT_VERSION, expect: None }).unwrap();
    let text = daemon.cli(&["stat"]).quiet().text();
    assert!(!text.contains('\u{1b}') && !text.contains("\nevent="), "{text}");
    let log = daemon.stop(Signal::SIGTERM);
    assert!(!log.contains("\nevent=") && !log.contains('\u{1b}'), "{log}");
}
