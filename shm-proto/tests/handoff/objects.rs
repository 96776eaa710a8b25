//! The objects under their names: made, found stale, taken over, refused, removed.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use shm_proto::internal::handoff::{Origin, Progress, Reader, Settings, Writer};
use shm_proto::internal::os::{named_sem, reserve, shm};
use shm_proto::{HandoffError, SystemError};

use shm_test_support::{Handoff, NOBODY, may_change_user, pattern, soon, wait_until};

const LONG: Option<Duration> = Some(Duration::from_secs(60));

fn refusal(settings: Settings) -> String {
    match Writer::create(settings) {
        Err(HandoffError::System(SystemError { action, source, .. }))
            if source.kind() == std::io::ErrorKind::AlreadyExists =>
        {
            format!("{action}: {source}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_objects_have_exactly_the_mode_asked_for_and_go_with_the_writer() {
    let place = Handoff::new();
    let writer = Writer::create(Settings { mode: 0o666, ..place.settings() }).unwrap();
    assert_eq!(writer.origin(), Origin::Created);
    let paths =
        [format!("/dev/shm{}", place.0.segment), named_sem::path(&place.0.avail), named_sem::path(&place.0.done)];
    for path in paths {
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o666, "{path}");
    }
    drop(writer);
    assert!(place.is_clean());
}

#[test]
fn a_second_writer_is_refused_while_the_first_one_lives() {
    let place = Handoff::new();
    let _first = Writer::create(place.settings()).unwrap();
    let message = refusal(place.settings());
    assert!(message.contains(&place.0.segment) && message.contains("another writer"), "{message}");
}

#[test]
fn what_a_killed_writer_left_is_adopted_and_a_waiting_reader_in_c_goes_on() {
    if !Handoff::has_peers() {
        return;
    }
    let place = Handoff::new();
    let mut first = Writer::create(place.settings()).unwrap();
    let mut reader = place.peer("read", &["2", "0"]);
    reader.says("open");
    assert_eq!(first.publish(&pattern(0, 10), LONG).unwrap(), Progress::Acknowledged);
    // Asleep, so that its semaphore says so when it is copied.
    wait_until("the reader waits", || std::fs::read(named_sem::path(&place.0.avail)).unwrap()[4..8] != [0; 4]);
    // As if it had been killed: the names stay, the lock goes.
    leave(first);
    let mut second = Writer::create(place.settings()).unwrap();
    assert_eq!(second.origin(), Origin::Adopted { pending: None });
    assert_eq!(second.publish(&pattern(1, 10_000), LONG).unwrap(), Progress::Acknowledged);
    reader.says("10 good");
    reader.says("10000 good");
    reader.ends();
}

#[test]
fn a_message_that_a_killed_writer_left_on_offer_is_withdrawn_with_its_counts() {
    let place = Handoff::new();
    let mut first = Writer::create(place.settings()).unwrap();
    first.offer(b"never read").unwrap();
    leave(first);
    let mut second = Writer::create(place.settings()).unwrap();
    assert_eq!(second.origin(), Origin::Adopted { pending: Some(10) });
    let names = place.0.clone();
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        Reader::new(names).recv(&mut bytes, LONG).unwrap();
        bytes
    });
    assert_eq!(second.publish(b"new", LONG).unwrap(), Progress::Acknowledged);
    assert_eq!(reading.join().unwrap(), b"new");
}

/// Ends a writer as SIGKILL does, in so far as another process can see that.
fn leave(writer: Writer) {
    let names = writer.settings().names.clone();
    let keep = |path: String| std::fs::hard_link(&path, format!("{path}.kept")).unwrap();
    let back = |path: String| std::fs::rename(format!("{path}.kept"), path).unwrap();
    let paths = || {
        let (segment, avail, done) = (&names.segment, &names.avail, &names.done);
        [format!("/dev/shm{segment}"), named_sem::path(avail), named_sem::path(done)]
    };
    let header = std::fs::read(&paths()[0]).unwrap();
    let counts: Vec<_> = paths()[1..].iter().map(|path| std::fs::read(path).unwrap()).collect();
    paths().into_iter().for_each(keep);
    drop(writer);
    paths().into_iter().for_each(back);
    // Dropping it has withdrawn what was on offer.
    std::fs::write(&paths()[0], header).unwrap();
    for (path, bytes) in paths()[1..].iter().zip(counts) {
        std::fs::write(path, bytes).unwrap();
    }
}

#[test]
fn what_a_writer_in_c_left_is_replaced_when_nobody_uses_it_and_refused_when_somebody_does() {
    if !Handoff::has_peers() {
        return;
    }
    let place = Handoff::new();
    let mut c_writer = place.peer("write", &["10"]);
    c_writer.says("open");
    let message = refusal(place.settings());
    assert!(message.contains(&c_writer.child.id().to_string()), "{message}");
    c_writer.kill();
    let writer = Writer::create(place.settings()).unwrap();
    assert_eq!(writer.origin(), Origin::Replaced);
    drop(writer);
    assert!(place.is_clean());
}

#[test]
fn a_left_over_semaphore_count_reaches_no_reader() {
    let place = Handoff::new();
    let left = named_sem::NamedSemaphore::create(&place.0.avail, 0o600, None).unwrap();
    (0..5).for_each(|_| left.post());
    let mut writer = Writer::create(place.settings()).unwrap();
    assert_eq!(writer.origin(), Origin::Created);
    let mut reader = Reader::new(place.0.clone());
    writer.offer(b"x").unwrap();
    reader.recv(&mut Vec::new(), LONG).unwrap();
    drop(reader);
    assert_eq!(writer.progress(soon()).unwrap(), Progress::Acknowledged);
    assert_eq!(writer.counters().stray_posts, 0);
}

#[test]
fn a_reader_started_on_stale_semaphores_changes_to_the_new_ones() {
    if !Handoff::has_peers() {
        return;
    }
    let place = Handoff::new();
    let mut killed = place.peer("write", &["10", "20"]);
    killed.says("open");
    let mut reader = Reader::new(place.0.clone());
    let mut bytes = Vec::new();
    reader.recv(&mut bytes, LONG).unwrap();
    killed.kill();
    let names = place.0.clone();
    let reading = std::thread::spawn(move || {
        // Nothing acknowledges the first message here: this reader has the old semaphores open at first.
        let mut reader = Reader::new(names);
        let mut bytes = Vec::new();
        reader.recv(&mut bytes, LONG).unwrap();
        bytes.len()
    });
    place.await_sleeper();
    let mut again = place.peer("write", &["77"]);
    again.says("open");
    again.says("acknowledged");
    again.ends();
    assert_eq!(reading.join().unwrap(), 77);
}

#[test]
fn a_page_of_something_else_under_the_name_is_replaced_only_when_it_is_ours() {
    let place = Handoff::new();
    let file = shm::create(&place.0.segment, 0o600, None).unwrap();
    reserve::now(file.as_fd(), 100).unwrap();
    assert_eq!(Writer::create(place.settings()).unwrap().origin(), Origin::Replaced);
    if !may_change_user() {
        return;
    }
    let file = shm::create(&place.0.segment, 0o666, None).unwrap();
    nix::unistd::fchown(&file, Some(NOBODY.uid.into()), None).unwrap();
    let message = refusal(place.settings());
    assert!(message.contains("user nobody's object"), "{message}");
}
