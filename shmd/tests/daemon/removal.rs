//! A channel that a reload removes: its readers get everything, and one and the same reason.

use shm_proto::{Reader, ReaderError, Start, Writer};

use super::{Daemon, PATIENCE};

const REMOVED: &str = "the channel was taken out of the configuration";
const KEPT: &str = "[[channel]]\nname = \"kept\"\n";
const BOTH: &str = "[[channel]]\nname = \"kept\"\n[[channel]]\nname = \"gone\"\n";

/// What the writer of the channel does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writes {
    Nobody,
    UntilTold,
    /// It never looks, and is not waited for any longer than a second.
    AndStays,
    /// As `AndStays`, and the daemon stops before that second is over.
    WhileTheDaemonStops,
}

#[test]
fn readers_of_a_removed_channel_learn_one_reason_whatever_its_writer_does() {
    for writes in [Writes::Nobody, Writes::UntilTold, Writes::AndStays, Writes::WhileTheDaemonStops] {
        let mut daemon = Daemon::start(&format!("removal-{writes:?}").to_lowercase(), BOTH);
        let mut reader = Reader::attach(&daemon.endpoint(), Some("gone"), Start::Oldest).unwrap();
        let mut writer = (writes != Writes::Nobody).then(|| Writer::attach(&daemon.endpoint(), Some("gone")).unwrap());
        let sent = writer.iter_mut().map(|writer| writer.publish(b"first").unwrap()).count();
        daemon.reload(KEPT).unwrap();
        if writes == Writes::UntilTold {
            writer = None;
        }
        if writes == Writes::WhileTheDaemonStops {
            assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
        }
        let mut bytes = Vec::new();
        for _ in 0..sent {
            reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
            assert_eq!(bytes, b"first");
        }
        let end = reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap_err();
        assert!(matches!(end, ReaderError::Closed { .. }), "{writes:?}: {end}");
        assert_eq!(reader.farewell(), Some(REMOVED), "{writes:?}");
        let logged = format!(" lost=0 reason=\"{REMOVED}\"");
        let detached = |line: &str| line.contains("event=detach channel=gone reader=1") && line.contains(&logged);
        daemon.await_log(|log| log.lines().any(detached));
        drop(writer);
    }
}
