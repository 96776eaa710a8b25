//! Programs that end the waits of their writer.

use std::sync::Arc;

use super::*;

#[test]
fn a_raised_flag_ends_every_wait_of_the_writer_and_nothing_that_needs_none() {
    let interrupted = |error: &WriterError| match error {
        WriterError::Interrupted { what } => what.clone(),
        other => panic!("{other}"),
    };
    // The message is published anyway.
    let unacknowledged =
        |error: &WriterError| assert!(matches!(error, WriterError::Unacknowledged { ended: Some(_), .. }), "{error}");
    let flag = Arc::new(AtomicBool::new(true));
    let mut channel = TestChannel::new(4096, Geometry { wait_readers: 1, ..geometry(4096) });
    let mut writer = channel.writer();
    writer.interrupt_on(Arc::clone(&flag));
    let what = interrupted(&writer.publish(b"early").unwrap_err());
    assert!(what.contains("1 reader "), "{what}");
    let mut reader = channel.reader(Start::Oldest);
    let full = loop {
        if let Err(error) = writer.publish(&[7; 100]) {
            break error;
        }
    };
    let what = interrupted(&full);
    assert!(what.contains("space in channel test") && writer.messages() > 20, "{what}");
    flag.store(false, Ordering::SeqCst);
    for n in 0..writer.messages() {
        assert_eq!(receive(&mut reader), [7; 100], "message {n}");
    }
    // The same with a flag that is set while the writer waits.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            flag.store(true, Ordering::SeqCst);
        });
        unacknowledged(&writer.publish_acked(b"unread", Duration::from_secs(60)).unwrap_err());
    });
    unacknowledged(&writer.publish_acked(b"unread", Duration::from_secs(60)).unwrap_err());
    assert_eq!((receive(&mut reader), receive(&mut reader)), (b"unread".to_vec(), b"unread".to_vec()));
}
