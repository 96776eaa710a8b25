//! Channels that are made and removed at run time.

mod common;
mod killed;

use std::collections::BTreeMap;
use std::fs;

use shm_proto::internal::control::Created;
use shm_proto::internal::control::stat::{ChannelStat, Summary};
use shm_proto::{Done, ErrorKind, Reader, ReaderError, Refusal, Request, RequestError, Start, Writer};

use super::{Daemon, PATIENCE, wait_for};

const MAIN: &str = "[[channel]]\nname = \"main\"\n";

impl Daemon {
    /// With a state directory of its own, and ready.
    fn with_state(name: &str, config: &str) -> Self {
        let mut daemon = Self::configured(name, "");
        daemon.config = format!("state_dir = {:?}\n{config}", daemon.dir.join("state"));
        daemon.come_back();
        daemon
    }

    pub(super) fn create(&self, name: &str, keys: &[(&str, &str)], keep: bool) -> Result<Created, RequestError> {
        match self.ask(&create(name, keys, keep))? {
            Done::Create(created) => Ok(created),
            other => panic!("{other:?}"),
        }
    }

    fn remove(&self, name: &str) -> Result<(), RequestError> {
        match self.ask(&Request::Remove { channel: name.parse().unwrap() })? {
            Done::Remove {} => Ok(()),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn summaries(&self) -> Vec<Summary> {
        match self.ask(&Request::List) {
            Ok(Done::List(channels)) => channels,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.summaries().iter().map(|summary| summary.channel.to_string()).collect()
    }

    fn stat_of(&self, name: &str) -> ChannelStat {
        match self.ask(&Request::Stat { channel: Some(name.parse().unwrap()) }) {
            Ok(Done::Stat(mut channels)) => channels.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// The files of channels that are not kept, and of those that are.
    fn files(&self) -> [Vec<String>; 2] {
        [self.run_dir().join("shmd.channels"), self.dir.join("state").join(&self.prefix)].map(|dir| {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        })
    }
}

fn create(name: &str, keys: &[(&str, &str)], keep: bool) -> Request {
    let keys: BTreeMap<_, _> = keys.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
    Request::Create { channel: name.parse().unwrap(), keys, keep }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(asked: Result<T, RequestError>, kind: ErrorKind, parts: &[&str]) -> Refusal {
    let Err(RequestError::Refused(refusal)) = asked else { panic!("{asked:?}") };
    assert_eq!(refusal.kind, kind, "{refusal}");
    for part in parts {
        assert!(refusal.message.contains(part), "{part:?} is not in {refusal}");
    }
    refusal
}

fn publish(daemon: &Daemon, name: &str, text: &[u8]) {
    Writer::attach(&daemon.endpoint(), Some(name)).unwrap().publish(text).unwrap();
}

fn attach(daemon: &Daemon, name: &str) -> Reader {
    Reader::attach(&daemon.endpoint(), Some(name), Start::Oldest).unwrap()
}

fn receive(reader: &mut Reader) -> Result<Vec<u8>, ReaderError> {
    let mut bytes = Vec::new();
    reader.recv_into(&mut bytes, Some(PATIENCE)).map(|_| bytes)
}

#[test]
fn a_channel_comes_and_goes_while_the_others_notice_nothing_and_nothing_of_it_is_left() {
    let mut daemon = Daemon::with_state("create", MAIN);
    let mut main = attach(&daemon, "main");
    for keep in [false, true] {
        let created =
            daemon.create("cam", &[("max", "4MiB"), ("capacity", "128KiB"), ("on_full", "drop")], keep).unwrap();
        assert_eq!((created.channel.as_str(), created.capacity, created.max), ("cam", 128 << 10, 4 << 20));
        assert_eq!((created.kept, created.source_waits), (keep, None));
        assert!(daemon.object("cam").exists());
        assert_eq!(daemon.files()[usize::from(keep)], ["cam.toml"]);
        let stat = daemon.stat_of("cam");
        let user = shm_proto::internal::os::process::user_name(nix::unistd::geteuid().as_raw());
        let by = stat.created.unwrap();
        assert_eq!((stat.capacity, stat.max, &by.user, by.kept), (128 << 10, 4 << 20, &user, keep));
        let listed = daemon.summaries();
        assert_eq!((&listed[0].created, listed[1].created.as_ref()), (&None, Some(&by)));
        publish(&daemon, "cam", b"hello");
        let mut reader = attach(&daemon, "cam");
        assert_eq!(receive(&mut reader).unwrap(), b"hello");
        daemon.remove("cam").unwrap();
        assert!(matches!(receive(&mut reader), Err(ReaderError::Closed { .. })));
        let farewell = reader.farewell().unwrap().to_owned();
        assert_eq!(farewell, format!("user {user} removed the channel"));
        assert!(!daemon.object("cam").exists(), "the answer comes when it is gone");
        assert_eq!((daemon.names(), daemon.files()), (vec!["main".to_owned()], [vec![], vec![]]));
        let log = daemon.log();
        assert!(log.contains(&format!(" by={user} kept={keep}")) && log.contains("event=remove channel=cam"), "{log}");
    }
    publish(&daemon, "main", b"still there");
    assert_eq!(receive(&mut main).unwrap(), b"still there");
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn a_stop_ends_what_is_not_kept_and_a_start_makes_what_is_kept() {
    let mut daemon = Daemon::with_state("create-stop", MAIN);
    daemon.create("goes", &[], false).unwrap();
    daemon.create("stays", &[("max", "2MiB"), ("align", "64")], true).unwrap();
    publish(&daemon, "stays", b"gone with the daemon");
    let (mut goes, made) = (attach(&daemon, "goes"), daemon.stat_of("stays").created.unwrap());
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
    assert!(matches!(receive(&mut goes), Err(ReaderError::Closed { .. })));
    assert_eq!(daemon.files(), [vec![], vec!["stays.toml".to_owned()]]);
    daemon.come_back();
    assert_eq!(daemon.names(), ["main", "stays"]);
    let stat = daemon.stat_of("stays");
    assert_eq!((stat.max, stat.align, stat.messages, stat.created), (2 << 20, 64, 0, Some(made)));
    daemon.remove("stays").unwrap();
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.come_back();
    assert_eq!(daemon.names(), ["main"]);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn a_daemon_that_is_killed_leaves_them_to_the_next_one_and_attached_programs_go_on() {
    let mut daemon = Daemon::with_state("create-killed", MAIN);
    for (name, keep) in [("kept", true), ("volatile", false)] {
        daemon.create(name, &[("max", "1MiB")], keep).unwrap();
    }
    let mut peers: Vec<_> = ["kept", "volatile"]
        .map(|name| (Writer::attach(&daemon.endpoint(), Some(name)).unwrap(), attach(&daemon, name)))
        .into();
    let exchange = |peers: &mut Vec<(Writer, Reader)>, text: &[u8]| {
        for (writer, reader) in peers {
            writer.publish(text).unwrap();
            assert_eq!(receive(reader).unwrap(), text);
        }
    };
    exchange(&mut peers, b"before");
    daemon.die();
    exchange(&mut peers, b"without a daemon");
    // A start that fails leaves them, too.
    let good = std::mem::take(&mut daemon.config);
    daemon.config = format!("{good}[[channel]]\nname = \"taken\"\n");
    fs::write(daemon.object("taken"), "somebody's").unwrap();
    daemon.run(&[]);
    assert_eq!(daemon.wait(), Some(1), "{}", daemon.log());
    fs::remove_file(daemon.object("taken")).unwrap();
    daemon.config = good;
    daemon.come_back();
    let adopted = daemon.log().matches("event=adopt channel=").count();
    assert!(adopted >= 3, "{}", daemon.log());
    wait_for(
        || {
            peers.iter_mut().for_each(|(writer, reader)| {
                writer.maintain().unwrap();
                assert!(reader.try_recv().unwrap().is_none());
                reader.arm().unwrap();
            });
            ["kept", "volatile"].iter().all(|name| {
                let stat = daemon.stat_of(name);
                stat.writer.is_some() && stat.readers.len() == 1
            })
        },
        || daemon.log(),
    );
    exchange(&mut peers, b"after");
    assert!(peers.iter().all(|(_, reader)| (reader.received(), reader.lost()) == (3, 0)));
    assert!(!daemon.log().contains("event=move"), "{}", daemon.log());
    drop(peers);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    // The directory is that of the daemon that was killed.
    assert_eq!(daemon.leftovers(), Vec::<std::path::PathBuf>::new());
    assert_eq!(daemon.files(), [vec![], vec!["kept.toml".to_owned()]]);
}

#[test]
fn a_reload_leaves_them_and_the_configuration_takes_one_over_with_its_readers() {
    let mut daemon = Daemon::with_state("create-reload", MAIN);
    let main = daemon.config.clone();
    for (name, keep) in [("cam", true), ("other", false)] {
        daemon.create(name, &[("max", "1MiB"), ("evict_after", "1s")], keep).unwrap();
    }
    let mut reader = attach(&daemon, "cam");
    let done = daemon.reload(&format!("{main}max_readers = 3\n")).unwrap();
    assert!(done.removed.is_empty() && done.created.is_empty() && done.kept.is_empty(), "{done:?}");
    assert_eq!(daemon.names(), ["main", "cam", "other"]);

    let done = daemon.reload(&format!("{main}[[channel]]\nname = \"cam\"\nmax = \"2MiB\"\n")).unwrap();
    let of = |changes: &[shm_proto::internal::control::Change]| {
        changes.iter().map(|change| format!("{} {}", change.key, change.new)).collect::<Vec<_>>()
    };
    assert!(of(&done.changed).contains(&"origin configuration".to_owned()), "{done:?}");
    assert!(of(&done.changed).contains(&"evict_after \"30s\"".to_owned()), "{done:?}");
    assert!(of(&done.kept).contains(&"max \"2MiB\"".to_owned()), "{done:?}");
    assert!(done.created.is_empty() && done.removed.is_empty(), "{done:?}");
    assert_eq!(daemon.stat_of("cam").created, None);
    assert_eq!(daemon.files(), [vec!["other.toml".to_owned()], vec![]]);
    publish(&daemon, "cam", b"on");
    assert_eq!(receive(&mut reader).unwrap(), b"on");
    refused(daemon.remove("cam"), ErrorKind::Configured, &["channel cam", "configuration", "shmctl reload"]);
    // From now on it goes as it came.
    let done = daemon.reload(&main).unwrap();
    assert_eq!(done.removed.len(), 1);
    assert_eq!(daemon.names(), ["main", "other"]);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn the_configuration_wins_at_a_start_and_what_cannot_be_made_keeps_nobody_from_starting() {
    let mut daemon = Daemon::with_state("create-start", MAIN);
    for name in ["cam", "taken", "faulty"] {
        daemon.create(name, &[("max", "1MiB")], true).unwrap();
    }
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    let good = daemon.config.clone();
    daemon.config = format!("{good}[[channel]]\nname = \"cam\"\nmax = \"8MiB\"\n");
    let faulty = daemon.dir.join("state").join(&daemon.prefix).join("faulty.toml");
    let text = fs::read_to_string(&faulty).unwrap();
    fs::write(&faulty, text.replace("1MiB", "much")).unwrap();
    fs::write(daemon.object("taken"), "somebody's").unwrap();
    daemon.come_back();
    assert_eq!(daemon.names(), ["main", "cam"]);
    let stat = daemon.stat_of("cam");
    assert_eq!((stat.max, stat.created), (8 << 20, None));
    let log = daemon.log();
    assert!(log.contains("event=forget channel=cam reason=\"the configuration has a channel of this name\""), "{log}");
    for (name, reason) in [("taken", "has this name"), ("faulty", "key max: ")] {
        let line =
            log.lines().find(|line| line.contains(&format!("event=create-failed channel={name} "))).unwrap_or(&log);
        assert!(line.contains(reason), "{line}");
    }
    // Their files stay, and a channel of the name can be made.
    assert_eq!(daemon.files()[1], ["faulty.toml", "taken.toml"]);
    daemon.create("faulty", &[], false).unwrap();
    assert_eq!(daemon.files(), [vec!["faulty.toml".to_owned()], vec!["taken.toml".to_owned()]]);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    fs::remove_file(daemon.object("taken")).unwrap();
    daemon.config = good;
    daemon.come_back();
    assert_eq!(daemon.names(), ["main", "taken"]);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut daemon = Daemon::with_state("create-refused", MAIN);
    let create = |name: &str, keys: &[(&str, &str)]| daemon.create(name, keys, false);
    refused(create("main", &[]), ErrorKind::ChannelExists, &["channel main", "the configuration's"]);
    create("cam", &[]).unwrap();
    refused(create("cam", &[]), ErrorKind::ChannelExists, &["channel cam", "created by"]);
    refused(create("x", &[("max", "much")]), ErrorKind::BadConfig, &["channel x: key max: \"much\" is not a size"]);
    refused(create("x", &[("maks", "1MiB")]), ErrorKind::BadConfig, &["unknown key \"maks\""]);
    refused(create("x", &[("source", "stdin")]), ErrorKind::BadConfig, &["standard input"]);
    fs::write(daemon.object("x"), "somebody's").unwrap();
    refused(create("x", &[]), ErrorKind::NoSpace, &["channel x", "has this name"]);
    fs::remove_file(daemon.object("x")).unwrap();
    refused(daemon.remove("main"), ErrorKind::Configured, &["channel main"]);
    let missing = refused(daemon.remove("x"), ErrorKind::NoSuchChannel, &["no channel named x"]);
    assert_eq!(missing.channels.len(), 2);
    assert_eq!(daemon.names(), ["main", "cam"]);
    assert_eq!(daemon.files(), [vec!["cam.toml".to_owned()], vec![]]);
    assert!(daemon.log().contains("event=create-failed channel=x by="), "{}", daemon.log());
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    // Where there is no directory, nothing is kept.
    daemon.config = format!("state_dir = \"\"\n{MAIN}");
    daemon.come_back();
    refused(daemon.create("x", &[], true), ErrorKind::Internal, &["state_dir", "--keep"]);
    // What cannot be written is not created.
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.config = format!("state_dir = \"/proc/none\"\n{MAIN}");
    daemon.come_back();
    refused(daemon.create("x", &[], true), ErrorKind::NoSpace, &["channel x: its file in /proc/none"]);
    assert!(!daemon.object("x").exists());
    daemon.create("x", &[], false).unwrap();
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn a_removal_waits_for_the_writer_and_the_name_is_free_then() {
    let mut daemon = Daemon::with_state("create-writer", MAIN);
    daemon.create("cam", &[], true).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), Some("cam")).unwrap();
    writer.publish(b"one").unwrap();
    let mut reader = attach(&daemon, "cam");
    std::thread::scope(|scope| {
        let removing = scope.spawn(|| daemon.remove("cam").unwrap());
        wait_for(|| daemon.log().contains("event=remove channel=cam"), || daemon.log());
        // It never looks, and is not waited for any longer than a second. The name is not free before that.
        if !removing.is_finished() {
            let again = daemon.create("cam", &[], false);
            let is_busy = matches!(&again, Err(RequestError::Refused(refusal)) if refusal.kind == ErrorKind::Busy);
            assert!(again.is_ok() || is_busy, "{again:?}");
        }
        removing.join().unwrap();
    });
    if daemon.names().len() == 1 {
        daemon.create("cam", &[], false).unwrap();
    }
    assert!(writer.publish(b"two").is_err());
    assert_eq!(receive(&mut reader).unwrap(), b"one");
    assert!(receive(&mut reader).is_err());
    publish(&daemon, "cam", b"of another channel");
    assert_eq!(receive(&mut attach(&daemon, "cam")).unwrap(), b"of another channel");
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn the_daemons_user_may_give_one_a_source_or_hand_over_messages() {
    let mut daemon = Daemon::with_state("create-source", MAIN);
    let at = |name: &str| daemon.dir.join(name).display().to_string();
    let fifo = format!("fifo:{}", at("in"));
    daemon.create("fed", &[("source", &fifo)], true).unwrap();
    refused(daemon.create("fed2", &[("source", &fifo)], false), ErrorKind::BadConfig, &["feeds channel fed already"]);
    let later = format!("unix:{}", at("later/in"));
    let waits = daemon.create("waits", &[("source", &later)], true).unwrap();
    assert!(waits.source_waits.as_deref().unwrap_or_default().contains("No such file"), "{waits:?}");
    daemon.create("hand", &[("mode", "handoff")], false).unwrap();
    let feed = |daemon: &Daemon, text: &str| {
        fs::write(daemon.dir.join("in"), format!("{text}\n")).unwrap();
        assert_eq!(receive(&mut attach(daemon, "fed")).unwrap(), text.as_bytes());
    };
    feed(&daemon, "one");
    // The next daemon starts although one source cannot be opened.
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(!daemon.dir.join("in").exists());
    daemon.come_back();
    assert_eq!(daemon.names(), ["main", "fed", "waits"]);
    feed(&daemon, "two");
    fs::create_dir(daemon.dir.join("later")).unwrap();
    wait_for(|| daemon.dir.join("later/in").exists(), || daemon.log());
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn many_are_created_and_removed_at_once_and_nothing_is_left() {
    let mut daemon = Daemon::with_state("create-many", MAIN);
    std::thread::scope(|scope| {
        for number in 0..6 {
            let daemon = &daemon;
            scope.spawn(move || {
                for round in 0..5 {
                    let (name, keep) = (format!("c{number}"), round % 2 == 0);
                    daemon.create(&name, &[("capacity", "256KiB"), ("max", "256KiB")], keep).unwrap();
                    publish(daemon, &name, b"x");
                    assert_eq!(receive(&mut attach(daemon, &name)).unwrap(), b"x");
                    daemon.remove(&name).unwrap();
                }
            });
        }
    });
    assert_eq!((daemon.names(), daemon.files()), (vec!["main".to_owned()], [vec![], vec![]]));
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}
