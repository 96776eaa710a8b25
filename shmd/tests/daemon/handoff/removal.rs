//! Channels whose peers sit in the mutex come and go, and hold up nobody else.

use std::fs;
use std::os::unix::fs::FileExt;

use nix::sys::signal::Signal;
use shm_proto::{Done, Request, Writer};

use super::{Daemon, LENT};

const STAYS: &str = "[[channel]]\nname = \"stays\"\n";

/// Makes this process the holder of a handoff segment's mutex, as a peer that was stopped inside it is.
fn sit_in_mutex(daemon: &Daemon, channel: &str) {
    let header = fs::OpenOptions::new().write(true).open(daemon.object(channel)).unwrap();
    // The C library finds the holder's number in the first word.
    header.write_all_at(&std::process::id().to_le_bytes(), 0).unwrap();
}

/// A daemon with channel `stays`, that of this configuration. A daemon that was killed has left the objects of a handoff channel
/// `main`, and a peer sits in their mutex.
fn with_stale_main(name: &str) -> Daemon {
    let mut daemon = Daemon::start(name, LENT);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    sit_in_mutex(&daemon, "main");
    daemon.config = STAYS.to_owned();
    daemon.run(&[]);
    daemon.await_ready();
    daemon
}

/// The configuration of a handoff channel with this name.
fn handoff(name: &str) -> String {
    LENT.replace("[[channel]]\n", &format!("[[channel]]\nname = \"{name}\"\n"))
}

/// How often the daemon has begun to make channel `main`, and to wait for the mutex.
fn begun(daemon: &Daemon) -> usize {
    daemon.log().matches("event=create channel=main ").count()
}

/// Asks for two things at the same time, again and again, until an answer has one of these texts. Each time, one of the two has
/// to wait for the mutex.
fn ask_two(daemon: &Daemon, one: &(dyn Fn() -> String + Sync), other: &(dyn Fn() -> String + Sync), expected: &[&str]) {
    super::wait_for(
        || {
            let answers = std::thread::scope(|scope| {
                let first = scope.spawn(one);
                [other(), first.join().unwrap()]
            });
            let said = |text: &str| answers.iter().any(|answer| answer.contains(text));
            assert!(said("its mutex is held by"), "{answers:?}");
            expected.iter().any(|text| said(text))
        },
        || daemon.log(),
    );
}

#[test]
fn channels_whose_peers_sit_in_the_mutex_are_removed_while_the_daemon_goes_on() {
    let names: Vec<String> = (0..6).map(|number| format!("held{number}")).collect();
    let held: String = names.iter().map(|name| handoff(name)).collect();
    let mut daemon = Daemon::start("handoff-held", &format!("{STAYS}{held}"));
    for name in &names {
        sit_in_mutex(&daemon, name);
        let mut writer = Writer::attach(&daemon.endpoint(), Some(name)).unwrap();
        assert!(writer.publish_acked(b"x", std::time::Duration::from_millis(1)).is_err());
    }
    // Each has waited for its mutex once, and goes on doing so. Nobody writes any more.
    let seen =
        |log: &str, event: &str| names.iter().all(|name| log.contains(&format!("event={event} channel={name} ")));
    daemon.await_log(|log| seen(log, "handoff-waits") && seen(log, "return"));
    let me = format!("(pid {})", std::process::id());
    assert!(daemon.log().contains(&me), "{}", daemon.log());
    let done = daemon.reload(STAYS).unwrap();
    assert_eq!(done.removed.len(), 6);
    match daemon.ask(&Request::List) {
        Ok(Done::List(list)) => assert_eq!(list.len(), 1),
        other => panic!("{other:?}"),
    }
    // A name is free again when its objects are gone.
    let unlinked = |log: &str| log.matches("event=unlink channel=held").count();
    daemon.await_log(|log| unlinked(log) == 6);
    let log = daemon.log();
    // The reload had ended before the first of them, so nobody waited for any.
    let (before, _) = log.split_once("event=unlink").unwrap();
    assert!(before.contains("event=reload by=") && !log.contains("handoff-stuck"), "{log}");
    let again = daemon.reload(&format!("{STAYS}[[channel]]\nname = \"held0\"\n")).unwrap();
    assert_eq!(again.created.len(), 1);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn a_reload_that_meets_stale_objects_with_a_peer_in_the_mutex_changes_nothing_and_names_it() {
    let mut daemon = with_stale_main("handoff-stale");
    let refused = daemon.reload(&format!("{STAYS}{}{}", handoff("early"), handoff("main"))).unwrap_err().to_string();
    let me = format!("(pid {})", std::process::id());
    assert!(refused.contains("nothing was changed: channel main: ") && refused.contains(&me), "{refused}");
    // The one that had been made before goes again.
    daemon.await_log(|log| log.contains("event=unlink channel=early"));
    assert!(!daemon.object("early").exists() && !daemon.object("early.feed").exists(), "{}", daemon.log());
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn while_a_reload_waits_for_new_channels_the_daemon_serves_the_others_and_can_be_stopped() {
    let mut daemon = with_stale_main("reload-waits");
    let other = daemon.create("other", &[], false).unwrap().channel;
    let configuration = format!("{STAYS}{}[[channel]]\nname = \"other\"\n", handoff("main"));
    daemon.write_config(&configuration);
    let reload = || daemon.refused(&Request::Reload);
    // One waits for the other.
    ask_two(&daemon, &reload, &reload, &["its mutex is held by"]);
    // It is about to take this channel over, so that nobody removes the channel in between.
    let remove = || match daemon.ask(&Request::Remove { channel: other.clone() }) {
        Err(refused) => refused.to_string(),
        Ok(_) => {
            super::wait_for(|| daemon.create("other", &[], false).is_ok(), || daemon.log());
            String::new()
        }
    };
    super::wait_for(
        || {
            let before = begun(&daemon);
            let told = std::thread::scope(|scope| {
                scope.spawn(reload);
                super::wait_for(|| begun(&daemon) > before, || daemon.log());
                remove()
            });
            told.contains("channel other: nothing was changed: a reload is just taking it over; try again")
        },
        || daemon.log(),
    );
    // The end waits for none.
    daemon.signal(Signal::SIGHUP);
    daemon.signal(Signal::SIGHUP);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(daemon.object("main").exists(), "what it could not take over is not its to remove");
}

#[test]
fn while_a_channel_is_created_its_name_is_taken_the_daemon_serves_the_others_and_can_be_stopped() {
    let mut daemon = with_stale_main("create-waits");
    let create = || daemon.create("main", &[("mode", "handoff")], false).unwrap_err().to_string();
    ask_two(&daemon, &create, &create, &["channel main: it is just being created; try again"]);
    fs::write(daemon.dir.join("shmd.toml"), format!("{STAYS}{}", handoff("main"))).unwrap();
    let reload = || daemon.refused(&Request::Reload);
    let busy = ["channel main: a user is just creating it", "channel main: a reload is just creating it"];
    ask_two(&daemon, &create, &reload, &busy);
    // The end waits for none.
    let told = std::thread::scope(|scope| {
        let before = begun(&daemon);
        let waits = scope.spawn(create);
        super::wait_for(|| begun(&daemon) > before, || daemon.log());
        daemon.signal(Signal::SIGTERM);
        waits.join().unwrap()
    });
    assert!(
        told.contains("it is not created: the daemon is stopping") || told.contains("its mutex is held by"),
        "{told}"
    );
    assert_eq!(daemon.wait(), Some(0), "{}", daemon.log());
    assert!(daemon.object("main").exists(), "what it could not take over is not its to remove");
    assert!(!daemon.run_dir().join("shmd.channels").exists());
}
