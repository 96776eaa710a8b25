//! Handoff channels: the objects stay, what was on offer stays on offer, and attached readers go on.

use std::thread;
use std::time::Duration;

use shm_proto::{Attachment, HandoffReader, Start, Writer};

use crate::{Daemon, joined, soon, wait_for};

/// How often the daemon is killed.
const KILLS: u32 = 4;

const CHANNEL: &str =
    "[[channel]]\nmode = \"handoff\"\ncapacity = 4096\nmin = 4096\nmax = \"8MiB\"\nack_timeout = \"60s\"\n";

fn attach(daemon: &Daemon) -> Box<HandoffReader> {
    match Attachment::open(&daemon.endpoint(), None, Start::New).unwrap() {
        Attachment::Handoff(reader) => reader,
        Attachment::Ring(_) => panic!("it is a handoff channel"),
    }
}

#[test]
fn what_was_on_offer_stays_on_offer_and_a_reader_goes_on() {
    let mut daemon = Daemon::start("crashed-handoff", CHANNEL);
    let mut bytes = Vec::new();
    for kill in 0..KILLS {
        let endpoint = daemon.endpoint();
        // What this writer is told is not looked at: its channel's feed is gone with the daemon.
        let writing = thread::spawn(move || {
            let mut writer = Writer::attach(&endpoint, None).unwrap();
            writer.publish(format!("message {kill}").as_bytes()).map(drop)
        });
        wait_for(|| daemon.stat().handoff.is_some_and(|stat| stat.on_offer.is_some()), || daemon.log());
        daemon.die();
        daemon.come_back();
        drop(joined(writing));
        assert!(daemon.log().contains("origin=adopted on_offer_bytes=9"), "{}", daemon.log());
        let mut reader = attach(&daemon);
        assert!(reader.recv_until(&mut bytes, soon()).unwrap().is_some());
        assert_eq!(bytes, format!("message {kill}").as_bytes());
        reader.acknowledge();
        wait_for(|| daemon.stat().handoff.is_some_and(|stat| stat.on_offer.is_none()), || daemon.log());
        assert_eq!(daemon.stat().messages, 1);
    }
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn an_attached_reader_gets_the_messages_of_the_next_daemon() {
    let mut daemon = Daemon::start("crashed-taking", CHANNEL);
    let mut reader = attach(&daemon);
    let reading = thread::spawn(move || {
        let (mut bytes, mut seen) = (Vec::new(), Vec::new());
        loop {
            match reader.recv_until(&mut bytes, soon()) {
                Ok(Some(_)) => seen.push(String::from_utf8(bytes.clone()).unwrap()),
                Ok(None) => return (seen, "nothing comes".to_owned()),
                Err(error) => return (seen, error.to_string()),
            }
            reader.acknowledge();
        }
    });
    for kill in 0..KILLS {
        wait_for(|| daemon.stat().readers.len() == 1, || daemon.log());
        let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
        for n in 0..20 {
            writer.publish(format!("{kill} {n}").as_bytes()).unwrap();
        }
        drop(writer);
        daemon.die();
        thread::sleep(Duration::from_millis(u64::from(kill * 61 % 200)));
        daemon.come_back();
    }
    wait_for(|| daemon.stat().readers.len() == 1, || daemon.log());
    assert_eq!(daemon.stop(), Some(0));
    let (seen, end) = joined(reading);
    let expected: Vec<_> = (0..KILLS).flat_map(|kill| (0..20).map(move |n| format!("{kill} {n}"))).collect();
    assert_eq!(seen, expected);
    assert!(end.contains("closed"), "{end}");
}
