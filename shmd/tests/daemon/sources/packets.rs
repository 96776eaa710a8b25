use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, setsockopt, socket, sockopt,
};

use super::super::Daemon;
use super::next;
use shm_proto::internal::control::stat::SourceKind;

const KEYS: &str = "source = \"unix-seqpacket:DIR/in\"\nmax_message = 50000";

fn client(daemon: &Daemon) -> OwnedFd {
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&fd, sockopt::SndBuf, &(200 << 10)).unwrap();
    connect(fd.as_raw_fd(), &UnixAddr::new(&daemon.path("in")).unwrap()).unwrap();
    fd
}

fn say(client: &OwnedFd, bytes: &[u8]) -> nix::Result<usize> {
    send(client.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)
}

#[test]
fn each_packet_is_a_message_whatever_is_in_it() {
    let mut daemon = Daemon::fed("packets", KEYS);
    let mut reader = daemon.reader();
    let clients = [0; 3].map(|_| client(&daemon));
    for round in 0..100 {
        for (number, client) in clients.iter().enumerate() {
            say(client, format!("{number}\n{round}\0").as_bytes()).unwrap();
        }
    }
    let mut rounds = [0; 3];
    for _ in 0..300 {
        let text = next(&mut reader);
        let (number, round) = text.trim_end_matches('\0').split_once('\n').unwrap();
        let number: usize = number.parse().unwrap();
        assert_eq!(round, rounds[number].to_string());
        rounds[number] += 1;
    }
    let input = daemon.until_state("listening, 3 clients");
    assert_eq!((input.kind, input.messages, input.errors), (SourceKind::UnixSeqpacket, 300, 0));
    drop(clients);
    daemon.until_state("listening, 0 clients");
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(!daemon.path("in").exists());
}

#[test]
fn a_packet_over_the_limit_is_refused_and_its_client_goes_on() {
    let daemon = Daemon::fed("packets-large", KEYS);
    let mut reader = daemon.reader();
    let client = client(&daemon);
    say(&client, &[b'a'; 50_000]).unwrap();
    say(&client, &[b'b'; 50_001]).unwrap();
    say(&client, b"c").unwrap();
    assert_eq!(next(&mut reader), "a".repeat(50_000));
    assert_eq!(next(&mut reader), "c");
    let input = daemon.until_input(|input| input.messages == 2);
    assert_eq!(input.errors, 1);
    let error = input.last_error.unwrap();
    assert!(error.contains("a packet of 50001 bytes was refused: the limit is 50000 bytes"), "{error}");
    let log = daemon.log();
    assert!(log.contains(&format!("pid={} user=", std::process::id())), "{log}");
}

#[test]
fn an_empty_packet_is_the_end_of_its_client() {
    let daemon = Daemon::fed("packets-empty", KEYS);
    let client = client(&daemon);
    daemon.until_state("listening, 1 client ");
    say(&client, b"").unwrap();
    daemon.until_state("listening, 0 clients");
    assert_eq!(say(&client, b"x"), Err(Errno::EPIPE));
    assert_eq!(daemon.input().errors, 0);
}

#[test]
fn packets_that_the_policy_drops_are_taken_and_counted() {
    let keys = format!("{KEYS}\ncapacity = \"64KiB\"\nmax = \"64KiB\"\non_full = \"drop\"");
    let daemon = Daemon::fed("packets-drop", &keys);
    let _idle = daemon.reader();
    let client = client(&daemon);
    for _ in 0..1000 {
        say(&client, &[b'x'; 1000]).unwrap();
    }
    super::wait_for(
        || {
            let stat = daemon.stat();
            stat.dropped + stat.messages == 1000
        },
        || daemon.log(),
    );
    assert!(daemon.stat().dropped > 900);
    daemon.until_input(|input| input.messages == daemon.stat().messages);
}
