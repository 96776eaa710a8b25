//! Programs of a release with another layout of segments.

use shm_proto::{Client, Done, Request, Start};
use shm_proto::{Reader, Writer};

use super::{Daemon, PATIENCE};

const CHANNELS: &str = "[[channel]]\nname = \"main\"\n[[channel]]\nname = \"hand\"\nmode = \"handoff\"\n";

#[test]
fn a_program_of_another_layout_is_refused_with_both_layouts_and_no_segment_is_replaced() {
    let daemon = Daemon::start("layouts", CHANNELS);
    let (endpoint, channel) = (daemon.endpoint(), "main");
    let mut reader = Reader::attach(&endpoint, Some(channel), Start::Oldest).unwrap();
    Writer::attach(&endpoint, Some(channel)).unwrap().publish(b"before").unwrap();
    let before = daemon.log();
    for layout in [1, 3] {
        let (named, program) = (Some(channel.parse().unwrap()), None);
        let instance = reader.geometry().instance;
        for request in [
            Request::Attach { channel: named.clone(), program: program.clone(), layout, expect: None },
            Request::Publish { channel: named.clone(), program: program.clone(), layout, expect: None },
            Request::ResumeReader {
                channel: channel.parse().unwrap(),
                program: None,
                layout,
                expect: None,
                instance,
                moves: 0,
            },
            Request::ResumeWriter {
                channel: channel.parse().unwrap(),
                program,
                layout,
                expect: None,
                instance,
                capacity: 65_536,
            },
        ] {
            let refused = Client::connect(&endpoint, PATIENCE).unwrap().request(&request).unwrap_err().to_string();
            let says = format!(
                "channel main: its segment has layout 2, and the program understands layout {layout}; use a program and a \
                 daemon of the same release"
            );
            assert!(refused.contains(&says), "{request:?}: {refused}");
        }
        // A reader of a handoff channel maps no segment of ours.
        let handed = Request::Attach { channel: Some("hand".parse().unwrap()), program: None, layout, expect: None };
        let attached = Client::connect(&endpoint, PATIENCE).unwrap().request(&handed);
        assert!(matches!(attached, Ok(Done::Handoff(_))), "{attached:?}");
    }
    Writer::attach(&endpoint, Some(channel)).unwrap().publish(b"after").unwrap();
    for expected in [&b"before"[..], b"after"] {
        let mut bytes = Vec::new();
        reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        assert_eq!(bytes, expected);
    }
    let since = daemon.log()[before.len()..].to_owned();
    assert!(!since.contains("event=broken") && !since.contains("event=move"), "{since}");
}
