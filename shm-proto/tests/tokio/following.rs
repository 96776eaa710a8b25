//! A follower in a task.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::thread;
use std::time::Duration;

use futures_core::Stream;
use nix::sys::signal::Signal;
use shm_proto::{
    AsyncFollower, Attachment, Endpoint, Error, ErrorKind, Follower, Notice, ReaderError, RequestError, Start,
};
use shm_test_support::{Daemon, Place, Setup, joined};
use tokio::time::sleep;

use crate::receiving::{end, writing_process};
use crate::run;

#[test]
fn it_outlives_daemons_and_says_why_it_waits() {
    let place = Place::new();
    let endpoint = Endpoint::in_dir(&place.run_dir());
    let (say, heard) = std::sync::mpsc::channel::<String>();
    let following = thread::spawn(move || {
        run(async move {
            let follower = Follower::new(endpoint, None, Start::Oldest).unwrap();
            let mut follower = AsyncFollower::new(follower).unwrap();
            let mut bytes = Vec::new();
            loop {
                tokio::select! {
                    received = follower.recv_into(&mut bytes) => {
                        let received = received.unwrap();
                        assert_eq!(received.lost_before, 0);
                        let text = String::from_utf8(bytes.clone()).unwrap();
                        say.send(format!("{} {text}", received.seq)).unwrap();
                        if text == "end" {
                            return;
                        }
                    }
                    () = sleep(Duration::from_millis(2)) => {
                        if let Some(Notice::Waiting { why, .. }) = follower.get_mut().await.unwrap().notice() {
                            let absent = matches!(why, Error::Request(RequestError::NoDaemon { .. }));
                            say.send(if absent { "no daemon".to_owned() } else { why.to_string() }).unwrap();
                        }
                    }
                }
            }
        });
    });
    let next = || heard.recv_timeout(shm_test_support::PATIENCE).unwrap();
    assert_eq!(next(), "no daemon");
    let mut daemon = Setup::new("").start_in(place);
    daemon.write_lines("one\ntwo\n");
    assert_eq!([next(), next()], ["0 one", "1 two"]);
    daemon.stop(Signal::SIGTERM);
    assert_eq!(next(), "channel main is closed");
    daemon.launch(Setup::new(""));
    daemon.write_lines("of a new segment\nend\n");
    assert_eq!([next(), next()], ["0 of a new segment", "1 end"]);
    joined(following);
}

#[test]
fn as_a_stream_it_ends_with_the_error_that_attaching_again_does_not_help_against() {
    let daemon = Daemon::start("[[channel]]\nname = \"cam\"\n");
    let endpoint = daemon.endpoint();
    run(async move {
        let follower = Follower::new(endpoint, Some("cma"), Start::New).unwrap();
        let mut follower = AsyncFollower::new(follower).unwrap();
        let error = poll_fn(|cx| Pin::new(&mut follower).poll_next(cx)).await.unwrap().unwrap_err();
        assert_eq!(error.refusal(), Some(ErrorKind::NoSuchChannel));
        assert!(poll_fn(|cx| Pin::new(&mut follower).poll_next(cx)).await.is_none());
    });
}

/// One and the same message comes next, whatever was cancelled while the follower attached.
#[test]
fn cancelling_while_it_attaches_loses_nothing() {
    let daemon = Daemon::start("");
    daemon.write_lines("one\ntwo\n");
    let endpoint = daemon.endpoint();
    run(async move {
        let follower = Follower::new(endpoint, None, Start::Oldest).unwrap();
        let mut follower = AsyncFollower::new(follower).unwrap();
        for (seq, text) in [(0, "one"), (1, "two")] {
            let mut bytes = Vec::new();
            // A new future for each poll.
            let received = poll_fn(|cx| pin!(follower.recv_into(&mut bytes)).poll(cx)).await.unwrap();
            assert_eq!((received.seq, bytes), (seq, text.as_bytes().to_vec()));
        }
    });
}

/// As for a reader: nothing but a timer wakes the task.
#[test]
fn the_end_of_a_writer_that_has_outlived_the_daemon_is_noticed() {
    let mut daemon = Daemon::start("");
    let endpoint = daemon.endpoint().with_patience(Duration::ZERO);
    let mut follower = Follower::new(endpoint, None, Start::Oldest).unwrap().once();
    assert!(follower.try_recv().unwrap().is_none() && follower.is_attached());
    daemon.kill();
    let mut writer = writing_process(&daemon);
    run(async move {
        let mut follower = AsyncFollower::new(follower).unwrap();
        let is_alone = |follower: &mut Follower| match follower.attachment() {
            Ok(Some(Attachment::Ring(reader))) => reader.is_disconnected(),
            other => panic!("{other:?}"),
        };
        while !is_alone(follower.get_mut().await.unwrap()) {
            tokio::select! {
                received = follower.recv() => panic!("{received:?}"),
                () = sleep(Duration::from_millis(1)) => {}
            }
        }
        let ended = poll_fn(|cx| {
            let polled = pin!(async { follower.recv().await.map(drop) }).poll(cx);
            if polled.is_pending() {
                end(&mut writer);
            }
            polled
        });
        assert!(matches!(ended.await, Err(Error::Reader(ReaderError::Disconnected { .. }))));
        writer.wait().ok();
    });
}
