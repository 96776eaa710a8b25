//! Publish times, as the daemon shows them and keeps them.

use shm_proto::internal::os::clock::monotonic_ns;
use shm_proto::{Reader, Start, Writer};

use super::{Daemon, PATIENCE, wait_for};

const WITH: &str = "[[channel]]\nname = \"main\"\ntimestamps = true\n";

fn attach(daemon: &Daemon, start: Start) -> Reader {
    Reader::attach(&daemon.endpoint(), None, start).unwrap()
}

#[test]
fn stat_shows_how_old_the_oldest_unread_message_is_and_how_long_others_took() {
    let mut daemon = Daemon::start("times", WITH);
    let mut reader = attach(&daemon, Start::New);
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let reader_stat = |daemon: &Daemon| daemon.stat().readers.remove(0);
    assert!(daemon.stat().timestamps);
    assert_eq!((reader_stat(&daemon).oldest_unread_ns, reader_stat(&daemon).latency), (None, None));
    let before = monotonic_ns();
    writer.publish(b"first").unwrap();
    let published = monotonic_ns();
    writer.publish(b"second").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let asked = monotonic_ns();
    let age = reader_stat(&daemon).oldest_unread_ns.unwrap();
    assert!(asked - published <= age && age <= monotonic_ns() - before, "{age}");
    let mut bytes = Vec::new();
    for _ in 0..2 {
        let got = reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        let taken = monotonic_ns() - got.published_ns.unwrap();
        assert!(taken >= 20_000_000 && taken <= monotonic_ns() - before, "{taken}");
    }
    // A reader that looks again and finds nothing shows where it stands.
    assert!(reader.try_recv().unwrap().is_none());
    let stat = reader_stat(&daemon);
    let latency = stat.latency.unwrap();
    assert_eq!((stat.oldest_unread_ns, latency.messages), (None, 2));
    assert!(latency.p50_ns > 18_000_000 && latency.p50_ns <= latency.max_ns, "{latency:?}");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn times_survive_the_daemon_and_a_channel_that_changes_its_mind_gets_a_new_segment() {
    let mut daemon = Daemon::start("times-adopt", WITH);
    let mut reader = attach(&daemon, Start::New);
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    for n in 0..1000u64 {
        writer.publish(&n.to_le_bytes()).unwrap();
    }
    drop(writer);
    let before = monotonic_ns();
    daemon.die();
    daemon.come_back();
    assert!(daemon.log().contains("event=adopt channel=main"), "{}", daemon.log());
    let mut bytes = Vec::new();
    for n in 0..1000u64 {
        let got = reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        assert_eq!((bytes.as_slice(), got.seq), (&n.to_le_bytes()[..], n));
        assert!(got.published_ns.unwrap() < before);
    }
    // The next writer is the first one that the new daemon lends the role.
    Writer::attach(&daemon.endpoint(), None).unwrap().publish(b"after").unwrap();
    assert!(reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap().published_ns.unwrap() > before);
    daemon.die();
    daemon.config = daemon.config.replace("true", "false");
    daemon.come_back();
    let replaced = "event=replace segment=";
    wait_for(|| daemon.log().contains(replaced), || daemon.log());
    let mut reader = attach(&daemon, Start::New);
    Writer::attach(&daemon.endpoint(), None).unwrap().publish(b"no time").unwrap();
    assert_eq!(reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap().published_ns, None);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn a_reload_keeps_the_present_value_and_says_so() {
    let mut daemon = Daemon::start("times-reload", WITH);
    let without = daemon.config.replace("timestamps = true\n", "");
    let reloaded = daemon.reload(&without).unwrap();
    assert!(reloaded.kept.iter().any(|change| change.key == "timestamps"), "{reloaded:?}");
    assert!(daemon.stat().timestamps);
}
