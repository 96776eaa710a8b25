//! `flush`: a chunk that is not full is published after its time, by every source that cuts chunks.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use super::super::{Daemon, wait_for};
use super::next;

const KEYS: &str = "framing = \"chunk=4\"\nflush = \"20ms\"";

#[test]
fn a_fifo_publishes_what_has_come_and_what_is_left_at_its_end() {
    let daemon = Daemon::fed("flush-fifo", &format!("source = \"fifo:DIR/in\"\n{KEYS}"));
    let mut reader = daemon.reader();
    let mut fifo = OpenOptions::new().write(true).open(daemon.path("in")).unwrap();
    for (bytes, messages) in [(&b"ab"[..], &["ab"][..]), (b"c", &["c"]), (b"defgh", &["defg", "h"])] {
        fifo.write_all(bytes).unwrap();
        for message in messages {
            assert_eq!(next(&mut reader), *message);
        }
    }
    // The end does not wait for the time, and a part is no error.
    fifo.write_all(b"i").unwrap();
    drop(fifo);
    assert_eq!(next(&mut reader), "i");
    assert_eq!(daemon.until_state("waiting for a writer").errors, 0, "{}", daemon.log());
    let mut fifo = OpenOptions::new().write(true).open(daemon.path("in")).unwrap();
    fifo.write_all(b"jklm").unwrap();
    assert_eq!(next(&mut reader), "jklm");
}

#[test]
fn a_chunk_that_is_longer_than_a_read_in_place_is_published_in_part_too() {
    let keys = "source = \"fifo:DIR/in\"\nframing = \"chunk=1MiB\"\nflush = \"20ms\"";
    let daemon = Daemon::fed("flush-large", keys);
    let mut reader = daemon.reader();
    let mut fifo = OpenOptions::new().write(true).open(daemon.path("in")).unwrap();
    let mut parts = Vec::new();
    for part in [&b"one"[..], &[b'x'; 60_000], b"three"] {
        fifo.write_all(part).unwrap();
        // It may take several messages: nobody knows when the bytes come.
        let mut got = String::new();
        while got.len() < part.len() {
            got += &next(&mut reader);
        }
        parts.push(got.into_bytes());
    }
    assert_eq!(parts, [b"one".to_vec(), vec![b'x'; 60_000], b"three".to_vec()]);
}

#[test]
fn each_client_of_a_socket_has_its_own_time() {
    let daemon = Daemon::fed("flush-unix", &format!("source = \"unix:DIR/in\"\n{KEYS}"));
    let mut reader = daemon.reader();
    let connect = || UnixStream::connect(daemon.path("in")).unwrap();
    let [mut one, mut two] = [connect(), connect()];
    daemon.until_state("listening, 2 clients");
    one.write_all(b"1").unwrap();
    two.write_all(b"2222").unwrap();
    let mut heard = [next(&mut reader), next(&mut reader)];
    heard.sort();
    assert_eq!(heard, ["1", "2222"]);
    one.write_all(b"11").unwrap();
    assert_eq!(next(&mut reader), "11");
    two.write_all(b"2").unwrap();
    drop(two);
    assert_eq!(next(&mut reader), "2");
    assert_eq!(daemon.until_state("listening, 1 client ").errors, 0, "{}", daemon.log());
}

#[test]
fn programs_and_standard_input_are_flushed_too() {
    let mut daemon = Daemon::with_source("flush-exec", &format!("source = \"exec:DIR/script\"\n{KEYS}"));
    let script = daemon.path("script");
    fs::write(&script, "#!/bin/sh\nprintf ab\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    daemon.run(&[]);
    daemon.await_ready();
    assert_eq!(next(&mut daemon.reader()), "ab");
    drop(daemon);

    let mut daemon = Daemon::with_source("flush-stdin", &format!("source = \"stdin\"\n{KEYS}"));
    daemon.run(&[]);
    daemon.await_ready();
    let mut reader = daemon.reader();
    daemon.feed(b"abcde");
    assert_eq!([next(&mut reader), next(&mut reader)], ["abcd", "e"]);
}

#[test]
fn a_chunk_that_has_begun_goes_to_the_next_program_and_is_published_there() {
    // So long that only the end of the client can publish it before.
    let keys = "source = \"unix:DIR/in\"\nframing = \"chunk=8\"\nflush = \"1h\"";
    let daemon = Daemon::fed("flush-reexec", keys);
    let mut reader = daemon.reader();
    let mut client = UnixStream::connect(daemon.path("in")).unwrap();
    client.write_all(b"abc").unwrap();
    daemon.until_input(|input| input.bytes == 3);
    daemon.ask(&shm_proto::Request::Reexec).unwrap();
    wait_for(|| daemon.log().contains("event=reexec "), || daemon.log());
    client.write_all(b"defghij").unwrap();
    assert_eq!(next(&mut reader), "abcdefgh");
    drop(client);
    assert_eq!(next(&mut reader), "ij");
}
