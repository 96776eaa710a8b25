//! Readers that die with the daemon: nobody waits for them.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shm_proto::{Reader, Start, Writer};
use shm_test_support::{Child, in_child};

use crate::{Daemon, PATIENCE, wait_for};

const CHANNEL: &str = "[[channel]]\nname = \"main\"\ncapacity = \"64KiB\"\nmin = \"64KiB\"\nmax = \"64KiB\"\n";

/// A process that attaches, reads nothing, and sleeps until it is killed.
fn reader(daemon: &Daemon) -> Child {
    let endpoint = daemon.endpoint();
    in_child(|| {
        let Ok(reader) = Reader::attach(&endpoint, None, Start::Oldest) else { return 1 };
        std::thread::sleep(PATIENCE);
        drop(reader);
        0
    })
}

fn kill_and_wait(child: Child) {
    kill(Pid::from_raw(child.pid().cast_signed()), Signal::SIGKILL).unwrap();
    drop(child);
}

fn fill(writer: &mut Writer) {
    for _ in 0..500 {
        writer.publish(&[1; 1000]).unwrap();
    }
}

#[test]
fn a_writer_goes_on_at_once_when_its_readers_died_with_the_daemon() {
    let mut daemon = Daemon::start("crashed-dead", CHANNEL);
    let readers = [reader(&daemon), reader(&daemon)];
    wait_for(|| daemon.stat().readers.len() == 2, || daemon.log());
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    // They have something to read that may not be overwritten.
    writer.publish(&[1; 1000]).unwrap();
    drop(writer);
    wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
    daemon.die();
    readers.into_iter().for_each(kill_and_wait);
    daemon.come_back();
    fill(&mut Writer::attach(&daemon.endpoint(), None).unwrap());
    let log = daemon.log();
    assert!(
        log.contains("event=missing channel=main readers=2 reason=\"they were attached to the daemon before"),
        "{log}"
    );
    assert!(log.contains("their processes have ended"), "{log}");
    assert!(!log.contains("have not come back") && !log.contains("event=move"), "{log}");
    // The next daemon knows nothing of them either.
    daemon.die();
    daemon.come_back();
    fill(&mut Writer::attach(&daemon.endpoint(), None).unwrap());
    assert_eq!(daemon.log().matches("event=missing").count(), 1, "{}", daemon.log());
}

#[test]
fn a_writer_waits_for_those_that_live_and_not_for_one_that_dies_meanwhile() {
    let mut daemon = Daemon::start("crashed-half-dead", CHANNEL);
    let (dead, dies) = (reader(&daemon), reader(&daemon));
    wait_for(|| daemon.stat().readers.len() == 2, || daemon.log());
    daemon.die();
    kill_and_wait(dead);
    // It lives and cannot come back.
    kill(Pid::from_raw(dies.pid().cast_signed()), Signal::SIGSTOP).unwrap();
    daemon.come_back();
    let endpoint = daemon.endpoint();
    let writing = std::thread::spawn(move || {
        let mut writer = Writer::attach(&endpoint, None).unwrap();
        fill(&mut writer);
    });
    wait_for(|| daemon.log().contains("event=lend"), || daemon.log());
    // Its old segment is kept for it, and the new one, too.
    assert!(daemon.log().contains("event=missing channel=main readers=1 "), "{}", daemon.log());
    assert!(daemon.log().contains("event=move"), "{}", daemon.log());
    kill_and_wait(dies);
    crate::joined(writing);
}
