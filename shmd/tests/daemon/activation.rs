//! A daemon with a socket that a service manager keeps: `shmd.socket`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;

use nix::sys::signal::Signal;
use shm_proto::{Client, Reader, Request, Start, Writer};

use super::{Daemon, PATIENCE, joined};

const PLAIN: &str = "[[channel]]\nname = \"main\"\n";

/// What the service manager does before a program begins: the socket, which is standard input here, becomes descriptor 3, and the
/// variables say so. `$HANDED` is the number of sockets; with several, descriptor 4 is the same one, and 5 is missing.
const HAND_OVER: &str = "exec 3<&0 5<&-; [ $HANDED -lt 2 ] || exec 4<&0; exec </dev/null; \
                         export LISTEN_PID=$$ LISTEN_FDS=$HANDED LISTEN_FDNAMES=shmd.socket;";

impl Daemon {
    fn socket(&self) -> PathBuf {
        self.run_dir().join("shmd.sock")
    }

    /// The service manager's socket, in the directory that it makes for the daemon.
    fn keep_socket(&self) -> UnixListener {
        fs::create_dir(self.run_dir()).unwrap();
        UnixListener::bind(self.socket()).unwrap()
    }

    /// Hands over a descriptor, and tells the program that there are `handed` of them.
    fn run_with(&mut self, descriptor: impl Into<OwnedFd>, handed: u32, program: &str) {
        let script = format!("{HAND_OVER} shift; exec {program} \"$@\"");
        let mut command = self.command_within(&["sh", "-c", &script, "sh"], &[]);
        command.env("HANDED", handed.to_string()).stdin(Stdio::from(descriptor.into()));
        self.spawn(command);
    }

    /// Starts a daemon that gets the socket.
    fn activate(&mut self, kept: &UnixListener) {
        let program = shm_test_support::program("shmd").display().to_string();
        self.run_with(kept.try_clone().unwrap(), 1, &program);
        self.await_ready();
    }

    /// What is in the runtime directory.
    fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(self.run_dir()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// Asks whether a daemon is there, without waiting for the answer.
fn ping(daemon: &Daemon) -> UnixStream {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"{\"v\":1,\"op\":\"ping\"}\n").unwrap();
    stream
}

#[track_caller]
fn assert_answered(stream: UnixStream) {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert!(line.contains("\"ping\""), "{line:?}");
}

#[test]
fn a_client_that_connects_while_the_daemon_is_away_is_served_by_the_next_daemon() {
    let mut daemon = Daemon::configured("activation", PLAIN);
    let kept = daemon.keep_socket();
    // Before the first daemon, too.
    let early = ping(&daemon);
    daemon.activate(&kept);
    assert_answered(early);
    assert!(daemon.log().contains(" kept_by=systemd "), "{}", daemon.log());
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    writer.publish(b"one").unwrap();
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    let early = ping(&daemon);
    // A client that has given up by then.
    drop(ping(&daemon));
    writer.publish(b"two").unwrap();
    let endpoint = daemon.endpoint();
    let asking = thread::spawn(move || {
        let mut client = Client::connect(&endpoint, PATIENCE).unwrap();
        client.request(&Request::List).unwrap()
    });
    daemon.activate(&kept);
    assert_answered(early);
    joined(asking);
    writer.publish(b"three").unwrap();
    let mut bytes = Vec::new();
    for (seq, wanted) in (0..).zip(["one", "two", "three"]) {
        let received = reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        assert_eq!((received.seq, received.lost_before, bytes.as_slice()), (seq, 0, wanted.as_bytes()));
    }
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn a_stop_leaves_the_socket_and_nothing_else() {
    let mut daemon = Daemon::configured("activation-stop", PLAIN);
    let kept = daemon.keep_socket();
    for _ in 0..2 {
        daemon.activate(&kept);
        daemon.ask(&Request::Ping).unwrap();
        assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
        assert_eq!(daemon.entries(), ["shmd.sock"]);
        assert_eq!(shm_test_support::shared_memory(&daemon.prefix), Vec::<PathBuf>::new());
    }
    // A client that connects now waits for the next start.
    let late = ping(&daemon);
    daemon.activate(&kept);
    assert_answered(late);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn a_reexec_hands_the_socket_on_and_children_do_not_learn_of_it() {
    let mut daemon = Daemon::with_source("activation-reexec", "source = \"exec:sh -c 'env; echo END; exec cat'\"");
    daemon.put_copy();
    let kept = daemon.keep_socket();
    let program = daemon.copy().display().to_string();
    daemon.run_with(kept.try_clone().unwrap(), 1, &program);
    daemon.await_ready();
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut line = Vec::new();
    while line != b"END" {
        reader.recv_into(&mut line, Some(PATIENCE)).unwrap();
        assert!(!line.starts_with(b"LISTEN_"), "{}", String::from_utf8_lossy(&line));
    }
    for _ in 0..3 {
        daemon.must_reexec();
        daemon.ask(&Request::Ping).unwrap();
        let pid = daemon.child.as_ref().unwrap().id();
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(!String::from_utf8_lossy(&environment).contains("LISTEN_"));
    }
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert_eq!(daemon.entries(), ["shmd.sock"]);
    let late = ping(&daemon);
    daemon.activate(&kept);
    assert_answered(late);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn what_is_not_the_control_socket_is_refused_with_the_unit_that_is_needed() {
    type Make = fn(&Daemon) -> OwnedFd;
    let cases: [(&str, Make, &str); 6] = [
        ("pipe", |_| std::io::pipe().unwrap().0.into(), "descriptor 3 is not a socket"),
        ("tcp", |_| TcpListener::bind("127.0.0.1:0").unwrap().into(), "it is not a Unix socket"),
        ("packets", |daemon| UnixDatagram::bind(daemon.socket()).unwrap().into(), "it is not a stream socket"),
        ("pair", |_| UnixStream::pair().unwrap().0.into(), "it does not listen for connections"),
        ("elsewhere", |daemon| UnixListener::bind(daemon.path("else")).unwrap().into(), "/else, and clients look for"),
        (
            "nameless",
            |daemon| {
                let listener = UnixListener::bind(daemon.socket()).unwrap();
                fs::remove_file(daemon.socket()).unwrap();
                listener.into()
            },
            "shmd.sock was removed, and no client reaches it",
        ),
    ];
    let program = shm_test_support::program("shmd").display().to_string();
    for (name, make, reason) in cases {
        let mut daemon = Daemon::configured(&format!("activation-{name}"), PLAIN);
        fs::create_dir(daemon.run_dir()).unwrap();
        let descriptor = make(&daemon);
        let before = daemon.entries();
        daemon.run_with(descriptor, 1, &program);
        assert_eq!(daemon.wait(), Some(78), "{name}: {}", daemon.log());
        let log = daemon.log();
        let line = log.lines().last().unwrap_or_default();
        assert!(line.contains("the socket that systemd hands over (LISTEN_FDS): "), "{name}: {log}");
        assert!(line.contains(reason) && line.contains("shmd.socket"), "{name}: {log}");
        assert_eq!(daemon.entries(), before, "{name}");
        assert_eq!(shm_test_support::shared_memory(&daemon.prefix), Vec::<PathBuf>::new(), "{name}");
    }
}

#[test]
fn several_sockets_and_no_socket_are_refused_and_sockets_for_another_process_are_not_looked_for() {
    let program = shm_test_support::program("shmd").display().to_string();
    for (handed, reason) in
        [(2, "there are 2 sockets, and the daemon takes only one"), (0, "LISTEN_FDS is \"0\""), (3, "descriptor 5 ")]
    {
        let mut daemon = Daemon::configured(&format!("activation-{handed}"), PLAIN);
        let kept = daemon.keep_socket();
        daemon.run_with(kept, handed, &program);
        assert_eq!(daemon.wait(), Some(78), "{}", daemon.log());
        assert!(daemon.log().contains(reason), "{}", daemon.log());
    }
    let mut daemon = Daemon::configured("activation-foreign", PLAIN);
    let mut command = daemon.command(&[]);
    command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    daemon.spawn(command);
    daemon.await_ready();
    assert!(!daemon.log().contains("kept_by"), "{}", daemon.log());
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn a_daemon_started_by_hand_does_not_take_the_name_of_the_socket_that_is_kept() {
    let mut daemon = Daemon::configured("activation-hand", PLAIN);
    let kept = daemon.keep_socket();
    daemon.run(&[]);
    assert_eq!(daemon.wait(), Some(1), "{}", daemon.log());
    let log = daemon.log();
    assert!(log.contains("systemctl start shmd") && log.contains("systemctl stop shmd.socket"), "{log}");
    assert_eq!(daemon.entries(), ["shmd.sock"]);
    // It has not connected either, for which systemd would start the service.
    kept.set_nonblocking(true).unwrap();
    assert_eq!(kept.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    // The next daemon that gets the socket serves its clients.
    daemon.activate(&kept);
    daemon.ask(&Request::Ping).unwrap();
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    // A socket that no process has is a dead daemon's.
    drop(kept);
    daemon.run(&[]);
    daemon.await_ready();
    daemon.await_log(|log| log.contains("event=replace socket="));
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(daemon.entries().is_empty());
}
