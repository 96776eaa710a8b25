//! Channels whose peers sit in the mutex come and go, and hold up nobody else.

use std::fs;
use std::os::unix::fs::FileExt;

use nix::sys::signal::Signal;
use shm_proto::{Done, Request, Writer};

use super::{Daemon, LENT};

/// Makes this process the holder of a handoff segment's mutex, as a peer that was stopped inside it is.
fn sit_in_mutex(daemon: &Daemon, channel: &str) {
    let header = fs::OpenOptions::new().write(true).open(daemon.object(channel)).unwrap();
    // The C library finds the holder's number in the first word.
    header.write_all_at(&std::process::id().to_le_bytes(), 0).unwrap();
}

#[test]
fn channels_whose_peers_sit_in_the_mutex_are_removed_while_the_daemon_goes_on() {
    let names: Vec<String> = (0..6).map(|number| format!("held{number}")).collect();
    let stays = "[[channel]]\nname = \"stays\"\n";
    let held = |name: &String| LENT.replace("[[channel]]\n", &format!("[[channel]]\nname = \"{name}\"\n"));
    let mut daemon = Daemon::start("handoff-held", &(stays.to_owned() + &names.iter().map(held).collect::<String>()));
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
    let done = daemon.reload(stays).unwrap();
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
    let again = daemon.reload(&format!("{stays}[[channel]]\nname = \"held0\"\n")).unwrap();
    assert_eq!(again.created.len(), 1);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn a_reload_that_meets_stale_objects_with_a_peer_in_the_mutex_changes_nothing_and_names_it() {
    let mut daemon = Daemon::start("handoff-stale", LENT);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    sit_in_mutex(&daemon, "main");
    let stays = "[[channel]]\nname = \"stays\"\n";
    daemon.config = stays.to_owned();
    daemon.run(&[]);
    daemon.await_ready();
    let handoff = LENT.replace("[[channel]]\n", "[[channel]]\nname = \"main\"\n");
    let early = "[[channel]]\nname = \"early\"\nmode = \"handoff\"\n";
    let refused = daemon.reload(&format!("{stays}{early}{handoff}")).unwrap_err().to_string();
    let me = format!("(pid {})", std::process::id());
    assert!(refused.contains("nothing was changed: channel main: ") && refused.contains(&me), "{refused}");
    // The one that had been made before goes again.
    daemon.await_log(|log| log.contains("event=unlink channel=early"));
    assert!(!daemon.object("early").exists() && !daemon.object("early.feed").exists(), "{}", daemon.log());
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn while_a_reload_waits_for_new_channels_the_daemon_serves_the_others_and_can_be_stopped() {
    let mut daemon = Daemon::start("reload-waits", LENT);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    sit_in_mutex(&daemon, "main");
    daemon.config = "[[channel]]\nname = \"stays\"\n".to_owned();
    daemon.run(&[]);
    daemon.await_ready();
    let handoff = LENT.replace("[[channel]]\n", "[[channel]]\nname = \"main\"\n");
    daemon.write_config(&format!("{}{handoff}", daemon.config));
    // One of two that are sent at a time waits for the mutex, for a second; the other is answered meanwhile.
    let two = || {
        std::thread::scope(|scope| {
            let first = scope.spawn(|| daemon.refused(&Request::Reload));
            [daemon.refused(&Request::Reload), first.join().unwrap()]
        })
    };
    let said = |answers: &[String; 2], text: &str| answers.iter().any(|answer| answer.contains(text));
    super::wait_for(
        || {
            let answers = two();
            assert!(said(&answers, "its mutex is held by"), "{answers:?}");
            said(&answers, "a reload by ") && said(&answers, " is under way; try again")
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
    let mut daemon = Daemon::start("create-waits", LENT);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    sit_in_mutex(&daemon, "main");
    daemon.config = "[[channel]]\nname = \"stays\"\n".to_owned();
    daemon.run(&[]);
    daemon.await_ready();
    // Waits for the mutex, for a second. Others are answered meanwhile.
    let create = || daemon.create("main", &[("mode", "handoff")], false).unwrap_err().to_string();
    let beside = |other: &(dyn Fn() -> String + Sync), expected: &[&str]| {
        super::wait_for(
            || {
                let (first, second) = std::thread::scope(|scope| {
                    let first = scope.spawn(create);
                    (other(), first.join().unwrap())
                });
                let held = "its mutex is held by";
                assert!(first.contains(held) || second.contains(held), "{first}\n{second}");
                expected.iter().any(|text| first.contains(text) || second.contains(text))
            },
            || daemon.log(),
        );
    };
    beside(&create, &["channel main: it is just being created; try again"]);
    let handoff = LENT.replace("[[channel]]\n", "[[channel]]\nname = \"main\"\n");
    fs::write(daemon.dir.join("shmd.toml"), format!("{}{handoff}", daemon.config)).unwrap();
    let reload = || daemon.refused(&Request::Reload);
    beside(&reload, &["channel main: a user is just creating it", "channel main: a reload is just creating it"]);
    // The end waits for none.
    let begun = || daemon.log().matches("event=create channel=main ").count();
    let told = std::thread::scope(|scope| {
        let before = begun();
        let waits = scope.spawn(create);
        super::wait_for(|| begun() > before, || daemon.log());
        daemon.signal(Signal::SIGTERM);
        waits.join().unwrap()
    });
    assert!(
        told.contains("it is not created: the daemon is stopping") || told.contains("its mutex is held by"),
        "{told}"
    );
    assert_eq!(daemon.wait(), Some(0), "{}", daemon.log());
    assert!(daemon.object("main").exists(), "what it could not take over is not its to remove");
    assert!(!daemon.run_dir().join("channels").exists());
}
