//! Clients and readers that misbehave: they lose their connection, and nobody else loses anything.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use shm_proto::internal::control::stat::ReaderState;
use shm_proto::internal::os::page::SharedPage;
use shm_proto::internal::ring::layout::ReaderPage;
use shm_proto::{Client, Done, Reader, Request, Start};

use crate::common::{Daemon, PATIENCE, Raise, User, skip_without_root, wait_until};
use crate::helpers;

fn connect(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(daemon.place.run_dir().join("shmd.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Everything up to the end of the connection, which the daemon has to bring about.
#[track_caller]
fn last_words(mut stream: UnixStream) -> String {
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Ok(_) => {}
        // What we had sent was not read any more.
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        Err(e) => panic!("the connection stays open: {e}"),
    }
    String::from_utf8(text).unwrap()
}

#[track_caller]
fn refusal(line: &str) -> (String, String) {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
    assert_eq!(value["v"], 1, "{line}");
    let text = |key: &str| value["error"][key].as_str().unwrap_or_else(|| panic!("no {key} in {line}")).to_owned();
    (text("kind"), text("message"))
}

#[test]
fn a_silent_client_is_dropped_within_the_daemons_deadline_while_others_are_served() {
    let daemon = Daemon::start("");
    // How many others are served in the second of one silent client: on a machine where that is few, there are more seconds.
    let served = || {
        let silent = connect(&daemon);
        let began = Instant::now();
        let words = std::thread::spawn(move || last_words(silent));
        let mut served = 0;
        while !words.is_finished() {
            daemon.stat();
            served += 1;
        }
        let (kind, message) = refusal(&words.join().unwrap());
        assert_eq!(kind, "bad_request");
        assert!(message.contains("no complete request within 1 s"), "{message}");
        assert!(began.elapsed() >= Duration::from_millis(900), "it had its second");
        served
    };
    assert!((0..30).any(|_| served() > 10), "nobody is served while a client is silent");
    daemon.until_log("event=dismiss pid=");
}

#[test]
fn half_a_line_and_a_byte_now_and_then_buy_no_time() {
    let daemon = Daemon::start("");
    let mut trickle = connect(&daemon);
    trickle.write_all(b"{\"v\":1,").unwrap();
    // Until the daemon has had enough; the test's guard is what ends it otherwise.
    wait_until("the connection is closed", || {
        std::thread::sleep(Duration::from_millis(50));
        trickle.write_all(b" ").is_err()
    });
    assert!(last_words(trickle).contains("no complete request within 1 s"));
    daemon.stat();
}

#[test]
fn half_a_line_and_a_hangup_are_forgotten() {
    let daemon = Daemon::start("");
    for _ in 0..50 {
        let mut half = connect(&daemon);
        half.write_all(b"{\"v\":1,\"op\":\"sta").unwrap();
    }
    let mut half = connect(&daemon);
    half.write_all(b"{\"v\":1,\"op\":").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    assert_eq!(last_words(half), "");
    daemon.stat();
}

#[test]
fn garbage_is_answered_with_what_is_wrong_and_the_end_of_the_connection() {
    let daemon = Daemon::start("");
    for garbage in [
        b"hello\n".as_slice(),
        b"GET / HTTP/1.1\r\n",
        b"\n",
        b"{}\n",
        b"{\"v\":1}\n",
        b"{\"v\":1,\"op\":[7]}\n",
        b"{\"v\":1,\"op\":\"resize\",\"bytes\":-1}\n",
        b"{\"v\":1,\"op\":\"resize\",\"bytes\":1e99}\n",
        b"{\"v\":1,\"op\":\"stat\",\"channel\":\"../../etc\"}\n",
        b"{\"v\":1,\"op\":\"stat\",\"channel\":7}\n",
        b"\xff\xfe\x00\x80\n",
        b"\0\0\0\0\n",
        b"[[[[[[[[[[[[[[[[[[[[[[[[\n",
    ] {
        let mut stream = connect(&daemon);
        stream.write_all(garbage).unwrap();
        let (kind, message) = refusal(&last_words(stream));
        assert_eq!(kind, "bad_request", "{message}");
        assert!(!message.is_empty() && !message.contains('\x1b'));
    }
    let nested = format!("{{\"v\":1,\"op\":{}}}\n", "[".repeat(60_000));
    let mut stream = connect(&daemon);
    stream.write_all(nested.as_bytes()).unwrap();
    refusal(&last_words(stream));
    daemon.stat();
}

#[test]
fn a_request_of_a_newer_client_is_refused_and_the_connection_stays_usable() {
    let daemon = Daemon::start("");
    let mut stream = connect(&daemon);
    stream.write_all(b"{\"v\":1,\"op\":\"fl\\u001by\",\"to\":{\"x\":[1]}}\n").unwrap();
    stream.write_all(b"{\"v\":1,\"op\":\"ping\",\"why\":[2]}\n{\"v\":1,\"op\":\"list\"}\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let words = last_words(stream);
    let lines: Vec<&str> = words.lines().collect();
    let (kind, message) = refusal(lines[0]);
    assert_eq!(kind, "bad_request");
    assert!(message.contains("\"fl?y\"") && message.contains("ping, list"), "{message}");
    assert!(lines[1].contains("\"ping\"") && lines[2].contains("\"list\"") && lines.len() == 3, "{words}");
}

#[test]
fn a_lent_writer_of_a_newer_release_keeps_the_role_whatever_else_it_says() {
    let daemon = Daemon::start("");
    let mut stream = connect(&daemon);
    stream.write_all(b"{\"v\":1,\"op\":\"publish\",\"wants\":[\"taken\"]}\n").unwrap();
    daemon.until_stat("it has the role", |stat| stat.writer.is_some());
    stream.write_all(b"{\"v\":1,\"event\":\"checkpoint\",\"at\":[7]}\n").unwrap();
    stream.write_all(b"{\"v\":1,\"event\":\"grow\",\"capacity\":2097152,\"urgent\":true}\n").unwrap();
    let stat = daemon.until_stat("the known line was carried out", |stat| stat.capacity == 2 << 20);
    assert!(stat.writer.is_some(), "{stat:?}");
}

#[test]
fn another_version_is_told_which_one_is_spoken() {
    let daemon = Daemon::start("");
    let mut stream = connect(&daemon);
    stream.write_all(b"{\"v\":2,\"op\":\"ping\"}\n").unwrap();
    let (kind, message) = refusal(&last_words(stream));
    assert_eq!(kind, "bad_version");
    assert!(message.contains("version 2") && message.contains('1'), "{message}");
}

#[test]
fn a_line_over_64_kib_is_refused_and_one_of_just_that_size_is_not() {
    let daemon = Daemon::start("");
    let line = |bytes: usize| {
        let mut line = b"{\"v\":1,\"op\":\"ping\",\"x\":\"".to_vec();
        line.resize(bytes - 3, b'a');
        line.extend(b"\"}\n");
        line
    };
    let mut longest = connect(&daemon);
    longest.write_all(&line(64 << 10)).unwrap();
    let mut answer = [0; 20];
    longest.read_exact(&mut answer).unwrap();
    assert!(answer.starts_with(b"{\"v\":1,\"ok\":{\"ping\""), "{}", String::from_utf8_lossy(&answer));
    for bytes in [(64 << 10) + 1, 200 << 10] {
        let mut stream = connect(&daemon);
        // The daemon may have closed before everything was sent.
        let _ = stream.write_all(&line(bytes));
        let words = last_words(stream);
        if !words.is_empty() {
            let (kind, message) = refusal(&words);
            assert_eq!(kind, "bad_request");
            assert!(message.contains("65536"), "{message}");
        }
    }
    // Without any newline at all.
    let mut stream = connect(&daemon);
    wait_until("the connection is closed", || stream.write_all(&[b'a'; 4096]).is_err());
    daemon.stat();
}

#[test]
fn several_requests_on_one_connection_are_answered_in_order() {
    let daemon = Daemon::start("");
    let mut stream = connect(&daemon);
    stream.write_all(b"{\"v\":1,\"op\":\"ping\"}\n{\"v\":1,\"op\":\"list\"}\n{\"v\":1,\"op\":\"stat\"}\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let words = last_words(stream);
    let lines: Vec<Value> = words.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (line, key) in lines.iter().zip(["ping", "list", "stat"]) {
        assert!(line["ok"].get(key).is_some(), "{line}");
    }
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["ok"]["ping"]["pid"], daemon.pid());
}

#[test]
fn a_client_that_asks_and_never_reads_is_cut_off_while_others_are_served() {
    let daemon = Daemon::start("");
    let mut greedy = connect(&daemon);
    greedy.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let requests = b"{\"v\":1,\"op\":\"stat\"}\n".repeat(1000);
    wait_until("the daemon has given it up", || match greedy.write(&requests) {
        Ok(_) => false,
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            daemon.stat();
            false
        }
        Err(_) => true,
    });
    daemon.until_log("does not read");
    daemon.stat();
}

#[test]
fn an_attached_reader_that_talks_out_of_turn_is_detached() {
    let daemon = Daemon::start("");
    let mut stream = connect(&daemon);
    stream.write_all(b"{\"v\":1,\"op\":\"attach\",\"program\":\"chatty\"}\n").unwrap();
    assert_eq!(daemon.until_stat("it is attached", |stat| stat.readers.len() == 1).readers[0].program, "chatty");
    stream.write_all(b"{\"v\":1,\"op\":\"stat\"}\n").unwrap();
    assert!(last_words(stream).contains("nothing to ask"));
    daemon.until_readers(0);
}

#[test]
fn a_lent_writer_that_sends_garbage_loses_the_role() {
    let daemon = Daemon::start("");
    let mut stream = connect(&daemon);
    stream.write_all(b"{\"v\":1,\"op\":\"publish\"}\n").unwrap();
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
    stream.write_all(b"{\"v\":1,\"op\":\"publish\"}\n").unwrap();
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
    let request = Request::Publish { channel: Some("bad".parse().unwrap()), program: None };
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
fn more_connections_than_the_daemon_takes_are_turned_away_and_counted() {
    let setup = crate::common::Setup::new("max_clients = 20\n[[channel]]\nname = \"main\"\n");
    let daemon = setup.start();
    let reader = daemon.spawn(&["read", "-n", "1"]);
    daemon.until_readers(1);
    let held: Vec<_> = (0..40).map(|_| connect(&daemon)).collect();
    let words: Vec<_> = held.into_iter().map(last_words).collect();
    let turned_away = words.iter().filter(|words| words.contains("max_clients = 20")).count();
    assert!(turned_away >= 20, "{turned_away} were turned away");
    for line in &words {
        refusal(line);
    }
    daemon.until_log("event=turned-away");
    daemon.write_lines("one\n");
    reader.wait().quiet();
}

#[test]
fn the_command_line_says_75_when_the_daemon_has_no_place_left() {
    let setup = crate::common::Setup::new("max_clients = 3\n[[channel]]\nname = \"main\"\n");
    let daemon = setup.start();
    // A connection that has ended counts until the daemon has seen that.
    let attach = || crate::common::wait_for("a place", || Reader::attach(&daemon.endpoint(), None, Start::New).ok());
    let mut readers = [attach(), attach(), attach()];
    daemon.cli(&["stat"]).fails(75, &["3 connections", "max_clients = 3"]);
    daemon.cli(&["read"]).fails(75, &["3 connections", "max_clients = 3"]);
    for reader in &mut readers {
        assert!(reader.try_recv().unwrap().is_none());
    }
    drop(readers);
    wait_until("a place is free", || daemon.cli(&["list"]).code == Some(0));
}

#[test]
fn a_user_who_hogs_connections_leaves_room_for_others() {
    if skip_without_root("a_user_who_hogs_connections_leaves_room_for_others") {
        return;
    }
    let setup = crate::common::Setup::new("max_clients = 20\n[[channel]]\nname = \"main\"\n");
    let daemon = setup.start();
    let hog = User { uid: 61_300, gid: 61_300 };
    let mut hog = helpers::start_as(hog, &daemon, "hog", &["40"]);
    hog.until_err_has("holding 40");
    for _ in 0..20 {
        daemon.cli(&["stat"]).quiet();
    }
    daemon.write_lines("one\n");
    assert_eq!(daemon.cli(&["read", "--from", "oldest", "-n", "1"]).quiet().text(), "one\n");
    assert!(hog.is_running());
}

#[test]
fn a_reader_with_an_impossible_cursor_is_evicted_and_the_others_go_on() {
    for cursor in [u64::MAX - 1, 1 << 40, 3] {
        let mut daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\n");
        let mut honest = daemon.reader(Start::New);
        let mut client = Client::connect(&daemon.endpoint(), PATIENCE).unwrap();
        let request = Request::Attach { channel: None, program: Some("liar".into()) };
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
    let (_, fds) = client.request_with_fds(&Request::Attach { channel: None, program: None }).unwrap();
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
    client.request(&Request::Attach { channel: None, program }).unwrap();
    let text = daemon.cli(&["stat"]).quiet().text();
    assert!(!text.contains('\u{1b}') && !text.contains("\nevent="), "{text}");
    let log = daemon.stop(Signal::SIGTERM);
    assert!(!log.contains("\nevent=") && !log.contains('\u{1b}'), "{log}");
}
