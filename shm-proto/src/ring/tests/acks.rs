//! Publishing that waits for acknowledgement, and publishing that does not wait.

use super::*;

fn acked(capacity: u64) -> Geometry {
    Geometry { ack: true, ack_timeout_ms: 20, ..geometry(capacity) }
}

#[test]
fn published_and_unacknowledged_is_not_unpublished() {
    let mut channel = TestChannel::new(4096, Geometry { evict_after_ms: 0, ..acked(4096) });
    let mut readers = [channel.reader(Start::Oldest), channel.reader(Start::Oldest)];
    let mut writer = channel.writer();
    let error = writer.publish(b"one").unwrap_err();
    assert!(
        matches!(&error, WriterError::Unacknowledged { seq: 0, behind: 2, readers: 2, ended: None, .. }),
        "{error:?}: {error}"
    );
    let text = "message 0 of channel test is published, but 2 of 2 readers have not read it after 20ms";
    assert_eq!(error.to_string(), text);
    let mut slot = writer.reserve(3).unwrap().unwrap();
    slot.copy_from_slice(b"two");
    assert!(matches!(slot.commit(3), Err(WriterError::Unacknowledged { seq: 1, .. })));
    let mut batch = writer.batch();
    batch.push(b"three").unwrap();
    batch.push(b"four").unwrap();
    assert!(matches!(batch.commit(), Err(WriterError::Unacknowledged { seq: 3, .. })));
    // The timeout is for the whole call, although the channel would wait for longer.
    let short = Duration::from_millis(1);
    let error = writer.publish_within(b"five", short).unwrap_err();
    assert!(matches!(&error, WriterError::Unacknowledged { seq: 4, waited, .. } if *waited == short), "{error}");
    assert!(matches!(writer.publish_acked(b"six", short), Err(WriterError::Unacknowledged { seq: 5, .. })));
    for reader in &mut readers {
        for wanted in ["one", "two", "three", "four", "five", "six"] {
            assert_eq!(receive(reader), wanted.as_bytes());
        }
    }
    // All of these were published. A message that finds no space is not.
    while writer.try_publish(&[7; 64]).is_ok() {}
    let before = writer.messages();
    let error = writer.publish_within(&[7; 64], short).unwrap_err();
    assert!(matches!(error, WriterError::TimedOut { .. }), "{error}");
    let error = writer.publish_acked(&[7; 64], short).unwrap_err();
    assert!(matches!(error, WriterError::TimedOut { .. }), "{error}");
    assert_eq!(writer.messages(), before);
}

#[test]
fn publishing_without_waiting_waits_for_nothing() {
    let mut channel = TestChannel::new(4096, Geometry { wait_readers: 2, ack_timeout_ms: 1 << 40, ..acked(1 << 20) });
    let mut writer = channel.writer();
    let mut reader = channel.reader(Start::Oldest);
    let error = writer.try_publish(b"x").unwrap_err();
    let reason = Blocked::Readers { attached: 1, wanted: 2 };
    assert!(matches!(&error, WriterError::WouldBlock { reason: r, .. } if *r == reason), "{error:?}");
    assert_eq!(error.to_string(), "channel test waits for 2 readers: 1 attached");
    let mut other = channel.reader(Start::Oldest);
    // Neither reader has read the message, but the call returns.
    assert_eq!(writer.try_publish(b"x").unwrap(), Some(0));
    let error = writer.try_publish(&[0; 100_000]).unwrap_err();
    assert!(matches!(error, WriterError::WouldBlock { reason: Blocked::Growing { .. }, .. }), "{error}");
    channel.obey();
    assert_eq!(writer.try_publish(&[0; 100_000]).unwrap(), Some(1));
    assert_eq!((receive(&mut reader), receive(&mut other)), (b"x".to_vec(), b"x".to_vec()));
}

#[test]
fn the_end_of_the_role_while_a_message_waits_for_acknowledgement_says_that_it_is_published() {
    let mut channel = TestChannel::new(4096, Geometry { ack_timeout_ms: 1 << 40, ..acked(4096) });
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    let error = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| writer.publish(b"last").unwrap_err());
        // The reader holds the message, so it does not acknowledge it.
        let _held = reader.recv(SOON).unwrap();
        channel.send(ToWriter::Revoked { reason: "the channel is closing".to_owned() }, Vec::new());
        publishing.join().unwrap()
    });
    let WriterError::Unacknowledged { seq: 0, ended: Some(why), .. } = &error else { panic!("{error:?}") };
    assert!(why.contains("the channel is closing") && error.to_string().contains("is published"), "{error}");
    assert!(matches!(writer.publish(b"never"), Err(WriterError::Revoked { .. })));
}

#[test]
fn a_stopped_reader_that_publishing_waits_for_is_evicted_after_several_waits() {
    // There is enough space that no reader is evicted for lack of it.
    let mut channel = TestChannel::new(1 << 20, Geometry { evict_after_ms: 100, ..acked(1 << 20) });
    let (mut stuck, mut good) = (channel.reader(Start::Oldest), channel.reader(Start::Oldest));
    let mut writer = channel.writer();
    let mut late = 0;
    let lines = loop {
        assert!(late < 100, "it is not evicted");
        match writer.publish(b"x") {
            Err(WriterError::Unacknowledged { .. }) => late += 1,
            other => drop(other.unwrap()),
        }
        let lines = channel.obey();
        if !lines.is_empty() {
            break lines;
        }
        assert_eq!(receive(&mut good), b"x");
    };
    let [ToDaemon::Evicted { reader: 1, reason }] = &lines[..] else { panic!("{lines:?}") };
    let held = reason.split_once("it held the writer up for ").unwrap().1.split_once(" ms without").unwrap().0;
    assert!(held.parse::<u64>().unwrap() >= 100 && reason.contains("bytes behind"), "{reason}");
    assert!(late >= 4, "{late} waits of 20 ms");
    assert!(matches!(stuck.recv(NOW), Err(ReaderError::Evicted { .. })));
}

#[test]
fn a_shrink_while_a_message_waits_for_acknowledgement_evicts_nobody() {
    let geometry = Geometry { ack: false, ..geometry(1 << 20) };
    let mut channel = TestChannel::new(1 << 20, geometry);
    let (mut first, mut second) = (channel.reader(Start::Oldest), channel.reader(Start::Oldest));
    let mut writer = channel.writer();
    writer.publish(&[1; 100_000]).unwrap();
    for reader in [&mut first, &mut second] {
        assert_eq!(receive(reader).len(), 100_000);
        // This gives the space back, so that the writer can jump.
        assert!(reader.try_recv().unwrap().is_none());
    }
    std::thread::scope(|scope| {
        let publishing = scope.spawn(move || writer.publish_acked(b"x", Duration::from_secs(60)).map(|_| writer));
        assert_eq!(receive(&mut first), b"x");
        channel.shrink(8192);
        // The position after the message that is waited for. The jump takes both readers beyond this position.
        let strides = record::Strides::new(record::LEAST_ALIGN, 0);
        let behind = strides.of(100_000) + strides.of(1);
        wait_until("the reader has followed the jump", || {
            assert!(first.try_recv().unwrap().is_none());
            channel.readers[0].page.line.cursor.load(Ordering::SeqCst) > behind
        });
        assert_eq!(receive(&mut second), b"x");
        publishing.join().unwrap().unwrap();
    });
    assert!(channel.hear().is_empty(), "somebody was evicted");
}
