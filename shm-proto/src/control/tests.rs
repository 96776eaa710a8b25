//! What a newer peer may send and an older one has to live with, as literal lines.

use super::log::{LogEntry, LogEvent, Severity};
use super::{Done, Reply, Request, decode};
use crate::control::ErrorKind;
use crate::error::ProtocolError;
use crate::ring::link::{ToDaemon, ToReader, ToWriter};

#[test]
fn a_refusal_of_an_unknown_kind_keeps_its_message() {
    let line =
        r#"{"v":1,"error":{"kind":"quota","message":"channel cam: 3 of 3 MiB","hint":{"retry":true}},"trace":[7]}"#;
    let Reply::Error(refusal) = decode(line).unwrap() else { panic!("{line}") };
    assert_eq!((refusal.kind, refusal.to_string().as_str()), (ErrorKind::Unknown, "channel cam: 3 of 3 MiB"));
}

#[test]
fn lines_of_an_unknown_kind_are_told_from_faulty_ones_and_known_ones_lose_nothing_by_new_fields() {
    let unknown = r#"{"v":1,"event":"rotated","at":{"segment":[1,2]},"reason":7}"#;
    assert_eq!(decode::<ToWriter>(unknown).unwrap(), ToWriter::Unknown);
    assert_eq!(decode::<ToDaemon>(unknown).unwrap(), ToDaemon::Unknown);
    assert_eq!(decode::<ToReader>(unknown).unwrap(), ToReader::Unknown);

    let left = r#"{"v":1,"event":"reader_left","reader":3,"why":{"code":9},"later":null}"#;
    assert_eq!(decode::<ToWriter>(left).unwrap(), ToWriter::ReaderLeft { reader: 3 });
    let grow = r#"{"event":"grow","urgent":true,"capacity":4096,"v":1}"#;
    assert_eq!(decode::<ToDaemon>(grow).unwrap(), ToDaemon::Grow { capacity: 4096 });
    let closing = r#"{"v":1,"event":"closing","reason":"the end","successor":"cam2"}"#;
    assert_eq!(decode::<ToReader>(closing).unwrap(), ToReader::Closing { reason: "the end".into() });

    // What is not of the protocol at all is still an error, and so is a known line without what it needs.
    for faulty in [r#"{"v":1}"#, r#"{"v":1,"event":[7]}"#, r#"{"v":1,"event":"reader_left"}"#] {
        assert!(matches!(decode::<ToWriter>(faulty), Err(ProtocolError::Broken(_))), "{faulty}");
    }
}

#[test]
fn requests_of_an_unknown_kind_and_with_new_fields_are_understood_as_far_as_they_go() {
    let unknown = r#"{"v":1,"op":"fly","channel":"cam","height":[1]}"#;
    assert_eq!(decode::<Request>(unknown).unwrap(), Request::Unknown);
    let attach = r#"{"v":1,"op":"attach","program":"x","resume":{"page":1,"seq":7},"content":"json"}"#;
    assert_eq!(
        decode::<Request>(attach).unwrap(),
        Request::Attach { channel: None, program: Some("x".into()), layout: 1, expect: None }
    );
    let attach = r#"{"v":1,"op":"attach","layout":2,"expect":{"encoding":"cdr","schema":"a/b","version":7}}"#;
    let Request::Attach { expect: Some(expected), .. } = decode(attach).unwrap() else { panic!("{attach}") };
    assert_eq!(expected.to_string(), "cdr:a/b");
    let ping = r#"{"v":1,"op":"ping","channel":["not","a","name"]}"#;
    assert_eq!(decode::<Request>(ping).unwrap(), Request::Ping);
}

#[test]
fn who_names_no_layout_has_the_first_and_no_features() {
    for op in ["attach", "publish"] {
        let line = format!(r#"{{"v":1,"op":"{op}"}}"#);
        let layout = match decode::<Request>(&line).unwrap() {
            Request::Attach { layout, .. } | Request::Publish { layout, .. } => layout,
            other => panic!("{other:?}"),
        };
        assert_eq!(layout, 1, "{line}");
    }
    let geometry = r#""channel":"main","instance":7,"lineage":7,"max_capacity":4096,"max_message":8,"align":8,"on_full":"block",
        "ack":false,"ack_timeout_ms":1,"evict_after_ms":0,"wait_readers":0,"max_readers":1,"asymmetric":false"#;
    let attached = format!(r#"{{"v":1,"ok":{{"attach":{{"reader":1,"geometry":{{{geometry}}}}}}}}}"#);
    let Reply::Ok(Done::Attach(attached)) = decode(&attached).unwrap() else { panic!("{attached}") };
    assert_eq!((attached.geometry.layout, attached.geometry.features), (1, 0));
    let misfit = attached.geometry.misfit().unwrap();
    assert!(misfit.contains("has layout 1, and this program understands layout 2"), "{misfit}");
}

#[test]
fn answers_and_log_entries_lose_nothing_by_new_fields() {
    let pong =
        r#"{"v":1,"ok":{"ping":{"daemon":"shmd","version":"9","pid":7,"prefix":"p","uptime_ms":[1]}},"took_us":3}"#;
    let Reply::Ok(Done::Ping(pong)) = decode(pong).unwrap() else { panic!("{pong}") };
    assert_eq!((pong.version.as_str(), pong.pid), ("9", 7));
    let entry =
        r#"{"v":1,"seq":1,"time_ms":2,"severity":"notice","event":"sealed","span":{"id":7},"fields":{"by":"me"}}"#;
    let entry: LogEntry = decode(entry).unwrap();
    assert_eq!((&entry.severity, &entry.event), (&Severity::Other("notice".into()), &LogEvent::Other("sealed".into())));
    assert_eq!((entry.severity.to_string().as_str(), entry.to_string().as_str()), ("notice", "event=sealed by=me"));
    let json = serde_json::to_string(&entry).unwrap();
    assert!(json.contains(r#""severity":"notice","event":"sealed""#), "{json}");
}
