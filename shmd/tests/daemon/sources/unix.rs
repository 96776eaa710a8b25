use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::signal::Signal;
use shm_proto::Request;
use shm_proto::internal::control::stat::SourceKind;

use super::super::{Daemon, PATIENCE, joined, wait_for};
use super::{next, refused};

const KEYS: &str = "source = \"unix:DIR/in\"";

fn connect(daemon: &Daemon) -> UnixStream {
    let socket = UnixStream::connect(daemon.path("in")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

impl Daemon {
    /// Memory of the process that nobody shares, in bytes.
    fn own_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.as_ref().unwrap().id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }
}

/// Whether the daemon closes the connection.
fn is_closed(mut socket: UnixStream) -> bool {
    // Closed with bytes unread it is a reset.
    !matches!(socket.read(&mut [0]), Ok(1..)) && socket.take_error().is_ok()
}

#[test]
fn clients_that_speak_in_turns_are_not_mixed() {
    let mut daemon = Daemon::fed("unix", KEYS);
    let mut reader = daemon.reader();
    let mut clients: Vec<UnixStream> = (0..10).map(|_| connect(&daemon)).collect();
    for round in 0..5 {
        // Every line in three parts, between which everybody else speaks.
        for (number, client) in clients.iter_mut().enumerate() {
            write!(client, "{number} ").unwrap();
        }
        daemon.until_state("listening, 10 clients of 128");
        for client in &mut clients {
            client.write_all(b"says ").unwrap();
        }
        for client in &mut clients {
            writeln!(client, "{round}").unwrap();
        }
        let mut heard: Vec<String> = (0..10).map(|_| next(&mut reader)).collect();
        heard.sort();
        let expected: Vec<String> = (0..10).map(|number| format!("{number} says {round}")).collect();
        assert_eq!(heard, expected);
    }
    clients[0].write_all(b"last words").unwrap();
    clients.clear();
    assert_eq!(next(&mut reader), "last words");
    let input = daemon.until_state("listening, 0 clients of 128");
    assert_eq!((input.kind, input.messages, input.errors), (SourceKind::Unix, 51, 0));
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(!daemon.path("in").exists());
    daemon.assert_gone();
}

#[test]
fn a_client_with_bad_framing_is_dropped_counted_and_named_and_the_others_notice_nothing() {
    let daemon = Daemon::fed("unix-bad", &format!("{KEYS}\nframing = \"length\"\nmax_message = 1000"));
    let mut reader = daemon.reader();
    let mut good = connect(&daemon);
    good.write_all(b"\x04\0\0\0ha").unwrap();
    let mut long = connect(&daemon);
    long.write_all(b"\xff\xff\0\0some of it").unwrap();
    assert!(is_closed(long));
    let mut short = connect(&daemon);
    short.write_all(b"\x09\0\0\0short").unwrap();
    short.shutdown(Shutdown::Write).unwrap();
    assert!(is_closed(short));
    daemon.until_input(|input| input.errors == 2 && input.state.to_string().contains("1 client "));
    good.write_all(b"lf\x05\0\0\0whole").unwrap();
    assert_eq!([next(&mut reader), next(&mut reader)], ["half", "whole"]);
    let (log, pid) = (daemon.log(), std::process::id());
    assert!(log.contains(&format!("event=source-error channel=main errors=1 pid={pid} user=")), "{log}");
    assert!(log.contains("65535 bytes is over the channel's limit of 1000 bytes"), "{log}");
    assert!(log.contains("the input ends after 5 of 9 bytes"), "{log}");
}

#[test]
fn large_messages_of_many_clients_arrive_whole() {
    let daemon = Daemon::fed("unix-large", &format!("{KEYS}\nframing = \"length\"\nmax_message = \"4MiB\""));
    let mut reader = daemon.reader();
    const ROUNDS: usize = 20;
    let sending: Vec<_> = (0..4u8)
        .map(|number| {
            let mut client = connect(&daemon);
            std::thread::spawn(move || {
                for round in 0..ROUNDS {
                    let len = 1 + (round * 77_777 + usize::from(number) * 13) % 1_000_000;
                    let mut record = u32::try_from(len).unwrap().to_le_bytes().to_vec();
                    record.resize(4 + len, number);
                    client.write_all(&record).unwrap();
                }
            })
        })
        .collect();
    let mut rounds = HashMap::new();
    let mut bytes = Vec::new();
    for _ in 0..4 * ROUNDS {
        reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        let number = bytes[0];
        assert!(bytes.iter().all(|&byte| byte == number));
        let round: &mut usize = rounds.entry(number).or_default();
        assert_eq!(bytes.len(), 1 + (*round * 77_777 + usize::from(number) * 13) % 1_000_000);
        *round += 1;
    }
    sending.into_iter().for_each(joined);
    assert_eq!(daemon.input().errors, 0);
}

#[test]
fn a_hundred_clients_come_and_go_and_those_over_the_limit_are_closed() {
    let daemon = Daemon::fed("unix-many", KEYS);
    let mut reader = daemon.reader();
    for round in 0..5 {
        let clients: Vec<UnixStream> = (0..100).map(|_| connect(&daemon)).collect();
        for mut client in &clients {
            writeln!(client, "{round}").unwrap();
        }
        for _ in 0..100 {
            assert_eq!(next(&mut reader), round.to_string());
        }
        drop(clients);
        daemon.until_state("listening, 0 clients");
    }
    let held: Vec<UnixStream> = (0..128).map(|_| connect(&daemon)).collect();
    daemon.until_state("listening, 128 clients of 128");
    assert!(is_closed(connect(&daemon)));
    let input = daemon.until_input(|input| input.errors == 1);
    assert!(input.last_error.unwrap().contains("128 are connected, the most the source accepts"));
    writeln!(&held[127], "still here").unwrap();
    assert_eq!(next(&mut reader), "still here");
    let mut reader = None;
    drop(held);
    daemon.until_state("listening, 0 clients");
    writeln!(connect(&daemon), "again").unwrap();
    reader.get_or_insert_with(|| daemon.reader());
    daemon.until_input(|input| input.messages == 502);
}

#[test]
fn clients_that_come_faster_than_the_others_are_seen_to_go_are_all_heard() {
    let daemon = Daemon::fed("unix-churn", KEYS);
    for number in 0..2000 {
        // It speaks and goes before the daemon has looked.
        connect(&daemon).write_all(format!("{number}\n").as_bytes()).unwrap();
    }
    let input = daemon.until_input(|input| input.messages == 2000);
    assert_eq!(input.errors, 0, "{:?}", input.last_error);
}

#[test]
fn a_claimed_length_takes_no_memory_and_holds_nobody_up() {
    let keys = format!("{KEYS}\nframing = \"length\"\ncapacity = \"64KiB\"\non_full = \"overwrite\"");
    let daemon = Daemon::fed("unix-claim", &keys);
    let before = daemon.own_memory();
    let claims: Vec<UnixStream> = (0..50)
        .map(|_| {
            let mut client = connect(&daemon);
            client.write_all(&(200u32 << 20).to_le_bytes()).unwrap();
            client.write_all(&[0; 1000]).unwrap();
            client
        })
        .collect();
    let mut reader = daemon.reader();
    daemon.until_state("listening, 50 clients");
    connect(&daemon).write_all(b"\x02\0\0\0me").unwrap();
    assert_eq!(next(&mut reader), "me");
    daemon.until_input(|input| input.bytes == 50 * 1004 + 6);
    assert!(daemon.own_memory() < before + (64 << 20), "{} of {before}", daemon.own_memory());
    assert_eq!(daemon.stat().capacity, 64 << 10);
    drop(claims);
    daemon.until_input(|input| input.errors == 50);
}

#[test]
fn clients_that_hoard_unfinished_messages_do_not_keep_an_honest_one_out() {
    const KIB: usize = 1 << 10;
    let daemon = Daemon::fed("unix-hoard", &format!("{KEYS}\nmax_message = \"1MiB\"\nmax = \"4MiB\""));
    let mut reader = daemon.reader();
    let hoard = |client: &mut UnixStream, len: usize| client.write_all(&vec![b'x'; len]).unwrap();
    let mut hoarders: Vec<UnixStream> = (0..63).map(|_| connect(&daemon)).collect();
    hoarders.iter_mut().for_each(|client| hoard(client, 600 * KIB));
    daemon.until_input(|input| input.bytes == 63 * 600 * KIB as u64);
    let mut honest = connect(&daemon);
    honest.write_all(b"first\n").unwrap();
    assert_eq!(next(&mut reader), "first");
    assert_eq!(daemon.input().errors, 0, "{}", daemon.log());
    // Buffers of 66,304 of the 66,560 KiB that all may have.
    hoarders.iter_mut().for_each(|client| hoard(client, 400 * KIB));
    for len in [1001, 300] {
        hoarders.push(connect(&daemon));
        hoard(hoarders.last_mut().unwrap(), len * KIB);
    }
    daemon.until_input(|input| input.bytes == (63 * 1000 + 1001 + 300) * KIB as u64 + 6);
    assert_eq!(daemon.input().errors, 0, "{}", daemon.log());
    hoard(&mut honest, 600 * KIB);
    let input = daemon.until_input(|input| input.errors == 1);
    let reason = input.last_error.unwrap();
    assert!(reason.contains(", 68157440 bytes are allowed, and its 1MiB are the most; "), "{reason}");
    honest.write_all(b"\n").unwrap();
    assert_eq!(next(&mut reader).len(), 600 * KIB);
    assert_eq!(daemon.input().errors, 1, "{}", daemon.log());
    let is_open = |client: &UnixStream| {
        client.set_nonblocking(true).unwrap();
        matches!((&*client).read(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    };
    // It is closed at the end of the turn in which it was counted.
    let closed = || hoarders.iter().filter(|client| !is_open(client)).count();
    wait_for(|| closed() == 1, || format!("{} are closed\n{}", closed(), daemon.log()));
}

#[test]
fn unfinished_messages_hold_no_more_memory_than_is_promised() {
    const MIB: usize = 1 << 20;
    let keys = format!("{KEYS}\nframing = \"length\"\nmax_message = \"64MiB\"\nmax = \"128MiB\"");
    let daemon = Daemon::fed("unix-memory", &keys);
    let before = daemon.own_memory();
    let mut clients: Vec<UnixStream> = (0..100).map(|_| connect(&daemon)).collect();
    let mut send = |len: usize, claim: bool| {
        for client in &mut clients {
            // One that was dropped takes nothing more.
            let claimed = claim.then(|| client.write_all(&(32u32 << 20).to_le_bytes()));
            let _ = claimed.unwrap_or(Ok(())).and_then(|()| client.write_all(&vec![7; len]));
        }
    };
    // Together less than what is allowed: everybody stays.
    send(MIB + MIB / 10, true);
    daemon.until_input(|input| input.bytes as usize == 100 * (4 + MIB + MIB / 10));
    assert_eq!(daemon.input().errors, 0, "{}", daemon.log());
    assert!(daemon.own_memory() < before + (132 << 20), "{} of {before}", daemon.own_memory());
    // More: some have to go.
    send(MIB, false);
    let input = daemon.until_input(|input| input.errors > 30);
    assert!(daemon.own_memory() < before + (132 << 20), "{} of {before}, {input:?}", daemon.own_memory());
    let mut reader = daemon.reader();
    connect(&daemon).write_all(b"\x02\0\0\0me").unwrap();
    assert_eq!(next(&mut reader), "me");
}

#[test]
fn a_line_that_is_too_long_is_passed_over_and_its_client_stays() {
    for (framing, end) in [("lines", '\n'), ("nul", '\0')] {
        let keys = format!("{KEYS}\nframing = \"{framing}\"\nmax_message = 1000");
        let daemon = Daemon::fed(&format!("unix-long-{framing}"), &keys);
        let mut reader = daemon.reader();
        let mut client = connect(&daemon);
        let (long, longer) = ("x".repeat(2000), "y".repeat(1 << 20));
        // What follows is in the same write, and the last thing that is said for now.
        write!(client, "one{end}{long}{end}two{end}{longer}{end}three{end}").unwrap();
        for expected in ["one", "two", "three"] {
            assert_eq!(next(&mut reader), expected);
        }
        let input = daemon.until_input(|input| input.errors == 2 && input.messages == 3);
        assert!(input.state.to_string().contains("1 client of"), "{input:?}");
        assert!(input.last_error.unwrap().contains("passed over: message 3 of the input"), "{}", daemon.log());
        write!(client, "four{end}").unwrap();
        assert_eq!(next(&mut reader), "four");
        // Also one whose end never comes.
        write!(client, "{longer}").unwrap();
        drop(client);
        daemon.until_input(|input| input.errors == 3 && input.state.to_string().contains("0 clients of"));
    }
}

#[test]
fn a_client_that_says_nothing_keeps_no_buffer() {
    let daemon = Daemon::fed("unix-idle", KEYS);
    let mut clients: Vec<UnixStream> = (0..100).map(|_| connect(&daemon)).collect();
    let before = daemon.own_memory();
    clients.iter_mut().for_each(|client| client.write_all(b"x\n").unwrap());
    daemon.until_input(|input| input.messages == 100);
    // 25 MiB of buffers.
    wait_for(|| daemon.own_memory() < before + (10 << 20), || daemon.own_memory().to_string());
    writeln!(&clients[7], "y").unwrap();
    daemon.until_input(|input| input.messages == 101);
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_and_another_file_are_not() {
    let mut daemon = Daemon::fed("unix-stale", KEYS);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    assert!(daemon.path("in").exists());
    daemon.run(&[]);
    daemon.await_ready();
    assert!(daemon.log().contains("/in reason=\"no program listens on it\""), "{}", daemon.log());
    let mut reader = daemon.reader();
    writeln!(connect(&daemon), "x").unwrap();
    assert_eq!(next(&mut reader), "x");
    assert_eq!(daemon.stop(), Some(0));
    assert!(!daemon.path("in").exists());
    drop(daemon);

    let daemon = Daemon::with_source("unix-live", KEYS);
    let _live = UnixListener::bind(daemon.path("in")).unwrap();
    let log = refused(daemon);
    assert!(log.contains("channel main, source unix: ") && log.contains("another program listens on it"), "{log}");
    let daemon = Daemon::with_source("unix-file", KEYS);
    fs::write(daemon.path("in"), "mine").unwrap();
    assert!(refused(daemon).contains("a regular file and not a socket"));
}

#[test]
fn a_start_that_fails_halfway_removes_the_sockets_that_it_made() {
    let mut daemon = Daemon::configured("unix-half", "");
    let dir = daemon.dir.display().to_string();
    daemon.config = format!(
        "[[channel]]\nname = \"a\"\nsource = \"unix:{dir}/a\"\n[[channel]]\nname = \"b\"\nsource = \"fifo:{dir}/b\"\n\
         [[channel]]\nname = \"c\"\nsource = \"tail:{dir}\"\n"
    );
    daemon.run(&[]);
    assert_eq!(daemon.wait(), Some(1), "{}", daemon.log());
    assert!(daemon.log().contains("channel c, source tail"), "{}", daemon.log());
    assert!(!daemon.path("a").exists() && !daemon.path("b").exists(), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn who_may_feed_it_is_whom_write_names_and_a_reload_changes_that() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can be another user");
        return;
    }
    let mut daemon = Daemon::fed("unix-write", KEYS);
    let as_nobody = |daemon: &Daemon| {
        fs::set_permissions(&daemon.dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.send(b'hi\\n'); \
                      s.shutdown(socket.SHUT_WR); s.settimeout(60); s.recv(1)";
        let mut command = std::process::Command::new("python3");
        std::os::unix::process::CommandExt::uid(&mut command, 65_534);
        // A reset is as good an answer as an end.
        drop(command.args(["-c", script]).arg(daemon.path("in")).output());
    };
    if std::process::Command::new("python3").arg("-V").output().is_err() {
        eprintln!("skipped: there is no python3");
        return;
    }
    as_nobody(&daemon);
    let input = daemon.until_input(|input| input.errors == 1);
    assert!(input.last_error.unwrap().contains("write list does not let it in"));
    assert_eq!(input.messages, 0);
    daemon.config.push_str("write = [\"65534\"]\n");
    fs::write(daemon.path("shmd.toml"), &daemon.config).unwrap();
    daemon.ask(&Request::Reload).unwrap();
    as_nobody(&daemon);
    daemon.until_input(|input| input.messages == 1);
}

#[test]
fn clients_wait_while_the_ring_is_full_and_the_end_does_not() {
    let keys = format!("{KEYS}\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"0\"");
    let mut daemon = Daemon::fed("unix-full", &keys);
    let _idle = daemon.reader();
    let sending: Vec<_> = (0..3)
        .map(|_| {
            let mut client = connect(&daemon);
            std::thread::spawn(move || while client.write_all(&[[b'x'; 99].as_slice(), b"\n"].concat()).is_ok() {})
        })
        .collect();
    wait_for(|| daemon.stat().used > 60 << 10, || daemon.log());
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(!daemon.log().contains("source-stuck"), "{}", daemon.log());
    sending.into_iter().for_each(joined);
    daemon.assert_gone();
}
