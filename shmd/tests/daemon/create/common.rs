//! Channels that would have something in common: an object, a source, or a name.

use std::fs;

use shm_proto::ErrorKind;

use super::{Daemon, MAIN, refused};

#[test]
fn one_that_would_have_an_object_or_the_source_of_another_is_refused_by_the_name_of_that_one() {
    let hand = "[[channel]]\nname = \"hand\"\nmode = \"handoff\"\n";
    let mut daemon = Daemon::with_state("create-common", &format!("{MAIN}{hand}"));
    let good = daemon.config.clone();
    let feed = format!("/{}.hand.feed is one of channel hand; choose another name", daemon.prefix);
    refused(daemon.create("hand.feed", &[], false), ErrorKind::ChannelExists, &["channel hand.feed", &feed]);
    // The other way round: the channel was there before the configuration had the other.
    daemon.create("late.feed", &[], false).unwrap();
    let late = format!("{good}[[channel]]\nname = \"late\"\nmode = \"handoff\"\n");
    let way = "is one of channel late.feed, and late.feed was created at run time; remove it (shmctl remove late.feed)";
    refused(daemon.reload(&late), ErrorKind::BadConfig, &["nothing was changed: channel late: ", way]);
    let fifo = format!("fifo:{}", daemon.dir.join("in").display());
    daemon.create("fed", &[("source", &fifo)], true).unwrap();
    let fed = format!("{good}[[channel]]\nname = \"other\"\nsource = {fifo:?}\n");
    refused(daemon.reload(&fed), ErrorKind::BadConfig, &["channel other: ", "feeds channel fed already"]);
    assert_eq!(daemon.names(), ["main", "hand", "late.feed", "fed"]);
    // At a start the configuration is first, and the channel's file waits for the next start.
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.come_back();
    assert_eq!(daemon.names(), ["main", "hand", "other"]);
    let log = daemon.log();
    let failed = log.lines().find(|line| line.contains("event=create-failed channel=fed ")).unwrap_or(&log);
    assert!(failed.contains("feeds channel other already"), "{failed}");
    assert_eq!(daemon.files()[1], ["fed.toml"]);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn a_channel_that_could_not_be_made_again_is_forgotten_when_another_has_taken_its_name_and_not_before() {
    let mut daemon = Daemon::with_state("create-again", MAIN);
    daemon.create("cam", &[("max", "2MiB")], true).unwrap();
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    fs::write(daemon.object("cam"), "somebody's").unwrap();
    daemon.come_back();
    assert_eq!(daemon.names(), ["main"]);
    fs::remove_file(daemon.object("cam")).unwrap();
    // The file of the other one cannot be written.
    let volatile = daemon.run_dir().join("shmd.channels");
    fs::write(&volatile, "").unwrap();
    refused(daemon.create("cam", &[], false), ErrorKind::NoSpace, &["channel cam: its file in ", "cannot be written"]);
    assert_eq!(daemon.files()[1], ["cam.toml"]);
    fs::remove_file(&volatile).unwrap();
    daemon.create("cam", &[], false).unwrap();
    assert_eq!(daemon.files(), [vec!["cam.toml".to_owned()], vec![]]);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}
