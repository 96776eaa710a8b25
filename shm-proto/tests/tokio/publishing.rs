//! A writer in a task.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use shm_proto::{AsyncReader, AsyncWriter, Start, WriterError};
use shm_test_support::{Daemon, joined};
use tokio::time::sleep;

use crate::{payload, run};

const SMALL: &str = "[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"0\"\n";

/// Publishes until the ring is full, and returns the number of the message that has no space.
async fn fill(writer: &mut AsyncWriter) -> u64 {
    let writer = writer.get_mut().await.unwrap();
    for seq in 0.. {
        match writer.try_publish(&payload(seq)) {
            Ok(published) => assert_eq!(published, Some(seq)),
            Err(WriterError::WouldBlock { .. }) => return seq,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("the ring is full at some time")
}

#[test]
fn a_full_channel_lets_the_reader_on_the_same_thread_run() {
    let daemon = Daemon::start(SMALL);
    let reader = daemon.reader(Start::New);
    let endpoint = daemon.endpoint();
    run(async move {
        let mut writer = AsyncWriter::attach(&endpoint, None).await.unwrap();
        let mut reader = AsyncReader::new(reader).unwrap();
        let full = fill(&mut writer).await;
        let publish = async {
            for seq in full..3000 {
                assert_eq!(writer.publish(&payload(seq)).await.unwrap(), Some(seq));
            }
        };
        let receive = async {
            let mut bytes = Vec::new();
            for seq in 0..3000 {
                assert_eq!(reader.recv_into(&mut bytes).await.unwrap().seq, seq);
                assert_eq!(bytes, payload(seq));
            }
        };
        tokio::join!(publish, receive);
    });
}

#[test]
fn a_publish_that_is_cancelled_while_it_waits_has_published_nothing() {
    let daemon = Daemon::start(SMALL);
    let reader = daemon.reader(Start::New);
    let writer = daemon.writer();
    run(async move {
        let mut writer = AsyncWriter::new(writer).unwrap();
        let mut reader = AsyncReader::new(reader).unwrap();
        let full = fill(&mut writer).await;
        assert_eq!(writer.get_mut().await.unwrap().messages(), full);
        let waiting = payload(full);
        for _ in 0..3 {
            tokio::select! {
                published = writer.publish(&waiting) => panic!("{published:?}"),
                () = sleep(Duration::from_millis(1)) => {}
            }
        }
        let last = async {
            assert_eq!(writer.publish(&waiting).await.unwrap(), Some(full));
            let mut slot = writer.reserve(3).await.unwrap().unwrap();
            slot.copy_from_slice(b"end");
            assert_eq!(slot.commit(3).unwrap(), full + 1);
        };
        let receive = async {
            let mut bytes = Vec::new();
            for seq in 0..=full {
                assert_eq!(reader.recv_into(&mut bytes).await.unwrap().seq, seq);
                assert_eq!(bytes, payload(seq));
            }
            assert_eq!(reader.recv_into(&mut bytes).await.unwrap().seq, full + 1);
            assert_eq!(bytes, b"end");
        };
        tokio::join!(last, receive);
    });
}

#[test]
fn a_publish_waits_for_the_acknowledgement_of_a_reader_on_the_same_thread() {
    let daemon = Daemon::start("[[channel]]\nack = true\nack_timeout = \"100s\"\nevict_after = \"0\"\n");
    let (reader, writer) = (daemon.reader(Start::New), daemon.writer());
    run(async move {
        let mut writer = AsyncWriter::new(writer).unwrap();
        let mut reader = AsyncReader::new(reader).unwrap();
        for seq in 0..20 {
            let receive = async {
                if seq == 0 {
                    // Past the first slice of the wait.
                    sleep(Duration::from_millis(120)).await;
                }
                let mut bytes = Vec::new();
                reader.recv_into(&mut bytes).await
            };
            let payload = payload(seq);
            let (published, received) = tokio::join!(writer.publish(&payload), receive);
            assert_eq!((published.unwrap(), received.unwrap().seq), (Some(seq), seq));
        }
    });
}

#[test]
fn a_publish_that_no_reader_acknowledges_in_time_says_so() {
    let daemon = Daemon::start("[[channel]]\nack = true\nack_timeout = \"120ms\"\nevict_after = \"0\"\n");
    let (reader, writer) = (daemon.reader(Start::New), daemon.writer());
    run(async move {
        let mut writer = AsyncWriter::new(writer).unwrap();
        let error = writer.publish(b"unread").await.unwrap_err();
        assert!(matches!(error, WriterError::Unacknowledged { seq: 0, behind: 1, ended: None, .. }), "{error}");
        drop(reader);
    });
}

#[test]
fn a_writer_that_attends_lets_the_channel_shrink_and_hears_that_its_role_is_over() {
    let mut daemon = Daemon::start("");
    let writer = daemon.writer();
    let attending = thread::spawn(|| run(async move { AsyncWriter::new(writer).unwrap().attend().await }));
    daemon.cli(&["resize", "--bytes", "64KiB"]).quiet();
    daemon.until_stat("the shrink is in effect", |stat| stat.capacity == 64 << 10 && stat.pending.is_none());
    daemon.stop(Signal::SIGTERM);
    let ended = joined(attending);
    assert!(matches!(ended, WriterError::Revoked { .. }), "{ended}");
}
