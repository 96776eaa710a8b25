//! A log whose reader stands still, such as a pager.

use std::io::{Read, pipe};
use std::sync::mpsc;
use std::thread;

use nix::fcntl::{FcntlArg, fcntl};
use shm_proto::{Reader, Request, Start};

use super::{Daemon, joined, wait_for};

#[test]
fn a_log_that_nobody_reads_holds_nobody_up_and_says_later_what_is_missing() {
    let mut daemon = Daemon::configured("unread-log", "[[channel]]\nname = \"main\"\n");
    let (mut log, to) = pipe().unwrap();
    // A page, which one line takes.
    fcntl(&to, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let mut command = daemon.command(&[]);
    command.stderr(to);
    daemon.spawn(command);
    wait_for(|| daemon.ask(&Request::Ping).is_ok(), || "the daemon does not answer".to_owned());
    drop(Reader::attach(&daemon.endpoint(), None, Start::New).unwrap());
    assert_eq!(daemon.stat().channel.as_str(), "main");
    let (to, said) = mpsc::channel();
    let reading = thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = log.read(&mut bytes) {
            to.send(bytes[..count].to_vec()).unwrap();
        }
    });
    let (mut all, what) = (Vec::new(), b"left out of the log, because nobody read it\n");
    let is_told = || {
        // Another line, which may find the reader.
        drop(Reader::attach(&daemon.endpoint(), None, Start::New).unwrap());
        all.extend(said.try_iter().flatten());
        all.windows(what.len()).any(|part| part == what)
    };
    wait_for(is_told, || "the log does not say what is missing".to_owned());
    assert_eq!(daemon.stop(), Some(0));
    joined(reading);
}
