//! Clients that ask and do not listen: they do not keep the others waiting.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use shm_proto::Request;

use super::{Daemon, wait_for};

const ONE: &str = "[[channel]]\nname = \"main\"\n";

impl Daemon {
    /// Stops the process, and returns when it stands.
    pub(super) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        let stat = format!("/proc/{}/stat", self.child.as_ref().unwrap().id());
        let stands = || std::fs::read_to_string(&stat).unwrap().rsplit(')').next().unwrap().starts_with(" T");
        wait_for(stands, || "the daemon does not stop".to_owned());
    }
}

/// A connection that is made at once or not at all.
fn connect_now(daemon: &Daemon) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(&daemon.endpoint().socket)?).map(|()| fd)
}

#[test]
fn who_hangs_up_does_not_leave_a_long_queue_behind() {
    let daemon = Daemon::start("queue", ONE);
    daemon.freeze();
    // As many as come in, each of them gone again at once.
    let mut queued = 0;
    let full = loop {
        match connect_now(&daemon) {
            Ok(_) => queued += 1,
            Err(e) => break e,
        }
        assert!(queued < 1000, "{queued} connections wait to be accepted, and there is room for more");
    };
    assert_eq!(full, Errno::EAGAIN);
    daemon.signal(Signal::SIGCONT);
    // Whoever comes after them waits for no more than these.
    daemon.stat();
}

#[test]
fn what_a_client_asks_and_does_not_stay_to_hear_is_not_answered_and_what_it_orders_is_done() {
    let daemon = Daemon::start("gone", ONE);
    daemon.freeze();
    for op in ["attach", "publish", "stat", "resize\",\"bytes\":2097152,\"x\":\"", "attach"] {
        let mut client = UnixStream::connect(daemon.endpoint().socket).unwrap();
        client.write_all(format!("{{\"v\":1,\"layout\":2,\"op\":\"{op}\"}}\n").repeat(100).as_bytes()).unwrap();
    }
    daemon.signal(Signal::SIGCONT);
    wait_for(|| daemon.stat().capacity == 2 << 20, || daemon.log());
    // It came in after them and has been answered, so they have had their turn.
    daemon.ask(&Request::List).unwrap();
    let log = daemon.log();
    assert!(!log.contains("event=attach") && !log.contains("event=lend"), "{log}");
}
