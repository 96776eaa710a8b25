//! Lines that are late, too long, or make no sense.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{connect, last_words, refusal};
use shm_test_support::{Daemon, wait_until};

#[test]
fn a_silent_client_is_dropped_within_the_daemons_deadline_while_others_are_served() {
    let daemon = Daemon::start("");
    // How many others are served in the time of one silent client: on a machine where that is few, there are more clients.
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
        assert!(message.contains("no complete request within 5 s"), "{message}");
        assert!(began.elapsed() >= Duration::from_millis(4900), "it had its time");
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
    assert!(last_words(trickle).contains("no complete request within 5 s"));
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
