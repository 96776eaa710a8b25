//! The operation log outlives the daemon that kept it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use shm_proto::internal::control::log::{LogEntry, LogEvent, Value};
use shm_proto::{Reader, Start};

use crate::log::entries;
use crate::{Daemon, wait_for};

const PLAIN: &str = "[[channel]]\nname = \"main\"\n";

fn file(daemon: &Daemon) -> PathBuf {
    daemon.run_dir().join("shmd.operations")
}

fn pid(daemon: &Daemon) -> u64 {
    daemon.child.as_ref().unwrap().id().into()
}

/// All that the daemon has told, when all of it is in the file.
fn saved(daemon: &Daemon) -> Vec<LogEntry> {
    let all = entries(daemon, 0, None);
    let last = format!("{{\"seq\":{},", all.last().unwrap().seq);
    wait_for(|| fs::read_to_string(file(daemon)).unwrap().contains(&last), || daemon.log());
    all
}

fn come_and_go(daemon: &Daemon, times: usize) {
    let gone = daemon.log().matches("event=detach").count();
    drop(Reader::attach(&daemon.endpoint(), None, Start::New).unwrap());
    wait_for(|| daemon.log().matches("event=detach").count() > gone, || daemon.log());
    if times > 1 {
        come_and_go(daemon, times - 1);
    }
}

/// That the log is what it was before, then says that the daemon died, and then goes on.
fn assert_goes_on(before: &[LogEntry], after: &[LogEntry], dead: u64) {
    assert_eq!(after[..before.len()], *before);
    let new = &after[before.len()..];
    assert_eq!(
        new.iter().map(|entry| entry.event.as_str()).collect::<Vec<_>>(),
        ["died", "start", "adopt", "replace", "ready"]
    );
    assert_eq!(new[0].fields.get("pid"), Some(&Value::Number(dead)));
    let numbers = after.iter().map(|entry| entry.seq);
    assert!(numbers.eq(1..=after.len() as u64), "{after:?}");
}

#[test]
fn the_log_is_what_it_was_then_says_that_the_daemon_died_and_goes_on() {
    let mut daemon = Daemon::start("crashed-log", PLAIN);
    for round in 1..=4 {
        come_and_go(&daemon, 3);
        let (before, dead) = (saved(&daemon), pid(&daemon));
        daemon.die();
        daemon.come_back();
        let after = entries(&daemon, 0, None);
        assert_goes_on(&before, &after, dead);
        assert_eq!(after.iter().filter(|entry| entry.event == LogEvent::Died).count(), round);
    }
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(fs::read_dir(daemon.run_dir()).unwrap().count(), 0);
    // A stop is no death.
    daemon.come_back();
    assert!(entries(&daemon, 0, None).iter().all(|entry| entry.event != LogEvent::Died));
    assert_eq!(daemon.stop(), Some(0));
}

/// A directory in memory, removed at the end.
struct InMemory(PathBuf);

impl Drop for InMemory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn in_a_directory_in_memory_not_one_entry_is_missing_that_anybody_has_seen() {
    let mut daemon = Daemon::configured("crashed-memory", PLAIN);
    let dir = InMemory(PathBuf::from("/dev/shm").join(format!("{}-dir", daemon.prefix)));
    fs::rename(&daemon.dir, daemon.dir.with_extension("old")).unwrap();
    fs::remove_dir(daemon.dir.with_extension("old")).unwrap();
    fs::create_dir(&dir.0).unwrap();
    fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o700)).unwrap();
    symlink(&dir.0, &daemon.dir).unwrap();
    daemon.come_back();
    for _ in 0..10 {
        come_and_go(&daemon, 1);
        let (before, dead) = (entries(&daemon, 0, None), pid(&daemon));
        daemon.die();
        daemon.come_back();
        assert_goes_on(&before, &entries(&daemon, 0, None), dead);
    }
    assert_eq!(daemon.stop(), Some(0));
    let link = daemon.dir.to_path_buf();
    drop(daemon);
    let _ = fs::remove_file(link);
}

#[test]
fn an_entry_that_was_not_finished_is_left_out() {
    let mut daemon = Daemon::start("crashed-torn", PLAIN);
    come_and_go(&daemon, 1);
    let (before, dead) = (saved(&daemon), pid(&daemon));
    daemon.die();
    let bytes = fs::read(file(&daemon)).unwrap();
    fs::write(file(&daemon), &bytes[..bytes.len() - 3]).unwrap();
    daemon.come_back();
    let after = entries(&daemon, 0, None);
    assert_goes_on(&before[..before.len() - 1], &after, dead);
    let died = after.iter().find(|entry| entry.event == LogEvent::Died).unwrap();
    assert_eq!(died.fields.get("unfinished"), Some(&Value::Text("the last entry".to_owned())));
}

#[test]
fn a_file_that_cannot_be_trusted_is_set_aside_and_the_log_says_why() {
    let mut daemon = Daemon::start("crashed-bad", PLAIN);
    let aside = daemon.run_dir().join("shmd.operations.bad");
    let elsewhere = daemon.dir.join("elsewhere");
    fs::write(&elsewhere, "somebody's\n").unwrap();
    let mut bad = |change: &dyn Fn(&mut Daemon), why: &str| {
        daemon.die();
        change(&mut daemon);
        daemon.come_back();
        let all = entries(&daemon, 0, None);
        assert_eq!((all[0].event.as_str(), all[0].seq), ("replace", 1), "{all:?}");
        assert!(
            all[0].to_string().contains(why) && all[0].to_string().contains("kept_as=shmd.operations.bad"),
            "{}",
            all[0]
        );
        assert!(all.iter().all(|entry| entry.event != LogEvent::Died));
        assert!(aside.symlink_metadata().is_ok());
        saved(&daemon);
    };
    let append = |text: &'static str| {
        move |daemon: &mut Daemon| {
            let all = fs::read_to_string(file(daemon)).unwrap() + text;
            fs::write(file(daemon), all).unwrap();
        }
    };
    bad(&append("{}\n"), "missing field `seq`");
    bad(&append("\0\0\0\0\n"), "expected value");
    bad(&|daemon| fs::write(file(daemon), "").unwrap(), "no first line");
    bad(
        &|daemon| fs::set_permissions(file(daemon), fs::Permissions::from_mode(0o666)).unwrap(),
        "its mode is 0666, a daemon makes it 0600",
    );
    bad(&|daemon| fs::hard_link(file(daemon), daemon.dir.join("second")).unwrap(), "it has 2 names");
    let link = elsewhere.clone();
    bad(
        &move |daemon| {
            fs::remove_file(file(daemon)).unwrap();
            symlink(&link, file(daemon)).unwrap();
        },
        "it is a symbolic link",
    );
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "somebody's\n");
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(fs::read_dir(daemon.run_dir()).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "somebody's\n");
}

#[test]
fn a_start_that_fails_after_a_death_does_not_take_the_log_with_it() {
    let mut daemon = Daemon::start("crashed-failed", PLAIN);
    let before = saved(&daemon);
    daemon.die();
    let taken = daemon.run_dir().join("nothing/here");
    daemon.config = format!("{PLAIN}source = \"fifo:{}\"\n", taken.display());
    daemon.run(&[]);
    assert_eq!(daemon.wait(), Some(1));
    daemon.config = PLAIN.to_owned();
    daemon.come_back();
    let after = entries(&daemon, 0, None);
    assert_eq!(after[..before.len()], before);
    let deaths = after.iter().filter(|entry| entry.event == LogEvent::Died).count();
    assert_eq!(deaths, 2, "{after:?}");
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(fs::read_dir(daemon.run_dir()).unwrap().count(), 0);
}
