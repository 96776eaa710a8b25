//! Descriptors that come with what a client says, and that take as long to close as the client likes.

use std::io::{ErrorKind, IoSlice, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};
use nix::unistd::Pid;
use shm_proto::Start;

use super::{connect, last_words};
use shm_test_support::{Daemon, PATIENCE, Setup, TempDir, skip, wait_until};

/// Connections whose other sides read nothing. Whoever closes the last descriptor of one waits for an hour, or until this is dropped.
struct Slow {
    listener: TcpListener,
    others: Vec<TcpStream>,
}

impl Slow {
    fn new(test: &str) -> Option<Self> {
        match TcpListener::bind("127.0.0.1:0") {
            Ok(listener) => Some(Self { listener, others: Vec::new() }),
            Err(e) => {
                skip(test, &format!("there is no network here: {e}"));
                None
            }
        }
    }

    fn make(&mut self) -> TcpStream {
        let mut slow = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        self.others.push(self.listener.accept().unwrap().0);
        slow.set_nonblocking(true).unwrap();
        loop {
            match slow.write(&[0; 1 << 16]) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => panic!("{e}"),
            }
        }
        linger(&slow, 3600);
        slow
    }
}

const RESUME: &[u8] =
    b"{\"v\":1,\"op\":\"resume_reader\",\"channel\":\"main\",\"layout\":2,\"instance\":1,\"moves\":0}\n";

type Way = fn(&UnixStream, TcpStream);

/// The ways in which the daemon comes to have a descriptor that it does not want. The connection is closed afterwards.
const WAYS: [(&str, Way); 9] = [
    ("with a request", |stream, slow| with(stream, b"{\"v\":1,\"op\":\"ping\"}\n", slow)),
    ("as the page of a reader", |stream, slow| with(stream, RESUME, slow)),
    ("with half a request", |stream, slow| with(stream, b"{\"v\":1,", slow)),
    ("with a line that is not a request", |stream, slow| with(stream, b"hello\n", slow)),
    ("after a line that is not a request", |mut stream, slow| {
        stream.write_all(b"hello\n").unwrap();
        with(stream, b"more\n", slow);
    }),
    ("five at once", |stream, slow| {
        assert!(many(stream, b"{\"v\":1,\"op\":\"ping\"}\n", slow, 5, MsgFlags::empty()));
    }),
    ("as many as can be", |stream, slow| {
        assert!(many(stream, b"{\"v\":1,\"op\":\"ping\"}\n", slow, 253, MsgFlags::empty()));
    }),
    ("out of band", |mut stream, slow| {
        // Not every kernel has this for these sockets.
        many(stream, b"x", slow, 1, MsgFlags::MSG_OOB);
        stream.write_all(b"\n").unwrap();
    }),
    ("on the connection of a reader", |mut stream, slow| {
        stream.write_all(b"{\"v\":1,\"op\":\"attach\",\"layout\":2}\n").unwrap();
        with(stream, b"{\"v\":1,\"event\":\"status\",\"status\":\"x\"}\n", slow);
    }),
];

fn linger(slow: &TcpStream, seconds: i32) {
    let linger = libc::linger { l_onoff: i32::from(seconds > 0), l_linger: seconds };
    setsockopt(slow, sockopt::Linger, &linger).unwrap();
}

fn with(stream: &UnixStream, bytes: &[u8], slow: TcpStream) {
    many(stream, bytes, slow, 1, MsgFlags::empty());
}

/// Sends the same descriptor several times. Whether the kernel has taken them.
fn many(stream: &UnixStream, bytes: &[u8], slow: TcpStream, count: usize, flags: MsgFlags) -> bool {
    let descriptors = vec![slow.as_raw_fd(); count];
    let rights = ControlMessage::ScmRights(&descriptors);
    let sent = sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(bytes)], &[rights], flags, None);
    if sent.is_err() {
        // This is the last descriptor, and nobody shall wait for it.
        linger(&slow, 0);
    }
    sent.is_ok()
}

fn open_descriptors(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

/// Does this while the daemon stands still: the daemon's descriptor is then the last one.
fn meanwhile<T>(daemon: &Daemon, work: impl FnOnce() -> T) -> T {
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    wait_until("the daemon stands still", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
    });
    let done = work();
    kill(pid, Signal::SIGCONT).unwrap();
    done
}

#[test]
fn a_descriptor_that_takes_an_hour_to_close_holds_nobody_up() {
    let daemon = Daemon::start("");
    let Some(mut slow) = Slow::new("a_descriptor_that_takes_an_hour_to_close_holds_nobody_up") else { return };
    daemon.stat();
    let before = open_descriptors(&daemon);
    for (way, send) in WAYS {
        let stream = meanwhile(&daemon, || {
            let stream = connect(&daemon);
            send(&stream, slow.make());
            stream
        });
        daemon.stat();
        drop(stream);
        daemon.stat();
        wait_until(&format!("what was sent {way} is closed"), || open_descriptors(&daemon) <= before);
    }
    daemon.until_readers(0);
    daemon.write_lines("one\n");
}

#[test]
fn nor_does_one_from_a_client_that_is_turned_away() {
    let setup = Setup::new("max_clients = 4\n[[channel]]\nname = \"main\"\n");
    let daemon = setup.start();
    let Some(mut slow) = Slow::new("nor_does_one_from_a_client_that_is_turned_away") else { return };
    let (held, late) = meanwhile(&daemon, || {
        let held: Vec<_> = (0..4).map(|_| connect(&daemon)).collect();
        let late: Vec<_> = (0..4).map(|_| connect(&daemon)).collect();
        late.iter().for_each(|stream| with(stream, b"{\"v\":1,\"op\":\"ping\"}\n", slow.make()));
        (held, late)
    });
    for stream in late {
        assert!(last_words(stream).contains("max_clients = 4"));
    }
    drop(held);
    wait_until("there is a place", || daemon.cli(&["list"]).code == Some(0));
}

#[test]
fn nor_does_one_from_a_client_of_a_source() {
    let dir = TempDir::new();
    let path = dir.join("in");
    let daemon = Daemon::start(&format!("[[channel]]\nsource = \"unix:{}\"\n", path.display()));
    let Some(mut slow) = Slow::new("nor_does_one_from_a_client_of_a_source") else { return };
    let mut reader = daemon.reader(Start::New);
    meanwhile(&daemon, || {
        for bytes in [&b"one\n"[..], b"one"] {
            let mut stream = UnixStream::connect(&path).unwrap();
            if !many(&stream, bytes, slow.make(), 1, MsgFlags::empty()) {
                stream.write_all(bytes).unwrap();
            }
        }
    });
    for _ in 0..2 {
        let mut text = Vec::new();
        reader.recv_into(&mut text, Some(PATIENCE)).unwrap();
        assert_eq!(text, b"one");
    }
}
